"""The shapes that the ConvLSTM operators return, for torch.compile and torch.export."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from amstel.ops._conv_lstm import CHECKPOINTS, first, sum_dtype


@torch.library.register_fake("amstel::conv_lstm_cell")
def _(gates: Tensor, c: Tensor, peephole: Any) -> Any:
    laid = torch.contiguous_format if gates.is_contiguous() else torch.channels_last
    return tuple(torch.empty(c.shape, dtype=t.dtype, device=c.device, memory_format=laid) for t in (gates, c))


@torch.library.register_fake("amstel::conv_lstm_gates")
def _(gates: Tensor, more: Any, c: Tensor, peephole: Any, h: Tensor, c_out: Tensor, activated: Any) -> None:
    return None


@torch.library.register_fake("amstel::conv_lstm_gates_grad")
def _(
    activated: Tensor,
    c: Tensor,
    c_out: Tensor,
    peephole: Any,
    grad_h: Any,
    grad_h_more: Any,
    grad_c: Any,
    grad_c_out: Tensor,
    grad_gates: Tensor,
    bias: bool,
) -> Tensor:
    rows = c if c.dim() == 2 else c.movedim(1, -1).flatten(0, 2)
    if c.dim() == 4 and activated.is_contiguous():
        rows = c.flatten(1)
    return _sums(c, 1, rows.shape[0], rows.shape[1], bias, peephole)


def _sums(c: Tensor, steps: Any, rows: Any, inner: Any, bias: bool, peephole: Any) -> Tensor:
    block = torch.sym_max(
        8, 4096 // torch.sym_max(1, inner)
    )  # rows_per_block of csrc/common/conv_lstm_check.h
    width = (4 if bias else 0) + (0 if peephole is None else 3)
    return c.new_empty(steps * ((rows + block - 1) // block), width * inner, dtype=sum_dtype(c.dtype))


@torch.library.register_fake("amstel::conv_lstm")
def _(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Any,
    h: Any,
    c: Any,
    mask: Any,
    peephole: Any,
    dilation: int,
    padding: str,
    algorithm: str,
    keep: str,
) -> Any:
    steps, items, _, height, width = x.shape
    if padding == "valid":
        height -= dilation * (weight_ih.shape[2] - 1)
        width -= dilation * (weight_ih.shape[3] - 1)
    hidden = weight_hh.shape[1]

    def frames(count: Any, channels: int, dtype: torch.dtype) -> Tensor:
        return x.new_empty(count, items, height, width, channels, dtype=dtype)

    cells = {"gates": steps, "state": torch.sym_min(steps, CHECKPOINTS)}.get(keep, 0) + 1
    return (
        frames(1 if keep == "last" else steps + 1, hidden, x.dtype),
        frames(cells, hidden, sum_dtype(x.dtype)),
        frames(steps if keep == "gates" else 0, 4 * hidden, x.dtype),
    )


@torch.library.register_fake("amstel::conv_lstm_grad")
def _(
    grad_output: Any,
    grad_h: Any,
    grad_c: Any,
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Any,
    mask: Any,
    peephole: Any,
    h: Tensor,
    c: Tensor,
    gates: Any,
    dilation: int,
    padding: str,
    algorithm: str,
    needs: list[bool],
) -> list[Tensor]:
    steps, items, inputs, height, width = x.shape
    hidden = weight_hh.shape[1]
    found = [
        first(x.new_empty(steps, items, height, width, inputs)),
        torch.empty_like(weight_ih, memory_format=torch.contiguous_format),
        torch.empty_like(weight_hh, memory_format=torch.contiguous_format),
        x.new_empty(4 * hidden),
        x.new_empty(3, hidden, dtype=x.dtype if peephole is None else peephole.dtype),
        first(x.new_empty(h.shape[1:])),
        first(c.new_empty(c.shape[1:])),
    ]
    return [t if need else x.new_empty(0) for t, need in zip(found, needs, strict=True)]


@torch.library.register_fake("amstel::conv_lstm_steps")
def _(h: Tensor, c: Tensor, *rest: Any) -> None:
    return None


@torch.library.register_fake("amstel::conv_lstm_steps_grad")
def _(
    activated: Tensor,
    c: Tensor,
    grad_output: Any,
    grad_h: Any,
    grad_c: Any,
    weight: Tensor,
    mask: Any,
    peephole: Any,
    grad_gates: Tensor,
    kernel: list[int],
    dilation: int,
    bias: bool,
    need_h: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    steps, items, height, width, hidden = (len(activated), *c.shape[1:])
    grad_h = activated.new_empty(c.shape[1:] if need_h else 0)
    grad_c = torch.empty_like(c[0])
    return grad_h, grad_c, _sums(c, steps, items * height * width, hidden, bias, peephole)


@torch.library.register_fake("amstel::winograd_weight")
def _(weight: Tensor, transposed: bool, gates: bool) -> Tensor:
    outputs, inputs = weight.shape[:2] if not transposed else (weight.shape[1], weight.shape[0])
    blocks = -(-(outputs // 4) // 16) if gates else -(-outputs // 64)
    return weight.new_empty(blocks * 36 * 64 * inputs)


@torch.library.register_fake("amstel::winograd_conv")
def _(x: Tensor, packed: Tensor, bias: Any, out: Tensor) -> None:
    return None


@torch.library.register_fake("amstel::winograd_lstm")
def _(
    h: Tensor,
    x: Any,
    packed: Tensor,
    gates: Any,
    bias: Any,
    c: Tensor,
    peephole: Any,
    h_out: Tensor,
    c_out: Tensor,
    activated: Any,
) -> None:
    return None


@torch.library.register_fake("amstel::winograd_planes")
def _(image: Tensor, gradient: bool, first: int, offset: int, out: Tensor) -> None:
    return None
