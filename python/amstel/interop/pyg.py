"""GCNConv with PyTorch Geometric's interface, for swapping in; torch_geometric itself is not needed."""

from __future__ import annotations

import math
import weakref
from typing import Any

import torch
from torch import Tensor, nn

from amstel import _check
from amstel.graph import Graph
from amstel.ops.spmm import spmm


class _Linear(nn.Linear):
    """Without bias; Glorot-initialized, as PyG's."""

    def reset_parameters(self) -> None:
        limit = math.sqrt(6 / max(1, self.in_features + self.out_features))
        nn.init.uniform_(self.weight, -limit, limit)


class _LazyLinear(nn.LazyLinear):
    cls_to_become = _Linear

    def initialize_parameters(self, input: Tensor) -> None:
        if self.has_uninitialized_params():
            self.in_features = input.shape[-1]
            self.weight.materialize((self.out_features, self.in_features))
            _Linear.reset_parameters(self)  # type: ignore[arg-type]


class _Loops:
    """A graph under PyG's self-loop rule: every node has one loop, which keeps its weight if it was there."""

    def __init__(self, edge_index: Tensor, num_nodes: int, is_given: bool):
        loop = edge_index[0] == edge_index[1]
        self.num_nodes = num_nodes
        self.keep = self.at = None
        if bool(loop.any()):
            self.keep = (~loop).nonzero()[:, 0]
            self.of = loop.nonzero()[:, 0]
            self.at = edge_index[0, self.of].long()
            edge_index = edge_index[:, self.keep]
        # None stands for the Graph that was given, which must not be held here: it would keep itself alive.
        self.graph = None
        if self.at is not None or not is_given:
            self.graph = Graph.from_edge_index(edge_index, num_nodes=num_nodes)
        if self.at is not None:
            nodes = torch.arange(num_nodes, device=edge_index.device, dtype=edge_index.dtype).expand(2, -1)
            self.looped = Graph.from_edge_index(torch.cat([edge_index, nodes], 1), num_nodes=num_nodes)

    def arguments(self, given: Any, weight: Tensor | None, fill: float) -> tuple[Graph, Tensor | None, float]:
        """Graph, edge weights and λ that `spmm` takes."""
        graph = given if self.graph is None else self.graph
        if weight is None:
            return graph, None, 1.0  # PyG has no `improved` without weights
        if self.at is None:
            return graph, weight, fill
        loops = weight.new_full((self.num_nodes,), fill).index_put((self.at,), weight[self.of])
        return self.looped, torch.cat([weight[self.keep], loops]), 0.0


# What a Graph becomes under the rules of a layer, (flow, self-loops), once for all layers; None: itself.
_prepared: weakref.WeakKeyDictionary[Graph, dict[tuple[str, bool], _Loops | Graph | None]] = (
    weakref.WeakKeyDictionary()
)


def _prepare(given: Graph, flow: str, loops: bool) -> _Loops | Graph | None:
    kept = _prepared.setdefault(given, {})
    if (flow, loops) not in kept:
        index = given.to_edge_index()[0]
        forward = flow == "source_to_target"
        index = index if forward else index.flip(0)
        if loops:
            kept[flow, loops] = _Loops(index, given.num_nodes, forward)
        else:
            kept[flow, loops] = None if forward else Graph.from_edge_index(index, num_nodes=given.num_nodes)
    return kept[flow, loops]


