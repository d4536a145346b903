"""From a k-space file to image files: the work of `amstel restore INPUT --task mri`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amstel import _files, restore
from amstel._words import counted
from amstel.apps.ranks import Ranks
from amstel.apps.restoration import files
from amstel.apps.restoration.predict import Options
from amstel.data import mri
from amstel.data.mri.scans import check_finite

Record = dict[str, Any]


def reconstruct(
    source: Path,
    target: Path,
    options: Options,
    ranks: Ranks | None = None,
    progress: Callable[[int], None] | None = None,
) -> Record:
    """The magnitudes as a picture, slices side by side, and the complex images as .npy beside it.

    Args:
        source: as for `amstel.data.mri.read_scan`.
        target: the picture; the magnitudes are divided by their largest value in all slices.
        options: mask (of what was sampled by the file; default: all of it), sensitivities, slice, model, steps.
        progress: called with 1 after every slice.

    Returns:
        What was done. The images are [H, W] for one slice and [slices, H, W] for several, cropped to the size given in the file.
    """
    files.check_writable(target)
    numbers = target.with_suffix(".npy")
    given = options.sensitivities if isinstance(options.sensitivities, Path) else None
    _files.distinct(numbers, source, *filter(None, [options.mask, given]), argument="output")
    scan = mri.read_scan(source)
    maps = None if given is None else mri.read_maps(given)
    count = len(scan.kspace)
    if maps is not None and len(maps) not in (1, count):
        raise ValueError(f"{given} must hold maps of one slice or of {count}, got {len(maps)}")
    if options.mask is not None:
        scan = _undersampled(scan, options.mask, source)
    if maps is None:
        scan = scan.without_oversampling()
    mask = torch.ones(scan.kspace.shape[-1], dtype=torch.bool) if scan.mask is None else scan.mask
    chosen = range(count) if options.slice is None else [options.slice]
    if options.slice is not None and options.slice >= count:
        raise ValueError(
            f"--slice must be at most {count - 1}, as {source} has {counted(count, 'slice')}, got {options.slice}"
        )
    images = []
    for number in chosen:
        y = scan.kspace[number : number + 1]
        check_finite(source, number, y, mask)
        if not y.any():
            x = torch.zeros(y.shape[-2:], dtype=y.dtype)
        else:
            x = restore(
                y,
                "mri",
                mask=mask if mask.dim() == 1 else mask[None, None],
                sensitivities=options.sensitivities if maps is None else maps[number if len(maps) > 1 else 0],
                model=options.model,
                device=(ranks or Ranks()).device,
                steps=options.steps,
            )[0]
        images.append(scan.cropped(x))
        if progress is not None:
            progress(1)
    found = torch.stack(images).numpy()
    magnitude = np.abs(found)
    files.write(target, files.Picture(side_by_side(magnitude / max(magnitude.max(), 1e-30))))
    with _files.replacing(numbers) as temporary:
        np.save(temporary, found if len(found) > 1 else found[0])
    return {
        "input": str(source),
        "output": str(target),
        "complex_output": str(numbers),
        "width": found.shape[2],
        "height": found.shape[1],
        "slices": len(found),
        "coils": scan.kspace.shape[1],
        "sampled": float(mask.float().mean()),
    }


def read_mask(path: Path) -> torch.Tensor:
    """As `amstel.data.mri.read_mask`, for `--mask`, which takes one mask."""
    try:
        return mri.read_mask(path)
    except ValueError as error:
        raise ValueError(f"--mask {error}") from None


def _undersampled(scan: mri.Scan, path: Path, source: Path) -> mri.Scan:
    """With the samples of the scan that the mask names."""
    mask, size = read_mask(path), tuple(scan.kspace.shape[-2:])
    if mask.shape not in (size[1:], size):
        raise ValueError(
            f"--mask {path} must be [{size[1]}] or {list(size)} as {source}, got {list(mask.shape)}"
        )
    if scan.mask is not None:
        if not (mask & scan.mask).any():
            raise ValueError(f"--mask {path} must select samples that {source} has, got none of them")
        if missing := float((mask & ~scan.mask).double().mean()):
            said = f"--mask {path} selects samples that {source} does not have, which are left out: {missing:.1%} of k-space"
            warnings.warn(said, stacklevel=2)
    return scan.sampled_by(mask)


def side_by_side(images: np.ndarray) -> np.ndarray:
    """[count, H, W] in the rows and columns of one roughly square picture, from the upper left."""
    count, height, width = images.shape
    columns = math.ceil(math.sqrt(count * height / width))
    columns = min(count, columns)
    rows = math.ceil(count / columns)
    grid = np.zeros((rows * columns, height, width), images.dtype)
    grid[:count] = images
    return grid.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)
