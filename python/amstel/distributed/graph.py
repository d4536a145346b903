"""DistributedGraph: one rank's part of a graph, on which layers of `amstel.nn` give the same results as on the whole."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from amstel import _check
from amstel._derived import factors
from amstel._torch import autocast_dtype
from amstel._words import counted
from amstel.distributed import _collectives as collectives
from amstel.distributed import folder as folders
from amstel.distributed.dropout import key, node_dropout
from amstel.distributed.exchange import Exchange
from amstel.graph import Graph
from amstel.ops._raw import operators
from amstel.ops.spmm import NORMS

#: Bytes of a halo that are in memory at a time, and the fewest columns of which a product is worth while.
ROOM, NARROWEST = 1 << 24, 32


class DistributedGraph:
    """The part of a graph that this rank owns, loaded from a folder written by `amstel.distributed.partition`.

    `amstel.ops.spmm`, `GCNConv`, `ChebConv` and `GCN` accept it instead of a Graph, with the rows of x that this rank
    owns, and return its rows of the result on the whole graph, with the degrees of the whole graph. Gradients flow to
    the owner of each row. All ranks must make the same calls. Each product fetches the rows of the halo from their
    owners while it sums the edges within the part. `dropout` depends on the node and not on the rank, so nothing
    depends on the number of ranks.

    Attributes:
        num_nodes: n, the number of nodes that this rank owns; total_nodes: that of the whole graph.
        nodes: their indices in the graph that was partitioned, int64 [n].
        x: their features [n, F], memory-mapped, or torch.sparse_csr, or None.
        y: their labels [n], or None.
        splits: {name: rows of this rank}; totals: {name: size over all ranks}.
        meta: the contents of meta.json.
        rank, world, group, device: of this part.

    Example:
        >>> data = amstel.data.karate_club()
        >>> meta = amstel.distributed.partition(
        ...     data.graph, 1, "karate", x=torch.eye(34), y=data.labels, splits={"train": data.train})
        >>> graph = amstel.distributed.DistributedGraph.load("karate")     # under torchrun: the part of this rank
        >>> model = amstel.nn.GCN(34, 16, 4)
        >>> rows = graph.splits["train"]
        >>> loss = torch.nn.functional.cross_entropy(model(graph.x, graph)[rows], graph.y[rows], reduction="sum")
        >>> loss = loss / graph.totals["train"]
        >>> loss.backward()
        >>> amstel.distributed.sum_gradients(model)
    """

    def __init__(
        self, part: folders.Part, group: Any = None, device: Any = "cpu", exchange_dtype: Any = None
    ):
        self.meta, self.group, self.device = part.meta, group, torch.device(device)
        self.origin: Path | None = None  # the folder of the data, for whoever knows it
        self.rank, self.world = collectives.place(group)
        arrays = {name: torch.from_numpy(np.asarray(a)) for name, a in part.arrays.items()}
        self.nodes, halo = arrays["nodes"].to(self.device), arrays["halo"].to(self.device)
        n, h = len(self.nodes), len(halo)
        self._own, self._halo = (
            Graph.from_csr(
                arrays[f"{k}_crow"], arrays[f"{k}_col"], arrays.get(f"{k}_weight"), num_cols=size
            ).to(self.device)
            for k, size in (("own", n), ("halo", h))
        )
        self._first = n - self._halo.num_rows  # the first row with an edge from the halo
        self._degree = arrays["degree"].to(self.device)
        self._scales: dict[Any, tuple[Tensor | None, Tensor | None]] = {}
        self.x = arrays.get("x")
        if "x_crow" in arrays:
            crow, col, value = (arrays[f"x_{k}"] for k in ("crow", "col", "value"))
            size = n, self.meta["features"]
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
                self.x = torch.sparse_csr_tensor(crow, col, value, size, check_invariants=False)
        self.y = arrays.get("y")
        self.x, self.y = (None if t is None else t.to(self.device) for t in (self.x, self.y))
        names = self.meta["splits"]
        self.splits: dict[str, Tensor] = {k: arrays[f"split_{k}"].to(self.device) for k in names}
        self.totals: dict[str, int] = dict(names)
        self.halo = halo
        self.exchange = Exchange(halo, self.meta["offsets"], group, exchange_dtype)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        group: Any = None,
        *,
        device: Any = "cpu",
        exchange_dtype: torch.dtype | None = None,
    ) -> DistributedGraph:
        """Load the part of this rank. All ranks must call it together, and an error on one is raised on all.

        Args:
            folder: folder written by `amstel.distributed.partition`, with as many parts as there are ranks.
            group: of torch.distributed; default: all processes, or only this one if no group is initialized.
            device: where to compute; a CUDA device needs a group with NCCL.
            exchange_dtype: dtype in which rows are sent, such as torch.bfloat16; default: unchanged, which is exact.

        Raises:
            FileNotFoundError: the folder or a part is missing.
            ValueError: a part is damaged or belongs to another graph, the ranks read different partitions or have
                different releases of torch, or the number of ranks is not that of the parts.
        """
        rank, world = collectives.place(group)
        with collectives.together(group):
            if exchange_dtype is not None and exchange_dtype not in _check.FLOATS:
                _check.fail("exchange_dtype", "a floating-point dtype or None", exchange_dtype)
            meta = folders.read_meta(folder)
            if meta["parts"] != world:
                raise ValueError(
                    f"{folder} holds {counted(meta['parts'], 'part')}, but there are {counted(world, 'process')}"
                )
            part = folders.read(folder, rank)
        same("the release of torch", str(torch.__version__), group)
        same("the partition", meta["id"], group)
        same("exchange_dtype", str(exchange_dtype), group)
        with collectives.together(group):
            _fits(part)
        return cls(part, group, device, exchange_dtype)

    @property
    def num_nodes(self) -> int:
        """Nodes that this rank owns."""
        return len(self.nodes)

    num_rows = num_cols = num_nodes

    @property
    def total_nodes(self) -> int:
        """Nodes of the whole graph."""
        return self.meta["nodes"]

    def __repr__(self) -> str:
        return (
            f"DistributedGraph(rank {self.rank} of {self.world}, num_nodes={self.num_nodes} of {self.total_nodes}, "
            f"halo={len(self.halo)})"
        )

    # What the layers call

    def spmm(
        self,
        x: Tensor,
        edge_weight: Tensor | None = None,
        *,
        norm: str = "sym",
        self_loops: float = 1.0,
        bias: Tensor | None = None,
        activation: str | None = None,
    ) -> Tensor:
        """This rank's rows of `amstel.ops.spmm` on the whole graph; x [n, F] or [B, n, F] holds this rank's rows.

        Differentiable in x and bias, any number of times. Weights are those that were partitioned: `edge_weight` must
        be None.
        """
        _check.tensor("x", x, f"[{self.num_nodes}, F] or [B, {self.num_nodes}, F]")
        cast = autocast_dtype(x)
        if cast is not None:
            x = x.to(cast)
            bias = None if bias is None else bias.to(x.dtype)
        if x.dtype not in _check.FLOATS or x.dim() not in (2, 3) or x.shape[-2] != self.num_nodes:
            _check.fail("x", f"floating point [{self.num_nodes}, F] or [B, {self.num_nodes}, F]", x)
        if x.device != self._own.device:
            _check.fail("x", f"on {self._own.device} like the graph", x)
        if edge_weight is not None:
            raise ValueError(
                "`edge_weight` must be None on a DistributedGraph, whose weights are in its parts"
            )
        _check.choice("norm", norm, NORMS)
        _check.choice("activation", activation, (None, "relu"))
        self_loops = float(_check.number("self_loops", self_loops))
        y = _Propagate.apply(x, self, norm, self_loops, False)
        if bias is not None:
            y = y + _check.vector("bias", bias, x.shape[-1], x)
        return y.relu() if activation == "relu" else y

    def dropout(self, x: Tensor, rate: float, training: bool = True) -> Tensor:
        """Dropout by node: the same values are dropped for any number of ranks. Torch's generator on rank 0 chooses
        them."""
        if not training or rate == 0:
            return x
        drawn = torch.randint(2**62, (1,)) if self.rank == 0 else torch.zeros(1, dtype=torch.int64)
        seed = key(int(collectives.broadcast(drawn.to(self.device), self.group)))
        return node_dropout(x, rate, self.nodes, seed)

    def edges(self) -> tuple[Tensor, Tensor]:
        """The edges into this rank's nodes: index [2, E] of row and source (new numbering), and weights or ones [E]."""
        index, values = [], []
        begin = self.meta["offsets"][self.rank]
        for graph, first, number in (
            (self._own, 0, begin + torch.arange(self.num_nodes, device=self.device)),
            (self._halo, self._first, self.halo),
        ):
            row = torch.repeat_interleave(
                torch.arange(graph.num_rows, device=self.device), graph._crow.diff().long()
            )
            index.append(torch.stack([row + first, number[graph._col.long()]]))
            weight = graph._weight
            values.append(self._degree.new_ones(graph.num_edges) if weight is None else weight)
        return torch.cat(index, 1), torch.cat(values)

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all ranks in the order of the graph that was partitioned: [n, ...] -> [N, ...], on every rank."""
        parts = collectives.gather((self.nodes.cpu(), rows.detach().cpu()), self.group)
        whole = rows.new_empty(self.total_nodes, *rows.shape[1:], device="cpu")
        for nodes, values in parts:
            whole[nodes] = values
        return whole.to(rows.device)

    # What is computed

    def _factors(
        self, norm: str, self_loops: float, dtype: torch.dtype
    ) -> tuple[Tensor | None, Tensor | None]:
        """Row and column factors of own and halo nodes, by the degrees in the whole graph."""
        dtype = torch.float64 if dtype == torch.float64 else torch.float32
        where = (norm, self_loops, dtype)
        if where not in self._scales:
            degree = self._degree.to(dtype)
            self._scales[where] = factors(norm, lambda out: degree[int(out)] + self_loops)
        return self._scales[where]

    def _product(self, x: Tensor, norm: str, self_loops: float, adjoint: bool) -> Tensor:
        """The product, or its transpose, beneath autograd."""
        row, col = self._factors(norm, self_loops, x.dtype)
        n, first = self.num_nodes, self._first
        col_halo = None if col is None else col[n:].contiguous()
        row, col = (None if t is None else t[:n].contiguous() for t in (row, col))
        row_halo = None if row is None else row[first:].contiguous()

        def times(graph: Graph, h: Tensor, left: Any, right: Any, loops: float) -> Tensor:
            crow, column, _ = graph._transpose() if adjoint else (graph._crow, graph._col, None)
            weight = graph._values(x.dtype, transposed=adjoint) if graph.has_weight else None
            return operators.spmm(crow, column, None, weight, h, left, right, loops, None, False, False)

        panels = self._panels(x)
        if not adjoint:
            pending = self.exchange.start(x[..., panels[0]])
            y = times(self._own, x, row, col, self_loops)
            for number, panel in enumerate(panels):
                halo = self.exchange.finish(pending).contiguous()
                pending = self.exchange.start(x[..., panels[number + 1]]) if panel != panels[-1] else None
                y[..., first:, panel] += times(self._halo, halo, row_halo, col_halo, 0.0)
            return y
        for number, panel in enumerate(panels):
            halo = times(self._halo, x[..., first:, panel].contiguous(), col_halo, row_halo, 0.0)
            pending = self.exchange.start(halo, adjoint=True)
            del halo
            if number == 0:
                y = times(self._own, x, col, row, self_loops)
            y[..., panel] += self.exchange.finish(pending)
        return y

    def _panels(self, x: Tensor) -> list[slice]:
        """Columns that travel together: all, unless their halo is large. The same on all ranks."""
        width = x.shape[-1]
        bytes_a_column = max(self.meta["halo"]) * x.shape[:-2].numel() * x.element_size()
        most = max(NARROWEST, ROOM // max(bytes_a_column, 1))
        return [slice(k, min(k + most, width)) for k in range(0, width, most)] or [slice(0, 0)]


class _Propagate(torch.autograd.Function):
    """The product is linear, so its gradient is its transpose, and the gradient of that the product again."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, graph: DistributedGraph, norm: str, self_loops: float, adjoint: bool
    ) -> Tensor:
        ctx.how = graph, norm, self_loops, adjoint
        return graph._product(x.contiguous(), norm, self_loops, adjoint)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        graph, norm, self_loops, adjoint = ctx.how
        return _Propagate.apply(grad, graph, norm, self_loops, not adjoint), None, None, None, None


