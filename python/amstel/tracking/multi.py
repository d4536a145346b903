"""Track several targets in one pass over a video, sharing the work of the network."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amstel._check import describe
from amstel.tracking._given import copied, target, threads
from amstel.tracking.frames import Frames, of_one_size
from amstel.tracking.settings import Settings
from amstel.tracking.tracker import SINTTracker
from amstel.tracking.view import Views

#: Targets whose own zooms differ by no more than this are looked at with one zoom, so that they can share windows.
ALIKE = 1.25


class MultiTracker:
    """Tracks several objects the way `SINTTracker` tracks one, and shares the work of the network among them.

    Overlapping windows are joined if that saves work, and lost targets of about the same size share one search of the
    whole frame. To this end, targets of similar size (the roots of their areas differ by a factor of at most 1.25)
    share one zoom, the smallest of theirs, so their boxes differ slightly from those of separate trackers. A single
    target gets bit-identical boxes. Targets are independent: two may end up on the same object.

    Args:
        model, plus, redetect, settings, preset: as for `SINTTracker`.

    Attributes:
        similarity: of each target [N], as for `SINTTracker`.
        lost: whether each target is lost, bool [N].

    Raises:
        ValueError, TypeError, ImportError: as `SINTTracker`; no box; a message about a box names it, `boxes[1]`.

    Example:
        >>> tracker = amstel.tracking.MultiTracker()
        >>> boxes = tracker.track("clip.mp4", [[20, 24, 20, 20], [22, 26, 16, 16]])
        >>> boxes.shape
        (8, 2, 4)
        >>> first, second, *_ = amstel.video.Frames("clip.mp4")
        >>> tracker.init(first, [[20, 24, 20, 20], [22, 26, 16, 16]])  # the same, frame by frame
        >>> bool((tracker.update(second) == boxes[1]).all())
        True
    """

    def __init__(
        self,
        model: Any = None,
        plus: bool = False,
        redetect: bool | None = None,
        *,
        settings: Settings | None = None,
        preset: str | None = None,
    ):
        self._one = SINTTracker(model, plus, redetect, settings=settings, preset=preset)
        self._each: list[SINTTracker] = []

    @classmethod
    def of(cls, tracker: SINTTracker) -> MultiTracker:
        """A MultiTracker with the network and settings of `tracker`."""
        return cls(tracker.model, tracker.plus, tracker.redetect, settings=tracker.settings)

    @property
    def similarity(self) -> np.ndarray:
        """Similarity of each target's last box to its first."""
        return np.array([one.similarity for one in self._each])

    @property
    def lost(self) -> np.ndarray:
        """Which targets are lost."""
        return np.array([one.lost for one in self._each], dtype=bool)

    @torch.inference_mode()
    def init(self, image: Any, boxes: Any) -> None:
        """Start with a frame and the boxes of the targets in it, [N, 4]."""
        frame = copied("image", image)
        firsts = [target(box, frame, f"boxes[{n}]") for n, box in enumerate(_rows(boxes))]
        each = [copy.copy(self._one) for _ in firsts]
        for one, first in zip(each, firsts, strict=True):
            one._place(frame, first)
        views = self._views(frame, each)
        with threads(self._one.settings.threads):
            for one in each:
                one._begin(views)
        self._each = each

    @torch.inference_mode()
    def update(self, image: Any) -> np.ndarray:
        """The boxes in the next frame: float64 [N, 4]."""
        if not self._each:
            raise ValueError("`init` must be called with the first frame and boxes before `update`")
        views = self._views(self._each[0]._same_size(image), self._each)
        with threads(self._one.settings.threads):
            return np.stack([one._next(views) for one in self._each])

    def _views(self, frame: np.ndarray, each: Sequence[SINTTracker]) -> Views:
        """Of a frame, for the windows of all targets."""
        for one, zoom in zip(each, _together([one._zoom() for one in each]), strict=True):
            one._plan(zoom)
        views = Views(self._one.model, frame)
        views.share([one._wanted() for one in each], self._one._cell)
        return views

    def track(self, frames: Any, boxes: Any) -> np.ndarray:
        """All boxes of a video, starting with the given ones: float64 [T, N, 4].

        Args:
            frames: a video file, a folder of images, or an iterable of images; read one by one.
            boxes: x, y, w, h of every target in the first of them, [N, 4].

        Raises:
            ValueError: there is no frame; the others as above.
        """
        found: list[np.ndarray] = []
        for image in of_one_size(Frames(frames)):
            if not found:
                self.init(image, boxes)
                found.append(np.stack([one._first.numpy() for one in self._each]))
            else:
                found.append(self.update(image))
        if not found:
            raise ValueError("`frames` must hold at least one frame, got none")
        return np.stack(found)


def _rows(boxes: Any) -> Sequence[Any]:
    expected = "a box x, y, w, h for each of at least one target, [N, 4]"
    if isinstance(boxes, (Tensor, np.ndarray)):
        if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes):
            raise ValueError(f"`boxes` must be {expected}, got {describe(boxes)}")
        return list(boxes)
    if not isinstance(boxes, Sequence) or isinstance(boxes, str):
        raise TypeError(f"`boxes` must be {expected}, got {describe(boxes)}")
    if not boxes or not all(hasattr(box, "__len__") for box in boxes):
        raise ValueError(f"`boxes` must be {expected}, got {describe(boxes)}")
    return boxes


def _together(zooms: Sequence[float]) -> list[float]:
    """The smallest zoom of similar targets, for all of them."""
    steps: list[float] = []
    for zoom in sorted(zooms):
        if not steps or zoom > ALIKE * steps[-1]:
            steps.append(zoom)
    return [max(step for step in steps if step <= zoom) for zoom in zooms]
