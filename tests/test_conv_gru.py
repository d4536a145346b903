"""amstel.ops.conv_gru_cell and amstel.nn.ConvGRUCell against the plain PyTorch reference and torch.nn.GRUCell."""

import itertools
import os
import subprocess
import sys

import pytest
import torch
from torch.nn.functional import conv2d

import amstel
from amstel import reference
from amstel.nn import ConvGRUCell
from amstel.ops import conv_gru_cell
from amstel.ops._winograd import conv3x3
from amstel.ops.conv_gru import _composed, conv_gru_pointwise
from amstel.testing import TOLERANCE, assert_close
from tests.conftest import ROOT

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
MEMORY = ["store", "recompute"]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
F32, F64 = torch.float32, torch.float64
ops = torch.ops.amstel


def normal(*shape, seed=0, dtype=F64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def tensors(n, c, height, width, dtype=F64, layout=torch.contiguous_format, device="cpu"):
    """gates_x, gates_h, h."""
    made = [normal(n, k * c, height, width, seed=k + s) for s, k in ((0, 3), (9, 3), (0, 1))]
    return [t.to(device, dtype).contiguous(memory_format=layout) for t in made]


def run(function, inputs, **options):
    """The new state and all gradients."""
    inputs = [t.detach().requires_grad_() for t in inputs]
    h = function(*inputs, **options)
    grad = normal(*h.shape, seed=5).to(h.device, h.dtype)
    return [h.detach(), *torch.autograd.grad(h, inputs, grad)]


def check(inputs):
    """Both choices of memory against the reference in float64, and against each other."""
    expected = run(reference.conv_gru_cell, [t.double() for t in inputs])
    stored, again = (run(conv_gru_cell, inputs, memory=memory) for memory in MEMORY)
    assert torch.equal(conv_gru_cell(*inputs), stored[0])
    for a, b, r in zip(stored, again, expected, strict=True):
        assert torch.equal(a, b) and a.dtype == inputs[0].dtype
        assert_close(a, r)
    return stored


# ---- The operator ----


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_values_and_gradients(dtype, layout, device):
    """The gates and their gradients are those of plain PyTorch in float64, in every dtype and layout."""
    for shape in ((2, 5, 6, 7), (1, 1, 1, 1), (3, 64, 4, 5), (2, 3, 1, 9)):
        stored = check(tensors(*shape, dtype=dtype, layout=layout, device=device))
        assert all(t.is_contiguous(memory_format=layout) for t in stored)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 65])
def test_values_at_every_width(channels):
    for dtype, layout in itertools.product((F32, torch.bfloat16), LAYOUTS):
        check(tensors(1, channels, 1, 3, dtype=dtype, layout=layout))


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0), (2, 0, 4, 5)])
def test_empty(shape):
    for result in check(tensors(*shape, dtype=F32)):
        assert result.numel() == 0


def test_layouts_give_the_same_bits():
    gates_x, gates_h, h = plain = tensors(3, 6, 5, 7, dtype=F32)
    expected = run(conv_gru_cell, plain)
    last = [t.contiguous(memory_format=torch.channels_last) for t in plain]
    wide = torch.zeros(3, 18, 5, 15)
    wide[..., ::2][..., :7] = gates_x
    for other in (last, [gates_x, *last[1:]], [last[0], gates_h, h], [wide[..., ::2][..., :7], gates_h, h]):
        for a, b in zip(run(conv_gru_cell, other), expected, strict=True):
            assert torch.equal(a, b)


def test_is_torch_gru_cell():
    theirs = torch.nn.GRUCell(5, 4, dtype=F64)
    x, h = normal(7, 5), normal(7, 4, seed=1)
    gates = x @ theirs.weight_ih.T + theirs.bias_ih, h @ theirs.weight_hh.T + theirs.bias_hh
    ours = conv_gru_cell(*(t[..., None, None] for t in (*gates, h)))[..., 0, 0]
    torch.testing.assert_close(ours, theirs(x, h), rtol=0, atol=1e-14)


