"""Convert weights of other convolutional GRUs, and of recurrent inference machines built on them, to `amstel.nn`.

| source | tensors of a GRU | gates | reset | h' |
|---|---|---|---|---|
| amstel, torch.nn.GRUCell | weight_ih, bias_ih, weight_hh, bias_hh | r, z, n | after the product | (1 - z) n + z h |
| atommic | ih.weight, ih.bias, hh.weight, none for h | r, z, n | after | (1 - z) n + z h |
| irim | ih.weight, ih.bias, hh.weight, hh.bias | z, r, n | after | z n + (1 - z) h |
| direct | one convolution of [x, h] a gate, biases with it | by name | before | z n + (1 - z) h |

Where z belongs to the new state, the weights and biases of its gate change sign, because σ(-a) = 1 - σ(a).

Each function takes a module or its state_dict: of a single GRU, which becomes a `ConvGRUCell`, or of a whole network
with two GRUs, which becomes a `RIM`. The tensors do not contain the dilations and T. From a module, the training mode and
frozen weights (requires_grad=False) are kept; weights from a state_dict are all trainable. A convolution with its own
forward raises an error.

Facts from the public sources, as of 2025: github.com/NKI-AI/direct (direct/nn/recurrent/recurrent.py, rim/rim.py),
github.com/wdika/atommic (collections/reconstruction/nn/rim_base), github.com/pputzky/invertible_rim (irim/rim).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from amstel import _check
from amstel._bypass import computes_as
from amstel.interop._conv_lstm import as_given, normal, tracked
from amstel.nn.conv_gru import ConvGRUCell
from amstel.nn.rim import RIM, State

Weights = nn.Module | Mapping[str, Tensor]


@tracked
def from_direct(
    weights: Weights, *, prefix: str = "", dilation: int = 2, steps: int = 8
) -> ConvGRUCell | RIM:
    r"""Convert direct's GRUs, and its Conv2dGRU with two layers, the network of its RIM.

    A cell has `reset_gate.weight`, `update_gate.weight`, `out_gate.weight` [C, C_in + C, k, k] and their biases [C]. In
    layer l of a Conv2dGRU, these are `reset_gates.{l}.0`, `update_gates.{l}.0`, `out_gates.{l}.0`, and there are also
    `conv_blocks.{0, 1, 2}`. A RIM of direct stores its networks as `cell_list.{t}`. With parameter sharing, the prefix is
    "cell_list.0."; without it, there are T networks, each of which is converted separately.

    Args:
        weights: the module or its state_dict.
        prefix: the prefix of the keys.
        dilation: of the second convolution; always 2 in direct.
        steps: T of the RIM.

    Replication padding is recognized by the keys (`conv_blocks.0.1`); without it, padding is zeros. The reset is before
    the product, and the states go through a ReLU on their way to the next convolution. Instance norm and dense
    connections, which a RIM does not have, raise an error.

    Raises:
        TypeError or ValueError: a key is missing or unknown, or a shape is not as described.

    Example:
        >>> from amstel.interop.rim import from_direct
        >>> gate = {"weight": torch.randn(4, 7, 1, 1), "bias": torch.zeros(4)}
        >>> state = {f"{g}_gate.{k}": t for g in ("reset", "update", "out") for k, t in gate.items()}
        >>> from_direct(state)
        ConvGRUCell(3, 4, kernel_size=1, reset='before')
    """
    state = _state(weights, prefix)
    gates = ("reset", "update", "out")
    if "reset_gate.weight" in state:
        names = {f"{g}_gate.{k}": f"{g}.{k}" for g in gates for k in ("weight", "bias")}
        return as_given(weights, _direct_cell(_take(state, names)))
    at = 1 if "conv_blocks.0.1.weight" in state else 0
    names = {f"conv_blocks.{k}.{at}.{t}": f"conv{k + 1}.{t}" for k in range(3) for t in ("weight", "bias")}
    for layer in range(2):
        names |= {
            f"{g}_gates.{layer}.0.{t}": f"gru{layer + 1}.{g}.{t}" for g in gates for t in ("weight", "bias")
        }
    found = _take(state, names)
    cells = [_direct_cell(_part(found, f"gru{k}.")) for k in (1, 2)]
    padding = "replicate" if at else "zeros"
    options: dict[str, Any] = {"padding_mode": padding, "reset": "before", "state_relu": True}
    return as_given(weights, _network(found, cells, steps, dilation=dilation, **options))


@tracked
def from_atommic(
    weights: Weights, *, prefix: str = "", dilation: int = 2, steps: int = 8
) -> ConvGRUCell | RIM:
    r"""Convert atommic's ConvGRUCell, and its RIMBlock with GRUs, the network of its CIRIM, RIM and others.

    A cell has `ih.weight` [3C, C_in, k, k], `ih.bias` [3C] (zeros if absent) and `hh.weight` [3C, C, k, k]. A block has
    `layers.{0, 1}.convs.conv_layer`, `layers.{0, 1}.rnn` and `final_layer.0.conv_layer`, with replication padding. The
    blocks of a CIRIM are its cascades, with prefix="reconstruction_module.{k}.". The weight of its soft data consistency,
    `dc_weight`, is outside the recurrence and is not converted.

    Args:
        weights: the module or its state_dict.
        prefix: the prefix of the keys.
        dilation: of the second convolution: the second of atommic's `conv_dilations`.
        steps: T of the RIM.

    Raises:
        TypeError or ValueError: a key is missing or unknown, or a shape is not as described.

    Example:
        >>> from amstel.interop.rim import from_atommic
        >>> from_atommic({"ih.weight": torch.randn(12, 3, 1, 1), "hh.weight": torch.randn(12, 4, 1, 1)})
        ConvGRUCell(3, 4, kernel_size=1, reset='after')
    """
    state = {k: t for k, t in _state(weights, prefix).items() if k != "dc_weight"}
    model = _stacked(state, "convs", "rnn", "final_layer.0", ("r", "z", "n"), dilation, steps)
    return as_given(weights, model)


@tracked
def from_irim(
    weights: Weights, *, prefix: str = "", dilation: int = 2, steps: int = 8, carry_state: bool = True
) -> ConvGRUCell | RIM:
    r"""Convert irim's ConvGRUCell, and its ConvRNN, the network of its RIM.

    A cell has `ih.weight` [3C, C_in, k, k], `hh.weight` [3C, C, k, k], and biases [3C] of both. A network has
    `layers.{0, 1, 2}.input_fun.conv_layer`, with replication padding, and `layers.{0, 1}.rnn_cell`; for a RIM, use
    prefix="rnn.".

    Args:
        weights: the module or its state_dict.
        prefix: the prefix of the keys.
        dilation: of the second convolution; 2 in irim unless configured otherwise.
        steps: T of the RIM.
        carry_state: irim's ConvRNN returns its states, but calls its cells without them, so every step starts from zero
            states. False does the same, to reproduce the results of weights trained that way.

    Raises:
        TypeError or ValueError: a key is missing or unknown, or a shape is not as described.

    Example:
        >>> from amstel.interop.rim import from_irim
        >>> from_irim({"ih.weight": torch.randn(12, 3, 1, 1), "hh.weight": torch.randn(12, 4, 1, 1)})
        ConvGRUCell(3, 4, kernel_size=1, reset='after')
    """
    state = _state(weights, prefix)
    network = _Forgetful if not carry_state else RIM
    places = "input_fun", "rnn_cell", "layers.2.input_fun"
    return as_given(weights, _stacked(state, *places, ("z", "r", "n"), dilation, steps, network))


class _Forgetful(RIM):
    """Every step begins with states of 0."""

    def step(
        self, given: Tensor, state: State = (None, None), sigma: Tensor | None = None
    ) -> tuple[Tensor, State]:
        return super().step(given)


# ---- What they share ----


def _stacked(
    state: Mapping[str, Tensor],
    conv: str,
    rnn: str,
    last: str,
    order: tuple[str, str, str],
    dilation: int,
    steps: int,
    network: type[RIM] = RIM,
) -> ConvGRUCell | RIM:
    """Of atommic, whose code comes from irim's."""
    cell = [f"{side}.{t}" for side in ("ih", "hh") for t in ("weight", "bias")]
    if "ih.weight" in state:
        return _gru_cell(_take(state, {key: key for key in cell}, ("ih.bias", "hh.bias")), order)
    places = {f"layers.{k}.{conv}": f"conv{k + 1}" for k in range(2)} | {last: "conv3"}
    names = {f"{p}.conv_layer.{t}": f"{name}.{t}" for p, name in places.items() for t in ("weight", "bias")}
    names |= {f"layers.{k}.{rnn}.{key}": f"gru{k + 1}.{key}" for k in range(2) for key in cell}
    found = _take(state, names, [key for key in names if key.endswith("bias")])
    cells = [_gru_cell(_part(found, f"gru{k}."), order) for k in (1, 2)]
    return _network(found, cells, steps, dilation=dilation, padding_mode="replicate", network=network)


