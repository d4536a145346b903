"""SINT's tracker: candidates, box regression, and tracks of a made-up sequence by a model of nothing but colors."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from amstel.ops import roi_match, roi_pool
from amstel.tracking import MultiTracker, SINTTracker, generate_sequence, overlap
from amstel.tracking.candidates import (
    BoxRegression,
    candidates,
    circles,
    regression_samples,
    targets,
)
from amstel.tracking.frames import Frames, VideoWriter, image_array
from amstel.tracking.tracker import Settings
from amstel.tracking.view import Views, Window

pytestmark = pytest.mark.usefixtures("one_thread")


class Colors(torch.nn.Module):
    """`amstel.nn.SINT`'s interface on two maps of mean colors, as differences from gray."""

    spatial_scales, output_size, receptive_field = (1 / 4, 1 / 8), 7, 0

    def features(self, image):
        return [F.avg_pool2d(image - 0.5, side) for side in (4, 8)]

    def describe(self, features, boxes):
        pooled = (
            roi_pool(x, boxes, self.output_size, s)
            for x, s in zip(features, self.spatial_scales, strict=True)
        )
        return torch.cat([F.normalize(p.flatten(1)) for p in pooled], 1)

    def match(self, features, boxes, query):
        return roi_match(features, boxes, query, self.output_size, self.spatial_scales)


def _texture(rng, height, width, cell):
    """Soft colored noise."""
    small = torch.from_numpy(rng.random((1, 3, height // cell + 2, width // cell + 2)))
    large = F.interpolate(small, scale_factor=cell, mode="bicubic").clamp(0, 1)
    return (255 * large[0, :, :height, :width]).byte().permute(1, 2, 0).numpy()


def sequence(frames=24, hidden=(), jump=0, size=(36, 30), gray=False, seed=0):
    """A textured target on a soft background: images [T, 160, 200, 3] and its boxes [T, 4].

    Where a frame is in `hidden` the target is not there; after it, it has moved on by `jump` pixels.
    """
    rng = np.random.default_rng(seed)
    height, width = 160, 200
    background, target = _texture(rng, height, width, 40) // 2 + 64, _texture(rng, size[1], size[0], 6)
    images, boxes = [], []
    for t in range(frames):
        moved = jump if hidden and t > max(hidden) else 0
        x = round(30 + 4 * t * (1 if t < 16 else 0.8)) % 120 + moved
        y = round(50 + 20 * math.sin(t / 4))
        image = background.copy()
        if t not in hidden:
            image[y : y + size[1], x : x + size[0]] = target
        images.append(image)
        boxes.append([x, y, *size])
    images = np.stack(images)
    if gray:
        images = images.mean(3).astype(np.uint8)
    return images, np.array(boxes, dtype=np.float64)


def _iou(found, true):
    return overlap(torch.as_tensor(found), torch.as_tensor(true)).numpy()


BOX = torch.tensor([100.0, 80.0, 40.0, 30.0], dtype=torch.float64)


# -------------------------------------------------------------------------------------------- candidates


@pytest.mark.parametrize("width, count", [(320, 183), (512, 303), (640, 363), (40, 3)])
def test_candidates_are_as_many_as_in_the_paper(width, count):
    boxes = candidates(BOX, BOX, width)
    assert boxes.shape == (count, 4) and boxes.dtype == torch.float64
    torch.testing.assert_close(boxes[0], BOX)  # of equal scores the first wins


def test_candidates_lie_on_circles_at_three_scales_of_the_first_box():
    last = torch.tensor([10.0, 20.0, 56.0, 42.0], dtype=torch.float64)
    boxes = candidates(last, BOX, 320)
    sizes = boxes[:, 2:].view(3, 61, 2)
    for part, scale in zip(sizes, (1, math.sqrt(0.5), math.sqrt(2)), strict=True):
        torch.testing.assert_close(part, (BOX[2:] * scale).expand(61, 2))
    centers = (boxes[:, :2] + boxes[:, 2:] / 2).view(3, 61, 2)
    torch.testing.assert_close(centers[1], centers[0])
    offsets = centers[0] - (last[:2] + last[2:] / 2)
    radius = offsets.norm(dim=1)
    torch.testing.assert_close(radius[0], torch.tensor(0.0, dtype=torch.float64))
    expected = torch.arange(1, 7, dtype=torch.float64).mul(3).repeat_interleave(10)
    torch.testing.assert_close(radius[1:], expected)
    angle = torch.atan2(offsets[1:11, 1], offsets[1:11, 0]) % (2 * math.pi)
    torch.testing.assert_close(angle, torch.arange(10, dtype=torch.float64) * (2 * math.pi / 10))


@pytest.mark.parametrize("radius, step", [(math.nan, 3), (-1, 3), (math.inf, 3), (9, 0), (9, -3)])
def test_circles_reject(radius, step):
    with pytest.raises(ValueError, match=r"`radius`|`step`"):
        circles(radius, step)


def test_regression_samples_overlap_and_vary_in_all_four_numbers():
    samples = regression_samples(BOX)
    assert samples.shape == (369, 4) and regression_samples(BOX * 3.7).shape == (369, 4)
    assert (overlap(samples, BOX) > 0.6).all()
    spread = targets(samples, BOX)
    assert (spread.amax(0) > 0.15).all() and (spread.amin(0) < -0.15).all()


def test_targets_lead_to_the_box():
    samples = regression_samples(BOX)
    exact = BoxRegression(torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(exact(samples, targets(samples, BOX)), BOX.expand_as(samples))


@pytest.mark.parametrize("samples, features", [(20, 50), (50, 20), (30, 30), (1, 8)])
@pytest.mark.parametrize("alpha", [1.0, 0.01])
def test_ridge_is_least_squares_with_alpha(samples, features, alpha):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, features, dtype=torch.float64, generator=generator)
    y = torch.randn(samples, 4, dtype=torch.float64, generator=generator)
    found = BoxRegression.fit(x, y, alpha).weight
    # |X W - Y|² + alpha |W|² is least squares with sqrt(alpha) I below X, and zeros below Y.
    rows = np.concatenate([x.numpy(), math.sqrt(alpha) * np.eye(features)])
    right = np.concatenate([y.numpy(), np.zeros((features, 4))])
    np.testing.assert_allclose(found.numpy(), np.linalg.lstsq(rows, right, rcond=None)[0], atol=1e-10)
    single = BoxRegression.fit(x.float(), y, alpha).weight
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), found, atol=2e-2 if alpha < 1 else 1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    "x, y, alpha, message",
    [
        (torch.ones(0, 3), torch.ones(0, 4), 1.0, "`features`"),
        (torch.ones(3), torch.ones(3, 4), 1.0, "`features`"),
        (torch.ones(3, 2), torch.ones(2, 4), 1.0, "`targets`"),
        (torch.ones(3, 2), torch.ones(3, 4), 0.0, "`alpha`"),
        (torch.ones(3, 2), torch.ones(3, 4), math.nan, "`alpha`"),
    ],
)
def test_ridge_rejects(x, y, alpha, message):
    with pytest.raises(ValueError, match=message):
        BoxRegression.fit(x, y, alpha)


def test_regression_stays_within_a_factor_of_two():
    wild = BoxRegression(torch.full((1, 4), 1e6, dtype=torch.float64))
    found = wild(BOX[None], torch.ones(1, 1, dtype=torch.float64))[0]
    torch.testing.assert_close(found[2:], BOX[2:] * 2)
    assert found.isfinite().all()


# ----------------------------------------------------------------------------------------------- tracker


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"redetect": True},
        {"settings": Settings.paper()},
        {"settings": Settings(object_size=48, margin=0)},
    ],
    ids=["default", "redetect", "paper", "small"],
)
def test_tracks_a_made_up_sequence(options):
    images, truth = sequence()
    found = SINTTracker(Colors(), **options).track(images, truth[0])
    assert found.shape == (24, 4) and found.dtype == np.float64
    np.testing.assert_array_equal(found[0], truth[0])
    assert _iou(found, truth).mean() > 0.7 and _iou(found, truth).min() > 0.3


