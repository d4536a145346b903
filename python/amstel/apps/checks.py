"""The checks of `amstel._check` for modules that must not import torch; only a bad value imports it."""

from __future__ import annotations

import math
from typing import Any


def fail(argument: str, expected: str, got: Any) -> None:
    """ValueError that names the argument, what was expected and what it got."""
    from amstel import _check

    _check.fail(argument, expected, got)


def integer(argument: str, value: Any, least: int, most: int = 2**31 - 1) -> int:
    """An integer in a range; NumPy integers count."""
    if type(value) is int and least <= value <= most:
        return value
    from amstel import _check

    expected = f"an integer >= {least}"
    value = _check.integer(argument, value, least, expected)
    if value > most:
        _check.fail(argument, f"{expected} and <= {most}", value)
    return value


def number(argument: str, value: Any, expected: str, least: float = 0.0, below: float = math.inf) -> float:
    """A finite number in a range; NumPy numbers count."""
    if type(value) is float and least <= value < below:
        return value
    from amstel import _check

    return _check.number(argument, value, expected, least=least, below=below)
