"""Readers of tracking data on small made-up folders of every layout, and on the real sequences."""

import math

import numpy as np
import pytest
import torch

import amstel.data
from amstel.data.sequences import read_rows
from amstel.data.tracking import OTB_FRAMES, polygon_to_box

Image = pytest.importorskip("PIL.Image")
NAN = [math.nan] * 4


def save_frames(folder, numbers, name="{:04d}.jpg", size=(8, 6)):
    """Images whose gray is their number; JPEG keeps that."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        path = folder / name.format(number)
        Image.new("RGB", size, (number % 256,) * 3).save(path, quality=100)


def make_otb(root, name, numbers, boxes, file="groundtruth_rect.txt"):
    save_frames(root / name / "img", numbers)
    (root / name / file).write_text(boxes)
    return root / name


def same(found, expected):
    return torch.equal(found.nan_to_num(-99), torch.tensor(expected, dtype=torch.float64).nan_to_num(-99))


def numbers(sequence):
    return [int(path.stem) for path in sequence.frames]


# -------------------------------------------------------------------------------------------------- OTB


@pytest.mark.parametrize("separator", [",", "\t", " ", ";", ", ", " ; ", "  "])
def test_otb_separators(tmp_path, separator):
    text = "\r\n".join(separator.join(row.split()) for row in ["5 6 7 8", "1 2.5 3 4", "-3 1 2 2"]) + "\n\n"
    s = amstel.data.OTBSequence(make_otb(tmp_path, "Ball", [1, 2, 3], text))
    assert s.ground_truth.tolist() == [[4, 5, 7, 8], [0, 1.5, 3, 4], [-4, 0, 2, 2]]
    assert s.ground_truth.dtype == torch.float64 and s.name == "Ball" and len(s) == 3
    assert repr(s) == "OTBSequence(Ball, 3 frames)"


def test_otb_frames(tmp_path):
    save_frames(tmp_path / "Ball" / "img", [2, 10, 1], "{}.png")
    (tmp_path / "Ball" / "groundtruth_rect.txt").write_text("1 1 2 2\n" * 3)
    (tmp_path / "Ball" / "img" / "Thumbs.db").write_text("no image")
    s = amstel.data.OTBSequence(tmp_path / "Ball")
    assert numbers(s) == [1, 2, 10]
    frame = s[2]
    assert isinstance(frame, np.ndarray) and frame.shape == (6, 8, 3) and frame.dtype == np.uint8
    assert [int(image[0, 0, 0]) for image in s] == [1, 2, 10] and s[-1][0, 0, 0] == 10
    part = s[1:]
    assert len(part) == 2 and numbers(part) == [2, 10] and part.name == "Ball"
    with pytest.raises(IndexError, match="below 3, got 3"):
        s[3]
    (tmp_path / "Ball" / "img" / "2.png").write_bytes(b"broken")
    assert len(amstel.data.OTBSequence(tmp_path / "Ball")) == 3
    with pytest.raises(ValueError, match=r"2\.png must be an image that can be read"):
        s[1]


def test_otb_missing_ground_truth(tmp_path):
    text = "1,1,2,2\n0,0,0,0\nnan,nan,nan,nan\n5,5,0,3\n5,5,-1,3\n5,NaN,3,3\n2,2,1,1\n"
    folder = make_otb(tmp_path, "Ball", range(1, 10), text)
    with pytest.warns(UserWarning, match=r"holds 7 boxes for 9 frames: .* from frame 8 on"):
        s = amstel.data.OTBSequence(folder)
    expected = [[0, 0, 2, 2], NAN, NAN, NAN, NAN, NAN, [1, 1, 1, 1], NAN, NAN]
    assert same(s.ground_truth, expected) and s.sparse


def test_otb_configuration(tmp_path):
    """A part of the images, with boxes for the part or for all; one whose images begin later."""
    line = "{},1,2,2\n"
    make_otb(tmp_path, "Football1", range(1, 82), "".join(line.format(k) for k in range(1, 75)))
    make_otb(tmp_path, "Tiger1", range(1, 355), "".join(line.format(k) for k in range(1, 355)))
    make_otb(tmp_path, "david", range(290, 772), "".join(line.format(k) for k in range(300, 771)))
    make_otb(tmp_path, "BlurCar3", range(3, 360), "".join(line.format(k) for k in range(3, 360)))
    for s in amstel.data.OTB(tmp_path):
        first, last = OTB_FRAMES[s.name.lower()]
        assert numbers(s) == list(range(first, last + 1))
        assert (s.ground_truth[:, 0] + 1).tolist() == numbers(s)
    # Tiger1 as the toolkit's own annotation has it, without the part that is left out.
    (tmp_path / "Tiger1" / "groundtruth_rect.txt").write_text("".join(line.format(k) for k in range(6, 355)))
    s = amstel.data.OTBSequence(tmp_path / "Tiger1")
    assert (s.ground_truth[:, 0] + 1).tolist() == numbers(s) == list(range(6, 355))
    # Names of frames that are no numbers: nothing to take a part by.
    save_frames(tmp_path / "Diving" / "img", [1, 2], "f{}.jpg")
    (tmp_path / "Diving" / "groundtruth_rect.txt").write_text("1 1 2 2\n")
    assert len(amstel.data.OTBSequence(tmp_path / "Diving")) == 2


@pytest.mark.parametrize(
    "name, images, boxes",
    [
        ("David", range(1, 472), 471),  # numbered anew
        ("david", range(1, 51), 50),  # another sequence of that name
        ("Diving", range(1, 401), 400),
        ("Freeman3", range(1, 501), 500),
        ("Tiger1", range(1, 350), 349),
        ("BlurCar1", range(1, 743), 742),
        ("Football1", range(1, 21), 15),
    ],
)
def test_other_sequences_of_a_known_name_are_taken_whole(tmp_path, name, images, boxes):
    text = "".join(f"{k},1,2,2\n" for k in range(1, boxes + 1))
    s = amstel.data.OTBSequence(make_otb(tmp_path, name, images, text))
    assert numbers(s) == list(images)
    assert (s.ground_truth[:boxes, 0] + 1).tolist() == list(range(1, boxes + 1))
    assert s.ground_truth[boxes:].isnan().all()


def test_hidden_files_are_no_frames_and_no_boxes(tmp_path):
    folder = make_otb(tmp_path, "Ball", [1, 2], "1,1,2,2\n" * 2)
    for name in ("img/._0001.jpg", "._groundtruth_rect.txt", "img/.DS_Store"):
        (folder / name).write_bytes(b"\0\5\x16\7")
    make_otb(tmp_path, "._Ball", [1], "1,1,2,2\n")
    (s,) = amstel.data.OTB(tmp_path)
    assert len(s) == 2


@pytest.mark.parametrize("line", ["1,2,3,4,", "1, 2, 3, 4 ,", "1\t2\t3\t4\t", "1;2;3;4;", "1 2 3 4 "])
def test_a_separator_may_end_a_line(tmp_path, line):
    s = amstel.data.OTBSequence(make_otb(tmp_path, "Ball", [1, 2], f"{line}\n{line}\n"))
    assert s.ground_truth.tolist() == [[0, 1, 3, 4]] * 2


def test_numbers_of_numpy_are_numbers(tmp_path):
    folder = make_otb(tmp_path, "Ball", [1, 2, 3], "1,2,3,4\n" * 3)
    sequences = amstel.data.OTB(tmp_path)
    assert sequences[np.int64(0)].name == sequences[np.str_("Ball")].name == "Ball"
    assert sequences[0][np.int32(2)].shape == (6, 8, 3)
    save_frames(folder / "img", [4])
    (folder / "groundtruth_rect.txt").rename(folder / "groundtruth_rect.2.txt")
    assert amstel.data.OTBSequence(folder, target=np.int64(2)).name == "Ball-2"


def test_frames_are_upright(tmp_path):
    folder = make_otb(tmp_path, "Ball", [], "1,2,3,4\n")
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (8, 6)).save(folder / "img" / "1.jpg", exif=exif)
    assert amstel.data.OTBSequence(folder)[0].shape == (8, 6, 3)


def test_otb_several_targets(tmp_path):
    folder = make_otb(tmp_path, "Jogging", [1, 2], "1 1 2 2\n" * 2, "groundtruth_rect.1.txt")
    (folder / "groundtruth_rect.2.txt").write_text("3 3 2 2\n" * 2)
    human = make_otb(tmp_path, "Human4", [1], "\n", "groundtruth_rect.1.txt")
    (human / "groundtruth_rect.2.txt").write_text("4 4 2 2\n")
    make_otb(tmp_path, "Ball", [1], "5 5 2 2\n")
    (tmp_path / "anno").mkdir()
    (tmp_path / "readme.txt").write_text("no sequence")
    sequences = amstel.data.OTB(tmp_path)
    assert sequences.names == ["Ball", "Human4-2", "Jogging-1", "Jogging-2"] and len(sequences) == 4
    assert [s.name for s in sequences] == sequences.names
    assert [s.ground_truth[0, 0].item() for s in sequences] == [4, 3, 0, 2]
    assert sequences["Jogging-2"].ground_truth[0, 0] == 2 and sequences[-1].name == "Jogging-2"
    assert [s.name for s in sequences[1:3]] == ["Human4-2", "Jogging-1"]
    assert repr(sequences) == f"OTB(4 sequences of {tmp_path})"
    assert amstel.data.OTBSequence(folder, target=2).name == "Jogging-2"
    assert amstel.data.OTBSequence(human).name == "Human4-2"
    with pytest.raises(ValueError, match=r"`target` is needed: one of \[1, 2\], the targets of .*Jogging"):
        amstel.data.OTBSequence(folder)
    with pytest.raises(ValueError, match=r"`target` must be one of \[1, 2\].* got 3"):
        amstel.data.OTBSequence(folder, target=3)
    with pytest.raises(ValueError, match=r"`index` must be a number or a name of OTB.*got 'Jogging'"):
        sequences["Jogging"]
    with pytest.raises(IndexError, match="below 4, got 4"):
        sequences[4]


def test_otb_default_root(tmp_path, monkeypatch):
    make_otb(tmp_path / "tracking", "Ball", [1], "5 5 2 2\n")
    monkeypatch.setenv("AMSTEL_DATA", str(tmp_path))
    assert amstel.data.OTB().names == ["Ball"]
    monkeypatch.delenv("AMSTEL_DATA")
    with pytest.raises(ValueError, match="AMSTEL_DATA"):
        amstel.data.OTB()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,1,2,2\n1,1,two,2\n", r"groundtruth_rect\.txt, line 2: .* must hold 4 numbers .* got '1,1,two,2'"),
        ("1,1,2\n", r"groundtruth_rect\.txt, line 1: a line must hold 4 numbers, got '1,1,2'"),
        ("1,1,2,2\n\n1,1,2,2\n", r"line 2: .* got ''"),
        ("1,1,2,inf\n", "line 1"),
        ("1_0,1,2,2\n", "line 1"),
        ("1,1,,2,2\n", "line 1"),
        ("1 1 2 2\n" * 4, r"groundtruth_rect\.txt must hold 1 to 3 boxes, .* got 4"),
        ("", r"groundtruth_rect\.txt must hold 1 to 3 boxes, .* got 0"),
    ],
)
def test_otb_bad_boxes(tmp_path, text, message):
    folder = make_otb(tmp_path, "Ball", [1, 2, 3], text)
    with pytest.raises(ValueError, match=message):
        amstel.data.OTBSequence(folder)


def test_otb_bad_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        amstel.data.OTBSequence(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        amstel.data.OTB(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"must hold folders of sequences, each with img .* got none"):
        amstel.data.OTB(tmp_path)
    empty = tmp_path / "Empty"
    empty.mkdir()
    with pytest.raises(FileNotFoundError, match=r"Empty must hold groundtruth_rect\.txt"):
        amstel.data.OTBSequence(empty)
    (empty / "groundtruth_rect.txt").write_text("1 1 2 2")
    with pytest.raises(FileNotFoundError, match=r"Empty.img of a sequence's frames does not exist"):
        amstel.data.OTBSequence(empty)
    (empty / "img").mkdir()
    with pytest.raises(ValueError, match=r"img must hold at least one image, got none"):
        amstel.data.OTBSequence(empty)
    save_frames(empty / "img", [1])
    (empty / "groundtruth_rect.txt").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(OSError, match=r"groundtruth_rect\.txt must be a text file that can be read"):
        amstel.data.OTBSequence(empty)


def test_tracking_sequence(tmp_path):
    save_frames(tmp_path, [1, 2])
    files = sorted(tmp_path.iterdir())
    given = torch.tensor([[1, 2, 3, 4], [0, 0, 0, 9]])
    s = amstel.data.TrackingSequence("two", files, given)
    assert same(s.ground_truth, [[1, 2, 3, 4], NAN]) and repr(s) == "TrackingSequence(two, 2 frames)"
    assert given[1].tolist() == [0, 0, 0, 9]
    with pytest.raises(
        ValueError, match=r"`ground_truth` must be \[2, 4\], a box per frame, got int64 \[1, 4\]"
    ):
        amstel.data.TrackingSequence("two", files, given[:1])
    with pytest.raises(TypeError, match="`ground_truth` must be a tensor"):
        amstel.data.TrackingSequence("two", files, [[1, 2, 3, 4]] * 2)
    with pytest.raises(ValueError, match="`frames` must hold at least one"):
        amstel.data.TrackingSequence("two", [], given[:0])


# ------------------------------------------------------------------------------------------ other layouts


def make_got10k(root, name, boxes, **labels):
    save_frames(root / name, range(1, 5), "{:08d}.jpg")
    (root / name / "groundtruth.txt").write_text(boxes)
    for label, values in labels.items():
        (root / name / f"{label}.label").write_text("\n".join(map(str, values)) + "\n")


def test_got10k(tmp_path):
    box = "11.0000,21.0000,30.0000,40.0000\n"
    make_got10k(tmp_path / "val", "GOT_2", box * 4, absence=[0, 0, 1, 0], cover=[8, 0, 5, 1])
    make_got10k(tmp_path / "val", "GOT_10", box * 3 + "-1,-1,-1,-1\n")
    make_got10k(tmp_path / "val", "GOT_3", box * 4)
    make_got10k(tmp_path / "test", "GOT_1", box)
    (tmp_path / "train").mkdir()
    (tmp_path / "val" / "list.txt").write_text("GOT_10\nGOT_2\n")
    sequences = amstel.data.GOT10k(tmp_path, "val")
    assert sequences.names == ["GOT_2", "GOT_10"] and len(sequences) == 2
    there = [10, 20, 30, 40]
    assert same(sequences[0].ground_truth, [there, NAN, NAN, there])
    assert same(sequences["GOT_10"].ground_truth, [there, there, there, NAN])
    assert amstel.data.GOT10k(tmp_path / "val").names == sequences.names
    (test,) = amstel.data.GOT10k(tmp_path, "test")
    assert same(test.ground_truth, [there, NAN, NAN, NAN])
    assert [image[0, 0, 0] for image in test] == [1, 2, 3, 4]

    folders = f"{tmp_path / 'train'} or {tmp_path / 'val'} or {tmp_path / 'test'}"
    with pytest.raises(ValueError, match=f"holds parts of GOT-10k: give the folder of one, {folders}"):
        amstel.data.GOT10k(tmp_path)
    make_got10k(tmp_path / "one" / "val", "GOT_1", box)
    with pytest.raises(ValueError, match=f"give the folder of one, {tmp_path / 'one' / 'val'}$"):
        amstel.data.GOT10k(tmp_path / "one")
    with pytest.raises(ValueError, match=r"`split` must be .*got 'all'"):
        amstel.data.GOT10k(tmp_path, "all")
    with pytest.raises(ValueError, match=r"train must hold folders of sequences, each with groundtruth\.txt"):
        amstel.data.GOT10k(tmp_path, "train")
    (tmp_path / "val" / "GOT_2" / "cover.label").write_text("8\n")
    with pytest.raises(ValueError, match=r"cover\.label must hold 4 labels, one per frame, got 1"):
        sequences[0]
    (tmp_path / "val" / "list.txt").write_text("GOT_10\nGOT_4\n")
    with pytest.raises(FileNotFoundError, match=r"list\.txt names GOT_4, which is not a folder"):
        amstel.data.GOT10k(tmp_path, "val")


def test_vot(tmp_path):
    square = "2,1,6,1,6,3,2,3\n"
    # A square of side sqrt(8) on its corner: its bounds have twice its area.
    turned = "4,0,6,2,4,4,2,2\n"
    save_frames(tmp_path / "bag" / "color", [1, 2], "{:08d}.jpg")
    (tmp_path / "bag" / "groundtruth.txt").write_text(square + turned)
    save_frames(tmp_path / "ball", [1, 2, 3], "{:08d}.jpg")
    (tmp_path / "ball" / "groundtruth.txt").write_text("0,0,4,5\nnan,nan,nan,nan\n1.5,1,2,2\n")
    (tmp_path / "notes").mkdir()
    sequences = amstel.data.VOT(tmp_path)
    assert sequences.names == ["bag", "ball"]
    side = math.sqrt(8)
    expected = torch.tensor([[2, 1, 4, 2], [4 - side / 2, 2 - side / 2, side, side]], dtype=torch.float64)
    torch.testing.assert_close(sequences["bag"].ground_truth, expected)
    bounds = amstel.data.VOT(tmp_path, polygon="bounds")["bag"].ground_truth
    assert bounds.tolist() == [[2, 1, 4, 2], [2, 0, 4, 4]]
    assert same(sequences["ball"].ground_truth, [[0, 0, 4, 5], NAN, [1.5, 1, 2, 2]])
    assert [image[0, 0, 0] for image in sequences["bag"]] == [1, 2]

    (tmp_path / "ball" / "anchor.value").write_text("nan\n1\n-1\n")
    assert amstel.data.VOT(tmp_path)["ball"].anchors == [(1, False), (2, True)]

    (tmp_path / "list.txt").write_text("ball\n")
    assert amstel.data.VOT(tmp_path).names == ["ball"]
    with pytest.raises(ValueError, match='`polygon` must be "area" or "bounds", got \'hull\''):
        amstel.data.VOT(tmp_path, polygon="hull")
    file = tmp_path / "ball" / "groundtruth.txt"
    file.write_text("1,1,2,2\n" + square + turned)
    mixed = torch.cat([torch.tensor([[1.0, 1, 2, 2]]).double(), expected])
    torch.testing.assert_close(amstel.data.VOT(tmp_path)["ball"].ground_truth, mixed)
    file.write_text("1,1,2,2\n1,1,2,2,3\n")
    with pytest.raises(
        ValueError,
        match=r"groundtruth\.txt, line 2: .* 4 numbers, the corners of a polygon or a mask, got '1,1,2,2,3'",
    ):
        amstel.data.VOT(tmp_path)["ball"]
    # A mask: from (1, 0) in a part of the picture 3 pixels wide and high, 4 pixels are out, 1 is in, 2 are out, 1 is in.
    file.write_text("1,1,2,2\nm1,0,3,3,4,1,2,1\nm1,0,3,3,9\n")
    assert same(amstel.data.VOT(tmp_path)["ball"].ground_truth, [[1, 1, 2, 2], [2, 1, 1, 2], NAN])
    # What the toolkit writes where there is no region.
    for none in ("0", "1", "nan,nan", "nan", "m0,0,0,0,0", "m0,0,0,0", "1,2,nan,4,5,6"):
        file.write_text(f"1,1,2,2\n{none}\n3,1,2,2\n")
        assert same(amstel.data.VOT(tmp_path)["ball"].ground_truth, [[1, 1, 2, 2], NAN, [3, 1, 2, 2]])
    # A triangle of half its bounds, and one with a corner more at the middle of each side.
    file.write_text("1,1,7,1,4,5\n1,1,4,1,7,1,5.5,3,4,5,2.5,3\n")
    for polygon, side in (("area", math.sqrt(0.5)), ("bounds", 1)):
        found = amstel.data.VOT(tmp_path, polygon)["ball"].ground_truth
        low = (4 - 3 * side, 7 / 3 - 2 * side) if polygon == "area" else (1, 1)
        expected = torch.tensor([[*low, 6 * side, 4 * side]] * 2, dtype=torch.float64)
        torch.testing.assert_close(found[:2], expected)
    mask = ("m0,0,3,3,1,9", "m0,0", "m0,0,3,3,1.5,2", "m0,0,3,3,-1,2", "m0,0,-1,-1,1", "m0,0,0,3,1")
    for bad in (
        *mask,
        "m0,0,1_0,3,1,1",
        "m0,0,1" + 400 * "0" + ",1,5,9" + 390 * "0",
        "1,2",
        "inf",
        "1,2,3,4,5",
        "1,2,3,4,5,inf",
        "1_0,2,3,4",
    ):
        file.write_text(f"{bad}\n")
        with pytest.raises(
            ValueError, match=rf"line 1: a line must hold 4 numbers, the corners .* or a mask, got '{bad}'"
        ):
            amstel.data.VOT(tmp_path)["ball"]
    file.unlink()
    with pytest.raises(OSError, match=r"groundtruth\.txt must be a text file"):
        amstel.data.VOT(tmp_path)["ball"]


def test_boxes_of_masks(tmp_path):
    """Around the pixels that are in, whatever room the mask says that it needs."""
    rng, lines, expected = np.random.default_rng(0), [], []
    for height, width in rng.integers(1, 7, (200, 2)):
        pixels = rng.random((height, width)) < rng.choice([0.05, 0.5])
        ends = [*np.flatnonzero(np.diff(np.r_[False, pixels.reshape(-1)])), pixels.size]
        lines.append(",".join(map(str, ["m3", 4, width, height, *np.diff([0, *ends])])))
        y, x = np.nonzero(pixels)
        expected.append([3 + x.min(), 4 + y.min(), np.ptp(x) + 1, np.ptp(y) + 1] if len(x) else NAN)
    lines.append("m3,4,1000000000000,1000000000000,1000000000005,7")
    expected.append([8, 5, 7, 1])
    (tmp_path / "a.txt").write_text("\n".join(lines))
    assert same(torch.tensor(read_rows(tmp_path / "a.txt", None)), expected)


def test_polygon_to_box():
    """Rectangles turned by any angle, in both directions around, keep center and area."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        w, h, turn = *rng.uniform(1, 50, 2), rng.uniform(0, 7)
        cx, cy = rng.uniform(-20, 200, 2)
        corners = np.array([(-w, -h), (w, -h), (w, h), (-w, h)]) / 2
        rotation = np.array([(np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))])
        corners = np.roll(corners @ rotation.T + (cx, cy), rng.integers(4), axis=0)[:: rng.choice([-1, 1])]
        (x, y, bw, bh), (left, top, width, height) = (
            polygon_to_box(torch.from_numpy(corners.reshape(1, 8).copy()), method)[0].tolist()
            for method in ("area", "bounds")
        )
        assert bw * bh == pytest.approx(w * h) and bw / bh == pytest.approx(width / height)
        assert (x + bw / 2, y + bh / 2) == pytest.approx((cx, cy))
        low, high = corners.min(0), corners.max(0)
        assert (left, top, left + width, top + height) == pytest.approx((*low, *high))
    assert polygon_to_box(torch.tensor([[3.0, 4] * 4])).tolist() == [[3, 4, 0, 0]]
    with pytest.raises(ValueError, match=r"`corners` must be a tensor \[T, 2 K\] of K >= 3 corners"):
        polygon_to_box(torch.zeros(3, 4))
    assert polygon_to_box(torch.zeros(0, 10)).shape == (0, 4)
    with pytest.raises(ValueError, match="`method`"):
        polygon_to_box(torch.zeros(3, 8), "hull")


