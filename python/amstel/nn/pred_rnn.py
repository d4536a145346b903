"""The spatiotemporal LSTM cell of PredRNN, with one memory that runs through time and one that runs up the layers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from amstel import _check
from amstel._torch import autocast_dtype
from amstel.nn._like import check_like
from amstel.ops.conv_lstm import checked_state, conv_lstm_cell
from amstel.reference.conv_lstm import same_conv


class PredRNNCell(nn.Module):
    r"""One step of a layer of PredRNN (ST-LSTM).

    .. code-block:: text

        i, f, g    = σ, σ, tanh of W_x x + W_h h + b          c' = f ⊙ c + i ⊙ g        (through time)
        i', f', g' = σ, σ, tanh of W'_x x + W_m m + b'        m' = f' ⊙ m + i' ⊙ g'     (through the layers)
        o = σ(W_xo x + W_ho h + W_co c' + W_mo m' + b_o)      h' = o ⊙ tanh(W_1x1 [c', m'])

    A layer passes its m' to the layer above, and the top layer passes it to the bottom layer of the next step. Both
    memories are computed by the fused cell of `amstel.ops.conv_lstm_cell`.

    Args:
        in_channels, hidden_channels: C_in and C.
        kernel_size: side of all kernels but the last, or (height, width); even kernels pad one more at the bottom and right.
        bias: whether there are biases; they start at 0, at forget_bias for f and f'.
        forget_bias: see above.
        device, dtype: of the parameters.

    Shapes: x [N, C_in, H, W]; state None (zeros) or (h, c, m), each [N, C, H, W]; result (h', c', m').
    Parameters: weight_x [7C, C_in, k, k] in the order i, f, g, o, i', f', g'; weight_h [4C, C, k, k] of i, f, g, o;
    weight_m [3C, C, k, k] of i', f', g'; weight_o [C, 2C, k, k] of [c', m']; weight_last [C, 2C, 1, 1]; bias [7C].
    Differentiable in all of them, in x and in the state.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Source: Y. Wang, M. Long, J. Wang, Z. Gao, P. Yu, PredRNN: Recurrent Neural Networks for Predictive Learning using
    Spatiotemporal LSTMs, NeurIPS 2017, equation 4.

    Example:
        >>> low, top = amstel.nn.PredRNNCell(3, 8), amstel.nn.PredRNNCell(8, 8)
        >>> x = torch.randn(2, 3, 16, 16)
        >>> h, c, m = low(x)
        >>> zeros = torch.zeros_like(h)
        >>> top(h, (zeros, zeros, m))[0].shape
        torch.Size([2, 8, 16, 16])
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        kernel_size: int | tuple[int, int] = 3,
        bias: bool = True,
        *,
        forget_bias: float = 1.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        how: dict[str, Any] = {"device": device, "dtype": dtype}
        self.in_channels = inputs = _check.integer("in_channels", in_channels, 1)
        self.hidden_channels = c = _check.integer("hidden_channels", hidden_channels, 1)
        kernel = _check.pair("kernel_size", kernel_size)
        self.forget_bias = float(_check.number("forget_bias", forget_bias))
        self.weight_x = nn.Parameter(torch.empty(7 * c, inputs, *kernel, **how))
        self.weight_h = nn.Parameter(torch.empty(4 * c, c, *kernel, **how))
        self.weight_m = nn.Parameter(torch.empty(3 * c, c, *kernel, **how))
        self.weight_o = nn.Parameter(torch.empty(c, 2 * c, *kernel, **how))
        self.weight_last = nn.Parameter(torch.empty(c, 2 * c, 1, 1, **how))
        self.bias = nn.Parameter(torch.empty(7 * c, **how)) if _check.flag("bias", bias) else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights of each convolution uniform in ±1/sqrt(fan in), biases 0, those of f and f' forget_bias."""
        for weight in (self.weight_x, self.weight_h, self.weight_m, self.weight_o, self.weight_last):
            bound = 1 / math.sqrt(weight[0].numel())
            nn.init.uniform_(weight, -bound, bound)
        if self.bias is not None:
            with torch.no_grad():
                parts = self.bias.zero_().chunk(7)
                parts[1].fill_(self.forget_bias)
                parts[5].fill_(self.forget_bias)

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The next (h, c, m), each [N, C, H, W], of x [N, C_in, H, W] and state (h, c, m), None for zeros."""
        _check.dense("x", x, "a tensor [N, C_in, H, W]")
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            _check.fail("x", f"[N, {self.in_channels}, H, W]", x)
        check_like("x", x, self.weight_x)
        c4 = 4 * self.hidden_channels
        shape = (x.shape[0], self.hidden_channels, *x.shape[2:])
        from_x = same_conv(x, self.weight_x, self.bias)
        if state is None:
            h = c = m = from_x.new_zeros(shape)
        else:
            if not isinstance(state, (tuple, list)) or len(state) != 3:
                _check.fail_type("state", "None or (h, c, m)", state)
            # Only autocast brings a wider c or m to the dtype of the convolutions that read them.
            wide = autocast_dtype(x) is not None
            h = checked_state("h", state[0], shape, x)
            c, m = (checked_state(name, state[k], shape, x, wide) for k, name in ((1, "c"), (2, "m")))
        first = from_x[:, :c4] + same_conv(h, self.weight_h)
        second = from_x[:, c4:] + same_conv(m, self.weight_m)
        # The output gate of the fused cell is not theirs: its h is left out.
        output = first[:, c4 - self.hidden_channels :]
        _, c = conv_lstm_cell(first, c)
        _, m = conv_lstm_cell(torch.cat([second, output], 1), m)
        both = torch.cat([c, m], 1)
        o = torch.sigmoid(output + same_conv(both, self.weight_o))
        return o * torch.tanh(same_conv(both, self.weight_last)), c, m

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.hidden_channels}, kernel_size={tuple(self.weight_x.shape[2:])}"
