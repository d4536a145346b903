"""Conversion of large graphs, in OGB's layout on disk or in one .npz file, to a memory-mapped `GraphFolder`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from amstel import _check, _derived, _files, _library, _words
from amstel._text import SINGLE
from amstel.data import graph_folder as folders
from amstel.data._blocks import Table, arrays_in, only

_SPLITS = {"train": ("train",), "val": ("valid", "val"), "test": ("test",)}
_ENDINGS = (".csv.gz", ".csv", ".parquet", ".npy")


class _Given(NamedTuple):
    """Numbers that were read already."""

    named: str
    values: np.ndarray

    def __str__(self) -> str:
        return self.named


class _Source(NamedTuple):
    """Where the parts of a problem are."""

    place: Path
    name: str
    edges: Table
    nodes: Table | None
    x: Table | None
    y: Table
    splits: dict[str, Any]  # tables, or what was read of them already


def convert_graph(
    source: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    undirected: bool = False,
    split: str | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Convert a node-classification problem to a `GraphFolder`, block by block, without loading all features.

    Args:
        source: a folder in OGB's layout, such as `ogbn_products`, or an .npz file:

            ========================  =======================================================================
            file                      what
            ========================  =======================================================================
            raw/edge                  `source,target` per line; or `edge_index` [2, E] in raw/data.npz
            raw/num-node-list         N; or `num_nodes_list` in raw/data.npz; default: the number of labels
            raw/node-feat             N lines of F numbers; or `node_feat` [N, F] in raw/data.npz; may be absent
            raw/node-label            the class of each node, "nan" where unknown; or `node_label` in
                                      raw/node-label.npz
            split/<split>/            train, valid and test, each with one node index per line; or split_dict.pt
            ========================  =======================================================================

            Edge features and other files are not read. The extensions are .csv.gz, .csv, .parquet (needs pyarrow) and
            .npy; for a split also .npz. An .npz file holds edge_index [2, E], x [N, F], y [N], and train, val and test,
            which are node indices or masks [N]; a warning names anything else in it.
        folder: the folder to write; it appears once it is complete.
        undirected: add the reverse of every edge and drop duplicates, which `ogbn-products` and `ogbn-proteins` need;
            otherwise edges are as in the files.
        split: which of the folders in split/ to use; default: the only one.
        force: replace an existing `GraphFolder`.

    Features keep their floating-point dtype; text and integers become float32.

    Returns:
        the contents of graph.json: "nodes", "edges", "features", "classes", ...

    Raises:
        FileNotFoundError or ValueError: a file is missing or invalid; the message names it.
        FileExistsError: the folder exists.

    Complexity: O(N + E) memory, only for the graph: 16 bytes per edge, and 28 with `undirected`.

    Source: W. Hu et al., Open Graph Benchmark: Datasets for Machine Learning on Graphs, NeurIPS 2020.

    Example:
        >>> facts = amstel.data.convert_graph("ogbn_products", "products", undirected=True)
        >>> facts["name"], sorted(facts["arrays"])
        ('ogbn-products', ['col', 'crow', 'test', 'train', 'val', 'x', 'y'])
        >>> amstel.data.GraphFolder("products")                                                # doctest: +SKIP
        GraphFolder(ogbn-products, num_nodes=2449029, num_edges=123718152, num_features=100, num_classes=47)
    """
    if not isinstance(source, (str, os.PathLike)):
        _check.fail_type("source", "a path", source)
    undirected = _check.flag("undirected", undirected)
    if split is not None and not isinstance(split, str):
        _check.fail_type("split", "the name of a folder in split/, or None", split)
    found = _npz(Path(source)) if Path(source).is_file() else _ogb(Path(source), split)
    if split is not None and Path(source).is_file():
        _check.fail("split", "None for a file", split)
    with folders.replacing(folder, force) as target:
        labels, classes = _labels(found.y)
        nodes = len(labels) if found.nodes is None else _count(found.nodes)
        rows = _words.counted(nodes, "row")
        if len(labels) != nodes:
            raise ValueError(f"{found.y} must have {rows}, one per node, got {len(labels)}")
        written: dict[str, Any] = {}
        crow, col = _edges(found.edges, nodes, undirected)
        written["crow"] = folders.write_array(target, "crow", crow)
        written["col"] = folders.write_array(target, "col", col)
        del crow, col
        written["y"] = folders.write_array(target, "y", labels)
        seen = np.zeros(nodes, bool)
        for part in _SPLITS:
            numbers = _part(found.splits[part], nodes, seen)
            if part != "test" and (labels[numbers] < 0).any():
                bad = int(numbers[labels[numbers] < 0][0])
                raise ValueError(f"{found.splits[part]} must hold nodes whose class is known, got {bad}")
            written[part] = folders.write_array(target, part, numbers)
        width = None
        if found.x is not None:
            written["x"] = _features(target, found.x, nodes)
            width = written["x"][1][1]
        return folders.write_facts(target, written, name=found.name, classes=classes, features=width)


