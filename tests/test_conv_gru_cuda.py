"""The CUDA side of the ConvGRU gates without a GPU: the kernels on the emulator and as PTX against NumPy in float64,
the launch wrappers on the emulator against the operators of the CPU."""

import contextlib

import numpy as np
import pytest
import torch

import amstel
from amstel.testing import assert_close
from tests import test_conv_gru
from tests.cuda_emulator import build, ptx
from tests.test_conv_lstm_cuda import DTYPES, INSTANCES, SHAPES, sigmoid, tensor
from tests.test_spmm_cuda import THREADS, close, down, struct, up, zeros

SOURCE = "conv_gru_instances.cu"
WIDTHS = {
    name: (dtype, width) for name, (dtype, _, width, _) in INSTANCES.items() if not name.endswith("_short")
}
ops = torch.ops.amstel


# ---- The formulas, in float64 ----


def forward(gates_x, gates_h, h):
    """gates [rows, 3, inner] -> the new state and r, z, n, h_n"""
    r, z = (sigmoid(gates_x[:, i] + gates_h[:, i]) for i in (0, 1))
    n = np.tanh(gates_x[:, 2] + r * gates_h[:, 2])
    return (1 - z) * n + z * h, np.stack([r, z, n, gates_h[:, 2]], 1)


def backward(grad, activated, h):
    """-> the gradients of both gates and of the state"""
    r, z, n, h_n = activated.swapaxes(0, 1)
    d_n = grad * (1 - z) * (1 - n * n)
    d_r, d_z = d_n * h_n * r * (1 - r), grad * (h - n) * z * (1 - z)
    return np.stack([d_r, d_z, d_n], 1), np.stack([d_r, d_z, d_n * r], 1), grad * z


# ---- The kernels, one by one ----


@pytest.fixture(params=ptx.engines())
def kernels(request):
    """On the emulator in all three thread orders, which must agree to the last bit, and as PTX."""
    return request.param(SOURCE)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("name", WIDTHS)
