"""NeighborLoader and its layers: exact with all neighbors, unbiased with some, the same for any number of workers."""

import copy
import io
import pickle
import threading
import time

import numpy as np
import pytest
import torch

import amstel
from amstel.data import NeighborLoader
from tests.test_sampling import make


def flat(batch):
    """All numbers of a batch, to compare two."""
    parts = [batch.nodes, batch.seeds]
    for layer in batch.layers:
        parts += [layer.crow, layer.col, layer.edge_ids, layer.nodes]
        parts += [] if layer.weight is None else [layer.weight]
    return [p.tolist() for p in parts]


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


@pytest.mark.parametrize("dtype", [None, torch.float16, torch.float32, torch.float64])
def test_what_edges_stand_for(dtype):
    """7 / 3 edges each, times weights that leave float16 when they are multiplied."""
    index = torch.stack([torch.arange(1, 8), torch.zeros(7, dtype=torch.long)])
    weight = None if dtype is None else torch.full((7,), 60000.0, dtype=dtype)
    graph = amstel.Graph.from_edge_index(index, 8, weight)
    x = torch.rand(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    batch = NeighborLoader(graph, x, fanouts=[3]).sample([0])
    each = 7 / 3 * (1 if weight is None else 60000)
    expected = each * x[batch.nodes[1:]].sum(0, keepdim=True)
    found = amstel.ops.spmm(batch.layers[0], batch.x, norm="none", self_loops=0.0)
    torch.testing.assert_close(found, expected, rtol=1e-14 if dtype == torch.float64 else 1e-6, atol=0)
    half = amstel.ops.spmm(batch.layers[0], torch.ones(4, 1).half(), norm="row", self_loops=0.0)
    assert half.tolist() == [[1.0]]


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


def test_a_store_may_use_its_memory_again_and_that_of_the_numbers():
    """One buffer for all answers, and numbers sorted in place, as stores on disk like them: batches stay what they are."""
    graph, x = make(), torch.arange(120.0).view(60, 2)

    class Store:
        buffer = torch.empty(60, 2)

        def __init__(self, kind):
            self.kind = kind

        def __getitem__(self, nodes):
            rows = self.buffer[: len(nodes)]
            torch.index_select(x, 0, nodes, out=rows)
            nodes.copy_(nodes.sort()[0])
            return rows if self.kind == "tensor" else rows.numpy()

    for kind in ("tensor", "array"):
        batches = list(NeighborLoader(graph, Store(kind), fanouts=[3], batch_size=7))
        assert len(batches) == 9 and all(torch.equal(b.x, x[b.nodes]) for b in batches)
    for wrong, error in (
        (np.ma.masked_array(np.zeros((60, 2)), np.ones((60, 2), bool)), ValueError),
        (np.full((60, 2), "a", object), TypeError),
    ):
        store = type("Wrong", (), {"__getitem__": lambda self, nodes, rows=wrong: rows[: len(nodes)]})()
        with pytest.raises(error, match="`x` must"):
            next(iter(NeighborLoader(graph, store, batch_size=7)))


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
    (
        {"probability": torch.tensor([1.0, 1e-300] * 200, dtype=torch.float64)},
        ValueError,
        "got 1e-300 at position 1",
    ),
    ({"x": np.zeros((60, 2), np.longdouble)}, ValueError, "`x` must be an array .* that torch supports"),
    ({"x": np.zeros((60, 2), ">f4")}, ValueError, "`x` must be an array .* that torch supports"),
    ({"y": np.full(60, "a")}, ValueError, "`y` must be an array .* that torch supports"),
    ({"seeds": [3, True]}, TypeError, "`seeds`"),
]


@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_only_the_proportions_of_probabilities_count(size):
    """Numbers that float32 does not hold draw as others do: none becomes 0, which would never be drawn."""
    graph = make()
    chance = (
        torch.rand(graph.num_edges, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    )
    plain, extreme = (
        NeighborLoader(graph, fanouts=[3], probability=chance / chance.max() * by, shuffle=False)
        for by in (1.0, size)
    )
    for a, b in zip(plain, extreme, strict=True):
        assert a.layers[0].num_edges == b.layers[0].num_edges > 60 and torch.equal(a.nodes, b.nodes)


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
    with pytest.raises(ValueError, match="one per layer"):
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