def _state(weights: Any, prefix: str) -> Mapping[str, Tensor]:
    state = weights.state_dict(keep_vars=True) if isinstance(weights, nn.Module) else weights
    if not isinstance(state, Mapping):
        raise TypeError(f"`weights` must be a module or its state_dict, got {type(weights).__name__}")
    for name, module in (
        weights.named_modules(remove_duplicate=False) if isinstance(weights, nn.Module) else ()
    ):
        own = isinstance(module, nn.Conv2d) and not computes_as(module, nn.Conv2d, "_conv_forward")
        if own and name.startswith(prefix):
            _check.fail(name, "a torch.nn.Conv2d without its own forward", module)
    return {key: normal(t) for key, t in _part(state, prefix).items()}


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): t for key, t in state.items() if key.startswith(prefix)}


def _take(state: Mapping[str, Tensor], names: dict[str, str], optional: Any = ()) -> dict[str, Tensor]:
    """The tensors `names` under their new names; there must be no others."""
    unknown = sorted(set(state) - set(names))
    missing = [key for key in names if key not in state and key not in optional]
    if unknown or missing:
        raise ValueError(
            "`weights` must be of one of the networks in the documentation, got "
            + "; ".join(
                f"{what} {', '.join(keys[:6])}" for what, keys in (("no", missing), ("also", unknown)) if keys
            )
        )
    found = {name: _check.tensor(key, state[key], "a tensor") for key, name in names.items() if key in state}
    for key, t in found.items():
        if t.dtype not in _check.FLOATS or t.dim() != (1 if key.endswith("bias") else 4):
            _check.fail(key, "floating-point, [out, in, k, k] of a weight and [out] of a bias", t)
    return found


