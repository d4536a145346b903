"""`amstel restore`: pictures, folders, k-space, evaluation and training; exit status and the one line on bad input; the demo."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import amstel
from amstel import cli
from amstel.apps.demo import Show
from amstel.apps.restoration import classical, convergence, demo, files, talk
from amstel.apps.restoration import evaluate as evaluation
from amstel.apps.restoration import train as recipe
from amstel.apps.restoration.files import Picture
from amstel.data import ImageFolder
from tests import command

Image = pytest.importorskip("PIL.Image", reason="images are read from files")
pytest.importorskip("skimage", reason="structural similarity is scikit-image's")

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ["--network", "conv", "--features", "8", "--steps", "2"]
SMALL += ["--batch", "8", "--size", "16", "--learning-rate", "0.04"]


def _run(capsys, *arguments):
    return command.run(capsys, "restore", *arguments)


def waves(height, width, channels=1, seed=0):
    """A smooth image, quick to learn, as 8 bits hold it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 9
    values = [np.sin(a * x + b * y + c) for a, b, c in rng.uniform(0, 2, (channels, 3))]
    return evaluation.rounded((0.5 + 0.4 * np.stack(values, 2)).astype(np.float32).squeeze())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder of two gray images, one of a color image, and a network trained for a moment on each."""
    root, threads = tmp_path_factory.mktemp("restore"), torch.get_num_threads()
    for name, channels, count in (("gray", 1, 2), ("color", 3, 1)):
        (root / name).mkdir()
        for number in range(count):
            files.write(root / name / f"{number}.png", Picture(waves(40, 52, channels, number)))
        arguments = ["train", root / name, "--task", name, "--out", root / f"{name}_out", *SMALL]
        # From this seed it learns more, with a margin for what another order of sums makes of so short a training.
        arguments += ["--iterations", 160 if channels == 1 else 20, "--threads", 1, "--seed", 2]
        assert cli.main(["restore", *map(str, arguments)]) == 0
    torch.set_num_threads(threads)
    return root


@pytest.fixture
def weights(root):
    return ["--weights", root / "gray_out" / "checkpoint.pt"]


def test_an_image_is_denoised(capsys, root, weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = root / "gray" / "0.png"
    record = tmp_path / "done.json"
    options = [*weights, "--add-noise", 25, "--seed", 7, "--json", record]
    status, out, err = _run(capsys, source, *options)
    assert status == 0 and err == ""
    found = re.fullmatch(
        r"wrote 0_denoise.png: PSNR (\d+\.\d\d) dB with noise, (\d+\.\d\d) dB restored\n", out
    )
    assert float(found[2]) > float(found[1]) + 0.05
    noise = np.random.default_rng([7, 0]).standard_normal((40, 52))
    y = (waves(40, 52) + 25 / 255 * noise).astype(np.float32)
    model = recipe.load(root / "gray_out" / "checkpoint.pt")
    x = amstel.restore(y, sigma=25 / 255, model=model)
    np.testing.assert_array_equal(files.read(tmp_path / "0_denoise.png").pixels, evaluation.rounded(x))
    done = json.loads(record.read_text())
    assert done["task"] == "denoise" and len(done["images"]) == 1 and done["seconds"] > 0
    entry = done["images"][0]
    assert entry["output"] == "0_denoise.png" and (entry["width"], entry["height"]) == (52, 40)
    assert abs(entry["psnr"] - float(found[2])) < 0.006 and abs(entry["sigma"] - 25 / 255) < 1e-12
    # Nothing is overwritten, not even the record, unless asked for.
    before = (tmp_path / "0_denoise.png").stat().st_mtime_ns
    status, out, err = _run(capsys, source, *weights)
    assert status == 2 and out == "" and "0_denoise.png exists; --force overwrites it" in err
    status, out, err = _run(capsys, source, *options, "-o", "other.png")
    assert status == 2 and "done.json exists" in err and not Path("other.png").exists()
    assert _run(capsys, source, *options, "--force")[0] == 0
    assert (tmp_path / "0_denoise.png").stat().st_mtime_ns > before


def test_a_folder_is_denoised(capsys, root, weights, tmp_path):
    out = tmp_path / "new" / "out"
    status, said, err = _run(capsys, root / "gray", "--sigma", 15, *weights, "-o", out)
    assert status == 0 and err == "" and said == f"wrote {out / '0.png'}\nwrote {out / '1.png'}\n"
    model = recipe.load(root / "gray_out" / "checkpoint.pt")
    for number in range(2):
        x = amstel.restore(waves(40, 52, 1, number), sigma=15 / 255, model=model)
        np.testing.assert_array_equal(files.read(out / f"{number}.png").pixels, evaluation.rounded(x))


def test_gifs_in_a_folder_are_restored_and_other_files_are_named(capsys, root, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("a.tga", "notes.txt", ".hidden"):
        (source / name).write_bytes(b"")
    status, said, err = _run(capsys, source, "-o", out)
    assert status == 2 and not out.exists() and "got 2 files: a.tga, notes.txt" in err
    levels = np.rint(255 * waves(40, 52)).astype(np.uint8)
    Image.fromarray(levels).save(source / "b.gif")
    status, said, err = _run(
        capsys, source, "--sigma", 15, "--weights", root / "color_out" / "checkpoint.pt", "-o", out
    )
    assert status == 0 and said.splitlines()[-1] == f"wrote {out / 'b.png'}"
    found = [line for line in err.splitlines() if " ignored (" in line]
    assert len(found) == 1 and found[0].endswith(
        "2 files ignored (without the extension of an image): a.tga, notes.txt"
    )
    # A GIF holds gray as a palette, so as color.
    expected = files.read(source / "b.gif").pixels
    np.testing.assert_array_equal(np.rint(255 * expected), np.repeat(levels[..., None], 3, 2))
    np.testing.assert_array_equal(ImageFolder(source, "L")[0], levels)


def test_the_noise_is_estimated_and_said(capsys, root, weights, tmp_path):
    noise = np.random.default_rng(0).standard_normal((80, 104))
    for name, sigma, said in (("clean", 0, ", so little that it is left alone"), ("noisy", 12, "")):
        pixels = np.clip(0.5 + sigma / 255 * noise, 0, 1).astype(np.float32)
        files.write(tmp_path / f"{name}.png", Picture(pixels))
        out, record = tmp_path / f"{name}_out.png", tmp_path / f"{name}.json"
        for given in ([], ["--sigma", "auto", "--force"]):
            status, line, err = _run(
                capsys, tmp_path / f"{name}.png", *weights, "-o", out, "--json", record, *given
            )
            assert status == 0 and err == ""
            found = re.fullmatch(
                rf"wrote .*out\.png: sigma (\d+\.\d) estimated{said}\n", line.replace("\n ", " ")
            )
            assert found and abs(float(found[1]) - sigma) <= 0.15 * sigma
        entry = json.loads(record.read_text())["images"][0]
        assert entry["estimated"] and abs(255 * entry["sigma"] - sigma) <= 0.15 * sigma
    np.testing.assert_array_equal(files.read(tmp_path / "clean_out.png").pixels, np.float32(128 / 255))


def test_a_profile_is_handed_on(capsys, root, weights, tmp_path):
    files.write(
        tmp_path / "in.png",
        Picture(waves(40, 52), None, 8, {"icc_profile": b"display", "dpi": (300.0, 300.0)}),
    )
    assert _run(capsys, tmp_path / "in.png", *weights, "-o", tmp_path / "out.png")[0] == 0
    about = files.read(tmp_path / "out.png").about
    assert about["icc_profile"] == b"display" and abs(about["dpi"][0] - 300) < 0.1


def test_a_mask_of_zeros_and_ones(capsys, root, weights, tmp_path):
    """It looks black; it was taken as nothing known."""
    known = np.ones((40, 52), np.float32)
    known[10:16, 20:28] = 0
    files.write(tmp_path / "in.png", Picture(waves(40, 52)))
    for name, scale in (("white", 1), ("ones", 1 / 255), ("black", 0)):
        files.write(tmp_path / f"{name}.png", Picture(known * np.float32(scale)))
        out = tmp_path / f"{name}_out.png"
        status, _, err = _run(
            capsys,
            tmp_path / "in.png",
            "--task",
            "inpaint",
            "--mask",
            tmp_path / f"{name}.png",
            *weights,
            "-o",
            out,
        )
        assert (status, out.exists()) == ((2, False) if name == "black" else (0, True))
        assert "black all over" in err or name != "black"
    np.testing.assert_array_equal(
        files.read(tmp_path / "white_out.png").pixels, files.read(tmp_path / "ones_out.png").pixels
    )


def test_masks_of_other_kinds(tmp_path):
    """Two dark colors of a palette, and alpha, were taken as all known; .npy was refused."""
    from PIL import Image

    from amstel.apps.restoration.predict import read_mask

    known = np.ones((40, 52), np.uint8)
    known[10:16, 20:28] = 0
    dark = Image.fromarray(known).convert("P")
    dark.putpalette([10, 20, 30, 12, 25, 33])
    dark.save(tmp_path / "dark.png")
    Image.fromarray(np.dstack([np.full((40, 52, 3), 200, np.uint8), 255 * known])).save(
        tmp_path / "alpha.png"
    )
    np.save(tmp_path / "bool.npy", known > 0)
    np.save(tmp_path / "255.npy", 255.0 * known)
    for name in ("dark.png", "alpha.png", "bool.npy", "255.npy"):
        np.testing.assert_array_equal(read_mask(tmp_path / name), known > 0)
    np.save(tmp_path / "all.npy", np.ones((4, 5)))
    with pytest.warns(UserWarning, match=r"all\.npy is white all over"):
        assert read_mask(tmp_path / "all.npy").all()


def test_broken_links_in_a_folder_are_left_out_and_refused_where_they_are_named(capsys, weights, tmp_path):
    """Nothing of the folder was written; a link that was named did not exist, the error said."""
    (tmp_path / "in").mkdir()
    files.write(tmp_path / "in" / "a.png", Picture(waves(20, 26)))
    (tmp_path / "in" / "b.png").symlink_to("b.png")
    (tmp_path / "in" / "c.png").symlink_to("moved.png")
    status, _, err = _run(capsys, tmp_path / "in", *weights, "-o", tmp_path / "out")
    said = f"{tmp_path / 'in'}: 2 links ignored (broken): b.png, c.png"
    assert status == 0 and err.count(said) == err.count(" ignored (") == 1
    named = tmp_path / "in" / "c.png"
    for given in ([named], ["predict", named]):
        command.is_refused(capsys, ["restore", *given, *weights], f"{named} is a link to nothing")
    with pytest.raises(FileNotFoundError, match=r"c\.png is a link to nothing"):
        files.find(tmp_path / "in" / "c.png")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


def test_a_folder_is_not_written_over_itself(capsys, root, weights, tmp_path):
    (tmp_path / "sub.png").mkdir()  # a folder is no image, whatever its name
    files.write(tmp_path / "a.png", Picture(waves(20, 26)))
    before = (tmp_path / "a.png").read_bytes()
    status, _, err = _run(capsys, tmp_path, *weights, "-o", tmp_path, "--force")
    assert status == 2 and "-o must be another folder than the input" in err
    assert (tmp_path / "a.png").read_bytes() == before
    assert _run(capsys, tmp_path, *weights, "-o", tmp_path / "out")[0] == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


def test_a_huge_scale_is_refused_at_once(capsys, root, weights, tmp_path):
    files.write(tmp_path / "in.png", Picture(waves(40, 52)))
    status, _, err = _run(capsys, tmp_path / "in.png", "--task", "sr", "--scale", 1000, *weights)
    assert status == 2 and "from 2 to 16" in err


@pytest.mark.parametrize("bits", [8, 16])
def test_color_alpha_and_depth_are_kept(capsys, root, tmp_path, bits):
    if bits == 16:
        pytest.importorskip("cv2")
    alpha = (np.arange(40 * 52).reshape(40, 52) % 256 / 255).astype(np.float32)
    files.write(tmp_path / "in.png", Picture(waves(40, 52, 3), alpha, bits))
    model = ["--weights", root / "color_out" / "checkpoint.pt"]
    out = tmp_path / "out.png"
    status, _, err = _run(capsys, tmp_path / "in.png", *model, "-o", out)
    assert status == 0 and err == ""
    found = files.read(out)
    assert found.bits == bits and found.pixels.shape == (40, 52, 3)
    np.testing.assert_array_equal(found.alpha, files.read(tmp_path / "in.png").alpha)


def test_super_resolution_enlarges_alpha_too(capsys, tmp_path):
    files.write(tmp_path / "in.png", Picture(waves(20, 26, 3), np.ones((20, 26), np.float32)))
    out = tmp_path / "out.png"
    status, _, err = _run(capsys, tmp_path / "in.png", "--task", "sr", "--scale", 3, "-o", out)
    assert status == 0 and err == ""
    found = files.read(out)
    assert found.pixels.shape == (60, 78, 3) and (found.alpha == 1).all()


def test_inpainting(capsys, root, weights, tmp_path):
    known = np.ones((40, 52), np.float32)
    known[10:16, 20:28] = 0
    files.write(tmp_path / "mask.png", Picture(known))
    image = waves(40, 52)
    files.write(tmp_path / "in.png", Picture(image * known))
    out = tmp_path / "out.png"
    options = ["--task", "inpaint", "--mask", tmp_path / "mask.png", *weights, "-o", out]
    status, _, err = _run(capsys, tmp_path / "in.png", *options)
    assert status == 0 and err == ""
    hole = known == 0
    assert abs(files.read(out).pixels - image)[hole].mean() < 0.5 * image[hole].mean()
    files.write(tmp_path / "mask.png", Picture(known[1:]))
    status, _, err = _run(capsys, tmp_path / "in.png", *options, "--force")
    assert status == 2 and "mask.png has 52 x 39 pixels, but the image" in err and "52 x 40" in err


def test_deblurring(capsys, root, weights, tmp_path):
    kernel = np.zeros((4, 5), np.float32)
    kernel[:3, 1:4] = 1 / 9
    np.save(tmp_path / "k.npy", 2 * kernel)  # even sides, and not of sum 1
    files.write(tmp_path / "k.png", Picture(np.pad(kernel, ((0, 1), (0, 0)))))
    files.write(tmp_path / "in.png", Picture(waves(40, 52)))
    out, record = tmp_path / "out.png", tmp_path / "done.json"
    options = ["--task", "deblur", *weights, "-o", out, "--json", record, "--force", "--sigma", 6]
    found = []
    for given in (tmp_path / "k.npy", tmp_path / "k.png", "gaussian:0.8", "motion:3:45", "disk:1.2"):
        status, said, err = _run(capsys, tmp_path / "in.png", *options, "--kernel", given)
        assert status == 0 and err == "" and said == f"wrote {out}\n"
        found.append(files.read(out).pixels)
        entry = json.loads(record.read_text())["images"][0]
        assert entry["kernel"] == str(given) and entry["sigma"] == pytest.approx(6 / 255)
    np.testing.assert_array_equal(*found[:2])
    model = recipe.load(root / "gray_out" / "checkpoint.pt")
    x = amstel.restore(
        waves(40, 52), "deblur", kernel=amstel.inverse.disk_kernel(1.2), sigma=6 / 255, model=model
    )
    np.testing.assert_allclose(found[-1], x.clip(0, 1), atol=1.01 / 255)
    np.save(tmp_path / "bad.npy", np.zeros((3, 3)))
    for given, message in (
        (["--task", "deblur"], "--task deblur needs --kernel"),
        (["--kernel", "disk:1"], "--kernel is for --task deblur"),
        (["--task", "deblur", "--kernel", "motion"], "--kernel must be motion:LENGTH"),
        (["--task", "deblur", "--kernel", "nothing"], "--kernel must be a file, or gaussian:SIGMA"),
        (["--task", "deblur", "--kernel", tmp_path / "bad.npy"], "a sum > 0"),
    ):
        status, _, err = _run(capsys, tmp_path / "in.png", "-o", tmp_path / "new.png", *weights, *given)
        assert status == 2 and message in err and err.count("\n") == 1 and not (tmp_path / "new.png").exists()


def test_a_map_of_the_noise_from_a_file(capsys, weights, tmp_path):
    files.write(tmp_path / "in.png", Picture(waves(40, 52)))
    np.save(tmp_path / "s.npy", np.full((40, 52), 20))
    files.write(tmp_path / "s.png", Picture(np.full((40, 52), 20 / 255, np.float32)))
    found = []
    for given in (20, tmp_path / "s.npy", tmp_path / "s.png"):
        out = tmp_path / "out.png"
        status, _, err = _run(capsys, tmp_path / "in.png", *weights, "--sigma", given, "-o", out, "--force")
        assert status == 0 and err == ""
        found.append(files.read(out).pixels)
    assert abs(found[1] - found[0]).max() < 1.5 / 255 and abs(found[2] - found[0]).max() < 1.5 / 255
    np.save(tmp_path / "s.npy", np.zeros((40, 52)))
    status, _, err = _run(capsys, tmp_path / "in.png", "--sigma", tmp_path / "s.npy", "-o", out, "--force")
    assert status == 2 and "s.npy must hold sigma > 0 at every pixel [H, W], got 0\n" in err


def test_jpeg_is_warned_about(capsys, weights, tmp_path):
    files.write(tmp_path / "in.jpg", Picture(waves(40, 52)))
    status, _, err = _run(capsys, tmp_path / "in.jpg", *weights, "-o", tmp_path / "out.png")
    assert status == 0 and "warning" in err and "in.jpg is a JPEG file" in err and err.count("\n") == 1


def test_kspace(capsys, tmp_path):
    from amstel.data.mri import cartesian_mask, loop_sensitivities
    from amstel.inverse import MRI

    settings = recipe.Settings(task="mri", features=8, steps=2)
    model = recipe.network(settings)
    file = tmp_path / "checkpoint.pt"
    recipe.save(file, recipe.Checkpoint(model, settings, {}, 0, []))
    rng = np.random.default_rng(0)
    mask, maps = cartesian_mask(48, 3, 0.2, rng), loop_sensitivities(4, (40, 48), rng)
    image = torch.from_numpy(waves(40, 48)).to(torch.complex64)[None]
    kspace = MRI(mask, maps, centered=True)(image)[0]
    np.save(tmp_path / "kspace.npy", kspace)
    np.save(tmp_path / "mask.npy", mask)
    np.save(tmp_path / "maps.npy", maps)
    options = ["--task", "mri", "--mask", tmp_path / "mask.npy", "--weights", file]
    out, record = tmp_path / "out.png", tmp_path / "done.json"
    status, said, err = _run(capsys, tmp_path / "kspace.npy", *options, "-o", out, "--json", record)
    assert status == 0 and err == "" and f"wrote {out} and {tmp_path / 'out.npy'}" in said
    found = np.load(tmp_path / "out.npy")
    np.testing.assert_array_equal(found, amstel.restore(kspace.numpy(), "mri", mask=mask, model=model.eval()))
    magnitude = abs(found) / abs(found).max()
    np.testing.assert_array_equal(files.read(out).pixels, evaluation.rounded(magnitude))
    assert json.loads(record.read_text())["images"][0]["coils"] == 4
    given = ["--sensitivities", tmp_path / "maps.npy", "-o", tmp_path / "given.png"]
    assert _run(capsys, tmp_path / "kspace.npy", *options, *given)[0] == 0
    assert abs(np.load(tmp_path / "given.npy") - found).max() > 0
    (tmp_path / "out.png").unlink()  # the numbers are there yet
    status, _, err = _run(capsys, tmp_path / "kspace.npy", *options, "-o", out)
    assert status == 2 and "out.npy exists" in err
    np.save(tmp_path / "flat.npy", kspace.reshape(-1))
    np.save(tmp_path / "real.npy", kspace.abs())
    np.save(tmp_path / "narrow.npy", mask[1:])
    for arguments, message in (
        ([tmp_path / "flat.npy", *options], "flat.npy must hold complex k-space [H, W]"),
        ([tmp_path / "real.npy", *options], "real.npy must hold complex k-space"),
        (
            [tmp_path / "kspace.npy", *options, "--mask", tmp_path / "narrow.npy", "-o", tmp_path / "n.png"],
            "--mask",
        ),
        (
            [tmp_path / "kspace.npy", *options, "--slice", 1, "-o", tmp_path / "n.png"],
            "--slice must be at most 0",
        ),
        ([tmp_path / "flat.npy", "--slice", 1], "--slice is for --task mri"),
    ):
        status, said, err = _run(capsys, *arguments)
        assert status == 2 and said == "" and message in err and err.count("\n") == 1, (arguments, err)


@pytest.mark.parametrize("whole_columns", [True, False])
@pytest.mark.parametrize("held", [True, False], ids=["mask", "zeros"])
def test_a_mask_names_no_samples_that_were_not_measured(capsys, tmp_path, whole_columns, held):
    """As in partial Fourier: the file says, or shows, that its first columns are empty."""
    from amstel.data.mri import cartesian_mask, loop_sensitivities
    from amstel.inverse import MRI

    rng = np.random.default_rng(0)
    there, maps = torch.arange(48) >= 12, loop_sensitivities(4, (40, 48), rng)
    image = torch.from_numpy(waves(40, 48)).to(torch.complex64)[None]
    kspace = MRI(there, maps, centered=True)(image)[0].numpy()
    given = cartesian_mask(48, 2, 0.2, rng) if whole_columns else torch.from_numpy(rng.random((40, 48)) < 0.6)
    given[..., [2, 7, *range(19, 29)]] = True  # the last for the sensitivities
    source = tmp_path / ("kspace.npz" if held else "kspace.npy")
    np.savez(source, kspace=kspace, mask=there) if held else np.save(source, kspace)
    np.save(tmp_path / "mask.npy", given)
    np.save(tmp_path / "none.npy", ~there)
    record = tmp_path / "done.json"
    options = [source, "--task", "mri", "-o", tmp_path / "out.png", "--json", record]
    status, _, err = _run(capsys, *options, "--mask", tmp_path / "mask.npy")
    missing = (given & ~there).double().mean().item()
    assert (
        status == 0
        and f"kspace.{source.suffix[1:]} does not have, which are left out: {missing:.1%} of k-space" in err
    )
    mask = (given & there).numpy()
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), amstel.restore(kspace, "mri", mask=mask))
    assert json.loads(record.read_text())["images"][0]["sampled"] == pytest.approx(mask.mean())
    status, _, err = _run(capsys, *options, "--mask", tmp_path / "none.npy", "--force")
    assert status == 2 and "none.npy must select samples that" in err


def test_a_scan_of_slices(capsys, tmp_path):
    """fastMRI's file says what was sampled and how large the image is; slices lie side by side in the picture."""
    h5py = pytest.importorskip("h5py")
    from amstel.data.mri import cartesian_mask, loop_sensitivities
    from amstel.inverse import MRI
    from tests.test_mri_scans import header

    rng = np.random.default_rng(0)
    mask, maps = cartesian_mask(48, 3, 0.2, rng), loop_sensitivities(4, (80, 48), rng)
    images = torch.zeros(3, 80, 48, dtype=torch.complex64)
    for number in range(2):  # the third slice is empty
        images[number, 20:60] = torch.from_numpy(waves(40, 48, 1, number))
    kspace = MRI(mask, maps, centered=True)(images)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["kspace"], file["mask"] = kspace.numpy(), mask.numpy()
        file["ismrmrd_header"] = header((80, 48, 1), (40, 40, 1))
    out, record = tmp_path / "out.png", tmp_path / "done.json"
    status, said, err = _run(capsys, tmp_path / "scan.h5", "--task", "mri", "-o", out, "--json", record)
    assert status == 0 and err == "" and said.startswith("3 slices, 4 coils, 33.3% of k-space sampled\n")
    x = np.load(tmp_path / "out.npy")
    assert x.shape == (3, 40, 40) and x.dtype == np.complex64 and not x[2].any()
    from amstel.reference.mri import fft2, ifft2

    smaller = fft2(ifft2(kspace, centered=True)[..., 20:60, :], centered=True)[:1]
    expected = amstel.restore(smaller, "mri", mask=mask)[..., 4:44].numpy()
    np.testing.assert_allclose(x[:1], expected, atol=1e-4)
    assert files.read(out).pixels.shape == (80, 80)
    assert json.loads(record.read_text())["images"][0]["slices"] == 3
    one = ["--task", "mri", "--slice", 1, "-o", tmp_path / "one.png"]
    assert _run(capsys, tmp_path / "scan.h5", *one)[0] == 0
    np.testing.assert_allclose(np.load(tmp_path / "one.npy"), x[1], atol=1e-5)


