"""The machinery of benchmarks/: what is collected, the plugin's JSON and comparison, true ratios, gpu_day.sh."""

import json
import os
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import tomllib
import torch

from amstel import _library, bench
from tests.conftest import ROOT

pytest.importorskip("pytest_benchmark", reason='the runner of benchmarks/: pip install "amstel[bench]"')
from benchmarks import gpu_day, limits, measure, report
from benchmarks.suite import threads_of

# It starts pytest itself, again and again.
pytestmark = pytest.mark.slow

SUITE = """
import torch
from benchmarks.suite import Implementation, Shape, Work, suite


@suite("sum", "forward", {"short": Shape((100,), (100,), ("cpu",))}, Implementation("amstel"),
       Implementation("right"), Implementation("wrong"), Implementation("broken"))
def test_sum(at, n):
    x = at.rand(n)

    def broken():
        raise RuntimeError("no such kernel")

    return Work({"amstel": lambda: x.sum(), "right": lambda: x.sum(), "wrong": lambda: x.sum() + 1, "broken": broken},
                bytes=4 * n)


@suite("sum", "backward", {"short": Shape((100,), (100,), ("cpu",))}, Implementation("amstel"), Implementation("right"))
def test_ours_is_wrong(at, n):
    x = at.rand(n)
    return Work({"amstel": lambda: x.sum() * float("nan"), "right": lambda: x.sum()})
"""


# Not that of a test process of its own: pytest-benchmark times nothing under pytest-xdist.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}


def run_pytest(*arguments, folder=ROOT):
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, timeout=500,
        env=ENVIRONMENT | {"PYTHONWARNINGS": "ignore", "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip
    return run.returncode, run.stdout + run.stderr


def test_collection():
    """More than 150 benchmarks on any machine, each named by all its parameters; plain pytest runs the tests alone."""
    status, out = run_pytest("benchmarks", "--collect-only", "-q", "-m", "not cuda", "--threads", "1,2")
    found = [line for line in out.splitlines() if "::" in line]
    assert status == 0 and len(found) > 150, out[-2000:]
    ids = {line.split("[")[1].rstrip("]").rsplit("-", 4)[-3:][0] for line in found}
    assert ids == {"cpu"}
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert settings["testpaths"] == ["tests"]
    assert not [line for line in found if "cuda" in line]


def test_cuda_is_collected_for_every_operator():
    status, out = run_pytest("benchmarks", "--collect-only", "-q", "-m", "cuda", "--dry")
    assert status == 0
    for stem in ("spmm", "gcn", "conv_lstm", "roi_pool", "rim", "mri"):
        assert f"bench_{stem}.py" in out
    found = {s.stem for s in gpu_day.suites()}
    assert found >= {"spmm", "gcn", "graph", "conv_lstm", "conv_lstm_gates", "roi_pool", "roi_match", "mri"}
    assert found >= {"rim", "rim_denoise", "rim_super_resolve", "conv_gru_gates"}


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory):
    """A dry run of one suite on both devices, saved: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("run")
    chosen = [
        "benchmarks",
        "--dry",
        "--only",
        "^conv_gru_gates-forward",
        f"--benchmark-storage={folder}/kept",
    ]
    status, out = run_pytest(
        *chosen, f"--benchmark-json={folder}/run.json", "--benchmark-autosave", "--lines", folder / "lines.jsonl"
    )  # fmt: skip
    assert status == 0, out[-3000:]
    return folder, chosen, out


def test_json(dry_run):
    """The plugin's own format; every sample is there, and so are machine, limits and amounts."""
    folder, _, out = dry_run
    found = json.loads((folder / "run.json").read_text())
    groups = {b["group"] for b in found["benchmarks"]}
    assert groups == {f"conv_gru_gates-forward-16x64x32x32-{d}" for d in ("cpu", "cuda")}
    assert all(f"benchmark '{group}'" in out for group in groups)
    lines = [json.loads(line) for line in (folder / "lines.jsonl").read_text().splitlines()]
    assert len(lines) == len(found["benchmarks"]) == 16
    for b, line in zip(found["benchmarks"], lines, strict=True):
        assert set(b["params"]) == {"workload", "implementation", "device", "threads", "dtype"}
        assert line["implementation"] == b["params"]["implementation"] and line["group"] == b["group"]
        assert b["stats"]["median"] == pytest.approx(line["median"]) and len(b["stats"]["data"]) >= 1
        assert {"bytes", "share", "bound", "peak_bytes"} <= set(b["extra_info"])
        if b["params"]["device"] == "cuda":
            assert {"eager_us", "host_us", "cold_us", "captured"} <= set(b["extra_info"])
    machine = found["machine_info"]
    for b in found["benchmarks"]:  # of the limits that are written beside them
        member, extra = b["params"], b["extra_info"]
        rooms = machine["limits"][member["device"]]
        rooms = rooms if member["device"] == "cuda" else rooms[str(member["threads"])]
        amounts = {k: extra[k] for k in ("bytes", "flops")}
        share = limits.share(b["stats"]["median"], rooms, extra.get("units", member["dtype"]), **amounts)
        assert share == {"share": extra["share"], "bound": extra["bound"]}
    assert {"isa", "threads", "cores", "gpu", "limits", "torch"} <= set(machine) and "node" not in machine
    assert machine["limits"]["cpu"]["1"]["GFLOPps"]["float32"] > 0


