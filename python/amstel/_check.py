"""Argument checks whose errors name the argument, what was expected and what came."""

from typing import Any

import torch
from torch import Tensor

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def describe(value: Any) -> str:
    """`float32 [3, 4] on cpu` for a tensor, `'abc'` or `3 (int)` for anything else."""
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        layout = "" if value.layout == torch.strided else f"{str(value.layout).removeprefix('torch.')} "
        return f"{layout}{dtype} {list(value.shape)} on {value.device}"
    if isinstance(value, str):
        return repr(value)
    return f"{value!r} ({type(value).__name__})"


def fail(argument: str, expected: str, got: Any) -> None:
    raise ValueError(f"`{argument}` must be {expected}, got {describe(got)}")


def tensor(argument: str, value: Any, expected: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"`{argument}` must be {expected}, got {describe(value)}")
    return value


def vector(argument: str, value: Any, size: int, like: Tensor) -> Tensor:
    """A vector of `size` elements with the dtype and on the device of `like`."""
    dtype = str(like.dtype).removeprefix("torch.")
    tensor(argument, value, f"a {dtype} tensor [{size}]")
    if value.shape != (size,) or value.dtype != like.dtype or value.device != like.device:
        fail(argument, f"{dtype} [{size}] on {like.device}", value)
    return value
