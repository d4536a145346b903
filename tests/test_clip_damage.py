"""Clips, their lists and annotations with parts that are damaged or lead nowhere: said by their names, never passed over."""

import json
import warnings

import pytest

import amstel
from amstel import video
from amstel.apps.tracking import evaluate
from amstel.apps.video import features, predict
from amstel.cli._video import read_record
from amstel.data import SplitClips, generate_moving_shapes
from tests import command
from tests.test_clips import weizmann  # noqa: F401
from tests.test_splits import _touch, ucf  # noqa: F401
from tests.test_video_annotations import _viper

HOW = pytest.mark.parametrize("how", ["link", "loop", "folder"])


def _nothing(path, how):
    path.unlink(missing_ok=True)
    if how == "folder":
        path.mkdir(parents=True)
    else:
        path.symlink_to("moved" if how == "link" else path.name)


# ---- Lists ----


@HOW
@pytest.mark.parametrize("part", ["trainlist01.txt", "testlist01.txt", "classInd.txt"])
def test_a_list_that_leads_nowhere(ucf, part, how):  # noqa: F811
    """A split without test clips was read, or classes in another order."""
    _nothing(ucf / "ucfTrainTestlist" / part, how)
    with pytest.raises(OSError, match=part.replace(".", r"\.")):
        SplitClips(ucf / "UCF-101", ucf / "ucfTrainTestlist")


@pytest.mark.parametrize("part", ["training", "test"])
def test_a_part_of_a_split_without_clips_is_said(ucf, part):  # noqa: F811
    lists = ucf / "ucfTrainTestlist"
    (lists / f"{part[:5].removesuffix('i')}list01.txt").write_text("")
    clips = SplitClips(ucf / "UCF-101", lists)
    with pytest.warns(UserWarning, match=f"split 1 of {lists} has no {part} clips"):
        assert [] in clips.split(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clips.split(2)


@pytest.mark.parametrize(
    "text", ["y,b,inf,2\n", "y,b,1e400,2\n", "y,b,nan,2\n", f'y,"{"x" * 140_000}",1,2\n']
)
def test_lines_of_kinetics_that_are_none(tmp_path, text):
    """An infinite time was an OverflowError without file and line, a long field one of the module csv."""
    _touch(tmp_path / "a.mp4")
    (tmp_path / "train.csv").write_text("label,youtube_id,time_start,time_end\n" + text)
    with pytest.raises(ValueError, match=r"train\.csv, line 2 must "):
        SplitClips(tmp_path)


def test_a_list_of_a_name_that_no_folder_can_have(tmp_path):
    _touch(tmp_path / "yoga" / "a.mp4")
    (tmp_path / "train.csv").write_text(f"yoga/a.mp4 yoga\n{'x' * 300}/b.mp4 yoga\n")
    with pytest.warns(UserWarning, match="1 of 2 clips"):
        assert len(SplitClips(tmp_path)) == 1


def test_two_tables_of_one_part(tmp_path):
    """One of them was read, and nothing said which."""
    _touch(tmp_path / "yoga" / "a.mp4")
    for name in ("train.csv", "train.txt"):
        (tmp_path / name).write_text("yoga/a.mp4 yoga\n")
    with pytest.raises(ValueError, match=r"must hold one list of a part, got train\.csv and train\.txt"):
        SplitClips(tmp_path)


# ---- Weizmann ----


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subject": float("inf")}, "must be a list of"),
        ({"subject": 1.7}, "must be a list of .* the subject 1.7"),
        ({"file": ""}, "must have the name of a clip"),
        ({"file": "."}, "must have the name of a clip"),
        ({"file": ".."}, "must have the name of a clip"),
        ("[" * 100_000, "must be a list of"),
    ],
)
def test_a_manifest_of_other_things(weizmann, change, message):  # noqa: F811
    manifest = weizmann / "manifest.json"
    if isinstance(change, dict):
        entries = json.loads(manifest.read_text())
        entries[0] |= change
        change = json.dumps(entries)
    manifest.write_text(change)
    with pytest.raises(ValueError, match=rf"manifest\.json {message}"):
        amstel.data.Weizmann(weizmann)


