"""Bad calls over the whole public API: the class of the error, and that its message names the argument.

The rules are at the top of amstel/_check.py. A row of the table: what is called, with which good arguments, and for
each argument what must not be taken, by class.
"""

import functools
import math
import os
import re
from pathlib import Path

import networkx
import numpy as np
import pytest
import torch

import amstel
from amstel import inverse, nn, ops, tracking, video
from amstel.interop import dgl, pyg
from amstel.ops.conv_gru import conv_gru_pointwise

T = torch.ones
INDEX = torch.tensor([[0, 1, 2], [1, 2, 0]])
GRAPH = amstel.Graph.from_edge_index(INDEX, 3)
WIDE = amstel.Graph.from_csr(torch.tensor([0, 1]), torch.tensor([4]), num_cols=5)
RING = amstel.Graph.from_networkx(networkx.cycle_graph(5))
NAN3 = torch.tensor([1.0, math.nan, 1.0])
C64 = torch.complex64

# What is no count, no number, no switch, no choice.
COUNT = {TypeError: [True, 1.5, "3", None, [2]], ValueError: [0, -1, np.int64(-2)]}
NATURAL = {TypeError: [True, 1.5, "3"], ValueError: [-1]}
SIZE = {TypeError: [True, 1.5, "3", (1, 2.0)], ValueError: [0, (1,), (3, 3, 3), (3, 0)]}
POSITIVE = {TypeError: [True, "x", None, 1j], ValueError: [0, -1.0, math.nan, math.inf, np.float32(-1)]}
FINITE = {TypeError: [True, "x", [1.0]], ValueError: [math.nan, math.inf, np.float32("nan")]}
RATE = {TypeError: [True, "x"], ValueError: [-0.1, 1.0, math.nan]}
SWITCH = {TypeError: [1, "yes", None]}
CHOICE = {ValueError: ["nonsense", 3]}


def tensor(*wrong, none=False):
    """Not a tensor, and tensors that do not fit."""
    return {TypeError: [*([] if none else [None]), [[1.0]], 3.0, "x"], ValueError: list(wrong)}


