"""Autograd for `amstel.ops.conv_lstm` and its cell: what the forward pass keeps, and the gradients.

Where a gradient is itself differentiated it is that of the reference.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from amstel import reference
from amstel.ops._conv_lstm import checkpoints, first, sum_dtype
from amstel.ops._raw import operators, plain_gradients, watched

_ops = operators


# ---- The sequence ----


class ConvLstm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias: Any,
        peephole: Any,
        h: Any,
        c: Any,
        mask: Any,
        dilation: int,
        padding: str,
        algorithm: str,
        memory: str,
        return_sequences: bool,
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        keep = "gates" if memory == "store" else "state"
        history, cells, gates = _ops.conv_lstm(
            x, weight_ih, weight_hh, bias, h, c, mask, peephole, dilation, padding, algorithm, keep
        )
        c_n = first(cells[-1].clone())
        if keep == "state" and not is_compiling():  # only where a chunk begins; the rest was never written
            cells = cells[: checkpoints(x, weight_ih, weight_hh, cells.shape[2:4])].clone()
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(
            x,
            weight_ih,
            weight_hh,
            bias,
            peephole,
            h,
            c,
            mask,
            history,
            cells,
            gates if keep == "gates" else None,
        )
        ctx.options = (dilation, padding, algorithm)
        # Detached, the output is no view for autograd and may be changed in place, which the backward pass notices.
        output = first(history[1:]).detach() if return_sequences else None
        # Copies: a frame that lives on must not hold the history.
        return output, first(history[-1].clone()).detach(), c_n.detach()

    @staticmethod
    def backward(ctx: Any, grad_output: Any, grad_h: Any, grad_c: Any) -> Any:
        x, weight_ih, weight_hh, bias, peephole, h, c, mask, history, cells, gates = ctx.saved_tensors
        dilation, padding, algorithm = ctx.options
        none = (None,) * 6
        if grad_output is None and grad_h is None and grad_c is None:
            return (None,) * 13
        inputs = (x, weight_ih, weight_hh, bias, peephole, h, c)
        if torch.is_grad_enabled() or watched(grad_output, grad_h, grad_c):
            lengths = None if mask is None else mask.sum(0)

            def plain(x: Tensor, w_ih: Tensor, w_hh: Tensor, bias: Any, peephole: Any, h: Any, c: Any) -> Any:
                output, state = reference.conv_lstm(
                    x, w_ih, w_hh, bias, None if h is None else (h, c), lengths=lengths, peephole=peephole,
                    dilation=dilation, padding=padding,
                )  # fmt: skip
                return output, *state

            grads = (grad_output, grad_h, grad_c)
            return *plain_gradients(plain, inputs, ctx.needs_input_grad[:7], grads), *none
        needs = list(ctx.needs_input_grad[:7])
        grads = _ops.conv_lstm_grad(
            grad_output, grad_h, grad_c, x, weight_ih, weight_hh, bias, mask, peephole, history, cells, gates,
            dilation, padding, algorithm, needs,
        )  # fmt: skip
        return *(g if need else None for g, need in zip(grads, needs, strict=True)), *none


# ---- The cell ----


def cell(
    gates: Tensor, c: Tensor, peephole: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """h, the new c, and the activated gates if asked."""
    laid, _, weights = _layout(gates, peephole)
    gates, c = gates.contiguous(memory_format=laid), c.contiguous(memory_format=laid)
    h, c_out = torch.empty_like(c, dtype=gates.dtype), torch.empty_like(c)
    activated = torch.empty_like(gates) if keep else None
    _ops.conv_lstm_gates(gates, None, c, weights, h, c_out, activated)
    return h, c_out, activated


def _layout(gates: Tensor, peephole: Tensor | None) -> tuple[torch.memory_format, int, Tensor | None]:
    """A row is an image of a contiguous tensor, or a pixel of a channels_last one; peepholes run along a row."""
    hidden = gates.shape[1] // 4
    if peephole is not None:
        peephole = peephole.to(sum_dtype(gates.dtype))
    if not gates.is_contiguous():
        return torch.channels_last, hidden, peephole if peephole is None else peephole.contiguous()
    pixels = gates.shape[2] * gates.shape[3]
    if peephole is not None:
        peephole = peephole[:, :, None].expand(3, hidden, pixels).reshape(3, -1).contiguous()
    return torch.contiguous_format, hidden * pixels, peephole


class Cell(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, c: Tensor, peephole: Any) -> tuple[Tensor, Tensor]:
        h, c_out, activated = cell(gates, c, peephole, True)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(gates, c, peephole, c_out, activated)
        return h, c_out

    @staticmethod
    def backward(ctx: Any, grad_h: Any, grad_c: Any) -> Any:
        gates, c, peephole, c_out, activated = ctx.saved_tensors
        if grad_h is None and grad_c is None:
            return None, None, None
        if torch.is_grad_enabled() or watched(grad_h, grad_c):
            inputs = (gates, c, peephole)
            return tuple(
                plain_gradients(reference.conv_lstm_cell, inputs, ctx.needs_input_grad, (grad_h, grad_c))
            )
        laid, inner, weights = _layout(activated, peephole)
        grad_gates, grad_old = torch.empty_like(activated), torch.empty_like(c_out)
        old, dh, dc = (None if t is None else t.contiguous(memory_format=laid) for t in (c, grad_h, grad_c))
        sums = _ops.conv_lstm_gates_grad(
            activated, old, c_out, weights, dh, None, dc, grad_old, grad_gates, False
        )
        grad_peephole = None
        if ctx.needs_input_grad[2]:
            total = _ops.epilogue_grad(sums, None)[1]
            hidden = peephole.shape[1]  # may be zero, of which view(-1) makes nothing
            grad_peephole = total.view(3, hidden, inner // max(hidden, 1)).sum(-1).to(peephole.dtype)
        return grad_gates, grad_old, grad_peephole


def _cell_operator(gates: Tensor, c: Tensor, peephole: Tensor | None) -> tuple[Tensor, Tensor]:
    return cell(gates, c, peephole, False)[:2]


for _device in ("CPU", "CUDA"):
    torch.library.impl("amstel::conv_lstm_cell", _device)(_cell_operator)
