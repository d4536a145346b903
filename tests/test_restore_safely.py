"""What `amstel.restore` must not depend on: units and gauges of MRI, what was not measured; the noise that it estimates."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import amstel
from amstel import inverse, ops
from amstel.apps.restoration import mri
from amstel.data.mri import cartesian_mask, loop_sensitivities
from amstel.data.mri.images import smooth_phase
from amstel.inverse import estimate_sigma, reconstruct
from amstel.inverse.noise import blend
from amstel.nn import RIM

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.2])
def test_estimated_noise(sigma):
    from skimage import data

    clean = torch.from_numpy(data.camera() / 255)[None, None]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = estimate_sigma(torch.cat([clean + sigma * noise, 0.5 + 0 * clean]))
    assert found.shape == (2,) and abs(found[0] / sigma - 1) < 0.15 and found[1] == 0
    x = (clean + sigma * noise)[0, 0].numpy()
    _, said = amstel.restore(x, return_sigma=True, model=Nothing())
    assert isinstance(said, float) and abs(said / sigma - 1) < 0.15
    two = torch.from_numpy(x).expand(2, 1, -1, -1)
    _, said = amstel.restore(two, return_sigma=True, model=Nothing())
    assert said.shape == (2,)


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (3, 3), (7, 8), (16, 16), (1300, 1200)])
def test_estimate_of_any_size(shape):
    y = 0.1 * torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(0)) + 0.5
    found = estimate_sigma(y)
    assert found.shape == (2,) and found.isfinite().all()
    if min(shape) >= 8:
        assert ((found / 0.1 - 1).abs() < (0.5 if min(shape) < 100 else 0.03)).all()


class Nothing:
    """A network that finds nothing to do."""

    channels, trained_sigma, trained_steps = 1, None, None

    def __call__(self, y, physics, steps=None, initial=None):
        return [physics.adjoint(y) if initial is None else initial]


def test_warnings_outside_the_trained_noise():
    model = RIM(1, 8, 1)
    model.trained_sigma = (10 / 255, 50 / 255)
    image = np.random.default_rng(0).random((32, 32))
    for sigma in (0.1, 5, 55, 255, 500):
        with pytest.warns(UserWarning, match="outside 10 to 50, which the weights were trained with"):
            amstel.restore(image, sigma=sigma / 255, model=model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        amstel.restore(image, sigma=10 / 255, model=model)
        amstel.restore(image, sigma=50 / 255, model=model)
        amstel.restore(image * 0 + 0.5, model=model)


@pytest.mark.parametrize(
    "options",
    [{}, {"task": "inpaint", "mask": np.ones((32, 32))}, {"task": "deblur", "kernel": np.ones((1, 1))}],
)
def test_every_denoising_task_warns(options):
    image, model = np.random.default_rng(0).random((32, 32)), Nothing()
    model.trained_sigma = (0.0, 75 / 255)
    with pytest.warns(UserWarning, match="`sigma` of 500 / 255 is outside 0 to 75") as said:
        amstel.restore(image, sigma=500 / 255, model=model, **options)
    assert [w.filename for w in said] == [__file__]  # where the call is


def test_more_steps_than_trained_are_refused():
    model = RIM(1, 8, 2)
    model.trained_steps = 2
    with pytest.raises(ValueError, match="`steps` must be at most 2"):
        amstel.restore(np.random.default_rng(0).random((32, 32)), sigma=0.1, steps=10, model=model)


def test_weights_of_another_task_are_refused():
    """A network for super-resolution denoised, as it has one channel too; and where there was nothing to do, any number of
    steps was taken."""
    y, k = np.full((32, 32), 0.5), np.ones((1, 32, 32), np.complex64)
    for task, model, options in (
        ("denoise", "sr", {}),
        ("inpaint", RIM.pretrained("sr"), {"mask": np.ones((32, 32))}),
        ("sr", "gray", {}),
        ("mri", "sr", {"mask": np.ones(32)}),
        ("mri", "3task", {"mask": np.ones(32)}),
        ("deblur", "3task", {"kernel": np.ones((3, 3)) / 9}),
    ):
        with pytest.raises(
            ValueError, match=f"`model` must be a network .*{task}|`model` must be a network of"
        ):
            amstel.restore(k if task == "mri" else y, task, model=model, **options)
    with pytest.raises(ValueError, match="`steps` must be at most 4"):
        amstel.restore(y, steps=10)


@pytest.mark.parametrize(
    "model, task, same", [("3task", "inpaint", 3), ("gray", "inpaint", 1), ("gray", "deblur", 1)]
)
def test_steps_by_default(model, task, same):
    y = np.random.default_rng(0).random((24, 24), np.float32)
    more = {"mask": y > 0.3} if task == "inpaint" else {"kernel": inverse.gaussian_kernel(1.0)}
    found, expected = (amstel.restore(y, task, 0.1, model=model, steps=n, **more) for n in (None, same))
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(found, amstel.restore(y, task, 0.1, model=model, steps=2, **more))


def test_a_gray_denoiser_reconstructs_mri_without_momentum(monkeypatch):
    """One coil around made-up discs: with the momentum of the denoiser of complex images it comes out worse."""
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[-1:1:96j, -1:1:96j]
    truth = 0.6 * (rows**2 + columns**2 < 0.6) + 0.4 * ((rows - 0.2) ** 2 + (columns + 0.3) ** 2 < 0.05)
    image = torch.polar(torch.from_numpy(truth).float(), smooth_phase(truth.shape, rng))
    kspace = amstel.reference.mri.fft2(image[None], centered=True)
    kspace = kspace + 0.005 * torch.from_numpy(rng.normal(size=(*kspace.shape, 2)) @ [1, 1j]).to(kspace.dtype)
    mask = cartesian_mask(96, 3, 0.1, np.random.default_rng(1))
    solve, errors = reconstruct.plug_and_play, []
    for momentum in (None, reconstruct.MOMENTUM):
        if momentum is not None:
            other = lambda *a, **options: solve(*a, **(options | {"momentum": momentum}))  # noqa: E731, B023
            monkeypatch.setattr(reconstruct, "plug_and_play", other)
        found = amstel.restore(kspace[None], "mri", mask=mask, model="gray")[0].abs()
        errors.append(float((found - torch.from_numpy(truth)).square().mean()))
    assert errors[0] < 0.9 * errors[1], errors


def test_a_scan_with_a_mask_of_ones_is_fully_sampled(tmp_path):
    rng = np.random.default_rng(0)
    kspace = (rng.normal(size=(4, 32, 32)) + 1j * rng.normal(size=(4, 32, 32))).astype(np.complex64)
    np.savez(tmp_path / "plain.npz", kspace=kspace)
    np.savez(tmp_path / "ones.npz", kspace=kspace, mask=np.ones(32, bool))
    np.savez(tmp_path / "half.npz", kspace=kspace, mask=np.arange(32) % 2)
    masks = {"half": [(torch.arange(32) % 2 == 0) | (abs(torch.arange(32) - 16) < 5)]}
    plain, ones = (
        mri.evaluate_files([tmp_path / f"{name}.npz"], masks, steps=2, weights=[0.1])
        for name in ("plain", "ones")
    )
    assert plain == ones
    with pytest.raises(ValueError, match=r"fully sampled k-space, got 50\.0% of it"):
        mri.evaluate_files([tmp_path / "half.npz"], masks)


def test_blend():
    """To the image as sigma goes to 0; no more than the noise; all of the network's work where it is right."""
    g = torch.Generator().manual_seed(0)
    clean = torch.rand(1, 1, 64, 64, generator=g)
    noise = 0.1 * torch.randn(clean.shape, generator=g)
    y = clean + noise
    one, sigma, none = torch.ones(1), torch.tensor([0.1]), torch.zeros_like(y)
    perfect = blend(y, clean, none, sigma, one)
    assert float((perfect - clean).square().mean().sqrt()) < 0.01
    far = blend(y, y - 50 * noise, none, sigma, one)
    assert float((far - y).square().mean().sqrt()) < 0.15
    shifts = [
        float((blend(y, y - noise, none, s * sigma, one, 0.05) - y).abs().max()) for s in (0.1, 0.01, 1e-4)
    ]
    assert shifts[0] > shifts[1] > shifts[2] and shifts[2] < 1e-4
    assert torch.equal(blend(y, y - noise, none, sigma, 0 * one), y)
    # A network that keeps the noise (derivative 1) and takes off something else makes the image worse.
    assert float((blend(y, y - noise, none + 1, sigma, one) - y).abs().max()) < 1e-6


