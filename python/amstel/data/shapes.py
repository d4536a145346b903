"""Synthetic clips of moving shapes, in which only the motion reveals the class."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from amstel._check import describe, ends, fail, integer, number
from amstel.data._clip import Clip
from amstel.media import _arguments

# Counter-clockwise, as angles are.
DIRECTIONS = {
    2: ("right", "left"),
    4: ("right", "up", "left", "down"),
    8: ("right", "up right", "up", "up left", "left", "down left", "down", "down right"),
}
SHAPES = ("disc", "square", "triangle", "cross")


def _coverage(shape: str, radius: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How much of each pixel the shape covers, 0..1; x and y are the pixels' places seen from its center."""
    if shape == "disc":
        outside = np.hypot(x, y) - radius
    elif shape == "square":
        outside = np.maximum(abs(x), abs(y)) - radius
    elif shape == "triangle":
        outside = np.maximum((2 * abs(x) - y - radius) / math.sqrt(5), y - radius)
    else:
        long, wide = np.maximum(abs(x), abs(y)), np.minimum(abs(x), abs(y))
        outside = np.maximum(long - radius, wide - radius / 3)
    return np.clip(0.5 - outside, 0, 1)


def _color(rng: np.random.Generator) -> np.ndarray:
    """A strong, light color [3, 1, 1]."""
    hue = rng.uniform(0, 6)
    rgb = np.clip(abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0.05, 1) * rng.uniform(0.8, 1)
    return rgb.astype(np.float32)[:, None, None]


def generate_moving_shapes(
    count: int,
    frames: int = 16,
    size: int = 64,
    seed: int = 0,
    classes: int = 4,
    distractors: int = 0,
    speed: float | tuple[float, float] = (1.0, 2.0),
    noise: float = 0.03,
    wrap: bool = True,
) -> list[Clip]:
    """Synthetic clips: a colored shape moves over a textured background, and the class is its direction.

    The shape is a disc, square, triangle or cross of random color and size. Its position in the first frame is
    uniform over all places where it is fully visible. Where it would leave the picture, it enters again, whole, on the
    other side. So its position is uniform in every frame of every class, and its appearance does not depend on the class
    either: **no single frame says anything about the class**. (Without wrapping around, this is impossible: a steady
    motion to the right shifts the mean position from the first frame to the last, and a motion to the left shifts it the
    other way.) With `wrap=False`, the shape moves straight along a path placed at random: its track is in one piece, but
    the first and last frames hint at the class, more so for longer paths.

    Clip i depends only on `seed` and i, and its class is i modulo `classes`.

    Args:
        count: number of clips.
        frames: T, frames per clip.
        size: height and width in pixels, at least 16.
        seed: the same seed gives the same clips.
        classes: 2 (right, left), 4 (right, up, left, down) or 8 (with the diagonals); see `DIRECTIONS`.
        distractors: number of gray shapes, unrelated to the class; each rests or moves in its own direction.
        speed: pixels per frame, or the range from which the speed of each clip is drawn.
        noise: standard deviation of the pixel noise, which is new in each frame; pixels are in 0..1.
        wrap: whether a shape that leaves the picture enters again on the other side.

    Returns:
        list of `Clip`, with true boxes [T, 4].

    Raises:
        TypeError: an argument is not a number (this error is a ValueError, too).
        ValueError: an argument is out of its range; the speed is so high that the direction is no longer defined (half
            the distance that the shape can move) or, with `wrap=False`, that the path does not fit.

    Example:
        >>> clips = amstel.data.generate_moving_shapes(8, frames=12, classes=2)
        >>> clips[1]
        Clip(left_00001, label=1, frames=[12, 64, 64, 3], boxes)
    """
    count, frames, size, seed, distractors = (
        _arguments.integer(argument, value, least)
        for argument, value, least in (
            ("count", count, 0),
            ("frames", frames, 1),
            ("size", size, 16),
            ("seed", seed, 0),
            ("distractors", distractors, 0),
        )
    )
    if (classes := integer("classes", classes, expected="2, 4 or 8")) not in DIRECTIONS:
        fail("classes", "2, 4 or 8", classes)
    noise = number("noise", noise, "in [0, 1]", least=0, most=1)
    expected = "a number or (least, greatest)"
    several = isinstance(speed, Sequence) and not isinstance(speed, (str, bytes))
    several |= getattr(speed, "ndim", 0) == 1
    low, high = ends("speed", speed if several else (speed, speed), expected)
    room = size - 2 * _radii(size)[1]
    limit = room / 2 if wrap else room / max(1, frames - 1)
    if not 0 < low <= high < limit:
        raise ValueError(f"`speed` must be in (0, {limit:.3g}) for these sizes, got {describe(speed)}")
    return [
        _generate(
            np.random.default_rng([seed, i]), i, frames, size, classes, distractors, (low, high), noise, wrap
        )
        for i in range(count)
    ]


def _radii(size: int) -> tuple[float, float]:
    return size / 13, size / 8


def _generate(
    rng: np.random.Generator,
    index: int,
    frames: int,
    size: int,
    classes: int,
    distractors: int,
    speed: tuple[float, float],
    noise: float,
    wrap: bool,
) -> Clip:
    label = index % classes

    def track(radius: float, step: np.ndarray) -> np.ndarray:
        """Center [T, 2] of a shape that moves by `step` a frame."""
        free = size - 2 * radius
        way = np.arange(frames)[:, None] * step
        if wrap:
            return radius + (rng.uniform(0, free, 2) + way) % free
        # The range of starting points from which all of the path lies inside.
        return radius + rng.uniform(np.maximum(0, -way[-1]), free - np.maximum(0, way[-1])) + way

    def motion(angle: float) -> np.ndarray:
        return rng.uniform(*speed) * np.array([math.cos(angle), -math.sin(angle)])

    radius = rng.uniform(*_radii(size))
    center = track(radius, motion(2 * math.pi * label / classes))
    actors = [(rng.choice(SHAPES), radius, _color(rng), center)]
    for _ in range(distractors):
        other = rng.uniform(*_radii(size))
        step = motion(rng.uniform(0, 2 * math.pi)) * rng.integers(2)
        gray = np.full((3, 1, 1), rng.uniform(0.4, 0.8), np.float32)
        # Before the shape itself, which is drawn over them.
        actors.insert(0, (rng.choice(SHAPES), other, gray, track(other, step)))

    x, y = np.meshgrid(*[np.arange(size, dtype=np.float32) + 0.5] * 2)
    still = np.full((size, size), 0.18, np.float32)
    for _ in range(3):
        wave, phase = rng.uniform(-75, 75, 2) / size, rng.uniform(0, 2 * math.pi)
        still += 0.04 * np.sin(wave[0] * x + wave[1] * y + phase)
    movie = noise * rng.standard_normal((frames, 3, size, size), np.float32)
    for t in range(frames):
        picture: np.ndarray = still[None]
        for shape, extent, color, middle in actors:
            # As Python numbers, which leave float32 what it is.
            mx, my = middle[t].tolist()
            share = _coverage(shape, extent, x - mx, y - my)
            picture = picture + share * (color - picture)
        movie[t] += picture
    pictures = np.rint(np.clip(movie, 0, 1) * np.float32(255)).astype(np.uint8)
    boxes = np.concatenate([center - radius, center + radius], axis=1).astype(np.float32)
    name = f"{DIRECTIONS[classes][label].replace(' ', '_')}_{index:05d}"
    return Clip(torch.from_numpy(pictures).movedim(1, -1).contiguous(), label, name, torch.from_numpy(boxes))
