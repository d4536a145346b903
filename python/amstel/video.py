"""Videos: read and write them, optical flow, attention maps to boxes, scores of boxes, annotated pictures.

A video is a uint8 tensor [T, H, W, 3], RGB. A box is (x1, y1, x2, y2) in pixels, with x2 and y2 the edges just
past the last pixel. Everything here is for the CPU and needs the extra [video], imported where it is used.
"""

from __future__ import annotations

import importlib
import math
import os
import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from amstel._check import describe, fail, tensor

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
VIDEOS = (".avi", ".mp4", ".m4v", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".gif")

# The colours of a box found and of the true one, and the way from no attention to all of it: lightness grows.
FOUND, TRUTH = (86, 200, 255), (255, 255, 255)
HEAT = np.array([(20, 10, 70), (110, 20, 130), (205, 50, 90), (250, 130, 30), (255, 235, 90)], np.float32)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ImportError(f'amstel.video needs {name} here: pip install "amstel[video]"') from None


def natural(path: Path) -> list:
    """Sort key that puts frame_2 before frame_10."""
    return [int(part) if k % 2 else part.lower() for k, part in enumerate(re.split(r"(\d+)", path.name))]


def _check_frames(frames: Tensor) -> None:
    tensor("frames", frames, "a uint8 tensor [T, H, W, 3]")
    if frames.dim() != 4 or frames.shape[3] != 3 or frames.dtype != torch.uint8 or not frames.numel():
        fail("frames", "a uint8 tensor [T, H, W, 3], not empty", frames)


def _check_number(argument: str, value: Any, positive: bool = True) -> None:
    real = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not real or value < 0 or (positive and value == 0):
        fail(argument, "a positive number" if positive else "a number >= 0", value)


