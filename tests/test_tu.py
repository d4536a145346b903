"""The reader of the TU Dortmund text format, on miniature files, beside PyG's, and on files that are damaged."""

import numpy as np
import pytest
import torch

from amstel.data import TUDataset

# Three graphs: a triangle with a tail, a pair, and a node alone. Edge 4 is a loop, edges 2 and 7 are the same.
FILES = {
    "A": "1, 2\n2, 1\n2, 3\n3, 3\n3, 1\n3, 4\n2, 3\n5, 6\n6, 5\n",
    "graph_indicator": "1\n1\n1\n1\n2\n2\n3\n",
    "graph_labels": "1\n-1\n1\n",
    "node_labels": "3\n5\n3\n3\n4\n3\n5\n",
    "node_attributes": "0.5, 1\n-1e-3, 2\n.25, 3.\n1, 4\n2, 5\n3, +6\n7, 7\n",
    "edge_labels": "0\n1\n2\n0\n1\n0\n1\n2\n2\n",
    "edge_attributes": "0.5\n1\n1.5\n2\n2.5\n3\n3.5\n4\n4.5\n",
}


def write(folder, name="TINY", **changes):
    folder.mkdir(parents=True, exist_ok=True)
    for part, text in {**FILES, **changes}.items():
        if text is not None:
            data = text if isinstance(text, bytes) else text.encode()
            (folder / f"{name}_{part}.txt").write_bytes(data)
    return folder


def test_reads_a_folder(tmp_path):
    data = TUDataset(write(tmp_path), "TINY")
    assert repr(data) == (
        "TUDataset(TINY, num_graphs=3, num_nodes=7, num_edges=7, num_features=5, num_classes=2)"
    )
    assert data.labels.tolist() == [1, 0, 1] and data.classes == [-1, 1]
    first, pair, alone = data
    assert first.graph.to_edge_index()[0].tolist() == [[0, 1, 1, 2, 2], [1, 0, 2, 0, 3]]
    assert pair.graph.to_edge_index()[0].tolist() == [[0, 1], [1, 0]]
    assert (alone.graph.num_nodes, alone.graph.num_edges) == (1, 0)
    assert first.features[1].tolist() == [pytest.approx(-1e-3), 2, 0, 0, 1]
    assert first.edge_features[2].tolist() == [5, 0, 1, 1]  # the sum of the edge listed twice
    assert TUDataset(tmp_path, "TINY", node_attributes=False, edge_attributes=False)[1].features.tolist() == [
        [0, 1, 0],
        [1, 0, 0],
    ]


@pytest.mark.parametrize("attributes", [True, False])
@pytest.mark.parametrize(
    "left_out", [(), ("node_labels", "edge_labels"), ("node_attributes", "edge_attributes")]
)
def test_pyg_reads_the_same(tmp_path, attributes, left_out):
    datasets = pytest.importorskip("torch_geometric.datasets")
    write(tmp_path / "TINY" / "raw", **dict.fromkeys(left_out))
    theirs = datasets.TUDataset(tmp_path, "TINY", use_node_attr=attributes, use_edge_attr=attributes)
    ours = TUDataset(tmp_path, "TINY", attributes, attributes)
    # PyG loses graphs without edges at the end.
    assert (len(ours), len(theirs)) == (3, 2) and ours.num_classes == theirs.num_classes
    for a, b in zip(ours, theirs, strict=False):
        assert torch.equal(a.graph.to_edge_index()[0], b.edge_index)
        assert a.graph.num_nodes == b.num_nodes and a.label == b.y
        for mine, other in ((a.features, b.x), (a.edge_features, b.edge_attr)):
            assert (mine is None) == (other is None or not other.shape[1])
            assert mine is None or torch.equal(mine, other)


def test_targets_are_the_labels_where_they_are_there(tmp_path):
    write(tmp_path, graph_attributes="0.5, 1\n2, 3\n4, 5\n", graph_labels=None)
    data = TUDataset(tmp_path, "TINY")
    assert data.labels.dtype == torch.float32 and data.labels.shape == (3, 2) and data.num_classes == 0
    write(tmp_path, graph_attributes="0.5\n2\n4\n")
    assert TUDataset(tmp_path, "TINY").labels.tolist() == [0.5, 2, 4]


