"""Figures of the results: per operator, the speedup over the best peer, and the share of the limit."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path


def draw(results: dict[str, list[dict]], folder: Path) -> dict[str, str]:
    """One figure a device and stem; {name: path beside docs/benchmarks.md}."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogFormatter

    from benchmarks.report import at_most_threads, ratios

    class Times(LogFormatter):
        """2×, at as many ticks between the powers of ten as have room."""

        def __call__(self, value, position=None):
            return f"{value:g}×" if super().__call__(value, position) else ""

    plt.rcParams["svg.hashsalt"] = "amstel"  # the same bytes for the same figures
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, str] = {}
    for device, found in results.items():
        share = {
            r["group"]: r["share"] for r in at_most_threads(found) if r["dtype"] == "float32" and "share" in r
        }
        stems: dict[str, dict[str, float]] = defaultdict(dict)
        for group, ratio in ratios(found, "").items():
            stems[group.split("-")[0]][group] = ratio
        for stem, groups in stems.items():
            names = [g.removeprefix(f"{stem}-").removesuffix(f"-{device}") for g in groups]
            at = range(len(groups))
            fig, (left, right) = plt.subplots(
                1, 2, figsize=(9, 1.1 + 0.24 * len(groups)), sharey=True, layout="constrained",
                gridspec_kw={"width_ratios": [3, 1]},
            )  # fmt: skip
            left.barh(
                at, list(groups.values()), color=["#2b7a78" if r >= 1 else "#c0504d" for r in groups.values()]
            )
            left.axvline(1, color="0.3", linewidth=1)
            left.set_xscale("log")
            left.xaxis.set_major_formatter(Times())
            left.xaxis.set_minor_formatter(Times(minor_thresholds=(1.5, 0.5)))
            left.set_yticks(at, names, fontsize=7)
            left.set_ylim(len(groups) - 0.4, -0.6)
            left.set_xlabel("times as fast as the best peer")
            right.barh(at, [100 * share.get(g, 0) for g in groups], color="#8d99ae")
            right.set_xlim(0, 105)
            right.set_xlabel("% of the limit")
            fig.suptitle(f"{stem}, {device.upper()}, float32", fontsize=10)
            for axis in (left, right):
                axis.spines[["top", "right"]].set_visible(False)
                axis.tick_params(which="both", labelsize=7)
            path = folder / f"{device}_{stem}.svg"
            fig.savefig(path, metadata={"Date": None})
            plt.close(fig)
            figures[f"{device} {stem}"] = f"figures/{path.name}"
    return figures
