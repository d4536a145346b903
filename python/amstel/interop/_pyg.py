"""Convert PyTorch Geometric's adjacencies for `spmm`, to a Graph, edge weights and λ by PyG's rule for self-loops; and
check the calls of its layers."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from amstel import _check, _checks
from amstel._derived import plainly
from amstel._torch import without_autocast
from amstel._words import counted
from amstel.graph import Graph
from amstel.ops.spmm import spmm

__all__: list[str] = []  # PyG's templates import everything from here

#: Graph, edge weights [E] or None, and λ.
Arguments = tuple[Graph, Tensor | None, float]


class _Loops:
    """A graph under PyG's self-loop rule: every node has one loop, which keeps its weight if it was there."""

    def __init__(self, edge_index: Tensor, num_nodes: int, made: Graph | None):
        loop = edge_index[0] == edge_index[1]
        self.num_nodes = num_nodes
        # None stands for the Graph that was given, which must not be held here: it would keep itself alive.
        self.graph = made
        self.keep = self.at = None
        if bool(loop.any()):
            self.keep = (~loop).nonzero()[:, 0]
            self.of = loop.nonzero()[:, 0]
            self.at = edge_index[0, self.of].long()
            edge_index = edge_index[:, self.keep]
            self.graph = Graph.from_edge_index(edge_index, num_nodes=num_nodes)
            nodes = torch.arange(num_nodes, device=edge_index.device, dtype=edge_index.dtype).expand(2, -1)
            self.looped = Graph.from_edge_index(torch.cat([edge_index, nodes], 1), num_nodes=num_nodes)

    def arguments(self, given: Any, weight: Tensor | None, fill: float) -> Arguments:
        graph = given if self.graph is None else self.graph
        if weight is None:
            return graph, None, 1.0  # PyG has no `improved` without weights
        if self.at is None:
            return graph, weight, fill
        if (at := first_nan("edge_weight", weight)) is not None:  # whose position would be another one
            raise ValueError(f"`edge_weight` must not be NaN, got NaN at position {at}")
        loops = weight.new_full((self.num_nodes,), fill).index_put((self.at,), weight[self.of])
        return self.looped, torch.cat([weight[self.keep], loops]), 0.0


# What a Graph becomes under the rules of a layer, (flow, self-loops), once for all layers; None: itself.
_prepared: weakref.WeakKeyDictionary[Graph, dict[tuple[str, bool], _Loops | Graph | None]] = (
    weakref.WeakKeyDictionary()
)


def _prepare(given: Graph, flow: str, loops: bool) -> _Loops | Graph | None:
    kept = _prepared.setdefault(given, {})

    def make() -> _Loops | Graph | None:
        index = given.to_edge_index()[0]
        forward = flow == "source_to_target"
        index = index if forward else index.flip(0)
        turned = None if forward else Graph.from_edge_index(index, num_nodes=given.num_nodes)
        return _Loops(index, given.num_nodes, turned) if loops else turned

    if (flow, loops) not in kept:
        kept[flow, loops] = make() if torch.compiler.is_compiling() else plainly(make)
    return kept[flow, loops]


def check_graph(given: Graph, nodes: int) -> None:
    """PyG's layers know one kind of nodes, and no degrees but those of the edges that they are given."""
    if given._is_sampled:
        _check.fail("edge_index", "a whole Graph: amstel.nn.GCNConv takes sampled ones", given)
    if given.num_rows != nodes or given.num_cols != nodes:
        _check.fail("edge_index", f"a Graph of {counted(nodes, 'node')}, as many as `x` has rows", given)


def of_graph(
    given: Graph, nodes: int, weight: Tensor | None, flow: str, loops: bool, fill: float
) -> Arguments:
    check_graph(given, nodes)
    weight = _weight(given._weight if weight is None else weight, given.num_edges, given.device)
    prepared = _prepare(given, flow, loops)
    if isinstance(prepared, _Loops):
        return prepared.arguments(given, weight, fill)
    return given if prepared is None else prepared, weight, 0.0


def of_index(
    index: Tensor, nodes: int, weight: Tensor | None, flow: str, loops: bool, fill: float
) -> Arguments:
    if index.dim() != 2 or index.shape[0] != 2:
        _check.fail("edge_index", "an integer tensor [2, E]", index)
    if flow != "source_to_target":
        index = index.flip(0)
    weight = _weight(weight, index.shape[1], index.device)
    # First of all, since it finds an index out of range.
    graph = Graph.from_edge_index(index, num_nodes=nodes)
    if loops:
        return _Loops(index, nodes, graph).arguments(None, weight, fill)
    return graph, weight, 0.0


