"""pytorch_convolutional_rnn by its own names: its README's example, its shapes, and values against torch's own layers."""

import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from amstel.interop import convolutional_rnn


def test_the_example_of_its_readme():
    net = convolutional_rnn.Conv3dGRU(
        2, 5, (3, 4, 6), num_layers=3, bidirectional=True, dilation=2, stride=2, dropout=0.5
    )
    x = pack_padded_sequence(torch.randn(3, 2, 2, 10, 14, 18), [3, 1])
    y, h = net(x)
    assert isinstance(y, PackedSequence) and y.data.shape == (4, 10, 10, 14, 18)
    assert h.shape == (6, 2, 5, 10, 14, 18) and "Conv3dGRU" in str(net)

    cell = convolutional_rnn.Conv2dLSTMCell(3, 5, 3)
    hx, output = None, []
    for frame in torch.randn(6, 16, 3, 10, 10):
        hx = cell(frame, hx)
        output.append(hx)
    assert [tuple(h.shape) for h in output[-1]] == [(16, 5, 10, 10)] * 2


def test_its_parameters():
    """Names and shapes of its state_dict, of two layers in both directions."""
    net = convolutional_rnn.Conv2dLSTM(3, 4, (3, 5), num_layers=2, bidirectional=True, groups=1)
    shapes = {name: tuple(p.shape) for name, p in net.state_dict().items()}
    ends = [f"_l{k}{end}" for k in range(2) for end in ("", "_reverse")]
    assert shapes == {
        name + end: shape
        for end in ends
        for name, shape in (
            ("weight_ih", (16, 3 if "l0" in end else 8, 3, 5)),
            ("weight_hh", (16, 4, 3, 5)),
            ("bias_ih", (16,)),
            ("bias_hh", (16,)),
        )
    }
    without = convolutional_rnn.Conv1dGRU(4, 4, 3, bias=False, groups=2)
    assert {n: tuple(p.shape) for n, p in without.state_dict().items()} == {
        "weight_ih_l0": (12, 2, 3), "weight_hh_l0": (12, 2, 3),
    }  # fmt: skip


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("mode", ["LSTM", "GRU", "RNN"])
def test_of_single_pixels_they_are_torchs_layers(mode, dims):
    """With 1x1 kernels, two layers, both directions, states and packed sequences, in order and not."""
    torch.manual_seed(0)
    theirs = getattr(torch.nn, mode)(3, 4, 2, bidirectional=True).double()
    ours = getattr(convolutional_rnn, f"Conv{dims}d{mode}")(
        3, 4, 1, num_layers=2, bidirectional=True
    ).double()
    ones = (1,) * dims
    ours.load_state_dict(
        {k: v.view(*v.shape, *ones) if v.dim() == 2 else v for k, v in theirs.state_dict().items()}
    )
    x = torch.randn(5, 3, 3, dtype=torch.float64)
    states = torch.randn(2, 4, 3, 4, dtype=torch.float64)
    hx = (states[0], states[1]) if mode == "LSTM" else states[0]

    def maps(t):
        return tuple(map(maps, t)) if isinstance(t, tuple) else t.view(*t.shape, *ones)

    def same(a, b):
        for ours_, theirs_ in zip(a, b, strict=True) if isinstance(b, tuple) else [(a, b)]:
            torch.testing.assert_close(ours_.flatten(theirs_.dim() - 1), theirs_)

    for state in (None, hx):
        (y, h), (y2, h2) = ours(maps(x), None if state is None else maps(state)), theirs(x, state)
        same(y, y2)
        same(h, h2)
        for lengths, ordered in (([5, 3, 2], True), ([2, 5, 3], False)):
            pack = [pack_padded_sequence(t, lengths, enforce_sorted=ordered) for t in (maps(x), x)]
            (y, h), (y2, h2) = ours(pack[0], None if state is None else maps(state)), theirs(pack[1], state)
            assert torch.equal(y.batch_sizes, y2.batch_sizes)
            same(y.data, y2.data)
            same(h, h2)
    cell = getattr(convolutional_rnn, f"Conv{dims}d{mode}Cell")(3, 4, 1).double()
    one = getattr(torch.nn, f"{mode}Cell")(3, 4).double()
    cell.load_state_dict(
        {k: v.view(*v.shape, *ones) if v.dim() == 2 else v for k, v in one.state_dict().items()}
    )
    part = (hx[0][0], hx[1][0]) if mode == "LSTM" else hx[0]
    same(cell(maps(x[0]), maps(part)), one(x[0], part))


