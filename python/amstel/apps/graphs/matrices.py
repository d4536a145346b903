"""The propagation matrices of a study (table 3 of the paper), row by row, of the whole graph or of a part of it.

A large graph is held in memory once: 8 bytes an edge, and as much again while a matrix is made.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from amstel import _library
from amstel.graph import Graph

F32 = torch.float32  # whatever torch's default is


class Rows(NamedTuple):
    """Rows of a sparse matrix, CSR. The entries of a row lie in any order; those of one column add up."""

    crow: Tensor  # int64 [n + 1]
    col: Tensor  # int32 or int64 [E]
    value: Tensor  # float32 [E]
    width: int  # number of columns

    @staticmethod
    def of(coo: Tensor) -> Rows:
        """From a coalesced torch.sparse_coo matrix."""
        row, col = coo.indices()
        return Rows(_starts(torch.bincount(row, minlength=coo.shape[0])), col, coo.values(), coo.shape[1])

    def coo(self) -> Tensor:
        """As a coalesced torch.sparse_coo matrix."""
        index, size = torch.stack([self.row(), self.col.long()]), (len(self.crow) - 1, self.width)
        return torch.sparse_coo_tensor(index, self.value, size, check_invariants=False).coalesce()

    def to_dense(self) -> Tensor:
        """As a dense matrix."""
        return self.coo().to_dense()

    def row(self) -> Tensor:
        """The row of every entry."""
        count = self.crow.diff()
        return torch.repeat_interleave(torch.arange(len(count)), count, output_size=len(self.col))

    def select(self, rows: Tensor) -> Rows:
        """Some rows."""
        if len(rows) == len(self.crow) - 1 and torch.equal(rows, torch.arange(len(rows))):
            return self
        count = self.crow.diff()[rows]
        crow = _starts(count)
        slot = torch.repeat_interleave(self.crow[rows] - crow[:-1], count)
        slot += torch.arange(len(slot))
        return Rows(crow, self.col[slot], self.value[slot], self.width)


def supports(graph: Graph, model: str) -> list[Rows]:
    """The matrices T_k of `study` [N, N]."""
    value = graph._values(F32) if graph.has_weight else torch.ones(graph.num_edges, dtype=F32)
    adjacency = Rows(graph._crow.long(), graph._col, value, graph.num_cols)
    return polynomials(adjacency, torch.arange(graph.num_rows), model)


def polynomials(
    adjacency: Rows,
    diagonal: Tensor,
    model: str,
    at: Callable[[Tensor, Tensor], Tensor] = lambda scale, col: scale.index_select(0, col),
    times: Callable[[Tensor, Tensor], Tensor] = torch.sparse.mm,
) -> list[Rows]:
    """The T_k of an adjacency matrix, of which there may be some rows [n, N] only.

    Args:
        diagonal: the number of each row among the columns.
        at: values of nodes, by column number, from those of the rows.
        times: the product of two torch.sparse_coo matrices of such rows.
    """

    def normalized(matrix: Rows) -> Rows:
        degree = _library.operators.edge_sum(matrix.crow, None, matrix.value, None)
        scale = torch.where(degree > 0, degree.rsqrt(), 0.0)
        value = torch.repeat_interleave(scale, matrix.crow.diff(), output_size=len(matrix.value))
        value *= matrix.value
        value *= at(scale, matrix.col)
        return matrix._replace(value=value)

    if model == "gcn":
        return [normalized(_with_loops(adjacency, diagonal))]
    n = len(diagonal)
    identity = Rows(torch.arange(n + 1), diagonal, torch.ones(n, dtype=F32), adjacency.width)
    if model == "mlp":
        return [identity]
    s = normalized(adjacency)
    if model == "neighbors":
        return [s]
    if model == "single":
        return [_with_loops(s, diagonal)]
    if model == "first_order":
        return [identity, s]
    minus = s._replace(value=-s.value).coo()
    chebyshev = [identity.coo(), minus]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")  # of torch.sparse.mm
        for _ in range(2, int(model.removeprefix("cheb")) + 1):
            chebyshev.append((times(2 * minus, chebyshev[-1]) - chebyshev[-2]).coalesce())
    return [Rows.of(matrix) for matrix in chebyshev]


def joined(matrices: Sequence[Rows]) -> Rows:
    """[T_0 T_1 ...], with column j of the k-th of K matrices as column j K + k."""
    k = len(matrices)
    if k == 1:
        return matrices[0]
    counts = torch.stack([m.crow.diff() for m in matrices], 1)  # of every row, matrix after matrix
    crow = _starts(counts.flatten())
    size = int(crow[-1])
    col, value = torch.empty(size, dtype=torch.int64), torch.empty(size, dtype=F32)
    for number, m in enumerate(matrices):
        slot = torch.repeat_interleave(crow[number:-1:k] - m.crow[:-1], counts[:, number])
        slot += torch.arange(len(slot))
        col[slot], value[slot] = m.col.long() * k + number, m.value
    return Rows(crow[::k].contiguous(), col, value, matrices[0].width * k)


def _starts(count: Tensor) -> Tensor:
    return torch.cat([count.new_zeros(1), count.cumsum(0)])


def _with_loops(matrix: Rows, diagonal: Tensor) -> Rows:
    """A matrix and the identity, whose entries lie in front of the others of a row."""
    n, edges = len(diagonal), len(matrix.col)
    crow = matrix.crow + torch.arange(n + 1)
    loops = crow[:-1]
    others = torch.ones(n + edges, dtype=torch.bool)
    others[loops] = False
    col, value = matrix.col.new_empty(n + edges), torch.ones(n + edges, dtype=F32)
    col.masked_scatter_(others, matrix.col)
    col[loops] = diagonal.to(col.dtype)
    value.masked_scatter_(others, matrix.value)
    return Rows(crow, col, value, matrix.width)
