"""`amstel demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amstel.cli import _values as values
from amstel.cli._command import Common, command


def add(app: typer.Typer) -> None:
    @command(app, "demo")
    def demo(
        output: Annotated[
            Path,
            typer.Option(
                "--output",
                "-o",
                metavar="DIR",
                parser=values.folder_to_write,
                help="of pictures [default: amstel_demo]",
            ),
        ] = Path("amstel_demo"),
        *,
        common: Common,
    ) -> int:
        """All four families on data that comes along: what they reach, and pictures of it."""
        from amstel.apps import demo

        demo.run(output)
        return 0
