"""Times and memory of the members of one group: on the CPU in turns, on CUDA with events around replays of a graph."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from amstel.bench import take_turns
from benchmarks import limits

Member = tuple[str, int, str]  # implementation, threads, dtype


@dataclass
class Result:
    """Samples in seconds a call, for the plugin, and what goes to its extra_info."""

    samples: list[float]
    batch: int
    extra: dict[str, Any] = field(default_factory=dict)


def keep_heap() -> None:
    """Ask glibc to keep what was freed, as torch does on CUDA, for everyone who is measured.

    By default it returns large blocks to the system, or not, by rules that depend on what ran before. A call that
    gets fresh pages takes up to twice as long as one that does not, and so no two runs would agree.
    """
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(trim_threshold, -1)
        mallopt(mmap_max, 0)


def cpu_peak(f: Callable[[], object]) -> tuple[int, int]:
    """Bytes that a call has from torch's allocator at most, and at its end with its result alive."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        result = f()
    found = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes = np.cumsum([e.nbytes() for e in sorted(found, key=lambda e: e.start_ns())] or [0])
    del result
    return int(max(changes.max(), 0)), int(max(changes[-1], 0))


def cuda_peak(f: Callable[[], object]) -> tuple[int, int]:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = f()
    held = torch.cuda.memory_allocated() - before
    torch.cuda.synchronize()
    del result
    return torch.cuda.max_memory_allocated() - before, held


def on_cpu(
    calls: dict[Member, Callable[[], object]], seconds: float, least: int, dry: bool
) -> dict[Member, Result]:
    """By turns; each member sets its number of threads before its turn."""
    before = torch.get_num_threads()
    names = {str(m): m for m in calls}
    try:
        times = take_turns(
            {name: calls[m] for name, m in names.items()},
            0.0 if dry else seconds * len(calls),
            1 if dry else least,
            before={name: partial(torch.set_num_threads, m[1]) for name, m in names.items()},
        )
    finally:
        torch.set_num_threads(before)
    return {m: Result(times[name].samples, times[name].batch) for name, m in names.items()}


class Clock:
    """CUDA's time: events, captured graphs, an L2 that is overwritten. In a dry run the same calls on the CPU."""

    def __init__(self, dry: bool):
        self.dry = dry
        self.flush = None if dry else torch.empty(2**26, device="cuda")

    def sample(self, f: Callable[[], object], cold: bool = False) -> Callable[[], float]:
        """Enqueues f between two events; the returned function waits and gives the seconds."""
        if self.dry:
            start = time.perf_counter()
            f()
            seconds = time.perf_counter() - start
            return lambda: seconds
        if cold:
            self.flush.zero_()
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        f()
        last.record()

        def read() -> float:
            last.synchronize()
            return first.elapsed_time(last) / 1e3

        return read

    def median(self, f: Callable[[], object], rounds: int, cold: bool = False) -> float:
        waiting = [self.sample(f, cold) for _ in range(rounds)]
        return float(np.median([read() for read in waiting]))

    def host(self, f: Callable[[], object], rounds: int) -> float:
        """Seconds until the call returns, without waiting for the device."""
        self.synchronize()
        start = time.perf_counter()
        for _ in range(rounds):
            f()
        seconds = (time.perf_counter() - start) / rounds
        self.synchronize()
        return seconds

    def capture(self, f: Callable[[], object], calls: int) -> Callable[[], object]:
        if self.dry:
            return lambda: [f() for _ in range(calls)]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
            for _ in range(calls):
                f()
        graph.replay()
        return graph.replay

    def synchronize(self) -> None:
        if not self.dry:
            torch.cuda.synchronize()


def on_cuda(
    calls: dict[Member, Callable[[], object]], seconds: float, least: int, dry: bool
) -> dict[Member, Result]:
    """Samples are device times: of a replayed graph, or of eager calls where an implementation cannot be captured.

    Beside them: eager time, host time of a call, and the time after the L2 was overwritten.
    """
    clock = Clock(dry)
    found: dict[Member, Result] = {}
    replays: dict[Member, tuple[Callable[[], object], int]] = {}
    for member, f in calls.items():
        for _ in range(1 if dry else 3):
            f()
        once = max(clock.median(f, 1 if dry else 3), 1e-6)
        rounds = 1 if dry else int(np.clip(0.01 / once, 3, 50))  # about 10 ms a figure
        calls_a_graph = 1 if dry else int(np.clip(2e-3 / once, 1, 20))
        extra: dict[str, Any] = {
            "eager_us": 1e6 * clock.median(f, rounds),
            "host_us": 1e6 * clock.host(f, rounds),
        }
        try:
            replay, single = clock.capture(f, calls_a_graph), clock.capture(f, 1)
            extra["captured"] = True
        except Exception as error:  # the result says so if it cannot be captured
            replay, single, calls_a_graph = f, f, 1
            extra["captured"] = f"no: {(str(error).splitlines() or [type(error).__name__])[0][:160]}"
            clock.synchronize()
        extra["cold_us"] = 1e6 * clock.median(single, min(rounds, 20), cold=True)
        replays[member] = replay, calls_a_graph
        found[member] = Result([], calls_a_graph, extra)
    # The figures to compare, measured in turns.
    names = list(replays)
    spent = sum(max(clock.median(replay, 1), 1e-6) for replay, _ in replays.values())
    rounds = 1 if dry else int(np.clip(seconds * len(names) / spent, least, 40))
    for r in range(rounds):
        for member in names[r % len(names) :] + names[: r % len(names)]:
            replay, n = replays[member]
            found[member].samples.append(clock.sample(replay)() / n)
    for result in found.values():
        for key, value in result.extra.items():
            if key.endswith("_us"):
                result.extra[key] = round(value, 2)
    return found


def limits_of(device: str, threads: int, dry: bool) -> dict:
    return limits.cuda(dry) if device == "cuda" else limits.cpu(threads, dry)
