"""ConvLSTM over a whole sequence, and its cell: the public functions and their checks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from amstel import _check, _checks
from amstel._torch import autocast_dtype, cast
from amstel.ops import (  # noqa: F401  (the second and the third register operators)
    _conv_lstm_autograd,
    _conv_lstm_fake,
    _conv_lstm_grad,
)
from amstel.ops._conv_lstm import first, sum_dtype
from amstel.ops._raw import dispatched, operators, own_gradient

State = tuple[Tensor, Tensor]

_ops = operators


def conv_lstm(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    state: State | None = None,
    *,
    lengths: Tensor | None = None,
    peephole: Tensor | None = None,
    memory: str = "store",
    dilation: int = 1,
    padding: str = "same",
    return_sequences: bool = True,
    algorithm: str = "auto",
    state_dtype: torch.dtype | None = None,
) -> tuple[Tensor, State]:
    r"""A ConvLSTM over a sequence, in one operation. With ``*`` a convolution and ``⊙`` a product of elements,

    .. code-block:: text

        a = W_ih * x_t + W_hh * h + b            in the order i, f, g, o
        i = σ(a_i + p_i ⊙ c)   f = σ(a_f + p_f ⊙ c)   g = tanh(a_g)
        c' = f ⊙ c + i ⊙ g     o = σ(a_o + p_o ⊙ c')  h' = o ⊙ tanh(c')

    Args:
        x: [T, N, C_in, H, W], float64, float32, bfloat16 or float16, T >= 1. channels_last frames are read
            without a copy. Under autocast, x, the weights and h are cast to its dtype.
        weight_ih: [4C, C_in, k_h, k_w], a kernel of any size. Both convolutions preserve height and width; an even
            kernel pads one more at the bottom and right.
        weight_hh: [4C, C, k_h', k_w'], likewise of any size.
        bias: [4C].
        state: (h_0, c_0), each [N, C, H, W], or None for zeros. Both have the dtype of x; c_0 may be float32 for
            short types.
        lengths: [N] integers from 1 to T. Values past the end of a sequence are ignored and get no gradient, the
            output there is 0, and (h_n, c_n) are those of its last step. `amstel.set_checks` says when invalid
            lengths raise an error.
        peephole: [3, C], the weights p of i, f, o, one per channel.
        memory: for the gradient, "store" keeps the activated gates, 4C numbers per pixel and step, and both states;
            "recompute" keeps only h (and c at some steps) and recomputes the rest, which takes up to 50% more
            time. Both are bit-identical; on CUDA, where the convolutions are cuDNN's, only if
            torch.backends.cudnn.deterministic is set, and otherwise equal up to rounding.
        dilation: of both convolutions.
        padding: "same", or "valid" for an input convolution without padding (the state is then smaller).
        return_sequences: False returns only the last output, [N, C, H, W], and stores one frame of it.
        state_dtype: dtype of c_n, one of those of c_0; None: that of c_0, or else of x. float32 is the dtype in which c
            is kept within a sequence of a 16-bit type, so a stream can be continued without loss of precision.
        algorithm: "auto"; "plain" for PyTorch's convolutions; or "winograd" for F(4x4, 3x3), which needs 3x3 kernels of
            h, the CPU, dilation 1, and a dtype other than float64. "auto" uses it wherever it can if C >= 8, unless
            the processor has matrix tiles (AMX) for bfloat16. Its float32 error is two to seven times that of plain
            sums, below 1e-6 of the gates from 16 to 300 channels. "auto" uses PyTorch's convolutions for an x beyond
            ±16, and for the whole sequence if x or the state has a NaN or an infinity, so that no value reaches past
            its 3x3 window.

    Returns:
        output: [T, N, C, H, W] (or [N, C, H, W]), channels_last frames; and (h_n, c_n), each [N, C, H, W],
        c_n in the dtype of c_0 if there is one. 16-bit types are summed in float32, where c is kept too;
        sigmoid and tanh are accurate to 2 units in the last place.

    Differentiable in x, both weights, bias, peephole and state, in forward mode and in torch.func too; these and higher
    derivatives go through plain PyTorch.
    Results are bit-identical from run to run. They are also the same for any number of threads, as far as this holds for
    the PyTorch operation that is used: with Winograd's algorithm, the batched matrix product that sums the gradients of
    the weights, and otherwise the convolutions. It is not guaranteed on the CPU where matrix products replace
    convolutions (weights of more than 16 MB and few pixels) or gradients (inputs with fewer than 8 channels).
    float32 convolutions on CUDA follow torch.backends.cudnn.allow_tf32, which torch sets by default. With it, results
    are accurate to about 1e-3, the 10 bits of TF32; without it, to float32. torch.compile and torch.export see one
    operation, whatever T is; ONNX sees one step after the other.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Complexity: 8 T N H W C (C_in k² + C k'²) operations, a quarter of them by Winograd's algorithm.
    Beside the outputs, the forward pass holds the gates of as many steps as fit 16 MB (at least one).

    Source: X. Shi et al., Convolutional LSTM Network, NeurIPS 2015, equation 3 (with one peephole weight per
    channel); A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016.

    Example:
        >>> x, w_ih, w_hh = torch.randn(5, 2, 3, 8, 8), torch.randn(32, 3, 3, 3), torch.randn(32, 8, 3, 3)
        >>> output, (h, c) = amstel.ops.conv_lstm(x, w_ih, w_hh)
        >>> output.shape, torch.equal(output[-1], h)
        (torch.Size([5, 2, 8, 8, 8]), True)
    """
    _check.dense("x", x, "a tensor [T, N, C_in, H, W]")
    _check.dense("weight_ih", weight_ih, "a tensor [4C, C_in, k, k]")
    _check.dense("weight_hh", weight_hh, "a tensor [4C, C, k, k]")
    x, weight_ih, weight_hh, bias, peephole = cast(autocast_dtype(x), x, weight_ih, weight_hh, bias, peephole)
    _check_sequence(x, weight_ih, weight_hh, bias, peephole, dilation, padding)
    _check_choices(weight_hh, x, memory, algorithm, dilation)
    check_state_dtype(state_dtype, x)
    h, c = _checked_states(x, weight_ih, weight_hh, state, dilation, padding)
    _check.flag("return_sequences", return_sequences)
    mask = None if lengths is None else _mask(x, lengths)
    if mask is not None:
        x = torch.where(mask[:, :, None, None, None], x, x.new_zeros(()))
    wide = c if c is None else c.to(sum_dtype(x.dtype))
    tensors = (x, weight_ih, weight_hh, bias, peephole, h, wide)
    if own_gradient(*tensors):
        output, h_n, c_n = _conv_lstm_autograd.ConvLstm.apply(
            *tensors, mask, dilation, padding, algorithm, memory, return_sequences
        )
    else:
        keep = "output" if return_sequences else "last"
        history, cells, _ = _ops.conv_lstm(
            x, weight_ih, weight_hh, bias, h, wide, mask, peephole, dilation, padding, algorithm, keep
        )
        h_n, c_n = first(history[-1]), first(cells[-1])
        output = None
        if return_sequences:
            output, h_n = first(history[1:]), h_n.clone()
    if mask is not None and output is not None:
        output = torch.where(mask[:, :, None, None, None], output, output.new_zeros(()))
    if state_dtype is None:
        state_dtype = x.dtype if c is None else c.dtype
    c_n = c_n.to(state_dtype)
    return h_n.clone() if output is None else output, (h_n, c_n)


def conv_lstm_cell(gates: Tensor, c: Tensor, peephole: Tensor | None = None) -> State:
    r"""The pointwise part of a ConvLSTM in one pass: the new h and c from the pre-activation gates and c.

    .. code-block:: text

        i = σ(a_i + p_i ⊙ c)   f = σ(a_f + p_f ⊙ c)   g = tanh(a_g)
        c' = f ⊙ c + i ⊙ g     o = σ(a_o + p_o ⊙ c')  h = o ⊙ tanh(c')

    Args:
        gates: [N, 4C, H, W] before activation, in the order i, f, g, o; float64, float32, bfloat16 or float16,
            contiguous or channels_last (other layouts are copied).
        c: [N, C, H, W] in the dtype of gates, or for short types in float32.
        peephole: [3, C], the weights p of i, f, o.

    Returns:
        h in the dtype of gates and c' in that of c, both [N, C, H, W] and in the memory layout of gates.

    Differentiable in all arguments; higher derivatives go through plain PyTorch. 16-bit types are computed in
    float32; sigmoid and tanh are accurate to 2 units in the last place. Bit-identical for any number of threads.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Complexity: gates and c are read once, and h and c' are written once (and the activated gates, for a gradient).

    Source: X. Shi et al., Convolutional LSTM Network, NeurIPS 2015, equation 3.

    Example:
        >>> h, c = amstel.ops.conv_lstm_cell(torch.zeros(1, 8, 4, 4), torch.ones(1, 2, 4, 4))
        >>> c[0, 0, 0, 0]
        tensor(0.5000)
    """
    _check.dense("gates", gates, "a tensor [N, 4C, H, W]")
    _check.dense("c", c, "a tensor [N, C, H, W]")
    if gates.dim() != 4 or gates.shape[1] % 4 or gates.dtype not in _check.FLOATS:
        _check.fail("gates", "floating-point [N, 4C, H, W]", gates)
    hidden = gates.shape[1] // 4
    shape = (gates.shape[0], hidden, *gates.shape[2:])
    _check_fits("c", c, shape, cell_dtypes(gates.dtype), gates)
    _check_peephole(peephole, hidden, gates)
    tensors = (gates, c, peephole)
    if own_gradient(*tensors):
        return _conv_lstm_autograd.Cell.apply(*tensors)
    if torch.compiler.is_compiling() or dispatched():
        return _ops.conv_lstm_cell(*tensors)
    return _conv_lstm_autograd.cell(*tensors, False)[:2]


# ---- Checks ----


def cell_dtypes(dtype: torch.dtype) -> tuple[torch.dtype, ...]:
    """Those that c may have beside gates of this one: it, and the one in which it is computed."""
    return (dtype,) if sum_dtype(dtype) == dtype else (dtype, sum_dtype(dtype))


def check_state_dtype(state_dtype: torch.dtype | None, x: Tensor) -> None:
    dtype = autocast_dtype(x) or x.dtype
    allowed = cell_dtypes(dtype)
    if state_dtype is not None and all(state_dtype is not one for one in allowed):
        names = ["None", *map(str, allowed)]
        expected = f"{', '.join(names[:-1])} or {names[-1]} with gates in {_check.name(dtype)}"
        _check.fail("state_dtype", expected, state_dtype)


def checked_state(name: str, value: Any, shape: tuple[int, ...], x: Tensor, cell: bool = False) -> Tensor:
    """h, or with `cell` c, beside x; h in the dtype in which autocast computes with x."""
    dtype = autocast_dtype(x)
    if not cell:
        (value,) = cast(dtype, value)
    dtype = dtype or x.dtype
    _check.dense(name, value, f"a tensor {list(shape)}")
    _check_fits(name, value, shape, cell_dtypes(dtype) if cell else (dtype,), x)
    return value


def _check_fits(
    name: str, t: Tensor, shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...], like: Tensor
) -> None:
    if t.shape != shape or t.dtype not in dtypes or t.device != like.device:
        _check.fail(name, f"{' or '.join(map(_check.name, dtypes))} {list(shape)} on {like.device}", t)


def _check_peephole(peephole: Tensor | None, hidden: int, like: Tensor) -> None:
    if peephole is None:
        return
    _check.dense("peephole", peephole, "a tensor [3, C]")
    _check_fits("peephole", peephole, (3, hidden), cell_dtypes(like.dtype), like)


def _check_sequence(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None,
    peephole: Tensor | None,
    dilation: int,
    padding: str,
) -> None:
    if x.dim() != 5 or x.dtype not in _check.FLOATS or x.layout != torch.strided:
        _check.fail("x", "dense floating-point [T, N, C_in, H, W]", x)
    if x.shape[0] == 0:
        _check.fail("x", "a sequence of at least one step, [T >= 1, N, C_in, H, W]", x)
    if x.shape[3] == 0 or x.shape[4] == 0:
        _check.fail("x", "at least one pixel high and wide, [T, N, C_in, H, W]", x)
    if weight_hh.dim() != 4 or weight_hh.shape[0] != 4 * weight_hh.shape[1] or 0 in weight_hh.shape:
        _check.fail("weight_hh", "[4C, C, k, k]", weight_hh)
    rows, channels = weight_hh.shape[0], x.shape[2]
    if (
        weight_ih.dim() != 4
        or weight_ih.shape[:2] != (rows, channels)
        or 0 in weight_ih.shape[2:]
        or channels == 0
    ):
        _check.fail("weight_ih", f"[{rows}, {channels}, k, k] for x {list(x.shape)}", weight_ih)
    for name, t in (("weight_ih", weight_ih), ("weight_hh", weight_hh)):
        if t.dtype != x.dtype or t.device != x.device:
            _check.fail(name, f"{_check.name(x.dtype)} on {x.device} like x", t)
    if bias is not None:
        _check.vector("bias", bias, rows, x)
    _check_peephole(peephole, rows // 4, x)
    _check.integer("dilation", dilation, 1)
    _check.choice("padding", padding, ("same", "valid"))
    if padding == "valid":
        least = [dilation * (k - 1) + 1 for k in weight_ih.shape[2:]]
        if x.shape[3] < least[0] or x.shape[4] < least[1]:
            _check.fail("x", f"at least {least[0]} high and {least[1]} wide for padding='valid'", x)


def _check_choices(weight_hh: Tensor, x: Tensor, memory: str, algorithm: str, dilation: int) -> None:
    _check.choice("memory", memory, ("store", "recompute"))
    _check.choice("algorithm", algorithm, ("auto", "plain", "winograd"))
    three = weight_hh.shape[2:] == (3, 3) and dilation == 1
    if algorithm == "winograd" and not (x.device.type == "cpu" and three and x.dtype != torch.float64):
        raise ValueError(
            "`algorithm` 'winograd' takes a 3x3 weight_hh, dilation 1 and float32, bfloat16 or float16 on the CPU, "
            f"got weight_hh {_check.describe(weight_hh)}, dilation {dilation}"
        )


def _checked_states(
    x: Tensor, weight_ih: Tensor, weight_hh: Tensor, state: State | None, dilation: int, padding: str
) -> tuple[Tensor | None, Tensor | None]:
    if state is None:
        return None, None
    if not isinstance(state, (tuple, list)) or len(state) != 2:
        raise TypeError(f"`state` must be None or (h_0, c_0), got {_check.describe(state)}")
    less = [dilation * (k - 1) if padding == "valid" else 0 for k in weight_ih.shape[2:]]
    shape = (x.shape[1], weight_hh.shape[1], x.shape[3] - less[0], x.shape[4] - less[1])
    return checked_state("h_0", state[0], shape, x), checked_state("c_0", state[1], shape, x, cell=True)


def _mask(x: Tensor, lengths: Tensor) -> Tensor:
    """[T, N]: whether the sequence has this step."""
    steps, items = x.shape[:2]
    _check.dense("lengths", lengths, "an integer tensor [N]")
    if lengths.shape != (items,) or lengths.dtype not in (torch.int32, torch.int64):
        _check.fail("lengths", f"int64 or int32 [{items}]", lengths)
    if lengths.device != x.device and lengths.is_meta:
        _check.fail("lengths", f"on {x.device} like x, or on the CPU", lengths)
    seen = _checks.visible(lengths)
    how = "off" if seen is None else _checks.how(seen)
    if seen is not None and how != "off":
        with torch._C._DisableFuncTorch():
            wrong = (seen < 1) | (seen > steps)
            if how == "async":
                _checks.notes_of(seen).note("lengths", wrong)
            elif bool(wrong.any()):
                at = wrong.nonzero()[0].tolist()
                raise ValueError(
                    f"`lengths` must be from 1 to {steps} (T), got {int(seen[tuple(at)])} at position {at[-1]}"
                )
    if lengths.device != x.device:
        # Without waiting for the device; memory that is not pinned is copied aside at once.
        lengths = lengths.to(x.device, non_blocking=_checks.hidden(lengths) or not lengths.is_pinned())
    return torch.arange(steps, device=x.device)[:, None] < lengths
