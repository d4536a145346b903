"""Localization as benchmarks judge it: their rules, tubes of several actors, attention that learns from boxes."""

from __future__ import annotations

import csv
import dataclasses
import json
import pickle
import shutil

import numpy as np
import pytest
import torch

import amstel
from amstel import cli, video
from amstel.apps.video import localization, samples
from amstel.apps.video import train as video_train
from amstel.data import generate_moving_shapes
from tests import command

pytest.importorskip("av", reason="clips are videos")
pytest.importorskip("scipy", reason="boxes need scipy")
pytestmark = pytest.mark.usefixtures("one_thread")

NAN = float("nan")

# --------------------------------------------------------------------------------------------- rules


def _slow_rule(protocol, scores, overlaps, count, threshold, ignored):
    """The published programs again, in loops: (score, right) of what counts, and the average precision."""
    order = sorted(range(len(scores)), key=lambda d: -scores[d])
    taken_d, taken_g, out = set(), set(), []
    if protocol == "thumos14":
        for g in range(count):
            left = [d for d in order if d not in taken_d]
            best = max(left, key=lambda d: overlaps[d][g], default=None)
            if best is not None and overlaps[best][g] > threshold:
                taken_d.add(best)
        out = [d in taken_d for d in order if d in taken_d or not ignored[d]]
        right = np.cumsum(out) / np.arange(1, len(out) + 1)
        return float(sum(p for p, hit in zip(right, out, strict=True) if hit)) / count
    for d in order:
        left = [g for g in range(count) if g not in taken_g]
        best = max(left, key=lambda g: overlaps[d][g], default=None)
        hit = best is not None and overlaps[d][best] > threshold
        if hit:
            taken_g.add(best)
        out.append(hit)
    precision, recall = np.cumsum(out) / np.arange(1, len(out) + 1), np.cumsum(out) / count
    area, last = 0.0, 0.0
    for k, r in enumerate(recall):
        area += (r - last) * max(precision[k:])
        last = r
    return area


@pytest.mark.parametrize("protocol", ["ucf101-24", "thumos14"])
def test_rules_against_loops(protocol):
    rng = np.random.default_rng(5)
    for _ in range(40):
        d, g = rng.integers(0, 9), rng.integers(1, 5)
        scores, overlaps = rng.permutation(20)[:d] / 20, rng.random((d, g)).round(1)
        ignored = rng.random(d) < 0.4
        ours = video.mean_average_precision(
            torch.tensor(scores),
            torch.zeros(d, dtype=torch.long),
            torch.tensor(overlaps).view(d, g),
            torch.zeros(g, dtype=torch.long),
            (0.2, 0.5),
            protocol=protocol,
            ignored=torch.tensor(ignored) if protocol == "thumos14" else None,
        )
        expected = [_slow_rule(protocol, scores, overlaps, g, t, ignored) for t in (0.2, 0.5)]
        assert ours.tolist() == pytest.approx(expected, abs=1e-6)


def test_the_three_rules_differ():
    """Two detections on two truths: the better one overlaps both, and the first more; an overlap of exactly 0.5."""
    one, two = torch.tensor([0.9, 0.8]), torch.zeros(2, dtype=torch.long)
    iou = torch.tensor([[0.7, 0.6], [0.65, 0.1]])
    found = {
        p: video.mean_average_precision(one, two, iou, two, (0.5,), protocol=p).item()
        for p in ("voc", "ucf101-24", "thumos14")
    }
    # VOC: the second again finds the first truth, wrong. Both others: 0 takes the first, nothing is left for 1.
    assert found == {"voc": 0.5, "ucf101-24": 0.5, "thumos14": 0.5}
    half = torch.tensor([[0.5]])
    exact = {
        p: video.mean_average_precision(one[:1], two[:1], half, two[:1], (0.5,), protocol=p).item()
        for p in found
    }
    assert exact == {"voc": 1, "ucf101-24": 0, "thumos14": 0}
    with pytest.raises(ValueError, match="`protocol` must be one of voc"):
        video.mean_average_precision(one, two, iou, two, protocol="coco")
    with pytest.raises(ValueError, match="`ignored` must be bool"):
        video.mean_average_precision(one, two, iou, two, ignored=one)


