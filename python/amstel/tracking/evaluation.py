"""Score a track as the toolkits of the field do.

The three protocols agree on the success rate, the share of the frames whose overlap with the ground truth (IoU
= intersection / union, of areas w h; the -1 and +1 in the toolkits' code cancel) is greater than 0, 0.05,
..., 1, and on precision, the share whose centers (x + (w - 1) / 2, y + (h - 1) / 2) are at most 0, 1, ..., 50
pixels apart. So a perfect track has success 1 at all thresholds but the last, where it is 0, and AUC 20/21.
All divide by the number of all frames. This includes the first, in which the tracker is given the ground truth
and which counts as such. They disagree in the following:

- "otb" (tracker_benchmark by Wu, Lim and Yang). The ground truth of a frame is missing if x, y, w or h,
  counted from 1, is NaN or <= 0, which includes boxes that leave the picture at the left or top. Such a frame
  has no success at any threshold, but **counts as precise at every one**. If the tracker's box is NaN or has
  no positive width and height, the box of the previous frame is used, unless the true box has a NaN: then the
  tracker's box is kept, also for the next frame (in the toolkit's MATLAB code, not in its Python code).
- "got10k" (ExperimentOTB of the GOT-10k toolkit). The ground truth is missing if it is NaN or has no positive
  width and height. Such a frame has no success; its precision still depends on the distance, and NaN is never
  near. A tracker's box of that kind is treated in the same way.
- "pysot" (OPEBenchmark of pysot). As "got10k", but a frame counts as precise at every threshold if its true
  center is NaN or, counted from 1, <= 0 in x or y.

Boxes here are 0-based, and the comparisons with 0 are shifted accordingly. pysot scores the first box as
written, which for its trackers is the ground truth. Normalized precision (distance in units of the true
width and height) comes from pysot and is given for all three protocols, with the rule of "pysot" for frames
that count as precise; a frame whose true box has no size is never near.
GOT-10k's own measures, AO and SR, are not those of "got10k"; use `average_overlap` for these.

Checked against published numbers: the boxes of Struck, and the curves that tracker_benchmark's authors
computed from them. On their 50 sequences TB-50, "otb" gives all 21 + 51 points of the curves to 4e-16 (AUC
0.38395, precision 0.54123). "got10k" and "pysot" give the same success, but precision is up to 1.0e-3 lower
(0.54019), because of the eight frames of Biker and Crowds that have no ground truth by the rule of "otb". On
CVPR13, 50 of 51 sequences are exact in the same way. Tiger1 is not (AUC of all 0.4737 instead of 0.4721), because
its boxes from frame 6 on were compared there with ground truth from frame 1 on. On TB-100, 97 are exact; the
others are Tiger1 and two whose last box is missing in our copy of the ground truth (0.4625 instead of 0.4617).

Source: Y. Wu, J. Lim, M.-H. Yang, Object Tracking Benchmark, TPAMI 2015; M. Müller et al., TrackingNet, ECCV
2018 (normalized precision); the toolkits named above.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amstel import _check
from amstel._check import fail
from amstel._words import counted
from amstel.media.boxes import iou_xywh as overlap

PROTOCOLS = ("otb", "got10k", "pysot")
SUCCESS_THRESHOLDS = torch.arange(21, dtype=torch.float64) / 20
PRECISION_THRESHOLDS = torch.arange(51, dtype=torch.float64)
NORMALIZED_THRESHOLDS = torch.arange(51, dtype=torch.float64) / 100


class Curves:
    """The scores that are read off the curves."""

    success: Tensor
    precision_curve: Tensor
    normalized_precision_curve: Tensor

    @property
    def thresholds(self) -> Tensor:
        """The overlaps [21] at which success is measured; precision has pixels 0 to 50."""
        return SUCCESS_THRESHOLDS.clone()

    @property
    def auc(self) -> float:
        """Mean of success over its thresholds."""
        return self.success.mean().item()

    @property
    def precision(self) -> float:
        """Precision at 20 pixels."""
        return self.precision_curve[20].item()

    @property
    def normalized_precision(self) -> float:
        """Precision at a fifth of the target's size."""
        return self.normalized_precision_curve[20].item()

    @property
    def normalized_auc(self) -> float:
        """Mean of normalized precision over 0 to half of the target's size, LaSOT's and TrackingNet's measure."""
        return self.normalized_precision_curve.mean().item()


