"""Read and write pictures as uint8 RGB arrays, as a viewer shows them: upright, in sRGB, whatever their mode in the file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amstel import _files
from amstel._check import describe, fail, unmasked, with_attributes
from amstel._optional import need
from amstel._words import counted
from amstel.media import _deep, pictures, png_chunks, profiles, stacks

#: A stereo or burst JPEG (MPO) has several pictures too, of which the first is the one to see.
_ANIMATED = ("GIF", "PNG", "WEBP", "TIFF", "AVIF")


def _pillow(part: str = "Image") -> Any:
    return need(f"PIL.{part}", extra=("video", "restore"), purpose="amstel.media.images")


def opened(path: Path) -> Any:
    """Pillow's image of a file, which is decoded later and is to be closed; errors name the file.

    Example:
        >>> with amstel.media.images.opened("photographs/one.png") as image:
        ...     image.format
        'PNG'
    """
    library = _pillow()
    try:
        image = png_chunks.scale_transparency(stacks.not_mapped(library.open(path)))
        if image.format == "TIFF" and image.tag_v2.get(254, 0) & 1 and 330 in image.tag_v2:
            image.close()
            raise ValueError(pictures.PREVIEW)
        return image
    except FileNotFoundError:
        raise FileNotFoundError(f"{_files.absent(path)}; it should be an image") from None
    except Exception as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> ValueError:
    # Pillow's message begins with the name of the file, which is said already.
    text = str(error).replace(repr(str(path)), "it").replace(str(path), "it")
    return ValueError(f"{path} must be an image that can be read, got: {text or type(error).__name__}")


def _upright(image: Any) -> Any:
    image.load()  # whose errors are of the pixels; after one, some decoders give them as black
    try:
        return _pillow("ImageOps").exif_transpose(image)
    except Exception:  # Exif data that is broken says nothing of the orientation
        return image


def rgb(image: Any, source: Any = None) -> np.ndarray:
    """The pixels of a Pillow image of any mode: uint8 [H, W, 3].

    16 bits are scaled, round(v / 257). Floating point should be in [0, 1], as in image libraries; values outside raise an
    error, because their white is unknown, and so do 32-bit integers that do not fit into 16 bits. Colors with an ICC
    profile become sRGB; a damaged profile is ignored. Transparent pixels are blended with black. The orientation is
    ignored. `source` is the image before it was rotated, which knows the format of the file.

    Raises:
        TypeError: not a Pillow image.
        ValueError: floating point or 32 bits of unknown range.

    Example:
        >>> from PIL import Image
        >>> amstel.media.images.rgb(Image.new("RGBA", (1, 1), (200, 100, 0, 128)))  # half transparent
        array([[[100,  50,   0]]], dtype=uint8)
    """
    with_attributes("image", image, "mode", "convert")
    mode, source = image.mode, image if source is None else source
    profile = profiles.of(source)
    if mode == "F":
        values = np.asarray(image)
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            raise ValueError(
                f"floating point in [{values.min():g}, {values.max():g}], where white is 1 and black 0"
            )
        return profiles.in_srgb(_gray(np.rint(values * 255).astype(np.uint8)), profile)
    if mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if source.format == "TIFF":
            values = _whole(source, values)
        # PNG and PGM of 16 bits come as 32 in some releases of Pillow.
        if mode == "I" and (source.format == "TIFF" or values.min() < 0 or values.max() > 65535):
            raise ValueError(f"32 bits in [{values.min()}, {values.max()}], whose white level is unknown")
        seen = (values != image.info.get("transparency")) if source.format == "PNG" else True
        gray = profiles.in_srgb(_gray(((values + 128) // 257).astype(np.uint8)), profile)
        return gray * np.asarray(seen, np.uint8)[..., None]
    if image.mode == "La":  # gray that was multiplied by alpha, which Pillow makes nothing else of
        image = image.convert("LA")
    if image.has_transparency_data:
        return on_black(profiles.in_srgb(np.asarray(image.convert("RGBA")), profile))
    if mode in ("CMYK", "LAB"):
        return np.asarray(image.convert("RGB")) if (shown := profiles.of_cmyk(image)) is None else shown
    return profiles.in_srgb(np.asarray(image.convert("RGB")), profile)


def _whole(image: Any, values: np.ndarray) -> np.ndarray:
    """Values of a page of a TIFF as 16 bits, of which 10, 12 or 14 may be used; with a sign white is not known."""
    bits, signed = image.tag_v2.get(258, (16,))[0], image.tag_v2.get(339, (1,))[0] == 2
    if signed:
        raise ValueError(
            f"{bits} bits with a sign in [{values.min()}, {values.max()}], whose white level is unknown"
        )
    return (values * 65535 + (2**bits - 1) // 2) // (2**bits - 1) if bits < 16 else values


def on_black(rgba: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 4] blended with black by its alpha: [H, W, 3].

    Example:
        >>> amstel.media.images.on_black(np.array([[[200, 100, 0, 128]]], np.uint8))
        array([[[100,  50,   0]]], dtype=uint8)
    """
    wide = rgba.astype(np.uint16)
    return ((wide[..., :3] * wide[..., 3:] + 127) // 255).astype(np.uint8)


def _gray(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, -1)


def read(path: str | os.PathLike) -> np.ndarray:
    """Read a picture: uint8 [H, W, 3], sRGB, upright according to its Exif data; for an animation, the first frame.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it cannot be read, or has values of unknown range (`rgb`). The message names the file.
        ImportError: the extra [video] is missing.

    Example:
        >>> amstel.media.images.read("photographs/one.png").shape
        (321, 481, 3)
    """
    path = Path(path)
    if kind := _deep.kind(path):
        return next(_deep_pages(path, kind))
    with opened(path) as image:
        try:
            return rgb(_upright(image), image)
        except Exception as error:
            raise _unreadable(path, error) from None


def _deep_pages(path: Path, kind: str) -> Iterator[np.ndarray]:
    """The picture, or the pages of a TIFF: uint8 [H, W, 3]; floating point is in [0, 1]."""
    try:
        yield from (_levels(*page) for page in _deep.pages(path, kind))
    except Exception as error:
        raise _unreadable(path, error) from None


def _deep_count(path: Path, kind: str) -> tuple[int, int]:
    try:
        return _deep.count(path, kind)
    except ImportError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from None


def _levels(data: np.ndarray, profile: bytes | None) -> np.ndarray:
    """Samples [H, W] or [H, W, 2, 3 or 4] of floating point or 8 or 16 bits: uint8 [H, W, 3] in sRGB, alpha laid on black."""
    if data.dtype.kind == "f":
        if not np.isfinite(data).all() or data.min() < 0 or data.max() > 1:
            raise ValueError(
                f"floating point in [{data.min():g}, {data.max():g}], where white is 1 and black 0"
            )
        top = 1.0
    elif data.dtype.itemsize > 2:
        raise ValueError(f"{8 * data.dtype.itemsize} bits, whose white level is unknown")
    else:
        top = float(np.iinfo(data.dtype).max)
    data = np.rint(data.astype(np.float64) * (255 / top)).astype(np.uint8)
    if data.ndim == 2:
        return profiles.in_srgb(_gray(data), profile)
    if data.shape[-1] in (2, 4):
        rgba = np.concatenate([np.broadcast_to(data[..., :-1], (*data.shape[:2], 3)), data[..., -1:]], -1)
        return on_black(profiles.in_srgb(rgba, profile))
    return profiles.in_srgb(np.ascontiguousarray(data), profile)


class Animation:
    """The frames of a GIF, WebP, APNG or multi-page TIFF; any other image is a single frame.

    Args:
        path: the file.

    Attributes:
        count: number of frames, without thumbnails in a TIFF and the default image of an animated PNG.
        mark: text that `amstel.media.writing` leaves in a PNG that is a strip of frames, else None.

    Iterating gives (frame, seconds that it is shown, or None), read one by one.

    Raises:
        FileNotFoundError, ValueError, ImportError: as `read`.

    Warns:
        UserWarning: the file is damaged or truncated after its first frame; the frames before that are returned.

    Example:
        >>> path = amstel.video.write("black.gif", torch.zeros(2, 8, 8, 3, dtype=torch.uint8), fps=4)
        >>> [(frame.shape, seconds) for frame, seconds in amstel.media.images.Animation(path)]
        [((8, 8, 3), 0.25), ((8, 8, 3), 0.25)]
    """

    def __init__(self, path: str | os.PathLike):
        self.path, self.mark, self._whole, self._apng = Path(path), None, True, False
        self._deep = _deep.kind(self.path)
        if self._deep:
            self.count, self._announced = _deep_count(self.path, self._deep)
            return
        with opened(self.path) as image:
            self._announced = stacks.announced(getattr(image, "tag_v2", {}).get(270))
            self.mark = image.info.get("amstel") if isinstance(image.info.get("amstel"), str) else None
            self._pages = [0]
            if image.format == "TIFF":
                self._pages, self._whole = _tiff_pages(image)
            elif image.format in _ANIMATED:
                try:
                    # A PNG may show those who know no animation a picture that is not of it.
                    first = bool(getattr(image, "default_image", False))
                    self._pages = list(range(first, getattr(image, "n_frames", 1)))
                    self._apng = image.format == "PNG" and self._pages != [0]
                    self._orientation = int(image.getexif().get(274, 1)) if self._apng else 1
                    self._profile = profiles.of(image)
                except Exception as error:
                    raise _unreadable(self.path, error) from None
        self.count = len(self._pages)

    def __iter__(self) -> Iterator[tuple[np.ndarray, float | None]]:
        if self._deep:
            yield from ((frame, None) for frame in _deep_pages(self.path, self._deep))
            self._ended()
            return
        frames = self._animated_png() if self._apng else self._by_pillow()
        for number in range(self.count):
            try:
                frame = next(frames)
            except Exception as error:
                if not number:
                    raise _unreadable(self.path, error) from None
                self._cut(f"it announces {counted(self.count, 'frame')}", number)
                return
            yield frame
        self._ended()

    def _ended(self) -> None:
        if not self._whole:
            self._cut("another page should follow", self.count)
        elif self._announced > self.count:
            self._cut(f"it announces {counted(self._announced, 'image')}", self.count)

    def _by_pillow(self) -> Iterator[tuple[np.ndarray, float | None]]:
        with opened(self.path) as image:
            for page in self._pages:
                image.seek(page)
                yield rgb(_upright(image), image), self._seconds(image)

    def _animated_png(self) -> Iterator[tuple[np.ndarray, float | None]]:
        from amstel.media import apng

        for canvas, seconds in apng.frames(self.path):
            shown = on_black(profiles.in_srgb(canvas, self._profile))
            yield np.ascontiguousarray(pictures.upright(shown, self._orientation)), seconds

    def _cut(self, what: str, last: int) -> None:
        warnings.warn(f"{self.path} is damaged or cut: {what}; frame {last} is the last", stacklevel=3)

    @staticmethod
    def _seconds(image: Any) -> float | None:
        found = image.info.get("duration")
        if not found and image.format == "GIF":
            return 0.1  # as browsers do where a GIF says nothing or 0
        return None if found is None else found / 1000

    def seconds(self) -> list[float | None]:
        """How long each frame is shown, without decoding pixels if the format allows it."""
        if self._deep:
            return [None] * self.count
        with opened(self.path) as image:
            found: list[float | None] = []
            for page in self._pages:
                try:
                    image.seek(page)
                    if image.format in ("WEBP", "AVIF"):  # whose decoder finds the time with the pixels
                        image.load()
                except Exception:  # a file that was cut; reading its frames says so
                    break
                found.append(self._seconds(image))
            return found


def _tiff_pages(image: Any) -> tuple[list[int], bool]:
    """Pages that are not small copies of others, and whether all could be found."""
    pages: list[int] = []
    page = -1
    while True:
        page += 1
        try:
            image.seek(page)
        except EOFError:
            return pages or [0], True
        except Exception:
            return pages or [0], False
        if not image.tag_v2.get(254, 0) & 1:
            pages.append(page)


def write(path: str | os.PathLike, picture: Any) -> Path:
    """Write a uint8 picture [H, W, 3] or [H, W] in the format of the extension; after an error, the old file is kept.

    Raises:
        ValueError: another kind of picture, or an extension that Pillow does not write.
        FileNotFoundError: the folder to write in does not exist.

    Example:
        >>> path = amstel.media.images.write("gray.png", np.full((2, 3), 128, np.uint8))
        >>> amstel.media.images.read(path)[0, 0]
        array([128, 128, 128], dtype=uint8)
    """
    array, path = image_array("picture", picture), Path(path)
    image = _pillow()
    if image.registered_extensions().get(path.suffix.lower()) not in image.SAVE:
        fail("path", "a file that ends in .png, .jpg or another format that Pillow writes", str(path))
    with _files.replacing(path) as temporary:
        image.fromarray(array).save(temporary)
    return path


def image_array(argument: str, image: Any) -> np.ndarray:
    """An image as a uint8 array [H, W, 3], RGB, which may share memory with the given image.

    Args:
        image: a PIL image, a file, or a uint8 array or tensor [H, W, 3], or [H, W] or [H, W, 1] if it is gray.

    Raises:
        TypeError: something else.
        ValueError: a wrong shape or dtype, no pixels, or a file that is not an image.
        FileNotFoundError: there is no such file.

    Example:
        >>> amstel.media.images.image_array("image", torch.zeros(4, 6, dtype=torch.uint8)).shape
        (4, 6, 3)
    """
    if isinstance(image, (str, os.PathLike)):
        if not Path(image).is_file():
            raise FileNotFoundError(
                f"`{argument}` must be an image, got {os.fspath(image)}, which is not a file"
            )
        return read(image)
    expected = "a PIL image or a uint8 array [H, W, 3] or [H, W] with at least one pixel"
    if hasattr(image, "convert") and hasattr(image, "mode") and hasattr(image, "getbands"):
        try:
            image = rgb(png_chunks.scale_transparency(image))
        except (ValueError, OSError) as error:
            raise ValueError(f"`{argument}` must be {expected}, got {error}") from None
    unmasked(argument, image)
    array = image.numpy(force=True) if isinstance(image, torch.Tensor) else np.asarray(image)
    if array.dtype == object or array.dtype.kind in "USV":
        raise TypeError(f"`{argument}` must be {expected}, got {describe(image)}")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3) or not array.size or array.dtype != np.uint8:
        got = f"{array.dtype} {list(array.shape)}"
        raise ValueError(f"`{argument}` must be {expected}, got {got}")
    return np.broadcast_to(array, (*array.shape[:2], 3))
