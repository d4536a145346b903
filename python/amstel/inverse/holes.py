"""Inpainting: a smooth filling of the holes, then rounds of denoising that keep what is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d

from amstel.inverse.bounds import within
from amstel.inverse.images import Denoising, Inpainting
from amstel.inverse.tiles import at

#: The noise that the rounds remove, at the least; and from how many pixels on the filling is left as it was. The first level
#: (5, 10 or 20) and FAR are chosen on images held out of training; how many rounds, and the last level, are not compared.
ROUNDS, FAR = tuple((np.geomspace(10, 2, 12) / 255).tolist()), 3.0
#: How far from the values of the smooth filling within so many pixels a filling may go, in parts of their difference.
BEYOND = 8, 0.25
#: Conjugate gradients of the smooth filling, at the most, and what they leave of the residual.
MOST, LEFT = 400, 1e-3


def inpaint(
    run: Callable[..., Tensor],
    y: Tensor,
    mask: Tensor,
    noise: Tensor,
    progress: Callable[[int], None] | None,
) -> Tensor:
    """Rounds of denoising with decreasing noise levels, after each of which the known pixels are restored.

    A network that is given only the likelihood of the known pixels barely changes the holes, because it was trained
    without any. Source: S. Venkatakrishnan et al., Plug-and-Play Priors for Model Based Reconstruction, GlobalSIP 2013.

    Args:
        run: the denoiser in tiles, as in `amstel.restore`.
        y: [N, C, H, W].
        mask: [H, W], [C, H, W] or [N, C, H, W], 1 where known.
        noise: [N] or a map [N, 1, H, W].
        progress: called with the pixels of the last round.
    """
    known = Inpainting(mask).adjoint(y)
    mask = mask.to(y).reshape((1,) * (4 - mask.dim()) + mask.shape).expand_as(y)
    start = x = smooth(fill(known, mask), mask)
    for level in ROUNDS:
        sigma = noise.clamp_min(level)
        said = progress if level == ROUNDS[-1] else None
        found = run(x, x, lambda part, s=sigma: Denoising(at(s, part)), progress=said)
        x = torch.where(mask > 0, y, found)
    # What is far from anything known the denoiser cannot know better.
    found = torch.where(mask > 0, found, start + near(mask) * (found - start))
    found = within(found, start, *BEYOND)
    # The mean of two estimates of a known pixel by their variances. Denoising leaves about a third of the noise, and takes
    # texture with it: what it takes beyond the noise, and beyond what so few pixels may differ by chance.
    left, given = ((s if s.dim() == 4 else s[:, None, None, None]).square() for s in (sigma / 3, noise))
    taken = _around(mask * ((y - found).square() - 1.5 * given)) / _around(mask).clamp_min(1e-6)
    left = torch.maximum(left, taken)
    return found + mask * left / (left + given) * (y - found)


def _around(x: Tensor) -> Tensor:
    """Means over 5x5 pixels."""
    return avg_pool2d(x, 5, 1, 2, count_include_pad=False)


def near(mask: Tensor) -> Tensor:
    """exp(-(d / FAR)²), d the distance to what is known in rows or columns, whichever is more; 0 beyond 3 FAR."""
    weight, reached = mask, mask
    for d in range(1, math.ceil(3 * FAR)):
        grown = max_pool2d(reached, 3, 1, 1)
        weight = weight + math.exp(-((d / FAR) ** 2)) * (grown - reached)
        reached = grown
    return weight


def smooth(x: Tensor, mask: Tensor) -> Tensor:
    """x with the holes, where the mask is 0, filled so that the sum of its squared Laplacian is minimal.

    Computed by conjugate gradients from the given values, which is exact for holes small enough for the number of steps,
    and otherwise still makes the filling smoother; values stay within the range of each channel's known pixels. The image
    is mirrored at its border. The filling is biharmonic, like that of scikit-image's `inpaint_biharmonic`.
    """
    holes = 1 - mask
    if not holes.any():
        return x
    known = torch.where(mask > 0, x, math.inf).amin((2, 3), keepdim=True)
    most = torch.where(mask > 0, x, -math.inf).amax((2, 3), keepdim=True)
    residual = -holes * _laplacian(_laplacian(x))
    direction, size = residual, _squares(residual)
    enough, tiny = LEFT**2 * size, torch.finfo(x.dtype).tiny
    for _ in range(MOST):
        if not bool((size > enough).any()):
            break
        image = holes * _laplacian(_laplacian(direction))
        length = size / (direction * image).sum((2, 3), keepdim=True).clamp_min(tiny)
        x = x + length * direction
        residual = residual - length * image
        before, size = size, _squares(residual)
        direction = residual + size / before.clamp_min(tiny) * direction
    return torch.where(mask > 0, x, x.minimum(most).maximum(known))


def _laplacian(x: Tensor) -> Tensor:
    """Differences to the neighbors, of which there are fewer at the border; symmetric."""
    down, right = x.diff(dim=2), x.diff(dim=3)
    found = torch.zeros_like(x)
    found[:, :, :-1] += down
    found[:, :, 1:] -= down
    found[..., :-1] += right
    found[..., 1:] -= right
    return found


def _squares(x: Tensor) -> Tensor:
    return x.square().sum((2, 3), keepdim=True)


def fill(known: Tensor, mask: Tensor) -> Tensor:
    """Fill unknown pixels from the known ones around them: means over squares of 2, 4, 8, ... pixels, interpolated.

    Args:
        known: [N, C, H, W], 0 where unknown.
        mask: [N, 1, H, W] or [N, C, H, W], 1 where known.

    Source: the pull-push of S. J. Gortler et al., The Lumigraph, SIGGRAPH 1996.
    """
    if mask.all() or max(known.shape[2:]) == 1:
        return known
    count = avg_pool2d(mask, 2, ceil_mode=True)
    mean = avg_pool2d(known, 2, ceil_mode=True) / count.clamp_min(0.1)
    coarse = fill(mean, (count > 0).to(mask))
    return torch.where(mask > 0, known, interpolate(coarse, known.shape[2:], mode="bilinear"))
