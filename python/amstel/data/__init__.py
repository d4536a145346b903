"""Readers of the field's data formats, and small data sets that need no file."""

from amstel.data.clips import UCF101, Clip, ClipFolder, MovingShapes, Weizmann, generate_moving_shapes
from amstel.data.nodes import NodeData, block_model, karate_club
from amstel.data.planetoid import Planetoid

__all__ = [
    "UCF101",
    "Clip",
    "ClipFolder",
    "MovingShapes",
    "NodeData",
    "Planetoid",
    "Weizmann",
    "block_model",
    "generate_moving_shapes",
    "karate_club",
]
