"""Graph: construction, validation, conversions, derived data."""

import networkx
import numpy as np
import pytest
import scipy.sparse
import torch

import amstel
from tests.test_spmm import random_edges


def dense(graph):
    return torch.from_numpy(graph.to_scipy().toarray())


def dense_from(index, weight, nodes):
    A = torch.zeros(nodes, nodes, dtype=weight.dtype)
    return A.index_put((index[1], index[0]), weight, accumulate=True)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_from_edge_index(dtype):
    index, weight = random_edges()
    graph = amstel.Graph.from_edge_index(index.to(dtype), 37, weight)
    assert torch.allclose(dense(graph), dense_from(index, weight, 37))
    assert (graph.num_nodes, graph.num_edges, graph.crow.dtype) == (37, 200, torch.int32)
    back, back_weight = graph.to_edge_index()
    assert torch.equal(back, index) and torch.equal(back_weight, weight)
    assert repr(graph) == "Graph(num_nodes=37, num_edges=200, weighted)"
    # Slots of a row keep the order of the list.
    order = torch.sort(index[1], stable=True).indices
    assert torch.equal(graph.edge.long(), order)
    assert amstel.Graph.from_edge_index(index).num_nodes == int(index.max()) + 1


def test_parallel_construction_equals_serial():
    index = torch.randint(0, 5000, (2, 400_000))
    threads = torch.get_num_threads()
    try:
        graphs = []
        for n in (1, 2, 5):
            torch.set_num_threads(n)
            graph = amstel.Graph.from_edge_index(index, 5000)
            graphs.append((graph.crow, graph.col, graph.edge, *graph.transposed()))
    finally:
        torch.set_num_threads(threads)
    for other in graphs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(graphs[0], other, strict=True))
    order = torch.sort(index[1], stable=True).indices
    assert torch.equal(graphs[0][2].long(), order) and torch.equal(graphs[0][1].long(), index[0][order])


def test_from_csr_copies_and_keeps_order():
    A = scipy.sparse.random(20, 30, density=0.2, random_state=1, format="csr")
    graph = amstel.Graph.from_csr(A.indptr, A.indices, A.data, num_cols=30)
    assert np.allclose(graph.to_scipy().toarray(), A.toarray())
    assert graph.edge is None
    kept = graph.col.clone()
    A.indices[:] = 10**6
    assert torch.equal(graph.col, kept)
    mixed = amstel.Graph.from_csr(torch.tensor([0, 1]), torch.tensor([0], dtype=torch.int32))
    assert mixed.crow.dtype == mixed.col.dtype == torch.int32


def test_scipy_and_networkx():
    A = scipy.sparse.random(20, 20, density=0.2, random_state=1, format="coo")
    assert np.allclose(amstel.Graph.from_scipy(A).to_scipy().toarray(), A.toarray())
    G = networkx.DiGraph()
    G.add_nodes_from("abc")
    G.add_edge("a", "b", weight=2.0)
    G.add_edge("b", "c")
    expected = torch.zeros(3, 3)
    expected[1, 0], expected[2, 1] = 2, 1
    assert torch.equal(dense(amstel.Graph.from_networkx(G)), expected)
    karate = networkx.karate_club_graph()
    graph = amstel.Graph.from_networkx(karate)
    assert np.allclose(graph.to_scipy().toarray(), networkx.to_numpy_array(karate))
    loops = networkx.Graph([(0, 0), (0, 1)])
    assert np.allclose(amstel.Graph.from_networkx(loops).to_scipy().toarray(), networkx.to_numpy_array(loops))
    assert amstel.Graph.from_networkx(networkx.empty_graph(4)).num_edges == 0
    for number in (np.array(2.0), np.array(2), np.float32(2), torch.tensor([2.0])):
        given = networkx.Graph([(0, 1, {"weight": number})])
        assert amstel.Graph.from_networkx(given).to_edge_index()[1].tolist() == [2, 2]


