"""What PyTorch's users expect of every module: device, dtype, reset, hooks, pruning, norms, lazy widths."""

import copy
import pickle

import networkx
import numpy as np
import pytest
import torch
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm

import amstel
from amstel import nn
from amstel.nn.spectral import _one_basis, _solve
from amstel.nn.unet import activated
from tests.module_samples import Estimate

INDEX = torch.tensor([[0, 1, 2, 1], [1, 2, 0, 0]])
GRAPH = amstel.Graph.from_edge_index(INDEX, 3)
RING = amstel.Graph.from_networkx(networkx.cycle_graph(6))
SEQ = torch.randn(3, 2, 4, 6, 6, generator=torch.Generator().manual_seed(0))

# name: (constructor, inputs)
MODULES = {
    "GCNConv": (lambda **o: nn.GCNConv(4, 3, self_weight=True, **o), (torch.ones(3, 4), GRAPH)),
    "ChebConv": (lambda **o: nn.ChebConv(4, 3, K=2, **o), (torch.ones(3, 4), GRAPH)),
    "SpectralConv": (lambda **o: nn.SpectralConv(4, 3, modes=3, **o), (torch.ones(6, 4), RING)),
    "GCN": (lambda **o: nn.GCN(4, 5, 3, bias=True, dropout=0.0, **o), (torch.ones(3, 4), GRAPH)),
    "ConvLSTMCell": (
        lambda **o: nn.ConvLSTMCell(4, 3, peephole=True, **o),
        (SEQ[0], (SEQ[0][:, :3], SEQ[0][:, 1:])),
    ),
    "ConvLSTM": (lambda **o: nn.ConvLSTM(4, 3, num_layers=2, bidirectional=True, peephole=True, **o), (SEQ,)),
    "ConvGRUCell": (lambda **o: nn.ConvGRUCell(4, 3, kernel_size=3, **o), (SEQ[0],)),
}
# And those that take no device and dtype, or a physics.
WITH_WEIGHTS = {
    **MODULES,
    "RIM": (lambda: Estimate(nn.RIM(1, 8, steps=2, depth=2)), (SEQ[0][:, :1],)),
    "RIM of a U-Net": (
        lambda: Estimate(nn.RIM(1, 4, steps=2, network="unet")),
        (torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)),),
    ),
    "GraphClassifier alone": (
        lambda: nn.GraphClassifier(4, 8, 3, 2, propagate=False, dropout=0.0),
        (torch.rand(3, 4, generator=torch.Generator().manual_seed(0)), GRAPH),
    ),
}


def first(result):
    while not isinstance(result, torch.Tensor):
        result = result[0]
    return result


@pytest.mark.parametrize("name", MODULES)
def test_device_dtype_and_reset(name):
    make, (x, *rest) = MODULES[name]
    torch.manual_seed(0)
    plain = make()
    torch.manual_seed(0)
    double = make(device="cpu", dtype=torch.float64)
    assert all(p.dtype == torch.float64 for p in double.parameters())
    wide = [tuple(t.double() for t in r) if isinstance(r, tuple) else r for r in rest]
    assert first(double(x.double(), *wide)).dtype == torch.float64
    meta = make(device="meta")
    assert all(p.is_meta for p in meta.parameters())
    assert {k: v.shape for k, v in meta.state_dict().items()} == {
        k: v.shape for k, v in plain.state_dict().items()
    }
    meta.to_empty(device="cpu")
    torch.manual_seed(0)
    meta.reset_parameters()
    torch.testing.assert_close(meta.state_dict(), plain.state_dict())
    assert torch.equal(first(meta(x, *rest)), first(plain(x, *rest)))
    with torch.device("meta"):
        assert all(p.is_meta for p in make().parameters())
    assert "4" in repr(plain) and "3" in repr(plain) and plain.extra_repr()
    for other in (copy.deepcopy(plain), pickle.loads(pickle.dumps(plain))):
        assert torch.equal(first(other(x, *rest)), first(plain(x, *rest)))


