"""Reconstruction by total variation, without a network: the classical baseline."""

from __future__ import annotations

import torch
from torch import Tensor

from amstel import _check
from amstel._derived import plainly
from amstel._torch import wide
from amstel.inverse.model import ForwardModel
from amstel.inverse.mri import MRI

#: Steps of the power method, and how much its estimate, which is a little too small, is raised by.
_POWER, _MARGIN = 30, 1.05


def _differences(x: Tensor) -> Tensor:
    """To the next row and to the next column, zero at the border: [..., H, W] to [2, ..., H, W]."""
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
def total_variation(y: Tensor, physics: ForwardModel, weight: float, iterations: int = 100) -> Tensor:
    """argmin over x of ||A x - y||^2 / 2 + weight * TV(x), TV the sum of sqrt(|d x / di|^2 + |d x / dj|^2).

    Computed by FISTA with steps of 1 / ||A||^2. The proximal map of TV takes 5 steps of projected gradient on its dual,
    starting from where the last one ended. The sigma of the physics is not used; `weight` takes its place.
    Source: Beck and Teboulle, "Fast gradient-based algorithms for constrained total variation image denoising and
    deblurring problems", IEEE TIP 18, 2009.

    Args:
        y: the measurements; for `MRI`, k-space, complex [N, coils, H, W]. Measured values that are NaN or infinite are
            not rejected.
        physics: the forward model, at any scale.
        weight: >= 0. For an image with a largest magnitude of about 1 and ||A|| = 1, use 0.001 to 0.1, growing with the
            noise.
        iterations: number of FISTA steps, each with one A^H A.

    Returns:
        The images, as `physics.adjoint` gives them: complex [N, H, W] for `MRI`, and real [N, C, H, W] for other models,
        where each channel has its own total variation.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Example:
        >>> physics = amstel.inverse.MRI(torch.arange(16) % 4 == 0)
        >>> total_variation(torch.randn(1, 1, 12, 16, dtype=torch.complex64), physics, 0.01).shape
        torch.Size([1, 12, 16])
    """
    _check.tensor("y", y, "measurements, a tensor [N, ...]")
    if not isinstance(physics, ForwardModel):
        _check.fail_type("physics", "a ForwardModel", physics)
    _check.number("weight", weight, "a finite number >= 0", least=0)
    _check.integer("iterations", iterations, 1)
    given = physics.adjoint(y)
    if not given.numel():
        return given
    start = wide(given)
    # A convex problem of any scale: of one whose numbers have squares, with the weight in its unit.
    unit = start.abs().max()
    unit = torch.where((unit > 0) & unit.isfinite(), unit, torch.ones_like(unit))
    start = start / unit
    step = 1 / _norm(physics, start).clamp_min(torch.finfo(unit.dtype).tiny)
    most = step * (weight / unit).clamp_max(torch.finfo(unit.dtype).max ** 0.4)
    some = most.clamp_min(torch.finfo(unit.dtype).tiny)
    x = ahead = start
    q, t = torch.zeros_like(_differences(x)), 1.0
    for _ in range(iterations):
        moved = ahead - step * (physics.normal(ahead) - start)
        for _ in range(5):
            q = q + 0.24 * _differences(moved - _differences_adjoint(q))
            q = q * (most / q.abs().square().sum(0).sqrt().maximum(some))
        last, x = x, moved - _differences_adjoint(q)
        t, before = (1 + (1 + 4 * t * t) ** 0.5) / 2, t
        ahead = x + (before - 1) / t * (x - last)
    return (x * unit).to(given.dtype)


def _norm(physics: ForwardModel, like: Tensor) -> Tensor:
    """At least ||A||^2 (within what the power method can tell), one for each image, to be multiplied with images."""
    shape = (len(like),) + (1,) * (like.dim() - 1)
    if isinstance(physics, MRI):  # at most the largest of all sums of |S|^2
        maps = physics.sensitivities
        if maps is None:
            return like.real.new_ones(shape)
        strength = maps.to(like.dtype).abs().square().sum(-3).flatten(-2).amax(-1)
        return strength.to(like.real.dtype).reshape(-1, 1, 1).expand(shape)
    shape, generator = like.shape, torch.Generator().manual_seed(0)
    # By the seed alone, whatever torch.vmap does to random numbers.
    x = plainly(lambda: torch.randn(shape, dtype=torch.float64, generator=generator)).to(like)
    dims = tuple(range(1, like.dim()))
    for _ in range(_POWER):
        size = x.abs().square().sum(dims, keepdim=True).sqrt()
        x = physics.normal(x / size.clamp_min(torch.finfo(size.dtype).tiny))
    return _MARGIN * x.abs().square().sum(dims, keepdim=True).sqrt()
