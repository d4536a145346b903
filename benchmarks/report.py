"""Turns pytest-benchmark's JSON into docs/benchmarks.md, its figures, and the README's short table.

pytest benchmarks --benchmark-json=run.json
python -m benchmarks.report run.json --write

keeps run.json, without its individual samples, as results/cpu.json (or cuda.json), and writes the documents. Without
--write it prints the tables; without a file, those of the stored results.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import report_quality
from benchmarks.limits import bandwidth

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
#: The share of the measured limit that every operator aims at.
AIM = {"cpu": 0.7, "cuda": 0.8}


@dataclass(frozen=True)
class Row:
    """A line of the table: the groups that begin with `groups`, ours over the best peer (or over one `peer`)."""

    name: str
    groups: str
    dtype: str = "float32"
    mean: float | None = None
    each: float | None = None
    ours: str = "amstel"
    peer: str | None = None
    short: bool = False


ROWS = [
    Row("SpMM forward", "spmm-forward-", mean=2.0, each=1.0, short=True),
    Row("SpMM gradients of x and weights alone", "spmm-backward-", mean=3.0),
    Row("SpMM forward and both gradients", "spmm-both-", mean=3.0, short=True),
    Row("GCN layer forward", "gcn-forward-"),
    Row("GCN layer, forward and gradients", "gcn-both-", mean=5.0, short=True),
    Row("loss and gradients of Kipf's GCN, data of Cora's size", "gcn-step-"),
    Row("training of Kipf's GCN on Cora", "gcn-training-", mean=5.0),
    Row("CSR from a million edges", "graph-construction-", mean=1.0),
    Row("ConvLSTM forward", "conv_lstm-forward-", mean=1.5, each=1.0, short=True),
    Row("ConvLSTM gradients alone", "conv_lstm-backward-"),
    Row("ConvLSTM forward and gradients", "conv_lstm-both-", mean=1.8, short=True),
    Row("ConvLSTM forward, bfloat16", "conv_lstm-forward-", "bfloat16", mean=1.5),
    Row("ConvLSTM forward and gradients, bfloat16", "conv_lstm-both-", "bfloat16", mean=1.5),
    Row("ConvLSTM of 1x1 maps against cuDNN's LSTM", "conv_lstm-lstm-", ours="amstel 1x1"),
    Row("ConvLSTM gates alone", "conv_lstm_gates-forward-", mean=5.0),
    Row("ConvLSTM gates, forward and gradients", "conv_lstm_gates-both-", mean=5.0),
    Row("ROI pooling, SINT's shape, channels_last", "roi_pool-forward-sint", mean=30.0, short=True),
    Row("ROI pooling, SINT's shape, contiguous", "roi_pool-forward-sint", mean=15.0, ours="amstel NCHW"),
    Row("ROI pooling, random boxes, channels_last", "roi_pool-forward-random", mean=10.0),
    Row("ROI pooling, random boxes, contiguous", "roi_pool-forward-random", mean=10.0, ours="amstel NCHW"),
    Row("ROI pooling with positions, as for training", "roi_pool-positions-"),
    Row("ROI pooling, gradient alone", "roi_pool-backward-", mean=20.0),
    Row("ROI pooling, forward and gradient", "roi_pool-both-", short=True),
    Row("ROI matching of two layers", "roi_match-forward-", mean=40.0, short=True),
    Row("ROI matching, forward and gradient", "roi_match-both-"),
    Row("MRI gradient, column mask, against centered FFTs", "mri-forward-columns_", mean=8.0, peer="centered", short=True),
    Row("MRI gradient, column mask, against plain FFTs", "mri-forward-columns_", mean=4.0, peer="plain"),
    Row("MRI gradient, 2-D mask, against centered FFTs", "mri-forward-points_", mean=3.0, peer="centered", short=True),
    Row("MRI gradient, 2-D mask, against plain FFTs", "mri-forward-points_", mean=1.5, peer="plain"),
    Row("MRI gradient against deepinv's MultiCoilMRI", "mri-deepinv-"),
    Row("MRI gradient and its own gradient", "mri-both-"),
    Row("denoising gradient with the network's input", "rim_denoise-forward-", mean=4.0),
    Row("denoising gradient, input and gradients", "rim_denoise-both-"),
    Row("super-resolution gradient with the network's input", "rim_super_resolve-forward-", mean=4.0),
    Row("super-resolution gradient, input and gradients", "rim_super_resolve-both-"),
    Row("ConvGRU gates alone", "conv_gru_gates-forward-", mean=5.0),
    Row("ConvGRU gates, forward and gradients", "conv_gru_gates-both-", mean=5.0),
    Row("ConvGRU gates, forward and gradients, bfloat16", "conv_gru_gates-both-", "bfloat16", mean=5.0),
    Row("RIM, loss and gradients", "rim-training-", mean=1.5, short=True),
    Row("RIM, loss and gradients, bfloat16 autocast", "rim-training-", "bfloat16", mean=1.5),
]  # fmt: skip


def read_run(path: Path) -> dict[str, Any]:
    """The JSON of a run; ends the program with one line where the file is none of a run that measured."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not found["benchmarks"]:
            raise ValueError
    except OSError as error:
        raise SystemExit(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise SystemExit(f"{path}: expected the JSON of a run of pytest-benchmark with results") from None
    if found["machine_info"].get("dry"):
        raise SystemExit(f"{path}: a dry run; its times mean nothing")
    return found


def slim(path: Path) -> Path:
    """Keep the file among the results, without the single samples; its device names it."""
    found = read_run(path)
    for b in found["benchmarks"]:
        b["stats"].pop("data", None)
        b.pop("options", None)
    kept = RESULTS / ("cuda.json" if found["benchmarks"][0]["params"]["device"] == "cuda" else "cpu.json")
    kept.write_text(json.dumps(found, indent=1) + "\n")
    return kept


def load(device: str) -> tuple[list[dict], dict]:
    """The benchmarks of a device, flat, and the machine that they ran on; nothing where there are none."""
    path = RESULTS / f"{device}.json"
    if not path.exists():
        return [], {}
    found = json.loads(path.read_text())
    flat = [
        b["params"] | b["extra_info"] | {"group": b["group"], "median": b["stats"]["median"]}
        for b in found["benchmarks"]
    ]
    return flat, found["machine_info"] | {"date": found["datetime"][:10]}


def ratios(
    results: Iterable[dict],
    groups: str,
    dtype: str = "float32",
    ours: str = "amstel",
    peer: str | None = None,
) -> dict[str, float]:
    """Per group: seconds of the fastest peer, at its best number of threads, over ours at the largest."""
    mine: dict[str, tuple[int, float]] = {}
    theirs: dict[str, float] = defaultdict(lambda: math.inf)
    for r in results:
        if not r["group"].startswith(groups) or r["dtype"] != dtype:
            continue
        if r["implementation"] == ours:
            mine[r["group"]] = max(mine.get(r["group"], (0, 0.0)), (r["threads"], r["median"]))
        elif r["implementation"] == peer or (peer is None and not r["implementation"].startswith("amstel")):
            theirs[r["group"]] = min(theirs[r["group"]], r["median"])
    return {g: theirs[g] / time for g, (_, time) in mine.items() if g in theirs}


def geometric_mean(values: Iterable[float]) -> float:
    values = list(values)
    return math.exp(sum(map(math.log, values)) / len(values))


def named(group: str) -> str:
    """The workload in the name of a group."""
    return group.split("-", 2)[2].rsplit("-", 1)[0]


def verdict(missed: object, least: float | None, limit: float | None) -> str:
    """Of a row that missed its aim, whether anything could reach it."""
    return "" if not missed else "more than the limit" if least and limit and limit < least else "missed"


def speed(results: list[dict], device: str, short: bool = False) -> list[str]:
    """The aims of `ROWS` are the CPU's; on CUDA it is to be slower than no peer at any workload."""
    lines = [
        "| against the best peer of the same run | aim | geometric mean | worst | workloads | at the limit | |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        found = ratios(results, row.groups, row.dtype, row.ours, row.peer)
        if not found or (short and not row.short):
            continue
        mean, worst = geometric_mean(found.values()), min(found, key=found.__getitem__)
        least, each = (row.mean, row.each) if device == "cpu" else (None, 1.0)
        missed = (least and mean < least) or (each and found[worst] < each)
        parts = (least and f"≥ {least:g}×", each and f"≥ {each:g}× each")
        aim = " and ".join(part for part in parts if part)
        share = {
            r["group"]: r["share"]
            for r in at_most_threads(results, row.ours)
            if r["dtype"] == row.dtype and r.get("share")
        }
        limit = geometric_mean(found[g] / share[g] for g in found) if found.keys() <= share.keys() else None
        missed = missed or (not aim and found[worst] < 1)
        lines.append(
            f"| {row.name} | {aim or '≥ 1×'} | {mean:.2f}× | {found[worst]:.2f}× ({named(worst)}) | {len(found)} | "
            f"{'' if limit is None else f'{limit:.2f}×'} | {verdict(missed, least, limit)} |"
        )
    return lines if len(lines) > 2 else []


def at_most_threads(results: list[dict], ours: str = "amstel") -> list[dict]:
    best: dict[tuple, dict] = {}
    for r in results:
        if r["implementation"] == ours:
            key = r["group"], r["dtype"]
            best[key] = max(best.get(key, r), r, key=lambda r: r["threads"])
    return list(best.values())


def shares(results: list[dict], device: str) -> list[str]:
    """Of the limit measured in the same session, per operator and pass."""
    found: dict[tuple[str, str], list[dict]] = defaultdict(list)
    for r in at_most_threads(results):
        if "share" in r:
            found["-".join(r["group"].split("-")[:2]), r["dtype"]].append(r)
    lines = [
        f"| share of the limit, aim {AIM[device]:.0%} | geometric mean | least | bound by |",
        "|---|---|---|---|",
    ]
    for (name, dtype), rows in found.items():
        least = min(rows, key=lambda r: r["share"])
        mean = geometric_mean(r["share"] for r in rows)
        lines.append(
            f"| {name}, {dtype} | {mean:.0%} | {least['share']:.0%} ({named(least['group'])}) | {least['bound']} |"
        )
    return lines if found else []


def gathers(results: list[dict], limits: dict[str, dict]) -> list[str]:
    """For `shares`: SpMM beside the time that a row an edge takes from the cache that holds x and y. No bound: rows that
    are met again soon are nearer."""
    found = {}
    for r in at_most_threads(results):
        if r["group"].startswith("spmm-forward-") and r["dtype"] == "float32" and r.get("gathered"):
            speed = bandwidth(limits[str(r["threads"])], r["bytes"])
            found[r["group"]] = r["gathered"] / speed / r["median"]
    if not found:
        return []
    least = min(found, key=found.__getitem__)
    return [
        f"| spmm-forward, float32, with one row per edge | {geometric_mean(found.values()):.0%} | {found[least]:.0%} ({named(least)}) | "
        "cache of x and y |"
    ]


def calls(results: list[dict]) -> list[str]:
    """What a call costs that has nothing to do, beside the leanest peer's."""
    groups: dict[str, dict[str, float]] = defaultdict(dict)
    for r in results:
        if "-call" in r["group"]:
            found, name = groups[r["group"]], r["implementation"]
            found[name] = min(found.get(name, math.inf), 1e6 * r["median"])
    lines = ["| a call with nothing to do, µs | ours | leanest peer | |", "|---|---|---|---|"]
    for group, found in groups.items():
        mine = found.pop("amstel")
        peer = min(found, key=found.__getitem__)
        stem, step = group.split("-")[:2]
        what = f"{stem}, {named(group)}" + (", forward and gradients" if step == "call_both" else "")
        lines.append(f"| {what} | {mine:.1f} | {found[peer]:.1f} | {peer} |")
    return lines if groups else []


def memory(results: list[dict]) -> list[str]:
    """Peak of a call, and what a forward pass holds for the backward pass, beside the leanest peer's."""
    lines = ["| memory, MB | ours | leanest peer | ratio |", "|---|---|---|---|"]
    for key, what in (("held_bytes", "held for the backward pass"), ("peak_bytes", "at the peak of a call")):
        groups: dict[str, dict[str, int]] = defaultdict(dict)
        for r in results:
            if r["dtype"] == "float32" and r.get(key):
                groups[r["group"]][r["implementation"]] = r[key]
        for group, found in groups.items():
            if not group.startswith(
                ("gcn-both-", "conv_lstm-both-", "rim-training-", "roi_match-", "spmm-both-")
            ):
                continue
            peers = [b for n, b in found.items() if not n.startswith("amstel")]
            mine = [n for n in found if n.startswith("amstel") and n != "amstel NCHW"]
            lines += [
                f"| {group.rsplit('-', 1)[0]}, {n}, {what} | {found[n] / 1e6:.2f} | {min(peers) / 1e6:.2f} | {found[n] / min(peers):.2f} |"
                for n in mine
                if peers
            ]
    return lines if len(lines) > 2 else []


def machine_line(machine: dict, device: str) -> str:
    limits = machine["limits"][device]
    if device == "cuda":
        gpu = machine["gpu"]
        where = f"{gpu['name']}, driver {gpu.get('driver_version', '?')}"
    else:
        threads = str(max(machine["threads"]))
        limits = limits[threads]
        where = (
            f"{machine['cores']} cores of {machine['cpu_name']} ({machine['isa']}), up to {threads} threads"
        )
    return (
        f"Measured on {where}, torch {machine['torch']}, copy {limits['copy_GBps']:g} GB/s, float32 products "
        f"{limits['GFLOPps']['float32']:g} GFLOP/s, on {machine['date']}."
    )


#: The last run on a GPU that was of the code before; a later one needs no such words.
CUFFT_UNTIL = "2026-11-27"
CUFFT = """\
The MRI gradient for column masks was measured with cuFFT. A single kernel has replaced it since, and has not been timed yet;
see [its design](design/cuda.md#multi-coil-mri)."""


def document(figures: dict[str, str]) -> str:
    """docs/benchmarks.md."""
    lines = [
        "# Benchmarks",
        "",
        "`python -m benchmarks.report` generates this page from the JSON in `benchmarks/results`. A ratio is the time of the",
        "fastest peer, at its best number of threads, divided by the time of amstel at the largest; above 1×, amstel is",
        "faster. Both are medians from one run in which the implementations take turns, after their results have been compared.",
        "Memory is what torch's allocator hands out. The limit is the shortest possible time, given how much data must move and",
        "how many operations must be computed. It comes from the bandwidth of a copy (or of the cache that holds the data) and",
        'the speed of a matrix product, which are measured in the same session. "At the limit" is the ratio that amstel would',
        'reach if it took that time. Rows marked "more than the limit" have an aim above that. For SpMM, the limit counts each',
        'row of x once, but a processor has to gather a row for every edge. The line "with one row per edge" counts these, at the',
        "bandwidth of the cache that x and y fit into; it can exceed 100% where a row is soon used again. A ConvLSTM can exceed",
        "100%, too: its limit counts the products of its convolutions by definition, and Winograd's method needs fewer.",
    ]
    for device, title in (("cpu", "CPU"), ("cuda", "CUDA")):
        results, machine = load(device)
        if not results:
            lines += ["", f"## {title}", "", "Not measured yet in this form."]
            continue
        lines += ["", f"## {title}", "", machine_line(machine, device), "", *speed(results, device)]
        if device == "cuda" and machine["date"] <= CUFFT_UNTIL:
            lines += ["", CUFFT]
        lines += ["", *shares(results, device)]
        if device == "cpu":
            lines += gathers(results, machine["limits"]["cpu"])
        if found := calls(results):
            lines += ["", *found]
        lines += ["", *memory(results)]
        lines += [
            line
            for name, path in figures.items()
            if name.startswith(device)
            for line in ("", f"![{name}]({path})")
        ]
    return "\n".join([*lines, "", "## Accuracy", *report_quality.tables()]) + "\n"


def short_table() -> str:
    """The table in the README."""
    results, machine = load("cpu")
    if not results:
        return "Not measured yet in this form: `pytest benchmarks`."
    more = "[docs/benchmarks.md](docs/benchmarks.md) has the rest: every operator, shares of the limit, memory, accuracy."
    return "\n".join([machine_line(machine, "cpu"), "", *speed(results, "cpu", short=True), "", more])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", type=Path, metavar="run.json")
    parser.add_argument(
        "--write", action="store_true", help="write docs/benchmarks.md, docs/figures and README.md"
    )
    args = parser.parse_args()
    for path in args.runs:
        print(f"kept as {slim(path).relative_to(ROOT)}")
    if not args.write:
        print(document({}))
        return
    from benchmarks import report_figures

    figures = report_figures.draw({device: load(device)[0] for device in AIM}, ROOT / "docs" / "figures")
    (ROOT / "docs" / "benchmarks.md").write_text(document(figures))
    readme = ROOT / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    readme.write_text(before + BEGIN + "\n" + short_table() + "\n" + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
