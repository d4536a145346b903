"""amstel.ops.mri_gradient and mri_normal against plain PyTorch and NumPy's transforms; the contract."""

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
from amstel.ops import _mri
from amstel.ops.mri import mri_gradient, mri_normal
from amstel.reference.mri import mri_forward
from amstel.testing import assert_close
from tests.conftest import ROOT

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
C64, C128 = torch.complex64, torch.complex128
REAL = {C64: torch.float32, C128: torch.float64}
MASKS = ["columns", "plane", "each"]
ops = torch.ops.amstel


def normal(*shape, seed=0, dtype=C128):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=C128).to(dtype)


def mask_of(kind, n, h, w, seed=9):
    shape = {"columns": (w,), "plane": (h, w), "each": (n, 1, h, w)}[kind]
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.6


def tensors(n, coils, h, w, mask="columns", each=False, device="cpu", dtype=C128):
    """x, y, mask and sensitivities; coils = 0 for none of these."""
    maps = normal(*([n] if each else []), coils, h, w, seed=2).to(device, dtype) if coils else None
    x, y = normal(n, h, w).to(device, dtype), normal(n, max(coils, 1), h, w, seed=1).to(device, dtype)
    return x, y, mask_of(mask, n, h, w).to(device), maps


def sigma_of(n):
    return torch.linspace(0.7, 1.5, n, dtype=torch.float64)


def parts(t):
    return torch.view_as_real(t.resolve_conj()) if t.is_complex() else t


def close(found, expected, dtype):
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == dtype
        assert_close(parts(a), parts(b))


def run(f, leaves):
    """The value and the gradients."""
    leaves = [t.detach().requires_grad_() for t in leaves]
    out = f(*leaves)
    return [
        out.detach(),
        *torch.autograd.grad(out, leaves, normal(*out.shape, seed=5).to(out.device, out.dtype)),
    ]


def wide(t):
    return None if t is None else t.to(C128)


def check(x, y, mask, maps, centered=False, scale=None):
    """Values and gradients of both operators in the dtype of x against the reference in float64."""
    scale = sigma_of(len(x)).to(x.device) if scale is None else scale
    adjoint = normal(*x.shape, seed=3).to(x.device, x.dtype)
    for f, leaves in (
        (lambda m, x, y, s: m.mri_gradient(x, y, mask, s, scale, centered=centered), [x, y]),
        (lambda m, x, a, s: m.mri_normal(x, mask, s, a, scale, centered=centered), [x, adjoint]),
        (lambda m, x, s: m.mri_normal(x, mask, s, None, 0.3, centered=centered), [x]),
    ):
        found = run(lambda *t: f(amstel.ops, *t, maps), leaves)  # noqa: B023
        expected = run(lambda *t: f(reference, *t, wide(maps)), [t.to(C128) for t in leaves])  # noqa: B023
        close(found, expected, x.dtype)
        with torch.no_grad():
            assert torch.equal(f(amstel.ops, *leaves, maps), found[0])


# ---- Values and gradients ----


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("dtype", [C128, C64], ids=str)
def test_values_and_gradients(dtype, kind, centered, device):
    """Values and gradients are those of plain PyTorch in float64, for every mask, size and number of coils."""
    for coils, each in ((0, False), (1, False), (2, True), (5, False)):
        for h, w in ((6, 8), (7, 9), (5, 4), (1, 1), (1, 6), (9, 1)):
            check(*tensors(2, coils, h, w, kind, each, device, dtype), centered)


@pytest.mark.parametrize(
    "size",
    [
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        8,
        11,
        13,
        15,
        16,
        17,
        22,
        31,
        32,
        33,
        49,
        109,
        121,
        127,
        131,
        250,
        262,
        360,
        386,
        1031,
    ],
)
def test_values_at_every_length(size):
    """Every radix, sums of several, Bluestein's convolution from 131 on; rows around the width of a vector."""
    for (h, w), kind in itertools.product(((size, 3), (2, size)), ("columns", "plane")):
        for coils, dtype in ((0, C128), (2, C64), (2, C128)):
            x, y, mask, maps = tensors(1, coils, h, w, kind, dtype=dtype)
            close([mri_normal(x, mask, maps)], [reference.mri_normal(wide(x), mask, wide(maps))], dtype)
            close(
                [mri_gradient(x, y, mask, maps)],
                [reference.mri_gradient(wide(x), wide(y), mask, wide(maps))],
                dtype,
            )


