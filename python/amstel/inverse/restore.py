"""`amstel.restore`: one call from a degraded image to a restored one, with the weights that ship."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from amstel import _check, inverse, ops
from amstel.inverse.sensitivities import estimate_sensitivities
from amstel.nn.rim import RIM

TASKS = ("denoise", "inpaint", "sr", "mri")
#: Noise that is assumed where none is given.
SIGMA = {"denoise": 25 / 255, "inpaint": 1 / 255}
#: The noise that the rounds of inpainting remove, at the least.
ROUNDS = (30 / 255, 20 / 255, 14 / 255, 10 / 255, 5 / 255)
#: Pixels a side of what the network sees at once, and how many of them lie beyond the part that is kept.
TILE, OVERLAP = 512, 32


@torch.no_grad()
def restore(
    image: Any,
    task: str = "denoise",
    sigma: float | Tensor | None = None,
    scale: int = 2,
    *,
    mask: Any = None,
    sensitivities: Any = None,
    model: RIM | None = None,
    steps: int | None = None,
    device: str | torch.device | None = None,
    tile: int = TILE,
    progress: Callable[[int], None] | None = None,
) -> Any:
    """The image x behind a measurement y = A x + noise, by a recurrent inference machine (`amstel.nn.RIM`).

    =========  ===================  ================================  ===========
    task       y                    A                                 weights
    =========  ===================  ================================  ===========
    "denoise"  noisy image          identity                          grey, colour
    "inpaint"  image with holes     `mask`                            grey, colour
    "sr"       small image          antialiased bicubic by 1 / scale  sr
    "mri"      k-space              coils, Fourier transform, `mask`  mri
    =========  ===================  ================================  ===========

    "inpaint" fills holes from their surroundings, then alternates the denoiser with putting back what is known; of noisy
    pixels it keeps as much as they are worth. It takes five times as long as to denoise.
    "sr" enlarges the luma Y (BT.601) of a colour image with the network and Cb and Cr bicubically.
    "mri" divides k-space by the largest magnitude of the zero-filled image, and multiplies the result by it.

    Args:
        image: a NumPy array [H, W] or [H, W, 3] or a tensor [N, 1, H, W] or [N, 3, H, W], floating point, in [0, 1]
            but for the noise, which should not be clipped away. For "mri" k-space: complex, an array
            [coils, H, W] or a tensor [N, coils, H, W], its zero frequency at [H // 2, W // 2], of the orthonormal
            transform; its scale is free.
        task: one of the above.
        sigma: standard deviation of the noise in units of the image, > 0, or a tensor [N] of them; default 25 / 255 to
            denoise and 1 / 255 to inpaint. The weights were trained with 5 / 255 to 55 / 255. Not for "sr" and "mri".
        scale: of "sr": 2, 3 or 4 are trained; any other integer >= 2 runs.
        mask: "inpaint": 1 where a pixel is known, 0 where not, [H, W] or of the shape of a tensor `image`, whose
            channels may be 1. "mri": 1 where k-space is sampled, a column [W], [H, W] or [N, 1, H, W].
        sensitivities: of the coils, complex [coils, H, W] or [N, coils, H, W]; default: estimated from the centre of
            k-space (`amstel.data.mri.estimate_sensitivities`).
        model: other weights, a `RIM` with as many channels as the image (1 for "sr", 2 for "mri").
        steps: of the inference; default: as trained.
        device: where to compute; default: where the tensor is, the CPU for an array.
        tile: an image larger than `tile` pixels a side is worked on in overlapping tiles of that size, so that memory
            stays bounded: 0.3 GB for 512 on a CPU with the weights that ship, beside the image. The parts of the
            tiles that are kept differ from those of the whole image by less than 0.02 / 255.
        progress: called with the number of finished pixels of `image`, tile by tile (of inpainting, in the last round).

    Returns:
        What came in: array or tensor, dtype and device; not clipped. [scale * H, scale * W] for "sr"; for "mri" the
        complex image [H, W] or [N, H, W]. It is computed in float32 and has no gradient.

    Raises:
        TypeError: neither an array nor a tensor.
        ValueError: a shape, dtype or value that is not as above; a mask that is missing, or of another size.
        ImportError: safetensors is missing, of the extra [restore].

    Complexity:
        Time grows with H W steps; memory with tile^2.

    Source: P. Putzky, M. Welling, Recurrent Inference Machines for Solving Inverse Problems, arXiv 1706.04008.

    Example:
        >>> noisy = clean + 25 / 255 * np.random.default_rng(0).standard_normal(clean.shape)
        >>> restored = amstel.restore(noisy, sigma=25 / 255)
        >>> larger = amstel.restore(restored.clip(0, 1), "sr", scale=3)
    """
    if task not in TASKS:
        _check.fail("task", f"one of {', '.join(TASKS)}", task)
    for name, value, least in (("scale", scale, 2), ("tile", tile, 4 * OVERLAP), ("steps", steps or 1, 1)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            _check.fail(name, f"an integer >= {least}", value)
    if (mask is not None) != (task in ("inpaint", "mri")):
        _check.fail("mask", f"{'given' if mask is None else 'None'} for the task {task}", mask)
    y, back = _tensor(image, task == "mri")
    y = y if device is None else y.to(device)
    noise = _sigma(sigma, task, y)
    mask = None if mask is None else torch.as_tensor(mask, device=y.device)
    if model is None:
        kind = task if task in ("sr", "mri") else "colour" if y.shape[1] == 3 else "grey"
        model = pretrained(kind, y.device)
    channels = {"sr": 1, "mri": 2}.get(task, y.shape[1])
    if model.channels != channels:
        raise ValueError(f"`model` must be a network of {channels} channels, got one of {model.channels}")
    run = partial(_tiled, partial(model, steps=steps), tile=tile)
    if task == "mri":
        x = _reconstruct(partial(model, steps=steps), y, mask, sensitivities)
    elif task == "sr":
        x = _enlarge(partial(run, progress=progress), y, scale)
    elif task == "inpaint":
        x = _inpaint(run, y, mask, noise, progress)
    else:
        x = run(y, y, lambda part: inverse.Denoising(noise[part[0]]), progress=progress)
    return back(x)


def sr_sigma(scale: int) -> float:
    """The sigma of super-resolution's physics, which has no noise but rounding: it keeps the gradient near 1."""
    return 0.1 / scale


def mri_physics(mri: inverse.MRI) -> inverse.Envelope:
    """The gradient that the MRI network sees: of the Moreau envelope, since coils are badly conditioned."""
    return inverse.Envelope(mri, 0.05, 8)


def _inpaint(
    run: Callable[..., Tensor],
    y: Tensor,
    mask: Tensor,
    noise: Tensor,
    progress: Callable[[int], None] | None,
) -> Tensor:
    """Rounds of denoising, as if of ever less noise, after each of which the known pixels are put back.

    The network with the likelihood of the known pixels alone leaves holes much as it finds them, as it was trained
    without any. Source: S. Venkatakrishnan et al., Plug-and-Play Priors for Model Based Reconstruction, GlobalSIP 2013.
    """
    known = inverse.Inpainting(mask, noise).adjoint(y)
    mask = mask.to(y).reshape((1,) * (4 - mask.dim()) + mask.shape).expand(len(y), -1, -1, -1)
    x = fill(known, mask)
    for level in ROUNDS:
        sigma = noise.clamp_min(level)
        said = progress if level == ROUNDS[-1] else None
        found = run(x, x, lambda part, s=sigma: inverse.Denoising(s[part[0]]), progress=said)
        x = torch.where(mask > 0, y, found)
    # The mean of two estimates of a known pixel by their variances: denoising leaves about a third of the noise.
    left, given = (s.square()[:, None, None, None] for s in (sigma / 3, noise))
    return found + mask * left / (left + given) * (y - found)


def _enlarge(run: Callable[..., Tensor], y: Tensor, scale: int) -> Tensor:
    ycc = to_ycbcr(y) if y.shape[1] == 3 else y
    start = ops.bicubic_down_adjoint(ycc, scale) * scale**2
    physics = inverse.SuperResolution(scale, sr_sigma(scale))
    luma = run(ycc[:, :1].contiguous(), start[:, :1].contiguous(), lambda part: physics, scale=scale)
    return luma if y.shape[1] == 1 else from_ycbcr(torch.cat([luma, start[:, 1:]], 1))


def _reconstruct(model: Callable[..., list[Tensor]], y: Tensor, mask: Tensor, sensitivities: Any) -> Tensor:
    if sensitivities is None and y.shape[1] > 1:
        masks = mask[:, 0].expand(len(y), -1, -1) if mask.dim() == 4 else [mask] * len(y)
        sensitivities = torch.stack([estimate_sensitivities(k, m) for k, m in zip(y, masks, strict=True)])
    elif sensitivities is not None:
        sensitivities = torch.as_tensor(sensitivities).to(y)
        if sensitivities.shape not in (y.shape[1:], y.shape):
            _check.fail("sensitivities", f"{list(y.shape[1:])} as k-space", sensitivities)
    physics = inverse.MRI(mask, sensitivities, centered=True)
    peak = physics.adjoint(y).abs().amax((1, 2)).clamp_min(torch.finfo(torch.float32).tiny)
    return model(y / peak[:, None, None, None], mri_physics(physics))[-1] * peak[:, None, None]


def _tiled(
    model: Callable[..., list[Tensor]],
    y: Tensor,
    start: Tensor,
    physics: Callable[[tuple[slice, ...]], Any],
    *,
    scale: int = 1,
    tile: int,
    progress: Callable[[int], None] | None,
) -> Tensor:
    """The last estimate from the measurement y and the estimate `start`, `scale` times as large as y.

    `physics(part)` is the forward model of y[part].
    """
    x = torch.empty_like(start)
    for images, given, kept in _windows(y.shape, tile // scale, -(-OVERLAP // (8 * scale)) * 8):
        part: tuple[slice, ...] = (images, slice(None), *given)
        whole: tuple[slice, ...] = (images, slice(None), *_times(scale, given))
        into: tuple[slice, ...] = (images, slice(None), *_times(scale, kept))
        rows, columns = _times(scale, kept, [g.start for g in given])
        found = model(y[part].contiguous(), physics(part), initial=start[whole].contiguous())[-1]
        x[into] = found[:, :, rows, columns]
        if progress is not None:
            progress(x[into][:, 0].numel() // scale**2)
    return x


@lru_cache(maxsize=8)
def pretrained(name: str, device: torch.device) -> RIM:
    """Weights that ship, read once."""
    return RIM.pretrained(name).to(device)


# ------------------------------------------------------------------------------------ what comes and goes


def _tensor(image: Any, kspace: bool) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """The image as a float32 [N, C, H, W] (k-space: complex64), and the way back to the kind that it was."""
    if isinstance(image, np.ndarray):
        wanted = "an array [coils, H, W]" if kspace else "an array [H, W] or [H, W, 3]"
        fits = image.ndim == 3 if kspace else image.ndim == 2 or image.shape[2:] == (3,)
        # A copy: PyTorch takes neither negative strides nor another byte order.
        y = torch.from_numpy(np.array(image, image.dtype.newbyteorder("="), order="C"))
        y = y.movedim(-1, 0)[None] if not kspace and y.dim() == 3 else y[(None,) * (4 - y.dim())]
    elif isinstance(image, Tensor):
        wanted = "a tensor [N, coils, H, W]" if kspace else "a tensor [N, 1, H, W] or [N, 3, H, W]"
        fits = image.dim() == 4 and (kspace or image.shape[1] in (1, 3))
        y = image.detach()
    else:
        raise TypeError(f"`image` must be a NumPy array or a tensor, got {_check.describe(image)}")
    if not fits:
        raise ValueError(f"`image` must be {wanted}, got {list(image.shape)}")
    if not (y.is_complex() if kspace else y.is_floating_point()) or not y.numel():
        kind = "complex" if kspace else "floating point"
        hint = "" if kspace or y.is_complex() else " (8-bit pixels divided by 255)"
        _check.fail("image", f"{kind}{hint} and not empty", y)
    dtype, home = y.dtype, y.device
    y = y.to(torch.complex64 if kspace else torch.float32)
    if not y.isfinite().all():
        raise ValueError("`image` must be finite, got NaN or infinity")
    if not kspace and y.abs().max() > 16:
        raise ValueError(f"`image` must be in [0, 1] but for noise, got values up to {y.abs().max():g}")

    def back(x: Tensor) -> Any:
        x = x.to(home, dtype)
        if isinstance(image, Tensor):
            return x
        x = x[0] if kspace else x[0].movedim(0, -1) if x.shape[1] == 3 else x[0, 0]
        return x.contiguous().numpy()

    return y.contiguous(), back


def _sigma(sigma: Any, task: str, y: Tensor) -> Tensor:
    """One for each image; `amstel.inverse` looks at the values."""
    if task not in SIGMA:
        if sigma is not None:
            _check.fail("sigma", f"None for the task {task}", sigma)
        return y.new_ones(len(y))
    if not isinstance(sigma, (Tensor, int, float, np.number, type(None))) or isinstance(sigma, bool):
        _check.fail("sigma", "a number > 0, or a tensor [N] of such", sigma)
    found = torch.as_tensor(SIGMA[task] if sigma is None else sigma, dtype=torch.float32, device=y.device)
    if found.shape not in ((), (1,), (len(y),)) or not bool((found > 0).all() & found.isfinite().all()):
        _check.fail("sigma", "a number > 0, or a tensor [N] of such", sigma)
    return found.expand(len(y))


def fill(known: Tensor, mask: Tensor) -> Tensor:
    """Unknown pixels from the known ones around them: means over squares of 2, 4, 8, ... pixels, interpolated.

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


def _windows(shape: torch.Size, tile: int, overlap: int) -> Iterator[tuple[slice, list[slice], list[slice]]]:
    """Which images, which rows and columns of them the network sees, and which of those are kept.

    Small images go together; windows begin at multiples of 8, so that a network with a stride sees its own grid.
    """
    sides = [_side(size, tile, overlap) for size in shape[2:]]
    together = max(1, tile**2 // (shape[2] * shape[3]))
    for first in range(0, shape[0], together):
        for rows in sides[0]:
            for columns in sides[1]:
                given, kept = zip(rows, columns, strict=True)
                yield slice(first, min(first + together, shape[0])), list(given), list(kept)


def _times(scale: int, slices: Sequence[slice], origin: Sequence[int] = (0, 0)) -> list[slice]:
    """Slices of an image that is `scale` times as large and begins at `origin`."""
    return [slice(scale * (s.start - o), scale * (s.stop - o)) for s, o in zip(slices, origin, strict=True)]


def _side(size: int, tile: int, overlap: int) -> list[tuple[slice, slice]]:
    if size <= tile:
        return [(slice(0, size), slice(0, size))]
    step = math.ceil(size / math.ceil(size / max(8, tile - 2 * overlap)) / 8) * 8
    found = []
    for start in range(0, size, step):
        stop = min(start + step, size)
        found.append((slice(max(0, start - overlap), min(size, stop + overlap)), slice(start, stop)))
    return found


# ------------------------------------------------------------------------------------------------- colour

# ITU-R BT.601 as studio video has it: Y in 16..235, Cb and Cr in 16..240, of 255.
_YCBCR = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
_OFFSET = np.array([16, 128, 128]) / 255


def to_ycbcr(x: Tensor) -> Tensor:
    """RGB in [0, 1] [N, 3, H, W] to Y, Cb and Cr (BT.601, 16 to 235 and 240 of 255)."""
    matrix, offset = (torch.from_numpy(a).to(x) for a in (_YCBCR, _OFFSET))
    return torch.einsum("oc,nchw->nohw", matrix, x) + offset[:, None, None]


def from_ycbcr(x: Tensor) -> Tensor:
    """The inverse of `to_ycbcr`."""
    matrix, offset = (torch.from_numpy(a).to(x) for a in (np.linalg.inv(_YCBCR), _OFFSET))
    return torch.einsum("oc,nchw->nohw", matrix, x - offset[:, None, None])
