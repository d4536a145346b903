"""`amstel track`: tracking objects from their first boxes, and training the network that matches them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from amstel._words import counted
from amstel.apps.tracking import settings as names
from amstel.cli import _values as values
from amstel.cli._command import Common, command
from amstel.cli._family import (
    Average,
    Force,
    Out,
    Precision,
    Resume,
    Weights,
    new,
    outcome,
    report,
    restartable,
    with_plan,
)
from amstel.cli._track import LAYOUTS, Plus, Preset, Redetect, app

_BOX = "x,y,w,h in the first frame, 0-based; repeat it for more targets [default: from an OTB sequence]"


_WRITTEN = (".mp4", ".gif", ".txt", ".csv", ".json")


def _output(text: str) -> Path:
    if text and (Path(text).is_dir() or text.endswith("/")):
        return values.folder_to_write(text)
    if not Path(text).suffix:
        values.fail(f"{text or repr(text)} must end in {', '.join(_WRITTEN)}, or in / as a folder")
    return values.file_to_write(text, _WRITTEN)


_output.endings = _WRITTEN  # type: ignore[attr-defined]


@command(
    app,
    "predict",
    said={"box": "--box", "boxes": "--box", "frames": "VIDEO", "path": "-o", "output": "-o"},
    without=("seed",),
)
def predict(
    video: Annotated[
        list[Path],
        typer.Argument(
            metavar="VIDEO",
            parser=values.video,
            help="videos, folders of frames, OTB sequences, or 0: a camera",
        ),
    ],
    box: Annotated[
        list[Any] | None, typer.Option("--box", metavar="X,Y,W,H", parser=values.box, help=_BOX)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            parser=_output,
            help=".mp4, .gif, .txt or .csv with one line per frame from 1, .json as in COCO, or a folder/ [default: VIDEO_sint.mp4]",
        ),
    ] = None,
    target: Annotated[
        int | None,
        typer.Option(
            "--target",
            metavar="N",
            parser=values.positive,
            help="target to follow in an OTB sequence with several",
        ),
    ] = None,
    init_frame: Annotated[
        int,
        typer.Option(
            "--init-frame", metavar="N", parser=values.positive, help="frame of the boxes [default: 1]"
        ),
    ] = 1,
    end_frame: Annotated[
        int | None,
        typer.Option(
            "--end-frame", metavar="N", parser=values.positive, help="last frame [default: the video's]"
        ),
    ] = None,
    every: Annotated[
        int,
        typer.Option("--every", metavar="N", parser=values.positive, help="use every Nth frame [default: 1]"),
    ] = 1,
    audio: Annotated[bool, typer.Option("--audio", help="keep the sound of these frames, in .mp4")] = False,
    force: Force = False,
    plus: Plus = False,
    redetect: Redetect = None,
    preset: Preset = None,
    weights: Weights = None,
    *,
    common: Common,
) -> int:
    """Track one or more objects in a video from their first boxes."""
    from amstel.apps import ranks as processes
    from amstel.apps.tracking import predict
    from amstel.tracking.frames import Frames

    frames = predict.Range(init_frame, end_frame, every)
    unreadable: list[processes.Outcome] = []
    sources = predict.sources(video, box, output, frames, target, audio, unreadable)
    for source in sources:
        values.file_to_write(str(source.target), predict.WRITTEN)
    new([source.target for source in sources], force)
    with processes.group(common.device) as ranks:
        tracker = predict.tracker(weights, ranks.device, plus, redetect, preset)
        failed = report(unreadable).get("failed", []) if ranks.first else []
        alone = len(sources) == 1
        total, unit = (Frames(sources[0].frames).count, "frames") if alone else (len(sources), "videos")
        if alone and total is not None:
            total = frames.count(total)
        with common.progress(total if ranks.first else 0, unit) as update:
            outcomes = processes.each(
                range(len(sources)),
                lambda number: predict.track(sources[number], tracker, update if alone else None),
                ranks,
                None if alone else update,
            )
        if not ranks.first:
            return 0
    done = [outcome.value for outcome in outcomes if outcome.value is not None]
    failed += report(outcomes, lambda number: str(sources[number].path)).get("failed", [])
    said_failed = {"failed": failed} if failed else {}
    common.write_json({"plus": plus, "redetect": tracker.redetect, "videos": done, **said_failed})
    for record in done:
        said = counted(record["frames"], "frame") + (
            f", lost in {record['lost']}" if tracker.redetect else ""
        )
        if "auc" in record:
            said += f"; AUC {record['auc']:.3f}, precision {record['precision']:.3f}, mean IoU {record['mean_iou']:.3f}"
        common.say(f"{said}\nwrote {record['output']}")
    return 1 if failed else 0


_DEFAULT = names.Settings()
_LAYOUTS = ("images", *LAYOUTS)
_OPTIONS: dict[str, Any] = {
    "backbone": {"parser": values.choice(names.BACKBONES), "help": ", ".join(names.BACKBONES)},
    "loss": {"parser": values.choice(names.LOSSES), "help": ", ".join(names.LOSSES)},
    "margin": {"parser": values.number(0), "help": "margin of --loss margin"},
    "boxes": {"parser": values.integer(4), "help": "boxes compared per frame"},
    "mining": {"parser": values.positive, "help": "draw X times as many negatives and keep the hardest"},
    "optimizer": {"parser": values.choice(names.OPTIMIZERS), "help": ", ".join(names.OPTIMIZERS)},
    "learning_rate": {"parser": values.number(0), "help": "learning rate"},
    "weight_decay": {"parser": values.number(0), "help": "weight decay"},
    "epochs": {"parser": values.positive, "help": "passes over the data"},
    "batch": {"parser": values.positive, "help": "pairs per batch, over all processes"},
}


@command(
    app,
    "train",
    settings=_DEFAULT,
    own=_OPTIONS,
    said={"images": "ROOT", "pairs": "ROOT", "initial": "--weights"},
)
@restartable
def train(
    root: Annotated[
        list[Path],
        typer.Argument(metavar="ROOT", parser=values.there, help="folders of images or of sequences"),
    ],
    out: Out,
    resume: Resume = False,
    force: Force = False,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="X",
            parser=values.choice(_LAYOUTS),
            help=f"{', '.join(_LAYOUTS)} [default: images]",
        ),
    ] = "images",
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="FILE",
            help="weights to start from, or imagenet [default: bundled weights; none for vgg16]",
        ),
    ] = None,
    validation: Annotated[
        Path | None,
        typer.Option(
            "--validation", metavar="DIR", parser=values.there, help="data to test on after every epoch"
        ),
    ] = None,
    precision: Precision = None,
    average: Average = None,
    *,
    given: dict[str, Any],
    common: Common,
) -> int:
    """Train SINT's matching function on still images or sequences."""
    from amstel import data as readers
    from amstel.apps import ranks as processes
    from amstel.apps.tracking import initial, train
    from amstel.apps.tracking.folders import warn_of_sequences

    plan = with_plan(precision, average)
    if common.seed is not None:
        given["seed"] = common.seed
    checkpoint = out / train.CHECKPOINT
    if resume:
        if not common.restarted and (given.keys() - {"epochs"} or weights or plan):
            raise ValueError("--resume keeps the settings of the checkpoint: only change --epochs")
        begun = train.read(checkpoint)
        settings = dataclasses.replace(begun.settings, **given)
    else:
        new([checkpoint], force)
        settings = names.Settings(**given)
        if "margin" in given and settings.loss != "margin":
            raise ValueError("--margin needs --loss margin")

    def pairs(folders: list[Path]) -> Any:
        if data == "images":
            return readers.StillPairs(folders)
        found = [list(getattr(readers, LAYOUTS[data])(folder)) for folder in folders]
        for folder, sequences in zip(folders, found, strict=True):
            warn_of_sequences(folder, sequences)
        return readers.SequencePairs([sequence for sequences in found for sequence in sequences])

    known, tested = pairs(root), None if validation is None else pairs([validation])
    begin = initial.weights_of(weights, settings)
    ranks = processes.current(common.device)
    with common.progress(settings.epochs * len(known) if ranks.first else 0, "pairs") as update:
        result = train.train(
            known,
            settings,
            out,
            resume=resume,
            force=force,
            initial=begin,
            validation=tested,
            device=ranks.device,
            progress=update,
            **plan,
        )
    if not ranks.first:
        return 0
    last = result.history[-1]
    common.say(
        f"SINT ({settings.backbone}) on {counted(len(known), 'pair')}, {counted(len(result.history), 'epoch')}: loss {last['loss']:.3f}, "
        f"mean similarity {last['same']:.2f} of the target, {last['other']:.2f} of other boxes\n"
        + outcome(common, resume, counted(len(result.history), "epoch"), checkpoint)
    )
    losses = [entry["loss"] for entry in result.history]
    common.write_json({"settings": dataclasses.asdict(settings), "loss": losses, "history": result.history})
    return 0
