"""The input of a recurrent inference machine's network, and bicubic resampling with its exact adjoint, each fused."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from amstel import _check, reference
from amstel.ops._raw import operators, own_gradient, tracked, transformed

_ops = operators

LARGEST_SCALE = 64  # of the fused resampling, as in csrc/common/rim_check.h


def rim_input(eta: Tensor, gradient: Tensor, *, link: str = "identity") -> Tensor:
    r"""What the network of a recurrent inference machine reads, in one pass: [eta, Psi'(eta) ⊙ gradient].

    Args:
        eta: the estimate [N, C, H, W], float64, float32, bfloat16 or float16, contiguous or channels_last (other
            layouts are copied).
        gradient: of the log-likelihood with regard to the image x = Psi(eta), like eta.
        link: Psi, "identity" or "logistic" (the sigmoid, for images in (0, 1)).

    Returns:
        [N, 2C, H, W], channels_last, in the dtype of eta, or of autocast where that is on.

    Differentiable any number of times in eta and gradient. Bit-identical for any number of threads.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Complexity: 2 numbers read and 2 written a pixel and channel.

    Source: P. Putzky and M. Welling, Recurrent Inference Machines for Solving Inverse Problems, arXiv:1706.04008,
    section 3.1.

    Example:
        >>> eta = torch.zeros(1, 1, 4, 4)
        >>> amstel.ops.rim_input(eta, torch.ones_like(eta), link="logistic")[0, :, 0, 0]
        tensor([0.0000, 0.2500])
    """
    _estimate(eta, link)
    _like(eta, gradient, "gradient")
    return _input(eta, gradient, None, None, 1.0, False, link)


def rim_denoise_input(
    eta: Tensor, y: Tensor, sigma: float | Tensor, *, mask: Tensor | None = None, link: str = "identity"
) -> Tensor:
    r"""The likelihood gradient of denoising or inpainting and the network's input in one pass:
    [eta, Psi'(eta) ⊙ mask ⊙ (Psi(eta) - y) / sigma²].

    Args:
        eta: the estimate [N, C, H, W], as for `rim_input`.
        y: the measurement, like eta.
        sigma: standard deviation of the noise, > 0, a number or a tensor [N].
        mask: 1 where a pixel was measured and 0 elsewhere, broadcast to eta; boolean or of its dtype. What y holds where
            it is 0 does not matter.
        link: Psi, "identity" or "logistic".

    Returns:
        [N, 2C, H, W], channels_last, in the dtype of eta, or of autocast where that is on.

    Differentiable any number of times in eta and y. Bit-identical for any number of threads.

    Raises:
        ValueError or TypeError: an argument is not as described; the values of a tensor sigma are not looked at.

    Complexity: 2 numbers (3 with a mask) read and 2 written a pixel and channel.

    Source: P. Putzky and M. Welling, arXiv:1706.04008, equation 8 for Gaussian noise.

    Example:
        >>> y = torch.ones(1, 1, 4, 4)
        >>> amstel.ops.rim_denoise_input(torch.zeros_like(y), y, 0.5)[0, :, 0, 0]
        tensor([ 0., -4.])
    """
    _estimate(eta, link)
    _like(eta, y, "y")
    precision, factor = _precision(sigma, eta)
    if mask is not None:
        _check.tensor("mask", mask, "a tensor that can be broadcast to eta")
        if mask.is_complex() or mask.device != eta.device:
            _check.fail("mask", f"boolean or real on {eta.device}", mask)
        try:
            mask = mask.to(eta.dtype).expand_as(eta)
        except RuntimeError:
            _check.fail("mask", f"broadcast to {list(eta.shape)}", mask)
    return _input(eta, y, mask, precision, factor, True, link)


def rim_super_resolve_input(
    eta: Tensor, y: Tensor, scale: int, sigma: float | Tensor, *, link: str = "identity"
) -> Tensor:
    r"""The likelihood gradient of super-resolution and the network's input in two passes over eta:
    [eta, Psi'(eta) ⊙ Dᵀ(D Psi(eta) - y) / sigma²] with D = `bicubic_down` of this scale.

    Args:
        eta: the estimate [N, C, H, W], as for `rim_input`, H and W multiples of the scale.
        y: the small image [N, C, H / scale, W / scale] in the dtype of eta.
        scale: an integer >= 1.
        sigma: standard deviation of the noise, > 0, a number or a tensor [N].
        link: Psi, "identity" or "logistic".

    Returns:
        [N, 2C, H, W], channels_last, in the dtype of eta, or of autocast where that is on.

    Differentiable any number of times in eta and y. Bit-identical for any number of threads with the identity link;
    the logistic one is PyTorch's sigmoid, which is not.

    Raises:
        ValueError or TypeError: an argument is not as described; the values of a tensor sigma are not looked at.

    Complexity: 16 multiplications a pixel and channel; the residual is the only intermediate, 1 / scale² of eta.

    Source: P. Putzky and M. Welling, arXiv:1706.04008, equation 8 for Gaussian noise.

    Example:
        >>> eta = torch.rand(1, 1, 8, 8)
        >>> y = amstel.ops.bicubic_down(eta, 2)
        >>> amstel.ops.rim_super_resolve_input(eta, y, 2, 0.1)[0, 1].abs().max()
        tensor(0.)
    """
    _estimate(eta, link)
    _scale(scale)
    precision, factor = _precision(sigma, eta)
    if eta.shape[2] % scale or eta.shape[3] % scale:
        _check.fail("eta", f"of height and width that are multiples of the scale {scale}", eta)
    small = (*eta.shape[:2], eta.shape[2] // scale, eta.shape[3] // scale)
    _check.tensor("y", y, f"a tensor {list(small)}")
    if y.shape != small or y.dtype != eta.dtype or y.device != eta.device:
        _check.fail("y", f"{_name(eta.dtype)} {list(small)} on {eta.device}", y)
    if scale > LARGEST_SCALE:
        return reference.rim_super_resolve_input(eta, y, scale, sigma, link=link)
    wide = _wide(eta)
    x = wide if link == "identity" else torch.sigmoid(wide)
    residual = _down(x, _wide(y), scale)
    dtype = _output(eta)
    rest = precision, factor, scale, link == "logistic", dtype
    if tracked(precision):
        return torch.ops.amstel.rim_bicubic_input(_dense(wide), residual, *rest)
    if not own_gradient(wide, residual):
        return _ops.rim_bicubic_input(_dense(wide), residual, *rest)
    return _BicubicInput.apply(wide, residual, precision, factor, scale, link, dtype)


def bicubic_down(x: Tensor, scale: int) -> Tensor:
    r"""A smaller image by antialiased bicubic resampling, as MATLAB's imresize(x, 1 / scale) makes it.

    .. code-block:: text

        y_i = sum_k w(|k - c_i| / scale) x_k / sum_k w(...),  c_i = (i + 1/2) scale - 1/2,  along rows and columns
        w(d) = 3/2 d³ - 5/2 d² + 1 for d <= 1,  -1/2 d³ + 5/2 d² - 4 d + 2 for 1 < d < 2,  0 beyond

    Beyond the border the image is its own mirror, the outermost pixel repeated.

    Args:
        x: [N, C, H, W], any floating-point dtype (computed in float32 at the least), H and W multiples of the scale.
        scale: an integer >= 1.

    Returns:
        [N, C, H / scale, W / scale], contiguous.

    Differentiable any number of times. Bit-identical for any number of threads.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Complexity: 8 multiplications a pixel of x.

    Source: R. Keys, Cubic convolution interpolation for digital image processing, IEEE Trans. ASSP 1981, equation 15.

    Example:
        >>> amstel.ops.bicubic_down(torch.ones(1, 1, 6, 9), 3)
        tensor([[[[1., 1., 1.],
                  [1., 1., 1.]]]])
    """
    _image("x", x)
    _scale(scale)
    if x.shape[2] % scale or x.shape[3] % scale:
        _check.fail("x", f"of height and width that are multiples of the scale {scale}", x)
    if scale > LARGEST_SCALE:
        return reference.bicubic_down(x, scale)
    return _down(_wide(x), None, scale).to(x.dtype)


def bicubic_down_adjoint(y: Tensor, scale: int) -> Tensor:
    r"""The exact adjoint Dᵀ y of `bicubic_down`: <D x, y> = <x, Dᵀ y> for all x and y. Times scale² it is close to
    bicubic interpolation.

    Args:
        y: [N, C, h, w], any floating-point dtype (computed in float32 at the least).
        scale: an integer >= 1.

    Returns:
        [N, C, h * scale, w * scale], contiguous.

    Differentiable any number of times. Bit-identical for any number of threads.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Complexity: 8 multiplications a pixel of the result.

    Source: R. Keys, IEEE Trans. ASSP 1981, equation 15, for the weights.

    Example:
        >>> amstel.ops.bicubic_down_adjoint(torch.ones(1, 1, 2, 3, dtype=torch.double), 3).sum().round(decimals=6)
        tensor(6., dtype=torch.float64)
    """
    _image("y", y)
    _scale(scale)
    if scale > LARGEST_SCALE:
        return reference.bicubic_down_adjoint(y, scale)
    return _up(_wide(y), scale).to(y.dtype)


# ---- Checks ----


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _image(name: str, t: Tensor) -> None:
    _check.tensor(name, t, "a tensor [N, C, H, W]")
    if t.dim() != 4 or t.dtype not in _check.FLOATS:
        _check.fail(name, "floating-point [N, C, H, W]", t)


def _estimate(eta: Tensor, link: str) -> None:
    _image("eta", eta)
    if link not in ("identity", "logistic"):
        _check.fail("link", "'identity' or 'logistic'", link)


def _like(eta: Tensor, t: Tensor, name: str) -> None:
    _check.tensor(name, t, "a tensor like eta")
    if t.shape != eta.shape or t.dtype != eta.dtype or t.device != eta.device:
        _check.fail(name, f"{_name(eta.dtype)} {list(eta.shape)} on {eta.device} like eta", t)


def _scale(scale: int) -> int:
    return _check.integer("scale", scale, 1)


def _precision(sigma: float | Tensor, eta: Tensor) -> tuple[Tensor | None, float]:
    """1 / sigma² as a tensor [N] and as a number, one of the two being 1."""
    if isinstance(sigma, Tensor):
        if sigma.dim() == 0:
            sigma = sigma.expand(eta.shape[0])
        if sigma.shape != eta.shape[:1] or sigma.is_complex() or sigma.device != eta.device:
            _check.fail("sigma", f"a number, or a tensor [{eta.shape[0]}] on {eta.device}", sigma)
        wide = torch.promote_types(eta.dtype, torch.float32)
        return sigma.to(wide).square().reciprocal().contiguous(), 1.0
    sigma = _check.number("sigma", sigma, "a number > 0 or a tensor [N]", above=0, infinite=True)
    return None, 1 / sigma / sigma  # sigma² may be too small for a number


# ---- The network's input ----


def _wide(t: Tensor) -> Tensor:
    return t if t.dtype == torch.float64 else t.float()


def _output(eta: Tensor) -> torch.dtype:
    if torch.is_autocast_enabled(eta.device.type) and eta.dtype != torch.float64:
        return torch.get_autocast_dtype(eta.device.type)
    return eta.dtype


def _dense(t: Tensor) -> Tensor:
    return t if t.is_contiguous() else t.contiguous()


def _planar(t: Tensor) -> Tensor:
    """Contiguous or channels_last, as it is if it is either."""
    if t.is_contiguous() or transformed():  # torch.vmap knows of no other layout
        return t.contiguous()
    return t if t.is_contiguous(memory_format=torch.channels_last) else t.contiguous()


def _input(
    eta: Tensor,
    other: Tensor,
    mask: Tensor | None,
    precision: Tensor | None,
    factor: float,
    residual: bool,
    link: str,
) -> Tensor:
    dtype, logistic = _output(eta), link == "logistic"
    eta, other = _planar(_wide(eta)), _planar(_wide(other))
    if mask is not None:
        mask = _wide(mask)
        if mask.shape[2] > 1 and mask.shape[3] > 1 and mask.stride(2) != mask.shape[3] * mask.stride(3):
            mask = mask.contiguous()
    # sigma and the mask have a gradient too, which the operator's plain form knows.
    if (mask is not None or precision is not None) and tracked(mask, precision):
        filled = _filled(other, mask)
        return torch.ops.amstel.rim_input(eta, filled, mask, precision, factor, residual, logistic, dtype)
    if not own_gradient(eta, other):
        filled = _filled(other, mask)
        return _ops.rim_input(eta, filled, mask, precision, factor, residual, logistic, dtype)
    return _Input.apply(eta, other, mask, precision, factor, residual, logistic, dtype)


def _filled(other: Tensor, mask: Tensor | None) -> Tensor:
    """0 times NaN, which may stand for what was not measured, would not be 0."""
    return other if mask is None else other.masked_fill(mask == 0, 0)


class _Input(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        eta: Tensor,
        other: Tensor,
        mask: Any,
        precision: Any,
        factor: float,
        residual: bool,
        logistic: bool,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.save_for_backward(eta, other, mask, precision)
        ctx.options = (factor, residual, logistic)
        filled = _filled(other, mask)  # not kept: it is made again
        return _ops.rim_input(eta, filled, mask, precision, factor, residual, logistic, dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        eta, other, mask, precision = ctx.saved_tensors
        factor, residual, logistic = ctx.options
        other = _filled(other, mask)
        if not torch.is_grad_enabled() and not transformed():
            grads = _ops.rim_input_grad(grad, eta, other, mask, precision, factor, residual, logistic)
            return grads[0], _filled(grads[1], mask), *(None,) * 6
        # For a second derivative: the same in operations that have one.
        first, second = grad.to(eta.dtype).chunk(2, 1)
        second = factor * second
        if precision is not None:
            second = precision[:, None, None, None] * second
        x = torch.sigmoid(eta) if logistic else eta
        slope = x * (1 - x) if logistic else 1
        to_other = second * slope
        if residual:
            value = x - other
            if mask is not None:
                value, to_other = mask * value, mask * to_other
            first = first + to_other * slope
            to_other = -to_other
        else:
            value = other
        if logistic:
            first = first + second * slope * (1 - 2 * x) * value
        return first, _filled(to_other, mask), *(None,) * 6


# ---- Resampling ----


def _down(x: Tensor, minus: Tensor | None, scale: int) -> Tensor:
    """D x - minus"""
    if own_gradient(x, minus):
        return _Down.apply(x, minus, scale)
    return _ops.bicubic_down(_dense(x), minus if minus is None else _dense(minus), scale)


def _up(y: Tensor, scale: int) -> Tensor:
    return _Up.apply(y, scale) if own_gradient(y) else _ops.bicubic_up(_dense(y), scale)


class _Down(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, minus: Any, scale: int) -> Tensor:
        ctx.scale = scale
        return _ops.bicubic_down(_dense(x), minus if minus is None else _dense(minus), scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        grad_x = _up(grad, ctx.scale) if ctx.needs_input_grad[0] else None
        return grad_x, -grad if ctx.needs_input_grad[1] else None, None


class _Up(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, scale: int) -> Tensor:
        ctx.scale = scale
        return _ops.bicubic_up(_dense(y), scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _down(grad, None, ctx.scale), None


class _BicubicInput(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        eta: Tensor,
        residual: Tensor,
        precision: Any,
        factor: float,
        scale: int,
        link: str,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.save_for_backward(eta, residual, precision)
        ctx.options = (factor, scale, link)
        return _ops.rim_bicubic_input(
            _dense(eta), residual, precision, factor, scale, link == "logistic", dtype
        )

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        eta, residual, precision = ctx.saved_tensors
        factor, scale, link = ctx.options
        first, second = grad.to(eta.dtype).chunk(2, 1)
        second = factor * second
        if precision is not None:
            second = precision[:, None, None, None] * second
        if link == "logistic":
            x = torch.sigmoid(eta)
            slope = x * (1 - x)
            first = first + second * slope * (1 - 2 * x) * _up(residual, scale)
            second = second * slope
        return first, _down(second, None, scale), *(None,) * 5


# ---- Fake kernels ----


def _empty_input(eta: Tensor, dtype: torch.dtype) -> Tensor:
    n, c, h, w = eta.shape
    return eta.new_empty(n, h, w, 2 * c, dtype=dtype).permute(0, 3, 1, 2)


@torch.library.register_fake("amstel::rim_input")
def _(
    eta: Tensor,
    other: Tensor,
    mask: Any,
    precision: Any,
    factor: float,
    residual: bool,
    logistic: bool,
    dtype: torch.dtype,
) -> Tensor:
    return _empty_input(eta, dtype)


@torch.library.register_fake("amstel::rim_input_grad")
def _(
    grad: Tensor,
    eta: Tensor,
    other: Tensor,
    mask: Any,
    precision: Any,
    factor: float,
    residual: bool,
    logistic: bool,
) -> tuple[Tensor, Tensor]:
    pixel = eta.stride(3) if eta.shape[3] > 1 else eta.stride(2) if eta.shape[2] > 1 else 1
    last = pixel != 1 and pixel == eta.shape[1]  # as in csrc/cpu/rim_op.cpp
    laid = torch.channels_last if last else torch.contiguous_format
    grad_eta = torch.empty(eta.shape, dtype=eta.dtype, device=eta.device, memory_format=laid)
    return grad_eta, torch.empty_like(grad_eta)


@torch.library.register_fake("amstel::bicubic_down")
def _(x: Tensor, minus: Any, scale: int) -> Tensor:
    return x.new_empty(*x.shape[:2], x.shape[2] // scale, x.shape[3] // scale)


@torch.library.register_fake("amstel::bicubic_up")
def _(y: Tensor, scale: int) -> Tensor:
    return y.new_empty(*y.shape[:2], y.shape[2] * scale, y.shape[3] * scale)


@torch.library.register_fake("amstel::rim_bicubic_input")
def _(
    eta: Tensor,
    residual: Tensor,
    precision: Any,
    factor: float,
    scale: int,
    logistic: bool,
    dtype: torch.dtype,
) -> Tensor:
    return _empty_input(eta, dtype)
