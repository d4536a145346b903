"""ROI max pooling and matching for autograd, and fake kernels, of `amstel.ops.roi_pool`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from amstel.ops._raw import dispatched, forward_mode, operators, own_gradient, plain_gradients, transformed

_ops = operators


Look = tuple[bool, Tensor | None] | tuple[()]  # the arguments `check` and `found` of the operators


def pool(input: Tensor, rois: Tensor, scale: float, size: tuple[int, int], look: Look) -> Tensor:
    if own_gradient(input):
        return _Pool.apply(input, rois, scale, size, look)
    return _ops.roi_pool(input, rois, scale, *size, False, *look)[0]


def match(
    input: Tensor, query: Tensor, rois: Tensor, scale: float, size: tuple[int, int], look: Look, tracked: bool
) -> Tensor:
    """The scores of one map."""
    if tracked:
        return _Match.apply(input, query, rois, scale, size, look)
    return _score(_ops.roi_match(input, rois, query.contiguous(), scale, *size, *look))


def _valid(rois: Tensor, input: Tensor, look: Look) -> Tensor:
    """For the gradients, which look on the CPU: where nobody has looked, another box for one that is not valid. As that
    was pooled to 0 none has a gradient."""
    if not look or look[0] or rois.is_cuda:
        return rois
    return rois.masked_fill(bad_boxes(rois, input), 0)


def bad_boxes(rois: Tensor, input: Tensor) -> Tensor:
    """[K, 1]: coordinates that are not finite, a batch index that is not whole or not one of the images."""
    image = rois[:, :1]
    return ~(rois.isfinite() & (image == image.floor()) & (image >= 0) & (image < input.shape[0])).all(
        1, True
    )


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: Tensor, rois: Tensor, scale: float, size: tuple[int, int], look: Look
    ) -> Tensor:
        output, argmax = _ops.roi_pool(input, rois, scale, *size, True, *look)
        ctx.save_for_backward(argmax, _valid(rois, input, look))
        n, _, h, w = input.shape
        ctx.map = scale, n, h, w, _channels_last(input)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        argmax, rois = ctx.saved_tensors
        if not torch.is_grad_enabled() and not transformed():
            scale, n, h, w, last = ctx.map
            return _ops.roi_pool_grad(grad, argmax, rois, scale, n, h, w, last), *(None,) * 4
        return _pool_grad(grad, argmax, rois, *ctx.map), *(None,) * 4


class _PoolGrad(torch.autograd.Function):
    """Adds grad where argmax points. It and `_Gather` are each other's derivatives.

    The map comes in numbers, as torch.vmap has no forward mode with a tuple of them.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        grad: Tensor, argmax: Tensor, rois: Tensor, scale: float, n: int, h: int, w: int, last: bool
    ) -> Tensor:
        return _ops.roi_pool_grad(grad, argmax, rois, scale, n, h, w, last)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:3])
        ctx.save_for_forward(*inputs[1:3])
        ctx.map = inputs[3:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        argmax, rois = ctx.saved_tensors
        return _gather(grad, argmax, rois, *ctx.map), *(None,) * 7


class _Gather(torch.autograd.Function):
    """Takes the input where argmax points."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        input: Tensor, argmax: Tensor, rois: Tensor, scale: float, n: int, h: int, w: int, last: bool
    ) -> Tensor:
        return _ops.roi_pool_gather(input, argmax, rois)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:3])
        ctx.save_for_forward(*inputs[1:3])
        ctx.map = inputs[3:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        argmax, rois = ctx.saved_tensors
        return _pool_grad(grad, argmax, rois, *ctx.map), *(None,) * 7


_pool_grad: Callable[..., Any] = forward_mode(
    _PoolGrad, lambda ctx, t, *_: _pool_grad(t, *ctx.saved_tensors, *ctx.map)
)
_gather: Callable[..., Any] = forward_mode(
    _Gather, lambda ctx, t, *_: _gather(t, *ctx.saved_tensors, *ctx.map)
)


def _score(sums: Tensor) -> Tensor:
    """<p, q> / |p| from <p, p>, <p, q> [K, 2]."""
    square, dot = sums.unbind(1)
    on = square > 0
    if not (sums.requires_grad or dispatched()):  # NaN at 0 may come and go, for nobody derives from it
        return torch.where(on, dot / square.sqrt(), 0)
    return torch.where(on, dot / torch.where(on, square, 1).sqrt(), 0)


class _Match(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: Tensor, query: Tensor, rois: Tensor, scale: float, size: tuple[int, int], look: Look
    ) -> Tensor:
        sums = _ops.roi_match(input, rois, query.contiguous(), scale, *size, *look)
        ctx.save_for_backward(input, query, _valid(rois, input, look), sums)
        ctx.map = scale, size
        return _score(sums)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        input, query, rois, sums = ctx.saved_tensors
        scale, size = ctx.map
        need_input, need_query = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled() or transformed():

            def plain(input: Tensor, query: Tensor) -> tuple[Tensor]:
                pooled = pool(input, rois, scale, size, (False, None)).flatten(1).to(grad.dtype)
                sums = torch.stack([pooled.square().sum(1), pooled @ query.to(grad.dtype)], 1)
                return (_score(sums),)

            return *plain_gradients(plain, (input, query), (need_input, need_query), (grad,)), *(None,) * 4
        # The gradient of p is (q - <p, q> p / |p|²) grad / |p|, that of q is p grad / |p|.
        square, dot = sums.unbind(1)
        inverse = torch.where(square > 0, torch.where(square > 0, square, 1).rsqrt(), 0)
        of_query = grad * inverse
        coefficients = torch.stack([of_query, -of_query * dot * inverse.square()], 1)
        grad_input, grad_query = _ops.roi_match_grad(
            input, rois, query.contiguous(), coefficients, scale, *size, need_input, need_query
        )
        grads = grad_input if need_input else None, grad_query if need_query else None
        return *grads, *(None,) * 4


# ---- Fake kernels ----


def _channels_last(x: Tensor) -> bool:
    """As csrc/common/roi_pool_check.h: results are laid out as the input."""
    return x.shape[1] > 1 and x.stride(1) == 1 and not x.is_contiguous()


def _empty(like: Tensor, sizes: Sequence[Any], last: bool, dtype: torch.dtype | None = None) -> Tensor:
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(sizes, dtype=dtype or like.dtype, device=like.device, memory_format=layout)


@torch.library.register_fake("amstel::roi_pool")
def _(
    input: Tensor,
    rois: Tensor,
    scale: float,
    ph: int,
    pw: int,
    need_argmax: bool,
    check: bool = True,
    found: Any = None,
) -> Any:
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
def _(
    input: Tensor,
    rois: Tensor,
    query: Tensor,
    scale: float,
    ph: int,
    pw: int,
    check: bool = True,
    found: Any = None,
) -> Tensor:
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
