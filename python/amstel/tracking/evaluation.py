"""Score tracks as the field's toolkits do: one sequence, a data set that resumes where it stopped, and plots.

The three protocols agree on the success rate, the part of the frames whose overlap with the ground truth (IoU
= intersection / union, of areas w h; the -1 and +1 in the toolkits' code cancel) is greater than 0, 0.05,
..., 1, and on precision, the part whose centres (x + (w - 1) / 2, y + (h - 1) / 2) are at most 0, 1, ..., 50
pixels apart. So a perfect track has success 1 at all thresholds but the last, where it is 0, and AUC 20/21.
All divide by the number of all frames, the first included, in which the tracker is given the ground truth and
which counts as that. Where they disagree:

- "otb" (tracker_benchmark by Wu, Lim and Yang). The ground truth of a frame is missing where x, y, w or h,
  counted from 1, is NaN or <= 0, so also for a box that leaves the picture at the left or top. Such a frame
  has no success at any threshold, but **counts as precise at every one**. Where the tracker's box is NaN or
  has no positive width and height, the last one that was not so stands in (in the toolkit's MATLAB code, not
  in its Python code).
- "got10k" (ExperimentOTB of the GOT-10k toolkit). Missing where NaN or without a positive width and height:
  no success; precision goes by the distance all the same, and NaN is never near. A tracker's box of that kind
  is treated alike.
- "pysot" (OPEBenchmark of pysot). As "got10k", but a frame counts as precise at every threshold where its
  true centre is NaN or, counted from 1, <= 0 in x or y.

Boxes here are 0-based, and the comparisons with 0 are shifted accordingly. pysot scores the first box as it
is written, which by its trackers is the ground truth. Normalised precision (distance in units of the true
width and height) is pysot's and given for all three; a frame whose true box has no size is never near.
GOT-10k's own measures, AO and SR, are not those of "got10k".

Checked against published numbers, the boxes of Struck and the curves that tracker_benchmark's authors
computed from them. Their 50 sequences TB-50: "otb" gives all 21 + 51 points of the curves to 4e-16 (AUC
0.38395, precision 0.54123); "got10k" and "pysot" give the same success, but precision is lower by up to
1.0e-3 (0.54019), by the eight frames of Biker and Crowds without ground truth by its rule. CVPR13: 50 of its 51
sequences are exact in the same way; Tiger1 is not (AUC of all 0.4737 for 0.4721), as there its boxes from
frame 6 on were compared with ground truth from frame 1 on. TB-100: 97 are exact, the others are Tiger1 and
two that lack their last box in the copy of the ground truth (0.4625 for 0.4617).

Source: Y. Wu, J. Lim, M.-H. Yang, Object Tracking Benchmark, TPAMI 2015; M. Müller et al., TrackingNet, ECCV
2018 (normalised precision); the toolkits named above.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amstel._check import fail
from amstel.data.tracking import TrackingSequence, read_numbers
from amstel.draw import COLOURS

PROTOCOLS = ("otb", "got10k", "pysot")
SUCCESS_THRESHOLDS = torch.arange(21, dtype=torch.float64) / 20
PRECISION_THRESHOLDS = torch.arange(51, dtype=torch.float64)
NORMALIZED_THRESHOLDS = torch.arange(51, dtype=torch.float64) / 100


class _Curves:
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


@dataclass(frozen=True, repr=False, eq=False)
class Evaluation(_Curves):
    """Scores of a track.

    Attributes:
        protocol: "otb", "got10k" or "pysot".
        success: [21], part of the frames with an overlap above 0, 0.05, ..., 1.
        precision_curve: [51], part with a distance of centres of at most 0, 1, ..., 50 pixels.
        normalized_precision_curve: [51], the same for 0, 0.01, ..., 0.5 of the target's size.
        iou: [T], overlap; NaN where the ground truth is missing, 0 where the tracker gave no box.
        error: [T], distance of centres in pixels; NaN where the ground truth is missing, infinite where the
            tracker gave no box.
        auc, precision, normalized_precision: mean of success; precision at 20 pixels and at 0.2.
        mean_iou: mean overlap of the frames with ground truth.
        frames, missing: T, and how many of them have no ground truth.
    """

    protocol: str
    success: Tensor
    precision_curve: Tensor
    normalized_precision_curve: Tensor
    iou: Tensor
    error: Tensor

    @property
    def mean_iou(self) -> float:
        return self.iou.nanmean().item()

    @property
    def frames(self) -> int:
        return len(self.iou)

    @property
    def missing(self) -> int:
        return int(self.iou.isnan().sum())

    def __repr__(self) -> str:
        scores = f"auc={self.auc:.3f}, precision={self.precision:.3f}"
        return f"Evaluation({self.protocol}, {self.frames} frames, {scores})"


def _check_boxes(argument: str, value: Any) -> Tensor:
    boxes = torch.as_tensor(value).detach().cpu().double()
    if boxes.dim() != 2 or boxes.shape[1] != 4 or not len(boxes):
        fail(argument, "boxes [T, 4] with T >= 1", boxes)
    if boxes.isinf().any():
        raise ValueError(f"`{argument}` must be finite or NaN, got an infinite number")
    return boxes


def _check_protocol(protocol: str) -> None:
    if protocol not in PROTOCOLS:
        fail("protocol", '"otb", "got10k" or "pysot"', protocol)


def overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of boxes [..., 4] (x, y, w, h) with those of the same place: [...], in [0, 1].

    A box without area overlaps nothing. NaN where a box has NaN.

    Example:
        >>> amstel.tracking.overlap(torch.tensor([0.0, 0, 2, 2]), torch.tensor([1.0, 0, 2, 2]))
        tensor(0.3333)
    """
    low = torch.maximum(boxes[..., :2], others[..., :2])
    high = torch.minimum(boxes[..., :2] + boxes[..., 2:], others[..., :2] + others[..., 2:])
    common = (high - low).clamp(min=0).prod(-1)
    union = boxes[..., 2:].prod(-1) + others[..., 2:].prod(-1) - common
    # With rounded coordinates the intersection of equal boxes may exceed their area by a bit.
    return torch.where(common == 0, common, common / union).clamp(max=1)


