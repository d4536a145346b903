"""A rectangle of a frame as the network sees it, and the way from boxes in pixels to its feature maps."""

from __future__ import annotations

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


class View:
    """Feature maps of a rectangle of a frame, and the way from boxes in the frame's pixels to them.

    Args:
        corner, extent: of the rectangle in pixels, whole; what lies outside the frame repeats its border.
        size: (width, height) to which the rectangle is resized.
    """

    def __init__(
        self,
        model: Any,
        frame: np.ndarray,
        corner: tuple[int, int],
        extent: tuple[int, int],
        size: tuple[int, int],
    ):
        (x, y), (w, h) = corner, extent
        self.model = model
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
