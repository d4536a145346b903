"""The raw operators in plain PyTorch, for derivatives and for exports without our library, and the table of these.

Every function has the signature of its operator in csrc/library.cpp and the same values within rounding.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from amstel import reference
from amstel._torch import without_autocast
from amstel.reference.conv_lstm import same_conv

Maybe = Tensor | None


def _wide(dtype: torch.dtype) -> torch.dtype:
    """In which sums are kept."""
    return torch.promote_types(dtype, torch.float32)


# ---- Graphs ----


def _row(crow: Tensor, col: Tensor) -> Tensor:
    """The row of every slot. From all of crow, as a program of a part of it would be one for several rows."""
    edges = col.shape[0]
    starts = torch.zeros(edges + 1, dtype=torch.int64, device=crow.device)
    starts = starts.scatter_add(0, crow.long(), torch.ones_like(crow, dtype=torch.int64))
    return starts.cumsum(0)[:edges] - 1


def index_dtype(*sizes: int) -> torch.dtype:
    """Each by itself: the largest of symbols is known only where they are ordered."""
    return torch.int32 if all(size < 2**31 - 1 for size in sizes) else torch.int64


def _starts(key: Tensor, keys: int) -> Tensor:
    """Where each key's slots begin once they are sorted."""
    ones = torch.ones_like(key, dtype=torch.int64)
    return (
        torch.zeros(keys + 1, dtype=torch.int64, device=key.device)
        .scatter_add(0, key.long() + 1, ones)
        .cumsum(0)
    )


def csr_from_coo(
    row: Tensor, col: Tensor, num_rows: int, num_cols: int, weight: Maybe
) -> tuple[Tensor, Tensor, Tensor]:
    """Checks nothing."""
    dtype = index_dtype(row.shape[0], num_rows, num_cols)
    order = torch.argsort(row, stable=True)
    return _starts(row, num_rows).to(dtype), col[order].to(dtype), order.to(dtype)


def csr_transpose(crow: Tensor, col: Tensor, edge: Maybe, num_cols: int) -> tuple[Tensor, Tensor, Tensor]:
    order = torch.argsort(col, stable=True)
    row = _row(crow, col)[order].to(crow.dtype)
    return _starts(col, num_cols).to(crow.dtype), row, order.to(crow.dtype) if edge is None else edge[order]


def edge_sum(crow: Tensor, edge: Maybe, a: Tensor, b: Maybe) -> Tensor:
    value = a.to(_wide(a.dtype))
    if b is not None:
        value = value * b
    if edge is not None:
        value = value[edge.long()]
    return value.new_zeros(crow.shape[0] - 1).index_add(0, _row(crow, value), value)


def spmm(
    crow: Tensor,
    col: Tensor,
    edge: Maybe,
    weight: Maybe,
    x: Tensor,
    row_scale: Maybe,
    col_scale: Maybe,
    self_loops: float,
    bias: Maybe,
    relu: bool,
    check_weight: bool,
    found: Maybe = None,
) -> Tensor:
    wide = x.to(_wide(x.dtype))
    if col_scale is not None:
        wide = wide * col_scale[:, None]
    messages = wide.index_select(-2, col.long())
    if weight is not None:
        value = weight.to(wide.dtype)
        messages = messages * (value if edge is None else value[edge.long()])[:, None]
    y = messages.new_zeros(*x.shape[:-2], crow.shape[0] - 1, x.shape[-1])
    y = y.index_add(-2, _row(crow, col), messages)
    if self_loops != 0:
        y = y + self_loops * wide
    if row_scale is not None:
        y = y * row_scale[:, None]
    if bias is not None:
        y = y + bias
    return (torch.relu(y) if relu else y).to(x.dtype)


# ---- ConvLSTM and ConvGRU ----


def conv_lstm_cell(gates: Tensor, c: Tensor, peephole: Maybe) -> tuple[Tensor, Tensor]:
    return reference.conv_lstm_cell(gates, c, peephole)


def conv_lstm(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Maybe,
    h: Maybe,
    c: Maybe,
    mask: Maybe,
    peephole: Maybe,
    dilation: int,
    padding: str,
    algorithm: str,
    keep: str,
) -> tuple[Tensor, Tensor, Tensor]:
    if keep not in ("last", "output"):
        raise RuntimeError(
            f"the plain form of torch.ops.amstel.conv_lstm keeps nothing for a gradient, got keep={keep!r}"
        )
    flat = x.flatten(0, 1)
    if padding == "same":
        gates = same_conv(flat, weight_ih, bias, dilation)
    else:
        gates = torch.nn.functional.conv2d(flat, weight_ih, bias, dilation=dilation)
    gates = gates.unflatten(0, x.shape[:2])
    zeros = gates.new_zeros(gates.shape[1], weight_hh.shape[1], *gates.shape[3:])
    h = zeros if h is None else h
    c = zeros.to(_wide(x.dtype)) if c is None else c
    history = [h]
    for t in range(x.shape[0]):
        new_h, new_c = conv_lstm_cell(gates[t] + same_conv(h, weight_hh, None, dilation), c, peephole)
        if mask is not None:
            on = mask[t][:, None, None, None]
            new_h, new_c = torch.where(on, new_h, h), torch.where(on, new_c, c)
        h, c = new_h, new_c
        history.append(h)
    kept = torch.stack(history if keep == "output" else [h])
    # As the operator lays them out: channels last, and without gates.
    return kept.movedim(-3, -1), c[None].movedim(-3, -1), zeros.new_empty(0)


