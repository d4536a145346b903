"""Graph as an immutable value: copies for users, pickles, modes and transforms, bounded memory, torch.compile."""

import copy
import gc
import io
import pickle
import subprocess
import sys
import threading

import networkx
import numpy as np
import pytest
import scipy.sparse
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import amstel
from amstel import _derived, ops
from tests.test_spmm import random_edges


def make(weighted=True, nodes=37):
    index, weight = random_edges()
    return amstel.Graph.from_edge_index(index, nodes, weight.float() if weighted else None)


def test_what_users_get_cannot_corrupt_a_graph():
    graph, x = make(), torch.randn(37, 4, requires_grad=True)
    expected = ops.spmm(graph, x)
    (gradient,) = torch.autograd.grad(expected.sum(), x)
    handed = [graph.crow, graph.col, graph.edge, graph.weight, *graph.transposed()]
    handed += [graph.values(torch.float32), graph.values(torch.float32, True), graph.degree(torch.float32)]
    handed += graph.scales("sym_inout", 1.0, torch.float32)
    for t in handed:
        t.fill_(2**30)
        t.numpy()[:] = -7
    y = ops.spmm(graph, x)
    assert torch.equal(y, expected) and torch.equal(torch.autograd.grad(y.sum(), x)[0], gradient)
    assert torch.equal(graph.weight, random_edges()[1].float()) and int(graph.col.max()) < 37
    for name in ("crow", "col", "edge", "weight", "num_rows", "num_cols", "num_nodes", "num_edges", "device"):
        with pytest.raises(AttributeError):
            setattr(graph, name, getattr(graph, name))


def test_a_copy_that_was_changed_is_not_handed_out_again():
    """What is written by NumPy or through `.data` leaves no mark on a tensor."""
    graph, x = make(), torch.randn(37, 4)
    weight, degree = graph.weight, graph.degree(torch.float32)
    expected, true = weight.clone(), degree.clone()
    weight.numpy()[:] = 99
    degree.data.zero_()
    assert torch.equal(graph.weight, expected) and torch.equal(graph.degree(torch.float32), true)
    assert torch.equal(graph.to_edge_index()[1], expected)
    turned, order = graph.reorder()
    torch.testing.assert_close(ops.spmm(turned, x[order])[order.argsort()], ops.spmm(graph, x))
    learned = graph.weight.requires_grad_()
    assert learned.requires_grad and not graph.to_edge_index()[1].requires_grad


def test_the_constructor_checks_and_copies():
    crow, col = torch.tensor([0, 1, 2]), torch.tensor([0, 1])
    graph = amstel.Graph(crow, col, None, None, 2)
    col.fill_(2**30)
    assert ops.spmm(graph, torch.ones(2, 1), norm="none", self_loops=0.0).tolist() == [[1.0], [1.0]]
    with pytest.raises(ValueError, match="source index must be in"):
        amstel.Graph(crow, col, None, None, 2)


