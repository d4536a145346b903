"""What a call costs that has nothing to do, on one node, one pixel or one box: small workloads pay it too.

On the CPU alone; on CUDA the launch of a kernel hides it.
"""

import torch
import torchvision.ops as tv

import amstel
from benchmarks import bench_conv_gru, bench_conv_lstm, mkl
from benchmarks.bench_spmm import INSPECTED, normalized, sparse
from benchmarks.suite import Implementation, Shape, Work, suite

NODE = {"one_node": Shape((), (), ("cpu",))}
PIXEL = {"one_pixel": Shape((), (), ("cpu",))}
BOX = {"one_box": Shape((), (), ("cpu",))}
OURS, EAGER = Implementation("amstel"), Implementation("eager")


@suite("spmm", "call", NODE, OURS, Implementation("torch CSR int32"), *INSPECTED)
def test_spmm(at):
    graph = amstel.Graph.from_edge_index(torch.tensor([[0], [0]]))
    x = at.randn(1, 1)
    crow, source, values, _ = normalized(graph)
    matrix = sparse(crow, source, values, 1, torch.int32)
    functions = {"amstel": lambda: amstel.ops.spmm(graph, x), "torch CSR int32": lambda: matrix @ x}
    if INSPECTED:
        product = mkl.Product(crow, source, values, 1)
        functions["MKL inspected"] = lambda: product(x)
    return Work(functions)


def gates(work):
    return Work({name: work.functions[name] for name in ("amstel", "eager")})


@suite("conv_lstm_gates", "call", PIXEL, OURS, EAGER)
def test_conv_lstm_gates(at):
    return gates(bench_conv_lstm.gate_work(at, (1, 1, 1), "forward"))


@suite("conv_lstm_gates", "call_both", PIXEL, OURS, EAGER)
def test_conv_lstm_gates_both(at):
    return gates(bench_conv_lstm.gate_work(at, (1, 1, 1), "both"))


@suite("conv_gru_gates", "call", PIXEL, OURS, EAGER)
def test_conv_gru_gates(at):
    return gates(bench_conv_gru.gate_work(at, (1, 1, 1, 1), "forward"))


@suite("conv_gru_gates", "call_both", PIXEL, OURS, EAGER)
def test_conv_gru_gates_both(at):
    return gates(bench_conv_gru.gate_work(at, (1, 1, 1, 1), "both"))


@suite("roi_pool", "call", BOX, OURS, Implementation("torchvision"))
def test_roi_pool(at):
    x, box = at.randn(1, 1, 1, 1), torch.tensor([[0.0, 0, 0, 1, 1]])
    return Work(
        {
            "amstel": lambda: amstel.ops.roi_pool(x, box, 1),
            "torchvision": lambda: tv.roi_pool(x, box, 1),
        },
        tolerance=0,
    )
