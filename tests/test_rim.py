"""amstel.ops.rim_input and its kin, and bicubic resampling, against plain PyTorch, SciPy and Pillow; the contract."""

import itertools
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import amstel
from amstel import reference
from amstel.ops import _rim
from amstel.testing import TOLERANCE, assert_close
from tests.conftest import ROOT

DTYPES = list(TOLERANCE)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
LINKS = ["identity", "logistic"]
F32, F64 = torch.float32, torch.float64
ops = torch.ops.amstel


def normal(*shape, seed=0, dtype=F64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def binary(*shape, seed=9):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.6


def cases(n=2, c=3, h=6, w=10, scale=2):
    """By name: f(module, *leaves) and its leaves, which may have any dtype."""
    eta, other, small = (
        normal(n, c, *size, seed=k) for k, size in enumerate(((h, w), (h, w), (h // scale, w // scale)))
    )
    sigma, mask = torch.linspace(0.5, 2, n, dtype=F64), binary(n, 1, h, w)
    made = {
        "down": (lambda m, x: m.bicubic_down(x, scale), [eta]),
        "up": (lambda m, y: m.bicubic_down_adjoint(y, scale), [small]),
    }
    for link in LINKS:

        def plain(m, eta, gradient, link=link):
            return m.rim_input(eta, gradient, link=link)

        def denoise(m, eta, y, link=link):
            return m.rim_denoise_input(eta, y, 0.7, link=link)

        def inpaint(m, eta, y, link=link):
            return m.rim_denoise_input(eta, y, sigma.to(eta.device), mask=mask.to(eta.device), link=link)

        def enlarge(m, eta, y, link=link):
            return m.rim_super_resolve_input(eta, y, scale, 0.7, link=link)

        def enlarge_each(m, eta, y, link=link):
            return m.rim_super_resolve_input(eta, y, scale, sigma.to(eta.device), link=link)

        made[f"input {link}"] = plain, [eta, other]
        made[f"denoise {link}"] = denoise, [eta, other]
        made[f"inpaint {link}"] = inpaint, [eta, other]
        made[f"enlarge {link}"] = enlarge, [eta, small]
        made[f"enlarge each {link}"] = enlarge_each, [eta, small]
    return made


NAMES = list(cases())


def same_bits(name):
    """Not with PyTorch's sigmoid, whose vectors and remainders round differently."""
    return not (name.startswith("enlarge") and name.endswith("logistic"))


def run(f, module, leaves, grad=None):
    """The value and the gradients."""
    leaves = [t.detach().requires_grad_() for t in leaves]
    out = f(module, *leaves)
    grad = normal(*out.shape, seed=5).to(leaves[0].device, leaves[0].dtype) if grad is None else grad
    return [out.detach(), *torch.autograd.grad(out, leaves, grad.to(out.dtype))]


def check(f, leaves, dtype=F64, layout=torch.contiguous_format, device="cpu"):
    """Values and gradients in `dtype` against the reference in float64."""
    short = [t.to(device, dtype).contiguous(memory_format=layout) for t in leaves]
    grad = normal(*f(reference, *leaves).shape, seed=5).to(device, dtype)
    found = run(f, amstel.ops, short, grad)
    expected = run(f, reference, [t.double() for t in short], grad.double())
    with torch.no_grad():
        assert torch.equal(f(amstel.ops, *short), found[0])
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == dtype
        assert_close(a, b)
    return found


# ---- Values and gradients ----


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients(name, dtype, layout, device):
    """Every input of the network and its gradients are those of plain PyTorch in float64."""
    for channels, size in ((3, (6, 10)), (1, (4, 2)), (5, (22, 34))):
        out, *_ = check(*cases(2, channels, *size)[name], dtype, layout, device)
        if name not in ("down", "up"):
            assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("pixels", [1, 3, 15, 16, 17, 31, 33, 255, 256, 257, 511, 513])
def test_values_at_every_width(pixels, channels):
    for name, size, (dtype, layout) in itertools.product(
        ("input logistic", "inpaint identity"),
        ((1, pixels), (pixels, 1)),
        ((F32, LAYOUTS[0]), (torch.bfloat16, LAYOUTS[1])),
    ):
        check(*cases(2, channels, *size, scale=1)[name], dtype, layout)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 5, 7, 8, 31, 64, 65])
def test_values_at_every_scale(scale):
    sizes = [(1, 1), (1, 2), (2, 3), (3, 1)]
    if scale <= 8:
        sizes += [(4, 5), (33, 2), (2, 17)]
    if scale < 8:
        sizes += [(3, size) for size in (13, 14, 15, 16, 29, 31, 32, 33)] + [(65, 9)]
    for (height, width), dtype in itertools.product(sizes, (F64, F32)):
        of = cases(1, 2, height * scale, width * scale, scale)
        for name in ("down", "up", "enlarge logistic"):
            check(*of[name], dtype)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n, c, h, w", [(0, 3, 4, 6), (2, 3, 0, 6), (2, 3, 4, 0), (2, 0, 4, 6), (0, 0, 0, 0)])
def test_values_of_nothing(n, c, h, w, name):
    f, leaves = cases(n, c, h, w)[name]
    for result, expected in zip(run(f, amstel.ops, leaves), run(f, reference, leaves), strict=True):
        assert result.numel() == 0 and result.shape == expected.shape


def strided(x):
    """The same values in other layouts."""
    n, c, h, w = x.shape
    wide = x.new_zeros(n, 2 * c, h + 3, 2 * w + 2)
    wide[:, ::2, 1:-2, 2::2] = x
    yield wide[:, ::2, 1:-2, 2::2]
    yield wide.contiguous(memory_format=torch.channels_last)[:, ::2, 1:-2, 2::2]
    yield x.transpose(2, 3).contiguous().transpose(2, 3)
    yield x.transpose(0, 1).contiguous().transpose(0, 1)
    yield torch.complex(torch.zeros_like(x), -x).conj().imag  # negated when it is looked at


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_of_strided_input(name):
    for n, c, dtype in ((2, 3, F32), (1, 1, F32), (2, 1, F64), (0, 2, F32)):
        f, leaves = cases(n, c)[name]
        leaves = [t.to(dtype) for t in leaves]
        grad = normal(*f(reference, *leaves).shape, seed=5, dtype=dtype)
        spaced = torch.zeros(*grad.shape[:3], 2 * grad.shape[3], dtype=dtype)
        spaced[..., ::2] = grad
        expected = run(f, amstel.ops, leaves, grad)
        for views in zip(*map(strided, leaves), strict=True):
            for a, b in zip(run(f, amstel.ops, views, spaced[..., ::2]), expected, strict=True):
                assert a.shape == b.shape and (torch.equal(a, b) or not same_bits(name))
                torch.testing.assert_close(a, b)
    # One image for all of a batch.
    f, leaves = cases(3, 2)[name]
    first = [t[:1].expand_as(t) for t in leaves]
    for a, b in zip(
        run(f, amstel.ops, first), run(f, amstel.ops, [t.contiguous() for t in first]), strict=True
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    "shape", [(7,), (5, 1), (5, 7), (1, 1, 5, 7), (2, 1, 1, 1), (3, 1, 1), (2, 3, 5, 7), (), (2, 1, 5, 1)]
)
def test_values_of_every_mask(shape):
    eta, y = normal(2, 3, 5, 7), normal(2, 3, 5, 7, seed=1)
    mask = binary(*shape)
    masks = [mask, mask.double(), mask.half(), mask.to(torch.uint8), mask.expand(2, 3, 5, 7)]
    masks += [m.contiguous(memory_format=torch.channels_last) for m in masks if m.dim() == 4]
    for m, dtype, layout in itertools.product(masks, (F64, torch.float16), LAYOUTS):
        f = lambda module, *t, m=m: module.rim_denoise_input(*t, 0.5, mask=m, link="logistic")  # noqa: E731
        check(f, [eta, y], dtype, layout)


def test_values_of_every_kind_of_sigma():
    eta, y = normal(3, 2, 4, 6, dtype=F32), normal(3, 2, 4, 6, seed=1, dtype=F32)
    expected = amstel.ops.rim_denoise_input(eta, y, 2.0)
    spaced = torch.full((6,), 2.0, dtype=F64)[::2]
    for sigma in (
        2,
        np.float64(2),
        torch.tensor(2.0),
        torch.tensor([2, 2, 2]),
        torch.full((3,), 2.0).half(),
        spaced,
    ):
        assert torch.equal(amstel.ops.rim_denoise_input(eta, y, sigma), expected)
    for sigma in (1e-200, math.inf):
        factor = 0.0 if sigma == math.inf else math.inf
        found = amstel.ops.rim_denoise_input(eta, y, sigma)
        torch.testing.assert_close(found[:, 2:], (eta - y) * factor, rtol=0, atol=0)


def test_gradients_only_where_asked():
    for name, (f, leaves) in cases().items():
        whole = run(f, amstel.ops, leaves)
        for k in range(len(leaves)):
            some = [t.detach().requires_grad_(j == k) for j, t in enumerate(leaves)]
            out = f(amstel.ops, *some)
            (found,) = torch.autograd.grad(out, some[k], normal(*out.shape, seed=5))
            assert torch.equal(found, whole[1 + k]), name


@pytest.mark.parametrize("name", NAMES)
def test_gradients_any_number_of_times(name):
    f, leaves = cases(2, 2, 4, 2)[name]
    for layout in LAYOUTS:
        laid = [t.contiguous(memory_format=layout).requires_grad_() for t in leaves]
        function = lambda *t: f(amstel.ops, *t).sin()  # noqa: E731
        assert torch.autograd.gradcheck(function, laid)
        assert torch.autograd.gradgradcheck(function, laid, fast_mode=layout is not LAYOUTS[0])


# ---- Resampling against others ----


def weights(scale):
    """Keys' cubic of a = -0.5 at the distances of the pixels of the larger image, at an odd number of places."""
    reach = 2 * scale + 1
    center = (scale - 1) / 2 - (scale - 1) // 2
    d = np.abs(np.arange(-reach, reach + 1) - center) / scale
    w = np.where(d <= 1, 1 - 2.5 * d**2 + 1.5 * d**3, np.where(d < 2, 2 - 4 * d + 2.5 * d**2 - 0.5 * d**3, 0))
    return w / w.sum()


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 5, 8])
def test_bicubic_is_a_mirrored_correlation(scale):
    ndimage = pytest.importorskip("scipy.ndimage")
    for height, width in ((1, 2), (3, 1), (9, 17)):
        x = normal(height * scale, width * scale)
        smooth = x.numpy()
        for axis in (0, 1):
            smooth = ndimage.correlate1d(smooth, weights(scale), axis, mode="reflect")
        expected = smooth[(scale - 1) // 2 :: scale, (scale - 1) // 2 :: scale]
        found = amstel.ops.bicubic_down(x[None, None], scale)[0, 0].numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_is_pillows_inside(scale):
    """Which at the border leaves out pixels instead of mirroring them."""
    image = pytest.importorskip("PIL.Image")
    x = normal(12 * scale, 15 * scale, dtype=F32)
    expected = torch.from_numpy(
        np.array(image.fromarray(x.numpy()).resize((15, 12), image.Resampling.BICUBIC))
    )
    inside = (slice(2, -2), slice(2, -2))
    found = amstel.ops.bicubic_down(x[None, None], scale)[0, 0]
    torch.testing.assert_close(found[inside], expected[inside], rtol=0, atol=2e-6)


@pytest.mark.parametrize("scale", [1, 2, 3, 5, 64, 65])
def test_the_adjoint_is_exact(scale):
    for h, w in ((1, 1), (2, 3), (5, 4)):
        x, y = normal(2, 1, h * scale, w * scale), normal(2, 1, h, w, seed=1)
        left = (amstel.ops.bicubic_down(x, scale) * y).sum()
        torch.testing.assert_close(
            left, (x * amstel.ops.bicubic_down_adjoint(y, scale)).sum(), rtol=1e-12, atol=1e-12
        )


def test_constants_stay():
    for scale in (1, 2, 3, 64):
        x = torch.full((1, 1, 4 * scale, 5 * scale), 0.37, dtype=F64)
        torch.testing.assert_close(amstel.ops.bicubic_down(x, scale), x[..., :4, :5], rtol=0, atol=1e-15)


# ---- Limits, bits, memory ----


@pytest.mark.parametrize("name", NAMES)
def test_limits_and_nan(name):
    values = [math.nan, math.inf, -math.inf, 1e30, -1e30, 0.0, -0.0, 1e-42, 90.0, -90.0]
    f, leaves = cases(1, 2, 8, 12)[name]
    for dtype, which in itertools.product((F64, F32), range(len(leaves))):
        low = [t.to(dtype) for t in leaves]
        low[which].view(-1)[: len(values)] = torch.tensor(values, dtype=dtype)
        grad = torch.ones_like(f(reference, *low))
        for a, b in zip(run(f, amstel.ops, low, grad), run(f, reference, low, grad), strict=True):
            # Matrix products of the reference spread NaN over a row and a column, a sum of taps where they reach.
            if name in ("down", "up") or name.startswith("enlarge"):
                bad = a.isnan() | a.isinf()
                assert not (bad & b.isfinite()).any() and bad.any() == (~b.isfinite()).any()
                a, b = a[b.isfinite()], b[b.isfinite()]
            scale = float(b[b.isfinite()].abs().max()) if b.isfinite().any() else 1.0
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6 * min(scale, 1.0), equal_nan=True)


