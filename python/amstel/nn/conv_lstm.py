"""ConvLSTM modules on the fused operators of `amstel.ops.conv_lstm`, with the conventions of torch.nn.LSTM."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from amstel import _check
from amstel.ops.conv_lstm import conv_lstm, conv_lstm_cell
from amstel.reference.conv_lstm import same_conv

State = tuple[Tensor, Tensor]


_pair = _check.pair


def _widths(**widths: int) -> None:
    for name, value in widths.items():
        _check.integer(name, value, 1)


class _Gates(nn.Module):
    """Weights of one direction of one layer: weight_ih [4C, C_in, k, k], weight_hh [4C, C, k, k], bias [4C]."""

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        kernel_size: int | tuple[int, int],
        bias: bool,
        peephole: bool,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        how: dict[str, Any] = {"device": device, "dtype": dtype}
        inputs = _check.integer("in_channels", in_channels, 1)
        hidden = _check.integer("hidden_channels", hidden_channels, 1)
        kernel = _check.pair("kernel_size", kernel_size)
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden, inputs, *kernel, **how))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden, hidden, *kernel, **how))
        self.bias = nn.Parameter(torch.empty(4 * hidden, **how)) if _check.flag("bias", bias) else None
        wanted = _check.flag("peephole", peephole)
        self.peephole = nn.Parameter(torch.empty(3, hidden, **how)) if wanted else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in ±1/sqrt(fan in) of both convolutions together, biases 0 but 1 for the forget gate, peepholes 0."""
        fan_in = self.weight_ih[0].numel() + self.weight_hh[0].numel()
        for weight in (self.weight_ih, self.weight_hh):
            nn.init.uniform_(weight, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))
        if self.peephole is not None:
            nn.init.zeros_(self.peephole)
        if self.bias is not None:
            with torch.no_grad():
                self.bias.zero_().chunk(4)[1].fill_(1)


