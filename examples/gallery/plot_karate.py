"""
Friends in a karate club
========================

A three-layer GCN places the 34 members of a karate club in the plane. It is told the group of a single member of each of
the four groups (drawn larger) and works out the others from who knows whom.
"""

from matplotlib import pyplot as plt

import amstel
from amstel.apps.graphs import karate

data, embeddings, accuracy = karate.train(epochs=200)
edges, _ = data.graph.to_edge_index()

figure, axes = plt.subplots(1, 3, figsize=(11, 3.8), layout="constrained")
for ax, epoch in zip(axes, (0, 50, 200), strict=True):
    amstel.plot.embedding(embeddings[epoch], data.labels, edges, marked=data.train.tolist(), axes=ax)
    ax.set_title(f"epoch {epoch}: accuracy {accuracy[epoch]:.0%}")

# %%
# The training is 15 lines of ordinary PyTorch. A layer is one call to :func:`amstel.ops.spmm`; passing ``None`` as features
# means one feature per node.

layer = amstel.nn.GCNConv(data.num_nodes, 2, bias=False)
print(layer(None, data.graph).shape)
