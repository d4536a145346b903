"""A study on a graph that is split over the processes of `torchrun`, with the same losses as in one process.

The engine and the training come from `amstel.apps.graphs.train`. Each process holds the rows of the propagation
matrices for its own nodes and fetches what it needs about other nodes (`amstel.distributed.Exchange`), and the
gradients are added up.
"""

from __future__ import annotations

import torch
from torch import Tensor

from amstel.apps.graphs.features import check_features
from amstel.apps.graphs.matrices import Rows, polynomials
from amstel.apps.graphs.problem import PARTS, _Field, _identity, _Problem
from amstel.apps.graphs.settings import Settings
from amstel.distributed import DistributedGraph, Exchange
from amstel.distributed import _collectives as collectives


class DistributedProblem(_Problem):
    """The share of a problem in this process."""

    def __init__(
        self, graph: DistributedGraph, model: str, settings: Settings, device: str | torch.device = "cpu"
    ):
        self.settings, self.device = settings, torch.device(device)
        self.graph, self.outputs, self.numbers = graph, graph.meta["classes"], graph.nodes.cpu()
        self._offsets = graph.meta["offsets"]
        self.of = graph.meta["name"], model, graph.meta["graph"]
        features = None if graph.x is None else graph.x.cpu()
        with collectives.together(graph.group):
            check_features(graph.meta["name"], features, nodes=self.numbers)
        self._matrices(self._polynomials(model), features)
        if features is None:  # the identity, in the order of the whole graph
            self.features = _identity(self.numbers, graph.total_nodes)
        rows = {part: graph.splits[part].cpu() for part in PARTS if part in graph.splits}
        if graph.y is None or not graph.totals.get("train") or not graph.totals.get("test"):
            raise ValueError("the partition must hold labels and nodes to train and to test")
        labels = graph.y.cpu()
        with collectives.together(graph.group):
            for part, own in rows.items():
                if labels.dtype != torch.int64 or bool((labels[own] < 0).any()):
                    raise ValueError(
                        f"the partition must hold the classes of its {part} nodes; some are unknown"
                    )
        self._split(rows, graph.totals, labels)

    def _polynomials(self, model: str) -> list[Rows]:
        """The rows of the T_k for the nodes of this process, columns by the numbers of the partition."""
        graph, begin = self.graph, self._offsets[self.graph.rank]
        n, total = graph.num_nodes, graph.total_nodes
        index, values = graph.edges()
        adjacency = torch.sparse_coo_tensor(
            index.cpu(), values.float().cpu(), (n, total), check_invariants=False
        )
        del index, values

        def fetch(col: Tensor) -> tuple[Exchange, Tensor, Tensor]:
            wanted, number = col.unique(return_inverse=True)
            return Exchange(wanted, self._offsets, graph.group), wanted, number

        def at(scale: Tensor, col: Tensor) -> Tensor:
            exchange, _, number = fetch(col)
            return exchange(scale[:, None])[number, 0]

        def times(a: Tensor, b: Tensor) -> Tensor:
            row, col = a.indices()
            exchange, wanted, number = fetch(col)
            crow = torch.zeros(n + 1, dtype=torch.int64)
            crow[1:] = torch.bincount(b.indices()[0], minlength=n).cumsum(0)
            crow, there, value = exchange.rows(crow, b.indices()[1], b.values())
            index = torch.stack([torch.repeat_interleave(torch.arange(len(wanted)), crow.diff()), there])
            size = (len(wanted), total)
            right = torch.sparse_coo_tensor(index, value, size, check_invariants=False)
            left = torch.sparse_coo_tensor(
                torch.stack([row, number]), a.values(), (n, len(wanted)), check_invariants=False
            )
            return torch.sparse.mm(left, right)

        return polynomials(Rows.of(adjacency.coalesce()), begin + torch.arange(n), model, at, times)

    def field(self, nodes: Tensor) -> _Field:
        def route(wanted: Tensor) -> tuple[Exchange, Tensor]:
            dtype = self.graph.exchange.dtype
            exchange = Exchange(wanted.to(self.device), self._offsets, self.graph.group, dtype)
            return exchange, exchange.compact().cpu()

        return _Field(self, nodes, route)

    def total(self, value: Tensor) -> Tensor:
        return collectives.all_reduce(value, self.graph.group)
