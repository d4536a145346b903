"""Neighbor sampling against torch_geometric's `NeighborLoader`, on whichever of pyg-lib and torch-sparse it finds.

A pass covers some batches of 1024 seeds with fanouts of 15 and 10. Ours draws the neighbors of the seeds again in the
second step, while PyG reuses those of the first, so ours draws about a sixteenth more edges. "workers" are threads or, for PyG,
processes that prepare batches; the time includes starting them, as in every epoch of a user.
"""

import pytest
import torch

import amstel
from benchmarks.suite import Implementation, Shape, Work, suite

pytest.importorskip(
    "torch_geometric", reason='the peer of this file is torch_geometric: pip install "amstel[bench]"'
)
from torch_geometric import typing
from torch_geometric.data import Data
from torch_geometric.loader import NeighborLoader

FANOUTS = [15, 10]
# nodes, edges, features, batches, seeds of a batch
SHAPES = {"1M-20M": Shape((10**6, 2 * 10**7, 100, 20, 1024), (300, 3000, 3, 2, 20), ("cpu",), large=True)}
PEERS = [Implementation("amstel"), Implementation("amstel workers", most=True)]
if typing.WITH_PYG_LIB or typing.WITH_TORCH_SPARSE:
    PEERS += [Implementation("PyG"), Implementation("PyG workers", most=True)]


def loaders(at, nodes, edges, features, batches, size):
    """Sources are drawn with the density 1 / (2 sqrt(u)), so some nodes occur often; targets are uniform."""
    source = (torch.rand(edges, generator=at.generator).square_() * nodes).long().clamp_(max=nodes - 1)
    index = torch.stack([source, torch.randint(0, nodes, (edges,), generator=at.generator)])
    del source
    seeds = torch.randperm(nodes, generator=at.generator)[: batches * size]
    x = at.randn(nodes, features) if features else None
    graph, data = amstel.Graph.from_edge_index(index, nodes), Data(x=x, edge_index=index, num_nodes=nodes)
    workers = 0 if at.dry else 2

    def ours(number):
        loader = amstel.data.NeighborLoader(graph, x, None, FANOUTS, size, seeds, num_workers=number)
        return lambda: counts(len(b.nodes) for b in loader)

    def peer(number):
        loader = NeighborLoader(data, FANOUTS, seeds, batch_size=size, num_workers=number)
        return lambda: counts(b.num_nodes for b in loader)

    def counts(sizes):
        return torch.tensor([float(sum(sizes))])

    functions = {"amstel": ours(0), "amstel workers": ours(workers)}
    if len(PEERS) > 2:
        functions |= {"PyG": peer(0), "PyG workers": peer(workers)}
    return Work(
        functions, tolerance=0.1, judge=None if len(PEERS) > 2 else "amstel", facts={"batches": batches}
    )


@suite("sampler", "structure", SHAPES, *PEERS)
def test_structure(at, nodes, edges, features, batches, size):
    """Nodes and edges only."""
    return loaders(at, nodes, edges, 0, batches, size)


@suite("sampler", "features", SHAPES, *PEERS)
def test_features(at, nodes, edges, features, batches, size):
    """With the rows of the features."""
    return loaders(at, nodes, edges, features, batches, size)