@pytest.mark.parametrize("memory", MEMORY)
def test_gradients_any_number_of_times(memory):
    inputs = [t.requires_grad_() for t in tensors(1, 2, 2, 3)]
    assert torch.autograd.gradcheck(lambda *t: conv_gru_cell(*t, memory=memory), inputs)
    assert torch.autograd.gradgradcheck(lambda *t: conv_gru_cell(*t, memory=memory), inputs)


@pytest.mark.parametrize("memory", MEMORY)
def test_gradients_only_where_asked(memory):
    inputs = tensors(1, 3, 4, 4, dtype=F32)
    whole = run(conv_gru_cell, inputs)[1:]
    for k in range(3):
        leaves = [t.detach().requires_grad_(j == k) for j, t in enumerate(inputs)]
        h = conv_gru_cell(*leaves, memory=memory)
        (found,) = torch.autograd.grad(h, [leaves[k]], normal(*h.shape, seed=5, dtype=F32))
        assert torch.equal(found, whole[k])


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_same_bits_for_any_number_of_threads(layout):
    inputs, before, results = tensors(3, 40, 33, 31, dtype=F32, layout=layout), torch.get_num_threads(), []
    try:
        for n in (1, 2, 3, 2):
            torch.set_num_threads(n)
            results.append(run(conv_gru_cell, inputs))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))


def test_limits_and_nan():
    values = torch.tensor([float("inf"), -float("inf"), float("nan"), 1e30, -1e30, 0.0, -0.0, 1e-42])
    for dtype, which in itertools.product((F32, F64), range(9)):
        gates_x, gates_h, h = tensors(len(values), 1, 1, 1, dtype=dtype)
        gates = gates_x if which < 3 else gates_h if which < 6 else h
        gates[:, which % 3 if which < 6 else 0, 0, 0] = values.to(dtype)
        found, expected = (f(gates_x, gates_h, h) for f in (conv_gru_cell, reference.conv_gru_cell))
        torch.testing.assert_close(found, expected, equal_nan=True, rtol=1e-6, atol=1e-37)
        assert found[2].isnan().all()


#: Of a cell of five channels that reads three.
WEIGHTS = torch.randn(15, 3), torch.randn(15, 5), torch.randn(15), torch.randn(15)


def opcheck_arguments():
    h = torch.rand(6, 5)
    gates, activated = torch.randn(6, 15), torch.rand(6, 20)
    return [
        (ops.conv_gru_gates, (gates, gates + 1, h, True)),
        (ops.conv_gru_gates, (gates, gates + 1, h, False)),
        (ops.conv_gru_gates_grad, (h, activated, h)),
        (ops.conv_gru_pixels, (h[:, :3].contiguous(), h, *WEIGHTS, True)),
        (ops.conv_gru_pixels, (h[:, :3].contiguous(), None, *WEIGHTS, False)),
        (ops.conv_gru_pixels_grad, (h, activated, h[:, :3].contiguous(), h, *WEIGHTS, True, True, True)),
        (ops.conv_gru_pixels_grad, (h, None, h[:, :3].contiguous(), None, *WEIGHTS, False, False, False)),
    ]


@pytest.mark.parametrize("case", range(7))
def test_opcheck(case):
    op, arguments = opcheck_arguments()[case]
    torch.library.opcheck(op.default, arguments)


@pytest.mark.parametrize("message, arguments", [
    ("`h`", (torch.zeros(6, 15), torch.zeros(6, 15), torch.zeros(6), True)),
    ("`gates_x`", (torch.zeros(6, 15).long(), torch.zeros(6, 15).long(), torch.zeros(6, 5).long(), True)),
    ("`gates_x`", (torch.zeros(6, 14), torch.zeros(6, 15), torch.zeros(6, 5), True)),
    ("`gates_x`", (torch.zeros(6, 30)[:, ::2], torch.zeros(6, 15), torch.zeros(6, 5), True)),
    ("`gates_h`", (torch.zeros(6, 15), torch.zeros(6, 15).double(), torch.zeros(6, 5), True)),
    ("`grad`", (torch.zeros(5, 5), torch.zeros(6, 20), torch.zeros(6, 5))),
    ("`activated`", (torch.zeros(6, 5), torch.zeros(6, 15), torch.zeros(6, 5))),
])  # fmt: skip
def test_raw_operators_check_their_arguments(message, arguments):
    op = ops.conv_gru_gates if len(arguments) == 4 else ops.conv_gru_gates_grad
    with pytest.raises(RuntimeError, match=message):
        op(*arguments)