@pytest.mark.parametrize("options", [{}, {"dilation": 2}, {"stride": 2}, {"groups": 2}, {"stride": (1, 3)}])
def test_maps_keep_their_size(options):
    """Fused or not, a layer is its cell step by step; a cell's convolutions keep the size, centered, at any stride."""
    torch.manual_seed(0)
    net = convolutional_rnn.Conv2dLSTM(2, 4, (3, 4), batch_first=True, **options).double()
    cell = convolutional_rnn.Conv2dLSTMCell(2, 4, (3, 4), **options).double()
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in net.state_dict().items()})
    x = torch.randn(2, 3, 2, 7, 8, dtype=torch.float64)
    y, (h, c) = net(x)
    state = None
    for t in range(3):
        state = cell(x[:, t], state)
        torch.testing.assert_close(y[:, t], state[0])
    torch.testing.assert_close(h[0], state[0])
    torch.testing.assert_close(c[0], state[1])
    # The first step by hand: from the middle outwards, one more behind than in front where it is odd.
    stride = options.get("stride", 1)
    stride = stride if isinstance(stride, tuple) else (stride, stride)
    d, total = options.get("dilation", 1), []
    for size, k, s in zip((7, 8), (3, 4), stride, strict=True):
        total.append((size - 1) * (s - 1) + d * (k - 1))
    pads = [total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2]
    gates = F.conv2d(
        F.pad(x[:, 0], pads),
        cell.weight_ih,
        cell.bias_ih + cell.bias_hh,
        stride,
        0,
        d,
        options.get("groups", 1),
    )
    i, _, g, o = gates.chunk(4, 1)
    torch.testing.assert_close(y[:, 0], o.sigmoid() * (i.sigmoid() * g.tanh()).tanh())


