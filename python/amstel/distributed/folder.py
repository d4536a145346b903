"""A graph in parts on disk: `partition` writes them, `read` opens one of them.

A folder holds `meta.json` and a folder `part-K` a part with .npy files, which are memory-mapped when they are read. The
nodes are numbered anew so that each part owns a range of the numbers, `offsets` in meta.json says which; within a part
the nodes come first that have no neighbor outside. The files of a part of n nodes, h halo nodes (sources of its edges
that other parts own) and b nodes with such edges, the last b:

    nodes [n]                       their numbers in the graph that was partitioned
    own_crow [n + 1], own_col       the edges within the part, CSR, columns 0..n-1
    halo_crow [b + 1], halo_col     the edges from the halo, CSR, rows n-b..n-1, columns 0..h-1
    own_weight, halo_weight         where the graph has weights
    halo [h]                        the new numbers of the halo nodes, ascending
    degree [2, n + h]               in- and out-degrees of own and halo nodes in the whole graph, float64
    x [n, F] or x_crow, x_col, x_value, and y [n]
    split_train, split_val, ...     rows of the part, ascending
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from amstel import _check, _files, _optional
from amstel.graph import Graph

META, FORMAT = "meta.json", "amstel partition 1"
_NEEDED = {"classes", "features", "name", "splits", "graph", "id"}


class Part(NamedTuple):
    """One part: the facts of the whole, the number of the part, and its arrays."""

    meta: dict[str, Any]
    number: int
    arrays: dict[str, np.ndarray]


def partition(
    graph: Graph,
    parts: int,
    folder: str | Path,
    *,
    x: Any = None,
    y: Any = None,
    splits: Mapping[str, Any] | None = None,
    method: str | Any = "ranges",
    name: str = "",
    num_classes: int | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Split a graph into parts on disk, for `DistributedGraph.load`.

    Args:
        graph: square, of N nodes, on the CPU.
        parts: number of parts, from 1 to N.
        folder: where to write; it appears only when it is complete.
        x: features [N, F], floating point: a tensor, an array or a memory map, or a torch.sparse_csr tensor.
        y: classes [N], integers, where values below 0 are unknown; or targets [N], floating point.
        splits: node indices, each once, by name, such as {"train": ..., "val": ..., "test": ...}.
        method: "ranges" cuts the nodes in their order, into parts with equal sums of nodes and edges; "metis" cuts few
            edges (needs pymetis); or a vector [N] of integers, the part of each node.
        name, num_classes: stored with the parts; num_classes defaults to the largest label + 1.
        force: whether to replace an existing partition.

    Returns:
        the contents of meta.json, such as "offsets" and "halo", the number of rows that each part receives in an exchange.

    Raises:
        ValueError or TypeError: an argument is not as described.
        FileExistsError: the folder exists.

    Example:
        >>> graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
        >>> meta = amstel.distributed.partition(graph, 2, "parts", x=torch.eye(3))
        >>> meta["offsets"], meta["halo"]
        ([0, 1, 3], [1, 1])
    """
    if not isinstance(graph, Graph):
        _check.fail_type("graph", "an amstel.Graph", graph)
    if not graph.is_square or graph.device.type != "cpu":
        raise ValueError(f"`graph` must be square and on the CPU, got {graph!r}")
    nodes = graph.num_nodes
    parts = _check.integer("parts", parts, 1)
    if parts > max(nodes, 1):
        _check.fail("parts", f"at most the number of nodes, {nodes}", parts)
    _check.flag("force", force)
    if not isinstance(name, str):
        _check.fail_type("name", "a string", name)
    content = _content(graph, x, y, splits)
    features = {key: value for key, value in content.items() if key.startswith("x")}
    labels, values, col = content["y"], content["weight"], content["col"]
    chosen = {key: value for key, value in content.items() if key.startswith("split_")}
    crow: np.ndarray = content["crow"]
    degree = torch.stack([graph._degree(torch.float64, out) for out in (False, True)]).numpy()
    owner = assigned(graph, parts, method)
    found = int(labels.max()) + 1 if labels is not None and labels.size and labels.dtype.kind == "i" else 0
    least = max(found, 0)
    if num_classes is None:
        num_classes = least
    else:
        num_classes = _check.integer(
            "num_classes", num_classes, least, f"an integer >= {least}, the largest class + 1"
        )

    # New numbers: part after part, in each first the nodes without neighbors elsewhere.
    order = np.argsort(owner, kind="stable")
    offsets = np.concatenate([[0], np.bincount(owner, minlength=parts).cumsum()])
    for part in range(parts):
        own = order[offsets[part] : offsets[part + 1]]
        slots, rows = _slots(crow, own)
        outside = np.bincount(rows[owner[col[slots]] != part], minlength=len(own)) > 0
        order[offsets[part] : offsets[part + 1]] = np.concatenate([own[~outside], own[outside]])
    number = np.empty(nodes, np.int64)
    number[order] = np.arange(nodes)

    digest = hash_of(content, str(num_classes))
    meta: dict[str, Any] = {"format": FORMAT, "name": name, "parts": parts, "nodes": nodes}
    meta |= {"edges": graph.num_edges, "features": features["x"].shape[1] if "x" in features else None}
    if "x_crow" in features:
        meta["features"] = int(x.shape[1])
    meta |= {"classes": num_classes, "method": method if isinstance(method, str) else "given"}
    meta |= {"graph": digest, "id": hash_of({"order": order, "offsets": offsets}, digest)}
    meta |= {
        "offsets": offsets.tolist(),
        "splits": {key: len(chosen[f"split_{key}"]) for key in splits or {}},
    }
    meta["halo"] = []
    with _files.replacing_folder(Path(folder), force, _is_partition, "partition") as target:
        for part in range(parts):
            begin, end = int(offsets[part]), int(offsets[part + 1])
            own = order[begin:end]
            slots, rows = _slots(crow, own)
            source = number[col[slots]]
            inside = (begin <= source) & (source < end)
            halo = np.unique(source[~inside])
            first = int(rows[~inside].min()) if len(halo) else len(own)
            arrays: dict[str, np.ndarray] = {"nodes": own, "halo": halo}
            arrays["degree"] = degree[:, np.concatenate([own, order[halo]])]
            small = np.int32 if max(len(slots), len(own), len(halo)) < 2**31 - 1 else np.int64
            arrays["own_crow"] = _crow(rows[inside], len(own), small)
            arrays["own_col"] = (source[inside] - begin).astype(small)
            arrays["halo_crow"] = _crow(rows[~inside] - first, len(own) - first, small)
            arrays["halo_col"] = np.searchsorted(halo, source[~inside]).astype(small)
            if values is not None:
                arrays["own_weight"], arrays["halo_weight"] = values[slots][inside], values[slots][~inside]
            if "x" in features:
                arrays["x"] = features["x"][own]
            elif features:
                slots, rows = _slots(features["x_crow"], own)
                arrays["x_crow"] = _crow(rows, len(own), np.int64)
                arrays |= {key: features[key][slots] for key in ("x_col", "x_value")}
            if labels is not None:
                arrays["y"] = labels[own]
            for key, value in chosen.items():
                new = np.sort(number[value])
                arrays[key] = new[(begin <= new) & (new < end)] - begin
            _write(target / f"part-{part}", arrays, meta, part)
            meta["halo"].append(len(halo))
        _files.write_json(target / META, meta)
    return meta


