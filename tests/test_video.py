"""Videos: files, segments, flow, attention maps to boxes, scores, annotated pictures."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from amstel import video
from amstel.media.localize import _smooth

pytest.importorskip("cv2")
pytest.importorskip("av")
Image = pytest.importorskip("PIL.Image")
ndimage = pytest.importorskip("scipy.ndimage")

NAN = float("nan")


def ramp(count=6, height=32, width=32):
    """Smooth frames, which a lossy codec keeps, each brighter than the one before."""
    t, y, x = np.meshgrid(np.arange(count), np.arange(height), np.arange(width), indexing="ij")
    return torch.from_numpy(np.stack([20 + 20 * t, 3 * x + 60, 3 * y + 30], -1).clip(0, 255).astype(np.uint8))


def texture(height, width, seed=0):
    noise = np.random.default_rng(seed).standard_normal((height, width))
    smooth = ndimage.gaussian_filter(noise, 1.5, mode="wrap")
    return ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)


def blobs(height, width, *centers, sigma=1.0):
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return sum(w * torch.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2)) for cx, cy, w in centers)


# ------------------------------------------------------------------------------------------------- files


def test_strip_round_trip_is_exact(tmp_path):
    frames = torch.randint(256, (5, 16, 16, 3), dtype=torch.uint8)
    path = video.write(tmp_path / "strip.png", frames)
    assert Image.open(path).size == (80, 16)
    assert torch.equal(video.read(path), frames)


@pytest.mark.parametrize("name, mean, most", [("clip.gif", 3, 20), ("clip.mp4", 3, 25)])
def test_lossy_round_trip(tmp_path, name, mean, most):
    frames = ramp()
    error = (video.read(video.write(tmp_path / name, frames)).int() - frames).abs().float()
    assert error.mean() < mean and error.max() < most


def test_mp4_pads_odd_sides_by_repeating(tmp_path):
    frames = ramp(4, 31, 33)
    back = video.read(video.write(tmp_path / "odd.mp4", frames, fps=7.5))
    assert back.shape == (4, 32, 34, 3)
    assert (back[:, :31, :33].int() - frames).abs().float().mean() < 4
    assert (back[:, 31].int() - back[:, 30].int()).abs().max() < 12


def test_gif_keeps_equal_frames_and_few_colors(tmp_path):
    frames = torch.zeros(6, 8, 8, 3, dtype=torch.uint8)
    frames[1:4, :4] = torch.tensor([255, 0, 0], dtype=torch.uint8)
    frames[4] = 255
    assert torch.equal(video.read(video.write(tmp_path / "held.gif", frames)), frames)
    black = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    assert torch.equal(video.read(video.write(tmp_path / "black.gif", black)), black)


@pytest.mark.parametrize("fps, milliseconds", [(12, 80), (25, 40), (1000, 20)])
def test_gif_times(tmp_path, fps, milliseconds):
    path = video.write(tmp_path / "clip.gif", ramp(3), fps)
    assert Image.open(path).info["duration"] == milliseconds


def test_folder_of_frames_in_natural_order(tmp_path):
    frames = ramp(12)
    for t, frame in enumerate(frames):
        Image.fromarray(frame.numpy()).save(tmp_path / f"frame_{t}.png")
    (tmp_path / "notes.txt").write_text("no frame")
    assert torch.equal(video.read(tmp_path), frames)


def test_other_modes_come_as_rgb(tmp_path):
    Image.fromarray(np.full((4, 8), 7, np.uint8)).save(tmp_path / "gray.png")
    assert torch.equal(video.read(tmp_path / "gray.png"), torch.full((2, 4, 4, 3), 7, dtype=torch.uint8))
    Image.fromarray(np.full((4, 8, 4), 9, np.uint8)).save(tmp_path / "alpha.png")
    assert video.read(tmp_path / "alpha.png").shape == (2, 4, 4, 3)


def test_reading_explains_itself(tmp_path):
    def refused(name, message, error=ValueError):
        with pytest.raises(error, match=message) as caught:
            video.read(tmp_path / name)
        assert name in str(caught.value)

    refused("nothing.mp4", "does not exist", FileNotFoundError)
    (tmp_path / "empty").mkdir()
    refused("empty", "at least one frame, got none")
    for name in ("broken.avi", "broken.gif", "broken.png"):
        (tmp_path / name).write_bytes(b"this is no picture")
        refused(name, "that can be read")
    (tmp_path / "zero.mp4").write_bytes(b"")
    refused("zero.mp4", "that can be read")
    Image.new("RGB", (65, 32)).save(tmp_path / "uneven.png")
    refused("uneven.png", "multiple of its height, got 65x32")
    (tmp_path / "sizes").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "sizes" / "0.png")
    Image.new("RGB", (9, 8)).save(tmp_path / "sizes" / "1.png")
    refused("sizes", "must be 8x8 .* got 9x8")


def test_truncated_video(tmp_path):
    path = video.write(tmp_path / "clip.mp4", ramp())
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(ValueError, match=r"clip\.mp4 must"):
        video.read(path)


def test_a_file_with_sound_only(tmp_path):
    import wave

    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(8000)
        file.writeframes(b"\0\0" * 800)
    with pytest.raises(ValueError, match=r"sound\.wav must hold a video"):
        video.read(tmp_path / "sound.wav")


def test_writing_explains_itself(tmp_path):
    with pytest.raises(ValueError, match=r"end in \.gif, \.mp4 or \.png, got '.*clip\.webm'"):
        video.write(tmp_path / "clip.webm", ramp())
    with pytest.raises(ValueError, match=r"`frames` must be a uint8 tensor .* got float32"):
        video.write(tmp_path / "clip.gif", ramp().float())
    with pytest.raises(ValueError, match="not empty"):
        video.write(tmp_path / "clip.gif", ramp()[:0])
    with pytest.raises(TypeError, match="`frames` must be"):
        video.write(tmp_path / "clip.gif", ramp().numpy())
    with pytest.raises(ValueError, match="`fps` must be a positive number, got 0"):
        video.write(tmp_path / "clip.gif", ramp(), fps=0)
    with pytest.raises(ValueError, match="square for a strip"):
        video.write(tmp_path / "clip.png", ramp(2, 8, 9))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        video.write(tmp_path / "nowhere" / "clip.gif", ramp())


def test_import_needs_none_of_the_extra():
    """Only a call asks for it, and says how to get it."""
    code = """if True:
        import sys
        for name in ("cv2", "av", "scipy", "scipy.ndimage", "PIL", "PIL.Image"):
            sys.modules[name] = None
        import torch, amstel
        for call in (
            lambda: amstel.video.read(__import__("os").__file__),
            lambda: amstel.video.flow(torch.zeros(2, 16, 16, 3, dtype=torch.uint8)),
            lambda: amstel.video.localize(torch.rand(1, 7, 7), (70, 70)),
            lambda: amstel.video.annotate(torch.zeros(2, 16, 16, 3, dtype=torch.uint8)),
        ):
            try:
                call()
                raise SystemExit("no error")
            except ImportError as error:
                assert 'pip install "amstel[video]"' in str(error), error
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_segments():
    assert video.segments(10, 4, 3).tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    made = video.segments(200, 30)
    assert made.shape == (25, 30) and made.dtype == torch.int64
    assert made[0, 0] == 0 and made[-1, -1] == 199
    assert set(made[:, 0].diff().tolist()) <= {7, 8} and (made.diff(dim=1) == 1).all()
    assert video.segments(3, 5, 2).tolist() == [[0, 1, 2, 2, 2]] * 2
    assert video.segments(5, 5, 1).tolist() == [[0, 1, 2, 3, 4]]
    for bad in [(0, 1, 1), (5, 0, 1), (5, 1, 0), (5.0, 1, 1), (5, True, 1)]:
        with pytest.raises(ValueError, match="must be an integer >= 1"):
            video.segments(*bad)


