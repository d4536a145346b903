"""Graph convolutions: GCNConv and the GCN model. The work is in `amstel.ops.spmm`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from amstel import _check
from amstel._words import counted
from amstel.graph import Graph
from amstel.nn._convolution import Convolution, Features, fits, loop_weight, prepare, shown
from amstel.nn._sparse import _structures, dropout, is_sparse, matmul, sparse_dropout  # noqa: F401
from amstel.nn.drop_edge import DropEdge
from amstel.ops.spmm import NORMS, spmm
from amstel.sampled import SampledGraph, targets_of

ORDERS = ("auto", "transform_first", "propagate_first")


class GCNConv(Convolution):
    r"""Graph convolution ``Y = act(Â X W + b)``, or ``Y = act(X W_self + Â X W + b)`` with a separate weight for the
    node itself, where Â = R (A + λI) C is normalized as in `amstel.ops.spmm`.

    Args:
        in_channels, out_channels: widths F and F'. Without features in_channels is N; -1 takes it from the first
            input.
        bias: whether to add b, which starts at 0.
        norm: "sym", "row", "sym_inout" or "none", see `amstel.ops.spmm`.
        self_loops: λ, the weight of the added self-loops; pass an nn.Parameter of one element to learn it.
        self_weight: whether to use W_self (the first-order model; the paper then has self_loops=0).
        activation: None or "relu".
        order: "transform_first" computes Â (X W), "propagate_first" (Â X) W. "auto" propagates fewer columns,
            counting forward and backward; sparse or missing features are transformed first.
        device, dtype: of the parameters.

    forward(x, graph, edge_weight=None): edge_weight [E] replaces the graph's own weights and may require a gradient.

    Shapes: x [N, F] or [B, N, F], dense; or a torch.sparse_csr tensor [N, F] (its structure is converted once per
    tensor; it gets no gradient); or None, which means X = I. graph: a `Graph` of N nodes, or an edge_index [2, E]
    that is converted in every call. Or x = (x_src, x_dst) with a bipartite graph, as `amstel.ops.spmm` defines it;
    W_self is then for x_dst. Or a `SampledGraph` of N sources, whose targets are the first of them. Result: [N, F']
    or [B, N, F'], with a row for each target.
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
        self_loops: float | nn.Parameter = 1.0,
        self_weight: bool = False,
        activation: str | None = None,
        order: str = "auto",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self._widths(in_channels, out_channels)
        self.norm = _check.choice("norm", norm, NORMS)
        self.self_loops = loop_weight(self_loops)
        if activation is not None and activation != "relu":
            _check.fail("activation", "one of None, 'relu'", activation)
        self.activation = activation
        self.order = _check.choice("order", order, ORDERS)
        own = _check.flag("self_weight", self_weight)
        self.weight = self._make("weight", device, dtype)
        self.weight_self = self._make("weight_self", device, dtype) if own else None
        self.bias = self._bias(bias, device, dtype)
        self._start()

    def forward(self, x: Features, graph: Graph | Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """y [N, F'] or [B, N, F'] for x [N, F], [B, N, F], sparse, None or a pair; edge_weight [E] replaces the graph's own."""
        graph = prepare(x, graph, self.in_channels, sampled=True)
        fits(x, self.weight)
        how: dict[str, Any] = {"edge_weight": edge_weight, "norm": self.norm, "self_loops": self.self_loops}
        given: Any = x
        pair = type(x) is tuple
        own = given[1] if pair else targets_of(given, graph)
        if self.weight_self is not None and pair and own is None:
            raise ValueError("`x` must be a pair (x_src, x_dst) of tensors with self_weight=True")
        if self._propagates_first(given[0] if pair else given):
            y = spmm(graph, given, **how) @ self.weight
        else:
            if pair:
                h: Any = tuple(None if t is None else t @ self.weight for t in given)
            else:
                h = matmul(given, self.weight)
            if self.weight_self is None:
                # Bias and activation ride along.
                return spmm(graph, h, bias=self.bias, activation=self.activation, **how)
            y = spmm(graph, h, **how)
        if self.weight_self is not None:
            y = y + matmul(own, self.weight_self)
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
        return f"{self.in_channels}, {self.out_channels}, norm={self.norm!r}, self_loops={shown(self.self_loops)}{own}"


class GCN(nn.Module):
    r"""Kipf & Welling's model: layers ``H' = relu(Â dropout(H) W)``, the last one without ReLU.

    Args:
        in_channels, hidden_channels, out_channels: widths; without features in_channels is N.
        num_layers: number of layers, >= 1.
        dropout: rate, on the input of every layer while training; on sparse features it acts on the
            non-zeros, and X = I is not dropped out.
        bias: whether the layers have biases; the paper's code does not use any.
        residual: whether layers of equal input and output width add their input to their output (equation 15 of the
            paper).
        jumping: None, "cat" or "max": all layers have hidden_channels, and a linear `head` reads their results side by
            side, or their maximum (Xu et al., Representation Learning on Graphs with Jumping Knowledge Networks, 2018).
        drop_edge: fraction of edges to drop in every training step, see `DropEdge`.

    Shapes: x and graph as `GCNConv`; result: logits [N, out_channels] or [B, N, out_channels]. graph may be a list
    with one `SampledGraph` per layer (`batch.layers` of `amstel.data.NeighborLoader`), with x for the sources of the
    first one; the logits are then for the targets of the last one.

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
        residual: bool = False,
        jumping: str | None = None,
        drop_edge: float = 0.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        hidden_channels = _check.integer("hidden_channels", hidden_channels, 1)
        num_layers = _check.integer("num_layers", num_layers, 1)
        self.dropout = float(_check.number("dropout", dropout, "in [0, 1)", least=0, below=1))
        _check.integer("out_channels", out_channels, 1)
        self.residual = _check.flag("residual", residual)
        self.jumping = _check.choice("jumping", jumping, (None, "cat", "max"))
        _check.number("drop_edge", drop_edge, "in [0, 1)", least=0, below=1)
        self.drop_edge = DropEdge(drop_edge)
        widths = [in_channels, *[hidden_channels] * (num_layers - 1), out_channels]
        last = num_layers - 1
        if jumping is not None:
            widths[-1], last = hidden_channels, num_layers
            read = hidden_channels * (num_layers if jumping == "cat" else 1)
            self.head = nn.Linear(read, out_channels, device=device, dtype=dtype)
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
        """Reset the parameters of every layer."""
        for layer in self.layers:
            layer.reset_parameters()  # type: ignore[operator]
        if self.jumping is not None:
            self.head.reset_parameters()

    def forward(
        self,
        x: Tensor | None,
        graph: Graph | Tensor | Sequence[SampledGraph],
        edge_weight: Tensor | None = None,
    ) -> Tensor:
        """Logits [N, out_channels] or [B, N, out_channels] for x [N, F], [B, N, F], sparse or None; edge_weight [E] or None."""
        graphs = self._graphs(x, graph)
        if self.training and self.drop_edge.p:
            if isinstance(graphs[0], SampledGraph):
                raise ValueError("`drop_edge` must be 0 on sampled graphs, which leave edges out already")
            edge_weight = self.drop_edge(graphs[0], edge_weight, self.layers[0].weight.dtype)
        seen = []
        for layer, graph in zip(self.layers, graphs, strict=True):
            before = targets_of(x, graph)
            x = dropout(x, graph, self.dropout, self.training)
            x = layer(x, graph, edge_weight)
            if self.residual and before is not None and not is_sparse(before) and before.shape == x.shape:
                x = x + before
            seen.append(x)
        assert x is not None
        if isinstance(graphs[0], SampledGraph):
            seen = [h[..., : x.shape[-2], :] for h in seen]  # of the last targets
        if self.jumping == "cat":
            return self.head(torch.cat(seen, -1))
        if self.jumping == "max":
            return self.head(torch.stack(seen).amax(0))
        return x

    def _graphs(self, x: Any, graph: Any) -> list[Any]:
        """One graph per layer."""
        if not isinstance(graph, (list, tuple)):
            square = isinstance(graph, SampledGraph) and graph.is_square  # the nodes of all layers
            return [prepare(x, graph, self.in_channels, sampled=square)] * len(self.layers)
        for number, one in enumerate(graph):
            if not isinstance(one, SampledGraph):
                _check.fail_type(f"graph[{number}]", "an amstel.data.SampledGraph", one)
        if len(graph) != len(self.layers):
            raise ValueError(
                f"`graph` must be {counted(len(self.layers), 'graph')}, one per layer, got {len(graph)}"
            )
        prepare(x, graph[0], self.in_channels, sampled=True)
        return list(graph)

    def extra_repr(self) -> str:
        return f"dropout={self.dropout}"
