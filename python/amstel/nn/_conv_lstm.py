"""One direction of one layer of a ConvLSTM: its weights, and how it runs over a sequence, fused or plain.

The fused operator, `amstel.ops.conv_lstm`, knows convolutions padded with zeros, peepholes of one weight per channel and
the gates as they are. What else a layer may have (other padding, strides, peepholes of one weight a place, layer norm,
recurrent dropout, zoneout) goes through `_plain`: PyTorch's convolutions, that of the input for all steps at once.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amstel import _check, reference
from amstel._derived import plainly
from amstel.nn._lengths import kept as kept_steps
from amstel.nn._like import check_like
from amstel.nn._recompute import recomputed
from amstel.ops.conv_lstm import check_state_dtype, checked_state, conv_lstm, conv_lstm_cell

State = tuple[Tensor, Tensor]


def kept_state(t: Tensor) -> Tensor:
    """A state for the next call, which may train, also where this one is under torch.inference_mode; a copy, because a user may
    change in place what this call returns."""
    return plainly(t.clone) if not torch.compiler.is_compiling() and t.is_inference() else t.detach().clone()


class _Gates(nn.Module):
    """Weights of one direction of one layer: weight_ih [4C, C_in, k, k], weight_hh [4C, C, k, k], bias [4C], peephole
    [3, C], or [3, C, H, W] with the size of the state."""

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        kernel_size: int | tuple[int, int],
        bias: bool,
        peephole: bool,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        size: tuple[int, int] | tuple[()] = (),
        forget_bias: float = 1.0,
    ):
        super().__init__()
        how: dict[str, Any] = {"device": device, "dtype": dtype}
        inputs = _check.integer("in_channels", in_channels, 1)
        hidden = _check.integer("hidden_channels", hidden_channels, 1)
        kernel = _check.pair("kernel_size", kernel_size)
        self.forget_bias = float(_check.number("forget_bias", forget_bias))
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden, inputs, *kernel, **how))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden, hidden, *kernel, **how))
        self.bias = nn.Parameter(torch.empty(4 * hidden, **how)) if _check.flag("bias", bias) else None
        wanted = _check.flag("peephole", peephole)
        self.peephole = nn.Parameter(torch.empty(3, hidden, *size, **how)) if wanted else None
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
                self.bias.zero_().chunk(4)[1].fill_(self.forget_bias)

    def extra_repr(self) -> str:
        rows, inputs, *kernel = self.weight_ih.shape
        return f"{inputs}, {rows // 4}, kernel_size={tuple(kernel)}"


class _Weights(_Gates):
    """Weights that a model puts into its own steps. They are read by a call, so that hooks run, those of
    torch.nn.utils.prune and spectral_norm among them. When the call is over FSDP takes their memory back, so they are copied
    where the class (FSDP2) or the weights (FSDP1) have been exchanged."""

    def forward(self) -> tuple[Tensor, Tensor, Tensor | None]:
        weight_ih, weight_hh, bias = self.weight_ih, self.weight_hh, self.bias
        given = weight_ih, weight_hh, bias
        if type(self) is _Weights and all(t is None or isinstance(t, nn.Parameter) for t in given):
            return given
        return weight_ih.clone(), weight_hh.clone(), None if bias is None else bias.clone()


class _Layer(_Gates):
    """One direction of one layer. Its forward is where the weights are read, so that its hooks run, those of
    torch.nn.utils.prune and spectral_norm among them."""

    def __init__(self, *args: Any, layer_norm: bool, norm_size: tuple[int, ...], **options: Any):
        super().__init__(*args, **options)
        weight = self.weight_ih
        how: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}

        def norm() -> nn.Module | None:
            if not layer_norm:
                return None
            rows = weight.shape[0]
            return nn.LayerNorm((rows, *norm_size), **how) if norm_size else nn.GroupNorm(1, rows, **how)

        self.norm_ih, self.norm_hh = norm(), norm()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for norm in (
            getattr(self, "norm_ih", None),
            getattr(self, "norm_hh", None),
        ):  # not yet in the constructor
            if norm is not None:
                norm.reset_parameters()

    def forward(
        self,
        x: Tensor,
        state: State | None,
        lengths: Tensor | None,
        backwards: bool,
        *,
        stride: tuple[int, int],
        padding_mode: str,
        recurrent_dropout: float,
        zoneout: float,
        **options: Any,
    ) -> tuple[Tensor, Tensor, Tensor]:
        check_like("x", x, self.weight_ih)
        if backwards:
            x = _reverse(x, lengths)
        recurrent_dropout = recurrent_dropout if self.training else 0.0
        full = self.peephole is not None and self.peephole.dim() > 2
        if (
            full
            or stride != (1, 1)
            or padding_mode != "zeros"
            or self.norm_ih
            or recurrent_dropout
            or zoneout
        ):
            more: dict[str, Any] = {"stride": stride, "padding_mode": padding_mode, "zoneout": zoneout}
            more["recurrent_dropout"] = recurrent_dropout
            output, final = _plain(self, x, state, lengths, **more, **options)
        else:
            output, final = conv_lstm(
                x,
                self.weight_ih,
                self.weight_hh,
                self.bias,
                state,
                lengths=lengths,
                peephole=self.peephole,
                **options,
            )
        return _reverse(output, lengths) if backwards and output.dim() == 5 else output, *final


def _plain(
    layer: _Layer,
    x: Tensor,
    state: State | None,
    lengths: Tensor | None,
    *,
    stride: tuple[int, int],
    padding_mode: str,
    recurrent_dropout: float,
    zoneout: float,
    dilation: int,
    padding: str,
    memory: str,
    return_sequences: bool,
    state_dtype: torch.dtype | None,
) -> tuple[Tensor, State]:
    """What `amstel.ops.conv_lstm` returns, step by step on PyTorch's convolutions."""
    if x.shape[0] < 1:
        _check.fail("x", "a sequence of at least one step, [T >= 1, N, C_in, H, W]", x)
    check_state_dtype(state_dtype, x)
    kept = kept_steps(lengths, x.shape[0], x.shape[1], x.device)
    if kept is not None:
        kept = kept[:, :, None, None, None]
        x = torch.where(kept, x, x.new_zeros(()))
    weight_hh, norm_hh, peephole = layer.weight_hh, layer.norm_hh, layer.peephole
    given = None if padding == "valid" else padding_mode
    gates = _conv(x.flatten(0, 1), layer.weight_ih, stride, dilation, given)
    if layer.norm_ih is not None:
        gates = layer.norm_ih(gates)
    if layer.bias is not None:
        gates = gates + layer.bias.to(gates.dtype)[:, None, None]
    gates = gates.unflatten(0, x.shape[:2])
    wide = torch.promote_types(gates.dtype, torch.float32)
    shape = (x.shape[1], weight_hh.shape[1], *gates.shape[3:])
    if state is None:
        h, c = gates.new_zeros(shape), gates.new_zeros(shape, dtype=wide)
    else:
        h, c = checked_state("h_0", state[0], shape, x), checked_state("c_0", state[1], shape, x, cell=True)
        state_dtype = c.dtype if state_dtype is None else state_dtype
        h, c = h.to(gates.dtype), c.to(wide)
    mask = None
    if recurrent_dropout:  # of whole channels, the same in every step of a sequence
        mask = F.dropout(gates.new_ones(*shape[:2], 1, 1), recurrent_dropout)

    def step(a: Tensor, h: Tensor, c: Tensor, keep: Tensor | None) -> State:
        r = _conv(h if mask is None else h * mask, weight_hh, (1, 1), dilation, padding_mode)
        a = a + (r if norm_hh is None else norm_hh(r))
        if peephole is not None and peephole.dim() > 2:
            new_h, new_c = reference.conv_lstm_cell(a, c, peephole)
        else:
            new_h, new_c = conv_lstm_cell(a, c, None if peephole is None else peephole.to(a.dtype))
        if keep is not None:
            new_h, new_c = torch.where(keep[0], h, new_h), torch.where(keep[1], c, new_c)
        elif zoneout:
            new_h, new_c = torch.lerp(new_h, h, zoneout), torch.lerp(new_c, c, zoneout)
        return new_h, new_c

    again = memory == "recompute" and torch.is_grad_enabled()
    outputs = []
    for t, a in enumerate(gates.unbind(0)):
        keep = torch.rand(2, *shape, device=x.device) < zoneout if zoneout and layer.training else None
        if again:
            new_h, new_c = recomputed(step, a, h, c, keep)
        else:
            new_h, new_c = step(a, h, c, keep)
        if kept is not None:
            new_h, new_c = torch.where(kept[t], new_h, h), torch.where(kept[t], new_c, c)
        h, c = new_h, new_c
        outputs.append(h)
    if not return_sequences:
        output = h.clone()  # a tensor of its own, as the operator's
    else:
        output = torch.stack(outputs)
        if kept is not None:
            output = torch.where(kept, output, output.new_zeros(()))
    return output, (h, c.to(gates.dtype if state_dtype is None else state_dtype))