def conv_gru_gates(gates_x: Tensor, gates_h: Tensor, h: Tensor, keep: bool) -> tuple[Tensor, Tensor]:
    wide = _wide(h.dtype)
    # (onnxscript cannot split what has no known length)
    parts = (h.shape[0], 3, *h.shape[1:])
    x_r, x_z, x_n = gates_x.to(wide).reshape(parts).unbind(1)
    h_r, h_z, h_n = gates_h.to(wide).reshape(parts).unbind(1)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    n = torch.tanh(x_n + r * h_n)
    new = ((1 - z) * n + z * h.to(wide)).to(h.dtype)
    if not keep:
        return new, h.new_empty(0, 4 * h.shape[1], *h.shape[2:])
    return new, torch.cat([r, z, n, h_n], 1).to(h.dtype)


# ---- The network's input of a recurrent inference machine ----


def _input(
    eta: Tensor, gradient: Tensor, precision: Maybe, factor: float, logistic: bool, dtype: torch.dtype
) -> Tensor:
    gradient = gradient * factor
    if precision is not None:
        gradient = gradient * precision[:, None, None, None]
    if logistic:
        x = torch.sigmoid(eta)
        gradient = x * (1 - x) * gradient
    # As the operator lays it out: channels last, also under torch.vmap, which knows of no memory format.
    return torch.cat([eta, gradient], 1).to(dtype).movedim(1, -1).contiguous().movedim(-1, 1)


def rim_input(
    eta: Tensor,
    other: Tensor,
    mask: Maybe,
    precision: Maybe,
    factor: float,
    residual: bool,
    logistic: bool,
    dtype: torch.dtype,
) -> Tensor:
    if residual:
        if mask is not None:  # 0 times NaN, which may stand for what was not measured, would not be 0
            other = other.masked_fill(mask == 0, 0)
        other = (torch.sigmoid(eta) if logistic else eta) - other
        if mask is not None:
            other = mask * other
    return _input(eta, other, precision, factor, logistic, dtype)


