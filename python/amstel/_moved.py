"""Modules that have moved: for one release, the old name forwards to the new one, with a DeprecationWarning."""

from __future__ import annotations

import importlib
import sys
import types
import warnings
from typing import Any


class _Moved(types.ModuleType):
    """A module of an old name; it imports those that its contents are in now when something of them is asked for."""

    def __init__(self, name: str, targets: tuple[str, ...]):
        super().__init__(name, f"Moved to {', '.join(targets)}.")
        self.__dict__["_targets"] = targets

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what the import system and inspect ask of every module
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        for target in self._targets:
            module = importlib.import_module(target)
            if hasattr(module, name):
                warnings.warn(f"{self.__name__} is now {target}", DeprecationWarning, stacklevel=2)
                return getattr(module, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


def modules(package: str, targets: dict[str, tuple[str, ...]]) -> None:
    """Make `package.old` for every {old: new names} of `targets` a module that hands on to the new ones."""
    for old, new in targets.items():
        name = f"{package}.{old}"
        sys.modules[name] = _Moved(name, new)
        setattr(sys.modules[package], old, sys.modules[name])
