"""Delay Ctrl-C until a piece of work is complete."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def noted(wait: bool = True) -> Iterator[list[int]]:
    """A list that receives the first Ctrl-C, so that a step can finish; a second one exits immediately.

    Without `wait`, and outside the main thread, Ctrl-C behaves as usual.
    """
    asked: list[int] = []
    if not wait or threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, frame: Any) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
