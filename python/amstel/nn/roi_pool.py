"""ROI max pooling as a module."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from amstel.ops.roi_pool import _output_size, _scale, roi_pool

# A traced graph calls the function instead of looking into it.
torch.fx.wrap("roi_pool")


class FixedPooling(nn.Module):
    """What modules of ROI pooling have in common: output size and scale, checked when they are made."""

    def __init__(self, output_size: int | Sequence[int], spatial_scale: float = 1.0):
        super().__init__()
        _output_size(output_size)
        self.output_size = output_size
        self.spatial_scale = _scale("spatial_scale", spatial_scale)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"


class RoIPool(FixedPooling):
    """`amstel.ops.roi_pool` with fixed output size and scale; replaces `torchvision.ops.RoIPool`.

    Works under `torch.fx.symbolic_trace`, `torch.compile` and `torch.export`.

    Args:
        output_size: rows and columns of the pooled maps, or one number for both.
        spatial_scale: cells of the map per pixel of the boxes.

    Shapes: input [N, C, H, W], boxes [K, 5] or a list of N tensors [L, 4]; result [K, C, Ph, Pw].

    Example:
        >>> pool = amstel.nn.RoIPool(7, 1 / 16)
        >>> pool(torch.randn(1, 3, 14, 14), [torch.tensor([[0.0, 0.0, 100.0, 80.0]])]).shape
        torch.Size([1, 3, 7, 7])
    """

    def forward(self, input: Tensor, boxes: Tensor | Sequence[Tensor]) -> Tensor:
        """[K, C, Ph, Pw] for input [N, C, H, W] and boxes [K, 5] or a list of N tensors [L, 4]."""
        return roi_pool(input, boxes, self.output_size, self.spatial_scale)
