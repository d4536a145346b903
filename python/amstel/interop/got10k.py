"""`SINTTracker` as a tracker for the GOT-10k toolkit and its experiments on any data set; got10k is not imported.

.. code-block:: text

    from got10k.experiments import ExperimentGOT10k
    ExperimentGOT10k("GOT-10k", subset="val").run(amstel.interop.got10k.Tracker())
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from amstel.tracking._given import shifted
from amstel.tracking.tracker import SINTTracker


class Tracker:
    """The interface of `got10k.trackers.Tracker`. Boxes count from 1, as in the toolkit's data sets.

    Args:
        tracker: default: `SINTTracker()`.
        name: name of the folder of results.

    Raises:
        ValueError or TypeError: as `SINTTracker`, for an invalid frame or first box.

    Example:
        >>> files = amstel.data.OTB("OTB100")["Crossing"].frames[:3]
        >>> boxes, seconds = amstel.interop.got10k.Tracker().track(files, [21, 25, 20, 20])
        >>> boxes.round().tolist()  # counted from 1
        [[21.0, 25.0, 20.0, 20.0], [22.0, 25.0, 20.0, 20.0], [23.0, 25.0, 20.0, 20.0]]
    """

    is_deterministic = True

    def __init__(self, tracker: SINTTracker | None = None, name: str = "SINT"):
        self.tracker, self.name = tracker or SINTTracker(), name

    def init(self, image: Any, box: Any) -> None:
        """The first frame, RGB, and the box x, y, w, h in it, counted from 1."""
        self.tracker.init(image, shifted("box", box, [-1, -1, 0, 0]))

    def update(self, image: Any) -> np.ndarray:
        """The box in the next frame, as `init` has it."""
        return self.tracker.update(image) + np.array([1, 1, 0, 0])

    def forward_test(
        self, img_files: Any, box: Any, visualize: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """The boxes [T, 4] in frames or their files, starting with the given one, and the seconds that each took [T]."""
        boxes: list[np.ndarray] = []
        times: list[float] = []
        for file in img_files:
            begin = time.perf_counter()
            if boxes:
                boxes.append(self.update(file))
            else:
                self.init(file, box)  # which judges the box
                boxes.append(np.asarray(box, dtype=np.float64))
            times.append(time.perf_counter() - begin)
        if not boxes:
            raise ValueError("`img_files` must hold at least one frame, got none")
        return np.stack(boxes), np.array(times)

    track = forward_test  # as the releases on PyPI call it; forward_test is of its repository
