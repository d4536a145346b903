"""The operators of recurrent inference machines in plain PyTorch: likelihood gradients and the network's input.

The reference for the tests, and the formulas to read.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from amstel._torch import wide

Sigma = float | Tensor


def as_complex(parts: Tensor) -> Tensor:
    """Real and imaginary part [N, 2, H, W] as complex [N, H, W], without a copy from channels_last."""
    n, _, h, w = parts.shape
    # Flat, since the stride of a side of length 1, or of any side where there are no images, may be anything.
    return torch.view_as_complex(parts.permute(0, 2, 3, 1).reshape(-1).view(n, h, w, 2))


def psi(eta: Tensor, link: str) -> Tensor:
    """The image of an estimate."""
    return eta if link == "identity" else torch.sigmoid(eta)


def rim_input(eta: Tensor, gradient: Tensor, *, link: str = "identity") -> Tensor:
    """The same values as `amstel.ops.rim_input`.

    Example:
        >>> eta = torch.zeros(1, 1, 1, 1)
        >>> amstel.reference.rim_input(eta, torch.ones_like(eta), link="logistic").flatten()
        tensor([0.0000, 0.2500])
    """
    if link == "logistic":
        x = psi(eta, link)
        gradient = x * (1 - x) * gradient
    rows = torch.cat([eta, gradient], 1).movedim(1, -1).contiguous()
    return rows.movedim(-1, 1)  # channels_last, also under torch.vmap


def precision(sigma: Sigma, like: Tensor) -> float | Tensor:
    """1 / sigma^2, with a number for each image, at least float32, where sigma is a tensor."""
    if isinstance(sigma, Tensor):
        return wide(sigma.to(like)).square().reciprocal().reshape(-1, *[1] * (like.dim() - 1))
    return 1 / (sigma * sigma)


def rim_denoise_input(
    eta: Tensor, y: Tensor, sigma: Sigma, *, mask: Tensor | None = None, link: str = "identity"
) -> Tensor:
    """The same values as `amstel.ops.rim_denoise_input`.

    Example:
        >>> eta = torch.full((1, 1, 1, 1), 0.75)
        >>> amstel.reference.rim_denoise_input(eta, torch.zeros_like(eta), sigma=0.5).flatten()
        tensor([0.7500, 3.0000])
    """
    if mask is not None:
        y = y.masked_fill(mask == 0, 0)  # NaN may stand for what was not measured
    residual = psi(eta, link) - y
    if mask is not None:
        residual = mask.to(residual.dtype) * residual
    return rim_input(eta, (residual * precision(sigma, eta)).to(eta.dtype), link=link)


def rim_super_resolve_input(
    eta: Tensor, y: Tensor, scale: int, sigma: Sigma, *, link: str = "identity"
) -> Tensor:
    """The same values as `amstel.ops.rim_super_resolve_input`.

    Example:
        >>> eta, y = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 1, 1)
        >>> amstel.reference.rim_super_resolve_input(eta, y, 2, sigma=1.0)[0, 1]  # a quarter for each of 4 pixels
        tensor([[-0.2500, -0.2500],
                [-0.2500, -0.2500]])
    """
    residual = bicubic_down(psi(eta, link), scale) - y
    return rim_input(
        eta, (bicubic_down_adjoint(residual, scale) * precision(sigma, eta)).to(eta.dtype), link=link
    )


# -------------------------------------------------------------------------------------------- resampling


def bicubic_matrix(size: int, scale: int) -> np.ndarray:
    """[size / scale, size]: every pixel of the smaller image as a weighted sum of those of the larger.

    The weights are samples of Keys' cubic (a = -0.5) stretched by the scale, of sum 1; the image is mirrored at its
    border, the outermost pixel repeated.
    """
    return _bicubic_matrix(size, scale).copy()


@lru_cache(maxsize=64)
def _bicubic_matrix(size: int, scale: int) -> np.ndarray:
    matrix = np.zeros((size // scale, size))
    for i in range(size // scale):
        center = (i + 0.5) * scale - 0.5
        taps = np.arange(int(np.floor(center - 2 * scale)), int(np.ceil(center + 2 * scale)) + 1)
        d = np.abs(taps - center) / scale
        weight = np.where(d <= 1, 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2) * (d < 2)
        mirrored = taps % (2 * size)
        np.add.at(
            matrix[i], np.where(mirrored < size, mirrored, 2 * size - 1 - mirrored), weight / weight.sum()
        )
    return matrix


def _matrices(height: int, width: int, scale: int, like: Tensor) -> tuple[Tensor, Tensor]:
    rows, cols = (torch.from_numpy(_bicubic_matrix(size, scale)) for size in (height, width))
    return rows.to(like), cols.to(like)


def bicubic_down(x: Tensor, scale: int) -> Tensor:
    """The same values as `amstel.ops.bicubic_down`.

    Example:
        >>> x = torch.arange(16.0).expand(1, 1, 2, 16)
        >>> amstel.reference.bicubic_down(x, 2)[0, 0, 0, 3:5]  # far from the border of a ramp: means of two pixels
        tensor([6.5000, 8.5000])
    """
    rows, cols = _matrices(x.shape[-2], x.shape[-1], scale, x)
    return rows @ x @ cols.T


def bicubic_down_adjoint(y: Tensor, scale: int) -> Tensor:
    """The same values as `amstel.ops.bicubic_down_adjoint`.

    Example:
        >>> x, y = torch.randn(1, 1, 6, 6), torch.randn(1, 1, 3, 3)
        >>> down, up = amstel.reference.bicubic_down(x, 2), amstel.reference.bicubic_down_adjoint(y, 2)
        >>> torch.allclose((down * y).sum(), (x * up).sum(), atol=1e-5)
        True
    """
    rows, cols = _matrices(y.shape[-2] * scale, y.shape[-1] * scale, scale, y)
    return rows.T @ y @ cols