def test_a_manifest_of_a_name_that_no_file_can_have(weizmann):  # noqa: F811
    manifest = weizmann / "manifest.json"
    entries = json.loads(manifest.read_text())
    entries[0]["file"] = "x" * 300
    manifest.write_text(json.dumps(entries))
    with pytest.raises(FileNotFoundError, match=r"manifest\.json lists xxx"):
        amstel.data.Weizmann(weizmann)


@HOW
def test_a_manifest_that_leads_nowhere(weizmann, how):  # noqa: F811
    _nothing(weizmann / "manifest.json", how)
    with pytest.raises(OSError, match=r"manifest\.json"):
        amstel.data.Weizmann(weizmann)


# ---- Times and boxes ----


@HOW
@pytest.mark.parametrize("part", ["detclasslist.txt", "Ambiguous_test.txt", "Diving_test.txt"])
def test_annotations_of_thumos14_that_lead_nowhere(tmp_path, part, how):
    _touch(tmp_path / "v.mp4")
    for name in ("Diving", "HighJump", "Ambiguous"):
        (tmp_path / f"{name}_test.txt").write_text("v 0.1 0.2\n")
    assert amstel.data.THUMOS14(tmp_path).numbers == [26, 40]
    _nothing(tmp_path / part, how)
    with pytest.raises(OSError, match=part.replace(".", r"\.")):
        amstel.data.THUMOS14(tmp_path)