def read_meta(folder: str | Path) -> dict[str, Any]:
    """The contents of a partition's meta.json; FileNotFoundError or ValueError if it is not a partition."""
    file = Path(folder) / META
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no partition: {META} is missing")
    try:
        meta = json.loads(file.read_bytes())
        if meta["format"] != FORMAT or not meta.keys() >= _NEEDED or not isinstance(meta["splits"], dict):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{file} is not the {META} of a partition") from error
    _files.check_widths(file, meta)
    parts, offsets, nodes = (meta.get(key) for key in ("parts", "offsets", "nodes"))
    whole = type(parts) is int and isinstance(offsets, list) and len(offsets) == parts + 1
    if not (whole and all(type(n) is int and 0 <= n < 2**63 for n in offsets) and offsets == sorted(offsets)):
        wanted = f'ascending integers, one more than "parts", {parts!r}'
        raise ValueError(f'{file}: "offsets" must be {wanted}, got {offsets!r}')
    if nodes != offsets[-1]:
        raise ValueError(f'{file}: "nodes" must be {offsets[-1]}, the last of "offsets", got {nodes!r}')
    return meta


def read(folder: str | Path, number: int) -> Part:
    """A part, its arrays memory-mapped; an OSError or ValueError says what is missing, damaged or of another graph."""
    meta, place = read_meta(folder), Path(folder) / f"part-{number}"
    file = place / "part.json"
    if not file.is_file():
        raise FileNotFoundError(f"part {number} of {meta['parts']} is missing: there is no {file}")
    try:
        own = json.loads(file.read_bytes())
        of_this = own["graph"] == meta["graph"] and own["id"] == meta["id"] and own["part"] == number
        shapes, dtypes = own["shapes"], own.get("dtypes", {})  # earlier versions wrote no dtypes
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{file} is damaged") from error
    if not of_this:
        raise ValueError(
            f"{place} belongs to another graph or partition than {meta['name'] or 'the one'} of {META}"
        )
    arrays = {}
    for key, shape in shapes.items():
        file = place / f"{key}.npy"
        if not file.is_file():
            raise FileNotFoundError(f"part {number} of {meta['parts']} is damaged: there is no {file}")
        try:
            arrays[key] = np.load(file, mmap_mode="c", allow_pickle=False)
        except _files.DAMAGED_ARRAY as error:
            raise ValueError(f"part {number} of {meta['parts']} is damaged: {file} cannot be read") from error
        if list(arrays[key].shape) != shape or arrays[key].dtype.str != dtypes.get(
            key, arrays[key].dtype.str
        ):
            wanted = f"{np.dtype(dtypes[key]).name} {shape}" if key in dtypes else f"{shape}"
            raise ValueError(f"part {number} of {meta['parts']} is damaged: {file} should hold {wanted}")
    return Part(meta, number, arrays)


