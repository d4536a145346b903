"""Headers of TIFF that claim more than their file holds, and ImageJ's stacks of a single page."""

import struct
import tracemalloc
import warnings

import numpy as np
import pytest

from amstel import video
from amstel.media import images, pictures, stacks

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("PIL")

STACK = np.random.default_rng(0).integers(0, 256, (3, 7, 9)).astype(np.uint8)


def imagej(path, claimed, dtype, held=3):
    """As ImageJ saves more than 4 GB: one page, and the images one after the other."""
    data = STACK.astype(dtype) * (257 if dtype == "uint16" else 1)
    said = f"ImageJ=1.53t\nimages={claimed}\nslices={claimed}\nloop=false\n"
    tifffile.imwrite(path, data[0], description=said, metadata=None, byteorder=">", photometric="minisblack")
    with path.open("ab") as file:
        file.write(data[1:held].astype(data.dtype.newbyteorder(">")).tobytes())


@pytest.fixture(autouse=True)
def nothing_is_allocated_that_is_not_there():
    tracemalloc.start()
    yield
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 100e6


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_stack_of_imagej_with_a_single_page_has_all_its_images(tmp_path, dtype):
    path = tmp_path / "a.tif"
    imagej(path, 3, dtype)
    frames = video.read(path).numpy()
    np.testing.assert_array_equal(frames, np.repeat(STACK[..., None], 3, -1))
    with pytest.raises(ValueError, match=r"a\.tif has 3 pages; only single images"):
        pictures.read(path)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("claimed", [4, 10**9])
@pytest.mark.parametrize("held", [1, 3])
def test_a_stack_that_announces_more_than_is_there_says_so(tmp_path, dtype, claimed, held):
    path = tmp_path / "a.tif"
    imagej(path, claimed, dtype, held)
    said = rf"a\.tif is damaged or cut: it announces {claimed} images; frame {held} is the last"
    with pytest.warns(UserWarning, match=said):
        frames = video.read(path)
    assert len(frames) == held
    tifffile.imwrite(path, STACK, imagej=True)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"images=3\n", b"images=9\n"))
    with pytest.warns(UserWarning, match="it announces 9 images; frame 3 is the last"):
        assert len(video.read(path)) == 3
    path.write_bytes(whole)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(video.read(path)) == 3


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("compression", [None, "zlib", "packbits", "lzma"])
@pytest.mark.parametrize("size", [9000, 60_000, 2**31 - 1])
def test_a_size_that_the_file_cannot_hold(tmp_path, dtype, channels, compression, size):
    path = tmp_path / "a.tif"
    if compression == "packbits":
        tifffile.imwrite(path, np.zeros((8, 8, channels), dtype).squeeze(), metadata=None)
        with tifffile.TiffFile(path, mode="r+") as file:
            file.pages[0].tags[259].overwrite(32773)
    else:
        kind = {"compression": compression, "photometric": "rgb" if channels == 3 else "minisblack"}
        tifffile.imwrite(path, np.ones((8, 8, channels), dtype).squeeze(), metadata=None, **kind)
    with tifffile.TiffFile(path, mode="r+") as file:
        for tag in (256, 257):
            file.pages[0].tags[tag].overwrite(size)
    with pytest.raises(
        ValueError, match=rf"a\.tif cannot be read: {size} x {size} pixels, [\d,]+ bytes, of which"
    ):
        pictures.read(path)
    with pytest.raises(ValueError, match=r"a\.tif must be an image that can be read, got: "):
        images.read(path)
    with pytest.raises(OSError, match="is not an image"):
        pictures.pixel_count(path)


def test_pages_that_go_in_a_circle(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[:2].astype(np.uint16), metadata=None, photometric="minisblack")
    data = bytearray(path.read_bytes())

    def after(directory):
        place = directory + 2 + 12 * struct.unpack_from("<H", data, directory)[0]
        return place, struct.unpack_from("<I", data, place)[0]

    (first,) = struct.unpack_from("<I", data, 4)
    second = after(first)[1]
    struct.pack_into("<I", data, after(second)[0], first)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.tif must be a picture, got pages that go in a circle"):
        pictures.read(path)
    assert len(video.read(path)) == 2  # as Pillow has it


def test_what_is_left_out_of_a_file_on_purpose_is_no_damage(tmp_path):
    """Twelve bits, and tiles of zeros that are not stored, as GDAL writes them."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64), np.uint16), tile=(16, 16), metadata=None)
    with tifffile.TiffFile(path, mode="r+") as file:
        count = len(file.pages[0].databytecounts)
        for tag in (324, 325):
            file.pages[0].tags[tag].overwrite([0] * (count - 1) + [file.pages[0].tags[tag].value[-1]])
    assert not pictures.read(path).pixels.any()
    assert stacks.announced("ImageJ=1\nimages=x") == 0 == stacks.announced(None)
