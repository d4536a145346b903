"""Batches for training SINT: pairs of frames, and boxes sampled in them.

Everything random about a pair depends only on (seed, epoch, pair).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from amstel.apps.tracking.settings import Settings
from amstel.data.pairs import FramePair, Pairs, box_pairs


def _rois(boxes: Sequence[Tensor], device: torch.device) -> Tensor:
    """Boxes [k, 4] of each image in turn as [K, 5], their last pixel inside."""
    rois = [torch.cat([torch.full_like(b[:, :1], n), b[:, :2], b[:, 2:] - 1], 1) for n, b in enumerate(boxes)]
    return torch.cat(rois).to(device)


def _draw(pair: FramePair, settings: Settings, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Boxes [2, n, 4] and y [2, n] of both frames: a quarter of `boxes` on the target, the others times `mining`."""
    positive = settings.boxes // 4
    count = positive + settings.mining * (settings.boxes - positive)
    size = pair.frames.shape[-1]
    frames = zip(pair.boxes, pair.others, strict=True)
    drawn = [box_pairs(box, size, rng, count, positive, others) for box, others in frames]
    return torch.stack([b for b, _ in drawn]), torch.stack([y for _, y in drawn])


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
