"""`amstel demo`: all four families on bundled data, in about a minute."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

#: The families, each with a `demo.run` of its own, and what it is about.
FAMILIES = {
    "graphs": "GCN: classify documents by their words and their citations",
    "video": "ConvALSTM: tell which way a colored shape moves, and where the network looked",
    "tracking": "SINT: follow an object from its first box, and find it again behind a pillar",
    "restoration": "RIM: restore images step by step, from the measurement and a recurrent network",
}
PAGE = "index.html"


@dataclass(frozen=True)
class Exhibit:
    """One entry of the page.

    Attributes:
        title: what was done.
        figure: the number it reached, as text.
        explained: what that number means, and what to compare it with.
        pictures: files in the folder of the page; empty if a package that draws them is missing.
        code: the functions or classes that ran; the page shows their source.
        wide: the pictures need the full width of the page.
    """

    title: str
    figure: str
    explained: str
    pictures: Sequence[Path]
    code: Sequence[Any]
    wide: bool = False


@dataclass
class Show:
    """What one family has to show.

    Attributes:
        folder: of the pictures.
        about: the family's line in `FAMILIES`.
        say: takes a line of text.
        device: where to compute.
        seed: for everything random.
        progress: `progress(total, unit)` is a context that gives `update(n)`, to be called after n more steps.
        figures: the results, by name.
        exhibits: what the page shows.
        pictures: the files that were written.
        missing: what could not be shown, with the command that installs what it needs.
    """

    folder: Path
    say: Callable[[str], None] = print
    device: str = "cpu"
    seed: int = 0
    about: str = ""
    progress: Callable[[int, str], Any] = lambda total, unit: contextlib.nullcontext(lambda n: None)
    figures: dict[str, float] = field(default_factory=dict)
    exhibits: list[Exhibit] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def wrote(self, path: Path) -> Path:
        self.pictures.append(path)
        self.say(f"  wrote {path}")
        return path

    @contextlib.contextmanager
    def needs(self, what: str) -> Iterator[None]:
        """Wraps code that needs an extra: if the extra is missing, that is recorded and the rest continues."""
        try:
            yield
        except ImportError as error:
            self.missing.append(f"no {what}: {error}")
            self.say(f"  (no {what}: {error})")


def run(
    folder: Path,
    say: Callable[[str], None] = print,
    device: str = "cpu",
    seed: int = 0,
    families: Sequence[str] = tuple(FAMILIES),
    progress: Callable[[int, str], Any] | None = None,
    threads: int = 1,
) -> dict[str, dict[str, Any]]:
    """Run the demos of some families, and write their pictures and one page that shows them.

    Args:
        folder: for the pictures and the page, index.html.
        say: takes a line of text.
        device: where to compute.
        seed: for everything random.
        families: which of `FAMILIES` to run.
        progress: see `Show`.
        threads: how many to compute with. The data are so small that a second one only costs time: nearly three
            times as much on a machine whose cores have other work.

    Returns:
        for each family its results, its pictures, what is missing, and how many seconds it took.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _run(folder, say, device, seed, families, progress)
    finally:
        torch.set_num_threads(before)


def _run(
    folder: Path,
    say: Callable[[str], None],
    device: str,
    seed: int,
    families: Sequence[str],
    progress: Callable[[int, str], Any] | None,
) -> dict[str, dict[str, Any]]:
    from amstel.apps import demo_page

    found: dict[str, dict[str, Any]] = {}
    shows: dict[str, Show] = {}
    for number, family in enumerate(families, start=1):
        say(f"[{number}/{len(families)}] {FAMILIES[family]}")
        show, start = Show(folder, say, device, seed, FAMILIES[family]), time.perf_counter()
        if progress is not None:
            show.progress = progress
        with show.needs(family):
            importlib.import_module(f"amstel.apps.{family}.demo").run(show)
        seconds = time.perf_counter() - start
        say(f"  {seconds:.1f} s")
        shows[family] = show
        found[family] = {
            "figures": show.figures,
            "pictures": [str(path) for path in show.pictures],
            "missing": show.missing,
            "seconds": round(seconds, 3),
        }
    total = sum(entry["seconds"] for entry in found.values())
    page = demo_page.write(folder / PAGE, shows, total)
    say(f"wrote {page} ({total:.0f} s): open it in a browser")
    return found
