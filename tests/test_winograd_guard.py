"""A large or non-finite value reaches nothing outside of its 3x3 window, whatever the algorithm."""

import math

import pytest
import torch

from amstel import ops
from amstel.ops._winograd import conv3x3

BAD = [-9999.0, 65504.0, 1e20, math.inf, -math.inf, math.nan]


def weights(inputs, hidden):
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(4 * hidden, inputs, 3, 3, generator=generator) * 0.1,
        torch.randn(4 * hidden, hidden, 3, 3, generator=generator) * 0.1,
    )


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("inputs", [3, 16])
@pytest.mark.parametrize("where", ["x", "h", "c"])
def test_conv_lstm_keeps_a_value_in_its_window(value, inputs, where):
    w_ih, w_hh = weights(inputs, 16)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 2, inputs, 24, 24, generator=generator)
    state = tuple(torch.randn(2, 16, 24, 24, generator=generator) for _ in range(2))
    clean = ops.conv_lstm(x, w_ih, w_hh, state=state, algorithm="plain")[0]
    target = {"x": x[0], "h": state[0], "c": state[1]}[where]
    target[1, 0, 9, 10] = value
    found = ops.conv_lstm(x, w_ih, w_hh, state=state)[0]
    outside = torch.ones(24, 24, dtype=torch.bool)
    outside[8:11, 9:12] = False
    assert float((found[0, 1] - clean[0, 1])[:, outside].abs().max()) < 1e-5
    assert float((found[0, 0] - clean[0, 0]).abs().max()) < 1e-5
    plain = ops.conv_lstm(x, w_ih, w_hh, state=state, algorithm="plain")[0]
    torch.testing.assert_close(found, plain, equal_nan=True, atol=1e-5, rtol=2e-5)


@pytest.mark.parametrize("value", BAD)
def test_both_passes_agree_with_the_plain_ones_over_a_sequence(value):
    w_ih, w_hh = weights(16, 16)
    x = torch.randn(3, 2, 16, 12, 12, generator=torch.Generator().manual_seed(1))
    x[1, 0, 3, 5, 6] = value
    found = {}
    for algorithm in ("auto", "plain"):
        for memory in ("store", "recompute"):
            inputs = [t.clone().requires_grad_() for t in (x, w_ih, w_hh)]
            output, (h, c) = ops.conv_lstm(*inputs, algorithm=algorithm, memory=memory)
            found[algorithm, memory] = [output, h, c, *torch.autograd.grad(output[0].sum(), inputs)]
    for memory in ("store", "recompute"):
        for a, b in zip(found["auto", memory], found["plain", memory], strict=True):
            torch.testing.assert_close(a, b, equal_nan=True, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("value", BAD)
def test_a_convolution_of_images_keeps_a_value_in_its_window(value):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 16, 24, 24, generator=generator)
    weight, bias = torch.randn(16, 16, 3, 3, generator=generator), torch.randn(16, generator=generator)
    clean = torch.nn.functional.conv2d(x, weight, bias, padding=1)
    x[1, 0, 9, 10] = value
    outside = torch.ones(24, 24, dtype=torch.bool)
    outside[8:11, 9:12] = False
    difference = (conv3x3(x, weight, bias) - clean).abs()
    assert float(difference[1][:, outside].max()) < 1e-4 and float(difference[0].max()) < 1e-4


def test_a_gradient_that_is_not_finite_stays_in_its_window():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 16, 24, 24, generator=generator, requires_grad=True)
    weight, bias = torch.randn(16, 16, 3, 3, generator=generator), torch.zeros(16)
    grad = torch.randn(1, 16, 24, 24, generator=generator)
    grad[0, 0, 9, 10] = math.inf
    (found,) = torch.autograd.grad(conv3x3(x, weight, bias), x, grad)
    finite = torch.isfinite(found).all(1)[0]
    assert int((~finite).sum()) <= 9 and not bool(finite[8:11, 9:12].any())
