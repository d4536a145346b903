"""The forward pass of `amstel.ops.conv_lstm`: what is prepared before the steps. `_conv_lstm_grad` is the backward pass.

Registered as the operator amstel::conv_lstm, so that a compiler sees one operation whatever T is. The steps run one
after another in C++ (csrc/common/conv_lstm_steps.cpp); here is what comes before: the gates of all inputs, the weights
as the steps want them, the division of long sequences. Images are channels last throughout, [..., H, W, channels] and
contiguous. The convolutions are PyTorch's, but for 3x3 kernels on the CPU, which go through Winograd's algorithm
(csrc/cpu/kernels/winograd.inl.h) with weights transformed once a sequence.

Memory is bounded by parts: where a gradient will be asked the batch is cut into groups of items, and every
group goes through its sequence in chunks of steps. Parts are a function of shapes alone and the same in both
passes, so that gates that are computed again go through the same kernels on the same shapes, to the same bits.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, fold, pad, unfold

from amstel.ops._processor import AMX, MULTIPLIED, heavy_product, weight_of_heavy_product
from amstel.ops._raw import operators

_ops = operators
_PART = {"cpu": 1 << 24, "cuda": 1 << 28}  # bytes of gates that a part holds, if the weights are not larger
_FEW = 1024  # pixels, of which heavy weights are multiplied as they are
CHECKPOINTS = 8  # chunks at most, at whose beginnings c is kept
# Values up to this one leave Winograd's algorithm within 1e-6 of plain sums, at the pixels beside them too.
LARGE = 16.0


def last(x: Tensor) -> Tensor:
    """[..., C, H, W] as contiguous [..., H, W, C]; no copy of a channels_last tensor."""
    return x.movedim(-3, -1).contiguous()


def first(x: Tensor) -> Tensor:
    """[..., H, W, C] as a channels_last [..., C, H, W]."""
    return x.movedim(-1, -3)


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def largest(*tensors: Tensor | None) -> float:
    """The largest magnitude; NaN or infinity if there is any."""
    ends = [abs(float(end)) for t in tensors if t is not None and t.numel() for end in torch.aminmax(t)]
    return math.nan if any(end != end for end in ends) else max(ends, default=0.0)


def on_cuda(t: Tensor) -> bool:
    return t.is_cuda


class Plain:
    """PyTorch's convolution of channels-last images; an even kernel pads one more below and to the right.

    On CUDA fewer than 8 input channels are filled up with zeros to 8: cuDNN's kernels for tensor cores read 16 bytes.
    On the CPU heavy weights, which a convolution lays out anew at every call, are for few pixels one matrix product as
    they are; so are the gradients of few input channels, for which a convolution's kernels are much too wide; and short
    types that it does not multiply are computed in float32.
    """

    def __init__(self, weight: Tensor, dilation: int, padding: str):
        wide = weight.is_cpu and not MULTIPLIED.get(weight.dtype, True)
        self.dtype = torch.float32 if wide else weight.dtype
        self.raw, self.inputs, self.dilation = weight, weight.shape[1], dilation
        # Windows of the input, as a product reads them, are no larger than the result.
        few = self.inputs < 8 and weight[0].numel() <= len(weight)
        self.narrow = not on_cuda(weight) and few and self.dtype != torch.float16
        self.filled = max(0, 8 - self.inputs) if on_cuda(weight) and weight.dtype != torch.float64 else 0
        total = [dilation * (k - 1) if padding == "same" else 0 for k in weight.shape[2:]]
        self.padding = [t // 2 for t in total]
        self.odd = [t % 2 for t in total]
        self.less = [dilation * (k - 1) - t for k, t in zip(weight.shape[2:], total, strict=True)]
        self.window: Any = dict(kernel_size=weight.shape[2:], dilation=dilation, padding=self.padding)

    @cached_property
    def given(self) -> Tensor:
        return self.raw.to(self.dtype)

    @cached_property
    def weight(self) -> Tensor:
        weight = pad(self.given, (0, 0, 0, 0, 0, self.filled)) if self.filled else self.given
        return weight.contiguous(memory_format=torch.channels_last)

    def _padded(self, x: Tensor) -> Tensor:
        x = x.to(self.dtype)
        if any(self.odd) or self.filled:
            x = pad(x, (0, self.filled, 0, self.odd[1], 0, self.odd[0]))
        return first(x)

    def _is_product(self, pixels: int) -> bool:
        w = self.raw
        short = self.dtype == torch.float16
        return w.is_cpu and not short and pixels <= _FEW and _weights_bytes(w) > _PART["cpu"]

    def of_steps(self, pixels: int) -> Tensor:
        """The weight for steps of so many pixels: laid out for a convolution, or as it is for one product."""
        return weight_of_heavy_product(self.given.flatten(1)) if self._is_product(pixels) else self.weight

    def _windows(self, x: Tensor) -> Tensor:
        """[n, pixels, C k k]: what each pixel of the result sees of x."""
        return unfold(self._padded(x), **self.window).mT

    def __call__(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        height, width = (size - less for size, less in zip(x.shape[1:3], self.less, strict=True))
        bias = bias if bias is None else bias.to(self.dtype)
        if self._is_product(len(x) * height * width):
            # Of two dimensions: for each image by itself the weights would be read again.
            y = heavy_product(self._windows(x).flatten(0, 1), self.given.flatten(1), bias)
            return y.view(len(x), height, width, len(self.raw)).to(x.dtype)
        # Padded evenly on both sides and once more at the end, an even kernel gives a row and a column too many.
        y = conv2d(self._padded(x), self.weight, bias, padding=self.padding, dilation=self.dilation)
        return last(y).to(x.dtype)

    def backward(self, grad: Tensor, x: Tensor | None, shape: tuple[int, ...]) -> Tensor:
        """Gradient of the weight, or without x that of the input, of `shape` [n, H, W, C]."""
        n, height, width, channels = shape
        size, dtype, grad = (height + self.odd[0], width + self.odd[1]), grad.dtype, grad.to(self.dtype)
        # Sums over a window of rounded products would lose bits of short types.
        if (self.narrow or self._is_product(math.prod(grad.shape[:3]))) and (
            x is not None or grad.dtype == sum_dtype(grad.dtype)
        ):
            rows = grad.flatten(1, 2)
            if x is not None:
                return (rows.flatten(0, 1).mT @ self._windows(x).flatten(0, 1)).view_as(self.given)
            spread = fold((rows @ self.given.flatten(1)).mT, size, **self.window)
            return last(spread[:, :, :height, :width]).to(dtype)
        if x is None:  # only its shape is looked at
            like = first(_shaped(grad, (n, *size, channels + self.filled)))
        else:
            like = self._padded(x)
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            first(grad), like, self.weight, None, [1, 1], self.padding, [self.dilation] * 2, False, [0, 0], 1,
            [x is None, x is not None, False],
        )  # fmt: skip
        if x is None:
            return last(grad_x[:, :channels, :height, :width]).to(dtype)
        return grad_weight[:, : self.inputs]


def _shaped(memory: Tensor, size: tuple[int, ...]) -> Tensor:
    """Something of this size, whose values do not matter. On CUDA its layout does: where it is not that of the gradient,
    cuDNN's gradient is transposed there and back."""
    if not on_cuda(memory):
        return memory.new_empty(1).expand(size)
    count = math.prod(size)
    return (memory.view(-1)[:count] if count <= memory.numel() else memory.new_empty(count)).view(size)


