"""Large graphs on disk: OGB's layout and .npz files become a folder that is memory-mapped, checked on the way."""

import gzip
import json
import re

import numpy as np
import pytest
import torch

import amstel
from amstel.apps.graphs.train import Settings, study
from amstel.data import GraphFolder, _blocks, convert_graph
from tests.command import is_refused, run

N, E, F, C = 60, 300, 5, 4


def problem(seed=0):
    rng = np.random.default_rng(seed)
    index = rng.integers(N, size=(2, E))
    index[:, :20] = index[:, 20:40]  # edges that are named twice
    index[1, 40:45] = index[0, 40:45]  # loops
    x = rng.normal(size=(N, F)).astype(np.float32)
    y = np.where(np.arange(N) < 40, rng.integers(C, size=N), -1)
    y[0] = C - 1
    order = rng.permutation(40)
    return index, x, y, {"train": order[:20], "valid": order[20:30], "test": np.r_[order[30:], 50, 55]}


def text(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(",".join(map(str, row)) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def ogb(place, form="csv.gz", seed=0, labeled=False):
    """OGB's layout of the same problem in one of the forms in which it comes."""
    index, x, y, splits = problem(seed)
    y = np.maximum(y, 0) if labeled else y
    raw, split = place / "raw", place / "split" / "time"
    raw.mkdir(parents=True)
    split.mkdir(parents=True)
    known = [float("nan") if k < 0 else int(k) for k in y]
    if form == "parquet":
        import pyarrow
        import pyarrow.parquet

        def table(path, columns):
            pyarrow.parquet.write_table(pyarrow.table({f"c{k}": c for k, c in enumerate(columns)}), path)

        table(raw / "edge.parquet", index)
        table(raw / "node-feat.parquet", x.T)
        table(raw / "node-label.parquet", [y])
        for part, numbers in splits.items():
            table(split / f"{part}.parquet", [numbers])
    elif form == "npz":
        np.savez_compressed(
            raw / "data.npz", edge_index=index, node_feat=x, num_nodes_list=[N], num_edges_list=[E]
        )
        np.savez(raw / "node-label.npz", node_label=np.array(known)[:, None])
        torch.save({part: torch.from_numpy(v) for part, v in splits.items()}, split / "split_dict.pt")
    else:
        text(raw / f"edge.{form}", index.T.tolist())
        text(raw / f"node-feat.{form}", x.tolist())
        text(raw / f"node-label.{form}", [[k] for k in known])
        text(raw / f"num-node-list.{form}", [[N]])
        text(raw / f"num-edge-list.{form}", [[E]])
        for part, numbers in splits.items():
            text(split / f"{part}.{form}", numbers[:, None].tolist())
    return place


def check(folder, undirected=False, seed=0):
    index, x, y, splits = problem(seed)
    data = GraphFolder(folder)
    dense = np.zeros((N, N))
    np.add.at(dense, (index[1], index[0]), 1)
    if undirected:
        dense = ((dense + dense.T) > 0).astype(float)
    assert np.array_equal(data.graph.to_scipy().toarray(), dense)
    assert data.features.dtype == torch.float32 and np.array_equal(data.features.numpy(), x)
    assert np.array_equal(data.labels.numpy(), y) and data.num_classes == C
    for part, numbers in splits.items():
        assert np.array_equal(getattr(data, part.removesuffix("id")).numpy(), numbers)
    return data


@pytest.mark.parametrize("form", ["csv.gz", "csv", "npz", "parquet"])
@pytest.mark.parametrize("undirected", [False, True])
def test_layout_of_ogb(tmp_path, monkeypatch, form, undirected):
    if form == "parquet":
        pytest.importorskip("pyarrow", reason='Parquet needs pyarrow: pip install "amstel[parquet]"')
    monkeypatch.setattr(_blocks, "BLOCK", 64)  # many blocks, which end anywhere
    place = ogb(tmp_path / "ogbn_tiny", form)
    facts = convert_graph(place, tmp_path / "tiny", undirected=undirected)
    data = check(tmp_path / "tiny", undirected)
    assert data.name == facts["name"] == "ogbn-tiny" and facts["nodes"] == N
    assert facts["edges"] == data.graph.num_edges and facts["features"] == F
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("tail", ["", "1", "2", "3 "])
def test_text_of_any_system(tmp_path, monkeypatch, end, tail):
    """Lines end as on any system, the last perhaps not at all, or blank lines follow; what is missing is nan or NaN."""
    numbers = np.random.default_rng(0).normal(size=(50, 3)).round(4)
    numbers[7, 1] = numbers[8, 0] = np.nan
    lines = [",".join(map(str, row)) for row in numbers]
    lines[7] = lines[7].replace("nan", "NaN")
    after = end * int(tail or 0) + " " * tail.count(" ")
    (tmp_path / "a.csv").write_bytes((end.join(lines) + after).encode())
    for block in (1, 2, 7, 64, 1 << 20):
        monkeypatch.setattr(_blocks, "BLOCK", block)
        found = np.concatenate([*_blocks.Table(tmp_path / "a.csv").blocks(missing=True)])
        np.testing.assert_array_equal(found, numbers)
    lines[20] = ""
    (tmp_path / "a.csv").write_bytes((end.join(lines) + after).encode())
    for block in (3, 1 << 20):
        monkeypatch.setattr(_blocks, "BLOCK", block)
        with pytest.raises(ValueError, match="line 21: must hold 3 numbers, got ''"):
            list(_blocks.Table(tmp_path / "a.csv").blocks(missing=True))


@pytest.mark.parametrize("by_columns", [False, True])
@pytest.mark.parametrize("mask", [False, True])
def test_one_file(tmp_path, monkeypatch, by_columns, mask):
    monkeypatch.setattr(_blocks, "BLOCK", 48)
    index, x, y, splits = problem()
    order = np.asfortranarray if by_columns else np.asarray
    kept = {"train": splits["train"], "val": splits["valid"], "test": splits["test"]}
    if mask:
        kept = {part: np.isin(np.arange(N), numbers) for part, numbers in kept.items()}
    file = tmp_path / "tiny.npz"
    np.savez(file, edge_index=order(index.astype(np.int32)), x=order(x), y=y.astype(np.int16), **kept)
    convert_graph(file, tmp_path / "tiny")
    data = GraphFolder(tmp_path / "tiny")
    assert np.array_equal(data.features.numpy(), x) and np.array_equal(data.labels.numpy(), y)
    assert np.array_equal(data.graph.to_edge_index()[0].sort(1)[0].numpy(), np.sort(index, 1))
    assert sorted(data.train.tolist()) == sorted(splits["train"].tolist())


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.uint8])
def test_numbers_of_features_stay_what_they_are(tmp_path, dtype):
    index, x, y, splits = problem()
    kept = {"edge_index": index, "y": y} | dict(zip(("train", "val", "test"), splits.values(), strict=True))
    x = (100 * abs(x.astype(np.float64))).astype(dtype)
    np.savez(tmp_path / "a.npz", x=x, **kept)
    convert_graph(tmp_path / "a.npz", tmp_path / "a")
    found = GraphFolder(tmp_path / "a").features
    assert found.dtype == (torch.from_numpy(x).dtype if x.dtype.kind == "f" else torch.float32)
    np.testing.assert_array_equal(found.numpy(), x)
    np.savez(tmp_path / "b.npz", x=x, edge_weight=np.ones(E), **kept)
    with pytest.warns(UserWarning, match=r"b\.npz: not read: edge_weight"):
        convert_graph(tmp_path / "b.npz", tmp_path / "b")
    if dtype == np.int64:
        x[3, 2] = 2**24 + 1
        np.savez(tmp_path / "c.npz", x=x, **kept)
        with pytest.raises(ValueError, match=r"c\.npz\[x\] must hold .* integers from .*, got 16777217"):
            convert_graph(tmp_path / "c.npz", tmp_path / "c")


