"""Parts of a graph, and what the operators that sample it draw."""

import itertools
import math

import numpy as np
import pytest
import torch

import amstel
from amstel import _library
from amstel.data import NeighborLoader

OPS = _library.operators


def make(nodes=60, edges=400, weighted=False, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(0, nodes, (2, edges), generator=generator)
    index[1, : edges // 8] = 3  # a hub
    index[1][index[1] == 7] = 8  # a node without edges
    weight = torch.rand(edges, generator=generator, dtype=dtype) + 0.1 if weighted else None
    return amstel.Graph.from_edge_index(index, nodes, weight)


# ---- Parts of a graph ----


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", [0, 1, 17, 60])
def test_subgraph_is_that_of_pyg(size, weighted):
    pyg = pytest.importorskip("torch_geometric.utils")
    graph = make(weighted=weighted)
    index, weight = graph.to_edge_index()
    nodes = torch.randperm(60, generator=torch.Generator().manual_seed(size))[:size]
    found, own = graph.subgraph(nodes).to_edge_index()
    number = torch.full((60,), -1)
    number[nodes] = torch.arange(size)
    inside = (number[index] >= 0).all(0)
    assert torch.equal(found, number[index][:, inside])  # in the order in which they were given
    assert own is None if weight is None else torch.equal(own, weight[inside])
    expected = pyg.subgraph(nodes.sort().values, index, relabel_nodes=True, num_nodes=60)[0]
    assert torch.equal(graph.subgraph(nodes.sort().values).to_edge_index()[0], expected)
    mask = number >= 0
    assert torch.equal(graph.subgraph(mask).to_edge_index()[0], expected)
    assert torch.equal(graph.subgraph(mask.numpy()).to_edge_index()[0], expected)


@pytest.mark.parametrize("k", [0, 1, 2, 9])
def test_k_hop_is_that_of_pyg(k):
    pyg = pytest.importorskip("torch_geometric.utils")
    graph = make(edges=90)
    index = graph.to_edge_index()[0]
    part, nodes = graph.k_hop([5, 3], k)
    subset, expected, _, _ = pyg.k_hop_subgraph([5, 3], k, index, relabel_nodes=True, num_nodes=60)
    assert nodes[:2].tolist() == [5, 3] and nodes.sort().values.tolist() == subset.tolist()
    named = nodes[part.to_edge_index()[0]]
    assert sorted(named.T.tolist()) == sorted(subset[expected].T.tolist())


def test_subgraph_of_a_batch_of_many_threads_is_the_same():
    index = torch.randint(0, 4000, (2, 60000), generator=torch.Generator().manual_seed(0))
    graph = amstel.Graph.from_edge_index(index, 4000)
    nodes = torch.randperm(4000, generator=torch.Generator().manual_seed(1))[:3000]
    one = OPS.induced_subgraph(graph._crow, graph._col, nodes, False)
    before = torch.get_num_threads()
    torch.set_num_threads(5)
    many = OPS.induced_subgraph(graph._crow, graph._col, nodes, True)
    torch.set_num_threads(before)
    assert all(map(torch.equal, one, many))


BAD_NODES = [
    ([0, 0], ValueError, "more than once"),
    ([60], ValueError, "got 60 at position 0"),
    ([3, -1], ValueError, "got -1 at position 1"),
    ([0.5], ValueError, "numbers of nodes"),
    (torch.zeros(59, dtype=torch.bool), ValueError, r"a mask \[60\]"),
    ([[1]], ValueError, "numbers of nodes"),
    ("3", TypeError, "numbers of nodes"),
    (3, TypeError, "numbers of nodes"),
    (None, TypeError, "numbers of nodes"),
]


@pytest.mark.parametrize("nodes, kind, text", BAD_NODES)
def test_bad_nodes_are_named(nodes, kind, text):
    graph = make()
    calls = [lambda: graph.subgraph(nodes), lambda: graph.k_hop(nodes, 1)]
    if nodes is not None:
        calls.append(lambda: NeighborLoader(graph, seeds=nodes))
    for call in calls:
        with pytest.raises(kind, match=text):
            call()


# ---- What the operator draws ----


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("fanout", [-1, 1, 3, 10, 100, 1000])
def test_a_sample_is_of_the_neighbors(fanout, replace):
    graph = make()
    targets = torch.tensor([3, 7, 8, 0, 59])
    crow, col, slot, scale, nodes = OPS.sample_neighbors(
        graph._crow, graph._col, None, targets, fanout, replace, 11, True
    )
    degree = graph._crow.diff()[targets]
    expected = degree if fanout < 0 else (degree > 0) * fanout if replace else degree.clamp(max=fanout)
    assert crow.diff().tolist() == expected.tolist()
    assert nodes[:5].tolist() == targets.tolist() and len(nodes.unique()) == len(nodes)
    row = torch.repeat_interleave(torch.arange(5), crow.diff().long())
    own = slot.long()
    assert torch.equal(nodes[col.long()], graph._col[own].long())
    assert ((own >= graph._crow[targets[row]]) & (own < graph._crow[targets[row] + 1])).all()
    if not replace or fanout < 0:
        assert len(own.unique()) == len(own)
    factor = torch.ones(len(own), dtype=torch.float64) if not len(scale) else scale
    full = torch.zeros(5, dtype=torch.float64).index_add_(0, row, factor)
    assert torch.allclose(full, degree.double())


@pytest.mark.parametrize("count, degree", [(1, 2), (2, 5), (4, 6), (70, 75)])
def test_sets_are_drawn_alike(count, degree):
    """Each slot as often as any other, and for small sets each set."""
    graph = amstel.Graph.from_csr(torch.tensor([0, degree] + [degree] * degree), torch.arange(1, degree + 1))
    draws = 3000
    seen, slots = {}, np.zeros(degree)
    for key in range(draws):
        slot = OPS.sample_neighbors(
            graph._crow, graph._col, None, torch.tensor([0]), count, False, key, False
        )[2]
        slots[slot.numpy()] += 1
        chosen = tuple(sorted(slot.tolist()))
        seen[chosen] = seen.get(chosen, 0) + 1
    share = count / degree
    assert np.abs(slots / draws - share).max() < 5 * np.sqrt(share * (1 - share) / draws)
    if degree < 10:
        sets = math.comb(degree, count)
        assert len(seen) == sets
        chi2 = sum((n - draws / sets) ** 2 / (draws / sets) for n in seen.values())
        assert chi2 < sets + 5 * math.sqrt(2 * sets)


def test_weighted_sets_are_those_of_multinomial():
    """The first draw in proportion to the chances, the next to those that are left."""
    chance = torch.tensor([0.0, 1.0, 2.0, 4.0, 0.5])
    graph = amstel.Graph.from_csr(torch.tensor([0, 5, 5, 5, 5, 5, 5]), torch.arange(1, 6))
    draws, seen = 4000, {}
    for key in range(draws):
        slot = OPS.sample_neighbors(graph._crow, graph._col, chance, torch.tensor([0]), 2, False, key, False)[
            2
        ]
        seen[tuple(slot.tolist())] = seen.get(tuple(slot.tolist()), 0) + 1
    p = (chance / chance.sum()).tolist()
    for a in range(5):
        for b in range(a + 1, 5):
            expected = p[a] * p[b] / (1 - p[a]) + p[b] * p[a] / (1 - p[b])
            error = 5 * np.sqrt(max(expected * (1 - expected), 1e-9) / draws)
            assert abs(seen.get((a, b), 0) / draws - expected) <= error


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_one_draw_for_any_number_of_threads_and_index_type(dtype):
    index = torch.randint(0, 3000, (2, 90000), generator=torch.Generator().manual_seed(0))
    graph = amstel.Graph.from_edge_index(index, 3000)
    targets = torch.randperm(3000, generator=torch.Generator().manual_seed(1))[:2000]
    chance = torch.rand(90000, generator=torch.Generator().manual_seed(2))
    before = torch.get_num_threads()
    for how in ((None, 7, False), (None, 7, True), (chance, 7, False), (chance, 7, True), (None, 80, False)):
        found = []
        for threads, parallel in ((1, False), (1, True), (2, True), (7, True)):
            torch.set_num_threads(threads)
            crow, col = graph._crow.to(dtype), graph._col.to(dtype)
            found.append(OPS.sample_neighbors(crow, col, how[0], targets, *how[1:], 5, parallel))
        torch.set_num_threads(before)
        first = OPS.sample_neighbors(graph._crow, graph._col, how[0], targets, *how[1:], 5, False)
        for other in found:
            assert all(torch.equal(a.long(), b.long()) for a, b in zip(first[:3], other[:3], strict=True))
            assert torch.equal(first[3], other[3]) and torch.equal(first[4], other[4])
    # Of a node alone the same is drawn as among others.
    alone = OPS.sample_neighbors(graph._crow, graph._col, None, targets[9:10], 7, False, 5, False)
    among = OPS.sample_neighbors(graph._crow, graph._col, None, targets, 7, False, 5, False)
    begin, end = among[0][9:11].tolist()
    assert torch.equal(alone[2], among[2][begin:end])


def test_bad_arguments_of_the_operators():
    g = make()
    good = (g._crow, g._col, None, torch.tensor([1, 2]), 3, False, 0, True)
    for place, value, text in [
        (0, g._crow[:0], "crow"),
        (1, g._col[1:], "number of edges"),
        (2, torch.ones(3), "chance"),
        (2, torch.ones(400, dtype=torch.float64), "chance"),
        (3, torch.tensor([60]), "targets"),
        (3, torch.tensor([-1]), "targets"),
        (3, torch.tensor([4, 4]), "once"),
        (3, torch.tensor([1], dtype=torch.int32), "targets"),
        (4, -2, "fanout"),
        (4, 2**40, "fanout"),
    ]:
        with pytest.raises(RuntimeError, match=text):
            OPS.sample_neighbors(*good[:place], value, *good[place + 1 :])
    for nodes in ([60], [1, 1]):
        with pytest.raises(RuntimeError, match="nodes"):
            OPS.induced_subgraph(g._crow, g._col, torch.tensor(nodes), False)
    with pytest.raises(RuntimeError, match="length"):
        OPS.random_walk(g._crow, g._col, torch.tensor([0]), -1, 0)


@pytest.mark.parametrize("name", ["sample_neighbors", "induced_subgraph", "random_walk", "gather_rows"])
def test_fake_kernels(name):
    g, nodes = make(), torch.tensor([3, 5, 7])
    arguments = {
        "sample_neighbors": (g._crow, g._col, None, nodes, 4, False, 1, False),
        "induced_subgraph": (g._crow, g._col, nodes, False),
        "random_walk": (g._crow, g._col, nodes, 5, 1),
        "gather_rows": (torch.zeros(9, 4, dtype=torch.uint8), nodes, False),
    }[name]
    op = getattr(torch.ops.amstel, name).default
    torch.library.opcheck(op, arguments, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int8, torch.bool, torch.complex64])
@pytest.mark.parametrize("width", [1, 3, 100])
def test_rows_are_those_of_index_select(dtype, width):
    from amstel.data._loader import rows_of

    x = (torch.randn(500, width) * 3).to(dtype)
    for count in (0, 1, 7, 3000):
        nodes = torch.randint(0, 500, (count,))
        before = torch.get_num_threads()
        torch.set_num_threads(3)
        found = [rows_of("x", x, nodes, parallel) for parallel in (False, True)]
        torch.set_num_threads(before)
        for rows in found:
            assert rows.dtype == dtype and torch.equal(rows, x[nodes])
        assert torch.equal(rows_of("x", x.T.contiguous().T, nodes), x[nodes])
    for wrong in (500, -1):
        with pytest.raises(RuntimeError, match="index"):
            OPS.gather_rows(x.view(torch.uint8), torch.tensor([0, wrong]), False)


def test_walks_go_along_edges():
    graph = make()
    starts = torch.tensor([3, 7, 12, 3])
    walks = OPS.random_walk(graph._crow, graph._col, starts, 20, 3)
    index = {tuple(e) for e in graph.to_edge_index()[0].T.tolist()}
    assert walks[:, 0].tolist() == starts.tolist()
    for walk in walks.tolist():
        for target, source in itertools.pairwise(walk):
            assert (source, target) in index or (source == target and graph._crow.diff()[target] == 0)
    assert walks[1].tolist() == [7] * 21 and walks[0].tolist() != walks[3].tolist()
