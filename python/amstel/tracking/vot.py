"""VOT's measures since 2020: expected average overlap, accuracy and robustness of runs from anchors."""

from __future__ import annotations

import warnings
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
from amstel.tracking.overlaps import clipped, picture_size

#: Shortest and longest run that EAO is the mean over, of VOT-ST2020's data, as its toolkit has them.
INTERVAL = (115, 755)
#: A run has failed where the overlap is at most this, for so many frames with a target.
THRESHOLD, GRACE = 0.1, 10


@dataclass(frozen=True, repr=False, eq=False)
class ExpectedOverlap:
    """Scores of a tracker over runs.

    Attributes:
        curve: [high], the expected mean overlap of a run of 0, 1, ... frames after the first.
        eao: mean of the curve from `low` on.
        accuracy: mean overlap of the frames before the failure, including the first frame of each run, which counts as 0.
        robustness: share of the frames before the failure.
        failures: number of runs in which the tracker failed.
        runs: number of runs.

    Example: a box that stays while the target moves away, one pixel per frame.
        >>> truth = torch.tensor([[10.0, 10, 20, 20]] * 40)
        >>> moved = truth + torch.tensor([1.0, 0, 0, 0]) * torch.arange(40)[:, None]
        >>> scores = amstel.tracking.expected_overlap([truth], [moved], [(64, 48)], interval=(10, 30))
        >>> round(scores.eao, 3), scores.robustness  # lost in frame 17 of 40
        (0.385, 0.425)
        >>> [round(overlap, 2) for overlap in scores.curve[[1, 10, 20]].tolist()]
        [0.9, 0.59, 0.35]
    """

    curve: Tensor
    eao: float
    accuracy: float
    robustness: float
    failures: int
    runs: int

    def __repr__(self) -> str:
        return (
            f"ExpectedOverlap(eao={self.eao:.3f}, accuracy={self.accuracy:.3f}, "
            f"robustness={self.robustness:.3f}, {counted(self.failures, 'failure')} in {counted(self.runs, 'run')})"
        )


def expected_overlap(
    boxes: Iterable[Any],
    ground_truth: Iterable[Any],
    sizes: Iterable[tuple[int, int]],
    sequences: Iterable[tuple[str, int]] | None = None,
    *,
    interval: tuple[int, int] = INTERVAL,
) -> ExpectedOverlap:
    """EAO, accuracy and robustness by VOT's anchor-based protocol, in which a tracker is not restarted after a failure.

    .. code-block:: text

        o[0] = 0, o[t] = overlap in frame t of the run, boxes rounded to whole pixels and clipped to the
               picture; 1 where both lie within one row or column of pixels, which is the toolkit's rule
        failure: the first of 10 frames in a row with o <= 0.1 and a target; p frames come before it, o is 0 from there on
        accuracy = sum of o[t], t < p, over all runs / sum of p
        robustness = mean over the sequences, by their frames, of sum of p / frames of the runs
        curve[j] = mean of (o[1] + ... + o[j]) / j over the runs of more than j frames, and of
                   (o[1] + ... + o[n - 1]) / (j - 1) over those of n <= j frames that failed
        EAO = mean of curve[low], ..., curve[high - 1]

    These are the toolkit's formulas (`multistart`, including its j - 1). If truth and box are both missing, o is 1.
    O(frames + runs high).

    Args:
        boxes: for each run, the tracker's boxes [T, 4], x, y, w, h, 0-based, in the order in which it saw the frames.
        ground_truth: for each run, the true boxes [T, 4], in the same order; NaN where there is no target.
        sizes: (width, height) of each run's frames.
        sequences: for each run, name and number of frames of the sequence that it is a part of; None: each run is a
            sequence.
        interval: low and high, the run lengths over which EAO is the mean; VOT-ST2020 uses (115, 755). Lengths that no run
            has count as 0, as in the toolkit, with a warning; use another interval for data with shorter sequences.

    Raises:
        ValueError: a wrong shape, lists of different lengths, no run, or an invalid interval.

    Source: M. Kristan et al., The Eighth Visual Object Tracking VOT2020 Challenge Results, ECCVW 2020, section 2; the
    vot-toolkit.

    Example:
        >>> truth = torch.tensor([[10.0, 10, 20, 20]] * 40)
        >>> boxes = truth + torch.tensor([1.0, 0, 0, 0]) * torch.arange(40)[:, None]
        >>> amstel.tracking.expected_overlap([boxes], [truth], [(64, 48)], interval=(10, 30))
        ExpectedOverlap(eao=0.385, accuracy=0.416, robustness=0.425, 1 failure in 1 run)
    """
    boxes, ground_truth, sizes = list(boxes), list(ground_truth), list(sizes)
    named = [(str(n), 0) for n in range(len(boxes))] if sequences is None else list(sequences)
    if not len(boxes) == len(ground_truth) == len(sizes) == len(named):
        raise ValueError(
            "`boxes`, `ground_truth`, `sizes` and `sequences` must be of the same runs, "
            f"got {len(boxes)}, {len(ground_truth)}, {len(sizes)} and {len(named)}"
        )
    if not boxes:
        raise ValueError("`boxes` must hold at least one run, got none")
    low, high = _interval(interval)
    phi, active = torch.zeros(high, dtype=torch.float64), torch.zeros(high, dtype=torch.float64)
    overlap = failures = 0.0
    progress: dict[str, list[float]] = {}
    for number, (given, truth, size) in enumerate(zip(boxes, ground_truth, sizes, strict=True)):
        own = check_boxes(f"boxes[{number}]", given)
        true = check_boxes(f"ground_truth[{number}]", truth)
        if len(own) != len(true):
            fail(f"boxes[{number}]", f"[{len(true)}, 4], as many as the ground truth", own)
        o, there = _overlaps(own, true, picture_size(f"sizes[{number}]", size))
        p = _before_failure(o, there)
        failed = p < len(o)
        o[p:] = 0
        name, frames = _named(f"sequences[{number}]", named[number])
        of_sequence = progress.setdefault(name, [0, 0, frames or len(o)])
        of_sequence[0] += p
        of_sequence[1] += len(o)
        overlap, failures = overlap + o.sum().item(), failures + failed
        _add(phi, active, o, failed)
    curve = torch.where(active > 0, phi / active.clamp(min=1), 0)
    if (active[low:] == 0).any():
        longest = int(active.nonzero().max()) if active.any() else 0
        warnings.warn(
            f"no run has more than {counted(longest, 'frame')} after its first, and those up to {high - 1} count as 0: "
            "use another `interval`",
            stacklevel=2,
        )
    before = sum(p for p, _, _ in progress.values())
    weight = sum(frames for _, _, frames in progress.values())
    return ExpectedOverlap(
        curve,
        eao=curve[low:].mean().item(),
        accuracy=overlap / before if before else 0.0,
        robustness=sum(p / total * frames for p, total, frames in progress.values()) / weight,
        failures=int(failures),
        runs=len(boxes),
    )


