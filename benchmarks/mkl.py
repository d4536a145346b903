"""MKL's inspector-executor product of a CSR matrix: the matrix is inspected once and then multiplied many times.

torch's own `A @ x` calls MKL without the inspection. Needs the package `mkl` (extra bench) on x86-64.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
from functools import cache
from pathlib import Path

import torch

ROW_MAJOR, NON_TRANSPOSE, GENERAL, NON_UNIT = 101, 10, 20, 50


class Description(ctypes.Structure):
    """matrix_descr: type, fill mode, diagonal."""

    _fields_ = [("type", ctypes.c_int), ("mode", ctypes.c_int), ("diag", ctypes.c_int)]


@cache
def library() -> ctypes.CDLL | None:
    try:
        files = importlib.metadata.files("mkl") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [Path(str(f.locate())).resolve() for f in files if f.name.startswith("libmkl_rt.so")]
    if not found:
        return None
    lib = ctypes.CDLL(str(found[0]))
    lib.MKL_Set_Threading_Layer(3)  # GNU OpenMP, as torch's
    lib.MKL_Set_Interface_Layer(0)  # 32-bit integers
    return lib


def available() -> bool:
    return library() is not None


class Product:
    """y = A x, float32, for a CSR matrix with int32 indices; `columns` of x are hinted to the inspection."""

    def __init__(self, crow: torch.Tensor, col: torch.Tensor, values: torch.Tensor, columns: int):
        lib = library()
        assert lib is not None and values.dtype == torch.float32
        self.lib, self.kept = lib, (crow.int().contiguous(), col.int().contiguous(), values.contiguous())
        crow, col, values = self.kept
        self.rows = crow.numel() - 1
        self.handle = ctypes.c_void_p()
        self.description = Description(GENERAL, 121, NON_UNIT)
        self.check(
            lib.mkl_sparse_s_create_csr(
                ctypes.byref(self.handle), 0, self.rows, self.rows, self.at(crow), self.at(crow[1:]),
                self.at(col), self.at(values),
            )
        )  # fmt: skip
        self.check(
            lib.mkl_sparse_set_mm_hint(
                self.handle, NON_TRANSPOSE, self.description, ROW_MAJOR, columns, 100_000
            )
        )
        self.check(lib.mkl_sparse_optimize(self.handle))

    @staticmethod
    def at(t: torch.Tensor) -> ctypes.c_void_p:
        return ctypes.c_void_p(t.data_ptr())

    @staticmethod
    def check(status: int) -> None:
        if status != 0:
            raise RuntimeError(f"MKL returned status {status}")

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.empty(self.rows, x.shape[1])
        self.lib.MKL_Set_Num_Threads_Local(torch.get_num_threads())
        self.check(
            self.lib.mkl_sparse_s_mm(
                NON_TRANSPOSE, ctypes.c_float(1), self.handle, self.description, ROW_MAJOR, self.at(x),
                x.shape[1], x.shape[1], ctypes.c_float(0), self.at(y), x.shape[1],
            )
        )  # fmt: skip
        return y

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self.lib.mkl_sparse_destroy(self.handle)
