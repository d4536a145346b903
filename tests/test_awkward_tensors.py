"""Every operator with tensors as users have them and not as tests make them: apart in memory, overlapping, negated or
conjugated by a bit, changed in place, without values, subclasses; and beneath the modes of PyTorch that look on.

Against the reference in plain PyTorch, in double precision.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import amstel
from amstel import nn, ops, reference
from tests.operator_samples import SAMPLES, Sample, shapes
from tests.test_transforms import EXACT, energy, fused, plain

BOXES = torch.tensor([[0, 0, 0, 3, 3], [1, 1, 1, 9, 2], [0, 0.5, 0, 2, 3.4]], dtype=torch.float64)
SEGMENTS = torch.tensor([0, 2, 2, 0, 3])


def _segments(implementation, x, reduce):
    if implementation is ops:
        return ops.segment_reduce(x, SEGMENTS, 4, reduce=reduce)
    rows = [x[SEGMENTS == s] for s in range(4)]
    return torch.stack([getattr(r, reduce)(0) if len(r) else x.new_zeros(x.shape[1]) for r in rows])


# Operators that have tests of their own for derivatives.
MORE = [
    Sample("roi_align", lambda o, x: o.roi_align(x, BOXES, 2, 0.7, 2, True), shapes((2, 2, 4, 4))),
    Sample("ps_roi_pool", lambda o, x: o.ps_roi_pool(x, BOXES, 2, 0.7), shapes((2, 8, 4, 4))),
    Sample("segment_reduce-mean", lambda o, x: _segments(o, x, "mean"), shapes((5, 3))),
    Sample("segment_reduce-max", lambda o, x: _segments(o, x, "amax" if o is reference else "max"), shapes((5, 3))),
]  # fmt: skip
# Of the 17 of spmm those that differ in what the operators are given.
FEW = {"spmm-row-0.0", "spmm-weights-sym-1.0", "spmm-weights-sym_inout-1.0", "spmm-own-weights"}
CASES = [s for s in (*SAMPLES, *MORE) if not s.name.startswith("spmm") or s.name in FEW]
every = pytest.mark.parametrize("sample", CASES, ids=lambda s: s.name)


def gradients(function, tensors, between=lambda t: t, twice=False):
    """The value, the gradients of a curved function of it, and those of the square of these."""
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    y = function(*(between(t) for t in leaves))
    found = torch.autograd.grad(energy(lambda: y)(), leaves, create_graph=twice)
    if not twice:
        return y, *found
    total = sum(g.abs().square().sum() for g in found)
    second = torch.autograd.grad(total, leaves, materialize_grads=True, allow_unused=True)
    return y, *found, *second


# ---- Memory ----


def apart(t):
    """Every other element along every dimension, NaN between them."""
    room = t.new_full([2 * n + 1 for n in t.shape], float("nan"))
    room = torch.zeros_like(room).copy_(room)
    view = room[tuple(slice(1, None, 2) for _ in t.shape)]
    return view.copy_(t)


def negated(t):
    """A real tensor whose negation, or a complex one whose conjugate, is what is in memory."""
    if t.is_complex():
        return t.conj().resolve_conj().conj()
    return torch.complex(torch.zeros_like(t), -t).conj().imag


LAYOUTS = {
    "apart": apart,
    "transposed": lambda t: t.mT.contiguous().mT if t.dim() > 1 else t.flip(0).flip(0),
    "backwards": lambda t: t.permute(*reversed(range(t.dim()))).contiguous().permute(*reversed(range(t.dim()))),
    "negated": negated,
    "part": lambda t: torch.cat([t.new_ones(3), t.flatten()])[3:].view(t.shape),
}  # fmt: skip


@every
def test_layouts(sample):
    """All arguments at once, and the gradient that comes; derivatives of derivatives too."""
    tensors, f = sample.make(), fused(sample)
    expected = gradients(plain(sample), tensors, twice=True)
    grads = []
    for layout in (lambda t: t, *LAYOUTS.values()):
        leaves = [t.clone().requires_grad_() for t in tensors]
        y = (f if grads else plain(sample))(*leaves)
        grad = torch.linspace(0.5, 1, y.numel(), dtype=torch.float64).reshape(y.shape).to(y.dtype)
        grad = layout(grad * (1 + 1j) if y.is_complex() else grad)
        grads.append(torch.autograd.grad(y, leaves, grad))
        assert_close(grads[-1], grads[0], **EXACT)
        if sample.name == "mri_gradient-sigma" and layout is negated:
            continue  # its y is torch.view_as_real of x, which takes no conjugate
        assert_close(gradients(f, tensors, layout, twice=True), expected, **EXACT)
        with torch.no_grad():
            assert_close(f(*(layout(t) for t in tensors)), expected[0].detach(), **EXACT)


@every
def test_elements_that_share_memory(sample):
    """One argument after the other expanded along its first and its last dimension, or with rows that overlap."""
    tensors = sample.make()
    for k, t in enumerate(tensors):
        shared = [t.narrow(d, 0, 1).expand_as(t) for d in {0, t.dim() - 1}]
        shared.append(torch.linspace(0.5, 1, t.numel() + 9).to(t.dtype).as_strided(t.shape, [1] * t.dim()))
        for view in shared:
            given = [view if i == k else other for i, other in enumerate(tensors)]
            own = [g.clone() for g in given]
            assert_close(gradients(fused(sample), given), gradients(plain(sample), own), **EXACT)


@every
def test_changes_in_place(sample):
    """Of an argument or of the result, before the backward pass: an error, or the gradients as they were to be."""
    tensors, f = sample.make(), fused(sample)
    expected = gradients(plain(sample), tensors)[1:]
    for k in range(len(tensors)):
        leaves = [t.clone().requires_grad_() for t in tensors]
        given = [1 * t for t in leaves]
        y = f(*given)
        with torch.no_grad():
            given[k].copy_(given[k].clone().mul_(1.5))
        try:
            found = torch.autograd.grad(energy(lambda y=y: y)(), leaves)
        except RuntimeError as error:
            assert "inplace" in str(error)
        else:
            assert_close(found, expected, **EXACT)
    expected = gradients(lambda *t: 2 * plain(sample)(*t), tensors)
    try:
        found = gradients(lambda *t: f(*t).mul_(2), tensors)
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)
    else:
        assert_close(found, expected, **EXACT)


# ---- Passes over the graph of autograd ----


@every
def test_passes(sample):
    """Twice over one graph, by halves, from checkpoints, with what was saved packed away."""
    tensors, f = sample.make(), fused(sample)
    expected = gradients(f, tensors)
    leaves = [t.clone().requires_grad_() for t in tensors]
    total = energy(f)(*leaves)
    first = torch.autograd.grad(total, leaves, retain_graph=True)
    again = torch.autograd.grad(total, leaves)
    for one, two, three in zip(first, again, expected[1:], strict=True):
        assert torch.equal(one, two) and torch.equal(one, three)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(total, leaves)
    for k in range(len(tensors)):
        given = [t.clone().requires_grad_(i == k) for i, t in enumerate(tensors)]
        (one,) = torch.autograd.grad(energy(f)(*given), given[k])
        assert_close(one, expected[1 + k], **EXACT)
    assert_close(gradients(lambda *t: checkpoint(f, *t, use_reentrant=False), tensors), expected, **EXACT)
    leaves = [t.clone().requires_grad_() for t in tensors]
    energy(lambda *t: checkpoint(f, *t, use_reentrant=True))(*leaves).backward()
    assert_close(tuple(t.grad for t in leaves), expected[1:], **EXACT)
    with torch.autograd.graph.save_on_cpu(), torch.autograd.set_detect_anomaly(True):
        assert_close(gradients(f, tensors), expected, rtol=0, atol=0)


# ---- Modes and kinds of tensors ----


class Looking(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


class Sub(torch.Tensor):
    """What torchvision's images and boxes are: a class that stays."""


