"""Files as cameras and people write them: every kind is made here, and read right or refused with its name."""

import math
import os
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from amstel import video
from amstel.media import boxes, fonts, formats, gif, images, localize, points, reading, scores, strips
from amstel.media.reading import Frames
from amstel.media.writing import VideoWriter
from tests import test_pictures

av = pytest.importorskip("av")
Image = pytest.importorskip("PIL.Image")

NAN = math.nan


def scene(height=32, width=48, step=0):
    """No symmetry: red at the upper left, blue at the bottom, green that grows with `step`."""
    picture = np.full((height, width, 3), (40, 60 + 10 * step, 40), np.uint8)
    picture[: height // 4, : width // 3] = (220, 20, 20)
    picture[-height // 4 :] = (20, 20, 220)
    return picture


def encode(
    path, frames=None, codec="mpeg4", rate=10, times=None, container=None, prepare=None, pixels="yuv420p"
):
    """A file of PyAV itself, so that reading is tested apart from our writer."""
    frames = [scene(step=t) for t in range(6)] if frames is None else frames
    with av.open(f"file:{path}", "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if prepare is not None:
            prepare(stream)
        for t, frame in enumerate(frames):
            coded = av.VideoFrame.from_ndarray(frame, format="rgb24")
            clock = Fraction(1, rate) if times is None else Fraction(1, 1000)
            coded.pts, coded.time_base = (t if times is None else round(1000 * times[t])), clock
            file.mux(stream.encode(coded))
        file.mux(stream.encode(None))
    return path


def close(found, expected, most=25):
    """Up to a lossy codec."""
    found = np.asarray(found)
    return found.shape == expected.shape and np.abs(found.astype(int) - expected).mean() < most / 3


# ------------------------------------------------------------------------------------------------ pictures


def test_sixteen_bits_are_scaled_and_not_cut(tmp_path):
    values = np.linspace(0, 65535, 40 * 30).round().astype(np.uint16).reshape(30, 40)
    expected = np.rint(values / 257)
    for name in ("a.png", "a.tif", "a.pgm"):
        Image.fromarray(values).save(tmp_path / name)
        found = images.read(tmp_path / name)
        assert found.dtype == np.uint8 and found.shape == (30, 40, 3)
        assert (np.abs(found.astype(int) - expected[..., None]) <= 1).all()
        np.testing.assert_array_equal(Frames(tmp_path / name).__iter__().__next__(), found)
        np.testing.assert_array_equal(video.read(tmp_path / name)[0], found)
    np.testing.assert_array_equal(images.image_array("image", Image.fromarray(values)), found)
    cv2 = pytest.importorskip("cv2")
    color = np.stack([values, values[::-1], values[:, ::-1]], -1)
    cv2.imwrite(str(tmp_path / "rgb.png"), color[..., ::-1])
    np.testing.assert_array_equal(images.read(tmp_path / "rgb.png"), np.rint(color / 257))
    # Color as gray, in every layout of a TIFF (OpenCV packs it with LZW), and white where the file says that it is.
    tifffile = pytest.importorskip("tifffile")
    cv2.imwrite(str(tmp_path / "lzw.tif"), color[..., ::-1])
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([color, color]), photometric="rgb")
    planes = np.moveaxis(color, -1, 0)
    tifffile.imwrite(tmp_path / "planes.tif", planes, photometric="rgb", planarconfig="separate")
    for name, many in (("lzw.tif", 1), ("pages.tif", 2), ("planes.tif", 1)):
        np.testing.assert_array_equal(video.read(tmp_path / name)[many - 1], np.rint(color / 257))
        assert len(video.read(tmp_path / name)) == many
    tifffile.imwrite(tmp_path / "white.tif", values, photometric="miniswhite")
    np.testing.assert_array_equal(
        images.read(tmp_path / "white.tif")[..., 1], np.rint((65535 - values) / 257)
    )
    tifffile.imwrite(tmp_path / "sign.tif", (values >> 9).astype(np.int8))
    with pytest.raises(ValueError, match=r"sign\.tif .* 8 bits with a sign"):
        images.read(tmp_path / "sign.tif")
    # One gray value of a PNG may be transparent, and that lies on black.
    clear = tmp_path / "clear.png"
    Image.fromarray(values).save(clear, transparency=65535)
    assert images.read(clear)[-1, -1, 0] == 0 and images.read(clear)[-1, -2, 0] == 255


def test_floating_point_is_between_black_and_white_or_refused(tmp_path):
    values = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    Image.fromarray(values).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(images.read(tmp_path / "a.tif")[..., 1], np.rint(255 * values))
    for bad in (values * 255, values - 0.5, values * np.nan):
        Image.fromarray(bad).save(tmp_path / "b.tiff")
        with pytest.raises(ValueError, match=r"b\.tiff must be an image .* floating point"):
            images.read(tmp_path / "b.tiff")
    Image.fromarray(np.full((3, 4), 70000, np.int32)).save(tmp_path / "c.tif")
    with pytest.raises(ValueError, match=r"c\.tif must be .* 32 bits"):
        video.read(tmp_path / "c.tif")


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_folders_of_images_to_train_on(tmp_path, mode):
    """amstel.data.ImageFolder: what is 8 bits is as Pillow has it, the rest as a viewer shows it."""
    from amstel.data import ImageFolder

    values = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.fromarray(scene()).save(tmp_path / "b.png")
    Image.fromarray(scene()).save(tmp_path / "c.png", exif=exif)
    (tmp_path / "._b.png").write_bytes(b"x")
    folder = ImageFolder(tmp_path, mode)
    assert [path.name for path in folder.paths] == ["a.png", "b.png", "c.png"]
    deep = folder[0] if mode == "L" else folder[0][..., 1]
    assert (np.abs(deep - values / 257) <= 1).all()
    expected = np.asarray(Image.fromarray(scene()).convert(mode))
    np.testing.assert_array_equal(folder[1], expected)
    np.testing.assert_array_equal(folder[2], np.rot90(expected, -1))
    (tmp_path / "b.png").write_bytes(b"x")
    with pytest.raises(OSError, match=r"b\.png"):
        folder[1]


def upright(picture, orientation):
    """What Exif's eight orientations mean, in words of NumPy."""
    turns = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: np.rot90,
    }
    return turns[orientation](picture)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_exif_orientation(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    options = {"quality": 95} if name == "a.jpg" else {"lossless": True} if name == "a.webp" else {}
    Image.fromarray(scene()).save(tmp_path / name, exif=exif, **options)
    expected = upright(scene(), orientation)
    assert close(images.read(tmp_path / name), expected, 10)
    assert close(next(iter(Frames(tmp_path / name))), expected, 10)
    assert close(video.read(tmp_path)[0], expected, 10)  # a folder of frames


def test_broken_exif_is_no_reason_to_refuse_a_photograph(tmp_path):
    exif = Image.Exif()
    exif[274] = 99
    Image.fromarray(scene()).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(images.read(tmp_path / "a.png"), scene())


def test_palette_alpha_and_other_modes(tmp_path):
    picture = Image.fromarray(scene())
    for mode in ("P", "RGBA", "CMYK", "YCbCr", "1", "L", "LA", "PA"):
        name = tmp_path / f"a.{'jpg' if mode in ('CMYK', 'YCbCr') else 'png' if mode != 'PA' else 'tif'}"
        converted = (picture.convert("RGBA") if mode == "PA" else picture).convert(mode)
        converted = picture.quantize(16) if mode == "P" else converted
        if mode == "PA":
            expected, found = np.asarray(converted.convert("RGB")), images.rgb(converted)
        else:
            converted.save(name)
            gray = np.asarray(picture.convert("L"))[..., None].repeat(3, -1)
            expected = {"1": np.asarray(converted.convert("RGB")), "L": gray, "LA": gray}.get(mode, scene())
            found = images.read(name)
        assert close(found, expected, 20), mode


def test_transparent_pixels_lie_on_black(tmp_path):
    rgba = np.full((4, 4, 4), 200, np.uint8)
    rgba[0, :, 3], rgba[1, :, 3], rgba[2:, :, 3] = 0, 128, 255
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert images.read(tmp_path / "a.png")[:, 0, 0].tolist() == [0, 100, 200, 200]
    palette = Image.fromarray(rgba[..., :3]).quantize(4)
    palette.save(tmp_path / "b.png", transparency=palette.getpixel((0, 0)))
    assert (images.read(tmp_path / "b.png") == 0).all()


def test_a_photograph_is_no_strip(tmp_path):
    photograph = np.random.default_rng(0).integers(0, 256, (200, 400, 3), dtype=np.uint8)
    for name in ("a.png", "a.jpg", "a.bmp"):
        Image.fromarray(photograph).save(tmp_path / name)
        assert video.read(tmp_path / name).shape == (1, 200, 400, 3)
        assert Frames(tmp_path / name).count == 1 and len(list(Frames(tmp_path / name))) == 1
    assert video.read(tmp_path / "a.png", strip=True).shape == (2, 200, 200, 3)
    # Small ones that are much wider than high are strips to `read`, and never to a tracker's frames.
    Image.fromarray(photograph[:50]).save(tmp_path / "s.png")
    assert video.read(tmp_path / "s.png").shape == (8, 50, 50, 3)
    assert video.read(tmp_path / "s.png", strip=False).shape == (1, 50, 400, 3)
    assert Frames(tmp_path / "s.png").count == 1
    # Those of our own carry a mark, whatever their size, and come back as what they were.
    for frames in (torch.from_numpy(photograph)[None, :, :200], torch.zeros(3, 200, 200, 3).byte()):
        path = video.write(tmp_path / "own.png", frames)
        assert torch.equal(video.read(path), frames)
        assert Frames(path).count == len(frames)


def test_stereo_photographs_are_one_picture(tmp_path):
    first, second = (Image.fromarray(scene(step=step)) for step in (0, 9))
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second], quality=95)
    assert video.read(tmp_path / "a.jpg").shape == (1, 32, 48, 3)


