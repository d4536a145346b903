"""Loads the compiled operators. Importing it registers `torch.ops.amstel` or raises; `operators` is the same
with memory that is short reported as everywhere in torch."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from amstel import _fork  # noqa: F401


def find(name: str) -> Path | None:
    """The shared library `name` of this installation: next to this file or, for an editable install, where the build put
    it. Looking for it is what makes an editable install build again what changed."""
    spec = importlib.util.find_spec(f"amstel.{name}")
    return Path(spec.origin) if spec and spec.origin else None


def load() -> dict[str, str | None]:
    """Load the CPU library and, where this torch has CUDA, the CUDA one; returns their paths."""
    # AMSTEL_LIBRARY replaces the CPU library: the tests run the emulated CUDA kernels through it.
    replaced = os.environ.get("AMSTEL_LIBRARY")
    cpu = Path(replaced) if replaced else find("libamstel")
    if cpu is None and sys.platform != "linux":
        raise ImportError(
            f"amstel runs on Linux only, not on {sys.platform}: "
            "use a container (`docker build --target cpu -t amstel .`) or, on Windows, WSL 2"
        )
    if cpu is None:
        raise ImportError(
            "amstel: the compiled library libamstel.so is missing; "
            "install the package with `pip install .` (or `pip install -e .`) instead of running from its sources"
        )
    torch.ops.load_library(str(cpu))
    cuda = find("libamstel_cuda") if torch.version.cuda else None
    if cuda is not None:
        torch.ops.load_library(str(cuda))
    return {"cpu": str(cpu), "cuda": str(cuda) if cuda else None}


paths = load()

# Of torch's own errors, where an operator is put together in Python; those of C++ are MemoryErrors.
_SHORT = ("out of memory", "can't allocate memory", "not enough memory")


def short_of_memory(error: BaseException) -> bool:
    """Whether the error of an operator means a failed allocation."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _SHORT)


def _reporting(op: Callable) -> Callable:
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return op(*args, **kwargs)
        except (MemoryError, RuntimeError) as error:
            if short_of_memory(error) and not isinstance(error, torch.OutOfMemoryError):
                raise torch.OutOfMemoryError(str(error)) from error
            raise

    return call


class Operators:
    """`torch.ops.amstel` for the functions of this package: a failed allocation is a torch.OutOfMemoryError on every
    device. That class is not in the stable ABI, so that the compiled code cannot throw it."""

    def __getattr__(self, name: str) -> Callable:
        packet = getattr(torch.ops.amstel, name)
        if torch.compiler.is_compiling():
            return packet
        call = _reporting(packet)
        call.default = _reporting(packet.default)  # type: ignore[attr-defined]
        setattr(self, name, call)  # found without this function from now on
        return call


operators = Operators()
