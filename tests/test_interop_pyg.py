"""amstel.interop.pyg.GCNConv against PyTorch Geometric's own: values, gradients, state, caching."""

import copy
import gc
import pickle
import weakref

import pytest
import torch

import amstel
from amstel.interop import _pyg, pyg
from amstel.interop.pyg import APPNP, ChebConv, GCNConv, SGConv

N, NAN, INF = 20, float("nan"), float("inf")


def _index(kind):
    index = torch.randint(0, N, (2, 60), generator=torch.Generator().manual_seed(0))
    index = index[:, index[0] != index[1]]
    if kind == "undirected":
        return torch.unique(torch.cat([index, index.flip(0)], 1), dim=1)
    if kind == "loops":  # two at node 3, of which the last one counts, and parallel edges
        return torch.cat([index, torch.tensor([[3, 5, 3, 1, 1], [3, 5, 3, 2, 2]])], 1)
    return index


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["directed", "undirected", "loops"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"improved": True},
        {"add_self_loops": False},
        {"normalize": False},
        {"flow": "target_to_source"},
        {"bias": False},
        {"cached": True},
        {"improved": True, "cached": True, "flow": "target_to_source"},
    ],
    ids=str,
)
def test_values_and_gradients(kind, weighted, options):
    torch_geometric = pytest.importorskip("torch_geometric.nn")
    theirs, ours = torch_geometric.GCNConv(6, 4, **options), GCNConv(6, 4, **options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    index = _index(kind)
    generator = torch.Generator().manual_seed(1)
    x, w = torch.randn(N, 6, generator=generator), torch.rand(index.shape[1], generator=generator)
    found = []
    for conv in (theirs, ours):
        inputs = [x.clone().requires_grad_(), *([w.clone().requires_grad_()] if weighted else [])]
        y = conv(inputs[0], index, *inputs[1:])
        leaves = [*inputs, *conv.parameters()]
        found.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["directed", "loops"])
def test_a_graph_in_place_of_edge_index(kind, weighted):
    index = _index(kind)
    w = torch.rand(index.shape[1]) if weighted else None
    conv, x = GCNConv(6, 4, improved=True), torch.randn(N, 6)
    expected = conv(x, index, w)
    graph = amstel.Graph.from_edge_index(index, N, w)
    torch.testing.assert_close(conv(x, graph), expected)
    torch.testing.assert_close(conv(x, amstel.Graph.from_edge_index(index, N), w), expected)
    prepared = _pyg._prepared[graph]["source_to_target", True]
    GCNConv(6, 4)(x, graph)
    assert _pyg._prepared[graph] == {("source_to_target", True): prepared}
    if kind == "directed":  # nothing to add: the layers share the Graph itself
        assert prepared.graph is None


@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
def test_a_graph_that_inference_mode_saw_first_trains(flow):
    index = _index("loops")
    x, weight = torch.randn(N, 4), torch.rand(index.shape[1], requires_grad=True)
    graph, layer = amstel.Graph.from_edge_index(index, N), GCNConv(4, 3, flow=flow)
    with torch.inference_mode():
        layer(x, graph)
    found, expected = (
        torch.autograd.grad(layer(x, g, weight).square().sum(), weight)[0] for g in (graph, index)
    )
    torch.testing.assert_close(found, expected)


def test_sparse_adjacency():
    index = _index("directed")
    conv, x = GCNConv(6, 4), torch.randn(N, 6)
    w = torch.rand(index.shape[1])
    adjacency = torch.sparse_coo_tensor(index.flip(0), w, (N, N))
    torch.testing.assert_close(conv(x, adjacency), conv(x, index, w))
    torch.testing.assert_close(conv(x, adjacency.coalesce().to_sparse_csr()), conv(x, index, w))


@pytest.mark.parametrize("improved", [False, True])
@pytest.mark.parametrize("layout", ["coo", "csr"])
@pytest.mark.parametrize("normalize", [False, True])
def test_sparse_adjacency_with_loops_is_counted_as_pyg_counts(layout, improved, normalize):
    torch_geometric = pytest.importorskip("torch_geometric.nn")
    index = _index("loops")
    w = torch.rand(index.shape[1], generator=torch.Generator().manual_seed(2))
    adjacency = torch.sparse_coo_tensor(index.flip(0), w, (N, N)).coalesce()
    adjacency = adjacency if layout == "coo" else adjacency.to_sparse_csr()
    x = torch.randn(N, 6, generator=torch.Generator().manual_seed(3))
    options = {"improved": improved, "normalize": normalize}
    theirs, ours = torch_geometric.GCNConv(6, 4, **options), GCNConv(6, 4, **options)
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(x, adjacency), theirs(x, adjacency), rtol=1e-4, atol=1e-5)


