"""Write GIFs that keep every frame: Pillow's own writer merges equal frames, which changes their number."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from amstel._optional import need

#: Pixels that a palette is found from, about: four times as many take ten times as long for a tenth of a dB.
SAMPLE = 2**16
#: Bytes of frames that are kept for the palette.
KEPT = 2**29


def _palette(array: Sequence[np.ndarray]) -> Any:
    """One palette, from a spread of frames: a palette per frame makes still parts flicker."""
    image = need("PIL.Image", extra="video", purpose="amstel.media.gif")
    sample = [array[k] for k in np.unique(np.linspace(0, len(array) - 1, 16).round().astype(int))]
    # Of large pictures a grid of pixels: with all of them the palette takes longer than everything else.
    step = max(1, math.ceil(math.sqrt(sum(frame[..., 0].size for frame in sample) / SAMPLE)))
    sample = [frame[k % step :: step, k // step % step :: step] for k, frame in enumerate(sample)]
    height, width = (min(frame.shape[k] for frame in sample) for k in (0, 1))
    sample = [frame[:height, :width] for frame in sample]
    return image.fromarray(np.concatenate(sample, axis=1)).quantize(256, image.Quantize.MAXCOVERAGE, kmeans=3)


def delays(times: Sequence[float]) -> list[int]:
    """Hundredths of a second for frames that begin at `times`, the last of which is the end.

    Rounded so that the error does not grow with time; at least 2, as players take less for a mistake.
    """
    found, now = [], 0
    for time in times[1:]:
        found.append(_shown(time - times[0], now))
        now += found[-1]
    return found


def _shown(end: float, now: int) -> int:
    return max(2, round(100 * end) - now)


class Writer:
    """Writes frames, uint8 [H, W, 3] each, with one palette of 256 colors; use it in a `with`.

    The palette is found from a spread of all frames or, so that memory does not grow with their number, of the first
    `kept` bytes of them.
    """

    def __init__(self, path: Path, kept: int = KEPT):
        self._path, self._room = path, kept
        self._image, self._plugin = (
            need(f"PIL.{name}", extra="video") for name in ("Image", "GifImagePlugin")
        )
        self._waiting: list[tuple[np.ndarray, float]] = []
        self._file: Any = None
        self._before: np.ndarray | None = None
        self._first, self._now = 0.0, 0

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, frame: np.ndarray, time: float) -> None:
        """A frame and when it begins, in seconds."""
        self._waiting.append((frame.copy(), time))
        self._room -= frame.nbytes
        if self._room < 0:
            self._write(self._waiting[:-1], time)
            del self._waiting[:-1]

    def finish(self, end: float) -> None:
        """The last frame ends then."""
        self._write(self._waiting, end)
        self._file.write(b";")

    def _write(self, frames: list[tuple[np.ndarray, float]], end: float) -> None:
        if not frames:
            return
        if self._file is None:
            self._begin([frame for frame, _ in frames])
            self._first = frames[0][1]
        for (frame, _), time in zip(frames, [*(time for _, time in frames[1:]), end], strict=True):
            shown = _shown(time - self._first, self._now)
            self._now += shown
            self._put(frame, shown)

    def _begin(self, frames: list[np.ndarray]) -> None:
        height, width = frames[0].shape[:2]
        if max(height, width) > 65535:
            raise ValueError(
                f"`frames` must be at most 65535 pixels wide and high for a GIF, got {width}x{height}"
            )
        self._palette = _palette(frames)
        self._colors = bytes(self._palette.getpalette())[:768].ljust(768, b"\0")
        self._file = open(self._path, "wb")
        self._file.write(b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF7, 0, 0) + self._colors)
        self._file.write(b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0")  # again and again

    def _put(self, frame: np.ndarray, hundredths: int) -> None:
        before = self._before
        index = np.asarray(self._image.fromarray(frame).quantize(palette=self._palette, dither=0))
        # Only the rectangle that changes; of an equal frame one pixel, which counts as a frame.
        y, x = (slice(0, 1), slice(0, 1)) if before is not None else (slice(None), slice(None))
        if before is not None and (changed := index != before).any():
            rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
            y, x = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        part = self._image.fromarray(np.ascontiguousarray(index[y, x]))
        part.putpalette(self._colors)
        corner = (int(x.start or 0), int(y.start or 0))
        # A longer time than the format can hold is cut.
        shown = 10 * min(hundredths, 65535)
        for data in self._plugin.getdata(part, corner, duration=shown, disposal=1):
            self._file.write(data)
        self._before = index
