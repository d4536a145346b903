"""amstel.nn.RIM(network="unet"): what the U-Net sees, its state, sizes, dtypes, and what it composes with."""

import json

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, conv_transpose2d, pad, relu

from amstel import inverse
from amstel.nn import RIM, EfficientNetLite, MultiScaleRoIAlign, SmallBackbone, VGG16Features
from amstel.nn.unet import RecurrentUNet

F32, F64 = torch.float32, torch.float64


@pytest.fixture(autouse=True)
def _small(one_thread):
    torch.manual_seed(0)


def rim(channels=1, dtype=F64, **options):
    """With weights large enough that every part of the network matters."""
    model = RIM(channels, **({"features": 4, "steps": 3, "network": "unet"} | options))
    for k, p in enumerate(model.parameters()):
        p.data = torch.randn(p.shape, generator=torch.Generator().manual_seed(k)) * 0.7 / p[0].numel() ** 0.5
    return model.to(dtype)


def image(*shape, dtype=F64, seed=0):
    return torch.rand(shape, dtype=F64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(a, b, tolerance=1e-11):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.dtype == y.dtype
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


def gradients(estimates, leaves):
    loss = sum((e.abs() ** 2).sum() * (k + 1) for k, e in enumerate(estimates))
    return torch.autograd.grad(loss, leaves)


def by_hand(unet, given, f, h):
    """One step in plain PyTorch, on sides that are multiples of 8."""

    def same(x, c):
        return conv2d(x, c.weight, padding=1)

    def residuals(x, blocks):
        for block in blocks:
            x = x + same(relu(same(x, block.a)), block.b)
        return x

    e = [same(torch.cat([given, f], 1), unet.head)]
    for down in unet.down:
        e.append(conv2d(residuals(e[-1], down[:-1]), down[-1].weight, stride=2))
    d = residuals(e[-1], unet.body)
    x_r, x_z, x_n = same(d, unet.memory.x).chunk(3, 1)
    h_r, h_z, h_n = conv2d(h, unet.memory.h.weight).chunk(3, 1)
    z = torch.sigmoid(x_z + h_z)
    h = (1 - z) * torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n) + z * h
    d = d + h
    for k, up in enumerate(unet.up):
        d = residuals(conv_transpose2d(d + e[-1 - k], up[0].weight, stride=2), up[1:])
    f = d + e[0]
    return same(f, unet.tail), f, h


def recurrence(model, y, physics, sigma, steps):
    """x <- x + network(x, sigma^2 gradient, sigma, features, state), the sides padded with the border."""
    x, estimates = physics.adjoint(y), []
    n, _, height, width = x.shape
    high, wide = -(-height // 8), -(-width // 8)
    f = x.new_zeros(n, model.features, 8 * high, 8 * wide)
    h = x.new_zeros(n, 8 * model.features, high, wide)
    level = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, 1, 1, 1).expand(n, 1, height, width)
    for _ in range(steps):
        given = torch.cat([x, level**2 * physics.gradient(x, y), level], 1)
        given = pad(given, (0, 8 * wide - width, 0, 8 * high - height), mode="replicate")
        update, f, h = by_hand(model.unet, given, f, h)
        x = x + update[:, :, :height, :width]
        estimates.append(x)
    return estimates


@pytest.mark.parametrize("sigma", [0.3, torch.tensor([0.2, 0.6], dtype=F64)], ids=["number", "tensor"])
@pytest.mark.parametrize("channels, size", [(1, (16, 8)), (3, (13, 10)), (1, (1, 3))])
def test_values_and_gradients(channels, size, sigma):
    model, y = rim(channels), image(2, channels, *size).requires_grad_()
    physics = inverse.Inpainting(torch.rand(size) > 0.3, sigma)
    found, expected = model(y, physics), recurrence(model, y, physics, sigma, 3)
    close(found, expected)
    leaves = [y, *model.parameters()]
    close(gradients(found, leaves), gradients(expected, leaves))


def test_gradients_are_those_of_differences():
    model, physics = rim(features=1, steps=2), inverse.Denoising(0.5)
    y = image(1, 1, 8, 9).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: model(t, physics)[-1], y)