def test_gradients_where_y_is_nan():
    """With the identity the gradient does not depend on y, so that it is finite."""
    eta, y = normal(1, 2, 3, 5).requires_grad_(), torch.full((1, 2, 3, 5), math.nan, dtype=F64)
    for f in (amstel.ops.rim_input, lambda *t: amstel.ops.rim_denoise_input(*t, 0.5)):
        (grad,) = torch.autograd.grad(f(eta, y), eta, torch.ones(1, 4, 3, 5, dtype=F64))
        assert grad.isfinite().all()


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", [F32, torch.bfloat16], ids=str)
def test_same_bits_for_any_number_of_threads(dtype, layout):
    of, before = cases(3, 3, 90, 130), torch.get_num_threads()
    try:
        for name, (f, leaves) in of.items():
            if not same_bits(name):
                continue
            low = [t.to(dtype).contiguous(memory_format=layout) for t in leaves]
            runs = []
            for threads in (1, 3):
                torch.set_num_threads(threads)
                runs.append(run(f, amstel.ops, low))
            for other in runs[1:]:
                assert all(torch.equal(a, b) for a, b in zip(other, runs[0], strict=True)), name
    finally:
        torch.set_num_threads(before)


def test_outputs_do_not_alias_inputs():
    for scale, layout in itertools.product((1, 2), LAYOUTS):
        for name, (f, leaves) in cases(1, 1, 4, 4, scale).items():
            laid = [t.contiguous(memory_format=layout).requires_grad_() for t in leaves]
            out = f(amstel.ops, *laid)
            results = [out, *torch.autograd.grad(out.sum(), laid)]
            places = [t.untyped_storage().data_ptr() for t in (*laid, *results)]
            assert len(set(places)) == len(places), name


