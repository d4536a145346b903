"""What a JPEG 2000 file says about its samples and colors, which Pillow does not report.

Source: ISO/IEC 15444-1 (ITU-T T.800), annexes A.5.1 (marker of the sizes) and I (boxes of the file).
"""

from __future__ import annotations

import struct
from pathlib import Path

#: Ways to say the colors: by an ICC profile of a simple kind (JP2), or of any (JPX).
_BY_PROFILE = (2, 3)


def bits(path: Path) -> int:
    """Bits of a sample, 8 or 16; ValueError for those between."""
    data = path.read_bytes()
    start = data.find(b"\xff\x4f\xff\x51")
    found = (data[start + 42] & 127) + 1 if start >= 0 else 8
    if 8 < found < 16:
        raise ValueError(f"{path} must have 8 or 16 bits per sample, got {found}")
    return found


def profile(path: Path) -> bytes | None:
    """The ICC profile, if there is one."""
    for name, header in _boxes(path.read_bytes()):
        for inner, content in _boxes(header) if name == b"jp2h" else ():
            if inner == b"colr" and content[:1] and content[0] in _BY_PROFILE:
                return content[3:]
    return None


def _boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    """The boxes by name and content."""
    found, at = [], 0
    while at + 8 <= len(data):
        size, name, head = *struct.unpack_from(">I4s", data, at), 8
        if size == 1 and at + 16 <= len(data):
            (size,), head = struct.unpack_from(">Q", data, at + 8), 16
        end = at + size if size else len(data)  # 0: to the end of the file
        if end < at + head:
            break
        found.append((name, data[at + head : end]))
        at = end
    return found