def test_the_noise_level_is_known():
    """Where x = y the likelihood's gradient is 0 whatever sigma is; a batch may have a sigma for each image."""
    model, y = rim(), image(2, 1, 8, 8)
    one, two = (model(y, inverse.Denoising(s))[0] for s in (0.1, 0.5))
    assert float((one - two).detach().abs().max()) > 1e-3
    both = model(y, inverse.Denoising(torch.tensor([0.1, 0.5])))[0]
    close([both[0], both[1]], [one[0], two[1]], 1e-6)


def test_physics_without_sigma_has_sigma_one():
    class Plain:
        def adjoint(self, y):
            return y

        def gradient(self, x, y):
            return x - y

    model, y = rim(), image(1, 1, 9, 8)
    close(model(y, Plain()), model(y, inverse.Denoising(1.0)))


@pytest.mark.parametrize("link", ["identity", "logistic"])
def test_complex_images_are_two_channels(link):
    maps, mask = torch.randn(3, 9, 12, dtype=torch.complex128), torch.rand(9, 12) > 0.4
    physics = inverse.MRI(mask, maps, 0.5)
    y = physics(torch.randn(2, 9, 12, dtype=torch.complex128))
    found = rim(2, link=link)(y, physics)
    assert len(found) == 3
    assert all(e.shape == (2, 9, 12) and e.dtype == torch.complex128 and e.isfinite().all() for e in found)
    assert not torch.equal(found[0], found[1])


def test_state():
    """The state is handed on, and without one the steps are those of a network that forgets."""
    unet = rim().unet
    given = image(2, 3, 10, 13)
    out, (f, h) = unet(given)
    assert out.shape == (2, 1, 10, 13) and f.shape == (2, 4, 16, 16) and h.shape == (2, 32, 2, 2)
    zeros = torch.zeros_like(f), torch.zeros_like(h)
    close([out, f, h], [unet(given, zeros)[0], *unet(given, zeros)[1]])
    for state in ((f, None), (None, h)):
        assert float((unet(given, state)[0] - out).detach().abs().max()) > 1e-4
    model = rim(recurrent=False)
    out, state = model.unet(given)
    assert state == (None, None) and torch.equal(model.unet(given, state)[0], out)
    assert model.unet.memory is None


def test_no_bias_anywhere():
    model = rim()
    assert not any("bias" in name for name in model.state_dict())
    for e in model(torch.zeros(1, 1, 11, 8, dtype=F64), inverse.Denoising(1e-12)):
        assert float(e.abs().max()) < 1e-11


def test_without_a_gru_scales_with_image_and_noise():
    """The GRU squashes; all else is of degree one: twice the image and twice the noise give twice the result."""
    model, y = rim(recurrent=False), image(1, 1, 11, 14)
    once = model(y, inverse.Denoising(0.1))
    for scale in (1e-6, 0.5, 255.0):
        found = model(scale * y, inverse.Denoising(scale * 0.1))
        close([e / scale for e in found], once, 1e-9)


def test_the_gradient_may_be_all_it_sees():
    model, y = rim(use_estimate=False, steps=1), image(1, 1, 8, 8)
    start = image(1, 1, 8, 8, seed=1)
    # x - y alone: both shifted, the update stays.
    one = model(y, inverse.Denoising(0.2), initial=start)[0] - start
    two = model(y + 3, inverse.Denoising(0.2), initial=start + 3)[0] - start - 3
    close([one], [two], 1e-9)


@pytest.mark.parametrize("memory", ["recompute", "chunked", 2])
def test_memory_does_not_change_a_bit(memory):
    model, other = (rim(dtype=F32, memory=m) for m in ("store", memory))
    physics, y = inverse.Denoising(0.5), image(2, 1, 9, 12, dtype=F32).requires_grad_()
    results = []
    for m in (model, other):
        estimates = m(y, physics)
        results.append([*estimates, *gradients(estimates, [y, *m.parameters()])])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_the_same_every_time_and_in_either_layout():
    model, physics, y = rim(dtype=F32, features=8), inverse.Denoising(0.5), image(2, 1, 17, 23, dtype=F32)
    first = model(y, physics)
    assert all(torch.equal(a, b) for a, b in zip(first, model(y, physics), strict=True))
    close(model.to(memory_format=torch.channels_last)(y, physics), first, 1e-4)


def test_bfloat16_and_autocast():
    model, physics = rim(dtype=F32, features=8), inverse.Denoising(0.5)
    y = image(1, 1, 20, 18, dtype=F32)
    exact = model(y, physics)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(y, physics)
    assert all(e.dtype == F32 for e in found)
    short = model.to(torch.bfloat16)(y.bfloat16(), physics)
    assert all(e.dtype == torch.bfloat16 for e in short)
    for e in (found[-1], short[-1].float()):
        assert float((e - exact[-1]).norm() / exact[-1].norm()) < 0.05


