"""
What many propagations do
=========================

Each propagation replaces a node by a mean over itself and its neighbors. A few of them bring communities together; many
make all nodes alike. The graph here has four communities that are made up.
"""

import torch
from matplotlib import pyplot as plt

import amstel

torch.manual_seed(0)
data = amstel.data.block_model()
x = torch.randn(data.num_nodes, 2)

figure, axes = plt.subplots(1, 4, figsize=(13, 3.4), layout="constrained")
for ax, count in zip(axes, (0, 1, 4, 30), strict=True):
    y = x
    for _ in range(count):
        y = amstel.ops.spmm(data.graph, y, norm="row")
    amstel.plot.embedding(y, data.labels, axes=ax)
    ax.set_title(f"{count} propagations, spread {y.std(0).mean():.3f}")
