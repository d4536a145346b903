"""`SINTTracker` behind the interface of pysot's trackers, for its `tools/test.py` and toolkit; pysot is not needed.

pysot's `tools/test.py` passes a tracker the first box half a pixel right of and below the true one, x + w / 2 -
(w - 1) / 2, but compares the results with the true boxes: its own trackers use x + (w - 1) / 2 as the center of the first
box, and x + w / 2 later. There, use `Tracker(init_offset=0.5)`; without it, all boxes are half a pixel off.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from amstel import _check
from amstel.data.sequences import check_origin
from amstel.tracking._given import shifted
from amstel.tracking.tracker import SINTTracker


class Tracker:
    """Images are BGR, as OpenCV reads them, or gray [H, W].

    Args:
        tracker: default: `SINTTracker()`.
        origin: number of the first pixel in the data set's boxes: 1, as in OTB, LaSOT and UAV, or 0.
        init_offset: by how much x and y of the box given to `init` are too large: 0.5 for `tools/test.py`.

    Raises:
        ValueError or TypeError: an argument is not as described, or as `SINTTracker`.

    Example:
        >>> import cv2
        >>> first, second = (cv2.imread(f"OTB100/Crossing/img/000{n}.jpg") for n in (1, 2))
        >>> tracker = amstel.interop.pysot.Tracker()
        >>> tracker.init(first, [21, 25, 20, 20])
        >>> [round(value) for value in tracker.track(second)["bbox"]]
        [22, 25, 20, 20]
    """

    def __init__(self, tracker: SINTTracker | None = None, origin: int = 1, init_offset: float = 0.0):
        origin, offset = check_origin(origin), _check.number("init_offset", init_offset)
        self.tracker, self.shift = tracker or SINTTracker(), np.array([origin, origin, 0, 0])
        self.offset = np.array([offset, offset, 0, 0])

    def init(self, image: np.ndarray, bbox: Any) -> None:
        """The first frame, BGR as OpenCV reads it, and the box x, y, w, h in it, counted from `origin`."""
        self.tracker.init(_rgb(image), shifted("bbox", bbox, -self.offset - self.shift))

    def track(self, image: np.ndarray) -> dict[str, Any]:
        """The box in the next frame, "bbox", and its similarity to the first one, "best_score"."""
        box = self.tracker.update(_rgb(image)) + self.shift
        return {"bbox": box.tolist(), "best_score": self.tracker.similarity}


def _rgb(image: np.ndarray) -> Any:
    """What is not BGR (gray, or None where OpenCV could not read a file) as it is, for the tracker to judge."""
    return image[..., ::-1] if getattr(image, "ndim", 0) == 3 and image.shape[2] == 3 else image
