"""A denoiser as the prior for any inverse problem: plug-and-play by half-quadratic splitting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from amstel import _check
from amstel._torch import wide
from amstel.inverse.envelope import Envelope
from amstel.inverse.model import ForwardModel

Denoiser = Callable[[Tensor, float], Tensor]


@torch.no_grad()
def plug_and_play(
    y: Tensor,
    physics: ForwardModel,
    denoiser: Denoiser,
    levels: Sequence[float],
    *,
    weight: float = 0.3,
    iterations: int = 5,
    momentum: float = 0.0,
    initial: Tensor | None = None,
) -> Tensor:
    r"""Estimate the image x from y = A x + noise, with a denoiser as the prior.

    .. code-block:: text

        x_k = argmin_x  |A x - y|² / (2 sigma²) + weight |x - z_{k-1}|² / (2 level_k²)
        d_k = denoiser(x_k, level_k)      z_k = d_k + momentum (d_k - z_{k-1})

    This is repeated for decreasing levels, with one more x at the end. Each x is the image near z that fits the
    measurements as well as their noise (sigma of the physics) allows. The denoiser fills in what is not measured, first
    coarsely and then finely. x is computed by conjugate gradients from z (`amstel.inverse.Envelope`). The denoiser sees
    the image in a different one of its eight orientations each time, so that its artifacts do not add up.

    Args:
        y: the measurements.
        physics: the forward model, with the sigma of the noise in y.
        denoiser: (images, level) -> images, for Gaussian noise of that standard deviation; images [N, C, H, W], or
            complex [N, H, W] if those of the physics are complex.
        levels: numbers > 0, from about the error of the first estimate down to about the error at the end.
        weight: of the prior, > 0; 0.2 to 0.5 is usual.
        iterations: number of conjugate-gradient steps for each x.
        momentum: >= 0 and < 1: how much farther than the denoiser each z goes, in the direction of the last change. With
            few measurements, 0.7 gets as far in 20 levels as 0 in 30 or more.
        initial: z_0; default: an estimate from the measurements alone, by 10 conjugate-gradient steps from 0.

    Returns:
        The images, as `physics.adjoint` gives them, without a gradient.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Complexity: len(levels) times the denoiser and `iterations` A^H A.

    Source: S. Venkatakrishnan et al., Plug-and-Play Priors for Model Based Reconstruction, GlobalSIP 2013; K. Zhang et al.,
    Plug-and-Play Image Restoration with Deep Denoiser Prior, IEEE TPAMI 44, 2022.

    Example:
        >>> physics = amstel.inverse.Deblurring(torch.full((3, 3), 1 / 9), sigma=0.02)
        >>> mean = lambda x, level: torch.nn.functional.avg_pool2d(x, 3, 1, 1)
        >>> amstel.inverse.plug_and_play(torch.rand(1, 1, 8, 9), physics, mean, levels=[0.1, 0.05]).shape
        torch.Size([1, 1, 8, 9])
    """
    if not isinstance(physics, ForwardModel):
        _check.fail_type("physics", "a ForwardModel", physics)
    if not callable(denoiser):
        _check.fail_type("denoiser", "a function of images and a level", denoiser)
    levels = [float(_check.number("levels", level, "numbers > 0", above=0)) for level in levels]
    if not levels:
        _check.fail("levels", "at least one number > 0", levels)
    _check.number("weight", weight, "a finite number > 0", above=0)
    _check.number("momentum", momentum, "a number >= 0 and < 1", least=0, below=1)
    start = physics.adjoint(_check.tensor("y", y, "measurements, a tensor [N, ...]"))
    if initial is None:
        # Next to nothing but the measurements; 10 iterations leave out what they hardly tell.
        z = _nearest(physics, y, torch.zeros_like(start), 1e-3 * _precision(physics, start), 10)
    elif _check.tensor("initial", initial, "images like those of the physics").shape != start.shape:
        _check.fail("initial", f"images {list(start.shape)}", initial)
    else:
        z = initial.to(start.dtype)
    for k, level in enumerate(levels):
        x = _nearest(physics, y, z, weight / level**2, iterations)
        found = _turned(denoiser(_turned(x, k), level), k, back=True)
        if found.shape != x.shape:
            _check.fail("denoiser", f"a function that returns images {list(x.shape)}", found)
        # The first z comes from the measurements alone: no direction to go on in.
        z = found + momentum * (found - z) if k and momentum else found
    return _nearest(physics, y, z, weight / levels[-1] ** 2, iterations)


def complex_denoiser(denoiser: Denoiser) -> Denoiser:
    """A denoiser of complex images [N, H, W] from one of gray images [N, 1, H, W] in [0, 1].

    Real and imaginary part are denoised separately. The range -1/2 to 3/2 of each is mapped to 0 to 1, so that values
    stay within the gray scale even if the phase is not quite right.
    """

    def denoise(x: Tensor, level: float) -> Tensor:
        parts = torch.stack([x.real, x.imag], 1).flatten(0, 1)[:, None]
        found = (2 * denoiser(0.25 + 0.5 * parts, 0.5 * level) - 0.5)[:, 0].unflatten(0, (-1, 2))
        return torch.complex(found[:, 0], found[:, 1])

    return denoise


def _nearest(physics: ForwardModel, y: Tensor, z: Tensor, weight: float | Tensor, iterations: int) -> Tensor:
    envelope: Any = Envelope(physics, 1.0, iterations)
    envelope.weight = weight  # a number, or one for each image
    return z - envelope.gradient(z, y)


def _precision(physics: ForwardModel, images: Tensor) -> float | Tensor:
    """1 / sigma² of each image, where it is noisiest, to be multiplied with images."""
    sigma = physics._sigma(images)
    if not isinstance(sigma, Tensor):
        return sigma**-2
    sigma = wide(sigma.to(images.real.dtype))
    noisiest = sigma.flatten(1).amax(1) if sigma.dim() == 4 else sigma
    return noisiest.square().reciprocal().reshape(-1, *(1,) * (images.dim() - 1))


def _turned(x: Tensor, number: int, back: bool = False) -> Tensor:
    """x in one of its eight orientations, contiguous, or back from it."""
    flips = [dim for dim, bit in ((-1, 2), (-2, 4)) if number & bit]
    swap = bool(number & 1)
    if swap and not back:
        x = x.transpose(-1, -2)
    x = x.flip(flips)
    if swap and back:
        x = x.transpose(-1, -2)
    return x.contiguous()
