"""Find a font that has the letters of a caption, in any language."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from amstel._optional import need

# Whose names are known to hold many scripts come first.
_WIDE = (
    "notosanscjk",
    "sourcehansans",
    "arialunicode",
    "arial unicode",
    "unifont",
    "dejavusans.",
    "notosans-regular",
)


def _files() -> Iterator[Path]:
    """Fonts of this machine: matplotlib's own, then those of the system."""
    spec = importlib.util.find_spec("matplotlib")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        yield Path(folder) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    home = Path.home()
    folders = {
        "win32": [Path(os.environ.get("WINDIR", "C:/Windows")) / "Fonts"],
        "darwin": [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"],
    }.get(
        sys.platform,
        [
            Path("/usr/share/fonts"),
            Path("/usr/local/share/fonts"),
            home / ".fonts",
            home / ".local/share/fonts",
        ],
    )
    found = [
        file
        for folder in folders
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in (".ttf", ".otf", ".ttc")
    ]
    yield from sorted(found, key=lambda file: not file.name.lower().startswith(_WIDE))


@functools.cache
def _candidates() -> tuple[Path, ...]:
    return tuple(file for file in _files() if file.is_file())


def _missing(font: Any, letters: set[str]) -> set[str]:
    """Letters for which the font has nothing but its mark of an unknown one."""

    def shape(letter: str) -> tuple:
        mask = font.getmask(letter)
        return mask.size, bytes(mask)

    # No font has a glyph for this place of the private range that ends with it.
    unknown = shape("\U0010fffd")
    return {letter for letter in letters if shape(letter) == unknown}


@functools.lru_cache(maxsize=64)
def _font(letters: frozenset[str], size: int) -> tuple[Any, frozenset[str]]:
    """The font with the most of the letters, and those that it lacks."""
    fonts = need("PIL.ImageFont", extra="video", purpose="amstel.video.annotate")
    best = fonts.load_default(size)
    lacks = _missing(best, set(letters)) if letters else set()
    if lacks:
        for file in _candidates():
            try:
                font = fonts.truetype(str(file), size)
                missing = _missing(font, set(letters))
            except (OSError, ValueError):
                continue
            if len(missing) < len(lacks):
                best, lacks = font, missing
            if not lacks:
                break
    return best, frozenset(lacks)


def fitting(captions: Sequence[str], size: int) -> tuple[Any, list[str]]:
    """A font of `size` pixels for the captions, and the captions, with U+xxxx for letters that no installed font has."""
    letters = frozenset(
        letter for text in captions for letter in text if not letter.isspace() and letter.isprintable()
    )
    font, lacks = _font(letters, size)
    table = {ord(letter): f"U+{ord(letter):04X}" for letter in lacks}
    # Line ends and other control characters would be drawn over what lies below.
    lines = ("".join(c if c.isprintable() else " " for c in text) for text in captions)
    return font, [line.translate(table) for line in lines]
