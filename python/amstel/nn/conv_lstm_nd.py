"""ConvLSTMs over sequences of lines and of volumes. Lines run as images of one row, volumes step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amstel import _check
from amstel.nn._conv_lstm import State, _reverse, check_size
from amstel.nn._lengths import kept as kept_steps
from amstel.nn._like import check_like
from amstel.nn._sequences import states, steps_first
from amstel.nn.conv_lstm import ConvLSTM
from amstel.ops.conv_lstm import conv_lstm_cell


class ConvLSTM1d(ConvLSTM):
    r"""`ConvLSTM` over lines, x [T, N, C_in, L], with the same operator.

    Args:
        in_channels, hidden_channels: C_in and C; a list gives C for each layer.
        kernel_size: length of the kernels, or a list with one per layer.
        stride, feature_size: one number each; stride may be a list with one per layer.
        options: num_layers, bias, batch_first, bidirectional and the rest, as for `ConvLSTM`.

    Shapes: as for `ConvLSTM`, with L in place of H, W.
    Parameters: weight_ih [4C, C_in, 1, k] and so on, as of a ConvLSTM over images with one row.

    Source: X. Shi et al., Convolutional LSTM Network, NeurIPS 2015, equation 3.

    Example:
        >>> lstm = amstel.nn.ConvLSTM1d(3, 8, kernel_size=5)
        >>> output, (h_n, c_n) = lstm(torch.randn(6, 2, 3, 40))
        >>> output.shape, h_n.shape
        (torch.Size([6, 2, 8, 40]), torch.Size([1, 2, 8, 40]))
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int | Sequence[int],
        kernel_size: int | Sequence[int] = 3,
        num_layers: int | None = None,
        *,
        stride: int | Sequence[int] = 1,
        feature_size: int | None = None,
        **options: Any,
    ):
        if feature_size is not None:
            options["feature_size"] = (1, _check.integer("feature_size", feature_size, 1))
        kernel, step = _rows("kernel_size", kernel_size), _rows("stride", stride)
        super().__init__(in_channels, hidden_channels, kernel, num_layers, stride=step, **options)

    def forward(
        self, x: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """output [T, N, D * C, L] and (h_n, c_n) for x [T, N, C_in, L], state (h_0, c_0) or None, lengths [N] or None."""
        first = "N, T" if self.batch_first else "T, N"
        _check.dense("x", x, f"a tensor [{first}, {self.in_channels}, L]")
        if x.dim() != 4 or x.shape[2] != self.in_channels:
            _check.fail("x", f"[{first}, {self.in_channels}, L]", x)
        check_size("x", x, self)
        output, (h, c) = super().forward(x.unsqueeze(3), _each(state, lambda t: t.unsqueeze(-2)), lengths)
        return _each(output, lambda t: t.squeeze(-2)), _each((h, c), lambda t: t.squeeze(-2))


def _rows(name: str, value: Any) -> Any:
    """Numbers as (1, number), one or a list of them."""
    if isinstance(value, (tuple, list)):
        return [(1, _check.integer(f"{name}[{k}]", v, 1)) for k, v in enumerate(value)]
    return (1, _check.integer(name, value, 1))


def _each(value: Any, what: Any) -> Any:
    """A function of every tensor of nested tuples and lists; what else there is stays, for a check to find."""
    if isinstance(value, Tensor):
        return what(value) if value.dim() > 1 else value
    return tuple(_each(v, what) for v in value) if isinstance(value, (tuple, list)) else value


class _Layer(nn.Module):
    """One direction of one layer over x [T, N, C_in, D, H, W]."""

    def __init__(self, inputs: int, hidden: int, kernel: tuple[int, ...], bias: bool, how: dict[str, Any]):
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden, inputs, *kernel, **how))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden, hidden, *kernel, **how))
        self.bias = nn.Parameter(torch.empty(4 * hidden, **how)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in ±1/sqrt(fan in) of both convolutions together, biases 0 but 1 for the forget gate."""
        bound = 1 / math.sqrt(self.weight_ih[0].numel() + self.weight_hh[0].numel())
        for weight in (self.weight_ih, self.weight_hh):
            nn.init.uniform_(weight, -bound, bound)
        if self.bias is not None:
            with torch.no_grad():
                self.bias.zero_().chunk(4)[1].fill_(1.0)

    def forward(self, x: Tensor, state: State | None, lengths: Tensor | None, backwards: bool) -> Any:
        check_like("x", x, self.weight_ih)
        x = _reverse(x, lengths) if backwards else x
        kept = kept_steps(lengths, x.shape[0], x.shape[1], x.device)
        if kept is not None:
            kept = kept.view(*kept.shape, 1, 1, 1, 1)
            x = torch.where(kept, x, x.new_zeros(()))
        gates = _conv(x.flatten(0, 1), self.weight_ih, self.bias).unflatten(0, x.shape[:2])
        shape = (x.shape[1], self.weight_hh.shape[1], *x.shape[3:])
        wide = torch.promote_types(gates.dtype, torch.float32)  # as in the fused operator
        h, c = (gates.new_zeros(shape),) * 2 if state is None else state
        h, c = h.to(gates.dtype), c.to(wide)
        outputs = []
        for t, a in enumerate(gates.unbind(0)):
            a = a + _conv(h, self.weight_hh, None)
            # The gates are of every place by itself, whatever the places are of.
            new_h, new_c = (
                part.unflatten(3, shape[3:]) for part in conv_lstm_cell(a.flatten(3), c.flatten(3))
            )
            if kept is not None:
                new_h, new_c = torch.where(kept[t], new_h, h), torch.where(kept[t], new_c, c)
            h, c = new_h, new_c
            outputs.append(h)
        output = torch.stack(outputs)
        if kept is not None:
            output = torch.where(kept, output, output.new_zeros(()))
        c = c.to(gates.dtype if state is None else state[1].dtype)
        return _reverse(output, lengths) if backwards else output, h, c


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Padded so that the size stays; an even kernel pads one more behind."""
    pads: list[int] = []
    for k in weight.shape[2:]:
        pads = [(k - 1) // 2, k // 2, *pads]
    if pads[::2] == pads[1::2]:
        return F.conv3d(x, weight, bias, padding=pads[::-2])
    return F.conv3d(F.pad(x, pads), weight, bias)


class ConvLSTM3d(nn.Module):
    r"""ConvLSTM over volumes, x [T, N, C_in, D, H, W], step by step with PyTorch's conv3d and the fused gates.

    Args:
        in_channels, hidden_channels: C_in and C; a list gives C for each layer.
        kernel_size: side of the kernels, or (depth, height, width); the same for all layers.
        num_layers: number of stacked layers; None: as many as hidden_channels has, or 1.
        bias: whether the gates have a bias; it starts at 0, at 1 for the forget gate.
        batch_first: x and output are [N, T, ...] instead of [T, N, ...].
        bidirectional: also run from the last step to the first, and concatenate the channels of both directions.
        dropout: probability of dropping whole channels between layers in training.
        device, dtype: of the parameters.

    Shapes: state None (zeros) or (h_0, c_0), each [num_layers * directions, N, C, D, H, W], with 1 or 2 directions in the
    order of torch.nn.LSTM; lengths as for `ConvLSTM`. Returns output [T, N, directions * C, D, H, W] and (h_n, c_n). With
    layers of different widths, states are tuples with one tensor per layer and direction.
    Parameters: layers.{l}.weight_ih [4C, C_in, k, k, k], weight_hh [4C, C, k, k, k], bias [4C]; gates i, f, g, o.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Source: X. Shi et al., Convolutional LSTM Network, NeurIPS 2015, equation 3.

    Example:
        >>> lstm = amstel.nn.ConvLSTM3d(1, 4)
        >>> output, (h_n, c_n) = lstm(torch.randn(3, 2, 1, 6, 8, 8))
        >>> output.shape, c_n.shape
        (torch.Size([3, 2, 4, 6, 8, 8]), torch.Size([1, 2, 4, 6, 8, 8]))
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int | Sequence[int],
        kernel_size: int | tuple[int, int, int] = 3,
        num_layers: int | None = None,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        *,
        dropout: float = 0.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.in_channels = _check.integer("in_channels", in_channels, 1)
        listed = isinstance(hidden_channels, (tuple, list))
        widths = list(hidden_channels) if listed else [hidden_channels]  # type: ignore[arg-type]
        n = _check.integer("num_layers", len(widths) if num_layers is None else num_layers, 1)
        if listed and len(widths) != n:
            _check.fail("hidden_channels", f"an integer >= 1, or a list of num_layers = {n}", hidden_channels)
        hidden = [_check.integer("hidden_channels", w, 1) for w in (widths if listed else widths * n)]
        kernel = (kernel_size,) * 3 if not isinstance(kernel_size, (tuple, list)) else tuple(kernel_size)
        if len(kernel) != 3:
            _check.fail("kernel_size", "an integer >= 1 or three of them", kernel_size)
        self.kernel_size = tuple(_check.integer("kernel_size", k, 1) for k in kernel)
        self.num_layers, self.hidden_channels = n, hidden[0] if len(set(hidden)) == 1 else tuple(hidden)
        self.batch_first = _check.flag("batch_first", batch_first)
        self.bidirectional = _check.flag("bidirectional", bidirectional)
        self.dropout = float(_check.number("dropout", dropout, "in [0, 1)", least=0, below=1))
        directions, wanted = 2 if bidirectional else 1, _check.flag("bias", bias)
        self._widths = [width for width in hidden for _ in range(directions)]
        inputs = [self.in_channels, *(directions * width for width in hidden)]
        how: dict[str, Any] = {"device": device, "dtype": dtype}
        self.layers = nn.ModuleList(
            _Layer(inputs[k // directions], width, self.kernel_size, wanted, how)
            for k, width in enumerate(self._widths)
        )

    def reset_parameters(self) -> None:
        """Reset every layer and direction."""
        for layer in self.layers:
            layer.reset_parameters()  # type: ignore[operator]

    def forward(
        self, x: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """output [T, N, directions * C, D, H, W] and (h_n, c_n) of x [T, N, C_in, D, H, W], state, lengths [N]."""
        x = steps_first(x, self.in_channels, self.batch_first, "D, H, W")
        initial: list[Any] = [None] * len(self._widths)
        if state is not None:
            if not isinstance(state, (tuple, list)) or len(state) != 2:
                _check.fail_type("state", "None or (h_0, c_0)", state)
            h_0, c_0 = (
                states("h_0", state[0], self._widths, x),
                states("c_0", state[1], self._widths, x, True),
            )
            initial = list(zip(h_0, c_0, strict=True))
        directions = 2 if self.bidirectional else 1
        last: list[State] = []
        for k in range(self.num_layers):
            if k and self.dropout:
                x = F.dropout3d(x.flatten(0, 1), self.dropout, self.training).view_as(x)
            found = []
            for d in range(directions):
                m = k * directions + d
                output, *final = self.layers[m](x, initial[m], lengths, d == 1)
                found.append(output)
                last.append((final[0], final[1]))
            x = found[0] if directions == 1 else torch.cat(found, 2)
        h_n, c_n = zip(*last, strict=True)
        output = x.transpose(0, 1) if self.batch_first else x
        if isinstance(self.hidden_channels, tuple):
            return output, (h_n, c_n)  # type: ignore[return-value]
        return output, (torch.stack(h_n), torch.stack(c_n))

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.hidden_channels}, kernel_size={self.kernel_size}, num_layers={self.num_layers}"