@pytest.mark.parametrize("kind", MASKS)
# Strided along the innermost, which torch.fft itself does not survive (torch 2.14, MKL): MALLOC_CHECK_=3 shows it.
@pytest.mark.parametrize("h, w", [(5, 6), (7, 131)])
def test_values_and_gradients_of_strided_input(h, w, kind):
    x, y, mask, maps = tensors(3, 2, h, w, kind, each=True)
    _, single, _, _ = tensors(3, 0, h, w, kind)
    spaced = lambda t: torch.stack([t, 7 * t], -1)[..., 0]  # noqa: E731
    swapped = lambda t: t.transpose(0, -2).contiguous().transpose(0, -2)  # noqa: E731
    turned = lambda t: t.transpose(-2, -1).contiguous().transpose(-2, -1)  # noqa: E731
    conjugate = lambda t: t.conj().resolve_conj().conj()  # noqa: E731
    ones = [t[:1].expand_as(t) for t in (x, y, maps)]
    expected = None
    for view in (lambda t: t, spaced, swapped, turned, conjugate):
        masks = [mask.double(), spaced(mask.float()), mask.to(torch.uint8)]
        found = []
        for m in masks:
            found += run(lambda a, b: mri_gradient(a, b, m, view(maps), 0.5), [view(x), view(y)])  # noqa: B023
            found += run(lambda a, b: mri_gradient(a, b, m, None, 0.5), [view(x), view(single)])  # noqa: B023
            found += run(lambda a, b: mri_normal(a, m, view(maps), b, 0.5), [view(x), view(x)])  # noqa: B023
            found += run(lambda a, b: mri_normal(a, m, None, b, sigma_of(6)[::2]), [view(x), view(x)])  # noqa: B023
        expected = expected or found
        for a, b in zip(found, expected, strict=True):
            assert_close(parts(a), parts(b))
    a, b = (
        mri_gradient(*(f(t) for t in ones[:2]), mask, f(ones[2]))
        for f in (lambda t: t, torch.Tensor.contiguous)
    )
    assert torch.equal(a, b)
    every = mask.expand(3, 1, h, w)
    assert_close(parts(mri_normal(x, every, maps)), parts(mri_normal(x, mask, maps)))


@pytest.mark.parametrize("coils, h, w", [(0, 4, 6), (3, 4, 6), (2, 3, 131)])
def test_values_and_gradients_of_no_images(coils, h, w):
    """Which MKL does not transform, so that there is no reference."""
    for kind, each, centered in itertools.product(MASKS, (False, True), (False, True)):
        x, y, mask, maps = tensors(0, coils, h, w, kind, each)
        found = run(lambda *t: mri_gradient(*t, mask, maps, centered=centered), [x, y])  # noqa: B023
        for result, like in zip(found, (x, x, y), strict=True):
            assert result.shape == like.shape
        assert all(t.shape == x.shape for t in run(lambda *t: mri_normal(t[0], mask, maps, t[1]), [x, x]))  # noqa: B023