@pytest.mark.parametrize(
    "form",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: "\ufeff" + text,
        lambda text: text.rstrip("\n"),
        lambda text: text + "\n \n\n",
        lambda text: text.replace(", ", " ,\t"),
        lambda text: text.replace(" ", ""),
    ],
)
def test_line_ends_marks_and_spaces_make_no_difference(tmp_path, form):
    expected = TUDataset(write(tmp_path / "a"), "TINY")
    folder = write(tmp_path / "Gräben – 図", **{part: form(text) for part, text in FILES.items()})
    data = TUDataset(str(folder), "TINY")
    for a, b in zip(expected, data, strict=True):
        assert torch.equal(a.features, b.features) and torch.equal(a.edge_features, b.edge_features)
        assert torch.equal(a.graph.col, b.graph.col) and a.label == b.label


def test_empty_graphs_and_a_data_set_without_edges(tmp_path):
    data = TUDataset(
        write(tmp_path, graph_indicator="1\n1\n1\n1\n3\n3\n4\n", graph_labels="0\n1\n0\n0\n"), "TINY"
    )
    assert [item.graph.num_nodes for item in data] == [4, 0, 2, 1]
    empty = {part: "" for part in ("A", "edge_labels", "edge_attributes")}
    data = TUDataset(
        write(tmp_path, graph_indicator=FILES["graph_indicator"], graph_labels="0\n1\n0\n", **empty), "TINY"
    )
    assert [item.graph.num_edges for item in data] == [0, 0, 0]


@pytest.mark.parametrize("part", ["A", "graph_indicator", "graph_labels"])
def test_a_missing_file_is_named(tmp_path, part):
    write(tmp_path, **{part: None})
    with pytest.raises(FileNotFoundError, match=rf"TUDataset: .*TINY_{part}\.txt is missing"):
        TUDataset(tmp_path, "TINY")


