"""What a picture says of its resolution, in pixels per inch across and down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Values of the EXIF tag 0x0112 by which what was across is down.
TURNED = (5, 6, 7, 8)
_ACROSS, _DOWN, _UNIT = 282, 283, 296


def by_pillow(image: Any, exif: Mapping[int, Any]) -> tuple[float, float] | None:
    """Of Pillow's image as it is stored; None where it says nothing."""
    dpi = image.info.get("dpi")
    # Pillow takes 1 for what a TIFF does not say, and 72 for what the EXIF of a JPEG does not.
    if image.format == "TIFF" and _ACROSS not in image.tag_v2:
        return None
    if image.format in ("JPEG", "MPO") and image.info.get("jfif_unit") not in (1, 2):
        return of_tags(exif.get(_ACROSS), exif.get(_DOWN), exif.get(_UNIT, 2))
    return of_tags(dpi[0], dpi[1], 2) if dpi else None


def of_page(page: Any) -> tuple[float, float] | None:
    """Of a page of tifffile's."""
    across, down = (page.tags.valueof(tag) for tag in (_ACROSS, _DOWN))
    if not all(side and side[1] for side in (across, down)):
        return None
    return of_tags(across[0] / across[1], down[0] / down[1], int(page.tags.valueof(_UNIT, 2)))


def of_tags(across: Any, down: Any, unit: Any) -> tuple[float, float] | None:
    """By the values of TIFF's and EXIF's tags, of which `unit` is 2 for inches and 3 for centimeters."""
    try:
        x, y = (float(side) * {2: 1, 3: 2.54}[unit] for side in (across, across if down is None else down))
    except (TypeError, ValueError, KeyError, ZeroDivisionError):
        return None
    return (x, y) if 0 < x < 1e6 and 0 < y < 1e6 else None


def seen(dpi: tuple[float, float], orientation: int) -> tuple[float, float]:
    """Of the picture as it is to be seen."""
    return (dpi[1], dpi[0]) if orientation in TURNED else dpi


def turn(exif: Any, orientation: int) -> None:
    """The same of EXIF, in place."""
    sides = [(tag, exif.get(other)) for tag, other in ((_ACROSS, _DOWN), (_DOWN, _ACROSS))]
    for tag, value in sides if orientation in TURNED else ():
        exif.pop(tag, None)
        if value is not None:
            exif[tag] = value
