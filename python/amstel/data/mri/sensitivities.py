"""Simulated sensitivities of receive coils, for training; `amstel.inverse` estimates them from k-space."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from amstel._check import integer
from amstel.data.mri.masks import sides
from amstel.inverse.sensitivities import estimate_sensitivities, normalize

__all__ = ["estimate_sensitivities", "loop_sensitivities"]


def loop_sensitivities(coils: int, shape: Sequence[int], rng: np.random.Generator) -> Tensor:
    """Sensitivities of circular loops around the object: complex64 [coils, H, W] with sum |S|^2 = 1 at every pixel.

    By reciprocity, the sensitivity of a receive coil follows from its field, S = Bx - i By, and the field of a current in
    the loop is the Biot-Savart integral of dl x r / |r|^3. The loops are placed on an ellipse around the image and face its
    center. Their size, distance, angle, height and phase are random, within the range of head and body arrays.
    Source: Roemer, Edelstein, Hayes, Souza and Mueller, "The NMR phased array", MRM 16, 1990.

    Args:
        coils: number of coils.
        shape: (H, W).
        rng: the source of all random numbers.

    Example:
        >>> s = amstel.data.mri.loop_sensitivities(8, (64, 48), np.random.default_rng(0))
        >>> s.shape, torch.allclose(s.abs().square().sum(0), torch.ones(64, 48))
        (torch.Size([8, 64, 48]), True)
    """
    height, width = sides(shape)
    coils = integer("coils", coils, 1)
    largest = max(height, width)
    # Half the longer side is the unit; the field is so smooth that every sixth pixel is enough.
    ys, xs = (np.linspace(-n / largest, n / largest, n // 6 + 4) for n in (height, width))
    places = np.stack([*np.meshgrid(xs, ys), np.zeros((len(ys), len(xs)))], -1)
    axes = np.array([width, height]) / largest * rng.uniform(1.25, 1.7, 2)
    radius = rng.uniform(0.7, 1.3) * math.pi / max(coils, 6) * axes.mean()
    start, level = rng.uniform(0, 2 * math.pi), rng.uniform(-0.3, 0.3)
    turn = np.linspace(0, 2 * math.pi, 24, endpoint=False)[:, None]
    up = np.array([0.0, 0.0, 1.0])
    fields = []
    for n in range(coils):
        angle = start + 2 * math.pi / coils * (n + rng.uniform(-0.15, 0.15))
        across = np.array([-math.sin(angle), math.cos(angle), 0])
        middle = [axes[0] * math.cos(angle), axes[1] * math.sin(angle), level + rng.uniform(-0.1, 0.1)]
        wire = middle + radius * rng.uniform(0.85, 1.15) * (np.cos(turn) * across + np.sin(turn) * up)
        r = places[..., None, :] - wire
        # A wire 0.05 thick keeps the field finite.
        strength = (np.square(r).sum(-1) + 0.05**2) ** -1.5
        field = (np.cross(np.cos(turn) * up - np.sin(turn) * across, r) * strength[..., None]).sum(-2)
        fields.append((field[..., 0] - 1j * field[..., 1]) * np.exp(2j * math.pi * rng.random()))
    parts = torch.view_as_real(torch.from_numpy(np.stack(fields)).to(torch.complex64)).movedim(-1, 1)
    parts = F.interpolate(parts, (height, width), mode="bicubic", align_corners=True)
    return normalize(torch.complex(parts[:, 0], parts[:, 1]))
