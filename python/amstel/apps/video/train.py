"""Action recognition from folders of clips: training, the 25-segment test, and one video from end to end.

A clip goes through three steps. `_Videos` brings it to a square of `frame_size` pixels and adds its motion, once.
`_crop` takes T consecutive frames with random augmentation, from a generator of its own for every clip and epoch.
`Network` makes feature maps of them and runs one of the models of `amstel.nn`, one for each stream.

Everything random follows from (seed, epoch, clip), and dropout from (seed, epoch, process), so that a resumed run
repeats the uninterrupted one bit for bit without generator states in the checkpoint, and a process of a distributed
run sees the clips that it would have seen alone.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from amstel import _check
from amstel import nn as models
from amstel.apps.video.settings import MOTIONS as MOTIONS
from amstel.apps.video.settings import STREAMS as STREAMS
from amstel.apps.video.settings import Settings as Settings
from amstel.data.clips import Clip

MODELS: dict[str, Any] = {
    "lstm": models.LSTMClassifier,
    "alstm": models.ALSTM,
    "convlstm": models.ConvLSTMClassifier,
    "convalstm": models.ConvALSTM,
    "videolstm": models.VideoLSTM,
}
CHECKPOINT = "checkpoint.pt"


class Clips(Protocol):
    """Clips by number: a list of them, or a folder that reads one when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Clip: ...


