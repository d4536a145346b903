"""The fused gates of a convolutional GRU, and the whole cell for 1x1 kernels: functions, gradients, fake kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.nn.functional import linear

from amstel import _check, reference
from amstel._torch import autocast_dtype, cast
from amstel.ops._raw import (
    dispatched,
    operators,
    own_gradient,
    plain_gradients,
    tracked,
    transformed,
    watched,
)

_ops = operators


def conv_gru_cell(gates_x: Tensor, gates_h: Tensor, h: Tensor, *, memory: str = "store") -> Tensor:
    r"""The pointwise part of a convolutional GRU in one pass: the new state from the gates of x and of h.

    .. code-block:: text

        r = σ(x_r + h_r)   z = σ(x_z + h_z)   n = tanh(x_n + r ⊙ h_n)   h' = (1 - z) ⊙ n + z ⊙ h

    Args:
        gates_x, gates_h: [N, 3C, H, W], results of the convolutions of x and of h, including biases, in the order
            r, z, n; float64, float32, bfloat16 or float16, contiguous or channels_last (other layouts are copied).
        h: [N, C, H, W], of the same dtype.
        memory: what is kept for the gradient. "store" keeps r, z, n and h_n, 4C numbers per pixel, instead of gates_x
            and gates_h; "recompute" keeps those two and recomputes the rest, which writes less if the caller holds
            them anyway.

    Returns:
        h' [N, C, H, W] in the dtype of h and the memory layout of gates_x.

    Differentiable in all arguments; higher derivatives go through plain PyTorch. 16-bit types are computed in
    float32; sigmoid and tanh are accurate to 2 units in the last place. Bit-identical for any number of threads.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Complexity: inputs are read once and the result is written once, 7 C + C numbers per pixel.

    Source: K. Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, EMNLP 2014, equations 5-8, with
    the reset after the product with the weights, as in torch.nn.GRUCell and cuDNN.

    Example:
        >>> h = amstel.ops.conv_gru_cell(torch.zeros(1, 6, 4, 4), torch.zeros(1, 6, 4, 4), torch.ones(1, 2, 4, 4))
        >>> h[0, 0, 0, 0]
        tensor(0.5000)
    """
    _check.dense("gates_x", gates_x, "a tensor [N, 3C, H, W]")
    _check.dense("gates_h", gates_h, "a tensor [N, 3C, H, W]")
    _check.dense("h", h, "a tensor [N, C, H, W]")
    dtype = autocast_dtype(gates_x)
    if dtype is not None and autocast_dtype(gates_h) and autocast_dtype(h):
        gates_x, gates_h, h = cast(dtype, gates_x, gates_h, h)
    if gates_x.dim() != 4 or gates_x.shape[1] % 3 or gates_x.dtype not in _check.FLOATS:
        _check.fail("gates_x", "floating-point [N, 3C, H, W]", gates_x)
    name = _check.name(gates_x.dtype)
    shape = (gates_x.shape[0], gates_x.shape[1] // 3, *gates_x.shape[2:])
    for argument, t, size in (("gates_h", gates_h, gates_x.shape), ("h", h, shape)):
        if t.shape != size or t.dtype != gates_x.dtype or t.device != gates_x.device:
            _check.fail(argument, f"{name} {list(size)} on {gates_x.device}", t)
    _check.choice("memory", memory, ("store", "recompute"))
    last = not gates_x.is_contiguous()
    written = is_compiling() or dispatched()
    if written:  # a compiler and torch.vmap know of no memory layout, or see through rows better
        cells = [_rows(t, last) for t in (gates_x, gates_h, h)]
    else:
        laid = torch.channels_last if last else torch.contiguous_format
        cells = [t.contiguous(memory_format=laid) for t in (gates_x, gates_h, h)]
    if not own_gradient(*cells):
        new = _ops.conv_gru_gates(*cells, False)[0]
    elif memory == "store":
        new = _Store.apply(*cells)[0]
    else:
        new = _Recompute.apply(*cells)
    return _maps(new, h.shape, last) if written else new


def _rows(t: Tensor, channels_last: bool) -> Tensor:
    """[pixels, channels], or [images, all the rest], in the order of the memory."""
    if channels_last:
        return t.permute(0, 2, 3, 1).contiguous().flatten(0, 2)
    return t.contiguous().flatten(1)


def _maps(rows: Tensor, shape: Any, channels_last: bool) -> Tensor:
    """`rows` as [N, C, H, W] again."""
    if channels_last:
        n, c, h, w = shape
        return rows.view(n, h, w, c).permute(0, 3, 1, 2)
    return rows.view(shape)


def _like(activated: Tensor, grad: Tensor) -> Tensor:
    """grad in the memory layout of activated."""
    if activated.is_contiguous():
        return grad.contiguous()
    return grad.contiguous(memory_format=torch.channels_last)


class _Store(torch.autograd.Function):
    """The new state and, as an output too, r, z, n, h_n: so what the gradient is computed from has a gradient itself."""

    @staticmethod
    def forward(ctx: Any, gates_x: Tensor, gates_h: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        new, activated = _ops.conv_gru_gates(gates_x, gates_h, h, True)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(activated, h)
        return new, activated

    @staticmethod
    def backward(ctx: Any, grad: Any, grad_activated: Any) -> Any:
        activated, h = ctx.saved_tensors
        if grad is None and grad_activated is None:
            return None, None, None
        if grad_activated is None and not torch.is_grad_enabled() and not watched(grad):
            return _ops.conv_gru_gates_grad(_like(activated, grad), activated, h)
        r, z, n, h_n = activated.chunk(4, 1)
        d = torch.zeros_like(h) if grad is None else grad
        d_r, d_z, d_n, d_h_n = (0, 0, 0, 0) if grad_activated is None else grad_activated.chunk(4, 1)
        d_n = (d * (1 - z) + d_n) * (1 - n * n)
        d_z = (d * (h - n) + d_z) * (z * (1 - z))
        d_r = (d_n * h_n + d_r) * (r * (1 - r))
        return torch.cat([d_r, d_z, d_n], 1), torch.cat([d_r, d_z, d_n * r + d_h_n], 1), d * z


class _Recompute(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates_x: Tensor, gates_h: Tensor, h: Tensor) -> Tensor:
        ctx.save_for_backward(gates_x, gates_h, h)
        return _ops.conv_gru_gates(gates_x, gates_h, h, False)[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        saved = ctx.saved_tensors
        if not torch.is_grad_enabled() and not watched(grad):
            activated = _ops.conv_gru_gates(*saved, True)[1]
            return _ops.conv_gru_gates_grad(_like(activated, grad), activated, saved[2])
        return tuple(plain_gradients(lambda *t: _Store.apply(*t)[:1], saved, ctx.needs_input_grad, (grad,)))


def conv_gru_pointwise(
    x: Tensor,
    h: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    *,
    memory: str = "store",
) -> Tensor:
    r"""A convolutional GRU with 1x1 kernels: the products of x and h with the weights, then `conv_gru_cell`.

    Args:
        x: [P, C_in], the pixels of a channels_last image; h: [P, C], or None for zeros, which skips their product.
        weight_ih, weight_hh: [3C, C_in] and [3C, C]; bias_ih, bias_hh: [3C]. Under autocast, all are cast.
        memory: "store" keeps r, z, n and h_n for the gradient, 4C numbers per pixel; "recompute" only x and h.

    Returns:
        h' [P, C].

    Differentiable in all tensors; higher derivatives go through plain PyTorch.

    Example:
        >>> weights = torch.randn(6, 3), torch.randn(6, 2), torch.zeros(6), torch.zeros(6)
        >>> amstel.ops.conv_gru.conv_gru_pointwise(torch.randn(5, 3), None, *weights).shape
        torch.Size([5, 2])
    """
    _check_pointwise(x, h, weight_ih, weight_hh, bias_ih, bias_hh)
    _check.choice("memory", memory, ("store", "recompute"))
    inputs = (x, h, weight_ih, weight_hh, bias_ih, bias_hh)
    dtype = autocast_dtype(x) or x.dtype
    if not own_gradient(*inputs):
        return _products(_cast(inputs, dtype), False)[0]
    return _Pointwise.apply(dtype, memory == "store", *inputs)


def _check_pointwise(x: Any, h: Any, weight_ih: Any, weight_hh: Any, bias_ih: Any, bias_hh: Any) -> None:
    _check.dense("x", x, "a tensor [P, C_in]")
    if x.dim() != 2 or x.dtype not in _check.FLOATS:
        _check.fail("x", "floating-point [P, C_in]", x)
    _check.dense("weight_hh", weight_hh, "a tensor [3C, C]")
    if weight_hh.dim() != 2 or weight_hh.shape[0] != 3 * weight_hh.shape[1]:
        _check.fail("weight_hh", "[3C, C]", weight_hh)
    rows, hidden = weight_hh.shape
    shapes = {"weight_ih": (weight_ih, (rows, x.shape[1])), "bias_ih": (bias_ih, (rows,))}
    shapes |= {"weight_hh": (weight_hh, (rows, hidden)), "bias_hh": (bias_hh, (rows,))}
    if h is not None:
        shapes["h"] = (h, (x.shape[0], hidden))
    cast = autocast_dtype(x) is not None
    for name, (t, shape) in shapes.items():
        _check.dense(name, t, "a tensor like x")
        if t.shape != shape or t.device != x.device or (t.dtype != x.dtype and not cast):
            _check.fail(name, f"{_check.name(x.dtype)} {list(shape)} on {x.device} like x", t)


def _cast(tensors: Any, dtype: torch.dtype) -> Any:
    return [t if t is None else t.to(dtype) for t in tensors]


def _in_blocks(tensors: Any) -> bool:
    """Whether the operator that computes pixels from end to end may be called: on the CPU, where nobody looks."""
    return tensors[0].is_cpu and not (is_compiling() or transformed() or tracked(*tensors))


def _products(tensors: Any, keep: bool) -> tuple[Tensor, Tensor]:
    """conv_gru_gates on the gates of x and of h."""
    if not _in_blocks(tensors):
        return _product(tensors, keep)
    return _ops.conv_gru_pixels(*_dense(tensors), keep)


def _dense(tensors: Any) -> list[Tensor | None]:
    return [t if t is None else t.contiguous() for t in tensors]


def _product(tensors: Any, keep: bool) -> tuple[Tensor, Tensor]:
    x, h, w_i, w_h, b_i, b_h = tensors
    if h is None and (transformed() or tracked(w_h)):
        h = x.new_zeros(x.shape[0], w_h.shape[1])  # the product with w_h is 0, but it has a derivative
    if h is None:
        gates_h, h = b_h.expand(x.shape[0], -1).contiguous(), x.new_zeros(x.shape[0], w_h.shape[1])
    else:
        gates_h = linear(h, w_h, b_h)
    return _ops.conv_gru_gates(linear(x, w_i, b_i), gates_h, h.contiguous(), keep)


def _composed(x: Tensor, h: Any, w_i: Tensor, w_h: Tensor, b_i: Tensor, b_h: Tensor) -> Tensor:
    """The same in plain PyTorch."""
    h = x.new_zeros(x.shape[0], w_h.shape[1]) if h is None else h
    gates_x, gates_h, h = (t[..., None, None] for t in (linear(x, w_i, b_i), linear(h, w_h, b_h), h))
    return reference.conv_gru_cell(gates_x, gates_h, h)[..., 0, 0]


class _Pointwise(torch.autograd.Function):
    """One node for the whole cell: autograd's own for the products would cost time and a pass for the sum at h."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, store: bool, *inputs: Any) -> Tensor:
        new, activated = _products(_cast(inputs, dtype), store)
        ctx.dtype = dtype
        ctx.save_for_backward(*inputs, activated if store else None)
        return new

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        *inputs, activated = ctx.saved_tensors
        need = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled() or transformed():
            plain = lambda *t: (_composed(*_cast(t, ctx.dtype)),)  # noqa: E731
            return None, None, *plain_gradients(plain, inputs, need, (grad,))
        tensors = _cast(inputs, ctx.dtype)
        if watched(grad) or not _in_blocks(tensors):  # gradients in batches cannot be written into
            grads = _products_grad(tensors, grad, activated, need)
        else:
            wanted = need[0], need[1], any(need[2:])
            found = _ops.conv_gru_pixels_grad(grad.contiguous(), activated, *_dense(tensors), *wanted)
            grads = tuple(g if n else None for g, n in zip(found, need, strict=True))
        return None, None, *(g if g is None else g.to(t.dtype) for g, t in zip(grads, inputs, strict=True))


