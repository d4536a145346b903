"""Derivatives of every kind, of every operator: forward mode, reverse mode, both over each other, torch.func.

Against numerical derivatives and against the reference in plain PyTorch, in double precision.
"""

import pickle

import pytest
import torch
from torch.autograd import forward_ad
from torch.testing import assert_close

import amstel
from amstel import ops, reference
from tests.operator_samples import BOXES, EDGES, GRAPH, SAMPLES

every = pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.name)
EXACT = {"rtol": 1e-9, "atol": 1e-10}


def fused(sample):
    return lambda *tensors: sample.function(ops, *tensors)


def plain(sample):
    return lambda *tensors: sample.function(reference, *tensors)


def energy(function):
    """A real, curved function of the result, which depends on its phase."""

    def total(*tensors):
        y = function(*tensors)
        weights = torch.linspace(0.5, 1.5, y.numel(), dtype=y.real.dtype).reshape(y.shape)
        parts = torch.view_as_real(y) if y.is_complex() else y[..., None]
        return (weights[..., None] * torch.sin(parts + parts.square() / 3)).sum()

    return total


def leaves(sample):
    return [t.requires_grad_() for t in sample.make()]


@every
def test_first_derivatives(sample):
    torch.autograd.gradcheck(
        fused(sample), leaves(sample), check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True
    )  # fmt: skip


@every
def test_second_derivatives(sample):
    torch.autograd.gradgradcheck(
        fused(sample), leaves(sample), check_fwd_over_rev=True, check_batched_grad=True, fast_mode=True
    )


@every
def test_forward_mode(sample):
    primals, tangents = sample.make(0), sample.make(1)
    expected = torch.func.jvp(plain(sample), primals, tangents)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            assert_close(torch.func.jvp(fused(sample), primals, tangents), expected, **EXACT)
            with forward_ad.dual_level():
                duals = [forward_ad.make_dual(p, t) for p, t in zip(primals, tangents, strict=True)]
                found = forward_ad.unpack_dual(fused(sample)(*duals))
                assert_close(tuple(found), expected, **EXACT)
                # One tangent alone: the others count as constants.
                one = forward_ad.unpack_dual(fused(sample)(duals[0], *primals[1:])).tangent
            zeros = [torch.zeros_like(t) for t in tangents[1:]]
            assert_close(one, torch.func.jvp(plain(sample), primals, (tangents[0], *zeros))[1], **EXACT)


@every
def test_a_tangent_that_comes_with_the_gradient(sample):
    """The forward pass is over when forward mode begins: the backward pass has a derivative of its own."""
    inputs, results = leaves(sample), []
    for f in (fused(sample), plain(sample)):
        y = f(*inputs)
        generator = torch.Generator().manual_seed(3)
        grad, tangent = (torch.randn(y.shape, generator=generator, dtype=y.dtype) for _ in range(2))
        with forward_ad.dual_level():
            found = torch.autograd.grad(y, inputs, forward_ad.make_dual(grad, tangent))
            results.append([tuple(forward_ad.unpack_dual(g)) for g in found])
    assert_close(*results, **EXACT)


@every
def test_functional_derivatives(sample):
    tensors = sample.make()
    everything = tuple(range(len(tensors)))
    transforms = [
        lambda f: torch.func.grad(energy(f), everything),
        lambda f: lambda *t: torch.func.vjp(f, *t)[1](f(*t).detach()),
        lambda f: torch.func.grad_and_value(energy(f), everything),
    ]
    if not tensors[0].is_complex():  # of which PyTorch has no Jacobians
        transforms += [lambda f: torch.func.jacrev(f, everything), lambda f: torch.func.jacfwd(f, everything)]
    for transform in transforms:
        assert_close(transform(fused(sample))(*tensors), transform(plain(sample))(*tensors), **EXACT)


