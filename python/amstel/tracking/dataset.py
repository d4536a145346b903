"""Score a tracker on a data set, in a run that can be resumed."""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amstel import _check, _files
from amstel._check import fail
from amstel._words import counted
from amstel.data.sequences import Sequences, TrackingSequence, check_origin, read_numbers
from amstel.tracking.evaluation import Curves, Evaluation, check_boxes, check_protocol, evaluate, has_box
from amstel.tracking.files import read_boxes, write_boxes

_SHAPES = {"success": (21,), "precision_curve": (51,), "normalized_precision_curve": (51,)}


@dataclass(frozen=True, repr=False, eq=False)
class DatasetEvaluation(Curves):
    """Scores of a tracker on several sequences.

    Attributes:
        protocol: "otb", "got10k" or "pysot".
        sequences: the `Evaluation` of each sequence, by name.
        seconds: how long the tracker took for each sequence, including reading the frames; NaN if unknown.
        success, precision_curve, normalized_precision_curve, auc, precision, normalized_precision, mean_iou: means
            over the sequences, each with the same weight, as the toolkits take them; the runs of a sequence (`runs`) are
            averaged first, each with the weight of its frames, as OTB's toolkit does it.
        frames: number of all frames.
        frames_per_second: all frames by all seconds, of the sequences whose seconds are known; else NaN.
        failed: the message of the error, by the name of each sequence that could not be read, tracked or scored. The
            scores are those of the others.
        runs: the name of the whole sequence, by the name of each run of it (`perturbed`); none for whole sequences.
        unscored: names of the sequences that were tracked and have no scores, as only their first box is known. Where there
            are no others, all scores are NaN.

    Raises:
        ValueError or TypeError: no sequence, or an argument is not as described.

    Example:
        >>> truth = torch.tensor([[10.0, 10, 20, 20]] * 4)
        >>> scores = {"Ball": amstel.tracking.evaluate(truth, truth), "Cup": amstel.tracking.evaluate(truth + 5, truth)}
        >>> whole = amstel.tracking.DatasetEvaluation("otb", scores, {"Ball": 0.1, "Cup": 0.3})
        >>> print(whole.table())
        sequence  frames    AUC  precision  normalized    IoU  frames/s
        Ball           4  0.952      1.000       1.000  1.000      40.0
        Cup            4  0.452      1.000       0.250  0.461      13.3
        ---------------------------------------------------------------
        all            8  0.702      1.000       0.625  0.730      20.0
    """

    protocol: str
    sequences: dict[str, Evaluation]
    seconds: dict[str, float]
    failed: dict[str, str] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)
    unscored: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_protocol(self.protocol)
        expected = "a dict with the `Evaluation` of at least one sequence"
        for name, scores in _check.mapping("sequences", self.sequences, expected).items():
            if not isinstance(scores, Evaluation):
                _check.fail_type(f"sequences[{name!r}]", "an Evaluation", scores)
        if not self.sequences and not self.unscored:
            fail("sequences", expected, self.sequences)
        _check.mapping("seconds", self.seconds, "a dict of numbers, by sequence")

    def _seconds(self, name: str) -> float:
        return self.seconds.get(name, math.nan)

    def _wholes(self) -> list[str]:
        """The names of the sequences, however many runs there are of each."""
        return list(dict.fromkeys(self.runs.get(name, name) for name in self.sequences))

    def _mean(self, score: str) -> Tensor:
        of_whole: dict[str, list[Evaluation]] = {}
        for name, e in self.sequences.items():
            of_whole.setdefault(self.runs.get(name, name), []).append(e)
        means = []
        for runs in of_whole.values():
            values = torch.stack([torch.as_tensor(getattr(e, score), dtype=torch.float64) for e in runs])
            weights = values.new_tensor([e.frames for e in runs])
            means.append(weights / weights.sum() @ values)
        return torch.stack(means).mean(0) if means else torch.full(_SHAPES.get(score, ()), math.nan).double()

    @property
    def success(self) -> Tensor:  # type: ignore[override]
        """Mean of the sequences' success curves."""
        return self._mean("success")

    @property
    def precision_curve(self) -> Tensor:  # type: ignore[override]
        """Mean of the sequences' precision curves."""
        return self._mean("precision_curve")

    @property
    def normalized_precision_curve(self) -> Tensor:  # type: ignore[override]
        """Mean of the sequences' normalized precision curves."""
        return self._mean("normalized_precision_curve")

    @property
    def mean_iou(self) -> float:
        """Mean over the sequences of their mean overlap."""
        return self._mean("mean_iou").item()

    @property
    def frames(self) -> int:
        """Frames of all sequences together."""
        return sum(e.frames for e in self.sequences.values())

    @property
    def frames_per_second(self) -> float:
        """Speed over the sequences that were timed."""
        timed = [name for name in self.sequences if self._seconds(name) > 0]
        if not timed:
            return math.nan
        return sum(self.sequences[n].frames for n in timed) / sum(self.seconds[n] for n in timed)

    def _rows(self) -> list[tuple[str, Evaluation | DatasetEvaluation, float]]:
        """Name, scores and frames per second of each sequence and of all."""
        rows: list[tuple[str, Evaluation | DatasetEvaluation, float]] = [
            (name, e, e.frames / self._seconds(name) if self._seconds(name) > 0 else math.nan)
            for name, e in self.sequences.items()
        ]
        return [*rows, ("all", self, self.frames_per_second)]

    def table(self) -> str:
        """One line per sequence and one for all of them, for the terminal."""
        width = max(len(name) for name in ["sequence", *self.sequences])
        lines = [f"{'sequence':<{width}}  frames    AUC  precision  normalized    IoU  frames/s"]
        for name, e, speed in self._rows():
            lines.append(
                f"{name:<{width}}  {e.frames:>6}  {e.auc:.3f}  {e.precision:>9.3f}  {e.normalized_precision:>10.3f}  "
                f"{e.mean_iou:>5.3f}  {'-' if math.isnan(speed) else f'{speed:.1f}':>8}"
            )
        failed = [f"{name} failed: {message}" for name, message in self.failed.items()]
        whole = ["-" * len(lines[0]), lines[-1]] if self.sequences else []
        unscored = [f"{name} tracked, not scored: only the first box is known" for name in self.unscored]
        return "\n".join([*lines[:-1], *whole, *unscored, *failed])

    def to_json(self) -> str:
        """The numbers of the table and the curves, as JSON; null if a number is unknown.

        Example:
            >>> truth = torch.tensor([[10.0, 10, 20, 20]] * 4)
            >>> whole = amstel.tracking.DatasetEvaluation("otb", {"Ball": amstel.tracking.evaluate(truth, truth)}, {})
            >>> scores = json.loads(whole.to_json())
            >>> scores["precision"], scores["frames_per_second"], list(scores["sequences"])
            (1.0, None, ['Ball'])
        """

        def entry(e: Evaluation | DatasetEvaluation, speed: float) -> dict[str, Any]:
            return {
                "frames": e.frames,
                "auc": _known(e.auc),
                "precision": _known(e.precision),
                "normalized_precision": _known(e.normalized_precision),
                "normalized_auc": _known(e.normalized_auc),
                "mean_iou": _known(e.mean_iou),
                "frames_per_second": _known(speed),
                "success": [_known(value) for value in e.success.tolist()],
                "precision_curve": [_known(value) for value in e.precision_curve.tolist()],
            }

        *each, (_, whole, speed) = self._rows()
        sequences = {name: entry(e, speed) for name, e, speed in each}
        found = {"protocol": self.protocol, **entry(whole, speed), "sequences": sequences}
        found |= {"unscored": list(self.unscored)} if self.unscored else {}
        return json.dumps({**found, "failed": self.failed} if self.failed else found, indent=1)

    def __repr__(self) -> str:
        scores = f"auc={self.auc:.3f}, precision={self.precision:.3f}"
        return f"DatasetEvaluation({self.protocol}, {counted(len(self.sequences), 'sequence')}, {scores})"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def evaluate_dataset(
    track: Callable[[TrackingSequence, list[float]], Any] | None,
    sequences: Iterable[TrackingSequence],
    out: str | os.PathLike,
    protocol: str = "otb",
    *,
    skip_missing: bool | None = None,
    resume: bool = True,
    origin: int = 0,
    jobs: int = 1,
    progress: Callable[[int], None] | None = None,
    _failures: dict[str, str] | None = None,
) -> DatasetEvaluation:
    """Run a tracker on every sequence from its first true box, save its boxes, and score them.

    As soon as a sequence is done, its boxes are written to OUT/NAME.txt (`write_boxes`), and the seconds it took to
    OUT/NAME.seconds. A later call reads these files and tracks only the missing sequences; scores are always computed
    from the files. A sequence that fails is named in a warning and in `failed`, and the others continue. One that is
    `sparse` and has a first box alone (the test part of GOT-10k) is tracked, and named in `unscored`.

    Args:
        track: `track(frames, box) -> boxes [T, 4]`, including the first box, such as `SINTTracker().track`. `frames` is
            the sequence, whose frames are uint8 RGB arrays read one by one; `box` is x, y, w, h, 0-based: the first true
            box, or the `start` of a sequence that has one (`perturbed`). None: score the results in `out`, whichever
            tracker they come from.
        sequences: such as `amstel.data.OTB(root)`.
        out: folder for the results, created if missing.
        protocol, skip_missing: as for `evaluate`; None: frames without ground truth are left out of sequences that are
            `sparse` (ALOV, GOT-10k).
        resume: use the results in `out`; False tracks everything again. Boxes with another start than the sequence
            belong to other data, and raise an error.
        origin: number of the first pixel in the files of `out`, 0 or 1, as for `write_boxes`.
        jobs: number of sequences to track in parallel, each in its own process; `track` must then be picklable (that
            of `SINTTracker` is).
        progress: called with 1 after every sequence.

    Raises:
        ValueError: there is no sequence, two have the same name, a name cannot be the name of a file, or an argument is
            not as described.
        Exception: if every sequence fails, the error of the first: FileNotFoundError (no file in `out` and `track` is
            None), OSError (a file cannot be read or written), ValueError (no box in the first frame; a different number
            of boxes than frames), and whatever `track`, `evaluate` and the sequences raise.

    Example:
        >>> sequences = amstel.data.OTB("OTB100")
        >>> tracker = amstel.tracking.SINTTracker()
        >>> result = amstel.tracking.evaluate_dataset(tracker.track, sequences, "results/sint")
        >>> sorted(result.sequences), result.precision
        (['Crossing', 'Jogging-1', 'Jogging-2'], 1.0)
        >>> n = Path("results/sint/scores.json").write_text(result.to_json())
        >>> amstel.tracking.plot({"SINT": result}, "results/sint/plots.png").name
        'plots.png'
    """
    check_protocol(protocol)
    jobs = _check.integer("jobs", jobs, 1)
    resume, origin = _check.flag("resume", resume), check_origin(origin)
    skip_missing = None if skip_missing is None else _check.flag("skip_missing", skip_missing)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(track, folder, protocol, skip_missing, resume, origin)
    evaluations: dict[str, Evaluation] = {}
    seconds: dict[str, float] = {}
    runs: dict[str, str] = {}
    errors: dict[str, Exception] = {}
    unscored: list[str] = []
    for name, found in _done(run, sequences, jobs):
        if isinstance(found, Exception):
            errors[name] = found
        else:
            scores, seconds[name], whole = found
            if scores is None:
                unscored.append(name)
            else:
                evaluations[name] = scores
            if whole != name:
                runs[name] = whole
        if progress is not None:
            progress(1)
    if not evaluations and not unscored:
        if errors:
            raise next(iter(errors.values()))
        raise ValueError("`sequences` must hold at least one sequence, got none")
    failed = {name: str(error) or type(error).__name__ for name, error in errors.items()}
    if _failures is not None:  # the caller's to say
        _failures |= failed
        failed = {}
    for name in failed:
        warnings.warn(f"{name} failed and is left out: {errors[name]}", stacklevel=2)
    return DatasetEvaluation(protocol, evaluations, seconds, failed, runs, tuple(unscored))


