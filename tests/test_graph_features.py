"""The features that the trainings on graphs take: of every precision, finite, in one or more columns."""

import dataclasses
import re
import warnings

import numpy as np
import pytest
import torch

import amstel
from amstel.apps import training
from amstel.apps.graphs import classify, distributed, links, predict, train
from amstel.apps.graphs.settings import GraphSettings, LinkSettings, Settings
from amstel.data import GraphDataset, GraphFolder, block_model, colored_graphs

from .command import is_refused

NODE, LINK = Settings(epochs=3), LinkSettings(epochs=3)


@pytest.fixture(scope="module")
def data():
    """Features that every precision holds exactly."""
    data = block_model(nodes=300)
    return dataclasses.replace(data, features=(data.features.to_dense() > 0).float())


def _of(data, features):
    return dataclasses.replace(data, features=features)


@pytest.mark.parametrize("sampler", ["none", "neighbor"])
@pytest.mark.parametrize(
    ("form", "value"),
    [
        (torch.Tensor.clone, float("nan")),
        (torch.Tensor.to_sparse_coo, float("inf")),
        (torch.Tensor.to_sparse_csr, -1e300),
    ],
)
def test_features_that_are_not_finite_are_named(data, form, value, sampler):
    """Row 299 is a test node without neighbors: no training would notice."""
    index = data.graph.to_edge_index()[0]
    graph = amstel.Graph.from_edge_index(index[:, (index < 290).all(0)], 300)
    x = data.features.double()
    x[299, 7] = value
    bad = dataclasses.replace(data, graph=graph, features=form(x))
    said = re.escape(f"the features of block model must be finite numbers of float32, got {value} in row 299")
    with pytest.raises(ValueError, match=said):
        train.study(bad, seeds=[0], settings=dataclasses.replace(NODE, sampler=sampler))
    good = dataclasses.replace(data, graph=graph)
    with pytest.raises(ValueError, match=said):
        predict.predict(train.study(good, seeds=[0], settings=NODE), bad)
    with pytest.raises(ValueError, match=said):
        links.train(bad, seeds=[0], settings=LINK)
    with pytest.raises(ValueError, match=said):
        links.predict(links.train(good, seeds=[0], settings=LINK), bad)


def test_the_loss_of_sampled_batches_counts_their_nodes(data, monkeypatch):
    """The last batch of an epoch has fewer; the log weighed it as the others."""
    fit, logged = training.fit, []
    monkeypatch.setattr(training, "fit", lambda *a, **k: logged.extend(fit(*a, **k)))
    settings = dataclasses.replace(NODE, sampler="neighbor", batch_size=len(data.train) - 1)
    (losses,) = train.study(data, seeds=[0], settings=settings).losses
    assert logged[0]["loss"] == pytest.approx(np.mean(losses), rel=1e-6)


def test_the_command_names_them_too(data, capsys, tmp_path):
    x = data.features.clone()
    x[5, 1] = torch.nan  # of a training node: not the learning rate is to blame
    GraphFolder.write(_of(data, x), tmp_path / "bad")
    for task in ("node", "link"):
        words = ["graphs", "train", "--dataset", tmp_path / "bad", "--seeds", 1, "--task", task]
        is_refused(
            capsys, words, "the features of block model must be finite numbers of float32, got nan in row 5"
        )
    distributed.write(_of(data, x), 1, tmp_path / "parts")
    part = amstel.distributed.DistributedGraph.load(tmp_path / "parts")
    with pytest.raises(ValueError, match=r"the features of block model must be finite .* got nan in row 5$"):
        train.study(part, seeds=[0], settings=NODE)


def test_features_of_graphs_are_finite():
    data = colored_graphs(30)
    graphs, features = [item.graph for item in data], [item.features.clone() for item in data]
    features[1][2, 0] = torch.inf
    bad = GraphDataset(graphs, features, data.labels)
    row = features[0].shape[0] + 2
    with pytest.raises(
        ValueError, match=rf"the features of the graphs must be finite .* got inf in row {row}$"
    ):
        classify.train(bad, seeds=[0])
    good = classify.train(data, seeds=[0], settings=GraphSettings(epochs=1))
    with pytest.raises(ValueError, match="the features of the graphs must be finite"):
        classify.evaluate(good, bad)


def test_features_without_columns_are_refused(data):
    for form in (torch.Tensor.clone, torch.Tensor.to_sparse_csr):
        none = _of(data, form(torch.empty(300, 0)))
        for start in (train.study, links.train):
            with pytest.raises(
                ValueError, match=r"features of block model must have one or more columns, got \[300, 0\]"
            ):
                start(none, seeds=[0])
    graphs = colored_graphs(30)
    bare = GraphDataset([g.graph for g in graphs], [g.features[:, :0] for g in graphs], graphs.labels)
    with pytest.raises(ValueError, match="features of the graphs must have one or more columns"):
        classify.train(bare, seeds=[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_precision_of_the_features_does_not_matter(data, dtype, one_thread):
    graphs = colored_graphs(30)
    same = GraphDataset(
        [g.graph for g in graphs], [g.features.to(dtype) for g in graphs], graphs.labels, num_classes=3
    )
    small = GraphSettings(epochs=2, hidden=4)
    whole = classify.train(graphs, seeds=[0], settings=small)
    assert classify.train(same, seeds=[0], settings=small).losses == whole.losses
    torch.testing.assert_close(classify.predict(whole, same), classify.predict(whole, graphs), rtol=0, atol=0)
    for start, settings in ((train.study, NODE), (links.train, LINK)):
        found = [
            start(_of(data, x), seeds=[0], settings=settings)
            for x in (data.features, data.features.to(dtype))
        ]
        assert found[0].losses == found[1].losses
    pairs = links.predict(found[0], _of(data, data.features.to(dtype)))
    assert torch.equal(pairs[0], links.predict(found[0], data)[0])


def test_the_default_dtype(data):
    """Networks of torch's layers have it; studies are float32 whatever it is, without features too."""
    bare = _of(data, None)
    before = [train.study(bare, m, [0], NODE).losses for m in ("gcn", "cheb2", "single")]
    try:
        torch.set_default_dtype(torch.float64)
        assert [train.study(bare, m, [0], NODE).losses for m in ("gcn", "cheb2", "single")] == before
        found = links.train(data, "gae", seeds=[0], settings=LINK)
        assert all(w.dtype == torch.float64 for w in found.best[1].values())
        assert links.evaluate(found, data)["test_auc"] == pytest.approx(found.scores["auc"][0])
        classify.train(colored_graphs(30), seeds=[0], settings=GraphSettings(epochs=1, hidden=4))
    finally:
        torch.set_default_dtype(torch.float32)


def test_nothing_is_said_of_torch_s_sparse_layouts():
    """It warns of its product of sparse matrices in the first process that multiplies some."""
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            train.study(amstel.data.karate_club(), "cheb3", [0], NODE)
    finally:
        torch.set_warn_always(False)