def evaluate(
    boxes: Any, ground_truth: Any, protocol: str = "otb", *, skip_missing: bool = False
) -> Evaluation:
    """Scores of a track by one of three protocols.

    See the text of `amstel.tracking.evaluation` for what the protocols are, where they disagree and how they were
    checked. O(T).

    Args:
        boxes: what the tracker gave, [T, 4], x, y, w, h in pixels, 0-based; a tensor or anything that makes one.
        ground_truth: [T, 4], the same; NaN or no area where it is missing.
        protocol: "otb", "got10k" or "pysot".
        skip_missing: leave frames without ground truth out, as no toolkit does for OTB. For data with boxes in some
            frames only (ALOV, GOT-10k), whose other frames would all count as failed and some as precise.

    Raises:
        ValueError: other shapes, another number of boxes than of true ones, an unknown protocol, or no ground
            truth in any frame with `skip_missing`.

    Example:
        >>> truth = torch.tensor([[10.0, 10, 20, 20]] * 4)
        >>> boxes = truth + torch.tensor([[0.0], [0], [5], [50]]) * torch.tensor([1.0, 0, 0, 0])
        >>> scores = amstel.tracking.evaluate(boxes, truth)
        >>> scores.precision, round(scores.auc, 3), scores.iou.tolist()
        (0.75, 0.619, [1.0, 1.0, 0.6, 0.0])
    """
    _check_protocol(protocol)
    boxes, truth = _check_boxes("boxes", boxes), _check_boxes("ground_truth", ground_truth)
    if len(boxes) != len(truth):
        fail("boxes", f"[{len(truth)}, 4], as many as `ground_truth`", boxes)
    given = (boxes[:, 2:] > 0).all(1) & ~boxes.isnan().any(1)
    if protocol == "otb":
        last = torch.where(given, torch.arange(len(boxes)), 0).cummax(0).values
        boxes = boxes[last]
    boxes = torch.cat([truth[:1], boxes[1:]])
    known = (truth[:, 2:] > 0).all(1) & ~truth.isnan().any(1)
    if skip_missing:
        if not known.any():
            raise ValueError("`ground_truth` must hold a box to compare with, got none in any frame")
        boxes, truth, known = boxes[known], truth[known], known[known]

    centre = truth[:, :2] + (truth[:, 2:] - 1) / 2
    distance = boxes[:, :2] + (boxes[:, 2:] - 1) / 2 - centre
    error = distance.norm(dim=1)
    relative = torch.where(known, (distance / truth[:, 2:]).norm(dim=1), math.nan)
    by_default = torch.zeros_like(known)
    # 0-based coordinates: > -1 is > 0 in OTB's own.
    if protocol == "otb":
        known &= (truth[:, :2] > -1).all(1)
        by_default = ~known
    elif protocol == "pysot":
        by_default = ~(centre > -1).all(1)

    def curve(values: Tensor, thresholds: Tensor) -> Tensor:
        return ((values[:, None] <= thresholds) | by_default[:, None]).double().mean(0)

    lost = boxes.isnan().any(1) & known
    iou = torch.where(known, overlap(boxes, truth), math.nan).masked_fill(lost, 0)
    return Evaluation(
        protocol,
        success=(iou[:, None] > SUCCESS_THRESHOLDS).double().mean(0),
        precision_curve=curve(error, PRECISION_THRESHOLDS),
        normalized_precision_curve=curve(relative, NORMALIZED_THRESHOLDS),
        iou=iou,
        error=torch.where(known, error, math.nan).masked_fill(lost, math.inf),
    )


