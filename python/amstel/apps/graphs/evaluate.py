"""The test accuracy of a trained graph network, and a picture of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from amstel import _files, _optional, _words
from amstel.apps.graphs.predict import predict
from amstel.apps.graphs.train import Study
from amstel.data.nodes import NodeData


def evaluate(study: Study, data: NodeData, device: str | torch.device = "cpu") -> dict[str, Any]:
    """The accuracy of the best weights on training, validation and test nodes, next to the results of the study."""
    probabilities, labels = predict(study, data, device), data.labels.cpu()
    parts = {part: getattr(data, part).cpu() for part in ("train", "val", "test")}
    if bool((labels[parts["test"]] < 0).any()):
        raise ValueError(f"`data` must have the labels of its test nodes, and {data!r} lacks some")
    right = probabilities.argmax(1) == labels
    own = {part: right[nodes].double().mean().item() for part, nodes in parts.items() if len(nodes)}
    assert study.best is not None
    return {"seed": study.best[0], **own, "mean": study.mean, "std": study.std, "seeds": len(study.accuracy)}


def plot(path: Path, result: Study) -> None:
    """A histogram of the accuracies."""
    for name in ("figure", "backends.backend_agg", "ticker"):
        _optional.need(f"matplotlib.{name}", extra="cli", purpose="--plot")
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    percent = [100 * a for a in result.accuracy]
    axes.hist(percent, bins=min(20, max(5, len(percent) // 5)), color="#0072B2", edgecolor="white")
    label = f"mean {_words.percent(result.accuracy)}"
    axes.axvline(100 * result.mean, color="#D55E00", label=label)
    axes.set(xlabel="test accuracy, %", ylabel="seeds", title=f"{result.dataset}, {result.model}")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center")
    with _files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
