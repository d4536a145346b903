"""`amstel.ops.roi_pool` and `roi_match` in plain PyTorch: maxima over columns, then over rows, of every box's own
copy of its image."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from amstel import _check


def roi_pool(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
) -> Tensor:
    """The same values as `amstel.ops.roi_pool`, with a tensor [K, C, H, W] in between; differentiable any number of times.

    Example:
        >>> x, boxes = torch.arange(16.0).reshape(1, 1, 4, 4), torch.tensor([[0, 0.0, 0.0, 3.0, 3.0]])
        >>> amstel.reference.roi_pool(x, boxes, 2)[0, 0]
        tensor([[ 5.,  7.],
                [13., 15.]])
    """
    rois = boxes_to_rois(boxes, input)
    height, width = _check.pair("output_size", output_size)
    rows, cols = bin_edges(rois, (height, width), spatial_scale, input)
    # NaN never wins against the lowest float32, which torchvision starts from (-inf in the short types).
    lowest = -torch.finfo(torch.float32).max if input.dtype.itemsize >= 4 else -math.inf
    x = torch.where(input > lowest, input, lowest)[rois[:, 0].long()]
    x = _maxima(x, *cols, lowest)  # [K, C, H, Pw]
    x = _maxima(x.transpose(2, 3), *rows, lowest).transpose(2, 3)  # [K, C, Ph, Pw]
    empty = (rows[1] <= rows[0])[:, :, None] | (cols[1] <= cols[0])[:, None, :]
    return torch.where(empty[:, None], 0, x)


def roi_match(
    features: Sequence[Tensor],
    boxes: Tensor | Sequence[Tensor],
    query: Tensor,
    output_size: int | Sequence[int],
    spatial_scales: Sequence[float],
) -> Tensor:
    """The same values as `amstel.ops.roi_match`, through the pooled tensors.

    Example:
        >>> features = [torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1)]
        >>> boxes, query = torch.zeros(1, 5), torch.tensor([0.0, 1.0])
        >>> amstel.reference.roi_match(features, boxes, query, 1, [1.0])  # <[3, 4], query> / |[3, 4]|
        tensor([0.8000])
    """
    described = []
    for x, scale in zip(features, spatial_scales, strict=True):
        pooled = roi_pool(x, boxes, output_size, scale).flatten(1)
        square = pooled.square().sum(1, keepdim=True)
        described.append(torch.where(square > 0, pooled / torch.where(square > 0, square, 1).sqrt(), 0))
    return torch.cat(described, 1) @ query


def boxes_to_rois(boxes: Tensor | Sequence[Tensor], input: Tensor) -> Tensor:
    """Boxes as [K, 5]; bfloat16 holds no batch index above 256, so that lists of it become float32."""
    if isinstance(boxes, Tensor):
        return boxes
    if not boxes:
        return input.new_zeros(0, 5)
    listed = [b.float() if b.dtype == torch.bfloat16 else b for b in boxes]
    return torch.cat([torch.cat([torch.full_like(b[:, :1], n), b], 1) for n, b in enumerate(listed)])


def coordinate_dtype(input: torch.dtype, boxes: torch.dtype) -> torch.dtype:
    """Where coordinates are scaled and divided: in the dtype of input and boxes, as torchvision does (but bfloat16,
    which it does not know, in float64); in that of the boxes, at least float32, where the two differ."""
    if input == boxes:
        return torch.float64 if boxes == torch.bfloat16 else boxes
    return torch.promote_types(boxes, torch.float32)


def bin_edges(
    rois: Tensor, output_size: tuple[int, int], spatial_scale: float, input: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """First and past-the-last row [K, Ph], and the same of the columns [K, Pw], of every bin."""
    dtype = coordinate_dtype(input.dtype, rois.dtype)
    scaled = rois[:, 1:].to(dtype) * torch.full((), spatial_scale, dtype=dtype, device=rois.device)
    whole = scaled.trunc()
    corners = whole + torch.where((scaled - whole).abs() >= 0.5, scaled.sign(), 0)  # half away from zero
    corners = corners.double().clamp(-(2.0**52), 2.0**52).long()
    edges = []
    for first, last, bins, size in (
        (corners[:, 1], corners[:, 3], output_size[0], input.shape[2]),
        (corners[:, 0], corners[:, 2], output_size[1], input.shape[3]),
    ):
        bin_size = (last - first + 1).clamp(min=1).to(dtype) / torch.full(
            (), bins, dtype=dtype, device=rois.device
        )
        steps = torch.arange(bins + 1, device=rois.device).to(dtype) * bin_size[:, None]
        low = steps[:, :-1].floor().double().clamp(max=2.0**53).long()
        high = steps[:, 1:].ceil().double().clamp(max=2.0**53).long()
        begin, end = ((e + first[:, None]).clamp(0, size) for e in (low, high))
        edges.append((begin, end))
    return edges[0], edges[1]


def _maxima(x: Tensor, begin: Tensor, end: Tensor, lowest: float) -> Tensor:
    """[K, C, A, B] and bins of B [K, P] -> [K, C, A, P]; the gradient goes to the first maximum."""
    position = torch.arange(x.shape[3], device=x.device)
    bins = []
    for p in range(begin.shape[1]):
        inside = (position >= begin[:, p, None]) & (position < end[:, p, None])
        bins.append(torch.where(inside[:, None, None], x, lowest).max(3).values)
    return torch.stack(bins, 3)
