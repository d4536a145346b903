"""SampledGraph: one layer of a sampled batch. It stands for some rows of a larger graph, and is normalized by its degrees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from amstel._derived import factors, plainly
from amstel.graph import Graph


class SampledGraph(Graph):
    """Some rows of a graph with a sample of their edges: a rectangular Graph from n sources to m targets, which are
    the first m of the sources.

    `amstel.nn.GCNConv` and `amstel.ops.spmm` accept it instead of a Graph, with x [n, F] or a pair (x, x[:m]), and
    return [m, F'] as they would on the whole graph: norms use the degrees of the whole graph, self-loops are those of
    the targets, and each edge is weighted by the number of edges it stands for. The result of a linear layer is
    therefore unbiased, and exact if no edge was left out. The weights belong to the sample: `edge_weight` must be None.

    Loaders such as `amstel.data.NeighborLoader` create it; otherwise it behaves like a Graph. Its weights are those of
    the whole graph times the number of edges that each edge stands for, in at least float32; if no edge was left out,
    they are those of the whole graph.

    Attributes:
        nodes: indices of the sources in the whole graph, int64 [n], a copy; the targets are the first m.
        edge_ids: for every edge, its position in the edge list of the whole graph, int64 [E], a copy. For a graph in
            parts, which does not have these, reading it raises a ValueError.

    Example:
        >>> graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 2, 3], [1, 0, 1, 1]]))
        >>> batch = next(iter(amstel.data.NeighborLoader(graph, fanouts=[-1], seeds=[1], batch_size=1)))
        >>> batch.layers[0], batch.layers[0].nodes.tolist()
        (SampledGraph(num_nodes=1, num_sources=4, num_edges=3), [1, 0, 2, 3])
        >>> y = amstel.ops.spmm(batch.layers[0], torch.eye(4)[batch.nodes])
        >>> torch.allclose(y, amstel.ops.spmm(graph, torch.eye(4))[1])
        True
    """

    _nodes: Tensor
    _slots: Tensor | None
    _in_degree: Tensor
    _out_degree: Tensor | None
    _whole: Graph | None
    _products: dict[Any, Graph]

    def __init__(self, *_: Any, **__: Any):
        raise TypeError("a SampledGraph is made by a loader, such as amstel.data.NeighborLoader")

    @classmethod
    def _of(
        cls,
        whole: Graph,
        arrays: tuple[Tensor, Tensor, Tensor],
        scale: Tensor | None,
        nodes: Tensor,
        in_degree: Tensor,
    ) -> SampledGraph:
        """From crow, col and slot of a sample of `whole`, and by what its edges are scaled, float64 or None."""
        crow, col, slot = arrays
        weight = None if scale is None else scale.float()
        if whole._weight is not None:
            weight = whole._values(whole._weight.dtype)[slot.long()]
            if scale is not None:  # the product may be beyond float16
                weight = (weight * scale).to(torch.promote_types(weight.dtype, torch.float32))
        graph: Any = cls._trusted(crow, col, None, weight, len(nodes))
        graph._nodes, graph._slots, graph._in_degree, graph._whole = nodes, slot, in_degree, whole
        graph._out_degree = None
        return graph

    @classmethod
    def _apart(
        cls, crow: Tensor, col: Tensor, weight: Tensor, nodes: Tensor, degrees: Tensor
    ) -> SampledGraph:
        """From a sample of a graph that is nowhere whole; degrees [n, 2], in and out, float64."""
        graph: Any = cls._trusted(crow, col, None, weight, len(nodes))
        graph._nodes, graph._slots, graph._whole = nodes, None, None
        graph._in_degree, graph._out_degree = degrees.T.contiguous()
        return graph

    def _set(self, *arguments: Any) -> None:
        super()._set(*arguments)
        self._is_sampled = True
        self._products = {}

    def __repr__(self) -> str:
        # Sources are told apart from targets even where there are as many.
        return super().__repr__().replace("Graph(", "SampledGraph(", 1)

    @property
    def nodes(self) -> Tensor:
        """Indices of the sources in the whole graph [n], a copy."""
        return self._nodes.clone()

    @property
    def edge_ids(self) -> Tensor:
        """Positions of the edges in the edge list of the whole graph [E], a copy."""
        if self._slots is None:
            raise ValueError("`edge_ids` are not known for a graph in parts")
        slot = self._slots.long()
        edge = None if self._whole is None else self._whole._edge
        return slot if edge is None else edge[slot.to(edge.device)].long().to(slot.device)

    # What the layers ask for

    def _degree_there(self, dtype: torch.dtype, out: bool) -> Tensor:
        """The degrees that the sources have in the whole graph."""
        if not out:
            return self._in_degree.to(dtype)
        if self._out_degree is None:
            whole = self._whole
            assert whole is not None
            nodes = self._nodes.to(whole.device)
            self._out_degree = plainly(lambda: whole._degree(torch.float64, True)[nodes]).to(self.device)
        return self._out_degree.to(dtype)

    def _factors_there(
        self, norm: str, dtype: torch.dtype, make: Callable[..., Any], loops: Any
    ) -> tuple[Tensor | None, Tensor | None]:
        """Factors of the targets and of the sources in the whole graph."""
        row, col = make(norm, lambda out: self._degree_there(dtype, out) + loops)
        return None if row is None else row[: self.num_rows], col

    def _product(self, norm: str, self_loops: float, dtype: torch.dtype) -> Graph:
        """The plain rectangular Graph R (A + λ I) C of this sample, for sums in `dtype`; kept."""
        key = norm, self_loops, dtype
        found = self._products.get(key)
        if found is not None and not torch.compiler.is_compiling():
            return found
        row, col = self._factors_there(norm, dtype, factors, self_loops)
        m, crow, source = self.num_rows, self._crow, self._col
        target = torch.repeat_interleave(
            torch.arange(m, device=self.device), crow.diff().long(), output_size=self.num_edges
        )
        weight = None if self._weight is None else self._weight.to(dtype)
        if row is not None:
            weight = row[target] if weight is None else weight * row[target]
        if col is not None:
            assert weight is not None
            weight = weight * col[source.long()]
        if self_loops != 0:
            # A loop in front of the edges of each row.
            ones = self._in_degree.new_ones(m, dtype=dtype)
            loop = self_loops * (ones if row is None else row * (1 if col is None else col[:m]))
            every = torch.arange(m + 1, device=self.device, dtype=crow.dtype)
            starts = crow + every
            place = torch.arange(self.num_edges, device=self.device) + target + 1
            edges = ones.new_empty(self.num_edges + m)
            edges[place] = edges.new_ones(()) if weight is None else weight
            edges[starts[:-1].long()] = loop
            columns = source.new_empty(self.num_edges + m)
            columns[place] = source
            columns[starts[:-1].long()] = every[:-1]
            crow, source, weight = starts, columns, edges
        made = Graph._trusted(crow, source, None, weight, self.num_cols)
        if not torch.compiler.is_compiling():
            self._products[key] = made
        return made

    # Copies and pickles, on other devices as well

    def _map(self, f: Callable[[Tensor], Tensor]) -> Graph:
        copied = super()._map(f)
        assert isinstance(copied, SampledGraph)
        copied._nodes, copied._slots = f(self._nodes), None if self._slots is None else f(self._slots)
        copied._in_degree, copied._whole = f(self._in_degree), self._whole
        copied._out_degree = None if self._out_degree is None else f(self._out_degree)
        return copied

    def __copy__(self) -> Graph:
        copied = super().__copy__()
        for name in ("_nodes", "_slots", "_in_degree", "_out_degree", "_whole"):
            setattr(copied, name, getattr(self, name))
        return copied

    def __getstate__(self) -> dict[str, Any]:
        self._degree_there(torch.float64, True)
        own = {"nodes": self._nodes, "edge_ids": None if self._slots is None else self.edge_ids}
        return super().__getstate__() | own | {"degrees": (self._in_degree, self._out_degree)}

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        wrong = ValueError("SampledGraph: a pickled SampledGraph is damaged")
        try:
            nodes, edges, degrees = state["nodes"], state["edge_ids"], state["degrees"]
            sizes = [(nodes, self.num_cols), *((d, self.num_cols) for d in degrees)]
            sizes += [] if edges is None else [(edges, self.num_edges)]
            whole = len(degrees) == 2 and self.num_rows <= self.num_cols
            whole &= all(isinstance(t, Tensor) and t.shape == (n,) for t, n in sizes)
            whole &= nodes.dtype == torch.int64 and (edges is None or edges.dtype == torch.int64)
            whole &= all(t.dtype == torch.float64 and t.device == self.device for t in degrees)
        except (KeyError, TypeError, AttributeError):
            raise wrong from None
        if not whole:
            raise wrong
        self._nodes, self._slots, self._whole = nodes, edges, None
        self._in_degree, self._out_degree = degrees


def targets_of(x: Any, graph: Any) -> Any:
    """The rows of x that belong to the targets: the first of a SampledGraph, all of any other."""
    if not isinstance(graph, SampledGraph) or x is None:
        return x
    rows = graph.num_rows
    if x.layout == torch.sparse_csr:
        crow = x.crow_indices()[: rows + 1]
        end, size = int(crow[-1]), (rows, x.shape[1])
        parts = crow, x.col_indices()[:end], x.values()[:end]
        return torch.sparse_csr_tensor(*parts, size, check_invariants=False)
    return x[..., :rows, :]


torch.serialization.add_safe_globals([SampledGraph])
