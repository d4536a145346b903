"""amstel.ops.spmm against the plain PyTorch reference, SciPy and torch_geometric; the operator contract."""

import gc
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import amstel
from amstel import reference
from amstel.ops.spmm import NORMS
from amstel.testing import TOLERANCE, assert_close
from tests.conftest import ROOT

DTYPES = list(TOLERANCE)
# 0, 1, odd, and around every vector width up to 64 elements and the tiles of 8 and 16 of them.
WIDTHS = [0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 64, 100, 129, 300]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


def random_edges(nodes=37, edges=200, seed=0):
    """Directed, with duplicates and loops, without edges into node 3."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(0, nodes, (2, edges), generator=generator)
    index[:, :5] = index[:, 5:10]
    index[:, 10:14] = torch.arange(4, 8)
    index[1][index[1] == 3] = 4
    weight = torch.rand(edges, generator=generator, dtype=torch.float64) + 0.1
    return index, weight


def make(weighted="none", nodes=37, edges=200, device="cpu"):
    index, weight = random_edges(nodes, edges)
    own = weight if weighted == "own" else None
    graph = amstel.Graph.from_edge_index(index, nodes, own).to(device)
    return graph, weight.to(device) if weighted == "call" else None


def leaf(*shape, dtype=torch.float64, seed=1, device="cpu"):
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.to(dtype).to(device).requires_grad_()


def compare(graph, x, weight, dtype, **options):
    """Output and all first gradients in `dtype` against the reference in float64, from the same inputs."""
    inputs = [x] + [t for t in (weight, options.get("bias")) if t is not None]
    low = [t.detach().to(dtype).requires_grad_() for t in inputs]
    high = [t.detach().double().requires_grad_() for t in low]

    def arguments(tensors):
        rest = list(tensors[1:])
        w = rest.pop(0) if weight is not None else None
        return tensors[0], w, {**options, "bias": rest.pop(0) if rest else None}

    lx, lw, lo = arguments(low)
    hx, hw, ho = arguments(high)
    y = amstel.ops.spmm(graph, lx, lw, **lo)
    expected = reference.spmm(graph, hx, hw, **ho)
    assert y.dtype == dtype and y.is_contiguous()
    assert_close(y, expected)
    if options.get("activation") and dtype != torch.float64:
        return  # the sign of a rounded zero decides about a whole row of the gradient
    grad = torch.randn_like(expected).to(dtype)
    for ours, theirs in zip(
        torch.autograd.grad(y, low, grad), torch.autograd.grad(expected, high, grad.double()), strict=True
    ):
        assert ours.dtype == dtype
        assert_close(ours, theirs)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("weighted", ["none", "own", "call"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_and_gradients(dtype, norm, weighted, device):
    """Products and their gradients are those of plain PyTorch in float64, for every option."""
    graph, weight = make(weighted, device=device)
    if weighted == "own" and dtype in (torch.bfloat16, torch.float16):
        # The reference sees the weights as the operator does: cast to the dtype of x.
        index, own = random_edges()
        graph = amstel.Graph.from_edge_index(index, 37, own.to(dtype)).to(device)
    for self_loops, activation, features in itertools.product((0.0, 1.0, 0.5), (None, "relu"), (16, 21)):
        x, bias = leaf(37, features, device=device), leaf(features, seed=2, device=device)
        options = {"norm": norm, "self_loops": self_loops, "activation": activation}
        compare(graph, x, weight, dtype, bias=bias, **options)
        compare(graph, leaf(2, 37, features, device=device), weight, dtype, **options)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("features", WIDTHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_width(dtype, features, device):
    """Every number of features, of whole vectors and with a rest, gives the values of plain PyTorch."""
    for weighted in ("none", "call"):
        graph, weight = make(weighted, device=device)
        bias = leaf(features, seed=2, device=device)
        compare(graph, leaf(37, features, device=device), weight, dtype, bias=bias)


@pytest.mark.parametrize("device", DEVICES)
def test_many_rows_and_a_hub(device):
    """So does a graph large enough for threads and prefetching, with one row that has most of the edges."""
    nodes, edges = 3000, 20000
    index, weight = random_edges(nodes, edges)
    index[1, :9000] = 17
    graph = amstel.Graph.from_edge_index(index, nodes).to(device)
    for dtype in (torch.float32, torch.bfloat16):
        low_weight = weight.to(device)
        compare(graph, leaf(nodes, 96, device=device), low_weight, dtype)


@pytest.mark.parametrize("weighted", ["none", "own", "call"])
@pytest.mark.parametrize(
    "nodes, degree, features, dtype",
    [
        (600, 12, 521, torch.float32),  # panels, the last one narrow
        (600, 12, 300, torch.float64),
        (1200, 12, 520, torch.bfloat16),
        (600, 6, 521, torch.float32),  # no panels: 8, 4, 2 and 1 rows at a time
        (600, 6, 300, torch.float64),
        (1200, 6, 520, torch.float16),
        (17_000, 8, 256, torch.float32),  # more panels than are copied at once, a result past the caches
        (17_000, 2, 256, torch.float32),  # that alone
        (17_000, 2, 512, torch.bfloat16),
    ],
)
def test_wide_features_have_the_bits_of_narrow_ones(nodes, degree, features, dtype, weighted):
    """However wide rows are multiplied, every feature is the same sum."""
    graph, weight = make(weighted, nodes, nodes * degree)
    weight = None if weight is None else weight.to(dtype)
    x, bias = leaf(2, nodes, features, dtype=dtype).detach(), leaf(features, dtype=dtype, seed=2).detach()
    x = x[:1] if nodes > 10_000 else x
    y = amstel.ops.spmm(graph, x, weight, bias=bias, activation="relu")
    for k in range(0, features, 64):
        part = slice(k, k + 64)
        narrow = amstel.ops.spmm(graph, x[..., part], weight, bias=bias[part], activation="relu")
        assert torch.equal(y[..., part], narrow)


@pytest.mark.parametrize("weighted", ["none", "call"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("nodes", [20, 63, 64, 65, 200, 12_000])
def test_narrow_features_have_the_bits_of_wide_ones(nodes, dtype, weighted):
    """Rows of few edges and features are taken by their degree, 64 at a time; sums do not change by that."""
    graph, weight = make(weighted, nodes, 3 * nodes)
    weight = None if weight is None else weight.to(dtype)
    x = leaf(nodes, 200, dtype=dtype).detach()
    for self_loops in (0.0, 1.0):
        y = amstel.ops.spmm(graph, x, weight, self_loops=self_loops)
        for features in (1, 7, 16, 33):
            found = amstel.ops.spmm(graph, x[:, :features], weight, self_loops=self_loops)
            assert torch.equal(found, y[:, :features])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_strided_inputs(dtype):
    graph, weight = make("call")
    wide = torch.randn(37, 64, dtype=torch.float64).to(dtype)
    batch = torch.randn(37, 3, 16, dtype=torch.float64).to(dtype)
    for x in (
        wide[:, 5:26],
        wide[:, ::2],
        torch.randn(16, 37).to(dtype).T,
        batch.permute(1, 0, 2),
        wide[:1].expand(37, 64),
    ):
        strided_weight = torch.stack([weight, weight], 1).to(dtype)[:, 0]
        assert not strided_weight.is_contiguous()
        y = amstel.ops.spmm(graph, x, strided_weight)
        assert torch.equal(y, amstel.ops.spmm(graph, x.contiguous(), strided_weight.contiguous()))
        assert_close(y, reference.spmm(graph, x.double(), strided_weight.double()))


@pytest.mark.parametrize("norm", ["none", "row"])
def test_rectangular(norm):
    A = scipy.sparse.random(30, 50, density=0.1, random_state=0, format="csr")
    graph = amstel.Graph.from_scipy(A)
    assert (graph.num_rows, graph.num_cols) == (30, 50)
    x = leaf(50, 9)
    y = amstel.ops.spmm(graph, x, norm=norm, self_loops=0)
    degree = np.asarray(A.sum(1))
    dense = (
        A.toarray()
        if norm == "none"
        else np.divide(A.toarray(), degree, where=degree > 0, out=np.zeros(A.shape))
    )
    assert_close(y, torch.from_numpy(dense) @ x)
    grad = torch.randn_like(y)
    assert_close(torch.autograd.grad(y, x, grad)[0], torch.from_numpy(dense.T.copy()) @ grad)
    for loops in (1, torch.tensor(1.0)):
        with pytest.raises(ValueError, match="rectangular graph takes `self_loops` 0"):
            amstel.ops.spmm(graph, x, norm=norm, self_loops=loops)


@pytest.mark.parametrize("nodes", [0, 1, 5])
def test_no_edges(nodes):
    graph = amstel.Graph.from_edge_index(torch.empty(2, 0, dtype=torch.int64), nodes)
    x = leaf(nodes, 6)
    weight = torch.empty(0, dtype=torch.float64, requires_grad=True)
    for norm in NORMS:
        y = amstel.ops.spmm(graph, x, weight, norm=norm)
        assert torch.equal(y, x)  # the loop of weight 1 is all there is
        grads = torch.autograd.grad(y.sum(), (x, weight))
        assert torch.equal(grads[0], torch.ones_like(x)) and grads[1].shape == (0,)
        assert not amstel.ops.spmm(graph, x, norm=norm, self_loops=0).any()


def test_empty_batch():
    graph, weight = make("call")
    weight = weight.requires_grad_()
    x = leaf(0, 37, 4)
    y = amstel.ops.spmm(graph, x, weight)
    assert y.shape == (0, 37, 4)
    y.sum().backward()
    assert x.grad.shape == x.shape and not weight.grad.any()


def test_scipy_agrees():
    index, weight = random_edges()
    A = scipy.sparse.coo_array((weight.numpy(), (index[1].numpy(), index[0].numpy())), shape=(37, 37)).tocsr()
    x = torch.randn(37, 8, dtype=torch.float64)
    Ã = A + scipy.sparse.eye_array(37)
    degree = np.asarray(Ã.sum(1)).ravel()
    D = scipy.sparse.diags_array(degree**-0.5)
    expected = D @ Ã @ D @ x.numpy()
    graph = amstel.Graph.from_edge_index(index, 37, weight)
    assert_close(amstel.ops.spmm(graph, x), torch.from_numpy(expected))
    assert_close(amstel.ops.spmm(amstel.Graph.from_scipy(A), x), torch.from_numpy(expected))


def test_torch_geometric_agrees_on_a_directed_weighted_graph():
    from torch_geometric.nn import GCNConv

    index, weight = random_edges()
    index, weight = index[:, index[0] != index[1]], weight[index[0] != index[1]]
    conv = GCNConv(8, 8, bias=False).double()
    x = torch.randn(37, 8, dtype=torch.float64)
    expected = conv(x, index, weight)
    graph = amstel.Graph.from_edge_index(index, 37, weight)
    assert_close(amstel.ops.spmm(graph, conv.lin(x)), expected.detach())


def test_degree_not_positive_gives_zero():
    # Node 1 has in-degree -1 + 1 = 0, node 2 has -2 + 1 < 0.
    graph = amstel.Graph.from_edge_index(torch.tensor([[0, 0], [1, 2]]), 3)
    x = torch.ones(3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([-1.0, -2.0], dtype=torch.float64, requires_grad=True)
    for norm in ("sym", "row", "sym_inout"):
        y = amstel.ops.spmm(graph, x, weight, norm=norm)
        assert not y[1:].any() and y[0].isfinite().all()
        assert all(g.isfinite().all() for g in torch.autograd.grad(y.sum(), (x, weight)))


@pytest.mark.parametrize("norm", NORMS)
def test_gradcheck_and_gradgradcheck(norm):
    graph, weight = make("call", nodes=9, edges=25)
    weight = weight.requires_grad_()
    x, bias = leaf(9, 3), leaf(3, seed=5)

    def f(x, weight, bias):
        return amstel.ops.spmm(graph, x, weight, norm=norm, self_loops=0.7, bias=bias, activation="relu")

    torch.autograd.gradcheck(f, (x, weight, bias))
    torch.autograd.gradgradcheck(f, (x, weight, bias))
    batch = leaf(2, 9, 3)
    torch.autograd.gradcheck(f, (batch, weight, bias))
    torch.autograd.gradgradcheck(f, (batch, weight, bias))
    own = amstel.Graph.from_edge_index(random_edges(9, 25)[0], 9, weight.detach())
    torch.autograd.gradgradcheck(lambda x: amstel.ops.spmm(own, x, norm=norm), (x,))
    # A weight whose x needs no gradient, and the other way round.
    for inputs in ((x.detach(), weight, bias), (x, weight.detach(), bias)):
        torch.autograd.gradcheck(f, inputs)
        torch.autograd.gradgradcheck(f, inputs)


def test_bits_do_not_depend_on_threads_or_runs():
    nodes, edges = 2000, 30000
    index, weight = random_edges(nodes, edges)
    index[1, :5000] = 3
    threads = torch.get_num_threads()
    results = []
    try:
        for n in (1, 2, 3, 7, 1):
            torch.set_num_threads(n)
            graph = amstel.Graph.from_edge_index(index, nodes)
            x, w, b = (
                leaf(nodes, 50, dtype=torch.float32),
                weight.float().requires_grad_(),
                leaf(50, dtype=torch.float32),
            )
            y = amstel.ops.spmm(graph, x, w, norm="sym_inout", bias=b, activation="relu")
            grad = torch.linspace(-1, 1, y.numel()).reshape(y.shape)
            results.append((graph.crow, graph.col, graph.edge, y, *torch.autograd.grad(y, (x, w, b), grad)))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for first, second in zip(results[0], other, strict=True):
            assert torch.equal(first, second)


def test_autocast():
    graph, weight = make("call")
    x, bias = leaf(37, 16, dtype=torch.float32), leaf(16, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = amstel.ops.spmm(graph, x, weight.float(), bias=bias)
    assert y.dtype == torch.bfloat16
    # Weights are not rounded before they are summed and normalized.
    assert torch.equal(y, amstel.ops.spmm(graph, x, weight.float(), bias=bias).bfloat16())
    y.float().sum().backward()
    assert x.grad.dtype == torch.float32


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("weighted", ["none", "own", "call"])
def test_compile_a_graph_never_used_before(weighted, dynamic):
    torch._dynamo.reset()

    @torch.compile(fullgraph=True, backend="aot_eager", dynamic=dynamic)
    def f(graph, x, weight, bias):
        return (
            amstel.ops.spmm(graph, torch.sin(x), weight, norm="sym_inout", bias=bias, activation="relu") * 2
        )

    for nodes in (37, 41):
        graph, weight = make(weighted, nodes=nodes)
        weight = weight.requires_grad_() if weight is not None else None
        x, bias = leaf(nodes, 7), leaf(7)
        inputs = [t for t in (x, weight, bias) if t is not None]
        y = f(graph, x, weight, bias)
        expected = (
            reference.spmm(graph, torch.sin(x), weight, norm="sym_inout", bias=bias, activation="relu") * 2
        )
        assert_close(y, expected)
        grad = torch.randn_like(expected)
        for ours, theirs in zip(
            torch.autograd.grad(y, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True
        ):
            assert_close(ours, theirs)


def test_compile_with_inductor():
    torch._dynamo.reset()
    graph, _ = make()
    x = leaf(37, 16, dtype=torch.float32)
    compiled = torch.compile(
        lambda x: amstel.ops.spmm(graph, x.relu(), activation="relu") + 1, fullgraph=True
    )
    expected = amstel.ops.spmm(graph, x.relu(), activation="relu") + 1
    assert_close(compiled(x), expected)
    assert_close(torch.autograd.grad(compiled(x).sum(), x)[0], torch.autograd.grad(expected.sum(), x)[0])


def test_export():
    graph, _ = make("own")

    class Model(torch.nn.Module):
        def forward(self, x):
            return amstel.ops.spmm(graph, x, activation="relu")

    features = torch.export.Dim("features", min=2)
    x = torch.randn(37, 8)
    program = torch.export.export(Model(), (x,), dynamic_shapes=({1: features},))
    wide = torch.randn(37, 11)
    assert torch.equal(program.module()(wide), Model()(wide))


def operator_samples():
    """One call of every operator with everything switched on, as (name, arguments)."""
    graph, weight = make("call", nodes=9, edges=25)
    crow_t, col_t, edge_t = graph.transposed()
    index = random_edges(9, 25)[0]
    row_scale, col_scale = graph.scales("sym_inout", 1.0, torch.float64)
    x, grad = torch.randn(9, 5, dtype=torch.float64), torch.randn(9, 5, dtype=torch.float64)
    g, bias = graph, torch.randn(5, dtype=torch.float64)
    return [
        ("csr_from_coo", (index[1].contiguous(), index[0].contiguous(), 9, 9, weight)),
        ("csr_transpose", (g.crow, g.col, g.edge, 9)),
        ("edge_sum", (g.crow, g.edge, weight, weight)),
        ("edge_add", (g.crow, g.col, g.edge, weight, row_scale, col_scale, torch.float64)),
        ("spmm", (g.crow, g.col, g.edge, weight, x, row_scale, col_scale, 1.0, bias, True, True)),
        ("spmm", (g.crow, g.col, None, None, x[None], None, None, 0.0, None, False, False)),
        ("spmm_grad", (crow_t, col_t, edge_t, weight, grad, x, row_scale, col_scale, 1.0, True)),
        ("spmm_grad", (crow_t, col_t, edge_t, None, grad, x, None, None, 0.0, False)),
        ("epilogue_grad", (grad, x)),
        ("epilogue_grad", (grad, None)),
    ]


@pytest.mark.parametrize("case", range(len(operator_samples())))
def test_opcheck(case):
    name, arguments = operator_samples()[case]
    torch.library.opcheck(getattr(torch.ops.amstel, name).default, arguments)


def test_operators_raise_on_what_does_not_fit():
    # The raw operators stand alone: a wrong tensor is an error, not a crash.
    for name, arguments in operator_samples():
        if None in arguments[4:]:
            continue  # without the factors nothing says how many nodes there are
        op = getattr(torch.ops.amstel, name).default
        for i, argument in enumerate(arguments):
            if not isinstance(argument, torch.Tensor) or argument.dim() == 0:
                continue
            for bad in (argument[..., None], argument.to(torch.complex64), argument[:0]):
                if name == "epilogue_grad" and i == 0 and bad.dtype != torch.complex64:
                    continue  # any shape will do
                if name == "edge_add" and i == 5 and bad.shape == (0,):
                    continue  # its length is that of no other argument
                with pytest.raises(RuntimeError, match=r"must|needs|index"):
                    op(*arguments[:i], bad, *arguments[i + 1 :])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_kept_product_is_the_product(dtype):
    graph, weight = make("call", nodes=9, edges=25)
    sums = torch.float64 if dtype == torch.float64 else torch.float32
    row, col = graph.scales("sym_inout", 1.0, sums)
    x = torch.randn(2, 9, 5).to(dtype)
    keep, kept = torch.ops.amstel.spmm_keep.default, torch.ops.amstel.spmm_kept.default
    arrays = [(graph.crow, graph.col, graph.edge, weight.to(dtype)), (graph.crow, graph.col, None, None)]
    found, expected, numbers = [], [], []
    for (a, loops, relu), of in itertools.product(
        itertools.product(arrays, (0.0, 1.5), (False, True)), (x, x[0])
    ):
        numbers.append(keep(*a, row, col, 9, loops, relu))
        found.append((numbers[-1], of))
        expected.append(torch.ops.amstel.spmm(*a, of, row, col, loops, None, relu, False))
    for (number, of), y in zip(found, expected, strict=True):
        assert torch.equal(kept(of, int(number), 9), y)
    torch.library.opcheck(kept, (x, int(numbers[0]), 9))
    torch.library.opcheck(keep, (*arrays[0], row, col, 9, 1.0, True), test_utils=("test_schema",))


def test_a_kept_product_checks_what_it_is_given_and_goes_with_its_tensor():
    graph, _ = make(nodes=9, edges=25)
    x, kept = torch.randn(9, 5), torch.ops.amstel.spmm_kept.default
    number = torch.ops.amstel.spmm_keep(graph.crow, graph.col, None, None, None, None, 9, 0.0, False)
    for wrong in (x[1:], x[0], x[None, None], x.long(), x.to(torch.complex64)):
        with pytest.raises(RuntimeError, match="`x` must"):
            kept(wrong, int(number), 9)
    with pytest.raises(RuntimeError, match="`rows` must be 9, got 8"):
        kept(x, int(number), 8)
    value, view = int(number), number.view(1)
    del number
    assert kept(x, value, 9).shape == (9, 5)
    del view
    for gone in (value, -1, 2**62):
        with pytest.raises(RuntimeError, match=f"`product` must be a number of spmm_keep.*got {gone}"):
            kept(x, gone, 9)


def test_a_graph_lets_go_of_its_products():
    """Of those that it forgets, and of all when it goes; another thread may be using them."""
    graph, x = make()[0], torch.randn(37, 3)
    amstel.ops.spmm(graph, x)
    first = graph._kept_products[torch.float32, "sym", 1.0, None][0]
    for k in range(20):
        amstel.ops.spmm(graph, x, self_loops=k / 7)
    last = graph._kept_products[torch.float32, "sym", 19 / 7, None][0]
    del graph
    gc.collect()
    for number in (first, last):
        with pytest.raises(RuntimeError, match="product"):
            torch.ops.amstel.spmm_kept(x, number, 37)


def test_a_process_forks_while_threads_use_kept_products():
    """The lock of their table must not stay closed in the child."""
    code = """if True:
        import os, signal, threading, time, torch, amstel
        torch.set_num_threads(1)
        def make():
            return amstel.Graph.from_edge_index(torch.tensor([[0, 1], [1, 0]]))
        graph, x = make(), torch.randn(2, 1)
        amstel.ops.spmm(graph, x)
        done = []
        def work(own):
            while not done:
                amstel.ops.spmm(own, x)
        threads = [threading.Thread(target=work, args=(make(),)) for _ in range(3)]
        [t.start() for t in threads]
        end = time.time() + 4
        while time.time() < end:
            child = os.fork()
            if child == 0:
                signal.alarm(60)  # a child that waits forever is killed
                amstel.ops.spmm(graph, x), amstel.ops.spmm(make(), x)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0, "the child did not come to its end"
        done.append(True)
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)


