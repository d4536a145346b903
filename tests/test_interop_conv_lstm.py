"""amstel.interop.conv_lstm against torch.nn.LSTM, and the cells of ndrplz, Keras and OpenSTL written out anew."""

import doctest
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d

import amstel
from amstel.interop import conv_lstm as interop
from amstel.interop.conv_lstm import (
    from_keras,
    from_ndrplz,
    from_openstl,
    from_torch_lstm,
    to_keras,
    to_ndrplz,
    to_openstl,
    to_torch_lstm,
)

F64 = torch.float64


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def _close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


# ---- torch.nn.LSTM ----


def _maps(t):
    return t[..., None, None]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False},
        {"num_layers": 3},
        {"bidirectional": True},
        {"batch_first": True},
        {"num_layers": 2, "bidirectional": True, "batch_first": True},
    ],
    ids=str,
)
def test_torch_lstm(options, state, packed):
    theirs = nn.LSTM(5, 4, dtype=F64, **options)
    ours = from_torch_lstm(theirs)
    steps, items = 6, 3
    rows = theirs.num_layers * (2 if theirs.bidirectional else 1)
    shape = (items, steps, 5) if theirs.batch_first else (steps, items, 5)
    x = torch.randn(shape, dtype=F64, requires_grad=True)
    states = [torch.randn(rows, items, 4, dtype=F64, requires_grad=True) for _ in range(2 * state)]
    lengths = torch.tensor([4, 6, 1]) if packed else None

    if packed:
        data = nn.utils.rnn.pack_padded_sequence(x, lengths, theirs.batch_first, enforce_sorted=False)
        output, (h, c) = theirs(data, tuple(states) or None)
        output, _ = nn.utils.rnn.pad_packed_sequence(output, theirs.batch_first, total_length=steps)
    else:
        output, (h, c) = theirs(x, tuple(states) or None)
    expected = [output, h, c]
    output, (h, c) = ours(_maps(x), tuple(map(_maps, states)) or None, lengths)
    found = [t[..., 0, 0] for t in (output, h, c)]
    for a, b in zip(found, expected, strict=True):
        _close(a, b)

    weight = [torch.randn_like(t) for t in expected]
    sums = [sum((w * t).sum() for w, t in zip(weight, ts, strict=True)) for ts in (found, expected)]
    # Both list weight_ih, weight_hh, bias_ih layer by layer; theirs has a bias_hh too, with the same gradient.
    leaves = [p for name, p in theirs.named_parameters() if "bias_hh" not in name]
    grads = torch.autograd.grad(sums[0], [x, *states, *ours.parameters()])
    expected = torch.autograd.grad(sums[1], [x, *states, *leaves])
    for a, b in zip(grads, expected, strict=True):
        _close(a.reshape(b.shape), b)


def test_torch_lstm_carries_options_and_copies():
    theirs = nn.LSTM(3, 4, num_layers=2, dropout=0.25, dtype=torch.bfloat16).eval()
    before = torch.get_rng_state()
    ours = from_torch_lstm(theirs)
    assert torch.equal(torch.get_rng_state(), before)
    assert ours.dropout == 0.25 and not ours.training and ours.layers[0].weight_ih.dtype == torch.bfloat16
    assert all(
        isinstance(p, nn.Parameter) and p.requires_grad and p.is_contiguous() for p in ours.parameters()
    )
    with torch.no_grad():
        kept = theirs.weight_ih_l0.clone()
        ours.layers[0].weight_ih.zero_()
    assert torch.equal(theirs.weight_ih_l0, kept)


@pytest.mark.parametrize(
    "options",
    [{}, {"bias": False}, {"num_layers": 2, "bidirectional": True, "batch_first": True, "dropout": 0.5}],
    ids=str,
)
def test_torch_lstm_and_back(options):
    theirs = nn.LSTM(3, 4, dtype=F64, **options).eval()
    again = to_torch_lstm(from_torch_lstm(theirs))
    assert repr(again) == repr(theirs) and not again.training
    x = torch.randn(5, 2, 3, dtype=F64)
    _close(again(x)[0], theirs(x)[0])


# ---- ndrplz ----