BOX = torch.tensor([[0.0, 0, 0, 3, 3]])
PICTURE = Path(__file__).parent.parent / "docs" / "picture.png"
NOWHERE = Path(__file__).parent  # nothing is written
VEC, MAP, SEQ = T(3), T(1, 2, 5, 5), T(2, 1, 2, 5, 5)
TABLE = [
    ("Graph.from_edge_index", amstel.Graph.from_edge_index, {"edge_index": INDEX, "num_nodes": 3, "edge_weight": VEC}, {
        "edge_index": tensor(INDEX.T, INDEX.float(), INDEX.to(torch.int16), INDEX[0], INDEX.to_sparse()),
        "num_nodes": {**NATURAL, ValueError: [-1, np.int32(-1), 10**30]},
        "edge_weight": {TypeError: ["x"], ValueError: [T(2), T(3, 1), T(3).long(), T(3, dtype=C64), VEC.to_sparse()]},
    }),
    ("Graph.from_csr", amstel.Graph.from_csr, {"indptr": [0, 1, 2], "indices": [0, 1], "weight": T(2), "num_cols": 2}, {
        "indptr": {TypeError: ["x", None], ValueError: [[0.0, 1.0], [[0, 1]], np.zeros(0, np.int64)]},
        "indices": {TypeError: ["x", None], ValueError: [[0.5, 1.0], [[0, 1]]]},
        "weight": {TypeError: ["x"], ValueError: [T(3), T(2).long()]},
        "num_cols": {**NATURAL, ValueError: [-1, 10**30]},
    }),
    ("Graph.from_scipy", amstel.Graph.from_scipy, {"A": GRAPH.to_scipy()}, {"A": {TypeError: [None, np.eye(3), [[1]]]}}),
    ("Graph.from_networkx", amstel.Graph.from_networkx, {"G": networkx.path_graph(3)}, {"G": {TypeError: [None, [(0, 1)]]}}),
    ("Graph.to", GRAPH.to, {"device": "cpu"}, {"device": {TypeError: [2.5, [1]]}}),
    ("Graph.scales", GRAPH.scales, {"norm": "sym", "self_loops": 1.0, "dtype": torch.float32}, {"norm": CHOICE, "self_loops": FINITE}),
    ("spmm", ops.spmm, {"graph": GRAPH, "x": T(3, 2), "edge_weight": VEC, "norm": "sym", "self_loops": 1.0, "bias": T(2), "activation": "relu"}, {
        "graph": {TypeError: [None, INDEX, "x"]},
        "x": tensor(T(2, 2), T(3), T(3, 2).long(), T(3, 2, dtype=C64), T(3, 2).to_sparse_csr(), T(1, 1, 3, 2), T(3, 2, device="meta")),
        "edge_weight": tensor(T(2), NAN3, VEC.double(), VEC.long(), none=True),
        "norm": {ValueError: ["left", None, 3]}, "self_loops": FINITE,
        "bias": tensor(T(3), T(2).double(), T(1, 2), none=True), "activation": CHOICE,
    }),
    ("spmm of a rectangle", ops.spmm, {"graph": WIDE, "x": T(5, 2), "norm": "none", "self_loops": 0.0}, {
        "norm": CHOICE, "self_loops": {ValueError: [1.0]},
    }),
    ("conv_lstm", ops.conv_lstm, {"x": SEQ, "weight_ih": T(8, 2, 3, 3), "weight_hh": T(8, 2, 3, 3), "bias": T(8), "state": None, "lengths": None, "peephole": None, "memory": "store", "dilation": 1, "padding": "same", "algorithm": "auto", "state_dtype": None, "return_sequences": True}, {
        "x": tensor(MAP, SEQ.long(), T(0, 1, 2, 5, 5), SEQ.to(C64)),
        "weight_ih": tensor(T(8, 3, 3, 3), T(8, 2, 3), T(8, 2, 3, 3).double()),
        "weight_hh": tensor(T(8, 3, 3, 3), T(9, 2, 3, 3), T(8, 2, 3), T(8, 2, 3, 3).double()),
        "bias": tensor(T(4), T(8).double(), none=True),
        "state": {TypeError: [T(1, 2, 5, 5), "x", 3, (T(1, 2, 5, 5),)]},
        "lengths": tensor(torch.tensor([0]), torch.tensor([3]), torch.tensor([1, 1]), torch.tensor([1.0]), none=True),
        "peephole": tensor(T(3, 3), T(2, 2), none=True),
        "memory": CHOICE, "dilation": COUNT, "padding": CHOICE, "algorithm": CHOICE,
        "state_dtype": {ValueError: [torch.float16, torch.int64]}, "return_sequences": SWITCH,
    }),
    ("conv_lstm_cell", ops.conv_lstm_cell, {"gates": T(1, 8, 5, 5), "c": MAP, "peephole": None}, {
        "gates": tensor(T(1, 7, 5, 5), T(8, 5, 5), T(1, 8, 5, 5).long()), "c": tensor(T(1, 3, 5, 5), MAP.half(), MAP.long()),
        "peephole": tensor(T(3, 3), none=True),
    }),
    ("conv_gru_cell", ops.conv_gru_cell, {"gates_x": T(1, 6, 5, 5), "gates_h": T(1, 6, 5, 5), "h": MAP, "memory": "store"}, {
        "gates_x": tensor(T(1, 7, 5, 5), T(6, 5, 5), T(1, 6, 5, 5).long()), "gates_h": tensor(T(1, 3, 5, 5), T(1, 6, 5, 5).double()),
        "h": tensor(T(1, 3, 5, 5), MAP.double()), "memory": CHOICE,
    }),
    ("conv_gru_pointwise", conv_gru_pointwise, {"x": T(4, 3), "h": T(4, 2), "weight_ih": T(6, 3), "weight_hh": T(6, 2), "bias_ih": T(6), "bias_hh": T(6), "memory": "store"}, {
        "x": tensor(T(4), T(4, 3).long()), "h": tensor(T(3, 2), T(4, 2).double(), none=True), "weight_ih": tensor(T(6, 2), T(6)),
        "weight_hh": tensor(T(5, 2), T(6)), "bias_ih": tensor(T(5)), "bias_hh": tensor(T(6, 1), T(6).double()), "memory": {ValueError: ["foo", None]},
    }),
    ("roi_pool", ops.roi_pool, {"input": MAP, "boxes": BOX, "output_size": 2, "spatial_scale": 1.0}, {
        "input": tensor(T(2, 5, 5), MAP.long(), MAP.to(C64)), "boxes": {TypeError: [None, 3.0, "x", [3.0]], ValueError: [T(1, 4), T(5), T(1, 5).long(), [T(1, 5)], [T(1, 4)] * 2, BOX + 1, BOX * math.nan, BOX * math.inf]},
        "output_size": SIZE, "spatial_scale": POSITIVE,
    }),
    ("roi_match", ops.roi_match, {"features": [MAP], "boxes": BOX, "query": T(8), "output_size": 2, "spatial_scales": [1.0]}, {
        "features": {TypeError: [None, [], MAP, [3.0]], ValueError: [[T(2, 5, 5)], [MAP.long()]]}, "query": tensor(T(7), T(8).double()),
        "output_size": SIZE, "spatial_scales": {TypeError: [1.0, None, "x"], ValueError: [[1.0, 1.0], [0.0], [math.nan]]},
    }),
    ("mri_gradient", ops.mri_gradient, {"x": T(1, 4, 4, dtype=C64), "y": T(1, 1, 4, 4, dtype=C64), "mask": T(4), "sensitivities": None, "sigma": 1.0}, {
        "x": tensor(T(1, 4, 4), T(4, 4, dtype=C64)), "y": tensor(T(1, 1, 4, 4), T(1, 4, 4, dtype=C64)), "mask": tensor(T(5), T(4, dtype=C64)),
        "sensitivities": tensor(T(1, 4, 4), T(1, 5, 4, dtype=C64), none=True), "sigma": {**POSITIVE, ValueError: [0, -1.0, math.nan, T(2), T(1, dtype=C64)]},
    }),
    ("rim_input", ops.rim_input, {"eta": MAP, "gradient": MAP, "link": "identity"}, {
        "eta": tensor(VEC, MAP.long()), "gradient": tensor(T(1, 2, 5, 4), MAP.double()), "link": CHOICE,
    }),
    ("rim_denoise_input", ops.rim_denoise_input, {"eta": MAP, "y": MAP, "sigma": 1.0}, {
        "eta": tensor(VEC, MAP.long()), "y": tensor(T(1, 2, 5, 4), MAP.double()), "sigma": {**POSITIVE, ValueError: [0, -1.0, math.nan]},
    }),
    ("bicubic_down", ops.bicubic_down, {"x": T(1, 1, 6, 6), "scale": 2}, {"x": tensor(VEC, T(1, 1, 5, 6)), "scale": COUNT}),
    ("bicubic_down_adjoint", ops.bicubic_down_adjoint, {"y": T(1, 1, 6, 6), "scale": 2}, {"y": tensor(VEC), "scale": COUNT}),
    ("GCNConv", nn.GCNConv, {"in_channels": 3, "out_channels": 2, "bias": True, "norm": "sym", "self_loops": 1.0, "self_weight": False, "activation": None, "order": "auto"}, {
        "in_channels": {**COUNT, ValueError: [0, -2]}, "out_channels": COUNT, "bias": SWITCH, "norm": CHOICE, "self_loops": FINITE, "self_weight": SWITCH,
        "activation": CHOICE, "order": CHOICE,
    }),
    ("ChebConv", nn.ChebConv, {"in_channels": 3, "out_channels": 2, "K": 2, "lambda_max": 2.0}, {
        "in_channels": {**COUNT, ValueError: [0, -2]}, "out_channels": COUNT, "K": NATURAL, "lambda_max": POSITIVE,
    }),
    ("SpectralConv", nn.SpectralConv, {"in_channels": 3, "out_channels": 2, "modes": 2}, {"in_channels": {**COUNT, ValueError: [0, -2]}, "out_channels": COUNT, "modes": COUNT}),
    ("GCN", nn.GCN, {"in_channels": 3, "hidden_channels": 4, "out_channels": 2, "num_layers": 2, "dropout": 0.5}, {
        "in_channels": {**COUNT, ValueError: [0, -2]}, "hidden_channels": COUNT, "out_channels": COUNT, "num_layers": COUNT, "dropout": RATE,
    }),
    ("SGConv", nn.SGConv, {"in_channels": 3, "out_channels": 2, "K": 2, "bias": True, "norm": "sym", "self_loops": 1.0}, {
        "in_channels": {**COUNT, ValueError: [0, -2]}, "out_channels": COUNT, "K": NATURAL, "bias": SWITCH, "norm": CHOICE, "self_loops": FINITE,
    }),
    ("DropEdge forward", nn.DropEdge(0.5), {"graph": GRAPH, "edge_weight": VEC}, {
        "graph": {TypeError: [None, INDEX]}, "edge_weight": tensor(T(2), T(3, 1), T(3).long(), none=True),
    }),
    ("GAE", nn.GAE, {"in_channels": 3, "hidden_channels": 4, "out_channels": 2, "dropout": 0.5, "bias": True}, {
        "in_channels": {**COUNT, ValueError: [0, -2]}, "hidden_channels": COUNT, "out_channels": COUNT, "dropout": RATE, "bias": SWITCH,
    }),
    ("GAE.decode", nn.GAE(3, 2, 2).decode, {"z": T(3, 2), "edge_index": INDEX}, {
        "z": tensor(T(3), T(3, 2).long()), "edge_index": tensor(INDEX.float(), INDEX[0], INDEX + 1, INDEX - 1),
    }),
    ("GraphClassifier", nn.GraphClassifier, {"in_channels": 3, "hidden_channels": 4, "num_classes": 2, "num_layers": 2, "dropout": 0.5, "pool": "sum", "propagate": True}, {
        "in_channels": {**COUNT, ValueError: [0, -2]}, "hidden_channels": COUNT, "num_classes": COUNT, "num_layers": COUNT, "dropout": RATE,
        "pool": CHOICE, "propagate": SWITCH,
    }),
    ("GraphConv of DGL", dgl.GraphConv, {"in_feats": 3, "out_feats": 2, "norm": "both", "weight": True, "bias": True, "activation": None, "allow_zero_in_degree": False}, {
        "in_feats": COUNT, "out_feats": COUNT, "norm": CHOICE, "weight": SWITCH, "bias": SWITCH, "activation": {TypeError: ["relu", 3]},
        "allow_zero_in_degree": SWITCH,
    }),
    ("split_links", amstel.data.split_links, {"graph": RING, "features": None, "val": 0.2, "test": 0.4, "seed": 0}, {
        "graph": {TypeError: [None, INDEX], ValueError: [WIDE]}, "features": tensor(T(4, 2), none=True), "val": RATE, "test": RATE, "seed": NATURAL,
    }),
    ("GCNConv forward", nn.GCNConv(2, 2), {"x": T(3, 2), "graph": GRAPH, "edge_weight": VEC}, {
        "x": {TypeError: [3.0, "x"], ValueError: [T(3, 3), T(3), T(2, 2)]}, "graph": {TypeError: [None, "x", [[0], [1]]]}, "edge_weight": tensor(T(2), NAN3, none=True),
    }),
    ("fourier_basis", nn.fourier_basis, {"graph": RING, "modes": 2}, {"graph": {TypeError: [None, INDEX]}, "modes": {TypeError: [True, 1.5], ValueError: [0, 6]}}),
    ("sparse_dropout", nn.sparse_dropout, {"x": T(2, 2).to_sparse_csr(), "p": 0.5}, {"x": tensor(T(2, 2)), "p": {TypeError: ["x", True], ValueError: [-1, 1.5]}}),
    ("ConvLSTMCell", nn.ConvLSTMCell, {"in_channels": 3, "hidden_channels": 2, "kernel_size": 3, "bias": True, "peephole": False}, {
        "in_channels": COUNT, "hidden_channels": COUNT, "kernel_size": SIZE, "bias": SWITCH, "peephole": SWITCH,
    }),
    ("ConvLSTM", nn.ConvLSTM, {"in_channels": 3, "hidden_channels": 2, "kernel_size": 3, "num_layers": 1, "batch_first": False, "bidirectional": False, "dropout": 0.0, "dilation": 1, "padding": "same", "memory": "store", "state_dtype": None, "return_sequences": True}, {
        "in_channels": COUNT, "hidden_channels": {**COUNT, TypeError: [True, 1.5, "3", None]}, "kernel_size": {**SIZE, ValueError: [0, (3, 3, 3), (3, 0)]},
        "num_layers": {**COUNT, TypeError: [True, 1.5, "3", [2]]}, "batch_first": SWITCH, "bidirectional": SWITCH, "dropout": RATE,
        "dilation": COUNT, "padding": CHOICE, "memory": CHOICE, "state_dtype": {ValueError: [torch.int64, "float32"]}, "return_sequences": SWITCH,
    }),
    ("ConvLSTM forward", nn.ConvLSTM(2, 3), {"x": SEQ, "state": None, "lengths": None}, {
        "x": tensor(MAP, T(2, 1, 3, 5, 5)), "state": {TypeError: ["x", 3, T(1, 1, 3, 5, 5), (None, None)]}, "lengths": tensor(torch.tensor([3]), none=True),
    }),
    ("ConvLSTMCell forward", nn.ConvLSTMCell(2, 3), {"x": MAP, "state": None}, {"x": tensor(SEQ, T(1, 3, 5, 5)), "state": {TypeError: ["x", 3, T(1, 3, 5, 5)]}}),
    ("ConvGRUCell", nn.ConvGRUCell, {"in_channels": 3, "hidden_channels": 2, "kernel_size": 1, "memory": "store", "reset": "after"}, {
        "in_channels": COUNT, "hidden_channels": COUNT, "kernel_size": SIZE, "memory": CHOICE, "reset": CHOICE,
    }),
    ("ConvGRUCell forward", nn.ConvGRUCell(2, 3), {"x": MAP, "h": None}, {"x": tensor(VEC, T(1, 3, 5, 5)), "h": tensor(MAP, none=True)}),
    ("RoIPool", nn.RoIPool, {"output_size": 2, "spatial_scale": 1.0}, {"output_size": SIZE, "spatial_scale": POSITIVE}),
    ("SINT", nn.SINT, {"backbone": "light", "output_size": 7}, {"backbone": CHOICE, "output_size": COUNT}),
    ("MarginContrastiveLoss", nn.MarginContrastiveLoss, {"margin": 1.0, "reduction": "mean"}, {"margin": POSITIVE, "reduction": {ValueError: ["max", 3]}}),
    ("MarginContrastiveLoss forward", nn.MarginContrastiveLoss(), {"a": T(2, 3), "b": T(2, 3), "y": T(2)}, {"a": tensor(), "b": tensor(T(2, 2)), "y": tensor(T(3))}),
    ("ConvALSTM", nn.ConvALSTM, {"in_channels": 2, "hidden_channels": 2, "num_classes": 2, "kernel_size": 3, "feature_size": 7, "attention_channels": 2}, {
        "in_channels": COUNT, "hidden_channels": COUNT, "kernel_size": SIZE, "feature_size": SIZE, "attention_channels": {**COUNT, TypeError: [True, 1.5, "3"]},
    }),
    ("RIM", nn.RIM, {"channels": 1, "features": 4, "steps": 2, "link": "identity", "network": "conv", "gradient_step": 0.0, "memory": "store"}, {
        "channels": COUNT, "features": {**COUNT, TypeError: [True, 1.5, "3"]}, "steps": COUNT, "link": CHOICE, "network": CHOICE, "gradient_step": FINITE, "memory": {ValueError: ["foo", 0, True]},
    }),
    ("pyg.GCNConv", pyg.GCNConv, {"in_channels": 3, "out_channels": 2, "improved": False, "cached": False, "normalize": True, "bias": True, "flow": "source_to_target"}, {
        "in_channels": {**COUNT, ValueError: [0, -2]}, "out_channels": COUNT, "improved": SWITCH, "cached": SWITCH, "normalize": SWITCH, "bias": SWITCH, "flow": CHOICE,
    }),
    ("pyg.GCNConv forward", pyg.GCNConv(2, 2), {"x": T(3, 2), "edge_index": INDEX, "edge_weight": None}, {
        "x": tensor(T(3, 3), T(3)), "edge_index": tensor(INDEX.T, INDEX.float(), T(2, 2).to_sparse(), WIDE), "edge_weight": tensor(T(2), NAN3, none=True),
    }),
    ("Denoising", inverse.Denoising, {"sigma": 1.0}, {"sigma": {**POSITIVE, TypeError: [True, "x", None, [1.0]]}}),
    ("Inpainting", inverse.Inpainting, {"mask": T(4, 4), "sigma": 1.0}, {"mask": tensor(T(4, 4) * 0.5), "sigma": POSITIVE}),
    ("SuperResolution", inverse.SuperResolution, {"scale": 2, "sigma": 1.0}, {"scale": COUNT, "sigma": POSITIVE}),
    ("Deblurring", inverse.Deblurring, {"kernel": T(3, 3), "sigma": 1.0}, {"kernel": tensor(T(2, 2), T(3), T(3, 3, dtype=C64)), "sigma": POSITIVE}),
    ("RandomProjection", inverse.RandomProjection, {"matrix": T(2, 4), "sigma": 1.0, "image_shape": (1, 2, 2)}, {
        "matrix": tensor(T(4), T(2, 4).long()), "sigma": POSITIVE, "image_shape": {TypeError: [3, "abc", (1, 2.0, 2)], ValueError: [(1, 2), (1, 3, 2), (0, 2, 2)]},
    }),
    ("MRI", inverse.MRI, {"mask": T(4), "sensitivities": None, "sigma": 1.0}, {"mask": tensor(T(4) * 0.5), "sensitivities": tensor(T(2, 4, 4), none=True), "sigma": POSITIVE}),
    ("Denoising forward", inverse.Denoising(1.0).forward, {"x": MAP}, {"x": tensor(VEC, MAP.long())}),
    ("block_model", amstel.data.block_model, {"nodes": 200, "classes": 4, "words": 20, "degree": 2.0, "mixing": 0.3, "seed": 0}, {
        "nodes": {TypeError: [True, 99.5], ValueError: [10]}, "classes": COUNT, "words": {TypeError: [True], ValueError: [3]}, "degree": {TypeError: ["x"], ValueError: [-1, math.nan]}, "mixing": {TypeError: ["x"], ValueError: [2, -1]},
    }),
]  # fmt: skip

