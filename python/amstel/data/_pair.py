"""A pair of frames of one target, and shared code of the classes that make pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amstel._check import number
from amstel._optional import need
from amstel.media import _arguments


@dataclass(eq=False)
class FramePair:
    """Two frames of one target.

    Attributes:
        frames: uint8 [2, 3, S, S], RGB.
        boxes: float32 [2, 4], the target in each frame: x1, y1, x2, y2 in pixels, with x2 and y2 just past the last one.
        others: for each frame, float32 [M, 4]: boxes of objects that look like the target.

    Example:
        >>> pair = amstel.data.StillPairs(["photographs"]).sample(0, np.random.default_rng(0))
        >>> pair.frames.shape, pair.boxes.shape
        (torch.Size([2, 3, 208, 208]), torch.Size([2, 4]))
    """

    frames: Tensor
    boxes: Tensor
    others: tuple[Tensor, Tensor]


def cv2() -> Any:
    return need("cv2", extra="track", purpose="amstel.data.pairs")


def check_geometry(size: int, target: float) -> int:
    """The side of the crops, once it and the target's are in their range."""
    size = _arguments.integer("size", size, 16)
    expected = f"a number from 4 to half of `size` = {size}"
    number("target", target, expected, least=4, most=size / 2)
    return size


def frame_pair(
    frames: list[np.ndarray], boxes: list[np.ndarray], others: list[list[np.ndarray]]
) -> FramePair:
    """The pair of crops [S, S, 3], boxes [4] and lists of other boxes, as tensors."""

    def tensor(found: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.array(found, np.float32).reshape(-1, 4))

    pixels = torch.from_numpy(np.stack([np.ascontiguousarray(f.transpose(2, 0, 1)) for f in frames]))
    return FramePair(pixels, tensor(boxes), (tensor(others[0]), tensor(others[1])))
