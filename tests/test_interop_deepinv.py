"""amstel.interop.deepinv: adjointness by deepinv's own test, values of its models, both directions."""

import copy
import doctest
import random

import pytest
import torch
from torch import nn

import amstel
from amstel.interop.deepinv import from_deepinv, to_deepinv
from amstel.inverse import MRI, Deblurring, Denoising, Inpainting, Poisson, SuperResolution
from tests.test_inverse import C128, F64, assert_close_, binary, normal, random_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def physics():
    return pytest.importorskip("deepinv.physics", reason="deepinv (extra `test`) is not installed")


class Sums(nn.Module):
    """What from_deepinv needs of a physics."""

    def __init__(self, noise=None):
        super().__init__()
        self.noise_model = noise

    def A(self, x):
        return x.sum(3)

    def A_adjoint(self, y):
        return y[..., None].expand(-1, -1, -1, 16)


def test_from_anything_with_an_adjoint():
    model = from_deepinv(Sums(), 0.5)
    assert model.adjointness_test() < 1e-14
    x, y = normal(2, 1, 3, 16), normal(2, 1, 3, seed=1)
    expected = ((x.sum(3) - y) / 0.25)[..., None].expand(x.shape)
    assert_close_(model.prepare(y).network_input(x), torch.cat([x, expected], 1))


def test_adjointness_by_deepinv(physics):
    r = random.Random(2)
    for _ in range(2_000):
        model, shape = random_model(r)
        x = torch.empty(shape, dtype=C128 if model.complex_images else F64)
        if not model(x.zero_()).numel() or not any(model(x + 1).flatten().abs() > 0):
            continue  # nothing is measured: deepinv divides by |A x|
        theirs = to_deepinv(model)
        assert theirs.adjointness_test(x, num_samples=shape[0]) < 1e-10, (model, shape)


@pytest.mark.parametrize("size", [(8, 10), (7, 9)])
def test_the_models_that_both_have(physics, size):
    x = normal(2, 2, *size)
    mask, maps, kernel = binary(*size), normal(3, *size, dtype=C128), normal(3, 5)
    real = torch.complex(*x.unbind(1))

    theirs = physics.MultiCoilMRI(mask=mask.double(), coil_maps=maps, img_size=(2, *size))
    y = theirs.A(x)
    ours = MRI(mask, maps, 0.1, centered=True)
    assert_close_(ours(real), torch.complex(*y.unbind(1)))
    assert_close_(
        ours.prepare(0 * ours(real)).gradient(real) * 0.01, torch.complex(*theirs.A_adjoint(y).unbind(1))
    )

    theirs = physics.Inpainting((2, *size), mask=mask.double())
    assert_close_(Inpainting(mask)(x), theirs.A(x))
    theirs = physics.BlurFFT((2, *size), kernel[None, None])
    assert_close_(Deblurring(kernel)(x), theirs.A(x), 1e-5)  # its transfer function is float32 in places
    assert_close_(Deblurring(kernel).adjoint(x), theirs.A_adjoint(x), 1e-5)


def test_tomography_both_ways(physics):
    ours = amstel.inverse.Radon(range(0, 180, 20), (12, 9), 0.1)
    x = normal(2, 1, 12, 9)
    theirs = to_deepinv(ours)
    assert theirs.adjointness_test(x, num_samples=2) < 1e-10
    back = from_deepinv(theirs)
    assert_close_(back.gradient(x, 0 * ours(x)), ours.prepare(0 * ours(x)).gradient(x), 1e-4)
    radon = physics.Tomography(
        angles=6, img_width=16, circle=False, normalize=False, noise_model=physics.GaussianNoise(0.1)
    )
    image = torch.rand(1, 1, 16, 16)
    y = radon.A(image)
    assert_close_(from_deepinv(radon)(image), y, 1e-5)
    assert_close_(from_deepinv(radon).adjoint(y), radon.A_adjoint(y), 1e-5)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_super_resolution_is_theirs(physics, scale):
    """Border included: theirs is MATLAB's imresize, written anew."""
    x = normal(2, 3, 6 * scale, 5 * scale)
    theirs = physics.DownsamplingMatlab(img_size=tuple(x.shape[1:]), factor=scale)
    y = theirs.A(x)
    assert_close_(SuperResolution(scale)(x), y)
    assert_close_(SuperResolution(scale).adjoint(y), theirs.A_adjoint(y))