# -------------------------------------------------------------------------------------------------- flow


@pytest.mark.parametrize("method", ["dis", "farneback"])
@pytest.mark.parametrize("dx, dy", [(2, 0), (0, -3), (-2, 1)])
def test_flow_of_a_shifted_texture(method, dx, dy):
    gray = texture(64, 80)
    frames = np.stack([np.roll(gray, (t * dy, t * dx), (0, 1)) for t in range(3)])
    flow = video.flow(torch.from_numpy(np.repeat(frames[..., None], 3, -1)), method)
    assert flow.shape == (3, 2, 64, 80) and flow.dtype == torch.float32
    inner = flow[:, :, 12:-12, 12:-12]
    expected = torch.tensor([dx, dy]).view(1, 2, 1, 1).expand_as(inner).float()
    assert (inner - expected).abs().mean() < 0.1
    assert torch.equal(flow[2], flow[1])


def test_flow_of_one_frame_and_bad_input():
    assert torch.equal(video.flow(ramp(1)), torch.zeros(1, 2, 32, 32))
    with pytest.raises(ValueError, match='`method` must be "dis" or "farneback", got \'tvl1\''):
        video.flow(ramp(), "tvl1")
    with pytest.raises(ValueError, match="at least 16 pixels"):
        video.flow(ramp(2, 15, 40))
    for size in (16, 17, 23):
        assert video.flow(ramp(2, size, 16)).shape == (2, 2, size, 16)
    with pytest.raises(ValueError, match="`frames`"):
        video.flow(ramp()[0])


