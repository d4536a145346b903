"""The Planetoid reader: on a small made-up folder, on pickles that must be refused, and on the real files."""

import pickle
from collections import defaultdict

import numpy as np
import pytest
import torch

import amstel.data


class _Csr:
    """Pickles under SciPy's name, so that the test needs no SciPy."""

    def __init__(self, dense):
        row, col = np.nonzero(dense)
        counts = np.bincount(row, minlength=len(dense))
        self.__dict__.update(
            _shape=dense.shape,
            indptr=np.r_[0, counts.cumsum()].astype(np.int32),
            indices=col.astype(np.int32),
            data=dense[row, col].astype(np.float32),
            maxprint=50,
        )


_Csr.__module__, _Csr.__qualname__, _Csr.__name__ = "scipy.sparse.csr", "csr_matrix", "csr_matrix"


class _Pickler(pickle._Pickler):  # the Python one does not insist that the name exists
    def save_global(self, obj, name=None):
        if obj is _Csr:
            self.write(b"cscipy.sparse.csr\ncsr_matrix\n")
            self.memoize(obj)
        else:
            super().save_global(obj, name)

    dispatch = {**pickle._Pickler.dispatch, type: save_global}  # noqa: RUF012


def _write(path, value):
    with path.open("wb") as file:
        _Pickler(file, protocol=3).dump(value)


# 9 nodes: 0-1 train, 0-3 in allx, tests 8, 5, 7 in this order, 4 and 6 not in the files but in the graph.
ALLX = np.array([[1, 1, 0], [0, 2, 0], [0, 0, 0], [1, 0, 3]])
TX = np.array([[4, 0, 0], [0, 5, 5], [0, 0, 6]])
ALLY = np.eye(2, dtype=int)[[0, 1, 1, 0]]
TY = np.eye(2, dtype=int)[[1, 0, 1]]


@pytest.fixture
def folder(tmp_path):
    graph = defaultdict(list, {0: [1, 1, 5], 1: [0], 2: [2], 3: [], 4: [], 5: [0], 6: [8], 7: [], 8: []})
    parts = {"x": _Csr(ALLX[:2]), "y": ALLY[:2], "allx": _Csr(ALLX), "ally": ALLY, "tx": _Csr(TX), "ty": TY}
    for name in ("tiny", "nell.0.001"):
        for part, value in {**parts, "graph": graph}.items():
            _write(tmp_path / f"ind.{name}.{part}", value)
        (tmp_path / f"ind.{name}.test.index").write_text("8\n5\n7\n")
    (tmp_path / "ind.nell.0.001.ally").unlink()
    return tmp_path


def test_reads_a_folder(folder):
    data = amstel.data.Planetoid(folder, "tiny", normalize=False)
    expected = np.zeros((9, 3))
    expected[:4], expected[[8, 5, 7]] = ALLX, TX
    assert data.features.layout == torch.sparse_csr
    np.testing.assert_array_equal(data.features.to_dense(), expected)
    assert data.labels.tolist() == [0, 1, 1, 0, -1, 0, -1, 1, 1]
    assert (data.train.tolist(), data.val.tolist(), data.test.tolist()) == ([0, 1], [2, 3], [5, 7, 8])
    assert (data.num_classes, data.num_features, data.num_nodes) == (2, 3, 9)
    # Symmetric, parallel edges once, the loop stays.
    edges = sorted(zip(*data.graph.to_edge_index()[0].tolist(), strict=True))
    assert edges == [(0, 1), (0, 5), (1, 0), (2, 2), (5, 0), (6, 8), (8, 6)]


def test_rows_are_normalized_and_empty_rows_stay_empty(folder):
    total = amstel.data.Planetoid(folder, "tiny").features.to_dense().sum(1)
    torch.testing.assert_close(total, torch.tensor([1.0, 1, 0, 1, 0, 1, 0, 1, 1]))


def test_nell_gives_every_relation_a_feature_and_needs_no_ally(folder):
    data = amstel.data.Planetoid(folder, "nell")
    assert data.num_features == 3 + 2
    np.testing.assert_array_equal(data.features.to_dense()[[4, 6], 3:], np.eye(2))
    assert data.labels.tolist() == [0, 1, -1, -1, -1, 0, -1, 1, 1]
    assert data.val.numel() == 0


