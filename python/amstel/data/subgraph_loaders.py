"""Loaders whose batches are subgraphs: clusters of a partition, or the nodes visited by random walks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from amstel import _check, _library, _subgraph
from amstel.data._loader import Loader, Sample, rows_of
from amstel.distributed.folder import assigned
from amstel.graph import Graph
from amstel.sampled import SampledGraph


@dataclass(repr=False, eq=False)
class SubgraphBatch(Sample):
    """A batch of `ClusterLoader` or `SaintLoader`: one subgraph for all layers.

    Attributes:
        graph: the edges between the n nodes.
        nodes: their indices in the whole graph, int64 [n].
        rows: which of the nodes are seeds, int64 [B].
        x: features of the nodes [n, ...], or None.
        y: labels of the seeds [B, ...], or None.
        weight: weight of each seed in the loss, float32 [B]; the weighted sum over the batch estimates the mean over
            all seeds.
        number: index of the batch in its epoch.

    Example: a path of four nodes in two halves, without the edge between them.
        >>> graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 2], [1, 2, 3]]))
        >>> halves = amstel.data.ClusterLoader(graph, parts=torch.tensor([0, 0, 1, 1]), shuffle=False)
        >>> for batch in halves:
        ...     print(batch, batch.nodes.tolist(), batch.weight.tolist())
        SubgraphBatch(Graph(num_nodes=2, num_edges=1), seeds=2) [0, 1] [0.5, 0.5]
        SubgraphBatch(Graph(num_nodes=2, num_edges=1), seeds=2) [2, 3] [0.5, 0.5]
    """

    graph: Graph
    nodes: Tensor
    rows: Tensor
    x: Tensor | None
    y: Tensor | None
    weight: Tensor
    number: int

    def __repr__(self) -> str:
        return f"SubgraphBatch({self.graph!r}, seeds={len(self.rows)})"


class _Subgraphs(Loader):
    """What both loaders do with the nodes of a batch."""

    def _seeds(self, seeds: Any) -> None:
        n = self.graph.num_nodes
        self.seeds = torch.arange(n) if seeds is None else _subgraph.node_numbers("seeds", seeds, n)
        self._is_seed = torch.zeros(n, dtype=torch.bool)
        self._is_seed[self.seeds] = True

    def _batch(self, graph: Graph, nodes: Tensor, weight: Tensor, number: int) -> SubgraphBatch:
        rows = self._is_seed[nodes].nonzero()[:, 0]
        x, y = rows_of("x", self.x, nodes), rows_of("y", self.y, nodes[rows])
        return SubgraphBatch(graph, nodes, rows, x, y, weight[nodes[rows]], number)

    def __iter__(self) -> Iterator[SubgraphBatch]:
        return super().__iter__()


class ClusterLoader(_Subgraphs):
    """Batches of a few clusters each, with the edges between them (Cluster-GCN).

    Args:
        graph, x, y, shuffle, seed, num_workers, prefetch, pin_memory, device: as for `NeighborLoader`.
        parts: number of clusters, or a vector [N] with the cluster of each node.
        batch_size: clusters per batch.
        seeds: the nodes that count in the loss, distinct indices or a mask [N]; default: all.
        method: "metis" cuts few edges (needs pymetis: `pip install "amstel[metis]"`); "ranges" takes consecutive
            nodes.

    An epoch contains every node once. `batch.graph` is a plain `Graph`, so layers normalize by the degrees within it,
    as in the paper. Edges that leave the batch are dropped without correction.

    Raises:
        ValueError or TypeError: an argument is not as described. ImportError: pymetis is missing.

    Source: W. Chiang et al., Cluster-GCN, KDD 2019, section 3.2.

    Example:
        >>> data = amstel.data.karate_club()
        >>> loader = amstel.data.ClusterLoader(data.graph, torch.eye(34), data.labels, parts=4, batch_size=2,
        ...     method="ranges")
        >>> model = amstel.nn.GCN(34, 8, 4)
        >>> for batch in loader:
        ...     loss = torch.nn.functional.cross_entropy(model(batch.x, batch.graph)[batch.rows], batch.y)
        >>> len(loader)
        2
    """

    def __init__(
        self,
        graph: Graph,
        x: Any = None,
        y: Any = None,
        parts: Any = 100,
        batch_size: int = 1,
        seeds: Any = None,
        *,
        method: str = "metis",
        shuffle: bool = True,
        seed: int = 0,
        num_workers: int = 0,
        prefetch: int = 2,
        pin_memory: bool = False,
        device: Any = None,
    ):
        options = {"shuffle": shuffle, "seed": seed, "num_workers": num_workers, "prefetch": prefetch}
        super().__init__(graph, x, y, options | {"pin_memory": pin_memory, "device": device})
        self.batch_size = _check.integer("batch_size", batch_size, 1)
        self._seeds(seeds)
        _check.choice("method", method, ("metis", "ranges"))
        if not isinstance(parts, (list, tuple)) and not getattr(parts, "ndim", 0):
            parts, n = _check.integer("parts", parts, 1), graph.num_nodes
            if parts > max(n, 1):
                _check.fail("parts", f"at most the number of nodes, {n}", parts)
            cluster = torch.from_numpy(assigned(graph, parts, method))
        else:
            cluster = torch.as_tensor(_check.unmasked("parts", parts))
            if cluster.shape != (graph.num_nodes,) or cluster.dtype not in (torch.int64, torch.int32):
                _check.fail("parts", f"a number, or integers [{graph.num_nodes}]", cluster)
            cluster = cluster.unique(return_inverse=True)[1]
        order, count = cluster.argsort(stable=True), torch.bincount(cluster.long())
        self._clusters = order.split([n for n in count.tolist() if n])
        self._weight = torch.full((graph.num_nodes,), 1 / max(len(self.seeds), 1))

    def __len__(self) -> int:
        return -(-len(self._clusters) // self.batch_size)

    def __repr__(self) -> str:
        return f"ClusterLoader({self.graph!r}, parts={len(self._clusters)}, batch_size={self.batch_size})"

    def _plan(self, epoch: int) -> tuple[int, Callable[[int, bool], SubgraphBatch]]:
        order, size = self._order(len(self._clusters), epoch).tolist(), self.batch_size

        def make(number: int, parallel: bool) -> SubgraphBatch:
            chosen = order[number * size : (number + 1) * size]
            nodes, whole = torch.cat([self._clusters[k] for k in chosen]), self.graph
            crow, col, slot = _library.operators.induced_subgraph(whole._crow, whole._col, nodes, parallel)
            weight = None if whole._weight is None else whole._values(whole._weight.dtype)[slot.long()]
            graph = Graph._trusted(crow, col, None, weight, len(nodes))
            # All batches together are the mean; one is so many times it.
            return self._batch(graph, nodes, self._weight * len(self), number)

        return len(self), make


class SaintLoader(_Subgraphs):
    r"""Batches of the nodes visited by random walks, with the edges between them (GraphSAINT).

    Args:
        graph, x, y, seed, num_workers, prefetch, pin_memory, device: as for `NeighborLoader`.
        batch_size: walks per batch, each starting at a randomly drawn seed.
        walk_length: steps per walk, against the direction of the edges.
        steps: batches per epoch.
        seeds: the nodes that count in the loss, distinct indices or a mask [N]; default: all.
        coverage: how often, on average, each node is visited by the subgraphs drawn beforehand to estimate the visit
            counts of nodes and edges.

    `batch.graph` is a square `SampledGraph`: layers use the degrees of the whole graph, an edge u -> v is weighted by
    C_v / C_uv, where C are the visit counts, and a seed v is weighted by 1 / C_v in the loss (`batch.weight`). Sums
    over neighbors and the loss are then unbiased, up to the error of the counts. Nodes and edges that were never
    visited count as visited once.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Source: H. Zeng et al., GraphSAINT: Graph Sampling Based Inductive Learning Method, ICLR 2020, section 3.2 and
    algorithm 2 (random walk).

    Example:
        >>> data = amstel.data.karate_club()
        >>> loader = amstel.data.SaintLoader(data.graph, torch.eye(34), data.labels, batch_size=5, steps=3)
        >>> model = amstel.nn.GCN(34, 8, 4)
        >>> for batch in loader:
        ...     logits = model(batch.x, batch.graph)[batch.rows]
        ...     loss = (batch.weight * torch.nn.functional.cross_entropy(logits, batch.y, reduction="none")).sum()
        >>> len(loader)
        3
    """

    def __init__(
        self,
        graph: Graph,
        x: Any = None,
        y: Any = None,
        batch_size: int = 1024,
        walk_length: int = 2,
        steps: int = 10,
        seeds: Any = None,
        *,
        coverage: int = 20,
        seed: int = 0,
        num_workers: int = 0,
        prefetch: int = 2,
        pin_memory: bool = False,
        device: Any = None,
    ):
        options = {"shuffle": False, "seed": seed, "num_workers": num_workers, "prefetch": prefetch}
        super().__init__(graph, x, y, options | {"pin_memory": pin_memory, "device": device})
        self.batch_size = _check.integer("batch_size", batch_size, 1)
        self.walk_length = _check.integer("walk_length", walk_length, 0)
        self.steps = _check.integer("steps", steps, 1)
        coverage = _check.integer("coverage", coverage, 1)
        self._seeds(seeds)
        if not len(self.seeds):
            raise ValueError("`seeds` must name one or more nodes, where walks begin, got none")
        self._degree = graph._degree(torch.float64)
        self._count(coverage)

    def __len__(self) -> int:
        return self.steps

    def __repr__(self) -> str:
        return (
            f"SaintLoader({self.graph!r}, batch_size={self.batch_size}, walk_length={self.walk_length}, "
            f"steps={self.steps})"
        )

    def _drawn(self, epoch: int, number: int, parallel: bool) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Nodes, ascending, and crow, col and slot of the edges between them."""
        graph, key = self.graph, self._key(epoch, number)
        generator = torch.Generator().manual_seed(key & (2**63 - 1))
        starts = self.seeds[torch.randint(len(self.seeds), (self.batch_size,), generator=generator)]
        nodes = _library.operators.random_walk(
            graph._crow, graph._col, starts, self.walk_length, key
        ).unique()
        return nodes, _library.operators.induced_subgraph(graph._crow, graph._col, nodes, parallel)

    def _count(self, coverage: int) -> None:
        """How often nodes and edges come, over subgraphs that no epoch has."""
        graph = self.graph
        nodes, edges, drawn = torch.zeros(graph.num_nodes), torch.zeros(graph.num_edges), 0
        seen, wanted = 0, coverage * graph.num_nodes
        while seen < wanted and drawn < wanted:
            found, (_, _, slot) = self._drawn(-1, drawn, True)
            nodes[found] += 1
            edges[slot.long()] += 1
            seen += len(found)
            drawn += 1
            # Where walks reach a part of the graph only, it is that part which is to be covered.
            wanted = min(
                wanted, coverage * max(int((nodes > 0).sum()), 1) if drawn >= 2 * coverage else wanted
            )
        self._nodes_came, self._edges_came = nodes.clamp_(min=1), edges.clamp_(min=1)
        self._weight = drawn / (self._nodes_came * len(self.seeds))

    def _plan(self, epoch: int) -> tuple[int, Callable[[int, bool], SubgraphBatch]]:
        def make(number: int, parallel: bool) -> SubgraphBatch:
            nodes, (crow, col, slot) = self._drawn(epoch, number, parallel)
            target = torch.repeat_interleave(nodes, crow.diff().long(), output_size=len(col))
            scale = self._nodes_came[target].double() / self._edges_came[slot.long()]
            graph = SampledGraph._of(self.graph, (crow, col, slot), scale, nodes, self._degree[nodes])
            return self._batch(graph, nodes, self._weight, number)

        return self.steps, make
