"""What installs amstel elsewhere says the same as pyproject.toml: the Dockerfile, the conda recipe, the citation; and .ci."""

import re
import subprocess
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


def test_ci_refuses_a_step_that_it_does_not_know():
    for wrong in ("tets", "--help", "*"):
        done = subprocess.run(
            [ROOT / ".ci" / "run", wrong, "lint"], capture_output=True, text=True, cwd=ROOT / ".ci"
        )
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert done.stderr.endswith(f" sanitize lint, got {wrong}\n") or wrong == "*"
    for wrong in ([], ["memory"], ["address", "thread"]):
        done = subprocess.run([ROOT / ".ci" / "sanitize", *wrong], capture_output=True, text=True)
        expected = f"sanitize: expected address or thread, got '{' '.join(wrong)}'\n"
        assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)
    script = (ROOT / ".ci" / "run").read_text()
    known = re.search(r'^known=" (.+) "$', script, re.M)[1].split()
    assert known == re.findall(r"^if wanted (\w+)", script, re.M)
