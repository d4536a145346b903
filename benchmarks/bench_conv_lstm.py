"""ConvLSTM against what its users write: a cell that concatenates, convolves once and splits, in a loop over T.

The peer runs in NCHW, in channels_last and compiled; all get the same weights, and their results are compared first.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from amstel.ops.conv_lstm import conv_lstm, conv_lstm_cell

# T, N, C_in, C, H = W: a mid-size encoder, VideoLSTM on VGG's last map, the first layer of moving MNIST.
WORKLOADS = {"encoder": (10, 8, 64, 64, 32), "vgg": (30, 4, 512, 512, 7), "mnist": (10, 16, 1, 64, 64)}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Cell(nn.Module):
    """The usual cell, gates in the order i, f, g, o."""

    def __init__(self, inputs, hidden):
        super().__init__()
        self.conv = nn.Conv2d(inputs + hidden, 4 * hidden, 3, padding=1)

    def forward(self, x, h, c):
        i, f, g, o = self.conv(torch.cat([x, h], 1)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


def unroll(cell, x, hidden, laid):
    n, (height, width) = x.shape[1], x.shape[3:]
    h = x.new_zeros(n, hidden, height, width).to(memory_format=laid)
    c, outputs = h, []
    for frame in x:
        h, c = cell(frame, h, c)
        outputs.append(h)
    return torch.stack(outputs), (h, c)


def implementations(workload, dtype=torch.float32, compiled=True):
    """Functions of x for each implementation, with the tensors whose gradients are wanted."""
    steps, items, inputs, hidden, size = WORKLOADS[workload]
    torch.manual_seed(0)
    cell = Cell(inputs, hidden).to(dtype)
    x = torch.randn(steps, items, inputs, size, size).to(dtype)
    weight, bias = cell.conv.weight.detach(), cell.conv.bias.detach()
    ours = [w.clone() for w in (weight[:, :inputs], weight[:, inputs:], bias)]
    frames = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).view_as(x)
    last = Cell(inputs, hidden).to(dtype)
    last.load_state_dict(cell.state_dict())
    last = last.to(memory_format=torch.channels_last)
    found = {
        "amstel": (lambda x: conv_lstm(x, *ours), frames, ours),
        "eager": (
            lambda x: unroll(cell, x, hidden, torch.contiguous_format),
            x,
            list(cell.parameters()),
        ),
        "eager channels_last": (
            lambda x: unroll(last, x, hidden, torch.channels_last),
            frames,
            list(last.parameters()),
        ),
    }
    if compiled:
        fused = torch.compile(cell)
        found["compiled cell"] = (
            lambda x: unroll(fused, x, hidden, torch.contiguous_format),
            x,
            list(cell.parameters()),
        )
    return found


def flops(workload):
    steps, items, inputs, hidden, size = WORKLOADS[workload]
    return 2 * steps * items * size**2 * 4 * hidden * (inputs + hidden) * 9


def agree(a, b, dtype):
    tolerance = 1e-4 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(a.float(), b.float(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("workload", WORKLOADS)
def test_forward(compare, workload, dtype):
    found = implementations(workload, DTYPES[dtype])
    with torch.no_grad():
        first = found["amstel"][0](found["amstel"][1])[0]
        for run, x, _ in found.values():
            agree(run(x)[0], first, DTYPES[dtype])

        def call(run, x):
            with torch.no_grad():
                return run(x)

        compare(
            f"conv_lstm-forward-{workload}-{dtype}",
            {name: lambda run=run, x=x: call(run, x) for name, (run, x, _) in found.items()},
            flops=flops(workload),
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("workload", WORKLOADS)
def test_backward(compare, workload, dtype):
    """Forward, and the gradients of x and of all weights; and what computing the gates again costs."""
    found = implementations(workload, DTYPES[dtype])
    ours = found["amstel"]
    found["amstel recompute"] = (lambda x: conv_lstm(x, *ours[2], memory="recompute"), *ours[1:])
    calls, results = {}, {}
    for name, (run, x, weights) in found.items():
        leaves = [t.detach().requires_grad_() if not t.requires_grad else t for t in weights]
        if name.startswith("amstel"):
            weights[:] = leaves
        x = x.detach().requires_grad_()

        def call(run=run, x=x, leaves=leaves):
            output = run(x)[0]
            return torch.autograd.grad(output, [x, *leaves], torch.ones_like(output))

        calls[name], results[name] = call, call()
    a, b = results["amstel"], results["eager"]
    scale = b[0].abs().max().float()
    agree(a[0] / scale, b[0] / scale, DTYPES[dtype])
    for one, other in zip(a[1:], results["amstel recompute"][1:], strict=True):
        assert torch.equal(one, other)
    compare(f"conv_lstm-backward-{workload}-{dtype}", calls, flops=3 * flops(workload))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("workload", WORKLOADS)
def test_gates(compare, workload, dtype):
    """What follows the convolution, alone."""
    _, items, _, hidden, size = WORKLOADS[workload]
    gates = torch.randn(items, 4 * hidden, size, size).to(DTYPES[dtype])
    gates = gates.contiguous(memory_format=torch.channels_last)
    c = torch.randn(items, hidden, size, size).to(DTYPES[dtype])
    c = c.contiguous(memory_format=torch.channels_last)

    def eager(gates, c):
        i, f, g, o = gates.chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    agree(conv_lstm_cell(gates, c)[0], eager(gates, c)[0], DTYPES[dtype])
    compare(
        f"conv_lstm-gates-{workload}-{dtype}",
        {"amstel": lambda: conv_lstm_cell(gates, c), "eager": lambda: eager(gates, c)},
        bytes=7 * c.numel() * c.element_size(),
    )
    leaves = gates.detach().requires_grad_(), c.detach().requires_grad_()

    def gradient(f):
        h, new = f(*leaves)
        return torch.autograd.grad([h, new], leaves, [c, c])

    compare(
        f"conv_lstm-gates_backward-{workload}-{dtype}",
        {"amstel": lambda: gradient(conv_lstm_cell), "eager": lambda: gradient(eager)},
    )


MEMORY = """
import sys, torch
from benchmarks import bench_conv_lstm as bench
from amstel.ops.conv_lstm import conv_lstm
name, workload = sys.argv[1:]
torch.set_num_threads(2)
found = bench.implementations(workload, compiled=False)
run, x, weights = found["amstel" if name.startswith("amstel") else name]
if name == "amstel recompute":
    run = lambda x: conv_lstm(x, *weights, memory="recompute")
weights[:] = [w.detach().requires_grad_() if not w.requires_grad else w for w in weights]
status = lambda key: next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith(key))
torch.autograd.grad(run(x[:1, :1])[0].sum(), weights)  # what is made once is made
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
output = run(x)[0]
held = status("VmRSS")
gradients = torch.autograd.grad(output.sum(), weights)
print(held - before, status("VmHWM") - before)
"""


@pytest.mark.parametrize("workload", WORKLOADS)
def test_memory(record, workload):
    """Resident memory over what lay there before: held between the passes, and at the peak of both.

    The peak includes what is no activation: weights transformed for the convolutions, and their gradients.
    """
    root = Path(__file__).parent.parent
    # So that memory that is freed does not stay in the heap, and is not counted where it is not used.
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    for name in ("amstel", "amstel recompute", "eager", "eager channels_last"):
        run = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", MEMORY, name, workload],
            cwd=root, env=env, capture_output=True, text=True, check=True,
        )  # fmt: skip
        held, peak = (round(int(kilobytes) / 1024, 1) for kilobytes in run.stdout.split())
        record(f"conv_lstm-memory-{workload}", name, held_MB=held, peak_MB=peak)
