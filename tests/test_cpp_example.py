"""find_package(amstel) and the C++ program of examples/cpp: what is installed is enough to build on."""

import re
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


def installed(folder: Path) -> Path:
    """A prefix with what the wheel holds of CMake's files, where amstel is used from its sources."""
    config = (ROOT / "cmake" / "amstelConfig.cmake.in").read_text()
    floor = re.search(r"set\(AMSTEL_TORCH_FLOOR (\S+)\)", (ROOT / "cmake" / "torch.cmake").read_text())[1]
    for name, value in (("PROJECT_VERSION", amstel.__version__), ("AMSTEL_TORCH_FLOOR", floor)):
        config = config.replace(f"@{name}@", value)
    (share := folder / "share" / "cmake" / "amstel").mkdir(parents=True)
    (share / "amstelConfig.cmake").write_text(config)
    shutil.copy(ROOT / "cmake" / "find_torch.cmake", share)
    for parts, *headers in ("cpu", "isa.h"), ("common", "numbers.h", "roi.h"):
        (include := folder / "include" / "amstel" / parts).mkdir(parents=True)
        for header in headers:
            shutil.copy(ROOT / "csrc" / parts / header, include)
    (folder / "libamstel.so").symlink_to(_library.paths["cpu"])
    return folder


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Path:
    """The folder of the examples, built by their own CMakeLists.txt."""
    folder, root = tmp_path_factory.mktemp("programs"), prefix()
    if not (root / "share/cmake/amstel/amstelConfig.cmake").is_file():
        root = installed(tmp_path_factory.mktemp("prefix"))
    cmake = shutil.which("cmake") or pytest.fail("cmake is missing (extra amstel[test])")
    told = [f"-DCMAKE_PREFIX_PATH={root}", f"-DPython_EXECUTABLE={sys.executable}"]
    for command in ["-S", ROOT / "examples" / "cpp", "-B", folder, *told], ["--build", folder]:
        subprocess.run([cmake, *command], check=True, capture_output=True)
    return folder


@pytest.mark.slow
def test_example_builds_and_runs(programs):
    found = subprocess.run([programs / "propagate"], capture_output=True, text=True)
    assert found.returncode == 0 and "kernels: " in found.stdout, found.stderr


def test_example_calls_what_the_schemas_say():
    types = {
        "Tensor": "const Tensor&",
        "Optional[Tensor]": "const Optional&",
        "int": "int64_t",
        "float": "double",
    }
    example = " ".join((ROOT / "examples" / "cpp" / "propagate.cpp").read_text().split())
    for name, operator in (("FromCoo", "csr_from_coo"), ("Spmm", "spmm")):
        assert f'find<{name}>("amstel::{operator}")' in example
        schema = getattr(torch.ops.amstel, operator).default._schema
        takes = ", ".join(types.get(str(a.type), str(a.type)) for a in schema.arguments)
        gives = ", ".join(str(r.type) for r in schema.returns)
        gives = gives if len(schema.returns) == 1 else f"std::tuple<{gives}>"
        assert f"using {name} = {gives}({takes});" in example


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
def test_a_package_runs_without_python(programs, tmp_path):
    torch.manual_seed(0)
    model = Everything().eval()
    inputs = (torch.randn(4, 2, 3, 8, 6), torch.tensor([4, 2]), torch.randn(5, 3), torch.randn(2, 1, 4, 6, 2))
    program = torch.export.export(model, inputs)
    package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "model.pt2"))
    torch.save([list(inputs), list(model(*inputs))], tmp_path / "example.pt")
    command = [programs / "package", package, tmp_path / "example.pt"]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0 and found.stdout.count("right") == 12, found.stdout + found.stderr


def test_prefix_is_printed():
    command = [sys.executable, "-m", "amstel.info", "--cmake-prefix"]
    assert (
        Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()) == prefix()
    )
    wrong = subprocess.run([*command[:-1], "--prefx"], capture_output=True, text=True)
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1
