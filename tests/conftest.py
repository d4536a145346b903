"""Fixtures and options that all tests share."""

import os
from pathlib import Path

import pytest
import torch

import amstel

ROOT = Path(__file__).parent.parent


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """The whole suite runs in a process a core (pytest-xdist); a part of it, or a debugger, in one; -n N has its way."""
    whole = config.args_source is config.ArgsSource.TESTPATHS and "PYTEST_XDIST_WORKER" not in os.environ
    if whole and config.pluginmanager.hasplugin("xdist") and not config.option.usepdb:
        if config.option.numprocesses is None:
            config.option.numprocesses = min(8, os.cpu_count() or 1)


def pytest_configure(config):
    # Bits must not depend on the number of threads; tests that look at it set their own. Workers share the cores.
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    torch.set_num_threads(max(1, min(2, (os.cpu_count() or 1) // workers)))


def pytest_collection_modifyitems(config, items):
    """A plain run leaves out what needs a GPU where there is none, and what is slow.

    With -m cuda the first runs, and fails where there is no GPU; the second runs with any -m expression that takes
    it, such as -m slow, or where a test is named.
    """
    chosen = config.getoption("markexpr")
    marks = [] if torch.cuda.is_available() or "cuda" in chosen else ["cuda"]
    if not chosen and not any("::" in argument for argument in config.args):
        marks.append("slow")
    left_out = [item for item in items if any(item.get_closest_marker(mark) for mark in marks)]
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


def data_root() -> Path:
    """The folder of real data, named by AMSTEL_DATA; without that a path where nothing is."""
    return Path(os.environ.get("AMSTEL_DATA") or ROOT / "tests" / "no-data")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data; without one the test is skipped."""
    if not os.environ.get("AMSTEL_DATA"):
        pytest.skip("needs real data: AMSTEL_DATA names the folder")
    if not data_root().is_dir():
        pytest.fail(f"AMSTEL_DATA names {data_root()}, which is no folder")
    return data_root()


@pytest.fixture(autouse=True)
def errors_at_once(request):
    """On CUDA an error in the values of an argument is raised by a later call; here by the call that is tested."""
    if request.node.get_closest_marker("cuda") is None:
        yield
        return
    amstel.set_checks("sync")
    yield
    amstel.set_checks("async")


@pytest.fixture
def one_thread():
    """For networks and frames so small that threads would mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