def test_evaluation(capsys, root, weights, tmp_path):
    record = tmp_path / "scores.json"
    options = ["eval", "--root", root / "gray", *weights, "--json", record]
    status, out, err = _run(capsys, *options, "--sigma", 15, 25, "--seeds", 2)
    assert status == 0 and err == ""
    assert (
        re.search(r"^ +15 +2\d\.\d\d( +\d\d\.\d\d){2} +0\.\d{4}$", out, re.M) and "2 images, 2 seeds" in out
    )
    scores = json.loads(record.read_text())
    assert scores["task"] == "denoise" and [row["sigma"] for row in scores["rows"]] == [15, 25]
    assert all(row["psnr"] > row["noisy"] + 0.1 for row in scores["rows"])
    status, _, err = _run(capsys, *options)
    assert status == 2 and "scores.json exists" in err
    status, _, err = _run(capsys, *options, "--task", "sr", "--scale", 2, "--force")
    assert status == 2 and "--weights must be a network for the task sr (sr, 3task), got one for" in err
    assert err.endswith("without --weights, the best of them is taken\n")
    options[3:5] = []
    status, out, err = _run(capsys, *options, "--task", "sr", "--scale", 2, "--force")
    assert status == 0 and err == ""
    assert re.search(r"^ +2( +\d\d\.\d\d +[01]\.\d{4}| +\d\d\.\d\d){3}$", out, re.M) and "2 images" in out
    assert json.loads(record.read_text())["rows"][0]["bicubic"]["ssim"] > 0.5


