"""The graph operator against torch.sparse: forward, forward and backward, bfloat16, construction.

The peers get the normalised matrix, loops included, ready made, as their users cache it. Their ways: `A @ x` with int32 CSR
(MKL) and `torch.sparse.mm(A, x, "sum")` with int64. For gradients to the weights only the latter is a peer: the
former makes a dense N x N matrix.
"""

import warnings

import pytest
import torch

import amstel
from amstel.testing import assert_close
from benchmarks.workloads import FEATURES, csr, graphs

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")


def matrix(indptr, indices, values, dtype):
    n = indptr.numel() - 1
    return torch.sparse_csr_tensor(
        indptr.to(dtype), indices.to(dtype), values, (n, n), check_invariants=False
    )


def normalised(indptr, indices):
    """indptr, indices and values of D^-1/2 (A + I) D^-1/2: what users of the peers make once and keep."""
    nodes = indptr.numel() - 1
    everyone = torch.arange(nodes)
    target = torch.cat([torch.repeat_interleave(everyone, indptr.diff()), everyone])
    order = torch.argsort(target * nodes + torch.cat([indices, everyone]))
    target, source = target[order], torch.cat([indices, everyone])[order]
    degree = torch.bincount(target, minlength=nodes)
    values = degree.float().rsqrt()[target] * degree.float().rsqrt()[source]
    return torch.cat([degree.new_zeros(1), degree.cumsum(0)]), source, values


def work(indptr, indices, features, size=4):
    """Bytes that must be gathered, read and written, and operations, of one product."""
    nodes = indptr.numel() - 1
    edges = indices.numel() + nodes  # with the loops
    return {
        "bytes": edges * (features * size + 4) + nodes * (features * size + 4),
        "flops": 2 * edges * features,
    }


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("name", graphs())
def test_forward(compare, name, features):
    indptr, indices = csr(name)
    graph = amstel.Graph.from_csr(indptr, indices)
    x = torch.randn(graph.num_nodes, features)
    A32, A64 = (matrix(*normalised(indptr, indices), dtype) for dtype in (torch.int32, torch.int64))
    assert_close(amstel.ops.spmm(graph, x), torch.sparse.mm(A64, x, "sum").double())
    short = x.bfloat16()
    compare(
        f"spmm-forward-{name}-F{features}",
        {
            "amstel": lambda: amstel.ops.spmm(graph, x),
            "torch CSR int32 (MKL)": lambda: A32 @ x,
            "torch.sparse.mm sum": lambda: torch.sparse.mm(A64, x, "sum"),
            "amstel bfloat16": lambda: amstel.ops.spmm(graph, short),
        },
        nodes=graph.num_nodes,
        edges=graph.num_edges,
        **work(indptr, indices, features),
    )


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("name", graphs())
def test_forward_backward(compare, name, features):
    indptr, indices = csr(name)
    graph = amstel.Graph.from_csr(indptr, indices)
    values = torch.rand(indices.numel(), generator=torch.Generator().manual_seed(1))
    x = torch.randn(graph.num_nodes, features, requires_grad=True)
    w = values.clone().requires_grad_()
    # A leaf: through the constructor of a sparse tensor the peer would make a dense N x N gradient.
    A = matrix(indptr, indices, values, torch.int64).requires_grad_()
    grad = torch.randn(graph.num_nodes, features)

    def ours():
        return torch.autograd.grad(amstel.ops.spmm(graph, x, w, norm="none", self_loops=0), (x, w), grad)

    def peer():
        return torch.autograd.grad(torch.sparse.mm(A, x, "sum"), (x, A), grad)

    (a, b), (c, d) = ours(), peer()
    assert_close(a, c.double())
    assert_close(b, d.values().double())
    compare(
        f"spmm-backward-{name}-F{features}",
        {"amstel": ours, "torch.sparse.mm sum": peer},
        nodes=graph.num_nodes,
        edges=graph.num_edges,
    )


@pytest.mark.parametrize("order", ["random", "sorted"])
@pytest.mark.parametrize("nodes", [1000, 50_000, 1_000_000])
def test_construction(compare, nodes, order):
    index = torch.randint(0, nodes, (2, 1_000_000), generator=torch.Generator().manual_seed(0))
    if order == "sorted":
        key = torch.sort(index[0] * nodes + index[1]).values
        index = torch.stack([key // nodes, key % nodes])
    ones = torch.ones(index.shape[1])
    compare(
        f"graph-construction-{nodes}-{order}",
        {
            "amstel": lambda: amstel.Graph.from_edge_index(index, nodes),
            "torch coo -> csr": lambda: torch.sparse_coo_tensor(
                index.flip(0), ones, (nodes, nodes)
            ).to_sparse_csr(),
        },
    )
