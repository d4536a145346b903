"""A graph convolutional network on Zachary's karate club, drawn while it learns.

A three-layer GCN with two outputs per member places friends side by side even before training,
because each layer averages over neighbors. One labeled member from each of the four groups
(drawn larger) is then enough to pull the groups apart.

    pip install "amstel[cli]"
    python examples/karate.py [FILE.gif | FILE.svg]
"""

import sys

import torch

import amstel.apps.graphs.karate
import amstel.data
import amstel.draw
import amstel.nn

# A layer is one SpMM. Features of None stand for X = I, one feature per node.
data = amstel.data.karate_club()
layer = amstel.nn.GCNConv(data.num_nodes, 2, bias=False)
with torch.no_grad():
    print("an untrained layer places member 0 at", layer(None, data.graph)[0].tolist())

# Three of these, trained with one label per class: see apps/graphs/karate.py, 15 lines.
data, embeddings, accuracy = amstel.apps.graphs.karate.train(epochs=300)
print(f"accuracy on the other 30 members: {accuracy[0]:.0%} untrained, {accuracy[-1]:.0%} trained")

file = sys.argv[1] if len(sys.argv) > 1 else "karate.gif"
every = range(0, len(embeddings), 5)
draw = amstel.draw.svg if file.endswith(".svg") else amstel.draw.raster
draw(
    file,
    embeddings[list(every)],
    data.labels,
    edges=data.graph.to_edge_index()[0],
    captions=[f"epoch {t}, accuracy {accuracy[t]:.0%}" for t in every],
    marked=data.train.tolist(),
    rescale=True,
)
print("wrote", file)