def test_transposed_is_shared_where_symmetric():
    index, weight = random_edges()
    graph = amstel.Graph.from_edge_index(index, 37, weight)
    crow, col, edge = graph.transposed()
    assert graph._transpose()[0] is graph._transpose()[0]
    values = weight[edge.long()].numpy()
    At = scipy.sparse.csr_array((values, col.numpy(), crow.numpy()), shape=(37, 37))
    assert np.allclose(At.toarray(), dense(graph).T)
    both = torch.cat([index, index.flip(0)], 1)
    both = both[:, np.lexsort((both[0], both[1]))]
    symmetric = amstel.Graph.from_edge_index(both, 37)
    assert symmetric._transpose()[0] is symmetric._crow and symmetric._transpose()[1] is symmetric._col
    assert torch.equal(symmetric.transposed()[0], symmetric.crow)


def test_degrees():
    index, weight = random_edges()
    for own in (None, weight):
        graph = amstel.Graph.from_edge_index(index, 37, own)
        w = torch.ones_like(weight) if own is None else own
        assert torch.allclose(graph.degree(torch.float64), torch.zeros(37).double().index_add(0, index[1], w))
        assert torch.allclose(
            graph.degree(torch.float64, out=True), torch.zeros(37).double().index_add(0, index[0], w)
        )
    for name, look in (("out", graph.degree), ("transposed", graph.values)):
        with pytest.raises(TypeError, match=f"`{name}` must be True or False, got 'no'"):
            look(torch.float64, "no")


@pytest.mark.parametrize("method", ["rcm", "degree"])
def test_reorder_is_the_same_graph_renumbered(method):
    index, weight = random_edges()
    graph = amstel.Graph.from_edge_index(index, 37, weight)
    other, order = graph.reorder(method)
    if method == "degree":
        assert bool((other.col.bincount(minlength=37).diff() <= 0).all())
    assert torch.equal(order.sort().values, torch.arange(37))
    assert torch.allclose(dense(other), dense(graph)[order][:, order])
    assert torch.equal(other.to_edge_index()[1], weight)
    x = torch.randn(37, 4, dtype=torch.float64)
    y = amstel.ops.spmm(graph, x)
    assert torch.allclose(amstel.ops.spmm(other, x[order]), y[order])
    assert torch.allclose(amstel.ops.spmm(other, x[order])[order.argsort()], y)
    with pytest.raises(ValueError, match="`method`"):
        graph.reorder("size")


def test_reorder_brings_neighbors_together():
    # A path whose numbering was shuffled: its bandwidth goes back to 1.
    order = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    index = torch.stack([order[:-1], order[1:]])
    graph = amstel.Graph.from_edge_index(torch.cat([index, index.flip(0)], 1), 500)
    renumbered = graph.reorder()[0].to_edge_index()[0]
    assert int((renumbered[0] - renumbered[1]).abs().max()) == 1


def test_to_same_device_is_the_graph_itself():
    graph = amstel.Graph.from_edge_index(random_edges()[0])
    assert graph.to("cpu") is graph
    meta = graph.to("meta")
    assert meta.device.type == "meta" and meta.num_edges == 200


INDEX = torch.tensor([[0, 1, 2], [1, 2, 0]])
NAN = float("nan")


@pytest.mark.parametrize(
    "message, arguments",
    [
        (r"target index must be in \[0, 2\), got 2 at edge 1", (INDEX[:, :2], 2)),
        (r"source index must be in \[0, 2\), got 5 at edge 1", (torch.tensor([[1, 5], [0, 1]]), 2)),
        (r"target index must be in \[0, 3\), got -1 at edge 0", (torch.tensor([[0], [-1]]), 3)),
        (r"source index must be in \[0, 1\), got -7 at edge 0", (torch.tensor([[-7], [0]]), None)),
        (r"`edge_index` must be an int32 or int64 tensor \[2, E\], got int64 \[3, 2\]", (INDEX.T, None)),
        (
            r"`edge_index` must be an int32 or int64 tensor \[2, E\], got float32 \[2, 3\]",
            (INDEX.float(), None),
        ),
        (r"`num_nodes` must be an integer >= 0, got -1", (INDEX, -1)),
        (r"`num_nodes` must be an integer >= 0, got 2.5", (INDEX, 2.5)),
        (
            r"`edge_weight` must be a floating-point tensor \[3\] on cpu, got float32 \[2\]",
            (INDEX, 3, torch.ones(2)),
        ),
        (
            r"`edge_weight` must be a floating-point tensor \[3\] on cpu, got int64",
            (INDEX, 3, torch.ones(3).long()),
        ),
        (r"`weight` must not be NaN, got NaN at position 1", (INDEX, 3, torch.tensor([1.0, NAN, NAN]))),
    ],
)
def test_bad_edge_index(message, arguments):
    with pytest.raises(ValueError, match=message):
        amstel.Graph.from_edge_index(*arguments)