def test_a_used_layer_pickles_and_copies_and_frees_its_graph():
    graph = amstel.Graph.from_edge_index(_index("loops"), N)
    x = torch.randn(N, 6)
    for conv in (GCNConv(6, 4), GCNConv(6, 4, cached=True), GCNConv(6, 4, flow="target_to_source")):
        expected = conv(x, graph)
        for other in (pickle.loads(pickle.dumps(conv)), copy.deepcopy(conv)):
            torch.testing.assert_close(other(x, graph), expected)
    for layer in (GCNConv(6, 4), GCNConv(6, 4, add_self_loops=False)):
        for kind in ("directed", "loops"):
            held = amstel.Graph.from_edge_index(_index(kind), N)
            layer(x, held)
            seen = weakref.ref(held)
            del held
            gc.collect()
            assert seen() is None


def test_cached_keeps_the_first_graph_until_reset():
    conv, x = GCNConv(6, 4, cached=True), torch.randn(N, 6)
    first = conv(x, _index("directed"))
    torch.testing.assert_close(conv(x, _index("undirected")), first)
    state = conv.state_dict()
    conv.reset_parameters()
    conv.load_state_dict(state)
    assert not torch.allclose(conv(x, _index("undirected")), first)


def test_lazy_input_width():
    torch.manual_seed(0)
    conv = GCNConv(-1, 4)
    assert conv(torch.randn(N, 6), _index("directed")).shape == (N, 4)
    assert conv.lin.weight.shape == (4, 6)
    assert conv.lin.weight.abs().max() <= (6 / 10) ** 0.5
    fresh = GCNConv(6, 4)
    fresh.load_state_dict(conv.state_dict())


def test_batches():
    conv, x = GCNConv(6, 4), torch.randn(2, N, 6)
    torch.testing.assert_close(conv(x, _index("loops"))[1], conv(x[1], _index("loops")))


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda: GCNConv(6, 4, add_self_loops=True, normalize=False),
            ValueError,
            "does not support adding self-loops",
        ),
        (lambda: GCNConv(6, 4, flow="both"), ValueError, "`flow` must be"),
        (lambda: GCNConv(6, 4, heads=2), TypeError, "heads"),
        (lambda: GCNConv(6, 4)(torch.randn(N, 6), torch.tensor([[0], [N]])), ValueError, str(N)),
        (
            lambda: GCNConv(6, 4)(torch.randn(N, 6), torch.zeros(3, 2).long()),
            ValueError,
            "`edge_index` must be",
        ),
        (
            lambda: GCNConv(6, 4)(torch.randn(N, 6), _index("loops"), torch.rand(3)),
            ValueError,
            "`edge_weight` must be",
        ),
        (lambda: GCNConv(6, 4)("x", _index("loops")), TypeError, "`x` must be"),
        (lambda: GCNConv(6, 4)(torch.ones(N, 6).long(), _index("loops")), ValueError, "`x` must be"),
        (
            lambda: GCNConv(6, 4)(
                torch.ones(N, 6), _index("loops"), torch.ones(len(_index("loops")[0])).long()
            ),
            ValueError,
            "`edge_weight` must be",
        ),
        (lambda: GCNConv(6, 4)(torch.randn(N, 6), [[0], [1]]), TypeError, "`edge_index` must be"),
    ],
)
def test_bad_input_is_explained(call, error, message):
    with pytest.raises(error, match=message):
        call()