def test_root_from_the_environment(folder, monkeypatch):
    (folder / "planetoid").symlink_to(folder)
    monkeypatch.setenv("AMSTEL_DATA", str(folder))
    assert amstel.data.Planetoid(name="tiny").num_nodes == 9
    monkeypatch.delenv("AMSTEL_DATA")
    with pytest.raises(ValueError, match="AMSTEL_DATA"):
        amstel.data.Planetoid(name="tiny")


@pytest.mark.parametrize("part", ["graph", "y", "ty", "allx", "tx", "ally", "test.index"])
def test_a_missing_file_is_named(folder, part):
    (folder / f"ind.tiny.{part}").unlink()
    with pytest.raises(FileNotFoundError, match=rf"ind\.tiny\.{part} is missing"):
        amstel.data.Planetoid(folder, "tiny")


def test_unknown_name_and_folder(folder):
    with pytest.raises(FileNotFoundError, match=r"no files ind\.core\.\*.*tiny"):
        amstel.data.Planetoid(folder, "core")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        amstel.data.Planetoid(folder / "nowhere", "tiny")


class _Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("part", ["graph", "y", "allx"])
def test_malicious_pickles_are_refused(folder, part):
    import os

    trace = folder / "trace"
    for evil in (
        _Call(os.system, f"touch {trace}"),
        _Call(eval, f"open({str(trace)!r}, 'w')"),
        _Call(getattr, "x", "upper"),
        _Call(np.load, str(trace)),
        {"inside": [_Call(os.mkdir, str(trace))]},
    ):
        _write(folder / f"ind.tiny.{part}", evil)
        with pytest.raises(ValueError, match=rf"ind\.tiny\.{part} .*refused to load"):
            amstel.data.Planetoid(folder, "tiny")
        assert not trace.exists()


@pytest.mark.parametrize(
    "part, value, message",
    [
        ("y", defaultdict(list), "holds a defaultdict"),
        ("graph", ALLY, "holds a ndarray"),
        ("ally", np.array([["a", "b"]] * 4, dtype=object), "holds a ndarray"),
        ("ally", ALLY[:3], "does not fit allx"),
        ("ty", TY[:2], "must have the same length"),
        ("graph", defaultdict(list, {0: [9]}), r"outside 0\.\.8"),
        ("graph", defaultdict(list, {0: ["one"]}), "must map node numbers"),
        ("graph", defaultdict(list, {0: 1}), "must map node numbers"),
    ],
)
def test_wrong_contents_are_explained(folder, part, value, message):
    _write(folder / f"ind.tiny.{part}", value)
    with pytest.raises(ValueError, match=message):
        amstel.data.Planetoid(folder, "tiny")


def test_a_column_out_of_range_is_found(folder):
    bad = _Csr(ALLX)
    bad.indices[1] = 7
    _write(folder / "ind.tiny.allx", bad)
    with pytest.raises(ValueError, match=r"ind\.tiny\.allx.*7"):
        amstel.data.Planetoid(folder, "tiny")


def test_integers_that_float32_does_not_hold_are_refused(folder):
    bad = _Csr(ALLX)
    bad.data = bad.data.astype(np.int64) + 2**24
    _write(folder / "ind.tiny.allx", bad)
    with pytest.raises(ValueError, match=r"allx must hold .* integers from -2\^24 to 2\^24, got 16777217"):
        amstel.data.Planetoid(folder, "tiny")


@pytest.mark.parametrize("damage", [b"", b"not a pickle", b"\x80\x02"])
def test_broken_files(folder, damage):
    (folder / "ind.tiny.tx").write_bytes(damage)
    with pytest.raises(ValueError, match=r"ind\.tiny\.tx"):
        amstel.data.Planetoid(folder, "tiny")
    (folder / "ind.tiny.tx").unlink()
    (folder / "ind.tiny.test.index").write_text("8\nfive\n7")
    _write(folder / "ind.tiny.tx", _Csr(TX))
    with pytest.raises(ValueError, match="line 2: must hold one integer, got 'five'"):
        amstel.data.Planetoid(folder, "tiny")


