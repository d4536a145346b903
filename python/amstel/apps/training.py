"""The training engine of all applications: steps and epochs, checkpoints, resuming, processes, precision, averaging, the log.

An application describes what to train as a `Task`, and `fit` trains it. Everything random depends only on (seed, step), or
is in the checkpoint, so a run that was killed and resumed repeats the uninterrupted one bit for bit (with as
many threads and processes), and n processes compute what one would, except for the order of sums and the dropout masks.

It builds on torch alone. Accelerate was the alternative, but it gives every process the same number of samples by
repeating some if a batch does not divide evenly, so two processes differ from one, and it resumes within an epoch by running
through the loader again. Here a process without a share takes part with weight 0, and a step knows its own samples.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from amstel import _check, _files
from amstel._words import counted
from amstel.apps import identity, interrupts, restarts
from amstel.apps.ranks import Ranks, current
from amstel.apps.task import PRECISIONS, Plan, Task

CHECKPOINT, BEST, LOG = "checkpoint.pt", "best.pt", "log.jsonl"


def begin(out: str | Path | None, resume: bool, force: bool) -> Path | None:
    """The folder to write to; FileExistsError if it holds a run that is neither to be resumed nor overwritten."""
    if out is None:
        if resume:
            _check.fail("out", "the folder of the checkpoint to resume from", None)
        return None
    if not resume and not force:
        _not_there(Path(out) / CHECKPOINT)
    return Path(out)


def _not_there(file: Path) -> None:
    if file.exists():
        raise FileExistsError(f"{file} exists: resume continues it, force (--force) overwrites it")


def check_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    """ValueError if the weights of a checkpoint come from a training that diverged."""
    if not _finite(weights):
        raise ValueError(
            f"the weights in {path} are not finite: the training diverged before they were written"
        )


def in_epochs_of(state: dict[str, Any], batches: int) -> dict[str, Any]:
    """A checkpoint to continue with this many batches per epoch; if that changed with the data, after its last full epoch."""
    own = state.get("training", {})
    if own.get("every", batches) == batches:
        return state
    kept = {name: value for name, value in own.items() if name not in ("random", "total")}
    return {**state, "training": {**kept, "step": len(state["history"]) * batches}}


def _finite(weights: Mapping[str, Tensor]) -> bool:
    return all(bool(t.isfinite().all()) for t in weights.values())


def fit(
    task: Task,
    plan: Plan,
    ranks: Ranks | None = None,
    state: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[dict[str, float]]:
    """Train, and return the history: one entry of mean metrics per epoch. The caller's random state is restored.

    Args:
        task: what to train.
        plan: how long and how.
        ranks: default: the current process group.
        state: the checkpoint to continue from.
        progress: called with the number of items after every step.

    Raises:
        ValueError: the checkpoint belongs to a run with other data.
        KeyboardInterrupt: Ctrl-C, after the step has finished and a checkpoint has been written.
    """
    ranks = ranks or current(next(task.model.parameters()).device)
    plan = replace(plan, **(state or {}).get("training", {}).get("how", {}))  # it continues as it began
    devices = [ranks.device] if ranks.device.type == "cuda" else []
    with (
        _quiet(ranks),
        torch.random.fork_rng(devices),
        interrupts.noted(plan.out is not None and ranks.world == 1) as asked,
    ):
        run = _Run(task, plan, ranks, state)
        while run.step < plan.steps:
            count = run.one()
            stop = task.finished() or run.step == plan.steps
            if stop or run.step % plan.every == 0:
                run.end_epoch()
            elif asked or (plan.save_every and run.step % plan.save_every == 0):
                run.save()
            if progress is not None:
                progress(count)
            if stop:
                break
            if asked:
                raise KeyboardInterrupt(f"interrupted; --resume continues from {run.file}")
        if run.average:
            task.model.load_state_dict(run.average)
    return run.history


@contextlib.contextmanager
def _quiet(ranks: Ranks) -> Iterator[None]:
    """Hides DDP's warning about gradient strides."""
    if ranks.world == 1:
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Grad strides do not match")
        yield