@pytest.mark.parametrize("size", [(9, 12), (16, 16)])
def test_compile_gives_the_same(size):
    torch._dynamo.reset()
    model, physics = rim(dtype=F32, steps=2), inverse.Denoising(torch.tensor([0.5, 0.1]))
    compiled = torch.compile(lambda y: model(y, physics), fullgraph=True, backend="aot_eager")
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
            self.model, self.physics = rim(dtype=F32, steps=2), inverse.Denoising(0.5)

        def forward(self, y):
            return self.model(y, self.physics)[-1]

    whole, y = Whole(), image(2, 1, 7, 6, dtype=F32)
    program = torch.export.export(whole, (y,))
    assert [n for n in program.graph.nodes if "amstel" in str(n.target)]
    torch.testing.assert_close(program.module()(y), whole(y), rtol=1e-5, atol=1e-5)


def test_options_and_size():
    model = RIM(network="unet", steps=2)
    assert sum(p.numel() for p in model.parameters()) == 1_068_864
    model = RIM(3, 8, 2, "logistic", network="unet", depth=2, memory=2, gradient_step=0.5)
    again = RIM(**json.loads(json.dumps(model.options)))
    assert str(again) == str(model) and again.options == model.options
    again.load_state_dict(model.state_dict())
    assert RIM().features == 64 and RIM(network="unet").features == 16  # the paper's is the default


def test_a_new_network_starts_at_the_measurement():
    y = torch.rand(1, 1, 16, 16)
    for e in RIM(network="unet", steps=3)(y, inverse.Denoising(25 / 255)):
        assert float((e - y).detach().abs().max()) < 0.5


