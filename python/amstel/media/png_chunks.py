"""The chunks of a PNG for color and metadata, which are written again unchanged."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

Chunks = list[tuple[bytes, bytes]]

#: How the numbers are meant, apart from an ICC profile.
COLORS = (b"cHRM", b"gAMA", b"sRGB", b"cICP")
XMP = b"XML:com.adobe.xmp\0"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
#: Of sRGB, which every viewer takes for granted: 1 / 2.2, its primaries, and it by its code points.
_USUAL = {
    b"gAMA": struct.pack(">I", 45455),
    b"cHRM": struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000),
    b"cICP": bytes([1, 13, 0, 1]),
}


def read(path: Path) -> Chunks:
    """The chunks for color and text in a PNG, by name and content, up to the pixels and after them."""
    found: Chunks = []
    profiled = False
    with open(path, "rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            size, name = struct.unpack(">I4s", head)
            profiled |= name == b"iCCP"
            if name in (*COLORS, *_TEXTS):
                content = file.read(size)
                # XMP, which other formats have too; and EXIF as text (ImageMagick's), which would turn the picture again.
                if not content.startswith((XMP, b"Raw profile type")):
                    found.append((name, content))
                size = 0
            file.seek(size + 4, 1)
    return [chunk for chunk in found if chunk[0] != b"sRGB" or not profiled]


def of_xmp(xmp: bytes) -> Chunks:
    """The chunk for XMP: text that is not packed, of no language and no translation."""
    return [(b"iTXt", XMP + bytes(4) + xmp)]


def unusual(chunks: Chunks) -> list[str]:
    """Names of those without which the colors look different: they are not of sRGB, which is taken for granted."""
    named = dict(chunks)
    if b"cICP" in named:  # before all others
        named = {b"cICP": named[b"cICP"]}
    elif b"sRGB" in named:
        return []
    return [name.decode() for name, usual in _USUAL.items() if named.get(name, usual) != usual]


def scale_transparency(image: Any) -> Any:
    """Pillow's image, as it was opened, with the transparent gray in `info` as one of its pixels.

    Pillow scales gray of 2 and 4 bits to 8 (in older releases that of 1, too), and leaves the transparent gray as it is.
    """
    clear = image.info.get("transparency")
    if isinstance(clear, int) and image.format == "PNG" and image.tile:
        raw = re.fullmatch("L;([24])|1", str(image.tile[0][3]))
        if raw and clear <= (top := 2 ** int(raw[1] or 1) - 1):
            image.info["transparency"] = clear * 255 // top
    return image
