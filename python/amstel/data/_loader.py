"""Shared code of the sampling loaders: the order of the seeds, rows of features, and batches prepared ahead.

A batch follows from the loader's arguments, the epoch and its number, and from nothing else. So threads may make it in
any order, and its consumer sees the same batches for any number of them. Threads are enough: the sampler and PyTorch let
go of Python's lock while they work, and share the graph and the features without a copy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amstel import _check, _library, _subgraph
from amstel._words import counted
from amstel.distributed.dropout import key
from amstel.graph import Graph
from amstel.sampled import SampledGraph


@dataclass(repr=False, eq=False)
class Sample:
    """What all batches have: `to`, `pin_memory` and `tensors` over their fields."""

    def _map(self, f: Callable[[Any], Any]) -> Any:
        def apply(value: Any) -> Any:
            if isinstance(value, list):
                return [apply(v) for v in value]
            return f(value) if isinstance(value, (Tensor, Graph)) else value

        return replace(self, **{one.name: apply(getattr(self, one.name)) for one in fields(self)})

    def to(self, device: Any, non_blocking: bool = False) -> Any:
        """The same on another device."""
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Any:
        """The same in page-locked memory, from which copies to a GPU need not wait."""
        return self._map(lambda t: t.pin_memory())

    def _tensors(self) -> list[Tensor]:
        found: list[Tensor] = []

        def note(value: Any) -> Any:
            if isinstance(value, Graph):
                parts = (value._crow, value._col, value._weight)
                own = (
                    (value._nodes, value._slots, value._in_degree) if isinstance(value, SampledGraph) else ()
                )
                found.extend(t for t in (*parts, *own) if t is not None)
            elif value.layout == torch.sparse_csr:
                found.extend((value.crow_indices(), value.col_indices(), value.values()))
            else:
                found.append(value)
            return value

        self._map(note)
        return found


@dataclass(repr=False, eq=False)
class NodeBatch(Sample):
    """A batch of `NeighborLoader`: what a model needs to compute its outputs at B seeds.

    Attributes:
        layers: one `SampledGraph` per layer, in the order in which a model applies them: the first has the n nodes as
            sources, and the last has the B seeds as targets.
        nodes: indices of the nodes in the whole graph, int64 [n]; the seeds come first.
        seeds: the seeds, which are the first B nodes.
        x: features of the nodes [n, ...], or None.
        y: labels of the seeds [B, ...], or None.
        number: index of the batch in its epoch.

    Example: a path whose last node is the seed, for a model with two layers.
        >>> graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]]))
        >>> batch = next(iter(amstel.data.NeighborLoader(graph, fanouts=[-1, -1], seeds=[4], batch_size=1)))
        >>> batch, batch.nodes.tolist()
        (NodeBatch(seeds=1, nodes=3, edges=[2, 1]), [4, 3, 2])
    """

    layers: list[SampledGraph]
    nodes: Tensor
    seeds: Tensor
    x: Tensor | None
    y: Tensor | None
    number: int

    @property
    def batch_size(self) -> int:
        """B, the number of seeds."""
        return len(self.seeds)

    def __repr__(self) -> str:
        edges = [layer.num_edges for layer in self.layers]
        return f"NodeBatch(seeds={len(self.seeds)}, nodes={len(self.nodes)}, edges={edges})"


class Loader:
    """Iterates over the batches of an epoch; every iteration is the next epoch.

    Attributes:
        epoch: which comes next; set it to repeat or to go on with one.
    """

    def __init__(self, graph: Graph, x: Any, y: Any, options: dict[str, Any]):
        if not isinstance(graph, Graph):
            _check.fail_type("graph", "an amstel.Graph", graph)
        _subgraph.needs_square(type(self).__name__, graph)
        self.graph = graph
        self.x, self.y = _store("x", x, graph.num_nodes), _store("y", y, graph.num_nodes)
        self.seed = _check.integer("seed", options["seed"], 0)
        self.shuffle = _check.flag("shuffle", options["shuffle"])
        self.num_workers = _check.integer("num_workers", options["num_workers"], 0)
        self.prefetch = _check.integer("prefetch", options["prefetch"], 1)
        self.pin_memory = _check.flag("pin_memory", options["pin_memory"])
        try:
            self.device = None if options["device"] is None else torch.device(options["device"])
        except (TypeError, RuntimeError):
            _check.fail("device", "a torch.device, a string or index for one, or None", options["device"])
        if self.pin_memory and not torch.cuda.is_available():
            raise ValueError("`pin_memory` must be False where PyTorch finds no CUDA device, got True")
        self.epoch = 0

    def _key(self, *what: int) -> int:
        """What a draw follows from."""
        return key(self.seed, *what)

    def _order(self, count: int, epoch: int) -> Tensor:
        if not self.shuffle:
            return torch.arange(count)
        generator = torch.Generator().manual_seed(self._key(epoch, -1) & (2**63 - 1))
        return torch.randperm(count, generator=generator)

    def _plan(self, epoch: int) -> tuple[int, Callable[[int, bool], Any]]:
        """How many batches an epoch has, and what makes one from its number and whether it may use all threads."""
        raise TypeError(f"{type(self).__name__} must define `_plan`")

    def __iter__(self) -> Iterator[Any]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        count, make = self._plan(epoch)

        def ready(number: int) -> Any:
            # In no gradient and no inference mode of whoever iterates, on whichever thread.
            with torch.inference_mode(False), torch.no_grad():
                batch = make(number, not self.num_workers)
            return batch.pin_memory() if self.pin_memory else batch

        batches = ahead(ready, count, self.num_workers, self.num_workers * self.prefetch)
        if self.device is not None and self.device.type == "cuda":
            batches = copied_ahead(batches, self.device)
        elif self.device is not None:
            batches = (batch.to(self.device) for batch in batches)
        return batches


def ahead(make: Callable[[int], Any], count: int, workers: int, most: int) -> Iterator[Any]:
    """make(0), make(1), ... in order, computed by this many threads, at most this many ahead."""
    if not workers:
        yield from map(make, range(count))
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="amstel-loader")
    pending: deque[Future] = deque()
    try:
        for number in range(count):
            pending.append(pool.submit(make, number))
            if len(pending) >= most:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:  # also where the consumer stops early, or a batch fails
        pool.shutdown(wait=True, cancel_futures=True)


def copied_ahead(batches: Iterator[Any], device: torch.device) -> Iterator[Any]:
    """The batches on a GPU, each copied on a side stream while the previous one is in use."""
    stream = torch.cuda.Stream(device)
    waiting: deque[tuple[Any, Any, torch.cuda.Event]] = deque()

    def hand_over() -> Any:
        batch, _, done = waiting.popleft()
        current = torch.cuda.current_stream(device)
        current.wait_event(done)
        for t in batch._tensors():  # its memory is free for others only when this stream is through with it
            t.record_stream(current)
        return batch

    for batch in batches:
        with torch.cuda.stream(stream):
            moved = batch.to(device, non_blocking=True)
            done = torch.cuda.Event()
            done.record(stream)
        waiting.append((moved, batch, done))  # what is copied from stays until then
        if len(waiting) > 1:
            yield hand_over()
    while waiting:
        yield hand_over()


def _store(name: str, value: Any, nodes: int) -> Any:
    """Rows of the nodes: a tensor, an array, or anything that gives rows by their numbers."""
    if value is None:
        return None
    if isinstance(value, Tensor):
        expected = f"[{nodes}, ...] on the CPU, dense or sparse_csr"
        if value.layout not in (torch.strided, torch.sparse_csr) or value.dim() < 1 or value.is_cuda:
            _check.fail(name, expected, value)
    elif not hasattr(value, "__getitem__") or isinstance(value, (str, bytes, list, tuple, dict)):
        _check.fail_type(
            name, f"a tensor, an array or an object with __getitem__, of {counted(nodes, 'row')}", value
        )
    if isinstance(value, np.ndarray):
        _check.unmasked(name, value)
        try:
            torch.from_numpy(np.empty(0, value.dtype))
        except (TypeError, ValueError):
            _check.fail(
                name, f"an array [{nodes}, ...] of a dtype that torch supports", f"dtype {value.dtype}"
            )
    shape = getattr(value, "shape", None)
    size = (
        shape[0] if shape is not None and len(shape) else len(value) if hasattr(value, "__len__") else nodes
    )
    if size != nodes:
        raise ValueError(f"`{name}` must have {counted(nodes, 'row')}, one per node, got {size}")
    return value.detach() if isinstance(value, Tensor) else value


def rows_of(name: str, store: Any, nodes: Tensor, parallel: bool = False) -> Tensor | None:
    """The rows of some nodes as a tensor."""
    if store is None:
        return None
    if isinstance(store, Tensor):
        if store.layout == torch.strided and store.dim() == 2 and store.is_contiguous() and store.numel():
            # Faster than index_select: it asks for rows ahead, and for pages that need fewer faults.
            found = _library.operators.gather_rows(store.view(torch.uint8), nodes, parallel)
            return found.view(store.dtype)
        return (
            _sparse_rows(store, nodes) if store.layout == torch.sparse_csr else store.index_select(0, nodes)
        )
    if isinstance(store, np.ndarray):
        # A memory map is read page by page: in its order.
        numbers, place = nodes.numpy(), None
        if isinstance(store, np.memmap):
            place = numbers.argsort()
        found = store[numbers if place is None else numbers[place]]
        rows = torch.from_numpy(np.ascontiguousarray(found))
        return rows if place is None else torch.empty_like(rows).index_copy_(0, torch.from_numpy(place), rows)
    # The store may keep what it is given and what it gives, and use it again: batches are made ahead.
    found = store[nodes.clone()]
    if isinstance(found, np.ma.MaskedArray):
        _check.fail(name, "rows without masked values from its __getitem__", found)
    try:
        rows = found.detach().clone() if isinstance(found, Tensor) else torch.from_numpy(np.array(found))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`{name}` must give rows of numbers, got {_check.describe(found)} from its __getitem__"
        ) from error
    if rows.dim() < 1 or len(rows) != len(nodes):
        raise ValueError(
            f"`{name}` must give a row for each of {counted(len(nodes), 'node')}, got {_check.describe(rows)} from its __getitem__"
        )
    return rows


def _sparse_rows(store: Tensor, nodes: Tensor) -> Tensor:
    crow, col, value = store.crow_indices(), store.col_indices(), store.values()
    count = crow[nodes + 1] - crow[nodes]
    starts = torch.zeros(len(nodes) + 1, dtype=crow.dtype)
    torch.cumsum(count, 0, out=starts[1:])
    slot = torch.arange(int(starts[-1])) + torch.repeat_interleave(crow[nodes] - starts[:-1], count)
    size = len(nodes), store.shape[1]
    return torch.sparse_csr_tensor(starts, col[slot], value[slot], size, check_invariants=False)
