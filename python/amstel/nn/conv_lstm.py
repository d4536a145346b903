"""ConvLSTM modules on the fused operators of `amstel.ops.conv_lstm`, with the conventions of torch.nn.LSTM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from amstel import _check
from amstel._words import counted
from amstel.nn._conv_lstm import State, _Gates, _Layer, check_size, kept_state
from amstel.nn._like import check_like
from amstel.nn._per_layer import count_of, per_layer
from amstel.ops.conv_lstm import check_state_dtype, checked_state, conv_lstm_cell
from amstel.reference.conv_lstm import same_conv

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")

_pair = _check.pair


def _widths(**widths: int) -> None:
    for name, value in widths.items():
        _check.integer(name, value, 1)


class ConvLSTMCell(_Gates):
    r"""One step of a ConvLSTM: gates = W_ih * x + W_hh * h + b, then `amstel.ops.conv_lstm_cell`.

    For whole sequences use `ConvLSTM`, which is faster. This is for loops whose input depends on the state.

    Args:
        in_channels, hidden_channels: C_in and C.
        kernel_size: size of both kernels, or (height, width); even kernels pad one more at the bottom and right.
        bias: whether to add b, which starts at 0, and at 1 for the forget gate.
        peephole: whether the gates see the cell state, one weight per channel (starts at 0).
        state_dtype: dtype of c, as of `ConvLSTM`. With torch.float32, c is not rounded at every step in bfloat16 and
            float16.
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
        *,
        state_dtype: torch.dtype | None = None,
    ):
        super().__init__(in_channels, hidden_channels, kernel_size, bias, peephole, device, dtype)
        self.state_dtype = _float("state_dtype", state_dtype)
        self.hidden_channels, self.in_channels = self.weight_hh.shape[1], self.weight_ih.shape[1]

    def forward(self, x: Tensor, state: State | None = None) -> State:
        """The next (h, c), each [N, C, H, W], for x [N, C_in, H, W] and state (h, c) (None: zeros)."""
        _check.dense("x", x, "a tensor [N, C_in, H, W]")
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            _check.fail("x", f"[N, {self.in_channels}, H, W]", x)
        check_like("x", x, self.weight_ih)
        check_state_dtype(self.state_dtype, x)
        gates = same_conv(x, self.weight_ih, self.bias)
        shape = (x.shape[0], self.hidden_channels, *x.shape[2:])
        if state is None:
            c = gates.new_zeros(shape, dtype=self.state_dtype)
        else:
            if not isinstance(state, (tuple, list)) or len(state) != 2:
                _check.fail_type("state", "None or (h, c)", state)
            h, c = checked_state("h", state[0], shape, x), checked_state("c", state[1], shape, x, cell=True)
            c = c if self.state_dtype is None else c.to(self.state_dtype)
            gates = gates + same_conv(h, self.weight_hh)
        return conv_lstm_cell(gates, c, self.peephole)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.hidden_channels}, kernel_size={tuple(self.weight_ih.shape[2:])}"


