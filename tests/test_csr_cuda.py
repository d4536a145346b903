"""The structure of a graph on CUDA: kernels on the emulator and as PTX against NumPy, the operators on the emulator
against the CPU's, with its errors, and on a GPU, the only place where CUB sorts."""

import contextlib

import numpy as np
import pytest
import torch

import amstel
from tests import test_graph
from tests.cuda_emulator import build, ptx

THREADS = 256  # of every block
# Of the index that is given, and of the result.
INDEX = {"i32": (np.int32, np.int32), "i64_i32": (np.int64, np.int32), "i64": (np.int64, np.int64)}
EDGE, NAN, ROW, START, END = range(5)  # fields of CsrFaults


@pytest.fixture(params=ptx.engines())
def kernels(request):
    """On the emulator in all three thread orders, which must agree to the last bit, and as PTX."""
    return request.param("csr_instances.cu")


def no_faults():
    return np.full(5, -1, np.int64)


def blocks(n):
    return -(-n // THREADS)


# ---- The kernels, one by one ----


@pytest.mark.parametrize("name", INDEX)
def test_coo_keys_kernel(kernels, name):
    given, result = INDEX[name]
    rng = np.random.default_rng(1)
    edges, rows, cols = 2 * THREADS + 7, 31, 47
    row, col = (rng.integers(0, n, edges).astype(given) for n in (rows, cols))
    for first, at, array, value in (
        (-1, 0, row, row[0]), (edges - 1, edges - 1, col, cols), (400, 400, row, rows), (261, 261, row, -1), (3, 3, col, -9),
    ):  # fmt: skip
        array[at] = value
        key, number = np.zeros(edges, result), np.zeros(edges, result)
        faults = no_faults()
        arguments = [row, col, edges, rows, cols, key, number, faults]
        kernels[f"coo_keys_{name}"].launch(blocks(edges), THREADS, arguments)
        np.testing.assert_array_equal(key, row)
        np.testing.assert_array_equal(number, np.arange(edges))
        assert faults.tolist() == [first, -1, -1, -1, -1]


@pytest.mark.parametrize("name", ["i32", "i64"])
def test_csr_keys_kernel(kernels, name):
    index = INDEX[name][0]
    counts = np.random.default_rng(2).integers(0, 4, 300)
    counts[[0, 1, 150, -1]] = 0, 0, 90, 0
    crow = np.concatenate([[0], np.cumsum(counts)]).astype(index)
    edges = int(crow[-1])
    row, number = np.zeros(edges, index), np.zeros(edges, index)
    csr = ("PPPqq", crow, 0, 0, len(counts), int(index == np.int64))
    kernels[f"csr_keys_{name}"].launch(blocks(edges), THREADS, [csr, edges, row, number])
    np.testing.assert_array_equal(row, np.repeat(np.arange(len(counts)), counts))
    np.testing.assert_array_equal(number, np.arange(edges))


@pytest.mark.parametrize("name", INDEX)
def test_csr_from_sorted_kernel(kernels, name):
    given, result = INDEX[name]
    rng = np.random.default_rng(3)
    for rows, edges in ((40, 2 * THREADS + 9), (700, 300), (1, 5), (5, 0)):
        key = np.sort(rng.integers(rows // 3, rows // 3 * 2 + 1, edges)).astype(result)  # gaps at both ends
        number = rng.permutation(edges).astype(result)
        source, edge = rng.integers(0, 99, edges).astype(given), rng.integers(0, 99, edges).astype(result)
        for original in (edge, None):
            crow, to, edge_to = (np.full(n, -1, result) for n in (rows + 1, edges, edges))
            arguments = [key, number, source, original, edges, rows, crow, to, edge_to]
            kernels[f"csr_from_sorted_{name}"].launch(blocks(max(edges, rows + 1)), THREADS, arguments)
            np.testing.assert_array_equal(crow, np.searchsorted(key, np.arange(rows + 1)))
            np.testing.assert_array_equal(to, source[number])
            np.testing.assert_array_equal(edge_to, np.full(edges, -1) if original is None else edge[number])


@pytest.mark.parametrize("name", ["i32", "i64"])
def test_csr_check_kernel(kernels, name):
    index = INDEX[name][0]
    rows, edges, cols = 300, 400, 20
    for changes, expected in (
        ({}, {}),
        ({("col", 399): cols}, {EDGE: 399}),
        ({("col", 399): cols, ("col", 270): -1}, {EDGE: 270}),
        ({("crow", 6): edges, ("crow", 290): 1}, {ROW: 6}),
        ({("crow", 300): 1, ("col", 0): -5}, {ROW: 299, END: 1, EDGE: 0}),
        ({("crow", 0): 9}, {ROW: 0, START: 9}),
    ):
        arrays = {
            "crow": np.linspace(0, edges, rows + 1).astype(index),
            "col": np.random.default_rng(4).integers(0, cols, edges).astype(index),
        }
        for (array, at), value in changes.items():
            arrays[array][at] = value
        faults = no_faults()
        arguments = [arrays["crow"], arrays["col"], rows, edges, cols, faults]
        kernels[f"csr_check_{name}"].launch(blocks(edges), THREADS, arguments)
        assert dict(enumerate(faults)) == {EDGE: -1, NAN: -1, ROW: -1, START: 0, END: edges} | expected


@pytest.mark.parametrize("name", ["f64", "f32", "bf16", "f16"])
def test_first_nan_kernel(kernels, name):
    edges = THREADS + 50
    types = {"f64": np.float64, "f32": np.float32, "bf16": np.uint16, "f16": np.float16}
    weight = np.zeros(edges, types[name])
    for at in (None, edges - 1, 258, 31):
        if at is not None:
            weight[at] = 0x7FC0 if name == "bf16" else np.nan
        faults = no_faults()
        kernels[f"first_nan_{name}"].launch(blocks(edges), THREADS, [weight, edges, faults])
        assert faults.tolist() == [-1, -1 if at is None else at, -1, -1, -1]


# ---- The operators ----


@contextlib.contextmanager
def emulated(order="random", seed=0):
    """torch's CPU key runs the CUDA launch wrappers."""
    with build.emulated_operators(build.build_emulated_library(["csrc/cuda/csr_op.cu"]), order, seed):
        yield


def on_gpu(t):
    return t.cuda() if isinstance(t, torch.Tensor) else t


def outcome(name, *arguments):
    """What came out, on the CPU, or the error's own words."""
    try:
        found = getattr(torch.ops.amstel, name)(*arguments)
    except RuntimeError as error:
        return str(error).splitlines()[0].replace("on cuda", "on cpu")
    return found if found is None else [t.cpu() for t in found]


def check_same(device, name, *arguments):
    theirs = outcome(name, *arguments)
    if device == "cuda":
        ours = outcome(name, *map(on_gpu, arguments))
    else:
        with emulated():
            ours = outcome(name, *arguments)
    assert type(ours) is type(theirs), f"{ours} and {theirs}"
    if isinstance(theirs, (str, type(None))):
        assert ours == theirs
        return ours
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b) and a.is_contiguous()
    return ours


DEVICES = pytest.mark.parametrize("device", ["emulated", pytest.param("cuda", marks=pytest.mark.cuda)])
DTYPES = pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)


@DEVICES
@DTYPES
@pytest.mark.parametrize("nodes, edges", [(37, 200), (1, 5), (5, 0), (0, 0), (3000, 50), (300, 2000)])
def test_structure_as_on_the_cpu(nodes, edges, dtype, device):
    generator = torch.Generator().manual_seed(edges)
    row, col = torch.randint(0, max(nodes, 1), (2, edges), generator=generator).to(dtype)
    weight = torch.rand(edges)
    for more in (0, 4):  # rectangular
        crow, col_out, edge = check_same(device, "csr_from_coo", row, col, nodes, nodes + more, weight)
        for e in (edge, None):
            check_same(device, "csr_transpose", crow, col_out, e, nodes + more)
            wide = (crow.long(), col_out.long(), None if e is None else e.long())
            check_same(device, "csr_transpose", *wide, nodes + more)
        checked = (crow.to(dtype), col_out.to(dtype), weight, nodes + more)
        assert check_same(device, "csr_check", *checked) is None
    # As many columns as take 64 bits: the result has them, too.
    check_same(device, "csr_from_coo", row, col, nodes, 2**31 + 7, None)


@pytest.mark.cuda
@DTYPES
def test_structure_of_many_edges(dtype):
    """What CUB does in several passes and tiles; on a GPU alone."""
    generator = torch.Generator().manual_seed(1)
    for nodes, edges in ((70_000, 3_000_000), (2**21, 100_000), (3, 500_000)):
        row, col = torch.randint(0, nodes, (2, edges), generator=generator).to(dtype)
        crow, col_out, edge = check_same("cuda", "csr_from_coo", row, col, nodes, nodes, None)
        check_same("cuda", "csr_transpose", crow, col_out, edge, nodes)
        check_same("cuda", "csr_transpose", crow.long(), col_out.long(), None, nodes)


@DEVICES
@DTYPES
def test_structure_errors_as_on_the_cpu(dtype, device):
    t = lambda *values: torch.tensor(values, dtype=dtype)  # noqa: E731
    row, col, w = t(0, 2, 1), t(1, 1, 0), torch.ones(3)
    nan = torch.tensor([0, float("nan"), float("nan")])
    crow = t(0, 1, 2, 3)
    cases = [
        ("csr_from_coo", t(0, 3, -1), col, 3, 3, None), ("csr_from_coo", row, t(0, -7, 9), 3, 3, None),
        ("csr_from_coo", t(0, 3, 1), t(9, 9, 9), 3, 3, None), ("csr_from_coo", row, col, -1, 3, None),
        ("csr_from_coo", row, col, 3, 3, nan), ("csr_from_coo", row, col, 3, 3, w[1:]),
        ("csr_from_coo", t(0, 3, 1), col, 3, 3, nan), ("csr_from_coo", row.float(), col.float(), 3, 3, nan),
        ("csr_from_coo", row, col[1:], 3, 3, w), ("csr_from_coo", row[None], col, 3, 3, w),
        ("csr_from_coo", row, col.float(), 3, 3, w), ("csr_from_coo", row.float(), col.float(), 3, 3, w),
        ("csr_from_coo", row, col, 3, 3, w.to(torch.complex64)), ("csr_from_coo", row, col, 3, 3, w.long()),
        ("csr_from_coo", t(0, 0, 0, 0)[::2], col[:2], 3, 3, None), ("csr_from_coo", row, col, 0, 3, None),
        ("csr_transpose", t(0, 1, 2, 4), col, None, 3), ("csr_transpose", crow, col, t(0, 1), 3),
        ("csr_transpose", crow[:0], col, None, 3), ("csr_transpose", crow, col[None], None, 3),
        ("csr_transpose", crow.bool(), col, None, 3),
        ("csr_check", t(1, 1, 2, 3), col, None, 3), ("csr_check", t(0, 2, 1, 3), col, None, 3),
        ("csr_check", t(0, 1, 2, 4), col, None, 3), ("csr_check", crow, t(0, 3, -1), None, 3),
        ("csr_check", crow, t(0, 1, -1), w, 3), ("csr_check", crow, col, nan, 3), ("csr_check", crow, col, w[1:], 3),
        ("csr_check", t(1, 3, 2, 4), t(9, 9, 9), nan, 3), ("csr_check", t(0, 3, 2, 4), t(9, 9, 9), nan, 3),
    ]  # fmt: skip
    for name, *arguments in cases:
        message = check_same(device, name, *arguments)
        assert isinstance(message, str), (name, arguments)


def test_the_first_of_many_is_reported_in_any_order():
    row, col = torch.randint(0, 50, (2, 1000), generator=torch.Generator().manual_seed(2))
    row[700:] = 50
    col[600::7] = -1
    for order in build.ORDERS:
        with emulated(order, seed=3):
            assert (
                outcome("csr_from_coo", row, col, 50, 50, None)
                == "source index must be in [0, 50), got -1 at edge 600"
            )


def test_graphs_on_the_emulator():
    """The tests of Graph, over these operators."""
    with emulated():
        for dtype in (torch.int32, torch.int64):
            test_graph.test_from_edge_index(dtype)
        test_graph.test_from_csr_copies_and_keeps_order()
        test_graph.test_scipy_and_networkx()
        test_graph.test_transposed_is_shared_where_symmetric()
        test_graph.test_degrees()
        test_graph.test_reorder_is_the_same_graph_renumbered("degree")
        graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 2], [1, 2, 0]]))
        assert graph.transposed()[1].tolist() == [1, 2, 0]


@pytest.mark.slow
def test_sanitized():
    """The kernels of this file, emulated, under AddressSanitizer and UBSan."""
    options = ["-q", "--capture=no", "-p", "no:cacheprovider", "-p", "no:xdist"]
    result = build.run_sanitized(["-m", "pytest", *options, __file__, "-k", "kernel and emulator"])
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert " passed" in result.stdout
