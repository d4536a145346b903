"""ROI pooling and matching against torchvision. Its CPU kernel uses one thread, and its CUDA backward pass uses atomics.

torchvision runs on contiguous and on channels_last input; results are compared bit for bit. `amstel NCHW`
reads contiguous input too.
"""

from dataclasses import replace

import pytest
import torch

from amstel.ops.roi_pool import roi_match, roi_pool
from benchmarks.suite import Implementation, Shape, Work, suite
from benchmarks.workloads import random_boxes, sint_candidates

tv = pytest.importorskip(
    "torchvision", reason='the peer of this file is torchvision: pip install "amstel[bench]"'
).ops
ops = torch.ops.amstel
SIZE = (7, 7)

TINY = (8, 12, 16, 1 / 4, "random6")
# channels, height, width, cells per pixel, boxes
MAPS = {
    "sint": Shape((512, 128, 128, 1 / 4, "sint"), TINY),
    "random300": Shape((512, 38, 50, 1 / 16, "random300"), TINY),
    "random1000": Shape((512, 64, 64, 1 / 16, "random1000"), TINY),
    "detection": Shape((256, 200, 304, 1 / 4, "random1000"), TINY, ("cuda",)),
}
#: On the CPU a thousand boxes with positions only with `-m large`: it is the forward pass and a second output.
POSITIONS = MAPS | {"random1000": replace(MAPS["random1000"], large="cpu")}
OURS = (Implementation("amstel"), Implementation("amstel NCHW"))
THEIRS = (
    Implementation("torchvision", single=True),
    Implementation("torchvision channels_last", single=True),
)


def inputs(at, channels, height, width, scale, boxes):
    """The map in both layouts, boxes, and the bytes of the map, of the output, and of the cells of all boxes.

    The last one is not a lower bound: overlapping boxes can share what they read.
    """
    x = at.randn(1, channels, height, width)
    last = x.contiguous(memory_format=torch.channels_last)
    count = boxes.removeprefix("random")
    rois = (
        sint_candidates()
        if boxes == "sint"
        else random_boxes(int(count), round(height / scale), round(width / scale))
    )
    cells = ((rois[:, 3] - rois[:, 1]) * scale + 1) * ((rois[:, 4] - rois[:, 2]) * scale + 1)
    output = 4 * len(rois) * channels * SIZE[0] * SIZE[1]
    return x, last, rois.to(at.device), 4 * x.numel(), output, round(4 * channels * float(cells.sum()))


@suite("roi_pool", "forward", MAPS, *OURS, *THEIRS)
def test_forward(at, channels, height, width, scale, boxes):
    x, last, rois, read, written, gathered = inputs(at, channels, height, width, scale, boxes)
    return Work(
        {
            "amstel": lambda: roi_pool(last, rois, SIZE, scale),
            "amstel NCHW": lambda: roi_pool(x, rois, SIZE, scale),
            "torchvision": lambda: tv.roi_pool(x, rois, SIZE, scale),
            "torchvision channels_last": lambda: tv.roi_pool(last, rois, SIZE, scale),
        },
        bytes=read + written, facts={"cells_bytes": gathered}, tolerance=0,
    )  # fmt: skip


@suite("roi_pool", "positions", POSITIONS, *OURS, THEIRS[0])
def test_positions(at, channels, height, width, scale, boxes):
    """The forward pass of a training step: with the positions of the maxima."""
    x, last, rois, read, written, gathered = inputs(at, channels, height, width, scale, boxes)
    peer = torch.ops.torchvision.roi_pool
    return Work(
        {
            "amstel": lambda: ops.roi_pool(last, rois, scale, *SIZE, True),
            "amstel NCHW": lambda: ops.roi_pool(x, rois, scale, *SIZE, True),
            "torchvision": lambda: peer(x, rois, scale, *SIZE),
        },
        bytes=read + 2 * written, facts={"cells_bytes": gathered}, tolerance=0,
    )  # fmt: skip


@suite("roi_pool", "backward", MAPS, *OURS, Implementation("torchvision", single=True))
def test_backward(at, channels, height, width, scale, boxes):
    """Only the gradient. torchvision's on CUDA differs from run to run."""
    x, _, rois, read, written, _ = inputs(at, channels, height, width, scale, boxes)
    output, argmax = torch.ops.torchvision.roi_pool(x, rois, scale, *SIZE)
    grad = at.randn(*output.shape)
    grad_last, argmax_last = (t.contiguous(memory_format=torch.channels_last) for t in (grad, argmax))
    return Work(
        {
            "amstel": lambda: ops.roi_pool_grad(grad_last, argmax_last, rois, scale, 1, height, width, True),
            "amstel NCHW": lambda: ops.roi_pool_grad(grad, argmax, rois, scale, 1, height, width, False),
            "torchvision": lambda: torch.ops.torchvision._roi_pool_backward(
                grad, rois, argmax, scale, *SIZE, 1, channels, height, width
            ),
        },
        bytes=read + 2 * written,
        tolerance=1e-5 if at.device == "cuda" else 0,
    )


@suite("roi_pool", "both", MAPS, *OURS, THEIRS[0])
def test_both(at, channels, height, width, scale, boxes):
    x, last, rois, read, written, gathered = inputs(at, channels, height, width, scale, boxes)

    def both(f, given):
        given = given.detach().requires_grad_()

        def run():
            out = f(given, rois, SIZE, scale)
            return torch.autograd.grad(out, given, out.detach())

        return run

    return Work(
        {
            "amstel": both(roi_pool, last),
            "amstel NCHW": both(roi_pool, x),
            "torchvision": both(tv.roi_pool, x),
        },
        bytes=2 * read + 4 * written, facts={"cells_bytes": gathered}, tolerance=1e-5,
    )  # fmt: skip


def match_by_torchvision(maps, boxes, query, scale):
    pooled = [tv.roi_pool(m, boxes, SIZE, scale).flatten(1) for m in maps]
    return torch.cat([torch.nn.functional.normalize(p, dim=1) for p in pooled], 1) @ query


MATCH = {name: MAPS[name] for name in ("sint",)}


def matching(at, channels, height, width, scale, boxes, step):
    """Two layers of SINT: pool, normalize, and the product with the query."""
    x, last, rois, read, _, gathered = inputs(at, channels, height, width, scale, boxes)
    xs, lasts = [x, at.randn(*x.shape)], [last]
    lasts.append(xs[1].contiguous(memory_format=torch.channels_last))
    query = at.randn(2 * channels * SIZE[0] * SIZE[1])
    functions = {
        "amstel": (lambda maps: roi_match(maps, rois, query, SIZE, [scale] * 2), lasts),
        "amstel NCHW": (lambda maps: roi_match(maps, rois, query, SIZE, [scale] * 2), xs),
        "torchvision": (lambda maps: match_by_torchvision(maps, rois, query, scale), xs),
    }

    def run(f, maps):
        if step == "forward":
            return lambda: f(maps)
        leaves = [m.detach().requires_grad_() for m in maps]
        return lambda: torch.autograd.grad(f(leaves).sum(), leaves)

    return Work(
        {name: run(f, maps) for name, (f, maps) in functions.items()},
        bytes=2 * read * (1 if step == "forward" else 2), facts={"cells_bytes": 2 * gathered}, tolerance=2e-4,
    )  # fmt: skip


@suite("roi_match", "forward", MATCH, *OURS, Implementation("torchvision", single=True))
def test_match(at, *shape):
    return matching(at, *shape, "forward")


@suite("roi_match", "both", MATCH, *OURS, Implementation("torchvision", single=True))
def test_match_gradient(at, *shape):
    return matching(at, *shape, "both")
