"""What this machine can do, measured in the session: copy and cache bandwidth, matrix products; and who it is."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable
from functools import cache

import torch

import amstel
from amstel.bench import take_turns
from benchmarks.suite import DTYPES, threads_of

MEGA = 2**20
#: Bytes of the two arrays of a copy: in the caches of a core, in those of the chip, in neither.
WORKING_SETS = [MEGA, 2 * MEGA, 8 * MEGA, 32 * MEGA, 512 * MEGA]


@cache
def cpu(threads: int, dry: bool = False) -> dict:
    """GB/s by working set and GFLOP/s by dtype, with so many threads."""
    sizes = [MEGA // 64] if dry else WORKING_SETS
    side = 64 if dry else 1536
    seconds, rounds = (0.0, 1) if dry else (0.3, 5)
    found: dict = {"GBps": {}, "GFLOPps": {}}
    with threads_of(threads):
        for size in sizes:
            a, b = torch.ones(size // 8), torch.empty(size // 8)
            calls = {"copy": lambda a=a, b=b: b.copy_(a), "read": lambda a=a, b=b: torch.dot(a, b)}
            times = take_turns(calls, seconds, rounds)
            # Two arrays each: one read and one written, or two read.
            found["GBps"][size] = round(size / min(t.median for t in times.values()) / 1e9, 2)
            found["copy_GBps"] = round(size / times["copy"].median / 1e9, 2)
        for name, dtype in DTYPES.items():
            m = torch.randn(side, side).to(dtype)
            time = take_turns({"gemm": lambda m=m: m @ m}, seconds, min(rounds, 3))["gemm"].median
            found["GFLOPps"][name] = round(2 * side**3 / time / 1e9, 1)
    return found


def events(f: Callable[[], object], rounds: int) -> float:
    """Median seconds of f on the current CUDA stream."""
    pairs = []
    for _ in range(rounds):
        pair = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        pair[0].record()
        f()
        pair[1].record()
        pairs.append(pair)
    torch.cuda.synchronize()
    return sorted(a.elapsed_time(b) for a, b in pairs)[rounds // 2] / 1e3


def cuda_copy(numbers: int) -> float:
    """GB/s, read and written."""
    a, b = torch.ones(numbers, device="cuda"), torch.empty(numbers, device="cuda")
    return 8 * numbers / events(lambda: b.copy_(a), 20) / 1e9


def cuda_cache(size: int) -> float:
    """GB/s within a half of the L2, read and written again and again."""
    numbers = max(size // 16, MEGA)
    a, b = torch.ones(numbers, device="cuda"), torch.empty(numbers, device="cuda")
    b.copy_(a)
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, stream=torch.cuda.Stream()):
        for _ in range(20):
            b.copy_(a)
    graph.replay()
    return 20 * 8 * numbers / events(graph.replay, 20) / 1e9


@cache
def cuda(dry: bool = False) -> dict:
    """The same of the GPU: its memory, its L2, and products in float32, TF32 and bfloat16."""
    if dry:
        return cpu(1, True) | {"L2_bytes": 0}
    found: dict = {"GBps": {}, "GFLOPps": {}}
    properties = torch.cuda.get_device_properties(0)
    found["L2_bytes"] = properties.L2_cache_size
    found["copy_GBps"] = round(cuda_copy(2**28), 1)
    found["GBps"] = {properties.L2_cache_size: round(cuda_cache(properties.L2_cache_size), 1)}
    found["GBps"][2**31] = found["copy_GBps"]
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        for name, dtype, tf32 in (
            ("float32", torch.float32, False),
            ("tf32", torch.float32, True),
            ("bfloat16", torch.bfloat16, False),
        ):
            torch.backends.cuda.matmul.allow_tf32 = tf32
            m = torch.randn(8192, 8192, device="cuda", dtype=dtype)
            m @ m
            found["GFLOPps"][name] = round(2 * 8192**3 / events(lambda m=m: m @ m, 10) / 1e9, 1)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return found


def again(device: str, found: dict, dry: bool) -> dict:
    """A second measurement of what `found` is the first of."""
    if device == "cuda":
        return cuda.__wrapped__(dry)
    return {threads: cpu.__wrapped__(threads, dry) for threads in found}


def better(first: dict, second: dict) -> dict:
    """Of two measurements, the larger of every figure."""
    return {k: better(v, second[k]) if isinstance(v, dict) else max(v, second[k]) for k, v in first.items()}


def bandwidth(limits: dict, size: int) -> float:
    """Bytes a second within a working set of this size, of limits as measured or as they come from JSON."""
    rooms = {int(s): speed for s, speed in limits["GBps"].items()}
    return rooms[min((s for s in rooms if size <= s), default=max(rooms))] * 1e9


def share(
    seconds: float, limits: dict, dtype: str, *, bytes: int = 0, gathered: int = 0, flops: int = 0
) -> dict:
    """The least time that these limits allow over the time taken, and which of them it is.

    `bytes` pass at the bandwidth of a working set of that size, `gathered` at that of the fastest cache that was
    measured, as if every row were there already, `flops` at the speed of a matrix product, of float32 where a processor
    is slower in a shorter type.
    """
    least = {
        "memory": bytes / bandwidth(limits, bytes),
        "cache": gathered / (max(limits["GBps"].values()) * 1e9),
        "arithmetic": flops / (max(limits["GFLOPps"][t] for t in (dtype, "float32")) * 1e9),
    }
    bound = max(least, key=least.__getitem__)
    return {"share": round(least[bound] / seconds, 4), "bound": bound} if least[bound] else {}


def gpu_facts() -> dict:
    """Name, driver, clocks and memory of the GPU; empty without one."""
    if not torch.cuda.is_available():
        return {}
    p = torch.cuda.get_device_properties(0)
    found = {
        "name": p.name,
        "capability": f"{p.major}.{p.minor}",
        "SMs": p.multi_processor_count,
        "memory_GB": round(p.total_memory / 1e9, 1),
    }
    query = "driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit"
    try:
        line = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", "-i", "0"],
            capture_output=True, text=True, timeout=20, check=True,
        ).stdout  # fmt: skip
        found |= dict(zip(query.split(","), (v.strip() for v in line.split(",")), strict=False))
    except (OSError, subprocess.SubprocessError):
        found["driver_version"] = "nvidia-smi does not say"
    return found


def cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def facts() -> dict:
    return {
        "cpu_name": cpu_name(),
        "isa": torch.ops.amstel.cpu_isa(),
        "build": torch.ops.amstel.build_info(),
        "torch": torch.__version__,
        "amstel": amstel.__version__,
        "gpu": gpu_facts(),
    }
