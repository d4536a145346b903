"""Turns the committed JSON of results/ into the README's table and figure.

python -m benchmarks.report            print the table
python -m benchmarks.report --write    put it into README.md, draw docs/spmm.svg
"""

import argparse
import json
import math
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"


def load() -> tuple[list[dict], dict]:
    """All results, and the facts of the machine of the newest file."""
    files = [json.loads(p.read_text()) for p in sorted(RESULTS.glob("*.json"))]
    return [r for f in files for r in f["results"]], max(
        (f["machine_info"] for f in files), key=lambda m: m["date"]
    )


def ratios(results: list[dict], prefix: str, suffix: str = "") -> dict[str, float]:
    """Per group: seconds of the fastest peer over ours."""
    ours = "amstel"
    groups: dict[str, dict[str, float]] = defaultdict(dict)
    for r in results:
        if r["group"].startswith(prefix) and r["group"].endswith(suffix) and "median" in r:
            groups[r["group"]][r["implementation"]] = r["median"]
    return {
        g: min(t for n, t in times.items() if not n.startswith("amstel")) / times[ours]
        for g, times in groups.items()
        if ours in times
    }


def geometric_mean(values) -> float:
    values = list(values)
    return math.exp(sum(map(math.log, values)) / len(values))


def summary(name: str, found: dict[str, float], reach: str) -> str:
    worst = (max if reach.startswith("≤") else min)(found, key=found.__getitem__)
    where = worst.split("-", 2)[-1]
    return (
        f"| {name} | {reach} | {geometric_mean(found.values()):.2f}× | "
        f"{found[worst]:.2f}× ({where}) | {len(found)} |"
    )


def real(found: dict[str, float]) -> dict[str, float]:
    """Without the generated graphs, which the reach does not name."""
    return {g: v for g, v in found.items() if "-generated_" not in g} or found


