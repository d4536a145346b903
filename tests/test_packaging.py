"""What installs amstel elsewhere says the same as pyproject.toml: the Dockerfile, the conda recipe, the citation."""

import re
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
