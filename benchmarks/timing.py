"""Fair timing on a shared machine: implementations take turns, medians are compared."""

import gc
import time
from collections.abc import Callable

import numpy as np


def take_turns(
    functions: dict[str, Callable[[], object]], seconds: float = 1.0, min_rounds: int = 5, max_rounds: int = 60
) -> dict[str, dict]:
    """Median and quartiles of the seconds a call takes, per implementation.

    In every round each function runs once untimed, so that it finds the allocator and the caches as its own
    last call left them, and then in a timed batch of at least about a millisecond. The order rotates.
    """
    names = list(functions)
    batch, cost = {}, 0.0
    for name, f in functions.items():
        f()
        f()
        start = time.perf_counter()
        f()
        once = time.perf_counter() - start
        batch[name] = max(1, min(100, int(1e-3 / max(once, 1e-7))))
        cost += once * (batch[name] + 1)
    rounds = int(np.clip(seconds / cost, min_rounds, max_rounds))
    samples: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    try:
        for r in range(rounds):
            for name in names[r % len(names) :] + names[: r % len(names)]:
                f, n = functions[name], batch[name]
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