def _check_integer(argument: str, value: Any, least: int = 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        fail(argument, f"an integer >= {least}", value)


# ------------------------------------------------------------------------------------------------- files


def _read_image(path: Path) -> np.ndarray:
    image = _module("PIL.Image")
    try:
        with image.open(path) as file:
            return np.asarray(file.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{path} must be an image that can be read, got: {error}") from None


def _read_folder(path: Path) -> list[np.ndarray]:
    files = sorted((p for p in path.iterdir() if p.suffix.lower() in IMAGES), key=natural)
    frames = [_read_image(file) for file in files]
    for file, frame in zip(files, frames, strict=True):
        if frame.shape != frames[0].shape:
            raise ValueError(
                f"{file} must be {frames[0].shape[1]}x{frames[0].shape[0]} as the first frame of its folder, "
                f"got {frame.shape[1]}x{frame.shape[0]}"
            )
    return frames


def _read_strip(path: Path) -> list[np.ndarray]:
    strip = _read_image(path)
    height, width = strip.shape[:2]
    if width % height:
        raise ValueError(
            f"{path} must be a strip of square frames side by side, so as wide as a multiple of its height, "
            f"got {width}x{height}"
        )
    return np.split(strip, width // height, axis=1)


def _read_gif(path: Path) -> list[np.ndarray]:
    image = _module("PIL.Image")
    frames, lengths = [], []
    try:
        with image.open(path) as file:
            for index in range(getattr(file, "n_frames", 1)):
                file.seek(index)
                frames.append(np.asarray(file.convert("RGB")))
                lengths.append(file.info.get("duration", 0))
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise ValueError(f"{path} must be a GIF that can be read, got: {error}") from None
    # Writers join equal frames into one that lasts longer.
    shortest = min((length for length in lengths if length > 0), default=1)
    return [
        frame
        for frame, length in zip(frames, lengths, strict=True)
        for _ in range(max(1, round(length / shortest)))
    ]


def _read_video(path: Path) -> list[np.ndarray]:
    av = _module("av")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} must hold a video, got a file without a video stream")
            container.streams.video[0].thread_type = "AUTO"
            return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except av.error.FFmpegError as error:
        raise ValueError(f"{path} must be a video that can be read, got: {error.strerror}") from None


def read(path: str | os.PathLike) -> Tensor:
    """All frames of a video: uint8 [T, H, W, 3], RGB.

    Args:
        path: a video file (whatever FFmpeg reads, through PyAV), a GIF (a frame that lasts k times the shortest
            one comes k times), a folder of equally large images in natural order (frame_2 before frame_10), or
            one image that is a strip of square frames side by side.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it cannot be read, holds no frame, or has frames of several sizes; a strip whose width is no
            multiple of its height. The message names the file.
        ImportError: the extra [video] is missing.

    Example:
        >>> frames = amstel.video.read("clip.avi")                             # doctest: +SKIP
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; it should be a video, a folder of frames or a strip")
    if path.is_dir():
        frames = _read_folder(path)
    elif path.suffix.lower() == ".gif":
        frames = _read_gif(path)
    elif path.suffix.lower() in IMAGES:
        frames = _read_strip(path)
    else:
        frames = _read_video(path)
    if not frames:
        raise ValueError(f"{path} must hold at least one frame, got none")
    return torch.from_numpy(np.stack(frames))


def write(path: str | os.PathLike, frames: Tensor, fps: float = 12) -> Path:
    """Write a video as a GIF, an MP4 or a strip, by the ending of `path`.

    `.gif` has one palette of 256 colours for all frames, and times in whole hundredths of a second; `.mp4` is
    H.264 where FFmpeg has it and else MPEG-4, odd sides made even by repeating the last row or column; `.png`
    is a strip of square frames side by side, without loss. The inverse of `read` up to the coding.

    Args:
        path: file to write.
        frames: uint8 [T, H, W, 3].
        fps: frames a second.

    Raises:
        ValueError: another ending, other frames, `fps` not positive.
        FileNotFoundError: the folder to write in does not exist.

    Example:
        >>> path = amstel.video.write("noise.gif", torch.randint(256, (8, 64, 64, 3)).byte())  # doctest: +SKIP
    """
    path = Path(path)
    _check_frames(frames)
    _check_number("fps", fps)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} to write {path.name} in does not exist")
    array = frames.cpu().numpy()
    ending = path.suffix.lower()
    if ending == ".gif":
        _write_gif(path, array, fps)
    elif ending == ".mp4":
        _write_mp4(path, array, fps)
    elif ending == ".png":
        if array.shape[1] != array.shape[2]:
            fail("frames", "square for a strip", frames)
        _module("PIL.Image").fromarray(np.concatenate(list(array), axis=1)).save(path)
    else:
        raise ValueError(f"`path` must end in .gif, .mp4 or .png, got {describe(str(path))}")
    return path


def _write_gif(path: Path, array: np.ndarray, fps: float) -> None:
    image = _module("PIL.Image")
    # One palette, from a spread of frames: a palette a frame makes still parts flicker.
    sample = array[np.unique(np.linspace(0, len(array) - 1, 16).round().astype(int))]
    palette = image.fromarray(np.concatenate(list(sample), axis=1)).quantize(
        256, image.Quantize.MAXCOVERAGE, kmeans=3
    )
    pictures = [image.fromarray(frame).quantize(palette=palette, dither=0) for frame in array]
    hundredths = max(2, round(100 / fps))
    pictures[0].save(
        path, save_all=True, append_images=pictures[1:], duration=10 * hundredths, loop=0, optimize=False
    )


def _write_mp4(path: Path, array: np.ndarray, fps: float) -> None:
    av = _module("av")
    height, width = array.shape[1:3]
    array = np.pad(array, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width = array.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "18"} if codec == "libx264" else {"qscale": "2"}
        for frame in array:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def segments(num_frames: int, length: int, count: int = 25) -> Tensor:
    """Frame numbers of `count` equally spaced segments of `length` consecutive frames: int64 [count, length].

    The first segment begins with the video and the last ends with it. A video of fewer than `length` frames
    repeats its last frame, and all its segments are the same.

    Raises:
        ValueError: an argument is no positive integer.

    Source: Z. Li et al., VideoLSTM, arXiv 1607.01794, section 4: 25 segments a test video, scores averaged.

    Example:
        >>> amstel.video.segments(10, 4, count=3)
        tensor([[0, 1, 2, 3],
                [3, 4, 5, 6],
                [6, 7, 8, 9]])
    """
    for argument, value in (("num_frames", num_frames), ("length", length), ("count", count)):
        _check_integer(argument, value)
    start = torch.linspace(0, max(0, num_frames - length), count, dtype=torch.float64).round().long()
    return (start[:, None] + torch.arange(length)).clamp(max=num_frames - 1)


# ------------------------------------------------------------------------------------------- optical flow


def flow(frames: Tensor, method: str = "dis") -> Tensor:
    """Dense optical flow from frame t to frame t + 1 in pixels: float32 [T, 2, H, W], x first.

    What is at (x, y) in frame t is at (x + flow[t, 0, y, x], y + flow[t, 1, y, x]) in the next. The last flow is
    repeated, so that every frame has one; a single frame has zeros.

    Args:
        frames: uint8 [T, H, W, 3], at least 16 pixels high and wide.
        method: "dis" (Kroeger et al., ECCV 2016; fast) or "farneback" (Farnebäck, SCIA 2003; smooth), both of
            OpenCV, on the grey images.

    Raises:
        ValueError: other frames, smaller ones, or another method.
        ImportError: the extra [video] is missing.

    Example:
        >>> amstel.video.flow(torch.zeros(1, 16, 16, 3, dtype=torch.uint8)).shape
        torch.Size([1, 2, 16, 16])
    """
    _check_frames(frames)
    if method not in ("dis", "farneback"):
        fail("method", '"dis" or "farneback"', method)
    count, height, width = frames.shape[:3]
    if min(height, width) < 16:
        fail("frames", "at least 16 pixels high and wide", frames)
    if count == 1:
        return torch.zeros(1, 2, height, width)
    cv2 = _module("cv2")
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames.cpu().contiguous().numpy()]
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM) if method == "dis" else None
    result = torch.empty(count, 2, height, width)
    for t in range(count - 1):
        if dis is not None:
            motion = dis.calc(grey[t], grey[t + 1], None)
        else:
            motion = cv2.calcOpticalFlowFarneback(grey[t], grey[t + 1], None, 0.5, 3, 15, 3, 5, 1.2, 0)
        result[t] = torch.from_numpy(motion).movedim(-1, 0)
    result[-1] = result[-2]
    return result


def flow_image(flow: Tensor, bound: float = 20.0) -> Tensor:
    """Optical flow as pictures: uint8 [T, H, W, 3].

    x and y are cut at ±`bound` pixels and scaled to 0..255, round(255 (v + bound) / (2 bound)), as the images of
    TV-L1 flow are, so that rest is 128; the third channel is the length of the vector, 0..bound to 0..255.

    Args:
        flow: floating [T, 2, H, W] in pixels.
        bound: the motion that maps to the end of the range.

    Raises:
        ValueError: another shape, NaN, or `bound` not positive.

    Example:
        >>> amstel.video.flow_image(torch.zeros(1, 2, 1, 1)).tolist()
        [[[[128, 128, 0]]]]
    """
    tensor("flow", flow, "a floating tensor [T, 2, H, W]")
    if flow.dim() != 4 or flow.shape[1] != 2 or not flow.is_floating_point():
        fail("flow", "a floating tensor [T, 2, H, W]", flow)
    _check_number("bound", bound)
    if flow.isnan().any():
        raise ValueError("`flow` must hold no NaN, got some")
    x, y = flow.double().unbind(1)
    channels = torch.stack([(x + bound) / 2, (y + bound) / 2, torch.hypot(x, y)], dim=-1)
    return (channels * (255 / bound)).clamp(0, 255).round().to(torch.uint8)


def read_flow_images(folder: str | os.PathLike, bound: float = 20.0) -> Tensor:
    """Flow from the image pairs `flow_x_0001.jpg`, `flow_y_0001.jpg`, ...: float32 [T, 2, H, W] in pixels.

    The inverse of the first two channels of `flow_image`. T is the number of pairs; tools that compute flow
    write one fewer than there are frames.

    Raises:
        FileNotFoundError: the folder is missing.
        ValueError: no pairs in it, an x without its y or the reverse, an unreadable image, several sizes.

    Example:
        >>> motion = amstel.video.read_flow_images("tvl1_gpu")                 # doctest: +SKIP
    """
    folder = Path(folder)
    _check_number("bound", bound)
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder {folder} of flow images does not exist")
    axes: dict[str, dict[int, Path]] = {"x": {}, "y": {}}
    for path in folder.iterdir():
        if match := re.fullmatch(r"flow_([xy])_(\d+)\.(jpg|jpeg|png)", path.name):
            axes[match[1]][int(match[2])] = path
    if not axes["x"] and not axes["y"]:
        raise ValueError(f"{folder} must hold images flow_x_0001.jpg, flow_y_0001.jpg, ..., got none")
    if alone := axes["x"].keys() ^ axes["y"].keys():
        raise ValueError(
            f"{folder} must hold flow_x and flow_y for every frame, got one of them for {min(alone)}"
        )
    pairs = [[_read_image(axes[axis][number])[..., 0] for axis in "xy"] for number in sorted(axes["x"])]
    shapes = {image.shape for pair in pairs for image in pair}
    if len(shapes) > 1:
        raise ValueError(f"{folder} must hold images of one size, got {sorted(s[::-1] for s in shapes)}")
    return torch.from_numpy(np.array(pairs, np.float32)) * (2 * bound / 255) - bound


# -------------------------------------------------------------------------------- attention maps to boxes


def localise(
    attention: Tensor,
    frame_size: Sequence[int],
    *,
    sigma: float | None = None,
    threshold: float = 0.5,
    span: int = 9,
    split: bool = True,
    initial: Tensor | Sequence[float] | None = None,
) -> Tensor:
    """Where it happens: one box a frame from attention maps alone, smoothed over time.

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
        >>> amstel.video.localise(maps, (70, 70), sigma=0)
        tensor([[50., 30., 60., 40.],
                [50., 30., 60., 40.]])
    """
    tensor("attention", attention, "a floating tensor [T, h, w]")
    if attention.dim() != 3 or not attention.numel() or not attention.is_floating_point():
        fail("attention", "a floating tensor [T, h, w] with at least one frame", attention)
    height, width = _size(frame_size)
    if sigma is not None:
        _check_number("sigma", sigma, positive=False)
    _check_number("threshold", threshold, positive=False)
    if threshold > 1:
        fail("threshold", "in [0, 1]", threshold)
    _check_integer("span", span)
    maps = attention.detach().to("cpu", torch.float64)
    if not maps.isfinite().all() or (maps < 0).any():
        raise ValueError("`attention` must be finite and not negative, got NaN, infinite or negative values")
    previous, starts = None, []
    if initial is not None:
        previous = torch.as_tensor(initial, dtype=torch.float64).cpu()
        if previous.shape != (4,) or not previous.isfinite().all():
            fail("initial", "a box (x1, y1, x2, y2)", initial)

    ndimage = _module("scipy.ndimage")
    rows, columns = maps.shape[1:]
    blur = (height / rows / 2, width / columns / 2) if sigma is None else (sigma, sigma)
    boxes = torch.tensor([0.0, 0.0, width, height], dtype=torch.float64).repeat(len(maps), 1)
    for t, small in enumerate(maps):
        low, high = small.min(), small.max()
        if high - low <= 1e-5 * high:
            continue
        # To 0..1 first: in the tail of a softmax the values can be too small for the filter.
        scaled = ((small - low) / (high - low))[None, None]
        large = interpolate(scaled, (height, width), mode="bilinear", align_corners=False)[0, 0].numpy()
        large = ndimage.gaussian_filter(large, blur, mode="nearest")
        low, high = large.min(), large.max()
        if high == low:
            continue
        label, count = ndimage.label(large >= low + threshold * (high - low), np.ones((3, 3)))
        found = torch.tensor(
            [(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(label)], dtype=torch.float64
        )
        overlap = torch.zeros(count) if previous is None else box_iou(found, previous)
        if not overlap.any():
            starts.append(t)
            overlap = torch.as_tensor(ndimage.sum_labels(large, label, np.arange(1, count + 1)))
        boxes[t] = previous = found[overlap.argmax()]
    tracks = boxes.tensor_split(starts) if split else (boxes,)
    boxes = torch.cat([_smooth(track, span) for track in tracks])
    x1, y1 = boxes[:, 0].clamp(0, width - 1), boxes[:, 1].clamp(0, height - 1)
    x2, y2 = boxes[:, 2].clamp(max=width).maximum(x1 + 1), boxes[:, 3].clamp(max=height).maximum(y1 + 1)
    return torch.stack([x1, y1, x2, y2], dim=1).float().to(attention.device)


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


# ------------------------------------------------------------------------------------------------- scores


def _check_boxes(argument: str, boxes: Tensor) -> None:
    tensor(argument, boxes, "a floating tensor [..., 4]")
    if boxes.dim() < 1 or boxes.shape[-1] != 4 or not boxes.is_floating_point():
        fail(argument, "a floating tensor [..., 4]", boxes)


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes (x1, y1, x2, y2), pair by pair: [..., 4] and [..., 4] to [...].

    The leading dimensions broadcast. A box without area overlaps nothing; a box with NaN gives NaN.

    Example:
        >>> amstel.video.box_iou(torch.tensor([0.0, 0, 2, 2]), torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2]]))
        tensor([1.0000, 0.3333])
    """
    _check_boxes("a", a)
    _check_boxes("b", b)

    def area(low: Tensor, high: Tensor) -> Tensor:
        return (high - low).clamp(min=0).prod(-1)

    both = area(torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:]))
    union = area(a[..., :2], a[..., 2:]) + area(b[..., :2], b[..., 2:]) - both
    return torch.where(union == 0, 0.0, both / union)


