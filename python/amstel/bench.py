"""`amstel bench`: this library beside PyTorch on this machine. The full suites are in benchmarks/."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from amstel.graph import Graph
from amstel.ops import spmm


def _interleaved(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each function, taken in turns so that a noisy machine is fair to all."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values[1:]) for name, values in times.items()}


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
            found = _interleaved(functions, repeats)
            rows.append({"operation": "spmm", "pass": name, "features": width, **found})
    return rows
