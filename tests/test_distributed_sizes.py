"""Full-batch training in parts, on graphs of real sizes: losses of 50 epochs, and logits, are those of one process.

AMSTEL_DATA=DIR pytest -m slow -s tests/test_distributed_sizes.py       # prints the largest differences
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import distributed

import amstel
from amstel.distributed import DistributedGraph, partition, sum_gradients
from tests import processes

pytestmark = [pytest.mark.data, pytest.mark.slow]
WORLDS, EPOCHS = (1, 2, 3, 4), 50
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}
#: Of the float32 logits of the random graph, whose hub and node without edges see more of the order of the sums: numbering
#: the nodes of a single process otherwise moves them by 4e-6.
BY_ORDER = 5e-6
KINDS, MODELS = ("cora", "pubmed", "random"), ("gcn", "cheb")


def _problem(kind, folder):
    """Graph, features, classes and training nodes: Cora (Chebyshev on 100 of its words); PubMed's graph with made-up
    features; a graph with a hub, weights, parallel edges, loops and a node without edges."""
    draw = torch.Generator().manual_seed(1)
    if kind == "cora":
        data = amstel.data.Planetoid(folder / "planetoid", "cora")
        return data.graph, data.features.to_sparse_csr().double(), data.labels, data.train
    if kind == "pubmed":
        with np.load(folder / "graphs" / "pubmed.npz") as file:
            graph = amstel.Graph.from_csr(file["indptr"], file["indices"])
        classes, width, rows = 3, 20, 60
    else:
        index = torch.randint(2999, (2, 40000), generator=draw)
        index[1, :3000] = 5
        weight = torch.rand(40000, generator=draw, dtype=torch.float64) + 0.1
        graph = amstel.Graph.from_edge_index(index, 3000, weight)
        classes, width, rows = 6, 30, 500
    n = graph.num_nodes
    x = torch.randn(n, width, generator=draw, dtype=torch.float64) / width**0.5
    return graph, x, torch.randint(classes, (n,), generator=draw), torch.randperm(n, generator=draw)[:rows]


def _learn(name, dtype, graph, x, y, rows, total, classes, reduce):
    torch.manual_seed(0)
    x = x.to(dtype)
    if x.layout == torch.sparse_csr and name == "cheb":
        x = x.to_dense()[:, :100].contiguous()
    if name == "gcn":
        model = amstel.nn.GCN(x.shape[1], 16, classes, dropout=0.0, dtype=dtype)
    else:
        model = amstel.nn.ChebConv(x.shape[1], classes, K=3, dtype=dtype)
    adam = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    losses = []
    for _ in range(EPOCHS):
        loss = F.cross_entropy(model(x, graph)[rows], y[rows], reduction="sum") / total
        adam.zero_grad()
        loss.backward()
        losses.append(reduce(model, loss.detach()))
        adam.step()
    with torch.no_grad():
        return torch.stack(losses), model(x, graph)


def _work(rank, most, folder):
    for world in WORLDS:
        group = distributed.new_group(list(range(world)))
        if rank >= world:
            continue

        def reduce(model, loss, group=group):
            sum_gradients(model, group)
            distributed.all_reduce(loss, group=group)
            return loss

        for kind in KINDS:
            part = DistributedGraph.load(f"{folder}/{kind}-{world}", group)
            rows, total, classes = part.splits["train"], part.totals["train"], part.meta["classes"]
            for name in MODELS:
                for dtype in TOLERANCE:
                    losses, logits = _learn(name, dtype, part, part.x, part.y, rows, total, classes, reduce)
                    logits = part.gather(logits)
                    if rank == 0:
                        torch.save((losses, logits), f"{folder}/{kind}-{name}-{dtype}-{world}.pt")
    distributed.barrier()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, data_folder):
    folder = tmp_path_factory.mktemp("sizes")
    for kind in KINDS:
        graph, x, y, rows = _problem(kind, data_folder)
        for world in WORLDS:
            method = "ranges" if kind != "random" else torch.arange(graph.num_nodes) * 7 % world
            partition(
                graph, world, folder / f"{kind}-{world}", x=x, y=y, splits={"train": rows}, method=method
            )
    processes.run(_work, folder, world=max(WORLDS))
    return folder


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", KINDS)
def test_training_is_that_of_one_process(folder, data_folder, kind, name, dtype):
    graph, x, y, rows = _problem(kind, data_folder)
    classes = int(y.max()) + 1
    losses, logits = _learn(name, dtype, graph, x, y, rows, len(rows), classes, lambda model, loss: loss)
    assert losses[-1] < losses[0]
    found = [torch.load(folder / f"{kind}-{name}-{dtype}-{world}.pt") for world in WORLDS]
    apart = [[float((a - b).abs().max()) for a, b in zip(f, (losses, logits), strict=True)] for f in found]
    print(f"\n{kind} {name} {dtype}: loss and logits at 1, 2, 3, 4 ranks: {apart}")
    of_losses, of_logits = (max(some) for some in zip(*apart, strict=True))
    assert of_losses <= TOLERANCE[dtype]
    assert of_logits <= (BY_ORDER if (kind, dtype) == ("random", torch.float32) else TOLERANCE[dtype])
