"""Deblurring a photograph with a known kernel, with the bundled denoiser as a plug-and-play prior."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amstel import _check
from amstel.inverse._given import tensor_of
from amstel.inverse.bounds import within
from amstel.inverse.deblurring import Deblurring, _padded
from amstel.inverse.images import Denoising
from amstel.inverse.plug_and_play import plug_and_play

#: Of plug-and-play: the first level and how many, the weight of the prior, conjugate gradients for each data step, and the
#: least noise that is assumed. FIRST, WEIGHT and NOISY are chosen on images held out of training; the others are not compared.
FIRST, COUNT, WEIGHT, ITERATIONS, LEAST = 49 / 255, 8, 0.25, 15, 1 / 255
#: Measurements that are noisier are worse than what the denoiser makes of them.
NOISY = 5 / 255


def kernel_of(kernel: Any, y: Tensor) -> Tensor:
    """The kernel as float32, checked: [kh, kw] or [C, kh, kw], odd sides, no larger than the image, its sum 1."""
    expected = "[kh, kw] or [C, kh, kw] with odd sides, at most as large as the image, and a sum of 1"
    if kernel is None:
        _check.fail("kernel", f"given for the task deblur: {expected}", kernel)
    found = tensor_of("kernel", kernel, expected)
    sides = found.shape[-2:]
    fits = found.dim() in (2, 3) and found.numel() and all(n % 2 for n in sides) and not found.is_complex()
    if not fits or (found.dim() == 3 and found.shape[0] not in (1, y.shape[1])):
        _check.fail("kernel", expected, found)
    if sides[0] > y.shape[2] or sides[1] > y.shape[3] or not found.isfinite().all():
        _check.fail("kernel", expected, found)
    found = found.float().to(y.device)
    total = found.sum((-2, -1))
    if not bool(((total - 1).abs() < 1e-2).all()):
        raise ValueError(
            f"`kernel` must have a sum of 1 (kernel / kernel.sum()), got {total.flatten()[0]:.4g}"
        )
    return found


def deblur(
    run: Callable[..., Tensor],
    y: Tensor,
    kernel: Tensor,
    noise: Tensor,
    progress: Callable[[int], None] | None,
) -> Tensor:
    """The images behind y [N, C, H, W], each by itself; `run` is the denoiser in tiles, as in `amstel.restore`.

    What lies beyond the border and was blurred into the image is estimated together with it, and cut off at the end.
    """
    top, left = (n // 2 for n in kernel.shape[-2:])
    found = []
    for image, sigma in zip(y.split(1), noise.clamp_min(LEAST).tolist(), strict=True):
        physics = Deblurring(kernel, sigma, "valid")
        levels = np.geomspace(max(FIRST, sigma), sigma, COUNT).tolist()
        start = _padded(_padded(image, top, -2, "replicate"), left, -1, "replicate")
        denoiser = partial(_denoised, run)
        x = plug_and_play(
            image, physics, denoiser, levels, weight=WEIGHT, iterations=ITERATIONS, initial=start
        )
        if sigma > NOISY:  # the last step went back to the measurement
            x = denoiser(x, sigma)
        x = x[..., top : x.shape[2] - top, left : x.shape[3] - left]
        # Of a point the blur leaves the largest value of the kernel.
        beyond = (1 / kernel.amax((-2, -1), keepdim=True) - 1).clamp_min(0)
        found.append(within(x, image, (top + 4, left + 4), beyond))
        if progress is not None:
            progress(image[:, 0].numel())
    return torch.cat(found)


def _denoised(run: Callable[..., Tensor], x: Tensor, level: float) -> Tensor:
    return run(x, x, lambda part: Denoising(level), progress=None)
