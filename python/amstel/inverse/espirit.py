"""Sensitivities of receive coils by ESPIRiT, from how neighbors in the calibration region of k-space are related."""

from __future__ import annotations

import torch
from torch import Tensor

#: Iterations of the power method for the largest eigenvector of every pixel.
_POWER = 8


def espirit(center: Tensor, start: Tensor, kernel: int, threshold: float) -> tuple[Tensor, Tensor]:
    r"""Maps [coils, H, W] of norm 1 and unknown phase, and the eigenvalue [H, W] of each pixel.

    .. code-block:: text

        M = all windows kernel x kernel of the calibration region as rows = U s V^H
        P = V V^H of the s >= threshold max(s)      G(r) = Fourier transform of P along the distance of its two places
        S(r) = the eigenvector of G(r) of the largest eigenvalue, which is 1 where there is an object and the maps explain it

    Args:
        center: complex [coils, h, w], the fully sampled middle of k-space; h, w >= kernel.
        start: complex [coils, H, W], maps that are about right, where the power method begins.

    Complexity: (coils kernel²)³ for V, coils² transforms of H x W, 8 coils² H W for the eigenvectors.
    """
    coils = center.shape[0]
    windows = center.to(torch.complex128).unfold(1, kernel, 1).unfold(2, kernel, 1)
    rows = windows.permute(1, 2, 0, 3, 4).reshape(-1, coils * kernel**2)
    values, vectors = torch.linalg.eigh(rows.mH @ rows)
    kept = vectors[:, values.clamp_min(0).sqrt() >= threshold * values[-1].clamp_min(0).sqrt()]
    # M = U s V^H: the rows of M are combinations of the columns of conj(V).
    space = (kept.conj() @ kept.T).reshape(coils, kernel, kernel, coils, kernel, kernel)
    # Sums over pairs of places of equal distance, around distance 0 in the middle.
    size = 2 * kernel - 1
    lags = torch.zeros(coils, coils, size, size, dtype=space.dtype, device=space.device)
    for i in range(kernel):
        for j in range(kernel):
            lags[:, :, kernel - 1 - i : size - i, kernel - 1 - j : size - j] += space[:, i, j]
    height, width = start.shape[1:]
    rows_, columns = (_phases(size, kernel - 1, n, lags) for n in (height, width))
    matrices = torch.einsum("hi,abij,wj->hwab", rows_, lags, columns) / kernel**2
    matrices = matrices.to(center.dtype)
    v = start.permute(1, 2, 0)
    for _ in range(_POWER):
        v = (matrices @ v[..., None])[..., 0]
        v = v / v.abs().square().sum(-1, keepdim=True).sqrt().clamp_min(torch.finfo(v.real.dtype).tiny)
    largest = (v.conj() * (matrices @ v[..., None])[..., 0]).sum(-1).real
    return v.permute(2, 0, 1), largest


def _phases(size: int, middle: int, pixels: int, like: Tensor) -> Tensor:
    """[pixels, size]: exp(-2 pi i r d / pixels) of distances d from the middle and pixels r from theirs."""
    d = torch.arange(size, device=like.device) - middle
    r = torch.arange(pixels, device=like.device) - pixels // 2
    return torch.exp(-2j * torch.pi * (r[:, None] * d).to(like.real.dtype) / pixels).to(like.dtype)
