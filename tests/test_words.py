"""Numbers in words: singular and plural, and a deviation only where there are several values."""

import re
from pathlib import Path

import pytest

import amstel
from amstel._words import are, counted, over, percent, size


def test_counts_and_shares_in_words() -> None:
    assert [counted(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert [counted(2, noun) for noun in ("class", "box", "batch", "epoch")] == [
        "2 classes",
        "2 boxes",
        "2 batches",
        "2 epochs",
    ]
    assert (are(1), are(2), are(0)) == ("is", "are", "are")
    assert [size(n) for n in (1, 999, 196_608, 999_700, 4_215_000_000, 2 * 10**15)] == [
        "1 byte",
        "999 bytes",
        "197 kB",
        "1 MB",
        "4.21 GB",
        "2e+03 TB",
    ]
    assert (percent([2 / 3]), over(1)) == ("66.67%", "over 1 seed")
    assert (percent([0.5, 0.6]), over(2)) == ("55.00 ± 5.00%", "over 2 seeds (± standard deviation)")


def test_a_count_is_written_with_its_noun() -> None:
    """`{n} frames` says "1 frames" of one: `counted` knows better. Sizes as [H, W] or constants above 1 need none."""
    nouns = "images? clips? frames? seeds? epochs? nodes? edges? class(?:es)? graphs? pairs? videos? sequences? actors?"
    pattern = re.compile(r"\{len\([^{}]*\)\} (?:" + "|".join(nouns.split()) + r")\b")
    found = []
    for path in sorted(Path(amstel.__file__).parent.rglob("*.py")):
        found += [f"{path.name}: {m[0]}" for m in pattern.finditer(path.read_text("utf-8"))]
    # Where there are two or more.
    several = (
        "strip of {len(array)} frames",
        "{len(sources)} videos",
        "{len(found)} videos",
        "{len(record['tubes'])} actors",
    )
    assert [f for f in found if f.split(": ")[1] not in " ".join(several)] == []


def test_one_tube_in_one_video() -> None:
    from types import SimpleNamespace

    from amstel.cli import _localization

    said: list[str] = []
    found = SimpleNamespace(
        classes={},
        thresholds=[0.5],
        map=[1.0],
        recall=[1.0],
        mean_iou=1.0,
        detections=[0],
        truths=1,
        videos=1,
    )
    _localization._say(found, SimpleNamespace(say=said.append))  # type: ignore[arg-type]
    assert said[-1].startswith("1 detection of 1 tube in 1 video,")


def test_an_axis_of_epochs_has_no_fractions() -> None:
    pytest.importorskip("matplotlib")
    from amstel.plot import convergence

    axes = convergence([1.0, 0.5])
    axes.figure.canvas.draw()
    assert all(tick == int(tick) for tick in axes.get_xticks())
