"""ROI pooling and matching against torchvision, one thread each: torchvision's kernel has no more.

torchvision runs on contiguous and on channels_last input and is taken at its faster; results are compared bit for bit
before they are timed. In the groups `nchw` ours reads contiguous input too.
"""

import math
import subprocess
import sys

import pytest
import torch

from amstel.ops.roi_pool import roi_match, roi_pool
from benchmarks.workloads import random_boxes, sint_candidates

tv = pytest.importorskip("torchvision").ops
ops = torch.ops.amstel

# channels, height, width, cells a pixel, boxes
WORKLOADS = {
    "sint": (512, 128, 128, 1 / 4, lambda: sint_candidates()),
    "random300": (512, 38, 50, 1 / 16, lambda: random_boxes(300, 38 * 16, 50 * 16)),
    "random1000": (512, 64, 64, 1 / 16, lambda: random_boxes(1000, 64 * 16, 64 * 16)),
}
SIZE = (7, 7)


def inputs(workload, maps=1):
    channels, height, width, scale, boxes = WORKLOADS[workload]
    g = torch.Generator().manual_seed(0)
    x = [torch.randn(1, channels, height, width, generator=g) for _ in range(maps)]
    return x, [m.contiguous(memory_format=torch.channels_last) for m in x], boxes(), scale


def on(threads, function):
    def run():
        torch.set_num_threads(threads)
        return function()

    return run


@pytest.fixture(autouse=True)
def restore_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("workload", WORKLOADS)
def test_forward(compare, workload):
    (x,), (last,), boxes, scale = inputs(workload)
    expected = tv.roi_pool(x, boxes, SIZE, scale)
    assert torch.equal(roi_pool(x, boxes, SIZE, scale), expected)
    assert torch.equal(roi_pool(last, boxes, SIZE, scale), expected)
    peers = {
        "torchvision": on(1, lambda: tv.roi_pool(x, boxes, SIZE, scale)),
        "torchvision channels_last": on(1, lambda: tv.roi_pool(last, boxes, SIZE, scale)),
    }
    written = expected.numel() * 4
    for layout, given in (("", last), ("_nchw", x)):
        ours = on(1, lambda given=given: roi_pool(given, boxes, SIZE, scale))
        compare(f"roi_pool-forward{layout}-{workload}", {"amstel": ours, **peers}, bytes=written)
    # What a training step takes: with the positions of the maxima.
    training = {
        "amstel": on(1, lambda: ops.roi_pool(last, boxes, scale, *SIZE, True)),
        "torchvision": on(1, lambda: torch.ops.torchvision.roi_pool(x, boxes, scale, *SIZE)),
    }
    compare(f"roi_pool-positions-{workload}", training, bytes=2 * written)


def test_threads(compare):
    _, (last,), boxes, scale = inputs("sint")
    one, two = (on(n, lambda: roi_pool(last, boxes, SIZE, scale)) for n in (1, 2))
    compare("roi_pool-threads-sint", {"amstel": two, "one thread": one})


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("threads", [1, 2])
def test_backward(compare, workload, threads):
    (x,), _, boxes, scale = inputs(workload)
    output, argmax = torch.ops.torchvision.roi_pool(x, boxes, scale, *SIZE)
    grad = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    grad_last, argmax_last = (t.contiguous(memory_format=torch.channels_last) for t in (grad, argmax))
    n, channels, height, width = x.shape

    def ours():
        return ops.roi_pool_grad(grad, argmax, boxes, scale, n, height, width, False)

    def ours_last():
        return ops.roi_pool_grad(grad_last, argmax_last, boxes, scale, n, height, width, True)

    def theirs():
        return torch.ops.torchvision._roi_pool_backward(
            grad, boxes, argmax, scale, *SIZE, n, channels, height, width
        )

    assert torch.equal(ours(), theirs()) and torch.equal(ours_last(), theirs())
    functions = {"amstel": ours, "amstel channels_last": ours_last, "torchvision": theirs}
    moved = 4 * (2 * grad.numel() + x.numel())
    compare(
        f"roi_pool-backward{threads}-{workload}",
        {k: on(threads, f) for k, f in functions.items()},
        bytes=moved,
    )


def match_by_torchvision(maps, boxes, query, scale):
    pooled = [tv.roi_pool(m, boxes, SIZE, scale).flatten(1) for m in maps]
    return torch.cat([torch.nn.functional.normalize(p, dim=1) for p in pooled], 1) @ query


def test_match(compare):
    x, last, boxes, scale = inputs("sint", maps=2)
    query = torch.randn(2 * 512 * 49, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        roi_match(last, boxes, query, SIZE, [scale] * 2),
        match_by_torchvision(x, boxes, query, scale),
        rtol=1e-4,
        atol=1e-4,
    )
    compare(
        "roi_match-forward-sint",
        {
            "amstel": on(1, lambda: roi_match(last, boxes, query, SIZE, [scale] * 2)),
            "amstel NCHW": on(1, lambda: roi_match(x, boxes, query, SIZE, [scale] * 2)),
            "torchvision": on(1, lambda: match_by_torchvision(x, boxes, query, scale)),
        },
    )


def test_match_gradient(compare):
    x, last, boxes, scale = inputs("sint", maps=2)
    query = torch.randn(2 * 512 * 49, generator=torch.Generator().manual_seed(1))

    def step(function, maps):
        leaves = [m.requires_grad_() for m in maps]
        return torch.autograd.grad(function(leaves).sum(), leaves)

    ours = on(1, lambda: step(lambda maps: roi_match(maps, boxes, query, SIZE, [scale] * 2), last))
    theirs = on(1, lambda: step(lambda maps: match_by_torchvision(maps, boxes, query, scale), x))
    for got, expected in zip(ours(), theirs(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    compare("roi_match-backward-sint", {"amstel": ours, "torchvision": theirs})


MEMORY = """
import torch
from benchmarks import bench_roi_pool as bench
torch.set_num_threads(1)
x, last, boxes, scale = bench.inputs("sint", maps=2)
query = torch.randn(2 * 512 * 49)
run = {{
    "amstel": lambda boxes: bench.roi_match(last, boxes, query, bench.SIZE, [scale] * 2),
    "torchvision": lambda boxes: bench.match_by_torchvision(x, boxes, query, scale),
}}[{name!r}]
run(boxes[:2])  # pages of code come in once
peak = lambda: int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
open("/proc/self/clear_refs", "w").write("5")  # the peak is now what is held
before = peak()
run(boxes)
print(peak() - before)
"""


@pytest.mark.parametrize("name", ["amstel", "torchvision"])
def test_match_memory(record, name):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEMORY.format(name=name)],
        capture_output=True,
        text=True,
        check=True,
    )
    record("roi_match-memory-sint", name, peak_MB=round(int(done.stdout) * 1024 / 1e6, 2))
    assert math.isfinite(int(done.stdout))