# ---- Noise that differs from pixel to pixel ----


def test_a_map_of_the_noise():
    """A map of one value is that value; where it tells the truth it is better than the mean, in tiles too."""
    rng = np.random.default_rng(0)
    v, u = np.mgrid[0 : 6 : 160 * 1j, 0 : 5 : 150 * 1j]
    clean = 0.5 + 0.3 * np.sin(u * v) * np.cos(v)
    level = np.full(clean.shape, 5 / 255)
    level[:, 75:] = 50 / 255
    noisy = clean + level * rng.standard_normal(clean.shape)
    alike = [amstel.restore(noisy, sigma=s) for s in (0.1, np.full(clean.shape, 0.1), [0.1], np.array([0.1]))]
    for found in alike[1:]:
        np.testing.assert_allclose(found, alike[0], atol=1e-5)
    told, sigma = amstel.restore(noisy, sigma=level, return_sigma=True)
    np.testing.assert_allclose(sigma, level, rtol=1e-6)
    mean = amstel.restore(noisy, sigma=float(np.sqrt((level**2).mean())))
    error = [np.square(x - clean).mean() for x in (told, mean)]
    assert error[0] < 0.8 * error[1]
    tiled = amstel.restore(noisy, sigma=level, tile=128)
    assert abs(tiled - told)[:, :150].max() < 2e-3
    holes = rng.random(clean.shape) > 0.3
    filled = [amstel.restore(noisy, "inpaint", sigma=s, mask=holes) for s in (0.1, np.full(clean.shape, 0.1))]
    np.testing.assert_allclose(*filled, atol=1e-5)
    for bad in (np.zeros(clean.shape), -level, level[:-1], np.full(clean.shape, np.nan), level > 0.1, ["a"]):
        with pytest.raises((ValueError, TypeError), match="`sigma` must be"):
            amstel.restore(noisy, sigma=bad)


