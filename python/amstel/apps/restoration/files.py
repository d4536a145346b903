"""Writing pictures: 8 and 16 bits, gray and color, alpha, with color profile, resolution and EXIF; and which files to read."""

from __future__ import annotations

import importlib
import os
import struct
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from amstel import _files
from amstel._check import fail
from amstel.media import png_chunks
from amstel.media.formats import STILLS, others, stills
from amstel.media.pictures import TEXTS, Picture, pixel_count, read

__all__ = ["WRITTEN", "Picture", "check_writable", "find", "module", "pixels", "quantize", "read", "write"]

#: What `write` writes: first those that hold 16 bits, then those that hold an alpha channel.
WRITTEN = (".png", ".tif", ".tiff", ".webp", ".jpg", ".jpeg", ".bmp")
_ALPHA, _DEEP = WRITTEN[:4], WRITTEN[:3]
_LONGEST_XMP, _XMP_IN_TIFF = 65502, 700
#: Of the camera and of the place in EXIF; and what of the first is the place of a directory in the file it was in.
_DIRECTORIES, _INTEROPERABILITY = (0x8769, 0x8825), 0xA005


def module(name: str) -> Any:
    """A library from the extra [restore], imported where it is used."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ImportError(f'{name} is missing: pip install "amstel[restore]"') from None


def find(path: str | os.PathLike) -> list[Path]:
    """The file, or the images in the folder in the order of their names.

    Raises:
        OSError: there is no such file.
        ValueError: a folder without an image.

    Warns:
        UserWarning: other files in the folder, which are ignored.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(_files.absent(path))
    if path.is_file():
        return [path]
    found = sorted(stills(path))
    if not found:
        got = others(path, ()) or "none"
        raise ValueError(f"{path} must hold at least one image ({', '.join(STILLS)}), got {got}")
    return found


def pixels(paths: Iterable[Path]) -> int:
    """The total number of pixels in the files, according to their headers; OSError names a file that is not an image."""
    return sum(pixel_count(path) for path in paths)


