"""`amstel track`: boxes, videos, evaluation and training; exit status and the one line on bad input; the example."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from amstel import video
from amstel.apps.tracking.evaluate import with_attributes
from amstel.data import OTB
from amstel.tracking import SINTTracker, perturbed, read_boxes
from tests import command
from tests.test_tracker import sequence

pytest.importorskip("PIL", reason="frames are read from files")
pytest.importorskip("safetensors", reason="the shipped weights are in a safetensors file")


pytestmark = pytest.mark.usefixtures("one_thread")


def _run(capsys, *arguments):
    return command.run(capsys, "track", *arguments)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two short sequences in OTB's layout."""
    from PIL import Image

    root = tmp_path_factory.mktemp("otb")
    for name, seed in (("One", 0), ("Two", 1)):
        images, boxes = sequence(frames=5, seed=seed)
        (root / name / "img").mkdir(parents=True)
        for number, image in enumerate(images, start=1):
            Image.fromarray(image).save(root / name / "img" / f"{number:04d}.png")
        lines = [",".join(f"{value:g}" for value in box + np.array([1, 1, 0, 0])) for box in boxes]
        (root / name / "groundtruth_rect.txt").write_text("\n".join(lines) + "\n")
    return root


def _boxes(file):
    lines = file.read_text().splitlines()
    assert all(re.fullmatch(r"-?\d+(\.\d+)?(,-?\d+(\.\d+)?){3}", line) for line in lines)
    return np.array([[float(number) for number in line.split(",")] for line in lines])


def test_boxes_file_has_a_line_a_frame_the_first_box_included(capsys, root, tmp_path):
    file = tmp_path / "boxes.txt"
    status, out, err = _run(capsys, root / "One" / "img", "--box", "30,50,36,30", "-o", file)
    assert status == 0 and err == "" and out == f"5 frames, lost in 0\nwrote {file}\n"
    found = _boxes(file)
    images, _ = sequence(frames=5)
    np.testing.assert_array_equal(found[0], [30, 50, 36, 30])  # 0-based, as given
    np.testing.assert_allclose(found, SINTTracker().track(images, [30, 50, 36, 30]), atol=1e-6)


def test_several_targets_and_a_part_of_the_frames(capsys, root, tmp_path):
    file = tmp_path / "boxes.csv"
    boxes = ["--box", "30,50,36,30", "--box", "60,60,30,30"]
    status, out, err = _run(
        capsys, root / "One" / "img", *boxes, "--init-frame", 2, "--end-frame", 4, "--every", 2, "-o", file
    )
    assert status == 0 and err == "" and out.startswith("2 frames")
    head, *lines = file.read_text().splitlines()
    assert head == "frame,time,target,x,y,w,h,score,lost"
    assert [line.split(",")[0::2][:2] for line in lines] == [["2", "1"], ["2", "2"], ["4", "1"], ["4", "2"]]
    status, _, err = _run(
        capsys, root / "One" / "img", *boxes, "--end-frame", 2, "-o", tmp_path / "boxes.json"
    )
    found = json.loads((tmp_path / "boxes.json").read_text())
    assert status == 0 and found["videos"] == [{"id": 1, "name": "img", "width": 200, "height": 160}]
    assert [(i["id"], i["frame_id"], i["file_name"]) for i in found["images"]] == [
        (1, 0, "0001.png"),
        (2, 1, "0002.png"),
    ]
    of = found["annotations"]
    assert [(a["id"], a["image_id"], a["instance_id"]) for a in of] == [
        (1, 1, 1),
        (2, 1, 2),
        (3, 2, 1),
        (4, 2, 2),
    ]
    assert of[1]["bbox"] == [60, 60, 30, 30] and of[1]["area"] == 900 and of[1]["lost"] is False
    status, out, err = _run(capsys, root / "One" / "img", *boxes, "-o", tmp_path / "boxes.txt")
    assert status == 2 and "use .csv or .json" in err and err.count("\n") == 1


