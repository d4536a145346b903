"""Classification of whole graphs: the network against its formula, made-up graphs, training and its command."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import amstel
from amstel.apps.graphs import classify, results, tasks, trials
from amstel.apps.graphs.settings import GraphSettings
from amstel.cli import main
from amstel.data import GraphDataset, collate, colored_graphs
from amstel.nn import GraphClassifier

SMALL = GraphSettings(hidden=16, layers=2, epochs=8, learning_rate=0.02)


@pytest.fixture(scope="module")
def data():
    return colored_graphs(150, seed=1)


@pytest.mark.parametrize("pool", ["mean", "sum", "max"])
def test_the_network_is_its_formula_and_graphs_do_not_mix(data, pool):
    nn = pytest.importorskip("torch_geometric.nn")
    theirs = getattr(nn, {"sum": "global_add_pool"}.get(pool, f"global_{pool}_pool"))
    model = GraphClassifier(2, 5, 3, num_layers=2, pool=pool).eval()
    batch = collate(list(data[:4]))
    h, pooled = batch.features, []
    index = batch.graph.to_edge_index()[0]
    for layer in model.layers:
        conv = nn.GCNConv(layer.in_channels, 5)
        with torch.no_grad():
            conv.lin.weight.copy_(layer.weight.T)
            conv.bias.copy_(layer.bias)
        h = conv(h, index).relu()
        pooled.append(theirs(h, batch.graph.batch_index))
    found = model(batch.features, batch.graph)
    torch.testing.assert_close(found, model.head(torch.cat(pooled, 1)))
    alone = torch.cat([model(item.features, item.graph) for item in data[:4]])
    torch.testing.assert_close(found, alone)
    without = GraphClassifier(2, 5, 3, num_layers=2, pool=pool, propagate=False).eval()
    without.load_state_dict(model.state_dict())
    bare = amstel.Graph.batch(
        [amstel.Graph.from_edge_index(torch.zeros(2, 0, dtype=torch.int64), g.num_nodes) for g in data[:4]]
    )
    torch.testing.assert_close(without(batch.features, batch.graph), model(batch.features, bare))


def test_the_network_refuses(data):
    model, item = GraphClassifier(2, 5, 3), data[0]
    for x, graph, error in (
        (item.features[:, :1], item.graph, ValueError),
        (item.features[None], item.graph, ValueError),
        (item.features[:3], item.graph, ValueError),
        (None, item.graph, TypeError),
        (item.features, item.graph.to_edge_index()[0], TypeError),
    ):
        with pytest.raises(error, match=r"`(x|graph)`"):
            model(x, graph)
    with pytest.raises(ValueError, match="`pool` must be"):
        GraphClassifier(2, 5, 3, pool="median")
    assert GraphClassifier(-1, 5, 3)(item.features, item.graph).shape == (1, 3)


def test_colored_graphs_differ_in_their_edges_only(data):
    share = {0: [], 1: [], 2: []}
    for item in data:
        color = item.features.argmax(1)
        source, target = item.graph.to_edge_index()[0]
        assert set(zip(source.tolist(), target.tolist(), strict=True)) == set(
            zip(target.tolist(), source.tolist(), strict=True)
        )
        share[int(item.label)].append((color[source] == color[target]).float().mean())
    means = [float(torch.stack(some).mean()) for some in share.values()]
    assert np.abs(np.array(means) - [0.9, 0.5, 0.1]).max() < 0.12
    again = colored_graphs(150, seed=1)
    assert torch.equal(again[7].graph.to_edge_index()[0], data[7].graph.to_edge_index()[0])
    for bad in (
        {"graphs": 0},
        {"nodes": 3},
        {"colors": 1},
        {"degree": -1.0},
        {"degree": float("nan")},
        {"seed": -1},
    ):
        with pytest.raises(ValueError, match=f"`{next(iter(bad))}` must be"):
            colored_graphs(**bad)


def test_splits_are_apart_and_have_every_class(data):
    parts = classify.split(data, 3)
    numbers = [set(part) for part in parts.values()]
    assert sum(map(len, numbers)) == len(set().union(*numbers)) == 150
    assert [len(part) for part in numbers] == [120, 15, 15]
    for part in parts.values():
        assert torch.bincount(data.labels[part]).min() == len(part) // 3
    assert parts != classify.split(data, 4) and parts == classify.split(data, 3)
    with pytest.raises(ValueError, match="a class with three or more graphs"):
        classify.split(data[:3], 0)


def test_it_learns_what_features_alone_do_not_tell(data, one_thread):
    found = classify.train(data, seeds=[0], settings=SMALL)
    blind = classify.train(data, "mlp", seeds=[0], settings=SMALL)
    assert found.mean > max(0.55, blind.mean + 0.1) and found.loss[-1] < found.loss[0]


def test_a_run_that_is_resumed_is_the_whole_run(data, tmp_path, one_thread):
    few = replace(SMALL, epochs=2)
    found = classify.train(data, seeds=[0, 1], settings=few, out=tmp_path / "whole")
    classify.train(data, seeds=[0], settings=few, out=tmp_path / "parts")
    parts = classify.train(data, seeds=[0, 1], settings=few, out=tmp_path / "parts", resume=True)
    assert parts.scores == found.scores and parts.losses == found.losses
    read = tasks.read(tmp_path / "whole" / "checkpoint.pt")
    row = classify.evaluate(read, data)
    assert row["test"] == pytest.approx(found.scores["accuracy"][row["seed"]])
    assert row["val"] == pytest.approx(max(found.validation))
    probability = classify.predict(read, data)
    assert probability.shape == (150, 3)
    torch.testing.assert_close(probability[[5]], classify.predict(read, data[5:6]))


def test_graphs_without_features_and_other_mistakes(data):
    bare = GraphDataset([item.graph for item in data], None, data.labels)
    found = classify.train(bare, seeds=[0], settings=GraphSettings(hidden=4, epochs=2))
    assert len(found.losses[0]) == 2
    with pytest.raises(ValueError, match="the network is for 0 features, but"):
        classify.predict(found, data)
    targets = GraphDataset([item.graph for item in data], None, torch.rand(150))
    with pytest.raises(ValueError, match="`data` must have a class for every graph"):
        classify.train(targets)
    with pytest.raises(
        ValueError, match="`data` must have a class for every graph"
    ):  # asked first by the command
        classify.steps(targets, GraphSettings())
    few = GraphDataset([item.graph for item in data][:4], None, torch.tensor([0, 0, 1, 1]))
    with pytest.raises(ValueError, match="`data` must have a class with three or more graphs"):
        classify.train(few)
    with pytest.raises(TypeError, match=r"`data` must be an amstel\.data\.GraphDataset"):
        classify.train(amstel.data.karate_club())
    with pytest.raises(ValueError, match="`pool` must be"):
        GraphSettings(pool="median")


def test_what_stands_for_features_counts_neighbors(data, one_thread):
    """Whatever their weights are."""
    index = torch.tensor([[0, 1, 2, 3, 0], [1, 0, 1, 1, 2]])  # 1, 3, 1 and 0 neighbors
    weight = torch.tensor([-3.0, 0.5, 2.0, 1.0, -1.0])
    item = amstel.data.GraphData(amstel.Graph.from_edge_index(index, 4, weight))
    model = GraphClassifier(2, 5, 3)
    expected = torch.tensor([[1, np.log(2)], [1, np.log(4)], [1, np.log(2)], [1, 0]], dtype=torch.float32)
    torch.testing.assert_close(classify._inputs(model, item), expected)
    graphs = []
    for item in data:
        edges = item.graph.to_edge_index()[0]
        graphs.append(amstel.Graph.from_edge_index(edges, item.num_nodes, -torch.ones(edges.shape[1])))
    bare = GraphDataset(graphs, None, data.labels)
    settings = replace(SMALL, epochs=2)
    found = classify.train(bare, seeds=[0], settings=settings)
    features = [classify._inputs(model, amstel.data.GraphData(graph)) for graph in graphs]
    given = classify.train(GraphDataset(graphs, features, data.labels), seeds=[0], settings=settings)
    assert found.losses == given.losses and np.isfinite(found.losses).all()


def run(capsys, *arguments):
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_command_on_files_of_the_tu_format(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = colored_graphs(60, seed=2)
    whole = data._all
    index = whole.to_edge_index()[0] + 1
    files = {
        "A": index.T,
        "graph_indicator": whole.batch_index[:, None] + 1,
        "graph_labels": data.labels[:, None] * 2 - 1,  # -1, 1, 3
        "node_labels": torch.cat([item.features.argmax(1) for item in data])[:, None],
    }
    for name, rows in files.items():
        text = "".join(", ".join(map(str, row)) + "\n" for row in rows.tolist())
        (tmp_path / f"COLORS_{name}.txt").write_text(text)
    train = ["graphs", "train", "--task", "graph", "--dataset", "COLORS", "--root", "."]
    few = ["--epochs", "3", "--hidden", "8", "--layers", "2", "--pool", "sum", "--batch-size", "10"]
    status, out, err = run(capsys, *train, *few, "--seeds", "2", "--out", "run", "--json", "a.json")
    assert (status, err) == (0, "") and "COLORS gcn: test accuracy" in out
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["task"] == "graph" and len(found["accuracy"]) == 2 and len(found["loss"]) == 3
    assert found["settings"]["pool"] == "sum"
    status, _, err = run(capsys, "graphs", "predict", "run/checkpoint.pt", "--root", ".")
    rows = list(csv.DictReader((tmp_path / "COLORS_classes.csv").open()))
    assert status == 0 and len(rows) == 60 and {row["class"] for row in rows} <= {"-1", "1", "3"}
    status, out, _ = run(capsys, "graphs", "evaluate", "run/checkpoint.pt", "--root", ".")
    assert status == 0 and "train" in out and "test" in out
    for arguments, said in (
        ([*train[:-2]], "--root must be the folder of COLORS_A.txt"),
        ([*train, "--latent", "3"], "--latent is for another task, got --task graph"),
        ([*train, "--model", "cheb2"], "--model of --task graph must be one of gcn, mlp"),
        (
            ["graphs", "predict", "run/checkpoint.pt", "--root", ".", "--count", "3"],
            "--count is for --task link",
        ),
        (
            ["graphs", "train", "--dataset", "block-model", "--pool", "max"],
            "--pool is for another task, got --task node",
        ),
    ):
        status, _, err = run(capsys, *arguments)
        assert status == 2 and said in err and err.count("\n") == 1


def test_a_stored_batch_goes_to_onnx(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    rings = [amstel.Graph.from_edge_index(torch.tensor([range(n), [*range(1, n), 0]]), n) for n in (3, 4)]
    graphs = [*rings, amstel.Graph.from_edge_index(torch.zeros(2, 0, dtype=torch.int64), 1)]

    class Stored(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.graph = GraphClassifier(2, 5, 3, num_layers=2), amstel.Graph.batch(graphs)

        def forward(self, x):
            return self.model(x, self.graph)

    stored, x = Stored().eval(), torch.randn(8, 2)
    torch.onnx.export(stored, (x,), tmp_path / "model.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(found), stored(x).detach())


def test_layers_without_the_graph_take_their_width_from_the_first_input():
    graph, x = amstel.Graph.from_edge_index(torch.tensor([[0, 1], [1, 0]])), torch.randn(2, 5)
    model = amstel.nn.GraphClassifier(-1, 4, 3, dropout=0.0, propagate=False)
    found = model(x, graph)
    plain = amstel.nn.GraphClassifier(5, 4, 3, dropout=0.0, propagate=False)
    plain.load_state_dict(model.state_dict())
    assert model.in_channels == 5 and torch.equal(found, plain(x, graph))


def test_resuming_another_task_names_the_option(tmp_path):
    path = tmp_path / "checkpoint.pt"
    for kind, read in ((results.FORMAT, trials.read), (trials.FORMAT, results.read)):
        torch.save({"format": kind}, path)
        with pytest.raises(ValueError, match=r"--task must be that of the checkpoint .*, got"):
            read(path)


def test_features_that_no_learning_rate_suits_are_suspected(tmp_path):
    data = colored_graphs(60)
    data._features = 1e38 * data._features
    with pytest.raises(ValueError, match=r"after 1 step; .* must be smaller, or the inputs be scaled down"):
        classify.train(data, seeds=[0], settings=GraphSettings(epochs=2, batch_size=100))


def test_the_loss_of_an_epoch_is_that_of_its_graphs(monkeypatch):
    """Each batch counted the same, and so the graphs of the last, which are fewer, more than others."""
    data, batches = colored_graphs(60), []
    entropy = classify.cross_entropy

    def noted(logits, labels):
        batches.append((len(labels), entropy(logits, labels).item()))
        return entropy(logits, labels)

    monkeypatch.setattr(classify, "cross_entropy", noted)
    result = classify.train(data, seeds=[0], settings=replace(SMALL, epochs=1, batch_size=33))
    assert len({count for count, _ in batches}) == 2
    expected = sum(count * loss for count, loss in batches) / sum(count for count, _ in batches)
    assert result.loss[0] == pytest.approx(expected)
