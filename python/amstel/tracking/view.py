"""Rectangles of a frame as the network sees them, and the conversion of boxes in pixels to their feature maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from amstel import ops


def _crop(frame: np.ndarray, x: int, y: int, w: int, h: int) -> np.ndarray:
    """The rectangle of a frame, whose border repeats outside of it."""
    height, width = frame.shape[:2]
    # What is inside is copied by rows, which is many times faster than pixel by pixel.
    top, left = (min(max(low, 0), side - 1) for low, side in ((y, height), (x, width)))
    bottom, right = (min(max(end, 1), side) for end, side in ((y + h, height), (x + w, width)))
    inside = frame[top : max(bottom, top + 1), left : max(right, left + 1)]
    if inside.shape[:2] == (h, w):
        return np.ascontiguousarray(inside)
    rows = (np.arange(y, y + h) - top).clip(0, len(inside) - 1)
    columns = (np.arange(x, x + w) - left).clip(0, inside.shape[1] - 1)
    return inside.take(columns, 1).take(rows, 0)


@dataclass(frozen=True)
class Window:
    """A rectangle of a frame in whole pixels, and the size (width, height) to which it is resized.

    Attributes:
        zoom: pixels of the resized window a pixel of the frame, before rounding; windows of one zoom can be shared. 0: only
            with themselves.
    """

    corner: tuple[int, int]
    extent: tuple[int, int]
    size: tuple[int, int]
    zoom: float = 0.0

    @classmethod
    def of(cls, corner: Sequence[int], extent: Sequence[float], zoom: float, cell: int) -> Window:
        """The smallest window of at least this many pixels whose resized sides are whole cells of the coarsest map."""
        width, height = (max(2, math.ceil(side * zoom / cell)) * cell for side in extent)
        return cls((corner[0], corner[1]), (round(width / zoom), round(height / zoom)), (width, height), zoom)

    def at(self, corner: tuple[int, int]) -> Window:
        """The same, elsewhere."""
        return replace(self, corner=corner)

    def covers(self, other: Window) -> bool:
        """Whether a view of this one shows all of the other, at its zoom."""
        if self == other:
            return True
        return 0 < self.zoom == other.zoom and all(
            low <= own and own + side <= low + large
            for low, large, own, side in zip(
                self.corner, self.extent, other.corner, other.extent, strict=True
            )
        )

    def union(self, other: Window, cell: int) -> Window:
        """Of both, which have one zoom."""
        low = [min(pair) for pair in zip(self.corner, other.corner, strict=True)]
        high = [
            max(a + b, c + d)
            for a, b, c, d in zip(self.corner, self.extent, other.corner, other.extent, strict=True)
        ]
        return Window.of(low, [b - a for a, b in zip(low, high, strict=True)], self.zoom, cell)

    @property
    def pixels(self) -> int:
        """That go through the network."""
        return self.size[0] * self.size[1]


class View:
    """Feature maps of a window of a frame, and the way from boxes in the frame's pixels to them.

    Outside the frame, the window repeats the border.
    """

    def __init__(self, model: Any, frame: np.ndarray, window: Window):
        (x, y), (w, h), size = window.corner, window.extent, window.size
        # The model is the caller's, who may have trained it since.
        self.model = model.eval() if model.training else model
        self.origin = torch.tensor([x, y], dtype=torch.float64)
        self.zoom = torch.tensor([size[0] / w, size[1] / h], dtype=torch.float64)
        pixels = torch.from_numpy(_crop(frame, x, y, w, h))[None].permute(0, 3, 1, 2)
        if size != (w, h):
            pixels = F.interpolate(pixels, size[::-1], mode="bilinear", antialias=True)
        first = next(iter(model.parameters()), torch.empty(0))
        self.device = first.device
        dtype = first.dtype if first.is_floating_point() else torch.float32
        maps = model.features((pixels.to(self.device).float() / 255).to(dtype))
        # Boxes and matches are float32, whatever the network computes in: bfloat16 does not hold a coordinate.
        self.features = [m.float() for m in maps]

    def _rois(self, boxes: Tensor) -> Tensor:
        low = (boxes[:, :2] - self.origin) * self.zoom
        # ROI pooling counts the cell of the far corner in, so this is the last pixel.
        high = (boxes[:, :2] + boxes[:, 2:] - self.origin) * self.zoom - 1
        return F.pad(torch.cat([low, high], 1), (1, 0)).float().to(self.device)

    def describe(self, boxes: Tensor) -> Tensor:
        return self.model.describe(self.features, self._rois(boxes))

    def match(self, boxes: Tensor, query: Tensor) -> Tensor:
        return self.model.match(self.features, self._rois(boxes), query).cpu().double()

    def pool(self, boxes: Tensor) -> Tensor:
        """The first layer's pooled features, [K, C * P * P]."""
        scale = self.model.spatial_scales[0]
        pooled = ops.roi_pool(self.features[0], self._rois(boxes), self.model.output_size, scale)
        return pooled.flatten(1).cpu().float()


class Views:
    """The views of one frame, each made when it is first asked for, and once however many targets look at it."""

    def __init__(self, model: Any, frame: np.ndarray):
        self.model, self.frame = model, frame
        self._planned: list[Window] = []
        self._made: dict[Window, View] = {}

    def of(self, window: Window) -> View:
        """A view that shows all of the window."""
        wanted = next((w for w in (*self._made, *self._planned) if w.covers(window)), window)
        if wanted not in self._made:
            self._made[wanted] = View(self.model, self.frame, wanted)
        return self._made[wanted]

    def share(self, windows: Sequence[Window], cell: int) -> None:
        """Join those of one zoom whose union is less work than they are one by one."""
        joined: list[Window] = []
        for given in dict.fromkeys(windows):
            window = given
            while True:
                found = [(w, w.union(window, cell)) for w in joined if 0 < w.zoom == window.zoom]
                found = [(w, both) for w, both in found if both.pixels < w.pixels + window.pixels]
                if not found:
                    break
                other, window = min(found, key=lambda pair: pair[1].pixels - pair[0].pixels)
                joined.remove(other)
            joined.append(window)
        self._planned = joined
