"""What a Graph derives from its CSR arrays (the transpose, degrees, factors), and checks of its inputs.

Derived tensors are kept with the Graph and must be plain ones: made under inference mode, inside torch.func or by a
tracer they would poison whatever runs later. `plainly` makes them outside of all that.
"""

from __future__ import annotations

import contextlib
import math
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from amstel import _check, _checks, _library
from amstel._words import counted

Csr = tuple[Tensor, Tensor, Tensor]

#: How many results of one kind (factors of a norm, λ and dtype, say) a Graph keeps.
KEPT = 8


def keep(store: dict[Any, Any], key: Any, value: Any, limit: int = KEPT) -> Any:
    """Remember `value`; the oldest go when there are more than `limit`. Several threads may do so at once: a list of the
    keys is made in one step, and whoever comes second finds nothing to remove."""
    store[key] = value
    for old in list(store)[:-limit]:
        store.pop(old, None)
    return value


# ---- Outside of modes and transforms ----


def is_plain(*values: Tensor | None) -> bool:
    """Whether all may be kept: not the stand-ins of a tracer (torch.export), nor torch.func's wrappers."""
    return all(
        value is None
        or (type(value) is Tensor and not torch._C._functorch.is_functorch_wrapped_tensor(value))
        for value in values
    )


def plainly(make: Callable[[], Any]) -> Any:
    """make(), in no inference mode and in no transform of torch.func; what it uses must not require a gradient."""
    if torch._C._functorch.peek_interpreter_stack() is not None:
        from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

        with temporarily_clear_interpreter_stack():
            return plainly(make)
    if torch.is_inference_mode_enabled():
        with torch.inference_mode(False):
            return make()
    return make()


def checked(make: Callable[[], Any], **arrays: Tensor) -> Any:
    """What is made of arrays that vmap must not have batched; a compiler traces it."""
    if torch.compiler.is_compiling():
        return make()
    _check.unbatched(**arrays)
    return plainly(make)


def untraced(*arrays: Tensor | None) -> Any:
    """Where what is made of these arrays is made at once and not by the program that a tracer writes: of a Graph that is
    a constant of the program so is what is derived, which costs no time in it and needs no ONNX."""
    if not has_modes() or not is_plain(*arrays):
        return contextlib.nullcontext()
    return _disable_current_modes()


def has_modes() -> bool:
    """Whether any mode is on; to leave modes takes as long as a small product, even where there are none."""
    return bool(torch._C._len_torch_dispatch_stack() or torch._ops._len_torch_dispatch_stack_pre_dispatch())


def copy_of(private: Tensor) -> Tensor:
    """A copy for users, each time a new one: writing to a copy (by NumPy, say) leaves no mark that another could go by."""
    if torch.compiler.is_compiling() or not is_plain(private):
        return private.clone()
    return plainly(private.clone)


# ---- Checks ----


def _as_value_error(run: Callable[..., Any], *arguments: Any) -> Any:
    """Errors of the structure operators, which name the first bad position, as ValueErrors; memory as itself."""
    try:
        if torch.compiler.is_compiling():
            return run(*arguments)
        with torch._C._AutoDispatchBelowAutograd():  # indices have no gradient, and its rules cost time
            return run(*arguments)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, OverflowError) as error:
        for name, size in zip(("num_nodes", "num_cols"), arguments[2:4], strict=True):
            if isinstance(size, int) and size >= 2**63:
                _check.fail(name, "a number of 64 bits", size)
        raise ValueError(f"Graph: {error}") from None


def csr_from_coo(row: Tensor, col: Tensor, rows: int, cols: int, weight: Tensor | None) -> Csr:
    return _as_value_error(_library.operators.csr_from_coo, row, col, rows, cols, weight)


def csr_check(crow: Tensor, col: Tensor, weight: Tensor | None, cols: int) -> None:
    _as_value_error(_library.operators.csr_check, crow, col, weight, cols)


def check_parts(crow: Any, col: Any, edge: Any, weight: Any, num_cols: Any) -> int:
    """Everything that the kernels rely on, in O(E); returns num_cols. With `python -O` too."""
    for name, value in (("crow", crow), ("col", col), *([] if edge is None else [("edge", edge)])):
        _check.tensor(name, value, "a vector of int32 or int64")
        if value.dim() != 1 or value.dtype not in (torch.int32, torch.int64) or value.layout != torch.strided:
            _check.fail(name, "a vector of int32 or int64", value)
        if value.dtype != crow.dtype or value.device != crow.device or not value.is_contiguous():
            _check.fail(name, f"a contiguous {crow.dtype} vector on {crow.device} like crow", value)
    if crow.numel() == 0:
        _check.fail("crow", "[rows + 1], at least [0]", crow)
    if edge is not None and edge.shape != col.shape:
        _check.fail("edge", f"[{col.numel()}] like col", edge)
    num_cols = _check.integer("num_cols", num_cols, 0)
    if weight is not None:
        _check.tensor("weight", weight, "a floating-point tensor")
        own_weight("weight", weight, col.numel(), crow.device)
    if crow.device.type == "meta":
        return num_cols
    csr_check(crow, col, None if weight is None else weight.detach().contiguous(), num_cols)
    if edge is not None and edge.numel():
        if not 0 <= int(edge.min()) <= int(edge.max()) < edge.numel():
            raise ValueError(
                f"Graph: `edge` must number the {counted(edge.numel(), 'edge')}, got one out of range"
            )
        if int(torch.bincount(edge, minlength=edge.numel()).max()) != 1:
            raise ValueError(
                f"Graph: `edge` must number the {counted(edge.numel(), 'edge')}, got one of them twice"
            )
    return num_cols


