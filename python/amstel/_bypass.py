"""Whether a module may be computed from its weights without calling it: only if the call would do nothing else.

Users hook into modules, replace and wrap them, and derive classes from theirs. An operation over what several modules hold
sees nothing of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def has_hooks(*modules: Any) -> bool:
    """Whether a call of any of these modules runs hooks, of its own or of all modules."""
    every = torch.nn.modules.module
    return any(getattr(every, f"_global{kind}") for kind in _HOOKS) or any(
        getattr(module, kind) for module in modules for kind in _HOOKS
    )


def computes_as(module: Any, kind: type, *methods: str) -> bool:
    """Whether it is of `kind`, or of a class derived from it, and its forward and these methods are still those of `kind`."""
    return isinstance(module, kind) and all(
        name not in vars(module) and getattr(type(module), name) is getattr(kind, name)
        for name in ("__call__", "forward", *methods)
    )


def is_plain_conv(module: Any) -> bool:
    """Whether it is a torch.nn.Conv2d, parametrized or not, whose weight and bias and odd kernel are all there is to it."""
    return (
        computes_as(module, nn.Conv2d, "_conv_forward")
        and module.padding_mode == "zeros"
        and module.padding in ("same", tuple(k // 2 for k in module.kernel_size))
        and all(k % 2 for k in module.kernel_size)
        and module.stride == module.dilation == (1, 1)
        and module.groups == 1
    )
