"""Training for action recognition on clips.

A clip gives one sample per epoch: T consecutive frames from anywhere in it, augmented. Everything random depends only on
(seed, epoch, clip), and dropout from (seed, epoch, process).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amstel import _check
from amstel import nn as models
from amstel.apps import ranks, training
from amstel.apps.task import Plan, Task
from amstel.apps.training import CHECKPOINT as CHECKPOINT
from amstel.apps.video.evaluate import evaluate
from amstel.apps.video.network import Network, read
from amstel.apps.video.samples import Clips, _Batch, _crop, _generator, _stack, _Videos, balanced, labels_of
from amstel.apps.video.settings import Settings


@dataclass
class Training:
    """What `train` returns: the network in evaluation mode, and the loss and training accuracy of each epoch."""

    network: Network
    history: list[dict[str, float]] = field(default_factory=list)


class _Loss(nn.Module):
    """Maps a batch to the loss and the number of correctly classified clips, in one forward for DistributedDataParallel."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network

    def forward(self, batch: _Batch) -> tuple[Tensor, Tensor]:
        outputs = self.network(batch.frames, batch.motion, batch.lengths, batch.features)
        total, right = _loss(outputs, batch)
        if batch.boxes is not None:
            settings = self.network.settings
            for _, attention in outputs.values():
                if attention is not None:
                    total = total + settings.box_weight * _away(attention, batch.boxes, settings.frame_size)
        return total, right


def _away(attention: Tensor, boxes: Tensor, side: int) -> Tensor:
    """How far attention [T, N, h, w] is from true boxes [T, N, A, 4] in pixels of frames as large as `side`.

    The sum over the frames that have a box of the Kullback-Leibler divergence from the attention to the share that each
    cell of the map has in the boxes.
    """
    ends = boxes.nan_to_num(0.0)[..., None]  # [T, N, A, 4, 1]; a box that is not there covers nothing

    def covered(low: Tensor, high: Tensor, count: int) -> Tensor:
        edges = torch.arange(count + 1, device=low.device) * (side / count)
        return (torch.minimum(high, edges[1:]) - torch.maximum(low, edges[:-1])).clamp(min=0)

    across = covered(ends[..., 0, :], ends[..., 2, :], attention.shape[3])
    down = covered(ends[..., 1, :], ends[..., 3, :], attention.shape[2])
    target = (down[..., :, None] * across[..., None, :]).amax(2)
    total = target.sum((2, 3), keepdim=True)
    target = torch.where(total > 0, target / total.clamp_min(1e-12), target.new_zeros(()))
    return (torch.xlogy(target, target) - target * attention.float().clamp_min(1e-12).log()).sum()


def _loss(outputs: dict[str, models.video_lstm.Returns], batch: _Batch) -> tuple[Tensor, Tensor]:
    """Cross-entropy summed over steps, clips and streams, and the number of correctly classified clips."""
    total = outputs[next(iter(outputs))][0].new_zeros(())
    log_p = []
    for logits, _ in outputs.values():
        steps, count, _ = logits.shape
        kept = torch.arange(steps, device=logits.device)[:, None] < batch.lengths
        losses = F.cross_entropy(
            logits.flatten(0, 1), batch.labels.expand(steps, count).flatten(), reduction="none"
        )
        total = total + (losses.view(steps, count) * kept).sum()
        log_p.append(models.predict(logits.detach().float(), batch.lengths).clamp_min(1e-12).log())
    right = (sum(log_p).argmax(1) == batch.labels).sum()  # type: ignore[union-attr]
    return total, right


class _Task(Task):
    model: Network
    key = "network"
    metrics = ("loss", "accuracy")
    summed = True
    best = "validation_accuracy"
    may_grow = ("clips",)

    def __init__(
        self,
        network: Network,
        clips: Clips,
        classes: Sequence[str],
        validation: Clips | None,
        group: ranks.Ranks,
    ):
        self.model, self.module, self.settings = network, _Loss(network), network.settings
        self.optimizer = _optimizer(network, network.settings)
        self.clip = network.settings.clip_gradient
        self.count, self.classes, self.validation, self.group = len(clips), len(classes), validation, group
        self.labels: list[int] = []
        if network.settings.balanced:
            self.labels = labels_of(clips)
        self.given = {"clips": clips, "validation": validation}
        self.videos = _Videos(clips, network.settings)
        self.batches = math.ceil(len(clips) / network.settings.batch)
        self.order: tuple[int, list[int]] = (-1, [])

    def items(self, step: int) -> list[int]:
        epoch, number = divmod(step, self.batches)
        if self.order[0] != epoch:
            generator = _generator(self.settings.seed, epoch)
            order = torch.randperm(self.count, generator=generator).tolist()
            self.order = epoch, balanced(order, self.labels) if self.labels else order
        return self.order[1][number * self.settings.batch : (number + 1) * self.settings.batch]

    def inputs(self, step: int, items: Sequence[int]) -> tuple[_Batch]:
        epoch, crops, labels = step // self.batches, [], []
        for item in items:
            again, index = divmod(item, self.count)  # of balanced classes
            video, label = self.videos[index]
            if not 0 <= label < self.classes:
                _check.fail("clips", f"labeled 0 to {self.classes - 1}, one for each of `classes`", label)
            key = (self.settings.seed, epoch, 1, index, *([again] if again else []))
            crops.append(_crop(video, self.settings, _generator(*key)))
            labels.append(label)
        return (_stack(crops, labels, self.group.device),)

    def prepare(self, step: int) -> None:
        epoch, number = divmod(step, self.batches)
        for group in self.optimizer.param_groups:
            group["lr"] = _rate(self.settings, (epoch + number / self.batches) / self.settings.epochs)

    def seed(self, epoch: int, rank: int) -> int:
        return int(_generator(self.settings.seed, epoch, rank).initial_seed())

    def validate(self) -> dict[str, float]:
        if self.validation is None:
            return {}
        found = evaluate(self.model, self.validation, 3, ranks=self.group)
        return {"validation_accuracy": found.accuracy}

    def header(self, step: int) -> dict[str, Any]:
        settings = asdict(self.settings)
        return {"format": "amstel video_lstm 1", "settings": settings, "classes": self.model.classes}