def test_evaluation_of_own_pairs(capsys, root, weights, tmp_path):
    rng, record = np.random.default_rng(0), tmp_path / "scores.json"
    for name in ("clean", "noisy"):
        (tmp_path / name).mkdir()
    for number in range(2):
        clean = waves(40, 52, 1, number)
        files.write(tmp_path / "clean" / f"{number}.png", Picture(clean))
        noisy = clean + 20 / 255 * rng.standard_normal(clean.shape).astype(np.float32)
        files.write(tmp_path / "noisy" / f"{number}.tif", Picture(noisy))
    pair = ["evaluate", "--data", tmp_path / "noisy", "--clean", tmp_path / "clean", *weights]
    status, out, err = _run(capsys, *pair, "--sigma", 20, "--json", record)
    assert (
        status == 0
        and err == ""
        and re.search(r"^ 20\.0( +\d\d\.\d\d +0\.\d{4}| +\d\d\.\d\d){3}$", out, re.M)
    )
    row = json.loads(record.read_text())["rows"][0]
    assert row["images"] == 2 and row["psnr"] > row["before"]["psnr"] and row["psnr_se"] >= 0
    y, x = (files.read(tmp_path / name).pixels for name in ("noisy/0.tif", "clean/0.png"))
    other = files.read(tmp_path / "noisy/1.tif").pixels, files.read(tmp_path / "clean/1.png").pixels
    expected = np.mean([evaluation.psnr(y, x), evaluation.psnr(*other)])
    assert row["before"]["psnr"] == pytest.approx(expected)
    status, out, _ = _run(capsys, *pair)
    assert status == 0 and "sigma estimated" in out
    # Of one file the partner is the one of its name, not the first.
    one = ["evaluate", "--data", tmp_path / "noisy/1.tif", "--clean", tmp_path / "clean", *weights]
    assert _run(capsys, *one, "--json", record, "--force")[0] == 0
    row = json.loads(record.read_text())["rows"][0]
    assert row["before"]["psnr"] == pytest.approx(evaluation.psnr(*other))
    (tmp_path / "clean" / "1.png").unlink()
    status, _, err = _run(capsys, *pair)
    assert status == 2 and "must hold an image for each of" in err
    for more, message in (
        (["--quantized"], "--clean uses the images as they are"),
        (["--table", "talk"], "does not take --clean"),
    ):
        status, _, err = _run(capsys, *pair, *more)
        assert status == 2 and message in err