@every
def test_second_functional_derivatives(sample):
    primals, tangents = sample.make(0), sample.make(1)
    everything = tuple(range(len(primals)))

    def forward_over_reverse(f):
        return torch.func.jvp(torch.func.grad(energy(f), everything), primals, tangents)

    def reverse_over_forward(f):
        directional = lambda *t: torch.func.jvp(energy(f), t, tangents)[1]  # noqa: E731
        return torch.func.grad(directional, everything)(*primals)

    def reverse_over_reverse(f):
        def directional(*t):
            grads = torch.func.grad(energy(f), everything)(*t)
            return sum((g.conj() * d).real.sum() for g, d in zip(grads, tangents, strict=True))

        return torch.func.grad(directional, everything)(*primals)

    def forward_over_forward(f):
        directional = lambda *t: torch.func.jvp(energy(f), t, tangents)[1]  # noqa: E731
        return torch.func.jvp(directional, primals, tangents)

    for twice in (forward_over_reverse, reverse_over_forward, reverse_over_reverse, forward_over_forward):
        assert_close(twice(fused(sample)), twice(plain(sample)), **EXACT)


@every
def test_hessian(sample):
    tensors = sample.make()
    if tensors[0].is_complex():
        pytest.skip("torch.func.hessian is of real functions of real tensors")
    found = torch.func.hessian(energy(fused(sample)))(*tensors)
    assert_close(found, torch.func.hessian(energy(plain(sample)))(*tensors), **EXACT)
    assert found.abs().max() > 0


@every
def test_vmap(sample):
    many = [torch.stack(ts) for ts in zip(*(sample.make(seed) for seed in range(3)), strict=True)]
    f = fused(sample)
    expected = torch.stack([f(*(t[b] for t in many)) for b in range(3)])
    assert_close(torch.vmap(f)(*many), expected, **EXACT)
    last = [t.movedim(0, -1) for t in many]
    assert_close(torch.vmap(f, in_dims=-1, out_dims=-1)(*last), expected.movedim(0, -1), **EXACT)
    # The first has a batch dimension, the others have none.
    mixed = torch.vmap(f, in_dims=(0, *(None,) * (len(many) - 1)))(many[0], *(t[0] for t in many[1:]))
    assert_close(mixed, torch.stack([f(x, *(t[0] for t in many[1:])) for x in many[0]]), **EXACT)
    if len(many) > 1:
        mixed = torch.vmap(f, in_dims=(None, *(0,) * (len(many) - 1)))(many[0][0], *many[1:])
        expected = torch.stack([f(many[0][0], *(t[b] for t in many[1:])) for b in range(3)])
        assert_close(mixed, expected, **EXACT)
    two = torch.vmap(torch.vmap(f))(*(torch.stack([t, t + 1]) for t in many))
    assert_close(two[1], torch.stack([f(*(t[b] + 1 for t in many)) for b in range(3)]), **EXACT)


@every
def test_vmap_of_derivatives(sample):
    many = [torch.stack(ts) for ts in zip(*(sample.make(seed) for seed in range(2)), strict=True)]
    tangents = [torch.stack(ts) for ts in zip(*(sample.make(seed) for seed in (5, 6)), strict=True)]
    everything = tuple(range(len(many)))
    per_sample = torch.vmap(torch.func.grad(energy(fused(sample)), everything))(*many)
    single = torch.func.grad(energy(plain(sample)), everything)
    expected = [
        torch.stack(gs) for gs in zip(*(single(*(t[b] for t in many)) for b in range(2)), strict=True)
    ]
    assert_close(list(per_sample), expected, **EXACT)
    outside = torch.func.grad(lambda *t: torch.vmap(energy(fused(sample)))(*t).sum(), everything)(*many)
    assert_close(list(outside), expected, **EXACT)

    def directional(f):
        return torch.vmap(lambda t, d: torch.func.jvp(f, t, d)[1])(tuple(many), tuple(tangents))

    assert_close(directional(fused(sample)), directional(plain(sample)), **EXACT)
    for f in () if many[0].is_complex() else (torch.func.jacrev, torch.func.jacfwd):
        found = torch.vmap(f(fused(sample)))(*many)
        assert_close(found, torch.vmap(f(plain(sample)))(*many), **EXACT)


