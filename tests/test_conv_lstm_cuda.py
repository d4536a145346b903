"""The CUDA side of the ConvLSTM gates without a GPU: the kernels on the emulator and as PTX against NumPy in float64,
the launch wrappers on the emulator against the operators of the CPU."""

import contextlib
import itertools

import numpy as np
import pytest
import torch

import amstel
from amstel.ops import _conv_lstm
from amstel.testing import assert_close
from tests import test_conv_lstm
from tests.cuda_emulator import build, ptx
from tests.test_spmm_cuda import THREADS, close, down, struct, sum_type, up, zeros

SOURCE = "conv_lstm_instances.cu"
# dtype, that of the states, elements an access forward and backward
INSTANCES = {
    "f64": ("f64", "f64", 2, 2), "f32": ("f32", "f32", 4, 4), "bf16": ("bf16", "f32", 8, 4),
    "f16": ("f16", "f32", 8, 4), "bf16_short": ("bf16", "bf16", 8, 4), "f16_short": ("f16", "f16", 8, 4),
    "f32_odd": ("f32", "f32", 1, 1), "f16_even": ("f16", "f32", 2, 2),
}  # fmt: skip
# rows, accesses a row, lanes, blocks along a row: an odd number of accesses, in which the second lane of a pair
# has none at the end of its second turn; a row alone; rows narrower than the block
SHAPES = [(133, 7, 2, 2), (1, 300, 256, 1), (65, 3, 4, 1)]


# ---- The formulas, in float64 ----


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def forward(gates, c, peephole):
    """gates [rows, 4, inner] -> h, c_out, activated"""
    p = np.zeros((3, c.shape[1])) if peephole is None else peephole
    i, f = sigmoid(gates[:, 0] + p[0] * c), sigmoid(gates[:, 1] + p[1] * c)
    g = np.tanh(gates[:, 2])
    c_out = f * c + i * g
    o = sigmoid(gates[:, 3] + p[2] * c_out)
    return o * np.tanh(c_out), c_out, np.stack([i, f, g, o], 1)


def backward(activated, c, c_out, peephole, grad_h, grad_c):
    """-> grad_gates [rows, 4, inner], grad_c_out and what is summed over rows [rows, 7, inner]"""
    p = np.zeros((3, c.shape[1])) if peephole is None else peephole
    i, f, g, o = activated.swapaxes(0, 1)
    t = np.tanh(c_out)
    d_o = grad_h * t * o * (1 - o)
    dc = grad_c + grad_h * o * (1 - t * t) + p[2] * d_o
    d_i, d_f, d_g = dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g)
    gates = np.stack([d_i, d_f, d_g, d_o], 1)
    terms = np.concatenate([gates, np.stack([d_i * c, d_f * c, d_o * c_out], 1)], 1)
    return gates, dc * f + p[0] * d_i + p[1] * d_f, terms


# ---- The kernels, one by one ----


@pytest.fixture(params=ptx.engines())
def kernels(request):
    """On the emulator in all three thread orders, which must agree to the last bit, and as PTX."""
    return request.param(SOURCE)


