"""Makes the parameters of `@suite`s, measures each group once by turns, and gives every benchmark its own samples.

pytest benchmarks                                       all of the CPU; -k, -m, --benchmark-* as in pytest-benchmark
pytest benchmarks --benchmark-json=run.json             and then: python -m benchmarks.report run.json
pytest benchmarks -m cuda                               the GPU's; -m large: what takes long
pytest benchmarks --dry                                 every code path, CUDA's too, on the CPU at tiny shapes
pytest benchmarks --compile-only -n 8                   fills the compiler's cache, so that the session that times is short
"""

from __future__ import annotations

import gc
import json
import os
import re
import time
import traceback
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch._dynamo import config as dynamo_config
from torch._functorch import config as functorch_config

from benchmarks import limits, measure
from benchmarks.suite import DTYPES, NAMES, At, Suite, assert_same, threads_of

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parse_threads(text: str) -> list[int]:
    found = [int(n) for n in text.split(",")]
    if min(found) < 1:
        raise ValueError
    return list(dict.fromkeys(found))


parse_threads.__name__ = "list of integers >= 1"


def regex(text: str) -> re.Pattern:
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError from error


regex.__name__ = "regular expression"


def pytest_addoption(parser):
    group = parser.getgroup("amstel benchmarks")
    group.addoption(
        "--threads", type=parse_threads, metavar="1,2,...",
        help="numbers of threads to measure (default: 1 and all cores)",
    )  # fmt: skip
    group.addoption("--dry", action="store_true", help="every code path once, on the CPU, at tiny shapes")
    group.addoption(
        "--lines", metavar="FILE", help="append each result to FILE as it comes, a JSON line each"
    )
    group.addoption("--only", type=regex, default="", metavar="REGEX", help="groups in which it is found")
    group.addoption(
        "--compile-only", action="store_true", help="call everything once and time nothing: for the cache"
    )
    group.addoption("--deadline", type=float, metavar="SECONDS", help="leave out what begins later than that")


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "ignore:Sparse CSR tensor support is in beta")
    config.stash[STARTED] = time.monotonic()
    measure.keep_heap()
    if not any(str(a).startswith("--benchmark-max-time") for a in config.invocation_params.args):
        config.option.benchmark_max_time = (
            0.1  # a benchmark; its group takes as many times that as it has members
        )
    functorch_config.donated_buffer = False  # a backward pass is repeated on a kept forward pass
    dynamo_config.recompile_limit = 64  # a compilation for each dtype and number of threads


def dry(config) -> bool:
    return config.getoption("dry")


def pytest_generate_tests(metafunc):
    found: Suite | None = getattr(metafunc.function, "suite", None)
    if found is None:
        return
    config = metafunc.config
    threads = config.getoption("threads") or ([1] if dry(config) else list(dict.fromkeys([1, CORES])))
    rows = [
        pytest.param(*row, id="-".join(map(str, row)), marks=marks(found, row))
        for row in found.rows(threads, dry(config))
    ]
    metafunc.parametrize(NAMES, rows)


