"""SINT in the experiments of the GOT-10k toolkit itself: their numbers are ours, frame by frame and on the whole."""

import numpy as np
import pytest

import amstel
from amstel.interop.got10k import Tracker
from amstel.tracking import average_overlap, evaluate, read_boxes
from tests.test_tracker import sequence

pytest.importorskip("got10k", reason="the toolkit itself: pip install got10k")
pytest.importorskip("PIL", reason="frames are read from files")
pytest.importorskip("safetensors", reason="the shipped weights are in a safetensors file")
Image = pytest.importorskip("PIL.Image")
matplotlib = pytest.importorskip("matplotlib", reason="the toolkit draws its curves")
matplotlib.use("Agg")


def _save(folder, images):
    folder.mkdir(parents=True)
    for number, image in enumerate(images, start=1):
        Image.fromarray(image).save(folder / f"{number:08d}.jpg", quality=95)


def _lines(boxes):
    return "".join(",".join(f"{v:.4f}" for v in box + np.array([1, 1, 0, 0])) + "\n" for box in boxes)


def test_average_overlap_and_success_are_the_toolkits(tmp_path, one_thread):
    from got10k.experiments import ExperimentGOT10k

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
    experiment = ExperimentGOT10k(
        str(root.parent), "val", str(tmp_path / "results"), str(tmp_path / "reports")
    )
    experiment.run(Tracker())
    theirs = experiment.report(["SINT"])["SINT"]

    known = amstel.data.GOT10k(root.parent, "val")
    found = {
        s.name: read_boxes(tmp_path / "results/GOT-10k/SINT" / s.name / f"{s.name}_001.txt", 1) for s in known
    }
    size = (200, 160)
    for s in known:
        one = average_overlap([found[s.name]], [s.ground_truth], [size])
        assert one.ao == pytest.approx(theirs["seq_wise"][s.name]["ao"], abs=1e-9)
    ours = average_overlap(found.values(), [s.ground_truth for s in known], [size] * 2)
    assert len(ours.iou) == 8 and 0.2 < ours.ao < 0.95
    assert ours.ao == pytest.approx(theirs["overall"]["ao"], abs=1e-9)
    assert ours.sr50 == pytest.approx(theirs["overall"]["sr"])


def test_ope_is_the_toolkits(tmp_path, monkeypatch, one_thread):
    from got10k.datasets.otb import OTB
    from got10k.experiments import ExperimentOTB

    for step in ("_download", "_check_integrity"):  # of all hundred sequences
        monkeypatch.setattr(OTB, step, lambda *arguments: None)
    for name, seed in (("Basketball", 2), ("Walking", 3)):
        images, boxes = sequence(frames=6, seed=seed)
        boxes = boxes + np.array(
            [[0, 0, 0, 0], [6, 0, 0, 0], [0, 4, 0, 0], [30, 0, 0, 0], [0, 0, 9, 0], [0] * 4]
        )
        _save(tmp_path / name / "img", images)
        (tmp_path / name / "groundtruth_rect.txt").write_text(_lines(boxes))
    experiment = ExperimentOTB(str(tmp_path), 2013, str(tmp_path / "results"), str(tmp_path / "reports"))
    experiment.run(Tracker())
    theirs = experiment.report(["SINT"])["SINT"]["seq_wise"]
    for s in amstel.data.OTB(tmp_path):
        ours = evaluate(
            read_boxes(tmp_path / "results/OTB2013/SINT" / f"{s.name}.txt", 1), s.ground_truth, "got10k"
        )
        assert ours.success.tolist() == pytest.approx(theirs[s.name]["success_curve"])
        assert ours.precision_curve.tolist() == pytest.approx(theirs[s.name]["precision_curve"])
        assert 0.2 < ours.auc < 0.9
