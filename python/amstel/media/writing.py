"""Write a GIF, an MP4 or a strip, all frames at once or one by one. A failed write changes no file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from amstel import _files
from amstel._check import describe, fail, unmasked
from amstel._optional import need
from amstel.media import _arguments, gif
from amstel.media.decode import BT709, converter, location, matrix

_TICKS = 90000  # a second, the clock of MPEG


def write(path: str | os.PathLike, frames: Tensor, fps: float = 12, *, inputs: Iterable[Any] = ()) -> Path:
    """Write a video as a GIF, an MP4 or a strip, depending on the extension of `path`.

    `.gif` has one palette of 256 colors for all frames, and times in whole hundredths of a second, at least 2;
    `.mp4` is H.264 if FFmpeg has it and MPEG-4 otherwise, with odd sides made even by repeating the last row or column;
    `.png` is a lossless strip of square frames side by side, marked as a strip. `read` gives the same frames again, apart
    from coding losses. The file is written beside its place and renamed, so after an error the old one is still there.

    Args:
        path: file to write.
        frames: uint8 [T, H, W, 3].
        fps: frames per second.
        inputs: files and folders that `path` must not be or lie in.

    Raises:
        ValueError: an unknown extension, frames of another kind, `fps` is not positive, or `path` is an input.
        FileNotFoundError: the folder to write in does not exist.

    Example:
        >>> path = amstel.video.write("noise.gif", torch.randint(256, (8, 64, 64, 3)).byte())
    """
    path = _arguments.path("path", path)
    _arguments.frames(frames)
    fps = _arguments.number("fps", fps)
    ending = path.suffix.lower()
    if ending not in (".gif", ".mp4", ".png"):
        raise ValueError(f"`path` must end in .gif, .mp4 or .png, got {describe(str(path))}")
    array = frames.detach().cpu().numpy()
    if ending == ".png":
        _write_strip(path, frames, array, inputs)
        return path
    with VideoWriter(path, fps, inputs=inputs) as writer:
        for frame in array:
            writer.write(frame)
    return path


def _write_strip(path: Path, frames: Tensor, array: np.ndarray, inputs: Iterable[Any]) -> None:
    if array.shape[1] != array.shape[2]:
        fail("frames", "square for a strip", frames)
    image, png = (need(f"PIL.{name}", extra="video") for name in ("Image", "PngImagePlugin"))
    mark = png.PngInfo()
    mark.add_text("amstel", f"strip of {len(array)} frames")
    with _files.replacing(path, inputs) as temporary:
        image.fromarray(np.concatenate(list(array), axis=1)).save(temporary, pnginfo=mark)


class VideoWriter:
    """Write an MP4 or a GIF picture by picture, like `amstel.video.write`, which takes all of them at once.

    Use it in a `with` block, which finishes the file. Until then, and after an error, an existing file at `path` is
    unchanged. The first 512 MB of frames of a GIF are kept in memory, for its palette.

    Args:
        path: file to write, ending in .mp4 or .gif.
        rate: frames per second.
        inputs: files and folders that are being read; `path` must not be one of them, or lie in one.

    Raises:
        ValueError: an unknown extension; `rate` is not positive; `path` is an input; no picture was written; it is used
            outside a `with` block.
        OSError: `path` cannot be written, which is checked on entering.
        ImportError: the extra [video] is missing.

    Example:
        >>> with amstel.video.VideoWriter("ramp.gif", rate=10) as writer:
        ...     for level in range(0, 256, 51):
        ...         writer.write(np.full((16, 16, 3), level, np.uint8))
        >>> amstel.video.read("ramp.gif")[:, 0, 0, 0].tolist()
        [0, 51, 102, 153, 204, 255]
    """

    def __init__(self, path: str | os.PathLike, rate: float = 12.0, *, inputs: Iterable[Any] = ()):
        self.path, self.rate = _arguments.path("path", path), _arguments.number("rate", rate)
        self._inputs = tuple(inputs)
        if self.path.suffix.lower() not in (".gif", ".mp4"):
            raise ValueError(f"`path` must end in .gif or .mp4, got {describe(str(path))}")
        self._mp4 = self.path.suffix.lower() == ".mp4"
        # A package that is missing is found before the work begins.
        need("av" if self._mp4 else "PIL.Image", extra="video", purpose="amstel.video")
        self._add: Any = None
        self._shape: tuple[int, ...] | None = None
        self._times: list[float] = []

    def __enter__(self) -> VideoWriter:
        self._context = self._encoding() if self._mp4 else self._keeping()
        self._add = self._context.__enter__()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        try:
            return self._context.__exit__(*error)
        finally:
            self._add, self._shape, self._times = None, None, []

    def write(self, picture: np.ndarray, time: float | None = None) -> None:
        """Add a picture, uint8 [H, W, 3]; for MP4 odd sides are made even by repeating the last row or column.

        Args:
            time: when it is shown, in seconds from the first, such as `Frames.time`; None: 1 / rate after the last one.

        Raises:
            ValueError: the picture is not uint8 or has another size than the first, or its time is not after the last.
        """
        if self._add is None:
            raise ValueError("a VideoWriter writes only inside its `with VideoWriter(...) as writer:`")
        picture = np.asarray(unmasked("picture", picture))
        good = picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8 and picture.size
        if not good or picture.shape != (self._shape or picture.shape):
            expected = f"uint8 {list(self._shape)} as the first" if self._shape else "uint8 [H, W, 3]"
            raise ValueError(f"`picture` must be {expected}, got {picture.dtype} {list(picture.shape)}")
        self._shape = picture.shape
        if time is None:
            time = self._times[-1] + 1 / self.rate if self._times else 0.0
            # From the number, not by adding up, where all go by the rate.
            time = len(self._times) / self.rate if abs(time - len(self._times) / self.rate) < 1e-6 else time
        elif self._times and not time > self._times[-1]:
            fail("time", f"later than the last one, {self._times[-1]}", time)
        self._times.append(time)
        self._add(picture)

    def _ends(self) -> list[float]:
        if not self._times:
            raise ValueError(f"{self.path} must get at least one picture, got none")
        return [*self._times, self._times[-1] + 1 / self.rate]

    @contextmanager
    def _keeping(self) -> Iterator[Any]:
        with _files.replacing(self.path, self._inputs) as temporary, gif.Writer(temporary) as writer:
            yield lambda picture: writer.add(picture, self._times[-1])
            writer.finish(self._ends()[-1])

    @contextmanager
    def _encoding(self) -> Iterator[Any]:
        av = need("av", extra="video", purpose="amstel.video")
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        with _files.replacing(self.path, self._inputs) as temporary:
            with av.open(location(temporary), "w", format="mp4") as container:
                stream: Any = None
                convert, last = converter(), -1

                def add(picture: np.ndarray) -> None:
                    nonlocal stream, last
                    height, width = picture.shape[:2]
                    even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
                    if stream is None:
                        stream = container.add_stream(codec, rate=Fraction(self.rate).limit_denominator(1001))
                        stream.height, stream.width = even.shape[:2]
                        stream.pix_fmt = "yuv420p"
                        fast = {
                            "crf": "18",
                            "preset": "veryfast",
                        }  # of equal size and quality here, in half the time
                        stream.options = fast if codec == "libx264" else {"qscale": "2"}
                        stream.codec_context.time_base = Fraction(1, _TICKS)
                        stream.codec_context.colorspace = matrix(*even.shape[:2])
                    frame = av.VideoFrame.from_ndarray(even, format="rgb24")
                    if matrix(*even.shape[:2]) == BT709:  # FFmpeg's own conversion is that of BT.601
                        frame = convert.reformat(frame, format="yuv420p", dst_colorspace=BT709)
                        frame.colorspace = BT709
                    last = frame.pts = max(last + 1, round(self._times[-1] * _TICKS))
                    frame.time_base = Fraction(1, _TICKS)
                    container.mux(stream.encode(frame))

                yield add
                self._ends()
                container.mux(stream.encode(None))