def test_edge_index_of_another_type():
    with pytest.raises(
        TypeError, match=r"`edge_index` must be an int32 or int64 tensor \[2, E\], got \[\[0\], \[1\]\]"
    ):
        amstel.Graph.from_edge_index([[0], [1]])


def test_first_bad_position_is_found_among_many():
    index = torch.randint(0, 100, (2, 500_000))
    index[0, 300_000:] = 100
    with pytest.raises(ValueError, match=r"source index must be in \[0, 100\), got 100 at edge 300000"):
        amstel.Graph.from_edge_index(index, 100)


@pytest.mark.parametrize(
    "message, arguments",
    [
        ("indptr must start at 0, got 1", ([1, 2], [0])),
        ("indptr must not decrease, got 2 and 1 at row 1", ([0, 2, 1, 3], [0, 0, 0])),
        ("indptr must end at the number of edges, 2, got 1", ([0, 1], [0, 0])),
        (r"source index must be in \[0, 1\), got 1 at edge 1", ([0, 2], [0, 1])),
        (r"`indptr` must be \[rows \+ 1\], at least \[0\]", (np.zeros(0, np.int64), [0])),
        (r"`indptr` must be a vector of int32 or int64, got float32", ([0.0, 1.0], [0])),
        (r"`indices` must be a vector of int32 or int64, got int64 \[1, 1\]", ([0, 1], [[0]])),
        ("`num_cols` must be an integer >= 0, got -1", ([0, 1], [0], None, -1)),
    ],
)
def test_bad_csr(message, arguments):
    with pytest.raises(ValueError, match=message):
        amstel.Graph.from_csr(*arguments)


def test_to_networkx_and_to_pyg():
    networkx, pyg = pytest.importorskip("networkx"), pytest.importorskip("torch_geometric.data")
    index = torch.tensor([[3, 0, 1, 1], [0, 1, 0, 1]])
    for edges, weight in (
        (index, None),
        (index, torch.tensor([0.1, 2, 3, 4], dtype=torch.float64)),
        (index[:, [0, 1, 0, 2]], torch.tensor([0.5, 2, 3, 4])),
    ):
        graph = amstel.Graph.from_edge_index(edges, 5, weight)
        G = graph.to_networkx()
        assert G.is_directed() and list(G) == [0, 1, 2, 3, 4] and G.number_of_edges() == 4
        assert (networkx.to_numpy_array(G).T == graph.to_scipy().toarray()).all()
        assert (amstel.Graph.from_networkx(G).to_scipy().toarray() == graph.to_scipy().toarray()).all()
        data = graph.to_pyg()
        assert isinstance(data, pyg.Data) and data.num_nodes == 5 and torch.equal(data.edge_index, edges)
        assert "edge_weight" not in data if weight is None else torch.equal(data.edge_weight, weight)
    parts = [
        graph,
        amstel.Graph.from_edge_index(index[:, :0], 2),
    ]  # PyG's pooling asks a Batch whose a node is
    batch, joined = amstel.Graph.batch(parts).to_pyg(), amstel.Graph.batch(parts)
    assert isinstance(batch, pyg.Batch) and torch.equal(batch.batch, joined.batch_index)
    assert torch.equal(batch.ptr, joined.ptr) and torch.equal(batch.edge_index, joined.to_edge_index()[0])
    rectangle = amstel.Graph.from_csr(torch.tensor([0, 1]), torch.tensor([2]), num_cols=3)
    for call in (rectangle.to_networkx, rectangle.to_pyg):
        with pytest.raises(ValueError, match="as many sources as targets"):
            call()


def test_an_empty_graph_has_an_empty_order():
    graph = amstel.Graph.from_edge_index(torch.zeros(2, 0, dtype=torch.int64), 0)
    reordered, order = graph.reorder("rcm")
    assert reordered.num_nodes == 0 and order.tolist() == []
