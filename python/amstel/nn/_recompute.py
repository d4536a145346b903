"""A part of a forward pass that is recomputed for its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.checkpoint import checkpoint

from amstel.ops._raw import transformed


def recomputed(function: Callable, *given: Any) -> Any:
    """function(*given), without random numbers, which keeps `given` alone for the gradient; but everything under torch.func,
    which takes no hooks on what is saved."""
    if transformed():
        return function(*given)
    return checkpoint(function, *given, use_reentrant=False, preserve_rng_state=False)
