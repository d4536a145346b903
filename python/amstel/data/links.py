"""LinkData: a graph with some of its links held out, the input of link prediction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from amstel import _check
from amstel._words import counted
from amstel.data.nodes import as_csr
from amstel.graph import Graph


@dataclass(repr=False, eq=False)
class LinkData:
    """A link-prediction problem; `split_links` creates one from a graph.

    Attributes:
        name: what to call it.
        graph: `Graph` of N nodes without the held-out links.
        features: torch.sparse_csr or dense [N, F], floating point, or None for X = I.
        val, val_negative, test, test_negative: int64 [2, M], pairs of different nodes: held-out links, and pairs
            without a link. Those of `val` may be empty.

    Raises:
        ValueError or TypeError: a part is not as described.

    Example: the path 0 - 1 - 2 - 3, with its last link held out.
        >>> graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), num_nodes=4)
        >>> none, link, other = torch.empty(2, 0).long(), torch.tensor([[2], [3]]), torch.tensor([[0], [3]])
        >>> amstel.data.LinkData("path", graph, None, none, none, link, other)
        LinkData(path, num_nodes=4, num_edges=4, num_features=4, val=0, test=1)
    """

    name: str
    graph: Graph
    features: Tensor | None
    val: Tensor
    val_negative: Tensor
    test: Tensor
    test_negative: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            _check.fail_type("name", "a string", self.name)
        _square(self.graph)
        nodes = self.graph.num_nodes
        if self.features is not None:
            expected = f"a floating-point tensor [{nodes}, F], dense or sparse_csr"
            found = _check.tensor("features", self.features, expected)
            if (
                found.dim() != 2
                or found.shape[0] != nodes
                or found.dtype not in _check.FLOATS
                or found.layout not in (torch.strided, torch.sparse_csr)
            ):
                _check.fail("features", expected, found)
        for name in ("val", "val_negative", "test", "test_negative"):
            pairs, expected = getattr(self, name), f"an int64 tensor [2, M] of nodes from 0 to {nodes - 1}"
            _check.tensor(name, pairs, expected)
            if pairs.dim() != 2 or pairs.shape[0] != 2 or pairs.dtype != torch.int64:
                _check.fail(name, expected, pairs)
            wrong = ((pairs < 0) | (pairs >= nodes)).any(0) | (pairs[0] == pairs[1])
            if bool(wrong.any()):
                k = int(wrong.nonzero()[0])
                raise ValueError(
                    f"`{name}` must be {expected}, different ones, got {pairs[:, k].tolist()} at position {k}"
                )

    @property
    def num_nodes(self) -> int:
        """Nodes of the graph."""
        return self.graph.num_nodes

    @property
    def num_features(self) -> int:
        """F, which is N without features."""
        return self.num_nodes if self.features is None else self.features.shape[1]

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.name}, num_nodes={self.num_nodes}, num_edges={self.graph.num_edges}, "
            f"num_features={self.num_features}, val={self.val.shape[1]}, test={self.test.shape[1]})"
        )


def split_links(
    graph: Graph,
    features: Tensor | None = None,
    val: float = 0.05,
    test: float = 0.1,
    seed: int = 0,
    name: str = "",
) -> LinkData:
    """Hold out links of a graph, together with as many pairs of unlinked nodes.

    A link is two different nodes with at least one edge between them, in any direction. When a link is held out, all
    its edges are removed from the graph; the other edges, including loops, keep their weights and order. The unlinked
    pairs are drawn without repetition from all pairs that have no edge in the whole graph. O(E log E).

    Args:
        graph: a square graph on the CPU.
        features: as in `LinkData`, or sparse_coo.
        val, test: fractions of the links, rounded down; the paper uses 0.05 and 0.1.
        seed: integer >= 0; determines the split.
        name: what to call it.

    Raises:
        ValueError: val + test is not below 1, `test` is less than one link, or there are too few pairs without a link.

    Source: T. N. Kipf and M. Welling, Variational Graph Auto-Encoders, 2016, section 2.

    Example:
        >>> data = amstel.data.block_model(nodes=400)
        >>> amstel.data.split_links(data.graph, data.features, name="block model")
        LinkData(block model, num_nodes=400, num_edges=1332, num_features=300, val=39, test=78)
    """
    _square(graph)
    if graph.device.type != "cpu":
        _check.fail("graph", "on the CPU", graph)
    for key, share in (("val", val), ("test", test)):
        _check.number(key, share, "in [0, 1)", least=0, below=1)
    if val + test >= 1:
        raise ValueError(f"`val` + `test` must be below 1, got {val} + {test}")
    generator = torch.Generator().manual_seed(_check.integer("seed", seed, 0) % 2**63)
    if features is not None and isinstance(features, Tensor) and features.layout == torch.sparse_coo:
        features = as_csr(features)

    nodes, index = graph.num_nodes, graph._index()
    low, high = index.amin(0), index.amax(0)
    apart = low != high
    keys, which = torch.unique((low * nodes + high)[apart], return_inverse=True)
    links = len(keys)
    counts = [int(share * links + 1e-9) for share in (val, test)]
    if not test:
        _check.fail("test", "above 0: links are held out for the test", test)
    if not counts[1]:
        raise TooFewLinks(links, test, graph)
    order = torch.randperm(links, generator=generator)
    chosen = order[counts[0] : sum(counts)], order[: counts[0]]  # test, val
    negative = _unlinked(keys, nodes, sum(counts), generator)

    held = torch.zeros(links, dtype=torch.bool)
    held[torch.cat(chosen)] = True
    stays = torch.ones(graph.num_edges, dtype=torch.bool)
    stays[apart] = ~held[which]
    weight = None if graph._weight is None else graph._weight[stays]
    kept = Graph.from_edge_index(index[:, stays], nodes, weight)

    def pairs(key: Tensor) -> Tensor:
        return torch.stack([key // nodes, key % nodes])

    return LinkData(
        name,
        kept,
        features,
        pairs(keys[chosen[1]]),
        pairs(negative[: counts[0]]),
        pairs(keys[chosen[0]]),
        pairs(negative[counts[0] :]),
    )


class TooFewLinks(ValueError):
    """A graph without one link for the test."""

    def __init__(self, links: int, share: float, graph: Graph):
        super().__init__(
            f"`graph` must have at least {math.ceil(1 / share - 1e-9)} links between two nodes, to hold out {share:g} of them "
            f"for the test, got {links} of {graph!r}"
        )
        self.links = links


def _unlinked(keys: Tensor, nodes: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` different pairs low * N + high that are not among the sorted `keys`, in random order."""
    pairs = nodes * (nodes - 1) // 2
    free = pairs - len(keys)
    if count > free:
        raise ValueError(
            f"`graph` must have {counted(count, 'pair')} of nodes without a link, as many as are held out, got {free}"
        )
    if (
        free < 2 * count or len(keys) > pairs // 2
    ):  # then it is no larger than the graph to write them all down
        every = torch.combinations(torch.arange(nodes))
        others = every[:, 0] * nodes + every[:, 1]
        others = others[~torch.isin(others, keys)]
        return others[torch.randperm(len(others), generator=generator)[:count]]
    found = keys[:0]
    while len(found) < count:
        ends = torch.randint(nodes, (2, 2 * count), generator=generator)
        key = ends.amin(0) * nodes + ends.amax(0)
        key = key[(ends[0] != ends[1]) & ~torch.isin(key, keys)]
        both = torch.cat([found, key])
        # The first of equals stays, in the order in which they were drawn.
        value, which = torch.unique(both, return_inverse=True)
        first = torch.full((len(value),), len(both)).scatter_reduce(0, which, torch.arange(len(both)), "amin")
        found = both[first.sort().values]
    return found[:count]


def _square(graph: Any) -> None:
    if not isinstance(graph, Graph):
        _check.fail_type("graph", "an amstel.Graph", graph)
    if not graph.is_square:
        _check.fail("graph", "a Graph of as many sources as targets", graph)
