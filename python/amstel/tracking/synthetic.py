"""A synthetic sequence with known boxes: a textured target that rotates, grows and passes behind a pillar."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from amstel import _check


class SyntheticSequence(NamedTuple):
    """What `generate_sequence` returns.

    Attributes:
        frames: uint8 [T, H, W, 3].
        ground_truth: float64 [T, 4], x, y, w, h, in all frames.
        hidden: bool [T], whether at most a tenth of the target is visible.
    """

    frames: Tensor
    ground_truth: Tensor
    hidden: Tensor


def _texture(generator: torch.Generator, height: int, width: int, cells: tuple[int, ...]) -> Tensor:
    """Colored noise with details of several sizes: [3, H, W] in [0, 1]."""
    layers = [
        F.interpolate(
            torch.rand(1, 3, height // cell + 2, width // cell + 2, generator=generator, dtype=torch.float32),
            (height, width),
            mode="bicubic",
        )[0]
        for cell in cells
    ]
    mean = torch.stack(layers).mean(0)
    return ((mean - mean.mean()) * 1.8 + 0.5).clamp(0, 1)


def generate_sequence(
    frames: int = 60, height: int = 240, width: int = 320, target: int = 44, seed: int = 0
) -> SyntheticSequence:
    """Generate a sequence in which the target moves from left to right in waves, and behind a pillar in the middle.

    On its way, it rotates by up to 20 degrees, its size changes by up to 15%, the light changes by up to 15%, and every
    frame has noise.

    Args:
        frames: T >= 2.
        height, width: of a frame in pixels, at least four times the target's side.
        target: side of the target at the beginning, at least 8 pixels.
        seed: seed of the textures and the noise.

    Raises:
        ValueError: a number is below its minimum.

    Example:
        >>> frames, boxes, hidden = amstel.tracking.generate_sequence()
        >>> frames.shape, boxes.shape, int(hidden.sum())
        (torch.Size([60, 240, 320, 3]), torch.Size([60, 4]), 9)
    """
    given = {"frames": frames, "height": height, "width": width, "target": target, "seed": seed}
    frames, height, width, target, seed = (_check.integer(name, value) for name, value in given.items())
    if target < 8 or min(height, width) < 4 * target or frames < 2:
        raise ValueError(
            "`frames` must be at least 2, `target` at least 8, `height` and `width` at least four times `target`, "
            f"got {frames}, {target}, {height} and {width}"
        )
    generator = torch.Generator().manual_seed(seed)
    background = _texture(generator, height, width, (64, 16))
    background = 0.25 + 0.4 * torch.lerp(background.mean(0), background, 0.4)
    texture = _texture(generator, 64, 64, (16, 6))
    pillar = slice(width // 2 - round(0.75 * target), width // 2 + round(0.75 * target))
    stone = 0.35 + 0.1 * _texture(generator, height, pillar.stop - pillar.start, (8,)).mean(0)
    pictures, boxes, hidden = [], [], []
    rows = torch.arange(height, dtype=torch.float64)[:, None] + 0.5
    columns = torch.arange(width, dtype=torch.float64) + 0.5
    for t in range(frames):
        way = t / (frames - 1)
        x = width * (0.15 + 0.7 * way)
        y = height * (0.5 + 0.2 * math.sin(2 * math.pi * way))
        angle = math.radians(20) * math.sin(3 * math.pi * way)
        half = target / 2 * (1 + 0.15 * math.sin(2 * math.pi * way))
        # The target's own coordinates of every pixel, -1 to 1 over its width.
        u = ((columns - x) * math.cos(angle) + (rows - y) * math.sin(angle)) / half
        v = ((rows - y) * math.cos(angle) - (columns - x) * math.sin(angle)) / half
        grid = torch.stack([u, v], 2)[None].float()
        painted = F.grid_sample(texture[None], grid, align_corners=False, padding_mode="border")[0]
        # A disc with an edge one pixel soft.
        cover = ((1 - torch.hypot(u, v)) * half + 0.5).clamp(0, 1).float()
        picture = background + cover * (painted - background)
        picture[:, :, pillar] = stone
        picture = picture * (1 + 0.15 * math.sin(4 * math.pi * way))
        picture = picture + 0.01 * torch.randn(picture.shape, generator=generator, dtype=torch.float32)
        pictures.append((255 * picture).clamp(0, 255).byte().permute(1, 2, 0))
        boxes.append([x - half, y - half, 2 * half, 2 * half])
        whole = cover.sum()
        hidden.append(bool(whole - cover[:, pillar].sum() <= 0.1 * whole))
    return SyntheticSequence(
        torch.stack(pictures), torch.tensor(boxes, dtype=torch.float64), torch.tensor(hidden)
    )
