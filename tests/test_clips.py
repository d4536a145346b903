"""Clip readers on small made-up folders and on the real data, and the generator of moving shapes."""

import json
from itertools import combinations

import numpy as np
import pytest
import torch

import amstel.data
from amstel import video
from amstel.data.shapes import DIRECTIONS

Image = pytest.importorskip("PIL.Image")


def save_strip(path, value, frames=3, size=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (frames * size, size), (value,) * 3).save(path)


@pytest.fixture
def folder(tmp_path):
    """Two classes: a strip, a folder of frames and a GIF; a video."""
    pytest.importorskip("av")
    root = tmp_path / "actions"
    save_strip(root / "walk" / "clip10.png", 10)
    for t in range(4):
        (root / "walk" / "clip9").mkdir(exist_ok=True)
        Image.new("RGB", (6, 4), (t, 0, 0)).save(root / "walk" / "clip9" / f"{t}.png")
    video.write(root / "walk" / "clip11.gif", torch.zeros(1, 8, 8, 3, dtype=torch.uint8))
    (root / "jump").mkdir()
    video.write(root / "jump" / "a.mp4", torch.full((5, 32, 32, 3), 100, dtype=torch.uint8))
    (root / "jump" / "notes.txt").write_text("no clip")
    (root / "jump" / ".hidden.png").write_text("no clip")
    (root / "readme.txt").write_text("no class")
    (root / ".cache").mkdir()
    return root


