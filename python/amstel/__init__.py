"""Fused PyTorch operators, CPU and CUDA, for four model families from Amsterdam, and the models on them."""

import os
import sys
from typing import TYPE_CHECKING


def _is_command() -> bool:
    """Whether this process is the command `amstel` or `python -m amstel`, which answers --help before it loads PyTorch."""
    if sys.argv[:1] == ["-m"]:  # so it is while Python looks for the module to run
        return "amstel" in sys.orig_argv[sys.orig_argv.index("-m") + 1 :][:1]
    return bool(sys.argv) and os.path.basename(sys.argv[0]) in ("amstel", "amstel.exe")


_COMMAND = _is_command()

if TYPE_CHECKING or not _COMMAND:
    from amstel import (
        _library,  # noqa: F401  (loads the operators)
        data,
        interop,
        inverse,
        nn,
        ops,
        tracking,
        video,
    )
    from amstel.graph import Graph
    from amstel.inverse.restore import restore

__version__ = "0.1.0"
__all__ = [
    "Graph",
    "data",
    "interop",
    "inverse",
    "nn",
    "ops",
    "restore",
    "tracking",
    "video",
]


def __getattr__(name: str) -> object:
    """Names of the last release; and under the command `amstel` all names: they import when they are used."""
    import importlib

    if name in ("recipes", "restoration"):
        return importlib.import_module(f"amstel.{name}")
    if _COMMAND and name in __all__:
        importlib.import_module("amstel._library")
        if name == "Graph":
            return importlib.import_module("amstel.graph").Graph
        if name == "restore":
            return importlib.import_module("amstel.inverse.restore").restore
        return importlib.import_module(f"amstel.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
