"""The backward pass of `amstel.ops.conv_lstm`, in the groups and chunks of the forward pass, from the last step to the first.

Registered as the operator amstel::conv_lstm_grad. Of every step come the gradients of its gates; the convolutions to x
and to the weights take all steps of a chunk together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from amstel.ops._conv_lstm import Plain, Plan, first, last, parts
from amstel.ops._raw import operators

_ops = operators
_PLANES = 1 << 26  # bytes of transformed weight gradients that are worth one product for both weights
TILES = 128  # in a product of transformed tiles


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
    plan = Plan(x, weight_ih, weight_hh, bias, dilation, padding, algorithm, True, h[0], c[0])
    hidden = plan.hidden
    dtype = x.dtype if peephole is None else peephole.dtype
    peephole = peephole if peephole is None else peephole.to(plan.sum).contiguous()
    back = _Backward(plan, peephole, need_ih, need_hh, need_bias)
    none = x.new_empty(0)
    grad_x = x.new_empty(plan.steps, plan.items, *plan.input_size, plan.inputs) if need_x else none
    grad_h0 = plan.empty(plan.items, channels=hidden) if need_h else none
    grad_c0 = plan.empty(plan.items, channels=hidden, dtype=plan.sum) if need_c else none
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
                step = chunk.start + t
                out = None if grad_output is None else last(grad_output[step, group])
                on = None if mask is None else mask[step, group, None, None, None]
                need_dh = step > 0 or need_h
                dh, dc = back.step(
                    on, activated[t], cells[t], cells[t + 1], out, dh, dc, grad_gates[t], need_dh
                )
            back.release()
            if need_x:
                grad_x[chunk, group] = back.input(grad_gates)
                back.release()
            back.add_weights(xs, hs, grad_gates, final)
        if need_h:
            grad_h0[group] = dh  # type: ignore[assignment]
        if need_c:
            grad_c0[group] = dc  # type: ignore[assignment]
    columns = torch.cat(back.sums)
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
    plan: Plan,
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
    beside = plan.beside(hs[0], xs)
    if beside is not None:
        beside[1:-1, ..., : plan.hidden] = hs[1:]
    for t in range(len(xs)):
        own, h = None if gates is None else gates[t], hs[t] if beside is None else beside[t]
        plan.step(xs[t], own, h, cells[t], peephole, spare, cells[t + 1], activated[t])
        if mask is not None:
            on = mask[chunk.start + t, group, None, None, None]
            cells[t + 1] = torch.where(on, cells[t + 1], cells[t])
    return activated, cells


class _Backward:
    """The parts of the backward pass: one step to h and c before it, a chunk to x and to the weights."""

    def __init__(self, plan: Plan, peephole: Tensor | None, need_ih: bool, need_hh: bool, need_bias: bool):
        self.plan, self.peephole, self.need_bias = plan, peephole, need_bias
        self.needs = {"hh": need_hh, "ih": need_ih}
        self.winograd = {"hh": plan.winograd, "ih": plan.winograd_input}
        self.plain = {
            "hh": Plain(plan.weight_hh, plan.dilation, "same"),
            "ih": Plain(plan.weight_ih, plan.dilation, plan.padding),
        }
        self.weights = {"hh": plan.weight_hh, "ih": plan.weight_ih}
        self.grads: dict[str, Tensor] = {}
        self.packed: dict[str, Tensor] = {}
        self.planes: dict[str, Tensor] = {}
        self.sums: list[Tensor] = []  # of every step, for the bias and the peepholes

    def step(
        self,
        on: Tensor | None,
        activated: Tensor,
        c: Tensor,
        c_next: Tensor,
        out: Tensor | None,
        dh: Tensor | None,
        dc: Tensor | None,
        grad_gates: Tensor,
        need_dh: bool,
    ) -> tuple[Tensor | None, Tensor]:
        """Gradients of h and c before a step from those after it and that of its output; those of its gates too."""
        passed_h = passed_c = None
        if on is not None:
            # A step that keeps its state hands the gradients on.
            total = dh if out is None else out if dh is None else out + dh
            out = None
            if total is not None:
                passed_h, dh = _split(on, total)
            if dc is not None:
                passed_c, dc = _split(on, dc)
        dc_before = torch.empty_like(c, memory_format=torch.contiguous_format)
        rows = [
            s if s is None else s.view(-1, s.shape[-1])
            for s in (activated, c, c_next, out, dh, dc, dc_before, grad_gates)
        ]
        self.sums.append(_ops.conv_lstm_gates_grad(*rows[:3], self.peephole, *rows[3:], self.need_bias))
        if need_dh:
            dh = self.recurrent(grad_gates)
            if passed_h is not None:
                dh += passed_h
        if passed_c is not None:
            dc_before += passed_c
        return dh, dc_before

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
        for part in parts(tiles, TILES):
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
        planes, transform = self.planes.pop(key), weight_transform(grad.device)
        whole = transform.T @ (transform.T @ planes.view(6, -1)).view(3, 6, -1)
        found = whole.view(9, sum(widths), outputs).permute(2, 1, 0)
        for name, part in zip(names, found.split(widths, 1), strict=True):
            self.grads[name] = part.reshape(outputs, -1, 3, 3)


def weight_transform(device: torch.device) -> Tensor:
    """G [6, 3] of F(4x4, 3x3) at the points of csrc/cpu/kernels/winograd.inl.h."""
    a, b = 0.625, 1.5
    rows = [[1 / (a * a * b * b), 0, 0]]
    for point, other in ((a, b), (b, a)):
        norm = 2 * point**2 * (point**2 - other**2)
        rows += [[1 / norm, sign * point / norm, point**2 / norm] for sign in (1, -1)]
    return torch.tensor([*rows, [0, 0, 1.0]], device=device)


for _device in ("CPU", "CUDA"):
    torch.library.impl("amstel::conv_lstm_grad", _device)(conv_lstm_grad)
