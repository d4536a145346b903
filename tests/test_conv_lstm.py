"""amstel.ops.conv_lstm and its cell against the plain PyTorch reference and conv2d; the operator contract."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import amstel
from amstel import reference
from amstel.ops import _conv_lstm, _processor
from amstel.ops.conv_lstm import conv_lstm, conv_lstm_cell
from amstel.testing import TOLERANCE, assert_close
from tests.conftest import ROOT

DTYPES = list(TOLERANCE)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
ops = torch.ops.amstel
# Gates pass through as many roundings as there are steps; Winograd's algorithm adds its own.
SHORT = {torch.bfloat16: 3e-2, torch.float16: 4e-3}


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def tensors(
    steps,
    items,
    inputs,
    hidden,
    height,
    width,
    kernel=(3, 3),
    kernel_hh=None,
    shrink=(0, 0),
    dtype=torch.float64,
):
    """x, weight_ih, weight_hh, bias, peephole, h_0, c_0."""
    kernel_hh = kernel_hh or kernel
    state = (items, hidden, height - shrink[0], width - shrink[1])
    made = [
        normal(steps, items, inputs, height, width, seed=1),
        normal(4 * hidden, inputs, *kernel, seed=2) / (inputs * kernel[0] * kernel[1]) ** 0.5,
        normal(4 * hidden, hidden, *kernel_hh, seed=3) / (hidden * kernel_hh[0] * kernel_hh[1]) ** 0.5,
        normal(4 * hidden, seed=4),
        normal(3, hidden, seed=5),
        normal(*state, seed=6),
        normal(*state, seed=7),
    ]
    return [t.to(dtype) for t in made]


def run(function, inputs, **options):
    """All outputs and all gradients."""
    inputs = [t.detach().requires_grad_() for t in inputs]
    x, weight_ih, weight_hh, bias, peephole, h, c = inputs
    output, (h_n, c_n) = function(x, weight_ih, weight_hh, bias, (h, c), peephole=peephole, **options)
    results = [output, h_n, c_n]
    grads = [normal(*t.shape, seed=8 + k).to(t.device, t.dtype) for k, t in enumerate(results)]
    return [*(t.detach() for t in results), *torch.autograd.grad(results, inputs, grads)]


NAMES = ("output", "h_n", "c_n", "x", "weight_ih", "weight_hh", "bias", "peephole", "h_0", "c_0")


@torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
def check(inputs, dtype, device="cpu", **options):
    """Values in `dtype` against the reference in float64, and both choices of memory against each other.

    The settings are those under which the docstring promises both on CUDA; the other two have tests of their own.
    """
    low = [t.to(dtype).to(device) for t in inputs]
    plain = {k: v for k, v in options.items() if k != "algorithm"}
    expected = run(reference.conv_lstm, [t.double().cpu() for t in low], **plain)
    stored = run(conv_lstm, low, memory="store", **options)
    again = run(conv_lstm, low, memory="recompute", **options)
    for name, a, b, r in zip(NAMES, stored, again, expected, strict=True):
        assert torch.equal(a, b), f"{name}: recomputed bits differ"
        assert a.dtype == dtype
        if dtype in SHORT:
            scale = max(1.0, float(r.abs().max()))
            torch.testing.assert_close(a.double().cpu(), r, rtol=SHORT[dtype], atol=SHORT[dtype] * scale)
        else:
            assert_close(a, r)
    return stored


SHAPES = {
    "plain": dict(shape=(4, 2, 3, 5, 6, 7)),
    "winograd, x joined": dict(shape=(4, 2, 3, 24, 9, 6)),
    "winograd, x hoisted": dict(shape=(3, 2, 20, 24, 9, 8)),
    "winograd, many tiles": dict(shape=(2, 5, 9, 17, 17, 14)),
    "even kernels": dict(shape=(3, 2, 8, 12, 6, 6), kernel=(4, 2), kernel_hh=(2, 4)),
    "even kernels, few channels": dict(shape=(3, 2, 2, 12, 6, 6), kernel=(4, 2), kernel_hh=(2, 4)),
    "dilated, valid": dict(shape=(3, 2, 4, 9, 9, 10), shrink=(4, 4), options=dict(dilation=2, padding="valid")),
    "valid": dict(shape=(3, 2, 9, 9, 9, 10), shrink=(2, 2), options=dict(padding="valid")),
    "1x1": dict(shape=(3, 2, 4, 6, 5, 5), kernel=(1, 1)),
    "one of everything": dict(shape=(1, 1, 1, 1, 1, 1), kernel=(1, 1)),
    "one pixel, winograd": dict(shape=(2, 3, 5, 16, 1, 1)),
    "last only": dict(shape=(4, 3, 3, 16, 9, 6), options=dict(return_sequences=False)),
    "lengths": dict(shape=(4, 3, 3, 16, 9, 6), options=dict(lengths=torch.tensor([4, 1, 2]))),
    "lengths, plain": dict(shape=(4, 3, 3, 4, 5, 5), options=dict(lengths=torch.tensor([2, 4, 3]))),
}  # fmt: skip


def make(case, **more):
    case = SHAPES[case]
    keys = ("kernel", "kernel_hh", "shrink")
    return tensors(*case["shape"], **{k: case[k] for k in keys if k in case}, **more), case.get("options", {})


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", SHAPES)
def test_values_and_gradients(case, dtype, device):
    """The sequence and its gradients are those of plain PyTorch in float64, for every option."""
    inputs, options = make(case)
    check(inputs, dtype, device, **options)


def by_setting(device, **settings):
    """Stored, recomputed and true results in float32 under settings of cuDNN, and the largest entries of each."""
    inputs, options = make("plain")
    low = [t.float().to(device) for t in inputs]
    with torch.backends.cudnn.flags(enabled=True, **settings):
        stored, again = (run(conv_lstm, low, memory=memory, **options) for memory in ("store", "recompute"))
    true = run(reference.conv_lstm, [t.double().cpu() for t in low], **options)
    return list(zip(NAMES, stored, again, true, [max(1.0, float(t.abs().max())) for t in true], strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_tf32_allowed(device):
    """Proves: with allow_tf32, as torch has it by default, float32 on CUDA is right to TF32's 10 bits; the CPU to all."""
    for name, stored, _, true, scale in by_setting(device, allow_tf32=True, deterministic=True):
        tolerance = 1e-2 if device == "cuda" else 1e-5
        assert float((stored.double().cpu() - true).abs().max()) < tolerance * scale, name


