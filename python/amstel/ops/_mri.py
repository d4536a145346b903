"""The likelihood gradient of MRI as kernels around Fourier transforms, its gradients, and fake kernels, of `amstel.ops.mri`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from amstel import reference
from amstel.ops import _plain
from amstel.ops._raw import operators, own_gradient, watched

_ops = operators

# What the fused kernel takes on CUDA: the widest row, the largest prime factor and the largest that it may have twice, as
# in csrc/cuda/mri_columns_op.cu.
CUDA_ROW = {torch.complex64: (1024, 23, 16), torch.complex128: (512, 20, 16)}


# ---- The mask ----


def real_dtype(x: Tensor) -> torch.dtype:
    """Of the parts of a complex x; x.real.dtype makes a view first."""
    return torch.float64 if x.dtype == torch.complex128 else torch.float32


def weights_of(mask: Tensor, x: Tensor) -> Tensor:
    """[W], [1, H, W] or [N, H, W] in the real dtype of x."""
    mask = mask.to(real_dtype(x))
    return mask[:, 0] if mask.dim() == 4 else mask[None] if mask.dim() == 2 else mask


def _mask(weights: Tensor) -> Tensor:
    """The mask of `weights_of`, to be broadcast to k-space."""
    return weights if weights.dim() == 1 else weights[:, None]


def origin(weights: Tensor, centered: bool) -> Tensor:
    """Fᴴ M F of centered transforms is that of plain ones with the mask's origin at index 0."""
    if centered:
        weights = torch.fft.ifftshift(
            weights, dim=tuple(range(weights.dim() - min(2, weights.dim()), weights.dim()))
        )
    return weights.contiguous()


def _rough(size: int, largest: int) -> int:
    """What is left of a size without its prime factors up to `largest`."""
    for prime in range(2, largest + 1):
        while size > 1 and size % prime == 0:
            size //= prime
    return size


def _fits(device: str, dtype: torch.dtype, sides: Sequence[int]) -> bool:
    """Whether the kernel's own transforms take these sides of images: the columns alone for a mask of columns."""
    if device == "cpu":
        return True
    if device != "cuda" or len(sides) > 1:
        return False
    widest, once, often = CUDA_ROW[dtype]
    return sides[0] <= widest and _rough(sides[0], often) <= once


_known_fits = lru_cache(maxsize=64)(_fits)


def _ours(x: Tensor, sides: Sequence[int]) -> bool:
    """Whether the kernel's own transforms take images with these sides; where a compiler leaves one open, which to ask
    about would make it a constant, PyTorch's do."""
    if torch.compiler.is_compiling():
        from torch.fx.experimental.symbolic_shapes import has_static_value

        known = x.device.type == "cpu" or all([has_static_value(n) for n in sides])
        return known and _fits(x.device.type, x.dtype, sides)
    return _known_fits(x.device.type, x.dtype, sides)


# ---- The operators ----


def _real(t: Tensor) -> Tensor:
    return torch.view_as_real(t.resolve_conj().contiguous())


def _complex(t: Tensor) -> Tensor:
    return torch.view_as_complex(t)


def _normal(
    x: Tensor,
    minus: Tensor | None,
    weights: Tensor,
    maps: Tensor | None,
    scales: Tensor | None,
    factor: float,
) -> Tensor:
    """(AᴴA x - minus) factor scales, nothing differentiable."""
    less = None if minus is None else _real(minus)
    coils = None if maps is None else _real(maps)
    sides = x.shape[-min(2, weights.dim()) :]
    if _ours(x, sides):
        return _complex(_ops.mri_normal(_real(x), weights, coils, less, scales, factor))
    images = x[:, None] if coils is None else _complex(_ops.coil_expand(_real(x), coils))
    dims = tuple(range(-len(sides), 0))
    k = _measured(_fft(images, dims), weights, 1 / _numbers(sides))
    images = _fft(k, dims, inverse=True)
    if coils is not None:
        return _complex(_ops.coil_reduce(_real(images), coils, less, scales, factor))
    result = images[:, 0] if minus is None else images[:, 0] - minus
    return result * (factor if scales is None else scales[:, None, None])


# Transforms are not scaled, which on CUDA would be a pass over k-space each; `_measured` does it.


def _numbers(sides: Sequence[int]) -> int:
    """Of a transform of these sides; 1 if there are none."""
    return max(sides[0] if len(sides) == 1 else sides[0] * sides[1], 1)


def _fft(t: Tensor, dims: tuple[int, ...] = (-2, -1), inverse: bool = False) -> Tensor:
    if t.numel() == 0:  # MKL does not take a batch of none
        return torch.empty_like(t)
    # torch 2.14 writes past its buffers (MKL) where the innermost elements of the input are apart.
    if inverse:
        return torch.fft.ifftn(t.contiguous(), dim=dims, norm="forward")
    return torch.fft.fftn(t.contiguous(), dim=dims, norm="backward")


