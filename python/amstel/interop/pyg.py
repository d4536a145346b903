"""Subclasses of PyTorch Geometric's layers that compute with `amstel.ops.spmm`.

Each is a `torch_geometric.nn.MessagePassing`: explainers, hooks, scripting, tracing and conversion to heterogeneous
models keep working. Unless something needs the individual messages, a call is one fused product, and no tensor with
one row per edge is written; otherwise PyG's own code runs. You can pass an `amstel.Graph` instead of an edge_index,
which is then converted only once.

PyG's `conv.utils` takes what it says about a layer from docstrings and signatures: title and link of the paper, the
phrase about -1, SparseTensor. So they appear here in PyG's form.
"""

from __future__ import annotations

import copy
import functools
from typing import Any, ClassVar

import torch
from torch import Tensor

from amstel import _check, _checks
from amstel._bypass import has_hooks
from amstel._optional import need
from amstel.graph import Graph
from amstel.interop import _pyg

need("torch_geometric", "pyg", "amstel.interop.pyg")

from torch_geometric import nn as pyg  # noqa: E402
from torch_geometric.nn.conv.gcn_conv import gcn_norm  # noqa: E402
from torch_geometric.typing import OptTensor, SparseTensor  # noqa: E402

__all__ = ["APPNP", "GCN", "ChebConv", "GCN2Conv", "GCNConv", "SGConv"]

_HOOKS = tuple(
    f"_{stage}_forward_{when}hooks"
    for stage in ("propagate", "message", "message_and_aggregate", "aggregate")
    for when in ("pre_", "")
)
_STEPS = ("message", "aggregate", "message_and_aggregate", "update", "explain_message")


@functools.cache
def _base(cls: Any) -> Any:
    """PyG's class beneath one of these."""
    return next(base for base in cls.__mro__ if base.__module__.startswith("torch_geometric."))


