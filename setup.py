"""`python setup.py bdist_wheel` and its like. CMake builds the libraries, pyproject.toml says everything else; pip goes by
the latter (cmake/backend.py)."""

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel


class Wheel(bdist_wheel):
    """The libraries depend on the platform and on no Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(cmake_source_dir=".", cmake_install_dir="amstel", cmdclass={"bdist_wheel": Wheel})
