"""The CUDA emulator is itself tested: correct kernels give NumPy's results, planted bugs are reported."""

import subprocess
import sys
import time

import numpy as np
import pytest

from tests.cuda_emulator import build, ptx

SOURCE = "planted_bugs.cu"
EDGES = [1, 31, 32, 33, 255, 256, 257, 1000]


@pytest.fixture(params=ptx.engines())
def kernels(request):
    """The sample kernels on the emulator (all three thread orders) and as PTX."""
    return request.param(SOURCE)


@pytest.fixture
def emulated():
    return build.load(SOURCE)


def blocks_for(n, per_block):
    return -(-n // per_block)


# ---- Correct kernels ----


@pytest.mark.parametrize("n", EDGES)
@pytest.mark.parametrize("name, dtype, threads", [("f32", np.float32, 128), ("f64", np.float64, 256)])
def test_correct_block_sum(kernels, name, dtype, threads, n):
    x = np.random.default_rng(n).integers(-50, 50, n).astype(dtype)
    blocks = blocks_for(n, threads)
    sums = np.full(blocks, np.nan, dtype)
    kernels[f"block_sum_{name}"].launch(blocks, threads, [x, sums, n])
    np.testing.assert_array_equal(sums, np.pad(x, (0, blocks * threads - n)).reshape(blocks, threads).sum(1))


@pytest.mark.parametrize("n", EDGES)
def test_correct_block_scan(kernels, n):
    x = np.random.default_rng(n).integers(-50, 50, n).astype(np.int32)
    y = np.zeros_like(x)
    kernels["block_scan"].launch(blocks_for(n, 256), 256, [x, y, n])
    expected = np.concatenate([np.cumsum(x[i : i + 256]) for i in range(0, n, 256)])
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("n", EDGES)
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_correct_scale(kernels, dtype, n):
    x = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    if dtype == "bf16":
        x = build.to_bfloat16(x)
        expected = build.to_bfloat16(build.from_bfloat16(x) * np.float32(1.7))
    else:
        x = x.astype(np.float16 if dtype == "f16" else np.float32)
        expected = (x.astype(np.float32) * np.float32(1.7)).astype(x.dtype)
    y = np.zeros_like(x)
    kernels[f"scale_{dtype}"].launch(blocks_for(n, 128 * 16 // x.itemsize), 128, [x, y, 1.7, n])
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("n", [0, *EDGES])
def test_correct_histogram(kernels, n):
    x = np.random.default_rng(n).integers(0, 300, n).astype(np.int32)
    counts = np.zeros(300, np.uint32)
    kernels["histogram"].launch(3, 256, [x, counts, n, 300], shared=4 * 300)
    np.testing.assert_array_equal(counts, np.bincount(x, minlength=300))


@pytest.mark.parametrize("width", [8, 32])
def test_correct_reverse_runs(kernels, width):
    x = np.arange(3 * 64 * 4, dtype=np.float32)
    y, lanes = np.zeros_like(x), np.zeros(3 * 64, np.int32)
    kernels[f"reverse_runs_{width}"].launch(3, 64, [x, y, lanes], shared=64 * 4 * 4 + 64 * 4)
    np.testing.assert_array_equal(y, x.reshape(-1, 4 * width)[:, ::-1].reshape(-1))
    np.testing.assert_array_equal(lanes, width // 2)


@pytest.mark.parametrize("name, dtype, width", [("f32", np.float32, 8), ("f16", np.float16, 32)])
def test_correct_row_sum(kernels, name, dtype, width):
    x = np.random.default_rng(0).integers(-9, 9, (37, 53)).astype(dtype)
    sums = np.zeros(37, dtype)
    kernels[f"row_sum_{name}"].launch(blocks_for(37 * width, 128), 128, [x, sums, 37, 53])
    np.testing.assert_array_equal(sums, x.sum(1))


# ---- Planted bugs ----

X = np.arange(64, dtype=np.int32)
BUGS = {
    "missing_barrier": (
        64,
        [X, 64],
        r"shared race: .* 'tile' .* thread \(\d+, 0, 0\)|uninitialized shared read",
    ),
    "missing_second_barrier": (64, [X, 64], r"shared race: .* 'tile' .* with no barrier"),
    "missing_syncwarp": (32, [X, 32], r"shared race: reads 'tile' .* wrote with no barrier"),
    "atomic_and_plain": (64, [64], r"shared race: .* 'counter'"),
    "shared_out_of_bounds": (32, [32], r"shared access out of bounds: writes 'tile' .*element 32 of 32"),
    "dynamic_out_of_bounds": (64, [64], r"out of bounds: writes 'dynamic shared memory' .*element \d+ of 32"),
    "shared_misaligned": (48, [np.zeros(48, np.float32)], r"misaligned shared access"),
    "global_misaligned": (
        8,
        [np.zeros(16, np.float32), np.zeros(16, np.float32)],
        r"misaligned global access of 16",
    ),
    "uninitialized_read": (64, [64], r"thread \(5, 0, 0\): uninitialized shared read: reads 'tile'"),
    "global_write_out_of_bounds": (64, [8, 8], r"global write out of bounds: argument 0 .* first at byte 32"),
    "exit_before_barrier": (64, [64], r"barrier divergence: .* for thread \(3, 0, 0\), which has ended"),
    "divergent_barrier": (64, [64], r"barrier divergence: .*__syncthreads \(planted_bugs.cu:\d+\) while"),
    "caller_outside_mask": (32, [32], r"__shfl_sync .*: lane \d+ calls but is not in the mask"),
    "source_outside_mask": (32, [32], r"__shfl_down_sync .*: reads lane \d+, which is not in the mask"),
    "named_lane_ended": (32, [32], r"waits in __shfl_xor_sync .* for lane 7, which has ended"),
    "deadlock": (32, [32], r"deadlock: .* waits in __shfl_sync .* for lane 16, which waits in __syncthreads"),
}


def bug_arguments(name):
    """A number stands for an array of that many zeros; the global write gets its length too."""
    threads, arguments, _ = BUGS[name]
    arrays = [np.zeros(a, np.int32) if isinstance(a, int) else a.copy() for a in arguments]
    if name == "global_write_out_of_bounds":
        arrays[1] = 8
    return threads, arrays


@pytest.mark.parametrize("order", [*build.ORDERS, "all"])
@pytest.mark.parametrize("name", BUGS)
def test_planted_bug(emulated, name, order):
    threads, arguments = bug_arguments(name)
    with pytest.raises(build.EmulationError, match=BUGS[name][2]) as report:
        emulated[name].launch(1, threads, arguments, shared=128, order=order)
    assert name in str(report.value)


def test_order_dependence(emulated):
    """No check of a single run can see it: only the comparison of the three orders does."""
    y = np.zeros(1, np.int32)
    for order, last in (("forward", 31), ("reversed", 0)):
        emulated["order_dependent"].launch(1, 32, [y], order=order)
        assert y[0] == last
    with pytest.raises(build.EmulationError, match="argument 0 depends on the order of the threads"):
        emulated["order_dependent"].launch(1, 32, [y])


def test_usable_after_errors(emulated):
    """A failed launch leaves nothing behind: no fibers that wait, no state of the block."""
    for _ in range(3):
        for name in BUGS:
            threads, arguments = bug_arguments(name)
            with pytest.raises(build.EmulationError):
                emulated[name].launch(1, threads, arguments, shared=128)
        y = np.zeros(1000, np.int32)
        emulated["iota"].launch(4, 256, [y, 1000])
        np.testing.assert_array_equal(y, np.arange(1000))


@pytest.mark.parametrize(
    "grid, block, shared", [(0, 32, 0), (1, 1025, 0), ((1, 65536), 1, 0), (1, 32, 228 * 1024)]
)
def test_bad_launch(emulated, grid, block, shared):
    with pytest.raises(
        build.EmulationError, match=r"kernel iota: (invalid launch configuration|.* shared memory)"
    ):
        emulated["iota"].launch(grid, block, [np.zeros(4, np.int32), 4], shared=shared)


def test_bad_arguments(emulated):
    with pytest.raises(TypeError, match="takes 2 arguments"):
        emulated["iota"].launch(1, 32, [np.zeros(4, np.int32)])
    with pytest.raises(TypeError, match="argument 1: wants i"):
        emulated["iota"].launch(1, 32, [np.zeros(4, np.int32), np.zeros(4)])
    with pytest.raises(ValueError, match="C-contiguous"):
        emulated["iota"].launch(1, 32, [np.zeros(8, np.int32)[::2], 4])


PTX_BUGS = [name for name in BUGS if name != "missing_syncwarp"]  # of which the simulator makes no point


@pytest.mark.nvcc
@pytest.mark.parametrize("name", PTX_BUGS)
def test_planted_bug_in_ptx(name):
    """The simulator finds them in the PTX too, so the same launch serves both."""
    kernel = ptx.load(SOURCE)[name]
    threads, arguments = bug_arguments(name)
    with pytest.raises(ptx.simulator().PTXError):
        kernel.launch(1, threads, arguments, shared=128)


# ---- Sanitizers ----

READ_OUT_OF_BOUNDS = """
import numpy as np
from tests.cuda_emulator import build
x, y = np.zeros({n}, np.int32), np.zeros({n}, np.int32)
build.load("planted_bugs.cu")["global_read_out_of_bounds"].launch(1, 64, [x, y, {n}])
print("not reported")
"""


@pytest.mark.slow
@pytest.mark.parametrize("n", [8, 7])
def test_sanitizer_reports_global_read(n):
    result = build.run_sanitized(["-c", READ_OUT_OF_BOUNDS.format(n=n)])
    assert result.returncode != 0 and "not reported" not in result.stdout
    assert "AddressSanitizer: use-after-poison" in result.stderr, result.stderr
    assert "global_read_out_of_bounds" in result.stderr


@pytest.mark.slow
def test_sanitized_emulator():
    """All of this file that runs on the emulator: correct kernels are clean, errors unwind cleanly.

    The planted global write is left out: there AddressSanitizer ends the process, as it should."""
    chosen = "(test_correct and emulator) or test_planted_bug or usable or bad"
    others = "ptx or sanitize or global_write or usable"
    command = [
        "-m",
        "pytest",
        "-q",
        "--capture=no",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        __file__,
        "-k",
        f"({chosen}) and not ({others})",
    ]
    result = build.run_sanitized(command)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert " passed" in result.stdout


# ---- The rest ----


def test_missing_compiler(tmp_path):
    """Without a compiler the tests fail and say why; they do not skip."""
    code = "from tests.cuda_emulator import build; build.load('planted_bugs.cu')"
    environment = {"CXX": "no-such-compiler", "PATH": str(tmp_path), "AMSTEL_EMULATOR_BUILD": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=build.ROOT, env=environment, capture_output=True, text=True
    )
    assert result.returncode != 0 and "no-such-compiler is not on PATH" in result.stderr


def test_speed(emulated):
    """Far below what a quiet machine does (see the assertion message), but above what a slip would leave."""
    n = 1 << 21
    y = np.zeros(n, np.int32)
    start = time.perf_counter()
    emulated["iota"].launch(n // 256, 256, [y, n], order="forward")
    rate = n / (time.perf_counter() - start)
    np.testing.assert_array_equal(y[::4096], np.arange(0, n, 4096))
    assert rate > 1e6, f"{rate / 1e6:.1f} million threads a second"


def test_emulated_operator():
    """A launch wrapper on torch's stable ABI takes the CPU key from the CPU kernel, and gives it back."""
    torch = pytest.importorskip("torch")
    x = torch.randn(3, 333)
    schema = torch.library.Library("amstel_sample", "DEF")
    schema.define("twice(Tensor x) -> Tensor")
    schema.impl("twice", lambda x: x + 100, "CPU")
    twice = torch.ops.amstel_sample.twice
    library = build.build_emulated_library(["tests/cuda_emulator/sample_op.cu"])
    for order in build.ORDERS:
        with build.emulated_operators(library, order):
            torch.testing.assert_close(twice(x), 2 * x, rtol=0, atol=0)
            assert twice(x[:0]).shape == (0, 333)
        torch.testing.assert_close(twice(x), x + 100)
