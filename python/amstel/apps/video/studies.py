"""The experiments on VideoLSTM behind benchmarks/results/video: `amstel video study NAME --json FILE`.

Settings are fixed here, and are the same for every fold, seed and model in a comparison.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amstel._words import counted
from amstel.apps.video.evaluate import evaluate
from amstel.apps.video.intervals import with_gaps
from amstel.apps.video.samples import Subset, _generator
from amstel.apps.video.settings import Settings
from amstel.apps.video.study_localization import localization
from amstel.apps.video.study_settings import AMONG, Say, root_of, small
from amstel.apps.video.train import train
from amstel.data import Clip, MovingShapes, Weizmann, generate_moving_shapes
from amstel.data.clips import DIRECTIONS


def weizmann(root: Path | None = None, say: Say = print) -> dict[str, Any]:
    """Four actions of six people, leaving one subject out, from scratch; 25 segments per test clip.

    ConvALSTM on optical flow, which sees neither the wall nor the clothes, and on RGB for comparison.
    """
    data = Weizmann(root_of(root, "weizmann4"))
    clips = [data[i] for i in range(len(data))]
    found: dict[str, Any] = {"study": "weizmann", "clips": len(clips), "classes": data.classes, "runs": []}
    for stream in ("flow", "rgb"):
        settings = Settings.from_scratch(
            model="convalstm", stream=stream, steps=12, stride=2, epochs=100, batch=10, shift=6, brightness=0.3, flip=True
        )  # fmt: skip
        start, right, wrong = time.perf_counter(), [], []
        for subject in sorted(set(data.subjects)):
            known, new = data.leave_out(subject)
            network = train(Subset(clips, known), data.classes, settings).network
            result = evaluate(network, Subset(clips, new))
            answers = result.probabilities.argmax(1)
            right.append(int((answers == result.labels).sum()))
            wrong += [
                [name, data.classes[k]]
                for name, k, label in zip(result.names, answers.tolist(), result.labels.tolist(), strict=True)
                if k != label
            ]  # fmt: skip
        seconds = time.perf_counter() - start
        accuracy = sum(right) / len(clips)
        say(
            f"Weizmann, ConvALSTM on {stream}: {accuracy:.1%} of {counted(len(clips), 'clip')}, {seconds:.0f} s; wrong: {wrong}"
        )
        found["runs"].append(
            {
                "stream": stream,
                "accuracy": accuracy,
                "right_per_subject": right,
                "wrong": wrong,
                "seconds": seconds,
                "threads": torch.get_num_threads(),
                "settings": asdict(settings),
            }
        )
    return found


class _Paths:
    """Paths as in the moving shapes: curves of order four from the bottom to the top, or from right to left."""

    @staticmethod
    def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """[count, 32, 2] in whole pixels and classes [count]."""
        radius = torch.randint(4, 8, (count,), generator=generator).float()[:, None]
        points = radius[..., None] + torch.rand(count, 5, 2, generator=generator) * (
            61.5 - 2 * radius[..., None]
        )
        points[:, 4, 0] = points[:, 0, 0]
        points[:, 0, 1], points[:, 4, 1] = 61.5 - radius[:, 0], radius[:, 0]
        label = torch.arange(count) % 2
        points[label == 1] = points[label == 1].flip(-1)
        t = torch.linspace(0, 1, 32)
        basis = torch.stack([math.comb(4, k) * t**k * (1 - t) ** (4 - k) for k in range(5)], 1)
        return (basis @ points).round(), label

    @staticmethod
    def inputs(paths: Tensor) -> Tensor:
        if paths.shape[1] < 3:
            return ((paths - 30) / 16).flatten(1)
        step = paths[:, 2:] - paths[:, :-2]
        return torch.cat([(paths - 30) / 16, step / 2], 1).flatten(1)


def _ceiling(window: tuple[int, int], reach: int, real: Tensor, labels: Tensor) -> tuple[float, float]:
    """What exact positions in the window tell of the class, if the clips are displaced by up to `reach` pixels:
    accuracy on drawn paths and on the real ones [clips, frames of the window, 2] of a classifier trained on 200,000
    drawn ones, far more than any data set has."""

    def drawn_paths(count: int, seed: int) -> tuple[Tensor, Tensor]:
        generator = _generator(seed)
        paths, label = _Paths.draw(count, generator)
        moved = torch.randint(-reach, reach + 1, (len(paths), 1, 2), generator=generator)
        return _Paths.inputs(paths[:, slice(*window)] + moved), label

    x, target = drawn_paths(200_000, 0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Linear(x.shape[1], 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 2)
        )
        epochs = 8 if real.shape[1] > 1 else 2
        adam = torch.optim.Adam(net.parameters(), 2e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, epochs * math.ceil(len(x) / 1000))
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(1000):
                adam.zero_grad()
                F.cross_entropy(net(x[rows]), target[rows]).backward()
                adam.step()
                schedule.step()
    with torch.no_grad():
        fresh, answers = drawn_paths(50_000, 1)
        drawn = (net(fresh).argmax(1) == answers).double().mean().item()
        own = (net(_Paths.inputs(real)).argmax(1) == labels).double().mean().item()
    return drawn, own


def _centers(frames: Tensor) -> Tensor:
    """Center of what is not black, [T, 2]."""
    light = frames.double().sum(-1)
    x, y = torch.arange(light.shape[2]).double(), torch.arange(light.shape[1]).double()
    total = light.sum((1, 2)).clamp_min(1)
    return torch.stack([light.sum(1) @ x / total, light.sum(2) @ y / total], 1)


def _displaced(clip: Clip, reach: int, index: int) -> Clip:
    """The whole clip moved by up to `reach` pixels, black where nothing was."""
    dx, dy = torch.randint(-reach, reach + 1, (2,), generator=_generator(5, index)).tolist()
    big = F.pad(clip.frames, (0, 0, reach, reach, reach, reach))
    height, width = clip.frames.shape[1:3]
    frames = big[:, reach - dy : reach - dy + height, reach - dx : reach - dx + width]
    return Clip(frames.contiguous(), clip.label, clip.name)


def moving_shapes(root: Path | None = None, say: Say = print) -> dict[str, Any]:
    """991 clips whose class is the direction of motion, on windows of their frames; one in five held out.

    The network is compared with one that sees a single frame at a time, and with what exact positions reveal (`_ceiling`).
    In the longest window the clips are displaced at random, because its first and last frames hint at the class.
    """
    data = MovingShapes(root_of(root, "moving_shapes"), window=None)
    clips = [data[i] for i in range(len(data))]
    order = torch.randperm(len(clips), generator=_generator(0)).tolist()
    count = len(clips) // 5
    labels = torch.tensor(data.labels)
    found: dict[str, Any] = {"study": "moving_shapes", "train": len(clips) - count, "test": count, "runs": []}
    for window, reach in (((12, 20), 0), ((8, 24), 12)):
        cut = [Clip(c.frames[window[0] : window[1]], c.label, c.name) for c in clips]
        if reach:
            cut = [_displaced(clip, reach, i) for i, clip in enumerate(cut)]
        known, new = Subset(cut, order[count:]), Subset(cut, order[:count])
        steps = window[1] - window[0]
        where = torch.stack([_centers(c.frames) for c in cut]).float()
        drawn, own = _ceiling(window, reach, where, labels)
        single = {}
        for t in (window[0], sum(window) // 2, window[1] - 1):
            only = where[:, t - window[0]][:, None]
            single[t] = _ceiling((t, t + 1), reach, only, labels)[1]
        run: dict[str, Any] = {
            "frames": [window[0], window[1] - 1],
            "displaced_by": reach,
            "exact_positions": {"drawn_paths": drawn, "these_clips": own},
            "exact_position_in_one_frame": single,
        }
        for name, settings in (
            ("network", Settings.from_scratch(
                model="convalstm", stream="flow", channels=(8, 16, 32), hidden=16, steps=steps, epochs=20, batch=16,
                shift=8, dropout=0.2,
            )),
            ("one_frame", Settings.from_scratch(model="convlstm", steps=1, epochs=15, batch=32, shift=4, dropout=0.2)),
        ):  # fmt: skip
            start = time.perf_counter()
            network = train(known, data.classes, settings).network
            accuracy = evaluate(network, new, segments=steps if name == "one_frame" else 25).accuracy
            if name == "network":
                run["network_last_step"] = evaluate(network, new, vote="last").accuracy
            if name == "one_frame":  # every frame on its own, not their vote
                alone = [
                    Clip(cut[i].frames[t : t + 1], cut[i].label, cut[i].name)
                    for i in order[:count]
                    for t in range(steps)
                ]
                run["one_frame_at_a_time"] = evaluate(network, alone, 1).accuracy
            run[name] = accuracy
            run[f"{name}_settings"] = asdict(settings)
            run[f"{name}_seconds"] = time.perf_counter() - start
        say(
            f"moving shapes, frames {window[0]}-{window[1] - 1}: {run['network']:.1%} of {counted(count, 'held-out clip')}, "
            f"{run['network_last_step']:.1%} by the last step alone; exact positions allow {drawn:.1%}, those of one "
            f"frame {', '.join(f'{v:.0%} ({t})' for t, v in single.items())}; a network that sees one frame "
            f"{run['one_frame_at_a_time']:.1%}"
        )
        found["runs"].append(run)
    return found


def order(root: Path | None = None, say: Say = print, seeds: int = 3) -> dict[str, Any]:
    """LSTM, ConvLSTM and ConvALSTM on generated clips: which way the colored shape goes, among gray ones.

    All three use the same clips, backbone, widths, epochs and rates; every seed has new clips and weights.
    """
    classes = list(DIRECTIONS[4])
    found: dict[str, Any] = {"study": "order", "task": AMONG, "train": 400, "test": 400, "runs": []}
    for model in ("convalstm", "convlstm", "lstm"):
        accuracy, fitted, start = [], [], time.perf_counter()
        for seed in range(seeds):
            known = generate_moving_shapes(400, seed=seed, **AMONG)
            done = train(known, classes, small(model, seed=seed))
            new = generate_moving_shapes(400, seed=1000 + seed, **AMONG)
            accuracy.append(evaluate(done.network, new, segments=1).accuracy)
            fitted.append(done.history[-1]["accuracy"])
        both = torch.std_mean(torch.tensor(accuracy, dtype=torch.float64), correction=0)
        std, mean = (x.item() for x in both)
        say(f"{model}: {100 * mean:.1f} ± {100 * std:.1f}% over {counted(seeds, 'seed')} (chance 25%)")
        found["runs"].append(
            {
                "model": model,
                "accuracy": accuracy,
                "mean": mean,
                "std": std,
                "training_accuracy": fitted,
                "seconds": time.perf_counter() - start,
                "settings": asdict(small(model)),
            }
        )
    return with_gaps(found, say)


#: Each takes the folder of the real clips and a function that says a line.
STUDIES: dict[str, Callable[..., dict[str, Any]]] = {
    "weizmann": weizmann,
    "moving-shapes": moving_shapes,
    "order": order,
    "localization": localization,
}
