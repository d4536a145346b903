"""VOT's runs from anchors and its measures, against sums written out, and through the command line."""

import json
import math

import numpy as np
import pytest
import torch

from amstel.data import VOT
from amstel.data.sequences import TrackingSequence
from amstel.tracking import average_overlap, expected_overlap, perturbed, vot
from amstel.tracking.vot import anchors
from tests import command
from tests.test_tracker import sequence

pytest.importorskip("PIL", reason="frames are read from files")
pytest.importorskip("safetensors", reason="the shipped weights are in a safetensors file")

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = (100, 80)


def _with_overlap(overlaps):
    """Boxes of the height of the true ones, as wide as the overlap says in hundredths."""
    truth = torch.tensor([[0.0, 10, 100, 20]]).repeat(len(overlaps), 1)
    boxes = truth.clone()
    boxes[:, 2] = (100 * torch.tensor(overlaps, dtype=torch.float64)).round()
    return boxes, truth


def _written_out(runs, low, high):
    """The toolkit's rules in loops: runs of (name, frames of the sequence, overlaps)."""
    curve, active = [0.0] * high, [0.0] * high
    total = before = 0.0
    per = {}
    for name, frames, overlaps in runs:
        o = [0.0, *overlaps[1:]]
        grace, progress = 10, len(o)
        for j, value in enumerate(o):
            grace = grace - 1 if value <= 0.1 else 10
            if grace == 0:
                progress = j + 1 - 10
                break
        failed = progress < len(o)
        o = o[:progress] + [0.0] * (len(o) - progress)
        total, before = total + sum(o), before + progress
        mine = per.setdefault(name, [0, 0, frames])
        mine[0] += progress
        mine[1] += len(o)
        for j in range(1, high):
            if j < len(o):
                curve[j] += np.mean(o[1 : j + 1])
                active[j] += 1
            elif failed:
                curve[j] += sum(o[1:]) / (j - 1)
                active[j] += 1
    curve = [c / a if a else 0 for c, a in zip(curve, active, strict=True)]
    robustness = sum(p / t * n for p, t, n in per.values()) / sum(n for _, _, n in per.values())
    return np.mean(curve[low:]), total / before, robustness, curve