class _Fused:
    """Decides whether a call may be fused, and finds the Graph, weights and λ that PyG's normalization stands for."""

    #: Of the first call, where cached=True: both what PyG keeps and this.
    _cached_graph: _pyg.Arguments | None = None

    def reset_parameters(self) -> None:
        """PyG's, and an empty cache."""
        super().reset_parameters()  # type: ignore[misc]
        self._cached_graph = None

    def _is_watched(self) -> bool:
        """Whether somebody looks at the messages of this layer, or makes others."""
        own: dict[str, Any] = self.__dict__
        cls: Any = type(self)
        if own["_explain"] or own["_decomposed_layers"] != 1 or own["node_dim"] != -2:
            return True
        sums = own["_modules"]["aggr_module"]
        if type(sums) is not pyg.SumAggregation or "forward" in vars(sums) or has_hooks(sums):
            return True
        for name in _HOOKS:
            if own[name]:
                return True
        theirs = _base(cls)
        for name in _STEPS:
            if name in own or getattr(cls, name) is not getattr(theirs, name):
                return True
        # After an explanation PyG leaves its own compiled method in the module.
        propagate: Any = cls.propagate
        if "propagate" in own and getattr(own["propagate"], "__func__", None) is not propagate:
            return True
        return _pyg.propagate_of(cls) is not pyg.MessagePassing.propagate

    def _is_fused(self, x: Any, edge_index: Any, edge_weight: Any) -> bool:
        if not _pyg.is_dense(x) or x.dim() not in (2, 3) or self._is_watched():
            return False
        if edge_weight is not None and not (_pyg.is_dense(edge_weight) and edge_weight.dim() == 1):
            return False
        if isinstance(edge_index, Graph):
            return True
        if not isinstance(edge_index, Tensor):
            return False
        # Where PyG's operations are fused by others, and where a program is written that other edges are given to.
        if torch.onnx.is_in_onnx_export() or _checks.hidden(edge_index):
            return False
        if edge_index.layout == torch.strided:
            if type(edge_index) is not Tensor and hasattr(edge_index, "sparse_size"):  # an EdgeIndex
                given: Any = edge_index
                if any(size not in (None, x.shape[-2]) for size in given.sparse_size()):
                    return False
            return edge_index.dtype in (torch.int32, torch.int64)
        return (
            edge_index.layout in (torch.sparse_coo, torch.sparse_csr)
            and edge_index.shape == (x.shape[-2], x.shape[-2])
            and edge_index.dtype in _check.FLOATS
            and edge_weight is None
            and self.flow == "source_to_target"  # type: ignore[attr-defined]
        )

    def _plain(self, x: Any, edge_index: Any, edge_weight: Any) -> tuple[Any, Any]:
        """What PyG's own code takes, after a look at what it would answer with something unclear."""
        if not isinstance(x, (Tensor, tuple, list)) or (
            isinstance(x, list) and not any(isinstance(t, Tensor) for t in x)
        ):
            _check.fail_type("x", "a tensor [N, F] or [B, N, F]", x)
        if isinstance(x, Tensor) and x.dim() < 2:
            _check.fail("x", "a tensor [N, F] or [B, N, F]", x)
        if isinstance(self, pyg.GCNConv):  # whose linear layer, and whose degrees, PyTorch has in no integers
            if isinstance(x, Tensor) and not (x.is_floating_point() or x.is_complex()):
                _check.fail("x", "floating point, [N, F] or [B, N, F]", x)
            whole = isinstance(edge_weight, Tensor) and not (
                edge_weight.is_floating_point() or edge_weight.is_complex()
            )
            if whole and self.normalize:
                _check.fail("edge_weight", "floating point, [E]", edge_weight)
        if edge_weight is not None and not isinstance(edge_weight, Tensor):
            _check.fail_type("edge_weight", "a tensor [E] or None", edge_weight)
        if isinstance(edge_index, Graph):
            if isinstance(x, Tensor):
                _pyg.check_graph(edge_index, x.shape[-2])
            index, own = edge_index.to_edge_index()
            return index, own if edge_weight is None else edge_weight
        if not isinstance(edge_index, (Tensor, SparseTensor)):
            expected = "an integer tensor [2, E], a sparse matrix or an amstel.Graph"
            _check.fail_type("edge_index", expected, edge_index)
        if isinstance(edge_index, Tensor) and isinstance(x, Tensor) and x.dim() > 1:
            nodes = x.shape[-2]
            if edge_index.layout != torch.strided:
                if self.node_dim == -2 and edge_index.shape != (nodes, nodes):  # type: ignore[attr-defined]
                    _check.fail(
                        "edge_index",
                        f"a sparse matrix [{nodes}, {nodes}] for `x` {list(x.shape)}",
                        edge_index,
                    )
            elif edge_index.is_floating_point() or edge_index.is_complex() or edge_index.dtype == torch.bool:
                _check.fail("edge_index", "an integer tensor [2, E]", edge_index)
        return edge_index, edge_weight

    def _arguments(self, x: Tensor, edge_index: Any, edge_weight: Any, fill: float = 1.0) -> _pyg.Arguments:
        """By gcn_norm's rules, cached like its result."""
        if self._cached_graph is not None:
            return self._cached_graph
        # Without normalization PyG adds none, whatever `add_self_loops` is.
        loops = self.add_self_loops and getattr(self, "normalize", True)  # type: ignore[attr-defined]
        flow = self.flow  # type: ignore[attr-defined]
        nodes = x.shape[-2]
        if isinstance(edge_index, Graph):
            found = _pyg.of_graph(edge_index, nodes, edge_weight, flow, loops, fill)
        elif edge_index.layout == torch.strided:
            index = edge_index.as_tensor() if hasattr(edge_index, "as_tensor") else edge_index
            found = _pyg.of_index(index, nodes, edge_weight, flow, loops, fill)
        else:
            found = _pyg.of_sparse(edge_index, nodes, loops, fill)
        if getattr(self, "cached", False) and getattr(self, "normalize", True):
            self._cached_graph = found
            index, weight = self._plain(x, edge_index, edge_weight)
            self._cached_edge_index = gcn_norm(
                index, weight, nodes, getattr(self, "improved", False), loops, flow, x.dtype
            )
        return found

    def _is_cached_by_pyg(self) -> bool:
        """Whether only PyG's code has run so far, which then goes on with what it keeps."""
        kept = getattr(self, "_cached_edge_index", None)
        return kept is not None and self._cached_graph is None

    def _set_jittable_templates(self, raise_on_error: bool = False) -> None:
        """PyG's, which takes what it compiled for a base class for the method itself: that knows no explanations."""
        super()._set_jittable_templates(raise_on_error)  # type: ignore[misc]
        cls: Any = type(self)
        cls._orig_propagate = _pyg.propagate_of(cls)
        if cls._orig_propagate is not pyg.MessagePassing.propagate:
            cls.propagate = cls._jinja_propagate = cls._orig_propagate

    def __prepare_scriptable__(self) -> Any:
        """For torch.jit.script: the same layer as PyG's own."""
        theirs = copy.copy(self)
        cls: Any = type(self)
        theirs.__class__ = _base(cls)
        theirs.__dict__.pop("_cached_graph", None)
        theirs._set_jittable_templates()
        return theirs


