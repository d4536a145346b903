"""Every differentiable operator as one call at a moderate size, for tests of how they are used on a device."""

from __future__ import annotations

from collections.abc import Callable

import torch

import amstel
from amstel import ops

Case = tuple[Callable[..., torch.Tensor], list[torch.Tensor]]


def normal(*shape, seed=0, dtype=torch.float32):
    wide = torch.complex128 if dtype.is_complex else torch.float64
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=wide).to(dtype)


def _graph(device: str) -> amstel.Graph:
    index = torch.randint(0, 300, (2, 2500), generator=torch.Generator().manual_seed(1))
    index[1, :600] = 3  # a hub
    return amstel.Graph.from_edge_index(index.to(device), 300)


def _boxes(device: str) -> torch.Tensor:
    g = torch.Generator().manual_seed(2)
    corners = torch.rand(2, 20, 2, generator=g) * torch.tensor([160.0, 120.0])
    image = torch.randint(0, 2, (20, 1), generator=g)
    return torch.cat([image, corners.amin(0), corners.amax(0)], 1).to(device)


def _spmm(device, dtype):
    graph = _graph(device)

    def call(x, weight, bias):
        return ops.spmm(graph, x, weight.square() + 0.1, norm="sym_inout", bias=bias, activation="relu")

    return call, [
        normal(300, 24, dtype=dtype),
        normal(2500, seed=1, dtype=dtype),
        normal(24, seed=2, dtype=dtype),
    ]


def _conv_lstm(memory):
    def make(device, dtype):
        tensors = [
            normal(4, 2, 3, 9, 8, dtype=dtype),
            normal(32, 3, 3, 3, seed=1, dtype=dtype) / 5,
            normal(32, 8, 3, 3, seed=2, dtype=dtype) / 8,
            normal(32, seed=3, dtype=dtype),
        ]
        return lambda *t: ops.conv_lstm(*t, memory=memory)[0], tensors

    return make


def _lstm_cell(device, dtype):
    return (
        lambda gates, c: torch.cat(ops.conv_lstm_cell(gates, c)),
        [normal(2, 32, 7, 6, dtype=dtype), normal(2, 8, 7, 6, seed=1, dtype=dtype)],
    )


def _gru_cell(device, dtype):
    return ops.conv_gru_cell, [normal(2, n * 8, 7, 6, seed=n, dtype=dtype) for n in (3, 3, 1)]


def _roi_pool(device, dtype):
    boxes = _boxes(device)
    return lambda x: ops.roi_pool(x, boxes, (3, 2), 0.25), [normal(2, 16, 30, 40, dtype=dtype)]


def _roi_match(device, dtype):
    boxes = _boxes(device)
    return (
        lambda a, b, query: ops.roi_match([a, b], boxes, query, 3, [0.25, 0.125]),
        [
            normal(2, 16, 30, 40, dtype=dtype),
            normal(2, 8, 15, 20, seed=1, dtype=dtype),
            normal(24 * 9, seed=2, dtype=dtype),
        ],
    )


def _mri(mask):
    def make(device, dtype):
        on, complex_ = mask.to(device), torch.complex128 if dtype == torch.float64 else torch.complex64
        maps, y = (normal(1, 4, 18, 20, seed=s, dtype=complex_).to(device) for s in (1, 2))

        def call(x):
            return torch.view_as_real(ops.mri_gradient(torch.view_as_complex(x), y, on, maps, 0.5))

        return call, [normal(1, 18, 20, 2, dtype=dtype)]

    return make


def _denoise(device, dtype):
    return (
        lambda eta, y: ops.rim_denoise_input(eta, y, 0.3, link="logistic"),
        [normal(2, 3, 12, 18, dtype=dtype), normal(2, 3, 12, 18, seed=1, dtype=dtype)],
    )


def _super_resolve(device, dtype):
    return (
        lambda eta, y: ops.rim_super_resolve_input(eta, y, 3, 0.3),
        [normal(2, 3, 12, 18, dtype=dtype), normal(2, 3, 4, 6, seed=1, dtype=dtype)],
    )


def _bicubic(device, dtype):
    return lambda x: ops.bicubic_down(x, 2), [normal(2, 3, 12, 18, dtype=dtype)]


OPERATORS: dict[str, Callable[[str, torch.dtype], Case]] = {
    "spmm": _spmm,
    "conv_lstm store": _conv_lstm("store"),
    "conv_lstm recompute": _conv_lstm("recompute"),
    "conv_lstm_cell": _lstm_cell,
    "conv_gru_cell": _gru_cell,
    "roi_pool": _roi_pool,
    "roi_match": _roi_match,
    "mri_gradient columns": _mri((torch.arange(20) % 3 == 0).float()),
    "mri_gradient points": _mri((torch.arange(360).reshape(18, 20) % 7 < 3).float()),
    "rim_denoise_input": _denoise,
    "rim_super_resolve_input": _super_resolve,
    "bicubic_down": _bicubic,
}


def make(name: str, device: str, dtype: torch.dtype = torch.float32) -> Case:
    """The function of its tensors, and those, on the device; the same values whatever device and dtype are."""
    function, tensors = OPERATORS[name](device, dtype)
    return function, [t.to(device).requires_grad_() for t in tensors]


def step(function: Callable[..., torch.Tensor], leaves: list[torch.Tensor]) -> list[torch.Tensor]:
    """The result and the gradients of all leaves."""
    out = function(*leaves)
    grad = torch.linspace(-1, 1, out.numel(), device=out.device, dtype=out.dtype).reshape(out.shape)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad)]
