"""Reading and writing pictures: orientation, depth, kinds of TIFF, what the file says of itself, several frames."""

import functools
import re
import struct
import zlib

import numpy as np
import pytest

from amstel.apps.restoration import files
from amstel.apps.restoration.files import Picture
from amstel.data import ImageFolder
from amstel.media import images
from amstel.media.pictures import upright

Image = pytest.importorskip("PIL.Image")
tifffile = pytest.importorskip("tifffile")
cv2 = pytest.importorskip("cv2")

RNG = np.random.default_rng(0)
GRAY8, RGB8 = (RNG.integers(0, 256, s, dtype=np.uint8) for s in ((6, 9), (6, 9, 3)))
GRAY16, RGB16 = (RNG.integers(0, 65536, s, dtype=np.uint16) for s in ((6, 9), (6, 9, 3)))
PROFILE = b"\0" * 128 + b"a profile of a display"


def exif(orientation):
    found = Image.Exif()
    found[0x0112] = orientation
    found[0x010F] = "a camera"
    return found


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_as_pillow_turns(orientation):
    from PIL import ImageOps

    image = Image.fromarray(RGB8)
    image.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(upright(RGB8, orientation), np.asarray(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("data", [GRAY8, RGB8, GRAY16, RGB16], ids=["gray", "rgb", "gray 16", "rgb 16"])
@pytest.mark.parametrize("kind", ["png", "tif", "tif packed", "jpg", "webp"])
def test_orientation_in_every_format(tmp_path, kind, data, orientation):
    deep = data.dtype == np.uint16
    if deep and kind in ("jpg", "webp"):
        return  # these hold 8 bits
    path = tmp_path / f"a.{kind.split()[0]}"
    top = 65535 if deep else 255
    if kind.startswith("tif"):
        how = {"compression": "zlib"} if "packed" in kind else {}
        photometric = "rgb" if data.ndim == 3 else "minisblack"
        tifffile.imwrite(
            path, data, photometric=photometric, extratags=[(274, 3, 1, orientation, True)], **how
        )
    elif deep and data.ndim == 3:
        files.write(path, Picture(data / np.float32(top), None, 16, {"exif": exif(orientation).tobytes()}))
    elif kind == "jpg":
        big = np.kron(data, np.ones((16, 16) + (1,) * (data.ndim - 2), np.uint8))
        Image.fromarray(big).save(path, exif=exif(orientation), quality=100, subsampling=0)
        found = files.read(path).pixels
        wanted = upright(big, orientation) / 255
        assert found.shape == wanted.shape and abs(found - wanted).mean() < 0.01
        return
    else:
        options = {"lossless": True} if kind == "webp" else {}
        Image.fromarray(data).save(path, exif=exif(orientation), **options)
    found = files.read(path)
    assert found.bits == (16 if deep else 8)
    expected = upright(data, orientation).astype(np.float32) / top
    if kind == "webp" and data.ndim == 2:  # which knows color alone
        expected = np.repeat(expected[..., None], 3, 2)
    np.testing.assert_array_equal(found.pixels, expected)
    # It is written upright, and says so.
    files.write(tmp_path / "again.png", found)
    assert Image.open(tmp_path / "again.png").getexif().get(0x0112, 1) == 1
    np.testing.assert_array_equal(files.read(tmp_path / "again.png").pixels, expected)


@pytest.mark.parametrize("data", [GRAY8, RGB8, GRAY16, RGB16], ids=["gray", "rgb", "gray 16", "rgb 16"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_of_every_layout(tmp_path, data, planar, order):
    rgb = data.ndim == 3
    given = np.moveaxis(data, -1, 0) if rgb and planar == "separate" else data
    options = {"planarconfig": planar} if rgb else {}
    tifffile.imwrite(
        tmp_path / "a.tif", given, photometric="rgb" if rgb else "minisblack", byteorder=order, **options
    )
    found = files.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(found.pixels, data.astype(np.float32) / np.iinfo(data.dtype).max)
    # OpenCV packs with LZW, which tifffile alone does not read.
    cv2.imwrite(str(tmp_path / "lzw.tif"), data[..., ::-1] if rgb else data)
    np.testing.assert_array_equal(files.read(tmp_path / "lzw.tif").pixels, found.pixels)


@pytest.mark.parametrize("data", [GRAY8, GRAY16], ids=["8", "16"])
def test_white_may_be_zero(tmp_path, data):
    top = np.iinfo(data.dtype).max
    tifffile.imwrite(tmp_path / "a.tif", top - data, photometric="miniswhite")
    np.testing.assert_array_equal(files.read(tmp_path / "a.tif").pixels, data.astype(np.float32) / top)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_floating_point(tmp_path, dtype):
    values = RNG.random((6, 9, 3)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    found = files.read(tmp_path / "a.tif")
    assert found.bits == 16
    np.testing.assert_array_equal(found.pixels, values.astype(np.float32))
    tifffile.imwrite(tmp_path / "b.tif", 255 * values, photometric="rgb")
    with pytest.raises(ValueError, match=r"b.tif must hold floating point in \[0, 1\], got"):
        files.read(tmp_path / "b.tif")


def test_alpha_palettes_and_bits(tmp_path):
    alpha = np.concatenate([RGB16, GRAY16[..., None]], 2)
    tifffile.imwrite(tmp_path / "a.tif", alpha, photometric="rgb", extrasamples=["unassalpha"])
    found = files.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(found.alpha, GRAY16 / np.float32(65535))
    np.testing.assert_array_equal(found.pixels, RGB16 / np.float32(65535))
    Image.fromarray(RGB8).quantize(8).save(tmp_path / "p.tif")
    expected = np.asarray(Image.fromarray(RGB8).quantize(8).convert("RGB"))
    np.testing.assert_array_equal(files.read(tmp_path / "p.tif").pixels, expected / np.float32(255))
    Image.fromarray(GRAY8).convert("1").save(tmp_path / "b.tif")
    assert set(np.unique(files.read(tmp_path / "b.tif").pixels)) == {0, 1}
    Image.fromarray(RGB8).convert("CMYK").save(tmp_path / "c.tif", icc_profile=PROFILE)
    with pytest.warns(UserWarning, match="its CMYK is converted to RGB without its profile"):
        cmyk = files.read(tmp_path / "c.tif")
    assert cmyk.pixels.shape == (6, 9, 3) and "icc_profile" not in cmyk.about


def png(samples, bits, colors, clear, frames=1):
    """A PNG, or an animated one of equal frames, by its specification; `clear` is the content of tRNS."""
    height, width = samples.shape[:2]
    rows = np.unpackbits(samples.astype(">u2").reshape(height, -1, 1).view(np.uint8), axis=2)[..., -bits:]
    packed = np.packbits(rows.reshape(height, -1), axis=1)
    data = zlib.compress(np.pad(packed, ((0, 0), (1, 0))).tobytes())
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colors, 0, 0, 0)), (b"tRNS", clear)]
    if frames > 1:
        chunks.insert(1, (b"acTL", struct.pack(">II", frames, 0)))
    for k in range(frames):
        if frames > 1:
            control = struct.pack(">5I2H2B", max(0, 2 * k - 1), width, height, 0, 0, 1, 10, 0, 0)
            chunks.append((b"fcTL", control))
        chunks.append((b"fdAT", struct.pack(">I", 2 * k) + data) if k else (b"IDAT", data))
    chunks.append((b"IEND", b""))
    packs = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packs)


@pytest.mark.parametrize("bits, colors", [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2)])
def test_one_gray_or_color_of_a_png_may_be_transparent(tmp_path, bits, colors):
    """Of any depth, and in each frame of an animation: a sample v of b bits is v / (2^b - 1)."""
    samples = RNG.integers(0, 2**bits, (6, 9, 3 if colors else 1))
    samples[:2] = key = np.minimum(samples[2, 3] | 1, 2**bits - 1)
    samples[0, :4] ^= 1  # near the key, and not it
    alpha = (samples != key).any(-1)
    values = samples / (2**bits - 1)
    clear = key.astype(">u2").tobytes()
    (tmp_path / "a.png").write_bytes(png(samples, bits, colors, clear))
    (tmp_path / "b.png").write_bytes(png(samples, bits, colors, clear, frames=3))
    found = files.read(tmp_path / "a.png")
    np.testing.assert_allclose(found.pixels.reshape(values.shape), values, atol=1e-6)
    np.testing.assert_array_equal(found.alpha, alpha)
    shown = np.broadcast_to(np.rint(255 * values * alpha[..., None]), (6, 9, 3))
    with Image.open(tmp_path / "a.png") as opened:
        seen = [images.read(tmp_path / "a.png")]
        if bits < 16 or not colors:  # of which Pillow has all bits
            seen.append(images.image_array("image", opened))
    seen += [frame for frame, _ in images.Animation(tmp_path / "b.png")]
    for frame in seen:
        np.testing.assert_array_equal(frame, shown)
    assert len(seen) >= 4


