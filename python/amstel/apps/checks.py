"""The checks of `amstel._check`, for modules that are to be imported without torch: a good value needs none of it."""

from __future__ import annotations

import math
from typing import Any


def fail(argument: str, expected: str, got: Any) -> None:
    """ValueError that names the argument, what was expected and what came."""
    from amstel import _check

    _check.fail(argument, expected, got)


def integer(argument: str, value: Any, least: int, most: int = 2**31 - 1) -> int:
    """An integer of a range, NumPy's too."""
    if type(value) is int and least <= value <= most:
        return value
    from amstel import _check

    expected = f"an integer >= {least}"
    value = _check.integer(argument, value, least, expected)
    if value > most:
        _check.fail(argument, f"{expected} and <= {most}", value)
    return value


def number(argument: str, value: Any, expected: str, least: float = 0.0, below: float = math.inf) -> float:
    """A finite number of a range, NumPy's too."""
    if type(value) is float and least <= value < below:
        return value
    from amstel import _check

    return _check.number(argument, value, expected, least=least, below=below)
