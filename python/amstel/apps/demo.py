"""`amstel demo`: what this library does, all four families on data that it carries, in under two minutes."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: The families, each with a `demo.run` of its own, and what it is about.
FAMILIES = {
    "graphs": "GCN: documents are named by their words and their citations",
    "video": "ConvALSTM: which way a colored shape goes among gray ones, and where the network looks",
    "tracking": "SINT: an object is followed from its first box, and found again behind a pillar",
    "restoration": "RIM: images are refined step by step, from what was measured and a recurrent network",
}


@dataclass
class Show:
    """What one family shows.

    Attributes:
        folder: of the pictures.
        say: takes a line of text.
        device: where to compute.
        seed: of everything random.
        figures: what was reached, by name.
        pictures: files that were written.
        missing: what could not be shown, with the command that brings it.
    """

    folder: Path
    say: Callable[[str], None] = print
    device: str = "cpu"
    seed: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    pictures: list[Path] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def wrote(self, path: Path) -> None:
        self.pictures.append(path)
        self.say(f"  wrote {path}")

    @contextlib.contextmanager
    def needs(self, what: str) -> Iterator[None]:
        """For `what`, which an extra may be needed for: without it the rest goes on."""
        try:
            yield
        except ImportError as error:
            self.missing.append(f"no {what}: {error}")
            self.say(f"  (no {what}: {error})")


def run(
    folder: Path, say: Callable[[str], None] = print, device: str = "cpu", seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Show all families; for each what it reached, its pictures, what is missing and how long it took."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {}
    for number, (family, about) in enumerate(FAMILIES.items(), start=1):
        say(f"[{number}/{len(FAMILIES)}] {about}")
        show, start = Show(folder, say, device, seed), time.perf_counter()
        with show.needs(family):
            importlib.import_module(f"amstel.apps.{family}.demo").run(show)
        seconds = time.perf_counter() - start
        say(f"  {seconds:.1f} s")
        found[family] = {
            "figures": show.figures,
            "pictures": [str(path) for path in show.pictures],
            "missing": show.missing,
            "seconds": round(seconds, 3),
        }
    return found