@pytest.mark.parametrize("device", DEVICES)
def test_tf32_forbidden(device):
    """Proves: without allow_tf32, float32 is right to float32's bits on both devices."""
    for name, stored, _, true, scale in by_setting(device, allow_tf32=False, deterministic=True):
        assert float((stored.double().cpu() - true).abs().max()) < 1e-5 * scale, name


@pytest.mark.parametrize("device", DEVICES)
def test_recomputed_with_a_cudnn_that_is_not_deterministic(device):
    """Proves: then stored and recomputed agree to rounding on CUDA; on the CPU, which has no such choice, to the bit."""
    for name, stored, again, _, scale in by_setting(device, allow_tf32=False, deterministic=False):
        assert float((stored - again).abs().max()) <= (1e-5 * scale if device == "cuda" else 0), name


@pytest.mark.parametrize("device", DEVICES)
def test_recomputed_with_a_deterministic_cudnn(device):
    """Proves: then stored and recomputed are the same bits on both devices, TF32 or not."""
    for tf32 in (False, True):
        for name, stored, again, _, _ in by_setting(device, allow_tf32=tf32, deterministic=True):
            assert torch.equal(stored, again), name


@pytest.mark.parametrize("hidden", [1, 2, 7, 8, 15, 16, 17, 31, 33, 64, 65])
def test_values_at_every_width(hidden):
    for size in ((1, 5), (4, 4), (5, 9)):
        check(tensors(2, 2, 3, hidden, *size), torch.float32, algorithm="winograd")
        check(tensors(2, 2, 3, hidden, *size), torch.float32, algorithm="plain")


def test_without_anything_optional():
    x, weight_ih, weight_hh, *_ = tensors(3, 2, 3, 8, 5, 6)
    for leaves in ([True] * 3, [False, True, False], [True, False, False], [False, False, True]):
        low = [
            t.float().requires_grad_(need) for t, need in zip((x, weight_ih, weight_hh), leaves, strict=True)
        ]
        high = [t.detach().double().requires_grad_(t.requires_grad) for t in low]
        a, b = conv_lstm(*low)[0], reference.conv_lstm(*high)[0]
        wanted = [[t for t in ts if t.requires_grad] for ts in (low, high)]
        assert_close(a.detach(), b.detach())
        for p, q in zip(
            torch.autograd.grad(a.sum(), wanted[0]), torch.autograd.grad(b.sum(), wanted[1]), strict=True
        ):
            assert_close(p, q)
        assert torch.equal(conv_lstm(*[t.detach() for t in low])[0], a.detach())