@pytest.mark.parametrize("holes", [False, True])
def test_the_gradient_of_a_map(holes):
    x, y = torch.rand(2, 3, 5, 6), torch.rand(2, 3, 5, 6)
    sigma = 0.1 + torch.rand(2, 1, 5, 6)
    mask = torch.rand(5, 6) > 0.5 if holes else torch.ones(5, 6)
    physics = inverse.Inpainting(mask, sigma) if holes else inverse.Denoising(sigma)
    expected = mask * (x - y) / sigma**2
    torch.testing.assert_close(physics.gradient(x, y), expected)
    torch.testing.assert_close(physics.prepare(y).gradient(x), expected)
    torch.testing.assert_close(physics.prepare(y).network_input(x), torch.cat([x, expected], 1))
    assert physics.adjointness_test() < 1e-12
    for network in ("conv", "unet"):
        assert RIM(3, 4, 2, network=network)(y, physics)[-1].shape == x.shape
    with pytest.raises(ValueError, match=r"`sigma` must be .* as the images"):
        physics.gradient(x[..., :-1], y[..., :-1]) if not holes else inverse.Inpainting(
            mask, sigma[..., :-1]
        ).gradient(x, y)
    with pytest.raises(ValueError, match="`sigma` must be"):
        inverse.Deblurring(torch.ones(3, 3), sigma)


# ---- What arrays are, and are not ----