def _fits(part: folders.Part) -> None:
    """Whether the arrays of a part belong together, beyond what `Graph` checks."""
    a, meta = part.arrays, part.meta
    n, h, offsets = len(a["nodes"]), len(a["halo"]), meta["offsets"]
    own = range(offsets[part.number], offsets[part.number + 1])
    wrong = n != len(own) or a["degree"].shape != (2, n + h) or len(a["own_crow"]) != n + 1
    halo = a["halo"]
    wrong |= not len(a["halo_crow"]) - 1 <= n or bool(((halo >= own.start) & (halo < own.stop)).any())
    if wrong:
        raise ValueError(
            f"part {part.number} of {meta['parts']} is damaged: its arrays do not fit each other"
        )
    for name, wrong in _wrong(a, meta, n):
        if wrong:
            raise ValueError(
                f"part {part.number} of {meta['parts']} is damaged: {name}.npy holds wrong values"
            )


def _wrong(a: dict[str, np.ndarray], meta: dict[str, Any], n: int) -> Iterator[tuple[str, bool]]:
    """For the arrays whose values computations go by: the name, and whether one of them cannot be."""
    yield "nodes", not _within(a["nodes"], meta["nodes"]) or len(np.unique(a["nodes"])) != n
    yield "degree", not (np.isfinite(a["degree"]).all() and (a["degree"] >= 0).all())
    for name in (f"split_{split}" for split in meta["splits"]):
        rows = a.get(name)
        yield name, rows is None or not _within(rows, n) or bool((np.diff(rows) <= 0).any())
    y = a.get("y")
    if y is not None:
        labels = y.dtype.kind == "i"
        yield "y", len(y) != n or bool(labels and y.size and y.max() >= meta["classes"])
    if "x_crow" in a:
        values, size = a.get("x_value", np.empty(0, int)), meta["features"]
        wrong = values.dtype.kind != "f" or len(a["x_crow"]) != n + 1
        yield "x_value", wrong or type(size) is not int or len(values) != len(a["x_col"])
        try:
            Graph.from_csr(torch.from_numpy(a["x_crow"]), torch.from_numpy(a["x_col"]), num_cols=size)
        except ValueError:
            yield "x_crow or x_col", True


