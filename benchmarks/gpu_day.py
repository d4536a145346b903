"""The parts of gpu_day.sh in Python: checks before the start, one call of each kernel for a profiler, and the summary.

`python benchmarks/gpu_day.py check WHEELS` runs before anything is installed, so this file imports nothing of the
project at its top.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import re
import struct
import sys
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import NoReturn

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
PTX, CUBIN = 1, 2


def fail(message: str) -> NoReturn:
    print(f"gpu_day: {message}", file=sys.stderr)
    raise SystemExit(2)


# ------------------------------------------------------------------------------------------- before the start


def architectures(library: bytes) -> list[tuple[int, int]]:
    """(kind, architecture) of every image in the fat binaries of a library; kind is PTX or CUBIN."""
    found, at = set(), 0
    while (at := library.find(b"\x50\xed\x55\xba", at)) >= 0:
        _, version, header, size = struct.unpack_from("<IHHQ", library, at)
        end = at + header + size
        if version != 1 or header != 16 or end > len(library):
            at += 4
            continue
        image = at + header
        while image < end:
            kind, _, header, size = struct.unpack_from("<HHIQ", library, image)
            found.add((kind, struct.unpack_from("<I", library, image + 28)[0]))
            image += header + size
        at = end
    return sorted(found)


def runs_on(images: list[tuple[int, int]], capability: int) -> bool:
    """A cubin runs on its own generation from its own minor number on, PTX on every later architecture."""
    return any(
        arch <= capability and (kind == PTX or arch // 10 == capability // 10) for kind, arch in images
    )


def check(wheels: str, dry: bool) -> None:
    """Exits with one line if the wheel is missing or for another machine, or torch is too old."""
    images = None if wheels == "-" else images_of(wheels, dry)
    try:
        import torch
    except ImportError:
        fail(f"{sys.executable} cannot import torch; set PYTHON to one that can")
    version = tuple(int(n) for n in re.findall(r"\d+", torch.__version__)[:2])
    if version < (2, 11):
        fail(f"expected torch 2.11 or later, got {torch.__version__}")
    if dry:
        return
    if not torch.cuda.is_available():
        fail("torch finds no CUDA device here; --dry runs everything on the CPU")
    major, minor = torch.cuda.get_device_capability()
    capability = 10 * major + minor
    if images is not None and not runs_on(images, capability):
        names = ", ".join(f"{'PTX' if kind == PTX else 'sm'}_{arch}" for kind, arch in images)
        fail(f"WHEELS: the wheel holds {names or 'no kernels'}; this GPU is sm_{capability}")


def images_of(wheels: str, dry: bool) -> list[tuple[int, int]]:
    """The CUDA images in the one wheel of amstel; a dry run needs none."""
    if not Path(wheels).is_dir():
        fail(f"WHEELS: expected a folder with the wheel of amstel or -, got {wheels}")
    found = sorted(Path(wheels).glob("amstel-*.whl"))
    if len(found) != 1:
        fail(
            f"WHEELS: expected one amstel-*.whl in {wheels}, got {', '.join(f.name for f in found) or 'none'}"
        )
    machine = platform.machine().lower()
    machine = MACHINES.get(machine, machine)
    if not found[0].stem.split("-")[-1].endswith((machine, "any")):
        fail(f"WHEELS: {found[0].name} is for another machine; this one is {machine}")
    try:
        with zipfile.ZipFile(found[0]) as archive:
            libraries = {Path(n).name: n for n in archive.namelist() if n.endswith(".so")}
            if "libamstel_cuda.so" not in libraries and dry:
                return []
            if "libamstel_cuda.so" not in libraries:
                fail(f"WHEELS: {found[0].name} was built without CUDA: it holds no libamstel_cuda.so")
            images = architectures(archive.read(libraries["libamstel_cuda.so"]))
    except zipfile.BadZipFile:
        fail(f"WHEELS: {found[0].name} is not a wheel: it is no zip archive")
    return images


def ready(dry: bool) -> None:
    """Exits with one line if something that the suites import is missing."""
    import importlib.util

    missing = [n for n in ("pytest", "pytest_benchmark", "amstel") if importlib.util.find_spec(n) is None]
    if missing:
        fail(f"this Python has no {', '.join(missing)}; lay the wheels into WHEELS")
    import amstel  # noqa: F401
    from amstel import _library

    if not dry and not _library.paths["cuda"]:
        fail("amstel is installed without its CUDA library")


# --------------------------------------------------------------------------------------------------- kernels


def suites() -> list:
    """Every suite that has a CUDA workload, of every bench_*.py whose peers are here."""
    import importlib

    found = []
    for path in sorted(Path(__file__).parent.glob("bench_*.py")):
        try:
            module = importlib.import_module(f"benchmarks.{path.stem}")
        except BaseException as error:  # pytest's Skipped, where a peer is missing
            print(f"{path.stem} is left out: {error}")
            continue
        tests = [getattr(f, "suite", None) for f in vars(module).values() if callable(f)]
        found += [s for s in tests if s and any("cuda" in shape.devices for shape in s.shapes.values())]
    return found


def kernels(only: str | None, tiny: bool, profile: bool, dry: bool) -> None:
    """Ours of every suite once, forward and backward, at its main workload, its first; the profiler sees that call."""
    import torch

    from benchmarks.suite import DTYPES, At

    device = "cpu" if dry else "cuda"
    activity = torch.profiler.ProfilerActivity.CPU if dry else torch.profiler.ProfilerActivity.CUDA
    for suite in suites():
        workload, shape = next((n, s) for n, s in suite.shapes.items() if "cuda" in s.devices)
        group = suite.group(workload, "cuda")
        if suite.step == "both" or (only and not re.search(only, group)):
            continue
        ours = [i for i in suite.implementations if i.name.startswith("amstel")]
        for implementation in ours[:1]:
            for dtype in implementation.dtypes:
                try:
                    at = At(device, DTYPES[dtype], dry)
                    work = suite.build(at, *(shape.tiny if tiny or dry else shape.full))
                    call = work.functions[implementation.name]
                    call()
                    seen = once(call, dry, activity if profile else None)
                    print(f"ran {group} {dtype}", *seen, sep="\n  ", flush=True)
                except Exception as error:
                    print(f"FAILED {group} {dtype}: {error}", flush=True)
                    raise SystemExit(1) from error
                finally:
                    work = call = None
                    if not dry:
                        torch.cuda.empty_cache()


def once(call, dry: bool, activity) -> list[str]:
    """One call, between the start and the stop of the profiler; kernels and their times where torch profiles."""
    import torch

    if activity is not None:
        with torch.profiler.profile(activities=[activity]) as profile:
            call()
            if not dry:
                torch.cuda.synchronize()
        key = "self_cpu_time_total" if dry else "self_device_time_total"
        rows = sorted(profile.key_averages(), key=lambda e: -getattr(e, key))[:8]
        return [f"{getattr(e, key):10.1f} us {e.count:4d} x {e.key[:90]}" for e in rows]
    if not dry:
        torch.cuda.synchronize()
        torch.cuda.profiler.start()
    call()
    if not dry:
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()
    return []


# --------------------------------------------------------------------------------------------------- summary


def ratios(rows: list[dict]) -> list[tuple[float, str, str, float]]:
    """(best peer over ours, group and dtype, that peer, our seconds), the worst first."""
    groups: dict[str, dict[str, float]] = defaultdict(dict)
    for r in rows:
        if "median" in r:
            groups[f"{r['group']} {r['dtype']}"][r["implementation"]] = r["median"]
    found = []
    for name, times in groups.items():
        ours = times.get("amstel") or times.get("amstel 1x1")
        peers = {n: t for n, t in times.items() if not n.startswith("amstel")}
        if ours and peers:
            best = min(peers, key=peers.__getitem__)
            found.append((peers[best] / ours, name, best, ours))
    return sorted(found)


def summary(out: Path) -> int:
    """One screen: what failed, the worst ratios, the smallest shares of the limit; 1 if something failed."""
    rows = [json.loads(line) for line in (out / "lines.jsonl").read_text().splitlines()]
    errors = [r for r in rows if "error" in r]
    log = out / "tests.log"
    tests = log.read_text().strip().splitlines()[-1:] if log.exists() else []
    if any(r.get("dry") for r in rows):
        print("a dry run, on the CPU at tiny shapes: its times mean nothing")
    print(f"tests: {tests[0] if tests else 'not run'}")
    bad = (
        not rows
        or any(r["implementation"].startswith("amstel") for r in errors)
        or bool(tests and re.search(r"\d+ (failed|error)|no tests", tests[0]))
    )
    print(f"suites: {len(rows)} benchmarks, {len(errors)} failed")
    for r in sorted(errors, key=lambda r: not r["implementation"].startswith("amstel"))[:6]:
        print(f"  FAILED {r['group']} {r['implementation']} {r['dtype']}: {r['error'][:90]}")
    found = ratios(rows)
    if found:
        mean = math.exp(sum(math.log(f[0]) for f in found) / len(found))
        slower = sum(f[0] < 1 for f in found)
        print(
            f"against the best peer: {mean:.2f}x on average, slower in {slower} of {len(found)}; the worst:"
        )
        for ratio, name, peer, ours in found[:14]:
            print(f"  {ratio:6.2f}x  {name:58s} {1e6 * ours:9.1f} us, {peer}")
    shares = sorted(
        (r for r in rows if r.get("share") and r["implementation"] == "amstel"), key=lambda r: r["share"]
    )
    if shares:
        print("share of the limit, lowest first:")
        for r in shares[:8]:
            print(
                f"  {r['share']:6.1%}  {r['group'] + ' ' + r['dtype']:58s} {r['bound']}, {1e6 * r['median']:.1f} us"
            )
    loose = sorted(
        {f"{r['group']}: {r['captured']}" for r in rows if r.get("captured") not in (None, True) and r["implementation"].startswith("amstel")}
    )  # fmt: skip
    print(
        f"ours that a CUDA graph cannot capture: {len(loose)}",
        *(f"  {line[:110]}" for line in loose[:5]),
        sep="\n",
    )
    return int(bad)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["check", "ready", "kernels", "summary"])
    parser.add_argument("path", nargs="?", default="-")
    parser.add_argument("--only", metavar="REGEX")
    for flag in ("--tiny", "--profile", "--dry"):
        parser.add_argument(flag, action="store_true")
    args = parser.parse_args()
    if args.what == "check":
        try:
            re.compile(args.only or "")
        except re.error as error:
            fail(f"--only: expected a regular expression, got {args.only!r} ({error})")
        check(args.path, args.dry)
    elif args.what == "ready":
        ready(args.dry)
    elif args.what == "kernels":
        kernels(args.only, args.tiny, args.profile, args.dry)
    else:
        return summary(Path(args.path))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
