"""Convert boxes to and from xyxy: (x1, y1, x2, y2) in pixels, where x2 and y2 lie just past the last pixel.

All functions take [..., 4] in any floating dtype. NaN stands for a missing box, and gives NaN. 16-bit types are computed
in float32, because the area of 300 x 300 pixels is too large for float16.
"""

from __future__ import annotations

import torch
from torch import Tensor

from amstel._check import fail, tensor
from amstel.media import _arguments


def xywh_to_xyxy(boxes: Tensor) -> Tensor:
    """From (x, y, width, height), with x and y of the top left corner: OTB, GOT-10k, COCO.

    Example:
        >>> amstel.media.boxes.xywh_to_xyxy(torch.tensor([1.0, 2, 3, 4])).tolist()
        [1.0, 2.0, 4.0, 6.0]
    """
    _arguments.boxes("boxes", boxes)
    return torch.cat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], -1)


def xyxy_to_xywh(boxes: Tensor) -> Tensor:
    """To (x, y, width, height), the inverse of `xywh_to_xyxy`.

    Example:
        >>> amstel.media.boxes.xyxy_to_xywh(torch.tensor([1.0, 2, 4, 6])).tolist()
        [1.0, 2.0, 3.0, 4.0]
    """
    _arguments.boxes("boxes", boxes)
    return torch.cat([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], -1)


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """From (x, y, width, height) with x and y of the center: YOLO, DETR.

    Example:
        >>> amstel.media.boxes.cxcywh_to_xyxy(torch.tensor([4.0, 5, 2, 6])).tolist()
        [3.0, 2.0, 5.0, 8.0]
    """
    _arguments.boxes("boxes", boxes)
    half = boxes[..., 2:] / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], -1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """To (x, y, width, height) with x and y of the center, the inverse of `cxcywh_to_xyxy`.

    Example:
        >>> amstel.media.boxes.xyxy_to_cxcywh(torch.tensor([3.0, 2, 5, 8])).tolist()
        [4.0, 5.0, 2.0, 6.0]
    """
    _arguments.boxes("boxes", boxes)
    (wide,) = _arguments.wide(boxes)
    return torch.cat([(wide[..., :2] + wide[..., 2:]) / 2, wide[..., 2:] - wide[..., :2]], -1).to(boxes.dtype)


def pixels_to_xyxy(boxes: Tensor, origin: int = 0) -> Tensor:
    """From (x1, y1, x2, y2) where x2 and y2 are the last pixels inside: PASCAL VOC and ALOV, which count from 1.

    Args:
        origin: number of the first pixel, 0 or 1.

    Example:
        >>> amstel.media.boxes.pixels_to_xyxy(torch.tensor([1.0, 1, 10, 20]), origin=1).tolist()
        [0.0, 0.0, 10.0, 20.0]
    """
    _arguments.boxes("boxes", boxes)
    if _arguments.integer("origin", origin, 0) > 1:
        fail("origin", "0 or 1", origin)
    # Rounded once: 2048 + 1 - 1 is not 2048 in 16 bits.
    return boxes + (boxes.new_tensor([0, 0, 1, 1]) - origin)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes xyxy, pair by pair: [..., 4] and [..., 4] to [...], in [0, 1].

    The leading dimensions broadcast. A box without area overlaps nothing; a box with NaN gives NaN. Differentiable.

    Example:
        >>> amstel.media.boxes.iou(torch.tensor([0.0, 0, 2, 2]), torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2]]))
        tensor([1.0000, 0.3333])
    """
    _arguments.boxes("a", a)
    _arguments.boxes("b", b)
    dtype = torch.result_type(a, b)
    a, b = _arguments.wide(a, b)
    area_a, area_b = ((box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (a, b))
    return _ratio(a[..., :2], a[..., 2:], area_a, b[..., :2], b[..., 2:], area_b).to(dtype)


def iou_xywh(a: Tensor, b: Tensor) -> Tensor:
    """`iou` of boxes (x, y, width, height), with areas computed as w h, not as (x + w - x) h.

    So an overlap of exactly 0.5 stays exactly 0.5, as in the tracking toolkits, whose curves count what is above a
    threshold.

    Example:
        >>> amstel.tracking.overlap(torch.tensor([0.0, 0.0, 4.0, 4.0]), torch.tensor([0.0, 0.0, 4.0, 2.0]))
        tensor(0.5000)
    """
    for argument, value in (("a", a), ("b", b)):
        if tensor(argument, value, "a tensor [..., 4]").dim() < 1 or value.shape[-1] != 4:
            fail(argument, "[..., 4]", value)
    dtype = torch.result_type(a, b)
    a, b = _arguments.wide(a, b)
    found = _ratio(
        a[..., :2],
        a[..., :2] + a[..., 2:],
        a[..., 2:].prod(-1),
        b[..., :2],
        b[..., :2] + b[..., 2:],
        b[..., 2:].prod(-1),
    )
    return found.to(dtype) if dtype.is_floating_point else found


def _ratio(
    low_a: Tensor, high_a: Tensor, area_a: Tensor, low_b: Tensor, high_b: Tensor, area_b: Tensor
) -> Tensor:
    common = (torch.minimum(high_a, high_b) - torch.maximum(low_a, low_b)).clamp(min=0).prod(-1)
    # With rounded coordinates the intersection of equal boxes may exceed their area by a bit.
    return torch.where(common == 0, common, common / (area_a + area_b - common)).clamp(max=1)


def tube_iou(a: Tensor, b: Tensor) -> Tensor:
    """Overlap of two tubes, boxes [T, 4] with NaN in the frames outside the tube: a scalar.

    It is the sum of the IoU over all frames, divided by the number of frames in which either tube is present.

    Example:
        >>> a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2]])
        >>> amstel.media.boxes.tube_iou(a, torch.tensor([[0.0, 0, 2, 2], [float("nan")] * 4]))
        tensor(0.5000)
    """
    _arguments.boxes("a", a)
    _arguments.boxes("b", b)
    if a.shape != b.shape or a.dim() != 2:
        raise ValueError(f"`a` and `b` must both be [T, 4], got {list(a.shape)} and {list(b.shape)}")
    overlaps = iou(*_arguments.wide(a, b))
    either = ~(a.isnan().any(1) & b.isnan().any(1))
    return (overlaps.nan_to_num(0).sum() / either.sum().clamp(min=1)).to(torch.result_type(a, b))