class _Layer(_Gates):
    """One direction of one layer. Its forward is where the weights are read, so that its hooks run, those of
    torch.nn.utils.prune and spectral_norm among them."""

    def forward(
        self, x: Tensor, state: State | None, lengths: Tensor | None, backwards: bool, **options: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        output, final = conv_lstm(
            _reverse(x, lengths) if backwards else x,
            self.weight_ih,
            self.weight_hh,
            self.bias,
            state,
            lengths=lengths,
            peephole=self.peephole,
            **options,
        )
        return _reverse(output, lengths) if backwards and output.dim() == 5 else output, *final

    def extra_repr(self) -> str:
        rows, inputs, *kernel = self.weight_ih.shape
        return f"{inputs}, {rows // 4}, kernel_size={tuple(kernel)}"


class ConvLSTMCell(_Gates):
    r"""One step of a ConvLSTM: gates = W_ih * x + W_hh * h + b, then `amstel.ops.conv_lstm_cell`.

    For whole sequences take `ConvLSTM`, which is faster; this is for loops whose input depends on the state.

    Args:
        in_channels, hidden_channels: C_in and C.
        kernel_size: side of both kernels, or (height, width); even kernels pad one more below and to the right.
        bias: whether there is a b; it starts at 0, at 1 for the forget gate.
        peephole: whether the gates see the cell state, one weight a channel (starts at 0).
        device, dtype: of the parameters.

    Shapes: x [N, C_in, H, W]; state None (zeros) or (h, c), each [N, C, H, W]; result (h, c).
    Parameters: weight_ih [4C, C_in, k, k], weight_hh [4C, C, k, k], bias [4C], peephole [3, C]; gates in the
    order i, f, g, o, peepholes i, f, o.

    Source: X. Shi et al., Convolutional LSTM Network, NeurIPS 2015, equation 3.

    Example:
        >>> cell = amstel.nn.ConvLSTMCell(3, 8)
        >>> h, c = cell(torch.randn(2, 3, 16, 16))
        >>> h.shape
        torch.Size([2, 8, 16, 16])
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        kernel_size: int | tuple[int, int] = 3,
        bias: bool = True,
        peephole: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(in_channels, hidden_channels, kernel_size, bias, peephole, device, dtype)
        self.hidden_channels, self.in_channels = self.weight_hh.shape[1], self.weight_ih.shape[1]

    def forward(self, x: Tensor, state: State | None = None) -> State:
        _check.tensor("x", x, "a tensor [N, C_in, H, W]")
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            _check.fail("x", f"[N, {self.in_channels}, H, W]", x)
        gates = same_conv(x, self.weight_ih, self.bias)
        shape = (x.shape[0], self.hidden_channels, *x.shape[2:])
        if state is None:
            c = gates.new_zeros(shape)
        else:
            if not isinstance(state, (tuple, list)) or len(state) != 2:
                _check.fail_type("state", "None or (h, c)", state)
            h, c = state
            for name, value in (("h", h), ("c", c)):
                if _check.tensor(name, value, f"a tensor {list(shape)}").shape != shape:
                    _check.fail(name, str(list(shape)), value)
            gates = gates + same_conv(h, self.weight_hh)
        return conv_lstm_cell(gates, c, self.peephole)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.hidden_channels}, kernel_size={tuple(self.weight_ih.shape[2:])}"


class ConvLSTM(nn.Module):
    r"""Stacked, optionally bidirectional ConvLSTM over a sequence, with the interface of torch.nn.LSTM.

    Args:
        in_channels, hidden_channels: C_in and C.
        kernel_size: side of the kernels, or (height, width).
        num_layers: layers, each on the output of the one below.
        bias: whether the gates have a bias; it starts at 0, at 1 for the forget gate.
        batch_first: x and output are [N, T, ...] instead of [T, N, ...].
        bidirectional: a second direction from the last step to the first; the channels of both are concatenated.
        dropout: rate of whole channels dropped between layers while training.
        peephole: whether the gates see the cell state, one weight a channel.
        dilation: of both convolutions.
        padding: "same", or "valid" for input convolutions without padding, in every layer: output and state of
            a layer are then dilation * (k - 1) smaller than what it reads.
        return_sequences: False returns only the last layer's last output, [N, C, H, W], and stores one frame of it.
        memory: "store" keeps the activated gates for the backward pass, "recompute" computes them again.
        state_dtype: of c_n: None for that of c_0, or of the output without one. torch.float32 loses no bits of a
            bfloat16 or float16 sequence that goes on with its state in a later call.
        device, dtype: of the parameters.

    Shapes: x [T, N, C_in, H, W]; state None (zeros) or (h_0, c_0), each [num_layers * D, N, C, H, W] with D = 2 if
    bidirectional, else 1, in torch.nn.LSTM's order (layer 0 forward, layer 0 backward, layer 1 forward, ...);
    lengths None or [N] integers from 1 to T: what lies past the end of a sequence is neither read nor
    differentiated, the output there is 0 and the state is that of the last step.
    Returns output [T, N, D * C, H, W] and (h_n, c_n), each [num_layers * D, N, C, H, W]. With padding="valid" H and W
    of output and states are the smaller ones; with several layers, whose sizes then differ, h_0, c_0, h_n and c_n
    are tuples of num_layers * D tensors [N, C, H_l, W_l] instead.

    Source: X. Shi et al., Convolutional LSTM Network, NeurIPS 2015, equation 3.

    Example:
        >>> lstm = amstel.nn.ConvLSTM(3, 8, num_layers=2)
        >>> output, (h_n, c_n) = lstm(torch.randn(5, 2, 3, 16, 16))
        >>> output.shape, h_n.shape
        (torch.Size([5, 2, 8, 16, 16]), torch.Size([2, 2, 8, 16, 16]))
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        kernel_size: int | tuple[int, int] = 3,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        *,
        dropout: float = 0.0,
        peephole: bool = False,
        dilation: int = 1,
        padding: str = "same",
        return_sequences: bool = True,
        memory: str = "store",
        state_dtype: torch.dtype | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.in_channels = _check.integer("in_channels", in_channels, 1)
        self.hidden_channels = _check.integer("hidden_channels", hidden_channels, 1)
        self.num_layers = _check.integer("num_layers", num_layers, 1)
        self.dilation = _check.integer("dilation", dilation, 1)
        self.dropout = float(_check.number("dropout", dropout, "in [0, 1)", least=0, below=1))
        self.memory = _check.choice("memory", memory, ("store", "recompute"))
        self.padding = _check.choice("padding", padding, ("same", "valid"))
        self.batch_first = _check.flag("batch_first", batch_first)
        self.bidirectional = _check.flag("bidirectional", bidirectional)
        self.return_sequences = _check.flag("return_sequences", return_sequences)
        self.kernel_size = _check.pair("kernel_size", kernel_size)
        if state_dtype is not None and state_dtype not in _check.FLOATS:
            _check.fail("state_dtype", "None or a floating-point dtype", state_dtype)
        self.state_dtype = state_dtype
        directions = 2 if bidirectional else 1
        self.layers = nn.ModuleList(
            _Layer(
                self.in_channels if layer == 0 else directions * self.hidden_channels,
                self.hidden_channels,
                self.kernel_size,
                bias,
                peephole,
                device,
                dtype,
            )
            for layer in range(num_layers)
            for _ in range(directions)
        )

    def reset_parameters(self) -> None:
        """Every layer and direction as `ConvLSTMCell.reset_parameters` does."""
        for layer in self.layers:
            cast(_Gates, layer).reset_parameters()

    def forward(
        self, x: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        _check.tensor("x", x, "a tensor [T, N, C_in, H, W]")
        if x.dim() != 5 or x.shape[2] != self.in_channels:
            first = "N, T" if self.batch_first else "T, N"
            _check.fail("x", f"[{first}, {self.in_channels}, H, W]", x)
        if self.batch_first:
            x = x.transpose(0, 1)
        if state is not None:
            if not isinstance(state, (tuple, list)) or len(state) != 2:
                _check.fail_type("state", "None or (h_0, c_0)", state)
            count = len(self.layers)
            shape = (count, x.shape[1], self.hidden_channels, *x.shape[3:])
            for name, value in zip(("h_0", "c_0"), state, strict=True):
                if self.padding == "same":
                    if _check.tensor(name, value, f"a tensor {list(shape)}").shape != shape:
                        _check.fail(name, str(list(shape)), value)
                elif not isinstance(value, (Tensor, tuple, list)):
                    _check.fail_type(name, f"{count} states, one a layer and direction", value)
                if len(value) != count:  # without padding sizes differ; conv_lstm checks each
                    raise ValueError(
                        f"`{name}` must be {count} states, one a layer and direction, got {len(value)}"
                    )
        directions = 2 if self.bidirectional else 1
        last: list[State] = []
        options = {"dilation": self.dilation, "padding": self.padding, "memory": self.memory}
        for k in range(self.num_layers):
            top = k == self.num_layers - 1
            if k and self.dropout:
                x = nn.functional.dropout2d(x.flatten(0, 1), self.dropout, self.training).view_as(x)
            outputs = []
            for d in range(directions):
                n = k * directions + d
                output, *final = self.layers[n](
                    x,
                    None if state is None else (state[0][n], state[1][n]),
                    lengths,
                    d == 1,
                    return_sequences=self.return_sequences or not top,
                    state_dtype=self.state_dtype,
                    **options,
                )
                outputs.append(output)
                last.append((final[0], final[1]))
            x = outputs[0] if directions == 1 else torch.cat(outputs, -3)
        if self.batch_first and x.dim() == 5:
            x = x.transpose(0, 1)
        h_n, c_n = zip(*last, strict=True)
        if self.padding == "valid" and self.num_layers > 1:
            return x, (h_n, c_n)  # type: ignore[return-value]
        return x, (torch.stack(h_n), torch.stack(c_n))

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.hidden_channels}, kernel_size={self.kernel_size}, num_layers={self.num_layers}, "
            f"bidirectional={self.bidirectional}, memory={self.memory!r}"
        )


def _reverse(x: Tensor, lengths: Tensor | None) -> Tensor:
    """x [T, N, ...] backwards in time; every sequence from its own end, what lies past it stays."""
    if lengths is None:
        return x.flip(0)
    steps = torch.arange(x.shape[0], device=x.device)[:, None]
    lengths = lengths.to(x.device)
    index = torch.where(steps < lengths, lengths - 1 - steps, steps)
    return x[index, torch.arange(x.shape[1], device=x.device)]
