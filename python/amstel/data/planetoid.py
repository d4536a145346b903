"""Planetoid: reads the raw files of the citation and knowledge graphs of Yang et al. and Kipf & Welling."""

from __future__ import annotations

import functools
import inspect
import operator
import os
import pickle
import re
from collections import defaultdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from amstel import _check, _files
from amstel._text import SINGLE, table
from amstel._words import counted
from amstel.data.nodes import NodeData, sparse_csr
from amstel.graph import Graph


class _Csr:
    """What SciPy pickles of a csr_matrix, so that reading needs no SciPy and runs none of its code."""

    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray
    shape: tuple[int, int]

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict) or not {"indptr", "indices", "data"} <= state.keys():
            raise pickle.UnpicklingError("a csr_matrix without indptr, indices and data")
        self.indptr, self.indices, self.data = (state[key] for key in ("indptr", "indices", "data"))
        shape: Any = tuple(operator.index(n) for n in state.get("_shape") or state.get("shape") or ())
        self.shape = shape


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """_codecs.encode, with which Python 3 writes bytes in the protocols before 3."""
    return text.encode("latin1" if encoding == "latin1" else "ascii")


def _new_csr(kind: type, base: type, state: Any) -> _Csr:
    """copyreg._reconstructor, for the one class that these files hold."""
    if kind is not _Csr or base is not object or state is not None:
        raise pickle.UnpicklingError("an object that is not a csr_matrix")
    return _Csr()


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """NumPy's _frombuffer, with which protocol 5 makes arrays of numbers."""
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


