"""Kipf & Welling's semi-supervised node classification, many seeds at a time.

Two exact identities make a study of a hundred seeds a matter of seconds.

The loss sees only the training nodes, so a two-layer model needs the hidden layer only at their
neighbours and the features only at the neighbours of those. `_Field` cuts the propagation matrices and
the features down to these rows; the rest of the graph takes part when the accuracy is measured.

Every seed has its own weights and its own dropout, and all of them share the structure. The seeds of a
chunk lie along a batch axis, so that one SpMM a step serves them all, and a seed's arrays fit in the
cache of the core that works on it. Dropped features are zeros among the values of one block-diagonal
sparse matrix, one block a seed.

The propagation variants of table 3 are all  Z = sum_k T_k X W_k.  T = [T_0 T_1 ...] is kept as one
sparse matrix whose column j K + k is column j of T_k, so that X [W_0 W_1 ...], read as [N K, features],
is multiplied once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import Tensor

from amstel import _check
from amstel.apps.graphs.settings import MODELS as MODELS
from amstel.apps.graphs.settings import STOPPING as STOPPING
from amstel.apps.graphs.settings import Settings as Settings
from amstel.data.nodes import NodeData
from amstel.graph import Graph
from amstel.ops.spmm import spmm


@dataclass
class Study:
    """What `study` found: one entry a seed in `accuracy` (share of test nodes, 0 to 1) and `epochs`."""

    dataset: str
    model: str
    settings: Settings
    seeds: list[int]
    accuracy: list[float] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def mean(self) -> float:
        return float(np.mean(self.accuracy))

    @property
    def std(self) -> float:
        return float(np.std(self.accuracy))

    def to_json(self) -> dict[str, object]:
        """The form that `amstel gcn --json` writes; `seeds` is their number."""
        return {
            "dataset": self.dataset,
            "model": self.model,
            "seeds": len(self.seeds),
            "accuracy": self.accuracy,
            "mean": self.mean,
            "std": self.std,
            "first_seed": self.seeds[0],
            "epochs_run": self.epochs,
            "settings": asdict(self.settings),
            "tested": "weights of the last epoch",
            "seconds": self.seconds,
        }


def study(
    data: NodeData,
    model: str = "gcn",
    seeds: Sequence[int] = range(100),
    settings: Settings | None = None,
    progress: Callable[[int], None] | None = None,
    chunk: int | None = None,
) -> Study:
    r"""Train a two-layer model once for every seed and measure its accuracy on the test nodes.

    Z = softmax(sum_k T_k dropout(H) W1_k),  H = relu(sum_k T_k dropout(X) W0_k), no bias, with the T_k of
    table 3 in the paper (S = D^-1/2 A D^-1/2):

    ==============  ===========================================  ============================
    model           T_0, T_1, ...                                row of the table
    ==============  ===========================================  ============================
    "gcn"           (D + I)^-1/2 (A + I) (D + I)^-1/2            renormalisation trick, eq. 9
    "cheb2", 3      T_k(L̃), k = 0..2 or 3, L̃ = -S (λ_max = 2)    Chebyshev filter, eq. 5
    "first_order"   I, S                                         first-order model, eq. 6
    "single"        I + S                                        single parameter, eq. 7
    "neighbours"    S                                            first-order term only
    "mlp"           I                                            multi-layer perceptron
    ==============  ===========================================  ============================

    Each seed is a run of its own: own Glorot weights, own dropout masks, from its own generator, so that a
    seed's result depends neither on the others nor on `chunk`.

    Args:
        data: the problem; without features X = I, which is not dropped out.
        model: see above.
        seeds: integers >= 0.
        settings: default: the paper's for this data set.
        progress: called with the number of (seed, epoch) pairs done since the last call.
        chunk: seeds trained together; by default as many as pay.

    Source: T. N. Kipf and M. Welling, Semi-Supervised Classification with Graph Convolutional Networks,
    ICLR 2017, sections 2, 3 and 5; the details follow the code published with it.

    Example:
        >>> data = amstel.data.block_model(nodes=400)
        >>> result = amstel.apps.graphs.train.study(data, seeds=range(4))
        >>> len(result.accuracy), result.mean > 0.5
        (4, True)
    """
    if not isinstance(data, NodeData):
        raise TypeError(f"`data` must be an amstel.data.NodeData, got {_check.describe(data)}")
    if model not in MODELS:
        _check.fail("model", f"one of {', '.join(MODELS)}", model)
    settings = settings or Settings.for_data(data.name)
    seeds = [int(seed) for seed in seeds]
    if not seeds or min(seeds) < 0:
        _check.fail("seeds", "one or more integers >= 0", seeds)
    if settings.early_stopping != "none" and not len(data.val):
        raise ValueError(f"early stopping needs validation nodes, and {data!r} has none")
    result = Study(data.name, model, settings, seeds)
    start = time.perf_counter()
    problem = _Problem(data, model, settings)
    for begin in range(0, len(seeds), size := chunk or problem.chunk()):
        accuracy, epochs = problem.train(seeds[begin : begin + size], progress or (lambda done: None))
        result.accuracy += accuracy
        result.epochs += epochs
    result.seconds = time.perf_counter() - start
    return result


def supports(graph: Graph, model: str) -> list[Tensor]:
    """The matrices T_k of `study` as coalesced torch.sparse_coo tensors [N, N]."""
    index, weight = graph.to_edge_index()
    size, n = (graph.num_rows, graph.num_rows), graph.num_rows
    values = torch.ones(graph.num_edges) if weight is None else weight.float()
    adjacency = torch.sparse_coo_tensor(index.flip(0), values, size, check_invariants=False).coalesce()
    loops = torch.arange(n).expand(2, n)
    identity = torch.sparse_coo_tensor(loops, torch.ones(n), size, is_coalesced=True, check_invariants=False)

    def normalised(matrix: Tensor) -> Tensor:
        row, col = matrix.indices()
        degree = torch.zeros(n).index_add_(0, row, matrix.values())
        scale = torch.where(degree > 0, degree.rsqrt(), 0.0)
        value = matrix.values() * scale[row] * scale[col]
        return torch.sparse_coo_tensor(
            matrix.indices(), value, size, is_coalesced=True, check_invariants=False
        )

    if model == "gcn":
        return [normalised((adjacency + identity).coalesce())]
    if model == "mlp":
        return [identity]
    s = normalised(adjacency)
    if model == "neighbours":
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

    def __init__(self, together: Tensor, features: Tensor, nodes: Tensor):
        self.t2, near = self._rows(together, nodes)
        self.t1, far = self._rows(together, near)
        self.x = _csr(features.index_select(0, far).coalesce())
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
    def __init__(self, data: NodeData, model: str, settings: Settings):
        self.settings = settings
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
            if part != "val" or settings.early_stopping != "none":
                fields[part] = _Field(self.together, self.features, nodes)
        self.fields = fields
        self.labels = {part: data.labels[getattr(data, part)] for part in fields}

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

    def train(self, seeds: list[int], progress: Callable[[int], None]) -> tuple[list[float], list[int]]:
        s, part = self.settings, self.fields["train"]
        count, inputs, k = len(seeds), self.features.shape[1], self.supports
        generators = [np.random.Generator(np.random.SFC64(seed)) for seed in seeds]
        first = [self.glorot(g, inputs, s.hidden) for g in generators]
        second = [self.glorot(g, s.hidden, self.outputs) for g in generators]
        w1, w2 = (torch.from_numpy(np.stack(w)).requires_grad_() for w in (first, second))
        w1.grad, w2.grad = torch.empty_like(w1), torch.empty_like(w2)
        # The l2_loss of the published code is half the sum of squares, which is what weight_decay means here.
        groups: list[dict] = [{"params": [w1], "weight_decay": s.weight_decay}, {"params": [w2]}]
        adam = torch.optim.Adam(groups, lr=s.learning_rate, fused=True)
        stopping = _EarlyStopping(self, w1, w2)

        # One block of features a seed, so that each has its own dropped values.
        edges, nodes = part.x.num_edges, part.far
        block = torch.arange(count)[:, None]
        crow = torch.cat([(part.x.crow[:-1] + block * edges).flatten(), torch.tensor([count * edges])])
        col = (part.x.col + block * inputs).flatten()
        x = Graph.from_csr(crow, col, num_cols=count * inputs)
        x_t, t1_t, t2_t = _transpose(x), _transpose(part.t1), _transpose(part.t2)
        value = part.x.weight
        assert value is not None
        input_dropout = _Dropout(self.input_dropout, edges, generators)
        dropout = _Dropout(s.dropout, part.near * s.hidden, generators)
        target = self.labels["train"].repeat(count)
        every = torch.arange(len(target))

        with torch.no_grad():
            for epoch in range(s.epochs):
                kept = input_dropout.draw(value).flatten()
                mask = dropout.draw().view(count, part.near, s.hidden)
                product = _times(x, w1.view(count * inputs, -1), kept)
                hidden = _times(part.t1, product.view(count, nodes * k, s.hidden))
                # The factor of both relu and dropout, which is its own gradient.
                mask *= hidden > 0
                hidden *= mask
                logits = _times(part.t2, torch.bmm(hidden, w2).view(count, part.near * k, -1))

                # Gradient of the mean cross-entropy: softmax - one-hot, over the number of nodes.
                grad = logits.softmax(-1)
                grad.view(-1, self.outputs)[every, target] -= 1
                grad /= logits.shape[1]
                grad = _times(t2_t, grad).view(count, part.near, -1)
                torch.bmm(hidden.mT, grad, out=w2.grad)
                grad = torch.bmm(grad, w2.mT).mul_(mask)
                grad = _times(t1_t, grad).view(count * nodes, -1)
                w1.grad = _times(x_t, grad, kept).view_as(w1)
                # TensorFlow adds its epsilon before it corrects the bias of the second moment.
                for group in adam.param_groups:
                    group["eps"] = 1e-8 / math.sqrt(1 - 0.999 ** (epoch + 1))
                adam.step()
                progress(count)
                if stopping.all_stopped():
                    break
            w1, w2 = stopping.weights()
            found = self.fields["test"].logits(w1, w2).argmax(-1) == self.labels["test"]
        return found.double().mean(-1).tolist(), stopping.epochs.tolist()


class _EarlyStopping:
    """Keeps the weights of each seed as they were in its last epoch."""

    def __init__(self, problem: _Problem, w1: Tensor, w2: Tensor):
        self.problem, self.current = problem, (w1, w2)
        self.rule = problem.settings.early_stopping
        self.kept = (w1, w2) if self.rule == "none" else (w1.detach().clone(), w2.detach().clone())
        self.epochs = torch.zeros(len(w1), dtype=torch.int64)
        self.running = torch.ones(len(w1), dtype=torch.bool)
        self.costs: list[Tensor] = []

    def all_stopped(self) -> bool:
        """After every epoch: whether no seed runs any more."""
        self.epochs += self.running
        if self.rule == "none":
            return False
        w1, w2 = self.current
        settings, labels = self.problem.settings, self.problem.labels["val"]
        logits = self.problem.fields["val"].logits(w1, w2)
        target = labels.expand(len(w1), -1)
        cost = torch.nn.functional.cross_entropy(logits.mT, target, reduction="none").mean(-1)
        if self.rule == "kipf":
            cost += settings.weight_decay / 2 * w1.square().sum((1, 2))
        self.costs.append(cost)
        for kept, now in zip(self.kept, self.current, strict=True):
            kept[self.running] = now[self.running]
        if len(self.costs) > settings.patience + 1:
            before = torch.stack(self.costs[-settings.patience - 1 : -1]).mean(0)
            self.running &= cost <= before
        return not bool(self.running.any())

    def weights(self) -> tuple[Tensor, Tensor]:
        return self.kept
