"""Common to the commands of `amstel track`: the family, layouts of data, options of the tracker."""

from __future__ import annotations

from typing import Annotated

import typer

from amstel.cli import _values as values
from amstel.cli._command import family

app = family(
    "Track objects in a video from their first boxes (SINT).\n\nExample: amstel track VIDEO --box X,Y,W,H",
    default="predict",
    epilog="To track in a folder named like a command, write ./train or ./evaluate.",
)
#: Readers of sequences, by the name of their layout.
LAYOUTS = {"otb": "OTB", "got10k": "GOT10k", "vot": "VOT", "alov": "ALOV"}

Plus = Annotated[bool, typer.Option("--plus", help="SINT+: candidates must agree with the optical flow")]
Redetect = Annotated[
    bool | None,
    typer.Option(
        "--redetect/--no-redetect",
        help="search the whole frame when the target is lost [default: the preset's]",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="X",
        parser=values.choice(("default", "paper")),
        help="default, or paper for the paper's constants",
    ),
]
Origin = Annotated[
    int,
    typer.Option(
        "--origin",
        metavar="N",
        parser=values.integer(0, 1),
        help="number of the first pixel in box files, 0 or 1",
    ),
]