def test_tables_of_the_talk(capsys, tmp_path):
    for name, channels in (("bsd68", 1), ("cbsd68", 3)):
        (tmp_path / name).mkdir()
        for number in range(2):
            files.write(tmp_path / name / f"{number}.png", Picture(waves(24, 36, channels, number)))
    record = tmp_path / "talk.json"
    status, out, err = _run(capsys, "evaluate", "--table", "talk", "--data", tmp_path, "--json", record)
    assert status == 0 and err == ""
    assert re.search(r"sigma 25  quantized  \d\d\.\d\d ± \d\.\d\d$", out, re.M)
    assert re.search(r"x3  \d\d\.\d\d ± \d+\.\d\d +0\.\d{4} ± 0\.\d{4} +\d\d\.\d\d 0\.\d{4}$", out, re.M)
    rows = json.loads(record.read_text())["rows"]
    assert not any(row["published"] for row in rows)  # of two images none is published
    assert "published figures of super-resolution are of the 100 images of bsd300_test only" in out
    assert {row["folder"] for row in rows} == {"bsd68", "cbsd68"}
    plain = [row for row in rows if row["table"] == "gray" and row["method"] == "amstel"]
    assert [(row["sigma"], row["quantized"]) for row in plain] == [
        (s, q) for q in (False, True) for s in (15, 25, 50)
    ]
    # What is lost without what makes it recurrent: never trained without, the network loses much.
    for name in ("without the estimate", "without state"):
        less = [row for row in rows if row["method"] == f"{name}, zeroed, not retrained"]
        assert len(less) == 6 and less[1]["psnr"] < plain[1]["psnr"]
    scores = evaluation.denoising(tmp_path / "bsd68", (50,), 1, quantized=True)[0]
    assert (
        scores["psnr"] == pytest.approx(plain[5]["psnr"], abs=1e-4) and plain[5]["noisy"] > plain[2]["noisy"]
    )
    assert scores["psnr_se"] == pytest.approx(plain[5]["psnr_se"], abs=1e-4)
    # A folder of images, of which some are in color: gray by their luma, color as they are.
    status, out, _ = _run(capsys, "evaluate", "--table", "talk", "--data", tmp_path / "cbsd68")
    assert status == 0 and "gray denoising: cbsd68, 2 images" in out and "color denoising" in out
    status, _, err = _run(capsys, "evaluate", "--table", "talk", "--data", tmp_path, "--sigma", 15)
    assert status == 2 and "--table talk has its own tasks and noise; it does not take --sigma" in err


