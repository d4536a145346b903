"""A convolutional GRU cell on the fused gates of `amstel.ops.conv_gru_cell`, with the conventions of torch.nn.GRUCell."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from amstel import _check, ops
from amstel.ops.conv_gru import conv_gru_pointwise
from amstel.reference.conv_lstm import same_conv


class ConvGRUCell(nn.Module):
    r"""One step of a convolutional GRU: gates of x and of h by convolutions, then `amstel.ops.conv_gru_cell`.

    .. code-block:: text

        g_x = W_ih * x + b_ih     g_h = W_hh * h + b_hh        in the order r, z, n
        r = σ(x_r + h_r)   z = σ(x_z + h_z)   n = tanh(x_n + r ⊙ h_n)   h' = (1 - z) ⊙ n + z ⊙ h

    Args:
        in_channels, hidden_channels: C_in and C.
        kernel_size: side of both kernels; an even one pads one more below and to the right.
        memory: what the gradient keeps, see `amstel.ops.conv_gru_cell`.
        reset: "after" the product with the weights, as above, or "before" it, as in the paper:
            h_n = W_hn * (r ⊙ h) + b_hn and n = tanh(x_n + h_n). This is another function, and not fused.
        device, dtype: of the parameters.

    Shapes: x [N, C_in, H, W]; h [N, C, H, W] or None (zeros); result [N, C, H, W]. With kernel_size=1
    channels_last tensors are read without a copy, and the result is one.
    Parameters: weight_ih [3C, C_in, k, k], weight_hh [3C, C, k, k], bias_ih and bias_hh [3C].

    Source: N. Ballas et al., Delving Deeper into Convolutional Networks, ICLR 2016, equations 9-12, in the order of
    gates of torch.nn.GRUCell and with its reset after the product with the weights.

    Example:
        >>> cell = amstel.nn.ConvGRUCell(3, 8, kernel_size=3)
        >>> cell(torch.randn(2, 3, 16, 16)).shape
        torch.Size([2, 8, 16, 16])
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        kernel_size: int = 1,
        *,
        memory: str = "store",
        reset: str = "after",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.in_channels = inputs = _check.integer("in_channels", in_channels, 1)
        self.hidden_channels = hidden = _check.integer("hidden_channels", hidden_channels, 1)
        size = _check.integer("kernel_size", kernel_size, 1)
        self.memory = _check.choice("memory", memory, ("store", "recompute"))
        self.reset = _check.choice("reset", reset, ("after", "before"))
        how: dict[str, Any] = {"device": device, "dtype": dtype}
        self.weight_ih = nn.Parameter(torch.empty(3 * hidden, inputs, size, size, **how))
        self.weight_hh = nn.Parameter(torch.empty(3 * hidden, hidden, size, size, **how))
        self.bias_ih = nn.Parameter(torch.empty(3 * hidden, **how))
        self.bias_hh = nn.Parameter(torch.empty(3 * hidden, **how))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in ±1/sqrt(fan in), of each convolution; biases 0."""
        for weight in (self.weight_ih, self.weight_hh):
            bound = 1 / math.sqrt(weight[0].numel())
            nn.init.uniform_(weight, -bound, bound)
        nn.init.zeros_(self.bias_ih)
        nn.init.zeros_(self.bias_hh)

    def forward(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        _check.dense("x", x, "a tensor [N, C_in, H, W]")
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            _check.fail("x", f"[N, {self.in_channels}, H, W]", x)
        shape = (x.shape[0], self.hidden_channels, *x.shape[2:])
        if h is not None and _check.dense("h", h, "a tensor [N, C, H, W]").shape != shape:
            _check.fail("h", f"{list(shape)}", h)
        if self.weight_ih.shape[2:] == (1, 1) and self.reset == "after":
            return self._by_pixels(x, h)
        gates_x = same_conv(x, self.weight_ih, self.bias_ih)
        c = self.hidden_channels
        h = torch.zeros_like(gates_x[:, :c]) if h is None else h.to(gates_x.dtype)
        if self.reset == "after":
            gates_h = same_conv(h, self.weight_hh, self.bias_hh)
            return ops.conv_gru_cell(gates_x, gates_h, h, memory=self.memory)
        r, z = torch.sigmoid(
            gates_x[:, : 2 * c] + same_conv(h, self.weight_hh[: 2 * c], self.bias_hh[: 2 * c])
        ).chunk(2, 1)
        n = torch.tanh(gates_x[:, 2 * c :] + same_conv(r * h, self.weight_hh[2 * c :], self.bias_hh[2 * c :]))
        return (1 - z) * n + z * h

    def _by_pixels(self, x: Tensor, h: Tensor | None) -> Tensor:
        """With 1x1 kernels every pixel is by itself, and the convolutions are products of matrices."""
        n, _, height, width = x.shape
        weights = self.weight_ih.flatten(1), self.weight_hh.flatten(1), self.bias_ih, self.bias_hh
        new = conv_gru_pointwise(_pixels(x), None if h is None else _pixels(h), *weights, memory=self.memory)
        return new.view(n, height, width, self.hidden_channels).permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        size = self.weight_ih.shape[-1]
        return f"{self.in_channels}, {self.hidden_channels}, kernel_size={size}, reset={self.reset!r}"


def _pixels(x: Tensor) -> Tensor:
    """[N, C, H, W] as [N H W, C], without a copy from channels_last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