def test_arrays_that_were_read_wrong():
    y = np.random.default_rng(0).random((20, 24, 3))
    mask = y[..., 0] > 0.4
    x = amstel.restore(y, "inpaint", mask=mask, model=RIMS[3])
    for other in (mask[..., None], np.repeat(mask[..., None], 3, 2), mask.astype(int), mask.astype(float)):
        found = amstel.restore(y, "inpaint", mask=other, model=RIMS[3])
        np.testing.assert_allclose(found, x, rtol=0, atol=1e-5)
    with pytest.raises(TypeError, match="that is not masked"):
        amstel.restore(np.ma.masked_array(y, ~np.repeat(mask[..., None], 3, 2)), model=RIMS[3])
    with pytest.raises(ValueError, match="`mask` must be 1 somewhere"):
        amstel.restore(y, "inpaint", mask=0 * mask, model=RIMS[3])
    np.testing.assert_allclose(
        amstel.restore(y.astype(np.longdouble), sigma=0.1, model=RIMS[3]),
        amstel.restore(y, sigma=0.1, model=RIMS[3]),
        rtol=0,
        atol=1e-5,
    )


@pytest.mark.parametrize("shape", [(1, 40, 1), (1, 1, 40, 1), (1, 1, 1, 40, 1)])
def test_masks_of_columns_as_fastmri_has_them(shape):
    y, mask, maps = scan()
    as_columns = amstel.restore(y, "mri", mask=mask, sensitivities=maps, model=RIMS[2])
    found = amstel.restore(y, "mri", mask=mask.reshape(shape), sensitivities=maps, model=RIMS[2])
    assert torch.equal(found, as_columns)
    physics = inverse.MRI(mask.reshape(shape), maps, centered=True)
    assert torch.equal(physics.adjoint(y), inverse.MRI(mask, maps, centered=True).adjoint(y))
    narrow = torch.ones(2, 40, 1, dtype=torch.complex64)
    points = inverse.MRI(mask.reshape(1, 1, 40, 1), narrow)
    assert points.adjoint(torch.ones(1, 2, 40, 1, dtype=torch.complex64)).shape == (1, 40, 1)


# ---- What was not measured ----


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_pixels_that_are_not_seen_do_not_matter(value):
    mask = torch.rand(2, 1, 9, 8, generator=torch.Generator().manual_seed(0)) > 0.4
    physics, y = inverse.Inpainting(mask, 0.5), torch.rand(2, 3, 9, 8)
    bad = torch.where(mask, y, value)
    x = torch.rand(2, 3, 9, 8)
    assert torch.equal(physics.adjoint(bad), physics.adjoint(y))
    assert torch.equal(physics.gradient(x, bad), physics.gradient(x, y))
    assert torch.equal(physics.prepare(bad).gradient(x), physics.prepare(y).gradient(x))
    for link in ("identity", "logistic"):
        found = [physics.prepare(t).network_input(x, link) for t in (bad, y)]
        assert torch.equal(*found)
        for op in (ops.rim_denoise_input, amstel.reference.rim_denoise_input):
            assert torch.equal(*(op(x, t, 0.5, mask=mask, link=link) for t in (bad, y)))
    leaf = bad.clone().requires_grad_()
    physics.prepare(leaf).network_input(x, "identity").square().sum().backward()
    assert leaf.grad.isfinite().all() and not leaf.grad[(~mask).expand_as(leaf)].any()
    assert torch.equal(*(RIM(3, 4, 2)(t, physics)[-1].isfinite().all() for t in (bad, y)))
    images = [amstel.restore(t, "inpaint", mask=mask, model=RIMS[3]) for t in (bad, y)]
    assert torch.equal(*images)