MODELS = {
    "RIM": lambda **o: nn.RIM(1, 8, 2, **o),
    "RIM of a U-Net": lambda **o: nn.RIM(1, 4, 2, network="unet", **o),
    "SINT": lambda **o: nn.SINT(output_size=3, **o),
    "SmallBackbone": lambda **o: nn.SmallBackbone(**o),
    "EfficientNetLite": lambda **o: nn.EfficientNetLite(**o),
    **{
        name: lambda name=name, **o: getattr(nn, name)(
            4, 3, num_classes=2, feature_size=(2, 2), head_channels=5, **o
        )
        for name in (
            "FrameClassifier",
            "LSTMClassifier",
            "ALSTM",
            "ConvLSTMClassifier",
            "ConvALSTM",
            "VideoLSTM",
        )
    },
}


@pytest.mark.parametrize("name", MODELS)
def test_models_are_made_where_and_as_they_are_asked_for(name):
    make = MODELS[name]
    torch.manual_seed(0)
    plain = make()
    meta = make(device="meta")
    assert all(t.is_meta for t in (*meta.parameters(), *meta.buffers()))
    assert [(k, v.shape) for k, v in meta.state_dict().items()] == [
        (k, v.shape) for k, v in plain.state_dict().items()
    ]
    assert all(p.dtype == torch.float64 for p in make(dtype=torch.float64).parameters())
    expected = {k: v.clone() for k, v in plain.state_dict().items()}
    with torch.no_grad():
        for p in plain.parameters():
            p.fill_(7)
    torch.manual_seed(0)
    plain.reset_parameters()
    torch.testing.assert_close(dict(plain.state_dict()), expected)
    assert repr(copy.deepcopy(plain)) == repr(pickle.loads(pickle.dumps(plain))) == repr(plain)


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_hooks_run_on_every_module_with_weights(name):
    make, inputs = WITH_WEIGHTS[name]
    module = make()
    owners = {n: m for n, m in module.named_modules() if list(m.parameters(recurse=False))}
    seen = []
    for n, m in owners.items():
        m.register_forward_pre_hook(lambda m, args, n=n: seen.append(("pre", n)))
        m.register_forward_hook(lambda m, args, out, n=n: seen.append(("forward", n)))
        m.register_full_backward_hook(lambda m, gi, go, n=n: seen.append(("backward", n)))
    x = inputs[0].clone().requires_grad_()
    first(module(x, *inputs[1:])).sum().backward()
    assert {(k, n) for k in ("pre", "forward", "backward") for n in owners} == set(seen)


def weights_of(module):
    for m in module.modules():
        for n, p in list(m.named_parameters(recurse=False)):
            if p.dim() >= 2 and n.startswith("weight"):
                yield m, n


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_pruning_and_both_spectral_norms_reach_the_result(name):
    make, inputs = WITH_WEIGHTS[name]

    def pruned(m, n):
        prune.l1_unstructured(m, n, amount=0.5)

    for change in (pruned, spectral_norm, parametrizations.spectral_norm):
        torch.manual_seed(0)
        module = make().eval()
        before = first(module(*inputs))
        for m, n in list(weights_of(module)):
            change(m, n)
        module.train()
        y = first(module(*inputs))
        assert not torch.allclose(y, before)
        y.sum().backward()  # the gradient goes to the original weight
        originals = [p for n, p in module.named_parameters() if "orig" in n]
        assert originals and all(p.grad is not None for p in originals)
        with torch.no_grad():
            for p in originals:
                p.mul_(0)
        if change is pruned:  # weights are made anew in every forward
            assert not torch.allclose(first(module(*inputs)), y)