def _peephole(x, h, c, w, **options):
    """One step by its formula; odd kernels, padded on all sides alike."""
    conv = (F.conv1d, F.conv2d, F.conv3d)[x.dim() - 3]
    d = options.get("dilation", 1)

    def product(t, name, bias=None):
        weight = w[f"weight_{name}"]
        return conv(t, weight, bias, padding=[d * (k // 2) for k in weight.shape[2:]], **options)

    i, f, g, o = (product(x, "ih", w.get("bias_ih")) + product(h, "hh", w.get("bias_hh"))).chunk(4, 1)
    i, f = (i + product(c, "pi")).sigmoid(), (f + product(c, "pf")).sigmoid()
    c = f * c + i * g.tanh()
    return (o + product(c, "po")).sigmoid() * c.tanh(), c


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"dilation": 2, "groups": 2}, {"bias": False}])
def test_peepholes_are_convolutions_of_the_cell_state(dims, options):
    torch.manual_seed(0)
    name, more = f"Conv{dims}dPeepholeLSTM", {k: v for k, v in options.items() if k != "bias"}
    net = getattr(convolutional_rnn, name)(2, 4, 3, num_layers=2, bidirectional=True, **options).double()
    x = torch.randn(4, 2, 2, *(5, 6, 4)[:dims], dtype=torch.float64)
    packed, lengths = pack_padded_sequence(x, [4, 2]), (4, 2)
    hx = torch.randn(2, 4, 2, 4, *x.shape[3:], dtype=torch.float64)
    y, (h_n, c_n) = net(packed, (hx[0], hx[1]))
    for n, steps in enumerate(lengths):
        below = list(x[:steps, n : n + 1])
        for layer in range(2):
            both = []
            for d, end in enumerate(("", "_reverse")):
                suffix, at = f"_l{layer}{end}", 2 * layer + d
                w = {k.removesuffix(suffix): t for k, t in net.state_dict().items() if k.endswith(suffix)}
                state, found = (hx[0, at, n : n + 1], hx[1, at, n : n + 1]), []
                for frame in below[:: 1 - 2 * d]:
                    state = _peephole(frame, *state, w, **more)
                    found.append(state[0])
                both.append(found[:: 1 - 2 * d])
                torch.testing.assert_close(h_n[at, n], state[0][0])
                torch.testing.assert_close(c_n[at, n], state[1][0])
            below = [torch.cat(pair, 1) for pair in zip(*both, strict=True)]
        output = torch.nn.utils.rnn.pad_packed_sequence(y)[0]
        torch.testing.assert_close(output[:steps, n], torch.cat(below))
    names = [key.removesuffix("_l0") for key in net.state_dict() if key.endswith("_l0")]
    biases = [] if "bias" in options else ["bias_ih", "bias_hh"]
    assert names == ["weight_ih", "weight_hh", "weight_pi", "weight_pf", "weight_po", *biases]
    cell = getattr(convolutional_rnn, f"{name}Cell")(2, 4, 3, **options).double()
    state = (hx[0, 0], hx[1, 0])
    for a, b in zip(cell(x[0], state), _peephole(x[0], *state, cell.state_dict(), **more), strict=True):
        torch.testing.assert_close(a, b)
    assert cell.weight_po.shape == (4, 4 // options.get("groups", 1), *(3,) * dims)


def test_only_an_rnn_has_a_nonlinearity_behind_its_kernel():
    x = torch.randn(3, 1, 2, 6, 6)
    layers, cell = (
        convolutional_rnn.Conv2dRNN(2, 4, 3, "relu", 2),
        convolutional_rnn.Conv2dRNNCell(2, 4, 3, "relu"),
    )
    assert layers.num_layers == 2 and layers(x)[0].min() == 0 and cell(x[0]).min() == 0
    for kind in (
        convolutional_rnn.Conv2dLSTM,
        convolutional_rnn.Conv2dGRU,
        convolutional_rnn.Conv2dPeepholeLSTMCell,
    ):
        with pytest.raises(TypeError, match="nonlinearity"):
            kind(2, 4, 3, nonlinearity="relu")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.Conv2dLSTM(3, 4, (3, 3, 3)), "`kernel_size` must be"),
        (lambda m: m.Conv2dLSTM(3, 4, 3, groups=2), "`groups` must be"),
        (lambda m: m.Conv2dLSTM(3, 0, 3), "`out_channels` must be"),
        (lambda m: m.Conv2dRNN(3, 4, 3, nonlinearity="elu"), "`nonlinearity` must be"),
        (lambda m: m.Conv2dLSTM(3, 4, 3)(torch.randn(2, 2, 3, 8)), "`input` must be"),
        (lambda m: m.Conv2dLSTM(3, 4, 3)(torch.randn(2, 2, 2, 8, 8)), "`input` must be"),
        (lambda m: m.Conv2dLSTM(3, 4, 3)(torch.randn(2, 2, 3, 8, 8), torch.zeros(1)), r"\(h, c\)"),
        (lambda m: m.Conv2dGRU(3, 4, 3)(torch.randn(2, 2, 3, 8, 8), torch.zeros(1)), "`hx` must be"),
        (lambda m: m.Conv2dPeepholeLSTM(3, 4, 3)(torch.randn(2, 2, 3, 8, 8), torch.zeros(1)), r"\(h, c\)"),
        (lambda m: m.Conv2dLSTMCell(3, 4, 3)(torch.randn(2, 3, 8)), "`input` must be"),
    ],
)
def test_errors(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(convolutional_rnn)


def test_dropout_is_a_share():
    with pytest.raises(ValueError, match=r"`dropout` must be in \[0, 1\], got 1\.5"):
        convolutional_rnn.Conv2dGRU(2, 4, 3, num_layers=2, dropout=1.5)
