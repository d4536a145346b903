"""Clips as a network sees them: resized, with their motion, randomly cropped and augmented, and batched.

Everything random depends only on (seed, epoch, clip), so a resumed run repeats the uninterrupted one bit for bit,
and the processes of a distributed run see the same clips as a single process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amstel import _check
from amstel.apps.video.settings import Settings
from amstel.data.clips import Clip


class Clips(Protocol):
    """Clips by number: a list of them, or a folder that reads each one on access."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Clip: ...


@dataclass
class _Video:
    frames: Tensor  # uint8 [n, 3, S, S]
    motion: Tensor | None  # [n, 2, S, S], in units of a sixteenth of S
    features: bool = False  # both are what the backbones made of them, [n, C, h, w] or [n, C]
    boxes: Tensor | None = None  # true ones [n, A, 4] in pixels of these frames, where they are to be learned


@dataclass(repr=False, eq=False)
class FeatureClip(Clip):
    """A clip with known features: those of its frames and, if needed, of its motion."""

    motion: Tensor | None = None


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
        gray = pixels.float().mean(1, keepdim=True) / 255
        change = torch.cat([torch.zeros_like(gray[:1]), gray[1:] - gray[:-1]])
        return _Video(pixels, 4 * torch.cat([change.relu(), (-change).relu()], 1))
    from amstel.media.flow import flow as flow_of

    flow = flow_of(pixels.permute(0, 2, 3, 1).contiguous(), settings.motion)
    return _Video(pixels, flow * (16 / side))


def prepared(clip: Clip, settings: Settings) -> _Video:
    """A clip as a network sees it."""
    if isinstance(clip, FeatureClip):
        return _Video(clip.frames, clip.motion, True)
    video = _prepare(clip.frames, settings)
    if settings.box_weight and clip.tubes is not None and len(clip.tubes):
        height, width = clip.frames.shape[1:3]
        scale = settings.frame_size / torch.tensor([width, height, width, height], dtype=torch.float32)
        video.boxes = clip.tubes.transpose(0, 1)[:: settings.stride] * scale
    return video


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
        video = prepared(clip, self.settings)
        if video.features:  # mapped from a file: the system keeps what there is room for
            return video, clip.label
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
    features: bool = False
    boxes: Tensor | None = None  # [T, N, A, 4], NaN where there is none


def _stack(crops: list[_Video], labels: list[int], device: torch.device) -> _Batch:
    """A batch of crops of any length, the shorter ones padded with zeros at the end."""

    def pad(parts: list[Tensor]) -> Tensor:
        return nn.utils.rnn.pad_sequence(parts).to(device)

    frames = pad([crop.frames for crop in crops])
    motion = [crop.motion for crop in crops if crop.motion is not None]
    boxes = None
    if any(crop.boxes is not None for crop in crops):
        most = max(0 if crop.boxes is None else crop.boxes.shape[1] for crop in crops)
        boxes = torch.full((*frames.shape[:2], most, 4), float("nan"))
        for k, crop in enumerate(crops):
            if crop.boxes is not None:
                boxes[: len(crop.boxes), k, : crop.boxes.shape[1]] = crop.boxes
        boxes = boxes.to(device)
    return _Batch(
        frames.float() / 255 if frames.dtype == torch.uint8 else frames.float(),
        pad(motion).float() if motion else None,
        torch.tensor([len(crop.frames) for crop in crops], device=device),
        torch.tensor(labels, device=device),
        crops[0].features,
        boxes,
    )