class GCNConv(nn.Module):
    r"""torch_geometric.nn.GCNConv on `amstel.ops.spmm`: ``X' = D^-1/2 (A + I) D^-1/2 X Θ^T + b``.

    The constructor, the keys of the state_dict (`lin.weight`, `bias`), the values and the gradients (to x,
    edge_weight and the parameters) are PyG's, without its two tensors of E rows. PyG's self-loop rule holds:
    a loop in the data keeps its weight (of several the last one), a missing one gets 1, or 2 if `improved`;
    without edge weights all loops count 1.

    Args:
        in_channels: width F of the input, or -1 to take it from the first one.
        out_channels: width F' of the result.
        improved, cached, add_self_loops, normalize, bias: as PyG.
        flow: "source_to_target" or "target_to_source". Of PyG's other options aggr="add" and node_dim=-2
            are accepted at these values.

    forward(x, edge_index, edge_weight=None): x [N, F] or [B, N, F]; edge_index [2, E], or a torch.sparse
    matrix [N, N] whose rows are targets, or an `amstel.Graph`; edge_weight [E]. An edge_index is converted
    in every call, so that what is faster is `cached=True` (the first graph is kept, as in PyG) or to pass a
    Graph, whose preparation is kept with it.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Example:
        >>> from amstel.interop.pyg import GCNConv
        >>> conv = GCNConv(3, 2)
        >>> conv(torch.randn(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
        torch.Size([4, 2])
        >>> list(conv.state_dict())
        ['bias', 'lin.weight']
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        improved: bool = False,
        cached: bool = False,
        add_self_loops: bool | None = None,
        normalize: bool = True,
        bias: bool = True,
        **kwargs: Any,
    ):
        super().__init__()
        flow = kwargs.pop("flow", "source_to_target")
        _check.choice("flow", flow, ("source_to_target", "target_to_source"))
        for name, only in (("aggr", "add"), ("node_dim", -2)):
            if (value := kwargs.pop(name, only)) != only:
                _check.fail(name, f"{only!r}, the only one of this layer", value)
        if kwargs:
            raise TypeError(f"GCNConv has no options {sorted(kwargs)}")
        for name, value in (
            ("improved", improved),
            ("cached", cached),
            ("normalize", normalize),
            ("bias", bias),
        ):
            _check.flag(name, value)
        in_channels = _check.integer("in_channels", in_channels, -1)
        if in_channels == 0:
            _check.fail("in_channels", "an integer >= 1, or -1 to take it from the first input", in_channels)
        out_channels = _check.integer("out_channels", out_channels, 1)
        add_self_loops = (
            normalize if add_self_loops is None else _check.flag("add_self_loops", add_self_loops)
        )
        if add_self_loops and not normalize:
            raise ValueError("GCNConv adds self-loops only with normalize=True")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.improved, self.cached, self.normalize = improved, cached, normalize
        self.add_self_loops, self.flow = add_self_loops, flow
        if in_channels == -1:
            self.lin: nn.Module = _LazyLinear(out_channels, bias=False)
        else:
            self.lin = _Linear(in_channels, out_channels, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self._cached: tuple[Graph, Tensor | None, float] | None = None

    def reset_parameters(self) -> None:
        """New Glorot weights, zero bias, empty cache."""
        self.lin.reset_parameters()  # type: ignore[operator]
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        self._cached = None

    def forward(self, x: Tensor, edge_index: Tensor | Graph, edge_weight: Tensor | None = None) -> Tensor:
        _check.tensor("x", x, "a tensor [N, F] or [B, N, F]")
        if (
            x.dim() not in (2, 3)
            or x.layout != torch.strided
            or not (x.shape[-1] == self.in_channels or self.in_channels == -1)
        ):
            _check.fail("x", f"[N, {self.in_channels}] or [B, N, {self.in_channels}], dense", x)
        arguments = self._cached
        if arguments is None:
            arguments = self._arguments(x, edge_index, edge_weight)
            if self.cached and self.normalize:
                self._cached = arguments
        graph, weight, self_loops = arguments
        norm = "sym" if self.normalize else "none"
        return spmm(graph, self.lin(x), weight, norm=norm, self_loops=self_loops, bias=self.bias)

    def _arguments(self, x: Tensor, given: Any, weight: Tensor | None) -> tuple[Graph, Tensor | None, float]:
        nodes, fill = x.shape[-2], 2.0 if self.improved else 1.0
        if isinstance(given, Graph):
            if given.num_rows != nodes or given.num_cols != nodes:
                _check.fail("edge_index", f"a Graph of {nodes} nodes, as many as `x` has rows", given)
            weight = self._weight(given._weight if weight is None else weight, given.num_edges, x)
            prepared = _prepare(given, self.flow, self.add_self_loops)
            if isinstance(prepared, _Loops):
                return prepared.arguments(given, weight, fill)
            return given if prepared is None else prepared, weight, 0.0
        _check.tensor("edge_index", given, "an integer tensor [2, E], a sparse matrix or an amstel.Graph")
        if given.layout != torch.strided:
            return self._sparse(x, given, weight, fill)
        if given.dim() != 2 or given.shape[0] != 2:
            _check.fail("edge_index", "an integer tensor [2, E]", given)
        index = given if self.flow == "source_to_target" else given.flip(0)
        weight = self._weight(weight, given.shape[1], x)
        # Indices out of range are found by the Graph, so it comes before anything that uses them.
        if self.add_self_loops:
            Graph.from_edge_index(index, num_nodes=nodes)
            return _Loops(index, nodes, False).arguments(None, weight, fill)
        return Graph.from_edge_index(index, num_nodes=nodes), weight, 0.0

    def _sparse(
        self, x: Tensor, matrix: Tensor, weight: Tensor | None, fill: float
    ) -> tuple[Graph, Tensor | None, float]:
        """A torch.sparse matrix, to whose diagonal PyG adds the loops, whatever is there."""
        nodes = x.shape[-2]
        if matrix.shape != (nodes, nodes):
            _check.fail("edge_index", f"a sparse matrix [{nodes}, {nodes}] for `x` {list(x.shape)}", matrix)
        if weight is not None:
            raise ValueError("`edge_weight` must be None with a sparse matrix, whose values are the weights")
        if self.flow != "source_to_target":
            _check.fail("flow", "'source_to_target' for a sparse matrix, whose rows are targets", self.flow)
        coo = matrix.to_sparse_coo().coalesce()
        graph = Graph.from_edge_index(coo.indices().flip(0), num_nodes=nodes)
        weight = self._weight(coo.values(), graph.num_edges, x)
        return graph, weight, fill if self.add_self_loops else 0.0

    @staticmethod
    def _weight(weight: Tensor | None, edges: int, x: Tensor) -> Tensor | None:
        if weight is None:
            return None
        _check.tensor("edge_weight", weight, f"a tensor [{edges}]")
        return _check.vector("edge_weight", weight.to(x.dtype), edges, x)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels})"