def tube_iou(a: Tensor, b: Tensor) -> Tensor:
    """Overlap of two tubes, boxes [T, 4] with NaN in the frames outside the tube: a scalar.

    The sum of the frames' intersections over unions, divided by the number of frames in which either is present.

    Example:
        >>> a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2]])
        >>> amstel.video.tube_iou(a, torch.tensor([[0.0, 0, 2, 2], [float("nan")] * 4]))
        tensor(0.5000)
    """
    _check_boxes("a", a)
    _check_boxes("b", b)
    if a.shape != b.shape or a.dim() != 2:
        raise ValueError(f"`a` and `b` must both be [T, 4], got {list(a.shape)} and {list(b.shape)}")
    iou = box_iou(a, b)
    either = ~(a.isnan().any(1) & b.isnan().any(1))
    return iou.nan_to_num(0).sum() / either.sum().clamp(min=1)


def recall(iou: Tensor, thresholds: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5)) -> Tensor:
    """Share of the true boxes, or tubes, that are found: mean over all of iou >= threshold, a value a threshold.

    Args:
        iou: overlap of each true box with the one found for it, of any shape.
        thresholds: numbers in [0, 1].

    Raises:
        ValueError: no value, or NaN: leave out frames without a true box first.

    Example:
        >>> amstel.video.recall(torch.tensor([0.05, 0.3, 0.45, 0.9]), (0.1, 0.5))
        tensor([0.7500, 0.2500])
    """
    tensor("iou", iou, "a floating tensor")
    if not iou.numel() or iou.isnan().any():
        fail("iou", "not empty and without NaN", iou)
    return torch.stack([(iou >= threshold).double().mean() for threshold in thresholds]).float()


