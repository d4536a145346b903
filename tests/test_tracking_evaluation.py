"""Scores of tracks against slow loops written from the documented rules, data sets, plots, and published curves."""

import json
import math
import re
import warnings

import numpy as np
import pytest
import torch

import amstel.data
from amstel.apps.tracking import evaluate as commands
from amstel.apps.tracking.evaluate import attributes_record, attributes_table
from amstel.data import TrackingSequence
from amstel.tracking import (
    by_attribute,
    evaluate,
    evaluate_dataset,
    overlap,
    plot,
    plot_attributes,
    read_boxes,
    write_boxes,
)
from amstel.tracking.evaluation import PROTOCOLS, DatasetEvaluation

NAN = math.nan


# -------------------------------------------------------------------------------- the rules, frame by frame


def has_box(box):
    return not any(map(math.isnan, box)) and box[2] > 0 and box[3] > 0


def slow_iou(a, b):
    if any(map(math.isnan, a)):
        return 0
    w = max(0, min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]))
    h = max(0, min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]))
    return min(1, w * h / (a[2] * a[3] + b[2] * b[3] - w * h)) if w * h else 0


def slow_distance(a, b, unit=(1, 1)):
    dx = a[0] + (a[2] - 1) / 2 - (b[0] + (b[2] - 1) / 2)
    dy = a[1] + (a[3] - 1) / 2 - (b[1] + (b[3] - 1) / 2)
    return math.inf if math.isnan(dx + dy) else math.hypot(dx / unit[0], dy / unit[1])


def slow(boxes, truth, protocol):
    """Success, precision and normalized precision as counts over T."""
    boxes, success, precision, normalized = [list(box) for box in boxes], [0] * 21, [0] * 51, [0] * 51
    if protocol == "otb":
        for t in range(1, len(boxes)):
            lost = all(map(math.isnan, boxes[t])) or boxes[t][2] <= 0 or boxes[t][3] <= 0
            if lost and not any(map(math.isnan, truth[t])):
                boxes[t] = boxes[t - 1]
    boxes[0] = truth[0]
    for box, true in zip(boxes, truth, strict=True):
        missing, by_default = not has_box(true), False
        if protocol == "otb":
            missing = by_default = missing or true[0] + 1 <= 0 or true[1] + 1 <= 0
        center = [true[k] + 1 + (true[k + 2] - 1) / 2 for k in (0, 1)]
        by_pysot = not (center[0] > 0 and center[1] > 0)
        if protocol == "pysot":
            by_default = by_pysot
        for k in range(21):
            success[k] += not missing and slow_iou(box, true) > k / 20
        for k in range(51):
            near = slow_distance(box, true) <= k
            precision[k] += by_default or near
            relative = has_box(true) and slow_distance(box, true, true[2:]) <= k / 100
            normalized[k] += by_pysot or relative
    return [[n / len(boxes) for n in counts] for counts in (success, precision, normalized)]


def random_track(seed):
    """A track of whole and broken numbers near and far from its truth, with every kind of gap on both sides."""
    g = torch.Generator().manual_seed(seed)
    truth = torch.randint(-3, 30, (60, 4), generator=g).double()
    truth[:, 2:] = truth[:, 2:].abs() + 1
    near = torch.randint(0, 12, (60, 1), generator=g) * torch.randn(60, 4, generator=g).double()
    boxes = truth + (near if seed % 2 else near.round())
    gaps = torch.tensor([[NAN] * 4, [0] * 4, [5, 5, 0, 9], [-1] * 4, [3, NAN, 4, 5], [9, 9, 8, -2]])
    for values in (boxes, truth):
        places = torch.randperm(60, generator=g)[:12]
        values[places] = gaps[torch.randint(6, (12,), generator=g)].double()
    if seed % 3 == 0:
        boxes[:2] = NAN
    return boxes, truth


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("seed", range(12))
def test_against_the_rules(protocol, seed):
    boxes, truth = random_track(seed)
    scores = evaluate(boxes, truth, protocol)
    expected = slow(boxes.tolist(), truth.tolist(), protocol)
    found = (scores.success, scores.precision_curve, scores.normalized_precision_curve)
    for curve, values in zip(found, expected, strict=True):
        torch.testing.assert_close(curve, torch.tensor(values, dtype=torch.float64), rtol=0, atol=1e-15)
    assert scores.auc == pytest.approx(sum(expected[0]) / 21)
    assert scores.precision == expected[1][20] and scores.normalized_precision == expected[2][20]
    assert scores.frames == 60 and scores.protocol == protocol
    known = ~scores.iou.isnan()
    assert scores.missing == int((~known).sum()) and scores.mean_iou == pytest.approx(
        scores.iou[known].mean().item()
    )


def test_protocols_differ():
    """Not one rule under three names: some of the random tracks tell any two of them apart."""
    curves = {
        p: torch.stack([evaluate(*random_track(s), p).precision_curve for s in range(12)]) for p in PROTOCOLS
    }
    assert not torch.equal(curves["otb"], curves["got10k"])
    assert not torch.equal(curves["otb"], curves["pysot"])
    assert not torch.equal(curves["got10k"], curves["pysot"])


# -------------------------------------------------------------------------------------------- made by hand

TRUTH = torch.tensor([[10.0, 10, 40, 30]] * 4)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_perfect_track(protocol):
    truth = torch.rand(50, 4, generator=torch.Generator().manual_seed(0)).double() * 99 + 1
    scores = evaluate(truth, truth, protocol)
    assert scores.success.tolist() == [1] * 20 + [0] and scores.auc == pytest.approx(20 / 21)
    assert scores.precision_curve.tolist() == scores.normalized_precision_curve.tolist() == [1] * 51
    assert scores.iou.tolist() == [1] * 50 and scores.error.tolist() == [0] * 50 and scores.missing == 0
    assert scores.thresholds.tolist() == [k / 20 for k in range(21)]
    assert repr(scores) == f"Evaluation({protocol}, 50 frames, auc=0.952, precision=1.000)"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_shifted_track(protocol):
    """20 pixels to the side: exactly at the threshold, and half the box; the first frame is given."""
    shift = torch.tensor([20.0, 0, 0, 0])
    scores = evaluate(TRUTH + shift, TRUTH, protocol)
    assert scores.precision_curve.tolist() == [0.25] * 20 + [1] * 31 and scores.precision == 1
    assert scores.error.tolist() == [0, 20, 20, 20]
    assert scores.iou.tolist() == [1, 1 / 3, 1 / 3, 1 / 3]
    assert scores.success.tolist() == [1] * 7 + [0.25] * 13 + [0]
    assert scores.normalized_precision == 0.25 and scores.normalized_precision_curve[50] == 1
    beyond = evaluate(TRUTH + shift * 1.0001, TRUTH, protocol)
    assert beyond.precision == 0.25 and beyond.precision_curve[21] == 1


