"""Read and write videos, compute optical flow, turn attention maps into boxes, score boxes, and annotate frames.

A video is a uint8 tensor [T, H, W, 3], RGB. A box is (x1, y1, x2, y2) in pixels, with x2 and y2 the edges just
past the last pixel. Everything here runs on the CPU and needs the extra [video]. The code is in `amstel.media`.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

from amstel.media.boxes import iou as box_iou
from amstel.media.boxes import tube_iou
from amstel.media.draw import FOUND, HEAT, TRUTH, annotate
from amstel.media.flow import flow, flow_image, read_flow_images
from amstel.media.formats import IMAGES, VIDEOS, natural
from amstel.media.localize import localize, localize_actors
from amstel.media.reading import Frames, read, segments
from amstel.media.scores import average_precision, interval_iou, mean_average_precision, recall
from amstel.media.writing import VideoWriter, write

__all__ = [
    "FOUND",
    "HEAT",
    "IMAGES",
    "TRUTH",
    "VIDEOS",
    "Frames",
    "VideoWriter",
    "annotate",
    "average_precision",
    "box_iou",
    "flow",
    "flow_image",
    "interval_iou",
    "localize",
    "localize_actors",
    "mean_average_precision",
    "natural",
    "read",
    "read_flow_images",
    "recall",
    "segments",
    "tube_iou",
    "write",
]

# Names of the last release, and where what they mean is now.
_OLD = {"localise": ("amstel.media.localize", "localize"), "_smooth": ("amstel.media.localize", "_smooth")}


def __getattr__(name: str) -> Any:
    if name not in _OLD:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, new = _OLD[name]
    if not name.startswith("_"):
        warnings.warn(f"amstel.video.{name} is now amstel.video.{new}", DeprecationWarning, stacklevel=2)
    return getattr(import_module(module), new)
