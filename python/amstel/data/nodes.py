"""NodeData: a graph with features, labels and a split, the input of node classification."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amstel import _check
from amstel.graph import Graph


@dataclass(repr=False, eq=False)
class NodeData:
    """One node-classification problem.

    Attributes:
        name: what to call it.
        graph: symmetric `Graph` of N nodes.
        features: torch.sparse_csr, sparse_coo or dense [N, F], floating point, or None for X = I.
        labels: int64 [N], -1 where unknown.
        train, val, test: int64 vectors of distinct node indices; labels of the first two are known, and `val` may be
            empty.
        num_classes: number of classes.

    Raises:
        ValueError or TypeError: a part is not as described.

    Example:
        >>> graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
        >>> one, two, three = torch.tensor([[0], [1], [2]])
        >>> data = amstel.data.NodeData("path", graph, torch.eye(3), torch.tensor([0, 1, 0]), one, two, three, 2)
        >>> data.labels[data.test]
        tensor([0])
    """

    name: str
    graph: Graph
    features: Tensor | None
    labels: Tensor
    train: Tensor
    val: Tensor
    test: Tensor
    num_classes: int

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            _check.fail_type("name", "a string", self.name)
        if not isinstance(self.graph, Graph):
            _check.fail_type("graph", "an amstel.Graph", self.graph)
        if not self.graph.is_square:
            _check.fail("graph", "a Graph of as many sources as targets", self.graph)
        nodes = self.graph.num_nodes
        self.num_classes = _check.integer("num_classes", self.num_classes, 0)
        if self.features is not None:
            expected = f"a floating-point tensor [{nodes}, F], dense, sparse_csr or sparse_coo"
            found = _check.tensor("features", self.features, expected)
            if (
                found.dim() != 2
                or found.shape[0] != nodes
                or found.dtype not in _check.FLOATS
                or found.layout not in (torch.strided, torch.sparse_csr, torch.sparse_coo)
            ):
                _check.fail("features", expected, found)
        _numbers("labels", self.labels, -1, self.num_classes, "classes from -1 (unknown)")
        if self.labels.numel() != nodes:
            _check.fail("labels", f"[{nodes}]", self.labels)
        seen = torch.zeros(nodes, dtype=torch.bool, device=self.labels.device)
        for name in ("train", "val", "test"):
            part = getattr(self, name)
            if isinstance(part, Tensor) and part.device != self.labels.device:
                _check.fail(name, f"on {self.labels.device} like the labels", part)
            _numbers(name, part, 0, nodes, "node numbers from 0")
            if name != "test":  # whose labels somebody may keep secret
                _first(name, part, self.labels[part] < 0, "nodes whose class is known")
            _first(name, part, seen[part], "nodes of no other part (train, val, test)")
            seen[part] = True
            if len(part.unique()) != len(part):
                first, counts = part.unique(return_counts=True)
                raise ValueError(
                    f"`{name}` must name a node once, got {int(first[counts > 1][0])} more than once"
                )

    @property
    def num_nodes(self) -> int:
        """Nodes of the graph."""
        return self.graph.num_nodes

    @property
    def num_features(self) -> int:
        """F, which is N without features."""
        return self.num_nodes if self.features is None else self.features.shape[1]

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.name}, num_nodes={self.num_nodes}, "
            f"num_edges={self.graph.num_edges}, num_features={self.num_features}, "
            f"num_classes={self.num_classes})"
        )


def _first(name: str, part: Tensor, wrong: Tensor, what: str) -> None:
    if bool(wrong.any()):
        k = int(wrong.nonzero()[0])
        raise ValueError(f"`{name}` must hold {what}, got {int(part[k])} at position {k}")


def _numbers(name: str, value: Any, least: int, end: int, what: str) -> None:
    expected = f"an int64 vector of {what} to {end - 1}"
    _check.tensor(name, value, expected)
    if value.dim() != 1 or value.dtype != torch.int64 or value.layout != torch.strided:
        _check.fail(name, expected, value)
    wrong = ((value < least) | (value >= end)).nonzero()
    if len(wrong):
        k = int(wrong[0])
        raise ValueError(f"`{name}` must be {expected}, got {int(value[k])} at position {k}")


def sparse_csr(row: np.ndarray, col: np.ndarray, value: np.ndarray, shape: tuple[int, int]) -> Tensor:
    """A torch.sparse_csr tensor from triples in any order; those at the same place add up."""
    index = torch.from_numpy(np.stack([row, col]).astype(np.int64))
    coo = torch.sparse_coo_tensor(index, torch.from_numpy(value), shape, check_invariants=False)
    return as_csr(coo.coalesce())


def as_csr(x: Tensor) -> Tensor:
    """`x.to_sparse_csr()` without torch's warning that this layout is new."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return x.to_sparse_csr()


