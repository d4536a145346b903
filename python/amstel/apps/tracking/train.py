"""Training of SINT on pairs of frames, from sequences or from still images.

Everything random about a pair depends only on (seed, epoch, pair), so a resumed run repeats the uninterrupted one bit
for bit, and the processes of a distributed run see the same pairs as a single process.
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

from amstel import _check
from amstel.apps import ranks, training
from amstel.apps.task import Plan, Task
from amstel.apps.tracking.evaluate import matching
from amstel.apps.tracking.initial import initial_model
from amstel.apps.tracking.samples import _batch, _rois
from amstel.apps.tracking.settings import Settings
from amstel.apps.training import CHECKPOINT as CHECKPOINT
from amstel.data.pairs import Pairs, overlaps
from amstel.nn.sint import SINT, MarginContrastiveLoss


@dataclass
class Result:
    """What `train` returns: the model in evaluation mode and, for every epoch, the mean loss and the mean scores (cosine
    over layers) of the target and of the other boxes."""

    model: SINT
    history: list[dict[str, float]] = field(default_factory=list)


class _Step(nn.Module):
    """Frames [2 B, 3, S, S] of B pairs, their targets and the drawn boxes -> loss and the two mean scores.

    It is a module so that DistributedDataParallel sees one forward.
    """

    def __init__(self, model: SINT, settings: Settings):
        super().__init__()
        self.model, self.settings = model, settings

    def forward(self, frames: Tensor, targets: Tensor, drawn: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """targets [2 B, 4]; drawn [2 B, n, 4], the same-target ones first; y [2 B, n]."""
        s, layers = self.settings, self.model.layers
        features = self.model.features(frames)
        queries = self.model.describe(features, _rois(list(targets[:, None]), frames.device))
        queries = queries.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)  # the target of the other frame
        boxes, y = self._hardest(features, drawn, y, queries)
        found = self.model.describe(features, _rois(list(boxes), frames.device)).unflatten(0, boxes.shape[:2])
        score = torch.einsum("nd,nkd->nk", queries, found) / layers
        if s.loss == "margin":
            loss = MarginContrastiveLoss(s.margin * layers)(queries[:, None], found, y)
        else:
            overlap = torch.stack([overlaps(b, t) for b, t in zip(boxes, targets, strict=True)])
            loss = -((10 * overlap).softmax(1) * (16 * score.float()).log_softmax(1)).sum(1).mean()
        means = torch.stack([score[y].mean(), score[~y].mean()]).detach()
        return loss, means

    @torch.no_grad()
    def _hardest(
        self, features: list[Tensor], drawn: Tensor, y: Tensor, queries: Tensor
    ) -> tuple[Tensor, Tensor]:
        """All boxes of the target, and of the others those that match best, half of them without a choice."""
        count, positive = self.settings.boxes, int(y[0].sum())
        if drawn.shape[1] == count:
            return drawn, y
        chosen = []
        for n, query in enumerate(queries):
            other = drawn[n, positive:]
            hard = (count - positive + 1) // 2
            maps = [m[n : n + 1] for m in features]
            order = self.model.match(maps, _rois([other], drawn.device), query).topk(hard).indices
            chosen.append(torch.cat([drawn[n, :positive], other[order], other[: count - positive - hard]]))
        return torch.stack(chosen), y[:, :count]


class Checkpoint(NamedTuple):
    """What `train` writes: the model, how it is trained, the optimizer's state, the history so far,
    and all that the file holds."""

    model: SINT
    settings: Settings
    optimizer: dict[str, Any]
    history: list[dict[str, float]]
    state: dict[str, Any]


def read(path: str | Path) -> Checkpoint:
    """The checkpoint in a file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"the checkpoint {path} does not exist")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not state["format"].startswith("amstel sint"):
            raise ValueError("another format")
        settings = Settings(**state["settings"])
        model = SINT(settings.backbone, settings.output_size)
        model.load_state_dict(state["model"])
        found = Checkpoint(model, settings, state["optimizer"], state["history"], state)
    except Exception as error:
        raise ValueError(f"{path} is not a checkpoint of `amstel track train`") from error
    training.check_finite(path, model.state_dict())
    return found


def load(path: str | Path) -> SINT:
    """The model in a checkpoint, in evaluation mode."""
    return read(path).model.eval()


