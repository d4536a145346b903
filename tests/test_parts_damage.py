"""Parts of a graph whose arrays hold what they cannot: said by part and file, never trained on, never past an array's end."""

import json

import numpy as np
import pytest
import torch

from amstel.data import GraphFolder, convert_graph
from amstel.distributed import DistributedGraph, partition
from amstel.graph import Graph
from tests import command

N = 60


def problem():
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(0, N, (2, 300), generator=generator)
    x = (torch.rand(N, 8, generator=generator) < 0.3).float()
    y = torch.randint(0, 3, (N,), generator=generator)
    return edges, x, y, {"train": torch.arange(20), "val": torch.arange(20, 30), "test": torch.arange(30, N)}


@pytest.fixture
def parts(tmp_path):
    edges, x, y, splits = problem()
    partition(
        Graph.from_edge_index(edges, N),
        1,
        tmp_path / "p",
        x=x.to_sparse_csr(),
        y=y,
        splits=splits,
        name="tiny",
    )
    return tmp_path / "p"


def put(position, value):
    def change(a):
        a[position] = value
        return a

    return change


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("x_col", put(0, -1), "x_crow or x_col"),  # these two ended the process
        ("x_crow", put(5, 10**7), "x_crow or x_col"),
        ("x_col", put(0, 8), "x_crow or x_col"),
        ("x_value", lambda a: a.astype(np.int64), "should hold float32"),  # these trained on
        ("degree", lambda a: -a, "degree.npy holds wrong values"),
        ("degree", put((0, 0), np.nan), "degree.npy holds wrong values"),
        ("y", put(0, 99), "y.npy holds wrong values"),
        ("y", lambda a: a.astype(np.float64), "should hold int64"),
        ("split_train", put(0, N), "split_train.npy holds wrong values"),
        ("split_test", put(0, -1), "split_test.npy holds wrong values"),
        ("split_val", put(0, 21), "split_val.npy holds wrong values"),
        ("nodes", put(0, 1), "nodes.npy holds wrong values"),
        ("nodes", put(0, 10**6), "nodes.npy holds wrong values"),
    ],
)
def test_values_that_cannot_be(parts, name, change, message):
    DistributedGraph.load(parts)
    file = parts / "part-0" / f"{name}.npy"
    np.save(file, change(np.load(file)))
    with pytest.raises(ValueError, match=f"part 0 of 1 is damaged: .*{message}"):
        DistributedGraph.load(parts)


def test_facts_that_are_missing(parts):
    facts = json.loads((parts / "meta.json").read_text())
    for key in ("name", "splits", "graph", "id"):
        (parts / "meta.json").write_text(json.dumps({k: v for k, v in facts.items() if k != key}))
        with pytest.raises(ValueError, match=r"is not the meta\.json of a partition"):
            DistributedGraph.load(parts)
    (parts / "meta.json").write_text(json.dumps(facts | {"features": None}))
    with pytest.raises(ValueError, match="part 0 of 1 is damaged: x_value"):
        DistributedGraph.load(parts)


def test_parts_of_earlier_versions_are_read(parts):
    """They do not say the dtypes of their arrays."""
    file = parts / "part-0" / "part.json"
    facts = json.loads(file.read_text())
    del facts["dtypes"]
    file.write_text(json.dumps(facts))
    assert DistributedGraph.load(parts).num_nodes == N


@pytest.fixture
def folder(tmp_path):
    edges, x, y, splits = problem()
    masks = {name: torch.isin(torch.arange(N), rows).numpy() for name, rows in splits.items()}
    np.savez(tmp_path / "g.npz", edge_index=edges, x=x, y=y, **masks)
    return convert_graph(tmp_path / "g.npz", tmp_path / "g")


def test_a_checkpoint_of_parts_knows_the_folder_of_its_data(capsys, folder, tmp_path):
    """evaluate looked for Planetoid's files; a --resume took the folder from a checkpoint that had one."""
    train = ["graphs", "train", "--dataset", tmp_path / "g", "--epochs", 2]
    more = [*train, "--distributed", "--seeds", 2]
    for out, runs in (("a", [more]), ("b", [[*train, "--seeds", 1], [*more, "--resume"]])):
        for run in runs:
            status, _, err = command.run(capsys, *run, "--out", tmp_path / out)
            assert status == 0, err
        status, said, err = command.run(capsys, "graphs", "evaluate", tmp_path / out / "checkpoint.pt")
        assert status == 0 and "test" in said, err


def test_parts_are_not_written_among_other_files(capsys, folder, tmp_path):
    """--force was said to replace them, and did not."""
    train = ["graphs", "train", "--dataset", tmp_path / "g", "--epochs", 1, "--seeds", 1, "--distributed"]
    for force in ([], ["--force"]):
        command.is_refused(
            capsys,
            [*train, "--parts", tmp_path / "g", *force],
            "must be a new folder, or one that holds parts",
        )
    assert GraphFolder(tmp_path / "g").num_nodes == N


def test_a_split_that_names_a_node_twice(folder, tmp_path):
    file = tmp_path / "g" / "train.npy"
    np.save(file, put(0, 1)(np.load(file)))
    with pytest.raises(
        ValueError, match=r"g is damaged: train\.npy must name a node once, got 1 more than once"
    ):
        GraphFolder(tmp_path / "g")
