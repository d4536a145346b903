"""Kipf & Welling's semi-supervised node classification, many seeds at a time.

Two exact identities make a study of a hundred seeds a matter of seconds.

The loss sees only the training nodes, so a two-layer model needs the hidden layer only at their
neighbors and the features only at the neighbors of those. `_Field` cuts the propagation matrices and
the features down to these rows; the rest of the graph takes part when the accuracy is measured.

Every seed has its own weights and its own dropout, and all of them share the structure. The seeds of a
chunk lie along a batch axis, so that one SpMM a step serves them all, and a seed's arrays fit in the
cache of the core that works on it. Dropped features are zeros among the values of one block-diagonal
sparse matrix, one block a seed.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from amstel import _check
from amstel.apps import ranks, training
from amstel.apps.graphs.problem import _Dropout, _Problem, _times, _transpose
from amstel.apps.graphs.results import Seed, resumed
from amstel.apps.graphs.results import Study as Study
from amstel.apps.graphs.results import read as read
from amstel.apps.graphs.results import save as save
from amstel.apps.graphs.settings import MODELS as MODELS
from amstel.apps.graphs.settings import MOST_SEEDS, OLD_MODELS
from amstel.apps.graphs.settings import STOPPING as STOPPING
from amstel.apps.graphs.settings import Settings as Settings
from amstel.apps.ranks import on
from amstel.apps.task import Plan, Task
from amstel.apps.training import CHECKPOINT
from amstel.data.nodes import NodeData
from amstel.graph import Graph


def study(
    data: NodeData,
    model: str = "gcn",
    seeds: Sequence[int] = range(100),
    settings: Settings | None = None,
    progress: Callable[[int], None] | None = None,
    chunk: int | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    device: str | torch.device = "cpu",
) -> Study:
    r"""Train a two-layer model once for every seed and measure its accuracy on the test nodes.

    Z = softmax(sum_k T_k dropout(H) W1_k),  H = relu(sum_k T_k dropout(X) W0_k), no bias, with the T_k of
    table 3 in the paper (S = D^-1/2 A D^-1/2):

    ==============  ===========================================  ============================
    model           T_0, T_1, ...                                row of the table
    ==============  ===========================================  ============================
    "gcn"           (D + I)^-1/2 (A + I) (D + I)^-1/2            renormalization trick, eq. 9
    "cheb2", 3      T_k(L̃), k = 0..2 or 3, L̃ = -S (λ_max = 2)    Chebyshev filter, eq. 5
    "first_order"   I, S                                         first-order model, eq. 6
    "single"        I + S                                        single parameter, eq. 7
    "neighbors"    S                                            first-order term only
    "mlp"           I                                            multi-layer perceptron
    ==============  ===========================================  ============================

    Each seed is a run of its own: own Glorot weights, own dropout masks, from its own generator, so that a
    seed's result depends neither on the others nor on `chunk`.

    Args:
        data: the problem; without features X = I, which is not dropped out.
        model: see above.
        seeds: integers >= 0.
        settings: default: the paper's for this data set.
        progress: called with the number of (seed, epoch) pairs done since the last call.
        chunk: seeds trained together; by default as many as pay.
        out: a folder for `checkpoint.pt`, written after every chunk: the results so far, and the best weights.
        resume: go on with the seeds that the checkpoint in `out` lacks.
        force: overwrite a run that is in `out`.
        device: where to train.

    In a process group (torch.distributed) every process takes its share of the chunks; all return all results, which
    do not depend on the number of processes.

    Source: T. N. Kipf and M. Welling, Semi-Supervised Classification with Graph Convolutional Networks,
    ICLR 2017, sections 2, 3 and 5; the details follow the code published with it.

    Example:
        >>> data = amstel.data.block_model(nodes=400)
        >>> result = amstel.apps.graphs.train.study(data, seeds=range(4))
        >>> len(result.accuracy), result.mean > 0.5
        (4, True)
    """
    if not isinstance(data, NodeData):
        raise TypeError(f"`data` must be an amstel.data.NodeData, got {_check.describe(data)}")
    if isinstance(model, str) and model in OLD_MODELS:
        warnings.warn(f"the model {model!r} is now {OLD_MODELS[model]!r}", DeprecationWarning, stacklevel=2)
        model = OLD_MODELS[model]
    _check.choice("model", model, MODELS)
    if settings is None:
        settings = Settings.for_data(data.name)
    elif not isinstance(settings, Settings):
        _check.fail_type("settings", "an amstel.apps.graphs.settings.Settings", settings)
    seeds = _seeds(seeds)
    chunk = chunk if chunk is None else _check.integer("chunk", chunk, 1)
    resume, force = _check.flag("resume", resume), _check.flag("force", force)
    if out is not None and not isinstance(out, (str, os.PathLike)):
        _check.fail_type("out", "a path", out)
    if progress is not None and not callable(progress):
        _check.fail_type("progress", "a function, or None", progress)
    device = on(device)
    for part in ("train", "test"):
        if not len(getattr(data, part)):
            raise ValueError(f"`data` must have {part} nodes, and {data!r} has none")
    if bool((data.labels[data.test] < 0).any()):
        raise ValueError(f"`data` must have the labels of its test nodes, and {data!r} lacks some")
    if settings.early_stopping != "none" and not len(data.val):
        raise ValueError(f"early stopping needs validation nodes, and {data!r} has none")
    folder = training.begin(out, resume, force)
    result = Study(data.name, model, settings, seeds)
    if resume:
        result = resumed(result, read(folder / CHECKPOINT))  # type: ignore[operator]
    group, start, before = ranks.current(device), time.perf_counter(), result.seconds
    problem = _Problem(data, model, settings, group.device)
    size = min(chunk or problem.chunk(), -(-len(seeds) // group.world))
    begins = range(len(result.accuracy), len(seeds), size)
    try:
        for first in range(0, len(begins), group.world):  # a chunk for every process
            own = group.share(begins[first : first + group.world])
            found = [_train(problem, seeds[b : b + size], progress) for b in own]
            for some in group.merge(found):
                for seed in some:
                    result.add(seed)
            result.seconds = before + time.perf_counter() - start
            if folder is not None and group.first:
                save(folder / CHECKPOINT, result)
    except KeyboardInterrupt:
        if folder is None or not result.accuracy:
            raise
        raise KeyboardInterrupt(f"interrupted; --resume goes on from {folder / CHECKPOINT}") from None
    return result


def _seeds(seeds: Any) -> list[int]:
    expected = "one or more integers >= 0"
    if isinstance(seeds, (str, bytes)) or not isinstance(seeds, Iterable):
        _check.fail_type("seeds", expected, seeds)
    if isinstance(seeds, range) and len(seeds) >= MOST_SEEDS:
        _check.fail("seeds", f"less than {MOST_SEEDS} integers", seeds)
    found = [_check.integer("seeds", seed, 0, expected) for seed in seeds]
    if not found:
        _check.fail("seeds", expected, found)
    return found


def _train(problem: _Problem, seeds: list[int], progress: Callable[[int], None] | None) -> list[Seed]:
    task, epochs = _Chunk(problem, seeds), problem.settings.epochs
    update = None if progress is None else lambda n: progress(n * len(seeds))
    training.fit(task, Plan(epochs, epochs), ranks.Ranks(device=problem.device), progress=update)
    return task.results()


class _Weights(nn.Module):
    """Both layers of every seed of a chunk."""

    def __init__(self, first: Sequence[np.ndarray], second: Sequence[np.ndarray], device: torch.device):
        super().__init__()
        self.w1, self.w2 = (nn.Parameter(torch.from_numpy(np.stack(w)).to(device)) for w in (first, second))


class _Chunk(Task):
    """Some seeds, trained together; the gradient is written out, as autograd would keep what is not needed."""

    def __init__(self, problem: _Problem, seeds: list[int]):
        s, part, device = problem.settings, problem.fields["train"], problem.device
        self.problem, self.count = problem, len(seeds)
        inputs = problem.features.shape[1]
        generators = [np.random.Generator(np.random.SFC64(seed)) for seed in seeds]
        first = [problem.glorot(g, inputs, s.hidden) for g in generators]
        second = [problem.glorot(g, s.hidden, problem.outputs) for g in generators]
        self.model = self.module = _Weights(first, second, device)
        w1, w2 = self.model.parameters()
        w1.grad, w2.grad = torch.empty_like(w1), torch.empty_like(w2)
        # The l2_loss of the published code is half the sum of squares, which is what weight_decay means here.
        groups: list[dict] = [{"params": [w1], "weight_decay": s.weight_decay}, {"params": [w2]}]
        self.optimizer = torch.optim.Adam(groups, lr=s.learning_rate, fused=True)
        self.stopping = _EarlyStopping(problem, w1, w2)
        self.losses: list[Tensor] = []

        # One block of features a seed, so that each has its own dropped values.
        edges = part.x.num_edges
        block = torch.arange(self.count, device=device)[:, None]
        last = torch.tensor([self.count * edges], device=device)
        crow = torch.cat([(part.x.crow[:-1] + block * edges).flatten(), last])
        col = (part.x.col + block * inputs).flatten()
        self.x = Graph.from_csr(crow, col, num_cols=self.count * inputs)
        self.transposed = [_transpose(graph) for graph in (self.x, part.t1, part.t2)]
        self.input_dropout = _Dropout(problem.input_dropout, edges, generators)
        self.dropout = _Dropout(s.dropout, part.near * s.hidden, generators)
        self.target = problem.labels["train"].repeat(self.count)
        self.every = torch.arange(len(self.target), device=device)

    @torch.no_grad()
    def gradients(self, step: int) -> Tensor:
        s, part, count, k = (
            self.problem.settings,
            self.problem.fields["train"],
            self.count,
            self.problem.supports,
        )
        (w1, w2), (x_t, t1_t, t2_t) = self.model.parameters(), self.transposed
        kept = self.input_dropout.draw(part.values).flatten().to(self.problem.device)
        mask = self.dropout.draw().view(count, part.near, s.hidden).to(self.problem.device)
        product = _times(self.x, w1.view(count * w1.shape[1], -1), kept)
        hidden = _times(part.t1, product.view(count, part.far * k, s.hidden))
        # The factor of both relu and dropout, which is its own gradient.
        mask *= hidden > 0
        hidden *= mask
        logits = _times(part.t2, torch.bmm(hidden, w2).view(count, part.near * k, -1))

        # Gradient of the mean cross-entropy: softmax - one-hot, over the number of nodes.
        grad = logits.softmax(-1)
        probability = grad.view(-1, self.problem.outputs)
        loss = -probability[self.every, self.target].log().view(count, -1).mean(-1)
        probability[self.every, self.target] -= 1
        grad /= logits.shape[1]
        grad = _times(t2_t, grad).view(count, part.near, -1)
        torch.bmm(hidden.mT, grad, out=w2.grad)
        grad = torch.bmm(grad, w2.mT).mul_(mask)
        grad = _times(t1_t, grad).view(count * part.far, -1)
        w1.grad = _times(x_t, grad, kept).view_as(w1)
        self.losses.append(loss)
        return loss.mean()[None]

    def prepare(self, step: int) -> None:
        # TensorFlow adds its epsilon before it corrects the bias of the second moment.
        for group in self.optimizer.param_groups:
            group["eps"] = 1e-8 / math.sqrt(1 - 0.999 ** (step + 1))

    @torch.no_grad()
    def finished(self) -> bool:
        return self.stopping.all_stopped()

    @torch.no_grad()
    def results(self) -> list[Seed]:
        """What came of every seed."""
        w1, w2 = (w.detach() for w in self.stopping.weights())
        share = {}
        for part in ("val", "test"):
            if part in self.problem.fields:
                found = self.problem.fields[part].logits(w1, w2).argmax(-1) == self.problem.labels[part]
                share[part] = found.double().mean(-1).tolist()
        epochs, losses = self.stopping.epochs.tolist(), torch.stack(self.losses, 1).tolist()
        return [
            Seed(
                share["test"][n],
                share["val"][n] if "val" in share else None,
                epochs[n],
                losses[n][: epochs[n]],
                (w1[n].cpu().clone(), w2[n].cpu().clone()),
            )
            for n in range(self.count)
        ]


class _EarlyStopping:
    """Keeps the weights of each seed as they were in its last epoch."""

    def __init__(self, problem: _Problem, w1: Tensor, w2: Tensor):
        self.problem, self.current = problem, (w1, w2)
        self.rule = problem.settings.early_stopping
        self.kept = (w1, w2) if self.rule == "none" else (w1.detach().clone(), w2.detach().clone())
        self.epochs = torch.zeros(len(w1), dtype=torch.int64, device=w1.device)
        self.running = torch.ones(len(w1), dtype=torch.bool, device=w1.device)
        self.costs: list[Tensor] = []

    def all_stopped(self) -> bool:
        """After every epoch: whether no seed runs any more."""
        self.epochs += self.running
        if self.rule == "none":
            return False
        w1, w2 = self.current
        settings, labels = self.problem.settings, self.problem.labels["val"]
        logits = self.problem.fields["val"].logits(w1, w2)
        target = labels.expand(len(w1), -1)
        cost = torch.nn.functional.cross_entropy(logits.mT, target, reduction="none").mean(-1)
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
