"""amstel.interop.rim against each convention written out anew."""

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, pad, relu

from amstel import inverse
from amstel.interop.rim import from_atommic, from_direct, from_irim
from amstel.nn import RIM, ConvGRUCell

F64 = torch.float64


@pytest.fixture(autouse=True)
def _seed(one_thread):
    torch.manual_seed(0)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def conv(inputs, outputs, kernel=1, bias=True):
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias, dtype=F64)


class TwoConvs(nn.Module):
    """What atommic and irim have in common."""

    def __init__(self, inputs, c, kernel=1, biases=(True, True)):
        super().__init__()
        self.ih, self.hh, self.c = (
            conv(inputs, 3 * c, kernel, biases[0]),
            conv(c, 3 * c, kernel, biases[1]),
            c,
        )


class Atommic(TwoConvs):
    def forward(self, x, h):
        x_r, x_z, x_n = self.ih(x).chunk(3, 1)
        h_r, h_z, h_n = self.hh(h).chunk(3, 1)
        z = torch.sigmoid(x_z + h_z)
        return (1 - z) * torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n) + z * h


class Irim(TwoConvs):
    def forward(self, x, h):
        x_z, x_r, x_n = self.ih(x).chunk(3, 1)
        h_z, h_r, h_n = self.hh(h).chunk(3, 1)
        z = torch.sigmoid(x_z + h_z)
        return z * torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n) + (1 - z) * h


class Direct(nn.Module):
    def __init__(self, inputs, c, kernel=1):
        super().__init__()
        self.reset_gate, self.update_gate, self.out_gate = (conv(inputs + c, c, kernel) for _ in range(3))
        self.c = c

    def forward(self, x, h):
        both = torch.cat([x, h], 1)
        reset, update = torch.sigmoid(self.reset_gate(both)), torch.sigmoid(self.update_gate(both))
        new = torch.tanh(self.out_gate(torch.cat([x, reset * h], 1)))
        return update * new + (1 - update) * h


CELLS = [
    (from_atommic, Atommic, {"biases": (True, False)}), (from_atommic, Atommic, {"biases": (False, False)}),
    (from_irim, Irim, {}), (from_irim, Irim, {"biases": (False, False)}), (from_direct, Direct, {}),
]  # fmt: skip


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("convert, cell, options", CELLS)
def test_cells(convert, cell, options, kernel):
    theirs = cell(3, 4, kernel, **options)
    ours = convert(theirs)
    assert isinstance(ours, ConvGRUCell) and ours.weight_ih.dtype == F64 and ours.weight_ih.requires_grad
    x, h = torch.randn(2, 3, 5, 6, dtype=F64), torch.randn(2, 4, 5, 6, dtype=F64)
    close(ours(x, h), theirs(x, h))
    close(ours(x), theirs(x, torch.zeros_like(h)))
    again = convert({f"a.b.{k}": t for k, t in theirs.state_dict().items()}, prefix="a.b.")
    close(again(x, h), theirs(x, h))
    with torch.no_grad():
        next(theirs.parameters()).zero_()
    assert not torch.equal(ours(x, h), theirs(x, h)), "the weights must be copies"


