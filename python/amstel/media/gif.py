"""GIFs that keep every frame: Pillow's own writer joins equal ones, after which their number is lost."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from amstel._optional import need

#: Pixels that a palette is found from, about.
SAMPLE = 2**18


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
        found.append(max(2, round(100 * (time - times[0])) - now))
        now += found[-1]
    return found


def write(path: Path, array: Sequence[np.ndarray], hundredths: Sequence[int]) -> None:
    """Write frames, uint8 [H, W, 3] each, with one palette of 256 colors and the time that each is shown."""
    image, plugin = (need(f"PIL.{name}", extra="video") for name in ("Image", "GifImagePlugin"))
    palette = _palette(array)
    colors = bytes(palette.getpalette())[:768].ljust(768, b"\0")
    height, width = array[0].shape[:2]
    if max(height, width) > 65535:
        raise ValueError(
            f"`frames` must be at most 65535 pixels wide and high for a GIF, got {width}x{height}"
        )
    before = None
    with open(path, "wb") as file:
        file.write(b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF7, 0, 0) + colors)
        file.write(b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0")  # again and again
        for frame, time in zip(array, hundredths, strict=True):
            index = np.asarray(image.fromarray(frame).quantize(palette=palette, dither=0))
            # Only the rectangle that changes; of an equal frame one pixel, which counts as a frame.
            y, x = (slice(0, 1), slice(0, 1)) if before is not None else (slice(None), slice(None))
            if before is not None and (changed := index != before).any():
                rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
                y, x = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            part = image.fromarray(np.ascontiguousarray(index[y, x]))
            part.putpalette(colors)
            corner = (int(x.start or 0), int(y.start or 0))
            # A longer time than the format can hold is cut.
            shown = 10 * min(time, 65535)
            for data in plugin.getdata(part, corner, duration=shown, disposal=1):
                file.write(data)
            before = index
        file.write(b";")
