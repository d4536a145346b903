"""Propagation rules on one normalized adjacency: SGConv, APPNP, GCN2Conv. The work is in `amstel.ops.spmm`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from amstel import _check
from amstel.graph import Graph
from amstel.nn._convolution import Convolution, fits, loop_weight, prepare
from amstel.nn._sparse import is_sparse, matmul
from amstel.ops.spmm import NORMS, spmm


class SGConv(Convolution):
    r"""Simplified graph convolution ``Y = Â^K X W + b``, with Â = R (A + λI) C normalized as in `amstel.ops.spmm`.

    Args:
        in_channels, out_channels: widths F and F'; in_channels -1 takes it from the first input.
        K: number of propagations, >= 0.
        bias: whether to add b, which starts at 0.
        norm, self_loops: as `GCNConv`.

    forward(x, graph, edge_weight=None): as `GCNConv`, without pairs. It propagates X or X W, whichever is narrower.
    Parameters: weight [F, F'], bias [F'].

    Source: F. Wu et al., Simplifying Graph Convolutional Networks, ICML 2019, equation 8.

    Example:
        >>> conv = amstel.nn.SGConv(3, 2, K=2)
        >>> conv(torch.randn(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
        torch.Size([4, 2])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        K: int = 1,
        bias: bool = True,
        norm: str = "sym",
        self_loops: float | nn.Parameter = 1.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self._widths(in_channels, out_channels)
        self.K = _check.integer("K", K, 0)
        self.norm = _check.choice("norm", norm, NORMS)
        self.self_loops = loop_weight(self_loops)
        self.weight = self._make("weight", device, dtype)
        self.bias = self._bias(bias, device, dtype)
        self._start()

    def forward(self, x: Tensor | None, graph: Graph | Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """y [N, F'] or [B, N, F'] for x [N, F], [B, N, F], sparse or None; edge_weight [E] replaces the graph's own."""
        if type(x) is tuple:
            _check.fail("x", "a tensor: it is propagated between nodes of one kind", x)
        graph = prepare(x, graph, self.in_channels)
        fits(x, self.weight)
        last = x is not None and not is_sparse(x) and self.in_channels < self.out_channels
        h = x if last else matmul(x, self.weight)
        assert h is not None
        for _ in range(self.K):
            h = spmm(graph, h, edge_weight, norm=self.norm, self_loops=self.self_loops)
        y = h @ self.weight if last else h
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, K={self.K}, norm={self.norm!r}"


class APPNP(nn.Module):
    r"""Personalized propagation: Z_0 = X, then K times ``Z = (1 - α) Â Z + α X``; it has no parameters.

    Args:
        K: number of propagations, >= 0.
        alpha: probability α of going back to X, in [0, 1].
        norm, self_loops: as `GCNConv`.

    forward(x, graph, edge_weight=None): x [N, F] or [B, N, F]; result like x. Source: J. Gasteiger, A. Bojchevski and
    S. Günnemann, Predict then Propagate, ICLR 2019, equation 4.

    Example:
        >>> amstel.nn.APPNP(K=10, alpha=0.1)(torch.randn(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
        torch.Size([4, 3])
    """

    def __init__(
        self,
        K: int = 10,
        alpha: float = 0.1,
        norm: str = "sym",
        self_loops: float | nn.Parameter = 1.0,
    ):
        super().__init__()
        self.K = _check.integer("K", K, 0)
        self.alpha = _share("alpha", alpha)
        self.norm = _check.choice("norm", norm, NORMS)
        self.self_loops = loop_weight(self_loops)

    def forward(self, x: Tensor, graph: Graph | Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """Z, with the shape of x, [N, F] or [B, N, F]; edge_weight [E] replaces the graph's own."""
        graph = _dense(x, graph, -1)
        z = x
        for _ in range(self.K):
            z = spmm(graph, z, edge_weight, norm=self.norm, self_loops=self.self_loops)
            z = torch.lerp(z, x.to(z.dtype), self.alpha)
        return z

    def extra_repr(self) -> str:
        return f"K={self.K}, alpha={self.alpha}"


class GCN2Conv(nn.Module):
    r"""GCNII's layer ``Y = ((1 - α) Â X + α X_0) ((1 - β) I + β W)`` with β = log(θ / layer + 1), without activation.

    Args:
        channels: width F of input and result.
        alpha: share α of the first layer's input X_0, in [0, 1].
        theta, layer: determine β; give both or neither. Without them, β = 1.
        shared_weights: whether X_0 shares W; otherwise it has its own weight, weight_initial.
        norm, self_loops: as `GCNConv`.

    forward(x, x_0, graph, edge_weight=None): x and x_0 [N, F] or [B, N, F]. Parameters: weight [F, F] (and
    weight_initial [F, F]), Glorot-initialized.

    Source: M. Chen, Z. Wei, Z. Huang, B. Ding and Y. Li, Simple and Deep Graph Convolutional Networks, ICML 2020,
    equation 5.

    Example:
        >>> x = torch.randn(4, 3)
        >>> amstel.nn.GCN2Conv(3, alpha=0.1)(x, x, torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
        torch.Size([4, 3])
    """

    def __init__(
        self,
        channels: int,
        alpha: float,
        theta: float | None = None,
        layer: int | None = None,
        shared_weights: bool = True,
        norm: str = "sym",
        self_loops: float | nn.Parameter = 1.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.channels = _check.integer("channels", channels, 1)
        self.alpha = _share("alpha", alpha)
        if (theta is None) != (layer is None):
            raise ValueError(f"`theta` and `layer` must be given together, got {theta!r} and {layer!r}")
        self.beta = 1.0
        if theta is not None:
            theta = _check.number("theta", theta, "a finite number > 0", above=0)
            self.beta = math.log(theta / _check.integer("layer", layer, 1) + 1)
        self.norm = _check.choice("norm", norm, NORMS)
        self.self_loops = loop_weight(self_loops)
        own = not _check.flag("shared_weights", shared_weights)
        square = self.channels, self.channels
        self.weight = nn.Parameter(torch.empty(square, device=device, dtype=dtype))
        self.weight_initial = nn.Parameter(torch.empty(square, device=device, dtype=dtype)) if own else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot-uniform weights."""
        for weight in (self.weight, self.weight_initial):
            if weight is not None:
                nn.init.xavier_uniform_(weight)

    def forward(
        self, x: Tensor, x_0: Tensor, graph: Graph | Tensor, edge_weight: Tensor | None = None
    ) -> Tensor:
        """y, of the shape of x and of x_0, [N, F] or [B, N, F]; edge_weight [E] replaces the graph's own."""
        graph = _dense(x, graph, self.channels)
        fits(x, self.weight)
        _check.tensor("x_0", x_0, "a tensor like x")
        if x_0.shape != x.shape or x_0.dtype != x.dtype:
            _check.fail("x_0", f"{x.dtype} {list(x.shape)} like x", x_0)
        h = (1 - self.alpha) * spmm(graph, x, edge_weight, norm=self.norm, self_loops=self.self_loops)
        first = self.alpha * x_0
        if self.weight_initial is None:
            return self._transform(h + first, self.weight)
        return self._transform(h, self.weight) + self._transform(first, self.weight_initial)

    def _transform(self, h: Tensor, weight: Tensor) -> Tensor:
        return (1 - self.beta) * h + self.beta * (h @ weight)

    def extra_repr(self) -> str:
        return f"{self.channels}, alpha={self.alpha}, beta={self.beta:.4g}"


def _share(name: str, value: float) -> float:
    return float(_check.number(name, value, "in [0, 1]", least=0, most=1))


def _dense(x: Any, graph: Any, channels: int) -> Graph:
    """Checks dense x, a tensor, and returns the graph as a Graph."""
    _check.tensor("x", x, "a dense tensor [N, F] or [B, N, F]")
    if x.layout != torch.strided:
        _check.fail("x", "a dense tensor [N, F] or [B, N, F]", x)
    return prepare(x, graph, channels)
