"""Downsampling with any antialiasing kernel, and the exact adjoint: `SuperResolution` with kernels other than bicubic."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d, pad

from amstel._torch import without_autocast
from amstel.inverse.deblurring import _folded, _padded


def _lanczos(lobes: int) -> Callable[[Tensor], Tensor]:
    return lambda t: torch.sinc(t) * torch.sinc(t / lobes)


def _cubic(t: Tensor) -> Tensor:
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    return torch.where(t <= 1, near, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2)


#: Kernels of resampling by name, as functions of the distance in pixels of the smaller image, and where they end.
KERNELS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "box": (torch.ones_like, 0.5),
    "bilinear": (lambda t: 1 - t, 1.0),
    "bicubic": (_cubic, 2.0),
    "lanczos2": (_lanczos(2), 2.0),
    "lanczos3": (_lanczos(3), 3.0),
}


def named(name: str, scale: int) -> Tensor:
    """The kernel of that name, stretched by the scale: float64 [k, k], its sum 1."""
    function, end = KERNELS[name]
    size = 2 * math.ceil(end * scale) - scale % 2  # its middle is that of `scale` pixels
    t = ((torch.arange(size, dtype=torch.float64) - (size - 1) / 2) / scale).abs()
    row = torch.where(t <= end + 1e-9, function(t), 0.0)
    return torch.outer(row, row) / row.sum() ** 2


def down(x: Tensor, kernel: Tensor, scale: int) -> Tensor:
    """Weighted means around the middle of every scale x scale pixels of x [N, C, H, W], which is mirrored at its border."""
    z = x
    for dim, size in zip((-2, -1), kernel.shape, strict=True):
        beyond = (size - scale) // 2
        z = _padded(z, beyond, dim, "symmetric") if beyond > 0 else _cut(z, -beyond, dim)
    with without_autocast(x):
        found = conv2d(z.flatten(0, 1)[:, None], kernel.to(x.dtype)[None, None], stride=scale)
    return found[:, 0].unflatten(0, x.shape[:2])


def down_adjoint(y: Tensor, kernel: Tensor, scale: int) -> Tensor:
    """The adjoint of `down`."""
    with without_autocast(y):
        z = conv_transpose2d(y.flatten(0, 1)[:, None], kernel.to(y.dtype)[None, None], stride=scale)
    z = z[:, 0].unflatten(0, y.shape[:2])
    for dim, size in zip((-2, -1), kernel.shape, strict=True):
        beyond = (size - scale) // 2
        z = _folded(z, beyond, dim, "symmetric") if beyond > 0 else _widened(z, -beyond, dim)
    return z


def _cut(x: Tensor, width: int, dim: int) -> Tensor:
    return x.narrow(dim, width, x.shape[dim] - 2 * width)


def _widened(z: Tensor, width: int, dim: int) -> Tensor:
    return pad(z, [0, 0] * (-dim - 1) + [width, width])
