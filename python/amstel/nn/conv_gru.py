"""Convolutional GRUs on the fused gates of `amstel.ops.conv_gru_cell`: a cell that follows torch.nn.GRUCell, and layers
over a sequence that follow torch.nn.GRU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from amstel import _check, ops
from amstel.nn._conv_lstm import _reverse
from amstel.nn._lengths import kept as kept_steps
from amstel.nn._like import check_like
from amstel.nn._per_layer import count_of, per_layer
from amstel.nn._sequences import states, steps_first
from amstel.ops.conv_gru import conv_gru_pointwise
from amstel.ops.conv_lstm import checked_state
from amstel.reference.conv_lstm import same_conv


class ConvGRUCell(nn.Module):
    r"""One step of a convolutional GRU: gates of x and of h by convolutions, then `amstel.ops.conv_gru_cell`.

    .. code-block:: text

        g_x = W_ih * x + b_ih     g_h = W_hh * h + b_hh        in the order r, z, n
        r = σ(x_r + h_r)   z = σ(x_z + h_z)   n = tanh(x_n + r ⊙ h_n)   h' = (1 - z) ⊙ n + z ⊙ h

    Args:
        in_channels, hidden_channels: C_in and C.
        kernel_size: side of both kernels, or (height, width); even kernels pad one more at the bottom and right.
        memory: what is kept for the gradient, see `amstel.ops.conv_gru_cell`.
        reset: "after" the product with the weights, as above, or "before" it, as in the paper:
            h_n = W_hn * (r ⊙ h) + b_hn and n = tanh(x_n + h_n). This is a different function, and not fused.
        device, dtype: of the parameters.

    Shapes: x [N, C_in, H, W]; h [N, C, H, W] or None (zeros); result [N, C, H, W]. With kernel_size=1,
    channels_last tensors are read without a copy, and the result is channels_last.
    Parameters: weight_ih [3C, C_in, k, k], weight_hh [3C, C, k, k], bias_ih and bias_hh [3C].

    Source: N. Ballas et al., Delving Deeper into Convolutional Networks, ICLR 2016, equations 9-12, with the gate order
    of torch.nn.GRUCell and, like there, the reset after the product with the weights.

    Example:
        >>> cell = amstel.nn.ConvGRUCell(3, 8, kernel_size=3)
        >>> cell(torch.randn(2, 3, 16, 16)).shape
        torch.Size([2, 8, 16, 16])
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        kernel_size: int | tuple[int, int] = 1,
        *,
        memory: str = "store",
        reset: str = "after",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.in_channels = inputs = _check.integer("in_channels", in_channels, 1)
        self.hidden_channels = hidden = _check.integer("hidden_channels", hidden_channels, 1)
        kernel = _check.pair("kernel_size", kernel_size)
        self.memory = _check.choice("memory", memory, ("store", "recompute"))
        self.reset = _check.choice("reset", reset, ("after", "before"))
        how: dict[str, Any] = {"device": device, "dtype": dtype}
        self.weight_ih = nn.Parameter(torch.empty(3 * hidden, inputs, *kernel, **how))
        self.weight_hh = nn.Parameter(torch.empty(3 * hidden, hidden, *kernel, **how))
        self.bias_ih = nn.Parameter(torch.empty(3 * hidden, **how))
        self.bias_hh = nn.Parameter(torch.empty(3 * hidden, **how))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights of each convolution uniform in ±1/sqrt(fan in), biases 0."""
        for weight in (self.weight_ih, self.weight_hh):
            bound = 1 / math.sqrt(weight[0].numel())
            nn.init.uniform_(weight, -bound, bound)
        nn.init.zeros_(self.bias_ih)
        nn.init.zeros_(self.bias_hh)

    def forward(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        """The next h [N, C, H, W] for x [N, C_in, H, W] and h (None: zeros)."""
        _check.dense("x", x, "a tensor [N, C_in, H, W]")
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            _check.fail("x", f"[N, {self.in_channels}, H, W]", x)
        check_like("x", x, self.weight_ih)
        if h is not None:
            h = checked_state("h", h, (x.shape[0], self.hidden_channels, *x.shape[2:]), x)
        if self.weight_ih.shape[2:] == (1, 1) and self.reset == "after":
            return self._by_pixels(x, h)
        gates_x = same_conv(x, self.weight_ih, self.bias_ih)
        h = torch.zeros_like(gates_x[:, : self.hidden_channels]) if h is None else h.to(gates_x.dtype)
        return self._step(gates_x, h)

    def _step(self, gates_x: Tensor, h: Tensor) -> Tensor:
        c = self.hidden_channels
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
        height, width = self.weight_ih.shape[2:]
        size = height if height == width else (height, width)
        return f"{self.in_channels}, {self.hidden_channels}, kernel_size={size}, reset={self.reset!r}"


def _pixels(x: Tensor) -> Tensor:
    """[N, C, H, W] as [N H W, C], without a copy from channels_last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


