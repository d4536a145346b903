"""ROI align, position-sensitive ROI pooling, and ROI align over a pyramid, as modules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from amstel import _check, _checks
from amstel.nn.roi_pool import FixedPooling
from amstel.ops.roi_align import _sampling, ps_roi_pool, roi_align
from amstel.ops.roi_pool import _output_size, _rois

# A traced graph calls the functions instead of looking into them.
torch.fx.wrap("roi_align")
torch.fx.wrap("ps_roi_pool")


class RoIAlign(FixedPooling):
    """`amstel.ops.roi_align` with fixed arguments; replaces `torchvision.ops.RoIAlign`.

    Args:
        output_size: rows and columns of the pooled maps, or one number for both.
        spatial_scale: cells of the map per pixel of the boxes.
        sampling_ratio: samples per bin in each direction; -1: one per cell that the bin is high or wide, rounded up.
        aligned: whether to shift boxes by half a cell.

    Shapes: input [N, C, H, W], boxes [K, 5] or a list of N tensors [L, 4]; result [K, C, Ph, Pw].

    Example:
        >>> align = amstel.nn.RoIAlign(7, 1 / 16, 2)
        >>> align(torch.randn(1, 3, 14, 14), [torch.tensor([[0.0, 0.0, 100.0, 80.0]])]).shape
        torch.Size([1, 3, 7, 7])
    """

    def __init__(
        self,
        output_size: int | Sequence[int],
        spatial_scale: float = 1.0,
        sampling_ratio: int = -1,
        aligned: bool = False,
    ):
        super().__init__(output_size, spatial_scale)
        _sampling(sampling_ratio)
        self.sampling_ratio, self.aligned = sampling_ratio, _check.flag("aligned", aligned)

    def forward(self, input: Tensor, boxes: Tensor | Sequence[Tensor]) -> Tensor:
        """[K, C, Ph, Pw] for input [N, C, H, W] and boxes [K, 5] or a list of N tensors [L, 4]."""
        return roi_align(
            input, boxes, self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"


class PSRoIPool(FixedPooling):
    """`amstel.ops.ps_roi_pool` with fixed output size and scale; replaces `torchvision.ops.PSRoIPool`.

    Args:
        output_size: rows and columns of the pooled maps, or one number for both.
        spatial_scale: cells of the map per pixel of the boxes.

    Shapes: input [N, C Ph Pw, H, W], boxes [K, 5] or a list of N tensors [L, 4]; result [K, C, Ph, Pw].

    Example:
        >>> pool = amstel.nn.PSRoIPool(3, 1 / 16)
        >>> pool(torch.randn(1, 18, 14, 14), [torch.tensor([[0.0, 0.0, 100.0, 80.0]])]).shape
        torch.Size([1, 2, 3, 3])
    """

    def forward(self, input: Tensor, boxes: Tensor | Sequence[Tensor]) -> Tensor:
        """[K, C, Ph, Pw] for input [N, C Ph Pw, H, W] and boxes [K, 5] or a list of N tensors [L, 4]."""
        return ps_roi_pool(input, boxes, self.output_size, self.spatial_scale)


class MultiScaleRoIAlign(nn.Module):
    """`RoIAlign` of each box on the level of a feature pyramid that suits its size; replaces torchvision's module.

    A box of area w h is pooled from level floor(canonical_level + log2(sqrt(w h) / canonical_scale) + 1e-6), clamped to
    the existing levels. The scales are powers of two, inferred from the heights of maps and images.

    Args:
        featmap_names: keys of the maps to use, finest first.
        output_size: rows and columns of the pooled maps, or one number for both.
        sampling_ratio: as for `RoIAlign`.
        canonical_scale, canonical_level: a box with this side is pooled from this level (2: a quarter of the image).

    Shapes: a dict of maps [N, C, H_l, W_l], a list of N boxes [L, 4], a list of N image sizes (H, W); result
    [sum of L, C, Ph, Pw].

    Raises:
        ValueError: no map has one of these names, a map has no rows, or lists differ in length.

    Source: T.-Y. Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017, equation 1; torchvision's code.

    Example:
        >>> align = amstel.nn.MultiScaleRoIAlign(["0", "1"], 7, 2)
        >>> maps = {"0": torch.randn(1, 5, 64, 64), "1": torch.randn(1, 5, 32, 32)}
        >>> align(maps, [torch.tensor([[0.0, 0.0, 30.0, 30.0], [0, 0, 250, 250]])], [(256, 256)]).shape
        torch.Size([2, 5, 7, 7])
    """

    def __init__(
        self,
        featmap_names: Sequence[str],
        output_size: int | Sequence[int],
        sampling_ratio: int,
        *,
        canonical_scale: int = 224,
        canonical_level: int = 4,
    ):
        super().__init__()
        if isinstance(featmap_names, str) or not isinstance(featmap_names, Sequence) or not featmap_names:
            _check.fail("featmap_names", "a list of at least one name", featmap_names)
        _check.number("canonical_scale", canonical_scale, "a finite number > 0", above=0)
        _check.number("canonical_level", canonical_level)
        self.featmap_names, self.output_size = list(featmap_names), _output_size(output_size)
        _sampling(sampling_ratio)
        self.sampling_ratio = int(sampling_ratio)
        self.canonical_scale, self.canonical_level = canonical_scale, canonical_level

    def forward(
        self, x: Mapping[str, Tensor], boxes: Sequence[Tensor], image_shapes: Sequence[tuple[int, int]]
    ) -> Tensor:
        """[sum of L, C, Ph, Pw] for maps by name [N, C, H_l, W_l], N boxes [L, 4] and N image sizes (H, W)."""
        _check.mapping("x", x, f"a dict of maps by name, {self.featmap_names}")
        for name, given in (("boxes", boxes), ("image_shapes", image_shapes)):
            if not isinstance(given, (list, tuple)):
                _check.fail_type(name, "a list, an entry per image", given)
        for n, own in enumerate(boxes):
            if _check.tensor(f"boxes[{n}]", own, "a tensor [K, 4]").dim() != 2 or own.shape[1] != 4:
                _check.fail(f"boxes[{n}]", "a tensor [K, 4]", own)
        maps = [value for key, value in x.items() if key in self.featmap_names]
        if not maps:
            raise ValueError(f"`x` must hold a map of {self.featmap_names}, got {list(x)}")
        if len(image_shapes) != maps[0].shape[0] or len(boxes) != len(image_shapes):
            raise ValueError(
                f"`boxes` and `image_shapes` must be lists of {maps[0].shape[0]}, one per image, "
                f"got {len(boxes)} and {len(image_shapes)}"
            )
        scales = self._scales(maps, image_shapes)
        rois = _rois(boxes, maps[0])
        if len(maps) == 1:
            return roi_align(maps[0], rois, self.output_size, scales[0], self.sampling_ratio)
        # 16-bit types round sides over the boundary of a level, and float16 has no area above 255 x 255.
        x1, y1, x2, y2 = rois[:, 1:].to(torch.promote_types(rois.dtype, torch.float32)).unbind(1)
        side = ((x2 - x1) * (y2 - y1)).sqrt()
        level = (self.canonical_level + (side / self.canonical_scale).log2() + 1e-6).floor()
        # Boxes without area have a level of -inf or NaN, and come from the finest map.
        finest, coarsest = (-math.log2(scale) for scale in (scales[0], scales[-1]))
        level = level.nan_to_num(finest).clamp(finest, coarsest).long() - int(finest)
        shape = (len(rois), maps[0].shape[1], *self.output_size)
        result = maps[0].new_zeros(shape)
        # Where torch.vmap hides which boxes are of a level, each level takes all.
        every = _checks.hidden(level) and not torch.compiler.is_compiling()
        for number, (features, scale) in enumerate(zip(maps, scales, strict=True)):
            if every:
                found = roi_align(features, rois, self.output_size, scale, self.sampling_ratio)
                result = torch.where((level == number)[:, None, None, None], found.to(result.dtype), result)
                continue
            index = (level == number).nonzero()[:, 0]
            found = roi_align(features, rois[index], self.output_size, scale, self.sampling_ratio)
            result = result.index_put((index,), found.to(result.dtype))
        return result

    @staticmethod
    def _scales(maps: Sequence[Tensor], image_shapes: Sequence[tuple[int, int]]) -> list[float]:
        # By the heights alone, as torchvision has it: a map of few cells rounds its sides apart.
        most = max(height for height, _ in image_shapes)
        for features in maps:
            if features.shape[2] == 0:
                _check.fail("x", "maps [N, C, H, W] with at least one row", features)
        return [2.0 ** round(math.log2(features.shape[2] / most)) for features in maps]

    def extra_repr(self) -> str:
        return (
            f"featmap_names={self.featmap_names}, output_size={self.output_size}, "
            f"sampling_ratio={self.sampling_ratio}"
        )