def test_flow_images():
    flow = torch.tensor([[-20.0, 0, 20, 99], [-99.0, 10, 0, 20]]).T.reshape(4, 2, 1, 1)
    assert video.flow_image(flow).view(4, 3).tolist() == [
        [0, 0, 255],
        [128, 191, 128],
        [255, 128, 255],
        [255, 255, 255],
    ]
    assert video.flow_image(flow, bound=40).view(4, 3)[0].tolist() == [64, 0, 255]
    with pytest.raises(ValueError, match="no NaN"):
        video.flow_image(flow * NAN)
    with pytest.raises(ValueError, match="`flow` must be"):
        video.flow_image(flow[:, :1])
    with pytest.raises(ValueError, match="`bound` must be a positive number"):
        video.flow_image(flow, bound=-1)


def test_read_flow_images(tmp_path):
    flow = (torch.rand(3, 2, 8, 8) - 0.5) * 30
    pictures = video.flow_image(flow)
    for t, picture in enumerate(pictures.numpy(), 1):
        for axis, name in enumerate("xy"):
            Image.fromarray(picture[..., axis]).save(tmp_path / f"flow_{name}_{t:04d}.png")
    back = video.read_flow_images(tmp_path)
    assert back.shape == flow.shape and back.dtype == torch.float32
    assert (back - flow).abs().max() <= 20 / 255 + 1e-5
    (tmp_path / "flow_y_0002.png").unlink()
    with pytest.raises(ValueError, match="one of them for 2"):
        video.read_flow_images(tmp_path)
    Image.new("L", (9, 8)).save(tmp_path / "flow_y_0002.png")
    with pytest.raises(ValueError, match="one size"):
        video.read_flow_images(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        video.read_flow_images(tmp_path / "nowhere")
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="got none"):
        video.read_flow_images(tmp_path / "none")


def test_flow_images_are_one_pair_a_number(tmp_path):
    for t in (8, 9, 10):
        for name, level in (("x", 10 * t), ("Y", 10 * t + 5)):
            Image.new("L", (8, 8), level).save(tmp_path / f"flow_{name}_{t}.PNG")
    back = video.read_flow_images(tmp_path, bound=127.5)
    assert back[:, :, 0, 0].tolist() == [[10 * t - 127.5, 10 * t - 122.5] for t in (8, 9, 10)]
    Image.new("L", (8, 8)).save(tmp_path / "flow_x_009.jpg")
    with pytest.raises(ValueError, match=r"flow_x_\S+ and flow_x_\S+ for 9"):
        video.read_flow_images(tmp_path)
    for name in ("flow_x_009.jpg", "flow_x_9.PNG", "flow_Y_9.PNG"):
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match="pairs 8 to 10 without a gap, got none for 9"):
        video.read_flow_images(tmp_path)


