"""device=, dtype= and reset_parameters() of models that consist of other modules."""

from __future__ import annotations

import contextlib
import inspect
from typing import Any

import torch
from torch import nn


class Placed(type):
    """Metaclass of such a model: it is made on `device` (nothing is allocated on "meta") and cast to `dtype`."""

    def __init__(cls, *args: Any):
        super().__init__(*args)
        signature = inspect.signature(cls.__init__)  # type: ignore[misc]
        own = list(signature.parameters.values())[1:]
        more = [
            inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None) for n in ("device", "dtype")
        ]
        cls.__signature__ = signature.replace(parameters=[*own, *more], return_annotation=signature.empty)
        if "reset_parameters" not in dir(cls):
            cls.reset_parameters = _reset_parameters

    def __call__(cls, *args: Any, device: Any = None, dtype: torch.dtype | None = None, **kwargs: Any) -> Any:
        with contextlib.nullcontext() if device is None else torch.device(device):
            module = super().__call__(*args, **kwargs)
        module._made_with = args, kwargs
        return module if dtype is None else module.to(dtype)


def _reset_parameters(self: nn.Module) -> None:
    """Reset parameters and buffers to those of a new model with the same arguments."""
    args, kwargs = self._made_with  # type: ignore[misc]
    first = next(self.parameters())
    fresh = type(self)(*args, **kwargs, device=first.device).state_dict()
    with torch.no_grad():
        for name, value in self.state_dict(keep_vars=True).items():
            value.copy_(fresh[name])
