"""Readers for common data formats, and small data sets that need no files."""

from amstel.data import mri
from amstel.data._loader import NodeBatch
from amstel.data.bouncing import generate_bouncing_digits
from amstel.data.clips import Clip, ClipFolder, MovingShapes, Weizmann
from amstel.data.colored import colored_graphs
from amstel.data.distributed_loader import DistributedBatch, DistributedNeighborLoader
from amstel.data.graph_folder import GraphFolder
from amstel.data.graphs import GraphData, GraphDataset, collate
from amstel.data.images import ImageFolder
from amstel.data.links import LinkData, split_links
from amstel.data.neighbor_loader import NeighborLoader
from amstel.data.nodes import NodeData, block_model, karate_club
from amstel.data.ogb import convert_graph
from amstel.data.pairs import FramePair, SequencePairs
from amstel.data.planetoid import Planetoid
from amstel.data.shapes import generate_moving_shapes
from amstel.data.splits import SplitClips
from amstel.data.stills import StillPairs
from amstel.data.subgraph_loaders import ClusterLoader, SaintLoader, SubgraphBatch
from amstel.data.thumos import THUMOS14
from amstel.data.tracking import ALOV, OTB, VOT, GOT10k, OTBSequence, TrackingSequence
from amstel.data.tu import TUDataset
from amstel.data.ucf101 import UCF101
from amstel.sampled import SampledGraph

__all__ = [
    "ALOV",
    "OTB",
    "THUMOS14",
    "UCF101",
    "VOT",
    "Clip",
    "ClipFolder",
    "ClusterLoader",
    "DistributedBatch",
    "DistributedNeighborLoader",
    "FramePair",
    "GOT10k",
    "GraphData",
    "GraphDataset",
    "GraphFolder",
    "ImageFolder",
    "LinkData",
    "MovingShapes",
    "NeighborLoader",
    "NodeBatch",
    "NodeData",
    "OTBSequence",
    "Planetoid",
    "SaintLoader",
    "SampledGraph",
    "SequencePairs",
    "SplitClips",
    "StillPairs",
    "SubgraphBatch",
    "TUDataset",
    "TrackingSequence",
    "Weizmann",
    "block_model",
    "collate",
    "colored_graphs",
    "convert_graph",
    "generate_bouncing_digits",
    "generate_moving_shapes",
    "karate_club",
    "mri",
    "split_links",
]
