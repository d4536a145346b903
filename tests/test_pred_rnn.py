"""The spatiotemporal cell of PredRNN against its formula, written out again."""

import pytest
import torch
from torch.nn import functional as F

import amstel


def _formula(cell, x, h, c, m):
    """One gate at a time, from its own rows of the weights."""
    w = cell.hidden_channels

    def conv(t, weight, bias=None):
        return F.conv2d(t, weight, bias, padding="same")

    def rows(weight, k):
        return weight[k * w : (k + 1) * w]

    def gate(k):
        return conv(x, rows(cell.weight_x, k), rows(cell.bias, k))

    i, f, g, o_h = (conv(h, rows(cell.weight_h, k)) for k in range(4))
    c = torch.sigmoid(gate(1) + f) * c + torch.sigmoid(gate(0) + i) * torch.tanh(gate(2) + g)
    i, f, g = (conv(m, rows(cell.weight_m, k)) for k in range(3))
    m = torch.sigmoid(gate(5) + f) * m + torch.sigmoid(gate(4) + i) * torch.tanh(gate(6) + g)
    o = torch.sigmoid(gate(3) + o_h + conv(c, cell.weight_o[:, :w]) + conv(m, cell.weight_o[:, w:]))
    return o * torch.tanh(conv(c, cell.weight_last[:, :w]) + conv(m, cell.weight_last[:, w:])), c, m


def test_values_and_gradients():
    torch.manual_seed(0)
    cell = amstel.nn.PredRNNCell(3, 4, (3, 5)).double()
    torch.nn.init.normal_(cell.bias)
    inputs = [torch.randn(2, n, 6, 5, dtype=torch.float64, requires_grad=True) for n in (3, 4, 4, 4)]
    found, expected = cell(inputs[0], tuple(inputs[1:])), _formula(cell, *inputs)
    weights = [torch.randn_like(t) for t in expected]
    leaves = [*inputs, *cell.parameters()]
    grads = []
    for result in (found, expected):
        grads.append(
            torch.autograd.grad(sum((a * b).sum() for a, b in zip(result, weights, strict=True)), leaves)
        )
    for a, b in zip((*found, *grads[0]), (*expected, *grads[1]), strict=True):
        torch.testing.assert_close(a, b)
    zeros = torch.zeros(2, 4, 6, 5, dtype=torch.float64)
    for a, b in zip(cell(inputs[0]), cell(inputs[0], (zeros, zeros, zeros)), strict=True):
        assert torch.equal(a, b)


def test_how_it_begins():
    cell = amstel.nn.PredRNNCell(3, 2, forget_bias=2.0)
    assert cell.bias.tolist() == [0, 0, 2, 2, 0, 0, 0, 0, 0, 0, 2, 2, 0, 0]
    assert amstel.nn.PredRNNCell(3, 2, bias=False, dtype=torch.float64).bias is None
    assert all(p.is_meta for p in amstel.nn.PredRNNCell(3, 2, device="meta").parameters())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c, x: c(x[0]), "`x` must be"),
        (lambda c, x: c(x[:, :2]), "`x` must be"),
        (lambda c, x: c(x, (x, x)), "`state` must be"),
        (lambda c, x: c(x, (x, x, x)), "`h` must be"),
        (lambda c, x: c([1]), "`x` must be"),
        (lambda c, x: type(c)(3, 0), "`hidden_channels` must be"),
        (lambda c, x: type(c)(3, 4, forget_bias="1"), "`forget_bias` must be"),
    ],
)
def test_errors(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(amstel.nn.PredRNNCell(3, 4), torch.zeros(2, 3, 5, 5))
