"""ConvLSTM against what its users write: a cell that concatenates, convolves once and splits, in a loop over T.

The peer runs in NCHW, in channels_last and compiled; on CUDA its convolutions are cuDNN's. All get the same weights.
"""

import torch
from torch import nn

import amstel
from amstel.ops.conv_lstm import conv_lstm, conv_lstm_cell
from benchmarks.suite import SHORT, SIGMOID, TANH, Implementation, Shape, Work, passes, suite

TINY = (2, 1, 4, 8, 6)
# T, N, C_in, C, H = W: a mid-size encoder, the first layer of moving MNIST, VideoLSTM on VGG's last map; steps so small
# that they cost what is around them. On the CPU the short ones stand in for the first three without -m large.
SEQUENCES = {
    "small_T20_N1": Shape((20, 1, 8, 8, 7), TINY, ("cpu",), most=True),
    "encoder_T5_N2": Shape((5, 2, 64, 64, 32), TINY, ("cpu",)),
    "mnist_T5_N1": Shape((5, 1, 1, 64, 64), TINY, ("cpu",)),
    "vgg_T4_N1": Shape((4, 1, 512, 512, 7), TINY, ("cpu",), most=True),
    "encoder": Shape((10, 8, 64, 64, 32), TINY, large="cpu"),
    "mnist": Shape((10, 16, 1, 64, 64), TINY, large="cpu"),
    "vgg": Shape((30, 4, 512, 512, 7), TINY, large="cpu"),
    "mnist16": Shape((10, 16, 64, 64, 16), TINY, ("cuda",)),
    "vgg128": Shape((30, 128, 512, 512, 7), TINY, ("cuda",)),
}
#: Only the gradients: on the CPU, for one of them.
BACKWARD = {
    name: s if name == "mnist_T5_N1" else Shape(s.full, s.tiny, ("cuda",))
    for name, s in SEQUENCES.items()
    if "cuda" in s.devices or name == "mnist_T5_N1"
}
EAGER = (
    Implementation("eager", SHORT),
    Implementation("eager channels_last", SHORT),
    # On the CPU it was never the fastest, and takes the longest to compile.
    Implementation("compiled cell", SHORT, most=True, only=("encoder_T5_N2",)),
)


class Cell(nn.Module):
    """The usual cell, gates in the order i, f, g, o."""

    def __init__(self, inputs, hidden):
        super().__init__()
        self.conv = nn.Conv2d(inputs + hidden, 4 * hidden, 3, padding=1)

    def forward(self, x, h, c):
        return plain_gates(self.conv(torch.cat([x, h], 1)), c)


def plain_gates(gates, c):
    i, f, g, o = gates.chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def unroll(cell, x, hidden, laid):
    n, (height, width) = x.shape[1], x.shape[3:]
    h = x.new_zeros(n, hidden, height, width).contiguous(memory_format=laid)
    c, outputs = h, []
    for frame in x:
        h, c = cell(frame, h, c)
        outputs.append(h)
    return torch.stack(outputs)


def sequences(at, shape, step):
    """Ours and the peers; results are the output, or the gradients of x, of both weights and of the bias."""
    steps, items, inputs, hidden, size = shape
    torch.manual_seed(0)
    cell = Cell(inputs, hidden).to(at.device, at.dtype)
    last = Cell(inputs, hidden).to(at.device, at.dtype)
    last.load_state_dict(cell.state_dict())
    last = last.to(memory_format=torch.channels_last)
    weight, bias = cell.conv.weight.detach(), cell.conv.bias.detach()
    ours = [w.clone().requires_grad_() for w in (weight[:, :inputs], weight[:, inputs:], bias)]
    frames = at.randn(steps, items, inputs, size, size, last=True).requires_grad_()
    plain = frames.detach().contiguous().requires_grad_()
    grad = at.randn(steps, items, hidden, size, size, last=True)
    # The best layout for the compiled cell depends on the device.
    fused, given, laid = (
        (at.compile(last), frames, torch.channels_last)
        if at.device == "cuda"
        else (at.compile(cell), plain, torch.contiguous_format)
    )
    model = last if at.device == "cuda" else cell
    runs = {
        "amstel": (lambda: conv_lstm(frames, *ours)[0], [frames, *ours]),
        "amstel recompute": (lambda: conv_lstm(frames, *ours, memory="recompute")[0], [frames, *ours]),
        "eager": (
            lambda: unroll(cell, plain, hidden, torch.contiguous_format), [plain, *cell.parameters()],
        ),
        "eager channels_last": (
            lambda: unroll(last, frames, hidden, torch.channels_last), [frames, *last.parameters()],
        ),
        "compiled cell": (lambda: unroll(fused, given, hidden, laid), [given, *model.parameters()]),
    }  # fmt: skip
    found = {name: passes(f, leaves, grad) for name, (f, leaves) in runs.items()}

    def split(gradient):
        x, weight, bias = gradient
        return x, weight[:, :inputs], weight[:, inputs:], bias

    flops = 2 * steps * items * size**2 * 4 * hidden * (inputs + hidden) * 9
    moved = sum(
        t.numel() * t.element_size() for t in (frames, grad, weight)
    )  # grad is as large as the output
    forward = step == "forward"
    tf32 = at.device == "cuda" and at.dtype == torch.float32 and torch.backends.cudnn.allow_tf32
    return Work(
        {name: p[step] for name, p in found.items()},
        flops=flops * {"forward": 1, "backward": 2, "both": 3}[step],
        bytes=moved * {"forward": 1, "backward": 2, "both": 3}[step],
        # Sums over all pixels and steps, in different orders; on CUDA with TF32 if torch has it on.
        tolerance=(6e-2 if at.dtype == torch.bfloat16 else 2e-2 if at.device == "cuda" else 1e-3),
        read={} if forward else {name: split for name in runs if not name.startswith("amstel")},
        holds={} if forward else {name: p["hold"] for name, p in found.items()},
        units="tf32" if tf32 else None,
        facts={"tf32": torch.backends.cudnn.allow_tf32} if at.device == "cuda" else {},
    )