def _named(argument: str, sequence: Any) -> tuple[str, int]:
    expected = "(name, number of frames) of a sequence"
    try:
        name, frames = sequence
    except (TypeError, ValueError):
        fail(argument, expected, sequence)
    if not isinstance(name, str):
        fail(argument, expected, sequence)
    return name, _check.integer(argument, frames, 0, expected)


def _interval(interval: Any) -> tuple[int, int]:
    expected = "two integers, 1 <= low < high"
    try:
        low, high = interval
    except (TypeError, ValueError):
        fail("interval", expected, interval)
    low, high = (_check.integer("interval", end, 1, expected) for end in (low, high))
    if not low < high:
        fail("interval", expected, interval)
    return low, high


def _overlaps(boxes: Tensor, truth: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """o [T], and in which frames there is a target.

    By the toolkit's rasters: its boxes are float32 before they are rounded, and what is missing lies at the origin. It
    takes any two boxes that are within one row or column of pixels for the same one.
    """
    there, given = ((b[:, 2:] > 0).all(1) & ~b.isnan().any(1) for b in (truth, boxes))
    true, own = (
        torch.where(known[:, None], b.float().round().double(), 0)
        for b, known in ((truth, there), (boxes, given))
    )
    low = torch.minimum(true[:, :2], own[:, :2])
    # A side that rounds to 0 ends before it begins; what is missing, at its one pixel.
    last = [
        torch.where(known[:, None], b[:, :2] + b[:, 2:] - 1, b[:, :2])
        for b, known in ((true, there), (own, given))
    ]
    high, edge = torch.maximum(*last), torch.tensor(size, dtype=low.dtype) - 1
    outside = (low.clamp(min=0) >= torch.minimum(high, edge)).any(1)
    overlap = iou_xywh(clipped(own, size), clipped(true, size)).nan_to_num(0).masked_fill(outside, 0)
    overlap = overlap.masked_fill((low >= high).any(1), 1)
    overlap[0] = 0
    return overlap, there


def _before_failure(overlap: Tensor, there: Tensor) -> int:
    missed = ((overlap <= THRESHOLD) & there).tolist()
    row = 0
    for frame, miss in enumerate(missed):
        row = row + 1 if miss else 0
        if row == GRACE:
            return frame + 1 - GRACE
    return len(missed)


def _add(phi: Tensor, active: Tensor, overlap: Tensor, failed: bool) -> None:
    """One run into the sums of the curve."""
    n, high = len(overlap), len(phi)
    steps = torch.arange(1, high, dtype=torch.float64)
    sums = overlap[1:].cumsum(0)[: high - 1]
    phi[1 : 1 + len(sums)] += sums / steps[: len(sums)]
    active[1 : 1 + len(sums)] += 1
    if failed and n < high:
        # A run that is over at once has no frame to divide by; its sum is 0.
        phi[n:] += overlap[1:].sum() / (steps[n - 1 :] - 1).clamp(min=1)
        active[n:] += 1


def anchors(truth: Tensor, every: int = 50) -> list[tuple[int, bool]]:
    """Frames in which runs begin, and whether a run goes back to the first frame, which it does if that is longer.

    They are `every` frames apart, from the first frame to the last. If a frame has no target, the next frame with one is
    used instead.
    """
    known = (~truth.isnan().any(1)).nonzero()[:, 0].tolist()
    last = len(truth) - 1
    wanted = sorted({*range(0, len(truth), every), last})
    found: dict[int, bool] = {}
    for frame in wanted:
        begin = next((k for k in known if k >= frame), known[-1] if known else None)
        if begin is not None:
            found[begin] = begin > last - begin
    return [(frame, back) for frame, back in found.items() if (frame if back else last - frame) > 0]
