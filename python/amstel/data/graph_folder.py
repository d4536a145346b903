"""GraphFolder: a node-classification problem in a folder of memory-mapped .npy files.

The files of a graph of N nodes and E edges:

    graph.json                  name, sizes, and of every array the dtype and shape
    crow [N + 1], col [E]       the edges by their targets, CSR
    weight [E]                  where the graph has weights
    x [N, F]                    features, dense; or x_crow, x_col, x_value of a sparse matrix; or neither
    y [N]                       classes, int64, -1 where unknown
    train, val, test            numbers of nodes, int64
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amstel import _check, _files
from amstel.data.nodes import NodeData, as_csr
from amstel.graph import Graph

FACTS, FORMAT = "graph.json", "amstel graph 1"
_NEEDED = ("crow", "col", "y", "train", "val", "test")


class GraphFolder(NodeData):
    """A problem from a folder that `amstel graphs convert`, `convert_graph` or `GraphFolder.write` made.

    The graph is checked and copied to memory, in O(E). Features are memory-mapped, so only the rows that are needed are
    read: pass them to `amstel.data.NeighborLoader`.

    Args:
        root: the folder.

    Attributes: those of `NodeData`, and `root`.

    Raises:
        FileNotFoundError: there is no such folder, or a file of it is missing.
        ValueError: a file is not what graph.json says.

    Example:
        >>> folder = amstel.data.GraphFolder.write(amstel.data.block_model(nodes=400), "blocks")
        >>> amstel.data.GraphFolder(folder)
        GraphFolder(block model, num_nodes=400, num_edges=1566, num_features=300, num_classes=4)
    """

    def __init__(self, root: str | os.PathLike):
        if not isinstance(root, (str, os.PathLike)):
            _check.fail_type("root", "a path", root)
        self.root = folder = Path(root)
        facts = read_facts(folder)
        arrays = {name: _mapped(folder, name, *how) for name, how in facts["arrays"].items()}
        missing = [name for name in _NEEDED if name not in arrays]
        if missing:
            raise ValueError(
                f"{folder / FACTS} must name the arrays {', '.join(_NEEDED)}; {missing[0]} is missing"
            )
        try:
            own = {name: torch.from_numpy(np.array(arrays[name])) for name in _NEEDED[2:]}
            weight = arrays.get("weight")
            graph = Graph.from_csr(arrays["crow"], arrays["col"], weight, num_cols=facts["nodes"])
            super().__init__(
                name=facts["name"],
                graph=graph,
                features=_features(arrays, facts),
                labels=own["y"],
                train=own["train"],
                val=own["val"],
                test=own["test"],
                num_classes=facts["classes"],
            )
        except (TypeError, ValueError) as error:
            said = re.sub("`(train|val|test)`", r"\1.npy", str(error))
            raise ValueError(f"{folder} is damaged: {said}") from None

    @staticmethod
    def write(data: NodeData, folder: str | os.PathLike, force: bool = False) -> Path:
        """Write a problem as such a folder, which appears once it is complete; `force` replaces an existing one."""
        if not isinstance(data, NodeData):
            _check.fail_type("data", "an amstel.data.NodeData", data)
        if data.graph.device.type != "cpu":
            _check.fail("data", "on the CPU", data.graph)
        graph, x = data.graph, data.features
        arrays: dict[str, Any] = {"crow": graph._crow, "col": graph._col, "y": data.labels}
        if graph._weight is not None:
            arrays["weight"] = graph._values(graph._weight.dtype)
        if x is not None and x.layout == torch.strided:
            arrays["x"] = x
        elif x is not None:
            x = as_csr(x)
            arrays |= {"x_crow": x.crow_indices(), "x_col": x.col_indices(), "x_value": x.values()}
        arrays |= {part: getattr(data, part) for part in ("train", "val", "test")}
        width = None if x is None else x.shape[1]
        with replacing(folder, force) as target:
            written = {name: write_array(target, name, _plain(value)) for name, value in arrays.items()}
            write_facts(target, written, name=data.name, classes=data.num_classes, features=width)
        return Path(folder)


def _plain(value: Tensor) -> np.ndarray:
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).contiguous().numpy()


def _features(arrays: Mapping[str, np.ndarray], facts: dict[str, Any]) -> Tensor | None:
    if "x" in arrays:
        return torch.from_numpy(arrays["x"])
    parts = "x_crow", "x_col", "x_value"
    missing = [part for part in parts if part not in arrays]
    if len(missing) == 3:
        return None
    if missing:
        raise ValueError(f"{FACTS} must name {', '.join(parts)}, or none of them; {missing[0]} is missing")
    crow, col, value = (torch.from_numpy(arrays[part]) for part in parts)
    size = facts["nodes"], facts["features"]
    if type(size[1]) is not int or (col.numel() and int(col.max()) >= size[1]):
        above = int(col.max()) if col.numel() else 0
        raise ValueError(f'{FACTS}: "features" must be above {above}, as x_col has it, got {size[1]}')
    Graph.from_csr(crow, col, num_cols=size[1])  # checked, for whoever reads it without looking
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(crow.long(), col.long(), value, size, check_invariants=False)


def is_folder(path: Path) -> bool:
    """Whether such a folder is at `path`."""
    return (path / FACTS).is_file()


def read_facts(folder: Path) -> dict[str, Any]:
    """What graph.json holds."""
    if not folder.is_dir():
        raise FileNotFoundError(f"GraphFolder: the folder {folder} does not exist")
    file = folder / FACTS
    if not file.is_file():
        raise FileNotFoundError(
            f"GraphFolder: {folder} holds no graph: {FACTS} is missing (amstel graphs convert makes it)"
        )
    try:
        facts = json.loads(file.read_bytes())
        known = facts["format"] == FORMAT and isinstance(facts["name"], str)
        known &= all(type(facts[key]) is int and facts[key] >= 0 for key in ("nodes", "edges"))
        known &= {"classes", "features"} <= facts.keys()
        for name, (dtype, shape) in facts["arrays"].items():
            known &= name.replace("_", "").isalpha() and all(type(n) is int and n >= 0 for n in shape)
            np.dtype(dtype)
        if not known:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, SyntaxError, RecursionError):
        raise ValueError(f"GraphFolder: {file} is not the {FACTS} of a graph") from None
    _files.check_widths(file, facts)
    for key, name, dim, more in (("nodes", "crow", 0, 1), ("edges", "col", 0, 0), ("features", "x", 1, 0)):
        shape = facts["arrays"].get(name, ("", []))[1]
        if len(shape) > dim and facts[key] != shape[dim] - more:
            of = f"as {name} is {shape}"
            raise ValueError(f'{file}: "{key}" must be {shape[dim] - more}, {of}, got {facts[key]}')
    return facts


def _mapped(folder: Path, name: str, dtype: str, shape: list[int]) -> np.ndarray:
    file = folder / f"{name}.npy"
    if not file.is_file():
        raise FileNotFoundError(f"GraphFolder: {file} is missing")
    try:
        found = np.load(file, mmap_mode="c", allow_pickle=False)
    except _files.DAMAGED_ARRAY as error:
        raise ValueError(f"GraphFolder: {file} cannot be read: {error}") from None
    if list(found.shape) != shape or found.dtype.str != dtype:
        raise ValueError(
            f"GraphFolder: {file} must hold {np.dtype(dtype)} {shape}, got {found.dtype} {list(found.shape)}"
        )
    return np.asarray(found)


# ---- For those who write such folders


def replacing(folder: str | os.PathLike, force: bool) -> Any:
    """A folder to write to, which takes the place of `folder` in the end."""
    if not isinstance(folder, (str, os.PathLike)):
        _check.fail_type("folder", "a path", folder)
    return _files.replacing_folder(Path(folder), _check.flag("force", force), is_folder, "graph")


def write_array(folder: Path, name: str, values: np.ndarray) -> tuple[str, list[int]]:
    """An array as a file; its dtype and shape for graph.json."""
    step = max(1, (1 << 26) // max(1, values[:1].nbytes))
    parts = (values[k : k + step] for k in range(0, len(values), step))
    return write_blocks(folder, name, values.shape, values.dtype, parts)


def write_blocks(
    folder: Path, name: str, shape: tuple[int, ...], dtype: Any, blocks: Iterator[np.ndarray]
) -> tuple[str, list[int]]:
    """An array as a file, from blocks of its rows, in memory for one of them."""
    path = folder / f"{name}.npy"
    with _files.writing(path) as file:
        facts = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": tuple(map(int, shape))}
        np.lib.format.write_array_header_1_0(file, facts)
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype).reshape(-1).view(np.uint8).data)
    return facts["descr"], list(facts["shape"])


def write_facts(folder: Path, arrays: Mapping[str, Any], **facts: Any) -> dict[str, Any]:
    """graph.json, last of all."""
    crow, col = arrays["crow"][1], arrays["col"][1]
    written = {"format": FORMAT, "nodes": crow[0] - 1, "edges": col[0], **facts, "arrays": dict(arrays)}
    with _files.writing(folder / FACTS) as file:
        file.write((json.dumps(written, indent=1) + "\n").encode())
    return written
