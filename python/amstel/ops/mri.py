"""The likelihood gradient of (multi-coil) magnetic resonance imaging, fused around the Fourier transforms:
the public functions and their checks."""

from __future__ import annotations

import torch
from torch import Tensor

from amstel import _check, reference
from amstel.ops import _mri
from amstel.ops._noise import precision_of
from amstel.ops._raw import tracked, transformed


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
        y: k-space [N, coils, H, W] (coils = 1 without sensitivities) in the dtype of x; values where the mask is 0 are
            ignored.
        mask: 1 where k-space was measured and 0 elsewhere: [W] for whole columns, [H, W], or [N, 1, H, W]; boolean or
            real.
        sensitivities: S, [coils, H, W] or [N, coils, H, W], or None.
        sigma: standard deviation of the noise, > 0, a number or a tensor [N].
        centered: whether the origins of image and k-space (and of the mask) are in the middle, at size // 2.

    Returns:
        [N, H, W] in the dtype of x. F is orthonormal.

    Differentiable any number of times in x, y and the sensitivities; in the mask and sigma through plain PyTorch.
    Bit-identical from run to run, and for any number of threads if PyTorch's transform of y is.

    Raises:
        ValueError or TypeError: an argument is not as described; the values of a sigma tensor are not checked.

    Complexity: that of Aᴴ y and `mri_normal`. If y stays the same over many calls, compute Aᴴ y once and call
    `mri_normal`, as `amstel.inverse.MRI(...).prepare(y)` does.

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
    _check.dense("y", y, "a complex tensor [N, coils, H, W]")
    if y.shape != shape or y.dtype != x.dtype or y.device != x.device:
        _check.fail("y", f"{_check.name(x.dtype)} {list(shape)} on {x.device}", y)
    scale = precision_of(sigma, x)
    if torch.compiler.is_compiling() and torch.onnx.is_in_onnx_export():
        return _mri.in_pairs(x, y, None, mask, sensitivities, *scale, centered)
    if transformed() or tracked(mask, sigma):
        y = y.masked_fill(mask == 0, 0)  # 0 times NaN would not be 0
        return reference.mri_gradient(x, y, mask, sensitivities, sigma, centered=centered)
    weights = _mri.weights_of(mask, x)
    return _mri.Normal.call(
        x, _mri.Adjoint.call(y, weights, maps, centered), _mri.origin(weights, centered), maps, *scale
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
    r"""scale (AᴴA x - Aᴴy) of (multi-coil) MRI, with A x = mask ⊙ F(S_c ⊙ x): the gradient when Aᴴy is known.

    With a mask of columns, the transforms along the columns cancel, and centering is a shift of the mask, so only the
    rows are transformed. On the CPU, this is done by our own transforms: a strip of rows stays in the cache from S_c ⊙ x
    to the sum over the coils, and memory does not grow with the number of coils. On CUDA, a mask of columns takes a
    single kernel, which keeps rows in shared memory, if there are at most 1024 columns (512 in complex128) and the width
    has no prime factor above 13, except for one of up to 23 (19). For other masks and widths on CUDA, PyTorch computes
    the transforms, and the rest is fused around them.

    Args:
        x: images, complex64 or complex128 [N, H, W].
        mask: [W] for whole columns, [H, W], or [N, 1, H, W]; boolean or real, 0 or 1.
        sensitivities: S, [coils, H, W] or [N, coils, H, W], or None.
        adjoint_y: Aᴴy, like x, or None for 0.
        scale: a number, or a real tensor [N].
        centered: whether the origins of image and k-space (and of the mask) are in the middle, at size // 2.

    Returns:
        [N, H, W] in the dtype of x. F is orthonormal.

    Differentiable any number of times in x, adjoint_y and the sensitivities; in the mask and the scale through plain
    PyTorch. It is its own gradient in x. Bit-identical from run to run and, on the CPU, for any number of threads.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Complexity: 2 coils H W transforms along rows (and as many along columns unless the mask is one of columns); x
    and the sensitivities are read once.

    Source: K. Pruessmann et al., SENSE, Magnetic Resonance in Medicine 1999, for A.

    Example:
        >>> x = torch.randn(1, 8, 8, dtype=torch.cfloat)
        >>> torch.allclose(amstel.ops.mri_normal(x, torch.ones(8), None), x, atol=1e-6)
        True
    """
    maps = _checked(x, mask, sensitivities)
    if adjoint_y is not None:
        _check.dense("adjoint_y", adjoint_y, "a tensor like x")
        if adjoint_y.shape != x.shape or adjoint_y.dtype != x.dtype or adjoint_y.device != x.device:
            _check.fail(
                "adjoint_y", f"{_check.name(x.dtype)} {list(x.shape)} on {x.device} like x", adjoint_y
            )
    factor, scales = 1.0, None
    if not isinstance(scale, Tensor):
        factor = float(_check.number("scale", scale, f"a number or a real tensor [{x.shape[0]}]"))
    elif (
        scale.shape == x.shape[:1]
        and scale.layout == torch.strided
        and not scale.is_complex()
        and scale.dtype != torch.bool
        and scale.device == x.device
    ):
        scales = scale.to(_mri.real_dtype(x)).contiguous()
    else:
        _check.fail("scale", f"a number or a real tensor [{x.shape[0]}] on {x.device}", scale)
    if torch.compiler.is_compiling() and torch.onnx.is_in_onnx_export():
        return _mri.in_pairs(x, None, adjoint_y, mask, sensitivities, scales, factor, centered)
    if transformed() or tracked(mask, scale):
        return reference.mri_normal(x, mask, sensitivities, adjoint_y, scale, centered=centered)
    return _mri.Normal.call(
        x, adjoint_y, _mri.origin(_mri.weights_of(mask, x), centered), maps, scales, factor
    )


# ---- Checks ----


def _checked(x: Tensor, mask: Tensor, sensitivities: Tensor | None) -> Tensor | None:
    """The sensitivities as [1 or N, coils, H, W]."""
    _check.dense("x", x, "a complex tensor [N, H, W]")
    if x.dim() != 3 or x.dtype not in (torch.complex64, torch.complex128):
        _check.fail("x", "complex64 or complex128 [N, H, W]", x)
    n, h, w = x.shape
    _check.dense("mask", mask, "a tensor [W], [H, W] or [N, 1, H, W]")
    shapes = ((w,), (h, w), (n, 1, h, w), (1, 1, h, w))
    if mask.is_complex() or not any(
        [mask.shape == shape for shape in shapes]
    ):  # `in` fails on symbolic sizes
        _check.fail("mask", f"boolean or real [{w}], [{h}, {w}] or [{n}, 1, {h}, {w}]", mask)
    if mask.device != x.device:
        _check.fail("mask", f"on {x.device}", mask)
    if sensitivities is None:
        return None
    _check.dense("sensitivities", sensitivities, "a complex tensor [coils, H, W]")
    maps = sensitivities if sensitivities.dim() == 4 else sensitivities[None]
    if (
        maps.dim() != 4
        or maps.shape[0] not in (1, n)
        or maps.shape[1] < 1
        or maps.shape[2:] != (h, w)
        or maps.dtype != x.dtype
        or maps.device != x.device
    ):
        wanted = f"{_check.name(x.dtype)} [coils, {h}, {w}] or [{n}, coils, {h}, {w}] on {x.device}"
        _check.fail("sensitivities", wanted, sensitivities)
    return maps
