"""Which products this processor and this build of PyTorch compute fast on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

# Tiles of bfloat16 in hardware outdo Winograd's algorithm, which here is float32.
AMX = bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())
# Short types that the processor multiplies; PyTorch's convolutions take up to 13 times as long as in float32 without.
MULTIPLIED = {
    torch.bfloat16: AMX or bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()),
    torch.float16: bool(getattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", bool)()),
}
# Of few rows and heavy float32 weights, oneDNN's product takes up to a third less time than that of `linear`, which is
# the BLAS library's. That one's bits change with the number of threads; oneDNN's did not, but it promises nothing.
ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def heavy_product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """rows weight^T + bias, of [n, k] and [m, k]."""
    if ONEDNN and rows.dtype == torch.float32 and len(rows):
        return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return linear(rows, weight, bias)


def weight_of_heavy_product(weight: Tensor) -> Tensor:
    """[m, k] as amstel::conv_lstm_steps wants it for that product: [1, m, k] where it is oneDNN's."""
    return weight[None] if ONEDNN and weight.dtype == torch.float32 else weight
