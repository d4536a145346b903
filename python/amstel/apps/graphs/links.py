"""Link prediction with graph autoencoders: training, scores of held-out links, and new links.

Kipf and Welling's protocol: a tenth of the links is for testing and a twentieth for validation, each with as many pairs that
are not links; the autoencoder sees the rest of the graph. Each seed has its own weights and its own split.
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

from amstel import _check, _files
from amstel._words import counted
from amstel.apps import training
from amstel.apps.graphs.features import check_features
from amstel.apps.graphs.settings import LinkSettings
from amstel.apps.graphs.sources import digest, graph_folder, place, plain
from amstel.apps.graphs.trials import Trial, Trials, check_data, check_training, run, seeds_of
from amstel.apps.ranks import Ranks, on
from amstel.apps.task import Plan, Task
from amstel.data import GraphFolder, LinkData, Planetoid, block_model, split_links
from amstel.data.links import TooFewLinks
from amstel.data.nodes import NodeData
from amstel.nn import GAE, VGAE

WRITTEN = (".csv", ".json")


def load_data(name: str, root: Path | None) -> NodeData:
    """The data set with this name, with its features 0 or 1 as in the files; "block-model" needs no file."""
    folder = graph_folder(name, root)
    if folder is not None:
        return GraphFolder(folder)
    if plain(name) != "block-model":
        return Planetoid(root, name, normalize=False)
    data = block_model()
    assert data.features is not None
    data.features.values().fill_(1.0)
    return data


def train(
    data: NodeData,
    model: str = "vgae",
    seeds: Sequence[int] = range(10),
    settings: LinkSettings | None = None,
    progress: Callable[[int], None] | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    device: str | torch.device = "cpu",
) -> Trials:
    """Train a graph autoencoder once per seed, and measure how well it ranks links above other pairs.

    Args:
        data: the graph and its features; labels do not matter.
        model: "gae" or "vgae".
        seeds: integers >= 0; each has its own weights, noise and split (`amstel.data.split_links`).
        settings: default: `LinkSettings()`.
        progress: called with the number of (seed, epoch) pairs finished since the last call.
        out: a folder for `checkpoint.pt`, written after every seed.
        resume: continue with the seeds that the checkpoint in `out` lacks.
        force: overwrite a run in `out`.
        device: where to train.

    In a process group (torch.distributed), each process trains its share of the seeds; all of them return all results.

    Returns:
        `Trials` whose scores are "auc", the area under the ROC curve, and "ap", the average precision, of the test links.

    Source: T. N. Kipf and M. Welling, Variational Graph Auto-Encoders, 2016, section 2.

    Example:
        >>> data = amstel.data.block_model(nodes=400)
        >>> result = train(data, "gae", seeds=[0], settings=LinkSettings(epochs=20))
        >>> 0 < result.mean < 1, len(result.loss)
        (True, 20)
    """
    if not isinstance(data, NodeData):
        raise TypeError(f"`data` must be an amstel.data.NodeData, got {_check.describe(data)}")
    settings = check_training("link", model, settings, progress)
    check_features(data.name, data.features, torch.get_default_dtype())
    seeds, device = seeds_of(seeds), on(device)
    facts = {"features": data.num_features, "nodes": data.num_nodes}
    result = Trials(
        "link",
        data.name,
        model,
        settings,
        seeds,
        facts,
        digest=digest(data, labels=False),
        folder=place(data),
    )
    return run(
        result,
        lambda seed: _one(split(data, seed), model, settings, seed, progress, device),
        out=out,
        resume=resume,
        force=force,
        device=device,
    )


def steps(data: NodeData, settings: LinkSettings) -> int:
    """The number of optimizer steps for one seed."""
    return settings.epochs


def split(data: NodeData, seed: int) -> LinkData:
    """The split of a seed."""
    try:
        return split_links(data.graph, data.features, seed=seed, name=data.name)
    except TooFewLinks as error:
        raise ValueError(
            f"{data.name} has {counted(error.links, 'link')} between two nodes, too few to hold out a tenth for the test"
        ) from None


def build(model: str, settings: LinkSettings, features: int) -> GAE:
    """The untrained network."""
    kind = VGAE if model == "vgae" else GAE
    return kind(features, settings.hidden, settings.latent, settings.dropout)


class _Linking(Task):
    """One seed: a step is the loss of the whole graph."""

    model: GAE

    def __init__(self, data: LinkData, model: str, settings: LinkSettings, seed: int, device: torch.device):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed % 2**63)
            self.model = self.module = build(model, settings, data.num_features).to(device)
        self.number, self.graph = seed, data.graph.to(device)
        self.features = _inputs(self.model, data.features)
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )

    def seed(self, epoch: int, rank: int) -> int:
        return int(np.random.SeedSequence([self.number, epoch]).generate_state(1, np.uint64)[0] >> 1)

    def gradients(self, step: int) -> Tensor:
        self.optimizer.zero_grad()
        loss = self.model.loss(self.features, self.graph)
        loss.backward()
        return loss.detach()[None]


def _one(
    data: LinkData,
    model: str,
    settings: LinkSettings,
    seed: int,
    progress: Callable[[int], None] | None,
    device: torch.device,
) -> Trial:
    task = _Linking(data, model, settings, seed, device)
    history = training.fit(task, Plan(settings.epochs, 1), Ranks(device=device), progress=progress)
    z = embed(task.model, data.features, data.graph, device)
    found = scores(z, data)
    weights = {name: w.detach().cpu().clone() for name, w in task.model.state_dict().items()}
    return Trial(
        found["test"], found.get("val", {}).get("auc"), [entry["loss"] for entry in history], weights
    )


@torch.no_grad()
def embed(model: GAE, features: Tensor | None, graph: Any, device: torch.device) -> Tensor:
    """The embeddings, on the CPU."""
    model = model.to(device).eval()
    return model(_inputs(model, features), graph.to(device)).cpu()


def _inputs(model: GAE, features: Tensor | None) -> Tensor | None:
    """The features, of whatever precision, as the network takes them."""
    weight = next(model.parameters())
    return None if features is None else features.to(weight.device, weight.dtype)


def scores(z: Tensor, data: LinkData) -> dict[str, dict[str, float]]:
    """AUC and average precision of both parts; nothing for an empty part."""
    found = {}
    for part in ("val", "test"):
        links, others = getattr(data, part), getattr(data, f"{part}_negative")
        if links.shape[1] and others.shape[1]:
            positive, negative = (
                (z[pairs[0]] * z[pairs[1]]).sum(1).double().numpy() for pairs in (links, others)
            )
            found[part] = {"auc": auc(positive, negative), "ap": average_precision(positive, negative)}
    return found


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the ROC curve: how often a positive ranks above a negative, with ties counting half.

    Example:
        >>> auc(np.array([3.0, 1.0]), np.array([2.0, 1.0]))
        0.625
    """
    _check_scores(positive, negative)
    ordered = np.sort(negative)
    below, upto = (np.searchsorted(ordered, positive, side) for side in ("left", "right"))
    return float((below + upto).mean() / (2 * len(negative)))


