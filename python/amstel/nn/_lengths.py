"""Sequences of different lengths side by side: which steps count."""

from __future__ import annotations

import torch
from torch import Tensor

from amstel import _check, _checks


def kept(lengths: Tensor | None, steps: int, count: int, device: torch.device) -> Tensor | None:
    """[T, N]: which steps lie before the end of their sequence. None: all do.

    The values are looked at where that is possible: not while a program is compiled or captured.
    """
    if lengths is None:
        return None
    expected = f"None or {count} integers from 1 to T = {steps}"
    _check.dense("lengths", lengths, expected)
    whole = not (lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool)
    if lengths.shape != (count,) or not whole:
        _check.fail("lengths", expected, lengths)
    hidden = _checks.hidden(lengths)
    hidden = hidden or (lengths.is_cuda and torch.cuda.is_current_stream_capturing())
    if not hidden and count and (int(lengths.min()) < 1 or int(lengths.max()) > steps):
        _check.fail("lengths", expected, lengths.tolist())
    return torch.arange(steps, device=device)[:, None] < lengths.to(device)
