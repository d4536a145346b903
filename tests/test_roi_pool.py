"""amstel.ops.roi_pool and roi_match against a slow loop, the plain PyTorch reference and torchvision; the contract."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import amstel
from amstel import reference
from amstel.ops.roi_pool import roi_match, roi_pool
from amstel.testing import TOLERANCE, assert_close
from tests.conftest import ROOT

DTYPES = list(TOLERANCE)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
ops = torch.ops.amstel


def normal(*shape, seed=0, dtype=torch.float64, layout=torch.contiguous_format):
    """Numbers with many ties."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = (x * 8).round() / 8
    return x.to(dtype).contiguous(memory_format=layout) if x.dim() == 4 else x.to(dtype)


def special(x):
    """With NaN, infinities and negative zeros."""
    x = x.clone(memory_format=torch.preserve_format)
    if x.numel():
        x[0, 0, :2] = math.nan
        x[0, -1] = -math.inf
        x[-1, 0, :, :3] = -0.0
        x[-1, -1, -1:, -1:] = math.inf
    return x


def boxes_of(k, images, height, width, scale, seed=0, dtype=torch.float32):
    """Every kind of box: inside, outside, swapped ends, points, half cells, whole cells, far away."""
    g = torch.Generator().manual_seed(seed)
    size = torch.tensor([width, height, width, height]) / scale
    b = (torch.rand(k, 4, generator=g) * 1.6 - 0.3) * size
    b[1::7] = (b[1::7] * scale * 2).round() / (2 * scale)
    b[2::7, 2:] = b[2::7, :2]
    b[3::7] *= 50
    b[4::7] = b[4::7].sort(1).values
    b[5::49] = 0
    index = torch.randint(0, max(images, 1), (k, 1), generator=g)
    return torch.cat([index, b], 1).to(dtype)


def loop(x, boxes, size, scale, dtype):
    """torchvision's rule, a scalar at a time, coordinates in NumPy's arithmetic of `dtype`; values and positions."""
    x, boxes = x.double().numpy(), boxes.double().numpy().astype(dtype)
    _, channels, height, width = x.shape
    out = np.zeros((len(boxes), channels, *size))
    argmax = np.full(out.shape, -1, np.int32)

    def ends(first, last, bins, limit):
        first, last = (float(c * dtype(scale)) for c in (first, last))
        first, last = (int(math.copysign(math.floor(abs(c) + 0.5), c)) for c in (first, last))
        bin_size = dtype(dtype(max(last - first + 1, 1)) / dtype(bins))
        for i in range(bins):
            begin = math.floor(dtype(dtype(i) * bin_size)) + first
            end = math.ceil(dtype(dtype(i + 1) * bin_size)) + first
            yield min(max(begin, 0), limit), min(max(end, 0), limit)

    for k, (index, x1, y1, x2, y2) in enumerate(boxes):
        for i, (top, bottom) in enumerate(ends(y1, y2, size[0], height)):
            for j, (left, right) in enumerate(ends(x1, x2, size[1], width)):
                for c in range(channels):
                    best = 0.0 if bottom <= top or right <= left else -3.4028234663852886e38
                    for h in range(top, bottom):
                        for w in range(left, right):
                            if x[int(index), c, h, w] > best:
                                best, argmax[k, c, i, j] = x[int(index), c, h, w], h * width + w
                    out[k, c, i, j] = best
    return torch.from_numpy(out), torch.from_numpy(argmax)


def bits(t):
    return t.contiguous().view({8: torch.int64, 4: torch.int32, 2: torch.int16}[t.dtype.itemsize])


# ---- Values ----


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size, scale", [((7, 7), 0.25), ((3, 5), 1 / 3), ((1, 1), 1.0)])
def test_values_and_positions_are_those_of_the_loop(size, scale, dtype, layout, device):
    """Maxima and their positions are those of a plain loop, bit by bit, with NaN and infinities among them."""
    x = special(normal(2, 3, 11, 14, dtype=dtype, layout=layout))
    boxes = boxes_of(30, 2, 11, 14, scale, dtype=dtype)
    numpy = {torch.float16: np.float16, torch.float32: np.float32}.get(dtype, np.float64)
    expected, positions = loop(x, boxes, size, scale, numpy)
    output, argmax = ops.roi_pool(x.to(device), boxes.to(device), scale, *size, True)
    assert torch.equal(bits(output.cpu()), bits(expected.to(dtype)))
    assert torch.equal(argmax.cpu(), positions)
    if layout == torch.channels_last:
        assert output.is_contiguous(memory_format=layout) and argmax.stride() == output.stride()
    assert torch.equal(bits(roi_pool(x.to(device), boxes.to(device), size, scale)), bits(output))
    assert torch.equal(reference.roi_pool(x, boxes, size, scale), output.cpu())