FRAMES = torch.zeros(2, 16, 16, 3, dtype=torch.uint8)
MAPS, BOXES = T(2, 7, 7), T(2, 4)
LOOSE = {TypeError: [True, 1.5, "3"], ValueError: [0, -1]}
# Of the applications' side of the library, where not every tensor may be sparse or on another device.
MORE = [
    ("ops.roi_align", ops.roi_align, {"input": MAP, "boxes": BOX, "output_size": 2, "spatial_scale": 1.0, "sampling_ratio": 2, "aligned": False}, {
        "input": tensor(VEC, MAP.long()), "boxes": {TypeError: [None, 3.0], ValueError: [T(2, 3), BOX * math.nan]}, "output_size": SIZE, "spatial_scale": POSITIVE,
        "sampling_ratio": {ValueError: [-2, 10**6]}, "aligned": SWITCH,
    }),
    ("ops.ps_roi_pool", ops.ps_roi_pool, {"input": T(1, 4, 5, 5), "boxes": BOX, "output_size": 2, "spatial_scale": 1.0}, {"input": tensor(VEC, T(1, 3, 5, 5)), "output_size": SIZE, "spatial_scale": POSITIVE}),
    ("RoIAlign", nn.RoIAlign, {"output_size": 2, "spatial_scale": 1.0, "sampling_ratio": 2, "aligned": False}, {"output_size": SIZE, "spatial_scale": POSITIVE, "sampling_ratio": {ValueError: [-2]}, "aligned": SWITCH}),
    ("MultiScaleRoIAlign", nn.MultiScaleRoIAlign, {"featmap_names": ["0"], "output_size": 2, "sampling_ratio": 2, "canonical_scale": 224, "canonical_level": 4}, {
        "featmap_names": {ValueError: ["0", []]}, "output_size": SIZE, "canonical_scale": POSITIVE, "canonical_level": FINITE,
    }),
    ("VideoLSTM", nn.VideoLSTM, {"in_channels": 2, "hidden_channels": 2, "num_classes": 2, "flow_channels": 2, "dropout": 0.5, "head_channels": 2, "batch_first": False, "initial_state": "first"}, {
        "in_channels": COUNT, "hidden_channels": COUNT, "num_classes": COUNT, "flow_channels": LOOSE, "dropout": RATE, "head_channels": COUNT, "batch_first": SWITCH, "initial_state": CHOICE,
    }),
    ("ConvLSTM options", nn.ConvLSTM, {"in_channels": 3, "hidden_channels": 2, "stride": 1, "padding_mode": "zeros", "layer_norm": False, "recurrent_dropout": 0.0, "zoneout": 0.0, "residual": False, "forget_bias": 1.0, "stateful": False, "return_all_layers": False}, {
        "stride": {TypeError: [True, 1.5], ValueError: [0]}, "padding_mode": CHOICE, "layer_norm": SWITCH, "recurrent_dropout": RATE, "zoneout": RATE, "residual": SWITCH, "forget_bias": FINITE, "stateful": SWITCH, "return_all_layers": SWITCH,
    }),
    ("ConvLSTM3d", nn.ConvLSTM3d, {"in_channels": 3, "hidden_channels": 2, "num_layers": 1}, {"in_channels": COUNT, "hidden_channels": {**COUNT, TypeError: [True, 1.5, "3"]}}),
    ("ConvGRU", nn.ConvGRU, {"in_channels": 3, "hidden_channels": 2, "num_layers": 1, "batch_first": False}, {"in_channels": COUNT, "num_layers": LOOSE, "batch_first": SWITCH}),
    ("PredRNNCell", nn.PredRNNCell, {"in_channels": 3, "hidden_channels": 2}, {"in_channels": COUNT, "hidden_channels": COUNT}),
    ("ConvLSTMForecaster", nn.ConvLSTMForecaster, {"in_channels": 1, "hidden_channels": 2, "patch": 4}, {"in_channels": COUNT, "patch": COUNT}),
    ("SmallBackbone", nn.SmallBackbone, {"in_channels": 3, "channels": (4, 8)}, {"in_channels": COUNT, "channels": {TypeError: [(True, 4), (4, 1.5)], ValueError: [(), 4, "48", (0, 4)]}}),
    ("video.segments", video.segments, {"num_frames": 9, "length": 4, "count": 2}, {"num_frames": COUNT, "length": COUNT, "count": COUNT}),
    ("video.localize", video.localize, {"attention": MAPS, "frame_size": (14, 14), "span": 3, "sigma": 0.0, "threshold": 0.5}, {
        "attention": tensor(VEC, MAPS.long(), MAPS[:0], -MAPS, MAPS * math.nan), "frame_size": {TypeError: [(True, 14), (14, 1.5)], ValueError: [14, (0, 14), "ab"]}, "span": COUNT,
        "sigma": {TypeError: ["x", True], ValueError: [-1.0, math.nan]}, "threshold": {TypeError: ["x", True], ValueError: [-1.0]},
    }),
    ("video.localize_actors", video.localize_actors, {"attention": MAPS, "frame_size": (14, 14), "most": 2, "gap": 2, "weakest": 0.1}, {"most": COUNT, "gap": NATURAL, "weakest": {TypeError: ["x", True], ValueError: [-1.0, 1.5]}}),
    ("video.annotate", video.annotate, {"frames": FRAMES, "attention": MAPS, "boxes": BOXES, "truth": None, "caption": None, "scale": 1}, {
        "frames": tensor(FRAMES[0], FRAMES.float(), FRAMES[:0]), "attention": tensor(MAPS[:1], MAPS.long(), MAPS * math.nan, none=True), "boxes": tensor(BOXES[:1], BOXES.long(), none=True), "caption": {ValueError: [["one"]]}, "scale": {TypeError: [True, 1.5, "3"], ValueError: [0]},
    }),
    ("video.flow_image", video.flow_image, {"flow": T(1, 2, 3, 3), "bound": 20.0}, {"flow": tensor(VEC, T(1, 2, 3, 3).long(), T(1, 2, 3, 3) * math.nan), "bound": POSITIVE}),
    ("video.read", video.read, {"path": PICTURE, "strip": None, "fps": None}, {"path": {TypeError: [None, 3, b"x"]}, "strip": {TypeError: [1, "yes"]}, "fps": {TypeError: [True, "x"], ValueError: [0, -1.0, math.nan]}}),
    ("generate_moving_shapes", amstel.data.generate_moving_shapes, {"count": 1, "frames": 2, "size": 16, "seed": 0}, {"count": NATURAL, "frames": COUNT, "size": LOOSE, "seed": NATURAL}),
    ("generate_bouncing_digits", amstel.data.generate_bouncing_digits, {"count": 1, "frames": 2, "size": 32, "digits": 1}, {"count": NATURAL, "frames": COUNT, "size": LOOSE, "digits": COUNT}),
    ("tracking.generate_sequence", tracking.generate_sequence, {"frames": 2, "height": 40, "width": 40, "target": 8, "seed": 0}, {"frames": COUNT, "height": COUNT, "width": COUNT, "target": COUNT, "seed": {TypeError: [True, 1.5, "3"]}}),
    ("tracking.evaluate", tracking.evaluate, {"boxes": BOXES, "ground_truth": BOXES, "protocol": "otb", "skip_missing": False}, {
        "boxes": {TypeError: [None, 3.0, "x"], ValueError: [BOXES[:1], VEC, BOXES > 0, BOXES.to(C64), [[1, 2, 3, 4], None], [[1, 2, 3, 4], [1, 2, 3]], [["1", "2", "3", "4"]] * 2, BOXES * math.inf]},
        "ground_truth": {TypeError: [None, 3.0, "x"], ValueError: [VEC, BOXES > 0]}, "protocol": {ValueError: ["vot", 3, None, ["otb"]]}, "skip_missing": SWITCH,
    }),
    ("tracking.evaluate_dataset", functools.partial(tracking.evaluate_dataset, track=None, sequences=[], out=NOWHERE), {}, {
        "jobs": COUNT, "resume": SWITCH, "origin": {TypeError: [True, 1.0, "1", None], ValueError: [2, -1]}, "skip_missing": {TypeError: [1, "yes"]}, "protocol": {ValueError: ["vot", None]},
    }),
    ("tracking.write_boxes", tracking.write_boxes, {"file": os.devnull, "boxes": BOXES, "origin": 0}, {"boxes": {TypeError: [None, "x"], ValueError: [VEC]}, "origin": {TypeError: [True, 1.0, "1", np.bool_(True)], ValueError: [2, -1]}}),
    ("tracking.Settings", tracking.Settings, {"radius": 0.1, "scales": (1.0,), "redetect": True, "threads": 1, "margin": 24}, {
        "radius": {ValueError: [True, "x", -1.0, math.nan]}, "scales": {TypeError: [1.0, "abc", (True,)], ValueError: [(), (0.0,), (math.inf,)]}, "redetect": SWITCH, "threads": {ValueError: [True, 1.5, 0]}, "margin": {ValueError: [True, "x", -1]},
    }),
    ("tracking.SINTTracker", functools.partial(tracking.SINTTracker, nn.SINT()), {"plus": False, "redetect": None, "settings": None, "preset": None}, {
        "plus": SWITCH, "redetect": {TypeError: [1, "no"]}, "settings": {TypeError: [{"radius": 0.1}, 3]}, "preset": {ValueError: ["best", 3]},
    }),
    ("tracking.SINTTracker model", tracking.SINTTracker, {"model": nn.SINT()}, {"model": {TypeError: ["light", 3]}}),
]  # fmt: skip


