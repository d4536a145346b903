"""`amstel bench`: this library beside PyTorch on this machine, and the fair timing that benchmarks/ uses too."""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from amstel.graph import Graph
from amstel.ops.spmm import spmm


def take_turns(
    functions: dict[str, Callable[[], object]],
    seconds: float = 1.0,
    min_rounds: int = 5,
    max_rounds: int = 60,
) -> dict[str, dict]:
    """Median and quartiles of the seconds a call takes, per implementation.

    In every round each short function runs once untimed, so that it finds the allocator and the caches as its own
    last call left them, and then in a timed batch of at least about a millisecond. The order rotates.
    """
    names = list(functions)
    batch: dict[str, int] = {}
    warm: dict[str, bool] = {}
    cost = 0.0
    for name, f in functions.items():
        f()
        start = time.perf_counter()
        f()
        once = time.perf_counter() - start
        batch[name] = max(1, min(100, int(1e-3 / max(once, 1e-7))))
        cost += once * (batch[name] + 1)
        warm[name] = once < 0.25  # a call that takes long needs no other to warm it
    rounds = int(np.clip(seconds / cost, min_rounds if cost < 1 else min(3, min_rounds), max_rounds))
    samples: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    try:
        for r in range(rounds):
            for name in names[r % len(names) :] + names[: r % len(names)]:
                f, n = functions[name], batch[name]
                if warm[name]:
                    f()
                start = time.perf_counter()
                for _ in range(n):
                    f()
                samples[name].append((time.perf_counter() - start) / n)
    finally:
        gc.enable()
    return {
        name: dict(zip(("q1", "median", "q3"), np.quantile(s, [0.25, 0.5, 0.75]).tolist(), strict=True))
        | {"rounds": rounds, "batch": batch[name]}
        for name, s in samples.items()
    }


def random_graph(nodes: int, degree: float, seed: int = 0) -> Graph:
    """Random symmetric edges with the skew of real graphs: some nodes have far more than others."""
    rng = np.random.default_rng(seed)
    ends = (nodes * rng.random((2, int(nodes * degree / 2))) ** 1.5).astype(np.int64)
    return Graph.from_edge_index(torch.from_numpy(np.concatenate([ends, ends[::-1]], 1)), num_nodes=nodes)


def spmm_rows(nodes: int, degree: float, features: list[int], repeats: int) -> list[dict[str, Any]]:
    """A X, forward, and with the gradient of X: one row a width and pass, the results compared first."""
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
            found = {implementation: 1e3 * t["median"] for implementation, t in times.items()}
            rows.append({"operation": "spmm", "pass": name, "features": width, **found})
    return rows
