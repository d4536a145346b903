"""The success and the precision plot of trackers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from amstel import _files
from amstel._check import fail
from amstel._optional import need
from amstel.plot import precision, success
from amstel.tracking.dataset import DatasetEvaluation
from amstel.tracking.evaluation import Evaluation


def plot(
    evaluations: Mapping[str, Evaluation | DatasetEvaluation],
    file: str | os.PathLike,
    title: str | None = None,
) -> Path:
    """Draw the success and precision plots, with one line per tracker. Legends show the scores, best first.

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
    left, right = figure.subplots(1, 2)
    success(evaluations, axes=left)
    precision(evaluations, axes=right)
    if title:
        figure.suptitle(title)
    with _files.replacing(file, argument="file") as temporary:
        figure.savefig(temporary, dpi=120)
    return file