# ---------------------------------------------------------------------------------------------- animations


@pytest.mark.parametrize(
    "name, options",
    [
        ("a.webp", {"lossless": True, "duration": 100}),
        ("a.png", {"duration": 100}),
        ("a.apng", {"duration": 100, "format": "PNG"}),
        ("a.tif", {}),
        ("a.tiff", {"compression": "tiff_lzw"}),
        ("a.gif", {"duration": 100}),
    ],
)
def test_animations_have_all_their_frames(tmp_path, name, options):
    made = [scene(step=t) for t in range(10)]
    first, *rest = [Image.fromarray(frame) for frame in made]
    first.save(tmp_path / name, save_all=True, append_images=rest, **options)
    found = video.read(tmp_path / name)
    assert found.shape == (10, 32, 48, 3)
    assert all(close(a, b, 6) for a, b in zip(found, made, strict=True))
    frames = Frames(tmp_path / name)
    assert frames.count == 10 and frames.rate == (None if "tif" in name else pytest.approx(10))
    times = [frames.time for _ in frames]
    if frames.rate:
        assert times == pytest.approx([t / 10 for t in range(10)])


@pytest.mark.parametrize("name", ["a.webp", "a.avif", "a.gif", "a.png"])
def test_how_long_each_frame_of_an_animation_is_shown(tmp_path, name):
    first, *rest = [Image.fromarray(scene(step=t)) for t in range(4)]
    first.save(tmp_path / name, save_all=True, append_images=rest, duration=[100, 50, 200, 400])
    frames = Frames(tmp_path / name)
    assert frames.rate == pytest.approx(4 / 0.75)
    assert [frames.time for _ in frames] == pytest.approx([0, 0.1, 0.15, 0.35])


def test_thumbnails_in_a_tiff_are_no_frames(tmp_path):
    pages = [Image.fromarray(scene()), Image.fromarray(scene()[::4, ::4]), Image.fromarray(scene(step=3))]
    pages[1].encoderinfo = {"tiffinfo": {254: 1}}
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert video.read(tmp_path / "a.tif").shape == (2, 32, 48, 3)


