"""What pip and other front ends call to build this package: scikit-build-core, with two decisions of its own.

Headers of torch: a build needs those of any release from the floor on (cmake/torch.cmake). If the environment that pip
installs into has such a torch, its headers serve in an isolated build too. If not, they are taken from the wheel of the
newest torch, which the installed package needs anyway (torch_headers.py). Where pip cannot fetch that wheel by itself,
because its index was given on the command line for example, torch is a build requirement.

An editable install without isolation builds again what changed in C++ when amstel is imported.
"""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path
from typing import Any

import scikit_build_core
import torch_headers
from scikit_build_core import build as _build
from scikit_build_core.build import (  # noqa: F401  (hooks that stay as they are)
    build_sdist,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

# The libraries depend on the platform and on no Python; what the build decided (torch, instruction sets, CUDA) is worth
# a look in every log. `python setup.py` has other ways to say so.
os.environ.setdefault("SKBUILD_WHEEL_PY_API", "py3")
os.environ.setdefault("SKBUILD_LOGGING_LEVEL", "INFO")


def _torch() -> list[str]:
    return [] if torch_headers.installed() or torch_headers.fetch() else [torch_headers.REQUIREMENT]


def _name_headers() -> None:
    if not torch_headers.installed() and torch_headers.folder().is_dir():
        os.environ["AMSTEL_TORCH"] = str(torch_headers.folder())


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    return [*_build.get_requires_for_build_wheel(config_settings), *_torch()]


def get_requires_for_build_editable(config_settings: dict[str, Any] | None = None) -> list[str]:
    return [*_build.get_requires_for_build_editable(config_settings), *_torch()]


def build_wheel(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    _name_headers()
    return _build.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    # The tools of an isolated build are gone when amstel is imported.
    folders = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
    stays = any(Path(scikit_build_core.__file__).is_relative_to(folder) for folder in folders)
    os.environ.setdefault("SKBUILD_EDITABLE_REBUILD", "true" if stays else "false")
    _name_headers()
    return _build.build_editable(wheel_directory, config_settings, metadata_directory)