def test_overlap_at_a_threshold():
    """An overlap of exactly 0.6 is not above 0.6."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 6]])
    success = evaluate(boxes, torch.tensor([[0.0, 0, 10, 10]] * 2)).success
    assert success[11] == 1 and success[12] == 0.5


def test_a_box_is_not_filled_where_the_truth_is_unknown():
    """calcSeqErrRobust of OTB's toolkit: what is not filled goes on to the frames after it."""
    known, none = [9.0, 9, 10, 10], [NAN] * 4
    scores = evaluate([known, known, none, none], [known, known, none, known])
    assert scores.success[0] == 0.5 and scores.precision == 0.75
    assert evaluate([known, none, none, none], [known, known, none, known]).success[0] == 0.5
    assert evaluate([known, none, [9, 9, 0, 9], [9, NAN, 9, 9]], [known] * 4).success[0] == 0.75


def test_normalized_precision_is_that_of_pysot_in_every_protocol():
    truth = torch.tensor([[10.0, 10, 20, 20]] * 4)
    boxes = truth.clone()
    truth[2, 2:], boxes[2, 0] = 0, 500
    assert [evaluate(boxes, truth, p).normalized_precision for p in PROTOCOLS] == [0.75] * 3
    truth[2] = NAN
    assert [evaluate(boxes, truth, p).normalized_precision for p in PROTOCOLS] == [1] * 3


def test_missing_ground_truth():
    truth, boxes = TRUTH.clone(), TRUTH.clone()
    truth[2] = NAN
    found = {p: evaluate(boxes, truth, p) for p in PROTOCOLS}
    assert {p: e.success[0].item() for p, e in found.items()} == {"otb": 0.75, "got10k": 0.75, "pysot": 0.75}
    assert {p: e.precision_curve[0].item() for p, e in found.items()} == {
        "otb": 1,
        "got10k": 0.75,
        "pysot": 1,
    }
    for scores in found.values():
        assert scores.missing == 1 and scores.frames == 4 and scores.mean_iou == 1
        assert scores.iou[2].isnan() and scores.error[2].isnan()
    # Partly out of the picture: missing for OTB's toolkit only.
    truth[2] = boxes[2] = torch.tensor([-1.0, 5, 40, 30])
    assert [evaluate(boxes, truth, p).success[0].item() for p in PROTOCOLS] == [0.75, 1, 1]
    truth[2, 0] = boxes[2, 0] = -0.5
    assert evaluate(boxes, truth, "otb").success[0] == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_skip_missing(protocol):
    truth, boxes = TRUTH.clone(), TRUTH + torch.tensor([20.0, 0, 0, 0])
    truth[1] = NAN
    truth[3, 2] = 0
    scores = evaluate(boxes, truth, protocol, skip_missing=True)
    assert scores.frames == 2 and scores.missing == 0 and scores.error.tolist() == [0, 20]
    # The first frame that is left is not the one in which the box was given.
    truth[0] = NAN
    assert evaluate(boxes, truth, protocol, skip_missing=True).error.tolist() == [20]
    with pytest.raises(ValueError, match="`ground_truth` must hold a box to compare with"):
        evaluate(boxes, truth * NAN, protocol, skip_missing=True)


def test_lost_boxes():
    boxes = TRUTH.clone()
    boxes[1] = NAN
    boxes[2, 2] = 0
    found = {p: evaluate(boxes, TRUTH, p) for p in PROTOCOLS}
    assert found["otb"].iou.tolist() == [1, 1, 1, 1]
    for protocol in ("got10k", "pysot"):
        scores = found[protocol]
        assert scores.iou.tolist() == [1, 0, 0, 1] and scores.error.tolist() == [0, math.inf, 20, 0]
        assert scores.success[0] == 0.5 and scores.precision == 0.75 and scores.precision_curve[19] == 0.5


def test_inputs():
    scores = evaluate(TRUTH.tolist(), TRUTH.numpy())
    assert scores.auc == pytest.approx(20 / 21)
    assert evaluate(TRUTH.int(), TRUTH.half()).precision == 1
    assert evaluate(TRUTH[:1].requires_grad_(), TRUTH[:1]).frames == 1
    given = TRUTH.clone()
    evaluate(given + 1, given, "otb")
    assert torch.equal(given, TRUTH)
    with pytest.raises(
        ValueError, match=r"`boxes` must be \[4, 4\], as many as `ground_truth`, got .*\[3, 4\]"
    ):
        evaluate(TRUTH[:3], TRUTH)
    with pytest.raises(ValueError, match=r"`boxes` must be boxes \[T, 4\] with T >= 1"):
        evaluate(TRUTH[0], TRUTH)
    with pytest.raises(ValueError, match=r"`ground_truth` must be boxes \[T, 4\]"):
        evaluate(TRUTH, TRUTH[:, :3])
    with pytest.raises(ValueError, match=r"`boxes` must be boxes \[T, 4\] with T >= 1"):
        evaluate(TRUTH[:0], TRUTH[:0])
    with pytest.raises(ValueError, match="`boxes` must be finite or NaN"):
        evaluate(TRUTH / 0, TRUTH)
    with pytest.raises(ValueError, match=r"`protocol` must be .*got 'vot'"):
        evaluate(TRUTH, TRUTH, "vot")


