"""The input of a recurrent inference machine's network, and bicubic resampling with its exact adjoint, each fused: the
public functions and their checks."""

from __future__ import annotations

import torch
from torch import Tensor

from amstel import _check
from amstel.ops import _plain, _rim
from amstel.ops._noise import precision_of
from amstel.ops._raw import operators, own_gradient, tracked

_ops = operators

# Of the fused resampling, as in csrc/common/rim_check.h; beyond it is two products of matrices.
LARGEST_SCALE = 64


def rim_input(eta: Tensor, gradient: Tensor, *, link: str = "identity") -> Tensor:
    r"""What the network of a recurrent inference machine reads, in one pass: [eta, Psi'(eta) ⊙ gradient].

    Args:
        eta: the estimate [N, C, H, W], float64, float32, bfloat16 or float16, contiguous or channels_last (other
            layouts are copied).
        gradient: of the log-likelihood with regard to the image x = Psi(eta), like eta.
        link: Psi, "identity" or "logistic" (the sigmoid, for images in (0, 1)).

    Returns:
        [N, 2C, H, W], channels_last, in the dtype of eta, or that of autocast if it is on.

    Differentiable any number of times in eta and gradient. Bit-identical for any number of threads.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Complexity: 2 numbers read and 2 written per pixel and channel.

    Source: P. Putzky and M. Welling, Recurrent Inference Machines for Solving Inverse Problems, arXiv:1706.04008,
    section 3.1.

    Example:
        >>> eta = torch.zeros(1, 1, 4, 4)
        >>> amstel.ops.rim_input(eta, torch.ones_like(eta), link="logistic")[0, :, 0, 0]
        tensor([0.0000, 0.2500])
    """
    _estimate(eta, link)
    _like(eta, gradient, "gradient")
    return _rim.network_input(eta, gradient, None, None, 1.0, False, link)


def rim_denoise_input(
    eta: Tensor, y: Tensor, sigma: float | Tensor, *, mask: Tensor | None = None, link: str = "identity"
) -> Tensor:
    r"""The likelihood gradient of denoising or inpainting and the network's input in one pass:
    [eta, Psi'(eta) ⊙ mask ⊙ (Psi(eta) - y) / sigma²].

    Args:
        eta: the estimate [N, C, H, W], as for `rim_input`.
        y: the measurement, like eta.
        sigma: standard deviation of the noise, > 0, a number or a tensor [N].
        mask: 1 where a pixel was measured and 0 elsewhere, broadcast to eta; boolean or of its dtype. Where it is 0, y is
            ignored.
        link: Psi, "identity" or "logistic".

    Returns:
        [N, 2C, H, W], channels_last, in the dtype of eta, or that of autocast if it is on.

    Differentiable any number of times in eta, y, a sigma tensor and a floating-point mask. Bit-identical for any
    number of threads.

    Raises:
        ValueError or TypeError: an argument is not as described; the values of a sigma tensor are not checked.

    Complexity: 2 numbers (3 with a mask) read and 2 written per pixel and channel.

    Source: P. Putzky and M. Welling, arXiv:1706.04008, equation 8 for Gaussian noise.

    Example:
        >>> y = torch.ones(1, 1, 4, 4)
        >>> amstel.ops.rim_denoise_input(torch.zeros_like(y), y, 0.5)[0, :, 0, 0]
        tensor([ 0., -4.])
    """
    _estimate(eta, link)
    _like(eta, y, "y")
    precision, factor = precision_of(sigma, eta)
    if mask is not None:
        _check.dense("mask", mask, "a tensor that can be broadcast to eta")
        if mask.is_complex() or mask.device != eta.device:
            _check.fail("mask", f"boolean or real on {eta.device}", mask)
        smaller = mask.shape != eta.shape
        if smaller:
            sizes = zip(reversed(mask.shape), reversed(eta.shape), strict=False)
            if mask.dim() > eta.dim() or not all([m == 1 or m == n for m, n in sizes]):
                _check.fail("mask", f"broadcast to {list(eta.shape)}", mask)
        mask = mask.to(eta.dtype)
        mask = mask.expand_as(eta) if smaller else mask
    return _rim.network_input(eta, y, mask, precision, factor, True, link)


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
        [N, 2C, H, W], channels_last, in the dtype of eta, or that of autocast if it is on.

    Differentiable any number of times in eta, y and a sigma tensor. Bit-identical for any number of threads with the
    identity link and a scale of at most 64. The logistic link uses PyTorch's sigmoid, and larger scales its matrix
    products, which are not.

    Raises:
        ValueError or TypeError: an argument is not as described; the values of a sigma tensor are not checked.

    Complexity: 16 multiplications per pixel and channel. The residual, 1 / scale² of eta, is the only intermediate.

    Source: P. Putzky and M. Welling, arXiv:1706.04008, equation 8 for Gaussian noise.

    Example:
        >>> eta = torch.rand(1, 1, 8, 8)
        >>> y = amstel.ops.bicubic_down(eta, 2)
        >>> amstel.ops.rim_super_resolve_input(eta, y, 2, 0.1)[0, 1].abs().max()
        tensor(0.)
    """
    _estimate(eta, link)
    _scale(scale)
    precision, factor = precision_of(sigma, eta)
    if eta.shape[2] % scale or eta.shape[3] % scale:
        _check.fail("eta", f"of height and width that are multiples of the scale {scale}", eta)
    small = (*eta.shape[:2], eta.shape[2] // scale, eta.shape[3] // scale)
    _check.dense("y", y, "a tensor [N, C, H / scale, W / scale]")
    if y.shape != small or y.dtype != eta.dtype or y.device != eta.device:
        _check.fail("y", f"{_check.name(eta.dtype)} {list(small)} on {eta.device}", y)
    wide = _rim.wide(eta)
    x = wide if link == "identity" else torch.sigmoid(wide)
    dtype = _rim.output_dtype(eta)
    rest = precision, factor, scale, link == "logistic", dtype
    if scale > LARGEST_SCALE:
        return _plain.rim_bicubic_input(wide, _plain.bicubic_down(x, _rim.wide(y), scale), *rest)
    residual = _rim.down(x, _rim.wide(y), scale)
    if tracked(precision):
        return torch.ops.amstel.rim_bicubic_input(_rim.dense(wide), residual, *rest)
    if not own_gradient(wide, residual):
        return _ops.rim_bicubic_input(_rim.dense(wide), residual, *rest)
    return _rim.BicubicInput.apply(wide, residual, precision, factor, scale, link, dtype)


def bicubic_down(x: Tensor, scale: int) -> Tensor:
    r"""A smaller image by antialiased bicubic resampling, as MATLAB's imresize(x, 1 / scale) makes it.

    .. code-block:: text

        y_i = sum_k w(|k - c_i| / scale) x_k / sum_k w(...),  c_i = (i + 1/2) scale - 1/2,  along rows and columns
        w(d) = 3/2 d³ - 5/2 d² + 1 for d <= 1,  -1/2 d³ + 5/2 d² - 4 d + 2 for 1 < d < 2,  0 beyond

    Beyond its border the image is mirrored, with the outermost pixel repeated.

    Args:
        x: [N, C, H, W], any floating-point dtype (computed at least in float32), H and W multiples of the scale.
        scale: an integer >= 1.

    Returns:
        [N, C, H / scale, W / scale], contiguous.

    Differentiable any number of times. Bit-identical for any number of threads for a scale of at most 64; larger scales
    use PyTorch's matrix products.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Complexity: 8 multiplications per pixel of x.

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
        return _plain.bicubic_down(_rim.wide(x), None, scale).to(x.dtype)
    return _rim.down(_rim.wide(x), None, scale).to(x.dtype)