def cases():
    for name, function, good, bad in TABLE + MORE:
        for argument, classes in bad.items():
            for error, values in classes.items():
                for k, value in enumerate(values):
                    label = (
                        value
                        if isinstance(value, (int, float, str, type(None)))
                        else f"{type(value).__name__}{k}"
                    )
                    yield pytest.param(
                        function, {**good, argument: value}, argument, error, id=f"{name}-{argument}-{label}"
                    )


CASES = list(cases())


@pytest.mark.parametrize("row", [row for row in TABLE + MORE if row[2]], ids=lambda row: row[0])
def test_the_good_arguments_are_taken(row):
    row[1](**row[2])


def test_the_table_is_long():
    assert len(CASES) > 300


@pytest.mark.parametrize("function, arguments, name, error", CASES)
def test_bad_calls(function, arguments, name, error):
    with pytest.raises(error) as caught:
        function(**arguments)
    # The class itself, not one of Python's own that derives from it.
    assert type(caught.value).__name__ in (error.__name__, "NumberTypeError", "KernelValueError"), repr(
        caught.value
    )
    message = str(caught.value)
    states = {"state": ("h_0", "c_0", "state")}.get(name, (name,))
    assert any(f"`{s}" in message for s in states), message


def test_arguments_of_another_layout_or_device():
    """Sparse tensors where dense ones are meant, and tensors without values beside others: refused by name."""
    taken = ("GCNConv forward", "sparse_dropout", "pyg.GCNConv forward")  # sparse features
    alone = (
        "bicubic",
        "Inpainting",
        "Deblurring",
        "RandomProjection",
        "MRI",
        "Denoising",
    )  # no other device to differ
    count = 0
    for name, function, good, _ in TABLE:
        for argument, value in good.items():
            if not isinstance(value, torch.Tensor) or name in taken:
                continue
            others = [value.to_sparse(), *([] if name.startswith(alone) else [value.to("meta")])]
            for other in others:
                with pytest.raises(ValueError, match=f"`{argument}|on meta") as caught:
                    function(**{**good, argument: other})
                assert not isinstance(caught.value, RuntimeError), name
                count += 1
    assert count > 60