class NdrplzCell(nn.Module):
    def __init__(self, inputs, hidden, kernel, bias):
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.conv = nn.Conv2d(inputs + hidden, 4 * hidden, kernel, padding=padding, bias=bias)

    def forward(self, x, h, c):
        i, f, o, g = self.conv(torch.cat([x, h], 1)).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class Ndrplz(nn.Module):
    """Output always [N, T, C, H, W], as there."""

    def __init__(self, inputs, hidden, kernel, num_layers, batch_first=False, bias=True):
        super().__init__()
        self.batch_first, self.hidden = batch_first, hidden
        self.cell_list = nn.ModuleList(
            NdrplzCell(hidden if n else inputs, hidden, kernel, bias) for n in range(num_layers)
        )

    def forward(self, x):
        x = x if self.batch_first else x.transpose(0, 1)
        states = []
        for cell in self.cell_list:
            h = c = x.new_zeros(x.shape[0], self.hidden, *x.shape[3:])
            outputs = []
            for t in range(x.shape[1]):
                h, c = cell(x[:, t], h, c)
                outputs.append(h)
            x = torch.stack(outputs, 1)
            states.append((h, c))
        return x, states


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kernel, num_layers", [((3, 3), 1), ((5, 3), 2), ((1, 1), 3)])
def test_ndrplz(kernel, num_layers, bias, batch_first):
    theirs = Ndrplz(3, 4, kernel, num_layers, batch_first, bias).to(F64)
    x = torch.randn(2, 5, 3, 6, 7, dtype=F64)
    expected, states = theirs(x)
    state_dict = {f"lstm.{k}": v for k, v in theirs.state_dict().items()} | {"head.weight": x}
    for ours in (
        from_ndrplz(theirs),
        from_ndrplz(theirs.state_dict(), batch_first=batch_first),
        from_ndrplz(state_dict, prefix="lstm.", batch_first=batch_first),
    ):
        output, (h, c) = ours(x)
        _close(output if batch_first else output.transpose(0, 1), expected)
        for n, (their_h, their_c) in enumerate(states):
            _close(h[n], their_h)
            _close(c[n], their_c)
    theirs.load_state_dict(to_ndrplz(ours))
    assert torch.equal(theirs(x)[0], expected)


