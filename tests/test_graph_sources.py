"""A checkpoint of graph training finds its own data again, whatever they are called, and no others."""

import dataclasses

import numpy as np
import pytest
import torch

import amstel
from amstel.apps.graphs import classify, distributed, evaluate, links, predict, sources, tasks, train
from amstel.apps.graphs.settings import GraphSettings, LinkSettings, Settings
from amstel.data import GraphFolder, NodeData, block_model
from amstel.distributed import DistributedGraph

from .command import is_refused, run

ONE = Settings(epochs=2)


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A folder "mine" whose graph has the name of the built-in one."""
    monkeypatch.chdir(tmp_path)
    data = block_model(nodes=400, seed=5)
    GraphFolder.write(data, "mine")
    return data


def _forget(file):
    """A checkpoint as the first releases wrote it."""
    state = torch.load(file, weights_only=True)
    torch.save({key: value for key, value in state.items() if key not in ("digest", "folder")}, file)


@pytest.mark.parametrize("task", ["node", "link"])
def test_the_folder_of_the_training_is_found_again(capsys, tmp_path, there, task, monkeypatch):
    new = ["graphs", "train", "--dataset", "mine", "--seeds", "1", "--epochs", "4", "--task", task]
    assert run(capsys, *new, "--out", "run", "--quiet")[0] == 0
    file, result = tmp_path / "run" / "checkpoint.pt", tasks.read(tmp_path / "run" / "checkpoint.pt")
    own = (evaluate if task == "node" else links).evaluate(result, there)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for root in ([], ["--root", tmp_path / "mine"], ["--root", tmp_path]):
        status, out, err = run(capsys, "graphs", "evaluate", file, *root)
        assert (status, err) == (0, "")
        assert f"{100 * own['test' if task == 'node' else 'test_auc']:.2f}%" in out
        status, _, err = run(
            capsys, "graphs", "predict", file, *root, "-o", "p.csv", "--count", 500, "--force"
        )
        assert status == (0 if task == "link" else 2)
        if task == "node":
            assert run(capsys, "graphs", "predict", file, *root, "-o", "p.csv", "--force")[0] == 0
            assert len((tmp_path / "elsewhere" / "p.csv").read_text().splitlines()) == 401
    # Once the folder has moved, the built-in graph of the same name does not take its place.
    (tmp_path / "mine").rename(tmp_path / "moved")
    for command in ("evaluate", "predict"):
        for message in (
            "trained on block model, but NodeData(block model",
            ") has a different graph, features",
        ):
            is_refused(capsys, ["graphs", command, file], message)
        assert run(capsys, "graphs", command, file, "--root", tmp_path / "moved", "--quiet")[0] == 0
    # Checkpoints of the first releases have a name only, and the root comes first.
    _forget(file)
    status, out, _ = run(capsys, "graphs", "evaluate", file, "--root", tmp_path / "moved")
    assert status == 0 and f"{100 * own['test' if task == 'node' else 'test_auc']:.2f}%" in out


def test_a_file_is_to_be_converted_first(capsys, tmp_path):
    parts = {part: np.array([n]) for n, part in enumerate(("train", "val", "test"))}
    np.savez(tmp_path / "own.npz", edge_index=np.array([[0, 1], [1, 0]]), y=np.array([0, 1, 0]), **parts)
    words = ["graphs", "train", "--dataset"]
    for arguments in ([tmp_path / "own.npz"], ["own.npz", "--root", tmp_path]):
        is_refused(
            capsys, [*words, *arguments], f"convert it first: amstel graphs convert {tmp_path / 'own.npz'}"
        )
    assert run(capsys, "graphs", "convert", tmp_path / "own.npz", tmp_path / "own")[0] == 0
    is_refused(
        capsys,
        [*words, tmp_path / "own", "--task", "link", "--seeds", 1],
        "own has 1 link between two nodes, too few to hold out a tenth for the test",
    )


def test_a_run_goes_on_with_its_own_data_only(capsys, tmp_path, there):
    other = dataclasses.replace(there, train=there.train[:40])
    for task, start, settings in (("node", train.study, ONE), ("link", links.train, LinkSettings(epochs=2))):
        out = tmp_path / task
        first = start(there, seeds=[0], settings=settings, out=out)
        more = start(there, seeds=[0, 1], settings=settings, out=out, resume=True)
        assert more.losses[0] == first.losses[0] and len(more.losses) == 2
        if task == "node":  # links do not depend on the split
            with pytest.raises(
                ValueError, match="the data must be those of the checkpoint, but block model has"
            ):
                start(other, seeds=range(3), settings=settings, out=out, resume=True)
        graph = there.graph.subgraph(torch.arange(399))
        graph = amstel.Graph.from_edge_index(graph.to_edge_index()[0], 400)
        with pytest.raises(ValueError, match="the data must be those of the checkpoint"):
            start(
                dataclasses.replace(there, graph=graph),
                seeds=range(3),
                settings=settings,
                out=out,
                resume=True,
            )
        words = ["graphs", "train", "--task", task, "--dataset", "block-model", "--epochs", 2, "--seeds", 3]
        is_refused(capsys, [*words, "--out", out, "--resume"], "the checkpoint")
    _forget(tmp_path / "node" / "checkpoint.pt")
    narrow = dataclasses.replace(there, features=there.features.to_dense()[:, :299])
    with pytest.raises(ValueError, match="is for 300 features and 4 classes, but block model has 299 and 4"):
        train.study(narrow, seeds=range(3), settings=ONE, out=tmp_path / "node", resume=True)
    train.study(there, seeds=range(3), settings=ONE, out=tmp_path / "node", resume=True)


def test_classes_of_graphs_too(tmp_path):
    data, settings = amstel.data.colored_graphs(30), GraphSettings(epochs=1)
    classify.train(data, seeds=[0], settings=settings, out=tmp_path)
    other = amstel.data.colored_graphs(30, seed=1)
    with pytest.raises(ValueError, match="the data must be those of the checkpoint"):
        classify.train(other, seeds=[0, 1], settings=settings, out=tmp_path, resume=True)
    saved = tasks.read(tmp_path / "checkpoint.pt")
    with pytest.raises(
        ValueError, match=r"trained on colored graphs, but GraphDataset\(.* has a different graph"
    ):
        sources.of_result(saved, None, classify.load_data)
    assert sources.of_result(saved, None, lambda name, root: data) is data


@pytest.mark.parametrize("task", ["node", "link"])
@pytest.mark.parametrize(("name", "file"), [("a/b", "a-b"), ("../x", "..-x"), ("Ca fé_1.2", "Ca-fé_1.2")])
def test_predictions_are_written_here_whatever_the_data_are_called(capsys, tmp_path, there, task, name, file):
    GraphFolder.write(dataclasses.replace(there, name=name), "mine", force=True)
    new = ["graphs", "train", "--dataset", "mine", "--seeds", 1, "--epochs", 2, "--task", task, "--quiet"]
    assert run(capsys, *new, "--out", "run")[0] == 0
    status, _, err = run(capsys, "graphs", "predict", "run/checkpoint.pt", "--quiet")
    assert (status, err) == (0, "")
    target = f"{file}_{'classes' if task == 'node' else 'links'}.csv"
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "run", target}


def test_a_digest_is_of_contents(tmp_path):
    index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    graph, one, two, three = amstel.Graph.from_edge_index(index, 3), *torch.tensor([[0], [1], [2]])
    data = NodeData("path", graph, torch.eye(3), torch.tensor([0, 1, 0]), one, two, three, 2)
    changes = [
        {"graph": amstel.Graph.from_edge_index(index[:, :2], 3)},
        {"graph": amstel.Graph.from_edge_index(index, 3, weights)},
        {"graph": amstel.Graph.from_edge_index(index, 3, weights.flip(0))},
        {"features": None},
        {"features": torch.eye(3).flip(0)},
        {"features": torch.eye(3).flip(0).to_sparse_csr()},
        {"labels": torch.tensor([0, 1, 1])},
        {"train": two, "val": one},
        {"num_classes": 3},
    ]
    found = {sources.digest(dataclasses.replace(data, **change)) for change in [{}, *changes]}
    assert len(found) == 10
    assert sources.digest(dataclasses.replace(data, name="other")) == sources.digest(data)
    sparse = dataclasses.replace(data, features=torch.eye(3).to_sparse_coo())
    for n, some in enumerate((data, sparse, dataclasses.replace(data, **changes[1]))):
        assert sources.digest(GraphFolder(GraphFolder.write(some, tmp_path / str(n)))) == sources.digest(some)
    folder = tmp_path / "parts"
    assert distributed.write(sparse, 2, folder)["graph"] == sources.digest(sparse)


def test_parts_of_other_data_of_the_same_name_are_refused(tmp_path, monkeypatch):
    """The files that AMSTEL_DATA names are read where no root is given, as they are to make the parts."""
    data = dataclasses.replace(block_model(nodes=400), name="cora")
    meta = distributed.write(dataclasses.replace(data, train=data.train[:40]), 2, tmp_path / "parts")

    def read(root=None, name="cora"):
        if data is None:
            raise FileNotFoundError("no files")
        return data

    monkeypatch.setattr(predict, "Planetoid", read)
    monkeypatch.setenv("AMSTEL_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="parts holds the parts of another graph than the current cora"):
        distributed._is_of(meta, "cora", None, tmp_path / "parts")
    distributed._is_of({**meta, "graph": sources.digest(data)}, "cora", None, tmp_path / "parts")
    data = None  # the parts are all that this machine has
    distributed._is_of(meta, "cora", None, tmp_path / "parts")
    # As are those of a graph whose name no file can have.
    distributed._is_of({**meta, "name": "org/graph"}, "org/graph", None, tmp_path / "parts")
    monkeypatch.delenv("AMSTEL_DATA")
    distributed._is_of(meta, "cora", None, tmp_path / "parts")


def test_of_two_runs_at_once_the_second_is_refused(tmp_path, there):
    """It overwrote the checkpoint of the one that began after it."""
    distributed.write(there, 1, tmp_path / "parts")
    for name, start, data, settings in (
        ("node", train.study, there, ONE),
        ("parts", train.study, DistributedGraph.load(tmp_path / "parts"), ONE),
        ("link", links.train, there, LinkSettings(epochs=2)),
        ("graph", classify.train, amstel.data.colored_graphs(30), GraphSettings(epochs=1)),
    ):
        out, written = tmp_path / "runs" / name, []

        def other(_, start=start, data=data, settings=settings, out=out, written=written):
            if not written:
                start(data, seeds=[5], settings=settings, out=out)
                written.append((out / "checkpoint.pt").read_bytes())

        with pytest.raises(FileExistsError, match=r"checkpoint\.pt exists: resume"):
            start(data, seeds=[0, 1], settings=settings, progress=other, out=out)
        assert (out / "checkpoint.pt").read_bytes() == written[0]
        start(data, seeds=[0, 1], settings=settings, out=out, force=True)


def test_an_unfinished_run_of_another_is_kept(tmp_path, there):
    """Of a graph in parts, whose chunk is saved while it is trained."""
    distributed.write(there, 1, tmp_path / "parts")
    data, out, settings = DistributedGraph.load(tmp_path / "parts"), tmp_path / "run", Settings(epochs=60)
    file = out / "running" / "checkpoint.pt"

    def other(_):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"of another")

    with pytest.raises(FileExistsError, match="exists: resume"):
        train.study(data, seeds=[0], settings=settings, progress=other, out=out)
    assert file.read_bytes() == b"of another"