def average_precision(scores: Tensor, correct: Tensor, num_truths: int) -> float:
    """Area under the curve of precision over recall, all points, as PASCAL VOC has it since 2010.

    Precision is first made to fall: at each recall the best precision at that recall or above.

    Args:
        scores: confidence of each detection [D]; equal ones keep their order.
        correct: whether it is right [D], bool; each truth can make one detection right.
        num_truths: how many there are to find.

    Example:
        >>> amstel.video.average_precision(torch.tensor([0.9, 0.8, 0.7]), torch.tensor([True, False, True]), 2)
        0.8333333333333333
    """
    tensor("scores", scores, "a floating tensor [D]")
    tensor("correct", correct, "a bool tensor [D]")
    if scores.dim() != 1 or scores.isnan().any():
        fail("scores", "a floating tensor [D] without NaN", scores)
    if correct.shape != scores.shape or correct.dtype != torch.bool:
        fail("correct", f"bool {list(scores.shape)} as `scores`", correct)
    _check_integer("num_truths", num_truths)
    right = correct[scores.argsort(descending=True, stable=True)].double()
    precision = right.cumsum(0) / torch.arange(1, len(right) + 1, device=right.device)
    best = precision.flip(0).cummax(0).values.flip(0) if len(right) else precision
    return float((best * right).sum() / num_truths)


