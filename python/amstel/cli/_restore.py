"""Common to the commands of `amstel restore`, and the training options that the settings do not describe themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amstel.apps.restoration.settings import TASKS as TRAINED
from amstel.apps.restoration.settings import USUAL
from amstel.cli import _values as values

if TYPE_CHECKING:
    from amstel.nn import RIM

TASKS = ("denoise", "inpaint", "deblur", "sr", "mri")
Level = values.number(0, above=True)
Scale = values.integer(2, 16)  # LARGEST_SCALE of amstel.inverse.restore


def level(text: str) -> float | Path | None:
    """A number, the file of a map, or nothing where the noise is to be estimated."""
    if text == "auto":
        return None
    return Level(text) if values.is_number(text) or not Path(text).is_file() else Path(text)


def only(task: str, **given: tuple[Any, tuple[str, ...]]) -> None:
    """An error for an option of another task: better said than left out of account."""
    for name, (value, allowed) in given.items():
        if value not in (None, [], False) and task not in allowed:
            raise ValueError(f"--{name.replace('_', '-')} is for --task {' and '.join(allowed)}")


def model(weights: str | Path | None, device: Any) -> RIM | None:
    from amstel.apps.restoration import train
    from amstel.nn import RIM

    if weights is None:
        return None
    return (RIM.pretrained(weights) if isinstance(weights, str) else train.load(weights)).to(device)


Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        parser=values.weights_there,
        help="a checkpoint, or gray, 3task, ... [default: bundled]",
    ),
]


def _usual(name: str) -> dict[str, str]:
    """The default of an option that depends on the network."""
    return {"default": "; ".join(f"{network} {usual[name]}" for network, usual in USUAL.items())}


OPTIONS: dict[str, Any] = {
    "task": {
        "parser": values.choice(tuple(TRAINED), colour="color", grey="gray"),
        "help": ", ".join(TRAINED),
    },
    "network": {
        "parser": values.choice(tuple(USUAL)),
        "help": "unet or conv",
        "default": "conv for sr and mri, else unet",
    },
    "features": {"parser": values.positive, "help": "channels", **_usual("features")},
    "steps": {"parser": values.positive, "help": "inference steps", **_usual("steps")},
    "stride": {"parser": values.positive, "help": "stride of conv's first layer", **_usual("stride")},
    "depth": {
        "parser": values.positive,
        "help": "layers between the recurrent ones; unet: blocks per scale",
        **_usual("depth"),
    },
    "iterations": {"parser": values.positive, "help": "batches to train on"},
    "batch": {"parser": values.positive, "help": "patches per batch, over all processes", **_usual("batch")},
    "size": {
        "parser": values.positive,
        "help": "side of a patch; unet: at first",
        **_usual("size"),
    },
    "rounded": {
        "parser": values.number(0),
        "help": "unet: share of patches rounded to 8 bits",
        "default": "1/3",
    },
    "drawn": {"parser": values.number(0), "help": "unet: share of patches that are drawings"},
    "fixed_size": {"parser": bool, "help": "unet: keep the patch size instead of growing it"},
    "without_estimate": {"parser": bool, "help": "leave the estimate out of the network's input"},
    "without_state": {"parser": bool, "help": "leave out the state between steps"},
    "learning_rate": {"parser": values.number(0), "help": "learning rate", **_usual("learning_rate")},
}