class _Unpickler(pickle.Unpickler):
    """Knows the names that these files use, in every protocol; any other name in a file ends the reading."""

    _allowed: ClassVar[dict[str, Any]] = {
        **{
            f"scipy.sparse.{module}.{name}": _Csr
            for module in ("csr", "_csr")
            for name in ("csr_matrix", "csr_array")
        },
        "collections.defaultdict": defaultdict,
        **{
            f"{module}.{kind.__name__}": kind
            for module in ("__builtin__", "builtins")
            for kind in (list, set)
        },
        **{f"{module}.object": object for module in ("__builtin__", "builtins")},
        **{f"{module}._reconstructor": _new_csr for module in ("copy_reg", "copyreg")},
        "_codecs.encode": _encode,
        "numpy.ndarray": np.ndarray,
        "numpy.dtype": np.dtype,
        **{
            f"numpy.{core}.multiarray.{name}": function
            for core in ("core", "_core")
            for name, function in (
                ("_reconstruct", np.empty(0).__reduce__()[0]),
                ("scalar", np.int64(0).__reduce__()[0]),
            )
        },
        **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            found = self._allowed[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"refused to load {module}.{name}") from None
        # A pickle may set attributes of what it loads: of a function of this module only on its own copy.
        return functools.partial(found) if inspect.isfunction(found) else found


def _load(path: Path, kind: type) -> Any:
    """The one object in a pickle, of Python 2 or 3, which must be of `kind`."""
    if path.is_dir():
        raise IsADirectoryError(f"Planetoid: {path} is a folder; it should be a file")
    if not path.exists():
        raise FileNotFoundError(f"Planetoid: {path} is missing")
    try:
        with path.open("rb") as file:
            value = _Unpickler(file, encoding="latin1").load()
    except OSError as error:
        raise type(error)(f"Planetoid: {path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # a broken pickle raises nearly anything
        raise ValueError(f"Planetoid: {path} is not a file of this data set: {error}") from None
    if kind is dict:
        fits = isinstance(value, dict)
    elif kind is np.ndarray:
        fits = isinstance(value, np.ndarray) and value.ndim == 2 and value.dtype.kind in "biuf"
    else:
        arrays = [getattr(value, name, None) for name in ("indptr", "indices", "data")]
        fits = isinstance(value, _Csr) and all(
            isinstance(a, np.ndarray) and a.ndim == 1 and a.dtype.kind in "biuf" for a in arrays
        )
    if not fits:
        what = value.shape if isinstance(value, np.ndarray) else ""
        raise ValueError(f"Planetoid: {path} holds a {type(value).__name__} {what}, not what belongs there")
    return value


def _rows(matrix: _Csr, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row and column of every non-zero, and its value, checked."""
    given = matrix.data
    if given.dtype.kind in "iu" and (beyond := (given > 2**24) | (given < -(2**24))).any():
        raise ValueError(f"Planetoid: {path} must hold {SINGLE}, got {given[beyond][0]}")
    with np.errstate(over="ignore"):
        values = matrix.data.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"Planetoid: {path} must hold finite numbers, got {values[~np.isfinite(values)][0]}")
    try:
        Graph.from_csr(matrix.indptr, matrix.indices, values, num_cols=matrix.shape[1])
    except (TypeError, ValueError) as error:
        raise ValueError(f"Planetoid: {path}: {error}") from None
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return row, matrix.indices.astype(np.int64), values


def _width(matrix: _Csr, path: Path) -> tuple[int, int]:
    if len(matrix.shape) != 2 or min(matrix.shape) < 0 or len(matrix.indptr) != matrix.shape[0] + 1:
        raise ValueError(
            f"Planetoid: {path} has shape {matrix.shape} but {counted(len(matrix.indptr), 'row pointer')}"
        )
    return matrix.shape


def _classes(one_hot: np.ndarray, path: Path) -> np.ndarray:
    """The class of each row, -1 for a row of zeros."""
    if not np.isin(one_hot, (0, 1)).all() or (one_hot.sum(1) > 1).any():
        raise ValueError(f"Planetoid: {path} must hold at most one 1 a row and zeros")
    if one_hot.shape[1] == 0:
        return np.full(len(one_hot), -1)
    return np.where(one_hot.any(1), one_hot.argmax(1), -1)


def is_name(name: str) -> bool:
    """Whether it may be part of the names of files, and matches no others."""
    return bool(name) and not re.search(r"[/\\\0*?\[\]]", name)


class Planetoid(NodeData):
    """Cora, Citeseer, PubMed or NELL, from the files `ind.<name>.*` of Kipf's and Planetoid's repositories.

    The split is the public one of Yang et al.: the first len(y) nodes are for training (20 per class in the citation
    graphs), the next 500 for validation, and those in `test.index` for testing. The files are Python-2 pickles, read
    by an unpickler that only accepts the arrays in them.

    As in Kipf's loader, test nodes within the graph's numbering that the test files lack (Citeseer has 15) get zero
    features and no label. In NELL, the nodes after the entities are relations; each gets one feature of its own, which
    makes 61,278. Without `ally` (NELL is often distributed without it), only training and test labels are known, and
    `val` is empty.

    Args:
        root: folder of the files; default: `planetoid` in the folder that AMSTEL_DATA names.
        name: "cora", "citeseer", "pubmed", "nell" (which reads `ind.nell.0.001.*`) or any other such name.
        normalize: divide each row of features by its sum, as Kipf does.

    Attributes:
        graph: symmetric `Graph`; parallel citations count once, and loops in the data are kept.
        features: torch.sparse_csr [N, num_features], float32.
        labels: int64 [N], -1 where unknown.
        train, val, test: int64 vectors of node indices.
        num_classes, num_features, num_nodes: sizes.

    Raises:
        FileNotFoundError: a file is missing; the message names it.
        ValueError: a file does not hold what it should, or there is no root.

    Source: Z. Yang, W. Cohen and R. Salakhutdinov, Revisiting Semi-Supervised Learning with Graph
    Embeddings, ICML 2016; T. N. Kipf and M. Welling, ICLR 2017, section 5.1.

    Example:
        >>> data = amstel.data.Planetoid("data/planetoid", "cora")
        >>> data                                                            # doctest: +SKIP
        Planetoid(cora, num_nodes=2708, num_edges=10556, num_features=1433, num_classes=7)
    """

    def __init__(self, root: str | os.PathLike | None = None, name: str = "cora", normalize: bool = True):
        if root is None:
            if "AMSTEL_DATA" not in os.environ:
                raise ValueError("Planetoid: give `root`, the folder of the ind.* files, or set AMSTEL_DATA")
            root = Path(os.environ["AMSTEL_DATA"]) / "planetoid"
        if not isinstance(root, (str, os.PathLike)):
            _check.fail_type("root", "a path", root)
        if not isinstance(name, str):
            _check.fail_type("name", "the name of a data set", name)
        normalize = _check.flag("normalize", normalize)
        if not is_name(name):
            _check.fail("name", "the name of a data set, such as 'cora'", name)
        root, name = Path(root), name.lower()
        if not root.is_dir():
            raise FileNotFoundError(f"Planetoid: the folder {root} does not exist")
        stem = "nell.0.001" if name == "nell" else name
        if not any(root.glob(f"ind.{stem}.*")):
            there = sorted({p.name.split(".")[1] for p in root.glob("ind.*.*")})
            raise FileNotFoundError(
                f"Planetoid: no files ind.{stem}.* in {root}; there are {there or 'none at all'}"
            )

        def path(part: str) -> Path:
            return root / f"ind.{stem}.{part}"

        neighbors = _load(path("graph"), dict)
        y, ty = _load(path("y"), np.ndarray), _load(path("ty"), np.ndarray)
        allx, tx = _load(path("allx"), _Csr), _load(path("tx"), _Csr)
        test = table(path("test.index"), np.int64, 1, reader="Planetoid")[:, 0]
        relations = stem.startswith("nell")
        ally = None if relations and not _files.there(path("ally")) else _load(path("ally"), np.ndarray)

        known, num_features = _width(allx, path("allx"))
        tests, width = _width(tx, path("tx"))
        for part, value in [("y", y), ("ty", ty)] + ([] if ally is None else [("ally", ally)]):
            if value.shape[1] != y.shape[1]:
                raise ValueError(f"Planetoid: {path(part)} must be [nodes, classes], got {list(value.shape)}")
        if not len(ty) == tests == len(test):
            raise ValueError(
                f"Planetoid: ty, tx and test.index of {stem} must have the same length, "
                f"got {len(ty)}, {tests} and {len(test)}"
            )
        if len(np.unique(test)) != len(test):
            raise ValueError(f"Planetoid: {path('test.index')} must name a node once, got one more than once")
        if width != num_features or (test < known).any():
            raise ValueError(f"Planetoid: tx or test.index of {stem} does not fit allx {list(allx.shape)}")
        # Far beyond the nodes that the files have: a damaged number, not a graph of that size.
        if (test >= 2 * (known + len(test) + len(neighbors))).any():
            raise ValueError(f"Planetoid: {path('test.index')} has node {test.max()}, beyond the graph")
        if len(y) > known or (ally is not None and len(ally) != known):
            raise ValueError(f"Planetoid: y or ally of {stem} does not fit allx {list(allx.shape)}")
        num_nodes = max(known, len(neighbors), int(test.max(initial=-1)) + 1)

        row, col, value = _rows(allx, path("allx"))
        row_t, col_t, value_t = _rows(tx, path("tx"))
        triples = [(row, col, value), (test[row_t], col_t, value_t)]
        if relations:
            # Every node that is not an entity is told from the others by a feature of its own.
            others = np.setdiff1d(np.arange(known, num_nodes), test)
            triples.append((others, num_features + np.arange(len(others)), np.ones(len(others), np.float32)))
            num_features += len(others)
        row, col, value = (np.concatenate(part) for part in zip(*triples, strict=True))
        if normalize:
            total = np.bincount(row, weights=value, minlength=num_nodes)[row]
            value = np.divide(value, total, out=np.zeros_like(value), where=total != 0)

        labels = np.full(num_nodes, -1, dtype=np.int64)
        for nodes, one_hot, part in (
            (np.arange(len(y)), y, "y"),
            (np.arange(known), ally, "ally"),
            (test, ty, "ty"),
        ):
            if one_hot is not None:
                labels[nodes] = _classes(one_hot, path(part))
        val = torch.arange(len(y), min(len(y) + 500, known)) if ally is not None else torch.arange(0)
        graph = _symmetric(neighbors, num_nodes, path("graph"))
        try:
            super().__init__(
                name=name,
                graph=graph,
                features=sparse_csr(row, col, value, (num_nodes, num_features)),
                labels=torch.from_numpy(labels),
                train=torch.arange(len(y)),
                val=val,
                # Kipf's order; the order of the file has no meaning for a score.
                test=torch.from_numpy(np.sort(test)),
                num_classes=y.shape[1],
            )
        except ValueError as error:
            raise ValueError(
                f"Planetoid: the files ind.{stem}.* in {root} do not fit together: {error}"
            ) from None


def _symmetric(neighbors: dict[Any, Any], num_nodes: int, path: Path) -> Graph:
    """The graph of the lists of neighbors, both ways, each edge once."""
    wrong = ValueError(f"Planetoid: {path} must map node numbers to lists of node numbers")
    if not all(isinstance(near, (list, tuple, set, np.ndarray)) for near in neighbors.values()):
        raise wrong
    count = [len(near) for near in neighbors.values()]
    ends = [list(neighbors), [j for near in neighbors.values() for j in near]]
    # A number that is rounded to a node is not that node.
    if not all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for end in ends for n in end):
        raise wrong
    try:
        source, target = np.repeat(np.array(ends[0], np.int64), count), np.array(ends[1], np.int64)
    except OverflowError:
        raise ValueError(f"Planetoid: {path} has node numbers outside 0..{num_nodes - 1}") from None
    for end in (source, target):
        if end.size and not 0 <= end.min() <= end.max() < num_nodes:
            raise ValueError(f"Planetoid: {path} has node numbers outside 0..{num_nodes - 1}")
    key = np.unique(np.concatenate([source * num_nodes + target, target * num_nodes + source]))
    index: Tensor = torch.from_numpy(np.stack([key // num_nodes, key % num_nodes]))
    return Graph.from_edge_index(index, num_nodes=num_nodes)
