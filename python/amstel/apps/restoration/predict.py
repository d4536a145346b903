"""From files of degraded images to files of restored ones: the work of `amstel restore INPUT`, except for k-space."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from amstel import _files, restore
from amstel.apps.ranks import Outcome, Ranks, each
from amstel.apps.restoration import evaluate, files, given
from amstel.nn.rim import RIM

Record = dict[str, Any]


@dataclass
class Options:
    """How to restore.

    Attributes:
        task: "denoise", "inpaint", "sr" or "mri".
        model: None: the bundled weights.
        sigma, add_noise: 0..255; the noise that is present, a number or a map file, and noise to add for a test; None:
            estimated when denoising or deblurring, 1 when inpainting.
        seed: for the added noise.
        scale: of "sr".
        mask, sensitivities: files; sensitivities may be "espirit", to estimate them that way.
        kernel: of "deblur", see `given.read_kernel`.
        slice: which slice of k-space; None: all.
        steps: None: what `amstel.restore` takes.
    """

    task: str = "denoise"
    model: RIM | None = None
    sigma: Any = None
    scale: int = 2
    mask: Path | None = None
    kernel: str | None = None
    slice: int | None = None
    sensitivities: Path | str | None = None
    add_noise: float | None = None
    seed: int = 0
    steps: int | None = None


def targets(source: Path, output: Path | None, task: str) -> tuple[list[Path], list[Path]]:
    """The images in `source`, a file or a folder, and the file to write for each."""
    sources = files.find(source)
    if not source.is_dir():
        target = output or Path(f"{source.stem}_{task}.png")
        files.check_writable(target)
        return sources, [target]
    folder = output or Path(f"{source.resolve().name}_{task}")
    if folder.is_file():
        raise ValueError(f"{folder} must be a folder, because {source} is one")
    found = [folder / f"{image.stem}.png" for image in sources]
    if len(set(found)) < len(found):
        twice = next(t for t in found if found.count(t) > 1)
        raise ValueError(f"{source} holds more than one image with the name {twice.stem}")
    return sources, found


def images(
    sources: Sequence[Path],
    targets: Sequence[Path],
    options: Options,
    ranks: Ranks | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Outcome[int, Record]]:
    """Restore image files; outcome i belongs to file i, and its value says what was written.

    Args:
        sources, targets: what to read and what to write.
        options: how.
        ranks: processes that each take a share of the files.
        progress: called with 1 after every file; for a single file, with the number of pixels done.
    """
    ranks = ranks or Ranks()
    known = None if options.mask is None else read_mask(options.mask)
    blur = None if options.kernel is None else given.read_kernel(options.kernel)
    if isinstance(options.sigma, Path):
        options = replace(options, sigma=255 * given.read_sigma(options.sigma))
    _warn_of_jpeg(sources, options)
    alone = len(sources) == 1

    def work(number: int) -> Record:
        update = progress if alone else None
        return _image(number, sources[number], targets[number], options, (known, blur), ranks, update)

    return each(range(len(sources)), work, ranks, None if alone else progress)


def _warn_of_jpeg(sources: Sequence[Path], options: Options) -> None:
    """The weights were not trained on JPEG artifacts, and the noise under the artifacts is estimated too low."""
    found = [path for path in sources if path.suffix.lower() in (".jpg", ".jpeg", ".jpe", ".jfif")]
    if found and options.task in ("denoise", "deblur") and not options.add_noise:
        more = f" and {len(found) - 1} more are JPEG files" if len(found) > 1 else " is a JPEG file"
        warnings.warn(
            f"{found[0]}{more}: compression changed the noise and added artifacts that the weights were not trained on; "
            "restore the original file if you have it",
            stacklevel=3,
        )


def read_mask(path: Path) -> np.ndarray:
    """Where a picture, on black where it is transparent, is more than half as bright as its brightest pixel, or has the
    brighter of its two values: white and black, 1 and 0, two colors of a palette. Or numbers [H, W] in .npy.

    Raises:
        ValueError: black all over, so nothing would be known.

    Warns:
        UserWarning: everything is known.
    """
    if path.suffix.lower() == ".npy":
        pixels = given.read_numbers(path)
        if pixels.ndim != 2 or not np.isfinite(pixels).all() or pixels.min() < 0:
            raise ValueError(f"{path} must hold a mask [H, W] of 0 and 1, got {list(pixels.shape)}")
    else:
        picture = files.read(path)
        pixels = picture.pixels if picture.pixels.ndim == 2 else picture.pixels.mean(2)
        pixels = pixels if picture.alpha is None else pixels * picture.alpha
    if not pixels.max() > 0:
        raise ValueError(
            f"the mask {path} must be white somewhere, where pixels are known; it is black all over"
        )
    values = np.unique(pixels)
    known = pixels == values[1] if len(values) == 2 else pixels > 0.5 * values[-1]
    if known.all():
        warnings.warn(f"the mask {path} is white all over: no pixel is unknown", stacklevel=3)
    return known


def _image(
    number: int,
    source: Path,
    target: Path,
    options: Options,
    beside: tuple[np.ndarray | None, np.ndarray | None],
    ranks: Ranks,
    progress: Callable[[int], None] | None,
) -> Record:
    mask, kernel = beside
    picture = files.read(source)
    files.check_writable(target, picture)
    _files.distinct(target, source, argument="output")
    y = truth = picture.pixels
    if mask is not None and mask.shape != y.shape[:2]:
        sizes = [f"{s[1]} x {s[0]} pixels" for s in (mask.shape, y.shape)]
        raise ValueError(f"the mask {options.mask} has {sizes[0]}, but the image {source} {sizes[1]}")
    if options.add_noise:
        noise = np.random.default_rng([options.seed, number]).standard_normal(y.shape)
        y = (y + options.add_noise / 255 * noise).astype(np.float32)
    how: Record = {}
    if options.task == "sr":
        how["scale"] = options.scale
    else:
        level = options.add_noise if options.sigma is None else options.sigma
        if isinstance(level, np.ndarray) and level.shape != y.shape[:2]:
            sizes = [f"{s[1]} x {s[0]} pixels" for s in (level.shape, y.shape)]
            raise ValueError(f"the map of --sigma has {sizes[0]}, but the image {source} {sizes[1]}")
        how |= {"sigma": "auto" if level is None else level / 255, "return_sigma": True}
    x = restore(
        y,
        options.task,
        mask=mask,
        kernel=kernel,
        model=options.model,
        device=ranks.device,
        steps=options.steps,
        progress=progress,
        **how,
    )
    if how.pop("return_sigma", False):
        x, assumed = x
        estimated = level is None
        how = {"sigma": float(np.mean(assumed if estimated else how["sigma"]))}
        if options.task in ("denoise", "deblur"):
            how["estimated"] = estimated
    if options.kernel is not None:
        how["kernel"] = options.kernel
    alpha = picture.alpha
    if alpha is not None and options.task == "sr":
        alpha = evaluate.enlarged(alpha, options.scale)
    files.write(target, files.Picture(x, alpha, picture.bits, picture.about))
    record: Record = {
        "input": str(source),
        "output": str(target),
        "width": y.shape[1],
        "height": y.shape[0],
        "channels": 1 if y.ndim == 2 else 3,
        "bits": picture.bits,
        "alpha": alpha is not None,
        **how,
    }
    if options.add_noise:
        record |= {"noisy_psnr": evaluate.psnr(y, truth), "psnr": evaluate.psnr(x, truth)}
    return record