def check_size(name: str, x: Tensor, stack: Any, patch: int = 1) -> None:
    """ValueError where maps x [T, N, C, H, W] (or [..., L]) are too small for a convolution of any layer of a ConvLSTM, whose
    input are squares of `patch` by `patch` of their pixels."""
    kernels, strides = (
        pairs if isinstance(pairs[0], tuple) else (pairs,) * stack.num_layers
        for pairs in (stack.kernel_size, stack.stride)
    )
    least, valid, mode = [1, 1], stack.padding == "valid", stack.padding_mode
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        for k in range(2):
            total = stack.dilation * (kernel[k] - 1)
            # The state, which is padded in any case, has the size of the output.
            padded = least_side(total, mode)
            given = (max(least[k], padded) - 1) * stride[k] + 1
            least[k] = given + total if valid else max(given, padded)
    sides = list(
        zip(x.shape[3:], least[5 - x.dim() :], ("high", "wide") if x.dim() == 5 else ("long",), strict=True)
    )
    if all(side >= patch * needed for side, needed, _ in sides):
        return
    if max(least) == patch == 1 and x.dim() == 5:
        _check.fail(name, "at least one pixel high and wide", x)
    wanted = " and ".join(f"{patch * needed} {way}" for _, needed, way in sides)
    reason = f"padding={stack.padding!r}" if valid else f"padding_mode={mode!r}"
    _check.fail(name, f"at least {wanted} for {reason}", x)


