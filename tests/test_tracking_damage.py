"""Folders of tracking data with parts that are damaged: said by their names, or left out with a warning, never silently."""

import shutil
import warnings

import pytest

import amstel.data
from amstel.data.sequences import _lacking
from tests.command import run
from tests.test_tracking_data import make_got10k, make_otb, save_frames

BOXES = "1 1 4 3\n" * 2


def _nothing(path, how="link"):
    """What stands in the place of a file or a folder: a link to nothing, a loop of links, or a folder."""
    if path.is_dir():
        path.rename(path.with_name("away"))
    path.unlink(missing_ok=True)
    if how == "folder":
        path.mkdir()
    else:
        path.symlink_to("moved" if how == "link" else path.name)


@pytest.mark.parametrize("how", ["link", "loop", "folder"])
@pytest.mark.parametrize("part", ["groundtruth_rect.txt", "img"])
def test_a_sequence_of_otb_with_a_part_that_leads_nowhere_stays(tmp_path, part, how):
    """It vanished, and the scores were those of fewer sequences."""
    make_otb(tmp_path, "Ball", [1, 2], BOXES)
    _nothing(make_otb(tmp_path, "Cup", [1, 2], BOXES) / part, how)
    sequences = amstel.data.OTB(tmp_path)
    assert sequences.names == ["Ball", "Cup"] and len(sequences["Ball"]) == 2
    with pytest.raises((OSError, ValueError), match=rf"Cup.{part}"):
        sequences["Cup"]


def test_a_numbered_file_of_boxes_that_cannot_be_read_fails_its_sequence_alone(tmp_path):
    make_otb(tmp_path, "Ball", [1, 2], BOXES)
    cup = make_otb(tmp_path, "Cup", [1, 2], BOXES, "groundtruth_rect.2.txt")
    (cup / "groundtruth_rect.1.txt").mkdir()
    sequences = amstel.data.OTB(tmp_path)
    assert sequences.names == ["Ball", "Cup-1", "Cup-2"] and len(sequences["Cup-2"]) == 2
    with pytest.raises(OSError, match=r"Cup.groundtruth_rect\.1\.txt must be a text file"):
        sequences["Cup-1"]


def test_half_a_sequence_of_otb_and_links_to_nothing_are_named(tmp_path):
    make_otb(tmp_path, "Ball", [1, 2], BOXES)
    make_otb(tmp_path, "Cup", [1, 2], BOXES).joinpath("groundtruth_rect.txt").unlink()
    make_otb(tmp_path, "Dog", [1, 2], BOXES).joinpath("img").rename(tmp_path / "Dog" / "images")
    (tmp_path / "Egg").symlink_to("moved")
    (tmp_path / "anno").mkdir()
    with pytest.warns(UserWarning) as said:
        assert amstel.data.OTB(tmp_path).names == ["Ball"]
    assert [str(one.message) for one in said] == [
        f"{tmp_path}: 3 folders ignored (without img, or groundtruth_rect.txt with boxes): anno, Cup, Dog",
        f"{tmp_path}: 1 link ignored (broken): Egg",
    ]


