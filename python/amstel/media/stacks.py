"""What a TIFF's header announces, checked against what the file can hold: sizes, pages, ImageJ's single-page stacks."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

#: Bytes for each that is stored, at the most: uncompressed, LZW (strings of 4096 in 12 bits), deflate, PackBits; else more.
_MOST = {1: 1, 5: 2731, 8: 1033, 32946: 1033, 32773: 64}
_MOST_OF_OTHERS = 100_000


def announced(description: Any) -> int:
    """The number of images that ImageJ announces in a TIFF's description; 0 if it announces none.

    Example:
        >>> amstel.media.stacks.announced("ImageJ=1.53t\\nimages=12\\nslices=12")
        12
    """
    found = isinstance(description, str) and re.match(r"ImageJ=(?:.*\n)+?images=([0-9]{1,18})\b", description)
    return int(found[1]) if found else 0


def check_size(page: Any) -> None:
    """ValueError where a page of tifffile is larger than what is stored of it can be."""
    if page.dtype is None:
        return
    needed = math.prod(page.shape) * page.bitspersample // 8
    stored = min(sum(page.databytecounts), page.parent.filehandle.size)
    most = _MOST.get(int(page.compression), _MOST_OF_OTHERS)
    # Tiles of zeros may be left out, equal ones stored once, and colors in fewer places than light.
    if (
        0 in page.databytecounts
        or len(set(page.dataoffsets)) < len(page.dataoffsets)
        or page.photometric == 6
    ):
        most = _MOST_OF_OTHERS
    if needed > most * stored:
        raise ValueError(
            f"{page.imagewidth} x {page.imagelength} pixels, {needed:,} bytes, of which {stored:,} are stored: its header is "
            "damaged, or the file was cut"
        )


def pages(file: Any) -> list[Any]:
    """The pages of tifffile's file; ValueError where they never end."""
    found, seen = [], set()
    for page in file.pages:
        if page.offset in seen:
            raise ValueError("pages that go in a circle: its header is damaged")
        seen.add(page.offset)
        found.append(page)
    return found


def count(pages: list[Any]) -> int:
    """How many images there are: the pages, or where there is only one, those that ImageJ has put one after the other, as of
    more than 4 GB: those that are there, of those that it announces."""
    page = pages[0]
    if len(pages) > 1 or page.dtype is None or int(page.compression) != 1 or not page.dataoffsets:
        return len(pages)
    there = (page.parent.filehandle.size - page.dataoffsets[0]) // max(1, _bytes(page))
    return max(1, min(announced(page.tags.valueof(270)), there))


def image(page: Any, number: int) -> np.ndarray:
    """Image `number` after that of the only page, as tifffile gives that."""
    dtype = page.dtype.newbyteorder(page.parent.byteorder)
    offset = page.dataoffsets[0] + number * _bytes(page)
    data = np.fromfile(page.parent.filehandle.path, dtype, math.prod(page.shape), offset=offset)
    return data.astype(page.dtype).reshape(page.shape)


def _bytes(page: Any) -> int:
    return math.prod(page.shape) * page.dtype.itemsize


def not_mapped(image: Any) -> Any:
    """Pillow's image of a TIFF, which it maps into memory by its size when turned: the rows of one that is not turned yet
    would be mixed up."""
    if image.format == "TIFF":
        image.filename = ""
    return image
