"""The CUDA side of ROI pooling without a GPU: the kernels on the emulator and as PTX against slow NumPy, the launch
wrappers and autograd on the emulator against the operators of the CPU. With a GPU, the same operators on it."""

import contextlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import amstel
from amstel import reference
from amstel.testing import assert_close
from tests.cuda_emulator import build, ptx, toolchain
from tests.test_spmm_cuda import NUMPY, close, down, struct, sum_type, up, zeros

SOURCE, GRAD_SOURCE = "roi_pool_instances.cu", "roi_pool_grad_instances.cu"
THREADS, TABLE_THREADS = 256, 64
LOWEST = -float(np.finfo(np.float32).max)
# dtype, elements an access
INSTANCES = {
    "f64": ("f64", 2), "f32": ("f32", 4), "bf16": ("bf16", 8), "f16": ("f16", 8),
    "f64_single": ("f64", 1), "f32_single": ("f32", 1), "f16_single": ("f16", 1),
}  # fmt: skip
# With the layout; what takes single elements takes both.
CASES = [
    (name, last)
    for name, (_, width) in INSTANCES.items()
    for last in ([True, False] if width == 1 else [True])
]


# ---- The geometry and the maxima, one by one ----


def bins_of(first, last, scale, bins, size):
    """Begin and end of the bins along an axis, in the arithmetic of the NumPy scalars that are given."""
    real = type(first)

    def whole(v):
        v = float(v)
        away = np.floor(abs(v) + 0.5) if abs(v) < 2**51 else abs(v)
        return int(min(np.copysign(away, v), 2.0**52) if v > -(2**52) else -(2**52))

    def up_to_53(v):
        return int(v) if v < 2**53 else 2**53

    with np.errstate(all="ignore"):
        start, stop = whole(first * scale), whole(last * scale)
        one = real(max(stop - start + 1, 1)) / real(bins)
        edges = [real(b) * one for b in range(bins + 1)]
    clip = lambda v: min(max(v, 0), size)  # noqa: E731
    begin = [clip(start + up_to_53(np.floor(float(e)))) for e in edges[:-1]]
    end = [clip(start + up_to_53(np.ceil(float(e)))) for e in edges[1:]]
    return begin + end


def table_of(rois, scale, images, height, width, ph, pw):
    """rois [K, 5] in the arithmetic of their dtype; as the kernel writes it."""
    scale = rois.dtype.type(scale)
    rows = []
    for image, x1, y1, x2, y2 in rois:
        if not (0 <= image < images and image == np.floor(image) and np.isfinite([x1, y1, x2, y2]).all()):
            rows.append([-1] + [0] * (2 * ph + 2 * pw))
            continue
        rows.append([int(image), *bins_of(y1, y2, scale, ph, height), *bins_of(x1, x2, scale, pw, width)])
    return np.array(rows, np.int32).reshape(len(rows), 1 + 2 * ph + 2 * pw)


def bins_in(row, ph, pw):
    """(i, j, rows, columns) of every bin of a row of the table."""
    edges = row[1:].tolist()
    for i in range(ph):
        for j in range(pw):
            col = edges[2 * ph :]
            yield i, j, range(edges[i], edges[ph + i]), range(col[j], col[pw + j])


def pool(x, table, ph, pw):
    """x [N, C, H, W] in float64 -> pooled and argmax [K, C, ph, pw]."""
    k, c, w = len(table), x.shape[1], x.shape[3]
    out, argmax = np.zeros((k, c, ph, pw)), np.full((k, c, ph, pw), -1, np.int32)
    for n, row in enumerate(table):
        for i, j, hs, ws in bins_in(row, ph, pw):
            for channel in range(c if hs and ws else 0):
                best, at = LOWEST, -1
                for h in hs:
                    for v in ws:
                        if x[row[0], channel, h, v] > best:
                            best, at = x[row[0], channel, h, v], h * w + v
                out[n, channel, i, j], argmax[n, channel, i, j] = best, at
    return out, argmax


# ---- The kernels, one by one ----


@pytest.fixture(params=ptx.engines())
def kernels(request):
    """On the emulator in all three thread orders, which must agree to the last bit, and as PTX."""
    return request.param(SOURCE)


