"""Settings for training recurrent inference machines, and their tasks.

Without torch, so that the command line can show the options immediately.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

from amstel.apps import checks

#: The tasks, and the channels of their images.
TASKS = {"gray": 1, "color": 3, "sr": 1, "3task": 1, "mri": 2}
#: Names from the last release, also used in its checkpoints.
OLD_TASKS = {"grey": "gray", "colour": "color"}


#: Defaults for each network.
USUAL: dict[str, dict[str, Any]] = {
    "conv": {
        "features": 64,
        "steps": 3,
        "depth": 4,
        "stride": 2,
        "sigma": (5.0, 55.0),
        "batch": 8,
        "size": 64,
        "learning_rate": 2e-3,
    },
    "unet": {
        "features": 16,
        "steps": 2,
        "depth": 1,
        "stride": 1,
        "sigma": (0.0, 75.0),
        "batch": 16,
        "size": 48,
        "learning_rate": 1.5e-3,
    },
}
_AS_USUAL: Any = None


@dataclass(frozen=True)
class Settings:
    """How to train; the defaults are those of the bundled weights, except for the number of iterations.

    Attributes:
        task: "gray" or "color" (denoising), "sr" (super-resolution of a gray image), "3task" (of a batch one of
            denoising, inpainting and super-resolution, of gray images), "mri" (multi-coil).
        network: "unet" or "conv", see `amstel.nn.RIM`; default: "conv" for "sr" and "mri", "unet" for the others. With
            it comes the recipe: that of "unet" draws the number of steps for every batch (from one less than `steps` to
            two more), and weighs the error of a patch by what is usual for its noise.
        features, steps, stride, depth: of the network; their defaults, and those of the next ones, depend on it (`USUAL`).
        sigma: lowest and highest standard deviation of the noise, 0..255, drawn per patch (denoising).
        scales: of super-resolution, drawn per batch.
        rounded: the share of noisy patches that are clipped and rounded to 8 bits, with "unet".
        drawn: the share of patches that are drawings (`amstel.data.synthetic`) instead of photographs, with "unet".
        fixed_size: with "unet", keep the patches at `size`; otherwise they grow to twice that in the course of training,
            while their number is halved.
        without_estimate, without_state: leave out a part of the recurrent inference machine, to measure its effect: the
            network reads only the gradient, or has no state from step to step.
        iterations, batch, size: batches, patches per batch (over all processes), pixels per side of a patch.
        learning_rate: of Adam, reached after `warmup` iterations, then falling to zero along a half cosine.
        clip_gradient: largest norm of the gradient; 0 does not clip.
        bfloat16: run the network under autocast (for a U-Net, except for the last twelfth of the iterations); the physics
            stays float32.
        seed: for everything random.
    """

    task: str = "gray"
    features: int = _AS_USUAL
    steps: int = _AS_USUAL
    stride: int = _AS_USUAL
    depth: int = _AS_USUAL
    sigma: tuple[float, float] = _AS_USUAL
    scales: tuple[int, ...] = (2, 3, 4)
    iterations: int = 20000
    batch: int = _AS_USUAL
    size: int = _AS_USUAL
    learning_rate: float = _AS_USUAL
    warmup: int = 200
    clip_gradient: float = 1.0
    bfloat16: bool = True
    seed: int = 0
    network: str = _AS_USUAL
    rounded: float = 1 / 3
    drawn: float = 0.05
    fixed_size: bool = False
    without_estimate: bool = False
    without_state: bool = False

    def __post_init__(self) -> None:
        if self.task in OLD_TASKS:
            new = OLD_TASKS[self.task]
            warnings.warn(f"the task {self.task!r} is now {new!r}", DeprecationWarning, stacklevel=3)
            object.__setattr__(self, "task", new)
        if self.task not in TASKS:
            checks.fail("task", f"one of {', '.join(TASKS)}", self.task)
        if self.network is None:
            object.__setattr__(self, "network", "conv" if self.task in ("sr", "mri") else "unet")
        if self.network not in USUAL:
            checks.fail("network", f"one of {', '.join(USUAL)}", self.network)
        for name, usual in USUAL[self.network].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, usual)
        for name in ("features", "steps", "stride", "depth", "iterations", "batch", "size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                checks.fail(name, "an integer >= 1", value)
        if len(self.sigma) != 2 or not (0 <= self.sigma[0] <= self.sigma[1] < math.inf and self.sigma[1] > 0):
            got = " ".join(map(str, self.sigma))
            raise ValueError(f"`sigma` must be two numbers, 0 <= lowest <= highest, > 0, got {got}")
        for name in ("rounded", "drawn"):
            if not 0 <= getattr(self, name) <= 1:
                checks.fail(name, "a number between 0 and 1", getattr(self, name))
        for name in ("fixed_size", "without_estimate", "without_state"):
            if not isinstance(getattr(self, name), bool):
                checks.fail(name, "True or False", getattr(self, name))
        if self.task == "3task" and self.network != "unet":
            checks.fail("network", "'unet' for the task '3task'", self.network)
        if not self.scales or any(not isinstance(s, int) or s < 2 for s in self.scales):
            checks.fail("scales", "integers >= 2", self.scales)
        for name in ("learning_rate", "warmup", "clip_gradient"):
            if not 0 <= getattr(self, name) < math.inf:
                checks.fail(name, "a finite number >= 0", getattr(self, name))