class _Layer(ConvGRUCell):
    """One direction of one layer over x [T, N, C_in, H, W]. Its forward is where the weights are read, so that its hooks
    run, those of torch.nn.utils.prune and spectral_norm among them."""

    def forward(  # type: ignore[override]
        self, x: Tensor, h: Tensor | None, lengths: Tensor | None, backwards: bool
    ) -> tuple[Tensor, Tensor]:
        check_like("x", x, self.weight_ih)
        x = _reverse(x, lengths) if backwards else x
        kept = kept_steps(lengths, x.shape[0], x.shape[1], x.device)
        if kept is not None:
            kept = kept[:, :, None, None, None]
            x = torch.where(kept, x, x.new_zeros(()))
        gates = same_conv(x.flatten(0, 1), self.weight_ih, self.bias_ih).unflatten(0, x.shape[:2])
        h = torch.zeros_like(gates[0, :, : self.hidden_channels]) if h is None else h.to(gates.dtype)
        outputs = []
        for t, gates_x in enumerate(gates.unbind(0)):
            new = self._step(gates_x, h)
            h = new if kept is None else torch.where(kept[t], new, h)
            outputs.append(h)
        output = torch.stack(outputs)
        if kept is not None:
            output = torch.where(kept, output, output.new_zeros(()))
        return _reverse(output, lengths) if backwards else output, h


class ConvGRU(nn.Module):
    r"""Stacked, optionally bidirectional convolutional GRU over a sequence, with the interface of torch.nn.GRU.

    The input is convolved for all steps at once; each step then convolves h and computes the fused gates.

    Args:
        in_channels, hidden_channels: C_in and C; a list gives C for each layer.
        kernel_size: side of the kernels, or (height, width), or a list with one of these per layer.
        num_layers: number of stacked layers; None: as many as the lists have, or 1.
        batch_first: x and output are [N, T, ...] instead of [T, N, ...].
        bidirectional: also run from the last step to the first, and concatenate the channels of both directions.
        dropout: probability of dropping whole channels between layers in training.
        memory, reset: as in `ConvGRUCell`; each of `layers` has its formula and parameters.
        device, dtype: of the parameters.

    Shapes: x [T, N, C_in, H, W]; h_0 None (zeros) or [num_layers * D, N, C, H, W] with D = 2 if bidirectional, else 1, in
    torch.nn.GRU's order; lengths None or [N] integers from 1 to T: values past the end of a sequence are ignored
    and get no gradient, the output there is 0, and the state is that of the last step.
    Returns output [T, N, D * C, H, W] and h_n [num_layers * D, N, C, H, W]. With layers of different widths, h_0 and h_n
    are tuples of num_layers * D tensors [N, C_l, H, W] instead.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Source: N. Ballas et al., Delving Deeper into Convolutional Networks, ICLR 2016.

    Example:
        >>> gru = amstel.nn.ConvGRU(3, 8, num_layers=2)
        >>> output, h_n = gru(torch.randn(5, 2, 3, 16, 16))
        >>> output.shape, h_n.shape
        (torch.Size([5, 2, 8, 16, 16]), torch.Size([2, 2, 8, 16, 16]))
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int | Sequence[int],
        kernel_size: int | tuple[int, int] | Sequence[int | tuple[int, int]] = 3,
        num_layers: int | None = None,
        batch_first: bool = False,
        bidirectional: bool = False,
        *,
        dropout: float = 0.0,
        memory: str = "store",
        reset: str = "after",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.in_channels = _check.integer("in_channels", in_channels, 1)
        if num_layers is not None:
            num_layers = _check.integer("num_layers", num_layers, 1)
        given = {"hidden_channels": hidden_channels, "kernel_size": kernel_size}
        self.num_layers = n = num_layers or max(count_of(name, value) for name, value in given.items())
        hidden, kernels = (per_layer(name, value, n) for name, value in given.items())
        self.hidden_channels = hidden[0] if len(set(hidden)) == 1 else hidden
        self.batch_first = _check.flag("batch_first", batch_first)
        self.bidirectional = _check.flag("bidirectional", bidirectional)
        self.dropout = float(_check.number("dropout", dropout, "in [0, 1)", least=0, below=1))
        directions = 2 if bidirectional else 1
        self.layers = nn.ModuleList(
            _Layer(
                directions * hidden[k - 1] if k else self.in_channels,
                hidden[k],
                kernels[k],
                memory=memory,
                reset=reset,
                device=device,
                dtype=dtype,
            )
            for k in range(n)
            for _ in range(directions)
        )

    def reset_parameters(self) -> None:
        """Reset every layer and direction like `ConvGRUCell.reset_parameters`."""
        for layer in self.layers:
            layer.reset_parameters()  # type: ignore[operator]

    def forward(
        self, x: Tensor, h_0: Tensor | Sequence[Tensor] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """output [T, N, D * C, H, W] and h_n [num_layers * D, N, C, H, W] of x [T, N, C_in, H, W], h_0, lengths [N]."""
        x = steps_first(x, self.in_channels, self.batch_first)
        initial: list[Any] = [None] * len(self.layers)
        if h_0 is not None:
            widths: list[Any] = [layer.hidden_channels for layer in self.layers]
            initial = states("h_0", h_0, widths, x)
        directions = 2 if self.bidirectional else 1
        last: list[Tensor] = []
        for k in range(self.num_layers):
            if k and self.dropout:
                x = nn.functional.dropout2d(x.flatten(0, 1), self.dropout, self.training).view_as(x)
            found = []
            for d in range(directions):
                m = k * directions + d
                output, final = self.layers[m](x, initial[m], lengths, d == 1)
                found.append(output)
                last.append(final)
            x = found[0] if directions == 1 else torch.cat(found, 2)
        h_n = tuple(last) if isinstance(self.hidden_channels, tuple) else torch.stack(last)
        return (x.transpose(0, 1) if self.batch_first else x), h_n

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.hidden_channels}, num_layers={self.num_layers}, "
            f"bidirectional={self.bidirectional}"
        )
