"""`amstel demo`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from amstel.cli import _values as values
from amstel.cli._command import Common, command

#: What the commands call the families, and what their applications are called.
FAMILIES = {"graphs": "graphs", "video": "video", "track": "tracking", "restore": "restoration"}


#: A second thread costs time.
THREADS = 1


def add(app: typer.Typer) -> None:
    @command(app, "demo", threads=THREADS)
    def demo(
        family: Annotated[
            list[str] | None,
            typer.Argument(
                metavar="FAMILY",
                parser=values.choice(tuple(FAMILIES), **{v: k for k, v in FAMILIES.items()}),
                help=f"{', '.join(FAMILIES)} [default: all four]",
            ),
        ] = None,
        output: Annotated[
            Path,
            typer.Option(
                "--output",
                "-o",
                metavar="DIR",
                parser=values.folder_to_write,
                help="folder for the page and its pictures",
            ),
        ] = Path("amstel_demo"),
        *,
        common: Common,
    ) -> int:
        """Run all four families and show the results on one page.

        It takes about a minute. All data ships with amstel.
        """
        from amstel.apps import demo, demo_page

        page = output / demo.PAGE
        if page.exists() and not demo_page.is_one(page):
            raise FileExistsError(f"{page} exists and is another page: -o DIR names another folder")
        wanted = [name for key, name in FAMILIES.items() if not family or key in family]
        seed, threads = common.seed or 0, common.threads or THREADS
        found = demo.run(output, common.say, common.device, seed, wanted, common.progress, threads)
        common.write_json(found)
        missing = [line for entry in found.values() for line in entry["missing"]]
        for line in missing:
            print(f"amstel demo: {line}", file=sys.stderr)
        return 1 if missing else 0
