"""Where SINT looks, and how it refines what it found: candidate boxes, samples of the first frame, box regression.

A box is (x, y, w, h) in pixels, x and y the top left corner; tensors of boxes are float64 [K, 4].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from amstel._check import fail, tensor
from amstel.media.boxes import iou_xywh as overlap

#: SINT's scales, the unchanged one first: of equal scores the first wins.
SCALES = (1.0, math.sqrt(0.5), math.sqrt(2.0))
#: How far from the last box SINT looks, as a part of the frame's width.
RADIUS = 30 / 512
#: Pixels between its circles, and directions of each.
STEP, ANGLES = 3.0, 10


def circles(radius: float, step: float, angles: int | None = 10) -> Tensor:
    """Offsets: the center, and then circles of radius step, 2 step, ... up to `radius`: float64 [M, 2].

    Args:
        radius, step: in pixels; a radius below one step gives only the center.
        angles: points per circle; None: enough to keep neighbors at most one step apart.

    Example:
        >>> len(amstel.tracking.candidates.circles(18.75, 3))
        61
    """
    for name, value in (("radius", radius), ("step", step)):
        if not (math.isfinite(value) and value >= 0) or (name == "step" and value == 0):
            fail(name, "a finite number >= 0, and the step > 0", value)
    offsets = [torch.zeros(1, 2, dtype=torch.float64)]
    # One part in a billion of room, so that a radius of whole steps keeps its last circle.
    for ring in range(1, int(radius / step * (1 + 1e-9)) + 1):
        count = angles or math.ceil(2 * math.pi * ring)
        turn = torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)
        offsets.append(ring * step * torch.stack([turn.cos(), turn.sin()], 1))
    return torch.cat(offsets)


def around(box: Tensor, offsets: Tensor, sizes: Tensor) -> Tensor:
    """Boxes of every size [S, 2], centered at every offset [M, 2] from the center of `box` [4].

    Returns:
        [S * M, 4], ordered by size.
    """
    centers = box[:2] + box[2:] / 2 + offsets
    corners = centers - sizes[:, None] / 2
    return torch.cat([corners, sizes[:, None].expand_as(corners)], 2).flatten(0, 1)


def candidates(
    box: Tensor,
    first: Tensor,
    frame_width: int,
    *,
    radius: float = RADIUS,
    step: float = STEP,
    angles: int | None = ANGLES,
    scales: Sequence[float] = SCALES,
) -> Tensor:
    """SINT's candidates for the next frame: float64 [K, 4].

    The centers are the last one, and `angles` points on each circle of radius 3, 6, ... up to 30/512 of the frame's width
    around it; at each center, there is the first box at every scale. K is 183 for a width of 320 and 363 for 640.

    Args:
        box: the last box [4].
        first: the box of the first frame [4], whose size the scales multiply.
        frame_width: in pixels.
        radius: of the largest circle, as a fraction of the frame's width.
        step: between circles, in pixels.
        angles: points per circle; None: enough to keep neighbors at most one step apart.

    Source: R. Tao, E. Gavves, A. W. M. Smeulders, Siamese Instance Search for Tracking, arXiv 1605.05863,
    section 3.3, with the constants of the authors' public code.

    Example:
        >>> box = torch.tensor([100.0, 80.0, 40.0, 30.0], dtype=torch.float64)
        >>> amstel.tracking.candidates.candidates(box, box, 640).shape
        torch.Size([363, 4])
    """
    offsets = circles(frame_width * radius, step, angles)
    return around(box, offsets, first[2:] * torch.tensor(scales, dtype=torch.float64)[:, None])


def regression_samples(box: Tensor, least: float = 0.6) -> Tensor:
    """Boxes around `box` [4], shifted and scaled on a regular grid, whose IoU with it is above `least`.

    The grid has 9 steps up to ±31% of the side in x and y, and 5 up to a factor of 1.37 in width and height.

    Returns:
        [M, 4], M = 369 for the default `least`, whatever the box.
    """
    move = torch.linspace(-0.31, 0.31, 9, dtype=torch.float64)
    stretch = torch.linspace(-1, 1, 5, dtype=torch.float64).mul(math.log(1.37)).exp()
    grid = torch.cartesian_prod(move, move, stretch, stretch)
    size = box[2:] * grid[:, 2:]
    center = box[:2] + box[2:] * (0.5 + grid[:, :2])
    boxes = torch.cat([center - size / 2, size], 1)
    return boxes[overlap(boxes, box) > least]


def targets(boxes: Tensor, box: Tensor) -> Tensor:
    """Regression targets from boxes [K, 4] to `box` [4]: dx / w, dy / h of the centers, log w, log h of the sides; [K, 4]."""
    move = (box[:2] + box[2:] / 2 - boxes[:, :2] - boxes[:, 2:] / 2) / boxes[:, 2:]
    return torch.cat([move, (box[2:] / boxes[:, 2:]).log()], 1)


@dataclass
class BoxRegression:
    """Four ridge regressors from the pooled features of a box to `targets`, fitted on the first frame.

    W = argmin |X W - Y|² + alpha |W|², without an intercept. If there are more features than samples, it is computed by
    the dual form X' (X X' + alpha I)^-1 Y, which is equivalent.

    Attributes:
        weight: [D, 4].
    """

    weight: Tensor

    @classmethod
    def fit(cls, features: Tensor, targets: Tensor, alpha: float = 1.0) -> BoxRegression:
        """
        Args:
            features: float [M, D], M >= 1.
            targets: [M, 4].
            alpha: > 0.

        Raises:
            ValueError: shapes that do not fit, no sample, or another `alpha`.

        Complexity: O(M D min(M, D) + min(M, D)³).
        """
        tensor("features", features, "a tensor [M, D]")
        if features.dim() != 2 or not len(features):
            fail("features", "[M, D] with at least one sample", features)
        if targets.shape != (len(features), 4):
            fail("targets", f"[{len(features)}, 4]", targets)
        if not (math.isfinite(alpha) and alpha > 0):
            fail("alpha", "a finite number > 0", alpha)
        x, y = features, targets.to(features)
        gram = x @ x.T if len(x) <= x.shape[1] else x.T @ x
        gram.diagonal().add_(alpha)
        factor = torch.linalg.cholesky(gram)
        if len(x) <= x.shape[1]:
            return cls(x.T @ torch.cholesky_solve(y, factor))
        return cls(torch.cholesky_solve(x.T @ y, factor))

    def __call__(self, boxes: Tensor, features: Tensor) -> Tensor:
        """Boxes [K, 4] moved and stretched as their features [K, D] say; a side changes by at most a factor of 2."""
        step = (features @ self.weight).to(boxes)
        center = boxes[:, :2] + boxes[:, 2:] * (0.5 + step[:, :2].clamp(-1, 1))
        size = boxes[:, 2:] * step[:, 2:].clamp(-math.log(2), math.log(2)).exp()
        return torch.cat([center - size / 2, size], 1)
