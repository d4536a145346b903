"""The gates of a convolutional GRU: the fused cell against eager PyTorch in both layouts, and against compiled code."""

import torch

from amstel import ops
from benchmarks.suite import SHORT, Implementation, Shape, Work, passes, suite

GATES = {
    "16x64x32x32": Shape((16, 64, 32, 32), (1, 8, 4, 6)),
    "1x64x240x160": Shape((1, 64, 240, 160), (1, 8, 4, 6)),
    "4x96x64x64": Shape((4, 96, 64, 64), (1, 8, 4, 6), large="cpu"),
    "16x64x256x256": Shape((16, 64, 256, 256), (1, 8, 4, 6), ("cuda",)),
}
GRU_PEERS = (
    Implementation("amstel", SHORT),
    Implementation("eager", SHORT),
    Implementation("eager channels_last", SHORT),
    Implementation("compiled", SHORT, most=True),
)
#: With gradients; the gradient alone has no compiled peer, since eager code is ahead of it.
FEWER = (*GRU_PEERS[:3], Implementation("compiled", SHORT, most=True, only=("16x64x32x32",)))


def eager_gru(gates_x, gates_h, h):
    x_r, x_z, x_n = gates_x.chunk(3, 1)
    h_r, h_z, h_n = gates_h.chunk(3, 1)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    n = torch.tanh(x_n + r * h_n)
    return (1 - z) * n + z * h


def gate_work(at, shape, step):
    n, c, height, width = shape
    last = [at.randn(n, k * c, height, width, last=True).requires_grad_() for k in (3, 3, 1)]
    plain = [t.detach().contiguous().requires_grad_() for t in last]
    grad = at.randn(*last[2].shape, last=True)
    compiled = at.compile(eager_gru)
    found = {
        "amstel": passes(lambda: ops.conv_gru_cell(*last), last, grad),
        "eager": passes(lambda: eager_gru(*plain), plain, grad.contiguous()),
        "eager channels_last": passes(lambda: eager_gru(*last), last, grad),
        "compiled": passes(lambda: compiled(*last), last, grad),
    }
    one = last[2].numel() * last[2].element_size()
    return Work(
        {name: p[step] for name, p in found.items()},
        bytes={"forward": 8, "backward": 13, "both": 25}[step] * one,
        tolerance=6e-2 if at.dtype == torch.bfloat16 else None,
    )


@suite("conv_gru_gates", "forward", GATES, *GRU_PEERS)
def test_gates_forward(at, *shape):
    return gate_work(at, shape, "forward")


@suite("conv_gru_gates", "backward", GATES, *GRU_PEERS[:3])
def test_gates_backward(at, *shape):
    return gate_work(at, shape, "backward")


@suite("conv_gru_gates", "both", GATES, *FEWER)
def test_gates_both(at, *shape):
    return gate_work(at, shape, "both")