@pytest.mark.parametrize("position, name, bad", [
    (0, "x", torch.zeros(6, 6)[:, ::2]),
    (0, "x", torch.zeros(6, 3).long()),
    (1, "h", torch.zeros(5, 5)),
    (2, "weight_ih", torch.zeros(15, 4)),
    (3, "weight_hh", torch.zeros(15)),
    (3, "weight_hh", torch.zeros(14, 5)),
    (4, "bias_ih", torch.zeros(15).double()),
    (5, "bias_hh", torch.zeros(14)),
])  # fmt: skip
def test_pixels_check_their_arguments(position, name, bad):
    arguments = [torch.zeros(6, 3), torch.zeros(6, 5), *WEIGHTS]
    arguments[position] = bad
    with pytest.raises(RuntimeError, match=f"`{name}`"):
        ops.conv_gru_pixels(*arguments, True)
    with pytest.raises(RuntimeError, match=f"`{name}`"):
        ops.conv_gru_pixels_grad(torch.zeros(6, 5), torch.zeros(6, 20), *arguments, True, True, True)


def test_pixels_check_what_the_gradient_is_given():
    given = (torch.zeros(6, 3), torch.zeros(6, 5), *WEIGHTS, True, True, True)
    for name, grad, activated in (("grad", (6, 4), (6, 20)), ("activated", (6, 5), (6, 15))):
        with pytest.raises(RuntimeError, match=f"`{name}`"):
            ops.conv_gru_pixels_grad(torch.zeros(grad), torch.zeros(activated), *given)


X, G, H = torch.zeros(2, 6, 4, 5), torch.zeros(2, 6, 4, 5), torch.zeros(2, 2, 4, 5)


@pytest.mark.parametrize("error, message, call", [
    (TypeError, "`gates_x` must be a tensor", lambda: conv_gru_cell([1], G, H)),
    (TypeError, "`gates_h` must be a tensor", lambda: conv_gru_cell(X, None, H)),
    (TypeError, "`h` must be a tensor", lambda: conv_gru_cell(X, G, 0)),
    (ValueError, r"`gates_x` must be floating-point \[N, 3C, H, W\], got float32 \[2, 5, 4, 5\]", lambda: conv_gru_cell(X[:, 1:], G, H)),
    (ValueError, "`gates_x` .*got int64", lambda: conv_gru_cell(X.long(), G, H)),
    (ValueError, "`gates_x` .*got float32 \\[6, 4, 5\\]", lambda: conv_gru_cell(X[0], G, H)),
    (ValueError, r"`gates_h` must be float32 \[2, 6, 4, 5\] on cpu, got float32 \[1,", lambda: conv_gru_cell(X, G[:1], H)),
    (ValueError, "`gates_h` must be float32 .*got float64", lambda: conv_gru_cell(X, G.double(), H)),
    (ValueError, "`gates_h` .*on meta", lambda: conv_gru_cell(X, G.to("meta"), H)),
    (ValueError, r"`h` must be float32 \[2, 2, 4, 5\] on cpu, got float32 \[2, 1,", lambda: conv_gru_cell(X, G, H[:, 1:])),
    (ValueError, "`memory` must be 'store' or 'recompute', got 'all'", lambda: conv_gru_cell(X, G, H, memory="all")),
    (ValueError, "`in_channels` must be an integer >= 1, got 0", lambda: ConvGRUCell(0, 2)),
    (ValueError, "`hidden_channels`", lambda: ConvGRUCell(3, 2.5)),
    (ValueError, "`kernel_size`", lambda: ConvGRUCell(3, 2, True)),
    (ValueError, "`memory`", lambda: ConvGRUCell(3, 2, memory="none")),
    (ValueError, "`reset` must be 'after' or 'before'", lambda: ConvGRUCell(3, 2, reset="never")),
    (ValueError, r"`x` must be \[N, 3, H, W\], got float32 \[2, 6, 4, 5\]", lambda: ConvGRUCell(3, 2)(X)),
    (ValueError, r"`x` must be \[N, 6, H, W\]", lambda: ConvGRUCell(6, 2)(X[0])),
    (TypeError, "`x` must be a tensor", lambda: ConvGRUCell(6, 2)(0)),
    (ValueError, r"`h` must be float32 \[2, 2, 4, 5\] .* got float32 \[1,", lambda: ConvGRUCell(6, 2)(X, H[:1])),
    (TypeError, "`h` must be a tensor", lambda: ConvGRUCell(6, 2)(X, 0)),
])  # fmt: skip
def test_bad_input(error, message, call):
    with pytest.raises(error, match=message):
        call()