# ------------------------------------------------------------------------------------------------- files


def _write(file: Path, text: str) -> None:
    """All of it or nothing, so that a run that is stopped leaves no half a file."""
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(text)
    os.replace(partial, file)


def write_boxes(file: str | os.PathLike, boxes: Any) -> Path:
    """Write boxes [T, 4] as lines `x,y,w,h`, 0-based, to 10 digits, `nan` where there is none; atomic.

    Raises:
        ValueError: another shape.
        OSError: the file cannot be written.

    Example:
        >>> path = amstel.tracking.write_boxes("boxes.txt", [[1, 2, 3, 4.5]])  # doctest: +SKIP
    """
    file = Path(file)
    rows = _check_boxes("boxes", boxes).tolist()
    _write(file, "".join(",".join(f"{value:.10g}" for value in row) + "\n" for row in rows))
    return file


def read_boxes(file: str | os.PathLike) -> Tensor:
    """Boxes of a file with four numbers a line: float64 [T, 4], as they are written; the inverse of `write_boxes`.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line that is not four numbers, with file and line, or no line.
    """
    file = Path(file)
    boxes = read_numbers(file, [4])
    if not len(boxes):
        raise ValueError(f"{file} must hold boxes, four numbers a line, got none")
    return boxes


# ---------------------------------------------------------------------------------------------- data sets