@every
@pytest.mark.filterwarnings("ignore:.*Anomaly")
def test_modes(sample):
    tensors, f = sample.make(), fused(sample)
    expected = gradients(f, tensors)
    with Looking():
        assert_close(gradients(f, tensors), expected, rtol=0, atol=0)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        y = f(*(fake.from_tensor(t) for t in tensors))
    assert (
        y.shape == expected[0].shape and y.stride() == f(*tensors).stride() and y.dtype == expected[0].dtype
    )
    y = f(*(t.as_subclass(Sub) for t in tensors))
    assert type(y) is Sub
    assert_close(y.as_subclass(torch.Tensor), f(*tensors), rtol=0, atol=0)


TRACED = {"spmm-weights-sym-1.0", "conv_lstm-all", "roi_match", "mri_gradient-1d", "segment_reduce-mean", "segment_reduce-max"}  # fmt: skip


@pytest.mark.parametrize("sample", [s for s in CASES if s.name in TRACED], ids=lambda s: s.name)
@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr")
def test_values_that_a_tracer_hides(sample):
    """Lengths, segments, boxes and weights are not looked at where that would raise."""
    tensors, f = sample.make(), fused(sample)
    program = make_fx(f)(*tensors)
    others = sample.make(1)
    assert_close(program(*others), f(*others), **EXACT)
    value, linear = torch.func.linearize(f, *tensors)
    assert_close((value, linear(*others)), torch.func.jvp(plain(sample), tensors, others), **EXACT)


