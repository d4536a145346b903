"""Node features, sparse or dense, and their products with the weights of the first layer."""

from __future__ import annotations

import torch
from torch import Tensor

from amstel import _check
from amstel.graph import Graph
from amstel.ops.spmm import spmm


def check_features(
    name: str, features: Tensor | None, dtype: torch.dtype = torch.float32, nodes: Tensor | None = None
) -> None:
    """ValueError for features without columns, or with a number that is not finite in `dtype`, the network's.

    Their logits would be NaN, of which argmax makes a class. `nodes` are the numbers of the rows in the whole graph.
    """
    if features is None:
        return
    if not features.shape[1]:
        raise ValueError(f"the features of {name} must have one or more columns, got {list(features.shape)}")
    row, values = None, features.detach()
    if values.layout != torch.strided:
        coo = values.to_sparse_coo().coalesce()
        row, values = coo.indices()[0], coo.values()
    begin = 0
    # In blocks, because they may be mapped, and larger than the memory.
    for block in values.split(max(1, 2**22 // (features.shape[1] if row is None else 1))):
        wrong = ~block.to(dtype).isfinite()
        if bool(wrong.any()):
            place = wrong.nonzero()[0]
            number = begin + int(place[0])
            number = number if row is None else int(row[number])
            raise ValueError(
                f"the features of {name} must be finite numbers of {_check.name(dtype)}, "
                f"got {block[tuple(place)].item()} in row {number if nodes is None else int(nodes[number])}"
            )
        begin += len(block)


def csr(coo: Tensor) -> Graph:
    """A coalesced sparse_coo matrix as a Graph with weights."""
    row, col = coo.indices()
    crow = torch.zeros(coo.shape[0] + 1, dtype=torch.int64)
    crow[1:] = torch.bincount(row, minlength=coo.shape[0]).cumsum(0)
    return Graph.from_csr(crow, col, coo.values(), num_cols=coo.shape[1])


def transpose(graph: Graph) -> Graph:
    """The transposed matrix; its edges keep the order of those in `graph`."""
    return Graph(*graph.transposed(), graph.weight, graph.num_rows)


def times(graph: Graph, x: Tensor, values: Tensor | None = None) -> Tensor:
    """The plain product."""
    return spmm(graph, x, values, norm="none", self_loops=0.0)


def rows_of(features: Tensor, nodes: Tensor, device: torch.device) -> SparseRows | DenseRows:
    """The rows of some nodes."""
    if features.layout != torch.strided:
        return SparseRows(csr(features.index_select(0, nodes).coalesce()).to(device))
    every = len(nodes) == len(features) and torch.equal(nodes, torch.arange(len(nodes)))
    return DenseRows((features if every else features.index_select(0, nodes)).float().to(device))


class SparseRows:
    """Rows of a sparse matrix. `values` are the entries that dropout acts on, `sizes` their number per row."""

    def __init__(self, graph: Graph):
        self.graph, self.entries = graph, graph.num_edges
        weight = graph.weight
        assert weight is not None
        self.values, self.sizes = weight, graph.crow.diff()

    def product(self, w: Tensor) -> Tensor:
        """Times w [S, F, C]: [S, n, C]."""
        return times(self.graph, w)

    def copies(self, count: int) -> _SparseCopies:
        """For this many seeds, each with its own values."""
        return _SparseCopies(self.graph, count)


class _SparseCopies:
    def __init__(self, graph: Graph, count: int):
        # One block per seed.
        device, inputs, edges = graph.device, graph.num_cols, graph.num_edges
        block = torch.arange(count, device=device)[:, None]
        last = torch.tensor([count * edges], device=device)
        crow = torch.cat([(graph.crow[:-1] + block * edges).flatten(), last])
        col = (graph.col + block * inputs).flatten()
        self.x = Graph.from_csr(crow, col, num_cols=count * inputs)
        self.x_t = transpose(self.x)

    def product(self, w: Tensor, values: Tensor) -> Tensor:
        """Rows with these values [S, entries], times w [S, F, C]: [S, n, C]."""
        return times(self.x, w.view(len(w) * w.shape[1], -1), values.flatten()).view(len(w), -1, w.shape[2])

    def gradient(self, grad: Tensor, values: Tensor) -> Tensor:
        """The gradient of w, from that of the product."""
        found = times(self.x_t, grad.reshape(-1, grad.shape[2]), values.flatten())
        return found.view(len(grad), -1, grad.shape[2])


class DenseRows:
    """Rows of a dense matrix, the same."""

    def __init__(self, x: Tensor):
        self.x, self.entries = x, x.numel()
        self.values, self.sizes = x.reshape(-1), x.shape[1]

    def product(self, w: Tensor) -> Tensor:
        """Times w [S, F, C]: [S, n, C]."""
        return self.x @ w

    def copies(self, count: int) -> _DenseCopies:
        """For so many seeds; `product` and `gradient` take their values."""
        return _DenseCopies(self.x)


class _DenseCopies:
    def __init__(self, x: Tensor):
        self.x = x

    def product(self, w: Tensor, values: Tensor) -> Tensor:
        """Rows with these values [S, entries], times w [S, F, C]: [S, n, C]."""
        return values.view(len(w), *self.x.shape) @ w

    def gradient(self, grad: Tensor, values: Tensor) -> Tensor:
        """The gradient of w, from that of the product."""
        return values.view(len(grad), *self.x.shape).mT @ grad
