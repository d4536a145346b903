"""find_package(amstel) and the C++ program of examples/cpp: what is installed is enough to build on."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import amstel
from amstel import _library, ops
from tests.conftest import ROOT
from tests.operator_samples import BOXES, GRAPH


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


class Everything(torch.nn.Module):
    """A call of each operator, as an exported program makes it."""

    def __init__(self):
        super().__init__()
        self.lstm = amstel.nn.ConvLSTM(3, 8, bias=True)  # by Winograd's algorithm
        self.small = amstel.nn.ConvLSTM(8, 2, kernel_size=(1, 2), peephole=True)
        self.gru = amstel.nn.ConvGRUCell(3, 2)

    def forward(self, x, lengths, nodes, kspace):
        output, _ = self.lstm(x, lengths=lengths)
        small, (h, c) = self.small(output)
        last = x[-1]
        cell = ops.conv_lstm_cell(small[-1].repeat(1, 4, 1, 1), c[0])
        image, mask = torch.view_as_complex(kspace[:, 0]), torch.ones(kspace.shape[-2])
        mri = ops.mri_gradient(image, torch.view_as_complex(kspace), mask, None)
        return (
            output, small, h, *cell,
            self.gru(last),
            ops.spmm(GRAPH, nodes),
            ops.roi_pool(last, BOXES.float(), 2),
            ops.roi_align(last, BOXES.float(), 2),
            ops.rim_denoise_input(last, last + 1, 0.5),
            ops.rim_super_resolve_input(last, ops.bicubic_down(last, 2), 2, 0.5),
            torch.view_as_real(mri),
        )  # fmt: skip


@pytest.mark.slow
@torch.no_grad()
def test_a_package_runs_without_python(tmp_path):
    torch.manual_seed(0)
    model = Everything().eval()
    inputs = (torch.randn(4, 2, 3, 8, 6), torch.tensor([4, 2]), torch.randn(5, 3), torch.randn(2, 1, 4, 6, 2))
    program = torch.export.export(model, inputs)
    package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "model.pt2"))
    torch.save([list(inputs), list(model(*inputs))], tmp_path / "example.pt")
    compiler = os.environ.get("CXX") or shutil.which("g++") or pytest.fail("a C++ compiler is missing")
    root, library = Path(torch.__file__).parent, Path(_library.paths["cpu"])
    include = [root / "include", root / "include/torch/csrc/api/include"]
    subprocess.run(
        [compiler, "-std=c++20", ROOT / "examples/cpp/package.cpp", "-o", tmp_path / "package",
         *(f"-isystem{i}" for i in include), "-Wl,--no-as-needed", library, f"-Wl,-rpath,{root / 'lib'}:{library.parent}",
         f"-L{root / 'lib'}", "-ltorch", "-ltorch_cpu", "-lc10"],
        check=True,
    )  # fmt: skip
    found = subprocess.run(
        [tmp_path / "package", package, tmp_path / "example.pt"], capture_output=True, text=True
    )
    assert found.returncode == 0 and found.stdout.count("right") == 12, found.stdout + found.stderr


def test_prefix_is_printed():
    command = [sys.executable, "-m", "amstel.info", "--cmake-prefix"]
    assert (
        Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()) == prefix()
    )
    wrong = subprocess.run([*command[:-1], "--prefx"], capture_output=True, text=True)
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1