@pytest.mark.parametrize("other", ["frame_1.jpg", "frame_01.png", "Frame_1.bmp"])
def test_a_folder_holds_one_image_a_frame(tmp_path, other):
    for k in (2, 10, 1):
        Image.new("RGB", (8, 8), (k, k, k)).save(tmp_path / f"frame_{k}.png")
    assert video.read(tmp_path)[:, 0, 0, 0].tolist() == [1, 2, 10]  # a number may lack
    Image.new("RGB", (8, 8)).save(tmp_path / other)
    with pytest.raises(ValueError, match=r"one image per frame, got \S+ and \S+ for one frame"):
        video.read(tmp_path)


# -------------------------------------------------------------------------------- attention maps to boxes


def test_localize_finds_a_blob():
    """A Gaussian at half its height: a disc of radius sigma sqrt(2 ln 2)."""
    box = video.localize(blobs(60, 80, (50, 20, 3.0), sigma=5)[None], (60, 80), sigma=0)[0]
    radius = 5 * math.sqrt(2 * math.log(2))
    expected = torch.tensor([50 - radius, 20 - radius, 50 + radius, 20 + radius])
    assert (box - expected).abs().max() <= 1
    # Twice as large a frame, twice as large a box; more smoothing, a larger box.
    double = video.localize(blobs(60, 80, (50, 20, 3.0), sigma=5)[None], (120, 160), sigma=0)[0]
    assert (double - 2 * expected).abs().max() <= 2
    wide = video.localize(blobs(60, 80, (50, 20, 3.0), sigma=5)[None], (60, 80), sigma=5)[0]
    assert (wide - torch.tensor([50, 20, 50, 20])).abs().min() > radius + 1
    # The scale of the attention has no meaning, down to what a softmax leaves.
    for scale in (1e-30, 1e30):
        again = video.localize(
            blobs(60, 80, (50, 20, 3.0), sigma=5).double()[None] * scale, (60, 80), sigma=0
        )
        assert torch.equal(again[0], box)


def test_localize_follows_the_right_blob():
    """The first frame takes the heavier blob; later the other grows heavier but overlaps nothing."""
    maps = torch.stack(
        [
            blobs(14, 14, (3 + t / 2, 3, 1.0 if t < 2 else 0.85), (10.5, 10.5, 0.8 if t < 2 else 1.0))
            for t in range(9)
        ]
    )
    boxes = video.localize(maps, (140, 140), threshold=0.6)
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    expected = torch.stack([30 + 5 * torch.arange(9.0), torch.full((9,), 30.0)], 1)
    assert (center - expected).abs().max() < 3
    # Told where to begin, it follows the other.
    other = video.localize(maps, (140, 140), threshold=0.6, initial=(95, 95, 115, 115))
    assert ((other[:, :2] + other[:, 2:]) / 2 - 105).abs().max() < 3
    # Begun with the third frame it takes the one that is heavier there.
    late = video.localize(maps[2:], (140, 140), threshold=0.6)
    assert ((late[:, :2] + late[:, 2:]) / 2 - 105).abs().max() < 3


def test_localize_weighs_by_mass_not_by_peak():
    maps = torch.zeros(1, 10, 10)
    maps[0, 1, 1] = 1.0
    maps[0, 5:8, 5:8] = 0.8
    assert video.localize(maps, (10, 10), sigma=0).tolist() == [[5, 5, 8, 8]]


def test_localize_joins_diagonal_neighbors():
    maps = torch.zeros(1, 8, 8)
    maps[0, 2, 2] = maps[0, 3, 3] = 1
    assert video.localize(maps, (8, 8), sigma=0).tolist() == [[2, 2, 4, 4]]


def test_localize_threshold():
    maps = torch.tensor([[[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]]])
    for threshold, left in ((0, 0), (0.39, 2), (0.5, 3), (1, 5)):
        box = video.localize(maps, (1, 6), sigma=0, threshold=threshold)
        assert box.tolist() == [[left, 0, 6, 1]]
    # Of the range, not of the largest value.
    assert video.localize(maps + 10, (1, 6), sigma=0).tolist() == [[3, 0, 6, 1]]


