"""Parts of a Graph: the subgraph of some nodes, and their neighborhood."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from amstel import _check, _library
from amstel._derived import plainly

if TYPE_CHECKING:
    from amstel.graph import Graph


def needs_square(what: str, graph: Graph) -> None:
    """ValueError where sources and targets are not the same nodes, or not on the CPU."""
    if not graph.is_square or graph._is_sampled:
        raise ValueError(f"`{what}` needs a whole graph of as many sources as targets, got {graph!r}")
    if graph.device.type != "cpu":
        raise ValueError(f"`{what}` needs a graph on the CPU (graph.cpu()), got {graph!r}")


def node_numbers(name: str, value: Any, nodes: int, unique: bool = True) -> Tensor:
    """int64 numbers of nodes from integers in a list, an array or a tensor, or from a mask [nodes]; a copy."""
    expected = f"different numbers of nodes from 0 to {nodes - 1}, or a mask [{nodes}]"
    if not unique:
        expected = expected.removeprefix("different ")
    _check.unmasked(name, value)
    if isinstance(value, (str, bytes)) or not isinstance(value, (list, tuple, range, np.ndarray, Tensor)):
        _check.fail_type(name, expected, value)
    if isinstance(value, (list, tuple)) and any(isinstance(one, (bool, np.bool_)) for one in value):
        _check.fail_type(name, expected, value)  # neither numbers nor a mask that says it is one
    try:
        found = torch.as_tensor(list(value) if isinstance(value, range) else value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(f"`{name}` must be {expected}, got {_check.describe(value)}") from error
    if found.numel() == 0 and not isinstance(value, (np.ndarray, Tensor)):
        found = found.long()
    if found.dim() != 1 or found.layout != torch.strided:
        _check.fail(name, expected, value)
    found = found.detach().cpu()
    if found.dtype == torch.bool:
        if not isinstance(value, (np.ndarray, Tensor)) or len(found) != nodes:
            _check.fail(name, expected, value)
        return found.nonzero()[:, 0]
    if found.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        _check.fail(name, expected, value)
    found = found.long().clone()
    wrong = ((found < 0) | (found >= nodes)).nonzero()
    if len(wrong):
        k = int(wrong[0])
        raise ValueError(f"`{name}` must be {expected}, got {int(found[k])} at position {k}")
    if unique and len(found.unique()) != len(found):
        first, counts = found.unique(return_counts=True)
        raise ValueError(f"`{name}` must be {expected}, got {int(first[counts > 1][0])} more than once")
    return found


def subgraph(graph: Graph, nodes: Any) -> Graph:
    """`Graph.subgraph`."""
    needs_square("subgraph", graph)
    numbers = node_numbers("nodes", nodes, graph.num_nodes)
    return plainly(lambda: _induced(graph, numbers))


def _induced(graph: Graph, nodes: Tensor) -> Graph:
    crow, col, slot = _library.operators.induced_subgraph(graph._crow, graph._col, nodes, True)
    given = slot if graph._edge is None else graph._edge[slot.long()]
    order = given.argsort()
    rank = None
    if not torch.equal(order, torch.arange(len(order))):
        rank = torch.empty_like(slot)
        rank[order] = torch.arange(len(order), dtype=slot.dtype)
    weight = None if graph._weight is None else graph._weight[given[order].long()]
    crow, col = (t.to(_index_dtype(len(nodes), len(col))) for t in (crow, col))
    rank = None if rank is None else rank.to(crow.dtype)
    return type(graph)._trusted(crow, col, rank, weight, len(nodes))


def _index_dtype(*sizes: int) -> torch.dtype:
    return torch.int32 if max(sizes) < 2**31 - 1 else torch.int64


def k_hop(graph: Graph, nodes: Any, k: int) -> tuple[Graph, Tensor]:
    """`Graph.k_hop`."""
    needs_square("k_hop", graph)
    found = node_numbers("nodes", nodes, graph.num_nodes)
    k = _check.integer("k", k, 0)

    def make() -> tuple[Graph, Tensor]:
        reached, last = found, found
        seen = torch.zeros(graph.num_nodes, dtype=torch.bool)
        seen[found] = True
        for _ in range(k):
            # Only those who came last have neighbors that were not looked at.
            near = _library.operators.sample_neighbors(
                graph._crow, graph._col, None, last, -1, False, 0, True
            )[4]
            last = near[len(last) :]
            last = last[~seen[last]]
            if not len(last):
                break
            seen[last] = True
            reached = torch.cat([reached, last])
        return _induced(graph, reached), reached

    return plainly(make)
