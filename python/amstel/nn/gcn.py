"""Graph convolutions: GCNConv, ChebConv and the GCN model. The work is in `amstel.ops.spmm`."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedParameter

from amstel import _check
from amstel.graph import Graph
from amstel.nn._sparse import _structures, is_sparse, matmul, sparse_dropout  # noqa: F401
from amstel.ops.spmm import NORMS, spmm

ORDERS = ("auto", "transform_first", "propagate_first")


def _prepare(x: Tensor | None, graph: Graph | Tensor, in_channels: int) -> Graph:
    """Checks x and returns the graph as a Graph."""
    expected = f"[N, {in_channels}] or [B, N, {in_channels}], a sparse_csr tensor [N, {in_channels}] or None"
    if x is None:
        if in_channels == -1 and isinstance(graph, Graph):
            in_channels = graph.num_cols
        nodes = in_channels
    else:
        _check.tensor("x", x, expected)
        if (
            x.layout not in (torch.strided, torch.sparse_csr)
            or x.dim() not in ((2,) if is_sparse(x) else (2, 3))
            or (x.shape[-1] != in_channels and in_channels != -1)
        ):
            _check.fail("x", expected, x)
        nodes = x.shape[-2]
    if isinstance(graph, Tensor):
        graph = Graph.from_edge_index(graph, num_nodes=nodes)
    if not isinstance(graph, Graph) and not hasattr(graph, "spmm"):  # a DistributedGraph has it
        raise TypeError(
            f"`graph` must be an amstel.Graph or an edge_index [2, E], got {_check.describe(graph)}"
        )
    if graph.num_cols != nodes:
        what = (
            "without features `in_channels` is the number of nodes" if x is None else f"`x` has {nodes} rows"
        )
        raise ValueError(f"{what}: got {nodes} for {graph!r}")
    return graph


class _Convolution(nn.Module):
    """What the convolutions share: weights drawn alike, and an input width that may wait for the first input."""

    in_channels: int
    out_channels: int

    def __new__(cls, in_channels: Any = None, *_: Any, **__: Any) -> _Convolution:
        lazy = (
            type(in_channels) is not bool and isinstance(in_channels, (int, np.integer)) and in_channels == -1
        )
        return super().__new__(_LAZY.get(cls, cls) if lazy else cls)

    def _widths(self, in_channels: int, out_channels: int) -> None:
        if not isinstance(self, LazyModuleMixin):
            in_channels = _check.integer("in_channels", in_channels, 1)
        self.in_channels, self.out_channels = (
            int(in_channels),
            _check.integer("out_channels", out_channels, 1),
        )

    def _make(self, shape: tuple[int, ...], device: Any, dtype: Any) -> nn.Parameter:
        if isinstance(self, LazyModuleMixin):
            fresh: Any = UninitializedParameter
            return fresh(device=device, dtype=dtype)
        return nn.Parameter(torch.empty(shape, device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """Weights uniform in ±sqrt(6 / (inputs + outputs)) (Glorot and Bengio, AISTATS 2010), biases 0."""
        for name, p in self.named_parameters(recurse=False):
            if isinstance(p, UninitializedParameter):
                continue
            if name == "bias":
                nn.init.zeros_(p)
            else:
                limit = math.sqrt(6 / max(1, p.shape[-2] + p.shape[-1]))
                nn.init.uniform_(p, -limit, limit)


class _Lazy(LazyModuleMixin):
    """Takes in_channels from the first input, or with x=None from the graph, and becomes the plain layer."""

    def __init__(self, *args: Any, **kwargs: Any):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Lazy modules are a new feature")
            super().__init__(*args, **kwargs)  # type: ignore[misc]

    def initialize_parameters(self, x: Any, graph: Any = None, *_: Any, **__: Any) -> None:
        if not self.has_uninitialized_params():  # type: ignore[misc]
            self.in_channels = self.weight.shape[-2]  # type: ignore[attr-defined]
            return
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


class GCNConv(_Convolution):
    r"""Graph convolution ``Y = act(Â X W + b)``, or with a weight of its own for the node itself
    ``Y = act(X W_self + Â X W + b)``, where Â = R (A + λI) C as `amstel.ops.spmm` normalizes it.

    Args:
        in_channels, out_channels: widths F and F'. Without features in_channels is N; -1 takes it from the first
            input.
        bias: whether there is a b, which starts at 0.
        norm: "sym", "row", "sym_inout" or "none", see `amstel.ops.spmm`.
        self_loops: λ, the weight of the loops that are added.
        self_weight: whether there is a W_self (the first-order model; then self_loops=0 is the paper's).
        activation: None or "relu".
        order: "transform_first" computes Â (X W), "propagate_first" (Â X) W. "auto" takes the one
            that propagates fewer columns, forward and backward; sparse or no features are transformed first.
        device, dtype: of the parameters.

    forward(x, graph, edge_weight=None): edge_weight [E], which may learn, takes the place of the graph's own weights.

    Shapes: x [N, F] or [B, N, F], dense; or a torch.sparse_csr tensor [N, F] (its structure is converted once
    a tensor and forgotten with it; no gradient to it); or None, which stands for X = I. graph: a `Graph` of
    N nodes, or an edge_index [2, E] that is converted in every call. Result: [N, F'] or [B, N, F'].
    Parameters: weight [F, F'], weight_self [F, F'], bias [F'], weights Glorot-initialized.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Source: T. N. Kipf and M. Welling, Semi-Supervised Classification with Graph Convolutional Networks,
    ICLR 2017, equation 8 (and 6 with self_weight).

    Example:
        >>> conv = amstel.nn.GCNConv(3, 2)
        >>> conv(torch.randn(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
        torch.Size([4, 2])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bias: bool = True,
        norm: str = "sym",
        self_loops: float = 1.0,
        self_weight: bool = False,
        activation: str | None = None,
        order: str = "auto",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self._widths(in_channels, out_channels)
        self.norm = _check.choice("norm", norm, NORMS)
        self.self_loops = _check.number("self_loops", self_loops)
        if activation is not None and activation != "relu":
            _check.fail("activation", "one of None, 'relu'", activation)
        self.activation = activation
        self.order = _check.choice("order", order, ORDERS)
        own, biased = _check.flag("self_weight", self_weight), _check.flag("bias", bias)
        shape = self._shape("weight")
        self.weight = self._make(shape, device, dtype)
        self.weight_self = self._make(shape, device, dtype) if own else None
        self.bias = (
            nn.Parameter(torch.empty(self.out_channels, device=device, dtype=dtype)) if biased else None
        )
        self.reset_parameters()

    def _shape(self, name: str) -> tuple[int, ...]:
        return self.in_channels, self.out_channels

    def forward(self, x: Tensor | None, graph: Graph | Tensor, edge_weight: Tensor | None = None) -> Tensor:
        graph = _prepare(x, graph, self.in_channels)
        how: dict[str, Any] = {"edge_weight": edge_weight, "norm": self.norm, "self_loops": self.self_loops}
        if self._propagates_first(x):
            assert x is not None
            y = spmm(graph, x, **how) @ self.weight
        elif self.weight_self is None:
            # Bias and activation ride along.
            h = matmul(x, self.weight)
            return spmm(graph, h, bias=self.bias, activation=self.activation, **how)
        else:
            y = spmm(graph, matmul(x, self.weight), **how)
        if self.weight_self is not None:
            y = y + matmul(x, self.weight_self)
        if self.bias is not None:
            y = y + self.bias
        return y.relu() if self.activation == "relu" else y

    def _propagates_first(self, x: Tensor | None) -> bool:
        if x is None or is_sparse(x) or self.order == "transform_first":
            return False
        if self.order == "propagate_first":
            return True
        # Â X needs no backward pass where X needs no gradient, Â (X W) always does.
        passes_x = 1 + x.requires_grad if torch.is_grad_enabled() else 1
        passes_h = 2 if torch.is_grad_enabled() else 1
        return passes_x * self.in_channels < passes_h * self.out_channels

    def extra_repr(self) -> str:
        own = "" if self.weight_self is None else ", self_weight=True"
        return (
            f"{self.in_channels}, {self.out_channels}, norm={self.norm!r}, self_loops={self.self_loops}{own}"
        )


class ChebConv(_Convolution):
    r"""Chebyshev filter ``Y = sum_{k=0..K} T_k(L̃) X W_k + b`` on the normalized Laplacian.

    L̃ = 2 L / λ_max - I with L = I - D^-1/2 A D^-1/2. K is the highest order, so that there are K + 1
    weights, as in the paper and its code. With the default λ_max = 2, the bound for every graph,
    L̃ = -D^-1/2 A D^-1/2; the published code computes λ_max, and that is 2 for any graph with a bipartite
    component, such as Cora, Citeseer and NELL.

    The sum is evaluated by Clenshaw's recurrence on the transformed features: K products of `out_channels`
    columns.

    Args:
        in_channels, out_channels: widths F and F'.
        K: highest order, >= 0.
        bias: whether there is a b, which starts at 0.
        lambda_max: largest eigenvalue of L, or a bound of it.

    Shapes: as `GCNConv`. Parameters: weight [K + 1, F, F'], bias [F'].

    Source: M. Defferrard, X. Bresson and P. Vandergheynst, Convolutional Neural Networks on Graphs with
    Fast Localized Spectral Filtering, NeurIPS 2016, equation 4; Kipf and Welling, ICLR 2017, equation 5.

    Example:
        >>> conv = amstel.nn.ChebConv(3, 2, K=2)
        >>> conv(torch.randn(4, 3), torch.tensor([[0, 1], [1, 0]])).shape
        torch.Size([4, 2])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        K: int,
        bias: bool = True,
        lambda_max: float = 2.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self._widths(in_channels, out_channels)
        self.K = _check.integer("K", K, 0)
        self.lambda_max = float(_check.number("lambda_max", lambda_max, "a finite number > 0", above=0))
        biased = _check.flag("bias", bias)
        self.weight = self._make(self._shape("weight"), device, dtype)
        self.bias = (
            nn.Parameter(torch.empty(self.out_channels, device=device, dtype=dtype)) if biased else None
        )
        self.reset_parameters()

    def _shape(self, name: str) -> tuple[int, ...]:
        return self.K + 1, self.in_channels, self.out_channels

    def forward(self, x: Tensor | None, graph: Graph | Tensor, edge_weight: Tensor | None = None) -> Tensor:
        graph = _prepare(x, graph, self.in_channels)
        ratio = 2 / self.lambda_max

        def laplacian(h: Tensor) -> Tensor:
            y = spmm(graph, h, edge_weight, norm="sym", self_loops=0.0) * -ratio
            return y if ratio == 1 else y + (ratio - 1) * h

        terms = matmul(x, self.weight.movedim(0, 1).flatten(1)).chunk(self.K + 1, -1)
        first, second = terms[self.K], None  # b_k and b_{k+1} of Clenshaw's recurrence
        for k in range(self.K - 1, -1, -1):
            next_ = terms[k] + (2 if k else 1) * laplacian(first)
            first, second = next_ if second is None else next_ - second, first
        return first if self.bias is None else first + self.bias

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, K={self.K}, lambda_max={self.lambda_max}"


class GCN(nn.Module):
    r"""Kipf & Welling's model: layers ``H' = relu(Â dropout(H) W)``, the last one without ReLU.

    Args:
        in_channels, hidden_channels, out_channels: widths; without features in_channels is N.
        num_layers: number of layers, >= 1.
        dropout: rate, on the input of every layer while training; on sparse features it acts on the
            non-zeros, and X = I is not dropped out.
        bias: whether the layers have biases; the paper's code has none.

    Shapes: x and graph as `GCNConv`; result: logits [N, out_channels] or [B, N, out_channels].

    Source: T. N. Kipf and M. Welling, ICLR 2017, equation 9 and section 5.2.
    `amstel.apps.graphs.train.study` trains it by the paper's protocol, many seeds at a time.

    Example:
        >>> model = amstel.nn.GCN(3, 16, 2).eval()
        >>> model(torch.randn(4, 3), torch.tensor([[0, 1], [1, 0]])).shape
        torch.Size([4, 2])
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        num_layers: int = 2,
        dropout: float = 0.5,
        bias: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        hidden_channels = _check.integer("hidden_channels", hidden_channels, 1)
        num_layers = _check.integer("num_layers", num_layers, 1)
        self.dropout = float(_check.number("dropout", dropout, "in [0, 1)", least=0, below=1))
        _check.integer("out_channels", out_channels, 1)
        widths = [in_channels, *[hidden_channels] * (num_layers - 1), out_channels]
        last = num_layers - 1
        self.layers = nn.ModuleList(
            GCNConv(
                widths[i],
                widths[i + 1],
                bias=bias,
                activation=None if i == last else "relu",
                device=device,
                dtype=dtype,
            )
            for i in range(num_layers)
        )

    @property
    def in_channels(self) -> int:
        """Width of the features, or N without features."""
        return self.layers[0].in_channels  # type: ignore[return-value]

    def reset_parameters(self) -> None:
        """Every layer as it does itself."""
        for layer in self.layers:
            layer.reset_parameters()  # type: ignore[operator]

    def forward(self, x: Tensor | None, graph: Graph | Tensor, edge_weight: Tensor | None = None) -> Tensor:
        graph = _prepare(x, graph, self.in_channels)
        for layer in self.layers:
            if x is not None and hasattr(
                graph, "dropout"
            ):  # a DistributedGraph: by node, for any number of ranks
                x = graph.dropout(x, self.dropout, self.training)
            elif is_sparse(x):
                x = sparse_dropout(x, self.dropout, self.training)  # type: ignore[arg-type]
            elif x is not None:
                x = nn.functional.dropout(x, self.dropout, self.training)
            x = layer(x, graph, edge_weight)
        assert x is not None
        return x

    def extra_repr(self) -> str:
        return f"dropout={self.dropout}"


class _LazyGCNConv(_Lazy, GCNConv):
    cls_to_become = GCNConv


class _LazyChebConv(_Lazy, ChebConv):
    cls_to_become = ChebConv


_LAZY: dict[type, type] = {GCNConv: _LazyGCNConv, ChebConv: _LazyChebConv}
