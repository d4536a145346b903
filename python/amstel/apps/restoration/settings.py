"""Settings of the training of recurrent inference machines, and the tasks that they are trained for.

Without torch, so that the command line can show the options of a training at once.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

from amstel.apps import checks

#: The tasks, and the channels of their images.
TASKS = {"gray": 1, "color": 3, "sr": 1, "mri": 2}
#: Names of the last release, in its checkpoints too.
OLD_TASKS = {"grey": "gray", "colour": "color"}


@dataclass(frozen=True)
class Settings:
    """How to train; the defaults are those of the weights that ship, but for the number of iterations.

    Attributes:
        task: "gray" or "color" (denoising), "sr" (super-resolution of a gray image), "mri" (multi-coil).
        features, steps, stride, depth: of the network, see `amstel.nn.RIM`.
        sigma: lowest and highest standard deviation of the noise, 0..255; a patch draws its own (denoising).
        scales: of super-resolution; a batch draws its own.
        iterations, batch, size: batches, patches a batch (over all processes), pixels a side of a patch.
        learning_rate: of Adam, reached after `warmup` iterations, then falling to zero along a half cosine.
        clip_gradient: largest norm of the gradient; 0 does not clip.
        bfloat16: run the network under autocast; the physics stays float32.
        seed: of everything random.
    """

    task: str = "gray"
    features: int = 64
    steps: int = 3
    stride: int = 2
    depth: int = 4
    sigma: tuple[float, float] = (5.0, 55.0)
    scales: tuple[int, ...] = (2, 3, 4)
    iterations: int = 20000
    batch: int = 8
    size: int = 64
    learning_rate: float = 2e-3
    warmup: int = 200
    clip_gradient: float = 1.0
    bfloat16: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.task in OLD_TASKS:
            new = OLD_TASKS[self.task]
            warnings.warn(f"the task {self.task!r} is now {new!r}", DeprecationWarning, stacklevel=3)
            object.__setattr__(self, "task", new)
        if self.task not in TASKS:
            checks.fail("task", f"one of {', '.join(TASKS)}", self.task)
        for name in ("features", "steps", "stride", "depth", "iterations", "batch", "size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                checks.fail(name, "an integer >= 1", value)
        if len(self.sigma) != 2 or not 0 < self.sigma[0] <= self.sigma[1] < math.inf:
            checks.fail("sigma", "two numbers, 0 < lowest <= highest", self.sigma)
        if not self.scales or any(not isinstance(s, int) or s < 2 for s in self.scales):
            checks.fail("scales", "integers >= 2", self.scales)
        for name in ("learning_rate", "warmup", "clip_gradient"):
            if not 0 <= getattr(self, name) < math.inf:
                checks.fail(name, "a finite number >= 0", getattr(self, name))
