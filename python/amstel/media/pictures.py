"""Pictures as stored in files: 8 and 16 bits, gray and color, alpha, upright, with their metadata."""

from __future__ import annotations

import io
import os
import re
import struct
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from amstel import _files
from amstel._optional import need
from amstel._words import counted
from amstel.media import jpeg2000, png_chunks, resolution, segments, stacks

#: Tag of the orientation in EXIF and TIFF.
ORIENTATION = 0x0112
#: Tags of text in EXIF and TIFF: description, make, model, software, date, artist, copyright.
TEXTS = (270, 271, 272, 305, 306, 315, 33432)
#: What else EXIF says of the picture: resolution, the computer, XMP, Windows' rating and texts, IPTC, the camera, the place.
#: Other tags may be of the layout of the file that was read, which a TIFF would take for its own.
_OF_PICTURE = {*TEXTS, 282, 283, 296, 316, 700, 18246, 18249, *range(40091, 40096), 33723, 0x8769, 0x8825}
#: Where other pictures of a page are: in a camera's own file the photograph, of which the page is a small copy.
_SUB_DIRECTORIES = 330
PREVIEW = "a small copy of a photograph, which only a raw converter can read"
#: The size, in the IFD of the camera.
_SIZE = (0xA002, 0xA003)


_ORIENTATION_OF_XMP = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>))\d""")


@dataclass(frozen=True, eq=False)
class Picture:
    """An image as stored in a file.

    Attributes:
        pixels: float32 [H, W] or [H, W, 3] (RGB), in [0, 1].
        alpha: float32 [H, W] in [0, 1], or None.
        bits: 8 or 16.
        about: metadata of the file that is written again: "icc_profile" (bytes), "dpi" (two numbers), "exif" and "xmp"
            (bytes, without the orientation, because the pixels are upright) and "png" (the chunks for color, such as
            gAMA, and for text).
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    bits: int = 8
    about: dict[str, Any] = field(default_factory=dict)


def _module(name: str) -> Any:
    return need(name, extra="restore", purpose="reading pictures")


def open_image(path: Path | io.BytesIO) -> Any:
    """Pillow's image, before its pixels are read; OSError if it is not an image, ValueError if it is too large."""
    image = _module("PIL.Image")
    try:
        return png_chunks.scale_transparency(stacks.not_mapped(image.open(path)))
    except image.DecompressionBombError:
        most = 2 * image.MAX_IMAGE_PIXELS
        raise ValueError(
            f"{path} has more than {most:,} pixels, twice PIL.Image.MAX_IMAGE_PIXELS: raise that to read it"
        ) from None
    except (OSError, ValueError, SyntaxError) as error:
        if isinstance(error, FileNotFoundError) and isinstance(path, Path):
            raise FileNotFoundError(_files.absent(path)) from None
        raise OSError(f"{path} is not an image that can be read") from error


def read(path: str | os.PathLike) -> Picture:
    """Read the image of a file.

    Gray stays gray. Everything that is neither gray nor RGB (palettes, CMYK, Lab, ...) becomes RGB, and one bit per pixel
    becomes eight. The orientation stored by a camera is applied, in every format. 16 bits stay 16: TIFF is read by
    tifffile, and other 16-bit color by OpenCV, because Pillow would reduce it to 8 bits. 12 bits are scaled to 16. Floating
    point (TIFF) should be in [0, 1] and becomes 16 bits. Colors that were multiplied by alpha are divided by it.

    Raises:
        OSError: the file does not exist or cannot be read.
        ValueError: an animation or several pages, of which only one could be used; floating point outside [0, 1],
            signed or 32-bit integers, whose white level is unknown; too many pixels for Pillow or for the memory.
    """
    path = Path(path)
    tiff = _is_tiff(path)
    try:
        found = _tiff(path) if tiff else None
        if found is None:
            found = by_pillow(path, tiff)
    except (OSError, SyntaxError, TypeError, KeyError, IndexError, struct.error) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise OSError(f"{path} is not an image that can be read") from error
    except MemoryError as error:
        raise ValueError(f"{path} does not fit into memory, or its header is damaged: {error}") from None
    data, orientation, about = found
    return _picture(path, upright(data, orientation), about)


