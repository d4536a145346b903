"""`SINTTracker` as a tracker for the vot-toolkit, in its Python protocol or as a TraX process; the toolkit is not imported.

In the `trackers.ini` of a workspace, with the toolkit's Python protocol or, for any release, with TraX (`pip install vot-trax`):

    [SINT]                                    [SINT]
    label = SINT                              label = SINT
    protocol = python                         protocol = traxpython
    command = amstel.interop.vot:Tracker      command = amstel.interop.vot
    convert = rectangle
"""

from __future__ import annotations

from typing import Any

import numpy as np

from amstel._check import describe, holds_none, unmasked
from amstel.tracking.tracker import SINTTracker

Status = tuple[tuple[float, ...], dict[str, Any]]


class Tracker:
    """One object per run, as rectangles. VOT counts pixels from 0, as amstel does.

    Args:
        tracker: default: `SINTTracker()`.
        preset: preset of that tracker; `arg_preset` in `trackers.ini` sets it.

    Raises:
        ValueError or TypeError: as `SINTTracker`; an invalid region.

    Example:
        >>> tracker = amstel.interop.vot.Tracker()
        >>> tracker.init("OTB100/Crossing/img/0001.jpg", ((20, 24, 20, 20), {}))
        ((20.0, 24.0, 20.0, 20.0), {})
        >>> box, properties = tracker.update("OTB100/Crossing/img/0002.jpg")
        >>> [round(value) for value in box], list(properties)
        ([21, 24, 20, 20], ['score'])
    """

    multiobject = False

    def __init__(self, tracker: SINTTracker | None = None, preset: str | None = None):
        self.tracker = tracker or SINTTracker(preset=preset)

    def init(self, frame: Any, new: Any, properties: Any = None) -> Status:
        """The frame (a file, or its channels by name) and the object: a region and its properties, or only a region."""
        with_properties = isinstance(new, (tuple, list)) and len(new) == 2 and isinstance(new[1], dict)
        box = _box(new[0] if with_properties else new)
        self.tracker.init(_color(frame), box)
        return tuple(float(value) for value in box), {}

    def update(self, frame: Any, new: Any = None, properties: Any = None) -> Status:
        """The rectangle in the next frame, and {"score": its similarity to the first one}."""
        box = self.tracker.update(_color(frame))
        return tuple(box.tolist()), {"score": float(self.tracker.similarity)}


def _color(frame: Any) -> Any:
    return frame.get("color", next(iter(frame.values()))) if isinstance(frame, dict) else frame


def _box(region: Any) -> np.ndarray:
    """Of a rectangle x, y, w, h, or around a polygon of points or the pixels of a mask that are not 0."""
    unmasked("new", region)
    # The dtype tells them apart: a mask may be two pixels wide.
    if isinstance(region, np.ndarray) and region.ndim == 2 and region.dtype in (np.bool_, np.uint8):
        pixels = np.argwhere(region)[:, ::-1]
        if not len(pixels):
            raise ValueError(
                f"`new` must be a mask with a pixel that is not 0, got zeros {list(region.shape)}"
            )
        return np.concatenate([pixels.min(0), np.ptp(pixels, 0) + 1]).astype(np.float64)
    try:
        numbers = np.empty(0) if holds_none(region) else np.asarray(region, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.shape == (4,):
        return numbers
    if numbers.ndim == 2 and numbers.shape[1] == 2 and len(numbers) > 2:
        return np.concatenate([numbers.min(0), np.ptp(numbers, 0)])
    array = isinstance(region, np.ndarray)
    raise ValueError(
        "`new` must be a rectangle (4 numbers), points of a polygon or a mask (bool or uint8 [H, W]; "
        "convert = rectangle in trackers.ini makes rectangles of all), "
        f"got {f'{region.dtype} {list(region.shape)}' if array else describe(region)}"
    )


def serve(tracker: Tracker) -> None:
    """Answer a TraX client on the standard streams until it quits: `python -m amstel.interop.vot` is `serve(Tracker())`.

    Raises:
        ImportError: trax is missing.
    """
    try:
        import trax.image
        import trax.region
        import trax.server
    except ImportError as error:
        raise ImportError(
            f"the TraX process needs trax: pip install vot-trax; importing it failed: {error}"
        ) from error
    server = trax.server.Server(
        [trax.region.Region.RECTANGLE], [trax.image.Image.PATH], tracker_name="SINT", tracker_family="amstel"
    )
    with server:
        while (request := server.wait()).type in (trax.TraxStatus.INITIALIZE, trax.TraxStatus.FRAME):
            frame = request.image["color"].path()
            if request.type == trax.TraxStatus.INITIALIZE:
                box, properties = tracker.init(frame, request.objects[0][0].bounds())
            else:
                box, properties = tracker.update(frame)
            server.status([(trax.region.Rectangle.create(*box), properties)])


if __name__ == "__main__":
    serve(Tracker())
