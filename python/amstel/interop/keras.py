"""Keras's ConvLSTM layers under their own names, on amstel's operator, for Keras 3 on PyTorch.

For existing code, change only the import:

.. code-block:: text

    from keras.layers import ConvLSTM2D    becomes    from amstel.interop.keras import ConvLSTM2D

The layers are subclasses of Keras's own. Arguments, weights (order and shapes), initial values, regularizers, saving and
loading are the same, and `get_weights` and `set_weights` are compatible. Only the loop over time is replaced. Keras must
run on PyTorch: importing this module before Keras selects it unless KERAS_BACKEND is set.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from amstel._bypass import computes_as, has_hooks
from amstel._optional import need
from amstel.ops.conv_lstm import conv_lstm

if "keras" not in sys.modules:
    os.environ.setdefault("KERAS_BACKEND", "torch")
need("keras", "keras", "amstel.interop.keras")

import keras  # noqa: E402

if keras.backend.backend() != "torch":
    raise ImportError(
        f"amstel.interop.keras needs Keras on PyTorch, and it runs on {keras.backend.backend()}: set the environment "
        "variable KERAS_BACKEND=torch before Keras is imported"
    )

from keras.src.layers.rnn.conv_lstm import ConvLSTMCell  # noqa: E402

__all__ = ["ConvLSTM1D", "ConvLSTM2D"]


class _Fused:
    """In front of a ConvLSTM layer of Keras: its loop over time as one operation, wherever the values are the same."""

    cell: Any

    def inner_loop(self: Any, sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> Any:
        """(last output, outputs, [h, c]) as keras.layers.RNN.inner_loop has them."""
        cell = self.cell
        dropped = training and (cell.dropout or cell.recurrent_dropout)
        own = computes_as(cell, ConvLSTMCell, "call", "input_conv", "recurrent_conv") and not has_hooks(cell)
        # Masks and dropout (of each gate by itself) are Keras' own affair, and so are shapes without values.
        if not own or mask is not None or dropped or sequences.device.type == "meta" or cell.rank > 2:
            return super().inner_loop(sequences, initial_state, mask=mask, training=training)  # type: ignore[misc]
        if (
            self.stateful
        ):  # Keras writes the new state into the tensors of the old one, which the gradient still needs
            initial_state = [t.clone() for t in initial_state]
        last = cell.data_format == "channels_last"
        x, h, c = (
            _first(t, at) if last else t for t, at in zip((sequences, *initial_state), (2, 1, 1), strict=True)
        )
        x = x.transpose(0, 1)  # [T, N, C, ...]
        x = x.flip(0) if self.go_backwards else x
        kernels = [_value(cell, w).movedim((-1, -2), (0, 1)) for w in (cell.kernel, cell.recurrent_kernel)]
        bias = None if cell.bias is None else _value(cell, cell.bias)
        usual = (
            cell.activation is keras.activations.tanh
            and cell.recurrent_activation is keras.activations.sigmoid
        )
        if usual and set(cell.strides) == {1} and set(cell.dilation_rate) == {1}:
            output, (h, c) = _one_operation(x, kernels, bias, h, c, cell.padding, self.return_sequences)
        else:
            output, (h, c) = _steps(cell, x, kernels, bias, h, c)
        newest = output if output.dim() == h.dim() else output[-1]
        outputs = newest[None] if output.dim() == h.dim() or not self.return_sequences else output
        outputs = outputs.transpose(0, 1)
        if last:
            newest, outputs, h, c = _last(newest, 1), _last(outputs, 2), _last(h, 1), _last(c, 1)
        return newest, outputs, [h, c]


@keras.saving.register_keras_serializable("amstel")
class ConvLSTM2D(_Fused, keras.layers.ConvLSTM2D):
    r"""keras.layers.ConvLSTM2D as a single operation over time.

    This needs activation="tanh", recurrent_activation="sigmoid", and strides and dilation_rate of 1, the defaults. With
    other activations, strides or dilations, it runs step by step, with the input still convolved for all steps at once.
    With a mask, with a cell that has its own methods or hooks, and in training with dropout, Keras's own loop runs.

    Args, shapes and weights: as in keras.layers.ConvLSTM2D.

    Source: keras.io/api/layers/recurrent_layers/conv_lstm2d; X. Shi et al., Convolutional LSTM Network, NeurIPS 2015.

    Example:
        >>> from amstel.interop.keras import ConvLSTM2D
        >>> layer = ConvLSTM2D(8, kernel_size=(3, 3), padding="same", return_sequences=True)
        >>> layer(torch.randn(2, 4, 16, 16, 3)).shape
        torch.Size([2, 4, 16, 16, 8])
    """


@keras.saving.register_keras_serializable("amstel")
class ConvLSTM1D(_Fused, keras.layers.ConvLSTM1D):
    r"""keras.layers.ConvLSTM1D as a single operation over time, under the same conditions as `ConvLSTM2D`.

    Args, shapes and weights: as in keras.layers.ConvLSTM1D.

    Example:
        >>> from amstel.interop.keras import ConvLSTM1D
        >>> ConvLSTM1D(8, 3, padding="same")(torch.randn(2, 4, 16, 3)).shape
        torch.Size([2, 16, 8])
    """


def _one_operation(
    x: Tensor, kernels: list[Tensor], bias: Tensor | None, h: Tensor, c: Tensor, padding: str, whole: bool
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    flat = x.dim() == 4  # one dimension is a picture of one row
    if flat:
        x, kernels, h, c = x.unsqueeze(3), [k.unsqueeze(2) for k in kernels], h.unsqueeze(2), c.unsqueeze(2)
    weight_ih, weight_hh = kernels
    output, state = conv_lstm(x, weight_ih, weight_hh, bias, (h, c), padding=padding, return_sequences=whole)
    if flat:
        return output.squeeze(-2), (state[0].squeeze(-2), state[1].squeeze(-2))
    return output, state


def _steps(
    cell: Any, x: Tensor, kernels: list[Tensor], bias: Tensor | None, h: Tensor, c: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """With whatever activations, strides and dilations the cell has; Keras dilates the convolution of the input alone."""
    conv = F.conv1d if x.dim() == 4 else F.conv2d
    activation, recurrent_activation = (
        _within(cell, f) for f in (cell.activation, cell.recurrent_activation)
    )
    inputs = x.flatten(0, 1)
    if cell.padding == "same":
        inputs = F.pad(inputs, _pads(inputs, cell.kernel_size, cell.strides, cell.dilation_rate))
    gates = conv(inputs, kernels[0], bias, cell.strides, 0, cell.dilation_rate).unflatten(0, x.shape[:2])
    ones = (1,) * cell.rank
    pads = _pads(h, cell.kernel_size, ones, ones)
    outputs = []
    for a in gates.unbind(0):
        i, f, g, o = (a + conv(F.pad(h, pads), kernels[1])).chunk(4, 1)
        c = recurrent_activation(f) * c + recurrent_activation(i) * activation(g)
        h = recurrent_activation(o) * activation(c)
        outputs.append(h)
    return torch.stack(outputs), (h, c)


def _within(cell: Any, activation: Any) -> Any:
    """An activation of the cell for [N, C, ...]: softmax, and those with weights, know where the cell has its channels."""
    if cell.data_format == "channels_last":
        return lambda t: _first(activation(_last(t, 1)), 1)
    return activation


def _pads(x: Tensor, kernel: Any, strides: Any, dilation: Any) -> list[int]:
    """What Keras adds for padding="same", for torch.nn.functional.pad: what is odd comes below and to the right."""
    pads: list[int] = []
    for size, k, s, d in zip(x.shape[2:], kernel, strides, dilation, strict=True):
        total = max(0, (-(-size // s) - 1) * s + d * (k - 1) + 1 - size)
        pads = [total // 2, total - total // 2, *pads]
    return pads


def _value(cell: Any, weight: Any) -> Tensor:
    return keras.ops.convert_to_tensor(weight, dtype=cell.compute_dtype)


def _first(t: Tensor, at: int) -> Tensor:
    return t.movedim(-1, at)


def _last(t: Tensor, at: int) -> Tensor:
    return t.movedim(at, -1)
