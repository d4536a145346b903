"""The input of the training engine (`amstel.apps.training`): a `Task` to train, and a `Plan` for how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from amstel import _check

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Task:
    """What is trained, and how one step works.

    Attributes:
        model: whose state_dict the checkpoint holds, as `key`.
        module: maps what `inputs` returns to a tensor of the loss and the other `metrics`; only the loss has a gradient.
        optimizer: of its parameters.
        metrics: names of the loss and the other metrics.
        summed: metrics are sums over the items of a batch rather than means.
        clip: largest norm of the gradient; 0 does not clip.
        best: the name of a value that `validate` returns; the epoch with the largest one gives the best checkpoint.
        partial: a step may leave parameters without a gradient, the same ones in every process.
        given: what it is trained and validated on, by the names of the arguments; a resumed run must have the same.
        may_grow: the names of data to which a resumed run may add.
    """

    model: nn.Module
    module: nn.Module
    optimizer: torch.optim.Optimizer
    key = "model"
    metrics: tuple[str, ...] = ("loss",)
    summed = False
    clip = 0.0
    best = ""
    partial = False
    given: Mapping[str, Any] = MappingProxyType({})
    may_grow: tuple[str, ...] = ()

    def items(self, step: int) -> Sequence[int]:
        """The numbers of the samples in the batch of a step, over all processes."""
        raise TypeError(f"{type(self).__name__} must define `items`")

    def inputs(self, step: int, items: Sequence[int]) -> tuple[Any, ...]:
        """The arguments of `module` for some of the samples, on its device."""
        raise TypeError(f"{type(self).__name__} must define `inputs`")

    def gradients(self, step: int) -> Tensor | None:
        """Fill the gradients without `module` and return the metrics, or return None to let the engine do it."""
        return None

    def batch_size(self, step: int) -> int:
        """How much the metrics of `gradients` count in those of the epoch."""
        return 1

    def prepare(self, step: int) -> None:
        """Called before every step, to set the learning rate."""

    def seed(self, epoch: int, rank: int) -> int | None:
        """The seed for torch's generator at the beginning of an epoch; None leaves the generator alone."""
        return None

    def validate(self) -> dict[str, float]:
        """Called after every epoch, in every process, with the averaged weights if there are any."""
        return {}

    def finished(self) -> bool:
        """Called after every step: whether to stop early."""
        return False

    def header(self, step: int) -> dict[str, Any]:
        """Other contents of the checkpoint: its format, the settings."""
        return {}

    def entry(self, step: int) -> dict[str, float]:
        """Other contents of a history entry, before the metrics."""
        return {}


@dataclass(frozen=True)
class Plan:
    """How long and how to train.

    Attributes:
        steps, every: how many in total, and per epoch; each epoch ends with an entry in the history and a checkpoint.
        out: the folder of `checkpoint.pt`, `best.pt` and `log.jsonl`, a line per epoch; None writes nothing.
        save_every: steps between checkpoints within an epoch; 0: none.
        precision: of the forward pass, "float32", "bfloat16" or "float16" (autocast; float16 scales the loss).
        accumulate: in how many parts a process works through its share of a batch.
        average: decay of the exponential moving average of the weights, which then is the result; 0: none.
        beside: {name: text} of files that belong to the run, written with its first checkpoint.
        force: whether the first checkpoint replaces that of another run; else FileExistsError.
    """

    steps: int
    every: int
    out: Path | None = None
    save_every: int = 0
    precision: str = "float32"
    accumulate: int = 1
    average: float = 0.0
    beside: Mapping[str, str] = field(default_factory=dict)
    force: bool = True

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            _check.fail("precision", f"one of {', '.join(PRECISIONS)}", self.precision)
        if not isinstance(self.accumulate, int) or isinstance(self.accumulate, bool) or self.accumulate < 1:
            _check.fail("accumulate", "an integer >= 1", self.accumulate)
        if not 0 <= self.average < 1:
            _check.fail("average", "in [0, 1)", self.average)
