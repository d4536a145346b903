"""Whether one model is better than another on the same seeds: the mean difference with its confidence interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from amstel import _check
from amstel._optional import need


def gap(better: Sequence[float], worse: Sequence[float]) -> dict[str, Any]:
    """The mean of the differences, seed by seed, and its 95% interval by Student's t with n - 1 degrees of freedom.

    Returns {"mean", "low", "high", "noise"}; "noise" says that 0 lies in the interval.
    """
    if len(better) != len(worse) or len(better) < 2:
        _check.fail("worse", f"as many seeds as the other has, {len(better)}, and two or more", worse)
    student = need("scipy.stats", extra="video", purpose="amstel video study").t
    differences = [a - b for a, b in zip(better, worse, strict=True)]
    count = len(differences)
    mean = sum(differences) / count
    spread = math.sqrt(sum((d - mean) ** 2 for d in differences) / (count - 1) / count)
    half = float(student.ppf(0.975, count - 1)) * spread
    return {"mean": mean, "low": mean - half, "high": mean + half, "noise": mean - half <= 0 <= mean + half}


def with_gaps(found: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """A study ordered from the best model to the worst, with the gaps between neighbors, one line each."""
    found["gaps"] = []
    for first, second in pairwise(found["runs"]):
        one = gap(first["accuracy"], second["accuracy"])
        found["gaps"].append({"better": first["model"], "worse": second["model"], **one})
        verdict = "within noise" if one["noise"] else "beyond noise"
        say(
            f"{first['model']} - {second['model']}: {100 * one['mean']:.1f} points, 95% interval "
            f"{100 * one['low']:.1f} to {100 * one['high']:.1f}: {verdict}"
        )
    return found
