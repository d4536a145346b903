"""Clean and awkward images, which a denoiser must not spoil: with the weights that ship, never worse than the input."""

import math
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import amstel

pytestmark = pytest.mark.usefixtures("one_thread")


def psnr(x, truth):
    """As 8-bit files would have it, so that nothing changed is infinitely good."""
    x, truth = (np.rint(255 * np.clip(a, 0, 1)) for a in (x, truth))
    error = np.square(x - truth).mean()
    return 20 * math.log10(255) - 10 * math.log10(error) if error else math.inf


def _text(size, rng):
    page = np.ones((size, size))
    for top in range(8, size - 12, 14):
        for left in range(6, size - 10, 9):
            for _ in range(3):
                r, c = top + rng.integers(0, 7), left + rng.integers(0, 5)
                if rng.integers(2):
                    page[top : top + 9, c : c + 1 + rng.integers(2)] = 0
                else:
                    page[r : r + 1 + rng.integers(2), left : left + 6] = 0
    return page


def _awkward():
    """Name -> clean 8-bit gray image in [0, 1]."""
    from skimage import data

    rng, size = np.random.default_rng(0), 128
    y, x = np.mgrid[:size, :size]
    photo = data.camera()[100:228, 150:278] / 255
    lines = np.ones((size, size))
    for k in range(9):
        lines[np.abs(np.hypot(x - 64, y - 60) - 7 * k) < 0.7] = 0
        lines[np.abs(x - 3 * y + 40 * k - 100) < 1.6] = 0
    made = {
        "flat": np.full((size, size), 0.5),
        "black": np.zeros((size, size)),
        "ramp": np.broadcast_to(x / (size - 1), (size, size)),
        "slanted ramp": (x + 2 * y) / (3 * (size - 1)) * 0.6 + 0.2,
        "text": _text(size, rng),
        "checkerboard": (x // 4 + y // 4) % 2,
        "fine checkerboard": (x + y) % 2,
        "saturated": np.clip((photo - 0.4) * 6 + 0.5, 0, 1),
        "night": 0.12 * photo**3 + ((x - 90) ** 2 + (y - 30) ** 2 < 20) * 0.9,
        "line art": lines,
        "camera": photo,
        "astronaut": data.astronaut()[..., 1][20:148, 160:288] / 255,
    }
    return {name: np.rint(255 * np.clip(image, 0, 1)) / 255 for name, image in made.items()}


AWKWARD = (
    "flat", "black", "ramp", "slanted ramp", "text", "checkerboard", "fine checkerboard", "saturated", "night",
    "line art", "camera", "astronaut",
)  # fmt: skip


@pytest.fixture(scope="module")
def awkward():
    pytest.importorskip("safetensors")
    pytest.importorskip("skimage")
    return _awkward()


@pytest.mark.parametrize("name", AWKWARD)
def test_the_default_call_is_never_worse_than_its_input(awkward, name):
    """Clean, with little noise and with much, as files of 8 bits have it."""
    clean = awkward[name]
    noise = np.random.default_rng(1).standard_normal(clean.shape)
    for sigma in (0, 1, 3, 6, 15, 25):
        y = np.rint(255 * np.clip(clean + sigma / 255 * noise, 0, 1)) / 255
        x = amstel.restore(y)
        assert psnr(x, clean) > psnr(y, clean) - 0.1 or psnr(x, clean) == math.inf, sigma


@pytest.mark.parametrize("name", AWKWARD)
def test_a_given_level_is_never_worse_than_the_input(awkward, name):
    clean = awkward[name]
    noise = np.random.default_rng(1).standard_normal(clean.shape)
    for sigma in (0.5, 1, 2, 3, 5, 10, 25):
        y = clean + sigma / 255 * noise
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # below the trained noise
            x = amstel.restore(y, sigma=sigma / 255)
        assert np.square(x - clean).mean() < 1.0233 * np.square(y - clean).mean(), sigma  # 0.1 dB


def test_a_clean_photograph_in_color_comes_back(awkward):
    from skimage import data

    for photo in (data.astronaut()[:200, :200], data.coffee()[100:300, 200:400], data.chelsea()[:200, :200]):
        x = amstel.restore(photo / 255)
        assert psnr(x, photo / 255) == math.inf


def test_noise_told_and_not_there_takes_no_more_than_it(awkward):
    """Told 5 of a flat gray without noise, it came back off by up to 61 of 255."""
    flat = awkward["flat"]
    for sigma in (5, 25):
        assert 255 * abs(amstel.restore(flat, sigma=sigma / 255) - flat).max() < sigma


def test_dots_of_a_printer_are_no_noise():
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, 96)[None].repeat(96, 0)
    for levels in (1, 3):
        dots = (np.floor(levels * ramp + rng.random((96, 96))) / levels).clip(0, 1).astype(np.float32)
        restored, sigma = amstel.restore(dots, return_sigma=True)
        assert sigma < 1e-9 and np.array_equal(restored, dots)
    # Noise makes more values than that, also after rounding.
    noisy = (255 * (0.5 + 5 / 255 * rng.standard_normal((96, 96)))).round() / 255
    assert amstel.restore(noisy.astype(np.float32), return_sigma=True)[1] == pytest.approx(5 / 255, rel=0.15)


