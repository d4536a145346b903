"""Runs the PTX that nvcc really emitted, where AMSTEL_PTXSIM names a simulator of PTX (ptxsim.py): a second opinion.

    kernels = ptx.load("planted_bugs.cu", "80")  # the same names and the same launch() as build.load
    kernels["block_sum_f32"].launch(blocks, 128, [x, sums, n])

`engines()` lists the ways to run a kernel here, for tests that take any of them.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from . import build, toolchain

SIMULATOR = "AMSTEL_PTXSIM"  # environment variable


def missing() -> str | None:
    """Why PTX cannot be run here, or None."""
    path = os.environ.get(SIMULATOR)
    if not path:
        return f"no simulator of PTX: {SIMULATOR} names its ptxsim.py"
    if not Path(path).is_file():
        raise toolchain.ToolchainError(f"{SIMULATOR} names {path}, which is no file")
    return toolchain.missing("nvcc")


@functools.cache
def simulator():
    spec = importlib.util.spec_from_file_location("ptxsim", os.environ[SIMULATOR])
    module = importlib.util.module_from_spec(spec)
    sys.modules["ptxsim"] = module
    spec.loader.exec_module(module)
    return module


class Kernel:
    """One test instance as PTX."""

    def __init__(self, module, emulated: build.Kernel):
        self.name = emulated.name
        self._kernel = module.kernel(emulated.symbol)

    def launch(self, grid, block, arguments: Sequence, shared: int = 0, **options):
        """As build.Kernel.launch; returns the simulator's run (instructions, memory sectors).

        The simulator runs all threads at once: there is no order."""
        options = {key: value for key, value in options.items() if key not in ("order", "seed")}
        arguments = [(a[0].replace("P", "Q"), *a[1:]) if isinstance(a, tuple) else a for a in arguments]
        return self._kernel.launch(
            grid, block, [0 if a is None else a for a in arguments], smem=shared, **options
        )


@functools.cache
def compile_ptx(source: str | Path, architecture: str) -> str:
    path = build.HERE / source
    flags = ["-lineinfo", "-ptx", f"-arch=compute_{architecture}"]
    command = ["nvcc", toolchain.release(), *flags]
    make = functools.partial(toolchain.nvcc, *flags, path, "-o")
    return build.cached([path], command, ".ptx", make).read_text()


def name_parameters(text: str) -> str:
    """The same PTX with parameters of kernels by name. Where registers are short nvcc keeps their address in one, and
    the simulator takes a load from there for the result of a call, which it skips."""

    def of_kernel(match: re.Match) -> str:
        body, address = match[0], {}  # register: (parameter, offset)
        for line in re.finditer(
            r"(?:mov\.b64|add\.s64)\s+(%rd\d+), (\w+_param_\d+|%rd\d+)(?:, (-?\d+))?;", body
        ):
            register, base, offset = line.groups()
            if "param" in base or base in address:
                name, from_ = address.get(base, (base, 0))
                address[register] = name, from_ + int(offset or 0)

        def by_name(load: re.Match) -> str:
            name, from_ = address[load[2]]
            return f"{load[1]}[{name}+{from_ + int(load[3] or 0)}]"

        target = r"(?:\{[^}]*\}|\S+), "
        return re.sub(rf"(ld\.param\S*\s+{target})\[(%rd\d+)(?:\+(-?\d+))?\]", by_name, body)

    return re.sub(r"\.entry .*?\n}\n", of_kernel, text, flags=re.DOTALL)


@functools.cache
def load(source: str | Path, architecture: str = "80") -> dict[str, Kernel]:
    """The test instances of one .cu file as PTX for one architecture; skips the test where that cannot be."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    module = simulator().Module(name_parameters(compile_ptx(source, architecture)))
    return {name: Kernel(module, kernel) for name, kernel in build.load(source).items()}


def engines() -> list:
    """Parameters for a fixture or test: functions that load a .cu file, on the emulator and as PTX.

    No source asks whether it is compiled for 80 or for 90, so a plain run takes the second alone.
    """
    reason = missing()
    marks = [pytest.mark.nvcc, pytest.mark.skipif(reason is not None, reason=reason or "")]
    return [
        pytest.param(build.load, id="emulator"),
        pytest.param(load, id="ptx-80", marks=[*marks, pytest.mark.slow]),
        pytest.param(functools.partial(load, architecture="90"), id="ptx-90", marks=marks),
    ]