def table() -> str:
    results, machine = load()
    lines = [
        f"Measured on {machine['cores']} cores of {machine['cpu']} ({machine['isa']}), {machine['threads']} threads, "
        f"torch {machine['torch']}, copy {machine['copy_GBps']} GB/s, float32 GEMM {machine['gemm_GFLOPps']} GFLOP/s, "
        f"on {machine['date']}.",
        "",
        "| what, against the best peer in the same run | reach | geometric mean | worst cell | cells |",
        "|---|---|---|---|---|",
    ]
    forward = real(ratios(results, "spmm-forward-"))
    short = {}
    times: dict[str, dict[str, float]] = defaultdict(dict)
    for r in results:
        if r["group"].startswith("spmm-forward-") and "-generated_" not in r["group"]:
            times[r["group"]][r["implementation"]] = r["median"]
    for group, t in times.items():
        if int(group.rsplit("F", 1)[1]) >= 64:
            short[group] = t["amstel"] / t["amstel bfloat16"]
    rows = [
        (
            'SpMM forward, float32, against `torch.sparse` (MKL int32, or `mm(…, "sum")`)',
            forward,
            "≥ 2.0×, ≥ 1.0× each",
        ),
        ("SpMM forward + backward to x and weights", real(ratios(results, "spmm-backward-")), "≥ 3×"),
        ("SpMM bfloat16 against our float32, F ≥ 64", short, "≥ 1.4×"),
        (
            "GCN layer forward + backward against PyG `GCNConv(cached=True)`",
            real(ratios(results, "gcn-layer-")),
            "≥ 5×",
        ),
        ("200 epochs of Kipf's GCN on Cora against PyG", ratios(results, "gcn-training-cora"), "≥ 5×"),
        ("CSR from a million edges against `to_sparse_csr`", ratios(results, "graph-construction-"), "≥ 1×"),
        (
            "ConvLSTM inference, float32, against the best of eager, channels_last and compiled cells",
            ratios(results, "conv_lstm-forward-", "float32"),
            "≥ 1.5×, ≥ 1.0× each",
        ),
        (
            "ConvLSTM forward + backward, float32",
            ratios(results, "conv_lstm-backward-", "float32"),
            "≥ 1.8×",
        ),
        ("ConvLSTM inference, bfloat16", ratios(results, "conv_lstm-forward-", "bfloat16"), "≥ 1.5×"),
        (
            "ConvLSTM forward + backward, bfloat16",
            ratios(results, "conv_lstm-backward-", "bfloat16"),
            "≥ 1.5×",
        ),
        (
            "ConvLSTM gates alone, float32, against eager gates",
            ratios(results, "conv_lstm-gates-", "float32"),
            "≥ 5×",
        ),
        ("the same with gradient", ratios(results, "conv_lstm-gates_backward-", "float32"), "≥ 5×"),
        (
            'time of `memory="recompute"` over that of `"store"`, float32 (smaller is better)',
            recompute_time(results),
            "≤ 1.35×",
        ),
        (
            "ROI pooling of channels_last input against torchvision's best layout, SINT's shape, one thread each",
            ratios(results, "roi_pool-forward-sint"),
            "≥ 30×",
        ),
        ("the same, contiguous input", ratios(results, "roi_pool-forward_nchw-sint"), "≥ 15×"),
        ("ROI pooling, random boxes", ratios(results, "roi_pool-forward-random"), "≥ 10×"),
        ("the same, contiguous input", ratios(results, "roi_pool-forward_nchw-random"), "≥ 10×"),
        ("ROI pooling with positions, as for training", ratios(results, "roi_pool-positions-"), "-"),
        ("a second thread for ROI pooling", threads(results), "≥ 1.7×"),
        ("ROI pooling backward alone, one thread", ratios(results, "roi_pool-backward1-sint"), "≥ 20×"),
        ("the same, two threads", ratios(results, "roi_pool-backward2-sint"), "≥ 20×"),
        (
            "ROI matching, two layers, against torchvision's pooling, normalisation and product",
            ratios(results, "roi_match-forward-sint"),
            "≥ 40×",
        ),
        ("the same, forward + backward", ratios(results, "roi_match-backward-sint"), "-"),
        *inverse_rows(results),
    ]
    lines += [summary(name, found, reach) for name, found, reach in rows if found]
    lines += ["", "| what | reach | measured |", "|---|---|---|"]
    memory = {r["implementation"]: r for r in results if r["group"].startswith("gcn-memory-")}
    if len(memory) == 2:
        ours, theirs = memory["amstel"]["peak_MB"], memory["torch_geometric"]["peak_MB"]
        group = memory["amstel"]["group"].removeprefix("gcn-memory-")
        lines.append(
            f"| peak memory of that layer, {group} | ≤ 1/10 of PyG's | {ours} MB, 1/{theirs / ours:.0f} of {theirs} MB |"
        )
    for r in results:
        if r["group"] == "gcn-study-cora-100-seeds":
            lines.append(
                f"| 100 seeds of 200 epochs on Cora together | ≤ 10 s | {r['seconds']} s, accuracy {100 * r['mean']:.2f} |"
            )
    lines += recompute_memory(results)
    lines += match_memory(results)
    lines += rim_memory(results)
    return "\n".join([*lines, "", *videos(), "", *tracking(), "", *restoration(), "", accuracies()])


def against(results: list[dict], prefix: str, peer: str) -> dict[str, float]:
    """Per group: seconds of one peer over ours."""
    return ratios([r for r in results if r["implementation"] in ("amstel", peer)], prefix)


def inverse_rows(results: list[dict]) -> list[tuple[str, dict[str, float], str]]:
    centred, plain = "centred FFTs and masks in 2-D", "the same without centring"
    rows = []
    for kind, name, most, least in (
        ("columns", "column mask", "≥ 8×", "≥ 4×"),
        ("points", "2-D mask", "≥ 3×", "≥ 1.5×"),
    ):
        group = f"rim-mri_{kind}-"
        rows.append(
            (f"multi-coil MRI gradient, {name}, against {centred}", against(results, group, "centred"), most)
        )
        rows.append((f"against {plain}", against(results, group, "plain"), least))
    eager = "eager channels_last"
    rows += [
        (
            "denoising gradient and the network's channels_last input, against eager",
            against(results, "rim-denoise-", eager),
            "≥ 4×",
        ),
        (
            "super-resolution gradient and the network's input, against matrices, convolutions and autograd",
            ratios(results, "rim-super_resolve"),
            "≥ 4×",
        ),
    ]
    for dtype in ("float32", "bfloat16"):
        rows += [
            (f"ConvGRU gates, {dtype}, against eager gates", ratios(results, "rim-gates-", dtype), "≥ 5×"),
            ("the same with gradient", ratios(results, "rim-gates_backward-", dtype), "≥ 5×"),
            (
                f"RIM training step (64 features, T = 10, 32x32), {dtype}, against the same network in eager PyTorch",
                ratios(results, "rim-training2-", dtype),
                "≥ 1.5×",
            ),
            ("the same on one thread", ratios(results, "rim-training1-", dtype), "≥ 1.5×"),
        ]
    return rows