def test_folders_that_are_no_sequences_are_named(tmp_path, capsys):
    """They were not: a sequence without its annotation is one that the scores lack."""
    for name in ("ball", "cup", "notes"):
        make_otb(tmp_path, name, [1, 2], BOXES, "groundtruth.txt")
        (tmp_path / name / "img" / "0001.jpg").rename(tmp_path / name / "0001.jpg")
    for name in ("cup", "notes"):
        (tmp_path / name / "groundtruth.txt").unlink()
    for reader in (amstel.data.VOT, amstel.data.GOT10k):
        with pytest.warns(UserWarning) as said:
            assert reader(tmp_path).names == ["ball"]
        named = [f"{tmp_path}: 2 folders ignored (without groundtruth.txt): cup, notes"]
        assert [str(one.message) for one in said] == named
    (tmp_path / "list.txt").write_text("ball\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        amstel.data.VOT(tmp_path)
    otb = tmp_path / "otb"
    make_otb(otb, "Ball", [1, 2], BOXES)
    (otb / "anno").mkdir()
    (otb / "_results").mkdir()
    _, _, err = run(capsys, "track", "evaluate", "--root", otb, "--out", tmp_path / "out")
    named = f"{otb}: 2 folders ignored (without img, or groundtruth_rect.txt with boxes): _results, anno"
    assert err.count(named) == err.count(" ignored (") == 1


def test_categories_of_alov_without_annotations_are_named(tmp_path):
    place = tmp_path / "alov300++_rectangleAnnotation_full"
    for name in ("01-Light", "02-Cover"):
        (place / name).mkdir(parents=True)
    (place / "01-Light" / "a.ann").write_text("")
    with pytest.warns(UserWarning, match=r"full: 1 folder ignored \(without files \.ann\): 02-Cover$"):
        assert amstel.data.ALOV(tmp_path).names == ["a"]


def test_two_sequences_of_one_name(tmp_path):
    """One was dropped: Jog-1 is the first target of Jog, or the folder of that name."""
    jog = make_otb(tmp_path, "Jog", [1, 2], BOXES, "groundtruth_rect.1.txt")
    other = make_otb(tmp_path, "Jog-1", [1, 2], BOXES)
    with pytest.raises(ValueError, match=r"one sequence of a name, got Jog-1 in Jog and Jog-1"):
        amstel.data.OTB(tmp_path)
    other.rename(tmp_path / "Jog-2")
    assert amstel.data.OTB(tmp_path).names == ["Jog-1", "Jog-2"]
    (jog / "groundtruth_rect.01.txt").write_text(BOXES)
    with pytest.raises(
        ValueError, match=r"Jog must hold one file of boxes a target, got .*\.01\.txt and .*\.1\."
    ):
        amstel.data.OTBSequence(jog, 1)


@pytest.mark.parametrize("how", ["link", "loop", "folder"])
@pytest.mark.parametrize("part", ["absence.label", "cover.label", "groundtruth.txt"])
def test_got10k_with_a_part_that_leads_nowhere(tmp_path, part, how):
    """Frames from which the target is absent had boxes then."""
    make_got10k(tmp_path, "GOT_1", "1,1,2,2\n" * 2, absence=[0] * 4, cover=[8] * 4)
    _nothing(tmp_path / "GOT_1" / part, how)
    with pytest.raises(OSError, match=part.replace(".", r"\.")):
        amstel.data.GOT10k(tmp_path)[0]


@pytest.mark.parametrize("how", ["link", "loop", "folder"])
def test_vot_with_a_part_that_leads_nowhere(tmp_path, how):
    save_frames(tmp_path / "bag", [1, 2])
    (tmp_path / "bag" / "groundtruth.txt").write_text(BOXES)
    anchors = tmp_path / "bag" / "anchor.value"
    anchors.write_text("1\n0\n")
    assert amstel.data.VOT(tmp_path)["bag"].anchors == [(0, False)]
    _nothing(anchors, how)
    with pytest.raises(OSError, match=r"anchor\.value"):
        amstel.data.VOT(tmp_path)["bag"]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (
            "GOT_1\nGOT_2\nGOT_1\n",
            ValueError,
            r"line 3: must name each sequence once, got GOT_1 in line 1 too",
        ),
        (b"GOT_1\n\xff\n", ValueError, "must be a text in UTF-8"),
        ("GOT_1\n" + "x" * 300, FileNotFoundError, "names xxx"),
        (None, OSError, "is a link to nothing; it should be a file"),
    ],
)
def test_a_damaged_list_of_sequences_is_named(tmp_path, text, error, message):
    for name in ("GOT_1", "GOT_2"):
        make_got10k(tmp_path, name, "1,1,2,2\n" * 2)
    if text is None:
        _nothing(tmp_path / "list.txt")
    else:
        (tmp_path / "list.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    for reader in (amstel.data.GOT10k, amstel.data.VOT):
        with pytest.raises(error, match=rf"list\.txt.*{message}"):
            reader(tmp_path)


def test_links_to_nothing_among_the_sequences_are_named(tmp_path):
    make_got10k(tmp_path, "GOT_1", "1,1,2,2\n" * 2)
    (tmp_path / "GOT_2").symlink_to("moved")
    with pytest.warns(UserWarning, match="1 link ignored .broken.: GOT_2"):
        assert amstel.data.GOT10k(tmp_path).names == ["GOT_1"]


def test_a_frame_of_a_huge_number_lacks_none(tmp_path):
    """The length of that range was an OverflowError."""
    folder = make_otb(tmp_path, "Ball", range(1, 6), BOXES * 3)
    shutil.copy(folder / "img" / "0001.jpg", folder / "img" / f"{'9' * 200}.jpg")
    assert len(amstel.data.OTBSequence(folder)) == 6
    assert _lacking([folder / f"{k:04d}.jpg" for k in (1, 2, 4, 5)]) == folder / "0003.jpg"


def test_a_name_that_no_folder_can_have_does_not_exist():
    with pytest.raises(FileNotFoundError, match=r"GOT10k: the folder x+ does not exist"):
        amstel.data.GOT10k("x" * 300)


@pytest.mark.parametrize("name", ["video1.ANN", "01-Light-video1.ann"])
def test_two_annotations_of_alov_of_one_name(tmp_path, name):
    boxes = tmp_path / "alov300++_rectangleAnnotation_full"
    for category in ("01-Light", "02-Cover"):
        (boxes / category).mkdir(parents=True)
        (boxes / category / "video1.ann").write_text("1 2 3 2 4 7 4 7 3\n")
    assert len(amstel.data.ALOV(tmp_path)) == 2
    (boxes / "02-Cover" / name).write_text("1 2 3 2 4 7 4 7 3\n")
    with pytest.raises(
        ValueError, match=r"one sequence of a name, got .*-video1 in .*video1\.\w+ and .*video1\.\w+"
    ):
        amstel.data.ALOV(tmp_path)
