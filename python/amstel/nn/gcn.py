"""Graph convolutions: GCNConv, ChebConv, SpectralConv and the GCN model. The work is in `amstel.ops.spmm`."""

from __future__ import annotations

import math
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from amstel import _check
from amstel._derived import keep
from amstel.graph import Graph
from amstel.ops.spmm import spmm

ORDERS = ("auto", "transform_first", "propagate_first")

# Structures of sparse features and bases of graphs, made once and dropped with what they belong to.
_structures: Any = WeakTensorKeyDictionary()
_bases: weakref.WeakKeyDictionary[Graph, dict[int, tuple[Tensor, Tensor]]] = weakref.WeakKeyDictionary()


def _is_sparse(x: Tensor | None) -> bool:
    return x is not None and x.layout == torch.sparse_csr


def _structure(x: Tensor) -> Graph:
    """The pattern of a sparse_csr tensor as a rectangular Graph, which is made once a tensor."""
    graph = _structures.get(x)
    if graph is None:
        graph = Graph.from_csr(x.crow_indices(), x.col_indices(), num_cols=x.shape[1])
        _structures[x] = graph
    return graph


def _matmul(x: Tensor | None, weight: Tensor) -> Tensor:
    """x @ weight for dense, sparse_csr and featureless (identity) x."""
    if x is None:
        return weight
    if _is_sparse(x):
        return spmm(_structure(x), weight, x.values(), norm="none", self_loops=0.0)
    return x @ weight


def _prepare(x: Tensor | None, graph: Graph | Tensor, in_channels: int) -> Graph:
    """Checks x and returns the graph as a Graph."""
    expected = f"[N, {in_channels}] or [B, N, {in_channels}], a sparse_csr tensor [N, {in_channels}] or None"
    if x is None:
        nodes = in_channels
    else:
        _check.tensor("x", x, expected)
        if (
            x.layout not in (torch.strided, torch.sparse_csr)
            or x.dim() not in ((2,) if _is_sparse(x) else (2, 3))
            or x.shape[-1] != in_channels
        ):
            _check.fail("x", expected, x)
        nodes = x.shape[-2]
    if isinstance(graph, Tensor):
        graph = Graph.from_edge_index(graph, num_nodes=nodes)
    if not isinstance(graph, Graph):
        raise TypeError(
            f"`graph` must be an amstel.Graph or an edge_index [2, E], got {_check.describe(graph)}"
        )
    if graph.num_cols != nodes:
        what = (
            "without features `in_channels` is the number of nodes" if x is None else f"`x` has {nodes} rows"
        )
        raise ValueError(f"{what}: got {nodes} for {graph!r}")
    return graph


def _glorot(*shape: int) -> nn.Parameter:
    """Uniform in ±sqrt(6 / (rows + columns)) of the last two dimensions (Glorot and Bengio, AISTATS 2010)."""
    limit = math.sqrt(6 / max(1, shape[-2] + shape[-1]))
    return nn.Parameter(torch.empty(shape).uniform_(-limit, limit))


def _channels(**sizes: Any) -> None:
    for name, value in sizes.items():
        if not isinstance(value, int) or value < 1:
            _check.fail(name, "an integer >= 1", value)


