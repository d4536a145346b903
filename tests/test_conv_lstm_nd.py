"""ConvLSTMs over lines and volumes against those of one dimension more or less, and against plain convolutions."""

import pytest
import torch

from amstel.interop.convolutional_rnn import Conv1dLSTM, Conv3dLSTM
from amstel.nn import ConvLSTM, ConvLSTM1d, ConvLSTM3d

pytestmark = pytest.mark.usefixtures("one_thread")
F64 = torch.float64


def _pair(dims, **options):
    """Ours and the plain loop of the other module, with the same weights."""
    ours = (ConvLSTM1d if dims == 1 else ConvLSTM3d)(3, 4, 3, 2, dtype=F64, **options)
    theirs = (Conv1dLSTM if dims == 1 else Conv3dLSTM)(3, 4, 3, 2, **options).double()
    ends = ("", "_reverse")[: 1 + options.get("bidirectional", False)]
    with torch.no_grad():
        for k, layer in enumerate(ours.layers):
            name = f"_l{k // len(ends)}{ends[k % len(ends)]}"
            for part in ("weight_ih", "weight_hh"):
                getattr(layer, part).copy_(getattr(theirs, part + name).view(getattr(layer, part).shape))
            layer.bias.copy_(getattr(theirs, "bias_ih" + name) + getattr(theirs, "bias_hh" + name))
    return ours, theirs


@pytest.mark.parametrize("options", [{}, {"batch_first": True}, {"bidirectional": True}])
@pytest.mark.parametrize("dims", [1, 3])
def test_values_gradients_and_states(dims, options):
    ours, theirs = _pair(dims, **options)
    place = {1: (7,), 3: (3, 4, 5)}[dims]
    x = torch.randn(4, 2, 3, *place, dtype=F64)
    x = x.transpose(0, 1) if options.get("batch_first") else x
    state = [torch.randn(len(ours.layers), 2, 4, *place, dtype=F64) for _ in range(2)]
    for start in (None, state):
        leaf, other = x.clone().requires_grad_(), x.clone().requires_grad_()
        found, expected = ours(leaf, start), theirs(other, start)
        torch.testing.assert_close(found, expected)
        for output, _ in (found, expected):
            output.square().sum().backward()
        torch.testing.assert_close(leaf.grad, other.grad)


@pytest.mark.parametrize("dims", [1, 3])
def test_lengths_widths_and_short_types(dims):
    place = {1: (7,), 3: (3, 4, 5)}[dims]
    lstm = (ConvLSTM1d if dims == 1 else ConvLSTM3d)(3, [4, 2], bidirectional=True, dtype=F64)
    x, lengths = torch.randn(5, 2, 3, *place, dtype=F64), torch.tensor([3, 5])
    spoiled = x.clone()
    spoiled[3:, 0] = torch.nan
    output, (h_n, c_n) = lstm(spoiled, lengths=lengths)
    alone, (h, c) = lstm(x[:3, :1])
    torch.testing.assert_close(output[:3, :1], alone)
    assert not output[3:, 0].any() and [t.shape[1] for t in c_n] == [4, 4, 2, 2]
    for a, b in zip((*h_n, *c_n), (*h, *c), strict=True):
        torch.testing.assert_close(a[:1], b)
    half = type(lstm)(3, 4, dtype=torch.bfloat16)
    output, (h_n, c_n) = half(x.bfloat16())
    assert {output.dtype, h_n.dtype, c_n.dtype} == {torch.bfloat16}


def test_a_volume_of_one_slice_is_a_picture():
    volume, picture = ConvLSTM3d(3, 4, (1, 3, 2), dtype=F64), ConvLSTM(3, 4, (3, 2), dtype=F64)
    for a, b in zip(volume.parameters(), picture.parameters(), strict=True):
        b.data.copy_(a.view(b.shape))
    x = torch.randn(3, 2, 3, 5, 6, dtype=F64)
    torch.testing.assert_close(volume(x.unsqueeze(3))[0].squeeze(3), picture(x)[0])


def test_lines_take_the_options_of_pictures():
    x = torch.randn(4, 2, 3, 9, dtype=F64)
    lstm = ConvLSTM1d(
        3, 4, [3, 5], stride=[2, 1], layer_norm=True, peephole="full", feature_size=9, dtype=F64
    )
    output, (h_n, _) = lstm(x)
    assert output.shape == (4, 2, 4, 5) and [h.shape for h in h_n] == [(2, 4, 5)] * 2
    last = ConvLSTM1d(3, 4, return_sequences=False, padding="valid", stateful=True, dtype=F64)
    assert last(x)[0].shape == (2, 4, 7)
    whole = last(x)[0]
    last.reset_state()
    last(x)
    torch.testing.assert_close(last(x)[0], whole)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: ConvLSTM1d(3, 4, (0, 3)), ValueError, r"`kernel_size\[0\]` must be"),
        (lambda: ConvLSTM1d(3, 4)(torch.zeros(2, 1, 3, 4, 4)), ValueError, r"`x` must be \[T, N, 3, L\]"),
        (lambda: ConvLSTM1d(3, 4)(torch.zeros(2, 1, 3, 4), 3), TypeError, "`state` must be"),
        (lambda: ConvLSTM3d(3, 4, (3, 3)), ValueError, "`kernel_size` must be an integer >= 1 or three"),
        (lambda: ConvLSTM3d(3, [4, 5], num_layers=3), ValueError, "`hidden_channels` must be"),
        (lambda: ConvLSTM3d(3, True), TypeError, "`hidden_channels` must be"),
        (lambda: ConvLSTM3d(3, 4)(torch.zeros(2, 1, 3, 4, 4)), ValueError, r"`x` must be \[T >= 1, N, 3, D, H, W\]"),
        (lambda: ConvLSTM3d(3, 4)(torch.zeros(2, 1, 3, 4, 4, 4).double()), ValueError, "`x` must be float32"),
        (lambda: ConvLSTM3d(3, 4)(torch.zeros(2, 1, 3, 4, 4, 4), (torch.zeros(1, 1, 4, 4, 4, 3),) * 2), ValueError, "`h_0` must be"),
        (lambda: ConvLSTM3d(3, 4)(torch.zeros(2, 1, 3, 4, 4, 4), 3), TypeError, "`state` must be"),
        (lambda: ConvLSTM3d(3, 4)(torch.zeros(2, 1, 3, 4, 4, 4), (3, 4)), TypeError, "`h_0` must be 1 state,"),
    ],
)  # fmt: skip
def test_they_explain_themselves(call, error, message):
    with pytest.raises(error, match=message):
        call()