# The sizes of table 1 of Kipf and Welling; edges counted once and without the duplicates of their count.
@pytest.mark.data
@pytest.mark.parametrize(
    "name, nodes, edges, features, classes, train, val, test",
    [
        ("cora", 2708, 10556, 1433, 7, 140, 500, 1000),
        ("citeseer", 3327, 9228, 3703, 6, 120, 500, 1000),
        ("nell", 65755, 251550, 61278, 210, 105, 0, 969),
    ],
)
def test_real_files(data_folder, name, nodes, edges, features, classes, train, val, test):
    data = amstel.data.Planetoid(data_folder / "planetoid", name)
    assert (data.num_nodes, data.graph.num_edges) == (nodes, edges)
    assert (data.num_features, data.num_classes) == (features, classes)
    assert [len(part) for part in (data.train, data.val, data.test)] == [train, val, test]
    assert (data.labels[data.test] >= 0).all() and (data.labels[data.train] >= 0).all()
    if name == "citeseer":
        isolated = (data.labels < 0).nonzero()[:, 0]
        assert len(isolated) == 15
        assert data.features.to_dense()[isolated].count_nonzero() == 0


@pytest.mark.data
def test_pubmed_lacks_its_features(data_folder):
    with pytest.raises(FileNotFoundError, match=r"ind\.pubmed\.allx is missing"):
        amstel.data.Planetoid(data_folder / "planetoid", "pubmed")


def test_embedded_data():
    club = amstel.data.karate_club()
    assert (club.num_nodes, club.graph.num_edges, club.labels.bincount().tolist()) == (
        34,
        156,
        [11, 5, 12, 6],
    )
    assert club.labels[club.train].tolist() == [0, 1, 2, 3]
    assert not set(club.train.tolist()) & set(club.test.tolist())
    made, again = amstel.data.block_model(), amstel.data.block_model()
    assert torch.equal(made.features.to_dense(), again.features.to_dense())
    assert torch.equal(made.graph.col, again.graph.col)
    assert sorted(torch.cat([made.train, made.val, made.test]).tolist()) == list(range(made.num_nodes))
    index = made.graph.to_edge_index()[0]
    assert (index[0] != index[1]).all()
    transposed = made.graph.transposed()
    assert torch.equal(transposed[0], made.graph.crow) and torch.equal(transposed[1], made.graph.col)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", ["csr_matrix", "csr_array"])
def test_every_pickle_protocol_is_read(folder, protocol, kind):
    scipy_sparse = pytest.importorskip("scipy.sparse")
    make = getattr(scipy_sparse, kind)
    graph = {np.int64(k): v for k, v in {0: [1, 1, 5], 1: [np.int32(0)], 2: (2,), 6: [8], 8: []}.items()}
    parts = {
        "allx": make(ALLX),
        "tx": make(TX.astype(float)),
        "graph": graph,
        "y": ALLY[:2],
        "ty": TY,
        "ally": ALLY,
    }
    expected = amstel.data.Planetoid(folder, "tiny")
    for part, value in parts.items():
        (folder / f"ind.tiny.{part}").write_bytes(pickle.dumps(value, protocol=protocol))
    data = amstel.data.Planetoid(folder, "tiny")
    assert torch.equal(data.features.to_dense(), expected.features.to_dense())
    assert torch.equal(data.labels, expected.labels) and torch.equal(data.graph.col, expected.graph.col)


class _Shaped:
    def __init__(self, **changes):
        self.changes = changes

    def csr(self):
        made = _Csr(ALLX)
        made.__dict__.update(self.changes)
        return made