def test_clip_folder(folder):
    clips = amstel.data.ClipFolder(folder)
    assert clips.classes == ["jump", "walk"] and clips.labels == [0, 1, 1, 1] and len(clips) == 4
    assert clips.names == ["jump/a", "walk/clip9", "walk/clip10", "walk/clip11"]
    assert [tuple(clip.frames.shape) for clip in clips] == [
        (5, 32, 32, 3),
        (4, 4, 6, 3),
        (3, 8, 8, 3),
        (1, 8, 8, 3),
    ]
    assert clips[1].frames[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert clips[-1].name == "walk/clip11" and clips[-1].label == 1 and clips[0].boxes is None
    assert repr(clips) == "ClipFolder(4 clips, classes=['jump', 'walk'])"
    assert repr(clips[2]) == "Clip(walk/clip10, label=1, frames=[3, 8, 8, 3])"
    with pytest.raises(IndexError, match="below 4, got 4"):
        clips[4]


def test_clips_are_read_when_asked_for(folder):
    (folder / "walk" / "clip10.png").write_bytes(b"broken")
    clips = amstel.data.ClipFolder(folder)
    assert clips[1].label == 1
    with pytest.raises(ValueError, match=r"clip10\.png must be an image that can be read"):
        clips[2]


def test_folder_errors(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        amstel.data.ClipFolder(tmp_path / "nowhere")
    (folder / "run").mkdir()
    with pytest.raises(ValueError, match=r"class folder .*run must hold clips .* got none"):
        amstel.data.ClipFolder(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty must hold one folder per class, got none"):
        amstel.data.ClipFolder(tmp_path / "empty")
    Image.new("RGB", (20, 8)).save(folder / "run" / "strip.png")
    (folder / "run" / "hollow").mkdir()
    clips = amstel.data.ClipFolder(folder)
    with pytest.raises(ValueError, match=r"strip\.png must be .* multiple of its height, got 20x8"):
        clips[clips.names.index("run/strip")]
    with pytest.raises(ValueError, match="hollow must hold at least one frame"):
        clips[clips.names.index("run/hollow")]


def test_clips_are_named_by_their_paths(folder):
    """Two that differ in their endings only, folders with dots, and what is hidden."""
    (folder / "walk" / "clip.v1").mkdir()
    (folder / "walk" / "clip.v2").mkdir()
    for name in ("clip.v1", "clip.v2"):
        Image.new("RGB", (6, 4)).save(folder / "walk" / name / "0.png")
    save_strip(folder / "walk" / "same.png", 1)
    video.write(folder / "walk" / "same.gif", torch.zeros(1, 8, 8, 3, dtype=torch.uint8))
    (folder / "walk" / "._same.mp4").write_bytes(b"x")
    clips = amstel.data.ClipFolder(folder)
    assert clips.names == [
        "jump/a",
        "walk/clip9",
        "walk/clip10",
        "walk/clip11",
        "walk/clip.v1",
        "walk/clip.v2",
        "walk/same.gif",
        "walk/same.png",
    ]
    assert [clip.name for clip in clips] == clips.names


def test_an_animation_of_one_frame_is_no_strip(tmp_path):
    (tmp_path / "walk").mkdir()
    picture = torch.arange(33 * 47, dtype=torch.uint8).view(1, 33, 47, 1).expand(1, 33, 47, 3)
    video.write(tmp_path / "walk" / "one.gif", picture)
    (clip,) = amstel.data.ClipFolder(tmp_path)
    assert clip.frames.shape == (1, 33, 47, 3) and torch.equal(
        clip.frames, video.read(tmp_path / "walk" / "one.gif")
    )


def test_bad_clips_are_named_counted_and_left_out(folder):
    (folder / "walk" / "clip10.png").write_bytes(b"broken")
    (folder / "walk" / "hollow").mkdir()
    video.write(folder / "jump" / "b.mp4", torch.zeros(3, 16, 16, 3, dtype=torch.uint8))
    (folder / "jump" / "b.mp4").write_bytes(b"cut")
    clips = amstel.data.ClipFolder(folder)
    with pytest.raises(ValueError, match=r"b\.mp4"):
        clips.check(strict=True)
    assert len(clips) == 6
    with pytest.warns(
        UserWarning, match=r"3 of 6 clips cannot be read and are left out: .*b\.mp4.*clip10\.png"
    ):
        bad = clips.check()
    assert [name for name, _ in bad] == ["jump/b", "walk/clip10", "walk/hollow"]
    assert clips.names == ["jump/a", "walk/clip9", "walk/clip11"] and clips.labels == [0, 1, 1]
    assert len(list(clips)) == 3 and clips.check() == []
    (folder / "jump" / "a.mp4").write_bytes(b"cut too")
    with pytest.raises(ValueError, match="no clip of jump can be read"):
        amstel.data.ClipFolder(folder).check()


def test_other_kinds_of_videos_are_clips(tmp_path):
    for ending in ("ts", "mts", "3gp", "asf", "vob", "WEBM"):
        path = tmp_path / "a" / f"clip.{ending}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    assert len(amstel.data.ClipFolder(tmp_path)) == 6


# ---------------------------------------------------------------------------------------------- Weizmann


@pytest.fixture
def weizmann(tmp_path):
    root = tmp_path / "video" / "weizmann4"
    entries = []
    for label in ("wave", "bend"):
        for subject in (10, 2, 1):
            save_strip(root / label / f"s{subject}.png", subject)
            entries.append({"file": f"weizmann4/{label}/s{subject}.png", "label": label, "subject": subject})
    (root / "manifest.json").write_text(json.dumps(entries))
    return root


def test_weizmann_by_manifest(weizmann):
    clips = amstel.data.Weizmann(weizmann)
    assert clips.classes == ["bend", "wave"] and clips.labels == [0, 0, 0, 1, 1, 1]
    assert clips.subjects == [1, 2, 10, 1, 2, 10]
    assert [int(clip.frames[0, 0, 0, 0]) for clip in clips] == clips.subjects
    assert clips[5].name == "wave/s10"
    assert clips.leave_out(2) == ([0, 2, 3, 5], [1, 4])
    with pytest.raises(ValueError, match=r"one of \[1, 2, 10\], got 3"):
        clips.leave_out(3)


def test_weizmann_by_folders(weizmann):
    (weizmann / "manifest.json").unlink()
    clips = amstel.data.Weizmann(weizmann)
    assert clips.subjects == [0, 1, 2, 0, 1, 2]  # s1, s2, s10
    for label in ("wave", "bend"):
        (weizmann / label / "s1.png").rename(weizmann / label / f"ira_{label}.png")
    assert amstel.data.Weizmann(weizmann).subjects == [0, 1, 2] * 2


def test_weizmann_manifest_errors(weizmann):
    manifest = weizmann / "manifest.json"
    (weizmann / "bend" / "s1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"manifest\.json lists weizmann4/bend/s1\.png"):
        amstel.data.Weizmann(weizmann)
    for text in ("{", '[{"file": "x"}]', "[3]", "7", '[{"file": "x", "label": "y", "subject": "z"}]'):
        manifest.write_text(text)
        with pytest.raises(ValueError, match=r"manifest\.json must be a list"):
            amstel.data.Weizmann(weizmann)
    manifest.write_text("[]")
    with pytest.raises(ValueError, match="at least one clip"):
        amstel.data.Weizmann(weizmann)


def test_subjects_stay_with_their_clips(weizmann):
    (weizmann / "bend" / "s2.png").write_bytes(b"broken")
    clips = amstel.data.Weizmann(weizmann)
    with pytest.warns(UserWarning, match="1 of 6"):
        clips.check()
    assert clips.subjects == [1, 10, 1, 2, 10] and clips.leave_out(2) == ([0, 1, 2, 4], [3])


def test_root_from_the_environment(weizmann, monkeypatch):
    monkeypatch.setenv("AMSTEL_DATA", str(weizmann.parent.parent))
    assert len(amstel.data.Weizmann()) == 6
    monkeypatch.delenv("AMSTEL_DATA")
    for reader in (amstel.data.Weizmann, amstel.data.MovingShapes, amstel.data.UCF101):
        with pytest.raises(ValueError, match="AMSTEL_DATA"):
            reader()


# --------------------------------------------------------------------------- moving shapes and UCF101 read


def test_moving_shapes_reads_a_window(tmp_path):
    strip = np.repeat(np.arange(32, dtype=np.uint8), 4)[None, :, None].repeat(4, 0).repeat(3, 2)
    for label in "01":
        (tmp_path / label).mkdir()
        Image.fromarray(strip).save(tmp_path / label / "00000000.png")
    assert amstel.data.MovingShapes(tmp_path)[1].frames[:, 0, 0, 0].tolist() == list(range(12, 20))
    assert len(amstel.data.MovingShapes(tmp_path, window=None)[0]) == 32
    with pytest.raises(ValueError, match="at least 40 frames, got 32"):
        amstel.data.MovingShapes(tmp_path, window=(12, 40))[0]
    with pytest.raises(ValueError, match="`window`"):
        amstel.data.MovingShapes(tmp_path, window=(5, 5))
    for wrong in (5, "ab", (0, 2.5), (True, 3)):
        with pytest.raises(
            TypeError, match=r"`window` must be \(first, end\) with 0 <= first < end, or None"
        ):
            amstel.data.MovingShapes(tmp_path, window=wrong)


@pytest.fixture
def ucf(tmp_path):
    pytest.importorskip("av")
    frames = torch.zeros(6, 16, 16, 3, dtype=torch.uint8)
    (tmp_path / "Diving").mkdir()
    video.write(tmp_path / "Diving" / "v_Diving_g01_c01.mp4", frames).rename(
        tmp_path / "Diving" / "v_Diving_g01_c01.avi"
    )
    tube = {"sf": 2, "ef": 4, "boxes_xywh": [[1, 2, 3, 4], [5, 6, 7, 8]]}
    boxes = {
        "Diving/v_Diving_g01_c01": {"numf": 6, "label": 4, "annotations": [tube]},
        "Biking/v_Biking_g01_c01": {"numf": 6, "label": 2, "annotations": [tube]},
    }
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    return tmp_path, boxes


def test_ucf101(ucf):
    root, _ = ucf
    clips = amstel.data.UCF101(root)
    assert len(clips) == 1 and clips.classes == ["Diving"] and clips.labels == [0]
    clip = clips[0]
    assert clip.name == "Diving/v_Diving_g01_c01" and len(clip) == 6
    assert clip.boxes.isnan().all(1).tolist() == [True, True, False, False, True, True]
    assert clip.boxes[2:4].tolist() == [[1, 2, 4, 6], [5, 6, 12, 14]]


def test_ucf101_finds_each_video_by_its_class(ucf):
    root, _ = ucf
    (path,) = amstel.data.UCF101(root).paths
    (root / "elsewhere").mkdir()
    (root / "elsewhere" / path.name).write_bytes(b"another video of that name")
    (root / "Diving" / f"._{path.name}").write_bytes(b"x")
    (root / "._boxes.json").write_bytes(b"x")
    clips = amstel.data.UCF101(root)
    assert clips.paths == [path] and clips.names == ["Diving/v_Diving_g01_c01"]
    path.rename(root / path.name)
    with pytest.raises(ValueError, match=r"v_Diving_g01_c01 must be one video, got .*elsewhere"):
        amstel.data.UCF101(root)


def test_ucf101_errors(ucf):
    root, boxes = ucf
    file = root / "boxes.json"
    tube = boxes["Diving/v_Diving_g01_c01"]["annotations"][0]
    for change in ({"ef": 7}, {"sf": -1}, {"ef": 3}):
        boxes["Diving/v_Diving_g01_c01"]["annotations"] = [{**tube, **change}]
        file.write_text(json.dumps(boxes))
        with pytest.raises(ValueError, match=r"boxes\.json: the 2 boxes of Diving.* within 0\.\.6"):
            amstel.data.UCF101(root)[0]
    for text in ("[", "[]", '{"a": 3}', '{"a": {"annotations": [{"sf": 1}]}}'):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"boxes\.json must hold"):
            amstel.data.UCF101(root)
    file.write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"videos named in boxes\.json"):
        amstel.data.UCF101(root)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="JSON"):
        amstel.data.UCF101(root)


# --------------------------------------------------------------------------------------- generated clips


def centers(clips):
    boxes = torch.stack([clip.boxes for clip in clips]).double()
    return ((boxes[..., :2] + boxes[..., 2:]) / 2).numpy()


def test_generated_clips():
    clips = amstel.data.generate_moving_shapes(10, frames=5, size=32, classes=4, distractors=1)
    assert [clip.label for clip in clips] == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    for clip in clips:
        assert clip.frames.shape == (5, 32, 32, 3) and clip.frames.dtype == torch.uint8
        assert clip.boxes.shape == (5, 4) and clip.boxes.dtype == torch.float32
        assert (clip.boxes >= -1e-4).all() and (clip.boxes <= 32 + 1e-4).all()
    assert clips[3].name == "down_00003"
    assert amstel.data.generate_moving_shapes(0) == []


def test_generated_clips_depend_on_the_seed_alone():
    def make(count, seed):
        return amstel.data.generate_moving_shapes(count, frames=3, size=16, seed=seed, distractors=2)

    few, many, other = make(3, 5), make(6, 5), make(3, 6)
    for a, b, c in zip(few, many, other, strict=False):
        assert torch.equal(a.frames, b.frames) and torch.equal(a.boxes, b.boxes)
        assert not torch.equal(a.frames, c.frames)
    assert not torch.equal(many[0].frames, many[4].frames)


@pytest.mark.parametrize("wrap", [True, False])
@pytest.mark.parametrize("classes", [2, 4, 8])
def test_motion_is_that_of_the_class(classes, wrap):
    clips = amstel.data.generate_moving_shapes(16, 10, 64, 1, classes, speed=(1, 1.5), wrap=wrap)
    steps = np.diff(centers(clips), axis=1)
    jumps = abs(steps).max(-1) > 5
    assert jumps.any() == wrap
    angle = np.arctan2(-steps[..., 1], steps[..., 0])
    expected = np.array([2 * np.pi * clip.label / classes for clip in clips])[:, None]
    off = abs((angle - expected + np.pi) % (2 * np.pi) - np.pi)
    assert off[~jumps].max() < 1e-4
    length = np.hypot(*np.moveaxis(steps, -1, 0))[~jumps]
    assert 1 - 1e-4 < length.min() and length.max() < 1.5 + 1e-4
    words = {"right": (1, 0), "left": (-1, 0), "up": (0, -1), "down": (0, 1)}
    for clip, step, jump in zip(clips, steps, jumps, strict=True):
        direction = sum(np.array(words[word]) for word in DIRECTIONS[classes][clip.label].split())
        assert (step[~jump] @ direction > 0.9).all()


def test_true_boxes_hold_the_shape():
    """Without noise, what differs from the still background is inside the box and reaches its sides."""
    for clip in amstel.data.generate_moving_shapes(12, frames=2, size=64, seed=3, noise=0, speed=9):
        strong = clip.frames.int().amax(-1) - clip.frames.int().amin(-1) > 60  # color: the background is gray
        for picture, box in zip(strong, clip.boxes, strict=True):
            y, x = picture.nonzero().T
            found = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])
            assert (found - box).abs().max() < 1.6


