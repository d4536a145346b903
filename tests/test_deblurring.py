"""Deblurring with the usual boundaries against SciPy, kernels of the usual blurs, and `amstel.restore(task="deblur")`."""

import numpy as np
import pytest
import torch

import amstel
from amstel.inverse import Deblurring, disk_kernel, gaussian_kernel, motion_kernel

pytestmark = pytest.mark.usefixtures("one_thread")
F64 = torch.float64
MODES = {"circular": "wrap", "zeros": "constant", "replicate": "nearest", "reflect": "mirror", "valid": None}


def normal(*shape, seed=0):
    return torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("boundary", MODES)
@pytest.mark.parametrize("sides", [(3, 3), (5, 1), (1, 7), (3, 5), (1, 1)])
def test_boundaries_are_those_of_scipy(boundary, sides):
    ndimage, signal = pytest.importorskip("scipy.ndimage"), pytest.importorskip("scipy.signal")
    kernel, x = normal(*sides), normal(2, 3, 9, 11, seed=1)
    physics = Deblurring(kernel, 0.5, boundary)
    y = physics(x)

    def expected(plane):
        if boundary == "valid":
            return signal.convolve2d(plane, kernel.numpy(), "valid")
        return ndimage.convolve(plane, kernel.numpy(), mode=MODES[boundary])

    np.testing.assert_allclose(y, [[expected(c.numpy()) for c in image] for image in x], atol=1e-12)
    assert physics.adjointness_test(x) < 1e-12 and physics.adjointness_test() < 1e-12
    torch.testing.assert_close(physics.prepare(y + 1).gradient(x), physics.gradient(x, y + 1))
    assert physics.gradient(x[:0], y[:0]).shape == (0, 3, 9, 11)


@pytest.mark.parametrize("boundary", MODES)
def test_a_kernel_for_each_channel_or_image(boundary):
    x = normal(2, 3, 9, 11)
    for shape in ((3, 3, 5), (2, 1, 3, 5), (1, 3, 3, 5), (2, 3, 3, 5), (1, 3, 5)):
        kernel = normal(*shape, seed=2)
        physics = Deblurring(kernel, 0.5, boundary)
        whole = kernel.reshape((1,) * (4 - kernel.dim()) + kernel.shape).expand(2, 3, 3, 5)
        single = [
            [Deblurring(whole[n, c], boundary=boundary)(x[n : n + 1, c : c + 1])[0, 0] for c in range(3)]
            for n in range(2)
        ]
        torch.testing.assert_close(physics(x), torch.stack([torch.stack(s) for s in single]))
        assert physics.adjointness_test(x) < 1e-12 and physics.adjointness_test() < 1e-12


@pytest.mark.parametrize("boundary", ["replicate", "reflect", "valid", "zeros"])
def test_gradients(boundary):
    def f(x, y, kernel):
        return Deblurring(kernel, 0.5, boundary).gradient(x, y)

    y = normal(1, 1, 3, 4) if boundary == "valid" else normal(1, 1, 5, 6)
    given = [t.requires_grad_() for t in (normal(1, 1, 5, 6), y, normal(3, 3))]
    assert torch.autograd.gradcheck(f, given) and torch.autograd.gradgradcheck(f, given)


@pytest.mark.parametrize(
    "message, call",
    [
        ("`kernel` must be .* odd sides", lambda: Deblurring(torch.ones(2, 3))),
        ("`kernel` must be", lambda: Deblurring(torch.ones(3))),
        ("`boundary` must be one of", lambda: Deblurring(torch.ones(3, 3), boundary="wrap")),
        (
            "`x` must be at least 5 x 5",
            lambda: Deblurring(torch.ones(9, 9), 1, "reflect")(torch.ones(1, 1, 4, 9)),
        ),
        (
            "`x` must be at least 9 x 9",
            lambda: Deblurring(torch.ones(9, 9), 1, "valid")(torch.ones(1, 1, 8, 9)),
        ),
        ("`kernel` must be .* as `x`", lambda: Deblurring(torch.ones(2, 3, 3))(torch.ones(1, 3, 8, 9))),
        ("`sigma` must be", lambda: gaussian_kernel(0)),
        ("`size` must be an odd", lambda: gaussian_kernel(1, 4)),
        ("`length` must be", lambda: motion_kernel(0.5)),
        ("`angle` must be", lambda: motion_kernel(3, float("nan"))),
        ("`radius` must be", lambda: disk_kernel(-1)),
    ],
)
def test_bad_input(message, call):
    with pytest.raises(ValueError, match=message):
        call()


