"""Graph structure on CUDA: edge list to CSR, transpose, validation, from the sorts that PyTorch has.

The same results and errors as csrc/cpu/csr_op.cpp: stable sorts and binary searches, deterministic. An error
names the first bad position, so these operators wait for the device; none belongs in a captured CUDA graph.
"""

import torch
from torch import Tensor

from amstel import _library  # noqa: F401  (the schemas)

_INDEX = {torch.int32: "Int", torch.int64: "Long"}
_FLOAT = {torch.float64: "Double", torch.float32: "Float", torch.bfloat16: "BFloat16", torch.float16: "Half"}
# As the stable ABI spells them in the errors of the other operators.
_NAMES = {
    **_INDEX, **_FLOAT, torch.uint8: "Byte", torch.int8: "Char", torch.int16: "Short", torch.bool: "Bool",
    torch.complex32: "ComplexHalf", torch.complex64: "ComplexFloat", torch.complex128: "ComplexDouble",
}  # fmt: skip


def _describe(t: Tensor) -> str:
    return f"{_NAMES.get(t.dtype, t.dtype)} {list(t.shape)} on {t.device.type}"


def _check(condition: bool, *message: object) -> None:
    if not condition:
        raise RuntimeError("".join(map(str, message)))


def _check_vector(op: str, like: Tensor, name: str, t: Tensor, size: int, dtype: torch.dtype) -> None:
    fits = t.dim() == 1 and t.shape[0] == size and t.dtype == dtype and t.is_contiguous()
    _check(
        fits, f"{op}: `{name}` must be a contiguous {_NAMES.get(dtype, dtype)} [{size}], got ", _describe(t)
    )
    _check(
        t.device == like.device,
        f"{op}: `{name}` must be on the same device as the others, got ",
        _describe(t),
    )


def _check_csr(op: str, crow: Tensor, col: Tensor, edge: Tensor | None) -> None:
    fits = crow.dim() == 1 and crow.shape[0] >= 1 and crow.is_contiguous() and crow.dtype in _INDEX
    _check(fits, f"{op}: `crow` must be a contiguous Int or Long [rows + 1], got ", _describe(crow))
    _check(col.dim() == 1, f"{op}: `col` must be [edges], got ", _describe(col))
    _check_vector(op, crow, "col", col, col.shape[0], crow.dtype)
    if edge is not None:
        _check_vector(op, crow, "edge", edge, col.shape[0], crow.dtype)


def _first(bad: Tensor) -> int:
    """The first true position, or -1."""
    return int(bad.nonzero()[0]) if bool(bad.any()) else -1


def _check_weight(op: str, like: Tensor, weight: Tensor | None, edges: int) -> None:
    if weight is None:
        return
    _check_vector(op, like, "weight", weight, edges, weight.dtype)
    _check(
        weight.dtype in _FLOAT,
        f"{op}: `weight` must be float64, float32, bfloat16 or float16, got ", _describe(weight),
    )  # fmt: skip
    position = _first(weight.isnan())
    _check(position < 0, f"{op}: `weight` must not be NaN, got NaN at position {position}")


def _sorted_csr(key: Tensor, keys: int) -> tuple[Tensor, Tensor]:
    """Row starts for keys in [0, keys), and the slots' edges: a stable sort, then a search for each row."""
    ordered, order = torch.sort(key, stable=True)
    starts = torch.arange(keys + 1, dtype=key.dtype, device=key.device)
    crow = torch.searchsorted(ordered, starts, out_int32=key.dtype == torch.int32)
    return crow, order


def csr_from_coo(
    row: Tensor, col: Tensor, num_rows: int, num_cols: int, weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    op = "csr_from_coo"
    fits = row.dim() == 1 and row.is_contiguous()
    _check(fits, f"{op}: `row` must be a contiguous [edges], got ", _describe(row))
    sizes = f"{num_rows} rows and {num_cols} columns"
    _check(num_rows >= 0 and num_cols >= 0, f"{op}: sizes must not be negative, got ", sizes)
    _check_vector(op, row, "col", col, row.shape[0], row.dtype)
    _check_weight(op, row, weight, row.shape[0])
    _check(row.dtype in _INDEX, f"{op}: `row` must be int32 or int64, got ", _describe(row))
    bad_row = (row < 0) | (row >= num_rows)
    k = _first(bad_row | (col < 0) | (col >= num_cols))
    if k >= 0:
        which, index, size = ("target", row, num_rows) if bad_row[k] else ("source", col, num_cols)
        raise RuntimeError(f"{which} index must be in [0, {size}), got {int(index[k])} at edge {k}")
    dtype = torch.int32 if max(row.shape[0], num_rows, num_cols) < 2**31 - 1 else torch.int64
    crow, edge = _sorted_csr(row.to(dtype), num_rows)
    return crow, col[edge].to(dtype), edge.to(dtype)


def csr_transpose(
    crow: Tensor, col: Tensor, edge: Tensor | None, num_cols: int
) -> tuple[Tensor, Tensor, Tensor]:
    op = "csr_transpose"
    _check_csr(op, crow, col, edge)
    edges = col.shape[0]
    end = int(crow[-1])
    _check(end == edges, f"{op}: `crow` must end at the number of edges, {edges}, got {end}")
    # The row of a slot is the number of rows that have ended at it.
    slots = torch.arange(edges, dtype=crow.dtype, device=crow.device)
    row = torch.searchsorted(crow[1:], slots, right=True, out_int32=crow.dtype == torch.int32)
    crow_t, order = _sorted_csr(col, num_cols)
    return crow_t, row[order], order.to(crow.dtype) if edge is None else edge[order]


def csr_check(crow: Tensor, col: Tensor, weight: Tensor | None, num_cols: int) -> None:
    op = "csr_check"
    _check_csr(op, crow, col, None)
    start, end, edges = int(crow[0]), int(crow[-1]), col.shape[0]
    _check(start == 0, f"indptr must start at 0, got {start}")
    i = _first(crow[1:] < crow[:-1])
    if i >= 0:
        raise RuntimeError(f"indptr must not decrease, got {int(crow[i])} and {int(crow[i + 1])} at row {i}")
    _check(end == edges, f"indptr must end at the number of edges, {edges}, got {end}")
    k = _first((col < 0) | (col >= num_cols))
    if k >= 0:
        raise RuntimeError(f"source index must be in [0, {num_cols}), got {int(col[k])} at edge {k}")
    _check_weight(op, crow, weight, edges)


for _function in (csr_from_coo, csr_transpose, csr_check):
    torch.library.impl(f"amstel::{_function.__name__}", "CUDA")(_function)
