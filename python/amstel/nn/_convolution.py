"""Common to graph convolutions: input checks, initialization, and widths that the first input sets."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedParameter

from amstel import _check
from amstel._words import counted
from amstel.graph import Graph
from amstel.nn._like import levels

Features = Tensor | tuple[Tensor, Tensor | None] | None


def shown(value: Any) -> str:
    """A number, which may be learned, in a repr."""
    return "?" if isinstance(value, Tensor) and value.is_meta else str(float(value))


def prepare(x: Any, graph: Graph | Tensor, in_channels: int, sampled: bool = False) -> Graph:
    """Checks x and returns the graph as a Graph; `sampled`: whether the layer takes a SampledGraph."""
    if not sampled and getattr(graph, "_is_sampled", False):
        raise ValueError(
            f"`graph` must be a whole Graph for this layer, got {graph!r}: GCNConv and GCN take sampled ones"
        )
    if type(x) is tuple:
        if len(x) != 2:
            _check.fail("x", "a tensor or a pair (x_src, x_dst)", x)
        source, target = x
        for t in x if target is not None else x[:1]:
            _check.tensor("x", t, "a pair (x_src, x_dst) of tensors")
            if t.layout != torch.strided or t.dim() not in (2, 3) or t.shape[-1] != in_channels != -1:
                _check.fail(
                    "x", f"a pair (x_src, x_dst) of dense [N, {in_channels}] or [B, N, {in_channels}]", t
                )
            if t.dtype not in _check.FLOATS:
                _check.fail("x", "float64, float32, bfloat16 or float16", t)
        if not isinstance(graph, Graph):
            _check.fail_type("graph", "an amstel.Graph where `x` is a pair", graph)
        if (graph.num_cols, graph.num_rows) != (
            source.shape[-2],
            graph.num_rows if target is None else target.shape[-2],
        ):
            _check.fail(
                "x", f"a pair (x_src, x_dst) with a row for each source and target of {graph!r}", source
            )
        return graph
    if x is None:
        if in_channels == -1 and isinstance(graph, Graph):
            in_channels = graph.num_cols
        nodes = in_channels
    else:
        sparse = isinstance(x, Tensor) and x.layout == torch.sparse_csr
        if (
            not isinstance(x, Tensor)
            or not (sparse or x.layout == torch.strided)
            or x.dim() not in ((2,) if sparse else (2, 3))
            or (x.shape[-1] != in_channels and in_channels != -1)
        ):
            f = in_channels
            expected = f"[N, {f}] or [B, N, {f}], a sparse_csr tensor [N, {f}] or None"
            _check.fail("x", expected, _check.tensor("x", x, expected))
        if x.dtype not in _check.FLOATS:
            _check.fail("x", "float64, float32, bfloat16 or float16", x)
        nodes = x.shape[-2]
    if isinstance(graph, Tensor):
        graph = Graph.from_edge_index(graph, num_nodes=nodes)
    if not isinstance(graph, Graph) and not hasattr(graph, "spmm"):  # a DistributedGraph has it
        raise TypeError(
            f"`graph` must be an amstel.Graph or an edge_index [2, E], got {_check.describe(graph)}"
        )
    if x is None and sampled and getattr(graph, "_is_sampled", False):
        raise ValueError("`x` must be a tensor on a SampledGraph, got None")
    if graph.num_cols != nodes:
        what = (
            "without features `in_channels` is the number of nodes"
            if x is None
            else f"`x` has {counted(nodes, 'row')}"
        )
        raise ValueError(f"{what}: got {nodes} for {graph!r}")
    return graph


def fits(x: Any, weight: Tensor, argument: str = "x") -> None:
    """ValueError where features have another dtype than the parameters, and no autocast levels them."""
    for t in x if type(x) is tuple else (x,):
        if t is not None and t.dtype != weight.dtype and not levels(t, weight):
            _check.fail(argument, f"{_check.name(weight.dtype)} like the parameters", t)


_WEIGHTS = ("weight", "weight_self")


class Convolution(nn.Module):
    """What the convolutions share: initialization, and an input width that the first input may set."""

    in_channels: int
    out_channels: int

    def _widths(self, in_channels: int, out_channels: int) -> None:
        waits = isinstance(in_channels, (int, np.integer)) and in_channels == -1
        in_channels = -1 if waits else _check.integer("in_channels", in_channels, 1)
        self.in_channels, self.out_channels = in_channels, _check.integer("out_channels", out_channels, 1)
        if waits:
            kind: Any = type(self)
            self.__class__ = _lazy(kind)
            self._wait()  # type: ignore[operator]

    def _shape(self, name: str) -> tuple[int, ...]:
        """Of a weight."""
        return self.in_channels, self.out_channels

    def _make(self, name: str, device: Any, dtype: Any) -> nn.Parameter:
        if self.in_channels == -1:
            fresh: Any = UninitializedParameter
            return fresh(device=device, dtype=dtype)
        return nn.Parameter(torch.empty(self._shape(name), device=device, dtype=dtype))

    def _bias(self, wanted: bool, device: Any, dtype: Any) -> nn.Parameter | None:
        if not _check.flag("bias", wanted):
            return None
        return nn.Parameter(torch.empty(self.out_channels, device=device, dtype=dtype))

    def _start(self) -> None:
        """The first values; those of a weight that waits are set with its shape."""
        if self.in_channels == -1:
            Convolution.reset_parameters(self)  # that of a subclass may ask for the weight
        else:
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights uniform in ±sqrt(6 / (inputs + outputs)) (Glorot and Bengio, AISTATS 2010), biases 0."""
        for name, p in self.named_parameters(recurse=False):
            if isinstance(p, UninitializedParameter):
                continue
            if name == "bias":
                nn.init.zeros_(p)
            # λ that learns stays what it was given, and what a subclass adds is its own.
            elif name in _WEIGHTS:
                limit = math.sqrt(6 / max(1, p.shape[-2] + p.shape[-1]))
                nn.init.uniform_(p, -limit, limit)