@every
def test_gradients_in_batches(sample):
    """torch.autograd.grad(is_grads_batched=True), and what is derived from it: right or refused, never another value."""
    tensors, results = sample.make(), []
    for f, batched in ((fused(sample), True), (plain(sample), False)):
        inputs = [t.clone().requires_grad_() for t in tensors]
        y = f(*inputs)
        generator = torch.Generator().manual_seed(1)
        grads = torch.randn(2, *y.shape, generator=generator, dtype=torch.float64).to(y.dtype)
        many = {"create_graph": True, "materialize_grads": True, "allow_unused": True}
        if batched:
            one = torch.autograd.grad(
                y, inputs, grads, is_grads_batched=True, retain_graph=True, allow_unused=True
            )
            try:
                found = torch.autograd.grad(y, inputs, grads, is_grads_batched=True, **many)
            except RuntimeError as error:
                assert "create_graph=False" in str(error)
                found = None
        else:
            each = [torch.autograd.grad(y, inputs, g, **many) for g in grads]
            one = found = [torch.stack(column) for column in zip(*each, strict=True)]
        one = [
            torch.zeros(2, *t.shape) if g is None else g.detach() for g, t in zip(one, inputs, strict=True)
        ]
        second = None
        if found is not None:
            total = sum(g.abs().square().sum() for g in found) + 0 * inputs[0].abs().sum()
            second = torch.autograd.grad(total, inputs, materialize_grads=True, allow_unused=True)
        results.append((one, second))
    assert_close(results[0][0], results[1][0], **EXACT)
    if results[0][1] is not None:
        assert_close(results[0][1], results[1][1], **EXACT)


# ---- What surrounds the operators ----


def _modules():
    graph = GRAPH
    yield "GCN", amstel.nn.GCN(3, 4, 2, dropout=0.0), lambda m, x: m(x, graph), (5, 3)
    yield "ConvLSTM", amstel.nn.ConvLSTM(2, 3), lambda m, x: m(x)[0], (2, 1, 2, 4, 3)
    yield "ConvGRUCell", amstel.nn.ConvGRUCell(2, 3), lambda m, x: m(x), (1, 2, 4, 3)
    yield "RoIPool", torch.nn.Sequential(torch.nn.Conv2d(2, 2, 1), _Pool()), lambda m, x: m(x), (2, 2, 4, 4)


class _Pool(torch.nn.Module):
    def forward(self, x):
        return ops.roi_pool(x, BOXES, 2)


@pytest.mark.parametrize("number", range(4))
def test_ensembles(number):
    """torch.func.functional_call over stacked parameters: the values and the gradients of each model on its own."""
    models = []
    for seed in range(3):
        torch.manual_seed(seed)
        _, model, call, shape = list(_modules())[number]
        models.append(model.double())
    x = torch.randn(shape, dtype=torch.float64)
    parameters, buffers = torch.func.stack_module_state(models)

    class Called(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            return call(self.model, x)

    called = Called(models[0])

    def loss(parameters, buffers, x):
        named = {f"model.{k}": v for k, v in {**parameters, **buffers}.items()}
        return torch.func.functional_call(called, named, (x,)).square().sum()

    values = torch.vmap(loss, in_dims=(0, 0, None))(parameters, buffers, x)
    grads = torch.vmap(torch.func.grad(loss), in_dims=(0, 0, None))(parameters, buffers, x)
    for k, model in enumerate(models):
        value = call(model, x).square().sum()
        assert_close(values[k], value, **EXACT)
        expected = torch.autograd.grad(value, list(model.parameters()))
        assert_close([grads[name][k] for name, _ in model.named_parameters()], list(expected), **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_forward_mode_in_short_types(dtype):
    for name in ("spmm-sym-1.0", "conv_lstm", "conv_gru_cell", "roi_pool", "rim_input"):
        sample = next(s for s in SAMPLES if s.name == name)
        primals, tangents = sample.make(0), sample.make(1)
        expected = torch.func.jvp(plain(sample), primals, tangents)[1]
        short = [tuple(t.to(dtype) for t in ts) for ts in (primals, tangents)]
        found = torch.func.jvp(fused(sample), *short)[1]
        assert found.dtype == dtype
        if name != "roi_pool":  # rounding may let another value be the largest
            assert_close(found.double(), expected, rtol=0.1, atol=0.1 if dtype != torch.float32 else 1e-4)


def test_a_graph_first_used_in_a_transform_is_as_good_as_new():
    graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 2], [1, 2, 0]]), edge_weight=torch.rand(3))
    x = torch.randn(3, 2)
    expected = torch.func.grad(lambda x: ops.spmm(graph, x).square().sum())(x)
    torch.vmap(lambda x: ops.spmm(graph, x))(x[None])
    pickle.loads(pickle.dumps(graph))
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(ops.spmm(graph, leaf).square().sum(), leaf)
    assert_close(found, expected)