def test_overlap():
    a = torch.tensor([[0, 0, 4, 2], [0, 0, 4, 2], [0, 0, 4, 2], [0, 0, 0, 0], [1, 1, NAN, 1]]).double()
    b = torch.tensor([[0, 0, 4, 2], [2, 1, 4, 2], [4, 0, 4, 2], [0, 0, 0, 0], [1, 1, 1, 1]]).double()
    assert overlap(a, b)[:4].tolist() == [1, 1 / 7, 0, 0] and overlap(a, b)[4].isnan()
    assert torch.equal(overlap(a[:3, None], b[None, :3])[0], overlap(a[0], b[:3]))


# ------------------------------------------------------------------------------------- files and data sets


def test_boxes_file(tmp_path):
    boxes = torch.tensor([[1, 2, 3, 4], [-0.5, 1 / 3, 1e3, 2], [NAN] * 4], dtype=torch.float64)
    file = write_boxes(tmp_path / "a.txt", boxes)
    assert file.read_text() == "1,2,3,4\n-0.5,0.3333333333,1000,2\nnan,nan,nan,nan\n"
    assert torch.allclose(read_boxes(file), boxes, equal_nan=True) and list(tmp_path.iterdir()) == [file]
    file.write_text("1 2\t3;4\n")
    assert read_boxes(file).tolist() == [[1, 2, 3, 4]]
    file.write_text("1,2,3,4\n1,2,3\n")
    with pytest.raises(ValueError, match=r"a\.txt, line 2"):
        read_boxes(file)
    file.write_text("\n")
    with pytest.raises(ValueError, match=r"a\.txt must hold boxes"):
        read_boxes(file)
    with pytest.raises(OSError, match=r"b\.txt must be a text file that can be read"):
        read_boxes(tmp_path / "b.txt")
    with pytest.raises(ValueError, match=r"`boxes` must be boxes \[T, 4\]"):
        write_boxes(file, boxes[:, :2])
    with pytest.raises(OSError, match="nowhere"):
        write_boxes(tmp_path / "nowhere" / "a.txt", boxes)


