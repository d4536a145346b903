"""DistributedNeighborLoader: sampled batches of a graph in parts, the same for any number of ranks.

Every rank asks the owners of its nodes for draws of their neighbors, step by step, and then for the features of what was
drawn. A draw follows from the seed, the epoch, the batch, the step and the node, as those of `amstel.data.NeighborLoader`
do, and the rows are sorted by their sources; so it does not matter which rank draws, nor how many there are.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from amstel import _check, _library, _subgraph
from amstel.data._loader import NodeBatch
from amstel.data.neighbor_loader import fanouts_of
from amstel.distributed import _collectives as collectives
from amstel.distributed.dropout import key
from amstel.distributed.exchange import Exchange
from amstel.distributed.graph import DistributedGraph, same
from amstel.graph import Graph
from amstel.sampled import SampledGraph

Rows = tuple[Tensor, Tensor, Tensor]


@dataclass(repr=False, eq=False)
class DistributedBatch(NodeBatch):
    """This rank's share of a batch: the seeds that it owns, with sampled neighbors from all ranks.

    Attributes: those of `amstel.data.NodeBatch`, with nodes numbered as in the graph that was partitioned, and
        total: number of seeds in the batch over all ranks. The loss is the sum over this rank's seeds, divided by it.

    Example: one process, which owns all seeds.
        >>> graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 2], [1, 2, 3]]))
        >>> meta = amstel.distributed.partition(graph, 1, "path", splits={"train": torch.tensor([3, 1])})
        >>> part = amstel.distributed.DistributedGraph.load("path")
        >>> batch = next(iter(amstel.data.DistributedNeighborLoader(part, [-1, -1], shuffle=False)))
        >>> batch.seeds.tolist(), batch.total, batch.layers[-1]
        ([1, 3], 2, SampledGraph(num_nodes=2, num_sources=4, num_edges=2, weighted))
    """

    total: int


class DistributedNeighborLoader:
    """Batches of seeds with sampled neighbors over the parts of a `DistributedGraph`.

    Args:
        graph: this rank's part, on the CPU.
        fanouts: number of in-neighbors to draw per node at each step away from the seeds; -1 takes all. One per layer.
        batch_size: seeds per batch over all ranks. Each rank gets those that it owns, which may be none.
        seeds: name of a split, such as "train", or rows of this rank's part (indices or a mask [n]).
        replace: whether to draw with replacement.
        shuffle: whether to shuffle the seeds in every epoch.
        seed: seed of the random numbers, the same on all ranks.

    `for batch in loader` is an epoch of `DistributedBatch`. All ranks must iterate together, since all of them help to
    fetch every batch. With ``loss.sum() / batch.total`` and `sum_gradients`, a step equals that of one process with
    `amstel.data.NeighborLoader` up to the order of summation (if the graph has sorted rows, and with the seeds in order).
    Set `loader.epoch` to resume.

    Raises:
        ValueError or TypeError: an argument is not as described, or the ranks disagree.
        ConnectionError: another rank is gone.

    Complexity: per batch, the nodes and edges of the sample; per rank, 12 bytes for each node of the whole graph.

    Example:
        >>> data = amstel.data.karate_club()
        >>> meta = amstel.distributed.partition(
        ...     data.graph, 1, "club", x=torch.eye(34), y=data.labels, splits={"train": data.train})
        >>> graph = amstel.distributed.DistributedGraph.load("club")
        >>> loader = amstel.data.DistributedNeighborLoader(graph, [4, 3], batch_size=2, seeds="train")
        >>> model = amstel.nn.GCN(34, 8, 4)
        >>> for batch in loader:
        ...     logits = model(batch.x, batch.layers)
        ...     loss = torch.nn.functional.cross_entropy(logits, batch.y, reduction="sum") / batch.total
        ...     loss.backward()
        ...     amstel.distributed.sum_gradients(model)
        >>> len(loader), batch.total
        (2, 2)
    """

    def __init__(
        self,
        graph: DistributedGraph,
        fanouts: Sequence[int] = (15, 10),
        batch_size: int = 1024,
        seeds: Any = "train",
        *,
        replace: bool = False,
        shuffle: bool = True,
        seed: int = 0,
    ):
        if not isinstance(graph, DistributedGraph):
            _check.fail_type("graph", "an amstel.distributed.DistributedGraph", graph)
        self.graph, self.epoch = graph, 0
        with collectives.together(graph.group):
            if graph.device.type != "cpu":
                _check.fail("graph", "on the CPU; move the batches with batch.to(device)", graph.device)
            self.fanouts = fanouts_of(fanouts)
            self.batch_size = _check.integer("batch_size", batch_size, 1)
            self.replace, self.shuffle = _check.flag("replace", replace), _check.flag("shuffle", shuffle)
            self.seed = _check.integer("seed", seed, 0)
            own = self._own_seeds(seeds)
        how = self.fanouts, self.batch_size, self.replace, self.shuffle, self.seed
        same("how to sample", how, graph.group)
        found = collectives.gather((graph.nodes, graph.nodes[own]), graph.group)
        #: All seeds, ascending, and of every node the rank-by-rank number.
        self.seeds = torch.cat([some for _, some in found]).sort().values
        self._number = torch.empty(graph.total_nodes, dtype=torch.int64)
        self._number[torch.cat([nodes for nodes, _ in found])] = torch.arange(graph.total_nodes)
        self._bounds = torch.tensor(graph.meta["offsets"])
        self._degree = graph._degree[:, : graph.num_nodes].T.contiguous()
        self._settle(torch.cat([nodes for nodes, _ in found]))

    def _own_seeds(self, seeds: Any) -> Tensor:
        graph = self.graph
        if not isinstance(seeds, str):
            return _subgraph.node_numbers("seeds", seeds, graph.num_nodes)
        if seeds not in graph.splits:
            _check.fail("seeds", f"one of the splits {', '.join(graph.splits) or '(none)'}", seeds)
        return graph.splits[seeds]

    def _settle(self, order: Tensor) -> None:
        """The own rows as rows of the whole graph, by the numbers before the partition, sorted by their sources."""
        graph = self.graph
        (row, source), weight = graph.edges()
        target, source = graph.nodes[row], order[source]
        by_source = source.argsort(stable=True)
        total = graph.total_nodes
        rows = Graph.from_edge_index(torch.stack([source, target])[:, by_source], total)
        self._crow, self._col = rows._crow, rows._col
        self._weight: Tensor | None = None
        self._dtype = torch.float32
        if graph._own.has_weight:
            weight = weight[by_source]
            self._dtype = torch.promote_types(weight.dtype, torch.float32)  # products may be beyond float16
            self._weight = weight if rows._edge is None else weight[rows._edge.long()]

    def __len__(self) -> int:
        return -(-len(self.seeds) // self.batch_size)

    def __repr__(self) -> str:
        return (
            f"DistributedNeighborLoader({self.graph!r}, fanouts={list(self.fanouts)}, "
            f"batch_size={self.batch_size}, batches={len(self)})"
        )

    def __iter__(self) -> Iterator[DistributedBatch]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        same("the epoch", epoch, self.graph.group)
        seeds = self.seeds
        if self.shuffle:
            generator = torch.Generator().manual_seed(key(self.seed, epoch, -1) & (2**63 - 1))
            seeds = seeds[torch.randperm(len(seeds), generator=generator)]
        for number, some in enumerate(seeds.split(self.batch_size) if len(seeds) else ()):
            with torch.inference_mode(False), torch.no_grad():
                batch = self._batch(some, epoch, number)
            yield batch

    def _batch(self, seeds: Tensor, epoch: int, number: int) -> DistributedBatch:
        graph = self.graph
        begin, end = self._bounds[graph.rank], self._bounds[graph.rank + 1]
        place = self._number[seeds]
        own = (begin <= place) & (place < end)
        nodes, rows = seeds[own], place[own] - begin
        drawn = []
        for step, fanout in enumerate(self.fanouts):
            crow, source, weight = self._drawn(
                nodes, fanout, key(self.seed, epoch, number * len(self.fanouts) + step)
            )
            # Targets first, then what else was drawn.
            every, place = torch.cat([nodes, source]).unique(return_inverse=True)
            numbers = torch.full((len(every),), -1)
            numbers[place[: len(nodes)]] = torch.arange(len(nodes))
            more = numbers < 0
            numbers[more] = len(nodes) + torch.arange(int(more.sum()))
            col = numbers[place[len(nodes) :]]
            nodes = torch.cat([nodes, every[more]])
            small = torch.int32 if max(len(col), len(nodes)) < 2**31 - 1 else torch.int64
            drawn.append((crow.to(small), col.to(small), weight.to(self._dtype), len(nodes)))
        ordered, order = self._number[nodes].sort()
        exchange = Exchange(ordered, self._bounds.tolist(), graph.group)
        degree = torch.empty(len(nodes), 2, dtype=torch.float64)
        degree[order] = exchange.finish(exchange.start(self._degree))
        layers = [
            SampledGraph._apart(crow, col, weight, nodes[:size], degree[:size])
            for crow, col, weight, size in reversed(drawn)
        ]
        y = None if graph.y is None else graph.y[rows]
        x = None if graph.x is None else self._features(exchange, order)
        return DistributedBatch(layers, nodes, nodes[: len(rows)], x, y, number, len(seeds))

    def _drawn(self, nodes: Tensor, fanout: int, seed: int) -> Rows:
        """crow, sources and weights of a sample of the edges into some nodes, drawn by the owners of the nodes."""
        group, world = self.graph.group, self.graph.world
        owner = torch.bucketize(self._number[nodes], self._bounds, right=True) - 1
        order = owner.argsort(stable=True)
        ones, sizes = [1] * world, torch.bincount(owner, minlength=world)
        receive = collectives.all_to_all(sizes, ones, ones, group).wait().tolist()
        send = sizes.tolist()
        asked = collectives.all_to_all(nodes[order], send, receive, group).wait()
        found: list[Rows] = [self._draw(some, fanout, seed) for some in asked.split(receive)]
        count = collectives.all_to_all(torch.cat([c for c, _, _ in found]), receive, send, group).wait()
        back = [len(source) for _, source, _ in found]
        come = [int(part.sum()) for part in count.split(send)]
        source, weight = (
            collectives.all_to_all(torch.cat([part[k] for part in found]), back, come, group).wait()
            for k in (1, 2)
        )
        # From the order of the owners to that of the nodes.
        starts = torch.empty_like(count)
        starts[order] = count.cumsum(0) - count
        counts = torch.empty_like(count)
        counts[order] = count
        crow = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        slot = torch.arange(len(source)) + torch.repeat_interleave(starts - crow[:-1], counts)
        return crow, source[slot], weight[slot]

    def _draw(self, targets: Tensor, fanout: int, seed: int) -> Rows:
        """The same of own nodes: how many edges each has, their sources, and weights times what an edge stands for."""
        crow, col, slot, scale, nodes = _library.operators.sample_neighbors(
            self._crow, self._col, None, targets, fanout, self.replace, seed, True
        )
        weight = torch.ones(len(col), dtype=torch.float64) if not len(scale) else scale
        if self._weight is not None:
            weight = weight * self._weight[slot.long()]
        return crow.diff().long(), nodes[col.long()], weight

    def _features(self, exchange: Exchange, order: Tensor) -> Tensor:
        x = self.graph.x
        assert x is not None
        if x.layout == torch.sparse_csr:
            crow, col, value = exchange.rows(x.crow_indices(), x.col_indices(), x.values())
            count = torch.empty(len(order), dtype=torch.int64)
            starts = torch.empty_like(count)
            count[order], starts[order] = crow.diff(), crow[:-1]
            first = torch.cat([count.new_zeros(1), count.cumsum(0)])
            slot = torch.arange(len(col)) + torch.repeat_interleave(starts - first[:-1], count)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
                size = len(order), x.shape[1]
                return torch.sparse_csr_tensor(first, col[slot], value[slot], size, check_invariants=False)
        rows = exchange.finish(exchange.start(x))
        return torch.empty_like(rows).index_copy_(0, order, rows)