def test_published_figures_stand_beside_what_they_were_published_for():
    """They were repeated on the rows of other networks and beside other images."""
    scores = {"psnr": 30.0, "psnr_se": 0.25, "ssim": 0.9, "ssim_se": 0.01}
    gray = {
        **scores,
        "table": "gray",
        "folder": "BSD68",
        "images": 68,
        "method": "amstel",
        "quantized": False,
    }
    assert talk._published(gray) and not talk._published({**gray, "images": 67})
    assert not talk._published({**gray, "folder": "cbsd68"})
    assert "RIM-3task" not in talk.GRAY["amstel", False]
    assert list(talk.GRAY["one network for three tasks", False]) == ["RIM-3task"]
    assert not any("without" in method for method, _ in talk.GRAY)
    rows = [{**gray, "sigma": 15, "published": {"RIM": 31.31, "DnCNN": 31.72}}]
    rows += [{**gray, "sigma": 15, "published": {}, "method": "without state, zeroed, not retrained"}]
    larger = {**scores, "bicubic": scores, "scale": 2, "table": "sr", "folder": "bsd300_test", "images": 100}
    rows += [{**larger, "method": "amstel", "published": {"RIM": 31.39}, "published_ssim": {"RIM": 0.8885}}]
    lines = talk.text(rows).splitlines()
    assert max(map(len, lines)) <= 80
    assert "  sigma 15  as it is   30.00 ± 0.25  RIM 31.31, DnCNN 31.72" in lines
    assert lines[lines.index("  without state, zeroed, not retrained:") + 1].endswith("30.00 ± 0.25")
    assert "  x2  30.00 ± 0.25  0.9000 ± 0.0100  30.00 0.9000  RIM 31.39 0.8885" in lines
    for name in ("RIM", "DnCNN"):
        assert any(line.startswith(f"published: {name}: ") for line in lines)


