"""Fused PyTorch operators for CPU and CUDA, for four model families from Amsterdam, and the models built on them."""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any


def _is_command() -> bool:
    """Whether this process is the command `amstel` or `python -m amstel`, which answers --help before it loads PyTorch."""
    if sys.argv[:1] == ["-m"]:  # so it is while Python looks for the module to run
        return "amstel" in sys.orig_argv[sys.orig_argv.index("-m") + 1 :][:1]
    return bool(sys.argv) and os.path.basename(sys.argv[0]) in ("amstel", "amstel.exe")


if TYPE_CHECKING or not _is_command():
    from amstel import (
        _library,  # noqa: F401  (loads the operators)
        ops,
    )
    from amstel._checks import raise_pending_checks, set_checks
    from amstel.graph import Graph

if TYPE_CHECKING:
    from amstel import data, distributed, interop, inverse, media, nn, plot, tracking, video, weights
    from amstel.inverse.restore import restore

__version__ = "0.2.0"
__all__ = [
    "Graph",
    "data",
    "distributed",
    "interop",
    "inverse",
    "media",
    "nn",
    "ops",
    "plot",
    "raise_pending_checks",
    "restore",
    "set_checks",
    "tracking",
    "video",
    "weights",
]

# Imported when they are first named, so that `import amstel` stays quick; the last two are of the last release.
_LAZY = (
    *(
        "bench",
        "data",
        "distributed",
        "draw",
        "info",
        "interop",
        "inverse",
        "media",
        "nn",
        "ops",
        "plot",
        "reference",
        "testing",
        "tracking",
        "video",
        "weights",
    ),
    *("recipes", "restoration"),
)
_ELSEWHERE = {
    "Graph": "amstel.graph",
    "raise_pending_checks": "amstel._checks",
    "restore": "amstel.inverse.restore",
    "set_checks": "amstel._checks",
}


def __getattr__(name: str) -> Any:
    if name in _ELSEWHERE:
        return getattr(import_module(_ELSEWHERE[name]), name)
    if name in _LAZY:
        return import_module(f"amstel.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
