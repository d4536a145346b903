"""Kernels of common blurs, for `Deblurring` and `amstel.restore(image, "deblur", kernel=...)`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from amstel import _check

#: Points a side of a pixel at which a disc is looked at.
_FINE = 15


def gaussian_kernel(sigma: float, size: int | None = None) -> Tensor:
    """A Gaussian, exp(-(i² + j²) / (2 sigma²)), normalized to sum 1: float32 [size, size].

    Args:
        sigma: in pixels, > 0.
        size: odd; default: 3 sigma on either side.

    Example:
        >>> gaussian_kernel(1.6).shape
        torch.Size([11, 11])
    """
    sigma = _check.number("sigma", sigma, "a finite number > 0", above=0)
    size = 2 * math.ceil(3 * sigma) + 1 if size is None else _odd("size", size)
    i = torch.arange(size, dtype=torch.float64) - size // 2
    row = torch.exp(-i.square() / (2 * sigma**2))
    return (torch.outer(row, row) / row.sum() ** 2).float()


def motion_kernel(length: float, angle: float = 0.0) -> Tensor:
    """The blur of a camera that moves along a line: float32, square, with odd sides and sum 1.

    Before normalization, the weight of a pixel is 1 minus its distance to the line, or 0 from a distance of 1 on.

    Args:
        length: of the line in pixels, including both ends; >= 1, where 1 is no blur.
        angle: in degrees, counterclockwise from the direction of the rows.

    Example:
        >>> motion_kernel(3).round(decimals=2)
        tensor([[0.0000, 0.0000, 0.0000],
                [0.3300, 0.3300, 0.3300],
                [0.0000, 0.0000, 0.0000]])
    """
    half = (_check.number("length", length, "a finite number >= 1", least=1) - 1) / 2
    angle = math.radians(_check.number("angle", angle))
    reach = math.ceil(half)
    i = torch.arange(-reach, reach + 1, dtype=torch.float64)
    along = (i * math.cos(angle) - i[:, None] * math.sin(angle)).clamp(-half, half)
    distance = torch.hypot(i - along * math.cos(angle), i[:, None] + along * math.sin(angle))
    kernel = (1 - distance).clamp_min(0)
    return (kernel / kernel.sum()).float()


def disk_kernel(radius: float) -> Tensor:
    """A disk, the image of a point through a lens out of focus: float32, square, with odd sides and sum 1.

    Args:
        radius: in pixels, > 0; the weight of a pixel is the part of it that lies inside the disk.

    Example:
        >>> disk_kernel(2.5).shape
        torch.Size([5, 5])
    """
    radius = _check.number("radius", radius, "a finite number > 0", above=0)
    size = 2 * math.ceil(max(0.0, radius - 0.5)) + 1
    fine = (torch.arange(_FINE * size, dtype=torch.float64) + 0.5) / _FINE - size / 2
    inside = (fine[:, None].square() + fine.square() <= radius**2).double()
    kernel = inside.reshape(size, _FINE, size, _FINE).sum((1, 3))
    return (kernel / kernel.sum()).float()


def _odd(name: str, value: int) -> int:
    value = _check.integer(name, value, 1, "an odd integer >= 1")
    return value if value % 2 else _check.fail(name, "an odd integer >= 1", value)