def test_the_still_beside_an_animated_png_is_no_frame(tmp_path):
    still, *frames = [Image.fromarray(scene(step=t)) for t in (9, 0, 1, 2)]
    still.save(tmp_path / "a.png", save_all=True, append_images=frames, default_image=True, duration=50)
    assert close(video.read(tmp_path / "a.png"), np.stack([scene(step=t) for t in range(3)]), 3)


def test_pages_of_several_sizes_are_refused_by_name(tmp_path):
    first, second = Image.fromarray(scene()), Image.fromarray(scene(20, 30))
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second])
    with pytest.raises(ValueError, match=r"a\.tif: frame 2 must be 48x32 .* got 30x20"):
        video.read(tmp_path / "a.tif")


def test_gif_round_trip_keeps_equal_frames(tmp_path):
    for pattern in ([0, 0, 0, 0], [0, 1, 1, 2, 2, 2, 0], [3], [1, 1, 0, 1, 1]):
        frames = torch.from_numpy(np.stack([scene(step=8 * k) for k in pattern]))
        back = video.read(video.write(tmp_path / "a.gif", frames))
        assert len(back) == len(pattern) and close(back, frames.numpy(), 6)
        with VideoWriter(tmp_path / "b.gif", 10) as writer:
            for frame in frames.numpy():
                writer.write(frame)
        assert len(video.read(tmp_path / "b.gif")) == len(pattern)


def test_a_frame_that_lasts_a_minute_is_one_frame(tmp_path):
    first, *rest = [Image.fromarray(scene(step=8 * t)) for t in range(3)]
    first.save(tmp_path / "a.gif", save_all=True, append_images=rest, duration=[20, 60000, 40])
    assert len(video.read(tmp_path / "a.gif")) == 3
    frames = Frames(tmp_path / "a.gif")
    assert [frames.time for _ in frames] == pytest.approx([0, 0.02, 60.02])
    # Looked at by time, as often as it is asked for.
    seen = video.read(tmp_path / "a.gif", fps=1)
    assert len(seen) == 61 and not torch.equal(seen[0], seen[1]) and torch.equal(seen[1], seen[60])


def test_a_long_gif_is_not_kept_in_memory(tmp_path):
    frames = [scene(step=t) for t in range(9)]
    for kept in (0, 2**20):
        with gif.Writer(tmp_path / "a.gif", kept) as writer:
            for t, frame in enumerate(frames):
                writer.add(frame, t / 8)
                assert len(writer._waiting) == (1 if kept == 0 else t + 1)
            writer.finish(9 / 8)
        found = Frames(tmp_path / "a.gif")
        assert [(found.time, frame.shape) for frame in found] == [
            (pytest.approx(t / 8, abs=0.006), frames[0].shape) for t in range(9)
        ]


def test_gif_delays_do_not_drift():
    for fps in (12, 24, 29.97, 7, 33):
        times = [k / fps for k in range(301)]
        assert abs(sum(gif.delays(times)) - 100 * 300 / fps) <= 0.5
    assert gif.delays([0, 1 / 12])[0] == 8 and gif.delays([0, 0.001, 0.002]) == [2, 2]


# -------------------------------------------------------------------------------------------------- videos


@pytest.mark.parametrize(
    "ending, codec, container",
    [
        (".avi", "mpeg4", None),
        (".mp4", "libx264", None),
        (".m4v", "mpeg4", None),
        (".mov", "libx264", None),
        (".3gp", "mpeg4", None),
        (".mkv", "libx264", None),
        (".webm", "libvpx", None),
        (".ts", "mpeg2video", None),
        (".mts", "libx264", "mpegts"),
        (".m2ts", "libx264", "mpegts"),
        (".vob", "mpeg2video", "vob"),
        (".mpg", "mpeg2video", None),
        (".asf", "wmv2", "asf"),
        (".wmv", "wmv2", "asf"),
        (".flv", "flv", None),
    ],
)
def test_containers(tmp_path, ending, codec, container):
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg does not write {codec}")
    made = [scene(64, 96, t) for t in range(6)]
    path = encode(tmp_path / f"Clip{ending.upper()}", made, codec, rate=25, container=container)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = video.read(path)
        frames = Frames(path)
        times = [frames.time for _ in frames]
    assert close(found, np.stack(made)) and frames.rate == pytest.approx(25)
    assert times == pytest.approx([t / 25 for t in range(6)], abs=2e-3)
    assert ending in formats.VIDEOS


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirror", ["", "h", "v"])
@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
def test_display_matrix(tmp_path, name, degrees, mirror):
    path = encode(
        tmp_path / name,
        prepare=lambda s: s.set_display_rotation(degrees, hflip=mirror == "h", vflip=mirror == "v"),
    )
    expected = np.rot90(scene(), degrees // 90)
    expected = {"": expected, "h": expected[:, ::-1], "v": expected[::-1]}[mirror]
    assert close(video.read(path)[0], expected)
    assert close(next(iter(Frames(path))), expected)


def test_an_angle_between_is_said(tmp_path):
    path = encode(tmp_path / "a.mp4", prepare=lambda s: s.set_display_rotation(30))
    with pytest.warns(UserWarning, match=r"a\.mp4 is to be shown at an angle"):
        assert close(video.read(path)[0], scene())


def test_variable_frame_rate(tmp_path):
    when = [0, 0.1, 0.15, 1.0, 1.05, 61.05]
    path = encode(tmp_path / "a.mp4", codec="libx264", times=when)
    frames = Frames(path)
    assert [frames.time for _ in frames] == pytest.approx(when, abs=2e-3)
    assert len(video.read(path)) == 6  # and not a minute of equal frames
    by_time = video.read(path, fps=10)
    assert len(by_time) >= 611
    shown = [max(k for k, t in enumerate(when) if t <= n / 10 + 1e-4) for n in range(611)]
    stored = video.read(path)
    assert all(torch.equal(by_time[n], stored[shown[n]]) for n in range(0, 611, 13))
    with pytest.raises(ValueError, match="`fps` must be a positive number"):
        video.read(path, fps=0)


def test_the_writer_keeps_the_times(tmp_path):
    when = [0, 0.1, 0.15, 1.0, 1.05, 3.0]
    for name in ("a.mp4", "a.gif"):
        with VideoWriter(tmp_path / name, 10) as writer:
            for t, time in enumerate(when):
                writer.write(scene(step=t), time)
        frames = Frames(tmp_path / name)
        assert [frames.time for _ in frames] == pytest.approx(when, abs=6e-3)
    with pytest.raises(ValueError, match="`time` must be later"), VideoWriter(tmp_path / "b.mp4") as writer:
        writer.write(scene(), 1.0)
        writer.write(scene(), 1.0)
    assert not (tmp_path / "b.mp4").exists()


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_the_writer_refuses_frames_after_its_end(tmp_path, name):
    """They were lost; entered again, it writes another video."""
    writer = VideoWriter(tmp_path / name, 10)
    for size in (16, 32):
        with writer:
            writer.write(np.zeros((size, size, 3), np.uint8))
        with pytest.raises(ValueError, match="writes only inside its `with"):
            writer.write(np.zeros((size, size, 3), np.uint8))
        (frame,) = Frames(tmp_path / name)
        assert frame.shape == (size, size, 3)


@pytest.mark.parametrize("rate", [24, 25, 30000 / 1001, 7.5, np.float32(12), np.int64(50), 60])
def test_the_rate_is_the_inputs(tmp_path, rate):
    path = video.write(tmp_path / "a.mp4", torch.from_numpy(np.stack([scene()] * 20)), rate)
    assert Frames(path).rate == pytest.approx(float(rate), rel=1e-4) and Frames(path).count == 20


@pytest.mark.parametrize("name, codec", [("a.avi", "mpeg4"), ("a.mkv", "libx264"), ("a.mp4", "mpeg4")])
def test_a_file_that_was_cut_says_where(tmp_path, name, codec):
    rng = np.random.default_rng(0)
    made = [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(40)]
    options = {"movflags": "faststart"}
    path = tmp_path / name
    with av.open(str(path), "w", options=options if name == "a.mp4" else {}) as file:
        stream = file.add_stream(codec, rate=10)
        stream.height = stream.width = 64
        stream.pix_fmt = "yuv420p"
        for frame in made:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode(None))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.warns(UserWarning, match=rf"{name} is damaged or cut: .*; frame \d+ is the last"):
        found = video.read(path)
    assert 5 <= len(found) < 40
    with pytest.warns(UserWarning, match="cut"):
        assert len(list(Frames(path))) == len(found)