def separation(values, labels):
    """The least p-value of the Kolmogorov-Smirnov test over pairs of classes and columns."""
    stats = pytest.importorskip("scipy.stats")
    groups = [values[labels == label] for label in np.unique(labels)]
    return min(
        stats.ks_2samp(a[:, column], b[:, column]).pvalue
        for a, b in combinations(groups, 2)
        for column in range(values.shape[1])
    )


def test_no_single_frame_gives_the_class():
    clips = amstel.data.generate_moving_shapes(1200, frames=6, size=16, seed=0, classes=4, noise=0)
    labels = np.array([clip.label for clip in clips])
    place = centers(clips)
    assert separation(place.reshape(len(clips), -1), labels) > 1e-3  # 72 tests
    # Size and color say nothing either.
    look = np.stack(
        [[*clip.frames[0].double().mean((0, 1)), clip.boxes[0, 2] - clip.boxes[0, 0]] for clip in clips]
    )
    assert separation(look, labels) > 1e-3
    # Each frame for itself, read by a linear classifier of its pixels: chance is 1/4.
    for t in (0, 5):
        pixels = np.stack([clip.frames[t].amax(-1).double().flatten() / 255 for clip in clips])
        pixels = np.concatenate([pixels, np.ones((len(pixels), 1))], 1)
        gram = pixels[:800].T @ pixels[:800] + np.eye(pixels.shape[1])
        weight = np.linalg.solve(gram, pixels[:800].T @ np.eye(4)[labels[:800]])
        assert (np.argmax(pixels[800:] @ weight, 1) == labels[800:]).mean() < 0.25 + 4 * np.sqrt(
            0.25 * 0.75 / 400
        )