# ---- The cell ----


def plain_cell(cell, x, h):
    """As the docstring has it, by conv2d."""
    k = cell.weight_ih.shape[-1]
    pad = ((k - 1) // 2, k // 2) * 2
    conv = lambda t, w, b: conv2d(torch.nn.functional.pad(t, pad), w, b)  # noqa: E731
    w_i, w_h, b_i, b_h = (p.chunk(3) for p in (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh))
    h = torch.zeros(len(x), cell.hidden_channels, *x.shape[2:], dtype=x.dtype) if h is None else h
    r, z = (torch.sigmoid(conv(x, w_i[g], b_i[g]) + conv(h, w_h[g], b_h[g])) for g in (0, 1))
    if cell.reset == "before":
        n = torch.tanh(conv(x, w_i[2], b_i[2]) + conv(r * h, w_h[2], b_h[2]))
    else:
        n = torch.tanh(conv(x, w_i[2], b_i[2]) + r * conv(h, w_h[2], b_h[2]))
    return (1 - z) * n + z * h


def cell_of(kernel, dtype=F64, **options):
    cell = ConvGRUCell(3, 4, kernel, **options)
    for k, p in enumerate(cell.parameters()):
        p.data = normal(*p.shape, seed=k).to(F32) / 3
    return cell.to(dtype)


def grads(function, cell, x, h):
    leaves = [x.requires_grad_(), *([] if h is None else [h.requires_grad_()])]
    out = function(x, h)
    grad = normal(*out.shape, seed=9).to(out)
    return [out.detach(), *torch.autograd.grad(out, [*leaves, *cell.parameters()], grad)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("state", [True, False])
@pytest.mark.parametrize(
    "kernel, reset", [(1, "after"), (2, "after"), (3, "after"), (1, "before"), (3, "before")]
)
def test_cell_values_and_gradients(kernel, reset, state, layout):
    for memory, dtype in itertools.product(MEMORY, (F64, F32)):
        cell = cell_of(kernel, dtype, memory=memory, reset=reset)
        x = normal(2, 3, 5, 6, dtype=dtype).contiguous(memory_format=layout)
        h = normal(2, 4, 5, 6, seed=1, dtype=dtype).contiguous(memory_format=layout) if state else None
        found = grads(cell, cell, x, h)
        wide = cell_of(kernel, F64, reset=reset)
        expected = grads(
            lambda x, h: plain_cell(wide, x, h),  # noqa: B023
            wide,
            x.detach().double(),
            None if h is None else h.detach().double(),
        )
        for a, b in zip(found, expected, strict=True):
            assert_close(a, b, dtype)
        with torch.no_grad():
            assert torch.equal(cell(x, h), found[0])


def test_cell_is_torch_gru_cell():
    theirs, cell = torch.nn.GRUCell(3, 4, dtype=F64), ConvGRUCell(3, 4).double()
    for name, p in theirs.named_parameters():
        getattr(cell, name).data = p.data.view(*p.shape, 1, 1) if p.dim() == 2 else p.data
    x, h = normal(6, 3), normal(6, 4, seed=1)
    for state in (h, None):
        ours = cell(x[..., None, None], None if state is None else state[..., None, None])[..., 0, 0]
        torch.testing.assert_close(ours, theirs(x, state), rtol=0, atol=1e-14)


@pytest.mark.parametrize("rows", [0, 23, 12345])
@pytest.mark.parametrize("state", [True, False])
def test_pointwise_in_blocks_of_pixels(rows, state):
    """More than a block, with the same bits for any number of threads and either memory."""
    given = (
        normal(rows, 30),
        normal(rows, 20, seed=1) if state else None,
        normal(60, 30),
        normal(60, 20),
        normal(60),
        normal(60),
    )
    results, before = [], torch.get_num_threads()
    try:
        for memory, threads in itertools.product(MEMORY, (1, 2, 3)):
            torch.set_num_threads(threads)
            leaves = [None if t is None else t.clone().requires_grad_() for t in given]
            new = conv_gru_pointwise(*leaves, memory=memory)
            (new * normal(rows, 20, seed=2)).sum().backward()
            with torch.no_grad():
                assert torch.equal(conv_gru_pointwise(*given), new)
            results.append([new, *(t.grad for t in leaves if t is not None)])
    finally:
        torch.set_num_threads(before)
    with torch.inference_mode():
        assert torch.equal(conv_gru_pointwise(*(t if t is None else t.clone() for t in given)), new)
    leaves = [None if t is None else t.clone().requires_grad_() for t in given]
    expected = _composed(*leaves)
    (expected * normal(rows, 20, seed=2)).sum().backward()
    expected = [
        expected,
        *(torch.zeros_like(t) if t.grad is None else t.grad for t in leaves if t is not None),
    ]
    for plain, first, *others in zip(expected, *results, strict=True):
        assert all(torch.equal(first, other) for other in others)
        assert_close(first, plain)


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("state", [True, False])
def test_pointwise_gradients_any_number_of_times(state, memory):
    shapes = ((5, 2), (5, 3), (9, 2), (9, 3), (9,), (9,))
    inputs = [normal(*shape, seed=k).requires_grad_() for k, shape in enumerate(shapes)]
    function = lambda x, h, *w: conv_gru_pointwise(x, h if state else None, *w, memory=memory)  # noqa: E731
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)
    assert torch.autograd.gradcheck(function, [t.requires_grad_(k % 2 == 0) for k, t in enumerate(inputs)])


@pytest.mark.parametrize(
    "kernel, memory, dynamic",
    [(1, "store", False), (1, "recompute", True), (3, "store", True), (3, "recompute", False)],
)
def test_compile_gives_the_same(kernel, memory, dynamic):
    torch._dynamo.reset()
    cell = cell_of(kernel, F32, memory=memory)
    compiled = torch.compile(cell, fullgraph=True, dynamic=dynamic)
    for size in ((5, 6), (7, 4)) if dynamic else ((5, 6),):
        x, h = normal(2, 3, *size, dtype=F32), normal(2, 4, *size, seed=1, dtype=F32)
        for a, b in zip(grads(compiled, cell, x, h), grads(cell, cell, x, h), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"kernel_size": 3}, {"reset": "before"}], ids=str)