def test_overlap_of_intervals():
    a = torch.tensor([[0.0, 2], [1, 3], [5, 6], [2, 2]])
    assert video.interval_iou(a[:1], a).tolist() == pytest.approx([1, 1 / 3, 0, 0])
    with pytest.raises(ValueError, match=r"\[\.\.\., 2\]"):
        video.interval_iou(a, torch.zeros(3))


# -------------------------------------------------------------------------------------------- actors


def _blobs(*tracks, frames=20, side=10):
    """Maps with a blob for each track: (row, column at time t) or None, and its height."""
    maps = torch.zeros(frames, side, side)
    for path, height in tracks:
        for t in range(frames):
            if (place := path(t)) is not None:
                maps[t, place[0], place[1]] = height
    return maps


def test_actors_have_tubes_of_their_own():
    maps = _blobs((lambda t: (2, 1), 1.0), (lambda t: (7, 8) if 5 <= t < 15 and t != 9 else None, 0.8))
    tubes, scores = video.localize_actors(maps, (100, 100), sigma=0, span=1)
    assert tubes.shape == (2, 20, 4) and scores[0] > scores[1] > 0
    assert scores.sum() == pytest.approx(1)
    assert not tubes[0].isnan().any() and tubes[0, :, :2].unique(dim=0).tolist() == [[10, 20]]
    there = ~tubes[1].isnan().any(1)
    assert there.nonzero()[:, 0].tolist() == list(range(5, 15))  # the gap at 9 is closed
    # A blob of 0.8 is above half the range in eight pixels of its cell of ten.
    assert tubes[1, 9].tolist() == tubes[1, 8].tolist() == [81, 71, 89, 79]
    # Crossing paths, at most as many as asked for, and what is too short or too weak.
    assert len(video.localize_actors(maps, (100, 100), sigma=0, most=1)[0]) == 1
    assert len(video.localize_actors(maps, (100, 100), sigma=0, shortest=12)[0]) == 1
    assert len(video.localize_actors(maps, (100, 100), sigma=0, gap=0, weakest=0)[0]) == 3
    assert len(video.localize_actors(maps, (100, 100), sigma=0, weakest=0.9)[0]) == 1
    none, of_none = video.localize_actors(torch.ones(3, 4, 4), (8, 8))
    assert none.shape == (0, 3, 4) and of_none.shape == (0,)
    for option in ({"most": 0}, {"gap": -1}, {"shortest": 0}, {"weakest": 2.0}, {"threshold": 2.0}):
        with pytest.raises(ValueError, match=f"`{next(iter(option))}` must be"):
            video.localize_actors(maps, (100, 100), **option)


