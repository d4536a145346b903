"""Values that torch.vmap or torch.compile hide: arguments that are looked at are looked at there, too."""

import pytest
import torch

import amstel
from amstel import nn
from amstel.inverse import Denoising, Inpainting, Poisson

NAN = float("nan")
X = torch.ones(1, 1, 4, 4)
GRAPH = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
Z = torch.ones(3, 2)
GAE = nn.GAE(2, 2, 2)
CHEB = nn.ChebConv(2, 2, K=2)
LSTM = nn.ConvLSTM(1, 2, batch_first=True)
CLASSIFIER = nn.LSTMClassifier(2, 3, 4, feature_size=(2, 2), head_channels=4).eval()

#: Of a call of one tensor: good values, bad ones (of the second element), and what is said of them.
CALLS = {
    "sigma": (lambda s: Denoising(s).gradient(X, 0 * X), 1.0, -1.0, "`sigma` must be a finite number > 0"),
    "NaN": (lambda s: Denoising(s).gradient(X, 0 * X), 1.0, NAN, "`sigma` must be a finite number > 0"),
    "mask": (
        lambda m: Inpainting(m, 1.0).gradient(X, 0 * X), torch.ones(4, 4), torch.full((4, 4), 0.5),
        r"`mask` must be .* of 0 and 1",
    ),
    "pairs": (
        lambda p: GAE.decode(Z, p), torch.tensor([[0], [2]]), torch.tensor([[0], [-1]]),
        "`edge_index` must be of nodes",
    ),
    "pairs too large": (
        lambda p: GAE.decode(Z, p), torch.tensor([[0], [2]]), torch.tensor([[0], [3]]),
        "`edge_index` must be of nodes",
    ),
    "lambda_max": (lambda v: CHEB(Z, GRAPH, lambda_max=v), 2.0, -2.0, "`lambda_max` must be of numbers > 0"),
    "batch": (
        lambda b: CHEB(Z, GRAPH, lambda_max=torch.tensor([2.0, 1.5]), batch=b), torch.tensor([0, 1, 1]),
        torch.tensor([0, 1, 2]), r"`batch` must be in \[0, 2\)",
    ),
}  # fmt: skip

#: Which a compiled program does not look at.
MORE = {
    "counts": (lambda y: Poisson(Denoising()).gradient(X, y), X, -X, "`y` must be counts"),
    "labels": (
        lambda y: nn.MarginContrastiveLoss()(Z[:2], Z[:2], y), torch.tensor([0, 1]), torch.tensor([0, 2]),
        "`y` must be 1 for a pair",
    ),
    "lengths": (
        lambda n: LSTM(torch.ones(2, 3, 1, 4, 4), lengths=n)[0], torch.tensor([1, 3]), torch.tensor([1, 4]),
        r"`lengths` must be from 1 to 3 \(T\), got 4 at position 1",
    ),
    "lengths of a classifier": (
        lambda n: CLASSIFIER(torch.ones(3, 1, 2, 2, 2), lengths=n)[0], torch.tensor([3]), torch.tensor([0]),
        "`lengths` must be .* from 1 to T = 3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [*CALLS, *MORE])
def test_values_of_a_vmap_are_looked_at(name):
    call, good, bad, said = {**CALLS, **MORE}[name]
    good, bad = torch.as_tensor(good), torch.as_tensor(bad)
    with torch.no_grad():
        expected = call(good)
        torch.testing.assert_close(torch.vmap(call)(torch.stack([good, good]))[1], expected)
        with pytest.raises(ValueError, match=said):
            torch.vmap(call)(torch.stack([good, bad]))


@pytest.mark.parametrize("name", CALLS)
def test_values_of_a_compiled_program_are_looked_at(name):
    call, good, bad, said = CALLS[name]
    good, bad = torch.as_tensor(good), torch.as_tensor(bad)
    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    torch._dynamo.reset()
    with torch.no_grad():
        torch.testing.assert_close(compiled(good), call(good))
        with pytest.raises(RuntimeError, match=said):
            compiled(bad)


def test_what_is_compiled_of_a_vmap_is_not_looked_at():
    call = torch.compile(torch.vmap(CALLS["sigma"][0]), backend="eager", fullgraph=True)
    assert call(torch.ones(2)).shape == (2, *X.shape)


def test_an_exported_program_holds_no_look():
    class Model(torch.nn.Module):
        def forward(self, sigma):
            return CALLS["sigma"][0](sigma)

    program = torch.export.export(Model(), (torch.tensor(1.0),))
    assert "_assert_async" not in str(program.graph)