def least_side(total: int, padding_mode: str) -> int:
    """The smallest side to which `total` rows or columns can be added."""
    beyond = total - total // 2
    return max(1, {"reflect": beyond + 1, "circular": beyond}.get(padding_mode, 1))


def _conv(
    x: Tensor, weight: Tensor, stride: tuple[int, int], dilation: int, padding_mode: str | None
) -> Tensor:
    """Padded so that stride 1 keeps the size (an even kernel pads one more below and to the right), or not at all."""
    if padding_mode is None:
        return F.conv2d(x, weight, None, stride, 0, dilation)
    pads: list[int] = []
    for k in weight.shape[2:]:
        total = dilation * (k - 1)
        pads = [total // 2, total - total // 2, *pads]
    if padding_mode == "zeros" and pads[0] == pads[1] and pads[2] == pads[3]:
        return F.conv2d(x, weight, None, stride, (pads[2], pads[0]), dilation)
    x = F.pad(x, pads, "constant" if padding_mode == "zeros" else padding_mode)
    return F.conv2d(x, weight, None, stride, 0, dilation)


def _reverse(x: Tensor, lengths: Tensor | None) -> Tensor:
    """x [T, N, ...] backwards in time; every sequence from its own end, what lies past it stays."""
    if lengths is None:
        return x.flip(0)
    steps = torch.arange(x.shape[0], device=x.device)[:, None]
    lengths = lengths.to(x.device)
    index = torch.where(steps < lengths, lengths - 1 - steps, steps)
    return x[index, torch.arange(x.shape[1], device=x.device)]
