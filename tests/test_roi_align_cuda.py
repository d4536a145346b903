"""The CUDA side of ROI align and position-sensitive pooling without a GPU: the launch wrappers and kernels on the
emulator against the operators of the CPU."""

import contextlib

import numpy as np
import pytest
import torch

import amstel  # noqa: F401  (the operators)
from amstel.testing import assert_close
from tests.cuda_emulator import build
from tests.test_roi_pool_cuda import BAD_BOXES, DTYPES, LAYOUTS, boxes, message, shifted, tensor

ops = torch.ops.amstel


@contextlib.contextmanager
def emulated(order="random", seed=0):
    """torch's CPU key runs the CUDA launch wrappers."""
    library = build.build_emulated_library(["csrc/cuda/roi_align_op.cu"])
    with build.emulated_operators(library, order, seed):
        yield


def run(x, rois, size=(3, 2), scale=0.6, sampling=2, aligned=True):
    n, c, h, w = x.shape
    last = c > 1 and x.stride(1) == 1 and not x.is_contiguous()
    output = ops.roi_align(x, rois, scale, *size, sampling, aligned)
    grad = tensor(output.shape, x.dtype, 11).to(x.device)
    found = [output, ops.roi_align_grad(grad, rois, scale, sampling, aligned, n, h, w, last)]
    if c % (size[0] * size[1]) == 0:
        pooled = ops.ps_roi_pool(x, rois, scale, *size)
        grad = tensor(pooled.shape, x.dtype, 12, torch.channels_last if last else torch.contiguous_format)
        grad = grad.to(x.device)
        found += [pooled, ops.ps_roi_pool_grad(grad, rois, scale, n, h, w, last)]
    return found


