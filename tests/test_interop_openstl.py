"""OpenSTL's ConvLSTM by its names: a program that changes one import, against a loop of PyTorch's own convolutions."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from amstel.interop.conv_lstm import from_openstl
from amstel.interop.openstl import ConvLSTM_Model, ConvLSTMCell

pytestmark = pytest.mark.usefixtures("one_thread")

# As configs/mmnist/ConvLSTM.py and the custom-data tutorial have them, smaller.
MMNIST = {"patch_size": 4, "filter_size": 5, "stride": 1, "layer_norm": 0, "reverse_scheduled_sampling": 0}


def _configs(**changes):
    found = {"in_shape": (4, 1, 16, 16), "pre_seq_length": 4, "aft_seq_length": 3, **MMNIST, **changes}
    return SimpleNamespace(**found)


def _cell(cell, x, h, c):
    """Step by step, from the parameters alone."""

    def conv(x, part):
        weight = part[0].weight
        y = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
        return F.layer_norm(y, part[1].normalized_shape, part[1].weight, part[1].bias) if len(part) > 1 else y

    i, f, g, o = (conv(x, cell.conv_x) + conv(h, cell.conv_h)).chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _loop(model, frames, mask, cell_=_cell):
    """What the model draws; frames and mask [N, T, H, W, C]."""
    configs, total = model.configs, model.configs.pre_seq_length + model.configs.aft_seq_length
    state = [[frames.new_zeros(len(frames), w, *frames.shape[2:4])] * 2 for w in model.num_hidden]
    known = 1 if configs.reverse_scheduled_sampling else configs.pre_seq_length
    drawn = []
    for t in range(total - 1):
        x = frames[:, t]
        if t >= known:
            x = torch.where(mask[:, t - known] > 0, x, drawn[-1])
        x = x.permute(0, 3, 1, 2)
        for cell, own in zip(model.cell_list, state, strict=True):
            own[:] = cell_(cell, x, *own)
            x = own[0]
        drawn.append(model.conv_last(x).permute(0, 2, 3, 1))
    return torch.stack(drawn, 1)


def _modules(cell, x, h, c):
    """Step by step, through the modules of the cell."""
    i, f, g, o = (cell.conv_x(x) + cell.conv_h(h)).chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


@pytest.mark.parametrize("layer_norm", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
def test_the_model_draws_what_its_loop_draws(reverse, layer_norm):
    configs = _configs(reverse_scheduled_sampling=reverse, layer_norm=layer_norm)
    model = ConvLSTM_Model(2, [6, 8], configs).double()
    for p in model.parameters():
        nn.init.normal_(p, std=0.2)
    frames = torch.rand(2, 7, 4, 4, 16, dtype=torch.float64)
    mask = torch.rand(2, 5 if reverse else 2, 1, 1, 1).round().double().expand(-1, -1, 4, 4, 16)
    expected = _loop(model, frames, mask)
    found, loss = model(frames, mask)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(loss, F.mse_loss(expected, frames[:, 1:]))
    assert model(frames, mask, return_loss=False)[1] is None
    used = [p for n, p in model.named_parameters() if "conv_o" not in n and ".conv_last" not in n]
    for a, b in zip(
        torch.autograd.grad(loss, used),
        torch.autograd.grad(F.mse_loss(expected, frames[:, 1:]), used),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_a_training_step_as_its_method_does_it():
    """ConvLSTM._build_model and train_one_epoch of OpenSTL, with `from amstel.interop.openstl import ConvLSTM_Model`."""
    args = _configs(num_hidden="8,8")
    num_hidden = [int(x) for x in args.num_hidden.split(",")]
    model = ConvLSTM_Model(len(num_hidden), num_hidden, args)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    frames, mask = torch.rand(2, 7, 4, 4, 16), torch.zeros(2, 2, 4, 4, 16)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        _, loss = model(frames, mask)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_its_parameters_and_hooks():
    model = ConvLSTM_Model(1, [8], _configs())
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert shapes == {
        "cell_list.0.conv_x.0.weight": (32, 16, 5, 5),
        "cell_list.0.conv_h.0.weight": (32, 8, 5, 5),
        "cell_list.0.conv_o.0.weight": (8, 16, 5, 5),
        "cell_list.0.conv_last.weight": (8, 16, 1, 1),
        "conv_last.weight": (16, 8, 1, 1),
    }
    frames, mask, seen = torch.rand(2, 7, 4, 4, 16), torch.zeros(2, 2, 4, 4, 16), []
    plain = model(frames, mask)[0]
    lstm = from_openstl(model)
    output, _ = lstm(frames[:, :4].permute(0, 1, 4, 2, 3))
    torch.testing.assert_close(model.conv_last(output[:, 3]).permute(0, 2, 3, 1), plain[:, 3])
    hook = model.cell_list[0].conv_x[0].register_forward_hook(lambda *_: seen.append(1))
    torch.testing.assert_close(model(frames, mask)[0], plain)
    assert len(seen) == 6  # in every step
    hook.remove()


class Twice(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


def _part(name, make):
    return lambda model: setattr(model.cell_list[0], name, make(getattr(model.cell_list[0], name)))


CHANGES = {
    "subclass": _part("conv_x", lambda old: nn.Sequential(Twice(16, 32, 5, padding=2))),
    "bias": _part("conv_h", lambda old: nn.Sequential(nn.Conv2d(8, 32, 5, padding=2))),
    "longer": _part("conv_h", lambda old: old.append(nn.GroupNorm(2, 32))),
    "no sequential": _part("conv_x", lambda old: nn.Conv2d(16, 32, 3, padding=1)),
    "padding": _part(
        "conv_h",
        lambda old: nn.Sequential(nn.Conv2d(8, 32, 5, padding=2, padding_mode="circular", bias=False)),
    ),
    "hook": lambda model: model.cell_list[0].conv_h[0].register_forward_hook(lambda m, args, out: out + 1),
    "readout": lambda model: setattr(model, "conv_last", nn.Sequential(model.conv_last, nn.BatchNorm2d(16))),
    "weight": lambda model: nn.utils.parametrizations.weight_norm(model.cell_list[0].conv_x[0]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_user_may_change_its_modules(change):
    model = ConvLSTM_Model(1, [8], _configs())
    CHANGES[change](model)
    model.double()
    frames = torch.rand(2, 7, 4, 4, 16, dtype=torch.float64)
    mask = torch.rand(2, 2, 1, 1, 1).round().double().expand(-1, -1, 4, 4, 16)
    torch.testing.assert_close(model(frames, mask)[0], _loop(model, frames, mask, _modules))


def test_a_cell_of_ones_own():
    class Cell(ConvLSTMCell):
        def forward(self, x_t, h_t, c_t):
            h, c = super().forward(x_t, h_t, c_t)
            return -h, c

    model = ConvLSTM_Model(1, [8], _configs())
    model.cell_list[0].__class__ = Cell
    frames, mask = torch.rand(2, 7, 4, 4, 16), torch.zeros(2, 2, 4, 4, 16)

    def step(*given):
        h, c = _modules(*given)
        return -h, c

    torch.testing.assert_close(model(frames, mask)[0], _loop(model, frames, mask, step))


@pytest.mark.parametrize("where", ["conv", "every"])
@pytest.mark.parametrize(
    "kind", ["forward_pre_hook", "forward_hook", "full_backward_pre_hook", "full_backward_hook"]
)
def test_hooks_of_every_kind_run_in_every_step(kind, where):
    model, seen = ConvLSTM_Model(1, [8], _configs()), []
    frames, mask = torch.rand(2, 7, 4, 4, 16, requires_grad=True), torch.zeros(2, 2, 4, 4, 16)
    plain, conv = model(frames, mask)[0], model.cell_list[0].conv_x[0]
    place = conv if where == "conv" else nn.modules.module
    name = f"register_{kind}" if where == "conv" else f"register_module_{kind}"
    handle = getattr(place, name)(lambda module, *_: seen.append(module is conv))
    try:
        found, loss = model(frames, mask)
        loss.backward()
    finally:
        handle.remove()
    torch.testing.assert_close(found, plain)
    assert sum(seen) == 6


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_a_mask_of_integers(dtype):
    model, frames = ConvLSTM_Model(1, [8], _configs()), torch.rand(2, 7, 4, 4, 16)
    mask = torch.rand(2, 2, 1, 1, 1).round().expand(-1, -1, 4, 4, 16)
    torch.testing.assert_close(model(frames, mask.to(dtype))[0], _loop(model, frames, mask))


def test_it_draws_under_autocast():
    model, frames = ConvLSTM_Model(2, [8, 8], _configs()), torch.rand(2, 7, 4, 4, 16)
    mask = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1, 1).expand(2, -1, 4, 4, 16)
    with torch.autocast("cpu", torch.bfloat16):
        found, loss = model(frames, mask)
    expected = _loop(model, frames, mask)
    torch.testing.assert_close(found.float(), expected, atol=0.01, rtol=0.02)
    loss.backward()
    assert model.cell_list[0].conv_x[0].weight.grad.isfinite().all()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: ConvLSTM_Model(2, [8], _configs()), "`num_hidden` must be a list of num_layers = 2"),
        (lambda: ConvLSTM_Model(1, [8], _configs(filter_size=4)), "`filter_size` must be odd"),
        (lambda: ConvLSTM_Model(1, [8], _configs(stride=2)), "`stride` must be 1"),
        (lambda: ConvLSTMCell(3, 0, 4, 4, 3), "`num_hidden` must be"),
        (lambda: ConvLSTM_Model(1, [8], _configs())(torch.zeros(2, 7, 4, 4, 3), torch.zeros(2, 2, 4, 4, 16)), "`frames_tensor` must be"),
        (lambda: ConvLSTM_Model(1, [8], _configs())(torch.zeros(2, 5, 4, 4, 16), torch.zeros(2, 2, 4, 4, 16)), "`frames_tensor` must have T"),
        (lambda: ConvLSTM_Model(1, [8], _configs())(torch.zeros(2, 7, 4, 4, 16), torch.zeros(2, 1, 4, 4, 16)), "`mask_true` must have T"),
    ],
)  # fmt: skip
def test_its_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