def rim_memory(results: list[dict]) -> list[str]:
    found = {r["implementation"]: r for r in results if r["group"] == "rim-memory-T16"}
    if not found:
        return []
    eager, ours, chunked = (found[k]["saved_MB"] for k in ("eager", "amstel recompute", "amstel chunked"))
    return [
        f"| activations of a RIM of T = 16, recompute | ≤ 1/8 of eager's | {ours} MB, 1/{eager / ours:.1f} of {eager} MB "
        f"(chunked {chunked} MB) |"
    ]


#: PSNR in dB (and SSIM) to reach: the figures of the RIM's authors and of the literature, on the same images.
REACHES = {
    ("grey", 15): "31.31 (BM3D 31.08)",
    ("grey", 25): "28.91 (BM3D 28.56)",
    ("grey", 50): "26.06 (BM3D 25.62)",
    ("colour", 25): "30.84",
    ("set5", 2): "A+ 36.54 / .9544",
    ("set5", 3): "A+ 32.58 / .9088",
    ("set5", 4): "A+ 30.28 / .8603",
}


def restoration() -> list[str]:
    """What `amstel restore eval` wrote."""
    files = {p.stem: json.loads(p.read_text()) for p in sorted((RESULTS / "restore").glob("*.json"))}
    if not files:
        return []
    lines = [
        "| restoration with the weights that ship | before | reach | PSNR (dB) | of 8 bits | SSIM |",
        "|---|---|---|---|---|---|",
    ]
    for stem, found in files.items():
        for r in found["rows"]:
            if "sigma" in r:
                name, before = f"{found['root']}, sigma {r['sigma']:g}", f"{r['noisy']:.2f}"
                reach = REACHES.get((stem, r["sigma"]), "-")
            elif "scale" in r:
                b = r["bicubic"]
                name, before = (
                    f"{found['root']} x{r['scale']}",
                    f"bicubic {b['psnr_8bit']:.2f} / {b['ssim']:.4f}",
                )
                reach = REACHES.get((stem, r["scale"]), "-")
            else:
                continue
            lines.append(
                f"| {name} | {before} | {reach} | {r['psnr']:.2f} | {r['psnr_8bit']:.2f} | {r['ssim']:.4f} |"
            )
    if mri := files.get("mri"):
        kinds = list(dict.fromkeys(r["mask"] for r in mri["rows"]))
        scores = {(r["mask"], r["method"]): f"{r['psnr']:.2f} / {r['ssim']:.3f}" for r in mri["rows"]}
        methods = ("zero-filled", "total variation", "RIM")
        lines += [
            "",
            f"| MRI, 8-coil brain slice, PSNR / SSIM | {' | '.join(methods)} |",
            "|---|---|---|---|",
        ]
        lines += [f"| {kind} | {' | '.join(scores[kind, m] for m in methods)} |" for kind in kinds]
    return lines


def threads(results: list[dict]) -> dict[str, float]:
    times = {r["implementation"]: r["median"] for r in results if r["group"] == "roi_pool-threads-sint"}
    return {"roi_pool-threads-sint": times["one thread"] / times["amstel"]} if times else {}


def match_memory(results: list[dict]) -> list[str]:
    peak = {r["implementation"]: r["peak_MB"] for r in results if r["group"] == "roi_match-memory-sint"}
    return [
        f"| extra memory of that matching, one thread | < 2 MB | {peak['amstel']} MB (torchvision {peak['torchvision']} MB) |"
        for _ in peak and [0]
    ]


def recompute_time(results: list[dict]) -> dict[str, float]:
    times: dict[str, dict[str, float]] = defaultdict(dict)
    for r in results:
        if r["group"].startswith("conv_lstm-backward-") and r["group"].endswith("float32"):
            times[r["group"]][r["implementation"]] = r["median"]
    return {g: t["amstel recompute"] / t["amstel"] for g, t in times.items()}


