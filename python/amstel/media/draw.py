"""Annotate frames with attention maps, boxes and a line of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from amstel._check import fail, tensor
from amstel._optional import need
from amstel.media import _arguments, fonts

# The colors of a box found and of the true one, and the way from no attention to all of it: lightness grows.
FOUND, TRUTH = (86, 200, 255), (255, 255, 255)
# One for each actor, and again from the first.
ACTORS = (FOUND, (255, 170, 60), (130, 235, 110), (255, 120, 200))
HEAT = np.array([(20, 10, 70), (110, 20, 130), (205, 50, 90), (250, 130, 30), (255, 235, 90)], np.float32)


def _draw_box(draw: Any, box: Sequence[float], color: tuple, line: int, dashed: bool) -> None:
    x1, y1, x2, y2 = box
    corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
    # A dark line under the light one shows the box on any picture.
    for shade, wide in (((0, 0, 0), line + 2), (color, line)):
        for (ax, ay), (bx, by) in pairwise(corners):
            length = abs(bx - ax) + abs(by - ay)
            dashes = max(1, round(length / (8 * line))) if dashed else 1
            for k in range(dashes):
                start, stop = k / dashes, (k + (0.55 if dashed else 1)) / dashes
                ends = [
                    (ax + (bx - ax) * start, ay + (by - ay) * start),
                    (ax + (bx - ax) * stop, ay + (by - ay) * stop),
                ]
                draw.line(ends, fill=shade, width=wide)


def annotate(
    frames: Tensor,
    attention: Tensor | None = None,
    boxes: Tensor | None = None,
    truth: Tensor | None = None,
    caption: str | Sequence[str] | None = None,
    scale: int | None = None,
) -> Tensor:
    """Annotated frames: attention as a heat map, the predicted box, the true box, and a line of text below.

    The heat map of a frame covers the range of its attention; a uniform map shows nothing. The predicted box is drawn in
    light blue, those of further actors in other colors, and the true ones dashed in white.

    Args:
        frames: uint8 [T, H, W, 3].
        attention: maps [T, h, w] of any scale and size.
        boxes: predicted boxes [T, 4] in pixels of `frames`, or those of several actors [A, T, 4]; a row with NaN is not
            drawn.
        truth: true boxes, in the same form.
        caption: one line of text for all frames, or one per frame.
        scale: whole number by which to enlarge; default: the smallest that makes the shorter side at least 256 pixels,
            but the longer one at most 1280.

    Returns:
        uint8 [T, H', W', 3], larger by `scale` and by the lines of text.

    Raises:
        ValueError: shapes or a number of captions that do not fit the frames.
        ImportError: the extra [video] is missing.

    Example:
        >>> frames, maps = amstel.video.read("clip.mp4"), torch.rand(8, 7, 7)
        >>> boxes = amstel.video.localize(maps, frames.shape[1:3])
        >>> pictures = amstel.video.annotate(frames, maps, boxes, caption="jumping jack")
        >>> path = amstel.video.write("jack.gif", pictures)
        >>> pictures.shape  # four times as large, and a line of text
        torch.Size([8, 318, 384, 3])
    """
    _arguments.frames(frames)
    count, height, width = frames.shape[:3]
    if attention is not None:
        tensor("attention", attention, f"a floating tensor [{count}, h, w]")
        if attention.dim() != 3 or len(attention) != count or not attention.is_floating_point():
            fail("attention", f"a floating tensor [{count}, h, w]", attention)
        if not attention.numel() or not attention.isfinite().all():
            fail("attention", "finite and not empty", attention)
    for argument, value in (("boxes", boxes), ("truth", truth)):
        if value is not None:
            _arguments.boxes(argument, value)
            if value.shape[-2:] != (count, 4) or value.dim() > 3:
                fail(argument, f"[{count}, 4] or [actors, {count}, 4]", value)
    captions = [caption] * count if isinstance(caption, str) else list(caption or [""] * count)
    if len(captions) != count:
        raise ValueError(f"`caption` must be one line or {count}, got {len(captions)}")
    if scale is None:
        scale = max(1, min(math.ceil(256 / min(height, width)), 1280 // max(height, width)))
    scale = _arguments.integer("scale", scale)

    image, drawing = (
        need(f"PIL.{name}", extra="video", purpose="amstel.video.annotate") for name in ("Image", "ImageDraw")
    )
    size = (width * scale, height * scale)
    text, line = max(12, min(size) // 18), max(2, min(size) // 128)
    font, captions = fonts.fitting(captions, text)
    legend = boxes is not None and truth is not None
    lines = int(any(captions)) + int(legend)
    row = int(1.5 * text)
    maps = None if attention is None else attention.detach().float().cpu()
    pictures = np.zeros((count, size[1] + lines * row + (lines > 0) * (row // 4), size[0], 3), np.uint8)
    for t, frame in enumerate(frames.cpu().numpy()):
        large = frame if scale == 1 else np.repeat(np.repeat(frame, scale, 0), scale, 1)
        if maps is not None:
            large = _overlay(large, _heat(maps[t], size))
        picture = image.new("RGB", pictures.shape[2:0:-1], (24, 24, 24))
        picture.paste(image.fromarray(large))
        draw = drawing.Draw(picture)
        for which, colors, dashed in ((truth, (TRUTH,), True), (boxes, ACTORS, False)):
            for k, tube in enumerate(() if which is None else which.reshape(-1, count, 4)):
                if not tube[t].isnan().any():
                    # Inside the picture, so that no line is cut off.
                    inset = torch.tensor([size[0] - 1, size[1] - 1]) - line // 2
                    ends = (
                        (_arguments.wide(tube[t])[0].cpu() * scale)
                        .view(2, 2)
                        .minimum(inset)
                        .clamp(min=line // 2)
                    )
                    _draw_box(draw, ends.view(4).tolist(), colors[k % len(colors)], line, dashed)
        y = size[1] + row // 4
        if any(captions):
            draw.text((text // 2, y), captions[t], fill=(240, 240, 240), font=font)
            y += row
        if legend:
            draw.text((text // 2, y), "box found", fill=FOUND, font=font)
            draw.text(
                (text // 2 + draw.textlength("box found   ", font), y), "- - true box", fill=TRUTH, font=font
            )
        pictures[t] = np.asarray(picture)
    return torch.from_numpy(pictures)


def _heat(attention: Tensor, size: tuple[int, int]) -> np.ndarray:
    """A map at the size of the picture (width, height), its range brought to 0..255."""
    large = interpolate(attention[None, None], size[::-1], mode="bilinear", align_corners=False)[0, 0]
    low, high = (t.item() for t in large.aminmax())
    if high - low <= 1e-5 * abs(high):
        return np.zeros(size[::-1], np.uint8)
    # Divided first: the range of a softmax may be too small for its inverse to be a number.
    return large.sub_(low).div_(high - low).mul_(255).add_(0.5).to(torch.uint8).numpy()


def _overlay(picture: np.ndarray, level: np.ndarray) -> np.ndarray:
    """The picture under the heat, in whole numbers of 256ths, rounded."""
    mixed = picture * _KEPT.take(level)[..., None]
    mixed += _ADDED.take(level, axis=0)
    mixed >>= 8
    return mixed.astype(np.uint8)


def _levels() -> tuple[np.ndarray, np.ndarray]:
    """256ths that each level of heat leaves of the picture [256], and that it adds, with a half to round [256, 3]."""
    heat = np.linspace(0, 1, 256)
    place = np.linspace(0, 1, len(HEAT))
    color = np.stack([np.interp(heat, place, HEAT[:, k]) for k in range(3)], 1)
    share = np.rint(256 * 0.65 * heat)
    return (256 - share).astype(np.uint16), (np.rint(color * share[:, None]) + 128).astype(np.uint16)


_KEPT, _ADDED = _levels()
