"""Modules under DistributedDataParallel and FSDP2: the gradients of two processes are those of one."""

import pytest
import torch
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

import amstel
from amstel import nn
from tests import processes

GRAPH = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 2], [1, 2, 0]]), 3)
MODULES = {
    "gcn": (
        lambda: nn.GCN(4, 8, 2, dropout=0.0, bias=True),
        lambda module, x: module(x[:, :, 0, 0], GRAPH),
    ),
    "lstm": (lambda: nn.ConvLSTM(4, 4, num_layers=2), lambda module, x: module(x[None])[0]),
    "gru": (lambda: nn.ConvGRUCell(4, 4, kernel_size=3), lambda module, x: module(x)),
    "video": (
        lambda: nn.VideoLSTM(4, 4, 2, feature_size=6, dropout=0.0),
        lambda module, x: module(x[None], x[None])[0],
    ),
}


def shard(module, **how):
    """Every part by itself, whose weights are there only while it runs."""
    for part in getattr(module, "layers", module.children()):
        if list(part.parameters()):
            fully_shard(part, **how)
    fully_shard(module, **how)


def _same_gradients(rank, world, folder):
    inputs = [torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(seed)) for seed in range(world)]
    for make, run in MODULES.values():
        torch.manual_seed(0)
        plain = make()
        state = {name: value.clone() for name, value in plain.state_dict().items()}
        sum(run(plain, x).square().mean() / world for x in inputs).backward()
        expected = {name: weight.grad for name, weight in plain.named_parameters()}

        copied = make()
        copied.load_state_dict(state)
        copied = DistributedDataParallel(copied)
        run(copied, inputs[rank]).square().mean().backward()
        for name, weight in copied.module.named_parameters():
            torch.testing.assert_close(weight.grad, expected[name], rtol=1e-4, atol=1e-6)

        sharded = make()
        sharded.load_state_dict(state)
        shard(sharded)
        run(sharded, inputs[rank]).square().mean().backward()
        for name, weight in sharded.named_parameters():
            torch.testing.assert_close(weight.grad.full_tensor(), expected[name], rtol=1e-4, atol=1e-6)
        assert list(sharded.state_dict()) == list(state)


@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module")
def test_ddp_and_fsdp2_on_two_ranks(tmp_path):
    processes.run(_same_gradients, tmp_path)


def _in_16_bits(rank, world, folder):
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    for make, run in (
        (lambda: nn.RIM(1, 4, 2, network="conv"), lambda m, x: m(x, amstel.inverse.Denoising(0.3))[-1]),
        (lambda: nn.LSTMClassifier(1, 4, 2), lambda m, x: m(x[None])[0]),
        (lambda: nn.ConvGRU(1, 4), lambda m, x: m(x[None])[0]),
        (lambda: nn.VideoLSTM(1, 4, 2, feature_size=8), lambda m, x: m(x[None], x[None])[0]),
    ):
        model = make()
        shard(model, mp_policy=policy)
        found = run(model, torch.randn(2, 1, 8, 8))
        assert found.dtype == torch.bfloat16
        found.sum().backward()
        assert all(weight.grad.full_tensor().isfinite().all() for weight in model.parameters())


def test_mixed_precision_of_fsdp2(tmp_path):
    """A model gets x in bfloat16 while its parts are sharded in float32 yet, and the weights of one that has run are gone."""
    processes.run(_in_16_bits, tmp_path)


def test_a_model_alone_reads_its_weights_where_they_are():
    """They were copied at every call, for FSDP2's sake."""
    model = nn.VideoLSTM(4, 4, 2, feature_size=6)
    for part in (model.lstm, model.motion):
        assert all(a is b for a, b in zip(part(), (part.weight_ih, part.weight_hh, part.bias), strict=True))