@pytest.fixture
def sequences(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for name, frames in (("Ball", 3), ("Cup", 5)):
        (tmp_path / "data" / name / "img").mkdir(parents=True)
        for t in range(1, frames + 1):
            image.new("RGB", (60, 50), (t, t, t)).save(tmp_path / "data" / name / "img" / f"{t:04d}.png")
        (tmp_path / "data" / name / "groundtruth_rect.txt").write_text("11,11,20,10\n" * frames)
    return amstel.data.OTB(tmp_path / "data")


class Drift:
    """A tracker that looks at every frame and goes a third of a pixel to the right in each."""

    def __init__(self):
        self.tracked = []

    def __call__(self, frames, box):
        self.tracked.append((frames.name, [int(frame[0, 0, 0]) for frame in frames], box))
        x, y, w, h = box
        return [(x + t / 3, y, w, h) for t in range(len(frames))]


@pytest.mark.parametrize("origin", [0, 1])
def test_boxes_files_count_from_zero_or_one(tmp_path, origin):
    boxes = torch.tensor([[0.0, 2, 3, 4], [math.nan] * 4, [-1.5, 0, 1, 1]], dtype=torch.float64)
    path = write_boxes(tmp_path / "a.txt", boxes, origin=origin)
    assert path.read_text().splitlines()[0] == f"{origin},{2 + origin},3,4"
    assert torch.equal(read_boxes(path, origin=origin).nan_to_num(9), boxes.nan_to_num(9))
    shifted = read_boxes(path) - boxes
    assert shifted[0].tolist() == [origin, origin, 0, 0]
    for bad in (2, -1, True, "1"):
        with pytest.raises(ValueError, match="`origin` must be 0 or 1"):
            write_boxes(path, boxes, origin=bad)
        with pytest.raises(ValueError, match="`origin` must be 0 or 1"):
            read_boxes(path, origin=bad)


@pytest.mark.parametrize("step", [1, -1])
def test_everything_off_by_one_is_hinted_at(step):
    truth = torch.tensor([[10.0, 20, 30, 40]] * 5) + torch.arange(5.0)[:, None]
    off = truth + torch.tensor([step, step, 0.0, 0])
    with pytest.warns(UserWarning, match=re.escape(f"off by one: ({step:+d}, {step:+d}) pixels")):
        evaluate(off, truth)
    off[0] = truth[0]
    with pytest.warns(UserWarning, match="off by one"):
        evaluate(off, truth)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(truth, truth)
        evaluate(truth + torch.tensor([1.0, 0, 0, 0]), truth)
        evaluate(truth + torch.tensor([1.0, 1, 1, 0]), truth)


def test_lists_of_arrays_and_numpy_integers_are_boxes(tmp_path):
    truth = np.array([[1, 2, 3, 4]] * 3)
    for boxes in (
        truth,
        list(truth),
        [torch.tensor(row) for row in truth],
        truth.tolist(),
        [list(r) for r in truth],
    ):
        assert evaluate(boxes, truth).auc == pytest.approx(20 / 21)
    assert len(read_boxes(write_boxes(tmp_path / "a.txt", list(truth)))) == 3


def test_a_failed_write_keeps_the_old_boxes(tmp_path):
    path = write_boxes(tmp_path / "a.txt", [[1, 2, 3, 4]])
    for bad in ([[1, 2, 3]], [[1, 2, 3, math.inf]], []):
        with pytest.raises(ValueError):
            write_boxes(path, bad)
    assert path.read_text() == "1,2,3,4\n" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_sparse_truth_is_scored_where_it_is(tmp_path):
    """ALOV: a box in every fifth frame; the frames between are no failures."""
    Image = pytest.importorskip("PIL.Image")
    files = []
    for k in range(10):
        files.append(tmp_path / f"{k}.png")
        Image.new("RGB", (8, 8)).save(files[-1])
    truth = torch.full((10, 4), math.nan, dtype=torch.float64)
    truth[::5] = torch.tensor([1.0, 1, 4, 4]).double()

    def track(frames, box):
        return torch.tensor([box] * len(frames))

    sequence = TrackingSequence("a", files, truth, sparse=True)
    assert sequence[2:].sparse
    for skip, auc in ((None, 20 / 21), (True, 20 / 21), (False, 20 / 21 / 5)):
        found = evaluate_dataset(track, [sequence], tmp_path / "out", skip_missing=skip)
        assert found.auc == pytest.approx(auc)
    whole = TrackingSequence("a", files, truth)
    assert evaluate_dataset(track, [whole], tmp_path / "out").auc == pytest.approx(20 / 21 / 5)
    truth = truth.clone()
    truth[1:] = math.nan
    first = TrackingSequence("b", files, truth, sparse=True)
    for jobs in (1, 2):  # of the second run the boxes are there
        found = evaluate_dataset(None if jobs > 1 else track, [first], tmp_path / "out", jobs=jobs)
        assert found.unscored == ("b",) and not found.sequences and not found.failed
        assert math.isnan(found.auc) and found.success.shape == (21,)
        assert len(read_boxes(tmp_path / "out" / "b.txt")) == 10
        scores = json.loads(found.to_json(), parse_constant=lambda name: pytest.fail(name))
        assert scores["auc"] is None and scores["success"] == [None] * 21 and scores["unscored"] == ["b"]
        assert found.table().splitlines()[1:] == ["b tracked, not scored: only the first box is known"]
    both = evaluate_dataset(None, [first, sequence], tmp_path / "out")
    assert both.unscored == ("b",) and both.auc == pytest.approx(20 / 21)
    with pytest.raises(ValueError, match="in the first frame only"):
        evaluate(torch.ones(10, 4), truth, skip_missing=True)


def test_results_of_another_origin(tmp_path, sequences):
    """Files of a toolkit that counts from 1, and ours for one."""
    result = evaluate_dataset(lambda frames, box: frames.ground_truth, sequences, tmp_path, origin=1)
    assert result.auc == pytest.approx(20 / 21)
    first = read_boxes(tmp_path / f"{sequences.names[0]}.txt")[0] - sequences[0].ground_truth[0]
    assert first.tolist() == [1, 1, 0, 0]
    again = evaluate_dataset(None, sequences, tmp_path, origin=1)
    assert again.auc == result.auc
    with pytest.warns(UserWarning, match="off by one"):
        assert evaluate_dataset(None, sequences, tmp_path).auc < result.auc


def test_evaluate_dataset(tmp_path, sequences):
    drift, done, out = Drift(), [], tmp_path / "results" / "drift"
    result = evaluate_dataset(drift, sequences, out, progress=done.append)
    assert drift.tracked == [
        ("Ball", [1, 2, 3], [10, 10, 20, 10]),
        ("Cup", [1, 2, 3, 4, 5], [10, 10, 20, 10]),
    ]
    assert done == [1, 1] and list(result.sequences) == ["Ball", "Cup"] and result.frames == 8
    assert read_boxes(out / "Ball.txt")[:, 0].tolist() == pytest.approx([10, 10 + 1 / 3, 10 + 2 / 3])
    assert {p.name for p in out.iterdir()} == {"Ball.txt", "Ball.seconds", "Cup.txt", "Cup.seconds"}
    alone = [evaluate(read_boxes(out / f"{s.name}.txt"), s.ground_truth) for s in sequences]
    for curve in ("success", "precision_curve", "normalized_precision_curve"):
        mean = (getattr(alone[0], curve) + getattr(alone[1], curve)) / 2
        torch.testing.assert_close(getattr(result, curve), mean, rtol=0, atol=1e-15)
    assert result.auc == pytest.approx((alone[0].auc + alone[1].auc) / 2)
    assert result.mean_iou == pytest.approx((alone[0].mean_iou + alone[1].mean_iou) / 2)
    assert result.precision == 1 and result.normalized_precision == 1
    seconds = [float((out / f"{name}.seconds").read_text()) for name in ("Ball", "Cup")]
    assert result.frames_per_second == pytest.approx(8 / sum(seconds))
    assert repr(result) == f"DatasetEvaluation(otb, 2 sequences, auc={result.auc:.3f}, precision=1.000)"

    # Only what is not there is tracked again, and the scores are the same.
    (out / "Cup.txt").unlink()
    again = evaluate_dataset(drift, sequences, out)
    assert [name for name, _, _ in drift.tracked[2:]] == ["Cup"] and torch.equal(
        again.success, result.success
    )
    evaluate_dataset(drift, sequences, out, resume=False)
    assert [name for name, _, _ in drift.tracked[3:]] == ["Ball", "Cup"]
    scored = evaluate_dataset(None, sequences, out, "pysot")
    assert scored.protocol == "pysot" and torch.equal(scored.success, result.success)


def test_table_and_json(tmp_path, sequences):
    result = evaluate_dataset(Drift(), sequences, tmp_path / "out")
    (tmp_path / "out" / "Ball.seconds").write_text("0.5\n")
    (tmp_path / "out" / "Cup.seconds").unlink()
    result = evaluate_dataset(None, sequences, tmp_path / "out")
    assert result.frames_per_second == 6 and math.isnan(result.seconds["Cup"])
    lines = result.table().splitlines()
    assert lines[0].split() == ["sequence", "frames", "AUC", "precision", "normalized", "IoU", "frames/s"]
    ball = result.sequences["Ball"]
    assert lines[1].split() == [
        "Ball",
        "3",
        f"{ball.auc:.3f}",
        "1.000",
        "1.000",
        f"{ball.mean_iou:.3f}",
        "6.0",
    ]
    assert lines[2].split()[::6] == ["Cup", "-"] and set(lines[3]) == {"-"}
    assert lines[4].split()[:3] == ["all", "8", f"{result.auc:.3f}"]
    assert len({len(line) for line in lines}) == 1
    found = json.loads(result.to_json())
    assert found["protocol"] == "otb" and found["auc"] == result.auc and found["frames"] == 8
    assert found["frames_per_second"] == 6 and found["success"] == result.success.tolist()
    assert list(found["sequences"]) == ["Ball", "Cup"]
    cup = found["sequences"]["Cup"]
    assert cup["frames_per_second"] is None and cup["frames"] == 5 and len(cup["precision_curve"]) == 51


def test_seconds_that_are_not_known():
    whole = DatasetEvaluation("otb", SCORES, {"Ball": 2.0})
    assert whole.frames_per_second == SCORES["Ball"].frames / 2
    assert [line.split()[-1] for line in whole.table().splitlines()[2:-2]] == ["-"] * (len(SCORES) - 1)
    assert by_attribute(whole, {name: ["OCC"] for name in SCORES})["OCC"].seconds == {"Ball": 2.0}
    with pytest.raises(
        ValueError, match=r"`sequences` must be a dict with .* at least one sequence, got \{\}"
    ):
        DatasetEvaluation("otb", {}, {})
    with pytest.raises(TypeError, match=r"`sequences\['Ball'\]` must be an Evaluation, got 0\.5"):
        DatasetEvaluation("otb", {"Ball": 0.5}, {})


def test_a_run_that_stops_keeps_what_it_has(tmp_path, sequences):
    def stops(frames, box):
        if frames.name == "Cup":
            raise KeyboardInterrupt
        return Drift()(frames, box)

    with pytest.raises(KeyboardInterrupt):
        evaluate_dataset(stops, sequences, tmp_path / "out")
    drift = Drift()
    evaluate_dataset(drift, sequences, tmp_path / "out")
    assert [name for name, _, _ in drift.tracked] == ["Cup"]


def test_dataset_errors(tmp_path, sequences):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="`protocol`"):
        evaluate_dataset(Drift(), sequences, out, "vot")
    assert not out.exists()
    with pytest.raises(FileNotFoundError, match=r"Ball\.txt, the boxes of Ball, does not exist"):
        evaluate_dataset(None, sequences, out)
    with pytest.raises(ValueError, match="`track` must be a function that returns 3 boxes for Ball, got 2"):
        evaluate_dataset(lambda frames, box: [box] * 2, sequences, out)
    assert list(out.iterdir()) == []
    write_boxes(out / "Ball.txt", TRUTH)
    with pytest.warns(UserWarning, match=r"Ball failed and is left out: .*Ball\.txt must hold 3 boxes"):
        result = evaluate_dataset(Drift(), sequences, out)
    assert list(result.sequences) == ["Cup"] and list(result.failed) == ["Ball"]
    assert "Ball failed: " in result.table() and "got 4" in json.loads(result.to_json())["failed"]["Ball"]
    with pytest.raises(ValueError, match=r"`sequences` must be sequences with distinct names .* got 'Cup'"):
        evaluate_dataset(Drift(), [sequences["Cup"]] * 2, out)
    with pytest.raises(ValueError, match=r"`sequences` must be .* names of files, got '\.\./Cup'"):
        cup = sequences["Cup"]
        evaluate_dataset(Drift(), [amstel.data.TrackingSequence("../Cup", cup.frames, cup.ground_truth)], out)
    with pytest.raises(ValueError, match="`sequences` must hold at least one"):
        evaluate_dataset(Drift(), [], out)
    file = tmp_path / "data" / "Cup" / "groundtruth_rect.txt"
    file.write_text("0,0,0,0\n" + "1,1,5,5\n" * 4)
    with pytest.raises(ValueError, match="Cup must have a true box in its first frame"):
        evaluate_dataset(Drift(), [sequences["Cup"]], tmp_path / "new")


