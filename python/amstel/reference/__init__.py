"""The operators in plain PyTorch: the oracle of the tests, the export path, the explanation."""

from amstel.reference.spmm import spmm

__all__ = ["spmm"]