@pytest.mark.parametrize("pre_dispatch", [False, True])
def test_who_writes_programs_down_finds_the_operator(pre_dispatch):
    """A number of this process is no part of a program, of the first call or of a later one."""
    graph, x = make()[0], torch.randn(37, 3)
    amstel.ops.spmm(graph, x, bias=torch.zeros(3))  # prepared, with nothing kept yet
    for _ in range(2):
        program = make_fx(lambda t: amstel.ops.spmm(graph, t), pre_dispatch=pre_dispatch)(x)
        called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
        assert called == ["amstel.spmm.default"]
        assert torch.equal(program(x), amstel.ops.spmm(graph, x))


def bad_calls():
    graph, _ = make()
    x, w = torch.randn(37, 4), torch.rand(200)
    nan = w.clone()
    nan[11] = float("nan")
    return [
        (TypeError, "`graph` must be an amstel.Graph, got float32", (x, x), {}),
        (TypeError, r"`x` must be a tensor \[N, F\]", (graph, None), {}),
        (ValueError, r"`x` must be \[37, F\].*got float32 \[36, 4\]", (graph, x[1:]), {}),
        (ValueError, "`x` must be.*got float32", (graph, x[0]), {}),
        (ValueError, "`x` must be a dense.*got int64", (graph, x.long()), {}),
        (ValueError, "`x` must be a dense.*got sparse_csr", (graph, x.to_sparse_csr()), {}),
        (ValueError, "`x` must be on cpu like the graph, got float32.*meta", (graph, x.to("meta")), {}),
        (ValueError, r"`edge_weight` must be float32 \[200\]", (graph, x, w[1:]), {}),
        (ValueError, r"`edge_weight` must be float32 \[200\].*got float64", (graph, x, w.double()), {}),
        (ValueError, "`edge_weight` must not be NaN, got NaN at position 11", (graph, x, nan), {}),
        (
            ValueError,
            r"`bias` must be float32 \[4\].*got float64",
            (graph, x),
            {"bias": torch.zeros(4).double()},
        ),
        (
            ValueError,
            r"`bias` must be float32 \[4\].*got float32 \[5\]",
            (graph, x),
            {"bias": torch.zeros(5)},
        ),
        (ValueError, "`norm` must be one of .*'sym'.*got 'max'", (graph, x), {"norm": "max"}),
        (ValueError, "`activation` must be None or 'relu', got 'tanh'", (graph, x), {"activation": "tanh"}),
        (
            ValueError,
            "`self_loops` must be a finite number, got nan",
            (graph, x),
            {"self_loops": float("nan")},
        ),
        (ValueError, "`self_loops` must be a finite number, got 'yes'", (graph, x), {"self_loops": "yes"}),
    ]


