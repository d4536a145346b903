"""Graph: an immutable sparse matrix in CSR form, with what the operators derive from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from amstel import _check, _library


def inverse_or_zero(x: Tensor) -> Tensor:
    """1 / x where x > 0, else 0."""
    return torch.where(x > 0, x.reciprocal(), torch.zeros_like(x))


def _csr_from_coo(
    row: Tensor, col: Tensor, rows: int, cols: int, weight: Tensor | None
) -> tuple[Tensor, ...]:
    try:
        return _library.operators.csr_from_coo(row, col, rows, cols, weight)
    except RuntimeError as error:
        raise ValueError(f"Graph: {error}") from None


class Graph:
    """A graph or, more generally, a sparse matrix A [num_rows, num_cols]: row = target, column = source.

    Make one with `from_edge_index`, `from_csr`, `from_scipy` or `from_networkx`; all of them check
    their input in O(E) and raise a ValueError that shows the first bad position. A Graph never
    changes. Its transpose, degrees and normalisation factors are computed at the first use and kept,
    so one Graph should serve all layers and all epochs. Parallel edges add up and are not merged.

    Attributes:
        crow, col: the CSR structure, int32 where it fits, else int64; slots of a row keep the order
            in which the edges were given.
        edge: for each slot the position of its edge in the list that was given, None if the same.
        weight: weights of the edges in the order given, or None.

    Example:
        >>> import torch, amstel
        >>> graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 2], [1, 2, 0]]))
        >>> graph
        Graph(num_nodes=3, num_edges=3)
    """

    def __init__(self, crow: Tensor, col: Tensor, edge: Tensor | None, weight: Tensor | None, num_cols: int):
        # Not for users: takes what the constructors below have checked.
        self.crow = crow
        self.col = col
        self.edge = edge
        self.weight = weight
        self.num_rows = crow.shape[0] - 1
        self.num_cols = num_cols
        self.device = crow.device
        self._transposed: tuple[Tensor, Tensor, Tensor] | None = None
        self._values: dict[Any, Tensor] = {}
        self._degrees: dict[Any, Tensor] = {}
        self._scales: dict[Any, tuple[Tensor | None, Tensor | None]] = {}

    # Constructors

    @classmethod
    def from_edge_index(
        cls, edge_index: Tensor, num_nodes: int | None = None, edge_weight: Tensor | None = None
    ) -> Graph:
        """From `edge_index` [2, E], int32 or int64: row 0 holds the sources, row 1 the targets.

        `num_nodes` defaults to the largest index + 1. `edge_weight` [E] is floating point.
        """
        expected = "an int32 or int64 tensor [2, E]"
        _check.tensor("edge_index", edge_index, expected)
        if (
            edge_index.dim() != 2
            or edge_index.shape[0] != 2
            or edge_index.dtype not in (torch.int32, torch.int64)
        ):
            _check.fail("edge_index", expected, edge_index)
        if num_nodes is None:
            num_nodes = int(edge_index.max()) + 1 if edge_index.numel() else 0
        elif not isinstance(num_nodes, (int, np.integer, torch.SymInt)) or num_nodes < 0:
            _check.fail("num_nodes", "an integer >= 0", num_nodes)
        weight = _own_weight(edge_weight, edge_index.shape[1], edge_index.device)
        source, target = edge_index[0].contiguous(), edge_index[1].contiguous()
        crow, col, edge = _csr_from_coo(target, source, max(num_nodes, 0), max(num_nodes, 0), weight)
        return cls(crow, col, edge, weight, num_nodes)

    @classmethod
    def from_csr(cls, indptr: Any, indices: Any, weight: Any = None, num_cols: int | None = None) -> Graph:
        """From CSR arrays (tensors or NumPy): row = target, column = source.

        `num_cols` defaults to the number of rows; give it for a rectangular (bipartite) graph.
        """
        indptr, indices = torch.as_tensor(indptr), torch.as_tensor(indices)
        for name, value in (("indptr", indptr), ("indices", indices)):
            if value.dim() != 1 or value.dtype not in (torch.int32, torch.int64):
                _check.fail(name, "a vector of int32 or int64", value)
        if indptr.numel() == 0:
            _check.fail("indptr", "[rows + 1], at least [0]", indptr)
        if indices.device != indptr.device:
            _check.fail("indices", f"on {indptr.device} like indptr", indices)
        rows, edges = indptr.numel() - 1, indices.numel()
        if num_cols is None:
            num_cols = rows
        elif not isinstance(num_cols, (int, np.integer)) or num_cols < 0:
            _check.fail("num_cols", "an integer >= 0", num_cols)
        weight = _own_weight(weight, edges, indptr.device)
        # Copies, so that nobody can change a checked index afterwards.
        if indptr.dtype != indices.dtype:
            indptr = indptr.long()
            indices = indices.long()
        try:
            _library.operators.csr_check(indptr.contiguous(), indices.contiguous(), weight, int(num_cols))
        except RuntimeError as error:
            raise ValueError(f"Graph: {error}") from None
        dtype = torch.int32 if max(rows, int(num_cols), edges) < 2**31 - 1 else torch.int64
        crow, col = (t.to(dtype, copy=True).contiguous() for t in (indptr, indices))
        return cls(crow, col, None, weight, int(num_cols))

    @classmethod
    def from_scipy(cls, A: Any) -> Graph:
        """From a SciPy sparse matrix or array with A[target, source]; its values are the weights."""
        csr = A.tocsr()
        values = csr.data if csr.data.dtype in (np.float32, np.float64) else csr.data.astype(np.float32)
        return cls.from_csr(csr.indptr, csr.indices, values, num_cols=csr.shape[1])

    @classmethod
    def from_networkx(cls, G: Any) -> Graph:
        """From a NetworkX graph, nodes in its own order; the edge attribute "weight" where there is one.

        An undirected graph gives both directions of every edge.
        """
        number = {node: i for i, node in enumerate(G.nodes)}
        edges = [(number[u], number[v], data.get("weight")) for u, v, data in G.edges(data=True)]
        if not G.is_directed():
            edges += [(v, u, w) for u, v, w in edges if u != v]
        index = torch.tensor([e[:2] for e in edges], dtype=torch.int64).reshape(-1, 2).T
        weight = None
        if any(w is not None for _, _, w in edges):
            weight = torch.tensor([1.0 if w is None else float(w) for _, _, w in edges])
        return cls.from_edge_index(index, num_nodes=len(number), edge_weight=weight)

    # Facts

    @property
    def num_nodes(self) -> int:
        """Number of target nodes (rows)."""
        return self.num_rows

    @property
    def num_edges(self) -> int:
        return self.col.shape[0]

    @property
    def is_square(self) -> bool:
        return self.num_rows == self.num_cols

    def __repr__(self) -> str:
        sources = "" if self.is_square else f", num_sources={self.num_cols}"
        weight = "" if self.weight is None else ", weighted"
        device = "" if self.device.type == "cpu" else f", device={self.device}"
        return f"Graph(num_nodes={self.num_rows}{sources}, num_edges={self.num_edges}{weight}{device})"

    # Conversions

    def to(self, device: Any) -> Graph:
        """The same graph on another device (itself if it is there); derived data is made anew."""
        if torch.device(device) == self.device:
            return self
        edge, weight = (None if t is None else t.to(device) for t in (self.edge, self.weight))
        return Graph(self.crow.to(device), self.col.to(device), edge, weight, self.num_cols)

    def to_edge_index(self) -> tuple[Tensor, Tensor | None]:
        """`edge_index` [2, E] int64 and the weights, in the order in which the edges were given."""
        counts = self.crow.diff().long()
        target = torch.repeat_interleave(torch.arange(self.num_rows, device=self.device), counts)
        index = torch.stack([self.col.long(), target])
        if self.edge is not None:
            ordered = torch.empty_like(index)
            ordered[:, self.edge.long()] = index
            index = ordered
        return index, self.weight

    def to_scipy(self) -> Any:
        """The matrix A[target, source] as a SciPy CSR array; weights default to 1, parallel edges stay."""
        import scipy.sparse

        value = torch.ones(self.num_edges) if self.weight is None else self.values(self.weight.dtype)
        if value.dtype not in (torch.float32, torch.float64):
            value = value.float()
        arrays = [t.cpu().numpy() for t in (value, self.col, self.crow)]
        return scipy.sparse.csr_array(tuple(arrays), shape=(self.num_rows, self.num_cols))

    def reorder(self) -> tuple[Graph, Tensor]:
        """Renumber the nodes for locality (reverse Cuthill-McKee, SciPy).

        Returns the new graph and `order` [N]: node i of the new graph is node order[i] of this one,
        so that features become `x[order]`. Edges keep the order in which they were given.
        """
        import scipy.sparse.csgraph

        if not self.is_square:
            raise ValueError(f"`reorder` needs as many sources as targets, got {self!r}")
        pattern = self.to_scipy()
        order = scipy.sparse.csgraph.reverse_cuthill_mckee(scipy.sparse.csr_matrix(pattern))
        order = torch.as_tensor(order.astype(np.int64), device=self.device)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(order.numel(), device=self.device)
        index, weight = self.to_edge_index()
        return Graph.from_edge_index(rank[index], self.num_rows, weight), order

    # Derived, computed once

    def transposed(self) -> tuple[Tensor, Tensor, Tensor]:
        """crow, col and edge of the transposed matrix; a symmetric graph shares its own crow and col."""
        if self._transposed is None:
            crow, col, edge = _library.operators.csr_transpose(self.crow, self.col, self.edge, self.num_cols)
            # A data-dependent choice, so not while tracing; there it only costs memory.
            if not torch.compiler.is_compiling() and self.is_square:
                if torch.equal(crow, self.crow) and torch.equal(col, self.col):
                    crow, col = self.crow, self.col
            if not _is_real(crow):
                return crow, col, edge
            self._transposed = (crow, col, edge)
        return self._transposed

    def values(self, dtype: torch.dtype, transposed: bool = False) -> Tensor:
        """The own weights as `dtype`, in the order of the slots."""
        assert self.weight is not None
        key = (dtype, transposed)
        if key not in self._values:
            edge = self.transposed()[2] if transposed else self.edge
            value = self.weight.to(dtype)
            value = value if edge is None else value[edge.long()]
            if not _is_real(value):
                return value
            self._values[key] = value
        return self._values[key]

    def degree(self, dtype: torch.dtype, out: bool = False) -> Tensor:
        """Sum of the own weights (the number of edges without) into each target, or out of each source."""
        key = (dtype, out)
        if key not in self._degrees:
            crow = self.transposed()[0] if out else self.crow
            if self.weight is None:
                degree = crow.diff().to(dtype)
            else:
                degree = _library.operators.edge_sum(crow, None, self.values(dtype, transposed=out), None)
            if not _is_real(degree):
                return degree
            self._degrees[key] = degree
        return self._degrees[key]

    def scales(self, norm: str, self_loops: float, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
        """Factors of the rows and of the columns under `norm`, for sums in `dtype`."""
        key = (norm, self_loops, dtype)
        if key not in self._scales:
            scales = factors(norm, lambda out: self.degree(dtype, out) + self_loops)
            if not _is_real(scales[0]):
                return scales
            self._scales[key] = scales
        return self._scales[key]


def _is_real(value: Tensor | None) -> bool:
    """Whether a derived tensor may be kept: not if it is the stand-in of a tracer such as torch.export."""
    return value is None or type(value) is Tensor


def factors(norm: str, degree: Any) -> tuple[Tensor | None, Tensor | None]:
    """Row and column factors of a normalisation from `degree(out)`; degree <= 0 gives 0.

    Square root and division are exactly rounded, so the bits never depend on the number of threads.
    """
    if norm == "none":
        return None, None
    if norm == "row":
        return inverse_or_zero(degree(False)), None
    row = inverse_or_zero(degree(False).clamp(min=0).sqrt())
    if norm == "sym":
        return row, row
    return row, inverse_or_zero(degree(True).clamp(min=0).sqrt())


def _own_weight(weight: Any, edges: int, device: torch.device) -> Tensor | None:
    if weight is None:
        return None
    weight = torch.as_tensor(weight)
    if weight.shape != (edges,) or weight.dtype not in _check.FLOATS or weight.device != device:
        _check.fail("edge_weight", f"a floating-point tensor [{edges}] on {device}", weight)
    return weight.detach().clone().contiguous()
