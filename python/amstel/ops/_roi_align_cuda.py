"""ROI align and position-sensitive ROI pooling on CUDA, from operators that PyTorch has: a block of boxes at a time.

The same results as csrc/cpu/roi_align_op.cpp within rounding, and deterministic: what is added to one cell is sorted
first (`index_put_` with accumulation) or summed along a dimension. Boxes are checked with one synchronization, and not
while a graph is captured, where an invalid box is pooled to 0.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from amstel import _library, reference  # noqa: F401  (the schemas)
from amstel.reference.roi_align import bins, samples

#: Numbers that a block of boxes may have on the way.
BLOCK = 1 << 26


def _checked(op: str, rois: Tensor, images: int) -> tuple[Tensor, Tensor]:
    """The boxes, those that are not valid moved to the first image, and which are valid [K]."""
    valid = (
        rois.isfinite().all(1)
        & (rois[:, 0] >= 0)
        & (rois[:, 0] < images)
        & (rois[:, 0].trunc() == rois[:, 0])
    )
    capturing = rois.is_cuda and torch.cuda.is_current_stream_capturing()
    if not capturing and not bool(valid.all()):
        k = int((~valid).nonzero()[0])
        box = ", ".join(f"{v:g}" for v in rois[k].tolist())
        raise RuntimeError(
            f"{op}: `boxes` must have finite coordinates and a whole batch index from 0 to {images - 1}, "
            f"got ({box}) in row {k}"
        )
    return torch.where(valid[:, None], rois, 0), valid


def _blocks(boxes: int, numbers: int) -> Iterator[slice]:
    step = max(1, BLOCK // max(1, numbers))
    return (slice(begin, begin + step) for begin in range(0, boxes, step))


def _laid_out(t: Tensor, channels_last: bool) -> Tensor:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return t.contiguous(memory_format=layout)


def _is_channels_last(t: Tensor) -> bool:
    return t.shape[1] > 1 and t.stride(1) == 1 and not t.is_contiguous()


def _samples_a_box(ph: int, pw: int, sampling: int) -> int:
    return ph * pw * (sampling or 4) ** 2 * 4


def roi_align(
    input: Tensor, rois: Tensor, scale: float, ph: int, pw: int, sampling: int, aligned: bool
) -> Tensor:
    rois, valid = _checked("roi_align", rois, input.shape[0])
    output = input.new_zeros(rois.shape[0], input.shape[1], ph, pw)
    if input.numel():
        for part in _blocks(len(rois), input.shape[1] * _samples_a_box(ph, pw, sampling)):
            found = reference.roi_align(input, rois[part], (ph, pw), scale, sampling, aligned)
            output[part] = torch.where(valid[part, None, None, None], found, 0)
    return _laid_out(output, _is_channels_last(input))


def roi_align_grad(
    grad: Tensor,
    rois: Tensor,
    scale: float,
    sampling: int,
    aligned: bool,
    images: int,
    height: int,
    width: int,
    channels_last: bool,
) -> Tensor:
    rois, valid = _checked("roi_align_grad", rois, images)
    boxes, channels, ph, pw = grad.shape
    wide = torch.promote_types(grad.dtype, torch.float32)
    total = torch.zeros(images * height * width, channels, dtype=wide, device=grad.device)
    like = grad.new_empty(0, channels, height, width)
    for part in _blocks(boxes if total.numel() else 0, channels * _samples_a_box(ph, pw, sampling)):
        rows, cols, count = samples(rois[part], (ph, pw), scale, sampling, aligned, like)
        given = grad[part].to(wide).movedim(1, -1) / count.to(wide)[:, None, None, None]
        given = given.repeat_interleave(rows.low.shape[1] // ph, 1)
        given = given.repeat_interleave(cols.low.shape[1] // pw, 2)
        inside = rows.inside[:, :, None] & cols.inside[:, None, :] & valid[part, None, None]
        image = rois[part, 0].long()[:, None, None]
        for y, wy in ((rows.low, rows.of_low), (rows.high, rows.of_high)):
            for x, wx in ((cols.low, cols.of_low), (cols.high, cols.of_high)):
                cell = ((image * height + y[:, :, None]) * width + x[:, None, :]).flatten()
                value = given * (wy[:, :, None] * wx[:, None, :]).to(wide)[..., None]
                value = torch.where(inside[..., None], value, 0).flatten(0, 2)
                total.index_put_((cell,), value, accumulate=True)
    found = total.view(images, height, width, channels).movedim(-1, 1).to(grad.dtype)
    return _laid_out(found, channels_last and channels > 1)


def ps_roi_pool(input: Tensor, rois: Tensor, scale: float, ph: int, pw: int) -> Tensor:
    if input.shape[1] % (ph * pw):
        raise RuntimeError(
            f"ps_roi_pool: `input` must have a multiple of {ph} x {pw} channels, got {input.shape[1]}"
        )
    rois, valid = _checked("ps_roi_pool", rois, input.shape[0])
    output = input.new_zeros(rois.shape[0], input.shape[1] // (ph * pw), ph, pw)
    if input.numel():
        for part in _blocks(len(rois), input[0].numel()):
            found = reference.ps_roi_pool(input, rois[part], (ph, pw), scale)
            output[part] = torch.where(valid[part, None, None, None], found, 0)
    return _laid_out(output, _is_channels_last(input))


def ps_roi_pool_grad(
    grad: Tensor, rois: Tensor, scale: float, images: int, height: int, width: int, channels_last: bool
) -> Tensor:
    rois, valid = _checked("ps_roi_pool_grad", rois, images)
    boxes, channels, ph, pw = grad.shape
    wide = torch.promote_types(grad.dtype, torch.float32)
    total = torch.zeros(images, channels, ph, pw, height, width, dtype=wide, device=grad.device)
    like = grad.new_empty(0, channels, height, width)
    for part in _blocks(boxes if total.numel() else 0, channels * ph * pw * height * width):
        inside, area = bins(rois[part], (ph, pw), scale, like)
        given = (grad[part].to(wide) / area.clamp(min=1))[..., None, None]
        inside = inside & valid[part, None, None, None, None, None]
        image = rois[part, 0].long()
        for n in range(images):
            own = inside & (image == n)[:, None, None, None, None, None]
            total[n] += torch.where(own, given, 0).sum(0)
    found = total.flatten(1, 3).to(grad.dtype)
    return _laid_out(found, channels_last and channels * ph * pw > 1)


def _register() -> torch.library.Library:
    library = torch.library.Library("amstel", "IMPL", "CUDA")
    for function in (roi_align, roi_align_grad, ps_roi_pool, ps_roi_pool_grad):
        library.impl(function.__name__, function)
    return library


_library_of_cuda = _register()