def test_tracks_gray_frames():
    images, truth = sequence(gray=True)
    found = SINTTracker(Colors()).track(images, truth[0])
    assert _iou(found, truth).mean() > 0.6
    np.testing.assert_array_equal(found, SINTTracker(Colors()).track(images[..., None], truth[0]))


@pytest.mark.parametrize("scale", [math.sqrt(2), math.sqrt(0.5)])
def test_scale_is_followed(scale):
    images, truth = sequence(frames=1)
    x, y, w, h = truth[0]
    center = np.array([x + w / 2, y + h / 2])
    rows, columns = (
        ((np.arange(side) + 0.5 - c) / scale + c).astype(int).clip(0, side - 1)
        for side, c in ((160, center[1]), (200, center[0]))
    )
    scaled = images[0][rows[:, None], columns]
    # Mean colors know too little of the target for a wider search.
    tracker = SINTTracker(Colors(), settings=Settings(radius=30 / 512, size_rate=1))
    tracker.init(images[0], truth[0])
    for _ in range(3):
        found = tracker.update(scaled)
    size = truth[0, 2:] * scale
    assert _iou(found, np.concatenate([center - size / 2, size])) > 0.75


def test_the_size_that_is_reported_follows_what_is_found_at_its_rate():
    images, truth = sequence(frames=5)
    found, steady = (
        SINTTracker(Colors(), settings=Settings(size_rate=rate)).track(images, truth[0]) for rate in (1, 0.25)
    )
    size = truth[0, 2:]
    for one, other in zip(found[1:], steady[1:], strict=True):
        size = size**0.75 * one[2:] ** 0.25
        np.testing.assert_allclose(other[2:], size)
        np.testing.assert_allclose(other[:2] + other[2:] / 2, one[:2] + one[2:] / 2)


