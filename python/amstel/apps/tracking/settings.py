"""Settings for training SINT, and the names they choose from.

Without torch, so that the command line can show the options immediately.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from amstel.apps import checks

BACKBONES = ("light", "vgg16")
LOSSES = ("ranking", "margin")
OPTIMIZERS = ("adam", "sgd")


@dataclass(frozen=True)
class Settings:
    """How to train; the defaults are those of the bundled weights.

    Attributes:
        backbone: "light" or "vgg16", see `amstel.nn.SINT`.
        output_size: cells per side of the pooled maps.
        loss: "ranking": the cross-entropy between softmax(16 score) and softmax(10 IoU) over a frame's boxes, with the
            score as a mean cosine, so better-placed boxes score higher; or "margin", the paper's, which makes
            all boxes of the target alike: `MarginContrastiveLoss(margin * L)`.
        margin: for each of the L layers of a description.
        boxes: how many boxes of each frame are compared with the target of the other: 128 comparisons per pair of frames.
        mining: draw this many times as many other boxes as are used, and keep those that currently match best.
        optimizer, learning_rate: "adam", or "sgd" with momentum 0.9; parts of the network take it times their
            own factor (`SINT.trainable`).
        weight_decay: decoupled from the gradient ("adam") or added to it ("sgd").
        clip_gradient: largest norm of the gradient; 0 does not clip.
        epochs, batch: each pair is used once per epoch; batch is over all processes.
        seed: for everything random.
    """

    backbone: str = "light"
    output_size: int = 7
    loss: str = "ranking"
    margin: float = 1.0
    boxes: int = 64
    mining: int = 4
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    clip_gradient: float = 1.0
    epochs: int = 50
    batch: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (
            ("backbone", BACKBONES),
            ("loss", LOSSES),
            ("optimizer", OPTIMIZERS),
        ):
            if getattr(self, name) not in allowed:
                checks.fail(name, f"one of {', '.join(allowed)}", getattr(self, name))
        for name, least in (("output_size", 1), ("boxes", 4), ("mining", 1), ("epochs", 1), ("batch", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                checks.fail(name, f"an integer >= {least}", value)
        for name in ("margin", "learning_rate", "weight_decay", "clip_gradient"):
            if not 0 <= getattr(self, name) < math.inf:
                checks.fail(name, "a finite number >= 0", getattr(self, name))