def test_plot(tmp_path, sequences):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    one = evaluate(TRUTH + 3, TRUTH)
    many = evaluate_dataset(Drift(), sequences, tmp_path / "out")
    file = plot({"worse": one, "better": many}, tmp_path / "plots.png", title="made up")
    with image.open(file) as picture:
        assert picture.size == (1200, 504) and len(picture.convert("RGB").getcolors(100000)) > 100
    text = plot({"worse": one, "better": many}, tmp_path / "plots.svg").read_text()
    labels = re.findall(r"<!-- ((?:better|worse) \[.*?\]) -->", text)
    assert labels == [
        f"better [{many.auc:.3f}]",
        f"worse [{one.auc:.3f}]",
        f"worse [{one.precision:.3f}]",
        f"better [{many.precision:.3f}]",
    ]
    plot({f"tracker {k}": one for k in range(11)}, tmp_path / "many.pdf")
    with pytest.raises(ValueError, match="`evaluations` must hold at least one"):
        plot({}, tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"`file` must be a name that ends in \.png, \.svg or \.pdf"):
        plot({"one": one}, tmp_path / "a.docx")
    with pytest.raises(FileNotFoundError, match="nowhere to write"):
        plot({"one": one}, tmp_path / "nowhere" / "a.png")


# ---------------------------------------------------------------------------------------- scores by attribute

SCORES = {name: evaluate(TRUTH + d, TRUTH) for name, d in (("Ball", 0), ("Cup", 6), ("Dog", 30), ("Eel", 2))}
WHOLE = DatasetEvaluation("otb", SCORES, dict.fromkeys(SCORES, 1.0))
NAMED = {"Ball": ["SV"], "cup": ["OCC", "sv", "SV"], "Dog": ["Occ"], "Fox": ["LR"], "eel": []}


