"""Forward models of real images: denoising, inpainting, super-resolution, random projections."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from amstel import _check, ops
from amstel._torch import without_autocast
from amstel._words import counted
from amstel.inverse._checks import WIDE, check_binary, check_images, check_shape
from amstel.inverse._derived import Derived
from amstel.inverse.downsampling import KERNELS, down, down_adjoint, named
from amstel.inverse.model import ForwardModel, Fused, Normal, Prepared, Sigma


class Denoising(ForwardModel):
    """A x = x.

    Args:
        sigma: see `ForwardModel`.

    Shapes: x and y [N, C, H, W], float64, float32, bfloat16 or float16.

    Example:
        >>> physics = amstel.inverse.Denoising(sigma=25 / 255)
        >>> physics.gradient(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))[0, 0, 0, 0]
        tensor(104.0400)
    """

    pixelwise = True

    def forward(self, x: Tensor) -> Tensor:
        return self._checked("x", x).clone()  # y += noise must not change x

    def adjoint(self, y: Tensor) -> Tensor:
        return self._checked("y", y).clone()

    def prepare(self, y: Tensor) -> Prepared:
        sigma = self._sigma(self._checked("y", y))
        if self._mapped():
            return Prepared(self, y)
        return Fused(self, y, lambda eta, link: ops.rim_denoise_input(eta, y, sigma, link=link))

    def _checked(self, name: str, images: Any) -> Tensor:
        check_images(name, images)
        self._check_device(images)
        return images

    def _image_shape(self) -> tuple[int, ...]:
        return tuple(self.sigma.shape) if self._mapped() else super()._image_shape()  # type: ignore[union-attr]


class Inpainting(ForwardModel):
    """A x = mask x: only some pixels, or some channels of a pixel, are measured.

    Args:
        mask: [H, W], [1, H, W], [C, H, W] or [N, C, H, W] (N and C may be 1), bool, or numbers that are 0 or 1;
            1 means measured. Values of the measurements elsewhere are ignored.
        sigma: see `ForwardModel`.

    Shapes: x and y [N, C, H, W], float64, float32, bfloat16 or float16.

    Example:
        >>> physics = amstel.inverse.Inpainting(torch.tensor([[1, 0, 1, 1]]), sigma=0.1)
        >>> physics(torch.ones(1, 1, 1, 4))
        tensor([[[[1., 0., 1., 1.]]]])
    """

    pixelwise = True
    mask: Tensor

    def __init__(self, mask: Tensor, sigma: Sigma = 1.0):
        super().__init__(sigma)
        expected = "[H, W], [C, H, W] or [N, C, H, W] of 0 and 1"
        mask = check_binary("mask", mask, expected)
        if mask.dim() not in (2, 3, 4):
            _check.fail("mask", expected, mask)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self._seen("x", x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._seen("y", y)

    def prepare(self, y: Tensor) -> Prepared:
        self._check("y", y)
        mask, sigma = self.mask, self._sigma(y)
        if self._mapped():
            return Prepared(self, y)
        return Fused(self, y, lambda eta, link: ops.rim_denoise_input(eta, y, sigma, mask=mask, link=link))

    def _measured(self, y: Tensor) -> Tensor:
        return self._seen("y", y)

    def _seen(self, name: str, images: Any) -> Tensor:
        """The images, 0 where the mask is: NaN and infinity too, which 0 times them would not be."""
        self._check(name, images)
        return images.masked_fill(~self.mask, 0)

    def _check(self, name: str, images: Any) -> None:
        check_images(name, images)
        self._check_device(images)
        n, c, h, w = images.shape
        size = (1,) * (4 - self.mask.dim()) + tuple(self.mask.shape)
        if size[2:] != (h, w) or size[1] not in (1, c) or size[0] not in (1, n):
            _check.fail("mask", f"[{h}, {w}], [{c}, {h}, {w}] or [{n}, {c}, {h}, {w}] as `{name}`", self.mask)

    def _image_shape(self) -> tuple[int, ...]:
        n, c, h, w = (1,) * (4 - self.mask.dim()) + tuple(self.mask.shape)
        return max(n, self._batch()), c, h, w


class SuperResolution(ForwardModel):
    """A x = `amstel.ops.bicubic_down(x, scale)`: the same downsampling as MATLAB's imresize.

    It uses Keys' cubic with a = -0.5, stretched by the scale against aliasing, and mirrors the image at its border. The
    adjoint is exact, including the border. With another `kernel`, y[i, j] is the mean of x around the center of its
    s x s pixels, weighted by that kernel.

    Args:
        scale: s, an integer >= 1; H and W are multiples of it.
        sigma: see `ForwardModel`.
        kernel: "bicubic", "bilinear", "box", "lanczos2" or "lanczos3", stretched by the scale as in imresize; or weights
            [kh, kw] for the pixels of x, float64 or float32. Their sides are odd if s is odd and even if s is even, so
            that they are centered on the s pixels: (k - s) / 2 weights lie beyond on each side, and x must have at least
            that many pixels.

    Shapes: x [N, C, H, W], y [N, C, H / s, W / s], float64, float32, bfloat16 or float16.

    Source: R. Keys, Cubic Convolution Interpolation for Digital Image Processing, IEEE TASSP 29(6), 1981.

    Example:
        >>> physics = amstel.inverse.SuperResolution(scale=3, sigma=0.01)
        >>> physics(torch.rand(1, 1, 12, 15)).shape
        torch.Size([1, 1, 4, 5])
    """

    kernel: Tensor | None

    def __init__(self, scale: int, sigma: Sigma = 1.0, kernel: str | Tensor = "bicubic"):
        super().__init__(sigma)
        self.scale = scale = _check.integer("scale", scale, 1)
        expected = f"one of {', '.join(KERNELS)}, or float64 or float32 [kh, kw] with {'odd' if scale % 2 else 'even'} sides"
        if isinstance(kernel, str):
            if kernel not in KERNELS:
                _check.fail("kernel", expected, kernel)
            found = None if kernel == "bicubic" else named(kernel, scale)
        else:
            found = _check.dense("kernel", kernel, expected)
            fits = found.dim() == 2 and found.dtype in WIDE and found.numel()
            if not fits or any((n - scale) % 2 for n in found.shape):
                _check.fail("kernel", expected, kernel)
        self.register_buffer("kernel", found, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        check_images("x", x)
        self._check_device(x)
        if x.shape[2] % self.scale or x.shape[3] % self.scale:
            _check.fail("x", f"[N, C, H, W] with H and W multiples of the scale {self.scale}", x)
        if self.kernel is None:
            return ops.bicubic_down(x, self.scale)
        self._check_size("x", x, 1)
        return down(x, self.kernel, self.scale)

    def adjoint(self, y: Tensor) -> Tensor:
        check_images("y", y)
        self._check_device(y)
        if self.kernel is None:
            return ops.bicubic_down_adjoint(y, self.scale)
        self._check_size("y", y, self.scale)
        return down_adjoint(y, self.kernel, self.scale)

    def prepare(self, y: Tensor) -> Prepared:
        check_images("y", y)
        if self.kernel is not None:
            return Normal(self, y)
        scale, sigma = self.scale, self._sigma(y)
        return Fused(self, y, lambda eta, link: ops.rim_super_resolve_input(eta, y, scale, sigma, link=link))

    def _check_size(self, name: str, images: Tensor, times: int) -> None:
        """A mirror has no more pixels than the image."""
        least = [(n - self.scale) // 2 for n in self.kernel.shape]  # type: ignore[union-attr]
        if any(times * n < low for n, low in zip(images.shape[2:], least, strict=True)):
            _check.fail(name, f"an image of at least {least[0]} x {least[1]} pixels, for this kernel", images)

    def _image_shape(self) -> tuple[int, ...]:
        beyond = max(self.kernel.shape) // self.scale if self.kernel is not None else 0
        return self._batch(), 1, (5 + beyond) * self.scale, (4 + beyond) * self.scale


class RandomProjection(ForwardModel):
    """A x = matrix x, with x flattened.

    Args:
        matrix: [P, C H W], any floating-point dtype.
        sigma: see `ForwardModel`.
        image_shape: C, H, W. None: square with one channel, or with three if that is the only possibility.

    Shapes: x [N, C, H, W], y [N, P], float64, float32, bfloat16 or float16.

    Complexity: 2 P C H W per gradient and image. `prepare` uses matrix^T matrix, C² H² W², where that is less
    (and the matrix needs no gradient); it is computed once per model.

    Example:
        >>> physics = amstel.inverse.RandomProjection(torch.randn(400, 1024) / 20, sigma=0.05)
        >>> physics(torch.rand(8, 1, 32, 32)).shape
        torch.Size([8, 400])
    """

    matrix: Tensor

    def __init__(self, matrix: Tensor, sigma: Sigma = 1.0, *, image_shape: Sequence[int] | None = None):
        super().__init__(sigma)
        _check.dense("matrix", matrix, "a floating-point tensor [P, C * H * W]")
        if matrix.dim() != 2 or matrix.dtype not in _check.FLOATS or 0 in matrix.shape:
            _check.fail("matrix", "a floating-point tensor [P, C * H * W]", matrix)
        pixels = matrix.shape[1]
        if image_shape is None:
            channels = 1 if math.isqrt(pixels) ** 2 == pixels else 3
            side = math.isqrt(pixels // channels)
            image_shape = (channels, side, side)
        self.image_shape = check_shape(image_shape, "C, H, W")
        if math.prod(self.image_shape) != pixels:
            _check.fail(
                "image_shape",
                f"C, H, W of {counted(pixels, 'element')}, as the matrix has columns",
                image_shape,
            )
        self.register_buffer("matrix", matrix, persistent=False)
        self._known = Derived()

    def forward(self, x: Tensor) -> Tensor:
        return _multiply(self._flat(x), self.matrix.to(x.dtype).T)

    def adjoint(self, y: Tensor) -> Tensor:
        expected = f"a floating-point tensor [N, {self.matrix.shape[0]}]"
        _check.dense("y", y, expected)
        if y.dim() != 2 or y.shape[1] != self.matrix.shape[0] or y.dtype not in _check.FLOATS:
            _check.fail("y", expected, y)
        self._check_device(y)
        return _multiply(y, self.matrix.to(y.dtype)).reshape(-1, *self.image_shape)

    def normal(self, x: Tensor) -> Tensor:
        rows, pixels = self.matrix.shape
        if 2 * rows <= pixels or self.matrix.requires_grad or torch.compiler.is_compiling():
            return super().normal(x)
        flat = self._flat(x)
        gram = self._known(self.matrix, (x.dtype,), lambda m: _multiply(m.to(x.dtype).T, m.to(x.dtype)))
        return _multiply(flat, gram).reshape(x.shape)

    def prepare(self, y: Tensor) -> Prepared:
        return Normal(self, y)

    def _flat(self, x: Any) -> Tensor:
        check_images("x", x)
        self._check_device(x)
        if tuple(x.shape[1:]) != self.image_shape:
            _check.fail("x", f"[N, {', '.join(map(str, self.image_shape))}]", x)
        return x.reshape(x.shape[0], self.matrix.shape[1])

    def _image_shape(self) -> tuple[int, ...]:
        return self._batch(), *self.image_shape


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in their own dtype, under autocast too."""
    if a.device.type == "meta":
        return a @ b
    with without_autocast(a):
        return a @ b