def parts(count: int, size: int) -> list[slice]:
    """Nearly equal ranges of at most `size`, at least one."""
    pieces = max(1, -(-count // max(1, size)))
    return [slice(count * k // pieces, count * (k + 1) // pieces) for k in range(pieces)]


def _weights_bytes(*weights: Tensor) -> int:
    return sum(w.numel() * w.element_size() for w in weights)


def _division(
    x: Tensor, weight_ih: Tensor, weight_hh: Tensor, size: tuple[int, int], grouped: bool
) -> tuple[bool, list[slice], list[slice]]:
    """Whether the weights are heavy, the groups of items, and the chunks of steps; `grouped`: for a gradient."""
    steps, items = x.shape[:2]
    pixels = math.prod(size)
    item = pixels * weight_hh.shape[0] * x.element_size()
    part, weights = _PART["cpu" if x.is_cpu else "cuda"], _weights_bytes(weight_ih, weight_hh)
    limit = max(part, weights)
    # A group has pixels enough that a step of it is worth its weights.
    least = -(-1024 // max(1, pixels)) if grouped else items
    # On CUDA all items go together wherever a chunk of them fits: convolutions of few pixels leave it idle.
    together = -(-steps // CHECKPOINTS) if on_cuda(x) else steps
    groups = parts(items, max(least, limit // max(1, item * together)))
    long = limit // max(1, -(-items // len(groups)) * item)
    chunks = parts(steps, max(long, -(-steps // CHECKPOINTS)) if grouped else long)
    # Transformed weights, four times as large, are made again for every chunk rather than kept side by side.
    return weights > part, groups, chunks


def checkpoints(x: Tensor, weight_ih: Tensor, weight_hh: Tensor, size: tuple[int, int]) -> int:
    """How many states, from the first one on, the operator fills where it keeps but the state."""
    return len(_division(x, weight_ih, weight_hh, size, True)[2])


class Plan:
    """How a sequence of these shapes is computed."""

    def __init__(
        self,
        x: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias: Tensor | None,
        dilation: int,
        padding: str,
        algorithm: str,
        grouped: bool,
        h: Tensor | None = None,
        c: Tensor | None = None,
    ):
        self.steps, self.items, self.inputs, height, width = x.shape
        self.hidden = weight_hh.shape[1]
        self.input_size = (height, width)
        if padding == "valid":
            height -= dilation * (weight_ih.shape[2] - 1)
            width -= dilation * (weight_ih.shape[3] - 1)
        self.size = (height, width)
        self.dtype, self.sum = x.dtype, sum_dtype(x.dtype)
        self.weight_ih, self.weight_hh = weight_ih, weight_hh
        self.dilation, self.padding, self.kernel = dilation, padding, list(weight_hh.shape[2:])

        self.heavy, self.groups, self.chunks = _division(x, weight_ih, weight_hh, self.size, grouped)
        group = -(-self.items // len(self.groups))
        cuda = on_cuda(x)

        three = weight_hh.shape[2:] == (3, 3) and dilation == 1
        # Heavy weights are transformed and then read, four times as large, for whatever tiles a part has.
        self.winograd = algorithm == "winograd" or (
            algorithm == "auto"
            and not (self.heavy and self.steps * group * -(-height // 4) * -(-width // 4) < 24)
            and x.is_cpu
            and three
            and self.hidden >= 8
            and x.dtype != torch.float64
            and not (AMX and x.dtype == torch.bfloat16)
        )
        # Within a tile the rounding of the largest value reaches all pixels, and NaN and infinity do. h stays in [-1, 1].
        large = largest(x, h) if self.winograd else 0.0
        if self.winograd and algorithm == "auto":
            self.winograd = math.isfinite(large + largest(c)) and (h is None or largest(h) <= LARGE)
        like_hh = self.winograd and weight_ih.shape[2:] == (3, 3) and padding == "same"
        like_hh = like_hh and (algorithm == "winograd" or large <= LARGE)
        # Worth it where the transformed input is used for many outputs.
        self.winograd_input = like_hh and self.inputs >= 8
        # x joins h in one product over channels, so that gates of the input are never written; with few tiles a
        # step the weights, which then are read at every step, cost more.
        tiles = group * -(-height // 4) * -(-width // 4)
        self.join = like_hh and (tiles >= 64 or 8 * self.inputs <= self.hidden)
        self.bias = bias if bias is None or not self.winograd else bias.float()
        self.packed: Tensor | None = None
        self.packed_input: Tensor | None = None
        self.recurrent = None if self.winograd else Plain(weight_hh, dilation, "same")
        # Of few channels and many pixels a step is bound by memory: one convolution of h and x, whose gates are
        # written once, beats two.
        self.joined: Plain | None = None
        same = padding == "same" and weight_ih.shape[2:] == weight_hh.shape[2:]
        if cuda and same and not self.winograd and self.dtype != torch.float64 and self._memory_bound(group):
            self._join()

    def _memory_bound(self, items: int) -> bool:
        pixels, short = items * math.prod(self.size), self.dtype != torch.float32
        if self.hidden + self.inputs <= 256:
            return pixels >= (4096 if short else 8192)
        return (
            not short and pixels < 1024
        )  # and of few pixels in TF32 cuDNN is slower where there is less to do

    def _join(self) -> None:
        weight = torch.cat([self.weight_hh, self.weight_ih], 1)
        self.joined = Plain(pad(weight, (0, 0, 0, 0, 0, -weight.shape[1] % 8)), self.dilation, "same")
        self.bias_row = None if self.bias is None else self.bias.to(self.dtype)[None].contiguous()

    def beside(self, h: Tensor, xs: Tensor) -> Tensor | None:
        """Where steps join h and x: [steps + 1, n, H, W, channels] with h before the first one, the x of each, and zeros
        up to a multiple of 8 channels; every step writes its h behind itself."""
        if self.joined is None:
            return None
        found = self.empty(len(xs) + 1, xs.shape[1], channels=self.joined.inputs)
        found[:-1, ..., self.hidden : self.hidden + self.inputs] = xs
        found[:-1, ..., self.hidden + self.inputs :] = 0
        found[0, ..., : self.hidden] = h
        return found

    def empty(self, *leading: int, channels: int, dtype: torch.dtype | None = None) -> Tensor:
        return self.weight_hh.new_empty(*leading, *self.size, channels, dtype=dtype or self.dtype)

    def input_gates(self, x: Tensor) -> Tensor | None:
        """The gates of the steps x [k, n, H, W, C_in], all at once; None where each step adds its own."""
        if self.join or self.joined is not None:
            return None
        flat = x.flatten(0, 1)
        if self.winograd_input:
            if self.packed_input is None:
                self.packed_input = _ops.winograd_weight(self.weight_ih.float().contiguous(), False, False)
            out = x.new_empty(*flat.shape[:1], *self.size, 4 * self.hidden)
            _ops.winograd_conv(flat, self.packed_input, self.bias, out)
            if self.heavy:
                self.packed_input = None
        else:
            bias = self.bias if self.bias is None else self.bias.to(self.dtype)
            out = Plain(self.weight_ih, self.dilation, self.padding)(flat, bias)
        return out.unflatten(0, x.shape[:2])

    def release(self) -> None:
        """The steps of a chunk are done: their weights may go."""
        if self.heavy:
            self.packed = None

    def run(
        self,
        h: Tensor,
        c: Tensor,
        x: Tensor,
        gates: Tensor | None,
        mask: Tensor | None,
        peephole: Tensor | None,
        activated: Tensor | None = None,
        first: int = 0,
    ) -> None:
        """The steps x [k, n, H, W, C_in] of a chunk, from frame `first` of h on, which is followed by what they give."""
        joined = bias = None
        if self.winograd:
            if self.packed is None:
                weight = torch.cat([self.weight_hh, self.weight_ih], 1) if self.join else self.weight_hh
                self.packed = _ops.winograd_weight(weight.float().contiguous(), False, True)
            weight = self.packed
            joined, bias = (x if self.join else None), (self.bias if gates is None else None)
        elif self.joined is not None:  # h has x beside it
            weight, bias = self.joined.weight, self.bias_row
        else:
            assert self.recurrent is not None
            weight = self.recurrent.of_steps(h.shape[1] * math.prod(self.size))
        _ops.conv_lstm_steps(
            h, c, joined, gates, weight, bias, mask, peephole, activated, self.kernel, self.dilation, first
        )


def _initial(state: Tensor | None, out: Tensor) -> None:
    if state is None:
        out.zero_()
    else:
        out.copy_(state.movedim(-3, -1))


def conv_lstm(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None,
    h0: Tensor | None,
    c0: Tensor | None,
    mask: Tensor | None,
    peephole: Tensor | None,
    dilation: int,
    padding: str,
    algorithm: str,
    keep: str,
) -> tuple[Tensor, Tensor, Tensor]:
    kept = keep in ("state", "gates")
    plan = Plan(x, weight_ih, weight_hh, bias, dilation, padding, algorithm, kept, h0, c0)
    steps, items, hidden = plan.steps, plan.items, plan.hidden
    peephole = peephole if peephole is None else peephole.to(plan.sum).contiguous()
    # A state that is not kept alternates between two frames: a step reads the neighbors of what it writes.
    h = plan.empty(2 if keep == "last" else steps + 1, items, channels=hidden)
    # Of c the gradient needs every step with the gates, else where a chunk begins.
    count = {"gates": steps, "state": min(steps, CHECKPOINTS)}.get(keep, 0) + 1
    c = plan.empty(count, items, channels=hidden, dtype=plan.sum)
    gates = plan.empty(steps if keep == "gates" else 0, items, channels=4 * hidden)
    _initial(h0, h[0])
    _initial(c0, c[0])
    for group in plan.groups:
        for k, chunk in enumerate(plan.chunks):
            xs = last(x[chunk, group])
            hoisted = plan.input_gates(xs)
            beside = plan.beside(h[chunk.start % len(h), group], xs)
            if keep == "state":
                c[k + 1, group] = c[k, group]
            on = None if mask is None else mask[chunk, group]
            own = {"gates": slice(chunk.start, chunk.stop + 1), "state": slice(k + 1, k + 2)}
            cells = c[own.get(keep, slice(1)), group]
            frames, start = (h[:, group], chunk.start) if beside is None else (beside, 0)
            activated = gates[chunk, group] if keep == "gates" else None
            plan.run(frames, cells, xs, hoisted, on, peephole, activated, start)
            if beside is not None:
                if keep == "last":
                    h[chunk.stop % 2, group] = beside[-1, ..., : plan.hidden]
                else:
                    h[chunk.start + 1 : chunk.stop + 1, group] = beside[1:, ..., : plan.hidden]
            plan.release()
    if keep == "last":
        h = h[steps % 2 : steps % 2 + 1].clone()
    if keep == "state":
        c[-1] = c[len(plan.chunks)]
    return h, c, gates


for _device in ("CPU", "CUDA"):
    torch.library.impl("amstel::conv_lstm", _device)(conv_lstm)
