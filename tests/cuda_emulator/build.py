"""Builds CUDA sources as C++ against the emulator and launches their kernels on NumPy arrays.

    kernels = build.load("planted_bugs.cu")                     # the AMSTEL_TEST_INSTANCE names in it
    kernels["block_sum_f32"].launch(blocks, 128, [x, sums, n])  # arrays are device buffers, changed in place

A launch runs in all three thread orders and insists on the same bits. `build_emulated_library` builds launch
wrappers (csrc/cuda/*_op.cu) as a torch library for the CPU key; `run_sanitized` runs Python with every
emulated kernel under AddressSanitizer and UBSan.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib
import importlib.util
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from .toolchain import HERE, ROOT, ToolchainError, cuda_include

ORDERS = ("forward", "reversed", "random")
SANITIZE = "AMSTEL_EMULATOR_SANITIZE"  # environment variable: build with the sanitizers
RED_ZONE = 4096  # bytes on either side of every buffer
RED_PATTERN = 0xA5


class EmulationError(AssertionError):
    """What the emulator found wrong with a kernel."""


# ---- Compilation ----


def compiler() -> str:
    name = os.environ.get("CXX", "g++")
    path = shutil.which(name)
    if path is None:
        raise ToolchainError(
            f"the CUDA emulator needs a C++20 compiler, and {name} is not on PATH (set CXX or install g++)"
        )
    return path


@functools.cache
def build_folder() -> Path:
    default = Path(tempfile.gettempdir()) / f"amstel-emulator-{os.getuid()}"
    folder = Path(os.environ.get("AMSTEL_EMULATOR_BUILD", default))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@functools.cache
def sources_hash() -> str:
    """Of everything that a source here may include."""
    digest = hashlib.sha256()
    for folder in (ROOT / "csrc", HERE):
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".h", ".cuh", ".hpp"):
                digest.update(path.read_bytes())
    return digest.hexdigest()


def cached(
    sources: Sequence[Path], command: Sequence[str], suffix: str, make: Callable[[Path], object]
) -> Path:
    """The file that `make` writes by this command, made once for each content of the sources; runs share them."""
    digest = hashlib.sha256("\0".join([sources_hash(), *command]).encode())
    for source in sources:
        digest.update(Path(source).read_bytes())
    target = build_folder() / f"{Path(sources[0]).stem}-{digest.hexdigest()[:16]}{suffix}"
    if not target.exists():
        partial = target.with_suffix(f".{os.getpid()}.tmp{suffix}")
        make(partial)
        partial.rename(target)
    return target


def compile_cached(sources: Sequence[Path], flags: Sequence[str], suffix: str = ".so") -> Path:
    """What the compiler makes of the sources."""
    command = [
        compiler(),
        "-std=c++20",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-missing-field-initializers",
        *flags,
    ]

    def make(target: Path) -> None:
        result = subprocess.run([*command, *map(str, sources), "-o", target], capture_output=True, text=True)
        if result.returncode:
            raise ToolchainError(f"{' '.join(map(str, command + list(sources)))}\n{result.stderr}")

    return cached(sources, command, suffix, make)


def emulator_flags() -> list[str]:
    # CUDA's idioms: pragmas for nvcc, threadIdx.x (unsigned) compared with int.
    # No unique symbols: each library then has an emulator of its own and can be unloaded.
    flags = ["-DAMSTEL_EMULATED", "-Wno-unknown-pragmas", "-Wno-sign-compare", "-g1", "-fPIC", "-shared"]
    flags += ["-fno-gnu-unique", f"-I{HERE}", f"-I{ROOT / 'csrc'}", "-isystem", str(cuda_include())]
    if os.environ.get(SANITIZE):
        flags += ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    return flags


def build_emulated(source: str | Path) -> Path:
    """A library of the test instances in one .cu file (a bare name means a file of this folder)."""
    return compile_cached([HERE / source], [*emulator_flags(), "-x", "c++"])


def build_emulated_library(sources: Sequence[str | Path]) -> Path:
    """A torch library of launch wrappers, compiled as C++ for the CPU key. See `emulated_operators`."""
    package = Path(importlib.util.find_spec("torch").submodule_search_locations[0])
    flags = [
        *emulator_flags(),
        "-fvisibility=hidden",  # as CMake builds them
        "-isystem",
        str(package / "include"),
        "-DTORCH_TARGET_VERSION=0x020b000000000000",
    ]
    libraries = [f"-L{package / 'lib'}", f"-Wl,-rpath,{package / 'lib'}", "-Wl,--no-as-needed", "-ltorch_cpu"]
    return compile_cached([ROOT / source for source in sources], [*flags, *libraries, "-x", "c++"])


@contextlib.contextmanager
def emulated_operators(library: Path, order: str = "forward", seed: int = 0) -> Iterator[ctypes.CDLL]:
    """While the context lasts, torch's CPU key runs this library's operators, kernels on the emulator.

    Their schemas come from elsewhere and stay; a CPU kernel registered before is there again afterwards.
    """
    import _ctypes

    import torch  # noqa: F401  (its libraries must be there first)

    spmm = importlib.import_module("amstel.ops.spmm")

    loaded = ctypes.CDLL(str(library))
    loaded.amstel_emulator_set_order(ORDERS.index(order), ctypes.c_uint64(seed))
    graphs, remember = [], spmm._remember

    def note(graph, *rest):
        graphs.append(graph)
        remember(graph, *rest)

    spmm._remember = note
    try:
        yield loaded
    finally:
        spmm._remember = remember
        for graph in graphs:  # what this library keeps for them goes with it
            graph._kept_products.clear()
        _ctypes.dlclose(loaded._handle)


# ---- Launches ----


class _Buffer:
    """A copy of an array between red zones."""

    def __init__(self, array: np.ndarray, library: ctypes.CDLL):
        if not array.flags.c_contiguous:
            raise ValueError("arrays that stand for device buffers must be C-contiguous")
        self.array, self.library = array, library
        self.memory = np.full(array.nbytes + 2 * RED_ZONE + 256, RED_PATTERN, np.uint8)
        self.start = RED_ZONE + -(self.memory.ctypes.data + RED_ZONE) % 256  # as aligned as cudaMalloc's
        self.stop = self.start + array.nbytes
        self.address = self.memory.ctypes.data + self.start
        self.payload = self.memory[self.start : self.stop]
        self.payload[:] = np.frombuffer(array.tobytes(), np.uint8)

    def poison(self, poison: bool) -> None:
        base, size = self.memory.ctypes.data, self.memory.nbytes
        self.library.amstel_emulator_poison(base, self.start, poison)
        self.library.amstel_emulator_poison(base + self.stop, size - self.stop, poison)

    def check(self, kernel: str, position: int) -> None:
        written = np.flatnonzero(self.memory != RED_PATTERN)
        written = written[(written < self.start) | (written >= self.stop)]
        if written.size:
            offset = int(written[0]) - self.start
            raise EmulationError(
                f"kernel {kernel}: global write out of bounds: argument {position} has {self.array.nbytes} "
                f"bytes, {written.size} bytes outside were written, the first at byte {offset}"
            )


class Kernel:
    """One test instance in an emulated library."""

    def __init__(self, library: ctypes.CDLL, index: int, name: str, symbol: str, signature: list[str]):
        self.library, self.index, self.name, self.symbol, self.signature = (
            library,
            index,
            name,
            symbol,
            signature,
        )

    def launch(
        self, grid, block, arguments: Sequence, shared: int = 0, order: str = "all", seed: int = 0
    ) -> None:
        """Runs the kernel and changes the arrays in place; raises EmulationError for whatever is found.

        arguments: an array for a pointer, None for a null pointer, numbers, and for a struct a tuple of a
        format of Python's struct module and the fields, arrays among them (format P). order: forward,
        reversed, random, or all, which wants the same bits from each.
        """
        orders = ORDERS if order == "all" else (order,)
        results = [self._launch(grid, block, arguments, shared, order, seed) for order in orders]
        for other, buffers in zip(orders[1:], results[1:], strict=True):
            for (position, first), buffer in zip(
                results[0].values(), (b for _, b in buffers.values()), strict=True
            ):
                if first.payload.tobytes() != buffer.payload.tobytes():
                    raise EmulationError(
                        f"kernel {self.name}: argument {position} depends on the order of the threads: "
                        f"{orders[0]} and {other} differ"
                    )
        for _, buffer in results[0].values():
            if buffer.array.flags.writeable:
                buffer.array.reshape(-1).view(np.uint8)[:] = buffer.payload

    def _launch(self, grid, block, arguments, shared, order, seed) -> dict[int, tuple[int, _Buffer]]:
        if len(arguments) != len(self.signature):
            raise TypeError(
                f"kernel {self.name} takes {len(self.signature)} arguments, {len(arguments)} given"
            )
        buffers: dict[int, tuple[int, _Buffer]] = {}

        def value(argument, position):
            if argument is None:
                return 0
            if not isinstance(argument, np.ndarray):
                return argument
            if id(argument) not in buffers:
                buffers[id(argument)] = position, _Buffer(argument, self.library)
            return buffers[id(argument)][1].address

        packed = []
        for position, (letter, argument) in enumerate(zip(self.signature, arguments, strict=True)):
            where = f"kernel {self.name}, argument {position}"
            if letter.startswith("S"):
                data = struct.pack(argument[0], *(value(field, position) for field in argument[1:]))
                if len(data) > int(letter[1:]):
                    raise TypeError(f"{where}: {len(data)} bytes for a struct of {letter[1:]}")
                data = data.ljust(int(letter[1:]), b"\0")
            else:
                if (letter == "P") != (argument is None or isinstance(argument, np.ndarray)):
                    raise TypeError(f"{where}: wants {'an array' if letter == 'P' else letter}")
                data = struct.pack(letter, value(argument, position))
            packed.append(ctypes.create_string_buffer(data, len(data)))
        pointers = (ctypes.c_void_p * max(len(packed), 1))(*map(ctypes.addressof, packed))
        self.library.amstel_emulator_set_order(ORDERS.index(order), seed)
        for _, buffer in buffers.values():
            buffer.poison(True)
        try:
            message = self.library.amstel_emulator_launch(
                self.index, _triple(grid), _triple(block), shared, pointers
            )
        finally:
            for _, buffer in buffers.values():
                buffer.poison(False)
        if message:
            raise EmulationError(f"{message.decode()} [order {order}]")
        for position, buffer in buffers.values():
            buffer.check(self.name, position)
        return buffers


def _triple(dimensions):
    dimensions = (dimensions,) if np.isscalar(dimensions) else tuple(dimensions)
    return (ctypes.c_uint * 3)(*dimensions, *[1] * (3 - len(dimensions)))


@functools.cache
def load(source: str | Path) -> dict[str, Kernel]:
    """The test instances of one .cu file, by name."""
    library = ctypes.CDLL(str(build_emulated(source)))
    library.amstel_emulator_instances.restype = ctypes.c_char_p
    library.amstel_emulator_launch.restype = ctypes.c_char_p
    library.amstel_emulator_launch.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p
    ]  # fmt: skip
    library.amstel_emulator_set_order.argtypes = [ctypes.c_int, ctypes.c_uint64]
    library.amstel_emulator_poison.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_bool]
    kernels = {}
    for index, line in enumerate(library.amstel_emulator_instances().decode().splitlines()):
        name, symbol, *signature = line.split()
        kernels[name] = Kernel(library, index, name, symbol, signature)
    return kernels


# ---- Sanitizers ----


def run_sanitized(command: Sequence[str], timeout: float = 900) -> subprocess.CompletedProcess:
    """Runs Python with these arguments in a process that builds every emulated kernel with the sanitizers."""
    preload = []
    for name in (
        "libasan.so",
        "libstdc++.so.6",
    ):  # the latter so that libasan finds __cxa_throw when it starts
        found = subprocess.run([compiler(), f"-print-file-name={name}"], capture_output=True, text=True)
        preload.append(found.stdout.strip())
        if not os.path.isabs(preload[-1]):
            raise ToolchainError(f"the compiler has no {name}, which the sanitizers need")
    environment = {
        **os.environ,
        SANITIZE: "1",
        "LD_PRELOAD": " ".join(preload),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:detect_stack_use_after_return=0",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "PYTHONMALLOC": "malloc",
    }
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout
    )


# ---- bfloat16, which NumPy lacks ----


def to_bfloat16(x: np.ndarray) -> np.ndarray:
    """The bits of x rounded to nearest even, as uint16. NaN is not handled."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(
        np.uint16
    )


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
