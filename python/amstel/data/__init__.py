"""Readers of the field's data formats, and small data sets that need no file."""

from amstel.data.nodes import NodeData, block_model, karate_club
from amstel.data.planetoid import Planetoid

__all__ = ["NodeData", "Planetoid", "block_model", "karate_club"]
