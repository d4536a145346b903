"""Normalized-adjacency sparse-dense product: the public function, its checks, and the choice of implementation."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from amstel import _check, _checks
from amstel._derived import has_modes, is_plain, keep
from amstel._torch import autocast_dtype, cast, without_autocast
from amstel.graph import Graph
from amstel.ops import _csr_fake, _sampled  # noqa: F401
from amstel.ops._raw import dispatched, nobody_looks, operators, refuse_lost_graphs, unseen_operators
from amstel.ops._spmm import Spmm, degree_of, factors_of, forward, prepare, product, sum_dtype

NORMS = ("sym", "row", "sym_inout", "none")

_strided = torch.strided
_below_autograd = torch._C._AutoDispatchBelowAutograd
_spmm, _keep = operators.spmm, unseen_operators.spmm_keep
_kept = torch.ops.amstel.spmm_kept.default._op  # a call less than that of the operator itself


def spmm(
    graph: Graph,
    x: Tensor | tuple[Tensor, Tensor | None],
    edge_weight: Tensor | None = None,
    *,
    norm: str = "sym",
    self_loops: float | Tensor = 1.0,
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

    A degree that is not positive gives the factor 0. On a directed graph, "sym" uses the in-degree on both sides, as
    PyTorch Geometric does, and "sym_inout" uses both degrees, as DGL does. On a rectangular graph, whose sources and
    targets are different nodes, "sym" means "sym_inout".

    A pair x = (x_src, x_dst) makes the graph bipartite, whatever its size. The self-loop of a target then refers to its
    own row of x_dst: ``y = act(R (A C x_src + λ S x_dst) + bias)``. Here d_in includes λ and d_out does not, and S is R
    for "sym" and "sym_inout", and 1 otherwise.

    Args:
        graph: a `Graph` with E edges. Use the same object in all layers and epochs. A `SampledGraph` with m targets has
            its own rules for loops and degrees, and gives m rows.
        x: [N, F] or [B, N, F], or a pair (x_src, x_dst) of such tensors, where x_dst may be None if λ is 0. The dtype is
            float64, float32, bfloat16 or float16, the device is the graph's, and the strides are arbitrary. bfloat16
            and float16 are summed in float32. Under autocast, x, edge_weight and bias are cast to its dtype.
        edge_weight: [E], in the order in which the edges were given, with the dtype of x. It replaces the graph's own
            weights in this call. NaN raises an error. Degrees are sums of the weights as they were given. If float16
            cannot hold the graph's own weights, or if the weights are wider than x under autocast, the product is
            computed in float32.
        norm: one of those in the table above.
        self_loops: λ, the weight of the loops that are added to any that exist; 0 adds none. A tensor with one element
            can be learned: the loops are then edges of a second Graph, which is kept with this one.
        bias: [F], dtype of x.
        activation: None or "relu".

    Returns:
        y: [N, F] or [B, N, F], contiguous, dtype of x.

    Differentiable any number of times in x, bias, edge_weight and self_loops, for the last two through the degrees too.
    The result and the first gradients are bit-identical from run to run and for any number of threads.

    Raises:
        ValueError or TypeError: an argument is not as described, or a rectangular graph without x_dst comes with
            self_loops other than 0.

    Complexity: O((E + N) F) operations. There is no buffer with E or E F elements. On the CPU, if nodes have many edges
    and features are wide, part of the features is copied, at most 16 MB or 128 bytes per node at a time. The backward
    pass needs x only for edge_weight, and y only for the ReLU.

    Source: T. N. Kipf and M. Welling, Semi-Supervised Classification with Graph Convolutional Networks,
    ICLR 2017, equation 2 and section 2.2.

    Example:
        >>> graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
        >>> amstel.ops.spmm(graph, torch.eye(3), norm="row")
        tensor([[0.5000, 0.5000, 0.0000],
                [0.3333, 0.3333, 0.3333],
                [0.0000, 0.5000, 0.5000]])
    """
    if not is_compiling() and type(x) is Tensor and edge_weight is None and bias is None:
        y = _again(graph, x, norm, self_loops, activation)
        if y is not None:
            return y
    if not isinstance(graph, Graph):
        if hasattr(graph, "spmm"):  # amstel.distributed.DistributedGraph
            return graph.spmm(
                x, edge_weight, norm=norm, self_loops=self_loops, bias=bias, activation=activation
            )
        raise TypeError(f"`graph` must be an amstel.Graph, got {_check.describe(graph)}")
    if graph._is_sampled:
        return _sampled.propagate(spmm, graph, x, edge_weight, norm, self_loops, bias, activation)
    if isinstance(x, tuple):
        return _bipartite(graph, x, edge_weight, norm, self_loops, bias, activation)
    x = _check.tensor("x", x, "a tensor [N, F] or [B, N, F]")
    if isinstance(self_loops, Tensor):
        return _with_loops(graph, x, edge_weight, norm, self_loops, bias, activation)
    autocast = autocast_dtype(x)
    dtype, wide = autocast or x.dtype, False
    if autocast is not None:
        for name, value in (("edge_weight", edge_weight), ("bias", bias)):
            if value is not None:
                _check.dense(name, value, "a tensor")
        wide = edge_weight is not None and edge_weight.dtype != dtype
        if not wide:
            x, bias = cast(dtype, x, bias)
    assert isinstance(x, Tensor)
    if wide or (dtype == torch.float16 and edge_weight is None and not graph._fits_half()):
        # Rounded to a short type before they are summed and normalized, weights would be others, or infinite.
        with without_autocast(x):
            weight, bias = cast(torch.float32, edge_weight, bias)
            y = spmm(
                graph, x.float(), weight, norm=norm, self_loops=self_loops, bias=bias, activation=activation
            )
        return y.to(dtype)
    self_loops = _check_arguments(graph, x, edge_weight, norm, self_loops, bias, activation)
    relu = activation == "relu"
    if not graph._is_square and norm == "sym":
        norm = "sym_inout"
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
    if torch.is_grad_enabled():
        refuse_lost_graphs(x)
    y, row_scale, col_scale = forward(graph, x, edge_weight, norm, self_loops, bias, relu)
    if edge_weight is None and bias is None and not is_compiling() and not has_modes() and is_plain(x):
        _remember(graph, x.dtype, norm, self_loops, relu, row_scale, col_scale)
    return y


