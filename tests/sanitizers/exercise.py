"""Every operator of the CPU at small shapes, for a library built with sanitizers (.ci/sanitize): forward, backward, odd
sizes, every dtype and layout, and enough work for several threads. Values are the business of the other tests."""

import sys

import torch

import amstel
from amstel import ops
from amstel.ops._winograd import conv3x3

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def backward(*outputs: torch.Tensor) -> None:
    sum(o.float().sum() for o in outputs if o.requires_grad).backward()


def leaf(*sizes: int, dtype: torch.dtype = torch.float32, last: bool = False) -> torch.Tensor:
    x = torch.randn(*sizes).to(dtype)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    return x.requires_grad_()


def graphs(dtype: torch.dtype) -> None:
    for nodes, edges, features in [(1, 0, 3), (50, 200, 1), (50, 200, 33), (3000, 40000, 64)]:
        graph = amstel.Graph.from_edge_index(torch.randint(0, nodes, (2, edges)), num_nodes=nodes)
        for norm in ("sym", "row", "none"):
            weight = torch.rand(edges, dtype=dtype).requires_grad_()
            bias = leaf(features, dtype=dtype)
            backward(
                ops.spmm(
                    graph, leaf(nodes, features, dtype=dtype), weight, norm=norm, bias=bias, activation="relu"
                )
            )
        backward(ops.spmm(graph, leaf(2, nodes, features, dtype=dtype)))
        for k in range(30):  # products that the operators keep, use again and let go
            for _ in range(2):
                ops.spmm(graph, torch.randn(nodes, features).to(dtype), self_loops=k / 10)


def recurrent(dtype: torch.dtype) -> None:
    for channels, hidden, size, kernel in [(3, 5, 7, 3), (16, 24, 12, 3), (2, 4, 6, 1)]:
        for memory in ("store", "recompute"):
            x = leaf(3, 2, channels, size, size, dtype=dtype)
            weight_ih = leaf(4 * hidden, channels, kernel, kernel, dtype=dtype)
            weight_hh = leaf(4 * hidden, hidden, kernel, kernel, dtype=dtype)
            peephole = leaf(3, hidden, dtype=dtype)
            output, (h, c) = ops.conv_lstm(x, weight_ih, weight_hh, peephole=peephole, memory=memory)
            backward(output, h, c)
        gates = [leaf(2, 3 * hidden, size, size, dtype=dtype, last=last) for last in (False, True)]
        backward(ops.conv_gru_cell(*gates, leaf(2, hidden, size, size, dtype=dtype)))
    if dtype != torch.float64:
        backward(conv3x3(*(leaf(*s, dtype=dtype) for s in [(2, 9, 11, 14), (70, 9, 3, 3), (70,)])))


def pooling(dtype: torch.dtype) -> None:
    corner = torch.rand(120, 2) * 40
    boxes = torch.cat([torch.randint(0, 2, (120, 1)), corner, corner + torch.rand(120, 2) * 30], 1)
    boxes = torch.cat([boxes, torch.tensor([[0, -50, -50, -40, -40], [1, 60, 60, 10, 10.0]])])
    for last in (False, True):
        features = leaf(2, 40, 33, 47, dtype=dtype, last=last)
        pooled = ops.roi_pool(features, boxes, (3, 4), 0.7)
        backward(pooled)
        with torch.no_grad():
            ops.roi_pool(features, boxes, (3, 4), 0.7)  # without positions
        backward(ops.roi_align(features, boxes, (3, 4), 0.7, 2, True))
        backward(ops.roi_align(features, boxes, (1, 2), 0.7))  # as many samples as cells
        backward(ops.ps_roi_pool(leaf(2, 36, 33, 47, dtype=dtype, last=last), boxes, (3, 4), 0.7))
        query = leaf(40 * 12, dtype=dtype)
        backward(ops.roi_match([features], boxes, query, (3, 4), [0.7]))
        bad = torch.full(pooled.shape, 1 << 30, dtype=torch.int32)  # every thread finds it
        for call in (
            lambda p=pooled, b=bad, n=last: torch.ops.amstel.roi_pool_grad(
                p.detach(), b, boxes, 0.7, 2, 33, 47, n
            ),
            lambda f=features, b=bad: torch.ops.amstel.roi_pool_gather(f.detach(), b, boxes),
        ):
            try:
                call()
            except RuntimeError as error:
                assert "argmax" in str(error)
            else:
                raise AssertionError("a bad argmax was taken")