def karate_club() -> NodeData:
    """Zachary's karate club, 34 members, with the four groups of Kipf & Welling's appendix A.1.

    The groups are those found by modularity-based clustering. One member per group is for training and all others for
    testing; there are no features. Needs NetworkX, which comes with torch.

    Source: W. W. Zachary, Journal of Anthropological Research 33(4), 1977; groups: U. Brandes et al., On
    modularity clustering, 2008.

    Example:
        >>> amstel.data.karate_club()
        NodeData(karate club, num_nodes=34, num_edges=156, num_features=34, num_classes=4)
    """
    import networkx as nx

    club = nx.karate_club_graph()
    graph = Graph.from_edge_index(Graph.from_networkx(club).to_edge_index()[0], num_nodes=34)
    # Member 1 and others of the modularity classes as in Perozzi et al., DeepWalk, figure 1.
    groups = [
        (0, 1, 2, 3, 7, 11, 12, 13, 17, 19, 21),
        (4, 5, 6, 10, 16),
        (8, 9, 14, 15, 18, 20, 22, 26, 29, 30, 32, 33),
        (23, 24, 25, 27, 28, 31),
    ]
    labels = torch.empty(34, dtype=torch.int64)
    for label, members in enumerate(groups):
        labels[list(members)] = label
    train = torch.tensor([0, 4, 33, 24])
    test = torch.tensor([i for i in range(34) if i not in train.tolist()])
    return NodeData("karate club", graph, None, labels, train, torch.arange(0), test, 4)


def block_model(
    nodes: int = 1200,
    classes: int = 4,
    words: int = 300,
    degree: float = 4.0,
    mixing: float = 0.3,
    seed: int = 0,
) -> NodeData:
    """A synthetic citation graph: a stochastic block model with bags of words as features.

    Each node cites about `degree` others, a fraction `mixing` of them from any class and the rest from its own. It has 12
    of `words` words, two of them from the tenth of the words that belongs to its class. 20 nodes per class are for
    training, the next 200 for validation, and the others for testing.

    Example:
        >>> amstel.data.block_model(nodes=400, seed=1).num_classes
        4
    """
    classes, words = _check.integer("classes", classes, 1), _check.integer("words", words, 10)
    nodes = _check.integer("nodes", nodes, 20 * classes, f"an integer >= 20 per class, {20 * classes}")
    degree = _check.number("degree", degree, "a finite number >= 0", least=0)
    for name, size in (("nodes", nodes), ("words", words), ("degree", nodes * degree)):
        if size >= 2**31:
            what = "a number that makes less than 2^31 edges" if name == "degree" else "an integer < 2^31"
            _check.fail(name, what, degree if name == "degree" else size)
    mixing = _check.number("mixing", mixing, "in [0, 1]", least=0, most=1)
    rng = np.random.default_rng(_check.integer("seed", seed, 0))
    label = rng.integers(classes, size=nodes)
    label[: 20 * classes] = np.arange(20 * classes) % classes
    members = [np.flatnonzero(label == c) for c in range(classes)]
    source = rng.integers(nodes, size=int(nodes * degree / 2))
    friend = np.array([rng.choice(members[c]) for c in label[source]])
    target = np.where(rng.random(len(source)) < mixing, rng.integers(nodes, size=len(source)), friend)
    key = np.concatenate([source * nodes + target, target * nodes + source])
    key = np.unique(key[key // nodes != key % nodes])
    graph = Graph.from_edge_index(torch.from_numpy(np.stack([key // nodes, key % nodes])), num_nodes=nodes)

    own = words // 10
    anyone, topic = rng.integers(words, size=(nodes, 10)), rng.integers(own, size=(nodes, 2))
    col = np.concatenate([anyone, label[:, None] * own + topic], 1).ravel()
    features = sparse_csr(
        np.repeat(np.arange(nodes), 12), col, np.full(nodes * 12, 1 / 12, np.float32), (nodes, words)
    )
    train, val = 20 * classes, 20 * classes + 200
    return NodeData(
        "block model",
        graph,
        features,
        torch.from_numpy(label),
        torch.arange(train),
        torch.arange(train, min(val, nodes)),
        torch.arange(min(val, nodes), nodes),
        classes,
    )
