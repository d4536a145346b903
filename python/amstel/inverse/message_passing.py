"""Reconstruct images from few random projections, by approximate message passing with a denoiser."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from amstel import _check
from amstel._derived import plainly
from amstel._torch import wide
from amstel.inverse.model import ForwardModel


@torch.no_grad()
def message_passing(
    y: Tensor,
    physics: ForwardModel,
    denoiser: Callable[[Tensor, Tensor], Tensor],
    initial: Tensor,
    *,
    steps: int = 60,
    damping: float = 0.6,
    seed: int = 0,
) -> Tensor:
    r"""Estimate the image x from P random projections y = A x + noise, where P is much smaller than the number of pixels.

    .. code-block:: text

        level = |r| / sqrt(P)      d = denoiser(x + A^T r, level)      div = trace of the denoiser's derivative
        x <- damping x + (1 - damping) d      r <- y - A x + (1 - damping) r div / P

    For random A, the term with div turns the error of x + A^T r into white noise of that level, which is what a denoiser
    is made for. In `plug_and_play`, this error is aliasing, which the denoiser mistakes for structure. An image that does
    not get closer to the measurements than `initial` is returned as it was.

    Args:
        y: [N, P].
        physics: `RandomProjection` or `StructuredProjection`; any model with random rows and columns of norm about 1, as
            in the examples of these two.
        denoiser: (images, levels [N]) -> images, for Gaussian noise of that standard deviation.
        initial: [N, C, H, W], for example from `total_variation`: the first level should be within the denoiser's range.
        steps: number of steps, each with two calls of the denoiser.
        damping: >= 0 and < 1; larger is slower and more stable. Use 0 for a denoiser that is exactly right for the images
            at hand, and more for a network.
        seed: of the random perturbation that estimates `div`.

    Returns:
        The images, without a gradient.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Source: C. Metzler, A. Maleki, R. Baraniuk, From Denoising to Compressed Sensing, IEEE TIT 62, 2016.

    Example:
        >>> physics = amstel.inverse.StructuredProjection((1, 16, 16), 64, sigma=0.01)
        >>> mean = lambda x, levels: torch.nn.functional.avg_pool2d(x, 3, 1, 1)
        >>> y = physics(torch.full((1, 1, 16, 16), 0.5))
        >>> amstel.inverse.message_passing(y, physics, mean, torch.zeros(1, 1, 16, 16)).shape
        torch.Size([1, 1, 16, 16])
    """
    if not isinstance(physics, ForwardModel):
        _check.fail_type("physics", "a ForwardModel", physics)
    if not callable(denoiser):
        _check.fail_type("denoiser", "a function of images and levels", denoiser)
    steps = _check.integer("steps", steps, 1)
    if _check.number("damping", damping, "a number >= 0 and < 1", least=0) >= 1:
        _check.fail("damping", "a number >= 0 and < 1", damping)
    generator = torch.Generator().manual_seed(_check.integer("seed", seed, 0))
    start = physics.adjoint(_check.tensor("y", y, "measurements, a tensor [N, P]"))
    if _check.tensor("initial", initial, "images like those of the physics").shape != start.shape:
        _check.fail("initial", f"images {list(start.shape)}", initial)
    x, shape = initial.to(start), start.shape
    rest = y - physics(x)
    first = _level(rest)
    for _ in range(steps):
        level = _level(rest).clamp_min(1e-4)
        noisy = x + physics.adjoint(rest)
        found = denoiser(noisy, level)
        if found.shape != x.shape:
            _check.fail("denoiser", f"a function that returns images {list(x.shape)}", found)
        # By the seed alone, whatever torch.vmap does to random numbers.
        signs = plainly(lambda: torch.randint(0, 2, shape, generator=generator)).to(x) * 2 - 1
        change = 0.1 * level.reshape(-1, *(1,) * (x.dim() - 1)) * signs
        slope = wide((denoiser(noisy + change, level) - found) / change).flatten(1).sum(1)
        x = damping * x + (1 - damping) * found
        slope = (slope / y[0].numel()).to(y.dtype).reshape(-1, *(1,) * (y.dim() - 1))
        rest = y - physics(x) + (1 - damping) * slope * rest
    better = (_level(y - physics(x)) <= first).reshape(-1, *(1,) * (x.dim() - 1))
    return torch.where(better, x, initial.to(start))


def _level(rest: Tensor) -> Tensor:
    """[N]."""
    return wide(rest).flatten(1).square().mean(1).sqrt().to(rest.dtype)
