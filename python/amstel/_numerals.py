"""Numbers in text; without NumPy, which `--help` must not load."""

from __future__ import annotations

from typing import Any


def parsed(text: str, kind: Any = float) -> Any:
    """The number that a text is: ValueError for what only Python takes for one, as 1_0, digits of other scripts, or blanks around."""
    if "_" in text or not text.isascii() or text != text.strip():
        raise ValueError(f"{text!r} is no number")
    return kind(text)
