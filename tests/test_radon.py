"""Radon: values by scikit-image and by hand, the adjoint, gradients, what is refused, and an image back from few angles."""

import doctest

import numpy as np
import pytest
import torch

from amstel import inverse
from amstel.inverse import Radon

pytestmark = pytest.mark.usefixtures("one_thread")


def blobs(n):
    yy, xx = np.mgrid[:n, :n] - n // 2
    image = np.exp(-((xx - 8) ** 2 + (yy - 3) ** 2) / 50) + 0.5 * np.exp(
        -((xx + 10) ** 2 + (yy + 12) ** 2) / 30
    )
    return np.where(xx**2 + yy**2 < (n // 2 - 1) ** 2, image, 0)


def test_sinograms_are_those_of_scikit_image():
    radon = pytest.importorskip(
        "skimage.transform", reason="scikit-image (extra `restore`) is not installed"
    ).radon
    image, theta = blobs(65), np.arange(0.0, 180, 7)
    found = Radon(torch.from_numpy(theta), (65, 65), detectors=65)(torch.from_numpy(image)[None, None])[0, 0]
    assert abs(found.numpy().T - radon(image, theta)).max() < 0.003 * found.max()


def test_rows_columns_and_diagonals():
    x = torch.arange(12.0, dtype=torch.float64).reshape(1, 1, 3, 4)
    y = Radon([0, 90, 180, 45], (3, 4), detectors=5)(x)[0, 0]
    columns, rows = x[0, 0].sum(0), x[0, 0].sum(1)
    assert torch.allclose(y[0], torch.cat([columns, torch.zeros(1)])[[0, 1, 2, 3, 4]].double())
    assert torch.allclose(y[1, 1:4], rows.flip(0)) and y[1, 0].abs() + y[1, 4].abs() < 1e-9
    assert torch.allclose(y[2], torch.cat([torch.zeros(1), columns.flip(0)]).double())
    # The middle of the image is row 1 and column 2: the ray through both goes down to the right.
    assert torch.allclose(y[3, 2], (x[0, 0, 0, 1] + x[0, 0, 1, 2] + x[0, 0, 2, 3]) * 2**0.5)


@pytest.mark.parametrize(
    "size, detectors, angles",
    [
        ((32, 48), None, range(0, 180, 3)),
        ((17, 9), 4, [0.0, 45.0, 90.0, 135.0, 180.0, 270.0, 30.0, -10.0]),
        ((1, 1), 1, [10]),
        ((5, 8), 40, [1e5]),
    ],
)
def test_the_adjoint_is_one(size, detectors, angles):
    physics = Radon(angles, size, 0.5, detectors=detectors)
    assert physics.adjointness_test() < 1e-13
    assert physics.adjointness_test(torch.empty(2, 3, *size)) < 1e-5
    x, y = (torch.rand(2, 1, *s, dtype=torch.float64) for s in (size, (len(angles), physics.detectors)))
    expected = physics.adjoint(physics(x) - y) / 0.25
    assert torch.allclose(physics.gradient(x, y), expected) and torch.allclose(
        physics.prepare(y).gradient(x), expected
    )


def test_gradients_and_what_is_held_at_once(monkeypatch):
    physics = Radon([0, 20, 70, 100], (5, 4))
    x = torch.rand(1, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    y = torch.rand(physics(x).shape, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(physics, x)
    torch.autograd.gradcheck(physics.adjoint, y)
    whole = physics(x), physics.adjoint(y)
    monkeypatch.setattr("amstel.inverse.radon._AT_ONCE", 1)
    assert torch.equal(physics(x), whole[0]) and torch.allclose(physics.adjoint(y), whole[1])
    half = physics.float()  # angles stay as exact as they are
    assert torch.allclose(half(x.float()).double(), whole[0], atol=1e-5)


def test_an_image_comes_back_from_few_angles():
    image = torch.from_numpy(blobs(48))[None, None]
    physics = Radon(range(0, 180, 6), (48, 48), sigma=0.02)
    y = physics(image) + 0.02 * torch.randn(1, 1, 30, physics.detectors, dtype=torch.float64)
    x = inverse.total_variation(y, physics, 0.1, 100)
    assert (x - image).square().mean().sqrt() < 0.02


@pytest.mark.parametrize(
    "error, message, call",
    [
        (ValueError, "`angles` must be degrees", lambda: Radon([], (4, 4))),
        (ValueError, "`angles` must be degrees", lambda: Radon([float("nan")], (4, 4))),
        (TypeError, "`angles` must be degrees", lambda: Radon([True], (4, 4))),
        (TypeError, "`angles` must be degrees", lambda: Radon(3, (4, 4))),
        (ValueError, "`angles` must be degrees", lambda: Radon(torch.zeros(2, 2), (4, 4))),
        (ValueError, "`image_shape` must be two integers", lambda: Radon([0], (1, 4, 4))),
        (TypeError, "`image_shape` must be two integers", lambda: Radon([0], 4)),
        (ValueError, "`detectors` must be", lambda: Radon([0], (4, 4), detectors=0)),
        (ValueError, r"`x` must be \[N, C, 4, 4\]", lambda: Radon([0], (4, 4))(torch.zeros(1, 1, 4, 5))),
        (
            ValueError,
            r"`y` must be float64 or float32 \[N, C, 1, 6\]",
            lambda: Radon([0], (4, 4)).adjoint(torch.zeros(1, 1, 1, 5)),
        ),
        (ValueError, "`sigma` must be", lambda: Radon([0], (4, 4), 0)),
    ],
)
def test_what_is_refused(error, message, call):
    with pytest.raises(error, match=message):
        call()


def test_examples_run():
    assert (
        doctest.testmod(inverse.radon, extraglobs={"amstel": __import__("amstel"), "torch": torch}).failed
        == 0
    )