def bicubic_down_adjoint(y: Tensor, scale: int) -> Tensor:
    r"""The exact adjoint Dᵀ y of `bicubic_down`: <D x, y> = <x, Dᵀ y> for all x and y. Times scale² it is close to
    bicubic interpolation.

    Args:
        y: [N, C, h, w], any floating-point dtype (computed at least in float32).
        scale: an integer >= 1.

    Returns:
        [N, C, h * scale, w * scale], contiguous.

    Differentiable any number of times. Bit-identical for any number of threads for a scale of at most 64; larger scales
    use PyTorch's matrix products.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Complexity: 8 multiplications per pixel of the result.

    Source: R. Keys, IEEE Trans. ASSP 1981, equation 15, for the weights.

    Example:
        >>> amstel.ops.bicubic_down_adjoint(torch.ones(1, 1, 2, 3, dtype=torch.double), 3).sum().round(decimals=6)
        tensor(6., dtype=torch.float64)
    """
    _image("y", y)
    _scale(scale)
    if scale > LARGEST_SCALE:
        return _plain.bicubic_up(_rim.wide(y), scale).to(y.dtype)
    return _rim.up(_rim.wide(y), scale).to(y.dtype)


# ---- Checks ----


def _image(name: str, t: Tensor) -> None:
    _check.dense(name, t, "a tensor [N, C, H, W]")
    if t.dim() != 4 or t.dtype not in _check.FLOATS:
        _check.fail(name, "floating-point [N, C, H, W]", t)


def _estimate(eta: Tensor, link: str) -> None:
    _image("eta", eta)
    if not isinstance(link, str) or link not in ("identity", "logistic"):
        _check.fail("link", "'identity' or 'logistic'", link)


def _like(eta: Tensor, t: Tensor, name: str) -> None:
    _check.dense(name, t, "a tensor like eta")
    if t.shape != eta.shape or t.dtype != eta.dtype or t.device != eta.device:
        _check.fail(name, f"{_check.name(eta.dtype)} {list(eta.shape)} on {eta.device} like eta", t)


def _scale(scale: int) -> int:
    return _check.integer("scale", scale, 1)
