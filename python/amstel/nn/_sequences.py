"""Common checks of layers over sequences of maps or volumes: the input, and the states of all layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from amstel import _check
from amstel._words import counted
from amstel.nn._conv_lstm import check_like


def steps_first(x: Tensor, channels: int, batch_first: bool, weight: Tensor, places: str = "H, W") -> Tensor:
    """x as [T, N, C_in, ...], checked; `places` are its last dimensions."""
    _check.dense("x", x, f"a tensor [T, N, C_in, {places}]")
    good = x.dim() == 3 + len(places.split(", ")) and x.shape[2] == channels
    if not good or not x.shape[1 if batch_first else 0] or 0 in x.shape[3:]:
        first = "N, T >= 1" if batch_first else "T >= 1, N"
        _check.fail("x", f"[{first}, {channels}, {places}]", x)
    check_like("x", x, weight)
    return x.transpose(0, 1) if batch_first else x


def states(
    name: str, value: Any, widths: Sequence[int], x: Tensor, weight: Tensor | None = None
) -> list[Tensor]:
    """One state [N, C_l, ...] for each layer and direction of x [T, N, C_in, ...], checked; like `weight`, if given."""
    expected = f"{counted(len(widths), 'state')}, one per layer and direction"
    if not isinstance(value, (Tensor, tuple, list)) or (isinstance(value, Tensor) and not value.dim()):
        _check.fail_type(name, expected, value)
    if len(value) != len(widths):
        raise ValueError(f"`{name}` must be {expected}, got {len(value)}")
    for part, width in zip(value, widths, strict=True):
        shape = (x.shape[1], width, *x.shape[3:])
        if _check.dense(name, part, f"{list(shape)} in each layer").shape != shape:
            _check.fail(name, f"{list(shape)} in each layer", part)
        if weight is not None:
            check_like(name, part, weight)
    return list(value)
