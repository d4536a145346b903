"""The headers of torch, and the library to link, for a build in an environment that has no torch.

They are taken from torch's wheel. Declared as a build requirement instead, torch would be installed with all that it needs
into the environment of the build, several gigabytes that are deleted afterwards, and then again for the user. pip keeps
the wheel, so the user's torch costs no second download.
"""

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

FLOOR = (2, 11)
REQUIREMENT = f"torch>={FLOOR[0]}.{FLOOR[1]}"
WANTED = re.compile(r"torch/(include/.*[^/]|version\.py|lib/lib(torch_cpu|c10)\.so)")


def installed() -> bool:
    """Whether the environment that pip installs into has a torch that serves."""
    for name in ("purelib", "platlib"):
        version = Path(sysconfig.get_path(name)) / "torch" / "version.py"
        if version.is_file():
            found = re.search(r"__version__ = '(\d+)\.(\d+)", version.read_text())
            if found and (int(found[1]), int(found[2])) >= FLOOR:
                return True
    return False


def folder() -> Path:
    """Where `fetch` puts them, below the folder of the build."""
    return Path("build", f"torch-{sysconfig.get_platform()}").absolute()


def fetch() -> bool:
    """Fetch them unless they are there. False if pip cannot: it is missing here, or has no wheel of torch."""
    target = folder()
    if target.is_dir():
        return True
    # pip runs a build with a PYTHONPATH that hides the environment it installs into, and with it pip.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as place:
        options = "--quiet --no-deps --only-binary :all: --dest".split()
        command = [sys.executable, "-m", "pip", "download", *options, place, REQUIREMENT]
        if subprocess.run(command, env=environment).returncode:
            return False
        with zipfile.ZipFile(next(Path(place).glob("torch-*.whl"))) as wheel:
            wheel.extractall(place, filter(WANTED.fullmatch, wheel.namelist()))
        os.replace(Path(place, "torch"), target)
    return True
