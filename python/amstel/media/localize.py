"""Turn attention maps into boxes of one or several actors, smoothed over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from amstel import _check
from amstel._check import fail, number, tensor, unmasked
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

    Each map is enlarged to the frame (bilinear), smoothed by a Gaussian and thresholded at
    min + threshold (max - min); the connected components (8-connected) are the candidates. A frame takes the candidate
    whose box has the best IoU with the box of the previous frame. The first frame, and a frame where nothing overlaps,
    takes the candidate with the most attention and starts a new track. The four coordinates are then smoothed over time
    by locally weighted linear regression: a straight line through the `span` nearest frames of the track, with tricube
    weights (1 - |d / D|³)³, where D is one frame beyond the farthest.

    A map that is uniform, up to 1e-5 of its largest value, gives the whole frame, and the frame after it is compared with
    the last box before it. Within a track, the smoothing uses interpolated boxes for such frames.

    Args:
        attention: maps [T, h, w], floating point, not negative, at any scale.
        frame_size: (height, width) of the frames in pixels.
        sigma: standard deviation of the Gaussian in pixels of the frame; default: half a cell of the map in each
            direction. 0 turns it off.
        threshold: fraction of the map's range, in [0, 1].
        span: frames in the regression; 1 turns it off.
        split: smooth each track separately, so that a jump or a wrong frame does not affect the boxes around it. False
            smooths over all frames, as in the paper.
        initial: box (x1, y1, x2, y2) that the first frame should overlap, if known.

    Returns:
        float32 [T, 4]: x1, y1, x2, y2 in pixels, inside the frame, at least one pixel wide and high.

    Raises:
        TypeError: `attention` is not a tensor.
        ValueError: a wrong rank, no frame, NaN, infinite or negative attention; `frame_size` is not two positive
            integers; another argument is out of its range.
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
    size, span = _checked(attention, frame_size, span)
    previous = None
    if initial is not None:
        try:
            previous = torch.as_tensor(unmasked("initial", initial), dtype=torch.float64).cpu()
        except (TypeError, ValueError):
            fail("initial", "a box (x1, y1, x2, y2)", initial)
        if previous.shape != (4,) or not previous.isfinite().all():
            fail("initial", "a box (x1, y1, x2, y2)", initial)
    found = list(candidates(attention, size, sigma, threshold))
    return follow(found, size, span, split, previous).to(attention.device)


def localize_actors(
    attention: Tensor,
    frame_size: Sequence[int],
    *,
    sigma: float | None = None,
    threshold: float = 0.5,
    span: int = 9,
    most: int = 4,
    gap: int = 5,
    shortest: int | None = None,
    weakest: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Localize several actors: a tube for each, from attention maps alone, smoothed over time.

    The candidates of a frame are those of `localize`. A tube continues with the candidate that overlaps its last box;
    pairs are matched by decreasing IoU, and a candidate that overlaps no tube starts a new one. A tube that finds
    nothing for more than `gap` frames ends; in shorter gaps, its boxes are interpolated linearly.

    Args:
        attention, frame_size, sigma, threshold: as in `localize`.
        span: frames in the regression that smooths each tube; 1 turns it off.
        most: return at most this many tubes, those with the highest scores.
        gap: number of frames for which a tube may find nothing.
        shortest: tubes with fewer frames are dropped; default: a tenth of all frames, at least 1.
        weakest: tubes with less than this fraction of the highest score are dropped; in [0, 1].

    Returns:
        tubes float32 [A, T, 4], by decreasing score: x1, y1, x2, y2 in pixels, inside the frame, NaN in frames outside
        the tube; and their scores [A] in (0, 1]: the tube's share of the attention of all candidates in all frames.
        A is 0 if every map is uniform or no tube is long enough.

    Raises:
        As `localize`.

    Example:
        >>> maps = torch.zeros(3, 7, 7)
        >>> maps[:, 3, 5], maps[:, 1, 1] = 1.0, 0.8
        >>> tubes, scores = amstel.video.localize_actors(maps, (70, 70), sigma=0)
        >>> tubes[:, 0]
        tensor([[50., 30., 60., 40.],
                [11., 11., 19., 19.]])
    """
    size, span = _checked(attention, frame_size, span)
    most, gap = _arguments.integer("most", most), _arguments.integer("gap", gap, 0)
    if shortest is not None:
        shortest = _arguments.integer("shortest", shortest)
    number("weakest", weakest, "in [0, 1]", least=0, most=1)
    found = list(candidates(attention, size, sigma, threshold))
    tubes, scores = link(found, size, span, most, gap, shortest, weakest)
    return tubes.to(attention.device), scores.to(attention.device)