class GCNConv(_Fused, pyg.GCNConv):
    r"""torch_geometric.nn.GCNConv, fused: ``X' = D^-1/2 (A + I) D^-1/2 X Θ^T + b`` without tensors of E rows.

    Constructor, state_dict, values and gradients (to x, edge_weight and the parameters) are PyG's, except that D^-1/2 of
    a negative degree is 0, not NaN. PyG's self-loop rule holds: a loop in the data keeps its weight (the last of several),
    a missing one gets 1, or 2 if `improved`; without edge weights, all loops have weight 1.

    Args:
        in_channels: width F of the input, or :obj:`-1` to derive the size from the first one.
        out_channels: width F' of the result.
        improved, cached, add_self_loops, normalize, bias: as in PyG.
        **kwargs: of `torch_geometric.nn.MessagePassing`; an `aggr` other than "add" runs PyG's own code.

    forward(x, edge_index, edge_weight=None): x [N, F] or [B, N, F]; edge_index whatever PyG takes, or an
    `amstel.Graph`, which is prepared once, for all layers; an edge_index is converted in every call unless `cached`.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Source: `"Semi-supervised Classification with Graph Convolutional Networks" <https://arxiv.org/abs/1609.02907>`_.

    Example:
        >>> from amstel.interop.pyg import GCNConv
        >>> conv = GCNConv(3, 2)
        >>> conv(torch.randn(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
        torch.Size([4, 2])
        >>> list(conv.state_dict())
        ['bias', 'lin.weight']
    """

    propagate_type: ClassVar = {"x": Tensor, "edge_weight": OptTensor}

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        improved: bool = False,
        cached: bool = False,
        add_self_loops: bool | None = None,
        normalize: bool = True,
        bias: bool = True,
        **kwargs: Any,
    ):
        in_channels, out_channels = _pyg.widths(in_channels, out_channels)
        flags = {"improved": improved, "cached": cached, "normalize": normalize, "bias": bias}
        for name, value in flags.items():
            _check.flag(name, value)
        if "flow" in kwargs:
            _check.choice("flow", kwargs["flow"], ("source_to_target", "target_to_source"))
        super().__init__(in_channels, out_channels, add_self_loops=add_self_loops, **flags, **kwargs)

    def forward(
        self, x: Tensor, edge_index: Tensor | SparseTensor | Graph, edge_weight: Tensor | None = None
    ) -> Tensor:
        if self._is_cached_by_pyg() or not self._is_fused(x, edge_index, edge_weight):
            return super().forward(x, *self._plain(x, edge_index, edge_weight))
        if x.shape[-1] != self.in_channels and self.in_channels != -1:
            _check.fail("x", f"[N, {self.in_channels}] or [B, N, {self.in_channels}], dense", x)
        arguments = self._arguments(x, edge_index, edge_weight, 2.0 if self.improved else 1.0)
        h = self.lin(x)
        return _pyg.product(arguments, h, "sym" if self.normalize else "none", self.bias, x.dtype)


class SGConv(_Fused, pyg.SGConv):
    r"""torch_geometric.nn.SGConv, fused: ``X' = Â^K X Θ^T + b`` with GCNConv's Â. Arguments and state_dict are PyG's;
    in_channels is a width, or :obj:`-1` to derive the size from the first input.

    Source: `"Simplifying Graph Convolutional Networks" <https://arxiv.org/abs/1902.07153>`_.

    Example:
        >>> from amstel.interop.pyg import SGConv
        >>> SGConv(3, 2, K=2)(torch.randn(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
        torch.Size([4, 2])
    """

    propagate_type: ClassVar = {"x": Tensor, "edge_weight": OptTensor}

    def forward(
        self, x: Tensor, edge_index: Tensor | SparseTensor | Graph, edge_weight: Tensor | None = None
    ) -> Tensor:
        if self._cached_x is not None or not self._is_fused(x, edge_index, edge_weight):
            return super().forward(x, *self._plain(x, edge_index, edge_weight))
        arguments = self._arguments(x, edge_index, edge_weight)
        for _ in range(self.K):
            x = _pyg.product(arguments, x, "sym")
            if self.cached:
                self._cached_x: Tensor | None = x
        return self.lin(x)


class APPNP(_Fused, pyg.APPNP):
    r"""torch_geometric.nn.APPNP, fused: K times ``Z = (1 - α) Â Z + α X``. Arguments are PyG's; there are no parameters.

    Source: `"Predict then Propagate: Graph Neural Networks meet Personalized PageRank"
    <https://arxiv.org/abs/1810.05997>`_.

    Example:
        >>> from amstel.interop.pyg import APPNP
        >>> APPNP(K=10, alpha=0.1)(torch.randn(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
        torch.Size([4, 3])
    """

    propagate_type: ClassVar = {"x": Tensor, "edge_weight": OptTensor}

    def forward(
        self, x: Tensor, edge_index: Tensor | SparseTensor | Graph, edge_weight: Tensor | None = None
    ) -> Tensor:
        # Dropout is on the normalized weights, which only PyG's code writes down.
        dropped = self.dropout > 0 and self.training
        if dropped or self._is_cached_by_pyg() or not self._is_fused(x, edge_index, edge_weight):
            return super().forward(x, *self._plain(x, edge_index, edge_weight))
        arguments, norm = self._arguments(x, edge_index, edge_weight), "sym" if self.normalize else "none"
        z = x
        for _ in range(self.K):
            z = (1 - self.alpha) * _pyg.product(arguments, z, norm) + self.alpha * x
        return z


