"""Data sets of many graphs: graphs with features and labels, sets of these, and batches for a DataLoader."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from amstel import _batch, _check
from amstel._derived import plainly
from amstel._words import counted
from amstel.graph import Graph


@dataclass(eq=False)
class GraphData:
    """A graph, or a batch of graphs (`Graph.batch`), with features and labels.

    Attributes:
        graph: N nodes, E edges, B graphs.
        features: floating point [N, F], or None.
        label: int64, the class, or floating point, the targets: [] or [T] of one graph, [B] or [B, T] of a batch; or
            None.
        edge_features: floating point [E, D] in the order in which the edges were given, or None.

    Raises:
        ValueError or TypeError: a part is not as described.

    Example:
        >>> graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
        >>> data = amstel.data.GraphData(graph, torch.eye(3), torch.tensor(1))
        >>> data.features.shape, data.label
        (torch.Size([3, 3]), tensor(1))
    """

    graph: Graph
    features: Tensor | None = None
    label: Tensor | None = None
    edge_features: Tensor | None = None

    def __post_init__(self) -> None:
        graph = self.graph
        if not isinstance(graph, Graph):
            _check.fail_type("graph", "an amstel.Graph", graph)
        _rows("features", self.features, graph.num_rows, graph.device)
        _rows("edge_features", self.edge_features, graph.num_edges, graph.device)
        if self.label is not None:
            batched = graph._offsets is not None
            shape = f"[{graph.num_graphs}] or [{graph.num_graphs}, T]" if batched else "[] or [T]"
            expected = f"an int64 or floating-point tensor {shape}"
            label = _check.tensor("label", self.label, expected)
            own = label.shape[1:] if batched else label.shape
            if (
                (batched and label.shape[:1] != (graph.num_graphs,))
                or len(own) > 1
                or label.dtype not in (torch.int64, *_check.FLOATS)
                or label.layout != torch.strided
            ):
                _check.fail("label", expected, label)

    @property
    def num_graphs(self) -> int:
        """B."""
        return self.graph.num_graphs

    @property
    def num_nodes(self) -> int:
        """N."""
        return self.graph.num_nodes

    def to(self, device: Any, non_blocking: bool = False) -> GraphData:
        """The same data on another device."""
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> GraphData:
        """The same data in pinned memory; a DataLoader calls it."""
        return self._map(lambda t: t.pin_memory())

    def _map(self, f: Callable[[Any], Any]) -> GraphData:
        rest = (self.features, self.label, self.edge_features)
        return GraphData(f(self.graph), *(None if part is None else f(part) for part in rest))


def _rows(name: str, value: Any, rows: int, device: torch.device) -> None:
    """Floating-point rows for nodes or edges."""
    if value is None:
        return
    expected = f"a floating-point tensor [{rows}, F] on {device}"
    _check.tensor(name, value, expected)
    if (
        value.dim() != 2
        or value.shape[0] != rows
        or value.dtype not in _check.FLOATS
        or value.layout != torch.strided
        or value.device != device
    ):
        _check.fail(name, expected, value)


class GraphDataset(Dataset):
    """A set of graphs with features and labels, for training loops and for `torch.utils.data.DataLoader`.

    All graphs are stored in one block-diagonal batch, so a process started by a DataLoader, by fork or spawn, gets a
    few large tensors instead of thousands of small ones. `dataset[3]` is a `GraphData`, a copy; `dataset[[4, 2]]`,
    `dataset[:10]` and `dataset[mask]` are datasets. Batches are made by `collate`:

        DataLoader(dataset, batch_size=32, shuffle=True, collate_fn=amstel.data.collate)

    Args:
        graphs: the graphs, on one device.
        features: one floating-point tensor [N_i, F] per graph, all of the same width and dtype; or None.
        labels: the class of each graph, integers >= 0 (a list, or an integer tensor or array [G]); or
            floating-point targets [G] or [G, T], finite; or None.
        edge_features: one floating-point tensor [E_i, D] per graph, in the order of its edges; or None.
        num_classes: default: the largest class + 1, or 0 if labels are targets or None.
        name: what to call it.

    Attributes:
        labels: int64 [G], or floating point [G] or [G, T], or None.
        num_classes, num_features, num_edge_features: sizes; 0 for what is not there.
        name: see above.

    Raises:
        ValueError or TypeError: a part is not as described; the message names it.

    Example:
        >>> ring = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 2], [1, 2, 0]]))
        >>> pair = amstel.Graph.from_edge_index(torch.tensor([[0, 1], [1, 0]]))
        >>> dataset = amstel.data.GraphDataset([ring, pair], [torch.ones(3, 2), torch.ones(2, 2)], [1, 0])
        >>> dataset[1].graph, dataset[1].label
        (Graph(num_nodes=2, num_edges=2), tensor(0))
        >>> loader = torch.utils.data.DataLoader(dataset, batch_size=2, collate_fn=amstel.data.collate)
        >>> next(iter(loader)).graph
        Graph(num_nodes=5, num_edges=5, num_graphs=2)
    """

    def __init__(
        self,
        graphs: Sequence[Graph],
        features: Sequence[Tensor] | None = None,
        labels: Any = None,
        edge_features: Sequence[Tensor] | None = None,
        num_classes: int | None = None,
        name: str = "",
    ):
        if not isinstance(graphs, Sequence):
            _check.fail_type("graphs", "a list of one or more amstel.Graph", graphs)
        batch = Graph.batch(graphs)
        for k, graph in enumerate(graphs):
            if graph._offsets is not None:
                _check.fail(f"graphs[{k}]", "one graph, no batch (`unbatch` gives its graphs)", graph)
        nodes = _joined("features", features, [g.num_rows for g in graphs], batch.device)
        edges = _joined("edge_features", edge_features, [g.num_edges for g in graphs], batch.device)
        self._set(batch, nodes, _labels(labels, len(graphs)), edges, num_classes, name)

    def _set(
        self,
        batch: Graph,
        features: Tensor | None,
        labels: Tensor | None,
        edge_features: Tensor | None,
        num_classes: int | None,
        name: str,
    ) -> None:
        if not isinstance(name, str):
            _check.fail_type("name", "a string", name)
        found = 0
        if labels is not None and labels.dtype == torch.int64:
            found = int(labels.max()) + 1 if len(labels) else 0
        if num_classes is not None:
            found = _check.integer(
                "num_classes", num_classes, found, f"an integer >= {found}, the largest class + 1"
            )
        self.name, self.num_classes, self.labels = name, found, labels
        self._all, self._features, self._edge_features = batch, features, edge_features
        self._bounds = _batch.bounds(batch)  # plain lists, so that an item costs no look into a tensor

    @property
    def num_features(self) -> int:
        """F."""
        return 0 if self._features is None else self._features.shape[1]

    @property
    def num_edge_features(self) -> int:
        """D."""
        return 0 if self._edge_features is None else self._edge_features.shape[1]

    def __len__(self) -> int:
        return self._all.num_graphs

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, (slice, range, list, tuple, Tensor, np.ndarray)) and not _is_number(index):
            return self._subset(_numbers(index, len(self)))
        number = _check.integer("index", index.item() if isinstance(index, Tensor) else index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"`index` must be from {-len(self)} to {len(self) - 1}, got {number}")
        return self._one(number % len(self))

    def __iter__(self) -> Iterator[GraphData]:
        return map(self._one, range(len(self)))

    def _one(self, k: int) -> GraphData:
        def part(rows: Tensor | None, starts: list[int]) -> Tensor | None:
            return None if rows is None else rows[starts[k] : starts[k + 1]].clone()

        nodes, _, edges = self._bounds
        graph = plainly(lambda: _batch.one(self._all, self._bounds, k))
        label = None if self.labels is None else self.labels[k].clone()
        return GraphData(graph, part(self._features, nodes), label, part(self._edge_features, edges))

    def _subset(self, numbers: list[int]) -> GraphDataset:
        if not numbers:
            raise ValueError("`index` must choose one or more graphs, got none")
        nodes, _, edges = self._bounds
        chosen = torch.tensor(numbers, device=self._all.device)

        def rows(values: Tensor | None, starts: list[int]) -> Tensor | None:
            if values is None:
                return None
            return torch.cat([values[starts[k] : starts[k + 1]] for k in numbers])

        subset = GraphDataset.__new__(GraphDataset)
        subset._set(
            Graph.batch([_batch.one(self._all, self._bounds, k) for k in numbers]),
            rows(self._features, nodes),
            None if self.labels is None else self.labels[chosen.to(self.labels.device)],
            rows(self._edge_features, edges),
            self.num_classes,
            self.name,
        )
        return subset

    def __repr__(self) -> str:
        name = f"{self.name}, " if self.name else ""
        return (
            f"{type(self).__name__}({name}num_graphs={len(self)}, num_nodes={self._all.num_nodes}, "
            f"num_edges={self._all.num_edges}, num_features={self.num_features}, num_classes={self.num_classes})"
        )


def collate(items: Sequence[GraphData]) -> GraphData:
    """The `collate_fn` for a DataLoader: combines the `GraphData` of several graphs into one for their batch.

    If only some of them have features or labels, or if widths or dtypes differ, it raises an error.

    Example:
        >>> ring = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 2], [1, 2, 0]]))
        >>> batch = collate([amstel.data.GraphData(ring, torch.ones(3, 2), torch.tensor(k)) for k in (1, 0)])
        >>> batch.graph, batch.label
        (Graph(num_nodes=6, num_edges=6, num_graphs=2), tensor([1, 0]))
    """
    expected = "a list of one or more amstel.data.GraphData"
    if not isinstance(items, (list, tuple)):
        _check.fail_type("items", expected, items)
    if not items:
        _check.fail("items", expected, items)
    for k, item in enumerate(items):
        if not isinstance(item, GraphData):
            _check.fail_type(f"items[{k}]", "an amstel.data.GraphData", item)
    graph = Graph.batch([item.graph for item in items])
    labels = [
        item.label[None] if item.label is not None and item.graph._offsets is None else item.label
        for item in items
    ]
    return GraphData(
        graph,
        _cat("features", [item.features for item in items]),
        _cat("label", labels),
        _cat("edge_features", [item.edge_features for item in items]),
    )


def _cat(name: str, parts: list[Tensor | None]) -> Tensor | None:
    first = parts[0]
    for k, part in enumerate(parts):
        if (part is None) != (first is None):
            missing = "None" if part is None else "some"
            raise ValueError(f"`{name}` must be there in all items or in none, got {missing} in items[{k}]")
        if part is not None and first is not None:
            if (part.shape[1:], part.dtype) != (first.shape[1:], first.dtype):
                dtype = str(first.dtype).removeprefix("torch.")
                shape = list(first.shape[1:])
                raise ValueError(
                    f"`{name}` of items[{k}] must be {dtype} of {shape} like the first, got {_check.describe(part)}"
                )
    return None if first is None else torch.cat([part for part in parts if part is not None])


def _joined(name: str, parts: Any, sizes: list[int], device: torch.device) -> Tensor | None:
    """The rows of all graphs, checked."""
    if parts is None:
        return None
    if isinstance(parts, Tensor) or not isinstance(parts, Sequence):
        _check.fail_type(name, "a list of tensors, one per graph", parts)
    if len(parts) != len(sizes):
        raise ValueError(
            f"`{name}` must be a list of {counted(len(sizes), 'tensor')}, one per graph, got {len(parts)}"
        )
    for k, (part, size) in enumerate(zip(parts, sizes, strict=True)):
        if part is None:
            _check.fail_type(f"{name}[{k}]", f"a floating-point tensor [{size}, F]", part)
        _rows(f"{name}[{k}]", part, size, device)
        if part.shape[1] != parts[0].shape[1] or part.dtype != parts[0].dtype:
            dtype = str(parts[0].dtype).removeprefix("torch.")
            _check.fail(f"{name}[{k}]", f"{dtype} [{size}, {parts[0].shape[1]}] like the first", part)
    return torch.cat([part.detach() for part in parts])


def _labels(labels: Any, graphs: int) -> Tensor | None:
    """Classes as int64 [G], or targets, checked."""
    if labels is None:
        return None
    expected = f"{counted(graphs, 'class')} (integers >= 0) or finite floating-point targets [{graphs}] or [{graphs}, T]"
    if not isinstance(labels, Tensor):
        _check.unmasked("labels", labels)
        if not isinstance(labels, (Sequence, np.ndarray)) or isinstance(labels, (str, bytes)):
            _check.fail_type("labels", expected, labels)
        if isinstance(labels, Sequence) and any(isinstance(v, (bool, np.bool_)) for v in labels):
            _check.fail_type("labels", expected, labels)
        whole = isinstance(labels, Sequence) and all(isinstance(v, (int, np.integer)) for v in labels)
        try:
            array = np.asarray(
                labels, np.int64 if whole and labels else None
            )  # no number becomes another one
            labels = torch.from_numpy(array.astype(array.dtype.newbyteorder("="))).clone()
        except (TypeError, ValueError, OverflowError):
            raise TypeError(f"`labels` must be {expected}, got {_check.describe(labels)}") from None
    labels = labels.detach()
    whole = labels.dtype in (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)
    if (
        labels.shape[:1] != (graphs,)
        or labels.dim() > (1 if whole else 2)
        or labels.layout != torch.strided
        or not (whole or labels.dtype in _check.FLOATS)
    ):
        _check.fail("labels", expected, labels)
    wrong = (
        (labels < 0)
        if whole
        else ~labels.isfinite().flatten(1).all(1)
        if labels.dim() == 2
        else ~labels.isfinite()
    )
    if bool(wrong.any()):
        k = int(wrong.nonzero()[0])
        raise ValueError(f"`labels` must be {expected}, got {labels[k].tolist()} at position {k}")
    return labels.long() if whole else labels.clone()


_INDEX = torch.int64, torch.int32, torch.int16, torch.int8


def _is_number(index: Any) -> bool:
    return isinstance(index, (Tensor, np.ndarray)) and index.ndim == 0


def _numbers(index: Any, size: int) -> list[int]:
    """Numbers of graphs from a slice, a list, a vector of integers or a mask."""
    expected = f"a number, a slice, a list of integers or a mask of {size}"
    if isinstance(index, slice):
        try:
            return list(range(*index.indices(size)))
        except TypeError:
            _check.fail_type("index", expected, index)
    _check.unmasked("index", index)
    if isinstance(index, range):
        index = list(index)
    if isinstance(index, np.ndarray) and index.dtype.kind == "u":
        index = index.tolist()  # torch takes uint8 for a mask, and int64 lacks the larger half of uint64
    try:
        found = torch.as_tensor(index)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise TypeError(f"`index` must be {expected}, got {_check.describe(index)}") from None
    if found.numel() == 0 and not isinstance(index, (Tensor, np.ndarray)):
        found = found.long()
    if found.dim() != 1 or found.dtype not in (*_INDEX, torch.bool):
        _check.fail("index", expected, index)
    if found.dtype == torch.bool:
        if len(found) != size:
            _check.fail("index", expected, found)
        return found.nonzero()[:, 0].tolist()
    numbers: list[int] = found.tolist()
    for number in numbers:
        if not -size <= number < size:
            raise IndexError(f"`index` must be from {-size} to {size - 1}, got {number}")
    return [number % size for number in numbers]
