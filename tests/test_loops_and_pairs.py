"""Loops whose weight learns, and sources and targets with features of their own, against dense algebra."""

import pytest
import torch

import amstel
from amstel import ops

NORMS = ("sym", "row", "sym_inout", "none")
ROWS, COLS, EDGES = 6, 8, 20


def edges(rows, cols):
    generator = torch.Generator().manual_seed(0)
    target, source = (torch.randint(0, n, (EDGES,), generator=generator) for n in (rows, cols))
    weight = torch.rand(EDGES, generator=generator, dtype=torch.float64) + 0.1
    order = target.sort(stable=True).indices
    indptr = torch.zeros(rows + 1, dtype=torch.int64)
    indptr[1:] = torch.bincount(target, minlength=rows).cumsum(0)
    target, source = target[order], source[order]
    return amstel.Graph.from_csr(indptr, source, num_cols=cols), target, source, weight


def dense(target, source, weight, rows, cols):
    return weight.new_zeros(rows, cols).index_put((target, source), weight, accumulate=True)


def power(d, p):
    return torch.where(d > 0, d.clamp(min=1e-30) ** p, 0)


def bipartite(A, x, own, norm, loops, bias):
    d_in, d_out = A.sum(1) + loops, A.sum(0)
    R = {"row": power(d_in, -1), "none": torch.ones_like(d_in)}.get(norm, power(d_in, -0.5))
    C = power(d_out, -0.5) if norm.startswith("sym") else torch.ones_like(d_out)
    S = R if norm.startswith("sym") else torch.ones_like(R)
    return (R[:, None] * (A @ (C[:, None] * x) + loops * S[:, None] * own) + bias).relu()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("rows", [ROWS, COLS])
@pytest.mark.parametrize("loops", [0.0, 0.7])
def test_a_pair_is_its_formula(norm, rows, loops):
    graph, target, source, weight = edges(rows, COLS)
    x, own = torch.randn(COLS, 3, dtype=torch.float64), torch.randn(rows, 3, dtype=torch.float64)
    bias = torch.randn(3, dtype=torch.float64)
    A = dense(target, source, weight, rows, COLS)
    how = {"norm": norm, "self_loops": loops, "bias": bias, "activation": "relu"}
    expected = bipartite(A, x, own, norm, loops, bias)
    torch.testing.assert_close(ops.spmm(graph, (x, own), weight, **how), expected)
    weighted = amstel.Graph.from_csr(graph.crow, graph.col, weight, COLS)
    torch.testing.assert_close(ops.spmm(weighted, (x, own), **how), expected)
    stacked = ops.spmm(graph, (torch.stack([x, -x]), torch.stack([own, -own])), weight, **how)
    torch.testing.assert_close(stacked[0], expected)
    if loops == 0:
        torch.testing.assert_close(ops.spmm(graph, (x, None), weight, **how), expected)
        if rows != COLS:
            torch.testing.assert_close(ops.spmm(graph, x, weight, **how), expected)
    short = ops.spmm(graph, (x.bfloat16(), own.bfloat16()), weight.bfloat16(), norm=norm, self_loops=loops)
    assert short.dtype == torch.bfloat16
    wide = bipartite(A, x, own, norm, loops, 0).float()
    assert float((short.float().relu() - wide).abs().max()) < 0.1


@pytest.mark.parametrize("norm", NORMS)
def test_every_gradient_of_a_pair(norm):
    graph, _, _, weight = edges(ROWS, COLS)
    leaves = [torch.randn(n, 2, dtype=torch.float64, requires_grad=True) for n in (COLS, ROWS)]
    weight.requires_grad_()
    loops = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def call(x, own, w, l):
        return ops.spmm(graph, (x, own), w, norm=norm, self_loops=l)

    assert torch.autograd.gradcheck(call, (*leaves, weight, loops))
    assert torch.autograd.gradgradcheck(call, (*leaves, weight, loops), atol=1e-4)
    one = lambda x, w: ops.spmm(graph, x, w, norm=norm, self_loops=0.0)  # noqa: E731
    assert torch.autograd.gradcheck(one, (leaves[0], weight))
    assert torch.autograd.gradgradcheck(one, (leaves[0], weight), atol=1e-4)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("weighted", [False, True])
def test_loops_that_learn(norm, weighted):
    graph, _, _, weight = edges(COLS, COLS)
    x = torch.randn(COLS, 2, dtype=torch.float64, requires_grad=True)
    w = weight.requires_grad_() if weighted else None
    loops = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    y = ops.spmm(graph, x, w, norm=norm, self_loops=loops)
    torch.testing.assert_close(y, ops.spmm(graph, x, w, norm=norm, self_loops=0.7))
    kept = graph._looped()
    assert graph._looped() is kept  # one for all layers and epochs
    leaves = (x, loops, w) if weighted else (x, loops)

    def call(x, l, w=None):
        return ops.spmm(graph, x, w, norm=norm, self_loops=l)

    assert torch.autograd.gradcheck(call, leaves)
    assert torch.autograd.gradgradcheck(call, leaves, atol=1e-4)
    short = ops.spmm(graph, x.half(), None if w is None else w.half(), norm=norm, self_loops=loops)
    assert short.dtype == torch.float16
    assert float((short - y).abs().max()) < 0.03 * float(y.abs().max())
    with torch.autocast("cpu", torch.bfloat16):
        assert ops.spmm(graph, x.float(), norm=norm, self_loops=loops).dtype == torch.bfloat16


def test_loops_that_learn_compile():
    torch._dynamo.reset()
    graph, *_ = edges(COLS, COLS)
    x, loops = torch.randn(COLS, 2), torch.tensor(0.7, requires_grad=True)
    call = lambda l: ops.spmm(graph, x, self_loops=l).square().sum()  # noqa: E731
    found = torch.compile(call, backend="aot_eager", fullgraph=True)(loops)
    torch.testing.assert_close(found, call(loops))
    torch.testing.assert_close(
        torch.autograd.grad(found, loops)[0], torch.autograd.grad(call(loops), loops)[0]
    )


def test_bad_pairs_and_loops_are_explained():
    graph, *_ = edges(ROWS, COLS)
    x, own = torch.randn(COLS, 3), torch.randn(ROWS, 3)
    for bad, error, message in (
        ((x, None), ValueError, "pair .* where `self_loops` is 1.0"),
        ((x, own[:-1]), ValueError, "`x` must be a pair"),
        ((x, own.double()), ValueError, "`x` must be a pair"),
        ((x,), ValueError, "`x` must be a tensor or a pair"),
        ((None, own), TypeError, "`x` must be"),
        ((own, x), ValueError, "`x` must be"),
    ):
        with pytest.raises(error, match=message):
            ops.spmm(graph, bad)
    for loops in (torch.ones(2), torch.ones((), dtype=torch.int64)):
        with pytest.raises(ValueError, match="`self_loops` must be"):
            ops.spmm(graph, (x, own), self_loops=loops)
