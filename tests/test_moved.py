"""The names of the last release still work, and say where things are now."""

import importlib
import pickle
import subprocess
import sys

import pytest

import amstel

MOVED = {
    "recipes.gcn": ("apps.graphs.train", "study"),
    "recipes.karate": ("apps.graphs.karate", "train"),
    "recipes.mri": ("apps.restoration.mri", "total_variation"),
    "recipes.restore": ("apps.restoration.train", "Settings"),
    "recipes.sint": ("apps.tracking.train", "Settings"),
    "recipes.video_lstm": ("apps.video.train", "Settings"),
    "recipes.video_studies": ("apps.video.studies", "STUDIES"),
    "restoration.demonstration": ("apps.restoration.demo", "examples"),
    "restoration.evaluation": ("apps.restoration.evaluate", "psnr"),
    "restoration.files": ("apps.restoration.files", "read"),
    "restoration.restoring": ("inverse.restore", "restore"),
}


@pytest.mark.parametrize("old", MOVED)
def test_a_module_of_the_last_release_hands_on_to_the_new_one(old):
    new, name = MOVED[old]
    module = importlib.import_module(f"amstel.{old}")
    with pytest.warns(DeprecationWarning, match=f"amstel.{old} is now amstel.{new}"):
        found = getattr(module, name)
    assert found is getattr(importlib.import_module(f"amstel.{new}"), name)
    package, _, stem = old.partition(".")
    assert getattr(getattr(amstel, package), stem) is module


def test_names_that_do_not_exist_say_so():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        amstel.nothing  # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        amstel.restoration.nothing  # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        amstel.recipes.gcn.nothing  # noqa: B018


def test_settings_pickled_under_the_old_name_load():
    from amstel.apps.graphs.train import Settings

    old = pickle.dumps(Settings(), 0).replace(b"amstel.apps.graphs.settings", b"amstel.recipes.gcn")
    with pytest.warns(DeprecationWarning):
        assert pickle.loads(old) == Settings()


def test_the_restoration_package_keeps_its_names():
    from amstel.apps.restoration.files import Picture

    assert amstel.restoration.restore is amstel.restore
    with pytest.warns(DeprecationWarning, match="amstel.restoration.Picture"):
        assert amstel.restoration.Picture is Picture


def test_the_library_imports_no_application():
    code = "import sys, amstel; print(*[m for m in sys.modules if m.startswith(('amstel.apps', 'amstel.cli', 'amstel.recipes'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_spellings_of_the_last_release_work_and_warn():
    from amstel.apps.graphs.train import study
    from amstel.apps.restoration.settings import TASKS, Settings

    for old, new in (("grey", "gray"), ("colour", "color")):
        with pytest.warns(DeprecationWarning, match=f"the task '{old}' is now '{new}'"):
            assert Settings(task=old).task == new
        with pytest.warns(DeprecationWarning, match=f"{old}.* is now"):
            assert amstel.nn.RIM.pretrained(old).channels == TASKS[new]
    with pytest.warns(DeprecationWarning, match="'neighbours' is now 'neighbors'"):
        data = amstel.data.block_model(nodes=400)
        assert study(data, "neighbours", [0]).model == "neighbors"
