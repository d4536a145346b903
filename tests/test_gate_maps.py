"""The gates' operators on maps [N, C, H, W] in either memory layout: the bits of the same memory as rows."""

import contextlib
from functools import partial

import pytest
import torch

from tests import test_conv_gru_cuda, test_conv_lstm_cuda

ops = torch.ops.amstel
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
SHAPES = [(2, 3, 4, 5), (1, 1, 3, 2), (3, 4, 1, 1), (1, 8, 1, 6), (0, 2, 3, 3), (2, 0, 3, 3), (2, 3, 0, 4)]


@pytest.fixture(params=["cpu", "cuda wrappers"])
def device(request):
    """The CPU's operators, and those of CUDA on the emulator."""
    return request.param == "cuda wrappers"


def maps(shape, layout, *counts):
    """Random maps of so many numbers a cell, and their memory as rows."""
    n, c, *size = shape
    generator = torch.Generator().manual_seed(1)
    found = [torch.randn(n, k * c, *size, generator=generator) for k in counts]
    found = [t.contiguous(memory_format=LAYOUTS[layout]) for t in found]
    return found, [rows(t, layout) for t in found]


def rows(t, layout):
    if layout == "contiguous" or not t.numel():
        return t.flatten(1) if layout == "contiguous" else t.movedim(1, -1).flatten(0, 2)
    return t.movedim(1, -1).flatten(0, 2).contiguous()


def run_lstm(gates, c, grad_h, grad_c):
    h, c_out, activated = torch.empty_like(c), torch.empty_like(c), torch.empty_like(gates)
    ops.conv_lstm_gates(gates, None, c, None, h, c_out, activated)
    grad_gates, grad_old = torch.empty_like(activated), torch.empty_like(c)
    sums = ops.conv_lstm_gates_grad(
        activated, c, c_out, None, grad_h, None, grad_c, grad_old, grad_gates, True
    )
    return h, c_out, activated, grad_gates, grad_old, sums


def run_gru(gates_x, gates_h, h, grad):
    new, activated = ops.conv_gru_gates(gates_x, gates_h, h, True)
    assert ops.conv_gru_gates(gates_x, gates_h, h, False)[1].numel() == 0
    return new, activated, *ops.conv_gru_gates_grad(grad, activated, h)


CELLS = {
    "conv_lstm": (run_lstm, (4, 1, 1, 1), test_conv_lstm_cuda.emulated),
    "conv_gru": (run_gru, (3, 3, 1, 1), test_conv_gru_cuda.emulated),
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cell", CELLS)
def test_maps_are_rows(cell, layout, shape, device):
    run, counts, emulated = CELLS[cell]
    given, flat = maps(shape, layout, *counts)
    with emulated() if device else contextlib.nullcontext():
        found, expected = run(*given), run(*flat)
    for ours, theirs in zip(found, expected, strict=True):
        if not ours.numel():  # which is of every layout
            continue
        if ours.dim() == 4:
            assert ours.is_contiguous(memory_format=LAYOUTS[layout])
            ours = rows(ours, layout)
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("position", range(1, 4))
def test_one_layout_for_all(cell, position, device):
    """Tensors of other layouts, of as many numbers, or as rows beside maps are refused by their names."""
    run, counts, emulated = CELLS[cell]
    given, flat = maps((2, 3, 4, 5), "channels_last", *counts)
    bad = given[position].contiguous(), flat[position], given[position].transpose(2, 3)
    with emulated() if device else contextlib.nullcontext():
        for t in bad:
            changed = [*given[:position], t, *given[position + 1 :]]
            with pytest.raises(
                RuntimeError, match=r"must be a contiguous Float .* or a map with that memory, got"
            ):
                run(*changed)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 1, 4, 5), (3, 4, 1, 1)], ids=str)
def test_opcheck(shape, layout):
    """Fake kernels know the layout of the results."""
    check = partial(torch.library.opcheck, test_utils=("test_schema", "test_faketensor"))
    (gates, more, h, grad), _ = maps(shape, layout, 3, 3, 1, 1)
    activated = ops.conv_gru_gates(gates, more, h, True)[1]
    for keep in (True, False):
        check(ops.conv_gru_gates.default, (gates, more, h, keep))
    check(ops.conv_gru_gates_grad.default, (grad, activated, h))
    (gates, c), _ = maps(shape, layout, 4, 1)
    h, c_out, activated = torch.empty_like(c), torch.empty_like(c), gates.sigmoid()
    check(ops.conv_lstm_gates.default, (gates, None, c, None, h, c_out, torch.empty_like(gates)))
    check(
        ops.conv_lstm_gates_grad.default,
        (activated, c, c, None, h.zero_(), None, None, c_out, torch.empty_like(gates), True),
    )
