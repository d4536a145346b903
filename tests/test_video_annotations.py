"""Annotations of UCF101-24 in every form in which they are published."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

import amstel
from amstel import video

pytest.importorskip("av", reason="clips are videos")
scipy_io = pytest.importorskip("scipy.io", reason="boxes need scipy")
pytestmark = pytest.mark.usefixtures("one_thread")

NAN = float("nan")
A, B, C = "Diving/v_Diving_g01_c01", "Diving/v_Diving_g02_c01", "Biking/v_Biking_g01_c01"
# Two actors in A, one of them later; x, y, width, height of frames counted from 0.
FIRST = (1, [[1, 2, 3, 4], [2, 2, 3, 4], [3, 2, 3, 4]])
SECOND = (3, [[8, 2, 4, 6], [8, 3, 4, 6]])


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    root = tmp_path_factory.mktemp("ucf")
    for name in (A, B, C):
        (root / name).parent.mkdir(exist_ok=True)
        video.write(root / f"{name}.mp4", torch.zeros(6, 16, 16, 3, dtype=torch.uint8), fps=8)
    return root


def _viper(people, old=False):
    """A file as the ViPER tool writes it: frames count from 1, spans in which each person acts."""
    objects = "".join(
        f'<object framespan="{start + 1}:{start + len(boxes)}" id="{k}" name="PERSON">'
        '<attribute name="Location">'
        + "".join(
            f'<data:bbox framespan="{start + t + 1}:{start + t + 1}" height="{h}" width="{w}" x="{x}" y="{y}"/>'
            for t, (x, y, w, h) in enumerate(boxes)
        )
        + f'</attribute><attribute name="{"walking" if old else "Diving"}">{acts}</attribute>'
        '<attribute name="CliffDiving"><data:bvalue framespan="1:6" value="false"/></attribute></object>'
        for k, (start, boxes, acts) in enumerate(people)
    )
    return (
        '<?xml version="1.0"?><viper xmlns="http://lamp.cfar.umd.edu/viper#" '
        'xmlns:data="http://lamp.cfar.umd.edu/viperdata#"><config/><data>'
        f'<sourcefile filename="v.avi"><file id="0" name="Information"/>{objects}</sourcefile></data></viper>'
    )


def _acts(*spans):
    return "".join(f'<data:bvalue framespan="{a}:{b}" value="{str(v).lower()}"/>' for a, b, v in spans)


def _write(kind, folder):
    folder.mkdir(exist_ok=True)
    tubes = {A: [FIRST, SECOND], B: [FIRST], C: [FIRST]}
    if kind == "xgtf":
        other = (0, [[0, 0, 2, 2]] * 6, _acts((1, 6, False)))  # someone who only watches
        for name, own in tubes.items():
            (folder / name).parent.mkdir(exist_ok=True)
            people = [(s, boxes, _acts((s + 1, s + len(boxes), True))) for s, boxes in own]
            # In Biking nobody is said to act, so all do.
            text = _viper(people if "Biking" in name else [*people, other])
            (folder / f"{name}.xgtf").write_text(text)
        return folder
    if kind == "gttubes":
        rows = {
            name: {
                int("Diving" in name): [
                    np.array([[s + t + 1, x, y, x + w, y + h] for t, (x, y, w, h) in enumerate(boxes)], float)
                    for s, boxes in own
                ]
            }
            for name, own in tubes.items()
        }
        found = {
            "labels": ["Biking", "Diving"],
            "gttubes": rows,
            "nframes": dict.fromkeys(tubes, 6),
            "train_videos": [[A, C]],
            "test_videos": [[B]],
            "resolution": dict.fromkeys(tubes, (16, 16)),
        }
        (folder / "UCF101v2-GT.pkl").write_bytes(pickle.dumps(found, protocol=2))
        return folder / "UCF101v2-GT.pkl"
    if kind == "mat":
        tube = np.dtype([("ef", "O"), ("sf", "O"), ("class", "O"), ("boxes", "O")])
        videos = np.zeros((1, 3), [("num_imgs", "O"), ("name", "O"), ("tubes", "O")])
        for k, (name, own) in enumerate(tubes.items()):
            parts = [(s + len(b), s + 1, 1, np.array(b, float)) for s, b in own]
            videos[0, k] = (6, name, np.array([parts], tube))
        scipy_io.savemat(folder / "finalAnnots.mat", {"annot": videos})
        return folder / "finalAnnots.mat"
    found = {
        name: {
            "numf": np.int64(6),
            "label": 0,
            "annotations": [
                {"label": 0, "sf": np.int64(s), "ef": np.int64(s + len(b)), "boxes": np.array(b, np.int16)}
                for s, b in own
            ],
        }
        for name, own in tubes.items()
    }
    (folder / "pyannot.pkl").write_bytes(pickle.dumps(found, protocol=2))
    return folder / "pyannot.pkl"


@pytest.mark.parametrize("kind", ["pyannot", "gttubes", "mat", "xgtf"])
def test_every_form_of_the_annotation_says_the_same(clips, tmp_path, kind):
    data = amstel.data.UCF101(clips, _write(kind, tmp_path / "boxes"))
    assert data.names == [C, A, B] and data.classes == ["Biking", "Diving"] and data.labels == [0, 1, 1]
    clip = data[1]
    assert clip.tubes.shape == (2, 6, 4) and torch.equal(
        clip.boxes.nan_to_num(-1), clip.tubes[0].nan_to_num(-1)
    )
    expected = torch.full((2, 6, 4), NAN)
    for tube, (start, boxes) in zip(expected, (FIRST, SECOND), strict=True):
        xywh = torch.tensor(boxes).float()
        tube[start : start + len(boxes)] = torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)
    torch.testing.assert_close(clip.tubes, expected, equal_nan=True)
    assert len(data[2].tubes) == 1 and len(data[0].tubes) == 1
    assert data.numbers == ([1] if kind == "gttubes" else [])
    if kind == "gttubes":
        assert data.split(1) == ([0, 1], [2])
    # At half the rate every other frame, with its boxes.
    data.fps = 4
    torch.testing.assert_close(data[1].tubes, expected[:, ::2], equal_nan=True)
    assert len(data[1]) == 3


def test_spans_and_old_names_of_viper_files(tmp_path):
    (tmp_path / "WalkingWithDog").mkdir()
    video.write(tmp_path / "WalkingWithDog" / "v_a.mp4", torch.zeros(8, 16, 16, 3, dtype=torch.uint8))
    text = _viper(
        [(0, [[k, 0, 2, 2] for k in range(8)], _acts((1, 2, True), (3, 5, False), (6, 8, True)))], old=True
    )
    (tmp_path / "WalkingWithDog" / "v_a.xgtf").write_text(text)
    tubes = amstel.data.UCF101(tmp_path)[0].tubes  # one actor who acts twice: two tubes
    assert [(~t.isnan().any(1)).nonzero()[:, 0].tolist() for t in tubes] == [[0, 1], [5, 6, 7]]
    assert tubes[1, 5].tolist() == [5, 0, 7, 2]
    for broken in (
        text[:-9],
        text.replace('framespan="1:8"', 'framespan="8"'),
        text.replace("sourcefile", "x"),
    ):
        (tmp_path / "WalkingWithDog" / "v_a.xgtf").write_text(broken)
        with pytest.raises(ValueError, match=r"v_a\.xgtf must be a file of the ViPER tool"):
            amstel.data.UCF101(tmp_path)


def test_splits_from_lists_and_frames_in_folders(clips, tmp_path):
    boxes = _write("pyannot", tmp_path / "boxes")
    (tmp_path / "boxes" / "trainlist01.txt").write_text(f"{A}\n{C}.avi 1\n")
    (tmp_path / "boxes" / "testlist01.txt").write_text(f"{B}\n")
    assert amstel.data.UCF101(clips, boxes).split(1) == ([0, 1], [2])
    with pytest.raises(ValueError, match=r"`number` must be a split of .*one of 1, got 2"):
        amstel.data.UCF101(clips, boxes).split(2)
    frames = tmp_path / "rgb-images" / B
    for k in range(6):
        frames.mkdir(parents=True, exist_ok=True)
        video.write(frames / f"{k + 1:05d}.png", torch.full((1, 16, 16, 3), k, dtype=torch.uint8))
    (clip,) = list(amstel.data.UCF101(tmp_path / "rgb-images", boxes))
    assert clip.name == B and len(clip) == 6 and clip.boxes[1].tolist() == [1, 2, 4, 6]


def test_annotations_are_not_trusted(clips, tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    file = tmp_path / "pyannot.pkl"
    file.write_bytes(pickle.dumps({A: Evil()}))
    with pytest.raises(ValueError, match=r"pyannot\.pkl must hold the boxes .*refused to load"):
        amstel.data.UCF101(clips, file)
    file.write_bytes(pickle.dumps({A: {"annotations": [{"sf": 4, "ef": 9, "boxes": [[1, 1, 2, 2]] * 5}]}}))
    with pytest.warns(UserWarning, match="3 frames after its last"):
        assert amstel.data.UCF101(clips, file)[0].boxes[4:].tolist() == [[1, 1, 3, 3]] * 2
    file.write_bytes(pickle.dumps({A: {"annotations": [{"sf": 6, "ef": 7, "boxes": [[1, 1, 2, 2]]}]}}))
    with pytest.raises(ValueError, match=r"within 0\.\.6, got 6\.\.7"):
        amstel.data.UCF101(clips, file)[0]
    with pytest.raises(FileNotFoundError, match="does not exist"):
        amstel.data.UCF101(clips, tmp_path / "none.pkl")
    with pytest.raises(ValueError, match=r"must be a file \.json, \.pkl or \.mat"):
        (tmp_path / "a.txt").touch()
        amstel.data.UCF101(clips, tmp_path / "a.txt")