def _cell(
    w_i: list[Tensor], w_h: list[Tensor], b_i: list[Tensor], b_h: list[Tensor], reset: str
) -> ConvGRUCell:
    """From the gates r, z, n."""
    joined = [torch.cat(part) for part in (w_i, w_h, b_i, b_h)]
    (rows, inputs, k, other), (_, c, *_) = joined[0].shape, joined[1].shape
    if (
        k != other
        or k % 2 == 0
        or joined[1].shape != (rows, c, k, k)
        or rows != 3 * c
        or joined[2].shape != (rows,)
    ):
        expected = "a GRU of one odd kernel size, [3C, C_in, k, k] and [3C, C, k, k]"
        raise ValueError(f"`weights` must be {expected}, got {[list(t.shape) for t in joined]}")
    with torch.device("meta"):
        cell = ConvGRUCell(inputs, c, k, reset=reset)
    _load(cell, dict(zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), joined, strict=True)))
    return cell


def _load(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copies, frozen where these need no gradient."""
    model.load_state_dict({name: t.detach().clone() for name, t in state.items()}, assign=True)
    for name, p in model.named_parameters():
        p.requires_grad_(state[name].requires_grad)


def _gru_cell(state: dict[str, Tensor], order: tuple[str, str, str]) -> ConvGRUCell:
    parts = []
    for key in ("ih.weight", "hh.weight", "ih.bias", "hh.bias"):
        t = state.get(key)
        if t is None:
            weight = state[key.replace("bias", "weight")]
            t = weight.new_zeros(weight.shape[0], requires_grad=weight.requires_grad)
        gates = dict(zip(order, t.chunk(3), strict=False))
        if len(gates) != 3:
            _check.fail(key, "three gates", t)
        if order[0] == "z":  # z of the new state
            gates["z"] = -gates["z"]
        parts.append([gates[g] for g in ("r", "z", "n")])
    w_i, w_h, b_i, b_h = parts
    return _cell(w_i, w_h, b_i, b_h, "after")


def _direct_cell(state: dict[str, Tensor]) -> ConvGRUCell:
    gates = [(state[f"{g}.weight"], state[f"{g}.bias"]) for g in ("reset", "update", "out")]
    c = len(gates[0][1])
    signs = (1, -1, 1)
    weights = [sign * w for sign, (w, _) in zip(signs, gates, strict=True)]
    biases = [sign * b for sign, (_, b) in zip(signs, gates, strict=True)]
    if any(w.shape[1] <= c for w in weights):
        _check.fail("reset_gate.weight", f"[{c}, C_in + {c}, k, k]", weights[0])
    inputs = weights[0].shape[1] - c
    none = [torch.zeros_like(b, requires_grad=b.requires_grad) for b in biases]
    return _cell([w[:, :inputs] for w in weights], [w[:, inputs:] for w in weights], biases, none, "before")


def _network(
    found: dict[str, Tensor],
    cells: list[ConvGRUCell],
    steps: int,
    *,
    network: type[RIM] = RIM,
    **options: Any,
) -> RIM:
    first, last = found["conv1.weight"], found["conv3.weight"]
    channels, features = last.shape[0], first.shape[0]
    sizes: Any = tuple(found[f"conv{k}.weight"].shape[-1] for k in (1, 2, 3))
    if first.shape[1] != 2 * channels:
        _check.fail("conv1.weight", f"[C', {2 * channels}, k, k], for η and its gradient", first)
    with torch.device("meta"):
        kernel = cells[0].weight_ih.shape[-1]
        model = network(channels, features, steps, kernel_sizes=sizes, gru_kernel_size=kernel, **options)
    state: dict[str, Tensor] = {}
    for k, cell in enumerate(cells, 1):
        state |= {f"gru{k}.{name}": p for name, p in cell.named_parameters()}
    for k in (1, 2, 3):
        state[f"conv{k}.weight"] = weight = found[f"conv{k}.weight"]
        bias = found.get(f"conv{k}.bias")
        if bias is None:
            bias = weight.new_zeros(len(weight), requires_grad=weight.requires_grad)
        state[f"conv{k}.bias"] = bias
    for name, p in model.state_dict().items():
        if state[name].shape != p.shape:
            _check.fail("weights", f"those of one RIM, {name} {list(p.shape)}", state[name])
    _load(model, state)
    return model
