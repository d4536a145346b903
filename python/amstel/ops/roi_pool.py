"""ROI max pooling, and the match of pooled maps with a query: public functions, gradients, fake kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amstel import _check
from amstel.ops._raw import operators, own_gradient, transformed
from amstel.reference.roi_pool import boxes_to_rois

_ops = operators


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

    clipped to the map. A bin outside of it is 0, a box whose ends are swapped is one cell large. NaN is never
    the largest; a bin of nothing else is -3.4e38, the lowest float32 (-inf in short types), as in torchvision.

    Args:
        input: [N, C, H, W], float64, float32, bfloat16 or float16, any strides, at most 2^31 - 1 cells a map.
            Contiguous and channels_last input is read without a copy.
        boxes: [K, 5], batch index, x1, y1, x2, y2, in pixels; or a list of N tensors [L, 4], x1, y1, x2, y2. Any
            floating-point dtype. Coordinates are scaled and divided in the dtype that input and boxes share
            (bfloat16: in float64), in that of the boxes, at least float32, where they differ.
        output_size: Ph, Pw, or one number for both.
        spatial_scale: s, cells a pixel, above 0.

    Returns:
        [K, C, Ph, Pw] in the dtype of input, channels_last where input is.

    Differentiable in input, any number of times; constant in the boxes, whose derivative is 0 wherever there is one. The gradient goes to the first of equal maxima. Bit-identical
    from run to run and for any number of threads, and so is the gradient, which is added up in the order of the
    boxes, in float32 for short types.

    Raises:
        ValueError, TypeError or RuntimeError: an argument is not as described, a coordinate is not finite, a batch
        index is not whole or not one of the images.

    Complexity: the cells of all bins, times C; without gradient nothing but the result is allocated beyond a
    window of a few channels. With it, int32 positions as large as the result are kept. On CUDA the boxes are
    checked with one synchronization, and not while a graph is captured: there an invalid box is pooled to 0.

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
        if own_gradient(input):
            return _Pool.apply(input, rois, scale, size)
        return _ops.roi_pool(input, rois, scale, *size, False)[0]
    except RuntimeError as error:  # values of the boxes, at which the kernel looks
        raise _check.found_by_kernel(error, rois="boxes") from None


def roi_match(
    features: Sequence[Tensor],
    boxes: Tensor | Sequence[Tensor],
    query: Tensor,
    output_size: int | Sequence[int],
    spatial_scales: Sequence[float],
) -> Tensor:
    r"""How well what is in each box matches a query, over several feature maps, without writing what was pooled.

    .. code-block:: text

        p_lk = roi_pool(features_l, boxes, output_size, spatial_scale_l)[k], flattened as (C_l, Ph, Pw)
        score[k] = sum over l of <p_lk, query_l> / |p_lk|         (0 where |p_lk| = 0)

    which is the inner product of the query with the concatenation of the normalized maps. The query is taken as
    it is given.

    Args:
        features: maps [N, C_l, H_l, W_l] of one dtype, as for `roi_pool`, finite.
        boxes: as for `roi_pool`, the same for all maps.
        query: [sum of C_l Ph Pw] in the dtype of the maps.
        output_size: Ph, Pw, or one number for both.
        spatial_scales: cells a pixel of each map.

    Returns:
        scores [K] in the dtype of the maps; sums are kept in float64 for float64 and in float32 otherwise.

    Differentiable in features and query; the gradient pools again and keeps two numbers a box and map. Higher
    derivatives go through `roi_pool`. Deterministic as `roi_pool` is.

    Raises:
        ValueError, TypeError or RuntimeError: as `roi_pool`, or where the lengths do not fit.

    Complexity: that of `roi_pool` over all maps; memory for a window of a few channels. The gradient on CUDA takes
    64 MB more, or what 32 channels of all boxes need.

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
        same = x.dtype == features[0].dtype and x.device == features[0].device
        if not same or x.shape[0] != features[0].shape[0]:
            _check.fail(f"features[{l}]", "like the first in batch size, dtype and device", x)
    rois = _rois(boxes, features[0])
    size = _output_size(output_size)
    if not isinstance(spatial_scales, (Sequence, np.ndarray)) or isinstance(spatial_scales, str):
        raise _check.NumberTypeError(
            f"`spatial_scales` must be a list of {len(features)} numbers, got {_check.describe(spatial_scales)}"
        )
    if len(spatial_scales) != len(features):
        _check.fail("spatial_scales", f"a list of {len(features)} numbers", spatial_scales)
    scales = [_scale("spatial_scales", s) for s in spatial_scales]
    bins = size[0] * size[1]
    _check.vector("query", query, sum(x.shape[1] for x in features) * bins, features[0])
    parts = query.split([x.shape[1] * bins for x in features])
    tensors = (*features, query)
    differentiable = own_gradient(*tensors)
    total: Tensor | None = None
    for x, part, scale in zip(features, parts, scales, strict=True):
        try:
            if differentiable:
                score = _Match.apply(x, part, rois, scale, size)
            else:
                score = _score(_ops.roi_match(x, rois, part.contiguous(), scale, *size))
        except RuntimeError as error:
            raise _check.found_by_kernel(error, rois="boxes") from None
        total = score if total is None else total + score
    assert total is not None
    return total.to(query.dtype)


