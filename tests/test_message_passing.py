"""Message passing from random projections: what a known denoiser comes to, what stays as it was, what is refused."""

import doctest

import pytest
import torch

import amstel
from amstel import inverse
from amstel.inverse import StructuredProjection, message_passing

pytestmark = pytest.mark.usefixtures("one_thread")


def soft(x, level):
    """The denoiser of sparse images."""
    limit = 1.3 * level[:, None, None, None]
    return x.sign() * (x.abs() - limit).clamp_min(0)


def sparse(count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    few = torch.rand(count, 1, 32, 32, generator=generator) < 0.02
    return few * torch.randn(count, 1, 32, 32, generator=generator)


def test_a_sparse_image_comes_back_from_a_quarter_of_the_measurements():
    x = sparse()
    physics = StructuredProjection((1, 32, 32), 256, sigma=1e-3)
    y = physics(x) + 1e-3 * torch.randn(3, 256, generator=torch.Generator().manual_seed(1))
    found = message_passing(y, physics, soft, torch.zeros_like(x), damping=0.2)
    assert (found - x).square().mean().sqrt() < 0.02 * x.square().mean().sqrt()
    assert torch.equal(found, message_passing(y, physics, soft, torch.zeros_like(x), damping=0.2))
    matrix = torch.stack([physics(e[None])[0] for e in torch.eye(1024).reshape(1024, 1, 32, 32)], 1)
    dense = inverse.RandomProjection(matrix, 1e-3)
    torch.testing.assert_close(
        message_passing(y, dense, soft, torch.zeros_like(x), damping=0.2), found, rtol=1e-2, atol=1e-3
    )


def test_what_diverges_stays_as_it_was():
    x = sparse()
    physics = StructuredProjection((1, 32, 32), 64)
    start = 0.5 * x
    found = message_passing(physics(x), physics, lambda t, level: 3 * t, start)
    assert torch.equal(found, start)


def test_what_is_refused():
    physics, x = StructuredProjection((1, 4, 4), 8), torch.zeros(1, 1, 4, 4)
    y = physics(x)
    for error, message, call in (
        (TypeError, "`physics` must be", lambda: message_passing(y, None, soft, x)),
        (TypeError, "`denoiser` must be", lambda: message_passing(y, physics, None, x)),
        (TypeError, "`y` must be", lambda: message_passing(None, physics, soft, x)),
        (ValueError, "`initial` must be", lambda: message_passing(y, physics, soft, x[0])),
        (ValueError, "`damping` must be", lambda: message_passing(y, physics, soft, x, damping=1)),
        (ValueError, "`steps` must be", lambda: message_passing(y, physics, soft, x, steps=0)),
        (ValueError, "`denoiser` must be", lambda: message_passing(y, physics, lambda t, level: t[0], x)),
    ):
        with pytest.raises(error, match=message):
            call()


def test_examples_run():
    module = __import__("sys").modules["amstel.inverse.message_passing"]
    assert doctest.testmod(module, extraglobs={"amstel": amstel, "torch": torch}).failed == 0
