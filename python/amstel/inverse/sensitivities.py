"""Sensitivities of receive coils, estimated from the center of k-space."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

from amstel import _checks
from amstel._check import choice, fail, integer, number, tensor
from amstel.inverse._checks import check_binary
from amstel.inverse.espirit import espirit
from amstel.reference.mri import ifft2


def normalize(s: Tensor) -> Tensor:
    """`s` [..., coils, H, W], scaled so that the squared magnitudes of all coils sum to 1 at every pixel."""
    tiny = torch.finfo(torch.float32).tiny
    s = s / s.detach().abs().amax(-3, keepdim=True).clamp_min(tiny)  # squares of large numbers overflow
    return s / s.abs().square().sum(-3, keepdim=True).sqrt().clamp_min(tiny)


def _calibration(mask: Tensor, limit: int) -> tuple[slice, slice]:
    """The largest centered rectangle, at most `limit` per side, that a mask [H, W] samples fully."""
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


def estimate_sensitivities(
    kspace: Tensor,
    mask: Tensor | None = None,
    calibration: int = 32,
    *,
    method: str = "center",
    kernel: int = 6,
    threshold: float = 0.02,
) -> Tensor:
    """Estimate sensitivities from the fully sampled center of k-space, by one of two methods.

    "center": S_c = m_c / sqrt(sum |m|^2). m_c are the images of the coils at low resolution: the center of k-space times
    a Hann window in both directions, without which the edges of the object would ring in the maps. The maps contain the
    phase of the object at low resolution, so the image to reconstruct is nearly real. sum |S|^2 = 1 at every pixel, even
    where there is only noise.

    "espirit": eigenvectors of what the windows of the center have in common. They explain the coils up to the edges of
    the object, have the phase of the maps above, and sum |S|^2 = 1 too.

    Source: McKenzie, Yeh, Ohliger, Price and Sodickson, "Self-calibrating parallel imaging with automatic coil
    sensitivity extraction", MRM 47, 2002; Uecker et al., "ESPIRiT - an eigenvalue approach to autocalibrating parallel
    MRI", MRM 71, 2014.

    Args:
        kspace: complex [..., coils, H, W], centered.
        mask: [W] or [H, W] of 0 and 1, centered: only what it samples is used. Default: every position where at
            least one coil is finite and nonzero.
        calibration: largest height and width of the center that is used.
        method: "center" or "espirit".
        kernel: for "espirit": side of the windows, at most about half that of the center.
        threshold: for "espirit": singular values of at least this share of the largest count as signal.

    Returns:
        The sensitivities, with the shape and dtype of `kspace`.

    Raises:
        TypeError: `kspace` or `mask` is not a tensor.
        ValueError: `kspace` is not complex, or not finite in the center; `mask` has a wrong size or other values, or
            does not sample the central 4 x 4 samples.

    Example:
        >>> kspace = torch.randn(8, 64, 48, dtype=torch.complex64)
        >>> mask = amstel.data.mri.cartesian_mask(48, acceleration=3, center_fraction=0.2)
        >>> amstel.data.mri.estimate_sensitivities(kspace * mask, mask).shape
        torch.Size([8, 64, 48])
    """
    tensor("kspace", kspace, "a complex tensor [..., coils, H, W]")
    if not kspace.is_complex() or kspace.dim() < 3:
        fail("kspace", "a complex tensor [..., coils, H, W]", kspace)
    integer("calibration", calibration, 4)
    choice("method", method, ("center", "espirit"))
    integer("kernel", kernel, 2)
    number("threshold", threshold, "a number > 0 and < 1", above=0, below=1)
    shape = kspace.shape[-2:]
    if mask is None:
        mask = ((kspace != 0) & kspace.isfinite()).flatten(0, -3).any(0)
    else:
        mask = check_binary("mask", mask, f"[{shape[1]}] or {list(shape)} of 0 and 1, as k-space")
        if mask.shape not in (shape, shape[1:]):
            fail("mask", f"[{shape[1]}] or {list(shape)}, as k-space", mask)
    rows, cols = _calibration(mask.expand(shape).cpu(), calibration)
    center = kspace[..., rows, cols]
    if min(center.shape[-2:]) < 4:
        fail("mask", "one that samples the central 4 x 4 samples of k-space", mask)
    must = "`kspace` must be finite in every coil where it was sampled"

    def refuse(center: Tensor) -> NoReturn:
        raise ValueError(f"{must}, got NaN or infinity in its center")

    _checks.require(center, torch.isfinite, must, refuse)
    windows = [
        torch.hann_window(n + 2, periodic=False, dtype=kspace.real.dtype, device=kspace.device)[1:-1]
        for n in center.shape[-2:]
    ]
    low = torch.zeros_like(kspace)
    low[..., rows, cols] = center * torch.outer(*windows)
    images = ifft2(low, centered=True)
    maps = normalize(images)
    if method == "center":
        return maps
    size = min(kernel, (min(center.shape[-2:]) + 1) // 2)
    flat = zip(center.reshape(-1, *center.shape[-3:]), maps.reshape(-1, *maps.shape[-3:]), strict=True)
    found = torch.stack([espirit(k, m, size, threshold)[0] for k, m in flat]).reshape(kspace.shape)
    return found * torch.sgn((found.conj() * images).sum(-3, keepdim=True))
