"""Loads the compiled operators. Importing it makes `torch.ops.amstel` complete or raises."""

import importlib.metadata
import os
from pathlib import Path

import torch


def find(name: str) -> Path | None:
    """The shared library `name` beside this file or, for an editable install, where pip put it."""
    beside = Path(__file__).parent / name
    if beside.exists():
        return beside
    try:
        files = importlib.metadata.files("amstel") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [Path(str(f.locate())) for f in files if f.name == name]
    return next((f for f in found if f.exists()), None)


def load() -> dict[str, str | None]:
    """Load the CPU library and, where this torch has CUDA, the CUDA one; returns their paths."""
    # AMSTEL_LIBRARY replaces the CPU library: the tests run the emulated CUDA kernels through it.
    replaced = os.environ.get("AMSTEL_LIBRARY")
    cpu = Path(replaced) if replaced else find("libamstel.so")
    if cpu is None:
        raise ImportError(
            "amstel: the compiled library libamstel.so is missing; "
            "install the package with `pip install .` (or `pip install -e .`) instead of running from its sources"
        )
    torch.ops.load_library(str(cpu))
    cuda = find("libamstel_cuda.so") if torch.version.cuda else None
    if cuda is not None:
        torch.ops.load_library(str(cuda))
    return {"cpu": str(cpu), "cuda": str(cuda) if cuda else None}


paths = load()
