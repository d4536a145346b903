"""The sequence of `amstel.ops.conv_lstm`, forward and backward, as steps of kernels and convolutions.

Registered as the operators amstel::conv_lstm and amstel::conv_lstm_grad, so that a compiler sees one operation
whatever T is. Images are channels last throughout, [..., H, W, channels] and contiguous. The convolutions are
PyTorch's, but for 3x3 kernels on the CPU, which go through Winograd's algorithm (csrc/cpu/kernels/winograd.inl.h)
with weights transformed once a sequence. Steps are taken in chunks that bound the memory of everything that is not
an output; chunks are a function of shapes alone, and what is computed again runs through the same kernels on the
same chunks, so that its bits are those of the first time.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from amstel import _library  # noqa: F401  (the schemas)

_ops = torch.ops.amstel
_CHUNK = 1 << 26  # bytes of gates that a chunk holds
_CHUNK_RECOMPUTE = 1 << 24
_PLANES = 1 << 24  # bytes of transformed tiles


def last(x: Tensor) -> Tensor:
    """[..., C, H, W] as contiguous [..., H, W, C]; no copy of a channels_last tensor."""
    return x.movedim(-3, -1).contiguous()


def first(x: Tensor) -> Tensor:
    """[..., H, W, C] as a channels_last [..., C, H, W]."""
    return x.movedim(-1, -3)


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


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

    def backward(
        self, grad: Tensor, x: Tensor | None, shape: tuple[int, ...], weight: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Gradients of the input, of `shape` [n, H, W, C], and of the weight, for which x is needed."""
        n, height, width, channels = shape
        like = (
            self._padded(x)
            if x is not None
            else first(grad.new_empty(1).expand(n, height + self.odd[0], width + self.odd[1], channels))
        )
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            first(grad), like, self.weight, None, [1, 1], self.padding, [self.dilation] * 2, False, [0, 0], 1,
            [True, weight, False],
        )  # fmt: skip
        return last(grad_x[:, :, :height, :width]), grad_weight