@pytest.mark.parametrize("value", [0.0, 1 / 49, 1e6])
def test_constant_maps_give_the_whole_frame(value):
    maps = torch.full((3, 7, 7), value)
    maps[1] += 1e-6 * value * torch.rand(7, 7)
    assert video.localize(maps, (30, 40)).tolist() == [[0, 0, 40, 30]] * 3


def test_a_constant_map_does_not_lose_the_track():
    maps = torch.stack([blobs(14, 14, (3, 3, 1.0), (10, 10, 0.9))] * 3)
    maps[1] = 1
    maps[2] = blobs(14, 14, (3, 3, 0.9), (10, 10, 1.0))
    boxes = video.localize(maps, (14, 14), span=1)
    assert boxes[1].tolist() == [0, 0, 14, 14]
    assert torch.equal(boxes[0, :2] < 4, torch.tensor([True, True])) and (boxes[2, 2:] < 6).all()


def test_smoothing_keeps_straight_motion_and_damps_the_rest():
    straight = torch.arange(12.0)[:, None] * torch.tensor([1.0, -2.0]) + 5
    for span in (2, 5, 6, 12, 99):
        torch.testing.assert_close(_smooth(straight.double(), span), straight.double())
    rough = straight.double() + torch.tensor([1.0, -1.0]).double().repeat(6)[:, None]
    assert (_smooth(rough, 9) - straight)[3:-3].abs().max() < 0.25
    assert torch.equal(_smooth(rough, 1), rough)
    # Against a least-squares line by NumPy at one frame.
    values = np.random.default_rng(0).standard_normal(12)
    d = np.arange(3, 8) - 5
    weight = (1 - (abs(d) / 3) ** 3) ** 3
    slope_and_value = np.polyfit(d, values[3:8], 1, w=np.sqrt(weight))
    assert np.isclose(_smooth(torch.from_numpy(values)[:, None], 5)[5, 0], slope_and_value[1])


def test_tracks_are_smoothed_apart():
    maps = torch.stack([blobs(14, 14, (3, 3, 1.0))] * 5 + [blobs(14, 14, (11, 11, 1.0))] * 5)
    raw = video.localize(maps, (14, 14), span=1)
    torch.testing.assert_close(video.localize(maps, (14, 14)), raw)
    assert (video.localize(maps, (14, 14), split=False) - raw)[4:6].abs().max() > 1


def test_boxes_stay_inside_and_are_never_empty():
    # A blob that leaves fast: the regression alone would run out of the frame.
    maps = torch.stack([blobs(7, 7, (6.9 - 1.5 * max(0, 4 - t), 3.5, 1.0), sigma=0.7) for t in range(8)])
    for threshold in (0.3, 0.5, 1.0):
        boxes = video.localize(maps, (21, 35), threshold=threshold)
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= 35).all() and (boxes[:, 3] <= 21).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= 1).all()
    torch.manual_seed(0)
    boxes = video.localize(torch.rand(20, 7, 7).bfloat16(), (5, 3))
    assert boxes.dtype == torch.float32
    assert (boxes[:, 2:] - boxes[:, :2] >= 1).all() and (boxes >= 0).all()


def test_localize_takes_gradient_and_any_layout():
    maps = torch.rand(7, 7, 4, requires_grad=True).permute(2, 0, 1)
    assert torch.equal(video.localize(maps, (28, 28)), video.localize(maps.detach().contiguous(), (28, 28)))