def test_the_cut_says_what_was_announced_and_what_came(tmp_path):
    """Whatever is left, at every place of the cut: never an end without a word."""
    rng = np.random.default_rng(0)
    made = [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(8)]
    data = encode(tmp_path / "a.avi", made).read_bytes()
    for part in np.linspace(0.3, 0.9, 7):
        (tmp_path / "a.avi").write_bytes(data[: int(len(data) * part)])
        with pytest.warns(UserWarning, match=r"a\.avi is damaged or cut") as caught:
            found = video.read(tmp_path / "a.avi")
        (text,) = {str(w.message) for w in caught}
        assert 1 <= len(found) <= 8 and f"frame {len(found)} is the last" in text
        assert len(found) > 6 or "it announces 8 frames" in text


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.tif"])
def test_an_animation_that_was_cut_says_where(tmp_path, name):
    rng = np.random.default_rng(0)
    first, *rest = [Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(10)]
    first.save(tmp_path / name, save_all=True, append_images=rest)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(0.55 * len(data))])
    with pytest.warns(UserWarning, match=rf"{name} is damaged or cut: .*; frame \d is the last"):
        assert 3 <= len(video.read(tmp_path / name)) <= 6


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        (name, mode)
        for name in ("a.png", "a.jpg", "a.webp", "a.jp2", "a.tif", "a.bmp", "a.ppm")
        for mode in ("L", "I;16", "RGB", "RGBA")
        if (name, mode) not in {("a.jpg", "I;16"), ("a.jpg", "RGBA"), ("a.bmp", "I;16")}  # there are none
    ],
)
def test_a_picture_that_was_cut_is_refused(tmp_path, name, mode):
    file = tmp_path / name
    pixels = np.random.default_rng(0).integers(0, 256, (64, 80, 4), dtype=np.uint8)
    pixels = {"I;16": pixels[..., 0].astype(np.uint16), "L": pixels[..., 0], "RGB": pixels[..., :3]}.get(
        mode, pixels
    )
    Image.fromarray(pixels).save(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 6 // 10])
    with pytest.raises(ValueError, match=f"{name} must be an image that can be read"):
        video.read(file)
    if name not in ("a.tif", "a.webp"):  # which Pillow does not even open
        with Image.open(file) as opened, pytest.raises(ValueError, match="`image` must be a PIL image or"):
            images.image_array("image", opened)


def test_an_animated_png_is_put_together_as_its_specification_says(tmp_path):
    """Half transparent gray over nothing is half as bright on black, not a quarter."""
    alphas = [np.full((8, 9, 4), (200, 200, 200, alpha), np.uint8) for alpha in (0, 128, 255)]
    first, *rest = map(Image.fromarray, alphas)
    first.save(tmp_path / "a.png", save_all=True, append_images=rest, blend=1, duration=100)
    assert video.read(tmp_path / "a.png")[:, 3, 3].tolist() == [[0] * 3, [100] * 3, [200] * 3]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("blend", [0, 1])
@pytest.mark.parametrize("disposal", [0, 1, 2])
def test_animated_pngs_are_those_of_ffmpeg(tmp_path, mode, blend, disposal):
    rng, frames = np.random.default_rng(0), []
    for _ in range(5):
        pixels = rng.integers(0, 256, (20, 24, 4), dtype=np.uint8)
        pixels[..., 3] = rng.choice([0, 90, 180, 255], (20, 24))
        frames.append(Image.fromarray(pixels).convert(mode))
    options = {"blend": blend, "disposal": disposal, "duration": [100, 50, 20, 300, 40]}
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:], **options)
    with av.open(str(tmp_path / "a.png"), format="apng") as container:
        expected = [images.on_black(f.to_ndarray(format="rgba")) for f in container.decode(video=0)]
    found = list(images.Animation(tmp_path / "a.png"))
    assert np.abs(np.stack([frame for frame, _ in found]).astype(int) - np.stack(expected)).max() <= 2
    assert [seconds for _, seconds in found] == pytest.approx([0.1, 0.05, 0.02, 0.3, 0.04])
    exif = Image.Exif()
    exif[274] = 6
    frames[0].save(tmp_path / "b.png", save_all=True, append_images=frames[1:], exif=exif, **options)
    turned = video.read(tmp_path / "b.png").numpy()
    assert (turned == np.rot90(video.read(tmp_path / "a.png").numpy(), -1, (1, 2))).all()


