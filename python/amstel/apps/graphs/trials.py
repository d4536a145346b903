"""Trials: the results of several seeds of link prediction or graph classification, and their checkpoint."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from amstel import _check, _files, _words
from amstel.apps import ranks, restarts, training
from amstel.apps.graphs.checkpoints import check_same, loaded
from amstel.apps.graphs.settings import GRAPH_MODELS, LINK_MODELS, MOST_SEEDS, GraphSettings, LinkSettings
from amstel.apps.graphs.sources import same_data
from amstel.apps.training import CHECKPOINT

FORMAT = "amstel graphs 1"
Settings = LinkSettings | GraphSettings
SAID = {"auc": "AUC", "ap": "average precision", "accuracy": "accuracy"}


class Kind(NamedTuple):
    """What the trials of one task have in common."""

    settings: type[Any]
    models: Sequence[str]
    #: What is measured on the test part; the first is the one that has a mean and a standard deviation.
    scores: tuple[str, ...]
    #: Sizes that data must share with those of the training.
    facts: tuple[str, ...]
    tested: str


KINDS = {
    "link": Kind(
        LinkSettings, LINK_MODELS, ("auc", "ap"), ("features", "nodes"), "weights of the last epoch"
    ),
    "graph": Kind(
        GraphSettings,
        GRAPH_MODELS,
        ("accuracy",),
        ("features", "classes"),
        "weights of the epoch that validated best",
    ),
}


class Trial(NamedTuple):
    """The results of one seed: all scores on the test part, the first score on the validation part, losses, and weights."""

    scores: dict[str, float]
    validation: float | None
    loss: list[float]
    weights: dict[str, Tensor]


@dataclass
class Trials:
    """One entry per seed in `validation`, `losses` (one number per epoch) and every list of `scores`; `best`, the seed that
    is best on the validation part and its weights; `facts`, the sizes of the data; `digest` of the data ("" from the first
    releases), and their `folder`, if they have one."""

    task: str
    dataset: str
    model: str
    settings: Settings
    seeds: list[int]
    facts: dict[str, int]
    scores: dict[str, list[float]] = field(default_factory=dict)
    validation: list[float | None] = field(default_factory=list)
    losses: list[list[float]] = field(default_factory=list)
    seconds: float = 0.0
    best: tuple[int, dict[str, Tensor]] | None = None
    digest: str = ""
    folder: str | None = None

    def __post_init__(self) -> None:
        for name in KINDS[self.task].scores:
            self.scores.setdefault(name, [])

    @property
    def score(self) -> str:
        """Name of the score that counts."""
        return KINDS[self.task].scores[0]

    @property
    def mean(self) -> float:
        return float(np.mean(self.scores[self.score]))

    @property
    def std(self) -> float:
        return float(np.std(self.scores[self.score]))

    @property
    def loss(self) -> list[float]:
        """For every epoch, the mean over the seeds."""
        return [float(np.mean([x for x in some if x is not None])) for some in zip_longest(*self.losses)]

    def said(self) -> str:
        """The scores in words."""
        return ", ".join(f"{SAID[name]} {_words.percent(some)}" for name, some in self.scores.items())

    def add(self, found: Trial) -> None:
        """The result of the next seed."""
        score = found.validation or 0.0
        if self.best is None or score > max(v or 0.0 for v in self.validation):
            self.best = (self.seeds[len(self.losses)], found.weights)
        for name, value in found.scores.items():
            self.scores[name].append(value)
        self.validation.append(found.validation)
        self.losses.append(found.loss)

    def to_json(self) -> dict[str, object]:
        """The form that `amstel graphs train --json` writes; `seeds` is their number."""
        others = {f"{name}_mean": float(np.mean(values)) for name, values in self.scores.items()}
        return {
            "task": self.task,
            "dataset": self.dataset,
            "model": self.model,
            "seeds": len(self.seeds),
            **self.scores,
            "mean": self.mean,
            "std": self.std,
            **(others if len(others) > 1 else {}),
            "first_seed": self.seeds[0],
            "settings": asdict(self.settings),
            "loss": self.loss,
            "tested": KINDS[self.task].tested,
            "seconds": self.seconds,
        }


def run(
    result: Trials,
    one: Callable[[int], Trial],
    *,
    out: str | Path | None,
    resume: bool,
    force: bool,
    device: torch.device,
) -> Trials:
    """Run `one` for every remaining seed, each process of a group on its share, with a checkpoint after each round."""
    resume, force = _check.flag("resume", resume), _check.flag("force", force)
    if out is not None and not isinstance(out, (str, os.PathLike)):
        _check.fail_type("out", "a path", out)
    folder = training.begin(out, resume, force)
    if resume and folder is not None:
        result = resumed(result, read(folder / CHECKPOINT))
    group, start, before = ranks.current(device), time.perf_counter(), result.seconds
    left = result.seeds[len(result.losses) :]
    try:
        for first in range(0, len(left), group.world):
            own = group.share(left[first : first + group.world])
            for found in group.merge([one(seed) for seed in own]):
                result.add(found)
            result.seconds = before + time.perf_counter() - start
            if folder is not None and group.first:
                if first == 0:  # once more: another run may have begun there since
                    training.begin(folder, resume, force)
                save(folder / CHECKPOINT, result)
                restarts.wrote(folder / CHECKPOINT)
    except KeyboardInterrupt:
        if folder is None or not result.losses:
            raise
        raise KeyboardInterrupt(f"interrupted; --resume continues from {folder / CHECKPOINT}") from None
    return result


def seeds_of(seeds: Any) -> list[int]:
    """The seeds, checked."""
    expected = "one or more integers >= 0"
    if isinstance(seeds, (str, bytes)) or not hasattr(seeds, "__iter__"):
        _check.fail_type("seeds", expected, seeds)
    if isinstance(seeds, range) and len(seeds) >= MOST_SEEDS:
        _check.fail("seeds", f"less than {MOST_SEEDS} integers", seeds)
    found = [_check.integer("seeds", seed, 0, expected) for seed in seeds]
    return found if found else _check.fail("seeds", expected, found)


def check_training(task: str, model: Any, settings: Any, progress: Any) -> Any:
    """Check the settings of a training along with its other arguments."""
    _check.choice("model", model, KINDS[task].models)
    wanted = KINDS[task].settings
    if settings is not None and not isinstance(settings, wanted):
        _check.fail_type("settings", f"an amstel.apps.graphs.settings.{wanted.__name__}", settings)
    if progress is not None and not callable(progress):
        _check.fail_type("progress", "a function, or None", progress)
    return wanted() if settings is None else settings


def check_data(result: Any, task: str, facts: Mapping[str, int], name: str) -> dict[str, Tensor]:
    """The best weights, checked to be for this task and to fit the data."""
    if not isinstance(result, Trials):
        _check.fail_type("result", "an amstel.apps.graphs.trials.Trials", result)
    if result.task != task:
        raise ValueError(f"`result` must be of task {task!r}, got {result.task!r}")
    if result.best is None:
        raise ValueError("the trials have no trained network yet")
    for key in KINDS[task].facts:
        if facts[key] != result.facts[key]:
            raise ValueError(f"the network is for {result.facts[key]} {key}, but {name} has {facts[key]}")
    return result.best[1]


def save(path: Path, result: Trials) -> None:
    """The results so far, in a file that torch.load(weights_only=True) reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"format": FORMAT, **{f.name: getattr(result, f.name) for f in fields(result)}}
    _files.torch_save(path, {**state, "settings": asdict(result.settings)})


