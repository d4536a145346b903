"""MRI data in one gauge and one scale, whatever scanner and calibration they come from, and the inverse."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from amstel.reference.mri import ifft2

#: Samples a side in the middle of k-space that tell the phase of the image.
_MIDDLE = 32
#: The outermost share of the samples, where there is little but noise; and how much of the covariance of that noise is taken
#: from white noise of the same power. Chosen on simulated coils, with noise that is and that is not the same in all.
_OUTER, _WHITE = 0.1, 0.2


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


def outer(kspace: Tensor, mask: Tensor) -> Tensor:
    """[coils, count], the outermost samples of k-space [coils, H, W]; all of them if there are few for the number of coils."""
    height, width = kspace.shape[-2:]
    rows, columns = (
        torch.linspace(-1, 1, n, device=kspace.device) if n > 1 else kspace.real.new_zeros(1)
        for n in (height, width)
    )
    radius = torch.hypot(rows[:, None], columns)
    taken = (mask != 0).expand(height, width)
    count = int(taken.sum())
    if not count:
        return kspace[:, taken]
    share = min(1.0, max(_OUTER, 20 * len(kspace) / count))
    least = radius[taken].kthvalue(max(1, round((1 - share) * count))).values
    return kspace[:, taken & (radius >= least)]


def whitened(kspace: Tensor, mask: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """k-space [coils, H, W] and maps of virtual coils, whose noise is about independent and equally strong.

    They are multiplied by C^-1/2, with C the covariance of the coils in the outermost samples, scaled to the mean power
    of a coil. Coils with less noise then count more, and the magnitude of k-space stays about the same.

    Source: K. Pruessmann et al., Advances in Sensitivity Encoding with Arbitrary k-Space Trajectories, MRM 46, 2001.
    """
    noise = outer(kspace, mask)
    noise = noise.to(torch.complex128)
    covariance = noise @ noise.mH
    power = covariance.diagonal().real.mean()
    if not power > 0:
        return kspace, maps
    covariance = (1 - _WHITE) * covariance / power + _WHITE * torch.eye(len(noise)).to(covariance)
    values, vectors = torch.linalg.eigh(covariance)
    mixing = ((vectors * values.rsqrt()) @ vectors.mH).to(kspace.dtype)
    return torch.einsum("ab,bhw->ahw", mixing, kspace), torch.einsum("ab,bhw->ahw", mixing, maps)


def canonical(
    kspace: Tensor, mask: Tensor, maps: Tensor | None
) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    r"""Remove what k-space does not determine: y = M F S x is the same for S' = S / a and x' = a x, for any a(r).

    .. code-block:: text

        a = |S| exp(-iφ)    |S|² = sum_c |S_c|²     φ the phase of the combined image at low resolution

    This a is used after the coils are `whitened`. Then sum |S'|² = 1 wherever there is any sensitivity, and x' is nearly
    real and positive, like the images that a network is trained on (`amstel.data.mri.estimate_sensitivities` gives such
    maps). So the phase and magnitude of the maps do not matter, whether constant or varying, nor does the order of the
    coils or a rotation among them. Finally, k-space is divided by 1.2 times the 99% quantile of the zero-filled
    magnitude, which is about its largest value without outliers.

    Args:
        kspace: complex [N, coils, H, W], centered, scaled by `unit`, 0 where it is not sampled.
        mask: as for `sampled`.
        maps: complex [coils, H, W] or [N, coils, H, W], finite, at any scale, or None for one coil of sensitivity 1.

    Returns:
        k-space, maps [N, coils, H, W], and a function that turns x' / scale [N, H, W] into the image x, which is 0
        where all maps are 0.
    """
    n, _, height, width = kspace.shape
    maps = torch.ones_like(kspace) if maps is None else maps.expand(n, -1, -1, -1)
    maps, size = unit(maps)
    maps = maps.to(kspace.dtype)
    if kspace.shape[1] > 1:
        masks = mask[:, 0].expand(n, -1, -1) if mask.dim() == 4 else [mask] * n
        mixed = [whitened(k, m, s) for k, m, s in zip(kspace, masks, maps, strict=True)]
        kspace, maps = (torch.stack(t) for t in zip(*mixed, strict=True))
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
