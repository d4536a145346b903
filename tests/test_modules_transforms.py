"""Every module under torch.func: forward against reverse mode, ensembles, batches by vmap; and a process that is forked.

In double precision. Where the tangent of a module were lost its inner product with a gradient would tell.
"""

import os
import subprocess
import sys

import networkx
import pytest
import torch
from torch.testing import assert_close

import amstel
from amstel import nn

GRAPH = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 2, 1], [1, 2, 0, 0]]), 3)
RING = amstel.Graph.from_networkx(networkx.cycle_graph(6))
BOXES = torch.tensor([[0, 0, 0, 9.0, 9], [0, 4, 4, 20, 16]], dtype=torch.float64)
LENGTHS = torch.tensor([3, 2])
NODES, MAPS, CLIPS = (3, 4), (2, 4, 5, 5), (3, 2, 4, 3, 3)


def video(name):
    return lambda: getattr(nn, name)(4, 3, num_classes=2, feature_size=(3, 3), head_channels=5, dropout=0.0)


def estimates(physics):
    return lambda m, x: torch.stack(m(x, physics))


# name: (constructor, call, shape of the input)
CASES = {
    "GCNConv": (lambda: nn.GCNConv(4, 3, self_weight=True), lambda m, x: m(x, GRAPH), NODES),
    "ChebConv": (lambda: nn.ChebConv(4, 3, K=2), lambda m, x: m(x, GRAPH), NODES),
    "SpectralConv": (lambda: nn.SpectralConv(4, 3, modes=3), lambda m, x: m(x, RING), (6, 4)),
    "GCN": (lambda: nn.GCN(4, 5, 3, dropout=0.0), lambda m, x: m(x, GRAPH), NODES),
    "SGConv": (lambda: nn.SGConv(4, 3, K=2), lambda m, x: m(x, GRAPH), NODES),
    "GAE": (lambda: nn.GAE(4, 5, 3, dropout=0.0), lambda m, x: m(x, GRAPH), NODES),
    "GraphClassifier": (lambda: nn.GraphClassifier(4, 5, 3, dropout=0.0), lambda m, x: m(x, GRAPH), NODES),
    "ConvLSTMCell": (lambda: nn.ConvLSTMCell(4, 3, peephole=True), lambda m, x: m(x)[0], MAPS),
    "ConvLSTM": (lambda: nn.ConvLSTM(4, 3, num_layers=2, bidirectional=True), lambda m, x: m(x, lengths=LENGTHS)[0], CLIPS),
    "ConvGRUCell": (lambda: nn.ConvGRUCell(4, 3, kernel_size=3), lambda m, x: m(x), MAPS),
    "ConvGRUCell before": (lambda: nn.ConvGRUCell(4, 3, kernel_size=3, reset="before"), lambda m, x: m(x, x[:, :3]), MAPS),
    "ConvGRUCell 1x1": (lambda: nn.ConvGRUCell(4, 3, kernel_size=1), lambda m, x: m(x, x[:, :3]), MAPS),
    "PredRNNCell": (lambda: nn.PredRNNCell(4, 3), lambda m, x: m(x)[0], MAPS),
    "RoIPool": (lambda: nn.RoIPool(2, 0.5), lambda m, x: m(x, BOXES), (1, 3, 8, 8)),
    "RoIAlign": (lambda: nn.RoIAlign(2, 0.5, 2), lambda m, x: m(x, BOXES), (1, 3, 8, 8)),
    "PSRoIPool": (lambda: nn.PSRoIPool(2, 0.5), lambda m, x: m(x, BOXES), (1, 8, 8, 8)),
    "RIM": (lambda: nn.RIM(1, 4, 2, network="conv"), estimates(amstel.inverse.Denoising(0.3)), (1, 1, 8, 8)),
    "RIM, super": (lambda: nn.RIM(1, 4, 2, network="conv"), estimates(amstel.inverse.SuperResolution(2, 0.3)), (1, 1, 4, 4)),
    "RIM of a U-Net": (lambda: nn.RIM(1, 4, 2, network="unet"), estimates(amstel.inverse.Denoising(0.3)), (1, 1, 16, 16)),
    "SINT": (lambda: nn.SINT(output_size=2), lambda m, x: m.features(x)[0], (1, 3, 32, 32)),
    "ConvALSTM": (video("ConvALSTM"), lambda m, x: m(x)[0], CLIPS),
    "VideoLSTM": (video("VideoLSTM"), lambda m, x: m(x, x.sin())[0], CLIPS),
}  # fmt: skip


class Called(torch.nn.Module):
    def __init__(self, model, call):
        super().__init__()
        self.model, self.call = model, call

    def forward(self, x):
        return self.call(self.model, x)


@pytest.mark.parametrize("name", CASES)
def test_modules_under_transforms(name):
    make, call, shape = CASES[name]
    models = []
    for seed in range(2):
        torch.manual_seed(seed)
        models.append(Called(make().double().eval(), call))
    x = torch.randn(shape, dtype=torch.float64)
    model, y = models[0], models[0](x)
    parameters = {k: p.detach() for k, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def run(parameters, x):
        return torch.func.functional_call(model, (parameters, buffers), (x,))

    tangents, grad = {k: torch.randn_like(p) for k, p in parameters.items()}, torch.randn_like(y)
    _, forward = torch.func.jvp(run, (parameters, x), (tangents, x.cos()))
    by_parameter, by_x = torch.func.vjp(run, parameters, x)[1](grad)
    backward = sum((by_parameter[k] * tangents[k]).sum() for k in tangents) + (by_x * x.cos()).sum()
    assert_close((forward * grad).sum(), backward, rtol=1e-8, atol=1e-9)
    leaf = x.clone().requires_grad_()
    plain = torch.autograd.grad(model(leaf), [leaf, *model.parameters()], grad, materialize_grads=True)
    assert_close(plain, (by_x, *by_parameter.values()), rtol=1e-8, atol=1e-9)

    many = torch.stack([x, x * 1.5], -1)
    expected = torch.stack([model(x), model(x * 1.5)])
    assert_close(torch.vmap(lambda x: run(parameters, x), in_dims=-1)(many), expected)
    if parameters and not buffers:
        stacked, _ = torch.func.stack_module_state(models)
        assert_close(torch.vmap(run, in_dims=(0, None))(stacked, x), torch.stack([m(x) for m in models]))


FORKED = """
import os, signal, torch, amstel
torch.set_num_threads(2)
graph = amstel.Graph.from_edge_index(torch.randint(0, 3000, (2, 60000)), 3000)
x, lstm, clip = torch.randn(3000, 64), amstel.nn.ConvLSTM(8, 16), torch.randn(2, 2, 8, 32, 32)
def work():
    with torch.no_grad():
        return amstel.ops.spmm(graph, x), lstm(clip)[0], x.exp()
expected = work()
child = os.fork()
if not child:
    signal.alarm(60)
    os._exit(0 if all(map(torch.equal, work(), expected)) else 3)
assert os.waitpid(child, 0)[1] == 0
"""


def test_a_forked_process_goes_on():
    """Where the threads of the parent have computed, which are not in the child."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", FORKED], env=environment, check=True)
