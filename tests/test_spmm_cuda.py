"""The CUDA side of spmm without a GPU: the kernels on the emulator and as PTX against NumPy, the launch wrappers
and autograd on the emulator. How a graph's structure is made there is in test_csr_cuda.py."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch

import amstel
from tests import test_spmm
from tests.cuda_emulator import build, ptx
from tests.test_spmm import DTYPES, leaf, random_edges

SOURCES = [f"{stem}_instances.cu" for stem in ("spmm", "spmm_grad", "edge_sum", "column_sum")]
THREADS = 256  # of every block
HUB = 256  # a row of more edges takes a block
CHUNK = 90  # edges that a block sums of a longer row, where the launch asks for that
CHUNKED = ("spmm_chunk_f64", "spmm_chunk_f32", "spmm_chunk_bf16", "spmm_chunk_f16_even")

# ---- The kernels, one by one ----

# dtype, elements an access, lanes a tile, lanes a row
INSTANCES = {
    "f64": ("f64", 2, 32, 32), "f32": ("f32", 4, 16, 16), "f32_wide": ("f32", 4, 32, 32), "f32_narrow": ("f32", 4, 4, 32),
    "f32_odd": ("f32", 1, 8, 32), "bf16": ("bf16", 8, 8, 32), "f16": ("f16", 8, 4, 4), "f16_even": ("f16", 2, 8, 8),
}  # fmt: skip
# The width of the indices is no template argument: two kernels with wide ones will do.
CASES = [(name, np.int32) for name in INSTANCES] + [("f32", np.int64), ("f16_even", np.int64)]
NUMPY = {"f64": np.float64, "f32": np.float32, "f16": np.float16}
RELATIVE = {"f64": 1e-13, "f32": 2e-6, "f16": 1e-3, "bf16": 8e-3}


@pytest.fixture(params=ptx.engines())
def kernels(request):
    """On the emulator in all three thread orders, which must agree to the last bit, and as PTX."""
    return {name: kernel for source in SOURCES for name, kernel in request.param(source).items()}


def down(x, dtype):
    """x as the device stores it, and the values that this stands for, in float64."""
    stored = build.to_bfloat16(x) if dtype == "bf16" else np.ascontiguousarray(x, NUMPY[dtype])
    return stored, up(stored, dtype)


def up(stored, dtype):
    return (build.from_bfloat16(stored) if dtype == "bf16" else stored).astype(np.float64)


def zeros(shape, dtype):
    return np.zeros(shape, np.uint16 if dtype == "bf16" else NUMPY[dtype])


def close(actual, expected, dtype):
    """Within the dtype's rounding, at the scale of the expected values."""
    assert np.isfinite(actual).all()
    np.testing.assert_allclose(
        actual, expected, rtol=RELATIVE[dtype], atol=RELATIVE[dtype] * max(1, np.abs(expected).max())
    )


