"""Exchange: fetch rows, by index, of a tensor that is distributed over the ranks; and the transpose of that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from amstel import _check
from amstel._words import counted
from amstel.distributed import _collectives as collectives
from amstel.graph import Graph
from amstel.ops.spmm import spmm


class Exchange:
    """Fetch rows that other ranks own: ``y = x_all[wanted]``, where every rank holds some rows of x_all.

    The rows are ordered by rank: rank r has those from offsets[r] to offsets[r + 1]. What each rank needs from the others
    is determined once, by all ranks together, when the exchange is created.

    Args:
        wanted: int64 vector of the indices of the rows that this rank needs, ascending.
        offsets: where the rows of each rank begin, and the end: world + 1 numbers.
        group: of torch.distributed; default: all processes. Without torch.distributed, there is only one process.
        dtype: dtype in which floating-point rows are sent, such as torch.bfloat16; None sends them unchanged.

    exchange(x): x [n, F] or [B, n, F], the own rows -> [m, F] or [B, m, F], those of `wanted`. Differentiable any number
    of times; the gradient is `exchange.adjoint`, which adds up the contributions of all ranks, always in the same order.

    Raises:
        ValueError: `wanted` is not ascending or out of range, or the ranks number other than the offsets.
        ConnectionError: another rank is gone.

    Example:
        >>> exchange = amstel.distributed.Exchange(torch.tensor([0, 2]), [0, 3])
        >>> exchange(torch.eye(3))
        tensor([[1., 0., 0.],
                [0., 0., 1.]])
    """

    def __init__(
        self,
        wanted: Tensor,
        offsets: Sequence[int],
        group: Any = None,
        dtype: torch.dtype | None = None,
    ):
        _check.tensor("wanted", wanted, "an int64 vector")
        rank, world = collectives.place(group)
        bounds = torch.tensor(list(offsets), device=wanted.device)
        with collectives.together(group):
            if len(bounds) != world + 1:
                _check.fail(
                    "offsets", f"{counted(world + 1, 'number')} for {counted(world, 'rank')}", list(offsets)
                )
            ascending = wanted.numel() == 0 or bool((wanted.diff() > 0).all())
            if wanted.dim() != 1 or wanted.dtype != torch.int64 or not ascending:
                _check.fail("wanted", "an ascending int64 vector", wanted)
            if wanted.numel() and not 0 <= int(wanted[0]) <= int(wanted[-1]) < int(bounds[-1]):
                _check.fail("wanted", f"row indices from 0 to {int(bounds[-1]) - 1}", wanted)
        self.group, self.dtype = group, dtype
        self.own = int(bounds[rank + 1] - bounds[rank])
        receive = torch.searchsorted(wanted, bounds).diff()
        one = [1] * world
        send = collectives.all_to_all(receive, one, one, group).wait()
        self._receive, self._send = receive.tolist(), send.tolist()
        asked = collectives.all_to_all(wanted, self._receive, self._send, group).wait()
        self.index = asked - bounds[rank]
        self._settle()

    def _settle(self) -> None:
        # Row i of this matrix collects what came back for own row i.
        order = self.index.argsort(stable=True)
        crow = self.index.new_zeros(self.own + 1)
        crow[1:] = torch.bincount(self.index, minlength=self.own).cumsum(0)
        self._sum = Graph.from_csr(crow, order, num_cols=len(order))

    def compact(self) -> Tensor:
        """Let x hold only those of this rank's rows that some rank needs; returns their indices among all its rows."""
        rows, self.index = self.index.unique(return_inverse=True)
        self.own = len(rows)
        self._settle()
        return rows

    def __call__(self, x: Tensor) -> Tensor:
        return _Fetch.apply(x, self, False)

    def adjoint(self, y: Tensor) -> Tensor:
        """The transpose: y [m, F] or [B, m, F] -> [n, F] or [B, n, F], sums over all ranks that fetched a row."""
        return _Fetch.apply(y, self, True)

    def start(self, x: Tensor, adjoint: bool = False) -> Any:
        """Begin an exchange; `finish` ends it, and computations in between overlap with it. No gradients."""
        rows = x if adjoint else x.index_select(-2, self.index)
        if self.dtype is not None and rows.is_floating_point():
            rows = rows.to(self.dtype)
        shape = rows.shape[:-2] + rows.shape[-1:]
        flat = rows.movedim(-2, 0).reshape(rows.shape[-2], shape.numel())
        send, receive = (self._receive, self._send) if adjoint else (self._send, self._receive)
        return collectives.all_to_all(flat, send, receive, self.group), shape, x.dtype, adjoint

    def finish(self, pending: Any) -> Tensor:
        """The result of an exchange that `start` began."""
        work, shape, dtype, adjoint = pending
        rows = work.wait().to(dtype)
        rows = rows.view(len(rows), *shape).movedim(0, -2)
        return spmm(self._sum, rows.contiguous(), norm="none", self_loops=0.0) if adjoint else rows

    def rows(self, crow: Tensor, col: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of a sparse matrix: CSR of this rank's rows -> CSR of the rows in `wanted`."""
        count = crow.diff()[self.index]
        lengths = collectives.all_to_all(count, self._send, self._receive, self.group).wait()
        send = [int(part.sum()) for part in count.split(self._send)]
        receive = [int(part.sum()) for part in lengths.split(self._receive)]
        slot = torch.repeat_interleave(crow[self.index] - (count.cumsum(0) - count), count)
        slot += torch.arange(len(slot), device=slot.device)
        parts = [collectives.all_to_all(t[slot], send, receive, self.group).wait() for t in (col, value)]
        ends = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        return ends, parts[0], parts[1]


class _Fetch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, exchange: Exchange, adjoint: bool) -> Tensor:
        ctx.exchange, ctx.adjoint = exchange, adjoint
        return exchange.finish(exchange.start(x, adjoint))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _Fetch.apply(grad, ctx.exchange, not ctx.adjoint), None, None