def chunks(steps: int, step_bytes: int, limit: int) -> list[tuple[int, int]]:
    """Ranges of steps of which none holds more than `limit` bytes, unless a single step does."""
    size = max(1, limit // max(1, step_bytes))
    count = -(-steps // size)
    return [(steps * k // count, steps * (k + 1) // count) for k in range(count)]


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
    ):
        self.steps, self.items, self.inputs, height, width = x.shape
        self.hidden = weight_hh.shape[1]
        self.input_size = (height, width)
        if padding == "valid":
            height -= dilation * (weight_ih.shape[2] - 1)
            width -= dilation * (weight_ih.shape[3] - 1)
        self.size = (height, width)
        self.dtype, self.sum = x.dtype, sum_dtype(x.dtype)
        three = weight_hh.shape[2:] == (3, 3) and dilation == 1
        self.winograd = algorithm == "winograd" or (
            algorithm == "auto" and x.is_cpu and three and x.dtype != torch.float64 and self.hidden >= 8
        )
        # x joins h in one product over channels, so that gates of the input are never written; with few tiles a
        # step the weights, which then are read at every step, cost more.
        tiles = self.items * -(-height // 4) * -(-width // 4)
        self.join = (
            self.winograd
            and weight_ih.shape[2:] == (3, 3)
            and padding == "same"
            and (tiles >= 64 or 8 * self.inputs <= self.hidden)
        )
        self.bias = bias if bias is None or not self.winograd else bias.float()
        self.weight_ih, self.weight_hh = weight_ih, weight_hh
        self.dilation, self.padding = dilation, padding
        # Worth it where the transformed input is used for many outputs.
        self.winograd_input = (
            self.winograd and weight_ih.shape[2:] == (3, 3) and padding == "same" and self.inputs >= 8
        )
        self.step_bytes = self.items * height * width * 4 * self.hidden * x.element_size()

    def empty(self, *leading: int, channels: int, dtype: torch.dtype | None = None) -> Tensor:
        return self.weight_hh.new_empty(*leading, self.items, *self.size, channels, dtype=dtype or self.dtype)

    def prepare(self) -> None:
        """Weights as the forward pass wants them."""
        gates = 4 * self.hidden
        if self.join:
            both = torch.cat([self.weight_hh, self.weight_ih], 1).float().contiguous()
            self.packed = _ops.winograd_weight(both, False, True)
        elif self.winograd:
            self.packed = _ops.winograd_weight(self.weight_hh.float().contiguous(), False, True)
        else:
            self.recurrent = _Plain(self.weight_hh, self.dilation, "same")
        if self.join:
            return
        if self.winograd_input:
            packed = _ops.winograd_weight(self.weight_ih.float().contiguous(), False, False)

            def hoisted(x: Tensor) -> Tensor:
                out = x.new_empty(*x.shape[:3], gates)
                _ops.winograd_conv(x, packed, self.bias, out)
                return out

            self.hoisted: Callable[[Tensor], Tensor] = hoisted
        else:
            plain = _Plain(self.weight_ih, self.dilation, self.padding)
            bias = self.bias if self.bias is None else self.bias.to(self.dtype)
            self.hoisted = lambda x: plain(x, bias)

    def input_gates(self, x: Tensor) -> Tensor | None:
        """The gates of the steps x [k, N, H, W, C_in], all at once; None where each step adds its own."""
        return None if self.join else self.hoisted(x.flatten(0, 1)).unflatten(0, x.shape[:2])

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
        """One step, or several whose states h and c are known, stacked along the items."""
        if self.winograd:
            bias = self.bias if gates is None else None
            joined = x if self.join else None
            _ops.winograd_lstm(h, joined, self.packed, gates, bias, c, peephole, h_out, c_out, activated)
            return
        assert gates is not None
        rows = [t if t is None else t.view(-1, t.shape[-1]) for t in (c, h_out, c_out, activated)]
        more = self.recurrent(h)
        _ops.conv_lstm_gates(gates.view(-1, 4 * self.hidden), more.view(-1, 4 * self.hidden), rows[0], peephole, *rows[1:])


def _initial(plan: _Plan, state: Tensor | None, out: Tensor) -> None:
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
    plan = _Plan(x, weight_ih, weight_hh, bias, dilation, padding, algorithm)
    plan.prepare()
    steps = plan.steps
    peephole = peephole if peephole is None else peephole.to(plan.sum).contiguous()
    # A state that is not kept alternates between two frames: a step reads the neighbours of what it writes.
    h = plan.empty(2 if keep == "last" else steps + 1, channels=plan.hidden)
    c = plan.empty(steps + 1 if keep in ("state", "gates") else 1, channels=plan.hidden, dtype=plan.sum)
    gates = plan.empty(steps if keep == "gates" else 0, channels=4 * plan.hidden)
    _initial(plan, h0, h[0])
    _initial(plan, c0, c[0])
    for begin, end in chunks(steps, plan.step_bytes, _CHUNK if keep == "gates" else _CHUNK_RECOMPUTE):
        xs = last(x[begin:end])
        hoisted = plan.input_gates(xs)
        for t in range(begin, end):
            source, target = h[t % len(h)], h[(t + 1) % len(h)]
            c_source, c_target = c[t % len(c)], c[(t + 1) % len(c)]
            kept = c_source.clone() if mask is not None and len(c) == 1 else c_source
            plan.step(
                xs[t - begin],
                None if hoisted is None else hoisted[t - begin],
                source,
                c_source,
                peephole,
                target,
                c_target,
                gates[t] if keep == "gates" else None,
            )
            if mask is not None:
                steps_on = mask[t][:, None, None, None]
                target.copy_(torch.where(steps_on, target, source))
                c_target.copy_(torch.where(steps_on, c_target, kept))
    if keep == "last":
        h = h[steps % 2 : steps % 2 + 1].clone()
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
    plan = _Plan(x, weight_ih, weight_hh, bias, dilation, padding, algorithm)
    if gates is None:
        plan.prepare()
    back = _Backward(plan, need_x, need_ih, need_hh)
    hidden = plan.hidden
    peephole = peephole if peephole is None else peephole.to(plan.sum).contiguous()
    dh = None if grad_h is None else last(grad_h)
    dc = None if grad_c is None else last(grad_c)
    dc_next = plan.empty(channels=hidden, dtype=plan.sum)
    grad_x = (
        x.new_empty(plan.steps, plan.items, *plan.input_size, plan.inputs) if need_x else x.new_empty(0)
    )
    sums = []
    limit = _CHUNK_RECOMPUTE if gates is None else _CHUNK
    for begin, end in reversed(chunks(plan.steps, plan.step_bytes, limit)):
        xs = last(x[begin:end]) if need_ih or gates is None else None
        if gates is None:
            assert xs is not None
            activated = _recompute(plan, xs, h[begin:end], c[begin:end], peephole)
            grad_gates = activated  # nobody reads them after
        else:
            activated = gates[begin:end]
            grad_gates = torch.empty_like(activated)
        for t in reversed(range(begin, end)):
            out = None if grad_output is None else last(grad_output[t])
            passed_h = passed_c = None
            if mask is not None:
                # A step that keeps its state hands the gradients on.
                steps_on = mask[t][:, None, None, None]
                total = dh if out is None else out if dh is None else out + dh
                out = None
                if total is not None:
                    passed_h, dh = _split(steps_on, total)
                if dc is not None:
                    passed_c, dc = _split(steps_on, dc)
            rows = [
                s if s is None else s.view(-1, s.shape[-1])
                for s in (activated[t - begin], c[t], c[t + 1], out, dh, dc, dc_next, grad_gates[t - begin])
            ]
            sums.append(_ops.conv_lstm_gates_grad(*rows[:3], peephole, *rows[3:], need_bias))
            dc, dc_next = dc_next, plan.empty(channels=hidden, dtype=plan.sum) if dc is None else dc
            if t > 0 or need_h:
                dh = back.recurrent(grad_gates[t - begin])
                if passed_h is not None:
                    dh += passed_h
            if passed_c is not None:
                dc += passed_c
        if need_x:
            grad_x[begin:end] = back.input(grad_gates)
        back.add_weights(xs, h[begin:end], grad_gates)
    grad_ih, grad_hh = back.weights()
    none = x.new_empty(0)
    columns = torch.cat(sums)
    total = _ops.epilogue_grad(columns, None)[1] if columns.shape[1] else columns
    grad_bias, grad_peephole = none, none
    if need_bias:
        grad_bias, total = total[: 4 * hidden].to(x.dtype), total[4 * hidden :]
    if need_peephole:
        grad_peephole = total.view(3, hidden).to(x.dtype)
    assert dc is not None
    return [
        first(grad_x) if need_x else none,
        none if grad_ih is None else grad_ih.to(x.dtype),
        none if grad_hh is None else grad_hh.to(x.dtype),
        grad_bias,
        grad_peephole,
        first(dh) if need_h and dh is not None else none,
        first(dc) if need_c else none,
    ]


def _split(steps_on: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    zero = grad.new_zeros(())
    return torch.where(steps_on, zero, grad), torch.where(steps_on, grad, zero)


def _recompute(plan: _Plan, xs: Tensor, h: Tensor, c: Tensor, peephole: Tensor | None) -> Tensor:
    """The activated gates of the steps of a chunk from their states, by the kernels that the forward pass ran."""
    gates = plan.input_gates(xs)
    activated = plan.empty(len(xs), channels=4 * plan.hidden) if gates is None else gates
    # Winograd's algorithm gives the same bits however many steps it takes at once; others may not.
    stacked = plan.winograd
    for t in range(1) if stacked else range(len(xs)):
        part = slice(None) if stacked else slice(t, t + 1)
        states = [xs[part].flatten(0, 1), gates, h[part].flatten(0, 1), c[part].flatten(0, 1)]
        states[1] = gates if gates is None else gates[part].flatten(0, 1)
        plan.step(
            *states,  # type: ignore[arg-type]
            peephole,
            torch.empty_like(states[2]),
            torch.empty_like(states[3]),
            activated[part].flatten(0, 1),
        )
    return activated


class _Backward:
    """The convolutions of the backward pass: of one step to h, of a chunk to x and to the weights."""

    def __init__(self, plan: _Plan, need_x: bool, need_ih: bool, need_hh: bool):
        self.plan, self.need_x, self.need_ih, self.need_hh = plan, need_x, need_ih, need_hh
        self.grad_ih: Tensor | None = None
        self.grad_hh: Tensor | None = None
        self.planes: Tensor | None = None
        self.plain_ih = _Plain(plan.weight_ih, plan.dilation, plan.padding)
        self.plain_hh = _Plain(plan.weight_hh, plan.dilation, "same")
        if plan.winograd:
            self.packed = _ops.winograd_weight(plan.weight_hh.float().contiguous(), True, False)
        if plan.winograd_input and need_x:
            self.packed_input = _ops.winograd_weight(plan.weight_ih.float().contiguous(), True, False)

    def recurrent(self, grad: Tensor) -> Tensor:
        """Gradient of h from that of the gates, [N, H, W, 4C]."""
        shape = (*grad.shape[:3], self.plan.hidden)
        if not self.plan.winograd:
            return self.plain_hh.backward(grad, None, shape, False)[0]
        out = grad.new_empty(shape)
        _ops.winograd_conv(grad, self.packed, None, out)
        return out

    def input(self, grad: Tensor) -> Tensor:
        """Gradient of x for the steps of a chunk, from that of their gates [k, N, H, W, 4C]."""
        shape = (len(grad) * self.plan.items, *self.plan.input_size, self.plan.inputs)
        if self.plan.winograd_input:
            out = grad.new_empty(shape)
            _ops.winograd_conv(grad.flatten(0, 1), self.packed_input, None, out)
        else:
            out = self.plain_ih.backward(grad.flatten(0, 1), None, shape, False)[0]
        return out.unflatten(0, grad.shape[:2])

    def add_weights(self, xs: Tensor | None, h: Tensor, grad: Tensor) -> None:
        """The share of a chunk in the gradients of the weights."""
        plan = self.plan
        images = []  # those that go through Winograd's algorithm
        for name, need, image, winograd, plain in (
            ("grad_hh", self.need_hh, h, plan.winograd, self.plain_hh),
            ("grad_ih", self.need_ih, xs, plan.winograd_input, self.plain_ih),
        ):
            if not need:
                continue
            assert image is not None
            flat = image.flatten(0, 1)
            if winograd:
                images.append(flat)
                continue
            part = torch.ops.aten.convolution_backward(
                first(grad.flatten(0, 1)), plain._padded(flat), plain.weight, None, [1, 1], plain.padding,
                [plan.dilation] * 2, False, [0, 0], 1, [False, True, False],
            )[1]  # fmt: skip
            old = getattr(self, name)
            setattr(self, name, part if old is None else old + part)
        if images:
            self._add_planes(images, grad.flatten(0, 1))

    def _add_planes(self, images: list[Tensor], grad: Tensor) -> None:
        widths = [image.shape[-1] for image in images]
        outputs = grad.shape[-1]
        height, width = self.plan.size
        tiles = len(grad) * -(-height // 4) * -(-width // 4)
        limit = max(256, _PLANES // (36 * 4 * (sum(widths) + outputs)))
        for begin, end in chunks(tiles, 1, limit):
            v = grad.new_empty(36, end - begin, sum(widths), dtype=torch.float32)
            m = grad.new_empty(36, end - begin, outputs, dtype=torch.float32)
            offset = 0
            for image, channels in zip(images, widths, strict=True):
                _ops.winograd_planes(image, False, begin, offset, v)
                offset += channels
            _ops.winograd_planes(grad, True, begin, 0, m)
            if self.planes is None:
                self.planes = torch.bmm(v.mT, m)
            else:
                self.planes.baddbmm_(v.mT, m)

    def weights(self) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of weight_ih and weight_hh."""
        if self.planes is not None:
            transform = _weight_transform(self.planes.device)
            # G^T along both axes of the 6x6 planes, [36, inputs, outputs] -> [outputs, inputs, 3, 3]
            _, inputs, outputs = self.planes.shape
            half = transform.T @ self.planes.view(6, -1)
            whole = transform.T @ half.view(3, 6, -1)
            grad = whole.view(9, inputs, outputs).permute(2, 1, 0).reshape(outputs, inputs, 3, 3)
            at = 0
            if self.need_hh:
                self.grad_hh, at = grad[:, : self.plan.hidden], self.plan.hidden
            if self.need_ih and self.plan.winograd_input:
                self.grad_ih = grad[:, at:]
        return (
            self.grad_ih if self.need_ih else None,
            self.grad_hh if self.need_hh else None,
        )


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
