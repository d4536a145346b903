"""`amstel demo`."""

from __future__ import annotations

import sys
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

        found = demo.run(output, common.say, common.device, common.seed or 0)
        common.write_json(found)
        missing = [line for family in found.values() for line in family["missing"]]
        for line in missing:
            print(f"amstel demo: {line}", file=sys.stderr)
        return 1 if missing else 0
