"""`amstel video evaluate`: accuracies of one network, or of several in one table."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from amstel._words import counted
from amstel.cli import _localization
from amstel.cli import _values as values
from amstel.cli._command import Common, command
from amstel.cli._family import Force, new, report
from amstel.cli._video import Lists, Split, app, open_clips, read_record

#: Settings that the features were extracted with: those of a network that was trained already.
_OF_NETWORK = {
    name: f"the {name.replace('_', ' ')} of CHECKPOINT"
    for name in ("backbone", "layer", "frame_size", "motion", "stride", "fps")
}


@command(
    app,
    "evaluate",
    "eval",
    said={"clips": "ROOT", "number": "--split", "network": "CHECKPOINT", **_OF_NETWORK},
    without=("seed",),
)
def evaluate(
    checkpoint: Annotated[
        list[Path],
        typer.Argument(
            metavar="CHECKPOINT",
            parser=values.file_there,
            help="checkpoint.pt from amstel video train; several give a table",
        ),
    ],
    root: Annotated[
        Path,
        typer.Argument(
            metavar="ROOT",
            parser=values.folder_there,
            help="clips or features, as for amstel video train",
        ),
    ],
    segments: Annotated[
        int | None,
        typer.Option(
            "--segments", metavar="N", parser=values.positive, help="segments per clip [default: 25]"
        ),
    ] = None,
    split: Split = None,
    lists: Lists = None,
    table: Annotated[
        Path | None,
        typer.Option(
            "--table",
            metavar="FILE",
            parser=values.writes(".md"),
            help="write a table (.md) of models and streams, averaged over splits",
        ),
    ] = None,
    confusion: Annotated[
        Path | None,
        typer.Option(
            "--confusion",
            metavar="FILE",
            parser=values.writes(".png", ".svg", ".pdf"),
            help="draw the confusion matrix",
        ),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            "--boxes",
            metavar="PATH",
            parser=values.there,
            help="score in space: boxes of UCF101-24 (.pkl, .mat, .json, .xgtf)",
        ),
    ] = None,
    intervals: Annotated[
        Path | None,
        typer.Option(
            "--intervals",
            metavar="DIR",
            parser=values.folder_there,
            help="score in time: intervals of THUMOS14 (Diving_test.txt)",
        ),
    ] = None,
    detections: Annotated[
        Path | None,
        typer.Option(
            "--detections",
            metavar="FILE",
            parser=values.writes(".json", ".txt"),
            help="write what --boxes (.json) or --intervals (.txt) found",
        ),
    ] = None,
    force: Force = False,
    *,
    common: Common,
) -> int:
    """Report the accuracy on clips or on an official test list.

    Scores are averaged over the segments of a clip. With --boxes or --intervals, report the mean average precision of
    localization by the rules of UCF101-24 or THUMOS14 instead.
    """
    if boxes is not None or intervals is not None:
        for name, value in (("table", table), ("confusion", confusion)):
            if value is not None:
                raise ValueError(f"--{name} is for the accuracy: leave it out with --boxes and --intervals")
        if len(checkpoint) > 1:
            raise ValueError(f"--boxes and --intervals need one CHECKPOINT, got {len(checkpoint)}")
        if intervals is not None and segments is not None:
            raise ValueError("--segments cannot be given with --intervals, which looks at every frame")
        return _localization.run(
            checkpoint[0], root, boxes, intervals, detections, segments or 25, split, lists, force, common
        )
    if detections is not None:
        raise ValueError("--detections needs --boxes or --intervals")
    from amstel import _files, _optional
    from amstel.apps.video import network
    from amstel.apps.video import table as tables

    for name, picture in (("table", table), ("confusion", confusion)):
        if picture is not None:
            _files.distinct(picture, *checkpoint, root, argument=name)
    new([table, confusion], force)
    many = table is not None or len(checkpoint) > 1
    if confusion is not None:
        _optional.need("matplotlib", extra="cli", purpose="--confusion")
        if len(checkpoint) > 1:
            raise ValueError(f"--confusion needs one CHECKPOINT, got {len(checkpoint)}")
    tested, failures, record = [], [], {}
    for path in checkpoint:
        model = network.load(path)
        own, where = _of_run(path, split, lists) if many else (split, lists)
        found, wrong = _one(model, path, root, segments or 25, own, where, many, common)
        if found is None:  # a process that neither writes nor prints
            continue
        failures += [w for w in wrong if w not in failures]
        tested.append(tables.Tested(model.settings.model, own, found))
        if not many:
            record = _say(model.classes, found, common)
            if own is None:
                record |= _say_held_out(path, found, common)
    if not tested:
        return 0
    if many:
        rows = tables.rows(tested)
        text = tables.markdown(rows)
        common.say(text)
        record = {"table": rows}
        if table is not None:
            _files.write_text(table, text + "\n")
            common.say(f"wrote {table}")
    if confusion is not None:
        _draw(confusion, tested[0].evaluation, model.classes)
        common.say(f"wrote {confusion}")
    failed = report(failures)
    common.write_json({**record, **failed})
    return 1 if failed else 0


def _of_run(path: Path, split: int | None, lists: Path | None) -> tuple[int | None, Path | None]:
    """The split that a checkpoint was trained on, according to the record next to it, if none was requested."""
    from amstel import _files

    record = path.parent / "training.json"
    if split is not None or not _files.there(record):
        return split, lists
    known = read_record(record)
    own = known.get("split")
    if own is not None and lists is None and known.get("lists"):
        lists = Path(known["lists"])
    return own, lists if own is not None else None


def _one(
    model: Any,
    path: Path,
    root: Path,
    segments: int,
    split: int | None,
    lists: Path | None,
    held_out: bool,
    common: Common,
) -> tuple[Any, Sequence[Any]]:
    """What a network says of the clips that it is to be tested on, and those that could not be read."""
    from amstel import _files
    from amstel.apps import ranks as processes
    from amstel.apps.video import evaluate, features, samples

    clips, wrong = open_clips(root, split, lists, fps=model.settings.fps)
    if isinstance(clips, features.FeatureFolder):
        clips.fit(model.settings, training=False)
        clips.of_network(model)
    if list(clips.classes) != model.classes:
        raise ValueError(
            f"{root} holds the classes {clips.classes}, but {path} was trained on {model.classes}"
        )
    names, part = list(clips.names), clips
    chosen: list[int] | None = None
    record = path.parent / "training.json"
    if split is not None:
        chosen = clips.split(split)[1]
        if not chosen:
            raise ValueError(f"--split {split}: {root} holds no test clips of it")
    elif held_out and _files.there(record):
        own = set(read_record(record)["held_out"])
        chosen = [k for k, name in enumerate(names) if name in own]
        if not chosen:
            raise ValueError(f"{root} holds none of the clips that {path} held out")
    if chosen is not None:
        names, part = [names[i] for i in chosen], samples.Subset(clips, chosen)
    failures: list[Any] = []
    with processes.group(common.device) as ranks:
        with common.progress(len(ranks.share(names)) if ranks.first else 0, "clips") as update:
            found = evaluate.evaluate(
                model.to(ranks.device), part, segments, update, ranks=ranks, failures=failures
            )
        if not ranks.first:
            return None, []
    return found, [*wrong, *(dataclasses.replace(f, item=names[f.item]) for f in failures)]


def _say(classes: list[str], found: Any, common: Common) -> dict[str, Any]:
    """Lines of one evaluation, and its record."""
    right = found.probabilities.argmax(1) == found.labels
    of_class = {
        name: right[found.labels == k].double().mean().item()
        for k, name in enumerate(classes)
        if bool((found.labels == k).any())
    }
    width = max(map(len, of_class))
    for name, accuracy in of_class.items():
        common.say(f"{name:{width}s} {100 * accuracy:5.1f}%")
    common.say(f"accuracy {100 * found.accuracy:.1f}% on {counted(len(found.names), 'clip')}")
    answers = [classes[k] for k in found.probabilities.argmax(1).tolist()]
    return {
        "accuracy": found.accuracy,
        "classes": of_class,
        "class_mean": sum(of_class.values()) / len(of_class),
        "confusion": found.confusion.tolist(),
        "answers": dict(zip(found.names, answers, strict=True)),
    }


def _say_held_out(path: Path, found: Any, common: Common) -> dict[str, Any]:
    """The accuracy on the clips that the training held out, where it has seen others of these."""
    try:
        held = set(read_record(path.parent / "training.json")["held_out"])
    except (OSError, ValueError):  # no record, or not one: the clips may be any
        return {}
    there = held & set(found.names)
    if not there or there == set(found.names):
        return {}
    right = found.probabilities.argmax(1) == found.labels
    accuracy = right[[name in held for name in found.names]].double().mean().item()
    missing = sorted(held - there)
    common.say(
        f"of these, {len(there)} {'was' if len(there) == 1 else 'were'} held out in training: accuracy {100 * accuracy:.1f}%, which is the one to report"
        + (f"; {len(missing)} of those held out not found here: {', '.join(missing[:3])}" if missing else "")
    )
    return {"held_out": {"accuracy": accuracy, "clips": len(there), "missing": missing}}


def _draw(path: Path, found: Any, classes: list[str]) -> None:
    from matplotlib.figure import Figure

    from amstel import _files, plot

    # Names stand along both axes, and leave the matrix its room.
    side = min(14.0, 3.5 + 0.35 * len(classes)) + 0.07 * max(0, max(map(len, classes)) - 12)
    figure = Figure((side, side), layout="constrained")
    plot.confusion(found.confusion, classes, axes=figure.subplots())
    with _files.replacing(path) as temporary:
        figure.savefig(temporary)
