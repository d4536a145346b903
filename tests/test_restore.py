"""`amstel.restore`: what comes back, against the network called by hand; tiles; files; the protocols; the shipped weights."""

import math

import numpy as np
import pytest
import torch

import amstel
from amstel import inverse, ops
from amstel.apps.restoration import demo as demonstration
from amstel.apps.restoration import evaluate as evaluation
from amstel.apps.restoration import files
from amstel.apps.restoration.files import Picture
from amstel.inverse.color import from_ycbcr, to_ycbcr
from amstel.inverse.holes import ROUNDS, fill, near, smooth
from amstel.inverse.noise import blend
from amstel.inverse.restore import sr_sigma
from amstel.nn import RIM
from amstel.testing import assert_close

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("skimage", reason="structural similarity is scikit-image's")

pytestmark = pytest.mark.usefixtures("one_thread")


def network(channels):
    """Random weights, and so few steps that a pixel depends on those within 32 pixels only."""
    torch.manual_seed(channels)
    model = RIM(channels, 8, 2, stride=2).eval()
    with torch.no_grad():
        model.conv3.weight.mul_(10)
    return model


GRAY, COLOR, COMPLEX = network(1), network(3), network(2)


class Start:
    """A network that leaves the estimate where it begins."""

    def __init__(self, channels=1):
        self.channels = channels

    def __call__(self, y, physics, steps=None, initial=None):
        return [physics.adjoint(y) if initial is None else initial]


def image(*shape, seed=0):
    return np.random.default_rng(seed).random(shape)


def by_hand(y, physics, model=GRAY, **options):
    with torch.no_grad():
        return model(y, physics, **options)[-1]


def denoised(y, sigma, model=GRAY, **options):
    """The network, its derivative along a random change, and what can be trusted of it."""
    found = by_hand(y, inverse.Denoising(sigma), model, **options)
    signs = torch.randint(0, 2, y.shape[1:], generator=torch.Generator().manual_seed(0)).to(y) * 2 - 1
    moved = by_hand(y + 0.1 * sigma * signs, inverse.Denoising(sigma), model, **options)
    kept = (moved - found) / (0.1 * sigma * signs)
    return blend(y, found, kept, torch.full((len(y),), sigma), torch.ones(len(y)))


# ------------------------------------------------------------------------------------------- restoring


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("shape, model", [((24, 17), GRAY), ((24, 17, 3), COLOR)])
def test_an_array_gives_an_array(dtype, shape, model):
    y = image(*shape).astype(dtype)
    kept = y.copy()
    x = amstel.restore(y, sigma=0.1, model=model)
    assert isinstance(x, np.ndarray) and x.dtype == dtype and x.shape == shape
    np.testing.assert_array_equal(y, kept)
    as_tensor = torch.from_numpy(y.astype(np.float32).reshape(24, 17, -1)).permute(2, 0, 1)[None]
    expected = denoised(as_tensor.contiguous(), 0.1, model)[0].permute(1, 2, 0)
    np.testing.assert_allclose(x, expected.reshape(shape), atol=1e-3 if dtype == np.float16 else 1e-5)


