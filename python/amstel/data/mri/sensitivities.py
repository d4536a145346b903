"""Sensitivities of receive coils: made from physics for training, and estimated from the centre of k-space."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from amstel._check import fail, tensor
from amstel.data.mri.masks import sides
from amstel.reference.rim import ifft2


def normalise(s: Tensor) -> Tensor:
    """`s` [..., coils, H, W] such that the squared magnitudes of all coils sum to 1 at every pixel."""
    return s / s.abs().square().sum(-3, keepdim=True).sqrt().clamp_min(torch.finfo(torch.float32).tiny)


def loop_sensitivities(coils: int, shape: Sequence[int], rng: np.random.Generator) -> Tensor:
    """Sensitivities of circular loops around the object: complex64 [coils, H, W] with sum |S|^2 = 1 at every pixel.

    By reciprocity a receive coil is as sensitive as its field is strong, S = Bx - i By, and the field of a current around
    the loop is the Biot-Savart integral of dl x r / |r|^3. The loops stand on an ellipse around the image and face its
    middle; their size, distance, angle, height and phase are random, within what arrays for head and body look like.
    Source: Roemer, Edelstein, Hayes, Souza and Mueller, "The NMR phased array", MRM 16, 1990.

    Args:
        coils: how many.
        shape: (H, W).
        rng: gives all that is random.

    Example:
        >>> s = amstel.data.mri.loop_sensitivities(8, (64, 48), np.random.default_rng(0))
        >>> s.shape, torch.allclose(s.abs().square().sum(0), torch.ones(64, 48))
        (torch.Size([8, 64, 48]), True)
    """
    height, width = sides(shape)
    if not isinstance(coils, int) or coils < 1:
        fail("coils", "an integer >= 1", coils)
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
    return normalise(torch.complex(parts[:, 0], parts[:, 1]))


def _calibration(mask: Tensor, limit: int) -> tuple[slice, slice]:
    """The largest centred rectangle, at most `limit` a side, that a mask [H, W] samples fully."""
    height, width = mask.shape
    best, found = 0, (slice(0), slice(0))
    w = min(limit, width)
    for h in range(1, min(limit, height) + 1):
        while w:
            rows = slice(height // 2 - h // 2, height // 2 - h // 2 + h)
            cols = slice(width // 2 - w // 2, width // 2 - w // 2 + w)
            if mask[rows, cols].all():
                break
            w -= 1
        if w and h * w > best:
            best, found = h * w, (rows, cols)
    return found


def estimate_sensitivities(kspace: Tensor, mask: Tensor | None = None, calibration: int = 32) -> Tensor:
    """Sensitivities from the fully sampled centre of k-space: S_c = m_c / sqrt(sum |m|^2).

    m_c are the images of the coils at low resolution: the centre of k-space times a Hann window in both directions, for
    without one the edges of the object ring into the maps. The maps contain the object's phase at low resolution, which
    leaves a nearly real image to reconstruct, and sum |S|^2 = 1 at every pixel, also where there is nothing but noise.
    Source: McKenzie, Yeh, Ohliger, Price and Sodickson, "Self-calibrating parallel imaging with automatic coil
    sensitivity extraction", MRM 47, 2002.

    Args:
        kspace: complex [..., coils, H, W], centred.
        mask: [W] or [H, W], centred: only what it samples is used. Default: all that is not zero in every coil.
        calibration: largest height and width of the centre that is used.

    Returns:
        The shape and dtype of `kspace`.

    Raises:
        ValueError: k-space that is not complex, a mask of another size, one that does not sample the central 4 x 4
            samples.

    Example:
        >>> kspace = torch.randn(8, 64, 48, dtype=torch.complex64)
        >>> mask = amstel.data.mri.cartesian_mask(48, acceleration=3, center_fraction=0.2)
        >>> amstel.data.mri.estimate_sensitivities(kspace * mask, mask).shape
        torch.Size([8, 64, 48])
    """
    tensor("kspace", kspace, "a complex tensor [..., coils, H, W]")
    if not kspace.is_complex() or kspace.dim() < 3:
        fail("kspace", "a complex tensor [..., coils, H, W]", kspace)
    if not isinstance(calibration, int) or calibration < 4:
        fail("calibration", "an integer >= 4", calibration)
    shape = kspace.shape[-2:]
    if mask is None:
        mask = (kspace != 0).flatten(0, -3).any(0)
    elif mask.shape not in (shape, shape[1:]):
        fail("mask", f"[{shape[1]}] or {list(shape)}, as k-space", mask)
    rows, cols = _calibration(mask.bool().expand(shape).cpu(), calibration)
    centre = kspace[..., rows, cols]
    if min(centre.shape[-2:]) < 4:
        fail("mask", "one that samples the central 4 x 4 samples of k-space", mask)
    windows = [
        torch.hann_window(n + 2, periodic=False, dtype=kspace.real.dtype, device=kspace.device)[1:-1]
        for n in centre.shape[-2:]
    ]
    low = torch.zeros_like(kspace)
    low[..., rows, cols] = centre * torch.outer(*windows)
    return normalise(ifft2(low, centered=True))
