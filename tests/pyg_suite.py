"""PyTorch Geometric's own tests with the layers of `amstel.interop.pyg` in the place of its own.

    python tests/pyg_suite.py CHECKOUT [FILE ...]

CHECKOUT is a checkout of PyG's repository at the version that is installed; without FILEs, all of its test files that
name one of the layers run. Each runs twice, with PyG's layers and with ours. The table gives, file by file, how many
tests pass with either and how many are skipped, with the reasons below it. What passes with PyG's layers and does not
with ours is listed, and is the exit status. FULL_TEST=1 in the environment adds the tests that PyG runs at night only.
As a plugin of pytest (`-p tests.pyg_suite`) the file swaps the layers.
"""

import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree
from collections import Counter
from pathlib import Path

LAYERS = ("GCNConv", "ChebConv", "SGConv", "APPNP", "GCN2Conv", "GCN")


def pytest_configure(config):
    """Wherever PyG has one of its layers, ours."""
    import torch_geometric.contrib.nn
    import torch_geometric.explain
    import torch_geometric.nn

    from amstel.interop import pyg

    swap = {getattr(torch_geometric.nn, name): getattr(pyg, name) for name in LAYERS}
    for name, module in list(sys.modules.items()):
        if name.startswith("torch_geometric"):
            for key, value in list(vars(module).items()):
                if isinstance(value, type) and value in swap:
                    setattr(module, key, swap[value])


def outcomes(checkout, file, ours):
    """{test: "passed", "failed" or why it was skipped} of one file, and what pytest wrote."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
            f"--junit-xml={report}", *(["-p", "tests.pyg_suite"] if ours else []), str(file),
        ]  # fmt: skip
        path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"PYTHONPATH": path}
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
        if not report.exists():
            raise SystemExit(f"{file}: pytest failed\n{done.stdout}{done.stderr}")
        found = {}
        for case in xml.etree.ElementTree.parse(report).iter("testcase"):
            kinds = {child.tag: child.get("message") for child in case}
            how = "failed" if kinds.keys() & {"failure", "error"} else kinds.get("skipped", "passed")
            found[f"{case.get('classname')}::{case.get('name')}"] = how
        return found, done.stdout


def count(found):
    """How many passed, failed and were skipped, and why."""
    passed, failed = (sum(how == kind for how in found.values()) for kind in ("passed", "failed"))
    return passed, failed, Counter(how for how in found.values() if how not in ("passed", "failed"))


def main(checkout, *files):
    checkout = Path(checkout).resolve()
    names = re.compile(rf"\b({'|'.join(LAYERS)})\b")
    chosen = [checkout / f for f in files] or sorted(
        f for f in checkout.glob("test/**/test_*.py") if names.search(f.read_text())
    )
    totals, reasons, lost = [0, 0, 0, 0, 0], Counter(), []
    print("| file | passed: ours | PyG's | failed: ours | PyG's | skipped |\n|---|---|---|---|---|---|")
    for file in chosen:
        theirs, _ = outcomes(checkout, file, ours=False)
        mine, output = outcomes(checkout, file, ours=True)
        (passed, failed, skipped), (their_passed, their_failed, _) = count(mine), count(theirs)
        row = passed, their_passed, failed, their_failed, skipped.total()
        print(f"| {file.relative_to(checkout)} | {' | '.join(map(str, row))} |", flush=True)
        totals = [a + b for a, b in zip(totals, row, strict=True)]
        reasons += skipped
        bad = [test for test, how in theirs.items() if how == "passed" != mine.get(test)]
        lost += bad
        if bad:
            print(output)
    print(f"| all | {' | '.join(map(str, totals))} |\n")
    print(*(f"{number} skipped: {why}" for why, number in reasons.most_common()), sep="\n")
    kept = totals[1] - len(lost)
    print(f"{kept} of {totals[1]} that pass with PyG's layers pass with these", *lost, sep="\n")
    return bool(lost)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
