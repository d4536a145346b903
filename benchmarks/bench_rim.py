"""Recurrent inference machines: the network's input with its likelihood gradient, a training step.

The peers are what people write instead: eager PyTorch in its faster layout, the same code compiled, and
deepinv's physics. Inputs are channels_last, as the network's convolutions want them.
"""

import torch
import torch.nn.functional as F
from torch import nn

from amstel import inverse, ops
from amstel.nn import RIM
from amstel.reference import rim as reference
from benchmarks.bench_conv_gru import eager_gru
from benchmarks.suite import SHORT, Implementation, Shape, Work, channels_last, passes, suite

try:
    from deepinv.physics import DownsamplingMatlab

    DEEPINV = (Implementation("deepinv"),)
except ImportError:
    DEEPINV = ()

SIGMA = 0.1
IMAGES = {
    "8x1x96x96": Shape((8, 1, 96, 96), (1, 1, 60, 72)),
    "1x1x480x480": Shape((1, 1, 480, 480), (1, 1, 60, 72)),
    "4x3x192x192": Shape((4, 3, 192, 192), (1, 3, 60, 72)),
    "16x1x256x256": Shape((16, 1, 256, 256), (1, 1, 60, 72), ("cuda",)),
    "16x3x1024x1024": Shape((16, 3, 1024, 1024), (1, 3, 60, 72), ("cuda",)),
}


def denoise_by_hand(eta, y):
    return torch.cat([eta, (eta - y) / SIGMA**2], 1).contiguous(memory_format=torch.channels_last)


def denoise_work(at, shape, step):
    eta, y = (at.rand(*shape).requires_grad_() for _ in range(2))
    grad = at.randn(shape[0], 2 * shape[1], *shape[2:], last=True)
    compiled = at.compile(denoise_by_hand)
    runs = {
        "amstel": lambda: ops.rim_denoise_input(eta, y, SIGMA),
        "eager": lambda: denoise_by_hand(eta, y),
        "compiled": lambda: compiled(eta, y),
    }
    found = {name: passes(f, [eta, y], grad) for name, f in runs.items()}
    factor = 4 if step == "forward" else 8
    return Work({k: p[step] for k, p in found.items()}, bytes=factor * eta.numel() * 4)


#: Compiled where it is near the others or ahead of them.
NEAR = ("8x1x96x96", "4x3x192x192", "x2_4x3x192x192", "x3_8x1x96x96")
PEERS = (Implementation("amstel"), Implementation("eager"), Implementation("compiled", most=True, only=NEAR))


@suite("rim_denoise", "forward", IMAGES, *PEERS)
def test_denoise_forward(at, *shape):
    return denoise_work(at, shape, "forward")


@suite("rim_denoise", "both", IMAGES, *PEERS)
def test_denoise_both(at, *shape):
    return denoise_work(at, shape, "both")


SCALED = {
    f"x{scale}_{name}": Shape(
        (scale, *s.full), (scale, *s.tiny), s.devices, large=(scale, name) not in {(2, "4x3x192x192"), (3, "8x1x96x96"), (4, "1x1x480x480")}
    )
    for scale in (2, 3, 4)
    for name, s in IMAGES.items()
    if s.full[2] % scale == 0
}  # fmt: skip


def super_resolution(at, scale, shape):
    """eta, y, and the network's input by ours and by three peers."""
    eta = at.rand(*shape).requires_grad_()
    y = reference.bicubic_down(at.rand(*shape).double(), scale).float().requires_grad_()
    h, w = shape[2:]
    rows, cols = (torch.from_numpy(reference.bicubic_matrix(n, scale)).float().to(at.device) for n in (h, w))

    def finish(gradient):
        return torch.cat([eta, gradient / SIGMA**2], 1).contiguous(memory_format=torch.channels_last)

    def by_matrices(eta, y):
        return finish(rows.T @ (rows @ eta @ cols.T - y) @ cols)

    def by_autograd():
        with torch.enable_grad():
            x = eta.detach().requires_grad_()
            small = F.interpolate(x, y.shape[2:], mode="bicubic", antialias=True)
            return finish(torch.autograd.grad(small, x, small.detach() - y.detach())[0])

    compiled = at.compile(by_matrices)
    runs = {
        "amstel": lambda: ops.rim_super_resolve_input(eta, y, scale, SIGMA),
        "matrices": lambda: by_matrices(eta, y),
        "matrices compiled": lambda: compiled(eta, y),
        "interpolate and autograd": by_autograd,
    }
    if DEEPINV:
        physics = DownsamplingMatlab(factor=scale, kernel="cubic")
        physics.imsize = shape[1:]

        def by_deepinv():
            return finish(physics.A_adjoint(physics.A(eta, factor=scale) - y, factor=scale))

        runs["deepinv"] = by_deepinv
    return eta, y, runs


