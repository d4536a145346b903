"""Batches of graphs, sums over their nodes, and data sets of graphs in a DataLoader."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

import amstel
from amstel.data import GraphData, GraphDataset, collate
from amstel.nn import global_max_pool, global_mean_pool, global_sum_pool
from amstel.ops import segment_reduce

POOLS = {"sum": global_sum_pool, "mean": global_mean_pool, "max": global_max_pool}


def made(nodes, edges, seed=0, weight=None):
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(max(nodes, 1), (2, edges if nodes else 0), generator=generator)
    weight = None if weight is None else torch.rand(index.shape[1], dtype=weight, generator=generator)
    return amstel.Graph.from_edge_index(index, nodes, weight)


def same(a, b):
    (index, weight), (other, others) = a.to_edge_index(), b.to_edge_index()
    assert (a.num_rows, a.num_cols) == (b.num_rows, b.num_cols)
    assert torch.equal(index, other) and (weight is None) == (others is None)
    assert weight is None or (weight.dtype == others.dtype and torch.equal(weight, others))
    assert torch.equal(a.crow, b.crow) and torch.equal(a.col, b.col) and a.col.dtype == b.col.dtype


GRAPHS = [made(5, 9), made(0, 0), made(3, 0, 1), made(1, 2, 2), made(7, 30, 3)]


@pytest.mark.parametrize("weight", [None, torch.float64, torch.bfloat16])
def test_a_batch_comes_apart_again(weight):
    graphs = [made(n, e, n, weight) for n, e in ((5, 9), (0, 0), (3, 0), (1, 2), (7, 30))]
    batch = amstel.Graph.batch(iter(graphs))
    assert batch.ptr.tolist() == [0, 5, 5, 8, 9, 16] and batch.num_graphs == 5
    assert batch.batch_index.tolist() == [0] * 5 + [2] * 3 + [3] + [4] * 7
    assert repr(batch).endswith("num_graphs=5)")
    for a, b in zip(graphs, batch.unbatch(), strict=True):
        same(a, b)
    shifts = [0, 5, 5, 8, 9]
    expected = torch.cat([g.to_edge_index()[0] + s for g, s in zip(graphs, shifts, strict=True)], 1)
    assert torch.equal(batch.to_edge_index()[0], expected)


def test_a_layer_on_a_batch_is_the_layer_on_every_graph():
    layer = amstel.nn.GCNConv(4, 3)
    x = [torch.randn(g.num_nodes, 4) for g in GRAPHS]
    together = layer(torch.cat(x), amstel.Graph.batch(GRAPHS))
    for got, features, graph in zip(together.split([g.num_nodes for g in GRAPHS]), x, GRAPHS, strict=True):
        torch.testing.assert_close(got, layer(features, graph))


def test_mixed_weights_rectangles_and_batches_of_batches():
    weighted = made(2, 3, weight=torch.float32)
    batch = amstel.Graph.batch([GRAPHS[0], weighted, made(2, 1, 5, torch.float64)])
    assert batch.weight.dtype == torch.float64
    assert batch.weight[:9].eq(1).all() and torch.equal(batch.weight[9:12].float(), weighted.weight)
    wide = amstel.Graph.from_csr([0, 2, 3], [0, 4, 1], num_cols=5)
    both = amstel.Graph.batch([wide, wide])
    assert (both.num_rows, both.num_cols, both.ptr.tolist()) == (4, 10, [0, 2, 4])
    for part in both.unbatch():
        same(part, wide)
    nested = amstel.Graph.batch([amstel.Graph.batch(GRAPHS[:2]), GRAPHS[2]])
    assert nested.num_graphs == 3 and nested.ptr.tolist() == [0, 5, 5, 8]
    same(GRAPHS[0].unbatch()[0], GRAPHS[0])
    assert GRAPHS[0].num_graphs == 1 and GRAPHS[0].ptr.tolist() == [0, 5]


def test_copies_and_pickles_stay_batches():
    batch = amstel.Graph.batch(GRAPHS)
    file = io.BytesIO()
    torch.save(batch, file)
    file.seek(0)
    for other in (
        copy.copy(batch),
        copy.deepcopy(batch),
        pickle.loads(pickle.dumps(batch)),
        torch.load(file, weights_only=True),
        batch.to("meta"),
    ):
        assert other.num_graphs == 5
        if other.device.type == "cpu":
            for a, b in zip(GRAPHS, other.unbatch(), strict=True):
                same(a, b)


@pytest.mark.parametrize(
    "offsets",
    [
        3,
        (torch.tensor([0, 5]),),
        (torch.tensor([0, 5]), torch.tensor([0, 5])),
        (torch.tensor([0, 4, 8]), torch.tensor([0, 4, 8])),  # through a graph
        (torch.tensor([0, 9, 8]), torch.tensor([0, 9, 8])),
        (torch.tensor([0, -1, 8]), torch.tensor([0, -1, 8])),
        (torch.tensor([0, 5, 8]), torch.tensor([0, 8])),
        (torch.tensor([0.0, 8]), torch.tensor([0.0, 8])),
        ([0, 8], [0, 8]),
    ],
)
def test_a_pickle_with_other_offsets_is_refused(offsets):
    batch = amstel.Graph.batch([made(5, 30), made(3, 9)])
    state = batch.__getstate__() | {"offsets": offsets}
    with pytest.raises(ValueError, match="damaged: `offsets`"):
        amstel.Graph.__new__(amstel.Graph).__setstate__(state)


@pytest.mark.parametrize(
    "graphs, error, name",
    [
        ([], ValueError, "graphs"),
        (GRAPHS[0], TypeError, "graphs"),
        (3, TypeError, "graphs"),
        (None, TypeError, "graphs"),
        ([GRAPHS[0], "x"], TypeError, r"graphs\[1\]"),
        ([torch.zeros(2, 3, dtype=torch.long)], TypeError, r"graphs\[0\]"),
        ([GRAPHS[0], GRAPHS[0].to("meta")], ValueError, r"graphs\[1\]"),
    ],
)
def test_bad_batches(graphs, error, name):
    with pytest.raises(error, match=f"`{name}` must be"):
        amstel.Graph.batch(graphs)


# ---- Pooling


def plain(x, index, size, reduce):
    rows = [x[index == s] for s in range(size)]
    zero = x.new_zeros(1, *x.shape[1:])
    if reduce == "max":
        return torch.cat([r.amax(0, keepdim=True) if len(r) else zero for r in rows])
    return torch.cat([getattr(r, reduce)(0, keepdim=True) if len(r) else zero for r in rows])


@pytest.mark.parametrize("reduce", POOLS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_pooling_is_right_in_every_form(reduce, dtype):
    batch = amstel.Graph.batch(GRAPHS)
    x = torch.randn(16, 5).to(dtype)
    expected = plain(x.double(), batch.batch_index, 5, reduce).to(dtype)
    order = torch.randperm(16)
    index = batch.batch_index[order]
    for got in (
        POOLS[reduce](x, batch),
        POOLS[reduce](x[order], index, 5),
        POOLS[reduce](x[order], index.int(), np.int64(5)),
        segment_reduce(x.mT.contiguous().mT, batch, reduce=reduce),
        segment_reduce(x.view(16, 5, 1), batch, reduce=reduce).view(5, 5),
        segment_reduce(x[:, 0], batch, reduce=reduce)[:, None]
        .expand(5, 5)
        .where(torch.arange(5) == 0, expected),
    ):
        torch.testing.assert_close(got, expected)
        assert got.is_contiguous()
    torch.testing.assert_close(POOLS[reduce](x), plain(x.double(), torch.zeros(16), 1, reduce).to(dtype))


@pytest.mark.parametrize("reduce", POOLS)
def test_pooling_has_its_derivatives(reduce):
    batch = amstel.Graph.batch(GRAPHS)
    x = torch.randn(16, 3, dtype=torch.float64, requires_grad=True)

    def pool(x):
        return segment_reduce(x, batch, reduce=reduce)

    assert torch.autograd.gradcheck(pool, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(pool, x)
    jacobian = torch.func.jacrev(pool)(x.detach())
    torch.testing.assert_close(torch.func.jacfwd(pool)(x.detach()), jacobian)
    many = torch.randn(4, 16, 3, dtype=torch.float64)
    torch.testing.assert_close(torch.vmap(pool)(many), torch.stack([pool(one) for one in many]))


def test_ties_share_the_gradient_and_nan_shows():
    x = torch.tensor([[1.0, 0.0], [1.0, 2.0], [0.5, 2.0], [1.0, float("nan")]], requires_grad=True)
    y = global_max_pool(x, torch.tensor([0, 0, 0, 1]))
    assert y[0].tolist() == [1, 2] and y[1, 1].isnan()
    y[0].sum().backward()
    assert x.grad[:3].tolist() == [[0.5, 0], [0.5, 0.5], [0, 0.5]]
    zero = torch.tensor([[0.0], [-1.0], [0.0]])
    whole = torch.func.grad(lambda x: global_max_pool(x, torch.tensor([0, 0, 1])).sum())(zero)
    zero.requires_grad_()
    global_max_pool(zero, torch.tensor([0, 0, 1])).sum().backward()
    assert zero.grad.tolist() == whole.tolist() == [[1], [0], [1]]
    low = torch.full((3, 1), -torch.inf)
    minus = torch.full((3, 1), -torch.inf, dtype=torch.float64)  # which a start from -inf would be, too
    found = torch.func.jacrev(lambda x: global_max_pool(x, torch.tensor([0, 0, 1])))(minus)
    assert found[:, 0, :, 0].tolist() == [[0.5, 0.5, 0], [0, 0, 1]]
    assert global_max_pool(low, torch.tensor([0, 0, 2])).tolist() == [[-torch.inf], [0], [-torch.inf]]


@pytest.mark.parametrize("reduce", POOLS)
def test_short_types_are_summed_in_float32_also_under_autocast(reduce):
    x = torch.ones(1000, 2)
    with torch.autocast("cpu", torch.bfloat16):
        y = segment_reduce(x, reduce=reduce)
        short = segment_reduce(x.bfloat16(), reduce=reduce)
    assert y.dtype == torch.float32 and y[0, 0] == (1000 if reduce == "sum" else 1)
    assert short.dtype == torch.bfloat16 and short[0, 0] == (1000 if reduce == "sum" else 1)


def test_pooling_compiles_and_is_the_same_for_any_number_of_threads():
    batch = amstel.Graph.batch([made(40, 100, k) for k in range(50)])
    x = torch.randn(2000, 8, requires_grad=True)

    def all_three(x, batch):
        return sum(pool(x, batch).square().sum() for pool in POOLS.values())

    expected = torch.autograd.grad(all_three(x, batch), x)[0]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(torch.autograd.grad(all_three(x, batch), x)[0], expected)
    finally:
        torch.set_num_threads(threads)
    compiled = torch.compile(all_three, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(torch.autograd.grad(compiled(x, batch), x)[0], expected)


def test_empty_input():
    for pool in POOLS.values():
        assert pool(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), 2).tolist() == [[0] * 3] * 2
        assert pool(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)).shape == (0, 3)
        assert pool(torch.zeros(4, 0), torch.tensor([0, 1, 1, 0])).shape == (2, 0)
        assert pool(torch.zeros(0, 3)).tolist() == [[0] * 3]


X = torch.zeros(4, 2)


@pytest.mark.parametrize(
    "arguments, error, name",
    [
        (([1, 2], None), TypeError, "x"),
        ((X.long(), None), ValueError, "x"),
        ((X[0], None), ValueError, "x"),
        ((X.to_sparse(), None), ValueError, "x"),
        ((X, [0, 0, 1, 1]), TypeError, "batch"),
        ((X, torch.tensor([0, 0, 1])), ValueError, "batch"),
        ((X, torch.tensor([[0, 0, 1, 1]])), ValueError, "batch"),
        ((X, torch.tensor([0.0, 0, 1, 1])), ValueError, "batch"),
        ((X, torch.tensor([True, False, True, True])), ValueError, "batch"),
        ((X, torch.tensor([0, 0, -1, 1])), ValueError, "batch"),
        ((X, torch.tensor([0, 0, 1, 2]), 2), ValueError, "batch"),
        ((X, torch.tensor([0, 0, 1, 2**62]), 2), ValueError, "batch"),
        ((X, GRAPHS[0]), ValueError, "batch"),
        ((X, torch.zeros(4, dtype=torch.long, device="meta")), ValueError, "batch"),
        ((X, torch.tensor([0, 0, 1, 1]), -1), ValueError, "size"),
        ((X, torch.tensor([0, 0, 1, 1]), 2.0), ValueError, "size"),
        ((X, torch.tensor([0, 0, 1, 1]), True), TypeError, "size"),
        ((X, made(4, 2), 2), ValueError, "size"),
    ],
)
def test_bad_pooling(arguments, error, name):
    for pool in POOLS.values():
        with pytest.raises(error, match=rf"`{name}` must be"):
            pool(*arguments)


def test_bad_reduction():
    with pytest.raises(ValueError, match="`reduce` must be one of 'sum', 'mean', 'max'"):
        segment_reduce(X, reduce="median")


def test_pyg_pools_alike():
    glob = pytest.importorskip("torch_geometric.nn.pool.glob")
    theirs = {"sum": glob.global_add_pool, "mean": glob.global_mean_pool, "max": glob.global_max_pool}
    batch = amstel.Graph.batch(GRAPHS)
    for name, pool in POOLS.items():
        for size in (5, 7):
            x, y = (torch.randn(16, 3, generator=torch.Generator().manual_seed(1)).round() for _ in "ab")
            x.requires_grad_(), y.requires_grad_()
            ours, other = pool(x, batch.batch_index, size), theirs[name](y, batch.batch_index, size)
            torch.testing.assert_close(ours, other)
            for out in (ours, other):
                (out * torch.arange(size * 3).view(size, 3)).sum().backward()
            # Of a maximum that is 0 PyG loses a part of the gradient.
            right = (other[batch.batch_index] != 0) if name == "max" else torch.ones_like(x, dtype=torch.bool)
            torch.testing.assert_close(x.grad[right], y.grad[right])


# ---- Data sets


def dataset(graphs=24, edge_features=False):
    some = [made(k % 7, 2 * (k % 7), k) for k in range(graphs)]
    features = [torch.full((g.num_nodes, 2), float(k)) for k, g in enumerate(some)]
    edges = [torch.full((g.num_edges, 1), float(k)) for k, g in enumerate(some)] if edge_features else None
    return GraphDataset(some, features, [k % 3 for k in range(graphs)], edges, name="made"), some


def test_items_and_subsets():
    data, graphs = dataset(edge_features=True)
    assert repr(data) == (
        "GraphDataset(made, num_graphs=24, num_nodes=66, num_edges=132, num_features=2, num_classes=3)"
    )
    assert len(data) == 24 and data.num_edge_features == 1 and data.labels.dtype == torch.int64
    for k, item in enumerate(data):
        same(item.graph, graphs[k])
        assert item.label.item() == k % 3 and (item.features == k).all() and (item.edge_features == k).all()
        assert item.edge_features.shape == (item.graph.num_edges, 1)
    assert data[-1].label == data[np.int64(23)].label == data[torch.tensor(23)].label
    mask = torch.zeros(24, dtype=torch.bool)
    mask[[5, 4]] = True
    for some in (data[[4, 5]], data[4:6], data[mask], data[np.array([4, 5])], data[(-20, -19)]):
        assert isinstance(some, GraphDataset) and len(some) == 2 and some.num_classes == 3
        assert some[1].features.eq(5).all() and some.labels.tolist() == [1, 2]
        same(some[0].graph, graphs[4])
    data[4].features.zero_()
    assert data[4].features.eq(4).all()


@pytest.mark.parametrize("context", [None, "fork", "spawn"])
def test_a_data_loader_with_workers(context):
    data, graphs = dataset()
    workers = {} if context is None else {"num_workers": 2, "multiprocessing_context": context}
    loader = DataLoader(Subset(data, range(4, 24)), batch_size=8, collate_fn=collate, **workers)
    seen = list(loader)
    assert [batch.num_graphs for batch in seen] == [8, 8, 4]
    number = 4
    for batch in seen:
        pooled = global_max_pool(batch.features, batch.graph)
        for k, graph in enumerate(batch.graph.unbatch()):
            same(graph, graphs[number])
            assert batch.label[k] == number % 3
            assert (pooled[k] == (number if graph.num_nodes else 0)).all()
            number += 1


def test_data_moves_with_its_graph():
    data, _ = dataset(8)
    batch = collate([data[k] for k in range(8)]).to("meta")
    assert batch.graph.device.type == batch.features.device.type == batch.label.device.type == "meta"
    assert batch.num_nodes == 21 and batch.edge_features is None


PAIR, TRIPLE = made(2, 2), made(3, 4)
F2, F3 = torch.zeros(2, 4), torch.zeros(3, 4)
NAN = float("nan")


@pytest.mark.parametrize(
    "arguments, error, name",
    [
        ({"graphs": []}, ValueError, "graphs"),
        ({"graphs": PAIR}, TypeError, "graphs"),
        ({"graphs": [PAIR, 3]}, TypeError, r"graphs\[1\]"),
        ({"graphs": [PAIR, amstel.Graph.batch([TRIPLE])]}, ValueError, r"graphs\[1\]"),
        ({"features": [F2]}, ValueError, "features"),
        ({"features": F2}, TypeError, "features"),
        ({"features": [F3, F2]}, ValueError, r"features\[0\]"),
        ({"features": [F2, F3[:, :2]]}, ValueError, r"features\[1\]"),
        ({"features": [F2, F3.double()]}, ValueError, r"features\[1\]"),
        ({"features": [F2, F3.long()]}, ValueError, r"features\[1\]"),
        ({"features": [F2, None]}, TypeError, r"features\[1\]"),
        ({"features": [F2, F3.to_sparse()]}, ValueError, r"features\[1\]"),
        ({"features": [F2, F3.to("meta")]}, ValueError, r"features\[1\]"),
        ({"edge_features": [F2, F3]}, ValueError, r"edge_features\[1\]"),
        ({"labels": [0]}, ValueError, "labels"),
        ({"labels": [0, 2**63]}, TypeError, "labels"),
        ({"labels": [0, 1, 2]}, ValueError, "labels"),
        ({"labels": [0, -1]}, ValueError, "labels"),
        ({"labels": [0, True]}, TypeError, "labels"),
        ({"labels": torch.tensor([True, False])}, ValueError, "labels"),
        ({"labels": [0.0, NAN]}, ValueError, "labels"),
        ({"labels": torch.tensor([[0.0, 1], [torch.inf, 0]])}, ValueError, "labels"),
        ({"labels": torch.tensor([[0, 1], [1, 0]])}, ValueError, "labels"),
        ({"labels": [[0], [0, 1]]}, TypeError, "labels"),
        ({"labels": ["a", "b"]}, TypeError, "labels"),
        ({"labels": "ab"}, TypeError, "labels"),
        ({"labels": [0, 10**30]}, TypeError, "labels"),
        ({"labels": 3}, TypeError, "labels"),
        ({"labels": np.array([0, 1j])}, ValueError, "labels"),
        ({"labels": [0, 2], "num_classes": 2}, ValueError, "num_classes"),
        ({"labels": [0, 1], "num_classes": 2.0}, ValueError, "num_classes"),
        ({"name": 3}, TypeError, "name"),
    ],
    ids=str,
)
def test_bad_data_sets(arguments, error, name):
    with pytest.raises(error, match=f"`{name}` must be"):
        GraphDataset(**{"graphs": [PAIR, TRIPLE], **arguments})


@pytest.mark.parametrize(
    "index, error",
    [
        (2, IndexError),
        (-3, IndexError),
        ([0, 2], IndexError),
        (1.0, TypeError),
        (True, TypeError),
        ("a", TypeError),
        ([0.5], ValueError),
        ([], ValueError),
        (slice(2, 2), ValueError),
        (slice("a"), TypeError),
        (torch.tensor([True]), ValueError),
        (torch.tensor([[0]]), ValueError),
        ([10**30], TypeError),
    ],
    ids=str,
)
def test_bad_indices(index, error):
    data = GraphDataset([PAIR, TRIPLE])
    with pytest.raises(error, match="`index` must"):
        data[index]


@pytest.mark.parametrize(
    "items, error, said",
    [
        ([], ValueError, "`items` must be"),
        (PAIR, TypeError, "`items` must be"),
        ([PAIR], TypeError, r"`items\[0\]` must be"),
        ([GraphData(PAIR, F2), GraphData(TRIPLE)], ValueError, r"`features` must .*items\[1\]"),
        ([GraphData(PAIR, F2), GraphData(TRIPLE, F3[:, :1])], ValueError, r"`features` of items\[1\] must"),
        ([GraphData(PAIR, F2), GraphData(TRIPLE, F3.double())], ValueError, r"`features` of items\[1\] must"),
        (
            [GraphData(PAIR, label=torch.tensor(1)), GraphData(TRIPLE, label=torch.tensor(0.5))],
            ValueError,
            r"`label` of items\[1\]",
        ),
    ],
)
def test_bad_items(items, error, said):
    with pytest.raises(error, match=said):
        collate(items)


@pytest.mark.parametrize(
    "arguments, error, name",
    [
        ((torch.zeros(2, 2),), TypeError, "graph"),
        ((PAIR, F3), ValueError, "features"),
        ((PAIR, F2.numpy()), TypeError, "features"),
        ((PAIR, F2[0]), ValueError, "features"),
        ((PAIR, None, 1), TypeError, "label"),
        ((PAIR, None, torch.zeros(2, 2)), ValueError, "label"),
        ((PAIR, None, torch.tensor(True)), ValueError, "label"),
        ((amstel.Graph.batch([PAIR]), None, torch.tensor(1)), ValueError, "label"),
        ((PAIR, None, None, F3), ValueError, "edge_features"),
    ],
)
def test_bad_graph_data(arguments, error, name):
    with pytest.raises(error, match=f"`{name}` must be"):
        GraphData(*arguments)


@pytest.mark.parametrize("reduce", POOLS)
def test_an_exported_program_takes_any_number_of_rows(reduce):
    class Pool(torch.nn.Module):
        def forward(self, x, segments):
            return segment_reduce(x, segments, 4, reduce=reduce)

    rows, g = torch.export.Dim.AUTO, torch.Generator().manual_seed(0)
    given = [(torch.randn(n, 3, generator=g), torch.randint(4, (n,), generator=g)) for n in (6, 9)]
    program = torch.export.export(Pool(), given[0], dynamic_shapes=({0: rows}, {0: rows})).module()
    for x, segments in given:
        assert torch.equal(program(x, segments), segment_reduce(x, segments, 4, reduce=reduce))
