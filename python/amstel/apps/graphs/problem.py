"""The data of a node classification study: propagation matrices, and the part of the graph that the loss depends on.

The propagation variants of table 3 are all  Z = sum_k T_k X W_k.  T = [T_0 T_1 ...] is kept as one
sparse matrix whose column j K + k is column j of T_k, so that X [W_0 W_1 ...], read as [N K, features],
is multiplied once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amstel.apps.graphs.features import check_features, rows_of, times
from amstel.apps.graphs.matrices import Rows, joined, supports
from amstel.apps.graphs.settings import Settings
from amstel.data.nodes import NodeData
from amstel.graph import Graph

PARTS = ("train", "val", "test")


def _identity(columns: Tensor, n: int) -> Tensor:
    """Rows of the identity [., n]."""
    index = torch.stack([torch.arange(len(columns)), columns])
    size, ones = (len(columns), n), torch.ones(len(columns), dtype=torch.float32)
    return torch.sparse_coo_tensor(index, ones, size, is_coalesced=True, check_invariants=False)


class _Here:
    """Stands in for `amstel.distributed.Exchange` if all rows are in this process: it does nothing."""

    def __call__(self, x: Tensor) -> Tensor:
        return x

    adjoint = __call__


def _all_here(wanted: Tensor) -> tuple[Any, Tensor]:
    return _Here(), wanted


class _Field:
    """The part of the graph and the features that the outputs at `nodes` depend on.

    t2 [nodes, n1 K], t1 [n1, n2 K] and x [n2, F], with n1 the nodes whose hidden layer and n2 those whose
    features matter. Where the rows are spread over processes, `route` says which of its own a process computes and
    gives what fetches those that its t2 and t1 need; `nodes`, t2, t1 and x are then the rows of this process.
    """

    def __init__(
        self,
        problem: _Problem,
        nodes: Tensor,
        route: Callable[[Tensor], tuple[Any, Tensor]] = _all_here,
    ):
        t2, wanted = self._rows(problem.together, nodes, problem.supports)
        self.fetch2, near = route(wanted)
        t1, wanted = self._rows(problem.together, near, problem.supports)
        self.fetch1, far = route(wanted)
        self.t2, self.t1 = (graph.to(problem.device) for graph in (t2, t1))
        self.x = rows_of(problem.features, far, problem.device)
        self.near, self.far = len(near), len(far)
        # Numbers in the whole graph, because masks depend on the node.
        self.near_nodes, self.far_nodes = problem.numbers[near], problem.numbers[far]

    @staticmethod
    def _rows(together: Rows, nodes: Tensor, k: int) -> tuple[Graph, Tensor]:
        """The given rows, with the columns of nodes that do not occur in them left out, and those nodes."""
        part = together.select(nodes)
        col = part.col // k if k > 1 else part.col
        wanted = torch.bincount(col, minlength=1).nonzero()[:, 0]
        place = torch.empty(part.width // k, dtype=col.dtype)
        place[wanted] = torch.arange(len(wanted), dtype=col.dtype)
        number = place.index_select(0, col)
        if k > 1:
            number = number * k + part.col % k
        return Graph.from_csr(part.crow, number, part.value, num_cols=len(wanted) * k), wanted

    def hidden(self, product: Tensor, width: int) -> Tensor:
        """t1 times X W_0 [S, n2, K h] of this process: [S, n1, h]."""
        return times(self.t1, self.fetch1(product).reshape(len(product), -1, width))

    def output(self, product: Tensor, width: int) -> Tensor:
        """t2 times H W_1 [S, n1, K C] of this process: [S, nodes, C]."""
        return times(self.t2, self.fetch2(product).reshape(len(product), -1, width))

    def logits(self, w1: Tensor, w2: Tensor) -> Tensor:
        """Without dropout: w1 [S, F, K h], w2 [S, h, K C] -> [S, nodes, C]."""
        h, c = w2.shape[1], w2.shape[2] * w2.shape[1] // w1.shape[2]
        product = self.x.product(w1)
        return self.output(self.hidden(product, h).relu_() @ w2, c)


class _Problem:
    """A whole problem in this process; `amstel.apps.graphs.spread` has the one that processes share."""

    def __init__(self, data: NodeData, model: str, settings: Settings, device: str | torch.device = "cpu"):
        self.settings, self.device = settings, torch.device(device)
        self.outputs = data.num_classes
        self.of: tuple[str, ...] = data.name, model
        self.numbers = torch.arange(data.num_nodes)
        check_features(data.name, data.features)
        self._matrices(supports(data.graph, model), data.features)
        parts = {part: getattr(data, part) for part in PARTS}
        self._split(parts, {part: len(nodes) for part, nodes in parts.items()}, data.labels)

    def _matrices(self, matrices: list[Rows], features: Tensor | None) -> None:
        self.supports, total = len(matrices), matrices[0].width
        self.together = joined(matrices)
        if features is None:
            self.features = _identity(self.numbers, total)
        elif features.layout == torch.strided:
            self.features = features.detach()
        else:
            self.features = features.float().to_sparse_coo().coalesce()
        self.input_dropout = 0.0 if features is None else self.settings.dropout

    def _split(self, parts: dict[str, Tensor], totals: dict[str, int], labels: Tensor) -> None:
        self.totals = {part: total for part, total in totals.items() if total}
        self.fields = {part: self.field(parts[part]) for part in self.totals}
        self.labels = {part: labels[parts[part]].to(self.device) for part in self.totals}

    def check(self, w1: Tensor, w2: Tensor) -> None:
        """ValueError where the weights of a checkpoint are for other features or classes."""
        wanted = (self.features.shape[1], self.outputs)
        got = (w1.shape[0], w2.shape[1] // self.supports)
        if wanted != got:
            raise ValueError(
                f"the network is for {got[0]} features and {got[1]} classes, but {self.of[0]} has {wanted[0]} and {wanted[1]}"
            )

    def field(self, nodes: Tensor) -> _Field:
        """Everything that the outputs at `nodes`, rows of this process, depend on."""
        return _Field(self, nodes)

    def total(self, value: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        return value

    def mean(self, values: Tensor, part: str) -> Tensor:
        """values [S, nodes] of a part: the means over its nodes in all processes."""
        return self.total(values.sum(-1)) / self.totals[part]

    def chunk(self) -> int:
        """Enough seeds to hide the cost of a call, few enough to stay in the cache."""
        s = self.settings
        edges = int(self.total(torch.tensor(self.fields["train"].x.entries, device=self.device)))
        floats = 4 * self.features.shape[1] * self.supports * s.hidden + edges
        return max(1, min(16, 2**20 // floats))

    def glorot(self, generator: np.random.Generator, rows: int, cols: int) -> np.ndarray:
        """[rows, supports * cols], with its own range for each support's matrix (Glorot and Bengio 2010)."""
        limit = math.sqrt(6 / (rows + cols))
        w = generator.uniform(-limit, limit, (self.supports, rows, cols)).astype(np.float32)
        return w.transpose(1, 0, 2).reshape(rows, -1)


