"""TIFF pages that tifffile reads only with the package imagecodecs: LZW, Zstandard, or floating point as differences.

Strips and tiles are decoded by libtiff, to which Pillow hands each as the gray pixels of a file of its own.
"""

from __future__ import annotations

import io
import struct
import warnings
from typing import Any

import numpy as np

from amstel._optional import need

#: LZW, deflate, PackBits, LZMA, Zstandard.
_COMPRESSIONS = (5, 8, 32946, 32773, 34925, 50000)


def samples(page: Any) -> np.ndarray | None:
    """The samples of tifffile's page in the order in which it gives them; None where this does not know the kind."""
    depth = max(page.imagedepth, getattr(page, "tiledepth", 1) or 1)
    plain = page.compression in _COMPRESSIONS and page.predictor in (1, 2, 3) and page.fillorder == 1
    if not plain or depth > 1 or page.dtype is None or page.bitspersample not in (8, 16, 32, 64):
        return None
    height, width = page.imagelength, page.imagewidth
    planes, each = (page.samplesperpixel, 1) if page.planarconfig == 2 else (1, page.samplesperpixel)
    rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, width)
    rows = rows if page.is_tiled else min(rows, height)
    down, across = -(-height // rows), -(-width // columns)
    found = np.zeros((planes, height, width, each), page.dtype)
    file = page.parent.filehandle
    places = zip(page.dataoffsets, page.databytecounts, strict=True)
    for number, (offset, count) in enumerate(places):
        plane, at = divmod(number, down * across)
        top, left = at // across * rows, at % across * columns
        if plane >= planes or not count:  # a tile without data is of zeros
            continue
        high = rows if page.is_tiled else min(rows, height - top)
        file.seek(offset)
        shape = high, columns, each
        data = _decoded(file.read(count), page.compression, high * columns * each * page.dtype.itemsize)
        part = _sums(data, shape, page)[: height - top, : width - left]
        found[plane, top : top + part.shape[0], left : left + part.shape[1]] = part
    return found.reshape(page.shape)


def _decoded(data: bytes, compression: int, size: int) -> bytes:
    tags = {256: size, 257: 1, 258: 8, 259: compression, 262: 1, 273: 122, 277: 1, 278: 1, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    whole = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the number of pixels, which is that of the page
        with need("PIL.Image", extra=("video", "restore"), purpose="TIFF").open(io.BytesIO(whole)) as image:
            return image.tobytes()


def _sums(data: bytes, shape: tuple[int, int, int], page: Any) -> np.ndarray:
    """The samples [rows, columns, samples] of differences from the left, if they are such."""
    rows, columns, each = shape
    dtype, size = page.dtype.newbyteorder(page.parent.byteorder), page.dtype.itemsize
    if page.predictor == 1:
        return np.frombuffer(data, dtype).reshape(shape)
    if page.predictor == 2:
        whole = np.frombuffer(data, dtype.str.replace("f", "u")).reshape(shape)
        sums = whole.cumsum(1, dtype=whole.dtype.newbyteorder("="))
        return sums.view(page.dtype)
    # Of floating point the bytes, first all of the highest, then all of the next.
    sums = np.frombuffer(data, np.uint8).reshape(rows, columns * size, each).cumsum(1, dtype=np.uint8)
    ordered = np.ascontiguousarray(sums.reshape(rows, size, columns * each).swapaxes(1, 2))
    return ordered.view(page.dtype.newbyteorder(">")).reshape(shape)