def test_parquet_keeps_float64(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    place, x = ogb(tmp_path / "tiny", "parquet"), problem()[1].astype(np.float64) / 3
    parquet.write_table(
        pyarrow.table({f"c{k}": c for k, c in enumerate(x.T)}), place / "raw" / "node-feat.parquet"
    )
    convert_graph(place, tmp_path / "a")
    np.testing.assert_array_equal(GraphFolder(tmp_path / "a").features.numpy(), x)


@pytest.mark.parametrize("features", ["dense", "sparse", "none"])
def test_written_and_read(tmp_path, features):
    data = amstel.data.block_model(nodes=400)
    weight = torch.rand(data.graph.num_edges)
    data.graph = amstel.Graph.from_edge_index(data.graph.to_edge_index()[0], 400, weight)
    data.features = {"dense": data.features.to_dense(), "sparse": data.features, "none": None}[features]
    found = GraphFolder(GraphFolder.write(data, tmp_path / "blocks"))
    assert torch.equal(found.graph.values(torch.float32), data.graph.values(torch.float32))
    assert torch.equal(found.labels, data.labels) and torch.equal(found.test, data.test)
    if features == "none":
        assert found.features is None
    else:
        assert torch.equal(found.features.to_dense(), data.features.to_dense())
    with pytest.raises(FileExistsError, match="blocks exists"):
        GraphFolder.write(data, tmp_path / "blocks")
    GraphFolder.write(data, tmp_path / "blocks", force=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("much work")
    with pytest.raises(FileExistsError, match="not a graph"):
        GraphFolder.write(data, tmp_path / "other", force=True)
    assert (tmp_path / "other" / "thesis.txt").exists()


def replaced(name, rows):
    def wrong(place):
        file = next(place.rglob(f"{name}.csv"))
        lines = file.read_text().splitlines()
        for k, line in rows.items():
            lines[k] = line
        file.write_text("\n".join(lines) + "\n")

    return wrong


def cut(name, lines):
    def wrong(place):
        file = next(place.rglob(f"{name}.csv"))
        file.write_text("\n".join(file.read_text().splitlines()[:lines]) + "\n")

    return wrong


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (replaced("edge", {7: "3,1.5"}), "edge.csv, line 8: must hold 2 integers"),
        (replaced("edge", {7: "3,-1"}), "line 8: must hold 2 integers >= 0, got '3,-1'"),
        (replaced("edge", {7: f"3,{N}"}), f"from 0 to {N - 1}, got {N} at edge 7"),
        (replaced("edge", {7: "3,99999999999999999999"}), "edge.csv"),
        (replaced("edge", {7: "3"}), "line 8: must hold 2 integers"),
        (replaced("edge", {7: "3,4,5"}), "line 8: must hold 2 integers"),
        (replaced("edge", {7: ",5"}), "line 8: must hold 2 integers"),
        (replaced("edge", {7: "", 8: "1,2"}), "line 8: must hold 2 integers"),
        (replaced("edge", {7: "nan,2"}), "line 8: must hold 2 integers"),
        (replaced("node-label", {3: "1.5"}), "node-label.csv must hold classes, integers >= 0, got 1.5"),
        (replaced("node-label", {3: "-2"}), "must hold classes, integers >= 0 and < 2^24, got -2"),
        (replaced("node-label", {3: "1e300"}), "must hold classes"),
        (replaced("node-label", {3: str(2**24)}), "integers >= 0 and < 2^24, got 16777216"),
        (replaced("node-label", {3: "many"}), "line 4: must hold 1 number, got 'many'"),
        (cut("node-label", 50), f"node-label.csv must have {N} rows, one per node, got 50"),
        (replaced("node-feat", {3: "1,2,3,4,1e60"}), "row 3: must hold finite numbers"),
        (replaced("node-feat", {3: "1,2,3,4,nan"}), "line 4: must hold 5 numbers"),
        (
            replaced("node-feat", {3: "1,2e9, -16777217 ,4,3"}),
            "line 4: must hold floating-point numbers, or integers from -2^24 to 2^24, got -16777217",
        ),
        (cut("node-feat", 59), f"node-feat.csv must have {N} rows, one per node, got 59"),
        (replaced("train", {0: str(N)}), f"numbers of nodes from 0 to {N - 1}, got {N}"),
        (replaced("train", {0: "59"}), "nodes whose class is known, got 59"),
        (replaced("train", {0: "1", 1: "1"}), "must name each node once"),
        (replaced("test", {0: "50", 1: "50"}), "must name each node once"),
        (replaced("num-node-list", {0: "30\n30"}), "the number of nodes of one graph, got 2 numbers"),
        (lambda place: next(place.rglob("edge.csv")).unlink(), "not in OGB's layout"),
        (lambda place: next(place.rglob("valid.csv")).unlink(), "valid.csv.gz is missing"),
        (lambda place: (place / "split" / "other").mkdir(), "one of other, time"),
    ],
)
def test_damaged_files(tmp_path, wrong, text):
    place = ogb(tmp_path / "tiny", "csv")
    wrong(place)
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        convert_graph(place, tmp_path / "out")
    assert text in str(error.value) and "\n" not in str(error.value), error.value
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny"]  # nothing is left


