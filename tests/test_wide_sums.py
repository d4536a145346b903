"""What is summed or exponentiated in 16 bits: as in float32 where float16 would overflow or lose terms."""

import pytest
import torch

import amstel


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_the_divergence_of_a_vgae(dtype, autocast):
    data = amstel.data.block_model(nodes=300)
    x = data.features.to_dense()
    torch.manual_seed(0)
    model = amstel.nn.VGAE(x.shape[1], 32, 16).eval()
    with torch.no_grad():  # means with a sum of squares beyond 65504, and exp(2 logstd) beyond it, too
        for layer, value, most in zip(
            (model.mean, model.logstd), model.distribution(x, data.graph), (20, 6), strict=True
        ):
            layer.weight *= most / value.abs().max()
    expected = model.loss(x, data.graph)
    gradient = torch.autograd.grad(expected, [*model.parameters()])
    if not autocast:
        model, x = model.to(dtype), x.to(dtype)
    with torch.autocast("cpu", dtype, enabled=autocast):
        found = model.loss(x, data.graph)
    assert found.dtype == torch.float32
    close = {"rtol": 0.1, "atol": 0}
    torch.testing.assert_close(found, expected, **close)
    for one, other in zip(torch.autograd.grad(found, [*model.parameters()]), gradient, strict=True):
        torch.testing.assert_close(one.float().norm(), other.norm(), **close)