class Twice(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


class LoRA(nn.Module):
    """What peft puts in the place of a layer: no weight of its own."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.down = nn.Conv2d(base.in_channels, 2, base.kernel_size, padding=base.padding, bias=False)
        self.up = nn.Conv2d(2, base.out_channels, 1, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


def _forgets_less(cell):
    class Cell(type(cell)):
        def forward(self, input_tensor, cur_state):
            h, c = super().forward(input_tensor, cur_state)
            return h, c + 0.5

    cell.__class__ = Cell


def _starts_at_one(cell):
    class Cell(type(cell)):
        def init_hidden(self, batch_size, image_size):
            return [t + 1 for t in super().init_hidden(batch_size, image_size)]

    cell.__class__ = Cell


def _doubled(conv):  # as accelerate and others put a forward into a module
    own = conv.forward
    conv.forward = lambda x: 2 * own(x)


CHANGES = {
    "subclass": lambda cell: setattr(cell, "conv", Twice(7, 16, 3, padding=1)),
    "no weight": lambda cell: setattr(cell, "conv", LoRA(cell.conv)),
    "sequential": lambda cell: setattr(cell, "conv", nn.Sequential(cell.conv, nn.GroupNorm(2, 16))),
    "padding": lambda cell: setattr(cell, "conv", nn.Conv2d(7, 16, 3, padding=1, padding_mode="circular")),
    "dilation": lambda cell: setattr(cell, "conv", nn.Conv2d(7, 16, 3, padding=2, dilation=2)),
    "method": lambda cell: _doubled(cell.conv),
    "cell": _forgets_less,
    "cell's start": _starts_at_one,
    "hook": lambda cell: cell.conv.register_forward_hook(lambda m, args, out: out + 1),
    "pre-hook": lambda cell: cell.conv.register_forward_pre_hook(lambda m, args: (args[0] + 1,)),
    "weight": lambda cell: nn.utils.parametrizations.weight_norm(cell.conv),
    "same padding": lambda cell: setattr(cell, "conv", nn.Conv2d(7, 16, 3, padding="same")),
    "other kernel": lambda cell: setattr(cell, "conv", nn.Conv2d(7, 16, (1, 5), padding=(0, 2))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_user_may_change_a_step_of_ndrplz(change):
    """The model's loop over its own cells, as there, is what it computes, whatever these have become."""
    from amstel.interop.ndrplz import ConvLSTM

    model, x = ConvLSTM(3, 4, (3, 3), 2, batch_first=True).to(F64), torch.randn(2, 5, 3, 6, 7, dtype=F64)
    CHANGES[change](model.cell_list[0])
    model.to(F64)
    frames = list(x.unbind(1))
    for k, cell in enumerate(model.cell_list):
        h, c = cell.init_hidden(2, (6, 7))
        assert h.dtype == F64
        more = 0.5 if change == "cell" and k == 0 else 0
        for t, frame in enumerate(frames):
            i, f, o, g = cell.conv(torch.cat([frame, h], 1)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = frames[t] = o.sigmoid() * c.tanh()
            c = c + more
    output, states = model(x)
    _close(output[0], torch.stack(frames, 1))
    _close(states[0][0], h)
    _close(states[0][1], c)


HOOKS = ["forward_pre_hook", "forward_hook", "full_backward_pre_hook", "full_backward_hook"]


@pytest.mark.parametrize("where", ["cell", "conv", "every"])
@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_on_the_cells_of_ndrplz_run_in_every_step(kind, where):
    from amstel.interop.ndrplz import ConvLSTM, ConvLSTMCell

    model, calls = ConvLSTM(3, 4, (3, 3), 2, batch_first=True), []
    expected = model(x := torch.randn(1, 5, 3, 6, 7, requires_grad=True))[0][0]

    def hook(module, *_):
        calls.append(isinstance(module, ConvLSTMCell if where != "conv" else nn.Conv2d))

    if where == "every":
        handle = getattr(nn.modules.module, f"register_module_{kind}")(hook)
    else:
        cell = model.cell_list[0]
        handle = getattr(cell if where == "cell" else cell.conv, f"register_{kind}")(hook)
    try:
        found = model(x)[0][0]
        found.sum().backward()
    finally:
        handle.remove()
    torch.testing.assert_close(found, expected)
    assert sum(calls) == (10 if where == "every" else 5)


def test_ndrplz_needs_a_step():
    from amstel.interop.ndrplz import ConvLSTM

    with pytest.raises(
        ValueError, match=r"`input_tensor` must be \[N, T, 3, H, W\] with T >= 1, got .*\[2, 0, 3"
    ):
        ConvLSTM(3, 4, (3, 3), 1, batch_first=True)(torch.zeros(2, 0, 3, 6, 7))


def _trained(module):
    return {name: p.requires_grad for name, p in module.named_parameters()}


def test_frozen_weights_and_the_mode_of_a_module_are_carried_over():
    from amstel.interop.openstl import ConvLSTMCell

    theirs = Ndrplz(3, 4, (3, 3), 2).eval()
    theirs.cell_list[0].conv.weight.requires_grad_(False)
    theirs.cell_list[1].conv.bias.requires_grad_(False)
    with torch.inference_mode():
        ours = from_ndrplz(theirs)
    assert not ours.training and _trained(ours) == {
        "layers.0.weight_ih": False, "layers.0.weight_hh": False, "layers.0.bias": True,
        "layers.1.weight_ih": True, "layers.1.weight_hh": True, "layers.1.bias": False,
    }  # fmt: skip
    with torch.no_grad():
        free = from_ndrplz(theirs.state_dict())
    assert free.training and all(_trained(free).values())
    ours(torch.randn(2, 1, 3, 5, 5))[0].sum().backward()  # its parameters are none of inference mode
    lstm = nn.LSTM(3, 4, dtype=F64)
    lstm.weight_hh_l0.requires_grad_(False)
    lstm.bias_ih_l0.requires_grad_(False)
    with torch.no_grad():
        ours = from_torch_lstm(lstm)
    assert list(_trained(ours).values()) == [True, False, True]
    lstm.bias_hh_l0.requires_grad_(False)
    with torch.no_grad():
        again = to_torch_lstm(from_torch_lstm(lstm))
    assert list(_trained(again).values()) == [True, False, False, False]
    cell = ConvLSTMCell(3, 4, 5, 5, 3)
    cell.conv_x.requires_grad_(False)
    assert list(_trained(from_openstl(cell.eval())).values()) == [False, True]


def test_what_a_module_does_beyond_its_weights_is_refused():
    from amstel.interop.openstl import ConvLSTMCell

    for conv in (Twice(7, 16, 3, padding=1), nn.Conv2d(7, 16, 3, padding=1, padding_mode="reflect")):
        theirs = Ndrplz(3, 4, (3, 3), 2)
        theirs.cell_list[0].conv = conv
        with pytest.raises(ValueError, match=r"`cell_list.0.conv` must be a torch.nn.Conv2d of stride 1"):
            from_ndrplz(theirs)
        assert from_ndrplz(theirs, prefix="cell_list.1.").in_channels == 4
        assert from_ndrplz(theirs.state_dict()).num_layers == 2
    cell = ConvLSTMCell(3, 4, 5, 5, 3)
    cell.conv_h.append(nn.ReLU())
    with pytest.raises(ValueError, match="`conv_h` must be a single convolution"):
        from_openstl(cell)

    class Halved(nn.LSTM):
        def forward(self, x):
            return super().forward(x / 2)

    with pytest.raises(ValueError, match="`lstm` must be without its own forward"):
        from_torch_lstm(Halved(3, 4))


def test_ndrplz_layers_of_different_widths_and_kernels():
    """The example of its README, hidden_dim=[64, 64, 128], and other kernels: at once, and layer by layer."""
    for hidden, kernels in (([64, 64, 128], [(3, 3)] * 3), ([4, 6], [(3, 3), (5, 1)])):
        cells = [NdrplzCell(i, h, k, True) for i, h, k in zip([3, *hidden], hidden, kernels, strict=False)]
        state = {
            f"cell_list.{n}.{k}": v for n, cell in enumerate(cells) for k, v in cell.state_dict().items()
        }
        ours = from_ndrplz(state)
        x = torch.randn(2, 1, 3, 5, 5)
        frames, by_layers = x, x
        for n, cell in enumerate(cells):
            h = c = torch.zeros(1, hidden[n], 5, 5)
            outputs = []
            for frame in frames:
                h, c = cell(frame, h, c)
                outputs.append(h)
            frames = torch.stack(outputs)
            by_layers = from_ndrplz(state, prefix=f"cell_list.{n}.")(by_layers)[0]
        torch.testing.assert_close(ours(x)[0], frames)
        torch.testing.assert_close(by_layers, frames)
        back = to_ndrplz(ours)
        assert back.keys() == state.keys() and all(torch.equal(back[k], state[k]) for k in state)
    assert from_ndrplz(NdrplzCell(3, 4, (3, 3), True)).hidden_channels == 4
    state["cell_list.1.conv.weight"] = torch.randn(24, 5 + 6, 5, 1)
    with pytest.raises(ValueError, match=r"`weights` must have layers that fit .* in layer 1 on 4 channels"):
        from_ndrplz(state)


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2}, {"padding_mode": "reflect"}, {"layer_norm": True}, {"zoneout": 0.1}, {"recurrent_dropout": 0.1},
        {"residual": True, "num_layers": 2}, {"peephole": "full", "feature_size": 4},
    ],
)  # fmt: skip
def test_what_others_do_not_have_is_not_lost(options):
    for convert in (to_ndrplz, to_keras, to_torch_lstm):
        with pytest.raises(ValueError, match=f"`lstm` must be of {next(iter(options))}="):
            convert(amstel.nn.ConvLSTM(3, 4, 1, **options))
    with pytest.raises(ValueError, match="`lstm` must be of one width"):
        to_torch_lstm(amstel.nn.ConvLSTM(3, [4, 5], 1))