@pytest.mark.parametrize("of_boxes", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_where_boxes_have_another_dtype(dtype, of_boxes):
    x = normal(1, 2, 40, 70, dtype=dtype)
    boxes = boxes_of(60, 1, 40, 70, 0.3, dtype=of_boxes)
    same = {torch.float16: np.float16, torch.float32: np.float32}
    numpy = same.get(dtype, np.float64) if dtype == of_boxes else np.float32
    expected, _ = loop(x, boxes, (7, 6), 0.3, np.float64 if of_boxes == torch.float64 else numpy)
    assert torch.equal(roi_pool(x, boxes, (7, 6), 0.3), expected.to(dtype))
    assert torch.equal(reference.roi_pool(x, boxes, (7, 6), 0.3), expected.to(dtype))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("channels", [0, 1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 130])
def test_values_at_every_width(channels, layout):
    x = normal(2, channels, 9, 10, dtype=torch.float32, layout=layout)
    boxes = boxes_of(12, 2, 9, 10, 0.5)
    assert torch.equal(roi_pool(x, boxes, 3, 0.5), reference.roi_pool(x, boxes, 3, 0.5))


@pytest.mark.parametrize("images, channels, height, width, k", [
    (1, 3, 5, 6, 0), (0, 3, 5, 6, 0), (1, 3, 0, 6, 4), (1, 3, 5, 0, 4), (1, 0, 5, 6, 4), (1, 1, 1, 1, 4), (3, 2, 1, 9, 5),
])  # fmt: skip
def test_values_of_small_and_empty_sizes(images, channels, height, width, k):
    for layout in LAYOUTS:
        x = normal(images, channels, height, width, layout=layout).requires_grad_()
        boxes = boxes_of(k, images, max(height, 1), max(width, 1), 0.5, dtype=torch.float64)
        out = roi_pool(x, boxes, (2, 3), 0.5)
        (grad,) = torch.autograd.grad(out.sum(), x)
        if height * width:
            assert torch.equal(out, reference.roi_pool(x, boxes, (2, 3), 0.5))
        assert out.shape == (k, channels, 2, 3) and grad.shape == x.shape
        score = roi_match([x], boxes, torch.ones(channels * 6, dtype=x.dtype), (2, 3), [0.5])
        assert score.shape == (k,) and torch.autograd.grad(score.sum(), x)[0].shape == x.shape
        query = torch.ones(channels * 6, dtype=x.dtype, requires_grad=True)
        score = roi_match([x], boxes, query, (2, 3), [0.5])
        (of_query,) = torch.autograd.grad(score.sum(), query)
        assert of_query.abs().sum() == 0 if k * height * width == 0 else of_query.isfinite().all()


def strided(x):
    """The same values in other layouts."""
    n, c, h, w = x.shape
    big = x.new_zeros(n, 2 * c, h + 3, w + 2)
    big[:, ::2, 1:-2, 2:] = x
    yield big[:, ::2, 1:-2, 2:]
    yield big.contiguous(memory_format=torch.channels_last)[:, ::2, 1:-2, 2:]
    wide = x.new_zeros(n, h + 1, w + 2, c).permute(0, 3, 1, 2)
    wide[:, :, 1:, :-2] = x
    yield wide[:, :, 1:, :-2]
    yield x.transpose(2, 3).contiguous().transpose(2, 3)
    yield x[:1].expand(n, -1, -1, -1)


def test_values_and_gradients_of_strided_input():
    x = normal(1, 5, 8, 9).repeat(2, 1, 1, 1)
    boxes = boxes_of(20, 2, 8, 9, 0.5, dtype=torch.float64)
    query = normal(5 * 12)
    for view in strided(x):
        leaf = view.detach().requires_grad_()
        results = []
        for module in (amstel.ops, reference):
            out = module.roi_pool(leaf, boxes, (4, 3), 0.5)
            score = module.roi_match([leaf], boxes, query, (4, 3), [0.5])
            results.append([out, score, *torch.autograd.grad([out.square().sum() + score.sum()], leaf)])
        for got, expected in zip(*results, strict=True):
            torch.testing.assert_close(got, expected)


def test_box_lists():
    x = normal(3, 4, 9, 10, dtype=torch.float32)
    lists = [boxes_of(k, 1, 9, 10, 0.5, seed=k)[:, 1:] for k in (4, 0, 3)]
    rois = torch.cat([torch.cat([torch.full((len(b), 1), float(n)), b], 1) for n, b in enumerate(lists)])
    assert torch.equal(roi_pool(x, lists, 3, 0.5), roi_pool(x, rois, 3, 0.5))
    query = normal(36, dtype=torch.float32)
    assert torch.equal(roi_match([x], lists, query, 3, [0.5]), roi_match([x], rois, query, 3, [0.5]))
    assert roi_pool(x[:0], [], 3).shape == (0, 4, 3, 3)
    # bfloat16 has no 257, so that the index must not be in it.
    many = torch.arange(300.0)[:, None, None, None].bfloat16().expand(-1, 1, 2, 2)
    index = roi_pool(many, [torch.zeros(1, 4, dtype=torch.bfloat16)] * 300, 1)
    assert torch.equal(index.flatten(), torch.arange(300.0).bfloat16())


def test_offsets_beyond_32_bits():
    # 3.2 billion elements, of which a few pages are touched.
    x = torch.empty(4, 1, 40_000, 20_000, dtype=torch.bfloat16)
    x[3, 0, 39_990:, 19_990:] = normal(10, 10, dtype=torch.bfloat16)
    boxes = torch.tensor([[3, 19_990, 39_990, 19_999, 39_999]], dtype=torch.float64)
    moved = torch.tensor([[0.0, 0, 0, 9, 9]])
    small = x[3:, :, 39_990:, 19_990:].contiguous()
    assert torch.equal(roi_pool(x, boxes, 3), roi_pool(small, moved, 3))
    query = normal(9, dtype=torch.bfloat16)
    torch.testing.assert_close(
        roi_match([x], boxes, query, 3, [1.0]), roi_match([small], moved, query, 3, [1.0])
    )


def test_a_window_too_large_for_many_channels():
    """Two far corners and the whole of a wide map: one channel at a time."""
    x = normal(1, 34, 900, 1300, dtype=torch.float32)
    boxes = torch.tensor([[0.0, 0, 0, 1299, 899], [0, 3, 4, 90, 50], [0, 5, 0, 1290, 880]])
    leaf = x.requires_grad_()
    out = roi_pool(leaf, boxes, (2, 3))
    expected = torch.stack([
        torch.nn.functional.adaptive_max_pool2d(x[0, :, int(b[2]) : int(b[4]) + 1, int(b[1]) : int(b[3]) + 1], (2, 3))
        for b in boxes
    ])  # fmt: skip
    assert torch.equal(out, expected)
    assert torch.equal(
        *(torch.autograd.grad(o.sum(), leaf, retain_graph=True)[0].sum((2, 3)) for o in (out, expected))
    )


# ---- torchvision ----


def torchvision_ops():
    try:
        return pytest.importorskip("torchvision", exc_type=ImportError).ops
    except RuntimeError as error:  # built for another torch
        pytest.skip(f"torchvision does not load: {error}")


@pytest.mark.parametrize(
    "dtype, count", [(torch.float32, 1_000_000), (torch.float64, 50_000), (torch.float16, 50_000)]
)
def test_a_million_boxes_as_torchvision(dtype, count):
    torchvision_ops()
    g = torch.Generator().manual_seed(1)
    for part in range(0, count, 50_000):
        height, width = (int(torch.randint(1, 40, (1,), generator=g)) for _ in range(2))
        scale = [1.0, 0.25, 1 / 16, 0.3, 1 / 7][part // 50_000 % 5]
        size = [(7, 7), (1, 1), (3, 2), (6, 6), (2, 9)][part // 100_000 % 5]
        x = special(normal(3, 2, height, width, seed=part, dtype=dtype))
        if part % 100_000:
            x = x.contiguous(memory_format=torch.channels_last)
        boxes = boxes_of(50_000, 3, height, width, scale, seed=part, dtype=dtype)
        expected, positions = torch.ops.torchvision.roi_pool(x.contiguous(), boxes, scale, *size)
        output, argmax = ops.roi_pool(x, boxes, scale, *size, True)
        assert torch.equal(bits(output), bits(expected)) and torch.equal(argmax, positions)
        assert torch.equal(bits(roi_pool(x, boxes, size, scale)), bits(expected))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_gradient_bits_as_torchvision(layout):
    tv = torchvision_ops()
    x = torch.randn(2, 37, 30, 40).contiguous(memory_format=layout).requires_grad_()
    boxes = boxes_of(300, 2, 30, 40, 0.25)
    grad = torch.randn(300, 37, 7, 7)
    results = [torch.autograd.grad(f(x, boxes, (7, 7), 0.25), x, grad)[0] for f in (roi_pool, tv.roi_pool)]
    assert torch.equal(*results)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_bits_of_results_larger_than_the_caches(dtype, layout):
    """Those are written past the caches, whole vectors at a time; 48 channels are a tile and a half of float32."""
    torchvision_ops()
    tv, size = torch.ops.torchvision, (7, 7)
    x = special(normal(2, 48, 210, 220, dtype=dtype, layout=layout))
    boxes = boxes_of(1900, 2, 20, 24, 1.0, dtype=dtype)
    want, at = tv.roi_pool(x.contiguous(), boxes, 1.0, *size)
    got, argmax = ops.roi_pool(x, boxes, 1.0, *size, True)
    assert min(x.numel(), got.numel()) * x.element_size() > 1 << 24
    assert torch.equal(bits(got), bits(want)) and torch.equal(argmax, at)
    assert torch.equal(bits(ops.roi_pool(x, boxes, 1.0, *size, False)[0]), bits(want))
    grad = normal(*got.shape, seed=1, dtype=dtype, layout=layout)
    last = layout == torch.channels_last
    ours = ops.roi_pool_grad(grad, argmax, boxes, 1.0, 2, 210, 220, last)
    theirs = tv._roi_pool_backward(grad.contiguous(), boxes, at, 1.0, *size, *x.shape)
    assert torch.equal(bits(ours), bits(theirs))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("channels", [1, 31, 32, 64])
def test_one_position_outside_of_the_map_raises(channels, layout):
    boxes = torch.tensor([[0.0, 0, 0, 5, 5]]).repeat(3, 1)
    grad = normal(3, channels, 2, 2, dtype=torch.float32, layout=layout)
    for wrong in (36, -2, 1 << 30, -(1 << 31)):
        argmax = torch.zeros(3, channels, 2, 2, dtype=torch.int32).contiguous(memory_format=layout)
        argmax[1, -1, 1, 0] = wrong
        with pytest.raises(RuntimeError, match="`argmax` must be -1 or"):
            ops.roi_pool_grad(grad, argmax, boxes, 1.0, 1, 6, 6, layout == torch.channels_last)


def test_in_place_of_torchvision():
    tv = torchvision_ops()
    from amstel.interop import torchvision as interop

    x, boxes = torch.randn(2, 3, 12, 14), [torch.tensor([[0.0, 0, 30, 40]]), torch.tensor([[9.0, 9, 8, 8]])]
    assert torch.equal(
        interop.roi_pool(x, boxes, output_size=(3, 2), spatial_scale=0.25),
        tv.roi_pool(x, boxes, (3, 2), 0.25),
    )

    class Head(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.box = torch.nn.ModuleDict({"pool": tv.RoIPool((3, 2), 0.25)})

        def forward(self, x, boxes):
            return self.box["pool"](x, boxes).sum(1)

    head = Head()
    before = head(x, boxes)
    assert interop.convert(head) is head and type(head.box["pool"]) is amstel.nn.RoIPool
    assert torch.equal(head(x, boxes), before)
    assert type(interop.convert(tv.RoIPool(7, 1.0))) is amstel.nn.RoIPool
    shared = torch.nn.ModuleList([tv.RoIPool(7, 1.0)] * 2)
    shared.append(torch.nn.Sequential(shared[0]))
    assert interop.replace_(shared) == 1
    assert shared[0] is shared[1] is shared[2][0] and type(shared[0]) is amstel.nn.RoIPool
    assert repr(amstel.nn.RoIPool(7, 0.25)) == "RoIPool(output_size=7, spatial_scale=0.25)"


# ---- Gradients ----


def ours_and_reference(f, leaves, seed=9):
    """The outputs and gradients of f(amstel.ops) and f(reference)."""
    results = []
    for module in (amstel.ops, reference):
        out = f(module)
        grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        results.append([out, *torch.autograd.grad(out, leaves, grad.to(out.device, out.dtype))])
    return zip(*results, strict=True)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels", [1, 5, 33])
def test_gradients(channels, dtype, layout, device):
    """The gradient is that of plain PyTorch in float64, zero in an image without a box."""
    x = normal(3, channels, 11, 9, layout=layout)
    boxes = boxes_of(40, 2, 11, 9, 0.5, dtype=torch.float64)  # none in the last image
    boxes = boxes[:, [0, 1, 2, 3, 4]].to(device)
    short = x.to(device, dtype).requires_grad_()
    wide = short.detach().double().requires_grad_()
    grad = normal(40, channels, 3, 4, seed=3)
    (got,) = torch.autograd.grad(roi_pool(short, boxes, (3, 4), 0.5), short, grad.to(device, dtype))
    (expected,) = torch.autograd.grad(reference.roi_pool(wide, boxes, (3, 4), 0.5), wide, grad.to(device))
    assert got.stride() == short.stride()
    assert_close(got, expected, dtype)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_match_values_and_gradients(dtype, layout, device):
    """Scores of three maps and their gradients are those of plain PyTorch in float64."""
    # No box is in the last image.
    shapes, scales = [(3, 5, 11, 9), (3, 33, 6, 5), (3, 1, 3, 3)], [0.5, 0.25, 0.125]
    boxes = boxes_of(40, 2, 11, 9, 0.5).to(device)
    short = [
        normal(*s, seed=i, layout=layout).to(device, dtype).requires_grad_() for i, s in enumerate(shapes)
    ]
    query = normal(39 * 12, seed=7).to(device, dtype).requires_grad_()
    score = roi_match(short, boxes, query, (3, 4), scales)
    assert score.dtype == dtype
    wide = [t.detach().double().requires_grad_() for t in (*short, query)]
    # The bins of the short types' boxes, which float64 input would not change: boxes are float32 in both.
    expected = reference.roi_match(wide[:-1], boxes, wide[-1], (3, 4), scales)
    assert_close(score, expected, dtype)
    grad = normal(40, seed=4).to(device)
    got = torch.autograd.grad(score, [*short, query], grad.to(dtype))
    for g, e in zip(got, torch.autograd.grad(expected, wide, grad), strict=True):
        assert_close(g, e, dtype)


def test_match_is_pooling_normalizing_and_multiplying():
    """Against the operators that it replaces, and where what is pooled is zero."""
    x = normal(1, 20, 12, 12, dtype=torch.float32)
    y = torch.zeros(1, 3, 6, 6)
    boxes = torch.cat([boxes_of(20, 1, 12, 12, 0.25), torch.tensor([[0.0, 900, 900, 950, 950]])])
    query = normal(23 * 49, seed=1, dtype=torch.float32)
    parts = [
        torch.nn.functional.normalize(roi_pool(m, boxes, 7, s).flatten(1), dim=1)
        for m, s in ((x, 0.25), (y, 0.125))
    ]
    score = roi_match([x, y], boxes, query, 7, [0.25, 0.125])
    torch.testing.assert_close(score, torch.cat(parts, 1) @ query, rtol=1e-5, atol=1e-5)
    assert score[-1] == 0
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(roi_match([leaf], boxes[-1:], query[: 20 * 49], 7, [0.25]), leaf)
    assert torch.equal(grad, torch.zeros_like(leaf))


def test_gradcheck_and_gradgradcheck():
    # Distinct numbers, so that a small step changes no maximum.
    x = (torch.randperm(2 * 3 * 6 * 5, generator=torch.Generator().manual_seed(0)).double() / 10).reshape(
        2, 3, 6, 5
    )
    boxes = boxes_of(6, 2, 6, 5, 0.5, dtype=torch.float64)
    query = normal(3 * 6, seed=2)
    for layout in LAYOUTS:
        leaf = x.contiguous(memory_format=layout).requires_grad_()
        pool = lambda t: roi_pool(t, boxes, (3, 2), 0.5).sin()  # noqa: E731
        match = lambda t, q: roi_match([t, 2 * t], boxes, torch.cat([q, q]), (3, 2), [0.5, 0.25])  # noqa: E731
        fast = layout is not LAYOUTS[0]
        assert torch.autograd.gradcheck(pool, leaf)
        assert torch.autograd.gradgradcheck(pool, leaf, fast_mode=fast)
        leaves = (leaf, query.clone().requires_grad_())
        assert torch.autograd.gradcheck(match, leaves)
        assert torch.autograd.gradgradcheck(match, leaves, fast_mode=fast)


def test_forward_mode_of_gradients_in_batches():
    """Of a graph that was recorded before: the gradient is linear in what it is given."""
    g = torch.Generator().manual_seed(5)
    x = torch.randn(2, 3, 9, 11, dtype=torch.float64, generator=g, requires_grad=True)
    y = roi_pool(x, torch.tensor([[0.0, 1, 1, 5, 5], [1, 0, 0, 8, 8]]), (2, 3))
    vjp = lambda v: torch.autograd.grad(y, x, v, retain_graph=True)[0]  # noqa: E731
    v, t = torch.randn(2, 4, *y.shape, dtype=torch.float64, generator=g)
    _, found = torch.func.jvp(torch.vmap(vjp), (v,), (t,))
    torch.testing.assert_close(found, torch.stack([vjp(one) for one in t]))


def test_third_derivative_and_gradient_of_part():
    x, query = normal(1, 2, 5, 5).requires_grad_(), normal(18).requires_grad_()
    boxes = torch.tensor([[0.0, 0, 0, 4, 4], [0, 1, 1, 3, 4]])
    y = roi_pool(x, boxes, 3).pow(4).sum()
    for _ in range(3):
        (y,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    z = reference.roi_pool(x, boxes, 3).pow(4).sum()
    for _ in range(3):
        (z,) = torch.autograd.grad(z.sum(), x, create_graph=True)
    torch.testing.assert_close(y, z)
    for leaves in ([x], [query]):
        fixed = [t if any(t is l for l in leaves) else t.detach() for t in (x, query)]
        for got, expected in ours_and_reference(
            lambda m, f=fixed: m.roi_match([f[0]], boxes, f[1], 3, [1.0]), leaves
        ):
            torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_same_bits_for_any_number_of_threads(dtype, layout):
    x = torch.randn(2, 70, 60, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    x = x.contiguous(memory_format=layout).requires_grad_()
    query = torch.randn(70 * 49, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
    boxes = boxes_of(600, 2, 60, 64, 0.25)
    before, runs = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            out, score = roi_pool(x, boxes, 7, 0.25), roi_match([x], boxes, query, 7, [0.25])
            runs.append(
                [out, score, *torch.autograd.grad([out.float().square().sum(), score.sum()], [x, query])]
            )
    finally:
        torch.set_num_threads(before)
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))


def test_nothing_is_kept_or_allocated_without_need(tmp_path):
    """roi_match at SINT's shape needs less than 2 MB a thread beside its arguments; roi_pool saves no argmax unless asked."""
    script = tmp_path / "peak.py"
    script.write_text(
        "import torch, amstel\n"
        "torch.set_num_threads(1)\n"
        "x = [torch.randn(1, 512, 128, 128).contiguous(memory_format=torch.channels_last) for _ in range(2)]\n"
        "from amstel.tracking.candidates import candidates\n"
        "box = torch.tensor([205.0, 130.0, 102.0, 124.0], dtype=torch.float64)\n"
        "corner, size = candidates(box, box, 512).split(2, 1)\n"
        "boxes = torch.cat([corner, corner + size], 1) * torch.tensor([1, 512 / 384] * 2)\n"
        "boxes = torch.nn.functional.pad(boxes, (1, 0)).float()\n"
        "query = torch.randn(2 * 512 * 49)\n"
        "run = lambda k: amstel.ops.roi_match(x, boxes[:k], query, 7, [0.25, 0.25])\n"
        "run(2)  # pages of code come in once\n"
        "peak = lambda: int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
        "open('/proc/self/clear_refs', 'w').write('5')  # the peak is now what is held\n"
        "before = peak(); run(303); print(peak() - before)\n"
    )
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 2048, f"{run.stdout} KB"
    x, boxes = torch.randn(1, 4, 8, 8), boxes_of(3, 1, 8, 8, 0.5)
    assert ops.roi_pool(x, boxes, 0.5, 2, 2, False)[1].numel() == 0
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        roi_pool(x.requires_grad_(), boxes, 2, 0.5)
        roi_match([x], boxes, torch.randn(16), 2, [0.5])
    assert max(t.numel() for t in saved if t.data_ptr() != x.data_ptr()) <= 3 * 4 * 4


# ---- Composition ----


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_opcheck(dtype, layout):
    x = normal(2, 3, 6, 7, dtype=dtype, layout=layout)
    boxes = boxes_of(5, 2, 6, 7, 0.5)
    output, argmax = ops.roi_pool(x, boxes, 0.5, 2, 3, True)
    query, coefficients = normal(18, dtype=dtype), torch.randn(5, 2)
    last = layout == torch.channels_last
    for op, arguments in (
        (ops.roi_pool, (x, boxes, 0.5, 2, 3, True)),
        (ops.roi_pool, (x, boxes, 0.5, 2, 3, False)),
        (ops.roi_pool_grad, (output, argmax, boxes, 0.5, 2, 6, 7, last)),
        (ops.roi_pool_gather, (x, argmax, boxes)),
        (ops.roi_match, (x, boxes, query, 0.5, 2, 3)),
        (ops.roi_match_grad, (x, boxes, query, coefficients, 0.5, 2, 3, True, True)),
        (ops.roi_match_grad, (x, boxes, query, coefficients, 0.5, 2, 3, False, True)),
        (ops.roi_match_grad, (x, boxes, query, coefficients, 0.5, 2, 3, True, False)),
    ):
        torch.library.opcheck(op.default, arguments)


def compiled_pool(x, y, boxes, query):
    return roi_pool(x, boxes, (2, 3), 0.5).square(), roi_pool(y, [boxes[:3, 1:], boxes[3:5, 1:]], 2, 0.25)


def compiled_match(x, y, boxes, query):
    return (roi_match([x, y], boxes, query, (2, 3), [0.5, 0.25]),)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("f", [compiled_pool, compiled_match])
def test_compile_gives_the_same(f, dynamic):
    torch._dynamo.reset()
    compiled = torch.compile(f, fullgraph=True, dynamic=dynamic)
    for k, size in ((9, (8, 9)), (5, (11, 7))) if dynamic else ((9, (8, 9)),):
        x = normal(2, 3, *size, dtype=torch.float32, layout=torch.channels_last).requires_grad_()
        y = normal(2, 4, 5, 5, dtype=torch.float32).requires_grad_()
        boxes, query = boxes_of(k, 2, *size, 0.5), normal(42, dtype=torch.float32).requires_grad_()
        leaves = [x, y, query][: 3 if f is compiled_match else 2]
        results = []
        for g in (f, compiled):
            out = g(x, y, boxes, query)
            results.append([*out, *torch.autograd.grad([t.sum() for t in out], leaves)])
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_export_and_symbolic_trace():
    pool = amstel.nn.RoIPool((2, 3), 0.5)
    x, boxes = normal(2, 3, 6, 7, dtype=torch.float32), boxes_of(5, 2, 6, 7, 0.5)
    program = torch.export.export(pool, (x, boxes))
    assert [n for n in program.graph.nodes if "amstel" in str(n.target)]
    assert torch.equal(program.module()(x, boxes), pool(x, boxes))
    traced = torch.fx.symbolic_trace(pool)
    assert torch.equal(traced(x, boxes), pool(x, boxes))
    traced = torch.fx.symbolic_trace(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.ReLU()))
    assert roi_pool(traced(x), boxes, 2).shape == (5, 4, 2, 2)


def test_autocast():
    x, boxes = normal(1, 3, 8, 8, dtype=torch.float32).requires_grad_(), boxes_of(5, 1, 8, 8, 0.5)
    with torch.autocast("cpu", torch.bfloat16):
        y = torch.nn.functional.conv2d(x, torch.ones(4, 3, 1, 1))
        out, score = roi_pool(y, boxes, 2, 0.5), roi_match([y], boxes, torch.ones(16).bfloat16(), 2, [0.5])
    assert out.dtype == score.dtype == y.dtype == torch.bfloat16
    (out.sum() + score.sum()).backward()
    assert x.grad.dtype == torch.float32 and x.grad.abs().sum() > 0


# ---- Bad input ----

X, BOXES, QUERY = torch.zeros(2, 3, 6, 7), torch.tensor([[0.0, 1, 1, 9, 9]]), torch.zeros(12)


@pytest.mark.parametrize("row, message", [
    ([math.nan, 0, 0, 1, 1], "batch index from 0 to 1"), ([0, math.nan, 0, 1, 1], "finite"),
    ([0, 0, math.inf, 1, 1], "finite"), ([0, 0, 0, -math.inf, 1], "finite"), ([0, 0, 0, 1, math.nan], "finite"),
    ([2, 0, 0, 1, 1], r"got \(2, 0, 0, 1, 1\) in row 1"), ([-1, 0, 0, 1, 1], "from 0 to 1"),
    ([0.5, 0, 0, 1, 1], "whole"), ([1e30, 0, 0, 1, 1], "from 0 to 1"), ([math.inf, 0, 0, 1, 1], "from 0 to 1"),
])  # fmt: skip
@pytest.mark.parametrize("device", DEVICES)
def test_bad_boxes(row, message, device):
    """A bad box is refused with its row and value, by every operator that reads boxes."""
    boxes = torch.cat([BOXES, torch.tensor([row])]).to(device)
    x, query = X.to(device), QUERY.to(device)
    argmax = torch.full((2, 3, 2, 2), -1, dtype=torch.int32, device=device)
    calls = [lambda: roi_pool(x, boxes, 2), lambda: roi_match([x], boxes, query, 2, [1.0])]
    if device == "cpu":  # on CUDA the gradients do not wait to look at boxes again: such a box gets none
        calls += [
            lambda: ops.roi_pool_grad(argmax.float(), argmax, boxes, 1.0, 2, 6, 7, False),
            lambda: ops.roi_pool_gather(x, argmax, boxes),
            lambda: ops.roi_match_grad(x, boxes, query, torch.zeros(2, 2), 1.0, 2, 2, True, True),
        ]
    for call in calls:
        with pytest.raises(RuntimeError, match=message):
            call()


def test_extreme_boxes_are_finite_numbers_like_any():
    """Where torchvision's cast to an integer is undefined."""
    boxes = torch.tensor([
        [0, -3e38, -3e38, 3e38, 3e38], [0, 3e38, 3e38, -3e38, -3e38], [0, 1e18, 0, 1e19, 5], [1, -1e19, -4, -1e18, 5],
        [0, -3e38, 0, 3, 3], [0, 0, 0, 3e38, 3e38],
    ])  # fmt: skip
    x = normal(2, 3, 6, 7, dtype=torch.float32)
    out = roi_pool(x, boxes, 1)
    assert torch.equal(out, reference.roi_pool(x, boxes, 1))
    assert torch.equal(out[0, :, 0, 0], x[0].amax((1, 2))) and out[1:4].abs().sum() == 0
    assert torch.equal(out[5, :, 0, 0], x[0].amax((1, 2)))


@pytest.mark.parametrize("error, message, call", [
    (TypeError, "`input` must be a floating-point tensor", lambda: roi_pool([1], BOXES, 2)),
    (ValueError, r"`input` must be a floating-point tensor \[N, C, H, W\], got float32 \[3, 6, 7\]", lambda: roi_pool(X[0], BOXES, 2)),
    (ValueError, "`input` .*got int64", lambda: roi_pool(X.long(), BOXES, 2)),
    (ValueError, r"`boxes` must be floating-point \[K, 5\].*got float32 \[1, 4\]", lambda: roi_pool(X, BOXES[:, 1:], 2)),
    (ValueError, "`boxes` .*got int64", lambda: roi_pool(X, BOXES.long(), 2)),
    (ValueError, "`boxes` must be on cpu", lambda: roi_pool(X, BOXES.to("meta"), 2)),
    (TypeError, "`boxes` must be a tensor", lambda: roi_pool(X, "boxes", 2)),
    (ValueError, "`boxes` must be a list of 2 tensors, one per image, got 1", lambda: roi_pool(X, [BOXES[:, 1:]], 2)),
    (ValueError, r"`boxes\[1\]` must be .*\[L, 4\].*got float32 \[1, 5\]", lambda: roi_pool(X, [BOXES[:, 1:], BOXES], 2)),
    (TypeError, r"`boxes\[0\]`", lambda: roi_pool(X, [[1, 2, 3, 4], BOXES[:, 1:]], 2)),
    (ValueError, r"`boxes\[1\]` .* of one dtype", lambda: roi_pool(X, [BOXES[:, 1:], BOXES[:, 1:].double()], 2)),
    (ValueError, "2048 images", lambda: roi_pool(X[:1].half().expand(2049, -1, -1, -1), [BOXES[:, 1:].half()] * 2049, 2)),
    (ValueError, "`output_size` must be one or two integers >= 1, got 0", lambda: roi_pool(X, BOXES, 0)),
    (ValueError, "`output_size`", lambda: roi_pool(X, BOXES, (2, 2, 2))),
    (ValueError, "`output_size`", lambda: roi_pool(X, BOXES, (2, -1))),
    (ValueError, "`output_size`", lambda: roi_pool(X, BOXES, 2.5)),
    (RuntimeError, "`output_size` must be from 1 to 32768", lambda: roi_pool(X, BOXES, 40_000)),
    (ValueError, "`spatial_scale` must be a finite number above 0, got 0", lambda: roi_pool(X, BOXES, 2, 0)),
    (ValueError, "`spatial_scale`", lambda: roi_pool(X, BOXES, 2, math.nan)),
    (ValueError, "`spatial_scale`", lambda: roi_pool(X, BOXES, 2, math.inf)),
    (ValueError, "`spatial_scale`", lambda: roi_pool(X, BOXES, 2, "1")),
    (TypeError, "`features` must be a list", lambda: roi_match(X, BOXES, QUERY, 2, [1.0])),
    (TypeError, "`features` must be a list", lambda: roi_match([], BOXES, QUERY, 2, [])),
    (ValueError, r"`features\[1\]` must be like the first", lambda: roi_match([X, X.double()], BOXES, QUERY, 2, [1.0, 1.0])),
    (ValueError, r"`features\[1\]` must be like the first", lambda: roi_match([X, X[:1]], BOXES, QUERY, 2, [1.0, 1.0])),
    (ValueError, "`spatial_scales` must be a list of 1", lambda: roi_match([X], BOXES, QUERY, 2, [1.0, 1.0])),
    (ValueError, "`spatial_scales` must be a list of 1", lambda: roi_match([X], BOXES, QUERY, 2, 1.0)),
    (ValueError, "`spatial_scales` must be a finite", lambda: roi_match([X], BOXES, QUERY, 2, [-1.0])),
    (ValueError, r"`query` must be float32 \[12\]", lambda: roi_match([X], BOXES, QUERY[:4], 2, [1.0])),
    (ValueError, r"`query` must be float32 \[12\]", lambda: roi_match([X], BOXES, QUERY.double(), 2, [1.0])),
])  # fmt: skip
def test_bad_input(error, message, call):
    with pytest.raises(error, match=message):
        call()


ARGMAX = torch.full((1, 3, 2, 2), -1, dtype=torch.int32)
GRAD, PAIR = torch.zeros(1, 3, 2, 2), torch.zeros(1, 2)


@pytest.mark.parametrize("message, call", [
    ("`input`", lambda: ops.roi_pool(X[0], BOXES, 1.0, 2, 2, True)),
    ("`input`", lambda: ops.roi_pool(X.long(), BOXES, 1.0, 2, 2, True)),
    ("`rois`", lambda: ops.roi_pool(X, BOXES[0], 1.0, 2, 2, True)),
    ("`rois`", lambda: ops.roi_pool(X, BOXES.long(), 1.0, 2, 2, True)),
    ("`output_size`", lambda: ops.roi_pool(X, BOXES, 1.0, 0, 2, True)),
    ("`output_size`", lambda: ops.roi_pool(X, BOXES, 1.0, 2, -1, True)),
    ("`spatial_scale`", lambda: ops.roi_pool(X, BOXES, 0.0, 2, 2, True)),
    ("at most 2\\^31 - 1", lambda: ops.roi_pool(torch.zeros(1, 1, 1, 1).expand(1, 1, 1 << 16, 1 << 16), BOXES, 1.0, 2, 2, True)),
    ("`argmax`", lambda: ops.roi_pool_grad(GRAD, ARGMAX.long(), BOXES, 1.0, 2, 6, 7, False)),
    ("`argmax`", lambda: ops.roi_pool_grad(GRAD, ARGMAX[:, :2], BOXES, 1.0, 2, 6, 7, False)),
    ("`grad`", lambda: ops.roi_pool_grad(GRAD[0], ARGMAX, BOXES, 1.0, 2, 6, 7, False)),
    ("`grad`", lambda: ops.roi_pool_grad(GRAD[:0], ARGMAX, BOXES, 1.0, 2, 6, 7, False)),
    ("`height`", lambda: ops.roi_pool_grad(GRAD, ARGMAX, BOXES, 1.0, 2, -6, 7, False)),
    ("`height`", lambda: ops.roi_pool_grad(GRAD, ARGMAX, BOXES, 1.0, 2, 1 << 20, 1 << 20, False)),
    ("`argmax` must be -1 or", lambda: ops.roi_pool_grad(GRAD, ARGMAX + 43, BOXES, 1.0, 2, 6, 7, False)),
    ("`argmax` must be -1 or", lambda: ops.roi_pool_grad(GRAD, ARGMAX - 1, BOXES, 1.0, 2, 6, 7, True)),
    ("`argmax` must be -1 or", lambda: ops.roi_pool_grad(GRAD.half(), ARGMAX + 2_000_000_000, BOXES, 1.0, 2, 6, 7, False)),
    ("`argmax`", lambda: ops.roi_pool_gather(X, ARGMAX[0], BOXES)),
    ("`argmax` must be -1 or", lambda: ops.roi_pool_gather(X, ARGMAX + 43, BOXES)),
    ("`argmax` must be -1 or", lambda: ops.roi_pool_gather(X, ARGMAX - 1, BOXES)),
    ("`query`", lambda: ops.roi_match(X, BOXES, QUERY[1:], 1.0, 2, 2)),
    ("`query`", lambda: ops.roi_match(X, BOXES, QUERY.half(), 1.0, 2, 2)),
    ("`query`", lambda: ops.roi_match(X, BOXES, torch.zeros(24)[::2], 1.0, 2, 2)),
    ("`coefficients`", lambda: ops.roi_match_grad(X, BOXES, QUERY, PAIR[0], 1.0, 2, 2, True, True)),
    ("`coefficients`", lambda: ops.roi_match_grad(X, BOXES, QUERY, PAIR.double(), 1.0, 2, 2, True, True)),
])  # fmt: skip
def test_raw_operators_check_their_arguments(message, call):
    with pytest.raises(RuntimeError, match=message):
        call()


def test_raw_operators_take_nothing():
    for shape in ((0, 3, 6, 7), (2, 0, 6, 7), (2, 3, 0, 7), (2, 3, 6, 0), (0, 0, 0, 0)):
        x, boxes = torch.zeros(shape), BOXES[: shape[0]]
        out, argmax = ops.roi_pool(x, boxes, 1.0, 2, 2, True)
        assert out.abs().sum() == 0 and (argmax == -1).all()
        assert ops.roi_pool_grad(out, argmax, boxes, 1.0, *shape[:1], *shape[2:], False).shape == x.shape
        assert ops.roi_pool_gather(x, argmax, boxes).shape == out.shape
        query = torch.zeros(shape[1] * 4)
        assert ops.roi_match(x, boxes, query, 1.0, 2, 2).abs().sum() == 0
        grads = ops.roi_match_grad(x, boxes, query, torch.zeros(len(boxes), 2), 1.0, 2, 2, True, True)
        assert grads[0].shape == x.shape and grads[1].shape == query.shape


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["base", "avx2"])
def test_on_every_instruction_set(isa):
    """The value tests again in a process of their own with narrower kernels."""
    if "AMSTEL_LIBRARY" in os.environ or isa == ops.cpu_isa():
        return  # this run is on it, or on no CPU kernel at all
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not cuda", __file__, "-k", "values or gradients"],
        env={**os.environ, "AMSTEL_CPU_ISA": isa}, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if "AMSTEL_CPU_ISA must be one of" in done.stdout + done.stderr:
        return  # this machine does not run it
    assert done.returncode == 0, done.stdout[-3000:]