@suite("conv_lstm", "forward", SEQUENCES, Implementation("amstel", SHORT), *EAGER)
def test_forward(at, *shape):
    return sequences(at, shape, "forward")


OURS = (Implementation("amstel", SHORT), Implementation("amstel recompute", SHORT))


@suite("conv_lstm", "backward", BACKWARD, *OURS, *EAGER)
def test_backward(at, *shape):
    """Only the gradients, from a stored forward pass."""
    return sequences(at, shape, "backward")


@suite("conv_lstm", "both", SEQUENCES, *OURS, *EAGER)
def test_both(at, *shape):
    return sequences(at, shape, "both")


# N, C, H = W
GATES = {
    "encoder": Shape((8, 64, 32), (1, 8, 4)),
    "vgg": Shape((4, 512, 7), (1, 8, 4)),
    "mnist": Shape((16, 64, 64), (1, 8, 4), large="cpu"),
    "wide": Shape((16, 64, 256), (1, 8, 4), ("cuda",)),
}
GATE_PEERS = (
    Implementation("amstel", SHORT),
    Implementation("eager", SHORT),
    Implementation("compiled", SHORT, most=True),
)
#: With gradients, where eager code is ahead on the small map.
FEWER = (*GATE_PEERS[:2], Implementation("compiled", SHORT, most=True, only=("encoder",)))


def gate_work(at, shape, step):
    """Only what follows the convolution."""
    items, hidden, size = shape
    leaves = [at.randn(items, k * hidden, size, size, last=True).requires_grad_() for k in (4, 1)]
    grad = [at.randn(items, hidden, size, size, last=True) for _ in range(2)]
    compiled = at.compile(plain_gates)
    found = {
        "amstel": passes(lambda: conv_lstm_cell(*leaves), leaves, grad),
        "eager": passes(lambda: plain_gates(*leaves), leaves, grad),
        "compiled": passes(lambda: compiled(*leaves), leaves, grad),
    }
    cells, size = leaves[1].numel(), leaves[1].element_size()
    forward, backward = 3 * SIGMOID + 2 * TANH + 4, TANH + 20  # instructions
    return Work(
        {name: p[step] for name, p in found.items()},
        # gates, c -> h, c; and back: activated gates, two c, two gradients -> gradients of gates and c.
        bytes={"forward": 7, "backward": 13, "both": 24}[step] * cells * size,
        flops={"forward": forward, "backward": backward, "both": forward + backward}[step] * 2 * cells,
        units="float32",
        tolerance=6e-2 if at.dtype == torch.bfloat16 else None,
    )


@suite("conv_lstm_gates", "forward", GATES, *GATE_PEERS)
def test_gates_forward(at, *shape):
    return gate_work(at, shape, "forward")


@suite("conv_lstm_gates", "backward", GATES, *FEWER)
def test_gates_backward(at, *shape):
    return gate_work(at, shape, "backward")


@suite("conv_lstm_gates", "both", GATES, *FEWER)
def test_gates_both(at, *shape):
    return gate_work(at, shape, "both")


LSTM = {"T100_N64_C512": Shape((100, 64, 512), (3, 2, 8), ("cuda",))}


@suite("conv_lstm", "lstm", LSTM, Implementation("amstel 1x1"), Implementation("cuDNN LSTM"))
def test_against_cudnn(at, steps, items, channels):
    """An LSTM is a ConvLSTM on maps of one pixel: cuDNN's persistent kernels as a measure of the loop over T."""
    peer = nn.LSTM(channels, channels).to(at.device)
    ours = amstel.nn.ConvLSTM(channels, channels, kernel_size=1).to(at.device)
    x = at.randn(steps, items, channels)
    return Work(
        {
            "amstel 1x1": passes(lambda: ours(x[..., None, None])[0], [])["forward"],
            "cuDNN LSTM": passes(lambda: peer(x)[0], [])["forward"],
        },
        read={
            "amstel 1x1": lambda _: x,
            "cuDNN LSTM": lambda _: x,
        },  # their weights differ; the work is the same
        flops=2 * steps * items * 4 * channels * 2 * channels,
    )
