"""SINT in the experiments of the GOT-10k toolkit: their numbers are ours, frame by frame and on the whole.

Each test runs twice: by the published rules, written out here, and by the toolkit itself where it is installed.
"""

import numpy as np
import pytest

import amstel
from amstel.interop.got10k import Tracker
from amstel.tracking import average_overlap, evaluate, read_boxes
from tests.test_tracker import sequence

pytest.importorskip("PIL", reason="frames are read from files")
pytest.importorskip("safetensors", reason="the shipped weights are in a safetensors file")

SIZE = (200, 160)


def _save(folder, images):
    from PIL import Image

    folder.mkdir(parents=True)
    for number, image in enumerate(images, start=1):
        Image.fromarray(image).save(folder / f"{number:08d}.jpg", quality=95)


def _lines(boxes):
    return "".join(",".join(f"{v:.4f}" for v in box + np.array([1, 1, 0, 0])) + "\n" for box in boxes)


def _track(folder, truth, record):
    """What an experiment does with one sequence: boxes with three decimals, the first one as given."""
    files = sorted(map(str, folder.glob("*.jpg")))
    boxes, times = Tracker().forward_test(files, truth[0])
    record.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(record, boxes, fmt="%.3f", delimiter=",")
    assert len(times) == len(files) and (times > 0).all()
    return np.loadtxt(record, delimiter=",")


def _iou(a, b, bound=None):
    """Of boxes [T, 4]; each side cut by itself to the picture."""
    if bound is not None:
        a, b = a.copy(), b.copy()
        for boxes in (a, b):
            boxes[:, :2] = boxes[:, :2].clip(0, bound)
            boxes[:, 2:] = np.minimum(boxes[:, 2:].clip(0), np.array(bound) - boxes[:, :2])
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    shared = (high - low).clip(0).prod(1)
    return shared / (a[:, 2:].prod(1) + b[:, 2:].prod(1) - shared)


def _got10k_by_the_rules(root, results):
    """AO and SR of GOT-10k: of all frames after a first one in which the target is to be seen."""
    ious = {}
    for name in ("A", "B"):
        truth = np.loadtxt(root / name / "groundtruth.txt", delimiter=",")
        found = _track(root / name, truth, results / "GOT-10k/SINT" / name / f"{name}_001.txt")
        seen = np.loadtxt(root / name / "cover.label") > 0
        ious[name] = _iou(found, truth, SIZE)[1:][seen[1:]]
    every = np.concatenate(list(ious.values()))
    return {
        "overall": {"ao": every.mean(), "sr": (every > 0.5).mean()},
        "seq_wise": {name: {"ao": values.mean()} for name, values in ious.items()},
    }


def _got10k_by_the_toolkit(root, results):
    pytest.importorskip("got10k", reason="the toolkit itself: pip install got10k")
    pytest.importorskip("matplotlib", reason="the toolkit draws its curves").use("Agg")
    from got10k.experiments import ExperimentGOT10k

    experiment = ExperimentGOT10k(str(root.parent), "val", str(results), str(results.parent / "reports"))
    experiment.run(Tracker())
    return experiment.report(["SINT"])["SINT"]


@pytest.mark.parametrize("by", [_got10k_by_the_rules, _got10k_by_the_toolkit])
def test_average_overlap_and_success(tmp_path, one_thread, by):
    root = tmp_path / "data" / "val"
    for name, seed in (("A", 0), ("B", 1)):
        images, boxes = sequence(frames=6, seed=seed)
        boxes = boxes + np.array(
            [[0, 0, 0, 0], [3, 0, 0, 0], [-40, 0, 0, 9], [0, -70, 0, 0], [150, 0, 0, 0], [0] * 4]
        )
        _save(root / name, images)
        (root / name / "groundtruth.txt").write_text(_lines(boxes))
        (root / name / "meta_info.ini").write_text("[METAINFO]\nresolution: (200, 160)\n")
        for label, values in (
            ("cover", "8 8 8 8 8 0"),
            ("absence", "0 0 0 0 0 1"),
            ("cut_by_image", "0 0 1 1 1 0"),
        ):
            (root / name / f"{label}.label").write_text(values.replace(" ", "\n") + "\n")
    (root / "list.txt").write_text("A\nB\n")
    theirs = by(root, tmp_path / "results")

    known = amstel.data.GOT10k(root.parent, "val")
    found = {
        s.name: read_boxes(tmp_path / "results/GOT-10k/SINT" / s.name / f"{s.name}_001.txt", 1) for s in known
    }
    for s in known:
        one = average_overlap([found[s.name]], [s.ground_truth], [SIZE])
        assert one.ao == pytest.approx(theirs["seq_wise"][s.name]["ao"], abs=1e-14)
    ours = average_overlap(found.values(), [s.ground_truth for s in known], [SIZE] * 2)
    assert len(ours.iou) == 8 and 0.2 < ours.ao < 0.95
    assert ours.ao == pytest.approx(theirs["overall"]["ao"], abs=1e-14)
    assert ours.sr50 == theirs["overall"]["sr"]


def _ope_by_the_rules(root, results):
    theirs = {}
    for name in ("Basketball", "Walking"):
        truth = np.loadtxt(root / name / "groundtruth_rect.txt", delimiter=",")
        found = _track(root / name / "img", truth, results / "OTB2013/SINT" / f"{name}.txt")
        found[0] = truth[0]
        middle = [boxes[:, :2] + (boxes[:, 2:] - 1) / 2 for boxes in (found, truth)]
        apart = np.hypot(*(middle[0] - middle[1]).T)
        theirs[name] = {
            "success_curve": (_iou(found, truth)[:, None] > np.linspace(0, 1, 21)).mean(0),
            "precision_curve": (apart[:, None] <= np.arange(51)).mean(0),
        }
    return theirs


def _ope_by_the_toolkit(root, results):
    pytest.importorskip("got10k", reason="the toolkit itself: pip install got10k")
    pytest.importorskip("matplotlib", reason="the toolkit draws its curves").use("Agg")
    from got10k.datasets.otb import OTB
    from got10k.experiments import ExperimentOTB

    with pytest.MonkeyPatch.context() as patch:
        for step in ("_download", "_check_integrity"):  # of all hundred sequences
            patch.setattr(OTB, step, lambda *arguments: None)
        experiment = ExperimentOTB(str(root), 2013, str(results), str(results.parent / "reports"))
        experiment.run(Tracker())
        return experiment.report(["SINT"])["SINT"]["seq_wise"]


@pytest.mark.parametrize("by", [_ope_by_the_rules, _ope_by_the_toolkit])
def test_ope(tmp_path, one_thread, by):
    root, results = tmp_path / "data", tmp_path / "results"
    for name, seed in (("Basketball", 2), ("Walking", 3)):
        images, boxes = sequence(frames=6, seed=seed)
        boxes = boxes + np.array(
            [[0, 0, 0, 0], [6, 0, 0, 0], [0, 4, 0, 0], [30, 0, 0, 0], [0, 0, 9, 0], [0] * 4]
        )
        _save(root / name / "img", images)
        (root / name / "groundtruth_rect.txt").write_text(_lines(boxes))
    theirs = by(root, results)
    for s in amstel.data.OTB(root):
        ours = evaluate(read_boxes(results / "OTB2013/SINT" / f"{s.name}.txt", 1), s.ground_truth, "got10k")
        assert ours.success.tolist() == pytest.approx(theirs[s.name]["success_curve"], abs=1e-15)
        assert ours.precision_curve.tolist() == pytest.approx(theirs[s.name]["precision_curve"], abs=1e-15)
        assert 0.2 < ours.auc < 0.9
