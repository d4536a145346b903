"""Do the ratios in a pytest-benchmark JSON file agree with a measurement that only alternates two calls?

    python -m benchmarks.agree run.json [--only REGEX] [--seconds 3]

For each group, it takes ours and the fastest peer with the same dtype and number of threads, calls them in turn (ours,
peer, ours, peer, ...), and prints both ratios of medians. Exits with 1 where one differs by more than 5 %. Both
measurements should come from a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks import measure
from benchmarks.report import read_run
from benchmarks.suite import DTYPES, At, Suite, threads_of

MOST = 0.05


def suites() -> Iterator[Suite]:
    for path in sorted(Path(__file__).parent.glob("bench_*.py")):
        module = importlib.import_module(f"benchmarks.{path.stem}")
        yield from (f.suite for f in vars(module).values() if hasattr(f, "suite"))


def pairs(rows: list[dict]) -> Iterator[tuple[dict, dict]]:
    """Ours and the fastest peer, for each number of threads and dtype."""
    alike = defaultdict(list)
    for row in rows:
        alike[row["params"]["threads"], row["params"]["dtype"]].append(row)
    for members in alike.values():
        ours = [m for m in members if m["params"]["implementation"] == "amstel"]
        peers = [m for m in members if not m["params"]["implementation"].startswith("amstel")]
        if ours and peers:
            yield ours[0], min(peers, key=lambda m: m["stats"]["median"])


def alternate(ours, peer, seconds: float) -> float:
    """Median time of the peer over ours; a turn is a batch of calls that takes at least a millisecond."""
    samples: tuple[list[float], list[float]] = ([], [])
    batches = []
    for call in (ours, peer):
        call()
        start = time.perf_counter()
        call()
        batches.append(int(np.clip(1e-3 / (time.perf_counter() - start), 1, 100)))
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples[0]) < 5:
        for call, batch, found in zip((ours, peer), batches, samples, strict=True):
            call()  # starts with the caches as its own last call left them
            start = time.perf_counter()
            for _ in range(batch):
                call()
            found.append((time.perf_counter() - start) / batch)
    return float(np.median(samples[1]) / np.median(samples[0]))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agree", description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path)
    parser.add_argument("--only", default="", metavar="REGEX", help="measure only groups that match")
    parser.add_argument("--seconds", type=float, default=3.0, help="of alternating calls, per pair")
    given = parser.parse_args(arguments)
    measure.keep_heap()
    groups = defaultdict(list)
    for row in read_run(given.json)["benchmarks"]:
        if row["params"]["device"] == "cpu" and re.search(given.only, row["group"]):
            groups[row["group"]].append(row)
    known = {
        suite.group(workload, "cpu"): (suite, workload) for suite in suites() for workload in suite.shapes
    }
    worst = 0.0
    for group, rows in groups.items():
        if group not in known:
            print(f"{group:44} its data are not here; is AMSTEL_DATA set?")
            continue
        suite, workload = known[group]
        for ours, peer in pairs(rows):
            where = ours["params"]
            work = suite.build(At("cpu", DTYPES[where["dtype"]]), *suite.shapes[workload].full)
            calls = (work.functions[m["params"]["implementation"]] for m in (ours, peer))
            with threads_of(where["threads"]):
                now = alternate(*calls, given.seconds)
            torch._dynamo.reset()
            then = peer["stats"]["median"] / ours["stats"]["median"]
            worst = max(worst, abs(now / then - 1))
            what = f"{where['threads']} {where['dtype']} against {peer['params']['implementation']}"
            print(f"{group:44} {what:44} {then:7.2f} {now:7.2f} {100 * (now / then - 1):+6.1f} %", flush=True)
    print(f"largest difference {100 * worst:.1f} %")
    return int(worst > MOST)


if __name__ == "__main__":
    sys.exit(main())
