"""`restore predict` and `restore evaluate --task mri`: every mask and slice counts, or is named."""

import json

import numpy as np
import pytest
import torch

from amstel.apps.restoration import mri as evaluation
from amstel.data import mri
from tests import command

SIZE = (24, 20)
RNG = np.random.default_rng(0)
K = (RNG.standard_normal((2, *SIZE)) + 1j * RNG.standard_normal((2, *SIZE))).astype(np.complex64)
MASKS = RNG.random((3, *SIZE)) < 0.5
MASKS[:, 8:16, 6:14] = True


@pytest.fixture
def folder(tmp_path):
    np.save(tmp_path / "k.npy", K)
    np.save(tmp_path / "slices.npy", np.stack([K, 0 * K, 2 * K]))
    np.save(tmp_path / "stack.npy", MASKS)
    for name, mask in zip("ab", MASKS, strict=False):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "mask.npy", mask)
    return tmp_path


def rows(*masks):
    return {row["mask"]: row["sampled"] for row in masks}


def test_masks_of_one_name_are_told_apart(capsys, folder, monkeypatch):
    """The last of them was scored alone."""
    monkeypatch.setattr(evaluation, "TV_WEIGHTS", (0.001,))
    names = [folder / name / "mask.npy" for name in "ab"]
    options = ["--root", folder / "k.npy", "--task", "mri", "--mask", names[0], "--mask", names[1]]
    status, _, err = command.run(capsys, "restore", "evaluate", *options, "--json", folder / "r.json")
    assert status == 0, err
    found = rows(*json.loads((folder / "r.json").read_text())["rows"])
    assert found == {str(n): pytest.approx(m.mean()) for n, m in zip(names, MASKS, strict=False)}


@pytest.mark.parametrize("what", ["predict", "evaluate"])
def test_a_stack_is_not_its_first_mask(capsys, folder, what):
    source = [folder / "k.npy", "-o", folder / "o.png"] if what == "predict" else ["--root", folder / "k.npy"]
    options = ["restore", what, *source, "--task", "mri", "--mask", folder / "stack.npy"]
    command.is_refused(
        capsys, options, f"--mask {folder / 'stack.npy'} must hold one mask [W] or [H, W], got 3"
    )
    assert torch.equal(mri.read_mask(folder / "stack.npy", 0), torch.from_numpy(MASKS[0]))
    np.save(folder / "one.npy", MASKS[:1])
    assert torch.equal(mri.read_mask(folder / "one.npy"), torch.from_numpy(MASKS[0]))


def test_slices_without_samples_are_named(folder):
    """The mask was blamed for them."""
    masks, options = {"m": [torch.from_numpy(MASKS[0])]}, {"steps": 1, "weights": [0.001]}
    with pytest.warns(UserWarning, match=r"slices\.npy: 1 slice not scored \(without samples\): 1$"):
        found = evaluation.evaluate_files([folder / "slices.npy"], masks, **options)
    assert found[0]["psnr"] == pytest.approx(
        evaluation.evaluate_files([folder / "k.npy"], masks, **options)[0]["psnr"], rel=1e-4
    )


def test_samples_that_are_no_numbers_are_named(capsys, folder):
    damaged = np.stack([K, K])
    damaged[1, 0, 3, 4] = np.nan
    np.save(folder / "nan.npy", damaged)
    options = [folder / "nan.npy", "--task", "mri", "-o", folder / "o.png"]
    command.is_refused(
        capsys,
        ["restore", "predict", *options],
        "nan.npy must hold finite k-space, got NaN or infinity in 1 sample of slice 1",
    )
    assert not (folder / "o.png").exists()
    # The mask was blamed.
    options = ["restore", "evaluate", "--root", folder / "nan.npy", "--task", "mri"]
    command.is_refused(capsys, options, "nan.npy must hold finite k-space, got NaN or infinity in 1 sample")


def test_a_sparse_mask_of_matlab(tmp_path):
    scipy = pytest.importorskip("scipy")
    mask = scipy.sparse.csc_matrix(MASKS[0].astype(float))
    scipy.io.savemat(tmp_path / "k.mat", {"kspace": K.transpose(1, 2, 0), "mask": mask})
    assert torch.equal(mri.read_scan(tmp_path / "k.mat").mask, torch.from_numpy(MASKS[0]))
