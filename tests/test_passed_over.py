"""Files in a folder that a command passes over: said once, how many and the first names, by every reader of folders."""

import shutil
import warnings

import numpy as np
import pytest
import torch

from amstel import video
from amstel.apps.restoration import mri
from amstel.apps.tracking import folders
from amstel.apps.video import predict
from amstel.data import ClipFolder, ImageFolder, StillPairs, generate_moving_shapes
from amstel.data.mri import CoilImages
from amstel.media.formats import stills
from tests import command

Image = pytest.importorskip("PIL.Image", reason="images are read from files")


def _picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def clips(tmp_path):
    """Two classes of a strip and of a folder of frames, with other files beside both and a video beside the classes."""
    root = tmp_path / "clips"
    for clip in generate_moving_shapes(4, frames=4, size=32, classes=2):
        folder = root / clip.name.split("_")[0]
        folder.mkdir(parents=True, exist_ok=True)
        video.write(folder / f"{clip.name}.png", clip.frames)
    first = sorted(root.iterdir())[0]
    for number in range(3):
        _picture(first / "frames" / f"{number}.png")
    (first / "frames" / "notes.doc").write_text("x")
    (first / "clip.xyz").write_text("x")
    (first / ".hidden").write_text("x")
    (root / "readme.txt").write_text("no clip by its name")
    shutil.copy(first / "frames" / "0.png", root / "lost.png")
    return root


def _said(make):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        make()
    return [str(one.message) for one in said if " ignored (" in str(one.message)]


def test_a_folder_of_clips_names_what_is_none(capsys, clips, tmp_path):
    (message,) = _said(ClipFolder(clips).check)
    first = sorted(p for p in clips.iterdir() if p.is_dir())[0].name
    names = f"lost.png, {first}/frames/notes.doc, {first}/clip.xyz"
    assert message == (f"{clips}: 3 files ignored (neither a clip of a class nor a frame of one): {names}")
    small = ["--frame-size", 32, "--hidden", 4, "--steps", 3, "--motion", "difference", "--epochs", 1]
    status, _, err = command.run(capsys, "video", "train", clips, "--out", tmp_path / "out", *small)
    assert status == 0 and err.count(" ignored (") == 1 and "clip.xyz" in err
    status, _, err = command.run(capsys, "video", "evaluate", tmp_path / "out" / "checkpoint.pt", clips)
    assert status == 0 and err.count(" ignored (") == 1
    frames = clips / first / "frames"
    given = [tmp_path / "out" / "checkpoint.pt", frames, "-o", tmp_path / "a.gif"]
    status, _, err = command.run(capsys, "video", "predict", *given)
    assert status == 0 and f"{frames}: 1 file ignored (not a frame): notes.doc" in err


def test_a_folder_of_images_names_what_is_none(tmp_path):
    _picture(tmp_path / "in" / "0.png")
    _picture(tmp_path / "in" / "deeper" / "1.png")
    (tmp_path / "in" / "raw.dng").write_text("x")
    (tmp_path / "in" / "deeper" / "notes.doc").write_text("x")
    expected = f"{tmp_path / 'in'}: 1 file ignored (without the extension of an image): raw.dng"
    deeper = f"{tmp_path / 'in'}: 1 folder ignored (only files are read): deeper"
    assert _said(lambda: ImageFolder(tmp_path / "in")) == [deeper, expected]
    assert _said(lambda: StillPairs([tmp_path / "in"])) == [deeper, expected]
    np.save(tmp_path / "magnitudes.npy", np.ones((2, 32, 32), np.float32))
    made = _said(lambda: CoilImages(tmp_path / "magnitudes.npy", 32, photographs=tmp_path / "in"))
    assert made == [expected.replace("1 file", "2 files") + ", deeper/notes.doc"]


def test_a_folder_without_an_image_says_what_is_there(tmp_path):
    """Of folders of images, and of other files, the error said nothing."""
    _picture(tmp_path / "deeper" / "1.png")
    (tmp_path / "raw.dng").write_text("x")
    for read, argument in ((ImageFolder, "root"), (lambda root: StillPairs([root]), "images")):
        message = rf"^`{argument}`: {tmp_path} must hold at least one image \(.*\), got 1 file: raw.dng$"
        with (
            pytest.warns(UserWarning, match=r"1 folder ignored \(.*: deeper$"),
            pytest.raises(ValueError, match=message),
        ):
            read(tmp_path)


def test_folders_in_a_folder_of_k_space_of_frames_and_of_sequences_are_named(tmp_path):
    for place in ("scans", "frames/img", "otb/One/img", "otb/docs"):
        (tmp_path / place / "deeper").mkdir(parents=True)
    (tmp_path / "scans" / "a.h5").touch()
    _picture(tmp_path / "frames" / "0.png")
    inside = "1 folder ignored (only files are read):"
    assert _said(lambda: mri.find(tmp_path / "scans")) == [f"{tmp_path / 'scans'}: {inside} deeper"]
    assert _said(lambda: predict.find([tmp_path / "frames"])) == [f"{tmp_path / 'frames'}: {inside} img"]
    otb = tmp_path / "otb"
    assert _said(lambda: folders.expanded([otb])) == [f"{otb}: 1 folder ignored (without a folder img): docs"]


