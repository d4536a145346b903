"""Every differentiable operator with small inputs, in the manner of PyTorch's OpInfo: the tests of transforms and of
export go through this one table.

A sample is a function of (implementation, *tensors), where the implementation is `amstel.ops` or `amstel.reference`,
and of float64 or complex128 tensors, all of which have a derivative.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import amstel
from amstel.ops import _winograd
from amstel.ops.conv_gru import _composed, conv_gru_pointwise


@dataclass(frozen=True)
class Sample:
    name: str
    function: Callable
    tensors: Callable[[torch.Generator], tuple[Tensor, ...]]
    #: The second derivative is not 0.
    curved: bool = True

    def make(self, seed: int = 0) -> tuple[Tensor, ...]:
        return self.tensors(torch.Generator().manual_seed(seed))


SAMPLES: list[Sample] = []


def sample(name: str, tensors: Callable, curved: bool = True) -> Callable:
    def add(function: Callable) -> Callable:
        SAMPLES.append(Sample(name, function, tensors, curved))
        return function

    return add


def shapes(*sizes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Callable:
    return lambda generator: tuple(torch.randn(s, generator=generator, dtype=dtype) for s in sizes)


# ---- Graphs: directed, a node without edges, a loop, parallel edges ----

EDGES = torch.tensor([[0, 1, 2, 2, 3, 1, 1], [1, 0, 1, 1, 2, 3, 1]])
GRAPH = amstel.Graph.from_edge_index(EDGES, 5)
WEIGHTED = amstel.Graph.from_edge_index(
    EDGES, 5, torch.tensor([0.5, 1.5, 2, 1, 0.25, 3, 1], dtype=torch.float64)
)


def _weighted(generator: torch.Generator) -> tuple[Tensor, ...]:
    x, bias = shapes((5, 2), (2,))(generator)
    return x, torch.rand(7, generator=generator, dtype=torch.float64) + 0.5, bias


for _norm in ("sym", "row", "sym_inout", "none"):
    for _loops in (0.0, 1.0):

        @sample(f"spmm-{_norm}-{_loops}", shapes((5, 2)), curved=False)
        def _(ops, x, norm=_norm, loops=_loops):
            return ops.spmm(GRAPH, x, norm=norm, self_loops=loops)

        @sample(f"spmm-weights-{_norm}-{_loops}", _weighted)
        def _(ops, x, weight, bias, norm=_norm, loops=_loops):
            return ops.spmm(GRAPH, x, weight, norm=norm, self_loops=loops, bias=bias, activation="relu")


@sample("spmm-own-weights", shapes((2, 5, 2), (2,)))
def _(ops, x, bias):
    return ops.spmm(WEIGHTED, x, norm="sym", bias=bias, activation="relu")


# ---- ConvLSTM and ConvGRU ----


@sample("conv_lstm", shapes((2, 1, 1, 3, 2), (4, 1, 3, 3), (4, 1, 3, 3)))
def _(ops, x, w_ih, w_hh):
    return ops.conv_lstm(x, w_ih, w_hh)[0]


@sample(
    "conv_lstm-all",
    shapes((3, 2, 1, 2, 2), (4, 1, 1, 2), (4, 1, 1, 1), (4,), (3, 1), (2, 1, 2, 2), (2, 1, 2, 2)),
)
def _(ops, x, w_ih, w_hh, bias, peephole, h, c):
    output, state = ops.conv_lstm(
        x, w_ih, w_hh, bias, (h, c), peephole=peephole, lengths=torch.tensor([2, 3])
    )
    return torch.cat([output, *(s[None] for s in state)])


@sample("conv_lstm-last-recompute", shapes((2, 1, 1, 3, 3), (4, 1, 3, 3), (4, 1, 1, 1), (4,)))
def _(ops, x, w_ih, w_hh, bias):
    output, state = ops.conv_lstm(
        x, w_ih, w_hh, bias, return_sequences=False, padding="valid", memory="recompute"
    )
    return torch.cat([output, *state])


@sample("conv_lstm_cell", shapes((2, 4, 1, 2), (2, 1, 1, 2), (3, 1)))
def _(ops, gates, c, peephole):
    return torch.cat(ops.conv_lstm_cell(gates, c, peephole))


@sample("conv_lstm_cell-channels_last", shapes((2, 8, 1, 2), (2, 2, 1, 2)))
def _(ops, gates, c):
    return torch.cat(ops.conv_lstm_cell(gates.movedim(1, -1).contiguous().movedim(-1, 1), c))


@sample("conv_gru_cell", shapes((2, 3, 1, 2), (2, 3, 1, 2), (2, 1, 1, 2)))
def _(ops, gates_x, gates_h, h):
    return ops.conv_gru_cell(gates_x, gates_h, h)


@sample("conv_gru_cell-recompute", shapes((1, 6, 2, 1), (1, 6, 2, 1), (1, 2, 2, 1)))
def _(ops, gates_x, gates_h, h):
    options = {} if ops is amstel.reference else {"memory": "recompute"}
    return ops.conv_gru_cell(gates_x, gates_h, h, **options)


for _memory in ("store", "recompute"):

    @sample(f"conv_gru_pointwise-{_memory}", shapes((3, 2), (3, 1), (3, 2), (3, 1), (3,), (3,)))
    def _(ops, *tensors, memory=_memory):
        return _composed(*tensors) if ops is amstel.reference else conv_gru_pointwise(*tensors, memory=memory)


@sample("conv_gru_pointwise-first", shapes((3, 2), (3, 2), (3, 1), (3,), (3,)))
def _(ops, x, *weights):
    return _composed(x, None, *weights) if ops is amstel.reference else conv_gru_pointwise(x, None, *weights)


@sample("conv3x3", shapes((1, 2, 3, 3), (1, 2, 3, 3), (1,)))
def _(ops, x, weight, bias):
    if ops is amstel.reference:
        return torch.nn.functional.conv2d(x, weight, bias, padding=1)
    return _winograd.conv3x3(x, weight, bias)


# ---- ROI pooling: boxes that overlap, that leave the map, that are empty ----

BOXES = torch.tensor(
    [[0, 0, 0, 3, 3], [1, 1, 1, 9, 2], [0, 0.5, 0, 2, 3.4], [1, -9, -9, -7, -7]], dtype=torch.float64
)


@sample("roi_pool", shapes((2, 2, 4, 4)), curved=False)
def _(ops, x):
    return ops.roi_pool(x, BOXES, (2, 2), 1.0)


@sample("roi_pool-channels_last", shapes((2, 2, 4, 4)), curved=False)
def _(ops, x):
    return ops.roi_pool(x.movedim(1, -1).contiguous().movedim(-1, 1), BOXES.float(), (1, 2), 0.5)


@sample("roi_match", shapes((2, 1, 4, 4), (2, 2, 3, 3), (12,)))
def _(ops, x, y, query):
    return ops.roi_match([x, y], BOXES, query, (2, 2), [1.0, 0.75])


# ---- Recurrent inference machines ----

MASK = torch.tensor([[1.0, 0, 1], [0, 1, 1]], dtype=torch.float64)


@sample("rim_input", shapes((1, 2, 2, 2), (1, 2, 2, 2)))
def _(ops, eta, gradient):
    return ops.rim_input(eta, gradient, link="logistic")


@sample("rim_input-identity", shapes((1, 2, 2, 2), (1, 2, 2, 2)), curved=False)
def _(ops, eta, gradient):
    return ops.rim_input(eta, gradient)


@sample("rim_denoise_input", shapes((2, 1, 2, 3), (2, 1, 2, 3)))
def _(ops, eta, y):
    return ops.rim_denoise_input(eta, y, 0.5, mask=MASK, link="logistic")


def _with_sigma(*sizes: tuple[int, ...]) -> Callable:
    def make(generator: torch.Generator) -> tuple[Tensor, ...]:
        found = shapes(*sizes)(generator)
        return *found, torch.rand(sizes[0][0], generator=generator, dtype=torch.float64) + 0.5

    return make


@sample("rim_denoise_input-sigma", _with_sigma((2, 1, 2, 3), (2, 1, 2, 3), (2, 3)))
def _(ops, eta, y, mask, sigma):
    return ops.rim_denoise_input(eta, y, sigma, mask=mask)


@sample("rim_super_resolve_input", shapes((1, 1, 4, 4), (1, 1, 2, 2)))
def _(ops, eta, y):
    return ops.rim_super_resolve_input(eta, y, 2, 0.5, link="logistic")


@sample("rim_super_resolve_input-sigma", _with_sigma((2, 1, 4, 2), (2, 1, 2, 1)))
def _(ops, eta, y, sigma):
    return ops.rim_super_resolve_input(eta, y, 2, sigma)


@sample("bicubic_down", shapes((1, 2, 6, 3)), curved=False)
def _(ops, x):
    return ops.bicubic_down(x, 3)


@sample("bicubic_down_adjoint", shapes((1, 2, 1, 2)), curved=False)
def _(ops, y):
    return ops.bicubic_down_adjoint(y, 3)


# ---- MRI ----

COLUMNS = torch.tensor([1.0, 0, 1], dtype=torch.float64)
POINTS = torch.tensor([[1.0, 0, 1], [1, 1, 0]], dtype=torch.float64)


def _coils(generator: torch.Generator) -> tuple[Tensor, ...]:
    return shapes((2, 2, 3), (2, 2, 2, 3), (2, 2, 3), dtype=torch.complex128)(generator)


for _mask, _centered in ((COLUMNS, False), (POINTS, True)):

    @sample(
        f"mri_gradient-{_mask.dim()}d", shapes((2, 2, 3), (2, 1, 2, 3), dtype=torch.complex128), curved=False
    )
    def _(ops, x, y, mask=_mask, centered=_centered):
        return ops.mri_gradient(x, y, mask, None, 0.5, centered=centered)

    @sample(f"mri_gradient-coils-{_mask.dim()}d", _coils)
    def _(ops, x, y, maps, mask=_mask, centered=_centered):
        return ops.mri_gradient(x, y, mask, maps, 0.5, centered=centered)

    @sample(f"mri_normal-{_mask.dim()}d", shapes((2, 2, 3), (2, 2, 3), dtype=torch.complex128), curved=False)
    def _(ops, x, adjoint_y, mask=_mask, centered=_centered):
        return ops.mri_normal(x, mask, None, adjoint_y, 2.0, centered=centered)


def _scaled(generator: torch.Generator) -> tuple[Tensor, ...]:
    x, _, maps = _coils(generator)
    return x, maps, torch.rand(2, generator=generator, dtype=torch.float64) + 0.5


@sample("mri_normal-scale", _scaled)
def _(ops, x, maps, scale):
    return ops.mri_normal(x, COLUMNS, maps, None, scale)


@sample("mri_gradient-sigma", _scaled)
def _(ops, x, maps, sigma):
    y = torch.view_as_complex(
        torch.view_as_real(x)[:, None].expand(2, 2, 2, 3, 2)
    )  # ONNX has no complex unsqueeze
    return ops.mri_gradient(x, y, POINTS, maps, sigma)