def test_damaged_archives(tmp_path):
    index, x, y, splits = problem()
    parts = {"train": splits["train"], "val": splits["valid"], "test": splits["test"]}
    good = {"edge_index": index, "x": x, "y": y, **parts}
    for change, said in [
        ({"edge_index": index.astype(float)}, "edge_index] must hold integers, got float64"),
        (
            {"edge_index": index.astype(complex)},
            "must hold integers or floating-point numbers, got complex128",
        ),
        ({"edge_index": index.astype(object)}, "must hold integers or floating-point numbers, got object"),
        ({"edge_index": index > 3}, "got bool"),
        ({"edge_index": index[0]}, "must be [2, edges], got [300]"),
        ({"edge_index": index - 1}, "from 0 to 59, got -1 at edge"),
        ({"x": x[:-1]}, "x] must have 60 rows, one per node, got 59"),
        ({"x": np.where(x > 1, np.nan, x)}, "must hold finite numbers"),
        ({"x": x.astype(np.longdouble)}, "x] must hold integers or floating-point numbers"),
        ({"y": np.stack([y, y], 1)}, "y] must hold one class per node, got 2 columns"),
        ({"y": y + 0.5}, "must hold classes, integers >= 0"),
        ({"train": parts["train"] + 0.0}, "train] must hold integers"),
        ({"train": np.ones(3, bool)}, "a mask [60], got bool [3]"),
    ]:
        np.savez(tmp_path / "bad.npz", **(good | change))
        with pytest.raises(ValueError) as error:
            convert_graph(tmp_path / "bad.npz", tmp_path / "out")
        assert said in str(error.value), (change, error.value)
    np.savez(tmp_path / "bad.npz", edge_index=index)
    with pytest.raises(ValueError, match="y is missing"):
        convert_graph(tmp_path / "bad.npz", tmp_path / "out")
    data = (tmp_path / "bad.npz").read_bytes()
    (tmp_path / "bad.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"not an \.npz file, or is damaged"):
        convert_graph(tmp_path / "bad.npz", tmp_path / "out")
    with open(tmp_path / "long.npy", "wb") as file:
        facts = {"descr": "<i8", "fortran_order": False, "shape": (2, 10**15)}
        np.lib.format.write_array_header_1_0(file, facts)
    with pytest.raises(ValueError, match=r"long\.npy is damaged: it ends too early"):
        _blocks.Table(tmp_path / "long.npy").shape()
    place = ogb(tmp_path / "cut")
    packed = place / "raw" / "edge.csv.gz"
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(ValueError, match="damaged"):
        convert_graph(place, tmp_path / "out")
    assert not (tmp_path / "out").exists()


#: What NumPy's own reader ends in an error of Python's tokenizer for.
UNENDED = b"\x93NUMPY\x01\x00\x10\x00{'descr': '<i4',("


def test_a_header_that_does_not_end(tmp_path):
    from amstel.apps.restoration import given
    from amstel.data.mri import readers, scans

    folder = GraphFolder.write(amstel.data.block_model(nodes=400), tmp_path / "blocks")
    file = folder / "col.npy"
    file.write_bytes(UNENDED)
    place = ogb(tmp_path / "place", "csv")
    (place / "raw" / "edge.csv").unlink()
    (place / "raw" / "edge.npy").write_bytes(UNENDED)
    for read, named in (
        (lambda: GraphFolder(folder), "col.npy cannot be read"),
        (lambda: convert_graph(place, tmp_path / "out"), "edge.npy is not a NumPy array"),
        (lambda: given.read_numbers(file), "col.npy must be"),
        (lambda: readers.read_kspace(file), "col.npy must be"),
        (lambda: scans.read_scan(file), "col.npy must be"),
    ):
        with pytest.raises(ValueError, match=re.escape(named)):
            read()


def test_a_damaged_split_dict_is_named(tmp_path):
    place = ogb(tmp_path / "own", "npz")
    file = place / "split" / "time" / "split_dict.pt"
    torch.save({"train": [0], "valid": [1], "test": [N]}, file)
    with pytest.raises(
        ValueError, match=re.escape(f"{file}[test] must hold numbers of nodes from 0 to {N - 1}")
    ):
        convert_graph(place, tmp_path / "out")
    for content in (b"\x80\x02.", b"\x80\x02a.", b"", b"PK\x03\x04", b"\x80\x02]."):
        file.write_bytes(content)
        with pytest.raises(
            ValueError, match=re.escape(f"{file} must hold a dictionary of train, valid and test")
        ):
            convert_graph(place, tmp_path / "out")


def test_damaged_folders(tmp_path):
    folder = GraphFolder.write(amstel.data.block_model(nodes=400), tmp_path / "blocks")
    facts, col = json.loads((folder / "graph.json").read_text()), np.load(folder / "col.npy")
    for name, content, said in [
        ("col.npy", None, "col.npy is missing"),
        ("col.npy", b"", "col.npy cannot be read"),
        ("graph.json", b"{", "is not the graph.json of a graph"),
        ("graph.json", json.dumps(facts | {"nodes": -1}).encode(), "is not the graph.json"),
        (
            "graph.json",
            json.dumps(facts | {"nodes": 399}).encode(),
            'json: "nodes" must be 400, as crow is .401., got 399',
        ),
        (
            "graph.json",
            json.dumps(facts | {"nodes": 10**30}).encode(),
            'json: "nodes" must be 400, .*, got 10{30}',
        ),
        (
            "graph.json",
            json.dumps(facts | {"edges": 3}).encode(),
            'json: "edges" must be .*, as col is .*, got 3',
        ),
        (
            "graph.json",
            json.dumps(facts | {"features": 7}).encode(),
            'json: "features" must be above 299, as x_col has it, got 7',
        ),
        ("graph.json", json.dumps(facts | {"classes": 2}).encode(), "is damaged: `labels`"),
        # As sizes of a network they ended in an error of the memory that named neither.
        (
            "graph.json",
            json.dumps(facts | {"classes": 10**9}).encode(),
            'json: "classes" must be an .*, got 1000000000',
        ),
        (
            "graph.json",
            json.dumps(facts | {"classes": None}).encode(),
            'json: "classes" must be an integer .*None',
        ),
        (
            "graph.json",
            json.dumps(facts | {"features": 10**12}).encode(),
            'json: "features" must be an integer from',
        ),
    ]:
        before = (folder / name).read_bytes()
        (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
        with pytest.raises((ValueError, FileNotFoundError), match=said):
            GraphFolder(folder)
        (folder / name).write_bytes(before)
    np.save(folder / "col.npy", col[:-1])
    with pytest.raises(ValueError, match=r"col\.npy must hold int32"):
        GraphFolder(folder)
    col[3] = 400
    np.save(folder / "col.npy", col)
    with pytest.raises(ValueError, match="source index must be in"):
        GraphFolder(folder)
    with pytest.raises(FileNotFoundError, match=r"graph\.json is missing"):
        GraphFolder(tmp_path)
    with pytest.raises(TypeError, match="`root`"):
        GraphFolder(3)


# ---- The command line ----


def test_on_the_command_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = ogb(tmp_path / "ogbn_tiny", "csv.gz", labeled=True)
    status, out, err = run(capsys, "graphs", "convert", place, "tiny", "--undirected", "--json", "facts.json")
    assert status == 0 and err == "" and "ogbn-tiny: 60 nodes" in out and "wrote tiny" in out
    assert json.loads((tmp_path / "facts.json").read_text())["features"] == F
    train = ["graphs", "train", "--seeds", "2", "--epochs", "3", "--quiet"]
    losses = []
    for n, words in enumerate(
        (
            ["--dataset", "tiny"],
            ["--dataset", "ogbn-tiny", "--root", "tiny"],
            ["--dataset", "tiny", "--root", "."],
        )
    ):
        status, _, err = run(capsys, *train, *words, "--json", f"{n}.json", "--out", f"run{n}")
        assert status == 0, err
        losses.append(json.loads((tmp_path / f"{n}.json").read_text())["loss"])
    assert losses[0] == losses[1] == losses[2] and len(losses[0]) == 3
    for command in ("predict", "evaluate"):
        status, _, err = run(capsys, "graphs", command, "run0/checkpoint.pt", "--root", "tiny", "--quiet")
        assert status == 0, err
    sampled = [*train, "--dataset", "tiny", "--sampler", "neighbor", "--fanouts", "3,-1"]
    assert run(capsys, *sampled)[0] == 0
    assert run(capsys, *train, "--dataset", "tiny", "--task", "link", "--hidden", "4")[0] == 0

    is_refused(capsys, ["graphs", "convert", place, "tiny"], "tiny exists; --force replaces it")
    is_refused(capsys, ["graphs", "convert", "none", "new"], "none does not exist")
    is_refused(capsys, ["graphs", "convert", "tiny", "new"], "tiny is a converted graph already")
    is_refused(capsys, ["graphs", "convert", place, place / "new"], "must lie outside the input folder")
    is_refused(capsys, ["graphs", "convert", place, "new", "--split", "best"], "--split must be one of time")
    is_refused(
        capsys, ["graphs", "convert", "facts.json", "new"], "facts.json is not an .npz file, or is damaged"
    )
    is_refused(capsys, [*train, "--dataset", "ogbn-tiny", "--root", "."], "amstel graphs convert")
    is_refused(
        capsys, [*train, "--dataset", "cora", "--root", "tiny"], "holds the graph 'ogbn-tiny', not 'cora'"
    )
    secret = ogb(tmp_path / "secret", "csv")  # of some test nodes nobody knows the class
    assert run(capsys, "graphs", "convert", secret, "unknown")[0] == 0
    is_refused(capsys, [*train, "--dataset", "unknown"], "--dataset must have the labels of its test nodes")
    facts = json.loads((tmp_path / "unknown" / "graph.json").read_text()) | {"name": "ogbn-tiny"}
    (tmp_path / "unknown" / "graph.json").write_text(json.dumps(facts))
    other = ["graphs", "evaluate", "run0/checkpoint.pt", "--root", "unknown"]
    is_refused(capsys, other, "trained on ogbn-tiny, but GraphFolder(ogbn-tiny")
    state = torch.load("run0/checkpoint.pt", weights_only=True)
    torch.save({**state, "digest": ""}, "run0/checkpoint.pt")
    is_refused(capsys, other, "evaluate: the data must have the labels of its test nodes")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("model", ["gcn", "cheb2"])
def test_dense_features_train_as_sparse_ones(model):
    """Without dropout, whose masks follow the stored values, the losses are the same."""
    data = amstel.data.block_model(nodes=400)
    parts = (data.train, data.val, data.test, 4)
    dense = amstel.data.NodeData("dense", data.graph, data.features.to_dense(), data.labels, *parts)
    settings = Settings(epochs=10, dropout=0.0)
    a, b = study(data, model, [0, 1], settings), study(dense, model, [0, 1], settings)
    np.testing.assert_allclose(a.losses, b.losses, atol=2e-6)
    assert a.accuracy == b.accuracy
    a, b = (study(dense, model, [1, 2], Settings(epochs=10), chunk=k) for k in (1, 2))
    np.testing.assert_allclose(a.losses, b.losses, atol=1e-6)  # with dropout, whatever the chunk
    assert a.losses[0][-1] < a.losses[0][0]


def test_an_archive_of_several_arrays_is_not_guessed(tmp_path):
    """Which of two arrays are the labels depended on the hashes of their names."""
    raw = ogb(tmp_path / "o", labeled=True) / "raw"
    (raw / "node-label.csv.gz").unlink()
    y = np.maximum(problem()[2], 0)
    np.savez(raw / "node-label.npz", ids=np.arange(N), y=y)
    with pytest.raises(ValueError, match=r"an array 'node_label' or a single one, got \['ids', 'y'\]"):
        convert_graph(tmp_path / "o", tmp_path / "out")
    np.savez(raw / "node-label.npz", y=y)
    assert convert_graph(tmp_path / "o", tmp_path / "out")["classes"] == C