@pytest.mark.parametrize(
    "maps, size, options, message",
    [
        (torch.rand(7, 7), (28, 28), {}, r"`attention` must be .* got float32 \[7, 7\]"),
        (torch.rand(0, 7, 7), (28, 28), {}, "at least one frame"),
        (torch.ones(2, 7, 7, dtype=torch.int64), (28, 28), {}, "floating"),
        (torch.full((1, 2, 2), NAN), (28, 28), {}, "finite and not negative"),
        (torch.full((1, 2, 2), math.inf), (28, 28), {}, "finite and not negative"),
        (-torch.rand(1, 7, 7), (28, 28), {}, "not negative"),
        (torch.rand(1, 7, 7), (28, 0), {}, "`frame_size` must be"),
        (torch.rand(1, 7, 7), (28, -1), {}, "`frame_size` must be"),
        (torch.rand(1, 7, 7), (28.5, 28), {}, "`frame_size` must be"),
        (torch.rand(1, 7, 7), (28, 28, 3), {}, "`frame_size` must be"),
        (torch.rand(1, 7, 7), 28, {}, "`frame_size` must be"),
        (torch.rand(1, 7, 7), (28, NAN), {}, "`frame_size` must be"),
        (torch.rand(1, 7, 7), (28, 28), {"sigma": -1}, "`sigma` must be"),
        (torch.rand(1, 7, 7), (28, 28), {"threshold": 1.1}, "`threshold` must be in"),
        (torch.rand(1, 7, 7), (28, 28), {"threshold": NAN}, "`threshold` must be"),
        (torch.rand(1, 7, 7), (28, 28), {"span": 0}, "`span` must be"),
        (torch.rand(1, 7, 7), (28, 28), {"span": 2.5}, "`span` must be"),
        (torch.rand(1, 7, 7), (28, 28), {"initial": (1, 2, 3)}, "`initial` must be"),
        (torch.rand(1, 7, 7), (28, 28), {"initial": (1, 2, 3, NAN)}, "`initial` must be"),
        (torch.rand(1, 7, 7), (28, 28), {"initial": (1, None, 3, 4)}, "`initial` must be .* got .*None"),
        (torch.rand(1, 7, 7), (28, 28), {"initial": "box"}, "`initial` must be"),
    ],
)
def test_localize_explains_itself(maps, size, options, message):
    with pytest.raises(ValueError, match=message):
        video.localize(maps, size, **options)


def test_localize_wants_a_tensor():
    with pytest.raises(TypeError, match="`attention` must be"):
        video.localize(np.ones((1, 7, 7)), (28, 28))


# ------------------------------------------------------------------------------------------------- scores


def test_box_iou():
    torchvision = pytest.importorskip("torchvision", exc_type=ImportError)
    low = torch.rand(30, 2) * 10
    a = torch.cat([low, low + torch.rand(30, 2) * 5], 1)
    torch.testing.assert_close(video.box_iou(a[:, None], a[None]), torchvision.ops.box_iou(a, a))


def test_box_iou_by_hand():
    a = torch.tensor([0.0, 0, 4, 2])
    b = torch.tensor([[0, 0, 4, 2], [2, 1, 6, 3], [4, 0, 8, 2], [1, 1, 1, 1], [NAN] * 4, [3, 2, 1, 0]])
    torch.testing.assert_close(video.box_iou(a, b), torch.tensor([1, 2 / 14, 0, 0, NAN, 0]), equal_nan=True)
    assert video.box_iou(torch.zeros(4), torch.zeros(4)) == 0
    with pytest.raises(ValueError, match="`b` must be"):
        video.box_iou(a, b[:, :3])
    with pytest.raises(ValueError, match="`a` must be"):
        video.box_iou(a.long(), b)


def test_tube_iou():
    box, gone = [0.0, 0, 2, 2], [NAN] * 4
    a = torch.tensor([box, box, gone, gone])
    b = torch.tensor([box, gone, box, gone])
    assert video.tube_iou(a, b) == pytest.approx(1 / 3)
    assert video.tube_iou(a, a) == 1
    assert video.tube_iou(a[2:], a[2:]) == 0
    with pytest.raises(ValueError, match=r"\[T, 4\]"):
        video.tube_iou(a, b[:2])


def test_recall():
    iou = torch.tensor([0.05, 0.1, 0.3, 0.45, 0.9], dtype=torch.float64)
    torch.testing.assert_close(
        video.recall(iou), torch.tensor([0.8, 0.6, 0.6, 0.4, 0.2], dtype=torch.float64)
    )
    for bad in (torch.tensor([]), torch.tensor([0.1, NAN])):
        with pytest.raises(ValueError, match="`iou` must be"):
            video.recall(bad)