#: Scores (None: nothing is known to compare with) and seconds of a sequence and the name of the whole that it is a run of, or
#: why there are none.
_Found = tuple[Evaluation | None, float, str] | Exception


def _done(run: _Run, sequences: Iterable[TrackingSequence], jobs: int) -> Iterator[tuple[str, _Found]]:
    """Name and outcome of every sequence, in their order."""
    if jobs == 1:
        for name, sequence in _named(sequences):
            yield name, sequence if isinstance(sequence, Exception) else run.safely(sequence)
        return
    # Not forked: torch's threads would not come along.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        try:
            waiting = [
                (name, s if isinstance(s, Exception) else pool.submit(run.safely, s))
                for name, s in _named(sequences)
            ]
            for name, future in waiting:
                yield name, future if isinstance(future, Exception) else _result(future)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _result(future: Future[_Found]) -> _Found:
    try:
        return future.result()
    except BrokenProcessPool:
        return RuntimeError("a tracking process was killed, perhaps because memory ran out")


def _named(sequences: Iterable[TrackingSequence]) -> Iterator[tuple[str, TrackingSequence | Exception]]:
    """Every sequence, or the error of one that cannot be read, by its name; names must differ."""
    names: set[str] = set()
    listed: Iterable[Any] = sequences.names if isinstance(sequences, Sequences) else sequences
    for number, given in enumerate(listed):
        sequence = given
        if isinstance(sequences, Sequences):
            try:
                sequence = sequences[given]
            except Exception as error:
                sequence = error
        else:
            _check.with_attributes(f"sequences[{number}]", sequence, "name", "ground_truth")
        name = given if isinstance(sequence, Exception) else sequence.name
        if name in names or not name or Path(name).name != name:
            fail("sequences", "sequences with distinct names that can be names of files", name)
        names.add(name)
        yield name, sequence