def check_writable(path: Path, picture: Picture | None = None) -> None:
    """ValueError if the format of that name is not supported, or cannot hold the picture."""
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
    """Write a picture with its metadata, its values clipped to [0, 1] and rounded to its number of bits.

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
    data = quantize(values, picture.bits)
    suffix, about = path.suffix.lower(), dict(picture.about)
    chunks, xmp = about.pop("png", []), about.pop("xmp", b"")
    if xmp and suffix == ".png":
        chunks = [*chunks, *png_chunks.of_xmp(xmp)]
    elif len(xmp) > _LONGEST_XMP and suffix in (".jpg", ".jpeg"):
        warnings.warn(
            f"{path} is written without the XMP metadata of its input, which is too long for JPEG",
            stacklevel=2,
        )
    elif xmp and suffix in (".tif", ".tiff"):
        exif = module("PIL.Image").Exif()
        exif.load(about.get("exif", b""))
        exif[_XMP_IN_TIFF] = xmp
        about["exif"] = exif.tobytes()
    elif xmp:
        about["xmp"] = xmp
    if suffix != ".png" and "icc_profile" not in about and (lost := png_chunks.unusual(chunks)):
        said = " and ".join(lost)
        warnings.warn(
            f"{path}: colors will look different, because only PNG keeps the {said} of the input",
            stacklevel=2,
        )
    if suffix == ".bmp":
        if "icc_profile" in about:
            warnings.warn(
                f"{path}: colors may look different, because BMP keeps no color profile", stacklevel=2
            )
        about = {key: value for key, value in about.items() if key == "dpi"}
    with _files.replacing(path) as temporary:
        if picture.bits == 16 and data.ndim == 3:
            _deep_png(temporary, data, about, chunks) if suffix == ".png" else _deep_tiff(
                temporary, data, about, path
            )
            return
        if suffix in (".jpg", ".jpeg"):
            about["quality"] = 95
        elif suffix == ".webp":
            about |= {"lossless": True, "exact": True}  # colors where alpha is 0, too
        elif suffix == ".png":
            about["pnginfo"] = info = module("PIL.PngImagePlugin").PngInfo()
            for name, content in chunks:
                info.add(name, content)
        module("PIL.Image").fromarray(data).save(temporary, **about)


def _deep_png(path: Path, data: np.ndarray, about: dict[str, Any], chunks: png_chunks.Chunks) -> None:
    """Color, or gray with alpha, with 16 bits: written by hand, because Pillow cannot."""
    kind = {2: 4, 3: 2, 4: 6}[data.shape[2]]

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    height, width = data.shape[:2]
    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))]
    parts += [chunk(*given) for given in chunks]
    if "icc_profile" in about:
        parts.append(chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(about["icc_profile"])))
    if "dpi" in about:
        parts.append(chunk(b"pHYs", struct.pack(">IIB", *(round(d / 0.0254) for d in about["dpi"]), 1)))
    if "exif" in about:
        parts.append(chunk(b"eXIf", about["exif"].removeprefix(b"Exif\0\0")))
    # Each row as its difference from the one above (filter 2), which packs photographs well.
    rows = np.ascontiguousarray(data.astype(">u2")).view(np.uint8).reshape(height, -1)
    above = np.concatenate([np.zeros_like(rows[:1]), rows[:-1]])
    filtered = np.concatenate([np.full((height, 1), 2, np.uint8), rows - above], 1)
    parts += [chunk(b"IDAT", zlib.compress(filtered.tobytes(), 6)), chunk(b"IEND", b"")]
    path.write_bytes(b"".join(parts))


def _deep_tiff(path: Path, data: np.ndarray, about: dict[str, Any], name: Path) -> None:
    """The same as TIFF; warnings call it by the name that it will have."""
    options: dict[str, Any] = {"photometric": "rgb" if data.shape[2] > 2 else "minisblack", "metadata": None}
    exif = module("PIL.Image").Exif()
    exif.load(about.get("exif", b""))
    texts = {tag: exif[tag] for tag in TEXTS if isinstance(exif.get(tag), str)}
    options["software"] = texts.pop(305, False)
    options["extratags"] = [(tag, 2, 0, text, True) for tag, text in texts.items()]
    packed = {tag: value for tag, value in exif.items() if isinstance(value, bytes) and value}
    options["extratags"] += [(tag, 1, len(value), value, True) for tag, value in packed.items()]
    if data.shape[2] in (2, 4):
        options["extrasamples"] = ["unassalpha"]
    if "icc_profile" in about:
        options["iccprofile"] = about["icc_profile"]
    if "dpi" in about:
        options |= {"resolution": about["dpi"], "resolutionunit": 2}
    module("tifffile").imwrite(path, data, planarconfig="contig", byteorder="<", **options)
    if inner := {tag: found for tag in _DIRECTORIES if (found := dict(exif.get_ifd(tag)))}:
        _add_directories(path, inner, name)


def _add_directories(path: Path, directories: dict[int, dict[int, Any]], name: Path) -> None:
    """What the camera did and where, which tifffile does not write: at the end of a TIFF, and the tags again after it."""
    with path.open("r+b") as file:
        kind, first = struct.unpack("<2xHI", file.read(8))
        if kind != 42:  # a BigTIFF
            warnings.warn(
                f"{name}, a TIFF of 4 GB, goes without what the camera's EXIF says of its input", stacklevel=2
            )
            return
        file.seek(first)
        (count,) = struct.unpack("<H", file.read(2))
        tags, after = [file.read(12) for _ in range(count)], file.read(4)
        file.seek(0, os.SEEK_END)
        for tag, values in directories.items():
            inner = module("PIL.TiffImagePlugin").ImageFileDirectory_v2(group=tag)
            for key in values.keys() - {_INTEROPERABILITY}:
                inner[key] = values[key]
            file.write(bytes(file.tell() % 2))
            tags.append(struct.pack("<HHII", tag, 4, 1, file.tell()))
            file.write(inner.tobytes(file.tell()))
        file.write(bytes(file.tell() % 2))
        first = file.tell()
        tags.sort(key=lambda tag: struct.unpack_from("<H", tag))
        file.write(struct.pack("<H", len(tags)) + b"".join(tags) + after)
        file.seek(4)
        file.write(struct.pack("<I", first))


def quantize(values: np.ndarray, bits: int = 8) -> np.ndarray:
    """Values in [0, 1] as integers, clipped and rounded."""
    top = 2**bits - 1
    found = np.empty(values.shape, np.uint16 if bits == 16 else np.uint8)
    for first in range(0, len(values), 1024):  # less memory at once
        rows = slice(first, first + 1024)
        found[rows] = np.rint(np.clip(values[rows], 0, 1) * top)
    return found