def rois_for(images, height, width, count=9, seed=0):
    """Boxes on and around a map: overlapping, partly and wholly outside, swapped, on halves, far away, not valid."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-0.3, 0.9, (count, 2)) * [width, height]
    rois = np.concatenate(
        [
            rng.integers(0, images, (count, 1)),
            corner,
            corner + rng.uniform(0, 0.7, (count, 2)) * [width, height],
        ],
        1,
    )
    inf, nan = np.inf, np.nan
    special = [
        (0, 0, 0, width - 1, height - 1), (images - 1, 5, 4, 2, 1), (0, 0.5, 1.5, 2.5, 4.5), (0, -2.5, -0.5, 1.5, 0.49),
        (0, width + 3, 0, width + 9, height), (0, -3e4, -3e4, 3e4, 3e4), (0, 0, -6e4, 3, 6e4), (-1, 0, 0, 3, 3),
        (images, 0, 0, 3, 3), (0.5, 0, 0, 3, 3), (nan, 0, 0, 3, 3), (0, nan, 0, 3, 3), (0, 0, inf, 3, 3),
        (0, 0, 0, -inf, 3),
    ]  # fmt: skip
    return np.concatenate([rois, special])


def lay(x, last):
    """[a, b, h, w] as an array in the order of a layout, and the strides of a, b, h, w in it."""
    stored = np.ascontiguousarray(x.transpose(0, 2, 3, 1) if last else x)
    steps = [s // stored.itemsize for s in stored.strides]
    return stored, [steps[0], steps[3], steps[1], steps[2]] if last else steps


def back(stored, last):
    return stored.transpose(0, 3, 1, 2) if last else stored


def pooled_strides(channels, bins, last):
    return channels * bins, 1 if last else bins, channels if last else 1


def share(accesses, bins, last):
    """Fewer lanes than there is to do, so that threads take several turns; odd in number along bins."""
    return accesses, bins, 2 if last else 3, int(last)


PH, PW = 3, 2
IMAGES, HEIGHT, WIDTH = 2, 6, 21


def example(name, last, seed=1):
    """A map with NaN and equal maxima, its table, and what pooling gives."""
    dtype, width = INSTANCES[name]
    rng = np.random.default_rng(seed)
    channels = 3 * width
    x, x_ = down(rng.integers(-9, 9, (IMAGES, channels, HEIGHT, WIDTH)) / 4, dtype)
    if dtype != "bf16":
        x[rng.random(x.shape) < 0.2] = np.nan
        x[0, 0] = np.nan
        x_ = up(x, dtype)
    table = table_of(rois_for(IMAGES, HEIGHT, WIDTH).astype(np.float32), 0.9, IMAGES, HEIGHT, WIDTH, PH, PW)
    return dtype, width, channels, *lay(x, last), x_, table, *pool(x_, table, PH, PW)


@pytest.mark.parametrize("dtype", ["f64", "f32", "bf16", "f16"])
def test_table_kernel(kernels, dtype):
    rois, rois_ = down(rois_for(IMAGES, HEIGHT, WIDTH, count=60), dtype)
    if dtype == "bf16":  # to_bfloat16 does not handle NaN
        rois = np.ascontiguousarray(rois[np.isfinite(rois_).all(1)])
        rois_ = up(rois, dtype)
    wide = np.full((len(rois), 10), 1, rois.dtype)
    wide[:, ::2] = rois
    for ph, pw, scale in ((7, 7, 1 / 16), (3, 2, 0.9), (1, 13, 0.3)):
        real = rois_ if dtype in ("f64", "bf16") else rois
        expected = table_of(real, scale, IMAGES, HEIGHT, WIDTH, ph, pw)
        table, first_bad = np.full(expected.shape, -7, np.int32), np.full(1, -1, np.int64)
        for bad in (first_bad, None):
            arguments = struct(
                ("Pqqd", wide, 10, 2, scale), ("qqqqqq", IMAGES, HEIGHT, WIDTH, ph, pw, len(rois)), ("PP", table, bad)
            )  # fmt: skip
            kernels[f"table_{dtype}"].launch(-(-len(rois) // TABLE_THREADS), TABLE_THREADS, [arguments])
            np.testing.assert_array_equal(table, expected)
        assert first_bad[0] == np.flatnonzero(expected[:, 0] < 0)[0]


@pytest.mark.nvcc
@pytest.mark.parametrize("architecture", toolchain.ARCHITECTURES)
def test_table_products_are_rounded(architecture):
    """No product of the geometry becomes part of an fma, which would round once where the CPU rounds twice."""
    if reason := toolchain.missing("nvcc"):
        pytest.skip(reason)
    tables = re.findall(
        r"\.entry \w*roi_table_kernel\w*\(.*?\n}\n", ptx.compile_ptx(SOURCE, architecture), re.S
    )
    assert len(tables) == 4 and all("mul.f" in text for text in tables)
    assert not any("fma." in text or "mad.f" in text for text in tables)


@pytest.mark.parametrize("name, last", CASES)
def test_pool_kernel(kernels, name, last):
    dtype, width, channels, x, steps, _, table, pooled, argmax = example(name, last)
    k, bins = len(table), PH * PW
    shape = (k, PH, PW, channels) if last else (k, channels, PH, PW)
    for with_argmax in (True, False):
        out = zeros(shape, dtype)
        cells = np.full(shape, -7, np.int32) if with_argmax else None
        arguments = struct(
            ("Pqqqqq", x, *steps, WIDTH), ("Pqq", table, PH, PW), ("PP", out, cells),
            ("qqq", *pooled_strides(channels, bins, last)), ("qqqq", *share(channels // width, bins, last)),
        )  # fmt: skip
        kernels[f"pool_{'argmax_' if with_argmax else ''}{name}"].launch((k, 2, 2), THREADS, [arguments])
        found = up(back(out, last), dtype)
        # The lowest float is -inf in float16.
        expected = np.where(pooled == LOWEST, -np.inf, pooled) if dtype == "f16" else pooled
        np.testing.assert_array_equal(found, expected)
        if with_argmax:
            np.testing.assert_array_equal(back(cells, last), argmax)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("dtype", ["f64", "f32", "f16"])
def test_gather_kernel(kernels, dtype, last):
    _, _, channels, x, steps, x_, table, _, argmax = example(f"{dtype}_single", last)
    k, bins = len(table), PH * PW
    argmax[1, 0, 0, 0], argmax[2, 0, 0, 0] = -5, HEIGHT * WIDTH  # nowhere
    cells, from_ = lay(argmax, not last)
    out = zeros((k, PH, PW, channels) if last else (k, channels, PH, PW), dtype)
    images = np.ascontiguousarray(table[:, :5])  # of a table with one bin
    arguments = struct(
        ("Pqqqq", x, steps[0], steps[1], steps[3], HEIGHT * WIDTH), ("Pqqq", images, 1, 1, PW),
        ("Pqqqq", cells, *from_), ("Pqqq", out, *pooled_strides(channels, bins, last)),
        ("qqqq", *share(channels, bins, last)),
    )  # fmt: skip
    kernels[f"gather_{dtype}"].launch((k, 2, 1), THREADS, [arguments])
    inside = (argmax >= 0) & (argmax < HEIGHT * WIDTH) & (table[:, 0] >= 0)[:, None, None, None]
    planes = x_.reshape(IMAGES, channels, -1)
    n, c = np.maximum(table[:, 0], 0)[:, None, None, None], np.arange(channels)[:, None, None]
    expected = np.where(inside, planes[n, c, np.where(inside, argmax, 0)], 0)
    np.testing.assert_array_equal(up(back(out, last), dtype), expected)


@pytest.mark.parametrize("name, last", CASES)
def test_match_kernel(kernels, name, last):
    dtype, width, channels, x, steps, x_, table, _, _ = example(name, last)
    k, bins, state = len(table), PH * PW, sum_type(dtype)
    x[...] = np.where(np.isnan(x), 0, x) if dtype != "bf16" else x
    pooled, _ = pool(np.nan_to_num(x_), table, PH, PW)
    query, query_ = down(np.random.default_rng(2).standard_normal((channels, bins)), dtype)
    sizes = share(channels // width, bins, last)
    part = sizes[2] if last else THREADS // sizes[2] * 8
    parts = -(-sizes[0] // part)
    sums = np.full((parts, k, 2), np.nan, NUMPY[state])
    arguments = struct(
        ("Pqqqq", x, *steps), ("Pqq", table, PH, PW), ("P", np.ascontiguousarray(query.T) if last else query),
        ("qqq", *pooled_strides(channels, bins, last)), ("Pqq", sums, k, parts), ("qqqq", *sizes),
    )  # fmt: skip
    kernels[f"match_{name}"].launch((k, 1), THREADS, [arguments])  # all parts in turn
    p = pooled.reshape(k, channels, bins)
    step = part * width
    for n in range(parts):
        mine = slice(n * step, (n + 1) * step)
        close(sums[n, :, 0], (p[:, mine] ** 2).sum((1, 2)), state)
        close(sums[n, :, 1], (p[:, mine] * query_[mine]).sum((1, 2)), state)


@pytest.mark.parametrize("dtype", ["f64", "f32", "bf16"])
def test_sum_rows_kernel(kernels, dtype):
    rng = np.random.default_rng(3)
    count, along, across, state = 11, 3, THREADS + 5, sum_type(dtype)
    rows, rows_ = down(rng.standard_normal((count, along, across)), dtype)
    weight, weight_ = down(rng.standard_normal((count, 2)), state)
    for given in (True, False):
        out = zeros((across, along), dtype)
        arguments = struct(
            ("PqPq", rows, count, weight if given else None, 2), ("Pqqqq", out, along, across, 1, along)
        )
        kernels[f"sum_rows_{dtype}"].launch((2, 2), THREADS, [arguments])
        expected = (rows_ * (weight_[:, 0] if given else np.ones(count))[:, None, None]).sum(0)
        close(up(out.T, dtype), expected, dtype)


@pytest.fixture(params=ptx.engines())
def grad_kernels(request):
    return request.param(GRAD_SOURCE)


# More boxes than a block looks at at once for two of them; `grad` and a query, as in roi_match_grad, for three.
GRAD_CASES = [
    (dtype, last, THREADS + 5 if (dtype, last) in (("f32", True), ("f64", False)) else 21, False)
    for dtype in ("f64", "f32", "bf16", "f16")
    for last in (True, False)
] + [("f64", True, 21, True), ("f32", False, 21, True), ("f16", False, 21, True)]


@pytest.mark.parametrize("dtype, last, k, matched", GRAD_CASES)
def test_grad_kernels(grad_kernels, dtype, last, k, matched):
    """Boxes that overlap; several warps and slices of channels."""
    state = sum_type(dtype)
    rng = np.random.default_rng(4)
    channels, bins = 38, PH * PW
    rois = np.tile(rois_for(IMAGES, HEIGHT, WIDTH, count=1), (k // 15 + 1, 1))[:k]
    rois[20:, 1:] += rng.integers(-3, 3, (k - 20, 1))
    table = table_of(rois.astype(np.float32), 0.9, IMAGES, HEIGHT, WIDTH, PH, PW)
    # Any cell of a bin may be its maximum.
    argmax = np.full((k, channels, PH, PW), -1, np.int32)
    for n, row in enumerate(table):
        for i, j, hs, ws in bins_in(row, PH, PW):
            if hs and ws:
                argmax[n, :, i, j] = rng.choice(hs, channels) * WIDTH + rng.choice(ws, channels)
    grad, grad_ = down(rng.standard_normal(argmax.shape), dtype)
    query, query_ = down(rng.standard_normal((channels, bins)), dtype)
    coefficients, c_ = down(rng.standard_normal((k, 2)), state)
    # What points out of the map points nowhere.
    cells = argmax.copy()
    cells[0, 0, 0, 0], cells[1, 0, 0, 0], cells[2, 0, 0, 0] = 10**9, -7, HEIGHT * WIDTH
    argmax[:3, 0, 0, 0] = -1
    (cells, from_), (grad, of_grad) = lay(cells, last), lay(grad, not last)
    value = grad_
    if matched:
        value = (
            c_[:, 0, None, None, None] * query_.reshape(1, channels, PH, PW)
            + c_[:, 1, None, None, None] * grad_
        )
    expected = np.zeros((IMAGES, channels, HEIGHT * WIDTH))
    n, c, i, j = np.nonzero(argmax >= 0)
    np.add.at(expected, (table[n, 0], c, argmax[n, c, i, j]), value[n, c, i, j].astype(float))
    for rows, cols in ((4, 8), (8, 8)) if k < THREADS else ((4, 8),):
        out, steps = lay(zeros((IMAGES, channels, HEIGHT, WIDTH), dtype), last)
        out.view(np.uint8)[:] = 0xFF
        down_, across = -(-HEIGHT // rows), -(-WIDTH // cols)
        # Two launches, as where the lists of all tiles are too long.
        for first, count in ((0, down_ * across), (down_ * across, down_ * across)):
            entries, counts = np.full((count, k, 4), -1, np.int32), np.full(count, -1, np.int32)
            tiles = ("iiqqqq", rows, cols, HEIGHT, WIDTH, first, count)
            arguments = struct(("Pqqq", table, PH, PW, k), tiles, ("PP", entries, counts))
            grad_kernels["list"].launch(count, THREADS, [arguments])
            for number in range(count):
                check_list(entries[number], counts[number], table, first + number, rows, cols, across, down_)
            arguments = struct(
                ("Pqqqq", grad, *of_grad), ("Pqqqq", cells, *from_), ("P", query if matched else None),
                ("qqq", 0, bins, 1), ("P", coefficients if matched else None), ("qq", PW, k), tiles,
                ("PP", entries, counts), ("Pqqqq", out, *steps), ("qq", channels, int(last)),
            )  # fmt: skip
            sums = 128 if dtype == "f64" else 256  # cells times warps
            shared, threads = sums * 33 * np.dtype(NUMPY[state]).itemsize, 32 * sums // (rows * cols)
            grad_kernels[f"{'matched' if matched else 'grad'}_{dtype}"].launch(
                (count, 2), threads, [arguments], shared
            )
        found = up(back(out, last), dtype).reshape(expected.shape)
        close(found, expected, dtype)


def check_list(entries, count, table, number, rows, cols, across, down_):
    """The boxes of a tile in order, each with exactly the bins that touch it between its ends."""
    image, top = number // (across * down_), number // across % down_ * rows
    left, listed = number % across * cols, []
    for box, row in enumerate(table):
        touching = [
            (i, j)
            for i, j, hs, ws in bins_in(row, PH, PW)
            if row[0] == image
            and hs.start < top + rows and hs.stop > top and ws.start < left + cols and ws.stop > left
        ]  # fmt: skip
        if touching:
            listed.append((box, touching))
    found = {int(e[0]): e for e in entries[:count]}
    assert list(found) == sorted(found) and len(found) == count
    for box, touching in listed:
        i, j = ((int(n) & 0xFFFF, int(n) >> 16) for n in found[box][1:3])
        assert set(touching) <= {(a, b) for a in range(*i) for b in range(*j)}


# ---- The launch wrappers, against the operators of the CPU ----


@contextlib.contextmanager
def emulated(order="random", seed=0):
    """torch's CPU key runs the CUDA launch wrappers."""
    library = build.build_emulated_library(["csrc/cuda/roi_pool_op.cu"])
    with build.emulated_operators(library, order, seed):
        yield


DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def tensor(shape, dtype, seed, layout=torch.contiguous_format):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        .to(dtype)
        .contiguous(memory_format=layout)
    )


def shifted(t):
    """The same values and strides, at an address that allows no wide access."""
    memory = t.new_zeros(t.numel() + 1)[1:]
    return torch.as_strided(memory, t.shape, t.stride(), 1).copy_(t)


def boxes(images, height, width, count, dtype, seed=0):
    """As rois_for, without those that are not valid."""
    if images == 0:
        return torch.zeros(0, 5, dtype=dtype)
    every = rois_for(images, height, width, count, seed)
    valid = np.isfinite(every).all(1) & (every[:, 0] >= 0) & (every[:, 0] < images) & (every[:, 0] % 1 == 0)
    return torch.tensor(every[valid]).to(dtype)


def run(x, rois, size=(3, 4), scale=0.75, grad=None, query=None):
    """Everything exact, and everything with sums whose order is the device's own."""
    ops, (n, c, h, w) = torch.ops.amstel, x.shape
    output, argmax = ops.roi_pool(x, rois, scale, *size, True)
    plain, none = ops.roi_pool(x, rois, scale, *size, False)
    assert none.numel() == 0
    last = c > 1 and x.stride(1) == 1 and not x.is_contiguous()
    grad = tensor(output.shape, x.dtype, 11).to(x.device) if grad is None else grad
    grad_input = ops.roi_pool_grad(grad, argmax, rois, scale, n, h, w, last)
    gathered = ops.roi_pool_gather(x, argmax, rois)
    finite = x.nan_to_num()
    query = tensor((output.shape[1:].numel(),), x.dtype, 12).to(x.device) if query is None else query
    coefficients = tensor((len(rois), 2), torch.promote_types(x.dtype, torch.float32), 13).to(x.device)
    sums = ops.roi_match(finite, rois, query, scale, *size)
    both = ops.roi_match_grad(finite, rois, query, coefficients, scale, *size, True, True)
    for n, needs in enumerate(((True, False), (False, True))):
        one = ops.roi_match_grad(finite, rois, query, coefficients, scale, *size, *needs)
        assert torch.equal(one[n], both[n]) and one[1 - n].numel() == 0
    return [output, argmax, plain, gathered], [grad_input, sums, *both]


