"""Common to the commands of `amstel video`: the family, the options for clips and splits, and how clips are opened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from amstel.apps.video import settings as names
from amstel.cli import _values as values
from amstel.cli._command import family

app = family("Recognize actions in videos and localize them (VideoLSTM).")

Checkpoint = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT", parser=values.file_there, help="checkpoint.pt from amstel video train"
    ),
]
Split = Annotated[
    int | None,
    typer.Option(
        "--split", metavar="N", parser=values.positive, help="official split, from lists in or beside ROOT"
    ),
]
Lists = Annotated[
    Path | None,
    typer.Option(
        "--lists", metavar="DIR", parser=values.folder_there, help="folder with the lists for --split"
    ),
]


def in_use(given: Mapping[str, Any], settings: names.Settings) -> None:
    """An error for an option that does nothing with this model: better said than left out of account."""
    model = settings.model
    if "motion" in given and not settings.uses_motion:
        raise ValueError(f"--motion needs --model videolstm, or --stream flow or both, got --model {model}")
    if "initial_state" in given and model not in names.ATTENTIVE:
        raise ValueError(f"--initial-state needs a model with attention, got --model {model}")
    if "hidden" in given and model == "cnn":
        raise ValueError("--hidden needs a recurrent model, got --model cnn")


def open_clips(
    root: Path,
    split: int | None,
    lists: Path | None,
    strict: bool = False,
    *,
    fps: float = 0.0,
    listed: bool | None = None,
    boxes: Path | None = None,
) -> tuple[Any, list[Any]]:
    """The clips, or their features, and which of those that are listed or there cannot be read, said before the first
    epoch. `listed`: whether the clips are those of the lists; None: where a split is asked for. With `boxes` the clips
    are those that this annotation of UCF101-24 has."""
    import warnings

    from amstel.apps.ranks import Outcome
    from amstel.apps.video import features
    from amstel.data import UCF101, ClipFolder, SplitClips

    if listed is None:
        listed = split is not None
        if lists is not None and split is None:
            raise ValueError("--lists needs --split N")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each is told in a line of its own
        warnings.filterwarnings("always", message=r"(?s).* ignored \(")
        if boxes is not None:
            if features.is_folder(root):
                raise ValueError(f"{root} holds features, which have no boxes: leave out --boxes")
            if lists is not None:
                raise ValueError(
                    "--lists cannot be given with --boxes: the lists are in ROOT or beside the boxes"
                )
            clips: Any = UCF101(root, boxes)
            clips.fps = fps or None
        elif features.is_folder(root):
            if lists is not None:
                raise ValueError(f"{root} holds features, whose lists were given to amstel video extract")
            clips = features.FeatureFolder(root)
        else:
            clips = SplitClips(root, lists, strict=strict) if listed else ClipFolder(root)
            clips.fps = fps or None
        wrong: list[Any] = [
            Outcome(name, error="is listed but missing") for name in getattr(clips, "missing", [])
        ]
        if split is not None:
            clips.split(split)
        wrong += [Outcome(name, error=reason) for name, reason in clips.check(strict)]
    return clips, wrong


def read_record(record: Path) -> dict[str, Any]:
    """What training.json says about the run to continue."""
    import json

    try:
        found = json.loads(record.read_bytes())
        if not isinstance(found, dict) or not isinstance(found["held_out"], list):
            raise ValueError("another form")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{record} does not exist; it says which clips were held out when the training began"
        ) from None
    except (KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"{record} is not what `amstel video train` wrote: {error}") from None
    return found
