"""Every operator against its float64 reference on inputs that hypothesis makes up.

Shapes, strides, dtypes, values (NaN, infinity, denormal, huge), thread counts. A plain run takes less than a minute;
AMSTEL_FUZZ=2000 takes so many examples an operator (an hour is about 20,000), and other seeds in every run.
"""

import os

import numpy as np
import pytest
import torch

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

import amstel  # noqa: E402
from amstel import ops, reference  # noqa: E402
from amstel.ops.conv_gru import conv_gru_pointwise  # noqa: E402
from amstel.testing import TOLERANCE  # noqa: E402

EXAMPLES = int(os.environ.get("AMSTEL_FUZZ", "25"))
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="AMSTEL_FUZZ" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
SPECIAL = ("nan", "inf", "-inf", "denormal", "huge", "zero")


@st.composite
def environments(draw):
    """dtype, generator, number of threads, and what is strewn into the data."""
    dtype = draw(st.sampled_from(DTYPES))
    seed = draw(st.integers(0, 2**31))
    return dtype, torch.Generator().manual_seed(seed), draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from(
        [None, None, None, *SPECIAL]
    ))  # fmt: skip


def made(env, *shape, layout="dense", special=True, scale=1.0):
    """A tensor of this shape, perhaps strided, with perhaps a few special values."""
    dtype, generator, _, what = env
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
    if what and special and x.numel():
        info = torch.finfo(dtype)
        value = {
            "nan": float("nan"), "inf": float("inf"), "-inf": float("-inf"), "zero": 0.0,
            "denormal": info.tiny / 4, "huge": info.max / 8 if dtype == torch.float16 else 1e20,
        }[what]  # fmt: skip
        x.flatten()[torch.randint(0, x.numel(), (2,), generator=generator)] = value
    x = x.to(dtype)
    if layout == "strided" and x.dim():
        wide = torch.full((*x.shape[:-1], 2 * x.shape[-1]), 7.0, dtype=dtype)
        wide[..., ::2] = x
        return wide[..., ::2]
    if layout == "transposed" and x.dim() >= 2:
        return x.transpose(-1, -2).contiguous().transpose(-1, -2)
    if layout == "channels_last" and x.dim() >= 4:
        return x.movedim(-3, -1).contiguous().movedim(-1, -3)
    return x


LAYOUTS = st.sampled_from(["dense", "strided", "transposed", "channels_last"])


def close(actual, expected, dtype, times=4.0, finite_only=False):
    """Equal within the dtype's tolerance at the scale of the finite part; NaN and infinity at the same places."""
    actual, expected = actual.detach().double(), expected.detach().double()
    assert actual.shape == expected.shape
    limit = torch.finfo(dtype).max
    # What the dtype does not hold is infinite there.
    expected = torch.where(expected.abs() > limit, expected.sign() * float("inf"), expected)
    finite = expected.isfinite()
    near = expected.abs() > limit * 0.99  # may round either way
    if not finite_only:
        assert bool((actual.isfinite() == finite)[~near].all())
        assert bool((actual.isnan() == expected.isnan()).all())
    finite = finite & actual.isfinite()
    if not bool(finite.any()):
        return
    relative, absolute = TOLERANCE[dtype]
    scale = max(1.0, float(expected[finite].abs().max()))
    error = (actual - expected)[finite].abs()
    assert bool((error <= times * (absolute * scale + relative * expected[finite].abs())).all()), float(
        error.max()
    )


class threads:
    def __init__(self, env):
        self.n = env[2]

    def __enter__(self):
        self.before = torch.get_num_threads()
        torch.set_num_threads(self.n)

    def __exit__(self, *_):
        torch.set_num_threads(self.before)


def same_bits_with_other_threads(run, env):
    with threads(env):
        a = run()
    before = torch.get_num_threads()
    torch.set_num_threads(4 - env[2])
    try:
        b = run()
    finally:
        torch.set_num_threads(before)
    for s, t in zip(a, b, strict=True):
        assert torch.equal(torch.nan_to_num(s, 1.5, 2.5, 3.5), torch.nan_to_num(t, 1.5, 2.5, 3.5))
    return a