def test_gifs_with_transparency(tmp_path):
    """What was drawn stays where the next frame lets it through."""
    frames = [Image.fromarray(scene(step=2 * t)).convert("RGBA") for t in range(4)]
    for k, frame in enumerate(frames):
        opaque = np.where(np.arange(48) >= 10 * k, 255, 0).astype(np.uint8)
        frame.putalpha(Image.fromarray(opaque[None].repeat(32, 0)))
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], disposal=1, duration=50)
    found = video.read(tmp_path / "a.gif")
    assert found[:, 16, 2, 1].tolist() == [60] * 4 and found[:, 16, 40, 1].tolist() == [60, 80, 100, 120]


def test_one_frame(tmp_path):
    for name in ("a.mp4", "a.avi", "a.webm"):
        path = encode(tmp_path / name, [scene()], "libvpx" if name == "a.webm" else "mpeg4")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert video.read(path).shape == (1, 32, 48, 3)
            assert video.read(path, fps=3).shape[0] == 1


@pytest.mark.parametrize(
    "name",
    ["a:b.mp4", "C:clip.gif", "clip.v2.final.mp4", "película №5.mp4", "映画.gif", "a%03d.mp4", "-x.mp4"],
)
def test_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)  # a relative name is what FFmpeg takes for a protocol
    frames = torch.from_numpy(np.stack([scene(step=t) for t in range(4)]))
    assert str(video.write(name, frames)) == name
    assert close(video.read(name), frames.numpy())
    assert close(np.stack(list(Frames(name))), frames.numpy())
    assert os.listdir(tmp_path) == [name]


def test_hidden_files_are_passed_over(tmp_path):
    for t in range(3):
        Image.fromarray(scene(step=t)).save(tmp_path / f"{t}.png")
        (tmp_path / f"._{t}.png").write_bytes(b"\0\5\x16\7 not a picture")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "sub.png").mkdir()
    assert len(video.read(tmp_path)) == 3 == Frames(tmp_path).count == len(list(Frames(tmp_path)))


def test_natural_order_is_total(tmp_path):
    names = ["f10.png", "F2.png", "f2.png", "f002.png", "f1.png", "a.png", "f1b.png"]
    paths = [tmp_path / name for name in names]
    ordered = sorted(paths, key=formats.natural)
    assert ordered == sorted(paths[::-1], key=formats.natural)
    assert [p.name for p in ordered] == [
        "a.png",
        "f1.png",
        "f1b.png",
        "F2.png",
        "f002.png",
        "f2.png",
        "f10.png",
    ] or [p.name for p in ordered][-1] == "f10.png"


def test_transparent_videos_lie_on_black(tmp_path):
    rgba = np.full((16, 16, 4), 200, np.uint8)
    rgba[:8, :, 3], rgba[8:, :, 3] = 0, 255
    with av.open(str(tmp_path / "a.mov"), "w") as file:
        stream = file.add_stream("png", rate=10)
        stream.height = stream.width = 16
        stream.pix_fmt = "rgba"
        file.mux(stream.encode(av.VideoFrame.from_ndarray(rgba, format="rgba")))
        file.mux(stream.encode(None))
    found = video.read(tmp_path / "a.mov")[0]
    assert (found[:8] == 0).all() and (found[8:] == 200).all()


