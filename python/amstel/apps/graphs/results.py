"""The results of a node classification study, and its checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from amstel import _check, _files
from amstel.apps.graphs.checkpoints import check_same, loaded
from amstel.apps.graphs.settings import MODELS, OLD_MODELS, Settings
from amstel.apps.graphs.sources import same_data

FORMAT = "amstel gcn 1"


class Seed(NamedTuple):
    """The results of one seed: test and validation accuracy, number of epochs, the loss of each, and weights."""

    accuracy: float
    validation: float | None
    epochs: int
    loss: list[float]
    weights: tuple[Tensor, Tensor]


@dataclass
class Study:
    """The results of `study`: one entry per seed in `accuracy` (share of test nodes, 0 to 1), `epochs` and `losses` (one
    number per epoch); `best`, the seed that is best on the validation nodes and its weights; and the data: their `digest`
    ("" from the first releases), and their `folder`, if they have one."""

    dataset: str
    model: str
    settings: Settings
    seeds: list[int]
    accuracy: list[float] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    seconds: float = 0.0
    losses: list[list[float]] = field(default_factory=list)
    validation: list[float | None] = field(default_factory=list)
    best: tuple[int, Tensor, Tensor] | None = None
    digest: str = ""
    folder: str | None = None

    @property
    def loss(self) -> list[float]:
        """For every epoch, the mean over the seeds that ran it."""
        return [float(np.mean([x for x in some if x is not None])) for some in zip_longest(*self.losses)]

    def add(self, found: Seed) -> None:
        """The result of the next seed."""
        score = found.validation or 0.0
        if self.best is None or score > max(v or 0.0 for v in self.validation):
            self.best = (self.seeds[len(self.accuracy)], *found.weights)
        self.accuracy.append(found.accuracy)
        self.validation.append(found.validation)
        self.epochs.append(found.epochs)
        self.losses.append(found.loss)

    @property
    def mean(self) -> float:
        return float(np.mean(self.accuracy))

    @property
    def std(self) -> float:
        return float(np.std(self.accuracy))

    def to_json(self) -> dict[str, object]:
        """The form that `amstel graphs train --json` writes; `seeds` is their number."""
        return {
            "dataset": self.dataset,
            "model": self.model,
            "seeds": len(self.seeds),
            "accuracy": self.accuracy,
            "mean": self.mean,
            "std": self.std,
            "first_seed": self.seeds[0],
            "epochs_run": self.epochs,
            "settings": asdict(self.settings),
            "loss": self.loss,
            "tested": "weights of the last epoch",
            "seconds": self.seconds,
        }


def save(path: Path, result: Study) -> None:
    """The results so far, in a file that torch.load(weights_only=True) reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"format": FORMAT, **{f.name: getattr(result, f.name) for f in fields(result)}}
    _files.torch_save(path, {**state, "settings": asdict(result.settings)})


def of_state(state: dict[str, Any]) -> Study:
    """The study in the contents of a checkpoint; an error if it is damaged."""
    state["model"] = OLD_MODELS.get(state["model"], state["model"])
    found = Study(**{**state, "settings": Settings(**state["settings"])})
    _whole(found)
    return found


def read(path: str | Path) -> Study:
    """The results in a checkpoint."""
    return loaded(path, {FORMAT: of_state})


def _whole(found: Study) -> None:
    """ValueError if a checkpoint does not hold what a study writes."""
    count = len(found.accuracy)
    lists = (found.seeds, found.accuracy, found.epochs, found.losses, found.validation)
    weights = [] if found.best is None else list(found.best[1:])
    if not (
        isinstance(found.dataset, str)
        and isinstance(found.digest, str)
        and (found.folder is None or isinstance(found.folder, str))
        and found.model in MODELS
        and all(isinstance(each, list) for each in lists)
        and count == len(found.epochs) == len(found.losses) == len(found.validation) <= len(found.seeds)
        and all(isinstance(seed, int) for seed in found.seeds)
        and all(isinstance(share, float) and 0 <= share <= 1 for share in found.accuracy)
        and isinstance(found.seconds, (int, float))
        and (found.best is not None) == (count > 0)
        and all(isinstance(w, Tensor) and w.dim() == 2 and w.dtype == torch.float32 for w in weights)
        and (found.best is None or (len(weights) == 2 and isinstance(found.best[0], int)))
    ):
        raise ValueError("damaged")


def resumed(wanted: Study, saved: Study) -> Study:
    """The saved results, with the requested seeds, which must begin with those that are done."""
    check_same(saved, wanted, ("dataset", "model", "settings"))
    same_data(saved, wanted)
    done = saved.seeds[: len(saved.accuracy)]
    if wanted.seeds[: len(done)] != done:
        _check.fail("seeds", f"those of the checkpoint first, {done}", wanted.seeds)
    return replace(saved, seeds=wanted.seeds, folder=wanted.folder or saved.folder)
