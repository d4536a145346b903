"""The operators of recurrent inference machines in plain PyTorch: likelihood gradients, the network's input, a GRU cell.

The oracle of the tests, and the formulae to read.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

Sigma = float | Tensor


def conv_gru_cell(gates_x: Tensor, gates_h: Tensor, h: Tensor) -> Tensor:
    """The same values as `amstel.ops.conv_gru_cell`."""
    wide = torch.promote_types(h.dtype, torch.float32)
    x_r, x_z, x_n = gates_x.to(wide).chunk(3, 1)
    h_r, h_z, h_n = gates_h.to(wide).chunk(3, 1)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    n = torch.tanh(x_n + r * h_n)
    return ((1 - z) * n + z * h.to(wide)).to(h.dtype)


# ------------------------------------------------------------------------------------ the network's input


def psi(eta: Tensor, link: str) -> Tensor:
    """The image of an estimate."""
    return eta if link == "identity" else torch.sigmoid(eta)


def rim_input(eta: Tensor, gradient: Tensor, *, link: str = "identity") -> Tensor:
    """The same values as `amstel.ops.rim_input`."""
    if link == "logistic":
        x = psi(eta, link)
        gradient = x * (1 - x) * gradient
    rows = torch.cat([eta, gradient], 1).movedim(1, -1).contiguous()
    return rows.movedim(-1, 1)  # channels_last, also under torch.vmap


def precision(sigma: Sigma, like: Tensor) -> float | Tensor:
    """1 / sigma^2, with a number for each image where sigma is a tensor."""
    if isinstance(sigma, Tensor):
        return sigma.to(like).square().reciprocal().reshape(-1, *[1] * (like.dim() - 1))
    return 1 / (sigma * sigma)


def rim_denoise_input(
    eta: Tensor, y: Tensor, sigma: Sigma, *, mask: Tensor | None = None, link: str = "identity"
) -> Tensor:
    """The same values as `amstel.ops.rim_denoise_input`."""
    residual = psi(eta, link) - y
    if mask is not None:
        residual = mask.to(residual.dtype) * residual.masked_fill(mask == 0, 0)
    return rim_input(eta, residual * precision(sigma, eta), link=link)


def rim_super_resolve_input(
    eta: Tensor, y: Tensor, scale: int, sigma: Sigma, *, link: str = "identity"
) -> Tensor:
    """The same values as `amstel.ops.rim_super_resolve_input`."""
    residual = bicubic_down(psi(eta, link), scale) - y
    return rim_input(eta, bicubic_down_adjoint(residual, scale) * precision(sigma, eta), link=link)


# -------------------------------------------------------------------------------------------- resampling


@lru_cache(maxsize=64)
def bicubic_matrix(size: int, scale: int) -> np.ndarray:
    """[size / scale, size]: every pixel of the smaller image as a weighted sum of those of the larger.

    The weights are samples of Keys' cubic (a = -0.5) stretched by the scale, of sum 1; the image is mirrored at its
    border, the outermost pixel repeated.
    """
    matrix = np.zeros((size // scale, size))
    for i in range(size // scale):
        centre = (i + 0.5) * scale - 0.5
        taps = np.arange(int(np.floor(centre - 2 * scale)), int(np.ceil(centre + 2 * scale)) + 1)
        d = np.abs(taps - centre) / scale
        weight = np.where(d <= 1, 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2) * (d < 2)
        mirrored = taps % (2 * size)
        np.add.at(
            matrix[i], np.where(mirrored < size, mirrored, 2 * size - 1 - mirrored), weight / weight.sum()
        )
    return matrix


def _matrices(height: int, width: int, scale: int, like: Tensor) -> tuple[Tensor, Tensor]:
    rows, cols = (torch.from_numpy(bicubic_matrix(size, scale)) for size in (height, width))
    return rows.to(like), cols.to(like)


def bicubic_down(x: Tensor, scale: int) -> Tensor:
    """The same values as `amstel.ops.bicubic_down`."""
    rows, cols = _matrices(x.shape[-2], x.shape[-1], scale, x)
    return rows @ x @ cols.T


def bicubic_down_adjoint(y: Tensor, scale: int) -> Tensor:
    """The same values as `amstel.ops.bicubic_down_adjoint`."""
    rows, cols = _matrices(y.shape[-2] * scale, y.shape[-1] * scale, scale, y)
    return rows.T @ y @ cols


# --------------------------------------------------------------------------------------------------- MRI


def fft2(x: Tensor, centered: bool) -> Tensor:
    """Orthonormal; `centered`: both origins in the middle, at index size // 2."""
    dims = (-2, -1)
    if not centered:
        return torch.fft.fft2(x, norm="ortho")
    return torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(x, dim=dims), norm="ortho"), dim=dims)


def ifft2(k: Tensor, centered: bool) -> Tensor:
    """The inverse of `fft2`."""
    dims = (-2, -1)
    if not centered:
        return torch.fft.ifft2(k, norm="ortho")
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
    """The same values as `amstel.ops.mri_normal`."""
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
    """The same values as `amstel.ops.mri_gradient`."""
    residual = mri_forward(x, mask, sensitivities, centered=centered)
    residual = residual - mask.to(y.real.dtype) * y.masked_fill(mask == 0, 0)
    gradient = mri_adjoint(residual, torch.ones_like(mask), sensitivities, centered=centered)
    scale = precision(sigma, x.real)
    return gradient * scale
