"""Training of recurrent inference machines on image patches: denoising, super-resolution, multi-coil MRI.

Everything random in an iteration depends only on (seed, iteration), so a resumed run repeats the uninterrupted one,
and the processes of a distributed run see the same patches as a single process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from amstel import _check, _files
from amstel.apps import ranks, training
from amstel.apps.restoration.samples import STEPS, Sample, part, sample
from amstel.apps.restoration.settings import OLD_TASKS
from amstel.apps.restoration.settings import TASKS as TASKS
from amstel.apps.restoration.settings import Settings as Settings
from amstel.apps.task import Plan, Task
from amstel.apps.training import CHECKPOINT as CHECKPOINT
from amstel.data.images import ImageFolder
from amstel.nn.rim import RIM


@dataclass
class Result:
    """What `train` returns: the model in evaluation mode, and the loss and PSNR (dB) of training patches, a mean over
    every `EVERY` iterations."""

    model: RIM
    history: list[dict[str, float]] = field(default_factory=list)


EVERY = 50
#: Of a U-Net: what the steps before the last count together.
EARLIER = 0.3
#: Of a U-Net: from which part of the iterations on a batch has what part of the patches, of what times the size.
STAGES = ((0.8, 0.5, 2.0), (0.45, 0.75, 4 / 3), (0.0, 1.0, 1.0))
#: The share of the iterations after which a U-Net is trained in float32.
WIDE = 0.92


class _Loss(nn.Module):
    """A batch -> the weighted squared error, and the last step's PSNR.

    The error is the mean over the steps; of a U-Net that of the last step, and 0.3 times the mean of those before; of a
    U-Net for MRI, whose images are of very different difficulty, the mean logarithm, of step t t times as much.
    It is a module so that DistributedDataParallel sees one forward.
    """

    def __init__(self, model: RIM, bfloat16: bool):
        super().__init__()
        self.model, self.short = model, bfloat16

    def forward(self, s: Sample) -> tuple[Tensor, Tensor]:
        with torch.autocast(s.x.device.type, torch.bfloat16, enabled=self.short):
            estimates = self.model(s.y, s.physics, s.steps, s.initial)
        errors = torch.stack([(e - s.x).abs().square().flatten(1).mean(1) for e in estimates])
        psnr = -10 * errors[-1].detach().log10().mean()
        if self.model.network == "unet" and s.x.is_complex():
            order = torch.arange(1.0, 1 + len(errors), device=errors.device)
            return ((errors + 1e-7).log().mean(1) * order).sum() / (10 * order.sum()), psnr
        losses = (errors * s.weight).mean(1)
        if self.model.network == "conv":
            return losses.mean(), psnr
        return losses[-1] + EARLIER * losses[:-1].sum() / max(1, len(losses) - 1), psnr


# ---------------------------------------------------------------------------------------------- training


def network(settings: Settings) -> RIM:
    """The network that the settings describe, with random weights."""
    s = settings
    # The step to the measurements is given, and training does not go through its conjugate gradients.
    mri: dict[str, Any] = {"gradient_step": 1.0, "detach_gradient": True} if s.task == "mri" else {}
    if s.network == "unet":
        mri.pop("gradient_step", None)  # it reads the step and takes as much of it as it will
    options: dict[str, Any] = {"network": s.network, "stride": s.stride, "depth": s.depth}
    options |= {"use_estimate": not s.without_estimate, "recurrent": not s.without_state}
    return RIM(TASKS[s.task], s.features, s.steps, **options, **mri)


def stage(settings: Settings, step: int) -> Settings:
    """The settings with batch and patch size for a step: for a U-Net, patches become fewer and larger."""
    if settings.network == "conv" or settings.fixed_size:
        return settings
    done = step / settings.iterations
    share, times = next((share, times) for first, share, times in STAGES if done >= first)
    batch, size = max(1, round(share * settings.batch)), round(times * settings.size)
    return replace(settings, batch=batch, size=size)


def adapt(state: Mapping[str, Tensor], model: RIM) -> dict[str, Tensor]:
    """The weights of a smaller network for `model`, which then computes the same: a network for gray images treats all
    channels alike, and extra layers between the GRUs pass on their input."""
    state = dict(state)
    channels = model.channels
    if model.network == "unet":
        return _adapt_unet(state, model)
    first, last, bias = (state[key] for key in ("conv1.weight", "conv3.weight", "conv3.bias"))
    if first.shape[1] == 2 and channels > 1:
        # The fresh weights tell the channels apart, which training could not do where all are alike.
        state["conv1.weight"] = first.repeat_interleave(channels, 1) / channels + model.conv1.weight.detach()
        state["conv3.weight"] = last.repeat(channels, 1, 1, 1) + model.conv3.weight.detach()
        state["conv3.bias"] = bias.repeat(channels)
    for key, value in model.state_dict().items():
        if key.startswith("deep.") and key not in state:
            # Not quite the identity, so that its weights do not stay alike.
            fresh = 0.1 * value if value.dim() == 4 else torch.zeros_like(value)
            state[key] = nn.init.dirac_(torch.empty_like(value)) + fresh if value.dim() == 4 else fresh
    return state


def _adapt_unet(state: dict[str, Tensor], model: RIM) -> dict[str, Tensor]:
    """The same of a U-Net, whose inputs are estimate, gradient and level, and the features of the last step."""
    channels, head, tail = model.channels, state["unet.head.weight"], state["unet.tail.weight"]
    if tail.shape[0] == 1 and channels > 1:
        images = head.shape[1] - 1 - model.features * model.recurrent
        alike = head[:, :images].repeat_interleave(channels, 1) / channels
        fresh = model.unet.head.weight.detach()[:, : images * channels]
        state["unet.head.weight"] = torch.cat([alike + fresh, head[:, images:]], 1)
        state["unet.tail.weight"] = tail.repeat(channels, 1, 1, 1) + model.unet.tail.weight.detach()
    return state


def _start(model: RIM, initial: Mapping[str, Tensor]) -> None:
    try:
        model.load_state_dict(adapt(initial, model))
    except (RuntimeError, KeyError) as error:
        options = ", ".join(f"{k}={model.options[k]}" for k in ("network", "channels", "features", "depth"))
        raise ValueError(
            f"`initial` must be the weights of a network like this one ({options}) or one for gray images"
        ) from error


class Checkpoint(NamedTuple):
    """What `train` writes: the model, how it is trained, the optimizer's state, the history so far; `state` is all of
    what the file holds."""

    model: RIM
    settings: Settings
    optimizer: dict[str, Any]
    iteration: int
    history: list[dict[str, float]]
    state: dict[str, Any] = {}  # noqa: RUF012 (nobody writes to it)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint that torch.load(weights_only=True) reads."""
    state = {**checkpoint._asdict(), "format": "amstel restore 1", "settings": asdict(checkpoint.settings)}
    _files.torch_save(path, {**state, "model": checkpoint.model.state_dict()})