def test_average_precision_by_hand():
    scores = torch.tensor([0.5, 0.9, 0.7, 0.8, 0.6])
    correct = torch.tensor([True, True, True, False, False])
    # In order: right, wrong, right, wrong, right: precisions 1, 1/2, 2/3, 2/4, 3/5; made to fall 1, 2/3, 2/3, 3/5, 3/5.
    assert video.average_precision(scores, correct, 3) == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    assert video.average_precision(scores, correct, 6) == pytest.approx((1 + 2 / 3 + 3 / 5) / 6)
    assert video.average_precision(scores[:0], correct[:0], 2) == 0
    assert video.average_precision(torch.ones(2), torch.tensor([False, True]), 1) == 0.5
    for bad in [
        (scores * NAN, correct, 3),
        (scores, correct[:2], 3),
        (scores, correct.float(), 3),
        (scores, correct, 0),
    ]:
        with pytest.raises(ValueError, match="must be"):
            video.average_precision(*bad)


def test_average_precision_is_a_ranking_score():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    scores, correct = rng.random(40), rng.random(40) < 0.4
    precision, recalled, _ = metrics.precision_recall_curve(correct, scores)
    precision = np.maximum.accumulate(precision)  # by falling recall
    expected = -np.sum(np.diff(recalled) * precision[:-1])
    ours = video.average_precision(torch.from_numpy(scores), torch.from_numpy(correct), int(correct.sum()))
    assert ours == pytest.approx(expected)


def test_mean_average_precision_by_hand():
    """Class 0: two truths, one found twice; class 1: found only at a low threshold; class 2: no truth."""
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.95])
    classes = torch.tensor([0, 0, 0, 1, 2])
    truth_classes = torch.tensor([0, 0, 1])
    iou = torch.tensor([[0.6, 0, 0.9], [0.7, 0, 0], [0, 0.45, 0], [0.9, 0.9, 0.25], [1, 1, 1]])
    first = 0.5 * (1 + 2 / 3)
    expected = torch.tensor([(first + 1) / 2, (first + 1) / 2, first / 2, first / 2, 0.5 / 2])
    torch.testing.assert_close(video.mean_average_precision(scores, classes, iou, truth_classes), expected)
    # Order of the detections does not matter.
    order = torch.tensor([3, 0, 4, 2, 1])
    again = video.mean_average_precision(scores[order], classes[order], iou[order], truth_classes)
    torch.testing.assert_close(again, expected)