@dataclass(frozen=True)
class _Run:
    """What is done with each sequence; see `evaluate_dataset`."""

    track: Callable[[TrackingSequence, list[float]], Any] | None
    folder: Path
    protocol: str
    skip_missing: bool | None
    resume: bool
    origin: int

    def safely(self, sequence: TrackingSequence) -> _Found:
        """Its scores, or the error that it raised."""
        try:
            return self(sequence)
        except Exception as error:
            return error

    def __call__(self, sequence: TrackingSequence) -> tuple[Evaluation | None, float, str]:
        name, track = sequence.name, self.track
        file, clock = self.folder / f"{name}.txt", self.folder / f"{name}.seconds"
        start = getattr(sequence, "start", sequence.ground_truth[0])
        there = (self.resume or track is None) and file.is_file()
        if not there:
            if track is None:
                raise FileNotFoundError(f"{file}, the boxes of {name}, does not exist, and `track` is None")
            if start.isnan().any():
                raise ValueError(f"{name} must have a true box in its first frame to start from, got none")
            begin = time.perf_counter()
            boxes = track(sequence, start.tolist())
            taken = time.perf_counter() - begin
            wanted = f"a function that returns {counted(len(sequence), 'box')} for {name}"
            try:
                checked = check_boxes("boxes", boxes)
            except (TypeError, ValueError):
                fail("track", wanted, boxes)
            if len(checked) != len(sequence):
                fail("track", wanted, len(checked))
            _files.write_text(clock, f"{taken:.6f}\n")
            write_boxes(file, boxes, self.origin)
        boxes = read_boxes(file, self.origin)
        if len(boxes) != len(sequence):
            raise ValueError(
                f"{file} must hold {counted(len(sequence), 'box')}, one per frame of {name}, got {len(boxes)}"
            )
        # A tracker gives the first box as it got it, up to rounding. NaN is not more than that apart.
        if there and track is not None and (boxes[0] - start).abs().max() > 0.5:
            raise ValueError(
                f"{file} begins with {boxes[0].tolist()} and {name} with {start.tolist()}: the boxes belong to other data, "
                "or to another `origin`; use another `out`"
            )
        sparse = getattr(sequence, "sparse", False) if self.skip_missing is None else self.skip_missing
        truth = sequence.ground_truth
        first_alone = sparse and len(truth) > 1 and has_box(truth[:1]).all() and not has_box(truth[1:]).any()
        found = None if first_alone else evaluate(boxes, truth, self.protocol, skip_missing=sparse)
        return found, _seconds(clock), getattr(sequence, "whole", (name,))[0]


def _seconds(clock: Path) -> float:
    """The times in the file, NaN where there are none: their absence is no reason to lose the boxes."""
    try:
        return read_numbers(clock, 1)[0].item()
    except (OSError, ValueError, IndexError):
        return math.nan
