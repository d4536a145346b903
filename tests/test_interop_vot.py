"""SINT in the vot-toolkit, and its measures against the toolkit's own and against its published rules, drawn as pixels."""

import math
import sys

import numpy as np
import pytest
import torch

from amstel.data import VOT
from amstel.interop.vot import Tracker, serve
from amstel.tracking import expected_overlap, perturbed
from amstel.tracking.vot import _overlaps
from tests.test_tracker import sequence

SIZE = (60, 48)


class Still:
    """A tracker that stays where it is and remembers what it got."""

    similarity = 0.5

    def init(self, image, box):
        self.image, self.box = image, np.asarray(box)

    def update(self, image):
        self.image = image
        return self.box


@pytest.mark.parametrize(
    "region, box",
    [
        ((5, 6, 7, 8), (5, 6, 7, 8)),
        ([(5.0, 6.0), (12.0, 7.0), (11.0, 14.0)], (5, 6, 7, 8)),
        (np.array([(5, 6), (12, 7), (11, 14)]), (5, 6, 7, 8)),
        (np.pad(np.ones((8, 7), np.uint8), ((6, 30), (5, 9))), (5, 6, 7, 8)),
        (np.pad(np.eye(3, dtype=bool), ((2, 0), (4, 1))), (4, 2, 3, 3)),
        (np.array([[0, 0]] * 6 + [[0, 255]] * 4, np.uint8), (1, 6, 1, 4)),
    ],
)
def test_adapter(region, box):
    still = Still()
    tracker = Tracker(still)
    assert tracker.init("1.jpg", (region, {"name": "duck"}), {}) == (box, {}) and still.image == "1.jpg"
    assert tracker.init({"depth": "d.png", "color": "2.jpg"}, region) == (box, {}) and still.image == "2.jpg"
    assert tracker.update("3.jpg", [], {}) == (box, {"score": 0.5}) and not tracker.multiobject
    none = ((1, 2, None, 4), [(1, 2), (3, None), (5, 6)], np.array([1, 2, None, 4]))
    for wrong in ((1, 2, 3), "x", None, [(1.0, 2.0)], [(1, 2), (3,)], np.ones((48, 60)), *none):
        with pytest.raises(
            ValueError, match=r"`new` must be a rectangle \(4 numbers\).* convert = rectangle"
        ):
            tracker.init("1.jpg", wrong)
    with pytest.raises(
        ValueError, match=r"`new` must be a mask with a pixel that is not 0, got zeros \[9, 2\]"
    ):
        tracker.init("1.jpg", np.zeros((9, 2), np.uint8))


def test_a_process_without_trax_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "trax", None)
    with pytest.raises(ImportError, match="pip install vot-trax"):
        serve(Tracker(Still()))


def _drawn(box):
    """Pixels of a box by the toolkit's rule, as a set; none where the box is missing."""
    if any(map(math.isnan, box)) or box[2] <= 0 or box[3] <= 0:
        return None
    x, y, w, h = (int(np.round(np.float32(v))) for v in box)
    return x, y, x + w - 1, y + h - 1


def _slow_overlap(a, b):
    """Overlap of two boxes pixel by pixel: within the hull of both, cut to the picture."""
    a, b = _drawn(a), _drawn(b)
    hull_a, hull_b = a or (0, 0, 0, 0), b or (0, 0, 0, 0)
    hull = [f(p, q) for f, p, q in zip((min, min, max, max), hull_a, hull_b, strict=True)]
    if hull[0] >= hull[2] or hull[1] >= hull[3]:
        return 1.0
    hull = max(hull[0], 0), max(hull[1], 0), min(hull[2], SIZE[0] - 1), min(hull[3], SIZE[1] - 1)
    if hull[0] >= hull[2] or hull[1] >= hull[3]:
        return 0.0
    both = either = 0
    for x in range(hull[0], hull[2] + 1):
        for y in range(hull[1], hull[3] + 1):
            inside = [r is not None and r[0] <= x <= r[2] and r[1] <= y <= r[3] for r in (a, b)]
            both, either = both + all(inside), either + any(inside)
    return both / either if either else 0.0


def _random_boxes(rng, count):
    boxes = np.concatenate([rng.uniform(-20, 60, (count, 2)), rng.uniform(0, 40, (count, 2))], 1)
    boxes[::3] = boxes[::3].round(0) + 0.5  # halves go to the even neighbor
    boxes[::7, 2:] = rng.uniform(0, 2, boxes[::7, 2:].shape)  # no wider than a pixel, or nothing
    boxes[::11] = math.nan
    return torch.from_numpy(boxes)


def test_overlaps_are_those_of_pixels():
    rng = np.random.default_rng(0)
    truth = _random_boxes(rng, 400)
    boxes = truth + torch.from_numpy(rng.normal(0, 6, (400, 4)))
    boxes[::5] = _random_boxes(rng, 80)
    found, _ = _overlaps(boxes, truth, SIZE)
    expected = [_slow_overlap(a, b) for a, b in zip(boxes.tolist(), truth.tolist(), strict=True)]
    assert found[0] == 0 and found[1:].tolist() == expected[1:]


