"""`amstel bench`."""

from __future__ import annotations

from typing import Annotated

import typer

from amstel.cli import _values as values
from amstel.cli._command import Common, command

_HEADS = (
    f"{'operation':10s} {'pass':19s} {'features':>8s} {'amstel':>9s} {'torch.sparse.mm':>16s} {'ratio':>6s}"
)


def add(app: typer.Typer) -> None:
    @command(app, "bench", without=("seed", "device"))
    def bench(
        nodes: Annotated[
            int,
            typer.Option(
                "--nodes", metavar="N", parser=values.positive, help="nodes in the graph [default: 20000]"
            ),
        ] = 20000,
        degree: Annotated[
            float,
            typer.Option(
                "--degree",
                metavar="D",
                parser=values.number(0, above=True),
                help="mean number of neighbors [default: 10]",
            ),
        ] = 10.0,
        features: Annotated[
            list[int] | None,
            typer.Option(
                "--features",
                metavar="F...",
                parser=values.positive,
                help="feature widths [default: 16 64 256]",
            ),
        ] = None,
        repeats: Annotated[
            int,
            typer.Option("--repeats", metavar="N", parser=values.positive, help="timed runs [default: 10]"),
        ] = 10,
        *,
        common: Common,
    ) -> int:
        """Time the graph operator against PyTorch on this machine."""
        import torch

        from amstel import bench
        from amstel._words import counted

        threads = torch.get_num_threads()
        common.say(
            f"{counted(nodes, 'node')}, mean degree {degree:g}, float32, {counted(threads, 'thread')}; ms"
        )
        rows = bench.spmm_rows(nodes, degree, features or [16, 64, 256], repeats)
        common.say(_HEADS)
        for row in rows:
            ratio = row["torch.sparse.mm"] / row["amstel"]
            common.say(
                f"{row['operation']:10s} {row['pass']:19s} {row['features']:8d} {row['amstel']:9.3f} "
                f"{row['torch.sparse.mm']:16.3f} {ratio:5.1f}x"
            )
        common.write_json({"threads": threads, "rows": rows})
        return 0
