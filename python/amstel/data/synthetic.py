"""Drawings as training images, for what photographs lack: flat areas, ramps, checkerboards, text-like strokes, contrast."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from amstel.data.images import patches


def drawings(images: Sequence[np.ndarray], count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """`count` squares float32 [count, C, size, size] in [0, 1], of five kinds, in random colors.

    The kinds are: flat; a ramp; stripes or a checkerboard; strokes, bars and rings on one color, as in text and line art;
    and patches of `images` with the contrast raised until they saturate. Seven in ten are rounded to 8 bits.

    Args:
        images: uint8 arrays [H, W] or [H, W, 3], which also determine the number of channels.
        count, size: number of squares, and their side.
        rng: the source of all random numbers.

    Example:
        >>> photograph = np.zeros((40, 50), np.uint8)
        >>> drawings([photograph], 3, 16, np.random.default_rng(0)).shape
        (3, 1, 16, 16)
    """
    channels = 1 if images[0].ndim == 2 else images[0].shape[2]
    out = np.empty((count, channels, size, size), np.float32)
    for square in out:
        ends = [np.broadcast_to(_color(channels, rng), (channels,)) for _ in range(2)]
        kind = int(rng.integers(5))
        if kind == 4:
            patch = patches(images, 1, size, rng)[0] / 255.0
            patch = (patch - rng.random()) * rng.uniform(1.5, 4) + rng.random()
            square[:] = patch.clip(0, 1)
        else:
            share = (_flat, _ramp, _checks, _strokes)[kind](size, rng)
            share = np.rot90(share, int(rng.integers(4)))
            square[:] = ends[0][:, None, None] * (1 - share) + ends[1][:, None, None] * share
        if rng.random() < 0.7:
            square[:] = np.rint(255 * square) / 255
    return out


def _color(channels: int, rng: np.random.Generator) -> np.ndarray:
    """Black, white, or anything; half of the colors are gray."""
    kind = int(rng.integers(3))
    if kind < 2:
        return np.array([float(kind)])
    return rng.random(channels if rng.random() < 0.5 else 1)


def _flat(size: int, rng: np.random.Generator) -> np.ndarray:
    return np.zeros((size, size))


def _ramp(size: int, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    angle = rng.uniform(0, 2 * math.pi)
    height = math.cos(angle) * x + math.sin(angle) * y
    return (height - height.min()) / max(np.ptp(height), 1e-9)


def _checks(size: int, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    width, height = (int(n) for n in rng.integers(1, 17, 2))
    stripes = rng.random() < 0.4
    return (x // width + (0 if stripes else y // height)) % 2 * 1.0


def _strokes(size: int, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    share = np.zeros((size, size))
    for _ in range(int(rng.integers(4, 40))):
        top, left = (int(n) for n in rng.integers(0, size, 2))
        width, length, kind = int(rng.integers(1, 4)), int(rng.integers(3, 16)), int(rng.integers(4))
        if kind == 0:
            share[top : top + length, left : left + width] = 1
        elif kind == 1:
            share[top : top + width, left : left + length] = 1
        elif kind == 2:
            angle = rng.uniform(0, math.pi)
            across = (x - left) * math.cos(angle) + (y - top) * math.sin(angle)
            near = np.maximum(abs(x - left), abs(y - top)) < length
            share[(abs(across) < width / 2) & near] = 1
        else:
            share[abs(np.hypot(x - left, y - top) - length / 2) < width / 2 + 0.3] = 1
    return share
