"""Synthetic graphs of colored nodes, whose class depends only on how the nodes are linked."""

from __future__ import annotations

import numpy as np
import torch

from amstel import _check
from amstel.data.graphs import GraphDataset
from amstel.graph import Graph

SAME = (0.9, 0.5, 0.1)


def colored_graphs(
    graphs: int = 600, nodes: int = 20, degree: float = 4.0, colors: int = 2, seed: int = 0
) -> GraphDataset:
    """Random graphs of three classes, all with the same distribution of colors, sizes and degrees.

    A node has one of `colors` colors, one-hot in its features. A fraction of 0.9 (class 0), 0.5 (class 1) or 0.1 (class 2)
    of the links joins nodes of the same color. Without the edges, the classes cannot be told apart.

    Args:
        graphs: number of graphs; the classes take turns.
        nodes: mean number of nodes; each graph has between half and one and a half times as many.
        degree: mean number of neighbors, not counting links that are drawn twice.
        colors: >= 2.
        seed: integer >= 0.

    Example:
        >>> amstel.data.colored_graphs(30)
        GraphDataset(colored graphs, num_graphs=30, num_nodes=629, num_edges=2096, num_features=2, num_classes=3)
    """
    graphs = _check.integer("graphs", graphs, 1)
    nodes, colors = _check.integer("nodes", nodes, 4), _check.integer("colors", colors, 2)
    degree = _check.number("degree", degree, "a finite number >= 0", least=0)
    if nodes < 2 * colors:
        _check.fail("nodes", f"an integer >= {2 * colors}, twice the colors", nodes)
    rng = np.random.default_rng(_check.integer("seed", seed, 0))
    made, features, labels = [], [], []
    for k in range(graphs):
        size = int(rng.integers(nodes - nodes // 2, nodes + nodes // 2 + 1))
        color = rng.permutation(np.arange(size) % colors)
        links = int(size * degree / 2)
        source = rng.integers(size, size=links)
        same = rng.random(links) < SAME[k % len(SAME)]
        target = np.array(
            [rng.choice(np.flatnonzero((color == color[u]) == s)) for u, s in zip(source, same, strict=True)],
            dtype=np.int64,
        )
        key = np.concatenate([source * size + target, target * size + source])
        key = np.unique(key[key // size != key % size])
        made.append(Graph.from_edge_index(torch.from_numpy(np.stack([key // size, key % size])), size))
        features.append(torch.nn.functional.one_hot(torch.from_numpy(color), colors).float())
        labels.append(k % len(SAME))
    return GraphDataset(made, features, labels, num_classes=len(SAME), name="colored graphs")
