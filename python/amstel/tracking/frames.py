"""Frames one at a time, for a tracker; the readers and the writer are in `amstel.media`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from amstel.media.images import image_array
from amstel.media.reading import Frames
from amstel.media.writing import VideoWriter

__all__ = ["Frames", "VideoWriter", "image_array", "of_one_size"]


def of_one_size(frames: Frames) -> Iterator[np.ndarray]:
    """The frames, until one has another size than the first: ValueError that names it."""
    shape: tuple[int, ...] | None = None
    for number, frame in enumerate(frames):
        shape = shape or frame.shape
        if frame.shape != shape:
            raise ValueError(
                f"{_name(frames._source, number)} must be {shape[1]}x{shape[0]} as the first frame, "
                f"got {frame.shape[1]}x{frame.shape[0]}"
            )
        yield frame


def _name(source: Any, number: int) -> str:
    if isinstance(source, Path):
        return f"frame {number + 1} of {source}"
    files = getattr(source, "frames", source)
    if isinstance(files, (list, tuple)) and isinstance(files[number], Path):
        return str(files[number])
    return f"`frames[{number}]`"
