"""Evaluation of SINT: the tracker on sequences, and its matching alone on pairs of frames."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amstel import _files, tracking
from amstel.apps.ranks import Outcome, Ranks, each, succeeded
from amstel.apps.tracking.folders import warn_of_sequences
from amstel.apps.tracking.samples import _rois
from amstel.data.pairs import Pairs, overlaps, polar_boxes
from amstel.nn.sint import SINT
from amstel.tracking.attributes import attributes_of
from amstel.tracking.dataset import DatasetEvaluation
from amstel.tracking.vot import INTERVAL, ExpectedOverlap

_SCALES = (1.0, math.sqrt(0.5), math.sqrt(2.0))


@dataclass(frozen=True)
class Matching:
    """How often the best candidate in a frame is the target.

    Attributes:
        iou: mean IoU of the best-scored candidate with the target.
        accuracy: share of pairs where it is above 0.5.
        reachable: mean IoU of the best-placed candidate, an upper bound for any matching.
    """

    iou: float
    accuracy: float
    reachable: float


@torch.no_grad()
def matching(
    model: SINT, pairs: Pairs, count: int, seed: int = 0, progress: Callable[[int], None] | None = None
) -> Matching:
    """Search for the target of each pair's first frame in its second, as a tracker would: one step, no prior.

    The candidates are 10 angles on 10 circles of radius up to max(w, h) and their center, at three scales, and the
    boxes of `FramePair.others`. The center of the circles is off the target's by up to 0.6 max(w, h) in x and y.

    Args:
        pairs: pair i of `count` is number i modulo len(pairs).
        seed: the pairs depend only on this and on `count`, so models can be compared.
    """
    model.eval()
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    found: list[tuple[float, float]] = []
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        pair = pairs.sample(index % len(pairs), rng)
        truth = pair.boxes[1]
        side = float((truth[2:] - truth[:2]).max())
        start = truth + side * torch.from_numpy(rng.uniform(-0.6, 0.6, 2).astype(np.float32)).repeat(2)
        at_start = polar_boxes(start, 1, 1, _SCALES) - side * torch.tensor([1.0, 0, 1, 0])
        boxes = torch.cat([at_start, polar_boxes(start, 10, 10, _SCALES), pair.others[1]])
        maps = model.features(pair.frames.to(device).float() / 255)
        query = model.describe([m[:1] for m in maps], _rois([pair.boxes[:1]], device))[0]
        scores = model.match([m[1:] for m in maps], _rois([boxes], device), query)
        overlap = overlaps(boxes, truth)
        found.append((float(overlap[scores.argmax()]), float(overlap.max())))
        if progress is not None:
            progress(1)
    best, most = torch.tensor(found).T
    return Matching(best.mean().item(), (best > 0.5).float().mean().item(), most.mean().item())


def evaluate_dataset(
    tracker: Any,
    sequences: Sequence[Any],
    out: Path,
    protocol: str = "otb",
    progress: Callable[[int], None] | None = None,
    ranks: Ranks | None = None,
    failures: list[Outcome] | None = None,
    jobs: int = 1,
    origin: int = 0,
) -> DatasetEvaluation:
    """`amstel.tracking.evaluate_dataset`, with each process working on its share of the sequences, `jobs` at a time.

    Args:
        tracker, sequences, out, protocol: as there, with a `SINTTracker`.
        progress: called with 1 after every sequence.
        ranks: the processes.
        failures: collects the sequences that cannot be tracked, which are then left out; default: raise their error.
        jobs, origin: as there; each process in `ranks` starts `jobs` processes.
    """
    sequences = list(sequences)

    def work(number: int) -> None:
        tracking.evaluate_dataset(tracker.track, [sequences[number]], out, protocol, origin=origin)

    if jobs > 1:
        failed: dict[str, str] | None = None if failures is None else {}
        result = tracking.evaluate_dataset(
            tracker.track,
            sequences,
            out,
            protocol,
            jobs=jobs,
            origin=origin,
            progress=progress,
            _failures=failed,
        )
        if failures is not None and failed:
            numbers = {sequence.name: number for number, sequence in enumerate(sequences)}
            failures += [Outcome(numbers[name], error=error) for name, error in failed.items()]
        return result
    outcomes = each(range(len(sequences)), work, ranks or Ranks(), progress, fatal=failures is None)
    done = [sequences[outcome.item] for outcome in succeeded(outcomes, failures)]
    return tracking.evaluate_dataset(None, done, out, protocol, origin=origin)


def readable(sequences: Any, names: Sequence[str], how: str | None = None) -> tuple[list[Any], list[Outcome]]:
    """The sequences with those names, or their runs from `perturbed`; and the names and errors of those that cannot be read.

    ValueError if none can be read, or a name is unknown.
    """
    found: list[Any] = []
    wrong: list[Outcome] = []
    small = {name.lower(): name for name in sequences.names}
    known = {given: given if given in sequences.names else small.get(given.lower()) for given in names}
    for given, name in known.items():
        if name is None:
            raise ValueError(f"{sequences.root} holds no sequence {given!r}")
    for name in dict.fromkeys(filter(None, known.values())):
        try:
            sequence = sequences[name]
            found += [sequence] if how is None else tracking.perturbed(sequence, how)
        except (ValueError, OSError) as error:
            wrong.append(Outcome(name, error=str(error)))
    if not found:
        raise ValueError(wrong[0].error)
    warn_of_sequences(Path(sequences.root), found)
    return found, wrong


def apart(sequences: Sequence[Any], **outputs: Path | None) -> None:
    """ValueError where a file or folder to write is, or lies in, a folder with the frames of a sequence."""
    folders = dict.fromkeys(frame.parent for sequence in sequences for frame in sequence.frames)
    for argument, path in outputs.items():
        if path is not None:
            _files.distinct(path, *folders, argument=argument)


def same_tracker(record: Path, settings: dict[str, Any], there: Sequence[str]) -> None:
    """ValueError if the folder of `record` holds boxes from another or an unknown tracker.

    Args:
        record: the file with the settings of the tracker whose boxes are next to it.
        settings: of the tracker whose boxes are to be added.
        there: sequences that already have boxes.
    """
    other = f"give another --out, or move {record.parent} away"
    if _files.there(record):
        try:
            known = json.loads(record.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            raise ValueError(
                f"{record} must hold the settings of a tracker as JSON, got something else: {other}"
            ) from None
        if known != settings:
            raise ValueError(f"{record.parent} holds the boxes of another tracker, see {record}: {other}")
    elif there:
        raise ValueError(f"{record.parent} holds boxes of {there[0]}, from an unknown tracker: {other}")


def expected_overlap(
    runs: Sequence[Any], out: Path, origin: int = 0, interval: tuple[int, int] | None = None
) -> ExpectedOverlap:
    """EAO of the runs from `tracking.perturbed(sequence, "vot")` whose boxes are in `out`; reads each run's first frame for its size."""
    boxes = [tracking.read_boxes(out / f"{run.name}.txt", origin) for run in runs]
    sizes = [run[0].shape[1::-1] for run in runs]
    truth, wholes = [run.ground_truth for run in runs], [run.whole for run in runs]
    return tracking.expected_overlap(boxes, truth, sizes, wholes, interval=interval or INTERVAL)


def with_attributes(runs: Sequence[Any], attributes: Path) -> dict[str, list[str]]:
    """The attributes in the file by name of the run; a run from `tracking.perturbed` has those of its sequence."""
    sequence = {run.name: run.whole[0] if hasattr(run, "whole") else run.name for run in runs}
    found = attributes_of(dict.fromkeys(sequence.values()), attributes)
    return {run: found[name] for run, name in sequence.items()}


def attributes_table(groups: Mapping[str, DatasetEvaluation]) -> str:
    """A line per attribute, for the terminal."""
    width = max(len(name) for name in ["attribute", *groups])
    lines = [f"{'attribute':<{width}}  sequences    AUC  precision"]
    for name, group in groups.items():
        lines.append(f"{name:<{width}}  {len(group._wholes()):>9}  {group.auc:.3f}  {group.precision:>9.3f}")
    return "\n".join(lines)


def attributes_record(groups: Mapping[str, DatasetEvaluation]) -> dict[str, Any]:
    """The same for --json, with the names of the sequences."""
    return {
        name: {"sequences": group._wholes(), "auc": group.auc, "precision": group.precision}
        for name, group in groups.items()
    }