OTHERS = {
    "ChebConv": (6, 4, 3),
    "SGConv": (6, 4, 2),
    "APPNP": (3, 0.2),
    "GCN2Conv": (6, 0.3, 0.5, 2),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("kind", ["directed", "loops"])
def test_the_other_layers_are_pygs(name, kind, monkeypatch):
    theirs_of = pytest.importorskip("torch_geometric.nn")
    ours, theirs = getattr(pyg, name)(*OTHERS[name]), getattr(theirs_of, name)(*OTHERS[name])
    assert isinstance(ours, getattr(theirs_of, name)) and list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    index = _index(kind)
    x = torch.randn(N, 6, generator=torch.Generator().manual_seed(1))
    w = torch.rand(index.shape[1], generator=torch.Generator().manual_seed(2))
    inputs = (x, x.flip(0)) if name == "GCN2Conv" else (x,)
    called = []
    monkeypatch.setattr(_pyg, "spmm", lambda *a, **k: called.append(1) or amstel.ops.spmm(*a, **k))
    for weight in (None, w):
        expected = theirs(*[t.clone() for t in inputs], index, weight)
        torch.testing.assert_close(ours(*inputs, index, weight), expected, rtol=1e-4, atol=1e-5)
        graph = amstel.Graph.from_edge_index(index, N, weight)
        torch.testing.assert_close(ours(*inputs, graph), expected, rtol=1e-4, atol=1e-5)
    assert called


def test_who_watches_the_messages_sees_them():
    model = pytest.importorskip("torch_geometric.nn")
    index, x = _index("loops"), torch.randn(N, 6)
    conv = GCNConv(6, 4)
    expected, seen = conv(x, index), []
    handle = conv.register_message_forward_hook(lambda module, inputs, out: seen.append(out.shape[0]))
    for given in (index, amstel.Graph.from_edge_index(index, N)):
        torch.testing.assert_close(conv(x, given), expected, rtol=1e-4, atol=1e-5)
    handle.remove()
    conv(x, index)
    assert len(seen) == 2 and min(seen) > N
    handle = conv.aggr_module.register_forward_hook(lambda *_: seen.append(N))  # as PyG's summary has it
    conv(x, index)
    handle.remove()
    assert len(seen) == 3 and not conv._is_watched()
    sums = conv.aggr_module
    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda m, *_: seen.append(N) if m is sums else None
    )
    conv(x, index)
    handle.remove()
    assert len(seen) == 4
    sums.forward = lambda *given, **more: 2 * type(sums).forward(sums, *given, **more)
    torch.testing.assert_close(conv(x, index), 2 * expected, rtol=1e-4, atol=1e-5)  # whose bias is 0
    del sums.forward
    assert not conv._is_watched()
    torch.testing.assert_close(torch.jit.script(conv)(x, index), expected, rtol=1e-4, atol=1e-5)
    hetero = model.to_hetero(pyg.GCN(6, 8, 2, 3), (["a"], [("a", "to", "a"), ("a", "of", "a")]), aggr="sum")
    edges = {("a", "to", "a"): index, ("a", "of", "a"): index.flip(0)}
    assert not torch.allclose(
        hetero({"a": x}, edges)["a"], hetero({"a": x}, {k: v[:, :0] for k, v in edges.items()})["a"]
    )


@pytest.mark.parametrize("name", ["APPNP", "GCN2Conv"])
@pytest.mark.parametrize("weighted", [False, True])
def test_without_normalization_there_are_no_loops(name, weighted):
    torch_geometric = pytest.importorskip("torch_geometric.nn")
    index = _index("loops")
    options = {"K": 3, "alpha": 0.2} if name == "APPNP" else {"channels": 6, "alpha": 0.2}
    theirs = getattr(torch_geometric, name)(**options, normalize=False)
    ours = getattr(pyg, name)(**options, normalize=False)
    ours.load_state_dict(theirs.state_dict())
    x, w = torch.randn(N, 6), torch.rand(index.shape[1]) if weighted else None
    inputs = (x,) if name == "APPNP" else (x, x)
    expected = theirs(*inputs, index, w)
    torch.testing.assert_close(ours(*inputs, index, w), expected, rtol=1e-4, atol=1e-4)
    graph = amstel.Graph.from_edge_index(index, N)
    torch.testing.assert_close(ours(*inputs, graph, w), expected, rtol=1e-4, atol=1e-4)


def test_what_pyg_says_of_its_layers_it_says_of_these(monkeypatch):
    """PyG's table of layers reads docstrings and signatures: title and link of the paper, what a layer takes."""
    from torch_geometric.nn import conv
    from torch_geometric.nn.conv import utils

    questions = [
        getattr(utils, name) for name in dir(utils) if name.startswith(("paper_", "supports_", "processes_"))
    ]
    assert len(questions) > 8
    for name in ("GCNConv", *OTHERS):
        theirs = [question(name) for question in questions]
        with monkeypatch.context() as patch:
            patch.setitem(conv.__dict__, name, getattr(amstel.interop.pyg, name))
            assert [question(name) for question in questions] == theirs, name


