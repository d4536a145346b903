"""DropEdge: a random mask on the edge weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from amstel import _check
from amstel.graph import Graph


class DropEdge(nn.Module):
    r"""Drops each edge with probability p in training, by setting its weight to 0; the Graph stays the same.

    The result is an `edge_weight` [E] for any layer and for `amstel.ops.spmm`, which normalizes by the remaining
    edges, as in the paper; nothing is scaled by 1 / (1 - p). Differentiable in edge_weight. In evaluation mode, or
    with p = 0, edge_weight is returned unchanged.

    Args:
        p: rate, in [0, 1).

    forward(graph, edge_weight=None, dtype=None): edge_weight [E]; without it the graph's own weights, or ones. These
    are cast to `dtype`, which should be that of the layer (default: that of the own weights, and float32 for ones).

    Raises:
        ValueError or TypeError: an argument is not as described, in eval mode too.

    Source: Y. Rong, W. Huang, T. Xu and J. Huang, DropEdge: Towards Deep Graph Convolutional Networks on Node
    Classification, ICLR 2020, equation 4 (the two directions of an edge are drawn independently there, too).

    Example:
        >>> graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 2], [1, 2, 0]]))
        >>> amstel.nn.DropEdge(0.5)(graph).shape
        torch.Size([3])
    """

    def __init__(self, p: float = 0.5):
        super().__init__()
        self.p = float(_check.number("p", p, "in [0, 1)", least=0, below=1))

    def forward(
        self, graph: Graph, edge_weight: Tensor | None = None, dtype: torch.dtype | None = None
    ) -> Tensor | None:
        """Weights [E], 0 for dropped edges; edge_weight as given (it may be None) if nothing is dropped."""
        if not isinstance(graph, Graph):
            _check.fail_type("graph", "an amstel.Graph", graph)
        if edge_weight is not None:
            expected = f"a floating-point tensor [{graph.num_edges}] on {graph.device}"
            _check.dense("edge_weight", edge_weight, expected)
            if (
                edge_weight.shape != (graph.num_edges,)
                or edge_weight.dtype not in _check.FLOATS
                or edge_weight.device != graph.device
            ):
                _check.fail("edge_weight", expected, edge_weight)
        if not self.training or self.p == 0:
            return edge_weight
        if edge_weight is None:
            edge_weight = self._own(graph, dtype)
        return edge_weight * (torch.rand(graph.num_edges, device=graph.device) >= self.p).to(
            edge_weight.dtype
        )

    @staticmethod
    def _own(graph: Graph, dtype: torch.dtype | None) -> Tensor:
        if dtype is not None and dtype not in _check.FLOATS:
            _check.fail("dtype", "float64, float32, bfloat16 or float16", dtype)
        if graph._weight is None:
            return torch.ones(graph.num_edges, device=graph.device, dtype=dtype)
        if dtype == torch.float16 and not graph._fits_half():
            _check.fail("dtype", "one that can hold the graph's weights, which float16 cannot", dtype)
        return graph._weight if dtype is None else graph._weight.to(dtype)

    def extra_repr(self) -> str:
        return f"p={self.p}"