# Checks, and handing over what the graph keeps, take longer than the product of a small graph, and several times as long
# where the product before has swept them out of the caches. For calls like earlier ones, the operators hold all but x.


def _again(graph: Any, x: Tensor, norm: Any, self_loops: Any, activation: Any) -> Tensor | None:
    """The product where the graph remembers a call with these arguments, and nobody asks for more; else None."""
    if type(graph) is not Graph or type(norm) is not str or type(self_loops) is not float:
        return None
    if activation is not None and type(activation) is not str:
        return None
    known = graph._kept_products.get((x.dtype, norm, self_loops, activation))
    if known is None or not nobody_looks(x) or x.device != graph._device:
        return None
    if has_modes():  # whoever writes a program down must find the operator and its tensors there
        return None
    try:
        with _below_autograd():
            return _kept(x, known[0], known[1])
    except (RuntimeError, MemoryError):
        return None  # the long way says what is wrong


def _remember(
    graph: Graph, dtype: torch.dtype, norm: str, loops: float, relu: bool, row: Any, col: Any
) -> None:
    key = dtype, norm, loops, "relu" if relu else None
    if key in graph._kept_products or graph._crow.is_meta:  # there, no operator keeps anything
        return
    weight = None if graph._weight is None else graph._values(dtype)
    if not is_plain(weight, row, col):
        return
    edge = graph._edge if weight is None else None
    number = _keep(graph._crow, graph._col, edge, weight, row, col, graph._num_cols, loops, relu)
    keep(graph._kept_products, key, (int(number), graph.num_rows, number))


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
    if not graph._is_square and self_loops != 0:
        raise ValueError(
            "a rectangular graph takes `self_loops` 0, or a pair `x` = (x_src, x_dst), "
            f"got self_loops={self_loops} for {graph!r}"
        )
    if edge_weight is not None:
        _check.vector("edge_weight", edge_weight, graph.num_edges, x)
        if edge_weight.is_cuda:
            # The CPU operator looks as it goes, and that of CUDA where nothing may wait.
            if _checks.how(edge_weight) == "sync" and bool(edge_weight.isnan().any()):
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


