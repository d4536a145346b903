"""`SINTTracker` as a tracker of the GOT-10k toolkit, for its experiments on any of its data sets; got10k is not imported.

Example:
    >>> from got10k.experiments import ExperimentGOT10k                        # doctest: +SKIP
    >>> ExperimentGOT10k("GOT-10k", subset="val").run(amstel.interop.got10k.Tracker())  # doctest: +SKIP
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from amstel._check import unmasked
from amstel.tracking.tracker import SINTTracker


class Tracker:
    """What `got10k.trackers.Tracker` has. The toolkit reads boxes as its data sets have them, from 1, and asks for such.

    Args:
        tracker: default: `SINTTracker()`.
        name: of the folder of results.
    """

    is_deterministic = True

    def __init__(self, tracker: SINTTracker | None = None, name: str = "SINT"):
        self.tracker, self.name = tracker or SINTTracker(), name

    def init(self, image: Any, box: Any) -> None:
        """The first frame, RGB, and the box x, y, w, h in it, counted from 1."""
        self.tracker.init(image, np.asarray(unmasked("box", box), dtype=np.float64) - [1, 1, 0, 0])

    def update(self, image: Any) -> np.ndarray:
        """The box in the next frame, as `init` has it."""
        return self.tracker.update(image) + np.array([1, 1, 0, 0])

    def forward_test(
        self, img_files: Any, box: Any, visualize: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """The boxes [T, 4] in frames or their files, the first one as it is given, and the seconds that each took [T]."""
        boxes, times = [np.asarray(unmasked("box", box), dtype=np.float64)], []
        for number, file in enumerate(img_files):
            begin = time.perf_counter()
            boxes.append(self.update(file)) if number else self.init(file, box)
            times.append(time.perf_counter() - begin)
        return np.stack(boxes), np.array(times)

    track = forward_test  # as the releases on PyPI call it; forward_test is of its repository
