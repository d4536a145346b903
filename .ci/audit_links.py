"""Fails where a library in the wheel links, requires or records what a stranger's machine may not have."""

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# Besides libtorch_cpu, which torch itself has loaded by then, only what every Linux has.
ALLOWED = {
    "libtorch_cpu.so", "libstdc++.so.6", "libgcc_s.so.1", "libc.so.6", "libm.so.6",
    "libdl.so.2", "librt.so.1", "libpthread.so.0", "ld-linux-x86-64.so.2",
}  # fmt: skip
NEWEST = {"GLIBC": (2, 36), "GLIBCXX": (3, 4, 30), "CXXABI": (1, 3, 13)}  # gcc 12, Debian 12


def audit(library: Path) -> list[str]:
    dynamic = subprocess.run(["readelf", "-dW", library], capture_output=True, text=True, check=True).stdout
    symbols = subprocess.run(["objdump", "-T", library], capture_output=True, text=True, check=True).stdout
    faults = [f"links {n}" for n in re.findall(r"NEEDED.*\[(.+?)\]", dynamic) if n not in ALLOWED]
    faults += [
        f"records a path: {line.strip()}"
        for line in dynamic.splitlines()
        if "RPATH" in line or "RUNPATH" in line
    ]
    for family, version in set(re.findall(r"\((GLIBC|GLIBCXX|CXXABI)_([0-9.]+)\)", symbols)):
        if tuple(map(int, version.split("."))) > NEWEST[family]:
            faults.append(f"requires {family}_{version}")
    if (
        not subprocess.run(["torch-abi-audit", "--check", "torch", library], capture_output=True).returncode
        == 0
    ):
        faults.append("uses torch outside its stable ABI")
    return [f"{library.name}: {fault}" for fault in faults]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(sys.argv[1]).extractall(folder)
        libraries = sorted(Path(folder).rglob("*.so"))
        faults = [fault for library in libraries for fault in audit(library)]
    if not libraries or faults:
        sys.exit("\n".join(faults) or "no library in the wheel")
    print("links and symbols are in order:", ", ".join(library.name for library in libraries))


if __name__ == "__main__":
    main()