def test_pixels_that_are_not_square_are_said(tmp_path):
    def prepare(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    path = encode(tmp_path / "a.mkv", codec="libx264", prepare=prepare)
    with pytest.warns(UserWarning, match=r"a\.mkv has pixels that are 1\.33 times as wide as high"):
        assert video.read(path).shape == (6, 32, 48, 3)


def test_a_clock_that_goes_back_ends_nothing(tmp_path, monkeypatch):
    from amstel.media import reading

    class Video:
        count = rate = None

        def __init__(self, path):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def __iter__(self):
            return iter([(scene(), t) for t in (5.0, 5.1, 5.1, 4.0, None, 6.0)])

    monkeypatch.setattr(reading, "Video", Video)
    (tmp_path / "a.mp4").write_bytes(b"x")
    frames = Frames(tmp_path / "a.mp4")
    times = [frames.time for _ in frames]
    assert times[:2] == pytest.approx([0, 0.1]) and times[4] is None and times[5] == pytest.approx(1)
    assert times[1] < times[2] < times[3] < times[5]


@pytest.mark.parametrize("transfer, page", [(16, 0.5807), (18, 0.75)])
def test_hdr_is_not_washed_out(tmp_path, transfer, page):
    """PQ and HLG, 10 bits, BT.2020: black stays black, a page of 203 cd/m2 is light gray, what is brighter is white."""
    signal = np.zeros((64, 64, 3), np.uint16)
    signal[16:32], signal[32:48], signal[48:] = (round(65535 * v) for v in (0.25, page, 0.95))
    with av.open(str(tmp_path / "a.mkv"), "w") as file:
        stream = file.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        colors = stream.codec_context
        colors.color_trc, colors.colorspace, colors.color_primaries = transfer, 9, 9
        frame = av.VideoFrame.from_ndarray(signal, format="rgb48le")
        frame = frame.reformat(format="yuv420p10le", dst_colorspace=9)
        frame.pts, frame.time_base = 0, Fraction(1, 10)
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    black, dark, gray, bright = video.read(tmp_path / "a.mkv")[0, 8::16, 32].int()
    assert (black <= 3).all() and (5 < dark).all() and (dark < 120).all() and (bright >= 240).all()
    assert ((gray - 191).abs() < 6).all()


# ------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.png"])
def test_a_failed_write_keeps_the_old_file(tmp_path, name, monkeypatch):
    path = tmp_path / name
    path.write_bytes(b"precious")
    frames = torch.zeros(2, 16, 16, 3).byte()
    for bad, options in ((frames.float(), {}), (frames, {"fps": 0}), (frames, {"inputs": [path]})):
        with pytest.raises(ValueError):
            video.write(path, bad, **options)
    if name != "a.png":
        with pytest.raises(KeyboardInterrupt), VideoWriter(path) as writer:
            writer.write(frames[0].numpy())
            raise KeyboardInterrupt
        for wrong in (np.zeros((8, 8, 3), np.uint8), np.zeros((16, 16, 3)), np.zeros((16, 16), np.uint8)):
            with pytest.raises(ValueError, match="`picture` must be"), VideoWriter(path) as writer:
                writer.write(frames[0].numpy())
                writer.write(wrong)
        with pytest.raises(ValueError, match="at least one picture"), VideoWriter(path):
            pass
    assert path.read_bytes() == b"precious" and os.listdir(tmp_path) == [name]


def test_output_is_not_input(tmp_path):
    path = encode(tmp_path / "in.mp4")
    before = path.read_bytes()
    (tmp_path / "link.mp4").symlink_to(path)
    for output in (path, tmp_path / "link.mp4", tmp_path / "." / "in.mp4"):
        with pytest.raises(ValueError, match="another file than the input"):
            with VideoWriter(output, inputs=[path]) as writer:
                writer.write(scene())
    assert path.read_bytes() == before
    # Reading one by one and writing to the same place, unasked: the input is whole until the output is.
    frames = Frames(path)
    with VideoWriter(path, 10) as writer:
        for frame in frames:
            writer.write(frame)
    assert len(video.read(path)) == 6
    folder = tmp_path / "frames"
    folder.mkdir()
    with (
        pytest.raises(ValueError, match="outside the input folder"),
        VideoWriter(folder / "o.gif", inputs=[folder]),
    ):
        pass


def test_pictures_are_written_whole(tmp_path):
    path = images.write(tmp_path / "a.png", scene())
    np.testing.assert_array_equal(images.read(path), scene())
    with pytest.raises(ValueError, match="`picture` must be"):
        images.write(path, scene().astype(float))
    with pytest.raises(ValueError, match=r"`path` must be a file that ends in \.png.*a\.nothing'"):
        images.write(tmp_path / "a.nothing", scene())
    assert os.listdir(tmp_path) == ["a.png"]


def test_pictures_of_points_and_curves_keep_the_old_file(tmp_path):
    pytest.importorskip("matplotlib")
    from amstel import draw, tracking

    places, labels = torch.rand(3, 9, 2), torch.zeros(9).long()
    curves = {"a": tracking.evaluate([[1, 2, 3, 4.0]] * 3, [[1, 2, 3, 4.0]] * 3)}

    def fails(name, *jobs):
        path = tmp_path / name
        path.write_text("precious")
        for job in jobs:
            with pytest.raises(Exception):  # noqa: B017  (whatever it is)
                job(path)
        assert path.read_text() == "precious" and os.listdir(tmp_path) == [name]
        path.unlink()

    fails(
        "a.svg",
        lambda p: draw.svg(p, places, labels[1:]),
        lambda p: draw.svg(p, places, labels, captions=[3]),
    )
    fails("a.gif", lambda p: draw.raster(p, places, labels, torch.tensor([[0], [99]])))
    fails("a.nothing", lambda p: draw.raster(p, places[:1], labels), lambda p: tracking.plot(curves, p))
    fails("a.png", lambda p: tracking.plot({}, p), lambda p: tracking.plot({"a": None}, p))
    for name, job in (
        ("a.svg", lambda p: draw.svg(p, places, labels)),
        ("a.gif", lambda p: draw.raster(p, places, labels)),
        ("a.png", lambda p: draw.raster(p, places[:1], labels)),
        ("b.png", lambda p: tracking.plot(curves, p)),
    ):
        assert job(tmp_path / name) == tmp_path / name and (tmp_path / name).stat().st_size > 500
    assert sorted(os.listdir(tmp_path)) == ["a.gif", "a.png", "a.svg", "b.png"]


# ------------------------------------------------------------------------------------------------- drawing


def test_captions_are_drawn_with_letters_that_are_there():
    font, (line,) = fonts.fitting(["similarity 0.93"], 14)
    assert line == "similarity 0.93"
    for text in ("película", "фильм 5", "映画", "تصویر", "a\nb\tc"):
        font, (line,) = fonts.fitting([text], 14)
        assert not fonts._missing(font, {c for c in line if not c.isspace()}) and "\n" not in line
        # Every letter is there, or its number in its place.
        for letter in text:
            assert not letter.isprintable() or letter in line or f"U+{ord(letter):04X}" in line


def test_annotate_takes_any_name():
    frames = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    plain = video.annotate(frames, caption=" ")
    for text in ("фильм", "映画", "clip:1.final"):
        pictures = video.annotate(frames, caption=text, boxes=torch.tensor([[NAN] * 4]))
        assert pictures.shape == plain.shape and not torch.equal(pictures, plain)


def test_old_names_hand_on():
    with pytest.warns(DeprecationWarning, match="localise is now amstel.video.localize"):
        assert video.localise is video.localize
    from amstel import draw

    with pytest.warns(DeprecationWarning, match="COLORS"):
        assert draw.COLOURS is draw.COLORS
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        video.nothing  # noqa: B018


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_webm_with_alpha_lies_on_black(tmp_path, codec):
    """Its alpha is a stream beside the colors, which FFmpeg's own decoders pass over; to the last column, whatever the
    width."""
    alpha = np.full((32, 52), 255, np.uint8)
    alpha[:, 24:40] = 0
    pictures = [np.full((32, 52, 3), (200, 60 + 10 * t, 40), np.uint8) for t in range(3)]
    with av.open(str(tmp_path / "a.webm"), "w") as file:
        stream = file.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 52, "yuva420p"
        stream.options = {"auto-alt-ref": "0"}
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.dstack([picture, alpha]), format="rgba")
            file.mux(stream.encode(frame.reformat(format="yuva420p")))
        file.mux(stream.encode(None))
    found = video.read(tmp_path / "a.webm")
    assert found.shape == (3, 32, 52, 3) and not found[:, :, 26:38].any()
    for part in (slice(0, 22), slice(42, 52)):
        assert close(found[:, :, part], np.stack(pictures)[:, :, part], 12)
    frames = Frames(tmp_path / "a.webm")
    assert [frames.time for _ in frames] == pytest.approx([0, 0.04, 0.08], abs=2e-3)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (5, 2)])