def test_gates_kernel(kernels, name, keep):
    dtype, width = WIDTHS[name]
    rng = np.random.default_rng(1)
    for rows, accesses, lanes, parts in SHAPES:
        inner = accesses * width
        (x, x_), (g, g_) = (down(rng.standard_normal((rows, 3, inner)), dtype) for _ in range(2))
        h, h_ = down(rng.standard_normal((rows, inner)), dtype)
        new, activated = zeros(h.shape, dtype), zeros((rows, 4, inner), dtype) if keep else None
        grid = (-(-rows * lanes // THREADS), parts)
        kernels[f"gates_{name}"].launch(
            grid, (lanes, THREADS // lanes), [struct(("PPPPPqq", x, g, h, new, activated, rows, inner))]
        )
        expected = forward(x_, g_, h_)
        close(up(new, dtype), expected[0], dtype)
        if keep:
            close(up(activated, dtype), expected[1], dtype)


@pytest.mark.parametrize("name", WIDTHS)
def test_grad_kernel(kernels, name):
    dtype, width = WIDTHS[name]
    rng = np.random.default_rng(2)
    for rows, accesses, lanes, parts in SHAPES:
        inner = accesses * width
        activated, a_ = down(rng.random((rows, 4, inner)), dtype)
        (grad, d_), (h, h_) = (down(rng.standard_normal((rows, inner)), dtype) for _ in range(2))
        found = [zeros(shape, dtype) for shape in ((rows, 3, inner), (rows, 3, inner), (rows, inner))]
        grid = (-(-rows * lanes // THREADS), parts)
        kernels[f"grad_{name}"].launch(
            grid, (lanes, THREADS // lanes), [struct(("PPPPPPqq", grad, activated, h, *found, rows, inner))]
        )
        for ours, expected in zip(found, backward(d_, a_, h_), strict=True):
            close(up(ours, dtype), expected, dtype)


def test_limits_and_nan(kernels):
    inf, nan = np.inf, np.nan
    x = np.array([inf, -inf, nan, 0, 1e4, -1e4, 3e38, -3e38], np.float32)
    gates, nothing = np.repeat(x[None, None], 3, 1), np.zeros((1, 3, 8), np.float32)
    h, activated = np.full((1, 8), 2, np.float32), np.zeros((1, 4, 8), np.float32)
    arguments = [struct(("PPPPPqq", gates, nothing, h, h.copy(), activated, 1, 8))]
    kernels["gates_f32"].launch(1, (2, 128), arguments)
    np.testing.assert_array_equal(activated[0, 0], [1, 0, nan, 0.5, 1, 0, 1, 0])
    np.testing.assert_array_equal(activated[0, 2], [1, -1, nan, 0, 1, -1, 1, -1])


# ---- The launch wrappers, against the operators of the CPU ----


@contextlib.contextmanager
def emulated(order="random", seed=0):
    """torch's CPU key runs the CUDA launch wrappers."""
    library = build.build_emulated_library(["csrc/cuda/conv_gru_op.cu"])
    with build.emulated_operators(library, order, seed):
        yield


def run(rows, inner, dtype, shifted=False):
    """The new state without and with what the gradient needs, that, and the gradients."""
    gates = [tensor((rows, 3 * inner), dtype, seed, shifted) for seed in (0, 1)]
    h, grad = (tensor((rows, inner), dtype, seed, shifted) for seed in (2, 3))
    activated = tensor((rows, 4 * inner), dtype, 4, shifted).sigmoid_()
    alone, nothing = ops.conv_gru_gates(*gates, h, False)
    assert nothing.shape == (0, 4 * inner)
    return [alone, *ops.conv_gru_gates(*gates, h, True), *ops.conv_gru_gates_grad(grad, activated, h)]


def compare(rows, inner, dtype, **options):
    expected = run(rows, inner, dtype, **options)
    with emulated():
        found = run(rows, inner, dtype, **options)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert_close(ours, theirs.double())


@pytest.mark.parametrize(
    "rows, inner", [(0, 5), (5, 0), (1, 1), (300, 1), (4100, 3), (37, 6), (9, 512), (1, 1021)]
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_operators(dtype, rows, inner):
    compare(rows, inner, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_operators_alignment(dtype):
    """Addresses that are not multiples of 16 bytes take narrower accesses."""
    compare(20, 16, dtype, shifted=True)


@pytest.mark.parametrize(
    "dtype, inner", [(torch.float32, 4100), (torch.bfloat16, 3074), (torch.float16, 1023)]
)
def test_operators_more_than_a_grid(dtype, inner):
    """Parts of a row beyond the limit of a grid, which is low on the emulator."""
    compare(9, inner, dtype)


def test_operators_bits_do_not_depend_on_the_order_of_threads():
    results = []
    for order in build.ORDERS:
        with emulated(order, seed=7):
            results.append(run(300, 24, torch.float32))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_operators_errors():
    """Every argument that does not fit is named, as on the CPU."""
    h, gates, activated = torch.zeros(4, 3), torch.zeros(4, 9), torch.zeros(4, 12)
    good = {"gates_x": gates, "gates_h": gates, "h": h, "keep": True}
    good_grad = {"grad": h, "activated": activated, "h": h}
    with emulated():
        for operator, arguments in (("conv_gru_gates", good), ("conv_gru_gates_grad", good_grad)):
            for name in arguments.keys() - {"keep"}:
                t = arguments[name]
                for bad in (t[0], t.long(), t.t().contiguous().t()):
                    with pytest.raises(RuntimeError, match=f"{operator}: `{name}` must be a contiguous"):
                        getattr(ops, operator)(**(arguments | {name: bad}))


@pytest.mark.parametrize("layout", test_conv_gru.LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_public_functions_over_the_wrappers(dtype, layout):
    """Checks and autograd as on a device, with the launch wrappers below; the cell too."""
    with emulated():
        test_conv_gru.test_values_and_gradients(dtype, layout, "cpu")
        if dtype == torch.float64:
            for memory in test_conv_gru.MEMORY:
                test_conv_gru.test_gradients_any_number_of_times(memory)
            test_conv_gru.test_cell_values_and_gradients(1, "after", True, layout)


@pytest.mark.slow
def test_sanitized():
    """The kernels of this file, emulated, under AddressSanitizer and UBSan."""
    chosen = "kernel and emulator and not sanitized"
    options = ["-q", "--capture=no", "-p", "no:cacheprovider", "-p", "no:xdist"]
    result = build.run_sanitized(["-m", "pytest", *options, __file__, "-k", chosen])
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert " passed" in result.stdout


# ---- On a GPU ----


@pytest.mark.cuda
def test_device_graph():
    """A step and its gradient, captured and replayed with other values."""
    inputs = [t.requires_grad_() for t in test_conv_gru.tensors(2, 64, 24, 32, torch.float32, device="cuda")]

    def step():
        new = amstel.ops.conv_gru_cell(*inputs)
        return new, *torch.autograd.grad(new.square().sum(), inputs)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        for t in inputs:
            t.copy_(torch.randn_like(t))
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(captured, step(), strict=True))
