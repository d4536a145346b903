"""Numbers in words, for the output of the command line; without NumPy, which `--help` must not load."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, pstdev


def counted(number: int, noun: str) -> str:
    """1 image, 2 images; 1 class, 2 classes."""
    plural = "es" if noun.endswith(("s", "x", "tch")) else "s"
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{plural}"


def are(number: int) -> str:
    """1 of 5 clips is left out, 2 of 5 are."""
    return "is" if number == 1 else "are"


def size(count: int) -> str:
    """1 byte, 197 kB, 4.2 GB."""
    for unit, one in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= 0.9995 * one:  # 999.7 kB would be 1e+03 of them
            return f"{count / one:.3g} {unit}"
    return counted(count, "byte")


def percent(shares: Sequence[float]) -> str:
    """The mean of one share per seed in percent, and the standard deviation over the seeds where there are several."""
    mean = f"{100 * fmean(shares):.2f}"
    return f"{mean}%" if len(shares) == 1 else f"{mean} ± {100 * pstdev(shares):.2f}%"


def over(seeds: int) -> str:
    """What `percent` is over; says which deviation follows the ±."""
    return f"over {counted(seeds, 'seed')}" + (" (± standard deviation)" if seeds > 1 else "")