def sparse_dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Dropout on the non-zeros of a torch.sparse_csr tensor.

    Each is kept with probability 1 - p, times 1 / (1 - p). The result shares x's structure;
    dropped values stay as explicit zeros.

    Example:
        >>> x = torch.eye(3).to_sparse_csr()
        >>> amstel.nn.sparse_dropout(x, 0.5, training=False) is x
        True
    """
    if not training or p == 0:
        return x
    values = nn.functional.dropout(x.values(), p)
    dropped = torch.sparse_csr_tensor(
        x.crow_indices(), x.col_indices(), values, x.shape, check_invariants=False
    )
    _structures[dropped] = _structure(x)
    return dropped


class GCNConv(nn.Module):
    r"""Graph convolution ``Y = act(Â X W + b)``, or with a weight of its own for the node itself
    ``Y = act(X W_self + Â X W + b)``, where Â = R (A + λI) C as `amstel.ops.spmm` normalises it.

    Args:
        in_channels, out_channels: widths F and F'. Without features in_channels is N.
        bias: whether there is a b, which starts at 0.
        norm: "sym", "row", "sym_inout" or "none", see `amstel.ops.spmm`.
        self_loops: λ, the weight of the loops that are added.
        self_weight: whether there is a W_self (the first-order model; then self_loops=0 is the paper's).
        activation: None or "relu".
        order: "transform_first" computes Â (X W), "propagate_first" (Â X) W. "auto" takes the one
            that propagates fewer columns, forward and backward; sparse or no features are transformed first.

    Shapes: x [N, F] or [B, N, F], dense; or a torch.sparse_csr tensor [N, F] (its structure is converted once
    a tensor and forgotten with it; no gradient to it); or None, which stands for X = I. graph: a `Graph` of
    N nodes, or an edge_index [2, E] that is converted in every call. Result: [N, F'] or [B, N, F'].
    Parameters: weight [F, F'], weight_self [F, F'], bias [F'], weights Glorot-initialised.

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
    ):
        super().__init__()
        _channels(in_channels=in_channels, out_channels=out_channels)
        for name, value, allowed in (
            ("norm", norm, ("sym", "row", "sym_inout", "none")),
            ("activation", activation, (None, "relu")),
            ("order", order, ORDERS),
        ):
            if value not in allowed:
                _check.fail(name, "one of " + ", ".join(map(repr, allowed)), value)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.norm, self.self_loops, self.activation, self.order = norm, self_loops, activation, order
        self.weight = _glorot(in_channels, out_channels)
        self.weight_self = _glorot(in_channels, out_channels) if self_weight else None
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(self, x: Tensor | None, graph: Graph | Tensor) -> Tensor:
        graph = _prepare(x, graph, self.in_channels)
        how = {"norm": self.norm, "self_loops": self.self_loops}
        if self._propagates_first(x):
            assert x is not None
            y = spmm(graph, x, **how) @ self.weight  # type: ignore[arg-type]
        elif self.weight_self is None:
            # Bias and activation ride along.
            h = _matmul(x, self.weight)
            return spmm(graph, h, bias=self.bias, activation=self.activation, **how)  # type: ignore[arg-type]
        else:
            y = spmm(graph, _matmul(x, self.weight), **how)  # type: ignore[arg-type]
        if self.weight_self is not None:
            y = y + _matmul(x, self.weight_self)
        if self.bias is not None:
            y = y + self.bias
        return y.relu() if self.activation == "relu" else y

    def _propagates_first(self, x: Tensor | None) -> bool:
        if x is None or _is_sparse(x) or self.order == "transform_first":
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


class ChebConv(nn.Module):
    r"""Chebyshev filter ``Y = sum_{k=0..K} T_k(L̃) X W_k + b`` on the normalised Laplacian.

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
        self, in_channels: int, out_channels: int, K: int, bias: bool = True, lambda_max: float = 2.0
    ):
        super().__init__()
        _channels(in_channels=in_channels, out_channels=out_channels)
        if not isinstance(K, int) or K < 0:
            _check.fail("K", "an integer >= 0", K)
        if not 0 < lambda_max < math.inf:
            _check.fail("lambda_max", "a finite number > 0", lambda_max)
        self.in_channels, self.out_channels, self.K = in_channels, out_channels, K
        self.lambda_max = float(lambda_max)
        self.weight = _glorot(K + 1, in_channels, out_channels)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(self, x: Tensor | None, graph: Graph | Tensor) -> Tensor:
        graph = _prepare(x, graph, self.in_channels)
        ratio = 2 / self.lambda_max

        def laplacian(h: Tensor) -> Tensor:
            y = spmm(graph, h, norm="sym", self_loops=0.0) * -ratio
            return y if ratio == 1 else y + (ratio - 1) * h

        terms = _matmul(x, self.weight.movedim(0, 1).flatten(1)).chunk(self.K + 1, -1)
        first, second = terms[self.K], None  # b_k and b_{k+1} of Clenshaw's recurrence
        for k in range(self.K - 1, -1, -1):
            next_ = terms[k] + (2 if k else 1) * laplacian(first)
            first, second = next_ if second is None else next_ - second, first
        return first if self.bias is None else first + self.bias

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, K={self.K}, lambda_max={self.lambda_max}"


def fourier_basis(graph: Graph, modes: int | None = None) -> tuple[Tensor, Tensor]:
    """The `modes` (default: all) smoothest eigenvectors of L = I - D^-1/2 A D^-1/2.

    Returns:
        eigenvalues [M], ascending and in [0, 2], and eigenvectors U [N, M], float32, computed in float64
        once a Graph. O(N^3) time, O(N^2) memory: for graphs of some thousand nodes.

    Raises:
        ValueError: the graph is not symmetric or has fewer nodes than `modes`.
    """
    n = graph.num_rows
    modes = n if modes is None else modes
    if not 1 <= modes <= n or not graph.is_square:
        _check.fail("modes", f"from 1 to the number of nodes of {graph!r}", modes)
    kept = _bases.setdefault(graph, {})
    if modes not in kept:
        eye = torch.eye(n, dtype=torch.float64, device=graph.device)
        laplacian = eye - spmm(graph, eye, norm="sym", self_loops=0.0)
        if not torch.allclose(laplacian, laplacian.T, atol=1e-10):
            raise ValueError(f"a graph Fourier transform needs a symmetric graph, got a directed {graph!r}")
        values, vectors = torch.linalg.eigh(laplacian)
        return keep(kept, modes, (values[:modes].float(), vectors[:, :modes].float().contiguous()))
    return kept[modes]


def graph_fourier(x: Tensor, graph: Graph, modes: int | None = None) -> Tensor:
    """Graph Fourier transform ``U^T x``: [N, F] or [B, N, F] -> [M, F] or [B, M, F], see `fourier_basis`.

    Source: Kipf and Welling, ICLR 2017, section 2.1; D. Shuman et al., The Emerging Field of Signal
    Processing on Graphs, 2013.

    Example:
        >>> graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1], [1, 0]]))
        >>> amstel.nn.graph_fourier(torch.ones(2, 1), graph).abs().round(decimals=3)
        tensor([[1.4140],
                [0.0000]])
    """
    return fourier_basis(graph, modes)[1].to(x.dtype).T @ x


def inverse_graph_fourier(x: Tensor, graph: Graph, modes: int | None = None) -> Tensor:
    """``U x``, the inverse of `graph_fourier` (its adjoint where modes < N): [M, F] -> [N, F]."""
    return fourier_basis(graph, modes)[1].to(x.dtype) @ x


class SpectralConv(nn.Module):
    r"""Spectral filter ``Y = U (Θ ⋆ (U^T X)) + b``: output o is ``sum_i U diag(Θ[:, i, o]) U^T X[:, i]``.

    U holds the `modes` smoothest eigenvectors of the normalised Laplacian (`fourier_basis`). The filters
    belong to the graph that they were learnt on.

    Args:
        in_channels, out_channels: widths F and F'.
        modes: number M of eigenvectors.
        bias: whether there is a b, which starts at 0.

    Shapes: x [N, F] or [B, N, F], dense; graph: a symmetric `Graph`, best always the same one, or an
    edge_index (whose eigenvectors are then computed in every call). Parameters: weight [M, F, F'], bias [F'].

    Source: J. Bruna, W. Zaremba, A. Szlam and Y. LeCun, Spectral Networks and Locally Connected
    Networks on Graphs, ICLR 2014, equation 3.2; Kipf and Welling, ICLR 2017, equation 3.

    Example:
        >>> graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
        >>> amstel.nn.SpectralConv(4, 2, modes=3)(torch.randn(3, 4), graph).shape
        torch.Size([3, 2])
    """

    def __init__(self, in_channels: int, out_channels: int, modes: int, bias: bool = True):
        super().__init__()
        _channels(in_channels=in_channels, out_channels=out_channels, modes=modes)
        self.in_channels, self.out_channels, self.modes = in_channels, out_channels, modes
        self.weight = _glorot(modes, in_channels, out_channels)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(self, x: Tensor, graph: Graph | Tensor) -> Tensor:
        graph = _prepare(x, graph, self.in_channels)
        if x is None or _is_sparse(x):
            _check.fail("x", "a dense tensor", x)
        spectrum = torch.einsum("...mi,mio->...mo", graph_fourier(x, graph, self.modes), self.weight)
        y = inverse_graph_fourier(spectrum, graph, self.modes)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, modes={self.modes}"


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
    ):
        super().__init__()
        _channels(hidden_channels=hidden_channels, num_layers=num_layers)
        if not 0 <= dropout < 1:
            _check.fail("dropout", "in [0, 1)", dropout)
        self.in_channels, self.dropout = in_channels, float(dropout)
        widths = [in_channels, *[hidden_channels] * (num_layers - 1), out_channels]
        last = num_layers - 1
        self.layers = nn.ModuleList(
            GCNConv(widths[i], widths[i + 1], bias=bias, activation=None if i == last else "relu")
            for i in range(num_layers)
        )

    def forward(self, x: Tensor | None, graph: Graph | Tensor) -> Tensor:
        graph = _prepare(x, graph, self.in_channels)
        for layer in self.layers:
            if _is_sparse(x):
                x = sparse_dropout(x, self.dropout, self.training)  # type: ignore[arg-type]
            elif x is not None:
                x = nn.functional.dropout(x, self.dropout, self.training)
            x = layer(x, graph)
        assert x is not None
        return x