def _within(numbers: np.ndarray, end: int) -> bool:
    return numbers.dtype.kind == "i" and (
        not numbers.size or bool(numbers.min() >= 0 and numbers.max() < end)
    )


def same(what: str, value: Any, group: Any = None) -> None:
    """ValueError in every rank where the ranks disagree about `value`."""
    found = collectives.gather(value, group)
    for rank, other in enumerate(found):
        if other != found[0]:
            raise ValueError(
                f"the ranks disagree about {what}: rank 0 has {found[0]}, rank {rank} has {other}"
            )


def sum_gradients(model: nn.Module | Iterable[Tensor], group: Any = None) -> None:
    """Sum the gradients over all ranks, with one message per dtype. Each rank must have the gradient of its share of the
    total loss.

    Args:
        model: a module or its parameters; the same ones must have gradients on all ranks.
        group: of torch.distributed; default: all processes.

    Raises:
        TypeError: `model` is neither.

    Example: one process, whose share is the whole sum.
        >>> model = torch.nn.Linear(2, 1)
        >>> model(torch.ones(3, 2)).sum().backward()
        >>> amstel.distributed.sum_gradients(model)
        >>> model.weight.grad
        tensor([[3., 3.]])
    """
    # The rows of one parameter have no gradients of their own.
    if isinstance(model, Tensor) or not isinstance(model, (nn.Module, Iterable)):
        _check.fail_type("model", "a torch.nn.Module or a list of parameters", model)
    parameters = list(model.parameters() if isinstance(model, nn.Module) else model)
    for number, p in enumerate(parameters):
        _check.tensor(f"model[{number}]", p, "a parameter")
    grads = [p.grad for p in parameters if p.grad is not None]
    for dtype in dict.fromkeys(g.dtype for g in grads):
        some = [g for g in grads if g.dtype == dtype]
        flat = collectives.all_reduce(torch.cat([g.reshape(-1) for g in some]), group)
        for grad, total in zip(some, flat.split([g.numel() for g in some]), strict=True):
            grad.copy_(total.view_as(grad))
