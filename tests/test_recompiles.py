"""A compiled function on inputs of many sizes: one program for the first size and one for all others.

What makes a compiler take a size for a constant is easily written: text with the size in it, an `int` in an operator's
schema, a loop over the size. Backend "eager", since it is Dynamo that sees it.
"""

import pytest
import torch
from torch._dynamo.utils import counters
from torch.testing import assert_close

import amstel
from amstel import nn, ops

GRAPH = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 2, 2, 3], [1, 0, 1, 1, 2]]), 5)
WEIGHTS = torch.randn(8, 3, 3, 3), torch.randn(8, 2, 3, 3)
randn = torch.randn


def _boxes(count, images):
    first, size = torch.rand(2, count, 2) * 4
    return torch.cat([(torch.arange(count) % images)[:, None], first, first + size], 1)


def _maps(k):
    return randn(k + 2, 8, k + 9, k + 11), _boxes(k + 3, k + 2)


def _mri(x, y, mask):
    return ops.mri_gradient(torch.view_as_complex(x), torch.view_as_complex(y), mask, None).abs()


torch.manual_seed(0)
_LSTM = nn.ConvLSTM(3, 2)
CASES = {
    "spmm": (lambda x: ops.spmm(GRAPH, x), lambda k: (randn(k + 2, 5, k + 3),)),
    "spmm of a pair": (lambda x, y, w: ops.spmm(GRAPH, (x, y), w), lambda k: (randn(5, k + 2), randn(5, k + 2), torch.rand(5))),
    "conv_lstm": (lambda x, n: ops.conv_lstm(x, *WEIGHTS, lengths=n)[0], lambda k: (randn(k + 2, k + 3, 3, k + 5, k + 7), torch.randint(1, k + 2, (k + 3,)))),
    "conv_gru_cell": (ops.conv_gru_cell, lambda k: (randn(k + 2, 6, k + 5, k + 7), randn(k + 2, 6, k + 5, k + 7), randn(k + 2, 2, k + 5, k + 7))),
    "roi_pool": (lambda x, b: ops.roi_pool(x, b, 2, 0.5), _maps),
    "roi_match": (lambda x, b: ops.roi_match([x], b, torch.ones(32), 2, [0.5]), _maps),
    "roi_align": (lambda x, b: ops.roi_align(x, b, 2, 0.5), _maps),
    "ps_roi_pool": (lambda x, b: ops.ps_roi_pool(x, b, 2, 0.5), _maps),
    "rim_super_resolve_input": (lambda e, y: ops.rim_super_resolve_input(e, y, 2, 0.3), lambda k: (randn(k + 2, 2, 2 * k + 4, 2 * k + 6), randn(k + 2, 2, k + 2, k + 3))),
    "mri_gradient": (_mri, lambda k: (randn(k + 2, k + 4, k + 5, 2), randn(k + 2, 1, k + 4, k + 5, 2), (torch.rand(k + 5) > 0.5).float())),
    "segment_reduce": (lambda x, s: ops.segment_reduce(x, s, 4, reduce="mean"), lambda k: (randn(k + 5, k + 3), torch.randint(0, 4, (k + 5,)))),
    "ConvLSTM": (lambda x, n: _LSTM(x, lengths=n)[0], lambda k: (randn(k + 2, k + 3, 3, k + 5, k + 7), torch.randint(1, k + 2, (k + 3,)))),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_sizes_that_change(name):
    function, make = CASES[name]
    torch.compiler.reset()
    counters.clear()
    compiled = torch.compile(function, fullgraph=True, backend="eager")
    for k in (0, 3, 4, 6):
        first, *others = make(k)
        first.requires_grad_()
        results = []
        for f in (compiled, function):
            y = f(first, *others)
            results.append((y, *torch.autograd.grad(y.square().sum(), first)))
        assert_close(*results, rtol=1e-4, atol=1e-5)
    assert counters["stats"]["unique_graphs"] <= 2
