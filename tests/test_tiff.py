"""TIFF of every layout and compression, through tifffile and, where that lacks the package imagecodecs, libtiff."""

import sys
from pathlib import Path

import numpy as np
import pytest

from amstel.media import images, pictures, segments

tifffile = pytest.importorskip("tifffile")
Image, cv2 = pytest.importorskip("PIL.Image"), pytest.importorskip("cv2")

PLACES = np.random.default_rng(0).integers(0, 9, (37, 45, 4))


def pixels(dtype, channels):
    top = 1.0 if dtype == "float32" else np.iinfo(dtype).max
    data = (PLACES[..., :channels] * (top / 9)).astype(dtype)
    return data[..., 0] if channels == 1 else data


def lzw(data, **_):
    """Without any compression: every byte by itself, in 9 bits, and a new table before there are more."""
    codes = []
    for at in range(0, len(data), 250):
        codes += [256, *data[at : at + 250]]
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


@pytest.fixture
def with_lzw(monkeypatch):
    monkeypatch.setitem(tifffile.TIFF.COMPRESSORS._codecs, 5, lambda data, **_: lzw(bytes(data)))
    monkeypatch.setitem(sys.modules, "imagecodecs", None)


@pytest.mark.parametrize("layout", [{}, {"tile": (16, 32)}, {"rowsperstrip": 5}, {"byteorder": ">"}], ids=str)
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_lzw_loses_no_bit(tmp_path, with_lzw, dtype, channels, planar, layout):
    if channels == 1 and planar == "separate":
        return
    data, order = pixels(dtype, channels), layout.get("byteorder", "<")
    layout = {name: value for name, value in layout.items() if name != "byteorder"}
    kind = {"photometric": "rgb" if channels > 2 else "minisblack", "metadata": None}
    if channels > 1:
        kind["planarconfig"] = planar
    if channels in (2, 4):
        kind["extrasamples"] = ["unassalpha"]
    stored = data if planar == "contig" else np.moveaxis(data, -1, 0)
    for predictor in (False, True) if dtype != "float32" else (False,):
        path = tmp_path / "a.tif"
        with tifffile.TiffWriter(path, byteorder=order) as writer:
            writer.write(stored, compression="lzw", predictor=predictor, **kind, **layout)
        found = pictures.read(path)
        top = 1 if dtype == "float32" else np.iinfo(dtype).max
        expected = data.astype(np.float32) / np.float32(top)
        colors = expected if channels in (1, 3) else expected[..., :-1]
        np.testing.assert_array_equal(found.pixels, colors[..., 0] if channels == 2 else colors)
        if channels in (2, 4):
            np.testing.assert_array_equal(found.alpha, expected[..., -1])
        assert found.bits == (8 if dtype == "uint8" else 16)
        np.testing.assert_array_equal(images.read(path), images._levels(data, None))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma"])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGB", "L", "I;16"])
def test_what_pillow_writes(tmp_path, compression, mode):
    image = Image.fromarray(pixels("uint8", 4))
    image = Image.fromarray(pixels("uint16", 1)) if mode == "I;16" else image.convert(mode)
    image.save(tmp_path / "a.tif", compression=compression)
    found, data = pictures.read(tmp_path / "a.tif"), np.asarray(image)
    expected = data.astype(np.float32) / np.float32(np.iinfo(data.dtype).max)
    if mode[-1] == "A":
        np.testing.assert_array_equal(found.alpha, expected[..., -1])
        expected = expected[..., :-1] if mode == "RGBA" else expected[..., 0]
    np.testing.assert_array_equal(found.pixels, expected)


@pytest.mark.parametrize("compression", [1, 5, 8, 32773])
@pytest.mark.parametrize("predictor", [1, 2, 3])
@pytest.mark.parametrize("dtype, channels", [("uint8", 4), ("uint16", 3), ("uint16", 4), ("float32", 3)])
def test_what_opencv_writes(tmp_path, compression, predictor, dtype, channels):
    """And with differences of floating point, which tifffile reads without imagecodecs in no compression."""
    if (predictor == 3) != (dtype == "float32") or (compression == 1 and predictor > 1):
        return
    data, path = pixels(dtype, channels), tmp_path / "a.tif"
    options = [cv2.IMWRITE_TIFF_COMPRESSION, compression, cv2.IMWRITE_TIFF_PREDICTOR, predictor]
    assert cv2.imwrite(str(path), data[..., [2, 1, 0, 3][:channels]], options)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        assert page.compression == compression
        if compression != 1:
            np.testing.assert_array_equal(segments.samples(page), data)
    found = pictures.read(path)
    top = 1 if dtype == "float32" else np.iinfo(dtype).max
    np.testing.assert_array_equal(found.pixels, data[..., :3].astype(np.float32) / np.float32(top))


def test_a_compression_that_nothing_here_reads_says_what_to_install(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels("uint16", 3), photometric="rgb")
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags[259].overwrite(34887)
    with pytest.raises(
        ValueError, match=r"a\.tif cannot be read: .*LERC.*imagecodecs.*pip install imagecodecs"
    ):
        pictures.read(path)
    with pytest.raises(
        ValueError, match=r"a\.tif must be an image that can be read, got: .*pip install imagecodecs"
    ):
        images.read(path)


@pytest.mark.parametrize("cut", [200, 900])
def test_lzw_that_was_cut(tmp_path, with_lzw, cut):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, pixels("uint16", 4), photometric="rgb", compression="lzw", extrasamples=["unassalpha"]
    )
    Path(path).write_bytes(path.read_bytes()[:-cut])
    with pytest.raises((OSError, ValueError), match=r"a\.tif"):
        pictures.read(path)
    with pytest.raises(ValueError, match=r"a\.tif"):
        images.read(path)
