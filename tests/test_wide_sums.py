"""What is summed or exponentiated in 16 bits: as in float32 where float16 would overflow or lose terms."""

from types import SimpleNamespace

import pytest
import torch

import amstel
from amstel.apps.video import train
from amstel.nn._video import _summary


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_the_divergence_of_a_vgae(dtype, autocast):
    data = amstel.data.block_model(nodes=300)
    x = data.features.to_dense()
    torch.manual_seed(0)
    model = amstel.nn.VGAE(x.shape[1], 32, 16).eval()
    with torch.no_grad():  # means with a sum of squares beyond 65504, and exp(2 logstd) beyond it, too
        for layer, value, most in zip(
            (model.mean, model.logstd), model.distribution(x, data.graph), (20, 6), strict=True
        ):
            layer.weight *= most / value.abs().max()
    expected = model.loss(x, data.graph)
    gradient = torch.autograd.grad(expected, [*model.parameters()])
    if not autocast:
        model, x = model.to(dtype), x.to(dtype)
    with torch.autocast("cpu", dtype, enabled=autocast):
        found = model.loss(x, data.graph)
    assert found.dtype == torch.float32
    close = {"rtol": 0.1, "atol": 0}
    torch.testing.assert_close(found, expected, **close)
    for one, other in zip(torch.autograd.grad(found, [*model.parameters()]), gradient, strict=True):
        torch.testing.assert_close(one.float().norm(), other.norm(), **close)


HALF = (torch.float32, torch.float16)


def test_distances_and_unit_vectors_of_large_and_small_numbers():
    a, b, y = 300 * torch.ones(4, 64), torch.zeros(4, 64), torch.ones(4)
    for reduction in ("mean", "sum", "none"):
        loss = amstel.nn.MarginContrastiveLoss(reduction=reduction)
        torch.testing.assert_close(loss(a.half(), b.half(), y), loss(a, b, y))
    model, boxes = amstel.nn.SINT().eval(), torch.tensor([[0, 8.0, 8, 40, 40]])
    maps = [m / m.abs().max() for m in model.features(torch.rand(1, 3, 64, 96))]
    for scale in (1e-4, 300):
        wide, short = (model.describe([(scale * m).to(t) for m in maps], boxes.to(t)) for t in HALF)
        assert short.dtype == torch.float16
        torch.testing.assert_close(short.float(), wide, atol=2e-3, rtol=0)


def test_links_of_large_embeddings():
    model, pairs = amstel.nn.GAE(3, 3, 2), torch.tensor([[0], [1]])
    z = torch.tensor([[300.0, 300.0], [300.0, -299.0]])
    assert float(model.decode(z.half(), pairs)) == float(model.decode(z, pairs)) == 300


def test_the_mean_frame_of_a_long_clip():
    x, kept = torch.full((4000, 1, 1, 1, 1), 50.0), torch.ones(4000, 1, dtype=torch.bool)
    assert float(_summary(x.half(), kept, "mean")) == 50


def test_streams_that_disagree():
    # Either is certain, the second one less, whose answer is that of both.
    logits = torch.tensor([[[0.0, 0.0, 20.0]]]), torch.tensor([[[18.0, 0.0, 0.0]]])
    batch = SimpleNamespace(labels=torch.tensor([2]), lengths=torch.tensor([1]))
    right = [train._loss({str(n): (x.to(t), None) for n, x in enumerate(logits)}, batch)[1] for t in HALF]
    assert right == [1, 1]


@pytest.mark.parametrize("sigma", [torch.tensor([0.003, 0.05]), torch.full((1, 1, 300, 300), 0.003), 0.05])
def test_likelihoods_and_what_solves_them(sigma):
    x = torch.rand(2, 1, 300, 300, generator=torch.Generator().manual_seed(0))
    y = (x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).half()
    x, physics = x.half(), amstel.inverse.Denoising(sigma)
    counts = amstel.inverse.Poisson(amstel.inverse.Denoising(), gain=1e-6)
    for call, relative in (
        (lambda x, y: physics.gradient(x, y), 1e-2),
        (lambda x, y: amstel.inverse.Envelope(physics, 1.0).gradient(x, y), 1e-3),
        (lambda x, y: amstel.inverse.total_variation(y, physics, 0.05, iterations=5), 1e-3),
        (lambda x, y: amstel.inverse.plug_and_play(y, physics, lambda z, level: z, [0.1, 0.05]), 1e-3),
        (lambda x, y: counts.likelihood(x, x)[:, None], 1e-4),
        (lambda x, y: counts.measure(x, torch.Generator().manual_seed(0)), 1e-3),
    ):
        expected, found = call(x.float(), y.float()), call(x, y).float()
        assert (found - expected).norm() <= relative * expected.norm()


def test_a_projection_of_many_pixels():
    physics = amstel.inverse.StructuredProjection((1, 300, 300), 30000, sigma=0.01)
    x, start = (
        torch.rand(1, 1, 300, 300, generator=torch.Generator().manual_seed(0)),
        torch.zeros(1, 1, 300, 300),
    )
    y = physics(x).half()

    def less(x, level):
        return 0.9 * x

    wide, short = (amstel.inverse.message_passing(y.to(t), physics, less, start.to(t), steps=3) for t in HALF)
    assert (short.float() - wide).norm() <= 2e-3 * wide.norm()


def test_plain_operators_with_a_noise_for_each_image():
    eta, sigma = torch.full((1, 1, 4, 4), 0.5, dtype=torch.float16), torch.tensor([0.003])
    y = torch.full_like(eta, 0.49)
    expected = amstel.ops.rim_denoise_input(eta, y, sigma)
    torch.testing.assert_close(amstel.reference.rim_denoise_input(eta, y, sigma), expected)
