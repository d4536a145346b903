"""Ctrl-C, kept until a piece of work is whole."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def noted(wait: bool = True) -> Iterator[list[int]]:
    """A list that the first Ctrl-C is put in, so that a step can be finished; the second one ends at once.

    Without `wait`, and in threads other than the main one, a Ctrl-C does what it always does.
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
