"""Argument checks. The rules of every error that a user of the library can cause:

1. A value that is not allowed (a shape, a dtype, a size, a choice, NaN where there must be a number) raises
   ValueError, and so does a tensor of the wrong dtype, layout or device: a tensor is the right type of thing.
2. A thing of the wrong type (a list for a tensor, a string or a bool for a number, no tuple for a state) raises
   TypeError. Where a number is meant, the error is a `NumberTypeError`, which is a ValueError too: versions before
   raised that.
3. RuntimeError is left for trouble of the device, torch.OutOfMemoryError for memory. A raw IndexError, KeyError,
   OverflowError or AttributeError is a fault of the library.
4. The message names the argument in backquotes, what was expected and what it got:
   "`norm` must be one of 'sym', 'row', got 'left'".
5. NumPy scalars and 0-dimensional NumPy arrays are numbers, and integers where they are integers; True and False
   are not, in any place where a number is meant. A float is an integer nowhere, not even 2.0.
6. A NaN or an infinity is refused where a number configures something (sigma, scale, dropout, self_loops). In data
   it is let through and does what IEEE arithmetic does, except for edge weights, where NaN is refused.
7. The same call raises the same class on every device. What is wrong with arguments is found before anything is
   computed, written or changed.
8. Constructors check what they are given; a module that was built fails in forward only because of its input.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class NumberTypeError(TypeError, ValueError):
    """Something that is not a number where one is meant."""


class KernelValueError(ValueError, RuntimeError):
    """A bad value that a kernel found; versions before raised it as a RuntimeError."""


_FOUND = re.compile(r"\w+: (`\w+(\[\d+\])?` must .*)", re.DOTALL)


def found_by_kernel(error: RuntimeError, **names: str) -> RuntimeError:
    """`error` as a ValueError if a kernel raised it about an argument; `names` are the kernel's for the public ones."""
    found = _FOUND.fullmatch(str(error)) if type(error) is RuntimeError else None
    if found is None:
        return error
    message = found[1]
    for kernel, public in names.items():
        message = message.replace(f"`{kernel}`", f"`{public}`")
    return KernelValueError(message)


def name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def describe(value: Any) -> str:
    """`float32 [3, 4] on cpu` for a tensor, `'abc'` or `3 (int)` for anything else."""
    if isinstance(value, Tensor):
        if value.is_nested:
            return "a nested tensor"
        dtype = name(value.dtype)
        layout = "" if value.layout == torch.strided else f"{str(value.layout).removeprefix('torch.')} "
        return f"{layout}{dtype} {list(value.shape)} on {value.device}"
    if isinstance(value, str):
        return repr(value)
    text = repr(value)
    return f"{text if len(text) <= 200 else text[:200] + '...'} ({type(value).__name__})"


def fail(argument: str, expected: str, got: Any) -> NoReturn:
    raise ValueError(f"`{argument}` must be {expected}, got {describe(got)}")


def fail_type(argument: str, expected: str, got: Any) -> NoReturn:
    raise TypeError(f"`{argument}` must be {expected}, got {describe(got)}")


def tensor(argument: str, value: Any, expected: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"`{argument}` must be {expected}, got {describe(value)}")
    return value


def unmasked(argument: str, value: Any) -> Any:
    """Anything but an array of NumPy with masked values, or a list with one, whose mask a tensor would not have."""
    if _masked(value):
        fail_type(argument, "an array without masked values", value)
    return value


def _masked(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_masked, value))
    return isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value)


def holds_none(value: Any) -> bool:
    """Whether None is in the place of a number, of which NumPy makes NaN."""
    if isinstance(value, (list, tuple)):
        return any(map(holds_none, value))
    return value is None or (isinstance(value, np.ndarray) and value.dtype == object and None in value)


def dense(argument: str, value: Any, expected: str) -> Tensor:
    """A tensor with elements in memory, neither sparse nor of a layout of a library."""
    if tensor(argument, value, expected).layout != torch.strided or value.is_nested:
        fail(argument, f"dense, {expected}", value)
    return value


def unbatched(**values: Tensor) -> None:
    """What is made of values by looking at them cannot be made of many at once."""
    functorch: Any = torch._C._functorch
    for argument, value in values.items():
        while functorch.is_functorch_wrapped_tensor(value):
            if functorch.is_batchedtensor(value):
                fail(argument, "the same for every element of torch.vmap", value)
            value = functorch.get_unwrapped(value)


