"""Progress of long work: one callback, `update(n)` after every n items, which draws a bar, writes a log line or does nothing."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

#: Seconds between two lines in a log.
INTERVAL = 60.0


@contextlib.contextmanager
def shown(
    total: int | None, unit: str, *, quiet: bool = False, stream: Any = None
) -> Iterator[Callable[[int], None]]:
    """`update(n)`: a bar on a terminal if rich is installed, else one line per minute. `total` None means unknown.

    Example:
        >>> with shown(3, "images") as update:
        ...     for _ in range(3):
        ...         update(1)
    """
    stream = stream or sys.stderr
    unit = unit.removesuffix("es" if unit.endswith("ches") else "s") if total == 1 else unit
    if quiet or total == 0:
        yield lambda n: None
        return
    if stream.isatty():
        try:
            bar = _bar(unit, total, stream)
        except ImportError:
            pass
        else:
            with bar:
                task = bar.add_task("", total=total)
                yield lambda n: bar.update(task, advance=n)
            return
    yield _Log(total, unit, stream).update


def _bar(unit: str, total: int | None, stream: Any) -> Any:
    """A rich progress bar that disappears when the work is done."""
    from rich import progress
    from rich.console import Console

    amount = "{task.completed:,.0f}" if total is None else "{task.completed:,.0f} of {task.total:,.0f}"
    return progress.Progress(
        *([] if total is None else [progress.BarColumn(), progress.TaskProgressColumn()]),
        progress.TextColumn(f"{amount} {unit}"),
        progress.TimeElapsedColumn() if total is None else progress.TimeRemainingColumn(),
        console=Console(file=stream),
        transient=True,
        redirect_stdout=False,
        refresh_per_second=5,
    )


class _Log:
    def __init__(self, total: int | None, unit: str, stream: Any):
        self.total, self.unit, self.stream = total, unit, stream
        self.done, self.start = 0, time.monotonic()
        self.said = self.start

    def update(self, n: int) -> None:
        self.done += n
        now = time.monotonic()
        if now - self.said < INTERVAL:
            return
        self.said = now
        rate = self.done / (now - self.start)
        of, left = ("", "") if self.total is None else (f" of {self.total}", "")
        if self.total is not None and rate > 0:
            left = f", {(self.total - self.done) / rate / 60:.0f} min left"
        print(f"{self.done}{of} {self.unit}, {rate:.3g}/s{left}", file=self.stream, flush=True)