def numpy_gradient(x, y, mask, maps, centered):
    """The formula, by numpy.fft with shifts."""
    shift, unshift = (
        (np.fft.fftshift, np.fft.ifftshift) if centered else (lambda t, axes: t, lambda t, axes: t)
    )
    images = maps.numpy() * x.numpy()[:, None]
    axes = (-2, -1)
    k = shift(np.fft.fft2(unshift(images, axes), norm="ortho"), axes)
    residual = mask.numpy() * (k - y.numpy())
    back = shift(np.fft.ifft2(unshift(residual, axes), norm="ortho"), axes)
    return torch.from_numpy((maps.numpy().conj() * back).sum(1))


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("kind", MASKS)
def test_values_are_those_of_numpy(kind, centered):
    for h, w in ((6, 8), (7, 9), (8, 5), (3, 131), (13, 22)):
        x, y, mask, maps = tensors(2, 3, h, w, kind, each=True)
        expected = numpy_gradient(x, y, mask, maps, centered)
        assert_close(parts(mri_gradient(x, y, mask, maps, centered=centered)), parts(expected))


@pytest.mark.parametrize("kind", ["columns", "each"])
@pytest.mark.parametrize("size", [(2, 3), (1, 131)])
def test_gradients_any_number_of_times(size, kind):
    """In x, y and the sensitivities."""
    x, y, mask, maps = (
        t if t.dtype == torch.bool else t.requires_grad_() for t in tensors(1, 2, *size, kind)
    )
    fast = size[1] > 100
    for f, leaves in (
        (lambda x, y: mri_gradient(x, y, mask, maps.detach(), 0.7, centered=True), (x, y)),
        (lambda x, y: mri_normal(x, mask, maps.detach(), y[:, 0], sigma_of(1)), (x, y)),
        (lambda x, y: mri_gradient(x, y, mask, None), (x, y[:, :1].detach().requires_grad_())),
        (lambda x, y, s: mri_gradient(x, y, mask, s, sigma_of(1)), (x, y, maps)),
        (lambda x, s: mri_normal(x, mask, s), (x, maps)),
    ):
        nonlinear = lambda *t: f(*t) * f(*t).abs()  # noqa: B023, E731
        assert torch.autograd.gradcheck(nonlinear, leaves, fast_mode=fast)
        assert fast or torch.autograd.gradgradcheck(nonlinear, leaves, atol=1e-4)


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("kind", MASKS)
def test_gradients_of_the_sensitivities_and_of_the_scale(kind, each, centered):
    """Alone and together, and for many gradients of the result at once."""
    x, y, mask, maps = tensors(2, 3, 5, 6, kind, each=each)
    scale = sigma_of(2).requires_grad_()
    results = []
    for module in (amstel.ops, reference):
        leaves = [t.detach().requires_grad_() for t in (x, y, maps)]
        out = module.mri_gradient(*leaves[:2], mask, leaves[2], sigma_of(2), centered=centered)
        many = torch.stack([normal(2, 5, 6, seed=s) for s in (7, 8)]).to(out.dtype)
        found = [*torch.autograd.grad(out, leaves, many, retain_graph=True, is_grads_batched=True)]
        found += torch.autograd.grad(out, leaves[2], many[0] * 1j, retain_graph=True)
        out = out + module.mri_normal(x, mask, maps, None, scale, centered=centered)
        results.append([*found, *torch.autograd.grad(out.abs().square().sum(), [*leaves, scale])])
    for a, b in zip(*results, strict=True):
        assert_close(parts(a), parts(b))


def test_gradients_only_where_asked():
    x, y, mask, maps = tensors(2, 2, 5, 6)
    whole = run(lambda x, y: mri_gradient(x, y, mask, maps), [x, y])
    for k in range(2):
        leaves = [t.detach().requires_grad_(j == k) for j, t in enumerate((x, y))]
        (found,) = torch.autograd.grad(mri_gradient(*leaves, mask, maps), leaves[k], normal(2, 5, 6, seed=5))
        assert torch.equal(found, whole[1 + k])


def test_it_is_the_gradient_of_the_likelihood():
    x, y, mask, maps = tensors(2, 3, 6, 5, "each", each=True)
    leaf = x.clone().requires_grad_()
    misfit = (mri_forward(leaf, mask, maps, centered=True) - mask * y).abs().square().sum() / (2 * 0.3**2)
    assert_close(
        parts(mri_gradient(x, y, mask, maps, 0.3, centered=True)), parts(torch.autograd.grad(misfit, leaf)[0])
    )


