"""Spectral graph convolution: the Fourier basis of a graph, its transform, and SpectralConv."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

import torch
from torch import Tensor

from amstel import _check
from amstel._derived import keep, plainly
from amstel.graph import Graph
from amstel.nn._convolution import Convolution, fits, prepare
from amstel.nn._sparse import is_sparse
from amstel.ops._raw import has_tangent, transformed
from amstel.ops.spmm import spmm

# Bases of graphs, made once and dropped with them.
_bases: weakref.WeakKeyDictionary[Graph, dict[Any, tuple[Tensor, Tensor]]] = weakref.WeakKeyDictionary()


def _one_basis(values: Tensor, vectors: Tensor) -> Tensor:
    """The eigenvectors by a rule, whatever basis of an eigenspace and whatever signs the solver chose.

    In each eigenspace: the node that has the largest part in it (of equal ones the first) gives the first vector, its
    projection, which is positive there; the rest of the space, orthogonal to it, goes on likewise.
    """
    n, out = len(values), torch.empty_like(vectors)
    ends = [0, *(torch.diff(values) > 1e-9).nonzero()[:, 0].add(1).tolist(), n]
    for begin, end in itertools.pairwise(ends):
        space = vectors[:, begin:end]
        rest = space.clone()
        for k in range(begin, end):
            part = rest.square().sum(1)
            node = int((part >= part.max() - 1e-9).nonzero()[0])
            direction = rest[node] / rest[node].norm()
            out[:, k] = space @ direction
            rest = rest - torch.outer(rest @ direction, direction)
    return out


def _solve(graph: Graph, edge_weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    eye = torch.eye(graph.num_rows, dtype=torch.float64, device=graph.device)
    edge_weight = None if edge_weight is None else edge_weight.double()
    laplacian = eye - spmm(graph, eye, edge_weight, norm="sym", self_loops=0.0)
    if not torch.allclose(laplacian, laplacian.T, atol=1e-10):
        what = "a directed" if edge_weight is None else "an `edge_weight` that differs with the direction, of"
        raise ValueError(f"a graph Fourier transform needs a symmetric graph, got {what} {graph!r}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the bits of LAPACK depend on the number
    try:
        values, vectors = torch.linalg.eigh(laplacian)
        differentiated = vectors.requires_grad or (transformed() and has_tangent(vectors))
        if differentiated and bool((values.diff() <= 1e-9).any()):
            raise ValueError(
                "`edge_weight` must not require a gradient where eigenvalues are equal: their eigenvectors have none"
            )
        return values, _one_basis(values, vectors)
    finally:
        torch.set_num_threads(threads)


def fourier_basis(
    graph: Graph, modes: int | None = None, edge_weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The smoothest eigenvectors of L = I - D^-1/2 A D^-1/2 (`modes` of them, by default all).

    Args:
        graph: symmetric.
        modes: M, from 1 to N.
        edge_weight: [E], used instead of the graph's own weights, equal in both directions. The basis is then computed
            in every call, and is float64 if edge_weight is. Differentiable in edge_weight, also through the degrees, if
            no two eigenvalues are equal.

    Returns:
        eigenvalues [M], ascending and in [0, 2], and eigenvectors U [N, M], float32, computed in float64 once per Graph.
        Signs, and the basis of repeated eigenvalues, follow a fixed rule rather than the solver: in each eigenspace, the
        node with the largest component (the first of equals) determines a vector that is positive there; the rule is
        then repeated in its orthogonal complement. On the CPU the result is bit-identical for any number of threads. O(N^3) time and O(N^2)
        memory: for graphs of a few thousand nodes.

    Raises:
        ValueError: the graph is not symmetric or has fewer nodes than `modes`, or edge_weight requires a gradient (or
            has a tangent) and some eigenvalues are equal, as happens with indistinguishable nodes.

    Example:
        >>> path = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
        >>> values, vectors = amstel.nn.fourier_basis(path, modes=2)
        >>> values.round(decimals=4).abs(), vectors.shape
        (tensor([0., 1.]), torch.Size([3, 2]))
    """
    values, vectors = _basis(graph, modes, edge_weight, torch.float32)
    return (values, vectors) if edge_weight is not None else (values.clone(), vectors.clone())