def test_the_search_follows_the_size():
    images, truth = sequence(frames=8)
    for rate in (0, 0.5):
        tracker = SINTTracker(Colors(), settings=Settings(scale_rate=rate))
        tracker.init(images[0], truth[0])
        before, ratio = tracker._window, 1.0
        for image in images[1:]:
            tracker.update(image)
            part = tracker._box[2].item() / truth[0, 2]
            assert min(abs(part / (ratio if rate else 1) - scale) for scale in Settings().scales) < 1e-9
            ratio = ratio ** (1 - rate) * part**rate
            assert tracker._ratio == pytest.approx(ratio if rate else 1)
            assert max(tracker._window.size) <= tracker.settings.longest_side + 16
        assert rate or tracker._window == before


def test_plus_follows_the_flow():
    pytest.importorskip("cv2")
    images, truth = sequence()
    # A twin of the target stands still right beside its way: by looks alone it is the target.
    x, y, w, h = truth[0].astype(int)
    twin = images[0][y : y + h, x : x + w]
    for image in images[1:]:
        image[y : y + h, x : x + w] = twin
    for image, box in zip(images[1:], truth[1:].astype(int), strict=True):
        image[box[1] : box[1] + h, box[0] : box[0] + w] = twin
    plain = SINTTracker(Colors()).track(images, truth[0])
    plus = SINTTracker(Colors(), plus=True).track(images, truth[0])
    assert plus.shape == plain.shape and np.isfinite(plus).all()
    assert _iou(plus, truth).mean() >= _iou(plain, truth).mean()


def test_flow_share_counts_moved_pixels():
    pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    wide = _texture(rng, 160, 240, 6)
    tracker = SINTTracker(Colors(), plus=True)
    tracker.init(wide[:, 10:210], [80, 60, 40, 30])
    tracker._frame = wide[:, 0:200]  # everything has moved by 10 pixels to the right
    boxes = torch.tensor(
        [[90.0, 60, 40, 30], [110, 60, 40, 30], [90, 75, 40, 30], [130, 60, 40, 30]], dtype=torch.float64
    )
    share = tracker._flow_share(wide[:, 10:210], boxes)
    torch.testing.assert_close(share, torch.tensor([1.0, 0.5, 0.5, 0.0]).double(), atol=0.06, rtol=0)


def test_redetects_after_an_absence():
    images, truth = sequence(frames=26, hidden=range(10, 16), jump=-60)
    plain = SINTTracker(Colors(), redetect=False).track(images, truth[0])
    tracker, lost, found = SINTTracker(Colors(), redetect=True), [], [truth[0]]
    tracker.init(images[0], truth[0])
    for image in images[1:]:
        found.append(tracker.update(image))
        lost.append(tracker.lost)
    assert _iou(plain, truth)[20:].max() < 0.3
    assert _iou(np.stack(found), truth)[17:].min() > 0.5
    assert not any(lost[:8]) and all(lost[10:14]) and not any(lost[17:])


def test_searches_of_the_whole_frame_come_further_and_further_apart(monkeypatch):
    images, truth = sequence(frames=26, hidden=range(8, 26))
    searched = []
    search = SINTTracker._search_everywhere
    monkeypatch.setattr(
        SINTTracker, "_search_everywhere", lambda self, views: searched.append(number) or search(self, views)
    )
    for gap, expected in ((4, [8, 9, 11, 15, 19, 23]), (1, list(range(8, 26)))):
        tracker = SINTTracker(Colors(), settings=Settings(search_gap=gap))
        number = 0
        tracker.init(images[0], truth[0])
        searched.clear()
        for number in range(1, 26):
            tracker.update(images[number])
            assert tracker.lost == (number >= 8)
        assert searched == expected


def test_whole_frame_search_finds_the_target_anywhere():
    images, truth = sequence()
    tracker = SINTTracker(Colors(), redetect=True)
    tracker.init(images[0], truth[0])
    tracker._frame = images[20]
    boxes, similarity = tracker._search_everywhere(Views(tracker.model, tracker._frame))
    assert _iou(boxes[similarity.argmax()], truth[20]) > 0.5


