"""Non-Cartesian MRI: by direct sums, on the grid, its adjoint, gradients, plug-and-play, deepinv, and what is refused."""

import math
import subprocess
import sys

import pytest
import torch

from amstel import _optional, inverse
from amstel.inverse import MRI, NonCartesianMRI

pytestmark = pytest.mark.usefixtures("one_thread")


def normal(*shape, seed=0, dtype=torch.complex128):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def points(count, seed=0):
    return (2 * torch.rand(2, count, generator=torch.Generator().manual_seed(seed)) - 1) * math.pi


@pytest.mark.parametrize("size", [(32, 24), (15, 17)])
def test_it_is_the_sum_over_the_pixels(size):
    w, maps, x = points(200), normal(3, *size), normal(2, *size, seed=1)
    places = [torch.arange(n) - n // 2 for n in size]
    phase = w[0][:, None, None] * places[0][:, None] + w[1][:, None, None] * places[1]
    expected = torch.einsum("khw,nchw->nck", torch.exp(-1j * phase.double()), maps * x[:, None])
    found = NonCartesianMRI(w, size, maps)(x) * math.sqrt(math.prod(size))
    assert (found - expected).abs().max() < 3e-3 * expected.abs().max()


def test_on_the_grid_it_is_the_centered_transform():
    rows, columns = (2 * math.pi * (torch.arange(n) - n // 2) / n for n in (16, 20))
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).flatten(1)
    x = normal(1, 16, 20)
    expected = MRI(torch.ones(20), centered=True)(x).flatten(2)
    assert (NonCartesianMRI(grid, (16, 20))(x) - expected).abs().max() < 3e-3 * expected.abs().max()


@pytest.mark.parametrize("maps", [None, normal(3, 12, 10), normal(2, 3, 12, 10)])
def test_the_adjoint_is_one_and_gradients_go_through(maps):
    physics = NonCartesianMRI(points(40), (12, 10), maps, sigma=0.5)
    assert physics.adjointness_test() < 1e-13
    assert physics.adjointness_test(torch.empty(2, 12, 10, dtype=torch.complex64)) < 1e-5
    x, y = normal(2, 12, 10), normal(2, 1 if maps is None else 3, 40, seed=1)
    expected = physics.adjoint(physics(x) - y) / 0.25
    torch.testing.assert_close(physics.gradient(x, y), expected)
    torch.testing.assert_close(physics.prepare(y).gradient(x), expected)
    x.requires_grad_()
    assert torch.autograd.gradcheck(physics, x, fast_mode=True)


def test_it_trains_after_inference_mode():
    physics = NonCartesianMRI(points(20), (8, 8))
    x = normal(1, 8, 8).requires_grad_()
    with torch.inference_mode():
        expected = physics.adjoint(physics(x))
    y = physics.adjoint(physics(x))
    assert torch.equal(y, expected)
    (found,) = torch.autograd.grad(y.real.sum(), x)  # A^H A is its own adjoint
    torch.testing.assert_close(found, physics.normal(torch.ones_like(x)).detach())


def matrix(call, shape):
    """Of a linear function, by its values at the unit vectors."""
    units = torch.eye(math.prod(shape), dtype=torch.complex128).reshape(-1, *shape)
    return torch.stack([call(unit[None])[0].flatten() for unit in units], 1)


@pytest.mark.parametrize("maps", [None, normal(2, 6, 5)])
def test_transforms_of_torch_func_are_those_of_its_matrix(maps):
    physics = NonCartesianMRI(points(20), (6, 5), maps, sigma=0.5)
    a = matrix(physics, (6, 5))
    x, t = normal(3, 6, 5), normal(3, 6, 5, seed=1)
    y, close = physics(normal(3, 6, 5, seed=2)), torch.testing.assert_close
    of = lambda call, x: torch.view_as_real(call(x.to(torch.complex128))).flatten()  # noqa: E731
    func = torch.func
    close(torch.vmap(lambda x: physics(x[None])[0])(x), physics(x))
    twice = torch.vmap(torch.vmap(lambda x: physics(x[None])[0]), 1, 1)(torch.stack([x, t]))
    close(twice, torch.stack([physics(x), physics(t)]))
    close(torch.vmap(physics.gradient, (0, None))(torch.stack([x, t]), y)[1], physics.gradient(t, y))
    for half in (func.jvp(physics, (x,), (t,))[1], torch.autograd.functional.jvp(physics, x, t)[1]):
        close(half, physics(t))
    close(func.vjp(physics, x)[1](y)[0], physics.adjoint(y))
    loss = lambda x: (physics(x) - y).abs().square().sum() / 2  # noqa: E731
    close(func.grad(loss)(x), 0.25 * physics.gradient(x, y))
    expected = torch.view_as_real(a).movedim(1, 2).flatten(0, 1)
    for jacobian in (func.jacrev, func.jacfwd):
        close(jacobian(lambda x: of(physics, x[None]))(x[0].real).flatten(1), expected)
    hessian = func.hessian(lambda x: physics(x[None].to(torch.complex128)).abs().square().sum() / 2)
    close(hessian(x[0].real).reshape(30, 30), (a.mH @ a).real)
    x.requires_grad_()
    options = {"check_forward_ad": True, "check_batched_grad": True}
    assert torch.autograd.gradcheck(physics, x, fast_mode=True, **options)
    assert torch.autograd.gradgradcheck(physics, x, fast_mode=True, check_fwd_over_rev=True)


def test_a_trajectory_and_maps_for_each_element_of_vmap():
    """A model that is made under torch.vmap, also twice."""
    w = torch.stack([points(20), points(20, 1)]).double()
    maps, x = normal(3, 2, 6, 5), normal(2, 6, 5)

    def made(w, maps):
        return NonCartesianMRI(w, (6, 5), maps)(x)

    found = torch.vmap(torch.vmap(made, (0, None)), (None, 0))(w, maps)
    for i, some in enumerate(maps):
        for j, one in enumerate(w):
            torch.testing.assert_close(found[i, j], made(one, some))


def test_programs_hold_it():
    physics = NonCartesianMRI(points(20), (6, 5), normal(2, 6, 5), sigma=0.5)
    x, y = normal(3, 6, 5).requires_grad_(), normal(3, 2, 20, seed=1)
    expected = physics.gradient(x, y)
    (grad,) = torch.autograd.grad(expected.abs().sum(), x)
    for backend in ("aot_eager", "inductor"):
        found = torch.compile(physics.gradient, fullgraph=True, backend=backend)(x, y)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(torch.autograd.grad(found.abs().sum(), x)[0], grad)
    x = x.detach()
    assert torch.equal(torch.export.export(physics, (x,)).module()(x), physics(x))
    assert physics.to("meta").adjoint(y.to("meta")).shape == (3, 6, 5)
    for given, adjoint in ((x[:, None], False), (y, True)):
        sample = given, points(20).double(), 6, 5, adjoint
        torch.library.opcheck(
            torch.ops.amstel.nufft.default, sample, test_utils=("test_schema", "test_faketensor")
        )


def test_an_image_comes_back_from_spokes_by_total_variation():
    angle, radius = torch.arange(24) * math.pi / 24, torch.linspace(-math.pi, math.pi, 65)[:-1]
    spokes = torch.stack([torch.outer(angle.sin(), radius), torch.outer(angle.cos(), radius)]).flatten(1)
    image = torch.zeros(1, 32, 32, dtype=torch.complex64)
    image[:, 8:20, 10:26] = 1
    physics = NonCartesianMRI(spokes, (32, 32))
    x = inverse.total_variation(physics(image), physics, 0.01, 100)
    assert (x - image).abs().square().mean().sqrt() < 0.05


def test_deepinv_takes_it():
    pytest.importorskip("deepinv", reason="deepinv (extra `test`) is not installed")
    from amstel.interop.deepinv import from_deepinv, to_deepinv

    model = NonCartesianMRI(points(40), (12, 10), normal(3, 12, 10), sigma=0.1)
    theirs = to_deepinv(model)
    x = normal(1, 12, 10)
    torch.testing.assert_close(theirs.A(x), model(x))
    torch.testing.assert_close(from_deepinv(theirs, 0.1).adjoint(model(x)), model.adjoint(model(x)))


def test_after_pyg_has_patched_torch():
    code = "import torch, torch_geometric, amstel\n"
    code += "amstel.inverse.NonCartesianMRI(torch.zeros(2, 3), (4, 4))(torch.ones(1, 4, 4) + 0j)"
    if _optional.have("torch_geometric"):
        subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_refused():
    w, size = points(5), (4, 4)
    x = torch.zeros(1, 4, 4, dtype=torch.complex64)
    for error, message, call in (
        (ValueError, "`trajectory` must be real", lambda: NonCartesianMRI(w.T, size)),
        (ValueError, "`trajectory` must be real", lambda: NonCartesianMRI(100 * w, size)),
        (ValueError, "`trajectory` must be real", lambda: NonCartesianMRI(w * float("nan"), size)),
        (TypeError, "`image_shape` must be two integers", lambda: NonCartesianMRI(w, 4)),
        (ValueError, "`sensitivities` must be", lambda: NonCartesianMRI(w, size, normal(2, 4, 5))),
        (ValueError, "`x` must be", lambda: NonCartesianMRI(w, size)(x.real)),
        (ValueError, "`y` must be", lambda: NonCartesianMRI(w, size).adjoint(x)),
    ):
        with pytest.raises(error, match=message):
            call()


def test_without_torchkbnufft_it_says_what_to_install(monkeypatch):
    def absent(name, *args):
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr(_optional.importlib, "import_module", absent)
    with pytest.raises(
        ImportError, match=r'NonCartesianMRI needs torchkbnufft: pip install "amstel\[nufft\]"'
    ):
        NonCartesianMRI(points(5), (4, 4))