class _EarlyStopping:
    """Keeps the weights of each seed from its last epoch."""

    def __init__(self, problem: _Problem, w1: Tensor, w2: Tensor):
        self.problem, self.current = problem, (w1, w2)
        self.rule = problem.settings.early_stopping
        self.kept = (w1, w2) if self.rule == "none" else (w1.detach().clone(), w2.detach().clone())
        self.epochs = torch.zeros(len(w1), dtype=torch.int64, device=w1.device)
        self.running = torch.ones(len(w1), dtype=torch.bool, device=w1.device)
        self.costs: list[Tensor] = []

    def all_stopped(self) -> bool:
        """After every epoch: whether every seed has stopped."""
        self.epochs += self.running
        if self.rule == "none":
            return False
        w1, w2 = self.current
        settings, labels = self.problem.settings, self.problem.labels["val"]
        logits = self.problem.fields["val"].logits(w1, w2)
        target = labels.expand(len(w1), -1)
        losses = torch.nn.functional.cross_entropy(logits.mT, target, reduction="none")
        cost = self.problem.mean(losses, "val")
        if self.rule == "kipf":
            cost += settings.weight_decay / 2 * w1.square().sum((1, 2))
        self.costs.append(cost)
        for kept, now in zip(self.kept, self.current, strict=True):
            kept[self.running] = now[self.running]
        if len(self.costs) > settings.patience + 1:
            before = torch.stack(self.costs[-settings.patience - 1 : -1]).mean(0)
            self.running &= cost <= before
        return not bool(self.running.any())

    def weights(self) -> tuple[Tensor, Tensor]:
        return self.kept
