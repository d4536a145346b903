"""Random projections of a seed, and the Poisson likelihood, against matrices, autograd and the recovery of an image."""

import pickle

import numpy as np
import pytest
import torch

import amstel
from amstel import inverse
from amstel.inverse import (
    MRI,
    Deblurring,
    Denoising,
    Poisson,
    StructuredProjection,
    plug_and_play,
    total_variation,
)
from amstel.nn import RIM

pytestmark = pytest.mark.usefixtures("one_thread")
F64 = torch.float64


def normal(*shape, seed=0):
    return torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape, count", [((1, 4, 4), 7), ((3, 5, 3), 64), ((1, 1, 1), 1), ((1, 8, 8), 64)])
def test_structured_projection_is_its_matrix(shape, count):
    hadamard = pytest.importorskip("scipy.linalg").hadamard
    physics = StructuredProjection(shape, count, 0.5, seed=3)
    pixels, size = int(np.prod(shape)), physics.size
    matrix = hadamard(size)[physics.rows.numpy()][:, :pixels] * physics.signs.numpy() / np.sqrt(count)
    x = normal(2, *shape)
    np.testing.assert_allclose(physics(x), x.flatten(1).numpy() @ matrix.T, atol=1e-12)
    assert physics.adjointness_test() < 1e-12 and len(set(physics.rows.tolist())) == count
    y = normal(2, count, seed=1)
    torch.testing.assert_close(physics.prepare(y).gradient(x), physics.gradient(x, y))
    assert torch.equal(StructuredProjection(shape, count, seed=3)(x), physics(x))
    if pixels > 1:
        assert not torch.equal(StructuredProjection(shape, count, seed=4).signs, physics.signs) or pixels < 8
    assert physics(x.float()).dtype == torch.float32 and physics.gradient(x[:0], y[:0]).shape == (0, *shape)
    assert torch.autograd.gradcheck(lambda t: physics.gradient(t, y), [x.requires_grad_()])


def test_structured_projection_keeps_lengths_and_images_come_back():
    x = torch.zeros(1, 1, 32, 32)
    x[..., 8:24, 10:20], x[..., 4:12, 20:28] = 0.8, 0.4
    physics = StructuredProjection((1, 32, 32), 512, 0.01)
    assert abs(float(physics(x).norm() / x.norm()) - 1) < 0.15
    found = total_variation(physics(x), physics, 0.01, 300)
    assert float((found - x).norm() / x.norm()) < 0.05
    model = RIM.pretrained("gray")
    prior = lambda t, level: model(t, Denoising(level), 1)[-1]  # noqa: E731
    levels = np.geomspace(60, 2, 15) / 255
    with torch.no_grad():
        found = plug_and_play(physics(x), physics, prior, levels.tolist(), weight=0.3, iterations=8)
    assert float((found - x).norm() / x.norm()) < 0.2


def test_poisson_is_the_gradient_of_its_likelihood():
    kernel = torch.full((3, 3), 1 / 9, dtype=F64)
    x = normal(2, 1, 5, 6).abs().requires_grad_()
    for model in (Denoising(), Deblurring(kernel, boundary="replicate")):
        physics = Poisson(model, 0.3, background=0.1)
        y = physics.measure(x, torch.Generator().manual_seed(0))
        assert y.dtype == F64 and torch.equal((y / 0.3).round(), (y / 0.3).round(decimals=6))
        expected = torch.autograd.grad(physics.likelihood(x, y).sum(), x)[0]
        torch.testing.assert_close(physics.gradient(x, y), expected)
        torch.testing.assert_close(physics.prepare(y).gradient(x), expected)
        log = torch.distributions.Poisson((model(x) + 0.1) / 0.3).log_prob((y / 0.3).round()).sum((1, 2, 3))
        other = (
            torch.distributions.Poisson((model(2 * x) + 0.1) / 0.3).log_prob((y / 0.3).round()).sum((1, 2, 3))
        )
        torch.testing.assert_close(physics.likelihood(2 * x, y) - physics.likelihood(x, y), log - other)
        assert physics.adjointness_test() < 1e-12
    assert Poisson(Denoising(), 0.5).gradient(-x, y).isfinite().all()
    assert RIM(1, 4, 2, network="unet").double()(y.detach(), physics)[-1].shape == x.shape


