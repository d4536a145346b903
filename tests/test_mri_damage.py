"""Scans that are damaged, and folders of photographs with what is none: said by their names, never read as something else."""

import warnings

import numpy as np
import pytest
import torch

from amstel.data import mri
from amstel.data.mri import read_maps, read_scan
from tests.test_mri_scans import acquisitions, header

h5py = pytest.importorskip("h5py")
K = np.random.default_rng(0).standard_normal((4, 12, 10, 2)).astype(np.float32).view(np.complex64)[..., 0]
LINES = [(0, 0, n, 0, K[:, :, n], {}) for n in range(10)]


@pytest.mark.parametrize("x, y", [(0, 10), (-3, 10), (12, 0), (12, -1)])
def test_an_image_size_that_is_none_is_that_of_k_space(tmp_path, x, y):
    """It was (0, 10) or (-3, 10)."""
    acquisitions(tmp_path / "a.h5", LINES, header((12, 10, 1), (x, y, 1)))
    assert read_scan(tmp_path / "a.h5").image_size is None


def test_samples_that_are_all_to_be_discarded_are_no_image(tmp_path):
    """A black picture was written of them."""
    lines = [(*line[:5], {"discard_pre": 12}) for line in LINES]
    acquisitions(tmp_path / "a.h5", lines, header((12, 10, 1), (12, 10, 1)))
    with pytest.raises(
        ValueError, match=r"a\.h5 must hold samples of an image, got only such as are to be disc"
    ):
        read_scan(tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("xml", "said"),
    [
        (
            header((12, 10, 1), (12, 10, 1), trajectory="radial"),
            "the trajectory of an ISMRMRD file must be cartesian",
        ),
        ("<a", "the header of ISMRMRD must be XML"),
        ("<a/>", "the header of ISMRMRD must give the matrix of its encodedSpace"),
    ],
)
def test_what_a_header_says_is_said_with_the_file(tmp_path, xml, said):
    path = tmp_path / "a.h5"
    acquisitions(path, LINES, xml)
    with pytest.raises(ValueError) as error:
        read_scan(path)
    assert str(error.value).startswith(f"{path}: {said}")


def _broken(path, how):
    acquisitions(path, LINES, header((12, 10, 1), (12, 10, 1)))
    with h5py.File(path, "a") as file:
        group = file["dataset"]
        if how == "no xml":
            del group["xml"]
        elif how == "empty xml":
            del group["xml"]
            group.create_dataset("xml", data=np.empty(0, "S1"))
        elif how == "a word for a number":
            group["xml"][0] = header(("a", 10, 1), (12, 10, 1))
        elif how == "bytes":
            del group["xml"]
            group.create_dataset("xml", data=[b"\xff\xfe<"])
        elif how == "no records":
            del group["data"]
            group["data"] = np.zeros(3)
        elif how == "a group":
            del group["data"]
            group.create_group("data")
        elif how == "too few":
            records = group["data"][()]
            records["head"]["number_of_samples"] = 11
            group["data"][...] = records
    if how == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "overwritten":
        data = bytearray(path.read_bytes())
        data[600:2600] = b"\xa5" * 2000
        path.write_bytes(data)


@pytest.mark.parametrize(
    "how",
    [
        "no xml",
        "empty xml",
        "a word for a number",
        "bytes",
        "no records",
        "a group",
        "too few",
        "cut",
        "overwritten",
    ],
)
def test_a_damaged_file_of_a_scanner_is_named(tmp_path, how):
    """These were a KeyError, a RuntimeError, or a word of the library alone, without the file."""
    path = tmp_path / "a.h5"
    _broken(path, how)
    with pytest.raises(ValueError, match=r"a\.h5[ :]"):
        read_scan(path)


@pytest.mark.parametrize("read", [read_scan, read_maps])
def test_a_damaged_file_of_matlab_is_named(tmp_path, read):
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["kspace"] = K
    data = bytearray((tmp_path / "a.mat").read_bytes())
    data[:10] = b"MATLAB 7.3"
    for start in (600, 800, 1000, 1300):
        broken = data.copy()
        broken[start : start + 200] = b"\xa5" * 200
        (tmp_path / "a.mat").write_bytes(broken)
        try:
            read(tmp_path / "a.mat")
        except ValueError as error:
            assert "a.mat" in str(error)


def test_photographs_are_the_pictures_that_are_there(tmp_path):
    """What is none ended a training when it was drawn."""
    image = pytest.importorskip("PIL.Image")
    picture = image.fromarray(np.zeros((70, 90, 3), np.uint8))
    for name in ("a.png", "b/c.png", ".hidden/d.png", "b/.e/f.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture.save(tmp_path / name)
    (tmp_path / "set.png").mkdir()
    (tmp_path / "b" / "gone.png").symlink_to("moved")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        images = mri.CoilImages(torch.zeros(1, 64, 64), 32, photographs=tmp_path)
    assert images._photographs == [tmp_path / "a.png", tmp_path / "b" / "c.png"]
    assert [str(one.message) for one in said] == [f"{tmp_path}: 1 link ignored (broken): b/gone.png"]