@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr")
def test_what_graphs_are_made_of():
    """Inside of transforms: as it is, or refused by name where it differs from element to element."""
    x, layer = torch.randn(5, 2, dtype=torch.float64), amstel.nn.GCNConv(2, 3).double()
    parameters = {k: p.detach() for k, p in layer.named_parameters()}

    def call(parameters, x, graph=EDGES):
        return torch.func.functional_call(layer, parameters, (x, graph))

    sparse = x.to_sparse_csr()
    found = torch.func.jvp(lambda p: call(p, sparse, GRAPH), (parameters,), (parameters,))
    assert_close(found, torch.func.jvp(lambda p: call(p, x), (parameters,), (parameters,)), **EXACT)
    _, linear = torch.func.linearize(lambda x: call(parameters, x), x)
    assert_close(linear(x + 1), torch.func.jvp(lambda x: call(parameters, x), (x,), (x + 1,))[1], **EXACT)
    many = torch.stack([EDGES, EDGES.flip(0)])
    with pytest.raises(ValueError, match="`edge_index` must be the same for every element"):
        torch.vmap(lambda e: call(parameters, x, e))(many)
    with pytest.raises(ValueError, match="`segments` must be the same for every element"):
        torch.vmap(lambda s: ops.segment_reduce(x, s, 4))(many[:, 0, :5])
    loops = torch.tensor(0.7, dtype=torch.float64)
    found = [
        torch.func.jacrev(lambda l, o=o: o.spmm(GRAPH, x, self_loops=l))(loops) for o in (ops, reference)
    ]
    assert_close(*found, **EXACT)


def test_an_operator_without_a_derivative_says_so():
    grad, output = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3)
    with pytest.raises(RuntimeError, match="no derivative"):
        torch.ops.amstel.epilogue_grad(grad, output)
    with pytest.raises(RuntimeError, match="no derivative"):
        torch.func.jvp(lambda g: torch.ops.amstel.epilogue_grad(g, output), (grad.detach(),), (output,))


@pytest.mark.filterwarnings("error")
def test_a_raw_operator_has_every_derivative():
    """As they stand in an exported program."""
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    f = lambda x: torch.ops.amstel.bicubic_down(x, None, 2)  # noqa: E731
    torch.autograd.gradcheck(f, x, check_forward_ad=True)
    assert f(x).grad_fn is not None


@pytest.mark.parametrize(
    "call, sizes",
    [
        (
            lambda o, h, w: o.conv_lstm(2 * h[None], w, w, None, (h, h))[0],
            ((1, 1, 3, 3), (4, 1, 3, 3)),
        ),
        (lambda o, c: torch.cat(o.conv_lstm_cell(c.repeat(1, 4, 1, 1), c)), ((1, 2, 3, 3),)),
        (
            lambda o, h, w: o.conv_gru_cell(*(torch.conv2d(h, w, padding=1),) * 2, h),
            ((1, 2, 3, 3), (6, 2, 3, 3)),
        ),
        (lambda o, x: o.spmm(GRAPH, x, x[EDGES[0]].square().sum(1)), ((5, 2),)),
        (lambda o, x: o.roi_match([x], BOXES, 2 * x.flatten()[:4], 2, [1.0]), ((2, 1, 4, 4),)),
    ],
    ids=("conv_lstm", "conv_lstm_cell", "conv_gru_cell", "spmm", "roi_match"),
)
def test_inputs_that_depend_on_each_other(call, sizes):
    """Each gradient is of its own argument alone, when it is to be differentiated again too."""
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(s, generator=generator, dtype=torch.float64) for s in sizes]
    results = []
    for implementation in (ops, reference):
        leaves = [t.clone().requires_grad_() for t in tensors]
        y = call(implementation, *leaves)
        grads = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in grads), leaves)
        results.append([*grads, *second])
    assert_close(*results, **EXACT)
