"""MRI by total variation: the reconstruction without a network that others are measured against."""

from __future__ import annotations

import torch
from torch import Tensor

from amstel._check import fail, tensor
from amstel.inverse.mri import MRI


def _differences(x: Tensor) -> Tensor:
    """To the next row and to the next column, zero at the border: [N, H, W] to [2, N, H, W]."""
    return torch.stack(
        [torch.diff(x, dim=-2, append=x[..., -1:, :]), torch.diff(x, dim=-1, append=x[..., -1:])]
    )


def _differences_adjoint(q: Tensor) -> Tensor:
    down, right = q[0][..., :-1, :], q[1][..., :-1]
    x = torch.zeros_like(q[0])
    x[..., :-1, :] -= down
    x[..., 1:, :] += down
    x[..., :-1] -= right
    x[..., 1:] += right
    return x


@torch.no_grad()
def total_variation(y: Tensor, physics: MRI, weight: float, iterations: int = 100) -> Tensor:
    """argmin over x of ||A x - y||^2 / 2 + weight * TV(x), TV the sum of sqrt(|d x / di|^2 + |d x / dj|^2).

    FISTA; the proximal map of TV by 5 steps of projected gradient on its dual, each time from where the last one ended.
    Source: Beck and Teboulle, "Fast gradient-based algorithms for constrained total variation image denoising and
    deblurring problems", IEEE TIP 18, 2009.

    Args:
        y: k-space, complex [N, coils, H, W].
        physics: the forward model, with sigma = 1 and sum |S|^2 <= 1, so that 1 is a step that converges.
        weight: >= 0, for an image with a largest magnitude of about 1.
        iterations: of FISTA, each with one gradient.

    Returns:
        complex [N, H, W].

    Example:
        >>> physics = amstel.inverse.MRI(torch.arange(16) % 4 == 0)
        >>> total_variation(torch.randn(1, 1, 12, 16, dtype=torch.complex64), physics, 0.01).shape
        torch.Size([1, 12, 16])
    """
    tensor("y", y, "a complex tensor [N, coils, H, W]")
    if not 0 <= weight < float("inf"):
        fail("weight", "a finite number >= 0", weight)
    if iterations < 1:
        fail("iterations", "an integer >= 1", iterations)
    prepared = physics.prepare(y)
    x = ahead = physics.adjoint(y)
    q, t = torch.zeros_like(_differences(x)), 1.0
    for _ in range(iterations):
        moved = ahead - prepared.gradient(ahead)
        for _ in range(5):
            q = q + 0.24 * _differences(moved - _differences_adjoint(q))
            q = q * (weight / q.abs().square().sum(0).sqrt().clamp_min(max(weight, 1e-30)))
        last, x = x, moved - _differences_adjoint(q)
        t, before = (1 + (1 + 4 * t * t) ** 0.5) / 2, t
        ahead = x + (before - 1) / t * (x - last)
    return x