_M = {"device": "meta"}
META = {
    "spmm": lambda: ops.spmm(amstel.Graph.from_edge_index(torch.tensor([[0], [1]]), 3).to("meta"), torch.ones(3, 2, **_M)),
    "conv_lstm": lambda: ops.conv_lstm(torch.ones(2, 1, 3, 4, 4, **_M), torch.ones(8, 3, 3, 3, **_M), torch.ones(8, 2, 3, 3, **_M), lengths=torch.ones(1, dtype=torch.int64, **_M))[0],
    "conv_lstm_cell": lambda: ops.conv_lstm_cell(torch.ones(1, 8, 4, 4, **_M), torch.ones(1, 2, 4, 4, **_M))[0],
    "conv_gru_cell": lambda: ops.conv_gru_cell(torch.ones(1, 6, 4, 4, **_M), torch.ones(1, 6, 4, 4, **_M), torch.ones(1, 2, 4, 4, **_M)),
    "roi_pool": lambda: ops.roi_pool(torch.ones(1, 2, 4, 4, **_M), torch.ones(3, 5, **_M), 2),
    "roi_align": lambda: ops.roi_align(torch.ones(1, 2, 4, 4, **_M), torch.ones(3, 5, **_M), 2),
    "roi_match": lambda: ops.roi_match([torch.ones(1, 2, 4, 4, **_M)], torch.ones(3, 5, **_M), torch.ones(8, **_M), 2, [1.0]),
    "segment_reduce": lambda: ops.segment_reduce(torch.ones(5, 2, **_M), torch.ones(5, dtype=torch.int64, **_M), 3),
    "rim_denoise_input": lambda: ops.rim_denoise_input(torch.ones(1, 2, 4, 4, **_M), torch.ones(1, 2, 4, 4, **_M), 0.5, mask=torch.ones(4, 4, **_M)),
    "rim_super_resolve_input": lambda: ops.rim_super_resolve_input(torch.ones(1, 2, 4, 4, **_M), torch.ones(1, 2, 2, 2, **_M), 2, 0.5),
    "mri_gradient": lambda: ops.mri_gradient(torch.ones(1, 4, 4, dtype=torch.cfloat, **_M), torch.ones(1, 2, 4, 4, dtype=torch.cfloat, **_M), torch.ones(4, **_M), torch.ones(2, 4, 4, dtype=torch.cfloat, **_M)),
    "GCN": lambda: nn.GCN(3, 4, 2, device="meta")(torch.ones(3, 3, **_M), amstel.Graph.from_edge_index(torch.tensor([[0], [1]]), 3).to("meta")),
    "ConvLSTM": lambda: nn.ConvLSTM(3, 2, device="meta")(torch.ones(2, 1, 3, 4, 4, **_M))[0],
    "ConvGRUCell": lambda: nn.ConvGRUCell(3, 2, device="meta")(torch.ones(1, 3, 4, 4, **_M)),
}  # fmt: skip


@pytest.mark.parametrize("name", META)
def test_meta_tensors(name):
    """Shapes without values, under autocast too, which does not know the device."""
    y = META[name]()
    with torch.autocast("cpu", torch.bfloat16):
        assert META[name]().shape == y.shape
    assert y.is_meta and y.dtype in (torch.float32, torch.complex64)