def train(
    clips: Clips,
    classes: Sequence[str],
    settings: Settings | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    backbone_weights: dict[str, Tensor] | None = None,
    validation: Clips | None = None,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
    **plan: Any,
) -> Training:
    """Train a network on clips.

    The loss is the cross-entropy summed over steps and streams, averaged over the clips of a batch. With
    `settings.box_weight` the attention learns from the true boxes too, of the clips that have some. In a process
    group (torch.distributed) every process takes its share of each batch, and the gradients are those of the whole
    batch; all processes end with equal weights, process 0 writes.

    Args:
        clips: a `ClipFolder`, or any sequence of `Clip`.
        classes: their names; labels index them.
        settings: default: `Settings()`.
        out: a folder for `checkpoint.pt`, written after every epoch, and `log.jsonl`.
        resume: continue from the checkpoint in `out`, with its settings except for the number of epochs; bit-identical
            to a run that was never interrupted (with the same number of threads and processes).
        force: overwrite a run in `out`.
        backbone_weights: torchvision's state_dict of VGG-16, for that backbone.
        validation: clips whose accuracy, by three segments each, is measured after every epoch; the best network
            goes to `best.pt`.
        device: where to train.
        progress: called with the number of clips after every batch.
        plan: `precision`, `accumulate`, `average`, `beside`: see `amstel.apps.task.Plan`.

    Raises:
        ValueError: no clip, a label without a class, a checkpoint of other classes, of clips that are not among
            these, of another validation, or of more epochs than requested.
        FileNotFoundError: nothing to resume from.
        FileExistsError: `out` holds a run that is neither to be resumed nor overwritten.
    """
    settings = settings or Settings()
    if not len(clips):
        _check.fail("clips", "at least one clip", "none")
    folder, state = training.begin(out, resume, force), None
    group = ranks.current(device)
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        if resume:
            network, state = read(folder / CHECKPOINT)  # type: ignore[operator]
            if list(classes) != network.classes:
                _check.fail("classes", f"those of the checkpoint, {network.classes}", list(classes))
            done = len(state["history"])
            if settings.epochs < done:
                _check.fail("epochs", f"at least {done}, which the run has already done", settings.epochs)
            settings = network.settings = replace(network.settings, epochs=settings.epochs)
        else:
            network = Network(settings, classes)
            if backbone_weights is not None:
                network.load_backbone(backbone_weights)
    network.to(group.device).train()
    task = _Task(network, clips, classes, validation, group)
    if state is not None:
        state = training.in_epochs_of(state, task.batches)
    how = Plan(settings.epochs * task.batches, task.batches, folder, force=force, **plan)
    history = training.fit(task, how, group, state, progress)
    return Training(network.eval(), history)


def backbone_weights(path: Path, layer: str = "pool5") -> dict[str, Tensor]:
    """torchvision's VGG-16 state_dict from a file, loaded here so that an error names the file."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        models.VGG16Features(layer=layer).load_state_dict(state)
    except Exception as error:
        raise ValueError(f"{path} does not hold torchvision's state_dict of VGG-16") from error
    return state


def _optimizer(network: Network, settings: Settings) -> torch.optim.Optimizer:
    parameters = [p for p in network.parameters() if p.requires_grad]
    if settings.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=settings.learning_rate)
    return torch.optim.RMSprop(parameters, lr=settings.learning_rate, alpha=0.9)


def _rate(settings: Settings, done: float) -> float:
    if settings.schedule == "constant":
        return settings.learning_rate
    return settings.learning_rate * (1 + math.cos(math.pi * done)) / 2
