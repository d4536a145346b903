"""Read frames from a camera, and show them in a window."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np

from amstel._optional import need


class Camera:
    """The frames of a camera, uint8 RGB [H, W, 3], until it is stopped: by Ctrl-C, by q or Esc in its window, or by `stop`.

    Frames that arrive while none is requested are skipped.

    Args:
        index: 0 is the first camera.

    Attributes:
        rate: frames per second, as reported by the camera, or None.
        time: time of the last frame, in seconds after the first.

    Raises:
        ValueError: it cannot be opened.
        ImportError: the extra [video] is missing.

    Example:
        >>> for frame in amstel.media.camera.Camera(0):                        # doctest: +SKIP
        ...     print(frame.shape)
    """

    rate: float | None = None
    time: float | None = None

    def __init__(self, index: int):
        self.index, self._stopped = index, False
        self._cv2 = need("cv2", extra="video", purpose="a camera")
        log = self._cv2.utils.logging
        level = log.setLogLevel(log.LOG_LEVEL_SILENT)  # its lines on stderr say less than the error below
        self._device = self._cv2.VideoCapture(index)
        log.setLogLevel(level)
        if not self._device.isOpened():
            raise ValueError(
                f"camera {index} cannot be opened: it does not exist, or another program uses it"
            )
        rate = self._device.get(self._cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate < 1000 else None
        somewhere = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        self._window = bool(somewhere) or sys.platform in ("darwin", "win32")

    def __iter__(self) -> Iterator[np.ndarray]:
        """Ctrl-C ends the frames, and not what is done with them: a file that is being written becomes whole."""
        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, lambda *_: self.stop()) if main else None
        begin = None
        try:
            while not self._stopped:
                there, frame = self._device.read()
                if not there:
                    return
                now = time.monotonic()
                begin = now if begin is None else begin
                self.time = now - begin
                yield np.ascontiguousarray(frame[..., ::-1])
        finally:
            if main:
                signal.signal(signal.SIGINT, before)
            self._device.release()

    def stop(self) -> None:
        """Stop after the current frame."""
        self._stopped = True

    @property
    def window(self) -> bool:
        """Whether `show` shows anything, which needs a display and an OpenCV built with windows."""
        return self._window

    def show(self, frame: np.ndarray) -> None:
        """Show a frame in the window; q or Esc in it stops the camera."""
        try:
            self._cv2.imshow(f"camera {self.index}", frame[..., ::-1])
            if self._cv2.waitKey(1) & 255 in (27, ord("q")):
                self.stop()
        except self._cv2.error:
            self._window = False