@suite(
    "rim_super_resolve", "forward", SCALED, Implementation("amstel"), Implementation("matrices"),
    Implementation("matrices compiled", most=True, only=NEAR), Implementation("interpolate and autograd"), *DEEPINV,
)  # fmt: skip
def test_super_resolve_forward(at, scale, *shape):
    eta, _, runs = super_resolution(at, scale, shape)

    def inside(found):
        """`interpolate` and deepinv treat the border differently."""
        return found[:, :, 24:-24, 24:-24]

    return Work(
        {name: passes(f, [])["forward"] for name, f in runs.items()},
        bytes=5 * eta.numel() * 4,
        read=dict.fromkeys(runs, inside),
        tolerance=1e-3,
    )


@suite(
    "rim_super_resolve", "both", SCALED, Implementation("amstel"), Implementation("matrices"),
    Implementation("matrices compiled", most=True, only=NEAR),
)  # fmt: skip
def test_super_resolve_both(at, scale, *shape):
    eta, y, runs = super_resolution(at, scale, shape)
    grad = at.randn(shape[0], 2 * shape[1], *shape[2:], last=True)
    found = {name: passes(f, [eta, y], grad) for name, f in list(runs.items())[:3]}
    return Work({k: p["both"] for k, p in found.items()}, bytes=10 * eta.numel() * 4, tolerance=1e-3)


# ------------------------------------------------------------------------------------------------- training


class EagerRIM(nn.Module):
    """The same network, parameter for parameter, written without this library."""

    def __init__(self, model):
        super().__init__()
        self.steps, c = model.steps, model.features
        convolutions = model.conv1, model.conv2, model.conv3
        self.conv1, self.conv2, self.conv3 = (
            nn.Conv2d(k.in_channels, k.out_channels, k.kernel_size, padding=k.padding) for k in convolutions
        )
        self.x1, self.h1, self.x2, self.h2 = (nn.Conv2d(c, 3 * c, 1) for _ in range(4))
        with torch.no_grad():
            for mine, theirs in zip((self.conv1, self.conv2, self.conv3), convolutions, strict=True):
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
        h1 = h2 = channels_last(y.new_zeros(shape))
        for _ in range(self.steps):
            given = torch.cat([eta, (eta - y) / sigma**2], 1)
            h1 = eager_gru(self.x1(torch.relu(self.conv1(given))), self.h1(h1), h1)
            h2 = eager_gru(self.x2(torch.relu(self.conv2(h1))), self.h2(h2), h2)
            eta = eta + self.conv3(h2)
            found.append(eta)
        return found


TRAININGS = {
    "16x32x32_T10": Shape((16, 32, 10), (2, 8, 2), large="cpu"),
    "4x32x32_T10": Shape((4, 32, 10), (2, 8, 2), ("cpu",), most=True),
    "16x256x256_T10": Shape((16, 256, 10), (2, 8, 2), ("cuda",)),
}


@suite(
    "rim", "training", TRAININGS, Implementation("amstel", SHORT), Implementation("amstel recompute", SHORT),
    Implementation("amstel chunked", SHORT), Implementation("eager", SHORT),
)  # fmt: skip
def test_training(at, items, size, steps):
    """Forward and the gradients of all parameters of a RIM of 64 features; bfloat16: under autocast."""
    torch.manual_seed(0)
    models = {
        f"amstel {memory}".removesuffix(" store"): RIM(1, 64, steps, memory=memory)
        for memory in ("store", "recompute", "chunked")
    }
    for model in models.values():
        model.load_state_dict(models["amstel"].state_dict())
    models["eager"] = EagerRIM(models["amstel"])
    x = torch.rand(items, 1, size, size, device=at.device)
    y = x + SIGMA * torch.randn_like(x)
    physics = inverse.Denoising(SIGMA)

    def forward(model, given):
        def run():
            with torch.autocast(at.device, torch.bfloat16, enabled=at.dtype == torch.bfloat16):
                return model(y, given)

        return run

    def step(estimates, weights):
        def run():
            found = estimates()
            loss = sum((e.float() - x).square().mean() for e in found)
            return found[-1].float(), *torch.autograd.grad(loss, weights)

        return run

    runs, holds = {}, {}
    for name, model in models.items():
        model.to(at.device, memory_format=torch.channels_last)
        holds[name] = forward(model, SIGMA if name == "eager" else physics)
        weights = [p for p in model.parameters() if p.requires_grad]
        runs[name] = step(holds[name], weights)
    return Work(
        runs,
        holds=holds,
        read=dict.fromkeys(runs, lambda found: found[0]),
        tolerance=6e-2 if at.dtype == torch.bfloat16 else 1e-3,
    )