def test_init_and_update_are_track(tmp_path):
    images, truth = sequence(frames=8)
    whole = SINTTracker(Colors()).track(images, truth[0])
    tracker = SINTTracker(Colors())
    tracker.init(images[0], truth[0].tolist())
    np.testing.assert_array_equal([tracker.update(image) for image in images[1:]], whole[1:])
    again = tracker.track(
        iter(images), torch.tensor(truth[0])
    )  # the same tracker begins anew, from a generator
    np.testing.assert_array_equal(again, whole)
    image = pytest.importorskip("PIL.Image")
    pictures = [image.fromarray(i) for i in images]
    np.testing.assert_array_equal(SINTTracker(Colors()).track(pictures, truth[0]), whole)
    for number, picture in enumerate(pictures, start=5):
        picture.save(tmp_path / f"frame_{number}.png")  # frame_10 after frame_9
    np.testing.assert_array_equal(SINTTracker(Colors()).track(tmp_path, truth[0]), whole)
    files = [tmp_path / f"frame_{k}.png" for k in range(5, 13)]
    np.testing.assert_array_equal(SINTTracker(Colors()).track(files, truth[0]), whole)


def test_same_boxes_twice_and_for_any_number_of_threads():
    images, truth = sequence(frames=6)
    first = SINTTracker(Colors(), redetect=True).track(images, truth[0])
    np.testing.assert_array_equal(SINTTracker(Colors(), redetect=True).track(images, truth[0]), first)
    torch.set_num_threads(2)
    np.testing.assert_array_equal(SINTTracker(Colors(), redetect=True).track(images, truth[0]), first)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("plus", [False, True])
def test_a_buffer_that_is_used_again_changes_nothing(plus):
    """A capture loop reads every frame into the same memory."""
    pytest.importorskip("cv2")
    images, truth = sequence(frames=8)
    expected = SINTTracker(Colors(), plus=plus).track(images, truth[0])
    buffer, box = np.empty_like(images[0]), np.array(truth[0], dtype=np.float64)
    tracker, found = SINTTracker(Colors(), plus=plus), []
    for t, image in enumerate(images):
        buffer[:] = image
        if t == 0:
            tracker.init(buffer, box)
            box[:] = 0
        else:
            found.append(tracker.update(buffer))
        buffer[:] = 0
    np.testing.assert_array_equal(np.stack(found), expected[1:])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_networks_of_every_precision(dtype):
    from amstel import nn, weights

    def made(dtype):
        model = nn.SINT()
        model.load_state_dict(weights.load("sint_light"))
        return SINTTracker(model.to(dtype), redetect=True)

    images, truth = sequence(frames=3)
    expected = made(torch.float32).track(images, truth[0])
    assert np.abs(made(dtype).track(images, truth[0]) - expected).max() < (
        1e-3 if dtype == torch.float64 else 2
    )


def test_a_network_that_is_trained_meanwhile_is_used_and_not_changed():
    from amstel import nn

    tracker, (images, truth) = SINTTracker(nn.SINT.pretrained()), sequence(frames=3)
    expected = tracker.track(images, truth[0])
    before = {name: value.clone() for name, value in tracker.model.state_dict().items()}
    tracker.model.train()
    np.testing.assert_array_equal(tracker.track(images, truth[0]), expected)
    assert all(torch.equal(value, before[name]) for name, value in tracker.model.state_dict().items())


def test_the_first_box_in_any_form():
    images, truth = sequence(frames=2)
    plain = [int(side) for side in truth[0]]
    expected = SINTTracker(Colors()).track(images, plain)
    forms = (
        tuple(plain),
        np.array(plain, np.int16),
        [np.int64(side) for side in plain],
        torch.tensor(plain),
        torch.tensor(plain, dtype=torch.bfloat16).requires_grad_(),
        [torch.tensor(side) for side in plain],
    )
    for box in forms:
        found = SINTTracker(Colors()).track(images, box)
        assert found.shape == expected.shape and np.abs(found - expected).max() < 2


def test_settings_take_numpys_numbers_and_the_old_name():
    settings = Settings(object_size=np.float32(64), margin=np.int64(24), threads=np.int32(1))
    assert settings == Settings()
    for name, value in (
        ("threads", True),
        ("alpha", True),
        ("margin", "24"),
        ("object_size", np.nan),
        ("size_rate", 0),
        ("size_rate", 1.5),
        ("size_rate", True),
        ("scale_rate", -0.1),
        ("adapt", 1.5),
        ("adapt_rate", True),
        ("near", -0.1),
    ):
        with pytest.raises(ValueError, match=f"`{name}`"):
            Settings(**{name: value})
    with pytest.warns(DeprecationWarning, match="normalize"):
        assert Settings(normalise=False) == Settings(normalize=False)
    with pytest.warns(DeprecationWarning, match="normalize"):
        assert Settings().normalise is True


