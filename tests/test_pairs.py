"""Pairs of frames from still images and from sequences, and the boxes drawn on them."""

import math

import numpy as np
import pytest
import torch

from amstel.data import pairs as P

cv2 = pytest.importorskip("cv2")


def picture(seed, height=120, width=150):
    """Smooth random colors with some hard edges."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    for x, y in rng.integers(0, 90, (8, 2)):
        image[y : y + 14, x : x + 20] = rng.integers(0, 256, 3)
    return image


@pytest.fixture(scope="module")
def stills():
    return P.StillPairs([picture(k) for k in range(4)], size=96, target=32)


def same(a, b):
    return (
        torch.equal(a.frames, b.frames)
        and torch.equal(a.boxes, b.boxes)
        and all(torch.equal(x, y) for x, y in zip(a.others, b.others, strict=True))
    )


# ------------------------------------------------------------------------------------------------- boxes


def test_overlaps_by_hand():
    box = torch.tensor([0.0, 0, 10, 10])
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [2, 2, 4, 4]])
    torch.testing.assert_close(P.overlaps(boxes, box), torch.tensor([1, 1 / 3, 0, 0.04]))


def test_polar_boxes_lie_on_circles():
    box = torch.tensor([10.0, 20, 40, 30])  # 30 x 10
    boxes = P.polar_boxes(box)
    assert boxes.shape == (160, 4)
    torch.testing.assert_close(boxes[:, 2:] - boxes[:, :2], torch.tensor([30.0, 10]).expand(160, 2))
    away = (boxes[:, :2] + boxes[:, 2:]) / 2 - torch.tensor([25.0, 25])
    radius = away.norm(dim=1).view(10, 16)
    torch.testing.assert_close(
        radius, (3.0 * torch.arange(1, 11))[:, None].expand(10, 16), rtol=1e-4, atol=1e-4
    )
    angle = torch.atan2(away[:, 1], away[:, 0]).view(10, 16) % (2 * math.pi)
    torch.testing.assert_close(angle[3].sort().values, torch.arange(16) * math.pi / 8, rtol=1e-3, atol=1e-3)
    scaled = P.polar_boxes(box, 4, 2, (1.0, 2.0))
    assert scaled.shape == (16, 4)
    torch.testing.assert_close(scaled[8:, 2:] - scaled[8:, :2], torch.tensor([60.0, 20]).expand(8, 2))


@pytest.mark.parametrize("count, positive", [(64, 16), (13, 3), (400, 100)])
def test_box_pairs_keep_the_rules(count, positive):
    box = torch.tensor([30.0, 35, 62, 61])
    others = torch.tensor([[5.0, 5, 37, 31]])
    boxes, y = P.box_pairs(box, 96, np.random.default_rng(3), count, positive, others)
    assert boxes.shape == (count, 4) and y.dtype == torch.bool
    assert y.tolist() == [True] * positive + [False] * (count - positive)
    found = P.overlaps(boxes, box)
    assert (found[y] > 0.7).all() and (found[~y] < 0.5).all()
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    assert (center >= 0).all() and (center <= 96).all()
    again, _ = P.box_pairs(box, 96, np.random.default_rng(3), count, positive, others)
    other, _ = P.box_pairs(box, 96, np.random.default_rng(4), count, positive, others)
    assert torch.equal(boxes, again) and not torch.equal(boxes, other)


def test_box_pairs_look_at_the_other_things():
    box, other = torch.tensor([60.0, 60, 80, 80]), torch.tensor([[10.0, 10, 30, 30]])

    def share(others):
        boxes, y = P.box_pairs(box, 96, np.random.default_rng(0), 400, 100, others)
        return (P.overlaps(boxes[~y], other[0]) > 0.3).float().mean()

    assert share(other) > 0.08 > 2 * share(None)


# ------------------------------------------------------------------------------------------------ stills


def test_a_pair_from_a_still(stills):
    for index in range(len(stills)):
        pair = stills.sample(index, np.random.default_rng(index))
        assert pair.frames.shape == (2, 3, 96, 96) and pair.frames.dtype == torch.uint8
        assert pair.boxes.shape == (2, 4) and pair.boxes.dtype == torch.float32
        size = pair.boxes[:, 2:] - pair.boxes[:, :2]
        side = size.prod(1).sqrt()
        assert abs(side[0] - 32) < 1.5  # the first target has the size that was asked for
        assert 0.6 < side[1] / side[0] < 1.6
        center = (pair.boxes[:, :2] + pair.boxes[:, 2:]) / 2
        assert (center > 0.29 * 96).all() and (center < 0.71 * 96).all()


def test_equal_generators_give_equal_bits(stills):
    fresh = P.StillPairs([picture(k) for k in range(4)], size=96, target=32)
    for index in range(12):
        a = stills.sample(index % 4, np.random.default_rng([5, index]))
        assert same(a, fresh.sample(index % 4, np.random.default_rng([5, index])))
        assert not same(a, stills.sample(index % 4, np.random.default_rng([6, index])))


def test_the_target_is_in_both_frames(stills):
    """What is in the two boxes is more alike than what is beside them, in most pairs."""

    def patch(frame, box):
        x1, y1, x2, y2 = box.round().int().clamp(0, 96).tolist()
        piece = frame[:, y1:y2, x1:x2].float()[None]
        piece = torch.nn.functional.interpolate(piece, (8, 8), mode="area")[0]
        return (piece - piece.mean()) / (piece.std() + 1)

    won = 0
    for index in range(60):
        pair = stills.sample(index % 4, np.random.default_rng([1, index]))
        target = patch(pair.frames[0], pair.boxes[0])
        away = P.polar_boxes(pair.boxes[1], 8, 1).clamp(0, 96)
        away = away[(away[:, 2:] - away[:, :2] > 8).all(1)]
        beside = min((target - patch(pair.frames[1], b)).square().mean() for b in away)
        won += bool((target - patch(pair.frames[1], pair.boxes[1])).square().mean() < beside)
    assert won > 40


def test_stills_from_files(tmp_path):
    for k in range(3):
        cv2.imwrite(str(tmp_path / f"{k}.png"), picture(k)[..., ::-1])
    (tmp_path / "notes.txt").write_text("no image")
    stills = P.StillPairs([tmp_path, tmp_path / "0.png"], size=64, target=24)
    assert len(stills) == 4
    arrays = P.StillPairs([picture(k) for k in (0, 1, 2, 0)], size=64, target=24)
    assert same(stills.sample(1, np.random.default_rng(0)), arrays.sample(1, np.random.default_rng(0)))


def test_stills_explain_themselves(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"broken")
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"`images` must be at least one image, got \[\]"):
        P.StillPairs([])
    with pytest.raises(ValueError, match=r"broken\.png must be an image"):
        P.StillPairs([tmp_path]).sample(0, rng)
    with pytest.raises(FileNotFoundError, match=r"absent\.png does not exist"):
        P.StillPairs([tmp_path / "absent.png"]).sample(0, rng)
    for image in (np.zeros((80, 80), np.uint8), np.zeros((80, 80, 3)), np.zeros((10, 80, 3), np.uint8)):
        with pytest.raises(ValueError, match="at least 64 pixels per side"):
            P.StillPairs([image]).sample(0, rng)
    for options, message in (
        ({"size": 0}, "`size`"),
        ({"target": math.nan}, "`target`"),
        ({"target": 300.0}, "`target`"),
        ({"scale": (20.0, 10.0)}, "`scale`"),
        ({"scale": (1.0, 10.0)}, "`scale`"),
        ({"scale": (20.0, 30.0, 40.0)}, r"`scale` must be two numbers >= 4 .*, got \(20\.0, 30\.0, 40\.0\)"),
        ({"scale": (20.0, "30")}, "`scale` must be two numbers >= 4 .*, got '30'"),
        ({"scale": (20.0, math.inf)}, "`scale`"),
        ({"target": "64"}, "`target` must be a number from 4 to half of `size` = 208, got '64'"),
    ):
        with pytest.raises(ValueError, match=message):
            P.StillPairs([picture(0)], **options)
    for scale in ("ab", 20.0, np.float64(20.0), np.ones((2, 2)), None):
        with pytest.raises(TypeError, match="`scale` must be two numbers >= 4"):
            P.StillPairs([picture(0)], scale=scale)
    one = tmp_path / "broken.png"
    for lone, got in (
        (one, "broken"),
        (str(one), "broken"),
        (picture(0), r"one array \["),
        (3, "3 "),
        (None, "None"),
    ):
        with pytest.raises(
            TypeError, match=f"`images` must be a list of files, folders and arrays, got .*{got}"
        ):
            P.StillPairs(lone)
    with pytest.raises(TypeError, match="`images` must be the name of a file or folder, got 3"):
        P.StillPairs([3])


def test_an_array_of_stills_and_of_scales_are_lists_of_them():
    several = np.stack([picture(k) for k in range(3)])
    a = P.StillPairs(several, 64, 24, np.array([18, 50])).sample(1, np.random.default_rng(0))
    assert same(a, P.StillPairs(list(several), 64, 24.0, (18.0, 50.0)).sample(1, np.random.default_rng(0)))
    for scale in (torch.tensor([18.0, 50]), [np.float32(18), np.int64(50)]):
        b = P.StillPairs(several, np.int64(64), np.float32(24), scale)
        assert same(a, b.sample(1, np.random.default_rng(0)))


@pytest.mark.data
def test_real_stills(data_folder):
    stills = P.StillPairs([data_folder / "images" / "bsd300_train"])
    assert len(stills) == 200
    pair = stills.sample(7, np.random.default_rng(0))
    assert pair.frames.shape == (2, 3, 208, 208) and pair.frames.float().std() > 5


# --------------------------------------------------------------------------------------------- sequences


class Sequence:
    """A bright square that moves two pixels per frame."""

    name = "square"

    def __init__(self, truth=None, frames=20):
        t = np.arange(frames)[:, None]
        self.ground_truth = torch.from_numpy(np.hstack([10 + 2 * t, 12 + t, 0 * t + 16, 0 * t + 12]) * 1.0)
        if truth is not None:
            self.ground_truth[torch.tensor(truth)] = math.nan

    def __len__(self):
        return len(self.ground_truth)

    def __getitem__(self, t):
        frame = np.full((60, 80, 3), 20, np.uint8)
        x, y = 10 + 2 * t, 12 + t
        frame[y : y + 12, x : x + 16] = 200
        return frame


def test_pairs_from_a_sequence():
    pairs = P.SequencePairs([Sequence()], gap=5, size=96, target=32)
    assert len(pairs) == 20
    pair = pairs.sample(4, np.random.default_rng(0))
    assert pair.frames.shape == (2, 3, 96, 96) and [len(o) for o in pair.others] == [0, 0]
    assert same(pair, pairs.sample(4, np.random.default_rng(0)))
    side = (pair.boxes[:, 2:] - pair.boxes[:, :2]).prod(1).sqrt()
    torch.testing.assert_close(side, torch.full((2,), 32.0))
    for frame, box in zip(pair.frames, pair.boxes, strict=True):
        rows, cols = (frame[0] > 110).nonzero(as_tuple=True)
        found = torch.stack([cols.min(), rows.min(), cols.max() + 1, rows.max() + 1])
        assert (found - box).abs().max() < 1.01


def test_pairs_need_ground_truth_in_reach():
    truth = [t for t in range(20) if t not in (0, 1, 12)]
    pairs = P.SequencePairs([Sequence(truth)], gap=5)
    assert [t for _, t in pairs._frames] == [0, 1]
    for index in range(2):
        assert pairs.sample(index, np.random.default_rng(index)).boxes.isfinite().all()
    with pytest.raises(ValueError, match="two frames of ground truth at most 5 apart"):
        P.SequencePairs([Sequence([t for t in range(20) if t not in (0, 12)])], gap=5)
    with pytest.raises(ValueError, match="`gap`"):
        P.SequencePairs([Sequence()], gap=0)


def test_a_target_beyond_its_frame_is_no_pair():
    class Away:
        ground_truth = torch.tensor([[-500.0, 10, 30, 30]] + [[20.0, 30, 30, 30]] * 2)

        def __getitem__(self, frame):
            return np.random.default_rng(frame).integers(0, 256, (100, 120, 3), dtype=np.uint8)

    pairs = P.SequencePairs([Away()])
    for index in range(3):
        pair = pairs.sample(index, np.random.default_rng(index))
        for frame, (left, top, right, bottom) in zip(pair.frames, pair.boxes.int().tolist(), strict=True):
            assert frame[:, top:bottom, left:right].flatten(1).unique(dim=1).shape[1] > 1000
    Away.ground_truth = Away.ground_truth[:1].repeat(3, 1)
    with pytest.raises(ValueError, match="`sequences` must be targets in their frames"):
        P.SequencePairs([Away()]).sample(0, np.random.default_rng(0))


def test_pairs_of_a_target_that_is_hardly_in_the_picture():
    """2 x 2 pixels of 40 x 40 are left in a frame: enlarged to 64 x 64 the target of the others would be 1280 wide."""

    class Leaves:
        ground_truth = torch.tensor([[0.0, 100, 2, 2], [20, 100, 40, 40], [24, 100, 40, 40], [0, 100, 1, 60]])

        def __getitem__(self, frame):
            return np.zeros((240, 320, 3), np.uint8)

    pairs = P.SequencePairs([Leaves()], size=208, target=64.0)
    assert (
        len(pairs) == 2
    )  # no pair begins with the first frame or with the last, whose own side would be 496
    seen = set()
    for seed in range(40):
        pair = pairs.sample(seed % 2, np.random.default_rng(seed))
        sides = pair.boxes[:, 2:] - pair.boxes[:, :2]
        assert (sides <= 208).all()
        seen.add(round(float(sides[1, 0] / 64 * 40)))
        for box in pair.boxes:
            boxes, y = P.box_pairs(box, 208, np.random.default_rng(seed))
            assert (P.overlaps(boxes[~y], box) < 0.5).all()
    assert seen == {1, 2, 40}
    with pytest.raises(ValueError, match="with targets that fit into their crops"):
        Leaves.ground_truth = Leaves.ground_truth[[0, 3]]
        P.SequencePairs([Leaves()])
    with pytest.raises(
        ValueError, match="`box` must be a target that leaves room for other boxes in a frame of 96"
    ):
        P.box_pairs(torch.tensor([-900.0, -900, 950, 950]), 96, np.random.default_rng(0))


def test_first_frames_of_pairs_are_those_that_have_a_partner():
    """Against the definition, on sequences with gaps and sizes of all kinds."""
    rng = np.random.default_rng(0)
    for gap in (1, 2, 5):
        truth = np.concatenate([rng.uniform(0, 99, (80, 2)), np.exp(rng.uniform(0, 5, (80, 2)))], 1)
        truth[rng.random(80) < 0.3] = np.nan
        sequence = type("Sequence", (), {"ground_truth": truth})()
        side, fits = truth[:, 2:].max(1), 208 / 64 * np.sqrt(truth[:, 2:].prod(1))
        expected = [
            (0, t)
            for t in range(80)
            if any(
                s != t and 0 <= s < 80 and max(side[s], side[t]) <= fits[t]
                for s in range(t - gap, t + gap + 1)
            )
        ]
        assert P.SequencePairs([sequence], gap=gap)._frames == expected