NUMBERS = [
    lambda: ops.spmm(GRAPH, T(3, 2), self_loops=np.float32(1)),
    lambda: ops.spmm(GRAPH, T(3, 2), self_loops=np.int64(1)),
    lambda: ops.roi_pool(MAP, BOX, np.int64(2), np.float32(0.5)),
    lambda: ops.roi_pool(MAP, BOX, (np.int32(2), np.uint8(1)), np.array(0.5)),
    lambda: ops.roi_match([MAP], BOX, T(8), np.int64(2), [np.float64(0.5)]),
    lambda: ops.mri_gradient(T(1, 4, 4, dtype=C64), T(1, 1, 4, 4, dtype=C64), T(4), None, np.float32(0.5)),
    lambda: ops.rim_denoise_input(MAP, MAP, np.float32(0.5)),
    lambda: ops.bicubic_down(T(1, 1, 6, 6), np.int64(2)),
    lambda: nn.GCN(np.int64(3), np.int32(4), np.uint8(2), np.int64(2), np.float32(0.5)),
    lambda: nn.GCNConv(np.int64(3), np.int64(2), self_loops=np.float32(1)),
    lambda: nn.ChebConv(np.int64(3), np.int64(2), np.int64(2), lambda_max=np.float32(2)),
    lambda: nn.SpectralConv(np.int64(3), np.int64(2), np.int64(2)),
    lambda: nn.ConvLSTM(np.int64(3), np.int64(2), np.int64(3), np.int64(2), dropout=np.float32(0.5)),
    lambda: nn.ConvLSTMCell(np.int64(3), np.int64(2), (np.int64(3), 1)),
    lambda: nn.ConvGRUCell(np.int64(3), np.int64(2), np.int64(3)),
    lambda: nn.RoIPool(np.int64(3), np.float32(0.5)),
    lambda: nn.RIM(np.int64(1), np.int64(4), np.int64(2), network="conv"),
    lambda: nn.MarginContrastiveLoss(np.float32(1)),
    lambda: ops.roi_align(MAP, BOX, np.int64(2), np.float32(0.5), np.int64(2), np.bool_(True)),
    lambda: nn.SmallBackbone(3, np.array([4, 8])),
    lambda: tracking.Settings(radius=np.float32(0.1), scales=np.array([1.0, 1.2]), redetect=np.bool_(True)),
    lambda: tracking.write_boxes(os.devnull, BOXES, np.int64(1)),
    lambda: tracking.generate_sequence(np.int64(2), np.int32(40), np.int64(40), np.uint8(8), np.int64(0)),
    lambda: video.localize(MAPS, np.array([14, 14]), sigma=np.float32(0), span=np.int64(3)),
    lambda: video.annotate(FRAMES, scale=np.int64(1)),
    lambda: pyg.GCNConv(np.int64(3), np.int64(2)),
    lambda: inverse.Denoising(np.float32(0.5)).forward(MAP),
    lambda: inverse.SuperResolution(np.int64(2), np.float32(0.5)).forward(T(1, 1, 4, 4)),
    lambda: amstel.Graph.from_edge_index(INDEX, np.int64(3)),
    lambda: amstel.Graph.from_csr([0, 1], [0], num_cols=np.int64(3)),
]