def test_a_camera_is_followed_until_it_is_stopped(capsys, root, tmp_path, monkeypatch):
    import signal

    cv2 = pytest.importorskip("cv2", reason="opencv reads cameras")
    images, _ = sequence(frames=5)

    class Device:
        def __init__(self, index):
            self.index, self.given = index, 0

        def isOpened(self):
            return self.index == 0

        def get(self, what):
            return 30.0

        def read(self):
            self.given += 1
            if self.given == 4:
                signal.raise_signal(signal.SIGINT)  # the frame after it is the last
            return self.given <= 5, images[self.given - 1][..., ::-1]

        def release(self):
            self.given = 9

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cv2, "VideoCapture", Device)
    monkeypatch.delenv("DISPLAY", raising=False)
    before = signal.getsignal(signal.SIGINT)
    status, out, err = _run(capsys, 0, "--box", "30,50,36,30", "-o", "camera.csv")
    assert (
        status == 0 and err == "" and out.startswith("4 frames") and signal.getsignal(signal.SIGINT) is before
    )
    rows = [line.split(",") for line in (tmp_path / "camera.csv").read_text().splitlines()[1:]]
    assert [row[0] for row in rows] == ["1", "2", "3", "4"] and float(rows[-1][1]) > 0
    assert float(rows[-1][3]) == pytest.approx(SINTTracker().track(images[:4], [30, 50, 36, 30])[-1, 0])
    for arguments, message in (
        (["1", "--box", "30,50,36,30"], "camera 1 cannot be opened"),
        (["0"], "camera 0 has no first box"),
    ):
        command.is_refused(capsys, ["track", *arguments, "-o", "x.csv"], message)
    (tmp_path / "0").mkdir()
    command.is_refused(
        capsys, ["track", "0", "--box", "1,2,3,4", "-o", "x.csv"], "must hold at least one image"
    )


def test_an_otb_sequence_brings_its_box_and_is_scored(capsys, root, tmp_path):
    file = tmp_path / "boxes.txt"
    status, out, err = _run(capsys, root / "One", "--redetect", "--plus", "--output", file, "--threads", 1)
    assert status == 0 and err == ""
    assert re.match(r"5 frames, lost in \d+; AUC 0\.\d+, precision \d\.\d+, mean IoU 0\.\d+\n", out)
    np.testing.assert_array_equal(_boxes(file)[0], [30, 50, 36, 30])


@pytest.mark.parametrize("ending", ["gif", "mp4"])
def test_writes_a_picture_that_can_be_read(capsys, root, tmp_path, ending):
    if ending == "mp4":
        pytest.importorskip("av")
    file = tmp_path / f"found.{ending}"
    status, out, err = _run(capsys, root / "One", "-o", file)
    assert status == 0 and err == "" and f"wrote {file}" in out
    frames = video.read(file)
    assert len(frames) == 5 and min(frames.shape[1:3]) >= 256
    # The box in its color lies where the target is: x 30 to 66, y 50 to 80, twice enlarged.
    blue = (frames[0].int() - torch.tensor(video.FOUND)).abs().sum(2) < 60
    rows, columns = blue[:320].nonzero().T
    assert abs(columns.min() - 60) < 6 and abs(columns.max() - 132) < 6
    assert abs(rows.min() - 100) < 6 and abs(rows.max() - 160) < 6


def test_a_video_is_tracked_beside_where_one_stands(capsys, tmp_path, monkeypatch):
    pytest.importorskip("av")
    monkeypatch.chdir(tmp_path)
    images, _ = sequence(frames=5)
    (tmp_path / "in").mkdir()
    video.write(tmp_path / "in" / "clip.mp4", torch.from_numpy(images), fps=10)
    status, out, err = _run(capsys, "in/clip.mp4", "--box", "30,50,36,30")
    assert status == 0 and err == "" and "wrote clip_sint.mp4" in out
    assert len(video.read(tmp_path / "clip_sint.mp4")) == 5


def test_evaluation_is_resumed_and_written(capsys, root, tmp_path):
    arguments = ["eval", "--root", root, "--out", tmp_path / "run"]
    json_file, plot = (tmp_path / "run" / name for name in ("scores.json", "plots.png"))  # a folder to come
    status, out, err = _run(capsys, *arguments, "--json", json_file, "--plot", plot)
    assert status == 0 and err == ""
    assert re.search(r"^One +5 +0\.\d{3}", out, re.M) and re.search(r"^all +10 +0\.\d{3}", out, re.M)
    scores = json.loads(json_file.read_text())
    assert scores["protocol"] == "otb" and set(scores["sequences"]) == {"One", "Two"}
    assert plot.read_bytes().startswith(b"\x89PNG")
    # A second run takes the boxes that are there: changed ones show.
    (tmp_path / "run" / "One.txt").write_text("30,50,36,30\n" * 5)
    again = tmp_path / "again.json"
    assert _run(capsys, *arguments, "--protocol", "pysot", "--json", again)[0] == 0
    other = json.loads(again.read_text())
    assert other["sequences"]["One"]["auc"] != scores["sequences"]["One"]["auc"]
    assert other["sequences"]["Two"]["auc"] == scores["sequences"]["Two"]["auc"]
    # Another tracker must not take them for its own.
    status, out, err = _run(capsys, *arguments, "--plus")
    assert status == 2 and out == "" and "boxes of another tracker" in err and err.count("\n") == 1
    # Nor those of nobody knows whom; a time that is lost costs no boxes.
    record = tmp_path / "run" / "tracker.json"
    settings = record.read_text()
    record.write_text("{")
    command.is_refused(capsys, ["track", *arguments], "tracker.json must hold the settings of a tracker")
    record.unlink()
    command.is_refused(capsys, ["track", *arguments], "holds boxes of One, from an unknown tracker")
    record.write_text(settings)
    for text in ("", "x\n"):
        (tmp_path / "run" / "One.seconds").write_text(text)
        status, out, err = _run(capsys, *arguments)
        assert status == 0 and err == "" and re.search(r"^One .* -$", out, re.M)


