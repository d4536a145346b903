"""docs/design/cuda.md: every measured time is one of benchmarks/results/cuda.json, and no kernel is left out."""

import json
import re
from pathlib import Path

import pytest

from tests.cuda_emulator import toolchain

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/design/cuda.md").read_text()
NOTHING = "–"


def tables():
    """The rows of every table of the page with measured times, as {column: cell}; an empty cell repeats the one above."""
    for block in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE):
        header, _, *lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines()]
        if not {"benchmark", "measured"} <= set(header):
            continue
        above = dict.fromkeys(header, "")
        for line in lines:
            above = {name: cell or above[name] for name, cell in zip(header, line, strict=True)}
            yield above


def times():
    """{group: {dtype: {implementation: microseconds}}}"""
    found = {}
    for run in json.loads((ROOT / "benchmarks/results/cuda.json").read_text())["benchmarks"]:
        by_dtype = found.setdefault(run["group"], {}).setdefault(run["params"]["dtype"], {})
        by_dtype[run["params"]["implementation"]] = run["stats"]["median"] * 1e6
    return found


def agrees(cell, value):
    """Whether a cell is the value, rounded to as many places as the cell has."""
    places = len(cell.partition(".")[2])
    return abs(float(cell.replace(",", "")) - value) <= 0.5 * 10**-places + 1e-9


ROWS = list(tables())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['benchmark']}-{row.get('dtype', '')}")
def test_measured_times_are_those_of_the_record(row):
    found = times().get(row["benchmark"].strip("`") + "-cuda", {}).get(row.get("dtype", "float32"))
    if found is None:
        assert row["measured"] == row["peer"] == row["share"] == NOTHING
        return
    assert agrees(row["measured"], found["amstel"]), found
    peers = [time for name, time in found.items() if not name.startswith("amstel")]
    assert agrees(row["peer"], min(peers)), found
    share = float(row["predicted"]) / float(row["measured"])
    assert agrees(row["share"].removesuffix(" %"), 100 * share)


def test_the_page_has_such_rows():
    assert sum(row["measured"] != NOTHING for row in ROWS) > 30


@pytest.mark.parametrize("stem", toolchain.stems())
def test_every_kernel_file_is_on_the_page(stem):
    assert f"`{stem}.cuh`" in PAGE