def _data(root):
    """Two sequences in VOT's layout, with anchors, and a target that a tracker loses: the background takes its place."""
    from PIL import Image

    for name, seed in (("one", 0), ("two", 1)):
        images, boxes = sequence(frames=30, seed=seed)
        (root / name / "color").mkdir(parents=True)
        for number, image in enumerate(images, start=1):
            Image.fromarray(image).save(root / name / "color" / f"{number:08d}.jpg", quality=95)
        if seed:
            boxes[14:] += [150, 0, 0, 0]  # out of the picture
        lines = "".join(",".join(f"{v:.4f}" for v in box) + "\n" for box in boxes)
        (root / name / "groundtruth.txt").write_text(lines)
        (root / name / "sequence").write_text("channels.color=color/%08d.jpg\nfps=30\nname=" + name + "\n")
        anchors = ["0"] * 30
        anchors[0], anchors[12] = "1", "-1"
        (root / name / "anchor.value").write_text("\n".join(anchors) + "\n")
    (root / "list.txt").write_text("one\ntwo\n")


def _execute(experiment, entry, sequence):
    """The runs from anchors, by the toolkit's own tracker process; `MultiStartExperiment.execute` of 0.9.0 raises."""
    from vot.dataset.proxy import FrameMapSequence
    from vot.experiment.multistart import find_anchors
    from vot.region import Special
    from vot.tracker import ObjectStatus, Trajectory

    forward, backward = find_anchors(sequence)
    with entry.runtime(log=False) as runtime:
        for anchor in (*forward, *backward):
            way = range(anchor, len(sequence)) if anchor in forward else range(anchor, -1, -1)
            run, trajectory = FrameMapSequence(sequence, list(way)), Trajectory(len(way))
            runtime.initialize(run.frame(0), [ObjectStatus(run.groundtruth(0), {})])
            trajectory.set(0, Special(Trajectory.INITIALIZATION))
            for number in range(1, len(way)):
                found = runtime.update(run.frame(number), [])[0]
                found = found[0] if isinstance(found, list) else found
                assert float(found.properties.get("score", 0.5)) <= 1.001
                trajectory.set(number, found.region)
            trajectory.write(experiment.results(entry, sequence), f"{sequence.name}_{anchor:08d}")


@pytest.mark.parametrize("protocol", ["python", "traxpython"])
def test_measures_are_the_toolkits(tmp_path, protocol, one_thread):
    """Of its multistart experiment on two sequences, tracked through either of its protocols."""
    pytest.importorskip("vot", reason="the toolkit itself: pip install vot-toolkit")
    pytest.importorskip("safetensors", reason="the shipped weights are in a safetensors file")
    from vot.analysis.multistart import AverageAccuracyRobustness, EAOScore
    from vot.dataset import load_sequence
    from vot.experiment.multistart import MultiStartExperiment
    from vot.tracker import Tracker as Entry
    from vot.tracker import Trajectory
    from vot.workspace.storage import LocalStorage

    root = tmp_path / "sequences"
    _data(root)
    command = {"python": "amstel.interop.vot:Tracker", "traxpython": "amstel.interop.vot"}[protocol]
    paths = ":".join(filter(None, sys.path))
    entry = Entry("SINT", __file__, command, protocol=protocol, timeout=120, paths=paths)
    experiment = MultiStartExperiment("baseline", LocalStorage(str(tmp_path / "results")))
    sequences = [load_sequence(str(root / name)) for name in ("one", "two")]
    for one in sequences:
        _execute(experiment, entry, one)

    boxes, truth, sizes, names = [], [], [], []
    for given in VOT(root):
        for run in perturbed(given, "vot"):
            frame, _ = given.anchors[int(run.name[-2:]) - 1]
            one = next(s for s in sequences if s.name == given.name)
            found = Trajectory.read(experiment.results(entry, one), f"{given.name}_{frame:08d}").regions()
            rows = [[box.x, box.y, box.width, box.height] for box in found[1:]]
            boxes.append([run.ground_truth[0].tolist(), *rows])
            truth.append(run.ground_truth)
            sizes.append((200, 160))
            names.append(run.whole)
    ours = expected_overlap(boxes, truth, sizes, names, interval=(3, 20))

    analysis = AverageAccuracyRobustness()
    parts = [analysis.analysis.subcompute(experiment, entry, one, []) for one in sequences]
    accuracy, robustness, *_ = analysis.aggregate(entry, sequences, parts)
    score = EAOScore(low=3, high=20, eaocurve={"curves": {"high": 20}})
    curves = [score.eaocurve.curves.subcompute(experiment, entry, one, []) for one in sequences]
    (curve,) = score.eaocurve.aggregate(entry, sequences, curves)
    assert ours.accuracy == pytest.approx(accuracy, abs=1e-12) and 0.2 < accuracy < 0.95
    assert ours.robustness == pytest.approx(robustness, abs=1e-12) and ours.failures >= 1
    np.testing.assert_allclose(ours.curve.numpy(), curve, atol=1e-12)
    assert ours.eao == pytest.approx(np.mean(curve[3:21]), abs=1e-12)