# ---- Limits, bits, memory ----


@pytest.mark.parametrize("w", [8, 131])
@pytest.mark.parametrize("kind", MASKS)
def test_what_was_not_measured_may_be_anything(kind, w):
    x, y, mask, maps = tensors(2, 3, 4, w, kind)
    hole = ~mask.expand(2, 1, 4, w).expand_as(y)
    for centered, track in itertools.product((False, True), (False, True)):
        maps = maps.detach().requires_grad_(track)
        results = []
        for value in (0, complex(math.nan, math.inf)):
            leaf = y.masked_fill(hole, value).requires_grad_()
            out = mri_gradient(x, leaf, mask, maps, centered=centered)
            results.append([out, torch.autograd.grad(out.abs().square().sum(), leaf)[0]])
        for a, b in zip(*results, strict=True):
            assert a.isfinite().all() and torch.equal(a, b)


@pytest.mark.parametrize("w", [6, 131])
@pytest.mark.parametrize("kind", MASKS)
def test_limits_and_nan(kind, w):
    """A transform spreads NaN over a row, or over the image; other images stay as they are."""
    for value, which in itertools.product((math.nan, math.inf), range(3)):
        x, y, mask, maps = tensors(3, 2, 4, w, kind, each=True)
        mask[..., :1] = True
        clean = mri_gradient(x, y, mask, maps)
        (x, y[:, 0], maps[:, 0])[which][1, 2, 0] = value
        found, expected = (m.mri_gradient(x, y, mask, maps) for m in (amstel.ops, reference))
        assert torch.equal(found[::2], clean[::2])
        lines = slice(2, 3) if kind == "columns" and which != 1 else slice(None)
        assert not found[1, lines].isfinite().any() and not expected[1, lines].isfinite().any()


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("dtype", [C64, C128], ids=str)
def test_same_bits_for_any_number_of_threads(dtype, kind):
    x, _, mask, maps = tensors(2, 4, 75, 99, kind, dtype=dtype)
    images, before, runs = normal(2, 4, 75, 99, seed=3, dtype=dtype), torch.get_num_threads(), []
    weights, real = _mri.weights_of(mask, x), torch.view_as_real
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            k = images.clone()
            ops.kspace_residual(real(k), weights.contiguous(), real(images * 2))
            runs.append([
                mri_normal(x, mask, maps, x, 0.5), mri_normal(x, mask, None), real(k),
                ops.coil_expand(real(x), real(maps)[None]), ops.coil_reduce(real(images), real(maps)[None], None, None, 0.5),
                *ops.mri_normal_grad(
                    real(x.conj().resolve_conj()), real(x), weights.contiguous(), real(maps)[None], None, 0.5, True
                ),
            ])  # fmt: skip
    finally:
        torch.set_num_threads(before)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, runs[0], strict=True))


def test_same_bits_from_run_to_run():
    for w, kind in itertools.product((96, 131), MASKS):
        x, y, mask, maps = tensors(2, 3, 40, w, kind, dtype=C64)
        runs = [run(lambda x, y: mri_gradient(x, y, mask, maps, 0.5), [x, y]) for _ in range(3)]  # noqa: B023
        assert all(torch.equal(a, b) for other in runs[1:] for a, b in zip(other, runs[0], strict=True))


def test_outputs_do_not_alias_inputs_and_inputs_stay():
    for coils, size, kind in itertools.product((0, 1), ((4, 6), (1, 1), (2, 131)), MASKS):
        x, y, mask, maps = tensors(1, coils, *size, kind)
        given = [t for t in (x, y, mask, maps) if t is not None]
        copies = [t.clone() for t in given]
        for call in (
            lambda x, y: mri_gradient(x, y, mask, maps),  # noqa: B023
            lambda x, y: mri_normal(x, mask, maps, y[:, 0]),  # noqa: B023
        ):
            leaves = [x.requires_grad_(), y.requires_grad_()]
            out = call(*leaves)
            grad = torch.ones_like(out)
            places = [
                t.untyped_storage().data_ptr()
                for t in (*given, grad, out, *torch.autograd.grad(out, leaves, grad))
            ]
            assert len(set(places)) == len(places)
        assert all(torch.equal(a, b) for a, b in zip(given, copies, strict=True))