@pytest.mark.parametrize("given", ["nothing", "alone", "more", "all", "in place"])
@pytest.mark.parametrize("name", INSTANCES)
def test_gates_kernel(kernels, name, given):
    """ "alone" and "more" run the kernels that have no place for what is not given, of the widest accesses."""
    dtype, state, width, _ = INSTANCES[name]
    kernel = f"gates_{given}_{name}" if given in ("alone", "more") else f"gates_{name}"
    if name in ("f32_odd", "f16_even") and given in ("alone", "more"):
        kernel = f"gates_{name}"
    rng = np.random.default_rng(1)
    for rows, accesses, lanes, parts in SHAPES:
        inner = accesses * width
        gates, gates_ = down(rng.standard_normal((rows, 4, inner)), dtype)
        more, more_ = down(rng.standard_normal((rows, 4, inner)), dtype)
        c, c_ = down(rng.standard_normal((rows, inner)), state)
        peephole, peephole_ = down(rng.standard_normal((3, inner)), sum_type(dtype))
        h, c_out, activated = zeros(c.shape, dtype), zeros(c.shape, state), zeros(gates.shape, dtype)
        if given in ("nothing", "alone"):
            more = peephole = activated = None
            expected = forward(gates_, c_, None)
        elif given == "more":
            peephole = None
            expected = forward(gates_ + more_, c_, None)
        else:
            expected = forward(gates_ + more_, c_, peephole_)
        if given == "in place":
            c_out, activated = c, gates
        arguments = struct(
            ("PPPPPPPqqqq", gates, more, c, peephole, h, c_out, activated, rows, inner, 4 * inner, inner)
        )
        grid = (-(-rows * lanes // THREADS), parts)
        kernels[kernel].launch(grid, (lanes, THREADS // lanes), [arguments])
        close(up(h, dtype), expected[0], dtype)
        close(up(c_out, state), expected[1], state)
        if activated is not None:
            close(up(activated, dtype), expected[2], dtype)


@pytest.mark.parametrize("given", ["nothing", "all", "in place", "sums"])
@pytest.mark.parametrize("name", INSTANCES)
def test_grad_kernel(kernels, name, given):
    """The rows of three blocks, the last one shorter."""
    dtype, state, _, width = INSTANCES[name]
    total = sum_type(dtype)
    rng = np.random.default_rng(2)
    for rows, accesses, lanes, parts in SHAPES:
        inner, per_block = accesses * width, -(-rows // 3) + 1
        activated, a_ = down(rng.random((rows, 4, inner)), dtype)
        (grad_h, h_), (more, more_) = (down(rng.standard_normal((rows, inner)), dtype) for _ in range(2))
        (c, c_), (c_out, c_out_), (grad_c, grad_c_) = (
            down(rng.standard_normal((rows, inner)), state) for _ in range(3)
        )
        peephole, p_ = down(rng.standard_normal((3, inner)), total)
        grad_c_out, grad_gates = zeros(c.shape, state), zeros(activated.shape, dtype)
        blocks = -(-rows // per_block)
        # Both have a stride of four gates; of the peepholes' sums the fourth stays as it is.
        bias_sums, peephole_sums = (
            np.full((blocks, 4, inner), np.nan, zeros(1, total).dtype) for _ in range(2)
        )
        if given in ("nothing", "sums"):
            peephole = peephole_sums = p_ = None
        if given == "nothing":
            grad_h = more = grad_c = bias_sums = None
            h_ = more_ = grad_c_ = np.zeros(c_.shape)
        if given == "in place":
            grad_c_out, grad_gates = grad_c, activated
        arguments = struct(
            ("PPPP", activated, c, c_out, peephole), ("PPP", grad_h, more, grad_c), ("PP", grad_c_out, grad_gates),
            ("PPq", bias_sums, peephole_sums, 4 * inner), ("qqq", rows, per_block, inner),
        )  # fmt: skip
        suffix = name if peephole is None else f"peephole_{name}"
        kernels[f"grad_{suffix}"].launch((blocks, parts), (lanes, THREADS // lanes), [arguments])
        gates_, c_out_grad_, terms = backward(a_, c_, c_out_, p_, h_ + more_, grad_c_)
        close(up(grad_gates, dtype), gates_, dtype)
        close(up(grad_c_out, state), c_out_grad_, state)
        totals = np.stack([terms[i : i + per_block].sum(0) for i in range(0, rows, per_block)])
        if bias_sums is not None:
            close(up(bias_sums, total), totals[:, :4], total)
        if peephole is not None:
            close(up(peephole_sums[:, :3], total), totals[:, 4:], total)


@pytest.mark.parametrize("dtype", ["f64", "f32"])
def test_activations_to_two_units_in_the_last_place(kernels, dtype):
    """Where the result is a normal number; below it may be zero. Of the device's own functions only the sigmoid of
    float is free: here tanh, and exp of double, are the host's, and PTX is run with exact approximations."""
    real, width = (np.float64, 2) if dtype == "f64" else (np.float32, 4)
    rng = np.random.default_rng(3)
    n, far = 1024, 700 if dtype == "f64" else 87
    parts = [
        rng.uniform(-1, 1, n),
        rng.uniform(-far, far, n),
        rng.uniform(-10, 10, n),
        10 ** rng.uniform(-30, 0, n),
    ]
    x = np.concatenate(parts).astype(real)
    gates = np.repeat(x[None, None], 4, 1)
    c, h, c_out, activated = (np.zeros((1, 4, x.size), real) for _ in range(4))
    arguments = struct(
        (
            "PPPPPPPqqqq",
            gates,
            None,
            c[:, 0].copy(),
            None,
            h[:, 0].copy(),
            c_out[:, 0].copy(),
            activated,
            1,
            x.size,
            4 * x.size,
            x.size,
        )
    )
    kernels[f"gates_{dtype}"].launch((1, x.size // (THREADS * width)), (THREADS, 1), [arguments])
    wide = x.astype(np.longdouble)
    for gate, exact in ((0, 1 / (1 + np.exp(-wide))), (1, 1 / (1 + np.exp(-wide))), (2, np.tanh(wide))):
        error = np.abs(activated[0, gate] - exact) / np.spacing(np.abs(exact).astype(real))
        assert error.max() <= 2


def test_limits_and_nan(kernels):
    inf, nan = np.inf, np.nan
    x = np.array([inf, -inf, nan, 0, 1e4, -1e4, 3e38, -3e38], np.float32)
    gates = np.repeat(x[None, None], 4, 1)
    c, h = np.ones((1, 8), np.float32), np.zeros((1, 8), np.float32)
    kernels["gates_f32"].launch(
        1, (2, 128), [struct(("PPPPPPPqqqq", gates, None, c, None, h, c, gates, 1, 8, 32, 8))]
    )
    np.testing.assert_array_equal(gates[0, 0], [1, 0, nan, 0.5, 1, 0, 1, 0])
    np.testing.assert_array_equal(gates[0, 2], [1, -1, nan, 0, 1, -1, 1, -1])
    np.testing.assert_array_equal(c[0], [2, 0, nan, 0.5, 2, 0, 2, 0])


# ---- The launch wrappers, against the operators of the CPU ----


@contextlib.contextmanager
def emulated(order="random", seed=0):
    """torch's CPU key runs the CUDA launch wrappers."""
    library = build.build_emulated_library(["csrc/cuda/conv_lstm_op.cu"])
    with build.emulated_operators(library, order, seed):
        yield


DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
GATES = ("more", "peephole", "activated")
GRAD = ("grad_h", "grad_h_more", "grad_c", "peephole", "bias")


def tensor(shape, dtype, seed, shifted=False):
    """Random values; `shifted` by an element, at an address that allows no wide access."""
    count = int(np.prod(shape))
    values = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    if not shifted:
        return values.view(shape)
    return torch.cat([values[:0].new_zeros(1), values])[1:].view(shape)


def run_gates(rows, inner, dtype, given=GATES, in_place=False, shifted=False, state=None):
    wide = torch.promote_types(dtype, torch.float32)
    state = state or wide
    gates, more = (tensor((rows, 4 * inner), dtype, seed, shifted) for seed in (0, 1))
    c, peephole = tensor((rows, inner), state, 2, shifted), tensor((3, inner), wide, 3, shifted)
    h = torch.full((rows, inner), torch.nan, dtype=dtype)
    c_out = c if in_place else torch.full_like(c, torch.nan)
    activated = gates if in_place else torch.full_like(gates, torch.nan)
    optional = [
        t if name in given else None for name, t in zip(GATES, (more, peephole, activated), strict=True)
    ]
    torch.ops.amstel.conv_lstm_gates(gates, optional[0], c, optional[1], h, c_out, optional[2])
    return [h, c_out] + ([activated] if optional[2] is not None else [])


def run_grad(rows, inner, dtype, given=GRAD, in_place=False, shifted=False, state=None):
    """The gradients, and the sums of each block."""
    wide = torch.promote_types(dtype, torch.float32)
    state = state or wide
    activated = tensor((rows, 4 * inner), dtype, 0, shifted).sigmoid_()
    c, c_out, grad_c = (tensor((rows, inner), state, seed, shifted) for seed in (1, 2, 3))
    grad_h, more = (tensor((rows, inner), dtype, seed, shifted) for seed in (4, 5))
    peephole = tensor((3, inner), wide, 6, shifted)
    optional = [
        t if name in given else None
        for name, t in zip(GRAD, (grad_h, more, grad_c, peephole, True), strict=True)
    ]
    grad_c_out = grad_c if in_place else torch.full_like(c, torch.nan)
    grad_gates = activated if in_place else torch.full_like(activated, torch.nan)
    sums = torch.ops.amstel.conv_lstm_gates_grad(
        activated, c, c_out, optional[3], *optional[:3], grad_c_out, grad_gates, bool(optional[4])
    )
    return grad_gates, grad_c_out, sums


def compare(rows, inner, dtype, **options):
    """The emulated operators against those of the CPU, with everything that is optional."""
    cpu = run_gates(rows, inner, dtype, **options), run_grad(rows, inner, dtype, **options)
    with emulated():
        cuda = run_gates(rows, inner, dtype, **options), run_grad(rows, inner, dtype, **options)
    check(cuda, cpu, dtype)
    assert cuda[1][2].shape[0] == -(-rows // max(8, 4096 // inner))


def check(cuda, cpu, dtype):
    state = torch.promote_types(dtype, torch.float32)
    for actual, expected in zip((*cuda[0], *cuda[1][:2]), (*cpu[0], *cpu[1][:2]), strict=True):
        assert actual.dtype == expected.dtype
        assert_close(actual, expected.double(), dtype)
    assert cuda[1][2].dtype == state
    assert_close(cuda[1][2].sum(0), cpu[1][2].double().sum(0), state)


@pytest.mark.parametrize(
    "rows, inner", [(0, 5), (1, 1), (300, 1), (4100, 3), (37, 6), (70, 20), (9, 512), (1, 1021)]
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_operators(dtype, rows, inner):
    compare(rows, inner, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_operators_in_place(dtype):
    for inner in (7, 16):
        compare(20, inner, dtype, in_place=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_operators_short_states(dtype):
    """c of a short type in that type: the values of a float c that was rounded, rounded; on the CPU too."""
    rows, inner = 37, 24
    for given, grads in ((GATES, GRAD), ((), ("grad_h", "bias"))):
        for shifted, where in ((False, emulated), (True, emulated), (False, contextlib.nullcontext)):
            options = {"shifted": shifted, "state": dtype}
            with where():
                h, c, *rest = run_gates(rows, inner, dtype, given, **options)
                gates, grad_c, sums = run_grad(rows, inner, dtype, grads, **options)
            assert h.dtype == c.dtype == grad_c.dtype == dtype and sums.dtype == torch.float32
            wide = forward_of(rows, inner, dtype, given), backward_of(rows, inner, dtype, grads)
            for actual, expected in zip((h, c, *rest, gates, grad_c), (*wide[0], *wide[1][:2]), strict=True):
                assert_close(actual, expected.double(), dtype)
            assert_close(sums.sum(0), wide[1][2].double().sum(0), torch.float32)
    with pytest.raises(RuntimeError, match="`c` must be a contiguous Float"):
        run_gates(rows, inner, dtype, state=torch.float64)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_operators_one_row_of_more_and_rows_of_h_apart(dtype):
    """A bias for all rows; h among channels of others, whose addresses allow wide accesses or do not."""
    state, rows, inner = torch.promote_types(dtype, torch.float32), 37, 24
    gates, bias, c = (
        tensor(s, t, n)
        for n, (s, t) in enumerate((((rows, 96), dtype), ((1, 96), dtype), ((rows, 24), state)))
    )
    expected = [torch.empty(rows, inner, dtype=dtype), torch.empty_like(c)]
    torch.ops.amstel.conv_lstm_gates(gates, bias.expand(rows, -1).contiguous(), c, None, *expected, None)
    for width in (32, 29):
        wide, c_out = torch.full((rows, width), 7.0, dtype=dtype), torch.empty_like(c)
        with emulated():
            torch.ops.amstel.conv_lstm_gates(gates, bias, c, None, wide[:, :inner], c_out, None)
        assert_close(wide[:, :inner], expected[0].double(), dtype)
        assert_close(c_out, expected[1].double(), state)
        assert (wide[:, inner:] == 7).all()


def forward_of(rows, inner, dtype, given):
    """run_gates on the CPU with c rounded to the type."""
    gates, more = (tensor((rows, 4 * inner), dtype, seed) for seed in (0, 1))
    c, peephole = tensor((rows, inner), dtype, 2).float(), tensor((3, inner), torch.float32, 3)
    h, c_out, activated = torch.empty(rows, inner, dtype=dtype), torch.empty_like(c), torch.empty_like(gates)
    everything = bool(given)
    torch.ops.amstel.conv_lstm_gates(
        gates, more if everything else None, c, peephole if everything else None, h, c_out,
        activated if everything else None,
    )  # fmt: skip
    return [h, c_out] + ([activated] if everything else [])


def backward_of(rows, inner, dtype, given):
    activated = tensor((rows, 4 * inner), dtype, 0).sigmoid_()
    c, c_out, grad_c = (tensor((rows, inner), dtype, seed).float() for seed in (1, 2, 3))
    grad_h, more = (tensor((rows, inner), dtype, seed) for seed in (4, 5))
    peephole = tensor((3, inner), torch.float32, 6)
    optional = [
        t if name in given else None
        for name, t in zip(GRAD, (grad_h, more, grad_c, peephole, True), strict=True)
    ]
    grad_c_out, grad_gates = torch.empty_like(c), torch.empty_like(activated)
    sums = torch.ops.amstel.conv_lstm_gates_grad(
        activated, c, c_out, optional[3], *optional[:3], grad_c_out, grad_gates, bool(optional[4])
    )
    return grad_gates, grad_c_out, sums


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


def test_operators_whatever_is_given():
    def every(names):
        return itertools.chain.from_iterable(itertools.combinations(names, n) for n in range(len(names) + 1))

    gates, grads = list(every(GATES)), list(every(GRAD))
    cpu = (
        [run_gates(11, 8, torch.float32, g) for g in gates],
        [run_grad(11, 8, torch.float32, g) for g in grads],
    )
    with emulated():
        cuda = (
            [run_gates(11, 8, torch.float32, g) for g in gates],
            [run_grad(11, 8, torch.float32, g) for g in grads],
        )
    for ours, theirs in zip(cuda[0], cpu[0], strict=True):
        check((ours, cuda[1][0]), (theirs, cpu[1][0]), torch.float32)
    for ours, theirs in zip(cuda[1], cpu[1], strict=True):
        check((cuda[0][0], ours), (cpu[0][0], theirs), torch.float32)


def test_operators_bits_do_not_depend_on_the_order_of_threads():
    results = []
    for order in build.ORDERS:
        with emulated(order, seed=7):
            results.append([*run_gates(300, 24, torch.float32), *run_grad(300, 24, torch.float32)])
    for other in results[1:]:
        for first, second in zip(results[0], other, strict=True):
            assert torch.equal(first, second)


def test_operators_errors():
    """Every argument that does not fit is named, as on the CPU."""
    gates, c, h, p = torch.zeros(4, 12), torch.zeros(4, 3), torch.zeros(4, 3), torch.zeros(3, 3)
    good = {"gates": gates, "more": gates, "c": c, "peephole": p, "h": h, "c_out": c, "activated": gates}
    good_grad = {
        "activated": gates, "c": c, "c_out": c, "peephole": p, "grad_h": h, "grad_h_more": h, "grad_c": c,
        "grad_c_out": c, "grad_gates": gates, "bias": True,
    }  # fmt: skip
    with emulated():
        for operator, arguments in (("conv_lstm_gates", good), ("conv_lstm_gates_grad", good_grad)):
            for name, t in arguments.items():
                if name == "bias":
                    continue
                for bad in (t[0], torch.zeros(5, 7), t.long(), t.t().contiguous().t()):
                    with pytest.raises(RuntimeError, match=f"{operator}: `{name}` must be a contiguous"):
                        getattr(torch.ops.amstel, operator)(**(arguments | {name: bad}))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_public_functions_over_the_wrappers(dtype):
    """Checks, autograd and the composition of a sequence, as on a device, with the launch wrappers below."""
    with emulated():
        for case in ("plain", "even kernels", "lengths, plain"):
            inputs, options = test_conv_lstm.make(case)
            test_conv_lstm.check(inputs, dtype, algorithm="plain", **options)
        for laid in (torch.contiguous_format, torch.channels_last):
            test_conv_lstm.test_cell(3, (4, 5), laid, dtype, "cpu")


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize(
    "case, dtype",
    [("plain", torch.float32), ("plain", torch.bfloat16), ("lengths, plain", torch.float16), ("last only", torch.float32), ("even kernels", torch.float32)],
)  # fmt: skip
def test_sequence_as_on_a_device(monkeypatch, joined, case, dtype):
    """The parts, the filled-up channels and the steps that join x and h, which only CUDA has."""
    monkeypatch.setattr(_conv_lstm, "on_cuda", lambda t: True)
    monkeypatch.setattr(_conv_lstm.Plan, "_memory_bound", lambda self, items: joined)
    inputs, options = test_conv_lstm.make(case)
    plan = _conv_lstm.Plan(*(t.to(dtype) for t in inputs[:4]), 1, "same", "plain", True)
    assert (plan.joined is not None) == (joined and case != "even kernels")
    with emulated():
        _, h_n, c_n, *_ = test_conv_lstm.check(inputs, dtype, algorithm="plain", **options)
        x, w_ih, w_hh, bias, peephole, *state = (t.to(dtype) for t in inputs)
        for sequences in (True, False):  # without a gradient the last step alone may be kept
            more = options | {"return_sequences": sequences, "peephole": peephole, "algorithm": "plain"}
            with torch.no_grad():
                _, (h, c) = amstel.ops.conv_lstm(x, w_ih, w_hh, bias, tuple(state), **more)
            assert_close(h, h_n.double(), dtype)
            assert_close(c, c_n.double(), dtype)


@pytest.mark.slow
def test_sanitized():
    """The kernels of this file, emulated, under AddressSanitizer and UBSan."""
    chosen = "kernel and emulator and not sanitized"
    options = ["-q", "--capture=no", "-p", "no:cacheprovider", "-p", "no:xdist"]
    result = build.run_sanitized(["-m", "pytest", *options, __file__, "-k", chosen])
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert " passed" in result.stdout
