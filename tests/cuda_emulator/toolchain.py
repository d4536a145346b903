"""The CUDA toolchain without a GPU: where it is, what nvcc makes of the kernels, and whether that got worse.

For each csrc/cuda/kernels/<stem>.cuh, <stem>_instances.cu in this folder is compiled for every architecture
without warnings, spills or local memory. Registers, 16-byte global accesses and theoretical occupancy of each
instance are compared with figures.json, which `python -m tests.cuda_emulator.toolchain --update` rewrites.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
KERNELS = ROOT / "csrc" / "cuda" / "kernels"
FIGURES = HERE / "figures.json"
ARCHITECTURES = ("80", "90", "100")
EXTRA = "install the extra amstel[cuda-check], or put nvcc on PATH or under CUDA_HOME"


class ToolchainError(RuntimeError):
    """A tool is missing, or what it built is not good enough."""


@functools.cache
def cuda_homes() -> list[Path]:
    """The folders that may hold a toolkit: CUDA_HOME, the one around nvcc on PATH, PyPI's, the usual one."""
    homes = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    on_path = shutil.which("nvcc")
    if on_path:
        # nvcc may be a link or a one-line wrapper: it says itself where its toolkit is.
        dry_run = subprocess.run(
            [on_path, "--dryrun", "-E", "-x", "cu", os.devnull], capture_output=True, text=True
        )
        homes += [Path(top) for top in re.findall(r"^#\$ TOP=(.+)$", dry_run.stderr, re.MULTILINE)]
    site = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    homes += [home for folder in site for home in sorted(folder.glob("nvidia/cu*"), reverse=True)]
    return [home.resolve() for home in [*homes, Path("/usr/local/cuda")] if home.is_dir()]


def find_tool(name: str) -> Path | None:
    for home in cuda_homes():
        if (home / "bin" / name).is_file():
            return home / "bin" / name
    on_path = shutil.which(name)
    return Path(on_path) if on_path else None


def cuda_include() -> Path:
    """The folder of CUDA's headers; the emulator needs them too (half and bfloat16 on the host)."""
    for home in cuda_homes():
        if (home / "include" / "cuda_fp16.h").is_file():
            return home / "include"
    raise ToolchainError(f"no CUDA headers (cuda_fp16.h) found: {EXTRA}")


def missing(*tools: str) -> str | None:
    """Why a test that needs these tools cannot run, or None. With AMSTEL_REQUIRE_NVCC=1 (CI) it raises."""
    absent = [tool for tool in tools if find_tool(tool) is None]
    if not absent:
        return None
    reason = f"{' and '.join(absent)} not found: {EXTRA}"
    if os.environ.get("AMSTEL_REQUIRE_NVCC") == "1":
        raise ToolchainError(reason)
    return reason


def run(command: list) -> str:
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if result.returncode:
        raise ToolchainError(f"{' '.join(map(str, command))}\n{result.stdout}{result.stderr}")
    return result.stdout + result.stderr


def nvcc(*arguments) -> str:
    """Runs nvcc with the flags that all compilations of kernels share; returns what it printed."""
    tool = find_tool("nvcc")
    if tool is None:
        raise ToolchainError(f"nvcc not found: {EXTRA}")
    flags = ["-std=c++20", "-O3", "-Werror", "all-warnings", "-I", HERE, "-I", ROOT / "csrc"]
    return run([tool, *flags, *arguments])


def release() -> str:
    return re.search(r"release ([\d.]+)", run([find_tool("nvcc"), "--version"]))[1]


def demangle(symbols: list[str]) -> list[str]:
    filter_ = shutil.which("c++filt")
    if filter_ is None or not symbols:
        return symbols
    names = subprocess.run(
        [filter_], input="\n".join(symbols), capture_output=True, text=True
    ).stdout.splitlines()
    return [re.sub(r"^void |\([^()]*\)$", "", name) for name in names]


# ---- What was built ----


def stems() -> list[str]:
    """Of the files with kernels; what others include has none of its own."""
    return sorted(path.stem for path in KERNELS.glob("*.cuh") if "__global__" in path.read_text())


def source_of(stem: str) -> Path:
    return HERE / ("planted_bugs.cu" if stem == "planted_bugs" else f"{stem}_instances.cu")


def parse_ptxas(text: str) -> dict[str, dict]:
    """Registers, static shared memory, spilled bytes and stack of each kernel, from `-Xptxas -v`."""
    found: dict[str, dict] = {}
    for block in re.split(r"Compiling entry function ", text)[1:]:
        symbol = re.match(r"'([^']+)'", block)[1]
        number = {
            "registers": r"Used (\d+) registers",
            "shared": r"(\d+) bytes smem",
            "stack": r"(\d+) bytes stack frame",
            "spill_stores": r"(\d+) bytes spill stores",
        }
        matches = {key: re.search(pattern, block) for key, pattern in number.items()}
        found[symbol] = {key: int(match[1]) if match else 0 for key, match in matches.items()}
    return found