def test_any_memory_layout():
    y = image(20, 15, 3).astype(np.float32)
    expected = amstel.restore(y, model=COLOR)
    for same in (y[::-1].copy()[::-1], np.asfortranarray(y), y.astype(">f4")):
        found = amstel.restore(same, model=COLOR)
        np.testing.assert_array_equal(found, expected)
    y = torch.from_numpy(y).permute(2, 0, 1)[None]
    found = amstel.restore(y, model=COLOR)
    np.testing.assert_array_equal(found[0].permute(1, 2, 0), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_tensor_gives_a_tensor_without_gradient(dtype):
    y = torch.from_numpy(image(3, 1, 12, 13)).to(dtype).requires_grad_()
    x = amstel.restore(y, "denoise", 0.2, model=GRAY, steps=1)
    assert x.dtype == dtype and x.shape == y.shape and not x.requires_grad
    expected = denoised(y.detach().float(), 0.2, steps=1)
    torch.testing.assert_close(x, expected.to(dtype), rtol=1e-2 if x.itemsize < 4 else 1e-4, atol=1e-4)


def test_every_image_with_its_own_sigma():
    y, sigma = torch.rand(3, 1, 10, 11), torch.tensor([0.05, 0.1, 0.3], dtype=torch.float64)
    x = amstel.restore(y, sigma=sigma, model=GRAY)
    for n in range(3):
        alone = amstel.restore(y[n : n + 1], sigma=float(sigma[n]), model=GRAY)
        torch.testing.assert_close(x[n : n + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [2, 3])
def test_super_resolution_of_gray_and_color(scale):
    y = torch.rand(2, 1, 9, 14)
    x = amstel.restore(y, "sr", scale=scale, model=GRAY)
    physics = inverse.SuperResolution(scale, sr_sigma(scale))
    assert_close(x, by_hand(y, physics, initial=physics.adjoint(y) * scale**2))
    y = image(9, 14, 3)
    x = amstel.restore(y, "sr", scale=scale, model=GRAY)
    assert x.shape == (9 * scale, 14 * scale, 3)
    small, large = (to_ycbcr(torch.from_numpy(a).permute(2, 0, 1)[None]) for a in (y, x))
    luma = amstel.restore(small[:, :1], "sr", scale=scale, model=GRAY)
    chroma = ops.bicubic_down_adjoint(small[:, 1:].contiguous(), scale) * scale**2
    torch.testing.assert_close(large, torch.cat([luma, chroma], 1), atol=1e-5, rtol=0)


def test_ycbcr_as_the_standard_has_it():
    rgb = torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 1]]).T.reshape(1, 3, 2, 2).double()
    expected = torch.tensor([[235, 128, 128], [16, 128, 128], [81.481, 90.203, 240], [40.966, 240, 109.786]])
    assert (255 * to_ycbcr(rgb).reshape(3, 4).T - expected).abs().max() < 1e-3
    assert (from_ycbcr(to_ycbcr(rgb)) - rgb).abs().max() < 1e-14


def test_inpainting_alternates_with_the_known_pixels():
    y, mask = torch.rand(2, 3, 14, 11), torch.rand(2, 1, 14, 11) < 0.6
    known = mask.float().expand_as(y)
    start = x = smooth(fill(y * known, known), known)
    for level in ROUNDS:
        found = by_hand(x, inverse.Denoising(max(level, 8 / 255)), COLOR)
        x = torch.where(mask, y, found)
    found = torch.where(mask, found, start + near(known) * (found - start))
    weight = 0.1 * mask  # (8 / 3)^2 / ((8 / 3)^2 + 8^2)
    expected = weight * y + (1 - weight) * found
    x = amstel.restore(y, "inpaint", 8 / 255, mask=mask, model=COLOR)
    assert_close(x, expected)
    other = torch.where(mask, y, torch.rand_like(y))  # what holes hold does not matter
    assert torch.equal(amstel.restore(other, "inpaint", 8 / 255, mask=mask, model=COLOR), x)
    gray = image(14, 11)
    x = amstel.restore(gray, "inpaint", mask=mask[0, 0].numpy(), model=GRAY)
    assert abs(x - gray)[mask[0, 0]].max() < 0.3 * abs(x - gray).max()  # hardly any noise: kept
    again = amstel.restore(torch.from_numpy(gray)[None, None], "inpaint", mask=mask[:1], model=GRAY)
    np.testing.assert_array_equal(x, again[0, 0])


def test_the_smooth_filling_is_biharmonic():
    """A plane is filled exactly, what is known stays, and the sum of the squared Laplacian is as small as can be."""
    v, u = torch.meshgrid(torch.linspace(0, 1, 24), torch.linspace(0, 1, 30), indexing="ij")
    mask = torch.ones(1, 1, 24, 30)
    mask[..., 6:13, 8:16] = 0
    plane = (0.2 + 0.3 * u + 0.4 * v)[None, None]
    torch.testing.assert_close(smooth(plane * mask, mask), plane, atol=2e-3, rtol=0)
    x = torch.rand(1, 1, 24, 30, generator=torch.Generator().manual_seed(0)).double()
    x = torch.nn.functional.avg_pool2d(x, 5, 1, 2)
    mask = mask.double()
    found = smooth(x * mask, mask)
    assert torch.equal(found * mask, x * mask)
    laplacian = torch.nn.functional.conv2d(
        found, found.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None], padding=1
    )
    twice = torch.nn.functional.conv2d(
        laplacian, found.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    )
    assert twice[0, 0, 5:12, 7:15].abs().max() < 0.02 * twice.abs().max()
    weight = near(mask.float())[0, 0]
    assert weight[5, 10] == 1 and weight[6, 10] == pytest.approx(math.exp(-1 / 9)) and weight[9, 12] < 0.2


