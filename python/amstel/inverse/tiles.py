"""Large images in overlapping tiles, so that memory stays bounded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

#: Pixels a side of what the network sees at once, and how many of them lie beyond the part that is kept.
TILE, OVERLAP = 512, 48
#: The smallest tile.
LEAST = 128


def tiled(
    model: Callable[..., list[Tensor]],
    y: Tensor,
    start: Tensor,
    physics: Callable[[tuple[slice, ...]], Any],
    *,
    scale: int = 1,
    tile: int,
    progress: Callable[[int], None] | None,
    kept: Sequence[int] = (-1,),
) -> Tensor:
    """The last estimate, or those that are `kept`, as channels, from the measurement y and the estimate `start`, `scale` times as large as y.

    `physics(part)` is the forward model of y[part].
    """
    if len(kept) == 1:
        x = torch.empty_like(start)  # in the same order of memory
    else:
        x = start.new_empty(len(start), len(kept) * start.shape[1], *start.shape[2:])
    for images, given, inner in _windows(y.shape, tile // scale, -(-OVERLAP // (8 * scale)) * 8):
        part: tuple[slice, ...] = (images, slice(None), *given)
        whole: tuple[slice, ...] = (images, slice(None), *_times(scale, given))
        into: tuple[slice, ...] = (images, slice(None), *_times(scale, inner))
        rows, columns = _times(scale, inner, [g.start for g in given])
        estimates = model(y[part].contiguous(), physics(part), initial=start[whole].contiguous())
        found = torch.cat([estimates[k] for k in kept], 1)
        x[into] = found[:, :, rows, columns]
        if progress is not None:
            progress(x[into][:, 0].numel() // scale**2)
    return x


def at(noise: Tensor, part: tuple[slice, ...]) -> Tensor:
    """The noise [N], or its map [N, 1, H, W], of a tile."""
    return noise[part] if noise.dim() == 4 else noise[part[0]]


def _windows(shape: torch.Size, tile: int, overlap: int) -> Iterator[tuple[slice, list[slice], list[slice]]]:
    """Which images, which rows and columns of them the network sees, and which of those are kept.

    Small images go together; windows begin at multiples of 8, so that a network with a stride sees its own grid.
    """
    sides = [_side(size, tile, overlap) for size in shape[2:]]
    together = max(1, tile**2 // (shape[2] * shape[3]))
    for first in range(0, shape[0], together):
        for rows in sides[0]:
            for columns in sides[1]:
                given, kept = zip(rows, columns, strict=True)
                yield slice(first, min(first + together, shape[0])), list(given), list(kept)


def _times(scale: int, slices: Sequence[slice], origin: Sequence[int] = (0, 0)) -> list[slice]:
    """Slices of an image that is `scale` times as large and begins at `origin`."""
    return [slice(scale * (s.start - o), scale * (s.stop - o)) for s, o in zip(slices, origin, strict=True)]


def _side(size: int, tile: int, overlap: int) -> list[tuple[slice, slice]]:
    if size <= tile:
        return [(slice(0, size), slice(0, size))]
    step = math.ceil(size / math.ceil(size / max(8, tile - 2 * overlap)) / 8) * 8
    found = []
    for start in range(0, size, step):
        stop = min(start + step, size)
        found.append((slice(max(0, start - overlap), min(size, stop + overlap)), slice(start, stop)))
    return found


def in_strips(shape: torch.Size, pixels: int) -> Iterator[tuple[slice, slice]]:
    """Strips of rows with about this many pixels, with their surroundings, and the rows to keep; small images are one strip."""
    height, rows = shape[2], math.ceil(max(TILE, pixels / shape[3] / shape[0]) / 8) * 8
    count = max(1, round(height / rows))
    step = math.ceil(height / count / 8) * 8
    for start in range(0, height, step):
        stop = min(height, start + step)
        yield slice(max(0, start - 2 * OVERLAP), min(height, stop + 2 * OVERLAP)), slice(start, stop)