def _basis(
    graph: Graph, modes: int | None, edge_weight: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """That, float32 or for float64 features float64; what a Graph keeps, which nobody may change."""
    if not isinstance(graph, Graph):
        _check.fail_type("graph", "an amstel.Graph", graph)
    n = graph.num_rows
    modes = n if modes is None else _check.integer("modes", modes)
    if not 1 <= modes <= n or not graph.is_square:
        _check.fail("modes", f"from 1 to the number of nodes of {graph!r}", modes)
    if edge_weight is not None:
        expected = f"a floating-point tensor [{graph.num_edges}]"
        if _check.tensor("edge_weight", edge_weight, expected).dtype not in _check.FLOATS:
            _check.fail("edge_weight", expected, edge_weight)
        if not torch.compiler.is_compiling():
            _check.unbatched(edge_weight=edge_weight)  # which eigenvalues are equal decides what is computed
        values, vectors = _solve(graph, edge_weight)
        dtype = torch.promote_types(edge_weight.dtype, dtype)
        return values[:modes].to(dtype), vectors[:, :modes].to(dtype).contiguous()
    kept = _bases.setdefault(graph, {})
    key = modes, dtype
    found = kept.get(key)  # which another thread may drop meanwhile
    if found is None:

        def make() -> tuple[Tensor, Tensor]:
            values, vectors = _solve(graph)
            return values[:modes].to(dtype), vectors[:, :modes].to(dtype).contiguous()

        found = keep(kept, key, plainly(make))
    return found


def _vectors(x: Any, graph: Graph, modes: int | None, edge_weight: Tensor | None = None) -> Tensor:
    """The eigenvectors as precise as the features."""
    double = isinstance(x, Tensor) and x.dtype == torch.float64
    return _basis(graph, modes, edge_weight, torch.float64 if double else torch.float32)[1]


def _rows(name: str, x: Any, rows: int) -> Tensor:
    expected = f"a floating-point tensor [{rows}, F] or [B, {rows}, F]"
    _check.tensor(name, x, expected)
    if (
        x.dim() not in (2, 3)
        or x.shape[-2] != rows
        or x.dtype not in _check.FLOATS
        or x.layout != torch.strided
    ):
        _check.fail(name, expected, x)
    return x


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
    basis = _vectors(x, graph, modes)
    return basis.to(_rows("x", x, len(basis)).dtype).T @ x


def inverse_graph_fourier(x: Tensor, graph: Graph, modes: int | None = None) -> Tensor:
    """``U x``, the inverse of `graph_fourier` (its adjoint where modes < N): [M, F] -> [N, F].

    Example:
        >>> graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
        >>> x = torch.tensor([[1.0], [2.0], [4.0]])
        >>> amstel.nn.inverse_graph_fourier(amstel.nn.graph_fourier(x, graph), graph).round(decimals=4)
        tensor([[1.],
                [2.],
                [4.]])
    """
    basis = _vectors(x, graph, modes)
    return basis.to(_rows("x", x, basis.shape[1]).dtype) @ x


class SpectralConv(Convolution):
    r"""Spectral filter ``Y = U (Θ ⋆ (U^T X)) + b``: output o is ``sum_i U diag(Θ[:, i, o]) U^T X[:, i]``.

    U holds the `modes` smoothest eigenvectors of the normalized Laplacian (`fourier_basis`). The filters
    belong to the graph that they were learned on.

    Args:
        in_channels, out_channels: widths F and F'; in_channels -1 takes it from the first input.
        modes: number M of eigenvectors.
        bias: whether there is a b, which starts at 0.

    Shapes: x [N, F] or [B, N, F], dense; graph: a symmetric `Graph`, preferably always the same one, or an
    edge_index (whose eigenvectors are then computed in every call). Parameters: weight [M, F, F'], bias [F'].

    forward(x, graph, edge_weight=None): edge_weight [E] as for `fourier_basis`, which is then computed in every call.

    Source: J. Bruna, W. Zaremba, A. Szlam and Y. LeCun, Spectral Networks and Locally Connected
    Networks on Graphs, ICLR 2014, equation 3.2; Kipf and Welling, ICLR 2017, equation 3.

    Example:
        >>> graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
        >>> amstel.nn.SpectralConv(4, 2, modes=3)(torch.randn(3, 4), graph).shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        modes: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self._widths(in_channels, out_channels)
        self.modes = _check.integer("modes", modes, 1)
        self.weight = self._make("weight", device, dtype)
        self.bias = self._bias(bias, device, dtype)
        self._start()

    def _shape(self, name: str) -> tuple[int, ...]:
        return self.modes, self.in_channels, self.out_channels

    def forward(self, x: Tensor, graph: Graph | Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """y [N, F'] or [B, N, F'] for x [N, F] or [B, N, F]; edge_weight [E] replaces the graph's own."""
        graph = prepare(x, graph, self.in_channels)
        if x is None or type(x) is tuple or is_sparse(x):
            _check.fail("x", "a dense tensor", x)
        fits(x, self.weight)
        basis = _vectors(x, graph, self.modes, edge_weight).to(_rows("x", x, graph.num_rows).dtype)
        y = basis @ torch.einsum("...mi,mio->...mo", basis.T @ x, self.weight)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, modes={self.modes}"