@dataclass(frozen=True, repr=False, eq=False)
class Evaluation(Curves):
    """Scores of a track.

    Attributes:
        protocol: "otb", "got10k" or "pysot".
        success: [21], share of the frames with an overlap above 0, 0.05, ..., 1.
        precision_curve: [51], share with a center distance of at most 0, 1, ..., 50 pixels.
        normalized_precision_curve: [51], the same for 0, 0.01, ..., 0.5 of the target's size.
        iou: [T], overlap; NaN where the ground truth is missing, 0 where the tracker gave no box.
        error: [T], distance of centers in pixels; NaN where the ground truth is missing, infinite where the
            tracker gave no box.
        auc, precision, normalized_precision: mean of success; precision at 20 pixels and at 0.2.
        mean_iou: mean overlap of the frames with ground truth.
        frames, missing: T, and how many of them have no ground truth.

    Example:
        >>> truth = torch.tensor([[10.0, 10, 20, 20], [12, 10, 20, 20], [torch.nan] * 4])
        >>> boxes = torch.tensor([[10.0, 10, 20, 20], [17, 10, 20, 20], [18, 10, 20, 20]])
        >>> scores = amstel.tracking.evaluate(boxes, truth, skip_missing=True)
        >>> scores, scores.error.tolist(), scores.mean_iou
        (Evaluation(otb, 2 frames, auc=0.762, precision=1.000), [0.0, 5.0], 0.8)
    """

    protocol: str
    success: Tensor
    precision_curve: Tensor
    normalized_precision_curve: Tensor
    iou: Tensor
    error: Tensor

    @property
    def mean_iou(self) -> float:
        """Mean overlap over the frames with ground truth."""
        return self.iou.nanmean().item()

    @property
    def frames(self) -> int:
        """Frames of the sequence."""
        return len(self.iou)

    @property
    def missing(self) -> int:
        """Frames without ground truth."""
        return int(self.iou.isnan().sum())

    def __repr__(self) -> str:
        scores = f"auc={self.auc:.3f}, precision={self.precision:.3f}"
        return f"Evaluation({self.protocol}, {counted(self.frames, 'frame')}, {scores})"


def check_boxes(argument: str, value: Any) -> Tensor:
    """Boxes [T, 4] as float64: a tensor, an array, or a sequence of either or of numbers."""
    expected = "boxes [T, 4] with T >= 1"
    _check.unmasked(argument, value)
    if not isinstance(value, Tensor) and not isinstance(value, np.ndarray):
        if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
            _check.fail_type(argument, expected, value)
        value = [row.tolist() if hasattr(row, "tolist") else row for row in value]
    try:
        boxes = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError):  # torch's words for rows of several lengths, None, strings
        fail(argument, f"{expected}, four numbers each", value)
    if boxes.dtype == torch.bool or boxes.is_complex():
        fail(argument, f"{expected}, of real numbers", boxes)
    boxes = boxes.double()
    if boxes.dim() != 2 or boxes.shape[1] != 4 or not len(boxes):
        fail(argument, expected, boxes)
    if boxes.isinf().any():
        raise ValueError(f"`{argument}` must be finite or NaN, got an infinite number")
    return boxes


def _hint_at_origin(boxes: Tensor, truth: Tensor) -> None:
    """A warning where the boxes count pixels from another number than the ground truth.

    A tracker gives the first box as it got it. So where that is off by exactly one in x and y, and of the right size,
    or all the others are, pixels were counted from 1 in one of the two.
    """
    shift = (boxes - truth)[~(boxes - truth).isnan().any(1)]
    for step, reason in (
        (1.0, "the boxes were counted from 1 (use origin=1, or --origin 1, for such a file)"),
        (-1.0, "the ground truth were counted from 1 and read as counted from 0"),
    ):
        off = (shift - shift.new_tensor([step, step, 0, 0])).abs().amax(1) < 1e-3
        if len(off) and (off[0] or (len(off) > 2 and off[1:].all())):
            warnings.warn(
                f"every box may be off by one: ({step:+g}, {step:+g}) pixels and of the true size, as if {reason}",
                stacklevel=3,
            )


def has_box(truth: Tensor) -> Tensor:
    """Of boxes [T, 4], which there are: bool [T]."""
    return (truth[:, 2:] > 0).all(1) & ~truth.isnan().any(1)