@pytest.mark.parametrize("value", [complex(math.nan, 0), complex(0, math.inf)])
@pytest.mark.parametrize("shape", [(12,), (10, 12), (2, 1, 10, 12)])
def test_kspace_that_is_not_sampled_does_not_matter(value, shape):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(1)) > 0.4
    maps = torch.randn(3, 10, 12, dtype=torch.complex64)
    physics = inverse.MRI(mask, maps, 0.5, centered=True)
    y, x = torch.randn(2, 3, 10, 12, dtype=torch.complex64), torch.randn(2, 10, 12, dtype=torch.complex64)
    bad = torch.where(mask, y, value)
    for f in (
        physics.adjoint,
        lambda t: physics.gradient(x, t),
        lambda t: physics.prepare(t).gradient(x),
        lambda t: inverse.Envelope(physics, 0.05, 2).gradient(x, t),
        lambda t: ops.mri_gradient(x, t, mask, maps),
        lambda t: amstel.reference.mri_gradient(x, t, mask, maps),
    ):
        assert torch.equal(f(bad), f(torch.where(mask, y, 0)))


def test_restored_kspace_may_be_nan_where_it_was_not_sampled():
    y, mask, maps = scan()
    bad = torch.where(mask, y, complex(math.nan, math.inf))
    for s in (None, maps):
        x = amstel.restore(y, "mri", mask=mask, sensitivities=s, model=RIMS[2])
        assert torch.equal(amstel.restore(bad, "mri", mask=mask, sensitivities=s, model=RIMS[2]), x)
    with pytest.raises(ValueError, match="`image` must be finite"):
        amstel.restore(y * math.nan, "mri", mask=mask, model=RIMS[2])


# ---- MRI: what physics cannot tell apart ----


def _network(channels):
    torch.manual_seed(channels)
    model = RIM(channels, 8, 2, stride=2).eval()
    with torch.no_grad():
        model.conv3.weight.mul_(10)
    return model


RIMS = {c: _network(c) for c in (2, 3)}


def scan(coils=4, height=32, width=40):
    """k-space [1, coils, H, W] of an ellipse, a mask [W], maps."""
    rng = np.random.default_rng(0)
    mask = cartesian_mask(width, 2, 0.3, rng)
    maps = loop_sensitivities(coils, (height, width), rng)
    v, u = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    x = torch.from_numpy((u**2 / 0.7 + v**2 < 0.6) * (1 + 0.3 * np.cos(6 * u))).to(torch.complex64)
    y = inverse.MRI(mask, maps, centered=True)(x[None])
    noise = torch.from_numpy(rng.standard_normal((*y.shape, 2))).float()
    return y + 0.01 * mask * torch.view_as_complex(noise), mask, maps


def reconstructed(y, mask, maps):
    return amstel.restore(y, "mri", mask=mask, sensitivities=maps, model=RIMS[2])


def alike(a, b):
    assert float((a - b).abs().max() / b.abs().max()) < 2e-4


@settings(max_examples=12, deadline=None)
@given(st.floats(-30, 30), st.floats(-30, 30), st.floats(-math.pi, math.pi))
def test_units_and_phase_do_not_matter(power, of_maps, angle):
    y, mask, maps = scan()
    wide = y.to(torch.complex128), maps.to(torch.complex128)
    x = reconstructed(y, mask, maps).to(torch.complex128)
    turn = complex(math.cos(angle), math.sin(angle))
    found = reconstructed(10**power * wide[0], mask, wide[1])
    alike(found / 10**power, x)
    alike(reconstructed(turn * wide[0], mask, wide[1]) / turn, x)
    found = reconstructed(wide[0], mask, turn * 10**of_maps * wide[1])
    alike(found * (turn * 10**of_maps), x)
    short = reconstructed((10**power * wide[0]).to(torch.complex64), mask, maps)
    assert short.dtype == torch.complex64
    alike(short.to(torch.complex128) / 10**power, x)


def test_the_gauge_of_the_maps_does_not_matter():
    """A phase and a size that change from point to point, and the phase of one coil taken off, as BART and sigpy do."""
    y, mask, maps = scan()
    x = reconstructed(y, mask, maps)
    v, u = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 40), indexing="ij")
    smooth = torch.polar(1.5 + torch.sin(2 * u), 3 * u + 2 * v * v)
    alike(reconstructed(y, mask, smooth * maps) * smooth, x)
    turn = torch.sgn(maps[0]).conj()
    alike(reconstructed(y, mask, turn * maps) * turn, x)


