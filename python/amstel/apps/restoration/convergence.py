"""How fast estimates improve: PSNR over the steps of an iteration, compared with total variation after as many steps.

Gray patches of 64x64 pixels (32x32 for random projections) from the centers of images. Total variation is FISTA
(`amstel.inverse.total_variation`) with the best of three weights at its last step.

- "denoise": sigma 25; the steps of the network.
- "super-resolve x3": the steps of the network, which begins with bicubic enlargement.
- "projection P/N = r": r times as many random projections as pixels, noise of 1 / 255; the steps of plug-and-play with the
  gray denoiser. A step removes about P / N of what the denoiser cannot see, such as an error of the brightness, so fifteen
  steps show how fast they improve, but are far too few for small P / N; `classical` runs 100, and message passing below
  P / N = 0.25.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amstel import inverse
from amstel.apps.restoration import evaluate, files
from amstel.inverse.plug_and_play import _turned, plug_and_play
from amstel.inverse.restore import sr_sigma
from amstel.nn.rim import RIM

Row = dict[str, Any]

RATIOS, STEPS = (0.1, 0.2, 0.3, 0.4, 0.5), 15
WEIGHTS = {"denoise": (0.05, 0.08, 0.12), "super": (0.0005, 0.002, 0.005), "projection": (0.003, 0.01, 0.03)}


@torch.no_grad()
def curves(
    root: str | os.PathLike,
    *,
    images: int = 20,
    seed: int = 0,
    ratios: Sequence[float] = RATIOS,
    progress: Callable[[int], None] | None = None,
) -> list[Row]:
    """Rows of "task", "method" and "psnr", the mean over the patches after every step.

    Args:
        root: a folder of images of at least 64x64 pixels; the first `images` of them are used.
        seed: for noise and projections.
        ratios: P / N for the random projections.
        progress: called with 1 after every task.

    Raises:
        ValueError: a folder without images, or with smaller ones.
    """
    paths = files.find(root)[:images]
    x = torch.stack([middle(path, 64) for path in paths])[:, None]
    generator = torch.Generator().manual_seed(seed)
    gray, sr = RIM.pretrained("gray"), RIM.pretrained("sr")
    rows: list[Row] = []

    def add(task: str, method: str, estimates: Sequence[Tensor], truth: Tensor) -> None:
        rows.append({"task": task, "method": method, "psnr": [_psnr(t, truth) for t in estimates]})

    def against(
        task: str, kind: str, y: Tensor, physics: inverse.ForwardModel, truth: Tensor, steps: int
    ) -> None:
        """Total variation, with the weight that is best at the end."""
        best = max(WEIGHTS[kind], key=lambda w: _psnr(inverse.total_variation(y, physics, w, steps), truth))
        found = [inverse.total_variation(y, physics, best, t) for t in range(1, steps + 1)]
        add(task, "total variation", found, truth)
        if progress is not None:
            progress(1)

    physics: inverse.ForwardModel = inverse.Denoising(25 / 255)
    y = x + 25 / 255 * torch.randn(x.shape, generator=generator)
    steps = gray.trained_steps or gray.steps
    add("denoise", "RIM", gray(y, physics, steps), x)
    against("denoise", "denoise", y, physics, x, steps)

    truth = x[..., :63, :63]
    physics = inverse.SuperResolution(3, sr_sigma(3))
    y = (physics(truth) * 255).round().clamp(0, 255) / 255
    steps = sr.trained_steps or sr.steps
    add("super-resolve x3", "RIM", sr(y, physics, steps, initial=physics.adjoint(y) * 9), truth)
    against("super-resolve x3", "super", y, physics, truth, steps)

    small = x[..., 16:48, 16:48].contiguous()
    for ratio in ratios:
        task = f"projection P/N = {ratio:g}"
        physics = inverse.StructuredProjection((1, 32, 32), round(ratio * 1024), 1 / 255, seed=seed)
        y = physics(small)
        y = y + torch.randn(y.shape, generator=generator) / 255
        add(task, "plug-and-play", unprojected(y, physics, gray, STEPS), small)
        against(task, "projection", y, physics, small, STEPS)
    return rows


@torch.no_grad()
def unprojected(
    y: Tensor, physics: inverse.ForwardModel, gray: RIM, steps: int, first: float = 60 / 255
) -> list[Tensor]:
    """The estimates from random projections after each step of plug-and-play with the gray denoiser, from a level `first`."""
    found: list[Tensor] = []

    def denoise(t: Tensor, level: float) -> Tensor:
        found.append(_turned(t, len(found), back=True))
        return gray(t, inverse.Denoising(level), 1)[-1]

    levels = np.geomspace(first, 2 / 255, steps - 1).tolist()
    last = plug_and_play(y, physics, denoise, levels, weight=0.3, iterations=8)
    return [*found, last]


def count(ratios: Sequence[float] = RATIOS) -> int:
    """How often `curves` calls `progress`."""
    return 2 + len(ratios)


def middle(path: Path, side: int) -> Tensor:
    """The middle `side` x `side` pixels of an image, gray by its luma."""
    pixels = files.read(path).pixels
    pixels = pixels if pixels.ndim == 2 else pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    i, j = ((n - side) // 2 for n in pixels.shape)
    if i < 0 or j < 0:
        raise ValueError(
            f"{path} must have at least {side} x {side} pixels, got {pixels.shape[1]} x {pixels.shape[0]}"
        )
    return torch.from_numpy(np.ascontiguousarray(pixels[i : i + side, j : j + side]))


def _psnr(x: Tensor, truth: Tensor) -> float:
    pairs = zip(x.numpy(), truth.numpy(), strict=True)
    return float(np.mean([evaluate.psnr(a, b) for a, b in pairs]))


def text(rows: Sequence[Row]) -> str:
    """The tasks, with a line for each method and ten steps: PSNR in dB after every step."""
    lines: list[str] = []
    for row in rows:
        lines += [] if f"{row['task']}:" in lines else [f"{row['task']}:"]
        for k in range(0, len(row["psnr"]), 10):
            name = "" if k else row["method"]
            lines.append(f"  {name:<15} " + " ".join(f"{v:5.2f}" for v in row["psnr"][k : k + 10]))
    if any(row["method"] == "plug-and-play" for row in rows):
        lines += [
            "",
            f"A step of plug-and-play removes about P/N of the error: {STEPS} steps show how fast it",
            "improves, but are too few for a small P/N; --table classical runs enough of them.",
        ]
    return "\n".join(lines)


def draw(rows: Sequence[Row], path: Path) -> None:
    """The curves as a figure with a panel per task, drawn by `amstel.plot.convergence`."""
    from amstel import _files, plot

    figures, agg = files.module("matplotlib.figure"), files.module("matplotlib.backends.backend_agg")
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    wide = min(4, len(tasks))
    figure = figures.Figure(figsize=(3.4 * wide, 3 * -(-len(tasks) // wide)), layout="constrained")
    agg.FigureCanvasAgg(figure)
    names = list(dict.fromkeys(row["method"] for row in rows))
    methods: dict[str, Any] = {}
    for task, axes in zip_longest(tasks, figure.subplots(-(-len(tasks) // wide), wide, squeeze=False).flat):
        if task is None:
            axes.remove()
            continue
        of_task = {row["method"]: row["psnr"] for row in rows if row["task"] == task}
        plot.convergence(of_task, xlabel="step", ylabel="PSNR, dB", axes=axes)
        axes.set_title(task, fontsize=10)
        for line, label in zip(*axes.get_legend_handles_labels(), strict=True):
            line.set_color(plot.COLORS[names.index(label)])  # one for all panels
            methods.setdefault(label, line)
        axes.get_legend().remove()
    figure.legend(methods.values(), methods.keys(), loc="outside lower center", ncols=len(methods))
    with _files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=100)