def recompute_memory(results: list[dict]) -> list[str]:
    found: dict[str, dict[str, dict]] = defaultdict(dict)
    for r in results:
        if r["group"].startswith("conv_lstm-memory-"):
            found[r["group"].removeprefix("conv_lstm-memory-")][r["implementation"]] = r
    lines = []
    for workload, by in found.items():
        for key, what in (("held_MB", "memory held between the passes"), ("peak_MB", "peak of both passes")):
            ours, store = by["amstel recompute"][key], by["amstel"][key]
            theirs = min(by["eager"][key], by["eager channels_last"][key])
            lines.append(
                f"| ConvLSTM {what}, {workload}, recompute | ≤ 1/4 of eager's | "
                f"{ours} MB, 1/{theirs / ours:.1f} of {theirs} MB (store {store} MB) |"
            )
    return lines


def videos() -> list[str]:
    """What `amstel videolstm study` wrote."""
    lines = ["| VideoLSTM family, from scratch | reach | measured |", "|---|---|---|"]

    def study(name: str) -> dict:
        path = RESULTS / "video" / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def percent(x: float) -> str:
        return f"{100 * x:.1f} %"

    for run in study("weizmann").get("runs", []):
        lines.append(
            f"| Weizmann, 4 actions, leave one subject out, ConvALSTM on {run['stream']} | ≥ 95 %, < 10 min | "
            f"{percent(run['accuracy'])} in {run['seconds']:.0f} s |"
        )
    for run in study("moving_shapes").get("runs", []):
        lines.append(
            f"| direction of motion, frames {run['frames'][0]}-{run['frames'][1]}"
            f"{', clips displaced at random' if run['displaced_by'] else ''} | ≥ 99 % | {percent(run['network_last_step'])} after the last "
            f"frame, {percent(run['network'])} on average over the steps; exact "
            f"positions allow {percent(run['exact_positions']['drawn_paths'])}, one frame {percent(run['one_frame_at_a_time'])} |"
        )
    if runs := study("order").get("runs"):
        found = ", ".join(f"{r['model']} {100 * r['mean']:.1f} ± {100 * r['std']:.1f}" for r in runs)
        lines.append(
            f"| one moving shape among others, 4 directions, {len(runs[0]['accuracy'])} seeds | in this order | {found} % |"
        )
    boxes = study("localisation")
    if boxes:
        rows = {f"generated clips, {k}": v for k, v in boxes["generated"].items()} | {
            "UCF101 clip": boxes["ucf101_clip"]
        }
        for name, row in rows.items():
            lines.append(
                f"| mean IoU of boxes from attention, {name} | ≥ 2× a centre box of the true size | "
                f"{row['mean_iou']:.3f}, {row['ratio']:.2f}× of {row['centre_box_mean_iou']:.3f} |"
            )
    return lines


#: AUC and precision of Struck's and MEEM's published boxes on the same frames (`otb` protocol).
PUBLISHED = {
    "Crossing": ("0.667 / 1.000", "0.702 / 1.000"),
    "David": ("0.249 / 0.329", "0.530 / 0.992"),
    "Football1": ("0.661 / 1.000", "0.664 / 1.000"),
    "Freeman1": ("0.343 / 0.801", "0.223 / 0.411"),
    "Jogging1": ("0.170 / 0.241", "0.659 / 0.964"),
    "Jumping": ("0.612 / 1.000", "0.695 / 1.000"),
    "Man": ("0.882 / 1.000", "-"),
    "Skiing": ("0.035 / 0.037", "0.413 / 1.000"),
}