def inverse_problems(dtype: torch.dtype) -> None:
    if dtype not in (torch.float64, torch.float32):
        return
    for n, channels, size in [(1, 1, 1), (2, 3, 17), (3, 2, 160)]:
        eta, y = (
            torch.randn(n, channels, size, size, dtype=dtype),
            torch.randn(n, channels, size, size, dtype=dtype),
        )
        precision = torch.rand(n, dtype=dtype)
        for logistic in (False, True):
            for out in (dtype, torch.bfloat16 if dtype == torch.float32 else dtype):
                rows = torch.ops.amstel.rim_input(eta, y, None, precision, 0.5, True, logistic, out)
                torch.ops.amstel.rim_input_grad(rows, eta, y, None, precision, 0.5, True, logistic)
                torch.ops.amstel.rim_input(eta, y, torch.ones_like(eta), None, 0.5, True, logistic, out)
        for scale in (1, 2, 3):
            large = torch.randn(n, channels, size * scale, size * scale, dtype=dtype)
            small = torch.ops.amstel.bicubic_down(
                large, torch.zeros(n, channels, size, size, dtype=dtype), scale
            )
            torch.ops.amstel.bicubic_up(small, scale)
            torch.ops.amstel.rim_bicubic_input(large, small, precision, 0.5, scale, True, dtype)
    complex_ = torch.complex128 if dtype == torch.float64 else torch.complex64
    for height, width, coils in [(1, 1, 1), (15, 22, 3), (131, 7, 2), (5, 262, 2), (96, 80, 4)]:
        x = torch.randn(2, height, width, dtype=complex_)
        y = torch.randn(2, coils, height, width, dtype=complex_)
        for mask in (torch.ones(width, dtype=dtype), torch.ones(height, width, dtype=dtype)):
            for items, learned in ((2, False), (2, True), (1, True)):
                s = torch.randn(items, coils, height, width, dtype=complex_)
                s = (s if items == 2 else s[0]).requires_grad_(learned)
                backward(torch.view_as_real(ops.mri_gradient(x.clone().requires_grad_(), y, mask, s)))


def sampling() -> None:
    for nodes, edges in [(1, 0), (50, 200), (3000, 90000)]:
        graph = amstel.Graph.from_edge_index(torch.randint(0, nodes, (2, edges)), num_nodes=nodes)
        crow, col, targets = graph.crow, graph.col, torch.randperm(nodes)
        chance = torch.rand(edges) * (torch.rand(edges) > 0.2)
        for index in (torch.int32, torch.int64):
            arrays = crow.to(index), col.to(index)
            for fanout in (-1, 1, 7, 70, 1000):
                for replace in (False, True):
                    for some in (None, chance):
                        torch.ops.amstel.sample_neighbors(*arrays, some, targets, fanout, replace, 1, True)
            torch.ops.amstel.induced_subgraph(*arrays, targets[: nodes // 2 + 1], True)
            torch.ops.amstel.gather_rows(torch.zeros(nodes, 900, dtype=torch.uint8), targets, True)
            torch.ops.amstel.random_walk(*arrays, targets, 9, 2)


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # torch's own, which a sanitizer cannot follow
    sampling()
    print("sampling: done", flush=True)
    for dtype in DTYPES:
        for run in (graphs, recurrent, pooling, inverse_problems):
            run(dtype)
            print(f"{run.__name__} {dtype}: done", flush=True)


if __name__ == "__main__":
    sys.exit(main())