@FUZZ
@given(
    env=environments(),
    nodes=st.integers(1, 40),
    edges=st.integers(0, 200),
    features=st.integers(0, 35),
    batch=st.sampled_from([None, 0, 1, 3]),
    layout=LAYOUTS,
    norm=st.sampled_from(["sym", "row", "sym_inout", "none"]),
    self_loops=st.sampled_from([0.0, 1.0, 0.3, -0.5]),
    weighted=st.booleans(),
    relu=st.booleans(),
)
def test_spmm(env, nodes, edges, features, batch, layout, norm, self_loops, weighted, relu):
    dtype, generator, _, _ = env
    index = torch.randint(0, nodes, (2, edges), generator=generator)
    graph = amstel.Graph.from_edge_index(index, nodes)
    x = made(env, *([] if batch is None else [batch]), nodes, features, layout=layout)
    weight = (
        torch.rand(edges, generator=generator, dtype=torch.float64).add(0.1).to(dtype) if weighted else None
    )
    bias = made(env, features, special=False)

    def run(x=x, weight=weight):
        return (ops.spmm(graph, x, weight, norm=norm, self_loops=self_loops, bias=bias,
                         activation="relu" if relu else None),)  # fmt: skip

    (y,) = same_bits_with_other_threads(run, env)
    A = torch.zeros(nodes, nodes, dtype=torch.float64)
    w = torch.ones(edges, dtype=torch.float64) if weight is None else weight.double()
    A.index_put_((index[1], index[0]), w, accumulate=True)
    there = torch.zeros(nodes, nodes, dtype=torch.bool)
    there[index[1], index[0]] = True
    if self_loops != 0:
        there.fill_diagonal_(True)
    A += self_loops * torch.eye(nodes, dtype=torch.float64)

    def inverse(d, power):
        return torch.where(d > 1e-9, d.clamp(min=1e-300).pow(-power), torch.zeros_like(d))

    into, out = A.sum(1), A.sum(0)
    if norm != "none":
        row = inverse(into, 1.0 if norm == "row" else 0.5)
        col = {"row": torch.ones_like(out), "sym": row, "sym_inout": inverse(out, 0.5)}[norm]
        hypothesis.assume(bool(((into.abs() > 1e-3) & (out.abs() > 1e-3) | (into == 0) | (out == 0)).all()))
        A = row[:, None] * A * col
    # Only what is there is multiplied: an infinite feature of a node that is no neighbor is not. A loop that takes
    # away from an edge's infinity leaves NaN, and of that the sum above knows nothing.
    hypothesis.assume(self_loops >= 0 or bool(x.isfinite().all()))
    parts = torch.where(there[:, :, None], A[:, :, None] * x.double().unsqueeze(-3), 0.0)
    expected = parts.sum(-2) + bias.double()
    close(y, expected.relu() if relu else expected, dtype)


@FUZZ
@given(
    env=environments(),
    steps=st.integers(1, 4),
    items=st.integers(0, 3),
    inputs=st.integers(1, 20),
    hidden=st.integers(1, 20),
    size=st.tuples(st.integers(1, 11), st.integers(1, 11)),
    kernels=st.tuples(st.integers(1, 4), st.sampled_from([1, 2, 3, 3, 3])),
    layout=LAYOUTS,
    memory=st.sampled_from(["store", "recompute"]),
    peephole=st.booleans(),
    lengths=st.booleans(),
)
def test_conv_lstm(env, steps, items, inputs, hidden, size, kernels, layout, memory, peephole, lengths):
    dtype, generator, _, what = env
    x = made(env, steps, items, inputs, *size, layout=layout)
    weight_ih = made(env, 4 * hidden, inputs, kernels[0], kernels[0], special=False, scale=0.2)
    weight_hh = made(env, 4 * hidden, hidden, kernels[1], kernels[1], special=False, scale=0.2)
    bias = made(env, 4 * hidden, special=False)
    p = made(env, 3, hidden, special=False) if peephole else None
    n = torch.randint(1, steps + 1, (items,), generator=generator) if lengths else None
    arguments = [t.requires_grad_() for t in (x.detach(), weight_ih, weight_hh, bias)]
    with threads(env):
        output, (h, c) = ops.conv_lstm(*arguments, lengths=n, peephole=p, memory=memory)
    wide = [t.detach().double().requires_grad_() for t in arguments]
    expected, (h64, c64) = reference.conv_lstm(*wide, lengths=n, peephole=p if p is None else p.double())
    for a, b in ((output, expected), (h, h64), (c, c64)):
        close(a, b, dtype, times=8 * steps)
    if what in (None, "zero", "denormal") and items:
        grad = torch.randn(output.shape, generator=generator).to(dtype)
        found = torch.autograd.grad(output, arguments, grad)
        right = torch.autograd.grad(expected, wide, grad.double())
        for a, b in zip(found, right, strict=True):
            close(a, b, dtype, times=32 * steps)


