"""Sums, means and maxima over segments of rows, as in pooling the nodes of each graph.

Sum and mean are products with the matrix that says which row belongs to which segment, so `spmm` computes them and
their derivatives. The maximum is torch's, with a gradient that runs along the same matrix.
"""

from __future__ import annotations

import math
from typing import Any, NoReturn

import torch
from torch import Tensor

from amstel import _batch, _check, _checks, _derived
from amstel._torch import without_autocast
from amstel._words import counted
from amstel.graph import Graph
from amstel.ops._raw import dispatched
from amstel.ops.spmm import spmm

REDUCTIONS = ("sum", "mean", "max")


def segment_reduce(
    x: Tensor,
    segments: Graph | Tensor | None = None,
    num_segments: int | None = None,
    *,
    reduce: str = "sum",
) -> Tensor:
    r"""Sum, mean or maximum of the rows of each segment: ``y[s] = reduce of x[i] over i with segments[i] = s``.

    A segment without rows gives zeros.

    Args:
        x: [N, ...], float64, float32, bfloat16 or float16; 16-bit types are summed in float32, also under autocast.
        segments: a `Graph.batch` with N nodes, whose graphs are the segments; or the segment of each row, an int32 or
            int64 vector [N] of numbers from 0, in any order, on x's device; or None, which makes all rows one segment.
        num_segments: S; default: the number of graphs in the batch, or the largest number + 1.
        reduce: "sum", "mean" or "max".

    Returns:
        y: [S, ...], contiguous, dtype of x.

    Differentiable in x, any number of times; if several rows share the maximum, they share its gradient equally, as in
    torch.amax. Bit-identical from run to run and for any number of threads.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Complexity: O(N F). What is derived from a batch is kept with it; a vector is sorted (in O(N)) and checked in every
    call.

    Example:
        >>> x = torch.tensor([[1.0], [2.0], [5.0]])
        >>> amstel.ops.segment_reduce(x, torch.tensor([0, 0, 2]), reduce="mean").tolist()
        [[1.5], [0.0], [5.0]]
    """
    return reduced(x, segments, num_segments, reduce, "segments", "num_segments")


def reduced(x: Tensor, segments: Any, num_segments: Any, reduce: str, name: str, size_name: str) -> Tensor:
    """`segment_reduce`, whose errors call two of the arguments by the names given."""
    _check.tensor("x", x, "a tensor [N, ...]")
    if x.dtype not in _check.FLOATS or x.layout != torch.strided or x.dim() < 1:
        _check.fail("x", "a dense float64, float32, bfloat16 or float16 tensor [N, ...]", x)
    _check.choice("reduce", reduce, REDUCTIONS)
    members, spread = _members(x, segments, num_segments, name, size_name)
    flat = x.reshape(x.shape[0], math.prod(x.shape[1:]))
    with without_autocast(x):
        if reduce != "max":
            y = spmm(members, flat, norm="row" if reduce == "mean" else "none", self_loops=0.0)
        elif torch.compiler.is_compiling() or dispatched():
            y = _max(flat, members, spread)
        else:
            y = _Max.apply(flat, members, spread)
    return y.reshape(members.num_rows, *x.shape[1:])


#: Segments beyond, of which no memory holds a number each, are damage.
_MOST = 2**40


