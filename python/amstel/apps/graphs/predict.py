"""Predictions of a trained graph network for every node."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import torch
from torch import Tensor

from amstel import _check, _files
from amstel.apps.graphs.problem import _Problem
from amstel.apps.graphs.train import Study
from amstel.apps.ranks import on
from amstel.data import GraphFolder, Planetoid, block_model
from amstel.data.graph_folder import is_folder, read_facts
from amstel.data.nodes import NodeData

WRITTEN = (".csv", ".json")


def load_data(name: str, root: Path | None) -> NodeData:
    """The data set with this name; "block-model" needs no file.

    Name a `GraphFolder` by its path, or by its name, with the folder itself or its parent as the root.
    """
    if name.replace(" ", "-") == "block-model":
        return block_model()
    folder = graph_folder(name, root)
    return Planetoid(root, name) if folder is None else GraphFolder(folder)


def graph_folder(name: str, root: Path | None) -> Path | None:
    """The path of the `GraphFolder` with this name, if there is one."""
    places = [Path(name)] if root is None else [root, root / name, Path(name)]
    for place in places:
        if place != root and is_folder(place):
            return place
        if place == root and is_folder(place):
            own = read_facts(place)["name"]
            if name in (own, str(place), place.name):
                return place
            raise ValueError(f"{place} holds the graph {own!r}, not {name!r}")
    for place in [*places, *([] if root is None else [root / name.replace("-", "_")])]:
        if (place / "raw").is_dir() and (place / "split").is_dir():
            raise ValueError(
                f"{place} is in OGB's layout; convert it first: amstel graphs convert {place} FOLDER"
            )
    return None


@torch.no_grad()
def predict(study: Study, data: NodeData, device: str | torch.device = "cpu") -> Tensor:
    """Probabilities [nodes, classes] from the best weights of a study.

    Raises:
        ValueError: the features or classes differ from those the network was trained on.
    """
    if not isinstance(study, Study):
        _check.fail_type("study", "an amstel.apps.graphs.train.Study", study)
    if not isinstance(data, NodeData):
        _check.fail_type("data", "an amstel.data.NodeData", data)
    if study.best is None:
        raise ValueError("the study has no trained network yet")
    problem = _Problem(data, study.model, study.settings, on(device))
    _, w1, w2 = study.best
    wanted = (problem.features.shape[1], problem.outputs)
    got = (w1.shape[0], w2.shape[1] // problem.supports)
    if wanted != got:
        raise ValueError(
            f"the network is for {got[0]} features and {got[1]} classes, but {data.name} has {wanted[0]} and {wanted[1]}"
        )
    field = problem.field(torch.arange(data.num_nodes))
    weights = (w[None].to(problem.device) for w in (w1, w2))
    return field.logits(*weights)[0].softmax(-1).cpu()


def write(path: Path, probabilities: Tensor) -> None:
    """A line `node,class,probability` per node (.csv), or lists of them (.json)."""
    path = Path(path)
    if path.suffix.lower() not in WRITTEN:
        _check.fail("path", f"a file that ends in {' or '.join(WRITTEN)}", str(path))
    best, classes = probabilities.max(1)
    columns = {"class": classes.tolist(), "probability": best.tolist()}
    with _files.replacing(path) as temporary, open(temporary, "w", newline="") as file:
        if path.suffix.lower() == ".json":
            json.dump(columns, file)
            return
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["node", *columns])
        table.writerows((n, k, f"{p:.6g}") for n, (k, p) in enumerate(zip(*columns.values(), strict=True)))