@pytest.mark.parametrize("call", NUMBERS)
def test_numpy_scalars_are_numbers(call):
    call()


TRACKED = torch.rand(3, 4) + 1
THINGS = [
    ("sequence", lambda: tracking.perturbed(None, "sre")),
    ("evaluations", lambda: tracking.plot_attributes([1], "a.png")),
    ("evaluations", lambda: amstel.plot.success([1])),
    ("evaluations['a']", lambda: amstel.plot.precision({"a": 1})),
    ("images", lambda: amstel.plot.restorations([1])),
    ("boxes", lambda: amstel.plot.tracks(np.zeros((8, 8, 3), np.uint8), [TRACKED])),
    ("sequences[0]", lambda: amstel.data.SequencePairs([1])),
    ("sequences[0]", lambda: tracking.evaluate_dataset(None, [1], NOWHERE)),
    ("frames", lambda: amstel.draw.svg("a.svg", [[1]], VEC)),
    ("x", lambda: amstel.distributed.node_dropout(None, 0.5, torch.arange(3), 1)),
    ("nodes", lambda: amstel.distributed.node_dropout(T(3, 2), 0.5, [0, 1, 2], 1)),
    ("rate", lambda: amstel.distributed.node_dropout(T(3, 2), "x", torch.arange(3), 1)),
    ("model[0]", lambda: amstel.distributed.sum_gradients([1])),
    ("x", lambda: nn.MultiScaleRoIAlign(["a"], 2, 2)(None, [BOX[:, 1:]], [(8, 8)])),
    ("boxes", lambda: nn.MultiScaleRoIAlign(["a"], 2, 2)({"a": MAP}, None, [(8, 8)])),
    ("boxes[0]", lambda: nn.MultiScaleRoIAlign(["a"], 2, 2)({"a": MAP}, [[1]], [(8, 8)])),
    ("dtype", lambda: GRAPH.degree([])),
    ("dtype", lambda: GRAPH.degree(torch.int64)),
    ("drop_edge", lambda: nn.GCN(3, 4, 2, drop_edge="abc")),
    ("kernel_sizes", lambda: nn.RIM(kernel_sizes=3)),
    ("network", lambda: nn.RIM(network=[])),
    ("link", lambda: nn.RIM(link=np.array(["identity", "logistic"]))),
]