@pytest.mark.parametrize(
    "part, value",
    [
        ("graph", defaultdict(list, {0: [1.5]})),
        ("graph", defaultdict(list, {0: [1.0]})),
        ("graph", defaultdict(list, {0.5: [1]})),
        ("graph", defaultdict(list, {0: [True]})),
        ("graph", defaultdict(list, {0: "12"})),
        ("graph", defaultdict(list, {0: [10**30]})),
        ("graph", defaultdict(list, {0: [-1]})),
        ("graph", defaultdict(list, {None: [1]})),
        ("y", np.array(3)),
        ("y", np.zeros((2, 2, 2))),
        ("y", np.zeros(2)),
        ("ally", np.full((4, 2), 0.5)),
        ("ally", np.full((4, 2), np.nan)),
        ("ally", np.ones((4, 2))),
        ("ty", -TY),
        ("ty", np.zeros((3, 0))),
        ("allx", _Shaped(_shape=(4,)).csr()),
        ("allx", _Shaped(_shape=(4, -3)).csr()),
        ("allx", _Shaped(_shape="4x3").csr()),
        ("allx", _Shaped(_shape=(4.5, 3)).csr()),
        ("allx", _Shaped(_shape=(4, 10**30)).csr()),
        ("allx", _Shaped(indptr=np.zeros((5, 1), np.int32)).csr()),
        ("allx", _Shaped(indptr=np.array(3)).csr()),
        ("allx", _Shaped(indptr=[0, 1, 2, 3, 4]).csr()),
        ("allx", _Shaped(indptr=np.array([0, 5, 1, 3, 5], np.int32)).csr()),
        ("allx", _Shaped(indices=np.array([0.5, 1, 1, 0, 2])).csr()),
        ("allx", _Shaped(data=np.full(5, np.inf)).csr()),
        ("allx", _Shaped(data=np.full(5, 1j)).csr()),
        ("allx", _Shaped(data=np.ones(4)).csr()),
        ("test.index", "8\n5\n1000000000000000000000000000000"),
        ("test.index", "8\n5\n1000000000000"),
        ("test.index", "8\n5\n-7"),
        ("test.index", "8\n5\n7.0"),
        ("test.index", "8\n5\n5"),
        ("test.index", b"\xff\xfe8"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else type(value).__name__,
)
def test_damaged_contents_end_in_one_clear_error(folder, part, value):
    path = folder / f"ind.tiny.{part}"
    if isinstance(value, str):
        path.write_text(value)
    elif isinstance(value, bytes):
        path.write_bytes(value)
    else:
        _write(path, value)
    with pytest.raises(ValueError, match="Planetoid: "):
        amstel.data.Planetoid(folder, "tiny")


def test_bytes_that_changed_never_end_in_a_raw_error(folder):
    rng = np.random.default_rng(0)
    for part in ("graph", "y", "allx", "tx", "ty"):
        path = folder / f"ind.tiny.{part}"
        whole = path.read_bytes()
        for _ in range(60):
            damaged = bytearray(whole)
            damaged[rng.integers(len(whole))] = rng.integers(256)
            path.write_bytes(damaged[: rng.integers(1, len(whole) + 1)] if rng.random() < 0.3 else damaged)
            try:
                amstel.data.Planetoid(folder, "tiny")
            except ValueError as error:
                assert str(error).startswith("Planetoid: ")
        path.write_bytes(whole)


@pytest.mark.parametrize(
    "change, error, name",
    [
        ({"labels": [0, 1]}, TypeError, "labels"),
        ({"labels": torch.tensor([0, 2, 0])}, ValueError, "labels"),
        ({"labels": torch.tensor([0, 1])}, ValueError, "labels"),
        ({"labels": torch.tensor([0.0, 1, 0])}, ValueError, "labels"),
        ({"train": torch.tensor([3])}, ValueError, "train"),
        ({"val": torch.tensor([-1])}, ValueError, "val"),
        ({"test": torch.tensor([[1]])}, ValueError, "test"),
        ({"test": torch.tensor([True])}, ValueError, "test"),
        ({"features": torch.zeros(2, 4)}, ValueError, "features"),
        ({"graph": torch.zeros(2, 4)}, TypeError, "graph"),
        ({"num_classes": True}, TypeError, "num_classes"),
        ({"num_classes": 1.5}, TypeError, "num_classes"),
    ],
)
def test_node_data_checks_its_parts(change, error, name):
    graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1], [1, 2]]), 3)
    parts = {
        "name": "x",
        "graph": graph,
        "features": None,
        "labels": torch.tensor([0, 1, -1]),
        "num_classes": 2,
    }
    parts |= {split: torch.tensor([k]) for k, split in enumerate(("train", "val", "test"))}
    amstel.data.nodes.NodeData(**parts)
    with pytest.raises(error, match=f"`{name}` must be"):
        amstel.data.nodes.NodeData(**{**parts, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"nodes": 79},
        {"nodes": 1.5},
        {"classes": 0},
        {"classes": True},
        {"words": 5},
        {"degree": -1.0},
        {"degree": float("nan")},
        {"mixing": 1.5},
        {"mixing": "x"},
        {"seed": -1},
    ],
    ids=str,
)
def test_block_model_checks_its_sizes(change):
    with pytest.raises(ValueError, match=f"`{next(iter(change))}` must be"):
        amstel.data.block_model(**change)
