"""`amstel.ops.roi_align` and `ps_roi_pool` in plain PyTorch: samples and bins gathered from every box's own image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from amstel import _check
from amstel.reference.roi_pool import boxes_to_rois, coordinate_dtype


def roi_align(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """The values of `amstel.ops.roi_align` within rounding; all samples [K, Ph G, Pw G, C] are in memory at once.

    Example:
        >>> x, boxes = torch.arange(16.0).reshape(1, 1, 4, 4), torch.tensor([[0, 0.0, 0.0, 3.0, 3.0]])
        >>> amstel.reference.roi_align(x, boxes, 2)[0, 0]
        tensor([[ 3.7500,  5.2500],
                [ 9.7500, 11.2500]])
    """
    rois = boxes_to_rois(boxes, input)
    height, width = _check.pair("output_size", output_size)
    rows, cols, count = samples(rois, (height, width), spatial_scale, sampling_ratio, aligned, input)
    wide = torch.promote_types(input.dtype, torch.float32)
    x = input.movedim(1, -1)
    image = rois[:, 0].long()[:, None, None]
    total = wide_zero = torch.zeros((), dtype=wide, device=input.device)
    inside = rows.inside[:, :, None] & cols.inside[:, None, :]
    for y, wy in ((rows.low, rows.of_low), (rows.high, rows.of_high)):
        for column, wx in ((cols.low, cols.of_low), (cols.high, cols.of_high)):
            weight = (wy[:, :, None] * wx[:, None, :]).to(wide)
            value = x[image, y[:, :, None], column[:, None, :]].to(wide) * weight[..., None]
            # What is outside has no weight, be it infinite or NaN where the index points meanwhile.
            total = total + torch.where(inside[..., None], value, wide_zero)
    total = total.unflatten(2, (width, -1)).unflatten(1, (height, -1)).sum((2, 4))  # [K, Ph, Pw, C]
    return (total / count.to(wide)[:, None, None, None]).movedim(-1, 1).to(input.dtype).contiguous()


class Samples:
    """Along one axis [K, P G]: two cells, their weights, and whether the sample is in the map at all."""

    def __init__(self, at: Tensor, exists: Tensor, size: int):
        self.inside = exists & (at >= -1) & (at <= size)
        at = at.clamp(0, max(size - 1, 0))
        self.low = at.long()
        self.high = (self.low + 1).clamp(max=max(size - 1, 0))
        self.of_high = at - self.low
        self.of_low = 1 - self.of_high


def samples(
    rois: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
    input: Tensor,
) -> tuple[Samples, Samples, Tensor]:
    """Of the rows, of the columns, and the number [K] by which sums are divided."""
    dtype = arithmetic(input.dtype, rois.dtype)
    corners = rois[:, 1:].to(dtype) * torch.full((), spatial_scale, dtype=dtype, device=rois.device)
    corners = corners - (0.5 if aligned else 0.0)
    found, grids = [], []
    for first, last, bins, size in (
        (corners[:, 1], corners[:, 3], output_size[0], input.shape[2]),
        (corners[:, 0], corners[:, 2], output_size[1], input.shape[3]),
    ):
        length = last - first if aligned else (last - first).clamp(min=1)
        bin_size = length / bins
        if sampling_ratio > 0:
            most = sampling_ratio
            grid = torch.full_like(bin_size, most)
        else:
            grid = bin_size.ceil().clamp(min=0)
            most = max(1, int(grid.max())) if len(grid) else 1
        step = torch.arange(most, device=rois.device)
        offset = (step + 0.5).to(dtype) * bin_size[:, None] / grid.clamp(min=1)[:, None]  # [K, G]
        begin = first[:, None] + torch.arange(bins, device=rois.device).to(dtype) * bin_size[:, None]
        at = begin[:, :, None] + offset[:, None, :]
        exists = (step < grid[:, None])[:, None, :].expand_as(at)
        found.append(Samples(at.flatten(1), exists.flatten(1), size))
        grids.append(grid)
    return found[0], found[1], (grids[0] * grids[1]).clamp(min=1)


def arithmetic(input: torch.dtype, boxes: torch.dtype) -> torch.dtype:
    """Where coordinates are computed: as `roi_pool` has it, but never in float16."""
    return torch.promote_types(coordinate_dtype(input, boxes), torch.float32)


def ps_roi_pool(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
) -> Tensor:
    """The values of `amstel.ops.ps_roi_pool` within rounding: every bin is a masked sum over the maps of its channels.

    Example:
        >>> x = torch.arange(4.0).reshape(1, 4, 1, 1).expand(1, 4, 4, 4)  # map k holds k
        >>> amstel.reference.ps_roi_pool(x, torch.tensor([[0, 0.0, 0.0, 3.0, 3.0]]), 2)[0, 0]
        tensor([[0., 1.],
                [2., 3.]])
    """
    rois = boxes_to_rois(boxes, input)
    size = _check.pair("output_size", output_size)
    inside, area = bins(rois, size, spatial_scale, input)
    wide = torch.promote_types(input.dtype, torch.float32)
    x = input.unflatten(1, (-1, *size))[rois[:, 0].long()].to(wide)  # [K, C, Ph, Pw, H, W]
    total = torch.where(inside, x, torch.zeros((), dtype=wide, device=x.device)).sum((4, 5))
    return (total / area.clamp(min=1)).to(input.dtype)


def bins(
    rois: Tensor, output_size: tuple[int, int], spatial_scale: float, input: Tensor
) -> tuple[Tensor, Tensor]:
    """Which cells every bin has, [K, 1, Ph, Pw, H, W], and how many, [K, 1, Ph, Pw]."""
    dtype = arithmetic(input.dtype, rois.dtype)
    scaled = rois[:, 1:].to(dtype) * torch.full((), spatial_scale, dtype=dtype, device=rois.device)
    whole = scaled.trunc()
    corners = whole + torch.where((scaled - whole).abs() >= 0.5, scaled.sign(), 0)  # half away from zero
    corners = corners.double().clamp(-(2.0**52), 2.0**52).long()
    masks, sizes = [], []
    for first, last, count, size in (
        (corners[:, 1], corners[:, 3], output_size[0], input.shape[2]),
        (corners[:, 0], corners[:, 2], output_size[1], input.shape[3]),
    ):
        bin_size = (last - first).clamp(min=1).to(dtype) / count
        steps = torch.arange(count + 1, device=rois.device).to(dtype) * bin_size[:, None]
        low = steps[:, :-1].floor().double().clamp(max=2.0**53).long()
        high = steps[:, 1:].ceil().double().clamp(max=2.0**53).long()
        begin, end = ((e + first[:, None]).clamp(0, max(size - 1, 0)) for e in (low, high))
        position = torch.arange(size, device=rois.device)
        masks.append((position >= begin[..., None]) & (position < end[..., None]))  # [K, P, size]
        sizes.append((end - begin).clamp(min=0))
    inside = masks[0][:, None, :, None, :, None] & masks[1][:, None, None, :, None, :]
    return inside, (sizes[0][:, :, None] * sizes[1][:, None, :])[:, None]