def test_from_deepinv(physics):
    noise = physics.GaussianNoise(0.25)
    theirs = physics.BlurFFT((1, 8, 9), normal(3, 3)[None, None].float(), noise_model=noise)
    model = from_deepinv(theirs)
    assert model.sigma == 0.25 and model.adjointness_test(torch.zeros(2, 1, 8, 9)) < 1e-5
    x = torch.rand(1, 1, 8, 9)
    y = theirs(x)
    assert_close_(model.gradient(x, y), theirs.A_adjoint(theirs.A(x) - y) * 16, 1e-5)
    estimates = amstel.nn.RIM(features=4, steps=2)(y, model)
    assert len(estimates) == 2 and estimates[-1].shape == x.shape
    several = physics.Denoising(noise_model=physics.GaussianNoise(torch.tensor([0.1, 0.2])))
    assert from_deepinv(several).sigma.tolist() == pytest.approx([0.1, 0.2])
    assert from_deepinv(several, 0.5).sigma == 0.5
    # Real and imaginary part as two channels.
    coils = physics.MultiCoilMRI(mask=binary(8, 6).float(), coil_maps=normal(3, 8, 6, dtype=torch.complex64))
    model = from_deepinv(coils, 0.1)
    z = torch.rand(1, 2, 8, 6)
    assert model.adjointness_test(z) < 1e-5
    assert amstel.nn.RIM(2, features=4, steps=1)(coils.A(z), model)[0].shape == z.shape


def test_to_deepinv(physics):
    theirs = to_deepinv(Deblurring(normal(3, 3).float(), 0.05))
    x = torch.rand(1, 1, 32, 33)
    assert_close_(theirs.A(x), theirs.model(x))
    assert float((theirs(x) - theirs.A(x)).std()) == pytest.approx(0.05, rel=0.2)
    assert theirs.A_dagger(theirs.A(x)).shape == x.shape
    assert torch.equal(copy.deepcopy(theirs).A(x), theirs.A(x))
    assert theirs.to("meta").A(x.to("meta")).shape == x.shape
    # sigma of each part, theirs of both.
    coils = to_deepinv(MRI(torch.ones(64), None, 0.05))
    z = torch.rand(4, 64, 64, dtype=torch.complex64)
    assert float((coils(z) - coils.A(z)).real.std()) == pytest.approx(0.05, rel=0.05)


def test_the_noise_goes_along_and_comes_back(physics):
    x = torch.full((2, 1, 64, 64), 0.4)
    level = torch.tensor([0.1, 0.3]).reshape(2, 1, 1, 1).expand(2, 1, 64, 64)
    for model, variance in (
        (Poisson(Denoising(), 0.1), (0.04, 0.04)),
        (Poisson(Denoising(), 0.1, background=0.5), (0.09, 0.09)),
        (Denoising(level), (0.01, 0.09)),
    ):
        theirs = copy.deepcopy(to_deepinv(model))
        assert theirs(x).flatten(1).var(1).tolist() == pytest.approx(variance, rel=0.15)
        again = from_deepinv(theirs)
        assert again is theirs.model and torch.equal(again.gradient(x, x / 2), model.gradient(x, x / 2))
    counts = from_deepinv(physics.Denoising(noise_model=physics.PoissonNoise(0.1)))
    assert torch.equal(counts.gradient(x, x / 2), Poisson(Denoising(), 0.1).gradient(x, x / 2))
    assert from_deepinv(physics.CompressedSensing(m=5, img_size=(1, 4, 6)), 0.1).adjointness_test() < 1e-5


def test_another_operator_in_a_physics_is_no_less_than_another_noise(physics):
    x = torch.rand(1, 1, 16, 16)
    for change in (
        lambda p: setattr(p, "forw", lambda x, **_: 3 * x),
        lambda p: setattr(p, "A", lambda x, **_: 3 * x),
        lambda p: setattr(p, "__class__", type("Own", (type(p),), {"A": lambda self, x, **_: 3 * x})),
    ):
        theirs = to_deepinv(Denoising(0.1))
        assert from_deepinv(theirs) is theirs.model
        change(theirs)
        assert torch.equal(from_deepinv(theirs)(x), 3 * x)
    theirs, calls = to_deepinv(Denoising(0.1)), []
    theirs.model.register_forward_hook(lambda *_: calls.append(1))
    theirs.A(x)
    assert calls == [1]
    theirs.model = Deblurring(torch.ones(3, 3) / 9, 0.1)
    assert torch.equal(from_deepinv(theirs)(x), theirs.A(x))