def test_a_parametrization_is_evaluated_in_every_forward():
    class Double(torch.nn.Module):
        def forward(self, w):
            return 2 * w

    lstm = nn.ConvLSTM(4, 3)
    doubled = copy.deepcopy(lstm)
    parametrize.register_parametrization(doubled.layers[0], "weight_ih", Double())
    with torch.no_grad():
        lstm.layers[0].weight_ih.mul_(2)
    assert torch.equal(first(doubled(SEQ)), first(lstm(SEQ)))


STATE = {
    "GCNConv": ["weight", "weight_self", "bias"],
    "ChebConv": ["weight", "bias"],
    "SpectralConv": ["weight", "bias"],
    "GCN": [f"layers.{k}.{n}" for k in range(2) for n in ("weight", "bias")],
    "ConvLSTMCell": ["weight_ih", "weight_hh", "bias", "peephole"],
    "ConvLSTM": [f"layers.{k}.{n}" for k in range(4) for n in ("weight_ih", "weight_hh", "bias", "peephole")],
    "ConvGRUCell": ["weight_ih", "weight_hh", "bias_ih", "bias_hh"],
}


@pytest.mark.parametrize("name", MODULES)
def test_the_names_in_a_state_dict_stay(name):
    assert list(MODULES[name][0]().state_dict()) == STATE[name]


@pytest.mark.parametrize(
    "make",
    [
        lambda n: nn.GCNConv(n, 2, self_weight=True),
        lambda n: nn.ChebConv(n, 2, K=1),
        lambda n: nn.GCN(n, 4, 2, dropout=0.0),
        lambda n: nn.SGConv(n, 2),
    ],
)
def test_an_input_width_that_waits(make):
    x = torch.randn(3, 5)
    lazy = make(-1)
    assert lazy.in_channels == -1
    copy.deepcopy(lazy), pickle.loads(pickle.dumps(lazy)), repr(lazy)
    optimizer = torch.optim.SGD(lazy.parameters(), lr=0.1)
    y = lazy(x, GRAPH)
    plain = make(5)
    assert type(lazy) is type(plain) and lazy.in_channels == 5
    assert {k: v.shape for k, v in lazy.state_dict().items()} == {
        k: v.shape for k, v in plain.state_dict().items()
    }
    y.sum().backward()
    optimizer.step()
    loaded = make(-1)
    loaded.load_state_dict(plain.state_dict())
    assert torch.equal(loaded(x, GRAPH), plain(x, GRAPH)) and loaded.in_channels == 5
    featureless = make(-1)
    featureless(None, GRAPH)
    assert featureless.in_channels == 3
    with pytest.raises(ValueError, match="`x` must be"):
        lazy(torch.randn(3, 4), GRAPH)


class Gated(nn.GCNConv):
    """A user's: another order of arguments, a weight of its own, other first values."""

    def __init__(self, out_channels, in_channels, norm="row"):
        super().__init__(in_channels, out_channels, norm=norm, self_weight=True)
        self.weight_gate = torch.nn.Parameter(torch.full((out_channels,), 0.5))

    def reset_parameters(self):
        super().reset_parameters()
        torch.nn.init.constant_(self.weight, 0.25)

    def forward(self, x, graph):
        return self.weight_gate * super().forward(x, graph)


