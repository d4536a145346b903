"""Shared code of `amstel.interop.conv_lstm`: reading and checking a state_dict, and making a ConvLSTM of layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from amstel import _check
from amstel._bypass import is_plain_conv
from amstel._words import counted
from amstel.nn.conv_lstm import ConvLSTM, _Gates

Function = TypeVar("Function", bound=Callable[..., nn.Module])
Module = TypeVar("Module", bound=nn.Module)
Layer = tuple[Tensor, Tensor, Tensor | None]  # weight_ih, weight_hh, bias of one direction of one layer


def _wrong_type(argument: str, expected: str, got: Any) -> None:
    raise TypeError(f"`{argument}` must be {expected}, got {type(got).__name__}")


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:6]) + (", ..." if len(keys) > 6 else "") if keys else "none"


def tracked(convert: Function) -> Function:
    """A conversion whose tensors need a gradient where what they are made of does, wherever it is called."""
    return cast(Function, torch.inference_mode(False)(torch.enable_grad()(convert)))


def as_given(weights: Any, model: Module) -> Module:
    """In the training mode of a module, whose frozen weights stay frozen; all those of a state_dict are to be trained."""
    return model.train(weights.training) if isinstance(weights, nn.Module) else model.requires_grad_()


def check_convolutions(weights: Any, names: Iterable[str]) -> None:
    """What a module's convolutions do beyond their weights is in no state_dict."""
    modules = dict(weights.named_modules(remove_duplicate=False)) if isinstance(weights, nn.Module) else None
    for name in names if modules is not None else ():
        if not is_plain_conv(conv := modules.get(name)):  # type: ignore[union-attr]
            expected = "a torch.nn.Conv2d of stride 1, padded with zeros by k // 2, and nothing more"
            _check.fail(name, f"{expected} (for a state_dict this is assumed)", conv)


def _state(weights: Any) -> Mapping[str, Tensor]:
    state = weights.state_dict(keep_vars=True) if isinstance(weights, nn.Module) else weights
    if not isinstance(state, Mapping):
        _wrong_type("weights", "a module or its state_dict", weights)
    return {key: normal(t) for key, t in state.items()}


def normal(t: Any) -> Any:
    """What was made under torch.inference_mode as other tensors are: parts of it would need no gradient."""
    return t.clone() if isinstance(t, Tensor) and t.is_inference() else t


def _get(state: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in state:
        raise ValueError(f"`weights` must have the key {key!r}, got the keys {_some(list(state))}")
    return _check.tensor(key, state[key], "a tensor")


def _cells(state: Mapping[str, Tensor], prefix: str, needed: list[str], allowed: list[str]) -> list[str]:
    """What the keys of each cell begin with, from the bottom up; none may have keys that are not known."""
    if f"{prefix}{needed[0]}" in state:
        cells = [prefix]
    else:
        many = sum(k.startswith(f"{prefix}cell_list.") and k.endswith(f".{needed[0]}") for k in state)
        cells = [f"{prefix}cell_list.{n}." for n in range(max(many, 1))]
    for cell in cells:
        for key in needed:
            _get(state, f"{cell}{key}")
        known = {f"{cell}{key}" for key in (*needed, *allowed)}
        unknown = [key for key in state if key.startswith(cell) and key not in known]
        if unknown:
            raise ValueError(
                f"`weights` must have no other keys of a cell than {_some(sorted(known))}, got {_some(unknown)}"
            )
    return cells


def _check_shape(name: str, value: Tensor, shape: list[int]) -> Tensor:
    if list(value.shape) != shape:
        _check.fail(name, str(shape), value)
    return value


def _check_odd(name: str, weight: Tensor) -> None:
    """An even kernel padded by k // 2 on all sides gives a larger map than c, on which the sources fail."""
    if not all(k % 2 for k in weight.shape[2:]):
        _check.fail(name, "of odd kernel size", weight)


def _build(layers: Sequence[Layer], *, bidirectional: bool = False, **options: Any) -> ConvLSTM:
    ih, _, bias = layers[0]
    directions = 2 if bidirectional else 1
    tops = layers[::directions]
    for n, (w, u, _) in enumerate(layers):
        top, below = tops[n // directions][1], tops[max(0, n // directions - 1)][1].shape[1]
        inputs = ih.shape[1] if n < directions else directions * below
        if u.shape != top.shape or w.shape[1] != inputs or w.shape[2:] != u.shape[2:]:
            raise ValueError(
                "`weights` must have layers that fit on top of each other, with kernels of one size in a layer, got "
                f"weight_ih {list(w.shape)} and weight_hh {list(u.shape)} in layer {n // directions} on {counted(inputs, 'channel')}"
            )
    with torch.device("meta"):
        lstm = ConvLSTM(
            ih.shape[1],
            [u.shape[1] for _, u, _ in tops],
            [cast("tuple[int, int]", tuple(u.shape[2:])) for _, u, _ in tops],
            num_layers=len(layers) // directions,
            bias=bias is not None,
            bidirectional=bidirectional,
            **options,
        )
    state, trained = {}, {}
    for n, layer in enumerate(layers):
        for name, t in zip(("weight_ih", "weight_hh", "bias"), layer, strict=True):
            if t is None:
                continue
            if t.dtype not in _check.FLOATS or t.dtype != ih.dtype or t.device != ih.device:
                _check.fail("weights", "of one floating-point dtype and on one device", t)
            state[f"layers.{n}.{name}"] = t.detach().clone(memory_format=torch.contiguous_format)
            trained[f"layers.{n}.{name}"] = t.requires_grad
    lstm.load_state_dict(state, assign=True)
    for name, p in lstm.named_parameters():
        p.requires_grad_(trained[name])
    return lstm


def _gates(lstm: ConvLSTM, **only: Sequence[Any]) -> list[_Gates]:
    """The layers of lstm, whose options are all among those of the other library."""
    if not isinstance(lstm, ConvLSTM):
        _wrong_type("lstm", "an amstel.nn.ConvLSTM", lstm)
    gates = [cast(_Gates, layer) for layer in lstm.layers]
    options: dict[str, Sequence[Any]] = {"bidirectional": (False,), "peephole": (False,), **only}
    # What only a ConvLSTM of ours has, and no weights of others can tell.
    options |= {"stride": ((1, 1),), "padding_mode": ("zeros",), "layer_norm": (False,), "zoneout": (0.0,)}
    options |= {"recurrent_dropout": (0.0,), "residual": (False,)}
    for name, values in options.items():
        value = gates[0].peephole is not None if name == "peephole" else getattr(lstm, name)
        if value not in values:
            _check.fail("lstm", f"of {name}={values[0]!r}", f"{name}={value!r}")
    return gates
