"""Checks of arguments that the modules of this folder share."""

from __future__ import annotations

import math
import numbers
from typing import Any

import torch
from torch import Tensor

from amstel._check import fail, tensor


def frames(value: Any, argument: str = "frames") -> Tensor:
    expected = "a uint8 tensor [T, H, W, 3]"
    tensor(argument, value, expected)
    if value.dim() != 4 or value.shape[3] != 3 or value.dtype != torch.uint8 or not value.numel():
        fail(argument, f"{expected}, not empty", value)
    return value


def number(argument: str, value: Any, positive: bool = True) -> float:
    """A finite number; NumPy's are numbers, a bool is not."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    if not real or value < 0 or (positive and value == 0):
        fail(argument, "a positive number" if positive else "a number >= 0", value)
    return float(value)


def integer(argument: str, value: Any, least: int = 1) -> int:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        fail(argument, f"an integer >= {least}", value)
    return int(value)


def boxes(argument: str, value: Any) -> Tensor:
    expected = "a floating tensor [..., 4]"
    tensor(argument, value, expected)
    if value.dim() < 1 or value.shape[-1] != 4 or not value.is_floating_point():
        fail(argument, expected, value)
    return value
