"""The layers of github.com/kamo-naoyuki/pytorch_convolutional_rnn, under their own names, on amstel's operators.

For existing code, change only the import:

.. code-block:: text

    import convolutional_rnn    becomes    from amstel.interop import convolutional_rnn

There are Conv{1,2,3}d{LSTM,PeepholeLSTM,GRU,RNN} and their cells. Arguments, results and names of parameters are the same,
so its checkpoints load unchanged. `Conv2dLSTM` with stride 1 and groups 1 runs fused. The others run step by step with
PyTorch's convolutions, except that the input is convolved for all steps at once. A PeepholeLSTM also convolves the cell
state, without bias: a_i += W_pi * c, a_f += W_pf * c, and a_o += W_po * c' with the new cell state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from amstel import _check
from amstel._torch import autocast_dtype
from amstel._words import counted
from amstel.nn._conv_lstm import _reverse
from amstel.nn._lengths import kept as kept_steps
from amstel.nn._like import check_like_model
from amstel.ops.conv_lstm import checked_state, conv_lstm

_GATES = {"LSTM": 4, "PeepholeLSTM": 4, "GRU": 3, "tanh": 1, "relu": 1}
_PEEPHOLES = ("weight_pi", "weight_pf", "weight_po")


class _Convs(nn.Module):
    """Weights and one step of any layer or cell; `_dims` and `_mode` are of the class."""

    _dims = 2
    _mode = "LSTM"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        bias: bool,
        stride: Any,
        dilation: Any,
        groups: int,
        suffixes: Sequence[str],
        directions: int = 1,
        nonlinearity: str = "tanh",
    ):
        super().__init__()
        if self._mode not in _GATES:
            self._mode = _check.choice("nonlinearity", nonlinearity, ("tanh", "relu"))
        self.in_channels = _check.integer("in_channels", in_channels, 1)
        self.out_channels = c = _check.integer("out_channels", out_channels, 1)
        self.kernel_size, self.stride, self.dilation = (
            self._each(name, value)
            for name, value in (("kernel_size", kernel_size), ("stride", stride), ("dilation", dilation))
        )
        self.bias, self.groups = _check.flag("bias", bias), _check.integer("groups", groups, 1)
        if self.in_channels % self.groups or c % self.groups:
            _check.fail("groups", "a divisor of in_channels and out_channels", groups)
        rows = _GATES[self._mode] * c
        for n, suffix in enumerate(suffixes):
            inputs = self.in_channels if n < directions else directions * c
            shapes = {"weight_ih": (rows, inputs // self.groups, *self.kernel_size)}
            shapes["weight_hh"] = (rows, c // self.groups, *self.kernel_size)
            if self._mode == "PeepholeLSTM":
                shapes |= dict.fromkeys(_PEEPHOLES, (c, c // self.groups, *self.kernel_size))
            if self.bias:
                shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
            for name, shape in shapes.items():
                self.register_parameter(name + suffix, nn.Parameter(torch.empty(shape)))
        self.reset_parameters()

    def _each(self, name: str, value: Any) -> tuple[int, ...]:
        values = value if isinstance(value, (tuple, list)) else (value,) * self._dims
        if not isinstance(values, (tuple, list)) or len(values) != self._dims:
            _check.fail(name, f"an integer or {self._dims} of them", value)
        return tuple(_check.integer(name, v, 1) for v in values)

    def reset_parameters(self) -> None:
        """Uniform in ±1/sqrt(out_channels)."""
        for p in self.parameters():
            nn.init.uniform_(p, -1 / math.sqrt(self.out_channels), 1 / math.sqrt(self.out_channels))

    @property
    def _has_cell_state(self) -> bool:
        return self._mode.endswith("LSTM")

    def _weights(self, suffix: str) -> tuple[Any, ...]:
        more = _PEEPHOLES if self._mode == "PeepholeLSTM" else ()
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", *more)
        return tuple(getattr(self, name + suffix, None) for name in names)

    def _conv(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Padded so that the size stays, whatever the stride."""
        pads: list[int] = []
        sizes = zip(x.shape[2:], self.kernel_size, self.stride, self.dilation, strict=True)
        for size, k, s, d in reversed(list(sizes)):
            total = (size - 1) * (s - 1) + d * (k - 1)
            pads += [total // 2, (total + 1) // 2]
        conv = (F.conv1d, F.conv2d, F.conv3d)[self._dims - 1]
        return conv(F.pad(x, pads), weight, bias, self.stride, 0, self.dilation, self.groups)

    def _step(self, a: Tensor, weights: tuple[Any, ...], state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The next state from what x gives to the gates, a."""
        _, weight_hh, _, bias_hh, *peepholes = weights
        h, b = state[0], self._conv(state[0], weight_hh, bias_hh)
        if self._has_cell_state:
            c = state[1]
            i, f, g, o = (a + b).chunk(4, 1)
            if peepholes:
                i, f = (gate + self._conv(c, w, None) for gate, w in zip((i, f), peepholes, strict=False))
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            if peepholes:
                o = o + self._conv(c, peepholes[2], None)
            return o.sigmoid() * c.tanh(), c
        if self._mode == "GRU":
            (r, z, n), (r_h, z_h, n_h) = a.chunk(3, 1), b.chunk(3, 1)
            n = torch.tanh(n + torch.sigmoid(r + r_h) * n_h)
            z = torch.sigmoid(z + z_h)
            return (n + z * (h - n),)
        return ((a + b).tanh() if self._mode == "tanh" else (a + b).relu(),)

    def _states(
        self, name: str, hx: Any, shape: tuple[int, ...], x: Tensor, fused: bool = False
    ) -> tuple[Tensor, ...]:
        """h, or h and c, of a shape; a step of ours takes no wider c."""
        count = 2 if self._has_cell_state else 1
        if hx is None:
            return (x.new_zeros(shape),) * count
        states = tuple(hx) if count == 2 and isinstance(hx, (tuple, list)) else (hx,)
        if len(states) != count:
            _check.fail_type(name, "None or (h, c)" if count == 2 else "None or a tensor", hx)
        wide = fused or autocast_dtype(x) is not None
        return tuple(checked_state(name, s, shape, x, cell=k == 1 and wide) for k, s in enumerate(states))

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        )


class _Layers(_Convs):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        stride: Any = 1,
        dilation: Any = 1,
        groups: int = 1,
        *,
        _nonlinearity: str = "tanh",
    ):
        self_layers = _check.integer("num_layers", num_layers, 1)
        ends = ("", "_reverse") if _check.flag("bidirectional", bidirectional) else ("",)
        suffixes = [f"_l{k}{end}" for k in range(self_layers) for end in ends]
        more = (bias, stride, dilation, groups, suffixes, len(ends), _nonlinearity)
        super().__init__(in_channels, out_channels, kernel_size, *more)
        self.num_layers, self.bidirectional = self_layers, bidirectional
        self.batch_first = _check.flag("batch_first", batch_first)
        self.dropout = float(_check.number("dropout", dropout, "in [0, 1]", least=0, most=1))
        self._suffixes = suffixes

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
        """x [T, N, C, ...] ([N, T, ...] if batch_first) or packed -> output alike, (h_n, c_n) or h_n [L * D, N, C, ...]."""
        packed, lengths = isinstance(input, PackedSequence), None
        if isinstance(input, PackedSequence):
            x, lengths = pad_packed_sequence(input)
        else:
            first = "N, T" if self.batch_first else "T, N"
            expected = f"[{first}, {self.in_channels}, {', '.join('DHW'[3 - self._dims :])}]"
            x = _check.tensor("input", input, f"a tensor {expected}")
            if x.dim() != self._dims + 3:
                _check.fail("input", expected, x)
            x = x.transpose(0, 1) if self.batch_first else x
        if x.dim() != self._dims + 3 or x.shape[2] != self.in_channels or not x.shape[0]:
            _check.fail(
                "input",
                f"of {counted(self.in_channels, 'channel')} and {counted(self._dims, 'dimension')} more",
                x,
            )
        check_like_model("input", x, self)
        shape = (len(self._suffixes), x.shape[1], self.out_channels, *x.shape[3:])
        start = self._states("hx", hx, shape, x, self._fused)
        directions = 2 if self.bidirectional else 1
        finals = []
        for layer in range(self.num_layers):
            outputs = []
            for d in range(directions):
                k = layer * directions + d
                output, final = self._run(x, tuple(s[k] for s in start), lengths, k, d == 1)
                outputs.append(output)
                finals.append(final)
            x = torch.cat(outputs, 2)
            if self.dropout and layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        states = tuple(torch.stack(parts) for parts in zip(*finals, strict=True))
        if packed:
            in_order = input.sorted_indices is None  # type: ignore[union-attr]
            result: Any = pack_padded_sequence(x, lengths, enforce_sorted=in_order)  # type: ignore[arg-type]
        else:
            result = x.transpose(0, 1) if self.batch_first else x
        return result, states if self._has_cell_state else states[0]

    @property
    def _fused(self) -> bool:
        plain = self.stride == (1, 1) and len(set(self.dilation)) == 1 and self.groups == 1
        return self._mode == "LSTM" and self._dims == 2 and plain

    def _run(
        self, x: Tensor, state: tuple[Tensor, ...], lengths: Tensor | None, k: int, backwards: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One direction of one layer over x [T, N, C, ...]."""
        weights = self._weights(self._suffixes[k])
        weight_ih, weight_hh, bias_ih, bias_hh = weights[:4]
        x = _reverse(x, lengths) if backwards else x
        if self._fused:
            bias = None if bias_ih is None else bias_ih + bias_hh
            dilation = self.dilation[0]
            output, final = conv_lstm(
                x, weight_ih, weight_hh, bias, (state[0], state[1]), lengths=lengths, dilation=dilation
            )
            return _reverse(output, lengths) if backwards else output, final
        kept = kept_steps(lengths, x.shape[0], x.shape[1], x.device)
        gates = self._conv(x.flatten(0, 1), weight_ih, bias_ih).unflatten(0, x.shape[:2])
        outputs = []
        for t, a in enumerate(gates.unbind(0)):
            new = self._step(a, weights, state)
            if kept is not None:
                there = kept[t].view(-1, *[1] * (self._dims + 1))
                new = tuple(torch.where(there, n, s) for n, s in zip(new, state, strict=True))
            state = new
            outputs.append(state[0])
        output = torch.stack(outputs)
        return _reverse(output, lengths) if backwards else output, state


class _Cell(_Convs):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        bias: bool = True,
        stride: Any = 1,
        dilation: Any = 1,
        groups: int = 1,
        *,
        _nonlinearity: str = "tanh",
    ):
        more = (bias, stride, dilation, groups, [""], 1, _nonlinearity)
        super().__init__(in_channels, out_channels, kernel_size, *more)

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """x [N, C, ...] and the state, None for zeros -> the next state: (h, c), or h."""
        x = _check.tensor("input", input, f"a tensor [N, {self.in_channels}, ...]")
        if x.dim() != self._dims + 2 or x.shape[1] != self.in_channels:
            _check.fail("input", f"[N, {self.in_channels}, {', '.join('DHW'[3 - self._dims :])}]", x)
        check_like_model("input", x, self)
        weights = self._weights("")
        state = self._states("hx", hx, (x.shape[0], self.out_channels, *x.shape[2:]), x)
        new = self._step(self._conv(x, weights[0], weights[2]), weights, state)
        return new if self._has_cell_state else new[0]


_LAYERS = """Layers of a {dims}-dimensional convolutional {mode}, as in pytorch_convolutional_rnn; see the module.

    Takes and returns x [T, N, in_channels, {space}] ([N, T, ...] with batch_first) and {state} or None, each [layers *
    directions, N, out_channels, {space}]; the output, and the last {state}.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Example:
        >>> module = amstel.interop.convolutional_rnn.{name}(3, 8, kernel_size=3)
        >>> output, {state} = module(torch.randn(5, 2, 3, {size}))
        >>> output.shape, h.shape
        (torch.Size([5, 2, 8, {size}]), torch.Size([1, 2, 8, {size}]))
    """
_CELL = """One step of a {dims}-dimensional convolutional {mode}, as in pytorch_convolutional_rnn; see the module.

    Takes and returns x [N, in_channels, {space}] and the state {state} or None, each [N, out_channels, {space}]; the new
    {state}.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Example:
        >>> module = amstel.interop.convolutional_rnn.{name}(3, 8, kernel_size=3)
        >>> {state} = module(torch.randn(2, 3, {size}))
        >>> h.shape
        torch.Size([2, 8, {size}])
    """


def _named(kind: type, dims: int, mode: str) -> Any:
    name = f"Conv{dims}d{mode}{'Cell' if kind is _Cell else ''}"
    state = "(h, c)" if mode.endswith("LSTM") else "h"
    told = {"space": ", ".join("DHW"[3 - dims :]), "size": ", ".join("6" * dims), "state": state}
    doc = (_CELL if kind is _Cell else _LAYERS).format(name=name, dims=dims, mode=mode, **told)
    own: dict[str, Any] = {"_dims": dims, "_mode": mode, "__doc__": doc, "__module__": __name__}
    if mode == "RNN":
        own["__init__"] = _with_nonlinearity(kind)
    return type(name, (kind,), own)


def _with_nonlinearity(kind: Any) -> Any:
    """The constructor of an RNN, which alone has `nonlinearity`, behind kernel_size."""

    def make(
        self: Any,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        nonlinearity: str = "tanh",
        *more: Any,
        **named: Any,
    ) -> None:
        kind.__init__(
            self, in_channels, out_channels, kernel_size, *more, _nonlinearity=nonlinearity, **named
        )

    return make


Conv1dLSTM, Conv2dLSTM, Conv3dLSTM = (_named(_Layers, d, "LSTM") for d in (1, 2, 3))
Conv1dPeepholeLSTM, Conv2dPeepholeLSTM, Conv3dPeepholeLSTM = (
    _named(_Layers, d, "PeepholeLSTM") for d in (1, 2, 3)
)
Conv1dGRU, Conv2dGRU, Conv3dGRU = (_named(_Layers, d, "GRU") for d in (1, 2, 3))
Conv1dRNN, Conv2dRNN, Conv3dRNN = (_named(_Layers, d, "RNN") for d in (1, 2, 3))
Conv1dLSTMCell, Conv2dLSTMCell, Conv3dLSTMCell = (_named(_Cell, d, "LSTM") for d in (1, 2, 3))
Conv1dPeepholeLSTMCell, Conv2dPeepholeLSTMCell, Conv3dPeepholeLSTMCell = (
    _named(_Cell, d, "PeepholeLSTM") for d in (1, 2, 3)
)
Conv1dGRUCell, Conv2dGRUCell, Conv3dGRUCell = (_named(_Cell, d, "GRU") for d in (1, 2, 3))
Conv1dRNNCell, Conv2dRNNCell, Conv3dRNNCell = (_named(_Cell, d, "RNN") for d in (1, 2, 3))
