"""Draw embeddings as moving points: SVG needs no other package, PNG and GIF need matplotlib."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import torch
from torch import Tensor

from amstel import _check, _files
from amstel._optional import need

# Okabe and Ito's colors, which the color-blind can tell apart.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
SIZE, MARGIN = 480, 30
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _pixels(frames: Tensor, rescale: bool) -> np.ndarray:
    """[T, N, 2] to pixel positions, all frames at one scale or each at its own."""
    points = frames.detach().double().cpu().numpy()
    axes = (1,) if rescale else (0, 1)
    low, high = points.min(axes, keepdims=True), points.max(axes, keepdims=True)
    span = np.maximum(high - low, 1e-9)
    xy = MARGIN + (points - low) / span * (SIZE - 2 * MARGIN)
    return np.stack([xy[..., 0], SIZE - xy[..., 1]], -1)


def _check_frames(
    frames: Tensor, labels: Tensor, edges: Tensor | None, captions: Sequence[str], seconds: float
) -> Sequence[str]:
    """What a picture is made of; returns the captions as a sequence of lines."""
    for name, value in (("frames", frames), ("labels", labels)):
        expected = "a real tensor [T, N, 2]" if name == "frames" else "a tensor [N]"
        if _check.dense(name, value, expected).is_complex():
            _check.fail(name, expected, value)
    if frames.dim() != 3 or frames.shape[2] != 2 or not frames.numel() or labels.shape != frames.shape[1:2]:
        raise ValueError(
            f"`frames` must be [T, N, 2] with labels [N], got {list(frames.shape)} and {list(labels.shape)}"
        )
    if not bool(frames.isfinite().all()):
        raise ValueError("`frames` must be finite, got NaN or an infinite number")
    if labels.is_floating_point():
        _check.fail("labels", "of integers", labels)
    if edges is not None:
        expected = f"[2, E], points from 0 to {len(labels) - 1}"
        numbers = edges.dtype in INTEGERS if _check.dense("edges", edges, expected).numel() else True
        if edges.dim() != 2 or len(edges) != 2 or not numbers:
            _check.fail("edges", expected, edges)
        points = edges.long()
        if bool((wrong := (points < 0) | (points >= len(labels))).any()):
            _check.fail("edges", expected, int(points[wrong][0]))
    _check.number("seconds", seconds, "a number > 0", above=0)
    lines = [captions] if isinstance(captions, str) else captions
    lines = list(lines) if isinstance(lines, Iterable) else [lines]
    if not all(isinstance(line, str) for line in lines):
        _check.fail_type("captions", "a line of text, or one per frame", captions)
    captions = [_NO_XML.sub("\ufffd", line) for line in lines]
    if len(captions) not in (0, 1, len(frames)):
        _check.fail("captions", f"a line of text, or {len(frames)} of them, one per frame", captions)
    return captions


def _check_ending(path: Any, *endings: str) -> None:
    if not isinstance(path, (str, os.PathLike)):
        _check.fail_type("path", f"a file that ends in {' or '.join(endings)}", path)
    if Path(path).suffix.lower() not in endings:
        _check.fail("path", f"a file that ends in {' or '.join(endings)}", str(path))


def chosen_points(marked: Any, count: int) -> np.ndarray:
    """Which points are marked [count], given their indices or a mask.

    Example:
        >>> amstel.media.points.chosen_points([0, 2], 4).tolist()
        [True, False, True, False]
    """
    if isinstance(marked, Tensor):
        marked = marked.detach().cpu()
    elif not isinstance(marked, Iterable) or isinstance(marked, (str, bytes)):
        _check.fail_type("marked", "numbers of points or a boolean mask", marked)
    marked = marked if isinstance(marked, (Tensor, np.ndarray)) else list(marked)
    given = np.asarray(_check.unmasked("marked", marked))
    found = np.zeros(count, bool)
    if not given.size and given.dtype != bool:
        return found
    if given.dtype == bool and given.shape == found.shape:
        return given
    if given.ndim != 1 or given.dtype.kind not in "iu":
        what = f"{given.dtype} of shape {list(given.shape)}"
        raise ValueError(f"`marked` must be numbers of points or a boolean mask [{count}], got {what}")
    if (wrong := (given < 0) | (given >= count)).any():
        _check.fail("marked", f"points 0 to {count - 1}", int(given[wrong][0]))
    found[given] = True
    return found


def _lines(edges: Tensor | None) -> list[tuple[int, int]]:
    """Each line once, whichever ways its edges go; a loop is none."""
    pairs = [] if edges is None else _check.tensor("edges", edges, "a tensor [2, E]").T.tolist()
    return list(dict.fromkeys((min(i, j), max(i, j)) for i, j in pairs if i != j))


def svg(
    path: str | Path,
    frames: Tensor,
    labels: Tensor,
    edges: Tensor | None = None,
    captions: Sequence[str] = (),
    marked: Iterable[int] = (),
    seconds: float = 8.0,
    rescale: bool = False,
) -> Path:
    """Write points as an SVG picture, animated if there is more than one frame.

    Args:
        path: file to write.
        frames: positions [T, N, 2].
        labels: class of each point [N], its color.
        edges: [2, E], drawn as lines; the two directions of an edge are drawn once.
        captions: one line of text per frame, or one for all.
        marked: points drawn larger, with a black border: their indices, or a boolean mask [N].
        seconds: length of the animation, which then repeats.
        rescale: whether to let every frame fill the picture.

    Raises:
        ValueError or TypeError: an argument is not as described.
        FileNotFoundError: the folder to write in does not exist.

    Example:
        >>> path = amstel.draw.svg("points.svg", torch.rand(1, 9, 2), torch.zeros(9).long())
    """
    _check_ending(path, ".svg")
    _check.flag("rescale", rescale)
    captions = _check_frames(frames, labels, edges, captions, seconds)
    xy, large = _pixels(frames, rescale), chosen_points(marked, len(labels))

    def attribute(name: str, values: np.ndarray) -> tuple[str, str]:
        """The attribute at its last value, and its way there."""
        still = f'{name}="{values[-1]:.1f}"'
        if len(values) == 1:
            return still, ""
        way = ";".join(f"{v:.1f}" for v in values)
        # The last frame stays for a while.
        times = ";".join(f"{t:.4f}" for t in [*np.linspace(0, 0.85, len(values)), 1])
        return still, (
            f'<animate attributeName="{name}" values="{way};{values[-1]:.1f}" keyTimes="{times}" '
            f'dur="{seconds}s" repeatCount="indefinite"/>'
        )

    def element(tag: str, fixed: str, moving: list[tuple[str, np.ndarray]]) -> str:
        parts = [attribute(*m) for m in moving]
        return f"<{tag} {fixed} {' '.join(p[0] for p in parts)}>{''.join(p[1] for p in parts)}</{tag}>"

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE} {SIZE + 30}" width="{SIZE}" '
        f'height="{SIZE + 30}" font-family="sans-serif" font-size="14">',
        f'<rect width="{SIZE}" height="{SIZE + 30}" fill="white"/>',
    ]
    for i, j in _lines(edges):
        ends = [("x1", xy[:, i, 0]), ("y1", xy[:, i, 1]), ("x2", xy[:, j, 0]), ("y2", xy[:, j, 1])]
        lines.append(element("line", 'stroke="#bbb" stroke-width="0.7"', ends))
    classes = labels.tolist()
    for n in np.argsort(large, kind="stable").tolist():
        look = 'r="5" stroke="white" stroke-width="0.7"'
        if large[n]:
            look = 'r="8" stroke="black" stroke-width="2"'
        look += f' fill="{COLORS[classes[n] % len(COLORS)]}"'
        lines.append(element("circle", look, [("cx", xy[:, n, 0]), ("cy", xy[:, n, 1])]))
    for t, caption in enumerate(captions):
        text = f'<text x="{SIZE / 2}" y="{SIZE + 15}" text-anchor="middle"'
        if len(captions) == 1:
            lines.append(f"{text}>{escape(caption)}</text>")
            continue
        # Each caption is seen during its own frame only, the last one also where nothing moves.
        shown = [str(int(s == t)) for s in range(len(captions))] + [str(int(t == len(captions) - 1))]
        times = ";".join(f"{v:.4f}" for v in np.linspace(0, 0.85, len(captions))) + ";1"
        lines.append(
            f'{text} opacity="{shown[-1]}">{escape(caption)}'
            f'<animate attributeName="opacity" calcMode="discrete" values="{";".join(shown)}" '
            f'keyTimes="{times}" dur="{seconds}s" repeatCount="indefinite"/></text>'
        )
    return _files.write_text(path, "\n".join([*lines, "</svg>"]) + "\n")


def raster(
    path: str | Path,
    frames: Tensor,
    labels: Tensor,
    edges: Tensor | None = None,
    captions: Sequence[str] = (),
    marked: Iterable[int] = (),
    seconds: float = 8.0,
    rescale: bool = False,
) -> Path:
    """The same picture as a PNG (one frame) or GIF; needs the extra [cli].

    Raises:
        ValueError: as `svg`, or another extension.
        ImportError: matplotlib or pillow is missing.

    Example:
        >>> path = amstel.draw.raster("points.png", torch.rand(1, 9, 2), torch.arange(9) % 3, marked=[4])
        >>> amstel.media.images.read(path).shape
        (508, 480, 3)
    """
    captions = _check_frames(frames, labels, edges, captions, seconds)
    _check.flag("rescale", rescale)
    _check_ending(path, *((".png", ".gif") if len(frames) == 1 else (".gif",)))
    large = chosen_points(marked, len(labels))
    animation, agg, collections, figures = (
        need(f"matplotlib.{name}", extra="cli", purpose="a PNG or GIF picture of points")
        for name in ("animation", "backends.backend_agg", "collections", "figure")
    )
    xy = torch.from_numpy(_pixels(frames, rescale)).numpy()
    figure = figures.Figure(figsize=(5, 5.3), dpi=96)
    agg.FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0.05, 1, 0.95))
    axes.set(xlim=(0, SIZE), ylim=(SIZE, 0), aspect="equal")
    axes.axis("off")
    pairs = _lines(edges)
    net = collections.LineCollection([], colors="#bbbbbb", linewidths=0.7, zorder=1)
    axes.add_collection(net)
    # The marked ones last, so that nothing hides them.
    order = np.argsort(large, kind="stable").tolist()
    large = large[order]
    dots = axes.scatter(
        xy[0, order, 0],
        xy[0, order, 1],
        s=np.where(large, 150, 60),
        c=[COLORS[c % len(COLORS)] for c in labels[order].tolist()],
        edgecolors=np.where(large, "black", "white").tolist(),
        linewidths=np.where(large, 2, 0.7).tolist(),
        zorder=2,
    )
    text = figure.text(0.5, 0.02, "", ha="center", fontsize=11, parse_math=False)

    def show(t: int) -> None:
        dots.set_offsets(xy[t, order])
        net.set_segments([xy[t, [i, j]] for i, j in pairs])
        text.set_text(captions[min(t, len(captions) - 1)] if captions else "")

    count = len(xy)
    with _files.replacing(path) as temporary:
        if count == 1:
            show(0)
            figure.savefig(temporary)
        else:
            shown = [*range(count), *[count - 1] * (count // 6)]
            animation.FuncAnimation(figure, show, frames=shown).save(
                temporary, animation.PillowWriter(fps=max(1, round(len(shown) / seconds)))
            )
    return Path(path)
