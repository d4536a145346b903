"""Argument checks shared by the modules in this folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amstel import _check
from amstel._check import fail, tensor


def frames(value: Any, argument: str = "frames") -> Tensor:
    expected = "a uint8 tensor [T, H, W, 3]"
    tensor(argument, value, expected)
    if value.dim() != 4 or value.shape[3] != 3 or value.dtype != torch.uint8 or not value.numel():
        fail(argument, f"{expected}, not empty", value)
    return value


def number(argument: str, value: Any, positive: bool = True) -> float:
    """A finite number; NumPy's are numbers, a bool is not."""
    expected, bound = ("a positive number", "above") if positive else ("a number >= 0", "least")
    return float(_check.number(argument, value, expected, **{bound: 0}))  # type: ignore[arg-type]


def integer(argument: str, value: Any, least: int = 1) -> int:
    return _check.integer(argument, value, least)


def path(argument: str, value: Any) -> Path:
    """The name of a file or folder."""
    if not isinstance(value, (str, os.PathLike)):
        _check.fail_type(argument, "the name of a file or folder", value)
    return Path(value)


def boxes(argument: str, value: Any) -> Tensor:
    expected = "a floating tensor [..., 4]"
    tensor(argument, value, expected)
    if value.dim() < 1 or value.shape[-1] != 4 or not value.is_floating_point():
        fail(argument, expected, value)
    return value


def wide(*values: Tensor) -> tuple[Tensor, ...]:
    """Tensors of 16 bits and of integers in float32, the others as they are."""
    return tuple(value.to(torch.promote_types(value.dtype, torch.float32)) for value in values)