def _optimizer(model: SINT, settings: Settings) -> torch.optim.Optimizer:
    """Freezes what is not trained, and gives every other part its learning rate."""
    model.requires_grad_(False)
    groups = []
    for factor, parameters in model.trainable():
        for p in parameters:
            p.requires_grad_(True)
        groups.append({"params": parameters, "factor": factor})
    if settings.optimizer == "adam":
        return torch.optim.AdamW(groups, settings.learning_rate, weight_decay=settings.weight_decay)
    return torch.optim.SGD(groups, settings.learning_rate, 0.9, weight_decay=settings.weight_decay)


class _Task(Task):
    model: SINT
    metrics = ("loss", "same", "other")
    best = "validation_iou"

    def __init__(
        self, model: SINT, settings: Settings, pairs: Pairs, validation: Pairs | None, group: ranks.Ranks
    ):
        self.model, self.settings, self.pairs, self.validation = model, settings, pairs, validation
        self.module, self.optimizer = _Step(model, settings), _optimizer(model, settings)
        self.clip, self.group = settings.clip_gradient, group
        self.given = {"pairs": pairs, "validation": validation}
        self.batches = math.ceil(len(pairs) / settings.batch)

    def items(self, step: int) -> list[int]:
        epoch, number = divmod(step, self.batches)
        order = np.random.default_rng([self.settings.seed, epoch]).permutation(len(self.pairs))
        return order[number * self.settings.batch : (number + 1) * self.settings.batch].tolist()

    def inputs(self, step: int, items: Sequence[int]) -> tuple[Tensor, ...]:
        return _batch(self.pairs, items, self.settings, step // self.batches, self.group.device)

    def prepare(self, step: int) -> None:
        epoch, number = divmod(step, self.batches)
        done = (epoch + number / self.batches) / self.settings.epochs
        rate = self.settings.learning_rate * (1 + math.cos(math.pi * done)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]

    def validate(self) -> dict[str, float]:
        if self.validation is None:
            return {}
        found = matching(self.model, self.validation, len(self.validation))
        return {"validation_iou": found.iou, "validation_accuracy": found.accuracy}

    def header(self, step: int) -> dict[str, Any]:
        return {"format": "amstel sint 1", "settings": asdict(self.settings)}


def train(
    pairs: Pairs,
    settings: Settings | None = None,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    force: bool = False,
    initial: Mapping[str, Tensor] | str | None = None,
    validation: Pairs | None = None,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
    **plan: Any,
) -> Result:
    """Train SINT on pairs of frames.

    A pair gives two tasks: the target of each frame against boxes in the other. The learning rate falls to zero along
    a half cosine. In a process group (torch.distributed), every process takes its share of each batch, and the
    gradients are those of the whole batch; all processes end with equal weights, and process 0 writes.

    Args:
        pairs: `amstel.data.StillPairs`, `SequencePairs`, or anything with `len` and `sample`.
        settings: default: `Settings()`.
        out: a folder for `checkpoint.pt`, written after every epoch, and `log.jsonl`.
        resume: continue from the checkpoint in `out`, with its settings except for the number of epochs; bit-identical
            to a run that was never interrupted (with the same number of threads, of processes and of epochs).
        force: overwrite a run in `out`.
        initial: a state_dict to start from: of `SINT`, or torchvision's of VGG-16 for that backbone, which needs it.
            "imagenet": `from_imagenet`, as for the bundled weights (needs the extra [track-train]). Default: the
            bundled weights.
        validation: pairs whose `matching` is measured after every epoch; the best network goes to `best.pt`.
        device: where to train.
        progress: called with the number of pairs after every batch.
        plan: `precision`, `accumulate`, `average`: see `amstel.apps.task.Plan`.

    Raises:
        ValueError: no pair; a checkpoint of something else, of other pairs or another validation, or of more epochs than
            requested; no initial weights for VGG-16.
        FileNotFoundError: nothing to resume from.
        FileExistsError: `out` holds a run that is neither to be resumed nor overwritten.
    """
    settings = settings or Settings()
    if not len(pairs):
        _check.fail("pairs", "at least one pair", "none")
    folder, state = training.begin(out, resume, force), None
    if resume:
        model, saved, _, done, state = read(folder / CHECKPOINT)  # type: ignore[operator]
        if settings.epochs < len(done):
            _check.fail("epochs", f"at least {len(done)}, which the run has already done", settings.epochs)
        settings = replace(saved, epochs=settings.epochs)
    else:
        model = initial_model(settings, initial, pairs)
    group = ranks.current(device)
    model.to(group.device).train()
    task = _Task(model, settings, pairs, validation, group)
    if state is not None:
        state = training.in_epochs_of(state, task.batches)
    how = Plan(settings.epochs * task.batches, task.batches, folder, force=force, **plan)
    history = training.fit(task, how, group, state, progress)
    return Result(model.eval(), history)
