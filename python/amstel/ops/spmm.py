"""Normalized-adjacency sparse-dense product: the public function, its gradients, its fake kernels."""

import math
from typing import Any

import torch
from torch import Tensor

from amstel import _check
from amstel._derived import factors
from amstel.graph import Graph
from amstel.ops._raw import batched, dispatched, operators, transformed

NORMS = ("sym", "row", "sym_inout", "none")

_ops = operators
_spmm = operators.spmm


def spmm(
    graph: Graph,
    x: Tensor,
    edge_weight: Tensor | None = None,
    *,
    norm: str = "sym",
    self_loops: float = 1.0,
    bias: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    r"""Propagate node features over a graph: ``y = act(R (A + λ I) C x + bias)`` in one pass.

    A[i, j] is the sum of the weights of the edges from source j to target i, and the diagonal factors
    R (targets) and C (sources) come from the degrees d of A + λI:

    ============  =====================  =====================
    norm          R                      C
    ============  =====================  =====================
    "sym"         d_in^-1/2              d_in^-1/2
    "row"         d_in^-1                1
    "sym_inout"   d_in^-1/2              d_out^-1/2
    "none"        1                      1
    ============  =====================  =====================

    A degree <= 0 gives the factor 0. On a directed graph "sym" takes the in-degree on both sides, as
    PyTorch Geometric does, and "sym_inout" both degrees, as DGL does.

    Args:
        graph: a `Graph` of E edges; reuse one object over layers and epochs.
        x: [N, F] or [B, N, F], float64, float32, bfloat16 or float16, on the graph's device, any
            strides. bfloat16 and float16 are summed in float32. Under autocast, x, edge_weight and bias
            are cast to its dtype.
        edge_weight: [E] in the order in which the edges were given, dtype of x; replaces the graph's
            own weights for this call. NaN raises. Degrees are sums of the weights as they were given; own
            weights that float16 does not hold, and wider weights under autocast, make a product in float32.
        norm: one of the table above.
        self_loops: λ, the weight of the loops added to whatever loops there are; 0 adds none.
        bias: [F], dtype of x.
        activation: None or "relu".

    Returns:
        y: [N, F] or [B, N, F], contiguous, dtype of x.

    Differentiable in x, edge_weight (through the degrees too) and bias, any number of times. The result
    and the first gradients are bit-identical from run to run and for any number of threads.

    Raises:
        ValueError or TypeError: an argument is not as described. A rectangular graph takes only
            norm "none" or "row", with self_loops=0.

    Complexity: O((E + N) F) operations; no buffer of E elements, none of E F. The gradient saves x only
    for edge_weight and y only for the ReLU.

    Source: T. N. Kipf and M. Welling, Semi-Supervised Classification with Graph Convolutional Networks,
    ICLR 2017, equation 2 and section 2.2.

    Example:
        >>> graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
        >>> amstel.ops.spmm(graph, torch.eye(3), norm="row")
        tensor([[0.5000, 0.5000, 0.0000],
                [0.3333, 0.3333, 0.3333],
                [0.0000, 0.5000, 0.5000]])
    """
    if not isinstance(graph, Graph):
        if hasattr(graph, "spmm"):  # amstel.distributed.DistributedGraph
            return graph.spmm(
                x, edge_weight, norm=norm, self_loops=self_loops, bias=bias, activation=activation
            )
        raise TypeError(f"`graph` must be an amstel.Graph, got {_check.describe(graph)}")
    _check.tensor("x", x, "a tensor [N, F] or [B, N, F]")
    dtype, wide = x.dtype, False
    if torch.is_autocast_enabled(graph._device.type) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(x.device.type)
        for name, value in (("edge_weight", edge_weight), ("bias", bias)):
            if value is not None:
                _check.tensor(name, value, "a tensor")
        wide = edge_weight is not None and edge_weight.dtype != dtype
        if not wide:
            x = x.to(dtype)
            bias = bias if bias is None else bias.to(dtype)
    if wide or (dtype == torch.float16 and edge_weight is None and not graph._fits_half()):
        # Rounded to a short type before they are summed and normalized, weights would be others, or infinite.
        with torch.autocast(x.device.type, enabled=False):
            floats = (t if t is None else t.float() for t in (edge_weight, bias))
            weight, bias = floats
            y = spmm(
                graph, x.float(), weight, norm=norm, self_loops=self_loops, bias=bias, activation=activation
            )
        return y.to(dtype)
    self_loops = _check_arguments(graph, x, edge_weight, norm, self_loops, bias, activation)
    relu = activation == "relu"
    if edge_weight is None:
        return _run(graph, x, None, norm, self_loops, bias, relu)
    try:
        return _run(graph, x, edge_weight, norm, self_loops, bias, relu)
    except RuntimeError as error:  # the CPU operator looks for NaN as it goes
        raise _check.found_by_kernel(error, weight="edge_weight") from None


def _run(
    graph: Graph,
    x: Tensor,
    edge_weight: Tensor | None,
    norm: str,
    self_loops: float,
    bias: Tensor | None,
    relu: bool,
) -> Tensor:
    if dispatched():
        return _transformed(graph, x, edge_weight, norm, self_loops, bias, relu)
    if torch.is_grad_enabled() and (
        x.requires_grad
        or (edge_weight is not None and edge_weight.requires_grad)
        or (bias is not None and bias.requires_grad)
    ):
        # Here and not inside, where a tracer allows no change of the Graph.
        _prepare(graph, norm, self_loops, x.dtype)
        return _Spmm.apply(x, edge_weight, bias, graph, norm, self_loops, relu)
    return _forward(graph, x, edge_weight, norm, self_loops, bias, relu)[0]


def _check_arguments(
    graph: Graph,
    x: Tensor,
    edge_weight: Tensor | None,
    norm: str,
    self_loops: float,
    bias: Tensor | None,
    activation: str | None,
) -> float:
    """Checks everything but the values; returns λ as a Python number."""
    if x.dtype not in _check.FLOATS or x.layout != torch.strided:
        _check.fail("x", "a dense float64, float32, bfloat16 or float16 tensor", x)
    shape, columns = x.shape, graph._num_cols
    if not 2 <= len(shape) <= 3 or shape[-2] != columns:
        _check.fail("x", f"[{columns}, F] or [B, {columns}, F] for {graph!r}", x)
    if x.device != graph._device:
        _check.fail("x", f"on {graph._device} like the graph", x)
    if type(norm) is not str or norm not in NORMS:
        _check.choice("norm", norm, NORMS)
    if activation is not None and not (type(activation) is str and activation == "relu"):
        _check.choice("activation", activation, (None, "relu"))
    if type(self_loops) is not float or not abs(self_loops) < math.inf:
        self_loops = _check.number("self_loops", self_loops)
    if not graph._is_square and (norm not in ("none", "row") or self_loops != 0):
        raise ValueError(
            f"a rectangular graph takes `norm` 'none' or 'row' with `self_loops` 0, "
            f"got norm={norm!r}, self_loops={self_loops} for {graph!r}"
        )
    if edge_weight is not None:
        _check.vector("edge_weight", edge_weight, graph.num_edges, x)
        if edge_weight.is_cuda and not torch.compiler.is_compiling():
            # The CPU operator looks as it goes; here a look costs a synchronization, never under capture.
            hidden = torch.cuda.is_current_stream_capturing() or batched(edge_weight)
            if not hidden and bool(edge_weight.isnan().any()):
                raise ValueError(
                    f"`edge_weight` must not be NaN, got NaN at position {int(edge_weight.isnan().nonzero()[0])}"
                )
    if bias is not None:
        _check.vector("bias", bias, shape[-1], x)
    return self_loops


def _sum_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _scales(
    graph: Graph, dtype: torch.dtype, edge_weight: Tensor | None, norm: str, self_loops: float
) -> tuple[Tensor | None, Tensor | None]:
    if edge_weight is None or norm == "none":
        return graph._scales(norm, self_loops, _sum_dtype(dtype))
    return factors(norm, lambda out: _degree(graph, edge_weight, out) + self_loops)


def _degree(graph: Graph, edge_weight: Tensor, out: bool) -> Tensor:
    crow, _, edge = graph._transpose() if out else (graph._crow, graph._col, graph._edge)
    return _ops.edge_sum(crow, edge, edge_weight.contiguous(), None)


def _forward(
    graph: Graph,
    x: Tensor,
    edge_weight: Tensor | None,
    norm: str,
    self_loops: float,
    bias: Tensor | None,
    relu: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """y and the row and column factors that it used."""
    row_scale, col_scale = _scales(graph, x.dtype, edge_weight, norm, self_loops)
    given = edge_weight is not None
    weight, edge = edge_weight, graph._edge
    if edge_weight is not None:
        weight = edge_weight.contiguous()
    elif graph._weight is not None:
        weight, edge = graph._values(x.dtype), None
    bias = bias if bias is None else bias.contiguous()
    y = _spmm(graph._crow, graph._col, edge, weight, x, row_scale, col_scale, self_loops, bias, relu, given)
    return y, row_scale, col_scale


def _prepare(graph: Graph, norm: str, self_loops: float, dtype: torch.dtype) -> None:
    """Have the graph keep whatever the product and its gradient will ask for."""
    graph._scales(norm, self_loops, _sum_dtype(dtype))
    graph._transpose()
    if graph._weight is not None:
        graph._values(dtype), graph._values(dtype, transposed=True)


def _transformed(
    graph: Graph,
    x: Tensor,
    edge_weight: Tensor | None,
    norm: str,
    self_loops: float,
    bias: Tensor | None,
    relu: bool,
) -> Tensor:
    """The same of operators that have every derivative."""
    dtype = _sum_dtype(x.dtype)
    if not torch.compiler.is_compiling():
        # What the graph keeps belongs to no transform.
        with torch._C._DisableFuncTorch(), torch.no_grad():
            _prepare(graph, norm, self_loops, x.dtype)
    if edge_weight is None:
        row_scale, col_scale = graph._scales(norm, self_loops, dtype)
        weight = None if graph._weight is None else graph._values(x.dtype)
        return _spmm(
            graph._crow, graph._col, graph._edge if weight is None else None, weight, x, row_scale, col_scale,
            self_loops, bias, relu, False,
        )  # fmt: skip
    row_scale, col_scale = _factors(norm, lambda out: _degree(graph, edge_weight, out) + self_loops)
    return _spmm(
        graph._crow, graph._col, graph._edge, edge_weight.contiguous(), x, row_scale, col_scale, self_loops, bias, relu, True
    )  # fmt: skip


def _factors(norm: str, degree: Any) -> tuple[Tensor | None, Tensor | None]:
    """`amstel.graph.factors` with derivatives that are finite where a degree is 0."""

    def power(degree: Tensor, root: bool) -> Tensor:
        on = degree > 0
        safe = torch.where(on, degree, 1)
        return torch.where(on, (safe.sqrt() if root else safe).reciprocal(), 0)

    if norm == "none":
        return None, None
    if norm == "row":
        return power(degree(False), False), None
    row = power(degree(False), True)
    return row, row if norm == "sym" else power(degree(True), True)


class _Spmm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        edge_weight: Any,
        bias: Any,
        graph: Graph,
        norm: str,
        self_loops: float,
        relu: bool,
    ) -> Tensor:
        y, row_scale, col_scale = _forward(graph, x, edge_weight, norm, self_loops, bias, relu)
        ctx.graph, ctx.norm, ctx.self_loops, ctx.relu = graph, norm, self_loops, relu
        ctx.dtype = x.dtype
        # x is needed for the weights alone, y for the activation alone.
        ctx.save_for_backward(
            x if ctx.needs_input_grad[1] else None, edge_weight, y if relu else None, row_scale, col_scale
        )
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, edge_weight, y, row_scale, col_scale = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        graph, self_loops = ctx.graph, ctx.self_loops
        if torch.is_grad_enabled() or transformed():
            return *_differentiable_backward(ctx, grad), None, None, None, None
        grad_x = grad_weight = grad_bias = None
        if need_bias or y is not None:
            masked, grad_bias = _ops.epilogue_grad(grad, y)
            grad = grad if y is None else masked
        if need_weight:
            grad_x, grad_weight = _weight_grad(
                graph, edge_weight, grad, x, row_scale, col_scale, ctx.norm, self_loops, need_x
            )
        elif need_x:
            crow, col, edge = graph._transpose()
            weight = edge_weight
            if edge_weight is not None:
                weight = edge_weight.contiguous()
            elif graph._weight is not None:
                weight, edge = graph._values(ctx.dtype, transposed=True), None
            grad_x = _spmm(
                crow, col, edge, weight, grad, col_scale, row_scale, self_loops, None, False, False
            )
        return (
            grad_x if need_x else None,
            grad_weight,
            grad_bias if need_bias else None,
            None,
            None,
            None,
            None,
        )


def _weight_grad(
    graph: Graph,
    edge_weight: Tensor,
    grad: Tensor,
    x: Tensor,
    row_scale: Tensor | None,
    col_scale: Tensor | None,
    norm: str,
    self_loops: float,
    need_x: bool,
) -> tuple[Tensor | None, Tensor]:
    """Gradients to x and, through the product and through the degrees, to edge_weight.

    With y = R z and z = (A + λI) C x, a factor f = d^-p has d f / d d = -p f / d, so that a degree
    collects -p / d times <grad_i, y_i> where it scales a row and <x_j, grad_x_j> where a column.
    """
    crow_t, col_t, edge_t = graph._transpose()
    weight = edge_weight.contiguous()
    grad_x, raw, by_col, loop = _ops.spmm_grad(
        crow_t, col_t, edge_t, weight, grad, x, row_scale, col_scale, self_loops, need_x
    )
    if norm == "none":
        return grad_x, raw.to(weight.dtype)
    by_row = _ops.edge_sum(graph._crow, graph._edge, weight, raw)
    if self_loops != 0:
        by_row = by_row + loop
    # 1 / d from the factor itself: it is 0 where the degree was not positive.
    assert row_scale is not None
    row_term, col_term = None, None
    if norm == "row":
        row_term = -by_row * row_scale
    elif norm == "sym":
        row_term = -0.5 * (by_row + by_col) * row_scale.square()
    else:
        assert col_scale is not None
        row_term = -0.5 * by_row * row_scale.square()
        col_term = -0.5 * by_col * col_scale.square()
    grad_weight = _ops.edge_add(graph._crow, graph._col, graph._edge, raw, row_term, col_term, weight.dtype)
    return grad_x, grad_weight


# Higher derivatives. A first gradient that is itself differentiated is composed of two operations
# which are each other's derivatives: the plain product and the inner products along the edges.


class _Product(torch.autograd.Function):
    """y[i] = sum over the edges j -> i of weight * x[j] (j -> i reversed with `out`)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, x: Tensor, graph: Graph, out: bool) -> Tensor:
        crow, col, edge = graph._transpose() if out else (graph._crow, graph._col, graph._edge)
        return _spmm(crow, col, edge, weight.contiguous(), x, None, None, 0.0, None, False, False)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.save_for_forward(*inputs[:2])
        ctx.graph, ctx.out = inputs[2:]

    @staticmethod
    def jvp(ctx: Any, weight_t: Tensor, x_t: Tensor, *_: Any) -> Tensor:
        weight, x = ctx.saved_tensors
        rest = ctx.graph, ctx.out
        return _Product.apply(weight_t, x, *rest) + _Product.apply(weight, x_t, *rest)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        weight, x = ctx.saved_tensors
        target, source = (x, grad) if ctx.out else (grad, x)
        grad_weight = _EdgeDot.apply(target, source, ctx.graph) if ctx.needs_input_grad[0] else None
        grad_x = _Product.apply(weight, grad, ctx.graph, not ctx.out) if ctx.needs_input_grad[1] else None
        return grad_weight, grad_x, None, None


class _EdgeDot(torch.autograd.Function):
    """<target[i], source[j]> for every edge j -> i, in the order in which the edges were given."""

    generate_vmap_rule = True

    @staticmethod
    def forward(target: Tensor, source: Tensor, graph: Graph) -> Tensor:
        dots = _ops.spmm_grad(*graph._transpose(), None, target, source, None, None, 0.0, False)[1]
        return dots.to(source.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.save_for_forward(*inputs[:2])
        ctx.graph = inputs[2]

    @staticmethod
    def jvp(ctx: Any, target_t: Tensor, source_t: Tensor, *_: Any) -> Tensor:
        target, source = ctx.saved_tensors
        return _EdgeDot.apply(target_t, source, ctx.graph) + _EdgeDot.apply(target, source_t, ctx.graph)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        target, source = ctx.saved_tensors
        grad_target = _Product.apply(grad, source, ctx.graph, False) if ctx.needs_input_grad[0] else None
        grad_source = _Product.apply(grad, target, ctx.graph, True) if ctx.needs_input_grad[1] else None
        return grad_target, grad_source, None


def _differentiable_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    graph, dtype = ctx.graph, ctx.dtype
    x, edge_weight, y, _, _ = ctx.saved_tensors
    need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
    if y is not None:
        grad = grad * (y > 0)
    grad_bias = grad.sum(tuple(range(grad.dim() - 1))) if need_bias else None
    weight = edge_weight
    if weight is None:
        weight = grad.new_ones(graph.num_edges) if graph._weight is None else graph._weight.to(dtype)

    def degree(out: bool) -> Tensor:
        ones = weight.new_ones(graph.num_rows if out else graph.num_cols, 1)
        return _Product.apply(weight, ones, graph, out)[:, 0] + ctx.self_loops

    def apply(weight: Tensor, rows: Tensor, out: bool, row_scale: Any, col_scale: Any) -> Tensor:
        scaled = rows if col_scale is None else rows * col_scale[:, None]
        product = _Product.apply(weight, scaled, graph, out)
        if ctx.self_loops != 0:
            product = product + ctx.self_loops * scaled
        return product if row_scale is None else product * row_scale[:, None]

    grad_x = grad_weight = None
    with torch.enable_grad():
        if need_weight:
            # The whole product again, so that the degrees take part.
            row_scale, col_scale = _factors(ctx.norm, degree)
            product = apply(weight, x, False, row_scale, col_scale)
            inputs = [edge_weight, x] if need_x else [edge_weight]
            grad_weight, *rest = torch.autograd.grad(product, inputs, grad, create_graph=True)
            grad_x = rest[0] if need_x else None
        elif need_x:
            row_scale, col_scale = _factors(ctx.norm, degree)
            grad_x = apply(weight, grad, True, col_scale, row_scale)
    return grad_x, grad_weight, grad_bias


# Shapes and dtypes for torch.compile and torch.export.


def _index_dtype(*sizes: int) -> torch.dtype:
    return torch.int32 if max(sizes) < 2**31 - 1 else torch.int64


@torch.library.register_fake("amstel::csr_from_coo")
def _(row: Tensor, col: Tensor, num_rows: int, num_cols: int, weight: Any) -> Any:
    edges = row.shape[0]
    dtype = _index_dtype(edges, num_rows, num_cols)
    return tuple(row.new_empty(n, dtype=dtype) for n in (num_rows + 1, edges, edges))


@torch.library.register_fake("amstel::csr_transpose")
def _(crow: Tensor, col: Tensor, edge: Any, num_cols: int) -> Any:
    return crow.new_empty(num_cols + 1), torch.empty_like(col), torch.empty_like(col)


@torch.library.register_fake("amstel::csr_check")
def _(crow: Tensor, col: Tensor, weight: Any, num_cols: int) -> None:
    return None


@torch.library.register_fake("amstel::edge_sum")
def _(crow: Tensor, edge: Any, a: Tensor, b: Any) -> Tensor:
    return a.new_empty(crow.shape[0] - 1, dtype=_sum_dtype(a.dtype))


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
) -> Tensor:
    return x.new_empty(*x.shape[:-2], crow.shape[0] - 1, x.shape[-1])


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
    dtype, rows = _sum_dtype(grad.dtype), crow_t.shape[0] - 1
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