def mean_average_precision(
    scores: Tensor,
    classes: Tensor,
    iou: Tensor,
    truth_classes: Tensor,
    thresholds: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5),
) -> Tensor:
    """Mean over classes of the average precision of detections, boxes or tubes: one value a threshold.

    By falling score, a detection is right if the truth of its class that it overlaps best overlaps it by at least
    the threshold and was not found before. A class without truth does not count.

    Args:
        scores: confidence of each detection [D].
        classes: its class [D], int64.
        iou: overlap of each detection with each truth [D, G], 0 between different videos.
        truth_classes: class of each truth [G], int64, G >= 1.
        thresholds: numbers in [0, 1].

    Returns:
        float32 [len(thresholds)].

    Raises:
        ValueError: shapes that do not fit, NaN, or no truth.

    Source: M. Everingham et al., The PASCAL Visual Object Classes Challenge, IJCV 2010 (devkit of 2010 on).

    Example:
        >>> scores, classes = torch.tensor([0.9, 0.8]), torch.tensor([0, 0])
        >>> iou = torch.tensor([[0.3], [0.6]])
        >>> amstel.video.mean_average_precision(scores, classes, iou, torch.tensor([0]), (0.2, 0.5))
        tensor([1.0000, 0.5000])
    """
    for argument, value in (("scores", scores), ("classes", classes), ("truth_classes", truth_classes)):
        tensor(argument, value, "a vector")
        if value.dim() != 1:
            fail(argument, "a vector", value)
    tensor("iou", iou, "a floating tensor [D, G]")
    if classes.shape != scores.shape:
        fail("classes", f"{list(scores.shape)} as `scores`", classes)
    if not len(truth_classes):
        fail("truth_classes", "not empty", truth_classes)
    if iou.shape != (len(scores), len(truth_classes)) or iou.isnan().any():
        fail("iou", f"[{len(scores)}, {len(truth_classes)}] without NaN", iou)
    result = []
    for threshold in thresholds:
        values = []
        for label in truth_classes.unique().tolist():
            own, truths = classes == label, truth_classes == label
            order = scores[own].argsort(descending=True, stable=True)
            best, which = iou[own][:, truths][order].max(1)
            correct, taken = torch.zeros(len(order), dtype=torch.bool), set()
            for d, (overlap, truth) in enumerate(zip(best.tolist(), which.tolist(), strict=True)):
                if overlap >= threshold and truth not in taken:
                    correct[d] = True
                    taken.add(truth)
            values.append(average_precision(scores[own][order].cpu(), correct, int(truths.sum())))
        result.append(sum(values) / len(values))
    return torch.tensor(result)


