"""`amstel.restore`: one call from a degraded image to a restored one, with the bundled weights."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amstel import _check, inverse, ops
from amstel._torch import autocast_tiles
from amstel._words import counted
from amstel.inverse._given import images, largest, mask_of, noise_of
from amstel.inverse.bounds import within
from amstel.inverse.color import from_ycbcr, to_ycbcr
from amstel.inverse.deblur import deblur, kernel_of
from amstel.inverse.holes import inpaint
from amstel.inverse.noise import blend
from amstel.inverse.reconstruct import mri_physics as mri_physics
from amstel.inverse.reconstruct import reconstruct
from amstel.inverse.tiles import LEAST, TILE, at, in_strips, tiled
from amstel.nn.rim import PRETRAINED, RIM

TASKS = ("denoise", "inpaint", "deblur", "sr", "mri")
#: What networks of one task can do; a denoiser of gray images does for the parts of complex ones. With that of three tasks
#: plug-and-play diverges, in deblurring (below the blurred image, with noise of 5 / 255) and in MRI.
_FOR = {
    "denoise": ("gray", "color", "3task"),
    "inpaint": ("gray", "color", "3task"),
    "deblur": ("gray", "color"),
    "sr": ("sr", "3task"),
    "mri": ("complex", "mri", "gray"),
}
#: Estimated noise up to the first is left alone, as it may be texture; from the second on it is all taken off.
DOUBT = (3 / 255, 5 / 255)
#: Pixels of the part of a large image that is denoised at once.
STRIP = 1 << 23
#: The weights are trained for 2 to 4 times; far above that there is nothing but a large image.
LARGEST_SCALE = 16
#: What to do where a network of gray images is given a color one, or the other way around; both exist for these tasks.
_BOTH = ("denoise", "inpaint", "deblur")
_OF_GRAY = ', which is for gray images: make the images gray, or use one for color images, such as "color"'
_OF_COLOR = ', which is for color images: use one for gray images, such as "gray"'


@torch.no_grad()
def restore(
    image: Any,
    task: str = "denoise",
    sigma: float | Tensor | str | None = "auto",
    scale: int | None = None,
    *,
    mask: Any = None,
    kernel: Any = None,
    sensitivities: Any = None,
    model: RIM | str | None = None,
    steps: int | None = None,
    device: str | torch.device | None = None,
    tile: int = TILE,
    progress: Callable[[int], None] | None = None,
    return_sigma: bool = False,
) -> Any:
    """Estimate the image x from a measurement y = A x + noise, with a recurrent inference machine (`amstel.nn.RIM`).

    =========  ===================  ================================  ===========
    task       y                    A                                 weights
    =========  ===================  ================================  ===========
    "denoise"  noisy image          identity                          gray, color
    "inpaint"  image with holes     `mask`                            gray, color
    "deblur"   blurred image        convolution with `kernel`         gray, color
    "sr"       small image          antialiased bicubic by 1 / scale  sr
    "mri"      k-space              coils, Fourier transform, `mask`  complex
    =========  ===================  ================================  ===========

    "denoise" returns the image unchanged as sigma goes to 0. It removes nothing larger than the noise, and nothing
    that would increase Stein's estimate of the error (see `amstel.inverse.noise.blend`); this estimate takes a second
    run of the network. With estimated noise, a clean photograph comes back unchanged.
    "inpaint" first fills holes smoothly from their borders. It then alternates the denoiser with restoring the known
    pixels, and trusts the denoiser less far away from known pixels. Noisy known pixels are weighted by their noise.
    It takes three times as long as denoising.
    "deblur" alternates the denoiser with a step toward images whose blurred version fits y
    (`amstel.inverse.plug_and_play`). It takes about eight times as long as denoising. The kernel must be known:
    `amstel.inverse.gaussian_kernel`, `motion_kernel` and `disk_kernel` are the usual ones. The part of the scene
    beyond the border that was blurred into the image is estimated too.
    "sr" enlarges the luma (BT.601 Y) of a color image with the network, and Cb and Cr with bicubic interpolation.
    In each of these, what is flat in y stays flat: the result lies within what the values around allow
    (`amstel.inverse.bounds`).
    "mri" alternates a denoiser for complex images with a step toward images that fit k-space
    (`amstel.inverse.plug_and_play`). `model="mri"` uses a network trained for MRI instead, which is faster but less
    accurate. The result does not depend on the scale of k-space, on the phase and magnitude of the sensitivities, or
    on the order of the coils (see `amstel.inverse.canonical`). Values of k-space that were not sampled are ignored.

    Args:
        image: a NumPy array [H, W] or [H, W, 3] or a tensor [N, 1, H, W] or [N, 3, H, W], floating point, in [0, 1]
            before noise was added; do not clip the noise away. For "mri", k-space: complex, an array
            [coils, H, W] or a tensor [N, coils, H, W], with the zero frequency at [H // 2, W // 2], from the
            orthonormal transform, at any scale.
        task: one of the above.
        sigma: standard deviation of the noise in units of the image, > 0; a number, one per image [N], or a map [H,
            W] or [N, 1, H, W] with one per pixel. "auto" or None: for denoising, estimated from each image
            (`amstel.inverse.estimate_sigma`), where less than 3 / 255 counts as texture and is left alone; for
            deblurring, estimated, but at least 1 / 255; for inpainting, 1 / 255. Weights work for the noise levels
            they were trained with, as their cards say: above those there is a warning, below them the result is
            blended with the image. Not used for "sr" and "mri".
        scale: for "sr", default 2. The network was trained for 2, 3 and 4; any other integer up to 16 also runs.
        mask: "inpaint": 1 where a pixel is known, and 0 where it is not (its value is ignored). [H, W], or the shape
            of a tensor `image` with its channels or 1; for an array [H, W, 3] also [H, W, 1] or [H, W, 3]. "mri": 1
            where k-space is sampled: columns [W] (or [1, W, 1], as in fastMRI), [H, W] or [N, 1, H, W].
        kernel: "deblur": kernel of the blur, a true convolution: [kh, kw], or [C, kh, kw] with one per channel; odd
            sides, sum 1.
        sensitivities: coil sensitivities, complex [coils, H, W] or [N, coils, H, W]; default: estimated from the
            center of k-space (`amstel.data.mri.estimate_sensitivities`); "espirit": with its method of that name, which
            takes longer and is better if there is little noise.
        model: the network to use: a `RIM` with as many channels as the image (1 for "sr"; for "mri" 1, a denoiser, or
            2, a denoiser for complex images or a network trained for MRI; a denoiser for gray images is less accurate
            there and, with one coil, may be worse than zero filling), or the name of bundled weights, as for
            `RIM.pretrained`.
        steps: inference steps, at most as many as in training; default: as in training, but 1 for a denoiser in "mri",
            and for a U-Net other than "3task" in "inpaint" and "deblur".
        device: where to compute; default: the device of the tensor, or the CPU for an array.
        tile: an image larger than `tile` pixels per side is processed in overlapping tiles of that size, which bounds
            the memory: 0.3 GB for 512 on a CPU with the bundled weights, plus the image and the result (denoising
            goes over a large image in strips of 8 million pixels, which take 0.3 GB more in color). The result differs from that
            of the whole image by about 0.1 / 255, at most 0.2 / 255.
        progress: called with the number of finished pixels, tile by tile (for inpainting, in the last round).
        return_sigma: also return the noise level used.

    Returns:
        An image of the input's type (array or tensor), dtype and device; not clipped. [scale * H, scale * W] for
        "sr"; for "mri" the complex image [H, W] or [N, H, W]. It is computed in float32 and has no gradient. With
        `return_sigma`, a pair of the image and sigma: a number for an array, [N] for a tensor, or the map.

    Warns:
        UserWarning: sigma is above the range that the weights were trained with, or you passed one below it.

    Raises:
        TypeError: image is neither an array nor a tensor.
        ValueError: a shape, dtype or value is not as described; a mask is missing or has a different size.
        ImportError: safetensors is missing (extra [restore]).

    Complexity:
        Time grows with H W steps; memory with tile^2.

    Source: P. Putzky, M. Welling, Recurrent Inference Machines for Solving Inverse Problems, arXiv 1706.04008.

    Example:
        >>> clean = np.linspace(0, 1, 64 * 64).reshape(64, 64)
        >>> noisy = clean + 25 / 255 * np.random.default_rng(0).standard_normal(clean.shape)
        >>> restored = amstel.restore(noisy, sigma=25 / 255)
        >>> larger = amstel.restore(restored.clip(0, 1), "sr", scale=3)
    """
    if task not in TASKS:
        _check.fail("task", f"one of {', '.join(TASKS)}", task)
    for name, value, own in (("scale", scale, "sr"), ("sensitivities", sensitivities, "mri")):
        if value is not None and task != own:
            _check.fail(name, f"None for the task {task}", value)
    scale = _check.integer("scale", 2 if scale is None else scale, 2)
    tile = _check.integer("tile", tile, LEAST)
    steps = steps if steps is None else _check.integer("steps", steps, 1)
    if scale > LARGEST_SCALE:
        _check.fail("scale", f"at most {LARGEST_SCALE}", scale)
    if (mask is not None) != (task in ("inpaint", "mri")):
        _check.fail("mask", f"{'given' if mask is None else 'None'} for the task {task}", mask)
    if kernel is not None and task != "deblur":
        _check.fail("kernel", f"None for the task {task}", kernel)
    mask = None if mask is None else mask_of(mask, image, task)
    y, back = images(image, task, mask)
    y = y if device is None else y.to(device)
    mask = None if mask is None else mask.to(y.device)
    automatic = sigma is None or (isinstance(sigma, str) and sigma == "auto")
    noise = noise_of(None if automatic else sigma, task, y)
    if model is None:
        model = {"sr": "sr", "mri": "complex"}.get(task, "color" if y.shape[1] == 3 else "gray")
    if isinstance(model, str):
        if model not in PRETRAINED:
            _check.fail("model", f"a RIM, or one of {', '.join(PRETRAINED)}", model)
        model = pretrained(model, y.device)
    elif not hasattr(model, "channels"):
        _check.fail_type("model", "a RIM or the name of bundled weights", model)
    channels = {"sr": (1,), "mri": (1, 2)}.get(task, (y.shape[1],))
    if model.channels not in channels:
        wanted = " or ".join([*map(str, channels[:-1]), counted(channels[-1], "channel")])
        instead = {(3, 1): _OF_GRAY, (1, 3): _OF_COLOR}.get((y.shape[1], model.channels), "")
        raise ValueError(
            f"`model` must be a network of {wanted}, got one of {model.channels}{instead if task in _BOTH else ''}"
        )
    trained = getattr(model, "trained_task", None)
    if trained is not None and trained not in _FOR[task]:
        raise ValueError(
            f"`model` must be a network for the task {task} ({', '.join(_FOR[task])}), "
            f"got one for {trained}; without `model`, the best of them is taken"
        )
    most = getattr(model, "trained_steps", None)
    if steps is not None and most is not None and steps > most:
        _check.fail("steps", f"at most {most}, as these weights were trained; more steps diverge", steps)
    # Of a denoiser that is called often one step is enough, but not of a network that has other tasks, too.
    once = steps is None and getattr(model, "network", None) == "unet" and trained != "3task"
    often = partial(tiled, partial(model, steps=1 if once else steps), tile=tile)
    if task in ("denoise", "inpaint", "deblur"):
        _warn(getattr(model, "trained_sigma", None), noise, automatic)
    if task == "mri":
        x = reconstruct(model, y, mask, sensitivities, steps)
    elif task == "sr":
        x = _enlarge(partial(model, steps=steps), partial(tiled, tile=tile, progress=progress), y, scale)
    elif task == "deblur":
        x = deblur(often, y, kernel_of(kernel, y), noise, progress)
    elif task == "inpaint":
        x = inpaint(often, y, mask, noise, progress)
    else:
        x = _denoise(partial(model, steps=steps), partial(tiled, tile=tile), y, noise, automatic, progress)
    if not math.isfinite(largest(x)):
        raise ValueError("`model` must have weights that give finite images, got NaN or infinity")
    if not return_sigma:
        return back(x)
    array = isinstance(image, np.ndarray)
    return back(x), (_number(noise) if array else noise.to(image.device))


def sr_sigma(scale: int) -> float:
    """The sigma of super-resolution's physics, which has no noise but rounding: it keeps the gradient near 1."""
    return 0.1 / scale


def _warn(trained: tuple[float, float] | None, noise: Tensor, automatic: bool) -> None:
    low, high = trained or (0.0, math.inf)
    beyond = (noise > 1.001 * high) | ((noise < 0.999 * low) & (not automatic))
    for level in noise[beyond].unique().tolist()[-len(noise) :]:
        warnings.warn(
            f"`sigma` of {255 * level:.3g} / 255 is outside {255 * low:.3g} to {255 * high:.3g}, which the weights were "
            "trained with: the result may be worse than it could be",
            stacklevel=4,  # of `restore` and its decorator
        )


def _denoise(
    model: Any,
    over: Callable[..., Tensor],
    y: Tensor,
    noise: Tensor,
    automatic: bool,
    progress: Callable[[int], None] | None,
) -> Tensor:
    """The network's estimate as far as it can be trusted: all of it within the trained noise, none of it at 0."""
    low = (getattr(model.func, "trained_sigma", None) or (0.0,))[0]
    share = torch.ones_like(noise)
    if automatic:
        share = ((noise - DOUBT[0]) / (DOUBT[1] - DOUBT[0])).clamp(0, 1)

    if not share.any():
        if progress is not None:
            progress(y[:, 0].numel())
        return y.clone()
    level = noise.clamp_min(max(low, 0.01 / 255))
    # Of a U-Net the first step tells as much of the derivative as the last; a second run of that alone is enough.
    once = getattr(model.func, "network", None) == "unet"
    again = partial(model, steps=1) if once else model
    signs = torch.randint(0, 2, y.shape[1:], dtype=torch.int8, generator=torch.Generator().manual_seed(0))
    signs = signs.mul_(2).sub_(1).to(y.device)

    def twice(part: Tensor, known: tuple[Tensor, Tensor], initial: Tensor) -> list[Tensor]:
        """The image, and the derivative of each pixel in itself, by a random change.

        Source: S. Ramani et al., Monte-Carlo SURE, IEEE TIP 17, 2008.
        """
        noise, way = known
        physics = inverse.Denoising(noise)
        estimates = model(part, physics, initial=initial)
        probe = 0.1 * (noise if noise.dim() == 4 else noise[:, None, None, None]) * way
        with autocast_tiles(part.device):
            after = again(part + probe, physics, initial=initial + probe)[-1]
        return [estimates[-1], (after - estimates[0 if once else -1]) / probe]

    def safe(part: Tensor, known: tuple[Tensor, Tensor, Tensor, Tensor], initial: Tensor) -> list[Tensor]:
        return [blend(part, *known, low, clipped=not automatic)]

    x, strips = torch.empty_like(y), list(in_strips(y.shape, STRIP))
    for given, inner in strips:  # what comes of two runs takes as much memory as several images
        of_rows = [t[..., given, :] if t.dim() == 4 else t for t in (level, noise, share)]
        rows, way, (told, sigma, part_of) = y[:, :, given], signs[:, given], of_rows
        both = over(
            twice,
            rows,
            rows,
            lambda p, told=told, way=way: (at(told, p), way[p[1:]]),
            progress=progress if len(strips) == 1 else None,
            kept=(0, 1),
        )
        found, kept = both.chunk(2, 1)
        known = lambda p, t=(found, kept, sigma, part_of): (t[0][p], t[1][p], at(t[2], p), at(t[3], p))  # noqa: E731
        whole = over(safe, rows, rows, known, progress=None)
        x[:, :, inner] = whole[:, :, inner.start - given.start : inner.stop - given.start]
        if progress is not None and len(strips) > 1:
            progress(x[:, 0, inner].numel())
    return x


def _number(noise: Tensor) -> float | np.ndarray:
    """Of one image."""
    return noise[0, 0].cpu().numpy() if noise.dim() == 4 else float(noise[0])


def _enlarge(model: Any, over: Callable[..., Tensor], y: Tensor, scale: int) -> Tensor:
    ycc = to_ycbcr(y) if y.shape[1] == 3 else y
    start = ops.bicubic_down_adjoint(ycc, scale) * scale**2
    physics = inverse.SuperResolution(scale, sr_sigma(scale))

    def bounded(part: Tensor, physics: Any, initial: Tensor) -> list[Tensor]:
        found = model(part, physics, initial=initial)[-1]
        return [within(found, part, 2, scale - 1, scale)]  # a line of one pixel is so much fainter in y

    luma = over(
        bounded, ycc[:, :1].contiguous(), start[:, :1].contiguous(), lambda part: physics, scale=scale
    )
    return luma if y.shape[1] == 1 else from_ycbcr(torch.cat([luma, start[:, 1:]], 1))


@lru_cache(maxsize=8)
def pretrained(name: str, device: torch.device) -> RIM:
    """Weights that ship, read once; in the layout of the network's input, so that no convolution reorders them again."""
    return RIM.pretrained(name).to(device).to(memory_format=torch.channels_last)