def test_compare_and_histogram(dry_run):
    folder, chosen, _ = dry_run
    options = ["--benchmark-compare", "--benchmark-group-by=param:implementation"]
    try:
        import pygal  # noqa: F401

        options.append(f"--benchmark-histogram={folder}/histogram")
    except ImportError:
        pass
    status, out = run_pytest(*chosen, *options, "--benchmark-only", "-k", "cpu and amstel")
    assert status == 0, out[-3000:]
    assert "(NOW)" in out and "(0001_" in out and "implementation=amstel" in out
    assert len(options) == 2 or list(folder.glob("histogram*.svg"))


def test_a_dry_run_is_no_result(dry_run):
    with pytest.raises(SystemExit, match="dry run"):
        report.slim(dry_run[0] / "run.json")


def test_what_differs_or_fails_is_not_timed(tmp_path):
    """Ours fails where it is wrong; a peer that is wrong or raises is named and left out; neither is timed."""
    (tmp_path / "bench_sum.py").write_text(SUITE)
    status, out = run_pytest(
        tmp_path / "bench_sum.py", "-p", "benchmarks.conftest", "--threads", 1, "--benchmark-json=run.json",
        "--benchmark-max-time=0.01", f"--rootdir={tmp_path}", "-c", os.devnull, "--lines", "lines.jsonl",
        folder=tmp_path,
    )  # fmt: skip
    assert status == 1 and "1 failed, 3 passed, 2 xfailed" in out, out[-3000:]
    assert "amstel differs from right by nan" in out
    names = [
        b["params"]["implementation"] for b in json.loads((tmp_path / "run.json").read_text())["benchmarks"]
    ]
    assert sorted(names) == ["amstel", "right", "right"]
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    errors = {(r["group"], r["implementation"]): r["error"] for r in lines if "error" in r}
    assert set(errors) == {
        ("sum-forward-short-cpu", "wrong"), ("sum-forward-short-cpu", "broken"), ("sum-backward-short-cpu", "amstel"),
    }  # fmt: skip
    assert errors["sum-forward-short-cpu", "broken"] == "no such kernel"
    assert errors["sum-forward-short-cpu", "wrong"].startswith("wrong differs from right by")