@pytest.mark.parametrize("ending", ["gif", "png", "webp"])
def test_an_animation_is_no_picture(capsys, tmp_path, ending):
    """Of a folder it was an error on reading, or its first frame was taken; a file of one frame is a picture."""
    root = tmp_path / "in"
    _picture(root / "0.png")
    _picture(root / f"1.{ending}")
    frames = np.random.default_rng(0).integers(0, 255, (3, 40, 48, 3), dtype=np.uint8)
    first, *more = map(Image.fromarray, frames)
    first.save(root / f"2.{ending}", save_all=True, append_images=more)
    (root / f"3.{ending}").write_text("neither")
    np.save(tmp_path / "magnitudes.npy", np.ones((2, 32, 32), np.float32))
    readers = (
        lambda: ImageFolder(root).paths,
        lambda: StillPairs([root])._images,
        lambda: CoilImages(tmp_path / "magnitudes.npy", 32, photographs=root)._photographs,
    )
    expected = f"{root}: 1 file ignored (animated): 2.{ending}"
    for read in readers:
        assert _said(read) == [expected]
        assert [path.name for path in read()] == ["0.png", f"1.{ending}", f"3.{ending}"]
    (root / f"3.{ending}").unlink()
    status, _, err = command.run(capsys, "restore", root, "-o", f"{tmp_path / 'out'}/", "--sigma", 25)
    assert status == 0 and err.count(" ignored (") == 1 and expected in err
    with pytest.raises(ValueError, match="at least one image"), pytest.warns(UserWarning, match="animated"):
        (root / "0.png").unlink(), (root / f"1.{ending}").unlink()
        ImageFolder(root)


def test_folders_of_sequences_name_what_is_none(capsys, tmp_path):
    root = tmp_path / "otb"
    for number in range(3):
        _picture(root / "One" / "img" / f"{number + 1:04d}.jpg")
    (root / "One" / "groundtruth_rect.txt").write_text("5,5,20,20\n" * 3)
    (root / "One" / "img" / "0004.psd").write_text("x")
    (root / "holiday.mp4").write_text("x")
    out = ["--out", tmp_path / "out"]
    status, _, err = command.run(capsys, "track", "evaluate", "--root", root, *out)
    message = "1 file ignored (neither a frame nor an annotation): One/img/0004.psd"
    assert status == 0 and err.count(f"{root}: {message}") == err.count(" ignored (") == 1
    status, _, err = command.run(capsys, "track", root, "-o", f"{tmp_path / 'videos'}/")
    assert status == 0 and err.count(" ignored (") == 2
    assert f"{root}: 1 file ignored (not in the folder of a sequence): holiday.mp4" in err
    assert f"{root / 'One' / 'img'}: 1 file ignored (not a frame): 0004.psd" in err
    options = ["--data", "otb", "--epochs", 1, "--boxes", 4, "--mining", 1]
    status, _, err = command.run(capsys, "track", "train", root, "--out", tmp_path / "net", *options)
    assert status == 0 and err.count(" ignored (") == 1 and message in err


def test_folders_of_frames_beside_videos_are_videos(tmp_path):
    """They were dropped without a word, and a folder of nothing else held no frame, the error said."""
    clip = generate_moving_shapes(1, frames=4, size=32)[0].frames
    for number in range(2):
        _picture(tmp_path / "in" / "clip10" / f"{number}.png")
        _picture(tmp_path / "in" / "clip9" / f"{number}.png")
        (tmp_path / "in" / f"none{number}").mkdir()
    (tmp_path / "in" / "clip9" / "notes.doc").write_text("x")
    found: list = []
    assert _said(lambda: found.extend(predict.find([tmp_path / "in"]))) == [
        f"{tmp_path / 'in'}: 2 folders ignored (without frames, or with videos): none0, none1",
        f"{tmp_path / 'in' / 'clip9'}: 1 file ignored (not a frame): notes.doc",
    ]
    assert [path.name for path in found] == ["clip9", "clip10"]
    video.write(tmp_path / "in" / "none0" / "a.gif", clip, fps=10)
    video.write(tmp_path / "in" / "clip9.gif", clip, fps=10)
    (message, _) = _said(lambda: found.extend(predict.find([tmp_path / "in"])))
    assert message.endswith("2 folders ignored (without frames, or with videos): none0, none1")
    assert [path.name for path in found[2:]] == ["clip9", "clip9.gif", "clip10"]
    with pytest.raises(ValueError, match="must hold videos, frames or folders of frames"):
        predict.find([tmp_path])


def test_broken_links_among_pictures_are_left_out(tmp_path):
    """They were kept among the pictures, or called files, in words of their own for every reader."""
    _picture(tmp_path / "a.png")
    for name in ("lost.png", "other"):
        (tmp_path / name).symlink_to("moved")
    (tmp_path / "loop.png").symlink_to("loop.png")
    expected = [f"{tmp_path}: 3 links ignored (broken): loop.png, lost.png, other"]
    found: list = []
    assert _said(lambda: found.extend(stills(tmp_path))) == expected
    assert _said(lambda: found.extend(ImageFolder(tmp_path).paths)) == expected
    assert _said(lambda: found.extend(StillPairs([tmp_path])._images)) == expected
    images = torch.ones(1, 64, 64)
    assert _said(lambda: found.extend(CoilImages(images, photographs=tmp_path)._photographs)) == expected
    assert found == [tmp_path / "a.png"] * 4
