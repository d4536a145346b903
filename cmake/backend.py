"""What pip and other front ends call to build this package: scikit-build-core, with two decisions of its own.

Headers of torch: a build needs those of any release from the floor on (cmake/torch.cmake). Where the environment that
pip installs into has such a torch, its headers serve also in an isolated build, and nothing is downloaded; else an
unpinned torch is asked for, so that the same download serves the build and the installed package.

An editable install without isolation builds again what changed in C++ when amstel is imported.
"""

from __future__ import annotations

import os
import re
import sysconfig
from pathlib import Path
from typing import Any

import scikit_build_core
from scikit_build_core import build as _build
from scikit_build_core.build import (  # noqa: F401  (hooks that stay as they are)
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

FLOOR = (2, 11)
# The libraries depend on the platform and on no Python; what the build decided (torch, instruction sets, CUDA) is worth
# a look in every log. `python setup.py` has other ways to say so.
os.environ.setdefault("SKBUILD_WHEEL_PY_API", "py3")
os.environ.setdefault("SKBUILD_LOGGING_LEVEL", "INFO")


def _environment() -> list[Path]:
    return [Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")]


def _torch() -> list[str]:
    for folder in _environment():
        version = folder / "torch" / "version.py"
        if version.is_file():
            found = re.search(r"__version__ = '(\d+)\.(\d+)", version.read_text())
            if found and (int(found[1]), int(found[2])) >= FLOOR:
                return []
    return [f"torch>={FLOOR[0]}.{FLOOR[1]}"]


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    return [*_build.get_requires_for_build_wheel(config_settings), *_torch()]


def get_requires_for_build_editable(config_settings: dict[str, Any] | None = None) -> list[str]:
    return [*_build.get_requires_for_build_editable(config_settings), *_torch()]


def build_editable(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    # The tools of an isolated build are gone when amstel is imported.
    stays = any(Path(scikit_build_core.__file__).is_relative_to(folder) for folder in _environment())
    os.environ.setdefault("SKBUILD_EDITABLE_REBUILD", "true" if stays else "false")
    return _build.build_editable(wheel_directory, config_settings, metadata_directory)
