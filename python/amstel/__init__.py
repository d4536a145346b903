"""Fused PyTorch operators, CPU and CUDA, for four model families from Amsterdam, and the models on them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from amstel import (
    _library,  # noqa: F401  (loads the operators)
    ops,
)
from amstel.graph import Graph

if TYPE_CHECKING:
    from amstel import data, interop, inverse, media, nn, tracking, video, weights
    from amstel.inverse.restore import restore

__version__ = "0.1.0"
__all__ = [
    "Graph",
    "data",
    "interop",
    "inverse",
    "media",
    "nn",
    "ops",
    "restore",
    "tracking",
    "video",
    "weights",
]

# Imported when they are first named, so that `import amstel` stays quick; the last two are of the last release.
_LAZY = (
    *("data", "draw", "interop", "inverse", "media", "nn", "tracking", "video", "weights"),
    *("recipes", "restoration"),
)


def __getattr__(name: str) -> Any:
    if name == "restore":
        from amstel.inverse.restore import restore

        return restore
    if name in _LAZY:
        return import_module(f"amstel.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