def test_solver_of_deepinv_on_a_model(physics):
    """Least squares by deepinv's conjugate gradients, of a model that has a unique solution."""
    kernel = torch.zeros(3, 3, dtype=F64)
    kernel[1, 1], kernel[0, 1] = 1, 0.4
    theirs = to_deepinv(Deblurring(kernel, 0.1))
    x = torch.rand(1, 1, 8, 9, dtype=F64)
    assert_close_(theirs.A_dagger(theirs.A(x), solver="CG", max_iter=200, tol=1e-12), x, 1e-6)


def test_examples(physics):
    import deepinv

    from amstel.interop import deepinv as interop

    result = doctest.testmod(interop, extraglobs={"torch": torch, "amstel": amstel, "deepinv": deepinv})
    assert result.attempted and not result.failed


def test_without_deepinv(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "deepinv.physics", None)
    with pytest.raises(ImportError, match="pip install deepinv"):
        to_deepinv(Denoising(0.1))


@pytest.mark.parametrize("error, message, call", [
    (TypeError, "`physics` must be a deepinv.physics.LinearPhysics, got 3", lambda: from_deepinv(3)),
    (TypeError, "`physics` must be", lambda: from_deepinv(nn.Identity(), 0.1)),
    (ValueError, "`sigma` must be given if physics.noise_model is neither Gaussian nor normalized Poisson noise", lambda: from_deepinv(Sums())),
    (ValueError, "`sigma` must be a finite number > 0", lambda: from_deepinv(Sums(), 0)),
    (TypeError, "`model` must be an amstel.inverse.ForwardModel", lambda: to_deepinv(Sums())),
])  # fmt: skip
def test_bad_input(error, message, call):
    with pytest.raises(error, match=message):
        call()


def test_noise_of_complex_measurements(physics):
    """deepinv's sigma is that of both parts together, amstel's of each, whatever the images are."""
    noise = physics.GaussianNoise(0.2)
    fft = physics.LinearPhysics(
        A=lambda x, **_: torch.fft.fft2(x, norm="ortho"),
        A_adjoint=lambda y, **_: torch.fft.ifft2(y, norm="ortho").real,
        noise_model=noise,
    )
    torch.manual_seed(0)
    x = torch.rand(1, 1, 64, 64)
    y = fft(x)
    model = from_deepinv(fft)
    part = float((y - fft.A(x)).real.std())
    found = model.gradient(torch.zeros_like(x), y)
    assert model.sigma == pytest.approx(part, rel=0.05)
    assert_close_(found, fft.A_adjoint(-y) / model.sigma**2, 1e-4)

    class Transform(amstel.inverse.ForwardModel):
        def forward(self, x):
            return torch.fft.fft2(x, norm="ortho")

        def adjoint(self, y):
            return torch.fft.ifft2(y, norm="ortho").real

    back = to_deepinv(Transform(0.2))
    assert float((back(x) - back.A(x)).real.std()) == pytest.approx(0.2, rel=0.05)


