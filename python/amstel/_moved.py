"""Modules that have moved: for one release the old name hands on to the new one, with a DeprecationWarning."""

from __future__ import annotations

import importlib
import sys
import types
import warnings
from typing import Any


class _Moved(types.ModuleType):
    """A module of an old name; it imports the new one when something of it is asked for."""

    def __init__(self, name: str, target: str):
        super().__init__(name, f"Moved to `{target}`.")
        self.__dict__["_target"] = target

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what the import system and inspect ask of every module
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        warnings.warn(f"{self.__name__} is now {self._target}", DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(self._target), name)


def modules(package: str, targets: dict[str, str]) -> None:
    """Make `package.old` for every {old: new name} of `targets` a module that hands on to the new one."""
    for old, new in targets.items():
        name = f"{package}.{old}"
        sys.modules[name] = _Moved(name, new)
        setattr(sys.modules[package], old, sys.modules[name])