def average_precision(positive: np.ndarray, negative: np.ndarray) -> float:
    """Mean over the positives of the precision at their rank, as scikit-learn defines it.

    Example:
        >>> average_precision(np.array([3.0, 1.0]), np.array([2.0, 0.0]))
        0.8333333333333333
    """
    _check_scores(positive, negative)
    right, wrong = (
        len(some) - np.searchsorted(np.sort(some), positive, "left") for some in (positive, negative)
    )
    return float((right / (right + wrong)).mean())


def _check_scores(positive: np.ndarray, negative: np.ndarray) -> None:
    for name, some in (("positive", positive), ("negative", negative)):
        if not len(some) or np.isnan(some).any():
            _check.fail(name, "one or more numbers, none of them NaN", some)


def evaluate(result: Trials, data: NodeData, device: str | torch.device = "cpu") -> dict[str, Any]:
    """The scores of the best weights on the links that their seed held out, next to the results of all seeds."""
    z, seed = _embedded(result, data, device)
    rows = {
        f"{part}_{name}": value
        for part, some in scores(z, split(data, seed)).items()
        for name, value in some.items()
    }
    return {"seed": seed, **rows, "mean": result.mean, "std": result.std, "seeds": len(result.losses)}


def predict(
    result: Trials, data: NodeData, count: int = 1000, device: str | torch.device = "cpu"
) -> tuple[Tensor, Tensor]:
    """The pairs without a link in the whole graph that the best weights consider most probable.

    Returns:
        pairs int64 [2, K], K <= count, of different nodes, the first the smaller one, and their probabilities [K],
        falling. O(N²) time in blocks of rows.

    Raises:
        ValueError: the network was trained on other data.
    """
    count = _check.integer("count", count, 1)
    z = _embedded(result, data, device)[0]
    index, nodes = data.graph.to_edge_index()[0], data.num_nodes
    linked = torch.unique(index.amin(0) * nodes + index.amax(0))
    value, key = z.new_empty(0), linked[:0]
    size = max(1, 2**22 // max(1, nodes))
    for begin in range(0, nodes, size):
        logits = z[begin : begin + size] @ z.T
        row, column = torch.triu_indices(len(logits), nodes, begin + 1)
        some = (row + begin) * nodes + column
        new = ~torch.isin(some, linked)
        value, key = torch.cat([value, logits[row, column][new]]), torch.cat([key, some[new]])
        best = value.sort(descending=True, stable=True).indices[:count]
        value, key = value[best], key[best]
    return torch.stack([key // nodes, key % nodes]), value.sigmoid()


def _embedded(result: Trials, data: NodeData, device: str | torch.device) -> tuple[Tensor, int]:
    """Embeddings from the best weights, for the graph that their seed trained on; and the seed."""
    if not isinstance(data, NodeData):
        _check.fail_type("data", "an amstel.data.NodeData", data)
    facts = {"features": data.num_features, "nodes": data.num_nodes}
    weights, where = check_data(result, "link", facts, data.name), on(device)
    check_features(data.name, data.features, torch.get_default_dtype())
    assert result.best is not None and isinstance(result.settings, LinkSettings)
    model = build(result.model, result.settings, data.num_features)
    model.load_state_dict(weights)
    part = split(data, result.best[0])
    return embed(model, part.features, part.graph, where), result.best[0]


def write(path: Path, pairs: Tensor, probabilities: Tensor) -> None:
    """One line `source,target,probability` per pair (.csv), or lists of them (.json)."""
    path = Path(path)
    if path.suffix.lower() not in WRITTEN:
        _check.fail("path", f"a file that ends in {' or '.join(WRITTEN)}", str(path))
    columns = {
        "source": pairs[0].tolist(),
        "target": pairs[1].tolist(),
        "probability": probabilities.tolist(),
    }
    with _files.replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        if path.suffix.lower() == ".json":
            json.dump(columns, file)
            return
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        table.writerows((a, b, f"{p:.6g}") for a, b, p in zip(*columns.values(), strict=True))
