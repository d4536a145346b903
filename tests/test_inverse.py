"""amstel.inverse: every forward model against its dense matrix, its adjoint, other libraries; gradients; composition."""

import copy
import doctest
import io
import itertools
import math
import random

import numpy as np
import pytest
import torch

from amstel import inverse
from amstel.inverse import (
    MRI,
    Deblurring,
    Denoising,
    ForwardModel,
    Inpainting,
    Prepared,
    Radon,
    RandomProjection,
    SuperResolution,
)
from amstel.inverse.downsampling import named
from amstel.nn import RIM
from amstel.testing import TOLERANCE

F64, C128 = torch.float64, torch.complex128
pytestmark = pytest.mark.usefixtures("one_thread")


def normal(*shape, seed=0, dtype=F64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def binary(*shape, seed=0):
    return normal(*shape, seed=seed) > 0


class Differences(ForwardModel):
    """As a user would write one: real images, complex measurements of another rank."""

    def forward(self, x):
        return torch.fft.rfft(x, dim=3, norm="ortho").flatten(1)[:, ::2]

    def adjoint(self, y):
        full = torch.zeros(y.shape[0], 3 * 4, dtype=y.dtype, device=y.device)
        full[:, ::2] = y
        # rfft keeps half of the spectrum: its adjoint has no symmetry to restore.
        full = torch.nn.functional.pad(full.reshape(-1, 1, 3, 4), (0, 2))
        return torch.fft.ifft(full, dim=3, norm="ortho").real

    def _image_shape(self):
        return 1, 1, 3, 6


# ---- The same model as a matrix, from its definition ----


def imresize_matrix(size, scale):
    """[size / scale, size]: MATLAB's imresize(x, 1 / scale, "bicubic"), a pixel at a time; rows sum to one."""

    def cubic(d):
        d = abs(d)
        if d <= 1:
            return 1.5 * d**3 - 2.5 * d**2 + 1
        return -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 if d <= 2 else 0.0

    matrix = np.zeros((size // scale, size))
    for i in range(1, size // scale + 1):  # 1-based as there
        u = i * scale + 0.5 * (1 - scale)
        left = math.floor(u - 2 * scale)
        taps = range(left, left + 4 * scale + 2)
        weights = [cubic((u - t) / scale) for t in taps]
        for t, weight in zip(taps, weights, strict=True):
            period = (t - 1) % (2 * size)
            matrix[i - 1, min(period, 2 * size - 1 - period)] += weight / sum(weights)
    return torch.from_numpy(matrix)


def blur_matrix(kernel, h, w):
    kh, kw = kernel.shape
    matrix = torch.zeros(h, w, h, w, dtype=F64)
    for i, j, u, v in itertools.product(range(h), range(w), range(kh), range(kw)):
        matrix[i, j, (i - u + kh // 2) % h, (j - v + kw // 2) % w] += kernel[u, v]
    return matrix.reshape(h * w, h * w)


def weights_matrix(weights, scale, h, w):
    """Of an image [scale h, scale w], mirrored at its border."""
    (kh, kw), mirror = weights.shape, lambda t, size: min(t % (2 * size), 2 * size - 1 - t % (2 * size))
    matrix = torch.zeros(h, w, scale * h, scale * w, dtype=F64)
    for i, j, u, v in itertools.product(range(h), range(w), range(kh), range(kw)):
        row, column = scale * i + (scale - kh) // 2 + u, scale * j + (scale - kw) // 2 + v
        matrix[i, j, mirror(row, scale * h), mirror(column, scale * w)] += weights[u, v]
    return matrix.reshape(h * w, -1)


def fourier_matrix(size, centered):
    """Orthonormal; entries from the distance to the origin, 0 or size // 2."""
    n = torch.arange(size, dtype=F64) - (size // 2 if centered else 0)
    return torch.polar(torch.full((size, size), size**-0.5, dtype=F64), -2 * math.pi / size * n[:, None] * n)


def mri_matrix(mask, maps, h, w, centered):
    """Of one image."""
    fourier = torch.kron(fourier_matrix(h, centered), fourier_matrix(w, centered))
    mask = mask.expand(h, w).reshape(-1, 1).to(C128)
    maps = torch.ones(1, h, w, dtype=C128) if maps is None else maps
    return torch.cat([mask * fourier * s.reshape(-1) for s in maps])


def repeated(matrix, channels):
    return torch.block_diag(*[matrix] * channels)


KERNEL, MATRIX = normal(3, 5), normal(9, 16)
MAPS = normal(3, 5, 4, dtype=C128)

#: model, image shape, matrix of image n
DENSE = {
    "denoising": (Denoising(0.5), (2, 3, 4, 5), lambda n: torch.eye(60, dtype=F64)),
    "denoising, sigmas": (Denoising(torch.tensor([0.5, 2.0])), (2, 1, 2, 3), lambda n: torch.eye(6, dtype=F64)),
    "inpainting [H, W]": (Inpainting(binary(4, 5), 0.5), (2, 3, 4, 5), lambda n: repeated(torch.diag(binary(4, 5).double().flatten()), 3)),
    "inpainting [C, H, W]": (Inpainting(binary(3, 4, 5), 2), (2, 3, 4, 5), lambda n: torch.diag(binary(3, 4, 5).double().flatten())),
    "inpainting [N, 1, H, W]": (
        Inpainting(binary(2, 1, 4, 5).float(), torch.tensor([0.5, 2.0])), (2, 3, 4, 5),
        lambda n: repeated(torch.diag(binary(2, 1, 4, 5)[n].double().flatten()), 3),
    ),
    "inpainting [N, C, H, W]": (Inpainting(binary(2, 3, 4, 5), 0.1), (2, 3, 4, 5), lambda n: torch.diag(binary(2, 3, 4, 5)[n].double().flatten())),
    **{
        f"super-resolution {s}": (
            SuperResolution(s, 0.5), (2, 2, h * s, w * s),
            lambda n, s=s, h=h, w=w: repeated(torch.kron(imresize_matrix(h * s, s), imresize_matrix(w * s, s)), 2),
        )
        for s, h, w in ((1, 2, 3), (2, 3, 4), (3, 1, 4), (4, 2, 1), (5, 1, 1))
    },
    **{
        f"super-resolution {s}, kernel {list(k.shape)}": (
            SuperResolution(s, 0.5, k), (2, 2, s * 2, s * 3), lambda n, s=s, k=k: repeated(weights_matrix(k, s, 2, 3), 2),
        )
        for s, k in ((2, normal(4, 6)), (3, normal(1, 5)))
    },
    "deblurring": (Deblurring(KERNEL, 0.5), (2, 2, 6, 7), lambda n: repeated(blur_matrix(KERNEL, 6, 7), 2)),
    "deblurring, larger kernel": (Deblurring(normal(7, 9), 0.5), (1, 1, 4, 3), lambda n: blur_matrix(normal(7, 9), 4, 3)),
    "deblurring, a pixel": (Deblurring(KERNEL, 0.5), (1, 1, 1, 1), lambda n: blur_matrix(KERNEL, 1, 1)),
    "projection, P > D / 2": (RandomProjection(MATRIX, 0.5), (2, 1, 4, 4), lambda n: MATRIX),
    "projection, P > D": (RandomProjection(MATRIX.T.contiguous(), torch.tensor([0.5, 2]), image_shape=(1, 1, 9)), (2, 1, 1, 9), lambda n: MATRIX.T),
    "projection, color": (RandomProjection(normal(5, 12), 0.5), (2, 3, 2, 2), lambda n: normal(5, 12)),
    **{
        f"mri, {name}, {'centered' if centered else 'plain'}, {'one coil' if maps is None else list(maps.shape)}": (
            MRI(mask, maps, torch.tensor([0.5, 2.0]), centered), (2, 5, 4),
            lambda n, m=mask, s=maps, c=centered: mri_matrix(m if m.dim() < 4 else m[n, 0], s if s is None or s.dim() < 4 else s[n], 5, 4, c),
        )
        for name, mask in (
            ("columns", binary(4)), ("columns as points", binary(4).expand(5, 4)), ("points", binary(5, 4).float()),
            ("points of each", binary(2, 1, 5, 4)),
        )
        for maps in (None, MAPS, normal(2, 3, 5, 4, dtype=C128))
        for centered in (False, True)
    },
}  # fmt: skip


@pytest.mark.parametrize("case", DENSE)
def test_dense_matrix(case):
    """A, A^H, A^H A, the gradient and the network's input from the matrix of the definition."""
    model, shape, matrix_of = DENSE[case]
    dtype = C128 if model.complex_images else F64
    pixels = math.prod(shape[1:])
    basis = torch.eye(pixels, dtype=dtype)
    matrices = [matrix_of(n).to(dtype) for n in range(shape[0])]

    columns = torch.stack([model(e.reshape(shape[1:]).expand(shape)).flatten(1) for e in basis], 2)
    sizes = model(torch.zeros(shape, dtype=dtype)).shape
    rows = [model.adjoint(e.reshape(sizes[1:]).expand(sizes)).flatten(1) for e in torch.eye(math.prod(sizes[1:]), dtype=dtype)]  # fmt: skip
    for n, matrix in enumerate(matrices):
        assert_close_(columns[n], matrix)
        assert_close_(torch.stack(rows, 2)[n], matrix.mH)

    x, y = normal(*shape, seed=1, dtype=dtype), normal(*sizes, seed=2, dtype=dtype)
    sigma = torch.as_tensor(model.sigma, dtype=F64).expand(shape[0])
    expected = torch.stack([
        (matrix.mH @ (matrix @ a.flatten() - b.flatten()) / s**2).reshape(shape[1:])
        for matrix, a, b, s in zip(matrices, x, y, sigma, strict=True)
    ])  # fmt: skip
    prepared = model.prepare(y)
    assert_close_(model.gradient(x, y), expected)
    assert_close_(prepared.gradient(x), expected)
    assert_close_(model.normal(x), torch.stack([(m.mH @ m @ a.flatten()).reshape(shape[1:]) for m, a in zip(matrices, x, strict=True)]))  # fmt: skip

    for link in ("identity", "logistic"):
        eta = torch.view_as_real(x).permute(0, 3, 1, 2) if model.complex_images else x
        image = eta if link == "identity" else eta.sigmoid()
        slope = 1 if link == "identity" else image * (1 - image)
        at = torch.complex(*image.unbind(1)) if model.complex_images else image
        g = model.gradient(at, y)
        g = torch.stack([g.real, g.imag], 1) if model.complex_images else g
        for layout in (torch.contiguous_format, torch.channels_last):
            given = prepared.network_input(eta.contiguous(memory_format=layout), link)
            assert given.is_contiguous(memory_format=torch.channels_last)
            assert_close_(given, torch.cat([eta, slope * g], 1))
            assert_close_(Prepared(model, y).network_input(eta, link), given)


def assert_close_(a, b, tolerance=1e-12):
    assert a.shape == b.shape
    scale = max(1.0, float(b.detach().abs().max())) if b.numel() else 1
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance * scale)


# ---- The adjoint, over random shapes and options ----


def random_model(r: random.Random):
    """A model of float64 and the shape of an image; all options, small and odd sizes, single pixels."""
    n, c = r.choice([1, 1, 2, 3]), r.choice([1, 1, 2, 3])
    h, w = r.choice([1, 2, r.randint(1, 11)]), r.choice([1, 3, r.randint(1, 11)])
    seed = r.getrandbits(30)
    sigma = r.choice([0.3, torch.rand(n, generator=torch.Generator().manual_seed(seed)) + 0.1])

    def draw(*shape, dtype=F64):
        return normal(*shape, seed=seed, dtype=dtype)

    kind = r.choice(["denoising", "inpainting", "super", "blur", "projection", "mri", "mri"])
    if kind == "denoising":
        return Denoising(sigma), (n, c, h, w)
    if kind == "inpainting":
        shape = r.choice([(h, w), (1, h, w), (c, h, w), (1, c, h, w), (n, 1, h, w), (n, c, h, w)])
        return Inpainting(draw(*shape) > r.choice([-1, 0, 1]), sigma), (n, c, h, w)
    if kind == "super":
        scale = r.choice([1, 2, 3, 4, 5, 8])
        return SuperResolution(scale, sigma), (n, c, min(h, 4) * scale, min(w, 4) * scale)
    if kind == "blur":
        return Deblurring(draw(r.choice([1, 3, 5, 9]), r.choice([1, 3, 7])), sigma), (n, c, h, w)
    if kind == "projection":
        return RandomProjection(draw(r.randint(1, 40), c * h * w), sigma, image_shape=(c, h, w)), (n, c, h, w)
    mask = draw(*r.choice([(w,), (h, w), (n, 1, h, w), (1, 1, h, w)])) > r.choice([-1, 0])
    coils = r.randint(1, 4)
    shape = r.choice([None, (coils, h, w), (n, coils, h, w), (1, coils, h, w)])
    maps = None if shape is None else draw(*shape, dtype=C128)
    return MRI(mask, maps, sigma, centered=r.random() < 0.5), (n, h, w)


def test_adjoint_of_ten_thousand_models():
    r, worst = random.Random(0), 0.0
    for case in range(10_000):
        model, shape = random_model(r)
        x = torch.empty(shape, dtype=C128 if model.complex_images else F64)
        error = model.adjointness_test(x, seed=case)
        worst = max(worst, error)
        assert error <= 1e-12, (case, model, shape)
    assert worst > 0  # of rounding: not all of them were empty


def test_pylops_dottest():
    pylops = pytest.importorskip("pylops")

    class Operator(pylops.LinearOperator):
        def __init__(self, model, shape):
            dtype = C128 if model.complex_images else F64
            self.model, self.shapes = model, (shape, model(torch.zeros(shape, dtype=dtype)).shape)
            numbers = tuple(math.prod(s) for s in self.shapes)
            super().__init__(dtype=str(dtype).removeprefix("torch."), shape=numbers[::-1])

        def _matvec(self, v):
            return self.model(torch.from_numpy(v).reshape(self.shapes[0])).numpy().ravel()

        def _rmatvec(self, v):
            return self.model.adjoint(torch.from_numpy(v).reshape(self.shapes[1])).numpy().ravel()

    r = random.Random(1)
    for _ in range(2_000):
        operator = Operator(*random_model(r))
        parts = 3 if operator.model.complex_images else 0
        assert pylops.utils.dottest(operator, *operator.shape, rtol=1e-9, atol=1e-12, complexflag=parts)


@pytest.mark.parametrize("case", DENSE)
def test_adjointness_test_needs_no_image(case):
    model = DENSE[case][0]
    assert model.adjointness_test() < 1e-14
    assert model.adjointness_test(torch.zeros(DENSE[case][1], dtype=torch.complex64 if model.complex_images else torch.float32)) < 1e-6  # fmt: skip


def test_adjointness_test_sees_a_wrong_adjoint():
    class Wrong(ForwardModel):
        def forward(self, x):
            return x.roll(1, 3)

        def adjoint(self, y):
            return y.roll(1, 3)

    class Silent(Wrong):
        def forward(self, x):
            return 0 * x

    class Twice(Wrong):
        def adjoint(self, y):
            return 2 * y.roll(-1, 3)

    for model in (Wrong(0.1), Silent(0.1), Twice(0.1)):
        assert model.adjointness_test() > 1e-3
    assert Denoising(0.1).adjointness_test(torch.zeros(2, 3, 0, 4)[:0, :, :].new_zeros(0, 1, 2, 2)) == 0


def test_a_model_of_the_user():
    """Gets gradient, prepare, network_input and adjointness_test, and its complex measurements are real gradients."""
    model = Differences(torch.tensor([0.5, 2.0]))
    assert Differences(0.1).adjointness_test() < 1e-15
    assert model.adjointness_test(torch.zeros(2, 1, 3, 6)) < 1e-6
    x, y = normal(2, 1, 3, 6).requires_grad_(), normal(2, 6, dtype=C128)
    sigma = model.sigma.double()
    likelihood = ((model(x) - y).abs().square().sum(1) / (2 * sigma**2)).sum()
    (expected,) = torch.autograd.grad(likelihood, x)
    assert_close_(model.gradient(x, y), expected)
    assert_close_(model.prepare(y).network_input(x), torch.cat([x, expected], 1))
    with pytest.raises(TypeError, match="adjoint"):

        class Half(ForwardModel):
            def forward(self, x):
                return x

        Half(0.1)


# ---- Others' implementations ----


@pytest.mark.parametrize("scale", [2, 3, 4, 7])
def test_bicubic_is_that_of_others_inside(scale):
    """Pillow and torch renormalize the weights at the border, where MATLAB mirrors the image; inside they are the same."""
    image = pytest.importorskip("PIL.Image")
    x = normal(2, 1, 10 * scale, 9 * scale)
    ours = SuperResolution(scale, 1.0)(x)
    theirs = torch.nn.functional.interpolate(x, scale_factor=1 / scale, mode="bicubic", antialias=True)
    inside = (..., slice(2, -2), slice(2, -2))
    assert_close_(ours[inside], theirs[inside], 1e-6)  # whose a is a float32
    assert (ours - theirs).abs().max() > 1e-3
    pil = image.fromarray(x[0, 0].float().numpy()).resize((9, 10), image.Resampling.BICUBIC)
    assert_close_(ours[0, 0].float()[inside], torch.from_numpy(np.array(pil))[inside], 1e-5)


@pytest.mark.parametrize("scale", [2, 3])
def test_other_kernels_of_resampling_are_those_of_others(scale):
    image = pytest.importorskip("PIL.Image")
    x = normal(2, 1, 14 * scale, 13 * scale)
    torch.testing.assert_close(
        SuperResolution(scale, 1.0, "box")(x), torch.nn.functional.avg_pool2d(x, scale)
    )
    linear = torch.nn.functional.interpolate(x, scale_factor=1 / scale, mode="bilinear", antialias=True)
    inside = (..., slice(4, -4), slice(4, -4))
    torch.testing.assert_close(SuperResolution(scale, 1.0, "bilinear")(x)[inside], linear[inside])
    found = SuperResolution(scale, 1.0, "lanczos3")(x)[0, 0].float()
    pil = image.fromarray(x[0, 0].float().numpy()).resize((13, 14), image.Resampling.LANCZOS)
    assert_close_(found[inside], torch.from_numpy(np.array(pil))[inside], 1e-5)
    own = SuperResolution(scale, 1.0, named("bicubic", scale))
    torch.testing.assert_close(own(x), SuperResolution(scale)(x))
    for bad in ("cubic", torch.ones(scale + 1, scale + 1), torch.ones(3)):
        with pytest.raises(ValueError, match="`kernel` must be one of box"):
            SuperResolution(scale, 1.0, bad)
    with pytest.raises(ValueError, match="`x` must be an image of at least 5 x 5 pixels"):
        SuperResolution(scale, 1.0, torch.ones(10 + scale, 10 + scale))(x[..., :scale, :scale])


@pytest.mark.parametrize("size", [(8, 6), (7, 9), (5, 4), (1, 3)])
@pytest.mark.parametrize("prepared", [False, True])
def test_mri_is_the_centered_formula(size, prepared):
    """For odd sizes too, where fftshift and ifftshift differ."""
    dims = (-2, -1)
    for mask in (binary(size[1]), binary(*size), binary(2, 1, *size)):
        maps, x = normal(4, *size, dtype=C128), normal(2, *size, seed=1, dtype=C128)
        y = normal(2, 4, *size, seed=2, dtype=C128)
        k = torch.fft.fftshift(
            torch.fft.fft2(torch.fft.ifftshift(maps * x[:, None], dim=dims), norm="ortho"), dim=dims
        )
        residual = torch.fft.ifftshift(mask * k - mask * y, dim=dims)
        images = torch.fft.fftshift(torch.fft.ifft2(residual, norm="ortho"), dim=dims)
        expected = (maps.conj() * images).sum(1) / 0.3**2
        model = MRI(mask, maps, 0.3, centered=True)
        found = model.prepare(y).gradient(x) if prepared else model.gradient(x, y)
        assert_close_(found, expected)
        assert_close_(model(x), mask * k)


def test_deblurring_is_a_circular_convolution():
    x, kernel = normal(2, 3, 12, 13), normal(5, 3)
    padded = torch.nn.functional.pad(x, (1, 1, 2, 2), mode="circular")
    expected = torch.nn.functional.conv2d(padded, kernel.flip(0, 1).expand(3, 1, 5, 3), groups=3)
    assert_close_(Deblurring(kernel)(x), expected)
    large = torch.zeros(1, 1, 2049, 3, dtype=torch.float32)  # large angles, in float32
    large[0, 0, 1500, 1] = 1
    out = Deblurring(torch.nn.functional.pad(torch.ones(1, 1), (0, 0, 10, 10)).float())(large)
    assert_close_(out, large, 1e-6)


# ---- Gradients ----


def differentiated():
    """A function, and the tensors that it is differentiated in."""
    sigma = torch.tensor([0.5, 2.0])
    kernel, matrix, wide = normal(3, 3), normal(3, 4), normal(5, 4)
    maps, mask = normal(2, 3, 2, dtype=C128), torch.tensor([True, False])
    real, half = normal(2, 1, 3, 4), normal(2, 1, 2, 2)
    image, k = normal(2, 3, 2, dtype=C128), normal(2, 2, 3, 2, dtype=C128)
    cases = {
        "denoising": (lambda: Denoising(sigma), real, real, []),
        "inpainting": (lambda: Inpainting(binary(3, 4), sigma), real, real, []),
        "super-resolution": (lambda: SuperResolution(2, sigma), normal(2, 1, 4, 4), half, []),
        "deblurring": (lambda t: Deblurring(t, sigma), real, real, [kernel]),
        "projection": (lambda t: RandomProjection(t, sigma), half, normal(2, 3), [matrix]),
        "projection, gram": (lambda: RandomProjection(wide, sigma), half, normal(2, 5), []),
        "mri": (lambda t: MRI(mask, t, sigma), image, k, [maps]),
        "mri, centered, points": (lambda t: MRI(binary(3, 2), t, sigma, True), image, k, [maps]),
        "mri, one coil": (lambda: MRI(mask, None, sigma), image, k[:, :1], []),
    }
    for name, (make, x, y, others) in cases.items():

        def gradient(x, y, *others, make=make):
            return make(*others).gradient(x, y)

        def network_input(x, y, *others, make=make):
            return make(*others).prepare(y).network_input(eta_of(x), "logistic")

        for f in (gradient, network_input):
            yield pytest.param(f, [x, y, *others], id=f"{name}, {f.__name__}")


@pytest.mark.parametrize("f, tensors", list(differentiated()))
def test_gradients(f, tensors):
    tensors = [t.clone().requires_grad_() for t in tensors]
    assert torch.autograd.gradcheck(f, tensors, fast_mode=True)
    assert torch.autograd.gradgradcheck(f, tensors, fast_mode=True)


# ---- Composition ----

SMALL = {
    "denoising": (Denoising(0.5), (2, 1, 6, 8)),
    "inpainting": (Inpainting(binary(6, 8), torch.tensor([0.5, 1.0])), (2, 1, 6, 8)),
    "super-resolution": (SuperResolution(2, 0.5), (2, 1, 6, 8)),
    "super-resolution, box": (SuperResolution(2, 0.5, "box"), (2, 1, 6, 8)),
    "structured projection": (inverse.StructuredProjection((1, 6, 8), 40, 0.5), (2, 1, 6, 8)),
    "radon": (Radon([0.0, 30.0, 80.0], (6, 8), 0.5, detectors=9), (2, 1, 6, 8)),
    "deblurring, reflected": (Deblurring(normal(3, 3, dtype=torch.float32), 0.5, "reflect"), (2, 1, 6, 8)),
    "deblurring": (Deblurring(normal(3, 3, dtype=torch.float32), 0.5), (2, 1, 6, 8)),
    "projection": (RandomProjection(normal(30, 48) / 7, 0.5, image_shape=(1, 6, 8)), (2, 1, 6, 8)),
    "mri": (MRI(binary(8), normal(3, 6, 8, dtype=torch.complex64), 0.5, True), (2, 6, 8)),
}


def of(name, dtype=torch.float32, seed=1):
    model, shape = SMALL[name]
    dtype = dtype.to_complex() if model.complex_images else dtype
    x = normal(*shape, seed=seed, dtype=F64 if dtype.is_floating_point else C128).to(dtype)
    return model, x, normal(*model(x).shape, seed=2, dtype=torch.promote_types(x.dtype, F64)).to(x.dtype)


def eta_of(x):
    return torch.view_as_real(x).permute(0, 3, 1, 2) if x.is_complex() else x


@pytest.mark.parametrize("name", SMALL)
def test_compile_gives_the_same(name):
    model, x, y = of(name)
    eta = eta_of(x)

    def everything(x, eta, y):
        prepared = model.prepare(y)
        given = prepared.network_input(eta)
        return (
            model(x),
            model.gradient(x, y),
            given,
            prepared.network_input(given[:, eta.shape[1] :], "logistic"),
        )

    def prepared(x, eta, y):
        return (model.prepare(y).gradient(x),)

    torch._dynamo.reset()
    runs = [(everything, "aot_eager")] + [(prepared, "inductor")] * (
        name in ("deblurring", "mri")
    )  # that use `conj`
    for f, backend in runs:
        compiled = torch.compile(f, fullgraph=True, backend=backend)
        for a, b in zip(compiled(x, eta, y), f(x, eta, y), strict=True):
            assert_close_(a, b, 1e-5)


@pytest.mark.parametrize("name", ["radon", "structured projection", "deblurring", "super-resolution"])
def test_an_exported_program_takes_any_number_of_images(name):
    model = SMALL[name][0]

    class Gradient(torch.nn.Module):
        def forward(self, x):
            return model.gradient(x, 0.5 * model(x))

    x = normal(3, 1, 6, 8, dtype=torch.float32)
    images = torch.export.Dim("images", min=2)
    program = torch.export.export(Gradient(), (x[:2],), dynamic_shapes=({0: images},)).module()
    torch.testing.assert_close(program(x), Gradient()(x))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_dtypes(name, dtype):
    """Parameters are taken in the dtype of the images, whatever theirs is."""
    model = SMALL[name][0]
    wide = name.startswith(("deblurring", "radon"))
    if dtype in (torch.bfloat16, torch.float16) and (wide or name == "mri"):
        if wide:
            with pytest.raises(ValueError, match="`x` must be float64 or float32"):
                model(torch.zeros(SMALL[name][1], dtype=dtype))
        return
    _, x, y = of(name, dtype)
    wide = [t.to(C128 if t.is_complex() else F64) for t in (x, y)]
    prepared, exact = model.prepare(y), model.prepare(wide[1])
    found = [
        model(x),
        model.adjoint(y),
        model.gradient(x, y),
        prepared.gradient(x),
        prepared.network_input(eta_of(x)),
    ]
    expected = [model(wide[0]), model.adjoint(wide[1]), model.gradient(*wide), exact.gradient(wide[0]), exact.network_input(eta_of(wide[0]))]  # fmt: skip
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == (x.dtype if a.is_complex() or not x.is_complex() else dtype)
        short = dtype in (torch.bfloat16, torch.float16)
        if a.is_complex():
            a, b = torch.view_as_real(a), torch.view_as_real(b)
        # Intermediate results of short types are rounded too.
        assert_close_(a.to(F64), b, TOLERANCE[dtype][0] * (8 if short else 1))


@pytest.mark.parametrize("name", SMALL)
def test_autocast_leaves_the_physics_alone(name):
    model, x, y = of(name)
    expected = model.prepare(y).gradient(x), model.gradient(x, y)
    given = model.prepare(y).network_input(eta_of(x))
    with torch.autocast("cpu", torch.bfloat16):
        found = model.prepare(y).gradient(x), model.gradient(x, y)
        short = model.prepare(y).network_input(eta_of(x))
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b)
    assert short.dtype == torch.bfloat16 and torch.equal(short, given.bfloat16())


@pytest.mark.parametrize("name", SMALL)
def test_to_device_moves_everything(name):
    model, x, y = of(name)
    moved = copy.deepcopy(model).to("meta")
    a, b = x.to("meta"), y.to("meta")
    assert moved(a).shape == y.shape and moved.adjoint(b).shape == x.shape
    assert moved.gradient(a, b).device.type == "meta"
    assert moved.prepare(b).gradient(a).shape == x.shape
    for t in moved.buffers():
        assert t.device.type == "meta"
    if list(model.buffers()):
        with pytest.raises(ValueError, match="must be on meta as the images are"):
            model(a)
    assert not model.state_dict()


@pytest.mark.cuda
@pytest.mark.parametrize("name", SMALL)
def test_no_step_waits_for_the_device(name):
    """Gradient, preparation and network input give the CPU's values without a hidden synchronization."""
    model, x, y = of(name)
    expected = model.gradient(x, y), model.prepare(y).network_input(eta_of(x))
    there, x, y = copy.deepcopy(model).to("cuda"), x.cuda(), y.cuda()
    for mode in ("default", "error"):  # the first call may plan transforms
        torch.cuda.set_sync_debug_mode(mode)
        try:
            found = there.gradient(x, y), there.prepare(y).network_input(eta_of(x))
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for a, b in zip(found, expected, strict=True):
        assert_close_(a.cpu(), b, 1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_copies_and_files_of_a_model(name):
    model, x, y = of(name)
    file = io.BytesIO()
    torch.save(model, file)
    assert len(file.getvalue()) < 30_000
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert torch.equal(other.gradient(x, y), model.gradient(x, y))
        assert repr(other) == repr(model)


def test_what_a_model_keeps():
    """The transfer function and the Gram matrix are computed once, and serve training after inference mode."""
    model, image = Deblurring(normal(5, 5), 0.1), normal(1, 1, 8, 9)
    with torch.inference_mode():
        model(image)
    kept = model._known._known[3]
    assert not kept.is_inference()
    x = image.clone().requires_grad_()
    model.prepare(image).gradient(x).sum().backward()
    assert model._known._known[3] is kept
    assert model(normal(1, 1, 8, 10)).shape == (1, 1, 8, 10) and model._known._known[3] is not kept
    assert_close_(model(image), Deblurring(normal(5, 5))(image))
    with torch.no_grad():  # not promised, but not silently wrong
        model.kernel.mul_(2)
    assert_close_(model(image), 2 * Deblurring(normal(5, 5))(image))

    kernel = normal(3, 3).requires_grad_()  # blind deblurring
    blind = Deblurring(kernel, 0.1)
    for _ in range(2):
        blind(image).sum().backward()
    assert blind._known._known is None and kernel.grad is not None

    gram = RandomProjection(normal(9, 16), 0.1)
    prepared = gram.prepare(normal(2, 9))
    prepared.gradient(normal(2, 1, 4, 4))
    kept = gram._known._known[3]
    prepared.gradient(normal(2, 1, 4, 4))
    assert gram._known._known[3] is kept and kept.shape == (16, 16)
    few = RandomProjection(normal(8, 16), 0.1)
    few.prepare(normal(2, 8)).gradient(normal(2, 1, 4, 4))
    assert few._known._known is None


def test_measurements_are_no_alias_of_the_image():
    x = torch.zeros(1, 1, 2, 2)
    for model in (Denoising(0.1), Inpainting(torch.ones(2, 2))):
        model(x).add_(1)
        model.adjoint(x).add_(1)
        assert x.abs().sum() == 0


def test_eta_is_the_memory_of_a_complex_image():
    """A channels_last estimate is transformed without a copy."""
    from amstel.inverse.model import _to_complex

    for shape in ((2, 2, 5, 4), (1, 2, 1, 1), (3, 2, 1, 1), (1, 2, 1, 5), (2, 2, 5, 1), (0, 2, 3, 3)):
        eta = normal(*shape).contiguous(memory_format=torch.channels_last)
        assert _to_complex(eta).data_ptr() == eta.data_ptr()
        for given in (eta, eta.contiguous(), eta.as_strided(shape, eta.stride())):
            assert torch.equal(torch.view_as_real(_to_complex(given)).permute(0, 3, 1, 2), eta)


def test_no_images():
    for model in (
        Denoising(0.1),
        Inpainting(torch.ones(4, 4)),
        SuperResolution(2),
        RandomProjection(normal(3, 16)),
        Deblurring(normal(3, 3)),
        MRI(torch.ones(4)),
        MRI(torch.ones(4, 4), normal(3, 4, 4, dtype=C128), centered=True),
    ):
        x = torch.zeros(0, 4, 4, dtype=C128) if model.complex_images else torch.zeros(0, 1, 4, 4, dtype=F64)
        y = model(x)
        for found in (
            model.gradient(x, y),
            model.adjoint(y),
            model.prepare(y).gradient(x),
            inverse.Envelope(model, 0.3, 2).gradient(x, y),
            inverse.total_variation(y, model, 0.1, 2),
            inverse.plug_and_play(y, model, lambda t, level: t, [0.1]),
            *(
                RIM(2 if x.is_complex() else 1, 4, 2, network=kind).double()(y, model)[-1]
                for kind in ("conv", "unet")
            ),
        ):
            assert found.shape == x.shape and found.dtype == x.dtype


def test_sensitivities_and_masks_of_all_images():
    """A leading 1 serves any number of images, and a mask [1, 1, H, W] of equal rows is one of columns."""
    maps, mask = normal(1, 3, 5, 4, dtype=C128), binary(4).expand(1, 1, 5, 4)
    model = MRI(mask, maps, 0.1)
    assert model._normal_mask.shape == (4,) and model.mask.shape == (5, 4)
    x = normal(3, 5, 4, dtype=C128)
    assert_close_(model(x), MRI(mask.expand(3, 1, 5, 4), maps.expand(3, -1, -1, -1), 0.1)(x))
    with pytest.raises(ValueError, match=r"`mask` must be \[4\], \[6, 4\] or"):
        MRI(mask, None, 0.1)(normal(3, 6, 4, dtype=C128))


@pytest.mark.filterwarnings("ignore:Casting complex values to real")
def test_to_a_dtype():
    rays = Radon([77.3], (8, 6)).bfloat16()
    assert rays.angles.dtype == F64 and rays.angles.item() == 77.3
    alone = MRI(torch.ones(6), None, torch.tensor([0.1, 0.2])).to(torch.complex64)
    assert alone.sigma.dtype == torch.float32
    """`.double()` leaves sensitivities complex; `.to(float64)` of torch does not, and that is not silent."""
    model = MRI(binary(4), MAPS, 0.1)
    x = normal(1, 5, 4, dtype=C128)
    assert_close_(copy.deepcopy(model).double()(x), model(x))
    with pytest.raises(ValueError, match="`sensitivities` must be complex"):
        copy.deepcopy(model).to(torch.float64)(x)
    kernel = Deblurring(normal(3, 3)).to(torch.float32)
    assert kernel.kernel.dtype == torch.float32


def test_examples():
    import amstel.inverse.deblurring
    import amstel.inverse.images
    import amstel.inverse.kernels
    import amstel.inverse.model
    import amstel.inverse.mri

    of = amstel.inverse
    for module in (of.model, of.images, of.mri, of.deblurring, of.kernels, of.poisson, of.projection):
        result = doctest.testmod(module, extraglobs={"torch": torch, "amstel": amstel})
        assert result.attempted and not result.failed


# ---- Bad input ----

X, Z = torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4, dtype=torch.complex64)
SENS = torch.zeros(3, 4, 4, dtype=torch.complex64)


@pytest.mark.parametrize("error, message, call", [
    (ValueError, r"`sigma` must be a finite number > 0.*got 0 \(int\)", lambda: Denoising(0)),
    (ValueError, "`sigma`.*-1.0", lambda: Denoising(-1.0)),
    (ValueError, "`sigma`.*nan", lambda: Inpainting(X[0, 0], math.nan)),
    (ValueError, "`sigma`.*inf", lambda: SuperResolution(2, math.inf)),
    (ValueError, "`sigma`.*True", lambda: Denoising(True)),
    (ValueError, "`sigma`.*'1'", lambda: Denoising("1")),
    (ValueError, r"`sigma`.*\[1.0, 0.0\]", lambda: Denoising(torch.tensor([1.0, 0.0]))),
    (ValueError, "`sigma`.*nan", lambda: Denoising(torch.tensor([1.0, math.nan]))),
    (ValueError, "`sigma`.*int64", lambda: Denoising(torch.tensor([1]))),
    (ValueError, r"`sigma`.*\[1, 1\]", lambda: Denoising(torch.ones(1, 1))),
    (ValueError, r"`sigma` must be a number or \[2\], one per image, got float32 \[3\]", lambda: Denoising(torch.ones(3)).gradient(X, X)),
    (ValueError, r"`sigma` must be a number or \[2\]", lambda: Denoising(torch.ones(3)).prepare(X)),
    (ValueError, r"`sigma` must be a number or \[2\]", lambda: MRI(X[0, 0], None, torch.ones(3)).prepare(Z[:, None])),
    (TypeError, "`x` must be a real tensor", lambda: Denoising(1.0)([1])),
    (ValueError, r"`x` must be a real tensor \[N, C, H, W\], got float32 \[4, 4\]", lambda: Denoising(1.0)(X[0, 0])),
    (ValueError, "`x` must be a real tensor.*got complex64", lambda: Denoising(1.0)(Z[None])),
    (ValueError, "`x` must be a real tensor.*got int64", lambda: Denoising(1.0)(X.long())),
    (ValueError, r"`x` must be a real tensor.*\[2, 1, 0, 4\]", lambda: Denoising(1.0)(X[:, :, :0])),
    (ValueError, "`y` must be a real tensor", lambda: Denoising(1.0).prepare(X[0])),
    (ValueError, r"`y` must be float32 \[2, 1, 4, 4\] on cpu, got float32 \[1, 1, 4, 4\]", lambda: Denoising(1.0).gradient(X, X[:1])),
    (ValueError, "`y` must be float32 .*got float64", lambda: Denoising(1.0).gradient(X, X.double())),
    (TypeError, "`y` must be float32", lambda: Denoising(1.0).gradient(X, 3)),
    (ValueError, "`link` must be 'identity' or 'logistic', got 'sigmoid'", lambda: Denoising(1.0).prepare(X).network_input(X, "sigmoid")),
    (ValueError, "`link`", lambda: Deblurring(X[0, 0, :3, :3]).prepare(X).network_input(X, None)),
    (TypeError, "`mask` must be", lambda: Inpainting([1, 0])),
    (ValueError, r"`mask` must be \[H, W\], .*got other values in float32 \[2\]", lambda: Inpainting(torch.tensor([0.5, 1]))),
    (ValueError, "`mask`.*got other values in int64", lambda: Inpainting(torch.tensor([[255, 0]]))),
    (ValueError, "`mask`.*got other values", lambda: Inpainting(torch.tensor([[math.nan, 0]]))),
    (ValueError, "`mask`.*got complex64", lambda: Inpainting(Z)),
    (ValueError, r"`mask`.*bool \[4\]", lambda: Inpainting(torch.ones(4))),
    (ValueError, r"`mask` must be \[4, 4\], \[1, 4, 4\] or \[2, 1, 4, 4\] as `x`, got bool \[4, 5\]", lambda: Inpainting(torch.ones(4, 5))(X)),
    (ValueError, "`mask`", lambda: Inpainting(torch.ones(2, 4, 4))(X)),
    (ValueError, "`mask`.*as `y`", lambda: Inpainting(torch.ones(3, 1, 4, 4)).prepare(X)),
    (ValueError, "`scale` must be an integer >= 1, got 0", lambda: SuperResolution(0)),
    (ValueError, "`scale`.*2.0", lambda: SuperResolution(2.0)),
    (ValueError, "`scale`.*True", lambda: SuperResolution(True)),
    (ValueError, r"`x` must be .*multiples of the scale 3, got float32 \[2, 1, 4, 4\]", lambda: SuperResolution(3)(X)),
    (ValueError, r"`y` must be float32 \[2, 1, 2, 2\]", lambda: SuperResolution(2).gradient(X, X)),
    (TypeError, "`kernel`", lambda: Deblurring([[1.0]])),
    (ValueError, r"`kernel` must be float32 or float64 .* with odd sides, got float32 \[4, 4\]", lambda: Deblurring(X[0, 0])),
    (ValueError, "`kernel`.*complex64", lambda: Deblurring(Z[0, :3, :3])),
    (ValueError, "`kernel`", lambda: Deblurring(X)),
    (ValueError, "`x` must be float64 or float32.*complex64", lambda: Deblurring(X[0, 0, :3, :3])(Z[None])),
    (ValueError, r"`x` must be float32 \[2, 1, 4, 4\]", lambda: Deblurring(X[0, 0, :3, :3]).prepare(X).gradient(X[:1])),
    (TypeError, "`matrix`", lambda: RandomProjection(None)),
    (ValueError, "`matrix`.*complex64", lambda: RandomProjection(Z[0])),
    (ValueError, r"`matrix`.*\[2, 1, 4, 4\]", lambda: RandomProjection(X)),
    (ValueError, "`image_shape` must be C, H, W of 15 elements", lambda: RandomProjection(torch.ones(3, 15))),
    (ValueError, r"`image_shape`.*\(2, 2\)", lambda: RandomProjection(torch.ones(3, 4), image_shape=(2, 2))),
    (ValueError, r"`x` must be \[N, 1, 2, 2\], got float32 \[2, 1, 4, 4\]", lambda: RandomProjection(torch.ones(3, 4))(X)),
    (ValueError, r"`y` must be a floating-point tensor \[N, 3\], got float32 \[2, 4\]", lambda: RandomProjection(torch.ones(3, 4)).adjoint(X[:, 0, 0])),
    (TypeError, "`mask`", lambda: MRI(None)),
    (ValueError, "`mask`.*got other values", lambda: MRI(torch.full((4,), 2.0))),
    (ValueError, r"`mask` must be \[W\], \[H, W\] or \[N, 1, H, W\].*got bool \[2, 3, 4, 4\]", lambda: MRI(torch.ones(2, 3, 4, 4))),
    (ValueError, "`mask`", lambda: MRI(torch.ones(3, 4, 4))),
    (ValueError, r"`mask` must be \[4\], \[4, 4\] or \[N, 1, 4, 4\] as the sensitivities, got bool \[5\]", lambda: MRI(torch.ones(5), SENS)),
    (ValueError, "`mask`.*as the sensitivities", lambda: MRI(torch.ones(5, 4), SENS)),
    (ValueError, r"`mask` must be \[4\], \[4, 4\] or \[2, 1, 4, 4\] as `x`, got bool \[3\]", lambda: MRI(torch.ones(3))(Z)),
    (ValueError, "`mask`", lambda: MRI(torch.ones(3, 1, 4, 4))(Z)),
    (TypeError, "`sensitivities`", lambda: MRI(torch.ones(4), 3)),
    (ValueError, "`sensitivities` must be complex64 or complex128.*got float32", lambda: MRI(torch.ones(4), X)),
    (ValueError, r"`sensitivities`.*\[4, 4\]", lambda: MRI(torch.ones(4), Z[0])),
    (ValueError, r"`sensitivities` must be \[3, 5, 4\] or \[2, 3, 5, 4\] as `x`, got complex64 \[3, 4, 4\]", lambda: MRI(torch.ones(4), SENS)(torch.zeros(2, 5, 4, dtype=torch.complex64))),
    (ValueError, "`sensitivities`", lambda: MRI(torch.ones(4), SENS.expand(5, 3, 4, 4))(Z)),
    (ValueError, r"`x` must be complex64 or complex128 \[N, H, W\], got float32 \[2, 4, 4\]", lambda: MRI(torch.ones(4))(Z.real)),
    (ValueError, r"`x`.*\[2, 1, 4, 4\]", lambda: MRI(torch.ones(4))(Z[:, None])),
    (ValueError, r"`y` must be complex64 or complex128 \[N, coils, H, W\], got complex64 \[2, 4, 4\]", lambda: MRI(torch.ones(4)).adjoint(Z)),
    (ValueError, r"`y` must be \[N, 3, H, W\], one k-space per coil, got complex64 \[2, 1, 4, 4\]", lambda: MRI(torch.ones(4), SENS).prepare(Z[:, None])),
    (ValueError, r"`y` must be complex64 \[2, coils, 4, 4\] as `x`, got complex128", lambda: MRI(torch.ones(4)).gradient(Z, Z[:, None].to(C128))),
    (ValueError, "`y`.*as `x`", lambda: MRI(torch.ones(4)).gradient(Z, Z[:1, None])),
    (ValueError, r"`x` must be complex64 \[2, 4, 4\]", lambda: MRI(torch.ones(4)).prepare(Z[:, None]).gradient(Z[:1])),
    (ValueError, r"`eta` must be float32 or float64 \[N, 2, H, W\]", lambda: MRI(torch.ones(4)).prepare(Z[:, None]).network_input(X)),
    (TypeError, "`x` must be an image", lambda: Denoising(1.0).adjointness_test(3)),
])  # fmt: skip
def test_bad_input(error, message, call):
    with pytest.raises(error, match=message):
        call()


# ---------------------------------------------------------------------------------------------- torch.func


def _many(*shape, complex_=False):
    drawn = torch.rand(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))
    return torch.complex(drawn - 0.5, drawn.flip(0) - 0.5) if complex_ else drawn + 0.1


_POINTS = _many(8, 8).round()
MADE_IN_VMAP = {
    "denoising": (lambda x, y, sigma: Denoising(sigma).prepare(y).network_input(x, "logistic"), 8, ()),
    "a map": (lambda x, y, sigma: Denoising(sigma).gradient(x, y), 8, (_many(2, 1, 8, 8),)),
    "inpainting": (lambda x, y, sigma, mask: Inpainting(mask, sigma).gradient(x, y), 8, (_POINTS,)),
    "blur": (lambda x, y, sigma, k: Deblurring(k, sigma).gradient(x, y), 8, (_many(3, 3),)),
    "smaller": (lambda x, y, sigma: SuperResolution(2, sigma).gradient(x, y), 4, ()),
    "radon": (lambda x, y, sigma: Radon([0.0, 30.0], (8, 8), sigma, detectors=2)(x) + y, 2, ()),
    "mri": (
        lambda x, y, sigma, mask, maps: MRI(mask, maps, sigma).prepare(y).gradient(x),
        None,
        (_POINTS, _many(4, 8, 8, complex_=True)),
    ),
    "structured": (
        lambda x, y, sigma: inverse.StructuredProjection((1, 8, 8), 64, sigma).gradient(x, y.flatten(1)),
        8,
        (),
    ),
    "total variation": (lambda x, y, sigma: inverse.total_variation(y, Denoising(sigma), 0.05, 9), 8, ()),
    "plug and play": (
        lambda x, y, sigma: inverse.plug_and_play(y, Denoising(sigma), lambda x, level: x / 2, [0.2]),
        8,
        (),
    ),
    "message passing": (
        lambda x, y, sigma: inverse.message_passing(
            y.flatten(1), inverse.StructuredProjection((1, 8, 8), 64), lambda x, level: x / 2, x, steps=3
        ),
        8,
        (),
    ),
}


@pytest.mark.parametrize("name", MADE_IN_VMAP)
def test_a_model_that_is_made_under_vmap(name):
    """Each element with a sigma, a mask and the like of its own, whose values vmap hides."""
    call, side, rest = MADE_IN_VMAP[name]
    if side is None:
        x, y = _many(2, 8, 8, complex_=True), _many(2, 4, 8, 8, complex_=True)
    else:
        x, y = _many(2, 1, 8, 8), _many(2, 1, side, side)
    every = (x, y, *rest) if name == "a map" else (x, y, _many(2), *rest)
    expected = torch.stack([call(*one) for one in zip(*every, strict=True)])
    torch.testing.assert_close(torch.vmap(call)(*every), expected)


def test_angles_cannot_differ_under_vmap():
    with pytest.raises(ValueError, match=r"`angles` must be the same for every element of torch.vmap"):
        torch.vmap(lambda angles: Radon(angles, (4, 4))(torch.ones(1, 1, 4, 4)))(torch.rand(2, 3))


# -------------------------------------------------------------------------------------------- envelopes


@pytest.mark.parametrize("complex_images", [False, True])
def test_envelope_is_the_proximal_step(complex_images):
    torch.manual_seed(0)
    if complex_images:
        model = inverse.MRI(torch.rand(4, 6) < 0.6, torch.randn(3, 4, 6, dtype=torch.complex128), sigma=0.7)
        x, y = torch.randn(2, 4, 6, dtype=torch.complex128), torch.randn(2, 3, 4, 6, dtype=torch.complex128)
    else:
        model = inverse.SuperResolution(2, 0.3)
        x, y = torch.randn(2, 1, 4, 6, dtype=torch.float64), torch.randn(2, 1, 2, 3, dtype=torch.float64)
    weight = 0.8
    found = inverse.Envelope(model, weight, iterations=40).gradient(x, y)
    # At p = x - gradient the derivative of f / weight + |p - x|^2 / 2 is 0.
    p = x - found
    torch.testing.assert_close(model.gradient(p, y) / weight, x - p, rtol=1e-8, atol=1e-8)
    prepared = inverse.Envelope(model, weight, iterations=40).prepare(y)
    assert torch.equal(prepared.gradient(x), found)
    eta = torch.view_as_real(x).permute(0, 3, 1, 2) if complex_images else x
    shown = torch.view_as_real(found).permute(0, 3, 1, 2) if complex_images else found
    torch.testing.assert_close(prepared.network_input(eta)[:, eta.shape[1] :], shown)
    assert inverse.Envelope(model, weight).adjointness_test(x) < 1e-12


def test_envelope_of_one_iteration_is_along_the_gradient_and_nothing_is_divided_by_nothing():
    model = inverse.Denoising(0.5)
    x, y = torch.rand(1, 1, 3, 3), torch.rand(1, 1, 3, 3)
    one = inverse.Envelope(model, 2.0, iterations=1).gradient(x, y)
    torch.testing.assert_close(one, (x - y) * 4 / (4 + 2))
    assert torch.equal(inverse.Envelope(model, 2.0).gradient(y, y), torch.zeros_like(y))


def test_envelope_can_be_differentiated():
    model = inverse.Envelope(
        inverse.Deblurring(torch.rand(3, 3, dtype=torch.float64), 0.9), 0.5, iterations=5
    )
    x, y = (torch.rand(1, 1, 3, 4, dtype=torch.float64, requires_grad=True) for _ in "xy")
    assert torch.autograd.gradcheck(model.gradient, (x, y))


def test_envelope_says_what_is_wrong():
    with pytest.raises(TypeError, match="`model` must be a ForwardModel"):
        inverse.Envelope(torch.nn.Identity(), 1.0)
    for weight in (0, -1.0, float("inf"), True, "1"):
        with pytest.raises(ValueError, match="`weight` must be a finite number > 0"):
            inverse.Envelope(inverse.Denoising(1.0), weight)
    for iterations in (0, 1.5, True):
        with pytest.raises(ValueError, match="`iterations` must be an integer >= 1"):
            inverse.Envelope(inverse.Denoising(1.0), 1.0, iterations)
