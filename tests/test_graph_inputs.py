"""What comes from outside into node classification, right or refused: one table for the library, one for the commands."""

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import amstel
from amstel.apps.graphs import evaluate, karate, predict, results
from amstel.apps.graphs.settings import Settings
from amstel.apps.graphs.train import study
from amstel.interop import got10k, pysot, pytracking, vot
from amstel.tracking._given import target
from amstel.tracking.evaluation import check_boxes
from tests import command

GRAPH = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 2], [1, 2, 0]]), 4)
SPLIT = {"train": torch.tensor([0]), "val": torch.tensor([1]), "test": torch.tensor([2])}
PARTS = {
    "name": "x",
    "graph": GRAPH,
    "features": None,
    "labels": torch.tensor([0, 1, 0, -1]),
    "num_classes": 2,
}
NAN, HUGE = float("nan"), 10**30


def test_weights_of_a_networkx_graph_beyond_float64_are_refused():
    import networkx

    G = networkx.Graph()
    G.add_edge(0, 1, weight=10**400)
    with pytest.raises(ValueError, match="`weight` must hold numbers that float64 holds exactly"):
        amstel.Graph.from_networkx(G)
    with pytest.raises(TypeError, match="`indptr`"):
        amstel.Graph.from_csr([0, True], [0])


def nodes(**changes):
    return amstel.data.NodeData(**{**PARTS, **SPLIT, **changes})


@pytest.fixture(scope="module")
def data():
    return amstel.data.block_model(nodes=400, words=20)


@pytest.mark.parametrize(
    "change, error",
    [
        ({"name": None}, TypeError),
        ({"graph": amstel.Graph.from_csr([0, 1], [3], num_cols=4)}, ValueError),
        ({"features": torch.zeros(4, 2, dtype=torch.long)}, ValueError),
        ({"features": torch.zeros(4, 2, dtype=torch.bool)}, ValueError),
        ({"features": torch.zeros(4, 2, dtype=torch.complex64)}, ValueError),
        ({"features": torch.zeros(4)}, ValueError),
        ({"features": torch.zeros(4, 2).to_sparse_csc()}, ValueError),
        ({"features": np.zeros((4, 2))}, TypeError),
        ({"labels": torch.tensor([0.0, 1, NAN, 0])}, ValueError),
        ({"labels": torch.tensor([0, 1, -2, 0])}, ValueError),
        ({"labels": torch.tensor([0, 1, 2, 0])}, ValueError),
        ({"labels": torch.tensor([0, 1, 0, 0], dtype=torch.int32)}, ValueError),
        ({"train": torch.tensor([3])}, ValueError),  # no label
        ({"val": torch.tensor([3])}, ValueError),
        ({"train": torch.tensor([0, 0])}, ValueError),
        ({"val": torch.tensor([0])}, ValueError),  # trains already
        ({"test": torch.tensor([1])}, ValueError),
        ({"test": torch.tensor([4])}, ValueError),
        ({"test": torch.tensor([2**62])}, ValueError),
        ({"test": torch.tensor([2], device="meta")}, ValueError),
        ({"num_classes": HUGE, "labels": None}, ValueError),
    ],
    ids=str,
)
def test_node_data(change, error):
    assert nodes().num_nodes == 4
    with pytest.raises(error, match=f"`({'|'.join(change)})` must"):
        nodes(**change)


@pytest.mark.parametrize(
    "change, error",
    [
        *(
            ({name: value}, ValueError)
            for name in ("hidden", "epochs", "patience")
            for value in (0, -1, 1.0, True, "8", None, HUGE)
        ),
        *(({"dropout": value}, ValueError) for value in (-0.1, 1.0, NAN, "x", None, True)),
        *(
            ({name: value}, ValueError)
            for name in ("weight_decay", "learning_rate")
            for value in (-1, NAN, float("inf"), "x")
        ),
        *(({"early_stopping": value}, ValueError) for value in ("soon", None, 3, [])),
    ],
    ids=str,
)
def test_settings(change, error):
    with pytest.raises(error, match=f"`{next(iter(change))}` must be"):
        Settings(**change)


def test_numpy_settings_are_numbers():
    settings = Settings(hidden=np.int64(8), dropout=np.float32(0.5), learning_rate=1)
    assert type(settings.hidden) is int and settings == Settings(hidden=8, learning_rate=1)


