"""MRI from the k-space of any scanner, with a denoiser as the prior or with a network that was trained for it."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amstel import _check
from amstel.inverse._given import tensor_of
from amstel.inverse.canonical import canonical, outer, unit
from amstel.inverse.envelope import Envelope
from amstel.inverse.images import Denoising
from amstel.inverse.mri import MRI
from amstel.inverse.plug_and_play import complex_denoiser, plug_and_play
from amstel.inverse.sensitivities import estimate_sensitivities
from amstel.nn.rim import RIM
from amstel.reference.rim import as_complex

#: Of plug-and-play, for images with a largest magnitude of about 1: the levels, the last one at least the noise; the
#: weight of the prior; conjugate gradients for each data step; momentum; steps of the denoiser. Chosen on simulated coils
#: around chest images and held-out photographs, for the denoiser of complex images: one of gray images, which denoises the
#: parts apart, is better without momentum, by 0.8 dB in the mean of three simulated scans and three masks.
LEVELS, WEIGHT, ITERATIONS, MOMENTUM, STEPS = np.geomspace(30, 1, 24) / 255, 0.3, 5, 0.7, 1
#: How much of the size of the outermost samples is taken for noise: there is some of the image among them.
_SHARE = 0.9


def mri_physics(mri: MRI) -> Envelope:
    """The gradient that the MRI network sees: of the Moreau envelope, since coils are badly conditioned."""
    return Envelope(mri, 0.05, 8)


def reconstruct(
    model: RIM,
    y: Tensor,
    mask: Tensor,
    sensitivities: Any = None,
    steps: int | None = None,
) -> Tensor:
    """The images [N, H, W] of k-space [N, coils, H, W], centered, 0 where it is not sampled; see `amstel.restore`.

    Args:
        model: a denoiser, of gray images (one channel) or of complex ones (two channels, with `trained_sigma`): the
            prior of `plug_and_play`; or of two channels a network that was trained for MRI, on the gradients of
            `mri_physics`.
        y, mask, sensitivities: as for `amstel.restore`.
        steps: of the model; default: one of a denoiser, which it is called often enough, or as it was trained.
    """
    y, size = unit(y)  # so that estimating the maps is within the numbers, too
    y = y.to(torch.complex64)
    method = "center" if sensitivities is None else sensitivities
    if isinstance(method, str):
        _check.choice("sensitivities", method, ("center", "espirit"))
        sensitivities = None
    if sensitivities is None and y.shape[1] > 1:
        masks = mask[:, 0].expand(len(y), -1, -1) if mask.dim() == 4 else [mask] * len(y)
        sensitivities = torch.stack(
            [estimate_sensitivities(k, m, method=method) for k, m in zip(y, masks, strict=True)]
        )
    elif sensitivities is not None:
        expected = f"complex {list(y.shape[1:])} as k-space"
        sensitivities = tensor_of("sensitivities", sensitivities, expected).to(y.device)
        if sensitivities.shape not in (y.shape[1:], y.shape) or not sensitivities.is_complex():
            _check.fail("sensitivities", expected, sensitivities)
        if not sensitivities.isfinite().all():
            raise ValueError("`sensitivities` must be finite, got NaN or infinity")
    alive = (y != 0).any(-1).any(-1).any(0)
    if alive.any() and not alive.all():  # a coil without any signal says nothing
        y = y[:, alive]
        sensitivities = None if sensitivities is None else sensitivities[..., alive, :, :]
    _warn_of_origin(y)
    y, maps, back = canonical(y, mask, sensitivities)
    if model.channels == 2 and model.trained_sigma is None:
        x = model(y, mri_physics(MRI(mask, maps, centered=True)), steps)[-1]
    else:
        masks = mask.expand(len(y), -1, -1, -1) if mask.dim() == 4 else [mask] * len(y)
        parts = zip(y.split(1), masks, maps.split(1), strict=True)
        x = torch.cat([_by_denoiser(model, k, m if m.dim() < 3 else m[0], s, steps) for k, m, s in parts])
    return back(x) * size[:, 0]


def _warn_of_origin(y: Tensor) -> None:
    """k-space is by far the strongest around its zero frequency, which is expected in the middle."""
    power = y.abs().square().sum((0, 1))
    here, there = (_middle(p).sum() for p in (power, torch.fft.fftshift(power)))
    if min(power.shape) >= 8 and bool(there > 10 * here):
        warnings.warn(
            "`image` seems to have its zero frequency at [0, 0]; it should be at [H // 2, W // 2]: "
            "use torch.fft.fftshift(image, dim=(-2, -1)), and shift the mask, too",
            stacklevel=5,  # of `restore` and its decorator
        )


def _middle(power: Tensor) -> Tensor:
    h, w = power.shape
    return power[h // 4 : h - h // 4, w // 4 : w - w // 4]


def _by_denoiser(model: RIM, y: Tensor, mask: Tensor, maps: Tensor, steps: int | None) -> Tensor:
    """Of one image in the gauge and scale of `canonical`, so that each is as it would be alone."""
    sigma = _noise(y, mask)
    levels = np.maximum(LEVELS, sigma).tolist()

    def real(x: Tensor, level: float) -> Tensor:
        return model(x, Denoising(level), steps or STEPS)[-1]

    def both(x: Tensor, level: float) -> Tensor:
        return as_complex(real(torch.view_as_real(x).permute(0, 3, 1, 2).contiguous(), level))

    return plug_and_play(
        y,
        MRI(mask, maps, sigma, centered=True),
        both if model.channels == 2 else complex_denoiser(real),
        levels,
        weight=WEIGHT,
        iterations=ITERATIONS,
        momentum=MOMENTUM if model.channels == 2 else 0.0,
    )


def _noise(y: Tensor, mask: Tensor) -> float:
    """The standard deviation of the noise in k-space, or what the image has far from its middle, if that is more.

    From the median over the outermost samples of the power of all coils, which for noise alone is about chi-squared of two
    degrees a coil (E. Wilson and M. Hilferty, 1931), times `_SHARE`; at least 1e-4 of what the image is scaled to.
    """
    samples = outer(y[0], mask)
    if not samples.numel():
        return 1.0
    coils = len(samples)
    expected = 2 * coils * (1 - 1 / (9 * coils)) ** 3
    return max(1e-4, _SHARE * math.sqrt(float(samples.abs().square().sum(0).median()) / expected))
