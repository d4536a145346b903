"""What installs amstel elsewhere says the same as pyproject.toml: the Dockerfile, the conda recipe, the citation."""

import os
import re
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = (ROOT / "pyproject.toml").read_text()
VERSION = re.search(r'^version = "(.+)"', PROJECT, re.M)[1]


def test_docker_compiles_with_the_tested_nvcc():
    pins = re.findall(r"nvidia-[a-z-]+==[0-9.*]+", (ROOT / "Dockerfile").read_text())
    assert len(pins) == 5 and all(f'"{pin}"' in PROJECT for pin in pins)


def test_versions_agree():
    recipe = (ROOT / "packaging" / "conda" / "recipe.yaml").read_text()
    assert f'version: "{VERSION}"' in recipe
    assert f"version: {VERSION}\n" in (ROOT / "CITATION.cff").read_text()


def test_readme_stays_short():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 150
    for name in re.findall(r"\]\((?!http)([^)#]+)\)", readme):
        assert (ROOT / name).exists(), name


def test_bug_reports_ask_for_what_info_prints():
    for name in ("bug.yml", "slow.yml"):
        assert "amstel info" in (ROOT / ".github" / "ISSUE_TEMPLATE" / name).read_text()


def test_headers_come_from_the_wheel_of_torch(tmp_path, monkeypatch):
    """Without a torch to build with: a few files of its wheel where pip has one, else torch itself is required."""
    monkeypatch.syspath_prepend(str(ROOT / "cmake"))
    import torch_headers

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert torch_headers.REQUIREMENT in PROJECT  # the same floor
    assert not torch_headers.fetch() and not torch_headers.folder().exists()

    info = "torch-99.0.dist-info/"
    files = (
        "torch/version.py",
        "torch/include/a/b.h",
        "torch/lib/libtorch_cpu.so",
        "torch/lib/libtorch_cuda.so",
    )
    with zipfile.ZipFile(tmp_path / "torch-99.0-py3-none-any.whl", "w") as wheel:
        for name in files:
            wheel.writestr(name, "")
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: torch\nVersion: 99.0\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(info + "RECORD", "")
    assert torch_headers.fetch()
    found = {str(file.relative_to(torch_headers.folder())) for file in torch_headers.folder().rglob("*.*")}
    assert found == {"version.py", "include/a/b.h", "lib/libtorch_cpu.so"}
    assert [path.name for path in (tmp_path / "build").iterdir()] == [torch_headers.folder().name]
