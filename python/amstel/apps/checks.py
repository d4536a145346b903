"""The error of `amstel._check.fail`, for modules that are to be imported without torch."""

from __future__ import annotations

from typing import Any


def fail(argument: str, expected: str, got: Any) -> None:
    """ValueError that names the argument, what was expected and what came."""
    from amstel import _check

    _check.fail(argument, expected, got)
