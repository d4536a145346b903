"""Inputs have the dtype of the weights that they meet; autocast sees to that itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from amstel import _check
from amstel._torch import autocast_dtype


def levels(x: Tensor, weight: Tensor) -> bool:
    """Whether autocast brings both to one dtype, which it does not with float64."""
    return autocast_dtype(x) is not None and weight.dtype != torch.float64


def check_like(name: str, x: Tensor, weight: Tensor) -> None:
    """x has the dtype and the device of a weight."""
    if x.device != weight.device or (x.dtype != weight.dtype and not levels(x, weight)):
        _check.fail(name, f"{_check.name(weight.dtype)} on {weight.device} as the weights", x)


def check_like_model(name: str, x: Tensor, model: nn.Module, narrower: bool = False) -> None:
    """x has the dtype of the parameters of a model, or with `narrower` one that they can represent.

    Of what others do with a model's parts nothing is held against x: that they are on devices of their own, sharded (FSDP2
    shows weights of a part only while that runs), quantized, or gone (in a replica of DataParallel).
    """
    weight: Any = next(model.parameters(), None)
    if type(weight) not in (Tensor, nn.Parameter) or not weight.is_floating_point():
        return
    real = x.real if x.is_complex() else x
    dtype = torch.promote_types(real.dtype, weight.dtype) if narrower else real.dtype
    if dtype != weight.dtype and not levels(real, weight):
        _check.fail(
            name, f"{_check.name(weight.dtype)} as the weights are (`.to(dtype)` changes a model's)", x
        )
