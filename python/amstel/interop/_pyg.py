"""What the adjacencies of PyTorch Geometric are for `spmm`: a Graph, edge weights and λ under PyG's rule of self-loops."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from amstel import _check
from amstel.graph import Graph

__all__: list[str] = []  # PyG's templates import everything from here

#: Graph, edge weights [E] or None, and λ.
Arguments = tuple[Graph, Tensor | None, float]


class _Loops:
    """A graph under PyG's self-loop rule: every node has one loop, which keeps its weight if it was there."""

    def __init__(self, edge_index: Tensor, num_nodes: int, made: Graph | None):
        loop = edge_index[0] == edge_index[1]
        self.num_nodes = num_nodes
        # None stands for the Graph that was given, which must not be held here: it would keep itself alive.
        self.graph = made
        self.keep = self.at = None
        if bool(loop.any()):
            self.keep = (~loop).nonzero()[:, 0]
            self.of = loop.nonzero()[:, 0]
            self.at = edge_index[0, self.of].long()
            edge_index = edge_index[:, self.keep]
            self.graph = Graph.from_edge_index(edge_index, num_nodes=num_nodes)
            nodes = torch.arange(num_nodes, device=edge_index.device, dtype=edge_index.dtype).expand(2, -1)
            self.looped = Graph.from_edge_index(torch.cat([edge_index, nodes], 1), num_nodes=num_nodes)

    def arguments(self, given: Any, weight: Tensor | None, fill: float) -> Arguments:
        graph = given if self.graph is None else self.graph
        if weight is None:
            return graph, None, 1.0  # PyG has no `improved` without weights
        if self.at is None:
            return graph, weight, fill
        loops = weight.new_full((self.num_nodes,), fill).index_put((self.at,), weight[self.of])
        return self.looped, torch.cat([weight[self.keep], loops]), 0.0


# What a Graph becomes under the rules of a layer, (flow, self-loops), once for all layers; None: itself.
_prepared: weakref.WeakKeyDictionary[Graph, dict[tuple[str, bool], _Loops | Graph | None]] = (
    weakref.WeakKeyDictionary()
)


def _prepare(given: Graph, flow: str, loops: bool) -> _Loops | Graph | None:
    kept = _prepared.setdefault(given, {})
    if (flow, loops) not in kept:
        index = given.to_edge_index()[0]
        forward = flow == "source_to_target"
        index = index if forward else index.flip(0)
        turned = None if forward else Graph.from_edge_index(index, num_nodes=given.num_nodes)
        kept[flow, loops] = _Loops(index, given.num_nodes, turned) if loops else turned
    return kept[flow, loops]


def of_graph(
    given: Graph, nodes: int, weight: Tensor | None, flow: str, loops: bool, fill: float
) -> Arguments:
    if given.num_rows != nodes or given.num_cols != nodes:
        _check.fail("edge_index", f"a Graph of {nodes} nodes, as many as `x` has rows", given)
    weight = _weight(given._weight if weight is None else weight, given.num_edges, given.device)
    prepared = _prepare(given, flow, loops)
    if isinstance(prepared, _Loops):
        return prepared.arguments(given, weight, fill)
    return given if prepared is None else prepared, weight, 0.0


def of_index(
    index: Tensor, nodes: int, weight: Tensor | None, flow: str, loops: bool, fill: float
) -> Arguments:
    if index.dim() != 2 or index.shape[0] != 2:
        _check.fail("edge_index", "an integer tensor [2, E]", index)
    if flow != "source_to_target":
        index = index.flip(0)
    weight = _weight(weight, index.shape[1], index.device)
    # First of all, since it finds an index out of range.
    graph = Graph.from_edge_index(index, num_nodes=nodes)
    if loops:
        return _Loops(index, nodes, graph).arguments(None, weight, fill)
    return graph, weight, 0.0


def of_sparse(matrix: Tensor, nodes: int, loops: bool, fill: float) -> Arguments:
    """A torch.sparse matrix; PyG adds self-loops to its diagonal, whatever it holds."""
    coo = matrix.to_sparse_coo().coalesce()
    graph = Graph.from_edge_index(coo.indices().flip(0), num_nodes=nodes)
    return graph, coo.values(), fill if loops else 0.0


def _weight(weight: Tensor | None, edges: int, device: torch.device) -> Tensor | None:
    if weight is not None and (weight.shape != (edges,) or weight.device != device):
        _check.fail("edge_weight", f"[{edges}] on {device}", weight)
    return weight