def test_alov_names_are_told_apart(tmp_path):
    """Two categories with a sequence of one name are two sequences."""
    boxes = tmp_path / "alov300++_rectangleAnnotation_full"
    for category, x in (("01-Light", 2), ("02-Cover", 3)):
        (boxes / category).mkdir(parents=True)
        save_frames(tmp_path / "imagedata++" / category / "video1", range(1, 4))
        (boxes / category / "video1.ann").write_text(f"1 {x} 3 {x} 4 7 4 7 3\n")
        (boxes / category / "._video1.ann").write_bytes(b"\0\5")
    sequences = amstel.data.ALOV(tmp_path)
    assert sequences.names == ["01-Light-video1", "02-Cover-video1"]
    assert [s.ground_truth[0, 0].item() for s in sequences] == [1, 2]


def test_names_of_sequences_may_have_blanks(tmp_path):
    save_frames(tmp_path / "my ball", [1])
    (tmp_path / "my ball" / "groundtruth.txt").write_text("1,1,2,2\n")
    (tmp_path / "list.txt").write_text("my ball\n\n")
    assert amstel.data.VOT(tmp_path).names == ["my ball"] == amstel.data.GOT10k(tmp_path).names


def test_alov(tmp_path):
    boxes = tmp_path / "alov300++_rectangleAnnotation_full"
    (boxes / "01-Light").mkdir(parents=True)
    name = "01-Light_video00001"
    save_frames(tmp_path / "imagedata++" / "01-Light" / name, range(1, 8), "{:08d}.jpg")
    file = boxes / "01-Light" / f"{name}.ann"
    # Corners in two orders; pixels 2..5 and 3..4 counted from 1.
    file.write_text("1 2 3 5 3 5 4 2 4\n6 5.0 4.0 2.0 4.0 2.0 3.0 5.0 3.0\n")
    (s,) = amstel.data.ALOV(tmp_path)
    there = [1, 2, 4, 2]
    assert s.name == name and same(s.ground_truth, [there, NAN, NAN, NAN, NAN, there, NAN])
    assert len(s) == 7 and s[5][0, 0, 0] == 6 and amstel.data.ALOV(tmp_path)[name].name == name

    for text, line in (("8 2 3 5 3 5 4 2 4\n", 1), ("1 2 3 5 3 5 4 2 4\n2.5 2 3 5 3 5 4 2 4\n", 2)):
        file.write_text(text)
        with pytest.raises(
            ValueError, match=rf"00001\.ann, line {line}: the frame must be .* in 1\.\.7, got"
        ):
            amstel.data.ALOV(tmp_path)[0]
    file.write_text("1 2 3 5 3\n")
    with pytest.raises(ValueError, match=r"00001\.ann, line 1: a line must hold 9 numbers"):
        amstel.data.ALOV(tmp_path)[0]
    file.rename(file.with_name("other.ann"))
    with pytest.raises(FileNotFoundError, match="other of a sequence's frames does not exist"):
        amstel.data.ALOV(tmp_path)[0]
    (boxes / "01-Light" / "other.ann").unlink()
    with pytest.raises(ValueError, match="must hold annotations"):
        amstel.data.ALOV(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        amstel.data.ALOV(tmp_path / "imagedata++")


# ---------------------------------------------------------------------------------------------- real data


@pytest.mark.data
def test_real_sequences(data_folder):
    sequences = amstel.data.OTB(data_folder / "tracking")
    lengths = {s.name: len(s) for s in sequences}
    assert lengths == {
        "bag": 196,
        "Crossing": 120,
        "David": 471,
        "Football1": 74,
        "Freeman1": 326,
        "Jogging1": 307,
        "Jumping": 313,
        "Man": 134,
        "Skiing": 81,
    }
    for s in sequences:
        height, width, channels = s[0].shape
        x, y, w, h = s.ground_truth[0].tolist()
        assert channels == 3 and not s.ground_truth.isnan().any()
        assert 0 <= x < x + w <= width and 0 <= y < y + h <= height
    assert sequences["David"].frames[0].stem == "0300" and sequences["David"].ground_truth[0].tolist() == [
        128,
        79,
        64,
        78,
    ]
