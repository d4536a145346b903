"""The success and the precision plot of trackers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from amstel import _files
from amstel._check import fail
from amstel._optional import need
from amstel.media.points import COLORS
from amstel.tracking.dataset import DatasetEvaluation
from amstel.tracking.evaluation import PRECISION_THRESHOLDS, SUCCESS_THRESHOLDS, Evaluation


def plot(
    evaluations: Mapping[str, Evaluation | DatasetEvaluation],
    file: str | os.PathLike,
    title: str | None = None,
) -> Path:
    """Draw the success and the precision plot, a line a tracker, the best first in each legend with its score.

    Args:
        evaluations: what each tracker is called, and its scores.
        file: picture to write, PNG, SVG or PDF by its ending.
        title: text above.

    Raises:
        ValueError: nothing to draw, or another ending.
        FileNotFoundError: the folder to write in does not exist.
        ImportError: matplotlib is missing.

    Example:
        >>> amstel.tracking.plot({"SINT": ours, "Struck": theirs}, "otb.png")  # doctest: +SKIP
    """
    file = Path(file)
    if not evaluations:
        raise ValueError("`evaluations` must hold at least one tracker's scores, got none")
    if file.suffix.lower() not in (".png", ".svg", ".pdf"):
        fail("file", "a name that ends in .png, .svg or .pdf", str(file))
    if not file.parent.is_dir():
        raise FileNotFoundError(f"the folder {file.parent} to write {file.name} in does not exist")
    figure = need("matplotlib.figure", extra="track", purpose="amstel.tracking.plot").Figure(
        figsize=(10, 4.2), layout="constrained"
    )
    for axes, curve, score, x, labels in zip(
        figure.subplots(1, 2),
        ("success", "precision_curve"),
        ("auc", "precision"),
        (SUCCESS_THRESHOLDS, PRECISION_THRESHOLDS),
        (("overlap threshold", "success rate"), ("distance of centers, pixels", "precision")),
        strict=True,
    ):
        style = {name: (COLORS[k % 8], "-" if k < 8 else "--") for k, name in enumerate(evaluations)}
        for name in sorted(evaluations, key=lambda name: -getattr(evaluations[name], score)):
            color, line = style[name]
            text = f"{name} [{getattr(evaluations[name], score):.3f}]"
            axes.plot(x, getattr(evaluations[name], curve), color=color, linestyle=line, label=text)
        axes.set(xlabel=labels[0], ylabel=labels[1], xlim=(0, x[-1].item()), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        axes.legend(loc="lower left" if curve == "success" else "lower right", framealpha=0.9)
    if title:
        figure.suptitle(title)
    with _files.replacing(file, argument="file") as temporary:
        figure.savefig(temporary, dpi=120)
    return file
