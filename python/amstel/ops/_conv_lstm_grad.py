"""The backward pass of `amstel.ops.conv_lstm`, in the groups and chunks of the forward pass, from the last step to the first.

Registered as the operator amstel::conv_lstm_grad. Of every step come the gradients of its gates; the convolutions to x
and to the weights take all steps of a chunk together.
"""

from __future__ import annotations

import math

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
            out = None if grad_output is None else grad_output[chunk, group].movedim(-3, -1)
            on = None if mask is None else mask[chunk, group]
            need_dh = chunk.start > 0 or need_h
            dh, dc = back.steps(activated, cells, out, dh, dc, on, grad_gates, need_dh)
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
    again = plan.beside(hs[0], xs)
    if again is None:  # of h two frames in turns, to the same bits
        again = plan.empty(2, xs.shape[1], channels=plan.hidden)
        again[0] = hs[0]
    on = None if mask is None else mask[chunk, group]
    plan.run(again, cells, xs, gates, on, peephole, activated)
    return activated, cells


class _Backward:
    """The parts of the backward pass: the steps of a chunk to h and c before it, and to x and the weights."""

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

    def steps(
        self,
        activated: Tensor,
        c: Tensor,
        out: Tensor | None,
        dh: Tensor | None,
        dc: Tensor | None,
        on: Tensor | None,
        grad_gates: Tensor,
        need_dh: bool,
    ) -> tuple[Tensor | None, Tensor]:
        """Gradients of h and c before the steps of a chunk from those after it and of its outputs; those of its gates."""
        plan = self.plan
        if self.winograd["hh"]:
            weight = self._packed("hh")
        else:
            plain = self.plain["hh"]
            # Sums over a window of rounded products would lose bits of short types.
            exact = plain.dtype == plan.sum
            weight = plain.of_steps(math.prod(grad_gates.shape[1:4])) if exact else plain.weight
        dh, dc, sums = _ops.conv_lstm_steps_grad(
            activated, c, out, dh, dc, weight, on, self.peephole, grad_gates, plan.kernel, plan.dilation,
            self.need_bias, need_dh,
        )  # fmt: skip
        self.sums.append(sums)
        return (dh if need_dh else None), dc

    def release(self) -> None:
        """Transformed weights may go before others come."""
        if self.plan.heavy:
            self.packed.clear()

    def _packed(self, which: str) -> Tensor:
        if which not in self.packed:
            self.packed[which] = _ops.winograd_weight(self.weights[which].float().contiguous(), True, False)
        return self.packed[which]

    def input(self, grad: Tensor) -> Tensor:
        """Gradient of x for the steps of a chunk, from that of their gates [k, n, H, W, 4C]."""
        flat = grad.flatten(0, 1)
        shape = (len(flat), *self.plan.input_size, self.plan.inputs)
        if self.winograd["ih"]:
            found = grad.new_empty(shape)
            _ops.winograd_conv(flat, self._packed("ih"), None, found)
        else:
            found = self.plain["ih"].backward(flat, None, shape)
        return found.unflatten(0, grad.shape[:2])

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
    return torch.tensor([*rows, [0, 0, 1.0]], dtype=torch.float32, device=device)


for _device in ("CPU", "CUDA"):
    torch.library.impl("amstel::conv_lstm_grad", _device)(conv_lstm_grad)