@pytest.mark.parametrize(
    "message, call",
    [
        ("`image_shape` must be", lambda: StructuredProjection((4, 4), 3)),
        ("`count` must be at most 16", lambda: StructuredProjection((1, 3, 4), 17)),
        ("`seed` must be", lambda: StructuredProjection((1, 3, 4), 2, seed=-1)),
        ("`x` must be", lambda: StructuredProjection((1, 3, 4), 2)(torch.rand(1, 1, 4, 3))),
        ("`y` must be", lambda: StructuredProjection((1, 3, 4), 2).adjoint(torch.rand(1, 3))),
        ("`gain` must be", lambda: Poisson(Denoising(), 0)),
        ("`background` must be", lambda: Poisson(Denoising(), 1, -1)),
        ("`floor` must be", lambda: Poisson(Denoising(), 1, floor=0)),
        ("`model` must be one of real images", lambda: Poisson(MRI(torch.ones(4)))),
        (
            "`y` must be",
            lambda: Poisson(Denoising()).gradient(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 3)),
        ),
    ],
)
def test_bad_input(message, call):
    with pytest.raises(ValueError, match=message):
        call()


def test_sigma_and_floor_follow_the_gain():
    physics, other = Poisson(Denoising(), 0.5), Poisson(Denoising(), 0.09)
    physics.gain = 0.09
    x = torch.tensor([[[[0.5, -1.0]]]])  # the second at the floor
    assert physics.sigma == pytest.approx(0.3)
    assert torch.equal(physics.gradient(x, x + 2), other.gradient(x, x + 2))
    with pytest.raises(AttributeError, match=r"`sigma` of counts is sqrt.*: set `gain`, got 0\.5"):
        inverse.Envelope(physics, 1.0).sigma = 0.5
    with pytest.raises(ValueError, match="`floor` must be"):
        physics.floor = 0


def test_the_floor_of_a_pickle_of_before_is_kept():
    """It lay under the name of what is a property now."""
    old = Poisson(Denoising(), 0.5)
    del old.__dict__["_floor"]
    old.__dict__.update(floor=0.2, sigma=0.5**0.5)
    found = pickle.loads(pickle.dumps(old))
    assert found.floor == 0.2 and found.sigma == pytest.approx(0.5**0.5)
    found.floor = 0.3
    assert pickle.loads(pickle.dumps(found)).floor == 0.3


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_counts_hold_where_nothing_is_seen_does_not_matter(bad):
    mask = torch.rand(6, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    physics = inverse.Poisson(inverse.Inpainting(mask), gain=0.1)
    x = torch.rand(2, 1, 6, 5, generator=torch.Generator().manual_seed(1))
    y = physics(x)
    hidden = torch.where(mask, y, torch.tensor(bad))
    for call in (physics.likelihood, physics.gradient):
        assert torch.equal(call(x, hidden), call(x, y))


def test_counts_are_not_negative():
    """Also in the derivatives of torch.func; where torch.vmap or torch.compile hides the values nobody looks."""
    physics, x = Poisson(Denoising(), 0.5), torch.ones(2, 1, 3, 3)
    bad = torch.tensor([1.0, -0.25])[:, None, None, None].expand(2, 1, 3, 3)
    calls = [physics.gradient, physics.likelihood, lambda x, y: physics.prepare(y).gradient(x)]
    calls.append(torch.func.grad(lambda x, y: physics.likelihood(x, y).sum()))
    calls.append(lambda x, y: torch.func.jvp(lambda x: physics.gradient(x, y), (x,), (x,)))
    for call in calls:
        with pytest.raises(ValueError, match=r"`y` must be counts, which are never negative, got -0\.25"):
            call(x, bad)
        with pytest.raises(ValueError, match="`y` must be counts"):
            torch.func.grad(lambda y, call=call: torch.stack([t.sum() for t in call(x, y)]).sum())(bad)
        call(x, torch.full_like(bad, torch.nan))
    expected = physics.gradient(x, x / 2)
    assert torch.equal(torch.vmap(lambda a, b: physics.gradient(a[None], b[None])[0])(x, x / 2), expected)
    compiled = torch.compile(physics.gradient, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x, x / 2), expected) and compiled(x, bad).shape == x.shape
    try:
        amstel.set_checks("off")
        assert physics.gradient(x, bad).shape == x.shape
    finally:
        amstel.set_checks("async")
    mask = torch.tensor([[True, False, True]] * 3)  # and not where nothing is seen
    assert Poisson(inverse.Inpainting(mask)).gradient(x, x - 2 * ~mask).isfinite().all()


def test_what_is_set_later_is_checked():
    physics, denoising = Poisson(Denoising()), Denoising(torch.tensor([0.1, 0.2]))
    for name, bad in (("gain", 0), ("gain", "1"), ("background", -1)):
        with pytest.raises(ValueError, match=f"`{name}` must be a finite number"):
            setattr(physics, name, bad)
    for model, bad in ((Denoising(), -0.1), (MRI(torch.ones(4)), 0), (denoising, torch.tensor([0.1, -0.2]))):
        for given in (model, inverse.Envelope(model, 1.0)):
            with pytest.raises(ValueError, match="`sigma` must be a finite number > 0"):
                given.sigma = bad
    denoising.sigma = torch.tensor([0.3, 0.4])
    assert torch.equal(dict(denoising.named_buffers())["sigma"], torch.tensor([0.3, 0.4]))
