"""The inputs of a tracker: frames, first boxes, threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amstel._check import describe, holds_none, unmasked
from amstel.media.images import image_array


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """torch on this many CPU threads within the block; None leaves the number as it is."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(int(count))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def copied(argument: str, image: Any) -> np.ndarray:
    """A frame of one's own: a loop that captures into one buffer would otherwise change the last frame of SINT+."""
    return np.array(image_array(argument, image))


def shifted(argument: str, box: Any, by: Any) -> Any:
    """A box x, y, w, h moved by `by` [4]; what is no box as it is, for the tracker to judge."""
    unmasked(argument, box)
    try:
        values = np.asarray(box, dtype=np.float64)
    except (TypeError, ValueError):
        return box
    return values + by if values.shape == (4,) and np.isfinite(values).all() else box


def target(box: Any, frame: np.ndarray, argument: str = "box") -> Tensor:
    """The first box as a float64 tensor [4], checked against its frame."""
    expected = "four finite numbers x, y, w, h"
    unmasked(argument, box)
    try:
        if isinstance(box, Tensor):
            box = box.detach().double().cpu().numpy()
        values = torch.as_tensor(np.asarray(box, dtype=np.float64).copy())
    except (TypeError, ValueError):
        raise ValueError(f"`{argument}` must be {expected}, got {describe(box)}") from None
    if values.shape != (4,) or not values.isfinite().all():
        exact = hasattr(box, "tolist") and not holds_none(box)
        got = values.tolist() if exact else describe(box)
        raise ValueError(f"`{argument}` must be {expected}, got {got}")
    height, width = frame.shape[:2]
    size = torch.tensor([width, height])
    if not (values[2:] > 0).all():
        raise ValueError(f"`{argument}` must have a positive width and height, got {values.tolist()}")
    if (values[:2] >= size).any() or (values[:2] + values[2:] <= 0).any():
        raise ValueError(
            f"`{argument}` must lie in the frame of {width}x{height} pixels, got {values.tolist()}"
        )
    if (values[2:] > 2 * size).any():
        raise ValueError(
            f"`{argument}` must be at most twice as large as the frame of {width}x{height} pixels, got {values.tolist()}"
        )
    return values
