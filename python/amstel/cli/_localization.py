"""`amstel video evaluate --boxes` and `--intervals`: localization by the rules of UCF101-24 and THUMOS14."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from amstel._words import counted
from amstel.cli._command import Common
from amstel.cli._family import new, report
from amstel.cli._video import open_clips, read_record


def run(
    checkpoint: Path,
    root: Path,
    boxes: Path | None,
    intervals: Path | None,
    detections: Path | None,
    segments: int,
    split: int | None,
    lists: Path | None,
    force: bool,
    common: Common,
) -> int:
    from amstel import _files
    from amstel.apps import ranks as processes
    from amstel.apps.ranks import Outcome
    from amstel.apps.video import localization, network
    from amstel.data import THUMOS14

    if boxes is not None and intervals is not None:
        raise ValueError("--boxes cannot be given with --intervals: they are separate tests")
    if lists is not None or (intervals is not None and split is not None):
        raise ValueError(
            "--lists and, with --intervals, --split cannot be given: the annotation defines the split"
        )
    wanted = ".json" if intervals is None else ".txt"
    if detections is not None:
        _files.distinct(
            detections, checkpoint, root, *(p for p in (boxes, intervals) if p), argument="detections"
        )
        if detections.suffix.lower() != wanted:
            option = "--boxes" if intervals is None else "--intervals"
            raise ValueError(f"--detections of {option} must end in {wanted}, got {detections}")
    new([detections], force)
    model = network.load(checkpoint)
    failures: list[Any] = []
    if intervals is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # each that is missing is told in a line of its own
            clips: Any = THUMOS14(root, intervals)
        failures = [Outcome(name, error="is annotated but missing") for name in clips.missing]
        names = clips.names
    else:
        clips, names = _with_boxes(root, boxes, split, model.settings.fps, failures)
    wrong: list[Any] = []
    with processes.group(common.device) as ranks:
        model = model.to(ranks.device)
        with common.progress(len(ranks.share(names)) if ranks.first else 0, "videos") as update:
            if intervals is not None:
                found = localization.intervals(model, clips, update, ranks=ranks, failures=wrong)
            else:
                found = localization.tubes(
                    model, clips, _classes(clips), segments, update, ranks=ranks, failures=wrong
                )
        if not ranks.first:
            return 0
    failures += [Outcome(names[done.item], error=done.error) for done in wrong]
    if detections is not None:
        if intervals is not None:
            _files.write_text(detections, localization.official(found, clips))
        else:
            _files.write_text(detections, json.dumps(found.detections) + "\n")
    failed = report(failures)
    at = [f"{threshold:g}" for threshold in found.thresholds]
    record: dict[str, Any] = {
        "protocol": "ucf101-24" if intervals is None else "thumos14",
        "videos": found.videos,
        "truths": found.truths,
        "detections": len(found.detections),
        "map": dict(zip(at, found.map, strict=True)),
        "classes": {name: dict(zip(at, values, strict=True)) for name, values in found.classes.items()},
    }
    if found.recall is not None:
        record |= {"recall": dict(zip(at, found.recall, strict=True)), "mean_iou": found.mean_iou}
    record |= _trained_on(checkpoint, found.names)
    common.write_json({**record, **failed})
    _say(found, common)
    if trained := record.get("trained_on"):
        common.say(
            f"{trained} of these {counted(found.videos, 'video')} were trained on: the figure to report is that of a root without them"
        )
    if detections is not None:
        common.say(f"wrote {detections}")
    return 1 if failed else 0


def _trained_on(checkpoint: Path, names: list[str]) -> dict[str, int]:
    """How many of these videos the checkpoint has seen, where its record says which it held out of them."""
    try:
        held = set(read_record(checkpoint.parent / "training.json")["held_out"])
    except (OSError, ValueError):  # no record, or not one
        return {}
    if not any(
        "/" in name for name in names
    ):  # videos of THUMOS14 are known without the folder of their class
        held = {str(name).rpartition("/")[2] for name in held}
    there = held & set(names)
    return {"trained_on": len(names) - len(there)} if there and len(there) < len(names) else {}


def _classes(clips: Any) -> list[str]:
    return getattr(clips, "clips", clips).classes


def _with_boxes(
    root: Path, boxes: Path | None, split: int | None, fps: float, failures: list[Any]
) -> tuple[Any, list[str]]:
    """The clips to test on, those of the test list where a split was asked for, and their names."""
    from amstel.apps.video import samples

    clips, wrong = open_clips(root, split, None, fps=fps, boxes=boxes)
    failures += wrong
    if split is None:
        return clips, clips.names
    chosen = clips.split(split)[1]
    if not chosen:
        raise ValueError(f"{root} holds none of the clips of the test list of --split {split}")
    return samples.Subset(clips, chosen), [clips.names[k] for k in chosen]


def _say(found: Any, common: Common) -> None:
    """A table of what was found: one class per line, one overlap per column."""
    width = max(len(name) for name in (*found.classes, "recall"))
    common.say(f"{'IoU':{width}s} " + " ".join(f"{threshold:6.1f}" for threshold in found.thresholds))
    for name, values in (*found.classes.items(), ("mAP", found.map)):
        common.say(f"{name:{width}s} " + " ".join(f"{100 * value:6.1f}" for value in values))
    if found.recall is not None:
        common.say(f"{'recall':{width}s} " + " ".join(f"{100 * value:6.1f}" for value in found.recall))
        common.say(f"mean IoU of the boxes {found.mean_iou:.3f}")
    what = counted(found.truths, "tube" if found.recall is not None else "action")
    common.say(
        f"{counted(len(found.detections), 'detection')} of {what} in {counted(found.videos, 'video')}, average precision in %"
    )
