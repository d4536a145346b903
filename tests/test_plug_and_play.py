"""Plug-and-play and total variation: what they minimize, of any model and scale, and MRI by a denoiser."""

import doctest

import numpy as np
import pytest
import torch

import amstel
from amstel import inverse
from amstel.data.mri import cartesian_mask, loop_sensitivities
from amstel.inverse import plug_and_play, total_variation
from amstel.inverse.reconstruct import complex_denoiser
from amstel.nn import RIM

pytestmark = pytest.mark.usefixtures("one_thread")


def blocks(*shape, dtype=torch.float64):
    """Constant squares of 8x8."""
    h, w = (-(-n // 8) for n in shape[-2:])
    values = torch.rand(*shape[:-2], h, w, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = values.repeat_interleave(8, -2).repeat_interleave(8, -1)
    return whole[..., : shape[-2], : shape[-1]].to(dtype)


def noise(like, seed=1):
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed), dtype=like.dtype)


def objective(x, y, physics, weight):
    down, right = (torch.diff(x, dim=d, append=x.narrow(d, x.shape[d] - 1, 1)) for d in (-2, -1))
    tv = (down.abs().square() + right.abs().square()).sqrt().sum()
    return (physics(x) - y).abs().square().sum() / 2 + weight * tv


MASK = torch.rand(24, 20, generator=torch.Generator().manual_seed(2)) < 0.5
MODELS = {
    "denoise": lambda sigma: inverse.Denoising(sigma),
    "inpaint": lambda sigma: inverse.Inpainting(MASK, sigma),
    "deblur": lambda sigma: inverse.Deblurring(torch.full((3, 3), 1.0, dtype=torch.float64), sigma),
    "sr": lambda sigma: inverse.SuperResolution(2, sigma),
    "project": lambda sigma: inverse.RandomProjection(
        noise(torch.empty(120, 480, dtype=torch.float64)), sigma, image_shape=(1, 24, 20)
    ),
    "mri": lambda sigma: inverse.MRI(MASK, 3 * noise(torch.empty(2, 24, 20, dtype=torch.complex128)), sigma),
}


@pytest.mark.parametrize("name", MODELS)
def test_total_variation_of_any_model_whatever_its_sigma_and_norm(name):
    image = blocks(1, 24, 20) + 0j if name == "mri" else blocks(1, 1, 24, 20)
    physics = MODELS[name](1.0)
    y = physics(image)
    y = y + 0.02 * noise(y)
    x = total_variation(y, physics, 0.02, 300)
    best = objective(x, y, physics, 0.02)
    for seed, size in enumerate((1e-3, 1e-2, 1e-1)):
        assert objective(x + size * noise(x, seed), y, physics, 0.02) > best
    for sigma in (1e-6, 0.02, 30.0, torch.tensor([0.5])):
        assert torch.equal(total_variation(y, MODELS[name](sigma), 0.02, 300), x)
    # The problem has no unit.
    for unit in (1e-12, 1e12):
        torch.testing.assert_close(total_variation(unit * y, physics, unit * 0.02, 300) / unit, x)


def test_total_variation_of_nothing():
    assert total_variation(torch.zeros(1, 1, 5, 4), inverse.Denoising(0.1), 0.1).abs().max() == 0
    assert total_variation(torch.rand(1, 1, 1, 1), inverse.Denoising(0.1), 0.0).isfinite().all()
    y = torch.randn(1, 2, 5, 4, dtype=torch.complex64)
    for maps in (torch.zeros(2, 5, 4, dtype=torch.complex64), torch.ones(2, 5, 4, dtype=torch.complex64)):
        physics = inverse.MRI(torch.zeros(4), maps, sigma=0.01)
        assert total_variation(y, physics, 0.1).abs().max() == 0
    assert total_variation(1e30 * y, inverse.MRI(torch.ones(4), maps), 0.1).isfinite().all()
    for call, error, message in (
        (
            lambda: total_variation(y, inverse.MRI(torch.ones(4), maps), float("nan")),
            ValueError,
            "`weight` must",
        ),
        (lambda: total_variation(y, inverse.MRI(torch.ones(4), maps), True), TypeError, "`weight` must"),
        (lambda: total_variation(y, object(), 0.1), TypeError, "`physics` must be a ForwardModel"),
        (lambda: total_variation(None, inverse.Denoising(), 0.1), TypeError, "`y` must"),
    ):
        with pytest.raises(error, match=message):
            call()


# ---------------------------------------------------------------------------------------- plug and play


def shrink(x, level):
    """The denoiser of a normal distribution around 0 of variance 1."""
    return x / (1 + level**2)


@pytest.mark.parametrize("momentum", [0.0, 0.6])
@pytest.mark.parametrize("name", MODELS)
def test_with_the_denoiser_of_a_known_prior_it_is_the_splitting(name, momentum):
    image = blocks(1, 24, 20) + 0j if name == "mri" else blocks(1, 1, 24, 20)
    physics = MODELS[name](0.5)
    y = physics(image)
    levels = [0.5, 0.3, 0.2]
    options = {"weight": 0.7, "iterations": 600, "momentum": momentum}
    x = plug_and_play(y, physics, shrink, levels, initial=0 * image, **options)
    # The same by a dense matrix.
    basis = torch.eye(480, dtype=image.dtype).reshape(480, *image.shape[1:])
    gram = torch.stack([physics.normal(e[None])[0].flatten() for e in basis], 1) / 0.25
    target = physics.adjoint(y)[0].flatten() / 0.25
    z = torch.zeros(480, dtype=image.dtype)

    def nearest(z, level):
        weight = 0.7 / level**2
        return torch.linalg.solve(gram + weight * torch.eye(480, dtype=z.dtype), target + weight * z)

    for k, level in enumerate(levels):
        found = shrink(nearest(z, level), level)
        z = found + momentum * (found - z) * (k > 0)
    torch.testing.assert_close(x[0].flatten(), nearest(z, levels[-1]), rtol=1e-6, atol=1e-6)


def test_the_denoiser_sees_all_orientations_and_the_image_comes_back():
    seen = []

    def spy(x, level):
        seen.append((x.clone(), level))
        return x

    image = torch.arange(12.0).reshape(1, 1, 3, 4)
    levels = [0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    x = plug_and_play(image, inverse.Denoising(1e-3), spy, levels)
    torch.testing.assert_close(x, image, rtol=1e-3, atol=1e-3)
    assert [level for _, level in seen] == levels
    corners = {(tuple(s.shape), round(float(s[0, 0, 0, 0])), round(float(s[0, 0, 0, 1]))) for s, _ in seen}
    assert len(corners) == 8


def test_parts_of_a_complex_image():
    seen = []

    def spy(x, level):
        seen.append(x)
        return 0.5 * x + 0.125

    x = torch.randn(3, 4, 5, dtype=torch.complex64)
    torch.testing.assert_close(complex_denoiser(spy)(x, 0.1), x / 2)
    assert seen[0].shape == (6, 1, 4, 5)


@pytest.mark.parametrize(
    "error, message, options",
    [
        (TypeError, "`physics` must be a ForwardModel", {"physics": None}),
        (TypeError, "`denoiser` must be a function", {"denoiser": 3}),
        (ValueError, "`levels` must be at least one", {"levels": []}),
        (ValueError, "`levels` must be numbers > 0", {"levels": [0.0]}),
        (ValueError, "`weight` must be a finite number > 0", {"weight": 0}),
        (ValueError, "`iterations` must", {"iterations": 0}),
        (ValueError, "`initial` must be images", {"initial": torch.zeros(1, 1, 2, 2)}),
        (
            ValueError,
            "`denoiser` must be a function that returns images",
            {"denoiser": lambda x, level: x[:, :, 1:]},
        ),
        (TypeError, "`y` must be", {"y": np.zeros((1, 1, 4, 5))}),
    ],
)
def test_bad_input(error, message, options):
    usual = {
        "y": torch.rand(1, 1, 4, 5),
        "physics": inverse.Denoising(0.1),
        "denoiser": shrink,
        "levels": [0.1],
    }
    with pytest.raises(error, match=message):
        plug_and_play(**{**usual, **options})


def test_examples():
    import importlib

    for name in ("plug_and_play", "total_variation"):
        module = importlib.import_module(f"amstel.inverse.{name}")
        result = doctest.testmod(module, extraglobs={"amstel": amstel, "torch": torch})
        assert result.attempted and not result.failed


# --------------------------------------------------------------------------------------------------- MRI


def head(size=(96, 80)):
    """A bright ellipse with dark squares, and a slow phase."""
    y, x = (torch.linspace(-1, 1, n) for n in size)
    inside = (y[:, None] ** 2 / 0.8 + x**2 / 0.7 < 1).float()
    return torch.polar(inside * (0.3 + 0.7 * blocks(*size, dtype=torch.float32)), (y[:, None] + x) * 0.8)[
        None
    ]


@pytest.fixture(scope="module")
def scan():
    rng = np.random.default_rng(0)
    mask, maps = cartesian_mask(80, 3, 0.15, rng), loop_sensitivities(6, (96, 80), rng)
    x = head()
    y = inverse.MRI(mask, maps, centered=True)(x)
    y = y + mask * 0.005 * noise(y)
    return x, y, mask, maps


def psnr(found, x):
    return float(-10 * ((found.abs() - x.abs()) / x.abs().max()).square().mean().log10())


def test_mri_by_the_denoiser_and_by_the_network_is_far_above_zero_filling_and_fits_the_measurements(scan):
    pytest.importorskip("safetensors")
    x, y, mask, maps = scan
    found = amstel.restore(y, "mri", mask=mask, sensitivities=maps)
    physics = inverse.MRI(mask, maps, centered=True)
    by_network = amstel.restore(y, "mri", mask=mask, sensitivities=maps, model="mri")
    assert min(psnr(found, x), psnr(by_network, x)) > psnr(physics.adjoint(y), x) + 5
    # It fits what was measured to the noise.
    assert (physics(found) - y)[..., mask].abs().square().mean().sqrt() < 2 * 0.005 * 1.5


def test_mri_by_a_denoiser_does_not_depend_on_units_gauge_or_company(scan):
    _, y, mask, maps = scan
    torch.manual_seed(0)
    model = RIM(1, 4, 2, network="unet").eval()
    run = lambda y, maps: amstel.restore(y, "mri", mask=mask, sensitivities=maps, model=model)  # noqa: E731
    found = run(y, maps)
    turn = torch.polar(torch.ones(96, 80), torch.linspace(0, 3, 80).expand(96, 80)) * 1e3
    for other, back in (
        (run(1e20 * y, maps), 1e-20),
        (run(1e-20 * y, maps), 1e20),
        (run(y, turn * maps), turn),
        (run(torch.cat([y, 2 * y])[1:], maps), 0.5),
    ):
        torch.testing.assert_close(other * back, found, rtol=1e-3, atol=1e-4)
    both = run(torch.cat([y, 3 * y.flip(1)]), torch.stack([maps, maps.flip(0)]))
    torch.testing.assert_close(both, torch.cat([found, 3 * found]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (8, 1), (3, 3)])
def test_mri_of_any_size_and_of_nothing(shape):
    torch.manual_seed(0)
    model = RIM(1, 4, 2, network="unet").eval()
    y = torch.randn(1, 2, *shape, dtype=torch.complex64)
    maps = torch.randn(2, *shape, dtype=torch.complex64)
    for mask in (torch.ones(shape[1]), torch.zeros(shape[1]), torch.ones(1, 1, *shape)):
        for given in (maps, 0 * maps):
            x = amstel.restore(y, "mri", mask=mask, sensitivities=given, model=model)
            assert x.isfinite().all() and x.shape == (1, *shape)
    assert (
        amstel.restore(0 * y, "mri", mask=torch.ones(shape[1]), sensitivities=maps, model=model).abs().max()
        == 0
    )


def test_a_model_by_name():
    pytest.importorskip("safetensors")
    y = np.random.default_rng(0).random((24, 24))
    named = amstel.restore(y, sigma=0.1, model="gray_conv")
    np.testing.assert_array_equal(named, amstel.restore(y, sigma=0.1, model=RIM.pretrained("gray_conv")))
    with pytest.raises(ValueError, match=r"`model` must be .*gray.*got 'nothing'"):
        amstel.restore(y, model="nothing")
    with pytest.raises(TypeError, match="`model` must be a RIM"):
        amstel.restore(y, model=3)


def test_coils_of_unlike_noise_count_by_it(monkeypatch):
    from amstel.inverse import canonical

    rng = np.random.default_rng(3)
    pair = lambda *s: torch.view_as_complex(torch.from_numpy(rng.standard_normal((*s, 2)).astype(np.float32)))  # noqa: E731
    image = blocks(64, 48, dtype=torch.float32) + 0j
    maps = loop_sensitivities(4, (64, 48), rng)
    mask = torch.from_numpy(rng.random((64, 48)) < 0.35)
    mask[26:38, 18:30] = True
    shared = (
        torch.diag(torch.tensor([1.0, 0.2, 0.2, 0.2])) + 0.2
    )  # one loud coil, and something that all receive
    noise = 0.1 * torch.einsum("ab,bhw->ahw", shared + 0j, pair(4, 64, 48))
    y = mask * (inverse.MRI(torch.ones(48), maps, centered=True)(image[None])[0] + noise)

    def error():
        x = amstel.restore(y[None], "mri", mask=mask, sensitivities=maps)[0]
        return (x - image).abs().square().mean().sqrt()

    found = error()
    monkeypatch.setattr(canonical, "_WHITE", 1.0)
    assert found < 0.8 * error()


def test_the_start_of_an_image_does_not_depend_on_its_company():
    """Of the measurements alone, by the noise of each image; the last pixel is unseen and 0 in every image."""
    mask = torch.ones(5, 6)
    mask[4, 5] = 0
    y = torch.rand(2, 1, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for sigma in (
        torch.tensor([0.01, 2.0]),
        torch.tensor([0.01, 2.0])[:, None, None, None].expand(2, 1, 5, 6),
    ):
        seen = []

        def denoiser(x, level, seen=seen):
            seen.append(x)
            return x

        plug_and_play(y, inverse.Inpainting(mask, sigma), denoiser, [0.2], weight=1.0, iterations=40)
        # x = argmin (x - y)^2 / sigma^2 + (x - z)^2 / 0.04, z = y / (1 + 1e-3)
        of = sigma.double().reshape(2, -1)[:, :1, None, None] ** -2
        expected = mask * y * (of + 25 / 1.001) / (of + 25)
        torch.testing.assert_close(seen[0], expected, rtol=1e-9, atol=1e-12)


def test_a_map_of_the_noise_goes_through_envelopes():
    sigma = torch.tensor([0.1, 0.4]).repeat(3)[None, None, None].expand(1, 1, 5, 6)
    image = blocks(1, 5, 6, dtype=torch.float32)[None]
    y = image + 1.0
    for physics in (inverse.Denoising(sigma), inverse.Inpainting(torch.ones(5, 6), sigma)):
        x = plug_and_play(y, physics, lambda t, level: image, [0.2], weight=1.0, iterations=60)
        expected = image + 1 / (1 + sigma.square() / 0.04)
        torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-4)
