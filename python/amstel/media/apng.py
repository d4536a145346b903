"""The frames of an animated PNG, composed as its specification says.

Pillow mixes the alpha of a frame that is blended over a canvas like a color, so that a frame over nothing comes out too
dark. Here each frame is handed to Pillow as a picture of its own, and laid on the canvas after that.

Source: W3C, Portable Network Graphics (PNG) Specification (Third Edition), 2025, "Animation information" and "Alpha channel
processing".
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from amstel.media import pictures

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: What a picture needs besides its pixels: how its values are meant.
_SHARED = (b"PLTE", b"tRNS")
_BACKGROUND, _PREVIOUS, _OVER = 1, 2, 1


def frames(path: Path) -> Iterator[tuple[np.ndarray, float]]:
    """The canvas after each frame, uint8 [H, W, 4], and for how many seconds it is shown; the array is the same each time."""
    with open(path, "rb") as file:
        width, height = struct.unpack(">16x2I", file.read(24))
    canvas = np.zeros((height, width, 4), np.uint8)
    for number, (control, png) in enumerate(_pictures(path)):
        _, width, height, x, y, delay, parts, dispose, blend = struct.unpack(">5I2H2B", control)
        picture = _decoded(png)
        part = canvas[y : y + height, x : x + width]
        if part.shape != picture.shape:
            raise ValueError(f"frame {number + 1} lies outside of the picture")
        before = part.copy()
        part[:] = _over(picture, before) if blend == _OVER else picture
        yield canvas, delay / (parts or 100)
        if dispose == _BACKGROUND or (dispose == _PREVIOUS and not number):
            part[:] = 0
        elif dispose == _PREVIOUS:
            part[:] = before


def _decoded(png: bytes) -> np.ndarray:
    data = pictures.of_png(png)
    if data.dtype == np.uint16:
        data = ((data.astype(np.uint32) + 128) // 257).astype(np.uint8)
    data = data[..., None] if data.ndim == 2 else data
    color, alpha = (data[..., :-1], data[..., -1:]) if data.shape[2] in (2, 4) else (data, None)
    found = np.full((*data.shape[:2], 4), 255, np.uint8)
    found[..., :3] = color
    if alpha is not None:
        found[..., 3:] = alpha
    return found


def _over(front: np.ndarray, back: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 4] laid over another."""
    alpha = front[..., 3]
    found = np.where((alpha == 0)[..., None], back, front)
    mixed = (alpha > 0) & (alpha < 255) & (back[..., 3] > 0)
    one, other = front[mixed].astype(np.float64), back[mixed].astype(np.float64)
    share = one[:, 3:] / 255
    rest = (1 - share) * other[:, 3:] / 255
    color = (share * one[:, :3] + rest * other[:, :3]) / (share + rest)
    found[mixed] = np.rint(np.concatenate([color, 255 * (share + rest)], 1))
    return found


def _pictures(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Of each frame its fcTL chunk, and a PNG of its pixels alone."""
    header, control = b"", b""
    shared: list[tuple[bytes, bytes]] = []
    pixels: list[bytes] = []

    def whole() -> tuple[bytes, bytes]:
        own = control[4:12] + header[8:]
        chunks = [(b"IHDR", own), *shared, (b"IDAT", b"".join(pixels)), (b"IEND", b"")]
        return control, _SIGNATURE + b"".join(_chunk(*chunk) for chunk in chunks)

    for name, data in _chunks(path):
        if name == b"IHDR":
            header = data
        elif name in _SHARED:
            shared.append((name, data))
        elif name == b"fcTL":
            if control:
                yield whole()
            control, pixels = data, []
        elif control and name in (b"IDAT", b"fdAT"):  # an IDAT before the first fcTL is no frame
            pixels.append(data if name == b"IDAT" else data[4:])
    if control:
        yield whole()


def _chunks(path: Path) -> Iterator[tuple[bytes, bytes]]:
    with open(path, "rb") as file:
        file.seek(len(_SIGNATURE))
        while len(head := file.read(8)) == 8:
            size, name = struct.unpack(">I4s", head)
            data = file.read(size)
            if len(data) < size:
                raise ValueError("the file ends within a frame")
            file.seek(4, 1)
            yield name, data
            if name == b"IEND":
                return


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