class Lazy(LazyModuleMixin):
    """Takes in_channels from the first input, or with x=None from the graph, and becomes the plain layer."""

    def _wait(self) -> None:
        """What the mixin's constructor does, for a layer that is under construction already."""
        module: Any = self
        module._load_hook = module._register_load_state_dict_pre_hook(module._lazy_load_hook)
        module._initialize_hook = module.register_forward_pre_hook(module._infer_parameters, with_kwargs=True)

    def __reduce_ex__(self, protocol: Any) -> Any:
        made: Any = super().__reduce_ex__(2)
        return _waiting, (self.cls_to_become,), *made[2:]

    def initialize_parameters(self, x: Any, graph: Any = None, *_: Any, **__: Any) -> None:
        if not self.has_uninitialized_params():  # type: ignore[misc]
            self.in_channels = self.weight.shape[-2]  # type: ignore[attr-defined]
            return
        if type(x) is tuple and x and isinstance(x[0], Tensor):
            x = x[0]
        if isinstance(x, Tensor) and x.dim() >= 2:
            width = x.shape[-1]
        elif x is None and isinstance(graph, Graph):
            width = graph.num_cols
        else:
            _check.fail_type("x", "a tensor [N, F] or, with a Graph, None where in_channels is -1", x)
        self.in_channels = width
        for name, p in list(self.named_parameters(recurse=False)):  # type: ignore[attr-defined]
            if isinstance(p, UninitializedParameter):
                p.materialize(self._shape(name))  # type: ignore[attr-defined]
        self.reset_parameters()  # type: ignore[attr-defined]


@functools.cache
def _lazy(cls: type) -> Any:
    """The class of layers of this one, a user's too, while their width waits; it has no name to be found by."""
    return type(f"Lazy{cls.__name__}", (Lazy, cls), {"cls_to_become": cls, "__module__": cls.__module__})


def _waiting(cls: type) -> Any:
    made = _lazy(cls)
    return made.__new__(made)


def loop_weight(value: Any) -> Any:
    """λ: a number, or a Parameter of one element, which learns."""
    if isinstance(value, nn.Parameter):
        if value.numel() != 1 or value.dtype not in _check.FLOATS:
            _check.fail("self_loops", "a number or a Parameter of one element", value)
        return value
    return _check.number("self_loops", value)