def test_unknown_names_and_folders(tmp_path):
    write(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no files TUNY_\*\.txt in .*TINY"):
        TUDataset(tmp_path, "TUNY")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        TUDataset(tmp_path / "nowhere", "TINY")
    for name in ("", "../TINY", "a/b", "."):
        with pytest.raises((ValueError, FileNotFoundError), match=r"name|no files"):
            TUDataset(tmp_path, name)
    for arguments in (
        (3, "TINY"),
        (tmp_path, 3),
        (tmp_path, None),
        (tmp_path, "TINY", 1),
        (tmp_path, "TINY", True, "no"),
    ):
        with pytest.raises(TypeError, match="must be"):
            TUDataset(*arguments)


HUGE = "1" + "0" * 30


@pytest.mark.parametrize(
    "part, text, line",
    [
        ("A", FILES["A"].replace("5, 6", "5, 8"), "line 8"),
        ("A", FILES["A"].replace("5, 6", "0, 6"), "line 8"),
        ("A", FILES["A"].replace("5, 6", "-5, 6"), "line 8"),
        ("A", FILES["A"].replace("5, 6", "4, 6"), "line 8.*one graph"),
        ("A", FILES["A"].replace("5, 6", "5.0, 6"), "line 8"),
        ("A", FILES["A"].replace("5, 6", "5, 6.5"), "line 8"),
        ("A", FILES["A"].replace("5, 6", f"5, {HUGE}"), "line 8"),
        ("A", FILES["A"].replace("5, 6", "5, 6, 6"), "line 8"),
        ("A", FILES["A"].replace("5, 6", "5 6"), "line 8"),
        ("A", FILES["A"].replace("5, 6", "5,"), "line 8"),
        ("A", FILES["A"].replace("5, 6", ""), "line 8"),
        ("A", FILES["A"].replace("5, 6", "nan, 6"), "line 8"),
        ("A", FILES["A"].replace("5, 6", "True, 6"), "line 8"),
        ("A", FILES["A"].replace("5, 6", "1_0, 6"), "line 8"),
        ("A", FILES["A"].replace("5, 6", "٥, 6"), "line 8"),
        ("A", FILES["A"].replace("5, 6", "5\x00, 6"), "line 8"),
        ("A", FILES["A"][:-4], "line 9"),
        ("A", FILES["A"][:-5], "must have 8 lines"),
        ("A", "# edges\n" + FILES["A"], "line 1"),
        ("A", FILES["A"].encode("utf-16"), "line 1"),
        ("A", np.random.default_rng(0).bytes(1000), "line 1"),
        ("A", b"\x1f\x8b\x08\x00", "line 1"),
        ("graph_indicator", "1\n1\n1\n1\n2\n2\n", "from 1 to 6|all 3 graphs"),
        ("graph_indicator", "1\n1\n1\n1\n2\n2\n4\n", "line 7"),
        ("graph_indicator", "0\n1\n1\n1\n2\n2\n3\n", "line 1"),
        ("graph_indicator", "1\n1\n2\n1\n2\n2\n3\n", "line 4"),
        ("graph_indicator", "1\n1\n1\n1\n2\n2\n2\n", "all 3 graphs"),
        ("graph_indicator", "1\n1\n1\n1\n2\n2\n3.0\n", "line 7"),
        ("graph_indicator", "", "all 3 graphs"),
        ("graph_labels", "1\n-1\n", "line 7|from 1 to 2"),
        ("graph_labels", "1\n-1\n1\n1\n", "all 4 graphs"),
        ("graph_labels", "1\nnan\n1\n", "line 2"),
        ("graph_labels", "1\n\n1\n", "line 2"),
        ("graph_labels", "1\n0.5\n1\n", "line 2"),
        ("graph_labels", "1\n1, 2\n1\n", "line 2"),
        ("graph_labels", "", "from 1 to 0"),
        ("graph_attributes", "1\n2\n", "3 lines"),
        ("graph_attributes", "1\nnan\n2\n", "line 2"),
        ("node_labels", FILES["node_labels"][:-2], "7 lines"),
        ("node_labels", FILES["node_labels"] + "1\n", "7 lines"),
        ("node_labels", FILES["node_labels"].replace("4", "900000000"), "close to each other"),
        ("node_labels", FILES["node_labels"].replace("4", "4.5"), "line 5"),
        ("node_attributes", FILES["node_attributes"].replace("2, 5", "inf, 5"), "line 5"),
        ("node_attributes", FILES["node_attributes"].replace("2, 5", "1e40, 5"), "line 5.*finite"),
        ("node_attributes", FILES["node_attributes"].replace("2, 5", "2"), "line 5"),
        ("node_attributes", FILES["node_attributes"].replace("2, 5", "0x10, 5"), "line 5"),
        ("node_attributes", FILES["node_attributes"].replace("2, 5", "two, 5"), "line 5"),
        (
            "node_attributes",
            FILES["node_attributes"].replace("2, 5", "2e9,-16777217 "),
            "line 5.*got -16777217",
        ),
        (
            "edge_attributes",
            "3\n16777217\n" + "1\n" * 7,
            "line 2: must hold .* from -2.24 to 2.24, got 16777217",
        ),
        ("graph_attributes", "1\n20000001\n2\n", "line 2: must hold .* from -2.24 to 2.24, got 20000001"),
        ("node_attributes", "", "7 lines"),
        ("edge_labels", FILES["edge_labels"][:-2], "9 lines"),
        ("edge_attributes", FILES["edge_attributes"] + "1\n", "9 lines"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_damage_is_named_by_file_and_line(tmp_path, part, text, line):
    write(tmp_path, **{part: text})
    with pytest.raises(ValueError, match=rf"^TUDataset: .*TINY_\w+\.txt.*({line})"):
        TUDataset(tmp_path, "TINY")


def test_integers_are_exact(tmp_path):
    """As features and targets they were rounded to float32 where they are beyond 2^24."""
    labels = [2**53 + 1, -5, 2**53]
    write(tmp_path, graph_labels="\n".join(map(str, labels)), node_labels="\n".join(["9007199254740993"] * 7))
    data = TUDataset(tmp_path, "TINY")
    assert data.classes == sorted(labels) and data.labels.tolist() == [2, 0, 1]
    write(tmp_path, node_attributes="\n".join(["16777216, 1.5e9"] * 7))
    assert TUDataset(tmp_path, "TINY")[0].features[0, :2].tolist() == [16777216, 1.5e9]


def test_an_integer_of_many_digits_is_told_why(tmp_path):
    write(tmp_path, graph_labels=f"1\n{10**18}\n1\n")
    with pytest.raises(ValueError, match=r"line 2: must hold one integer of at most 18 digits, got '1000"):
        TUDataset(tmp_path, "TINY")


@pytest.mark.parametrize("part", FILES)
def test_a_folder_for_a_file(tmp_path, part):
    write(tmp_path, **{part: None})
    (tmp_path / f"TINY_{part}.txt").mkdir()
    with pytest.raises(IsADirectoryError, match=rf"TINY_{part}\.txt is a folder"):
        TUDataset(tmp_path, "TINY")


def test_bytes_that_changed_never_end_in_a_raw_error(tmp_path):
    rng = np.random.default_rng(0)
    write(tmp_path)
    for part in FILES:
        path = tmp_path / f"TINY_{part}.txt"
        whole = path.read_bytes()
        for _ in range(25):
            damaged = bytearray(whole)
            damaged[rng.integers(len(whole))] = rng.integers(256)
            path.write_bytes(damaged[: rng.integers(1, len(whole) + 1)] if rng.random() < 0.3 else damaged)
            try:
                TUDataset(tmp_path, "TINY")
            except ValueError as error:
                assert str(error).startswith("TUDataset: ")
        path.write_bytes(whole)
