"""Loaders of subgraphs, and training on sampled batches."""

import json

import numpy as np
import pytest
import torch

import amstel
from amstel.data import NeighborLoader
from tests.command import run
from tests.test_sampling import make

# ---- Subgraphs as batches ----


@pytest.mark.parametrize("method", ["metis", "ranges"])
def test_clusters(method):
    if method == "metis":
        pytest.importorskip("pymetis")
    graph, x = make(weighted=True), torch.randn(60, 4)

    def epochs(**options):
        loader = amstel.data.ClusterLoader(
            graph, x, torch.arange(60), 7, 2, torch.arange(40), method=method, **options
        )
        return len(loader), [list(loader) for _ in range(2)]

    count, (first, second) = epochs()
    assert count == len(first) == 4
    for epoch in (first, second):
        assert sorted(torch.cat([b.nodes for b in epoch]).tolist()) == list(range(60))
        assert sorted(torch.cat([b.y for b in epoch]).tolist()) == list(range(40))
    assert [b.nodes.tolist() for b in first] != [b.nodes.tolist() for b in second]
    for b in first:
        expected = graph.subgraph(b.nodes)
        assert torch.equal(b.x, x[b.nodes]) and torch.equal(b.nodes[b.rows], b.y)
        for norm in ("sym", "row"):
            assert torch.allclose(
                amstel.ops.spmm(b.graph, b.x, norm=norm), amstel.ops.spmm(expected, b.x, norm=norm), atol=1e-6
            )
    again = epochs(num_workers=2)[1][0]
    assert [b.nodes.tolist() for b in again] == [b.nodes.tolist() for b in first]
    given = amstel.data.ClusterLoader(graph, parts=torch.arange(60) % 3 * 5, shuffle=False)
    assert [b.nodes.tolist() for b in given] == [list(range(k, 60, 3)) for k in range(3)]


def test_walks_are_scaled_by_how_often_nodes_and_edges_came():
    """Over the subgraphs that were counted, the mean of the sums and of the loss is that of the whole graph exactly."""
    graph = make(nodes=20, edges=60)
    x = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seeds, y = torch.arange(5, 15), torch.arange(20.0)
    loader = amstel.data.SaintLoader(graph, x, y, 4, 2, 1, seeds, coverage=40)
    counted = loader._plan(-1)[1]
    drawn = round(float(loader._weight[seeds[0]] * loader._nodes_came[seeds[0]]) * len(seeds))
    total, came, loss = torch.zeros(20, 2, dtype=torch.float64), torch.zeros(20), 0.0
    for number in range(drawn):
        batch = counted(number, False)
        assert torch.equal(batch.y, y[batch.nodes[batch.rows]])
        total.index_add_(0, batch.nodes, amstel.ops.spmm(batch.graph, batch.x, norm="row"))
        came[batch.nodes] += 1
        loss += float((batch.weight * batch.y).sum())
    crow, edges = graph.crow.long(), loader._edges_came
    assert loss / drawn == pytest.approx(float(y[seeds].mean()), rel=1e-5)
    expected = amstel.ops.spmm(graph, x, norm="row")
    slots = torch.repeat_interleave(torch.arange(20), crow.diff())
    sure = torch.zeros(20).index_add_(0, slots, (edges > 1).float()) == crow.diff()  # all their edges came
    sure &= came > 0
    assert sure.sum() > 10
    assert torch.allclose((total / came[:, None])[sure], expected[sure], atol=1e-5)
    model = amstel.nn.GCN(2, 4, 3, dtype=torch.float64)
    assert model(batch.x, batch.graph).shape == (len(batch.nodes), 3)


def test_walks_do_not_depend_on_the_workers():
    graph = make()

    def epochs(**options):
        loader = amstel.data.SaintLoader(graph, batch_size=5, steps=4, coverage=2, seed=3, **options)
        return [[(b.nodes.tolist(), b.graph.weight.tolist()) for b in loader] for _ in range(2)]

    first = epochs()
    assert first[0] != first[1] and epochs(num_workers=2, prefetch=1) == first


@pytest.mark.parametrize(
    "loader, options, kind, text",
    [
        ("ClusterLoader", {"parts": 0}, ValueError, "`parts`"),
        ("ClusterLoader", {"parts": 61}, ValueError, "`parts`"),
        ("ClusterLoader", {"parts": torch.zeros(3)}, ValueError, "`parts`"),
        ("ClusterLoader", {"parts": "3"}, TypeError, "`parts`"),
        ("ClusterLoader", {"method": "best"}, ValueError, "`method`"),
        ("ClusterLoader", {"batch_size": 0}, ValueError, "`batch_size`"),
        ("SaintLoader", {"walk_length": -1}, ValueError, "`walk_length`"),
        ("SaintLoader", {"steps": 0}, ValueError, "`steps`"),
        ("SaintLoader", {"coverage": 0}, ValueError, "`coverage`"),
        ("SaintLoader", {"seeds": []}, ValueError, "`seeds`"),
    ],
)
def test_bad_arguments_of_subgraph_loaders(loader, options, kind, text):
    with pytest.raises(kind, match=text):
        getattr(amstel.data, loader)(make(), **options)