def tracking() -> list[str]:
    """What `amstel track eval` wrote: AUC / precision at 20 pixels of each sequence and setting."""
    found = {p.stem: json.loads(p.read_text()) for p in sorted((RESULTS / "tracking").glob("*.json"))}
    if not found:
        return []
    lines = [
        "| AUC / precision | Struck | MEEM | " + " | ".join(found) + " |",
        "|---|---|---|" + "---|" * len(found),
    ]

    def score(values: list[dict]) -> str:
        auc, precision = (sum(v[key] for v in values) / len(values) for key in ("auc", "precision"))
        return f"{auc:.3f} / {precision:.3f}"

    first = next(iter(found.values()))["sequences"]
    for name in first:
        ours = " | ".join(score([f["sequences"][name]]) for f in found.values())
        lines.append(f"| {name} | {' | '.join(PUBLISHED.get(name, ('-', '-')))} | {ours} |")
    for column, rows in (
        ("the 8 of Struck", list(PUBLISHED)),
        ("the 7 of both", [n for n in PUBLISHED if n != "Man"]),
    ):
        means = []
        for k in (0, 1):
            pairs = [[float(x) for x in PUBLISHED[n][k].split("/")] for n in rows if PUBLISHED[n][k] != "-"]
            full = len(pairs) == len(rows)
            means.append(
                " / ".join(f"{sum(p) / len(rows):.3f}" for p in zip(*pairs, strict=True)) if full else "-"
            )
        ours = " | ".join(score([f["sequences"][n] for n in rows]) for f in found.values())
        lines.append(f"| mean of {column} | {' | '.join(means)} | {ours} |")
    return lines


PAPER = {
    "cora_gcn": ("Cora, renormalisation (GCN)", "81.5 ± 0.3"),
    "citeseer_gcn": ("Citeseer, GCN", "70.3 ± 0.3"),
    "nell_gcn": ("NELL, GCN", "66.0 ± 1"),
    "cora_cheb3": ("Cora, Chebyshev K = 3", "79.5 ± 0.7"),
    "cora_cheb2": ("Cora, Chebyshev K = 2", "81.2 ± 0.7"),
    "cora_first_order": ("Cora, first order, W0 and W1", "80.0 ± 0.7"),
    "cora_single": ("Cora, single parameter", "79.2 ± 0.7"),
    "cora_neighbours": ("Cora, first-order term only", "80.5 ± 0.7"),
    "cora_mlp": ("Cora, MLP", "55.1 ± 0.7"),
}


def accuracies() -> str:
    lines = ["| test accuracy (%) | paper | mean ± std | seeds | stop |", "|---|---|---|---|---|"]
    for stem, (name, paper) in PAPER.items():
        path = RESULTS / "gcn" / f"{stem}.json"
        if path.exists():
            study = json.loads(path.read_text())
            stop = study["settings"]["early_stopping"]
            stop = f"{study['settings']['epochs']} epochs" if stop == "none" else f"{stop} rule"
            lines.append(
                f"| {name} | {paper} | {100 * study['mean']:.2f} ± {100 * study['std']:.2f} | {study['seeds']} | {stop} |"
            )
    return "\n".join(lines)


def figure(path: Path) -> None:
    """Speed-up of the forward product per graph and width, as bars on a log scale."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    found = ratios(load()[0], "spmm-forward-")
    cells = defaultdict(dict)
    for group, ratio in found.items():
        name, width = group.removeprefix("spmm-forward-").rsplit("-F", 1)
        cells[name][int(width)] = ratio
    widths = sorted({w for c in cells.values() for w in c})
    fig, axis = plt.subplots(figsize=(9, 3.2), layout="constrained")
    for i, width in enumerate(widths):
        at = [k + (i - (len(widths) - 1) / 2) * 0.15 for k in range(len(cells))]
        shade = plt.cm.viridis(0.15 + 0.7 * i / max(1, len(widths) - 1))
        axis.bar(
            at, [c.get(width, math.nan) for c in cells.values()], 0.14, label=f"F = {width}", color=shade
        )
    axis.axhline(1, color="0.3", linewidth=1)
    axis.set_yscale("log", base=2)
    axis.yaxis.set_major_formatter(lambda v, _: f"{v:g}×")
    axis.set_xticks(
        range(len(cells)), [n.removeprefix("generated_") for n in cells], rotation=25, ha="right", fontsize=8
    )
    axis.set_ylabel("speed-up over torch.sparse")
    axis.legend(ncols=len(widths), fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.14))
    axis.spines[["top", "right"]].set_visible(False)
    plt.rcParams["svg.hashsalt"] = "amstel"
    fig.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="update README.md and docs/spmm.svg")
    text = table()
    if not parser.parse_args().write:
        print(text)
        return
    readme = ROOT / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    readme.write_text(before + BEGIN + "\n" + text + "\n" + END + rest.split(END)[1])
    figure(ROOT / "docs" / "spmm.svg")


if __name__ == "__main__":
    main()