def test_what_is_kept():
    """eta and y for the gradient, as they are, nothing else of their size."""
    for name, (f, leaves) in cases(1, 2, 32, 32).items():
        laid, saved = [t.float().requires_grad_() for t in leaves], {}
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda t: saved.setdefault(t.untyped_storage().data_ptr(), t) is None or t,  # noqa: B023
            lambda t: t,
        )
        with hooks:
            f(amstel.ops, *laid)
        more = [t for t in saved.values() if all(t.data_ptr() != u.data_ptr() for u in laid)]
        logistic = "logistic" in name and name.startswith("enlarge")  # the image as well, and the residual
        allowed = 4 * (2 * 32 * 32 * (1 + logistic) + 2 * 16 * 16)
        allowed = allowed if "inpaint" in name or name.startswith("enlarge") else 0
        assert sum(t.untyped_storage().nbytes() for t in more) <= allowed + 8, name


# ---- Composition ----


def opcheck_arguments(dtype, layout):
    eta, other = (normal(2, 3, 4, 6, seed=k, dtype=dtype).contiguous(memory_format=layout) for k in (0, 1))
    mask, precision = binary(2, 3, 4, 6).to(dtype), torch.rand(2).to(dtype)
    short = dtype if dtype == F64 else torch.bfloat16
    grad = normal(2, 6, 4, 6, dtype=short).contiguous(memory_format=torch.channels_last)
    x, small = normal(2, 3, 4, 6, dtype=dtype), normal(2, 3, 2, 3, dtype=dtype)
    return [
        (ops.rim_input, (eta, other, None, None, 0.5, False, True, dtype)),
        (ops.rim_input, (eta, other, mask, precision, 0.5, True, False, short)),
        (ops.rim_input_grad, (grad, eta, other, None, None, 0.5, False, False)),
        (ops.rim_input_grad, (grad, eta, other, mask, precision, 0.5, True, True)),
        (ops.bicubic_down, (x, None, 2)),
        (ops.bicubic_down, (x, small, 2)),
        (ops.bicubic_up, (small, 2)),
        (ops.rim_bicubic_input, (x, small, None, 0.5, 2, False, short)),
        (ops.rim_bicubic_input, (x, small, precision, 0.5, 2, True, dtype)),
    ]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", [F64, F32], ids=str)