def test_one_actor_is_the_box_of_localize():
    maps = _blobs((lambda t: (2 + t // 4, 1 + t // 4), 1.0))
    tubes, scores = video.localize_actors(maps, (60, 80))
    assert scores.tolist() == [1.0]
    torch.testing.assert_close(tubes[0], video.localize(maps, (60, 80)))


@pytest.mark.parametrize("split", [True, False])
def test_a_uniform_map_has_the_whole_frame_and_leaves_the_others_alone(split):
    maps = torch.zeros(9, 7, 7)
    maps[:, 3, 5] = 1
    uniform = torch.tensor([0, 4, 5])
    maps[uniform] = 0.5
    whole = torch.tensor([0.0, 0, 70, 70])
    expected = torch.tensor([50.0, 30, 60, 40]).repeat(9, 1)
    expected[uniform] = whole
    torch.testing.assert_close(video.localize(maps, (70, 70), sigma=0, split=split), expected)
    assert torch.equal(video.localize(maps[:1], (70, 70), split=split), whole[None])
    # A straight line in time stays one over the gap.
    box = torch.tensor([[10.0, 20, 40, 50]], dtype=torch.float64)
    frames = [None if t in (0, 3, 6) else (box + t, torch.ones(1)) for t in range(7)]
    followed = amstel.media.localize.follow(frames, (70, 70), split=split)
    expected = torch.stack([whole if t in (0, 3, 6) else (box[0] + t).float() for t in range(7)])
    torch.testing.assert_close(followed, expected)


def test_actors_are_drawn_in_colors_of_their_own():
    frames = torch.zeros(2, 40, 40, 3, dtype=torch.uint8)
    tubes = torch.tensor([[[2.0, 2, 12, 12]] * 2, [[20.0, 20, 35, 35], [NAN] * 4]])
    pictures = video.annotate(frames, boxes=tubes, scale=1)
    second = torch.tensor((255, 170, 60), dtype=torch.uint8)
    seen = (pictures == second).all(-1).flatten(1).any(1).tolist()
    assert seen == [True, False]
    assert (pictures == torch.tensor(video.FOUND, dtype=torch.uint8)).all(-1).flatten(1).any(1).all()
    with pytest.raises(ValueError, match=r"`boxes` must be \[2, 4\] or \[actors, 2, 4\]"):
        video.annotate(frames, boxes=tubes[:, :1])


# -------------------------------------------------------------------------------- the command line


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Ten clips of shapes as videos, what is true of them as `pyannot.pkl` and as times, and a network."""
    base = tmp_path_factory.mktemp("trained")
    boxes = {}
    for clip in generate_moving_shapes(10, frames=9, size=32, classes=2):
        name = f"{clip.name.split('_')[0]}/v_{clip.name}"
        (base / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        video.write(base / "clips" / f"{name}.mp4", clip.frames, fps=10)
        xywh = torch.cat([clip.boxes[:, :2], clip.boxes[:, 2:] - clip.boxes[:, :2]], 1).numpy()
        boxes[name] = {"annotations": [{"sf": 0, "ef": 9, "boxes": xywh}]}
    (base / "pyannot.pkl").write_bytes(pickle.dumps(boxes, protocol=2))
    (base / "times").mkdir()
    for name in ("left", "right"):
        lines = [f"{v.split('/')[1]}  0.1 0.7\r\n" for v in boxes if v.startswith(name)]
        (base / "times" / f"{name}_test.txt").write_bytes("".join(lines).encode())
    (base / "times" / "Ambiguous_test.txt").write_text("v_left_00001 0.7 0.9\n")
    (base / "times" / "detclasslist.txt").write_text("3 left\n5 right\n")
    options = "--epochs 1 --frame-size 32 --hidden 4 --steps 4 --motion difference".split()
    assert cli.main(["video", "train", str(base / "clips"), "--out", str(base / "run"), *options]) == 0
    return base


def test_where_needs_attention(capsys, trained, tmp_path):
    options = "--epochs 1 --frame-size 32 --steps 4 --model cnn".split()
    assert command.run(capsys, "video", "train", trained / "clips", "--out", tmp_path, *options)[0] == 0
    arguments = [
        "evaluate",
        tmp_path / "checkpoint.pt",
        trained / "clips",
        "--boxes",
        trained / "pyannot.pkl",
    ]
    command.is_refused(capsys, ["video", *arguments], "evaluate: CHECKPOINT must be a model with attention")


def test_where_by_the_rules_of_ucf101_24(capsys, trained, tmp_path):
    checkpoint, found = trained / "run" / "checkpoint.pt", tmp_path / "found.json"
    arguments = ["video", "evaluate", checkpoint, trained / "clips", "--boxes", trained / "pyannot.pkl"]
    status, out, err = command.run(
        capsys, *arguments, "--json", tmp_path / "r.json", "--detections", found, "--segments", 2
    )
    assert status == 0 and err == "" and "mAP" in out and "tubes in 10 videos" in out
    assert out.startswith("IoU    ")  # > for the precision, >= for the recall
    record, rows = json.loads((tmp_path / "r.json").read_text()), json.loads(found.read_text())
    assert record["protocol"] == "ucf101-24" and record["truths"] == 10 and record["detections"] == len(rows)
    # The numbers again from the file that was written.
    truth = {clip.name: clip for clip in amstel.data.UCF101(trained / "clips", trained / "pyannot.pkl")}
    names = sorted(truth)
    overlap = torch.zeros(len(rows), len(names))
    for d, row in enumerate(rows):
        tube = torch.full((9, 4), NAN)
        tube[row["first"] : row["first"] + len(row["boxes"])] = torch.tensor(row["boxes"])
        overlap[d, names.index(row["video"])] = video.tube_iou(tube, truth[row["video"]].boxes)
    again = video.mean_average_precision(
        torch.tensor([row["score"] for row in rows]),
        torch.tensor([["left", "right"].index(row["class"]) for row in rows]),
        overlap,
        torch.tensor([truth[name].label for name in names]),
        protocol="ucf101-24",
    )
    assert list(record["map"].values()) == pytest.approx(again.tolist(), abs=1e-3)
    assert 0 <= record["recall"]["0.5"] <= record["recall"]["0.1"] <= 1
    for share in record["recall"].values():  # as exact as the precision
        assert 10 * share == pytest.approx(round(10 * share), abs=1e-12)

    command.is_refused(capsys, [*arguments, "--split", 1], "trainlist01.txt beside it")
    command.is_refused(capsys, [*arguments, "--detections", tmp_path / "x.txt"], "must end in .json")
    command.is_refused(capsys, [*arguments, "--intervals", trained / "times"], "cannot be given")
    command.is_refused(capsys, [*arguments, "--table", tmp_path / "t.md"], "--table is for the accuracy")
    command.is_refused(capsys, [*arguments[:4], "--detections", found], "--detections")


@pytest.mark.parametrize("test", [("--boxes", "pyannot.pkl"), ("--intervals", "times")])
def test_videos_that_were_trained_on_are_counted(capsys, trained, tmp_path, test):
    shutil.copy(trained / "run" / "checkpoint.pt", tmp_path)
    arguments = ["video", "evaluate", tmp_path / "checkpoint.pt", trained / "clips"]
    arguments += [test[0], trained / test[1], "--json", tmp_path / "r.json", "--force"]
    names = sorted(clip.name for clip in amstel.data.UCF101(trained / "clips", trained / "pyannot.pkl"))
    for held, seen in ((names[:2], 8), (names, None), (["elsewhere"], None)):
        (tmp_path / "training.json").write_text(json.dumps({"held_out": held}))
        status, out, _ = command.run(capsys, *arguments)
        assert status == 0 and (f"{seen} of these 10 videos were trained on" in out) == (seen is not None)
        assert json.loads((tmp_path / "r.json").read_text()).get("trained_on") == seen


def test_when_by_the_rules_of_thumos14(capsys, trained, tmp_path):
    checkpoint, found = trained / "run" / "checkpoint.pt", tmp_path / "found.txt"
    arguments = ["video", "evaluate", checkpoint, trained / "clips", "--intervals", trained / "times"]
    status, out, err = command.run(capsys, *arguments, "--json", tmp_path / "r.json", "--detections", found)
    assert status == 0 and err == "" and "10 actions in 10 videos" in out
    record = json.loads((tmp_path / "r.json").read_text())
    lines = [line.split() for line in found.read_text().splitlines()]
    assert len(lines) == record["detections"] and {line[3] for line in lines} == {"3", "5"}
    assert all(0 <= float(a) < float(b) <= 0.91 for _, a, b, _, _ in lines)
    assert record["protocol"] == "thumos14" and set(record["classes"]) == {"left", "right"}
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "left_val.txt").write_text("v_left_00001 0.1 0.7\n")
    command.is_refused(capsys, [*arguments[:-1], tmp_path / "val"], "but files of the val set")


def test_annotations_of_thumos14(trained, tmp_path):
    videos = amstel.data.THUMOS14(trained / "clips", trained / "times")
    assert len(videos) == 10 and videos.classes == ["left", "right"] and videos.numbers == [3, 5]
    k = videos.names.index("v_left_00001")
    assert videos.intervals[k] == [("left", 0.1, 0.7)] and videos.ambiguous[k] == [(0.7, 0.9)]
    for line, message in (
        ("v 1 2 3", "line 1 must be"),
        ("v 2 1", "must be"),
        ("v 0 inf", "must be"),
        ("v", "must be"),
    ):
        (tmp_path / "Diving_test.txt").write_text(line)
        with pytest.raises(ValueError, match=message):
            amstel.data.THUMOS14(trained / "clips", tmp_path)
    (tmp_path / "Diving_test.txt").write_text("v_left_00001 0.1 0.2\nnowhere 0.1 0.2\n")
    with pytest.warns(UserWarning, match="1 of 2 videos"):
        videos = amstel.data.THUMOS14(trained / "clips", tmp_path)
    assert videos.missing == ["nowhere"] and videos.numbers == [26]  # as published
    (tmp_path / "Diving_test.txt").rename(tmp_path / "Yodeling_test.txt")
    with pytest.raises(ValueError, match="number of Yodeling"):
        amstel.data.THUMOS14(trained / "clips", tmp_path)


def test_frames_at_the_rate_of_the_network(tmp_path, monkeypatch):
    """Of a video of 20 s, and of what was read at that rate already, the network sees what training reads."""
    from amstel.apps.video import network, predict

    model = network.Network(_settings(fps=10.0, hidden=4, steps=20), ["a", "b"])
    seen, prepare = [], predict._prepare
    monkeypatch.setattr(predict, "_prepare", lambda frames, s: seen.append(frames) or prepare(frames, s))
    ramp = (torch.arange(600)[:, None, None, None] % 256).to(torch.uint8).expand(-1, 32, 32, 3).contiguous()
    path = video.write(tmp_path / "long.mp4", ramp, fps=30)
    frames, times = amstel.media.reading.read_with_times(path)
    at_rate = video.read(path, fps=10)
    predict.predict(model, frames, times=times)
    predict.predict(model, at_rate, times=[k / 10 for k in range(200)])
    assert len(at_rate) == 200 and all(torch.equal(found, at_rate) for found in seen)


@pytest.mark.parametrize("rate", [1, 7, 10, 30, 45])
def test_frames_over_time_end_with_the_video(tmp_path, rate):
    ramp = (4 * torch.arange(60)[:, None, None, None]).to(torch.uint8).expand(-1, 16, 16, 3).contiguous()
    path = video.write(tmp_path / "two_seconds.mp4", ramp, fps=30)
    frames, times = zip(*localization._shown(path, rate, 1), strict=True)
    assert torch.equal(torch.from_numpy(np.stack(frames)), video.read(path, fps=rate))
    assert list(times) == [k / rate for k in range(2 * rate)]
    assert [time for _, time in localization._shown(path, rate, 3)] == list(times[::3])


def _long_video(folder, monkeypatch, truth, ambiguous):
    """Two seconds at 10 frames a second with what is true of them, and a model that is to know `left`."""
    for name in ("clips", "times"):
        (folder / name).mkdir()
    video.write(folder / "clips" / "v.mp4", torch.zeros(20, 16, 16, 3, dtype=torch.uint8), fps=10)
    (folder / "times" / "left_test.txt").write_text(f"v {truth}\n")
    (folder / "times" / "detclasslist.txt").write_text("1 left\n")
    (folder / "times" / "Ambiguous_test.txt").write_text(f"v {ambiguous}\n")
    times = torch.arange(20, dtype=torch.float64) / 10
    monkeypatch.setattr(localization, "timeline", lambda *_: (torch.zeros(20, 1), times))
    model = type("Knows", (), {"classes": ["left"]})()
    return model, amstel.data.THUMOS14(folder / "clips", folder / "times")


@pytest.mark.parametrize("threshold", localization.INTERVAL_THRESHOLDS)
def test_an_overlap_of_just_the_threshold_is_not_more(tmp_path, monkeypatch, threshold):
    """Rounding made some of these 1e-16 more."""
    model, videos = _long_video(tmp_path, monkeypatch, "0.3 1.3", "1.9 2.0")
    frames, at = round(10 * threshold), localization.INTERVAL_THRESHOLDS.index(threshold)
    for first in range(3, 14 - frames):
        for more in (0, 1):
            found = [(first, first + frames - 1 + more, 0.9)]
            monkeypatch.setattr(localization, "spans", lambda _, found=found: found)
            inside = first + frames + more <= 13
            assert localization.intervals(model, videos).map[at] == (more and inside)


def test_a_detection_beside_an_ambiguous_part_counts(tmp_path, monkeypatch):
    """Wrong, and beside the ambiguous part from 0.3 to 0.6 s, or into it: only the latter is left out."""
    model, videos = _long_video(tmp_path, monkeypatch, "1.5 1.9", "0.3 0.6")
    # The last ends at 0.2 + 0.1 s, which is more than 0.3 by rounding.
    for first, last, precision in ((6, 9, 0.5), (5, 9, 1.0), (0, 3, 1.0), (0, 2, 0.5)):
        found = [(first, last, 0.9), (15, 18, 0.5)]
        monkeypatch.setattr(localization, "spans", lambda _, found=found: found)
        assert localization.intervals(model, videos).map[0] == precision


def test_parts_of_a_long_video_are_the_whole(trained, tmp_path):
    from amstel.apps.video import network

    model = network.load(trained / "run" / "checkpoint.pt")
    frames = torch.cat([clip.frames for clip in generate_moving_shapes(3, frames=9, size=32, classes=2)])
    path = video.write(tmp_path / "long.mp4", frames, fps=10)
    whole, times = localization.timeline(model, path)
    assert whole.shape == (27, 2) and times[-1] == pytest.approx(2.6)
    for chunk in (1, 9, 12):
        torch.testing.assert_close(localization.timeline(model, path, chunk=chunk)[0], whole)


def test_spans_of_a_curve():
    curve = torch.zeros(100)
    curve[20:40], curve[60:70] = 0.9, 0.5
    (a, b, score), second = localization.spans(curve)[:2]
    assert (a, b) == (20, 39) and second[:2] == (60, 69) and score == pytest.approx(0.9)
    assert localization.spans(torch.full((9,), 0.01)) == []
    assert localization.spans(torch.ones(5)) == [(0, 4, 1.0)]


def test_tables_of_boxes(capsys, trained, tmp_path):
    source = trained / "clips" / "left" / "v_left_00001.mp4"
    arguments = ["video", "predict", trained / "run" / "checkpoint.pt", source, "-o", tmp_path / "p.gif"]
    table, record = tmp_path / "p.csv", tmp_path / "p.json"
    assert command.run(capsys, *arguments, "--csv", table, "--json", record, "--actors", 2)[0] == 0
    (one,) = json.loads(record.read_text())["videos"]
    rows = list(csv.DictReader(table.open()))
    assert 1 <= len(one["tubes"]) <= 2 and len(one["boxes"]) == 9
    assert len(rows) == sum(box is not None for tube in one["tubes"] for box in tube["boxes"])
    first = next(row for row in rows if row["actor"] == "0")
    box = one["tubes"][0]["boxes"][int(first["frame"])]
    assert [float(first[k]) for k in ("x1", "y1", "x2", "y2")] == pytest.approx(box, abs=0.01)
    command.is_refused(capsys, [*arguments, "--csv", table, "--force", "--actors", 0], "--actors")
    command.is_refused(capsys, [*arguments[:-1], tmp_path / "q.gif", "--csv", table], "exists")


# ------------------------------------------------------------------------------ attention and true boxes


def _settings(**changes):
    from amstel.apps.video.settings import Settings

    return Settings.from_scratch(model="convalstm", frame_size=32, box_weight=1.0, **changes)


@pytest.mark.parametrize("flip", [False, True])
def test_boxes_move_with_the_pixels(flip):
    """A white block, and its box through resizing, shifting and mirroring."""
    frames = torch.zeros(6, 64, 128, 3, dtype=torch.uint8)
    tubes = torch.full((2, 6, 4), NAN)
    for t in range(6):
        frames[t, 24:40, 48 + 4 * t : 64 + 4 * t] = 255
        tubes[0, t] = torch.tensor([48 + 4 * t, 24, 64 + 4 * t, 40.0])
    clip = amstel.data.Clip(frames, 0, "block", tubes=tubes)
    settings = _settings(flip=flip, shift=4, brightness=0.0, steps=4)
    seen = set()
    for seed in range(6):
        crop = samples._crop(samples.prepared(clip, settings), settings, samples._generator(seed))
        assert crop.boxes.shape == (4, 2, 4) and crop.boxes[:, 1].isnan().all()
        for frame, box in zip(crop.frames, crop.boxes[:, 0], strict=True):
            rows, columns = (frame[0] > 0.5).nonzero().unbind(1)
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert np.abs(np.array(found, float) - box.numpy()).max() <= 1
        seen.add(bool(crop.boxes[1, 0, 0] < crop.boxes[0, 0, 0]))
    assert seen == ({False, True} if flip else {False})
    # Without the weight nothing is carried along.
    assert samples.prepared(clip, dataclasses.replace(settings, box_weight=0.0)).boxes is None


def test_distance_of_attention_from_boxes_against_loops():
    torch.manual_seed(0)
    attention = torch.rand(3, 2, 4, 4).flatten(2).softmax(-1).view(3, 2, 4, 4).requires_grad_()
    boxes = torch.tensor([4.0, 8, 13, 30]).repeat(3, 2, 2, 1)
    boxes[:, :, 1] = torch.tensor([16.0, 0, 40, 8])  # partly outside of the frame
    boxes[2, 1] = NAN  # no box: the frame does not count
    boxes[0, 0, 1] = NAN
    expected = 0.0
    for t in range(3):
        for n in range(2):
            share = np.zeros((4, 4))
            for i in range(4):
                for j in range(4):
                    for x1, y1, x2, y2 in boxes[t, n].tolist():
                        if x1 == x1:
                            wide = max(0, min(x2, 8 * j + 8) - max(x1, 8 * j))
                            high = max(0, min(y2, 8 * i + 8) - max(y1, 8 * i))
                            share[i, j] = max(share[i, j], wide * high)
            if share.sum():
                share /= share.sum()
                a = attention[t, n].detach().numpy()
                expected += sum(q * np.log(q / p) for q, p in zip(share.flat, a.flat, strict=True) if q)
    found = video_train._away(attention, boxes, 32)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    (gradient,) = torch.autograd.grad(found, attention)
    assert gradient.isfinite().all() and not gradient[2, 1].any() and gradient[0, 0].any()


def test_training_takes_boxes(capsys, trained, tmp_path):
    options = "--model convalstm --epochs 1 --frame-size 32 --hidden 4 --steps 4".split()
    arguments = [
        "video",
        "train",
        trained / "clips",
        "--boxes",
        trained / "pyannot.pkl",
        "--out",
        tmp_path / "run",
    ]
    assert command.run(capsys, *arguments, *options)[0] == 0
    record = json.loads((tmp_path / "run" / "training.json").read_text())
    assert record["settings"]["box_weight"] == 1.0 and record["boxes"] == str(trained / "pyannot.pkl")
    resumed = ["video", "train", trained / "clips", "--out", tmp_path / "run", "--resume", "--epochs", 2]
    assert command.run(capsys, *resumed)[0] == 0
    again = json.loads((tmp_path / "run" / "training.json").read_text())
    assert again["loss"][0] == record["loss"][0] and len(again["loss"]) == 2
    new = [*arguments[:-1], tmp_path / "new"]
    command.is_refused(capsys, [*new, "--model", "cnn"], "--box-weight")
    command.is_refused(capsys, [*new[:3], "--out", tmp_path / "new", "--box-weight", 2], "needs --boxes")
    command.is_refused(capsys, [*new, "--split", 1], "trainlist01.txt beside it")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_an_overlap_that_is_the_threshold_is_right(dtype):
    """By PASCAL VOC's rule, whatever the threshold is in the type of the overlaps."""
    for tenths in range(1, 20):
        overlap = torch.tensor([[tenths / 20]], dtype=dtype)
        found = video.mean_average_precision(
            torch.tensor([0.9]), torch.tensor([0]), overlap, torch.tensor([0]), (tenths / 20,)
        )
        assert found.tolist() == [1.0], tenths