class Matrix:
    """A random square CSR matrix with edges in shuffled order, empty rows and a hub."""

    def __init__(self, rows, index, hub=HUB + 57, seed=0):
        rng = np.random.default_rng(seed)
        counts = rng.integers(0, 6, rows)
        counts[rows // 2] = hub
        counts[-1] = 0
        self.rows, self.edges = rows, int(counts.sum())
        self.row = np.repeat(np.arange(rows), counts)
        self.crow = np.concatenate([[0], np.cumsum(counts)]).astype(index)
        self.col = rng.integers(0, rows, self.edges).astype(index)
        self.edge = rng.permutation(self.edges).astype(index)

    def argument(self):
        return "PPPqq", self.crow, self.col, self.edge, self.rows, int(self.crow.dtype == np.int64)

    def dense(self, weight):
        a = np.zeros((self.rows, self.rows))
        np.add.at(a, (self.row, self.col.astype(np.int64)), weight[self.edge.astype(np.int64)])
        return a


def struct(*parts):
    """Fields and nested structs as one argument of a launch; None is a null pointer."""
    form = "".join(part[0] for part in parts)
    return (form, *(0 if value is None else value for part in parts for value in part[1:]))


def sum_type(dtype):
    return "f64" if dtype == "f64" else "f32"


@pytest.mark.parametrize("name, index", CASES)
def test_spmm_kernel(kernels, name, index):
    dtype, width, tile, lanes = INSTANCES[name]
    rng = np.random.default_rng(1)
    m = Matrix(THREADS // lanes + 3, index)  # the second block is not full
    features, batch = width * (tile + 1), 2  # two parts, the second of one lane
    x, x_ = down(rng.standard_normal((batch, m.rows, features + width)), dtype)  # rows further apart
    weight, weight_ = down(rng.random(m.edges), dtype)
    bias, bias_ = down(rng.standard_normal(features), dtype)
    row, row_ = down(rng.random(m.rows), sum_type(dtype))
    col, col_ = down(rng.random(m.rows), sum_type(dtype))
    y = zeros((batch, m.rows, features), dtype)
    chunks = -(-m.edges // CHUNK)
    partial = np.full((batch, chunks, 2, features), np.nan, NUMPY[sum_type(dtype)])
    found = np.full(1, -1)
    for given in (True, False):
        if f"spmm_chunk_{name}" not in CHUNKED:
            partial = None
        pointers = (weight, row, col, x, bias) if given else (None, None, None, x, None)
        stride = features + width
        arguments = struct(
            m.argument(), ("PPPPPP", *pointers, y),
            ("qqqqqdq", stride, m.rows * stride, features, m.rows * features, features, 0.5, int(given)),
            ("PPqqq", found, partial, CHUNK, chunks, features),
        )  # fmt: skip
        if partial is not None:
            kernels[f"spmm_chunk_{name}"].launch((chunks, 2, batch), THREADS, [arguments])
        grid = (-(-m.rows * lanes // THREADS), 2, batch)
        kernels[f"spmm_{name}"].launch(grid, THREADS, [arguments])
        a = m.dense(weight_ if given else np.ones(m.edges)) + 0.5 * np.eye(m.rows)
        if given:
            a = row_[:, None] * a * col_
        expected = a @ x_[:, :, :features]
        if given:
            expected = np.maximum(expected + bias_, 0)
        close(up(y, dtype), expected, dtype)
        assert found[0] == -1
    weight[m.edge[-1]] = 0x7FC0 if dtype == "bf16" else np.nan
    arguments = struct(
        m.argument(), ("PPPPPP", weight, row, col, x, bias, y),
        ("qqqqqdq", stride, m.rows * stride, features, m.rows * features, features, 0.5, 1),
        ("PPqqq", found, None, CHUNK, chunks, features),
    )  # fmt: skip
    kernels[f"spmm_{name}"].launch(grid, THREADS, [arguments])
    assert found[0] == 0


@pytest.mark.parametrize("name, index", CASES)
def test_spmm_grad_kernel(kernels, name, index):
    dtype, width, tile, lanes = INSTANCES[name]
    rng = np.random.default_rng(2)
    m = Matrix(THREADS // lanes + 3, index)
    features, batch = width * (tile + 1), 2
    stride = features + width
    grad, grad_ = down(rng.standard_normal((batch, m.rows, stride)), dtype)
    x, x_ = down(rng.standard_normal((batch, m.rows, features)), dtype)
    grad_ = grad_[:, :, :features]
    weight, weight_ = down(rng.random(m.edges), dtype)
    row, row_ = down(rng.random(m.rows), sum_type(dtype))
    col, col_ = down(rng.random(m.rows), sum_type(dtype))
    for given in (True, False):
        grad_x = zeros((batch, m.rows, features), dtype)
        grad_weight, dot, loop = (zeros(n, sum_type(dtype)) for n in (m.edges, m.rows, m.rows))
        pointers = (weight, row, col) if given else (None, None, None)
        arguments = struct(
            m.argument(), ("PPPPP", *pointers, grad, x), ("PPPP", grad_x, grad_weight, dot, loop if given else None),
            ("qqqqqq", stride, m.rows * stride, features, m.rows * features, batch, features),
            ("d", 0.5 if given else 0.0),
        )  # fmt: skip
        kernels[f"spmm_grad_{name}"].launch(-(-m.rows * lanes // THREADS), THREADS, [arguments])
        # The matrix of the kernel is the transposed one: rows are those of x, columns those of grad.
        a = m.dense(weight_ if given else np.ones(m.edges)) + (0.5 if given else 0) * np.eye(m.rows)
        scale = np.outer(col_, row_) if given else np.ones((m.rows, m.rows))
        expected = (a * scale) @ grad_
        inner = np.einsum("bjf,bif->ji", x_, grad_) * scale
        sums = sum_type(dtype)
        close(up(grad_x, dtype), expected, dtype)
        by_edge = np.empty(m.edges)
        by_edge[m.edge] = inner[m.row, m.col]
        close(up(grad_weight, sums), by_edge, sums)
        close(up(dot, sums), (x_ * expected).sum((0, 2)), sums)
        if given:
            close(up(loop, sums), 0.5 * np.diag(inner), sums)


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("dtype", ["f64", "f32", "bf16"])
def test_edge_sum_kernel(kernels, dtype, index):
    rng = np.random.default_rng(3)
    m = Matrix(35, index, hub=2 * THREADS + 5)
    sums = sum_type(dtype)
    a, a_ = down(rng.random(m.edges), dtype)
    b, b_ = down(rng.random(m.edges), sums)
    for second in (b, None):
        out = zeros(m.rows, sums)
        kernels[f"edge_sum_{dtype}"].launch(2, THREADS, [m.argument(), a, second, out])
        terms = a_ if second is None else a_ * b_
        close(up(out, sums), np.bincount(m.row, terms[m.edge], m.rows), sums)


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("dtype", ["f64", "f16"])
def test_edge_add_kernel(kernels, dtype, index):
    rng = np.random.default_rng(4)
    m = Matrix(35, index)
    sums = sum_type(dtype)
    (value, value_), (by_row, row_), (by_col, col_) = (
        down(rng.random(n), sums) for n in (m.edges, m.rows, m.rows)
    )
    for terms in ((by_row, by_col), (by_row, None), (None, None)):
        out = zeros(m.edges, dtype)
        kernels[f"edge_add_{dtype}"].launch(2, THREADS, [m.argument(), value, *terms, out])
        expected = value_.copy()
        expected[m.edge] += (terms[0] is not None) * row_[m.row] + (terms[1] is not None) * col_[m.col]
        close(up(out, dtype), expected, dtype)


@pytest.mark.parametrize(
    "name, dtype, out, width, tile",
    [("f64", "f64", "f64", 2, 8), ("f32", "f32", "f32", 4, 8), ("f32_odd", "f32", "f32", 1, 32),
     ("bf16", "bf16", "f32", 8, 8), ("to_bf16", "f32", "bf16", 4, 8)],
)  # fmt: skip
def test_column_sum_kernel(kernels, name, dtype, out, width, tile):
    rng = np.random.default_rng(5)
    rows, features, per_block = 83, width * (tile + 3), 40
    x, x_ = down(rng.standard_normal((rows, features)), dtype)
    output, output_ = down(rng.standard_normal((rows, features)), dtype)
    for sign in (output, None):
        masked, sums = zeros((rows, features), dtype), zeros((3, features), out)
        kernels[f"column_sum_{name}"].launch(
            (3, 2), THREADS, [x, sign, masked if sign is not None else None, sums, rows, features, per_block]
        )
        kept = x_ if sign is None else np.where(output_ > 0, x_, 0)
        if sign is not None:
            np.testing.assert_array_equal(up(masked, dtype), kept)
        close(up(sums, out), np.stack([kept[i : i + per_block].sum(0) for i in (0, 40, 80)]), out)


# ---- The launch wrappers and autograd: tests of test_spmm.py over the emulated kernels ----


@contextlib.contextmanager
def emulated(order="random", seed=0):
    library = build.build_emulated_library(["csrc/cuda/spmm_op.cu"])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the emulator is one thread; the references are small
    try:
        with build.emulated_operators(library, order, seed):
            yield
    finally:
        torch.set_num_threads(threads)


@pytest.fixture
def cuda_kernels():
    """torch's CPU key runs the CUDA launch wrappers, the threads in random order."""
    with emulated():
        yield


@pytest.mark.parametrize("weighted", ["none", "own", "call"])
@pytest.mark.parametrize("norm", test_spmm.NORMS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_operators_values_and_gradients(cuda_kernels, dtype, norm, weighted):
    test_spmm.test_values_and_gradients(dtype, norm, weighted, "cpu")


@pytest.mark.parametrize("features", test_spmm.WIDTHS)
def test_operators_every_width(cuda_kernels, features):
    for dtype in DTYPES:
        test_spmm.test_every_width(dtype, features, "cpu")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_operators_alignment(cuda_kernels, dtype):
    """Strided rows and pointers that are not multiples of 16 bytes take narrower accesses, and round alike."""
    test_spmm.test_strided_inputs(dtype)
    test_spmm.test_nan_features_stay_in_their_rows()
    if dtype in (torch.bfloat16, torch.float16):
        test_spmm.test_rounding_of_short_types_is_torch_s(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_operators_kept_products(cuda_kernels, dtype):
    test_spmm.test_a_kept_product_is_the_product(dtype)
    test_spmm.test_a_kept_product_checks_what_it_is_given_and_goes_with_its_tensor()


def test_operators_odd_shapes(cuda_kernels):
    for norm in ("none", "row"):
        test_spmm.test_rectangular(norm)
    for nodes in (0, 1, 5):
        test_spmm.test_no_edges(nodes)
    test_spmm.test_empty_batch()
    test_spmm.test_degree_not_positive_gives_zero()


def test_operators_int64_indices(cuda_kernels):
    graph, weight = test_spmm.make("call")
    graph = amstel.Graph(graph.crow.long(), graph.col.long(), graph.edge.long(), None, graph.num_cols)
    test_spmm.compare(graph, leaf(37, 20), weight, torch.float32, norm="sym_inout")
    assert graph.transposed()[0].dtype == torch.int64


def test_operators_errors(cuda_kernels):
    test_spmm.test_operators_raise_on_what_does_not_fit()


@pytest.mark.slow
def test_operators_gradcheck(cuda_kernels):
    test_spmm.test_gradcheck_and_gradgradcheck("sym_inout")


def test_operators_more_than_a_grid(cuda_kernels):
    """Items of a batch and parts of the features beyond the limits of a grid, which are low on the emulator."""
    graph, weight = test_spmm.make("call")
    test_spmm.compare(graph, leaf(10, 37, 5), weight, torch.float32, bias=leaf(5, seed=2))
    test_spmm.compare(graph, leaf(4, 37, 1001), weight, torch.bfloat16, bias=leaf(1001, seed=2))


def test_operators_rows_at_the_edges_of_chunks(cuda_kernels):
    """Rows of more edges than a chunk, 300 on the emulator, that begin or end where one does, among empty rows."""
    for counts in ((300, 700), (100, 200, 700), (301, 598, 301), (299, 601, 300), (1, 899, 301)):
        rows = [0] * 700
        for i, count in enumerate(counts):
            rows[260 + 97 * i] = count
        indptr = torch.tensor([0, *rows]).cumsum(0)
        columns = torch.randint(0, 700, (sum(counts),), generator=torch.Generator().manual_seed(3))
        graph = amstel.Graph.from_csr(indptr, columns)
        x = leaf(700, 5)
        y = amstel.ops.spmm(graph, x, norm="none", self_loops=0)
        expected = torch.zeros_like(x).index_add(
            0, torch.arange(700).repeat_interleave(indptr.diff()), x[columns]
        )
        torch.testing.assert_close(y, expected)


def test_unloading_the_emulator_gives_its_stacks_back():
    """Linux allows a process 65,530 mappings; an emulator holds two for every thread that waited at a barrier."""
    graph = amstel.Graph.from_edge_index(torch.zeros(2, 1000, dtype=torch.int64), 1)  # a hub, so barriers
    mappings = []
    for _ in range(4):
        with emulated():
            amstel.ops.spmm(graph, torch.ones(1, 4))
            inside = len(Path("/proc/self/maps").read_text().splitlines())
        mappings.append(len(Path("/proc/self/maps").read_text().splitlines()))
    assert inside > mappings[-1] + 100
    assert mappings[-1] < mappings[0] + 100, mappings


def test_operators_bits_do_not_depend_on_the_order_of_threads():
    index, weight = random_edges(400, 3000)
    index[1, :1000] = 3  # a hub in both directions
    index[0, 1000:1800] = 5
    graph = amstel.Graph.from_edge_index(index, 400)
    results = []
    for order in build.ORDERS:
        with emulated(order, seed=7):
            x, w, b = (
                leaf(400, 24, dtype=torch.float32),
                weight.float().requires_grad_(),
                leaf(24, dtype=torch.float32),
            )
            y = amstel.ops.spmm(graph, x, w, norm="sym_inout", bias=b, activation="relu")
            grad = torch.linspace(-1, 1, y.numel()).reshape(y.shape)
            results.append((y, *torch.autograd.grad(y, (x, w, b), grad)))
    for other in results[1:]:
        for first, second in zip(results[0], other, strict=True):
            assert torch.equal(first, second)
    # And they are the right bits: hubs against the reference.
    with emulated():
        test_spmm.compare(graph, leaf(400, 24), weight, torch.float32)


@pytest.mark.slow
def test_sanitized():
    """The kernels of this file, emulated, under AddressSanitizer and UBSan."""
    chosen = "kernel and emulator and not sanitized"
    options = ["-q", "--capture=no", "-p", "no:cacheprovider", "-p", "no:xdist"]
    result = build.run_sanitized(["-m", "pytest", *options, __file__, "-k", chosen])
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert " passed" in result.stdout
