"""Pooling of whole graphs: the features of all nodes of a graph become one vector."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from amstel import _check
from amstel.graph import Graph
from amstel.ops.segment import reduced


def global_sum_pool(x: Tensor, batch: Graph | Tensor | None = None, size: int | None = None) -> Tensor:
    r"""The sum of the features of each graph's nodes, ``y[g] = sum of x[i] over the nodes i of graph g``.

    Args:
        x: [N, F] floating point.
        batch: the `Graph.batch` of the nodes; or the graph of each node, an int32 or int64 vector [N] in any order; or
            None if all nodes belong to one graph.
        size: number of graphs G; default: that of the batch, or the largest index + 1.

    Returns:
        y: [G, F], dtype of x; zeros for a graph without nodes.

    Differentiable in x, deterministic; errors and complexity as for `amstel.ops.segment_reduce`, which computes it.

    Example:
        >>> pair = amstel.Graph.from_edge_index(torch.tensor([[0, 1], [1, 0]]))
        >>> batch = amstel.Graph.batch([pair, pair])
        >>> global_sum_pool(torch.ones(4, 3), batch).tolist()
        [[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]]
    """
    return _pool(x, batch, size, "sum")


def global_mean_pool(x: Tensor, batch: Graph | Tensor | None = None, size: int | None = None) -> Tensor:
    r"""The mean of the features of each graph's nodes; arguments, result and errors as for `global_sum_pool`.

    Example:
        >>> global_mean_pool(torch.tensor([[1.0], [2.0], [6.0]]), torch.tensor([0, 0, 1])).tolist()
        [[1.5], [6.0]]
    """
    return _pool(x, batch, size, "mean")


def global_max_pool(x: Tensor, batch: Graph | Tensor | None = None, size: int | None = None) -> Tensor:
    r"""The maximum of each feature over each graph's nodes; arguments, result and errors as for `global_sum_pool`.

    Nodes that share a maximum share its gradient. A graph without nodes gives zeros, as in PyG.

    Example:
        >>> global_max_pool(torch.tensor([[1.0], [2.0], [-6.0]]), torch.tensor([0, 0, 1])).tolist()
        [[2.0], [-6.0]]
    """
    return _pool(x, batch, size, "max")


def _pool(x: Any, batch: Any, size: Any, reduce: str) -> Tensor:
    _check.tensor("x", x, "a tensor [N, F]")
    if x.dim() != 2:
        _check.fail("x", "a tensor [N, F]", x)
    return reduced(x, batch, size, reduce, "batch", "size")