def _products_grad(
    tensors: Any, grad: Tensor, activated: Tensor | None, need: Any
) -> tuple[Tensor | None, ...]:
    """The gradients of x, h, and of the weights and biases of both, as far as they are needed."""
    x, h, w_i, w_h, *_ = tensors
    if activated is None:
        activated = _product(tensors, True)[1]
    grad = grad.contiguous()
    state = torch.zeros_like(grad) if h is None else h.contiguous()
    d_x, d_g, d_h = _ops.conv_gru_gates_grad(grad, activated, state)
    return (
        d_x @ w_i if need[0] else None,
        torch.addmm(d_h, d_g, w_h) if need[1] else None,
        d_x.T @ x if need[2] else None,
        (torch.zeros_like(w_h) if h is None else d_g.T @ h) if need[3] else None,
        d_x.sum(0) if need[4] else None,
        d_g.sum(0) if need[5] else None,
    )


@torch.library.register_fake("amstel::conv_gru_gates")
def _(gates_x: Tensor, gates_h: Tensor, h: Tensor, keep: bool) -> tuple[Tensor, Tensor]:
    return _cells(gates_x, h, 1), _cells(gates_x, h, 4, keep)


@torch.library.register_fake("amstel::conv_gru_gates_grad")
def _(grad: Tensor, activated: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _cells(activated, h, 3), _cells(activated, h, 3), _cells(activated, h, 1)


def _cells(gates: Tensor, h: Tensor, count: int, keep: bool = True) -> Tensor:
    """`count` numbers a cell in the memory layout of the gates."""
    laid = torch.contiguous_format if gates.is_contiguous() else torch.channels_last
    shape = (h.shape[0] if keep else 0, count * h.shape[1], *h.shape[2:])
    return torch.empty(shape, dtype=h.dtype, device=h.device, memory_format=laid)


@torch.library.register_fake("amstel::conv_gru_pixels")
def _(
    x: Tensor, h: Any, w_i: Tensor, w_h: Tensor, b_i: Tensor, b_h: Tensor, keep: bool
) -> tuple[Tensor, Tensor]:
    hidden = w_h.shape[1]
    return x.new_empty(x.shape[0], hidden), x.new_empty(x.shape[0] if keep else 0, 4 * hidden)


@torch.library.register_fake("amstel::conv_gru_pixels_grad")
def _(
    grad: Tensor, activated: Any, x: Tensor, h: Any, w_i: Tensor, w_h: Tensor, b_i: Tensor, b_h: Tensor,
    need_x: bool, need_h: bool, need_weights: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    def rows(like: Tensor, needed: bool) -> Tensor:
        return like.new_empty(like.shape[0] if needed else 0, *like.shape[1:])

    return rows(x, need_x), rows(grad, need_h), *(rows(t, need_weights) for t in (w_i, w_h, b_i, b_h))
