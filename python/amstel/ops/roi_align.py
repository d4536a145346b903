"""ROI align and position-sensitive ROI pooling: public functions, gradients, fake kernels."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from amstel import _check, _checks
from amstel.ops._raw import forward_mode, operators, own_gradient, transformed
from amstel.ops._roi_pool import _channels_last, _empty, bad_boxes
from amstel.ops.roi_pool import _check_input, _output_size, _rois, _scale

_ops = operators


def roi_align(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    r"""The mean of bilinear samples in every bin of every box; ``torchvision.ops.roi_align``, bit for bit on the CPU.

    A box is scaled but not rounded. Its height is cut into Ph bins and its width into Pw, and each bin has Gy rows
    and Gx columns of evenly spaced samples:

    .. code-block:: text

        y1', y2' = y1 s - o, y2 s - o      b = max(y2' - y1', 1) / Ph       (x alike; o = 1/2 and no max if aligned)
        y = y1' + i b + (m + 1/2) b / Gy,   m = 0 .. Gy - 1
        output[k, c, i, j] = 1 / max(Gy Gx, 1) sum over m, n of input[n, c] interpolated at (y, x)

    G is `sampling_ratio`, or ceil(b) where that is not positive. A sample more than one cell outside the map is 0;
    one less than a cell outside takes the value at the border. A NaN affects only the samples next to it.

    Args:
        input: [N, C, H, W], float64, float32, bfloat16 or float16, any strides. Contiguous and channels_last input is read
            without a copy.
        boxes: [K, 5], batch index, x1, y1, x2, y2, in pixels; or a list of N tensors [L, 4]. Any floating-point dtype.
            Coordinates are computed in float64 where input or boxes are, else in float32 (torchvision's float16 is rounded
            at every step, and less exact); bfloat16 boxes and input in float64.
        output_size: Ph, Pw, or one number for both.
        spatial_scale: s, cells per pixel, above 0.
        sampling_ratio: samples per bin in each direction; -1 or 0: one per cell that the bin is high or wide, rounded up.
        aligned: shift boxes by half a cell, so that pixel centers lie at integers (detectron2's `ROIAlignV2`).

    Returns:
        [K, C, Ph, Pw] in the dtype of input, channels_last where input is.

    Differentiable in input, any number of times; constant in the boxes, as in torchvision. Values and gradient, which is
    added up in the order of the boxes, are bit-identical from run to run and for any number of threads. On CUDA, values
    equal torchvision's up to rounding, and are bit-identical from run to run.

    Raises:
        ValueError, TypeError or RuntimeError: an argument is not as described, a coordinate is not finite, a batch
        index is not whole or not one of the images.

    Complexity: four cells per sample, times C; besides the result, memory for a window of a few channels.

    Source: K. He, G. Gkioxari, P. Dollár, R. Girshick, Mask R-CNN, ICCV 2017, section 3; torchvision's code.

    Example:
        >>> features = torch.randn(1, 8, 32, 32)
        >>> boxes = torch.tensor([[0, 8.0, 8.0, 71.0, 103.0]])
        >>> amstel.ops.roi_align(features, boxes, 7, spatial_scale=0.25, aligned=True).shape
        torch.Size([1, 8, 7, 7])
    """
    _check_input("input", input)
    rois = _rois(boxes, input)
    size = _output_size(output_size)
    scale = _scale("spatial_scale", spatial_scale)
    sampling = _sampling(sampling_ratio)
    how = (scale, *size, sampling, aligned if type(aligned) is bool else _check.flag("aligned", aligned))
    return _call(_align, _ops.roi_align, input, rois, *how)


def ps_roi_pool(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
) -> Tensor:
    r"""The mean of every bin of every box, where each bin reads its own channels; ``torchvision.ops.ps_roi_pool``, bit
    for bit on the CPU.

    .. code-block:: text

        y1', y2' = round(y1 s), round(y2 s)      b = max(y2' - y1', 1) / Ph      (x alike)
        output[k, c, i, j] = mean input[n, (c Ph + i) Pw + j, y, x]
                             over  y1' + floor(i b) <= y < y1' + ceil((i + 1) b)

    with all ends clipped to 0 .. H - 1, so the last row and column of the map are left out, as in torchvision. A bin
    without cells is 0.

    Args:
        input: [N, C Ph Pw, H, W], float64, float32, bfloat16 or float16, any strides.
        boxes: as for `roi_align`.
        output_size: Ph, Pw, or one number for both.
        spatial_scale: s, cells per pixel, above 0.

    Returns:
        [K, C, Ph, Pw] in the dtype of input, channels_last where input is.

    Differentiable in input, any number of times; constant in the boxes. The gradient is exactly that of this function,
    while torchvision's includes the last row and column. As deterministic as `roi_align`; the same on CUDA.

    Raises:
        ValueError, TypeError or RuntimeError: as `roi_align`, or the number of channels is not a multiple of Ph Pw.

    Complexity: the cells of all bins, times C.

    Source: J. Dai, Y. Li, K. He, J. Sun, R-FCN, NIPS 2016, section 3; torchvision's code.

    Example:
        >>> scores = torch.randn(1, 2 * 9, 32, 32)
        >>> boxes = torch.tensor([[0, 8.0, 8.0, 71.0, 103.0]])
        >>> amstel.ops.ps_roi_pool(scores, boxes, 3, spatial_scale=0.25).shape
        torch.Size([1, 2, 3, 3])
    """
    _check_input("input", input)
    rois = _rois(boxes, input)
    size = _output_size(output_size)
    scale = _scale("spatial_scale", spatial_scale)
    bins = size[0] * size[1]
    if input.shape[1] % bins:
        _check.fail("input", f"[N, C, H, W] with a multiple of {size[0]} x {size[1]} channels", input)
    return _call(_ps, _ops.ps_roi_pool, input, rois, scale, *size)


def _call(derived: Callable, op: Callable, input: Tensor, rois: Tensor, *how: Any) -> Tensor:
    bad = None
    if not _checks.enabled():  # the kernels always look: another box for one that is not valid
        bad = bad_boxes(rois, input)
        rois = rois.masked_fill(bad, 0)
    try:
        y = (derived if own_gradient(input) or transformed() else op)(input, rois, *how)
    except RuntimeError as error:  # values of the boxes, at which the kernel looks
        raise _check.found_by_kernel(error, rois="boxes") from None
    return y if bad is None else y.masked_fill(bad[:, :, None, None], 0)


def _sampling(ratio: Any) -> int:
    whole = isinstance(ratio, numbers.Integral) and not isinstance(ratio, bool)
    if not whole or not -1 <= ratio <= 1 << 15:
        _check.fail("sampling_ratio", "an integer from 1 to 32768, or 0 or -1 for as many as fit", ratio)
    return max(int(ratio), 0)


# ---- Gradients: both operators are linear, and each is the derivative of the other's gradient ----


class _Linear(torch.autograd.Function):
    """What they have in common: saved boxes, and how, in numbers (torch.vmap has no forward mode with a tuple of them)."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, rois, *how = inputs
        ctx.save_for_backward(rois)
        ctx.save_for_forward(rois)
        ctx.how = tuple(how)
        ctx.shape = x.shape[0], *x.shape[2:], _channels_last(x)


class _Align(_Linear):
    @staticmethod
    def forward(
        input: Tensor, rois: Tensor, scale: float, ph: int, pw: int, sampling: int, aligned: bool
    ) -> Tensor:
        return _ops.roi_align(input, rois, scale, ph, pw, sampling, aligned)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        scale, _, _, sampling, aligned = ctx.how
        return _align_grad(grad, *ctx.saved_tensors, scale, sampling, aligned, *ctx.shape), *(None,) * 6


class _AlignGrad(_Linear):
    @staticmethod
    def forward(
        grad: Tensor,
        rois: Tensor,
        scale: float,
        sampling: int,
        aligned: bool,
        n: int,
        h: int,
        w: int,
        last: bool,
    ) -> Tensor:
        return _ops.roi_align_grad(grad, rois, scale, sampling, aligned, n, h, w, last)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        scale, sampling, aligned = ctx.how[:3]
        return _align(grad, *ctx.saved_tensors, scale, *ctx.shape[1:3], sampling, aligned), *(None,) * 8


class _Ps(_Linear):
    @staticmethod
    def forward(input: Tensor, rois: Tensor, scale: float, ph: int, pw: int) -> Tensor:
        return _ops.ps_roi_pool(input, rois, scale, ph, pw)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _ps_grad(grad, *ctx.saved_tensors, ctx.how[0], *ctx.shape), *(None,) * 4


class _PsGrad(_Linear):
    @staticmethod
    def forward(grad: Tensor, rois: Tensor, scale: float, n: int, h: int, w: int, last: bool) -> Tensor:
        return _ops.ps_roi_pool_grad(grad, rois, scale, n, h, w, last)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _ps(grad, *ctx.saved_tensors, ctx.how[0], *ctx.shape[1:3]), *(None,) * 6


def _forward_mode(function: Any) -> Callable[..., Any]:
    """Of a linear function: itself at the tangent."""
    apply = forward_mode(function, lambda ctx, t, *_: apply(t, *ctx.saved_tensors, *ctx.how))
    return apply


_align, _align_grad, _ps, _ps_grad = map(_forward_mode, (_Align, _AlignGrad, _Ps, _PsGrad))


# ---- Fake kernels ----


@torch.library.register_fake("amstel::roi_align")
def _(input: Tensor, rois: Tensor, scale: float, ph: int, pw: int, sampling: int, aligned: bool) -> Tensor:
    return _empty(input, (rois.shape[0], input.shape[1], ph, pw), _channels_last(input))


@torch.library.register_fake("amstel::roi_align_grad")
def _(
    grad: Tensor,
    rois: Tensor,
    scale: float,
    sampling: int,
    aligned: bool,
    images: int,
    height: int,
    width: int,
    channels_last: bool,
) -> Tensor:
    return _empty(grad, (images, grad.shape[1], height, width), channels_last)


@torch.library.register_fake("amstel::ps_roi_pool")
def _(input: Tensor, rois: Tensor, scale: float, ph: int, pw: int) -> Tensor:
    return _empty(input, (rois.shape[0], input.shape[1] // (ph * pw), ph, pw), _channels_last(input))


@torch.library.register_fake("amstel::ps_roi_pool_grad")
def _(
    grad: Tensor, rois: Tensor, scale: float, images: int, height: int, width: int, channels_last: bool
) -> Tensor:
    channels = grad.shape[1] * grad.shape[2] * grad.shape[3]
    return _empty(grad, (images, channels, height, width), channels_last)
