"""The implementation of `amstel.ops.spmm`: the product by the operators, and its gradients of every order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from amstel import _checks
from amstel._derived import factors
from amstel.graph import Graph
from amstel.ops._raw import forward_mode, operators, plain_gradients, transformed

_ops = operators
_spmm = operators.spmm


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def scales_of(
    graph: Graph, dtype: torch.dtype, edge_weight: Tensor | None, norm: str, self_loops: float
) -> tuple[Tensor | None, Tensor | None]:
    if edge_weight is None or norm == "none":
        return graph._scales(norm, self_loops, sum_dtype(dtype))
    return factors(norm, lambda out: degree_of(graph, edge_weight, out) + self_loops)


def degree_of(graph: Graph, edge_weight: Tensor, out: bool) -> Tensor:
    crow, _, edge = graph._transpose() if out else (graph._crow, graph._col, graph._edge)
    return _ops.edge_sum(crow, edge, edge_weight.contiguous(), None)


def forward(
    graph: Graph,
    x: Tensor,
    edge_weight: Tensor | None,
    norm: str,
    self_loops: float,
    bias: Tensor | None,
    relu: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """y and the row and column factors that it used."""
    row_scale, col_scale = scales_of(graph, x.dtype, edge_weight, norm, self_loops)
    given = edge_weight is not None and _checks.enabled()
    weight, edge = edge_weight, graph._edge
    if edge_weight is not None:
        weight = edge_weight.contiguous()
    elif graph._weight is not None:
        weight, edge = graph._values(x.dtype), None
    bias = bias if bias is None else bias.contiguous()
    notes = None if edge_weight is None else _checks.watching(edge_weight)
    found = None if notes is None else notes.slots["edge_weight"]
    y = _spmm(
        graph._crow, graph._col, edge, weight, x, row_scale, col_scale, self_loops, bias, relu, given, found
    )
    if notes is not None:
        notes.post()
    return y, row_scale, col_scale


def prepare(graph: Graph, norm: str, self_loops: float, dtype: torch.dtype) -> None:
    """Have the graph keep whatever the product and its gradient will ask for."""
    graph._scales(norm, self_loops, sum_dtype(dtype))
    graph._transpose()
    if graph._weight is not None:
        graph._values(dtype), graph._values(dtype, transposed=True)


def factors_of(norm: str, degree: Any) -> tuple[Tensor | None, Tensor | None]:
    """`amstel._derived.factors` with derivatives that are finite where a degree is 0."""

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


class Spmm(torch.autograd.Function):
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
        y, row_scale, col_scale = forward(graph, x, edge_weight, norm, self_loops, bias, relu)
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
    def backward(ctx: Any, grad: Tensor) -> Any:
        weight, x = ctx.saved_tensors
        target, source = (x, grad) if ctx.out else (grad, x)
        grad_weight = _edge_dot(target, source, ctx.graph) if ctx.needs_input_grad[0] else None
        grad_x = product(weight, grad, ctx.graph, not ctx.out) if ctx.needs_input_grad[1] else None
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
    def backward(ctx: Any, grad: Tensor) -> Any:
        target, source = ctx.saved_tensors
        grad_target = product(grad, source, ctx.graph, False) if ctx.needs_input_grad[0] else None
        grad_source = product(grad, target, ctx.graph, True) if ctx.needs_input_grad[1] else None
        return grad_target, grad_source, None


def _product_jvp(ctx: Any, weight_t: Tensor, x_t: Tensor, *_: Any) -> Tensor:
    weight, x = ctx.saved_tensors
    rest = ctx.graph, ctx.out
    return product(weight_t, x, *rest) + product(weight, x_t, *rest)


def _edge_dot_jvp(ctx: Any, target_t: Tensor, source_t: Tensor, *_: Any) -> Tensor:
    target, source = ctx.saved_tensors
    return _edge_dot(target_t, source, ctx.graph) + _edge_dot(target, source_t, ctx.graph)


product = forward_mode(_Product, _product_jvp)
_edge_dot = forward_mode(_EdgeDot, _edge_dot_jvp)


def _differentiable_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    graph, dtype = ctx.graph, ctx.dtype
    wide = sum_dtype(dtype)  # a degree may be beyond what short types hold
    x, edge_weight, y, _, _ = ctx.saved_tensors
    need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
    if y is not None:
        grad = grad * (y > 0)
    grad_bias = grad.sum(tuple(range(grad.dim() - 1))) if need_bias else None

    def degree(weight: Tensor, out: bool) -> Tensor:
        ones = weight.new_ones(graph.num_rows if out else graph.num_cols, 1)
        return product(weight, ones, graph, out)[:, 0] + ctx.self_loops

    def apply(weight: Tensor, rows: Tensor, transposed: bool) -> Tensor:
        weight, rows = weight.to(wide), rows.to(wide)
        row_scale, col_scale = factors_of(ctx.norm, lambda out: degree(weight, out))
        if transposed:
            row_scale, col_scale = col_scale, row_scale
        scaled = rows if col_scale is None else rows * col_scale[:, None]
        y = product(weight, scaled, graph, transposed)
        if ctx.self_loops != 0:
            y = y + ctx.self_loops * scaled
        return (y if row_scale is None else y * row_scale[:, None]).to(dtype)

    if need_weight:
        # The whole product again, so that the degrees take part.
        whole = lambda x, weight: (apply(weight, x, False),)  # noqa: E731
        return *plain_gradients(whole, (x, edge_weight), (need_x, True), (grad,)), grad_bias
    if not need_x:
        return None, None, grad_bias
    weight = edge_weight
    if weight is None:
        weight = grad.new_ones(graph.num_edges) if graph._weight is None else graph._weight.to(dtype)
    with torch.enable_grad():
        return apply(weight, grad, True), None, grad_bias