def test_turns_rotate():
    calls = []
    functions = {name: lambda name=name: (calls.append(name), time.sleep(2e-3)) for name in "abc"}
    threads = []
    before = {name: lambda name=name: threads.append(name) for name in "abc"}
    times = bench.take_turns(functions, seconds=0.0, min_rounds=3, before=before)
    # Two calls each to begin with, then per turn one untimed and one timed call.
    order = calls[6:]
    firsts = [order[k] for k in range(0, len(order), len(order) // 3)]
    assert firsts == ["a", "b", "c"]
    assert all(len(t.samples) >= 3 and t.batch == 1 for t in times.values())
    assert all(2e-3 <= t.median < 0.2 for t in times.values())
    assert threads[3:6] == ["a", "b", "c"]


def test_ratios_agree_with_an_independent_measurement():
    """What goes into the JSON against plain interleaved calls, within 5 %, in undisturbed moments of a busy machine."""
    a, b = torch.randn(120, 120), torch.randn(300, 300)
    ours, peer = (("amstel", 1, "float32"), a), (("peer", 1, "float32"), b)
    reported, own = ([], []), ([], [])
    for _ in range(10):
        found = measure.on_cpu({m: lambda t=t: t @ t for m, t in (ours, peer)}, 0.2, 20, False)
        for samples, (member, _) in zip(reported, (ours, peer), strict=True):
            samples.extend(found[member].samples)
        with threads_of(1):
            for _ in range(30):
                for samples, t, n in ((own[0], a, 30), (own[1], b, 3)):
                    t @ t
                    start = time.perf_counter()
                    for _ in range(n):
                        t @ t
                    samples.append((time.perf_counter() - start) / n)
        ratios = [np.quantile(p, 0.1) / np.quantile(o, 0.1) for o, p in (reported, own)]
        if abs(ratios[0] / ratios[1] - 1) < 0.05:
            return
    raise AssertionError(f"reported {ratios[0]:.2f}, by hand {ratios[1]:.2f}")


def test_peak_memory():
    """Of a call, the tensors that are alive at once; and what is alive at its end."""

    def call():
        a = torch.ones(1000, 1000)
        b = a + 1
        del a
        return b

    assert measure.cpu_peak(call) == pytest.approx((8e6, 4e6), rel=1e-4)


def test_share_of_the_limit():
    machine = {"GBps": {1000: 100.0, 10**9: 10.0}, "GFLOPps": {"float32": 50.0}}
    assert limits.share(1.0, machine, "float32", bytes=5 * 10**9) == {"share": 0.5, "bound": "memory"}
    assert limits.share(1.0, machine, "float32", flops=25 * 10**9) == {"share": 0.5, "bound": "arithmetic"}
    machine["GFLOPps"]["bfloat16"] = 5.0  # emulated: float32 is the faster way
    assert limits.share(1.0, machine, "bfloat16", flops=25 * 10**9) == {"share": 0.5, "bound": "arithmetic"}
    small = limits.share(1.0, machine, "float32", bytes=800, gathered=50 * 10**9)
    assert small == {"share": 0.5, "bound": "cache"}


def test_a_limit_is_the_better_of_two_measurements():
    first = {"cpu": {1: {"GBps": {1000: 100.0, 2000: 9.0}, "copy_GBps": 5.0}}}
    second = {"cpu": {1: {"GBps": {1000: 80.0, 2000: 10.0}, "copy_GBps": 6.0}}}
    best = {"cpu": {1: {"GBps": {1000: 100.0, 2000: 10.0}, "copy_GBps": 6.0}}}
    assert limits.better(first, second) == best


def test_report(tmp_path, monkeypatch):
    """Ours at the largest number of threads against the best peer at its best; a missed aim says so."""
    monkeypatch.setattr(report, "RESULTS", tmp_path)

    def row(implementation, threads, median, device="cpu"):
        params = {"workload": "cora_F16", "implementation": implementation, "device": device, "threads": threads, "dtype": "float32"}  # fmt: skip
        return {
            "group": f"spmm-forward-cora_F16-{device}", "params": params, "options": {},
            "extra_info": {"share": 0.5, "bound": "memory", "bytes": 900, "gathered": 10**10}, "stats": {"median": median, "data": [median]},
        }  # fmt: skip

    limit = {"copy_GBps": 10.0, "GBps": {"1000": 20.0, "2000": 5.0}, "GFLOPps": {"float32": 50.0}}
    machine = {
        "cores": 2, "cpu_name": "a processor", "isa": "avx2", "threads": [1, 2], "torch": "2.14", "limits": {"cpu": {"2": limit}},
    }  # fmt: skip
    rows = [
        row("amstel", 1, 4.0),
        row("amstel", 2, 2.0),
        row("slow", 2, 9.0),
        row("fast", 1, 3.0),
        row("fast", 2, 5.0),
    ]
    run = tmp_path / "run.json"
    run.write_text(
        json.dumps({"machine_info": machine, "benchmarks": rows, "datetime": "2026-11-26T00:00:00"})
    )
    assert report.slim(run) == tmp_path / "cpu.json"
    results, _ = report.load("cpu")
    assert report.ratios(results, "spmm-forward-") == {"spmm-forward-cora_F16-cpu": 1.5}
    text = report.document({})
    assert "| SpMM forward | ≥ 2× and ≥ 1× each | 1.50× | 1.50× (cora_F16) | 1 | 3.00× | missed |" in text
    assert report.verdict(True, 5.0, 3.0) == "more than the limit" and report.verdict(False, 5.0, 3.0) == ""
    assert "| spmm-forward, float32 | 50% | 50% (cora_F16) | memory |" in text
    assert (
        "| spmm-forward, float32, with one row per edge | 25% | 25% (cora_F16) | cache of x and y |" in text
    )
    assert "up to 2 threads" in report.short_table() and "data" not in (tmp_path / "cpu.json").read_text()


# ---- gpu_day.sh ----


def gpu_day_sh(*arguments, **environment):
    run = subprocess.run(
        [str(ROOT / "benchmarks" / "gpu_day.sh"), *map(str, arguments)], capture_output=True, text=True, timeout=500,
        env=ENVIRONMENT | {"PYTHON": sys.executable, "PYTHONWARNINGS": "ignore"} | environment,
    )  # fmt: skip
    return run.returncode, run.stdout, run.stderr


def wheel(folder, tag="any", libraries=("libamstel.so", "libamstel_cuda.so")):
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"amstel-0.1.0-py3-none-{tag}.whl", "w") as archive:
        for name in libraries:
            archive.writestr(f"amstel/{name}", b"")
    return folder


def test_gpu_day_bad_calls(tmp_path):
    """One line on stderr and exit status 2."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "amstel-0.1.0-py3-none-any.whl").write_text("no zip")
    two = wheel(tmp_path / "two")
    wheel(two, "linux_x86_64")
    cases = {
        (): "expected three folders",
        ("-", "-", tmp_path, "--fast"): "unknown option --fast",
        ("-", "-", tmp_path, "--only"): "--only: expected a regular expression",
        (tmp_path / "none", "-", tmp_path): "WHEELS: expected a folder",
        (tmp_path / "empty", "-", tmp_path): "WHEELS: expected one amstel-*.whl .* got none",
        (
            two,
            "-",
            tmp_path,
        ): "WHEELS: expected one amstel-*.whl .* got amstel-0.1.0-py3-none-any.whl, amstel",
        (tmp_path / "torn", "-", tmp_path): "is not a wheel",
        (wheel(tmp_path / "other", "manylinux_2_28_riscv64"), "-", tmp_path): "is for another machine",
        (wheel(tmp_path / "cpu", libraries=["libamstel.so"]), "-", tmp_path): "was built without CUDA",
        ("-", "-", tmp_path): "finds no CUDA device",
        ("-", tmp_path / "none", tmp_path / "out", "--dry"): "DATA: expected a folder",
        ("-", "-", tmp_path / "torn" / "amstel-0.1.0-py3-none-any.whl" / "out", "--dry"): "OUT: cannot make",
    }
    for arguments, expected in cases.items():
        status, out, err = gpu_day_sh(*arguments, CUDA_VISIBLE_DEVICES="")
        assert status == 2 and out == "", (arguments, status, out, err)
        assert len(err.strip().splitlines()) == 1 and err.startswith("gpu_day: "), err
        assert all(part in err for part in expected.split(" .* ")), (expected, err)


def test_gpu_day_architectures():
    """The images in the built library; a cubin runs on its generation, PTX on what comes later."""
    path = _library.find("libamstel_cuda")
    if path is not None:
        assert {kind for kind, _ in gpu_day.architectures(path.read_bytes())} <= {gpu_day.PTX, gpu_day.CUBIN}
        assert any(arch == 90 for _, arch in gpu_day.architectures(path.read_bytes()))
    images = [(gpu_day.CUBIN, 80), (gpu_day.CUBIN, 90), (gpu_day.PTX, 100)]
    on = {capability: gpu_day.runs_on(images, capability) for capability in (75, 80, 86, 90, 100, 120)}
    assert on == {75: False, 80: True, 86: True, 90: True, 100: True, 120: True}
    assert gpu_day.architectures(b"nothing of the kind") == []


def test_gpu_day_dry(tmp_path):
    """All stages at tiny shapes on the CPU, in at most 8 files, the summary with the worst ratio first."""
    status, out, err = gpu_day_sh(
        "-", "-", tmp_path / "out", "--dry", "--only", "^(roi_match-forward|mri-forward)"
    )
    assert status == 0, out + err
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names <= {
        "info.txt", "tests.log", "tests.xml", "bench.log", "lines.jsonl", "cuda.json", "kernels.txt", "summary.txt",
    }  # fmt: skip
    summary = (tmp_path / "out" / "summary.txt").read_text()
    assert summary in out and "a dry run" in summary and "0 failed" in summary
    ratios = [float(line.split("x ")[0]) for line in summary.splitlines() if "x  " in line]
    assert len(ratios) == 3 and ratios == sorted(ratios)
    assert "ran roi_match-forward-sint-cuda float32" in (tmp_path / "out" / "kernels.txt").read_text()
    assert len(summary.splitlines()) < 50


def test_gpu_day_summary_names_what_failed(tmp_path, capsys):
    rows = [
        {"group": "spmm-forward-a-cuda", "implementation": "amstel", "dtype": "float32", "median": 2e-6, "captured": "no: x"},
        {"group": "spmm-forward-a-cuda", "implementation": "cuSPARSE", "dtype": "float32", "median": 1e-6},
        {"group": "spmm-forward-b-cuda", "implementation": "amstel", "dtype": "float32", "error": "illegal memory access"},
    ]  # fmt: skip
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "tests.log").write_text("...\n3 failed, 411 passed in 90s\n")
    assert gpu_day.summary(tmp_path) == 1
    said = capsys.readouterr().out
    assert "3 failed, 411 passed" in said and "illegal memory access" in said
    assert "0.50x  spmm-forward-a-cuda float32" in said and "cannot capture: 1" in said


def test_nothing_to_time_is_said():
    from amstel.bench import take_turns

    with pytest.raises(
        ValueError, match=r"`functions` must be a dict of one or more functions, by name, got \{\}"
    ):
        take_turns({})
