"""Convolution with a known kernel as a forward model, with the usual boundaries."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from amstel import _check
from amstel.inverse._checks import WIDE, check_images
from amstel.inverse._derived import Derived
from amstel.inverse.model import ForwardModel, Normal, Prepared, Sigma

BOUNDARIES = ("circular", "zeros", "replicate", "reflect", "valid")


class Deblurring(ForwardModel):
    r"""A x = kernel * x: convolution of all channels with one kernel, or of each channel with its own.

    .. code-block:: text

        (A x)[i, j] = sum over u, v of  kernel[u, v]  x[i - u + kh // 2, j - v + kw // 2]

    This is a true convolution, so the kernel is mirrored compared with conv2d. It is computed by FFT, in
    O(H W log(H W)) for kernels of any size. The transfer function is kept for the last image size.

    Args:
        kernel: [kh, kw], [C, kh, kw] or [N, C, kh, kw] (N and C may be 1), odd sides, float64 or float32.
        sigma: see `ForwardModel`.
        boundary: how x continues beyond its border. "circular": periodically (the kernel may be larger than the image);
            "zeros"; "replicate": with the last pixel; "reflect": mirrored at the center of the last pixel; "valid": not
            needed, because y is smaller by kh - 1 and kw - 1, like a photograph that is cut out of a larger scene.

    Shapes: x and y [N, C, H, W], float64 or float32; "valid": y [N, C, H - kh + 1, W - kw + 1].

    Example:
        >>> physics = amstel.inverse.Deblurring(torch.full((5, 5), 1 / 25), sigma=0.01)
        >>> physics(torch.ones(1, 3, 8, 9)).shape
        torch.Size([1, 3, 8, 9])
    """

    kernel: Tensor

    def __init__(self, kernel: Tensor, sigma: Sigma = 1.0, boundary: str = "circular"):
        super().__init__(sigma)
        expected = "float32 or float64 [kh, kw], [C, kh, kw] or [N, C, kh, kw] with odd sides"
        _check.dense("kernel", kernel, expected)
        odd = kernel.dim() in (2, 3, 4) and all(n % 2 for n in kernel.shape[-2:]) and 0 not in kernel.shape
        if not odd or kernel.dtype not in WIDE:
            _check.fail("kernel", expected, kernel)
        self.boundary = _check.choice("boundary", boundary, BOUNDARIES)
        self.register_buffer("kernel", kernel, persistent=False)
        self._known = Derived()

    def forward(self, x: Tensor) -> Tensor:
        h, w = self._check("x", x)
        if self.boundary == "circular":
            return _filter(x, self._transfer(x, h, w))
        (top, left), z = self._half, x
        if self.boundary != "valid":
            z = _padded(_padded(x, top, -2, self.boundary), left, -1, self.boundary)
        else:
            h, w = h - 2 * top, w - 2 * left
        return _filter(z, self._transfer(z, *z.shape[2:]))[..., top : top + h, left : left + w]

    def adjoint(self, y: Tensor) -> Tensor:
        h, w = self._check("y", y)
        if self.boundary == "circular":
            return _filter(y, self._transfer(y, h, w).conj())
        top, left = self._half
        z = torch.nn.functional.pad(y, (left, left, top, top))
        z = _filter(z, self._transfer(z, *z.shape[2:]).conj())
        if self.boundary == "valid":
            return z
        return _folded(_folded(z, left, -1, self.boundary), top, -2, self.boundary)

    def normal(self, x: Tensor) -> Tensor:
        if self.boundary != "circular":
            return super().normal(x)
        transfer = self._transfer(x, *self._check("x", x))
        return _filter(x, transfer.real.square() + transfer.imag.square())

    def prepare(self, y: Tensor) -> Prepared:
        return Normal(self, y)

    @property
    def _half(self) -> tuple[int, int]:
        return self.kernel.shape[-2] // 2, self.kernel.shape[-1] // 2

    def _check(self, name: str, images: Any) -> tuple[int, int]:
        """Height and width."""
        check_images(name, images, WIDE)
        self._check_device(images)
        (n, c, h, w), (kh, kw) = images.shape, self.kernel.shape[-2:]
        size = (1,) * (4 - self.kernel.dim()) + tuple(self.kernel.shape)
        if size[0] not in (1, n) or size[1] not in (1, c):
            _check.fail("kernel", f"[kh, kw], [{c}, kh, kw] or [{n}, {c}, kh, kw] as `{name}`", self.kernel)
        # A mirror has no more pixels than the image behind its last one.
        least = {"reflect": (kh // 2 + 1, kw // 2 + 1), "valid": (kh, kw) if name == "x" else (1, 1)}
        low = least.get(self.boundary, (1, 1))
        if h < low[0] or w < low[1]:
            _check.fail(name, f"at least {low[0]} x {low[1]} pixels with boundary={self.boundary!r}", images)
        return h, w

    def _transfer(self, images: Tensor, h: int, w: int) -> Tensor:
        """The kernel's Fourier transform [..., h, w // 2 + 1]."""

        def compute(kernel: Tensor) -> Tensor:
            rows = _phases(kernel.shape[-2], h, h, images)
            cols = _phases(kernel.shape[-1], w, w // 2 + 1, images)
            return rows @ kernel.to(rows.dtype) @ cols.T

        return self._known(self.kernel, (h, w, images.dtype), compute)

    def _image_shape(self) -> tuple[int, ...]:
        n, c, h, w = (1,) * (4 - self.kernel.dim()) + tuple(self.kernel.shape)
        return max(n, self._batch()), c, h + 4, w + 4


def _padded(x: Tensor, width: int, dim: int, boundary: str) -> Tensor:
    """x with what lies beyond its border, `width` pixels on both sides of `dim`."""
    if not width:
        return x
    size = x.shape[dim]
    if boundary in ("reflect", "symmetric"):  # without the last pixel itself, or with it
        first = int(boundary == "reflect")
        before, after = (x.narrow(dim, at, width).flip(dim) for at in (first, size - first - width))
    else:
        before, after = (x.narrow(dim, at, 1) for at in (0, size - 1))
        if boundary == "zeros":
            before, after = torch.zeros_like(before), torch.zeros_like(after)
        before, after = (t.repeat_interleave(width, dim) for t in (before, after))
    return torch.cat([before, x, after], dim)


def _folded(z: Tensor, width: int, dim: int, boundary: str) -> Tensor:
    """The adjoint of `_padded`."""
    if not width:
        return z
    size = z.shape[dim] - 2 * width
    x = z.narrow(dim, width, size)
    if boundary == "zeros":
        return x
    before, after = z.narrow(dim, 0, width), z.narrow(dim, width + size, width)
    if boundary in ("reflect", "symmetric"):
        edges, offset = (before.flip(dim), after.flip(dim)), int(boundary == "reflect")
    else:
        edges, offset = (before.sum(dim, keepdim=True), after.sum(dim, keepdim=True)), 0
    length = edges[0].shape[dim]
    for edge, at in zip(edges, (offset, size - offset - length), strict=True):
        gap = [0, 0] * (-dim - 1) + [at, size - at - length]
        x = x + torch.nn.functional.pad(edge, gap)
    return x


def _filter(x: Tensor, transfer: Tensor) -> Tensor:
    if not x.numel():  # MKL does not transform nothing
        return x.clone()
    return torch.fft.irfft2(torch.fft.rfft2(x) * transfer, s=x.shape[2:])


def _phases(taps: int, size: int, frequencies: int, like: Tensor) -> Tensor:
    """exp(-2 pi i f (u - taps // 2) / size), [frequencies, taps]; products of integers keep large angles exact."""
    f = torch.arange(frequencies, device=like.device)[:, None]
    u = torch.arange(taps, device=like.device) - taps // 2
    angle = (f * u % size).to(torch.float64) * (-2 * math.pi / size)
    return torch.complex(angle.cos().to(like.dtype), angle.sin().to(like.dtype))