def test_several_targets_share_what_the_network_sees(monkeypatch):
    images, boxes = sequence(frames=6)
    seen = []
    features = Colors.features
    monkeypatch.setattr(Colors, "features", lambda self, x: seen.append(x[0, 0].numel()) or features(self, x))
    firsts = [boxes[0] + [dx, 0, 0, 0] for dx in (-8, 0, 8)]
    each = np.stack([SINTTracker(Colors()).track(images, first) for first in firsts], 1)
    pixels, seen[:] = sum(seen), []
    tracker = MultiTracker(Colors())
    found = tracker.track(images, firsts)
    assert found.shape == (6, 3, 4) and (found[0] == np.stack(firsts)).all()
    assert sum(seen) < 0.6 * pixels
    assert overlap(torch.from_numpy(found[:, 1]), torch.from_numpy(each[:, 1])).min() > 0.8
    assert tracker.similarity.shape == (3,) and tracker.lost.tolist() == [False] * 3


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_one_of_several_is_as_alone_where_nothing_is_shared(preset):
    images, boxes = sequence(frames=5)
    # Sizes so different that no window serves both; the paper's one window serves all, and is the same.
    firsts = np.stack([boxes[0], boxes[0] * [1, 1, 0.6, 0.6]])
    tracker = MultiTracker(Colors(), preset=preset)
    found = tracker.track(images, firsts)
    for n, first in enumerate(firsts):
        one = SINTTracker(Colors(), preset=preset)
        np.testing.assert_array_equal(found[:, n], one.track(images, first))
        assert tracker.similarity[n] == one.similarity and tracker.lost[n] == one.lost
    np.testing.assert_array_equal(
        MultiTracker(Colors()).track(iter(images), firsts[:1])[:, 0],
        SINTTracker(Colors()).track(images, firsts[0]),
    )


def test_windows_are_joined_where_that_is_less_work():
    near = [Window.of((x, 0), (100, 60), 0.5, 16) for x in (0, 20, 40)]
    far, other = Window.of((500, 400), (100, 60), 0.5, 16), Window.of((0, 0), (100, 60), 0.6, 16)
    views = Views(Colors(), np.zeros((480, 640, 3), np.uint8))
    views.share([*near, near[0], far, other], 16)
    assert len(views._planned) == 3 and {far, other} < set(views._planned)
    (joined,) = set(views._planned) - {far, other}
    assert all(joined.covers(window) for window in near) and not joined.covers(far)
    assert joined.pixels < sum(window.pixels for window in near)
    assert views.of(near[0]) is views.of(near[2]) is not views.of(far)


@pytest.mark.parametrize(
    "boxes, error, message",
    [
        ([], ValueError, r"`boxes` must be a box"),
        ([1, 2, 3, 4], ValueError, r"`boxes` must be a box"),
        (np.ones((2, 3)), ValueError, r"`boxes` must be a box"),
        (7, TypeError, r"`boxes` must be a box"),
        ([[1, 2, 30, 40], [1, 2, math.nan, 3]], ValueError, r"`boxes\[1\]` must be four finite numbers"),
        ([[1, 2, 30, 40], [900, 2, 3, 3]], ValueError, r"`boxes\[1\]` must lie in the frame of 200x160"),
    ],
)
def test_bad_boxes_of_several_targets(boxes, error, message):
    image = sequence(frames=1)[0][0]
    with pytest.raises(error, match=message):
        MultiTracker(Colors()).init(image, boxes)


def test_several_targets_are_begun_first_and_keep_their_size_of_frame():
    images, boxes = sequence(frames=2)
    tracker = MultiTracker(Colors())
    with pytest.raises(ValueError, match="`init` must be called"):
        tracker.update(images[0])
    tracker.init(images[0], boxes[:1])
    with pytest.raises(ValueError, match="`image` must be 200x160 as the first frame, got 100x160"):
        tracker.update(images[1][:, :100])
    assert tracker.update(images[1]).shape == (1, 4)
    with pytest.raises(ValueError, match="at least one frame"):
        tracker.track([], boxes[:1])


def test_query_stays_that_of_the_first_frame():
    images, truth = sequence(frames=4)
    tracker = SINTTracker(Colors())
    tracker.init(images[0], truth[0])
    before = tracker._query.clone()
    tracker.update(images[1])
    assert torch.equal(tracker._query, before)
    assert tracker.update(images[0]) is not None
    # Where the target looks as in the first frame the similarity is 1, the mean cosine with itself.
    tracker.init(images[0], truth[0])
    tracker.update(images[0])
    assert tracker.similarity == pytest.approx(1, abs=1e-5)


def test_the_search_learns_what_the_target_looks_like_and_nothing_while_it_is_lost():
    images, truth = sequence(frames=3)
    tracker = SINTTracker(Colors(), settings=Settings(adapt=0.5, adapt_rate=0.2))
    tracker.init(images[0], truth[0])
    assert torch.equal(tracker._sought_query, tracker._query)
    tracker.update((images[1] * 0.8).astype(np.uint8))
    learned = tracker._sought_query.clone()
    assert not tracker.lost and not torch.equal(learned, tracker._query)
    mixed = torch.lerp(tracker._query, tracker._recent, 0.5)
    torch.testing.assert_close(learned, mixed)
    tracker.update(255 - images[1])
    assert tracker.lost and torch.equal(tracker._sought_query, learned)
    plain = SINTTracker(Colors(), settings=Settings(adapt=0))
    plain.track(images, truth[0])
    assert torch.equal(plain._sought_query, plain._query)


