"""Video where data can be lost or the input is not what it should be: one line, or the right result."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch

from amstel import _files, cli, video
from amstel.apps.video import network
from amstel.data import ClipFolder, generate_moving_shapes
from tests import command

pytest.importorskip("PIL", reason="clips are read from PNG strips")
pytest.importorskip("scipy", reason="boxes need scipy")
pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ["--model", "convalstm", "--frame-size", 16, "--hidden", 4, "--steps", 3, "--shift", 1, "--epochs", 1]


@pytest.fixture
def root(tmp_path):
    """Strips in two class folders."""
    for clip in generate_moving_shapes(6, frames=4, size=16, classes=2):
        folder = tmp_path / "clips" / clip.name.split("_")[0]
        folder.mkdir(parents=True, exist_ok=True)
        video.write(folder / f"{clip.name}.png", clip.frames)
    return tmp_path / "clips"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A network that knows nothing."""
    settings = network.Settings.from_scratch(model="convalstm", frame_size=16, hidden=4, steps=3)
    net = network.Network(settings, ["left", "right"])
    path = tmp_path_factory.mktemp("run") / "checkpoint.pt"
    header = {"format": "amstel video_lstm 1", "settings": asdict(settings), "classes": net.classes}
    torch.save({**header, "network": net.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def frames():
    return generate_moving_shapes(1, frames=9, size=32)[0].frames


def _run(capsys, *arguments):
    return command.run(capsys, "video", *arguments)


# ---- What is there is not lost ----


def test_predict_overwrites_nothing_unasked(capsys, checkpoint, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clips = sorted((root / "left").iterdir())[:2]
    file = tmp_path / "found.gif"
    file.write_bytes(b"precious")
    command.is_refused(
        capsys, ["video", "predict", checkpoint, clips[0], "-o", file], "--force overwrites it"
    )
    assert file.read_bytes() == b"precious"
    assert _run(capsys, "predict", checkpoint, clips[0], "-o", file, "--force")[0] == 0
    assert len(video.read(file)) == 4
    # The names that it gives itself are no other case, nor is one of several.
    own = tmp_path / f"{clips[1].stem}_convalstm.gif"
    own.write_bytes(b"precious")
    command.is_refused(capsys, ["video", "predict", checkpoint, clips[1]], "--force overwrites it")
    command.is_refused(capsys, ["video", "predict", checkpoint, *clips], "--force overwrites it")
    assert own.read_bytes() == b"precious" and not (tmp_path / f"{clips[0].stem}_convalstm.gif").exists()


def test_json_overwrites_json_alone(capsys, checkpoint, root, tmp_path):
    clip, out = next((root / "left").iterdir()), tmp_path / "found.gif"
    for file in (checkpoint, clip):
        before = file.read_bytes()
        command.is_refused(
            capsys,
            ["video", "predict", checkpoint, clip, "-o", out, "--json", file],
            "exists and holds something else",
        )
        assert file.read_bytes() == before and not out.exists()
    # Nor is it what the command writes otherwise, under whatever name.
    (tmp_path / "link.gif").symlink_to(out)
    for name in (out, tmp_path / "link.gif"):
        written = ["video", "predict", checkpoint, clip, "-o", out, "--json", name]
        command.is_refused(capsys, written, "--json must be another file than -o")
        assert not out.exists()
    record = tmp_path / "found.json"
    for _ in range(2):
        assert _run(capsys, "predict", checkpoint, clip, "-o", out, "--force", "--json", record)[0] == 0
    (found,) = json.loads(record.read_text())["videos"]
    assert len(found["boxes"]) == 4 and sum(found["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_no_output_is_an_input_of_the_command(capsys, checkpoint, root, tmp_path):
    """Whatever it is called, by a link too, and with --force: that is for what an earlier run wrote."""
    table, clip = tmp_path / "best.md", sorted((root / "left").iterdir())[0]
    shutil.copy(checkpoint, table)
    (tmp_path / "link.md").symlink_to(table)
    (tmp_path / "network.gif").hardlink_to(table)
    shutil.copy(checkpoint, tmp_path / "checkpoint.json")
    before = table.read_bytes(), clip.read_bytes(), sorted(root.rglob("*"))
    for arguments, message in (
        (["evaluate", table, root, "--table", table], "--table must be another file than the input"),
        (["evaluate", table, root, "--table", tmp_path / "link.md"], "--table must be another file than the input"),
        (["evaluate", tmp_path / "network.gif", root, "--table", table], "--table must be another file"),
        (["evaluate", table, root, "--confusion", clip], "--confusion must lie outside the input folder"),
        (["predict", tmp_path / "network.gif", clip, "-o", tmp_path / "network.gif"], "must be another file"),
        (["predict", checkpoint, clip, "-o", clip], "-o must be another file than the input"),
        (["predict", checkpoint, root / "left", "-o", root / "left"], "must lie outside the input folder"),
        (["predict", checkpoint, root / "left", "-o", root / "left" / "new.gif"], "must lie outside the input folder"),
        (["train", root, "--out", checkpoint.parent, "--backbone", "vgg16", "--weights", checkpoint], "--out must be another folder"),
    ):  # fmt: skip
        command.is_refused(capsys, ["video", *arguments, "--force"], message)
        assert (table.read_bytes(), clip.read_bytes(), sorted(root.rglob("*"))) == before


def test_a_run_lies_outside_of_its_clips(capsys, root):
    """Its folder would be a class of the next training."""
    for out in (root / "run", root / "left" / "run"):
        command.is_refused(capsys, ["video", "train", root, "--out", out, *SMALL], "--out must lie outside")
        assert not out.exists()


def test_a_full_disk_is_one_line_and_keeps_the_checkpoint(tmp_path):
    file = tmp_path / "checkpoint.pt"
    _files.torch_save(file, {"epoch": 1})
    before = file.read_bytes()
    code = (
        "import resource, sys, torch; resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000))\n"
        "from amstel import _files\n"
        "try: _files.torch_save(sys.argv[1], {'x': torch.zeros(100000)})\n"
        "except OSError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True)
    assert str(file) in done.stdout and done.stdout.count("\n") == 1 and done.stderr == ""
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]


def test_a_full_disk_ends_a_training(capsys, root, tmp_path, monkeypatch):
    """One line that names the file, and the checkpoint of the epoch before is whole."""
    out, save, count = tmp_path / "run", torch.save, []

    def full(state, file, *more):
        count.append(file)
        if len(count) > 3:  # best.pt and checkpoint.pt of the first epoch, best.pt of the next, perhaps
            raise OSError(28, "No space left on device", str(file.name))
        return save(state, file, *more)

    monkeypatch.setattr(torch, "save", full)
    status, _, err = _run(capsys, "train", root, "--out", out, *SMALL[:-1], 4)
    assert status == 2 and "No space left" in err and err.count("\n") == 1
    monkeypatch.undo()
    assert network.load(out / "checkpoint.pt").classes == ["left", "right"]
    assert not [p for p in out.iterdir() if "partial" in p.name]
    assert _run(capsys, "train", root, "--out", out, "--resume")[0] == 0
    assert len(json.loads((out / "training.json").read_text())["history"]) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "training.json does not exist"),
        ("{", "training.json is not what"),
        ("[]", "training.json is not what"),
        ('{"held_out": 3}', "training.json is not what"),
    ],
)
def test_a_record_that_is_broken_stops_a_resumed_run(capsys, checkpoint, root, text, message):
    record = checkpoint.parent / "training.json"
    record.unlink(missing_ok=True)
    if text is not None:
        record.write_text(text)
    command.is_refused(capsys, ["video", "train", root, "--out", checkpoint.parent, "--resume"], message)


# ---- Clips that are not as they should be ----


def _hostile(folder, frames):
    """Files by name, and what `predict` says of each, or how many frames its picture has."""
    pytest.importorskip("av")
    folder.mkdir()
    video.write(folder / "good.mp4", frames)
    whole = (folder / "good.mp4").read_bytes()
    found = {"good.mp4": 9}

    def raw(name, data, said="must be a video that can be read"):
        (folder / name).write_bytes(data)
        found[name] = said

    def clip(name, part):
        video.write(folder / name, part)
        found[name] = len(part)

    raw("zero.mp4", b"")
    raw("text.avi", b"not a video at all")
    raw("random.mkv", torch.randint(256, (3000,), generator=torch.Generator().manual_seed(0)).byte().numpy())
    raw("half.mp4", whole[: len(whole) // 2])
    clip("one frame.mp4", frames[:1])
    clip("odd.mp4", frames[:, :31, :17])
    clip("two pixels.mp4", frames[:, :2, :2])
    clip("wide.mp4", frames[:, :2].repeat(1, 1, 20, 1))
    clip("видео ü 日本: 50%.mp4", frames)
    clip("a.b.c.mp4", frames[:2])
    (folder / "link.mp4").symlink_to("good.mp4")
    (folder / "gone.mp4").symlink_to("nowhere.mp4")
    (folder / "itself.mp4").symlink_to("itself.mp4")
    (folder / ".hidden.mp4").write_bytes(b"")
    return found | {"link.mp4": 9, "gone.mp4": "is a link to nothing", "itself.mp4": "is a link to nothing"}


def test_predict_on_files_of_all_kinds(capsys, checkpoint, frames, tmp_path):
    """Of a folder the good ones are done, and each of the others is a line on stderr."""
    folder, out, record = tmp_path / "in", tmp_path / "out", tmp_path / "found.json"
    said = _hostile(folder, frames)
    status, _, err = _run(capsys, "predict", checkpoint, folder, "-o", out, "--json", record)
    bad = {name: text for name, text in said.items() if isinstance(text, str)}
    assert status == 1 and err.count("\n") == len(bad), err
    for name, text in bad.items():
        assert any(name in line and text in line for line in err.splitlines()), (name, err)
    found = json.loads(record.read_text())
    done = {os.path.basename(one["input"]): one for one in found["videos"]}
    assert done.keys() == said.keys() - bad.keys()
    assert {os.path.basename(one["input"]) for one in found["failed"]} == bad.keys()
    for name, one in done.items():
        assert len(one["boxes"]) == said[name] == len(video.read(one["output"])), name
    for name, text in bad.items():  # alone it is refused
        command.is_refused(capsys, ["video", "predict", checkpoint, folder / name, "-o", out / "x.gif"], text)
    assert not (out / "x.gif").exists()


@pytest.mark.parametrize("ending", [".gif", ".mp4"])
def test_pictures_last_as_long_as_the_video(capsys, checkpoint, frames, tmp_path, ending):
    """Each frame as long as in the input, of one rate or of none."""
    pytest.importorskip("av")
    when = [0, 0.1, 0.16, 1.0, 1.5]
    with video.VideoWriter(tmp_path / "uneven.mp4", 10) as writer:
        for frame, time in zip(frames.numpy(), when, strict=False):
            writer.write(frame, time)
    video.write(tmp_path / "fast.mp4", frames, 50)
    for name, times in (("uneven", when), ("fast", [k / 50 for k in range(9)])):
        out = tmp_path / f"{name}_found{ending}"
        assert _run(capsys, "predict", checkpoint, tmp_path / f"{name}.mp4", "-o", out)[0] == 0
        found = video.Frames(out)
        assert [found.time for _ in found] == pytest.approx(times, abs=0.006)


def test_places_to_write_are_explained(capsys, checkpoint, root, tmp_path):
    clips = sorted((root / "left").iterdir())
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.gif").write_bytes(b"")
    for arguments, message in (
        (
            [tmp_path / "empty", "-o", tmp_path / "new"],
            "must hold videos, frames or folders of frames, got none of them",
        ),
        ([*clips, "-o", tmp_path / "file.gif"], "-o must be a folder for 3 videos"),
        ([clips[0], clips[0], "-o", tmp_path / "new"], "two of the videos would be written to"),
        ([clips[0], "-o", tmp_path / "no" / "x.gif"], "does not exist"),
    ):
        command.is_refused(capsys, ["video", "predict", checkpoint, *arguments], message)
    assert not (tmp_path / "new").exists()


def test_clips_that_break_a_training_are_found_before_it(capsys, root, frames, tmp_path):
    from PIL import Image

    left, right = root / "left", root / "right"
    (left / "zero.png").write_bytes(b"")
    (left / "gone.png").symlink_to("nowhere.png")
    for name, wrong in (("bad frame", None), ("sizes", 15), ("good", 16)):
        (right / name).mkdir()
        for k in range(4):
            side = wrong if wrong and k == 2 else 16
            Image.fromarray(frames[k, :side, :16].numpy()).save(right / name / f"{k}.png")
        if wrong is None:
            (right / name / "2.png").write_bytes(b"no picture")
    (left / "same.png").symlink_to("left_00001.png")
    (right / "other class.png").symlink_to(left / "left_00003.png")
    video.write(right / "left_00001.png", frames[:, :16, :16])  # the name of a clip of another class
    (root / "notes.txt").write_text("no class")
    (root / ".cache").mkdir()
    record = tmp_path / "run.json"
    status, out, err = _run(capsys, "train", root, "--out", tmp_path / "run", "--json", record, *SMALL)
    assert status == 0 and "6 clips were left out" in out, (out, err)
    skipped = {one["input"]: one["error"] for one in json.loads(record.read_text())["skipped"]}
    assert skipped.keys() == {
        "left/zero", "left/gone", "right/bad frame", "right/sizes", "left/same", "right/other class",
    }  # fmt: skip
    assert "2.png must be an image" in skipped["right/bad frame"] and "16x15" in skipped["right/sizes"]
    assert skipped["left/same"].endswith("is the same file as left/left_00001")
    assert "left/left_00003" in skipped["right/other class"]
    with pytest.warns(UserWarning, match="6 of 14 clips"):
        clips = ClipFolder(root)
        clips.check()
    assert {"left/left_00001", "right/left_00001", "right/good"} <= set(clips.names)
    command.is_refused(
        capsys,
        ["video", "train", root, "--strict", "--out", tmp_path / "b", *SMALL],
        "left/gone.png is a link to nothing",
    )


def test_one_frame_and_odd_sizes_are_trained_on(capsys, root, frames, tmp_path):
    pytest.importorskip("av")
    video.write(root / "left" / "one.mp4", frames[:1])
    video.write(root / "right" / "odd.mp4", frames[:, :31, :17])
    options = ["--hold-out", 0, "--stream", "flow", "--motion", "difference"]
    status, out, err = _run(capsys, "train", root, "--out", tmp_path / "run", *SMALL, *options)
    assert status == 0 and err == "" and "on 8 clips" in out


def test_one_class_is_none(capsys, tmp_path, frames):
    (tmp_path / "clips" / "alone").mkdir(parents=True)
    video.write(tmp_path / "clips" / "alone" / "x.png", frames)
    there = ["video", "train", tmp_path / "clips", "--out", tmp_path / "run"]
    command.is_refused(capsys, there, "must hold two or more classes, got only alone")


def test_classes_in_any_script(capsys, root, tmp_path):
    name = "класс 日本 ü"
    (root / "left").rename(root / name)
    assert _run(capsys, "train", root, "--out", tmp_path / "run", *SMALL)[0] == 0
    clip = next((root / name).iterdir())
    arguments = ["predict", tmp_path / "run" / "checkpoint.pt", clip, "-o", tmp_path / "x.gif", "--json", "-"]
    assert cli.main(["video", *map(str, arguments)]) == 0
    assert name in json.loads(capsys.readouterr().out)["videos"][0]["probabilities"]
