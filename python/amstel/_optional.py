"""Optional packages: imported where they are used, and named with their pip command if they are missing."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any


def need(name: str, extra: str | tuple[str, ...] | None, purpose: str = "amstel") -> Any:
    """The module `name`, or an ImportError that says how to install it.

    Args:
        name: of the module, such as "av" or "PIL.Image".
        extra: the extra of amstel that installs it, or several that do; None: it is installed by its own name.
        purpose: what needs it, for the beginning of the message.

    Example:
        >>> need("json", extra="video").dumps([1])
        '[1]'
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        extras = [extra] if isinstance(extra, str) else list(extra or ())
        commands = " or ".join(f'pip install "amstel[{e}]"' for e in extras) or f"pip install {package}"
        # If it is installed but broken (a missing libGL, say), pip does not help: show the reason.
        absent = isinstance(error, ModuleNotFoundError) and error.name in (name, package)
        reason = "" if absent else f"; importing it failed: {error}"
        raise ImportError(f"{purpose} needs {package}: {commands}{reason}", name=name) from error


def have(name: str) -> bool:
    """Whether the module is installed, without importing it (its parent packages are imported)."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