@FUZZ
@given(
    env=environments(), shape=st.tuples(*[st.integers(0, 9)] * 3), channels=st.integers(1, 19), layout=LAYOUTS
)
def test_cells(env, shape, channels, layout):
    dtype = env[0]
    n, height, width = shape

    def maps(k):
        return made(env, n, k * channels, height, width, layout=layout)

    gates, c, gates_h, h = maps(4), maps(1), maps(3), maps(1)
    with threads(env):
        found = ops.conv_lstm_cell(gates, c)
        gru = ops.conv_gru_cell(maps_x := maps(3), gates_h, h)
    for a, b in zip(found, reference.conv_lstm_cell(gates.double(), c.double()), strict=True):
        close(a, b, dtype)
    close(gru, reference.conv_gru_cell(maps_x.double(), gates_h.double(), h.double()), dtype)
    pixels, state = made(env, n * height, channels, special=False), made(env, n * height, 2, special=False)
    weights = [made(env, *s, special=False) for s in ((6, channels), (6, 2), (6,), (6,))]
    new = conv_gru_pointwise(pixels, state, *weights)
    x, g = (
        torch.nn.functional.linear(t.double(), weights[k].double(), weights[k + 2].double())[..., None, None]
        for k, t in enumerate((pixels, state))
    )
    close(new, reference.conv_gru_cell(x, g, state.double()[..., None, None])[..., 0, 0], dtype, times=16)


@FUZZ
@given(
    env=environments(),
    images=st.integers(1, 3),
    channels=st.integers(0, 20),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    boxes=st.integers(0, 6),
    output=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    scale=st.sampled_from([1.0, 0.5, 1 / 16, 3.7]),
    spread=st.sampled_from([1.0, 10.0, 1e4]),
    layout=LAYOUTS,
)
def test_roi_pool(env, images, channels, size, boxes, output, scale, spread, layout):
    dtype, generator, _, what = env
    x = made(env, images, channels, *size, layout=layout, special=what != "nan")
    corners = (torch.randn(boxes, 4, generator=generator) * spread).to(dtype)
    batch = torch.randint(0, images, (boxes, 1), generator=generator).to(dtype)
    rois = torch.cat([batch, corners], 1)
    # Where scaled coordinates overflow the dtype torchvision's result is undefined, and ours only safe.
    hypothesis.assume(bool((rois[:, 1:] * torch.tensor(scale, dtype=dtype) * 2).isfinite().all()))

    def run():
        return (ops.roi_pool(x, rois, output, scale),)

    (y,) = same_bits_with_other_threads(run, env)
    # The edges of the bins are those of the dtype's own arithmetic; a maximum is exact.
    assert torch.equal(y, reference.roi_pool(x, rois, output, scale))


@FUZZ
@given(
    env=environments(),
    images=st.integers(1, 3),
    channels=st.integers(1, 20),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    boxes=st.integers(0, 6),
    output=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    scale=st.sampled_from([1.0, 0.5, 1 / 16, 3.7]),
    spread=st.sampled_from([1.0, 10.0]),
    sampling=st.integers(-1, 3),
    aligned=st.booleans(),
    layout=LAYOUTS,
)
def test_roi_align(env, images, channels, size, boxes, output, scale, spread, sampling, aligned, layout):
    dtype, generator = env[:2]
    x = made(env, images, channels, *size, layout=layout, special=False)
    by_position = made(env, images, 2 * output[0] * output[1], *size, layout=layout, special=False)
    batch = torch.randint(0, images, (boxes, 1), generator=generator).float()
    rois = torch.cat([batch, torch.randn(boxes, 4, generator=generator) * spread], 1)
    rois = rois.to(torch.float64 if dtype == torch.float64 else torch.float32)

    def run():
        aligned_ = ops.roi_align(x, rois, output, scale, sampling, aligned)
        return aligned_, ops.ps_roi_pool(by_position, rois, output, scale)

    y, z = same_bits_with_other_threads(run, env)
    # A coordinate near the border of a cell or of the map may fall to either side in other arithmetic: its own.
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    close(y, reference.roi_align(x.to(wide), rois, output, scale, sampling, aligned), dtype, times=32)
    close(z, reference.ps_roi_pool(by_position.to(wide), rois, output, scale), dtype, times=32)


