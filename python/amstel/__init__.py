"""Fused PyTorch operators, CPU and CUDA, for four model families from Amsterdam, and the models on them."""

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
    """Names of the last release, which import when they are used."""
    if name in ("recipes", "restoration"):
        import importlib

        return importlib.import_module(f"amstel.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
