"""The torch-free CPU kernels, every instruction set that this machine runs, against NumPy in float64."""

import os

import numpy as np
import pytest

try:
    from amstel import _kernels_test as kernels
except ImportError as error:
    if os.environ.get("AMSTEL_REQUIRE_KERNELS") == "1":
        raise
    if "_kernels_test" not in str(error):
        raise
    pytest.skip(
        "amstel._kernels_test is not built (pip install -C cmake.define.AMSTEL_TESTS=ON .)",
        allow_module_level=True,
    )

# Relative to the largest number of a result. Winograd's transforms lose a few bits more.
TOLERANCE = {"float64": 1e-13, "float32": 2e-6, "float16": 1e-3, "bfloat16": 8e-3}
DTYPES = list(TOLERANCE)


@pytest.fixture(params=kernels.isas())
def isa(request):
    return request.param


def rounded(x, dtype):
    """x as the kernels take it, and the numbers that this is, in float64."""
    if dtype != "bfloat16":
        array = np.ascontiguousarray(x, dtype)
        return array, array.astype(np.float64)
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    array = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return array, numbers(array)


def numbers(array):
    if array.dtype != np.uint16:
        return array.astype(np.float64)
    return (array.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def sums(dtype):
    return np.float64 if dtype == "float64" else np.float32


def check(found, expected, dtype, factor=1):
    found = numbers(found)
    assert found.shape == expected.shape
    scale = max(1.0, np.abs(expected).max(initial=0))
    assert np.abs(found - expected).max(initial=0) <= factor * TOLERANCE[dtype] * scale


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_instruction_sets():
    isas = kernels.isas()
    assert isas[-1] == "base"
    widths = [kernels.vector_bytes(isa) for isa in isas]
    assert widths == sorted(widths, reverse=True) and widths[-1] == 16
    with pytest.raises(ValueError, match="expected one of isas"):
        kernels.vector_bytes("sse9")


@pytest.mark.parametrize("features", [0, 1, 3, 16, 33, 130])
@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("dtype", DTYPES)
def test_spmm(isa, dtype, index, features):
    rng = np.random.default_rng(0)
    rows, edges = 23, 90
    row = np.sort(rng.integers(0, rows - 2, edges))  # the last two rows are empty
    crow = np.searchsorted(row, np.arange(rows + 1)).astype(index)
    col = rng.integers(0, rows, edges).astype(index)
    x, x64 = rounded(rng.normal(size=(rows, features)), dtype)
    weight, weight64 = rounded(rng.normal(size=edges), dtype)
    left, right = rng.uniform(0.5, 2, (2, rows)).astype(sums(dtype))
    dense = np.zeros((rows, rows))
    np.add.at(dense, (row, col), weight64)
    dense += 0.5 * np.eye(rows)
    expected = left[:, None].astype(np.float64) * dense * right @ x64
    y = kernels.spmm(isa, crow, col, x, weight, left, right, 0.5)
    check(y, expected, dtype, factor=4)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("inner", [1, 5, 16, 37])
@pytest.mark.parametrize("dtype", DTYPES)
def test_conv_lstm_gates(isa, dtype, inner, wide):
    """With the state in the type of the gates, or in that of sums."""
    rng = np.random.default_rng(1)
    gates, gates64 = rounded(3 * rng.normal(size=(7, 4 * inner)), dtype)
    given, c = rounded(rng.normal(size=(7, inner)), sums(dtype).__name__ if wide else dtype)
    h, c_out, activated = kernels.conv_lstm_gates(isa, gates, given)
    assert c_out.dtype == given.dtype
    i, f, g, o = np.split(gates64, 4, 1)
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
    expected = f * c + i * g
    check(c_out, expected, dtype, factor=4)
    check(h, o * np.tanh(expected), dtype, factor=4)
    check(activated, np.concatenate([i, f, g, o], 1), dtype, factor=4)


@pytest.mark.parametrize("inner", [1, 5, 16, 37])
@pytest.mark.parametrize("dtype", DTYPES)
def test_conv_gru_gates(isa, dtype, inner):
    rng = np.random.default_rng(2)
    (x, x64), (g, g64) = (rounded(2 * rng.normal(size=(7, 3 * inner)), dtype) for _ in range(2))
    h, h64 = rounded(rng.normal(size=(7, inner)), dtype)
    (x_r, x_z, x_n), (h_r, h_z, h_n) = np.split(x64, 3, 1), np.split(g64, 3, 1)
    r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    check(kernels.conv_gru_gates(isa, x, g, h), (1 - z) * np.tanh(x_n + r * h_n) + z * h64, dtype, factor=4)


@pytest.mark.parametrize("logistic", [False, True])
@pytest.mark.parametrize("channels, pixels", [(1, 1), (1, 300), (2, 257), (3, 256), (5, 40)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rim_input(isa, dtype, channels, pixels, logistic):
    rng = np.random.default_rng(3)
    eta, other = rng.normal(size=(2, 2, channels, pixels)).astype(sums(dtype))
    like, _ = rounded(np.zeros(0), dtype)
    eta64, other64 = eta.astype(np.float64), other.astype(np.float64)
    value = sigmoid(eta64) if logistic else eta64
    slope = value * (1 - value) if logistic else 1
    expected = np.concatenate([eta64, 0.75 * slope * (value - other64)], 1).transpose(0, 2, 1)
    check(kernels.rim_input(isa, eta, other, like, 0.75, logistic), expected, dtype, factor=4)


@pytest.mark.parametrize("height, width", [(1, 1), (3, 5), (8, 17)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_coils(isa, dtype, height, width):
    rng = np.random.default_rng(4)
    x = rng.normal(size=(2, height, width, 2)).astype(dtype)
    s = rng.normal(size=(2, 3, height, width, 2)).astype(dtype)
    images, back = kernels.coils(isa, x, s)
    to_complex = lambda a: a[..., 0].astype(np.float64) + 1j * a[..., 1]  # noqa: E731
    to_real = lambda a: np.stack([a.real, a.imag], -1)  # noqa: E731
    expected = to_complex(s) * to_complex(x)[:, None]
    check(images, to_real(expected), dtype)
    check(back, to_real((to_complex(s).conj() * expected).sum(1)), dtype, factor=4)


@pytest.mark.parametrize("height, width", [(1, 1), (4, 4), (7, 9)])
@pytest.mark.parametrize("channels, outputs", [(1, 1), (9, 5), (16, 70)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_winograd(isa, dtype, channels, outputs, height, width):
    rng = np.random.default_rng(5)
    x, x64 = rounded(rng.normal(size=(2, height, width, channels)), dtype)
    weight = rng.normal(size=(outputs, channels, 3, 3)).astype(np.float32)
    padded = np.pad(x64, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.zeros((2, height, width, outputs))
    for i in range(3):
        for j in range(3):
            expected += padded[:, i : i + height, j : j + width] @ weight[:, :, i, j].T.astype(np.float64)
    check(kernels.winograd(isa, x, weight), expected, dtype, factor=4)


@pytest.mark.parametrize("tile", [0, 1, 2])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("channels", [1, 9, 40])
@pytest.mark.parametrize("dtype", DTYPES)
def test_roi_pool(isa, dtype, channels, last, tile):
    rng = np.random.default_rng(6)
    height, width, ph, pw = 9, 13, 2, 3
    x, x64 = rounded(rng.normal(size=(channels, height, width)), dtype)
    boxes = np.array(
        [[0, 0, 12, 8], [2, 1, 4, 3], [5, 5, 5, 5], [-4, -4, 3, 20], [30, 30, 40, 40]], np.float64
    )
    given = np.ascontiguousarray(x.transpose(1, 2, 0)) if last else x
    pooled, argmax = kernels.roi_pool(isa, given, last, boxes, ph, pw, tile)
    for k, (x1, y1, x2, y2) in enumerate(boxes):
        for i in range(ph):
            for j in range(pw):
                bin_height, bin_width = (y2 - y1 + 1) / ph, (x2 - x1 + 1) / pw
                rows = np.clip([np.floor(i * bin_height) + y1, np.ceil((i + 1) * bin_height) + y1], 0, height)
                cols = np.clip([np.floor(j * bin_width) + x1, np.ceil((j + 1) * bin_width) + x1], 0, width)
                (top, bottom), (left, right) = rows.astype(int), cols.astype(int)
                cell, where = numbers(pooled)[k, :, i, j], argmax[k, :, i, j]
                if top >= bottom or left >= right:
                    assert (cell == 0).all() and (where == -1).all()
                    continue
                part = x64[:, top:bottom, left:right].reshape(channels, -1)
                assert (cell == part.max(1)).all()
                first = part.argmax(1)
                assert (
                    where == (top + first // (right - left)) * width + left + first % (right - left)
                ).all()


def test_bad_arrays():
    with pytest.raises(ValueError, match="col: out of range"):
        kernels.spmm("base", np.array([0, 1], np.int32), np.array([7], np.int32), np.zeros((1, 2)))
    with pytest.raises(ValueError, match="c: expected 8 contiguous numbers of 4 bytes"):
        kernels.conv_lstm_gates("base", np.zeros((2, 16), np.float32), np.zeros((2, 4)))