def own_weight(name: str, weight: Any, edges: int, device: torch.device) -> Tensor | None:
    """A private copy of the weights that a Graph is given. One that learns belongs into the call instead."""
    if weight is None:
        return None
    if not isinstance(weight, Tensor):
        weight = as_tensor(name, weight)
    if (
        weight.shape != (edges,)
        or weight.dtype not in _check.FLOATS
        or weight.device != device
        or weight.layout != torch.strided
    ):
        _check.fail(name, f"a floating-point tensor [{edges}] on {device}", weight)
    learns = weight.requires_grad and torch.is_grad_enabled()
    if learns or torch._C._functorch.is_functorch_wrapped_tensor(weight):
        raise ValueError(
            f"`{name}` of a Graph is constant, got one that requires a gradient: pass it to the call "
            "(spmm(graph, x, edge_weight) or layer(x, graph, edge_weight)), or detach it"
        )
    return weight.detach().clone(memory_format=torch.contiguous_format)


def as_tensor(name: str, value: Any) -> Tensor:
    """A tensor of an array or a list; anything that is none is a TypeError."""
    if isinstance(value, (list, tuple)) and any(isinstance(one, bool) for one in value):
        _check.fail_type(name, "a tensor or an array of numbers", value)
    _check.unmasked(name, value)
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(
            f"`{name}` must be a tensor or an array of numbers, got {_check.describe(value)}: {error}"
        ) from None


# ---- Factors of a normalization ----


def _inverse(degree: Tensor, root: bool) -> Tensor:
    """1 / degree or, `root`, 1 / sqrt(degree) where degree > 0, else 0."""
    degree = degree.masked_fill((degree > 0).logical_not_(), math.inf)
    return (degree.sqrt() if root else degree).reciprocal()


def factors(norm: str, degree: Any) -> tuple[Tensor | None, Tensor | None]:
    """Row and column factors of a normalization from `degree(out)`; degree <= 0 gives 0.

    Square root and division are exactly rounded, so the bits never depend on the number of threads.
    """
    if norm == "none":
        return None, None
    row = _inverse(degree(False), root=norm != "row")
    if norm == "row":
        return row, None
    return row, row if norm == "sym" else _inverse(degree(True), root=True)


# ---- The transpose, eager and under torch.compile ----


class Transpose:
    """The transpose of a CSR structure, sorted at the first use and kept; copies of a Graph share it.

    The storage of `crow` knows it by a weak reference, which is how a compiled program finds it: that holds no state
    of a Graph and need not be compiled again for one that was used before or was not. Whoever follows the reference
    compares the arrays, not their addresses: they are the ones of a live Graph, which nobody changes.
    """

    def __init__(self, crow: Tensor, col: Tensor, edge: Tensor | None, num_cols: int):
        self.arrays = crow, col, edge, num_cols
        self.csr: Csr | None = None
        if not torch.compiler.is_compiling() and type(crow) is Tensor and crow.device.type != "meta":
            crow.untyped_storage()._amstel_transpose = weakref.ref(self)  # type: ignore[attr-defined]

    def get(self) -> Csr:
        """crow, col and edge of the transposed matrix; a symmetric matrix shares its own crow and col."""
        if self.csr is not None:
            return self.csr
        crow, col, edge, _ = self.arrays
        with untraced(crow, col, edge):
            crow_t, col_t, edge_t = plainly(lambda: _library.operators.csr_transpose(*self.arrays))
            if crow_t.shape == crow.shape and is_plain(crow, crow_t) and not _checks.hidden(crow):
                if torch.equal(crow_t, crow) and torch.equal(col_t, col):
                    crow_t, col_t = crow, col
        made = crow_t, col_t, edge_t
        if is_plain(*made):
            self.csr = made
        return made


def _found(crow: Tensor, col: Tensor, edge: Tensor | None, num_cols: int) -> Transpose | None:
    """What is kept for exactly these arrays."""
    reference = getattr(crow.untyped_storage(), "_amstel_transpose", None)
    kept = None if reference is None else reference()
    if kept is None:
        return None
    own_crow, own_col, own_edge, own_cols = kept.arrays
    same = own_crow.is_set_to(crow) and own_col.is_set_to(col) and own_cols == num_cols
    if own_edge is None or edge is None:
        return kept if same and own_edge is edge else None
    return kept if same and own_edge.is_set_to(edge) else None


@torch.library.custom_op(
    "amstel::graph_transpose",
    mutates_args=(),
    schema="(Tensor crow, Tensor col, Tensor? edge, SymInt num_cols) -> (Tensor, Tensor, Tensor)",
)
def graph_transpose(crow: Tensor, col: Tensor, edge: Tensor | None, num_cols: int) -> Csr:
    """csr_transpose as a copy of what the Graph of these arrays keeps; sorts only once a Graph."""
    kept = _found(crow, col, edge, num_cols)
    if kept is None:
        return _library.operators.csr_transpose(crow, col, edge, num_cols)
    return tuple(t.clone() for t in kept.get())  # type: ignore[return-value]


@graph_transpose.register_fake
def _(crow: Tensor, col: Tensor, edge: Any, num_cols: int) -> Csr:
    return crow.new_empty(num_cols + 1), torch.empty_like(col), torch.empty_like(col)