# ---- Keras ----


def _keras_conv(x, kernel, padding):
    """x [B, H, W, C], kernel [k, k, C, F] in NumPy; "same" puts the odd row or column of zeros at the end."""
    if padding == "same":
        pads = [((k - 1) // 2, k - 1 - (k - 1) // 2) for k in kernel.shape[:2]]
        x = np.pad(x, [(0, 0), *pads, (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (1, 2))
    return np.einsum("bhwcij,ijcf->bhwf", windows, kernel)


def _keras(x, weights, padding):
    """x [B, T, H, W, C] -> all outputs [B, T, H', W', F] and the last c."""
    kernel, recurrent, *bias = weights
    gates = [_keras_conv(x[:, t], kernel, padding) + (bias[0] if bias else 0) for t in range(x.shape[1])]
    h = c = np.zeros((*gates[0].shape[:3], recurrent.shape[2]))
    outputs = []
    for gate in gates:
        i, f, g, o = np.split(gate + _keras_conv(h, recurrent, "same"), 4, -1)
        i, f, o = (1 / (1 + np.exp(-a)) for a in (i, f, o))
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs, 1), c


def _channels_first(x):
    return torch.from_numpy(np.moveaxis(x, -1, -3).copy())


def _keras_weights(kernel, widths, bias=True):
    rng = np.random.default_rng(0)
    weights = []
    for inputs, hidden in itertools.pairwise(widths):
        shapes = [(*kernel, inputs, 4 * hidden), (*kernel, hidden, 4 * hidden), (4 * hidden,)]
        weights += [0.3 * rng.standard_normal(shape) for shape in shapes[: 3 if bias else 2]]
    return weights


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kernel", [(3, 3), (2, 2), (4, 3), (1, 5)])
def test_keras(kernel, bias, padding):
    weights = _keras_weights(kernel, (3, 4), bias)
    x = np.random.default_rng(1).standard_normal((2, 4, 6, 7, 3))
    expected, expected_c = _keras(x, weights, padding)
    ours = from_keras(weights, padding=padding)
    output, (h, c) = ours(_channels_first(x))
    _close(output, _channels_first(expected))
    _close(h[0], _channels_first(expected[:, -1]))
    _close(c[0], _channels_first(expected_c))
    for a, b in zip(to_keras(ours), weights, strict=True):
        assert np.array_equal(a, b)
    _close(from_keras([*map(torch.from_numpy, weights), *[None] * (not bias)], padding=padding)(
        _channels_first(x)
    )[0], output)  # fmt: skip


def test_keras_weights_of_bfloat16_are_float32():
    lstm = amstel.nn.ConvLSTM(2, 3, dtype=torch.bfloat16)
    kernel, _, bias = to_keras(lstm)
    assert kernel.dtype == bias.dtype == np.float32
    back = from_keras(
        [kernel, _, bias], padding="same", strides=np.array([1, 1]), dilation_rate=torch.tensor(1)
    )
    for a, b in zip(back.parameters(), lstm.parameters(), strict=True):
        assert torch.equal(a, b.float())
    with pytest.raises(ValueError, match="`strides` must be 1"):
        from_keras([kernel, _, bias], strides=np.array([1, 2]))


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_keras_layers_on_top_of_each_other(padding):
    """Without padding maps shrink in every layer, and states are tuples; they go in as they come out."""
    weights = _keras_weights((3, 2), (2, 4, 4))
    x = np.random.default_rng(1).standard_normal((2, 4, 8, 7, 2))
    lower, lower_c = _keras(x, weights[:3], padding)
    upper, upper_c = _keras(lower, weights[3:], padding)
    ours = from_keras(weights, padding=padding)
    output, (h, c) = ours(_channels_first(x))
    _close(output, _channels_first(upper))
    for a, b in zip((*h, *c), (lower[:, -1], upper[:, -1], lower_c, upper_c), strict=True):
        _close(a, _channels_first(b))
    first, state = ours(_channels_first(x[:, :2]))
    second, _ = ours(_channels_first(x[:, 2:]), state)
    _close(torch.cat([first, second], 1), output)


def test_keras_golden_numbers():
    """Constant weights, forget-gate bias 1: what Keras 3 gives for its ConvLSTM2D."""
    kernel, recurrent, bias = np.full((3, 3, 5, 8), 0.01), np.full((3, 3, 2, 8), 0.02), np.full(8, 0.03)
    bias[2:4] = 1
    x = np.arange(480).reshape(2, 3, 4, 4, 5) / 100
    _, (h, _) = from_keras([kernel, recurrent, bias])(_channels_first(x))
    expected = [
        [[0.48694518, 0.50237733], [0.5461202, 0.5598283]],
        [[0.8661607, 0.86909103], [0.8774414, 0.8800861]],
    ]
    for channel in range(2):
        np.testing.assert_allclose(h[0, :, channel].detach().numpy(), expected, rtol=0, atol=1e-7)


# ---- OpenSTL ----


def _openstl_state(inputs, hidden, kernel, num_layers):
    state = {}
    for n in range(num_layers):
        shapes = {
            "conv_x.0": (4 * hidden, hidden if n else inputs, kernel, kernel),
            "conv_h.0": (4 * hidden, hidden, kernel, kernel),
            "conv_o.0": (hidden, 2 * hidden, kernel, kernel),  # never used
            "conv_last": (hidden, 2 * hidden, 1, 1),  # never used
        }
        for name, shape in shapes.items():
            state[f"cell_list.{n}.{name}.weight"] = 0.2 * torch.randn(shape, dtype=F64)
    return state | {"conv_last.weight": torch.randn(inputs, hidden, 1, 1, dtype=F64)}


def _openstl(x, state, num_layers):
    """x [N, T, C, H, W] -> the top h and the next frames of all steps, and the last states."""
    hidden = state["cell_list.0.conv_h.0.weight"].shape[1]
    h = [x.new_zeros(x.shape[0], hidden, *x.shape[3:]) for _ in range(num_layers)]
    c = list(h)
    outputs, frames = [], []
    for t in range(x.shape[1]):
        below = x[:, t]
        for n in range(num_layers):
            w_x, w_h = (state[f"cell_list.{n}.conv_{part}.0.weight"] for part in "xh")
            p = w_x.shape[-1] // 2
            i, f, g, o = (conv2d(below, w_x, padding=p) + conv2d(h[n], w_h, padding=p)).chunk(4, 1)
            c[n] = f.sigmoid() * c[n] + i.sigmoid() * g.tanh()
            below = h[n] = o.sigmoid() * c[n].tanh()
        outputs.append(below)
        frames.append(conv2d(below, state["conv_last.weight"]))
    return torch.stack(outputs, 1), torch.stack(frames, 1), torch.stack(h), torch.stack(c)


@pytest.mark.parametrize("kernel, num_layers", [(5, 1), (3, 3)])
def test_openstl(kernel, num_layers):
    state = _openstl_state(3, 4, kernel, num_layers)
    x = torch.randn(2, 4, 3, 6, 7, dtype=F64)
    expected, frames, their_h, their_c = _openstl(x, state, num_layers)
    output, (h, c) = from_openstl(state)(x)
    for a, b in ((output, expected), (h, their_h), (c, their_c)):
        _close(a, b)
    _close(conv2d(output[:, 1], state["conv_last.weight"]), frames[:, 1])
    prefixed = from_openstl({f"model.{k}": v for k, v in state.items()}, prefix="model.", batch_first=False)
    _close(prefixed(x.transpose(0, 1))[0].transpose(0, 1), expected)
    back = to_openstl(from_openstl(state))
    assert len(back) == 2 * num_layers and all(torch.equal(w, state[k]) for k, w in back.items())
    for lstm, message in (
        (amstel.nn.ConvLSTM(3, 4), "of bias=False"),
        (amstel.nn.ConvLSTM(3, 4, 2, bias=False), "of odd kernel size"),
        (amstel.nn.ConvLSTM(3, 4, bias=False, peephole=True), "of peephole=False"),
    ):
        with pytest.raises(ValueError, match=message):
            to_openstl(lstm)
    lowest = from_openstl(state, prefix="cell_list.0.")
    assert torch.equal(lowest.layers[0].weight_ih, state["cell_list.0.conv_x.0.weight"])


# ---- Examples and errors ----


def test_examples():
    assert doctest.testmod(interop, extraglobs={"torch": torch, "amstel": amstel}).failed == 0


def _ndrplz(**changes):
    state = {"cell_list.0.conv.weight": torch.randn(16, 7, 3, 3), "cell_list.0.conv.bias": torch.randn(16)}
    return {k: v for k, v in (state | changes).items() if v is not None}


def _layer_norm():
    extra = {"cell_list.0.conv_x.1.weight": torch.ones(16, 8, 8)}
    return _openstl_state(3, 4, 3, 1) | extra


K, R, B = (torch.randn(s) for s in ((3, 3, 5, 8), (3, 3, 2, 8), (8,)))


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: from_torch_lstm(nn.GRU(3, 4)), TypeError, "`lstm` must be a torch.nn.LSTM, got GRU"),
        (lambda: from_torch_lstm(nn.LSTM(3, 4, proj_size=2)), ValueError, "proj_size=0, got 'proj_size=2'"),
        (lambda: to_torch_lstm(nn.LSTM(3, 4)), TypeError, "`lstm` must be an amstel.nn.ConvLSTM, got LSTM"),
        (lambda: to_torch_lstm(amstel.nn.ConvLSTM(3, 4)), ValueError, r"kernel_size=\(1, 1\), got.*\(3, 3\)"),
        (lambda: to_ndrplz(amstel.nn.ConvLSTM(3, 4, peephole=True)), ValueError, "peephole=False, got"),
        (lambda: to_ndrplz(amstel.nn.ConvLSTM(3, 4, bidirectional=True)), ValueError, "bidirectional=False"),
        (lambda: to_ndrplz(amstel.nn.ConvLSTM(3, 4, padding="valid")), ValueError, "padding='same', got"),
        (lambda: to_ndrplz(amstel.nn.ConvLSTM(3, 4, 2)), ValueError, "odd kernel size"),
        (lambda: to_keras(amstel.nn.ConvLSTM(3, 4, dilation=2)), ValueError, "dilation=1, got 'dilation=2'"),
        (lambda: from_ndrplz([1]), TypeError, "`weights` must be a module or its state_dict, got list"),
        (lambda: from_ndrplz({}), ValueError, r"key 'cell_list.0.conv.weight', got the keys none"),
        (lambda: from_ndrplz(_ndrplz(), prefix="net."), ValueError, "key 'net.cell_list.0.conv.weight', got"),
        (
            lambda: from_ndrplz(_ndrplz(**{"cell_list.2.conv.weight": torch.randn(16, 8, 3, 3)})),
            ValueError,
            "must have the key 'cell_list.1.conv.weight'",
        ),
        (
            lambda: from_ndrplz(
                _ndrplz(
                    **{"cell_list.0.conv.bias": None},
                    **{
                        "cell_list.1.conv.weight": torch.randn(16, 8, 3, 3),
                        "cell_list.1.conv.bias": torch.ones(16),
                    },
                )
            ),
            ValueError,
            "must have the key 'cell_list.0.conv.bias'",
        ),
        (
            lambda: from_ndrplz(_ndrplz(**{"cell_list.0.Wci": torch.ones(1)})),
            ValueError,
            "no other keys of a cell.*got cell_list.0.Wci",
        ),
        (
            lambda: from_ndrplz(_ndrplz(**{"cell_list.0.conv.weight": torch.randn(16, 4, 3, 3)})),
            ValueError,
            r"`cell_list.0.conv.weight` must be \[4C, C_in \+ C, k, k\].*got float32 \[16, 4, 3, 3\]",
        ),
        (
            lambda: from_ndrplz(_ndrplz(**{"cell_list.0.conv.weight": torch.randn(16, 7, 4, 4)})),
            ValueError,
            "of odd kernel size",
        ),
        (
            lambda: from_ndrplz(_ndrplz(**{"cell_list.0.conv.bias": torch.randn(12)})),
            ValueError,
            r"`cell_list.0.conv.bias` must be \[16\], got float32 \[12\]",
        ),
        (
            lambda: from_ndrplz(_ndrplz(**{"cell_list.0.conv.bias": torch.randn(16, dtype=F64)})),
            ValueError,
            "one floating-point dtype and on one device, got float64",
        ),
        (lambda: from_ndrplz(_ndrplz(**{"cell_list.0.conv.bias": 3})), TypeError, "`cell_list.0.conv.bias`"),
        (
            lambda: from_keras([K, R, B], recurrent_activation="hard_sigmoid"),
            ValueError,
            "`recurrent_activation` must be 'sigmoid'.*Keras 2.*got 'hard_sigmoid'",
        ),
        (lambda: from_keras([K, R, B], activation="relu"), ValueError, "`activation` must be 'tanh'.*'relu'"),
        (lambda: from_keras([K, R, B], strides=(2, 2)), ValueError, "`strides` must be 1"),
        (lambda: from_keras([K, R, B], dilation_rate=2), ValueError, "`dilation_rate` must be 1"),
        (lambda: from_keras([K, R, B], padding="causal"), ValueError, "`padding` must be 'same' or 'valid'"),
        (lambda: from_keras(K), TypeError, "`weights` must be a list of arrays"),
        (lambda: from_keras([]), ValueError, "`weights` must be kernel, recurrent_kernel"),
        (lambda: from_keras([K, R, B, K]), ValueError, r"`weights` must be kernel.*\[8\], \[3, 3, 5, 8\]"),
        (lambda: from_keras([R, K, B]), ValueError, r"`weights\[1\]` must be \[3, 3, 2, 8\], got"),
        (lambda: from_keras([B, R, K]), ValueError, r"`weights\[0\]` must be a kernel"),
        (lambda: from_keras([K, R, B[:6]]), ValueError, r"`weights\[2\]` must be \[8\], got"),
        (lambda: from_keras([K, R, B, K, R, B]), ValueError, "`weights` must have layers that fit"),
        (
            lambda: from_openstl(_layer_norm()),
            ValueError,
            "layer_norm=0, got layer norms: cell_list.0.conv_x.1",
        ),
        (lambda: from_openstl(_openstl_state(3, 4, 2, 1)), ValueError, "of odd kernel size"),
        (lambda: from_openstl(_ndrplz()), ValueError, "key 'cell_list.0.conv_x.0.weight', got the keys cell"),
        (
            lambda: from_openstl(
                _openstl_state(3, 4, 3, 1) | {"cell_list.0.conv_h.0.weight": torch.ones(16, 3, 3, 3)}
            ),
            ValueError,
            r"`cell_list.0.conv_h.0.weight` must be \[16, 4, 3, 3\], got",
        ),
    ],
)
def test_bad_input_is_explained(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    "shape, message",
    [((2, 1, 2, 6, 6), "`h_0` must be float32"), ((1, 1, 2, 4, 4), "`h_0` must be 2 states")],
)
def test_state_without_padding(shape, message):
    lstm = amstel.nn.ConvLSTM(3, 2, bidirectional=True, padding="valid")
    x, state = torch.randn(4, 1, 3, 6, 6), torch.zeros(2, 1, 2, 4, 4)
    assert torch.equal(lstm(x, (state, state))[0], lstm(x)[0])
    with pytest.raises(ValueError, match=message):
        lstm(x, (torch.zeros(shape), state))


def test_layers_that_share_a_cell():
    from amstel.interop import ndrplz

    cell = ndrplz.ConvLSTM(4, 4, (3, 3), 1, True).cell_list[0]
    model = ndrplz.ConvLSTM(4, [4, 4], (3, 3), 2, True)
    model.cell_list = nn.ModuleList([cell, cell])
    x = torch.randn(2, 3, 4, 6, 5)
    torch.testing.assert_close(from_ndrplz(model)(x)[0], model(x)[0][0])


def test_modules_from_inference_mode_can_be_trained():
    from amstel.interop import ndrplz

    with torch.inference_mode():
        models = nn.LSTM(3, 4), ndrplz.ConvLSTM(3, 4, (3, 3), 1, True)
    for model, convert in zip(models, (from_torch_lstm, from_ndrplz), strict=True):
        assert all(p.requires_grad and not p.is_inference() for p in convert(model).parameters())
