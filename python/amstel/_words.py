"""Numbers in words, for what the command line says; without NumPy, which `--help` must not load."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, pstdev


def counted(number: int, noun: str) -> str:
    """1 image, 2 images."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def percent(shares: Sequence[float]) -> str:
    """The mean of one share per seed in percent, and the standard deviation over the seeds where there are several."""
    mean = f"{100 * fmean(shares):.2f}"
    return f"{mean}%" if len(shares) == 1 else f"{mean} ± {100 * pstdev(shares):.2f}%"


def over(seeds: int) -> str:
    """What `percent` is over; says which deviation follows the ±."""
    return "over 1 seed" if seeds == 1 else f"over {seeds} seeds (± standard deviation)"
