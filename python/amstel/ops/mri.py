"""The likelihood gradient of (multi-coil) magnetic resonance imaging, fused around the Fourier transforms."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from amstel import _check, reference
from amstel.ops import _plain
from amstel.ops._raw import operators, own_gradient, tracked, transformed, watched

_ops = operators

LARGEST_PRIME = 127  # of the sides of an image for the fused CPU kernel, as in csrc/cpu/isa.h


def mri_gradient(
    x: Tensor,
    y: Tensor,
    mask: Tensor,
    sensitivities: Tensor | None,
    sigma: float | Tensor = 1.0,
    *,
    centered: bool = False,
) -> Tensor:
    r"""The gradient of the log-likelihood of (multi-coil) MRI, Aᴴ(A x - y) / sigma², A x = mask ⊙ F(S_c ⊙ x).

    Args:
        x: images, complex64 or complex128 [N, H, W].
        y: k-space [N, coils, H, W] (coils = 1 without sensitivities) in the dtype of x; what it holds where the mask
            is 0 does not matter.
        mask: 1 where k-space was measured and 0 elsewhere: [W] for whole columns, [H, W], or [N, 1, H, W]; boolean or
            real.
        sensitivities: S, [coils, H, W] or [N, coils, H, W], or None.
        sigma: standard deviation of the noise, > 0, a number or a tensor [N].
        centered: whether the origins of image and k-space (and of the mask) are in the middle, at size // 2.

    Returns:
        [N, H, W] in the dtype of x. F is orthonormal.

    Differentiable any number of times in x, y and the sensitivities (for these through plain PyTorch).
    Bit-identical from run to run, and for any number of threads as far as PyTorch's transform of y is.

    Raises:
        ValueError or TypeError: an argument is not as described; the values of a tensor sigma are not looked at.

    Complexity: Aᴴ y and `mri_normal`. Where y stays the same over many calls, compute Aᴴ y once and call that, as
    `amstel.inverse.MRI(...).prepare(y)` does.

    Source: K. Pruessmann et al., SENSE, Magnetic Resonance in Medicine 1999; K. Lønning et al., Recurrent Inference
    Machines for Reconstructing Heterogeneous MRI Data, Medical Image Analysis 2019, equation 8.

    Example:
        >>> x, s = torch.randn(1, 8, 8, dtype=torch.cfloat), torch.randn(4, 8, 8, dtype=torch.cfloat)
        >>> y = torch.zeros(1, 4, 8, 8, dtype=torch.cfloat)
        >>> amstel.ops.mri_gradient(x, y, torch.ones(8), s).shape
        torch.Size([1, 8, 8])
    """
    maps = _checked(x, mask, sensitivities)
    coils = 1 if maps is None else maps.shape[1]
    shape = (x.shape[0], coils, *x.shape[1:])
    _check.tensor("y", y, f"a tensor {list(shape)}")
    if y.shape != shape or y.dtype != x.dtype or y.device != x.device:
        _check.fail("y", f"{_name(x.dtype)} {list(shape)} on {x.device}", y)
    scale = _precision(sigma, x)
    if torch.compiler.is_compiling() and torch.onnx.is_in_onnx_export():
        return _in_pairs(x, y, None, mask, sensitivities, *scale, centered)
    if transformed() or tracked(mask, sensitivities, sigma):
        y = y.masked_fill(mask == 0, 0)  # 0 times NaN would not be 0
        return reference.mri_gradient(x, y, mask, sensitivities, sigma, centered=centered)
    weights = _weights(mask, x)
    return _Normal.call(
        x, _Adjoint.call(y, weights, maps, centered), _origin(weights, centered), maps, *scale
    )


def mri_normal(
    x: Tensor,
    mask: Tensor,
    sensitivities: Tensor | None,
    adjoint_y: Tensor | None = None,
    scale: float | Tensor = 1.0,
    *,
    centered: bool = False,
) -> Tensor:
    r"""scale (AᴴA x - Aᴴy) of (multi-coil) MRI: a step's gradient where Aᴴy is known, A x = mask ⊙ F(S_c ⊙ x).

    With a mask of columns the transforms along the columns cancel, and centering is a shift of the mask, so a gradient
    takes transforms along rows alone. On the CPU these are ours: a strip of rows stays in the cache from S_c ⊙ x to the
    sum over the coils, and memory does not grow with their number. On CUDA, and for sides with a prime factor above
    127, PyTorch transforms and the rest is fused around it.

    Args:
        x: images, complex64 or complex128 [N, H, W].
        mask: [W] for whole columns, [H, W], or [N, 1, H, W]; boolean or real, 0 or 1.
        sensitivities: S, [coils, H, W] or [N, coils, H, W], or None.
        adjoint_y: Aᴴy, like x, or None for 0.
        scale: a number, or a real tensor [N].
        centered: whether the origins of image and k-space (and of the mask) are in the middle, at size // 2.

    Returns:
        [N, H, W] in the dtype of x. F is orthonormal.

    Differentiable any number of times in x, adjoint_y and the sensitivities (for these through plain PyTorch); it is
    its own gradient. Bit-identical from run to run and, on the CPU's own transforms, for any number of threads.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Complexity: 2 coils H W transforms along rows (and as many along columns where the mask is not of columns); x
    and the sensitivities are read once.

    Source: K. Pruessmann et al., SENSE, Magnetic Resonance in Medicine 1999, for A.

    Example:
        >>> x = torch.randn(1, 8, 8, dtype=torch.cfloat)
        >>> torch.allclose(amstel.ops.mri_normal(x, torch.ones(8), None), x, atol=1e-6)
        True
    """
    maps = _checked(x, mask, sensitivities)
    if adjoint_y is not None:
        _check.tensor("adjoint_y", adjoint_y, "a tensor like x")
        if adjoint_y.shape != x.shape or adjoint_y.dtype != x.dtype or adjoint_y.device != x.device:
            _check.fail("adjoint_y", f"{_name(x.dtype)} {list(x.shape)} on {x.device} like x", adjoint_y)
    factor, scales = 1.0, None
    if not isinstance(scale, Tensor):
        factor = float(_check.number("scale", scale, f"a number or a real tensor [{x.shape[0]}]"))
    elif scale.shape == x.shape[:1] and not scale.is_complex() and scale.device == x.device:
        scales = scale.to(x.real.dtype).contiguous()
    else:
        _check.fail("scale", f"a number or a real tensor [{x.shape[0]}] on {x.device}", scale)
    if torch.compiler.is_compiling() and torch.onnx.is_in_onnx_export():
        return _in_pairs(x, None, adjoint_y, mask, sensitivities, scales, factor, centered)
    if transformed() or tracked(mask, sensitivities, scale):
        return reference.mri_normal(x, mask, sensitivities, adjoint_y, scale, centered=centered)
    return _Normal.call(x, adjoint_y, _origin(_weights(mask, x), centered), maps, scales, factor)


# ---- Checks ----


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _checked(x: Tensor, mask: Tensor, sensitivities: Tensor | None) -> Tensor | None:
    """The sensitivities as [1 or N, coils, H, W]."""
    _check.tensor("x", x, "a complex tensor [N, H, W]")
    if x.dim() != 3 or x.dtype not in (torch.complex64, torch.complex128):
        _check.fail("x", "complex64 or complex128 [N, H, W]", x)
    n, h, w = x.shape
    _check.tensor("mask", mask, f"a tensor [{w}], [{h}, {w}] or [{n}, 1, {h}, {w}]")
    shapes = ((w,), (h, w), (n, 1, h, w), (1, 1, h, w))
    if mask.is_complex() or not any(
        [mask.shape == shape for shape in shapes]
    ):  # `in` fails on symbolic sizes
        _check.fail("mask", f"boolean or real [{w}], [{h}, {w}] or [{n}, 1, {h}, {w}]", mask)
    if mask.device != x.device:
        _check.fail("mask", f"on {x.device}", mask)
    if sensitivities is None:
        return None
    _check.tensor("sensitivities", sensitivities, f"a complex tensor [coils, {h}, {w}]")
    maps = sensitivities if sensitivities.dim() == 4 else sensitivities[None]
    if (
        maps.dim() != 4
        or maps.shape[0] not in (1, n)
        or maps.shape[1] < 1
        or maps.shape[2:] != (h, w)
        or maps.dtype != x.dtype
        or maps.device != x.device
    ):
        wanted = f"{_name(x.dtype)} [coils, {h}, {w}] or [{n}, coils, {h}, {w}] on {x.device}"
        _check.fail("sensitivities", wanted, sensitivities)
    return maps


def _precision(sigma: float | Tensor, x: Tensor) -> tuple[Tensor | None, float]:
    """1 / sigma² as a tensor [N] and as a number, one of the two being 1."""
    if isinstance(sigma, Tensor):
        if sigma.dim() == 0:
            sigma = sigma.expand(x.shape[0])
        if sigma.shape != x.shape[:1] or sigma.is_complex() or sigma.device != x.device:
            _check.fail("sigma", f"a number, or a tensor [{x.shape[0]}] on {x.device}", sigma)
        return sigma.to(x.real.dtype).square().reciprocal().contiguous(), 1.0
    sigma = _check.number("sigma", sigma, "a number > 0 or a tensor [N]", above=0, infinite=True)
    return None, 1 / sigma / sigma  # sigma² may be too small for a number


# ---- The mask ----


def _weights(mask: Tensor, x: Tensor) -> Tensor:
    """[W], [1, H, W] or [N, H, W] in the real dtype of x."""
    mask = mask.to(x.real.dtype)
    return mask[:, 0] if mask.dim() == 4 else mask[None] if mask.dim() == 2 else mask


def _mask(weights: Tensor) -> Tensor:
    """The mask of `_weights`, to be broadcast to k-space."""
    return weights if weights.dim() == 1 else weights[:, None]


def _origin(weights: Tensor, centered: bool) -> Tensor:
    """Fᴴ M F of centered transforms is that of plain ones with the mask's origin at index 0."""
    if centered:
        weights = torch.fft.ifftshift(
            weights, dim=tuple(range(weights.dim() - min(2, weights.dim()), weights.dim()))
        )
    return weights.contiguous()


