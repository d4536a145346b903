"""A Graph from and to SciPy and NetworkX, without changing any number."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from amstel import _check
from amstel._optional import need

if TYPE_CHECKING:
    from amstel.graph import Graph


def from_scipy(A: Any) -> tuple[Any, Any, np.ndarray, int]:
    """indptr, indices, weights and number of columns of a SciPy sparse matrix or array."""
    if not hasattr(A, "tocsr") or not hasattr(A, "shape"):
        _check.fail_type("A", "a SciPy sparse matrix", A)
    if len(A.shape) != 2:
        _check.fail("A", "a matrix", A)
    csr = A.tocsr()
    return csr.indptr, csr.indices, _exact("A", csr.data), csr.shape[1]


def to_scipy(graph: Graph) -> Any:
    import scipy.sparse

    value = torch.ones(graph.num_edges) if graph._weight is None else graph.values(graph._weight.dtype)
    if value.dtype not in (torch.float32, torch.float64):
        value = value.float()
    arrays = [t.cpu().numpy() for t in (value, graph.col, graph.crow)]
    return scipy.sparse.csr_array(tuple(arrays), shape=(graph.num_rows, graph.num_cols))


def from_networkx(G: Any) -> tuple[Tensor, int, Tensor | None]:
    """edge_index, number of nodes and weights."""
    if not hasattr(G, "edges") or not hasattr(G, "is_directed"):
        _check.fail_type("G", "a NetworkX graph", G)
    number = {node: i for i, node in enumerate(G.nodes)}
    edges = [(number[u], number[v], data.get("weight")) for u, v, data in G.edges(data=True)]
    if not G.is_directed():
        edges += [(v, u, w) for u, v, w in edges if u != v]
    index = torch.tensor([e[:2] for e in edges], dtype=torch.int64).reshape(-1, 2).T
    weight = None
    if any(w is not None for _, _, w in edges):
        given = [1 if w is None else _weight_of_edge(w) for _, _, w in edges]
        weight = torch.from_numpy(_exact("weight", np.array(given, object)))
    return index, len(number), weight


def _square(graph: Graph, what: str) -> None:
    if not graph.is_square:
        raise ValueError(f"`{what}` needs as many sources as targets, got {graph!r}")


def to_networkx(graph: Graph) -> Any:
    _square(graph, "to_networkx")
    networkx = need("networkx", "graph", "Graph.to_networkx")
    index, weight = graph.to_edge_index()
    pairs = list(zip(*index.tolist(), strict=True))
    made = networkx.DiGraph() if len(set(pairs)) == len(pairs) else networkx.MultiDiGraph()
    made.add_nodes_from(range(graph.num_nodes))
    if weight is None:
        made.add_edges_from(pairs)
    else:
        values = weight.double().tolist()
        made.add_edges_from((u, v, {"weight": w}) for (u, v), w in zip(pairs, values, strict=True))
    return made


def to_pyg(graph: Graph) -> Any:
    _square(graph, "to_pyg")
    data = need("torch_geometric.data", "pyg", "Graph.to_pyg")
    if graph._offsets is not None:
        return data.Batch.from_data_list([to_pyg(one) for one in graph.unbatch()])
    index, weight = graph.to_edge_index()
    given = {} if weight is None else {"edge_weight": weight.clone()}
    return data.Data(edge_index=index, num_nodes=graph.num_nodes, **given)


def cuthill_mckee(graph: Graph) -> Tensor:
    """order [N], the old number of each new node."""
    import scipy.sparse.csgraph

    if not graph.num_nodes:  # SciPy's raises an error of NumPy
        return torch.empty(0, dtype=torch.int64, device=graph.device)
    order = scipy.sparse.csgraph.reverse_cuthill_mckee(scipy.sparse.csr_matrix(to_scipy(graph)))
    return torch.as_tensor(order.astype(np.int64), device=graph.device)


def falling_degree(graph: Graph) -> Tensor:
    """order [N] by the number of edges that leave a node; of as many, by number."""
    degree = torch.bincount(graph.col.long(), minlength=graph.num_nodes)
    return torch.argsort(degree, descending=True, stable=True)


def _weight_of_edge(value: Any) -> Any:
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, (float, np.floating)) and math.isnan(value):
        _check.fail("weight", "a number, not NaN, in the edge data", value)
    return (
        value
        if isinstance(value, (float, np.floating))
        else _check.integer("weight", value, expected="a number")
    )


def _exact(name: str, values: np.ndarray) -> np.ndarray:
    """The numbers as float32, or else as float64, whichever is exact; ValueError where neither is."""
    if values.dtype in (np.float32, np.float64):
        return np.asarray(values, values.dtype.newbyteorder("="))
    if values.dtype.kind not in "biufO":
        _check.fail(name, "of real numbers", f"dtype {values.dtype}")
    try:
        wide = values.astype(np.float64)
    except OverflowError:  # of Python's integers, which have any size
        raise ValueError(
            f"`{name}` must hold numbers that float64 holds exactly, got one beyond its range"
        ) from None
    if values.dtype.kind in "biu":
        doubtful = np.flatnonzero((values > 2**53) | (values < -(2**53)))
    elif values.dtype == object:
        doubtful = np.arange(len(values))
    else:
        doubtful = np.flatnonzero((wide != values) & (values == values))
    for k in doubtful:
        value = values[k : k + 1].tolist()[0]
        if value != float(wide[k]):  # as Python compares: exactly
            raise ValueError(
                f"`{name}` must hold numbers that float64 holds exactly, got {value!r} at position {k}"
            )
    narrow = wide.astype(np.float32)
    return narrow if np.array_equal(narrow, wide, equal_nan=True) else wide
