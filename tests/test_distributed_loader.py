"""DistributedNeighborLoader: batches over the parts of a graph are those of NeighborLoader on the whole."""

import pickle

import pytest
import torch
from torch import distributed

import amstel
from amstel.data import DistributedNeighborLoader, NeighborLoader
from amstel.distributed import DistributedGraph, partition, sum_gradients
from tests import processes

N, SEEDS, WORLDS = 80, 41, (1, 2, 3)
LOADERS = {
    "subset": {"fanouts": [4, 3], "batch_size": 9, "seed": 5},
    "replace": {"fanouts": [3, 5], "batch_size": 50, "replace": True, "shuffle": False},
    "all": {"fanouts": [-1, -1], "batch_size": 13},
}


def _problem(weighted):
    """Rows sorted by their sources, with loops, parallel edges, a hub and nodes without edges."""
    generator = torch.Generator().manual_seed(3)
    index = torch.randint(N - 2, (2, 700), generator=generator)
    index[1, :60] = 11
    index[:, 60:70] = index[:, 70:80]
    index[0, 80:90] = index[1, 80:90]
    index = index[:, index[0].argsort(stable=True)]
    weight = torch.rand(700, generator=generator, dtype=torch.float64) + 0.1
    graph = amstel.Graph.from_edge_index(index, N, weight if weighted else None)
    x = torch.randn(N, 5, generator=generator, dtype=torch.float64)
    x[x.abs() < 0.3] = 0
    seeds = torch.randperm(N, generator=generator)[:SEEDS].sort().values
    seeds[-1] = N - 1  # without edges
    return graph, x, torch.arange(N) % 4, seeds


def _model():
    torch.manual_seed(0)
    return amstel.nn.GCN(5, 6, 4, dropout=0.0, dtype=torch.float64)


def _epochs(loader, reduce):
    """Of every batch of two epochs: seeds, nodes drawn, loss and gradients of all ranks, and logits by seed."""
    found, model = [], _model()
    for _ in range(2):
        for batch in loader:
            model.zero_grad()
            x = batch.x.to_dense()
            logits = model(x, batch.layers)
            loss = torch.nn.functional.cross_entropy(logits, batch.y, reduction="sum")
            loss = loss / getattr(batch, "total", len(batch.y))
            loss.backward()
            result = reduce(model, batch.seeds, logits.detach(), loss.detach())
            found.append([*result, [p.grad for p in model.parameters()]])
    return found


def _work(rank, most, folder):
    for world in WORLDS:
        group = distributed.new_group(list(range(world)))
        if rank >= world:
            continue

        def reduce(model, seeds, logits, loss, group=group, world=world):
            sum_gradients(model, group)
            everyone = [None] * world
            distributed.all_gather_object(everyone, (seeds, logits, loss), group=group)
            seeds, logits, losses = zip(*everyone, strict=True)
            return [torch.cat(seeds), torch.cat(logits), sum(losses)]

        for kind in ("plain", "weighted", "sparse"):
            graph = DistributedGraph.load(f"{folder}/{kind}-{world}", group)
            for name, how in LOADERS.items():
                loader = DistributedNeighborLoader(graph, **how, seeds="train")
                found = _epochs(loader, reduce)
                if rank == 0:
                    torch.save(found, f"{folder}/{kind}-{name}-{world}.pt")
        if world > 1:
            for wrong in ({"seed": rank}, {"fanouts": [2] if rank else [0]}, {"seeds": "exam"}):
                with pytest.raises(ValueError):
                    DistributedNeighborLoader(graph, **wrong)
            loader.epoch = rank
            with pytest.raises(ValueError, match="disagree about the epoch"):
                next(iter(loader))
    distributed.barrier()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loader")
    for kind in ("plain", "weighted", "sparse"):
        graph, x, y, seeds = _problem(kind == "weighted")
        for world in WORLDS:
            # Ranges; scattered; and all but one part in the last, which is empty where there are three.
            method = {
                "plain": "ranges",
                "weighted": torch.arange(N) * 7 % world,
                "sparse": torch.where(torch.arange(N) < 30, 0, world - 1 - (world == 3)),
            }[kind]
            rows = x.to_sparse_csr() if kind == "sparse" else x
            to = folder / f"{kind}-{world}"
            partition(graph, world, to, x=rows, y=y, splits={"train": seeds}, method=method)
    processes.run(_work, folder, world=max(WORLDS))
    return folder


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("kind", ["plain", "weighted", "sparse"])
def test_batches_are_those_of_one_process(folder, kind, name):
    graph, x, y, seeds = _problem(kind == "weighted")
    loader = NeighborLoader(graph, x, y, seeds=seeds, **LOADERS[name])
    whole = _epochs(loader, lambda model, seeds, logits, loss: [seeds, logits, loss])
    for world in WORLDS:
        found = torch.load(folder / f"{kind}-{name}-{world}.pt")
        assert len(found) == len(whole) == 2 * len(loader)
        for ours, theirs in zip(found, whole, strict=True):
            order, expected = ours[0].argsort(), theirs[0].argsort()
            assert torch.equal(ours[0][order], theirs[0][expected])
            torch.testing.assert_close(ours[1][order], theirs[1][expected], rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(ours[2:], theirs[2:], rtol=1e-12, atol=1e-12)


def test_what_a_batch_holds_and_refuses(folder):
    graph = DistributedGraph.load(folder / "plain-1")
    loader = DistributedNeighborLoader(graph, [2, 2], 7, seeds=[3, 5, 9, 60])
    assert len(loader) == 1 and "batches=1" in repr(loader)
    (batch,) = loader
    assert batch.total == 4 and sorted(batch.seeds.tolist()) == sorted(graph.nodes[[3, 5, 9, 60]].tolist())
    layer = pickle.loads(pickle.dumps(batch.layers[0]))
    y = amstel.ops.spmm(batch.layers[0], batch.x, norm="sym_inout")
    assert torch.equal(amstel.ops.spmm(layer, batch.x, norm="sym_inout"), y)
    with pytest.raises(ValueError, match="`edge_ids` are not known"):
        print(layer.edge_ids)
    for wrong, kind in (
        ({"graph": 3}, TypeError),
        ({"seeds": [N]}, ValueError),
        ({"seeds": "exam"}, ValueError),
        ({"batch_size": 0}, ValueError),
        ({"fanouts": []}, ValueError),
        ({"seed": -1}, ValueError),
    ):
        with pytest.raises(kind, match=f"`{next(iter(wrong))}`"):
            DistributedNeighborLoader(**({"graph": graph} | wrong))
    assert list(DistributedNeighborLoader(graph, seeds=[])) == []
