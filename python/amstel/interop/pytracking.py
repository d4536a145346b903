"""`SINTTracker` behind the interface of pytracking's trackers; pytracking is not needed.

Put `from amstel.interop.pytracking import Tracker`, a `parameters` function beside it, where pytracking looks for trackers:
`tracker/sint/__init__.py` with `def get_tracker_class(): return Tracker`.

Example:
    >>> tracker = amstel.interop.pytracking.Tracker()                          # doctest: +SKIP
    >>> tracker.initialize(image, {"init_bbox": [121, 81, 40, 60]})            # doctest: +SKIP
    >>> tracker.track(image)["target_bbox"]                                    # doctest: +SKIP
"""

from __future__ import annotations

from typing import Any

import numpy as np

from amstel._check import unmasked
from amstel.tracking.tracker import SINTTracker


class Tracker:
    """Images are RGB.

    Args:
        params: pytracking's, of which nothing is used.
        tracker: default: `SINTTracker()`.
        origin: number of the first pixel in the data set's boxes: 1, as OTB, LaSOT and GOT-10k have it, or 0.
    """

    def __init__(self, params: Any = None, tracker: SINTTracker | None = None, origin: int = 1):
        self.params, self.tracker = params, tracker or SINTTracker()
        self.shift = np.array([origin, origin, 0, 0])

    def initialize(self, image: np.ndarray, info: dict[str, Any]) -> None:
        """The first frame, RGB, and the box x, y, w, h in it, info["init_bbox"], counted from `origin`."""
        box = np.asarray(unmasked("init_bbox", info["init_bbox"]), dtype=np.float64)
        self.tracker.init(image, box - self.shift)

    def track(self, image: np.ndarray, info: dict[str, Any] | None = None) -> dict[str, Any]:
        """The box in the next frame, "target_bbox", and how like the first one it is, "object_presence_score"."""
        box = self.tracker.update(image) + self.shift
        return {"target_bbox": box.tolist(), "object_presence_score": self.tracker.similarity}
