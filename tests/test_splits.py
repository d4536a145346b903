"""Official splits of UCF101, HMDB51 and Kinetics, on trees like theirs of empty files: a reader opens none of them."""

from __future__ import annotations

import pytest

from amstel.data import SplitClips


def _touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _names(clips, indices):
    return [(clips.paths[k].name, clips.classes[clips.labels[k]]) for k in indices]


@pytest.fixture
def ucf(tmp_path):
    """UCF-101 beside ucfTrainTestlist, as its archives unpack; lines end in CR LF, as there."""
    lists = tmp_path / "ucfTrainTestlist"
    for label in ("Archery", "YoYo"):
        _touch(*(tmp_path / "UCF-101" / label / f"v_{label}_g0{g}_c01.avi" for g in (1, 2, 3)))
    lists.mkdir()
    (lists / "classInd.txt").write_bytes(b"1 YoYo\r\n2 Archery\r\n")
    for k in (1, 2, 3):
        test, train = [], []
        for number, label in ((1, "YoYo"), (2, "Archery")):
            for g in (1, 2, 3):
                line = f"{label}/v_{label}_g0{g}_c01.avi"
                (test if g == k else train).append(line if g == k else f"{line} {number}")
        (lists / f"trainlist0{k}.txt").write_bytes("\r\n".join([*train, ""]).encode())
        (lists / f"testlist0{k}.txt").write_bytes("\r\n".join([*test, ""]).encode())
    return tmp_path


@pytest.mark.parametrize("root, lists", [("UCF-101", None), (".", None), ("UCF-101", "ucfTrainTestlist")])
def test_ucf101(ucf, root, lists):
    clips = SplitClips(ucf / root, None if lists is None else ucf / lists)
    assert clips.classes == ["YoYo", "Archery"] and len(clips) == 6 and clips.numbers == [1, 2, 3]
    assert clips.missing == []
    for k in (1, 2, 3):
        train, test = clips.split(k)
        assert _names(clips, test) == [(f"v_{c}_g0{k}_c01.avi", c) for c in ("YoYo", "Archery")]
        assert sorted(train + test) == list(range(6))
    with pytest.raises(ValueError, match=r"`number` must be a split of .*, one of 1, 2, 3, got 4"):
        clips.split(4)


def test_clips_that_are_not_there_are_counted(ucf):
    (ucf / "UCF-101" / "YoYo" / "v_YoYo_g02_c01.avi").unlink()
    with pytest.warns(
        UserWarning, match=r"1 of 6 clips .* is not in .* and left out: YoYo/v_YoYo_g02_c01.avi"
    ):
        clips = SplitClips(ucf / "UCF-101")
    assert clips.missing == ["YoYo/v_YoYo_g02_c01.avi"] and len(clips) == 5
    with pytest.raises(FileNotFoundError, match=r"list0\d.txt, line \d lists YoYo/v_YoYo_g02_c01.avi"):
        SplitClips(ucf / "UCF-101", strict=True)
    # As frames, or with another ending, it is there.
    _touch(ucf / "UCF-101" / "YoYo" / "v_YoYo_g02_c01" / "0001.jpg")
    assert len(SplitClips(ucf / "UCF-101", strict=True)) == 6
    _touch(ucf / "UCF-101" / "YoYo" / "v_YoYo_g02_c01.mp4")
    with pytest.raises(ValueError, match=r"which must be one clip, got .*g02_c01, .*g02_c01.mp4"):
        SplitClips(ucf / "UCF-101")


