"""Arguments of the command line other than pictures: blur kernels by name or file, and noise maps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from amstel import _files, inverse
from amstel._numerals import parsed
from amstel.apps.restoration import files
from amstel.data.mri.readers import too_large

#: Names of kernels, their functions, and how many numbers they take.
KERNELS: dict[str, tuple[Callable[..., Any], str, tuple[int, ...]]] = {
    "gaussian": (inverse.gaussian_kernel, "gaussian:SIGMA", (1,)),
    "motion": (inverse.motion_kernel, "motion:LENGTH or motion:LENGTH:DEGREES", (1, 2)),
    "disk": (inverse.disk_kernel, "disk:RADIUS", (1,)),
}


def read_kernel(text: str) -> np.ndarray:
    """A kernel [kh, kw] with sum 1, from a name with its numbers (`KERNELS`), in pixels, or from a file: .npy, or a picture.

    An even side gets a row or column of zeros at its end, which shifts nothing.

    Raises:
        ValueError: neither of these; a kernel of another rank, with a sum that is not positive, or with NaN.
        OSError: the file cannot be read.
    """
    name, *numbers = text.split(":")
    if name in KERNELS and not Path(text).is_file():
        function, usage, counts = KERNELS[name]
        try:
            values = [parsed(number) for number in numbers]
        except ValueError:
            values = []
        if len(values) not in counts:
            raise ValueError(f"--kernel must be {usage}, got {text!r}")
        try:
            return function(*values).numpy()
        except ValueError as error:  # which speaks of the function's arguments
            raise ValueError(f"--kernel must be {usage} of numbers that make a blur, got {text!r}") from error
    path = Path(text)
    if not path.is_file():
        names = ", ".join(usage for _, usage, _ in KERNELS.values())
        raise ValueError(f"--kernel must be a file, or {names}, got {text!r}")
    if path.suffix.lower() == ".npy":
        kernel = read_numbers(path)
    else:
        pixels = files.read(path).pixels
        kernel = pixels if pixels.ndim == 2 else pixels.mean(2)
    if kernel.ndim != 2 or not np.isfinite(kernel).all() or not kernel.sum() > 0:
        raise ValueError(
            f"{path} must hold a kernel [kh, kw] with a sum > 0, got {kernel.dtype} {list(kernel.shape)}"
        )
    kernel = kernel.astype(np.float64)
    kernel = np.pad(kernel, [(0, 1 - n % 2) for n in kernel.shape])
    return kernel / kernel.sum()


def read_sigma(path: Path) -> np.ndarray:
    """A noise map [H, W] in units of the image, from a file: numbers 0..255 in .npy, or an 8-bit gray picture.

    Raises:
        ValueError: another shape, numbers that are not > 0.
    """
    if path.suffix.lower() == ".npy":
        level = read_numbers(path)
    else:
        pixels = files.read(path).pixels
        level = 255 * (pixels if pixels.ndim == 2 else pixels.mean(2))
    got = ""
    if level.ndim != 2 or level.dtype.kind not in "iuf":
        got = f"{level.dtype} {list(level.shape)}"
    elif not np.isfinite(level).all():
        got = "what is not finite"
    elif level.min() <= 0:
        got = f"{level.min():g}"
    if got:
        raise ValueError(f"{path} must hold sigma > 0 at every pixel [H, W], got {got}")
    return level / 255


def read_numbers(path: Path) -> np.ndarray:
    """The one array of real numbers, or of truth values, in a .npy file."""
    try:
        array = np.load(path, allow_pickle=False)
    except (*_files.DAMAGED_ARRAY, OSError) as error:
        raise ValueError(f"{path} must be a .npy file without pickled objects") from error
    except MemoryError as error:
        raise too_large(path, error) from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf" or not array.size:
        raise ValueError(f"{path} must be a .npy file of one array of real numbers")
    return array.astype(np.uint8) if array.dtype == bool else array