def check_protocol(protocol: str) -> None:
    if protocol not in PROTOCOLS:
        fail("protocol", '"otb", "got10k" or "pysot"', protocol)


def evaluate(
    boxes: Any, ground_truth: Any, protocol: str = "otb", *, skip_missing: bool = False
) -> Evaluation:
    """Scores of a track by one of three protocols.

    The docstring of `amstel.tracking.evaluation` describes the protocols, where they disagree, and how they were
    checked. O(T).

    Args:
        boxes: boxes of the tracker, [T, 4], x, y, w, h in pixels, 0-based; a tensor or anything that converts to one.
        ground_truth: the true boxes, in the same form; NaN or without area where they are missing.
        protocol: "otb", "got10k" or "pysot".
        skip_missing: ignore frames without ground truth, which no toolkit does for OTB. Use it for data with boxes in
            only some frames (ALOV, GOT-10k); otherwise all other frames count as failures, and some as precise.

    Raises:
        ValueError: a wrong shape, different numbers of boxes and true boxes, an unknown protocol, or no ground truth in
            any frame with `skip_missing`.

    Example:
        >>> truth = torch.tensor([[10.0, 10, 20, 20]] * 4)
        >>> boxes = truth + torch.tensor([[0.0], [0], [5], [50]]) * torch.tensor([1.0, 0, 0, 0])
        >>> scores = amstel.tracking.evaluate(boxes, truth)
        >>> scores.precision, round(scores.auc, 3), scores.iou.tolist()
        (0.75, 0.619, [1.0, 1.0, 0.6, 0.0])
    """
    check_protocol(protocol)
    skip_missing = _check.flag("skip_missing", skip_missing)
    boxes, truth = check_boxes("boxes", boxes), check_boxes("ground_truth", ground_truth)
    if len(boxes) != len(truth):
        fail("boxes", f"[{len(truth)}, 4], as many as `ground_truth`", boxes)
    _hint_at_origin(boxes, truth)
    if protocol == "otb":
        filled = (boxes.isnan().all(1) | (boxes[:, 2:] <= 0).any(1)) & ~truth.isnan().any(1)
        last = torch.where(filled, 0, torch.arange(len(boxes))).cummax(0).values
        boxes = boxes[last]
    boxes = torch.cat([truth[:1], boxes[1:]])
    known = has_box(truth)
    if skip_missing:
        if not known.any():
            raise ValueError("`ground_truth` must hold a box to compare with, got none in any frame")
        if len(known) > 1 and not known[1:].any():
            raise ValueError(
                "`ground_truth` must hold a box to compare with, got one in the first frame only, which is given"
            )
        boxes, truth, known = boxes[known], truth[known], known[known]

    center = truth[:, :2] + (truth[:, 2:] - 1) / 2
    distance = boxes[:, :2] + (boxes[:, 2:] - 1) / 2 - center
    error = distance.norm(dim=1)
    relative = torch.where(known, (distance / truth[:, 2:]).norm(dim=1), math.nan)
    # 0-based coordinates: > -1 is > 0 in the toolkits' own.
    by_pysot = ~(center > -1).all(1)
    by_default = by_pysot if protocol == "pysot" else torch.zeros_like(known)
    if protocol == "otb":
        known &= (truth[:, :2] > -1).all(1)
        by_default = ~known

    def curve(values: Tensor, thresholds: Tensor, near: Tensor) -> Tensor:
        return ((values[:, None] <= thresholds) | near[:, None]).double().mean(0)

    lost = boxes.isnan().any(1) & known
    iou = torch.where(known, overlap(boxes, truth), math.nan).masked_fill(lost, 0)
    return Evaluation(
        protocol,
        success=(iou[:, None] > SUCCESS_THRESHOLDS).double().mean(0),
        precision_curve=curve(error, PRECISION_THRESHOLDS, by_default),
        normalized_precision_curve=curve(relative, NORMALIZED_THRESHOLDS, by_pysot),
        iou=iou,
        error=torch.where(known, error, math.nan).masked_fill(lost, math.inf),
    )


def __getattr__(name: str) -> Any:
    """Names that moved to their own module, which imports this one."""
    from importlib import import_module

    places = {
        "DatasetEvaluation": "dataset",
        "evaluate_dataset": "dataset",
        "plot": "plots",
        "read_boxes": "files",
        "write_boxes": "files",
    }
    if name not in places:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"amstel.tracking.{places[name]}"), name)
