"""amstel.nn.RIM: its recurrence, ablations, memory, and what it composes with."""

import itertools
import json

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, pixel_shuffle, relu

import amstel
from amstel import inverse, weights
from amstel.nn import RIM, ConvGRUCell
from tests import processes

F32, F64 = torch.float32, torch.float64
MEMORY = ["store", "recompute", "chunked", 2, 3]


@pytest.fixture(autouse=True)
def _small(one_thread):
    torch.manual_seed(0)


def rim(*args, features=6, steps=4, dtype=F64, **options):
    """With weights large enough that every part of the network matters."""
    model = RIM(*args, features=features, steps=steps, **options)
    for k, p in enumerate(model.parameters()):
        p.data = torch.randn(p.shape, generator=torch.Generator().manual_seed(k)) * 0.6 / p[0].numel() ** 0.5
    return model.to(dtype)


def image(*shape, dtype=F64, seed=0):
    return torch.rand(shape, dtype=F64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def gru(cell, x, h):
    """By hand, 1x1."""
    x_r, x_z, x_n = conv2d(x, cell.weight_ih, cell.bias_ih).chunk(3, 1)
    h_r, h_z, h_n = conv2d(h, cell.weight_hh, cell.bias_hh).chunk(3, 1)
    z = torch.sigmoid(x_z + h_z)
    return (1 - z) * torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n) + z * h