@dataclass(frozen=True, repr=False, eq=False)
class DatasetEvaluation(_Curves):
    """Scores of a tracker on several sequences.

    Attributes:
        protocol: "otb", "got10k" or "pysot".
        sequences: `Evaluation` of each, by its name.
        seconds: how long the tracker took for each, reading the frames included; NaN where it is not known.
        success, precision_curve, normalized_precision_curve, auc, precision, normalized_precision, mean_iou: means
            over the sequences, each with the same weight, as the toolkits take them.
        frames: number of all frames.
        frames_per_second: all frames by all seconds, of the sequences whose seconds are known; else NaN.
    """

    protocol: str
    sequences: dict[str, Evaluation]
    seconds: dict[str, float]

    def _mean(self, curve: str) -> Tensor:
        return torch.stack([getattr(e, curve) for e in self.sequences.values()]).mean(0)

    @property
    def success(self) -> Tensor:  # type: ignore[override]
        return self._mean("success")

    @property
    def precision_curve(self) -> Tensor:  # type: ignore[override]
        return self._mean("precision_curve")

    @property
    def normalized_precision_curve(self) -> Tensor:  # type: ignore[override]
        return self._mean("normalized_precision_curve")

    @property
    def mean_iou(self) -> float:
        return sum(e.mean_iou for e in self.sequences.values()) / len(self.sequences)

    @property
    def frames(self) -> int:
        return sum(e.frames for e in self.sequences.values())

    @property
    def frames_per_second(self) -> float:
        timed = [name for name, seconds in self.seconds.items() if seconds > 0]
        if not timed:
            return math.nan
        return sum(self.sequences[n].frames for n in timed) / sum(self.seconds[n] for n in timed)

    def _rows(self) -> list[tuple[str, Evaluation | DatasetEvaluation, float]]:
        """Name, scores and frames a second of each sequence and of all."""
        rows: list[tuple[str, Evaluation | DatasetEvaluation, float]] = [
            (name, e, e.frames / self.seconds[name] if self.seconds[name] > 0 else math.nan)
            for name, e in self.sequences.items()
        ]
        return [*rows, ("all", self, self.frames_per_second)]

    def table(self) -> str:
        """A line a sequence and one for all, for the terminal."""
        width = max(len(name) for name in ["sequence", *self.sequences])
        lines = [f"{'sequence':<{width}}  frames    AUC  precision  normalised    IoU  frames/s"]
        for name, e, speed in self._rows():
            lines.append(
                f"{name:<{width}}  {e.frames:>6}  {e.auc:.3f}  {e.precision:>9.3f}  {e.normalized_precision:>10.3f}  "
                f"{e.mean_iou:>5.3f}  {'-' if math.isnan(speed) else f'{speed:.1f}':>8}"
            )
        return "\n".join([*lines[:-1], "-" * len(lines[0]), lines[-1]])

    def to_json(self) -> str:
        """The numbers of the table and the curves, as JSON; null where a number is not known."""

        def entry(e: Evaluation | DatasetEvaluation, speed: float) -> dict[str, Any]:
            return {
                "frames": e.frames,
                "auc": e.auc,
                "precision": e.precision,
                "normalized_precision": e.normalized_precision,
                "mean_iou": None if math.isnan(e.mean_iou) else e.mean_iou,
                "frames_per_second": None if math.isnan(speed) else speed,
                "success": e.success.tolist(),
                "precision_curve": e.precision_curve.tolist(),
            }

        *each, (_, whole, speed) = self._rows()
        sequences = {name: entry(e, speed) for name, e, speed in each}
        return json.dumps(
            {"protocol": self.protocol, **entry(whole, speed), "sequences": sequences}, indent=1
        )

    def __repr__(self) -> str:
        scores = f"auc={self.auc:.3f}, precision={self.precision:.3f}"
        return f"DatasetEvaluation({self.protocol}, {len(self.sequences)} sequences, {scores})"


def evaluate_dataset(
    track: Callable[[TrackingSequence, list[float]], Any] | None,
    sequences: Iterable[TrackingSequence],
    out: str | os.PathLike,
    protocol: str = "otb",
    *,
    skip_missing: bool = False,
    resume: bool = True,
    progress: Callable[[int], None] | None = None,
) -> DatasetEvaluation:
    """Run a tracker on every sequence from its first true box, keep what it finds, and score it.

    The boxes go to OUT/NAME.txt (`write_boxes`) as soon as a sequence is done, the seconds it took to
    OUT/NAME.seconds. A later call reads what is there and tracks only what is not; scores are always those of the
    files.

    Args:
        track: `track(frames, box) -> boxes [T, 4]`, the first box included, such as `SINTTracker().track`; frames
            is the sequence, whose frames are uint8 RGB arrays read one by one; box is x, y, w, h, 0-based. None:
            score what is in `out`, of whatever tracker.
        sequences: such as `amstel.data.OTB(root)`.
        out: folder of the results, made if it is not there.
        protocol, skip_missing: as `evaluate` has them.
        resume: use what is in `out`; False tracks all again.
        progress: called with 1 after every sequence.

    Raises:
        FileNotFoundError: a sequence has no file in `out` and `track` is None.
        OSError: `out` cannot be written to, or a file in it not be read.
        ValueError: no sequence, two of one name, or one without a box in its first frame; another number of boxes
            than frames, from the tracker or in a file; what `evaluate` and the sequences raise.

    Example:
        >>> sequences = amstel.data.OTB("OTB100")                              # doctest: +SKIP
        >>> result = amstel.tracking.evaluate_dataset(tracker.track, sequences, "results/sint")  # doctest: +SKIP
        >>> print(result.table())                                              # doctest: +SKIP
        >>> n = Path("results/sint/scores.json").write_text(result.to_json())  # doctest: +SKIP
        >>> amstel.tracking.plot({"SINT": result}, "results/sint/plots.png")   # doctest: +SKIP
    """
    _check_protocol(protocol)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    evaluations: dict[str, Evaluation] = {}
    seconds: dict[str, float] = {}
    for sequence in sequences:
        name = sequence.name
        if name in evaluations or not name or Path(name).name != name:
            fail("sequences", "sequences of different names that are names of files", name)
        file, clock = folder / f"{name}.txt", folder / f"{name}.seconds"
        if not (resume or track is None) or not file.is_file():
            if track is None:
                raise FileNotFoundError(f"{file}, the boxes of {name}, does not exist, and `track` is None")
            if sequence.ground_truth[0].isnan().any():
                raise ValueError(f"{name} must have a true box in its first frame to start from, got none")
            begin = time.perf_counter()
            boxes = track(sequence, sequence.ground_truth[0].tolist())
            taken = time.perf_counter() - begin
            if len(boxes) != len(sequence):
                fail("track", f"a function that returns {len(sequence)} boxes for {name}", len(boxes))
            _write(clock, f"{taken:.6f}\n")
            write_boxes(file, boxes)
        boxes = read_boxes(file)
        if len(boxes) != len(sequence):
            raise ValueError(
                f"{file} must hold {len(sequence)} boxes, one a frame of {name}, got {len(boxes)}"
            )
        evaluations[name] = evaluate(boxes, sequence.ground_truth, protocol, skip_missing=skip_missing)
        seconds[name] = read_numbers(clock, [1])[0].item() if clock.is_file() else math.nan
        if progress is not None:
            progress(1)
    if not evaluations:
        raise ValueError("`sequences` must hold at least one sequence, got none")
    return DatasetEvaluation(protocol, evaluations, seconds)


