"""`amstel info`."""

from __future__ import annotations

import typer

from amstel.cli._command import Common, command


def add(app: typer.Typer) -> None:
    @command(app, "info", bare={"--json": "-"}, without=("seed", "device"))
    def info(*, common: Common) -> int:
        """Show what a bug report needs: versions, build and devices."""
        from amstel import info

        facts = info.report()
        for name, value in facts:
            common.say(f"{name:13s} {value}")
        common.write_json(dict(facts))
        return 0
