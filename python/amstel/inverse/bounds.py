"""Limits for a network's output: values must stay within the range of those around them."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import max_pool2d


def within(
    x: Tensor, y: Tensor, reach: int | tuple[int, int], more: float | Tensor = 0.0, scale: int = 1
) -> Tensor:
    """x clamped to the range of y within `reach` pixels, widened by `more` times that range on both sides.

    So x has no structure where y has none.

    Args:
        x: [N, C, scale H, scale W].
        y: [N, C, H, W].
        reach: rows and columns on each side.
        more: a number, or a tensor that broadcasts to y.
    """
    rows, columns = (reach, reach) if isinstance(reach, int) else reach
    high, low = (_greatest(t, rows, columns) for t in (y, -y))
    low = -low
    beyond = more * (high - low)
    low, high = low - beyond, high + beyond
    if scale > 1:
        low, high = (t.repeat_interleave(scale, 2).repeat_interleave(scale, 3) for t in (low, high))
    return x.maximum(low).minimum(high)


def _greatest(t: Tensor, rows: int, columns: int) -> Tensor:
    """By rows and by columns, which is less work than squares."""
    t = max_pool2d(t, (2 * rows + 1, 1), 1, (rows, 0))
    return max_pool2d(t, (1, 2 * columns + 1), 1, (0, columns))