# Composed of others: what no single product does.


def _loop_weight(value: float | Tensor, like: Tensor) -> float | Tensor:
    """λ as a number, or as a tensor [] in the dtype of `like`."""
    if not isinstance(value, Tensor):
        return _check.number("self_loops", value)
    if value.numel() != 1 or value.dtype not in _check.FLOATS or value.device != like.device:
        _check.fail("self_loops", f"a number or a floating-point tensor [] on {like.device}", value)
    return value.to(like.dtype).reshape(())


def _in_float32(x: Tensor) -> torch.dtype | None:
    """The dtype of the result where float32 must carry the sums between products: short types and autocast."""
    return autocast_dtype(x) or (x.dtype if x.dtype in (torch.bfloat16, torch.float16) else None)


def _float(t: Any) -> Any:
    return cast(torch.float32, t)[0]


def _with_loops(
    graph: Graph, x: Tensor, edge_weight: Tensor | None, norm: str, loops: Tensor, bias: Any, activation: Any
) -> Tensor:
    """λ that may learn: the loops as edges, of which it is the weight."""
    short = _in_float32(x)
    if short is not None:
        with without_autocast(x):
            return _with_loops(
                graph, x.float(), _float(edge_weight), norm, loops, _float(bias), activation
            ).to(short)
    _check_arguments(graph, x, edge_weight, norm, 0.0, bias, activation)
    if not graph._is_square:
        raise ValueError(f"a rectangular graph takes `self_loops` 0, got {_check.describe(loops)}")
    weight = edge_weight
    if weight is None:
        weight = x.new_ones(graph.num_edges) if graph._weight is None else graph._weight.to(x.dtype)
    value = _loop_weight(loops, x)
    assert isinstance(value, Tensor)
    weight = torch.cat([weight, value.expand(graph.num_rows)])
    return spmm(graph._looped(), x, weight, norm=norm, self_loops=0.0, bias=bias, activation=activation)


def _bipartite(
    graph: Graph,
    pair: Any,
    edge_weight: Tensor | None,
    norm: str,
    self_loops: Any,
    bias: Any,
    activation: Any,
) -> Tensor:
    """Sources and targets with features of their own."""
    if len(pair) != 2:
        _check.fail("x", "a tensor or a pair (x_src, x_dst)", pair)
    x, own = pair
    _check.tensor("x", x, "a tensor or a pair (x_src, x_dst) of tensors")
    short = _in_float32(x)
    if short is not None:
        with without_autocast(x):
            wide = x.float(), _float(own)
            y = _bipartite(graph, wide, _float(edge_weight), norm, self_loops, _float(bias), activation)
            return y.to(short)
    _check_arguments(graph, x, edge_weight, norm, 0.0, bias, activation)
    value = _loop_weight(self_loops, x)
    shape = [*x.shape[:-2], graph.num_rows, x.shape[-1]]
    if own is not None:
        _check.dense("x", own, "a pair (x_src, x_dst) of tensors")
        if list(own.shape) != shape or own.dtype != x.dtype or own.device != x.device:
            _check.fail("x", f"a pair (x_src, x_dst), x_dst {shape} like x_src", own)
    norm = "sym_inout" if norm == "sym" else norm
    plain = not isinstance(value, Tensor) and value == 0
    if plain:
        return spmm(graph, x, edge_weight, norm=norm, self_loops=0.0, bias=bias, activation=activation)
    if own is None:
        raise ValueError(f"`x` must be a pair (x_src, x_dst) of tensors where `self_loops` is {self_loops}")

    def degree(out: bool) -> Tensor:
        if edge_weight is None:
            found = graph._degree(sum_dtype(x.dtype), out)
        else:
            ones = edge_weight.new_ones(graph.num_rows if out else graph.num_cols, 1)
            found = product(edge_weight, ones, graph, out)[:, 0]
        return found if out else found + value

    row, col = factors_of(norm, degree)
    scaled = x if col is None else x * col[:, None]
    y = spmm(graph, scaled, edge_weight, norm="none", self_loops=0.0)
    y = y + value * (own if col is None or row is None else own * row[:, None])
    y = y if row is None else y * row[:, None]
    y = y if bias is None else y + bias
    return y.relu() if activation == "relu" else y