def read(path: str | Path) -> Checkpoint:
    """The checkpoint in a file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"the checkpoint {path} does not exist")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not state["format"].startswith("amstel restore"):
            raise ValueError("another format")
        saved = state["settings"]
        saved = {"network": "conv", **saved}  # as it always was before there was another
        settings = Settings(**{**saved, "task": OLD_TASKS.get(saved["task"], saved["task"])})
        model = network(settings)
        model.load_state_dict(state["model"])
        found = Checkpoint(model, settings, state["optimizer"], state["iteration"], state["history"], state)
    except Exception as error:
        raise ValueError(f"{path} is not a checkpoint of `amstel restore train`") from error
    training.check_finite(path, model.state_dict())
    return found


def weights(start: str | Path) -> dict[str, Tensor]:
    """Weights to start from: those of a checkpoint, or bundled ones by their name in `RIM.pretrained`."""
    return (RIM.pretrained(start) if isinstance(start, str) else load(start)).state_dict()


def load(path: str | Path) -> RIM:
    """The model in a checkpoint, in evaluation mode, with the steps and the noise it was trained with."""
    found = read(path)
    model = found.model.eval()
    model.trained_steps = model.steps + (max(STEPS) if model.network == "unet" else 0)
    model.trained_task = found.settings.task
    if found.settings.task in ("gray", "color", "3task"):
        low, high = found.settings.sigma
        model.trained_sigma = (low / 255, high / 255)
    return model


class _Task(Task):
    module: _Loss
    metrics = ("loss", "psnr")
    best = "validation_psnr"

    def __init__(self, model: RIM, settings: Settings, source: Any, validation: Any, group: ranks.Ranks):
        self.model, self.settings, self.source, self.group = model, settings, source, group
        self.module = _Loss(model, settings.bfloat16)
        self.optimizer = torch.optim.Adam(model.parameters(), settings.learning_rate, (0.9, 0.99))
        self.clip, self.last = settings.clip_gradient, -1
        self.partial = settings.network == "unet"  # of what a step hands on, the only step needs nothing
        self.validation: Sample | None = None
        self.given = {"source": source, "validation": validation}
        if validation is not None:
            rng = np.random.default_rng([settings.seed, 1])
            self.validation = sample(validation, settings, 8 * settings.batch, rng)._replace(steps=None)

    def items(self, step: int) -> range:
        return range(stage(self.settings, step).batch)

    def inputs(self, step: int, items: Sequence[int]) -> tuple[Sample]:
        # Every process draws the whole batch, so the number of processes does not matter.
        if step != self.last:
            rng = np.random.default_rng([self.settings.seed, step, 0])
            settings = stage(self.settings, step)
            self.batch = sample(self.source, settings, settings.batch, rng)
            self.last = step
        return (_to(part(self.batch, items), self.group.device),)

    def prepare(self, step: int) -> None:
        s = self.settings
        if s.network == "unet":
            self.module.short = s.bfloat16 and step < WIDE * s.iterations
        warm = min(1.0, (step + 1) / max(1, s.warmup))
        for group in self.optimizer.param_groups:
            group["lr"] = warm * (s.learning_rate * (1 + math.cos(math.pi * step / s.iterations)) / 2)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        if self.validation is None:
            return {}
        count = len(self.validation.x)
        share = self.group.share(range(count))
        found = [self.module(_to(part(self.validation, [n]), self.group.device))[1].item() for n in share]
        return {"validation_psnr": sum(self.group.merge(found)) / count}

    def header(self, step: int) -> dict[str, Any]:
        settings = asdict(self.settings)
        return {"format": "amstel restore 1", "settings": settings, "iteration": step}

    def entry(self, step: int) -> dict[str, float]:
        return {"iteration": step}


def train(
    source: Any,
    settings: Settings | None = None,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    force: bool = False,
    initial: Mapping[str, Tensor] | None = None,
    validation: Any = None,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
    checkpoint_every: int = 500,
    **plan: Any,
) -> Result:
    """Train a RIM to minimize the squared error, averaged over its steps.

    In a process group (torch.distributed), every process takes its share of each batch and the gradients are those of
    the whole batch; all processes end with equal weights, and process 0 writes.

    Args:
        source: folders of images, or images as uint8 arrays ([H, W] or [H, W, 3], depending on the task); for the task "mri",
            an `amstel.data.mri.CoilImages`.
        settings: default: `Settings()`.
        out: a folder for `checkpoint.pt`, written every `checkpoint_every` iterations, and `log.jsonl`.
        resume: continue from the checkpoint in `out`, with its settings except for the number of iterations;
            bit-identical to a run that was never interrupted.
        force: overwrite a run in `out`.
        initial: a state_dict to start from; that of a gray network works for any task.
        validation: like `source`; the PSNR of one fixed batch of it is measured with every entry in the
            history; the best network goes to `best.pt`.
        device: where to train.
        progress: called with the number of patches after every batch.
        checkpoint_every: iterations between checkpoints, a multiple of `EVERY`.
        plan: `precision`, `accumulate`, `average`: see `amstel.apps.task.Plan`.

    Raises:
        ValueError: no image, or images smaller than a patch; a checkpoint of something else, of other images or
            another validation, or with more iterations than requested.
        FileNotFoundError: nothing to resume from.
        FileExistsError: `out` holds a run that is neither to be resumed nor overwritten.
    """
    settings = settings or Settings()
    folder, state = training.begin(out, resume, force), None
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        if resume:
            model, saved, _, done, _, state = read(folder / CHECKPOINT)  # type: ignore[operator]
            if settings.iterations < done:
                _check.fail(
                    "iterations", f"at least {done}, which the run has already done", settings.iterations
                )
            settings = replace(saved, iterations=settings.iterations)
        else:
            model = network(settings)
            if initial is not None:
                _start(model, initial)
    source = _source("source", source, settings, stage(settings, settings.iterations - 1).size)
    if validation is not None:
        validation = _source("validation", validation, settings, settings.size)
    group = ranks.current(device)
    model.to(group.device).to(memory_format=torch.channels_last).train()
    task = _Task(model, settings, source, validation, group)
    how = Plan(settings.iterations, EVERY, folder, save_every=checkpoint_every, force=force, **plan)
    history = training.fit(task, how, group, state, progress)
    return Result(model.eval(), history)


def _source(argument: str, source: Any, settings: Settings, largest: int) -> Any:
    """Everything in memory: reading a file for every patch would take longer than the patch. Patches are drawn at random,
    so an image smaller than the largest of them would end a training long after its start."""
    if settings.task == "mri":
        return source
    if isinstance(source, (str, Path)) or (len(source) and isinstance(source[0], (str, Path))):
        source = ImageFolder(source, "RGB" if settings.task == "color" else "L")
    images: Sequence[np.ndarray] = [np.asarray(image) for image in source]
    if not images:
        _check.fail(argument, "at least one image", "none")
    names: Sequence[Any] = getattr(
        source, "paths", [f"image {n} of `{argument}`" for n in range(len(images))]
    )
    if settings.task == "sr":
        largest = max(largest - largest % scale for scale in settings.scales)
    for name, image in zip(names, images, strict=True):
        side = min(image.shape[:2])
        if side < largest:
            got = f"{settings.size}"
            got += f"; patches grow to {largest} pixels" if largest > settings.size else ""
            got += f", `fixed_size` keeps {settings.size}" if side >= settings.size else ""
            raise ValueError(f"`size` must fit into the {side} pixels of {name}, got {got}")
    return images


def _to(s: Sample, device: torch.device) -> Sample:
    if device.type == "cpu":
        return s
    initial = None if s.initial is None else s.initial.to(device)
    return Sample(s.x.to(device), s.y.to(device), s.physics.to(device), initial, s.weight.to(device), s.steps)
