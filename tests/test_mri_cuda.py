"""The CUDA side of multi-coil MRI without a GPU: the kernels on the emulator and as PTX against NumPy, the launch
wrappers on the emulator against the operators of the CPU, and the composition with PyTorch's transforms over them."""

import contextlib

import numpy as np
import pytest
import torch

import amstel
from amstel import inverse, reference
from amstel.ops import _mri
from amstel.testing import assert_close
from tests.cuda_emulator import build, ptx
from tests.test_conv_lstm_cuda import tensor
from tests.test_spmm_cuda import NUMPY, RELATIVE, THREADS, struct

SOURCE = "mri_instances.cu"
# dtype, elements an access
INSTANCES = {
    "f64": ("f64", 2), "f32": ("f32", 4), "f64_single": ("f64", 1), "f32_pair": ("f32", 2), "f32_single": ("f32", 1),
}  # fmt: skip
COMPLEX = {torch.float64: torch.complex128, torch.float32: torch.complex64}
ITEMS, COILS = 2, 6
ops = torch.ops.amstel


# ---- The kernels, one by one ----


@pytest.fixture(params=ptx.engines())
def kernels(request):
    """On the emulator in all three thread orders, which must agree to the last bit, and as PTX."""
    return request.param(SOURCE)


def normal(rng, *shape, dtype):
    """Complex, [..., 2] in memory."""
    real = np.complex128 if dtype == "f64" else np.complex64
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(real)


def parts(z):
    """As the kernels see it; a view."""
    return z.view(z.real.dtype)


def close(found, expected, dtype):
    np.testing.assert_allclose(found, expected, rtol=0, atol=RELATIVE[dtype] * np.abs(expected).max())


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", INSTANCES)
def test_coil_kernels(kernels, name, shared):
    """Several images and groups of coils to a block, the last of each cut short."""
    dtype, width = INSTANCES[name]
    rng, per = np.random.default_rng(1), max(2, width) // 2
    pixels = (THREADS + 3) * per
    sensitivities = normal(rng, 1 if shared else ITEMS, COILS, pixels, dtype=dtype)
    step = 0 if shared else 2 * COILS * pixels
    x, images = normal(rng, ITEMS, pixels, dtype=dtype), normal(rng, ITEMS, COILS, pixels, dtype=dtype)
    minus, scale = normal(rng, ITEMS, pixels, dtype=dtype), rng.random(ITEMS).astype(NUMPY[dtype])
    expanded = np.zeros_like(images)
    sizes = ("qqqq", ITEMS, COILS, 2 * pixels, step)
    kernels[f"expand_{name}"].launch(
        (2, 1, 1), THREADS,
        [struct(("PPPPdP", parts(x), parts(sensitivities), None, None, 1.0, parts(expanded)), sizes)],
    )  # fmt: skip
    close(expanded, sensitivities.astype(complex) * x[:, None], dtype)
    for given in (True, False):
        reduced = np.zeros_like(x)
        more = (parts(minus), scale) if given else (None, None)
        kernels[f"reduce_{name}"].launch(
            (2, 1, 1), THREADS,
            [struct(("PPPPdP", parts(images), parts(sensitivities), *more, 0.5, parts(reduced)), sizes)],
        )  # fmt: skip
        expected = (sensitivities.conj().astype(complex) * images).sum(1) - (minus if given else 0)
        close(reduced, expected * 0.5 * (scale[:, None] if given else 1), dtype)