class GCN2Conv(_Fused, pyg.GCN2Conv):
    r"""torch_geometric.nn.GCN2Conv, fused: ``X' = ((1 - α) Â X + α X0) ((1 - β) I + β Θ)``. Arguments are PyG's.

    Source: `"Simple and Deep Graph Convolutional Networks" <https://arxiv.org/abs/2007.02133>`_.

    Example:
        >>> from amstel.interop.pyg import GCN2Conv
        >>> x = torch.randn(4, 3)
        >>> GCN2Conv(3, alpha=0.1)(x, x, torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
        torch.Size([4, 3])
    """

    propagate_type: ClassVar = {"x": Tensor, "edge_weight": OptTensor}

    def forward(
        self,
        x: Tensor,
        x_0: Tensor,
        edge_index: Tensor | SparseTensor | Graph,
        edge_weight: Tensor | None = None,
    ) -> Tensor:
        if self._is_cached_by_pyg() or not self._is_fused(x, edge_index, edge_weight):
            return super().forward(x, x_0, *self._plain(x, edge_index, edge_weight))
        arguments, norm = self._arguments(x, edge_index, edge_weight), "sym" if self.normalize else "none"
        x = (1 - self.alpha) * _pyg.product(arguments, x, norm)
        x_0 = self.alpha * x_0[: x.shape[0]]

        def transform(h: Tensor, weight: Tensor) -> Tensor:
            return (1 - self.beta) * h + self.beta * (h @ weight)

        if self.weight2 is None:
            return transform(x + x_0, self.weight1)
        return transform(x, self.weight1) + transform(x_0, self.weight2)


class ChebConv(_Fused, pyg.ChebConv):
    r"""torch_geometric.nn.ChebConv, fused: ``X' = sum_k T_k(L̃) X Θ_k^T + b``. Arguments and state_dict are PyG's, with
    `batch` and one `lambda_max` per graph; K is the number of terms, as PyG counts; in_channels is a width, or :obj:`-1` to
    derive the size from the first input.

    Source: `"Convolutional Neural Networks on Graphs with Fast Localized Spectral Filtering"
    <https://arxiv.org/abs/1606.09375>`_.

    Example:
        >>> from amstel.interop.pyg import ChebConv
        >>> ChebConv(3, 2, K=3)(torch.randn(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
        torch.Size([4, 2])
    """

    propagate_type: ClassVar = {"x": Tensor, "norm": Tensor}

    def forward(
        self,
        x: Tensor,
        edge_index: Any,
        edge_weight: Tensor | None = None,
        batch: Tensor | None = None,
        lambda_max: Tensor | None = None,
    ) -> Tensor:
        fused = self._is_fused(x, edge_index, edge_weight)
        edge_index, edge_weight = _pyg.strided(*self._plain(x, edge_index, edge_weight))
        if not fused:
            return super().forward(x, edge_index, edge_weight, batch, lambda_max)
        nodes = x.shape[-2]
        index, weight = self.__norm__(
            edge_index, nodes, edge_weight, self.normalization, lambda_max, dtype=x.dtype, batch=batch
        )
        arguments = _pyg.of_index(index, nodes, weight, self.flow, False, 0.0)
        _pyg.check_laplacian(weight, edge_index, nodes, edge_weight, lambda_max, self.normalization)
        before, term = x, x
        out = self.lins[0](x)
        for k, lin in enumerate(self.lins[1:]):
            product = _pyg.product(arguments, term, "none")
            before, term = term, 2.0 * product - before if k else product
            out = out + lin(term)
        return out if self.bias is None else out + self.bias


class GCN(pyg.GCN):
    r"""torch_geometric.nn.GCN with fused layers; norms, dropout, jumping knowledge and everything else are PyG's.

    Example:
        >>> from amstel.interop.pyg import GCN
        >>> GCN(3, 16, num_layers=2, out_channels=2)(torch.randn(4, 3), torch.tensor([[0, 1], [1, 0]])).shape
        torch.Size([4, 2])
    """

    def init_conv(self, in_channels: int, out_channels: int, **kwargs: Any) -> Any:
        """The layer between two widths."""
        return GCNConv(in_channels, out_channels, **kwargs)
