"""GOT-10k's own measures: average overlap and success rates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from amstel import _check
from amstel._check import fail
from amstel._words import counted
from amstel.media.boxes import iou_xywh
from amstel.tracking.evaluation import check_boxes


@dataclass(frozen=True, repr=False, eq=False)
class AverageOverlap:
    """AO and SR over frames.

    Attributes:
        iou: [F], the overlap in all frames that count, of all sequences.
        ao: their mean.
        sr50, sr75: share of them above 0.5 and 0.75.

    Example:
        >>> scores = amstel.tracking.AverageOverlap(torch.tensor([1.0, 0.6, 0.2, 0.8]))
        >>> scores.sr50, scores.sr75
        (0.75, 0.5)
        >>> scores
        AverageOverlap(ao=0.650, sr50=0.750, sr75=0.500, 4 frames)
    """

    iou: Tensor

    @property
    def ao(self) -> float:
        """Mean overlap."""
        return self.iou.mean().item()

    @property
    def sr50(self) -> float:
        """Part of the frames with an overlap above 0.5."""
        return (self.iou > 0.5).double().mean().item()

    @property
    def sr75(self) -> float:
        """Part of the frames with an overlap above 0.75."""
        return (self.iou > 0.75).double().mean().item()

    def __repr__(self) -> str:
        return f"AverageOverlap(ao={self.ao:.3f}, sr50={self.sr50:.3f}, sr75={self.sr75:.3f}, {counted(len(self.iou), 'frame')})"


def average_overlap(
    boxes: Iterable[Any], ground_truth: Iterable[Any], sizes: Iterable[tuple[int, int]]
) -> AverageOverlap:
    """AO and SR of a tracker over sequences, over all frames together, as in GOT-10k's toolkit.

    Both boxes are clipped to the picture before they are compared, as in the toolkit. In its coordinates, which start at
    1, corners are clamped to at least 0, and the width shrinks only if the box leaves the picture at the right, so a box
    that leaves it at the left keeps its width. The first frame, whose box is given, and frames without ground truth do
    not count; a frame in which the tracker gave no box counts as 0. O(F).

    Args:
        boxes: for each sequence, the tracker's boxes [T, 4], x, y, w, h, 0-based.
        ground_truth: for each sequence, the true boxes [T, 4], NaN where the target is not visible (the toolkit's `cover`
            is 0).
        sizes: (width, height) of each sequence's frames.

    Raises:
        ValueError: a wrong shape, lists of different lengths, or no frame that counts.

    Source: L. Huang, X. Zhao, K. Huang, GOT-10k, TPAMI 2019, section 4; its toolkit.

    Example:
        >>> truth = torch.tensor([[10.0, 10, 20, 20]] * 3)
        >>> boxes = truth + torch.tensor([[0.0], [0], [5]]) * torch.tensor([1.0, 0, 0, 0])
        >>> amstel.tracking.average_overlap([boxes], [truth], [(64, 48)])
        AverageOverlap(ao=0.800, sr50=1.000, sr75=0.500, 2 frames)
    """
    boxes, ground_truth, sizes = list(boxes), list(ground_truth), list(sizes)
    if not len(boxes) == len(ground_truth) == len(sizes):
        raise ValueError(
            "`boxes`, `ground_truth` and `sizes` must be of the same sequences, "
            f"got {len(boxes)}, {len(ground_truth)} and {len(sizes)}"
        )
    found = []
    for number, (given, truth, size) in enumerate(zip(boxes, ground_truth, sizes, strict=True)):
        own = check_boxes(f"boxes[{number}]", given)
        true = check_boxes(f"ground_truth[{number}]", truth)
        if len(own) != len(true):
            fail(f"boxes[{number}]", f"[{len(true)}, 4], as many as the ground truth", own)
        known = (true[1:, 2:] > 0).all(1) & ~true[1:].isnan().any(1)
        size = picture_size(f"sizes[{number}]", size)
        iou = iou_xywh(_bounded(own[1:], size), _bounded(true[1:], size))
        found.append(iou.nan_to_num(0)[known])
    iou = torch.cat(found) if found else torch.empty(0)
    if not len(iou):
        raise ValueError("`ground_truth` must hold a box after a first frame to compare with, got none")
    return AverageOverlap(iou)


def picture_size(argument: str, value: Any) -> tuple[int, int]:
    """(width, height); one number would stand for both, silently."""
    expected = "(width, height), two integers >= 1"
    try:
        width, height = (side.item() if isinstance(side, Tensor) else side for side in value)
    except (TypeError, ValueError, RuntimeError):
        fail(argument, expected, value)
    sides = [_check.number(argument, side, expected, least=1) for side in (width, height)]
    # Beside boxes of floats, sizes are often floats as well.
    if any(side % 1 for side in sides):
        fail(argument, expected, value)
    return int(sides[0]), int(sides[1])


def _bounded(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """0-based boxes [T, 4] as the toolkit bounds them, 1-based."""
    edge = torch.tensor(size, dtype=boxes.dtype)
    low = (boxes[:, :2] + 1).clamp(min=0).minimum(edge)
    return torch.cat([low, boxes[:, 2:].clamp(min=0).minimum(edge - low)], 1)


def clipped(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes [T, 4] cut to a picture of (width, height)."""
    edge = torch.tensor(size, dtype=boxes.dtype)
    low = boxes[:, :2].clamp(min=0).minimum(edge)
    high = (boxes[:, :2] + boxes[:, 2:]).clamp(min=0).minimum(edge)
    return torch.cat([low, high - low], 1)
