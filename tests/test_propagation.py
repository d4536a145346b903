"""SGConv, APPNP, GCN2Conv, DropEdge against PyG and their formulas; weights, λ and masks that learn, in every layer."""

import pytest
import torch
from torch import nn

import amstel
from amstel.nn import APPNP, GCN, ChebConv, DropEdge, GCN2Conv, GCNConv, SGConv

N = 7


@pytest.fixture
def index():
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(0, N, (2, 20), generator=generator)
    return index[:, index[0] != index[1]]


def features(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_pygs_layers_agree(index):
    pyg = pytest.importorskip("torch_geometric.nn")
    graph, x, w = amstel.Graph.from_edge_index(index, N), features(N, 4), features(index.shape[1]).abs() + 0.1
    for width in (3, 6):
        ours, theirs = SGConv(4, width, K=3).double(), pyg.SGConv(4, width, K=3).double()
        with torch.no_grad():
            theirs.lin.weight.copy_(ours.weight.T)
            theirs.lin.bias.copy_(ours.bias)
        torch.testing.assert_close(ours(x, graph, w), theirs(x, index, w))
    torch.testing.assert_close(APPNP(4, 0.2)(x, graph, w), pyg.APPNP(4, 0.2)(x, index, w))
    for shared in (True, False):
        ours = GCN2Conv(4, 0.3, 0.5, 2, shared_weights=shared).double()
        theirs = pyg.GCN2Conv(4, 0.3, 0.5, 2, shared_weights=shared).double()
        with torch.no_grad():
            theirs.weight1.copy_(ours.weight)
            if not shared:
                theirs.weight2.copy_(ours.weight_initial)
        first = features(N, 4).flip(0)
        torch.testing.assert_close(ours(x, first, graph, w), theirs(x.clone(), first, index, w))


LAYERS = {
    "GCNConv": lambda loops: GCNConv(3, 2, self_loops=loops),
    "GCNConv, self": lambda loops: GCNConv(3, 2, self_loops=loops, self_weight=True, norm="row"),
    "SGConv": lambda loops: SGConv(3, 2, K=2, self_loops=loops),
    "APPNP": lambda loops: APPNP(2, 0.3, self_loops=loops),
    "GCN2Conv": lambda loops: GCN2Conv(3, 0.3, self_loops=loops),
    "ChebConv": lambda loops: ChebConv(3, 2, K=2, lambda_max=loops),
}


@pytest.mark.parametrize("name", LAYERS)
def test_weights_loops_and_masks_learn_in_every_layer(name, index):
    graph, x = amstel.Graph.from_edge_index(index, N), features(N, 3)
    layer = LAYERS[name](nn.Parameter(torch.tensor(1.3, dtype=torch.float64))).double()
    names = [key for key, _ in layer.named_parameters()]
    assert "self_loops" in names or "lambda_max" in names
    w, mask = (features(2, index.shape[1]).abs() + 0.2).requires_grad_()

    def call(x, w, mask, *parameters):
        inputs = (x, x.flip(0)) if isinstance(layer, GCN2Conv) else (x,)
        given = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(layer, given, (*inputs, graph, w * mask))

    leaves = [x.requires_grad_(), w, mask, *[p.detach().clone().requires_grad_() for p in layer.parameters()]]
    assert torch.autograd.gradcheck(call, leaves)


def test_a_number_and_a_parameter_are_the_same_loop(index):
    graph, x = amstel.Graph.from_edge_index(index, N), torch.randn(N, 3)
    for name, make in LAYERS.items():
        plain, learns = make(1.3), make(nn.Parameter(torch.tensor(1.3)))
        learns.load_state_dict({**learns.state_dict(), **plain.state_dict()})
        inputs = (x, x) if name == "GCN2Conv" else (x,)
        torch.testing.assert_close(plain(*inputs, graph), learns(*inputs, graph), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("order", ["transform_first", "propagate_first"])
@pytest.mark.parametrize("own", [False, True])
def test_a_bipartite_layer(index, order, own):
    graph = amstel.Graph.from_csr(torch.tensor([0, 2, 3, 5]), torch.tensor([0, 4, 2, 1, 3]), num_cols=5)
    conv = GCNConv(4, 2, order=order, self_weight=own, activation="relu").double()
    nn.init.normal_(conv.bias)
    x, target = features(5, 4), features(3, 4).flip(0)
    y = amstel.ops.spmm(graph, (x @ conv.weight, target @ conv.weight)) + conv.bias
    y = y + target @ conv.weight_self if own else y
    torch.testing.assert_close(conv((x, target), graph), y.relu())
    with pytest.raises(ValueError, match="pair"):
        conv((x, None), graph)
    with pytest.raises(ValueError, match="`x` must be"):
        conv((x, features(4, 4)), graph)


def test_one_lambda_max_a_graph():
    parts = [torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), torch.tensor([[0, 1], [1, 0]])]
    whole = amstel.Graph.from_edge_index(torch.cat([parts[0], parts[1] + 3], 1), 5)
    conv, x = ChebConv(3, 2, K=3).double(), features(5, 3)
    largest = torch.tensor([1.5, 1.9], dtype=torch.float64, requires_grad=True)
    batch = torch.tensor([0, 0, 0, 1, 1])
    y = conv(x, whole, lambda_max=largest, batch=batch)
    for k, rows in enumerate((slice(0, 3), slice(3, 5))):
        one = ChebConv(3, 2, K=3, lambda_max=float(largest[k])).double()
        one.load_state_dict(conv.state_dict())
        torch.testing.assert_close(y[rows], one(x[rows], parts[k]))
    assert torch.autograd.gradcheck(lambda v: conv(x, whole, lambda_max=v, batch=batch), largest)
    joined = amstel.Graph.batch([amstel.Graph.from_edge_index(part) for part in parts])
    torch.testing.assert_close(conv(x, joined, lambda_max=largest), y)  # a batch knows whose a node is
    with pytest.raises(ValueError, match=r"`lambda_max` must be one number, or \[2\]"):
        conv(x, joined, lambda_max=largest[[0, 1, 1]])
    for bad, message in (
        ({"lambda_max": largest}, "with `batch` one per graph"),
        ({"lambda_max": largest, "batch": batch + 1}, "`batch` must be"),
        ({"lambda_max": largest - 1.5}, "`lambda_max` must be"),
        ({"lambda_max": float("nan")}, "`lambda_max` must be"),
    ):
        with pytest.raises(ValueError, match=message):
            conv(x, whole, **bad)


def test_drop_edge_masks_weights(index):
    graph = amstel.Graph.from_edge_index(index.repeat(1, 200), N)
    drop = DropEdge(0.3)
    w = torch.rand(graph.num_edges, requires_grad=True)
    torch.manual_seed(0)
    left = drop(graph, w)
    kept = left != 0
    assert abs(float(kept.float().mean()) - 0.7) < 0.03 and torch.equal(left[kept], w[kept])
    assert torch.equal(torch.autograd.grad(left.sum(), w)[0], kept.float())
    small = amstel.Graph.from_edge_index(index, N)
    x, mask = torch.randn(N, 3), (torch.arange(index.shape[1]) % 3 > 0).float()
    without = amstel.Graph.from_edge_index(index[:, mask > 0], N)
    torch.testing.assert_close(amstel.ops.spmm(small, x, mask), amstel.ops.spmm(without, x))
    assert drop.eval()(graph) is None and drop(graph, w) is w
    with pytest.raises(ValueError, match="`p` must be in"):
        DropEdge(1.0)
    edges = small.num_edges
    for bad in (
        torch.ones(edges, 1),
        torch.ones(edges - 1),
        torch.ones(edges, dtype=torch.int64),
        [1.0] * edges,
    ):
        for mode in (True, False):
            with pytest.raises(
                (ValueError, TypeError), match="`edge_weight` must be a floating-point tensor"
            ):
                drop.train(mode)(small, bad)
    with pytest.raises(TypeError, match="`graph` must be an amstel"):
        drop(index)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_drop_edge_has_the_dtype_of_its_layer(index, dtype):
    for own in (None, torch.rand(index.shape[1]).double()):
        graph = amstel.Graph.from_edge_index(index, N, own)
        x = features(N, 3).to(dtype)
        assert GCN(3, 4, 2, drop_edge=0.5, dtype=dtype)(x, graph).dtype == dtype
        assert DropEdge(0.5)(graph, dtype=dtype).dtype == dtype
    large = amstel.Graph.from_edge_index(index, N, torch.full((index.shape[1],), 1e6))
    with pytest.raises(ValueError, match="which float16 cannot"):
        DropEdge(0.5)(large, dtype=torch.float16)
    with pytest.raises(ValueError, match="`dtype` must be"):
        DropEdge(0.5)(large, dtype=torch.int64)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_features_that_are_no_floating_point_are_refused(index, dtype):
    graph, x = amstel.Graph.from_edge_index(index, N), torch.ones(N, 3, dtype=dtype)
    pair = amstel.Graph.from_csr(torch.tensor([0, 1]), torch.tensor([1]), num_cols=N)
    layers = [make(1.0) for make in LAYERS.values()] + [GCN(3, 4, 2), amstel.nn.GAE(3, 4, 2)]
    for layer in layers:
        inputs = (x, x) if isinstance(layer, GCN2Conv) else (x,)
        with pytest.raises(ValueError, match="`x` must be"):
            layer(*inputs, graph)
    with pytest.raises(ValueError, match="`x` must be"):
        GCNConv(3, 2)((x, x[:1]), pair)


def test_residual_and_jumping_connections(index):
    graph, x = amstel.Graph.from_edge_index(index, N), torch.randn(N, 5)
    model = GCN(5, 8, 3, num_layers=3, residual=True, jumping="cat").eval()
    h = [model.layers[0](x, graph)]
    for layer in model.layers[1:]:
        h.append(layer(h[-1], graph) + h[-1])
    torch.testing.assert_close(model(x, graph), model.head(torch.cat(h, 1)))
    largest = GCN(5, 8, 3, num_layers=3, residual=True, jumping="max").eval()
    largest.layers.load_state_dict(model.layers.state_dict())
    torch.testing.assert_close(largest(x, graph), largest.head(torch.stack(h).amax(0)))
    for dtype in (torch.float64, torch.bfloat16):  # the ones that stay are of the model's dtype
        of_dtype = GCN(5, 8, 3, dropout=0.0, drop_edge=0.5, dtype=dtype)
        assert of_dtype(x.to(dtype), graph).dtype == dtype
    dropped = GCN(5, 8, 3, dropout=0.0, drop_edge=0.5)
    assert not torch.equal(dropped(x, graph), dropped(x, graph))
    assert torch.equal(dropped.eval()(x, graph), dropped(x, graph))
    assert list(GCN(5, 8, 3).state_dict()) == ["layers.0.weight", "layers.1.weight"]  # as before
    with pytest.raises(ValueError, match="`jumping` must be"):
        GCN(5, 8, 3, jumping="last")


def test_one_lambda_of_any_shape_and_under_vmap():
    graph, x = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 2], [1, 0, 1]])), torch.randn(3, 4)
    conv = amstel.nn.ChebConv(4, 2, K=2, lambda_max=1.7)
    expected = conv(x, graph)
    learned = amstel.nn.ChebConv(4, 2, K=2, lambda_max=torch.nn.Parameter(torch.full((1, 1), 1.7)))
    learned.load_state_dict(conv.state_dict(), strict=False)
    torch.testing.assert_close(learned(x, graph), expected)
    values = torch.tensor([1.7, 1.2])
    found = torch.func.vmap(lambda value: conv(x, graph, lambda_max=value))(values)
    torch.testing.assert_close(found, torch.stack([expected, conv(x, graph, lambda_max=1.2)]))
