"""ROI align and position-sensitive ROI pooling against torchvision, whose CPU kernels use one thread.

torchvision runs on contiguous and on channels_last input; results are compared bit for bit. `amstel NCHW`
reads contiguous input too.
"""

import pytest
import torch

from amstel.ops.roi_align import ps_roi_pool, roi_align
from benchmarks.suite import Implementation, Shape, Work, suite
from benchmarks.workloads import random_boxes

tv = pytest.importorskip(
    "torchvision", reason='the peer of this file is torchvision: pip install "amstel[bench]"'
).ops
SIZE = (7, 7)

# channels, height, width, cells per pixel, boxes, samples per side of a bin (-1: as many as it has cells)
ALIGN = {
    "fpn": Shape((256, 100, 152, 1 / 8, 512, 2), (16, 12, 17, 1 / 8, 6, 2)),
    "fpn-coarse": Shape((256, 50, 76, 1 / 16, 300, 2), (16, 12, 17, 1 / 16, 6, 2)),
    "c4": Shape((512, 38, 50, 1 / 16, 300, -1), (16, 12, 17, 1 / 16, 6, -1)),
}
# classes, height, width, cells per pixel, boxes: R-FCN's
POOL = {"rfcn": Shape((21, 38, 50, 1 / 16, 300), (3, 12, 17, 1 / 16, 6))}
OURS = (Implementation("amstel"), Implementation("amstel NCHW"))
THEIRS = (
    Implementation("torchvision", single=True),
    Implementation("torchvision channels_last", single=True),
)


def both(f, given):
    given = given.detach().requires_grad_()

    def run():
        out = f(given)
        return torch.autograd.grad(out, given, out.detach())

    return run


def work(ours, theirs, x, count, step, tolerance):
    """The four implementations, and the bytes of the map and of the output."""
    last = x.contiguous(memory_format=torch.channels_last)
    run = both if step == "both" else (lambda f, given: lambda: f(given))
    channels = ours(last).shape[1]
    moved = 4 * x.numel() + 4 * count * channels * SIZE[0] * SIZE[1]
    return Work(
        {
            "amstel": run(ours, last),
            "amstel NCHW": run(ours, x),
            "torchvision": run(theirs, x),
            "torchvision channels_last": run(theirs, last),
        },
        bytes=moved * (2 if step == "both" else 1),
        tolerance=tolerance,
    )


def aligned(at, channels, height, width, scale, count, ratio, step):
    x = at.randn(1, channels, height, width)
    boxes = random_boxes(count, round(height / scale), round(width / scale)).to(at.device)
    return work(
        lambda x: roi_align(x, boxes, SIZE, scale, ratio, True),
        lambda x: tv.roi_align(x, boxes, SIZE, scale, ratio, True),
        x, count, step, 1e-4 if step == "both" or at.device == "cuda" else 0,
    )  # fmt: skip


def pooled(at, classes, height, width, scale, count, step):
    x = at.randn(1, classes * SIZE[0] * SIZE[1], height, width)
    # Away from the last row and column, which torchvision's forward pass leaves out and its gradient does not.
    inside = round((height - 2) / scale), round((width - 2) / scale)
    boxes = random_boxes(count, *inside).to(at.device)
    return work(
        lambda x: ps_roi_pool(x, boxes, SIZE, scale),
        lambda x: tv.ps_roi_pool(x, boxes, SIZE, scale),
        x, count, step, 1e-4 if step == "both" or at.device == "cuda" else 0,
    )  # fmt: skip


@suite("roi_align", "forward", ALIGN, *OURS, *THEIRS)
def test_align(at, *shape):
    return aligned(at, *shape, "forward")


@suite("roi_align", "both", ALIGN, *OURS, THEIRS[0])
def test_align_gradient(at, *shape):
    return aligned(at, *shape, "both")


@suite("ps_roi_pool", "forward", POOL, *OURS, *THEIRS)
def test_pool(at, *shape):
    return pooled(at, *shape, "forward")


@suite("ps_roi_pool", "both", POOL, *OURS, THEIRS[0])
def test_pool_gradient(at, *shape):
    return pooled(at, *shape, "both")