def of_sparse(matrix: Tensor, nodes: int, loops: bool, fill: float) -> Arguments:
    """A torch.sparse matrix; PyG adds self-loops to its diagonal, whatever it holds."""
    coo = matrix.to_sparse_coo().coalesce()
    graph = Graph.from_edge_index(coo.indices().flip(0), num_nodes=nodes)
    if (at := first_nan("matrix", coo.values())) is not None:
        row, column = coo.indices()[:, at].tolist()
        raise ValueError(f"`edge_index` must be a sparse matrix without NaN, got NaN at [{row}, {column}]")
    # A copy: PyG's gcn_norm writes to the values of the matrix, which `spmm` keeps for its gradient.
    return graph, coo.values().clone(), fill if loops else 0.0


def first_nan(kind: str, values: Tensor) -> int | None:
    """Where the first NaN is, if values may be looked at without waiting; else it is noted."""
    how = _checks.how(values)
    if how == "async":
        _checks.notes_of(values).note(kind, values.isnan())
    if how != "sync" or not bool((bad := values.isnan()).any()):
        return None
    return int(bad.nonzero()[0])


def strided(index: Any, weight: Any) -> tuple[Tensor, Any]:
    """Both, of a layer for which PyG's own code takes no sparse matrix either."""
    if not isinstance(index, Tensor) or index.layout != torch.strided:
        expected = (
            "an integer tensor [2, E] or an amstel.Graph, because PyG's layer does not take a sparse matrix"
        )
        _check.fail("edge_index", expected, index)
    return index, weight


def check_laplacian(
    derived: Tensor,
    index: Tensor,
    nodes: int,
    weight: Tensor | None,
    lambda_max: Any,
    normalization: str | None,
) -> None:
    """ValueError for what made a NaN of the weights of PyG's scaled Laplacian."""
    if first_nan("laplacian", derived) is None:
        return
    largest = torch.as_tensor(2.0 if lambda_max is None else lambda_max).reshape(-1)
    if bool(((largest == 0) | largest.isnan()).any()):
        _check.fail("lambda_max", "of numbers other than 0 and NaN", largest.tolist())
    if weight is not None and not bool(weight.isfinite().all()):
        at = int((~weight.isfinite()).nonzero()[0])
        raise ValueError(f"`edge_weight` must be finite, got {weight[at]:g} at position {at}")
    if weight is not None and normalization == "sym":
        apart = index[0] != index[1]
        degree = weight.new_zeros(nodes).index_add(0, index[0][apart].long(), weight[apart])
        if bool((degree < 0).any()):
            at = int((degree < 0).nonzero()[0])
            raise ValueError(
                "`edge_weight` must add up to at least 0 for the edges of every node with normalization='sym', which takes "
                f"roots, got {degree[at]:g} for node {at}"
            )
    if lambda_max is None and normalization != "sym":  # PyG takes twice the largest number, of no edges 0
        raise ValueError(
            "`lambda_max` must be given where the graph has no Laplacian with a finite number above 0"
        )
    raise ValueError(
        "`edge_weight` must have a Laplacian without NaN, got one with NaN, by numbers too large"
    )


def _weight(weight: Tensor | None, edges: int, device: torch.device) -> Tensor | None:
    if weight is not None and (weight.shape != (edges,) or weight.device != device):
        _check.fail("edge_weight", f"[{edges}] on {device}", weight)
    return weight


def propagate_of(cls: type) -> Any:
    """The method `propagate` of a layer, and not what PyG compiled of it for this class or a base of it."""
    for one in cls.__mro__:
        found = vars(one).get("propagate")
        if (
            found is not None
            and getattr(found, "__module__", None) != f"{one.__module__}_{one.__name__}_propagate"
        ):
            return found
    return None


def widths(in_channels: int, out_channels: int) -> tuple[int, int]:
    in_channels = _check.integer("in_channels", in_channels, -1)
    if in_channels == 0:
        _check.fail("in_channels", "an integer >= 1, or -1 to take it from the first input", in_channels)
    return in_channels, _check.integer("out_channels", out_channels, 1)


def is_dense(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and value.dtype in _check.FLOATS


def product(
    arguments: Arguments,
    h: Tensor,
    norm: str,
    bias: Tensor | None = None,
    factors: torch.dtype | None = None,
) -> Tensor:
    """`spmm` in the dtype that PyG's arithmetic has, under autocast too; `factors`: that of its normalized weights."""
    graph, weight, self_loops = arguments
    if weight is not None or norm == "none":
        factors = None if weight is None else weight.dtype
    dtype = h.dtype if factors is None else torch.promote_types(h.dtype, factors)
    if bias is not None and bias.dtype != dtype:
        return product(arguments, h, norm, factors=factors) + bias
    weight = weight if weight is None else weight.to(dtype)
    with without_autocast(h):
        return spmm(graph, h.to(dtype), weight, norm=norm, self_loops=self_loops, bias=bias)