def compare(x, rois, **options):
    expected = run(x, rois, **options)
    with emulated():
        found = run(x, rois, **options)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        assert ours.numel() == 0 or ours.stride() == theirs.stride()
        assert_close(ours, theirs.double(), x.dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_operators(dtype, layout):
    """Boxes on, around and far from the map, also with their corners swapped; samples by number and by size."""
    x = tensor((2, 48, 9, 19), dtype, 1, LAYOUTS[layout])
    rois = boxes(2, 9, 19, 12, dtype)
    for sampling, aligned in ((2, True), (0, False), (3, False), (-1, True)):
        compare(x, rois, sampling=sampling, aligned=aligned)
    compare(x[:, :6], boxes(2, 9, 19, 4, torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_operators_sizes(dtype):
    for shape in ((0, 6, 5, 5), (2, 0, 5, 5), (2, 6, 0, 5), (1, 6, 1, 1), (3, 6, 1, 40), (1, 6, 17, 1)):
        for layout in LAYOUTS.values():
            compare(tensor(shape, dtype, 1, layout), boxes(*(shape[i] for i in (0, 2, 3)), 3, dtype))
    x = tensor((1, 12, 11, 12), dtype, 1, torch.channels_last)
    compare(x, boxes(1, 11, 12, 0, dtype)[:0])
    compare(shifted(x), boxes(1, 11, 12, 4, dtype), size=(1, 12))
    compare(
        x.contiguous(), boxes(1, 11, 12, 300, dtype), size=(1, 1)
    )  # more boxes than a block looks at at once


def test_operators_bits_do_not_depend_on_the_order_of_threads():
    x, rois = tensor((2, 42, 12, 20), torch.float32, 1), boxes(2, 12, 20, 40, torch.float32)
    results = []
    for order in build.ORDERS:
        with emulated(order, seed=7):
            results.append(run(x, rois))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_operators_name_the_first_box_that_is_not_valid():
    x = tensor((2, 6, 5, 6), torch.float32, 1)
    for bad in BAD_BOXES:
        rois = torch.tensor([(1, 0, 0, 3, 3)] * 70 + [bad] * 2)
        calls = (ops.roi_align, x, rois, 1.0, 2, 3, 2, True), (ops.ps_roi_pool, x, rois, 1.0, 2, 3)
        expected = [message(*call) for call in calls]
        with emulated():
            assert [message(*call) for call in calls] == expected


def test_gradients_of_boxes_that_are_not_valid():
    """None comes from them; the CPU raises."""
    rois, bad = boxes(2, 6, 7, 9, torch.float32), torch.tensor(BAD_BOXES)
    keep = torch.tensor(np.arange(len(rois) + len(bad)) < len(rois))
    every = torch.cat([rois, bad])
    grad = tensor((len(every), 8, 2, 3), torch.float32, 2)
    aligned = ops.roi_align_grad(grad[keep], rois, 1.0, 2, True, 2, 6, 7, False)
    pooled = ops.ps_roi_pool_grad(grad[keep], rois, 1.0, 2, 6, 7, False)
    with emulated():
        assert_close(ops.roi_align_grad(grad, every, 1.0, 2, True, 2, 6, 7, False), aligned.double())
        assert_close(ops.ps_roi_pool_grad(grad, every, 1.0, 2, 6, 7, False), pooled.double())


def test_operators_errors():
    """As on the CPU, word for word."""
    x, rois = torch.zeros(2, 6, 5, 6), torch.zeros(4, 5)
    grad = torch.zeros(4, 6, 2, 3)
    calls = [
        (ops.roi_align, x[0], rois, 1.0, 2, 3, 2, True), (ops.roi_align, x, rois[:, 1:], 1.0, 2, 3, 2, True),
        (ops.roi_align, x, rois, 0.0, 2, 3, 2, True), (ops.roi_align, x, rois, 1.0, 2, 3, 40000, True),
        (ops.roi_align_grad, grad[:3], rois, 1.0, 2, True, 2, 5, 6, False),
        (ops.roi_align_grad, grad, rois, 1.0, 2, True, -1, 5, 6, False),
        (ops.ps_roi_pool, x[:, :5], rois, 1.0, 2, 3), (ops.ps_roi_pool_grad, grad.long(), rois, 1.0, 2, 5, 6, False),
    ]  # fmt: skip
    expected = [message(*call) for call in calls]
    with emulated():
        assert [message(*call) for call in calls] == expected


@pytest.mark.cuda
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_on_a_device(dtype, layout):
    """The same as on the CPU, and the same bits again."""
    x, rois = tensor((2, 48, 30, 41), dtype, 1, LAYOUTS[layout]), boxes(2, 30, 41, 200, dtype)
    for sampling, aligned in ((2, True), (0, False)):
        expected = run(x, rois, sampling=sampling, aligned=aligned)
        found, again = (run(x.cuda(), rois.cuda(), sampling=sampling, aligned=aligned) for _ in range(2))
        for ours, same, theirs in zip(found, again, expected, strict=True):
            assert torch.equal(ours, same) and ours.stride() == theirs.stride()
            assert_close(ours.cpu(), theirs.double(), dtype)


@pytest.mark.cuda
def test_in_a_graph_on_a_device():
    """Captured: boxes are then not looked at, and one that is not valid is pooled to 0."""
    x, rois = tensor((2, 12, 30, 41), torch.float32, 1).cuda(), boxes(2, 30, 41, 9, torch.float32).cuda()
    grad = tensor((len(rois), 12, 3, 2), torch.float32, 2).cuda()

    def everything():
        return [
            ops.roi_align(x, rois, 0.6, 3, 2, 2, True),
            ops.ps_roi_pool(x, rois, 0.6, 3, 2),
            ops.roi_align_grad(grad, rois, 0.6, 2, True, 2, 30, 41, False),
            ops.ps_roi_pool_grad(grad[:, :2].contiguous(), rois, 0.6, 2, 30, 41, False),
        ]

    expected = everything()
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        found = everything()
    graph.replay()
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)
    rois[0, 0] = 7
    graph.replay()
    assert not found[0][0].any() and torch.equal(found[0][1:], expected[0][1:])