@lru_cache(maxsize=64)
def _smooth(size: int) -> bool:
    """Whether no prime factor is above LARGEST_PRIME."""
    for prime in range(2, LARGEST_PRIME + 1):
        while size % prime == 0:
            size //= prime
    return size == 1


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
    if x.device.type == "cpu" and _smooth(x.shape[-1]) and (weights.dim() == 1 or _smooth(x.shape[-2])):
        return _complex(_ops.mri_normal(_real(x), weights, coils, less, scales, factor))
    images = x[:, None] if coils is None else _complex(_ops.coil_expand(_real(x), coils))
    dims = (-1,) if weights.dim() == 1 else (-2, -1)
    k = _measured(_fft(images, dims), weights)
    images = _fft(k, dims, inverse=True)
    if coils is not None:
        return _complex(_ops.coil_reduce(_real(images), coils, less, scales, factor))
    result = images[:, 0] if minus is None else images[:, 0] - minus
    return result * (factor if scales is None else scales[:, None, None])


def _fft(t: Tensor, dims: tuple[int, ...] = (-2, -1), inverse: bool = False) -> Tensor:
    if t.numel() == 0:  # MKL does not take a batch of none
        return torch.empty_like(t)
    # torch 2.14 writes past its buffers (MKL) where the innermost elements of the input are apart.
    return (torch.fft.ifftn if inverse else torch.fft.fftn)(t.contiguous(), dim=dims, norm="ortho")