@pytest.mark.parametrize("kind", ["block", "random"])
def test_inpainting_is_about_as_good_as_biharmonic_or_better(kind):
    from skimage import data
    from skimage.restoration import inpaint_biharmonic

    rng = np.random.default_rng(0)
    x = data.camera()[100:196, 190:286] / 255
    mask = np.ones(x.shape, bool)
    for _ in range(4):
        i, j = rng.integers(2, 80, 2)
        mask[i : i + 12, j : j + 12] = False
    mask = mask if kind == "block" else rng.random(x.shape) > 0.5
    scores = [
        evaluation.psnr(found[~mask], x[~mask])
        for found in (
            amstel.restore(np.where(mask, x, 0), "inpaint", mask=mask),
            inpaint_biharmonic(np.where(mask, x, 0), ~mask),
        )
    ]
    assert scores[0] > scores[1] + (1 if kind == "random" else -0.2)


def test_holes_are_filled_smoothly():
    mask = (torch.rand(1, 1, 37, 50, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    mask[..., 8:16, 8:16] = 0
    ramp = torch.linspace(0, 1, 50).expand(1, 2, 37, 50)
    filled = fill(ramp * mask, mask)
    assert torch.equal(filled * mask, ramp * mask)
    assert (filled - ramp).abs().max() < 0.1
    assert_close(fill(0.7 * mask, mask), torch.full_like(mask, 0.7))
    assert torch.equal(fill(ramp, torch.ones(1, 1, 37, 50)), ramp)
    assert fill(torch.zeros(1, 1, 5, 3), torch.zeros(1, 1, 5, 3)).abs().max() == 0  # nothing known


def test_mri_is_the_network_in_the_gauge_of_its_training():
    from amstel.data.mri import cartesian_mask, estimate_sensitivities
    from amstel.inverse.canonical import whitened
    from amstel.inverse.restore import mri_physics

    rng = np.random.default_rng(0)
    mask = cartesian_mask(40, 2, 0.2, rng)
    kspace = torch.from_numpy(rng.standard_normal((3, 32, 40, 2))).float()
    kspace = torch.view_as_complex(kspace)
    x = amstel.restore(kspace.numpy(), "mri", mask=mask, model=COMPLEX)
    assert x.shape == (32, 40) and x.dtype == np.complex64
    # Here the calibration is the one that gives the phase, so that the estimated maps are canonical as they are but for
    # the columns that the mask leaves out of the middle.
    given, maps = whitened(kspace, mask, estimate_sensitivities(kspace, mask))
    strength = maps.abs().square().sum(0).sqrt()
    maps = maps / strength
    low = inverse.MRI(mask, maps, centered=True).adjoint((given * _middle(32, 40))[None])[0]
    physics = inverse.MRI(mask, maps * torch.sgn(low), centered=True)
    zero_filled = physics.adjoint(given[None])
    scale = 1.2 * zero_filled.abs().flatten().sort().values[round(0.99 * 32 * 40) - 1]
    found = by_hand(given[None] / scale, mri_physics(physics), COMPLEX)[0] * scale * torch.sgn(low) / strength
    torch.testing.assert_close(torch.from_numpy(x), found, rtol=1e-4, atol=1e-4)
    wide = amstel.restore(
        kspace[None].to(torch.complex128), "mri", mask=mask.expand(1, 1, 32, 40), model=COMPLEX
    )
    assert wide.dtype == torch.complex128
    torch.testing.assert_close(wide[0].to(torch.complex64), found, rtol=1e-4, atol=1e-4)


def _middle(height, width):
    """A Hann window over the middle 32 samples per side."""
    sides = []
    for n in (height, width):
        side = torch.zeros(n)
        side[n // 2 - 16 : n // 2 + 16] = torch.hann_window(34, periodic=False)[1:-1]
        sides.append(side)
    return torch.outer(*sides)


@pytest.mark.parametrize("task", ["denoise", "inpaint", "sr"])
@pytest.mark.parametrize("shape", [(1, 1, 301, 170), (3, 1, 130, 128), (5, 1, 60, 60), (1, 1, 129, 5)])
def test_tiles_leave_no_seam(task, shape):
    y = torch.from_numpy(image(*shape)).float()
    options = {"mask": y > 0.2} if task == "inpaint" else {}
    done = []
    if task == "denoise":
        options["sigma"] = 0.1
    x = amstel.restore(y, task, model=GRAY, tile=128, progress=done.append, **options)
    whole = amstel.restore(y, task, model=GRAY, tile=4096, **options)
    assert sum(done) == y.numel() and len(done) > 1
    assert (x - whole).abs().max() < 1e-5


def test_strips_of_a_large_image_leave_no_seam(monkeypatch):
    """In the order of memory in which the array came, without a copy of it."""
    y = image(1100, 40, 3).astype(np.float32)
    whole, done = amstel.restore(y, sigma=0.1, model=COLOR), []
    level = np.full((1100, 40), 0.1)
    monkeypatch.setattr("amstel.inverse.restore.STRIP", 0)
    for sigma in (0.1, level):
        x = amstel.restore(y, sigma=sigma, model=COLOR, progress=done.append)
        assert abs(x - whole).max() < 1e-5 and x.flags.c_contiguous
    assert done == [552 * 40, 548 * 40] * 2


def test_tiles_bound_what_the_network_sees():
    class Spy(Start):
        def __call__(self, y, physics, steps=None, initial=None):
            seen.append(tuple(y.shape))
            return super().__call__(y, physics, steps, initial)

    seen = []
    amstel.restore(np.zeros((1000, 700), np.float32), sigma=0.1, model=Spy(), tile=256)
    assert max(shape[2] * shape[3] for shape in seen) <= 256**2 and len(seen) < 80
    seen.clear()
    amstel.restore(torch.zeros(40, 1, 64, 64), sigma=0.1, model=Spy(), tile=128)
    assert seen == [(4, 1, 64, 64)] * 20  # the network twice


K = np.zeros((2, 8, 9), np.complex64)


@pytest.mark.parametrize(
    "given, options, message",
    [
        (image(8, 8), {"task": "sharpen"}, "`task` must be one of .*, got 'sharpen'"),
        (image(8, 8), {"task": "deblur"}, "`kernel` must be given for the task deblur"),
        (image(8, 8), {"task": "deblur", "kernel": np.ones((3, 3))}, "`kernel` must have a sum of 1"),
        (image(8, 8), {"task": "deblur", "kernel": np.ones((2, 3)) / 6}, "`kernel` must be .* odd sides"),
        (
            image(8, 8),
            {"task": "deblur", "kernel": np.ones((9, 9)) / 81},
            "`kernel` must be .* as large as the image",
        ),
        (image(8, 8), {"kernel": np.ones((3, 3)) / 9}, "`kernel` must be None for the task denoise"),
        (image(8, 8, 4), {}, r"`image` must be an array \[H, W\] or \[H, W, 3\], got \[8, 8, 4\]"),
        (image(8), {}, r"`image` must be an array .* got \[8\]"),
        (image(1, 1, 8, 8), {}, "`image` must be an array"),
        (torch.zeros(8, 8), {}, r"`image` must be a tensor \[N, 1, H, W\]"),
        (torch.zeros(1, 2, 8, 8), {}, r"`image` must be a tensor \[N, 1, H, W\]"),
        (np.zeros((8, 8), np.uint8), {}, "`image` must be floating point .*divided by 255"),
        (np.zeros((8, 8), np.complex64), {}, "`image` must be floating point"),
        (np.zeros((0, 8)), {}, "not empty"),
        (np.full((8, 8), np.nan), {}, "`image` must be finite"),
        (255 * image(8, 8), {}, r"`image` must be in \[0, 1\]"),
        (image(8, 8), {"sigma": 0}, "`sigma` must be a number > 0"),
        (image(8, 8), {"sigma": -1.0}, "`sigma` must be a number > 0"),
        (image(8, 8), {"sigma": float("inf")}, "`sigma` must be a number > 0"),
        (image(8, 8), {"sigma": "25"}, "`sigma` must be a number > 0"),
        (image(8, 8), {"sigma": torch.ones(2)}, "`sigma` must be a number > 0"),
        (image(8, 8), {"sigma": 0.1, "task": "sr"}, "`sigma` must be None for the task sr"),
        (image(8, 8), {"task": "sr", "scale": 1}, "`scale` must be an integer >= 2"),
        (image(8, 8), {"task": "sr", "scale": 2.0}, "`scale` must be an integer >= 2"),
        (image(8, 8), {"steps": -1}, "`steps` must be an integer >= 1"),
        (image(8, 8), {"tile": 16}, "`tile` must be an integer >= 128"),
        (
            image(8, 8),
            {"model": COLOR},
            "`model` must be a network of 1 channel, got one of 3, which is for color images: use",
        ),
        (image(8, 8), {"mask": np.ones((8, 8))}, "`mask` must be None for the task denoise"),
        (image(8, 8), {"task": "inpaint"}, "`mask` must be given for the task inpaint"),
        (image(8, 8), {"task": "inpaint", "mask": np.ones((8, 7))}, r"`mask` must be \[8, 8\]"),
        (image(8, 8), {"task": "inpaint", "mask": np.full((8, 8), 2.0)}, "`mask`"),
        (image(8, 8), {"task": "inpaint", "mask": np.ones((8, 8, 3))}, "`mask`"),
        (image(8, 8), {"task": "mri", "mask": np.ones(8)}, r"`image` must be an array \[coils, H, W\]"),
        (image(2, 8, 9), {"task": "mri", "mask": np.ones(9)}, "`image` must be complex"),
        (K, {"task": "mri"}, "`mask` must be given"),
        (K, {"task": "mri", "mask": np.ones(8), "model": COMPLEX}, "`mask`"),
        (
            K,
            {"task": "mri", "mask": np.ones(9), "sensitivities": K[:1], "model": COMPLEX},
            "`sensitivities` must be",
        ),
    ],
)
def test_bad_input(given, options, message):
    with pytest.raises(ValueError, match=message):
        amstel.restore(given, **{"model": GRAY, **options})


def test_bad_type():
    with pytest.raises(TypeError, match="`image` must be a NumPy array or a tensor"):
        amstel.restore([[0.5]])


# ---------------------------------------------------------------------------------------------- pictures


def picture(channels, alpha, bits):
    levels = np.random.default_rng(0).integers(0, 2**bits, (7, 9, 4)).astype(np.float32) / (2**bits - 1)
    colors = levels[..., 0] if channels == 1 else levels[..., :3]
    return Picture(colors, levels[..., 3] if alpha else None, bits)


def same(a, b):
    assert a.bits == b.bits and (a.alpha is None) == (b.alpha is None)
    np.testing.assert_array_equal(a.pixels, b.pixels)
    if a.alpha is not None:
        np.testing.assert_array_equal(a.alpha, b.alpha)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_come_back(tmp_path, channels, alpha, bits, suffix):
    if bits == 16 and (alpha or channels == 3):
        pytest.importorskip("cv2")
    file, given = tmp_path / f"picture{suffix}", picture(channels, alpha, bits)
    files.write(file, given)
    found = files.read(file)
    same(found, given)


def test_what_is_neither_gray_nor_rgb_is_converted(tmp_path):
    rgb = Image.fromarray((255 * image(12, 10, 3)).astype(np.uint8))
    rgb.quantize(16).save(tmp_path / "palette.png")
    rgb.quantize(16).save(tmp_path / "clear.png", transparency=3)
    rgb.convert("CMYK").save(tmp_path / "cmyk.jpg")
    rgb.convert("1").save(tmp_path / "bits.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    rgb.save(tmp_path / "turned.png", exif=turned)
    palette = files.read(tmp_path / "palette.png")
    expected = np.asarray(rgb.quantize(16).convert("RGB"), np.float32) / 255
    np.testing.assert_array_equal(palette.pixels, expected)
    clear = files.read(tmp_path / "clear.png")
    assert clear.pixels.shape == (12, 10, 3) and set(np.unique(clear.alpha)) == {0, 1}
    assert files.read(tmp_path / "cmyk.jpg").pixels.shape == (12, 10, 3)
    bits = files.read(tmp_path / "bits.png")
    assert bits.pixels.shape == (12, 10) and set(np.unique(bits.pixels)) == {0, 1} and bits.bits == 8
    assert files.read(tmp_path / "turned.png").pixels.shape == (10, 12, 3)


def test_gray_with_alpha_of_16_bits_in_a_png(tmp_path):
    """Pillow reads it as 8 bits RGBA; the file is put together by hand, as neither library writes it."""
    import struct
    import zlib

    pytest.importorskip("cv2")
    pixels = np.random.default_rng(0).integers(0, 65536, (5, 4, 2), dtype=np.uint16)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 5, 16, 4, 0, 0, 0))
    data = header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "la.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    values = pixels.astype(np.float32) / 65535
    same(files.read(tmp_path / "la.png"), Picture(values[..., 0], values[..., 1], 16))


def test_files_that_cannot_be(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing of the kind")
    (tmp_path / "empty").mkdir()
    Image.new("L", (64, 64)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    for name in ("broken.png", "cut.png"):
        with pytest.raises(OSError, match=f"{name} is not an image that can be read"):
            files.read(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png does not exist"):
        files.read(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match="at least one image"):
        files.find(tmp_path / "empty")
    for name, given, message in (
        ("a.gif", picture(1, False, 8), "must end in one of .png"),
        ("a.jpg", picture(3, True, 8), "hold an alpha channel"),
        ("a.webp", picture(3, False, 16), "hold 16 bits"),
        ("a.png", Picture(np.zeros((3, 3, 2), np.float32)), r"`pixels` must be an array \[H, W\]"),
    ):
        with pytest.raises(ValueError, match=message):
            files.write(tmp_path / name, given)
        assert not (tmp_path / name).exists()


# ------------------------------------------------------------------------------------------ the protocols


@pytest.fixture
def folder(tmp_path):
    """Two images, one of them in color, smooth enough to enlarge."""
    y, x = np.mgrid[:40, :50] / 8
    waves = 0.5 + 0.4 * np.stack([np.sin(x + y), np.cos(x), np.sin(2 * y)], 2)
    files.write(tmp_path / "gray.png", Picture(waves[..., 0]))
    files.write(tmp_path / "tint.png", Picture(waves[:37]))
    return tmp_path


def test_denoising_protocol(folder):
    (folder / "tint.png").unlink()
    files.write(folder / "more.png", Picture(image(20, 30, seed=3)))
    calls = []
    rows = evaluation.denoising(folder, (15, 50), seeds=2, model=Start(), progress=calls.append)
    assert len(calls) == 8 and [row["sigma"] for row in rows] == [15, 50]
    truth = [np.asarray(Image.open(folder / name)) / 255 for name in ("gray.png", "more.png")]
    for row in rows:
        plain, eight = [], []
        for seed in (0, 1):
            for number, t in enumerate(truth):
                noise = np.random.default_rng([seed, number]).standard_normal(t.shape)
                y = t + row["sigma"] / 255 * noise
                for scores, result in ((plain, y), (eight, np.round(255 * y).clip(0, 255) / 255)):
                    scores.append(-10 * np.log10(np.mean((result - t) ** 2)))
        assert abs(row["noisy"] - np.mean(plain)) < 1e-4 and abs(row["psnr"] - np.mean(plain)) < 1e-4
        assert abs(row["psnr_8bit"] - np.mean(eight)) < 1e-3 and row["psnr_8bit"] > row["psnr"]
        np.testing.assert_allclose(row["psnr_seeds"], np.reshape(plain, (2, 2)).mean(1), atol=1e-4)
        assert row["images"] == 2 and row["seeds"] == 2
    assert "2 images, 2 seeds" in evaluation.table(rows)


def test_super_resolution_protocol(folder):
    calls = []
    rows = evaluation.super_resolution(folder, (2, 3), model=Start(), progress=calls.append)
    assert len(calls) == 4 and [row["scale"] for row in rows] == [2, 3]
    for row in rows:  # this network is bicubic enlargement
        for score in ("psnr", "psnr_8bit", "ssim"):
            assert abs(row[score] - row["bicubic"][score]) < 1e-4
    rgb = np.asarray(Image.open(folder / "tint.png")).astype(np.float64)
    y = np.round(16 + rgb @ np.array([65.481, 128.553, 24.966]) / 255)
    np.testing.assert_allclose(255 * evaluation.luma(files.read(folder / "tint.png").pixels), y, atol=1e-4)
    # By Pillow, whose filter is the same but for the border: it rounds the sums of each direction, so by 1 at most.
    cropped = y[:36, :48]
    small = np.asarray(Image.fromarray(cropped.astype(np.uint8)).resize((16, 12), Image.Resampling.BICUBIC))
    ours = 255 * evaluation.reduced((cropped / 255).astype(np.float32), 3)
    assert abs(ours - small)[2:-2, 2:-2].max() < 1.001 and abs(ours - np.round(ours)).max() < 1e-4
    large = np.asarray(Image.fromarray(small).resize((48, 36), Image.Resampling.BICUBIC))
    assert abs(255 * evaluation.enlarged(small / 255, 3) - large)[6:-6, 6:-6].max() < 1.001


def test_scores():
    x, y = np.full((16, 16), 0.5), np.full((16, 16), 0.6)
    assert abs(evaluation.psnr(x, y) - 20) < 1e-9 and evaluation.psnr(x, x) == float("inf")
    assert evaluation.ssim(x, x) == 1
    for name, call in (("sigmas", evaluation.denoising), ("scales", evaluation.super_resolution)):
        with pytest.raises(ValueError, match=f"`{name}` must be at least one number"):
            call("nowhere", [])


@pytest.mark.data
def test_bicubic_scores_of_the_literature(data_folder):
    """Set5, bicubic: 33.66, 30.39, 28.42 dB and 0.9299, 0.8682, 0.8104 (as in Timofte et al., A+, 2014)."""
    rows = evaluation.super_resolution(data_folder / "images" / "set5", model=Start())
    found = [(row["bicubic"]["psnr"], row["bicubic"]["ssim"]) for row in rows]
    expected = [(33.66, 0.9299), (30.39, 0.8682), (28.42, 0.8104)]
    np.testing.assert_allclose([p for p, _ in found], [p for p, _ in expected], atol=0.02)
    np.testing.assert_allclose([s for _, s in found], [s for _, s in expected], atol=0.001)


# -------------------------------------------------------------------------------------- the weights that ship


@pytest.mark.parametrize("sigma, gain", [(15, 6.0), (25, 8.0), (50, 11.0)])
@pytest.mark.parametrize("color", [False, True])
def test_shipped_denoisers(sigma, gain, color):
    from skimage import data

    clean = (data.astronaut() if color else data.camera())[40:168, 160:288] / np.float32(255)
    noise = np.random.default_rng(0).standard_normal(clean.shape, np.float32)
    noisy = clean + np.float32(sigma / 255) * noise
    restored = amstel.restore(noisy, sigma=sigma / 255)
    assert evaluation.psnr(restored, clean) > evaluation.psnr(noisy, clean) + gain


@pytest.mark.parametrize("color", [False, True])
def test_shipped_denoisers_inpaint(color):
    from skimage import data

    clean = (data.astronaut() if color else data.camera())[40:168, 160:288] / np.float32(255)
    known = np.random.default_rng(0).random((128, 128)) < 0.7
    given = clean * (known[..., None] if color else known)
    x = amstel.restore(given, "inpaint", mask=known)
    start = amstel.restore(given, "inpaint", mask=known, model=Start(3 if color else 1))
    assert evaluation.psnr(x, clean) > evaluation.psnr(start, clean) + (0.1 if color else 0.5)


@pytest.mark.parametrize("scale, gain", [(2, 0.8), (3, 0.5), (4, 0.3)])
def test_shipped_super_resolution(scale, gain):
    from skimage import data

    clean = evaluation.luma(data.astronaut()[:240, 120:360] / np.float32(255))
    small = evaluation.reduced(clean, scale)
    larger = amstel.restore(small, "sr", scale=scale)
    bicubic = evaluation.enlarged(small, scale)
    assert evaluation.psnr(larger, clean) > evaluation.psnr(bicubic, clean) + gain


def test_examples_of_the_demo():
    found = {example.name: example for example in demonstration.examples()}
    gains = {name: example.scores[-1] - example.scores[0] for name, example in found.items()}
    assert gains["denoise"] > 11 and gains["sr"] > 1 and gains["mri"] > 6
    for example in found.values():
        assert len(example.steps) >= 2 and example.scores[-1] > max(example.scores) - 0.05
        assert example.steps[-1].shape == example.truth.shape
        assert "step by step" in example.said()
