"""The example from Kipf's slides: a three-layer GCN on the karate club, before and during training on one label per class."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from amstel import _check
from amstel.data.nodes import NodeData, karate_club
from amstel.nn.gcn import GCNConv


class KarateGCN(nn.Module):
    """X = I, layers of 4, 4 and 2 tanh units, and a linear classifier on the 2."""

    def __init__(self, data: NodeData):
        super().__init__()
        widths = [data.num_nodes, 4, 4, 2]
        self.layers = nn.ModuleList(GCNConv(a, b, bias=False) for a, b in pairwise(widths))
        self.classifier = nn.Linear(2, data.num_classes)

    def forward(self, graph: object) -> tuple[Tensor, Tensor]:
        """Embedding [N, 2] and logits [N, classes]."""
        h: Tensor | None = None
        for layer in self.layers:
            h = layer(h, graph).tanh()
        assert h is not None
        return h, self.classifier(h)


def train(epochs: int = 300, seed: int = 6) -> tuple[NodeData, Tensor, list[float]]:
    """Train on one labeled member per class.

    Returns:
        the data, the embedding before each epoch and after the last [epochs + 1, 34, 2] (the
        first one is that of the untrained network), and the accuracy on the other 30 members at each.

    Source: T. N. Kipf and M. Welling, ICLR 2017, appendix A.1.

    Example:
        >>> data, embeddings, accuracy = amstel.apps.graphs.karate.train(epochs=5)
        >>> embeddings.shape
        torch.Size([6, 34, 2])
    """
    epochs, seed = _check.integer("epochs", epochs, 0), _check.integer("seed", seed, 0)
    data = karate_club()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = KarateGCN(data)
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    embeddings, accuracy = [], []
    for epoch in range(epochs + 1):
        embedding, logits = model(data.graph)
        embeddings.append(embedding.detach())
        found = logits.argmax(1) == data.labels
        accuracy.append(found[data.test].float().mean().item())
        if epoch < epochs:
            adam.zero_grad()
            nn.functional.cross_entropy(logits[data.train], data.labels[data.train]).backward()
            adam.step()
    return data, torch.stack(embeddings), accuracy
