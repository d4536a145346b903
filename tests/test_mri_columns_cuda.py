"""The fused CUDA kernel of multi-coil MRI for masks of columns without a GPU: on the emulator and as PTX against NumPy,
its launch wrapper on the emulator against torch.fft in float64, and the public functions over it."""

import contextlib
import itertools
import re

import numpy as np
import pytest
import torch

import amstel
from amstel import inverse, reference
from amstel.ops import _mri
from amstel.testing import assert_close
from tests import test_mri
from tests.cuda_emulator import build, ptx
from tests.test_conv_lstm_cuda import tensor
from tests.test_mri_cuda import COMPLEX, close, gradients, normal, parts
from tests.test_spmm_cuda import NUMPY, struct

SOURCES = ["csrc/cuda/mri_op.cu", "csrc/cuda/mri_columns_op.cu"]
THREADS = 128  # of a block
RADICES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 19, 20, 23]
ops = torch.ops.amstel


# ---- The kernel, with plans of our own ----


@pytest.fixture(params=ptx.engines())
def kernels(request):
    """On the emulator in all three thread orders, which must agree to the last bit, and as PTX."""
    return request.param("mri_columns_instances.cu")


def divisor(n):
    return n, (1 << 31) // n + 1


def plan(radices):
    """FftPlan of csrc/cuda/kernels/fft.cuh: -> places of a line, twiddle factors, the struct."""
    size, last = int(np.prod(radices)), radices[-1]
    stages, apart, within, twiddles = [], 1, 1, 0
    for radix in reversed(radices):
        first = not stages
        block = apart * radix + (first and last % 2 == 0)
        stages.insert(
            0, (*divisor(radix), *divisor(radix - 1 | 1), apart, block, apart, twiddles, *divisor(within))
        )
        twiddles += 0 if first else (radix - 1 | 1) * within
        apart, within = block, within * radix
    stages += [(0,) * 10] * (4 - len(stages))
    head = (len(radices), apart, twiddles, int(last % 2 == 0))
    numbers = (*divisor(size), *divisor(last), *divisor(size // last))
    return apart, twiddles, ("iiii" + "iI" * 3 + "iIiIiiiiiI" * 4, *head, *numbers, *itertools.chain(*stages))


def launch(kernel, dtype, radices, height, coils, rows, group, shared, given=True, maps=True, seed=0):
    """-> what the kernel finds and what NumPy does, and the run."""
    rng, items, width = np.random.default_rng(seed), 2, int(np.prod(radices))
    real = NUMPY[dtype]
    x = normal(rng, items, height, width, dtype=dtype)
    s = normal(rng, 1 if shared else items, coils, height, width, dtype=dtype)
    mask = (rng.random(width) * (rng.random(width) < 0.7)).astype(real)
    minus, scale = normal(rng, items, height, width, dtype=dtype), rng.random(items).astype(real)
    out = np.full_like(x, np.nan)
    line, twiddles, plan_ = plan(radices)
    strips, size, lines = -(-height // rows), 2 * height * width, group * rows * line
    sums = lines * (2 if maps else 1)  # where they are in shared memory
    tables = sums + (rows * width if group < coils else 0)
    arguments = struct(
        ("PPPPPPd", parts(x), parts(s) if maps else None, mask, parts(minus) if given else None,
         scale if given else None, parts(out), 0.5),
        ("qqq", size, 0 if shared else coils * size, items),
        ("iiii", height, coils, rows, group),
        plan_,
        ("iiii", lines, sums, tables, tables + twiddles),
    )  # fmt: skip
    memory = (2 * (tables + twiddles) + line) * mask.itemsize
    run = kernel.launch((strips, 1, items), THREADS, [arguments], shared=memory)
    wide = s.astype(complex) if maps else np.ones((1, 1, height, width))
    k = mask.astype(float) * np.fft.fft(wide * x.astype(complex)[:, None])
    expected = (wide.conj() * np.fft.ifft(k)).sum(1) - (minus if given else 0)
    return out, expected * 0.5 * (scale[:, None, None] if given else 1), run


# Every radix last, and every one but the largest before
PLANS = [(2 + i % 15, radix) for i, radix in enumerate(RADICES)]
PLANS += [(1,), (7,), (16,), (2, 3, 5), (8, 8, 10), (3, 2, 4), (5, 5, 5, 5), (2, 4, 3, 2)]


@pytest.mark.parametrize(
    ("dtype", "radices"),
    # 23 is float's alone.
    [(dtype, plan) for dtype in ("f64", "f32") for plan in PLANS if dtype == "f32" or 23 not in plan],
    ids=str,
)
def test_every_radix(kernels, dtype, radices):
    """Two images, groups of coils of which the last is cut short."""
    found, expected, _ = launch(kernels[f"columns_{dtype}"], dtype, radices, 2, 3, 1, 2, False)
    close(found, expected, dtype)


@pytest.mark.parametrize("dtype", ["f64", "f32"])
def test_blocks_and_options(kernels, dtype):
    """Rows of a block and coils of a group that do not divide evenly; without what is optional."""
    kernel = kernels[f"columns_{dtype}"]
    for height, coils, rows, group in ((5, 4, 2, 4), (3, 5, 1, 2), (1, 1, 1, 1), (40, 2, 7, 1)):
        for shared, given in ((True, False), (False, True)):
            found, expected, _ = launch(kernel, dtype, (3, 4), height, coils, rows, group, shared, given)
            close(found, expected, dtype)
    found, expected, _ = launch(kernel, dtype, (3, 4), 5, 1, 2, 1, True, maps=False)
    close(found, expected, dtype)


# ---- The launch wrapper ----


@contextlib.contextmanager
def emulated(order="random", seed=0):
    """torch's CPU key runs the CUDA launch wrappers."""
    with build.emulated_operators(build.build_emulated_library(SOURCES), order, seed):
        yield


def made(seed, *shape, dtype=torch.float32, shifted=False):
    return tensor(shape, dtype, seed, shifted)


def arguments(n, coils, h, w, dtype=torch.float32, shared=True, given=True, shifted=False):
    """Of mri_normal; coils = 0: without sensitivities."""
    x, minus = (made(s, n, h, w, 2, dtype=dtype, shifted=shifted) for s in (0, 1))
    maps = made(2, 1 if shared else n, coils, h, w, 2, dtype=dtype, shifted=shifted) if coils else None
    mask, scale = made(3, w, dtype=dtype, shifted=shifted).relu(), made(4, n, dtype=dtype)
    return x, mask, maps, minus if given else None, scale if given else None, 0.7


def expected(x, mask, maps, minus, scale, factor):
    """By torch.fft in float64."""
    z = lambda t: torch.view_as_complex(t.double().contiguous().clone())  # noqa: E731
    s = torch.ones(1, 1, 1, 1, dtype=torch.complex128) if maps is None else z(maps)
    y = (s.conj() * torch.fft.ifft(mask.double() * torch.fft.fft(s * z(x)[:, None]))).sum(1)
    y = (y if minus is None else y - z(minus)) * factor
    return torch.view_as_real(y if scale is None else y * scale.double()[:, None, None])


def check(*shape, **options):
    given = arguments(*shape, **options)
    found = ops.mri_normal(*given)
    assert found.dtype == given[0].dtype
    assert_close(found, expected(*given))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_every_width(dtype):
    """All that the Python side lets through, and the error of all others."""
    with emulated():
        for w in range(1, 1030):
            if _mri._fits("cuda", COMPLEX[dtype], (w,)):
                check(1, 1, 1, w, dtype=dtype, given=False)
            else:
                with pytest.raises(RuntimeError, match=f"on CUDA rows of `x` must have at most .*, got {w}$"):
                    ops.mri_normal(*arguments(1, 1, 1, w, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_shapes_and_options(dtype):
    """Rows that share a block and coils in groups; addresses that allow no complex number at a time."""
    with emulated():
        for shape in (
            (1, 1, 1, 1),
            (2, 3, 5, 7),
            (3, 2, 40, 6),
            (1, 60, 3, 48),
            (2, 0, 9, 20),
            (4, 7, 2, 340),
        ):
            for shared, given, shifted in ((True, True, False), (False, False, True)):
                check(*shape, dtype=dtype, shared=shared, given=given, shifted=shifted)


@pytest.mark.parametrize(
    "shape", [(1, 15, 2, 368), (1, 12, 2, 170), (2, 15, 1, 320), (1, 8, 2, 640)], ids=str
)
def test_scans(shape):
    """Rows of real ones, with as many coils."""
    with emulated():
        check(*shape)


def test_bits_do_not_depend_on_the_order_of_threads():
    results = []
    for order in build.ORDERS:
        with emulated(order, seed=7):
            results.append([ops.mri_normal(*arguments(2, 9, 3, w)) for w in (24, 320)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_nothing():
    with emulated():
        for n, coils, h, w in ((0, 3, 4, 6), (2, 0, 4, 6), (2, 3, 0, 6), (2, 3, 4, 0), (0, 0, 0, 0)):
            x, maps = torch.ones(n, h, w, 2), torch.ones(1, coils, h, w, 2)
            assert not ops.mri_normal(x, torch.ones(w), maps, None, None, 1.0).any()


def message(call):
    with pytest.raises(RuntimeError) as error:
        call()
    return str(error.value).splitlines()[0]


def test_errors():
    """As on the CPU, word for word, but for what this device does not take."""
    bad, x, mask = test_mri.raw_normal, test_mri.A, test_mri.MASK
    calls = [
        bad(x=x.half()), bad(x=x[0]), bad(x=torch.zeros(2, 4, 12, 2)[:, :, ::2]), bad(mask=mask[:5]),
        bad(mask=mask.double()), bad(mask=torch.ones(3, 4, 6)), bad(maps=test_mri.P[0]), bad(maps=test_mri.P.double()),
        bad(maps=test_mri.P[:, :0].contiguous(), minus=x), bad(minus=x[:1]), bad(minus=x.double()),
        bad(scale=torch.ones(3)), bad(scale=test_mri.SCALE.double()),
    ]  # fmt: skip
    expected = [message(call) for call in calls]
    with emulated():
        assert [message(call) for call in calls] == expected
        assert re.search("`mask` must be of columns", message(bad(mask=torch.ones(1, 4, 6))))


# ---- The public functions over it ----


@pytest.fixture
def fused(monkeypatch):
    """As on a CUDA device; PyTorch's transforms only for Aᴴ y."""
    fits = _mri._fits
    for name in ("_fits", "_known_fits"):
        monkeypatch.setattr(_mri, name, lambda device, *args: fits("cuda", *args))
    with emulated():
        yield


def complex_(seed, *shape):
    return torch.view_as_complex(tensor((*shape, 2), torch.float64, seed))


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("dtype", COMPLEX, ids=str)
def test_gradients(fused, dtype, centered):
    """Values and gradients in images, measurements and sensitivities against the reference in float64."""
    leaves = [complex_(0, 2, 6, 9), complex_(1, 2, 4, 6, 9), complex_(2, 2, 6, 9), complex_(3, 4, 6, 9)]
    seen, sigma = tensor((9,), torch.float32, 4) > 0, torch.tensor([0.5, 2.0])

    def functions(module, real):
        yield lambda x, y, s: module.mri_gradient(x, y, seen, s, sigma.to(real), centered=centered)
        yield lambda x, a, s: module.mri_normal(x, seen, s, a, 0.7, centered=centered)
        yield lambda x, a: module.mri_normal(x, seen, None, a, sigma.to(real), centered=centered)

    short = [t.to(COMPLEX[dtype]).requires_grad_() for t in leaves]
    wide = [t.detach().to(torch.complex128).requires_grad_() for t in short]
    pairs = zip(
        functions(amstel.ops, dtype), functions(reference, torch.float64), ((0, 1, 3), (0, 2, 3), (0, 2)), strict=True
    )  # fmt: skip
    for ours, theirs, which in pairs:
        found = gradients(ours, [short[i] for i in which])
        wanted = gradients(theirs, [wide[i] for i in which])
        for a, b in zip(found, wanted, strict=True):
            assert a.dtype == COMPLEX[dtype]
            assert_close(torch.view_as_real(a), torch.view_as_real(b.detach()), dtype)


def test_the_kernel_is_taken(fused, monkeypatch):
    """No transform of PyTorch's for columns; for points, and widths that do not fit, no other."""
    x, maps = complex_(0, 2, 6, 29).cfloat(), complex_(1, 3, 6, 29).cfloat()
    for w, mask in ((29, (29,)), (28, (6, 28))):
        on = tensor(mask, torch.float32, 2) > 0
        given = x[..., :w], on, maps[..., :w]
        assert_close(
            torch.view_as_real(amstel.ops.mri_normal(*given)),
            torch.view_as_real(reference.mri_normal(*(t if t is on else t.cdouble() for t in given))),
        )
    monkeypatch.setattr(_mri, "_fft", None)
    amstel.ops.mri_normal(x[..., :28], torch.ones(28), maps[..., :28])


def test_gradcheck(fused):
    x, y, maps = complex_(0, 1, 3, 4), complex_(1, 1, 2, 3, 4), complex_(2, 2, 3, 4)
    for t in (x, y, maps):
        t.requires_grad_()
    f = lambda x, y, maps: amstel.ops.mri_gradient(x, y, torch.tensor([1, 0, 1, 1]), maps)  # noqa: E731
    for gradcheck in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert gradcheck(f, (x, y, maps), fast_mode=True)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_gives_the_same(fused, dynamic):
    torch._dynamo.reset()
    compiled = torch.compile(test_mri.objective, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for size in ((6, 8), (5, 9)) if dynamic else ((6, 8), (3, 29)):
        x, y, mask, maps = test_mri.tensors(2, 3, *size, "columns", dtype=torch.complex64)
        results = [
            test_mri.run(lambda x, y, s: f(x, y, mask, s), [x, y, maps])  # noqa: B023
            for f in (test_mri.objective, compiled)
        ]
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_prepared(fused):
    """A step of a reconstruction, centered, the mask as rows that are alike."""
    mask = (torch.arange(20) % 3 == 0).expand(18, 20)
    physics = inverse.MRI(mask, complex_(0, 4, 18, 20).cfloat(), sigma=0.5, centered=True)
    x, y = complex_(1, 1, 18, 20).cfloat(), complex_(2, 1, 4, 18, 20).cfloat()
    found = physics.prepare(y).gradient(x)
    assert_close(
        torch.view_as_real(found), torch.view_as_real(physics.gradient(x, y)).double(), torch.float32
    )


@pytest.mark.slow
def test_sanitized():
    """The kernel, emulated, under AddressSanitizer and UBSan."""
    chosen = "(blocks or radix) and emulator"
    options = ["-q", "--capture=no", "-p", "no:cacheprovider", "-p", "no:xdist"]
    result = build.run_sanitized(["-m", "pytest", *options, __file__, "-k", chosen])
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert " passed" in result.stdout