def test_the_order_and_a_rotation_of_the_coils_do_not_matter():
    y, mask, maps = scan()
    x = reconstructed(y, mask, maps)
    order = [2, 0, 3, 1]
    alike(reconstructed(y[:, order], mask, maps[order]), x)
    alike(
        amstel.restore(y[:, order], "mri", mask=mask, model=RIMS[2]),
        amstel.restore(y, "mri", mask=mask, model=RIMS[2]),
    )
    q = torch.linalg.qr(torch.randn(4, 4, dtype=torch.complex64)).Q
    alike(reconstructed(torch.einsum("dc,nchw->ndhw", q, y), mask, torch.einsum("dc,chw->dhw", q, maps)), x)


def test_a_coil_without_signal_and_views_of_conjugates():
    y, mask, maps = scan()
    x = reconstructed(y, mask, maps)
    dead = torch.cat([y[:, :2], 0 * y[:, :1], y[:, 2:]], 1), torch.cat([maps[:2], maps[:1], maps[2:]])
    assert torch.equal(reconstructed(dead[0], mask, dead[1]), x)
    turned, other = (t.conj().resolve_conj().clone().conj() for t in (y, maps))
    assert turned.is_conj() and torch.equal(reconstructed(turned, mask, other), x)
    physics = inverse.MRI(mask, maps, centered=True)
    start = physics.adjoint(y)
    given = start.conj().resolve_conj().conj()
    assert torch.equal(RIMS[2](y, physics, initial=given)[-1], RIMS[2](y, physics, initial=start)[-1])


def test_kspace_with_its_origin_at_the_corner_is_warned_about():
    y, mask, maps = scan()
    corner, order = torch.fft.ifftshift(y, dim=(2, 3)), torch.fft.ifftshift(mask)
    with pytest.warns(UserWarning, match="zero frequency at .0, 0.") as said:
        reconstructed(corner, order, maps)
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reconstructed(torch.randn_like(y), mask, maps)
    with pytest.raises(ValueError, match=r"`mask` must be \[40\], .* as the image"):
        amstel.restore(y, "mri", mask=torch.ones(32), model=RIMS[2])


def test_one_coil_and_points_without_sensitivity():
    y, mask, maps = scan(coils=1)
    x = amstel.restore(y, "mri", mask=mask, model=RIMS[2])
    turn = complex(0.6, 0.8)
    alike(amstel.restore(turn * y, "mri", mask=mask, model=RIMS[2]) / turn, x)
    alike(reconstructed(y, mask, torch.ones_like(maps)), x)
    y, mask, maps = scan()
    maps = maps * (torch.arange(40) > 5)
    x = reconstructed(y, mask, maps)
    assert x.isfinite().all() and not x[..., :6].any()
    assert not reconstructed(0 * y, mask, maps).any()


def test_what_a_task_does_not_use_is_refused():
    image = np.full((8, 8), 0.5, np.float32)
    for options, name in (({"scale": 3}, "scale"), ({"sensitivities": "espirit"}, "sensitivities")):
        with pytest.raises(ValueError, match=f"`{name}` must be None for the task denoise"):
            amstel.restore(image, **options)
    with pytest.raises(ValueError, match="`name` must be one of gray, gray_conv, color, 3task"):
        amstel.nn.RIM.pretrained("rim_gray")
    assert amstel.restore(image, model="3task", sigma=0.1).shape == (8, 8)


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16], ids=str)
def test_shipped_weights_keep_their_dtype_whatever_torchs_default_is(default):
    y = torch.rand(1, 1, 8, 8)
    torch.set_default_dtype(default)
    try:
        restored = amstel.restore(y, sigma=0.1)
        assert next(amstel.nn.SINT.pretrained().parameters()).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(restored, amstel.restore(y, sigma=0.1))
