"""Robustness to where and when a track begins: OTB's SRE and TRE, and VOT's anchors, as sequences for `evaluate_dataset`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from amstel import _check
from amstel._check import fail
from amstel._words import counted
from amstel.data.sequences import TrackingSequence
from amstel.tracking.vot import anchors

#: Frames that a run of "tre" has at least (`minNum` of the toolkit).
LEAST = 20


class PerturbedSequence(TrackingSequence):
    """A sequence, or a part of one, that is tracked from another first box.

    Attributes:
        start: the box to start from [4].
        whole: name and number of frames of the sequence that this is a part of.

    Example:
        >>> runs = amstel.tracking.perturbed(amstel.data.OTB("OTB100")["Crossing"], "sre")
        >>> runs[0].name, runs[0].start.tolist(), runs[0].ground_truth[0].tolist()  # a tenth to the left
        ('Crossing-sre01', [18.0, 24.0, 20.0, 20.0], [20.0, 24.0, 20.0, 20.0])
    """

    start: Tensor
    whole: tuple[str, int]

    def __init__(
        self,
        name: str,
        frames: Sequence[Path],
        ground_truth: Tensor,
        start: Tensor,
        sparse: bool,
        whole: tuple[str, int] | None = None,
    ):
        super().__init__(name, frames, ground_truth, sparse)
        self.start, self.whole = start, whole or (name, len(self.frames))


def perturbed(sequence: TrackingSequence, how: str, segments: int = 20) -> list[PerturbedSequence]:
    """The runs of a sequence in OTB's spatial or temporal robustness evaluation or in VOT's, named NAME-sre01 and so on.

    "sre": 12 runs from the first true box to the end of the sequence. The box is shifted in 4 directions by a tenth of its
    width or height, rounded up; or one of its corners is moved outward by a tenth of both, while the opposite corner stays;
    or it is scaled to 0.8, 0.9, 1.1 and 1.2 about its center. These boxes are rounded to whole pixels and kept within the
    picture as in OTB's toolkit (`shiftInitBB`), which moves a corner beyond the left or top onto the border without making
    the box smaller. At least one pixel is left of every box.

    "tre": `segments` runs to the end of the sequence, starting at equally spaced frames. As in the toolkit (`splitSeqTRE`),
    only frames with a true box whose x, y, w and h, counted from 1, are > 0 count, from the first such frame to the last one
    that has 20 frames from there to the end. If there are fewer such frames than segments, some are used twice. For some of
    its sequences, the toolkit also omits frames in which the target is occluded or out of view, from lists in its folder
    `initOmit`. These lists are not known here, so the runs of such sequences begin at other frames.

    `evaluate_dataset` averages the runs of a sequence, weighted by their frames, and then the sequences: SRE and TRE.

    "vot": runs from the sequence's anchors, which `amstel.data.VOT` reads if the data have them; otherwise, they are 50
    frames apart. Each run goes to the end of the sequence, or back to its first frame if that is longer. `expected_overlap`
    scores the runs.

    Args:
        sequence: the sequence to perturb.
        how: "sre", "tre" or "vot".
        segments: number of runs for "tre", 20 in the toolkit.

    Raises:
        ValueError: an argument is not as described, there is no true box to start from, or the sequence is too short: it
            has one frame or, for "tre", no true box 20 frames before its end.
        OSError: the first frame, whose size "sre" needs, cannot be read.

    Source: Y. Wu, J. Lim, M.-H. Yang, Online Object Tracking: A Benchmark, CVPR 2013, section 4; M. Kristan et al., The
    Eighth Visual Object Tracking VOT2020 Challenge Results, ECCVW 2020, section 2.

    Example:
        >>> runs = amstel.tracking.perturbed(amstel.data.OTB("OTB100")["Crossing"], "sre")
        >>> def stays(frames, box):
        ...     return [box] * len(frames)
        >>> amstel.tracking.evaluate_dataset(stays, runs, "results/sre")
        DatasetEvaluation(otb, 12 sequences, auc=0.324, precision=0.854)
    """
    if how not in ("sre", "tre", "vot"):
        fail("how", '"sre", "tre" or "vot"', how)
    segments = _check.integer("segments", segments, 1)
    truth = _check.with_attributes("sequence", sequence, "ground_truth", "frames", "name").ground_truth
    if len(sequence) < 2:
        raise ValueError(f"{sequence.name} must have at least two frames to track in, got {len(sequence)}")
    if how == "vot":
        known = (~truth.isnan().any(1)).nonzero()[:, 0].tolist()
    else:  # counted from 1, > -1 is > 0; comparisons with NaN are false
        known = ((truth[:, :2] > -1) & (truth[:, 2:] > 0)).all(1).nonzero()[:, 0].tolist()
    if not known:
        raise ValueError(f"{sequence.name} must have a true box to start from, got none")

    def run(number: int, begin: int, start: Tensor, back: bool = False) -> PerturbedSequence:
        name = f"{sequence.name}-{how}{number + 1:02d}"
        frames = list(range(begin, -1, -1) if back else range(begin, len(sequence)))
        images = [sequence.frames[frame] for frame in frames]
        whole = sequence.name, len(sequence)
        return PerturbedSequence(name, images, truth[frames], start, sequence.sparse, whole)

    if how == "vot":
        given = sequence.anchors or anchors(truth)
        for begin, _ in given:
            if truth[begin].isnan().any():
                raise ValueError(
                    f"{sequence.name} must have a true box in frame {begin + 1}, an anchor, got none"
                )
        return [run(number, begin, truth[begin], back) for number, (begin, back) in enumerate(given)]
    if how == "sre":
        height, width = sequence[known[0]].shape[:2]
        starts = _starts(truth[known[0]].tolist(), (width, height))
        return [run(number, known[0], truth.new_tensor(start)) for number, start in enumerate(starts)]
    last = sum(frame <= len(sequence) - LEAST for frame in known)
    if not last:
        raise ValueError(
            f"{sequence.name} must have a true box at least {LEAST} frames before its end, got {counted(len(sequence), 'frame')}"
        )
    # MATLAB's 1 : last / (segments - 1) : last, and `last`.
    steps = max(segments - 1, 1)
    chosen = [k * last // steps for k in range(steps) if k * last <= (last - 1) * steps] + [last - 1]
    begins = [known[number] for number in chosen[:segments]]
    return [run(number, begin, truth[begin]) for number, begin in enumerate(begins)]


def _starts(box: list[float], picture: tuple[int, int]) -> list[list[float]]:
    """Eight boxes that are shifted or have a corner moved, clockwise from the left, and four scaled ones."""
    places, sides = [box[0] + 1, box[1] + 1], box[2:]  # the toolkit rounds what it counts from 1
    found = []
    for move in ((-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1), (0, 1), (-1, 1)):
        one = _shifted if 0 in move else _stretched
        found.append([one(*axis) for axis in zip(places, sides, move, strict=True)])
    for ratio in (0.8, 0.9, 1.1, 1.2):
        scaled = [
            (place + side / 2 - ratio * side / 2, ratio * side)
            for place, side in zip(places, sides, strict=True)
        ]
        found.append([(_rounded(place), _rounded(side)) for place, side in scaled])
    within = [[_within(*axis, size) for axis, size in zip(axes, picture, strict=True)] for axes in found]
    return [[x - 1, y - 1, w, h] for (x, w), (y, h) in within]


def _shifted(place: float, side: float, move: int) -> tuple[float, float]:
    return place + move * math.ceil(0.1 * side), side


def _stretched(place: float, side: float, move: int) -> tuple[float, float]:
    """The pixel at the end that moves is rounded, the other one stays."""
    end = place + side - 1
    if move < 0:
        place = _rounded(place - 0.1 * side)
    else:
        end = _rounded(end + 0.1 * side)
    return place, end - place + 1


def _within(place: float, side: float, size: int) -> tuple[float, float]:
    place = min(max(place, 1), size)
    return place, max(min(side, size - place + 1), 1)


def _rounded(value: float) -> float:
    """As MATLAB rounds: halves away from zero."""
    return math.copysign(math.floor(abs(value) + 0.5), value)
