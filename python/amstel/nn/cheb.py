"""Chebyshev filters on graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from amstel import _check, _checks
from amstel.graph import Graph
from amstel.nn._convolution import Convolution, fits, prepare, shown
from amstel.nn._sparse import matmul
from amstel.ops.spmm import spmm


class ChebConv(Convolution):
    r"""Chebyshev filter ``Y = sum_{k=0..K} T_k(L̃) X W_k + b`` on the normalized Laplacian.

    L̃ = 2 L / λ_max - I with L = I - D^-1/2 A D^-1/2. K is the highest order, so there are K + 1 weights, as in the
    paper and its code. The default, λ_max = 2, is an upper bound for every graph and gives L̃ = -D^-1/2 A D^-1/2.
    The published code computes λ_max, which is 2 for any graph with a bipartite component, such as Cora, Citeseer
    and NELL.

    The sum is evaluated by Clenshaw's recurrence on the transformed features, with K products of `out_channels`
    columns.

    Args:
        in_channels, out_channels: widths F and F'; in_channels -1 takes it from the first input.
        K: highest order, >= 0.
        bias: whether to add b, which starts at 0.
        lambda_max: largest eigenvalue of L, or an upper bound; pass an nn.Parameter of one element to learn it.

    forward(x, graph, edge_weight=None, lambda_max=None, batch=None): lambda_max, a number or a tensor [], replaces
    that of the layer. For a graph that consists of G separate graphs it is [G], and batch [N] int64 says which one
    each node belongs to. It may require a gradient. Values must be > 0.

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
        lambda_max: float | nn.Parameter = 2.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self._widths(in_channels, out_channels)
        self.K = _check.integer("K", K, 0)
        if not isinstance(lambda_max, nn.Parameter):
            lambda_max = float(_check.number("lambda_max", lambda_max, "a finite number > 0", above=0))
        elif lambda_max.numel() != 1:
            _check.fail("lambda_max", "a number or a Parameter of one element", lambda_max)
        self.lambda_max = lambda_max
        self.weight = self._make("weight", device, dtype)
        self.bias = self._bias(bias, device, dtype)
        self._start()

    def _shape(self, name: str) -> tuple[int, ...]:
        return self.K + 1, self.in_channels, self.out_channels

    def forward(
        self,
        x: Tensor | None,
        graph: Graph | Tensor,
        edge_weight: Tensor | None = None,
        lambda_max: float | Tensor | None = None,
        batch: Tensor | None = None,
    ) -> Tensor:
        """y [N, F'] or [B, N, F'] for x [N, F] or [B, N, F]; edge_weight [E], lambda_max [] or [G], batch [N]."""
        if type(x) is tuple:
            _check.fail("x", "a tensor: a Laplacian is of one kind of nodes", x)
        graph = prepare(x, graph, self.in_channels)
        fits(x, self.weight)
        largest = self.lambda_max if lambda_max is None else lambda_max
        if (
            batch is None
            and isinstance(largest, Tensor)
            and largest.numel() != 1
            and graph._offsets is not None
        ):
            if largest.shape != (graph.num_graphs,):
                _check.fail("lambda_max", f"one number, or [{graph.num_graphs}] for {graph!r}", largest)
            batch = graph.batch_index
        ratio = 2 / _largest(largest, batch, graph.num_nodes)

        def laplacian(h: Tensor) -> Tensor:
            y = spmm(graph, h, edge_weight, norm="sym", self_loops=0.0)
            if isinstance(ratio, Tensor):
                scale = ratio.to(h.dtype)
                return (scale - 1) * h - scale * y
            y = y * -ratio
            return y if ratio == 1 else y + (ratio - 1) * h

        terms = matmul(x, self.weight.movedim(0, 1).flatten(1)).chunk(self.K + 1, -1)
        first, second = terms[self.K], None  # b_k and b_{k+1} of Clenshaw's recurrence
        for k in range(self.K - 1, -1, -1):
            next_ = terms[k] + (2 if k else 1) * laplacian(first)
            first, second = next_ if second is None else next_ - second, first
        return first if self.bias is None else first + self.bias

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, K={self.K}, lambda_max={shown(self.lambda_max)}"


def _largest(value: Any, batch: Tensor | None, nodes: int) -> Any:
    """λ_max as a number, or a tensor [] or [N, 1]."""
    if not isinstance(value, Tensor):
        return float(_check.number("lambda_max", value, "a finite number > 0", above=0))
    if value.numel() == 1:
        value = value.reshape(())
    if value.dtype not in _check.FLOATS or value.dim() > 1:
        _check.fail("lambda_max", "a number, or a floating-point tensor [] or [G]", value)
    _checks.require(
        value,
        lambda value: value > 0,
        "`lambda_max` must be of numbers > 0",
        lambda value: _check.fail("lambda_max", "of numbers > 0", value.tolist()),
    )
    if value.dim() == 0:
        return value
    if batch is None:
        _check.fail("lambda_max", "one number, or with `batch` one per graph", value)
    _check.tensor("batch", batch, "an int64 tensor [N]")
    assert batch is not None
    if batch.shape != (nodes,) or batch.dtype != torch.int64 or batch.device != value.device:
        _check.fail("batch", f"int64 [{nodes}] on {value.device}", batch)
    graphs = len(value)
    must = f"in [0, {graphs}), one per value of `lambda_max`"
    _checks.require(
        batch,
        lambda batch: (batch >= 0) & (batch < graphs),
        f"`batch` must be {must}",
        lambda batch: _check.fail("batch", must, [int(batch.min()), int(batch.max())]),
    )
    return value[batch][:, None]