def _members(x: Tensor, segments: Any, num_segments: Any, name: str, size_name: str) -> tuple[Graph, Graph]:
    """The matrix [S, N] of which row is in which segment, and its transpose."""
    rows = x.shape[0]

    def fail(got: Any) -> NoReturn:
        _check.fail(name, f"a Graph of {counted(rows, 'node')}, or an int32 or int64 vector [{rows}]", got)

    if num_segments is not None:
        num_segments = _check.integer(size_name, num_segments, 0)
    if isinstance(segments, Graph):
        if segments.num_rows != rows:
            fail(segments)
        if segments.device != x.device:
            _check.fail(name, f"on {x.device} like x", segments)
        if num_segments not in (None, segments.num_graphs):
            _check.fail(size_name, f"the {counted(segments.num_graphs, 'graph')} of the batch", num_segments)
        return _batch.members(segments)
    if segments is None:
        segments = torch.zeros(rows, dtype=torch.int64, device=x.device)
        num_segments = 1 if num_segments is None else num_segments
    _check.tensor(name, segments, "a Graph of N nodes, or an int32 or int64 vector [N]")
    if (
        segments.shape != (rows,)
        or segments.dtype not in (torch.int32, torch.int64)
        or segments.layout != torch.strided
    ):
        fail(segments)
    if segments.device != x.device:
        _check.fail(name, f"on {x.device} like x", segments)
    if not torch.compiler.is_compiling():
        _check.unbatched(**{name: segments})
    if num_segments is None or not _checks.hidden(segments):
        least, most = (int(v) for v in segments.aminmax()) if rows else (0, -1)
        if num_segments is None and most >= _MOST:
            _check.fail(name, f"below {_MOST}, of as many segments", most)
        num_segments = most + 1 if num_segments is None else num_segments
        if least < 0 or most >= num_segments:
            wrong = int(((segments < 0) | (segments >= num_segments)).nonzero()[0])
            within = f"from 0 to {num_segments - 1}" if num_segments > 0 else "from 0"
            raise ValueError(f"`{name}` must be {within}, got {int(segments[wrong])} at position {wrong}")
        if num_segments > _MOST:
            _check.fail(size_name, f"at most {_MOST}", num_segments)
    if num_segments > 2**31 - 2 or rows > 2**31 - 2:
        segments = segments.long()
    return _of_vector(segments, num_segments)


def _of_vector(segments: Tensor, size: int) -> tuple[Graph, Graph]:
    rows = segments.shape[0]  # len() would make it a constant of an exported program

    def make() -> tuple[Graph, Graph]:
        every = torch.arange(rows + 1, dtype=segments.dtype, device=segments.device)
        crow, col, edge = _derived.csr_from_coo(segments.contiguous(), every[:-1], size, rows, None)
        spread = Graph._trusted(every.to(crow.dtype), segments.to(crow.dtype), None, None, size)
        return Graph._trusted(crow, col, edge, None, rows), spread

    return make() if torch.compiler.is_compiling() else _derived.plainly(make)


def _max(x: Tensor, members: Graph, spread: Graph) -> Tensor:
    """The maximum by torch, which has every derivative.

    It starts from NaN, which no maximum equals: where one does torch gives part of its gradient to the start,
    include_self=False or not. ONNX, which has no gradients, knows the start -inf alone.
    """
    index, onnx = spread._col.long()[:, None].expand_as(x), torch.onnx.is_in_onnx_export()
    start = x.new_full((members.num_rows, x.shape[1]), -math.inf if onnx else math.nan)
    y = start.scatter_reduce(0, index, x, "amax", include_self=onnx)
    return torch.where((members._crow.diff() == 0)[:, None], 0, y)


class _Max(torch.autograd.Function):
    """torch's maximum with its own gradient, because torch's costs twenty times as much."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, members: Graph, spread: Graph) -> Tensor:
        y = _max(x, members, spread)
        ctx.save_for_backward(x, y)
        ctx.members, ctx.spread = members, spread
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, y = ctx.saved_tensors
        largest = x.detach() == y.detach().index_select(0, ctx.spread._col)
        # Counted in float32, or float64, which hold every number of rows that there can be up to 2^24.
        count = _sum(ctx.members, largest.to(torch.promote_types(x.dtype, torch.float32)))
        share = (grad / count.clamp(min=1)).to(grad.dtype)
        return torch.where(largest, _sum(ctx.spread, share), 0), None, None


def _sum(graph: Graph, x: Tensor) -> Tensor:
    return spmm(graph, x, norm="none", self_loops=0.0)
