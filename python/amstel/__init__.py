"""Fused PyTorch operators, CPU and CUDA, for four model families from Amsterdam, and the models on them."""

from amstel import _library, ops  # noqa: F401
from amstel.graph import Graph

__version__ = "0.1.0"
__all__ = ["Graph", "ops"]