#: What may be an actor in one frame: boxes float64 [n, 4] and the attention inside each [n]; None in a uniform map.
Candidates = tuple[Tensor, Tensor] | None


def candidates(
    attention: Tensor, size: tuple[int, int], sigma: float | None = None, threshold: float = 0.5
) -> Iterator[Candidates]:
    """The connected components of each frame's map above the threshold; see `localize`.

    Args:
        attention, sigma, threshold: as in `localize`.
        size: (height, width) of the frames in pixels.

    Returns:
        for each frame, boxes float64 [n, 4] and the attention inside each, float64 [n]; None if the map is uniform.

    Example:
        >>> maps = torch.zeros(1, 7, 7)
        >>> maps[:, 3, 5], maps[:, 1, 1] = 1.0, 0.8
        >>> boxes, inside = next(amstel.media.localize.candidates(maps, (70, 70), sigma=0))
        >>> boxes.tolist()
        [[11.0, 11.0, 19.0, 19.0], [50.0, 30.0, 60.0, 40.0]]
    """
    (height, width), _ = _checked(attention, size, 1, "size")
    if sigma is not None:
        _arguments.number("sigma", sigma, positive=False)
    number("threshold", threshold, "in [0, 1]", least=0, most=1)
    maps = attention.detach().to("cpu", torch.float64)
    if not maps.isfinite().all() or (maps < 0).any():
        raise ValueError("`attention` must be finite and not negative, got NaN, infinite or negative values")
    ndimage = need("scipy.ndimage", extra="video", purpose="amstel.video.localize")
    rows, columns = maps.shape[1:]
    blur = (height / rows / 2, width / columns / 2) if sigma is None else (sigma, sigma)
    # Enlarging and the Gaussian are linear, in one direction and then in the other: two matrices do both.
    down, across = (
        ndimage.gaussian_filter1d(_enlarging(n, side), b, axis=0, mode="nearest")
        if b
        else _enlarging(n, side)
        for n, side, b in ((rows, height, blur[0]), (columns, width, blur[1]))
    )
    for small in maps:
        low, high = small.min(), small.max()
        if high - low <= 1e-5 * high:
            yield None
            continue
        # To 0..1 first: in the tail of a softmax the values can be too small for the filter.
        scaled = ((small - low) / (high - low)).numpy()
        large = down @ scaled @ across.T
        low, high = large.min(), large.max()
        if high == low:
            yield None
            continue
        label, count = ndimage.label(large >= low + threshold * (high - low), np.ones((3, 3)))
        boxes = [(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(label)]
        inside = ndimage.sum_labels(large, label, np.arange(1, count + 1))
        yield torch.tensor(boxes, dtype=torch.float64), torch.as_tensor(inside, dtype=torch.float64)


def follow(
    found: Sequence[Candidates],
    size: tuple[int, int],
    span: int = 9,
    split: bool = True,
    previous: Tensor | None = None,
) -> Tensor:
    """One box per frame, float32 [T, 4]: `localize` on the result of `candidates`.

    Args:
        found: for each frame, the result of `candidates`.
        size: (height, width) of the frames in pixels.
        span, split: as in `localize`.
        previous: the `initial` of `localize`, float64 [4].

    Example:
        >>> box = torch.tensor([[10.0, 10, 20, 20]], dtype=torch.float64)
        >>> found = [(box + t, torch.ones(1)) for t in range(3)]  # one candidate, which moves
        >>> amstel.media.localize.follow(found, (48, 64))[:, 0]
        tensor([10., 11., 12.])
    """
    height, width = size
    tracks: list[tuple[list[int], list[Tensor]]] = []  # frames with candidates, and their boxes
    for t, frame in enumerate(found):
        if frame is None:
            continue
        choice, inside = frame
        overlap = torch.zeros(len(choice)) if previous is None else iou(choice, previous)
        lost = not overlap.any()
        if not tracks or (lost and split):
            tracks.append(([], []))
        previous = choice[(inside if lost else overlap).argmax()]
        _append(tracks[-1], t, previous)
    boxes = torch.tensor([0.0, 0.0, width, height], dtype=torch.float64).repeat(len(found), 1)
    for times, seen in tracks:
        boxes[times] = _smooth(_filled(times, seen), span)[torch.tensor(times) - times[0]]
    return _inside(boxes, size)


def link(
    found: Sequence[Candidates],
    size: tuple[int, int],
    span: int = 9,
    most: int = 4,
    gap: int = 5,
    shortest: int | None = None,
    weakest: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Tubes and their scores: `localize_actors` on the result of `candidates`.

    Args:
        found: for each frame, the result of `candidates`.
        size: (height, width) of the frames in pixels.
        span, most, gap, shortest, weakest: as in `localize_actors`.

    Example:
        >>> boxes = torch.tensor([[0.0, 0, 9, 9], [20, 0, 29, 9]], dtype=torch.float64)
        >>> found = [(boxes, torch.tensor([1.0, 3.0]))] * 4  # two candidates that stay
        >>> tubes, scores = amstel.media.localize.link(found, (48, 64))
        >>> tubes[:, 0].tolist(), scores.tolist()
        ([[20.0, 0.0, 29.0, 9.0], [0.0, 0.0, 9.0, 9.0]], [0.75, 0.25])
    """
    tracks: list[tuple[list[int], list[Tensor], list[Tensor]]] = []  # frames, boxes, attention inside
    total = torch.zeros((), dtype=torch.float64)
    for t, frame in enumerate(found):
        if frame is None:
            continue
        boxes, inside = frame
        total = total + inside.sum()
        going = [track for track in tracks if t - track[0][-1] <= gap + 1]
        free = set(range(len(boxes)))
        if going:
            overlap = iou(torch.stack([track[1][-1] for track in going])[:, None], boxes)
            for _ in range(min(overlap.shape)):
                best = int(overlap.argmax())
                k, n = divmod(best, len(boxes))
                if overlap[k, n] <= 0:
                    break
                _append(going[k], t, boxes[n], inside[n])
                free.discard(n)
                overlap[k], overlap[:, n] = -1, -1
        for n in sorted(free):
            tracks.append(([t], [boxes[n]], [inside[n]]))
    if shortest is None:
        shortest = max(1, len(found) // 10)
    mass = [float(sum(track[2]) / total) for track in tracks]
    good = [k for k, track in enumerate(tracks) if len(track[0]) >= shortest]
    good = [k for k in good if mass[k] >= weakest * max(mass[j] for j in good)]
    good = sorted(good, key=lambda k: -mass[k])[:most]
    tubes = torch.full((len(good), len(found), 4), float("nan"))
    for tube, k in zip(tubes, good, strict=True):
        times, seen, _ = tracks[k]
        tube[times[0] : times[-1] + 1] = _inside(_smooth(_filled(times, seen), span), size)
    return tubes, torch.tensor([mass[k] for k in good])


def _append(track: tuple[list[Any], ...], *what: Any) -> None:
    for part, value in zip(track, what, strict=True):
        part.append(value)


def _filled(frames: Sequence[int], boxes: Sequence[Tensor]) -> Tensor:
    """Boxes of all frames from the first to the last, those between interpolated."""
    known, wanted = torch.tensor(frames), torch.arange(frames[0], frames[-1] + 1)
    after = torch.searchsorted(known, wanted)
    before = (after - 1).clamp(min=0)
    before = torch.where(known[after] == wanted, after, before)
    share = (wanted - known[before]) / (known[after] - known[before]).clamp(min=1)
    all_boxes = torch.stack(list(boxes))
    return torch.lerp(all_boxes[before], all_boxes[after], share.double()[:, None])


def _inside(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Inside the frame, at least one pixel wide and high."""
    height, width = size
    x1, y1 = boxes[:, 0].clamp(0, width - 1), boxes[:, 1].clamp(0, height - 1)
    x2, y2 = boxes[:, 2].clamp(max=width).maximum(x1 + 1), boxes[:, 3].clamp(max=height).maximum(y1 + 1)
    return torch.stack([x1, y1, x2, y2], dim=1).float()


def _checked(
    attention: Tensor, size: Sequence[int], span: int, name: str = "frame_size"
) -> tuple[tuple[int, int], int]:
    tensor("attention", attention, "a floating tensor [T, h, w]")
    if attention.dim() != 3 or not attention.numel() or not attention.is_floating_point():
        fail("attention", "a floating tensor [T, h, w] with at least one frame", attention)
    return _size(name, size), _arguments.integer("span", span)


def _enlarging(count: int, size: int) -> np.ndarray:
    """The matrix [size, count] of bilinear interpolation in one direction."""
    eye = torch.eye(count, dtype=torch.float64)[None]
    return interpolate(eye, size, mode="linear", align_corners=False)[0].T.contiguous().numpy()


def _size(name: str, size: Sequence[int]) -> tuple[int, int]:
    expected = "(height, width), two positive integers"
    try:
        height, width = size
    except (TypeError, ValueError):
        fail(name, expected, size)
    return tuple(_check.integer(name, side, 1, expected) for side in (height, width))  # type: ignore[return-value]


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
