"""Predictions of a trained graph network for every node."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import torch
from torch import Tensor

from amstel import _check, _files
from amstel.apps.graphs.problem import _Problem
from amstel.apps.graphs.sources import graph_folder, plain
from amstel.apps.graphs.train import Study
from amstel.apps.ranks import on
from amstel.data import GraphFolder, Planetoid, block_model
from amstel.data.nodes import NodeData

WRITTEN = (".csv", ".json")


def load_data(name: str, root: Path | None) -> NodeData:
    """The data set with this name; "block-model" needs no file.

    Name a `GraphFolder` by its path, or by its name, with the folder itself or its parent as the root.
    """
    folder = graph_folder(name, root)
    if folder is not None:
        return GraphFolder(folder)
    return block_model() if plain(name) == "block-model" else Planetoid(root, name)


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
    problem.check(w1, w2)
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
    with _files.replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        if path.suffix.lower() == ".json":
            json.dump(columns, file)
            return
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["node", *columns])
        table.writerows((n, k, f"{p:.6g}") for n, (k, p) in enumerate(zip(*columns.values(), strict=True)))
