"""Batches of sequences with different lengths: which steps count."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

from amstel import _check, _checks
from amstel._words import counted


def kept(lengths: Tensor | None, steps: int, count: int, device: torch.device) -> Tensor | None:
    """[T, N]: which steps lie before the end of their sequence. None: all do.

    The values are looked at where that is possible: not while a program is compiled or captured.
    """
    if lengths is None:
        return None
    _check.dense("lengths", lengths, "None or N integers from 1 to T")

    def fail(got: object) -> NoReturn:
        _check.fail(
            "lengths", f"None or {counted(count, 'integer')}, int32 or int64, from 1 to T = {steps}", got
        )

    # As conv_lstm's own: the types that are indices and not masks.
    if lengths.shape != (count,) or lengths.dtype not in (torch.int32, torch.int64):
        fail(lengths)
    seen = _checks.visible(lengths)
    if seen is not None and not (seen.is_cuda and torch.cuda.is_current_stream_capturing()):
        with torch._C._DisableFuncTorch():
            if bool(((seen < 1) | (seen > steps)).any()):
                fail(seen.tolist())
    return torch.arange(steps, device=device)[:, None] < lengths.to(device)
