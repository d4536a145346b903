"""Facts about this installation, printed by `amstel info` and `python -m amstel.info`.

With --json they print it as JSON. `python -m amstel.info --cmake-prefix` prints the folder for CMAKE_PREFIX_PATH, where
find_package(amstel) looks.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy
import torch


def report() -> list[tuple[str, str]]:
    """Name and value of every fact, in the order they are printed.

    Example:
        >>> [name for name, value in amstel.info.report()][:6]
        ['amstel', 'torch', 'numpy', 'python', 'CPU kernels', 'threads']
    """
    import amstel
    from amstel import _library

    cuda = _library.paths["cuda"]
    if torch.version.cuda is None:
        device = "no: this torch is a CPU build"
    elif not torch.cuda.is_available():
        device = "no: torch has CUDA but finds no device"
    else:
        device = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    if cuda is not None:
        library = cuda
    elif torch.version.cuda is None:
        library = "not loaded: this torch is a CPU build"
    else:
        library = "absent: amstel was built without nvcc (AMSTEL_CUDA=ON makes the build require it)"
    wanted = os.environ.get("AMSTEL_CPU_ISA")
    return [
        ("amstel", amstel.__version__),
        ("torch", torch.__version__),
        ("numpy", numpy.__version__),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("CPU kernels", torch.ops.amstel.cpu_isa() + (f" (AMSTEL_CPU_ISA={wanted})" if wanted else "")),
        ("threads", str(torch.get_num_threads())),
        ("build", torch.ops.amstel.build_info()),
        ("CPU library", str(_library.paths["cpu"])),
        ("CUDA library", library),
        ("CUDA device", device),
    ]


def main(arguments: Sequence[str] = ()) -> int:
    """Run `python -m amstel.info`; returns the exit status, 2 for unknown arguments.

    Example:
        >>> amstel.info.main(["--cmake-prefix"])  # the folder that holds the library
        /...amstel
        0
    """
    from amstel import _library

    if list(arguments) == ["--cmake-prefix"]:
        print(Path(str(_library.paths["cpu"])).parent)
        return 0
    if list(arguments) == ["--json"]:
        print(json.dumps(dict(report()), indent=1))
        return 0
    if arguments:
        said = " ".join(arguments)
        print(f"amstel.info: expected --json, --cmake-prefix or nothing, got {said}", file=sys.stderr)
        return 2
    for name, value in report():
        print(f"{name:13s} {value}")
    return 0


if __name__ == "__main__":
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # of `python -m amstel.info | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)
