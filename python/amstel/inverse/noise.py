"""Estimate the noise of an image from the image alone, as Gaussian noise with one standard deviation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate, unfold

from amstel._check import FLOATS, fail, tensor
from amstel.inverse.bounds import within

#: Pixels a side of the squares whose quietest tell the noise, and the share of them that does.
_SQUARE, _QUIET = 8, 0.1
#: So few different values are no noisy image.
_FEW = 8
#: Pixels a side of the patches of the principal components.
_PATCH = 7
#: What is denoised lies between the values of the pixels that are this near.
_REACH = 4
#: Larger images are looked at through this many windows per side, of this many pixels per side.
_WINDOWS, _WINDOW = 4, 256


@torch.no_grad()
def estimate_sigma(image: Tensor) -> Tensor:
    r"""The standard deviation of white Gaussian noise in an image, the smallest of three estimates.

    .. code-block:: text

        quiet squares: r = k * image, k = [1 -2 1]^T [1 -2 1] / 6, which keeps the variance of white noise and removes
            everything that is linear along a row or a column; the 10% quantile of the mean of r² over 8x8 squares,
            divided by the value of that quantile for pure noise
        quiet pixels: the 25% quantile of |r|, divided by that of a normal distribution, 0.3186
        principal components: the smallest eigenvalues of the covariance of all 7x7 patches, divided by their values for
            pure noise in as many patches, minus the image's own share, which follows from how they differ

    The first fails if there is texture or text everywhere, the second if few pixels are alike, and the third if a
    texture has no preferred direction. Together they give about 0 for drawings, text and checkerboards, and less than
    2 / 255 for most photographs without noise (a photograph full of grass looks like noise: 9 / 255). For sigma of
    5 / 255 and more, they are accurate to about 5%. Values at 0 and 1 may be clipped, and clipped noise is smaller. The
    squares with the fewest such values are used, but clipped noise of sigma = 50 / 255 is still estimated as about 46.
    An image with at most 8 different values counts as free of noise. Squares without any change indicate that there is
    no noise, even if they are overexposed. Noise that neighboring pixels share (JPEG, enlarged images) is underestimated.

    Args:
        image: [N, C, H, W], floating point, in [0, 1] apart from the noise.

    Returns:
        [N] in the units of the image; for several channels, the root of their mean variance. 0 for sides < 3.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Complexity: H W for each image, of which at most 2^20 pixels are used.

    Source: J. Immerkær, Fast Noise Variance Estimation, CVIU 64, 1996; S. Pyatykh, J. Hesser, L. Zheng, Image Noise
    Level Estimation by Principal Component Analysis, IEEE TIP 22, 2013.

    Example:
        >>> y = 0.5 + 0.1 * torch.randn(1, 1, 128, 128, generator=torch.Generator().manual_seed(0))
        >>> amstel.inverse.estimate_sigma(y).round(decimals=2)
        tensor([0.1000])
    """
    expected = "floating-point [N, C, H, W]"
    tensor("image", image, expected)
    if image.dim() != 4 or image.dtype not in FLOATS or 0 in image.shape:
        fail("image", expected, image)
    if min(image.shape[2:]) < 3:
        return image.new_zeros(len(image))
    variances = [torch.stack([_variance(p) for p in map(_seen, one.double())]).mean() for one in image]
    return torch.stack(variances).sqrt().to(image)


def _variance(planes: list[Tensor]) -> Tensor:
    # There is no more noise than there is of anything; of a few pixels the estimates say little.
    found = min(
        _quiet(planes), _components(planes), torch.cat([p.flatten() for p in planes]).var(correction=0)
    )
    # Noise of this size would have made more than a few values of them: dots of a printer, say, are no noise.
    some = torch.cat([p.flatten()[: 1 << 12] for p in planes]).unique()
    if len(some) <= _FEW and 255**2 * found > _FEW**2:
        values = torch.cat([p.flatten() for p in planes]).unique()
        return torch.zeros_like(found) if len(values) <= _FEW else found
    return found


def _seen(plane: Tensor) -> list[Tensor]:
    """The whole [H, W], or windows spread over it."""
    most = _WINDOWS * _WINDOW
    if plane.numel() <= most**2:
        return [plane]
    firsts = []
    for size in plane.shape:
        side, count = (most, 1) if size <= most else (_WINDOW, _WINDOWS)
        firsts.append([(s, s + side) for s in torch.linspace(0, max(0, size - side), count).long().tolist()])
    return [plane[a:b, c:d] for a, b in firsts[0] for c, d in firsts[1]]


def _quiet(planes: list[Tensor]) -> Tensor:
    """The variance by the quiet squares and the quiet pixels."""
    second = planes[0].new_tensor([1.0, -2.0, 1.0])
    kernel = (second[:, None] * second / 6)[None, None]
    means, clipped, sizes = [], [], []
    for plane in planes:
        r = conv2d(plane[None, None], kernel)[0, 0].abs()
        sizes.append(r.flatten())
        rows, columns = (min(_SQUARE, n) for n in r.shape)
        at_end = ((plane <= 0) | (plane >= 1))[1:-1, 1:-1].double()
        squares, at_end = (
            t.unfold(0, rows, rows).unfold(1, columns, columns).flatten(2).flatten(0, 1) for t in (r, at_end)
        )
        means.append(squares.square().mean(1))
        clipped.append(torch.where(squares.amax(1) > 0, at_end.mean(1), 0.0))  # constant: no noise at all
    mean, ends = torch.cat(means), torch.cat(clipped)
    mean = mean[ends <= ends.quantile(0.25)]
    pixels = torch.cat(sizes).quantile(0.25) / 0.3186
    # The mean of r² over a square is about chi-squared, of as many degrees as it has pixels by 3.78 = (70 / 36)²,
    # the sum of the squares of r's autocorrelation; its quantile by E. Wilson and M. Hilferty, 1931.
    spread = 2 / (9 * squares.shape[1] / 3.78)
    expected = (1 - spread - 1.2816 * math.sqrt(spread)) ** 3
    return pixels.square().minimum(mean.quantile(_QUIET) / max(expected, 0.05))


def _components(planes: list[Tensor]) -> Tensor:
    """The variance by the principal components of patches; infinite where there are too few patches."""
    size = _PATCH**2
    patches = [unfold(p[None, None], _PATCH)[0] for p in planes if min(p.shape) >= _PATCH]
    count = sum(p.shape[1] for p in patches)
    if count < 10 * size:
        return planes[0].new_tensor(math.inf)
    mean = torch.stack([p.sum(1) for p in patches]).sum(0)[:, None] / count
    covariance = torch.stack([(p - mean) @ (p - mean).T for p in patches]).sum(0) / count
    values = torch.linalg.eigvalsh(covariance)[:5]
    # Noise alone has its edges by V. Marchenko and L. Pastur, 1967; overlapping patches are as good as separate ones
    # here. Of a photograph alone the mean of the five is about 1.6 times the smallest (17 of BSDS500), and so much
    # of what they differ by is taken off the smallest.
    share = math.sqrt(size / count)
    smallest, mean = values[0] / (1 - share) ** 2, values.mean() / (1 - 0.86 * share) ** 2
    return ((1.6 * smallest - mean) / 0.6).clamp_min(0)


def blend(
    y: Tensor,
    found: Tensor,
    kept: Tensor,
    sigma: Tensor,
    share: Tensor,
    lowest: float = 0.0,
    clipped: bool = False,
) -> Tensor:
    r"""Limit what a denoiser removed: x = y - share w c (y - found), clamped to the values of y in 9x9 pixels around.

    .. code-block:: text

        c = min(1, 1.25 sigma / rms of y - found over 9x9 pixels)
        c = min(c, 1.1 s² (1 - mean of kept) / mean square of y - found), at least 0, over 32x32 pixels
        s² = sigma², times 1 - the share of pixels at 0 and 1 if `clipped` and all pixels are in [0, 1]
        w = sigma² / (sigma² + (lowest² - sigma²) / 9) below the lowest noise that the network knows, 1 above

    The first c is the discrepancy principle, pixel by pixel: what is removed from an image should be as large as its
    noise; where it is larger, structure is lost too. The second c minimizes Stein's unbiased estimate of the error, which
    tells without the true image whether removing something improves the image. The factor 1.1 is there because this
    estimate is only accurate to about 5%. w weighs the image against a network that leaves a third of `lowest`, by their
    variances.

    Args:
        y, found: [N, C, H, W], noisy and denoised.
        kept: like y, the derivative of each pixel of `found` in the same pixel of y, or something with that mean.
        sigma, share: [N] or maps [N, 1, H, W], the noise and how much of it to remove.
        lowest: the lowest noise that the network was trained with.
        clipped: whether sigma is that of the noise before clipping; an estimated sigma is that of what is left.

    Source: V. A. Morozov, On the solution of functional equations by the method of regularization, 1966; C. Stein,
    Estimation of the mean of a multivariate normal distribution, Annals of Statistics 9, 1981.
    """
    sigma, share = ((t if t.dim() == 4 else t.reshape(-1, 1, 1, 1)).to(y) for t in (sigma, share))
    taken = y - found
    rms = avg_pool2d(taken.square(), 9, 1, 4, count_include_pad=False).sqrt()
    c = (1.25 * sigma / rms.clamp_min(1e-12)).clamp_max(1)
    mean, square = (_around(t.mean(1, keepdim=True)) for t in (kept, taken.square()))
    left: Any = 1
    if clipped:
        # Of clipped pixels half of the noise is gone; there are about as many more, which noise moved the other way.
        inside = ((y >= 0) & (y <= 1)).flatten(1).all(1).reshape(-1, 1, 1, 1)
        left = 1 - _around(((y == 0) | (y == 1)).to(y).mean(1, keepdim=True)) * inside
    c = c.minimum((1.1 * left * sigma.square() * (1 - mean) / square.clamp_min(1e-24)).clamp(0, 1))
    c = c * (10 * (1 - mean) - 0.5).clamp(
        0, 1
    )  # 5 % less noise is 0.2 dB at most, which clipped noise may cost
    known = sigma.square() / (sigma.square() + (lowest**2 - sigma.square()).clamp_min(0) / 9)
    return within(y - share * known * c * taken, y, _REACH)


def _around(t: Tensor) -> Tensor:
    """The mean over 32x32 pixels, at every eighth pixel, and between them linearly; each depends on 24 pixels around it."""
    mean = avg_pool2d(t, 32, 8, 16, ceil_mode=True, count_include_pad=False)
    size = [8 * (n - 1) + 1 for n in mean.shape[2:]]
    smooth = interpolate(mean, size, mode="bilinear", align_corners=True)
    return smooth[:, :, : t.shape[2], : t.shape[3]]
