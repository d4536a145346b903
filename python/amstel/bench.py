"""`amstel bench`: time this library against PyTorch on this machine. benchmarks/ uses the same timing."""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from amstel import _check
from amstel.graph import Graph
from amstel.ops.spmm import spmm


@dataclass
class Timing:
    """Seconds per call, one sample per turn. Each sample is the mean of `batch` consecutive calls.

    Example:
        >>> amstel.bench.Timing(samples=[0.002, 0.001, 0.009], batch=10).median
        0.002
    """

    samples: list[float]
    batch: int

    @property
    def median(self) -> float:
        """Median of the samples, in seconds."""
        return float(np.median(self.samples))


def take_turns(
    functions: dict[str, Callable[[], object]],
    seconds: float = 1.0,
    min_rounds: int = 5,
    max_rounds: int = 60,
    before: dict[str, Callable[[], object]] | None = None,
) -> dict[str, Timing]:
    """Time functions in turns, so that anything that slows the machine down for a while affects all of them.

    In every round, each short function first runs once untimed, so that it finds the allocator and the caches as its
    own last call left them, and then in a timed batch of at least about a millisecond. A function that is much faster
    than the slowest takes up to four turns per round. The order rotates. `before[name]` is called, untimed, before
    each turn, for example to set the number of threads.

    Args:
        functions: what to time, by name; at least one.
        seconds: about how long to take.
        min_rounds, max_rounds: limits on the number of rounds.
        before: what to call before each turn, by name; names may be missing.

    Returns:
        a `Timing` for each name.

    Example:
        >>> x = torch.ones(100, 100)
        >>> times = amstel.bench.take_turns({"add": lambda: x + x, "matmul": lambda: x @ x}, seconds=0.01)
        >>> sorted(times), times["matmul"].median > 0
        (['add', 'matmul'], True)
    """
    if not _check.mapping("functions", functions, "a dict of functions, by name"):
        _check.fail("functions", "a dict of one or more functions, by name", functions)
    names = list(functions)
    prepare = before or {}
    batch: dict[str, int] = {}
    warm: dict[str, bool] = {}
    turn: dict[str, float] = {}
    for name, f in functions.items():
        if name in prepare:
            prepare[name]()
        for _ in range(2):  # the second call finds everything made; one that takes long is not made again
            start = time.perf_counter()
            f()
            once = time.perf_counter() - start
            if once > 0.25:
                break
        batch[name] = max(1, min(100, int(1e-3 / max(once, 1e-7))))
        warm[name] = once < 0.25  # a call that takes long needs no other to warm it
        turn[name] = once * (batch[name] + warm[name])
    slowest = max(turn.values())
    turns = {name: int(np.clip(slowest / turn[name], 1, 4)) for name in names}
    cost = sum(turn[name] * turns[name] for name in names)
    least = min_rounds if cost < 1 else min(3, min_rounds)
    rounds = int(np.clip(seconds / cost, least, max(least, max_rounds)))
    samples: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    try:
        for r in range(rounds):
            for name in names[r % len(names) :] + names[: r % len(names)]:
                f, n = functions[name], batch[name]
                if name in prepare:
                    prepare[name]()
                for _ in range(turns[name]):
                    if warm[name]:
                        f()
                    start = time.perf_counter()
                    for _ in range(n):
                        f()
                    samples[name].append((time.perf_counter() - start) / n)
    finally:
        gc.enable()
    return {name: Timing(samples[name], batch[name]) for name in names}


def random_graph(nodes: int, degree: float, seed: int = 0) -> Graph:
    """Random symmetric edges, skewed like those of real graphs: some nodes have far more than others.

    Args:
        nodes: N.
        degree: mean number of edges into a node.
        seed: seed of the random numbers.

    Example:
        >>> graph = amstel.bench.random_graph(1000, 8)
        >>> graph, int(graph.degree(torch.float32).max())
        (Graph(num_nodes=1000, num_edges=8000), 73)
    """
    rng = np.random.default_rng(seed)
    ends = (nodes * rng.random((2, int(nodes * degree / 2))) ** 1.5).astype(np.int64)
    return Graph.from_edge_index(torch.from_numpy(np.concatenate([ends, ends[::-1]], 1)), num_nodes=nodes)


def spmm_rows(nodes: int, degree: float, features: list[int], repeats: int) -> list[dict[str, Any]]:
    """Time A X against torch.sparse.mm, forward and with the gradient of X, after comparing the results.

    Args:
        nodes, degree: of A, a `random_graph`.
        features: widths of X.
        repeats: rounds of `take_turns`.

    Returns:
        one dict per width and pass: "operation", "pass", "features", and the milliseconds of each implementation.

    Example:
        >>> forward, backward = amstel.bench.spmm_rows(nodes=100, degree=4, features=[8], repeats=1)
        >>> list(forward)
        ['operation', 'pass', 'features', 'amstel', 'torch.sparse.mm']
    """
    graph = random_graph(nodes, degree)
    ones = torch.ones(graph.num_edges)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        matrix = torch.sparse_csr_tensor(
            graph.crow.long(), graph.col.long(), ones, (nodes, nodes), check_invariants=False
        )
    rows = []
    for width in features:
        x = torch.randn(nodes, width)

        def ours(x: torch.Tensor) -> torch.Tensor:
            return spmm(graph, x, norm="none", self_loops=0.0)

        def theirs(x: torch.Tensor) -> torch.Tensor:
            return torch.sparse.mm(matrix, x)

        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-3)
        y = x.clone().requires_grad_()
        grad = torch.randn(nodes, width)

        def backward(f: Callable[[torch.Tensor], torch.Tensor]) -> Any:
            return torch.autograd.grad(f(y), y, grad)  # noqa: B023 (used in this turn only)

        passes: dict[str, dict[str, Callable[[], Any]]] = {
            "forward": {"amstel": partial(ours, x), "torch.sparse.mm": partial(theirs, x)},
            "forward + backward": {
                "amstel": partial(backward, ours),
                "torch.sparse.mm": partial(backward, theirs),
            },
        }
        for name, functions in passes.items():
            times = take_turns(functions, min_rounds=repeats, max_rounds=repeats)
            found = {implementation: 1e3 * t.median for implementation, t in times.items()}
            rows.append({"operation": "spmm", "pass": name, "features": width, **found})
    return rows
