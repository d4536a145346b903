"""ICC profiles: pictures and frames are given in sRGB, as a viewer shows them."""

import io
import struct

import numpy as np
import pytest

from amstel import video
from amstel.media import images, profiles

Image, cms = pytest.importorskip("PIL.Image"), pytest.importorskip("PIL.ImageCms")

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)
S_RGB = cms.ImageCmsProfile(cms.createProfile("sRGB")).tobytes()


def tag(kind, content):
    return kind + bytes(4) + content


def profile(space, **tags):
    """A profile of version 2: a curve of the number 1.0 stands for light itself."""
    tags = {"wtpt": tag(b"XYZ ", fixed(0.9642, 1, 0.8249)), **tags}
    at, table, data = 132 + 12 * len(tags), len(tags).to_bytes(4, "big"), b""
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name.encode() + (at + len(data)).to_bytes(4, "big") + len(content).to_bytes(4, "big")
        data += content
    white = fixed(0.9642, 1, 0.8249)
    head = bytes(8) + b"\x02\x10\0\0" + b"mntr" + space + b"XYZ " + bytes(12) + b"acsp" + bytes(28) + white
    head += bytes(128 - len(head))
    whole = head + table + data
    return len(whole).to_bytes(4, "big") + whole[4:]


def fixed(*numbers):
    return b"".join(round(n * 65536).to_bytes(4, "big", signed=True) for n in numbers)


LINEAR = tag(b"curv", bytes(4))
#: The primaries of sRGB in another order, so that red is shown as green, and gray without gamma.
TURNED = profile(
    b"RGB ",
    rXYZ=tag(b"XYZ ", fixed(0.3851, 0.7169, 0.0971)),
    gXYZ=tag(b"XYZ ", fixed(0.1431, 0.0606, 0.7141)),
    bXYZ=tag(b"XYZ ", fixed(0.4361, 0.2225, 0.0139)),
    **dict.fromkeys(
        ("rTRC", "gTRC", "bTRC"), tag(b"curv", (1).to_bytes(4, "big") + (563).to_bytes(2, "big"))
    ),
)
GRAY = profile(b"GRAY", kTRC=LINEAR)


def shown(pixels, icc):
    """By LittleCMS itself."""
    given = cms.ImageCmsProfile(io.BytesIO(icc))
    image = Image.fromarray(pixels)
    return np.asarray(cms.profileToProfile(image, given, cms.createProfile("sRGB"), outputMode="RGB"))


def near(found, expected):
    assert found.dtype == np.uint8 and found.shape == expected.shape
    assert abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
@pytest.mark.parametrize("icc", [TURNED, S_RGB, b"no profile", None])
def test_pictures_are_given_in_srgb(tmp_path, ending, icc):
    options = {"lossless": True} if ending == "webp" else {}
    Image.fromarray(RGB).save(tmp_path / f"a.{ending}", icc_profile=icc, **options)
    expected = shown(RGB, TURNED) if icc == TURNED else RGB
    if icc == TURNED:
        assert abs(expected[..., [1, 2, 0]].astype(int) - RGB).max() < 12  # red has become green
    near(images.read(tmp_path / f"a.{ending}"), expected)
    near(video.read(tmp_path, strip=False)[0].numpy(), expected)
    with Image.open(tmp_path / f"a.{ending}") as image:
        near(images.image_array("image", image), expected)


@pytest.mark.parametrize("icc", [TURNED, GRAY])
def test_jpeg_2000_is_given_in_srgb(tmp_path, icc):
    """In the place of the box "colr" that Pillow writes, one with a profile (ISO/IEC 15444-1, I.5.3.3)."""
    data = np.kron(RGB if icc == TURNED else RGB[..., :1], np.ones((8, 8, 1), np.uint8))
    data = data if icc == TURNED else data[..., 0]
    Image.fromarray(data).save(tmp_path / "a.jp2")
    plain = (tmp_path / "a.jp2").read_bytes()
    outer, inner = plain.index(b"jp2h") - 4, plain.index(b"colr") - 4
    (outside,), (inside,) = (struct.unpack_from(">I", plain, at) for at in (outer, inner))
    colors = struct.pack(">I4sBBB", 11 + len(icc), b"colr", 2, 0, 0) + icc
    header = plain[outer + 4 : inner] + colors + plain[inner + inside : outer + outside]
    box = struct.pack(">I", 4 + len(header)) + header
    (tmp_path / "a.jp2").write_bytes(plain[:outer] + box + plain[outer + outside :])
    near(images.read(tmp_path / "a.jp2"), shown(data, icc))


@pytest.mark.parametrize("ending", ["png", "webp", "tif"])
def test_every_frame_of_an_animation_is_given_in_srgb(tmp_path, ending):
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    options = {"lossless": True} if ending == "webp" else {}
    path = tmp_path / f"a.{ending}"
    frames[0].save(path, save_all=True, append_images=frames[1:], icc_profile=TURNED, **options)
    if ending == "tif":  # of which every page has its own
        tifffile = pytest.importorskip("tifffile")
        extra = [(34675, 7, len(TURNED), TURNED, True)]
        with tifffile.TiffWriter(path) as writer:
            writer.write(RGB, photometric="rgb", extratags=extra, metadata=None)
            writer.write(255 - RGB, photometric="rgb", metadata=None)
    found = video.read(path).numpy()
    near(found[0], shown(RGB, TURNED))
    near(found[1], 255 - RGB if ending == "tif" else shown(255 - RGB, TURNED))


def test_gray_deep_and_transparent_pictures(tmp_path):
    gray, alpha = np.ascontiguousarray(RGB[..., 0]), np.ascontiguousarray(RGB[..., 1])
    expected = shown(gray, GRAY)
    assert abs(expected[..., 0].astype(int) - gray).max() > 20
    Image.fromarray(gray).save(tmp_path / "a.png", icc_profile=GRAY)
    near(images.read(tmp_path / "a.png"), expected)
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "b.png", icc_profile=GRAY)
    near(images.read(tmp_path / "b.png"), expected)
    Image.fromarray(RGB).save(tmp_path / "c.png", icc_profile=GRAY)  # a profile of no color
    near(images.read(tmp_path / "c.png"), RGB)
    rgba = np.concatenate([RGB, alpha[..., None]], -1)
    Image.fromarray(rgba).save(tmp_path / "d.png", icc_profile=TURNED)
    near(
        images.read(tmp_path / "d.png"),
        images.on_black(np.concatenate([shown(RGB, TURNED), alpha[..., None]], -1)),
    )
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "e.tif", RGB.astype(np.uint16) * 257, photometric="rgb", iccprofile=TURNED)
    near(images.read(tmp_path / "e.tif"), shown(RGB, TURNED))


def test_cmyk_without_a_profile_is_as_before(tmp_path):
    cmyk = Image.fromarray(RGB).convert("CMYK")
    for icc in (None, TURNED):
        cmyk.save(tmp_path / "a.tif", icc_profile=icc)
        near(images.read(tmp_path / "a.tif"), np.asarray(cmyk.convert("RGB")))
    assert profiles.of_cmyk(cmyk) is None
