"""Folders of wide pictures, which may be the frames of a clip or strips of frames each."""

import warnings

import numpy as np
import pytest

from amstel.apps.video import predict
from amstel.data import ClipFolder
from amstel.media.strips import strips

Image = pytest.importorskip("PIL.Image", reason="pictures are read from files")


def _pictures(folder, names, size=(64, 128)):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(folder / f"{name}.png")
    return folder


def _found(folder):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return predict.find([folder]), [str(one.message) for one in caught]


def test_folders_of_wide_frames_in_a_folder_are_clips(tmp_path):
    """A class folder of them was refused, as one without frames."""
    clips = [_pictures(tmp_path / "A" / f"clip{k}", ["x", "y", "z"]) for k in range(2)]
    assert _found(tmp_path / "A") == (clips, [])
    assert [clip.frames.shape for clip in ClipFolder(tmp_path)] == [(3, 64, 128, 3)] * 2


@pytest.mark.parametrize("names", [["008", "009", "010"], ["shot_9", "shot_10", "shot_11"], ["7", "8"]])
def test_wide_pictures_of_one_size_with_consecutive_numbers_are_frames(tmp_path, names):
    """They were as many videos."""
    folder = _pictures(tmp_path / "clip", names)
    assert _found(folder) == ([folder], [])


@pytest.mark.parametrize("names", [["0", "2", "3"], ["a", "b"], ["a0", "b1"], ["0", "x"], ["0"]])
def test_other_wide_pictures_are_strips_which_a_warning_says(tmp_path, names):
    folder = _pictures(tmp_path / "clips", names)
    kind = "1 picture taken as a strip" if len(names) == 1 else f"{len(names)} pictures taken as strips"
    assert _found(folder) == ([folder / f"{name}.png" for name in names], [f"{folder}: {kind} of frames"])


def test_wide_pictures_of_several_sizes_are_strips(tmp_path):
    folder = _pictures(tmp_path / "clips", ["0"])
    _pictures(folder, ["1"], (64, 192))
    found, said = _found(folder)
    assert found == [folder / "0.png", folder / "1.png"] and said == [
        f"{folder}: 2 pictures taken as strips of frames"
    ]


def test_one_picture_of_another_shape_makes_all_of_them_frames(tmp_path):
    folder = _pictures(tmp_path / "clips", ["a", "b"])
    _pictures(folder, ["c"], (64, 100))
    assert strips(folder) == [] and _found(folder) == ([folder], [])