@pytest.mark.parametrize("case", range(len(bad_calls())))
def test_bad_input(case):
    error, message, arguments, options = bad_calls()[case]
    with pytest.raises(error, match=message):
        amstel.ops.spmm(*arguments, **options)


def test_a_remembered_call_is_checked_and_watched_as_the_first():
    graph = make()[0]
    x = torch.randn(37, 5, generator=torch.Generator().manual_seed(3))
    y = amstel.ops.spmm(graph, x)
    assert torch.equal(amstel.ops.spmm(graph, x), y)
    for wrong in (x[1:], x[0], x.to_sparse(), x.to("meta")):
        with pytest.raises(ValueError, match="`x`"):
            amstel.ops.spmm(graph, wrong)
    with pytest.raises(TypeError, match="`self_loops`"):
        amstel.ops.spmm(graph, x, self_loops=True)
    with pytest.raises(ValueError, match="`activation`"):
        amstel.ops.spmm(graph, x, activation="")
    with pytest.raises((ValueError, TypeError), match="`norm`"):
        amstel.ops.spmm(graph, x, norm=["sym"])
    assert torch.equal(amstel.ops.spmm(graph, torch.stack([x, -x])), torch.stack([y, -y]))
    assert amstel.ops.spmm(graph, x.clone().requires_grad_()).requires_grad
    assert_close(
        torch.vmap(lambda one: amstel.ops.spmm(graph, one))(torch.stack([x, -x])), torch.stack([y, -y])
    )
    tangent = torch.func.jvp(lambda one: amstel.ops.spmm(graph, one), (x,), (x,))[1]
    assert_close(tangent, y)
    with torch.autocast("cpu", torch.bfloat16):
        assert amstel.ops.spmm(graph, x).dtype == torch.bfloat16