# ---- Training ----


@pytest.mark.data
@pytest.mark.slow  # a full batch to compare with takes its time
def test_sampled_training_is_as_accurate_as_full_batches(data_folder):
    """Amazon Photo, 100 training nodes a class, three seeds: within a point of the full batch."""
    with np.load(data_folder / "graphs" / "amazon_photo_labelled.npz", allow_pickle=True) as file:
        adjacency, features = file["adj_matrix"][()], file["node_attr"][()]
        labels = torch.from_numpy(file["node_label"]).long()
    index = torch.from_numpy(np.stack((adjacency + adjacency.T).nonzero())).long()
    graph = amstel.Graph.from_edge_index(index, len(labels))
    x = torch.from_numpy(features.toarray()).float()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train = torch.cat([order[labels[order] == k][:100] for k in range(8)])
    test = torch.ones(len(labels), dtype=torch.bool)
    test[train] = False

    def accuracy(batches, epochs, seed):
        torch.manual_seed(seed)
        model = amstel.nn.GCN(x.shape[1], 64, 8, dropout=0.0)
        adam = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
        slower = torch.optim.lr_scheduler.LinearLR(adam, 1, 0.05, epochs)
        for _ in range(epochs):
            for inputs, graphs, rows, target in batches:
                adam.zero_grad()
                torch.nn.functional.cross_entropy(model(inputs, graphs)[rows], target).backward()
                adam.step()
            slower.step()
        with torch.no_grad():
            return float((model(x, graph).argmax(1) == labels)[test].double().mean())

    class Batches:
        """An epoch of samples."""

        def __init__(self, seed):
            self.loader = NeighborLoader(graph, x, labels, [15, 10], 100, train, seed=seed)

        def __iter__(self):
            return ((b.x, b.layers, slice(None), b.y) for b in self.loader)

    whole = [accuracy([(x, graph, train, labels[train])], 150, seed) for seed in range(3)]
    sampled = [accuracy(Batches(seed), 30, seed) for seed in range(3)]
    print(f"\nfull batch {whole}, sampled {sampled}")
    assert np.mean(whole) > 0.9 and np.mean(sampled) > np.mean(whole) - 0.01


def test_a_study_on_sampled_batches():
    from amstel.apps.graphs.predict import predict
    from amstel.apps.graphs.train import Settings, study

    data = amstel.data.block_model(nodes=400)
    settings = Settings(epochs=20, sampler="neighbor", fanouts=(5, 5), batch_size=30)
    done = []
    found = study(data, seeds=[0, 1], settings=settings, progress=done.append)
    assert sum(done) == 40 and len(found.loss) == 20 and found.loss[-1] < found.loss[0]
    assert found.epochs == [20, 20] and found.mean > 0.5
    again = study(data, seeds=[1], settings=settings)
    assert again.losses[0] == found.losses[1] and again.accuracy[0] == found.accuracy[1]
    assert predict(found, data).shape == (400, data.num_classes)
    stopped = study(data, seeds=[0], settings=Settings(epochs=200, sampler="neighbor", early_stopping="loss"))
    assert len(stopped.losses[0]) == stopped.epochs[0] < 200
    for wrong in ({"sampler": "best"}, {"fanouts": (1,)}, {"fanouts": (0, 1)}, {"batch_size": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Settings(**wrong)
    with pytest.raises(ValueError, match="`sampler`"):
        study(data, "cheb2", seeds=[0], settings=settings)
    # With all neighbors of all training nodes a step is that of the full batch.
    every = study(data, seeds=[2], settings=Settings(epochs=20, sampler="neighbor", fanouts=(-1, -1)))
    np.testing.assert_allclose(
        every.losses, study(data, seeds=[2], settings=Settings(epochs=20)).losses, atol=1e-6
    )


def test_a_study_on_the_command_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train = ["graphs", "train", "--dataset", "block-model", "--seeds", "1", "--epochs", "3"]
    sampled = [*train, "--sampler", "neighbor"]
    for words, text in [
        ([*train, "--fanouts", "3,3"], "--fanouts and --batch-size need --sampler neighbor"),
        ([*sampled, "--fanouts", "3"], "two integers"),
        ([*sampled, "--fanouts", "0,3"], "two integers"),
        ([*sampled, "--model", "mlp"], "--sampler must be 'none'"),
        ([*train, "--sampler", "best"], "--sampler"),
    ]:
        status, _, err = run(capsys, *words)
        assert status == 2 and text in err and len(err.splitlines()) == 1
    status, _, err = run(capsys, *sampled, "--fanouts", "5,-1", "--json", "r.json", "--out", "run")
    assert status == 0, err
    found = json.loads((tmp_path / "r.json").read_text())
    assert len(found["loss"]) == 3 and found["settings"]["fanouts"] == [5, -1]
    status, _, err = run(capsys, *train, "--out", "run", "--resume")
    assert status == 2 and "checkpoint" in err