def test_positions_are_uniform_in_every_frame():
    stats = pytest.importorskip("scipy.stats")
    clips = amstel.data.generate_moving_shapes(600, frames=4, size=16, seed=1, classes=2)
    radius = np.array([(clip.boxes[0, 2] - clip.boxes[0, 0]) / 2 for clip in clips])[:, None, None]
    share = (centers(clips) - radius) / (16 - 2 * radius)
    for t in range(4):
        for axis in range(2):
            assert stats.kstest(share[:, t, axis], "uniform").pvalue > 1e-3


def test_a_straight_path_does_hint_at_the_class():
    """What `wrap` is for, and that the test above can see it."""
    clips = amstel.data.generate_moving_shapes(400, frames=6, size=16, seed=0, classes=4, wrap=False)
    assert separation(centers(clips)[:, 0], np.array([clip.label for clip in clips])) < 1e-6


def test_distractors_rest_or_move_and_are_gray():
    clips = amstel.data.generate_moving_shapes(4, frames=6, size=64, seed=2, distractors=3, noise=0)
    without = amstel.data.generate_moving_shapes(4, frames=6, size=64, seed=2, distractors=0, noise=0)
    for clip, plain in zip(clips, without, strict=True):
        assert torch.equal(clip.boxes, plain.boxes)
        assert (clip.frames.amin(-1) > 90).sum() > 3 * (plain.frames.amin(-1) > 90).sum()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"count": -1}, "`count` must be"),
        ({"frames": 0}, "`frames` must be"),
        ({"size": 8}, "`size` must be"),
        ({"seed": 0.5}, "`seed` must be"),
        ({"classes": 3}, "`classes` must be 2, 4 or 8"),
        ({"classes": 2.0}, r"`classes` must be 2, 4 or 8, got 2\.0"),
        ({"classes": [2]}, r"`classes` must be 2, 4 or 8, got \[2\]"),
        ({"distractors": -1}, "`distractors` must be"),
        ({"noise": -0.1}, "`noise` must be"),
        ({"noise": float("nan")}, "`noise` must be"),
        ({"speed": 0}, "`speed` must be"),
        ({"speed": (2, 1)}, "`speed` must be"),
        ({"speed": (1, 2, 3)}, "`speed` must be"),
        ({"speed": 30}, "`speed` must be"),
        ({"speed": "ab"}, r"`speed` must be a number or \(least, greatest\), got 'ab'"),
        ({"speed": ("a", 2)}, r"`speed` must be a number or \(least, greatest\), got 'a'"),
        ({"speed": np.ones((2, 2))}, "`speed` must be a number or"),
        ({"speed": float("nan")}, "`speed` must be a number or"),
        ({"noise": "a"}, "`noise` must be in"),
        ({"speed": 4, "wrap": False}, "`speed` must be"),
    ],
)
def test_generator_explains_itself(options, message):
    with pytest.raises(ValueError, match=message):
        amstel.data.generate_moving_shapes(**{"count": 1, **options})


