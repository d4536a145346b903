"""What texts say of measurements agrees with benchmarks/results."""

import json

from benchmarks import report, report_quality
from tests.conftest import ROOT


def test_texts_agree_with_the_results_beside_them():
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for text in (report_quality.MISSED, report.CUFFT):
        assert (text in page) == (
            text is not report.CUFFT or report.load("cuda")[1]["date"] <= report.CUFFT_UNTIL
        )
    runs = json.loads((report.RESULTS / "video" / "weizmann.json").read_text())["runs"]
    missed = [f"from colors in only {r['accuracy']:.0%} of the clips" for r in runs if r["accuracy"] < 0.95]
    assert all(text in " ".join(report_quality.MISSED.split()) for text in missed)
    guide = (ROOT / "docs" / "guide" / "video.md").read_text(encoding="utf-8")
    assert "takes up to 50% more time" in guide
    for device in ("cpu", "cuda"):
        results = [r for r in report.load(device)[0] if r["group"].startswith("conv_lstm-both-")]
        key = lambda r: (r["group"], r["dtype"], r.get("threads"))  # noqa: E731
        stores = {key(r): r["median"] for r in results if r["implementation"] == "amstel"}
        again = {key(r): r["median"] for r in results if r["implementation"] == "amstel recompute"}
        slower = [again[k] / stores[k] for k in again]
        assert slower and max(slower) < 1.5