@pytest.mark.parametrize("argument, call", THINGS)
def test_things_of_another_kind(argument, call):
    with pytest.raises(TypeError, match=re.escape(f"`{argument}` must be")):
        call()


HUGE = [
    ("dilation", lambda: ops.conv_lstm(SEQ, T(8, 2, 3, 3), T(8, 2, 3, 3), dilation=10**30)),
    ("output_size", lambda: ops.roi_pool(MAP, BOX, 10**30, 1.0)),
    ("lengths", lambda: nn.ConvLSTM(2, 2, zoneout=0.1)(SEQ, lengths=torch.ones(1, dtype=torch.uint8))),
]


@pytest.mark.parametrize("argument, call", HUGE)
def test_integers_that_no_index_holds(argument, call):
    with pytest.raises(ValueError, match=f"`{argument}` must be"):
        call()


def test_numbers_may_be_as_large_as_floats():
    assert ops.spmm(GRAPH, T(3, 2), self_loops=10**30).isfinite().all()
    for huge in (10**400, -(10**400)):
        with pytest.raises(ValueError, match="`self_loops` must be a finite number"):
            ops.spmm(GRAPH, T(3, 2), self_loops=huge)
    with pytest.raises(ValueError, match="`sigma` must be a finite number > 0"):
        inverse.Denoising(-(10**400))
    assert inverse.StructuredProjection((1, 4, 4), 8, seed=2**63 + 5)(T(1, 1, 4, 4)).shape == (1, 8)
