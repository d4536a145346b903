"""Frames one at a time: out of a video, a folder or any sequence of images, and into a video."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amstel import video
from amstel._check import describe


def image_array(argument: str, image: Any) -> np.ndarray:
    """An image as a uint8 array [H, W, 3], RGB.

    Args:
        image: a PIL image, a file, or a uint8 array or tensor [H, W, 3], or [H, W] or [H, W, 1] if it is grey.

    Raises:
        TypeError: something else.
        ValueError: another shape or dtype, no pixel, or a file that is no image.
        FileNotFoundError: there is no such file.
    """
    if isinstance(image, (str, os.PathLike)):
        if not Path(image).is_file():
            raise FileNotFoundError(
                f"`{argument}` must be an image, got {os.fspath(image)}, which is no file"
            )
        return video._read_image(Path(image))
    if hasattr(image, "convert") and hasattr(image, "mode"):
        image = image.convert("RGB")
    expected = "a PIL image or a uint8 array [H, W, 3] or [H, W] with at least one pixel"
    array = image.numpy(force=True) if isinstance(image, torch.Tensor) else np.asarray(image)
    if array.dtype == object or array.dtype.kind in "USV":
        raise TypeError(f"`{argument}` must be {expected}, got {describe(image)}")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3) or not array.size or array.dtype != np.uint8:
        got = f"{array.dtype} {list(array.shape)}"
        raise ValueError(f"`{argument}` must be {expected}, got {got}")
    return np.broadcast_to(array, (*array.shape[:2], 3))


class Frames:
    """The frames of a video one after the other, of which only one is in memory at a time (GIFs come whole).

    Args:
        source: a video or GIF, a folder of images in natural order (frame_2 before frame_10), or an iterable of
            what `image_array` takes.

    Attributes:
        count: how many there are, or None where only reading them tells.
        rate: frames a second, where the file says it.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: a folder without images; while reading, what cannot be read.

    Example:
        >>> for frame in amstel.tracking.frames.Frames("clip.mp4"):            # doctest: +SKIP
        ...     print(frame.shape)
    """

    count: int | None
    rate: float | None = None

    def __init__(self, source: Any):
        self._source = source
        if not isinstance(source, (str, os.PathLike)):
            # A class with __getitem__ alone iterates too.
            if not hasattr(source, "__iter__") and not hasattr(source, "__getitem__"):
                raise TypeError(
                    f"`frames` must be a file, a folder or an iterable of images, got {describe(source)}"
                )
            self.count = len(source) if hasattr(source, "__len__") else None
            return
        path = Path(source)
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; it should be a video or a folder of frames")
        if path.is_dir():
            self._source = sorted(
                (p for p in path.iterdir() if p.suffix.lower() in video.IMAGES and p.name[0] != "."),
                key=video.natural,
            )
            if not self._source:
                raise ValueError(f"{path} must hold at least one image, got none")
            self.count = len(self._source)
        elif path.suffix.lower() in (".gif", *video.IMAGES):
            self._source = video.read(path).numpy()
            self.count = len(self._source)
        else:
            with _opened(path) as container:
                stream = container.streams.video[0]
                self.count = stream.frames or None
                self.rate = float(stream.average_rate) if stream.average_rate else None

    def __iter__(self) -> Iterator[np.ndarray]:
        if isinstance(self._source, (str, os.PathLike)):
            yield from _decoded(Path(self._source))
            return
        for number, image in enumerate(self._source):
            yield image_array(f"frames[{number}]", image)


class _opened:
    """A video opened with PyAV, whose errors name the file."""

    def __init__(self, path: Path):
        self.path, self.av = path, video._module("av")

    def __enter__(self) -> Any:
        try:
            self.container = self.av.open(str(self.path))
        except self.av.error.FFmpegError as error:
            raise self._error(error) from None
        if not self.container.streams.video:
            self.container.close()
            raise ValueError(f"{self.path} must hold a video, got a file without a video stream")
        return self.container

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.container.close()
        if isinstance(error, self.av.error.FFmpegError):
            raise self._error(error) from None

    def _error(self, error: Any) -> Exception:
        return ValueError(f"{self.path} must be a video that can be read, got: {error.strerror}")


def _decoded(path: Path) -> Iterator[np.ndarray]:
    number = -1
    with _opened(path) as container:
        container.streams.video[0].thread_type = "AUTO"
        for number, frame in enumerate(container.decode(video=0)):  # noqa: B007
            yield frame.to_ndarray(format="rgb24")
    if number < 0:
        raise ValueError(f"{path} must hold at least one frame, got none")


class VideoWriter:
    """Writes an MP4 picture by picture, or a GIF, as `amstel.video.write` does with all of them at hand.

    Use it in a `with`, which finishes the file; after an error no file is left. A GIF is kept in memory until then.

    Args:
        path: file to write, ending in .mp4 or .gif.
        rate: frames a second.

    Raises:
        ValueError: another ending.
        ImportError: the extra [video] is missing.
    """

    def __init__(self, path: str | os.PathLike, rate: float = 12.0):
        self.path, self.rate = Path(path), rate
        if self.path.suffix.lower() not in (".gif", ".mp4"):
            raise ValueError(f"`path` must end in .gif or .mp4, got {describe(str(path))}")
        self._container: Any = None
        self._stream: Any = None
        self._kept: list[np.ndarray] | None = [] if self.path.suffix.lower() == ".gif" else None
        self._av: Any = video._module("av") if self._kept is None else None

    def __enter__(self) -> VideoWriter:
        if self._kept is None:
            self._container = self._av.open(str(self.path), "w")
        return self

    def write(self, picture: np.ndarray) -> None:
        """Add a picture, uint8 [H, W, 3]; for MP4 odd sides are made even by repeating the last row or column."""
        if self._kept is not None:
            # The time to find a palette of 256 colours grows with the number of colours that there are.
            self._kept.append(picture & 0xF8 | 4)
            return
        height, width = picture.shape[:2]
        if self._stream is None:
            codec = "libx264" if "libx264" in self._av.codecs_available else "mpeg4"
            stream = self._container.add_stream(codec, rate=Fraction(self.rate).limit_denominator(1000))
            stream.height, stream.width = height + height % 2, width + width % 2
            stream.pix_fmt = "yuv420p"
            stream.options = {"crf": "18"} if codec == "libx264" else {"qscale": "2"}
            self._stream = stream
        even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = self._av.VideoFrame.from_ndarray(even, format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._kept is not None:
            if error is None:
                video.write(self.path, torch.from_numpy(np.stack(self._kept)), self.rate)
            return
        if self._stream is not None and error is None:
            self._container.mux(self._stream.encode(None))
        self._container.close()
        if error is not None:
            self.path.unlink(missing_ok=True)
