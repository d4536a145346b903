"""
A signal on a graph, by frequency
=================================

The eigenvectors of the Laplacian are the waves of a graph. Small eigenvalues belong to waves that change little from
neighbor to neighbor. The mean of a signal and its propagation keeps those and damps the others: a wave of eigenvalue λ is
multiplied by 1 - λ / 2.
"""

import torch
from matplotlib import pyplot as plt

import amstel

data = amstel.data.karate_club()
x = torch.randn(data.num_nodes, 1, generator=torch.Generator().manual_seed(0))
y = (x + amstel.ops.spmm(data.graph, x, self_loops=0.0)) / 2

figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
for signal, name in ((x, "x"), (y, "propagated")):
    axes.plot(amstel.nn.graph_fourier(signal, data.graph).abs(), "o-", label=name, markersize=3)
axes.set(xlabel="eigenvector, from smooth to rough", ylabel="magnitude")
axes.legend()
