"""Pictures in files: 8 and 16 bits, grey and colour, with or without an alpha channel."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from amstel import _files
from amstel._check import fail
from amstel.data.images import SUFFIXES

#: What `write` writes: first those that hold 16 bits, then those that hold an alpha channel.
WRITTEN = (".png", ".tif", ".tiff", ".webp", ".jpg", ".jpeg", ".bmp")
_ALPHA, _DEEP = WRITTEN[:4], WRITTEN[:3]


def module(name: str) -> Any:
    """A library of the extra [restore], imported where it is used."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ImportError(f'{name} is missing: pip install "amstel[restore]"') from None


@dataclass(frozen=True, eq=False)
class Picture:
    """An image as it lies in a file.

    Attributes:
        pixels: float32 [H, W] or [H, W, 3] (RGB), in [0, 1].
        alpha: float32 [H, W] in [0, 1], or None.
        bits: 8 or 16.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    bits: int = 8


def find(path: str | os.PathLike) -> list[Path]:
    """The file, or the images of the folder in the order of their names.

    Raises:
        OSError: there is no such file.
        ValueError: a folder without an image.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.is_file():
        return [path]
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not found:
        raise ValueError(f"{path} must hold at least one image ({', '.join(SUFFIXES)}), got none")
    return found


def _open(path: Path) -> Any:
    """Pillow's image, its pixels not yet read."""
    image = module("PIL.Image")
    try:
        return image.open(path)
    except (OSError, ValueError, SyntaxError, image.DecompressionBombError) as error:
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(f"{path} does not exist") from None
        raise OSError(f"{path} is not an image that can be read") from error


def pixels(paths: Iterable[Path]) -> int:
    """How many pixels the files hold together, by their headers; OSError names one that is no image."""
    total = 0
    for path in paths:
        with _open(path) as image:
            total += image.width * image.height
    return total


def read(path: str | os.PathLike) -> Picture:
    """The image of a file.

    Grey stays grey. What is neither grey nor RGB (palettes, CMYK, Lab, ...) becomes RGB, and one bit a pixel eight. An
    orientation that the camera noted is applied. Of an animation the first frame is taken. 16 bits stay 16; colours of
    16 bits go through OpenCV, as Pillow would halve them.

    Raises:
        OSError: the file does not exist or cannot be read.
    """
    path = Path(path)
    with _open(path) as image:
        try:
            raw = str(image.tile[0][3]) if image.tile else ""
            if ";16" in raw and image.mode in ("L", "LA", "RGB", "RGBA"):
                data = _decode(path, grey=raw.startswith("L"))
            else:
                image = module("PIL.ImageOps").exif_transpose(image)
                data = np.asarray(image.convert(_mode(image)))
        except (OSError, ValueError, SyntaxError) as error:
            raise OSError(f"{path} is not an image that can be read") from error
    if data.dtype == np.int32:  # Pillow's mode for 16 bits in some formats
        data = data.clip(0, 65535).astype(np.uint16)
    bits = 16 if data.dtype == np.uint16 else 8
    values = data.astype(np.float32) / (2**bits - 1)
    if values.ndim == 2:
        return Picture(values, None, bits)
    alpha = values[..., -1] if values.shape[2] in (2, 4) else None
    colours = values[..., :3] if values.shape[2] > 2 else values[..., 0]
    return Picture(np.ascontiguousarray(colours), alpha, bits)


def _mode(image: Any) -> str:
    """What to convert an image to: nothing is lost but what cannot be restored."""
    if image.mode.startswith("I"):
        return image.mode
    if image.mode == "F":
        raise ValueError("floating point has no range")
    grey = image.mode in ("1", "L", "LA", "La")
    return ("L" if grey else "RGB") + ("A" if image.has_transparency_data else "")


def _decode(path: Path, grey: bool) -> np.ndarray:
    """16 bits a channel: [H, W, 3] RGB, [H, W, 4] with alpha, [H, W, 2] grey with alpha."""
    cv2 = module("cv2")
    data = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if data is None:
        raise ValueError("OpenCV cannot read it")
    return data[..., [0, 3] if grey else [2, 1, 0, 3][: data.shape[2]]]


def check_writable(path: Path, picture: Picture | None = None) -> None:
    """ValueError where the format of that name is not written, or cannot hold the picture."""
    suffix = path.suffix.lower()
    if suffix not in WRITTEN:
        raise ValueError(f"{path} must end in one of {', '.join(WRITTEN)}")
    if picture is None:
        return
    if picture.alpha is not None and suffix not in _ALPHA:
        raise ValueError(f"{path} must end in one of {', '.join(_ALPHA)}, which can hold an alpha channel")
    if picture.bits == 16 and suffix not in _DEEP:
        raise ValueError(f"{path} must end in one of {', '.join(_DEEP)}, which can hold 16 bits")


def write(path: str | os.PathLike, picture: Picture) -> None:
    """Write a picture, its values clipped to [0, 1] and rounded to its number of bits.

    Raises:
        ValueError: a format that cannot hold it, or pixels of another shape.
    """
    path = Path(path)
    check_writable(path, picture)
    if picture.pixels.ndim != 2 and picture.pixels.shape[2:] != (3,):
        fail("pixels", "an array [H, W] or [H, W, 3]", f"{list(picture.pixels.shape)}")
    values = picture.pixels
    if picture.alpha is not None:
        values = np.concatenate([values.reshape(*picture.alpha.shape, -1), picture.alpha[..., None]], 2)
    data = quantise(values, picture.bits)
    if picture.bits == 16:
        cv2 = module("cv2")
        if data.ndim == 3:
            data = data[..., [0, 0, 0, 1] if data.shape[2] == 2 else [2, 1, 0, 3][: data.shape[2]]]
        coded, found = cv2.imencode(path.suffix, data)
        if not coded:
            raise OSError(f"{path} cannot be written")
        _files.write_bytes(path, found.tobytes())
        return
    with _files.replacing(path) as temporary:
        module("PIL.Image").fromarray(data).save(
            temporary, **{"quality": 95} if path.suffix.lower() in (".jpg", ".jpeg") else {}
        )


def quantise(values: np.ndarray, bits: int = 8) -> np.ndarray:
    """Values of [0, 1] as integers, clipped and rounded."""
    top = 2**bits - 1
    return np.rint(np.clip(values, 0, 1) * top).astype(np.uint16 if bits == 16 else np.uint8)
