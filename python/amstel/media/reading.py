"""Read frames from a video file, an animation, a folder, a strip or a sequence of images."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from amstel import _check, _files
from amstel._check import describe
from amstel.media import _arguments
from amstel.media.decode import Video
from amstel.media.formats import ANIMATIONS, IMAGES, frames_of, visible
from amstel.media.images import Animation, image_array
from amstel.media.strips import STRIP_HEIGHT, is_strip


class Frames:
    """The frames of a video, one by one, with only one in memory at a time.

    Args:
        source: a video file; a GIF, WebP, APNG or multi-page TIFF; a folder of images in natural order (frame_2 before
            frame_10); an image, which is one frame; or an iterable of what `image_array` takes.
        strip: whether an image is a strip of square frames side by side; None: only if `write` has marked it as one.

    Attributes:
        count: number of frames, if known before they are read, else None.
        rate: mean number of frames per second, if the file says it, else None.
        time: time of the last frame in seconds from the beginning, if the file says it, else None.

    Every frame comes once, however long it is shown, and upright, as in a player. A video that is damaged or truncated
    gives the frames that can be read, with a warning that names the last one.

    Raises:
        TypeError: `source` is none of these.
        FileNotFoundError: the file or folder does not exist.
        ValueError: a folder has no images, or two for the same frame; while reading, a frame cannot be read.

    Example:
        >>> frames = amstel.video.Frames("clip.mp4")
        >>> frames.count, frames.rate
        (8, 12.0)
        >>> for frame in frames:
        ...     last = frame.shape, round(frames.time, 3)
        >>> last  # of the eighth
        ((72, 96, 3), 0.583)
    """

    count: int | None = None
    rate: float | None = None
    time: float | None = None

    def __init__(self, source: Any, *, strip: bool | None = None):
        self._animation: Animation | None = None
        self._strip = False
        self._source = source
        if not isinstance(source, (str, os.PathLike)):
            # A class with __getitem__ alone iterates too.
            if not hasattr(source, "__iter__") and not hasattr(source, "__getitem__"):
                raise TypeError(
                    f"`frames` must be a file, a folder or an iterable of images, got {describe(source)}"
                )
            self.count = len(source) if hasattr(source, "__len__") else None
            return
        path = self._source = self._path = Path(source)
        if not path.exists():
            raise FileNotFoundError(
                f"{_files.absent(path)}; it should be a video, a folder of frames or an image"
            )
        if path.is_dir():
            self._source = frames_of(path)
            if not self._source:
                raise ValueError(f"{path} must hold at least one image, got none")
            if is_strip(self._source[0]):
                raise ValueError(
                    f"{path} must hold frames, but {self._source[0].name} is a strip of frames, a video by itself"
                )
            self.count = len(self._source)
        elif path.suffix.lower() in (*IMAGES, *ANIMATIONS):
            self._animation = Animation(path)
            self.count = self._animation.count
            self._strip = self.count == 1 and (strip or (strip is None and self._animation.mark is not None))
            if self._strip:
                self._source = _split(path, next(iter(self._animation))[0])
                self.count = len(self._source)
            elif self.count > 1:
                shown = [s for s in self._animation.seconds() if s]
                self.rate = len(shown) / sum(shown) if shown else None
        else:
            with Video(path) as video:
                self.count, self.rate = video.count, video.rate

    def __iter__(self) -> Iterator[np.ndarray]:
        if isinstance(self._source, Path):
            with_times = self._animated() if self._animation else self._decoded()
            for frame, time in with_times:
                self.time = time
                yield frame
            return
        for number, image in enumerate(self._source):
            yield image_array(f"frames[{number}]", image)

    def _animated(self) -> Iterator[tuple[np.ndarray, float | None]]:
        assert self._animation is not None
        now: float | None = 0.0
        for frame, seconds in self._animation:
            yield frame, now
            now = None if now is None or seconds is None else now + seconds

    def _decoded(self) -> Iterator[tuple[np.ndarray, float | None]]:
        with Video(self._source) as video:
            begin = last = None
            for frame, time in video:
                if time is not None:
                    begin = time if begin is None else begin
                    time -= begin
                    # A clock that stands still or goes back is a fault of the file, and no reason to end a run.
                    time = last = time if last is None or time > last else last + 0.001
                yield frame, time


def _split(path: Path, picture: np.ndarray) -> list[np.ndarray]:
    height, width = picture.shape[:2]
    if width % height:
        raise ValueError(
            f"{path} must be a strip of square frames side by side, with a width that is a multiple of its height, "
            f"got {width}x{height} (strip=False reads it as one frame)"
        )
    return np.split(picture, width // height, axis=1)


def _looks_like_a_strip(frames: Frames) -> bool:
    """A small picture, much wider than high, of one frame."""
    if frames._animation is None or frames._strip or frames.count != 1:
        return False
    picture = next(iter(frames))
    return picture.shape[0] <= STRIP_HEIGHT and picture.shape[1] >= 2 * picture.shape[0]


def read(path: str | os.PathLike, *, strip: bool | None = None, fps: float | None = None) -> Tensor:
    """Read all frames of a video: uint8 [T, H, W, 3], RGB, upright, as in a player.

    Args:
        path: a video file (anything FFmpeg reads, through PyAV); a GIF, WebP, APNG or multi-page TIFF; a folder of images
            of one size in natural order (frame_2 before frame_10); or one image.
        strip: whether an image is a strip of square frames side by side. None: if `write` has marked it as one, or if it
            has at most 128 rows and at least twice as many columns; other images are one frame.
        fps: frames per second to sample, based on the times of the frames: a frame that is shown for long is repeated, and
            frames in between are skipped. None: every frame once.

    Raises:
        FileNotFoundError: the file or folder does not exist.
        ValueError: it cannot be read, has no frame, or has frames of several sizes; the width of a strip is not a multiple
            of its height; `fps` is given, but frames have no times. The message names the file.
        ImportError: the extra [video] is missing.

    Warns:
        UserWarning: the file is damaged or truncated; the frames before that are returned.

    Example:
        >>> amstel.video.read("clip.mp4").shape
        torch.Size([8, 72, 96, 3])
        >>> amstel.video.read("clip.mp4", fps=3).shape  # at 0, 1/3 s: every fourth frame
        torch.Size([2, 72, 96, 3])
    """
    strip = None if strip is None else _check.flag("strip", strip)
    frames = _of(_arguments.path("path", path), strip)
    if fps is None:
        return _together(frames, list(frames))
    return _together(frames, list(_resampled(frames._path, frames, _arguments.number("fps", fps))))


def read_with_times(path: str | os.PathLike) -> tuple[Tensor, list[float] | None]:
    """All frames, as from `read`, and the time of each in seconds from the first, or None if the file has no times.

    Example:
        >>> frames, times = amstel.media.reading.read_with_times("clip.mp4")
        >>> len(frames), [round(time, 3) for time in times[:3]]
        (8, [0.0, 0.083, 0.167])
    """
    frames = _of(_arguments.path("path", path), None)
    found, times = [], []
    for frame in frames:
        found.append(frame)
        times.append(frames.time)
    return _together(frames, found), _known(times)


def read_small(path: str | os.PathLike, side: int) -> tuple[Tensor, list[float] | None, tuple[int, int]]:
    """Like `read_with_times`, but each frame is resized to a square of `side` pixels as it is read, so that long videos
    take little memory; also returns the original (height, width) of the frames.

    Example:
        >>> frames, times, size = amstel.media.reading.read_small("clip.mp4", 32)
        >>> frames.shape, size
        (torch.Size([8, 32, 32, 3]), (72, 96))
    """
    side = _arguments.integer("side", side)
    frames = _of(_arguments.path("path", path), None)
    found: list[np.ndarray] = []
    times: list[float | None] = []
    size = (0, 0)
    for frame in frames:
        if not found:
            size = frame.shape[:2]
        elif frame.shape[:2] != size:
            _unlike(frames, len(found), frame, size)
        times.append(frames.time)
        found.append(_resized(frame, side))
    return torch.from_numpy(np.stack(found)), _known(times), size


def again(path: str | os.PathLike) -> Iterator[np.ndarray]:
    """The frames of `read_with_times` one by one, without repeating the warnings of an earlier reading.

    Example:
        >>> sum(frame.shape == (72, 96, 3) for frame in amstel.media.reading.again("clip.mp4"))
        8
    """
    frames: Iterator[np.ndarray] | None = None
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frames = iter(_of(_arguments.path("path", path), None)) if frames is None else frames
            frame = next(frames, None)
        if frame is None:
            return
        yield frame.copy() if not frame.flags.writeable else frame


def _resized(frame: np.ndarray, side: int) -> np.ndarray:
    if frame.shape[:2] == (side, side):
        return frame
    pixels = torch.from_numpy(frame.copy()).permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
    return small[0].permute(1, 2, 0).contiguous().numpy()


def _known(times: list[float | None]) -> list[float] | None:
    known = [time for time in times if time is not None]
    return known if len(known) == len(times) > 1 else None


def _of(path: Path, strip: bool | None) -> Frames:
    if path.is_dir() and not visible(path, IMAGES):
        raise ValueError(f"{path} must hold at least one frame, got none")
    frames = Frames(path, strip=strip)
    return Frames(path, strip=True) if strip is None and _looks_like_a_strip(frames) else frames


def _together(frames: Frames, found: list[np.ndarray]) -> Tensor:
    for number, frame in enumerate(found):
        if frame.shape != found[0].shape:
            _unlike(frames, number, frame, found[0].shape)
    return torch.from_numpy(np.stack(found))


def _unlike(frames: Frames, number: int, frame: np.ndarray, first: Sequence[int]) -> NoReturn:
    folder = frames._path.is_dir()
    name = frames._source[number] if folder else f"{frames._path}: frame {number + 1}"
    raise ValueError(
        f"{name} must be {first[1]}x{first[0]} as the first frame{' of its folder' * folder}, "
        f"got {frame.shape[1]}x{frame.shape[0]}"
    )


def _resampled(path: Path, frames: Frames, fps: float) -> Iterator[np.ndarray]:
    """At k / fps the last frame that has begun by then, to the end of the last one."""
    given, before = 0, None
    for frame in frames:
        if frames.time is None:
            raise ValueError(f"`fps` must be None for {path}, which does not say when its frames are shown")
        # A part in a million of a frame of room, so that times that are rounded do not skip one.
        while before is not None and given / fps < frames.time - 1e-6 / fps:
            yield before
            given += 1
        before = frame
    over = end(frames)
    while before is not None and (given == 0 or given / fps < over - 1e-6 / fps):
        yield before
        given += 1


def end(frames: Frames) -> float:
    """When the last frame ends, in seconds from the first, after all have been read.

    Raises:
        ValueError: no frame has been read, or the file does not say when they are shown.

    Example:
        >>> frames = amstel.video.Frames("clip.mp4")
        >>> count = len(list(frames))
        >>> round(amstel.media.reading.end(frames), 3), round(count / frames.rate, 3)
        (0.667, 0.667)
    """
    if frames.time is None:
        raise ValueError("`frames` must have been read, and have times, got no time of a last frame")
    if frames._animation is not None:
        return frames.time + ((frames._animation.seconds() or [None])[-1] or 0.0)
    return frames.time + (1 / frames.rate if frames.rate else 0.0)


def segments(num_frames: int, length: int, count: int = 25) -> Tensor:
    """Frame numbers of `count` equally spaced segments of `length` consecutive frames: int64 [count, length].

    The first segment begins with the video and the last ends with it. A video of fewer than `length` frames
    repeats its last frame, and all its segments are equal.

    Raises:
        ValueError: an argument is not a positive integer.

    Source: Z. Li et al., VideoLSTM, arXiv 1607.01794, section 4: 25 segments per test video, with averaged scores.

    Example:
        >>> amstel.video.segments(10, 4, count=3)
        tensor([[0, 1, 2, 3],
                [3, 4, 5, 6],
                [6, 7, 8, 9]])
    """
    num_frames, length, count = (
        _arguments.integer(argument, value)
        for argument, value in (("num_frames", num_frames), ("length", length), ("count", count))
    )
    start = torch.linspace(0, max(0, num_frames - length), count, dtype=torch.float64).round().long()
    return (start[:, None] + torch.arange(length)).clamp(max=num_frames - 1)
