"""`amstel.ops.spmm` in plain PyTorch: it gathers one row per edge and adds it to the target."""

import torch
from torch import Tensor

from amstel import _check
from amstel._derived import factors
from amstel.graph import Graph


def spmm(
    graph: Graph,
    x: Tensor,
    edge_weight: Tensor | None = None,
    *,
    norm: str = "sym",
    self_loops: float = 1.0,
    bias: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """The same values as `amstel.ops.spmm`, with two tensors [E, F] in between; differentiable any number of times.
    x must be one tensor, and the graph must not be a `SampledGraph`.

    Example:
        >>> graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
        >>> amstel.reference.spmm(graph, torch.eye(3), norm="row")
        tensor([[0.5000, 0.5000, 0.0000],
                [0.3333, 0.3333, 0.3333],
                [0.0000, 0.5000, 0.5000]])
    """
    _check.choice("norm", norm, ("sym", "row", "sym_inout", "none"))
    _check.choice("activation", activation, (None, "relu"))
    if graph._is_sampled:
        _check.fail_type("graph", "a whole amstel.Graph, not a sampled one", graph)
    if not graph.is_square and bool(self_loops):
        _check.fail("self_loops", "0 for a rectangular graph", self_loops)
    (source, target), own = graph.to_edge_index()
    given = edge_weight if edge_weight is not None else own
    weight = x.new_ones(graph.num_edges) if given is None else given.to(x.dtype)

    def degree(out: bool) -> Tensor:
        size, index = (graph.num_cols, source) if out else (graph.num_rows, target)
        return x.new_zeros(size).index_add(0, index, weight) + self_loops

    if norm == "sym" and not graph.is_square:
        norm = "sym_inout"
    row_scale, col_scale = factors(norm, degree)
    if row_scale is not None:
        weight = weight * row_scale[target]
    if col_scale is not None:
        weight = weight * col_scale[source]
    messages = weight[:, None] * x[..., source, :]
    y = x.new_zeros(*x.shape[:-2], graph.num_rows, x.shape[-1]).index_add(-2, target, messages)
    if self_loops:
        loop = self_loops * x.new_ones(graph.num_rows)  # λ may be a tensor, with a derivative
        for scale in (row_scale, col_scale):
            loop = loop if scale is None else loop * scale
        y = y + loop[:, None] * x
    if bias is not None:
        y = y + bias
    return torch.relu(y) if activation == "relu" else y
