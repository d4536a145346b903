"""Convert weights of other LSTMs and ConvLSTMs to an `amstel.nn.ConvLSTM`, and back.

| source | tensors of a layer | gates |
|---|---|---|
| amstel | weight_ih [4C, C_in, k, k], weight_hh [4C, C, k, k], bias [4C] | i, f, g, o |
| torch.nn.LSTM | weight_ih_l0 [4C, C_in], weight_hh_l0 [4C, C], bias_ih_l0 [4C], bias_hh_l0 [4C] | i, f, g, o |
| ndrplz/ConvLSTM_pytorch | cell_list.0.conv.weight [4C, C_in + C, k, k], .bias [4C] | i, f, o, g |
| Keras ConvLSTM2D | kernel [k, k, C_in, 4C], recurrent_kernel [k, k, C, 4C], bias [4C] | i, f, c, o |
| OpenSTL | cell_list.0.conv_x.0.weight [4C, C_in, k, k], cell_list.0.conv_h.0.weight [4C, C, k, k] | i, f, g, o |

Weights are copied and keep their dtype and device. From a module, the training mode and frozen weights
(requires_grad=False) are kept too; weights from a state_dict are all trainable. Anything that a ConvLSTM cannot compute
exactly raises an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from amstel import _check
from amstel._bypass import computes_as
from amstel.interop._conv_lstm import (
    Layer,
    _build,
    _cells,
    _check_odd,
    _check_shape,
    _gates,
    _get,
    _some,
    _state,
    _wrong_type,
    as_given,
    check_convolutions,
    normal,
    tracked,
)
from amstel.nn.conv_lstm import ConvLSTM

# ---- torch.nn.LSTM ----


@tracked
def from_torch_lstm(lstm: nn.LSTM) -> ConvLSTM:
    r"""Convert a torch.nn.LSTM to a ConvLSTM with 1x1 kernels: the same LSTM at every pixel.

    Layers, directions, bias, batch_first, dropout, training mode and frozen weights are kept. The bias is bias_ih +
    bias_hh, and is frozen if both are. Features [T, N, F] become maps [T, N, F, 1, 1], and states [L, N, C] become
    [L, N, C, 1, 1]. Instead of packed sequences there are `lengths`, which need no sorting. Dropout acts on whole maps,
    which makes no difference for 1x1 maps.

    Args:
        lstm: without projections (proj_size=0).

    Raises:
        TypeError or ValueError: lstm is something else, or has projections or its own forward.

    Example:
        >>> from amstel.interop.conv_lstm import from_torch_lstm
        >>> theirs, x = torch.nn.LSTM(3, 4, num_layers=2), torch.randn(5, 2, 3)
        >>> ours = from_torch_lstm(theirs)
        >>> torch.allclose(ours(x[..., None, None])[0][..., 0, 0], theirs(x)[0], atol=1e-6)
        True
    """
    if not isinstance(lstm, nn.LSTM):
        _wrong_type("lstm", "a torch.nn.LSTM", lstm)
    if not computes_as(lstm, nn.LSTM):
        _check.fail("lstm", "without its own forward", lstm)
    if lstm.proj_size:
        _check.fail("lstm", "without projections, proj_size=0", f"proj_size={lstm.proj_size}")
    layers: list[Layer] = []
    for name in _names(lstm.num_layers, lstm.bidirectional):
        ih, hh = (normal(getattr(lstm, f"weight_{part}_{name}"))[:, :, None, None] for part in ("ih", "hh"))
        biases = [normal(getattr(lstm, f"bias_{part}_{name}")) for part in ("ih", "hh") if lstm.bias]
        bias = biases[0] + biases[1] if lstm.bias else None
        layers.append((ih, hh, bias))
    result = _build(
        layers, bidirectional=lstm.bidirectional, batch_first=lstm.batch_first, dropout=lstm.dropout
    )
    return as_given(lstm, result)


@tracked
def to_torch_lstm(lstm: ConvLSTM) -> nn.LSTM:
    r"""Convert a ConvLSTM with 1x1 kernels and without peepholes to a torch.nn.LSTM, whose bias_hh is 0.

    Args:
        lstm: with kernel_size=1 and peephole=False; layers, directions, bias, batch_first, dropout, training mode and
            frozen weights are kept.

    Raises:
        TypeError or ValueError: lstm is not such a ConvLSTM.

    Example:
        >>> from amstel.interop.conv_lstm import to_torch_lstm
        >>> to_torch_lstm(amstel.nn.ConvLSTM(3, 4, kernel_size=1, bidirectional=True))
        LSTM(3, 4, bidirectional=True)
    """
    gates = _gates(lstm, bidirectional=(False, True), kernel_size=((1, 1),))
    if not isinstance(lstm.hidden_channels, int):
        _check.fail("lstm", "of one width in all layers", f"hidden_channels={lstm.hidden_channels}")
    first = gates[0].weight_ih
    result = nn.LSTM(
        lstm.in_channels,
        lstm.hidden_channels,
        lstm.num_layers,
        bias=gates[0].bias is not None,
        batch_first=lstm.batch_first,
        dropout=lstm.dropout,
        bidirectional=lstm.bidirectional,
        device=first.device,
        dtype=first.dtype,
    )
    state = {}
    for name, layer in zip(_names(lstm.num_layers, lstm.bidirectional), gates, strict=True):
        state[f"weight_ih_{name}"] = layer.weight_ih[..., 0, 0]
        state[f"weight_hh_{name}"] = layer.weight_hh[..., 0, 0]
        if layer.bias is not None:
            state[f"bias_ih_{name}"], state[f"bias_hh_{name}"] = layer.bias, torch.zeros_like(layer.bias)
            state[f"bias_hh_{name}"].requires_grad_(layer.bias.requires_grad)
    result.load_state_dict(state)
    for key, p in result.named_parameters():
        p.requires_grad_(state[key].requires_grad)
    return result.train(lstm.training)


def _names(num_layers: int, bidirectional: bool) -> list[str]:
    """What torch.nn.LSTM calls its directions and layers, in the order of ConvLSTM.layers."""
    directions = ("", "_reverse") if bidirectional else ("",)
    return [f"l{k}{direction}" for k in range(num_layers) for direction in directions]


# ---- ndrplz/ConvLSTM_pytorch ----


@tracked
def from_ndrplz(
    weights: nn.Module | Mapping[str, Tensor], *, batch_first: bool | None = None, prefix: str = ""
) -> ConvLSTM:
    r"""Convert the ConvLSTM of github.com/ndrplz/ConvLSTM_pytorch and its many descendants.

    It has one convolution of [x, h], with the input channels first: `cell_list.{l}.conv.weight` [4C, C_in + C, k_h, k_w]
    and `cell_list.{l}.conv.bias` [4C], with gates in the order i, f, o, g and odd kernels padded by k // 2.

    Their output is a list with one tensor [N, T, C, H, W], for any batch_first; here it follows batch_first, as in
    torch.nn.LSTM. Their last_state_list [[h, c]] is that of the top layer, here (h_n[-1], c_n[-1]).

    Args:
        weights: the module or its state_dict; a single cell (`conv.weight`, `conv.bias`) is one layer. The `conv` of a
            module must be its original torch.nn.Conv2d: another forward or padding raises an error.
        batch_first: whether x is [N, T, C_in, H, W]; None: as in the module, False for a state_dict.
        prefix: the prefix of the keys, such as "lstm."; "cell_list.0." gives a single layer.

    Raises:
        TypeError or ValueError: a key is missing or unknown, or a shape is not as described.

    Example:
        >>> from amstel.interop.conv_lstm import from_ndrplz
        >>> weights = {"cell_list.0.conv.weight": torch.randn(32, 3 + 8, 5, 5), "cell_list.0.conv.bias": torch.zeros(32)}
        >>> output, (h_n, c_n) = from_ndrplz(weights)(torch.randn(4, 2, 3, 16, 16))
        >>> output.shape, h_n.shape
        (torch.Size([4, 2, 8, 16, 16]), torch.Size([1, 2, 8, 16, 16]))
    """
    if batch_first is None:
        batch_first = bool(getattr(weights, "batch_first", False))
    state = _state(weights)
    cells = _cells(state, prefix, ["conv.weight"], ["conv.bias"])
    has_bias = any(f"{cell}conv.bias" in state for cell in cells)
    layers: list[Layer] = []
    for cell in cells:
        weight = _get(state, f"{cell}conv.weight")
        if weight.dim() != 4 or weight.shape[0] % 4 or weight.shape[1] <= weight.shape[0] // 4:
            _check.fail(f"{cell}conv.weight", "[4C, C_in + C, k, k] with C_in >= 1", weight)
        _check_odd(f"{cell}conv.weight", weight)
        bias = None
        if has_bias:
            bias = _check_shape(f"{cell}conv.bias", _get(state, f"{cell}conv.bias"), [weight.shape[0]])
            bias = _swap(bias)
        hidden = weight.shape[0] // 4
        ih, hh = _swap(weight).split([weight.shape[1] - hidden, hidden], 1)
        layers.append((ih, hh, bias))
    check_convolutions(weights, [f"{cell}conv" for cell in cells])
    return as_given(weights, _build(layers, batch_first=batch_first))


def to_ndrplz(lstm: ConvLSTM) -> dict[str, Tensor]:
    r"""The state_dict of github.com/ndrplz/ConvLSTM_pytorch's ConvLSTM with the same weights; see `from_ndrplz`.

    Args:
        lstm: with one direction, odd kernels, and padding "same"; without peepholes or dilation.

    Raises:
        TypeError or ValueError: lstm is not such a ConvLSTM.

    Example:
        >>> from amstel.interop.conv_lstm import to_ndrplz
        >>> {k: list(v.shape) for k, v in to_ndrplz(amstel.nn.ConvLSTM(3, 8)).items()}
        {'cell_list.0.conv.weight': [32, 11, 3, 3], 'cell_list.0.conv.bias': [32]}
    """
    state = {}
    for n, layer in enumerate(_gates(lstm, dilation=(1,), padding=("same",))):
        _check_odd("lstm", layer.weight_ih)
        weight = torch.cat([layer.weight_ih, layer.weight_hh], 1).detach()
        state[f"cell_list.{n}.conv.weight"] = _swap(weight)
        if layer.bias is not None:
            state[f"cell_list.{n}.conv.bias"] = _swap(layer.bias.detach())
    return state


def _swap(t: Tensor) -> Tensor:
    """Gates i, f, o, g as i, f, g, o, and the other way round."""
    i, f, g, o = t.chunk(4)
    return torch.cat([i, f, o, g])


# ---- Keras ----


def from_keras(
    weights: Sequence[Any],
    *,
    padding: str = "valid",
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    strides: int | Sequence[int] = 1,
    dilation_rate: int | Sequence[int] = 1,
    batch_first: bool = True,
) -> ConvLSTM:
    r"""Convert Keras's ConvLSTM2D, one layer or several stacked ones.

    It has kernel [k_h, k_w, C_in, 4C], recurrent_kernel [k_h, k_w, C, 4C] and, with use_bias, bias [4C], with gates in
    the order i, f, c, o, where c is our g. unit_forget_bias is already part of the bias. The input convolution is padded
    as requested, and that of h is always "same"; even kernels pad one more at the bottom and right, as here. Maps are
    [N, T, H, W, C_in] there, or [N, T, C_in, H, W] with data_format="channels_first"; here they are always the latter:
    `ours(x.permute(0, 1, 4, 2, 3))`. Keras returns the last output unless return_sequences=True, here output[:, -1].
    dropout, recurrent_dropout and go_backwards are not converted.

    Args:
        weights: arrays or tensors as in `layer.get_weights()`; for several layers, one after the other.
        padding, activation, recurrent_activation, strides, dilation_rate: as in `layer.get_config()`, with Keras's
            defaults. A ConvLSTM has tanh and sigmoid, and neither strides nor Keras's dilation (of the input only).
            **Keras 2, and so tf.keras before TensorFlow 2.16, used recurrent_activation="hard_sigmoid" by default**:
            pass what the layer says, because the weights do not show it.
        batch_first: x and output are [N, T, ...], as in Keras.

    Raises:
        TypeError or ValueError: a ConvLSTM cannot compute the layer, or a shape is not as described.

    Example:
        >>> from amstel.interop.conv_lstm import from_keras
        >>> weights = [torch.randn(3, 3, 5, 8), torch.randn(3, 3, 2, 8), torch.zeros(8)]
        >>> lstm = from_keras(weights, padding="same")
        >>> lstm(torch.randn(2, 3, 5, 4, 4))[0].shape
        torch.Size([2, 3, 2, 4, 4])
    """
    if activation != "tanh":
        _check.fail("activation", "'tanh', as in a ConvLSTM", activation)
    if recurrent_activation != "sigmoid":
        expected = "'sigmoid', as in a ConvLSTM ('hard_sigmoid', the default of Keras 2, is another function)"
        _check.fail("recurrent_activation", expected, recurrent_activation)
    for name, value in (("strides", strides), ("dilation_rate", dilation_rate)):
        if not (np.asarray(value, dtype=object) == 1).all():
            _check.fail(name, "1, as in a ConvLSTM", value)
    if isinstance(weights, (str, bytes)) or not isinstance(weights, Sequence):
        _wrong_type("weights", "a list of arrays, as layer.get_weights() is", weights)
    _check.unmasked("weights", weights)
    arrays = [w if isinstance(w, Tensor) else torch.from_numpy(np.array(w)) for w in weights if w is not None]
    size = 3 if any(a.dim() == 1 for a in arrays) else 2
    if not arrays or len(arrays) % size:
        expected = "kernel, recurrent_kernel and perhaps bias of every layer"
        _check.fail("weights", expected, ", ".join(str(list(a.shape)) for a in arrays))
    layers: list[Layer] = []
    for n in range(0, len(arrays), size):
        kernel, recurrent = arrays[n : n + 2]
        if kernel.dim() != 4 or kernel.shape[3] % 4:
            _check.fail(f"weights[{n}]", "a kernel [k_h, k_w, C_in, 4C]", kernel)
        rows = kernel.shape[3]
        _check_shape(f"weights[{n + 1}]", recurrent, [*kernel.shape[:2], rows // 4, rows])
        bias = _check_shape(f"weights[{n + 2}]", arrays[n + 2], [rows]) if size == 3 else None
        layers.append((kernel.permute(3, 2, 0, 1), recurrent.permute(3, 2, 0, 1), bias))
    return as_given(weights, _build(layers, padding=padding, batch_first=batch_first))


def to_keras(lstm: ConvLSTM) -> list[np.ndarray]:
    r"""Kernel, recurrent_kernel and bias of every layer, for `set_weights` of Keras's ConvLSTM2D; see `from_keras`.
    bfloat16 weights become float32.

    Args:
        lstm: with one direction, without peepholes or dilation. Give the Keras layer the same padding.

    Raises:
        TypeError or ValueError: lstm is not such a ConvLSTM.

    Example:
        >>> from amstel.interop.conv_lstm import to_keras
        >>> [w.shape for w in to_keras(amstel.nn.ConvLSTM(5, 2, padding="valid"))]
        [(3, 3, 5, 8), (3, 3, 2, 8), (8,)]
    """
    weights = []
    for layer in _gates(lstm, dilation=(1,)):
        weights += [layer.weight_ih.permute(2, 3, 1, 0), layer.weight_hh.permute(2, 3, 1, 0)]
        weights += [] if layer.bias is None else [layer.bias]
    # NumPy has no bfloat16, of which float32 holds every number.
    return [(w.float() if w.dtype == torch.bfloat16 else w).detach().cpu().numpy().copy() for w in weights]


# ---- OpenSTL ----


@tracked
def from_openstl(
    weights: nn.Module | Mapping[str, Tensor], *, batch_first: bool = True, prefix: str = ""
) -> ConvLSTM:
    r"""Convert the ConvLSTM of github.com/chengtan9907/OpenSTL (ConvLSTM_Model, ConvLSTMCell) with layer_norm=0.

    It has `cell_list.{l}.conv_x.0.weight` [4C, C_in, k, k] and `cell_list.{l}.conv_h.0.weight` [4C, C, k, k], with odd
    kernels padded by k // 2, gates in the order i, f, g, o and no bias (the forget bias in its code is never added). The
    model reads frames [N, T, H, W, C] that are already cut into patches; here they are [N, T, C, H, W].

    Not converted: `conv_o` and `conv_last` of the cells, which OpenSTL never uses, and the model's own `conv_last`, its
    readout: `torch.nn.functional.conv2d(output[:, t], weights["conv_last.weight"])` is the next frame.

    Before the fix of OpenSTL's issue 68, at the end of 2023, h was o ⊙ g instead of o ⊙ tanh(c'), which the weights do not
    show. Weights trained that way give other values in a ConvLSTM, as they do in today's OpenSTL.

    Args:
        weights: the module or its state_dict; a single cell (`conv_x.0.weight`, ...) is one layer. The `conv_x` and
            `conv_h` of a module must be the original ones: others, or longer ones, raise an error.
        batch_first: whether x and output are [N, T, ...], as in OpenSTL.
        prefix: the prefix of the keys, such as "model."; "cell_list.0." gives a single layer.

    Raises:
        TypeError or ValueError: a model with layer_norm=1, a key is missing or unknown, or a shape is not as
            described.

    Example:
        >>> from amstel.interop.conv_lstm import from_openstl
        >>> cell = {"conv_x.0.weight": torch.randn(32, 3, 5, 5), "conv_h.0.weight": torch.randn(32, 8, 5, 5)}
        >>> lstm = from_openstl({f"cell_list.0.{key}": w for key, w in cell.items()})
        >>> lstm(torch.randn(2, 4, 3, 16, 16))[0].shape
        torch.Size([2, 4, 8, 16, 16])
    """
    state = _state(weights)
    second = ("conv_x.1.", "conv_h.1.", "conv_o.1.")
    norms = [key for key in state if key.startswith(prefix) and any(part in key for part in second)]
    if norms:
        raise ValueError(f"`weights` must be of a model with layer_norm=0, got layer norms: {_some(norms)}")
    cells = _cells(
        state, prefix, ["conv_x.0.weight", "conv_h.0.weight"], ["conv_o.0.weight", "conv_last.weight"]
    )
    layers: list[Layer] = []
    for cell in cells:
        ih, hh = _get(state, f"{cell}conv_x.0.weight"), _get(state, f"{cell}conv_h.0.weight")
        if ih.dim() != 4 or ih.shape[0] % 4:
            _check.fail(f"{cell}conv_x.0.weight", "[4C, C_in, k, k]", ih)
        _check_odd(f"{cell}conv_x.0.weight", ih)
        _check_shape(f"{cell}conv_h.0.weight", hh, [ih.shape[0], ih.shape[0] // 4, *ih.shape[2:]])
        layers.append((ih, hh, None))
    parts = [f"{cell}{part}" for cell in cells for part in ("conv_x", "conv_h")]
    check_convolutions(weights, [f"{part}.0" for part in parts])
    if isinstance(weights, nn.Module):
        for part in parts:
            if len(sequence := cast(nn.Sequential, weights.get_submodule(part))) > 1:
                _check.fail(part, "a single convolution", sequence)
    return as_given(weights, _build(layers, batch_first=batch_first))


def to_openstl(lstm: ConvLSTM) -> dict[str, Tensor]:
    r"""The cells of OpenSTL's ConvLSTM_Model (layer_norm=0) with the same weights; see `from_openstl`.

    Load them with `model.load_state_dict(state, strict=False)`: its cells also have a `conv_o` and a `conv_last`, which it
    never uses, and the model has its own `conv_last`, which computes the frames.

    Args:
        lstm: with one direction, odd kernels, and padding "same"; without bias, peepholes or dilation.

    Raises:
        TypeError or ValueError: lstm is not such a ConvLSTM.

    Example:
        >>> from amstel.interop.conv_lstm import to_openstl
        >>> {k: list(v.shape) for k, v in to_openstl(amstel.nn.ConvLSTM(3, 8, 5, bias=False)).items()}
        {'cell_list.0.conv_x.0.weight': [32, 3, 5, 5], 'cell_list.0.conv_h.0.weight': [32, 8, 5, 5]}
    """
    state = {}
    for n, layer in enumerate(_gates(lstm, dilation=(1,), padding=("same",))):
        _check_odd("lstm", layer.weight_ih)
        if layer.bias is not None:
            _check.fail("lstm", "of bias=False, as OpenSTL's", "bias=True")
        state[f"cell_list.{n}.conv_x.0.weight"] = layer.weight_ih.detach().clone()
        state[f"cell_list.{n}.conv_h.0.weight"] = layer.weight_hh.detach().clone()
    return state
