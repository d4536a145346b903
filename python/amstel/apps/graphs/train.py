"""Kipf & Welling's semi-supervised node classification, with many seeds at a time.

Two exact identities reduce a study of a hundred seeds to seconds.

The loss sees only the training nodes, so a two-layer model needs the hidden layer only at their
neighbors and the features only at the neighbors of those. `_Field` cuts the propagation matrices and
the features down to these rows; the rest of the graph is used only to measure the accuracy.

Every seed has its own weights and its own dropout, but all seeds share the structure. The seeds of a
chunk lie along a batch axis, so that one SpMM per step serves them all, and a seed's arrays fit in the
cache of the core that works on it. Dropped features are zeros among the values of one block-diagonal
sparse matrix, one block per seed. What is dropped depends only on the seed, the epoch, the layer and the node
(`amstel.distributed.NodeDropout`), so several processes can share one graph and compute the same results.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from amstel import _check
from amstel.apps import ranks, restarts, training
from amstel.apps.graphs.features import times, transpose
from amstel.apps.graphs.problem import _EarlyStopping, _Problem
from amstel.apps.graphs.results import Seed, resumed
from amstel.apps.graphs.results import Study as Study
from amstel.apps.graphs.results import read as read
from amstel.apps.graphs.results import save as save
from amstel.apps.graphs.sampled import Sampled
from amstel.apps.graphs.settings import MODELS as MODELS
from amstel.apps.graphs.settings import MOST_SEEDS, OLD_MODELS
from amstel.apps.graphs.settings import STOPPING as STOPPING
from amstel.apps.graphs.settings import Settings as Settings
from amstel.apps.graphs.sources import digest, place
from amstel.apps.graphs.spread import DistributedProblem
from amstel.apps.graphs.unfinished import Resumable
from amstel.apps.ranks import on
from amstel.apps.task import Plan
from amstel.apps.training import CHECKPOINT
from amstel.data.nodes import NodeData
from amstel.distributed import DistributedGraph, NodeDropout, key
from amstel.distributed._collectives import gather, together
from amstel.distributed.graph import same

#: Folder of an unfinished chunk of a distributed run, and the least number of steps between saves.
RUNNING, SAVE_EVERY = "running", 50


def study(
    data: NodeData | DistributedGraph,
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
    r"""Train a two-layer model once per seed and measure its accuracy on the test nodes.

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

    Each seed is an independent run, with Glorot weights and dropout masks from its own generator, so a
    seed's result does not depend on the others or on `chunk`.

    Args:
        data: the problem; without features X = I, to which dropout does not apply. Or this process's part of it: then all
            processes work on every seed.
        model: see above.
        seeds: integers >= 0.
        settings: default: the paper's for this data set.
        progress: called with the number of (seed, epoch) pairs finished since the last call.
        chunk: seeds trained together; by default, as many as is efficient. With a sampler, one.
        out: a folder for `checkpoint.pt`, written after every chunk: the results so far, and the best weights.
        resume: continue with the seeds that the checkpoint in `out` lacks.
        force: overwrite a run in `out`.
        device: where to train.

    In a process group (torch.distributed), each process trains its share of the chunks; all return all results, which
    do not depend on the number of processes.

    Source: T. N. Kipf and M. Welling, Semi-Supervised Classification with Graph Convolutional Networks,
    ICLR 2017, sections 2, 3 and 5; the details follow the code published with it.

    Example:
        >>> data = amstel.data.block_model(nodes=400)
        >>> result = amstel.apps.graphs.train.study(data, seeds=range(4))
        >>> len(result.accuracy), result.mean > 0.5
        (4, True)
    """
    spread = isinstance(data, DistributedGraph)
    if not spread and not isinstance(data, NodeData):
        raise TypeError(f"`data` must be an amstel.data.NodeData, got {_check.describe(data)}")
    if isinstance(model, str) and model in OLD_MODELS:
        warnings.warn(f"the model {model!r} is now {OLD_MODELS[model]!r}", DeprecationWarning, stacklevel=2)
        model = OLD_MODELS[model]
    _check.choice("model", model, MODELS)
    if isinstance(data, DistributedGraph):
        name, known = data.meta["name"], data.meta["graph"]
    else:
        name, known = data.name, digest(data)
    if settings is None:
        settings = Settings.for_data(name)
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
    _check_nodes(data, settings)
    if settings.sampler != "none" and model != "gcn":
        raise ValueError(
            f'`sampler` must be \'none\' with the model "{model}": neighbors are sampled only for the model "gcn"'
        )
    folder = training.begin(out, resume, force)
    result = Study(name, model, settings, seeds, digest=known, folder=place(data))
    group = ranks.current(device)
    with together() if spread else contextlib.nullcontext():
        begun = spread and folder is not None and (folder / RUNNING / CHECKPOINT).is_file()
        if begun and not resume and not force and group.first:
            raise FileExistsError(f"{folder} holds an unfinished run: resume continues it, force discards it")
        if resume and (group.first or not spread) and not (begun and not (folder / CHECKPOINT).exists()):  # type: ignore[operator]
            result = resumed(result, read(folder / CHECKPOINT))  # type: ignore[operator]
    if spread:
        result = gather(result)[0]
    start, before = time.perf_counter(), result.seconds
    if isinstance(data, DistributedGraph):
        same("what to train", (model, settings, seeds, len(result.accuracy)))
        problem: _Problem = DistributedProblem(data, model, settings, group.device)
        writes, group = group.first, ranks.Ranks(device=group.device)  # all work on every chunk
    else:
        problem, writes = _Problem(data, model, settings, group.device), group.first
    if result.best is not None:
        problem.check(*result.best[1:])
    size = min(chunk or problem.chunk(), -(-len(seeds) // group.world))
    if settings.sampler != "none":
        size = 1
    begins = range(len(result.accuracy), len(seeds), size)
    try:
        for first in range(0, len(begins), group.world):  # a chunk for every process
            own = group.share(begins[first : first + group.world])
            running = folder / RUNNING if spread and folder is not None else None
            found = []
            for b in own:
                task = _task(problem, data, seeds[b : b + size])
                found.append(_train(task, progress, running, writes, resume, force))
            for some in group.merge(found):
                for seed in some:
                    result.add(seed)
            result.seconds = before + time.perf_counter() - start
            with together() if spread else contextlib.nullcontext():
                if folder is not None and writes:
                    if first == 0:  # once more: another run may have begun there since
                        training.begin(folder, resume, force)
                    save(folder / CHECKPOINT, result)
                    restarts.wrote(folder / CHECKPOINT)
                    shutil.rmtree(folder / RUNNING, ignore_errors=True)
    except KeyboardInterrupt:
        if folder is None or not result.accuracy:
            raise
        raise KeyboardInterrupt(f"interrupted; --resume continues from {folder / CHECKPOINT}") from None
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


def _check_nodes(data: NodeData | DistributedGraph, settings: Settings) -> None:
    """Check that there are nodes for training, early stopping and testing."""
    if isinstance(data, DistributedGraph):
        held_out = data.totals.get("val")
    else:
        for part in ("train", "test"):
            if not len(getattr(data, part)):
                raise ValueError(f"`data` must have {part} nodes, and {data!r} has none")
        if bool((data.labels[data.test] < 0).any()):
            raise ValueError(f"`data` must have the labels of its test nodes, and {data!r} lacks some")
        held_out = len(data.val)
    if settings.early_stopping != "none" and not held_out:
        raise ValueError(f"early stopping needs validation nodes, and {data!r} has none")


def _task(problem: _Problem, data: NodeData | DistributedGraph, seeds: list[int]) -> _Chunk | Sampled:
    if problem.settings.sampler == "none":
        return _Chunk(problem, seeds)
    return Sampled(problem, data, *seeds)


def _train(
    task: _Chunk | Sampled,
    progress: Callable[[int], None] | None,
    running: Path | None = None,
    writes: bool = False,
    resume: bool = False,
    force: bool = False,
) -> list[Seed]:
    """Train a chunk; `running` is a folder with what the chunk needs to continue, written by one process."""
    steps, total = task.steps, task.problem.settings.epochs * task.steps
    state = None
    if resume and running is not None:
        with together():
            if writes and (running / CHECKPOINT).is_file():
                state = torch.load(running / CHECKPOINT, map_location="cpu", weights_only=True)
        state = task.restored(gather(state)[0] or {})
    done = 0

    def update(_: int) -> None:
        nonlocal done
        done += 1
        if progress is not None and done % steps == 0:
            progress(len(task.seeds))

    save_every = steps * -(-SAVE_EVERY // steps)  # only between epochs
    plan = Plan(total, total, running if writes else None, save_every=save_every, force=resume or force)
    training.fit(task, plan, ranks.Ranks(device=task.problem.device), state, progress=update)
    return task.results()


class _Weights(nn.Module):
    """Both layers of every seed in a chunk."""

    def __init__(self, first: Sequence[np.ndarray], second: Sequence[np.ndarray], device: torch.device):
        super().__init__()
        self.w1, self.w2 = (nn.Parameter(torch.from_numpy(np.stack(w)).to(device)) for w in (first, second))


class _Chunk(Resumable):
    """Some seeds, trained together; the gradient is written by hand, because autograd would keep more than is needed."""

    def __init__(self, problem: _Problem, seeds: list[int]):
        s, part, device = problem.settings, problem.fields["train"], problem.device
        self.problem, self.count, self.seeds = problem, len(seeds), seeds
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

        self.x = part.x.copies(self.count)
        self.transposed = [transpose(graph) for graph in (part.t1, part.t2)]
        self.input_dropout = NodeDropout(problem.input_dropout, part.far_nodes.to(device), part.x.sizes)
        self.dropout = NodeDropout(s.dropout, part.near_nodes.to(device), s.hidden)
        self.target = problem.labels["train"].repeat(self.count)
        self.every = torch.arange(len(self.target), device=device)

    @torch.no_grad()
    def gradients(self, step: int) -> Tensor:
        problem, part, count = self.problem, self.problem.fields["train"], self.count
        k, h, c = problem.supports, problem.settings.hidden, problem.outputs
        (w1, w2), (t1_t, t2_t) = self.model.parameters(), self.transposed
        drop_x, drop_h = ([key(seed, step, layer) for seed in self.seeds] for layer in range(2))
        kept = self.input_dropout.draw(drop_x, part.x.values)
        mask = self.dropout.draw(drop_h).view(count, part.near, h)
        hidden = part.hidden(self.x.product(w1, kept), h)
        # The factor of both relu and dropout, which is its own gradient.
        mask *= hidden > 0
        hidden *= mask
        logits = part.output(torch.bmm(hidden, w2), c)

        # Gradient of the mean cross-entropy: softmax - one-hot, over the number of nodes.
        # The loss is of the logits, because a softmax that is rounded to 0 has no logarithm.
        flat = logits.view(-1, c)
        loss = flat.logsumexp(-1) - flat[self.every, self.target]
        loss = problem.mean(loss.view(count, -1), "train")
        grad = logits.softmax(-1)
        grad.view(-1, c)[self.every, self.target] -= 1
        grad /= problem.totals["train"]
        grad = part.fetch2.adjoint(times(t2_t, grad).view(count, -1, k * c))
        assert w2.grad is not None
        torch.bmm(hidden.mT, grad, out=w2.grad)
        problem.total(w2.grad)
        grad = torch.bmm(grad, w2.mT).mul_(mask)
        grad = part.fetch1.adjoint(times(t1_t, grad).view(count, -1, k * h))
        w1.grad = problem.total(self.x.gradient(grad, kept))
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
        """The results of every seed."""
        w1, w2 = (w.detach() for w in self.stopping.weights())
        share = {}
        for part in ("val", "test"):
            if part in self.problem.fields:
                found = self.problem.fields[part].logits(w1, w2).argmax(-1) == self.problem.labels[part]
                share[part] = self.problem.mean(found.double(), part).tolist()
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