# ---- Checks ----


def _check_input(name: str, x: Any) -> None:
    expected = "a floating-point tensor [N, C, H, W]"
    _check.tensor(name, x, expected)
    if x.dim() != 4 or x.dtype not in _check.FLOATS or x.layout != torch.strided:
        _check.fail(name, expected, x)


def _rois(boxes: Any, input: Tensor) -> Tensor:
    if isinstance(boxes, Tensor):
        if boxes.dim() != 2 or boxes.shape[1] != 5 or boxes.dtype not in _check.FLOATS:
            _check.fail(
                "boxes", "floating-point [K, 5] (batch index, x1, y1, x2, y2) or a list of [L, 4]", boxes
            )
        if boxes.device != input.device:
            _check.fail("boxes", f"on {input.device}", boxes)
        return boxes.detach()
    if not isinstance(boxes, Sequence) or isinstance(boxes, str):
        raise TypeError(f"`boxes` must be a tensor [K, 5] or a list of [L, 4], got {_check.describe(boxes)}")
    if len(boxes) != input.shape[0]:
        raise ValueError(
            f"`boxes` must be a list of {input.shape[0]} tensors, one an image, got {len(boxes)}"
        )
    for n, b in enumerate(boxes):
        expected = f"a floating-point tensor [L, 4] on {input.device}, of one dtype with the others"
        _check.tensor(f"boxes[{n}]", b, expected)
        fits = b.dim() == 2 and b.shape[1] == 4 and b.dtype in _check.FLOATS
        if not fits or b.device != input.device or b.dtype != boxes[0].dtype:
            _check.fail(f"boxes[{n}]", expected, b)
    if boxes and boxes[0].dtype == torch.float16 and len(boxes) > 2048:
        raise ValueError(f"`boxes` must be float32 for more than 2048 images, got float16 for {len(boxes)}")
    return boxes_to_rois(boxes, input).detach()


def _output_size(size: Any) -> tuple[int, int]:
    pair = tuple(size) if isinstance(size, Sequence) and not isinstance(size, str) else (size, size)
    if len(pair) != 2:
        _check.fail("output_size", "one or two integers >= 1", size)
    rows, columns = (_check.integer("output_size", n, 1, "one or two integers >= 1") for n in pair)
    return rows, columns


def _scale(name: str, scale: Any) -> float:
    return float(_check.number(name, scale, "a finite number above 0", above=0))


# ---- Gradients ----


def _like(t: Tensor, layout: Tensor) -> Tensor:
    """`t` in the memory layout of results for `layout`."""
    return t.contiguous(
        memory_format=torch.channels_last if _channels_last(layout) else torch.contiguous_format
    )


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, rois: Tensor, scale: float, size: tuple[int, int]) -> Tensor:
        output, argmax = _ops.roi_pool(input, rois, scale, *size, True)
        ctx.save_for_backward(argmax, rois)
        n, _, h, w = input.shape
        ctx.map = scale, n, h, w, _channels_last(input)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        argmax, rois = ctx.saved_tensors
        if not torch.is_grad_enabled() and not transformed():
            scale, n, h, w, last = ctx.map
            return _ops.roi_pool_grad(grad, argmax, rois, scale, n, h, w, last), None, None, None
        return _PoolGrad.apply(grad, argmax, rois, ctx.map), None, None, None


