"""Pictures that are to be turned, and the resolution that they say they have: none where they say nothing."""

import numpy as np
import pytest

from amstel.apps.restoration import files
from amstel.media import images, pictures

Image = pytest.importorskip("PIL.Image")
tifffile = pytest.importorskip("tifffile")

RGB = np.zeros((6, 9, 3), np.uint8)


@pytest.mark.parametrize("mode", ["1", "P", "CMYK", "LAB", "L", "RGB"])
def test_a_tiff_that_says_no_resolution_has_none(tmp_path, mode):
    """Pillow takes 1 by 1 pixel per inch there, which the result then claimed."""
    image = Image.fromarray(RGB).convert(mode) if mode != "LAB" else Image.new("LAB", (9, 6))
    image.save(tmp_path / "none.tif")
    assert "dpi" not in pictures.read(tmp_path / "none.tif").about
    image.save(tmp_path / "some.tif", dpi=(300, 150))
    assert pictures.read(tmp_path / "some.tif").about["dpi"] == (300, 150)
    image.save(tmp_path / "metric.tif", x_resolution=100, y_resolution=50, resolution_unit="cm")
    np.testing.assert_allclose(pictures.read(tmp_path / "metric.tif").about["dpi"], (254, 127))


def test_a_jpeg_has_the_resolution_of_its_exif_or_none(tmp_path):
    """Pillow takes 72 where EXIF says nothing, and one number for both sides where it says two."""
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    Image.fromarray(RGB).save(tmp_path / "none.jpg", exif=exif)
    assert "dpi" not in pictures.read(tmp_path / "none.jpg").about
    for unit, factor in ((2, 1), (3, 2.54)):
        exif[282], exif[283], exif[296] = 300.0, 150.0, unit
        Image.fromarray(RGB).save(tmp_path / "some.jpg", exif=exif)
        found = pictures.read(tmp_path / "some.jpg").about["dpi"]
        np.testing.assert_allclose(found, (300 * factor, 150 * factor))
    Image.fromarray(RGB).save(tmp_path / "own.jpg", exif=exif, dpi=(72, 36))
    assert pictures.read(tmp_path / "own.jpg").about["dpi"] == (72, 36)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "jpg", "exif.jpg", "tif", "packed.tif", "cmyk.tif"])
def test_a_picture_is_turned_with_its_resolution(tmp_path, kind, orientation):
    path, exif = tmp_path / f"a.{kind}", Image.Exif()
    exif[0x0112] = orientation
    if kind == "exif.jpg":
        exif[282], exif[283], exif[296] = 300.0, 150.0, 2
        Image.fromarray(RGB).save(path, exif=exif)
    elif kind in ("tif", "packed.tif"):
        how = {"compression": "zlib"} if kind == "packed.tif" else {}
        tags = [(274, 3, 1, orientation, True)]
        tifffile.imwrite(
            path, RGB, photometric="rgb", resolution=(300, 150), resolutionunit=2, extratags=tags, **how
        )
    else:
        image = Image.fromarray(RGB).convert("CMYK" if kind == "cmyk.tif" else "RGB")
        image.save(path, exif=exif, dpi=(300, 150))
    turned = orientation > 4
    for _ in range(2):  # read, and read again from what was written of it
        found = pictures.read(path)
        assert found.pixels.shape[:2] == ((9, 6) if turned else (6, 9))
        np.testing.assert_allclose(found.about["dpi"], (150, 300) if turned else (300, 150), rtol=1e-3)
        if kind == "exif.jpg":
            again = Image.Exif()
            again.load(found.about["exif"])
            assert (again[282], again[283]) == ((150, 300) if turned else (300, 150))
        path = tmp_path / "b.png"
        files.write(path, found)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "RGB"])
def test_a_tiff_without_compression_is_turned(tmp_path, mode, orientation):
    """Pillow mixes the rows up where it maps such a file into memory."""
    image = Image.fromarray(np.arange(0, 216, 4, dtype=np.uint8).reshape(6, 9)).convert(mode)
    wanted = np.asarray(image.convert("L"))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.tif", exif=exif)
    wanted = pictures.upright(wanted, orientation)
    found = pictures.read(tmp_path / "a.tif").pixels
    np.testing.assert_array_equal(np.rint(255 * (found if found.ndim == 2 else found[..., 0])), wanted)
    np.testing.assert_array_equal(images.read(tmp_path / "a.tif")[..., 0], wanted)
