"""Forecasting bouncing digits with an encoder-forecaster, compared with forecasts that need no memory.

Two other forecasts see only the last frame: that frame itself, and a convolutional network
that draws all next frames from it, trained the same way. Sequences are generated as needed, test sequences from
another seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amstel import _check
from amstel import nn as models
from amstel._words import counted
from amstel.apps import ranks, training
from amstel.apps.task import Plan, Task
from amstel.apps.video.settings import ForecastSettings
from amstel.data import generate_bouncing_digits

FORMAT, EVERY = "amstel video_forecast 1", 50


class FrameCNN(nn.Module):
    """All next frames [K, N, 1, H, W] from the last one only, with convolutions at the forecaster's resolution."""

    def __init__(self, settings: ForecastSettings):
        super().__init__()
        pixels, wide, patch = settings.patch**2, 2 * settings.hidden, settings.patch
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(patch),
            *(nn.Conv2d(pixels, wide, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(wide, wide, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(wide, wide, 3, padding=1), nn.ReLU()),
            nn.Conv2d(wide, settings.steps * pixels, 1),
            nn.PixelShuffle(patch),
        )

    def forward(self, frames: Tensor, steps: int) -> Tensor:
        return self.layers(frames[-1]).transpose(0, 1)[:steps, :, None]


def forecaster(settings: ForecastSettings) -> models.ConvLSTMForecaster:
    """The network that the settings describe."""
    widths = [settings.hidden] * settings.layers
    # Without the norm the first hundreds of iterations find no more than the mean frame.
    return models.ConvLSTMForecaster(
        1, widths, settings.kernel_size, patch=settings.patch, layer_norm=settings.layer_norm
    )


def sequences(settings: ForecastSettings, count: int, start: int = 0, test: bool = False) -> Tensor:
    """Frames [given + steps, count, 1, size, size] in [0, 1]; those of the test are used nowhere else."""
    s = settings
    found = generate_bouncing_digits(
        count, s.given + s.steps, s.size, s.digits, 2 * s.seed + test, start=start
    )
    return found.movedim(1, 0)[:, :, None].float() / 255


class _Loss(nn.Module):
    """A batch of sequences -> cross-entropy of the pixels of the frames to forecast, a mean."""

    def __init__(self, model: nn.Module, settings: ForecastSettings):
        super().__init__()
        self.model, self.given, self.steps = model, settings.given, settings.steps

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        loss = F.binary_cross_entropy_with_logits(self.model(x[: self.given], self.steps), x[self.given :])
        return loss, loss.new_zeros(0)


class _Task(Task):
    key, clip = "network", 1.0

    def __init__(self, model: nn.Module, settings: ForecastSettings, device: torch.device):
        self.model, self.module, self.settings, self.device = model, _Loss(model, settings), settings, device
        self.optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)

    def items(self, step: int) -> list[int]:
        return list(range(step * self.settings.batch, (step + 1) * self.settings.batch))

    def inputs(self, step: int, items: Sequence[int]) -> tuple[Tensor]:
        return (torch.cat([sequences(self.settings, 1, n) for n in items], 1).to(self.device),)

    def prepare(self, step: int) -> None:
        done = step / self.settings.iterations
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * (1 + math.cos(math.pi * done)) / 2

    def header(self, step: int) -> dict[str, Any]:
        return {"format": FORMAT, "settings": asdict(self.settings)}


def read(path: Path) -> tuple[models.ConvLSTMForecaster, ForecastSettings, dict[str, Any]]:
    """The network in a checkpoint, its settings, and everything else in the file."""
    if not path.is_file():
        raise FileNotFoundError(f"the checkpoint {path} does not exist")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["format"] != FORMAT:
            raise ValueError("another format")
        settings = ForecastSettings(**state["settings"])
        model = forecaster(settings)
        model.load_state_dict(state["network"])
    except Exception as error:
        raise ValueError(f"{path} is not a checkpoint of `amstel video forecast`") from error
    training.check_finite(path, model.state_dict())
    return model, settings, state


@dataclass
class Forecast:
    """What `train` returns: both networks in evaluation mode, the settings, and the loss for every 50 iterations."""

    model: nn.Module
    cnn: nn.Module
    settings: ForecastSettings
    history: list[dict[str, float]]