def test_an_attribute_has_the_mean_of_its_sequences(tmp_path):
    with pytest.warns(UserWarning, match="without attributes, .*: Eel$"):
        groups = by_attribute(WHOLE, NAMED)
    assert {name: list(group.sequences) for name, group in groups.items()} == {
        "SV": ["Ball", "Cup"],
        "OCC": ["Cup", "Dog"],
    }
    for group in groups.values():
        for score in ("auc", "precision", "normalized_precision", "mean_iou"):
            mean = np.mean([getattr(SCORES[name], score) for name in group.sequences])
            assert getattr(group, score) == pytest.approx(mean, abs=1e-12)
    assert groups["SV"].auc > groups["OCC"].auc and groups["SV"].seconds == {"Ball": 1, "Cup": 1}
    # Runs of a sequence are one: in the warning, in the table and in JSON.
    runs = {f"Ball-sre0{k}": SCORES["Ball"] for k in (1, 2)} | {f"Cup-sre0{k}": SCORES["Cup"] for k in (1, 2)}
    whole = DatasetEvaluation("otb", runs, {}, runs={name: name[:-6] for name in runs}, unscored=("Fox",))
    with pytest.warns(UserWarning, match="in none of their scores: Cup$"):
        of_runs = by_attribute(whole, {name: ["SV"] * name.startswith("Ball") for name in runs})
    assert attributes_table(of_runs).splitlines()[1].split()[:2] == ["SV", "1"]
    assert attributes_record(of_runs)["SV"]["sequences"] == ["Ball"] and of_runs["SV"].unscored == ()
    # The layout of pysot's files, in a file of a Windows editor.
    file = tmp_path / "otb.json"
    layout = {name: {"video_dir": name, "attr": given} for name, given in NAMED.items()}
    file.write_text(json.dumps(layout), encoding="utf-8-sig")
    with pytest.warns(UserWarning, match="Eel"):
        read = by_attribute(WHOLE, file)
    assert {name: group.auc for name, group in read.items()} == {n: g.auc for n, g in groups.items()}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{", "`attributes` must be JSON, got something else in FILE"),
        ("[" * 100_000, "`attributes` must be JSON, got something else in FILE"),
        ('["Ball"]', r"`attributes` must be a mapping .*, got \['Ball'\] \(list\) in FILE"),
        ("{}", r"sequence that is evaluated \(Ball, Cup, Dog, ...\), got them for none in FILE"),
        ('{"Fox": ["SV"]}', "got them for Fox in FILE"),
        ('{"Ball": "SV"}', "`attributes` must give Ball a list of names, .* got 'SV' in FILE"),
        ('{"Ball": [0, 1]}', "`attributes` must give Ball a list of names"),
        ('{"Ball": {"camera_motion": [0, 1]}}', "`attributes` must give Ball a list of names"),
        ('{"BALL": ["SV"], "ball": ["OCC"]}', "one entry for Ball, got BALL and ball in FILE"),
    ],
)
def test_attributes_that_are_no_names_are_refused(tmp_path, given, message):
    file = tmp_path / "attributes.json"
    file.write_text(given)
    with pytest.raises(ValueError, match=message.replace("FILE", re.escape(str(file)))):
        by_attribute(WHOLE, file)
    for wrong in ((WHOLE, ["SV"]), (SCORES, NAMED)):
        with pytest.raises(TypeError, match=r"`attributes` must be a mapping|`evaluation` must be a Dataset"):
            by_attribute(*wrong)


def test_plot_of_attributes(tmp_path):
    pytest.importorskip("matplotlib")
    given = {"Ball": ["SV"], "Cup": ["OCC", "SV"], "Dog": ["OCC"], "Eel": ["OCC"]}
    groups = by_attribute(WHOLE, given)
    text = plot_attributes({"SINT": groups, "other": groups}, tmp_path / "bars.svg", "made up").read_text()
    said = re.findall(r"<!-- (.*?) -->", text)
    rows, numbers = [s for s in said if s.endswith(")")], [s for s in said if re.fullmatch(r"\d\.\d{3}", s)]
    assert rows == ["SV (2)", "OCC (3)"] and {"made up", "SINT", "other"} < set(said)
    scores = [getattr(group, score) for score in ("auc", "precision") for group in [*groups.values()] * 2]
    assert numbers == [f"{score:.3f}" for score in scores]
    fewer = by_attribute(WHOLE, {name: ["SV"] for name in SCORES})
    for wrong in ({}, {"SINT": {}}, {"SINT": groups, "other": fewer}):
        with pytest.raises(ValueError, match="`evaluations` must"):
            plot_attributes(wrong, tmp_path / "a.png")
    with pytest.raises(ValueError, match="`file` must be a name that ends in"):
        plot_attributes({"SINT": groups}, tmp_path / "a.docx")


# ------------------------------------------------------------------------------------------ published curves


class Published:
    """Boxes and curves that OTB's authors published, and the ground truth of the 100 sequences, 0-based."""

    def __init__(self, folder):
        self.folder = folder / "tracking" / "_published_results"
        plain = str.maketrans("", "", "-.")
        self.truths = {
            p.stem.lower().translate(plain): p for p in (folder / "tracking" / "_otb_anno").iterdir()
        }
        self.plain = plain

    def scores(self, path):
        return json.loads((self.folder / path).read_text())

    def evaluate(self, name, protocol, path="OPE_full/STRUCK"):
        offset = torch.tensor([1, 1, 0, 0])
        (entry,) = json.loads((self.folder / path / f"{name}.json").read_text())
        truth = read_boxes(self.truths[name.lower().translate(self.plain)]) - offset
        boxes = torch.tensor(entry["res"], dtype=torch.float64) - offset
        # ClifBar has more true boxes than the configuration has frames.
        return evaluate(boxes, truth[: len(boxes)], protocol)

    def dataset(self, names, protocol):
        return DatasetEvaluation(
            protocol, {name: self.evaluate(name, protocol) for name in names}, dict.fromkeys(names, NAN)
        )


def furthest(curve, published):
    return (curve - torch.tensor(published, dtype=torch.float64)).abs().max().item()


@pytest.mark.data
def test_published_tb50(data_folder):
    """The toolkit's curves to the last bits by "otb"; the others lose the frames without ground truth."""
    published = Published(data_folder)
    scores = published.scores("OPE/STRUCK/scores_tb50.json")
    found = {p: published.dataset(scores["seqs"], p) for p in PROTOCOLS}
    assert len(scores["seqs"]) == 50
    for result in found.values():
        assert furthest(result.success, scores["successRateList"]) < 1e-15
        assert result.auc == pytest.approx(0.38395, abs=5e-6)
    assert furthest(found["otb"].precision_curve, scores["precisionList"]) < 1e-15
    assert found["otb"].precision == pytest.approx(0.54123, abs=5e-6)
    for protocol in ("got10k", "pysot"):
        assert 1.0e-3 < furthest(found[protocol].precision_curve, scores["precisionList"]) < 1.1e-3
        differ = [
            name
            for name, e in found[protocol].sequences.items()
            if not torch.equal(e.precision_curve, found["otb"].sequences[name].precision_curve)
        ]
        assert differ == ["Biker", "Crowds"]
    missing = {name: e.missing for name, e in found["otb"].sequences.items() if e.missing}
    assert missing == {"Biker": 7, "Crowds": 1}


