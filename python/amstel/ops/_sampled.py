"""`amstel.ops.spmm` on a SampledGraph, with the degrees of the whole graph and self-loops of the targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from amstel import _check
from amstel.ops._spmm import factors_of, sum_dtype


def propagate(
    spmm: Callable[..., Tensor],
    graph: Any,
    x: Any,
    edge_weight: Any,
    norm: str,
    self_loops: Any,
    bias: Any,
    activation: Any,
) -> Tensor:
    """By plain products with `spmm`; the arguments that they do not check are checked here."""
    if edge_weight is not None:
        raise ValueError("`edge_weight` must be None on a SampledGraph, whose weights belong to the sample")
    _check.choice("norm", norm, ("sym", "row", "sym_inout", "none"))
    pair = type(x) is tuple
    if pair and len(x) != 2:
        _check.fail("x", "a tensor or a pair (x_src, x_dst)", x)
    source = _check.tensor("x", x[0] if pair else x, "a tensor or a pair (x_src, x_dst) of tensors")
    if source.dtype not in _check.FLOATS or source.dim() not in (2, 3):
        _check.fail("x", "floating point [N, F] or [B, N, F]", source)
    dtype, rows = sum_dtype(source.dtype), graph.num_rows
    learns = isinstance(self_loops, Tensor)
    if not learns:
        self_loops = _check.number("self_loops", self_loops)
    elif self_loops.numel() != 1 or self_loops.dtype not in _check.FLOATS:
        _check.fail("self_loops", "a number or a floating-point tensor []", self_loops)
    plain: dict[str, Any] = {"norm": "none", "self_loops": 0.0}
    if not learns and not (pair and self_loops != 0):
        product = graph._product(norm, self_loops, dtype)
        return spmm(product, source, bias=bias, activation=activation, **plain)
    own = x[1] if pair else source[..., :rows, :]
    shape = [*source.shape[:-2], rows, source.shape[-1]]
    if own is None:
        raise ValueError(f"`x` must be a pair (x_src, x_dst) of tensors where `self_loops` is {self_loops}")
    _check.tensor("x", own, "a pair (x_src, x_dst) of tensors")
    if list(own.shape) != shape or own.dtype != source.dtype or own.device != source.device:
        _check.fail("x", f"a pair (x_src, x_dst), x_dst {shape} like x_src", own)
    _check.choice("activation", activation, (None, "relu"))
    if bias is not None:
        _check.vector("bias", bias, source.shape[-1], source)
    kind = source.dtype
    if torch.is_autocast_enabled(source.device.type) and kind != torch.float64:
        kind = torch.get_autocast_dtype(source.device.type)
    with torch.autocast(source.device.type, enabled=False):
        value = self_loops.to(dtype).reshape(()) if learns else self_loops
        row, col = graph._factors_there(norm, dtype, factors_of, value)
        scaled, mine = source.to(dtype), own.to(dtype)
        if col is not None:
            scaled, mine = scaled * col[:, None], mine * col[:rows, None]
        y = spmm(graph._product("none", 0.0, dtype), scaled, **plain) + value * mine
        if row is not None:
            y = y * row[:, None]
        y = y if bias is None else y + bias.to(dtype)
        return (y.relu() if activation == "relu" else y).to(kind)