def test_nan_features_stay_in_their_rows():
    graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1], [1, 2]]), 3)
    x = torch.ones(3, 20)
    x[0] = float("nan")
    y = amstel.ops.spmm(graph, x, activation="relu")
    assert y[:2].isnan().all() and y[2].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_rounding_of_short_types_is_torch_s(dtype):
    # A graph without edges copies x through float32; every bit pattern survives, every sum rounds to even.
    every = torch.arange(2**16).to(torch.uint16).view(dtype).reshape(-1, 64)
    graph = amstel.Graph.from_edge_index(torch.empty(2, 0, dtype=torch.int64), every.shape[0])
    copied = amstel.ops.spmm(graph, every, norm="none")
    nan = every.isnan()
    assert torch.equal(copied.isnan(), nan) and torch.equal(copied[~nan], every[~nan])
    bias = torch.linspace(-3, 3, 64).to(dtype)
    finite = every.masked_fill(~every.isfinite(), 0)
    for features in (64, 13, 6, 1):
        ours = amstel.ops.spmm(graph, finite[:, :features], norm="none", bias=bias[:features])
        assert torch.equal(ours, (finite[:, :features].float() + bias[:features].float()).to(dtype))


def test_memory_has_no_edge_sized_floats(tmp_path):
    # 2 million edges, 4 features: a buffer of E floats would be 8 MB, one of E x F 32 MB.
    script = tmp_path / "peak.py"
    script.write_text(
        "import resource, torch, amstel\n"
        "index = torch.randint(0, 1000, (2, 2_000_000))\n"
        "graph = amstel.Graph.from_edge_index(index, 1000)\n"
        "x = torch.randn(1000, 4, requires_grad=True)\n"
        "graph.transposed()\n"
        "run = lambda g: amstel.ops.spmm(g, x, bias=torch.ones(4), activation='relu').sum().backward()\n"
        "run(amstel.Graph.from_edge_index(index[:, :5], 1000))  # pages of code and threads come in once\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "ballast = torch.ones(100_000_000, dtype=torch.uint8); del ballast\n"
        "before = peak(); held = torch.ones(100_000_000 + 0, dtype=torch.uint8); base = peak()\n"
        "run(graph)\n"
        "print(peak() - base)\n"
    )
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 4000, f"{run.stdout} KB"


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["base", "avx2"])
def test_on_every_instruction_set(isa):
    """The value tests again in a process of their own with narrower kernels."""
    widest = torch.ops.amstel.cpu_isa()
    if "AMSTEL_LIBRARY" in os.environ or isa == widest:
        return  # this run is on it, or on no CPU kernel at all
    probe = subprocess.run(
        [sys.executable, "-c", "import torch, amstel; print(torch.ops.amstel.cpu_isa())"],
        env={**os.environ, "AMSTEL_CPU_ISA": isa}, capture_output=True, text=True,
    )  # fmt: skip
    if probe.returncode:
        assert "must be one of" in probe.stderr, probe.stderr
        return
    assert probe.stdout.strip() == isa
    names = "values or every_width or many_rows or strided or rounding or scipy or nan_features"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not cuda", __file__, "-k", names],
        env={**os.environ, "AMSTEL_CPU_ISA": isa}, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-3000:]