@pytest.mark.parametrize("seed", range(4))
def test_against_the_rules(seed):
    rng = np.random.default_rng(seed)
    runs = []
    for number in range(6):
        frames = int(rng.integers(12, 60))
        overlaps = (rng.random(frames) * (rng.random(frames) > 0.2)).round(2)
        if number % 2:
            overlaps[frames // 3 :] *= 0.1  # a failure, if ten of them follow
        runs.append((f"s{number % 3}", 60 + number % 3, overlaps.round(2).tolist()))
    boxes, truth = zip(*(_with_overlap(o) for _, _, o in runs), strict=True)
    # A box without width is none, as where the tracker gave up.
    found = expected_overlap(boxes, truth, [SIZE] * 6, [r[:2] for r in runs], interval=(5, 40))
    eao, accuracy, robustness, curve = _written_out(runs, 5, 40)
    assert found.eao == pytest.approx(eao) and found.accuracy == pytest.approx(accuracy)
    assert found.robustness == pytest.approx(robustness) and found.runs == 6
    np.testing.assert_allclose(found.curve.numpy(), curve, atol=1e-12)


def test_perfect_runs_and_lengths_that_no_run_has():
    boxes, truth = _with_overlap([1.0] * 30)
    found = expected_overlap([boxes], [truth], [SIZE], interval=(1, 30))
    assert found.eao == 1 and found.robustness == 1 and found.failures == 0
    assert found.accuracy == pytest.approx(29 / 30)  # the first frame is given and counts 0
    with pytest.warns(UserWarning, match="no run has more than 29 frames after its first"):
        assert expected_overlap([boxes], [truth], [SIZE], interval=(10, 50)).eao == pytest.approx(0.5)


def test_a_target_that_is_not_there_is_no_failure():
    boxes, truth = _with_overlap([1.0] * 10 + [0.0] * 20 + [1.0] * 10)
    assert expected_overlap([boxes], [truth], [SIZE], interval=(1, 40)).failures == 1
    truth[10:30] = math.nan
    found = expected_overlap([boxes], [truth], [SIZE], interval=(1, 40))
    assert found.failures == 0 and found.robustness == 1
    # Neither box nor target is agreement; a box where there is no target is not.
    assert found.accuracy == pytest.approx(39 / 40)
    boxes[10:30] = truth[0]
    assert expected_overlap([boxes], [truth], [SIZE], interval=(1, 40)).accuracy == pytest.approx(19 / 40)


def test_boxes_are_rounded_and_clipped():
    truth = torch.tensor([[80.0, 0, 40, 20]] * 3)
    boxes = torch.tensor([[80.4, 0.3, 19.7, 20.2]] * 3)
    assert expected_overlap([boxes], [truth], [SIZE], interval=(1, 3)).eao == 1


@pytest.mark.parametrize(
    "boxes, interval, message",
    [
        ([], (1, 3), "`boxes` must hold at least one run"),
        ([torch.ones(3, 4)], (3, 3), "`interval` must be two integers"),
        ([torch.ones(3, 4)], (0, 3), "`interval` must be two integers"),
        ([torch.ones(3, 4)], 7, "`interval` must be two integers"),
        ([torch.ones(2, 4)], (1, 3), r"`boxes\[0\]` must be \[3, 4\]"),
        ([torch.ones(3, 4)] * 2, (1, 3), "must be of the same runs, got 2, 1, 1 and 2"),
    ],
)
def test_bad_arguments(boxes, interval, message):
    runs = min(len(boxes), 1)
    with pytest.raises(ValueError, match=message):
        expected_overlap(boxes, [torch.ones(3, 4)] * runs, [SIZE] * runs, interval=interval)


def test_sizes_and_sequences_are_pairs():
    boxes, truth = _with_overlap([1.0] * 5)
    for size in (64, (64,), (0, 48), (64.5, 48), ("64", 48), torch.ones(2, 2)):
        with pytest.raises(
            (ValueError, TypeError), match=r"`sizes\[0\]` must be \(width, height\), two integers"
        ):
            expected_overlap([boxes], [truth], [size], interval=(1, 4))
        with pytest.raises(
            (ValueError, TypeError), match=r"`sizes\[0\]` must be \(width, height\), two integers"
        ):
            average_overlap([boxes], [truth], [size])
    for size in ((5.0, 4.0), torch.tensor([5, 4]), (torch.tensor(5), np.int64(4)), np.array([5.0, 4.0])):
        assert torch.equal(
            average_overlap([boxes], [truth], [size]).iou, average_overlap([boxes], [truth], [(5, 4)]).iou
        )
    for named in ("a", ("a", "b"), (1, 2)):
        with pytest.raises(
            (ValueError, TypeError), match=r"`sequences\[0\]` must be \(name, number of frames\)"
        ):
            expected_overlap([boxes], [truth], [SIZE], [named], interval=(1, 4))


def test_anchors_go_the_longer_way():
    truth = torch.ones(120, 4)
    assert anchors(truth) == [(0, False), (50, False), (100, True), (119, True)]
    truth[50:53] = math.nan
    truth[119] = math.nan
    assert anchors(truth) == [(0, False), (53, False), (100, True), (118, True)]
    assert anchors(torch.ones(1, 4)) == []


def _vot(root, anchor=None):
    from PIL import Image

    images, boxes = sequence(frames=8)
    (root / "one").mkdir(parents=True)
    for number, image in enumerate(images, start=1):
        Image.fromarray(image).save(root / "one" / f"{number:08d}.png")
    lines = [",".join(f"{value:g}" for value in box) for box in boxes]
    (root / "one" / "groundtruth.txt").write_text("\n".join(lines) + "\n")
    if anchor:
        (root / "one" / "anchor.value").write_text(anchor)
    return boxes


def test_anchors_of_the_data_and_runs_back(tmp_path):
    boxes = _vot(tmp_path, "1\n0\n0\n0\n0\n-1\n")
    (given,) = VOT(tmp_path)
    assert given.anchors == [(0, False), (5, True)]
    forward, back = perturbed(given, "vot")
    assert (forward.name, len(forward), back.name, len(back)) == ("one-vot01", 8, "one-vot02", 6)
    assert back.whole == ("one", 8) and back.start.tolist() == boxes[5].tolist()
    np.testing.assert_array_equal(back.ground_truth.numpy(), boxes[5::-1])
    np.testing.assert_array_equal(back[5], given[0])
    for text in ("0\n0\n", "1\n" * 9):
        (tmp_path / "one" / "anchor.value").write_text(text)
        with pytest.raises(ValueError, match=r"anchor\.value must hold an anchor in one of 8 frames"):
            VOT(tmp_path)[0]
    truth = torch.full((4, 4), math.nan)
    truth[2] = 1
    blind = TrackingSequence("blind", given.frames[:4], truth)
    blind.anchors = [(1, False)]
    with pytest.raises(ValueError, match="blind must have a true box in frame 2, an anchor"):
        perturbed(blind, "vot")


def test_command_line(capsys, tmp_path):
    _vot(tmp_path / "data", "1\n0\n0\n0\n0\n0\n0\n-1\n")
    file = tmp_path / "scores.json"
    arguments = ["track", "evaluate", "--root", tmp_path / "data", "--data", "vot", "--out", tmp_path / "out"]
    status, out, err = command.run(
        capsys, *arguments, "--robustness", "vot", "--interval", "2,8", "--json", file
    )
    assert status == 0 and err == ""
    found = json.loads(file.read_text())["vot"]
    assert f"EAO {found['eao']:.3f}, accuracy" in out
    assert out.endswith(f"0 of 2 runs failed\nthe boxes are in {tmp_path / 'out'}\n")
    assert found["eao"] > 0.5 and len(found["curve"]) == 8 and found["robustness"] == 1
    for wrong in ("8,2", "x", "1", "0,4"):
        command.is_refused(
            capsys,
            [*arguments, "--robustness", "vot", "--interval", wrong],
            "should be two numbers of frames",
        )
    command.is_refused(capsys, [*arguments, "--interval", "2,8"], "--interval is for --robustness vot")


def test_sides_that_round_to_nothing():
    """The toolkit's box of no pixel ends before it begins, and lies in the row of any that is so thin; what is missing does not."""
    size = (14, 11)
    own = torch.tensor(
        [[0, 0, 4.0, 4], [3.42, 9.65, 0.50, 4.39], [-0.45, -0.75, 0.70, 0.47]], dtype=torch.float64
    )
    true = torch.tensor(
        [[0, 0, 4.0, 4], [2.23, 9.86, 0.16, 2.47], [0.09, -0.13, 4.06, 0.21]], dtype=torch.float64
    )
    overlap, there = vot._overlaps(own, true, size)
    assert overlap.tolist() == [0, 1, 1] and there.all()
    own[1:] = math.nan
    assert vot._overlaps(own, true, size)[0][1] == 0
