"""ROI max pooling, and the match of pooled maps with a query: the public functions and their checks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amstel import _check, _checks
from amstel._torch import autocast_dtype
from amstel._words import counted
from amstel.ops import _roi_pool
from amstel.ops._raw import own_gradient, transformed
from amstel.reference.roi_pool import boxes_to_rois


def roi_pool(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
) -> Tensor:
    r"""The largest value of each channel in every bin of every box; ``torchvision.ops.roi_pool``, bit for bit.

    A box is scaled and rounded (halves away from zero) to whole cells, both ends included; its height is cut
    into Ph bins, its width into Pw:

    .. code-block:: text

        y1', y2' = round(y1 s), round(y2 s)      b = max(y2' - y1' + 1, 1) / Ph      (x alike)
        output[k, c, i, j] = max input[n, c, y, x]   over  y1' + floor(i b) <= y < y1' + ceil((i + 1) b)

    clipped to the map. A bin outside the map is 0, and a box with swapped ends is one cell large. NaN is never the
    largest; a bin with nothing but NaN gives -3.4e38, the lowest float32 (-inf in 16-bit types), as in torchvision.

    Args:
        input: [N, C, H, W], float64, float32, bfloat16 or float16, any strides, at most 2^31 - 1 cells per map.
            Contiguous and channels_last input is read without a copy.
        boxes: [K, 5], batch index, x1, y1, x2, y2, in pixels; or a list of N tensors [L, 4], x1, y1, x2, y2. Any
            floating-point dtype. Coordinates are scaled and divided in the dtype that input and boxes share
            (bfloat16: in float64), in that of the boxes, at least float32, where they differ.
        output_size: Ph, Pw, or one number for both.
        spatial_scale: s, cells per pixel, above 0.

    Returns:
        [K, C, Ph, Pw] in the dtype of input, channels_last where input is.

    Differentiable in input, any number of times; piecewise constant in the boxes, so their derivative is 0. The gradient
    goes to the first of equal maxima. It is added up in the order of the boxes, in float32 for 16-bit types. Values and
    gradient are bit-identical from run to run and for any number of threads.

    Raises:
        ValueError, TypeError or RuntimeError: an argument is not as described, a coordinate is not finite, a batch
        index is not whole or not one of the images.

    Complexity: the cells of all bins, times C. Besides the result, memory for a window of a few channels and, if a
    gradient is needed, for an int32 position per element of the result. On CUDA, an invalid box is found without waiting
    for the device, and is pooled to 0; see `amstel.set_checks`.

    Source: R. Girshick, Fast R-CNN, ICCV 2015, section 2.1.

    Example:
        >>> features = torch.randn(1, 8, 32, 32)
        >>> boxes = torch.tensor([[0, 8.0, 8.0, 71.0, 103.0]])
        >>> amstel.ops.roi_pool(features, boxes, 7, spatial_scale=0.25).shape
        torch.Size([1, 8, 7, 7])
    """
    _check_input("input", input)
    rois = _rois(boxes, input)
    size = _output_size(output_size)
    scale = _scale("spatial_scale", spatial_scale)
    try:
        look, notes = _look(rois)
        pooled = _roi_pool.pool(input, rois, scale, size, look)
    except RuntimeError as error:  # values of the boxes, at which the kernel looks
        raise _check.found_by_kernel(error, rois="boxes") from None
    if notes is not None:
        notes.post()
    return pooled


def roi_match(
    features: Sequence[Tensor],
    boxes: Tensor | Sequence[Tensor],
    query: Tensor,
    output_size: int | Sequence[int],
    spatial_scales: Sequence[float],
) -> Tensor:
    r"""How well the content of each box matches a query, over several feature maps, without storing the pooled
    features.

    .. code-block:: text

        p_lk = roi_pool(features_l, boxes, output_size, spatial_scale_l)[k], flattened as (C_l, Ph, Pw)
        score[k] = sum over l of <p_lk, query_l> / |p_lk|         (0 where |p_lk| = 0)

    This is the inner product of the query with the concatenation of the normalized maps. The query is not
    normalized.

    Args:
        features: maps [N, C_l, H_l, W_l] of one dtype, as for `roi_pool`, finite.
        boxes: as for `roi_pool`, the same for all maps.
        query: [sum of C_l Ph Pw] in the dtype of the maps.
        output_size: Ph, Pw, or one number for both.
        spatial_scales: cells per pixel of each map.

    Returns:
        scores [K] in the dtype of the maps; sums are kept in float64 for float64 and in float32 otherwise. Under
        autocast, maps and query may differ in dtype, and the widest dtype is used for all.

    Differentiable in features and query; the gradient pools again and keeps two numbers per box and map. Higher
    derivatives go through `roi_pool`. As deterministic as `roi_pool`.

    Raises:
        ValueError, TypeError or RuntimeError: as `roi_pool`, or the lists differ in length.

    Complexity: that of `roi_pool` over all maps; memory for a window of a few channels. The gradient on CUDA takes
    another 64 MB, or what 32 channels of all boxes need.

    Source: R. Tao, E. Gavves and A. Smeulders, Siamese Instance Search for Tracking, CVPR 2016, sections 3.1-3.2.

    Example:
        >>> features = [torch.randn(1, 8, 32, 32), torch.randn(1, 16, 16, 16)]
        >>> boxes = torch.tensor([[0, 8.0, 8.0, 71.0, 103.0], [0, 0.0, 0.0, 40.0, 40.0]])
        >>> amstel.ops.roi_match(features, boxes, torch.randn(24 * 49), 7, [1 / 4, 1 / 8]).shape
        torch.Size([2])
    """
    if not isinstance(features, Sequence) or not features:
        raise TypeError(f"`features` must be a list of at least one map, got {_check.describe(features)}")
    for l, x in enumerate(features):
        _check_input(f"features[{l}]", x)
    if autocast_dtype(features[0]) is not None and isinstance(query, Tensor):
        features, query = _widest(features, query)
    for l, x in enumerate(features):
        same = x.dtype == features[0].dtype and x.device == features[0].device
        if not same or x.shape[0] != features[0].shape[0]:
            _check.fail(f"features[{l}]", "like the first in batch size, dtype and device", x)
    rois = _rois(boxes, features[0])
    size = _output_size(output_size)
    if not isinstance(spatial_scales, (Sequence, np.ndarray)) or isinstance(spatial_scales, str):
        raise _check.NumberTypeError(
            f"`spatial_scales` must be a list of {counted(len(features), 'number')}, got {_check.describe(spatial_scales)}"
        )
    if len(spatial_scales) != len(features):
        _check.fail("spatial_scales", f"a list of {counted(len(features), 'number')}", spatial_scales)
    scales = [_scale("spatial_scales", s) for s in spatial_scales]
    bins = size[0] * size[1]
    _check.vector("query", query, sum(x.shape[1] for x in features) * bins, features[0])
    parts = query.split([x.shape[1] * bins for x in features])
    differentiable = own_gradient(*features, query)
    look, notes = _look(rois)
    total: Tensor | None = None
    for x, part, scale in zip(features, parts, scales, strict=True):
        try:
            score = _roi_pool.match(x, part, rois, scale, size, look, differentiable)
        except RuntimeError as error:
            raise _check.found_by_kernel(error, rois="boxes") from None
        total = score if total is None else total + score
    assert total is not None
    if notes is not None:
        notes.post()
    return total.to(query.dtype)


def _widest(features: Sequence[Tensor], query: Tensor) -> tuple[list[Tensor], Tensor]:
    """Maps and query in the widest of their dtypes, as autocast has it for inner products of normalized vectors."""
    dtype = query.dtype
    for x in features:
        dtype = torch.promote_types(dtype, x.dtype)
    return [x.to(dtype) for x in features], query.to(dtype)


# ---- Checks ----


def _look(rois: Tensor) -> tuple[_roi_pool.Look, _checks.Notes | None]:
    """How the operators look at the boxes, and where they leave what they find."""
    if not rois.is_cuda or _checks.hidden(rois):  # hidden from here, but not from the kernel
        return (() if _checks.enabled() else (False, None)), None
    how = _checks.how(rois)
    if how == "sync":
        return (), None
    if how == "off":
        return (False, None), None
    notes = _checks.notes_of(rois)
    return (True, notes.slots["boxes"]), notes


def _check_input(name: str, x: Any) -> None:
    expected = "a floating-point tensor [N, C, H, W]"
    _check.tensor(name, x, expected)
    if x.dim() != 4 or x.dtype not in _check.FLOATS or x.layout != torch.strided:
        _check.fail(name, expected, x)


def _rois(boxes: Any, input: Tensor) -> Tensor:
    if isinstance(boxes, Tensor):
        dense = boxes.layout == torch.strided
        if not dense or boxes.dim() != 2 or boxes.shape[1] != 5 or boxes.dtype not in _check.FLOATS:
            _check.fail(
                "boxes", "floating-point [K, 5] (batch index, x1, y1, x2, y2) or a list of [L, 4]", boxes
            )
        if boxes.device != input.device:
            _check.fail("boxes", f"on {input.device}", boxes)
        if not input.shape[0] and boxes.shape[0]:
            _check.fail("boxes", "[0, 5] for an input without images", boxes)
        return boxes.detach() if boxes.requires_grad or transformed() else boxes
    if not isinstance(boxes, Sequence) or isinstance(boxes, str):
        raise TypeError(f"`boxes` must be a tensor [K, 5] or a list of [L, 4], got {_check.describe(boxes)}")
    if len(boxes) != input.shape[0]:
        raise ValueError(
            f"`boxes` must be a list of {counted(input.shape[0], 'tensor')}, one per image, got {len(boxes)}"
        )
    for n, b in enumerate(boxes):
        expected = f"a floating-point tensor [L, 4] on {input.device}, of one dtype with the others"
        _check.dense(f"boxes[{n}]", b, expected)
        fits = b.dim() == 2 and b.shape[1] == 4 and b.dtype in _check.FLOATS
        if not fits or b.device != input.device or b.dtype != boxes[0].dtype:
            _check.fail(f"boxes[{n}]", expected, b)
    if boxes and boxes[0].dtype == torch.float16 and len(boxes) > 2048:
        raise ValueError(f"`boxes` must be float32 for more than 2048 images, got float16 for {len(boxes)}")
    return boxes_to_rois(boxes, input).detach()


def _output_size(size: Any) -> tuple[int, int]:
    if type(size) is int and 1 <= size < 2**31:
        return size, size
    pair = tuple(size) if isinstance(size, Sequence) and not isinstance(size, (str, bytes)) else (size, size)
    if len(pair) != 2:
        _check.fail("output_size", "one or two integers >= 1", size)
    rows, columns = (_check.integer("output_size", n, 1, "one or two integers >= 1") for n in pair)
    return rows, columns


def _scale(name: str, scale: Any) -> float:
    if type(scale) is float and 0 < scale < math.inf:
        return scale
    return float(_check.number(name, scale, "a finite number above 0", above=0))
