"""Data, coil sensitivities, masks, the total-variation baseline and the evaluation of MRI, on made-up and on real k-space."""

import doctest
from importlib import import_module

import numpy as np
import pytest
import torch

import amstel
from amstel.apps.restoration import mri as recipe
from amstel.data import mri
from amstel.data.mri import images as coil_images
from amstel.data.mri import sensitivities
from amstel.inverse import MRI
from amstel.nn.rim import RIM
from amstel.reference.mri import ifft2

pytestmark = pytest.mark.usefixtures("one_thread")


def ellipse(height=64, width=56, half=0.8):
    """A smooth object with a darker disc, in [0, 1]."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    edge = (half - (y.square() + 1.2 * x.square()).sqrt()) * 20
    hole = (0.3 - ((y - 0.2).square() + x.square()).sqrt()) * 20
    return edge.sigmoid() * (1 - 0.5 * hole.sigmoid())


def brain_like(coils=6, height=64, width=56, noise=0.003, seed=0, phase=0.0):
    """Fully sampled k-space of the ellipse, the coils behind it, and the image."""
    rng = np.random.default_rng(seed)
    s = mri.loop_sensitivities(coils, (height, width), rng)
    x = torch.polar(ellipse(height, width), torch.as_tensor(phase).expand(height, width))
    y = MRI(torch.ones(width), s, centered=True)(x[None])[0]
    y = (
        y
        + noise
        * torch.from_numpy(rng.standard_normal((*y.shape, 2), np.float32)).view(torch.complex64)[..., 0]
    )
    return y, s, x


# --------------------------------------------------------------------------------------------- readers


def test_read_kspace(tmp_path):
    y = np.random.default_rng(0).normal(size=(3, 4, 5, 2)).view(np.complex128)[..., 0]
    np.save(tmp_path / "y.npy", y)
    found = mri.read_kspace(tmp_path / "y.npy")
    assert found.dtype == torch.complex64 and np.allclose(found, y)
    np.save(tmp_path / "one.npy", y[0].astype(np.complex64))
    assert mri.read_kspace(tmp_path / "one.npy").shape == (1, 4, 5)


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros((2, 3, 4)), r"complex k-space \[coils, H, W\] or \[H, W\], got float64 \[2, 3, 4\]"),
        (np.zeros((2, 3, 4, 2), np.float32), r"got float32 \[2, 3, 4, 2\]"),
        (np.zeros((1, 2, 3, 4), complex), r"got complex128 \[1, 2, 3, 4\]"),
        (np.zeros(5, complex), r"got complex128 \[5\]"),
        (np.zeros((2, 0, 4), complex), r"got complex128 \[2, 0, 4\]"),
        (np.full((2, 3, 4), np.nan + 0j), "finite numbers"),
    ],
)
def test_read_kspace_refuses(tmp_path, array, message):
    np.save(tmp_path / "y.npy", array)
    with pytest.raises(ValueError, match=message):
        mri.read_kspace(tmp_path / "y.npy")


def test_read_what_is_no_array(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the k-space .* does not exist"):
        mri.read_kspace(tmp_path / "none.npy")
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.savez(tmp_path / "many.npz", np.zeros((2, 2), complex))
    for name, message in (
        ("text.npy", "without pickled objects"),
        ("objects.npy", "without pickled objects"),
        ("many.npz", "one array, got an archive"),
    ):
        with pytest.raises(ValueError, match=message):
            mri.read_kspace(tmp_path / name)


def test_read_mask(tmp_path):
    masks = np.random.default_rng(0).integers(0, 2, (3, 4, 5))
    for array in (masks, masks.astype(bool), masks.astype(np.uint8)):
        np.save(tmp_path / "m.npy", array)
        assert torch.equal(mri.read_mask(tmp_path / "m.npy", 2), torch.from_numpy(masks[2]).bool())
    np.save(tmp_path / "columns.npy", np.arange(5) % 2)
    assert mri.read_mask(tmp_path / "columns.npy").tolist() == [False, True, False, True, False]
    with pytest.raises(ValueError, match=r"`index` must be the number of a mask .* from 0 to 2, got 3"):
        mri.read_mask(tmp_path / "m.npy", 3)
    for array, message in (
        (np.full((4, 4), 2), "zeros and ones"),
        (np.zeros((4, 4)), "sample something"),
        (np.zeros((1, 1, 2, 2)), "or \\[count, H, W\\] of zeros and ones, got float64 \\[1, 1, 2, 2\\]"),
    ):
        np.save(tmp_path / "bad.npy", array)
        with pytest.raises(ValueError, match=message):
            mri.read_mask(tmp_path / "bad.npy")


def test_read_admmnet(tmp_path):
    images = np.random.default_rng(0).random((2, 4, 5)).astype(np.float16)
    np.save(tmp_path / "chest_train_100.npy", images)
    for root in (tmp_path, tmp_path / "chest_train_100.npy"):
        found = mri.read_admmnet(root)
        assert found.dtype == torch.float32 and np.array_equal(found, images)
    for bad in (images + 1, images[0], images.astype(int)):
        np.save(tmp_path / "bad.npy", bad)
        with pytest.raises(ValueError, match=r"real images \[count, H, W\] in \[0, 1\]"):
            mri.read_admmnet(tmp_path / "bad.npy")


# ----------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize(
    "width, acceleration, fraction", [(180, 4, 0.08), (181, 4, 0.08), (64, 3, 0.3), (9, 1, 0.1)]
)
@pytest.mark.parametrize("equispaced", [False, True])
def test_cartesian_mask(width, acceleration, fraction, equispaced):
    made = [
        mri.cartesian_mask(width, acceleration, fraction, np.random.default_rng(seed), equispaced=equispaced)
        for seed in (0, 0, 1)
    ]
    assert torch.equal(made[0], made[1])
    assert acceleration == 1 or not torch.equal(made[0], made[2])
    mask, center = made[0], round(fraction * width)
    assert mask.dtype == torch.bool and mask.sum() == round(width / acceleration)
    assert mask[width // 2 - center // 2 :][:center].all()
    if equispaced:
        mask[width // 2 - center // 2 :][:center] = False
        outside = torch.cat([mask[: width // 2 - center // 2], mask[width // 2 - center // 2 + center :]])
        gaps = outside.nonzero().flatten().diff()
        assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("acceleration", [1, 2, 5.5, 10, 20])
def test_poisson_disc_mask(acceleration):
    mask = mri.poisson_disc_mask((60, 70), acceleration, 0, np.random.default_rng(0))
    assert mask.sum().item() == pytest.approx(60 * 70 / acceleration, rel=0.01)
    points = mask.nonzero().float()
    assert torch.cdist(points, points).fill_diagonal_(torch.inf).min() >= 0.61 * acceleration**0.5
    assert torch.equal(mask, mri.poisson_disc_mask((60, 70), acceleration, 0, np.random.default_rng(0)))
    y, x = np.ogrid[:60, :70]
    disc = torch.from_numpy(np.hypot(y - 30, x - 35) < 12)
    assert torch.equal(
        mri.poisson_disc_mask((60, 70), acceleration, 12, np.random.default_rng(0)), mask | disc
    )


@pytest.mark.parametrize("acceleration", [100, 30_000, 1e30])
def test_poisson_disc_mask_has_no_more_points_than_asked_for(acceleration):
    mask = mri.poisson_disc_mask((10, 14), acceleration, 0)
    assert mask.sum().item() == round(140 / acceleration)
    y, x = np.ogrid[:10, :14]
    with_disc = mri.poisson_disc_mask((10, 14), acceleration, 3)
    assert torch.equal(with_disc, mask | torch.from_numpy(np.hypot(y - 5, x - 7) < 3))


def test_radial_mask():
    mask = mri.radial_mask((61, 80), 4, 5, np.random.default_rng(0))
    assert 1 / 4 <= mask.float().mean() < 1 / 4 + 0.02
    y, x = np.ogrid[:61, :80]
    radius = torch.from_numpy(np.hypot(y - 30, x - 40))
    assert mask[radius < 5].all()
    near, far = (mask[(radius > low) & (radius < low + 8)].float().mean() for low in (8, 20))
    assert near > 1.5 * far > 0  # the density of lines falls as 1 / radius
    assert mri.radial_mask((16, 16), 1).all()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: mri.cartesian_mask(10, 0.5), "`acceleration` must be a finite number >= 1, got 0.5"),
        (lambda: mri.cartesian_mask(10, 4, 0), r"`center_fraction` must be a number in \(0, 1\]"),
        (lambda: mri.cartesian_mask(10, 4, 0.5), "`center_fraction` must be at most 1 / acceleration = 0.25"),
        (lambda: mri.cartesian_mask(0, 4), "`width` must be an integer >= 1, got 0"),
        (lambda: mri.poisson_disc_mask((4, 0), 4), "`shape` must be two positive integers"),
        (lambda: mri.radial_mask((4, 4, 4), 4), "`shape` must be two positive integers"),
        (lambda: mri.radial_mask((4, 4), float("nan")), "`acceleration`"),
        (lambda: mri.radial_mask((4, 4), 2, float("nan")), "`calibration`"),
        (lambda: mri.cartesian_mask(True, 4), "`width` must be an integer >= 1, got True"),
        (lambda: mri.cartesian_mask(10, "4"), "`acceleration` must be a finite number >= 1, got '4'"),
        (lambda: mri.poisson_disc_mask((4, 4.0), 4), "`shape` must be two positive integers .*, got 4.0"),
        (
            lambda: mri.loop_sensitivities(True, (8, 8), np.random.default_rng(0)),
            "`coils` must be an integer >= 1",
        ),
    ],
)
def test_masks_refuse(call, message):
    assert torch.equal(mri.cartesian_mask(np.int32(64), np.float32(4)), mri.cartesian_mask(64, 4))
    assert torch.equal(mri.radial_mask(np.array([16, 8]), np.int64(4)), mri.radial_mask((16, 8), 4))
    with pytest.raises(ValueError, match=message):
        call()


# --------------------------------------------------------------------------------------- sensitivities


@pytest.mark.parametrize("coils, shape", [(1, (32, 40)), (4, (33, 32)), (12, (64, 48))])
def test_loop_sensitivities(coils, shape):
    s = mri.loop_sensitivities(coils, shape, np.random.default_rng(0))
    assert s.shape == (coils, *shape) and s.dtype == torch.complex64
    torch.testing.assert_close(s.abs().square().sum(0), torch.ones(shape))
    assert torch.equal(s, mri.loop_sensitivities(coils, shape, np.random.default_rng(0)))
    if coils > 1:
        inner = s[:, shape[0] // 4 : -shape[0] // 4, shape[1] // 4 : -shape[1] // 4]
        assert inner.diff(dim=1).abs().max() < 6 / shape[0]  # smooth
        peaks = {int(p) for p in s.abs().flatten(1).argmax(1)}
        assert len(peaks) == coils  # each coil sees its own side best


def test_sensitivity_falls_with_the_distance_from_a_loop():
    s = mri.loop_sensitivities(2, (128, 128), np.random.default_rng(5))
    # Two loops on opposite sides: the ratio of their fields falls all the way from one to the other.
    ratio = (s[0].abs() / s[1].abs()).log()
    first, second = (np.unravel_index(int(r.argmax()), (128, 128)) for r in (ratio, -ratio))
    steps = [
        ratio[round(float(i)), round(float(j))]
        for i, j in zip(
            np.linspace(first[0], second[0], 20), np.linspace(first[1], second[1], 20), strict=True
        )
    ]
    assert (torch.stack(steps).diff()[3:-3] < 0).all()


@pytest.mark.parametrize("columns", [True, False])
def test_estimated_sensitivities(columns):
    y, s, x = brain_like(phase=3 * torch.linspace(-1, 1, 56))
    mask = mri.cartesian_mask(56, 3, 0.25) if columns else mri.poisson_disc_mask((64, 56), 6, 12)
    found = mri.estimate_sensitivities(y * mask, mask)
    assert found.shape == s.shape and found.dtype == y.dtype
    torch.testing.assert_close(found.abs().square().sum(0), torch.ones(64, 56))
    # Right up to a phase that all coils share: the combination of the true coil images keeps their magnitude.
    kept = (found.conj() * s).sum(0).abs()[x.abs() > 0.4]
    assert kept.min() > 0.97 and kept.mean() > 0.995
    # The phase of the object is in the maps, so that what is left is nearly real.
    combined = (found.conj() * s).sum(0) * x
    assert combined.imag.norm() < 0.1 * combined.norm()


def test_estimated_sensitivities_use_the_mask_only():
    y, _, _ = brain_like()
    mask = mri.cartesian_mask(56, 3, 0.25)
    expected = mri.estimate_sensitivities(y * mask, mask)
    assert torch.equal(mri.estimate_sensitivities(y, mask), expected)
    assert torch.equal(mri.estimate_sensitivities(y * mask), expected)  # what is not zero is sampled
    assert torch.equal(mri.estimate_sensitivities(y, mask[None].expand(64, 56)), expected)
    batch = mri.estimate_sensitivities(torch.stack([y, 2j * y]).to(torch.complex128), mask)
    torch.testing.assert_close(batch[0].to(torch.complex64), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(batch[1], 1j * batch[0])


@pytest.mark.parametrize("empty", [0.0, float("nan"), float("inf")])
def test_sensitivities_of_samples_that_are_not_there(empty):
    y, _, _ = brain_like()
    mask = mri.cartesian_mask(56, 3, 0.25)
    expected = mri.estimate_sensitivities(y, mask)
    assert expected.isfinite().all()
    missing = y.masked_fill(~mask, empty)
    assert torch.equal(mri.estimate_sensitivities(missing), expected)
    for given in (mask.float(), mask.long(), mask.expand(64, 56)):
        assert torch.equal(mri.estimate_sensitivities(missing, given), expected)


@pytest.mark.parametrize("columns", [True, False])
def test_espirit_explains_the_coils_up_to_the_edges(columns):
    y, s, x = brain_like(phase=3 * torch.linspace(-1, 1, 56))
    mask = mri.cartesian_mask(56, 3, 0.25) if columns else mri.poisson_disc_mask((64, 56), 6, 12)
    inside = x.abs() > 0.1
    missed = {}
    for method in ("center", "espirit"):
        found = mri.estimate_sensitivities(y * mask, mask, method=method)
        torch.testing.assert_close(found.abs().square().sum(0), torch.ones(64, 56))
        missed[method] = (1 - (found.conj() * s).sum(0).abs()[inside]).mean()
        combined = (found.conj() * s).sum(0) * x
        assert combined.imag.norm() < 0.15 * combined.norm()
    assert missed["espirit"] < 0.5 * missed["center"] and missed["espirit"] < 1e-3
    turned = mri.estimate_sensitivities(torch.stack([y, 2j * y]), mask, method="espirit")
    torch.testing.assert_close(turned[1], 1j * turned[0], atol=1e-3, rtol=1e-3)
    # One coil, and a center of four samples per side.
    one = mri.estimate_sensitivities(y[:1], mri.cartesian_mask(56, 8, 4 / 56), method="espirit")
    torch.testing.assert_close(one.abs(), torch.ones(1, 64, 56))


@pytest.mark.data
def test_espirit_explains_a_real_brain(data_folder):
    kspace = mri.read_kspace(data_folder / "mri" / "espirit_brain_8ch" / "full_kspace_8x230x180.npy")
    images = ifft2(kspace, centered=True)
    strong = images.abs().square().sum(0) > 0.05 * images.abs().square().sum(0).max()
    left = {}
    for method in ("center", "espirit"):
        maps = mri.estimate_sensitivities(kspace, calibration=24, method=method)
        rest = images - maps * (maps.conj() * images).sum(0)
        left[method] = float(
            (
                rest.abs().square().sum(0)[strong].mean() / images[:, strong].abs().square().sum(0).mean()
            ).sqrt()
        )
    assert left["espirit"] < 0.95 * left["center"] and left["espirit"] < 0.09


def test_estimated_sensitivities_refuse():
    y = torch.randn(2, 32, 32, dtype=torch.complex64)
    hole = torch.ones(32)
    hole[15] = 0
    for kspace, options, message in (
        (y.real, {}, "`kspace` must be a complex tensor"),
        (y[0], {}, r"`kspace` must be a complex tensor \[..., coils, H, W\]"),
        (y, {"mask": torch.ones(31)}, r"`mask` must be \[32\] or \[32, 32\], as k-space"),
        (y, {"mask": hole}, "central 4 x 4 samples"),
        (y, {"mask": 2 * torch.ones(32)}, "`mask` must be .* of 0 and 1, as k-space, got other values"),
        (y, {"mask": torch.full((32,), float("nan"))}, "`mask` must be .* of 0 and 1, as k-space, got other"),
        (y, {"mask": torch.ones(32, dtype=torch.complex64)}, "`mask` must be .* of 0 and 1, as k-space"),
        (
            y.where(y != y[0, 16, 16], torch.nan),
            {},
            "`kspace` must be finite in every coil where it was sampled",
        ),
        (y, {"calibration": 2}, "`calibration` must be an integer >= 4, got 2"),
        (y, {"method": "sake"}, "`method` must be"),
        (y, {"kernel": 1}, "`kernel` must be an integer >= 2, got 1"),
        (y, {"threshold": 1.0}, "`threshold` must be"),
    ):
        with pytest.raises(ValueError, match=message):
            mri.estimate_sensitivities(kspace, **options)
    with pytest.raises(TypeError, match="`kspace` must be a complex tensor"):
        mri.estimate_sensitivities(y.numpy())
    for mask in (np.ones(32), [1] * 32):
        with pytest.raises(TypeError, match=r"`mask` must be .* of 0 and 1, as k-space, got"):
            mri.estimate_sensitivities(y, mask)


# --------------------------------------------------------------------------------------- training data


@pytest.mark.parametrize("size", [None, 48, (40, 64)])
def test_coil_images(size):
    images = mri.CoilImages(ellipse(80, 90).expand(3, -1, -1), size, noise=(1e-4, 1e-3))
    height, width = {None: (80, 90), 48: (48, 48)}.get(size, size)
    kinds, rng, again = set(), np.random.default_rng(0), np.random.default_rng(0)
    for _ in range(6):
        x, physics, y = images.batch(2, rng)
        coils = y.shape[1]
        assert x.shape == (2, height, width) and y.shape == (2, coils, height, width) and 4 <= coils <= 12
        assert x.dtype == y.dtype == torch.complex64
        for one, two in zip((x, y), images.batch(2, again)[::2], strict=True):
            assert torch.equal(one, two)
        kinds.add(physics.mask.dim())
        assert physics.centered and (y * ~physics.mask == 0).all()
        zero = physics.adjoint(y)
        torch.testing.assert_close(zero.abs().amax((1, 2)), torch.ones(2))
        # What is to be found explains the data but for noise and for what the low-resolution maps miss.
        assert (physics(x) - y).norm() < 0.25 * y.norm()
    assert kinds == {1, 2}


def test_coil_images_from_photographs(tmp_path):
    image = pytest.importorskip("PIL.Image")
    with pytest.raises(ValueError, match="`photographs` must be a folder of pictures"):
        mri.CoilImages(torch.rand(1, 64, 64), photographs=tmp_path)
    image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)).save(tmp_path / "a.png")
    images = mri.CoilImages(torch.zeros(1, 64, 64), 32, photographs=tmp_path)
    rng = np.random.default_rng(0)
    drawn = [images.batch(1, rng)[0].abs().mean() > 0.1 for _ in range(8)]
    assert any(drawn) and not all(drawn)


def test_coil_images_refuse(tmp_path):
    x = torch.rand(1, 64, 64)
    for options, message in (
        ({"root": x[0]}, r"`root` must be a folder, or a real tensor \[count, H, W\]"),
        ({"root": x.int()}, "`root`"),
        ({"root": x, "size": 16}, "`size` must be an integer >= 32 or two of them, got 16"),
        ({"root": x, "coils": (0, 3)}, "`coils`"),
        ({"root": x, "coils": (2, True)}, "`coils` must be two integers >= 1 .*, got True"),
        ({"root": x, "coils": (2.5, 3)}, "`coils` must be two integers >= 1 .*, got 2.5"),
        ({"root": x, "coils": 3}, "`coils` must be two integers >= 1 .*, got 3"),
        ({"root": x, "noise": (0.0, 0.1)}, "`noise`"),
        ({"root": x, "noise": (0.1, float("nan"))}, "`noise`"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            mri.CoilImages(**options)
    for numbers in (np.array, torch.tensor, list):  # numbers of any kind
        given = mri.CoilImages(x, np.int64(48), coils=numbers([2, 3]), noise=numbers([0.5, 1.0]))
        assert (given.size, given.coils, given.noise) == ((48, 48), (2, 3), (0.5, 1.0))
    with pytest.raises(FileNotFoundError, match=r"the file of images .* does not exist"):
        mri.CoilImages(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"the folder .* does not exist"):
        mri.CoilImages(x, photographs=tmp_path / "none")


# ------------------------------------------------------------------------------- baseline and evaluation


def objective(x, y, physics, weight):
    down, right = (torch.diff(x, dim=d, append=x.narrow(d, x.shape[d] - 1, 1)) for d in (1, 2))
    tv = (down.abs().square() + right.abs().square()).sqrt().sum()
    return (physics(x) - y).abs().square().sum() / 2 + weight * tv


def test_total_variation_denoises_as_scikit_image():
    restoration = pytest.importorskip("skimage.restoration")
    x = ellipse() + 0.1 * torch.randn(64, 56, generator=torch.Generator().manual_seed(0))
    physics = MRI(torch.ones(56), centered=True)
    found = recipe.total_variation(physics(x[None] + 0j), physics, 0.1, 100)[0]
    expected = restoration.denoise_tv_chambolle(x.numpy(), weight=0.1, eps=1e-9, max_num_iter=1000)
    assert found.imag.abs().max() < 1e-4
    np.testing.assert_allclose(found.real.numpy(), expected, atol=0.005)


def test_total_variation_is_at_its_minimum():
    y, s, _ = brain_like()
    mask = mri.cartesian_mask(56, 3, 0.2)
    physics = MRI(mask, s, centered=True)
    y = (mask * y)[None]
    x = recipe.total_variation(y, physics, 0.01)
    best = objective(x, y, physics, 0.01)
    generator = torch.Generator().manual_seed(0)
    for size in (1e-3, 1e-2, 1e-1):
        other = x + size * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        assert objective(other, y, physics, 0.01) > best
    assert best < objective(physics.adjoint(y), y, physics, 0.01)
    more = objective(recipe.total_variation(y, physics, 0.01, 300), y, physics, 0.01)
    assert best - more < 3e-3 * more
    for options, message in (((-1.0,), "`weight`"), ((0.1, 0), "`iterations`")):
        with pytest.raises(ValueError, match=message):
            recipe.total_variation(y, physics, *options)


def test_evaluate(monkeypatch):
    pytest.importorskip("skimage")
    monkeypatch.setattr("amstel.inverse.canonical._WHITE", 1.0)  # coils as they are, as in zero filling
    y, _, _ = brain_like(height=66, width=58)
    mask = mri.poisson_disc_mask((64, 56), 6, 8)
    model = RIM(2, features=8, steps=2)
    torch.nn.init.zeros_(model.conv3.weight)  # the network of no update
    zero, tv, rim = recipe.evaluate(y, mask, model, weights=(0.001, 0.003))
    assert [r["method"] for r in (zero, tv, rim)] == ["zero-filled", "total variation", "RIM"]
    assert tv["weight"] in (0.001, 0.003)
    for score in ("psnr", "ssim", "psnr_rss", "ssim_rss"):
        assert tv[score] > zero[score] and rim[score] == pytest.approx(zero[score], abs=1e-4)
    # With everything sampled zero filling is the combination of the coils itself.
    (perfect, _) = recipe.evaluate(y, torch.ones(58), model, weights=())
    assert perfect["psnr"] > 100 and perfect["ssim"] == pytest.approx(1) and 30 < perfect["psnr_rss"] < 60
    scaled = recipe.evaluate(1000 * y, mask, model, weights=())
    assert scaled[0]["psnr"] == pytest.approx(zero["psnr"], abs=1e-3)
    for kspace, given, message in (
        (y[0], mask, r"`kspace` must be complex \[coils, H, W\]"),
        (y, torch.ones(57), r"`mask` must be \[58\], or \[h, w\] with h <= 66 and w <= 58"),
        (y, torch.ones(67, 58), "`mask`"),
        (y, torch.ones(1, 1, 66, 58), "`mask`"),
    ):
        with pytest.raises(ValueError, match=message):
            recipe.evaluate(kspace, given, model)


def test_other_files_beside_k_space_are_named(tmp_path):
    for name in ("b.cfl", "b.hdr", "a.h5", "._a.h5", "c.dat"):
        (tmp_path / name).write_bytes(b"")
    with pytest.warns(UserWarning, match=r"1 file ignored \(.*\): c\.dat$"):
        assert [file.name for file in recipe.find(tmp_path)] == ["a.h5", "b.cfl"]


def test_evaluate_folder(tmp_path):
    pytest.importorskip("skimage")
    y, _, _ = brain_like(height=56, width=60)
    model = RIM(2, features=8, steps=1)
    (tmp_path / "espirit_brain_8ch").mkdir()
    (tmp_path / "cc359_masks").mkdir()
    np.save(tmp_path / "espirit_brain_8ch" / "full_kspace_8x230x180.npy", y.numpy())
    with pytest.raises(FileNotFoundError, match="the mask"):
        recipe.evaluate_folder(tmp_path, model)
    for name, rate in (("R5", 5), ("R10", 10)):
        masks = [mri.poisson_disc_mask((48, 52), rate, 6, np.random.default_rng(n)) for n in range(2)]
        np.save(tmp_path / "cc359_masks" / f"{name}_218x170.npy", np.stack(masks))
    done = []
    rows = recipe.evaluate_folder(tmp_path, model, seeds=2, progress=done.append, weights=(0.002,))
    assert len(rows) == 9 and done == [1] * 6
    assert [r["mask"] for r in rows[::3]] == ["columns 4x", "Poisson disc R5", "Poisson disc R10"]
    assert rows[0]["sampled"] == pytest.approx(0.25)
    each = [recipe.evaluate(y, mask, model, weights=()) for mask in torch.from_numpy(np.stack(masks))]
    assert rows[6]["psnr"] == pytest.approx(np.mean([r[0]["psnr"] for r in each]))
    lines = recipe.table(rows).splitlines()
    assert len(lines) == 10 and len({len(line) for line in lines}) == 1
    lines = recipe.table([{**row, "mask": "m" * (9 * k)} for k, row in enumerate(rows[:4])]).splitlines()
    assert len({len(line) for line in lines}) == 1
    with pytest.raises(ValueError, match="`seeds` must be an integer >= 1, got 0"):
        recipe.evaluate_folder(tmp_path, model, seeds=0)


@pytest.mark.data
def test_the_brain(data_folder):
    """The baselines of the real slice at 4x."""
    pytest.importorskip("skimage")
    kspace = mri.read_kspace(data_folder / "mri" / "espirit_brain_8ch" / "full_kspace_8x230x180.npy")
    mask = mri.cartesian_mask(180, 4, 0.08, np.random.default_rng(0))
    zero, tv, _ = recipe.evaluate(kspace, mask, RIM(2, features=8, steps=1), weights=(0.002,))
    assert zero["psnr"] == pytest.approx(22.81, abs=0.02) and zero["ssim"] == pytest.approx(0.645, abs=0.002)
    assert tv["psnr"] == pytest.approx(31.44, abs=0.05) and tv["ssim"] == pytest.approx(0.880, abs=0.002)


@pytest.mark.data
def test_the_files(data_folder):
    assert mri.read_kspace(data_folder / "mri" / "espirit_brain_8ch" / "full_kspace_8x230x180.npy").shape == (
        8,
        230,
        180,
    )
    images = mri.read_admmnet(data_folder / "mri" / "admmnet")
    assert images.shape == (100, 256, 256) and images.max() == 1
    for rate, share in ((10, 0.1), (50, 0.5)):
        mask = mri.read_mask(data_folder / "mri" / "admmnet" / "mask" / f"mask_{rate}.npy")
        assert mask.shape == (256, 256) and mask.float().mean().item() == pytest.approx(share, abs=0.003)
    for name in ("R5", "R10"):
        mask = mri.read_mask(data_folder / "mri" / "cc359_masks" / f"{name}_218x170.npy", 99)
        assert mask.shape == (218, 170) and mask[109, 85]


def test_examples():
    made = [import_module(f"amstel.inverse.{name}") for name in ("sensitivities", "total_variation")]
    for module in (coil_images, sensitivities, *made):
        result = doctest.testmod(module, extraglobs={"amstel": amstel, "np": np, "torch": torch})
        assert result.attempted and not result.failed