def plain(model, x, gradient, steps, link="identity", use_estimate=True, recurrent=True, detach=False):
    """The recurrence of the paper, written out."""
    eta = torch.logit(x.clamp(0.01, 0.99)) if link == "logistic" else x
    size = [-(-n // model.stride) for n in x.shape[2:]]
    h1 = h2 = torch.zeros(len(x), model.features, *size, dtype=x.dtype)
    estimates = []
    for _ in range(steps):
        image = torch.sigmoid(eta) if link == "logistic" else eta
        g = gradient(image) * (image * (1 - image) if link == "logistic" else 1)
        g = g.detach() if detach else g
        given = torch.cat([eta, g], 1) if use_estimate else g
        a = relu(model.conv1(given))
        h1 = gru(model.gru1, a, h1) if recurrent else model.gru1(a)
        a = relu(model.conv2(h1))
        h2 = gru(model.gru2, a, h2) if recurrent else model.gru2(a)
        update = model.conv3(h2)
        if model.stride > 1:
            update = pixel_shuffle(update, model.stride)[:, :, : x.shape[2], : x.shape[3]]
        eta = eta + update
        estimates.append(torch.sigmoid(eta) if link == "logistic" else eta)
    return estimates


def close(a, b, tolerance=1e-11):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.dtype == y.dtype
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


def gradients(estimates, leaves):
    loss = sum((e.abs() ** 2).sum() * (k + 1) for k, e in enumerate(estimates))
    return torch.autograd.grad(loss, leaves)


OPTIONS = [
    {}, {"link": "logistic"}, {"detach_gradient": True}, {"use_estimate": False}, {"recurrent": False}, {"stride": 2},
    {"link": "logistic", "detach_gradient": True, "use_estimate": False}, {"recurrent": False, "stride": 2},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_values_and_gradients(channels, options):
    model, physics = rim(channels, **options), inverse.Inpainting(torch.rand(7, 9) > 0.3, 0.5)
    y = image(2, channels, 7, 9).requires_grad_()
    names = ("link", "use_estimate", "recurrent")
    how = {k: v for k, v in options.items() if k in names} | {"detach": "detach_gradient" in options}
    found = model(y, physics)
    expected = plain(model, physics.adjoint(y), lambda x: physics.gradient(x, y), 4, **how)
    close(found, expected)
    leaves = [y, *model.parameters()]
    close(gradients(found, leaves), gradients(expected, leaves))
    given = image(2, channels, 7, 9, seed=1)
    found = model(y, physics, steps=2, initial=given)
    close(found, plain(model, given, lambda x: physics.gradient(x, y), 2, **how))


def test_float32_goes_through_winograd():
    model, physics = rim(features=16, dtype=F32), inverse.Denoising(0.5)
    y = image(2, 1, 13, 10, dtype=F32)
    wide = rim(features=16)
    expected = plain(wide, y.double(), lambda x: physics.gradient(x, y.double()), 4)
    slopes = gradients(expected, list(wide.parameters()))
    for layout in (torch.contiguous_format, torch.channels_last):
        found = model.to(memory_format=layout)(y, physics)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)
        for a, b in zip(gradients(found, list(model.parameters())), slopes, strict=True):
            assert float((a - b).norm() / b.norm()) < 1e-4


@pytest.mark.parametrize("link", ["identity", "logistic"])
def test_any_physics(link):
    """One network; with .prepare and .network_input, with .prepare alone, and with .adjoint and .gradient alone."""

    class Plain:
        def __init__(self, model):
            self.adjoint, self.gradient = model.adjoint, model.gradient

    class Prepared(Plain):
        def prepare(self, y):
            outer = self

            class Found:
                def gradient(self, x):
                    return outer.gradient(x, y)

            return Found()

    model = rim(link=link)
    x = image(2, 1, 8, 12)
    for physics in (inverse.Denoising(0.3), inverse.SuperResolution(2, 0.4), inverse.Deblurring(image(3, 3) / 9, 0.5),
                    inverse.RandomProjection(torch.randn(20, 96, dtype=F64) / 5, 0.6, image_shape=(1, 8, 12))):  # fmt: skip
        y = physics(x)
        expected = plain(model, physics.adjoint(y), lambda x: physics.gradient(x, y), 4, link)  # noqa: B023
        for p in (physics, Plain(physics), Prepared(physics)):
            close(model(y, p), expected, 1e-9)


@pytest.mark.parametrize("link", ["identity", "logistic"])
def test_complex_images_are_two_channels(link):
    """Real and imaginary part each go through the link."""
    maps = torch.randn(3, 8, 10, dtype=torch.complex128)
    physics, model = inverse.MRI(torch.rand(10) > 0.4, maps, 0.7), rim(2, link=link)
    x = torch.complex(image(2, 8, 10), image(2, 8, 10, seed=1))
    y = physics(x)

    def gradient(x):
        found = physics.gradient(torch.complex(x[:, 0], x[:, 1]), y)
        return torch.stack([found.real, found.imag], 1)

    start = physics.adjoint(y)
    expected = plain(model, torch.stack([start.real, start.imag], 1), gradient, 4, link)
    expected = [torch.complex(e[:, 0], e[:, 1]) for e in expected]

    class Plain:
        adjoint, gradient = physics.adjoint, physics.gradient

    for p in (physics, Plain()):
        close(model(y, p), expected, 1e-9)
    parameters = list(model.parameters())
    close(gradients(model(y, physics), parameters), gradients(expected, parameters), 1e-8)


def test_logistic_link_stays_inside():
    model = rim(link="logistic", steps=3)
    y = torch.tensor([-5.0, 0.0, 0.5, 1.0, 7.0]).to(F64).view(1, 1, 1, 5)
    for e in model(y, inverse.Denoising(0.1)):
        assert bool(((e > 0) & (e < 1)).all())


def test_gradients_of_gradients():
    model, physics = rim(features=3, steps=2), inverse.Denoising(0.8)
    y = image(1, 1, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: model(y, physics)[-1], y)
    assert torch.autograd.gradgradcheck(lambda y: model(y, physics)[-1], y)


# ---- Memory ----


@pytest.mark.parametrize(
    "options", [{}, {"link": "logistic"}, {"detach_gradient": True}, {"recurrent": False}], ids=str
)
def test_memory_does_not_change_a_bit(options):
    physics = inverse.Denoising(torch.tensor([0.3, 0.6]))
    for dtype, steps in ((F32, 5), (F64, 1)):
        results = []
        for memory in MEMORY:
            model = rim(features=16, dtype=dtype, memory=memory, **options)
            y = image(2, 1, 9, 8, dtype=dtype).requires_grad_()
            estimates = model(y, physics, steps=steps)
            results.append([*estimates, *gradients(estimates, [y, *model.parameters()])])
        for memory, result in zip(MEMORY, results, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True)), memory


class Unfused(nn.Module):
    """The same network as one writes it in PyTorch."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, y, physics):
        return plain(self.model, y, lambda x: physics.gradient(x, y), self.model.steps)


def kept_bytes(function):
    """Of all that is kept for the gradient, each storage once."""
    kept = {}

    def pack(t):
        kept[t.untyped_storage().data_ptr()] = t
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = function()
    held = {e.untyped_storage().data_ptr(): e for e in out} | kept
    return sum(t.untyped_storage().nbytes() for t in held.values())


def peak_bytes(function):
    """Of torch's allocator, beyond what is there before."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        function()
    found = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(itertools.accumulate(e.nbytes() for e in sorted(found, key=lambda e: e.start_ns())))


@pytest.mark.parametrize("memory", MEMORY)
def test_memory_under_torch_func(memory):
    model, y = rim(features=8, steps=3, memory=memory), torch.rand(1, 1, 8, 8, dtype=F64)
    physics = inverse.Denoising(sigma=0.1)
    names, weights = zip(*model.named_parameters(), strict=True)

    def loss(*w):
        return torch.func.functional_call(model, dict(zip(names, w, strict=True)), (y, physics))[-1].sum()

    found = torch.func.grad(loss, argnums=tuple(range(len(weights))))(*(w.detach() for w in weights))
    torch.testing.assert_close(found, torch.autograd.grad(loss(*weights), weights))


def test_memory_of_sixteen_steps():
    """64 features: two states and η a step, an eighth of what unfused gates keep, and sqrt(T) of it in chunks."""
    physics, y = inverse.Denoising(0.1), image(1, 1, 24, 24, dtype=F32)
    made = {}
    for memory in ("store", "recompute", "chunked"):
        model = RIM(features=64, steps=16, memory=memory)
        made[memory] = kept_bytes(lambda: model(y, physics))  # noqa: B023
    unfused = kept_bytes(lambda: Unfused(RIM(features=64, steps=16))(y, physics))
    state = 4 * y.numel() * 64
    assert made["recompute"] <= 16 * (2 * state + 3 * 4 * y.numel())
    assert made["recompute"] <= unfused / 8
    assert made["chunked"] <= made["recompute"] / 3
    assert made["store"] <= 0.75 * unfused


def test_a_training_step_takes_little_more_than_two_states_a_step():
    """At its peak, with all that the backward pass holds for a moment; "store" takes 6.3 of them."""
    physics, y = inverse.Denoising(0.1), image(1, 1, 64, 64, dtype=F32)
    two = 10 * 2 * 4 * y.numel() * 64
    for memory, most in (("recompute", 1.3), ("chunked", 1.0)):
        model = RIM(features=64, steps=10, memory=memory)
        step = lambda: sum(e.square().mean() for e in model(y, physics)).backward()  # noqa: B023, E731
        assert peak_bytes(step) <= most * two, memory


# ---- Composition ----


@pytest.mark.parametrize("memory, dynamic", [("store", True), ("recompute", False)])
def test_compile_gives_the_same(memory, dynamic):
    torch._dynamo.reset()
    model = rim(features=8, steps=2, dtype=F32, memory=memory)
    physics = inverse.Denoising(0.5)
    # Inductor of torch 2.13 cannot order the strides of convolutions of symbolic sizes ("truth value of Relational").
    backend = "aot_eager" if dynamic else "inductor"
    compiled = torch.compile(lambda y: model(y, physics), fullgraph=True, dynamic=dynamic, backend=backend)
    for size in ((6, 7), (9, 8)) if dynamic else ((6, 7),):
        y, parameters = image(2, 1, *size, dtype=F32), list(model.parameters())
        results = []
        for f in (compiled, lambda y: model(y, physics)):
            estimates = f(y)
            results.append([*estimates, *gradients(estimates, parameters)])
        close(*results, 1e-4)


def test_export():
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.physics = rim(dtype=F32, memory="recompute"), inverse.Denoising(0.5)

        def forward(self, y):
            return self.model(y, self.physics)[-1]

    whole, y = Whole(), image(2, 1, 7, 6, dtype=F32)
    program = torch.export.export(whole, (y,))
    assert [n for n in program.graph.nodes if "amstel" in str(n.target)]
    torch.testing.assert_close(program.module()(y), whole(y), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("memory", ["store", "recompute", "chunked"])
def test_autocast(memory):
    """The network in bfloat16; η, the physics and the gradients of the weights stay float32."""
    model, physics = rim(features=16, dtype=F32, memory=memory), inverse.Denoising(0.5)
    y, parameters = image(2, 1, 12, 12, dtype=F32), list(model.parameters())
    exact = model(y, physics)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(y, physics)
    assert all(e.dtype == F32 for e in found)
    torch.testing.assert_close(found[-1], exact[-1], rtol=0.05, atol=0.05 * float(exact[-1].abs().max()))
    assert not torch.equal(found[-1], exact[-1])
    for a, b in zip(gradients(found, parameters), gradients(exact, parameters), strict=True):
        assert a.dtype == F32 and float((a - b).norm() / b.norm()) < 0.15


def test_bfloat16_throughout():
    model = rim(features=16, dtype=torch.bfloat16)
    assert model(image(1, 1, 8, 8, dtype=torch.bfloat16), inverse.Denoising(0.5))[-1].dtype == torch.bfloat16


class _Trained(nn.Module):
    """One forward, as DistributedDataParallel wants it."""

    def __init__(self, memory):
        super().__init__()
        self.model = rim(dtype=F32, memory=memory)

    def forward(self, y):
        return sum(e.square().mean() for e in self.model(y, inverse.Denoising(0.5)))


def _process(rank, world, folder):
    for memory in ("store", "recompute", "chunked"):
        model = nn.parallel.DistributedDataParallel(_Trained(memory))
        model(image(4, 1, 6, 7, dtype=F32)[rank::world]).backward()
        torch.save([p.grad for p in model.parameters()], f"{folder}/{rank}-{memory}.pt")


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(tmp_path):
    alone = _Trained("store")
    alone(image(4, 1, 6, 7, dtype=F32)).backward()
    processes.run(_process, tmp_path)
    for rank, memory in itertools.product(range(2), ("store", "recompute", "chunked")):
        for p, found in zip(alone.parameters(), torch.load(tmp_path / f"{rank}-{memory}.pt"), strict=True):
            torch.testing.assert_close(found, p.grad, rtol=1e-4, atol=1e-6)


# ---- The module ----


def test_parameters_and_options():
    names = [f"conv{k}.{n}" for k in (1, 2, 3) for n in ("weight", "bias")]
    cell = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    names += [f"gru{k}.{n}" for k in (1, 2) for n in cell]
    model = RIM()
    assert sorted(model.state_dict()) == sorted(names)
    assert model.conv1.weight.shape == (64, 2, 5, 5) and model.conv3.weight.shape == (1, 64, 3, 3)
    count = lambda m: sum(p.numel() for p in m.parameters() if p.dim() > 1)  # noqa: E731
    for size in (1, 3):
        assert count(RIM(gru_kernel_size=size)) == count(RIM(gru_kernel_size=size, recurrent=False))
    model = RIM(
        3,
        5,
        7,
        "logistic",
        True,
        stride=2,
        memory="chunked",
        dilation=2,
        padding_mode="replicate",
        reset="before",
    )
    again = RIM(**json.loads(json.dumps(model.options)))
    assert str(again) == str(model) and again.options == model.options
    again.load_state_dict(model.state_dict())


def test_other_kernels():
    options = dict(
        kernel_sizes=(3, 5, 1), gru_kernel_size=3, dilation=2, padding_mode="replicate", state_relu=True
    )
    model, y = rim(**options), image(2, 1, 12, 11)
    update, (h1, h2) = model.step(torch.cat([y, y], 1))
    assert update.shape == y.shape and h1.shape == h2.shape == (2, 6, 12, 11)
    a = model.gru1(relu(model.conv1(torch.cat([y, y], 1))))
    b = model.gru2(relu(model.conv2(relu(a))))
    close([update, h1, h2], [model.conv3(relu(b)), a, b])


def test_a_new_network_starts_gently():
    torch.manual_seed(0)
    y = torch.rand(1, 1, 16, 16)
    for e in RIM()(y, inverse.Denoising(25 / 255)):
        assert float((e - y).detach().abs().max()) < 0.5


def test_pretrained(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    model = rim(2, features=5, stride=2, dtype=F32)
    weights.save(tmp_path / "rim_mri.safetensors", model.state_dict(), {"options": json.dumps(model.options)})
    found = RIM.pretrained("mri")
    assert not found.training and found.options == model.options
    assert all(torch.equal(p, q) for p, q in zip(found.parameters(), model.parameters(), strict=True))
    assert found.trained_steps == model.steps and found.trained_sigma is None
    said = {"options": json.dumps(model.options), "trained_steps": "4"}
    said["settings"] = json.dumps({"task": "gray", "sigma": [0, 51]})
    weights.save(tmp_path / "rim_gray_unet.safetensors", model.state_dict(), said)
    found = RIM.pretrained("gray")
    assert found.trained_steps == 4 and found.trained_sigma == (0, 0.2)
    with pytest.raises(ValueError, match="`name` must be one of rim_gray_unet, rim_mri, got 'rim_sr'"):
        RIM.pretrained("sr")


Y, DENOISE = torch.zeros(2, 1, 6, 7), inverse.Denoising(0.5)


@pytest.mark.parametrize("error, message, call", [
    (ValueError, "`channels` must be an integer >= 1, got 0", lambda: RIM(0)),
    (ValueError, "`features`", lambda: RIM(1, 2.5)),
    (ValueError, "`steps` must be an integer >= 1, got 0", lambda: RIM(steps=0)),
    (ValueError, "`stride`", lambda: RIM(stride=True)),
    (ValueError, "`link` must be 'identity' or 'logistic', got 'exp'", lambda: RIM(link="exp")),
    (ValueError, "`memory` must be 'store', 'recompute', 'chunked' or an integer >= 1, got 'all'", lambda: RIM(memory="all")),
    (ValueError, "`memory`", lambda: RIM(memory=0)),
    (ValueError, "`kernel_sizes` must be three odd numbers", lambda: RIM(kernel_sizes=(5, 4, 3))),
    (ValueError, "`kernel_sizes`", lambda: RIM(kernel_sizes=(5, 3))),
    (ValueError, "`gru_kernel_size`", lambda: RIM(gru_kernel_size=0)),
    (ValueError, "`dilation`", lambda: RIM(dilation=0)),
    (ValueError, "`padding_mode`", lambda: RIM(padding_mode="circle")),
    (ValueError, "`reset`", lambda: RIM(reset="never")),
    (ValueError, "`steps` must be an integer >= 1, got 0", lambda: RIM()(Y, DENOISE, steps=0)),
    (ValueError, r"`physics.adjoint\(y\)` must be floating-point \[N, 3, H, W\] in this RIM of 3 channels, got float32 \[2, 1, 6, 7\]", lambda: RIM(3)(Y, DENOISE)),
    (ValueError, r"`physics.adjoint\(y\)` must be floating-point \[N, 1, H, W\] .* complex64", lambda: RIM()(torch.zeros(2, 1, 6, 7, dtype=torch.complex64), inverse.MRI(torch.ones(7)))),
    (ValueError, r"`initial` must be floating-point \[N, 1, H, W\]", lambda: RIM()(Y, DENOISE, initial=Y[0])),
    (TypeError, "`initial` must be", lambda: RIM()(Y, DENOISE, initial=0)),
    (ValueError, r"`y` must be .*\[1, 1, 6, 7\]|`y`|`other`", lambda: RIM()(Y, DENOISE, initial=Y[:1])),
    (TypeError, "`physics` must have .adjoint and .gradient", lambda: RIM()(Y, None)),
])  # fmt: skip
def test_bad_input(error, message, call):
    with pytest.raises(error, match=message):
        call()


def test_one_cell_type():
    assert isinstance(RIM().gru1, ConvGRUCell) and amstel.nn.RIM is RIM


def test_a_plain_step_is_taken_beside_the_networks():
    torch.manual_seed(0)
    physics, y = inverse.Denoising(0.5), torch.rand(1, 1, 6, 6)
    model = RIM(1, 8, 1, gradient_step=0.25)
    start = torch.rand(1, 1, 6, 6)
    without = RIM(1, 8, 1)
    without.load_state_dict(model.state_dict())
    with torch.no_grad():
        (found,), (plain,) = (m(y, physics, initial=start) for m in (model, without))
    torch.testing.assert_close(found, plain - 0.25 * physics.gradient(start, y))
    with pytest.raises(ValueError, match="`gradient_step` must be a number"):
        RIM(gradient_step="1")


def test_depth_adds_convolutions_between_the_grus():
    shallow, deep = RIM(1, 8, 1), RIM(1, 8, 1, depth=3)
    deep.load_state_dict(shallow.state_dict(), strict=False)
    for conv in deep.deep:
        torch.nn.init.dirac_(conv.weight)
        torch.nn.init.zeros_(conv.bias)
    y = torch.rand(1, 1, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(deep(y, inverse.Denoising(0.5))[0], shallow(y, inverse.Denoising(0.5))[0])
    assert len(deep.deep) == 2
    with pytest.raises(ValueError, match="`depth` must be an integer >= 1"):
        RIM(depth=0)


@pytest.mark.parametrize(
    "options, least",
    [
        ({}, 3),
        ({"stride": 2}, 3),
        ({"kernel_sizes": (3, 5, 3), "dilation": 2, "stride": 3}, 13),
        ({"kernel_sizes": (9, 1, 1)}, 5),
    ],
)
def test_images_that_are_too_small_to_be_reflected(options, least):
    """It ended in torch's own text, deep inside."""
    model = RIM(features=2, steps=1, padding_mode="reflect", **options)
    for shape in ((1, 1, least, 20), (1, 1, 20, least)):
        assert model(torch.zeros(shape), inverse.Denoising(0.5))[0].shape == shape
    for shape in ((1, 1, least - 1, 20), (1, 1, 20, least - 1)):
        message = rf"`initial` must be at least {least} high and wide for padding_mode='reflect', got float32"
        with pytest.raises(ValueError, match=message):
            model(torch.zeros(1, 1, 20, 20), inverse.Denoising(0.5), initial=torch.zeros(shape))