@pytest.mark.parametrize("number", ["²", "9" * 5000])
def test_a_number_of_a_class_that_is_none(tmp_path, number):
    _touch(tmp_path / "v.mp4")
    (tmp_path / "Diving_test.txt").write_text("v 0.1 0.2\n")
    (tmp_path / "detclasslist.txt").write_text(f"{number} Diving\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"detclasslist\.txt, line 1 must be a number and a class"):
        amstel.data.THUMOS14(tmp_path)


@pytest.mark.parametrize(
    "entry",
    [
        '{"sf": 0, "ef": 1, "boxes_xywh": [[1e400, 1, 2, 2]]}',
        '{"sf": 0, "ef": 1, "boxes_xywh": [[3e38, 1, 3e38, 2]]}',
        '{"sf": 0.5, "ef": 1, "boxes_xywh": [[1, 1, 2, 2]]}',
        '{"sf": 0, "ef": 1e400, "boxes_xywh": [[1, 1, 2, 2]]}',
    ],
)
def test_boxes_that_are_none(tmp_path, entry):
    """Infinite boxes were taken, and half a frame for none."""
    _touch(tmp_path / "Diving" / "v.mp4")
    (tmp_path / "boxes.json").write_text(f'{{"Diving/v": {{"annotations": [{entry}]}}}}')
    with pytest.raises(ValueError, match=r"boxes\.json must hold the boxes of UCF101's clips"):
        amstel.data.UCF101(tmp_path)


@pytest.mark.parametrize(
    "find, put",
    [('framespan="1:2"', 'framespan="1:99999999999"'), ('x="1"', 'x="1e39"'), ('x="1"', 'x="inf"')],
)
def test_a_file_of_the_viper_tool_that_is_damaged(tmp_path, find, put):
    """A frame of many digits was an error of the memory without the file."""
    _touch(tmp_path / "Diving" / "v.mp4", tmp_path / "boxes" / "Diving" / "v.xgtf")
    text = _viper([(0, [[1, 1, 2, 2], [2, 1, 2, 2]], "")])
    (tmp_path / "boxes" / "Diving" / "v.xgtf").write_text(text.replace(find, put))
    assert find in text
    with pytest.raises(ValueError, match=r"v\.xgtf must be a file of the ViPER tool"):
        amstel.data.UCF101(tmp_path, tmp_path / "boxes")


def test_two_files_of_the_viper_tool_for_one_clip(tmp_path):
    _touch(
        tmp_path / "Diving" / "v.mp4", *(tmp_path / "boxes" / "Diving" / f"v.{e}" for e in ("xgtf", "XGTF"))
    )
    for path in (tmp_path / "boxes" / "Diving").iterdir():
        path.write_text(_viper([(0, [[1, 1, 2, 2]], "")]))
    with pytest.raises(ValueError, match="one file of boxes for Diving/v, got two"):
        amstel.data.UCF101(tmp_path, tmp_path / "boxes")


# ---- Folders of clips ----


def test_clips_and_classes_that_are_links_to_nothing_are_named(capsys, tmp_path):
    """Training, evaluation and prediction went on without them, and said nothing."""
    root = tmp_path / "clips"
    for clip in generate_moving_shapes(6, frames=4, size=32, classes=2):
        folder = root / clip.name.split("_")[0]
        folder.mkdir(parents=True, exist_ok=True)
        video.write(folder / f"{clip.name}.png", clip.frames)
    first = sorted(root.iterdir())[0]
    (root / "zoom").symlink_to("moved")
    (first / "frames").symlink_to("moved")
    (first / "loop").symlink_to("loop")
    passed = f"{root}: 3 links ignored (broken): zoom, {first.name}/frames, {first.name}/loop"
    small = ["--frame-size", 32, "--hidden", 4, "--steps", 3, "--motion", "difference", "--epochs", 1]
    status, _, err = command.run(capsys, "video", "train", root, "--out", tmp_path / "out", *small)
    assert status == 0 and err.count(passed) == err.count(" ignored (") == 1
    network = tmp_path / "out" / "checkpoint.pt"
    status, _, err = command.run(capsys, "video", "evaluate", network, root)
    assert status == 0 and err.count(passed) == err.count(" ignored (") == 1
    status, _, err = command.run(capsys, "video", "predict", network, first, "-o", f"{tmp_path / 'made'}/")
    assert (
        status == 0
        and err.count(f"{first}: 2 links ignored (broken): frames, loop") == err.count(" ignored (") == 1
    )
    (first / "b.mp4").symlink_to("moved")
    status, _, err = command.run(capsys, "video", "predict", network, first, "-o", f"{tmp_path / 'more'}/")
    assert status == 1 and "b.mp4" in err
    assert predict.find([first])


def test_splits_without_a_part_are_refused_by_the_commands(capsys, tmp_path):
    root, lists = tmp_path / "clips", tmp_path / "lists"
    lists.mkdir()
    rows = []
    for clip in generate_moving_shapes(6, frames=4, size=32, classes=2):
        label = clip.name.split("_")[0]
        (root / label).mkdir(parents=True, exist_ok=True)
        video.write(root / label / f"{clip.name}.gif", clip.frames)
        rows.append(f"{label}/{clip.name}.gif\n")
    (lists / "trainlist01.txt").write_text("".join(rows))
    (lists / "testlist01.txt").write_text("")
    given = [root, "--split", 1, "--lists", lists]
    small = ["--frame-size", 32, "--hidden", 4, "--steps", 3, "--motion", "difference", "--epochs", 1]
    said = f"split 1 of {lists} has no test clips"
    status, _, err = command.run(capsys, "video", "train", *given, "--out", tmp_path / "out", *small)
    assert status == 0 and err.count(said) == 1
    network = tmp_path / "out" / "checkpoint.pt"
    status, _, err = command.run(capsys, "video", "evaluate", network, *given)
    assert status == 2 and f"--split 1: {root} holds no test clips of it" in err
    (lists / "trainlist01.txt").rename(lists / "testlist01.txt")
    (lists / "trainlist01.txt").write_text("")
    status, _, err = command.run(capsys, "video", "train", *given, "--out", tmp_path / "b", *small)
    assert status == 2 and f"--split 1: {root} holds no training clips of it" in err


@pytest.mark.parametrize(
    "read",
    [
        read_record,
        lambda file: features._read_record(file.parent),
        lambda file: evaluate.same_tracker(file, {}, []),
    ],
)
def test_records_nested_without_end_are_named(tmp_path, read):
    """They ended in a RecursionError."""
    for name in ("training.json", features.RECORD):
        (tmp_path / name).write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"\.json (is not what|must hold the settings)"):
        read(tmp_path / "training.json")