def _measured(k: Tensor, weights: Tensor, factor: float) -> Tensor:
    """factor k where it was measured and 0 elsewhere, whatever it holds there; k is nobody else's and may be
    overwritten."""
    if torch.compiler.is_compiling():
        # Which cannot follow a change through view_as_real, nor a package of it hold a complex number.
        weights = (weights if weights.dim() == 1 else weights[:, None])[..., None]
        real = (weights * factor) * torch.view_as_real(k)
        return torch.view_as_complex(torch.where(weights == 0, 0.0, real))
    k = k.contiguous()  # which a transform of other layouts is not
    _ops.kspace_residual(_real(k), weights.contiguous(), None, factor)
    return k


def in_pairs(
    x: Tensor,
    y: Tensor | None,
    adjoint_y: Tensor | None,
    mask: Tensor,
    sensitivities: Tensor | None,
    scales: Tensor | None,
    factor: float,
    centered: bool,
) -> Tensor:
    """(AᴴA x - Aᴴy) factor scales for ONNX, which knows few complex operators: all in pairs of real numbers."""
    real = torch.view_as_real
    weights = weights_of(mask, x)
    maps = None
    if sensitivities is not None:
        maps = real(sensitivities)
        maps = maps if maps.dim() == 5 else maps[None]
    minus = adjoint_y if adjoint_y is None else real(adjoint_y)
    if y is not None:
        on = weights[:, None] if weights.dim() == 1 else weights[:, None, :, :, None]
        k = torch.where(on == 0, 0, on * real(y))
        dims = (-3, -2)
        k = torch.fft.ifftshift(k, dim=dims) if centered else k
        images = _plain.fourier(_plain.fourier(k, -1, True), -2, True)
        images = torch.fft.fftshift(images, dim=dims) if centered else images
        minus = images[:, 0] if maps is None else _plain.coil_reduce(images, maps, None, None, 1.0)
    pairs = _plain.mri_normal(real(x), origin(weights, centered), maps, minus, scales, factor)
    return torch.view_as_complex(pairs)


class Normal(torch.autograd.Function):
    """(AᴴA x - minus) factor scales, with gradients in x, minus and the sensitivities."""

    @staticmethod
    def call(x: Tensor, minus: Tensor | None, weights: Tensor, maps: Tensor | None, *scale: Any) -> Tensor:
        function: Any = Normal.apply if own_gradient(x, minus, maps) else _normal
        return function(x, minus, weights, maps, *scale)

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, minus: Any, weights: Tensor, maps: Any, scales: Any, factor: float
    ) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[3] else None, weights, maps, scales)
        ctx.factor = factor
        # Detached here and below, the result is no view for autograd and may be changed in place.
        return _normal(x, minus, weights, maps, scales, factor).detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weights, maps, scales = ctx.saved_tensors
        needs = ctx.needs_input_grad
        scale = ctx.factor if scales is None else ctx.factor * scales
        scaled = grad * (scale if scales is None else scale[:, None, None])
        grad_x = grad_minus = grad_maps = None
        if needs[1]:
            grad_minus = -scaled
        # Whether nobody asks for derivatives of these gradients.
        once = not (watched(grad) or torch.is_grad_enabled())
        alone = once and grad.device.type == "cpu"  # there is no such kernel on CUDA
        if needs[3] and alone and _ours(grad, grad.shape[-min(2, weights.dim()) :]):
            grad_x, grad_maps = _ops.mri_normal_grad(
                _real(grad), _real(x), weights, _real(maps), scales, ctx.factor, needs[0]
            )
            return _complex(grad_x) if needs[0] else None, grad_minus, None, _complex(grad_maps), None, None
        if needs[3]:
            # Of the sum of conj(S_c) N S_c x, where N = Fᴴ M F is its own adjoint.
            images = _coil_normal(scaled, weights, maps)
            grad_maps = scaled.conj()[:, None] * _coil_normal(x, weights, maps)
            grad_maps = _shared(grad_maps + x.conj()[:, None] * images, maps)
        if needs[0] and watched(grad):
            # The mask is at the origin already, `centered` or not.
            grad_x = reference.mri_normal(grad, _mask(weights), maps, None, scale)
        elif needs[0] and needs[3] and once:
            grad_x = _complex(_ops.coil_reduce(_real(images), _real(maps), None, None, 1.0))
        elif needs[0]:
            grad_x = Normal.call(grad, None, weights, maps, scales, ctx.factor)
        return grad_x, grad_minus, None, grad_maps, None, None


# The gradients in the sensitivities take every coil image as an image of its own.


def _coil_normal(x: Tensor, weights: Tensor, maps: Tensor) -> Tensor:
    """Fᴴ M F (S_c x), [N, coils, H, W]."""
    if watched(x):
        return reference.mri.ifft2(reference.mri.mri_forward(x, _mask(weights), maps), False)
    images = maps * x[:, None]
    flat = images.flatten(0, 1)
    return Normal.call(flat, None, _of_coils(weights, maps), None, None, 1.0).view_as(images)


def _coil_images(y: Tensor, weights: Tensor, maps: Tensor, centered: bool) -> Tensor:
    """Fᴴ M y_c, [N, coils, H, W]."""
    if watched(y):
        mask = _mask(weights)
        return reference.mri.ifft2(mask * y.masked_fill(mask == 0, 0), centered)
    return Adjoint.call(y.flatten(0, 1)[:, None], _of_coils(weights, maps), None, centered).view_as(y)


