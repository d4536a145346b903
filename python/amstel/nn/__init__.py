"""Modules; each is a thin shell around operators of `amstel.ops`."""

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
    "GCNConv",
    "SpectralConv",
    "fourier_basis",
    "graph_fourier",
    "inverse_graph_fourier",
    "sparse_dropout",
]
