"""Programs that PyTorch rewrites under a transform: torch.func.functionalize, and torch.export of what is batched."""

from importlib.util import find_spec

import pytest
import torch
from torch.testing import assert_close

import amstel
from amstel import ops

BOXES = torch.tensor([[0, 1.0, 1, 4, 4], [1, 0, 0, 6, 6]])
PYRAMID = amstel.nn.MultiScaleRoIAlign(["0"], 2, 2)
CALLS = {
    "roi_pool": lambda x: ops.roi_pool(x, BOXES, 2),
    "roi_align": lambda x: ops.roi_align(x, BOXES, 2),
    "roi_align of 2 x 2": lambda x: ops.roi_align(x, BOXES, 2, 1.0, 2),
    "ps_roi_pool": lambda x: ops.ps_roi_pool(x, BOXES, 2),
    "RoIAlign": lambda x: amstel.nn.RoIAlign(2, 1.0, 2)(x, BOXES),
    "MultiScaleRoIAlign": lambda x: PYRAMID({"0": x}, [BOXES[:, 1:]] * 2, [(6, 7)] * 2),
}


class Module(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def maps(*shape):
    return torch.randn(*shape, 2, 4, 6, 7, generator=torch.Generator().manual_seed(0))


def summed(call):
    return torch.func.grad(lambda x: call(x).square().sum())


@pytest.mark.parametrize("name", CALLS)
def test_functionalize(name):
    x, call = maps(), CALLS[name]
    assert torch.equal(torch.func.functionalize(call)(x), call(x))
    assert_close(torch.func.functionalize(summed(call))(x), summed(call)(x))
    batched = torch.func.functionalize(torch.vmap(call))
    assert torch.equal(batched(x[None]), call(x)[None])


@pytest.mark.parametrize("name", CALLS)
def test_what_is_batched_is_exported(name):
    xs, call = maps(3), torch.vmap(CALLS[name])
    program = torch.export.export(Module(call), (xs,))
    assert "amstel.roi" in str(program.graph) or "amstel.ps_roi" in str(program.graph)
    assert torch.equal(program.module()(xs.cos()), call(xs.cos()))


# Importing it here, as importorskip does, fails once another test has imported PyG: amstel knows how to.
@pytest.mark.skipif(
    find_spec("torchkbnufft") is None, reason="torchkbnufft is the transform of NonCartesianMRI"
)
def test_measurements_away_from_a_grid():
    angles = torch.arange(5) * 0.6
    points = torch.outer(torch.stack([angles.sin(), angles.cos()]).flatten(), torch.linspace(-3, 3, 8))
    model = amstel.inverse.NonCartesianMRI(points.view(2, -1), (8, 8))
    x = torch.randn(2, 1, 8, 8, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    assert_close(torch.func.functionalize(model)(x[0]), model(x[0]))
    call = torch.vmap(model)
    assert_close(torch.export.export(Module(call), (x,)).module()(x), call(x))