# ---- Where the parts are


def _ogb(place: Path, split: str | None) -> _Source:
    if not place.is_dir():
        raise FileNotFoundError(f"{place} does not exist")
    if folders.is_folder(place):
        raise ValueError(f"{place} is a converted graph already")
    raw = place / "raw"
    archive = raw / "data.npz"
    names = arrays_in(archive) if _files.there(archive) else set()

    def find(stem: str, key: str | None = None) -> Table | None:
        for ending in _ENDINGS:
            if _files.there(raw / f"{stem}{ending}"):
                return Table(raw / f"{stem}{ending}")
        own = raw / f"{stem}.npz"
        if key is not None and _files.there(own):
            return only(own, key)
        return Table(archive, key) if key in names else None

    edges, y = find("edge", "edge_index"), find("node-label", "node_label")
    for stem, part in (("edge", edges), ("node-label", y)):
        if part is None:
            raise FileNotFoundError(
                f"{place} is not in OGB's layout: there is no {raw / stem}.csv.gz, .parquet or .npz"
            )
    assert edges is not None and y is not None
    nodes = find("num-node-list", "num_nodes_list")
    name = place.resolve().name.replace("_", "-")
    return _Source(
        place, name, edges, nodes, find("node-feat", "node_feat"), y, _ogb_splits(place / "split", split)
    )


def _ogb_splits(place: Path, split: str | None) -> dict[str, Any]:
    there = sorted(p.name for p in place.iterdir() if p.is_dir()) if place.is_dir() else []
    if split is None and len(there) != 1:
        if there:
            raise ValueError(f"`split` must be one of {', '.join(there)}, the folders in {place}, got None")
        raise FileNotFoundError(f"{place} must hold the folder of a split, such as split/time")
    if split is not None and split not in there:
        _check.fail("split", f"one of {', '.join(there) or 'none'}, the folders in {place}", split)
    folder = place / (split or there[0])
    if _files.there(folder / "split_dict.pt"):
        return _split_dict(folder / "split_dict.pt")
    found: dict[str, Any] = {}
    for part, stems in _SPLITS.items():
        files = [folder / f"{stem}{ending}" for stem in stems for ending in (*_ENDINGS, ".npz")]
        file = next((f for f in files if _files.there(f)), None)
        if file is None:
            raise FileNotFoundError(f"{folder / stems[0]}.csv.gz is missing")
        found[part] = only(file, part) if file.suffix == ".npz" else Table(file)
    return found


def _split_dict(file: Path) -> dict[str, Any]:
    array = np.empty(0).__reduce__()[0]
    types = [type(np.dtype(kind)) for kind in ("int64", "int32", "bool")]
    kinds: list[Any] = [array, np.ndarray, np.dtype, *types]
    try:
        with torch.serialization.safe_globals(kinds):
            state = torch.load(file, map_location="cpu", weights_only=True)
        keys = {part: next(key for key in keys if key in state) for part, keys in _SPLITS.items()}
        return {part: _Given(f"{file}[{key}]", np.asarray(state[key])) for part, key in keys.items()}
    except OSError:
        raise
    except Exception as error:  # whatever a damaged pickle ends in
        said = str(error).split("\n")[0]
        raise ValueError(f"{file} must hold a dictionary of train, valid and test {said}".strip()) from None