def test_pictures_of_few_pixels(tmp_path, size):
    made = [scene(*size, t) for t in range(3)]
    path = encode(tmp_path / "a.mov", made, "png", pixels="rgb24")
    assert torch.equal(video.read(path), torch.from_numpy(np.stack(made)))
    found = video.read(video.write(tmp_path / "a.mp4", torch.from_numpy(np.stack(made))))
    assert found.shape == (3, size[0] + size[0] % 2, size[1] + size[1] % 2, 3)  # made even
    assert close(
        video.read(video.write(tmp_path / "a.gif", torch.from_numpy(np.stack(made)))), np.stack(made), 10
    )


@pytest.mark.parametrize(
    "matrix, full", [("601", False), ("601", True), ("709", False), ("709", True), ("2020", False)]
)
def test_the_matrix_and_the_range_that_a_file_names(tmp_path, matrix, full):
    """By the definition of Y'CbCr: ITU-R BT.601, 709 and 2020."""
    number, red, blue = {"601": (5, 0.299, 0.114), "709": (1, 0.2126, 0.0722), "2020": (9, 0.2627, 0.0593)}[
        matrix
    ]
    rgb = scene() / 255
    luma = rgb @ np.array([red, 1 - red - blue, blue])
    chroma = [(rgb[..., 2] - luma) / (2 - 2 * blue), (rgb[..., 0] - luma) / (2 - 2 * red)]
    planes = [
        luma * (255 if full else 219) + (0 if full else 16),
        *(c * (255 if full else 224) + 128 for c in chroma),
    ]
    with av.open(str(tmp_path / "a.mkv"), "w") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv444p"
        frame = av.VideoFrame.from_ndarray(np.rint(planes).clip(0, 255).astype(np.uint8), format="yuv444p")
        for where in (stream.codec_context, frame):
            where.colorspace, where.color_range = number, 1 + full
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    assert np.abs(video.read(tmp_path / "a.mkv")[0].numpy().astype(int) - scene()).max() <= 3


@pytest.mark.parametrize(
    "size, matrix", [((32, 48), "601"), ((576, 720), "601"), ((720, 960), "709"), ((40, 1280), "709")]
)
def test_the_matrix_that_players_assume_where_a_file_names_none(tmp_path, size, matrix):
    red, blue = {"601": (0.299, 0.114), "709": (0.2126, 0.0722)}[matrix]
    rgb = scene(*size) / 255
    luma = rgb @ np.array([red, 1 - red - blue, blue])
    chroma = [(rgb[..., 2] - luma) / (2 - 2 * blue), (rgb[..., 0] - luma) / (2 - 2 * red)]
    planes = np.rint([luma * 219 + 16, *(c * 224 + 128 for c in chroma)]).clip(0, 255).astype(np.uint8)
    with av.open(str(tmp_path / "a.mkv"), "w") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv444p"
        file.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv444p")))
        file.mux(stream.encode(None))
    assert np.abs(video.read(tmp_path / "a.mkv")[0].numpy().astype(int) - scene(*size)).max() <= 3
    # What is written says which it is.
    path = video.write(tmp_path / "b.mp4", torch.from_numpy(scene(*size))[None])
    with av.open(str(path)) as file:
        frame = next(file.decode(video=0))
    assert frame.colorspace == {"601": 5, "709": 1}[matrix]
    assert (
        np.abs(video.read(path)[0].numpy().astype(int) - scene(*size)).mean() < 5
    )  # colors of half the resolution


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_pages_of_floating_point_color(tmp_path, dtype):
    tifffile = pytest.importorskip("tifffile")
    pages = np.stack([scene(step=t) for t in range(3)])
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, (pages / 255).astype(dtype), photometric="rgb")
    assert np.abs(video.read(path).numpy().astype(int) - pages).max() <= (dtype == np.float16)
    assert video.Frames(path).count == 3 and np.abs(images.read(path).astype(int) - pages[0]).max() <= 1
    alpha = np.full((*pages.shape[:3], 1), 0.5)
    tifffile.imwrite(
        path, np.concatenate([pages / 255, alpha], -1).astype(dtype), photometric="rgb", extrasamples=[2]
    )
    assert np.abs(video.read(path).numpy() - pages / 2).max() <= 1
    tifffile.imwrite(path, (pages / 10).astype(dtype), photometric="rgb")
    with pytest.raises(ValueError, match=r"a\.tif must be .* floating point in \[2, 22\]"):
        video.read(path)
    data = path.read_bytes()
    path.write_bytes(data[:300])
    with pytest.raises(ValueError, match=r"a\.tif must be an image"):
        video.read(path)


