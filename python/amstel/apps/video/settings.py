"""Settings for action recognition, and the names they choose from.

Without torch, so that the command line can show the options immediately.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from amstel.apps import checks

MODELS = ("lstm", "alstm", "convlstm", "convalstm", "videolstm", "cnn")
ATTENTIVE = ("alstm", "convalstm", "videolstm")
STREAMS = ("rgb", "flow", "both")
MOTIONS = ("dis", "farneback", "difference")
BACKBONES = ("small", "vgg16")
LAYERS = ("pool5", "fc7")
INITIAL_STATES = ("first", "mean", "zeros")
OPTIMIZERS = ("rmsprop", "adam")
SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class Settings:
    """The paper's training (section 4), as far as it does not depend on the backbone; `from_scratch` has settings for a small
    network without pretrained weights.

    Attributes:
        model: one of `MODELS`; "cnn" scores every frame by itself.
        stream: "rgb", "flow", or "both": two networks, whose probabilities are multiplied.
        backbone: "small", trained with the rest, or "vgg16", which stays frozen.
        layer: of vgg16: "pool5" maps, or "fc7" vectors for the models that need no map, cnn and lstm.
        frame_size: frames are resized to squares of this many pixels per side.
        channels: of the small backbone, whose maps have frame_size / 2^len(channels) cells per side.
        hidden, attention, head: channels of the ConvLSTM, of the attention (None: as hidden), width of the head.
        initial_state: for the models with attention, see `amstel.nn.ConvALSTM`.
        motion: what the flow stream and the motion attention see: optical flow by "dis" or "farneback" (needs
            opencv), or "difference", the change in brightness since the previous frame.
        steps, stride: a sample is `steps` frames (T), every `stride`-th of a clip.
        fps: sample clips at this many frames per second by their timestamps, whatever the file's frame rate; 0: every frame.
        optimizer, learning_rate: "rmsprop" with decay 0.9, or "adam".
        schedule: of the learning rate: "constant", or "cosine" down to 0.
        clip_gradient: largest norm of the gradient; 0 does not clip.
        epochs, batch: a clip gives one sample per epoch; batch is over all processes.
        balanced: draw every class equally often in an epoch, however many clips it has; clips of small classes come several
            times, in other crops.
        dropout: rate in the head.
        box_weight: weight in the loss of the clips' true boxes, where they have some: the attention of a frame is drawn
            to them; 0 leaves them out. For the models with attention.
        shift, flip, brightness: augmentation: by up to `shift` pixels; left and right, which not every set of classes
            allows; times 1 ± brightness.
        seed: for everything random.
    """

    model: str = "videolstm"
    stream: str = "rgb"
    backbone: str = "small"
    layer: str = "pool5"
    frame_size: int = 64
    channels: tuple[int, ...] = (16, 32, 32)
    hidden: int = 32
    attention: int | None = None
    head: int = 1024
    initial_state: str = "first"
    motion: str = "dis"
    steps: int = 30
    stride: int = 1
    fps: float = 0.0
    optimizer: str = "rmsprop"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    clip_gradient: float = 0.0
    epochs: int = 60
    batch: int = 128
    balanced: bool = False
    dropout: float = 0.7
    box_weight: float = 0.0
    shift: int = 0
    flip: bool = False
    brightness: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (
            ("model", MODELS),
            ("stream", STREAMS),
            ("backbone", BACKBONES),
            ("layer", LAYERS),
            ("initial_state", INITIAL_STATES),
            ("motion", MOTIONS),
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
        ):
            if getattr(self, name) not in allowed:
                checks.fail(name, f"one of {', '.join(allowed)}", getattr(self, name))
        for name in ("frame_size", "hidden", "head", "steps", "stride", "epochs", "batch"):
            if getattr(self, name) < 1:
                checks.fail(name, "an integer >= 1", getattr(self, name))
        least = 32 if self.backbone == "vgg16" else 2 ** len(self.channels)
        if self.frame_size % least:
            checks.fail("frame_size", f"a multiple of {least} for this backbone", self.frame_size)
        if self.layer == "fc7" and (self.backbone != "vgg16" or self.model not in ("cnn", "lstm")):
            checks.fail("layer", "pool5 but for --model cnn or lstm on vgg16", self.layer)
        for name in ("dropout", "brightness"):
            if not 0 <= getattr(self, name) < 1:
                checks.fail(name, "in [0, 1)", getattr(self, name))
        if self.box_weight and self.model not in ATTENTIVE:
            checks.fail("box_weight", f"0 for a model without attention, {self.model}", self.box_weight)
        for name in ("learning_rate", "clip_gradient", "shift", "fps", "box_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                checks.fail(name, "a finite number >= 0", getattr(self, name))

    @classmethod
    def from_scratch(cls, **changes: Any) -> Settings:
        """For tens to thousands of clips and the small backbone: Adam, and augmentation without flips."""
        ours: dict[str, Any] = {
            "steps": 16,
            "optimizer": "adam",
            "learning_rate": 2e-3,
            "schedule": "cosine",
            "clip_gradient": 5.0,
            "batch": 16,
            "head": 64,
            "dropout": 0.5,
            "shift": 4,
            "brightness": 0.2,
        }
        return cls(**{**ours, **changes})

    @property
    def streams(self) -> tuple[str, ...]:
        return ("rgb", "flow") if self.stream == "both" else (self.stream,)

    @property
    def uses_motion(self) -> bool:
        return self.model == "videolstm" or self.stream != "rgb"


@dataclass(frozen=True)
class ForecastSettings:
    """Settings for `amstel video forecast`: what to forecast, and a network that learns it in minutes on a CPU.

    Attributes:
        size, digits: side of a frame in pixels, and how many digits bounce in it.
        given, steps: frames that the network reads, and those that it forecasts.
        hidden, layers, kernel_size, patch, layer_norm: of `amstel.nn.ConvLSTMForecaster`.
        iterations, batch, learning_rate: Adam, with a cosine down to 0.
        seed: for everything random.
    """

    size: int = 32
    digits: int = 2
    given: int = 8
    steps: int = 8
    hidden: int = 48
    layers: int = 2
    kernel_size: int = 3
    patch: int = 4
    layer_norm: bool = True
    iterations: int = 400
    batch: int = 16
    learning_rate: float = 4e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (
            "digits",
            "given",
            "steps",
            "hidden",
            "layers",
            "kernel_size",
            "patch",
            "iterations",
            "batch",
        ):
            if getattr(self, name) < 1:
                checks.fail(name, "an integer >= 1", getattr(self, name))
        if self.size < 16 or self.size % self.patch:
            checks.fail("size", f"at least 16 and a multiple of patch = {self.patch}", self.size)
        if not 0 <= self.learning_rate < math.inf:
            checks.fail("learning_rate", "a finite number >= 0", self.learning_rate)
