"""The ConvLSTM of github.com/ndrplz/ConvLSTM_pytorch, under its own names, on amstel's operator.

For existing code, change only the import:

.. code-block:: text

    from convlstm import ConvLSTM    becomes    from amstel.interop.ndrplz import ConvLSTM

Arguments, results, parameters and their initial values are the same, so its checkpoints load unchanged. If you replace or
subclass a cell or convolution, or add hooks to it, its layer runs step by step, as in the original. For new code, use
`amstel.nn.ConvLSTM`; `amstel.interop.conv_lstm` converts weights between the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from amstel import _check
from amstel._bypass import computes_as, has_hooks, is_plain_conv
from amstel._words import counted
from amstel.nn._like import check_like_model
from amstel.ops.conv_lstm import conv_lstm, conv_lstm_cell

State = tuple[Tensor, Tensor]


class ConvLSTMCell(nn.Module):
    r"""One step: i, f, o, g = conv([x, h]), c' = f ⊙ c + i ⊙ g, h' = o ⊙ tanh(c').

    Args:
        input_dim, hidden_dim: channels of x and of the state.
        kernel_size: (height, width), both odd.
        bias: whether the convolution has a bias.

    Shapes: input_tensor [N, input_dim, H, W]; cur_state and the result (h, c), each [N, hidden_dim, H, W].

    Source: github.com/ndrplz/ConvLSTM_pytorch; X. Shi et al., Convolutional LSTM Network, NeurIPS 2015.

    Example:
        >>> from amstel.interop.ndrplz import ConvLSTMCell
        >>> cell = ConvLSTMCell(input_dim=3, hidden_dim=8, kernel_size=(3, 3), bias=True)
        >>> h, c = cell(torch.randn(2, 3, 16, 16), cell.init_hidden(2, (16, 16)))
        >>> h.shape
        torch.Size([2, 8, 16, 16])
    """

    def __init__(self, input_dim: int, hidden_dim: int, kernel_size: int | tuple[int, int], bias: bool):
        super().__init__()
        self.input_dim = _check.integer("input_dim", input_dim, 1)
        self.hidden_dim = _check.integer("hidden_dim", hidden_dim, 1)
        self.kernel_size = _check.pair("kernel_size", kernel_size)
        if not all(k % 2 for k in self.kernel_size):
            _check.fail("kernel_size", "odd, because its padding is kernel_size // 2", kernel_size)
        self.padding = self.kernel_size[0] // 2, self.kernel_size[1] // 2
        self.bias = _check.flag("bias", bias)
        self.conv = nn.Conv2d(
            self.input_dim + self.hidden_dim,
            4 * self.hidden_dim,
            self.kernel_size,
            padding=self.padding,
            bias=self.bias,
        )

    def forward(self, input_tensor: Tensor, cur_state: Sequence[Tensor]) -> State:
        check_like_model("input_tensor", _check.tensor("input_tensor", input_tensor, "a tensor"), self)
        h, c = _state("cur_state", cur_state)
        return conv_lstm_cell(_swap(self.conv(torch.cat([input_tensor, h], 1)), 1), c)

    def init_hidden(self, batch_size: int, image_size: tuple[int, int]) -> State:
        """Zeros for a batch of this many images of size (height, width)."""
        like = next((p for p in self.parameters() if p.is_floating_point()), torch.empty(0))
        shape = (batch_size, self.hidden_dim, *image_size)
        return like.new_zeros(shape), like.new_zeros(shape)


class ConvLSTM(nn.Module):
    r"""Layers of ConvLSTM, each with its own width and kernel.

    Args:
        input_dim: channels of x.
        hidden_dim: channels of all layers, or a list with one number per layer.
        kernel_size: (height, width), both odd, or a list with one per layer.
        num_layers: number of layers.
        batch_first: x is [N, T, ...] instead of [T, N, ...]; results are [N, T, ...] either way.
        bias: whether the convolutions have a bias.
        return_all_layers: return the results of all layers instead of those of the last.
        input_size: (height, width), which earlier versions required; not used.

    Shapes: input_tensor [T, N, C, H, W] or [N, T, C, H, W]; hidden_state None (zeros) or a list of (h, c) for each layer.
    Returns a list of outputs [N, T, C_l, H, W] and a list of [h, c], both of the last layer or of all.

    Parameters: cell_list.{l}.conv.weight [4C, C_in + C, k, k] and .bias [4C], gates in the order i, f, o, g.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Source: github.com/ndrplz/ConvLSTM_pytorch; X. Shi et al., Convolutional LSTM Network, NeurIPS 2015.

    Example:
        >>> from amstel.interop.ndrplz import ConvLSTM
        >>> model = ConvLSTM(input_dim=3, hidden_dim=[8, 8, 16], kernel_size=(3, 3), num_layers=3, batch_first=True,
        ...                  bias=True, return_all_layers=False)
        >>> layer_output_list, last_state_list = model(torch.randn(2, 5, 3, 16, 16))
        >>> layer_output_list[0].shape, last_state_list[0][0].shape
        (torch.Size([2, 5, 16, 16, 16]), torch.Size([2, 16, 16, 16]))
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int | list[int],
        kernel_size: int | tuple[int, int] | list[tuple[int, int]],
        num_layers: int,
        batch_first: bool = False,
        bias: bool = True,
        return_all_layers: bool = False,
        *,
        input_size: tuple[int, int] | None = None,
    ):
        super().__init__()
        self.input_dim = _check.integer("input_dim", input_dim, 1)
        self.num_layers = n = _check.integer("num_layers", num_layers, 1)
        self.hidden_dim = _each("hidden_dim", hidden_dim, n)
        self.kernel_size = _each("kernel_size", kernel_size, n)
        self.batch_first = _check.flag("batch_first", batch_first)
        self.bias = _check.flag("bias", bias)
        self.return_all_layers = _check.flag("return_all_layers", return_all_layers)
        inputs = [self.input_dim, *self.hidden_dim]
        self.cell_list = nn.ModuleList(
            ConvLSTMCell(inputs[k], self.hidden_dim[k], self.kernel_size[k], self.bias) for k in range(n)
        )

    def forward(
        self, input_tensor: Tensor, hidden_state: Sequence[Sequence[Tensor]] | None = None
    ) -> tuple[list[Tensor], list[list[Tensor]]]:
        first = "N, T" if self.batch_first else "T, N"
        expected = f"[{first}, {self.input_dim}, H, W] with T >= 1"
        x = _check.tensor("input_tensor", input_tensor, f"a tensor {expected}")
        if x.dim() != 5 or x.shape[2] != self.input_dim or not x.shape[1 if self.batch_first else 0]:
            _check.fail("input_tensor", expected, x)
        check_like_model("input_tensor", x, self)
        if hidden_state is not None:
            if not isinstance(hidden_state, (tuple, list)):
                _check.fail_type("hidden_state", "None or a list of (h, c) for each layer", hidden_state)
            if len(hidden_state) != self.num_layers:
                expected = f"None or {counted(self.num_layers, 'pair')} (h, c), one per layer"
                raise ValueError(f"`hidden_state` must be {expected}, got {len(hidden_state)}")
        x = x.transpose(0, 1) if self.batch_first else x
        outputs, states = [], []
        for k, cell in enumerate(self.cell_list):
            state = None if hidden_state is None else _state(f"hidden_state[{k}]", hidden_state[k])
            x, last = _sequence(cell, x, state)
            outputs.append(x.transpose(0, 1))
            states.append(list(last))
        return (outputs, states) if self.return_all_layers else (outputs[-1:], states[-1:])