@pytest.mark.parametrize("kind", ["columns", "shared", "each"])
@pytest.mark.parametrize("name", INSTANCES)
def test_residual_kernel(kernels, name, kind):
    """Rows in several turns, and what was not measured is NaN."""
    dtype, width = INSTANCES[name]
    rng, per, lanes = np.random.default_rng(2), max(2, width) // 2, 4
    height, columns = THREADS // lanes + 3, 5 * per
    shape = {"columns": (columns,), "shared": (1, height, columns), "each": (ITEMS, height, columns)}[kind]
    mask = ((rng.random(shape) < 0.5) * rng.random(shape)).astype(NUMPY[dtype])
    spread = mask.reshape((1,) * (4 - mask.ndim) + shape if kind == "columns" else (shape[0], 1, *shape[1:]))
    for given in (True, False):
        k, minus = (normal(rng, ITEMS, 2, height, columns, dtype=dtype) for _ in range(2))
        expected = 0.5 * spread.astype(np.float64) * (k - minus if given else k)
        (minus if given else k)[np.broadcast_to(spread == 0, k.shape)] = np.nan
        steps = {"columns": (0, 0), "shared": (0, columns), "each": (height * columns, columns)}[kind]
        arguments = struct(
            ("PPP", parts(k), parts(minus) if given else None, mask),
            ("qqqqqq", ITEMS, 2, height, columns, *steps),
            ("d" if dtype == "f64" else "f4x", 0.5),  # a struct ends at a multiple of its alignment
        )
        kernels[f"residual_{name}"].launch((2, 1, 1), (lanes, THREADS // lanes), [arguments])
        close(k, expected, dtype)


# ---- The launch wrappers, against the operators of the CPU ----


@contextlib.contextmanager
def emulated(order="random", seed=0):
    """torch's CPU key runs the CUDA launch wrappers."""
    library = build.build_emulated_library(["csrc/cuda/mri_op.cu"])
    with build.emulated_operators(library, order, seed):
        yield


def run(n, coils, h, w, dtype, shared, shifted=False):
    """All operators with and without what is optional."""

    def made(seed, *shape):
        return tensor(shape, dtype, seed, shifted)

    x, s = made(0, n, h, w, 2), made(1, 1 if shared else n, coils, h, w, 2)
    images, minus, scale = made(2, n, coils, h, w, 2), made(3, n, h, w, 2), made(4, n)
    found = [ops.coil_expand(x, s), ops.coil_reduce(images, s, minus, scale, 0.5)]
    found.append(ops.coil_reduce(images, s, None, None, 1.0))
    for shape in ((w,), (1, h, w), (n, h, w)):
        for less in (None, made(5, n, coils, h, w, 2)):
            k = images.clone() if not shifted else made(2, n, coils, h, w, 2)
            ops.kspace_residual(k, made(6, *shape).relu(), less, 0.3)
            found.append(k)
    return found


def compare(*shape, **options):
    expected = run(*shape, **options)
    with emulated():
        found = run(*shape, **options)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert_close(ours, theirs.double())


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("dtype", COMPLEX, ids=str)
def test_operators(dtype, shared):
    """Sizes 0 and 1, odd and even, and images, coils and rows beyond the limits of a grid, which are low here."""
    sizes = [
        (1, 1, 1, 1),
        (2, 3, 5, 7),
        (1, 9, 6, 70),
        (5, 14, 4, 6),
        (2, 2, 33, 1),
        (2, 0, 3, 4),
        (0, 3, 4, 4),
        (2, 3, 0, 4),
    ]
    for size in sizes:
        compare(*size, dtype, shared)
        compare(*size, dtype, shared, shifted=True)


def test_operators_bits_do_not_depend_on_the_order_of_threads():
    results = []
    for order in build.ORDERS:
        with emulated(order, seed=7):
            results.append(run(2, 7, 40, 24, torch.float32, False))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def message(function, *arguments):
    with pytest.raises(RuntimeError) as error:
        function(*arguments)
    return str(error.value).splitlines()[0]


def test_operators_errors():
    """As on the CPU, word for word."""
    x, s, k = torch.zeros(2, 3, 4, 2), torch.zeros(2, 5, 3, 4, 2), torch.zeros(2, 5, 3, 4, 2)
    mask, scale = torch.zeros(4), torch.zeros(2)
    calls = [
        (ops.coil_expand, x[0], s), (ops.coil_expand, x.long(), s), (ops.coil_expand, x, s.double()),
        (ops.coil_expand, x, s[..., :1]), (ops.coil_expand, x, s[:, :, :2]), (ops.coil_expand, x.transpose(1, 2), s),
        (ops.coil_reduce, k, s[:, :3], None, None, 1.0), (ops.coil_reduce, k, s, x[:1], None, 1.0),
        (ops.coil_reduce, k, s, None, scale.double(), 1.0), (ops.coil_reduce, k[0], s, None, None, 1.0),
        (ops.kspace_residual, k, mask[1:], None), (ops.kspace_residual, k, mask.bool(), None),
        (ops.kspace_residual, k, torch.zeros(3, 3, 4), None), (ops.kspace_residual, k, mask, k[:1]),
        (ops.kspace_residual, k.half(), mask, None),
    ]  # fmt: skip
    expected = [message(*call) for call in calls]
    with emulated():
        assert [message(*call) for call in calls] == expected


# ---- Put together with PyTorch's transforms, as on a device ----


MASKS = {"columns": (9,), "points": (6, 9), "each": (2, 1, 6, 9)}


@pytest.fixture
def composed(monkeypatch):
    """No fused kernel takes the whole, as on a device for most masks."""
    for name in ("_fits", "_known_fits"):
        monkeypatch.setattr(_mri, name, lambda *args: False)
    with emulated():
        yield


def gradients(function, tensors):
    out = function(*tensors)
    weight = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).reshape(out.shape)
    return out, *torch.autograd.grad(out, tensors, weight.to(out.dtype))


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("dtype", COMPLEX, ids=str)
def test_gradients_over_the_wrappers(composed, dtype, mask, centered):
    def made(seed, *shape):
        return torch.view_as_complex(tensor((*shape, 2), torch.float64, seed))

    leaves = [made(0, 2, 6, 9), made(1, 2, 4, 6, 9), made(2, 2, 6, 9)]
    maps, seen = made(3, 4, 6, 9), tensor(MASKS[mask], torch.float32, 4) > 0
    sigma = torch.tensor([0.5, 2.0])

    def functions(module, s, wide):
        yield lambda x, y: module.mri_gradient(x, y, seen, s, sigma.to(wide), centered=centered)
        yield lambda x, minus: module.mri_normal(x, seen, s, minus, 0.7, centered=centered)
        yield lambda x, minus: module.mri_normal(x, seen, None, minus, sigma.to(wide), centered=centered)

    short = [t.to(COMPLEX[dtype]).requires_grad_() for t in leaves]
    wide = [t.detach().to(torch.complex128).requires_grad_() for t in short]
    pairs = zip(
        functions(amstel.ops, maps.to(COMPLEX[dtype]), dtype),
        functions(reference, maps.to(COMPLEX[dtype]).to(torch.complex128), torch.float64),
        ((0, 1), (0, 2), (0, 2)),
        strict=True,
    )
    for ours, theirs, which in pairs:
        found = gradients(ours, [short[i] for i in which])
        expected = gradients(theirs, [wide[i] for i in which])
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == COMPLEX[dtype]
            assert_close(torch.view_as_real(a), torch.view_as_real(b.detach()), dtype)


def test_gradcheck_over_the_wrappers(composed):
    x, y = (
        torch.view_as_complex(tensor((1, *s, 2), torch.float64, 1)).requires_grad_()
        for s in ((3, 4), (2, 3, 4))
    )
    maps, mask = torch.view_as_complex(tensor((2, 3, 4, 2), torch.float64, 2)), torch.tensor([1, 0, 1, 1])
    f = lambda x, y: amstel.ops.mri_gradient(x, y, mask, maps)  # noqa: E731
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(f, (x, y), fast_mode=True)


@pytest.mark.slow
def test_sanitized():
    """The kernels of this file, emulated, under AddressSanitizer and UBSan."""
    chosen = "kernel and emulator and not sanitized"
    options = ["-q", "--capture=no", "-p", "no:cacheprovider", "-p", "no:xdist"]
    result = build.run_sanitized(["-m", "pytest", *options, __file__, "-k", chosen])
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert " passed" in result.stdout


# ---- On a GPU ----


def reconstruction(device):
    """All steps of a reconstruction: () -> the last estimate, and what it is made from."""

    def made(seed, *shape):
        return torch.view_as_complex(tensor((*shape, 2), torch.float32, seed)).to(device)

    torch.manual_seed(0)
    model = amstel.nn.RIM(channels=2, features=16, steps=4).to(device)
    mask = (torch.arange(42) % 3 == 0).to(device)
    physics = inverse.MRI(mask, made(1, 5, 36, 42), sigma=0.5)
    y = made(0, 1, 5, 36, 42)
    return torch.no_grad()(lambda: model(y, physics)[-1]), y


@pytest.mark.cuda
@torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
def test_device_graph():
    """A graph holds all steps, and gives for other measurements what the steps themselves do."""
    run_steps, y = reconstruction("cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run_steps()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run_steps()
    expected = reconstruction("cpu")[0]()
    graph.replay()
    assert_close(torch.view_as_real(captured).cpu(), torch.view_as_real(expected).double(), torch.float32)
    y.copy_(torch.randn_like(y))
    graph.replay()
    assert_close(torch.view_as_real(captured), torch.view_as_real(run_steps()), torch.float32)