def test_pages_of_other_depths(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    pages = np.stack([scene(step=t)[..., 0] for t in range(3)])
    tifffile.imwrite(tmp_path / "a.tif", pages.astype(np.uint16) * 257, photometric="minisblack")
    assert np.array_equal(video.read(tmp_path / "a.tif")[..., 1], pages)
    tifffile.imwrite(tmp_path / "a.tif", pages.astype(np.int16), photometric="minisblack")
    with pytest.raises(ValueError, match=r"a\.tif must be .* bits with a sign"):
        video.read(tmp_path / "a.tif")
    values = np.arange(48).reshape(6, 8) * 87
    test_pictures.twelve_bits(tmp_path / "b.tif", values)
    assert np.abs(video.read(tmp_path / "b.tif")[0, ..., 0].numpy() - values / 4095 * 255).max() <= 1


def test_a_gif_without_times_is_shown_as_browsers_do(tmp_path):
    first, *rest = [Image.fromarray(scene(step=8 * t)) for t in range(3)]
    first.save(tmp_path / "a.gif", save_all=True, append_images=rest, duration=0)
    frames = Frames(tmp_path / "a.gif")
    assert [frames.time for _ in frames] == pytest.approx([0, 0.1, 0.2]) and frames.rate == pytest.approx(10)
    assert len(video.read(tmp_path / "a.gif", fps=20)) == 6


def test_a_rate_beyond_the_clock_of_a_file(tmp_path):
    frames = torch.from_numpy(np.stack([scene(step=t) for t in range(5)]))
    assert len(video.read(video.write(tmp_path / "a.mp4", frames, 1e6))) == 5


@pytest.mark.parametrize("video_too", [True, False])
def test_a_cover_picture_is_no_video(tmp_path, video_too):
    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=25) if video_too else None
        sound, cover = file.add_stream("aac", rate=44100), file.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        if stream is not None:
            stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
            for t in range(4):
                file.mux(stream.encode(av.VideoFrame.from_ndarray(scene(step=t), format="rgb24")))
            file.mux(stream.encode(None))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.rate, silence.pts = 44100, 0
        file.mux([*sound.encode(silence), *sound.encode(None)])
        file.mux(cover.encode(av.VideoFrame.from_ndarray(scene(64, 64), format="rgb24")))
    if video_too:
        assert video.read(tmp_path / "a.mp4").shape == (4, 32, 48, 3)
    else:
        with pytest.raises(ValueError, match=r"a\.mp4 must hold a video, got sound with a cover picture"):
            video.read(tmp_path / "a.mp4")


def test_folders_and_files_by_their_names(tmp_path):
    frames = torch.zeros(3, 8, 8, 3, dtype=torch.uint8)
    strip = video.write(tmp_path / "a.png", frames)
    for kind in (str, Path):
        assert formats.visible(kind(tmp_path)) == formats.frames_of(kind(tmp_path)) == [strip]
        assert strips.is_strip(kind(strip)) and strips.strips(kind(tmp_path)) == [strip]


def test_what_pictures_of_points_refuse(tmp_path):
    frames, labels = torch.rand(2, 4, 2), torch.arange(4)
    two_ways = (points.svg, tmp_path / "p.svg"), (points.raster, tmp_path / "p.gif")
    for message, changed in (
        ("`frames` must be finite", {"frames": frames.where(frames > frames.min(), math.nan)}),
        ("`labels` must be of integers", {"labels": labels.float()}),
        ("`edges` must be .*points from 0 to 3, got 4", {"edges": torch.tensor([[0], [4]])}),
        ("`edges` must be .*points from 0 to 3, got -2", {"edges": torch.tensor([[0, -2], [4, 1]])}),
        ("`edges` must be .*points from 0 to 3, got 200", {"edges": torch.tensor([[0], [200]]).byte()}),
        ("`edges` must be .*points from 0 to 3", {"edges": torch.zeros(3, dtype=torch.int64)}),
        ("`marked` must be points 0 to 3, got 9", {"marked": [1, 9, -1]}),
        ("`seconds` must be a number > 0, got 0", {"seconds": 0}),
        ("`captions` must be a line of text, or 2 of them", {"captions": ["a", "b", "c"]}),
    ):
        for draw, file in two_ways:
            with pytest.raises(ValueError, match=message):
                draw(file, **({"frames": frames, "labels": labels} | changed))
    assert not list(tmp_path.iterdir())
    one, listed = (
        points.svg(tmp_path / "p.svg", frames, labels, captions=c).read_text() for c in ("abc", ["abc"])
    )
    assert one == listed and one.count("<text") == 1


def test_what_readers_and_writers_refuse(tmp_path):
    path = video.write(tmp_path / "clip.gif", torch.zeros(2, 8, 8, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="`side` must be an integer >= 1, got 0"):
        reading.read_small(path, 0)
    with pytest.raises(ValueError, match="`frames` must have been read, and have times"):
        reading.end(video.Frames(path))
    with pytest.raises(ValueError, match="a VideoWriter writes only inside its `with"):
        video.VideoWriter(path).write(np.zeros((8, 8, 3), np.uint8))
    for name in ("picture", "picture.xyz", "picture.mp4"):
        with pytest.raises(ValueError, match=rf"`path` must be a file that ends in .*got .*{name}'"):
            images.write(tmp_path / name, np.zeros((8, 8), np.uint8))
    with pytest.raises(TypeError, match="`image` must"):
        images.rgb(np.zeros((8, 8, 3), np.uint8))
    assert list(tmp_path.iterdir()) == [path]


def test_boxes_and_maps_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"`a` must be \[..., 4\], got float32 \[3\]"):
        boxes.iou_xywh(torch.ones(3), torch.ones(3))
    with pytest.raises(TypeError, match=r"`b` must be a tensor \[..., 4\], got \[1, 2, 3, 4\]"):
        boxes.iou_xywh(torch.ones(4), [1, 2, 3, 4])
    with pytest.raises(ValueError, match="`origin` must be 0 or 1, got 5"):
        boxes.pixels_to_xyxy(torch.ones(4), origin=5)
    with pytest.raises(ValueError, match=r"`size` must be \(height, width\), two positive integers, got 70"):
        next(localize.candidates(torch.ones(1, 7, 7), 70))
    with pytest.raises(TypeError, match=r"`attention` must be a floating tensor \[T, h, w\]"):
        next(localize.candidates(np.ones((1, 7, 7)), (70, 70)))


@pytest.mark.parametrize(
    "thresholds, error", [(0.5, TypeError), ((), ValueError), ((50,), ValueError), (("a",), TypeError)]
)
def test_thresholds_are_numbers_from_0_to_1(thresholds, error):
    overlap, none = torch.tensor([[0.6]]), torch.tensor([0])
    for score in (
        lambda: scores.recall(overlap, thresholds),
        lambda: scores.mean_average_precision(torch.tensor([0.9]), none, overlap, none, thresholds),
    ):
        with pytest.raises(error, match="`thresholds` must be one or more numbers from 0 to 1"):
            score()
