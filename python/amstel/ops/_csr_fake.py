"""Shapes and dtypes of the operators on graphs, for torch.compile and torch.export."""

from typing import Any

import torch
from torch import Tensor

from amstel.ops._plain import index_dtype
from amstel.ops._spmm import sum_dtype


@torch.library.register_fake("amstel::csr_from_coo")
def _(row: Tensor, col: Tensor, num_rows: int, num_cols: int, weight: Any) -> Any:
    edges = row.shape[0]
    dtype = index_dtype(edges, num_rows, num_cols)
    return tuple(row.new_empty(n, dtype=dtype) for n in (num_rows + 1, edges, edges))


@torch.library.register_fake("amstel::csr_transpose")
def _(crow: Tensor, col: Tensor, edge: Any, num_cols: int) -> Any:
    return crow.new_empty(num_cols + 1), torch.empty_like(col), torch.empty_like(col)


@torch.library.register_fake("amstel::csr_check")
def _(crow: Tensor, col: Tensor, weight: Any, num_cols: int) -> None:
    return None


@torch.library.register_fake("amstel::edge_sum")
def _(crow: Tensor, edge: Any, a: Tensor, b: Any) -> Tensor:
    return a.new_empty(crow.shape[0] - 1, dtype=sum_dtype(a.dtype))


@torch.library.register_fake("amstel::edge_add")
def _(
    crow: Tensor, col: Tensor, edge: Any, value: Tensor, row_term: Any, col_term: Any, dtype: torch.dtype
) -> Tensor:
    return torch.empty_like(value, dtype=dtype)


@torch.library.register_fake("amstel::spmm")
def _(
    crow: Tensor,
    col: Tensor,
    edge: Any,
    weight: Any,
    x: Tensor,
    row_scale: Any,
    col_scale: Any,
    self_loops: float,
    bias: Any,
    relu: bool,
    check_weight: bool,
    found: Any = None,
) -> Tensor:
    return x.new_empty(*x.shape[:-2], crow.shape[0] - 1, x.shape[-1])


@torch.library.register_fake("amstel::spmm_keep")
def _(crow: Tensor, *rest: Any) -> Tensor:
    return torch.empty(1, dtype=torch.int64)


@torch.library.register_fake("amstel::spmm_kept")
def _(x: Tensor, product: int, rows: int) -> Tensor:
    return x.new_empty(*x.shape[:-2], rows, x.shape[-1])


@torch.library.register_fake("amstel::spmm_grad")
def _(
    crow_t: Tensor,
    col_t: Tensor,
    edge_t: Tensor,
    weight: Any,
    grad: Tensor,
    x: Tensor,
    row_scale: Any,
    col_scale: Any,
    self_loops: float,
    need_x: bool,
) -> Any:
    dtype, rows = sum_dtype(grad.dtype), crow_t.shape[0] - 1
    return (
        grad.new_empty(x.shape if need_x else (0,)),
        grad.new_empty(col_t.shape[0], dtype=dtype),
        grad.new_empty(rows, dtype=dtype),
        grad.new_empty(rows if self_loops != 0 else 0, dtype=dtype),
    )


@torch.library.register_fake("amstel::epilogue_grad")
def _(grad: Tensor, output: Any) -> Any:
    masked = grad.new_empty(grad.shape if output is not None else (0,))
    return masked, grad.new_empty(grad.shape[-1])


@torch.library.register_fake("amstel::sample_neighbors")
def _(
    crow: Tensor,
    col: Tensor,
    chance: Any,
    targets: Tensor,
    fanout: int,
    replace: bool,
    key: int,
    parallel: bool,
) -> Any:
    edges, nodes = _unknown(), _unknown()
    scale = targets.new_empty(_unknown(), dtype=torch.float64)
    rows = crow.new_empty(targets.shape[0] + 1)
    return rows, col.new_empty(edges), col.new_empty(edges), scale, targets.new_empty(nodes)


@torch.library.register_fake("amstel::induced_subgraph")
def _(crow: Tensor, col: Tensor, nodes: Tensor, parallel: bool) -> Any:
    edges = _unknown()
    return crow.new_empty(nodes.shape[0] + 1), col.new_empty(edges), col.new_empty(edges)


@torch.library.register_fake("amstel::gather_rows")
def _(x: Tensor, index: Tensor, parallel: bool) -> Tensor:
    return x.new_empty(index.shape[0], x.shape[1])


@torch.library.register_fake("amstel::random_walk")
def _(crow: Tensor, col: Tensor, starts: Tensor, length: int, key: int) -> Tensor:
    return starts.new_empty(starts.shape[0], length + 1)


def _unknown() -> Any:
    """A size that follows from values."""
    return torch.library.get_ctx().new_dynamic_size()