@pytest.mark.parametrize("base", [nn.GCNConv, nn.ChebConv, nn.SGConv, nn.SpectralConv])
def test_an_input_width_that_waits_in_a_users_layer(base):
    x, graph = torch.randn(3, 5), amstel.Graph.from_edge_index(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
    rest = () if base in (nn.GCNConv, nn.SGConv) else (2,)

    class Own(base):
        def forward(self, x, graph):
            return super().forward(x, graph).tanh()

    lazy, plain = Own(-1, 4, *rest), base(5, 4, *rest)
    assert isinstance(lazy, Own)
    lazy.load_state_dict(plain.state_dict())
    assert torch.equal(lazy(x, graph), plain(x, graph).tanh())
    assert type(lazy) is Own and lazy.in_channels == 5 and not lazy._forward_pre_hooks


def test_a_users_layer_that_waits_starts_as_one_that_does_not():
    x = torch.randn(3, 5)
    for lazy in (Gated(4, -1), copy.deepcopy(Gated(4, -1)), pickle.loads(pickle.dumps(Gated(4, -1)))):
        torch.manual_seed(0)
        y = lazy(x, GRAPH)
        torch.manual_seed(0)
        plain = Gated(4, 5)
        assert type(lazy) is Gated and torch.equal(y, plain(x, GRAPH))
        assert torch.equal(lazy.weight, torch.full((5, 4), 0.25)) and lazy.weight_gate.eq(0.5).all()
        assert lazy.weight_self.std() > 0 and lazy.bias.eq(0).all()
    for made in (-1, np.int64(-1)):
        assert nn.GCNConv(in_channels=made, out_channels=2).in_channels == -1
    for bad in (0, -2, True, -1.0):
        with pytest.raises((ValueError, TypeError), match="`in_channels` must be"):
            Gated(4, bad)


@pytest.mark.parametrize(
    "make",
    [lambda: nn.GCNConv(4, 3, self_weight=True), lambda: nn.ChebConv(4, 3, K=2), lambda: nn.GCN(4, 5, 3)],
)
def test_edge_weights_learn_through_the_layers(make):
    layer = make().double().eval()
    x = torch.randn(3, 4, dtype=torch.float64)
    w = torch.rand(4, dtype=torch.float64).add(0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: layer(x, GRAPH, w), w)
    own = amstel.Graph.from_edge_index(INDEX, 3, w.detach())
    torch.testing.assert_close(layer(x, own), layer(x, GRAPH, w))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_stream_keeps_the_bits_of_its_state(dtype):
    torch.manual_seed(0)
    frames = torch.randn(24, 1, 4, 6, 6)
    lstm = nn.ConvLSTM(4, 3).to(dtype)
    # A forget gate near 1, so that c remembers.
    with torch.no_grad():
        lstm.layers[0].bias.chunk(4)[1].fill_(4)
    _, (_, whole) = lstm(frames.to(dtype))
    kept = nn.ConvLSTM(4, 3, state_dtype=torch.float32).to(dtype)
    kept.load_state_dict(lstm.state_dict())
    _, (_, exact) = kept(frames.to(dtype))
    assert exact.dtype == torch.float32 and whole.dtype == dtype
    errors = {}
    for model in (lstm, kept):
        state = None
        for frame in frames.to(dtype):
            _, state = model(frame[None], state)
        assert state[1].dtype == (torch.float32 if model is kept else dtype)
        errors[model] = float((state[1].float() - exact).abs().max())
    assert errors[kept] == 0 and errors[lstm] > 0


@pytest.mark.parametrize("threads", [1, 2])
def test_eigenvectors_follow_a_rule(threads):
    star = networkx.star_graph(9)
    expected_values, expected = nn.fourier_basis(amstel.Graph.from_networkx(star))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        values, vectors = nn.fourier_basis(amstel.Graph.from_networkx(star))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(values, expected_values) and torch.equal(vectors, expected)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(10), atol=1e-5, rtol=0)
    # Another basis of the same eigenspaces, as another solver may give it, ends as the same one.
    exact, turned = _solve(amstel.Graph.from_networkx(star))
    turn = torch.linalg.qr(
        torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ).Q
    turned[:, 1:9] = turned[:, 1:9] @ turn
    turned[:, [0, 9]] *= -1
    torch.testing.assert_close(_one_basis(exact, turned).float(), vectors, atol=1e-6, rtol=0)