def test_kernels():
    for kernel in (
        gaussian_kernel(1.6),
        motion_kernel(7.5, 30),
        disk_kernel(3.2),
        gaussian_kernel(0.01),
        disk_kernel(0.1),
    ):
        assert abs(float(kernel.sum()) - 1) < 1e-6 and (kernel >= 0).all()
        assert kernel.shape[0] == kernel.shape[1] and kernel.shape[0] % 2
        torch.testing.assert_close(kernel, kernel.flip(0, 1))
    i = torch.arange(-5, 6)
    second = (gaussian_kernel(1.6).sum(0) * i.square()).sum()
    assert abs(float(second) - 1.6**2) < 0.05
    torch.testing.assert_close(motion_kernel(5)[2], torch.full((5,), 0.2))
    torch.testing.assert_close(motion_kernel(5, 90), motion_kernel(5).T, atol=1e-6, rtol=0)
    up = motion_kernel(9, 30)  # counterclockwise: the right end is higher, in rows of smaller number
    assert up[: up.shape[0] // 2, up.shape[1] // 2 + 1 :].sum() > 0.3
    assert up[up.shape[0] // 2 + 2 :, up.shape[1] // 2 + 1 :].sum() == 0
    assert torch.equal(motion_kernel(1), torch.ones(1, 1))


# ---- amstel.restore ----


def scene(channels):
    v, u = np.mgrid[0 : 4 : 64 * 1j, 0 : 5 : 80 * 1j]
    x = np.where(np.sin(3 * u) * np.cos(2 * v) > 0.1, 0.8, 0.3) + 0.05 * np.sin(9 * u)
    return x if channels == 1 else np.stack([x, x[::-1], 0.5 * x + 0.2], 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_known_blur_is_undone_up_to_the_border(channels):
    x = scene(channels)
    kernel = motion_kernel(7, 20)
    whole = torch.from_numpy(x.reshape(*x.shape[:2], -1)).movedim(2, 0)[None]
    y = Deblurring(kernel, 1, "valid")(whole)[0].movedim(0, -1).numpy()
    y = y[..., 0] if channels == 1 else y
    noisy = y + 3 / 255 * np.random.default_rng(0).standard_normal(y.shape)
    truth = x[3:-3, 3:-3]
    told, sigma = amstel.restore(noisy, "deblur", kernel=kernel, sigma=3 / 255, return_sigma=True)
    found = amstel.restore(noisy, "deblur", kernel=kernel.numpy())
    assert told.shape == truth.shape and told.dtype == noisy.dtype and sigma == pytest.approx(3 / 255)
    for x in (told, found):
        gains = [np.square(noisy - t)[s].mean() / np.square(x - t)[s].mean() for t, s in places(truth)]
        assert gains[0] > (4 if channels == 1 else 2) and gains[1] > 1.5
    seen = []
    alone = torch.from_numpy(noisy.reshape(*noisy.shape[:2], -1)).movedim(2, 0)[None]
    both = amstel.restore(
        torch.cat([alone, 0.5 * alone]), "deblur", kernel=kernel, sigma=3 / 255, progress=seen.append
    )
    np.testing.assert_allclose(both[0].movedim(0, -1).squeeze(), told, atol=1e-4)
    assert sum(seen) == 2 * noisy.shape[0] * noisy.shape[1]


def places(truth):
    """All of it, and its border."""
    border = np.ones(truth.shape[:2], bool)
    border[4:-4, 4:-4] = False
    return (truth, ...), (truth, border)


def test_a_kernel_of_one_pixel_is_denoising():
    y = scene(1) + 0.1 * np.random.default_rng(0).standard_normal((64, 80))
    x = amstel.restore(y, "deblur", kernel=np.ones((1, 1)), sigma=0.1)
    assert np.square(x - scene(1)).mean() < 0.2 * np.square(y - scene(1)).mean()