def test_convergence_over_the_steps(capsys, tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(2):
        files.write(tmp_path / "in" / f"{number}.png", Picture(waves(66, 70, 1, number)))
    given = ["evaluate", "--table", "convergence", "--data", tmp_path / "in"]
    record, figure = tmp_path / "a.json", tmp_path / "a.png"
    status, out, err = _run(capsys, *given, "--json", record, "--plot", figure)
    assert (
        status == 0
        and err == ""
        and re.search(
            r"^projection P/N = 0\.3:\n  plug-and-play .*\n.*\n  total variation( +\d+\.\d\d){10}\n( +\d+\.\d\d){5}$",
            out,
            re.M,
        )
    )
    assert max(map(len, out.splitlines())) <= 90 and out.endswith(f"wrote {figure}\n")
    assert "A step of plug-and-play removes about P/N of the error" in out
    rows = json.loads(record.read_text())["rows"]
    assert len(rows) == 14 and files.read(figure).pixels.shape[1] > 1300
    for task in ("denoise", "super-resolve x3", "projection P/N = 0.5"):
        ours, tv = (row["psnr"] for row in rows if row["task"] == task)
        assert len(ours) == len(tv) and (task != "denoise" or ours[-1] > tv[-1])
    noise = 20 * np.log10(255 / 25)
    assert rows[0]["psnr"][-1] > noise + 6 and rows[-2]["psnr"][-1] > rows[-2]["psnr"][0] + 3
    status, _, err = _run(capsys, "evaluate", "--data", tmp_path / "in", "--plot", tmp_path / "b.png")
    assert status == 2 and "--plot is for --table convergence" in err


def test_a_method_has_one_color_in_all_panels(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *a, **k: drawn.append(figure) or save(figure, *a, **k)
    )
    pairs = (("a", "RIM"), ("a", "total variation"), ("b", "plug-and-play"), ("b", "total variation"))
    rows = [{"task": task, "method": method, "psnr": [20.0, 21.0]} for task, method in pairs]
    convergence.draw(rows, tmp_path / "a.png")
    (figure,) = drawn
    lines = [line for axes in figure.axes for line in axes.lines]
    assert len({(line.get_label(), line.get_color()) for line in lines}) == 3
    assert len({line.get_color() for line in figure.legends[0].get_lines()}) == 3


def test_classical_methods_beside_ours(capsys, tmp_path, monkeypatch):
    for name, some in {"BLOCKS": (12,), "SIGMAS": (2.55,), "RATIOS": (0.1, 0.5), "STEPS": 20}.items():
        monkeypatch.setattr(classical, name, some)  # all of them take long
    (tmp_path / "in").mkdir()
    for number, shape in enumerate([(60, 70), (61, 60)]):
        files.write(tmp_path / "in" / f"{number}.png", Picture(waves(*shape, 1, number)))
    given, record = ["evaluate", "--table", "classical", "--data", tmp_path / "in"], tmp_path / "a.json"
    status, out, _ = _run(capsys, *given, "--json", record)
    assert status == 0 and "projection: plug-and-play with 20 steps from P / N = 0.25 on" in out
    assert re.search(
        r"^inpaint +blocks of 12 pixels +\d+\.\d\d ± \d+\.\d\d  \(biharmonic \d+\.\d\d\)$", out, re.M
    )
    found = json.loads(record.read_text())
    assert re.fullmatch(r"rim_\w+, sha256 [0-9a-f]{12}", found["weights"]) and found["weights"] in out
    rows = found["rows"]
    assert [row["task"] for row in rows] == ["inpaint"] * 4 + ["deblur"] * 2 + ["projection"] * 2
    assert {row["side"] for row in rows} == {48, 50, 32} and {row["images"] for row in rows} == {2}
    assert len(rows) == classical.count()
    scores = {row["problem"]: (row["psnr"], row["classical"]) for row in rows}
    # Waves are smooth: both sides find them again where little is lost, and more measurements are better.
    assert min(scores["50% at random"]) > 30 and min(scores["motion of 13 pixels, sigma 2.55"]) > 25
    assert all(a > b for a, b in zip(scores["P / N = 0.5"], scores["P / N = 0.1"], strict=True))
    status, _, err = _run(capsys, *given, "--seeds", 2)
    assert status == 2 and "--seeds is not for --table classical" in err
    files.write(tmp_path / "in" / "2.png", Picture(waves(59, 80, 1, 2)))
    status, _, err = _run(capsys, *given)
    assert status == 2 and "2.png must have at least 60 x 60 pixels, got 80 x 59" in err


def test_holes_of_the_classical_table():
    for side in (48, 100, 144):
        lost = {name: 1 - known.mean().item() for name, known in classical.masks(side).items()}
        assert abs(lost["50% at random"] - 0.5) < 0.03 and abs(lost["80% at random"] - 0.8) < 0.03
        for block in classical.BLOCKS:
            count = max(1, side // (3 * block)) ** 2
            assert lost[f"blocks of {block} pixels"] == pytest.approx(count * block**2 / side**2)


@pytest.mark.parametrize("task", ["gray", "sr"])
def test_training_is_resumed(capsys, root, tmp_path, task):
    from PIL import Image

    arguments = ["train", root / "gray", "--out", tmp_path / "out"]
    small = ["--features", 4, "--steps", 2, "--batch", 2, "--size", 12, "--task", task]
    status, said, err = _run(capsys, *arguments, *small, "--iterations", 50)
    assert status == 0 and err == ""
    assert re.match(r"50 batches: loss \S+, PSNR \d+\.\d\d dB\nwrote .*checkpoint.pt\n", said)
    status, _, err = _run(capsys, *arguments, *small, "--iterations", 50)
    assert status == 2 and "checkpoint.pt exists; --force" in err
    status, said, err = _run(capsys, *arguments, "--resume", "--iterations", 60)
    assert status == 0 and err == "" and said.startswith("60 batches")
    checkpoint = tmp_path / "out" / "checkpoint.pt"
    assert recipe.read(checkpoint).iteration == 60
    # It claimed 50 batches, and wrote so into the checkpoint.
    before = checkpoint.read_bytes()
    status, said, err = _run(capsys, *arguments, "--resume", "--iterations", 50)
    assert (
        status == 2
        and said == ""
        and "--iterations must be at least 60, which the run has already done" in err
    )
    assert checkpoint.read_bytes() == before
    arguments[1] = tmp_path / "others"
    arguments[1].mkdir()
    for number in range(3):
        shade = np.full((40, 40), 50 * number, np.uint8)
        Image.fromarray(shade).save(arguments[1] / f"{number}.png")
    status, _, err = _run(capsys, *arguments, "--resume", "--iterations", 70)
    assert (
        status == 2 and "ROOT must be that of the run in" in err and "got 3, of which 0 are among them" in err
    )
    arguments[1] = root / "gray"
    status, said, err = _run(capsys, *arguments, "--resume")
    assert status == 0 and "nothing to do: the run was already complete" in said and "wrote" not in said


def test_a_training_that_diverges_keeps_the_last_checkpoint(capsys, root, tmp_path):
    """It wrote weights of NaN over it, and a network of those wrote black pictures."""
    arguments = ["train", root / "gray", "--out", tmp_path, *SMALL[:-1]]
    assert _run(capsys, *arguments, 0.01, "--iterations", 1)[0] == 0
    checkpoint = tmp_path / "checkpoint.pt"
    before = checkpoint.read_bytes()
    status, _, err = _run(capsys, *arguments, 1e30, "--iterations", 50, "--force")
    assert status == 2 and "training diverged" in err and "--learning-rate must be smaller" in err
    assert checkpoint.read_bytes() == before
    state = torch.load(checkpoint, weights_only=True)
    state["model"] = {name: value * float("nan") for name, value in state["model"].items()}
    torch.save(state, checkpoint)
    out = tmp_path / "out.png"
    status, _, err = _run(capsys, root / "gray" / "0.png", "--weights", checkpoint, "--sigma", 20, "-o", out)
    assert status == 2 and "the weights in" in err and "are not finite" in err and not out.exists()


def test_evaluation_says_what_to_do_with_gray_weights_and_color(capsys, root, weights, tmp_path):
    """As `restore` does, and of every file by the name of the option."""
    for source, name in (("color", "a.png"), ("color", "b.png"), ("gray", "c.png")):
        shutil.copy(root / source / "0.png", tmp_path / name)
    status, out, err = _run(capsys, "evaluate", "--root", tmp_path, *weights, "--sigma", 25)
    said = "--weights must be a network of 3 channels, got one of 1, which is for gray images: make the images gray, "
    assert status == 1 and "1 image, 3 seeds" in out and "`model`" not in err
    assert err.count(said + 'or use one for color images, such as "color"') == 2


def test_bad_input_is_one_line_and_status_2(capsys, root, weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "double").mkdir()
    files.write("double/a.png", Picture(waves(8, 8)))
    files.write("double/a.bmp", Picture(waves(8, 8)))
    files.write("alpha.png", Picture(waves(8, 8), np.ones((8, 8), np.float32)))
    Path("broken.png").write_bytes(b"\x89PNG nothing of the kind")
    Path("other.pt").write_bytes(b"not a checkpoint")
    files.write("small.png", Picture(waves(10, 12)))
    np.save("small.npy", np.ones((2, 10, 12), np.complex64))
    (tmp_path / "mixed").mkdir()
    files.write("mixed/a.png", Picture(waves(8, 8)))
    Path("mixed/b.png").write_bytes(b"nothing of the kind")
    image, color = root / "gray" / "0.png", root / "color" / "0.png"
    eval_, train = ["eval", "--root", root / "gray"], ["train", root / "gray", "--out", tmp_path / "out"]
    before = sorted(tmp_path.rglob("*"))
    for arguments, message in (
        ([], "COMMAND is missing"),
        (["nowhere.png"], "nowhere.png is neither a file that exists nor one of predict, evaluate, train"),
        (["empty"], "empty must hold at least one image"),
        (["broken.png", *weights], "broken.png is not an image that can be read"),
        (["double", *weights], "double holds more than one image with the name a"),
        ([image, "--sigma", "0"], "--sigma should be a number > 0, got 0"),
        ([image, "--sigma", "-3"], "--sigma"),
        ([image, "--sigma", "nan"], "--sigma should be a number > 0, got nan"),
        ([image, "--add-noise", "x"], "--add-noise should be a number > 0"),
        ([image, "--task", "sr", "--scale", "1"], "--scale should be an integer from 2 to 16, got 1"),
        ([image, "--task", "blur"], "--task should be one of denoise"),
        ([image, "--scale", "2"], "--scale is for --task sr"),
        ([image, "--task", "sr", "--sigma", "2"], "--sigma is for --task denoise and inpaint"),
        ([image, "--mask", image], "--mask is for --task inpaint and mri"),
        ([image, "--task", "inpaint"], "--task inpaint needs --mask FILE"),
        ([image, "--task", "inpaint", "--mask", "nowhere.png", *weights], "nowhere.png does not exist"),
        ([image, *weights, "-o", "/nowhere/out.png"], "cannot write"),
        ([image, *weights, "-o", "out.gif"], "out.gif must end in one of .png"),
        (["alpha.png", *weights, "-o", "out.jpg"], "alpha channel"),
        ([root / "gray", *weights, "-o", "alpha.png"], "must be a folder"),
        (
            [color, *weights],
            "network of 3 channels, got one of 1, which is for gray images: make the images gray",
        ),
        ([image, "--weights", "nowhere.pt"], "nowhere.pt does not exist"),
        ([image, "--weights", "other.pt"], "other.pt is not a checkpoint"),
        ([image, "--device", "abacus"], "no device abacus"),
        ([image, "--steps", "0"], "--steps should be an integer >= 1, got 0"),
        ([image, *weights, "--seed", "0"], "--seed needs --add-noise"),
        ([image, "--json", "/nowhere/x.json"], "cannot write"),
        (["eval"], "--root"),
        (["eval", "--root", "nowhere"], "nowhere does not exist"),
        (["eval", "--root", "empty"], "empty must hold at least one image"),
        (["eval", "--root", "empty", "--task", "mri"], "empty must hold at least one file of k-space"),
        ([*eval_, "--scale", "2"], "--scale is for --task sr"),
        ([*eval_, "--task", "sr", "--seeds", "2"], "--seeds is for --task denoise and mri"),
        (
            [*eval_, "--seed", "1"],
            "--seed is for --table convergence and classical; --seeds N takes 0 to N - 1",
        ),
        ([*eval_, "--task", "sr", "--seed", "0"], "--seed is for --table convergence and classical"),
        ([*eval_, "--table", "talk", "--seed", "1"], "--seed is for --table convergence and classical"),
        (
            ["eval", "--root", "small.npy", "--task", "mri", "--mask", "small.npy", "--seeds", "2"],
            "--seeds is for masks that are drawn; it is not for --mask",
        ),
        ([*eval_, "--task", "inpaint"], "--task should be one of denoise, sr, mri"),
        (
            ["eval", "--root", "small.png", *weights],
            "small.png must have at least 11 x 11 pixels to be scored, got 12 x 10",
        ),
        (
            ["eval", "--root", "small.png", "--clean", "small.png", *weights],
            "small.png must have at least 11 x 11",
        ),
        (
            ["eval", "--root", "small.png", "--task", "sr"],
            "small.png must have at least 20 x 20 pixels to be scored",
        ),
        (
            ["eval", "--root", "small.npy", "--task", "mri"],
            "small.npy must have at least 11 x 11 pixels to be scored",
        ),
        (["train", root / "gray"], "--out"),
        (["train", "nowhere", "--out", "out"], "nowhere does not exist"),
        (["train", "empty", "--out", "out"], "empty"),
        ([*train, "--resume"], "does not exist"),
        ([*train, "--size", "64"], "--size must fit into the 40 pixels"),
        ([*train, "--task", "sr", "--sigma", "3", "4"], "--sigma is for --task gray and color and 3task"),
        ([*train, "--task", "mri", "--sigma", "3", "4"], "--sigma is for --task gray and color and 3task"),
        ([*train, "--task", "sr", "--network", "unet", "--drawn", "0.1"], "--drawn is for --task gray"),
        ([*train, "--network", "conv", "--rounded", "0"], "--rounded is for --network unet"),
        ([*train, "--network", "conv", "--fixed-size"], "--fixed-size is for --network unet"),
        ([*train, "--learning-rate", "-1"], "--learning-rate should be a number >= 0, got -1"),
        ([*train, "--weights", "other.pt"], "other.pt is not a checkpoint"),
    ):
        command.is_refused(capsys, ["restore", *arguments], message)
    made = set(tmp_path.rglob("*")) - set(before) - {tmp_path / "out"}
    assert not [path for path in made if path.is_file()], made


def test_help(capsys):
    for action in ([], ["train"], ["eval"]):
        status, out, _ = _run(capsys, *action, "--help")
        assert status == 0 and out.startswith(" ".join(["Usage: amstel restore", *action]))


def test_demo(capsys, tmp_path):
    demo.run(Show(tmp_path))
    out = capsys.readouterr().out
    for name in ("denoise", "sr", "mri"):
        assert f"wrote {tmp_path / f'rim_{name}.png'}" in out
        assert files.read(tmp_path / f"rim_{name}.png").pixels.shape[1] > 600
    first, *steps = (float(n) for n in re.findall(r"\d+\.\d\b", out.splitlines()[0]))
    assert len(steps) >= 2 and steps[-1] > first + 10


def test_example(tmp_path):
    example = Path(__file__).parent.parent / "examples" / "restore.py"
    assert len(example.read_text().splitlines()) < 80
    file = tmp_path / "restored.png"
    done = subprocess.run(
        [sys.executable, str(example), str(file)], capture_output=True, text=True, check=True
    )
    assert f"wrote {file}" in done.stdout and files.read(file).pixels.ndim == 3


@pytest.mark.parametrize("name", ["mask", "kernel", "sigma"])
def test_nothing_that_is_read_is_written_over(capsys, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    files.write(Path("in.png"), Picture(waves(20, 24, 1, 0)))
    given = {"mask": np.ones((20, 24)), "kernel": np.ones((3, 3)) / 9, "sigma": np.full((20, 24), 10 / 255)}[
        name
    ]
    files.write(Path("given.png"), Picture(given.astype(np.float32)))
    Path("link.png").symlink_to("given.png")
    before = Path("given.png").read_bytes()
    task = {"mask": "inpaint", "kernel": "deblur", "sigma": "denoise"}[name]
    for target in ("given.png", "link.png"):
        options = ["--task", task, f"--{name}", "given.png", "--output", target, "--force"]
        status, _, err = _run(capsys, "in.png", *options)
        assert status == 2 and "must be another file than the input" in err
        assert Path("given.png").read_bytes() == before
    status, _, err = _run(capsys, "in.png", "--output", "new.png", "--json", "new.png")
    assert status == 2 and "must be another file" in err and not Path("new.png").exists()


def test_bundled_weights_by_name(tmp_path, capsys, root):
    image, out = next(iter(sorted((root / "gray").iterdir()))), tmp_path / "out.png"
    assert cli.main(["restore", str(image), "--sigma", "15", "--weights", "3task", "-o", str(out)]) == 0
    assert out.is_file() and f"wrote {out}" in capsys.readouterr().out


def test_two_clean_images_of_one_name_are_refused(capsys, root, weights, tmp_path):
    """One of them was compared with, whichever came last."""
    from PIL import Image

    noisy, clean = tmp_path / "noisy", tmp_path / "clean"
    shutil.copytree(root / "gray", noisy)
    shutil.copytree(root / "gray", clean)
    Image.open(clean / "0.png").rotate(90, expand=True).save(clean / "0.tif")
    arguments = ["restore", "evaluate", "--data", noisy, "--clean", clean, "--sigma", 20]
    command.is_refused(capsys, arguments, "must hold one image for")