def digest_of(
    graph: Graph, *, x: Any = None, y: Any = None, splits: Any = None, num_classes: int, name: str = ""
) -> str:
    """What "graph" in meta.json is for these arguments of `partition`: equal for equal contents only."""
    return hash_of(_content(graph, x, y, splits), str(num_classes))


# ---- The pieces of `partition`


def _content(graph: Graph, x: Any, y: Any, splits: Mapping[str, Any] | None) -> dict[str, Any]:
    """Everything that is partitioned, checked, as arrays."""
    nodes = graph.num_nodes
    weight = None if graph._weight is None else graph._values(graph._weight.dtype)
    if weight is not None and weight.dtype not in (torch.float32, torch.float64):
        weight = weight.float()
    found: dict[str, Any] = {"crow": graph._crow.numpy(), "col": graph._col.numpy()}
    found["weight"] = None if weight is None else weight.detach().numpy()
    found["y"] = None if y is None else _labels(y, nodes)
    found |= _features(x, nodes)
    if not isinstance(splits, Mapping) and splits is not None:
        _check.fail_type("splits", "a dictionary of node indices, or None", splits)
    for name in splits or {}:
        if not isinstance(name, str) or not name.isidentifier():  # it becomes a part of a file's name
            _check.fail("splits", "a dictionary whose keys are names, such as 'train'", name)
    return found | {f"split_{k}": _numbers(f"splits[{k!r}]", v, nodes) for k, v in (splits or {}).items()}


