"""What a study of node classification computes with: propagation matrices, the part of the graph that a loss depends on.

The propagation variants of table 3 are all  Z = sum_k T_k X W_k.  T = [T_0 T_1 ...] is kept as one
sparse matrix whose column j K + k is column j of T_k, so that X [W_0 W_1 ...], read as [N K, features],
is multiplied once.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from amstel.apps.graphs.settings import Settings
from amstel.data.nodes import NodeData
from amstel.graph import Graph
from amstel.ops.spmm import spmm


def supports(graph: Graph, model: str) -> list[Tensor]:
    """The matrices T_k of `study` as coalesced torch.sparse_coo tensors [N, N]."""
    index, weight = graph.to_edge_index()
    size, n = (graph.num_rows, graph.num_rows), graph.num_rows
    values = torch.ones(graph.num_edges) if weight is None else weight.float()
    adjacency = torch.sparse_coo_tensor(index.flip(0), values, size, check_invariants=False).coalesce()
    loops = torch.arange(n).expand(2, n)
    identity = torch.sparse_coo_tensor(loops, torch.ones(n), size, is_coalesced=True, check_invariants=False)

    def normalized(matrix: Tensor) -> Tensor:
        row, col = matrix.indices()
        degree = torch.zeros(n).index_add_(0, row, matrix.values())
        scale = torch.where(degree > 0, degree.rsqrt(), 0.0)
        value = matrix.values() * scale[row] * scale[col]
        return torch.sparse_coo_tensor(
            matrix.indices(), value, size, is_coalesced=True, check_invariants=False
        )

    if model == "gcn":
        return [normalized((adjacency + identity).coalesce())]
    if model == "mlp":
        return [identity]
    s = normalized(adjacency)
    if model == "neighbors":
        return [s]
    if model == "single":
        return [(identity + s).coalesce()]
    if model == "first_order":
        return [identity, s]
    chebyshev = [identity, -s]
    for _ in range(2, int(model.removeprefix("cheb")) + 1):
        chebyshev.append((torch.sparse.mm(-2 * s, chebyshev[-1]) - chebyshev[-2]).coalesce())
    return chebyshev


def _csr(coo: Tensor) -> Graph:
    """A coalesced sparse_coo matrix as a Graph with weights."""
    row, col = coo.indices()
    crow = torch.zeros(coo.shape[0] + 1, dtype=torch.int64)
    crow[1:] = torch.bincount(row, minlength=coo.shape[0]).cumsum(0)
    return Graph.from_csr(crow, col, coo.values(), num_cols=coo.shape[1])


def _transpose(graph: Graph) -> Graph:
    """The transposed matrix; its edges keep the order in which those of `graph` were given."""
    return Graph(*graph.transposed(), graph.weight, graph.num_rows)


def _times(graph: Graph, x: Tensor, values: Tensor | None = None) -> Tensor:
    return spmm(graph, x, values, norm="none", self_loops=0.0)


class _Field:
    """The part of the graph and the features that the outputs at `nodes` depend on.

    t2 [nodes, n1 K], t1 [n1, n2 K] and x [n2, F], with n1 the nodes whose hidden layer and n2 those whose
    features matter.
    """

    def __init__(self, together: Tensor, features: Tensor, nodes: Tensor, device: str | torch.device = "cpu"):
        t2, near = self._rows(together, nodes)
        t1, far = self._rows(together, near)
        x = _csr(features.index_select(0, far).coalesce())
        self.values = x.weight
        self.t2, self.t1, self.x = (graph.to(device) for graph in (t2, t1, x))
        self.near, self.far = len(near), len(far)

    @staticmethod
    def _rows(together: Tensor, nodes: Tensor) -> tuple[Graph, Tensor]:
        """The given rows, with the columns of nodes that do not occur in them left out, and those nodes."""
        part = together.index_select(0, nodes).coalesce()
        n = together.shape[0]
        k = together.shape[1] // n
        row, col = part.indices()
        used = torch.zeros(n, dtype=torch.bool)
        used[col // k] = True
        number = used.cumsum(0) - 1
        index = torch.stack([row, number[col // k] * k + col % k])
        size = (len(nodes), int(used.sum()) * k)
        return _csr(
            torch.sparse_coo_tensor(index, part.values(), size, is_coalesced=True, check_invariants=False)
        ), used.nonzero()[:, 0]

    def logits(self, w1: Tensor, w2: Tensor) -> Tensor:
        """Without dropout: w1 [S, F, K h], w2 [S, h, K C] -> [S, nodes, C]."""
        h, c = w2.shape[1], w2.shape[2] * w2.shape[1] // w1.shape[2]
        hidden = _times(self.t1, _times(self.x, w1).view(len(w1), -1, h)).relu_()
        return _times(self.t2, (hidden @ w2).view(len(w1), -1, c))


class _Dropout:
    """Keep-or-drop bits of `size` elements for each of several generators."""

    def __init__(self, rate: float, size: int, generators: list[np.random.Generator]):
        self.rate, self.size, self.generators = rate, size, generators
        words = math.ceil(size / 64)
        self.bits = np.empty((len(generators), words), dtype=np.uint64)
        self.keep = torch.empty(len(generators), size)

    def draw(self, values: Tensor | None = None) -> Tensor:
        """[generators, size]: `values` (or 1) over the keep rate, or 0; overwritten by the next call."""
        if self.rate == 0.5:  # a bit an element
            for row, generator in zip(self.bits, self.generators, strict=True):
                row[:] = generator.bit_generator.random_raw(len(row))
            kept = np.unpackbits(self.bits.view(np.uint8), axis=1, count=self.size)
            self.keep.copy_(torch.from_numpy(kept))
        else:
            for row, generator in zip(self.keep.numpy(), self.generators, strict=True):
                generator.random(out=row, dtype=np.float32)
            torch.ge(self.keep, self.rate, out=self.keep)
        scale = 1 / (1 - self.rate)
        return self.keep.mul_(scale if values is None else values * scale)


class _Problem:
    def __init__(self, data: NodeData, model: str, settings: Settings, device: str | torch.device = "cpu"):
        self.settings, self.device = settings, torch.device(device)
        self.outputs = data.num_classes
        n = data.num_nodes
        matrices = supports(data.graph, model)
        self.supports = len(matrices)
        k = len(matrices)
        index = [torch.stack([m.indices()[0], m.indices()[1] * k + j]) for j, m in enumerate(matrices)]
        self.together = torch.sparse_coo_tensor(
            torch.cat(index, 1),
            torch.cat([m.values() for m in matrices]),
            (n, n * len(matrices)),
            check_invariants=False,
        ).coalesce()
        if data.features is None:
            loops = torch.arange(n).expand(2, n)
            self.features = torch.sparse_coo_tensor(
                loops, torch.ones(n), (n, n), is_coalesced=True, check_invariants=False
            )
        elif data.features.layout == torch.strided:
            self.features = data.features.float().to_sparse()
        else:
            self.features = data.features.float().to_sparse_coo().coalesce()
        self.input_dropout = 0.0 if data.features is None else settings.dropout
        fields = {}
        for part in ("train", "val", "test"):
            nodes = getattr(data, part)
            if len(nodes):
                fields[part] = _Field(self.together, self.features, nodes, self.device)
        self.fields = fields
        self.labels = {part: data.labels[getattr(data, part)].to(self.device) for part in fields}

    def chunk(self) -> int:
        """Enough seeds to hide what a call costs, few enough to stay in the cache."""
        s = self.settings
        floats = 4 * self.features.shape[1] * self.supports * s.hidden + self.fields["train"].x.num_edges
        return max(1, min(16, 2**20 // floats))

    def glorot(self, generator: np.random.Generator, rows: int, cols: int) -> np.ndarray:
        """[rows, supports * cols], each support's matrix with a range of its own (Glorot and Bengio 2010)."""
        limit = math.sqrt(6 / (rows + cols))
        w = generator.uniform(-limit, limit, (self.supports, rows, cols)).astype(np.float32)
        return w.transpose(1, 0, 2).reshape(rows, -1)
