"""Sampling of graphs: the operators, the loaders, and that what is sampled estimates what is whole without bias."""

import copy
import io
import itertools
import json
import math
import pickle
import threading
import time

import numpy as np
import pytest
import torch

import amstel
from amstel import _library
from amstel.data import NeighborLoader
from tests.command import run

OPS = _library.operators


def make(nodes=60, edges=400, weighted=False, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(0, nodes, (2, edges), generator=generator)
    index[1, : edges // 8] = 3  # a hub
    index[1][index[1] == 7] = 8  # a node without edges
    weight = torch.rand(edges, generator=generator, dtype=dtype) + 0.1 if weighted else None
    return amstel.Graph.from_edge_index(index, nodes, weight)


def flat(batch):
    """All numbers of a batch, to compare two."""
    parts = [batch.nodes, batch.seeds]
    for layer in batch.layers:
        parts += [layer.crow, layer.col, layer.edge_ids, layer.nodes]
        parts += [] if layer.weight is None else [layer.weight]
    return [p.tolist() for p in parts]


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


# ---- Batches ----


@pytest.mark.parametrize("norm", ["sym", "row", "sym_inout", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_all_neighbors_are_the_whole(norm, weighted):
    """With fanouts of -1 a model computes on every batch what it computes on the whole graph."""
    graph = make(weighted=weighted)
    x = torch.randn(60, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    one = amstel.nn.GCNConv(5, 7, norm=norm, activation="relu", dtype=torch.float64)
    two = amstel.nn.GCNConv(7, 3, norm=norm, self_loops=0.5, self_weight=True, dtype=torch.float64)
    expected = two(one(x, graph), graph)
    found = torch.empty_like(expected)
    for batch in NeighborLoader(graph, x, fanouts=[-1, -1], batch_size=13):
        outer, inner = batch.layers
        assert (outer.num_rows, inner.num_rows) == (inner.num_cols, batch.batch_size)
        found[batch.seeds] = two(one(batch.x, outer), inner)
        h = one(batch.x, outer)
        pair = two((h, h[: inner.num_rows]), inner)
        assert torch.allclose(pair, found[batch.seeds])
    assert torch.allclose(found, expected, atol=1e-12)


def gradient_of(function, *leaves):
    grad = torch.linspace(-1, 1, function.numel(), dtype=function.dtype).view_as(function)
    return torch.autograd.grad(function, leaves, grad)


def test_gradients_and_loops_that_learn():
    graph = make(weighted=True)
    x = torch.randn(60, 4, dtype=torch.float64)
    batch = NeighborLoader(graph, x, fanouts=[-1], batch_size=60, shuffle=False).sample(range(60))
    loops = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    whole = x.clone().requires_grad_()
    own = batch.x.clone().requires_grad_()
    for norm in ("sym", "row", "sym_inout", "none"):
        for value in (0.7, loops):
            leaves = [whole, own]
            y = amstel.ops.spmm(graph, whole, norm=norm, self_loops=value)
            z = amstel.ops.spmm(batch.layers[0], own, norm=norm, self_loops=value)
            assert torch.allclose(y[batch.seeds], z)
            ga = gradient_of(y[batch.seeds], whole, *([loops] if value is loops else []))
            gb = gradient_of(z, own, *([loops] if value is loops else []))
            assert torch.allclose(ga[0][batch.nodes], gb[0]), (norm, leaves)
            assert value is not loops or torch.allclose(ga[1], gb[1])
    sampled = NeighborLoader(graph, fanouts=[2]).sample([3, 5, 9]).layers[0]
    inputs = torch.randn(sampled.num_cols, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: amstel.ops.spmm(sampled, t), inputs)
    assert torch.autograd.gradgradcheck(
        lambda t, s: amstel.ops.spmm(sampled, t, self_loops=s), (inputs, loops)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes_and_autocast(dtype):
    graph = make(weighted=True, dtype=torch.float32)
    layer = NeighborLoader(graph, fanouts=[4]).sample(range(40)).layers[0]
    x = torch.randn(layer.num_cols, 8)
    expected = amstel.ops.spmm(layer, x.double())
    loops = torch.tensor(1.0)
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2 if dtype == torch.bfloat16 else 4e-3
    for value in (1.0, loops):
        y = amstel.ops.spmm(layer, x.to(dtype), self_loops=value)
        assert y.dtype == dtype
        assert (y.double() - expected).abs().max() <= tolerance * expected.abs().max()
        if dtype != torch.float32:
            with torch.autocast("cpu", dtype):
                y = amstel.ops.spmm(layer, x, self_loops=value)
            assert y.dtype == dtype
            assert (y.double() - expected).abs().max() <= tolerance * expected.abs().max()


SAMPLED = [
    {},
    {"replace": True},
    {"probability": True},
    {"probability": True, "replace": True},
]


def draws_of(graph, x, seeds, draws, fanouts, apply, probability=None, **how):
    """[draws, seeds, F]: all drawn at once, from as many copies of the graph."""
    copies = amstel.Graph.batch([graph] * draws)
    if probability is not None:
        how["probability"] = probability.repeat(draws)
    numbers = (torch.tensor(seeds) + graph.num_nodes * torch.arange(draws)[:, None]).flatten()
    batch = NeighborLoader(copies, x.repeat(draws, 1), fanouts=fanouts, **how).sample(numbers)
    with torch.no_grad():
        return apply(batch).view(draws, len(seeds), -1)


@pytest.mark.parametrize("how", SAMPLED, ids=["subset", "replace", "weighted subset", "weighted replace"])
@pytest.mark.parametrize("norm", ["sym", "row"])
def test_samples_are_unbiased(how, norm):
    """The mean over many draws is the layer on the whole graph, within 5 standard errors at every entry."""
    graph, draws = make(weighted=True), 3000
    if "probability" in how:
        chance = torch.rand(400, generator=torch.Generator().manual_seed(5)) + 0.2
        how = how | {"probability": chance}
    x = torch.randn(60, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    conv = amstel.nn.GCNConv(3, 3, norm=norm, bias=False, dtype=torch.float64)
    seeds = [3, 7, 0, 21, 40]
    expected = conv(x, graph)[seeds]
    found = draws_of(graph, x, seeds, draws, [3], lambda b: conv(b.x, b.layers[0]), **how)
    error = found.std(0) / draws**0.5
    assert ((found.mean(0) - expected).abs() <= 5 * error + 1e-9).all()
    assert error.max() > 1e-3  # something was left to chance


def test_two_linear_layers_are_unbiased():
    """Steps are drawn independently, so that products of their estimates are unbiased too."""
    graph, draws = make(), 4000
    x = torch.randn(60, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    seeds = [3, 21]
    expected = amstel.ops.spmm(graph, amstel.ops.spmm(graph, x))[seeds]

    def apply(batch):
        h = batch.x
        for layer in batch.layers:
            h = amstel.ops.spmm(layer, h)
        return h

    found = draws_of(graph, x, seeds, draws, [2, 2], apply)
    error = found.std(0) / draws**0.5
    assert ((found.mean(0) - expected).abs() <= 5 * error).all()


def test_batches_do_not_depend_on_the_workers():
    graph = make(weighted=True)
    x = torch.arange(60.0)[:, None]

    def epochs(**options):
        loader = NeighborLoader(graph, x, torch.arange(60), [3, 2], 7, torch.arange(50), seed=4, **options)
        return [[(flat(b), b.x.tolist(), b.y.tolist(), b.number) for b in loader] for _ in range(2)]

    first = epochs()
    assert first[0] != first[1] and len(first[0]) == 8
    assert sorted(s for b in first[0] for s in b[0][1]) == list(range(50))
    for x_row, batch in ((b[1], b[0]) for b in first[0]):
        assert [v for (v,) in x_row] == batch[0]
    for workers, prefetch in ((1, 1), (2, 1), (3, 4)):
        assert epochs(num_workers=workers, prefetch=prefetch) == first
    loader = NeighborLoader(graph, x, torch.arange(60), [3, 2], 7, torch.arange(50), seed=4)
    loader.epoch = 1
    assert [flat(b) for b in loader] == [b[0] for b in first[1]]
    other = NeighborLoader(graph, x, torch.arange(60), [3, 2], 7, torch.arange(50), seed=5)
    assert [flat(b) for b in other] != [b[0] for b in first[0]]


def test_sizes_and_order():
    graph = make()
    assert [len(NeighborLoader(graph, batch_size=n)) for n in (1, 7, 60, 61)] == [60, 9, 1, 1]
    assert [len(NeighborLoader(graph, batch_size=n, drop_last=True)) for n in (1, 7, 60, 61)] == [60, 8, 1, 0]
    ordered = NeighborLoader(graph, batch_size=7, seeds=[9, 4, 2], shuffle=False)
    assert [b.seeds.tolist() for b in ordered] == [[9, 4, 2]]
    assert list(NeighborLoader(graph, seeds=[])) == []
    empty = amstel.Graph.from_edge_index(torch.zeros(2, 0, dtype=torch.int64), 3)
    (batch,) = NeighborLoader(empty, torch.eye(3), fanouts=[2, 2], shuffle=False)
    assert torch.equal(amstel.nn.GCN(3, 4, 2).eval()(batch.x, batch.layers), torch.zeros(3, 2)) is False
    assert torch.equal(amstel.ops.spmm(batch.layers[0], batch.x), torch.eye(3))


def test_feature_stores(tmp_path):
    graph = make()
    x = torch.randn(60, 4)
    np.save(tmp_path / "x.npy", x.numpy())

    class Store:
        def __getitem__(self, nodes):
            return x[nodes].numpy()

    dense = [b.x for b in NeighborLoader(graph, x, batch_size=9)]
    for store in (x.numpy(), np.load(tmp_path / "x.npy", mmap_mode="r"), Store()):
        found = [b.x for b in NeighborLoader(graph, store, batch_size=9, num_workers=2)]
        assert all(map(torch.equal, dense, found))
    sparse = (x * (x > 0.5)).to_sparse_csr()
    for batch in NeighborLoader(graph, sparse, batch_size=9):
        assert torch.equal(batch.x.to_dense(), sparse.to_dense()[batch.nodes])
        conv = amstel.nn.GCNConv(4, 2, self_weight=True)
        y = conv(batch.x, batch.layers[0])
        assert torch.allclose(y, conv(batch.x.to_dense(), batch.layers[0]), atol=1e-6)


def test_a_store_that_fails_ends_the_epoch_with_its_error():
    class Store:
        def __getitem__(self, nodes):
            raise OSError("the disk is gone")

    class Short:
        def __getitem__(self, nodes):
            return np.zeros((1, 2))

    before = threading.active_count()
    for workers in (0, 2):
        with pytest.raises(OSError, match="the disk is gone"):
            list(NeighborLoader(make(), Store(), batch_size=5, num_workers=workers))
        with pytest.raises(ValueError, match="`x` must give a row for each of"):
            list(NeighborLoader(make(), Short(), batch_size=5, num_workers=workers))
    assert threading.active_count() == before


def test_an_epoch_that_is_left_early_leaves_no_thread():
    before = threading.active_count()
    for _ in NeighborLoader(make(), batch_size=2, num_workers=3):
        break
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_batches_are_made_ahead_and_not_farther():
    asked, ahead = [], threading.Semaphore(0)

    class Store:
        def __getitem__(self, nodes):
            asked.append(len(nodes))
            ahead.release()
            return torch.zeros(len(nodes), 1)

    batches = iter(NeighborLoader(make(), Store(), batch_size=5, num_workers=2, prefetch=2))
    next(batches)
    for _ in range(4):
        assert ahead.acquire(timeout=10)
    time.sleep(0.05)
    assert len(asked) == 4  # that which was given, and three that wait or are made
    batches.close()


BAD = [
    ({"fanouts": []}, ValueError, "`fanouts`"),
    ({"fanouts": [0]}, ValueError, "`fanouts`"),
    ({"fanouts": [-2]}, ValueError, "`fanouts`"),
    ({"fanouts": [2.0]}, ValueError, "`fanouts`"),
    ({"fanouts": [True]}, TypeError, "`fanouts`"),
    ({"fanouts": 3}, TypeError, "`fanouts`"),
    ({"fanouts": [2**40]}, ValueError, "`fanouts`"),
    ({"batch_size": 0}, ValueError, "`batch_size`"),
    ({"num_workers": -1}, ValueError, "`num_workers`"),
    ({"prefetch": 0}, ValueError, "`prefetch`"),
    ({"seed": -1}, ValueError, "`seed`"),
    ({"shuffle": 1}, TypeError, "`shuffle`"),
    ({"replace": "yes"}, TypeError, "`replace`"),
    ({"device": "nowhere"}, ValueError, "`device`"),
    ({"x": torch.zeros(59, 2)}, ValueError, "`x` must have 60 rows"),
    ({"x": [1] * 60}, TypeError, "`x`"),
    ({"y": np.zeros(61)}, ValueError, "`y` must have 60 rows"),
    ({"probability": torch.ones(3)}, ValueError, "`probability`"),
    ({"probability": torch.full((400,), -1.0)}, ValueError, "got -1.0 at position 0"),
    ({"probability": torch.full((400,), float("nan"))}, ValueError, "got nan at position 0"),
    ({"probability": torch.ones(400, dtype=torch.int64)}, ValueError, "`probability`"),
    ({"probability": "w"}, TypeError, "`probability`"),
]


@pytest.mark.parametrize("options, kind, text", BAD)
def test_bad_arguments_are_named(options, kind, text):
    with pytest.raises(kind, match=text):
        NeighborLoader(make(), **options)


def test_graphs_that_cannot_be_sampled():
    rectangular = amstel.Graph.from_csr([0, 1], [2], num_cols=3)
    layer = NeighborLoader(make(), fanouts=[2]).sample([1]).layers[0]
    for graph in (rectangular, layer):
        for call in (NeighborLoader, lambda g: g.subgraph([0]), lambda g: g.k_hop([0], 1)):
            with pytest.raises(ValueError, match="as many sources as targets"):
                call(graph)
    with pytest.raises(TypeError, match="`graph`"):
        NeighborLoader(torch.zeros(2, 3))


def test_a_sampled_graph_is_made_by_loaders():
    graph = make()
    with pytest.raises(TypeError, match="made by a loader"):
        amstel.data.SampledGraph(graph.crow, graph.col, None, None, 60)


def test_what_a_sampled_graph_refuses():
    loader = NeighborLoader(make(), fanouts=[2])
    layer = loader.sample([1, 2, 3]).layers[0]
    x = torch.randn(layer.num_cols, 4)
    with pytest.raises(ValueError, match="`edge_weight` must be None"):
        amstel.nn.GCNConv(4, 2)(x, layer, torch.ones(layer.num_edges))
    for module in (amstel.nn.ChebConv(4, 2, 2), amstel.nn.APPNP(), amstel.nn.SGConv(4, 2)):
        with pytest.raises(ValueError, match="`graph` must be a whole Graph"):
            module(x, layer)
    with pytest.raises(ValueError, match="`x`"):
        amstel.nn.GCNConv(layer.num_cols, 2)(None, layer)
    model = amstel.nn.GCN(4, 3, 2)
    with pytest.raises(ValueError, match="one a layer"):
        model(x, [layer])
    with pytest.raises(TypeError, match=r"graph\[1\]"):
        model(x, [layer, make()])
    with pytest.raises(ValueError, match="whole"):
        model(x, layer)
    with pytest.raises(ValueError, match="drop_edge"):
        amstel.nn.GCN(4, 3, 2, drop_edge=0.5)(x, [layer, layer])
    with pytest.raises(TypeError, match="whole"):
        amstel.Graph.batch([layer])
    for wrong in (x[1:], x[None, None], x.long()):
        with pytest.raises(ValueError, match="`x`"):
            amstel.ops.spmm(layer, wrong)
    with pytest.raises(ValueError, match="x_dst"):
        amstel.ops.spmm(layer, (x, x))
    with pytest.raises(ValueError, match="x_dst"):
        amstel.ops.spmm(layer, (x, None))


@pytest.mark.parametrize("jumping", [None, "cat", "max"])
@pytest.mark.parametrize("residual", [False, True])
def test_gcn_on_layers(jumping, residual):
    graph = make()
    x = torch.randn(60, 6)
    model = amstel.nn.GCN(6, 6, 3, num_layers=3, jumping=jumping, residual=residual).eval()
    expected = model(x, graph)
    for batch in NeighborLoader(graph, x, fanouts=[-1] * 3, batch_size=9):
        assert torch.allclose(model(batch.x, batch.layers), expected[batch.seeds], atol=1e-5)


def test_copies_and_pickles_keep_the_degrees():
    graph = make(weighted=True)
    layer = NeighborLoader(graph, fanouts=[3, 2]).sample([1, 2, 3, 8]).layers[0]
    x = torch.randn(layer.num_cols, 4, dtype=torch.float64)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    copies = [copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]
    for other in [*copies, torch.load(file, weights_only=True)]:
        assert type(other) is type(layer) and torch.equal(other.nodes, layer.nodes)
        assert torch.equal(other.edge_ids, layer.edge_ids)
        for norm in ("sym", "row", "sym_inout"):
            assert torch.equal(amstel.ops.spmm(other, x, norm=norm), amstel.ops.spmm(layer, x, norm=norm))
    state = layer.__getstate__()
    for name, value in (("nodes", None), ("degrees", (x,)), ("edge_ids", layer.nodes)):
        with pytest.raises(ValueError, match="damaged"):
            type(layer).__new__(type(layer)).__setstate__(state | {name: value})
    index = graph.to_edge_index()[0][:, layer.edge_ids]
    assert torch.equal(index[0], layer.nodes[layer.to_edge_index()[0][0]])


def test_compiled():
    layer = NeighborLoader(make(), fanouts=[3]).sample(range(20)).layers[0]
    x = torch.randn(layer.num_cols, 4)
    conv = amstel.nn.GCNConv(4, 8)
    compiled = torch.compile(conv, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x, layer), conv(x, layer), atol=1e-6)


# ---- Subgraphs as batches ----


@pytest.mark.parametrize("method", ["metis", "ranges"])
def test_clusters(method):
    if method == "metis":
        pytest.importorskip("pymetis")
    graph, x = make(weighted=True), torch.randn(60, 4)

    def epochs(**options):
        loader = amstel.data.ClusterLoader(
            graph, x, torch.arange(60), 7, 2, torch.arange(40), method=method, **options
        )
        return len(loader), [list(loader) for _ in range(2)]

    count, (first, second) = epochs()
    assert count == len(first) == 4
    for epoch in (first, second):
        assert sorted(torch.cat([b.nodes for b in epoch]).tolist()) == list(range(60))
        assert sorted(torch.cat([b.y for b in epoch]).tolist()) == list(range(40))
    assert [b.nodes.tolist() for b in first] != [b.nodes.tolist() for b in second]
    for b in first:
        expected = graph.subgraph(b.nodes)
        assert torch.equal(b.x, x[b.nodes]) and torch.equal(b.nodes[b.rows], b.y)
        for norm in ("sym", "row"):
            assert torch.allclose(
                amstel.ops.spmm(b.graph, b.x, norm=norm), amstel.ops.spmm(expected, b.x, norm=norm), atol=1e-6
            )
    again = epochs(num_workers=2)[1][0]
    assert [b.nodes.tolist() for b in again] == [b.nodes.tolist() for b in first]
    given = amstel.data.ClusterLoader(graph, parts=torch.arange(60) % 3 * 5, shuffle=False)
    assert [b.nodes.tolist() for b in given] == [list(range(k, 60, 3)) for k in range(3)]


def test_walks_are_scaled_by_how_often_nodes_and_edges_came():
    """Over the subgraphs that were counted, the mean of the sums and of the loss is that of the whole graph exactly."""
    graph = make(nodes=20, edges=60)
    x = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seeds, y = torch.arange(5, 15), torch.arange(20.0)
    loader = amstel.data.SaintLoader(graph, x, y, 4, 2, 1, seeds, coverage=40)
    counted = loader._plan(-1)[1]
    drawn = round(float(loader._weight[seeds[0]] * loader._nodes_came[seeds[0]]) * len(seeds))
    total, came, loss = torch.zeros(20, 2, dtype=torch.float64), torch.zeros(20), 0.0
    for number in range(drawn):
        batch = counted(number, False)
        assert torch.equal(batch.y, y[batch.nodes[batch.rows]])
        total.index_add_(0, batch.nodes, amstel.ops.spmm(batch.graph, batch.x, norm="row"))
        came[batch.nodes] += 1
        loss += float((batch.weight * batch.y).sum())
    crow, edges = graph.crow.long(), loader._edges_came
    assert loss / drawn == pytest.approx(float(y[seeds].mean()), rel=1e-5)
    expected = amstel.ops.spmm(graph, x, norm="row")
    slots = torch.repeat_interleave(torch.arange(20), crow.diff())
    sure = torch.zeros(20).index_add_(0, slots, (edges > 1).float()) == crow.diff()  # all their edges came
    sure &= came > 0
    assert sure.sum() > 10
    assert torch.allclose((total / came[:, None])[sure], expected[sure], atol=1e-5)
    model = amstel.nn.GCN(2, 4, 3, dtype=torch.float64)
    assert model(batch.x, batch.graph).shape == (len(batch.nodes), 3)


def test_walks_do_not_depend_on_the_workers():
    graph = make()

    def epochs(**options):
        loader = amstel.data.SaintLoader(graph, batch_size=5, steps=4, coverage=2, seed=3, **options)
        return [[(b.nodes.tolist(), b.graph.weight.tolist()) for b in loader] for _ in range(2)]

    first = epochs()
    assert first[0] != first[1] and epochs(num_workers=2, prefetch=1) == first


@pytest.mark.parametrize(
    "loader, options, kind, text",
    [
        ("ClusterLoader", {"parts": 0}, ValueError, "`parts`"),
        ("ClusterLoader", {"parts": 61}, ValueError, "`parts`"),
        ("ClusterLoader", {"parts": torch.zeros(3)}, ValueError, "`parts`"),
        ("ClusterLoader", {"parts": "3"}, TypeError, "`parts`"),
        ("ClusterLoader", {"method": "best"}, ValueError, "`method`"),
        ("ClusterLoader", {"batch_size": 0}, ValueError, "`batch_size`"),
        ("SaintLoader", {"walk_length": -1}, ValueError, "`walk_length`"),
        ("SaintLoader", {"steps": 0}, ValueError, "`steps`"),
        ("SaintLoader", {"coverage": 0}, ValueError, "`coverage`"),
        ("SaintLoader", {"seeds": []}, ValueError, "`seeds`"),
    ],
)
def test_bad_arguments_of_subgraph_loaders(loader, options, kind, text):
    with pytest.raises(kind, match=text):
        getattr(amstel.data, loader)(make(), **options)


# ---- Training ----


@pytest.mark.data
@pytest.mark.slow  # a full batch to compare with takes its time
def test_sampled_training_is_as_accurate_as_full_batches(data_folder):
    """Amazon Photo, 100 training nodes a class: within a point of the full batch."""
    with np.load(data_folder / "graphs" / "amazon_photo_labelled.npz", allow_pickle=True) as file:
        adjacency, features = file["adj_matrix"][()], file["node_attr"][()]
        labels = torch.from_numpy(file["node_label"]).long()
    index = torch.from_numpy(np.stack((adjacency + adjacency.T).nonzero())).long()
    graph = amstel.Graph.from_edge_index(index, len(labels))
    x = torch.from_numpy(features.toarray()).float()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train = torch.cat([order[labels[order] == k][:100] for k in range(8)])
    test = torch.ones(len(labels), dtype=torch.bool)
    test[train] = False

    def accuracy(batches, epochs):
        torch.manual_seed(0)
        model = amstel.nn.GCN(x.shape[1], 32, 8, dropout=0.3)
        adam = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
        for _ in range(epochs):
            for inputs, graphs, rows, target in batches():
                adam.zero_grad()
                torch.nn.functional.cross_entropy(model(inputs, graphs)[rows], target).backward()
                adam.step()
        with torch.no_grad():
            return float((model.eval()(x, graph).argmax(1) == labels)[test].double().mean())

    loader = NeighborLoader(graph, x, labels, [10, 5], 200, train)
    whole = accuracy(lambda: [(x, graph, train, labels[train])], 150)
    sampled = accuracy(lambda: ((b.x, b.layers, slice(None), b.y) for b in loader), 40)
    assert whole > 0.9 and sampled > whole - 0.01


def test_a_study_on_sampled_batches():
    from amstel.apps.graphs.predict import predict
    from amstel.apps.graphs.train import Settings, study

    data = amstel.data.block_model(nodes=400)
    settings = Settings(epochs=20, sampler="neighbor", fanouts=(5, 5), batch_size=30)
    done = []
    found = study(data, seeds=[0, 1], settings=settings, progress=done.append)
    assert sum(done) == 40 and len(found.loss) == 20 and found.loss[-1] < found.loss[0]
    assert found.epochs == [20, 20] and found.mean > 0.5
    again = study(data, seeds=[1], settings=settings)
    assert again.losses[0] == found.losses[1] and again.accuracy[0] == found.accuracy[1]
    assert predict(found, data).shape == (400, data.num_classes)
    stopped = study(data, seeds=[0], settings=Settings(epochs=200, sampler="neighbor", early_stopping="loss"))
    assert len(stopped.losses[0]) == stopped.epochs[0] < 200
    for wrong in ({"sampler": "best"}, {"fanouts": (1,)}, {"fanouts": (0, 1)}, {"batch_size": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Settings(**wrong)
    with pytest.raises(ValueError, match="`sampler`"):
        study(data, "cheb2", seeds=[0], settings=settings)


def test_a_study_on_the_command_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train = ["graphs", "train", "--dataset", "block-model", "--seeds", "1", "--epochs", "3"]
    sampled = [*train, "--sampler", "neighbor"]
    for words, text in [
        ([*train, "--fanouts", "3,3"], "--fanouts and --batch-size need --sampler neighbor"),
        ([*sampled, "--fanouts", "3"], "two integers"),
        ([*sampled, "--fanouts", "0,3"], "two integers"),
        ([*sampled, "--model", "mlp"], "--sampler must be 'none'"),
        ([*train, "--sampler", "best"], "--sampler"),
    ]:
        status, _, err = run(capsys, *words)
        assert status == 2 and text in err and len(err.splitlines()) == 1
    status, _, err = run(capsys, *sampled, "--fanouts", "5,-1", "--json", "r.json", "--out", "run")
    assert status == 0, err
    found = json.loads((tmp_path / "r.json").read_text())
    assert len(found["loss"]) == 3 and found["settings"]["fanouts"] == [5, -1]
    status, _, err = run(capsys, *train, "--out", "run", "--resume")
    assert status == 2 and "checkpoint" in err