@pytest.mark.parametrize("every", [6, 8])
def test_thin_lines_with_noise_that_was_clipped_away(every):
    yy, xx = np.mgrid[:96, :96]
    lines = ((xx % every == 0) | (yy % every == 0)).astype(np.float32)
    noise = np.random.default_rng(0).standard_normal(lines.shape)
    noisy = ((lines + 25 / 255 * noise).clip(0, 1) * 255).round().astype(np.float32) / 255
    restored = amstel.restore(noisy, sigma=25 / 255)
    error = [np.mean((t - lines) ** 2) for t in (restored, noisy)]
    assert error[0] < 1.26 * error[1]  # 1 dB; as if nothing had been clipped it is 2


@pytest.mark.parametrize("kind", ["big endian", "turned", "picture", "list", "half"])
def test_masks_kernels_and_maps_of_any_kind(kind):
    change = {
        "big endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
        "turned": lambda a: np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1],
        "picture": lambda a: Image.fromarray(a) if a.dtype == bool else a,
        "list": lambda a: a.tolist(),
        "half": lambda a: a.astype(np.float16) if a.dtype.kind == "f" else a,
    }[kind]
    rng = np.random.default_rng(0)
    image, mask, kernel = rng.random((17, 20)), rng.random((17, 20)) < 0.7, np.eye(3) / 4 + 1 / 36
    expected = amstel.restore(image, "inpaint", mask=mask)
    assert np.array_equal(amstel.restore(image, "inpaint", mask=change(mask)), expected)
    expected = amstel.restore(image, "deblur", kernel=kernel)
    assert np.allclose(amstel.restore(image, "deblur", kernel=change(kernel)), expected, atol=0.02)
    kspace = rng.standard_normal((2, 17, 20)) + 1j * rng.standard_normal((2, 17, 20))
    expected = amstel.restore(kspace, "mri", mask=mask, sensitivities=kspace)
    found = amstel.restore(kspace, "mri", mask=change(mask), sensitivities=change(kspace))
    assert np.allclose(found, expected)


def test_what_has_no_pixels_is_refused_by_name():
    x, k = torch.rand(1, 1, 8, 8), np.ones((3, 3)) / 9
    for message, call in (
        ("`image` must be dense", lambda: amstel.restore(x.to_sparse())),
        ("`image` must be dense and with values", lambda: amstel.restore(x.to("meta"))),
        ("`image` must be .* picture", lambda: amstel.restore(Image.new("RGB", (8, 8)))),
        ("`mask` must be dense", lambda: amstel.restore(x, "inpaint", mask=torch.ones(8, 8).to_sparse())),
        ("`mask` must be", lambda: amstel.restore(x, "inpaint", mask="all")),
        ("`mask` must be", lambda: amstel.restore(x, "inpaint", mask=np.ma.ones((8, 8)))),
        (
            "`mask` must be with values",
            lambda: amstel.restore(x, "inpaint", mask=torch.ones(8, 8, device="meta")),
        ),
        ("`kernel` must be", lambda: amstel.restore(x, "deblur", kernel=np.ma.array(k))),
        (
            "`sensitivities` must be",
            lambda: amstel.restore(x + 0j, "mri", mask=np.ones(8), sensitivities=[None]),
        ),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            call()


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_flat_image_stays_flat_in_every_task(value, channels):
    """Its holes, its enlargement, and what it was before a blur; with noise that is told and not there."""
    y = np.full((40, 52, 3)[: channels // 3 + 2], value)
    mask = np.ones((40, 52), bool)
    mask[12:28, 16:36] = False
    for task, options in (
        ("denoise", {"sigma": 25 / 255}),
        ("inpaint", {"mask": mask}),
        ("deblur", {"kernel": amstel.inverse.gaussian_kernel(1.6)}),
        ("sr", {"scale": 4}),
    ):
        x = amstel.restore(y, task, **options)
        assert abs(x - value).max() < 1e-6 if task != "sr" else abs(x - value).max() < 1e-3, task


def test_values_that_are_no_image():
    for bad in (np.arange(12.0).reshape(3, 4), 9 * np.ones((8, 8))):  # 8-bit pixels, dark ones
        with pytest.raises(ValueError, match=r"`image` must be in \[0, 1\] .* divided by 255"):
            amstel.restore(bad)
    for bad in (np.array([["a"]]), np.ones((2, 2), object)):
        with pytest.raises(TypeError, match=r"`image` must be an array .* of numbers"):
            amstel.restore(bad)
    with pytest.raises(TypeError, match="`sigma` must be"):
        amstel.restore(np.ones((8, 8)), sigma=torch.tensor(True))


def test_of_a_few_pixels_no_more_noise_is_estimated_than_they_vary():
    y = torch.rand(4, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    assert (amstel.inverse.estimate_sigma(y) <= y.flatten(1).std(1, correction=0) + 1e-6).all()


def test_known_pixels_of_a_clean_photograph_stay_near(awkward):
    """Denoising takes texture, which a known pixel without noise has; it moved by up to six times the noise assumed."""
    from skimage import data

    image = data.camera()[100:228, 60:188].astype(np.float32) / 255
    mask = np.random.default_rng(0).random(image.shape) > 0.5
    found = amstel.restore(np.where(mask, image, 0).astype(np.float32), "inpaint", mask=mask)
    moved = 255 * np.abs(found - image)[mask]
    assert np.sqrt((moved**2).mean()) < 0.75 and moved.max() < 3.5
