"""SINT in pysot's way of testing trackers: its numbers are ours, by the rules written out here and by its toolkit."""

import importlib.util

import numpy as np
import pytest

from amstel.interop.pysot import Tracker
from amstel.tracking import SINTTracker, evaluate
from tests.test_tracker import Colors, sequence

pytestmark = pytest.mark.usefixtures("one_thread")


def _first(truth):
    """The box that pysot's `tools/test.py` gives a tracker: half a pixel off, which its own trackers take back."""
    x, y, w, h = truth
    return [x + w / 2 - (w - 1) / 2, y + h / 2 - (h - 1) / 2, w, h]


def _run(images, truth):
    """A sequence as `tools/test.py` runs it, with the truth as its first box."""
    tracker, boxes = Tracker(SINTTracker(Colors()), init_offset=0.5), [truth[0].tolist()]
    tracker.init(np.ascontiguousarray(images[0][..., ::-1]), _first(truth[0]))
    for image in images[1:]:
        found = tracker.track(np.ascontiguousarray(image[..., ::-1]))
        assert isinstance(found["best_score"], float)
        boxes.append(found["bbox"])
    return np.array(boxes)


def _by_the_rules(boxes, truth):
    """Success, precision and normalized precision; a frame without a true center counts as near."""
    low, high = (
        np.maximum(boxes[:, :2], truth[:, :2]),
        np.minimum(boxes[:, :2] + boxes[:, 2:], truth[:, :2] + truth[:, 2:]),
    )
    shared = (high - low).clip(0).prod(1)
    with np.errstate(invalid="ignore"):
        iou = shared / (boxes[:, 2:].prod(1) + truth[:, 2:].prod(1) - shared)
    iou = np.where((truth[:, 2:] > 0).all(1), iou, -1)
    middle = [b[:, :2] + (b[:, 2:] - 1) / 2 for b in (boxes, truth)]

    def near(unit, thresholds):
        a, b = (m / unit for m in middle)
        apart = np.where((b > 0).all(1), np.hypot(*(a - b).T), -1)
        return (apart[:, None] <= thresholds).mean(0)

    return (
        (iou[:, None] > np.arange(0, 1.05, 0.05)).mean(0),
        near(1, np.arange(51)),
        near(truth[:, 2:] + 1e-16, np.arange(51) / 100),
    )


def _by_the_toolkit(boxes, truth):
    if importlib.util.find_spec("toolkit") is None:
        pytest.skip("the toolkit itself: pysot's folder on PYTHONPATH, built with its setup.py")
    from toolkit.evaluation import OPEBenchmark

    class Video:
        name, gt_traj, pred_trajs = "one", truth, {"SINT": boxes}

    class Videos(list):
        tracker_names, tracker_path = ["SINT"], ""

    benchmark = OPEBenchmark(Videos([Video()]))
    steps = benchmark.eval_success, benchmark.eval_precision, benchmark.eval_norm_precision
    return [step("SINT")["SINT"]["one"] for step in steps]


@pytest.mark.parametrize("by", [_by_the_rules, _by_the_toolkit])
def test_ope(by):
    images, boxes = sequence(frames=12)
    truth = boxes + np.array([1, 1, 0, 0])  # as the data sets count
    found = _run(images, truth)
    # A target that stands half outside at the left top, one outside, and one without a size.
    truth[7:10] = [[-4, 5, 36, 30], [-90, 5, 36, 30], [20, 20, 0, 0]]
    ours = evaluate(found - [1, 1, 0, 0], truth - [1, 1, 0, 0], "pysot")
    theirs = by(found, truth)
    curves = (ours.success, ours.precision_curve, ours.normalized_precision_curve)
    for own, their in zip(curves, theirs, strict=True):
        np.testing.assert_allclose(own.numpy(), their, rtol=0, atol=1e-15)
    assert 0.4 < ours.auc < 0.9


def test_half_a_pixel_is_taken_back():
    class Still:
        similarity = 0.5

        def init(self, image, box):
            self.box = np.asarray(box)

        def update(self, image):
            return self.box

    image = np.zeros((40, 40, 3), np.uint8)
    for offset, expected in ((0.5, [5, 6, 7, 8]), (0, [5.5, 6.5, 7, 8])):
        tracker = Tracker(Still(), init_offset=offset)
        tracker.init(image, _first([5, 6, 7, 8]))
        assert tracker.track(image)["bbox"] == expected


def test_what_is_no_box_is_said_as_it_was_given():
    from amstel.interop import got10k, pysot, pytracking

    frame = np.zeros((48, 64, 3), np.uint8)
    for box, said in (
        ([1, 2, 3], r"\[1, 2, 3\]"),
        (np.array([1, 2, 3]), r"\[1\.0, 2\.0, 3\.0\]"),
        (None, "None"),
        ([1, None, 3, 4], r"\[1, None, 3, 4\]"),
        ("box", "'box'"),
    ):
        message = f"`box` must be four finite numbers x, y, w, h, got {said}"
        with pytest.raises(ValueError, match=message):
            pysot.Tracker().init(frame, box)
        with pytest.raises(ValueError, match=message):
            pytracking.Tracker().initialize(frame, {"init_bbox": box})
        with pytest.raises(ValueError, match=message):
            got10k.Tracker().track([frame], box)
    with pytest.raises(ValueError, match="`img_files` must hold at least one frame, got none"):
        got10k.Tracker().track([], [1, 1, 8, 8])
    with pytest.raises(ValueError, match='`info` must be a dict with the box as "init_bbox"'):
        pytracking.Tracker().initialize(frame, {})
    for kind in (pysot.Tracker, pytracking.Tracker):
        with pytest.raises(ValueError, match="`origin` must be 0 or 1, the number of the first pixel, got 2"):
            kind(origin=2)
