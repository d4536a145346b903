"""Node classification on sampled batches: the same two layers, for graphs too large for full-batch training.

A step sees a batch of training nodes with some of their neighbors (`amstel.data.NeighborLoader`). Sums are unbiased, and
degrees are those of the whole graph. Validation and test nodes are evaluated with all of their neighbors.
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
from amstel.apps.task import Task
from amstel.data.neighbor_loader import NeighborLoader
from amstel.data.nodes import NodeData
from amstel.distributed import key
from amstel.nn._sparse import is_sparse, matmul, sparse_dropout
from amstel.ops.spmm import spmm


class _Layers(nn.Module):
    """The weights of both layers for one seed: [1, F, hidden] and [1, hidden, classes]."""

    def __init__(self, first: np.ndarray, second: np.ndarray, device: torch.device):
        super().__init__()
        self.w1, self.w2 = (nn.Parameter(torch.from_numpy(w[None]).to(device)) for w in (first, second))


class Sampled(Task):
    """Training of one seed."""

    def __init__(self, problem: _Problem, data: NodeData, seed: int):
        s, device = problem.settings, problem.device
        self.problem, self.own = problem, seed
        generator = np.random.Generator(np.random.SFC64(seed))
        first = problem.glorot(generator, problem.features.shape[1], s.hidden)
        self.model = self.module = _Layers(
            first, problem.glorot(generator, s.hidden, problem.outputs), device
        )
        w1, w2 = self.model.parameters()
        groups: list[dict] = [{"params": [w1], "weight_decay": s.weight_decay}, {"params": [w2]}]
        self.optimizer = torch.optim.Adam(groups, lr=s.learning_rate, fused=True)
        self.stopping = _EarlyStopping(problem, w1, w2)
        features = data.features
        if features is not None:
            features = features.to_sparse_csr() if features.layout == torch.sparse_coo else features
            features = features.float()
        self.loader = NeighborLoader(
            data.graph, features, data.labels, s.fanouts, s.batch_size, data.train, seed=seed, device=device
        )
        self._batches: Iterator[Any] = iter(())
        self._left, self._running = 0, torch.zeros((), dtype=torch.float64, device=device)
        self.losses: list[Tensor] = []

    @property
    def every(self) -> int:
        """Steps of an epoch."""
        return len(self.loader)

    def seed(self, epoch: int, rank: int) -> int:
        """Of the dropout."""
        return key(self.own, epoch) & (2**63 - 1)

    def prepare(self, step: int) -> None:
        # As TensorFlow does it, and as the full-batch training does.
        for group in self.optimizer.param_groups:
            group["eps"] = 1e-8 / math.sqrt(1 - 0.999 ** (step + 1))

    def gradients(self, step: int) -> Tensor:
        if not self._left:
            self._batches, self._left = iter(self.loader), self.every
            self._running = torch.zeros_like(self._running)
        batch = next(self._batches)
        self._left -= 1
        loss = nn.functional.cross_entropy(self._logits(batch), batch.y)
        loss.backward()
        self._running += loss.detach() * len(batch.y)
        return loss.detach().double()[None]

    def _logits(self, batch: Any) -> Tensor:
        problem, (w1, w2) = self.problem, (w[0] for w in self.model.parameters())
        x, (outer, inner) = batch.x, batch.layers
        if x is None:
            product = w1.index_select(0, batch.nodes)
        elif is_sparse(x):
            product = matmul(sparse_dropout(x, problem.input_dropout), w1)
        else:
            product = nn.functional.dropout(x, problem.input_dropout) @ w1
        h = spmm(outer, product, activation="relu")
        return spmm(inner, nn.functional.dropout(h, problem.settings.dropout) @ w2)

    @torch.no_grad()
    def finished(self) -> bool:
        if self._left:
            return False
        self.losses.append(self._running / len(self.loader.seeds))
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