def test_a_step_on_a_photograph_sized_loss_learns():
    """A few steps of Adam on one noisy image lower the loss."""
    model, physics = RIM(features=4, steps=2, network="unet"), inverse.Denoising(0.2)
    x = image(2, 1, 24, 24, dtype=F32).cumsum(3) / 24
    y = x + 0.2 * torch.randn_like(x)
    optimizer, losses = torch.optim.Adam(model.parameters(), 3e-3), []
    for _ in range(30):
        loss = (model(y, physics)[-1] - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_more_steps_than_trained_are_refused():
    model, y = rim(), image(1, 1, 8, 8)
    assert len(model(y, inverse.Denoising(0.5), steps=7)) == 7
    model.trained_steps = 3
    assert len(model(y, inverse.Denoising(0.5), steps=3)) == 3
    with pytest.raises(ValueError, match=r"`steps` must be at most 3, as these weights were trained.*got 4"):
        model(y, inverse.Denoising(0.5), steps=4)


@pytest.mark.parametrize("message, call", [
    ("`network` must be 'conv' or 'unet', got 'vit'", lambda: RIM(network="vit")),
    ("`stride` must be 1, which it always is in network='unet', got 2", lambda: RIM(network="unet", stride=2)),
    ("`kernel_sizes` must be", lambda: RIM(network="unet", kernel_sizes=(3, 3, 3))),
    ("`reset` must be 'after'", lambda: RIM(network="unet", reset="before")),
    ("`depth` must be an integer >= 1", lambda: RIM(network="unet", depth=0)),
])  # fmt: skip
def test_bad_options(message, call):
    with pytest.raises(ValueError, match=message):
        call()


def test_sigma_of_another_batch():
    class Wrong(inverse.Denoising):
        def prepare(self, y):
            return inverse.Prepared(inverse.Denoising(0.5), y)

    with pytest.raises(ValueError, match=r"`physics.sigma` must be a number or \[2\], one per image"):
        rim()(image(2, 1, 8, 8), Wrong(torch.tensor([0.1, 0.2, 0.3])))


def test_the_network_by_itself():
    unet = RecurrentUNet(2, 5, width=2, blocks=2)
    assert unet(torch.rand(1, 2, 8, 24))[0].shape == (1, 5, 8, 24)


@pytest.mark.parametrize("name", ["inputs", "outputs", "width", "blocks", "recurrent"])
@pytest.mark.parametrize("value", [-1, 1.5, "2", None])
def test_what_the_network_refuses_when_it_is_made(name, value):
    with pytest.raises((TypeError, ValueError), match=rf"^`{name}` must be .*, got"):
        RecurrentUNet(**({"inputs": 2, "outputs": 1, "width": 2} | {name: value}))


@pytest.mark.parametrize(
    ("make", "name", "values"),
    [
        (RIM, "recurrent", ("no", 0, None)),
        (RIM, "use_estimate", ("no", 1)),
        (RIM, "detach_gradient", ("no", 1)),
        (RIM, "state_relu", ("no", 1)),
        (VGG16Features, "normalize", ("no", 1)),
        (SmallBackbone, "groups", ("4", None, 1.5, -1, 3)),
        (EfficientNetLite, "taps", (2, "24", None, (1.5,), ("2",), (4, 2), ())),
        (
            lambda **given: MultiScaleRoIAlign(output_size=2, sampling_ratio=1, **given),
            "featmap_names",
            (2, None, "0", []),
        ),
    ],
)
def test_arguments_of_other_networks_that_were_not_looked_at(make, name, values):
    for value in values:
        with pytest.raises((TypeError, ValueError), match=rf"^`{name}` must be .*, got"):
            make(**{name: value})


def test_what_the_network_refuses_by_itself():
    unet, x = RecurrentUNet(2, 1, width=2), torch.rand(3, 2, 10, 13)
    for given, said in (
        (x[0], r"`given` must be floating-point \[N, 2, H, W\], got float32 \[2, 10, 13\]"),
        (x[:, :1], r"`given` must be floating-point \[N, 2, H, W\], got float32 \[3, 1, 10, 13\]"),
        (x.long(), r"`given` must be floating-point \[N, 2, H, W\], got int64"),
        (x[..., :0], r"`given` must be at least one pixel high and wide, got float32 \[3, 2, 10, 0\]"),
        (x.double(), r"`given` must be float32 as the weights are"),
        (x.numpy(), r"`given` must be floating-point \[N, 2, H, W\], got array"),
    ):
        with pytest.raises((TypeError, ValueError), match=said):
            unet(given)
    f, h = unet(x)[1]
    for state, said in (
        (f, r"`state` must be \(f, h\), got float32"),
        ((f, h, h), r"`state` must be \(f, h\)"),
        ((f[1:], h), r"`state\[0\]` must be None or a tensor \[3, 2, 16, 16\], got float32 \[2, 2, 16, 16\]"),
        ((f, f), r"`state\[1\]` must be None or a tensor \[3, 16, 2, 2\], got"),
        ((f, 0), r"`state\[1\]` must be None or a tensor \[3, 16, 2, 2\], got 0"),
    ):
        with pytest.raises((TypeError, ValueError), match=said):
            unet(x, state)
    with pytest.raises(ValueError, match=r"`state\[0\]` must be None with recurrent=False"):
        RecurrentUNet(2, 1, width=2, recurrent=False)(x, (f, None))


def test_numpy_numbers_are_numbers():
    import numpy as np

    y = image(1, 1, 8, 8)
    for sigma in (np.float32(0.5), np.float64(0.5), np.float16(0.5), np.int64(1)):
        for physics in (
            inverse.Denoising(sigma), inverse.Inpainting(torch.ones(8, 8), sigma), inverse.SuperResolution(np.int64(2), sigma),
            inverse.Deblurring(torch.ones(1, 1), sigma), inverse.RandomProjection(torch.eye(64), sigma),
            inverse.MRI(torch.ones(8), sigma=sigma),
        ):  # fmt: skip
            assert isinstance(physics.sigma, float) and physics.sigma == float(sigma)
        inverse.Envelope(inverse.Denoising(1.0), sigma, np.int32(2))
    close(
        rim()(y, inverse.Denoising(np.float64(0.5)), steps=np.int64(2)),
        rim()(y, inverse.Denoising(0.5), steps=2),
    )
    for bad in (True, np.bool_(True), "1", None):
        with pytest.raises((TypeError, ValueError), match="`sigma` must be"):
            inverse.Denoising(bad)


def test_a_dtype_that_is_not_the_models_is_refused():
    """It ended in torch's own text, deep inside."""
    for model in (RIM(features=4), RIM(features=4, network="unet")):
        with pytest.raises(ValueError, match=r"must be float32 as the weights are .*got float64"):
            model(image(1, 1, 8, 8), inverse.Denoising(0.5))
        assert model.double()(image(1, 1, 8, 8), inverse.Denoising(0.5))[-1].dtype == F64
