"""The fused operators as typed, documented, differentiable functions."""

from amstel.ops.spmm import spmm

__all__ = ["spmm"]