def test_generator_takes_numbers_of_numpy():
    given = amstel.data.generate_moving_shapes(
        3, 3, 32, classes=np.int64(2), speed=np.array([1.0, 2.0]), noise=np.float32(0)
    )
    plain = amstel.data.generate_moving_shapes(3, 3, 32, classes=2, speed=(1.0, 2.0), noise=0.0)
    for a, b in zip(given, plain, strict=True):
        assert a.name == b.name and torch.equal(a.frames, b.frames) and torch.equal(a.boxes, b.boxes)


def test_localize_on_generated_clips():
    """Attention that is high on the shape gives boxes that overlap it, also where it comes in again."""
    pytest.importorskip("scipy.ndimage")
    clips = amstel.data.generate_moving_shapes(12, frames=16, size=64, seed=4)
    grid = (torch.arange(16) + 0.5) * 4
    found, centered = [], []
    for clip in clips:
        center = (clip.boxes[:, :2] + clip.boxes[:, 2:]) / 2
        near = (grid - center[:, :1]).square()[:, None, :] + (grid - center[:, 1:]).square()[:, :, None]
        boxes = video.localize(torch.exp(-near / 40), (64, 64))
        found.append(video.box_iou(boxes, clip.boxes))
        half = (clip.boxes[:, 2:] - clip.boxes[:, :2]) / 2
        centered.append(video.box_iou(torch.cat([32 - half, 32 + half], 1), clip.boxes))
    assert torch.cat(found).mean() > max(0.5, 2 * float(torch.cat(centered).mean()))


