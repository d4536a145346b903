"""Every module beneath what is not a derivative: copies, files, hooks, modes, other types; compiled and exported.

From the cases of tests/module_samples.py. What is compiled and exported is one program, for each costs seconds.
"""

import copy
import io
import pickle

import pytest
import torch
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from tests.module_samples import CASES, sample

#: Those whose programs have no other test; torch.compile takes no LSTM of torch, so LSTMClassifier is not among them.
PROGRAMS = [
    "ChebConv", "SpectralConv", "SGConv", "APPNP that learns λ", "GCN2Conv", "GAE's loss", "VGAE", "ConvLSTM1d",
    "ConvLSTM3d", "PredRNNCell", "RoIAlign", "PSRoIPool", "MultiScaleRoIAlign", "MarginContrastiveLoss",
]  # fmt: skip


def gradients(call, module, x):
    leaf = x.detach().clone().requires_grad_()
    y = call(leaf)
    wanted = [leaf, *module.parameters()]
    return (
        y.detach(),
        *torch.autograd.grad(y.square().sum(), wanted, materialize_grads=True, allow_unused=True),
    )


@pytest.mark.parametrize("name", CASES)
def test_modules_wherever_they_go(name):
    module, x = sample(name)
    model, y = module.model, module(x)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for other in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(buffer, weights_only=False),
    ):
        assert torch.equal(module.call(other, x), y) and repr(other) == repr(model)
    state = model.state_dict()
    for wrong in ({**state, "more": y}, dict(list(state.items())[1:]) if state else {"more": y}):
        with pytest.raises(RuntimeError, match="in state_dict"):
            model.load_state_dict(wrong)

    seen = []
    handle = model.register_forward_hook(lambda *_: seen.append(1))
    with torch.inference_mode():
        inside = module(x)
    handle.remove()
    assert_close(
        inside, y, rtol=1e-12, atol=1e-12
    )  # not equal, for the order of GCNConv depends on who learns
    assert seen or "loss" in name or name in ("VGAE", "SINT")  # which are called by other methods
    expected = gradients(module, module, x)
    assert_close(expected[0], y, rtol=1e-12, atol=1e-12)
    for again in (lambda x: checkpoint(module, x, use_reentrant=False), module):
        with torch.autograd.graph.save_on_cpu(), torch.autograd.set_detect_anomaly(True, check_nan=False):
            assert_close(gradients(again, module, x), expected, rtol=0, atol=0)

    single, short = copy.deepcopy(module).float(), x.float()
    plain = single(short)
    assert plain.dtype == torch.float32
    assert_close(plain.double(), y, rtol=1e-3, atol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(single, single, short)
    assert all(bool(t.isfinite().all()) for t in found)
    assert float((found[0].float() - plain).abs().max()) <= 0.1 * max(1.0, float(plain.abs().max()))


class All(torch.nn.Module):
    def __init__(self, modules):
        super().__init__()
        self.parts = torch.nn.ModuleList(modules)

    def forward(self, *inputs):
        return [part(x) for part, x in zip(self.parts, inputs, strict=True)]


def test_modules_compiled_and_exported():
    given = [sample(name, dtype=torch.float32) for name in PROGRAMS]
    model, inputs = All([m for m, _ in given]), [x for _, x in given]
    results = []
    for f in (
        model,
        torch.compile(model, fullgraph=True, backend="aot_eager"),
    ):  # SpectralConv's basis is made first
        leaves = [x.clone().requires_grad_() for x in inputs]
        ys = f(*leaves)
        wanted = [*leaves, *model.parameters()]
        grads = torch.autograd.grad(
            sum(y.square().sum() for y in ys), wanted, materialize_grads=True, allow_unused=True
        )
        results.append((*(y.detach() for y in ys), *grads))
    assert_close(*results, rtol=1e-4, atol=1e-5)
    program = torch.export.export(model, tuple(inputs)).module()
    assert_close(program(*inputs), model(*inputs), rtol=1e-4, atol=1e-5)
