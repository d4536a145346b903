"""Packages that only an extra brings: imported where they are used, and named with their pip command where absent."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any


def need(name: str, extra: str | tuple[str, ...], purpose: str = "amstel") -> Any:
    """The module `name`, or an ImportError that says how to get it.

    Args:
        name: of the module, such as "av" or "PIL.Image".
        extra: the extra of amstel that brings it, or several of which each does.
        purpose: what needs it, the beginning of the message.

    Example:
        >>> need("json", extra="video").dumps([1])
        '[1]'
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        extras = [extra] if isinstance(extra, str) else list(extra)
        commands = " or ".join(f'pip install "amstel[{e}]"' for e in extras)
        # What is there and broken (a missing libGL, say) is not mended by pip: the reason must be seen.
        absent = isinstance(error, ModuleNotFoundError) and error.name in (name, name.split(".")[0])
        reason = "" if absent else f"; importing it failed: {error}"
        raise ImportError(f"{purpose} needs {name.split('.')[0]}: {commands}{reason}", name=name) from error


def have(name: str) -> bool:
    """Whether the module is there, without importing it (its parent packages are imported)."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
