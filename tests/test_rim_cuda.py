"""The CUDA side of the RIM's input and of bicubic resampling without a GPU: the kernels on the emulator and as PTX
against NumPy in float64, the launch wrappers on the emulator against the operators of the CPU."""

import contextlib
import itertools

import numpy as np
import pytest
import torch

import amstel
from amstel.reference.rim import bicubic_matrix
from amstel.testing import assert_close
from tests import test_rim
from tests.cuda_emulator import build, ptx
from tests.test_conv_lstm_cuda import DTYPES, sigmoid, tensor
from tests.test_spmm_cuda import NUMPY, THREADS, close, down, struct, sum_type, up, zeros

SOURCE, INPUT_SOURCE = "rim_instances.cu", "rim_input_instances.cu"
SHORT = ["f64", "f32", "bf16", "f16"]
BYTES = {"f64": 8, "f32": 4, "bf16": 2, "f16": 2}
ITEMS = 2
ops = torch.ops.amstel


# ---- The network's input, kernel by kernel ----


@pytest.fixture(params=ptx.engines())
def kernels(request):
    """On the emulator in all three thread orders, which must agree to the last bit, and as PTX."""
    return request.param(SOURCE)


@pytest.fixture(params=ptx.engines())
def input_kernels(request):
    return request.param(INPUT_SOURCE)


def forward(eta, other, mask, factor, residual, logistic):
    """[items, pixels, channels] -> [items, pixels, 2 channels]"""
    x = sigmoid(eta) if logistic else eta
    g = mask * (x - other) if residual else other
    return np.concatenate([eta, factor * g * (x * (1 - x) if logistic else 1)], -1)


def backward(first, second, eta, other, mask, factor, residual, logistic):
    """-> the gradients of eta and other"""
    x = sigmoid(eta) if logistic else eta
    slope, bend = (x * (1 - x), x * (1 - x) * (1 - 2 * x)) if logistic else (1, 0)
    g, second = (mask * (x - other), second * mask) if residual else (other, second)
    d = factor * second
    if not residual:
        return first + d * bend * g, d * slope
    return first + d * (slope * slope + bend * (x - other)), -d * slope


