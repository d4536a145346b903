"""Readers of the field's data formats, and small data sets that need no file."""

from amstel.data import mri
from amstel.data.bouncing import generate_bouncing_digits
from amstel.data.clips import UCF101, Clip, ClipFolder, MovingShapes, Weizmann
from amstel.data.graphs import GraphData, GraphDataset, collate
from amstel.data.images import ImageFolder
from amstel.data.nodes import NodeData, block_model, karate_club
from amstel.data.pairs import FramePair, SequencePairs
from amstel.data.planetoid import Planetoid
from amstel.data.shapes import generate_moving_shapes
from amstel.data.splits import SplitClips
from amstel.data.stills import StillPairs
from amstel.data.tracking import ALOV, OTB, VOT, GOT10k, OTBSequence, TrackingSequence
from amstel.data.tu import TUDataset

__all__ = [
    "ALOV",
    "OTB",
    "UCF101",
    "VOT",
    "Clip",
    "ClipFolder",
    "FramePair",
    "GOT10k",
    "GraphData",
    "GraphDataset",
    "ImageFolder",
    "MovingShapes",
    "NodeData",
    "OTBSequence",
    "Planetoid",
    "SequencePairs",
    "SplitClips",
    "StillPairs",
    "TUDataset",
    "TrackingSequence",
    "Weizmann",
    "block_model",
    "collate",
    "generate_bouncing_digits",
    "generate_moving_shapes",
    "karate_club",
    "mri",
]