def check(found, expected, dtype):
    for ours, theirs in zip(found[0], expected[0], strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        assert ours.numel() == 0 or ours.stride() == theirs.stride()
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
    for ours, theirs in zip(found[1], expected[1], strict=True):
        assert ours.dtype == theirs.dtype and (ours.numel() == 0 or ours.stride() == theirs.stride())
        assert_close(ours, theirs.double(), dtype)


def compare(x, rois, **options):
    cpu = run(x, rois, **options)
    with emulated():
        check(run(x, rois, **options), cpu, x.dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_operators(dtype, layout):
    """All that is exact to the bit, argmax included; boxes in every dtype, values that are NaN."""
    for channels in (1, 3, 16, 40):
        x = tensor((2, channels, 9, 35), dtype, 1, LAYOUTS[layout])
        x.masked_fill_(tensor(x.shape, torch.float32, 2) > 1, torch.nan)
        x[1, channels // 2] = torch.nan
        for of_boxes in DTYPES if channels == 16 else [dtype]:
            compare(x, boxes(2, 9, 35, 20, of_boxes))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_operators_sizes(dtype):
    """Sizes 0 and 1, bins in numbers that leave threads idle, more boxes than a block of the gradient lists."""
    for shape in (
        (0, 4, 5, 5),
        (2, 0, 5, 5),
        (2, 4, 0, 5),
        (2, 4, 5, 0),
        (1, 1, 1, 1),
        (3, 2, 1, 40),
        (1, 8, 17, 1),
    ):
        for layout in LAYOUTS.values():
            x = tensor(shape, dtype, 1, layout)
            compare(x, boxes(*(shape[i] for i in (0, 2, 3)), 3, dtype), size=(2, 3))
    x = tensor((2, 8, 12, 11), dtype, 1, torch.channels_last)
    compare(x, boxes(2, 12, 11, 0, dtype)[:0])
    for size in ((1, 1), (14, 14), (1, 130)):
        compare(x, boxes(2, 12, 11, 2, dtype), size=size)
    compare(x[:, :3].contiguous(), boxes(2, 12, 11, 2 * THREADS, dtype), size=(2, 1))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_operators_strides(dtype):
    """Addresses that allow no wide access, slices, transposed and expanded maps and gradients."""
    x = tensor((2, 16, 8, 18), dtype, 1, torch.channels_last)
    rois = boxes(2, 8, 18, 6, dtype)
    wide = torch.stack([rois, rois], 2)[:, :, 1]
    k = len(rois)
    for layout in (
        shifted(x), x[:, 3:11], x[:, ::2], x[..., 2:-3], x[:1].expand(2, -1, -1, -1), x.transpose(2, 3),
        x.contiguous().transpose(1, 3), shifted(x.contiguous()),
    ):  # fmt: skip
        compare(layout, boxes(2, *layout.shape[2:], 6, dtype))
    compare(x, wide)
    compare(x, rois, size=(1, 1), query=shifted(tensor((16,), dtype, 6)))
    for grad in (
        tensor((k, 16, 3, 4), dtype, 5, torch.channels_last), tensor((1, 1, 1, 1), dtype, 5).expand(k, 16, 3, 4),
        tensor((4, 3, 16, k), dtype, 5).permute(3, 2, 1, 0),
    ):  # fmt: skip
        compare(x, rois, grad=grad)
        compare(x.contiguous(), rois, grad=grad)


def test_operators_more_than_a_grid():
    """Images, slices of channels and turns along bins and channels beyond the limits of a grid, which are low on the
    emulator, as is the memory in which roi_match_grad takes one slice of the channels after the other."""
    for layout in LAYOUTS.values():
        compare(tensor((5, 300, 5, 6), torch.float32, 1, layout), boxes(5, 5, 6, 4, torch.float32))
        compare(
            tensor((1, 2, 5, 6), torch.float16, 1, layout), boxes(1, 5, 6, 1, torch.float32), size=(30, 31)
        )


def test_operators_bits_do_not_depend_on_the_order_of_threads():
    for layout in LAYOUTS.values():
        x, rois = tensor((2, 24, 12, 20), torch.float32, 1, layout), boxes(2, 12, 20, 40, torch.float32)
        results = []
        for order in build.ORDERS:
            with emulated(order, seed=7):
                exact, sums = run(x, rois)
                results.append(exact + sums)
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


BAD_BOXES = [
    (2, 0, 0, 3, 3),
    (-1, 0, 0, 3, 3),
    (0.5, 0, 0, 3, 3),
    (0, torch.nan, 0, 3, 3),
    (0, 0, 0, torch.inf, 3),
]


def message(function, *arguments):
    with pytest.raises(RuntimeError) as error:
        function(*arguments)
    return str(error.value).splitlines()[0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_operators_name_the_first_box_that_is_not_valid(dtype):
    ops, x, query = torch.ops.amstel, tensor((2, 4, 5, 6), dtype, 1), tensor((24,), dtype, 2)
    for bad in BAD_BOXES:
        rois = torch.tensor([(1, 0, 0, 3, 3)] * 70 + [bad] * 2, dtype=dtype)
        calls = (ops.roi_pool, x, rois, 1.0, 2, 3, False), (ops.roi_match, x, rois, query, 1.0, 2, 3)
        expected = [message(*call) for call in calls]
        assert all("whole batch index from 0 to 1, got" in e and e.endswith("in row 70") for e in expected)
        with emulated():
            assert [message(*call) for call in calls] == expected


def test_operators_errors():
    """As on the CPU, word for word."""
    ops, x, rois, query = torch.ops.amstel, torch.zeros(2, 3, 5, 6), torch.zeros(4, 5), torch.zeros(18)
    output, argmax = ops.roi_pool(x, rois, 1.0, 2, 3, True)
    c = torch.zeros(4, 2)
    calls = [
        (ops.roi_pool, x[0], rois, 1.0, 2, 3, True), (ops.roi_pool, x.long(), rois, 1.0, 2, 3, True),
        (ops.roi_pool, x, rois[:, 1:], 1.0, 2, 3, True), (ops.roi_pool, x, rois, 0.0, 2, 3, True),
        (ops.roi_pool, x, rois, 1.0, 0, 3, True), (ops.roi_pool, x, rois, 1.0, 2, 40000, True),
        (ops.roi_pool_grad, output.double(), argmax[:2], rois, 1.0, 2, 5, 6, False),
        (ops.roi_pool_grad, output, argmax.long(), rois, 1.0, 2, 5, 6, False),
        (ops.roi_pool_grad, output, argmax, rois, 1.0, -1, 5, 6, False),
        (ops.roi_pool_gather, x, argmax[0], rois), (ops.roi_pool_gather, x, argmax[:, :2], rois),
        (ops.roi_match, x, rois, query[1:], 1.0, 2, 3), (ops.roi_match, x, rois, query.double(), 1.0, 2, 3),
        (ops.roi_match_grad, x, rois, query, c.double(), 1.0, 2, 3, True, True),
        (ops.roi_match_grad, x, rois, query, c[1:], 1.0, 2, 3, True, True),
    ]  # fmt: skip
    expected = [message(*call) for call in calls]
    with emulated():
        assert [message(*call) for call in calls] == expected


def test_gradients_of_boxes_and_positions_that_are_not_valid():
    """They get no gradient, and nothing out of bounds is touched; the CPU raises."""
    ops, x = torch.ops.amstel, tensor((2, 8, 6, 7), torch.float32, 1, torch.channels_last)
    rois, query = boxes(2, 6, 7, 9, torch.float32), tensor((48,), torch.float32, 2)
    output, argmax = ops.roi_pool(x, rois, 1.0, 2, 3, True)
    coefficients = tensor((len(rois), 2), torch.float32, 3)
    keep = torch.arange(len(rois)) % 2 == 0
    spoilt = rois.clone()
    spoilt[~keep] = torch.tensor(BAD_BOXES).repeat(5, 1)[: int((~keep).sum())]
    expected = ops.roi_pool_grad(output[keep], argmax[keep], rois[keep], 1.0, 2, 6, 7, True)
    matched = ops.roi_match_grad(x, rois[keep], query, coefficients[keep], 1.0, 2, 3, True, True)
    nowhere = argmax.clone()
    nowhere[~keep] = torch.tensor([-2, 10**9, 42, 2**31 - 1], dtype=torch.int32).repeat(2)[:, None, None]
    with emulated():
        for found in (
            ops.roi_pool_grad(output, argmax, spoilt, 1.0, 2, 6, 7, True),
            ops.roi_pool_grad(output, nowhere, rois, 1.0, 2, 6, 7, True),
        ):
            assert_close(found, expected.double(), torch.float32)
        gathered = ops.roi_pool_gather(x, nowhere, spoilt)
        for ours, theirs in zip(
            ops.roi_match_grad(x, spoilt, query, coefficients, 1.0, 2, 3, True, True), matched, strict=True
        ):
            assert_close(ours, theirs.double(), torch.float32)
    assert torch.equal(gathered[keep], output[keep]) and not gathered[~keep].any()


def gradients(function, tensors):
    out = function(*tensors)
    weight = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).reshape(out.shape).to(out)
    return out, *torch.autograd.grad(out, tensors, weight)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_public_functions_over_the_wrappers(dtype, layout):
    """Checks and autograd as on a device, with the launch wrappers below, against plain PyTorch."""
    maps = [
        tensor((2, 8, 9, 20), dtype, 1, LAYOUTS[layout]),
        tensor((2, 3, 5, 10), dtype, 2, LAYOUTS[layout]),
    ]
    query, rois = tensor((11 * 6,), dtype, 3), boxes(2, 18, 40, 12, torch.float32)
    leaves = [t.requires_grad_() for t in (*maps, query)]
    wide = [t.detach().double().requires_grad_() for t in leaves]

    def pool(functions):
        return lambda x: functions.roi_pool(x, rois, (3, 2), 0.5)

    def match(functions):
        return lambda a, b, q: functions.roi_match([a, b], rois, q, (3, 2), [0.5, 0.25])

    expected = gradients(pool(reference), wide[:1]), gradients(match(reference), wide)
    with emulated():
        found = gradients(pool(amstel.ops), leaves[:1]), gradients(match(amstel.ops), leaves)
    for ours, theirs in zip(found, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a.dtype == dtype
            assert_close(a, b.detach(), dtype)


def test_gradcheck_over_the_wrappers():
    x = tensor((2, 2, 4, 3), torch.float64, 1, torch.channels_last).requires_grad_()
    query, rois = tensor((8,), torch.float64, 3).requires_grad_(), boxes(2, 4, 3, 3, torch.float64)
    with emulated():
        for function, inputs in (
            (lambda x: amstel.ops.roi_pool(x, rois, 2), (x,)),
            (lambda x, q: amstel.ops.roi_match([x], rois, q, 2, [1.0]), (x, query)),
        ):
            assert torch.autograd.gradcheck(function, inputs)
            assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.slow
def test_sanitized():
    """The kernels of this file, emulated, under AddressSanitizer and UBSan."""
    chosen = "kernel and emulator and not sanitized"
    options = ["-q", "--capture=no", "-p", "no:cacheprovider", "-p", "no:xdist"]
    result = build.run_sanitized(["-m", "pytest", *options, __file__, "-k", chosen])
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert " passed" in result.stdout


# ---- On a GPU ----


@pytest.mark.cuda
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_device(dtype, layout):
    """A map of SINT's size and boxes around a target: what the CPU gives, and the same bits again."""
    x = tensor((2, 64, 90, 160), dtype, 1, LAYOUTS[layout])
    rois = boxes(2, 90, 160, 300, torch.float32)
    expected = run(x, rois, size=(7, 7))
    x, rois = x.cuda(), rois.cuda()
    first, second = (run(x, rois, size=(7, 7)) for _ in range(2))
    for ours, again in zip(first, second, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, again, strict=True))
    check(*(tuple([t.cpu() for t in part] for part in results) for results in (first, expected)), dtype)


def test_no_host_code_calls_exit():
    """What nvcc silently makes of a call of a __device__ function in host code that is a template."""
    library = amstel._library.paths["cuda"]
    if not library:
        pytest.skip("this build has no CUDA library")
    assert b"\0exit\0" not in Path(library).read_bytes()


@pytest.mark.cuda
def test_device_boxes_that_are_not_valid():
    """A bad box on the GPU is an error of Python, and the GPU is usable afterwards."""
    x = torch.randn(2, 8, 30, 40, device="cuda")
    for bad in BAD_BOXES:
        rois = torch.tensor([(1, 0, 0, 3, 3), bad], dtype=torch.float32, device="cuda")
        with pytest.raises(RuntimeError, match=r"whole batch index from 0 to 1, got .* in row 1"):
            amstel.ops.roi_pool(x, rois, 3)
    torch.cuda.synchronize()


@pytest.mark.cuda
def test_device_graph():
    """Captured, replayed with other values and boxes, and with one that is not valid, which is pooled to 0."""
    x = (
        torch.randn(2, 16, 30, 40, device="cuda")
        .contiguous(memory_format=torch.channels_last)
        .requires_grad_()
    )
    rois = boxes(2, 30, 40, 20, torch.float32).cuda()

    def step():
        out = amstel.ops.roi_pool(x, rois, 3)
        return out, torch.autograd.grad(out.square().sum(), x)[0]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        x.copy_(torch.randn_like(x))
    rois[:, 1:] += 2
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(captured, step(), strict=True))
    rois[3, 0] = 2
    graph.replay()
    assert not captured[0][3].any() and captured[0][2].any()
