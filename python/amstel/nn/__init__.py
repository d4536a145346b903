"""Modules; each is a thin shell around operators of `amstel.ops`."""

from amstel.nn.conv_lstm import ConvLSTM, ConvLSTMCell
from amstel.nn.gcn import (
    GCN,
    ChebConv,
    GCNConv,
    SpectralConv,
    fourier_basis,
    graph_fourier,
    inverse_graph_fourier,
    sparse_dropout,
)

__all__ = [
    "GCN",
    "ChebConv",
    "ConvLSTM",
    "ConvLSTMCell",
    "GCNConv",
    "SpectralConv",
    "fourier_basis",
    "graph_fourier",
    "inverse_graph_fourier",
    "sparse_dropout",
]