class _PoolGrad(torch.autograd.Function):
    """Adds grad where argmax points. It and `_Gather` are each other's derivatives."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad: Tensor, argmax: Tensor, rois: Tensor, map: tuple) -> Tensor:
        scale, n, h, w, last = map
        return _ops.roi_pool_grad(grad, argmax, rois, scale, n, h, w, last)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:3])
        ctx.save_for_forward(*inputs[1:3])
        ctx.map = inputs[3]

    @staticmethod
    def jvp(ctx: Any, grad_t: Tensor, *_: Any) -> Tensor:
        return _PoolGrad.apply(grad_t, *ctx.saved_tensors, ctx.map)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        argmax, rois = ctx.saved_tensors
        return _Gather.apply(grad, argmax, rois, ctx.map), None, None, None


class _Gather(torch.autograd.Function):
    """Takes the input where argmax points."""

    generate_vmap_rule = True

    @staticmethod
    def forward(input: Tensor, argmax: Tensor, rois: Tensor, map: tuple) -> Tensor:
        return _ops.roi_pool_gather(input, argmax, rois)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:3])
        ctx.save_for_forward(*inputs[1:3])
        ctx.map = inputs[3]

    @staticmethod
    def jvp(ctx: Any, input_t: Tensor, *_: Any) -> Tensor:
        return _Gather.apply(input_t, *ctx.saved_tensors, ctx.map)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        argmax, rois = ctx.saved_tensors
        return _PoolGrad.apply(grad, argmax, rois, ctx.map), None, None, None


def _score(sums: Tensor) -> Tensor:
    """<p, q> / |p| from <p, p>, <p, q> [K, 2]."""
    square, dot = sums.unbind(1)
    return torch.where(square > 0, dot / torch.where(square > 0, square, 1).sqrt(), 0)


class _Match(torch.autograd.Function):
    """The scores of one map."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, query: Tensor, rois: Tensor, scale: float, size: tuple[int, int]
    ) -> Tensor:
        query = query.contiguous()
        sums = _ops.roi_match(input, rois, query, scale, *size)
        ctx.save_for_backward(input, query, rois, sums)
        ctx.map = scale, size
        return _score(sums)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        input, query, rois, sums = ctx.saved_tensors
        scale, size = ctx.map
        need_input, need_query = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled() or transformed():
            return (*_differentiable(ctx, input, query, rois, grad), None, None, None)
        # The gradient of p is (q - <p, q> p / |p|²) grad / |p|, that of q is p grad / |p|.
        square, dot = sums.unbind(1)
        inverse = torch.where(square > 0, torch.where(square > 0, square, 1).rsqrt(), 0)
        of_query = grad * inverse
        coefficients = torch.stack([of_query, -of_query * dot * inverse.square()], 1)
        grad_input, grad_query = _ops.roi_match_grad(
            input, rois, query, coefficients, scale, *size, need_input, need_query
        )
        return grad_input if need_input else None, grad_query if need_query else None, None, None, None


def _differentiable(
    ctx: Any, input: Tensor, query: Tensor, rois: Tensor, grad: Tensor
) -> list[Tensor | None]:
    scale, size = ctx.map
    with torch.enable_grad():
        pooled = roi_pool(input, rois, size, scale).flatten(1).to(grad.dtype)
        score = _score(torch.stack([pooled.square().sum(1), pooled @ query.to(grad.dtype)], 1))
        wanted = [t for t, need in zip((input, query), ctx.needs_input_grad, strict=False) if need]
        found = iter(torch.autograd.grad(score, wanted, grad, create_graph=True))
    return [next(found) if need else None for need in ctx.needs_input_grad[:2]]


# ---- Fake kernels ----


def _channels_last(x: Tensor) -> bool:
    """As csrc/common/roi_pool_check.h: results are laid out as the input."""
    return x.shape[1] > 1 and x.stride(1) == 1 and not x.is_contiguous()


def _empty(like: Tensor, sizes: Sequence[Any], last: bool, dtype: torch.dtype | None = None) -> Tensor:
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(sizes, dtype=dtype or like.dtype, device=like.device, memory_format=layout)


@torch.library.register_fake("amstel::roi_pool")
def _(input: Tensor, rois: Tensor, scale: float, ph: int, pw: int, need_argmax: bool) -> Any:
    size = (rois.shape[0], input.shape[1], ph, pw)
    last = _channels_last(input)
    argmax = _empty(input, size, last, torch.int32) if need_argmax else input.new_empty(0, dtype=torch.int32)
    return _empty(input, size, last), argmax


@torch.library.register_fake("amstel::roi_pool_grad")
def _(
    grad: Tensor,
    argmax: Tensor,
    rois: Tensor,
    scale: float,
    images: int,
    height: int,
    width: int,
    channels_last: bool,
) -> Tensor:
    return _empty(grad, (images, grad.shape[1], height, width), channels_last)


@torch.library.register_fake("amstel::roi_pool_gather")
def _(input: Tensor, argmax: Tensor, rois: Tensor) -> Tensor:
    return _empty(input, argmax.shape, _channels_last(input))


def _sum_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


@torch.library.register_fake("amstel::roi_match")
def _(input: Tensor, rois: Tensor, query: Tensor, scale: float, ph: int, pw: int) -> Tensor:
    return input.new_empty(rois.shape[0], 2, dtype=_sum_dtype(input.dtype))


@torch.library.register_fake("amstel::roi_match_grad")
def _(
    input: Tensor,
    rois: Tensor,
    query: Tensor,
    coefficients: Tensor,
    scale: float,
    ph: int,
    pw: int,
    need_input: bool,
    need_query: bool,
) -> Any:
    grad_input = _empty(input, input.shape, _channels_last(input)) if need_input else input.new_empty(0)
    return grad_input, query.new_empty(query.shape if need_query else (0,))
