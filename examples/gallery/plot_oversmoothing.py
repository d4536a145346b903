"""
What many propagations do
=========================

Each propagation replaces a node by the mean over itself and its neighbors. A few propagations bring communities
together; many leave only the smoothest wave of the graph, until all nodes look alike.
"""

import torch
from matplotlib import pyplot as plt

import amstel

data = amstel.data.karate_club()
edges, _ = data.graph.to_edge_index()
x = torch.randn(data.num_nodes, 2, generator=torch.Generator().manual_seed(0))

figure, axes = plt.subplots(1, 4, figsize=(13, 3.4), layout="constrained")
for ax, count in zip(axes, (0, 1, 4, 30), strict=True):
    y = x
    for _ in range(count):
        y = amstel.ops.spmm(data.graph, y, norm="row")
    amstel.plot.embedding(y, data.labels, edges, axes=ax)
    ax.set_title(f"{count} propagations, spread {y.std(0).mean():.3f}")