def test_gradients_from_every_output_alone():
    low = [t.float() for t in tensors(3, 2, 3, 8, 5, 6)]
    for which, memory in itertools.product(range(3), ("store", "recompute")):
        found = []
        for function, dtype in ((conv_lstm, torch.float32), (reference.conv_lstm, torch.float64)):
            leaves = [t.to(dtype).requires_grad_() for t in low]
            x, wi, wh, b, p, h, c = leaves
            output, state = function(x, wi, wh, b, (h, c), peephole=p, memory=memory)
            found.append(torch.autograd.grad((output, *state)[which].sum(), leaves))
        for a, b in zip(*found, strict=True):
            assert_close(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("part", [1, 20_000])
@pytest.mark.parametrize("algorithm", ["plain", "winograd"])
def test_parts_of_the_batch_and_of_the_sequence(monkeypatch, part, algorithm):
    """Small parts: several groups of items, several chunks of steps, at most CHECKPOINTS of them."""
    inputs = tensors(11, 5, 9, 16, 33, 32)
    monkeypatch.setattr(_conv_lstm, "_PART", {"cpu": part, "cuda": part})
    monkeypatch.setattr(_conv_lstm, "_weights_bytes", lambda *weights: 0)
    x, weight_ih, weight_hh, *_ = inputs
    plan = _conv_lstm.Plan(x.float(), weight_ih, weight_hh, None, 1, "same", algorithm, True)
    assert len(plan.groups) == 5 and len(plan.chunks) == 6
    check(inputs, torch.float32, algorithm=algorithm)
    check(inputs, torch.float32, algorithm=algorithm, lengths=torch.tensor([11, 3, 1, 7, 10]))


def test_recompute_keeps_a_state_a_chunk(monkeypatch):
    x, *weights = tensors(6, 2, 3, 8, 5, 4, dtype=torch.float32)[:3]
    for part, chunks in ((1 << 24, 1), (1, 6)):
        monkeypatch.setitem(_conv_lstm._PART, "cpu", part)
        monkeypatch.setattr(_conv_lstm, "_weights_bytes", lambda *weights: 0)
        output = conv_lstm(x, *[w.requires_grad_() for w in weights], memory="recompute")[0]
        kept = [t for t in output.grad_fn.saved_tensors if t is not None and t.shape[2:] == (5, 4, 8)]
        assert sum(len(t) for t in kept) == (6 + 1) + chunks


def test_which_algorithm_is_chosen(monkeypatch):
    def winograd(dtype, hidden=16, kernel=(3, 3), dilation=1):
        x, weight_ih, weight_hh, *_ = tensors(2, 1, 3, hidden, 5, 5, kernel=kernel, dtype=dtype)
        return _conv_lstm.Plan(x, weight_ih, weight_hh, None, dilation, "same", "auto", True).winograd

    monkeypatch.setattr(_conv_lstm, "AMX", False)
    assert winograd(torch.float32) and winograd(torch.float16) and winograd(torch.bfloat16)
    assert not winograd(torch.float64) and not winograd(torch.float32, hidden=7)
    assert not winograd(torch.float32, kernel=(3, 1)) and not winograd(torch.float32, dilation=2)
    monkeypatch.setattr(_conv_lstm, "AMX", True)
    assert winograd(torch.float32) and not winograd(torch.bfloat16)


@pytest.mark.parametrize("kernel", [(3, 3), (2, 4), (5, 1)])
@pytest.mark.parametrize("padding, dilation", [("same", 1), ("same", 2), ("valid", 2)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_heavy_weights_as_one_product(monkeypatch, kernel, padding, dilation, dtype):
    weight, x, bias = (normal(*shape, dtype=dtype) for shape in ((16, 5, *kernel), (2, 9, 8, 5), (16,)))
    found = []
    for bytes_of_a_part in (1 << 24, 0):
        monkeypatch.setitem(_conv_lstm._PART, "cpu", bytes_of_a_part)
        plain = _conv_lstm.Plain(weight, dilation, padding)
        y = plain(x, bias)
        assert plain._is_product(y[..., 0].numel()) == (bytes_of_a_part == 0)
        grad = torch.linspace(-1, 1, y.numel(), dtype=dtype).view(y.shape)
        found.append((y, plain.backward(grad, None, x.shape), plain.backward(grad, x, x.shape)))
    for ours, expected in zip(found[1], found[0], strict=True):
        assert_close(ours, expected, dtype)


@pytest.mark.parametrize("onednn", sorted({False, _processor.ONEDNN}))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_heavy_weights_with_and_without_onednn(monkeypatch, onednn, dtype):
    shapes = (3, 2, 5, 6, 4), (16, 5, 3, 2), (16, 4, 2, 4), (16,)
    x, weight_ih, weight_hh, bias = (normal(*shape, dtype=dtype).requires_grad_() for shape in shapes)
    found = []
    for bytes_of_a_part in (1 << 24, 0):
        monkeypatch.setattr(_processor, "ONEDNN", onednn and bytes_of_a_part == 0)
        monkeypatch.setitem(_conv_lstm._PART, "cpu", bytes_of_a_part)
        output, (h, c) = conv_lstm(x, weight_ih, weight_hh, bias, algorithm="plain")
        found.append(
            (
                output,
                h,
                c,
                *torch.autograd.grad(output.float().square().sum(), (x, weight_ih, weight_hh, bias)),
            )
        )
    for ours, expected in zip(found[1], found[0], strict=True):
        assert_close(ours, expected, dtype)


@pytest.mark.parametrize("dtype", SHORT)
@pytest.mark.parametrize("multiplied", [False, True])
def test_short_types_with_and_without_hardware_for_them(monkeypatch, dtype, multiplied):
    monkeypatch.setitem(_conv_lstm.MULTIPLIED, dtype, multiplied)
    assert _conv_lstm.Plain(torch.ones(4, 1, 2, 2, dtype=dtype), 1, "same").dtype == (
        dtype if multiplied else torch.float32
    )
    check(tensors(3, 2, 3, 4, 5, 6, kernel=(2, 4)), dtype)


def test_layouts_of_x_do_not_matter():
    x, weight_ih, weight_hh, *_ = tensors(3, 4, 6, 8, 7, 5, dtype=torch.float32)
    expected = conv_lstm(x, weight_ih, weight_hh)[0]
    assert expected[0].is_contiguous(memory_format=torch.channels_last)
    frames = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).view_as(x)
    swapped = x.transpose(0, 1).contiguous().transpose(0, 1)
    wide = torch.zeros(3, 4, 6, 7, 9)
    wide[..., 2:7] = x
    for other in (frames, swapped, wide[..., 2:7]):
        assert torch.equal(conv_lstm(other, weight_ih, weight_hh)[0], expected)
    last = [w.contiguous(memory_format=torch.channels_last) for w in (weight_ih, weight_hh)]
    assert torch.equal(conv_lstm(x, *last)[0], expected)


def test_channels_last_frames_are_not_copied():
    x = (
        torch.randn(3, 2, 5, 4, 6)
        .flatten(0, 1)
        .contiguous(memory_format=torch.channels_last)
        .view(3, 2, 5, 4, 6)
    )
    assert _conv_lstm.last(x).data_ptr() == x.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_same_bits_for_any_number_of_threads(dtype):
    inputs = tensors(3, 3, 12, 40, 13, 18, dtype=dtype)
    results, threads = [], torch.get_num_threads()
    try:
        for n in (1, 2, 3, 7, 2):
            torch.set_num_threads(n)
            results.append(run(conv_lstm, inputs))
    finally:
        torch.set_num_threads(threads)
    # Products for the weights are torch's own and may add up differently; what is ours may not.
    for other in results[1:]:
        for name, a, b in zip(NAMES, results[0], other, strict=True):
            if not name.startswith("weight"):
                assert torch.equal(a, b), name
    assert all(torch.equal(a, b) for a, b in zip(results[1], results[4], strict=True))


def test_a_sequence_in_two_halves_is_the_sequence():
    x, weight_ih, weight_hh, bias, peephole, h, c = tensors(6, 2, 3, 16, 5, 6, dtype=torch.bfloat16)
    whole, state = conv_lstm(x, weight_ih, weight_hh, bias, (h, c.float()), peephole=peephole)
    first, middle = conv_lstm(x[:3], weight_ih, weight_hh, bias, (h, c.float()), peephole=peephole)
    assert middle[1].dtype == torch.float32  # as it was handed in: nothing is lost between the halves
    second, end = conv_lstm(x[3:], weight_ih, weight_hh, bias, middle, peephole=peephole)
    assert torch.equal(torch.cat([first, second]), whole)
    assert all(torch.equal(a, b) for a, b in zip(end, state, strict=True))


@pytest.mark.parametrize("memory", ["store", "recompute"])
def test_nothing_past_the_end_is_read(memory):
    lengths = torch.tensor([5, 2, 3])
    x, weight_ih, weight_hh, bias, _, h, c = tensors(5, 3, 4, 16, 6, 7, dtype=torch.float32)
    x = x.clone()
    x[2:, 1], x[3:, 2] = float("nan"), float("inf")
    leaves = [t.requires_grad_() for t in (x, weight_ih, weight_hh, h, c)]
    output, (h_n, c_n) = conv_lstm(x, weight_ih, weight_hh, bias, (h, c), lengths=lengths, memory=memory)
    assert not output[2:, 1].any() and not output[3:, 2].any()
    grads = torch.autograd.grad((output + 1).square().sum() + h_n.sum() + c_n.sum(), leaves)
    assert all(g.isfinite().all() for g in grads)
    assert not grads[0][2:, 1].any() and not grads[0][3:, 2].any()
    for n, length in enumerate(lengths.tolist()):
        alone, (h_1, c_1) = conv_lstm(
            x[:length, n : n + 1], weight_ih, weight_hh, bias, (h[n : n + 1], c[n : n + 1])
        )
        assert_close(output[:length, n : n + 1].detach(), alone.detach().double())
        assert_close(h_n[n : n + 1].detach(), h_1.detach().double())
        assert_close(c_n[n : n + 1].detach(), c_1.detach().double())


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
def test_raw_operators_take_nothing(shape):
    for transposed in (False, True):
        packed = ops.winograd_weight(torch.empty(*shape, 3, 3), transposed, False)
        x = torch.empty(1, 5, 5, shape[0 if transposed else 1])
        out = torch.full((1, 5, 5, shape[1 if transposed else 0]), 7.0)
        ops.winograd_conv(x, packed, None, out)
        assert packed.numel() == 0 and not out.any()
    ops.winograd_planes(torch.empty(0, 5, 5, 4), False, 0, 0, torch.empty(36, 0, 4))


@pytest.mark.parametrize("algorithm", ["auto", "plain"])
@pytest.mark.parametrize("inputs, hidden", [(4, 8), (1, 12), (512, 512)])
def test_empty_batch(inputs, hidden, algorithm):
    """Of every way to convolve: by tiles, as products of few channels, and of heavy weights."""
    x, weight_ih, weight_hh, *_ = tensors(3, 0, inputs, hidden, 5, 6, dtype=torch.float32)
    leaves = [t.requires_grad_() for t in (x, weight_ih, weight_hh)]
    output, (h_n, _) = conv_lstm(*leaves, algorithm=algorithm)
    assert output.shape == (3, 0, hidden, 5, 6) and h_n.shape == (0, hidden, 5, 6)
    grads = torch.autograd.grad(output.sum(), leaves)
    assert [g.shape for g in grads] == [t.shape for t in leaves]
    assert not grads[1].any() and not grads[2].any()


# ---- What the kernels promise about rounding ----


def test_sigmoid_and_tanh_are_right_to_two_units_in_the_last_place():
    x = np.concatenate(
        [np.linspace(-88, 88, 1_000_000), *(s * np.logspace(-37, 1.9, 500_000) for s in (1, -1))]
    )
    x = x.astype(np.float32)
    gates = torch.zeros(len(x), 4)
    gates[:, 0] = gates[:, 2] = torch.from_numpy(x)
    activated, h, c = torch.empty_like(gates), torch.empty(len(x), 1), torch.zeros(len(x), 1)
    ops.conv_lstm_gates(gates, None, c, None, h, c.clone(), activated)
    wide = x.astype(np.float64)
    for found, exact in ((activated[:, 0], 1 / (1 + np.exp(-wide))), (activated[:, 2], np.tanh(wide))):
        normal = np.abs(exact) > np.finfo(np.float32).tiny
        unit = np.spacing(np.abs(exact[normal]).astype(np.float32)).astype(np.float64)
        error = np.abs(found.double().numpy()[normal] - exact[normal]) / unit
        assert error.max() <= 2, (error.max(), x[normal][error.argmax()])


def test_gates_at_the_limits():
    values = torch.tensor([float("inf"), -float("inf"), float("nan"), 1e30, -1e30, 0.0, -0.0, 1e-42])
    for dtype in (torch.float32, torch.float64):
        gates = values.to(dtype).view(-1, 1, 1, 1).expand(-1, 4, 1, 1)
        h, c = conv_lstm_cell(gates, torch.zeros(len(values), 1, 1, 1, dtype=dtype))
        r_h, r_c = reference.conv_lstm_cell(gates, torch.zeros(len(values), 1, 1, 1, dtype=dtype))
        torch.testing.assert_close((h, c), (r_h, r_c), equal_nan=True, rtol=1e-6, atol=1e-37)


def conv_error(inputs, outputs, seed):
    """Root mean square error of Winograd's convolution and of torch's, against float64."""
    x, weight = (
        normal(2, inputs, 13, 18, seed=seed).tanh().float(),
        normal(outputs, inputs, 3, 3, seed=seed + 1),
    )
    weight = (weight / (9 * inputs) ** 0.5).float()
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    out = torch.empty(2, 13, 18, outputs)
    ops.winograd_conv(_conv_lstm.last(x), ops.winograd_weight(weight, False, False), None, out)
    plain = F.conv2d(x, weight, padding=1)
    rms = lambda y: float((y.double() - exact).square().mean().sqrt())  # noqa: E731
    return rms(_conv_lstm.first(out)), rms(plain)


def test_winograd_error_is_as_documented():
    for inputs, outputs in ((16, 64), (64, 130), (300, 64)):
        ours, plain = conv_error(inputs, outputs, seed=inputs)
        assert ours < 1e-6 and ours < 10 * plain, (inputs, ours, plain)


@pytest.mark.parametrize("inputs, outputs", [(1, 1), (3, 64), (16, 65), (17, 3), (40, 130)])
def test_winograd_convolution_and_its_transpose(inputs, outputs):
    for size in ((1, 1), (4, 4), (3, 9), (13, 6)):
        x, weight = normal(2, inputs, *size).float(), normal(outputs, inputs, 3, 3, seed=1).float()
        bias, grad = normal(outputs, seed=2).float(), normal(2, outputs, *size, seed=3).float()
        out, back = torch.empty(2, *size, outputs), torch.empty(2, *size, inputs)
        ops.winograd_conv(_conv_lstm.last(x), ops.winograd_weight(weight, False, False), bias, out)
        ops.winograd_conv(_conv_lstm.last(grad), ops.winograd_weight(weight, True, False), None, back)
        assert_close(_conv_lstm.first(out), F.conv2d(x.double(), weight.double(), bias.double(), padding=1))
        assert_close(_conv_lstm.first(back), F.conv_transpose2d(grad.double(), weight.double(), padding=1))


# ---- The cell ----


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("laid", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("hidden, size", [(1, (1, 1)), (3, (4, 5)), (16, (3, 3)), (37, (2, 7))])
def test_cell(hidden, size, laid, dtype, device):
    """The cell and its gradients are those of plain PyTorch in float64, given all gates or new ones alone."""
    low = [normal(3, 4 * hidden, *size, seed=1), normal(3, hidden, *size, seed=2), normal(3, hidden, seed=3)]
    low = [t.to(dtype).to(device) for t in low]
    low[:2] = [t.contiguous(memory_format=laid) for t in low[:2]]
    for count in (2, 3):
        found = []
        for function, cast in (
            (conv_lstm_cell, lambda t: t),
            (reference.conv_lstm_cell, lambda t: t.double().cpu()),
        ):
            leaves = [cast(t).detach().requires_grad_() for t in low[:count]]
            h, c = function(*leaves)
            grads = [normal(*h.shape, seed=5 + k).to(h.device, h.dtype) for k in range(2)]
            found.append([h.detach(), c.detach(), *torch.autograd.grad([h, c], leaves, grads)])
        assert found[0][0].is_contiguous(memory_format=laid)
        for a, b in zip(*found, strict=True):
            assert a.dtype == dtype
            if dtype in SHORT:
                torch.testing.assert_close(a.double().cpu(), b, rtol=SHORT[dtype], atol=SHORT[dtype] * 3)
            else:
                assert_close(a, b)
        with torch.no_grad():
            assert all(
                torch.equal(a, b) for a, b in zip(conv_lstm_cell(*low[:count]), found[0], strict=False)
            )


def test_cell_keeps_a_wide_state():
    gates, c = normal(2, 8, 3, 3).bfloat16(), normal(2, 2, 3, 3).float()
    h, new = conv_lstm_cell(gates, c)
    assert h.dtype == torch.bfloat16 and new.dtype == torch.float32
    assert_close(new, reference.conv_lstm_cell(gates.double(), c.double())[1], torch.float32)


def test_cell_of_strided_gates():
    gates = normal(2, 8, 6, 10).float()[:, :, ::2, ::2]
    c = normal(2, 2, 3, 5).float()
    for a, b in zip(conv_lstm_cell(gates, c), conv_lstm_cell(gates.contiguous(), c), strict=True):
        assert torch.equal(a, b)


# ---- Composition ----


def test_gradcheck_and_gradgradcheck():
    inputs = [t.requires_grad_() for t in tensors(2, 1, 1, 2, 3, 3)]

    def f(x, wi, wh, b, p, h, c):
        output, state = conv_lstm(x, wi, wh, b, (h, c), peephole=p)
        return output, *state

    assert torch.autograd.gradcheck(f, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(f, inputs, fast_mode=True)
    cell = normal(1, 8, 2, 2).requires_grad_(), normal(1, 2, 2, 2, seed=1).requires_grad_(), inputs[4]
    assert torch.autograd.gradcheck(conv_lstm_cell, cell)
    assert torch.autograd.gradgradcheck(conv_lstm_cell, cell)


def opcheck_arguments():
    x, wi, wh, b, p, h, c = tensors(3, 2, 9, 16, 5, 6, dtype=torch.float32)
    mask = torch.tensor([[True, True], [True, False], [True, False]])
    for keep in ("last", "output", "state", "gates"):
        yield "conv_lstm", (x, wi, wh, b, h, c, mask, p, 1, "same", "auto", keep)
    for keep in ("state", "gates"):
        history, cells, gates = ops.conv_lstm(x, wi, wh, b, h, c, None, p, 1, "same", "auto", keep)
        gates = gates if keep == "gates" else None
        grads = (torch.ones(3, 2, 16, 5, 6), h, c)
        needs = [True] * 7 if gates is None else [True, False, True, False, True, False, True]
        yield (
            "conv_lstm_grad",
            (*grads, x, wi, wh, b, None, p, history, cells, gates, 1, "same", "auto", needs),
        )
    rows = normal(600, 12).float(), normal(600, 3, seed=1).float(), normal(3, 3, seed=2).float()
    out = [torch.empty(600, 3) for _ in range(2)]
    yield "conv_lstm_gates", (rows[0], rows[0], rows[1], rows[2], *out, torch.empty(600, 12))
    yield "conv_lstm_gates", (rows[0], None, rows[1], None, *out, None)
    grad = (rows[1], None, rows[1], torch.empty(600, 3), torch.empty(600, 12))
    yield "conv_lstm_gates_grad", (rows[0].sigmoid(), rows[1], rows[1], rows[2], *grad, True)
    yield "conv_lstm_gates_grad", (rows[0].sigmoid(), rows[1], rows[1], None, *grad, False)
    short = [None if t is None else t.bfloat16() for t in (rows[0].sigmoid(), rows[1], rows[1], *grad)]
    yield "conv_lstm_gates_grad", (*short[:3], rows[2], *short[3:], True)
    image, weight = normal(2, 5, 6, 16).float(), normal(64, 16, 3, 3).float()
    for transposed, gates in ((False, False), (True, False), (False, True)):
        yield "winograd_weight", (weight, transposed, gates)
    yield "winograd_conv", (image, ops.winograd_weight(weight, False, False), b, torch.empty(2, 5, 6, 64))
    packed = ops.winograd_weight(weight, False, True)
    cells = [torch.zeros(2, 5, 6, 16) for _ in range(3)]
    yield (
        "winograd_lstm",
        (image, None, packed, None, b, cells[0], p, cells[1], cells[2], torch.empty(2, 5, 6, 64)),
    )
    yield "winograd_planes", (image, False, 1, 2, torch.zeros(36, 5, 20))
    frames, given, kept = (
        torch.zeros(4, 2, 5, 6, 16),
        torch.zeros(3, 2, 5, 6, 64),
        torch.zeros(3, 2, 5, 6, 64),
    )
    for weight_of_steps in (packed, weight, weight.flatten(1)):
        few, every = frames[:1], frames.clone()
        last = ([3, 3], 1)
        yield "conv_lstm_steps", (frames, few, None, given, weight_of_steps, None, mask, p, None, *last, 2)
        yield (
            "conv_lstm_steps",
            (frames, every, None, given, weight_of_steps, None, None, None, kept, *last, 0),
        )
    for weight_of_steps in (ops.winograd_weight(weight, True, False), weight, weight.flatten(1)):
        steps = (weight_of_steps, mask, p, kept.clone(), *last)
        yield "conv_lstm_steps_grad", (kept, frames, frames[1:], *frames[:2], *steps, True, True)
        yield "conv_lstm_steps_grad", (kept, frames, None, None, frames[0], *steps, False, False)


@pytest.mark.parametrize("case", range(len(list(opcheck_arguments()))))
def test_opcheck(case, monkeypatch):
    # A chunk a step: of "state" all frames of c are then written.
    monkeypatch.setattr(_conv_lstm, "_PART", {"cpu": 1, "cuda": 1})
    monkeypatch.setattr(_conv_lstm, "_weights_bytes", lambda *weights: 0)
    name, arguments = list(opcheck_arguments())[case]
    torch.library.opcheck(getattr(ops, name).default, arguments)


@pytest.mark.parametrize("memory", ["store", "recompute"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_gives_the_same(memory, dynamic):
    *_, p, _, _ = inputs = tensors(3, 2, 3, 8, 5, 6, dtype=torch.float32)
    weights = [t.requires_grad_() for t in inputs[1:4]]

    def f(x, h, c):
        output, state = conv_lstm(x, *weights, (h, c), peephole=p, memory=memory)
        return output, *state

    torch._dynamo.reset()
    compiled = torch.compile(f, fullgraph=True, dynamic=dynamic)
    for steps, size in ((3, (5, 6)), (4, (7, 5))) if dynamic else ((3, (5, 6)),):
        x, h, c = normal(steps, 2, 3, *size).float(), normal(2, 8, *size).float(), normal(2, 8, *size).float()
        x.requires_grad_()
        results = []
        for g in (f, compiled):
            out = g(x, h, c)
            results.append([*out, *torch.autograd.grad([t.sum() for t in out], [x, *weights])])
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_compiled_graph_does_not_grow_with_the_sequence():
    sizes = []

    def backend(graph, _):
        sizes.append(len(graph.graph.nodes))
        return graph.forward

    x, weight_ih, weight_hh, *_ = tensors(2, 1, 3, 8, 4, 4, dtype=torch.float32)
    weight_ih.requires_grad_()
    for steps in (2, 40):
        torch._dynamo.reset()
        torch.compile(lambda x: conv_lstm(x, weight_ih, weight_hh)[0], fullgraph=True, backend=backend)(
            x[:1].repeat(steps, 1, 1, 1, 1)
        )
    assert len(sizes) == 2 and sizes[0] == sizes[1], sizes


def test_compiled_cell():
    torch._dynamo.reset()
    compiled = torch.compile(conv_lstm_cell, fullgraph=True)
    leaves = [normal(2, 8, 4, 5).float(), normal(2, 2, 4, 5, seed=1).float(), normal(3, 2, seed=2).float()]
    leaves = [t.requires_grad_() for t in leaves]
    for f in (conv_lstm_cell, compiled):
        h, c = f(*leaves)
        grads = torch.autograd.grad([h.sum(), c.sum()], leaves)
        expected = grads if f is conv_lstm_cell else expected  # noqa: F821
    torch.testing.assert_close(grads, expected)


def test_export_holds_the_operator():
    module = amstel.nn.ConvLSTM(3, 8, num_layers=2, peephole=True)
    x = normal(3, 2, 3, 5, 6).float()
    program = torch.export.export(module, (x,))
    assert [n for n in program.graph.nodes if "amstel" in str(n.target)]
    torch.testing.assert_close(program.module()(x), module(x), rtol=1e-5, atol=1e-5)


def test_autocast():
    x, weight_ih, weight_hh, bias, peephole, h, c = tensors(3, 2, 3, 8, 5, 6, dtype=torch.float32)
    weight_ih.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        output, (h_n, c_n) = conv_lstm(x, weight_ih, weight_hh, bias, (h, c), peephole=peephole)
        assert (
            conv_lstm(x.double(), *[t.detach().double() for t in (weight_ih, weight_hh)])[0].dtype
            == torch.float64
        )
    assert output.dtype == h_n.dtype == torch.bfloat16 and c_n.dtype == torch.float32
    exact = reference.conv_lstm(x, weight_ih, weight_hh, bias, (h, c), peephole=peephole)[0]
    torch.testing.assert_close(output.float(), exact, rtol=3e-2, atol=3e-2)
    (grad,) = torch.autograd.grad(output.float().sum(), weight_ih)
    assert grad.dtype == torch.float32


def test_backward_twice_and_in_place_changes():
    x, weight_ih, weight_hh, *_ = tensors(3, 2, 3, 8, 5, 6, dtype=torch.float32)
    x.requires_grad_()
    for memory in ("store", "recompute"):
        output = conv_lstm(x, weight_ih, weight_hh, memory=memory)[0]
        one = torch.autograd.grad(output.sum(), x, retain_graph=True)[0]
        assert torch.equal(torch.autograd.grad(output.sum(), x, retain_graph=True)[0], one)
        with torch.no_grad():
            output.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(output.sum(), x)
    # A result may be changed in place, and no other changes with it.
    for memory, last in itertools.product(("store", "recompute"), (False, True)):
        output, state = conv_lstm(x, weight_ih, weight_hh, memory=memory, return_sequences=not last)
        whole = sum(t.relu().sum() for t in (output[-1] if not last else output, *state))
        expected = torch.autograd.grad(whole, x)[0]
        output, state = conv_lstm(x, weight_ih, weight_hh, memory=memory, return_sequences=not last)
        parts = [t.relu_().sum() for t in ([] if not last else [output]) + list(state)]
        parts += [] if last else [output[-1].relu().sum()]
        torch.testing.assert_close(torch.autograd.grad(sum(parts), x)[0], expected)
    with torch.no_grad():
        output, (h, _) = conv_lstm(x, weight_ih, weight_hh, return_sequences=False)
        before = h.clone()
        assert torch.equal(output.mul_(2), 2 * before) and torch.equal(h, before)


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16], ids=str)
def test_the_default_dtype_of_torch_changes_nothing(default):
    lstm = amstel.nn.ConvLSTM(3, 8, dtype=torch.float32)
    rim = amstel.nn.RIM(1, 8, 2)
    x, y = torch.randn(2, 1, 3, 8, 8), torch.rand(1, 1, 8, 8)

    def gradients():
        loss = lstm(x)[0].sum() + rim(y, amstel.inverse.Denoising(0.2))[-1].sum()
        return torch.autograd.grad(loss, [*lstm.parameters(), *rim.parameters()])

    expected = gradients()
    torch.set_default_dtype(default)
    try:
        found = gradients()
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(map(torch.equal, found, expected))


# ---- Modules ----


def test_module_stacks_and_turns_around():
    lstm = amstel.nn.ConvLSTM(3, 8, num_layers=2, bidirectional=True, batch_first=True, peephole=True)
    for parameter in lstm.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x, lengths = normal(3, 5, 3, 6, 7).float(), torch.tensor([5, 2, 4])
    state = normal(4, 3, 8, 6, 7, seed=1).float(), normal(4, 3, 8, 6, 7, seed=2).float()
    output, (h_n, c_n) = lstm(x, state, lengths)
    assert output.shape == (3, 5, 16, 6, 7) and h_n.shape == c_n.shape == (4, 3, 8, 6, 7)
    for n, length in enumerate(lengths.tolist()):
        layer = x[n, :length, None]
        for k in range(2):
            both = []
            for d in range(2):
                gates = lstm.layers[2 * k + d]
                own = state[0][2 * k + d][n, None], state[1][2 * k + d][n, None]
                out, last = reference.conv_lstm(
                    layer.flip(0) if d else layer, gates.weight_ih, gates.weight_hh, gates.bias, own,
                    peephole=gates.peephole,
                )  # fmt: skip
                both.append(out.flip(0) if d else out)
                torch.testing.assert_close(h_n[2 * k + d][n, None], last[0], rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(c_n[2 * k + d][n, None], last[1], rtol=1e-4, atol=1e-5)
            layer = torch.cat(both, 2)
        torch.testing.assert_close(output[n, :length, None], layer, rtol=1e-4, atol=1e-5)
        assert not output[n, length:].any()


def test_module_options():
    x = normal(4, 2, 3, 6, 7).float()
    lstm = amstel.nn.ConvLSTM(3, 8, return_sequences=False, memory="recompute")
    output, (h_n, _) = lstm(x)
    assert torch.equal(output, h_n[0])
    assert torch.equal(lstm.layers[0].bias.chunk(4)[1], torch.ones(8)) and lstm.layers[0].bias.sum() == 8
    torch.manual_seed(0)
    dropped = amstel.nn.ConvLSTM(3, 8, num_layers=2, dropout=0.5)
    assert not torch.equal(dropped(x)[0], dropped(x)[0])
    dropped.eval()
    assert torch.equal(dropped(x)[0], dropped(x)[0])
    assert "kernel_size=(3, 3)" in repr(lstm)


def test_cell_module_is_a_step_of_the_sequence():
    lstm, cell = amstel.nn.ConvLSTM(3, 8, peephole=True), amstel.nn.ConvLSTMCell(3, 8, peephole=True)
    cell.load_state_dict(lstm.layers[0].state_dict())
    x, state = normal(3, 2, 3, 6, 7).float(), None
    for frame in x:
        state = cell(frame, state)
    torch.testing.assert_close(state, tuple(t[0] for t in lstm(x)[1]), rtol=1e-4, atol=1e-5)


# ---- Bad input ----


def bad_calls():
    x, wi, wh, b, p, h, c = tensors(3, 2, 3, 4, 5, 6, dtype=torch.float32)
    return [
        (TypeError, r"`x` must be a tensor \[T, N, C_in, H, W\], got \[1\]", ([1], wi, wh), {}),
        (ValueError, r"`x` must be dense.*got float32 \[2, 3, 5, 6\]", (x[0], wi, wh), {}),
        (ValueError, r"`x` must be a sequence of at least one step.*got float32 \[0, 2", (x[:0], wi, wh), {}),
        (ValueError, r"`x` must be dense floating.*got int64", (x.long(), wi, wh), {}),
        (ValueError, r"`weight_ih` must be \[16, 3, k, k\].*got float32 \[16, 2", (x, wi[:, :2], wh), {}),
        (ValueError, r"`weight_ih` must be \[16, 3, k, k\].*got float32 \[15", (x, wi[:15], wh), {}),
        (ValueError, r"`weight_ih` must be float32 on cpu like x, got float64", (x, wi.double(), wh), {}),
        (ValueError, r"`weight_hh` must be \[4C, C, k, k\], got float32 \[15", (x, wi, wh[:15]), {}),
        (ValueError, r"`weight_hh` must be float32 on cpu like x, got.*meta", (x, wi, wh.to("meta")), {}),
        (ValueError, r"`bias` must be float32 \[16\].*got float32 \[15\]", (x, wi, wh, b[1:]), {}),
        (TypeError, r"`bias` must be a float32 tensor \[16\], got True", (x, wi, wh, True), {}),
        (ValueError, r"`h_0` must be float32 \[2, 4, 5, 6\].*got float32 \[1", (x, wi, wh, b, (h[:1], c)), {}),
        (ValueError, r"`c_0` must be float32 \[2, 4, 5, 6\].*got float64", (x, wi, wh, b, (h, c.double())), {}),
        (TypeError, r"`state` must be None or \(h_0, c_0\)", (x, wi, wh, b, h), {}),
        (ValueError, r"`peephole` must be float32 \[3, 4\].*got float32 \[2, 4\]", (x, wi, wh), {"peephole": p[1:]}),
        (ValueError, r"`lengths` must be from 1 to 3 \(T\), got 4 at position 1", (x, wi, wh), {"lengths": torch.tensor([1, 4])}),
        (ValueError, r"`lengths` must be from 1 to 3 \(T\), got 0 at position 0", (x, wi, wh), {"lengths": torch.tensor([0, 4])}),
        (ValueError, r"`lengths` must be int64 or int32 \[2\], got int64 \[3\]", (x, wi, wh), {"lengths": torch.ones(3).long()}),
        (ValueError, r"`lengths` must be int64 or int32 \[2\], got float32", (x, wi, wh), {"lengths": torch.ones(2)}),
        (TypeError, r"`lengths` must be an integer tensor \[N\], got \[3, 3\]", (x, wi, wh), {"lengths": [3, 3]}),
        (ValueError, "`memory` must be 'store' or 'recompute', got 'none'", (x, wi, wh), {"memory": "none"}),
        (ValueError, "`algorithm` must be one of 'auto', 'plain', 'winograd', got 'fft'", (x, wi, wh), {"algorithm": "fft"}),
        (ValueError, "`algorithm` 'winograd' takes a 3x3", (x, wi, wh), {"algorithm": "winograd", "dilation": 2}),
        (ValueError, "`dilation` must be an integer >= 1, got 0", (x, wi, wh), {"dilation": 0}),
        (ValueError, "`padding` must be 'same' or 'valid', got 1", (x, wi, wh), {"padding": 1}),
        (ValueError, "`x` must be at least 7 high", (x, wi, wh), {"padding": "valid", "dilation": 3}),
    ]  # fmt: skip


@pytest.mark.parametrize("case", range(len(bad_calls())))
def test_bad_input(case):
    error, message, arguments, options = bad_calls()[case]
    with pytest.raises(error, match=message):
        conv_lstm(*arguments, **options)


@pytest.mark.parametrize(
    "message, arguments",
    [
        (r"`gates` must be floating-point \[N, 4C, H, W\], got float32 \[1, 6", (torch.ones(1, 6, 2, 2), torch.ones(1, 1, 2, 2))),
        (r"`gates` must be floating-point.*got int64", (torch.ones(1, 4, 2, 2).long(), torch.ones(1, 1, 2, 2))),
        (r"`c` must be float32 \[1, 1, 2, 2\].*got float32 \[1, 1, 2\]", (torch.ones(1, 4, 2, 2), torch.ones(1, 1, 2))),
        (r"`c` must be float32.*got float64", (torch.ones(1, 4, 2, 2), torch.ones(1, 1, 2, 2).double())),
        (r"`peephole` must be float32 \[3, 1\].*got float32 \[3\]", (torch.ones(1, 4, 2, 2), torch.ones(1, 1, 2, 2), torch.ones(3))),
    ],
)  # fmt: skip
def test_bad_input_of_the_cell(message, arguments):
    with pytest.raises(ValueError, match=message):
        conv_lstm_cell(*arguments)


@pytest.mark.parametrize(
    "message, options, call",
    [
        ("`hidden_channels` must be an integer >= 1, got 0", {"hidden_channels": 0}, {}),
        ("`kernel_size` must be an integer >= 1 or two", {"kernel_size": (3, 0)}, {}),
        (r"`dropout` must be in \[0, 1\), got 1", {"dropout": 1}, {}),
        ("`memory` must be 'store' or 'recompute', got 'x'", {"memory": "x"}, {}),
        (r"`x` must be \[T, N, 3, H, W\], got float32 \[2, 1, 4", {}, {"x": torch.ones(2, 1, 4, 5, 5)}),
        (r"`x` must be \[N, T, 3, H, W\]", {"batch_first": True}, {"x": torch.ones(2, 4, 5, 5)}),
        (r"`h_0` must be", {}, {"x": torch.ones(2, 1, 3, 5, 5), "state": (torch.ones(2, 1, 8, 5, 5),) * 2}),
    ],
)  # fmt: skip
def test_bad_input_of_the_module(message, options, call):
    with pytest.raises(ValueError, match=message):
        amstel.nn.ConvLSTM(**{"in_channels": 3, "hidden_channels": 8, **options})(**call)


@pytest.mark.parametrize("name, change", [("packed", 1), ("out", 2), ("x", 0)])
def test_raw_winograd_operator_checks_its_arguments(name, change):
    weight = ops.winograd_weight(torch.ones(8, 4, 3, 3), False, False)
    arguments = [torch.ones(1, 5, 5, 4), weight, None, torch.empty(1, 5, 5, 8)]
    position = {"x": 0, "packed": 1, "out": 3}[name]
    arguments[position] = arguments[position][..., 1:] if change != 2 else torch.empty(1, 5, 4, 8)
    with pytest.raises(RuntimeError, match=f"winograd_conv: `{name}` must be"):
        ops.winograd_conv(*arguments)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"h": torch.zeros(1, 2, 5, 6, 8)}, "`h` must have two frames or more"),
        ({"c": torch.zeros(1, 2, 5, 6, 9)}, "of no more channels"),
        ({"c": torch.zeros(2, 5, 6, 8)}, "`c` must be a floating-point"),
        ({"weight": torch.zeros(32, 8, 3)}, "`weight` must be packed"),
        ({"gates": None}, "`gates` must be given"),
        ({"gates": torch.zeros(3, 2, 5, 6, 31)}, "`gates` must be"),
        ({"kernel": [3]}, "`kernel` must be two sizes"),
        ({"dilation": 0}, "`dilation` a number, at least 1"),
        ({"first": -1}, "`first` must not be negative"),
    ],
)
def test_raw_steps_check_their_arguments(change, message):
    frames = torch.zeros(4, 2, 5, 6, 8)
    arguments = {
        "h": frames, "c": frames[:1], "x": None, "gates": torch.zeros(3, 2, 5, 6, 32),
        "weight": torch.zeros(32, 8, 3, 3), "bias": None, "mask": None, "peephole": None, "activated": None,
        "kernel": [3, 3], "dilation": 1, "first": 0,
    }  # fmt: skip
    ops.conv_lstm_steps(**arguments)
    with pytest.raises(RuntimeError, match=message):
        ops.conv_lstm_steps(**arguments | change)


@pytest.mark.parametrize("memory", ["store", "recompute"])
@pytest.mark.parametrize("kernel, hidden", [((3, 3), 8), ((3, 3), 2), ((2, 4), 8)])
def test_no_python_between_steps(memory, kernel, hidden):
    """As many Python calls for thirty steps as for three, forward and back."""

    def calls(steps):
        inputs = tensors(steps, 1, 2, hidden, 5, 4, kernel, dtype=torch.float32)
        x, *weights = [t.requires_grad_() for t in inputs[:4]]
        counts, count = [], 0

        def note(frame, event, argument):
            nonlocal count
            count += event in ("call", "c_call")

        for _ in range(4):  # the first call sets things up; a collector may run in others
            count = 0
            sys.setprofile(note)
            try:
                conv_lstm(x, *weights, lengths=torch.tensor([steps]), memory=memory)[0].sum().backward()
            finally:
                sys.setprofile(None)
            counts.append(count)
        return min(counts)

    assert calls(3) == calls(30)


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["base", "avx2"])
def test_on_every_instruction_set(isa):
    """The value tests again in a process of their own with narrower kernels."""
    widest = torch.ops.amstel.cpu_isa()
    if "AMSTEL_LIBRARY" in os.environ or isa == widest:
        return  # this run is on it, or on no CPU kernel at all
    names = "values or every_width or two_units or limits or documented or transpose or (test_cell and not module)"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not cuda", __file__, "-k", names],
        env={**os.environ, "AMSTEL_CPU_ISA": isa}, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if "AMSTEL_CPU_ISA must be one of" in done.stdout + done.stderr:
        return  # this machine does not run it
    assert done.returncode == 0, done.stdout[-3000:]


def test_the_gradient_of_peepholes_of_no_channels_is_empty():
    peephole = torch.zeros(3, 0, requires_grad=True)
    h, c = amstel.ops.conv_lstm_cell(torch.zeros(2, 0, 3, 3), torch.zeros(2, 0, 3, 3), peephole)
    (h.sum() + c.sum()).backward()
    assert peephole.grad.shape == (3, 0)