def test_unknown_instruction_set_is_an_error():
    run = subprocess.run(
        [sys.executable, "-c", "import torch, amstel; torch.ops.amstel.cpu_isa()"],
        env={**os.environ, "AMSTEL_CPU_ISA": "sse9"}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode != 0
    assert "AMSTEL_CPU_ISA must be one of" in run.stderr and "got 'sse9'" in run.stderr


@pytest.mark.parametrize("weighted", [True, False])
def test_degrees_beyond_float16_have_higher_derivatives(weighted):
    """Degrees are summed in float32, also where the gradient is itself differentiated."""
    if weighted:
        index, weight = (
            torch.stack([torch.arange(3), torch.zeros(3, dtype=torch.long)]),
            torch.full((3,), 30000.0),
        )
        weight = weight.half().requires_grad_()
        graph, norm = amstel.Graph.from_edge_index(index, 3), "row"
    else:
        index = torch.stack([torch.arange(70001), torch.zeros(70001, dtype=torch.long)])
        graph, weight, norm = amstel.Graph.from_edge_index(index, 70001), None, "sym"
    x = torch.ones(graph.num_nodes, 1, dtype=torch.half, requires_grad=True)
    y = 1000 * amstel.ops.spmm(graph, x, weight, norm=norm)[:1].sum()
    leaves = [x] if weight is None else [x, weight]
    first = torch.autograd.grad(y, leaves, retain_graph=True)
    for plain, again in zip(first, torch.autograd.grad(y, leaves, create_graph=True), strict=True):
        torch.testing.assert_close(again, plain, rtol=5e-3, atol=1e-2)


def test_the_reference_refuses_what_it_does_not_compute():
    graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1], [1, 0]]))
    flat = amstel.Graph.from_csr(torch.tensor([0, 2]), torch.tensor([0, 1]), num_cols=2)
    x = torch.eye(2)
    with pytest.raises(ValueError, match=r"`norm` must be one of 'sym', .*, got 'symmetric'"):
        reference.spmm(graph, x, norm="symmetric")
    with pytest.raises(ValueError, match="`activation` must be None or 'relu', got 'elu'"):
        reference.spmm(graph, x, activation="elu")
    with pytest.raises(ValueError, match=r"`self_loops` must be 0 for a rectangular graph, got 1\.0"):
        reference.spmm(flat, x)
    assert reference.spmm(flat, x, norm="none", self_loops=0).tolist() == [[1, 1]]


def test_a_graph_without_values_checks_every_call():
    """On meta, nothing is kept of a call, and the next one is looked at like the first."""
    graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1], [1, 2]]), 3).to("meta")
    for _ in range(2):
        assert amstel.ops.spmm(graph, torch.empty(3, 4, device="meta")).shape == (3, 4)
    with pytest.raises(ValueError, match="`x` must be"):
        amstel.ops.spmm(graph, torch.empty(7, 4, device="meta"))
