"""A 3x3 convolution on the CPU by Winograd's F(4x4, 3x3), forward and backward, on the kernels of `conv_lstm`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from amstel._torch import autocast_dtype
from amstel.ops._conv_lstm import LARGE, largest, last, parts
from amstel.ops._conv_lstm_grad import TILES, weight_transform
from amstel.ops._processor import AMX
from amstel.ops._raw import operators, plain_gradients, transformed, watched

_ops = operators


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """conv2d(x, weight, bias, padding=1); by Winograd's algorithm where that is less work, to a channels_last tensor.

    Rounding differs from conv2d's in the last digits of float32, in which both sums and products are. An image with
    a NaN, an infinity or a value that stands far out of the others goes through conv2d, so that it reaches nothing
    outside of its 3x3 window.
    """
    dtype = autocast_dtype(x) or x.dtype
    plain = not x.is_cpu or dtype == torch.float64 or min(weight.shape[:2]) < 8
    if plain or (AMX and dtype == torch.bfloat16) or torch.compiler.is_compiling() or transformed():
        return conv2d(x, weight, bias, padding=1)
    if _stands_out(x):
        return conv2d(x, weight, bias, padding=1)
    return _Conv.apply(dtype, x, weight, bias)


def _stands_out(x: Tensor) -> bool:
    x = x.detach()
    peak = largest(x)
    if peak <= LARGE:
        return False
    return not math.isfinite(peak) or peak > 256 * float(x.abs().mean(dtype=torch.float32))


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        image = last(x).to(dtype)
        return _convolve(image, weight, bias.float(), False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, bias = inputs = ctx.saved_tensors
        need = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled() or watched(grad):
            to = grad.dtype
            plain = lambda x, w, b: (conv2d(x.to(to), w.to(to), b.to(to), padding=1),)  # noqa: E731
            return None, *plain_gradients(plain, inputs, need, (grad,))
        rows = last(grad)
        if not math.isfinite(largest(rows)):  # stays in its window
            mask = [bool(n) for n in need]
            grads = torch.ops.aten.convolution_backward(
                grad,
                x.to(grad.dtype),
                weight.to(grad.dtype),
                [len(bias)],
                [1, 1],
                [1, 1],
                [1, 1],
                False,
                [0, 0],
                1,
                mask,
            )
            return None, *(g if g is None else g.to(t.dtype) for g, t in zip(grads, inputs, strict=True))
        return (
            None,
            _convolve(rows, weight, None, True).to(x.dtype) if need[0] else None,
            _weight_grad(last(x).to(grad.dtype), rows).to(weight.dtype) if need[1] else None,
            rows.flatten(0, 2).sum(0).to(bias.dtype) if need[2] else None,
        )


def _convolve(image: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
    n, height, width, _ = image.shape
    shape = (n, weight.shape[1 if transposed else 0], height, width)
    out = torch.empty(shape, dtype=image.dtype, device=image.device, memory_format=torch.channels_last)
    packed = _ops.winograd_weight(weight.detach().float().contiguous(), transposed, False)
    _ops.winograd_conv(image, packed, bias, last(out))  # not a view: a ReLU in place may follow
    return out


def _weight_grad(image: Tensor, grad: Tensor) -> Tensor:
    """Products of transformed tiles, summed, and transformed back."""
    n, height, width, inputs = image.shape
    outputs = grad.shape[-1]
    total = grad.new_zeros(36, inputs, outputs, dtype=torch.float32)
    for part in parts(n * -(-height // 4) * -(-width // 4), TILES):
        v = total.new_empty(36, part.stop - part.start, inputs)
        m = total.new_empty(36, part.stop - part.start, outputs)
        _ops.winograd_planes(image, False, part.start, 0, v)
        _ops.winograd_planes(grad, True, part.start, 0, m)
        total.baddbmm_(v.mT, m)
        del v, m  # before the next ones
    transform = weight_transform(grad.device)
    whole = transform.T @ (transform.T @ total.view(6, -1)).view(3, 6, -1)
    return whole.view(3, 3, inputs, outputs).permute(3, 2, 0, 1)