def train(
    settings: ForecastSettings | None = None,
    *,
    out: Path | None = None,
    resume: bool = False,
    force: bool = False,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Forecast:
    """Train the encoder-forecaster and, for as many steps, the network that sees one frame.

    Args:
        settings: default: `ForecastSettings()`.
        out: a folder for `checkpoint.pt` (of the forecaster), written every 50 iterations, and `log.jsonl`.
        resume: continue from the checkpoint in `out`, with its settings except for the number of iterations.
        force: overwrite a run in `out`.
        device: where to train.
        progress: called with the number of sequences after every batch, of both networks.
    """
    settings = settings or ForecastSettings()
    folder, state = training.begin(out, resume, force), None
    group = ranks.current(device)
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        if resume:
            model, kept, state = read(folder / training.CHECKPOINT)  # type: ignore[operator]
            if settings.iterations < (done := state["training"]["step"]):
                _check.fail(
                    "iterations", f"at least {done}, which the run has already done", settings.iterations
                )
            settings = replace(kept, iterations=settings.iterations)
        else:
            model = forecaster(settings)
        torch.manual_seed(settings.seed)
        cnn = FrameCNN(settings)
    every = min(EVERY, settings.iterations)
    history = []
    for network, where in ((model, folder), (cnn, None)):
        task = _Task(network.to(group.device).train(), settings, group.device)
        how = Plan(settings.iterations, every, where, force=force)
        history.append(training.fit(task, how, group, state if network is model else None, progress))
    return Forecast(model.eval(), cnn.eval(), settings, history[0])


@torch.no_grad()
def forecasts(found: Forecast, x: Tensor) -> dict[str, Tensor]:
    """The forecasts of each for sequences [given + steps, N, 1, H, W]: [steps, N, 1, H, W] in [0, 1]."""
    s, device = found.settings, next(found.model.parameters()).device
    given = x[: s.given].to(device)
    return {
        "ConvLSTM": found.model(given, s.steps).sigmoid().cpu(),
        "CNN on one frame": found.cnn(given, s.steps).sigmoid().cpu(),
        "last frame": x[s.given - 1].expand(s.steps, *x.shape[1:]),
    }


def evaluate(found: Forecast, count: int = 200) -> dict[str, list[float]]:
    """Mean squared error of frames 1 to K of each forecast, on sequences never seen in training."""
    total: dict[str, Tensor] = {}
    s = found.settings
    for start in range(0, count, 50):
        x = sequences(s, min(50, count - start), start, test=True)
        for name, frames in forecasts(found, x).items():
            error = (frames - x[s.given :]).square().mean((2, 3, 4)).sum(1).double()
            total[name] = total.get(name, torch.zeros(s.steps, dtype=torch.float64)) + error
    return {name: (error / count).tolist() for name, error in total.items()}


def strip(found: Forecast, path: Path, count: int = 3) -> Path:
    """A picture of the true frames and the forecasts, one row each, for `count` test sequences."""
    from amstel._optional import need
    from amstel.media import images

    image, drawing, fonts = (
        need(f"PIL.{part}", extra="video") for part in ("Image", "ImageDraw", "ImageFont")
    )
    s = found.settings
    x = sequences(s, count, test=True)
    rows = {"frames": x[s.given :], **forecasts(found, x)}
    scale, gap, left = max(1, 64 // s.size), 2, 130
    side, font = s.size * scale, fonts.load_default(12)
    pitch = side + gap
    ends, begins = left + s.given * pitch, left + s.given * pitch + 8
    before, after = counted(s.given, "input frame"), f"the next {s.steps}"
    width = max(begins + s.steps * pitch, begins + math.ceil(font.getlength(after)))
    picture = image.new("L", (width, count * (len(rows) * pitch + 10) + 20), 60)
    draw = drawing.Draw(picture)
    # Where the frames leave no room, the text ends with them.
    draw.text((min(left, ends - math.ceil(font.getlength(before))), 3), before, fill=230, font=font)
    draw.text((begins, 3), after, fill=230, font=font)

    def paste(frame: Tensor, column: int, y: int) -> None:
        pixels = np.rint(255 * frame.numpy()).astype(np.uint8).repeat(scale, 0).repeat(scale, 1)
        picture.paste(image.fromarray(pixels), (left + column * pitch + 8 * (column >= s.given), y))

    y = 20
    for n in range(count):
        for name, frames in rows.items():
            draw.text((4, y + side // 2 - 7), name, fill=230, font=font)
            if name == "frames":
                for t in range(s.given):
                    paste(x[t, n, 0], t, y)
            for t in range(s.steps):
                paste(frames[t, n, 0], s.given + t, y)
            y += pitch
        y += 10
    return images.write(path, np.asarray(picture.convert("RGB")))