def _sequence(cell: Any, x: Tensor, state: State | None) -> tuple[Tensor, State]:
    """x [T, N, C_in, H, W] through a cell: in one operation, or step by step where a user has changed what a step is."""
    own = computes_as(cell, ConvLSTMCell, "init_hidden") and is_plain_conv(cell.conv)
    if own and not has_hooks(cell, cell.conv):
        weight = _swap(cell.conv.weight, 0)
        bias = None if cell.conv.bias is None else _swap(cell.conv.bias, 0)
        return conv_lstm(x, weight[:, : cell.input_dim], weight[:, cell.input_dim :], bias, state)
    h, c = cell.init_hidden(x.shape[1], tuple(x.shape[3:])) if state is None else state
    outputs = []
    for frame in x:
        h, c = cell(input_tensor=frame, cur_state=[h, c])
        outputs.append(h)
    return torch.stack(outputs), (h, c)


def _each(name: str, value: Any, count: int) -> list[Any]:
    if not isinstance(value, list):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"`{name}` must be one value or a list of num_layers = {count}, got {value!r}")
    return list(value)


def _state(name: str, value: Any) -> State:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        _check.fail_type(name, "(h, c)", value)
    return value[0], value[1]


def _swap(t: Tensor, dim: int) -> Tensor:
    """Gates i, f, o, g as i, f, g, o."""
    i, f, o, g = t.chunk(4, dim)
    return torch.cat([i, f, g, o], dim)
