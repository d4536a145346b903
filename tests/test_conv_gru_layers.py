"""amstel.nn.ConvGRU: the interface and, with 1x1 kernels, the values of torch.nn.GRU at every pixel."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import amstel
from amstel.nn import ConvGRU, ConvGRUCell

pytestmark = pytest.mark.usefixtures("one_thread")
F64 = torch.float64


def _like(gru):
    """A ConvGRU of 1x1 kernels with the weights of a torch.nn.GRU."""
    made = ConvGRU(
        gru.input_size,
        gru.hidden_size,
        1,
        gru.num_layers,
        gru.batch_first,
        gru.bidirectional,
        dtype=F64,
    )
    names = [f"l{k}{end}" for k in range(gru.num_layers) for end in ("", "_reverse")[: 1 + gru.bidirectional]]
    with torch.no_grad():
        for layer, name in zip(made.layers, names, strict=True):
            for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                value = getattr(gru, f"{part}_{name}")
                getattr(layer, part).copy_(value.view(getattr(layer, part).shape))
    return made


@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2, "batch_first": True},
        {"bidirectional": True},
        {"num_layers": 2, "bidirectional": True},
    ],
)
def test_it_is_torchs_gru_at_every_pixel(options, state):
    theirs = nn.GRU(3, 4, **options).double()
    ours = _like(theirs)
    x = torch.randn(5, 2, 3, 2, 3, dtype=F64)
    h_0 = torch.randn(len(ours.layers), 2, 4, 2, 3, dtype=F64) if state else None
    x = x.transpose(0, 1) if options.get("batch_first") else x
    leaf = x.clone().requires_grad_()
    output, h_n = ours(leaf, h_0)
    other = x.clone().requires_grad_()
    for i in range(2):
        for j in range(3):
            start = None if h_0 is None else h_0[..., i, j].contiguous()
            expected, last = theirs(other[..., i, j], start)
            torch.testing.assert_close(output[..., i, j], expected)
            torch.testing.assert_close(h_n[..., i, j], last)
            expected.square().sum().backward()
    output.square().sum().backward()
    torch.testing.assert_close(leaf.grad, other.grad)


@pytest.mark.parametrize("reset", ["after", "before"])
@pytest.mark.parametrize("memory", ["store", "recompute"])
def test_it_is_its_cell_step_after_step(reset, memory):
    gru = ConvGRU(3, [4, 6], [(3, 5), 2], reset=reset, memory=memory, dtype=F64)
    x = torch.randn(4, 2, 3, 6, 5, dtype=F64)
    output, h_n = gru(x)
    below = x
    for k, layer in enumerate(gru.layers):
        cell = ConvGRUCell(
            layer.in_channels, layer.hidden_channels, tuple(layer.weight_ih.shape[2:]), reset=reset
        )
        cell = cell.double()
        cell.load_state_dict(layer.state_dict())
        h, steps = None, []
        for frame in below:
            h = cell(frame, h)
            steps.append(h)
        below = torch.stack(steps)
        torch.testing.assert_close(h_n[k], h)
    torch.testing.assert_close(output, below)
    assert torch.autograd.gradcheck(lambda t: gru(t)[0], (x[:2, :1, :, :3, :3].clone().requires_grad_(),))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_lengths_are_sequences_by_themselves(bidirectional):
    gru = ConvGRU(3, 4, num_layers=2, bidirectional=bidirectional, dtype=F64)
    x, lengths = torch.randn(5, 3, 3, 4, 4, dtype=F64), torch.tensor([5, 1, 3])
    spoiled = x.clone()
    for k, n in enumerate(lengths):
        spoiled[n:, k] = torch.nan
    output, h_n = gru(spoiled, lengths=lengths)
    for k, n in enumerate(lengths):
        alone, last = gru(x[:n, k : k + 1])
        torch.testing.assert_close(output[:n, k : k + 1], alone)
        torch.testing.assert_close(h_n[:, k : k + 1], last)
        assert not output[n:, k].any()


def test_hooks_dropout_types_and_compilation():
    gru = ConvGRU(3, 4, num_layers=2, dropout=0.5)
    x = torch.randn(3, 2, 3, 4, 4)
    assert not torch.equal(gru(x)[0], gru(x)[0]) and torch.equal(gru.eval()(x)[0], gru(x)[0])
    plain = gru(x)[0]
    prune.l1_unstructured(gru.layers[0], "weight_hh", 0.5)
    assert not torch.equal(gru(x)[0], plain)
    with torch.autocast("cpu", torch.bfloat16):
        assert gru(x)[0].dtype == torch.bfloat16
    half = ConvGRU(3, 4, dtype=torch.bfloat16)
    assert half(x.bfloat16())[0].dtype == torch.bfloat16
    simple = ConvGRU(3, 4)
    torch.testing.assert_close(torch.compile(simple, backend="aot_eager", fullgraph=True)(x)[0], simple(x)[0])
    assert amstel.nn.ConvGRU(3, 4, device="meta")(torch.ones(2, 1, 3, 4, 4, device="meta"))[1].shape == (
        1,
        1,
        4,
        4,
        4,
    )


X = torch.zeros(2, 1, 3, 4, 4)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: ConvGRU(3, [4, 5], num_layers=3), ValueError, "`hidden_channels` must be"),
        (lambda: ConvGRU(3, 4, dropout=1), ValueError, "`dropout` must be"),
        (lambda: ConvGRU(3, 4, batch_first=1), TypeError, "`batch_first` must be"),
        (lambda: ConvGRU(3, 4, reset="never"), ValueError, "`reset` must be"),
        (lambda: ConvGRU(3, 4)(X[0]), ValueError, r"`x` must be \[T >= 1, N, 3, H, W\]"),
        (lambda: ConvGRU(3, 4)(X[:0]), ValueError, r"`x` must be \[T >= 1, N, 3, H, W\]"),
        (lambda: ConvGRU(3, 4)(X.double()), ValueError, "`x` must be float32"),
        (lambda: ConvGRU(3, 4)(X, torch.zeros(2, 1, 4, 4, 4)), ValueError, "`h_0` must be 1 state,"),
        (
            lambda: ConvGRU(3, 4)(X, torch.zeros(1, 1, 4, 4, 5)),
            ValueError,
            r"`h_0` must be float32 \[1, 4, 4, 4\]",
        ),
        (lambda: ConvGRU(3, 4)(X, 3), TypeError, "`h_0` must be"),
        (lambda: ConvGRU(3, 4)(X, lengths=torch.tensor([3])), ValueError, "`lengths` must be"),
    ],
)
def test_it_explains_itself(call, error, message):
    with pytest.raises(error, match=message):
        call()