def test_export(options):
    cell, x, h = ConvGRUCell(3, 4, **options), torch.randn(2, 3, 5, 6), torch.randn(2, 4, 5, 6)
    for given in ((x, h), (x,)):
        program = torch.export.export(cell, given)
        held = any("amstel" in str(n.target) for n in program.graph.nodes)
        assert held == ("reset" not in options)
        torch.testing.assert_close(program.module()(*given), cell(*given), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kernel", [1, 3])
def test_autocast(kernel):
    cell, x, h = cell_of(kernel, F32), normal(2, 3, 5, 6, dtype=F32), normal(2, 4, 5, 6, seed=1, dtype=F32)
    exact = grads(cell, cell, x, h)
    with torch.autocast("cpu", torch.bfloat16):
        out = cell(x, h)
        assert out.dtype == torch.bfloat16 and cell(x).dtype == torch.bfloat16
    found = torch.autograd.grad(out, [x, h, *cell.parameters()], normal(*out.shape, seed=9, dtype=out.dtype))
    assert all(g.dtype == F32 for g in found)
    for a, b in zip(found, exact[1:], strict=True):
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.02 * float(b.abs().max()))
    with torch.autocast("cpu", torch.bfloat16):
        assert cell_of(1)(x.double(), h.double()).dtype == F64