def assigned(graph: Graph, parts: int, method: Any) -> np.ndarray:
    """The part of each node."""
    nodes = graph.num_nodes
    if not isinstance(method, str):
        given = _vector("method", method, nodes)
        if given.size and given.dtype.kind not in "iu":
            _check.fail("method", f"'ranges', 'metis' or integers [{nodes}], the part of each node", method)
        assigned = given.astype(np.int64)
        if assigned.size and not 0 <= assigned.min() <= assigned.max() < parts:
            _check.fail("method", f"parts from 0 to {parts - 1}", method)
        return assigned
    _check.choice("method", method, ("ranges", "metis"))
    if method == "ranges" or parts == 1:
        # Cut where the sum of nodes and edges passes equal shares; everyone gets a node.
        load = graph._crow.numpy()[1:].astype(np.int64) + np.arange(1, nodes + 1)
        total = int(load[-1]) if nodes else 0
        cuts = np.searchsorted(load, total * np.arange(1, parts) / parts)
        for k in range(parts - 1):
            least = k + 1 if k == 0 else cuts[k - 1] + 1
            cuts[k] = min(max(cuts[k], least), nodes - (parts - 1 - k))
        return np.searchsorted(cuts, np.arange(nodes), side="right")
    pymetis = _optional.need("pymetis", extra="metis", purpose='method="metis"')
    source, target = graph.to_edge_index()[0].numpy()
    a, b = np.concatenate([source, target]), np.concatenate([target, source])
    pairs = np.unique(a[a != b] * nodes + b[a != b])
    starts = np.concatenate([[0], np.bincount(pairs // nodes, minlength=nodes).cumsum()])
    _, membership = pymetis.part_graph(parts, xadj=starts.tolist(), adjncy=(pairs % nodes).tolist())
    return np.asarray(membership, np.int64)


def _slots(crow: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the entries of some rows of a CSR matrix, and to which of these rows each belongs."""
    begin = crow[rows].astype(np.int64)
    count = crow[rows + 1] - begin
    row = np.repeat(np.arange(len(rows)), count)
    return np.arange(len(row)) + np.repeat(begin - (count.cumsum() - count), count), row


def _crow(rows: np.ndarray, count: int, dtype: Any) -> np.ndarray:
    return np.concatenate([[0], np.bincount(rows, minlength=count).cumsum()]).astype(dtype)


def _features(x: Any, nodes: int) -> dict[str, np.ndarray]:
    """Features as arrays: {"x": ...}, or the three of a sparse matrix."""
    if x is None:
        return {}
    _check.unmasked("x", x)
    if isinstance(x, Tensor) and x.layout == torch.sparse_csr:
        parts = {"x_crow": x.crow_indices(), "x_col": x.col_indices(), "x_value": x.values()}
        if x.dtype == torch.bfloat16:
            parts["x_value"] = parts["x_value"].float()
        found = {key: value.detach().cpu().numpy() for key, value in parts.items()}
        shape = tuple(x.shape)
    elif isinstance(x, Tensor):
        if x.layout != torch.strided:
            _check.fail("x", f"dense or torch.sparse_csr [{nodes}, F]", x)
        x = x.detach().cpu()
        found = {"x": (x.float() if x.dtype in (torch.bfloat16, torch.float16) else x).numpy()}
        shape = tuple(x.shape)
    elif isinstance(x, np.ndarray):
        found, shape = {"x": x}, x.shape
    else:
        _check.fail_type("x", f"a tensor or an array [{nodes}, F]", x)
    if len(shape) != 2 or shape[0] != nodes:
        _check.fail("x", f"[{nodes}, F]", x)
    values = next(reversed(found.values()))
    if values.dtype not in (np.float16, np.float32, np.float64):
        _check.fail(
            "x", f"floating point [{nodes}, F]", x if isinstance(x, Tensor) else f"dtype {values.dtype}"
        )
    return found


def _labels(value: Any, nodes: int) -> np.ndarray:
    """Classes as int64, or targets."""
    found = _vector("y", value, nodes)
    if found.dtype.kind in "iu" and (not found.size or found.max() < 2**62):
        return found.astype(np.int64)
    if found.dtype not in (np.float16, np.float32, np.float64) or not np.isfinite(found).all():
        _check.fail("y", f"classes [{nodes}], integers, or finite floating-point targets", value)
    return found


def _array(name: str, value: Any) -> np.ndarray:
    _check.unmasked(name, value)
    try:
        return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"`{name}` must be a vector, got {_check.describe(value)}") from error


def _vector(name: str, value: Any, size: int) -> np.ndarray:
    found = _array(name, value)
    if found.shape != (size,):
        _check.fail(name, f"a vector [{size}]", value)
    return found


def _numbers(name: str, value: Any, nodes: int) -> np.ndarray:
    found = _array(name, value)
    expected = f"numbers of nodes from 0 to {nodes - 1}"
    if found.ndim != 1 or (found.size and not np.issubdtype(found.dtype, np.integer)):
        _check.fail(name, expected, value)
    if found.size and not 0 <= found.min() <= found.max() < nodes:
        _check.fail(name, expected, value)
    if len(np.unique(found)) != len(found):
        first, counts = np.unique(found, return_counts=True)
        raise ValueError(f"`{name}` must name a node once, got {first[counts > 1][0]} more than once")
    return found.astype(np.int64)


def hash_of(arrays: Mapping[str, np.ndarray | None], more: str) -> str:
    """A digest of arrays, their names, dtypes and shapes, and of a text."""
    state = hashlib.blake2b(more.encode(), digest_size=16)
    for key, value in arrays.items():
        if value is not None:
            state.update(f"{key} {value.dtype} {value.shape}".encode())
            for block in np.array_split(value, max(1, value.nbytes >> 24)):
                state.update(np.ascontiguousarray(block).view(np.uint8).data)
    return state.hexdigest()


def _write(place: Path, arrays: dict[str, np.ndarray], meta: dict[str, Any], part: int) -> None:
    place.mkdir()
    for key, value in arrays.items():
        value = np.ascontiguousarray(value)
        with _files.writing(place / f"{key}.npy") as file:
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(value))
            file.write(value.reshape(-1).view(np.uint8).data)
    facts = {"graph": meta["graph"], "id": meta["id"], "part": part}
    facts["shapes"] = {key: list(value.shape) for key, value in arrays.items()}
    facts["dtypes"] = {key: value.dtype.str for key, value in arrays.items()}
    _files.write_json(place / "part.json", facts, indent=None)


def _is_partition(folder: Path) -> bool:
    return (folder / META).is_file()