def _of_coils(weights: Tensor, maps: Tensor) -> Tensor:
    """The mask of each coil image."""
    own = weights.dim() == 3 and weights.shape[0] > 1
    return weights.repeat_interleave(maps.shape[1], 0) if own else weights


def _shared(gradient: Tensor, maps: Tensor) -> Tensor:
    """[N, coils, H, W] summed over the images that share the sensitivities."""
    return gradient.sum(0, keepdim=True) if maps.shape[0] < gradient.shape[0] else gradient


def _shifted(t: Tensor, centered: bool, inverse: bool) -> Tensor:
    shift = torch.fft.ifftshift if inverse else torch.fft.fftshift
    return shift(t, dim=(-2, -1)) if centered else t


def _images(y: Tensor, weights: Tensor, centered: bool) -> Tensor:
    """Fᴴ M y_c, [N, coils, H, W], nothing differentiable."""
    k = y.resolve_conj().clone(memory_format=torch.contiguous_format)
    k = _measured(k, weights, _numbers(y.shape[-2:]) ** -0.5)
    return _shifted(_fft(_shifted(k, centered, True), inverse=True), centered, False)


def _adjoint(images: Tensor, maps: Tensor | None) -> Tensor:
    if maps is None:
        return images[:, 0].contiguous()
    return _complex(_ops.coil_reduce(_real(images), _real(maps), None, None, 1.0))


class Adjoint(torch.autograd.Function):
    """Aᴴ y; its gradient in y is `Forward`, whose gradient in x it is."""

    @staticmethod
    def call(y: Tensor, weights: Tensor, maps: Tensor | None, centered: bool) -> Tensor:
        if own_gradient(y, maps):
            return Adjoint.apply(y, weights, maps, centered)
        return _adjoint(_images(y, weights, centered), maps)

    @staticmethod
    def forward(ctx: Any, y: Tensor, weights: Tensor, maps: Any, centered: bool) -> Tensor:
        images = _images(y, weights, centered)
        ctx.save_for_backward(*((y, images) if ctx.needs_input_grad[2] else (None, None)), weights, maps)
        ctx.centered = centered
        return _adjoint(images, maps).detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        y, images, weights, maps = ctx.saved_tensors
        grad_y = grad_maps = None
        if ctx.needs_input_grad[0] and watched(grad):
            grad_y = reference.mri.mri_forward(grad, _mask(weights), maps, centered=ctx.centered)
        elif ctx.needs_input_grad[0]:
            grad_y = Forward.apply(grad, weights, maps, ctx.centered)
        if ctx.needs_input_grad[2]:
            if watched(grad) or torch.is_grad_enabled():
                images = _coil_images(y, weights, maps, ctx.centered)
            grad_maps = _shared(grad.conj()[:, None] * images, maps)
        return grad_y, None, grad_maps, None


class Forward(torch.autograd.Function):
    """A x"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, maps: Any, centered: bool) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[2] else None, weights, maps)
        ctx.centered = centered
        images = x[:, None] if maps is None else _complex(_ops.coil_expand(_real(x), _real(maps)))
        k = _shifted(_fft(_shifted(images, centered, True)), centered, False)
        return _measured(k, weights, _numbers(x.shape[-2:]) ** -0.5)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weights, maps = ctx.saved_tensors
        grad_x = grad_maps = None
        if ctx.needs_input_grad[0] and watched(grad):
            grad_x = reference.mri.mri_adjoint(grad, _mask(weights), maps, centered=ctx.centered)
        elif ctx.needs_input_grad[0]:
            grad_x = Adjoint.apply(grad, weights, maps, ctx.centered)
        if ctx.needs_input_grad[2]:
            grad_maps = _shared(x.conj()[:, None] * _coil_images(grad, weights, maps, ctx.centered), maps)
        return grad_x, None, grad_maps, None


# ---- Fake kernels ----


@torch.library.register_fake("amstel::mri_normal")
def _(x: Tensor, mask: Tensor, sensitivities: Any, minus: Any, scale: Any, factor: float) -> Tensor:
    return torch.empty_like(x)


@torch.library.register_fake("amstel::mri_normal_grad")
def _(
    grad: Tensor, x: Tensor, mask: Tensor, sensitivities: Tensor, scale: Any, factor: float, need_x: bool
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x) if need_x else x.new_empty(0), torch.empty_like(sensitivities)


@torch.library.register_fake("amstel::coil_expand")
def _(x: Tensor, sensitivities: Tensor) -> Tensor:
    n, h, w, two = x.shape
    return x.new_empty(n, sensitivities.shape[1], h, w, two)


@torch.library.register_fake("amstel::coil_reduce")
def _(images: Tensor, sensitivities: Tensor, minus: Any, scale: Any, factor: float) -> Tensor:
    n, _, h, w, two = images.shape
    return images.new_empty(n, h, w, two)


@torch.library.register_fake("amstel::kspace_residual")
def _(k: Tensor, mask: Tensor, minus: Any, factor: float = 1.0) -> None:
    return None