TAMPERED = {
    "col out of range": ("col", lambda t: t.fill_(2**30)),
    "negative col": ("col", lambda t: t.fill_(-1)),
    "crow beyond the edges": ("crow", lambda t: t.add_(1)),
    "crow decreasing": ("crow", lambda t: t.flip(0)),
    "edge out of range": ("edge", lambda t: t.fill_(10**6)),
    "edge twice": ("edge", lambda t: t.fill_(0)),
    "edge too short": ("edge", lambda t: t[1:].clone()),
    "NaN weight": ("weight", lambda t: t.fill_(float("nan"))),
    "weight too short": ("weight", lambda t: t[1:].clone()),
    "float col": ("col", lambda t: t.float()),
    "other index type": ("col", lambda t: t.long()),
    "col strided": ("col", lambda t: t.repeat_interleave(2)[::2]),
    "col no tensor": ("col", lambda t: t.tolist()),
    "crow empty": ("crow", lambda t: t[:0].clone()),
    "num_cols": ("num_cols", lambda n: n - 20),
    "num_cols no number": ("num_cols", str),
    "num_cols True": ("num_cols", lambda n: True),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_a_tampered_state_is_refused(how):
    name, change = TAMPERED[how]
    state = {key: v.clone() if isinstance(v, torch.Tensor) else v for key, v in make().__getstate__().items()}
    state[name] = change(state[name])
    with pytest.raises(ValueError):
        amstel.Graph.__new__(amstel.Graph).__setstate__(state)
    for broken in ({}, None, {"crow": state["crow"]}):
        with pytest.raises(ValueError, match="must hold"):
            amstel.Graph.__new__(amstel.Graph).__setstate__(broken)


def test_a_tampered_pickle_is_refused_with_python_O_too(tmp_path):
    col = make().col.numpy().tobytes()
    data = pickle.dumps(make())
    assert data.count(col) == 1
    (tmp_path / "graph.pkl").write_bytes(data.replace(col, np.full(200, 2**30, np.int32).tobytes()))
    code = (
        "import pickle, sys\n"
        "try: pickle.load(open(sys.argv[1], 'rb'))\n"
        "except ValueError as error: print(error)"
    )
    run = [sys.executable, "-O", "-c", code, str(tmp_path / "graph.pkl")]
    out = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert "source index must be in [0, 37), got 1073741824 at edge 0" in out


@pytest.mark.parametrize("weighted", [False, True])
def test_pickles_are_the_same_before_and_after_use(weighted):
    graph, x = make(weighted), torch.randn(37, 4, requires_grad=True)
    before = pickle.dumps(graph)
    for norm in ("sym", "row", "sym_inout", "none"):
        ops.spmm(graph, x, norm=norm).sum().backward()
    assert pickle.dumps(graph) == before
    expected = ops.spmm(graph, x)
    buffer = io.BytesIO()
    torch.save(graph, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=True)
    for other in (pickle.loads(before), loaded, copy.copy(graph), copy.deepcopy(graph), graph.to("cpu")):
        assert torch.equal(ops.spmm(other, x), expected) and repr(other) == repr(graph)
    assert copy.deepcopy(graph)._col.data_ptr() != graph._col.data_ptr()
    pair = copy.deepcopy([graph, graph])
    assert pair[0] is pair[1]


def test_moves():
    graph = make()
    assert graph.cpu() is graph
    assert graph.share_memory_() is graph and graph.is_shared() and not graph.is_pinned()
    assert torch.equal(ops.spmm(graph, torch.eye(37)), ops.spmm(make(), torch.eye(37)))
    with pytest.raises(TypeError, match="`device` must be"):
        graph.to(2.5)


@pytest.mark.cuda
def test_moves_on_cuda():
    """A graph goes to pinned memory, to the GPU and back, and is not copied where it is already there."""
    graph = make()
    pinned = graph.pin_memory()
    assert pinned.is_pinned()
    moved = pinned.cuda(non_blocking=True)
    assert moved.device.type == "cuda" and moved.to("cuda") is moved and moved.cuda() is moved
    assert torch.equal(moved.cpu().col, graph.col)


@pytest.mark.parametrize("made_inside", [False, True])
def test_used_under_inference_mode_first_then_in_training(made_inside):
    x = torch.randn(37, 4)
    graph = make()
    with torch.inference_mode():
        if made_inside:
            graph = make()
        for norm in ("sym", "row", "sym_inout"):
            ops.spmm(graph, x, norm=norm)
        graph.transposed(), graph.crow
        inside = ops.spmm(graph, x)
    x.requires_grad_()
    y = ops.spmm(graph, x)
    assert torch.equal(y, inside)
    w = torch.rand(200, requires_grad=True)
    for norm in ("sym", "row", "sym_inout"):
        (ops.spmm(graph, x, norm=norm).square().sum() + ops.spmm(graph, x, w, norm=norm).sum()).backward()
    assert not graph.col.is_inference()


def test_used_inside_torch_func_first():
    graph, x = make(), torch.randn(37, 4)
    try:
        torch.func.grad(lambda v: ops.spmm(graph, v, norm="sym_inout").sum())(x)
    except RuntimeError:
        pass  # whether the transform takes the operator is not the question here
    torch.func.vmap(lambda s: graph._scales("row", 2.0, torch.float32)[0] * s)(torch.ones(2))
    torch.func.grad(lambda s: (graph._scales("row", 3.0, torch.float32)[0] * s).sum())(torch.ones(()))
    pickle.dumps(graph)
    assert len(graph._kept_scales) >= 2
    fresh = make()
    for norm in ("sym_inout", "row"):
        assert torch.equal(ops.spmm(graph, x, norm=norm), ops.spmm(fresh, x, norm=norm))


def test_memory_is_bounded():
    graph, x = make(), torch.randn(37, 4, requires_grad=True)
    for k in range(200):
        ops.spmm(graph, x, norm="sym_inout", self_loops=k / 7).sum().backward()
        ops.spmm(graph, x.detach(), norm="sym_inout", self_loops=k / 7)
    assert len(graph._kept_scales) <= 8 and len(graph._kept_degrees) <= 8 and len(graph._kept_values) <= 8
    assert len(graph._kept_products) <= 8
    for modes in range(1, 37):
        amstel.nn.fourier_basis(amstel.Graph.from_networkx(networkx.path_graph(37)), modes)
    path = amstel.Graph.from_networkx(networkx.path_graph(37))
    for modes in range(1, 37):
        amstel.nn.fourier_basis(path, modes)
    assert len(amstel.nn.spectral._bases[path]) <= 8


def test_a_learnable_weight_is_refused():
    index, _ = random_edges()
    w = torch.rand(200, requires_grad=True)
    for make_graph in (
        lambda: amstel.Graph.from_edge_index(index, 37, w),
        lambda: amstel.Graph.from_edge_index(index, 37, w.exp()),
        lambda: amstel.Graph.from_csr(torch.tensor([0, 200]), torch.zeros(200, dtype=torch.int64), w),
        lambda: torch.func.grad(lambda v: amstel.Graph.from_edge_index(index, 37, v).weight.sum())(
            w.detach()
        ),
    ):
        with pytest.raises(ValueError, match=r"eight` of a Graph is constant.*pass it to the call"):
            make_graph()
    with torch.no_grad():
        assert torch.equal(amstel.Graph.from_edge_index(index, 37, w).weight, w)


# ---- Values from SciPy and NetworkX ----


@pytest.mark.parametrize(
    "values, dtype",
    [
        (np.array([1, 2**24], np.int64), torch.float32),
        (np.array([1, 2**24 + 1], np.int64), torch.float64),
        (np.array([1, 2**53], np.uint64), torch.float32),
        (np.array([1, 0], bool), torch.float32),
        (np.array([0.1, 0.5], np.float16), torch.float32),
        (np.array([0.25, 0.5], np.longdouble), torch.float32),
        (np.array([0.1, 0.5], np.float64), torch.float64),
        (np.array([0.25, 0.5], np.float64), torch.float64),
        (np.array([0.1, 0.5], np.float32), torch.float32),
        (np.array([0.1, 0.5], np.dtype(">f4")), torch.float32),
    ],
)
def test_scipy_values_stay_exact(values, dtype):
    matrix = scipy.sparse.csr_array((np.ones(2, np.float32), [0, 1], [0, 1, 2]), shape=(2, 2))
    matrix.data = values
    graph = amstel.Graph.from_scipy(matrix)
    assert graph.weight.dtype == dtype
    assert [float(v) for v in values] == graph.weight.tolist()


@pytest.mark.parametrize(
    "values, message",
    [
        (np.array([1j, 2], np.complex64), "`A` must be of real numbers, got 'dtype complex64'"),
        (np.array([1, 2], np.complex128), "`A` must be of real numbers"),
        (
            np.array([2**53 + 1, 2], np.int64),
            "`A` must hold numbers that float64 holds exactly, got 9007199254740993",
        ),
        (np.array([2**64 - 1, 2], np.uint64), "`A` must hold numbers that float64"),
        (np.array([np.longdouble(1) / 3, 2], np.longdouble), "`A` must hold numbers that float64"),
        (np.array([np.nan, 2], np.float32), "must not be NaN"),
    ],
)
def test_scipy_values_that_would_change_are_refused(values, message):
    matrix = scipy.sparse.csr_array((np.ones(2, np.float32), [0, 1], [0, 1, 2]), shape=(2, 2))
    matrix.data = values
    with pytest.raises(ValueError, match=message):
        amstel.Graph.from_scipy(matrix)


def test_networkx_weights_and_multigraphs():
    G = networkx.MultiDiGraph()
    G.add_edge("a", "b", weight=0.1)
    G.add_edge("a", "b", weight=2)
    G.add_edge("b", "b", weight=np.float32(0.5))
    graph = amstel.Graph.from_networkx(G)
    assert (
        graph.num_edges == 3
        and graph.weight.dtype == torch.float64
        and graph.weight.tolist() == [0.1, 2, 0.5]
    )
    assert np.array_equal(graph.to_scipy().toarray(), networkx.to_numpy_array(G).T)
    undirected = amstel.Graph.from_networkx(networkx.MultiGraph(G))
    assert np.array_equal(undirected.to_scipy().toarray(), networkx.to_numpy_array(networkx.MultiGraph(G)))
    for weight, error in (
        ("x", TypeError),
        (True, TypeError),
        (1j, TypeError),
        (float("nan"), ValueError),
        (2**53 + 1, ValueError),
    ):
        with pytest.raises(error, match="`weight` must"):
            amstel.Graph.from_networkx(networkx.Graph([(0, 1, {"weight": weight})]))
    with pytest.raises(TypeError, match="`G` must be a NetworkX graph"):
        amstel.Graph.from_networkx([(0, 1)])


# ---- Short types ----


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("norm", ["sym", "row", "sym_inout", "none"])
@pytest.mark.parametrize("scale", [1.0, 3e5, 1e-9])
def test_weights_are_not_rounded_before_they_are_summed(dtype, norm, scale):
    if norm == "none":
        scale = 1.0  # the result itself is as large or small as the weights
    index, weight = random_edges()
    weight = (weight.abs() * scale).float()
    x = torch.randn(37, 4, generator=torch.Generator().manual_seed(0))
    own, bare = amstel.Graph.from_edge_index(index, 37, weight), amstel.Graph.from_edge_index(index, 37)
    lam = scale
    expected = ops.spmm(bare, x.double(), weight.double(), norm=norm, self_loops=lam)
    tolerance = 2e-3 if dtype == torch.float16 else 2e-2
    short = ops.spmm(own, x.to(dtype), norm=norm, self_loops=lam)
    assert short.dtype == dtype
    size = float(expected.abs().max())
    assert float((short.double() - expected).abs().max()) <= tolerance * size
    w = weight.clone().requires_grad_()
    with torch.autocast("cpu", dtype):
        y = ops.spmm(bare, x, w, norm=norm, self_loops=lam)
        assert y.dtype == dtype
        again = ops.spmm(own, x, norm=norm, self_loops=lam)
    for found in (y, again):
        assert float((found.double() - expected).abs().max()) <= tolerance * size
    assert torch.isfinite(torch.autograd.grad(y.float().sum(), w)[0]).all()


# ---- torch.compile ----

SIZES = (20, 37, 50, 64, 71, 88, 99, 120, 7, 33)


@pytest.mark.parametrize("kind", ["graph", "weighted", "edge_index", "gcn"])
def test_a_training_step_over_graphs_of_ten_sizes_compiles_twice(kind):
    torch._dynamo.reset()
    model = amstel.nn.GCN(8, 16, 3, dropout=0.0) if kind == "gcn" else amstel.nn.GCNConv(8, 16)
    counter = CompileCounterWithBackend("aot_eager")

    def loss(x, graph):
        return model(x, graph).square().mean()

    compiled = torch.compile(loss, backend=counter, fullgraph=True)
    data = []
    for nodes in SIZES:
        index = torch.randint(0, nodes, (2, 5 * nodes))
        weight = torch.rand(5 * nodes) if kind == "weighted" else None
        graph = index if kind == "edge_index" else amstel.Graph.from_edge_index(index, nodes, weight)
        data.append((torch.randn(nodes, 8), graph))
    for epoch in range(2):
        for x, graph in data:
            model.zero_grad()
            value = compiled(x, graph)
            value.backward()
            found = [p.grad.clone() for p in model.parameters()]
            model.zero_grad()
            expected = loss(x, graph)  # from here on the Graph is one that was used
            expected.backward()
            torch.testing.assert_close(value, expected)
            for p, g in zip(model.parameters(), found, strict=True):
                torch.testing.assert_close(p.grad, g)
        assert counter.frame_count <= 2, epoch


def test_the_compiled_transpose_is_the_graphs_own():
    graph = make()
    before = ops.spmm(graph, torch.eye(37))
    a = torch.ops.amstel.graph_transpose(graph._crow, graph._col, graph._edge, 37)
    assert all(torch.equal(s, t) for s, t in zip(a, graph._transpose(), strict=True))
    for t in a:
        t.zero_()
    assert torch.equal(ops.spmm(graph, torch.eye(37)), before)
    arrays = graph._crow, graph._col, graph._edge
    kept = graph.transposed()
    del graph
    gc.collect()
    assert all(
        torch.equal(s, t) for s, t in zip(torch.ops.amstel.graph_transpose(*arrays, 37), kept, strict=True)
    )


def test_the_transpose_belongs_to_the_arrays_of_a_live_graph_and_not_to_an_address():
    graph = make()
    twin = copy.copy(graph)
    kept = graph._transpose()
    assert twin._transpose() is kept  # the same arrays: sorted once
    crow, col, edge = graph._crow, graph._col, graph._edge
    aliases = crow.detach(), col.detach(), edge.detach()
    assert _derived._found(*aliases, 37) is graph._turned
    del graph
    gc.collect()
    assert _derived._found(*aliases, 37) is twin._turned
    for arguments in (
        (crow.clone(), col, edge, 37),
        (crow, col.clone(), edge, 37),
        (crow, col, edge.clone(), 37),
        (crow, col, None, 37),
        (crow, col, edge, 38),
        (crow[:-1], col, edge, 37),
    ):
        assert _derived._found(*arguments) is None
        if len(arguments[0]) == 38:
            found = torch.ops.amstel.graph_transpose(*arguments)
            expected = torch.ops.amstel.csr_transpose(*arguments)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    # Another matrix in the storage of a Graph that is gone.
    del twin, kept
    gc.collect()
    crow[1:] = len(col)
    assert _derived._found(crow, col, edge, 37) is None
    found = torch.ops.amstel.graph_transpose(crow, col, edge, 37)
    expected = torch.ops.amstel.csr_transpose(crow, col, edge, 37)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_step_sorts_a_graph_once(backend, monkeypatch):
    sorts = []
    found = _derived._found
    monkeypatch.setattr(_derived, "_found", lambda *a: sorts.append(found(*a)) or sorts[-1])
    torch._dynamo.reset()
    graph, x = make(), torch.randn(37, 4, requires_grad=True)
    step = torch.compile(lambda g, v: ops.spmm(g, v, norm="row").square().sum(), backend=backend)
    for _ in range(3):
        (gradient,) = torch.autograd.grad(step(graph, x), x)
    assert len(sorts) >= 3 and all(kept is graph._turned for kept in sorts)
    (expected,) = torch.autograd.grad(ops.spmm(graph, x, norm="row").square().sum(), x)
    torch.testing.assert_close(gradient, expected)


def test_shared_memory_keeps_the_transpose():
    graph = make().share_memory_()
    before = graph._transpose()
    found = torch.ops.amstel.graph_transpose(graph._crow, graph._col, graph._edge, 37)
    assert all(torch.equal(a, b) for a, b in zip(found, before, strict=True))


def test_threads_share_a_graph():
    """More results than a Graph keeps, so that threads drop the oldest while others read and keep."""
    loops, x = [k / 4 for k in range(2 * _derived.KEPT)], torch.randn(37, 4)
    expected = [ops.spmm(make(), x, self_loops=loop) for loop in loops]
    graph, store, errors = make(), {}, []

    def work(first):
        try:
            for k in range(first, first + 2000):
                _derived.keep(store, k % 64, k)
            for k in range(first, first + 100):
                k %= len(loops)
                assert torch.equal(ops.spmm(graph, x, self_loops=loops[k]), expected[k])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(17 * k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    kept = {0: 0}
    for k in range(3 * _derived.KEPT):
        _derived.keep(kept, k, -k)
    assert kept == {k: -k for k in range(2 * _derived.KEPT, 3 * _derived.KEPT)}