def _crop(video: _Video, settings: Settings, generator: torch.Generator) -> _Video:
    """T frames from anywhere in a clip, or all frames if there are fewer, augmented."""
    start, left, up, mirror, light = torch.rand(5, generator=generator).tolist()
    begin = int(start * (max(0, len(video.frames) - settings.steps) + 1))
    part = slice(begin, begin + settings.steps)
    motion = None if video.motion is None else video.motion[part]
    boxes = None if video.boxes is None else video.boxes[part]
    if video.features:
        return _Video(video.frames[part], motion, True)
    frames = video.frames[part].float() / 255
    if settings.brightness:
        frames = (frames * (1 + settings.brightness * (2 * light - 1))).clamp(0, 1)
    if settings.shift:
        s, side = settings.shift, settings.frame_size
        x, y = int(left * (2 * s + 1)), int(up * (2 * s + 1))

        def move(maps: Tensor) -> Tensor:
            return F.pad(maps, (s, s, s, s), mode="replicate")[..., y : y + side, x : x + side]

        frames, motion = move(frames), None if motion is None else move(motion)
        boxes = None if boxes is None else boxes + torch.tensor([s - x, s - y, s - x, s - y])
    if settings.flip and mirror < 0.5:
        frames = frames.flip(-1)
        if motion is not None:
            motion = motion.flip(-1)
            if settings.motion != "difference":
                motion = motion * torch.tensor([-1.0, 1.0])[:, None, None]
        if boxes is not None:
            x1, y1, x2, y2 = boxes.unbind(-1)
            boxes = torch.stack([settings.frame_size - x2, y1, settings.frame_size - x1, y2], -1)
    return _Video(frames, motion, boxes=boxes)


def _generator(*key: int) -> torch.Generator:
    """A generator that depends only on the given numbers."""
    seed = 0
    for part in key:  # a step of splitmix64 each, so that neighboring keys share nothing
        seed = (seed + part + 0x9E3779B97F4A7C15) % 2**64
        seed = (seed ^ seed >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        seed = (seed ^ seed >> 27) * 0x94D049BB133111EB % 2**64
        seed ^= seed >> 31
    return torch.Generator().manual_seed(seed % 2**63)


def split(labels: Sequence[int], fraction: float, seed: int = 0) -> tuple[list[int], list[int]]:
    """Numbers of the training clips and of the held-out clips: a share of every class, drawn by `seed`."""
    if not 0 <= fraction < 1:
        _check.fail("fraction", "in [0, 1)", fraction)
    out: list[int] = []
    for label in sorted(set(labels)):
        own = [i for i, other in enumerate(labels) if other == label]
        count = min(len(own) - 1, round(fraction * len(own)))
        out += [own[k] for k in torch.randperm(len(own), generator=_generator(seed, label))[:count].tolist()]
    return [i for i in range(len(labels)) if i not in set(out)], sorted(out)


class Subset:
    """Some clips of a folder, still read on access."""

    def __init__(self, clips: Clips, indices: Sequence[int]):
        self.clips, self.indices = clips, list(indices)

    @property
    def labels(self) -> list[int]:
        known = labels_of(self.clips)
        return [known[k] for k in self.indices]

    def _identity(self) -> list[Any] | None:
        known: Any = self.clips
        if hasattr(known, "_identity"):
            known = known._identity()
        # Others would read every clip.
        return [known[k] for k in self.indices] if isinstance(known, (list, tuple)) else None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Clip:
        return self.clips[self.indices[index]]


def labels_of(clips: Clips) -> list[int]:
    """The class of each clip; for a folder, without reading the clips."""
    known = getattr(clips, "labels", None)
    return [clips[k].label for k in range(len(clips))] if known is None else list(known)


def balanced(order: Sequence[int], labels: Sequence[int]) -> list[int]:
    """As many clips as in `order`, with equally many of every class, or one more; the classes take turns, in that order.

    The clips of a smaller class are repeated from the first; of a larger class, the last ones wait for another epoch. A
    clip that comes for the k-th time is its number plus k - 1 times the number of clips, so that it can get another crop.
    """
    own: dict[int, list[int]] = {}
    for index in order:
        own.setdefault(labels[index], []).append(index)
    classes = list(own)
    turns = [divmod(n, len(classes)) for n in range(len(order))]
    mine = [(own[classes[k]], turn) for turn, k in turns]
    return [some[turn % len(some)] + len(labels) * (turn // len(some)) for some, turn in mine]
