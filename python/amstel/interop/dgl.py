"""DGL's graph convolution on `amstel.ops.spmm`: change one import.

    from amstel.interop.dgl import GraphConv  # was: from dgl.nn import GraphConv

Nothing here imports DGL. Only the documented methods `edges`, `num_src_nodes` and `num_dst_nodes` of its graphs are used,
for homogeneous graphs, graphs of one edge type and blocks from a sampler. You can pass an `amstel.Graph` instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from amstel import _check, _derived
from amstel._torch import autocast_dtype
from amstel.graph import Graph
from amstel.nn._convolution import fits
from amstel.ops.spmm import spmm

__all__ = ["GraphConv", "from_dgl"]

NORMS = ("both", "right", "left", "none")


def from_dgl(graph: Any) -> Graph:
    """Convert a DGL graph with one edge type to an `amstel.Graph`, with edges in the order of their IDs, without weights.

    A DGL graph can change, and a `Graph` cannot. Convert it once if many layers and epochs use it. For a block, or an edge
    type between two kinds of nodes, sources and targets are different nodes, which gives a rectangular `Graph`. O(E).

    Raises:
        TypeError: it is not a graph. ValueError: it has several edge types (use `graph[etype]`).

    Example:
        >>> class Path:  # what is used of a DGL graph
        ...     def num_src_nodes(self): return 3
        ...     def num_dst_nodes(self): return 3
        ...     def edges(self, order="eid"): return torch.tensor([0, 1]), torch.tensor([1, 2])
        >>> amstel.interop.dgl.from_dgl(Path())
        Graph(num_nodes=3, num_edges=2)
    """
    if not all(callable(getattr(graph, name, None)) for name in ("edges", "num_src_nodes", "num_dst_nodes")):
        _check.fail_type("graph", "a DGL graph", graph)
    kinds = getattr(graph, "canonical_etypes", None)
    if kinds is not None and len(kinds) != 1:
        raise ValueError(f"`graph` must be of one edge type, such as graph[etype], got {list(kinds)}")
    source, target = graph.edges(order="eid")
    rows, cols = int(graph.num_dst_nodes()), int(graph.num_src_nodes())
    source, target = source.contiguous(), target.contiguous()
    return Graph._trusted(*_derived.csr_from_coo(target, source, rows, cols, None), None, cols)


class GraphConv(nn.Module):
    r"""dgl.nn.GraphConv: ``Y = act(R A C X W + b)``, without tensors that have one row per edge.

    "both": R and C are in- and out-degree to the power -1/2; "right": R = 1 / in-degree, C = 1; "left": R = 1,
    C = 1 / out-degree; "none": 1. Degrees are numbers of edges, including parallel ones and regardless of weights, and at
    least 1. No loops are added.

    Args:
        in_feats, out_feats: widths.
        norm: see above.
        weight: whether there is a W; if not, it may be passed to the call.
        bias: whether there is a b.
        activation: a function, or None.
        allow_zero_in_degree: whether to allow nodes without incoming edges, whose result is b; otherwise they are an error.
        device, dtype: of the parameters.

    forward(graph, feat, weight=None, edge_weight=None): graph: a DGL graph, converted in every call, or an
    `amstel.Graph`, whose own weights are ignored. feat [N, ..., in_feats], or a pair, whose first element, for the
    sources, is used. edge_weight [E] or [E, 1], in the order of the edge IDs. Result [targets, ..., out_feats].
    Differentiable in feat, edge_weight and the parameters. Constructor and state_dict are DGL's.

    Raises:
        ValueError or TypeError: an argument is not as described, or a node has no incoming edge.

    Source: T. N. Kipf and M. Welling, ICLR 2017, equation 2; the documentation of DGL.

    Example:
        >>> graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 2], [1, 2, 0]]))
        >>> amstel.interop.dgl.GraphConv(4, 2)(graph, torch.randn(3, 4)).shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        in_feats: int,
        out_feats: int,
        norm: str = "both",
        weight: bool = True,
        bias: bool = True,
        activation: Callable[[Tensor], Tensor] | None = None,
        allow_zero_in_degree: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.in_feats = _check.integer("in_feats", in_feats, 1)
        self.out_feats = _check.integer("out_feats", out_feats, 1)
        self.norm = _check.choice("norm", norm, NORMS)
        if activation is not None and not callable(activation):
            _check.fail_type("activation", "a function, or None", activation)
        self.activation = activation
        self.set_allow_zero_in_degree(allow_zero_in_degree)
        has_weight, has_bias = _check.flag("weight", weight), _check.flag("bias", bias)
        shape = self.in_feats, self.out_feats
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype)) if has_weight else None
        self.bias = nn.Parameter(torch.empty(shape[1], device=device, dtype=dtype)) if has_bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot-uniform W, b = 0."""
        if self.weight is not None:
            nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def set_allow_zero_in_degree(self, set_value: bool) -> None:
        """Whether a node may be without incoming edges."""
        self.allow_zero_in_degree = _check.flag("allow_zero_in_degree", set_value)

    def forward(
        self, graph: Any, feat: Any, weight: Tensor | None = None, edge_weight: Tensor | None = None
    ) -> Tensor:
        given = graph if isinstance(graph, Graph) else from_dgl(graph)
        if given._is_sampled:
            _check.fail("graph", "a whole Graph: amstel.nn.GCNConv takes sampled ones", given)
        if given.has_weight:
            bare = Graph.__new__(Graph)
            bare._set(given._crow, given._col, given._edge, None, given.num_cols, given._turned)
            given = bare
        x = self._features(given, feat)
        if not self.allow_zero_in_degree and bool((given._crow.diff() == 0).any()):
            raise ValueError(
                "`graph` must have an incoming edge for every node, since a node without one gets zeros: add self-loops, "
                f"or set allow_zero_in_degree=True, got {given!r}"
            )
        if weight is not None and self.weight is not None:
            raise ValueError("`weight` must be None where the module has its own, made with weight=True")
        if weight is not None:
            self._check_weight(weight, x)
        elif self.weight is not None:
            fits(x, weight := self.weight, "feat")
        if edge_weight is not None:
            edge_weight = self._edge_weight(given, edge_weight)
        first = self.in_feats > self.out_feats
        if weight is not None and first:
            x = x @ weight
        x = self._propagate(given, x, edge_weight)
        if weight is not None and not first:
            x = x @ weight
        if self.bias is not None:
            x = x + self.bias
        return x if self.activation is None else self.activation(x)

    def _features(self, graph: Graph, feat: Any) -> Tensor:
        x = feat[0] if isinstance(feat, tuple) and feat else feat
        expected = f"a floating-point tensor [{graph.num_cols}, ..., {self.in_feats}], or a pair of tensors"
        _check.tensor("feat", x, expected)
        if (
            x.dim() < 2
            or x.shape[0] != graph.num_cols
            or x.shape[-1] != self.in_feats
            or x.dtype not in _check.FLOATS
            or x.layout != torch.strided
        ):
            _check.fail("feat", expected, x)
        return x

    def _check_weight(self, weight: Any, x: Tensor) -> None:
        expected = f"a floating-point tensor [{self.in_feats}, {self.out_feats}] on {x.device}"
        _check.dense("weight", weight, expected)
        shape = (self.in_feats, self.out_feats)
        if weight.shape != shape or weight.dtype not in _check.FLOATS or weight.device != x.device:
            _check.fail("weight", expected, weight)
        if weight.dtype != x.dtype and autocast_dtype(x) is None:
            _check.fail("weight", f"{_check.name(x.dtype)} like `feat`", weight)

    @staticmethod
    def _edge_weight(graph: Graph, edge_weight: Any) -> Tensor:
        edges = graph.num_edges
        expected = f"a floating-point tensor [{edges}] or [{edges}, 1]"
        _check.dense("edge_weight", edge_weight, expected)
        if edge_weight.shape not in ((edges,), (edges, 1)) or edge_weight.dtype not in _check.FLOATS:
            _check.fail("edge_weight", expected, edge_weight)
        return edge_weight.reshape(edges)

    def _propagate(self, graph: Graph, x: Tensor, edge_weight: Tensor | None) -> Tensor:
        def scaled(rows: Tensor, out: bool, power: float) -> Tensor:
            scale = graph._degree(torch.promote_types(rows.dtype, torch.float32), out).clamp(min=1).pow(power)
            return rows * scale.to(rows.dtype)[:, None]

        shape = x.shape[1:]
        h = x.reshape(x.shape[0], math.prod(shape))
        plain = {"both": "sym_inout", "right": "row", "none": "none"}.get(self.norm)
        if edge_weight is None and plain is not None and (graph.is_square or plain != "sym_inout"):
            h = spmm(graph, h, norm=plain, self_loops=0.0)
            return h.reshape(h.shape[0], *shape)
        power = -0.5 if self.norm == "both" else -1.0
        if self.norm in ("both", "left"):
            h = scaled(h, True, power)
        h = spmm(graph, h, edge_weight, norm="none", self_loops=0.0)
        if self.norm in ("both", "right"):
            h = scaled(h, False, power)
        return h.reshape(h.shape[0], *shape)

    def extra_repr(self) -> str:
        return f"in={self.in_feats}, out={self.out_feats}, normalization={self.norm}"