def _measured(k: Tensor, weights: Tensor) -> Tensor:
    """k where it was measured and 0 elsewhere, whatever it holds there; k is nobody else's and may be overwritten."""
    if torch.compiler.is_compiling():  # cannot follow a change through view_as_real
        weights = weights if weights.dim() == 1 else weights[:, None]
        return (k * weights).masked_fill(weights == 0, 0)
    k = k.contiguous()  # which a transform of other layouts is not
    _ops.kspace_residual(_real(k), weights.contiguous(), None)
    return k


def _in_pairs(
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
    weights = _weights(mask, x)
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
    pairs = _plain.mri_normal(real(x), _origin(weights, centered), maps, minus, scales, factor)
    return torch.view_as_complex(pairs)


class _Normal(torch.autograd.Function):
    @staticmethod
    def call(x: Tensor, minus: Tensor | None, *rest: Any) -> Tensor:
        return _Normal.apply(x, minus, *rest) if own_gradient(x, minus) else _normal(x, minus, *rest)

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, minus: Any, weights: Tensor, maps: Any, scales: Any, factor: float
    ) -> Tensor:
        ctx.save_for_backward(weights, maps, scales)
        ctx.factor = factor
        return _normal(x, minus, weights, maps, scales, factor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        weights, maps, scales = ctx.saved_tensors
        grad_x = grad_minus = None
        if ctx.needs_input_grad[0] and watched(grad):
            scale = ctx.factor if scales is None else ctx.factor * scales
            # The mask is at the origin already, `centered` or not.
            grad_x = reference.mri_normal(grad, _mask(weights), maps, None, scale)
        elif ctx.needs_input_grad[0]:
            grad_x = _Normal.call(grad, None, weights, maps, scales, ctx.factor)
        if ctx.needs_input_grad[1]:
            grad_minus = grad * (-ctx.factor if scales is None else -scales[:, None, None])
        return grad_x, grad_minus, *(None,) * 4


def _shifted(t: Tensor, centered: bool, inverse: bool) -> Tensor:
    shift = torch.fft.ifftshift if inverse else torch.fft.fftshift
    return shift(t, dim=(-2, -1)) if centered else t


def _adjoint(y: Tensor, weights: Tensor, maps: Tensor | None, centered: bool) -> Tensor:
    k = _measured(y.resolve_conj().clone(memory_format=torch.contiguous_format), weights)
    images = _shifted(_fft(_shifted(k, centered, True), inverse=True), centered, False)
    if maps is None:
        return images[:, 0].contiguous()
    return _complex(_ops.coil_reduce(_real(images), _real(maps), None, None, 1.0))


class _Adjoint(torch.autograd.Function):
    """Aᴴ y; its gradient is `_Forward`, whose gradient it is."""

    @staticmethod
    def call(y: Tensor, *rest: Any) -> Tensor:
        return _Adjoint.apply(y, *rest) if own_gradient(y) else _adjoint(y, *rest)

    @staticmethod
    def forward(ctx: Any, y: Tensor, weights: Tensor, maps: Any, centered: bool) -> Tensor:
        ctx.save_for_backward(weights, maps)
        ctx.centered = centered
        return _adjoint(y, weights, maps, centered)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        weights, maps = ctx.saved_tensors
        if watched(grad):
            return (
                reference.mri.mri_forward(grad, _mask(weights), maps, centered=ctx.centered),
                None,
                None,
                None,
            )
        return _Forward.apply(grad, weights, maps, ctx.centered), None, None, None


class _Forward(torch.autograd.Function):
    """A x"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, maps: Any, centered: bool) -> Tensor:
        ctx.save_for_backward(weights, maps)
        ctx.centered = centered
        images = x[:, None] if maps is None else _complex(_ops.coil_expand(_real(x), _real(maps)))
        return _measured(_shifted(_fft(_shifted(images, centered, True)), centered, False), weights)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        weights, maps = ctx.saved_tensors
        if watched(grad):
            return (
                reference.mri.mri_adjoint(grad, _mask(weights), maps, centered=ctx.centered),
                None,
                None,
                None,
            )
        return _Adjoint.apply(grad, weights, maps, ctx.centered), None, None, None


# ---- Fake kernels ----


@torch.library.register_fake("amstel::mri_normal")
def _(x: Tensor, mask: Tensor, sensitivities: Any, minus: Any, scale: Any, factor: float) -> Tensor:
    return torch.empty_like(x)


@torch.library.register_fake("amstel::coil_expand")
def _(x: Tensor, sensitivities: Tensor) -> Tensor:
    n, h, w, two = x.shape
    return x.new_empty(n, sensitivities.shape[1], h, w, two)


@torch.library.register_fake("amstel::coil_reduce")
def _(images: Tensor, sensitivities: Tensor, minus: Any, scale: Any, factor: float) -> Tensor:
    n, _, h, w, two = images.shape
    return images.new_empty(n, h, w, two)


@torch.library.register_fake("amstel::kspace_residual")
def _(k: Tensor, mask: Tensor, minus: Any) -> None:
    return None