@pytest.mark.parametrize(
    "change, error",
    [
        ({"model": "gat"}, ValueError),
        ({"model": None}, ValueError),
        ({"model": ["gcn"]}, TypeError),
        ({"seeds": []}, ValueError),
        ({"seeds": [1.5]}, ValueError),
        ({"seeds": [True]}, TypeError),
        ({"seeds": [-1]}, ValueError),
        ({"seeds": "12"}, TypeError),
        ({"seeds": 3}, TypeError),
        ({"seeds": range(10**12)}, ValueError),
        ({"settings": {"hidden": 3}}, TypeError),
        ({"chunk": 0}, ValueError),
        ({"chunk": 1.5}, ValueError),
        ({"out": 3}, TypeError),
        ({"resume": "yes"}, TypeError),
        ({"force": 1}, TypeError),
        ({"progress": 3}, TypeError),
        ({"device": "abacus"}, ValueError),
        ({"device": 1.5}, TypeError),
        ({"data": "cora"}, TypeError),
        ({"data": nodes(train=torch.arange(0))}, ValueError),
        ({"data": nodes(test=torch.arange(0))}, ValueError),
        ({"data": nodes(test=torch.tensor([3]))}, ValueError),
    ],
    ids=str,
)
def test_studies(data, change, error):
    name = next(iter(change))
    with pytest.raises(error, match=f"`{name}` must"):
        study(**{"data": data, "seeds": [0], "settings": Settings(epochs=1), **change})


def test_predictions_and_the_karate_club(data, tmp_path):
    found = study(data, seeds=[0], settings=Settings(epochs=1))
    for call in (
        lambda: predict.predict(3, data),
        lambda: predict.predict(found, "cora"),
        lambda: evaluate.evaluate(None, data),
        lambda: predict.predict(found, data, 1.5),
    ):
        with pytest.raises(TypeError, match=r"`(study|data|device)` must be"):
            call()
    with pytest.raises(ValueError, match="the network is for 20 features"):
        predict.predict(found, amstel.data.block_model(nodes=400, words=30))
    with pytest.raises(ValueError, match="`path` must be"):
        predict.write(tmp_path / "x.txt", torch.ones(2, 2))
    for arguments in ({"epochs": -1}, {"epochs": 1.5}, {"seed": -1}):
        with pytest.raises(ValueError, match="must be"):
            karate.train(**arguments)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "another"},
        {"dataset": 3},
        {"model": "gat"},
        {"seeds": "0"},
        {"seeds": []},
        {"accuracy": [2.0]},
        {"accuracy": [NAN]},
        {"epochs": None},
        {"best": None},
        {"best": (0, torch.zeros(3), torch.zeros(3, 3))},
        {"best": (0, torch.zeros(3, 3).long(), torch.zeros(3, 3))},
        {"settings": {"hidden": 1.5}},
        {"settings": 3},
        {"more": 3},
    ],
    ids=str,
)
def test_checkpoints_of_something_else(data, tmp_path, change):
    path = tmp_path / "checkpoint.pt"
    results.save(path, study(data, seeds=[0], settings=Settings(epochs=1)))
    results.read(path)
    torch.save({**torch.load(path, weights_only=True), **change}, path)
    with pytest.raises(ValueError, match="is not a checkpoint of"):
        results.read(path)