@pytest.mark.data
def test_published_cvpr13(data_folder):
    """All but Tiger1: what is left of the published means is a whole number of its 349 frames."""
    published = Published(data_folder)
    scores = published.scores("OPE_full/STRUCK/scores_cvpr13.json")
    result = published.dataset(scores["seqs"], "otb")
    assert len(scores["seqs"]) == 51
    for curve, values in (("success", "successRateList"), ("precision_curve", "precisionList")):
        others = sum(getattr(e, curve) for name, e in result.sequences.items() if name != "Tiger1")
        left = (51 * torch.tensor(scores[values], dtype=torch.float64) - others) * 349
        assert (left - left.round()).abs().max() < 1e-10 and 0 <= left.min() and left.max() <= 349
        assert furthest(getattr(result, curve), scores[values]) < 3e-3


@pytest.mark.data
def test_published_tb100(data_folder):
    """Mean overlaps, sequence by sequence."""
    published = Published(data_folder)
    scores = published.scores("OPE_full/STRUCK/scores_tb100.json")
    result = published.dataset(scores["seqs"], "otb")
    known = dict(zip(scores["seqs"], scores["overlapScores"], strict=True))
    # There the sum is divided by the number of true boxes, which is greater than that of frames.
    known["ClifBar"] *= 472 / 329
    differ = {name for name, e in result.sequences.items() if abs(e.mean_iou - known[name]) > 1e-13}
    assert differ == {"Tiger1", "Board", "Twinnings"}
    assert result.auc == pytest.approx(0.4625, abs=5e-5)
    assert furthest(result.success, scores["successRateList"]) < 1.5e-3
    assert furthest(result.precision_curve, scores["precisionList"]) < 1.5e-3


@pytest.mark.data
@pytest.mark.parametrize(
    ("tracker", "expected"),
    [
        (
            "STRUCK",
            {
                "Crossing": (0.67, 1.0),
                "David": (0.25, 0.33),
                "Football1": (0.66, 1.0),
                "Freeman1": (0.34, 0.80),
                "Skiing": (0.04, 0.04),
                "Man": (0.88, 1.0),
                "Jumping": (0.61, 1.0),
                "Jogging-1": (0.17, 0.24),
            },
        ),
        (
            "MEEM",
            {
                "Crossing": (0.70, 1.0),
                "David": (0.53, 0.99),
                "Football1": (0.66, 1.0),
                "Freeman1": (0.22, 0.41),
                "Skiing": (0.41, 1.0),
                "Jumping": (0.69, 1.0),
                "Jogging-1": (0.66, 0.96),
            },
        ),
        (
            "MUSTer",
            {
                "Crossing": (0.78, 1.0),
                "David": (0.74, 1.0),
                "Football1": (0.51, 0.95),
                "Freeman1": (0.54, 0.89),
                "Skiing": (0.05, 0.09),
                "Jumping": (0.63, 0.91),
                "Jogging-1": (0.69, 0.95),
            },
        ),
    ],
)
def test_published_boxes(data_folder, tmp_path, tracker, expected):
    """The sequences that are there with frames, read by `OTB`, under the names that they have there."""
    published = Published(data_folder)
    sequences = amstel.data.OTB(data_folder / "tracking")
    chosen = []
    for name in expected:
        (entry,) = published.scores(f"OPE/{tracker}/{name}.json")
        s = sequences[name.replace("-", "")]
        write_boxes(tmp_path / f"{s.name}.txt", torch.tensor(entry["res"]) - torch.tensor([1, 1, 0, 0]))
        chosen.append(s)
    for protocol in PROTOCOLS:
        result = evaluate_dataset(None, chosen, tmp_path, protocol)
        for (name, scores), e in zip(expected.items(), result.sequences.values(), strict=True):
            assert (e.auc, e.precision) == pytest.approx(scores, abs=0.0051), name
            # All three agree where no ground truth is missing.
            assert torch.equal(e.success, published.evaluate(name, "otb", f"OPE/{tracker}").success)


def _perfect(frames, box):
    return frames.ground_truth


def test_several_sequences_at_a_time_score_as_one_after_the_other(tmp_path, sequences):
    one = evaluate_dataset(_perfect, sequences, tmp_path / "one")
    two = evaluate_dataset(_perfect, sequences, tmp_path / "two", jobs=2)
    assert list(two.sequences) == ["Ball", "Cup"] and torch.equal(one.success, two.success)
    with pytest.raises(ValueError, match="`jobs` must be an integer >= 1"):
        evaluate_dataset(_perfect, sequences, tmp_path, jobs=0)


class _Perfect:
    track = staticmethod(_perfect)


def test_only_the_failures_that_a_command_collects_are_kept_from_the_warnings(tmp_path, sequences):
    """Warnings were hidden by their words, whoever gave them."""
    write_boxes(tmp_path / "Ball.txt", TRUTH)
    other, failures = "a disk failed and is left out: /dev/sdb", []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        result = commands.evaluate_dataset(
            _Perfect,
            sequences,
            tmp_path,
            failures=failures,
            jobs=2,
            progress=lambda _: warnings.warn(other, stacklevel=2),
        )
    assert [str(one.message) for one in said] == [other] * 2
    assert [failure.item for failure in failures] == [0] and "must hold 3 boxes" in failures[0].error
    assert list(result.sequences) == ["Cup"] and not result.failed


def _still(boxes, width=704, height=390):
    """A sequence whose boxes are counted from 1, as in OTB's files, and whose frames are not on disk."""
    from amstel.data.sequences import TrackingSequence

    class Still(TrackingSequence):
        def __getitem__(self, frame):
            return np.zeros((height, width, 3), np.uint8)

    boxes = torch.tensor(boxes, dtype=torch.float64)
    return Still("Still", [f"{t}.png" for t in range(len(boxes))], boxes - torch.tensor([1, 1, 0, 0]))


def _sre(box, width=704, height=390):
    from amstel.tracking import perturbed

    runs = perturbed(_still([box] * 2, width, height), "sre")
    return [(run.start + torch.tensor([1, 1, 0, 0])).tolist() for run in runs]