@FUZZ
@given(
    env=environments(),
    n=st.integers(0, 3),
    size=st.tuples(*[st.integers(1, 14) | st.sampled_from([97, 131, 134])] * 2),
    columns=st.booleans(),
    coils=st.sampled_from([None, 1, 3]),
    sigma=st.sampled_from([1.0, 0.1, 3.0]),
    centered=st.booleans(),
)
def test_mri_gradient(env, n, size, columns, coils, sigma, centered):
    dtype, generator, _, _ = env
    dtype = torch.float64 if dtype == torch.float64 else torch.float32
    made_of = {torch.float64: torch.complex128, torch.float32: torch.complex64}[dtype]

    def complex_(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.complex128).to(made_of)

    x, y = complex_(n, *size), complex_(n, coils or 1, *size)
    maps = None if coils is None else complex_(coils, *size)
    mask = torch.randint(0, 2, size[1:] if columns else size, generator=generator)
    weight = complex_(n, *size)

    def run(function, made_of):
        tensors = [t.to(made_of).requires_grad_() for t in (x, y, maps) if t is not None]
        out = function(tensors[0], tensors[1], mask, *(tensors[2:] or [None]), sigma, centered=centered)
        grads = torch.autograd.grad(out, tensors, weight.to(made_of)) if n else ()
        return [torch.view_as_real(t.detach()) for t in (out, *grads)]

    with threads(env):  # the bits of PyTorch's transform of y may depend on their number
        found = run(ops.mri_gradient, made_of)
    if n == 0:  # of which torch.fft makes nothing
        assert found[0].shape == (*x.shape, 2) and found[0].dtype == dtype
        return
    for ours, right in zip(found, run(reference.mri_gradient, torch.complex128), strict=True):
        close(ours, right, dtype, times=8)


@FUZZ
@given(
    env=environments(),
    shape=st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 6), st.integers(1, 6)),
    scale=st.integers(1, 5),
    layout=LAYOUTS,
)
def test_bicubic_resampling_and_its_adjoint(env, shape, scale, layout):
    dtype = torch.float64 if env[0] == torch.float64 else torch.float32
    env = (dtype, *env[1:])
    n, channels, height, width = shape
    x = made(env, n, channels, height * scale, width * scale, layout=layout, special=False)
    with threads(env):
        y = ops.bicubic_down(x, scale)
    close(y, reference.bicubic_down(x.double(), scale), dtype)
    g = made(env, *y.shape, special=False)
    back = ops.bicubic_down_adjoint(g, scale).double()
    left, right = float((y.double() * g.double()).sum()), float((x.double() * back).sum())
    assert abs(left - right) <= 1e-4 * (1 + float(y.abs().sum()) + float(g.abs().sum()))


@FUZZ
@given(
    rows=st.integers(0, 30), cols=st.integers(0, 30), edges=st.integers(0, 80), seed=st.integers(0, 2**31),
    wrong=st.sampled_from([None, -1, 0, 10**6, -(2**31)]), kind=st.sampled_from([torch.int32, torch.int64]),
)  # fmt: skip
def test_graphs_are_right_or_refused(rows, cols, edges, seed, wrong, kind):
    rng = np.random.default_rng(seed)
    edges = edges if rows and cols else 0
    crow = np.concatenate([[0], np.sort(rng.integers(0, edges + 1, max(rows - 1, 0))), [edges]])[: rows + 1]
    crow = crow if rows else np.zeros(1, np.int64)
    col = rng.integers(0, max(cols, 1), edges)
    if wrong is not None and edges:
        target = col if rng.random() < 0.5 else crow
        target[rng.integers(len(target))] = wrong
    indptr, indices = torch.tensor(crow).to(kind), torch.tensor(col).to(kind)
    valid = (
        crow[0] == 0
        and crow[-1] == edges
        and (np.diff(crow) >= 0).all()
        and ((col >= 0) & (col < cols)).all()
    )
    if not valid:
        with pytest.raises(ValueError):
            amstel.Graph.from_csr(indptr, indices, num_cols=cols)
        return
    graph = amstel.Graph.from_csr(indptr, indices, num_cols=cols)
    dense = np.zeros((rows, cols))
    np.add.at(dense, (np.repeat(np.arange(rows), np.diff(crow)), col), 1)
    x = torch.eye(cols, dtype=torch.float64)
    assert np.array_equal(ops.spmm(graph, x, norm="none", self_loops=0.0).numpy(), dense)
    crow_t, col_t, edge_t = graph.transposed()
    back = amstel.Graph(crow_t, col_t, edge_t, None, rows)
    eye = torch.eye(rows, dtype=torch.float64)
    assert np.array_equal(ops.spmm(back, eye, norm="none", self_loops=0.0).numpy(), dense.T)
