"""Multi-coil MRI in plain PyTorch: the reference for the tests, and the formulas to read."""

import torch
from torch import Tensor

from amstel.reference.rim import Sigma, precision


def fft2(x: Tensor, centered: bool) -> Tensor:
    """Orthonormal; `centered`: both origins in the middle, at index size // 2."""
    dims = (-2, -1)
    if not x.numel():  # MKL does not transform nothing
        return x.clone()
    if not centered:  # contiguous: torch 2.14 writes past its buffers where the innermost elements are apart
        return torch.fft.fft2(x.contiguous(), norm="ortho")
    return torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(x, dim=dims), norm="ortho"), dim=dims)


def ifft2(k: Tensor, centered: bool) -> Tensor:
    """The inverse of `fft2`."""
    dims = (-2, -1)
    if not k.numel():
        return k.clone()
    if not centered:
        return torch.fft.ifft2(k.contiguous(), norm="ortho")
    return torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(k, dim=dims), norm="ortho"), dim=dims)


def mri_forward(x: Tensor, mask: Tensor, sensitivities: Tensor | None, *, centered: bool = False) -> Tensor:
    """A x = M F (S_c x): [N, H, W] to [N, coils, H, W]."""
    images = x[:, None] if sensitivities is None else sensitivities * x[:, None]
    return mask.to(x.real.dtype) * fft2(images, centered)


def mri_adjoint(y: Tensor, mask: Tensor, sensitivities: Tensor | None, *, centered: bool = False) -> Tensor:
    """A^H y = sum_c conj(S_c) F^H M y_c: [N, coils, H, W] to [N, H, W]."""
    # Filled first: 0 times NaN, which may stand for what was not measured, would not be 0.
    images = ifft2(mask.to(y.real.dtype) * y.masked_fill(mask == 0, 0), centered)
    return images[:, 0] if sensitivities is None else (sensitivities.conj_physical() * images).sum(1)


def mri_normal(
    x: Tensor,
    mask: Tensor,
    sensitivities: Tensor | None,
    adjoint_y: Tensor | None = None,
    scale: Sigma = 1.0,
    *,
    centered: bool = False,
) -> Tensor:
    """The same values as `amstel.ops.mri_normal`.

    Example:
        >>> x = torch.ones(1, 2, 2, dtype=torch.cfloat)
        >>> S = torch.tensor([1.0, 2.0]).reshape(2, 1, 1).to(x)
        >>> amstel.reference.mri_normal(x, torch.ones(2), S)[0, 0, 0].real  # all is measured: the sum of |S|²
        tensor(5.)
    """
    k = mri_forward(x, mask, sensitivities, centered=centered)
    result = mri_adjoint(k, torch.ones_like(mask), sensitivities, centered=centered)
    if adjoint_y is not None:
        result = result - adjoint_y
    if isinstance(scale, Tensor):
        scale = scale.to(result.real.dtype).reshape(-1, 1, 1)
    return result * scale


def mri_gradient(
    x: Tensor,
    y: Tensor,
    mask: Tensor,
    sensitivities: Tensor | None,
    sigma: Sigma = 1.0,
    *,
    centered: bool = False,
) -> Tensor:
    """The same values as `amstel.ops.mri_gradient`.

    Example:
        >>> x = torch.ones(1, 2, 2, dtype=torch.cfloat)
        >>> y = torch.zeros(1, 1, 2, 2, dtype=torch.cfloat)
        >>> amstel.reference.mri_gradient(x, y, torch.ones(2), None, sigma=0.5)[0, 0, 0].real
        tensor(4.)
    """
    residual = mri_forward(x, mask, sensitivities, centered=centered)
    residual = residual - mask.to(y.real.dtype) * y.masked_fill(mask == 0, 0)
    gradient = mri_adjoint(residual, torch.ones_like(mask), sensitivities, centered=centered)
    scale = precision(sigma, x.real)
    return gradient * scale