# ----------------------------------------------------------------------------------------------- pictures


def _draw_box(draw: Any, box: Sequence[float], colour: tuple, line: int, dashed: bool) -> None:
    x1, y1, x2, y2 = box
    corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
    # A dark line under the light one shows the box on any picture.
    for shade, wide in (((0, 0, 0), line + 2), (colour, line)):
        for (ax, ay), (bx, by) in pairwise(corners):
            length = abs(bx - ax) + abs(by - ay)
            dashes = max(1, round(length / (8 * line))) if dashed else 1
            for k in range(dashes):
                start, stop = k / dashes, (k + (0.55 if dashed else 1)) / dashes
                ends = [
                    (ax + (bx - ax) * start, ay + (by - ay) * start),
                    (ax + (bx - ax) * stop, ay + (by - ay) * stop),
                ]
                draw.line(ends, fill=shade, width=wide)


def annotate(
    frames: Tensor,
    attention: Tensor | None = None,
    boxes: Tensor | None = None,
    truth: Tensor | None = None,
    caption: str | Sequence[str] | None = None,
    scale: int | None = None,
) -> Tensor:
    """Pictures for a person: attention as heat, the box found, the true box, a line of text under it.

    The heat of a frame runs from its least to its greatest attention; a map that is the same everywhere shows
    none. The box found is drawn in light blue, the true one dashed in white.

    Args:
        frames: uint8 [T, H, W, 3].
        attention: maps [T, h, w] of any scale and size.
        boxes: found boxes [T, 4] in pixels of `frames`; a row with NaN is left out.
        truth: true boxes, alike.
        caption: one line of text for all frames, or one a frame.
        scale: whole number by which to enlarge; default: the least that makes the shorter side 256 pixels.

    Returns:
        uint8 [T, H', W', 3], larger by `scale` and by the lines of text.

    Raises:
        ValueError: shapes or a number of captions that do not fit the frames.
        ImportError: the extra [video] is missing.

    Example:
        >>> pictures = amstel.video.annotate(frames, maps, boxes, caption="jumping jack")  # doctest: +SKIP
        >>> amstel.video.write("jack.gif", pictures)                                       # doctest: +SKIP
    """
    _check_frames(frames)
    count, height, width = frames.shape[:3]
    if attention is not None:
        tensor("attention", attention, f"a floating tensor [{count}, h, w]")
        if attention.dim() != 3 or len(attention) != count or not attention.is_floating_point():
            fail("attention", f"a floating tensor [{count}, h, w]", attention)
        if not attention.numel() or not attention.isfinite().all():
            fail("attention", "finite and not empty", attention)
    for argument, value in (("boxes", boxes), ("truth", truth)):
        if value is not None:
            _check_boxes(argument, value)
            if value.shape != (count, 4):
                fail(argument, f"[{count}, 4]", value)
    captions = [caption] * count if isinstance(caption, str) else list(caption or [""] * count)
    if len(captions) != count:
        raise ValueError(f"`caption` must be one line or {count}, got {len(captions)}")
    if scale is None:
        scale = max(1, math.ceil(256 / min(height, width)))
    _check_integer("scale", scale)

    image, drawing, fonts = (_module(f"PIL.{name}") for name in ("Image", "ImageDraw", "ImageFont"))
    size = (width * scale, height * scale)
    text, line = max(12, min(size) // 18), max(2, min(size) // 128)
    font = fonts.load_default(text)
    legend = boxes is not None and truth is not None
    lines = int(any(captions)) + int(legend)
    row = int(1.5 * text)
    heat = None if attention is None else _heat(attention.detach().float().cpu(), size)
    pictures = np.zeros((count, size[1] + lines * row + (lines > 0) * (row // 4), size[0], 3), np.uint8)
    for t, frame in enumerate(frames.cpu().numpy()):
        large = np.repeat(np.repeat(frame, scale, 0), scale, 1)
        if heat is not None:
            large = _overlay(large, heat[t])
        picture = image.new("RGB", pictures.shape[2:0:-1], (24, 24, 24))
        picture.paste(image.fromarray(large))
        draw = drawing.Draw(picture)
        for which, colour, dashed in ((truth, TRUTH, True), (boxes, FOUND, False)):
            if which is not None and not which[t].isnan().any():
                # Inside the picture, so that no line is cut off.
                inset = torch.tensor([size[0] - 1, size[1] - 1]) - line // 2
                ends = (which[t].cpu() * scale).view(2, 2).minimum(inset).clamp(min=line // 2)
                _draw_box(draw, ends.view(4).tolist(), colour, line, dashed)
        y = size[1] + row // 4
        if any(captions):
            draw.text((text // 2, y), captions[t], fill=(240, 240, 240), font=font)
            y += row
        if legend:
            draw.text((text // 2, y), "box found", fill=FOUND, font=font)
            draw.text(
                (text // 2 + draw.textlength("box found   ", font), y), "- - true box", fill=TRUTH, font=font
            )
        pictures[t] = np.asarray(picture)
    return torch.from_numpy(pictures)


def _heat(attention: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Each map at the size of the picture (width, height), its range brought to 0..1."""
    large = interpolate(attention[:, None], size[::-1], mode="bilinear", align_corners=False)[:, 0]
    low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
    flat = high - low <= 1e-5 * high.abs()
    return torch.where(flat, 0.0, (large - low) / (high - low)).numpy()


def _overlay(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    place = heat * (len(HEAT) - 1)
    below = np.minimum(place.astype(int), len(HEAT) - 2)
    colour = HEAT[below] + (HEAT[below + 1] - HEAT[below]) * (place - below)[..., None]
    share = 0.65 * heat[..., None]
    return (picture * (1 - share) + colour * share).round().astype(np.uint8)
