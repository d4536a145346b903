"""Plots for each family, on matplotlib axes.

Every function takes `axes=`, makes new axes if you pass none, and returns them, so you control titles, scales and
layout with matplotlib:

    figure, (left, right) = matplotlib.pyplot.subplots(1, 2)
    amstel.plot.success(evaluations, axes=left)
    amstel.plot.precision(evaluations, axes=right)
    figure.savefig("tracker.png")

matplotlib is part of the extra [cli] and is imported when the first plot is drawn. For image files without axes,
including animations, see `amstel.draw` and `amstel.video.annotate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from amstel import _check
from amstel._axes import (
    _array,
    _axes,
    _boxes,
    _canvas,
    _matplotlib,
    _names,
    _picture,
    _rectangle,
    _shape,
    _wrong,
)
from amstel._words import counted
from amstel.media.points import COLORS, chosen_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "attention",
    "confusion",
    "convergence",
    "embedding",
    "precision",
    "restorations",
    "success",
    "tracks",
]


def embedding(
    points: Any,
    labels: Any = None,
    edges: Any = None,
    *,
    marked: Iterable[int] = (),
    names: Sequence[str] | None = None,
    axes: Axes | None = None,
) -> Axes:
    """Nodes of a graph as points in the plane, colored by class.

    Args:
        points: positions [N, 2].
        labels: class of each point [N], whole numbers >= 0.
        edges: [2, E], drawn as lines below the points.
        marked: points drawn larger and with a black border, such as the labeled ones: their numbers, or a boolean mask
            [N].
        names: of the classes; adds a legend.
        axes: to draw on; None for new ones.

    Raises:
        ValueError: a shape, class or point index does not fit; TypeError: `axes` is not an Axes.

    Example:
        >>> data = amstel.data.karate_club()
        >>> axes = amstel.plot.embedding(torch.randn(34, 2), data.labels, data.graph.to_edge_index()[0])
    """
    xy = _array(points, "points")
    if xy.ndim != 2 or xy.shape[1] != 2:
        _wrong("points", "[N, 2]", _shape(xy))
    if not np.isfinite(xy).all():
        _wrong("points", "finite positions", "NaN or infinity")
    classes = np.zeros(len(xy), int) if labels is None else _array(labels, "labels")
    if classes.shape != xy.shape[:1] or classes.dtype.kind not in "iu" or (classes < 0).any():
        _wrong("labels", f"[{len(xy)}] whole numbers >= 0", f"{classes.dtype} of {_shape(classes)}")
    names = None if names is None else _names(names, "names")
    if names is not None and classes.size and len(names) <= classes.max():
        _wrong(
            "names", f"a name for each of the {counted(classes.max() + 1, 'class')}", f"{len(names)} of them"
        )
    large = chosen_points(marked, len(xy))
    axes = _axes(axes)
    if edges is not None:
        pairs = _array(edges, "edges")
        if (
            pairs.ndim != 2
            or len(pairs) != 2
            or (pairs.size and pairs.dtype.kind not in "iu")
            or (pairs.size and not 0 <= pairs.min() <= pairs.max() < len(xy))
        ):
            _wrong("edges", f"[2, E] with points 0 to {len(xy) - 1}", f"{pairs.dtype} of {_shape(pairs)}")
        lines = _matplotlib("collections").LineCollection(
            xy[pairs.T.astype(int)], colors="#bbbbbb", linewidths=0.7, zorder=1
        )
        axes.add_collection(lines)
    for label in np.unique(classes):
        for chosen, size, edge, width in ((~large, 50, "white", 0.7), (large, 140, "black", 1.8)):
            here = xy[(classes == label) & chosen]
            axes.scatter(
                here[:, 0],
                here[:, 1],
                s=size,
                c=COLORS[label % 8],
                edgecolors=edge,
                linewidths=width,
                zorder=2,
            )
        if names is not None:
            axes.scatter([], [], c=COLORS[label % 8], label=names[label])
    if names is not None:
        axes.legend()
    axes.autoscale_view()
    axes.set(xticks=[], yticks=[])
    return axes


def attention(
    frame: Any,
    weights: Any,
    *,
    box: Any = None,
    truth: Any = None,
    alpha: float = 0.55,
    axes: Axes | None = None,
) -> Axes:
    """Where a video model looks: an attention map over its frame, with the predicted and the true box.

    Args:
        frame: [H, W, 3] uint8, as `amstel.video.read` gives it.
        weights: attention [h, w] >= 0, stretched over the frame.
        box, truth: x1, y1, x2, y2 in pixels, drawn solid and dashed; nothing is drawn for None or NaN.
        alpha: opacity of the attention map, 0 to 1.
        axes: to draw on; None for new ones.

    Raises:
        ValueError: a shape that does not fit, or weights that are negative or not finite.

    Example:
        >>> axes = amstel.plot.attention(torch.zeros(64, 96, 3).byte(), torch.rand(7, 7), box=[10, 10, 50, 40])
    """
    picture, heat = _picture(frame, "frame"), _array(weights, "weights")
    if heat.ndim != 2 or not heat.size:
        _wrong("weights", "[h, w]", _shape(heat))
    if not np.isfinite(heat).all() or heat.min() < 0:
        _wrong("weights", "finite numbers >= 0", "others among them")
    _check.number("alpha", alpha, "a number from 0 to 1", least=0, most=1)
    axes = _canvas(picture, axes)
    height, width = picture.shape[:2]
    over = (0, width, height, 0)
    axes.imshow(heat, cmap="inferno", alpha=alpha, extent=over, interpolation="bilinear", vmin=0)
    for corners, color, line, name in ((box, COLORS[4], "-", "box"), (truth, "white", "--", "truth")):
        if corners is not None:
            x1, y1, x2, y2 = _boxes(corners, name)[-1]
            _rectangle(axes, (x1, y1, x2 - x1, y2 - y1), color, line, name)
    return axes


def confusion(matrix: Any, classes: Sequence[str], *, axes: Axes | None = None) -> Axes:
    """Confusion matrix: one row per true class, one column per predicted class.

    The color is the share of the row. Counts are shown for up to 12 classes, names for up to 40.

    Args:
        matrix: [K, K] counts, such as `Evaluation.confusion` from `amstel.apps.video.evaluate`.
        classes: K names.
        axes: to draw on; None for new ones.

    Raises:
        ValueError: a shape that does not fit, or counts that are negative or not finite.

    Example:
        >>> axes = amstel.plot.confusion([[8, 2], [1, 9]], ["walk", "run"])
    """
    counts, names = _array(matrix, "matrix"), _names(classes, "classes")
    if counts.shape != (len(names), len(names)) or not names:
        _wrong("matrix", f"[K, K] with K = {counted(len(names), 'class')}, at least one", _shape(counts))
    if not np.isfinite(counts).all() or counts.min() < 0:
        _wrong("matrix", "counts >= 0", "other values")
    axes = _axes(axes)
    share = counts / counts.sum(1, keepdims=True).clip(np.finfo(float).tiny)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted class", ylabel="true class")
    ticks = range(len(names)) if len(names) <= 40 else []
    shown = names if len(names) <= 40 else []
    small = 6 if len(names) > 12 else None
    turn, side = (45, "right") if len(names) <= 12 else (90, "center")
    axes.set_xticks(ticks, shown, rotation=turn, ha=side, fontsize=small)
    axes.set_yticks(ticks, shown, fontsize=small)
    if len(names) <= 12:
        for row, column in np.ndindex(*counts.shape):
            color = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, f"{counts[row, column]:.16g}", ha="center", va="center", color=color)
    return axes


def tracks(frame: Any, boxes: Mapping[str, Any], *, axes: Axes | None = None) -> Axes:
    """Tracks on a frame: the last box of each, and the path of its center.

    Args:
        frame: [H, W, 3] uint8 (or [H, W]).
        boxes: name of each track, and its boxes [T, 4] up to this frame or one box [4]: x, y, w, h in pixels, NaN
            where there is none.
        axes: to draw on; None for new ones.

    Raises:
        ValueError: nothing to draw, or a shape that does not fit.

    Example:
        >>> boxes = torch.tensor([[10.0, 10, 20, 20], [14, 12, 20, 20]])
        >>> axes = amstel.plot.tracks(torch.zeros(64, 96, 3).byte(), {"SINT": boxes, "truth": boxes + 1})
    """
    if not _check.mapping("boxes", boxes, "a dict of tracks by their names"):
        raise ValueError("`boxes` must hold at least one track, got none")
    axes = _canvas(_picture(frame, "frame"), axes)
    for k, (name, track) in enumerate(boxes.items()):
        way, color = _boxes(track, f"boxes[{name!r}]"), COLORS[k % 8]
        centers = way[:, :2] + way[:, 2:] / 2
        axes.plot(*centers.T, color=color, linewidth=1, alpha=0.8, scalex=False, scaley=False)
        _rectangle(axes, way[-1], color, "-", name)
    axes.legend(loc="lower right")
    return axes


def success(evaluations: Mapping[str, Any], *, axes: Axes | None = None) -> Axes:
    """Success plot: the share of frames with an overlap above each threshold. One line per tracker, best first.

    Args:
        evaluations: name of each tracker, and its scores from `amstel.tracking.evaluate` or `evaluate_dataset`.
        axes: to draw on; None for new ones.

    Raises:
        ValueError: nothing to draw.

    Example:
        >>> boxes = torch.tensor([[10.0, 10, 20, 20], [14, 12, 20, 20]])
        >>> axes = amstel.plot.success({"SINT": amstel.tracking.evaluate(boxes + 1, boxes)})
    """
    x = np.linspace(0, 1, 21)
    return _curves(evaluations, "success", "auc", x, ("overlap threshold", "success rate"), axes)


def precision(evaluations: Mapping[str, Any], *, axes: Axes | None = None) -> Axes:
    """Precision plot: the share of frames with a center error within each distance. One line per tracker, best first.

    Args, errors: as `success`; the score in the legend is the share within 20 pixels.

    Example:
        >>> boxes = torch.tensor([[10.0, 10, 20, 20], [14, 12, 20, 20]])
        >>> axes = amstel.plot.precision({"SINT": amstel.tracking.evaluate(boxes + 1, boxes)})
    """
    x = np.arange(51)
    return _curves(
        evaluations, "precision_curve", "precision", x, ("center error, pixels", "precision"), axes
    )


def _curves(
    evaluations: Mapping[str, Any], curve: str, score: str, x: np.ndarray, labels: tuple[str, str], axes: Any
) -> Any:
    if not _check.mapping("evaluations", evaluations, "a dict of each tracker's scores"):
        raise ValueError("`evaluations` must hold at least one tracker's scores, got none")
    for name, found in evaluations.items():
        _check.with_attributes(f"evaluations[{name!r}]", found, curve, score)
    axes = _axes(axes)
    # A tracker keeps its color whatever the order of the legend, so that two plots side by side agree.
    style = {name: (COLORS[k % 8], "-" if k < 8 else "--") for k, name in enumerate(evaluations)}
    for name in sorted(evaluations, key=lambda name: -getattr(evaluations[name], score)):
        color, line = style[name]
        text = f"{name} [{getattr(evaluations[name], score):.3f}]"
        y = _array(getattr(evaluations[name], curve), f"evaluations[{name!r}]")
        axes.plot(x, y, color=color, linestyle=line, label=text)
    axes.set(xlabel=labels[0], ylabel=labels[1], xlim=(0, x[-1]), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left" if curve == "success" else "lower right", framealpha=0.9)
    return axes


def restorations(
    images: Mapping[str, Any],
    truth: Any = None,
    *,
    limit: float | None = None,
    axes: Any = None,
) -> np.ndarray:
    """Images side by side, with error maps and PSNR below them.

    Args:
        images: name of each image, and the image: an array [H, W] or [H, W, 3], or a tensor [C, H, W] or [1, C, H,
            W]; values in [0, 1], or uint8. Complex images are shown by magnitude.
        truth: the true image, in the same form; None draws no errors.
        limit: error at the end of the color scale, which all maps share; None for the largest error.
        axes: array of axes with one column per image and two rows (one row without truth); None for new ones.

    Returns:
        the axes [rows, columns].

    Raises:
        ValueError: nothing to draw, sizes that differ, or a wrong number of axes.

    Example:
        >>> clean = torch.rand(1, 1, 32, 32)
        >>> grid = amstel.plot.restorations({"noisy": clean + 0.1 * torch.randn_like(clean), "clean": clean}, clean)
        >>> grid.shape
        (2, 2)
    """
    _check.mapping("images", images, "a dict of images by their names")
    pictures = {name: _picture(image, f"images[{name!r}]", frame=False) for name, image in images.items()}
    if not pictures:
        raise ValueError("`images` must hold at least one image, got none")
    right = None if truth is None else _picture(truth, "truth", frame=False)
    for name, picture in pictures.items():
        if right is not None and picture.shape != right.shape:
            _wrong(f"images[{name!r}]", f"the size of truth, {list(right.shape)}", _shape(picture))
    if limit is not None:
        limit = _check.number("limit", limit, "a number > 0", above=0)
    rows, columns = 1 if right is None else 2, len(pictures)
    if axes is None:
        size = (2.6 * columns, 2.8 * rows)
        axes = _matplotlib("pyplot").subplots(
            rows, columns, figsize=size, squeeze=False, layout="constrained"
        )[1]
    grid = np.atleast_1d(np.asarray(axes, dtype=object))
    if grid.size != rows * columns:
        _wrong("axes", f"{rows} x {columns} axes", f"{grid.size} of them")
    grid = grid.reshape(rows, columns)
    errors = {} if right is None else {n: p.astype(float) - right for n, p in pictures.items()}
    if limit is None:
        limit = max((abs(e).max() for e in errors.values()), default=1.0) or 1.0
    for column, (name, picture) in enumerate(pictures.items()):
        _canvas(picture, grid[0, column]).set_title(name)
        if right is None:
            continue
        error = abs(errors[name])
        _canvas(error.mean(-1) if error.ndim == 3 else error, grid[1, column], cmap="magma", vmax=limit)
        mse = (errors[name] ** 2).mean()
        grid[1, column].set_xlabel("no error" if mse == 0 else f"{-10 * np.log10(mse):.2f} dB")
    return grid


def convergence(
    curves: Mapping[str, Any] | Sequence[float] | torch.Tensor | np.ndarray,
    *,
    ylabel: str = "loss",
    xlabel: str = "epoch",
    log: bool = False,
    axes: Axes | None = None,
) -> Axes:
    """A quantity over epochs or steps, one line per run; several seeds are drawn as mean and standard deviation.

    Args:
        curves: name of each run, and its values [T] or [seeds, T]; or the values of a single run.
        ylabel, xlabel: labels of the axes.
        log: a logarithmic axis for the values.
        axes: to draw on; None for new ones.

    Raises:
        ValueError: nothing to draw, or a shape that does not fit.

    Example:
        >>> axes = amstel.plot.convergence({"GCN": [1.9, 1.2, 0.8], "MLP": [1.9, 1.7, 1.6]}, log=True)
    """
    named: Mapping[str, Any] = curves if isinstance(curves, Mapping) else {"": curves}
    if not named:
        raise ValueError("`curves` must hold at least one run, got none")
    lines = {}
    for name, given in named.items():
        argument = f"curves[{name!r}]" if isinstance(curves, Mapping) else "curves"
        values = np.atleast_2d(_array(given, argument))
        if values.ndim != 2 or not values.size:
            _wrong(argument, "real [T] or [seeds, T], not empty", f"{values.dtype} of {_shape(values)}")
        lines[name] = values.astype(float)
    axes = _axes(axes)
    for k, (name, values) in enumerate(lines.items()):
        x, mean, color = np.arange(1, values.shape[1] + 1), values.mean(0), COLORS[k % 8]
        axes.plot(x, mean, color=color, label=name or None, marker="o" if len(x) == 1 else None)
        if len(values) > 1:
            std = values.std(0)
            axes.fill_between(x, mean - std, mean + std, color=color, alpha=0.2, linewidth=0)
    if log:
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(_matplotlib("ticker").MaxNLocator(integer=True))
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    if any(lines):
        axes.legend()
    return axes