def test_of_two_that_are_nearly_alike_the_nearer_is_taken(monkeypatch):
    images, truth = sequence(frames=2)

    def rising(self, features, boxes, query):
        center = (boxes[:, 1:3] + boxes[:, 3:]) / 2
        away = (center - center[0]).norm(dim=1)
        return 0.5 + 0.1 * away / away.max().clamp(min=1)

    monkeypatch.setattr(Colors, "match", rising)
    moved = []
    for near in (0.0, 0.2):
        tracker = SINTTracker(Colors(), settings=Settings(near=near, redetect=False))
        tracker.init(images[0], truth[0])
        tracker.update(images[1])
        step = tracker._box - tracker._first
        moved.append((step[:2] + step[2:] / 2).norm().item())
    assert moved[0] == pytest.approx(15) and 2.9 < moved[1] < 6.1


def test_search_goes_on_from_the_unrefined_candidate():
    images, truth = sequence(frames=4)
    tracker = SINTTracker(Colors(), settings=Settings(scale_rate=0))
    tracker.init(images[0], truth[0])
    for image in images[1:]:
        reported = tracker.update(image)
        sides = tracker._box[2:] / torch.as_tensor(truth[0][2:])
        assert min(abs(sides[0].item() - s) for s in Settings().scales) < 1e-9
    assert not np.allclose(reported, tracker._box.numpy())


# --------------------------------------------------------------------------------------- unusual and bad


@pytest.mark.parametrize(
    "box",
    [[-20, -10, 60, 40], [180, 140, 50, 50], [-50, -50, 300, 260], [99, 79, 1, 1], [50.4, 60.7, 0.01, 0.02], [0, 0, 200, 2]],
    ids=["left", "right", "larger than the frame", "one pixel", "tiny", "flat"],
)  # fmt: skip
@pytest.mark.parametrize("redetect", [False, True])
def test_odd_boxes_give_finite_ones(box, redetect):
    images, _ = sequence(frames=4)
    found = SINTTracker(Colors(), redetect=redetect).track(images, box)
    assert np.isfinite(found).all() and (found[:, 2:] > 0).all()


def test_target_that_leaves_the_frame():
    images, truth = sequence(frames=10)
    for t, image in enumerate(images):  # out to the left
        image[:] = np.roll(images[0], -8 * t, axis=1)
        image[:, 200 - 8 * t :] = 128
    found = SINTTracker(Colors(), redetect=True).track(images, truth[0])
    assert np.isfinite(found).all() and (found[:, 2:] > 0).all()
    assert (found[:, :2] < [200, 160]).all() and (found[:, :2] + found[:, 2:] > 0).all()


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (5, 300), (12, 12)])
def test_small_and_even_frames(size, plus):
    if plus:
        pytest.importorskip("cv2")
    frames = [np.full((*size, 3), 7, np.uint8)] * 3
    found = SINTTracker(Colors(), plus=plus, redetect=True).track(frames, [0, 0, 1, 1])
    assert np.isfinite(found).all() and (found[:, 2:] > 0).all()


@pytest.mark.parametrize(
    "box, message",
    [
        ([1, 2, 3], "four finite numbers"),
        ([1, 2, 3, 4, 5], "four finite numbers"),
        ([[1, 2, 3, 4]], "four finite numbers"),
        ([1, 2, 3, math.nan], "four finite numbers"),
        ([1, 2, math.inf, 4], "four finite numbers"),
        ("box", "four finite numbers"),
        (None, "four finite numbers"),
        (np.array([1, 2, None, 4]), "four finite numbers.* None, 4"),
        ([1, 2, 0, 4], "positive width and height"),
        ([1, 2, 3, -4], "positive width and height"),
        ([200, 2, 3, 4], "in the frame of 200x160"),
        ([-30, 2, 30, 4], "in the frame"),
        ([2, 160.5, 30, 4], "in the frame"),
        ([0, 0, 401, 4], "at most twice"),
    ],
)
def test_bad_boxes(box, message):
    images, _ = sequence(frames=1)
    with pytest.raises(ValueError, match=f"`box` must .*{message}"):
        SINTTracker(Colors()).init(images[0], box)


