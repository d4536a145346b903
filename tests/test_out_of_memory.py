"""Memory that is short is a torch.OutOfMemoryError, whoever asked for it, and the operator works afterwards."""

import pytest
import torch

import amstel
from amstel import _library

# More than any address space holds, so that no machine begins to fill it.
TOO_MUCH = 1 << 15


def test_compiled_allocation():
    features, boxes = torch.zeros(1, 1024, 1, 1), torch.zeros(100, 5)
    for _ in range(2):
        with pytest.raises(
            torch.OutOfMemoryError, match=r"could not allocate Float \[100, 1024, 32768, 32768\]"
        ):
            amstel.ops.roi_pool(features, boxes, TOO_MUCH)
    assert amstel.ops.roi_pool(features, boxes, 2).shape == (100, 1024, 2, 2)


def test_allocation_of_an_operator_in_python():
    """conv_lstm is put together in Python: torch's own error on the CPU is a plain RuntimeError."""
    x = torch.zeros(1, 1, 1, 1, 1).expand(1 << 13, 1 << 13, 1, 1 << 13, 1 << 13)
    weight = torch.zeros(4, 1, 1, 1)
    with pytest.raises(torch.OutOfMemoryError):
        amstel.ops.conv_lstm(x, weight, weight)
    output, _ = amstel.ops.conv_lstm(x[:2, :1, :, :2, :2].contiguous(), weight, weight)
    assert output.shape == (2, 1, 1, 2, 2)


def test_backward():
    features = torch.zeros(1, 8, 4, 4, requires_grad=True)
    pooled = amstel.ops.roi_pool(features, torch.zeros(2, 5), 2)
    pooled.sum().backward()
    assert features.grad is not None
    with pytest.raises(torch.OutOfMemoryError):
        _library.operators.roi_pool_grad(
            pooled.detach(),
            torch.zeros(2, 8, 2, 2, dtype=torch.int32),
            torch.zeros(2, 5),
            1.0,
            1 << 20,
            1 << 15,
            1 << 15,
            False,
        )


def test_other_errors_stay():
    with pytest.raises(RuntimeError, match="crow") as caught:
        _library.operators.csr_check(torch.zeros(3), torch.zeros(2), None, 2)
    assert not isinstance(caught.value, torch.OutOfMemoryError)
    assert _library.operators.spmm.default is _library.operators.spmm.default


def test_compiled_code_has_no_graph_break():
    graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1], [1, 0]]))
    compiled = torch.compile(lambda x: amstel.ops.spmm(graph, x), fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 3)
    torch.testing.assert_close(compiled(x), amstel.ops.spmm(graph, x))