def pixel_count(path: Path) -> int:
    """The number of pixels according to the file's header; OSError if it is not an image."""
    if _is_tiff(path):
        tifffile = _module("tifffile")
        try:
            with tifffile.TiffFile(path) as file:
                stacks.check_size(file.pages[0])
                return file.pages[0].imagelength * file.pages[0].imagewidth
        except (tifffile.TiffFileError, IndexError, ValueError) as error:
            raise OSError(f"{path} is not an image that can be read") from error
    with open_image(path) as image:
        return image.width * image.height


def by_pillow(path: Path, tiff: bool) -> tuple[np.ndarray, int, dict[str, Any]]:
    """Pixels, orientation, and what the file says of itself."""
    with open_image(path) as image:
        # A phone's JPEG of several pictures (MPO) is a photograph and what helps to show it.
        frames = 1 if image.format == "MPO" or tiff else getattr(image, "n_frames", 1)
        if frames > 1:
            raise ValueError(
                f"{path} is an animation of {counted(frames, 'frame')}; only single images can be read"
            )
        # First, as reading the EXIF of some formats reads the pixels, which empties this.
        raw = str(image.tile[0][3]) if image.tile else ""
        about, orientation = _about(image), int(image.getexif().get(ORIENTATION, 1))
        if image.format == "PNG" and (chunks := png_chunks.read(path)):
            about["png"] = chunks
        if tiff:
            orientation = 1  # Pillow turns these by itself
        if image.format == "PPM" and image.mode == "RGB" and image.tile[0][0].startswith("ppm"):
            if image.tile[0][3][1] > 255:
                return _ppm(path, image), orientation, about
        if image.format == "JPEG2000" and (profile := jpeg2000.profile(path)):
            about["icc_profile"] = profile
        if image.format == "JPEG2000" and image.mode in ("RGB", "RGBA") and jpeg2000.bits(path) > 8:
            return _opencv(path.read_bytes(), gray=False), orientation, about
        if not image.mode.startswith(("1", "L", "P", "RGB", "I")) or image.mode == "LAB":
            # Of CMYK, Lab, ..., which the pixels no longer are.
            if about.pop("icc_profile", None):
                said = f"{path}: colors are approximate: its {image.mode} is converted to RGB without its profile"
                warnings.warn(said, stacklevel=2)
        return _values(image, raw, path), orientation, about


def of_png(data: bytes) -> np.ndarray:
    """The pixels of a PNG: uint8 or uint16 [H, W] or [H, W, 2, 3 or 4]."""
    with open_image(io.BytesIO(data)) as image:
        return _values(image, str(image.tile[0][3]), data)


def _values(image: Any, raw: str, source: Path | bytes) -> np.ndarray:
    """The pixels of Pillow's image, whose samples are stored as `raw` in its file."""
    if ";16" in raw and image.mode in ("L", "LA", "RGB", "RGBA"):
        encoded = source if isinstance(source, bytes) else source.read_bytes()
        return _opencv(encoded, gray=raw.startswith("L"))
    data = np.asarray(image.convert(_mode(image)))
    if ";12" in raw:
        data = _scaled(data, 4095)
    clear = image.info.get("transparency")
    if data.dtype == np.uint16 and isinstance(clear, int):  # one gray value of a PNG
        data = np.stack([data, np.where(data == clear, 0, 65535).astype(np.uint16)], -1)
    return data


def _scaled(data: np.ndarray, top: int) -> np.ndarray:
    """0 to `top` as 0 to 65535."""
    return np.rint(data.astype(np.float64) * (65535 / top)).astype(np.uint16)


def _ppm(path: Path, image: Any) -> np.ndarray:
    """Color of up to 16 bits, which Pillow would halve."""
    codec, _, offset, (_, top) = image.tile[0][:4]
    count = 3 * image.width * image.height
    if codec == "ppm_plain":
        text = re.sub(rb"#[^\r\n]*", b" ", path.read_bytes()[offset:])
        words = text.split()[:count]
        data = np.array([int(word) if word.isdigit() else -1 for word in words])
    else:
        data = np.fromfile(path, ">u2", count, offset=offset)
    if data.size < count or data.max() > top or data.min() < 0:
        raise OSError("the file is cut, or has values beyond its largest")
    return _scaled(data.reshape(image.height, image.width, 3), top)


