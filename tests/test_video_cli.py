"""`amstel videolstm`: train, resume, predict; exit status and the one line on bad input; the example."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from amstel import cli, video
from amstel.apps.video import network
from amstel.apps.video import predict as video_predict
from amstel.apps.video import studies as video_studies
from amstel.apps.video import train as video_lstm
from amstel.data import generate_moving_shapes
from amstel.media import images
from tests import command

pytest.importorskip("PIL", reason="clips are read from PNG strips")
pytest.importorskip("scipy", reason="boxes need scipy")


pytestmark = pytest.mark.usefixtures("one_thread")


PLAIN = ["--frame-size", "32", "--hidden", "4", "--steps", "4", "--shift", "2"]
SMALL = [*PLAIN, "--motion", "difference"]


def _run(capsys, *arguments):
    return command.run(capsys, "videolstm", *arguments)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Strips in two class folders."""
    root = tmp_path_factory.mktemp("clips")
    for clip in generate_moving_shapes(10, frames=5, size=32, classes=2):
        folder = root / clip.name.split("_")[0]
        folder.mkdir(exist_ok=True)
        video.write(folder / f"{clip.name}.png", clip.frames)
    return root


@pytest.fixture(scope="module")
def checkpoint(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    assert cli.main(["videolstm", "train", str(root), "--out", str(out), "--epochs", "1", *SMALL]) == 0
    return out / video_lstm.CHECKPOINT


def test_train_and_resume(capsys, root, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    status, out, err = _run(
        capsys, "train", root, "--out", whole, "--epochs", 3, "--optimizer", "rmsprop", *SMALL
    )
    assert status == 0 and err == ""
    assert re.search(r"videolstm \(rgb\) on 8 clips of 2 classes, 3 epochs: loss \d", out)
    assert re.search(r"accuracy on 2 held-out clips: \d+\.0%", out)
    record = json.loads((whole / "training.json").read_text())
    assert len(record["history"]) == 3 and record["settings"]["frame_size"] == 32
    assert sorted({name.split("/")[0] for name in record["held_out"]}) == ["left", "right"]
    # Of all clips, most of which it was trained on, those that it held out are named apart; of these alone nothing is.
    said = tmp_path / "said.json"
    out = _run(capsys, "evaluate", whole / video_lstm.CHECKPOINT, root, "--json", said)[1]
    assert "on 10 clips\nof these, 2 were held out in training: accuracy" in out
    found = json.loads(said.read_text())
    right = [found["answers"][name] == name.split("/")[0] for name in record["held_out"]]
    assert found["held_out"] == {"accuracy": sum(right) / 2, "clips": 2, "missing": []}
    assert found["held_out"]["accuracy"] == record["held_out_accuracy"]

    assert (
        _run(capsys, "train", root, "--out", parts, "--epochs", 1, "--optimizer", "rmsprop", *SMALL)[0] == 0
    )
    assert _run(capsys, "train", root, "--out", parts, "--epochs", 3, "--resume")[0] == 0
    resumed = json.loads((parts / "training.json").read_text())
    assert resumed["held_out"] == record["held_out"] and len(resumed["history"]) == 3
    # The cosine of the rate knows the number of epochs, so only the first run of another length may differ.
    again = network.load(parts / video_lstm.CHECKPOINT)
    assert again.classes == ["left", "right"] and again.settings.epochs == 3


def test_an_official_split_with_bad_clips(capsys, root, tmp_path):
    """Trained on the train list alone, tested on the test list; what is missing or broken is named and counted."""
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(root, data)
    (data / "left" / "broken.png").write_bytes(b"no picture")
    files = sorted(f"{p.parent.name}/{p.name}" for p in root.rglob("*.png"))
    test = [name for name in files if name in (files[0], files[-1])]
    (data / "lists").mkdir()
    train = [*(name for name in files[:-2] if name not in test), "left/broken.png", "right/gone.png"]
    (data / "lists" / "trainlist02.txt").write_text("\n".join(train))
    (data / "lists" / "testlist02.txt").write_text("\n".join(test))
    arguments = ["train", data, "--split", 2, "--epochs", 1, "--out", out, "--json", tmp_path / "run.json"]
    status, said, err = _run(capsys, *arguments, *SMALL)
    assert status == 0 and "on 7 clips of 2 classes" in said and "2 clips were left out" in said
    assert (
        len(err.splitlines()) == 2 and "broken.png" in err and "right/gone.png: is listed but missing" in err
    )
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["held_out"] == [name.removesuffix(".png") for name in test] and record["split"] == 2
    assert len(record["skipped"]) == 2
    assert _run(capsys, "train", data, "--resume", "--epochs", 2, "--out", out)[0] == 0
    record = json.loads((out / "training.json").read_text())
    assert record["split"] == 2 and len(record["history"]) == 2
    status, said, _ = _run(capsys, "evaluate", out / "checkpoint.pt", data, "--split", 2, "--segments", 2)
    assert status == 1 and "on 2 clips" in said
    for more, message in (
        (["--strict"], "right/gone.png"),
        (["--split", 4], "--split must be a split of"),
        (["--hold-out", 0.5], "--hold-out cannot be given with --split"),
    ):
        there = ["train", data, "--split", 2, "--out", tmp_path / "other", *SMALL, *more]
        command.is_refused(capsys, ["videolstm", *there], message)
    command.is_refused(
        capsys,
        ["videolstm", "train", root, "--lists", data, "--out", tmp_path / "x"],
        "--lists needs --split",
    )


def test_pictures_of_videos_of_one_name_have_names_of_their_own(tmp_path):
    paths = [tmp_path / name for name in ("a/x.avi", "b/x.avi", "b/x.mp4", "y.avi")]
    found = [p.name for p in video_predict.targets(paths, tmp_path / "out", "lstm")]
    assert found == ["a_x_avi_lstm.gif", "b_x_avi_lstm.gif", "x_mp4_lstm.gif", "y_lstm.gif"]
    with pytest.raises(ValueError, match="two of the videos would be written to"):
        video_predict.targets([paths[0], paths[0]], tmp_path / "out", "lstm")


def test_hold_out_nothing(capsys, root, tmp_path):
    status, out, _ = _run(capsys, "train", root, "--out", tmp_path, "--epochs", 1, "--hold-out", 0, *SMALL)
    assert status == 0 and "on 10 clips" in out and "held out" not in out


@pytest.mark.parametrize("ending", ["gif", "mp4"])
def test_predict_writes_a_picture(capsys, root, checkpoint, tmp_path, ending):
    if ending == "mp4":
        pytest.importorskip("av")
    clip, file = next((root / "left").iterdir()), tmp_path / f"found.{ending}"
    status, out, err = _run(capsys, "predict", checkpoint, clip, "-o", file)
    assert status == 0 and err == ""
    shares = [float(x) for x in re.findall(r"(?:left|right) +(\d+\.\d)%", out)]
    assert len(shares) == 2 and shares[0] >= shares[1] and sum(shares) == pytest.approx(100, abs=0.2)
    frames = video.read(file)
    assert len(frames) == 5 and min(frames.shape[1:3]) >= 256


def test_a_video_is_read_frame_by_frame_and_found_as_one_at_hand(checkpoint, tmp_path, monkeypatch):
    """No array of all frames at their own size, so that memory does not grow with the length of a video."""
    from amstel.apps.video.network import load
    from amstel.media import reading

    net = load(checkpoint)
    frames = generate_moving_shapes(1, frames=7, size=48)[0].frames
    source = video.write(tmp_path / "in.gif", frames, fps=10)
    frames = video.read(source)
    expected = video_predict.predict(net, frames, times=[k / 10 for k in range(7)])
    monkeypatch.setattr(reading, "_together", None)
    (done,) = video_predict.files(net, [source], [tmp_path / "out.mp4"])
    assert done.value["boxes"] == expected.boxes.tolist()
    assert list(done.value["probabilities"].values()) == sorted(expected.probabilities.tolist(), reverse=True)
    monkeypatch.undo()
    assert len(video.read(tmp_path / "out.mp4")) == 7
    (tmp_path / "mixed").mkdir()
    for k, side in enumerate((48, 48, 40)):
        video.write(tmp_path / "mixed" / f"{k}.png", frames[:1, :side, :side])
    with pytest.raises(ValueError, match=r"2\.png must be 48x48 as the first frame of its folder, got 40x40"):
        video_predict.files(net, [tmp_path / "mixed"], [tmp_path / "out.mp4"])


@pytest.mark.parametrize("stdout", ["utf-8", "ascii", "closed", "broken"])
def test_what_stdout_cannot_say_costs_no_file(capsys, root, checkpoint, tmp_path, monkeypatch, stdout):
    """Letters that its encoding lacks, no stdout at all, and a reader that is gone."""
    clips = [tmp_path / name for name in ("é.png", os.fsdecode(b"\xe7.png"))]  # the latter is not UTF-8
    for clip in clips:
        shutil.copy(next((root / "left").iterdir()), clip)
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "utf-8" if stdout == "broken" else stdout) if stdout != "closed" else None
    if stdout == "broken":
        read, write = os.pipe()
        os.close(read)
        stream = open(write, "w", buffering=1, encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    words = ["video", "predict", checkpoint, *clips, "-o", tmp_path / "out"]
    table, record = tmp_path / "a.csv", tmp_path / "a.json"
    words_and_files = [str(word) for word in (*words, "--csv", table, "--json", record)]
    if stdout == "broken":
        with pytest.raises(SystemExit, match="1"):
            cli.main(words_and_files)
    else:
        assert cli.main(words_and_files) == 0 and sys.stdout is stream
    assert capsys.readouterr().err == ""
    rows = list(csv.DictReader(io.StringIO(table.read_text("utf-8", errors="surrogateescape"), newline="")))
    assert {row["video"] for row in rows} == {str(clip) for clip in clips}
    assert [one["input"] for one in json.loads(record.read_bytes())["videos"]] == [
        str(clip) for clip in clips
    ]
    if stdout in ("utf-8", "ascii"):
        assert stream.errors == "strict"
        stream.flush()
        first, second = ("\\xe9.png:", "\\udce7.png:") if stdout == "ascii" else ("é.png:", "\\udce7.png:")
        said = raw.getvalue().decode(stdout)
        assert f"{tmp_path}/{first}\n" in said and f"{tmp_path}/{second}\n" in said
        raw.truncate(0)
        raw.seek(0)
        assert cli.main([str(word) for word in (*words, "--json", "-", "--force")]) == 0
        found = json.loads(raw.getvalue())["videos"]
        assert [one["input"] for one in found] == [str(clip) for clip in clips]


def test_predict_writes_beside_where_one_stands(capsys, root, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clip = next((root / "left").iterdir())
    assert _run(capsys, "predict", checkpoint, clip)[0] == 0
    assert [file.name for file in tmp_path.iterdir()] == [f"{clip.stem}_videolstm.gif"]


def test_bad_input_is_one_line_and_status_2(capsys, root, checkpoint, tmp_path):
    (tmp_path / "no_class").mkdir()
    (tmp_path / "no_clip" / "left").mkdir(parents=True)
    (tmp_path / "no_clip" / "left" / "notes.txt").write_text("nothing to see")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing of the kind")
    (tmp_path / "empty.avi").write_bytes(b"")
    (tmp_path / "no_frames").mkdir()
    (tmp_path / "other.pt").write_bytes(b"not a checkpoint")
    torch.save({"format": "of someone else"}, tmp_path / "else.pt")
    out, clip = tmp_path / "out", next((root / "left").iterdir())
    pytest.importorskip("av")
    for arguments, message in (
        ([], "COMMAND is missing"),
        (["train"], "train: Missing "),
        (["train", root], "--out"),
        (["train", tmp_path / "nowhere", "--out", out], "does not exist"),
        (["train", tmp_path / "no_class", "--out", out], "one folder per class"),
        (["train", tmp_path / "no_clip", "--out", out], "got none"),
        (["train", root, "--out", out, "--model", "gcn"], "--model should be one of lstm"),
        (["train", root, "--out", out, "--epochs", "0"], "--epochs should be an integer >= 1, got 0"),
        (
            ["train", root, "--out", out, "--dropout", "1.5"],
            "--dropout should be a number in [0, 1), got 1.5",
        ),
        (["train", root, "--out", out, "--hold-out", "1"], "--hold-out should be a number in [0, 1), got 1"),
        (["train", root, "--out", out, "--backbone", "vgg16"], "needs --weights"),
        (["train", root, "--out", out, "--weights", checkpoint], "--weights is for --backbone vgg16"),
        (["train", root, "--out", out, "--resume"], "does not exist"),
        # Options that would do nothing.
        (
            ["train", root, "--out", out, *SMALL, "--model", "lstm"],
            "--motion needs --model videolstm, or --stream",
        ),
        (
            ["train", root, "--out", out, *PLAIN, "--model", "cnn"],
            "--hidden needs a recurrent model, got --model cnn",
        ),
        (
            ["train", root, "--out", out, "--model", "convlstm", "--initial-state", "mean"],
            "--initial-state needs a model with attention, got --model convlstm",
        ),
        (
            ["extract", root, "--out", out, "--weights", checkpoint, "--motion", "difference"],
            "--motion needs --stream flow or both",
        ),
        (
            ["evaluate", checkpoint, root, "--intervals", root, "--segments", 3],
            "--segments cannot be given with --intervals",
        ),
        (["study", "order", "--root", root], "--root is not for order"),
        (
            ["train", root, "--out", checkpoint.parent, "--resume", "--hidden", "8"],
            "only change --epochs",
        ),
        (
            ["train", root, "--out", out, "--resume", "--weights", checkpoint],
            "only change --epochs",
        ),
        (["predict", tmp_path / "nowhere.pt", clip], "nowhere.pt does not exist"),
        (["predict", tmp_path / "other.pt", clip], "is not a checkpoint"),
        (["predict", tmp_path / "else.pt", clip], "is not a checkpoint"),
        (["predict", checkpoint, tmp_path / "nowhere.avi"], "nowhere.avi does not exist"),
        (["predict", checkpoint, tmp_path / "broken.png"], "broken.png"),
        (["predict", checkpoint, tmp_path / "empty.avi"], "empty.avi"),
        (["predict", checkpoint, tmp_path / "no_frames"], "must hold videos, frames or folders of frames"),
        (["predict", checkpoint, clip, "-o", "found.txt"], "must end in .gif or .mp4"),
        (["predict", checkpoint, clip, "-o", "/nowhere/found.gif"], "cannot write"),
        (["study", "kinetics"], "NAME should be one of weizmann"),
        (["study", "weizmann", "--root", tmp_path / "nowhere"], "does not exist"),
        (["study", "order", "--seed", 7], "No such option: --seed"),
    ):
        command.is_refused(capsys, ["videolstm", *arguments], message)


def test_a_study_says_its_lines_and_writes_them(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(video_studies.STUDIES, "order", lambda root, say: say("a line") or {"study": "order"})
    status, out, _ = _run(capsys, "study", "order", "--json", tmp_path / "order.json")
    assert status == 0 and out == "a line\n"
    assert json.loads((tmp_path / "order.json").read_text()) == {"study": "order"}


def test_the_study_of_weizmann_lists_what_was_wrong_and_no_more(tmp_path, monkeypatch):
    """Answers were compared with the folder of a clip, which need not be its class."""
    entries = []
    (tmp_path / "weizmann4" / "all").mkdir(parents=True)
    for n in range(4):
        entry = {"file": f"weizmann4/all/{n}.png", "label": ("bend", "wave")[n // 2], "subject": n % 2}
        video.write(tmp_path / entry["file"], torch.zeros(2, 8, 8, 3).byte())
        entries.append(entry)
    (tmp_path / "weizmann4" / "manifest.json").write_text(json.dumps(entries))

    def answers(network, clips):  # all bend
        probabilities = torch.tensor([[1.0, 0.0]]).expand(len(clips), 2)
        labels = torch.tensor([clips[n].label for n in range(len(clips))])
        names = [clips[n].name for n in range(len(clips))]
        return SimpleNamespace(probabilities=probabilities, labels=labels, names=names)

    monkeypatch.setattr(video_studies, "train", lambda *arguments: SimpleNamespace(network=None))
    monkeypatch.setattr(video_studies, "evaluate", answers)
    said = []
    flow, _ = video_studies.weizmann(tmp_path, said.append)["runs"]
    assert flow["accuracy"] == 0.5 and flow["wrong"] == [["all/2", "bend"], ["all/3", "bend"]], flow


def test_no_root_known(capsys, monkeypatch):
    monkeypatch.delenv("AMSTEL_DATA", raising=False)
    status, _, err = _run(capsys, "study", "weizmann")
    assert status == 2 and "AMSTEL_DATA" in err and err.count("\n") == 1


def test_help(capsys):
    for action in ([], ["train"], ["predict"], ["study"]):
        status, out, _ = _run(capsys, *action, "--help")
        assert status == 0 and out.startswith("Usage: amstel videolstm")


def test_example(tmp_path):
    example = Path(__file__).parent.parent / "examples" / "video_lstm.py"
    text = example.read_text()
    assert len(text.splitlines()) < 80
    short = tmp_path / "short.py"  # the same with less training
    short.write_text(text.replace("epochs=26", "epochs=1").replace("(400,", "(20,").replace("(100,", "(10,"))
    file = tmp_path / "found.gif"
    done = subprocess.run([sys.executable, str(short), str(file)], capture_output=True, text=True, check=True)
    assert "attention (6, 2, 8, 8)" in done.stdout and f"wrote {file}" in done.stdout
    assert len(video.read(file)) == 6


def test_a_held_out_clip_that_is_gone_is_named(capsys, root, checkpoint, tmp_path):
    """The accuracy of the others is still the one to report."""
    held = json.loads((checkpoint.parent / "training.json").read_text())["held_out"]
    data = tmp_path / "data"
    shutil.copytree(root, data)
    (data / f"{held[0]}.png").unlink()
    said = _run(capsys, "evaluate", checkpoint, data, "--json", tmp_path / "found.json")[1]
    assert "of these, 1 was held out" in said and f"1 of those held out not found here: {held[0]}" in said
    found = json.loads((tmp_path / "found.json").read_text())["held_out"]
    assert found["clips"] == 1 and found["missing"] == [held[0]]


def test_a_training_that_fails_leaves_the_record_of_the_run_before(capsys, root, tmp_path):
    """training.json says what the checkpoint held out: that of another run would call clips held out that it has seen."""
    out = tmp_path / "run"
    arguments = ["train", root, "--out", out, *SMALL]
    assert _run(capsys, *arguments, "--epochs", 1)[0] == 0
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    failing = ["--epochs", 3, "--batch", 2, "--seed", 7, "--learning-rate", 1e30, "--force"]
    status, _, err = _run(capsys, *arguments, *failing)
    assert status == 2 and "training diverged" in err
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    (tmp_path / "own").mkdir()
    own = tmp_path / "own" / "training.json"
    own.write_text("mine")
    command.is_refused(capsys, ["video", "train", root, "--out", own.parent, *SMALL], "training.json exists")
    assert own.read_text() == "mine"


def test_strips_in_a_folder_are_videos(capsys, root, checkpoint, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(root / "left", mixed)
    video.write(mixed / "z.gif", video.read(next((root / "left").glob("*.png"))))
    out = tmp_path / "found.json"
    found = ["predict", checkpoint, mixed, "-o", tmp_path / "seen", "--json", out]
    assert _run(capsys, *found)[0] == 0
    seen = [Path(one["input"]).name for one in json.loads(out.read_text())["videos"]]
    assert seen == [file.name for file in sorted(mixed.iterdir())]
    (mixed / "clip.unknown").write_bytes(b"")
    status, _, err = _run(capsys, *found, "--force")
    assert status == 0 and " ignored (" in err and err.rstrip().endswith(": clip.unknown")
    message = "must hold frames, but"
    command.is_refused(
        capsys, ["track", root / "left", "--box", "5,5,8,8", "-o", tmp_path / "b.csv"], message
    )
    for k in range(2):  # a frame for itself is none
        video.write(
            tmp_path / "frames" / f"{k}.png" if (tmp_path / "frames").mkdir(exist_ok=True) is None else "",
            torch.zeros(1, 32, 32, 3).byte(),
        )
    assert len(video.read(tmp_path / "frames")) == 2


def test_strips_that_nobody_marked_are_videos_as_they_are_to_a_training(capsys, root, checkpoint, tmp_path):
    """Three strips were taken without a word for one video of three wide frames."""
    clips, out = tmp_path / "clips", tmp_path / "found.json"
    clips.mkdir()
    for number, file in enumerate(sorted((root / "left").glob("*.png"))):
        images.write(clips / f"{2 * number}.png", images.read(file))
    pictures = sorted(clips.iterdir())

    def seen():
        found = ["predict", checkpoint, clips, "-o", tmp_path / "seen", "--json", out, "--force"]
        status, _, err = _run(capsys, *found)
        assert status == 0, err
        return [(Path(v["input"]), len(v["boxes"])) for v in json.loads(out.read_text())["videos"]], err

    frames = len(video.read(pictures[0]))
    said = f"{clips}: {len(pictures)} pictures taken as strips of frames"
    found, err = seen()
    assert found == [(path, frames) for path in pictures] and err.count("\n") == err.count(said) == 1
    video.write(clips / "z.gif", video.read(pictures[0]))
    assert seen() == ([(path, frames) for path in sorted(clips.iterdir())], "")
    images.write(clips / "photograph.png", torch.zeros(32, 70, 3).byte())
    assert "1 file ignored (neither a video nor a strip of frames): photograph.png" in seen()[1]
    for one in (*pictures, clips / "z.gif"):
        one.unlink()
    images.write(
        clips / "photograph2.png", torch.zeros(32, 70, 3).byte()
    )  # not a whole number of squares: frames
    assert seen() == ([(clips, 2)], "")


def test_a_strip_that_is_too_high_to_be_taken_for_one(capsys, checkpoint, tmp_path):
    """It was one frame to a prediction, though a training reads strips of any height."""
    file, out = tmp_path / "high.png", tmp_path / "found.json"
    found = ["video", "predict", checkpoint, file, "-o", tmp_path / "a.gif", "--json", out, "--force"]
    images.write(file, torch.zeros(129, 3 * 129, 3).byte())
    message = f"{file} must be a video, or a strip of at most 128 rows if `amstel.video.write` has not marked"
    command.is_refused(capsys, found, message)
    with pytest.raises(ValueError, match=r"got squares of 129 rows side by side"):
        video_predict.find([file])
    images.write(file, torch.zeros(129, 300, 3).byte())  # one frame
    assert video_predict.find([file]) == [file]
    video.write(file, torch.zeros(3, 129, 129, 3).byte())
    assert command.run(capsys, *found)[0] == 0
    assert len(json.loads(out.read_text())["videos"][0]["boxes"]) == 3


def test_resumed_with_more_clips(capsys, root, tmp_path):
    """Epochs are counted, though they now have more steps; no fewer can be asked for than are done."""
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(root, data)
    arguments = ["train", data, "--out", out]
    assert _run(capsys, *arguments, *SMALL, "--epochs", 2, "--batch", 2)[0] == 0
    for file in list(data.rglob("*.png")):
        shutil.copy(file, file.with_name(f"more_{file.name}"))
    status, said, _ = _run(capsys, *arguments, "--resume", "--epochs", 3)
    assert status == 0 and "on 18 clips" in said and "3 epochs" in said
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    assert len(state["history"]) == 3 and state["training"]["step"] == 3 * 9
    command.is_refused(
        capsys, ["video", *arguments, "--resume", "--epochs", "2"], "--epochs must be at least 3"
    )


def test_a_table_of_boxes_needs_attention(capsys, root, tmp_path):
    out = tmp_path / "run"
    assert _run(capsys, "train", root, "--out", out, *PLAIN, "--epochs", 1, "--model", "convlstm")[0] == 0
    clip = next(root.rglob("*.png"))
    given = [
        "video",
        "predict",
        out / "checkpoint.pt",
        clip,
        "-o",
        tmp_path / "a.gif",
        "--csv",
        tmp_path / "a.csv",
    ]
    command.is_refused(capsys, given, "--csv needs a model with attention")
    command.is_refused(capsys, [*given[:-2], "--actors", 2], "--actors needs a model with attention")