def mapping(argument: str, value: Any, expected: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        fail_type(argument, expected, value)
    return value


def with_attributes(argument: str, value: Any, *names: str) -> Any:
    """Anything that has these attributes, whatever its class."""
    if lacks := [name for name in names if not hasattr(value, name)]:
        fail_type(argument, f"something with `{lacks[0]}`", value)
    return value


def floating(argument: str, value: Any) -> torch.dtype:
    if not isinstance(value, torch.dtype) or value not in FLOATS:
        fail_type(argument, "a floating-point torch.dtype", value)
    return value


def vector(argument: str, value: Any, size: int, like: Tensor) -> Tensor:
    """A dense vector of `size` elements with the dtype and on the device of `like`."""
    if not isinstance(value, Tensor):
        fail_type(argument, f"a {name(like.dtype)} tensor [{size}]", value)
    if (
        value.shape != (size,)
        or value.dtype != like.dtype
        or value.device != like.device
        or value.layout != torch.strided
    ):
        fail(argument, f"{name(like.dtype)} [{size}] on {like.device}", value)
    return value


def _scalar(value: Any) -> Any:
    """A 0-dimensional NumPy array as the NumPy scalar in it."""
    return value[()] if isinstance(value, np.ndarray) and value.ndim == 0 else value


def integer(argument: str, value: Any, least: int | None = None, expected: str | None = None) -> int:
    """An int, a torch.SymInt or a NumPy integer, >= least; returned as an int (or SymInt)."""
    if type(value) is not int:
        value = _scalar(value)
        if isinstance(value, torch.SymInt):
            pass
        elif isinstance(value, Tensor) and torch._C._is_tracing():
            value = int(value)  # a size under torch.jit.trace, which makes it a constant as everywhere
        elif isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            expected = expected or ("an integer" if least is None else f"an integer >= {least}")
            raise NumberTypeError(f"`{argument}` must be {expected}, got {describe(value)}")
        else:
            value = int(value)
    if least is not None and value < least:
        fail(argument, expected or f"an integer >= {least}", value)
    if least is not None and type(value) is int and value >= 2**63 and argument != "seed":
        fail(argument, f"{expected or f'an integer >= {least}'}, below 2**63", value)
    return value


def number(
    argument: str,
    value: Any,
    expected: str = "a finite number",
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
    infinite: bool = False,
) -> float:
    """A finite float or int (or an infinite one if that has a meaning), NumPy's included, within the given bounds;
    returned as a Python number."""
    if type(value) is not float and type(value) is not int:
        value = _scalar(value)
        if isinstance(value, (torch.SymInt, torch.SymFloat)):
            return value  # type: ignore[return-value]
        if isinstance(value, (bool, np.bool_)) or not isinstance(
            value, (int, float, np.integer, np.floating)
        ):
            raise NumberTypeError(f"`{argument}` must be {expected}, got {describe(value)}")
        value = int(value) if isinstance(value, (int, np.integer)) else float(value)
    if type(value) is int and abs(value) >= 2**63:
        # All that takes numbers takes these.
        value = float(value) if abs(value) < 2**1023 else math.copysign(math.inf, 1 if value > 0 else -1)
    if (
        value != value
        or (not infinite and abs(value) == math.inf)
        or (above is not None and not value > above)
        or (least is not None and not value >= least)
        or (below is not None and not value < below)
        or (most is not None and not value <= most)
    ):
        fail(argument, expected, value)
    return value


def ends(argument: str, value: Any, expected: str, **bounds: Any) -> tuple[float, float]:
    """The least and the greatest of a range, numbers within the bounds: a tuple, a list or a vector."""
    if isinstance(value, (Tensor, np.ndarray)) and value.ndim == 1:
        value = value.tolist()
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        fail_type(argument, expected, value)
    if len(value) != 2:
        fail(argument, expected, value)
    low, high = (number(argument, one, expected, **bounds) for one in value)
    if low > high:
        fail(argument, expected, value)
    return low, high


def choice(argument: str, value: Any, allowed: Sequence[Any]) -> Any:
    """One of a few strings (or None)."""
    # A comparison with an array or a tensor is no bool.
    if not (value in allowed if isinstance(value, str) else any([value is one for one in allowed])):
        expected = (
            " or ".join(map(repr, allowed)) if len(allowed) < 3 else "one of " + ", ".join(map(repr, allowed))
        )
        if value is None or isinstance(value, str):
            fail(argument, expected, value)
        raise NumberTypeError(f"`{argument}` must be {expected}, got {describe(value)}")
    return value


def flag(argument: str, value: Any) -> bool:
    """True or False, NumPy's too."""
    if not isinstance(value, (bool, np.bool_)):
        fail_type(argument, "True or False", value)
    return bool(value)


def pair(argument: str, value: Any, least: int = 1) -> tuple[int, int]:
    """An integer >= least, which is used twice, or a tuple or list of two."""
    expected = f"an integer >= {least} or two of them"
    if isinstance(value, (tuple, list)) or (isinstance(value, np.ndarray) and value.ndim == 1):
        if len(value) != 2:
            fail(argument, expected, value)
        first, second = (integer(argument, v, least, expected) for v in value)
        return first, second
    size = integer(argument, value, least, expected)
    return size, size
