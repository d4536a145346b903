"""The sequence of `amstel.ops.conv_lstm`, forward and backward, as steps of kernels and convolutions.

Registered as the operators amstel::conv_lstm and amstel::conv_lstm_grad, so that a compiler sees one operation
whatever T is. Images are channels last throughout, [..., H, W, channels] and contiguous. The convolutions are
PyTorch's, but for 3x3 kernels on the CPU, which go through Winograd's algorithm (csrc/cpu/kernels/winograd.inl.h)
with weights transformed once a sequence.

Memory is bounded by parts: where a gradient will be asked the batch is cut into groups of items, and every
group goes through its sequence in chunks of steps. Parts are a function of shapes alone and the same in both
passes, so that gates that are computed again go through the same kernels on the same shapes, to the same bits.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from amstel.ops._raw import operators

_ops = operators
_PART = {"cpu": 1 << 24, "cuda": 1 << 28}  # bytes of gates that a part holds, if the weights are not larger
_PLANES = 1 << 26  # bytes of transformed weight gradients that are worth one product for both weights
_TILES = 128  # in a product of transformed tiles
CHECKPOINTS = 8  # chunks at most, at whose beginnings c is kept
# Values up to this one leave Winograd's algorithm within 1e-6 of plain sums, at the pixels beside them too.
LARGE = 16.0
# Tiles of bfloat16 in hardware outdo Winograd's algorithm, which here is float32.
_AMX = bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())


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
    ends = [end for t in tensors if t is not None and t.numel() for end in torch.aminmax(t)]
    return float(torch.stack(ends).abs().max()) if ends else 0.0


class _Plain:
    """PyTorch's convolution of channels-last images; an even kernel pads one more below and to the right."""

    def __init__(self, weight: Tensor, dilation: int, padding: str):
        self.weight, self.dilation = weight.contiguous(memory_format=torch.channels_last), dilation
        total = [dilation * (k - 1) if padding == "same" else 0 for k in weight.shape[2:]]
        self.padding = [t // 2 for t in total]
        self.odd = [t % 2 for t in total]

    def _padded(self, x: Tensor) -> Tensor:
        return pad(first(x), (0, self.odd[1], 0, self.odd[0])) if any(self.odd) else first(x)

    def __call__(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        # Padded evenly on both sides and once more at the end, an even kernel gives a row and a column too many.
        y = conv2d(self._padded(x), self.weight, bias, padding=self.padding, dilation=self.dilation)
        return last(y)

    def backward(self, grad: Tensor, x: Tensor | None, shape: tuple[int, ...]) -> Tensor:
        """Gradient of the weight, or without x that of the input, of `shape` [n, H, W, C]."""
        n, height, width, channels = shape
        if x is None:  # only its shape is looked at
            like = first(grad.new_empty(1).expand(n, height + self.odd[0], width + self.odd[1], channels))
        else:
            like = self._padded(x)
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            first(grad), like, self.weight, None, [1, 1], self.padding, [self.dilation] * 2, False, [0, 0], 1,
            [x is None, x is not None, False],
        )  # fmt: skip
        return last(grad_x[:, :, :height, :width]) if x is None else grad_weight


def parts(count: int, size: int) -> list[slice]:
    """Nearly equal ranges of at most `size`, at least one."""
    pieces = max(1, -(-count // max(1, size)))
    return [slice(count * k // pieces, count * (k + 1) // pieces) for k in range(pieces)]


def _weights_bytes(*weights: Tensor) -> int:
    return sum(w.numel() * w.element_size() for w in weights)


class _Plan:
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
        self.dilation, self.padding = dilation, padding

        item = height * width * 4 * self.hidden * x.element_size()
        part, weights = _PART["cpu" if x.is_cpu else "cuda"], _weights_bytes(weight_ih, weight_hh)
        limit = max(part, weights)
        # Transformed weights, four times as large, are made again for every chunk rather than kept side by side.
        self.heavy = weights > part
        # A group has pixels enough that a step of it is worth its weights.
        least = -(-1024 // max(1, height * width)) if grouped else self.items
        self.groups = parts(self.items, max(least, limit // max(1, item * self.steps)))
        group = -(-self.items // len(self.groups))
        size = limit // max(1, group * item)
        self.chunks = parts(self.steps, max(size, -(-self.steps // CHECKPOINTS)) if grouped else size)

        three = weight_hh.shape[2:] == (3, 3) and dilation == 1
        self.winograd = algorithm == "winograd" or (
            algorithm == "auto"
            and x.is_cpu
            and three
            and self.hidden >= 8
            and x.dtype != torch.float64
            and not (_AMX and x.dtype == torch.bfloat16)
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
        self.recurrent = None if self.winograd else _Plain(weight_hh, dilation, "same")

    def empty(self, *leading: int, channels: int, dtype: torch.dtype | None = None) -> Tensor:
        return self.weight_hh.new_empty(*leading, *self.size, channels, dtype=dtype or self.dtype)

    def input_gates(self, x: Tensor) -> Tensor | None:
        """The gates of the steps x [k, n, H, W, C_in], all at once; None where each step adds its own."""
        if self.join:
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
            out = _Plain(self.weight_ih, self.dilation, self.padding)(flat, bias)
        return out.unflatten(0, x.shape[:2])

    def release(self) -> None:
        """The steps of a chunk are done: their weights may go."""
        if self.heavy:
            self.packed = None

    def step(
        self,
        x: Tensor,
        gates: Tensor | None,
        h: Tensor,
        c: Tensor,
        peephole: Tensor | None,
        h_out: Tensor,
        c_out: Tensor,
        activated: Tensor | None,
    ) -> None:
        if self.winograd:
            if self.packed is None:
                weight = torch.cat([self.weight_hh, self.weight_ih], 1) if self.join else self.weight_hh
                self.packed = _ops.winograd_weight(weight.float().contiguous(), False, True)
            bias = self.bias if gates is None else None
            joined = x if self.join else None
            _ops.winograd_lstm(h, joined, self.packed, gates, bias, c, peephole, h_out, c_out, activated)
            return
        assert gates is not None and self.recurrent is not None
        rows = [t if t is None else t.view(-1, t.shape[-1]) for t in (c, h_out, c_out, activated)]
        both = [t.view(-1, 4 * self.hidden) for t in (gates, self.recurrent(h))]
        _ops.conv_lstm_gates(*both, rows[0], peephole, *rows[1:])


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
    plan = _Plan(x, weight_ih, weight_hh, bias, dilation, padding, algorithm, kept, h0, c0)
    steps, items, hidden = plan.steps, plan.items, plan.hidden
    peephole = peephole if peephole is None else peephole.to(plan.sum).contiguous()
    # A state that is not kept alternates between two frames: a step reads the neighbors of what it writes.
    h = plan.empty(2 if keep == "last" else steps + 1, items, channels=hidden)
    # Of c the gradient needs every step with the gates, else where a chunk begins.
    frames = {"gates": steps, "state": min(steps, CHECKPOINTS)}.get(keep, 0)
    c = plan.empty(frames + 1, items, channels=hidden, dtype=plan.sum)
    gates = plan.empty(steps if keep == "gates" else 0, items, channels=4 * hidden)
    _initial(h0, h[0])
    _initial(c0, c[0])
    for group in plan.groups:
        for k, chunk in enumerate(plan.chunks):
            xs = last(x[chunk, group])
            hoisted = plan.input_gates(xs)
            if keep == "state":
                c[k + 1, group] = c[k, group]
            for t in range(chunk.start, chunk.stop):
                source, target = h[t % len(h), group], h[(t + 1) % len(h), group]
                at = (t, t + 1) if keep == "gates" else (k + 1,) * 2 if keep == "state" else (0, 0)
                c_source, c_target = c[at[0], group], c[at[1], group]
                on = None if mask is None else mask[t, group, None, None, None]
                before = c_source.clone() if on is not None else c_source
                plan.step(
                    xs[t - chunk.start],
                    None if hoisted is None else hoisted[t - chunk.start],
                    source,
                    c_source,
                    peephole,
                    target,
                    c_target,
                    gates[t, group] if keep == "gates" else None,
                )
                if on is not None:
                    target.copy_(torch.where(on, target, source))
                    c_target.copy_(torch.where(on, c_target, before))
            plan.release()
    if keep == "last":
        h = h[steps % 2 : steps % 2 + 1].clone()
    if keep == "state":
        c[-1] = c[len(plan.chunks)]
    return h, c, gates


def conv_lstm_grad(
    grad_output: Tensor | None,
    grad_h: Tensor | None,
    grad_c: Tensor | None,
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    peephole: Tensor | None,
    h: Tensor,
    c: Tensor,
    gates: Tensor | None,
    dilation: int,
    padding: str,
    algorithm: str,
    needs: list[bool],
) -> list[Tensor]:
    need_x, need_ih, need_hh, need_bias, need_peephole, need_h, need_c = needs
    plan = _Plan(x, weight_ih, weight_hh, bias, dilation, padding, algorithm, True, h[0], c[0])
    hidden = plan.hidden
    dtype = x.dtype if peephole is None else peephole.dtype
    peephole = peephole if peephole is None else peephole.to(plan.sum).contiguous()
    back = _Backward(plan, need_ih, need_hh)
    none = x.new_empty(0)
    grad_x = x.new_empty(plan.steps, plan.items, *plan.input_size, plan.inputs) if need_x else none
    grad_h0 = plan.empty(plan.items, channels=hidden) if need_h else none
    grad_c0 = plan.empty(plan.items, channels=hidden, dtype=plan.sum) if need_c else none
    sums = []
    for group in plan.groups:
        dh = None if grad_h is None else last(grad_h[group])
        dc = None if grad_c is None else last(grad_c[group])
        for k, chunk in reversed(list(enumerate(plan.chunks))):
            final = group.stop == plan.items and k == 0
            xs = last(x[chunk, group]) if need_ih or gates is None else None
            hs = h[chunk, group]
            if gates is None:
                assert xs is not None
                activated, cells = _recompute(plan, xs, hs, c[k, group], mask, group, chunk, peephole)
                grad_gates = activated  # nobody reads them after
                plan.release()
            else:
                activated, cells = gates[chunk, group], c[chunk.start : chunk.stop + 1, group]
                grad_gates = torch.empty_like(activated, memory_format=torch.contiguous_format)
            for t in reversed(range(len(activated))):
                out = None if grad_output is None else last(grad_output[chunk.start + t, group])
                passed_h = passed_c = None
                if mask is not None:
                    # A step that keeps its state hands the gradients on.
                    on = mask[chunk.start + t, group, None, None, None]
                    total = dh if out is None else out if dh is None else out + dh
                    out = None
                    if total is not None:
                        passed_h, dh = _split(on, total)
                    if dc is not None:
                        passed_c, dc = _split(on, dc)
                dc_next = torch.empty_like(cells[t], memory_format=torch.contiguous_format)
                rows = [
                    s if s is None else s.view(-1, s.shape[-1])
                    for s in (activated[t], cells[t], cells[t + 1], out, dh, dc, dc_next, grad_gates[t])
                ]
                sums.append(_ops.conv_lstm_gates_grad(*rows[:3], peephole, *rows[3:], need_bias))
                dc = dc_next
                if chunk.start + t > 0 or need_h:
                    dh = back.recurrent(grad_gates[t])
                    if passed_h is not None:
                        dh += passed_h
                if passed_c is not None:
                    dc += passed_c
            back.release()
            if need_x:
                grad_x[chunk, group] = back.input(grad_gates)
                back.release()
            back.add_weights(xs, hs, grad_gates, final)
        if need_h:
            grad_h0[group] = dh  # type: ignore[assignment]
        if need_c:
            grad_c0[group] = dc  # type: ignore[assignment]
    columns = torch.cat(sums)
    total = _ops.epilogue_grad(columns, None)[1] if columns.shape[1] else columns
    grads = [
        first(grad_x) if need_x else None,
        back.grads["ih"].to(x.dtype).contiguous() if need_ih else None,
        back.grads["hh"].to(x.dtype).contiguous() if need_hh else None,
        total[: 4 * hidden].to(x.dtype, copy=True) if need_bias else None,
        total[-3 * hidden :].view(3, hidden).to(dtype, copy=True) if need_peephole else None,
        first(grad_h0) if need_h else None,
        first(grad_c0) if need_c else None,
    ]
    return [x.new_empty(0) if g is None else g for g in grads]


def _split(steps_on: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    zero = grad.new_zeros(())
    return torch.where(steps_on, zero, grad), torch.where(steps_on, grad, zero)


def _recompute(
    plan: _Plan,
    xs: Tensor,
    hs: Tensor,
    c: Tensor,
    mask: Tensor | None,
    group: slice,
    chunk: slice,
    peephole: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The activated gates of a chunk, and c before and after each of its steps, as the forward pass had them."""
    gates = plan.input_gates(xs)
    activated = plan.empty(*xs.shape[:2], channels=4 * plan.hidden) if gates is None else gates
    cells = plan.empty(len(xs) + 1, xs.shape[1], channels=plan.hidden, dtype=plan.sum)
    cells[0] = c
    spare = torch.empty_like(hs[0], memory_format=torch.contiguous_format)
    for t in range(len(xs)):
        own = None if gates is None else gates[t]
        plan.step(xs[t], own, hs[t], cells[t], peephole, spare, cells[t + 1], activated[t])
        if mask is not None:
            on = mask[chunk.start + t, group, None, None, None]
            cells[t + 1] = torch.where(on, cells[t + 1], cells[t])
    return activated, cells


class _Backward:
    """The convolutions of the backward pass: of one step to h, of a chunk to x and to the weights."""

    def __init__(self, plan: _Plan, need_ih: bool, need_hh: bool):
        self.plan = plan
        self.needs = {"hh": need_hh, "ih": need_ih}
        self.winograd = {"hh": plan.winograd, "ih": plan.winograd_input}
        self.plain = {
            "hh": _Plain(plan.weight_hh, plan.dilation, "same"),
            "ih": _Plain(plan.weight_ih, plan.dilation, plan.padding),
        }
        self.weights = {"hh": plan.weight_hh, "ih": plan.weight_ih}
        self.grads: dict[str, Tensor] = {}
        self.packed: dict[str, Tensor] = {}
        self.planes: dict[str, Tensor] = {}

    def release(self) -> None:
        """Transformed weights may go before others come."""
        if self.plan.heavy:
            self.packed.clear()

    def _transposed(self, which: str, grad: Tensor, shape: tuple[int, ...]) -> Tensor:
        if not self.winograd[which]:
            return self.plain[which].backward(grad, None, shape)
        if which not in self.packed:
            self.packed[which] = _ops.winograd_weight(self.weights[which].float().contiguous(), True, False)
        out = grad.new_empty(shape)
        _ops.winograd_conv(grad, self.packed[which], None, out)
        return out

    def recurrent(self, grad: Tensor) -> Tensor:
        """Gradient of h from that of the gates, [n, H, W, 4C]."""
        return self._transposed("hh", grad, (*grad.shape[:3], self.plan.hidden))

    def input(self, grad: Tensor) -> Tensor:
        """Gradient of x for the steps of a chunk, from that of their gates [k, n, H, W, 4C]."""
        flat = grad.flatten(0, 1)
        shape = (len(flat), *self.plan.input_size, self.plan.inputs)
        return self._transposed("ih", flat, shape).unflatten(0, grad.shape[:2])

    def add_weights(self, xs: Tensor | None, hs: Tensor, grad: Tensor, final: bool) -> None:
        """The share of a chunk in the gradients of the weights."""
        flat = grad.flatten(0, 1)
        images = {
            name: image.flatten(0, 1)
            for name, image in (("hh", hs), ("ih", xs))
            if self.needs[name] and image is not None
        }
        for name in [name for name in images if not self.winograd[name]]:
            image = images.pop(name)
            part = self.plain[name].backward(flat, image, image.shape)
            self.grads[name] = self.grads[name] + part if name in self.grads else part
        width = sum(image.shape[-1] for image in images.values())
        together = 36 * 4 * width * flat.shape[-1] <= _PLANES
        for names in [list(images)] if together else [[name] for name in images]:
            self._add_planes(names, [images[name].contiguous() for name in names], flat, final)

    def _add_planes(self, names: list[str], images: list[Tensor], grad: Tensor, final: bool) -> None:
        if not names:
            return
        key = " ".join(names)
        widths, outputs = [image.shape[-1] for image in images], grad.shape[-1]
        height, width = self.plan.size
        tiles = len(grad) * -(-height // 4) * -(-width // 4)
        for part in parts(tiles, _TILES):
            v = grad.new_empty(36, part.stop - part.start, sum(widths), dtype=torch.float32)
            m = grad.new_empty(36, part.stop - part.start, outputs, dtype=torch.float32)
            offset = 0
            for image in images:
                _ops.winograd_planes(image, False, part.start, offset, v)
                offset += image.shape[-1]
            _ops.winograd_planes(grad, True, part.start, 0, m)
            if key in self.planes:
                self.planes[key].baddbmm_(v.mT, m)
            else:
                self.planes[key] = torch.bmm(v.mT, m)
        if not final:
            return
        # G^T along both axes of the 6x6 planes, [36, inputs, outputs] -> [outputs, inputs, 3, 3]
        planes, transform = self.planes.pop(key), _weight_transform(grad.device)
        whole = transform.T @ (transform.T @ planes.view(6, -1)).view(3, 6, -1)
        found = whole.view(9, sum(widths), outputs).permute(2, 1, 0)
        for name, part in zip(names, found.split(widths, 1), strict=True):
            self.grads[name] = part.reshape(outputs, -1, 3, 3)


def _weight_transform(device: torch.device) -> Tensor:
    """G [6, 3] of F(4x4, 3x3) at the points of csrc/cpu/kernels/winograd.inl.h."""
    a, b = 0.625, 1.5
    rows = [[1 / (a * a * b * b), 0, 0]]
    for point, other in ((a, b), (b, a)):
        norm = 2 * point**2 * (point**2 - other**2)
        rows += [[1 / norm, sign * point / norm, point**2 / norm] for sign in (1, -1)]
    return torch.tensor([*rows, [0, 0, 1.0]], device=device)


for _function in (conv_lstm, conv_lstm_grad):
    for _device in ("CPU", "CUDA"):
        torch.library.impl(f"amstel::{_function.__name__}", _device)(_function)