def parse_disassembly(text: str) -> dict[str, dict]:
    """16-byte global accesses, local-memory accesses and the launch bounds of each kernel, from nvdisasm."""

    def sections(prefix):
        for section in re.split(rf"\n\s*\.section\s+{re.escape(prefix)}", text)[1:]:
            section = re.split(r"\n\s*\.section\s", section)[0]
            yield re.match(r"[^,\s]+", section)[0], section

    found = {}
    for symbol, section in sections(".text."):
        opcodes = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", section)
        found[symbol] = {
            "ldg128": sum(
                bool(re.match(r"LDG.*\.(128|256)", op)) for op in opcodes
            ),  # 256: two of them, from sm_100
            "stg128": sum(bool(re.match(r"STG.*\.(128|256)", op)) for op in opcodes),
            "local": sum(op.startswith(("LDL", "STL")) for op in opcodes),
            "threads": 1024,
        }
    for symbol, section in sections(".nv.info."):
        bounds = re.search(r"EIATTR_MAX_THREADS.*?\.word\s+(0x[0-9a-f]+)", section, re.DOTALL)
        if bounds and symbol in found:
            found[symbol]["threads"] = int(bounds[1], 16)
    return found


def inspect(stem: str, architecture: str) -> dict[str, dict]:
    """Compiles the instances of one stem; returns the figures of each kernel; raises where nvcc objects."""
    if find_tool("nvdisasm") is None:
        raise ToolchainError(f"nvdisasm not found: {EXTRA}")
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernels.cubin"
        strict = "-v,-warn-spills,-warn-lmem-usage,-Werror"
        log = nvcc("-cubin", f"-arch=sm_{architecture}", "-Xptxas", strict, source_of(stem), "-o", cubin)
        built, disassembled = parse_ptxas(log), parse_disassembly(run([find_tool("nvdisasm"), cubin]))
    figures = {}
    symbols = sorted(built)
    for symbol, name in zip(symbols, demangle(symbols), strict=True):
        figures[name] = built[symbol] | disassembled[symbol]
    rows = [[f["threads"], f["registers"], f["shared"]] for f in figures.values()]
    for figure, occupancy in zip(figures.values(), occupancies(architecture, rows), strict=True):
        figure["occupancy"] = occupancy
    return figures


# ---- Occupancy ----


@functools.cache
def occupancy_program() -> Path:
    """A program around CUDA's own cuda_occupancy.h."""
    from . import build

    return build.compile_cached([HERE / "occupancy.cpp"], ["-I", str(cuda_include())], suffix="")


def occupancies(architecture: str, rows: list[list[int]]) -> list[float]:
    """The share of a multiprocessor's warps that fit at once, for rows of (threads, registers, shared)."""
    lines = "\n".join(" ".join(map(str, row)) for row in rows)
    command = [occupancy_program(), architecture]
    result = subprocess.run(command, input=lines, capture_output=True, text=True, check=True)
    return [round(float(line), 4) for line in result.stdout.split()]


# ---- Figures ----


def read_figures() -> dict:
    """{nvcc release: {stem: {architecture: {kernel: figures}}}}"""
    return json.loads(FIGURES.read_text()) if FIGURES.exists() else {}


def worse(old: dict[str, dict], new: dict[str, dict]) -> list[str]:
    """Every change for the worse, and every kernel that appeared or went, in words."""
    changes = [f"{name}: not in figures.json" for name in new.keys() - old.keys()]
    changes += [f"{name}: in figures.json but not built" for name in old.keys() - new.keys()]
    for name in sorted(old.keys() & new.keys()):
        for key, sign in {"registers": 1, "occupancy": -1, "ldg128": -1, "stg128": -1}.items():
            if (new[name][key] - old[name][key]) * sign > 0:
                changes.append(f"{name}: {key} went from {old[name][key]} to {new[name][key]}")
    return sorted(changes)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--update", action="store_true", help="write what was built to figures.json")
    parser.add_argument("stems", nargs="*", help="default: every kernel file")
    options = parser.parse_args(arguments)
    figures = read_figures()
    known = figures.setdefault(release(), {})
    if options.update and not options.stems:
        known.clear()
    bad = []
    for stem in options.stems or stems():
        for architecture in ARCHITECTURES:
            new = inspect(stem, architecture)
            for name, figure in new.items():
                print(f"{stem} sm_{architecture} {name}: " + ", ".join(f"{k} {v}" for k, v in figure.items()))
            if options.update:
                known.setdefault(stem, {})[architecture] = new
            else:
                bad += worse(known.get(stem, {}).get(architecture, {}), new)
    if options.update:
        FIGURES.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
    print("\n".join(bad))
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
