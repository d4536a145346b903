"""Robustness to where and when a track begins: OTB's SRE and TRE and VOT's anchors, as sequences that `evaluate_dataset` takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from amstel import _check
from amstel._check import fail
from amstel.data.sequences import TrackingSequence
from amstel.tracking.vot import anchors


class PerturbedSequence(TrackingSequence):
    """A sequence, or a part of it, that is tracked from another first box.

    Attributes:
        start: the box to start from [4].
        whole: name and number of frames of the sequence that it is a part of.
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

    "sre": 12 runs over the whole sequence, from the first box moved by a tenth of its size in 8 directions, or scaled
    to 0.8, 0.9, 1.1 and 1.2 about its center. "tre": `segments` runs to the end of the sequence, from frames equally far
    apart, the first of them the first frame; a frame without ground truth gives way to the next that has some. The scores
    of all runs, averaged, are SRE and TRE.

    "vot": runs from the sequence's anchors, which `amstel.data.VOT` reads where the data have them, and which else are 50
    frames apart; each goes to the end of the sequence, or back to its first frame where that is longer. `expected_overlap`
    scores them.

    Args:
        sequence: to perturb.
        how: "sre", "tre" or "vot".
        segments: of "tre", 20 in the toolkit; as many as the sequence has frames at most.

    Raises:
        ValueError: an argument is not as described, or there is no true box to start from.

    Source: Y. Wu, J. Lim, M.-H. Yang, Online Object Tracking: A Benchmark, CVPR 2013, section 4; M. Kristan et al., The
    Eighth Visual Object Tracking VOT2020 Challenge Results, ECCVW 2020, section 2.

    Example:
        >>> runs = [run for s in amstel.data.OTB("OTB100") for run in amstel.tracking.perturbed(s, "sre")]  # doctest: +SKIP
        >>> amstel.tracking.evaluate_dataset(tracker.track, runs, "results/sre").auc  # doctest: +SKIP
    """
    if how not in ("sre", "tre", "vot"):
        fail("how", '"sre", "tre" or "vot"', how)
    segments = _check.integer("segments", segments, 1)
    truth = _check.with_attributes("sequence", sequence, "ground_truth", "frames", "name").ground_truth
    known = (~truth.isnan().any(1)).nonzero()[:, 0].tolist()
    if not known or (how == "sre" and known[0] != 0):
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
        return [run(number, 0, start) for number, start in enumerate(_starts(truth[0]))]
    begins: list[int] = []
    for k in range(min(segments, len(sequence))):
        wanted = math.floor(k * len(sequence) / min(segments, len(sequence)))
        later = next((frame for frame in known if frame >= wanted), None)
        if later is not None and later not in begins:
            begins.append(later)
    return [run(number, begin, truth[begin]) for number, begin in enumerate(begins)]


def _starts(box: Tensor) -> list[Tensor]:
    """Eight moved boxes, clockwise from the left, and four scaled ones."""
    moves = [(-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1), (0, 1), (-1, 1)]
    found = [
        torch.cat([box[:2] + 0.1 * box[2:] * torch.tensor(move, dtype=box.dtype), box[2:]]) for move in moves
    ]
    center = box[:2] + box[2:] / 2
    return found + [torch.cat([center - box[2:] * s / 2, box[2:] * s]) for s in (0.8, 0.9, 1.1, 1.2)]
