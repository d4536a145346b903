"""Classification of whole graphs: training, accuracy, and the class of every graph of a data set.

Each seed has its own weights and its own split: in every class, a tenth is for validation, a tenth for testing and the rest
for training. The weights that are tested come from the epoch with the best validation accuracy.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from amstel import _check, _files
from amstel.apps import training
from amstel.apps.graphs.features import check_features
from amstel.apps.graphs.settings import GraphSettings
from amstel.apps.graphs.sources import digest
from amstel.apps.graphs.trials import Trial, Trials, check_data, check_training, run, seeds_of
from amstel.apps.ranks import Ranks, on
from amstel.apps.task import Plan, Task
from amstel.data import GraphData, GraphDataset, TUDataset, collate, colored_graphs
from amstel.nn import GraphClassifier

WRITTEN = (".csv", ".json")
PARTS = ("train", "val", "test")


def load_data(name: str, root: Path | None) -> GraphDataset:
    """The data set with this name; "colored-graphs" needs no file."""
    if name.replace(" ", "-").lower() == "colored-graphs":
        return colored_graphs()
    if root is None:
        raise ValueError(f"`root` must be the folder of {name}_A.txt and its other files, got None")
    return TUDataset(root, name, graph_attributes=False)


def train(
    data: GraphDataset,
    model: str = "gcn",
    seeds: Sequence[int] = range(10),
    settings: GraphSettings | None = None,
    progress: Callable[[int], None] | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    device: str | torch.device = "cpu",
) -> Trials:
    """Train a graph classifier once per seed, and measure its accuracy on the test graphs.

    Args:
        data: graphs with classes. If there are no features, each node gets a 1 and log(1 + its number of neighbors).
        model: "gcn", or "mlp", which does not look at the edges.
        seeds: integers >= 0; each has its own weights, order of the graphs and split.
        settings: default: `GraphSettings()`.
        progress: called with the number of (seed, step) pairs done since the last call; see `steps`.
        out, resume, force, device: see `amstel.apps.graphs.links.train`.

    In a process group (torch.distributed), each process trains its share of the seeds; all of them return all results.

    Returns:
        `Trials` with the score "accuracy".

    Example:
        >>> result = train(amstel.data.colored_graphs(90), seeds=[0], settings=GraphSettings(epochs=2))
        >>> 0 <= result.mean <= 1, len(result.loss)
        (True, 2)
    """
    _check_data(data)
    check_features(data.name or "the graphs", data._features, torch.get_default_dtype())
    settings = check_training("graph", model, settings, progress)
    seeds, device = seeds_of(seeds), on(device)
    parts = {
        seed: split(data, seed) for seed in seeds[:1]
    }  # an impossible split is reported before anything runs
    result = Trials("graph", data.name, model, settings, seeds, _facts(data), digest=digest(data))
    return run(
        result,
        lambda seed: _one(
            data, parts.get(seed) or split(data, seed), model, settings, seed, progress, device
        ),
        out=out,
        resume=resume,
        force=force,
        device=device,
    )


def steps(data: GraphDataset, settings: GraphSettings) -> int:
    """The number of optimizer steps for one seed."""
    _check_data(data)
    return settings.epochs * _steps(len(split(data, 0)["train"]), settings)


def _steps(count: int, settings: GraphSettings) -> int:
    return -(-count // settings.batch_size)


def _facts(data: GraphDataset) -> dict[str, int]:
    return {"features": data.num_features, "classes": data.num_classes}


def _check_data(data: Any) -> None:
    if not isinstance(data, GraphDataset):
        raise TypeError(f"`data` must be an amstel.data.GraphDataset, got {_check.describe(data)}")
    if data.labels is None or data.labels.dtype != torch.int64:
        raise ValueError(f"`data` must have a class for every graph, and {data!r} has none")


def split(data: GraphDataset, seed: int) -> dict[str, list[int]]:
    """Numbers of the training, validation and test graphs, drawn at random within each class."""
    rng = np.random.default_rng([seed, 1])
    found: dict[str, list[int]] = {part: [] for part in PARTS}
    assert data.labels is not None
    labels = data.labels.cpu().numpy()
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label)).tolist()
        tenth = max(1, round(len(members) / 10)) if len(members) > 2 else 0
        found["val"] += members[:tenth]
        found["test"] += members[tenth : 2 * tenth]
        found["train"] += members[2 * tenth :]
    if not found["test"]:
        raise ValueError(
            f"`data` must have a class with three or more graphs, one for each part, and {data!r} has none"
        )
    return {part: sorted(numbers) for part, numbers in found.items()}


def build(data: GraphDataset, model: str, settings: GraphSettings) -> GraphClassifier:
    """The untrained network."""
    width = data.num_features or 2
    s = settings
    return GraphClassifier(width, s.hidden, data.num_classes, s.layers, s.dropout, s.pool, model != "mlp")


def _inputs(model: GraphClassifier, batch: GraphData) -> Tensor:
    """The features, of whatever precision, or their substitute, as the network takes them."""
    dtype = next(model.parameters()).dtype
    if batch.features is not None:
        return batch.features.to(dtype)
    neighbors = batch.graph.crow.diff().to(dtype)
    return torch.stack([torch.ones_like(neighbors), neighbors.log1p()], 1)


class _Classification(Task):
    """One seed."""

    metrics = ("loss", "accuracy")

    model: GraphClassifier

    def __init__(
        self,
        data: GraphDataset,
        parts: dict[str, list[int]],
        model: str,
        settings: GraphSettings,
        seed: int,
        device: torch.device,
    ):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed % 2**63)
            self.model = build(data, model, settings).to(device)
        self.module, self.data, self.parts = self.model, data, parts
        self.size, self.number, self.device = settings.batch_size, seed, device
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.every = _steps(len(parts["train"]), settings)
        self.order: list[int] = []
        self.kept: tuple[float, dict[str, Tensor]] | None = None
        # Read once: batches are assembled from these.
        self.graphs = [item.to(device) for item in data]
        self.validation = [collate([self.graphs[k] for k in part]) for part in _chunks(parts["val"])]

    def seed(self, epoch: int, rank: int) -> int:
        self.order = np.random.default_rng([self.number, 2, epoch]).permutation(self.parts["train"]).tolist()
        return int(np.random.SeedSequence([self.number, 3, epoch]).generate_state(1, np.uint64)[0] >> 1)

    def _chosen(self, step: int) -> list[int]:
        begin = step % self.every * self.size
        return self.order[begin : begin + self.size]

    def batch_size(self, step: int) -> int:
        return len(self._chosen(step))

    def gradients(self, step: int) -> Tensor:
        batch = collate([self.graphs[k] for k in self._chosen(step)])
        self.optimizer.zero_grad()
        logits = self.model.train()(_inputs(self.model, batch), batch.graph)
        assert batch.label is not None
        loss = cross_entropy(logits, batch.label)
        loss.backward()
        right = (logits.argmax(1) == batch.label).double().mean()
        return torch.stack([loss.detach().double(), right])

    def validate(self) -> dict[str, float]:
        right = _right(self.model, self.validation)
        if self.kept is None or right > self.kept[0]:
            self.kept = right, {k: v.detach().cpu().clone() for k, v in self.model.state_dict().items()}
        return {"val_accuracy": right}


def _chunks(numbers: Sequence[int], size: int = 256) -> list[list[int]]:
    return [list(numbers[k : k + size]) for k in range(0, len(numbers), size)]


@torch.no_grad()
def _logits(model: GraphClassifier, batches: Sequence[GraphData]) -> Tensor:
    model.eval()
    return torch.cat([model(_inputs(model, batch), batch.graph) for batch in batches])


def _right(model: GraphClassifier, batches: Sequence[GraphData]) -> float:
    labels = torch.cat([batch.label for batch in batches])  # type: ignore[misc]
    return (_logits(model, batches).argmax(1) == labels).double().mean().item()


def _one(
    data: GraphDataset,
    parts: dict[str, list[int]],
    model: str,
    settings: GraphSettings,
    seed: int,
    progress: Callable[[int], None] | None,
    device: torch.device,
) -> Trial:
    task = _Classification(data, parts, model, settings, seed, device)
    update = None if progress is None else lambda _: progress(1)
    plan = Plan(settings.epochs * task.every, task.every)
    history = training.fit(task, plan, Ranks(device=device), progress=update)
    assert task.kept is not None
    validation, weights = task.kept
    task.model.load_state_dict(weights)
    test = [collate([task.graphs[k] for k in part]) for part in _chunks(parts["test"])]
    return Trial({"accuracy": _right(task.model, test)}, validation, [e["loss"] for e in history], weights)


def predict(result: Trials, data: GraphDataset, device: str | torch.device = "cpu") -> Tensor:
    """Probabilities [graphs, classes] from the best weights.

    Raises:
        ValueError: the features or classes differ from those the network was trained on.
    """
    if not isinstance(data, GraphDataset):
        _check.fail_type("data", "an amstel.data.GraphDataset", data)
    weights, place = check_data(result, "graph", _facts(data), data.name), on(device)
    check_features(data.name or "the graphs", data._features, torch.get_default_dtype())
    assert isinstance(result.settings, GraphSettings)
    model = build(data, result.model, result.settings)
    model.load_state_dict(weights)
    batches = (data[part] for part in _chunks(range(len(data))))
    return _logits(model.to(place), [collate(list(part)).to(place) for part in batches]).softmax(1).cpu()


def evaluate(result: Trials, data: GraphDataset, device: str | torch.device = "cpu") -> dict[str, Any]:
    """The accuracy of the best weights on the split of their seed, next to the results of all seeds."""
    _check_data(data)
    assert data.labels is not None
    right = (predict(result, data, device).argmax(1) == data.labels.cpu()).double()
    assert result.best is not None
    own = {part: right[numbers].mean().item() for part, numbers in split(data, result.best[0]).items()}
    return {
        "seed": result.best[0],
        **own,
        "mean": result.mean,
        "std": result.std,
        "seeds": len(result.losses),
    }


def write(path: Path, probabilities: Tensor, classes: Sequence[int] = ()) -> None:
    """A line `graph,class,probability` per graph (.csv), or lists of them (.json).

    Args:
        classes: names of the classes in the files; default: their numbers.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITTEN:
        _check.fail("path", f"a file that ends in {' or '.join(WRITTEN)}", str(path))
    best, numbers = probabilities.max(1)
    named = [classes[k] for k in numbers.tolist()] if len(classes) else numbers.tolist()
    columns = {"class": named, "probability": best.tolist()}
    with _files.replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        if path.suffix.lower() == ".json":
            json.dump(columns, file)
            return
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["graph", *columns])
        table.writerows((n, k, f"{p:.6g}") for n, (k, p) in enumerate(zip(*columns.values(), strict=True)))