def test_mean_average_precision_edges():
    none = video.mean_average_precision(
        torch.zeros(0), torch.zeros(0).long(), torch.zeros(0, 1), torch.zeros(1).long()
    )
    assert none.tolist() == [0] * 5
    one, zero = torch.ones(1), torch.zeros(1).long()
    for bad, message in [
        ((one, zero, torch.ones(1, 2), zero), "`iou` must be"),
        ((one, zero, torch.full((1, 1), NAN), zero), "`iou` must be"),
        ((one, zero[:0], torch.ones(1, 1), zero), "`classes` must be"),
        ((one, zero, torch.ones(1, 0), zero[:0]), "`truth_classes` must be"),
        ((one[None], zero, torch.ones(1, 1), zero), "`scores` must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            video.mean_average_precision(*bad)


# ----------------------------------------------------------------------------------------------- pictures


def test_annotate_alone_enlarges():
    frames = ramp(2, 64, 96)
    pictures = video.annotate(frames)
    assert pictures.shape == (2, 256, 384, 3)
    assert torch.equal(pictures[:, ::4, ::4], frames)
    assert torch.equal(video.annotate(frames, scale=1), frames)
    assert video.annotate(ramp(1, 300, 400)).shape == (1, 300, 400, 3)


def test_annotate_draws():
    frames = torch.full((3, 64, 64, 3), 90, dtype=torch.uint8)
    boxes = torch.tensor([[8.0, 16, 40, 48]] * 3)
    truth = boxes + 8
    truth[1] = NAN
    pictures = video.annotate(frames, boxes=boxes, truth=truth, caption=["one", "two", "three"])
    assert pictures.shape[0] == 3 and pictures.shape[1] > 256 and pictures.shape[2] == 256
    assert pictures[0, 64, 100].tolist() == list(video.FOUND)  # the upper side of the box
    assert (pictures[0, 128, 30:35].int() - torch.tensor(video.FOUND)).abs().sum(1).min() == 0
    white = (pictures[:, :256] == 255).all(-1).flatten(1).sum(1)
    assert white[0] > 100 and white[1] == 0
    assert not torch.equal(pictures[0, 256:], pictures[2, 256:])  # other captions
    assert pictures[0, 200, 200].tolist() == [90, 90, 90]


def test_annotate_heats_where_attention_is():
    frames = torch.full((2, 64, 64, 3), 90, dtype=torch.uint8)
    maps = torch.stack([blobs(7, 7, (5.5, 1.5, 1e-4)), torch.full((7, 7), 1 / 49)])
    hot, flat = video.annotate(frames, maps).int()
    assert (flat == 90).all()
    row, column = divmod(int((hot - 90).abs().sum(-1).argmax()), 256)
    assert abs(row - 1.5 / 7 * 256) < 20 and abs(column - 5.5 / 7 * 256) < 20
    assert (hot[200:, :50] - 90).abs().max() < 5


def test_boxes_at_the_border_are_seen_whole():
    frames = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    picture = video.annotate(frames, boxes=torch.tensor([[-5.0, 0, 64, 80]]))[0]
    lines = (picture == torch.tensor(video.FOUND, dtype=torch.uint8)).all(-1)
    assert lines[:4].any(0).sum() > 240 and lines[-4:].any(0).sum() > 240
    assert lines[:, :4].any(1).sum() > 240 and lines[:, -4:].any(1).sum() > 240


@pytest.mark.parametrize(
    "options, message",
    [
        ({"attention": torch.rand(1, 7, 7)}, "`attention` must be"),
        ({"attention": torch.full((2, 7, 7), NAN)}, "`attention` must be finite"),
        ({"boxes": torch.rand(3, 4)}, r"`boxes` must be \[2, 4\]"),
        ({"truth": torch.rand(2, 5)}, "`truth` must be"),
        ({"caption": ["one"]}, "`caption` must be one line or 2"),
        ({"scale": 0}, "`scale` must be"),
    ],
)
def test_annotate_explains_itself(options, message):
    with pytest.raises(ValueError, match=message):
        video.annotate(ramp(2), **options)


# ---------------------------------------------------------------------------------------------- real data


@pytest.mark.data
@pytest.mark.parametrize("method", ["dis", "farneback"])
def test_flow_agrees_with_the_published_images(data_folder, method):
    """TV-L1 images of the UCF101 clip, a panning camera: the motion of the stands, where TV-L1 found it."""
    folder = data_folder / "video" / "ucf101_clip"
    published = video.read_flow_images(folder / "tvl1_gpu")
    assert published.shape == (73, 2, 256, 340)
    frames = video.read(folder / "v_BasketballDunk_g17_c03.avi")
    assert frames.shape == (74, 240, 320, 3)
    ours = video.flow(frames[20:36], method)[:-1, :, 30:160].flatten(2).median(-1).values
    theirs = published[20:35, :, 32:170].flatten(2).median(-1).values * torch.tensor([320 / 340, 240 / 256])
    error = (ours - theirs).abs().amax(1)
    assert error.median() < 0.3
    assert (error < 0.5).sum() >= 10


@pytest.mark.data
def test_read_is_the_same_as_the_strip(data_folder):
    path = data_folder / "video" / "weizmann4" / "wave1" / "s0.png"
    frames = video.read(path)
    picture = torch.from_numpy(np.asarray(Image.open(path)).copy())
    assert len(frames) == 61
    for t in (0, 7, 60):
        assert torch.equal(frames[t], picture[:, 64 * t : 64 * t + 64])