def twelve_bits(path, values):
    """A TIFF of 12 bits per sample, two samples in three bytes, as scanners write it."""
    pairs = values.reshape(-1, 2).astype(int)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1)
    data = packed.astype(np.uint8).tobytes()
    height, width = values.shape
    tags = [(256, 3, width), (257, 3, height), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8)]
    tags += [(277, 3, 1), (278, 3, height), (279, 4, len(data))]
    ends = {3: "<HHIHxx", 4: "<HHII"}
    ifd = b"".join(struct.pack(ends[kind], tag, kind, 1, value) for tag, kind, value in tags)
    head = b"II*\0" + struct.pack("<I", 8 + len(data))
    path.write_bytes(head + data + struct.pack("<H", len(tags)) + ifd + bytes(4))


def test_depths_that_libraries_cut(tmp_path):
    """12 bits came dark, 16 bits of PPM and JPEG 2000 as 8 bits or as garbage, what is clear in gray of 16 bits was lost."""
    values = RNG.integers(0, 4096, (6, 8))
    twelve_bits(tmp_path / "a.tif", values)
    np.testing.assert_allclose(files.read(tmp_path / "a.tif").pixels, values / 4095, atol=1e-5)
    for top in (65535, 1000):
        rgb = RGB16.astype(int) % (top + 1)
        (tmp_path / "a.ppm").write_bytes(b"P6\n9 6\n%d\n" % top + rgb.astype(">u2").tobytes())
        found = files.read(tmp_path / "a.ppm")
        np.testing.assert_allclose(found.pixels, rgb / top, atol=1e-5)
        assert found.bits == 16
        plain = " ".join(map(str, rgb.reshape(-1)))
        (tmp_path / "p.ppm").write_text(f"P3\n# a comment\n9 6\n{top}\n# another\n{plain}\n")
        np.testing.assert_array_equal(files.read(tmp_path / "p.ppm").pixels, found.pixels)
    eight = (rgb % 256).astype(np.uint8)
    (tmp_path / "8.ppm").write_bytes(b"P6\n9 6\n255\n" + eight.tobytes())
    np.testing.assert_array_equal(files.read(tmp_path / "8.ppm").pixels, eight / np.float32(255))
    for content in (b"P6\n9 6\n65535\n" + bytes(20), b"P3\n9 6\n1000\n1 2 3", b"P3\n1 1\n1000\n1 a 3"):
        (tmp_path / "cut.ppm").write_bytes(content)
        with pytest.raises(OSError, match=r"cut\.ppm"):
            files.read(tmp_path / "cut.ppm")
    large = np.kron(RGB16, np.ones((16, 16, 1), np.uint16))
    cv2.imwrite(
        str(tmp_path / "a.jp2"), large[..., ::-1], [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000]
    )  # without loss
    np.testing.assert_array_equal(files.read(tmp_path / "a.jp2").pixels, large / np.float32(65535))
    Image.fromarray(GRAY16).save(tmp_path / "a.png", transparency=int(GRAY16[2, 3]))
    found = files.read(tmp_path / "a.png")
    np.testing.assert_array_equal(found.pixels, GRAY16 / np.float32(65535))
    np.testing.assert_array_equal(found.alpha, GRAY16 != GRAY16[2, 3])


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.uint32])
def test_integers_whose_white_is_not_known(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", GRAY16.astype(dtype))
    with pytest.raises(ValueError, match=r"a\.tif must have 8 or 16 bits"):
        files.read(tmp_path / "a.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_colors_that_were_multiplied_by_alpha(tmp_path, dtype):
    top = 1 if dtype == np.float32 else np.iinfo(dtype).max
    pixels, alpha = RGB16 / 65535, np.maximum(GRAY16 / 65535, 0.5)
    alpha[0, 0] = 0
    data = np.concatenate([pixels * alpha[..., None], alpha[..., None]], 2) * top
    data = data if top == 1 else np.rint(data)
    tifffile.imwrite(tmp_path / "a.tif", data.astype(dtype), photometric="rgb", extrasamples=["assocalpha"])
    found = files.read(tmp_path / "a.tif")
    np.testing.assert_allclose(found.alpha, alpha, atol=0.5 / top if top > 1 else 1e-6)
    expected = np.where(alpha[..., None] > 0, pixels, 0)
    np.testing.assert_allclose(found.pixels, expected, atol=3 / top if top > 1 else 1e-6)


def test_gray_that_was_multiplied_by_alpha_lies_on_black_as_it_is(tmp_path):
    data = np.stack([GRAY8 // 2, np.maximum(GRAY8, 1)], -1)
    options = {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["assocalpha"]}
    tifffile.imwrite(tmp_path / "a.tif", data, **options)
    found = files.read(tmp_path / "a.tif")
    np.testing.assert_allclose(found.pixels * found.alpha, data[..., 0] / 255, atol=0.5 / 255)
    shown = images.read(tmp_path / "a.tif").astype(int)
    assert np.abs(shown - data[..., :1]).max() <= 1


@pytest.mark.parametrize("bits, channels", [(8, 1), (8, 3), (16, 1), (16, 3)])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
def test_what_a_file_says_of_itself_is_kept(tmp_path, bits, channels, alpha, suffix):
    held = {".jpg": (8, False), ".webp": (8, alpha and channels == 3)}.get(suffix, (bits, alpha))
    if (bits, alpha) != held:
        return  # refused, see test_restore.py; WebP makes color of gray
    levels = RNG.integers(0, 2**bits, (6, 9, 4)).astype(np.float32) / np.float32(2**bits - 1)
    pixels = levels[..., 0] if channels == 1 else np.ascontiguousarray(levels[..., :3])
    camera = exif(1)
    camera.pop(0x0112)
    xmp = b'<x:xmpmeta><rdf dc:title="a photograph"/></x:xmpmeta>'
    about = {"icc_profile": PROFILE, "dpi": (300.0, 150.0), "exif": camera.tobytes(), "xmp": xmp}
    given = Picture(pixels, levels[..., 3] if alpha else None, bits, about)
    files.write(tmp_path / f"a{suffix}", given)
    found = files.read(tmp_path / f"a{suffix}")
    assert found.about["icc_profile"] == PROFILE and found.bits == bits
    if (bits, channels, alpha, suffix) != (16, 1, True, ".tif"):  # which Pillow does not know
        assert found.about["xmp"] == xmp
    if suffix != ".webp":  # has no resolution
        np.testing.assert_allclose(found.about["dpi"], (300, 150), rtol=2e-3)
    if (bits, channels, alpha, suffix) != (16, 1, True, ".tif"):  # which Pillow does not know
        again = Image.Exif()
        again.load(found.about["exif"])
        assert again[0x010F] == "a camera"
    if suffix in (".png", ".tif") or alpha:
        np.testing.assert_array_equal(found.pixels, pixels)
        assert (found.alpha is None) != alpha
        if alpha:
            np.testing.assert_array_equal(found.alpha, levels[..., 3])
    if (bits, channels, alpha, suffix) != (16, 1, True, ".tif"):  # which Pillow does not know
        with Image.open(tmp_path / f"a{suffix}") as image:
            image.load()


def test_several_frames_are_refused(tmp_path):
    frames = [Image.fromarray(RGB8), Image.fromarray(RGB8[::-1])]
    for name in ("a.gif", "a.webp", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(ValueError, match=f"{name} is an animation of 2 frames"):
            files.read(tmp_path / name)
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=r"a\.tif has 2 pages"):
        files.read(tmp_path / "a.tif")


def test_too_many_pixels_are_said(tmp_path, monkeypatch):
    Image.fromarray(RGB8).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(ValueError, match=r"a\.png has more than 40 pixels"):
        files.read(tmp_path / "a.png")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_small_copy_in_a_raw_photograph_is_not_the_picture(tmp_path, dtype):
    """As DNG has it: first the copy, and below it the samples of the sensor."""
    raw = RNG.integers(0, 4096, (96, 144), dtype=np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.dng") as file:
        file.write(RGB8.astype(dtype), photometric="rgb", subfiletype=1, subifds=1, metadata=None)
        file.write(raw, photometric=32803, metadata=None)
    with pytest.raises(ValueError, match=r"a\.dng must be a picture, got a small copy of a photograph"):
        files.read(tmp_path / "a.dng")
    for read in (images.read, lambda path: list(images.Animation(path))):
        with pytest.raises(
            ValueError, match=r"a\.dng must be an image .*, got: a small copy of a photograph"
        ):
            read(tmp_path / "a.dng")
    # A picture above its own small copies is one.
    with tifffile.TiffWriter(tmp_path / "b.tif") as file:
        file.write(RGB8.astype(dtype), photometric="rgb", subifds=1, metadata=None)
        file.write(RGB8[::2, ::2].astype(dtype), photometric="rgb", subfiletype=1, metadata=None)
    top = np.float32(np.iinfo(dtype).max)
    np.testing.assert_array_equal(files.read(tmp_path / "b.tif").pixels, RGB8.astype(dtype) / top)
    assert images.read(tmp_path / "b.tif").shape == RGB8.shape


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_that_claims_more_than_it_holds(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((4, 4), dtype), compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        for tag in (256, 257, 278):
            file.pages[0].tags[tag].overwrite(2**25)
    with pytest.raises(
        ValueError, match=r"a\.tif cannot be read: .* its header is damaged, or the file was cut"
    ):
        files.read(tmp_path / "a.tif")


def test_image_folder_reads_alike(tmp_path):
    """16 bits were cut off at 255, and photographs lay on their side."""
    files.write(tmp_path / "a.png", Picture(GRAY16 / np.float32(65535), None, 16))
    Image.fromarray(RGB8).save(tmp_path / "b.png", exif=exif(6))
    gray, rgb = ImageFolder(tmp_path, "L"), ImageFolder(tmp_path, "RGB")
    np.testing.assert_array_equal(gray[0], np.rint(GRAY16 / 257).astype(np.uint8))
    np.testing.assert_array_equal(rgb[0][..., 1], gray[0])
    np.testing.assert_array_equal(rgb[1], upright(RGB8, 6))
    np.testing.assert_array_equal(
        gray[1], np.asarray(Image.fromarray(np.ascontiguousarray(upright(RGB8, 6))).convert("L"))
    )


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
def test_an_orientation_in_xmp_turns_the_picture_once(tmp_path, suffix):
    xmp = b'<x:xmpmeta><rdf tiff:Orientation="6"/></x:xmpmeta>'
    files.write(tmp_path / f"a{suffix}", Picture(np.zeros((6, 9, 3), np.float32), about={"xmp": xmp}))
    found = files.read(tmp_path / f"a{suffix}")
    assert found.pixels.shape == (9, 6, 3) and found.about["xmp"] == xmp.replace(b'"6"', b'"1"')
    files.write(tmp_path / f"b{suffix}", found)
    again = files.read(tmp_path / f"b{suffix}")
    assert again.pixels.shape == (9, 6, 3) and again.about["xmp"] == found.about["xmp"]


def _chunks(path):
    """Names and contents in a PNG."""
    data, at, found = path.read_bytes(), 8, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += size + 12
    return found


@pytest.mark.parametrize("bits, channels", [(8, 1), (8, 3), (16, 1), (16, 3)])
def test_how_a_png_means_its_colors_is_kept(tmp_path, bits, channels):
    """Without gAMA or cICP the same numbers look different; texts are kept, but for EXIF as text, which turns the picture."""
    said = [(b"cHRM", b"\1" * 32), (b"gAMA", (10**5).to_bytes(4, "big")), (b"cICP", bytes([9, 16, 0, 1]))]
    said += [(b"tEXt", b"Author\0me"), (b"iTXt", b"Comment\0\0\0\0\0so")]
    other = (b"tEXt", b"Raw profile type exif\0x")
    pixels = RNG.integers(0, 2**bits, (6, 9, 3)[: 3 if channels == 3 else 2]).astype(np.float32) / (
        2**bits - 1
    )
    written = tmp_path / "a.png"
    files.write(written, Picture(pixels, None, bits, {"png": [*said, other]}))
    found = files.read(written)
    assert found.about["png"] == said
    np.testing.assert_array_equal(found.pixels, pixels.astype(np.float32))
    files.write(tmp_path / "b.png", found)
    assert [chunk for chunk in _chunks(tmp_path / "b.png") if chunk in said] == said
    with pytest.warns(
        UserWarning, match="b.tif: colors will look different, because only PNG keeps the cICP of the input"
    ):
        files.write(tmp_path / "b.tif", found)


@pytest.mark.parametrize("data", [RGB8, GRAY8])
def test_the_profile_of_a_jpeg_2000_is_kept(tmp_path, data):
    """In the place of the box "colr" that Pillow writes, one with a profile (ISO/IEC 15444-1, I.5.3.3)."""
    data = np.kron(data, np.ones((8, 8) + (1,) * (data.ndim - 2), np.uint8))
    Image.fromarray(data).save(tmp_path / "a.jp2")
    plain = (tmp_path / "a.jp2").read_bytes()
    outer, inner = plain.index(b"jp2h") - 4, plain.index(b"colr") - 4
    (outside,), (inside,) = (struct.unpack_from(">I", plain, at) for at in (outer, inner))
    colors = struct.pack(">I4sBBB", 11 + len(PROFILE), b"colr", 2, 0, 0) + PROFILE
    header = plain[outer + 4 : inner] + colors + plain[inner + inside : outer + outside]
    (tmp_path / "b.jp2").write_bytes(
        plain[:outer] + struct.pack(">I", 4 + len(header)) + header + plain[outer + outside :]
    )
    assert "icc_profile" not in files.read(tmp_path / "a.jp2").about
    found = files.read(tmp_path / "b.jp2")
    assert found.about["icc_profile"] == PROFILE
    np.testing.assert_array_equal(np.rint(255 * found.pixels), data)


def test_a_bmp_says_that_it_keeps_no_profile(tmp_path):
    with pytest.warns(
        UserWarning, match=r"b\.bmp: colors may look different, because BMP keeps no color profile"
    ):
        files.write(tmp_path / "b.bmp", Picture(RGB8 / np.float32(255), None, 8, {"icc_profile": PROFILE}))


def test_what_the_camera_did_is_kept_in_a_tiff_of_16_bits(tmp_path):
    """As tifffile reads it, which has nothing to do with how it was written."""
    taken = Image.Exif()
    taken.get_ifd(0x8769).update({0x9003: "2020:01:01 00:00:00", 33434: (1, 50), 34855: 200, 0x927C: b"note"})
    taken.get_ifd(0x8825).update({0: b"\2\3\0\0", 1: "N", 2: (52.0, 22.0, 1.5)})
    for pixels, alpha in ((RGB16, None), (RGB16, GRAY16), (GRAY16, GRAY16)):
        given = [None if array is None else array / np.float32(65535) for array in (pixels, alpha)]
        files.write(
            tmp_path / "a.tif", Picture(*given, 16, {"exif": taken.tobytes(), "icc_profile": PROFILE})
        )
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            (page,) = file.pages
            np.testing.assert_array_equal(
                page.asarray().reshape(6, 9, -1)[..., : pixels.ndim * 2 - 3].squeeze(), pixels
            )
            assert page.tags.keys() == sorted(page.tags.keys()) and page.tags[34675].value == PROFILE
            did, place = page.tags[0x8769].value, page.tags[0x8825].value
        assert did["DateTimeOriginal"] == "2020:01:01 00:00:00" and did["ExposureTime"] == (1, 50)
        assert did["ISOSpeedRatings"] == 200 and did["MakerNote"] == b"note"
        assert place["GPSLatitudeRef"] == "N" and place["GPSLatitude"] == (52, 1, 22, 1, 3, 2)


def test_where_and_when_a_tiff_was_taken_is_kept_without_texts(tmp_path):
    taken = Image.Exif()
    taken.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    taken.get_ifd(0x8825)[1] = "N"
    Image.fromarray(RGB8).save(tmp_path / "a.tif", exif=taken.tobytes())
    again = Image.Exif()
    again.load(files.read(tmp_path / "a.tif").about["exif"])
    assert again.get_ifd(0x8769)[0x9003].startswith("2020") and again.get_ifd(0x8825)[1] == "N"


def test_a_tiff_of_4_gb_is_named_that_goes_without_what_the_camera_said(tmp_path, monkeypatch):
    taken = Image.Exif()
    taken.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    monkeypatch.setattr(tifffile, "imwrite", functools.partial(tifffile.imwrite, bigtiff=True))
    picture = Picture(np.zeros((4, 5, 3), np.float32), None, 16, {"exif": taken.tobytes()})
    with pytest.warns(
        UserWarning, match="^" + re.escape(f"{tmp_path / 'a.tif'}, a TIFF of 4 GB, goes without what")
    ):
        files.write(tmp_path / "a.tif", picture)
    assert tifffile.imread(tmp_path / "a.tif").shape == (4, 5, 3)


#: What a JPEG's EXIF may say of a layout: another size, kind of colors, strips, tiles, thumbnail, and color maps.
LAYOUT = {256: 9, 257: 6, 258: 1, 262: 6, 266: 2, 273: 5, 277: 4, 278: 2, 279: 7, 284: 2, 301: (1, 2)}
LAYOUT |= {
    317: 2,
    320: (1, 2, 3),
    322: 16,
    323: 16,
    338: 2,
    339: 3,
    513: 8,
    514: 9,
    529: (1.0,),
    530: (2, 2),
    531: 1,
}


@pytest.mark.parametrize("bits, channels", [(8, 1), (8, 3), (16, 1), (16, 3)])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
@pytest.mark.parametrize("tag", [*LAYOUT, None], ids=str)
def test_the_layout_of_the_input_is_not_that_of_the_output(tmp_path, tag, suffix, bits, channels):
    if bits == 16 and suffix in (".jpg", ".webp"):
        return  # have 8
    camera = exif(6)
    camera.update(LAYOUT if tag is None else {tag: LAYOUT[tag]})
    camera.update({305: "a program", 40091: b"t\0i\0"})
    camera.get_ifd(0x8769).update({0x9003: "2020:01:01 00:00:00", 0xA002: 9, 0xA003: 6})
    Image.fromarray(RGB8).save(tmp_path / "a.png", exif=camera.tobytes())
    about = files.read(tmp_path / "a.png").about
    data = upright({(8, 1): GRAY8, (8, 3): RGB8, (16, 1): GRAY16, (16, 3): RGB16}[bits, channels], 6)
    written = tmp_path / f"b{suffix}"
    files.write(written, Picture((data / np.float32(2**bits - 1)).astype(np.float32), None, bits, about))
    if suffix == ".tif":
        np.testing.assert_array_equal(tifffile.imread(written), data)
    with Image.open(written) as image:
        kept = image.getexif()
        assert image.size == data.shape[1::-1] and kept[305] == "a program"
        if suffix != ".tif":
            assert not set(kept) & set(LAYOUT)
        assert kept[0x010F] == "a camera" and bytes(kept[40091]) == b"t\0i\0"
        assert kept.get_ifd(0x8769)[0x9003].startswith("2020")
        assert not set(kept.get_ifd(0x8769)) & {0xA002, 0xA003}
    if suffix != ".jpg":
        expected = data if channels == 3 or suffix != ".webp" else np.stack([data] * 3, -1)
        np.testing.assert_array_equal(files.read(written).pixels * np.float32(2**bits - 1), expected)
