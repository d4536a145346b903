"""MRI data in one gauge and one scale, whatever scanner and calibration they come from, and the way back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from amstel.reference.mri import ifft2

#: Samples a side in the middle of k-space that tell the phase of the image.
_MIDDLE = 32


def sampled(kspace: Tensor, mask: Tensor) -> Tensor:
    """k-space [N, coils, H, W] with 0 where the mask ([W], [H, W] or [N, 1, H, W]) does, whatever was there: NaN too."""
    return torch.where(mask != 0, kspace, torch.zeros((), dtype=kspace.dtype, device=kspace.device))


def unit(kspace: Tensor) -> tuple[Tensor, Tensor]:
    """k-space divided by the largest part in each [..., coils, H, W], and that divisor, in float64 [..., 1, 1, 1].

    So that no square of it is beyond the numbers; of zeros the divisor is 1.
    """
    largest = torch.view_as_real(kspace).abs().amax((-4, -3, -2, -1)).double()[..., None, None, None]
    largest = torch.where(largest > 0, largest, 1.0)
    wide = torch.view_as_real(kspace).double() / largest[..., None]
    return torch.view_as_complex(wide.contiguous()).to(kspace.dtype), largest


def canonical(
    kspace: Tensor, mask: Tensor, maps: Tensor | None
) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    r"""What physics cannot tell apart made alike: k-space y = M F S x is that of S' = S / a and x' = a x for any a(r).

    .. code-block:: text

        a = |S| exp(-iφ)    |S|² = sum_c |S_c|²     φ the phase of the combined image at low resolution

    so that sum |S'|² = 1 where there is any sensitivity, and x' is nearly real and positive, as a network is trained on
    (`amstel.data.mri.estimate_sensitivities` gives such maps). Phase and size of the maps, by a number or from point to
    point, therefore do not matter, nor does the order of the coils or a rotation among them. Then k-space is divided by
    1.2 times the 99 % quantile of the zero-filled magnitude, about its largest value without outliers.

    Args:
        kspace: complex [N, coils, H, W], centered, of `unit` size, 0 where it is not sampled.
        mask: as for `sampled`.
        maps: complex [coils, H, W] or [N, coils, H, W] of any finite size, or None for one coil of sensitivity 1.

    Returns:
        k-space, maps [N, coils, H, W], and a function that makes of x' / scale [N, H, W] the image x; where all maps
        are 0, 0.
    """
    n, _, height, width = kspace.shape
    maps = torch.ones_like(kspace) if maps is None else maps.expand(n, -1, -1, -1)
    maps, size = unit(maps)
    maps = maps.to(kspace.dtype)
    strength = maps.abs().square().sum(1, keepdim=True).sqrt()
    inverse = torch.where(strength > 1e-6, 1 / strength, 0.0)
    maps = maps * inverse
    window = [_window(size_, kspace) for size_ in (height, width)]
    low = ifft2(kspace * torch.outer(*window), centered=True)
    low = (maps.conj() * low).sum(1, keepdim=True)
    turn = torch.where(low.abs() > 0, torch.sgn(low), torch.ones_like(low))
    maps = maps * turn
    magnitude = (maps.conj() * ifft2(kspace, centered=True)).sum(1).abs().flatten(1)
    robust = 1.2 * magnitude.kthvalue(max(1, round(0.99 * magnitude.shape[1])), 1).values
    robust = torch.where(robust > 0, robust, magnitude.amax(1))
    robust = robust[:, None, None]

    def back(x: Tensor) -> Tensor:
        """Not yet in the size of the data, which `unit` took away: that of the maps in float64, then both at once."""
        return (x * robust * (turn * inverse)[:, 0]).to(torch.complex128) / size[:, 0]

    return kspace / torch.where(robust > 0, robust, 1.0)[:, None], maps, back


def _window(size: int, like: Tensor) -> Tensor:
    """A Hann window around the middle, 0 beyond."""
    count = min(_MIDDLE, size)
    window = torch.zeros(size, dtype=like.real.dtype, device=like.device)
    first = size // 2 - count // 2
    window[first : first + count] = torch.hann_window(
        count + 2, periodic=False, dtype=like.real.dtype, device=like.device
    )[1:-1]
    return window
