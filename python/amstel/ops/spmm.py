"""Normalized-adjacency sparse-dense product: the public function, its checks, and who computes it."""

import math

import torch
from torch import Tensor

from amstel import _check
from amstel.graph import Graph
from amstel.ops import _csr_fake  # noqa: F401
from amstel.ops._raw import batched, dispatched, operators
from amstel.ops._spmm import Spmm, degree_of, factors_of, forward, prepare, sum_dtype

NORMS = ("sym", "row", "sym_inout", "none")

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
        prepare(graph, norm, self_loops, x.dtype)
        return Spmm.apply(x, edge_weight, bias, graph, norm, self_loops, relu)
    return forward(graph, x, edge_weight, norm, self_loops, bias, relu)[0]


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
    dtype = sum_dtype(x.dtype)
    if not torch.compiler.is_compiling():
        # What the graph keeps belongs to no transform.
        with torch._C._DisableFuncTorch(), torch.no_grad():
            prepare(graph, norm, self_loops, x.dtype)
    if edge_weight is None:
        row_scale, col_scale = graph._scales(norm, self_loops, dtype)
        weight = None if graph._weight is None else graph._values(x.dtype)
        return _spmm(
            graph._crow, graph._col, graph._edge if weight is None else None, weight, x, row_scale, col_scale,
            self_loops, bias, relu, False,
        )  # fmt: skip
    row_scale, col_scale = factors_of(norm, lambda out: degree_of(graph, edge_weight, out) + self_loops)
    return _spmm(
        graph._crow, graph._col, graph._edge, edge_weight.contiguous(), x, row_scale, col_scale, self_loops, bias, relu, True
    )  # fmt: skip