# C, and the strides of item, channel, pixel: of gray and complex pixels, of planes (also for the kernel that takes
# whatever comes), of a slice of pixels
LAYOUTS = {
    "gray": (1, lambda pixels: (pixels, pixels, 1)),
    "complex": (2, lambda pixels: (2 * pixels, 1, 2)),
    "planes": (3, lambda pixels: (3 * pixels, pixels, 1)),
    "any planes": (3, lambda pixels: (3 * pixels, pixels, 1)),
    "slice": (3, lambda pixels: (4 * pixels, 1, 4)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", SHORT)
def test_input_kernels(input_kernels, dtype, layout):
    """Several blocks, the last cut short; for one image the last access too."""
    state, rng = sum_type(dtype), np.random.default_rng(1)
    channels, strides = LAYOUTS[layout]
    dense = layout in ("gray", "complex")
    lanes = {"gray": 1, "complex": 2}.get(layout, 4)
    width = max(1, 8 // BYTES[dtype] // channels)  # pixels of a thread
    tile = 2 * THREADS + 32
    width = width if dense else 1
    prefix = f"{layout}_" if dense or layout == "planes" else ""
    for items, pixels in ((ITEMS, (THREADS + 3) * max(1, width)), (1, THREADS * max(1, width) // lanes + 5)):
        steps = strides(pixels)

        def lay(values, steps=steps, items=items):
            """The values [items, pixels, channels], the array that holds them, and its description."""
            array = np.full(items * steps[0], np.nan, NUMPY[state])
            view = np.lib.stride_tricks.as_strided(
                array, values.shape, [array.itemsize * s for s in (steps[0], steps[2], steps[1])]
            )
            view[:] = values
            return view, array

        (eta, eta_), (other, other_) = (lay(rng.standard_normal((items, pixels, channels))) for _ in range(2))
        mask, mask_ = lay(rng.random((items, pixels, channels)) < 0.5)
        precision = rng.random(items).astype(NUMPY[state])
        blocks = -(-pixels // (THREADS * width)) if dense else -(-pixels * lanes // THREADS)
        block = THREADS if dense else (lanes, THREADS // lanes)
        shared = 0
        if (
            layout == "planes"
        ):  # an odd number of pixels in the last tile, and a turn of threads that is not whole
            blocks, block, shared = -(-pixels // tile), THREADS, tile * 6 * BYTES[dtype]
        tiles = ("qq", tile, int(2 * channels * pixels * BYTES[dtype] % 16 == 0 or items == 1))
        for residual, logistic, masked in ((True, True, True), (True, False, False), (False, True, False)):
            factor = 0.5 * (precision.astype(float)[:, None, None] if masked else 1)
            values = [
                eta.astype(float),
                other.astype(float),
                mask if masked else 1.0,
                factor,
                residual,
                logistic,
            ]
            fields = (
                ("PqqqPqqqPqqq", eta_, *steps, other_, *steps, mask_ if masked else None, *steps),
                ("Pdqq", precision if masked else None, 0.5, int(residual), int(logistic)),
                ("qqq", items, channels, pixels),
            )
            out = zeros((items, pixels, 2 * channels), dtype)
            arguments = struct(*fields, ("PPPqqqP", out, None, None, 0, 0, 0, None), tiles)
            input_kernels[f"input_{prefix}{dtype}"].launch((blocks, 1), block, [arguments], shared)
            close(up(out, dtype), forward(*values), dtype)

            grad, grad_ = down(rng.standard_normal(out.shape), dtype)
            to_eta, to_other = (lay(np.zeros(eta.shape))[1] for _ in range(2))
            arguments = struct(*fields, ("PPPqqqP", None, grad, to_eta, *steps, to_other), tiles)
            input_kernels[f"grad_{prefix}{dtype}"].launch((blocks, 1), block, [arguments], shared)
            first, second = grad_[..., :channels], grad_[..., channels:]
            for found, expected in zip((to_eta, to_other), backward(first, second, *values), strict=True):
                found = np.lib.stride_tricks.as_strided(found, eta.shape, eta.strides)
                close(found.astype(float), expected, state)


# ---- Resampling, kernel by kernel ----

# scale, height and width of the small image: smaller than the weights reach, and of several tiles
SIZES = [(1, 3, 5), (2, 1, 2), (2, 9, 35), (3, 12, 5), (64, 1, 1)]


def geometry(scale):
    """The first pixel of result 0 and the sum of its weights, undivided."""
    center = scale / 2 - 0.5
    first = int(np.floor(center - 2 * scale)) + 1
    d = np.abs(first + np.arange(4 * scale) - center) / scale
    cubic = np.where(d <= 1, 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2) * (d < 2)
    return first, float(cubic.sum())


def description(image, minus, out, planes, channels, height, width, scale, tile=(0, 0, 0)):
    first, total = geometry(scale)
    return (
        ("PPP", image, minus, out), ("qq", planes, channels), ("qqq", height, width, scale), ("qd", first, total),
        ("qqq", *tile),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["f64", "f32"])
def test_down_kernel(kernels, dtype):
    rng = np.random.default_rng(3)
    for scale, height, width in SIZES:
        rows, cols = bicubic_matrix(height * scale, scale), bicubic_matrix(width * scale, scale)
        x, x_ = down(rng.standard_normal((ITEMS, height * scale, width * scale)), dtype)
        minus, minus_ = down(rng.standard_normal((ITEMS, height, width)), dtype)
        tile, strips = min(width, 16), 2 if scale == 3 else 1
        pitch = (tile + 3) | 1
        grid = -(-width // tile), 1, 1  # tiles of rows and planes in turn
        shared = (4 * scale + 8 * strips * scale * pitch) * x.itemsize
        less, less_ = (None, 0) if scale == 1 else (minus, minus_)
        out = np.zeros_like(minus)
        fields = description(x, less, out, ITEMS, 1, height, width, scale, (tile, strips, pitch))
        kernels[f"down_{dtype}"].launch(grid, THREADS, [struct(*fields)], shared=shared)
        close(out.astype(float), rows @ x_ @ cols.T - less_, dtype)


@pytest.mark.parametrize("dtype", SHORT)
def test_up_kernels(kernels, dtype):
    state, rng = sum_type(dtype), np.random.default_rng(4)
    for scale, height, width in SIZES:
        rows, cols = bicubic_matrix(height * scale, scale), bicubic_matrix(width * scale, scale)
        large = height * scale, width * scale
        grid = -(-large[1] // 32), 1, 1
        for channels in (1, 3) if scale == 2 else (1,):
            y, y_ = down(rng.standard_normal((ITEMS, channels, height, width)), state)
            expected = rows.T @ y_ @ cols
            if dtype in ("f64", "f32") and channels == 1:
                out = np.zeros((ITEMS, 1, *large), y.dtype)
                fields = description(y, None, out, ITEMS, 1, height, width, scale)
                kernels[f"up_{dtype}"].launch(
                    grid, THREADS, [struct(*fields, ("PPdqP", None, None, 0.0, 0, None))]
                )
                close(out.astype(float), expected, dtype)
            eta, eta_ = down(rng.standard_normal((ITEMS, channels, *large)), state)
            precision, out = rng.random(ITEMS).astype(y.dtype), zeros((ITEMS, *large, 2 * channels), dtype)
            fields = description(y, None, None, ITEMS, channels, height, width, scale)
            arguments = struct(*fields, ("PPdqP", eta, precision, 0.5, 1, out))
            kernels[f"up_input_{dtype}"].launch(grid, THREADS, [arguments])
            factor = 0.5 * precision.astype(float)[:, None, None, None]
            both = forward(*(np.moveaxis(t, 1, -1) for t in (eta_, expected)), 1, factor, False, True)
            close(up(out, dtype), both, dtype)


# ---- The launch wrappers, against the operators of the CPU ----


@contextlib.contextmanager
def emulated(order="random", seed=0):
    """torch's CPU key runs the CUDA launch wrappers."""
    library = build.build_emulated_library(["csrc/cuda/rim_op.cu"])
    with build.emulated_operators(library, order, seed):
        yield


def run_input(shape, dtype, layout=torch.contiguous_format, shifted=False, device="cpu"):
    """Value and gradients for every kind of mask; `shifted`: at addresses that allow no wide access."""
    wide = torch.promote_types(dtype, torch.float32)
    n, c, h, w = shape

    def made(seed, *shape, dtype=wide):
        return tensor(shape, dtype, seed, shifted).to(device)

    eta, other, mask = (made(seed, *shape).contiguous(memory_format=layout) for seed in (0, 1, 4))
    grad = made(2, n, 2 * c, h, w, dtype=dtype).contiguous(memory_format=torch.channels_last)
    masks = [None, mask, *(made(3, *size).relu().expand(shape) for size in ((h, w), (n, 1, h, w)))]
    found = []
    for mask, precision, logistic in itertools.product(masks, (None, made(5, n)), (False, True)):
        for residual in {True, mask is not None}:
            options = (mask, precision, 0.7, residual, logistic)
            found.append(ops.rim_input(eta, other, *options, dtype))
            found += ops.rim_input_grad(grad, eta, other, *options)
    return found


def run_bicubic(n, c, h, w, scale, dtype, device="cpu"):
    wide = torch.promote_types(dtype, torch.float32)
    sizes = (n, c, h * scale, w * scale), (n, c, h, w), (n, c, h, w), (n,)
    large, small, minus, each = (tensor(size, wide, seed).to(device) for seed, size in enumerate(sizes))
    found = [
        ops.bicubic_down(large, None, scale),
        ops.bicubic_down(large, minus, scale),
        ops.bicubic_up(small, scale),
    ]
    for precision, logistic in ((None, False), (each, True)):
        found.append(ops.rim_bicubic_input(large, small, precision, 0.7, scale, logistic, dtype))
    return found


def compare(function, *arguments, **options):
    expected = function(*arguments, **options)
    with emulated():
        found = function(*arguments, **options)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        if ours.numel():
            assert ours.stride() == theirs.stride()
        assert_close(ours, theirs.double())


@pytest.mark.parametrize("layout", test_rim.LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_input_operators(dtype, layout):
    """Gray, complex and many channels, odd sizes, no pixels, and more images than a grid takes here."""
    shapes = [
        (1, 1, 1, 1),
        (1, 1, 7, 9),
        (4, 1, 8, 16),
        (1, 2, 7, 9),
        (2, 2, 8, 6),
        (5, 3, 3, 7),
        (1, 40, 2, 5),
    ]
    for shape in [*shapes, (0, 1, 2, 2), (2, 0, 2, 2), (2, 1, 0, 3)]:
        compare(run_input, shape, dtype, layout)
    compare(run_input, (1, 1, 8, 16), dtype, layout, shifted=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bicubic_operators(dtype):
    """Scales up to the largest, images smaller than the weights reach, and rows and images beyond a grid."""
    for scale, n, c, h, w in (
        (1, 1, 1, 5, 7), (2, 2, 3, 1, 1), (2, 4, 1, 8, 20), (2, 1, 1, 70, 3), (3, 1, 1, 3, 100), (4, 1, 2, 5, 2),
        (5, 1, 1, 4, 6), (31, 1, 1, 2, 1), (64, 1, 1, 1, 2), (3, 0, 1, 2, 2), (3, 1, 1, 2, 0),
    ):  # fmt: skip
        compare(run_bicubic, n, c, h, w, scale, dtype)


def test_operators_bits_do_not_depend_on_the_order_of_threads():
    results = []
    for order in build.ORDERS:
        with emulated(order, seed=7):
            results.append(
                [*run_input((2, 1, 24, 20), torch.float32), *run_bicubic(1, 1, 24, 20, 2, torch.float32)]
            )
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_operators_errors():
    """As on the CPU."""
    cases = next(
        m for m in test_rim.test_raw_operators_check_their_arguments.pytestmark if m.name == "parametrize"
    )
    with emulated():
        for message, call in cases.args[1]:
            test_rim.test_raw_operators_check_their_arguments(message, call)


@pytest.mark.parametrize("name", test_rim.NAMES)
def test_public_functions_over_the_wrappers(name):
    """Checks and autograd as on a device, with the launch wrappers below, against plain PyTorch; NaN and limits too."""
    with emulated():
        for dtype, layout in zip(DTYPES, test_rim.LAYOUTS * 2, strict=True):
            test_rim.check(*test_rim.cases(2, 2, 6, 10)[name], dtype, layout)
        test_rim.test_limits_and_nan(name)
        f, leaves = test_rim.cases(1, 1, 2, 4)[name]
        leaves = [t.requires_grad_() for t in leaves]
        assert torch.autograd.gradcheck(lambda *t: f(amstel.ops, *t), leaves, fast_mode=True)


def test_the_adjoint_is_exact_over_the_wrappers():
    with emulated():
        for scale in (1, 2, 3, 5, 64):
            test_rim.test_the_adjoint_is_exact(scale)


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
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_device(dtype):
    """What the CPU gives, and the same bits again."""
    calls = (run_input, (2, 1, 64, 128), dtype), (run_bicubic, 2, 3, 50, 70, 3, dtype)
    for function, *arguments in calls:
        expected = function(*arguments)
        first, second = (function(*arguments, device="cuda") for _ in range(2))
        for ours, again, theirs in zip(first, second, expected, strict=True):
            assert torch.equal(ours, again)
            assert_close(ours, theirs.double())


@pytest.mark.cuda
def test_device_graph():
    """A step of super-resolution and its gradient, captured and replayed with other values."""
    eta, y = (torch.randn(2, 1, *size, device="cuda", requires_grad=True) for size in ((48, 66), (16, 22)))

    def step():
        out = amstel.ops.rim_super_resolve_input(eta, y, 3, 0.1, link="logistic")
        return out, *torch.autograd.grad(out.square().sum(), (eta, y))

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        for t in (eta, y):
            t.copy_(torch.randn_like(t))
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(captured, step(), strict=True))
