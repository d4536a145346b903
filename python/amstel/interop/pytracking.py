"""`SINTTracker` behind the interface of pytracking's trackers; pytracking is not needed.

Put `from amstel.interop.pytracking import Tracker`, with a `parameters` function beside it, where pytracking looks for
trackers: `tracker/sint/__init__.py` with `def get_tracker_class(): return Tracker`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from amstel import _check
from amstel.data.sequences import check_origin
from amstel.tracking._given import shifted
from amstel.tracking.tracker import SINTTracker


class Tracker:
    """Images are RGB.

    Args:
        params: pytracking's parameters, which are not used.
        tracker: default: `SINTTracker()`.
        origin: number of the first pixel in the data set's boxes: 1, as in OTB, LaSOT and GOT-10k, or 0.

    Raises:
        ValueError or TypeError: an argument is not as described, or as `SINTTracker`.

    Example:
        >>> sequence = amstel.data.OTB("OTB100")["Crossing"]
        >>> tracker = amstel.interop.pytracking.Tracker()
        >>> tracker.initialize(sequence[0], {"init_bbox": [21, 25, 20, 20]})
        >>> [round(value) for value in tracker.track(sequence[1])["target_bbox"]]
        [22, 25, 20, 20]
    """

    def __init__(self, params: Any = None, tracker: SINTTracker | None = None, origin: int = 1):
        origin = check_origin(origin)
        self.params, self.tracker = params, tracker or SINTTracker()
        self.shift = np.array([origin, origin, 0, 0])

    def initialize(self, image: np.ndarray, info: dict[str, Any]) -> None:
        """The first frame, RGB, and the box x, y, w, h in it, info["init_bbox"], counted from `origin`."""
        if "init_bbox" not in _check.mapping("info", info, 'a dict with the box as "init_bbox"'):
            _check.fail("info", 'a dict with the box as "init_bbox"', info)
        self.tracker.init(image, shifted("init_bbox", info["init_bbox"], -self.shift))

    def track(self, image: np.ndarray, info: dict[str, Any] | None = None) -> dict[str, Any]:
        """The box in the next frame, "target_bbox", and its similarity to the first one, "object_presence_score"."""
        box = self.tracker.update(image) + self.shift
        return {"target_bbox": box.tolist(), "object_presence_score": self.tracker.similarity}
