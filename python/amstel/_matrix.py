"""The CSR matrix of a Graph and what the operators derive from it: transpose, values, degrees, factors.

What the operators use is made once, kept, and not to be changed; users get copies. Dynamo neither reads nor fills what
is kept, so that its guards are the same for a fresh Graph and a used one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from amstel import _check, _derived, _library
from amstel._derived import Transpose, copy_of, factors, is_plain, keep, plainly


class Matrix:
    """CSR arrays that were checked and never change: row = target, column = source."""

    _crow: Tensor
    _col: Tensor
    _edge: Tensor | None
    _weight: Tensor | None
    _num_cols: int

    def _set(
        self,
        crow: Tensor,
        col: Tensor,
        edge: Tensor | None,
        weight: Tensor | None,
        num_cols: int,
        turned: Transpose | None = None,
    ) -> None:
        self._crow, self._col, self._edge, self._weight = crow, col, edge, weight
        self._num_cols = num_cols
        self._device = crow.device
        self._is_square = crow.shape[0] - 1 == num_cols
        self._turned = Transpose(crow, col, edge, num_cols) if turned is None else turned
        self._is_sampled = False  # a SampledGraph
        self._offsets: Any = None  # of a batch of graphs: see _batch
        self._members: Any = None
        self._half: bool | None = None
        self._with_loops: Any = None
        self._kept_values: dict[Any, Tensor] = {}
        self._kept_degrees: dict[Any, Tensor] = {}
        self._kept_scales: dict[Any, tuple[Tensor | None, Tensor | None]] = {}
        self._kept_products: dict[Any, Any] = {}  # of amstel.ops.spmm: calls that were checked

    # Facts

    @property
    def crow(self) -> Tensor:
        """Starts of the rows [num_rows + 1], a copy."""
        return copy_of(self._crow)

    @property
    def col(self) -> Tensor:
        """Sources of the slots [E], a copy."""
        return copy_of(self._col)

    @property
    def edge(self) -> Tensor | None:
        """For each slot, the position of its edge in the list that was given [E], a copy, or None if unchanged."""
        return None if self._edge is None else copy_of(self._edge)

    @property
    def weight(self) -> Tensor | None:
        """Weights in the order given [E], a copy, or None."""
        return None if self._weight is None else copy_of(self._weight)

    @property
    def has_weight(self) -> bool:
        """Whether the edges have weights."""
        return self._weight is not None

    @property
    def device(self) -> torch.device:
        """Where the graph's arrays are."""
        return self._device

    @property
    def num_rows(self) -> int:
        """Number of targets."""
        return self._crow.shape[0] - 1

    @property
    def num_cols(self) -> int:
        """Number of sources."""
        return self._num_cols

    @property
    def num_nodes(self) -> int:
        """Number of target nodes (rows)."""
        return self._crow.shape[0] - 1

    @property
    def num_edges(self) -> int:
        """Edges stored, without the self-loops that a normalization adds."""
        return self._col.shape[0]

    @property
    def is_square(self) -> bool:
        """Whether sources and targets are the same nodes."""
        return self._is_square

    # Derived data, for users

    def to_edge_index(self) -> tuple[Tensor, Tensor | None]:
        """`edge_index` [2, E] int64 and the weights [E] or None, in the original order of the edges: the inverse of
        `from_edge_index`.

        Example:
            >>> graph = amstel.Graph.from_edge_index(torch.tensor([[2, 0], [1, 1]]))
            >>> graph.to_edge_index()
            (tensor([[2, 0],
                    [1, 1]]), None)
        """
        return self._index(), self.weight

    def transposed(self) -> tuple[Tensor, Tensor, Tensor]:
        """crow [num_cols + 1], col and edge [E] of the transposed matrix, copies: for each source its targets.

        Example:
            >>> graph = amstel.Graph.from_edge_index(torch.tensor([[0, 0, 1], [1, 2, 2]]))
            >>> crow, target, edge = graph.transposed()
            >>> target[crow[0] : crow[1]].tolist()  # where the edges of node 0 lead
            [1, 2]
        """
        crow, col, edge = self._transpose()
        return copy_of(crow), copy_of(col), copy_of(edge)

    def values(self, dtype: torch.dtype, transposed: bool = False) -> Tensor:
        """The graph's weights as `dtype`, in the order of the slots (of the transposed matrix), a copy.

        Example:
            >>> edge_index = torch.tensor([[0, 1, 0], [2, 0, 1]])
            >>> graph = amstel.Graph.from_edge_index(edge_index, edge_weight=torch.tensor([1.0, 2.0, 3.0]))
            >>> graph.values(torch.float64)  # into node 0, node 1, node 2
            tensor([2., 3., 1.], dtype=torch.float64)
        """
        if self._weight is None:
            raise ValueError(f"`values` needs a Graph with weights, got {self!r}")
        return copy_of(self._values(_check.floating("dtype", dtype), _check.flag("transposed", transposed)))

    def degree(self, dtype: torch.dtype, out: bool = False) -> Tensor:
        """The sum of the weights (or the number of edges, without weights) into each target, or out of each source; a copy.

        Example:
            >>> graph = amstel.Graph.from_edge_index(torch.tensor([[0, 0, 1], [1, 2, 2]]))
            >>> graph.degree(torch.float32).tolist(), graph.degree(torch.float32, out=True).tolist()
            ([0.0, 1.0, 2.0], [2.0, 1.0, 0.0])
        """
        return copy_of(self._degree(_check.floating("dtype", dtype), _check.flag("out", out)))

    def scales(self, norm: str, self_loops: float, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
        """The factors R of the rows [num_rows] and C of the columns [num_cols] that `amstel.ops.spmm` uses for `norm`,
        for sums in `dtype`; copies. None stands for 1.

        Example:
            >>> graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 2], [1, 0, 0]]))
            >>> graph.scales("row", 1.0, torch.float64)  # 1 / degree, with a self-loop
            (tensor([0.3333, 0.5000, 1.0000], dtype=torch.float64), None)
        """
        _check.choice("norm", norm, ("sym", "row", "sym_inout", "none"))
        row, col = self._scales(
            norm, _check.number("self_loops", self_loops), _check.floating("dtype", dtype)
        )
        return tuple(None if t is None else copy_of(t) for t in (row, col))  # type: ignore[return-value]

    # Derived data, for the operators: made once and kept, so not to be changed. Dynamo neither reads nor fills what
    # is kept, so that its guards are the same for a fresh Graph and a used one.

    def _transpose(self) -> _derived.Csr:
        if is_dynamo_compiling():
            return torch.ops.amstel.graph_transpose(self._crow, self._col, self._edge, self._num_cols)
        kept = self._turned.csr
        return self._turned.get() if kept is None else kept

    def _kept(self, store: dict[Any, Any], key: Any, make: Callable[[], Any]) -> Any:
        found = store.get(key)
        if found is None:
            with _derived.untraced(self._crow, self._col, self._edge, self._weight):
                found = plainly(make)
            if is_plain(*found) if isinstance(found, tuple) else is_plain(found):
                keep(store, key, found)
        return found

    def _values(self, dtype: torch.dtype, transposed: bool = False) -> Tensor:
        weight = self._weight
        assert weight is not None

        def make() -> Tensor:
            edge = self._transpose()[2] if transposed else self._edge
            value = weight.to(dtype)
            return value if edge is None else value[edge.long()]

        if is_dynamo_compiling():
            return make()
        return self._kept(self._kept_values, (dtype, transposed), make)

    def _fits_half(self) -> bool:
        """Whether float16 holds the own weights: none beyond its range, none so small that digits are lost."""
        weight = self._weight
        if weight is None or weight.dtype == torch.float16:
            return True
        if is_dynamo_compiling():
            return False  # not known there
        if self._half is None:

            def look() -> bool:
                size = weight.abs()
                limits = torch.finfo(torch.float16)
                return bool(((size <= limits.max) & (size >= limits.tiny) | (size == 0)).all())

            self._half = plainly(look)
        return self._half

    def _degree(self, dtype: torch.dtype, out: bool = False) -> Tensor:
        def make() -> Tensor:
            crow = self._transpose()[0] if out else self._crow
            if self._weight is None:
                return crow.diff().to(dtype)
            return _library.operators.edge_sum(crow, None, self._values(dtype, out), None)

        if is_dynamo_compiling():
            return make()
        return self._kept(self._kept_degrees, (dtype, out), make)

    def _scales(
        self, norm: str, self_loops: float, dtype: torch.dtype
    ) -> tuple[Tensor | None, Tensor | None]:
        if is_dynamo_compiling():
            return factors(norm, lambda out: self._degree(dtype, out) + self_loops)
        key = (norm, self_loops, dtype)
        found = self._kept_scales.get(key)
        if found is None:
            return self._kept(
                self._kept_scales,
                key,
                lambda: factors(norm, lambda out: self._degree(dtype, out) + self_loops),
            )
        return found

    def _index(self) -> Tensor:
        """edge_index [2, E] int64 in the order in which the edges were given."""
        row = torch.arange(self._crow.shape[0] - 1, device=self._device)
        target = torch.repeat_interleave(row, self._crow.diff().long(), output_size=self._col.shape[0])
        index = torch.stack([self._col.long(), target])
        if self._edge is None:
            return index
        ordered = torch.empty_like(index)
        ordered[:, self._edge.long()] = index
        return ordered

    def _looped(self) -> Any:
        """The Graph with one more loop per node, behind the edges that were given and without weights."""
        if self._with_loops is not None and not is_dynamo_compiling():
            return self._with_loops
        row = torch.arange(self._crow.shape[0] - 1, device=self._device)
        index = self._index()
        made = type(self).from_edge_index(torch.cat([index, row.expand(2, -1)], 1), self._num_cols)  # type: ignore[attr-defined]
        if not torch.compiler.is_compiling() and is_plain(made._col):
            self._with_loops = made
        return made