def test_memory_does_not_grow_with_the_number_of_coils(tmp_path):
    """mri_normal allocates the result and less than two images of scratch where a mask is of columns, one coil's k-space else."""
    script = tmp_path / "peak.py"
    script.write_text(
        "import torch, amstel\n"
        "torch.set_num_threads(1)\n"
        "x, maps = torch.randn(1, 400, 320, dtype=torch.cfloat), torch.randn(16, 400, 320, dtype=torch.cfloat)\n"
        "masks = torch.ones(320), torch.ones(400, 320)\n"
        "peak = lambda: int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
        "for mask in masks:\n"
        "    run = lambda coils: amstel.ops.mri_normal(x, mask, maps[:coils])\n"
        "    run(1)  # pages of code come in once\n"
        "    for coils in (2, 16):\n"
        "        open('/proc/self/clear_refs', 'w').write('5')  # the peak is now what is held\n"
        "        before = peak(); run(coils); print(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    few, many, few_2d, many_2d = (int(line) for line in done.stdout.split())
    image = 400 * 320 * 8 // 1024
    assert few <= 2 * image and many <= 2 * image, done.stdout
    assert few_2d <= 5 * image and many_2d <= 5 * image, done.stdout


def test_what_is_kept():
    """For the gradient the mask and the sensitivities, which are those of the caller."""
    x, y, mask, maps = tensors(1, 3, 16, 24, dtype=C64)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        mri_gradient(x.requires_grad_(), y.requires_grad_(), mask, maps)
    new = [t for t in saved if t.untyped_storage().data_ptr() != maps.untyped_storage().data_ptr()]
    assert sum(t.numel() for t in new) <= 2 * 24


# ---- Composition ----


@pytest.mark.parametrize("dtype", list(REAL.values()), ids=str)
def test_opcheck(dtype):
    make = lambda *shape: torch.randn(*shape, 2, dtype=dtype)  # noqa: E731
    x, maps, each, images = make(2, 3, 5), make(1, 4, 3, 5), make(2, 4, 3, 5), make(2, 4, 3, 5)
    columns, plane, own, scale = (torch.rand(*s, dtype=dtype) for s in ((5,), (1, 3, 5), (2, 3, 5), (2,)))
    for op, arguments in (
        (ops.mri_normal, (x, columns, maps, None, None, 0.5)),
        (ops.mri_normal, (x, plane, each, x + 1, scale, 0.5)),
        (ops.mri_normal, (x, own, None, None, scale, 1.0)),
        (ops.mri_normal_grad, (x, x + 1, columns, maps, scale, 0.5, True)),
        (ops.mri_normal_grad, (x, x + 1, own, each, None, 0.5, False)),
        (ops.coil_expand, (x, maps)),
        (ops.coil_expand, (x, each)),
        (ops.coil_reduce, (images, maps, None, None, 0.5)),
        (ops.coil_reduce, (images, each, x, scale, 0.5)),
        (ops.kspace_residual, (images, columns, None)),
        (ops.kspace_residual, (images.clone(), own, images)),
    ):
        torch.library.opcheck(op.default, arguments)


def objective(x, y, mask, maps):
    gradient = mri_gradient(x, y, mask, maps, 0.5, centered=True)
    return (gradient + mri_normal(x * 2, mask, maps, gradient, 0.5)).abs().square()


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("kind", MASKS)
def test_compile_gives_the_same(kind, dynamic):
    """By aot_eager: inductor hands complex tensors to eager operators one by one and only warns of it."""
    torch._dynamo.reset()
    compiled = torch.compile(objective, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for size in ((6, 8), (5, 9)) if dynamic else ((6, 8), (3, 131)):
        x, y, mask, maps = tensors(2, 3, *size, kind, dtype=C64)
        results = [run(lambda x, y, s: f(x, y, mask, s), [x, y, maps]) for f in (objective, compiled)]  # noqa: B023
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*complex operators.*")
def test_compile_by_inductor():
    torch._dynamo.reset()
    x, y, mask, maps = tensors(2, 3, 6, 8, "plane", dtype=C64)
    compiled = torch.compile(objective, fullgraph=True)
    results = [run(lambda x, y, s: f(x, y, mask, s), [x, y, maps]) for f in (objective, compiled)]  # noqa: B023
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_export():
    class Module(torch.nn.Module):
        def forward(self, *t):
            return objective(*t)

    for kind in MASKS:
        arguments = tensors(2, 3, 6, 8, kind, dtype=C64)
        program = torch.export.export(Module(), arguments)
        assert [n for n in program.graph.nodes if "amstel" in str(n.target)]
        torch.testing.assert_close(program.module()(*arguments), objective(*arguments), rtol=1e-5, atol=1e-5)


def test_autocast_changes_nothing():
    x, y, mask, maps = tensors(2, 3, 6, 8, dtype=C64)
    expected = run(lambda x, y: mri_gradient(x, y, mask, maps), [x, y])
    with torch.autocast("cpu", torch.bfloat16):
        found = run(lambda x, y: mri_gradient(x, y, mask, maps), [x, y])
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


# ---- Bad input ----

X, Y, M, S = (t.to(C64) if t.is_complex() else t for t in tensors(2, 3, 4, 6))


def gradient(x=X, y=Y, mask=M, maps=S, sigma=1.0):
    return lambda: mri_gradient(x, y, mask, maps, sigma)


def product(x=X, mask=M, maps=S, adjoint=None, scale=1.0):
    return lambda: mri_normal(x, mask, maps, adjoint, scale)


@pytest.mark.parametrize("error, message, call", [
    (TypeError, r"`x` must be a complex tensor \[N, H, W\]", gradient(x=[1])),
    (ValueError, r"`x` must be complex64 or complex128 \[N, H, W\], got float32 \[2, 4, 6\]", gradient(x=X.real)),
    (ValueError, "`x` .*got complex64 \\[4, 6\\]", gradient(x=X[0])),
    (ValueError, "`x` .*got complex32", product(x=torch.zeros(2, 4, 6, dtype=torch.complex32))),
    (TypeError, "`y` must be a complex tensor", gradient(y=None)),
    (ValueError, r"`y` must be complex64 \[2, 3, 4, 6\] on cpu, got complex64 \[1,", gradient(y=Y[:1])),
    (ValueError, r"`y` must be complex64 \[2, 1, 4, 6\]", gradient(maps=None)),
    (ValueError, "`y` .*got complex128", gradient(y=Y.to(C128))),
    (ValueError, "`y` .*on cpu", gradient(y=Y.to("meta"))),
    (TypeError, "`mask` must be a tensor", gradient(mask=1)),
    (ValueError, r"`mask` must be boolean or real \[6\], \[4, 6\] or \[2, 1, 4, 6\], got bool \[5\]", gradient(mask=M[1:])),
    (ValueError, "`mask` .*got bool \\[4\\]", product(mask=M[:4])),
    (ValueError, "`mask` .*got float32 \\[2, 4, 6\\]", product(mask=torch.ones(2, 4, 6))),
    (ValueError, "`mask` .*got complex64", product(mask=S[0])),
    (ValueError, "`mask` must be on cpu", product(mask=M.to("meta"))),
    (TypeError, r"`sensitivities` must be a complex tensor \[coils, H, W\]", gradient(maps=1)),
    (ValueError, r"`sensitivities` must be complex64 \[coils, 4, 6\] or \[2, coils, 4, 6\] on cpu, got complex64 \[4, 6\]", gradient(maps=S[0])),
    (ValueError, "`sensitivities` .*got float32", gradient(maps=S.real)),
    (ValueError, "`sensitivities` .*got complex128", product(maps=S.to(C128))),
    (ValueError, "`sensitivities` .*got complex64 \\[3, 3, 4, 6\\]", product(maps=S.expand(3, -1, -1, -1))),
    (ValueError, "`sensitivities` .*got complex64 \\[3, 6, 4\\]", product(maps=S.mT)),
    (ValueError, "`sensitivities` .*got complex64 \\[0, 4, 6\\]", product(maps=S[:0])),
    (ValueError, "`sensitivities` .*on meta", product(maps=S.to("meta"))),
    (ValueError, "`sigma` must be a number > 0 or a tensor", gradient(sigma=0)),
    (ValueError, "`sigma` .*got nan", gradient(sigma=math.nan)),
    (ValueError, "`sigma` .*got '1'", gradient(sigma="1")),
    (ValueError, "`sigma` .*got True", gradient(sigma=True)),
    (ValueError, r"`sigma` must be a number, or a tensor \[2\] on cpu, got float32 \[3\]", gradient(sigma=torch.ones(3))),
    (ValueError, "`sigma` .*got complex64", gradient(sigma=X[:, 0, 0])),
    (ValueError, "`sigma` .*on cpu", gradient(sigma=torch.ones(2, device="meta"))),
    (TypeError, "`adjoint_y` must be a tensor like x", product(adjoint=1)),
    (ValueError, r"`adjoint_y` must be complex64 \[2, 4, 6\] on cpu like x, got complex64 \[1,", product(adjoint=X[:1])),
    (ValueError, "`adjoint_y` .*got complex128", product(adjoint=X.to(C128))),
    (ValueError, r"`scale` must be a number or a real tensor \[2\] on cpu, got float32 \[3\]", product(scale=torch.ones(3))),
    (ValueError, "`scale` .*got complex64", product(scale=X[:, 0, 0])),
    (ValueError, "`scale` .*on meta", product(scale=torch.ones(2, device="meta"))),
    (ValueError, "`scale` .*got None", product(scale=None)),
    (ValueError, "`scale` .*got '1'", product(scale="1")),
    (ValueError, "`scale` .*got 1j", product(scale=1j)),
])  # fmt: skip
def test_bad_input(error, message, call):
    with pytest.raises(error, match=message):
        call()


def test_sigma_at_the_limits():
    x, y, mask, maps = tensors(1, 2, 3, 4)
    assert not mri_gradient(x, y, mask, maps, math.inf).any()
    assert not mri_gradient(x, y, mask, maps, 1e-200).isfinite().any()


A, P, K = (torch.view_as_real(t) for t in (X, S[None], Y))
MASK, SCALE = M.float(), torch.ones(2)


def raw_normal(x=A, mask=MASK, maps=P, minus=None, scale=None):
    return lambda: ops.mri_normal(x, mask, maps, minus, scale, 1.0)


def raw_reduce(images=K, maps=P, minus=None, scale=None):
    return lambda: ops.coil_reduce(images, maps, minus, scale, 1.0)


@pytest.mark.parametrize("message, call", [
    (r"`x` must be contiguous float64 or float32 \[N, H, W, 2\], got Half", raw_normal(x=A.half())),
    ("`x`", raw_normal(x=X)),
    ("`x`", raw_normal(x=A[0])),
    ("`x`", raw_normal(x=torch.zeros(2, 4, 6, 3))),
    ("`x`", raw_normal(x=torch.zeros(()))),
    ("`x`", raw_normal(x=torch.zeros(2, 4, 12, 2)[:, :, ::2])),
    (r"`mask` must be a contiguous Float \[6\]", raw_normal(mask=MASK[:5])),
    ("`mask`", raw_normal(mask=MASK.double())),
    ("`mask`", raw_normal(mask=M)),
    ("`mask`", raw_normal(mask=torch.ones(1).expand(6))),
    (r"`mask` must be contiguous Float \[1, 4, 6\]", raw_normal(mask=torch.ones(3, 4, 6))),
    ("`mask`", raw_normal(mask=torch.ones(4, 6))),
    ("`mask`", raw_normal(mask=torch.ones(()))),
    ("`mask`", raw_normal(mask=torch.ones(1, 4, 12)[..., ::2])),
    ("`sensitivities` must be contiguous .*coils", raw_normal(maps=P[0])),
    ("`sensitivities`", raw_normal(maps=P.expand(2, -1, -1, -1, -1))),
    ("`sensitivities`", raw_normal(maps=torch.zeros(3, 3, 4, 6, 2))),
    ("`sensitivities`", raw_normal(maps=P.double())),
    ("`sensitivities`", raw_normal(maps=torch.zeros(1, 3, 6, 4, 2))),
    ("`sensitivities` must have a coil", raw_normal(maps=P[:, :0].contiguous(), minus=A)),
    (r"`minus` must be contiguous Float \[2, 4, 6, 2\]", raw_normal(minus=A[:1])),
    ("`minus`", raw_normal(minus=A.double())),
    ("`minus`", raw_normal(minus=torch.zeros(1, 4, 6, 2).expand(2, -1, -1, -1))),
    (r"`scale` must be a contiguous Float \[2\]", raw_normal(scale=torch.ones(3))),
    ("`scale`", raw_normal(scale=SCALE.double())),
    ("`scale`", raw_normal(scale=torch.ones(1).expand(2))),
    ("`x`", lambda: ops.coil_expand(A[0], P)),
    ("`x`", lambda: ops.coil_expand(A.transpose(1, 2), P)),
    ("`sensitivities`", lambda: ops.coil_expand(A, P[0])),
    ("`sensitivities`", lambda: ops.coil_expand(A, P.double())),
    ("`sensitivities`", lambda: ops.coil_expand(A[:1], torch.zeros(2, 3, 4, 6, 2))),
    ("`images` must be contiguous .*coils", raw_reduce(images=A)),
    ("`images`", raw_reduce(images=K.transpose(0, 1))),
    ("`images`", raw_reduce(images=K[:, :2].contiguous())),
    ("`sensitivities`", raw_reduce(maps=P.double())),
    ("`minus`", raw_reduce(minus=A[:1])),
    ("`scale`", raw_reduce(scale=torch.ones(3))),
    ("`k` must be contiguous", lambda: ops.kspace_residual(K.transpose(0, 1), MASK, None)),
    ("`k`", lambda: ops.kspace_residual(K[:1].expand(2, -1, -1, -1, -1), MASK, None)),
    ("`k`", lambda: ops.kspace_residual(Y.real.clone(), MASK, None)),
    ("`mask`", lambda: ops.kspace_residual(K.clone(), torch.ones(5), None)),
    ("`mask`", lambda: ops.kspace_residual(K.clone(), torch.ones(2, 6, 4), None)),
    ("`minus`", lambda: ops.kspace_residual(K.clone(), MASK, K[:1])),
    ("`minus`", lambda: ops.kspace_residual(K.clone(), MASK, K.double())),
])  # fmt: skip
def test_raw_operators_check_their_arguments(message, call):
    with pytest.raises(RuntimeError, match=message):
        call()


@pytest.mark.parametrize(
    "n, coils, h, w", [(0, 3, 4, 6), (2, 0, 4, 6), (2, 3, 0, 6), (2, 3, 4, 0), (0, 0, 0, 0)]
)
def test_raw_operators_take_nothing(n, coils, h, w):
    x, maps, images = torch.ones(n, h, w, 2), torch.ones(1, coils, h, w, 2), torch.ones(n, coils, h, w, 2)
    for mask in (torch.ones(w), torch.ones(1, h, w), torch.ones(n, h, w)):
        assert not ops.mri_normal(x, mask, maps, None, None, 1.0).any()
        ops.kspace_residual(images, mask, images)
    assert ops.coil_expand(x, maps).shape == images.shape
    assert not ops.coil_reduce(images, maps, None, None, 1.0).any()


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