@pytest.mark.parametrize(
    "image, error",
    [
        (np.zeros((8, 8, 3), np.float32), ValueError),
        (np.zeros((8, 8, 4), np.uint8), ValueError),
        (np.zeros((2, 8, 8, 3), np.uint8), ValueError),
        (np.zeros((0, 8, 3), np.uint8), ValueError),
        (7, ValueError),
        (None, TypeError),
        (object, TypeError),
        ("nowhere.png", FileNotFoundError),
    ],
    ids=str,
)
def test_bad_images(image, error):
    with pytest.raises(error, match="`image` must be"):
        SINTTracker(Colors()).init(image, [1, 1, 4, 4])


def test_bad_calls(tmp_path):
    images, truth = sequence(frames=2)
    tracker = SINTTracker(Colors())
    with pytest.raises(ValueError, match="`init` must be called"):
        tracker.update(images[0])
    tracker.init(images[0], truth[0])
    with pytest.raises(ValueError, match="200x160 as the first frame, got 100x80"):
        tracker.update(images[1][::2, ::2])
    with pytest.raises(ValueError, match="at least one frame, got none"):
        tracker.track([], truth[0])
    with pytest.raises(TypeError, match="`frames` must be"):
        tracker.track(3, truth[0])
    with pytest.raises(FileNotFoundError, match="does not exist"):
        tracker.track(tmp_path / "nowhere", truth[0])
    with pytest.raises(ValueError, match="at least one image, got none"):
        tracker.track(tmp_path, truth[0])
    (tmp_path / "0001.png").write_bytes(b"\x89PNG nothing of the kind")
    with pytest.raises(ValueError, match=r"0001\.png must be an image"):
        tracker.track(tmp_path, truth[0])
    for name, value in (
        ("object_size", 0),
        ("margin", -1),
        ("alpha", 0.0),
        ("scales", ()),
        ("scales", (0.0,)),
    ):
        with pytest.raises(ValueError, match=f"`{name}`"):
            Settings(**{name: value})


# ------------------------------------------------------------------------------------------------ frames


def test_videos_are_read_and_written_one_by_one(tmp_path):
    pytest.importorskip("av")
    images, truth = sequence(frames=6)
    file = tmp_path / "made_up.mp4"
    with VideoWriter(file, 10) as writer:
        for image in images:
            writer.write(image[:159, :199])  # odd sides are made even
    frames = Frames(file)
    assert frames.count == 6 and frames.rate == pytest.approx(10)
    read = list(frames)
    assert len(read) == 6 and read[0].shape == (160, 200, 3)
    assert np.abs(read[3][:159, :199].astype(int) - images[3][:159, :199]).mean() < 6
    assert _iou(SINTTracker(Colors()).track(file, truth[0]), truth).mean() > 0.6
    with pytest.raises(RuntimeError, match="on purpose"), VideoWriter(tmp_path / "half.mp4") as writer:
        writer.write(images[0])
        raise RuntimeError("on purpose")
    assert not (tmp_path / "half.mp4").exists()


def test_bad_videos(tmp_path):
    pytest.importorskip("av")
    (tmp_path / "broken.mp4").write_bytes(b"not a video at all")
    (tmp_path / "empty.avi").write_bytes(b"")
    for name in ("broken.mp4", "empty.avi"):
        with pytest.raises(ValueError, match=name):
            Frames(tmp_path / name)


def test_writes_gif_and_nothing_else(tmp_path):
    pytest.importorskip("PIL")
    images, _ = sequence(frames=3)
    with VideoWriter(tmp_path / "found.gif", 10) as writer:
        for image in images:
            writer.write(image)
    read = np.stack(list(Frames(tmp_path / "found.gif")))
    assert read.shape == images.shape and np.abs(read.astype(int) - images).mean() < 8
    with pytest.raises(ValueError, match=r"`path` must end in \.gif or \.mp4"):
        VideoWriter(tmp_path / "found.webp")


def test_generated_sequence_has_the_truth_it_says():
    frames, boxes, hidden = generate_sequence(frames=30, height=120, width=160, target=24)
    assert frames.shape == (30, 120, 160, 3) and frames.dtype == torch.uint8
    assert boxes.shape == (30, 4) and boxes.dtype == torch.float64 and 2 <= hidden.sum() <= 8
    again = generate_sequence(frames=30, height=120, width=160, target=24)
    assert all(torch.equal(a, b) for a, b in zip((frames, boxes, hidden), again, strict=True))
    # The target's colors vary more than the background's: within the box and not beside it.
    x, y, w, h = boxes[0].round().int().tolist()
    own, beside = frames[0, y : y + h, x : x + w].double(), frames[0, y : y + h, x + w : x + 2 * w].double()
    assert own.std() > 1.5 * beside.std()
    for options in ({"frames": 1}, {"target": 7}, {"target": 70}):
        with pytest.raises(ValueError, match="must be at least"):
            generate_sequence(**options)