# ---------------------------------------------------------------------------------------------- real data


@pytest.mark.data
def test_real_weizmann(data_folder):
    clips = amstel.data.Weizmann(data_folder / "video" / "weizmann4")
    assert clips.classes == ["bend", "jack", "wave1", "wave2"]
    assert clips.subjects == list(range(6)) * 4
    listed = json.loads((data_folder / "video" / "weizmann4" / "manifest.json").read_text())
    lengths = {(entry["label"], entry["subject"]): entry["frames"] for entry in listed}
    for clip, subject in zip(clips, clips.subjects, strict=True):
        assert clip.frames.shape == (lengths[clips.classes[clip.label], subject], 64, 64, 3)
    plain = amstel.data.ClipFolder(data_folder / "video" / "weizmann4")
    assert plain.paths == clips.paths and plain.labels == clips.labels


@pytest.mark.data
def test_real_moving_shapes(data_folder):
    clips = amstel.data.MovingShapes(data_folder / "video" / "moving_shapes")
    assert len(clips) == 991 and clips.labels.count(0) == 500
    for index in (0, 500, 990):
        assert clips[index].frames.shape == (8, 64, 64, 3)


@pytest.mark.data
def test_real_ucf101(data_folder):
    clips = amstel.data.UCF101(data_folder / "video" / "ucf101_clip")
    clip = clips[0]
    assert clips.classes == ["BasketballDunk"] and clip.frames.shape == (74, 240, 320, 3)
    known = ~clip.boxes.isnan().any(1)
    assert known.nonzero()[:, 0].tolist() == list(range(16, 56))
    assert clip.boxes[16].tolist() == [175, 112, 206, 160]