def _matrix(size: int, scale: int, like: Tensor) -> Tensor:
    """`amstel.reference.rim.bicubic_matrix`, for sizes that are symbols too."""
    centers = (
        torch.arange(size // scale, dtype=torch.float64, device=like.device)[:, None] + 0.5
    ) * scale - 0.5
    pixels = torch.arange(size, dtype=torch.float64, device=like.device)
    matrix: Any = 0.0
    # The image, and beyond its border itself, mirrored again and again as far as the weights reach.
    copies = [pixels + 2 * turn * size for turn in (-1, 0, 1)] + [-1 - pixels, 2 * size - 1 - pixels]
    for taps in copies:
        d = (taps - centers).abs() / scale
        near, far = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
        matrix = matrix + torch.where(d <= 1, near, torch.where(d < 2, far, 0.0))
    return (matrix / matrix.sum(1, keepdim=True)).to(like.dtype)


def _matrices(height: int, width: int, scale: int, like: Tensor) -> tuple[Tensor, Tensor]:
    return _matrix(height, scale, like), _matrix(width, scale, like)


def bicubic_down(x: Tensor, minus: Maybe, scale: int) -> Tensor:
    rows, cols = _matrices(x.shape[2], x.shape[3], scale, x)
    with without_autocast(x):
        y = rows @ x @ cols.T
    return y if minus is None else y - minus


def bicubic_up(y: Tensor, scale: int) -> Tensor:
    rows, cols = _matrices(y.shape[2] * scale, y.shape[3] * scale, scale, y)
    with without_autocast(y):
        return rows.T @ y @ cols


def rim_bicubic_input(
    eta: Tensor,
    residual: Tensor,
    precision: Maybe,
    factor: float,
    scale: int,
    logistic: bool,
    dtype: torch.dtype,
) -> Tensor:
    return _input(eta, bicubic_up(residual, scale), precision, factor, logistic, dtype)


# ---- MRI, complex numbers as pairs ----


def _product(a: Tensor, b: Tensor, conjugate: bool = False) -> Tensor:
    """a b, or conj(a) b."""
    (a_re, a_im), (b_re, b_im) = a.unbind(-1), b.unbind(-1)
    if conjugate:
        a_im = -a_im
    return torch.stack([a_re * b_re - a_im * b_im, a_re * b_im + a_im * b_re], -1)


def fourier(x: Tensor, dim: int, inverse: bool) -> Tensor:
    """The orthonormal transform along rows (dim -1) or columns (dim -2) as a product with its matrix."""
    size = x.shape[dim - 1]
    index = torch.arange(size, device=x.device)
    # Reduced in integers, or the angles of a large image would lose digits.
    angle = (index[:, None] * index % size).to(x.dtype) * (2 * math.pi / size)
    re, im = torch.cos(angle) / math.sqrt(size), torch.sin(angle) / math.sqrt(size)
    if not inverse:
        im = -im
    a, b = x.unbind(-1)
    if dim == -1:
        return torch.stack([a @ re - b @ im, a @ im + b @ re], -1)
    return torch.stack([re @ a - im @ b, im @ a + re @ b], -1)


def coil_expand(x: Tensor, sensitivities: Tensor) -> Tensor:
    return _product(sensitivities, x[:, None])


def coil_reduce(images: Tensor, sensitivities: Tensor, minus: Maybe, scale: Maybe, factor: float) -> Tensor:
    y = _product(sensitivities, images, True).sum(1)
    y = (y if minus is None else y - minus) * factor
    return y if scale is None else y * scale[:, None, None, None]


def mri_normal(
    x: Tensor, mask: Tensor, sensitivities: Maybe, minus: Maybe, scale: Maybe, factor: float
) -> Tensor:
    images = x[:, None] if sensitivities is None else coil_expand(x, sensitivities)
    dims = (-1,) if mask.dim() == 1 else (-2, -1)
    for dim in dims:
        images = fourier(images, dim, False)
    weights = mask[:, None] if mask.dim() == 1 else mask[:, None, :, :, None]
    images = images * weights
    for dim in dims:
        images = fourier(images, dim, True)
    if sensitivities is not None:
        return coil_reduce(images, sensitivities, minus, scale, factor)
    y = images[:, 0]
    y = (y if minus is None else y - minus) * factor
    return y if scale is None else y * scale[:, None, None, None]


# ---- ROI pooling ----


def roi_pool(
    input: Tensor,
    rois: Tensor,
    scale: float,
    ph: int,
    pw: int,
    need_argmax: bool,
    check: bool = True,
    found: Maybe = None,
) -> tuple[Tensor, Tensor]:
    if need_argmax:
        raise RuntimeError("the plain form of torch.ops.amstel.roi_pool has no argmax, got need_argmax=True")
    return reference.roi_pool(input, rois, (ph, pw), scale), input.new_empty(0, dtype=torch.int32)


def roi_pool_gather(input: Tensor, argmax: Tensor, rois: Tensor) -> Tensor:
    channels = input.shape[1]
    channel = torch.arange(channels, device=input.device)[:, None, None]
    image = rois[:, 0].long()[:, None, None, None]
    flat = input.flatten(2)
    position = (image * channels + channel) * flat.shape[2] + argmax.clamp(min=0)
    return torch.where(argmax >= 0, flat.reshape(-1)[position], flat.new_zeros(()))


def roi_match(
    input: Tensor,
    rois: Tensor,
    query: Tensor,
    scale: float,
    ph: int,
    pw: int,
    check: bool = True,
    found: Maybe = None,
) -> Tensor:
    pooled = roi_pool(input, rois, scale, ph, pw, False)[0].flatten(1).to(_wide(input.dtype))
    return torch.stack([pooled.square().sum(1), pooled @ query.to(pooled.dtype)], 1)


def roi_align(
    input: Tensor, rois: Tensor, scale: float, ph: int, pw: int, sampling: int, aligned: bool
) -> Tensor:
    return reference.roi_align(input, rois, (ph, pw), scale, sampling, aligned)


def ps_roi_pool(input: Tensor, rois: Tensor, scale: float, ph: int, pw: int) -> Tensor:
    return reference.ps_roi_pool(input, rois, (ph, pw), scale)


PLAIN: dict[str, Any] = {
    f.__name__: f
    for f in (
        csr_from_coo, csr_transpose, edge_sum, spmm, conv_lstm_cell, conv_lstm, conv_gru_gates, rim_input, bicubic_down, bicubic_up,
        rim_bicubic_input, coil_expand, coil_reduce, mri_normal, roi_pool, roi_pool_gather, roi_match,
        roi_align, ps_roi_pool,
    )
}  # fmt: skip


def decompositions() -> dict[Any, Any]:
    """The operators of amstel in plain PyTorch, as a table for ``ExportedProgram.run_decompositions``.

    The resulting program does not need this library. It is slower, and much slower for RoI pooling and long sequences.
    `roi_align` has this form only with a sampling_ratio > 0; with the default, -1, it depends on the sizes of the boxes.

    Returns:
        {operator: function of the same signature}.

    Example:
        >>> graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1], [1, 0]]))
        >>> class Layer(torch.nn.Module):
        ...     def forward(self, x):
        ...         return amstel.ops.spmm(graph, x)
        >>> program = torch.export.export(Layer(), (torch.eye(2),))
        >>> plain = program.run_decompositions(amstel.ops.decompositions())
        >>> any("amstel" in str(node.target) for node in plain.graph.nodes)
        False
    """
    return {getattr(torch.ops.amstel, name).default: f for name, f in PLAIN.items()}
