"""Every module under torch.func: forward against reverse mode, ensembles, batches by vmap; and a process that is forked.

In double precision. Where the tangent of a module were lost its inner product with a gradient would tell.
"""

import os
import subprocess
import sys

import pytest
import torch
from torch.testing import assert_close

from amstel import nn
from tests.module_samples import ASIDE, CASES, sample


def test_every_module_is_in_the_table():
    modules = {n for n in nn.__all__ if isinstance(getattr(nn, n), type)}
    assert modules == {type(sample(name)[0].model).__name__ for name in CASES} | set(ASIDE)


@pytest.mark.parametrize("name", CASES)
def test_modules_under_transforms(name):
    (model, x), (other, _) = sample(name, 0), sample(name, 1)
    y = model(x)
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
        stacked, _ = torch.func.stack_module_state([model, other])
        assert_close(torch.vmap(run, in_dims=(0, None))(stacked, x), torch.stack([y, other(x)]))


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
