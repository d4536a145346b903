"""find_package(amstel) and the C++ program of examples/cpp: what is installed is enough to build on."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from amstel import _library
from tests.conftest import ROOT


def prefix() -> Path:
    return Path(_library.paths["cpu"]).parent


@pytest.mark.slow
def test_example_builds_and_runs(tmp_path):
    if not (prefix() / "share/cmake/amstel/amstelConfig.cmake").is_file():
        pytest.skip(f"amstel is not installed but used from its sources: no share/cmake in {prefix()}")
    cmake = shutil.which("cmake") or pytest.fail("cmake is missing (extra amstel[test])")
    run = lambda *command: subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: E731
    run(
        cmake,
        "-S",
        str(ROOT / "examples" / "cpp"),
        "-B",
        str(tmp_path),
        f"-DCMAKE_PREFIX_PATH={prefix()}",
        f"-DPython_EXECUTABLE={sys.executable}",
    )
    run(cmake, "--build", str(tmp_path))
    assert "kernels: " in run(str(tmp_path / "propagate"))


def test_prefix_is_printed():
    command = [sys.executable, "-m", "amstel.info", "--cmake-prefix"]
    assert (
        Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()) == prefix()
    )
    wrong = subprocess.run([*command[:-1], "--prefx"], capture_output=True, text=True)
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1
