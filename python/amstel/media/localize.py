"""Attention maps to boxes: where an action happens, smoothed over time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from amstel._check import fail, tensor
from amstel._optional import need
from amstel.media import _arguments
from amstel.media.boxes import iou


def localize(
    attention: Tensor,
    frame_size: Sequence[int],
    *,
    sigma: float | None = None,
    threshold: float = 0.5,
    span: int = 9,
    split: bool = True,
    initial: Tensor | Sequence[float] | None = None,
) -> Tensor:
    """Localize an action: one box per frame, from attention maps alone, smoothed over time.

    Each map is enlarged to the frame (bilinear), smoothed by a Gaussian and cut at
    min + threshold (max - min); the parts that hang together (8-connected) are the candidates. A frame takes the
    candidate whose box has the best intersection over union with the box of the frame before; the first frame,
    and a frame where nothing overlaps, takes the one with the most attention and begins a new track. The four
    coordinates are then smoothed over time by locally weighted linear regression: a straight line through the
    `span` nearest frames of the track with tricube weights (1 - |d / D|³)³, D one frame beyond the farthest.

    A map that is the same everywhere, up to 1e-5 of its largest value, gives the whole frame, and the frame after
    it looks for the last box before it.

    Args:
        attention: maps [T, h, w], floating, not negative; of any scale.
        frame_size: (height, width) of the frames in pixels.
        sigma: standard deviation of the Gaussian in pixels of the frame; default half a cell of the map, in
            either direction. 0 leaves it out.
        threshold: share of the map's range, in [0, 1].
        span: frames in the regression; 1 leaves it out.
        split: smooth each track by itself, so that a jump, or a frame gone astray, does not draw the boxes around
            it along. False smooths over all frames, as the paper does.
        initial: box (x1, y1, x2, y2) that the first frame should overlap, where it is known.

    Returns:
        float32 [T, 4]: x1, y1, x2, y2 in pixels, inside the frame, at least one pixel wide and high.

    Raises:
        TypeError: `attention` is no tensor.
        ValueError: wrong rank, no frame, NaN, infinite or negative attention; `frame_size` not two positive
            integers; any other argument out of its range.
        ImportError: the extra [video] is missing.

    Source: Z. Li, K. Gavrilyuk, E. Gavves, M. Jain, C. Snoek, VideoLSTM Convolves, Attends and Flows for Action
    Recognition, arXiv 1607.01794, section 3.4; W. S. Cleveland, JASA 74, 1979 (the regression).

    Example:
        >>> maps = torch.zeros(2, 7, 7)
        >>> maps[:, 3, 5] = 1
        >>> amstel.video.localize(maps, (70, 70), sigma=0)
        tensor([[50., 30., 60., 40.],
                [50., 30., 60., 40.]])
    """
    tensor("attention", attention, "a floating tensor [T, h, w]")
    if attention.dim() != 3 or not attention.numel() or not attention.is_floating_point():
        fail("attention", "a floating tensor [T, h, w] with at least one frame", attention)
    height, width = _size(frame_size)
    if sigma is not None:
        _arguments.number("sigma", sigma, positive=False)
    _arguments.number("threshold", threshold, positive=False)
    if threshold > 1:
        fail("threshold", "in [0, 1]", threshold)
    _arguments.integer("span", span)
    maps = attention.detach().to("cpu", torch.float64)
    if not maps.isfinite().all() or (maps < 0).any():
        raise ValueError("`attention` must be finite and not negative, got NaN, infinite or negative values")
    previous, starts = None, []
    if initial is not None:
        previous = torch.as_tensor(initial, dtype=torch.float64).cpu()
        if previous.shape != (4,) or not previous.isfinite().all():
            fail("initial", "a box (x1, y1, x2, y2)", initial)

    ndimage = need("scipy.ndimage", extra="video", purpose="amstel.video.localize")
    rows, columns = maps.shape[1:]
    blur = (height / rows / 2, width / columns / 2) if sigma is None else (sigma, sigma)
    # Enlarging and the Gaussian are linear, in one direction and then in the other: two matrices do both.
    down, across = (
        ndimage.gaussian_filter1d(_enlarging(n, size), b, axis=0, mode="nearest")
        if b
        else _enlarging(n, size)
        for n, size, b in ((rows, height, blur[0]), (columns, width, blur[1]))
    )
    boxes = torch.tensor([0.0, 0.0, width, height], dtype=torch.float64).repeat(len(maps), 1)
    for t, small in enumerate(maps):
        low, high = small.min(), small.max()
        if high - low <= 1e-5 * high:
            continue
        # To 0..1 first: in the tail of a softmax the values can be too small for the filter.
        scaled = ((small - low) / (high - low)).numpy()
        large = down @ scaled @ across.T
        low, high = large.min(), large.max()
        if high == low:
            continue
        label, count = ndimage.label(large >= low + threshold * (high - low), np.ones((3, 3)))
        found = torch.tensor(
            [(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(label)], dtype=torch.float64
        )
        overlap = torch.zeros(count) if previous is None else iou(found, previous)
        if not overlap.any():
            starts.append(t)
            overlap = torch.as_tensor(ndimage.sum_labels(large, label, np.arange(1, count + 1)))
        boxes[t] = previous = found[overlap.argmax()]
    tracks = boxes.tensor_split(starts) if split else (boxes,)
    boxes = torch.cat([_smooth(track, span) for track in tracks])
    x1, y1 = boxes[:, 0].clamp(0, width - 1), boxes[:, 1].clamp(0, height - 1)
    x2, y2 = boxes[:, 2].clamp(max=width).maximum(x1 + 1), boxes[:, 3].clamp(max=height).maximum(y1 + 1)
    return torch.stack([x1, y1, x2, y2], dim=1).float().to(attention.device)


def _enlarging(count: int, size: int) -> np.ndarray:
    """The matrix [size, count] of bilinear interpolation in one direction."""
    eye = torch.eye(count, dtype=torch.float64)[None]
    return interpolate(eye, size, mode="linear", align_corners=False)[0].T.contiguous().numpy()


def _size(frame_size: Sequence[int]) -> tuple[int, int]:
    try:
        height, width = frame_size
        good = all(int(side) == side and side > 0 for side in (height, width))
    except (TypeError, ValueError):
        good = False
    if not good:
        fail("frame_size", "(height, width), two positive integers", frame_size)
    return int(height), int(width)


def _smooth(values: Tensor, span: int) -> Tensor:
    """Locally weighted linear regression of values [T, K] over time, read at every frame."""
    count = len(values)
    span = min(span, count)
    if span < 2:
        return values
    now = torch.arange(count)[:, None]
    window = (now - span // 2).clamp(0, count - span) + torch.arange(span)
    distance = (window - now).double()
    reach = distance.abs().amax(1, keepdim=True) + 1
    weight = (1 - (distance.abs() / reach) ** 3) ** 3
    # The intercept of the weighted least-squares line, which is its value at this frame.
    total, first, second = ((weight * distance**power).sum(1, keepdim=True) for power in (0, 1, 2))
    weight = weight * (second - first * distance) / (total * second - first**2)
    return (weight[..., None] * values[window]).sum(1)