def _is_tiff(path: Path) -> bool:
    if not path.is_file():
        raise FileNotFoundError(_files.absent(path))
    with path.open("rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _picture(path: Path, data: np.ndarray, about: dict[str, Any]) -> Picture:
    if data.dtype.kind == "f":
        if not np.isfinite(data).all() or data.min() < -0.5 or data.max() > 1.5:
            raise ValueError(
                f"{path} must hold floating point in [0, 1], got {data.min():g} to {data.max():g}"
            )
        bits, values = 16, data.astype(np.float32)
    else:
        if data.dtype == np.int32:  # Pillow's mode for 16 bits in some formats
            if data.size and (data.min() < 0 or data.max() > 65535):
                raise ValueError(
                    f"{path} must have 8 or 16 bits, got {data.min()} to {data.max()}, whose white level is unknown"
                )
            data = data.astype(np.uint16)
        bits = 16 if data.dtype == np.uint16 else 8
        values = data.astype(np.float32)
        values /= 2**bits - 1
    if values.ndim == 2:
        return Picture(np.ascontiguousarray(values), None, bits, about)
    alpha = np.ascontiguousarray(values[..., -1]) if values.shape[2] in (2, 4) else None
    colors = values[..., :3] if values.shape[2] > 2 else values[..., 0]
    return Picture(np.ascontiguousarray(colors), alpha, bits, about)


def upright(data: np.ndarray, orientation: int) -> np.ndarray:
    """The pixels of an image with this value of the EXIF tag 0x0112, 1 to 8, as they are to be seen."""
    if orientation in resolution.TURNED:
        data = data.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        data = data[:, ::-1]
    if orientation in (3, 4, 7, 8):
        data = data[::-1]
    return data


def _about(image: Any) -> dict[str, Any]:
    about: dict[str, Any] = {}
    if image.info.get("icc_profile"):
        about["icc_profile"] = image.info["icc_profile"]
    exif = image.getexif()
    if dpi := resolution.by_pillow(image, exif):
        about["dpi"] = resolution.seen(dpi, exif.get(ORIENTATION, 1))
    xmp = image.info.get("xmp")
    if isinstance(xmp, bytes) and xmp:
        about["xmp"] = _upright_xmp(xmp)
    if "exif" in image.info and len(exif):
        exif = _of_picture(exif)
        if len(exif) or exif.get_ifd(0x8769) or exif.get_ifd(0x8825):
            about["exif"] = exif.tobytes()
    return about


def _of_picture(exif: Any) -> Any:
    """EXIF without what is of the file that it was in: a copy."""
    copy = _module("PIL.Image").Exif()
    copy.load(exif.tobytes())
    for tag in set(copy) - _OF_PICTURE:
        del copy[tag]
    resolution.turn(copy, exif.get(ORIENTATION, 1))
    for tag in _SIZE if 0x8769 in copy else ():
        copy.get_ifd(0x8769).pop(tag, None)
    if isinstance(copy.get(700), bytes):
        copy[700] = _upright_xmp(copy[700])
    return copy


def _upright_xmp(xmp: bytes) -> bytes:
    return _ORIENTATION_OF_XMP.sub(rb"\g<1>1", xmp)


def _mode(image: Any) -> str:
    """What to convert an image to: nothing is lost but what cannot be restored."""
    if image.mode.startswith("I") or image.mode == "F":
        return image.mode
    gray = image.mode in ("1", "L", "LA", "La")
    return ("L" if gray else "RGB") + ("A" if image.has_transparency_data else "")


def _opencv(encoded: bytes, gray: bool) -> np.ndarray:
    """16 bits per channel: [H, W, 3] RGB, [H, W, 4] with alpha, [H, W, 2] gray with alpha."""
    cv2 = _module("cv2")
    data = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    if data is None:
        raise OSError("OpenCV cannot read it")
    return data[..., [0, 3] if gray else [2, 1, 0, 3][: data.shape[2]]]


def whole_pages(file: Any) -> list[Any]:
    """The pages of tifffile's file that are not small copies of others.

    Raises:
        ValueError: the first is one, of a photograph further inside: a camera's own file (DNG, NEF, ...); or they never end.
    """
    first = file.pages[0]
    if first.is_reduced and first.tags.get(_SUB_DIRECTORIES):
        raise ValueError(PREVIEW)
    return [page for page in stacks.pages(file) if not page.is_reduced] or [first]


def _tiff(path: Path) -> tuple[np.ndarray, int, dict[str, Any]] | None:
    """Gray or RGB of 8 or 16 bits or floating point, as `_pillow`; None where Pillow knows the kind better."""
    tifffile = _module("tifffile")
    try:
        with tifffile.TiffFile(path) as file:
            try:
                pages = whole_pages(file)
            except ValueError as error:
                raise ValueError(f"{path} must be a picture, got {error}") from None
            page = pages[0]
            if (count := stacks.count(pages)) > 1:
                raise ValueError(f"{path} has {counted(count, 'page')}; only single images can be read")
            if page.dtype is not None and (page.dtype.kind == "i" or page.dtype in (np.uint32, np.uint64)):
                raise ValueError(f"{path} must have 8 or 16 bits without a sign, got {page.dtype}")
            deep = page.dtype is not None and (page.dtype == np.uint16 or page.dtype.kind == "f")
            plain = page.photometric in (0, 1, 2) and page.bitspersample in (8, 16, 32, 64)
            if not plain or not (deep or page.dtype == np.uint8) or (not deep and page.compression in (6, 7)):
                return None
            about, orientation = _exif_of_tiff(path)
            try:
                data = samples(page)
            except ValueError as error:
                raise ValueError(f"{path} cannot be read: {error}") from error
            orientation = int(page.tags.valueof(274, orientation))
            return data, orientation, _of_tags(page, orientation) | about
    except tifffile.TiffFileError as error:
        raise OSError("tifffile cannot read it") from error


def samples(page: Any, number: int = 0) -> np.ndarray:
    """[H, W], or [H, W, 2, 3 or 4] with color and alpha last; of a stack of ImageJ image `number`.

    Raises:
        ValueError: a compression that needs the package imagecodecs, or a size that the file cannot hold.
    """
    stacks.check_size(page)
    try:
        data = stacks.image(page, number) if number else page.asarray()
    except (ValueError, ImportError) as error:  # of imagecodecs, or of Zstandard before Python 3.14
        found = segments.samples(page)
        if found is None and "imagecodecs" in str(error):
            raise ValueError(f"{error}: pip install imagecodecs") from error
        if found is None:
            raise OSError("tifffile cannot read it") from error
        data = found
    samples, colors = page.samplesperpixel, 3 if page.photometric == 2 else 1
    if page.photometric == 0:  # white is zero
        data = (1 if data.dtype.kind == "f" else np.iinfo(data.dtype).max) - data
    if samples > 1:
        if page.planarconfig == 2:
            data = np.moveaxis(data, 0, -1)
        # Samples beyond color and alpha are of no picture.
        alpha = bool(page.extrasamples) and int(page.extrasamples[0]) in (1, 2)
        data = data[..., : colors + alpha]
        if alpha and int(page.extrasamples[0]) == 1:
            data = _divided(data)
        data = data[..., 0] if data.shape[-1] == 1 else data
    return data.astype(data.dtype.newbyteorder("="))


def _divided(data: np.ndarray) -> np.ndarray:
    """Colors that were multiplied by alpha, which comes last, without it; where that is 0, black."""
    top = 1.0 if data.dtype.kind == "f" else float(np.iinfo(data.dtype).max)
    alpha = data[..., -1:].astype(np.float64)
    colors = np.where(alpha > 0, np.minimum(top, top * data[..., :-1] / np.maximum(alpha, 1e-30)), 0)
    colors = colors if top == 1 else np.rint(colors)
    return np.concatenate([colors.astype(data.dtype), data[..., -1:]], -1)


def _of_tags(page: Any, orientation: int) -> dict[str, Any]:
    about: dict[str, Any] = {}
    profile = page.tags.valueof(34675)
    if profile:
        about["icc_profile"] = bytes(profile)
    if dpi := resolution.of_page(page):
        about["dpi"] = resolution.seen(dpi, orientation)
    return about


def _exif_of_tiff(path: Path) -> tuple[dict[str, Any], int]:
    """What a TIFF says of the picture and not of how it is stored, as EXIF, and its orientation, which may stand in XMP
    alone; nothing if Pillow cannot open it."""
    image = _module("PIL.Image")
    try:
        with image.open(path) as opened:
            found, exif = opened.getexif(), image.Exif()
            for tag in TEXTS:
                if tag in found:
                    exif[tag] = found[tag]
            for tag in (0x8769, 0x8825):  # what the camera did, and where
                if found.get_ifd(tag):
                    exif.get_ifd(tag).update(found.get_ifd(tag))
            exif = _of_picture(exif)
            told = {name: value for name, value in _about(opened).items() if name == "xmp"}
            if len(exif) or any(map(exif.get_ifd, (0x8769, 0x8825))):
                told["exif"] = exif.tobytes()
            return told, int(found.get(ORIENTATION, 1))
    except Exception:  # what cannot be read is not worth a picture
        return {}, 1