@pytest.mark.parametrize("convert, cell, options", CELLS)
def test_frozen_weights_and_the_mode_of_a_module_are_carried_over(convert, cell, options):
    theirs = cell(3, 4, **options).eval()
    frozen = (
        [theirs.hh.weight]
        if cell is not Direct
        else [getattr(theirs, f"{g}_gate").bias for g in ("reset", "update", "out")]
    )
    for p in frozen:
        p.requires_grad_(False)
    with torch.no_grad():
        ours = convert(theirs)
    expected = {"weight_ih": True, "weight_hh": True, "bias_ih": True, "bias_hh": True}
    if cell is Direct:  # whose bias is one
        expected |= {"bias_ih": False, "bias_hh": False}
    else:  # a bias that is not there goes with its weight
        expected |= {"weight_hh": False, "bias_hh": theirs.hh.bias is not None}
    assert {name: p.requires_grad for name, p in ours.named_parameters()} == expected
    assert not ours.training
    free = convert(theirs.state_dict())
    assert free.training and all(p.requires_grad for p in free.parameters())

    class Twice(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    name, conv_ = next((n, m) for n, m in theirs.named_modules() if isinstance(m, nn.Conv2d))
    conv_.__class__ = Twice
    with pytest.raises(ValueError, match=f"`{name}` must be a torch.nn.Conv2d without its own forward"):
        convert(theirs)


@pytest.mark.parametrize("convert, cell, options", CELLS)
def test_cells_from_inference_mode_can_be_trained(convert, cell, options):
    with torch.inference_mode():
        theirs = cell(3, 4, **options)
    assert all(p.requires_grad and not p.is_inference() for p in convert(theirs).parameters())


def test_a_frozen_network_stays_frozen():
    c, part = 5, nn.Module()
    convs = {f"layers.{k}": (conv(*sizes), Atommic(c, c)) for k, sizes in enumerate([(4, c, 5), (c, c, 3)])}
    part.layers = nn.ModuleList(
        nn.ModuleDict({"convs": nn.ModuleDict({"conv_layer": a}), "rnn": b}) for a, b in convs.values()
    )
    part.final_layer = nn.Sequential(nn.ModuleDict({"conv_layer": conv(c, 2, 3)}))
    part.layers.requires_grad_(False)
    trained = [name for name, p in from_atommic(part).named_parameters() if p.requires_grad]
    assert trained == ["conv3.weight", "conv3.bias"]


def padded(layer, x, mode, dilation=1):
    k = dilation * (layer.kernel_size[0] // 2)
    mode = {"zeros": "constant"}.get(mode, mode)
    return conv2d(pad(x, (k, k, k, k), mode=mode), layer.weight, layer.bias, dilation=dilation)


def network(
    cells, convs, x, gradient, *, padding="replicate", dilation=2, state_relu=False, carry=True, steps=4
):
    """Their RIM: eta and its gradient in, eta plus the output out."""
    zeros = [torch.zeros(len(x), cell.c, *x.shape[2:], dtype=F64) for cell in cells]
    states, estimates = zeros, []
    for _ in range(steps):
        old = states if carry else zeros
        h1 = cells[0](relu(padded(convs[0], torch.cat([x, gradient(x)], 1), padding)), old[0])
        a = relu(h1) if state_relu else h1
        h2 = cells[1](relu(padded(convs[1], a, padding, dilation)), old[1])
        x = x + padded(convs[2], relu(h2) if state_relu else h2, padding)
        states = [h1, h2]
        estimates.append(x)
    return estimates


def keyed(modules):
    return {
        f"{place}.{key}": t for place, module in modules.items() for key, t in module.state_dict().items()
    }


@pytest.mark.parametrize("case", ["direct", "direct, zeros", "atommic", "irim", "irim, no states"])
def test_networks(case):
    c, name = 5, case.split(",")[0]
    kind = {"direct": Direct, "atommic": Atommic, "irim": Irim}[name]
    cells = [kind(c, c, **({"biases": (True, False)} if name == "atommic" else {})) for _ in range(2)]
    convs = [conv(4, c, 5), conv(c, c, 3), conv(c, 2, 3, bias=name != "irim")]
    options = {}
    if name == "direct":
        at = 0 if "zeros" in case else 1
        modules = {f"conv_blocks.{k}.{at}": m for k, m in enumerate(convs)}
        modules |= {
            f"{g}_gates.{k}.0": getattr(m, f"{g}_gate")
            for k, m in enumerate(cells)
            for g in ("reset", "update", "out")
        }
        options = {"state_relu": True, "padding": "replicate" if at else "zeros"}
        model = from_direct(
            {f"cell_list.0.{k}": t for k, t in keyed(modules).items()}, prefix="cell_list.0.", steps=4
        )
    elif name == "atommic":
        modules = {f"layers.{k}.convs.conv_layer": convs[k] for k in range(2)} | {
            "final_layer.0.conv_layer": convs[2]
        }
        modules |= {f"layers.{k}.rnn": m for k, m in enumerate(cells)}
        model = from_atommic(keyed(modules) | {"dc_weight": torch.ones(1)}, steps=4)
    else:
        modules = {f"layers.{k}.input_fun.conv_layer": m for k, m in enumerate(convs)}
        modules |= {f"layers.{k}.rnn_cell": m for k, m in enumerate(cells)}
        options = {"carry": "no states" not in case}
        model = from_irim(keyed(modules), steps=4, carry_state=options["carry"])
    assert isinstance(model, RIM)
    physics = inverse.MRI(torch.rand(9) > 0.4, torch.randn(3, 8, 9, dtype=torch.complex128), 0.8)
    y = physics(torch.randn(2, 8, 9, dtype=torch.complex128))

    def gradient(x):
        found = physics.gradient(torch.complex(x[:, 0], x[:, 1]), y)
        return torch.stack([found.real, found.imag], 1)

    start = physics.adjoint(y)
    expected = network(cells, convs, torch.stack([start.real, start.imag], 1), gradient, **options)
    for a, b in zip(model(y, physics), expected, strict=True):
        torch.testing.assert_close(torch.view_as_real(a).permute(0, 3, 1, 2), b, rtol=1e-9, atol=1e-9)


GRU = Atommic(3, 4).state_dict()


@pytest.mark.parametrize("error, message, call", [
    (TypeError, "`weights` must be a module or its state_dict, got list", lambda: from_irim([])),
    (ValueError, "got no conv_blocks.0.0.weight", lambda: from_direct({})),
    (ValueError, "got no layers.0.input_fun.conv_layer.weight", lambda: from_irim(GRU, prefix="rnn.")),
    (ValueError, "also norm.weight", lambda: from_atommic(GRU | {"norm.weight": torch.ones(4)})),
    (TypeError, "`ih.weight` must be a tensor", lambda: from_irim(GRU | {"ih.weight": 1})),
    (ValueError, "ih.weight. must be floating-point", lambda: from_irim(GRU | {"ih.weight": torch.ones(12, 3)})),
    (ValueError, "one odd kernel size", lambda: from_irim({k: t[..., :1, :].repeat(1, 1, 2, 2) if t.dim() == 4 else t for k, t in GRU.items()})),
    (ValueError, "one odd kernel size", lambda: from_irim(GRU | {"hh.weight": torch.ones(12, 5, 1, 1)})),
    (ValueError, "reset_gate.weight", lambda: from_direct({k: t[:, :4] if t.dim() == 4 else t for k, t in Direct(3, 4).state_dict().items()})),
    (ValueError, "also reset_gates.0.1.weight", lambda: from_direct({"conv_blocks.0.1.weight": torch.ones(4, 4, 5, 5), "reset_gates.0.1.weight": torch.ones(1)})),
])  # fmt: skip
def test_bad_input(error, message, call):
    with pytest.raises(error, match=message):
        call()