class _Run:
    """The state of a training run."""

    def __init__(self, task: Task, plan: Plan, ranks: Ranks, state: Mapping[str, Any] | None):
        self.task, self.plan, self.ranks = task, plan, ranks
        own: dict[str, Any] = (state or {}).get("training", {})
        self.data = {} if plan.out is None else {name: identity.of(some) for name, some in task.given.items()}
        for name, data in self.data.items():
            identity.check(name, own.get("data", {}).get(name), data, plan.out, name in task.may_grow)
        if state and self.data and "data" not in own and ranks.first:
            said = "it was written by a version that did not record its data, so they could not be compared"
            warnings.warn(f"{plan.out}: {said}", stacklevel=2)
        self.history: list[dict[str, float]] = list(state["history"]) if state else []
        # The first release wrote the number of epochs, or of iterations, alone.
        self.step: int = own.get("step", (state or {}).get("iteration", len(self.history) * plan.every))
        self.best: float | None = own.get("best")
        self.random: list[dict[str, Tensor]] = own.get("random", [])
        self.total = torch.zeros(len(task.metrics) + 1, device=ranks.device, dtype=torch.float64)
        if "total" in own and ranks.first:
            self.total += own["total"].to(ranks.device)
        self.average: dict[str, Tensor] = {}
        if plan.average:
            self.average = {k: v.detach().clone() for k, v in task.model.state_dict().items()}
        if own.get("raw"):  # the checkpoint's model is the average
            task.model.load_state_dict(own["raw"])
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=plan.precision == "float16")
        if state:
            task.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(own.get("scaler", {}))
        self.module: Any = task.module
        if ranks.world > 1:
            parallel = nn.parallel.DistributedDataParallel
            self.module = parallel(task.module, find_unused_parameters=task.partial)
        self.file = None if plan.out is None else plan.out / CHECKPOINT
        self.fresh, self.opened = not state, False

    def _open(self, folder: Path, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Write the first checkpoint and all that belongs to it, so that a run that cannot start leaves what was there."""
        folder.mkdir(parents=True, exist_ok=True)
        texts = {LOG: "".join(map(self._line, range(len(self.history)))), **self.plan.beside}
        if not self.fresh:  # what is there is of the same run
            for name, text in texts.items():
                _files.write_text(folder / name, text)
            self._write(folder, states)
            return
        names = [CHECKPOINT, *self.plan.beside, BEST, LOG]
        with _files.replacing_together(*(folder / name for name in names)) as temporary:
            for name, place in zip(names, temporary, strict=True):
                if name in states:
                    _files.torch_save(folder / name, states[name], place)
                elif name in texts:
                    place.write_text(texts[name], encoding="utf-8")
            # Once more: another run may have begun there since.
            if not self.plan.force:
                _not_there(folder / CHECKPOINT)

    def _write(self, folder: Path, states: Mapping[str, Mapping[str, Any]]) -> None:
        for name, state in states.items():
            _files.torch_save(folder / name, state)

    def one(self) -> int:
        """Take one optimizer step; returns its number of items."""
        task, step = self.task, self.step
        if step % self.plan.every == 0:
            seed = task.seed(step // self.plan.every, self.ranks.rank)
            if seed is not None:
                torch.manual_seed(seed)
        elif len(self.random) == self.ranks.world:
            _set_random(self.random[self.ranks.rank], self.ranks.device)
        self.random = []
        task.prepare(step)
        metrics = task.gradients(step)
        if metrics is None:
            task.optimizer.zero_grad()
            items = task.items(step)
            self._backward(items)
            if task.clip:
                self.scaler.unscale_(task.optimizer)
                nn.utils.clip_grad_norm_(task.model.parameters(), task.clip)
            self.scaler.step(task.optimizer)
            self.scaler.update()
        else:
            items = (0,)
            self.total += task.batch_size(step) * torch.cat([metrics, metrics.new_ones(1)])
            task.optimizer.step()
        if self.average:
            self._average()
        self.step += 1
        return len(items)

    def _backward(self, whole: Sequence[int]) -> None:
        """The gradient over the whole batch; this process computes its share, in parts."""
        task, ranks, plan = self.task, self.ranks, self.plan
        share, weight = ranks.share(whole), 1.0
        if not share:  # the others wait for its result, which has weight 0
            share, weight = list(whole[:1]), 0.0
        count, dtype = min(plan.accumulate, len(share)), PRECISIONS[plan.precision]
        for number in range(count):
            part, last = share[number::count], number == count - 1
            quiet = contextlib.nullcontext() if last or self.module is task.module else self.module.no_sync()
            with quiet:
                with torch.autocast(ranks.device.type, dtype, enabled=dtype is not None):
                    loss, metrics = self.module(*task.inputs(self.step, part))
                items = 1 if task.summed else len(part)
                # DDP averages the gradients of the processes: times their number gives the sum over the batch.
                self.scaler.scale(loss * (weight * items * ranks.world / len(whole))).backward()
            found = torch.cat([loss.detach().reshape(1), metrics.detach().reshape(-1)]).double()
            self.total += weight * torch.cat([items * found, found.new_full((1,), len(part))])

    @torch.no_grad()
    def _average(self) -> None:
        for name, value in self.task.model.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - self.plan.average)
            else:
                self.average[name].copy_(value)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """The model with the averaged weights, within the `with` block."""
        raw = {k: v.clone() for k, v in self.task.model.state_dict().items()} if self.average else {}
        if self.average:
            self.task.model.load_state_dict(self.average)
        yield
        if self.average:
            self.task.model.load_state_dict(raw)

    def end_epoch(self) -> None:
        """Add a history entry, validate, and write the checkpoints and a line of the log."""
        if self.ranks.world > 1:
            distributed.all_reduce(self.total)
        *sums, count = self.total.tolist()
        self.total.zero_()
        self._check()
        entry = dict(self.task.entry(self.step))
        entry |= {name: value / count for name, value in zip(self.task.metrics, sums, strict=True)}
        training = self.task.model.training
        with self.averaged():
            entry |= self.task.validate()
        self.task.model.train(training)
        self.history.append(entry)
        value = entry.get(self.task.best)
        better = value is not None and (self.best is None or value > self.best)
        self.best = value if better else self.best
        logged = self.opened  # else the log begins with this line
        self.save(better)
        if self.plan.out is not None and self.ranks.first and logged:
            file = self.plan.out / LOG
            with _files.naming(file), open(file, "a", encoding="utf-8") as log:
                log.write(self._line(-1))

    def _check(self) -> None:
        if _finite(dict(self.task.model.named_parameters())):
            return
        kept = f"; {self.file} is from before" if self.file is not None and self.file.exists() else ""
        first = ", or the inputs be scaled down" if self.step <= 1 else ""
        raise ValueError(
            f"training diverged: the weights are not finite after {counted(self.step, 'step')}; "
            f"`learning_rate` must be smaller{first}{kept}"
        )

    def _line(self, number: int) -> str:
        return json.dumps({"epoch": number % len(self.history) + 1, **self.history[number]}) + "\n"

    def save(self, best: bool = False) -> None:
        """Write a checkpoint that torch.load(weights_only=True) reads, and where it is the best so far, that too; an
        incomplete one never replaces a complete one."""
        if self.plan.out is None:
            return
        self._check()  # within an epoch too, or a Ctrl-C would put NaN in the place of good weights
        states = {name: self._state(name) for name in ([BEST] if best else []) + [CHECKPOINT]}
        if not self.ranks.first:
            self.total.zero_()
        elif not self.opened:
            self._open(self.plan.out, states)
            self.opened = True
            restarts.wrote(self.plan.out / CHECKPOINT)
        else:
            self._write(self.plan.out, states)

    def _state(self, name: str) -> dict[str, Any]:
        """What a checkpoint holds; every process takes part."""
        random: list[dict[str, Tensor]] = []
        if self.step % self.plan.every and name == CHECKPOINT:  # within an epoch
            random = self.ranks.merge([_get_random(self.ranks.device)])
            if self.ranks.world > 1:
                distributed.all_reduce(self.total)
        raw = self.task.model.state_dict()
        how = {k: getattr(self.plan, k) for k in ("precision", "accumulate", "average")}
        own: dict[str, Any] = {"step": self.step, "best": self.best, "random": random, "how": how}
        own |= {"every": self.plan.every, "total": self.total.cpu(), "scaler": self.scaler.state_dict()}
        own |= {"raw": raw if self.average else None, "data": self.data}
        state = {**self.task.header(self.step), self.task.key: self.average or raw}
        return state | {
            "optimizer": self.task.optimizer.state_dict(),
            "history": self.history,
            "training": own,
        }


def _get_random(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _set_random(states: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