def test_opcheck(dtype, layout):
    for op, arguments in opcheck_arguments(dtype, layout):
        torch.library.opcheck(op.default, arguments)


def test_strides_of_fake_results():
    """Of every layout that the operators see, sides of one pixel among them."""
    fake = torch._subclasses.FakeTensorMode()
    for shape in itertools.product((0, 1, 2), (1, 3), (1, 4), (1, 5)):
        plain = normal(*shape, dtype=F32)
        wide = torch.zeros(*shape[:3], 7).contiguous(memory_format=torch.channels_last)
        views = [plain, plain.contiguous(memory_format=torch.channels_last)]
        views += [wide[..., : shape[3]]] if shape[3] == 1 else []
        for eta in map(_rim.planar, views):
            grad = normal(shape[0], 2 * shape[1], *shape[2:], dtype=F32)
            real = ops.rim_input_grad(grad, eta, eta, None, None, 1.0, False, False)
            with fake:
                g, e = (fake.from_tensor(t) for t in (grad, eta))
                made = ops.rim_input_grad(g, e, e, None, None, 1.0, False, False)
            assert [t.stride() for t in made] == [t.stride() for t in real], (shape, eta.stride())


@pytest.mark.parametrize(
    "name", ["input logistic", "inpaint logistic", "enlarge each logistic", "down", "up"]
)
@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_gives_the_same(name, dynamic):
    torch._dynamo.reset()
    f = cases(2)[name][0]
    compiled = torch.compile(f, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for size in ((6, 10), (8, 4)) if dynamic and not name.startswith("inpaint") else ((6, 10),):
        leaves = [t.float() for t in cases(2, 3, *size)[name][1]]
        for a, b in zip(run(compiled, amstel.ops, leaves), run(f, amstel.ops, leaves), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
        with torch.no_grad():
            assert torch.equal(compiled(amstel.ops, *leaves), f(amstel.ops, *leaves))


def all_together(eta, y, small, gradient, mask):
    return (
        amstel.ops.rim_input(eta, gradient, link="logistic").square()
        + amstel.ops.rim_denoise_input(2 * eta, y, 0.5, mask=mask).square()
        + amstel.ops.rim_super_resolve_input(eta, small, 2, 0.5, link="logistic").square()
    ), amstel.ops.bicubic_down(eta, 2) + amstel.ops.bicubic_down_adjoint(small, 2)[..., ::2, ::2]


def test_compile_by_inductor():
    torch._dynamo.reset()
    compiled = torch.compile(all_together, fullgraph=True)
    leaves = [
        normal(2, 3, *size, seed=k, dtype=F32).requires_grad_()
        for k, size in enumerate(((6, 8), (6, 8), (3, 4), (6, 8)))
    ]
    results = []
    for f in (all_together, compiled):
        out = f(*leaves, binary(1, 1, 6, 8))
        results.append([*out, *torch.autograd.grad([t.sum() for t in out], leaves)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_export():
    class Module(torch.nn.Module):
        def forward(self, *t):
            return all_together(*t)

    arguments = (
        *(normal(2, 3, *size, dtype=F32) for size in ((6, 8), (6, 8), (3, 4), (6, 8))),
        binary(1, 1, 6, 8),
    )
    program = torch.export.export(Module(), arguments)
    assert [n for n in program.graph.nodes if "amstel" in str(n.target)]
    for a, b in zip(program.module()(*arguments), all_together(*arguments), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_autocast(name):
    """The network's input comes out in bfloat16, rounded once; images stay as they are."""
    f, leaves = cases()[name]
    low = [t.float() for t in leaves]
    exact = run(f, amstel.ops, low)
    grad = normal(*exact[0].shape, seed=5)
    tracked = [t.requires_grad_() for t in low]
    with torch.autocast("cpu", torch.bfloat16):
        out = f(amstel.ops, *tracked)
        assert f(amstel.ops, *leaves).dtype == F64
    kept = F32 if name in ("down", "up") else torch.bfloat16
    assert out.dtype == kept and torch.equal(out, exact[0].to(kept))
    for a, b in zip(torch.autograd.grad(out, tracked, grad.to(kept)), exact[1:], strict=True):
        assert a.dtype == F32
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-2 * float(b.abs().max()))


# ---- Bad input ----

E, S = torch.zeros(2, 3, 4, 6), torch.zeros(2, 3, 2, 3)
denoise, enlarge = amstel.ops.rim_denoise_input, amstel.ops.rim_super_resolve_input


@pytest.mark.parametrize("error, message, call", [
    (TypeError, r"`eta` must be a tensor \[N, C, H, W\]", lambda: amstel.ops.rim_input([1], E)),
    (ValueError, r"`eta` must be floating-point \[N, C, H, W\], got float32 \[3, 4, 6\]", lambda: amstel.ops.rim_input(E[0], E)),
    (ValueError, "`eta` .*got int64", lambda: amstel.ops.rim_input(E.long(), E)),
    (ValueError, "`eta` .*got complex64", lambda: denoise(E.cfloat(), E, 1)),
    (TypeError, "`gradient` must be a tensor like eta", lambda: amstel.ops.rim_input(E, 0)),
    (ValueError, r"`gradient` must be float32 \[2, 3, 4, 6\] on cpu like eta, got float32 \[1,", lambda: amstel.ops.rim_input(E, E[:1])),
    (ValueError, "`gradient` .*got float64", lambda: amstel.ops.rim_input(E, E.double())),
    (ValueError, "`gradient` .*on cpu like eta", lambda: amstel.ops.rim_input(E, E.to("meta"))),
    (ValueError, "`link` must be 'identity' or 'logistic', got 'tanh'", lambda: amstel.ops.rim_input(E, E, link="tanh")),
    (ValueError, "`y` must be float32", lambda: denoise(E, E[..., 1:], 1)),
    (ValueError, "`sigma` must be a number > 0 or a tensor", lambda: denoise(E, E, 0)),
    (ValueError, "`sigma` .*got -1", lambda: denoise(E, E, -1)),
    (ValueError, "`sigma` .*got nan", lambda: denoise(E, E, math.nan)),
    (ValueError, "`sigma` .*got True", lambda: denoise(E, E, True)),
    (ValueError, "`sigma` .*got '1'", lambda: denoise(E, E, "1")),
    (ValueError, r"`sigma` must be a number, or a tensor \[2\] on cpu, got float32 \[3\]", lambda: denoise(E, E, torch.ones(3))),
    (ValueError, "`sigma` .*got complex64", lambda: denoise(E, E, torch.ones(2).cfloat())),
    (ValueError, "`sigma` .*on cpu", lambda: denoise(E, E, torch.ones(2, device="meta"))),
    (TypeError, "`mask` must be a tensor that can be broadcast", lambda: denoise(E, E, 1, mask=1)),
    (ValueError, r"`mask` must be broadcast to \[2, 3, 4, 6\], got float32 \[5\]", lambda: denoise(E, E, 1, mask=torch.ones(5))),
    (ValueError, "`mask` .*got complex64", lambda: denoise(E, E, 1, mask=torch.ones(6).cfloat())),
    (ValueError, "`mask` .*on cpu", lambda: denoise(E, E, 1, mask=torch.ones(6, device="meta"))),
    (ValueError, "`link`", lambda: enlarge(E, S, 2, 1, link=None)),
    (ValueError, "`scale` must be an integer >= 1, got 0", lambda: enlarge(E, S, 0, 1)),
    (ValueError, "`scale` .*got 2.0", lambda: enlarge(E, S, 2.0, 1)),
    (ValueError, "`scale` .*got True", lambda: enlarge(E, S, True, 1)),
    (ValueError, "`eta` must be of height and width that are multiples of the scale 3", lambda: enlarge(E, S, 3, 1)),
    (ValueError, r"`y` must be float32 \[2, 3, 2, 3\] on cpu, got float32 \[2, 3, 4, 6\]", lambda: enlarge(E, E, 2, 1)),
    (ValueError, "`y` must be float32 .*got float64", lambda: enlarge(E, S.double(), 2, 1)),
    (TypeError, "`y` must be a tensor", lambda: enlarge(E, None, 2, 1)),
    (ValueError, "`sigma`", lambda: enlarge(E, S, 2, -2.0)),
    (TypeError, r"`x` must be a tensor \[N, C, H, W\]", lambda: amstel.ops.bicubic_down(None, 2)),
    (ValueError, "`x` must be floating-point", lambda: amstel.ops.bicubic_down(E[0], 2)),
    (ValueError, "`x` .*multiples of the scale 5", lambda: amstel.ops.bicubic_down(E, 5)),
    (ValueError, "`scale`", lambda: amstel.ops.bicubic_down(E, -2)),
    (ValueError, "`y` .*got uint8", lambda: amstel.ops.bicubic_down_adjoint(E.byte(), 2)),
    (ValueError, "`scale`", lambda: amstel.ops.bicubic_down_adjoint(E, "2")),
])  # fmt: skip
def test_bad_input(error, message, call):
    with pytest.raises(error, match=message):
        call()


G, ONE, W6 = torch.zeros(2, 6, 4, 6), torch.ones(2), torch.zeros(2, 3, 4, 12)[..., ::2]


def inputs(eta=E, other=E, mask=None, precision=None, residual=True, dtype=F32):
    return lambda: ops.rim_input(eta, other, mask, precision, 1.0, residual, False, dtype)


def inputs_grad(grad=G, eta=E, other=E, mask=None, precision=None):
    return lambda: ops.rim_input_grad(grad, eta, other, mask, precision, 1.0, True, False)


def bicubic_input(eta=E, residual=S, precision=None, scale=2, dtype=F32):
    return lambda: ops.rim_bicubic_input(eta, residual, precision, 1.0, scale, False, dtype)


@pytest.mark.parametrize("message, call", [
    ("`eta` must be float64 or float32 .*got Half", inputs(eta=E.half())),
    ("`eta`", inputs(eta=E[0])),
    ("`eta`", inputs(eta=torch.zeros(()))),
    ("`eta` must be contiguous or channels last", inputs(eta=torch.zeros(2, 3, 4, 9)[..., :6])),
    ("`eta` must be contiguous or channels last", inputs(eta=torch.zeros(2, 3, 6, 4).transpose(2, 3))),
    ("`other` must be like `eta`", inputs(other=E[:1])),
    ("`other` must be like `eta`", inputs(other=E.double())),
    ("`other` must be contiguous or channels last", inputs(other=torch.zeros(2, 3, 8, 6)[:, :, ::2])),
    ("`mask` must be like `eta`", inputs(mask=torch.ones(6))),
    ("`mask` must be like `eta`", inputs(mask=E.bool())),
    ("`mask` must be contiguous or channels last", inputs(mask=torch.ones(6).expand_as(E))),
    ("`mask` is for a residual", inputs(mask=E, residual=False)),
    ("`precision` must be a contiguous Float \\[2\\]", inputs(precision=torch.ones(3))),
    ("`precision`", inputs(precision=ONE.double())),
    ("`precision`", inputs(precision=torch.ones(4)[::2])),
    ("`precision`", inputs(precision=torch.ones(1).expand(2))),
    ("`dtype` must be float64 for float64", inputs(dtype=F64)),
    ("`dtype`", inputs(dtype=torch.int64)),
    ("`dtype`", inputs(eta=E.double(), other=E.double())),
    ("`grad` must be \\[N, 2 C, H, W\\]", inputs_grad(E)),
    ("`grad`", inputs_grad(G[0])),
    ("`dtype`", inputs_grad(G.double())),
    ("`dtype`", inputs_grad(G.long())),
    ("`eta` must be contiguous or channels last", inputs_grad(eta=torch.zeros(2, 3, 4, 9)[..., :6])),
    ("`precision`", inputs_grad(precision=torch.ones(1))),
    ("`mask`", inputs_grad(mask=E[:1])),
    ("`x` must be float64 or float32", lambda: ops.bicubic_down(E.bfloat16(), None, 2)),
    ("`x` must be contiguous", lambda: ops.bicubic_down(W6, None, 2)),
    ("`scale` must be from 1 to 64, got 0", lambda: ops.bicubic_down(E, None, 0)),
    ("`scale` must be from 1 to 64, got 65", lambda: ops.bicubic_down(torch.zeros(1, 1, 65, 65), None, 65)),
    ("`scale`", lambda: ops.bicubic_down(E, None, -2)),
    ("`x` must be of height and width that are multiples of the scale 4", lambda: ops.bicubic_down(E, None, 4)),
    ("`minus` must be like", lambda: ops.bicubic_down(E, E, 2)),
    ("`minus` must be like", lambda: ops.bicubic_down(E, S.double(), 2)),
    ("`minus` must be contiguous", lambda: ops.bicubic_down(E, torch.zeros(2, 3, 2, 6)[..., ::2], 2)),
    ("`y` must be float64 or float32", lambda: ops.bicubic_up(E[0], 2)),
    ("`y` must be contiguous", lambda: ops.bicubic_up(W6, 2)),
    ("`scale`", lambda: ops.bicubic_up(E, 0)),
    ("`scale`", lambda: ops.bicubic_up(E, 65)),
    ("`scale`", lambda: ops.bicubic_up(E, 1 << 62)),
    ("`eta` must be contiguous", bicubic_input(eta=W6)),
    ("`eta` must be float64 or float32", bicubic_input(eta=E.half())),
    ("`residual` must be `eta` made smaller by 2", bicubic_input(residual=S[:1])),
    ("`residual` must be `eta` made smaller by 1", bicubic_input(scale=1)),
    ("`residual` must be", bicubic_input(residual=S.double())),
    ("`residual` must be contiguous", bicubic_input(residual=torch.zeros(2, 3, 2, 6)[..., ::2])),
    ("`scale`", bicubic_input(scale=65)),
    ("`precision`", bicubic_input(precision=torch.ones(3))),
    ("`dtype`", bicubic_input(dtype=F64)),
])  # fmt: skip
def test_raw_operators_check_their_arguments(message, call):
    with pytest.raises(RuntimeError, match=message):
        call()


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["base", "avx2"])
def test_on_every_instruction_set(isa):
    """The value tests again in a process of their own with narrower kernels."""
    if "AMSTEL_LIBRARY" in os.environ or isa == ops.cpu_isa():
        return  # this run is on it, or on no CPU kernel at all
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not cuda", __file__, "-k", "values or limits"],
        env={**os.environ, "AMSTEL_CPU_ISA": isa}, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if "AMSTEL_CPU_ISA must be one of" in done.stdout + done.stderr:
        return  # this machine does not run it
    assert done.returncode == 0, done.stdout[-3000:]


def test_the_layout_does_not_depend_on_who_requires_a_gradient():
    y, sigma, mask = torch.rand(2, 2, 4, 4), torch.tensor([0.5, 0.6]), torch.rand(4, 4)
    for learns in ((sigma.clone().requires_grad_(), mask), (sigma, mask.clone().requires_grad_())):
        found = amstel.ops.rim_denoise_input(y, y, learns[0], mask=learns[1])
        assert found.requires_grad and found.stride() == (64, 1, 16, 4)
    found = amstel.ops.rim_super_resolve_input(y, y[..., :2, :2], 2, sigma.clone().requires_grad_())
    assert found.requires_grad and found.stride() == (64, 1, 16, 4)


def test_large_scales_compile_and_keep_their_dtype_under_autocast():
    x, y = torch.rand(1, 2, 130, 65), torch.rand(1, 2, 2, 1)

    def run(x, y):
        network = amstel.ops.rim_super_resolve_input(x, y, 65, 0.5, link="logistic")
        return amstel.ops.bicubic_down(x, 65), amstel.ops.bicubic_down_adjoint(y, 65), network

    a, b = x.double(), y.double()
    true = (
        amstel.reference.bicubic_down(a, 65),
        amstel.reference.bicubic_down_adjoint(b, 65),
        amstel.reference.rim_super_resolve_input(a, b, 65, 0.5, link="logistic"),
    )
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for found, expected in zip(compiled(x, y), true, strict=True):
        assert_close(found, expected)
    with torch.autocast("cpu", torch.bfloat16):
        found = run(x, y)
    assert [t.dtype for t in found] == [torch.float32, torch.float32, torch.bfloat16]
    for one, expected in zip(found, true, strict=True):
        assert_close(one, expected)
