"""Common checks of layers over sequences of maps or volumes: the input, and the states of all layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from amstel import _check
from amstel._words import counted
from amstel.ops.conv_lstm import checked_state


def steps_first(x: Tensor, channels: int, batch_first: bool, places: str = "H, W") -> Tensor:
    """x as [T, N, C_in, ...], checked; `places` are its last dimensions."""
    _check.dense("x", x, f"a tensor [T, N, C_in, {places}]")
    good = x.dim() == 3 + len(places.split(", ")) and x.shape[2] == channels
    if not good or not x.shape[1 if batch_first else 0] or 0 in x.shape[3:]:
        first = "N, T >= 1" if batch_first else "T >= 1, N"
        _check.fail("x", f"[{first}, {channels}, {places}]", x)
    return x.transpose(0, 1) if batch_first else x


def states(name: str, value: Any, widths: Sequence[int], x: Tensor, cell: bool = False) -> list[Tensor]:
    """One state [N, C_l, ...], h or with `cell` c, for each layer and direction of x [T, N, C_in, ...], checked."""
    expected = f"{counted(len(widths), 'state')}, one per layer and direction"
    if not isinstance(value, (Tensor, tuple, list)) or (isinstance(value, Tensor) and not value.dim()):
        _check.fail_type(name, expected, value)
    if len(value) != len(widths):
        raise ValueError(f"`{name}` must be {expected}, got {len(value)}")
    return [
        checked_state(name, part, (x.shape[1], width, *x.shape[3:]), x, cell)
        for part, width in zip(value, widths, strict=True)
    ]
