"""The `compare` fixture, machine facts, and the JSON that report.py reads.

pytest benchmarks                                  print the ratios
pytest benchmarks/bench_spmm.py --json FILE        and keep them
"""

import json
import os
import platform
import time
from pathlib import Path

import pytest
import torch

import amstel
from amstel.bench import take_turns

RESULTS: list[dict] = []


def pytest_addoption(parser):
    parser.addoption("--json", dest="bench_json", metavar="FILE", help="write the results to FILE")
    parser.addoption("--threads", type=int, default=2, help="threads of every implementation (default 2)")
    parser.addoption("--seconds", type=float, default=1.0, help="time for one comparison (default 1)")


def pytest_configure(config):
    config.addinivalue_line("markers", "cuda: needs a CUDA device")
    if hasattr(config.option, "threads"):
        torch.set_num_threads(config.option.threads)


def machine_info() -> dict:
    """What the machine is and, measured now, what it can do."""
    cpu = next(
        (line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    source, target = torch.ones(2**25), torch.empty(2**25)
    a = torch.randn(1536, 1536)
    times = take_turns({"copy": lambda: target.copy_(source), "gemm": lambda: a @ a}, seconds=1.0)
    return {
        "cpu": cpu or platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "isa": torch.ops.amstel.cpu_isa(),
        "torch": torch.__version__,
        "amstel": amstel.__version__,
        "python": platform.python_version(),
        "copy_GBps": round(2 * source.numel() * 4 / times["copy"]["median"] / 1e9, 2),
        "gemm_GFLOPps": round(2 * 1536**3 / times["gemm"]["median"] / 1e9, 1),
        "date": time.strftime("%Y-%m-%d"),
    }


def say(request, line: str) -> None:
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("\n" + line, flush=True)


@pytest.fixture
def compare(request):
    """compare(group, {name: function}, **facts): time all by turns, keep and print the ratios to the first."""

    def run(group, functions, *, bytes=None, flops=None, **facts):
        times = take_turns(functions, request.config.option.seconds)
        ours = next(iter(functions))
        for name, t in times.items():
            extra = dict(facts)
            if bytes:
                extra["GBps"] = round(bytes / t["median"] / 1e9, 2)
            if flops:
                extra["GFLOPps"] = round(flops / t["median"] / 1e9, 2)
            RESULTS.append({"group": group, "implementation": name, **t, "extra_info": extra})
        ratios = {n: t["median"] / times[ours]["median"] for n, t in times.items() if n != ours}
        line = f"{group}: {ours} {times[ours]['median'] * 1e6:.0f} us"
        line += "".join(f", {name} x{ratio:.2f}" for name, ratio in ratios.items())
        say(request, line)
        return ratios

    return run


@pytest.fixture
def record(request):
    """record(group, implementation, **figures): keep what is not a time, such as bytes."""

    def keep(group, implementation, **figures):
        RESULTS.append({"group": group, "implementation": implementation, **figures})
        say(request, f"{group}: {implementation} {figures}")

    return keep


def pytest_sessionfinish(session):
    if (path := getattr(session.config.option, "bench_json", None)) and RESULTS:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(
            json.dumps({"machine_info": machine_info(), "results": RESULTS}, indent=1) + "\n"
        )
