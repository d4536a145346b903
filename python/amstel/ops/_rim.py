"""The input of a RIM's network and bicubic resampling: layouts, gradients, and fake kernels of `amstel.ops.rim`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from amstel._torch import autocast_dtype
from amstel.ops._raw import operators, own_gradient, tracked, transformed

_ops = operators


# ---- The network's input ----


def wide(t: Tensor) -> Tensor:
    return t if t.dtype == torch.float64 else t.float()


def output_dtype(eta: Tensor) -> torch.dtype:
    return autocast_dtype(eta) or eta.dtype


def dense(t: Tensor) -> Tensor:
    return t if t.is_contiguous() else t.contiguous()


def planar(t: Tensor) -> Tensor:
    """Contiguous or channels_last, as it is if it is either."""
    if t.is_contiguous() or transformed():  # torch.vmap knows of no other layout
        return t.contiguous()
    return t if t.is_contiguous(memory_format=torch.channels_last) else t.contiguous()


def network_input(
    eta: Tensor,
    other: Tensor,
    mask: Tensor | None,
    precision: Tensor | None,
    factor: float,
    residual: bool,
    link: str,
) -> Tensor:
    dtype, logistic = output_dtype(eta), link == "logistic"
    eta, other = planar(wide(eta)), planar(wide(other))
    if mask is not None:
        mask = wide(mask)
        if mask.shape[2] > 1 and mask.shape[3] > 1 and mask.stride(2) != mask.shape[3] * mask.stride(3):
            mask = mask.contiguous()
    # sigma and the mask have a gradient too, which the operator's plain form knows.
    if (mask is not None or precision is not None) and tracked(mask, precision):
        return torch.ops.amstel.rim_input(eta, other, mask, precision, factor, residual, logistic, dtype)
    if not own_gradient(eta, other):
        return _ops.rim_input(eta, other, mask, precision, factor, residual, logistic, dtype)
    return _Input.apply(eta, other, mask, precision, factor, residual, logistic, dtype)


def _filled(other: Tensor, mask: Tensor | None) -> Tensor:
    """0 times NaN, which may stand for what was not measured, would not be 0."""
    return other if mask is None else other.masked_fill(mask == 0, 0)


class _Input(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        eta: Tensor,
        other: Tensor,
        mask: Any,
        precision: Any,
        factor: float,
        residual: bool,
        logistic: bool,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.save_for_backward(eta, other, mask, precision)
        ctx.options = (factor, residual, logistic)
        return _ops.rim_input(eta, other, mask, precision, factor, residual, logistic, dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        eta, other, mask, precision = ctx.saved_tensors
        factor, residual, logistic = ctx.options
        if not torch.is_grad_enabled() and not transformed():
            grads = _ops.rim_input_grad(grad, eta, other, mask, precision, factor, residual, logistic)
            return *grads, *(None,) * 6
        other = _filled(other, mask)
        # For a second derivative: the same in operations that have one.
        first, second = grad.to(eta.dtype).chunk(2, 1)
        second = factor * second
        if precision is not None:
            second = precision[:, None, None, None] * second
        x = torch.sigmoid(eta) if logistic else eta
        slope = x * (1 - x) if logistic else 1
        to_other = second * slope
        if residual:
            value = x - other
            if mask is not None:
                value, to_other = mask * value, mask * to_other
            first = first + to_other * slope
            to_other = -to_other
        else:
            value = other
        if logistic:
            first = first + second * slope * (1 - 2 * x) * value
        return first, _filled(to_other, mask), *(None,) * 6


# ---- Resampling ----


def down(x: Tensor, minus: Tensor | None, scale: int) -> Tensor:
    """D x - minus"""
    if own_gradient(x, minus):
        return _Down.apply(x, minus, scale)
    return _ops.bicubic_down(dense(x), minus if minus is None else dense(minus), scale)


def up(y: Tensor, scale: int) -> Tensor:
    return _Up.apply(y, scale) if own_gradient(y) else _ops.bicubic_up(dense(y), scale)


class _Down(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, minus: Any, scale: int) -> Tensor:
        ctx.scale = scale
        return _ops.bicubic_down(dense(x), minus if minus is None else dense(minus), scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        grad_x = up(grad, ctx.scale) if ctx.needs_input_grad[0] else None
        return grad_x, -grad if ctx.needs_input_grad[1] else None, None


class _Up(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, scale: int) -> Tensor:
        ctx.scale = scale
        return _ops.bicubic_up(dense(y), scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return down(grad, None, ctx.scale), None


class BicubicInput(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        eta: Tensor,
        residual: Tensor,
        precision: Any,
        factor: float,
        scale: int,
        link: str,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.save_for_backward(eta, residual, precision)
        ctx.options = (factor, scale, link)
        return _ops.rim_bicubic_input(
            dense(eta), residual, precision, factor, scale, link == "logistic", dtype
        )

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        eta, residual, precision = ctx.saved_tensors
        factor, scale, link = ctx.options
        first, second = grad.to(eta.dtype).chunk(2, 1)
        second = factor * second
        if precision is not None:
            second = precision[:, None, None, None] * second
        if link == "logistic":
            x = torch.sigmoid(eta)
            slope = x * (1 - x)
            first = first + second * slope * (1 - 2 * x) * up(residual, scale)
            second = second * slope
        return first, down(second, None, scale), *(None,) * 5


# ---- Fake kernels ----


def _empty_input(eta: Tensor, dtype: torch.dtype) -> Tensor:
    n, c, h, w = eta.shape
    return eta.new_empty(n, h, w, 2 * c, dtype=dtype).permute(0, 3, 1, 2)


@torch.library.register_fake("amstel::rim_input")
def _(
    eta: Tensor,
    other: Tensor,
    mask: Any,
    precision: Any,
    factor: float,
    residual: bool,
    logistic: bool,
    dtype: torch.dtype,
) -> Tensor:
    return _empty_input(eta, dtype)


@torch.library.register_fake("amstel::rim_input_grad")
def _(
    grad: Tensor,
    eta: Tensor,
    other: Tensor,
    mask: Any,
    precision: Any,
    factor: float,
    residual: bool,
    logistic: bool,
) -> tuple[Tensor, Tensor]:
    pixel = eta.stride(3) if eta.shape[3] > 1 else eta.stride(2) if eta.shape[2] > 1 else 1
    last = pixel != 1 and pixel == eta.shape[1]  # as in csrc/cpu/rim_op.cpp
    laid = torch.channels_last if last else torch.contiguous_format
    grad_eta = torch.empty(eta.shape, dtype=eta.dtype, device=eta.device, memory_format=laid)
    return grad_eta, torch.empty_like(grad_eta)


@torch.library.register_fake("amstel::bicubic_down")
def _(x: Tensor, minus: Any, scale: int) -> Tensor:
    return x.new_empty(*x.shape[:2], x.shape[2] // scale, x.shape[3] // scale)


@torch.library.register_fake("amstel::bicubic_up")
def _(y: Tensor, scale: int) -> Tensor:
    return y.new_empty(*y.shape[:2], y.shape[2] * scale, y.shape[3] * scale)


@torch.library.register_fake("amstel::rim_bicubic_input")
def _(
    eta: Tensor,
    residual: Tensor,
    precision: Any,
    factor: float,
    scale: int,
    logistic: bool,
    dtype: torch.dtype,
) -> Tensor:
    return _empty_input(eta, dtype)