def marks(found: Suite, row) -> list:
    workload, _, device, _, _ = row
    chosen = [pytest.mark.cuda] if device == "cuda" else []
    return [*chosen, pytest.mark.large] if found.shapes[workload].large in (True, device) else chosen


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Leaves out what is large unless asked for, and CUDA where there is none; with -m cuda it runs, and fails."""
    asked = config.getoption("markexpr")
    without = set()
    if "large" not in asked and not dry(config):
        without.add("large")
    if "cuda" not in asked and not dry(config) and not torch.cuda.is_available():
        without.add("cuda")
    only = config.getoption("only")

    def wanted(item):
        suite = getattr(getattr(item, "function", None), "suite", None)
        if any(item.get_closest_marker(name) for name in without):
            return False
        return suite is None or only.search(
            suite.group(*(item.callspec.params[k] for k in ("workload", "device")))
        )

    out = {i for i in items if not wanted(i)}
    kept = [i for i in items if i not in out]
    config.stash[GROUPS] = groups = {}
    for item in kept:
        if suite := getattr(getattr(item, "function", None), "suite", None):
            p = item.callspec.params
            groups.setdefault(suite.group(p["workload"], p["device"]), []).append(item)
    if config.getoption("compile_only"):
        kept = [group[0] for group in groups.values()]
    if config.getoption("deadline") is not None:  # the main workload of every suite first
        kept.sort(key=lambda i: rank(i) if hasattr(i.function, "suite") else 0)
    if len(kept) < len(items):
        config.hook.pytest_deselected(items=[i for i in items if i not in set(kept)])
    items[:] = kept


def rank(item) -> int:
    """The number of the workload among those of its suite and device."""
    shapes, params = item.function.suite.shapes, item.callspec.params
    return [n for n, s in shapes.items() if params["device"] in s.devices].index(params["workload"])


DEVICES = pytest.StashKey[set]()
GROUPS = pytest.StashKey[dict]()
STARTED = pytest.StashKey[float]()
RESULTS = pytest.StashKey[dict]()


@pytest.fixture
def turns(request):
    """turns(benchmark): measure the whole group at its first benchmark; report the samples of this one."""

    def report(benchmark):
        item, config = request.node, request.config
        suite, params = item.function.suite, item.callspec.params
        group = suite.group(params["workload"], params["device"])
        results = config.stash.setdefault(RESULTS, {})
        if group not in results:
            end = config.getoption("deadline")
            if end is not None and time.monotonic() - config.stash[STARTED] > end:
                pytest.skip("no time left")
            results.clear()  # groups come one after the other
            results[group] = run_group(
                request.session, suite, params["workload"], params["device"], benchmark
            )
        if config.getoption("compile_only"):
            return
        member = params["implementation"], params["threads"], params["dtype"]
        result = results[group][member]
        benchmark._mode = "turns"
        if isinstance(result, Exception):
            benchmark.has_error = True
            why = (str(result).splitlines() or [type(result).__name__])[0][:300]
            keep_line(config, group, member, {"error": why})
            if not member[0].startswith("amstel"):  # a peer's fault is said, and is not ours
                pytest.xfail(why)
            raise result
        benchmark.group = group
        benchmark.extra_info.update(result.extra)
        if benchmark.enabled:
            stats = benchmark._make_stats(result.batch)
            for seconds in result.samples:
                stats.update(seconds * result.batch)  # the plugin divides by the calls of a round
        median = sorted(result.samples)[len(result.samples) // 2]
        keep_line(config, group, member, {"median": median, **result.extra})

    return report


def keep_line(config, group, member, figures):
    if path := config.getoption("lines"):
        implementation, threads, dtype = member
        row = {
            "group": group,
            "implementation": implementation,
            "threads": threads,
            "dtype": dtype,
            **figures,
        }
        row |= {"dry": True} if dry(config) else {}
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def run_group(session, suite, workload, device, benchmark) -> dict:
    """Result, or what was raised, of every member of the group that this session runs."""
    items = session.config.stash[GROUPS][suite.group(workload, device)]
    params = [item.callspec.params for item in items]
    members = list(dict.fromkeys((p["implementation"], p["threads"], p["dtype"]) for p in params))
    session.config.stash.setdefault(DEVICES, set()).add(device)
    without_device = dry(session.config) or device == "cpu"
    context = nullcontext() if without_device else torch.cuda.stream(stream())
    with context:
        try:
            return measure_group(session.config, suite, workload, device, members, benchmark)
        finally:
            torch._dynamo.reset()  # compiled code of other groups would be tried first
            gc.collect()
            if not without_device:
                torch.cuda.synchronize()
                torch.cuda.empty_cache()


_STREAM: list = []


def stream():
    """One side stream for all CUDA work: what is captured there finds its forward pass there."""
    if not _STREAM:
        _STREAM.append(torch.cuda.Stream())
    return _STREAM[0]


def measure_group(config, suite, workload, device, members, benchmark) -> dict:
    shape, is_dry = suite.shapes[workload], dry(config)
    arguments = shape.tiny if is_dry else shape.full
    results, calls, works = {}, {}, {}
    for dtype in dict.fromkeys(m[2] for m in members):
        chosen = [m for m in members if m[2] == dtype]
        try:
            at = At("cpu" if is_dry else device, DTYPES[dtype], is_dry)
            works[dtype] = suite.build(at, *arguments)
            ready, failed = check(works[dtype], suite, chosen, device, dtype)
            calls |= ready
            results |= failed
        except Exception as error:
            results |= dict.fromkeys(chosen, error)
    if not calls or config.getoption("compile_only"):
        return results
    peaks = memory(calls, works, device, is_dry)
    run = measure.on_cuda if device == "cuda" else measure.on_cpu
    found = run(calls, float(benchmark._max_time), benchmark._min_rounds, is_dry)
    for member, result in found.items():
        _, threads, dtype = member
        work = works[dtype]
        amounts = {k: v for k in ("bytes", "gathered", "flops") if (v := getattr(work, k))}
        median = sorted(result.samples)[len(result.samples) // 2]
        rooms = measure.limits_of(device, threads, is_dry)
        units = {"units": work.units} if work.units else {}
        share = limits.share(median, rooms, work.units or dtype, **amounts)
        result.extra |= amounts | work.facts | peaks[member] | units | share
    return results | found


def check(work, suite, members, device, dtype):
    """The calls of members that agree with the judge, and the errors of those that do not."""
    ready, failed, outputs = {}, {}, {}
    ours = [i.name for i in suite.implementations if i.name.startswith("amstel")]
    here = [i.name for i in suite.implementations if dtype in i.dtypes and device in i.devices]
    judge = work.judge or next((n for n in here if n not in ours), here[0])

    def output(name):
        return work.read.get(name, lambda found: found)(work.functions[name]())

    for member in members:
        name, threads, _ = member
        try:
            if name not in outputs:
                with threads_of(threads):
                    if judge not in outputs:
                        outputs[judge] = output(judge)
                    if name != judge:
                        assert_same(name, output(name), judge, outputs[judge], dtype, work.tolerance)
                outputs.setdefault(name, None)
            ready[member] = work.functions[name]
        except Exception as error:
            traceback.clear_frames(error.__traceback__)
            failed[member] = error
    return ready, failed


def memory(calls, works, device, is_dry) -> dict:
    """Peak bytes of a call and, where a work names its forward passes, what they hold for the backward pass."""
    peak = measure.cuda_peak if device == "cuda" and not is_dry else measure.cpu_peak
    found, by_name = {}, {}
    for member, call in calls.items():
        name, _, dtype = member
        if (name, dtype) not in by_name:
            figures = {"peak_bytes": peak(call)[0]}
            if hold := works[dtype].holds.get(name):
                figures["held_bytes"] = peak(hold)[1]
            by_name[name, dtype] = figures
        found[member] = by_name[name, dtype]
    return found


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info.pop("node", None)  # the name of the machine is nobody's business
    is_dry = dry(config)
    threads = config.getoption("threads") or list(dict.fromkeys([1, CORES]))
    machine_info |= limits.facts() | {"cores": CORES, "threads": threads, "dry": is_dry}
    measured = config.stash.get(DEVICES, {"cpu"})
    machine_info["limits"] = {"cpu": {n: limits.cpu(n, is_dry) for n in threads}} if "cpu" in measured else {}
    if "cuda" in measured:
        machine_info["limits"]["cuda"] = limits.cuda(is_dry)


def pytest_benchmark_update_json(config, benchmarks, output_json):
    """The limits once more, at the end: what slowed one of the two measurements down does not limit the machine."""
    rooms = output_json["machine_info"]["limits"]
    again = {device: limits.again(device, found, dry(config)) for device, found in rooms.items()}
    output_json["machine_info"]["limits"] = rooms = limits.better(rooms, again)
    for b in output_json["benchmarks"]:
        extra, member = b["extra_info"], b["params"]
        if "share" in extra:
            found = rooms[member["device"]]
            found = found[member["threads"]] if member["device"] == "cpu" else found
            amounts = {k: extra[k] for k in ("bytes", "gathered", "flops") if k in extra}
            extra |= limits.share(b["stats"]["median"], found, extra.get("units", member["dtype"]), **amounts)


def pytest_benchmark_update_commit_info(config, commit_info):
    commit_info["project"] = "amstel"
    commit_info.pop("branch", None)


@pytest.hookimpl(hookwrapper=True)
def pytest_benchmark_compare_machine_info(machine_info, compared_benchmark):
    """What is measured differs a little in every session, and makes no other machine."""
    then = compared_benchmark["machine_info"]
    then |= {key: machine_info[key] for key in ("limits", "gpu") if key in machine_info and key in then}
    for key in ("hz_actual", "hz_actual_friendly"):
        if key in machine_info.get("cpu", {}) and key in then.get("cpu", {}):
            then["cpu"][key] = machine_info["cpu"][key]
    yield
