"""Sparse features: their structure as a Graph, products with them, dropout on their non-zeros."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from amstel import _check
from amstel._derived import plainly
from amstel.graph import Graph
from amstel.ops._raw import transformed
from amstel.ops.spmm import spmm

# Structures of sparse features, with the version of the tensor that they are of; made once and dropped with it.
_structures: Any = WeakTensorKeyDictionary()


def is_sparse(x: Tensor | None) -> bool:
    return x is not None and x.layout == torch.sparse_csr


def _structure(x: Tensor) -> Graph:
    """The pattern of a sparse_csr tensor as a rectangular Graph, made once per tensor and again after a change."""
    version, graph = _structures.get(x, (None, None))
    if graph is None or version is None or version != _version(x):
        crow, col = _read(x, lambda: (x.crow_indices(), x.col_indices()))
        graph = Graph.from_csr(crow, col, num_cols=x.shape[1])
        _structures[x] = _version(x), graph
    return graph


def _read(x: Tensor, what: Callable[[], Any]) -> Any:
    """The parts of a sparse tensor, beneath torch.func, which cannot read one."""
    if not transformed():
        return what()
    if torch._C._functorch.is_functorch_wrapped_tensor(x):
        _check.fail("x", "dense where torch.func differentiates or batches it", x)
    return plainly(what)


def _version(x: Tensor) -> int | None:
    """How often a tensor was changed, or None where PyTorch does not count."""
    return None if x.is_inference() else x._version


def matmul(x: Tensor | None, weight: Tensor) -> Tensor:
    """x @ weight for dense, sparse_csr and featureless (identity) x."""
    if x is None:
        return weight
    if is_sparse(x):
        values = _read(x, lambda: x.values().data)  # torch.compile takes no view of a sparse tensor
        return spmm(_structure(x), weight, values, norm="none", self_loops=0.0)
    return x @ weight


def sparse_dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Dropout on the non-zeros of a torch.sparse_csr tensor.

    Each is kept with probability 1 - p, times 1 / (1 - p). The result shares x's structure;
    dropped values stay as explicit zeros.

    Example:
        >>> x = torch.eye(3).to_sparse_csr()
        >>> amstel.nn.sparse_dropout(x, 0.5, training=False) is x
        True
    """
    if not is_sparse(_check.tensor("x", x, "a torch.sparse_csr tensor")):
        _check.fail("x", "a torch.sparse_csr tensor", x)
    _check.number("p", p, "in [0, 1]", least=0, most=1)
    if not training or p == 0:
        return x
    values = nn.functional.dropout(x.values(), p)
    dropped = torch.sparse_csr_tensor(
        x.crow_indices(), x.col_indices(), values, x.shape, check_invariants=False
    )
    _structures[dropped] = _version(dropped), _structure(x)
    return dropped


def dropout(x: Tensor | None, graph: Any, p: float, training: bool) -> Tensor | None:
    """Dropout of dense or sparse features, of none at all, and of a DistributedGraph's, whose masks follow the node."""
    if x is None or not training or p == 0:
        return x
    if hasattr(graph, "dropout"):  # for any number of ranks
        return graph.dropout(x, p, training)
    return sparse_dropout(x, p, training) if is_sparse(x) else nn.functional.dropout(x, p, training)