def test_checkpoints_that_are_no_whole_files(data, tmp_path):
    path = tmp_path / "Prüfung 図.pt"
    results.save(path, study(data, seeds=[0], settings=Settings(epochs=1)))
    whole = path.read_bytes()
    for damage in (b"", whole[:100], whole[: len(whole) // 2], b"\x80\x02", os.urandom(500), b"PK\x03\x04"):
        path.write_bytes(damage)
        with pytest.raises(ValueError, match="is not a checkpoint of"):
            results.read(path)
    with pytest.raises(IsADirectoryError, match="is a folder"):
        results.read(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        results.read(tmp_path / "nothing.pt")


QUICK = ["graphs", "train", "--dataset", "block-model", "--seeds", "1", "--epochs", "1"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([*QUICK, "--seeds", str(HUGE)], "--seeds should be an integer >= 1 and <= 10000000"),
        ([*QUICK, "--hidden", str(HUGE)], "--hidden should be an integer >= 1 and"),
        ([*QUICK, "--epochs", str(HUGE)], "--epochs should be an integer >= 1 and"),
        ([*QUICK, "--hidden", "1e3"], "--hidden should be an integer >= 1"),
        ([*QUICK, "--weight-decay", "nan"], "--weight-decay should be a number >= 0"),
        ([*QUICK, "--plot", "a.png", "--json", "a.png"], "another file"),
        ([*QUICK, "--out", "run", "--json", "run/checkpoint.pt"], "run"),
        (["graphs", "train", "--dataset", "", "--root", "."], "data set"),
        (["graphs", "train", "--dataset", "../cora", "--root", "."], "data set"),
        (["graphs", "train", "--dataset", "c*", "--root", "."], "data set"),
        (["graphs", "train", "--dataset", "图", "--root", "."], "no files ind.图.*"),
        (["graphs", "predict", "."], "is a folder"),
    ],
    ids=lambda v: " ".join(v[2:])[:50] if isinstance(v, list) else "",
)
def test_commands(capsys, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    command.is_refused(capsys, arguments, message)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_is_never_replaced_by_results(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert command.run(capsys, *QUICK, "--out", "run")[0] == 0
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    (tmp_path / "link.pt").symlink_to("run/checkpoint.pt")
    for verb in ("predict", "evaluate"):
        for name in ("run/checkpoint.pt", "link.pt"):
            status, _, err = command.run(capsys, "graphs", verb, "run/checkpoint.pt", "--json", name)
            assert (
                status == 2 and re.search("another file|holds something else", err) and err.count("\n") == 1
            )
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before
    (tmp_path / "named.csv").write_bytes(before)
    command.is_refused(capsys, ["graphs", "predict", "named.csv", "-o", "named.csv"], "another file")
    assert (tmp_path / "named.csv").read_bytes() == before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full")
def test_a_full_disk_is_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "amstel", *QUICK, "--quiet", "--json", "/dev/full"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stderr == "amstel graphs train: /dev/full: No space left on device\n"


def test_masked_values_are_refused(tmp_path):
    """A tensor has no mask: what NumPy hides would become data, labels, edges or boxes."""
    graph = amstel.Graph.from_csr([0, 1, 2, 2], [1, 0])

    def masked(*values, mask=None):
        return np.ma.masked_array(values, mask=[True] + [False] * (len(values) - 1) if mask is None else mask)

    rows = np.ma.masked_array(np.ones((3, 2), np.float32), mask=np.eye(3, 2, dtype=bool))
    frame = np.ma.masked_array(np.zeros((9, 9, 3), np.uint8), mask=True)
    tracker = SimpleNamespace(init=lambda *given: None)
    refused = {
        "x": [
            lambda: amstel.data.NeighborLoader(graph, rows),
            lambda: amstel.distributed.partition(graph, 1, tmp_path / "x", x=rows),
        ],
        "y": [
            lambda: amstel.data.NeighborLoader(graph, y=masked(1, 2, 3)),
            lambda: amstel.distributed.partition(graph, 1, tmp_path / "y", y=masked(1, 2, 3)),
        ],
        "seeds": [lambda: amstel.data.NeighborLoader(graph, seeds=masked(1, 2))],
        "probability": [lambda: amstel.data.NeighborLoader(graph, probability=masked(1.0, 2.0))],
        "parts": [lambda: amstel.data.ClusterLoader(graph, parts=masked(0, 1, 1))],
        "indptr": [lambda: amstel.Graph.from_csr(masked(0, 1, 2, 2), [1, 0])],
        "indices": [lambda: amstel.Graph.from_csr([0, 1, 2, 2], masked(1, 0))],
        "weight": [lambda: amstel.Graph.from_csr([0, 1, 2, 2], [1, 0], masked(1.0, 2.0))],
        "labels": [
            lambda: amstel.data.GraphDataset([graph] * 2, labels=masked(0, 1)),
            lambda: amstel.data.GraphDataset([graph] * 2, labels=[masked(0.0, 1.0), [1.0, 0.0]]),
        ],
        "image": [lambda: amstel.media.images.image_array("image", frame)],
        "images": [
            lambda: amstel.data.StillPairs([np.ma.masked_array(np.zeros((70, 70, 3), np.uint8), True)])
        ],
        "sigma": [lambda: amstel.restore(np.ones((2, 2)), "denoise", [masked(0.1, 0.1)] * 2)],
        "mask": [lambda: amstel.restore(np.ones((2, 2)), "inpaint", mask=[masked(1, 0), [1, 1]])],
        "weights": [lambda: amstel.interop.conv_lstm.from_keras([rows, rows, masked(1.0)])],
        "new": [
            lambda: vot.Tracker(tracker).init(frame, masked(1.0, 1.0, 2.0, 2.0)),
            lambda: vot.Tracker(tracker).init(frame, masked(*[True] * 9, mask=True).reshape(3, 3)),
        ],
        "bbox": [lambda: pysot.Tracker(tracker).init(frame, masked(1.0, 1.0, 2.0, 2.0))],
        "init_bbox": [
            lambda: pytracking.Tracker(None, tracker).initialize(
                frame, {"init_bbox": masked(1.0, 1.0, 2.0, 2.0)}
            )
        ],
        "box": [
            lambda: target(masked(1.0, 1.0, 2.0, 2.0), frame.data),
            lambda: got10k.Tracker(tracker).init(frame, masked(1.0, 1.0, 2.0, 2.0)),
            lambda: got10k.Tracker(tracker).forward_test([frame], masked(1.0, 1.0, 2.0, 2.0)),
        ],
        "boxes": [
            lambda: check_boxes("boxes", np.ma.masked_array(np.ones((2, 4)), mask=True)),
            lambda: check_boxes("boxes", [masked(1.0, 2.0, 3.0, 4.0), [1.0, 2.0, 3.0, 4.0]]),
        ],
    }
    for name, calls in refused.items():
        for call in calls:
            with pytest.raises(TypeError, match=f"`{name}` must be an array without masked values"):
                call()
    unhidden = amstel.data.NeighborLoader(graph, y=masked(1, 2, 3, mask=False), shuffle=False)
    assert next(iter(unhidden)).y.tolist() == [1, 2, 3]
