"""`amstel video`: action recognition."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path
from typing import Annotated, Any

import typer

from amstel._words import counted
from amstel.apps.video import settings as names
from amstel.cli import _values as values
from amstel.cli._command import Common, command
from amstel.cli._family import (
    Average,
    Force,
    Out,
    Precision,
    Resume,
    new,
    outcome,
    report,
    restartable,
    with_plan,
)
from amstel.cli._video import Checkpoint, Lists, Split, app, in_use, open_clips, read_record

STUDIES = ("weizmann", "moving-shapes", "order", "localization")

_DEFAULT = names.Settings.from_scratch()
#: With --backbone vgg16, and with features, which are of it.
_VGG: dict[str, Any] = {"backbone": "vgg16", "frame_size": 224}
_OPTIONS: dict[str, Any] = {
    "model": {
        "parser": values.choice(names.MODELS),
        # Bars, not commas, so that it stays on one line.
        "help": "|".join(
            [f"{_DEFAULT.model} [default]", *(m for m in reversed(names.MODELS) if m != _DEFAULT.model)]
        ),
    },
    "stream": {"parser": values.choice(names.STREAMS), "help": ", ".join(names.STREAMS)},
    "motion": {"parser": values.choice(names.MOTIONS), "help": ", ".join(names.MOTIONS)},
    "frame_size": {"parser": values.positive, "help": "side of a frame, in pixels"},
    "hidden": {"parser": values.positive, "help": "hidden channels"},
    "steps": {"parser": values.positive, "help": "frames per sample"},
    "stride": {"parser": values.positive, "help": "take every Xth frame of a clip", "hidden": True},
    "fps": {"parser": values.number(0), "help": "frames per second to use; 0: every frame"},
    "epochs": {"parser": values.positive, "help": "passes over the data"},
    "batch": {"parser": values.positive, "help": "clips per batch, all processes"},
    "balanced": {"parser": bool, "help": "draw every class equally often"},
    "optimizer": {"parser": values.choice(names.OPTIMIZERS), "help": ", ".join(names.OPTIMIZERS)},
    "learning_rate": {"parser": values.number(0), "help": "learning rate"},
    "dropout": {"parser": values.number(0, 1, below=True), "help": "dropout rate"},
    "box_weight": {"parser": values.number(0), "help": "weight of --boxes in the loss", "hidden": True},
    "shift": {"parser": values.integer(0), "help": "augment: shift by up to X pixels"},
    "brightness": {"parser": values.number(0, 1, below=True), "help": "augment: brightness times 1 ± X"},
    "flip": {"parser": bool, "help": "augment: mirror horizontally"},
    "initial_state": {
        "parser": values.choice(names.INITIAL_STATES),
        "help": ", ".join(names.INITIAL_STATES),
        "hidden": True,
    },
}
for _name, _option in _OPTIONS.items():
    _ours, _paper = (getattr(some, _name) for some in (_DEFAULT, names.Settings(**_VGG)))
    if _ours != _paper:
        _both = (f"{value:g}" if isinstance(value, float) else value for value in (_ours, _paper))
        _option["default"] = "{}; vgg16 {}".format(*_both)


@command(
    app,
    "train",
    settings=_DEFAULT,
    own=_OPTIONS,
    said={
        "layer": "the layer",
        "fraction": "--hold-out",
        "clips": "ROOT",
        "number": "--split",
        "validation": "the held-out part of ROOT",
    },
)
@restartable
def train(
    root: Annotated[
        Path,
        typer.Argument(
            metavar="ROOT",
            parser=values.folder_there,
            help="folder of clips per class, or of features",
        ),
    ],
    out: Out,
    resume: Resume = False,
    force: Force = False,
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone",
            metavar="B",
            parser=values.choice(names.BACKBONES),
            help="small, from scratch [default]; or vgg16, frozen",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights", metavar="FILE", parser=values.file_there, help="torchvision's VGG-16 weights"
        ),
    ] = None,
    hold_out: Annotated[
        float | None,
        typer.Option(
            "--hold-out",
            metavar="X",
            parser=values.number(0, 1, below=True),
            help="fraction kept for testing [default: 0.2]",
        ),
    ] = None,
    split: Split = None,
    lists: Lists = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            "--boxes",
            metavar="PATH",
            parser=values.there,
            help="train the attention on boxes of UCF101-24",
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="stop at a clip that cannot be read")] = False,
    precision: Precision = None,
    average: Average = None,
    *,
    given: dict[str, Any],
    common: Common,
) -> int:
    """Train on a folder of clips, one subfolder per class."""
    from amstel import _files
    from amstel.apps import ranks as processes
    from amstel.apps import training
    from amstel.apps.video import evaluate, features, network, samples, train

    plan = with_plan(precision, average)
    if common.seed is not None:
        given["seed"] = common.seed
    checkpoint, record = out / train.CHECKPOINT, out / "training.json"
    before: dict[str, Any] = {}
    if split is not None and hold_out is not None:
        raise ValueError("--hold-out cannot be given with --split, whose test list is held out")
    if boxes is not None:
        given.setdefault("box_weight", 1.0)
    elif given.get("box_weight"):
        raise ValueError("--box-weight needs --boxes PATH")
    if resume:
        if not common.restarted and (
            given.keys() - {"epochs"} or backbone or weights or plan or hold_out is not None or split or lists
        ):
            raise ValueError("--resume keeps the settings of the checkpoint: only change --epochs")
        saved = network.load(checkpoint)
        settings = dataclasses.replace(saved.settings, **given)
        before = read_record(record)
        split, lists = before.get("split"), before.get("lists") and Path(before["lists"])
        boxes = before.get("boxes") and Path(before["boxes"])
    else:
        new([checkpoint, out / training.BEST, record], force)
        vgg = {**_VGG, **given}
        extracted = features.is_folder(root)
        if extracted:
            if backbone or weights:
                raise ValueError(
                    f"{root} holds features: leave out --backbone and --weights, which made them"
                )
            vgg = {**features.FeatureFolder(root).settings, **given}
        elif weights and backbone != "vgg16":
            raise ValueError(f"--weights is for --backbone vgg16, got {weights} for the small one")
        paper = extracted or backbone == "vgg16"
        settings = names.Settings(**vgg) if paper else names.Settings.from_scratch(**given)
        in_use(given, settings)
    _files.distinct(out, root, argument="out")  # the next training would take it for a class
    clips, wrong = open_clips(root, split, lists, strict, fps=settings.fps, boxes=boxes)
    if isinstance(clips, features.FeatureFolder):
        clips.fit(settings)
        if resume:
            clips.of_network(saved)
    if len(clips.classes) < 2:
        raise ValueError(f"{root} must hold two or more classes, got only {', '.join(clips.classes)}")
    if resume:
        held = before["held_out"]
        missing = sorted(set(held) - set(clips.names))
        if missing:
            raise ValueError(f"{root} lacks {missing[0]}, which was held out when the training began")
    elif split is not None:
        held = [clips.names[i] for i in clips.split(split)[1]]
    else:
        fraction = 0.2 if hold_out is None else hold_out
        held = [clips.names[i] for i in samples.split(clips.labels, fraction, settings.seed)[1]]
    test = [i for i, name in enumerate(clips.names) if name in set(held)]
    rest = range(len(clips)) if split is None else clips.split(split)[0]
    known = [i for i in rest if i not in set(test)]
    if split is not None and not known:
        raise ValueError(f"--split {split}: {root} holds no training clips of it")
    kept = {
        "held_out": held,
        "split": split,
        "lists": None if lists is None else str(lists),
        "boxes": None if boxes is None else str(boxes),
    }
    state = None
    if isinstance(clips, features.FeatureFolder) and not resume:
        state = clips.backbone()
    elif settings.backbone == "vgg16" and not resume:
        if weights is None:
            raise ValueError("--backbone vgg16 needs --weights FILE, torchvision's vgg16 state_dict")
        state = train.backbone_weights(weights, settings.layer)
    ranks = processes.current(common.device)
    if ranks.first:
        skipped = report(wrong)
    with common.progress(settings.epochs * len(known) if ranks.first else 0, "clips") as update:
        result = train.train(
            samples.Subset(clips, known),
            clips.classes,
            settings,
            out=out,
            resume=resume,
            force=force,
            backbone_weights=state,
            validation=samples.Subset(clips, test) if test else None,
            device=ranks.device,
            progress=update,
            # With the first checkpoint, which it is of; what is known of the epochs before stays.
            beside={record.name: _files.json_text({**before, **kept})},
            **plan,
        )
    found: dict[str, Any] = {
        "settings": dataclasses.asdict(settings),
        "history": result.history,
        "loss": [entry["loss"] for entry in result.history],
        **kept,
    }
    if test:
        tested = evaluate.evaluate(result.network, samples.Subset(clips, test), ranks=ranks)
        found["held_out_accuracy"] = tested.accuracy
    if not ranks.first:
        return 0
    if skipped:
        found["skipped"] = skipped["failed"]
    if before.get("history") != result.history:  # else it is of the same run, complete already
        _files.write_json(record, found)
    common.write_json(found)
    if skipped:
        common.say(
            "1 clip was left out" if len(wrong) == 1 else f"{counted(len(wrong), 'clip')} were left out"
        )
    last = result.history[-1]
    common.say(
        f"{settings.model} ({settings.stream}) on {counted(len(known), 'clip')} of {counted(len(clips.classes), 'class')}, "
        f"{counted(len(result.history), 'epoch')}: loss {last['loss']:.3f}, training accuracy {100 * last['accuracy']:.1f}%"
    )
    if test:
        share = 100 * found["held_out_accuracy"]
        common.say(f"accuracy on {counted(len(test), 'held-out clip')}: {share:.1f}%")
    common.say(outcome(common, resume, counted(len(result.history), "epoch"), checkpoint, record))
    return 0


@command(app, "predict", said={"frames": "VIDEO", "path": "-o", "output": "-o"}, without=("seed",))
def predict(
    checkpoint: Checkpoint,
    video: Annotated[
        list[Path],
        typer.Argument(
            metavar="VIDEO",
            parser=values.there,
            help="videos, PNG strips, folders of frames, or folders of these",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            parser=values.target,
            help=".gif or .mp4; for several videos a folder [default: here]",
        ),
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option(
            "--actors", metavar="N", parser=values.positive, help="show up to N actors [default: 4]"
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            metavar="FILE",
            parser=values.writes(".csv"),
            help="write the boxes as a table, with frames from 0",
        ),
    ] = None,
    force: Force = False,
    *,
    common: Common,
) -> int:
    """Predict the class, attention and boxes of videos."""
    from amstel import _files
    from amstel.apps import ranks as processes
    from amstel.apps.video import network, predict

    kind = network.read(checkpoint)[0].settings.model
    if (table or actors) and kind not in names.ATTENTIVE:
        option = "--csv" if table else "--actors"
        raise ValueError(
            f"{option} needs a model with attention, from which the boxes come; {checkpoint} holds {kind}"
        )
    sources = predict.find(video)
    targets = predict.targets(sources, output, kind)
    for target in targets:
        values.ends_in(str(target), (".gif", ".mp4"))
        _files.distinct(target, checkpoint, *video, argument="output")
    if len(targets) > 1 and output is not None:
        values.folder_to_write(str(output)).mkdir(parents=True, exist_ok=True)
    for target in targets:
        values.file_to_write(str(target))
    if table is not None:
        _files.distinct(table, checkpoint, *video, argument="csv")
    new([*targets, table], force)
    with processes.group(common.device) as ranks:
        model = network.load(checkpoint).to(ranks.device)
        with common.progress(len(sources) if ranks.first else 0, "videos") as update:
            outcomes = predict.files(model, sources, targets, ranks, update, actors or 4)
        if not ranks.first:
            return 0
    done = [outcome.value for outcome in outcomes if outcome.value is not None]
    failed = report(outcomes, lambda number: str(sources[number]))
    if table is not None:
        text = io.StringIO(newline="")
        csv.writer(text).writerows(predict.table(done))
        _files.write_text(table, text.getvalue())
    common.write_json({"checkpoint": str(checkpoint), "videos": done, **failed})
    for record in done:
        width = max(map(len, record["probabilities"]))
        if len(sources) > 1:
            common.say(f"{record['input']}:")
        for name, probability in record["probabilities"].items():
            common.say(f"{name:{width}s} {100 * probability:5.1f}%")
        if len(record["tubes"]) > 1:
            common.say(f"{len(record['tubes'])} actors")
        common.say(f"wrote {record['output']}")
    if table is not None:
        common.say(f"wrote {table}")
    return 1 if failed else 0


@command(app, "study", without=("seed", "device"))
def study(
    study: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            parser=values.choice(STUDIES, localisation="localization"),
            help=", ".join(STUDIES),
        ),
    ],
    root: Annotated[
        Path | None,
        typer.Option(
            "--root",
            metavar="DIR",
            parser=values.folder_there,
            help="real clips [default: $AMSTEL_DATA/video]",
        ),
    ] = None,
    *,
    common: Common,
) -> int:
    """Run an experiment whose results are in benchmarks/results.

    It runs with its own seeds, on the CPU.
    """
    from amstel.apps.video import studies

    if root is not None and study == "order":
        raise ValueError("--root is not for order, whose clips are drawn")
    common.write_json(studies.STUDIES[study](root, say=common.say))
    return 0