def _npz(file: Path) -> _Source:
    names = arrays_in(file)
    missing = [name for name in ("edge_index", "y", "train", "val", "test") if name not in names]
    if missing:
        raise ValueError(
            f"{file} must hold edge_index, y, train, val, test and maybe x; {missing[0]} is missing"
        )
    if unread := sorted(names - {"edge_index", "x", "y", *_SPLITS}):
        warnings.warn(f"{file}: not read: {', '.join(unread)}", stacklevel=4)
    splits = {part: Table(file, part) for part in _SPLITS}
    x = Table(file, "x") if "x" in names else None
    return _Source(file, file.stem, Table(file, "edge_index"), None, x, Table(file, "y"), splits)


# ---- What they hold


def _count(table: Table) -> int:
    counts = np.concatenate(
        [block.reshape(-1) for block in table.blocks(whole=True)] or [np.empty(0, np.int64)]
    )
    if len(counts) != 1 or counts[0] < 0:
        raise ValueError(f"{table} must hold the number of nodes of one graph, got {len(counts)} numbers")
    return int(counts[0])


def _labels(table: Table) -> tuple[np.ndarray, int]:
    """Classes, -1 where unknown, and how many there are."""
    parts = []
    for block in table.blocks(missing=True):
        if block.shape[1] != 1:
            raise ValueError(f"{table} must hold one class per node, got {block.shape[1]} columns")
        values = block[:, 0]
        known = values == values
        if block.dtype.kind == "f" and (np.floor(values) != values)[known].any():
            raise ValueError(
                f"{table} must hold classes, integers >= 0, got {values[known & (np.floor(values) != values)][0]}"
            )
        wrong = known & ((values < -1) | (values >= _files.MOST_CLASSES))
        if wrong.any():
            raise ValueError(f"{table} must hold classes, integers >= 0 and < 2^24, got {values[wrong][0]}")
        parts.append(np.where(known, values, -1).astype(np.int64))
    labels = np.concatenate(parts) if parts else np.empty(0, np.int64)
    return labels, int(labels.max(initial=-1)) + 1


def _features(target: Path, table: Table, nodes: int) -> tuple[str, list[int]]:
    """Write the features while they are read."""
    blocks = table.blocks(single=True)
    first = next(blocks, np.empty((0, 1)))
    text = table.key is None and table.path.suffix not in (".npy", ".parquet")
    exact = not text and first.dtype.kind == "f"
    dtype, width, count = (first.dtype if exact else np.dtype(np.float32)), first.shape[1], 0

    def checked() -> Iterator[np.ndarray]:
        yield from look(first)
        for block in blocks:
            yield from look(block)
        if count != nodes:
            raise ValueError(f"{table} must have {_words.counted(nodes, 'row')}, one per node, got {count}")

    def look(block: np.ndarray) -> Iterator[np.ndarray]:
        nonlocal count
        if block.shape[1] != width:
            raise ValueError(f"{table}, row {count}: must be {width} wide, got {block.shape[1]}")
        with np.errstate(over="ignore"):
            rows = block.astype(dtype, copy=False)
        # Beyond, float32 has only some of the integers.
        if block.dtype.kind in "iu" and (beyond := (block > 2**24) | (block < -(2**24))).any():
            raise ValueError(f"{table} must hold {SINGLE}, got {block[beyond][0]}")
        wrong = ~np.isfinite(rows).all(1)
        if wrong.any():
            k = int(wrong.argmax())
            raise ValueError(
                f"{table}, row {count + k}: must hold finite numbers, got {block[k].tolist()[:5]}"
            )
        count += len(rows)
        if count > nodes:
            raise ValueError(f"{table} must have {_words.counted(nodes, 'row')}, one per node, got more")
        yield rows

    return folders.write_blocks(target, "x", (nodes, width), dtype, checked())


def _part(found: Any, nodes: int, seen: np.ndarray) -> np.ndarray:
    """Numbers of nodes, or a mask of them; `seen` are those of the parts before."""
    if isinstance(found, Table):
        named: Any = found
        values: Any = None if found.key is None else _mask(found)
        if values is None:
            blocks = [block for block in found.blocks(whole=True)]
            if any(block.shape[1] != 1 for block in blocks):
                raise ValueError(f"{found} must hold one node index per line")
            values = np.concatenate([b[:, 0] for b in blocks]) if blocks else np.empty(0, np.int64)
    else:
        named, values = found
    if values.dtype == bool and values.shape == (nodes,):
        values = np.flatnonzero(values)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise ValueError(
            f"{named} must hold node indices, or a mask [{nodes}], got {values.dtype} {list(values.shape)}"
        )
    wrong = (values < 0) | (values >= nodes)
    if wrong.any():
        raise ValueError(f"{named} must hold numbers of nodes from 0 to {nodes - 1}, got {values[wrong][0]}")
    numbers = values.astype(np.int64)
    again = seen[numbers]
    if again.any() or len(np.unique(numbers)) != len(numbers):
        raise ValueError(f"{named} must name each node once, and none of another part")
    seen[numbers] = True
    return numbers