def of_state(state: dict[str, Any]) -> Trials:
    """The trials in the contents of a checkpoint; ValueError or another error if it is damaged."""
    kind = KINDS[state["task"]]
    found = Trials(**{**state, "settings": kind.settings(**state["settings"])})
    done = len(found.losses)
    if not (
        isinstance(found.dataset, str)
        and isinstance(found.digest, str)
        and (found.folder is None or isinstance(found.folder, str))
        and found.model in kind.models
        and list(found.scores) == list(kind.scores)
        and all(isinstance(found.facts[key], int) for key in kind.facts)
        and all(isinstance(seed, int) for seed in found.seeds)
        and all(
            isinstance(some, list) and len(some) == done
            for some in (found.validation, *found.scores.values())
        )
        and all(isinstance(x, float) for some in (*found.losses, *found.scores.values()) for x in some)
        and done <= len(found.seeds)
        and isinstance(found.seconds, (int, float))
        and (found.best is not None) == (done > 0)
        and (
            found.best is None
            or (isinstance(found.best[0], int) and all(isinstance(w, Tensor) for w in found.best[1].values()))
        )
    ):
        raise ValueError("damaged")
    return found


def read(path: str | Path) -> Trials:
    """The results in a checkpoint."""
    return loaded(path, {FORMAT: of_state})


def resumed(wanted: Trials, saved: Trials) -> Trials:
    """The saved results, with the requested seeds, which must begin with those that are done."""
    check_same(saved, wanted, ("task", "dataset", "model", "settings", "facts"))
    same_data(saved, wanted)
    done = saved.seeds[: len(saved.losses)]
    if wanted.seeds[: len(done)] != done:
        _check.fail("seeds", f"those of the checkpoint first, {done}", wanted.seeds)
    return replace(saved, seeds=wanted.seeds, folder=wanted.folder or saved.folder)
