"""Synthetic sequences of bouncing digits, for forecasting the next frames."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from amstel import _check
from amstel.media import _arguments

# Seven strokes of a clock's digit, from (x, y) to (x, y) in a box of 1 x 2, and which of them each digit has.
_STROKES = np.array(
    [
        [(0, 0), (1, 0)],
        [(0, 0), (0, 1)],
        [(1, 0), (1, 1)],
        [(0, 1), (1, 1)],
        [(0, 1), (0, 2)],
        [(1, 1), (1, 2)],
        [(0, 2), (1, 2)],
    ],
    np.float32,
)
_DIGITS = ("012456", "25", "02346", "02356", "1235", "01356", "013456", "025", "0123456", "012356")


def generate_bouncing_digits(
    count: int,
    frames: int = 20,
    size: int = 64,
    digits: int = 2,
    seed: int = 0,
    speed: tuple[float, float] = (2.0, 4.0),
    start: int = 0,
) -> Tensor:
    """Sequences like Moving MNIST: white digits on black move straight, bounce off the walls and cross each other.

    The digits look like those of a pocket calculator, with random slant, width, height and stroke; where they
    overlap, the brighter pixel is shown. They keep their speed and bounce when their box hits a wall, so the next
    frame follows from several previous frames, but not from one. Sequence i depends only on `seed` and i.

    Args:
        count: number of sequences.
        frames: T, frames per sequence.
        size: height and width in pixels, at least 16.
        digits: digits per sequence.
        seed: the same seed gives the same sequences.
        speed: lowest and highest speed in pixels per frame at size=64; other sizes scale it.
        start: index of the first sequence, so that training can generate one batch at a time.

    Returns:
        uint8 [count, T, size, size], gray.

    Raises:
        ValueError or TypeError: an argument out of its range.

    Source: after N. Srivastava, E. Mansimov, R. Salakhutdinov, Unsupervised Learning of Video Representations using
    LSTMs, ICML 2015 (whose digits are those of MNIST).

    Example:
        >>> amstel.data.generate_bouncing_digits(4, frames=10, size=32).shape
        torch.Size([4, 10, 32, 32])
    """
    for argument, value, least in (("count", count, 0), ("frames", frames, 1), ("size", size, 16)):
        _arguments.integer(argument, value, least)
    _arguments.integer("digits", digits, 1)
    _arguments.integer("seed", seed, 0)
    _arguments.integer("start", start, 0)
    low, high = _check.ends("speed", speed, "(least, greatest) in (0, 16)", above=0, below=16)
    found = np.zeros((count, frames, size, size), np.uint8)
    for index in range(count):
        rng = np.random.default_rng([seed, start + index])
        movie = np.zeros((frames, size, size), np.float32)
        for _ in range(digits):
            np.maximum(movie, _digit(rng, frames, size, (low, high)), out=movie)
        found[index] = np.rint(255 * movie)
    return torch.from_numpy(found)


def _digit(rng: np.random.Generator, frames: int, size: int, speed: tuple[float, float]) -> np.ndarray:
    """One digit on its way, [T, size, size] in 0..1."""
    strokes = _STROKES[[int(s) for s in _DIGITS[rng.integers(10)]]]
    width, height = size * rng.uniform(0.14, 0.2), size * rng.uniform(0.28, 0.36)
    slant, thick = rng.uniform(-0.15, 0.25) * width, size * rng.uniform(0.022, 0.032)
    points = strokes * (width, height / 2)
    points[..., 0] += slant * (1 - strokes[..., 1])
    points -= points.min((0, 1)) - thick
    extent = points.max((0, 1)) + thick
    angle, pace = rng.uniform(0, 2 * np.pi), rng.uniform(*speed) * size / 64
    step = pace * np.array([np.cos(angle), np.sin(angle)])
    room = size - extent
    # A way that folds at the walls: the distance of (start + t step) from the nearest multiple of twice the room.
    way = (rng.uniform(0, room) + np.arange(frames)[:, None] * step) % (2 * room)
    corner = np.where(way > room, 2 * room - way, way).astype(np.float32)
    center = np.arange(size, dtype=np.float32) + 0.5
    x, y = center - corner[:, 0, None], center - corner[:, 1, None]
    far = np.full((frames, size, size), np.inf, np.float32)
    for (ax, ay), (bx, by) in points.astype(np.float32):
        dx, dy = bx - ax, by - ay
        px, py = (x - ax)[:, None, :], (y - ay)[:, :, None]
        along = np.clip((px * dx + py * dy) / max(dx * dx + dy * dy, 1e-6), 0, 1)
        np.minimum(far, np.hypot(px - along * dx, py - along * dy), out=far)
    return np.clip(thick - far + 0.5, 0, 1)