def test_a_basis_is_as_precise_as_the_features_and_nobodys_to_change():
    graph = amstel.Graph.from_networkx(networkx.path_graph(37))
    x = torch.randn(37, 3, dtype=torch.float64)
    assert torch.allclose(nn.inverse_graph_fourier(nn.graph_fourier(x, graph), graph), x, rtol=0, atol=1e-12)
    values, vectors = nn.fourier_basis(graph)
    kept = vectors.clone()
    values.zero_(), vectors.numpy().fill(7)
    assert torch.equal(nn.fourier_basis(graph)[1], kept)
    assert torch.equal(nn.graph_fourier(x.float(), graph), kept.T @ x.float())


def test_a_state_from_inference_mode_trains():
    lstm = nn.ConvLSTM(4, 3, stateful=True)
    with torch.inference_mode():
        expected = lstm(SEQ)[1]
    y, _ = lstm(SEQ)
    y.sum().backward()
    state = tuple(t.clone() for t in expected)
    assert torch.equal(y, nn.ConvLSTM.forward(lstm, SEQ, state)[0])


@pytest.mark.parametrize("call", ["spectral", "links"])
def test_a_graph_that_inference_mode_saw_first_trains(call):
    """What is kept with the Graph is the same as where no mode was on."""
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    index = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 4], [1, 0, 2, 1, 3, 2, 4, 3]])
    model = nn.SpectralConv(4, 3, modes=3) if call == "spectral" else nn.GAE(4, 3, 2).eval().loss
    found = []
    for first in (torch.inference_mode, torch.no_grad):
        graph = amstel.Graph.from_edge_index(index)
        with first():
            expected = model(x, graph)
        leaf = x.clone().requires_grad_()
        y = model(leaf, graph)
        assert torch.equal(y, expected)
        found += torch.autograd.grad(y.sum(), leaf)
    assert torch.equal(*found)


@pytest.mark.parametrize("network", ["conv", "unet"])
def test_hooks_of_every_kind_see_what_a_convolution_gave(network):
    model = Estimate(nn.RIM(1, 4, steps=1, network=network))
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    y, kept = torch.rand(1, 1, 16, 16), []
    hooks = [
        m.register_forward_hook(lambda m, args, out: kept.append((out, out.clone()))) for m in convolutions
    ]
    expected = model(y)
    assert kept and all(torch.equal(*pair) for pair in kept)
    for hook in hooks:
        hook.remove()
    seen = []
    for register in (
        lambda f: [m.register_full_backward_pre_hook(f) for m in convolutions],
        lambda f: [torch.nn.modules.module.register_module_full_backward_hook(lambda *given: f())],
        lambda f: [torch.nn.modules.module.register_module_full_backward_pre_hook(lambda *given: f())],
    ):
        hooks = register(lambda *given: seen.append(1))
        try:
            found = model(y)
            found.sum().backward()
        finally:
            for hook in hooks:
                hook.remove()
        assert seen
        torch.testing.assert_close(found, expected)
        seen.clear()


def test_what_a_module_in_place_of_a_convolution_hands_on_stays():
    """relu(conv(x)) is in place, but not where conv may hand on its very input, or keep its output."""
    x = torch.randn(1, 4, 8, 8)
    kept = x.clone()
    assert torch.equal(activated(torch.nn.Identity(), x), kept.relu()) and torch.equal(x, kept)


def test_a_first_convolution_with_a_stride_is_no_inner_one():
    rim = nn.RIM(3, 6, 2, kernel_sizes=(3, 3, 3), stride=2)
    assert rim.conv1(torch.rand(1, 6, 16, 16)).shape == (1, 6, 8, 8)
    assert rim(torch.rand(1, 3, 16, 16), amstel.inverse.Denoising(0.1))[-1].shape == (1, 3, 16, 16)


def test_a_stateful_layer_is_one_program():
    lstm = nn.ConvLSTM(4, 3, stateful=True)
    expected = [lstm(SEQ)[0] for _ in range(2)]
    lstm.reset_state()
    run = torch.compile(lstm, backend="eager", fullgraph=True)
    assert all(torch.equal(run(SEQ)[0], y) for y in expected)