class _Stream(nn.Module):
    """A backbone and a recurrent model; VideoLSTM on RGB has a second backbone for its motion."""

    def __init__(self, settings: Settings, stream: str, num_classes: int):
        super().__init__()
        s = settings
        self.stream, self.frozen = stream, s.backbone == "vgg16"
        self.backbone = _backbone(s, 3 if stream == "rgb" else 2)
        self.takes_motion = s.model == "videolstm"
        self.motion = _backbone(s, 2) if self.takes_motion and stream == "rgb" else None
        side = s.frame_size // self.backbone.stride
        options: dict[str, Any] = {
            "feature_size": side,
            "attention_channels": s.attention,
            "head_channels": s.head,
            "dropout": s.dropout,
        }
        if s.model not in ("lstm", "convlstm"):
            options["initial_state"] = s.initial_state
        self.model = MODELS[s.model](self.backbone.out_channels, s.hidden, num_classes, **options)

    def _features(self, backbone: nn.Module, pixels: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return backbone(pixels)

    def forward(
        self, frames: Tensor, motion: Tensor | None, lengths: Tensor | None
    ) -> models.video_lstm.Returns:
        if self.frozen:
            motion = None if motion is None else _flow_pixels(motion)
        else:
            frames = frames - 0.5
        pixels = frames if self.stream == "rgb" else motion
        assert pixels is not None
        x = self._features(self.backbone, pixels)
        if not self.takes_motion:
            return self.model(x, lengths)
        if self.motion is None:
            return self.model(x, x, lengths)
        assert motion is not None
        return self.model(x, self._features(self.motion, motion), lengths)


def _backbone(settings: Settings, channels: int) -> Any:
    if settings.backbone == "vgg16":
        return models.VGG16Features().requires_grad_(False)
    return models.SmallBackbone(channels, settings.channels)


def _flow_pixels(motion: Tensor) -> Tensor:
    """Flow as the three channels of a picture, for a backbone that knows pictures only."""
    both = (motion / 10 + 0.5).clamp(0, 1)
    return torch.cat([both, (motion.norm(dim=-3, keepdim=True) / 5).clamp(0, 1)], -3)


class Network(nn.Module):
    """Frames in, class scores and attention of every stream out; carries its settings and the names of its classes.

    Shapes: frames [T, N, 3, S, S] in [0, 1]; motion [T, N, 2, S, S] or None where no part of it uses motion; lengths
    None or [N]. Returns {stream: (logits [T, N, K], attention [T, N, h, w] or None)}.
    """

    def __init__(self, settings: Settings, classes: Sequence[str]):
        super().__init__()
        self.settings, self.classes = settings, list(classes)
        if len(self.classes) < 2:
            _check.fail("classes", "two or more names", self.classes)
        self.streams = nn.ModuleDict({s: _Stream(settings, s, len(classes)) for s in settings.streams})

    def forward(
        self, frames: Tensor, motion: Tensor | None, lengths: Tensor | None = None
    ) -> dict[str, models.video_lstm.Returns]:
        return {name: stream(frames, motion, lengths) for name, stream in self.streams.items()}

    def load_backbone(self, state_dict: dict[str, Tensor]) -> None:
        """torchvision's weights of VGG-16 into the backbones of all streams."""
        for module in self.modules():
            if isinstance(module, models.VGG16Features):
                module.load_state_dict(state_dict)


@dataclass
class _Video:
    frames: Tensor  # uint8 [n, 3, S, S]
    motion: Tensor | None  # [n, 2, S, S], in units of a sixteenth of S


def _prepare(frames: Tensor, settings: Settings) -> _Video:
    """A clip's frames uint8 [n, H, W, 3] as a network sees them."""
    side = settings.frame_size
    pixels = frames[:: settings.stride].permute(0, 3, 1, 2)
    if pixels.shape[2:] != (side, side):
        pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
    pixels = pixels.contiguous()
    if not settings.uses_motion:
        return _Video(pixels, None)
    if settings.motion == "difference":
        grey = pixels.float().mean(1, keepdim=True) / 255
        change = torch.cat([torch.zeros_like(grey[:1]), grey[1:] - grey[:-1]])
        return _Video(pixels, 4 * torch.cat([change.relu(), (-change).relu()], 1))
    from amstel import video

    flow = video.flow(pixels.permute(0, 2, 3, 1).contiguous(), settings.motion)
    return _Video(pixels, flow * (16 / side))


class _Videos:
    """Prepared clips, kept in memory up to a limit."""

    def __init__(self, clips: Clips, settings: Settings, limit: int = 2**31):
        self.clips, self.settings, self.room = clips, settings, limit
        self.kept: dict[int, tuple[_Video, int]] = {}

    def __getitem__(self, index: int) -> tuple[_Video, int]:
        if index in self.kept:
            return self.kept[index]
        clip = self.clips[index]
        if clip.frames.shape[0] < 1:
            raise ValueError(f"clip {clip.name} has no frame")
        video = _prepare(clip.frames, self.settings)
        size = video.frames.numel() + (0 if video.motion is None else 4 * video.motion.numel())
        if size <= self.room:
            self.room -= size
            self.kept[index] = video, clip.label
        return video, clip.label


@dataclass
class _Batch:
    frames: Tensor
    motion: Tensor | None
    lengths: Tensor
    labels: Tensor


def _stack(crops: list[_Video], labels: list[int], device: torch.device) -> _Batch:
    """Crops of any length side by side, the shorter ones padded with zeros at their end."""

    def pad(parts: list[Tensor]) -> Tensor:
        return nn.utils.rnn.pad_sequence(parts).to(device)

    frames = pad([crop.frames for crop in crops])
    motion = [crop.motion for crop in crops if crop.motion is not None]
    return _Batch(
        frames.float() / 255 if frames.dtype == torch.uint8 else frames,
        pad(motion) if motion else None,
        torch.tensor([len(crop.frames) for crop in crops], device=device),
        torch.tensor(labels, device=device),
    )


def _crop(video: _Video, settings: Settings, generator: torch.Generator) -> _Video:
    """T frames from anywhere in a clip, or all where there are fewer, augmented."""
    start, left, up, mirror, light = torch.rand(5, generator=generator).tolist()
    begin = int(start * (max(0, len(video.frames) - settings.steps) + 1))
    part = slice(begin, begin + settings.steps)
    frames = video.frames[part].float() / 255
    motion = None if video.motion is None else video.motion[part]
    if settings.brightness:
        frames = (frames * (1 + settings.brightness * (2 * light - 1))).clamp(0, 1)
    if settings.shift:
        s, side = settings.shift, settings.frame_size
        x, y = int(left * (2 * s + 1)), int(up * (2 * s + 1))

        def move(maps: Tensor) -> Tensor:
            return F.pad(maps, (s, s, s, s), mode="replicate")[..., y : y + side, x : x + side]

        frames, motion = move(frames), None if motion is None else move(motion)
    if settings.flip and mirror < 0.5:
        frames = frames.flip(-1)
        if motion is not None:
            motion = motion.flip(-1)
            if settings.motion != "difference":
                motion = motion * torch.tensor([-1.0, 1.0])[:, None, None]
    return _Video(frames, motion)


def _generator(*key: int) -> torch.Generator:
    """A generator for the given numbers alone."""
    seed = 0
    for part in key:  # a step of splitmix64 each, so that neighbouring keys share nothing
        seed = (seed + part + 0x9E3779B97F4A7C15) % 2**64
        seed = (seed ^ seed >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        seed = (seed ^ seed >> 27) * 0x94D049BB133111EB % 2**64
        seed ^= seed >> 31
    return torch.Generator().manual_seed(seed % 2**63)


def split(labels: Sequence[int], fraction: float, seed: int = 0) -> tuple[list[int], list[int]]:
    """Numbers of the clips to train on, and of those to hold out: a share of every class, drawn by `seed`."""
    if not 0 <= fraction < 1:
        _check.fail("fraction", "in [0, 1)", fraction)
    out: list[int] = []
    for label in sorted(set(labels)):
        own = [i for i, other in enumerate(labels) if other == label]
        count = min(len(own) - 1, round(fraction * len(own)))
        out += [own[k] for k in torch.randperm(len(own), generator=_generator(seed, label))[:count].tolist()]
    return [i for i in range(len(labels)) if i not in set(out)], sorted(out)


class Subset:
    """Some clips of a folder, still read only when they are asked for."""

    def __init__(self, clips: Clips, indices: Sequence[int]):
        self.clips, self.indices = clips, list(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Clip:
        return self.clips[self.indices[index]]


@dataclass
class Training:
    """What `train` returns: the network in evaluation mode and one entry an epoch of loss and training accuracy."""

    network: Network
    history: list[dict[str, float]] = field(default_factory=list)


def save(
    path: Path, network: Network, optimizer: torch.optim.Optimizer, history: list[dict[str, float]]
) -> None:
    """A checkpoint that torch.load(weights_only=True) reads; a half-written one never replaces a whole one."""
    state = {
        "format": "amstel video_lstm 1",
        "settings": asdict(network.settings),
        "classes": network.classes,
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": history,
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def _read(path: str | Path) -> tuple[Network, dict[str, Any]]:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"the checkpoint {path} does not exist")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not state["format"].startswith("amstel video_lstm"):
            raise ValueError("another format")
        settings = Settings(**{**state["settings"], "channels": tuple(state["settings"]["channels"])})
        network = Network(settings, state["classes"])
        network.load_state_dict(state["network"])
    except Exception as error:
        raise ValueError(f"{path} is not a checkpoint of `amstel videolstm train`") from error
    return network, state


def load(path: str | Path) -> Network:
    """The network of a checkpoint, in evaluation mode."""
    return _read(path)[0].eval()


def _loss(outputs: dict[str, models.video_lstm.Returns], batch: _Batch) -> tuple[Tensor, Tensor]:
    """Cross-entropy summed over steps, clips and streams, and the number of clips that are classified right."""
    total = outputs[next(iter(outputs))][0].new_zeros(())
    log_p = []
    for logits, _ in outputs.values():
        steps, count, _ = logits.shape
        kept = torch.arange(steps, device=logits.device)[:, None] < batch.lengths
        losses = F.cross_entropy(
            logits.flatten(0, 1), batch.labels.expand(steps, count).flatten(), reduction="none"
        )
        total = total + (losses.view(steps, count) * kept).sum()
        log_p.append(models.predict(logits.detach(), batch.lengths).log())
    right = (sum(log_p).argmax(1) == batch.labels).sum()  # type: ignore[union-attr]
    return total, right


def train(
    clips: Clips,
    classes: Sequence[str],
    settings: Settings | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    backbone_weights: dict[str, Tensor] | None = None,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Training:
    """Train a network on clips.

    The loss is the cross-entropy summed over steps and streams, averaged over the clips of a batch. In a process
    group (torch.distributed) every process takes its share of each batch, and the gradients are those of the whole
    batch; all processes end with equal weights, process 0 writes.

    Args:
        clips: what a `ClipFolder` holds, or any sequence of `Clip`.
        classes: their names; labels index them.
        settings: default: `Settings()`.
        out: a folder for `checkpoint.pt`, written after every epoch.
        resume: go on from the checkpoint in `out`, with its settings except for the number of epochs; bit-identical
            to a run that was never interrupted (with the same number of threads).
        backbone_weights: torchvision's state_dict of VGG-16, for that backbone.
        device: where to train.
        progress: called with the number of clips after every batch.

    Raises:
        ValueError: no clip, a label without a class, a checkpoint of other classes.
        FileNotFoundError: nothing to resume from.
    """
    settings = settings or Settings()
    if not len(clips):
        _check.fail("clips", "at least one clip", "none")
    history: list[dict[str, float]] = []
    state = None
    if resume:
        if out is None:
            _check.fail("out", "the folder of the checkpoint to resume from", None)
        saved, state = _read(Path(out) / CHECKPOINT)  # type: ignore[arg-type]
        if list(classes) != saved.classes:
            _check.fail("classes", f"those of the checkpoint, {saved.classes}", list(classes))
        settings, history = replace(saved.settings, epochs=settings.epochs), state["history"]
    device = torch.device(device)
    grouped = distributed.is_available() and distributed.is_initialized()
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if grouped else (0, 1)
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        network = Network(settings, classes)
        if state is not None:
            network.load_state_dict(state["network"])
        elif backbone_weights is not None:
            network.load_backbone(backbone_weights)
        network.to(device).train()
        optimizer = _optimizer(network, settings)
        if state is not None:
            optimizer.load_state_dict(state["optimizer"])
        parallel: nn.Module = nn.parallel.DistributedDataParallel(network) if grouped else network
        videos = _Videos(clips, settings)
        batches = math.ceil(len(clips) / settings.batch)
        for epoch in range(len(history), settings.epochs):
            torch.manual_seed(int(_generator(settings.seed, epoch, rank).initial_seed()))
            order = torch.randperm(len(clips), generator=_generator(settings.seed, epoch)).tolist()
            total = torch.zeros(2, device=device, dtype=torch.float64)
            for number in range(batches):
                whole = order[number * settings.batch : (number + 1) * settings.batch]
                # A process without a share computes what the others wait for, with no weight.
                share, weight = whole[rank::world], 1.0
                if not share:
                    share, weight = whole[:1], 0.0
                batch = _sample(videos, share, settings, epoch, len(classes), device)
                for group in optimizer.param_groups:
                    group["lr"] = _rate(settings, (epoch + number / batches) / settings.epochs)
                optimizer.zero_grad()
                loss, right = _loss(parallel(batch.frames, batch.motion, batch.lengths), batch)
                # The processes' gradients are averaged: times their number is the sum over the batch.
                (loss * (weight * world / len(whole))).backward()
                if settings.clip_gradient:
                    nn.utils.clip_grad_norm_(network.parameters(), settings.clip_gradient)
                optimizer.step()
                total += weight * torch.stack([loss.detach(), right]).double()
                if progress is not None:
                    progress(len(whole))
            if grouped:
                distributed.all_reduce(total)
            mean_loss, accuracy = (total / len(clips)).tolist()
            history.append({"loss": mean_loss, "accuracy": accuracy})
            if out is not None and rank == 0:
                Path(out).mkdir(parents=True, exist_ok=True)
                save(Path(out) / CHECKPOINT, network, optimizer, history)
    return Training(network.eval(), history)


def _sample(
    videos: _Videos, indices: list[int], settings: Settings, epoch: int, classes: int, device: torch.device
) -> _Batch:
    crops, labels = [], []
    for index in indices:
        video, label = videos[index]
        if not 0 <= label < classes:
            _check.fail("clips", f"labelled 0 to {classes - 1}, one for each of `classes`", label)
        crops.append(_crop(video, settings, _generator(settings.seed, epoch, 1, index)))
        labels.append(label)
    return _stack(crops, labels, device)


def _optimizer(network: Network, settings: Settings) -> torch.optim.Optimizer:
    parameters = [p for p in network.parameters() if p.requires_grad]
    if settings.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=settings.learning_rate)
    return torch.optim.RMSprop(parameters, lr=settings.learning_rate, alpha=0.9)


def _rate(settings: Settings, done: float) -> float:
    if settings.schedule == "constant":
        return settings.learning_rate
    return settings.learning_rate * (1 + math.cos(math.pi * done)) / 2


@dataclass
class Prediction:
    """One video: probabilities [K]; attention [T, h, w] of every frame, or None; boxes [T, 4] (x1, y1, x2, y2) in its
    pixels, or None."""

    probabilities: Tensor
    attention: Tensor | None
    boxes: Tensor | None


@dataclass
class Evaluation:
    """Clips in order: probabilities [clips, K], labels [clips], names."""

    probabilities: Tensor
    labels: Tensor
    names: list[str]

    @property
    def accuracy(self) -> float:
        return (self.probabilities.argmax(1) == self.labels).double().mean().item()


@torch.no_grad()
def _segments(
    network: Network, video: _Video, count: int, vote: str = "mean"
) -> tuple[Tensor, Tensor | None]:
    """Probabilities [K] and attention [n, h, w] of a prepared video, each the mean over the segments that see it."""
    from amstel.video import segments

    n, steps = len(video.frames), min(network.settings.steps, len(video.frames))
    index = torch.unique(segments(n, steps, count), dim=0)
    device = next(network.parameters()).device
    probabilities, total, seen = [], None, torch.zeros(n)
    for part in index.split(32):
        crops = [_Video(video.frames[i], None if video.motion is None else video.motion[i]) for i in part]
        batch = _stack(crops, [0] * len(crops), device)
        outputs = network(batch.frames, batch.motion, batch.lengths)
        scores = [logits for logits, _ in outputs.values()]  # of equal length: nothing is padded
        found = [models.predict(x if vote == "mean" else x[-1:]) for x in scores]
        # A probability that underflows in one stream must not make the product 0/0.
        probabilities.append(
            found[0] if len(found) == 1 else models.fuse(*(p.clamp_min(1e-12).log() for p in found))
        )
        attention = next(iter(outputs.values()))[1]
        if attention is not None:
            if total is None:
                total = torch.zeros(n, *attention.shape[2:])
            total.index_add_(0, part.T.flatten(), attention.flatten(0, 1).cpu())
            seen.index_add_(0, part.T.flatten(), torch.ones(part.numel()))
    mean = torch.cat(probabilities).mean(0).cpu()
    return mean, None if total is None else total / seen[:, None, None]


def evaluate(
    network: Network,
    clips: Clips,
    segments: int = 25,
    progress: Callable[[int], None] | None = None,
    *,
    vote: str = "mean",
) -> Evaluation:
    """The paper's test: probabilities of equally spaced segments of T frames, averaged over segments and steps.

    With vote="last" a segment's answer is that of its last step alone, which has seen all of it: better where the
    first frames cannot tell.
    """
    if vote not in ("mean", "last"):
        _check.fail("vote", "'mean' or 'last'", vote)
    if not len(clips):
        _check.fail("clips", "at least one clip", "none")
    network.eval()
    found, labels, names = [], [], []
    for clip in (clips[i] for i in range(len(clips))):
        found.append(_segments(network, _prepare(clip.frames, network.settings), segments, vote)[0])
        labels.append(clip.label)
        names.append(clip.name)
        if progress is not None:
            progress(1)
    return Evaluation(torch.stack(found), torch.tensor(labels), names)


def predict(network: Network, frames: Tensor, segments: int = 25) -> Prediction:
    """Classes, attention and boxes of one video, uint8 frames [n, H, W, 3].

    At least `segments` segments, and as many as it takes to see every frame twice; each is classified from the start,
    and a frame's attention is the mean over those that see it.
    """
    from amstel.video import localise

    _check.tensor("frames", frames, "uint8 [n, H, W, 3]")
    if frames.dim() != 4 or frames.shape[3] != 3 or frames.dtype != torch.uint8 or len(frames) < 1:
        _check.fail("frames", "uint8 [n, H, W, 3] with at least one frame", frames)
    network.eval()
    settings = network.settings
    video = _prepare(frames, settings)
    probabilities, attention = _segments(
        network, video, max(segments, math.ceil(2 * len(video.frames) / settings.steps) + 1)
    )
    if attention is None:
        return Prediction(probabilities, None, None)
    attention = attention.repeat_interleave(settings.stride, 0)[: len(frames)]
    height, width = frames.shape[1:3]
    return Prediction(probabilities, attention, localise(attention, (height, width)))