def _mask(table: Table) -> np.ndarray | None:
    """What an archive holds, if that is a mask."""
    try:
        with np.load(table.path, allow_pickle=False) as file:
            found = file[table.key]
    except (*_files.DAMAGED_ARRAY, KeyError, OSError):
        return None
    return found if found.dtype == bool else None


def _edges(table: Table, nodes: int, undirected: bool) -> tuple[np.ndarray, np.ndarray]:
    """The edges by their targets, checked."""
    dtype = np.int32 if nodes < 2**31 else np.int64
    array = table.key is not None or table.path.suffix == ".npy"
    shape = table.shape()[0] if array else None
    if shape is not None and len(shape) == 2 and shape[0] == 2 and not table.shape()[1]:
        ends = np.empty(2 * shape[1], dtype)  # all sources, then all targets
        at = 0
        for block in table.flat(whole=True):
            ends[at : at + len(block)] = _within(table, block, nodes, at % max(shape[1], 1))
            at += len(block)
        source, target = torch.from_numpy(ends).view(2, shape[1])
    else:
        sources, targets, at = [], [], 0
        for block in _pairs(table, shape):
            block = _within(table, block, nodes, at).astype(dtype)
            sources.append(block[:, 0].copy())
            targets.append(block[:, 1].copy())
            at += len(block)
        source, target = (torch.from_numpy(_joined(parts, dtype)) for parts in (sources, targets))
    if not undirected:
        crow, col, _ = _derived.csr_from_coo(target, source, nodes, nodes, None)
        return crow.numpy(), col.numpy()
    return _both_ways(source, target, nodes)


def _pairs(table: Table, shape: tuple[int, ...] | None) -> Iterator[np.ndarray]:
    if shape is not None and (len(shape) != 2 or 2 not in shape):
        raise ValueError(f"{table} must be [2, edges], got {list(shape)}")
    if shape is not None and shape[0] == 2:  # columns first: pairs as they are stored
        for block in table.flat(whole=True):
            yield block.reshape(-1, 2)
        return
    for block in table.blocks(whole=True):
        if block.shape[1] != 2:
            raise ValueError(f"{table} must hold 2 numbers per row, source and target, got {block.shape[1]}")
        yield block


def _within(table: Table, ends: np.ndarray, nodes: int, first: int) -> np.ndarray:
    wrong = (ends < 0) | (ends >= nodes)
    if wrong.any():
        k = np.argwhere(wrong)[0]
        raise ValueError(
            f"{table} must hold numbers of nodes from 0 to {nodes - 1}, got {ends[tuple(k)]} at edge {first + k[0]}"
        )
    return ends


def _joined(parts: list[np.ndarray], dtype: Any) -> np.ndarray:
    joined = np.concatenate(parts) if parts else np.empty(0, dtype)
    parts.clear()
    return joined


def _both_ways(source: Tensor, target: Tensor, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Every edge in both directions, each once: sorted by both ends, neighbors that are named again go."""
    ends = torch.cat([source, target]), torch.cat([target, source])
    del source, target
    crow, col, edge = _derived.csr_from_coo(*ends, nodes, nodes, None)
    del ends, edge
    # Stable sorting by one end, then by the other.
    crow, col, edge = _library.operators.csr_transpose(crow, col, None, nodes)
    del edge
    kept = np.ones(len(col), bool)
    kept[1:] = col.numpy()[1:] != col.numpy()[:-1]
    starts = crow.numpy()[:-1]
    kept[starts[starts < len(col)]] = True
    before = np.zeros(len(col) + 1, crow.numpy().dtype)
    np.cumsum(kept, out=before[1:])
    return before[crow.numpy()], col.numpy()[kept]
