"""PyTorch Geometric's own tests with the layers of `amstel.interop.pyg` in the place of its own.

    python tests/pyg_suite.py CHECKOUT [FILE ...]

CHECKOUT is a checkout of PyG's repository at the version that is installed; without FILEs, all of its test files that
name one of the layers run. Each runs twice, with PyG's layers and with ours; what passes with the first and does not
with the second is listed, and is the exit status. As a plugin of pytest (`-p tests.pyg_suite`) the file swaps the layers.
"""

import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree
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
    """{test: passed, failed or skipped} of one file."""
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
            kinds = {child.tag for child in case}
            failed = "failed" if kinds & {"failure", "error"} else "skipped"
            found[f"{case.get('classname')}::{case.get('name')}"] = (
                failed if kinds & {"failure", "error", "skipped"} else "passed"
            )
        return found, done.stdout


def main(checkout, *files):
    checkout = Path(checkout).resolve()
    names = re.compile(rf"\b({'|'.join(LAYERS)})\b")
    chosen = [checkout / f for f in files] or sorted(
        f for f in checkout.glob("test/**/test_*.py") if names.search(f.read_text())
    )
    total, lost = 0, []
    for file in chosen:
        theirs, _ = outcomes(checkout, file, ours=False)
        mine, output = outcomes(checkout, file, ours=True)
        passed = [test for test, how in theirs.items() if how == "passed"]
        bad = [test for test in passed if mine.get(test) != "passed"]
        total, lost = total + len(passed), lost + bad
        print(f"{file.relative_to(checkout)}: {len(passed) - len(bad)} of {len(passed)}", flush=True)
        if bad:
            print(output)
    print(f"{total - len(lost)} of {total} that pass with PyG's layers pass with these", *lost, sep="\n")
    return bool(lost)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