def test_sigma_follows_the_noise(physics):
    """deepinv's call `physics(x, sigma=...)` updates the noise, of physics from either side."""
    x = torch.rand(1, 1, 8, 8)
    own = physics.Denoising(physics.GaussianNoise(0.1))
    model = from_deepinv(own)
    y = own(x, sigma=0.5)
    assert model.sigma == pytest.approx(0.5)
    assert_close_(model.gradient(x, y), (x - y) / 0.25, 1e-5)
    ours = Denoising(0.1)
    theirs = to_deepinv(ours)
    assert from_deepinv(theirs) is ours
    torch.manual_seed(0)
    y = theirs(x.expand(1, 1, 8, 8).repeat(64, 1, 1, 1), sigma=0.5)
    assert float((y - x).std()) == pytest.approx(0.5, rel=0.1)
    assert from_deepinv(theirs).sigma == pytest.approx(0.5)
    for noise in (physics.PoissonNoise(0.1), physics.GaussianNoise(0.3)):
        other = to_deepinv(ours)
        other.noise_model = noise
        assert from_deepinv(other) is not ours
    counts = to_deepinv(amstel.inverse.Poisson(Denoising(1.0), 0.1))
    assert isinstance(from_deepinv(counts), amstel.inverse.Poisson)
    counts.update(gain=0.5)
    assert from_deepinv(counts).gain == 0.5
    counts.noise_model = physics.PoissonNoise(0.7)
    assert from_deepinv(counts).gain == pytest.approx(0.7)
    given = Poisson(Denoising(1.0), 0.1, background=0.5)
    plain = to_deepinv(given)
    assert from_deepinv(plain) is given and isinstance(from_deepinv(copy.deepcopy(plain)), Poisson)
    for noise in (physics.PoissonNoise(0.1, normalize=False), physics.NoiseModel(torch.poisson)):
        plain.noise_model = noise
        with pytest.raises(ValueError, match="neither Gaussian nor normalized Poisson"):
            from_deepinv(plain)
    counts.noise_model = physics.PoissonNoise(0.1, normalize=False)
    with pytest.raises(ValueError, match="neither Gaussian nor normalized Poisson"):
        from_deepinv(counts)
    counts.noise_model = physics.GaussianNoise(0.3)
    model = from_deepinv(counts)
    assert model.sigma == pytest.approx(0.3)
    counts.update(sigma=0.0)
    with pytest.raises(ValueError, match=r"`physics\.noise_model\.sigma` must be a finite number > 0"):
        model.gradient(x, x)
    again = to_deepinv(ours)
    again.noise_model.sigma.mul_(2)
    assert from_deepinv(again).sigma == pytest.approx(0.2)


def test_gain_follows_the_noise(physics):
    x = torch.rand(2, 1, 8, 8) + 0.1
    theirs = physics.Denoising(physics.PoissonNoise(0.1))
    model = from_deepinv(theirs)
    theirs.update(gain=0.5)
    expected = Poisson(Denoising(), 0.5)
    assert (model.gain, model.sigma, model.floor) == (0.5, expected.sigma, expected.floor)
    for image in (x, x - x):  # the second at the floor
        assert torch.equal(model.gradient(image, x / 2), expected.gradient(image, x / 2))
    assert torch.equal(copy.deepcopy(model).likelihood(x, x / 2), expected.likelihood(x, x / 2))
    model.gain = 0.25
    assert torch.equal(model.gradient(x, x / 2), Poisson(Denoising(), 0.25).gradient(x, x / 2))
    with pytest.raises(AttributeError, match="`sigma` of counts is sqrt"):
        model.sigma = 0.3
    model = from_deepinv(theirs)
    theirs.noise_model = physics.PoissonNoise(0.5, normalize=False)
    with pytest.raises(TypeError, match=r"`physics\.noise_model` must be normalized Poisson noise"):
        model.gradient(x, x)


def test_an_envelope_has_the_sigma_of_its_model(physics):
    """Of complex measurements before any is seen, and of noise that is updated."""
    fft = physics.LinearPhysics(
        A=lambda x, **_: torch.fft.fft2(x, norm="ortho"),
        A_adjoint=lambda y, **_: torch.fft.ifft2(y, norm="ortho").real,
        noise_model=physics.GaussianNoise(0.2),
    )
    model = from_deepinv(fft)
    assert model.sigma == pytest.approx(0.2 / 2**0.5)
    x, weight = torch.rand(1, 1, 8, 8), 3.0
    envelope = amstel.inverse.Envelope(model, weight, iterations=20)
    y = fft.A(torch.rand_like(x))
    for sigma in (0.2, 0.5):
        fft.noise_model.update_parameters(sigma=sigma)
        precision = 2 / sigma**2
        # A^H A = 1: p minimizes precision |z - A^H y|^2 / 2 + weight |z - x|^2 / 2.
        expected = x - (precision * fft.A_adjoint(y) + weight * x) / (precision + weight)
        assert envelope.sigma == pytest.approx(sigma / 2**0.5)
        assert_close_(envelope.gradient(x, y), expected, 1e-4)
