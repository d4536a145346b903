"""Arguments that are one value for all layers, or a list with one for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from amstel import _check


def _listed(value: Any) -> bool:
    return isinstance(value, (tuple, list)) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _is_per_layer(name: str, value: Any) -> bool:
    """Two integers are height and width, where there is such a thing."""
    return _listed(value) and (name == "hidden_channels" or len(value) != 2 or any(map(_listed, value)))


def count_of(name: str, value: Any) -> int:
    return len(value) if _is_per_layer(name, value) else 1


def per_layer(name: str, value: Any, count: int) -> tuple[Any, ...]:
    """A number (of hidden channels) or a pair (of anything else) for every layer."""
    parse: Callable[[str, Any], Any]
    parse = (lambda n, v: _check.integer(n, v, 1)) if name == "hidden_channels" else _check.pair
    if not _is_per_layer(name, value):
        return (parse(name, value),) * count
    if len(value) != count:
        one = "an integer >= 1" if name == "hidden_channels" else "an integer >= 1 or two of them"
        _check.fail(name, f"{one}, or a list of these for each layer (num_layers is {count})", value)
    return tuple(parse(f"{name}[{k}]", v) for k, v in enumerate(value))