def test_the_papers_preset_has_its_constants(monkeypatch):
    images, truth = sequence(frames=3)
    tracker = SINTTracker(Colors(), preset="paper")
    assert tracker.settings == Settings.paper() and not tracker.redetect and tracker.settings.refine == 0
    assert tracker.settings.size_rate == 1 and tracker.settings.scale_rate == 0
    assert tracker.settings.adapt == tracker.settings.near == 0
    seen = []
    match = Colors.match
    monkeypatch.setattr(Colors, "match", lambda self, f, b, q: seen.append((f, b)) or match(self, f, b, q))
    tracker.init(images[0], truth[0])
    for image in images[1:]:
        last = tracker._box.clone()
        tracker.update(image)
        (features, rois), expected = seen.pop(), candidates(last, torch.from_numpy(truth[0]), 200)
        assert features[0].shape[-2:] == (128, 128) and len(rois) == len(expected) == 3 * (1 + 10 * 3)
        torch.testing.assert_close(rois[:, 1].double(), expected[:, 0] * 512 / 200, atol=1e-3, rtol=1e-5)
        assert not seen


def test_a_preset_is_known_and_alone():
    for options in ({"preset": "fast"}, {"preset": "paper", "settings": Settings()}):
        with pytest.raises(ValueError, match="`preset` must be"):
            SINTTracker(Colors(), **options)
    for options in (
        {"radius": -1},
        {"longest_side": 40},
        {"refine": -1},
        {"refine": True},
        {"search_gap": 0},
    ):
        with pytest.raises(ValueError, match=f"`{next(iter(options))}`"):
            Settings(**options)


def test_a_finer_search_finds_a_box_as_similar_or_more():
    images, truth = sequence(frames=2)
    found = []
    for refine in (0, 2):
        tracker = SINTTracker(Colors(), settings=Settings(refine=refine))
        tracker.init(images[0], truth[0])
        tracker.update(images[1])
        found.append(tracker.similarity)
    assert found[1] >= found[0]


def test_the_network_on_vgg16_sees_the_whole_frame():
    model = Colors()
    model.fc6 = torch.nn.Linear(1, 1)
    assert SINTTracker(model).settings == Settings.paper()
    assert SINTTracker(model, settings=Settings()).settings == Settings()


def test_pysots_adapter_takes_what_opencv_reads():
    from amstel.interop import pysot

    images, boxes = sequence(frames=3)
    gray = images.mean(3).astype(np.uint8)
    adapter, tracker = pysot.Tracker(SINTTracker(Colors()), origin=0), SINTTracker(Colors())
    adapter.init(gray[0], boxes[0])  # [H, W]: not to be turned round
    np.testing.assert_array_equal(adapter.track(gray[1])["bbox"], tracker.track(gray, boxes[0])[1])
    with pytest.raises(TypeError, match="`image` must be a PIL image or a uint8 array"):
        adapter.track(None)  # a file that could not be read
    with pytest.raises(ValueError, match="`image` must be a PIL image or a uint8 array"):
        adapter.track(np.zeros((160, 200, 4), np.uint8))


def test_image_array_kinds():
    gray = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for image in (gray, gray[..., None], torch.from_numpy(gray)):
        np.testing.assert_array_equal(image_array("image", image), np.stack([gray] * 3, 2))
    pil = pytest.importorskip("PIL.Image")
    np.testing.assert_array_equal(image_array("image", pil.fromarray(gray)), np.stack([gray] * 3, 2))
    alpha = pil.fromarray(np.full((2, 3, 4), 9, np.uint8), "RGBA")
    assert image_array("image", alpha).shape == (2, 3, 3)


# --------------------------------------------------------------------------------------------- real data


@pytest.mark.data
@pytest.mark.parametrize(
    "name, auc, precision", [("Crossing", 0.67, 1.0), ("Football1", 0.66, 1.0), ("Man", 0.88, 1.0)]
)
def test_shipped_weights_track_real_sequences(data_folder, name, auc, precision):
    """Not far from what Struck reaches on these three; the means over all sequences are in `amstel track eval`."""
    from amstel.data import OTBSequence
    from amstel.tracking import evaluate

    sequence = OTBSequence(data_folder / "tracking" / name)
    scores = evaluate(SINTTracker().track(sequence, sequence.ground_truth[0]), sequence.ground_truth)
    assert scores.auc > auc - 0.15 and scores.precision > precision - 0.15


@pytest.mark.data
def test_hidden_target_is_found_again(data_folder):
    """Jogging1: the target is hidden around frames 70 to 76, counted from 1."""
    from amstel.data import OTBSequence

    sequence = OTBSequence(data_folder / "tracking" / "Jogging1")[:90]
    found = SINTTracker(redetect=True).track(sequence, sequence.ground_truth[0])
    assert (_iou(found, sequence.ground_truth)[82:90] > 0.5).all()
