"""Plots of trackers: success and precision, and both scores by attribute."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from amstel import _check, _files
from amstel._check import fail
from amstel._optional import need
from amstel.media.points import COLORS
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
        evaluations: name of each tracker, and its scores.
        file: picture to write, a .png, .svg or .pdf file.
        title: text above.

    Raises:
        ValueError: nothing to draw, or another extension.
        FileNotFoundError: the folder to write in does not exist.
        ImportError: matplotlib is missing.

    Example:
        >>> truth = torch.tensor([[10.0, 10, 20, 20]] * 4)
        >>> ours, theirs = (amstel.tracking.evaluate(truth + d, truth) for d in (1.5, 6))
        >>> amstel.tracking.plot({"SINT": ours, "Struck": theirs}, "otb.png").name
        'otb.png'
    """
    if not evaluations:
        raise ValueError("`evaluations` must hold at least one tracker's scores, got none")
    with _figure(file, 4.2, title) as figure:
        left, right = figure.subplots(1, 2)
        success(evaluations, axes=left)
        precision(evaluations, axes=right)
    return Path(file)


def plot_attributes(
    evaluations: Mapping[str, Mapping[str, DatasetEvaluation]],
    file: str | os.PathLike,
    title: str | None = None,
) -> Path:
    """Draw AUC and precision as bars, with one row per attribute and one bar per tracker.

    The rows are in the order of the first tracker, and say how many sequences have the attribute.

    Args:
        evaluations: name of each tracker, and its scores from `by_attribute`.
        file: picture to write, a .png, .svg or .pdf file.
        title: text above.

    Raises:
        ValueError: nothing to draw, trackers that were scored on different sequences, or another extension.
        FileNotFoundError: the folder to write in does not exist.
        ImportError: matplotlib is missing.

    Example:
        >>> truth = torch.tensor([[10.0, 10, 20, 20]] * 4)
        >>> scores = {name: amstel.tracking.evaluate(truth, truth) for name in ("Crossing", "Jogging-1")}
        >>> ours = amstel.tracking.DatasetEvaluation("otb", scores, {})
        >>> groups = amstel.tracking.by_attribute(ours, "OTB100.json")
        >>> amstel.tracking.plot_attributes({"SINT": groups}, "otb_attributes.png").name
        'otb_attributes.png'
    """
    wanted = "a dict of each tracker's scores by attribute"
    for name, groups in _check.mapping("evaluations", evaluations, wanted).items():
        _check.mapping(f"evaluations[{name!r}]", groups, "a dict of scores, by attribute")
    if not evaluations or not all(evaluations.values()):
        raise ValueError("`evaluations` must hold the scores of a tracker by attribute, got none")
    first, *others = ({name: set(e.sequences) for name, e in g.items()} for g in evaluations.values())
    if any(other != first for other in others):
        raise ValueError("`evaluations` must be of the same sequences by attribute for every tracker")
    any_tracker, bars = next(iter(evaluations.values())), len(evaluations)
    rows = [f"{name} ({len(group._wholes())})" for name, group in any_tracker.items()]
    with _figure(file, 1.4 + len(rows) * (0.15 + 0.2 * bars), title) as figure:
        both = figure.subplots(1, 2, sharey=True)
        for axes, score, label in zip(
            both, ("auc", "precision"), ("AUC", "precision at 20 pixels"), strict=True
        ):
            for k, (tracker, groups) in enumerate(evaluations.items()):
                places = [row + (k - (bars - 1) / 2) * 0.8 / bars for row in range(len(rows))]
                lengths = [getattr(groups[name], score) for name in first]
                drawn = axes.barh(places, lengths, 0.8 / bars, color=COLORS[k % 8], label=tracker)
                axes.bar_label(drawn, fmt="%.3f", padding=3, fontsize=8)
            axes.set(xlabel=label, xlim=(0, 1.12), xticks=[0, 0.2, 0.4, 0.6, 0.8, 1])
            axes.grid(axis="x", alpha=0.3)
            axes.set_axisbelow(True)
        both[0].set_yticks(range(len(rows)), rows)
        both[0].set_ylim(len(rows) - 0.5, -0.5)
        if bars > 1:
            figure.legend(
                *both[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(bars, 6)
            )
    return Path(file)


@contextmanager
def _figure(file: str | os.PathLike, height: float, title: str | None) -> Iterator[Any]:
    """A figure to draw on, which is then written to the file; what is wrong with the file is found before."""
    file = Path(file)
    if file.suffix.lower() not in (".png", ".svg", ".pdf"):
        fail("file", "a name that ends in .png, .svg or .pdf", str(file))
    if not file.parent.is_dir():
        raise FileNotFoundError(f"the folder {file.parent} to write {file.name} in does not exist")
    figure = need("matplotlib.figure", extra="track", purpose="amstel.tracking.plot").Figure(
        figsize=(10, height), layout="constrained"
    )
    yield figure
    if title:
        figure.suptitle(title)
    with _files.replacing(file, argument="file") as temporary:
        figure.savefig(temporary, dpi=120)