def test_starts_of_sre_are_those_of_the_toolkit():
    """By hand from the rules of its shiftInitBB."""
    assert _sre([50, 60, 33, 47]) == [
        [46, 60, 33, 47],
        [47, 55, 36, 52],
        [50, 55, 33, 47],
        [50, 55, 36, 52],
        [54, 60, 33, 47],
        [50, 60, 36, 52],
        [50, 65, 33, 47],
        [47, 60, 36, 52],
        [53, 65, 26, 38],
        [52, 62, 30, 42],
        [48, 58, 36, 52],
        [47, 55, 40, 56],
    ]
    # Onto the border from beyond the left and the top; cut at the right and the bottom. 0.5 rounds to 1, and -0.5 to -1.
    left, corner, *_, largest = _sre([2, 1, 25, 40], width=28, height=42)
    assert (left, corner, largest) == ([1, 1, 25, 40], [1, 1, 28, 42], [1, 1, 28, 42])
    # Of a box outside the picture, and of one that scaling rounds to nothing, a pixel is left.
    for box in ([71, 61, 10, 10], [20, 20, 0.4, 0.4]):
        starts = torch.tensor(_sre(box, width=60, height=50))
        assert (starts >= 1).all() and (starts[:, :2] + starts[:, 2:] - 1 <= torch.tensor([60, 50])).all()


def test_runs_of_tre_begin_where_the_toolkit_does():
    from amstel.tracking import perturbed

    def begins(boxes, segments=20):
        return [len(boxes) - len(run) + 1 for run in perturbed(_still(boxes), "tre", segments)]

    one = [50, 60, 33, 47]
    expected = [1, 3, 6, 9, 11, 14, 17, 20, 22, 25, 28, 31, 33, 36, 39, 42, 44, 47, 50, 52]
    assert begins([one] * 71) == expected
    # Frames whose box is unknown or leaves the picture at the left or top are not counted.
    holes = [[NAN] * 4, [0, 60, 33, 47], *[one] * 71]
    assert begins(holes) == [begin + 2 for begin in expected]
    assert begins([one] * 21, 5) == [1, 1, 2, 2] and begins([one] * 71, 1) == [1]
    with pytest.raises(ValueError, match="at least 20 frames before its end, got 19 frames"):
        begins([one] * 19)
    for how in ("sre", "tre", "vot"):
        with pytest.raises(ValueError, match="at least two frames to track in, got 1"):
            perturbed(_still([one]), how)


def test_runs_of_a_sequence_are_averaged_by_their_frames(tmp_path, sequences):
    from amstel.tracking import by_attribute, perturbed

    cup = sequences["Cup"]
    runs = perturbed(cup, "sre")
    assert [run.name for run in runs] == [f"Cup-sre{k:02d}" for k in range(1, 13)]
    starts = {}
    result = evaluate_dataset(
        lambda frames, start: starts.update({frames.name: start}) or frames.ground_truth,
        runs,
        tmp_path / "sre",
    )
    assert starts["Cup-sre01"] == [8, 10, 20, 10] and len(result.sequences) == 12
    # Of 24 and 22 frames: nothing is found but the first box, and everything is; another sequence is lost altogether.
    whole = _still([[50, 60, 33, 47]] * 24)
    early, _, late, *_ = perturbed(whole, "tre", 5)
    other = _still([[50, 60, 33, 47]] * 10)
    late.name, other.name = "late", "Other"
    assert (len(early), len(late)) == (24, 22)
    scored = evaluate_dataset(
        lambda frames, start: frames.ground_truth + (frames.name != "late") * 300,
        [early, late, other],
        tmp_path / "tre",
    )
    expected = ((1 + 22) / (24 + 22) + 1 / 10) / 2
    assert scored.success[10].item() == pytest.approx(expected)
    assert scored.precision == pytest.approx(expected) and scored.mean_iou == pytest.approx(expected)
    groups = by_attribute(scored, {name: ["OCC"] for name in scored.sequences})
    assert groups["OCC"].precision == pytest.approx(expected)
    for how, segments in (("ope", 20), ("tre", 0)):
        with pytest.raises(ValueError, match=r"`how`|`segments`"):
            perturbed(cup, how, segments)


def test_average_overlap_is_of_all_frames_but_the_first():
    from amstel.tracking import average_overlap

    truth = torch.tensor([[0.0, 0, 10, 10], [-5, 0, 10, 10], [0, 0, 10, 10], [NAN] * 4])
    boxes = torch.tensor([[9.0, 9, 1, 1], [0, 0, 5, 10], [NAN] * 4, [0, 0, 1, 1]])
    found = average_overlap([boxes], [truth], [(20, 20)])
    # A box that leaves the picture at the left keeps its width in the toolkit: 5 of 10 pixels are common.
    assert found.iou.tolist() == [0.5, 0] and (found.ao, found.sr50, found.sr75) == (0.25, 0, 0)
    with pytest.raises(ValueError, match="of the same sequences"):
        average_overlap([boxes], [truth], [])
    with pytest.raises(ValueError, match="after a first frame"):
        average_overlap([boxes[:1]], [truth[:1]], [(20, 20)])


def test_adapters_of_other_toolkits_count_from_their_origin():
    from amstel.interop import got10k, pysot, pytracking

    class Still:
        similarity = 0.5

        def init(self, image, box):
            self.image, self.box = image, np.asarray(box)

        def update(self, image):
            self.image = image
            return self.box

    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    one, two, three = Still(), Still(), Still()
    boxes, times = got10k.Tracker(one).forward_test([image, image], [5, 6, 7, 8])
    assert boxes.tolist() == [[5, 6, 7, 8]] * 2 and one.box.tolist() == [4, 5, 7, 8] and len(times) == 2
    tracker = pysot.Tracker(two)
    tracker.init(image, [5, 6, 7, 8])
    assert tracker.track(image) == {"bbox": [5, 6, 7, 8], "best_score": 0.5}
    assert np.array_equal(two.image, image[..., ::-1])
    tracker = pytracking.Tracker(tracker=three, origin=0)
    tracker.initialize(image, {"init_bbox": [5, 6, 7, 8]})
    assert three.box.tolist() == [5, 6, 7, 8] == tracker.track(image)["target_bbox"]