def test_hmdb51(tmp_path):
    """Names of all sorts, one of them in both classes."""
    names = ["a #1_(x)&.avi", "b.1.5_x.avi", "c.avi"]
    for label in ("brush_hair", "cartwheel"):
        _touch(*(tmp_path / "hmdb51" / label / name for name in names))
        for k in (1, 2):
            text = "".join(f"{name} {(i + k) % 3} \n" for i, name in enumerate(names))
            path = tmp_path / "splits" / f"{label}_test_split{k}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    clips = SplitClips(tmp_path / "hmdb51")
    assert clips.classes == ["brush_hair", "cartwheel"] and len(clips) == len(set(clips.names)) == 6
    for k, train, test in ((1, names[0], names[1]), (2, names[2], names[0])):
        assert [_names(clips, part) for part in clips.split(k)] == [
            [(name, "brush_hair"), (name, "cartwheel")] for name in (train, test)
        ]


def test_kinetics(tmp_path):
    _touch(*(tmp_path / "train" / "air drumming" / f"{v}_000010_000020.mp4" for v in ("-a_b", "c")))
    _touch(tmp_path / "val" / "yoga" / "d_000000_000010.mp4")
    head = "label,youtube_id,time_start,time_end,split\n"
    (tmp_path / "train.csv").write_text(
        head + '"air drumming",-a_b,10,20,train\nair drumming,c,10.0,20.0,train\nyoga,gone,1,11,train\n'
    )
    (tmp_path / "validate.csv").write_text(head + "yoga,d,0,10,validate\n")
    with pytest.warns(UserWarning, match="1 of 4 clips"):
        clips = SplitClips(tmp_path)
    train, test = clips.split(1)
    assert _names(clips, train) == [(f"{v}_000010_000020.mp4", "air drumming") for v in ("-a_b", "c")]
    assert _names(clips, test) == [("d_000000_000010.mp4", "yoga")]


@pytest.mark.parametrize("lines", [["x/a b.mp4 run", "x/c.mp4 sit"], ["x/a b.mp4,run", "x/c.mp4,sit"],
                                   ["path,label", "x/a b.mp4,run", "x/c.mp4,sit"]])  # fmt: skip
def test_plain_tables(tmp_path, lines):
    _touch(tmp_path / "x" / "a b.mp4", tmp_path / "x" / "c.mp4")
    (tmp_path / "train.csv").write_text("\n".join(lines))
    (tmp_path / "test.csv").write_text(lines[-1].replace("c.mp4", "d.mp4"))
    with pytest.warns(UserWarning, match=r"x/d\.mp4"):
        clips = SplitClips(tmp_path)
    assert _names(clips, clips.split()[0]) == [("a b.mp4", "run"), ("c.mp4", "sit")]


@pytest.mark.parametrize(
    "file, text, message",
    [
        ("trainlist01.txt", "v_YoYo_g01_c01.avi 1", 'trainlist01.txt, line 1 must be "Class/video.avi"'),
        ("trainlist01.txt", "YoYo/v_YoYo_g02_c01.avi 2", "line 1 must be of class 2, Archery, got YoYo"),
        ("trainlist01.txt", "Yo/v_YoYo_g02_c01.avi", "line 1 must be of a class of classInd.txt, got Yo"),
        (
            "trainlist01.txt",
            "YoYo/v_YoYo_g01_c01.avi 1",
            r"must be in one part of split 1, but .*line 1 has it in",
        ),
        ("classInd.txt", "one YoYo", "classInd.txt, line 1 must be a new number and a class"),
        ("classInd.txt", "1 YoYo\n1 Archery", "classInd.txt, line 2 must be a new number"),
    ],
)
def test_bad_lists_are_explained(ucf, file, text, message):
    (ucf / "ucfTrainTestlist" / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        SplitClips(ucf / "UCF-101")


def test_no_lists_and_no_clips(tmp_path, ucf):
    with pytest.raises(FileNotFoundError, match="the lists of the splits"):
        SplitClips(ucf / "UCF-101" / "YoYo")
    _touch(tmp_path / "empty" / "ucfTrainTestlist" / "x")
    with pytest.raises(FileNotFoundError, match=r"must hold videos that .* lists, .* got none of them"):
        SplitClips(tmp_path / "empty", lists=ucf / "ucfTrainTestlist")
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        SplitClips(tmp_path / "nowhere")
