"""GraphClassifier: graph convolutions, pooling per graph, and a linear classifier of whole graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from amstel import _check
from amstel.graph import Graph
from amstel.nn._convolution import fits, prepare
from amstel.nn.gcn import GCNConv
from amstel.ops.segment import REDUCTIONS, segment_reduce


class NodeLinear(GCNConv):
    """The layer without the graph: each node by itself."""

    def forward(self, x: Any, graph: Any, edge_weight: Tensor | None = None) -> Tensor:
        fits(x, self.weight)
        return (x @ self.weight + self.bias).relu()


class GraphClassifier(nn.Module):
    r"""Layers ``H_l = relu(Â H_(l-1) W_l + b_l)``, H_0 = X, and logits ``dropout([pool(H_1), ..., pool(H_L)]) W +
    b``, where `pool` reduces the rows of each graph's nodes to one row.

    Args:
        in_channels, hidden_channels: widths of X and of the layers; in_channels -1 takes it from the first input.
        num_classes: width of the result.
        num_layers: L, >= 1.
        dropout: rate, before the classifier while training.
        pool: "mean", "sum" or "max".
        propagate: False ignores the edges (Â = I), to see what the features achieve by themselves.
        device, dtype: of the parameters.

    forward(x, graph, edge_weight=None): x [N, F], dense; graph: a `Graph.batch` of G graphs, or one `Graph`; result:
    logits [G, num_classes].

    Source: K. Xu, W. Hu, J. Leskovec and S. Jegelka, How Powerful are Graph Neural Networks?, ICLR 2019, equation 4.2
    (the readout of all layers), with the layers of Kipf and Welling. `amstel graphs train --task graph` trains it.

    Example:
        >>> ring = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 2], [1, 2, 0]]))
        >>> model = amstel.nn.GraphClassifier(4, 8, 2)
        >>> model(torch.randn(6, 4), amstel.Graph.batch([ring, ring])).shape
        torch.Size([2, 2])
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        num_classes: int,
        num_layers: int = 3,
        dropout: float = 0.5,
        pool: str = "mean",
        propagate: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        hidden_channels = _check.integer("hidden_channels", hidden_channels, 1)
        num_layers = _check.integer("num_layers", num_layers, 1)
        self.dropout = float(_check.number("dropout", dropout, "in [0, 1)", least=0, below=1))
        self.pool = _check.choice("pool", pool, REDUCTIONS)
        self.propagate = _check.flag("propagate", propagate)
        widths = [in_channels, *[hidden_channels] * (num_layers - 1)]
        how: dict[str, Any] = {"device": device, "dtype": dtype}
        kind = GCNConv if self.propagate else NodeLinear
        self.layers = nn.ModuleList(
            kind(width, hidden_channels, activation="relu", **how) for width in widths
        )
        classes = _check.integer("num_classes", num_classes, 1)
        self.head = nn.Linear(num_layers * hidden_channels, classes, **how)

    @property
    def in_channels(self) -> int:
        """Width of the features."""
        return self.layers[0].in_channels  # type: ignore[return-value]

    def reset_parameters(self) -> None:
        """Reset the parameters of every layer."""
        for layer in (*self.layers, self.head):
            layer.reset_parameters()

    def forward(self, x: Tensor, graph: Graph, edge_weight: Tensor | None = None) -> Tensor:
        """Logits [G, num_classes] for x [N, F] and a `Graph.batch` of G graphs; edge_weight [E] or None."""
        expected = f"a dense tensor [N, {self.in_channels}]"
        if _check.tensor("x", x, expected).dim() != 2 or x.layout != torch.strided:
            _check.fail("x", expected, x)
        if not isinstance(graph, Graph):
            _check.fail_type("graph", "an amstel.Graph, a batch or one graph", graph)
        graph = prepare(x, graph, self.in_channels)
        pooled = []
        for layer in self.layers:
            x = layer(x, graph, edge_weight)
            pooled.append(segment_reduce(x, graph, reduce=self.pool))
        return self.head(nn.functional.dropout(torch.cat(pooled, 1), self.dropout, self.training))

    def extra_repr(self) -> str:
        return f"pool={self.pool!r}, dropout={self.dropout}"