def plot(
    evaluations: Mapping[str, Evaluation | DatasetEvaluation],
    file: str | os.PathLike,
    title: str | None = None,
) -> Path:
    """Draw the success and the precision plot, a line a tracker, the best first in each legend with its score.

    Args:
        evaluations: what each tracker is called, and its scores.
        file: picture to write, PNG, SVG or PDF by its ending.
        title: text above.

    Raises:
        ValueError: nothing to draw, or another ending.
        FileNotFoundError: the folder to write in does not exist.
        ImportError: matplotlib is missing.

    Example:
        >>> amstel.tracking.plot({"SINT": ours, "Struck": theirs}, "otb.png")  # doctest: +SKIP
    """
    file = Path(file)
    if not evaluations:
        raise ValueError("`evaluations` must hold at least one tracker's scores, got none")
    if file.suffix.lower() not in (".png", ".svg", ".pdf"):
        fail("file", "a name that ends in .png, .svg or .pdf", str(file))
    if not file.parent.is_dir():
        raise FileNotFoundError(f"the folder {file.parent} to write {file.name} in does not exist")
    try:
        figures = importlib.import_module("matplotlib.figure")
    except ImportError:
        raise ImportError('the plots need matplotlib: pip install "amstel[track]"') from None
    figure = figures.Figure(figsize=(10, 4.2), layout="constrained")
    for axes, curve, score, x, labels in zip(
        figure.subplots(1, 2),
        ("success", "precision_curve"),
        ("auc", "precision"),
        (SUCCESS_THRESHOLDS, PRECISION_THRESHOLDS),
        (("overlap threshold", "success rate"), ("distance of centres, pixels", "precision")),
        strict=True,
    ):
        style = {name: (COLOURS[k % 8], "-" if k < 8 else "--") for k, name in enumerate(evaluations)}
        for name in sorted(evaluations, key=lambda name: -getattr(evaluations[name], score)):
            colour, line = style[name]
            text = f"{name} [{getattr(evaluations[name], score):.3f}]"
            axes.plot(x, getattr(evaluations[name], curve), color=colour, linestyle=line, label=text)
        axes.set(xlabel=labels[0], ylabel=labels[1], xlim=(0, x[-1].item()), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        axes.legend(loc="lower left" if curve == "success" else "lower right", framealpha=0.9)
    if title:
        figure.suptitle(title)
    figure.savefig(file, dpi=120)
    return file
