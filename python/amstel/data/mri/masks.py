"""Sampling masks of k-space: columns, Poisson discs, radial lines."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from amstel._check import fail, fail_type, integer, number


def _acceleration(acceleration: float) -> float:
    return number("acceleration", acceleration, "a finite number >= 1", least=1)


def _calibration(calibration: float) -> float:
    return number("calibration", calibration, "a finite number >= 0", least=0)


def sides(shape: Sequence[int]) -> tuple[int, int]:
    """(H, W), checked."""
    expected = "two positive integers (H, W)"
    if not isinstance(shape, (tuple, list)) and not (isinstance(shape, np.ndarray) and shape.ndim == 1):
        fail_type("shape", expected, shape)
    if len(shape) != 2:
        fail("shape", expected, shape)
    height, width = (integer("shape", side, 1, expected) for side in shape)
    return height, width


def cartesian_mask(
    width: int,
    acceleration: float,
    center_fraction: float = 0.08,
    rng: np.random.Generator | None = None,
    *,
    equispaced: bool = False,
) -> Tensor:
    """Whole columns of k-space: bool [width], the central ones and some of the others.

    round(center_fraction * width) central columns are sampled, and as many others as make one in `acceleration` in
    total: drawn without replacement, or evenly spaced from a random offset.
    Source: Zbontar et al., "fastMRI: an open dataset and benchmarks for accelerated MRI", 2018, section 4.9.

    Raises:
        ValueError: an acceleration below 1, a fraction outside (0, 1], or more columns in the center than in total.

    Example:
        >>> mask = amstel.data.mri.cartesian_mask(320, acceleration=4, center_fraction=0.08)
        >>> int(mask.sum()), bool(mask[147:173].all())
        (80, True)
    """
    width, acceleration = integer("width", width, 1), _acceleration(acceleration)
    number("center_fraction", center_fraction, "a number in (0, 1]", above=0, most=1)
    rng = np.random.default_rng(0) if rng is None else rng
    center, total = max(1, round(center_fraction * width)), round(width / acceleration)
    if center > total:
        fail("center_fraction", f"at most 1 / acceleration = {1 / acceleration:.3g}", center_fraction)
    mask = torch.zeros(width, dtype=torch.bool)
    first = width // 2 - center // 2
    mask[first : first + center] = True
    others = np.flatnonzero(~mask.numpy())
    count = total - center
    if equispaced and count:
        chosen = others[((np.arange(count) + rng.random()) * (len(others) / count)).astype(int)]
    else:
        chosen = rng.choice(others, count, replace=False)
    mask[torch.from_numpy(chosen)] = True
    return mask


def poisson_disc_mask(
    shape: Sequence[int], acceleration: float, calibration: float = 16, rng: np.random.Generator | None = None
) -> Tensor:
    """Points of k-space that keep a distance from each other, and a full disc in the center: bool [H, W].

    Points are drawn one by one and accepted if no other is closer than 0.61 sqrt(acceleration), until one in
    `acceleration` is sampled; then the disc is added. The distance is about 3/4 of the largest that would leave enough
    room.
    Source: Cook, "Stochastic sampling in computer graphics", ACM TOG 5, 1986.

    Args:
        shape: (H, W).
        acceleration: number of points per sampled one, outside the disc.
        calibration: radius of the central disc in samples.

    Example:
        >>> mask = amstel.data.mri.poisson_disc_mask((64, 64), acceleration=8, calibration=4)
        >>> mask.shape, bool(mask[28:36, 32].all())
        (torch.Size([64, 64]), True)
    """
    height, width = sides(shape)
    acceleration, calibration = _acceleration(acceleration), _calibration(calibration)
    rng = np.random.default_rng(0) if rng is None else rng
    radius, left = 0.61 * math.sqrt(acceleration), round(height * width / acceleration)
    reach = min(math.ceil(radius), max(height, width))
    near = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1]) < radius
    blocked = np.zeros((height + 2 * reach, width + 2 * reach), bool)
    mask = np.zeros((height, width), bool)
    for place in rng.permutation(height * width).tolist():
        if not left:
            break
        i, j = divmod(place, width)
        if not blocked[i + reach, j + reach]:
            mask[i, j] = True
            blocked[i : i + 2 * reach + 1, j : j + 2 * reach + 1] |= near
            left -= 1
    return torch.from_numpy(mask | _disc(height, width, calibration))


def radial_mask(
    shape: Sequence[int], acceleration: float, calibration: float = 8, rng: np.random.Generator | None = None
) -> Tensor:
    """Straight lines through the center, on the grid, and a full disc there: bool [H, W].

    The lines follow each other at the golden angle, starting at a random one, and end at the border. Lines are added
    until one point in `acceleration` is sampled.
    Source: Winkelmann et al., "An optimal radial profile order based on the golden ratio", IEEE TMI 26, 2007.

    Args:
        shape: (H, W).
        acceleration: number of points per sampled one.
        calibration: radius of the central disc in samples.

    Example:
        >>> mask = amstel.data.mri.radial_mask((64, 64), acceleration=4)
        >>> mask.shape, bool(mask[32, 32]), 0.25 < float(mask.float().mean()) < 0.28
        (torch.Size([64, 64]), True, True)
    """
    height, width = sides(shape)
    acceleration, calibration = _acceleration(acceleration), _calibration(calibration)
    rng = np.random.default_rng(0) if rng is None else rng
    mask = _disc(height, width, calibration)
    along = np.linspace(-1, 1, 2 * max(height, width) + 1)
    angle = rng.uniform(0, math.pi)
    while mask.sum() < mask.size / acceleration:
        dy, dx = math.sin(angle), math.cos(angle)
        far = min(height / 2 / max(abs(dy), 1e-9), width / 2 / max(abs(dx), 1e-9))
        i = np.rint(height // 2 + along * far * dy).astype(int).clip(0, height - 1)
        j = np.rint(width // 2 + along * far * dx).astype(int).clip(0, width - 1)
        mask[i, j] = True
        angle += math.pi * 2 / (1 + math.sqrt(5))
    return torch.from_numpy(mask)


def _disc(height: int, width: int, radius: float) -> np.ndarray:
    y, x = np.ogrid[:height, :width]
    return np.hypot(y - height // 2, x - width // 2) < radius
