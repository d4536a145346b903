"""Training data for recurrent inference machines: batches of one inverse problem, from photographs or coil images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from amstel import inverse
from amstel.apps.restoration.settings import Settings
from amstel.data.images import patches
from amstel.data.synthetic import drawings
from amstel.inverse.restore import mri_physics, sr_sigma

#: Of a U-Net: how many steps more than its own, and how often.
STEPS = {-1: 0.1, 0: 0.7, 1: 0.1, 2: 0.1}
#: Of the task "3task": what a batch is of, and how often.
KINDS = {"denoise": 0.6, "inpaint": 0.2, "sr": 0.2}


class Sample(NamedTuple):
    """A batch of one inverse problem: the images, the measurement of them, where to start, the weights of the loss, how
    many steps (None: as many as the network has)."""

    x: Tensor
    y: Tensor
    physics: Any
    initial: Tensor | None
    weight: Tensor
    steps: int | None = None


def sample(source: Any, settings: Settings, count: int, rng: np.random.Generator) -> Sample:
    """A batch for the task; `source` is a list of images as uint8 arrays, or for "mri" an `amstel.data.mri.CoilImages`."""
    found = _sample(source, settings, count, rng)
    if settings.network == "conv":
        return found
    counts, chances = zip(*STEPS.items(), strict=True)
    return found._replace(steps=max(1, settings.steps + int(rng.choice(counts, p=chances))))


def _sample(source: Any, settings: Settings, count: int, rng: np.random.Generator) -> Sample:
    if settings.task == "mri":
        x, physics, y = source.batch(count, rng)
        return Sample(x, y, mri_physics(physics), None, torch.ones(count))
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values()))) if settings.task == "3task" else settings.task
    if kind == "sr":
        scale = int(settings.scales[int(rng.integers(len(settings.scales)))])
        size = settings.size - settings.size % scale
        x = torch.from_numpy(patches(source, count, size, rng)).float() / 255
        model = inverse.SuperResolution(scale, sr_sigma(scale))
        y = (model(x) * 255).round().clamp(0, 255) / 255
        weight = torch.full((count,), 1 / scale)
        if (
            settings.task == "3task"
        ):  # what is left of the noise at 15 / 255 is about what twice the size lacks
            weight = 2 * weight * _worth(torch.full((count,), 15 / 255))
        return Sample(x, y, model, model.adjoint(y) * scale**2, weight)
    x = torch.from_numpy(patches(source, count, settings.size, rng)).float() / 255
    sigma = torch.from_numpy(rng.uniform(*settings.sigma, count).astype(np.float32)) / 255
    if settings.network == "conv":
        noise = torch.from_numpy(rng.standard_normal(x.shape, np.float32))
        # The error that is left grows about as sigma does.
        return Sample(x, x + sigma[:, None, None, None] * noise, inverse.Denoising(sigma), None, 0.1 / sigma)
    drawn = torch.from_numpy(rng.random(count) < settings.drawn)
    x[drawn] = torch.from_numpy(drawings(source, int(drawn.sum()), settings.size, rng))
    sigma = sigma.clamp_min(0.01 / 255)
    if kind == "inpaint":  # most often of an image without noise
        sigma = torch.where(torch.from_numpy(rng.random(count) < 0.6), 1 / 255, sigma / 2)
    y = x + sigma[:, None, None, None] * torch.from_numpy(rng.standard_normal(x.shape, np.float32))
    rounded = torch.from_numpy(rng.random(count) < settings.rounded)[:, None, None, None]
    y = torch.where(rounded, (y.clamp(0, 1) * 255).round() / 255, y)
    if kind == "inpaint":
        mask = _holes(count, settings.size, rng)
        return Sample(
            x, mask * y, inverse.Inpainting(mask, sigma), None, _worth(torch.full((count,), 35 / 255))
        )
    return Sample(x, y, inverse.Denoising(sigma), None, _worth(sigma))


def _worth(sigma: Tensor) -> Tensor:
    """One over the squared error that a denoiser of photographs leaves, in 8-bit units 3.2 sigma² / (3.2 + sigma), so
    that all levels of the noise count alike in dB; of the least noise, 1 / 255, on."""
    level = (255 * sigma).clamp_min(1)
    return 255**2 * (3.2 + level) / (32 * level.square())


def _holes(count: int, size: int, rng: np.random.Generator) -> Tensor:
    """Masks [count, 1, size, size] of a tenth to nine tenths known pixels, or in one of four known blocks of 8."""
    coarse = np.kron(rng.random((count, 1, -(-size // 8), -(-size // 8))), np.ones((8, 8)))[..., :size, :size]
    blocks = rng.random((count, 1, 1, 1)) < 0.25
    chances = np.where(blocks, coarse, rng.random((count, 1, size, size)))
    return torch.from_numpy((chances < rng.uniform(0.1, 0.9, (count, 1, 1, 1))).astype(np.float32))


def part(s: Sample, items: Sequence[int]) -> Sample:
    """Some of the images in a batch, with their own physics."""
    if list(items) == list(range(len(s.x))):
        return s
    rows = torch.as_tensor(items, device=s.x.device)
    physics: Any = s.physics
    if isinstance(physics, inverse.Denoising):
        sigma: Any = physics.sigma
        physics = inverse.Denoising(sigma[rows])
    elif isinstance(physics, inverse.Inpainting):
        sigma = physics.sigma
        physics = inverse.Inpainting(physics.mask[rows], sigma[rows])
    elif isinstance(physics, inverse.Envelope):
        whole: Any = physics.model
        physics = mri_physics(inverse.MRI(whole.mask, whole.sensitivities[rows], centered=True))
    initial = None if s.initial is None else s.initial[rows]
    return Sample(s.x[rows], s.y[rows], physics, initial, s.weight[rows], s.steps)
