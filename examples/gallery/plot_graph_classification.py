"""
Which kind of graph is this?
============================

These graphs grow node by node. A new node connects to two others: any two in one class, and preferably well-connected ones in
the other. A GCN classifies whole graphs, in batches from a DataLoader. Its layers see one block-diagonal graph, and pooling
turns the vectors of a graph's nodes into one vector per graph.
"""

import torch
from torch.utils.data import DataLoader

import amstel
from amstel.nn import GCNConv, global_max_pool, global_mean_pool

random = torch.Generator().manual_seed(0)


def grown(preferring: int) -> tuple[amstel.Graph, torch.Tensor]:
    ends = [0, 1]  # the ends of all edges so far: each node appears once per neighbor
    nodes = int(torch.randint(20, 40, (), generator=random))
    for new in range(2, nodes):
        chances, picks = list(ends) if preferring else list(range(new)), set()
        while len(picks) < 2:
            picks.add(chances[int(torch.randint(len(chances), (), generator=random))])
        for pick in sorted(picks):
            ends += [pick, new]
    pairs = torch.tensor(ends).view(-1, 2).T
    graph = amstel.Graph.from_edge_index(torch.cat([pairs, pairs.flip(0)], 1), nodes)
    return graph, graph.degree(torch.float32)[:, None] / 10


kinds = [k % 2 for k in range(300)]
graphs, features = zip(*map(grown, kinds), strict=True)
data = amstel.data.GraphDataset(graphs, features, kinds)
train, test = data[:200], data[200:]


class Classifier(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = GCNConv(1, 16, activation="relu"), GCNConv(16, 16, activation="relu")
        self.last = torch.nn.Linear(32, 2)

    def forward(self, batch):
        h = self.second(self.first(batch.features, batch.graph), batch.graph)
        return self.last(torch.cat([global_mean_pool(h, batch.graph), global_max_pool(h, batch.graph)], 1))


def accuracy(model: torch.nn.Module, some: amstel.data.GraphDataset) -> float:
    batch = amstel.data.collate(list(some))
    with torch.no_grad():
        return (model(batch).argmax(1) == batch.label).float().mean().item()


curves = []
for seed in range(3):
    torch.manual_seed(seed)
    model, curve = Classifier(), []
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    loader = DataLoader(train, batch_size=32, shuffle=True, collate_fn=amstel.data.collate)
    for _ in range(12):
        for batch in loader:
            adam.zero_grad()
            torch.nn.functional.cross_entropy(model(batch), batch.label).backward()
            adam.step()
        curve.append(accuracy(model, test))
    curves.append(curve)
assert min(curve[-1] for curve in curves) > 0.75

axes = amstel.plot.convergence({"GCN with pooling": curves}, ylabel="test accuracy")
axes.set_ylim(0, 1)
