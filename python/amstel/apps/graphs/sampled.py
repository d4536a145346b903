"""Node classification on sampled batches: the same two layers, for graphs too large for full-batch training.

A step sees a batch of training nodes with some of their neighbors (`amstel.data.NeighborLoader`). Sums are unbiased, and
degrees are those of the whole graph. Validation and test nodes are evaluated with all of their neighbors.

Where processes share the graph, each has the nodes of a batch that it owns (`amstel.data.DistributedNeighborLoader`), and
the gradients are added up. The draws and what is dropped follow from the seed and the node, so the losses are the same for
any number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from amstel.apps.graphs.problem import _EarlyStopping, _Problem
from amstel.apps.graphs.results import Seed
from amstel.apps.graphs.settings import Settings
from amstel.apps.graphs.unfinished import Resumable
from amstel.data.distributed_loader import DistributedBatch, DistributedNeighborLoader
from amstel.data.neighbor_loader import NeighborLoader
from amstel.data.nodes import NodeData, as_csr
from amstel.distributed import DistributedGraph, key, node_dropout
from amstel.nn._sparse import matmul
from amstel.ops.spmm import spmm


class _Layers(nn.Module):
    """The weights of both layers for one seed: [1, F, hidden] and [1, hidden, classes]."""

    def __init__(self, first: np.ndarray, second: np.ndarray, device: torch.device):
        super().__init__()
        self.w1, self.w2 = (nn.Parameter(torch.from_numpy(w[None]).to(device)) for w in (first, second))


def _loader(
    data: NodeData | DistributedGraph, settings: Settings, seed: int
) -> NeighborLoader | DistributedNeighborLoader:
    """The batches of the training nodes, on the CPU."""
    fanouts, size = settings.fanouts, settings.batch_size
    if isinstance(data, DistributedGraph):
        return DistributedNeighborLoader(data, fanouts, size, "train", seed=seed)
    x = data.features
    if x is not None and x.layout == torch.sparse_coo:
        x = as_csr(x)
    train = data.train.sort().values  # as the parts of a graph have them
    return NeighborLoader(data.graph, x, data.labels, fanouts, size, train, seed=seed)


class Sampled(Resumable):
    """Training of one seed."""

    def __init__(self, problem: _Problem, data: NodeData | DistributedGraph, seed: int):
        s, device = problem.settings, problem.device
        self.problem, self.seeds = problem, [seed]
        generator = np.random.Generator(np.random.SFC64(seed))
        first = problem.glorot(generator, problem.features.shape[1], s.hidden)
        self.model = self.module = _Layers(
            first, problem.glorot(generator, s.hidden, problem.outputs), device
        )
        w1, w2 = self.model.parameters()
        groups: list[dict] = [{"params": [w1], "weight_decay": s.weight_decay}, {"params": [w2]}]
        self.optimizer = torch.optim.Adam(groups, lr=s.learning_rate, fused=True)
        self.stopping = _EarlyStopping(problem, w1, w2)
        self.loader = _loader(data, s, seed)
        self.steps = len(self.loader)
        self._batches: Iterator[Any] = iter(())
        self._targets = 0
        self._left, self._running = 0, torch.zeros((), dtype=torch.float64, device=device)
        self.losses: list[Tensor] = []

    def restored(self, state: dict[str, Any]) -> dict[str, Any] | None:
        found = super().restored(state)
        self.loader.epoch = len(self.losses)
        return found

    def prepare(self, step: int) -> None:
        # As TensorFlow does it, and as the full-batch training does.
        for group in self.optimizer.param_groups:
            group["eps"] = 1e-8 / math.sqrt(1 - 0.999 ** (step + 1))

    def gradients(self, step: int) -> Tensor:
        if not self._left:
            self._batches, self._left = iter(self.loader), self.steps
            self._running = torch.zeros_like(self._running)
        batch = next(self._batches).to(self.problem.device)
        self._left -= 1
        total = batch.total if isinstance(batch, DistributedBatch) else len(batch.y)
        self._targets = total
        loss = nn.functional.cross_entropy(self._logits(batch, step), batch.y, reduction="sum")
        self.optimizer.zero_grad()
        (loss / total).backward()
        for w in self.model.parameters():
            assert w.grad is not None
            self.problem.total(w.grad)
        self._running += loss.detach()
        return (loss.detach() / total).double()[None]

    def batch_size(self, step: int) -> int:
        return self._targets

    def _logits(self, batch: Any, step: int) -> Tensor:
        problem, (w1, w2) = self.problem, (w[0] for w in self.model.parameters())
        x, (outer, inner) = batch.x, batch.layers
        drop_x, drop_h = (key(self.seeds[0], step, layer) for layer in range(2))
        if x is None:
            product = w1.index_select(0, batch.nodes)
        else:
            x = node_dropout(x.float(), problem.input_dropout, batch.nodes, drop_x)
            product = matmul(x, w1)
        h = spmm(outer, product, activation="relu")
        h = node_dropout(h, problem.settings.dropout, batch.nodes[: len(h)], drop_h)
        return spmm(inner, h @ w2)

    @torch.no_grad()
    def finished(self) -> bool:
        if self._left:
            return False
        self.losses.append(self.problem.total(self._running) / len(self.loader.seeds))
        return self.stopping.all_stopped()

    @torch.no_grad()
    def results(self) -> list[Seed]:
        """The results of the seed, with all neighbors."""
        w1, w2 = (w.detach() for w in self.stopping.weights())
        share = {}
        for part in ("val", "test"):
            if part in self.problem.fields:
                found = self.problem.fields[part].logits(w1, w2).argmax(-1) == self.problem.labels[part]
                share[part] = float(self.problem.mean(found.double(), part)[0])
        epochs = int(self.stopping.epochs[0])
        losses = [float(loss) for loss in self.losses[:epochs]]
        weights = w1[0].cpu().clone(), w2[0].cpu().clone()
        return [Seed(share["test"], share.get("val"), epochs, losses, weights)]
