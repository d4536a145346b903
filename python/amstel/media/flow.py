"""Estimate optical flow, turn it into pictures, and read the pictures that other tools write."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from amstel._check import fail, tensor
from amstel._optional import need
from amstel.media import _arguments, images
from amstel.media.formats import visible


def flow(frames: Tensor, method: str = "dis") -> Tensor:
    """Dense optical flow from frame t to frame t + 1 in pixels: float32 [T, 2, H, W], x first.

    What is at (x, y) in frame t is at (x + flow[t, 0, y, x], y + flow[t, 1, y, x]) in the next. The last flow is
    repeated, so that every frame has one; a single frame has zeros.

    Args:
        frames: uint8 [T, H, W, 3], at least 16 pixels high and wide.
        method: "dis" (Kroeger et al., ECCV 2016; fast) or "farneback" (Farnebäck, SCIA 2003; smooth), both of
            OpenCV, on the gray images.

    Raises:
        ValueError: frames of another kind or smaller, or an unknown method.
        ImportError: the extra [video] is missing.

    Example:
        >>> amstel.video.flow(torch.zeros(1, 16, 16, 3, dtype=torch.uint8)).shape
        torch.Size([1, 2, 16, 16])
    """
    _arguments.frames(frames)
    if not isinstance(method, str) or method not in ("dis", "farneback"):
        fail("method", '"dis" or "farneback"', method)
    count, height, width = frames.shape[:3]
    if min(height, width) < 16:
        fail("frames", "at least 16 pixels high and wide", frames)
    if count == 1:
        return torch.zeros(1, 2, height, width)
    cv2 = need("cv2", extra="video", purpose="amstel.video.flow")
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames.cpu().contiguous().numpy()]
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM) if method == "dis" else None
    result = torch.empty(count, 2, height, width)
    for t in range(count - 1):
        if dis is not None:
            motion = dis.calc(gray[t], gray[t + 1], None)
        else:
            motion = cv2.calcOpticalFlowFarneback(gray[t], gray[t + 1], None, 0.5, 3, 15, 3, 5, 1.2, 0)
        result[t] = torch.from_numpy(motion).movedim(-1, 0)
    result[-1] = result[-2]
    return result


def flow_image(flow: Tensor, bound: float = 20.0) -> Tensor:
    """Optical flow as pictures: uint8 [T, H, W, 3].

    x and y are clipped to ±`bound` pixels and scaled to 0..255, round(255 (v + bound) / (2 bound)), like the images of
    TV-L1 flow, so 128 means no motion. The third channel is the length of the vector, 0..bound scaled to 0..255.

    Args:
        flow: floating [T, 2, H, W] in pixels.
        bound: the motion that maps to the end of the range.

    Raises:
        ValueError: a wrong shape, NaN, or `bound` is not positive.

    Example:
        >>> amstel.video.flow_image(torch.zeros(1, 2, 1, 1)).tolist()
        [[[[128, 128, 0]]]]
    """
    tensor("flow", flow, "a floating tensor [T, 2, H, W]")
    if flow.dim() != 4 or flow.shape[1] != 2 or not flow.is_floating_point():
        fail("flow", "a floating tensor [T, 2, H, W]", flow)
    _arguments.number("bound", bound)
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
        ValueError: the folder has no pairs, or one image of a pair is missing; a number occurs twice or is missing between
            others; an image cannot be read; sizes differ.

    Example:
        >>> amstel.video.read_flow_images("tvl1_gpu")[0, :, 0, 0]  # 255 in flow_x_0001.jpg and 0 in flow_y_0001.jpg
        tensor([ 20., -20.])
    """
    folder = Path(folder)
    _arguments.number("bound", bound)
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder {folder} of flow images does not exist")
    axes: dict[str, dict[int, Path]] = {"x": {}, "y": {}}
    for path in visible(folder):
        if match := re.fullmatch(r"flow_([xy])_(\d+)\.(jpg|jpeg|png)", path.name, re.IGNORECASE):
            other = axes[match[1].lower()].setdefault(int(match[2]), path)
            if other is not path:
                raise ValueError(
                    f"{folder} must hold one image per number, got {other.name} and {path.name} for {int(match[2])}"
                )
    if not axes["x"] and not axes["y"]:
        raise ValueError(f"{folder} must hold images flow_x_0001.jpg, flow_y_0001.jpg, ..., got none")
    if alone := axes["x"].keys() ^ axes["y"].keys():
        raise ValueError(
            f"{folder} must hold flow_x and flow_y for every frame, got one of them for {min(alone)}"
        )
    numbers = range(min(axes["x"]), max(axes["x"]) + 1)
    if missing := next((number for number in numbers if number not in axes["x"]), None):
        raise ValueError(
            f"{folder} must hold the pairs {numbers[0]} to {numbers[-1]} without a gap, got none for {missing}"
        )
    pairs = [[images.read(axes[axis][number])[..., 0] for axis in "xy"] for number in numbers]
    shapes = {image.shape for pair in pairs for image in pair}
    if len(shapes) > 1:
        raise ValueError(f"{folder} must hold images of one size, got {sorted(s[::-1] for s in shapes)}")
    return torch.from_numpy(np.array(pairs, np.float32)) * (2 * bound / 255) - bound
