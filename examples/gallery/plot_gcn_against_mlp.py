"""
A GCN and an MLP on the same features
=====================================

Both models have the same layers, but only one propagates over the graph. Each is trained with three seeds, on a synthetic graph.
"""

import torch

import amstel

data = amstel.data.block_model()


def train(propagate: bool, seed: int, epochs: int = 60) -> list[float]:
    torch.manual_seed(seed)
    model = amstel.nn.GCN(data.features.shape[1], 16, data.num_classes)
    alone = amstel.Graph.from_edge_index(torch.empty(2, 0, dtype=torch.long), num_nodes=data.num_nodes)
    graph = data.graph if propagate else alone  # without edges a GCN is an MLP
    adam = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    accuracy = []
    for _ in range(epochs):
        model.train()
        loss = torch.nn.functional.cross_entropy(
            model(data.features, graph)[data.train], data.labels[data.train]
        )
        adam.zero_grad()
        loss.backward()
        adam.step()
        model.eval()
        found = model(data.features, graph).argmax(1) == data.labels
        accuracy.append(found[data.test].float().mean().item())
    return accuracy


curves = {name: [train(p, seed) for seed in range(3)] for name, p in (("GCN", True), ("MLP", False))}
axes = amstel.plot.convergence(curves, ylabel="test accuracy")
axes.set_ylim(0, 1)