def test_the_size_of_an_edge_index_counts_nodes_without_edges():
    from torch_geometric import EdgeIndex

    index = torch.tensor([[0, 1], [1, 0]])
    assert amstel.Graph.from_edge_index(EdgeIndex(index, sparse_size=(5, 5))).num_nodes == 5
    assert amstel.Graph.from_edge_index(EdgeIndex(index)).num_nodes == 2


def test_explanations_and_programs_look_at_the_messages_whatever_pyg_has_compiled_before():
    """PyG compiles `propagate` for every class, and would take that of its own layer for the method itself."""
    torch_geometric = pytest.importorskip("torch_geometric.nn")
    from torch_geometric.explain.algorithm.utils import clear_masks, set_masks

    index = _index("directed")
    x, mask = torch.randn(N, 6), torch.rand(index.shape[1])
    for name, arguments in {"GCNConv": (6, 4), **OTHERS}.items():
        theirs, ours = (getattr(module, name)(*arguments) for module in (torch_geometric, pyg))
        ours.load_state_dict(theirs.state_dict())
        inputs = (x, x.flip(0)) if name == "GCN2Conv" else (x,)
        found = []
        for layer in (theirs, ours):
            whole = torch.nn.Sequential(layer)
            set_masks(whole, mask, index, apply_sigmoid=False)
            found.append(layer(*[t.clone() for t in inputs], index))
            clear_masks(whole)
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(ours(*inputs, index), found[1], atol=1e-3)
        assert not ours._is_watched()
    traced = torch.jit.trace(GCNConv(6, 4), (x, index[:, :9]), check_trace=False)
    theirs = torch_geometric.GCNConv(6, 4)
    theirs.load_state_dict(traced.state_dict())
    for other in (index, _index("loops")):  # no loop in what was traced
        torch.testing.assert_close(traced(x, other), theirs(x, other), rtol=1e-4, atol=1e-5)


def test_a_subclass_that_propagates_otherwise_does():
    class Sevens(GCNConv):
        def propagate(self, edge_index, size=None, **inputs):
            return 0 * super().propagate(edge_index, size=size, **inputs) + 7

    class Heir(Sevens):
        pass

    x, index = torch.randn(N, 6), _index("directed")
    for layer in (Sevens(6, 4), Heir(6, 4)):
        assert torch.equal(layer(x, index), torch.full((N, 4), 7.0))


def test_autocast_rounds_where_pyg_does():
    torch_geometric = pytest.importorskip("torch_geometric.nn")
    x, index = torch.randn(N, 6), _index("directed")
    for options in ({}, {"bias": False}, {"normalize": False, "bias": False}):
        theirs, ours = torch_geometric.GCNConv(6, 4, **options), GCNConv(6, 4, **options)
        ours.load_state_dict(theirs.state_dict())
        with torch.autocast("cpu", torch.bfloat16):
            expected, found = theirs(x, index), ours(x, index)
        assert found.dtype == expected.dtype
        exact = expected.dtype == torch.float32
        torch.testing.assert_close(
            found, expected, rtol=1e-4 if exact else 0.05, atol=1e-5 if exact else 0.05
        )


def test_a_graph_of_other_nodes_is_refused_by_every_layer_watched_or_not():
    x = torch.randn(N, 6)
    small = amstel.Graph.from_edge_index(_index("directed")[:, :0], N - 1)
    rectangle = amstel.Graph.from_csr(torch.tensor([0, 1]), torch.tensor([2]), num_cols=N)
    whole = amstel.Graph.from_edge_index(_index("directed"), N)
    batch = next(iter(amstel.data.NeighborLoader(whole, fanouts=[-1], seeds=range(N), batch_size=N)))
    for name, arguments in {"GCNConv": (6, 4), **OTHERS}.items():
        layer = getattr(pyg, name)(*arguments)
        inputs = (x, x) if name == "GCN2Conv" else (x,)
        for _ in range(2):
            for graph in (small, rectangle, batch.layers[0]):
                with pytest.raises(ValueError, match="`edge_index` must be a"):
                    layer(*inputs, graph)
            layer.register_propagate_forward_hook(lambda *_: None)