def test_evaluation_by_attribute(capsys, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("names.json").write_text('{"one": ["OCC", "SV"], "Two": {"attr": ["SV"]}, "Three": ["LR"]}')
    arguments = ["evaluate", "--root", root, "--out", "run", "--attributes", "names.json"]
    for text, message in (
        ("{", "--attributes must be JSON, got something else in wrong.json"),
        ("[]", "--attributes must be a mapping"),
        ('{"Three": ["LR"]}', "--attributes must give attributes to a sequence that is evaluated (One, Two)"),
    ):
        Path("wrong.json").write_text(text)
        command.is_refused(capsys, ["track", *arguments[:-1], "wrong.json"], message)
    command.is_refused(
        capsys, ["track", *arguments[:-1], "none.json"], "--attributes none.json does not exist"
    )
    both = ["--plot", "a.png", "--json", "a_attributes.png"]
    command.is_refused(capsys, ["track", *arguments, *both], "--plot must be another file than the input")
    assert not Path("run").exists()
    status, out, err = _run(capsys, *arguments, "--json", "scores.json", "--plot", "a.png")
    assert status == 0 and err == "" and out.endswith("wrote a.png\nwrote a_attributes.png\n")
    assert Path("a_attributes.png").read_bytes().startswith(b"\x89PNG")
    scores = json.loads(Path("scores.json").read_text())
    assert {n: a["sequences"] for n, a in scores["attributes"].items()} == {
        "OCC": ["One"],
        "SV": ["One", "Two"],
    }
    for score in ("auc", "precision"):
        assert scores["attributes"]["OCC"][score] == scores["sequences"]["One"][score]
        assert scores["attributes"]["SV"][score] == pytest.approx(scores[score])
    for name, number in (("OCC", 1), ("SV", 2)):
        a = scores["attributes"][name]
        assert re.search(rf"^{name} +{number}  {a['auc']:.3f} +{a['precision']:.3f}$", out, re.M)
    # Runs of a robustness evaluation have the attributes of their sequence.
    runs = [run for one in OTB(root) for run in perturbed(one, "sre")[:2]]
    found = with_attributes(runs, Path("names.json"))
    assert found == {f"{s}-sre0{k}": a for s, a in (("One", ["OCC", "SV"]), ("Two", ["SV"])) for k in (1, 2)}
    # Where the sequences that have attributes fail, the others are scored all the same.
    shutil.copytree(root / "Two", "data/Two")
    shutil.copytree(root / "One", "data/One")
    Path("data/One/img/0004.png").write_bytes(b"")
    Path("names.json").write_text('{"One": ["OCC"]}')
    arguments[2] = "data"
    status, out, err = _run(capsys, *arguments, "--json", "scores.json", "--plot", "b.png", "--out", "other")
    assert status == 1 and err.startswith("amstel: ") and err.count("\n") == 1 and "b_attributes" not in out
    assert json.loads(Path("scores.json").read_text())["attributes"] == {}


def test_a_sequence_that_cannot_be_read_is_named_and_the_others_scored(capsys, root, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(root, data)
    (data / "One" / "groundtruth_rect.txt").write_text("1,2,3\n")
    for more in ((), ("--robustness", "sre")):
        arguments = ["eval", "--root", data, "--out", tmp_path / f"run{len(more)}", *more]
        status, out, err = _run(capsys, *arguments, "--json", tmp_path / "scores.json")
        assert status == 1 and "line 1: a line must hold 4 numbers" in err and err.count("\n") == 1
        assert "Two" in out and "One" not in out
        assert [f["input"] for f in json.loads((tmp_path / "scores.json").read_text())["failed"]] == ["One"]
    command.is_refused(capsys, ["track", *arguments, "--sequences", "One"], "line 1")
    command.is_refused(capsys, ["track", *arguments, "--sequences", "Two,Three"], "holds no sequence 'Three'")


def test_a_sequence_that_cannot_be_read_stops_no_other(capsys, root, tmp_path):
    data, found = tmp_path / "data", tmp_path / "found.json"
    for name in ("One", "Two", "Pair"):
        shutil.copytree(root / name.replace("Pair", "One"), data / name)
    (data / "One" / "groundtruth_rect.txt").write_text("1,2,3\n")
    for target in "12":
        shutil.copy(root / "One" / "groundtruth_rect.txt", data / "Pair" / f"groundtruth_rect.{target}.txt")
    (data / "Pair" / "groundtruth_rect.txt").unlink()
    given = [data, "-o", f"{tmp_path}/seen/", "--end-frame", 2, "--json", found]
    status, out, err = _run(capsys, *given)
    assert status == 1 and err.count("\n") == 2 and "`" not in err
    assert "amstel: --target is needed: one of [1, 2], the targets of " in err
    assert "line 1: a line must hold 4 numbers" in err and "Two_sint.mp4" in out
    scores = json.loads(found.read_text())
    assert [v["input"] for v in scores["videos"]] == [str(data / "Two")]
    assert [f["input"] for f in scores["failed"]] == [str(data / "One"), str(data / "Pair")]
    shutil.rmtree(data / "Two")
    command.is_refused(capsys, ["track", *given, "--force"], "line 1: a line must hold 4 numbers")


def test_a_sequence_of_one_frame_cannot_be_perturbed_and_one_of_two_spellings_is_one(capsys, root, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(root, data)
    for frame in sorted((data / "One" / "img").iterdir())[1:]:
        frame.unlink()
    (data / "One" / "groundtruth_rect.txt").write_text("9,9,20,20\n")
    arguments = ["eval", "--root", data, "--robustness", "vot", "--out", tmp_path / "run"]
    status, _, err = _run(
        capsys, *arguments, "--sequences", "one,Two,two", "--json", tmp_path / "scores.json"
    )
    assert status == 1 and "One must have at least two frames to track in, got 1" in err
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert list(scores["sequences"]) == ["Two-vot01", "Two-vot02"] and [
        f["input"] for f in scores["failed"]
    ] == ["One"]
    command.is_refused(capsys, ["track", *arguments, "--sequences", "One"], "at least two frames")


def test_json_says_what_failed_in_the_words_of_the_command_line(capsys, root, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(root, data)
    truth = (data / "One" / "groundtruth_rect.txt").read_text().splitlines()
    (data / "One" / "groundtruth_rect.txt").write_text("\n".join(["900,9,20,20", *truth[1:]]))
    for jobs in (1, 2):
        arguments = ["eval", "--root", data, "--out", tmp_path / f"run{jobs}", "--jobs", jobs]
        status, out, err = _run(capsys, *arguments, "--json", tmp_path / "scores.json")
        message = "the box must lie in the frame of"
        (failed,) = json.loads((tmp_path / "scores.json").read_text())["failed"]
        assert status == 1 and failed["input"] == "One" and message in failed["error"]
        assert "`" not in out + err and (out + err).count("must lie in") == 1


def _copy(root, tmp_path):
    shutil.copytree(root / "One", tmp_path / "One")
    return tmp_path / "One", tmp_path / "One" / "img"


def test_frames_that_change_their_size_or_break_are_named(capsys, root, tmp_path):
    from PIL import Image

    folder, frames = _copy(root, tmp_path)
    whole = (frames / "0003.png").read_bytes()
    # What an earlier run left is not written over.
    for name, how, message in (
        (
            "partial",
            lambda file: Image.open(file).crop((0, 0, 200, 80)).save(file),
            "0003.png must be 200x160 as the first frame, got 200x80",
        ),
        (
            "partial2",
            lambda file: file.write_bytes(whole[: len(whole) // 2]),
            "0003.png must be an image that can be read",
        ),
        ("partial3", lambda file: file.write_bytes(b""), "0003.png must be an image that can be read"),
    ):
        (frames / "0003.png").write_bytes(whole)
        how(frames / "0003.png")
        file = tmp_path / "boxes.csv"
        command.is_refused(capsys, ["track", folder, "-o", file], message)
        left = (tmp_path / f"boxes.csv.{name}.csv").read_text().splitlines()
        assert [line.split(",")[0] for line in left] == ["frame", "1", "2"] and not file.exists()
        with pytest.raises(ValueError, match="0003"):
            SINTTracker().track(frames, [30, 50, 36, 30])


def test_frames_of_every_kind_of_pixel(capsys, root, tmp_path):
    from PIL import Image

    folder, frames = _copy(root, tmp_path)
    for number, kind in enumerate(("L", "RGBA", "P", "I;16"), start=2):
        picture = Image.open(frames / f"{number:04d}.png")
        if kind == "I;16":
            picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
        else:
            picture = picture.convert(kind)
        picture.save(frames / f"{number:04d}.png")
    status, out, err = _run(capsys, folder, "-o", tmp_path / "bücher 箱.txt")
    assert status == 0 and err == ""
    assert float(re.search(r"mean IoU (\S+)", out)[1]) > 0.8 and len(_boxes(tmp_path / "bücher 箱.txt")) == 5


def test_frames_that_lack_or_come_twice(capsys, root, tmp_path):
    folder, frames = _copy(root, tmp_path)
    truth = folder / "groundtruth_rect.txt"
    shutil.copy(frames / "0003.png", frames / "0003.bmp")
    command.is_refused(capsys, ["track", folder], "got 0003.bmp and 0003.png for one frame")
    (frames / "0003.bmp").unlink()
    (frames / "0003.png").unlink()
    command.is_refused(capsys, ["track", folder], "got 5 (")
    command.is_refused(capsys, ["track", folder], "0003.png is missing)")
    truth.write_text("\n".join(truth.read_text().splitlines()[:4]))
    status, _, err = _run(capsys, folder, "-o", tmp_path / "boxes.txt")
    assert status == 0 and "0003.png is missing: the boxes of" in err and err.count("\n") == 1


def test_a_folder_of_the_parts_of_got10k_is_refused_in_words_of_the_command_line(capsys, tmp_path):
    for part in ("test", "val"):
        (tmp_path / "got" / part).mkdir(parents=True)
    message = (
        f"got holds parts of GOT-10k: give the folder of one, {tmp_path}/got/val or {tmp_path}/got/test\n"
    )
    given = ["--data", "got10k", "--out", tmp_path / "out"]
    command.is_refused(capsys, ["track", "evaluate", "--root", tmp_path / "got", *given], message)
    command.is_refused(capsys, ["track", "train", tmp_path / "got", *given], message)


def test_where_pixels_count_from(capsys, root, tmp_path):
    folder, _ = _copy(root, tmp_path)
    status, _, err = _run(capsys, folder, "--box", "31,51,36,30", "-o", tmp_path / "boxes.txt")
    assert status == 0 and "off by one" in err and "counted from 1" in err and err.count("\n") == 1
    truth = folder / "groundtruth_rect.txt"
    lines = truth.read_text().splitlines()
    truth.write_text("\n".join([lines[0], "0,5,36,30", "0,6,36,30", *lines[3:]]))
    arguments = ["eval", "--root", tmp_path, "--sequences", "one"]
    status, _, err = _run(capsys, *arguments, "--out", tmp_path / "a")
    assert status == 0 and "as if its pixels were counted from 0" in err and err.count("\n") == 1
    status, _, err = _run(capsys, *arguments, "--out", tmp_path / "b", "--truth-origin", 0)
    assert status == 0 and "counted from" not in err
    first = _boxes(tmp_path / "b" / "One.txt")[0]
    np.testing.assert_array_equal(first, [float(value) for value in lines[0].split(",")])


def test_one_of_several_targets_and_a_folder_of_results(capsys, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(root / "One", "pair")
    first = Path("pair/groundtruth_rect.txt").rename("pair/groundtruth_rect.1.txt").read_text().splitlines()
    Path("pair/groundtruth_rect.2.txt").write_text("\n".join(["21,31,36,30", *first[1:]]))
    command.is_refused(capsys, ["track", "pair"], "--target is needed: one of [1, 2], the targets of pair\n")
    command.is_refused(capsys, ["track", "pair", "--target", "3"], "--target must be one of [1, 2]")
    command.is_refused(capsys, ["track", "pair/img", "--target", "1"], "--target is for OTB sequences")
    alone = ["track", root / "One", "--target", "1"]
    command.is_refused(
        capsys, alone, f"--target must be left out for {root / 'One'}, which has one target, got 1"
    )
    assert _run(capsys, "pair", "--target", "2", "--end-frame", "2", "-o", "b.txt", "--quiet")[0] == 0
    assert _boxes(Path("b.txt"))[0].tolist() == [20, 30, 36, 30]

    several = ["track", root / "One", root / "Two"]
    command.is_refused(capsys, [*several, "-o", "all.mp4"], "-o must be a folder for 2 videos")
    assert not Path("all.mp4").exists()
    for name in ("all", ""):  # a folder that is not there yet, or a variable of a shell that is empty
        command.is_refused(
            capsys, [*several, "-o", name], "must end in .mp4, .gif, .txt, .csv, .json, or in /"
        )
    assert _run(capsys, root / "One", "--end-frame", "1", "-o", "new/", "--quiet")[0] == 0
    assert Path("new/One_sint.mp4").stat().st_size
    # Named as they are called: the dots of a folder, and a link.
    Path("one.v1").symlink_to(root / "One")
    Path("one.v2").symlink_to(root / "One")
    assert _run(capsys, "one.v1", "one.v2", "--end-frame", "1", "-o", "new/", "--quiet")[0] == 0
    assert {"one.v1_sint.mp4", "one.v2_sint.mp4"} < {file.name for file in Path("new").iterdir()}


def test_no_output_costs_data_or_another_output(capsys, root, tmp_path, monkeypatch):
    """Frames and true boxes of the sequences that are tracked, and two results that would go to one file."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(root, "data")
    before = {file: file.read_bytes() for file in Path("data").rglob("*.*")}
    images, box = Path("data/One/img"), ["--box", "30,50,36,30"]
    evaluation = ["evaluate", "--root", "data", "--sequences", "One"]
    for arguments, message in (
        ([images, *box, "-o", "data/One/groundtruth_rect.txt"], "-o must not be a file of true boxes"),
        ([images, *box, "-o", images / "boxes.txt"], "-o must lie outside the input folder"),
        ([*evaluation, "--plot", images / "0001.png"], "--plot must lie outside the input folder"),
        ([*evaluation, "--json", images / "scores.json"], "--json must lie outside the input folder"),
        ([*evaluation, "--out", images], "--out must be another file than the input"),
        ([*evaluation, "--out", images / "run"], "--out must lie outside the input folder"),
        ([images, *box, "-o", "b.json", "--json", "./b.json"], "--json must be another file than -o"),
        ([*evaluation, "--plot", "b.png", "--json", "b.png"], "--json must be another file than --plot"),
    ):
        command.is_refused(capsys, ["track", *arguments], message)
    assert {file: file.read_bytes() for file in Path("data").rglob("*.*")} == before
    assert {file.name for file in tmp_path.iterdir()} == {"data"}


def test_no_number_of_json_is_nan(capsys, root, tmp_path):
    shutil.copytree(root / "One", tmp_path / "One")
    (tmp_path / "One" / "groundtruth_rect.txt").write_text("nan,nan,nan,nan\n" * 5)
    out = ["--box", "30,50,36,30", "-o", tmp_path / "b.csv", "--json", tmp_path / "b.json", "--quiet"]
    assert _run(capsys, tmp_path / "One", *out)[0] == 0
    found = json.loads((tmp_path / "b.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert found["videos"][0]["mean_iou"] is None


@pytest.mark.parametrize("known", [1, 3])
def test_frames_after_the_last_true_box_are_not_scored(capsys, root, tmp_path, known):
    """As in OTB's toolkit, which goes by the boxes; one box is where to begin and gives no score."""
    _copy(root, tmp_path)
    file, found = tmp_path / "One" / "groundtruth_rect.txt", tmp_path / "found.json"
    file.write_text("\n".join(file.read_text().splitlines()[:known]))
    short = [tmp_path / "One", "-o", tmp_path / "b.csv", "--json", found]
    status, out, err = _run(capsys, *short)
    assert status == 0 and ("from frame 4 on" in err) == (known == 3)
    (record,) = json.loads(found.read_text())["videos"]
    assert ("AUC" in out) == ("auc" in record) == (known == 3)
    more = ["--plot", tmp_path / "plot.png"] if known == 1 else []
    status, out, err = _run(
        capsys, "evaluate", "--root", tmp_path, "--out", tmp_path / "out", "--json", found, *more
    )
    if known == 1:
        assert status == 0 and "One tracked, not scored: only the first box is known\n" in out
        assert "plot.png is not written: no sequence has scores" in out and "wrote" not in out
        assert (
            json.loads(found.read_text())["unscored"] == ["One"] and (tmp_path / "out" / "One.txt").exists()
        )
    else:
        _run(
            capsys,
            root / "One",
            "--end-frame",
            3,
            "--force",
            "-o",
            tmp_path / "b.csv",
            "--json",
            tmp_path / "whole.json",
        )
        (whole,) = json.loads((tmp_path / "whole.json").read_text())["videos"]
        scores = json.loads(found.read_text())["sequences"]["One"]
        for name in ("auc", "precision", "mean_iou"):
            assert scores[name] == pytest.approx(record[name], abs=1e-6)
            assert record[name] == whole[name] > 0.8


def test_boxes_of_other_data_are_not_scored_as_ones_own(capsys, root, tmp_path):
    evaluation = ["evaluate", "--root", tmp_path / "data", "--out", tmp_path / "out", "--quiet"]
    shutil.copytree(root / "One", tmp_path / "data" / "One")
    assert _run(capsys, *evaluation)[0] == 0
    # The same boxes counted from 0 begin one pixel off.
    status, _, err = _run(capsys, *evaluation, "--truth-origin", "0")
    assert status == 2 and "the boxes belong to other data" in err and "--out" in err
    assert _run(capsys, *evaluation)[0] == 0


def test_a_first_true_box_outside_of_the_frame_is_said_to_be_that(capsys, root, tmp_path):
    folder, _ = _copy(root, tmp_path)
    lines = (folder / "groundtruth_rect.txt").read_text().splitlines()
    (folder / "groundtruth_rect.txt").write_text("\n".join(["500,500,20,20", *lines[1:]]))
    command.is_refused(capsys, ["track", folder], "One: its true box in frame 1 must lie in the frame")


SMALL = ["--epochs", "1", "--batch", "2", "--boxes", "8", "--mining", "1", "--seed", "3"]


@pytest.mark.parametrize("data", ["images", "otb"])
def test_train_resume_and_track_with_what_came_out(capsys, root, tmp_path, data):
    pytest.importorskip("cv2")
    folder = root / "One" / "img" if data == "images" else root
    out = tmp_path / "out"
    status, said, err = _run(capsys, "train", folder, "--data", data, "--out", out, *SMALL)
    assert status == 0 and err == ""
    pairs = 5 if data == "images" else 10
    assert re.search(rf"SINT \(light\) on {pairs} pairs, 1 epoch: loss \d\.\d+", said)
    other, layout = (root, "otb") if data == "images" else (root / "One" / "img", "images")
    more = ["--out", out, "--resume", "--epochs", 2]
    status, _, err = _run(capsys, "train", other, "--data", layout, *more)
    assert status == 2 and "ROOT must be that of the run in" in err and ", of which 0 are among them" in err
    status, said, err = _run(capsys, "train", folder, "--data", data, "--out", out, "--resume", "--epochs", 2)
    assert status == 0 and err == "" and "2 epochs" in said
    found = tmp_path / "boxes.txt"
    assert _run(capsys, root / "One", "--weights", out / "checkpoint.pt", "-o", found)[0] == 0
    assert len(read_boxes(found)) == 5


def test_bad_input_is_one_line_and_status_2(capsys, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("av")
    (tmp_path / "empty").mkdir()
    (tmp_path / "otb" / "img").mkdir(parents=True)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "0001.png").write_bytes(b"\x89PNG nothing of the kind")
    (tmp_path / "broken.mp4").write_bytes(b"nothing of the kind")
    (tmp_path / "other.pt").write_bytes(b"not a checkpoint")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "else.pt")
    images, boxes, out = root / "One" / "img", ["--box", "30,50,36,30"], ["--out", tmp_path / "out"]
    for arguments, message in (
        ([], "COMMAND is missing"),
        ([images], "--box x,y,w,h is needed"),
        (["nowhere.mp4"], "nowhere.mp4 is neither a file that exists nor"),
        (["predict", "nowhere.mp4", *boxes], "nowhere.mp4 does not exist"),
        (["empty", *boxes], "at least one image, got none"),
        (["otb"], "groundtruth_rect.txt"),
        (["otb", *boxes], "at least one image, got none"),
        (["broken", *boxes], "0001.png must be an image"),
        (["broken.mp4", *boxes], "broken.mp4 must be a video"),
        ([images, "--box", "1,2,3"], "--box should be four numbers x,y,w,h, got '1,2,3'"),
        ([images, "--box", "a,b,c,d"], "--box should be four numbers x,y,w,h"),
        ([images, "--box", "30,50,0,30"], "--box should have a positive width and height"),
        ([images, "--box", "30,50,nan,30"], "--box should be four finite numbers"),
        ([images, "--box", "300,50,36,30"], "--box must lie in the frame of 200x160"),
        ([images, *boxes, "--box", "300,50,36,30", "-o", "b.csv"], "--box must lie in the frame of 200x160"),
        ([images, *boxes, "-o", "boxes.xls"], "must end in .mp4, .gif, .txt, .csv or .json"),
        ([images, *boxes, "-o", "/nowhere/boxes.txt"], "cannot write"),
        ([images, *boxes, "--weights", "nowhere.pt"], "nowhere.pt does not exist"),
        ([images, *boxes, "--weights", "other.pt"], "is not a checkpoint"),
        ([images, *boxes, "--device", "abacus"], "no device abacus"),
        ([images, *boxes, "--threads", "0"], "--threads should be an integer from 1 to"),
        (["eval", "--root", "nowhere", *out], "does not exist"),
        (["eval", "--root", "empty", *out], "empty"),
        (
            ["eval", "--root", root, *out, "--protocol", "vot"],
            "--protocol should be one of otb, got10k, pysot",
        ),
        (["eval", "--root", root, *out, "--plot", "plot.txt"], "must end in .png, .svg or .pdf"),
        (["train"], "Missing"),
        (["train", images], "--out"),
        (["train", "nowhere", *out], "nowhere does not exist"),
        (["train", "empty", *out], "ROOT: empty must hold at least one image"),
        (["train", "broken", *out], "0001.png must be an image"),
        (["train", images, *out, "--resume"], "does not exist"),
        (["train", images, *out, "--margin", "2"], "--margin needs --loss margin"),
        (["train", images, *out, "--resume", "--batch", "4"], "only change --epochs"),
        (["train", images, *out, "--margin", "-1"], "--margin should be a number >= 0, got -1"),
        (["train", images, *out, "--weights", "nowhere.pt"], "nowhere.pt do not exist"),
        (["train", images, *out, "--weights", "other.pt"], "other.pt does not hold weights"),
        (["train", images, *out, "--weights", "else.pt"], "else.pt does not hold weights"),
        (["train", images, *out, "--backbone", "vgg16"], "VGG-16"),
    ):
        command.is_refused(capsys, ["track", *arguments], message)
    assert not list(tmp_path.glob("*.mp4.*")) and not (tmp_path / "broken_sint.mp4").exists()


def test_no_root_known(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("AMSTEL_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    status, _, err = _run(capsys, "eval")
    assert status == 2 and "AMSTEL_DATA" in err and err.count("\n") == 1


def test_help(capsys):
    for action in ([], ["train"], ["eval"]):
        status, out, _ = _run(capsys, *action, "--help")
        assert status == 0 and out.startswith(" ".join(["Usage: amstel track", *action]))


def test_demo(capsys, tmp_path):
    from amstel.apps.demo import Show
    from amstel.apps.tracking import demo

    demo.run(Show(tmp_path))
    out = capsys.readouterr().out
    assert float(re.search(r"mean IoU (\d\.\d+)", out)[1]) > 0.6
    assert len(video.read(tmp_path / "sint.gif")) >= 20


@pytest.mark.slow
def test_example(tmp_path):
    example = Path(__file__).parent.parent / "examples" / "sint.py"
    assert len(example.read_text().splitlines()) < 80
    file = tmp_path / "found.gif"
    done = subprocess.run(
        [sys.executable, str(example), str(file)], capture_output=True, text=True, check=True
    )
    assert f"wrote {file}" in done.stdout and float(re.search(r"mean IoU (\d\.\d+)", done.stdout)[1]) > 0.6
    assert len(video.read(file)) > 5


def test_an_earlier_result_is_kept_unless_forced(capsys, root, tmp_path):
    out = tmp_path / "b.csv"
    out.write_text("my own")
    given = [root / "One", "-o", out]
    command.is_refused(capsys, ["track", *given], "b.csv exists; --force overwrites it")
    assert out.read_text() == "my own"
    assert _run(capsys, *given, "--force")[0] == 0 and out.read_text().startswith("frame")
    (tmp_path / "a.png").write_text("my own")
    plot = ["evaluate", "--root", root, "--out", tmp_path / "run", "--plot", tmp_path / "a.png"]
    command.is_refused(capsys, ["track", *plot], "a.png exists; --force overwrites it")
    assert not (tmp_path / "run").exists()
