"""Differences between the supported releases of torch."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

_is_any_autocast = torch._C._is_any_autocast_enabled
_are_transforms_active = torch._C._are_functorch_transforms_active


def transformed() -> bool:
    """Whether a transform of torch.func or forward-mode AD looks at what is computed now."""
    return _are_transforms_active() or forward_ad._current_level >= 0


# What torch.compiler.assume_constant_result does, which would import the whole compiler for it.
transformed._dynamo_marked_constant = True  # type: ignore[attr-defined]


def is_exporting() -> bool:
    """torch.compiler.is_exporting(), which torch.compile takes to be true in torch 2.11."""
    return torch.compiler._is_exporting_flag


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """In which autocast computes with x; None where it is off, for float64 and what is not floating point, and on meta,
    of which autocast does not know."""
    if not (_is_any_autocast() or torch.compiler.is_compiling()):  # a tenth of the time of what follows
        return None
    device = x.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device) if x.is_floating_point() and x.dtype != torch.float64 else None


def without_autocast(x: Tensor) -> Any:
    """A context in which autocast is off on the device of x."""
    device = x.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return contextlib.nullcontext()  # to enter the other takes 9 us
    return torch.autocast(device, enabled=False)


def wide(x: Tensor) -> Tensor:
    """x in float32 where it is of 16 bits, in which squares and sums overflow."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def cast(dtype: torch.dtype | None, *values: Any) -> list[Any]:
    """The floating-point tensors among the values in this dtype (None: as they are); all else is left to the checks."""
    if dtype is None:
        return list(values)
    return [v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for v in values]


def autocast_tiles(device: torch.device) -> Any:
    """A context of bfloat16 on a CPU that has tiles for it (AMX), and none elsewhere."""
    has = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    if device.type != "cpu" or torch.compiler.is_compiling() or not has():
        return contextlib.nullcontext()
    return torch.autocast("cpu", torch.bfloat16)