class ConvLSTM(nn.Module):
    r"""Stacked, optionally bidirectional ConvLSTM over a sequence, with the interface of torch.nn.LSTM.

    Args:
        in_channels, hidden_channels: C_in and C; pass a list for one C per layer.
        kernel_size: size of the kernels, or (height, width), or a list of these with one per layer (two integers
            always mean height and width: for 3x3 in one layer and 5x5 in the next, write [(3, 3), (5, 5)]).
        num_layers: number of stacked layers; None: the length of the lists, or 1.
        bias: whether the gates have a bias, which starts at 0, and at forget_bias for the forget gate.
        batch_first: x and output are [N, T, ...] instead of [T, N, ...].
        bidirectional: also run from the last step to the first, and concatenate the channels of both directions.
        dropout: probability of dropping whole channels between layers in training.
        peephole: whether the gates see the cell state: True for one weight per channel, "full" for one per channel
            and position, as in the paper, which needs feature_size.
        dilation: of both convolutions.
        padding: "same", or "valid" for input convolutions without padding in every layer; the output and state of a
            layer are then dilation * (k - 1) smaller than its input.
        return_sequences: False returns only the last layer's last output, [N, C, H, W], and stores one frame of it.
        memory: "store" keeps the activated gates for the backward pass, "recompute" computes them again.
        state_dtype: dtype of c_n, as of `amstel.ops.conv_lstm`: that of x, under autocast the one that it computes in;
            or torch.float32 for 16-bit types, whose sequences can then be continued without loss of precision. None:
            that of c_0, or else of the output.
        stride: of the input convolution, or a list as for kernel_size. With padding="same", which adds dilation *
            (k - 1) rows, an odd one below (for odd k without dilation, torch.nn.Conv2d(padding=k // 2)), and columns
            alike, ceil(H / stride) rows remain.
        padding_mode: "zeros", "reflect", "replicate" or "circular", of both convolutions, as in torch.nn.Conv2d.
        layer_norm: normalize W_ih * x and W_hh * h, each over all of its 4C channels and positions, before they are
            added. There is one learned scale and shift per channel; with feature_size, per channel and position.
        recurrent_dropout: probability of dropping whole channels of h before W_hh in training, the same ones in every
            step of a sequence.
        zoneout: probability that an element of h or c keeps its previous value in a training step; in evaluation, the
            mean.
        residual: layers after the first add their input to their output (equal widths, padding "same").
        forget_bias: initial bias of the forget gate.
        feature_size: (H, W) of x, or one number, for parameters that depend on it.
        stateful: continue from the (detached) state of the last call if none is given; `reset_state` forgets it. For
            16-bit types, c is kept in float32. The state is not part of the state_dict. One direction only.
        return_all_layers: return a tuple with the outputs of all layers instead of that of the last one.
        device, dtype: of the parameters.

    Shapes: x [T, N, C_in, H, W]; state None (zeros) or (h_0, c_0), each [num_layers * D, N, C, H, W] with D = 2 if
    bidirectional, else 1, in torch.nn.LSTM's order (layer 0 forward, layer 0 backward, layer 1 forward, ...);
    lengths None or [N] integers from 1 to T: values past the end of a sequence are ignored and get no gradient, the
    output there is 0, and the state is that of the last step.
    Returns output [T, N, D * C, H, W] and (h_n, c_n), each [num_layers * D, N, C, H, W]. With padding="valid" or a stride
    H and W of output and states are the smaller ones; with several layers, whose sizes then differ, or with layers of
    different widths, h_0, c_0, h_n and c_n are tuples of num_layers * D tensors [N, C_l, H_l, W_l] instead.

    The fused operator runs every layer unless you use stride, padding_mode, peephole="full", layer_norm, zoneout or
    (in training) recurrent_dropout. Such layers run step by step with PyTorch's convolutions, which is slower and, in
    16-bit types, rounds the result of each convolution.

    Source: X. Shi et al., Convolutional LSTM Network, NeurIPS 2015, equation 3; layer_norm: J. Ba et al., 2016;
    recurrent_dropout: Y. Gal and Z. Ghahramani, NeurIPS 2016; zoneout: D. Krueger et al., ICLR 2017.

    Example:
        >>> lstm = amstel.nn.ConvLSTM(3, 8, num_layers=2)
        >>> output, (h_n, c_n) = lstm(torch.randn(5, 2, 3, 16, 16))
        >>> output.shape, h_n.shape
        (torch.Size([5, 2, 8, 16, 16]), torch.Size([2, 2, 8, 16, 16]))

        Layers of different widths and kernels:

        >>> lstm = amstel.nn.ConvLSTM(3, [8, 8, 16], [(3, 3), (5, 5), (3, 3)])
        >>> output, (h_n, c_n) = lstm(torch.randn(5, 2, 3, 16, 16))
        >>> output.shape, [tuple(h.shape) for h in h_n]
        (torch.Size([5, 2, 16, 16, 16]), [(2, 8, 16, 16), (2, 8, 16, 16), (2, 16, 16, 16)])
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int | Sequence[int],
        kernel_size: int | tuple[int, int] | Sequence[int | tuple[int, int]] = 3,
        num_layers: int | None = None,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        *,
        dropout: float = 0.0,
        peephole: bool | str = False,
        dilation: int = 1,
        padding: str = "same",
        return_sequences: bool = True,
        memory: str = "store",
        state_dtype: torch.dtype | None = None,
        stride: int | tuple[int, int] | Sequence[int | tuple[int, int]] = 1,
        padding_mode: str = "zeros",
        layer_norm: bool = False,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        residual: bool = False,
        forget_bias: float = 1.0,
        feature_size: int | tuple[int, int] | None = None,
        stateful: bool = False,
        return_all_layers: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.in_channels = _check.integer("in_channels", in_channels, 1)
        if num_layers is not None:
            num_layers = _check.integer("num_layers", num_layers, 1)
        given = {"hidden_channels": hidden_channels, "kernel_size": kernel_size, "stride": stride}
        self.num_layers = n = num_layers or max(count_of(name, value) for name, value in given.items())
        hidden = per_layer("hidden_channels", hidden_channels, n)
        kernels, strides = (per_layer(name, given[name], n) for name in ("kernel_size", "stride"))
        self.hidden_channels = hidden[0] if len(set(hidden)) == 1 else hidden
        self.kernel_size = kernels[0] if len(set(kernels)) == 1 else kernels
        self.stride = strides[0] if len(set(strides)) == 1 else strides
        self.dilation = _check.integer("dilation", dilation, 1)
        self.dropout, self.recurrent_dropout, self.zoneout = (
            float(_check.number(name, value, "in [0, 1)", least=0, below=1))
            for name, value in (
                ("dropout", dropout),
                ("recurrent_dropout", recurrent_dropout),
                ("zoneout", zoneout),
            )
        )
        self.memory = _check.choice("memory", memory, ("store", "recompute"))
        self.padding = _check.choice("padding", padding, ("same", "valid"))
        self.padding_mode = _check.choice("padding_mode", padding_mode, PADDING_MODES)
        self.batch_first = _check.flag("batch_first", batch_first)
        self.bidirectional = _check.flag("bidirectional", bidirectional)
        self.return_sequences = _check.flag("return_sequences", return_sequences)
        self.return_all_layers = _check.flag("return_all_layers", return_all_layers)
        self.layer_norm = _check.flag("layer_norm", layer_norm)
        self.state_dtype = _float("state_dtype", state_dtype)
        self.residual, self.stateful = _check.flag("residual", residual), _check.flag("stateful", stateful)
        self.feature_size = size = None if feature_size is None else _pair("feature_size", feature_size)
        full = isinstance(peephole, str) and _check.choice("peephole", peephole, ("full",)) == "full"
        if full and size is None:
            _check.fail("feature_size", "(H, W) of x for peephole='full'", feature_size)
        if self.stateful and self.bidirectional:
            _check.fail("stateful", "False with bidirectional=True, which needs the whole sequence", stateful)
        if self.residual and (len(set(hidden)) > 1 or self._shrinks):
            expected = "False where layers differ in width, with a stride or with padding='valid'"
            _check.fail("residual", expected, residual)
        self._state: tuple[tuple[Tensor, ...], tuple[Tensor, ...]] | None = None
        directions = 2 if bidirectional else 1
        layers = []
        for k in range(n):
            size = None if size is None else self._after(size, kernels[k], strides[k])
            layers += [
                _Layer(
                    directions * hidden[k - 1] if k else self.in_channels,
                    hidden[k],
                    kernels[k],
                    bias,
                    full or _check.flag("peephole", peephole),
                    device,
                    dtype,
                    size=size if full and size else (),
                    forget_bias=forget_bias,
                    layer_norm=self.layer_norm,
                    norm_size=size or (),
                )
                for _ in range(directions)
            ]
        self.layers = nn.ModuleList(layers)

    @property
    def _shrinks(self) -> bool:
        return self.padding == "valid" or self.stride != (1, 1)

    @property
    def _tuples(self) -> bool:
        """Whether the states of the layers differ in shape."""
        return isinstance(self.hidden_channels, tuple) or (self._shrinks and self.num_layers > 1)

    def _after(
        self, size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int]
    ) -> tuple[int, int]:
        """Height and width of a layer's state, whose input has `size`."""
        less = [self.dilation * (k - 1) if self.padding == "valid" else 0 for k in kernel]
        height, width = (-(-(s - gone) // step) for s, gone, step in zip(size, less, stride, strict=True))
        if min(height, width) < 1:
            _check.fail("feature_size", "large enough for padding='valid'", self.feature_size)
        return height, width

    def reset_parameters(self) -> None:
        """Reset every layer and direction like `ConvLSTMCell.reset_parameters`."""
        for layer in self.layers:
            cast(_Gates, layer).reset_parameters()

    def reset_state(self) -> None:
        """Forget the state kept by stateful=True: the next call starts from zeros."""
        self._state = None

    def _initial(self, x: Tensor, state: Any) -> Any:
        """(h_0, c_0), each with one tensor per layer and direction, or None; x [T, N, C_in, H, W]."""
        count = len(self.layers)
        if state is None:
            if self._state is None:
                return None
            h, c = self._state
            # With a stride or without padding, sizes of x are not those of the state, which the layers check then.
            kept_for = h[0].shape[0], *(() if self._shrinks else h[0].shape[2:])
            for name, kept, got in zip("NHW", kept_for, (x.shape[1], *x.shape[3:]), strict=False):
                if kept != got:
                    raise ValueError(
                        f"`x` must have the {name} = {kept} of the previous call, whose state is kept (reset_state() "
                        f"forgets it), got {_check.describe(x)}"
                    )
            wide = self.state_dtype or torch.promote_types(x.dtype, torch.float32)
            return [t.to(x.device, x.dtype) for t in h], [t.to(x.device, wide) for t in c]
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            _check.fail_type("state", "None or (h_0, c_0)", state)
        shape = (count, x.shape[1], self.hidden_channels, *x.shape[3:])
        for name, value in zip(("h_0", "c_0"), state, strict=True):
            if not self._shrinks and not self._tuples:
                if _check.dense(name, value, "a tensor [layers, N, C, H, W]").shape != shape:
                    _check.fail(name, str(list(shape)), value)
            elif not isinstance(value, (Tensor, tuple, list)):
                _check.fail_type(name, f"{counted(count, 'state')}, one per layer and direction", value)
            if len(value) != count:  # where sizes differ each layer checks its own
                raise ValueError(
                    f"`{name}` must be {counted(count, 'state')}, one per layer and direction, got {len(value)}"
                )
        return state

    def forward(
        self, x: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """output [T, N, D * C, H, W] and (h_n, c_n) for x [T, N, C_in, H, W], state (h_0, c_0) or None, lengths [N] or None."""
        _check.dense("x", x, "a tensor [T, N, C_in, H, W]")
        if x.dim() != 5 or x.shape[2] != self.in_channels:
            first = "N, T" if self.batch_first else "T, N"
            _check.fail("x", f"[{first}, {self.in_channels}, H, W]", x)
        if self.feature_size is not None and tuple(x.shape[3:]) != self.feature_size:
            _check.fail("x", f"of the height and width of `feature_size`, {self.feature_size}", x)
        check_size("x", x, self)
        if self.batch_first:
            x = x.transpose(0, 1)
        initial = self._initial(x, state)
        directions = 2 if self.bidirectional else 1
        state_dtype = self.state_dtype
        if self.stateful and state_dtype is None:
            state_dtype = torch.promote_types(x.dtype, torch.float32)
        options: dict[str, Any] = {"dilation": self.dilation, "padding": self.padding, "memory": self.memory}
        options |= {"padding_mode": self.padding_mode, "zoneout": self.zoneout, "state_dtype": state_dtype}
        options["recurrent_dropout"] = self.recurrent_dropout
        last: list[State] = []
        found = []
        for k in range(self.num_layers):
            below = x
            if k and self.dropout:
                x = nn.functional.dropout2d(x.flatten(0, 1), self.dropout, self.training).view_as(x)
            strides = self.stride[k] if isinstance(self.stride[0], tuple) else self.stride
            whole = self.return_sequences or k < self.num_layers - 1
            outputs = []
            for d in range(directions):
                m = k * directions + d
                output, *final = self.layers[m](
                    x,
                    None if initial is None else (initial[0][m], initial[1][m]),
                    lengths,
                    d == 1,
                    return_sequences=whole,
                    stride=strides,
                    **options,
                )
                outputs.append(output)
                last.append((final[0], final[1]))
            x = outputs[0] if directions == 1 else torch.cat(outputs, -3)
            if k and self.residual:
                x = x + (below if whole else _last(below, lengths, directions))
            found.append(x)
        if not self.return_sequences:
            found = [t if t.dim() == 4 else _last(t, lengths, directions) for t in found]
        elif self.batch_first:
            found = [t.transpose(0, 1) for t in found]
        h_n, c_n = zip(*last, strict=True)
        if self.stateful:
            self._state = tuple(map(kept_state, h_n)), tuple(map(kept_state, c_n))
            if self.state_dtype is None:
                given = h_n[0].dtype if state is None else state[1][0].dtype
                c_n = tuple(t.to(given) for t in c_n)
        output = tuple(found) if self.return_all_layers else found[-1]
        if self._tuples:
            return output, (h_n, c_n)  # type: ignore[return-value]
        return output, (torch.stack(h_n), torch.stack(c_n))  # type: ignore[return-value]

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.hidden_channels}, kernel_size={self.kernel_size}, num_layers={self.num_layers}, "
            f"bidirectional={self.bidirectional}, memory={self.memory!r}"
        )


def _last(x: Tensor, lengths: Tensor | None, directions: int) -> Tensor:
    """The last step [N, D * C, H, W] of x [T, N, D * C, H, W]: of the second direction that is the first."""
    end = x[-1] if lengths is None else x[lengths.to(x.device) - 1, torch.arange(x.shape[1], device=x.device)]
    if directions == 1:
        return end
    return torch.cat([end.chunk(2, 1)[0], x[0].chunk(2, 1)[1]], 1)


def _float(name: str, value: torch.dtype | None) -> torch.dtype | None:
    if value is not None and value not in _check.FLOATS:
        _check.fail(name, "None or a floating-point dtype", value)
    return value
