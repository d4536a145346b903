"""Recurrent inference machines: likelihood gradients, the network's input, GRU gates, a training step, memory.

The peers are what is written in their place: eager PyTorch, in the layout that suits it better, compared in value
before they are timed.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from amstel import inverse, ops
from amstel.nn import RIM
from amstel.reference import rim as reference

# coils, height, width
MRI = {"15x640x368": (15, 640, 368), "12x218x170": (12, 218, 170)}
COMPLEX = torch.complex64


def close(a, b, tolerance=1e-4):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


# ------------------------------------------------------------------------------------- likelihood gradients


def centred(function, x):
    """A 2-D transform with both origins in the middle."""
    dims = (-2, -1)
    shifted = torch.fft.ifftshift(x, dim=dims)
    return torch.fft.fftshift(function(shifted, norm="ortho"), dim=dims)


@pytest.mark.parametrize("kind", ["columns", "points"])
@pytest.mark.parametrize("workload", MRI)
def test_mri(compare, workload, kind):
    coils, height, width = MRI[workload]
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, height, width, dtype=COMPLEX, generator=g)
    maps = torch.randn(1, coils, height, width, dtype=COMPLEX, generator=g) / coils**0.5
    mask = (torch.rand(width if kind == "columns" else (height, width), generator=g) < 0.25).float()
    y = torch.randn(1, coils, height, width, dtype=COMPLEX, generator=g)

    def by_centred():
        k = mask * centred(torch.fft.fft2, maps * x[:, None]) - mask * y
        return (maps.conj() * centred(torch.fft.ifft2, mask * k)).sum(1)

    def by_plain():
        k = mask * (torch.fft.fft2(maps * x[:, None], norm="ortho") - y)
        return (maps.conj() * torch.fft.ifft2(k, norm="ortho")).sum(1)

    step = inverse.MRI(mask, maps).prepare(y)
    close(step.gradient(x), by_plain())
    close(inverse.MRI(mask, maps, centered=True).prepare(y).gradient(x), by_centred())
    functions = {
        "amstel": lambda: step.gradient(x),
        "centred": by_centred,
        "plain": by_plain,
        "amstel unprepared": lambda: ops.mri_gradient(x, y, mask, maps),
    }
    compare(f"rim-mri_{kind}-{workload}", functions, bytes=maps.numel() * 8 + 3 * x.numel() * 8)


INPUTS = {"8x1x96x96": (8, 1, 96, 96), "1x1x480x480": (1, 1, 480, 480), "4x3x192x192": (4, 3, 192, 192)}


@pytest.mark.parametrize("workload", INPUTS)
def test_denoise(compare, workload):
    shape, sigma = INPUTS[workload], 0.1
    eta, y = torch.rand(shape), torch.rand(shape)

    def eager():
        return torch.cat([eta, (eta - y) / sigma**2], 1)

    def eager_last():
        return torch.cat([eta, (eta - y) / sigma**2], 1).contiguous(memory_format=torch.channels_last)

    def ours():
        return ops.rim_denoise_input(eta, y, sigma)

    close(ours(), eager())
    functions = {"amstel": ours, "eager channels_last": eager_last, "eager, not channels_last": eager}
    compare(f"rim-denoise-{workload}", functions, bytes=4 * eta.numel() * 4)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("workload", INPUTS)
def test_super_resolve(compare, workload, scale):
    shape, sigma = INPUTS[workload], 0.1
    eta = torch.rand(shape)
    y = reference.bicubic_down(torch.rand(shape), scale)
    _, c, h, w = shape
    rows, cols = (torch.from_numpy(reference.bicubic_matrix(size, scale)).float() for size in (h, w))

    def finish(gradient):
        return torch.cat([eta, gradient / sigma**2], 1).contiguous(memory_format=torch.channels_last)

    def by_matrices():
        residual = rows @ eta @ cols.T - y
        return finish(rows.T @ residual @ cols)

    def by_autograd():
        with torch.enable_grad():
            x = eta.detach().requires_grad_()
            small = F.interpolate(x, (h // scale, w // scale), mode="bicubic", antialias=True)
            return finish(torch.autograd.grad(small, x, small.detach() - y)[0])

    taps = torch.from_numpy(reference.bicubic_matrix(64 * scale, scale)[32]).float()
    used = taps.nonzero()
    first, last = int(used[0]), int(used[-1]) + 1
    before, after = 32 * scale - first, last - 33 * scale
    kernel = taps[first:last]
    columns, lines = (
        kernel.view(1, 1, *size).expand(c, 1, *size).contiguous() for size in ((-1, 1), (1, -1))
    )

    def by_convolutions():
        padded = F.pad(eta, (before, after, before, after), mode="replicate")
        small = F.conv2d(
            F.conv2d(padded, columns, stride=(scale, 1), groups=c), lines, stride=(1, scale), groups=c
        )
        up = F.conv_transpose2d(small - y, lines, stride=(1, scale), groups=c)
        up = F.conv_transpose2d(up, columns, stride=(scale, 1), groups=c)
        return finish(up[:, :, before : before + h, before : before + w])

    def ours():
        return ops.rim_super_resolve_input(eta, y, scale, sigma)

    close(ours(), by_matrices())
    inner = (slice(None), slice(None), slice(24, -24), slice(24, -24))  # borders differ
    close(ours()[inner], by_convolutions()[inner])
    close(ours()[inner], by_autograd()[inner])
    functions = {
        "amstel": ours,
        "matrices": by_matrices,
        "convolutions": by_convolutions,
        "autograd": by_autograd,
    }
    compare(f"rim-super_resolve{scale}-{workload}", functions, bytes=5 * eta.numel() * 4)


# -------------------------------------------------------------------------------------------------- the GRU

GATES = {"16x64x32x32": (16, 64, 32, 32), "1x64x240x160": (1, 64, 240, 160), "4x96x64x64": (4, 96, 64, 64)}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def eager_gru(gates_x, gates_h, h):
    x_r, x_z, x_n = gates_x.chunk(3, 1)
    h_r, h_z, h_n = gates_h.chunk(3, 1)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    n = torch.tanh(x_n + r * h_n)
    return (1 - z) * n + z * h


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("workload", GATES)
def test_gates(compare, workload, dtype):
    n, c, height, width = GATES[workload]
    inputs = [torch.randn(n, k * c, height, width).to(DTYPES[dtype]) for k in (3, 3, 1)]
    last = [t.contiguous(memory_format=torch.channels_last) for t in inputs]
    close(ops.conv_gru_cell(*last), eager_gru(*last), 1e-4 if dtype == "float32" else 3e-2)
    forward = {
        "amstel": lambda: ops.conv_gru_cell(*last),
        "eager": lambda: eager_gru(*inputs),
        "eager channels_last": lambda: eager_gru(*last),
    }
    moved = 8 * inputs[2].numel() * inputs[2].element_size()
    compare(f"rim-gates-{workload}-{dtype}", forward, bytes=moved)
    grad = torch.randn_like(last[2])

    def both(cell, given):
        leaves = [t.detach().requires_grad_() for t in given]
        return lambda: torch.autograd.grad(cell(*leaves), leaves, grad)

    backward = {
        "amstel": both(ops.conv_gru_cell, last),
        "eager": both(eager_gru, inputs),
        "eager channels_last": both(eager_gru, last),
    }
    compare(f"rim-gates_backward-{workload}-{dtype}", backward)


# ------------------------------------------------------------------------------------------------- training


class EagerRIM(nn.Module):
    """The same network, parameter for parameter, as it is written without this library."""

    def __init__(self, model):
        super().__init__()
        self.steps, c = model.steps, model.features
        self.conv1, self.conv2, self.conv3 = (
            nn.Conv2d(k.in_channels, k.out_channels, k.kernel_size, padding=k.padding)
            for k in (model.conv1, model.conv2, model.conv3)
        )
        self.x1, self.h1, self.x2, self.h2 = (nn.Conv2d(c, 3 * c, 1) for _ in range(4))
        with torch.no_grad():
            for mine, theirs in (
                (self.conv1, model.conv1),
                (self.conv2, model.conv2),
                (self.conv3, model.conv3),
            ):
                mine.weight.copy_(theirs.weight)
                mine.bias.copy_(theirs.bias)
            for x, h, gru in ((self.x1, self.h1, model.gru1), (self.x2, self.h2, model.gru2)):
                x.weight.copy_(gru.weight_ih)
                x.bias.copy_(gru.bias_ih)
                h.weight.copy_(gru.weight_hh)
                h.bias.copy_(gru.bias_hh)

    def forward(self, y, sigma):
        eta, found = y, []
        shape = (y.shape[0], self.conv1.out_channels, *y.shape[2:])
        h1 = h2 = y.new_zeros(shape).contiguous(memory_format=torch.channels_last)
        for _ in range(self.steps):
            given = torch.cat([eta, (eta - y) / sigma**2], 1)
            h1 = eager_gru(self.x1(torch.relu(self.conv1(given))), self.h1(h1), h1)
            h2 = eager_gru(self.x2(torch.relu(self.conv2(h1))), self.h2(h2), h2)
            eta = eta + self.conv3(h2)
            found.append(eta)
        return found


def step(model, y, x, given, dtype):
    def run():
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            estimates = model(y, given)
        sum((e.float() - x).square().mean() for e in estimates).backward()

    return run


def saved_bytes(run):
    """Of everything that autograd holds at the end of the forward pass, each storage once."""
    seen = {}

    def pack(t):
        seen[t.untyped_storage()._cdata] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        estimates = run()
    del estimates
    return sum(seen.values())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_training(compare, dtype, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    x = torch.rand(16, 1, 32, 32)
    y = x + 0.1 * torch.randn_like(x)
    model = RIM(1, 64, 10)
    eager = EagerRIM(model).to(memory_format=torch.channels_last)
    model = model.to(memory_format=torch.channels_last)
    physics = inverse.Denoising(0.1)
    close(model(y, physics)[-1], eager(y, 0.1)[-1], 1e-3)
    functions = {"amstel": step(model, y, x, physics, dtype), "eager": step(eager, y, x, 0.1, dtype)}
    compare(f"rim-training{threads}-T10-{dtype}", functions)
    torch.set_num_threads(before)


def test_memory(record):
    torch.manual_seed(0)
    y, physics = torch.rand(4, 1, 32, 32), inverse.Denoising(0.1)
    model = RIM(1, 64, 16)
    eager = EagerRIM(model).to(memory_format=torch.channels_last)
    figures = {"eager": saved_bytes(lambda: eager(y, 0.1))}
    for memory in ("store", "recompute", "chunked"):
        model = RIM(1, 64, 16, memory=memory).to(memory_format=torch.channels_last)
        figures[f"amstel {memory}"] = saved_bytes(lambda model=model: model(y, physics))
    for name, found in figures.items():
        record(
            "rim-memory-T16", name, saved_MB=round(found / 1e6, 2), share=round(found / figures["eager"], 4)
        )
