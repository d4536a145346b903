"""Fused PyTorch operators, CPU and CUDA, for four model families from Amsterdam, and the models on them."""

from amstel import (
    _library,  # noqa: F401  (loads the operators)
    data,
    interop,
    inverse,
    nn,
    ops,
    recipes,
    restoration,
    tracking,
    video,
)
from amstel.graph import Graph
from amstel.restoration import restore

__version__ = "0.1.0"
__all__ = [
    "Graph",
    "data",
    "interop",
    "inverse",
    "nn",
    "ops",
    "recipes",
    "restoration",
    "restore",
    "tracking",
    "video",
]