def saved_bytes(function):
    """Of all that is kept for the gradient, each storage once."""
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.setdefault(t.untyped_storage().data_ptr(), t) is None or t, lambda t: t
    ):
        out = function()
    return sum(t.untyped_storage().nbytes() for t in kept.values()), out


def test_memory_that_is_kept():
    """Of 1x1 cells 5 C numbers per pixel beside x and h are kept by "store", nothing by "recompute"."""
    x = torch.randn(2, 3, 32, 32).contiguous(memory_format=torch.channels_last).requires_grad_()
    h = torch.randn(2, 4, 32, 32).contiguous(memory_format=torch.channels_last).requires_grad_()
    pixels, found = 4 * 2 * 32 * 32, {}
    for memory in MEMORY:
        cell = ConvGRUCell(3, 4, memory=memory)
        found[memory], _ = saved_bytes(lambda: cell(x, h))  # noqa: B023
    weights = sum(4 * p.numel() for p in ConvGRUCell(3, 4).parameters())
    assert found["recompute"] == pixels * (3 + 4) + weights
    assert found["store"] == pixels * (3 + 4 + 4 * 4) + weights
    gates_x, gates_h, h = (t.requires_grad_() for t in tensors(2, 4, 32, 32, dtype=F32))
    assert saved_bytes(lambda: conv_gru_cell(gates_x, gates_h, h))[0] == pixels * 5 * 4
    assert saved_bytes(lambda: conv_gru_cell(gates_x, gates_h, h, memory="recompute"))[0] == pixels * 7 * 4


# ---- The 3x3 convolution beside it ----


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", [F64, F32, torch.bfloat16, torch.float16], ids=str)
def test_conv3x3_values_and_gradients(dtype, layout):
    for n, inputs, outputs, height, width in (
        (2, 16, 9, 13, 18),
        (3, 8, 24, 1, 1),
        (1, 3, 8, 5, 4),
        (0, 8, 8, 5, 5),
    ):
        x = normal(n, inputs, height, width, dtype=dtype).contiguous(memory_format=layout)
        weight, bias = (
            normal(outputs, inputs, 3, 3, seed=1, dtype=dtype) / 12,
            normal(outputs, seed=2, dtype=dtype),
        )
        found, expected = [], []
        for function, t, results in (
            (conv3x3, dtype, found),
            (lambda x, w, b: conv2d(x, w, b, padding=1), F64, expected),
        ):
            leaves = [v.detach().to(t).requires_grad_() for v in (x, weight, bias)]
            out = function(*leaves)
            results += [out.detach(), *torch.autograd.grad(out, leaves, normal(*out.shape, seed=3).to(t))]
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == dtype
            # Winograd's algorithm loses a digit of float32; grad is rounded before sums of hundreds.
            assert_close(a, b, dtype) if dtype != F32 else torch.testing.assert_close(
                a.double(), b, rtol=1e-4, atol=1e-5 * max(1.0, float(b.abs().max()) if b.numel() else 1.0)
            )


def test_conv3x3_of_gradients():
    leaves = [normal(*s, dtype=F32).requires_grad_() for s in ((1, 8, 5, 6), (8, 8, 3, 3), (8,))]
    seconds = []
    for function in (conv3x3, lambda x, w, b: conv2d(x, w, b, padding=1)):
        (first,) = torch.autograd.grad(function(*leaves).square().sum(), leaves[:1], create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), leaves))
    for a, b in zip(*seconds, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))


def test_public_names():
    assert amstel.ops.conv_gru_cell is conv_gru_cell and amstel.nn.ConvGRUCell is ConvGRUCell


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
