"""Many graphs as one: the block-diagonal Graph of a batch, and how to split it again.

A batch is a Graph that knows where its graphs begin, in rows and in columns; that is all there is to it. Rows, slots
and edges of a graph lie together, in the order of the graphs, so that joining and splitting are copies of slices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from amstel import _check
from amstel._derived import plainly

if TYPE_CHECKING:
    from amstel.graph import Graph

#: First row and first column of every graph, and the end of the last: int64 [graphs + 1], on the Graph's device.
Offsets = tuple[Tensor, Tensor]


def join(cls: type[Graph], graphs: Any) -> Graph:
    """`Graph.batch`."""
    expected = "a list of one or more amstel.Graph"
    if isinstance(graphs, cls) or not isinstance(graphs, Iterable):
        _check.fail_type("graphs", expected, graphs)
    graphs = list(graphs)
    if not graphs:
        _check.fail("graphs", expected, graphs)
    for number, graph in enumerate(graphs):
        if not isinstance(graph, cls):
            _check.fail_type(f"graphs[{number}]", "an amstel.Graph", graph)
        if graph._is_sampled:
            _check.fail_type(f"graphs[{number}]", "a whole amstel.Graph, not a sampled one", graph)
        if graph.device != graphs[0].device:
            _check.fail(f"graphs[{number}]", f"on {graphs[0].device} like the first", graph)
    return plainly(lambda: _join(cls, graphs))


def _join(cls: type[Graph], graphs: list[Graph]) -> Graph:
    device = graphs[0].device
    counts = [(g.num_rows, g.num_cols, g.num_edges) for g in graphs]
    rows, cols, edges = map(sum, zip(*counts, strict=True))
    dtype = torch.int32 if max(rows, cols, edges) < 2**31 - 1 else torch.int64
    row_counts, col_counts, edge_counts = (
        torch.tensor(c, dtype=torch.int64) for c in zip(*counts, strict=True)
    )

    def begins(of: Tensor, repeats: Tensor, size: int) -> Tensor:
        """For each of `size` elements where its graph begins."""
        start = (of.cumsum(0) - of).repeat_interleave(repeats, output_size=size)
        return start.to(device, dtype)

    first_edge = begins(edge_counts, edge_counts, edges)
    crow = torch.cat([graphs[0]._crow.new_zeros(1), *(g._crow[1:] for g in graphs)]).to(dtype)
    crow[1:] += begins(edge_counts, row_counts, rows)
    col = torch.cat([g._col for g in graphs]).to(dtype) + begins(col_counts, edge_counts, edges)
    edge = None
    if any(g._edge is not None for g in graphs):
        own = (torch.arange(g.num_edges, device=device) if g._edge is None else g._edge for g in graphs)
        edge = torch.cat([e.to(dtype) for e in own]) + first_edge
    weight = None
    held = [g._weight.dtype for g in graphs if g._weight is not None]
    if held:
        widest = held[0]
        for other in held:
            widest = torch.promote_types(widest, other)
        ones = (torch.ones(g.num_edges, dtype=widest, device=device) for g in graphs)
        weight = torch.cat(
            [one if g._weight is None else g._weight for g, one in zip(graphs, ones, strict=True)]
        )
    batch = cls._trusted(crow, col, edge, weight, cols)
    batch._offsets = _offsets(graphs, device)
    return batch


def _offsets(graphs: list[Graph], device: torch.device) -> Offsets:
    """Those of the graphs, or of their graphs where they are batches themselves."""
    found = []
    for side, sizes in enumerate(([g.num_rows for g in graphs], [g.num_cols for g in graphs])):
        if any(g._offsets is not None for g in graphs):
            parts = [
                [size] if g._offsets is None else g._offsets[side].diff().tolist()
                for g, size in zip(graphs, sizes, strict=True)
            ]
            sizes = [size for part in parts for size in part]
        found.append(torch.tensor([0, *accumulate(sizes)], dtype=torch.int64).to(device))
    rows, cols = found
    return rows, rows if torch.equal(rows, cols) else cols


def offsets(graph: Graph) -> Offsets:
    """The offsets of a batch; a single Graph counts as a batch of one."""
    if graph._offsets is not None:
        return graph._offsets
    rows, cols = (torch.tensor([0, n], device=graph.device) for n in (graph.num_rows, graph.num_cols))
    return rows, cols


Bounds = tuple[list[int], list[int], list[int]]


def bounds(graph: Graph) -> Bounds:
    """Where the graphs of a batch begin in rows, in columns and in slots, as plain numbers."""
    rows, cols = offsets(graph)
    return rows.tolist(), cols.tolist(), graph._crow[rows].tolist()


def one(graph: Graph, bounds: Bounds, k: int) -> Graph:
    """Graph number k of a batch."""
    (row, row_end), (col, col_end), (slot, end) = ((b[k], b[k + 1]) for b in bounds)
    small = max(row_end - row, col_end - col, end - slot) < 2**31 - 1
    dtype = torch.int32 if small else torch.int64
    crow = (graph._crow[row : row_end + 1] - slot).to(dtype)
    sources = (graph._col[slot:end] - col).to(dtype)
    edge = None if graph._edge is None else (graph._edge[slot:end] - slot).to(dtype)
    weight = None if graph._weight is None else graph._weight[slot:end].clone()
    return type(graph)._trusted(crow, sources, edge, weight, col_end - col)


def split(graph: Graph) -> list[Graph]:
    """`Graph.unbatch`."""
    found = bounds(graph)
    return plainly(lambda: [one(graph, found, k) for k in range(len(found[0]) - 1)])


def moved(offsets: Offsets | None, move: Callable[[Tensor], Tensor]) -> Offsets | None:
    """The offsets of a copy of a Graph, by what copies its arrays."""
    if offsets is None:
        return None
    rows, cols = offsets
    first = move(rows)
    return first, first if cols is rows else move(cols)


def state(offsets: Offsets | None) -> dict[str, Any]:
    """What a pickle of a Graph holds in addition to its arrays."""
    return {} if offsets is None else {"offsets": offsets}


def checked(found: Any, graph: Graph) -> Offsets | None:
    """The offsets in a pickle, where they fit the arrays: no edge may lead from one graph to another."""
    if found is None:
        return None
    wrong = ValueError("Graph: a pickled Graph is damaged: `offsets` must say where its graphs begin")
    if not isinstance(found, tuple) or len(found) != 2:
        raise wrong
    for offset, size in zip(found, (graph.num_rows, graph.num_cols), strict=True):
        if (
            not isinstance(offset, Tensor)
            or offset.dtype != torch.int64
            or offset.layout != torch.strided
            or offset.dim() != 1
            or offset.device != graph.device
            or len(offset) < 2
        ):
            raise wrong
        if offset.device.type != "meta" and (
            (int(offset[0]), int(offset[-1])) != (0, size) or bool((offset.diff() < 0).any())
        ):
            raise wrong
    rows, cols = found
    if len(rows) != len(cols):
        raise wrong
    if rows.device.type != "meta":
        first = graph._crow[rows].long()
        held = [(graph._col, cols)] + ([] if graph._edge is None else [(graph._edge, first)])
        for values, bounds in held:
            low, high = (b.repeat_interleave(first.diff()) for b in (bounds[:-1], bounds[1:]))
            if bool(((values < low) | (values >= high)).any()):
                raise wrong
    return rows, rows if torch.equal(rows, cols) else cols


def index(graph: Graph) -> Tensor:
    """For every row the number of its graph, int64 [N]."""
    if graph._offsets is None:
        return torch.zeros(graph.num_rows, dtype=torch.int64, device=graph.device)
    # By sums, which every exporter knows: how many graphs begin at a row or before it.
    bounds, rows = graph._offsets[0].long(), graph.num_rows
    begins = torch.zeros(rows + 1, dtype=torch.int64, device=graph.device)
    return begins.scatter_add(0, bounds, torch.ones_like(bounds)).cumsum(0)[:rows] - 1


def members(graph: Graph) -> tuple[Graph, Graph]:
    """The matrix [graphs, N] that has a 1 where a node is in a graph, and its transpose; made once a batch."""

    def make() -> tuple[Graph, Graph]:
        crow, nodes = offsets(graph)[0], graph.num_rows
        dtype = torch.int32 if max(nodes, len(crow)) < 2**31 - 1 else torch.int64
        every = torch.arange(nodes + 1, dtype=dtype, device=graph.device)
        new = type(graph)._trusted
        one = new(crow.to(dtype, copy=True), every[:-1], None, None, nodes)
        return one, new(every, index(graph).to(dtype), None, None, len(crow) - 1)

    if torch.compiler.is_compiling():
        return make()
    if graph._members is None:
        graph._members = plainly(make)
    return graph._members