def test_backward_with_layers_of_pyg_on_one_sparse_adjacency():
    """PyG's gcn_norm writes to the values of a coalesced matrix, which may not be those that a gradient needs."""
    import torch_geometric.nn

    index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    x = torch.randn(3, 4, requires_grad=True)

    def gradient(first):
        adjacency = torch.sparse_coo_tensor(index, torch.ones(4), (3, 3)).coalesce()
        torch.manual_seed(0)
        layers = [kind.GCNConv(4, 4) for kind in (first, torch_geometric.nn)]
        h = layers[1](layers[0](x, adjacency).relu(), adjacency)
        return torch.autograd.grad(h.square().sum(), x)[0]

    torch.testing.assert_close(gradient(amstel.interop.pyg), gradient(torch_geometric.nn))


@pytest.mark.parametrize(
    "normalization, weight, lambda_max, message",
    [
        ("sym", [-1.0, 2, -3, 1, 9], None, r"`edge_weight` must add up to at least 0 .*, got -1 for node 0"),
        ("sym", [1.0, 2, NAN, 1, 9], None, "`edge_weight` must be finite, got nan at position 2"),
        ("rw", [1.0, INF, 1, 1, 9], 2.0, "`edge_weight` must be finite, got inf at position 1"),
        ("sym", None, NAN, r"`lambda_max` must be of numbers other than 0 and NaN, got \[nan\]"),
        (None, [0.0, 0, 0, 0, 9], None, "`lambda_max` must be given where the graph has no Laplacian with"),
    ],
)
def test_chebconv_names_what_was_given(normalization, weight, lambda_max, message):
    """Its Laplacian has a NaN then, which nobody gave; weights of other sums stay PyG's."""
    index = torch.tensor([[0, 1, 2, 3, 2], [1, 2, 3, 0, 2]])
    conv = ChebConv(3, 2, K=3, normalization=normalization)
    given = [torch.randn(4, 3), index, None if weight is None else torch.tensor(weight)]
    for largest in (lambda_max, None if lambda_max is None else torch.tensor(lambda_max)):
        with pytest.raises(ValueError, match=message):
            conv(*given, lambda_max=largest)
    with pytest.raises(
        ValueError, match=r"`edge_index` must be an integer tensor .* does not take a sparse matrix"
    ):
        conv(given[0], torch.eye(4).to_sparse())
    theirs = pytest.importorskip("torch_geometric.nn").ChebConv(3, 2, K=3, normalization=normalization)
    theirs.load_state_dict(conv.state_dict())
    args = (*given[:2], torch.tensor([-1.0, 2, 3, 4, -9]))
    if normalization is None:
        torch.testing.assert_close(conv(*args), theirs(*args))
    args = (*given[:2], torch.tensor([1.0, 2, 3, 0, -9]))
    torch.testing.assert_close(conv(*args), theirs(*args))


@pytest.mark.parametrize("name", ["GCNConv", "SGConv", "APPNP"])
def test_a_nan_is_where_the_user_gave_it(name):
    """Loops are moved to the end, and a sparse matrix is no `edge_weight`."""
    conv = {"GCNConv": lambda: GCNConv(3, 2), "SGConv": lambda: SGConv(3, 2), "APPNP": lambda: APPNP(2, 0.1)}[
        name
    ]()
    x, index = torch.randn(4, 3), torch.tensor([[2, 0, 1], [2, 1, 3]])
    weight = torch.tensor([1.0, 1, NAN])
    with pytest.raises(ValueError, match="`edge_weight` must not be NaN, got NaN at position 2"):
        conv(x, index, weight)
    with pytest.raises(
        ValueError, match=r"`edge_index` must be a sparse matrix without NaN, got NaN at \[1, 3\]"
    ):
        conv(x, torch.sparse_coo_tensor(index, weight, (4, 4)))


def test_a_negative_degree_counts_as_0_where_pyg_answers_nan():
    index, w, x = (
        torch.tensor([[0, 1, 2, 2], [1, 2, 0, 1]]),
        torch.tensor([-3.0, 2.0, 0.5, 0.1]),
        torch.eye(3),
    )
    ours, theirs = (
        GCNConv(3, 2, bias=False),
        pytest.importorskip("torch_geometric.nn").GCNConv(3, 2, bias=False),
    )
    ours.load_state_dict(theirs.state_dict())
    found, expected = ours(x, index, w), theirs(x, index, w)
    assert expected[1].isnan().all() and not found[1].any()
    torch.testing.assert_close(found[0], expected[0])
    assert "negative degree is 0, not NaN" in " ".join(GCNConv.__doc__.split())
