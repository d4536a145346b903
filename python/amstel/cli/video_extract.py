"""`amstel video extract`: compute the features of frames once, for all trainings."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from amstel._words import counted
from amstel._words import size as in_words
from amstel.apps.video import settings as names
from amstel.cli import _values as values
from amstel.cli._command import Common, command
from amstel.cli._family import Force, report
from amstel.cli._video import app, open_clips

_OPTIONS: dict[str, Any] = {
    "stream": {"parser": values.choice(names.STREAMS), "help": "rgb, flow, both", "default": "rgb"},
    "layer": {"parser": values.choice(names.LAYERS), "help": "pool5, or fc7 for cnn and lstm"},
    "motion": {"parser": values.choice(names.MOTIONS), "help": ", ".join(names.MOTIONS)},
    "frame_size": {"parser": values.positive, "help": "side of a frame, in pixels", "default": 224},
    "stride": {"parser": values.positive, "help": "take every Xth frame of a clip"},
    "fps": {"parser": values.number(0), "help": "frames per second to use; 0: every frame"},
}


@command(app, "extract", settings=names.Settings(), own=_OPTIONS, said={"clips": "ROOT"}, without=("seed",))
def extract(
    root: Annotated[
        Path,
        typer.Argument(metavar="ROOT", parser=values.folder_there, help="clips, as for amstel video train"),
    ],
    weights: Annotated[
        Path,
        typer.Option(
            "--weights", metavar="FILE", parser=values.file_there, help="torchvision's VGG-16 weights"
        ),
    ],
    out: Annotated[
        Path,
        values.out("folder for the features"),
    ],
    lists: Annotated[
        Path | None,
        typer.Option(
            "--lists",
            metavar="DIR",
            parser=values.folder_there,
            help="lists of official splits, kept with the features",
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="stop at a clip that cannot be read")] = False,
    force: Force = False,
    *,
    given: dict[str, Any],
    common: Common,
) -> int:
    """Compute the VGG-16 features of every frame once.

    Give the folder to amstel video train and evaluate as ROOT.
    """
    from amstel import _files
    from amstel.apps import ranks as processes
    from amstel.apps.video import features, train

    _files.distinct(out, root, argument="out")
    stream = given.pop("stream", "rgb")
    if "motion" in given and stream == "rgb":
        raise ValueError("--motion needs --stream flow or both")
    model = "cnn" if given.get("layer") == "fc7" else "convlstm"
    settings = names.Settings(**{"model": model, "backbone": "vgg16", "frame_size": 224, **given})
    clips, wrong = open_clips(root, None, lists, strict, fps=settings.fps, listed=lists is not None)
    state = train.backbone_weights(weights, settings.layer)
    streams = ("rgb", "flow") if stream == "both" else (stream,)
    with processes.group(common.device) as ranks:
        with common.progress(len(ranks.share(clips.names)) if ranks.first else 0, "clips") as update:
            outcomes = features.extract(
                clips, settings, out, state, streams=streams, force=force, ranks=ranks, progress=update
            )
        if not ranks.first:
            return 0
    frames = sum(outcome.value for outcome in outcomes if outcome.value is not None)
    size = frames * features.bytes_a_frame(settings) * len(streams)
    failures = [dataclasses.replace(o, item=clips.names[o.item]) for o in outcomes if o.error is not None]
    failed = report([*wrong, *failures])
    bad = len(wrong) + len(failures)
    common.say(
        f"{settings.layer} of {counted(frames, 'frame')} of {counted(len(outcomes), 'clip')}, {' and '.join(streams)}: {in_words(size)} in {out}"
        + (f"; {bad} clip{'s were' if bad > 1 else ' was'} left out" if bad else "")
    )
    common.write_json({"frames": frames, "clips": len(outcomes), "bytes": size, "streams": streams, **failed})
    return 1 if bad else 0
