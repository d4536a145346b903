"""Options of `amstel.nn.ConvLSTM` beyond the fused operator, and the public ConvLSTM's names, against a plain loop."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import amstel
from amstel.interop import ndrplz
from amstel.nn import ConvLSTM, ConvLSTM1d, ConvLSTMCell, ConvLSTMForecaster

F64 = torch.float64


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def _loop(lstm: ConvLSTM, x, state=None, lengths=None):
    """Layer by layer, sequence by sequence, step by step, from the formulas alone: x [T, N, C, H, W]; returns the
    outputs of all layers, and the states."""
    directions = 2 if lstm.bidirectional else 1
    lengths = [x.shape[0]] * x.shape[1] if lengths is None else lengths.tolist()
    layers, found, states = list(lstm.layers), [], []
    for k in range(lstm.num_layers):
        stride = lstm.stride[k] if isinstance(lstm.stride[0], tuple) else lstm.stride
        parts = []
        for d in range(directions):
            layer, rows, ends = layers[k * directions + d], [], []
            for n, length in enumerate(lengths):
                h = c = None
                if state is not None:
                    h, c = (s[k * directions + d][n] for s in state)
                steps = {}
                for t in range(length) if d == 0 else range(length - 1, -1, -1):
                    h, c = _step(lstm, layer, x[t, n], h, c, stride)
                    steps[t] = h
                rows.append(
                    torch.stack([steps.get(t, torch.zeros_like(steps[0])) for t in range(x.shape[0])])
                )
                ends.append((h, c))
            parts.append(torch.stack(rows, 1))
            states.append([torch.stack(s) for s in zip(*ends, strict=True)])
        new = torch.cat(parts, 2)
        x = new + x if k and lstm.residual else new
        found.append(x)
    return found, states


def _step(lstm, layer, x, h, c, stride):
    def conv(v, weight, stride, padding):
        if padding is not None:
            pads = []
            for size in weight.shape[2:]:
                total = lstm.dilation * (size - 1)
                pads = [total // 2, total - total // 2, *pads]
            v = F.pad(v[None], pads, padding)[0] if padding != "zeros" else F.pad(v, pads)
        return F.conv2d(v[None], weight, stride=stride, dilation=lstm.dilation)[0]

    a = conv(x, layer.weight_ih, stride, None if lstm.padding == "valid" else lstm.padding_mode)
    if h is None:
        h = c = a.new_zeros(a.shape[0] // 4, *a.shape[1:])
    r = conv(h, layer.weight_hh, 1, lstm.padding_mode)
    if lstm.layer_norm:

        def normal(v, norm):
            v = (v - v.mean()) / (v.var(correction=0) + 1e-5).sqrt()
            broadcast = (...,) if norm.weight.dim() == 3 else (..., None, None)
            return v * norm.weight[broadcast] + norm.bias[broadcast]

        a, r = normal(a, layer.norm_ih), normal(r, layer.norm_hh)
    i, f, g, o = (a + r + (0 if layer.bias is None else layer.bias[:, None, None])).chunk(4)
    p = layer.peephole
    p = [0, 0, 0] if p is None else p if p.dim() == 4 else p[..., None, None]
    new = torch.sigmoid(f + p[1] * c) * c + torch.sigmoid(i + p[0] * c) * torch.tanh(g)
    out = torch.sigmoid(o + p[2] * new) * torch.tanh(new)
    z = lstm.zoneout
    return (1 - z) * out + z * h, (1 - z) * new + z * c


def _random(lstm):
    with torch.no_grad():
        for p in lstm.parameters():
            p.normal_(0, 0.3)
    return lstm


OPTIONS = {
    "widths": dict(hidden_channels=[4, 5, 3]),
    "kernels": dict(kernel_size=[(3, 3), (5, 5), (3, 1)]),
    "widths and kernels, two directions": dict(
        hidden_channels=[2, 3, 4], kernel_size=[3, (5, 3), 1], bidirectional=True
    ),
    "reflect": dict(padding_mode="reflect", num_layers=2),
    "replicate, even kernel": dict(padding_mode="replicate", kernel_size=(2, 4)),
    "circular, dilated": dict(padding_mode="circular", dilation=2),
    "valid, circular h": dict(padding_mode="circular", padding="valid", num_layers=2),
    "stride": dict(stride=2, num_layers=2),
    "strides": dict(stride=[(2, 1), (1, 3)], kernel_size=[3, (5, 2)]),
    "stride, even kernel, dilated": dict(stride=2, kernel_size=(4, 3), dilation=2),
    "stride, valid": dict(stride=2, padding="valid"),
    "full peephole": dict(peephole="full", feature_size=(6, 7), num_layers=2),
    "full peephole, stride, two directions": dict(
        peephole="full", feature_size=(6, 7), stride=2, bidirectional=True, num_layers=2
    ),
    "peephole, reflect": dict(peephole=True, padding_mode="reflect"),
    "layer norm": dict(layer_norm=True, num_layers=2),
    "layer norm of places": dict(layer_norm=True, feature_size=(6, 7), bias=False),
    "zoneout": dict(zoneout=0.3, num_layers=2),
    "residual": dict(residual=True, num_layers=3),
    "residual, two directions": dict(residual=True, num_layers=2, bidirectional=True),
}


@pytest.mark.parametrize("name", list(OPTIONS))
def test_options_are_their_formulas(name):
    """Every option with a state, lengths and both memories: values and gradients of everything."""
    options = {"hidden_channels": 4, **OPTIONS[name]}
    lstm = _random(ConvLSTM(3, **options, dtype=F64).eval())
    x = torch.randn(4, 2, 3, 6, 7, dtype=F64, requires_grad=True)
    lengths = torch.tensor([4, 2])
    _, states = _loop(lstm, x)
    state = [[torch.randn_like(s[j]) for s in states] for j in (0, 1)]
    if not lstm._tuples:
        state = [torch.stack(s) for s in state]
    for given, ends in ((None, None), (state, lengths)):
        expected, expected_states = _loop(lstm, x, given, ends)
        wanted = torch.autograd.grad(
            sum(t.square().sum() for t in (expected[-1], *(s for pair in expected_states for s in pair))),
            [x, *lstm.parameters()],
            allow_unused=True,
        )
        for memory in ("store", "recompute"):
            lstm.memory = memory
            output, (h, c) = lstm(x, given, ends)
            torch.testing.assert_close(output, expected[-1])
            for n, (end_h, end_c) in enumerate(expected_states):
                torch.testing.assert_close(h[n], end_h)
                torch.testing.assert_close(c[n], end_c)
            got = torch.autograd.grad(
                output.square().sum() + sum(t.square().sum() for t in (*h, *c)),
                [x, *lstm.parameters()],
                allow_unused=True,
            )
            for ours, theirs in zip(got, wanted, strict=True):
                torch.testing.assert_close(ours, theirs)
        last = _loop(lstm, x, given, ends)[0][-1]
        lstm.return_sequences, lstm.return_all_layers = False, True
        outputs = lstm(x, given, ends)[0]
        lstm.return_sequences, lstm.return_all_layers = True, False
        half = 2 if lstm.bidirectional else 1
        ends = torch.full((2,), 4) if ends is None else ends
        parts = last[ends - 1, torch.arange(2)].chunk(half, 1), last[0].chunk(half, 1)
        torch.testing.assert_close(outputs[-1], torch.cat([parts[d][d] for d in range(half)], 1))
        assert len(outputs) == lstm.num_layers and all(t.dim() == 4 for t in outputs)


def test_all_layers_and_batch_first():
    lstm = _random(ConvLSTM(3, [4, 2], dtype=F64, return_all_layers=True))
    x = torch.randn(3, 2, 3, 5, 4, dtype=F64)
    first, second = lstm(x)[0]
    expected = _loop(lstm, x)[0]
    torch.testing.assert_close(first, expected[0])
    torch.testing.assert_close(second, expected[1])
    lstm.batch_first = True
    assert torch.equal(lstm(x.transpose(0, 1))[0][0], first.transpose(0, 1))


def test_numbers_of_layers():
    assert ConvLSTM(3, [4, 5, 6]).num_layers == 3
    assert ConvLSTM(3, 4, [3, 5, 3]).num_layers == 3
    assert (
        ConvLSTM(3, 4).num_layers
        == ConvLSTM(3, 4, (3, 5)).num_layers
        == ConvLSTM(3, 4, [3, 5]).num_layers
        == 1
    )
    assert ConvLSTM(3, 4, (3, 5), 2).kernel_size == (3, 5)
    assert ConvLSTM(3, 4, [(3, 5)] * 2).kernel_size == (3, 5)
    assert ConvLSTM(3, [4, 4]).hidden_channels == 4
    assert ConvLSTM(3, [4, 5]).hidden_channels == (4, 5)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(hidden_channels=[4, 5], num_layers=3), r"`hidden_channels` must be .* \(num_layers is 3\), got \[4, 5\]"),
        (dict(hidden_channels=[4, 5, 6], kernel_size=[(3, 3)] * 2), "`kernel_size` must be"),
        (dict(hidden_channels=[]), "`hidden_channels` must be"),
        (dict(hidden_channels=[4, 0]), r"`hidden_channels\[1\]` must be an integer >= 1, got 0"),
        (dict(hidden_channels=[4, True]), r"`hidden_channels\[1\]` must be an integer >= 1, got True"),
        (dict(kernel_size=[(3, 3), (3, 3, 3)]), r"`kernel_size\[1\]` must be"),
        (dict(stride=0), "`stride` must be"),
        (dict(padding_mode="same"), "`padding_mode` must be one of 'zeros'"),
        (dict(peephole="all"), "`peephole` must be"),
        (dict(peephole=1), "`peephole` must be"),
        (dict(peephole="full"), r"`feature_size` must be \(H, W\) of x"),
        (dict(peephole="full", feature_size=2, padding="valid"), "`feature_size` must be large enough"),
        (dict(recurrent_dropout=1), r"`recurrent_dropout` must be in \[0, 1\)"),
        (dict(zoneout=-0.1), r"`zoneout` must be in \[0, 1\)"),
        (dict(residual=True, hidden_channels=[4, 5]), "`residual` must be False"),
        (dict(residual=True, stride=2, num_layers=2), "`residual` must be False"),
        (dict(stateful=True, bidirectional=True), "`stateful` must be False"),
        (dict(forget_bias="1"), "`forget_bias` must be"),
        (dict(state_dtype=torch.int64), "`state_dtype` must be"),
        (dict(layer_norm=1), "`layer_norm` must be"),
    ],
)  # fmt: skip
def test_options_explain_themselves(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        ConvLSTM(3, **{"hidden_channels": 4, **options})


@pytest.mark.parametrize("mode", ["zeros", "reflect", "circular"])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kernel, stride, dilation", [(3, 1, 1), (4, 2, 1), ((5, 2), (1, 3), 2)])
def test_the_smallest_maps(mode, padding, kernel, stride, dilation):
    """Where the check lets a map through, every convolution can be computed, and no row or column less would do."""
    options = {"padding_mode": mode, "padding": padding, "stride": stride, "dilation": dilation}
    lstm = ConvLSTM(1, 2, [kernel, 3], **options)
    fits = []
    for size in range(1, 40):
        for height, width in ((size, 40), (40, size)):
            x = torch.zeros(2, 1, 1, height, width)
            try:
                lstm(x)
                fits.append((height, width))
            except ValueError as error:
                assert "`x` must be at least" in str(error) and f"[2, 1, 1, {height}, {width}]" in str(error)
                with pytest.raises((RuntimeError, ValueError)), patch("amstel.nn.conv_lstm.check_size"):
                    lstm(x)
    assert len(fits) > 20


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: ConvLSTM(3, 4, 5, padding_mode="reflect")(torch.zeros(1, 1, 3, 2, 9)), "`x` must be at least 3 high and 3 wide"),
        (lambda: ConvLSTM(3, 4, 5, padding_mode="circular")(torch.zeros(1, 1, 3, 9, 1)), "`x` must be at least 2 high and 2 wide"),
        (lambda: ConvLSTM(3, 4, stride=2, padding="valid")(torch.zeros(1, 1, 3, 2, 9)), "`x` must be at least 3 high"),
        # Of a later layer, whose map is smaller, and of x as it was given.
        (lambda: ConvLSTM(3, 4, 5, 2, stride=2, padding_mode="reflect", batch_first=True)(torch.zeros(2, 1, 3, 8, 9)),
         r"`x` must be at least 9 high and 9 wide for padding_mode='reflect', got float32 \[2, 1, 3, 8, 9\]"),
        (lambda: ConvLSTM(3, 4, 3, 2, stride=2, padding="valid")(torch.zeros(1, 1, 3, 6, 9)),
         r"`x` must be at least 7 high and 7 wide for padding='valid', got float32 \[1, 1, 3, 6, 9\]"),
        (lambda: ConvLSTM1d(3, 4, 5, padding_mode="reflect")(torch.zeros(1, 1, 3, 2)),
         r"`x` must be at least 3 long for padding_mode='reflect', got float32 \[1, 1, 3, 2\]"),
        (lambda: ConvLSTMForecaster(3, 4, 5, padding_mode="reflect", patch=4, batch_first=True)(torch.zeros(1, 6, 3, 8, 16), 2),
         r"`frames` must be at least 12 high and 12 wide for padding_mode='reflect', got float32 \[1, 6, 3, 8, 16\]"),
        (lambda: ConvLSTM(3, 4, peephole="full", feature_size=5)(torch.zeros(1, 1, 3, 5, 6)), "`feature_size`"),
        (lambda: ConvLSTM(3, 4, stride=2)(torch.zeros(0, 1, 3, 5, 6)), "`x` must be a sequence of at least one step"),
        (lambda: ConvLSTM(3, 4, stride=2)(torch.zeros(1, 1, 3, 5, 6, dtype=F64)), "`x` must be float32 .* as the weights"),
        (lambda: ConvLSTM(3, 4, stride=2)(torch.zeros(2, 1, 3, 5, 6), None, torch.tensor([3])), "`lengths` must be"),
        (lambda: ConvLSTM(3, [4, 5])(torch.zeros(2, 1, 3, 5, 6), ([torch.zeros(1, 4, 5, 6)], [None])), "`h_0` must be 2"),
        (lambda: ConvLSTM(3, 4, stride=2)(torch.zeros(2, 1, 3, 4, 4), [torch.zeros(1, 1, 4, 4, 4)] * 2), "`h_0` must be"),
        (lambda: ConvLSTMCell(3, 4)(torch.zeros(1, 3, 5, 6, dtype=F64)), "`x` must be float32"),
        (lambda: ConvLSTMCell(3, 4)(torch.zeros(1, 3, 5, 6), [torch.zeros(1, 4, 5, 6, dtype=F64)] * 2), "`h` must be"),
    ],
)  # fmt: skip
def test_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_recurrent_dropout_drops_the_same_channels_of_h_in_every_step():
    lstm = _random(ConvLSTM(3, 6, dtype=F64, recurrent_dropout=0.5))
    x = torch.randn(5, 1, 3, 4, 4, dtype=F64)
    torch.manual_seed(3)
    mask = F.dropout(torch.ones(1, 6, 1, 1, dtype=F64), 0.5)
    assert set(mask.unique().tolist()) == {0.0, 2.0}
    torch.manual_seed(3)
    output, _ = lstm(x)
    scaled = ConvLSTM(3, 6, dtype=F64)
    scaled.load_state_dict(lstm.state_dict())
    with torch.no_grad():
        scaled.layers[0].weight_hh.mul_(mask[0])
    torch.testing.assert_close(output, scaled(x)[0])
    assert torch.equal(lstm.eval()(x)[0], ConvLSTM.forward(lstm, x)[0])
    scaled.load_state_dict(lstm.state_dict())
    assert torch.equal(lstm(x)[0], scaled(x)[0])  # without dropout the fused operator runs


def test_zoneout_keeps_elements_at_its_rate():
    lstm = _random(ConvLSTM(2, 8, zoneout=0.25))
    h, c = torch.randn(1, 4, 8, 16, 16), torch.randn(1, 4, 8, 16, 16)
    _, (new_h, new_c) = lstm(torch.randn(1, 4, 2, 16, 16), (h, c))
    for old, new in ((h, new_h), (c, new_c)):
        assert abs((old == new).float().mean() - 0.25) < 0.02


def test_forget_bias():
    lstm = ConvLSTM(2, [3, 4], forget_bias=2.5)
    for layer, hidden in zip(lstm.layers, (3, 4), strict=True):
        i, f, g, o = layer.bias.detach().chunk(4)
        assert torch.equal(f, torch.full((hidden,), 2.5)) and not (i.any() or g.any() or o.any())
    assert torch.equal(ConvLSTM(2, 3).layers[0].bias.chunk(4)[1], torch.ones(3))


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "stride": 2}, {"hidden_channels": [3, 4]}])
@pytest.mark.parametrize("dtype", [F64, torch.bfloat16])
def test_stateful_goes_on_where_it_was(options, dtype):
    """Chunks of a stream give the bits of the whole, in bfloat16 too."""
    options = {"hidden_channels": 4, **options}
    lstm = _random(ConvLSTM(3, **options, dtype=dtype, stateful=True))
    whole = ConvLSTM(3, **options, dtype=dtype, state_dtype=torch.promote_types(dtype, torch.float32))
    whole.load_state_dict(lstm.state_dict())
    x = torch.randn(7, 2, 3, 6, 5, dtype=dtype)
    expected, (h_n, c_n) = whole(x)
    for _ in range(2):
        parts = [lstm(part) for part in x.split([1, 3, 2, 1])]
        assert torch.equal(torch.cat([output for output, _ in parts]), expected)
        assert all(torch.equal(a, b) for a, b in zip(parts[-1][1][0], h_n, strict=True))
        assert all(
            c.dtype == dtype and torch.equal(c, e.to(dtype))
            for c, e in zip(parts[-1][1][1], c_n, strict=True)
        )
        lstm.reset_state()
    lstm(x)
    assert not any("state" in key for key in lstm.state_dict())
    with pytest.raises(ValueError, match=r"`x` must have the N = 2 .*reset_state\(\)"):
        lstm(x[:, :1])
    with pytest.raises(ValueError, match=r"`x` must have the H = 6 .*reset_state\(\)|`h_0` must be"):
        lstm(x[:, :, :, :3])
    with pytest.raises(ValueError, match="`x` must be at least one pixel high and wide"):
        lstm(x[:, :, :, :0])
    assert not lstm._state[0][0].requires_grad
    given = [[torch.zeros_like(t) for t in s] for s in (h_n, c_n)]
    given = given if lstm._tuples else [torch.stack(s) for s in given]
    assert torch.equal(lstm(x, given)[0], expected)  # a state that is given counts
    # The state goes along with the dtype of the network.
    assert lstm.double()(x.double())[0].dtype == F64


def test_a_cell_streams_bfloat16_without_loss():
    cell = _random(ConvLSTMCell(3, 4, dtype=torch.bfloat16, state_dtype=torch.float32))
    x = torch.randn(6, 1, 3, 5, 5, dtype=torch.bfloat16)
    state = None
    for frame in x:
        state = cell(frame, state)
    assert state[0].dtype == torch.bfloat16 and state[1].dtype == torch.float32
    exact = ConvLSTMCell(3, 4, dtype=F64)
    exact.load_state_dict({k: v.double() for k, v in cell.state_dict().items()})
    wide = None
    for frame in x.double():
        wide = exact(frame, wide)
    torch.testing.assert_close(state[1].double(), wide[1], rtol=0.05, atol=0.05)


def test_short_types_and_autocast_on_the_plain_path():
    lstm = _random(ConvLSTM(3, 4, padding_mode="circular", layer_norm=True, zoneout=0.1).eval())
    x = torch.randn(3, 2, 3, 6, 6)
    expected = lstm(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        output, (h, c) = lstm(x)
        again = lstm(x, (h, c))[0]
    assert again.shape == output.shape
    torch.testing.assert_close(output.float(), expected, rtol=0.1, atol=0.1)
    short = lstm.bfloat16()(x.bfloat16())
    assert short[0].dtype == short[1][1].dtype == torch.bfloat16
    torch.testing.assert_close(short[0].float(), expected, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("make", [
    lambda: amstel.nn.ConvALSTM(3, 4, 2, feature_size=4, head_channels=4),
    lambda: amstel.nn.VideoLSTM(3, 4, 2, feature_size=4, head_channels=4),
    lambda: ConvLSTM(3, [4, 5]),
    lambda: ConvLSTM(3, 4, stride=2),
    lambda: ndrplz.ConvLSTM(3, 4, (3, 3), 2),
])  # fmt: skip
def test_hooks_and_parametrizations_of_all_weights_run(make):
    """weight = weight_g * direction, whose scale is doubled: by a hook and by a parametrization."""
    torch.manual_seed(1)
    by_hook, by_parametrization = make(), make()
    by_parametrization.load_state_dict(by_hook.state_dict())

    class Twice(nn.Module):
        def forward(self, w):
            return 2 * w

    names = ("weight_ih", "weight_hh", "weight")
    expected = make()
    state = by_hook.state_dict()
    touched = 0
    for path, module in list(by_hook.named_modules()):
        mine = [n for n in names if n in module._parameters and module._parameters[n].dim() == 4]
        if not mine or path.startswith(("head", "attend", "initial", "motion_initial")):
            continue
        for n in mine:
            touched += 1
            state[f"{path}.{n}"] = 2 * state[f"{path}.{n}"]
            other = by_parametrization.get_submodule(path)
            torch.nn.utils.parametrize.register_parametrization(other, n, Twice())
        parameters = {n: module._parameters.pop(n) for n in mine}

        def hook(module, inputs, parameters=parameters):
            for n, p in parameters.items():
                setattr(module, n, 2 * p)

        for n, p in parameters.items():
            setattr(module, n, p.detach())
        module.register_forward_pre_hook(hook)
    assert touched
    expected.load_state_dict(state)
    shape = (3, 2, 3, 4, 4)
    inputs = [torch.randn(shape) for _ in range(2 if isinstance(expected, amstel.nn.VideoLSTM) else 1)]
    outputs = []
    for model in (expected, by_hook, by_parametrization):
        found = model.eval()(*inputs)[0]
        outputs.append(found[0] if isinstance(found, list) else found)
    torch.testing.assert_close(outputs[1], outputs[0])
    torch.testing.assert_close(outputs[2], outputs[0])


# ---- ndrplz/ConvLSTM_pytorch by its own names ----


def _ndrplz_loop(model, x):
    """x [N, T, C, H, W] from the weights alone."""
    outputs, states = [], []
    for cell in model.cell_list:
        hidden = cell.conv.weight.shape[0] // 4
        h = c = x.new_zeros(x.shape[0], hidden, *x.shape[3:])
        steps = []
        for t in range(x.shape[1]):
            both = torch.cat([x[:, t], h], 1)
            padding = [k // 2 for k in cell.conv.weight.shape[2:]]
            i, f, o, g = F.conv2d(both, cell.conv.weight, cell.conv.bias, padding=padding).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            steps.append(h)
        x = torch.stack(steps, 1)
        outputs.append(x)
        states.append((h, c))
    return outputs, states


def test_the_example_of_its_readme():
    height = width = 12
    channels = 3
    model = ndrplz.ConvLSTM(input_size=(height, width),
                            input_dim=channels,
                            hidden_dim=[64, 64, 128],
                            kernel_size=(3, 3),
                            num_layers=3,
                            batch_first=True,
                            bias=True,
                            return_all_layers=False)  # fmt: skip
    x = torch.rand(2, 4, channels, height, width)
    layer_output_list, last_state_list = model(x)
    assert len(layer_output_list) == len(last_state_list) == 1
    outputs, states = _ndrplz_loop(model, x)
    torch.testing.assert_close(layer_output_list[0], outputs[-1])
    torch.testing.assert_close(last_state_list[0][0], states[-1][0])
    torch.testing.assert_close(last_state_list[0][1], states[-1][1])


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_its_other_arguments(batch_first, bias):
    model = ndrplz.ConvLSTM(3, [4, 2], [(3, 3), (5, 1)], 2, batch_first, bias, True).double()
    assert [tuple(p.shape) for n, p in model.named_parameters() if n.endswith("weight")] == [
        (16, 7, 3, 3),
        (8, 6, 5, 1),
    ]
    x = torch.randn(2, 3, 3, 6, 5, dtype=F64)
    outputs, states = _ndrplz_loop(model, x)
    found, last = model(x if batch_first else x.transpose(0, 1))
    for k in range(2):
        torch.testing.assert_close(found[k], outputs[k])  # [N, T, ...] either way, as there
        torch.testing.assert_close(last[k][0], states[k][0])
        torch.testing.assert_close(last[k][1], states[k][1])
    first, middle = model((x if batch_first else x.transpose(0, 1)).split([1, 2], 1 if batch_first else 0)[0])
    rest, _ = model(
        (x if batch_first else x.transpose(0, 1)).split([1, 2], 1 if batch_first else 0)[1], middle
    )
    torch.testing.assert_close(torch.cat([first[1], rest[1]], 1), outputs[1])


def test_its_cell_and_its_first_weights():
    torch.manual_seed(5)
    model = ndrplz.ConvLSTM(3, 4, (3, 3), 1)
    torch.manual_seed(5)
    assert torch.equal(model.cell_list[0].conv.weight, nn.Conv2d(7, 16, (3, 3), padding=1).weight)
    x = torch.randn(1, 2, 3, 5, 5)
    cell = model.cell_list[0]
    h, _ = cell(input_tensor=x[0], cur_state=cell.init_hidden(2, (5, 5)))
    torch.testing.assert_close(h, model(x)[0][0][:, 0])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: ndrplz.ConvLSTM(3, [4, 5], (3, 3), 3), "`hidden_dim` must be one value or a list of num_layers = 3"),
        (lambda: ndrplz.ConvLSTM(3, 4, (2, 2), 1), "`kernel_size` must be odd"),
        (lambda: ndrplz.ConvLSTM(3, 4, (3, 3), 1)(torch.zeros(1, 2, 4, 5, 5)), "`input_tensor` must be"),
        (lambda: ndrplz.ConvLSTM(3, 4, (3, 3), 2)(torch.zeros(1, 2, 3, 5, 5), [None]), "`hidden_state` must be"),
    ],
)  # fmt: skip
def test_its_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "options", [{}, {"padding_mode": "reflect"}, {"hidden_channels": [3, 4]}, {"zoneout": 0.1}]
)
@pytest.mark.parametrize("return_sequences", [True, False])
def test_results_are_nobodys_but_the_callers(options, return_sequences):
    """Changes in place of what a call returned change neither its other results nor what a stateful layer keeps."""
    lstm = ConvLSTM(
        2, **{"hidden_channels": 3, **options}, stateful=True, return_sequences=return_sequences
    ).eval()
    x = torch.randn(3, 1, 2, 4, 4)
    with torch.no_grad():
        lstm(x)
        expected = lstm(x)[0]
        for which in range(3):
            lstm.reset_state()
            output, (h, c) = lstm(x)
            results = [[output], list(h), list(c)]
            others = [t.clone() for k, group in enumerate(results) for t in group if k != which]
            for t in results[which]:
                t.fill_(7)
            assert all(map(torch.equal, others, (t for k, g in enumerate(results) for t in g if k != which)))
            assert torch.equal(lstm(x)[0], expected)


@pytest.mark.parametrize("options", [{}, {"padding_mode": "reflect"}, {"layer_norm": True, "zoneout": 0.1}])
def test_recomputing_under_torch_func(options):
    grads = []
    x = torch.randn(2, 1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    for memory in ("store", "recompute"):
        torch.manual_seed(0)
        lstm = ConvLSTM(2, 3, memory=memory, **options)
        weights = {name: weight.detach() for name, weight in lstm.named_parameters()}
        torch.manual_seed(1)
        loss = lambda w, lstm=lstm: torch.func.functional_call(lstm, w, (x,))[0].square().sum()  # noqa: E731
        grads.append(torch.func.grad(loss)(weights))
    torch.testing.assert_close(grads[1], grads[0])
    assert all(g.abs().max() > 0 for name, g in grads[0].items() if "peephole" not in name)
