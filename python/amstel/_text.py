"""Tables of numbers in text files, with every line checked: missing or invalid numbers are never guessed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from amstel._files import there
from amstel._words import counted

#: What float32 holds without a loss, of which the features become that are no floating-point array.
SINGLE = "floating-point numbers, or integers from -2^24 to 2^24"

_INTEGER = rb"[+-]?[0-9]{1,18}"
_NUMBER = rb"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,9})?"
_SPACE = rb"[ \t]*"


def table(
    path: Path,
    dtype: type,
    columns: int | None = None,
    lines: int | None = None,
    reader: str = "",
    separator: str = ",",
) -> np.ndarray:
    """The numbers of a file, [lines, columns]: int64, or float64 that are finite, and integers exact, in float32.

    Line ends of any system, a byte order mark, and empty lines at the end are let through; empty lines elsewhere and
    anything else are not.

    Args:
        path: the file.
        dtype: np.int64 (no 1.0 for 1, and less than 10^18) or np.float64.
        columns: how many numbers are on a line; default: as many as on the first.
        lines: how many lines there must be.
        reader: what errors begin with.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds something else; the message names the line.
    """
    said = f"{reader}: {path}" if reader else str(path)
    try:
        if not there(path):
            raise FileNotFoundError(f"{said} is missing")
        data = path.read_bytes()
    except OSError as error:
        if error.errno is None:  # ours
            raise
        raise type(error)(f"{said} cannot be read: {error.strerror or error}") from None
    data = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").rstrip(b" \t\n")
    mark = separator.encode()
    if columns is None:
        columns = data.split(b"\n", 1)[0].count(mark) + 1
    number = _SPACE + (_INTEGER if dtype is np.int64 else _NUMBER) + _SPACE
    line = mark.join([number] * columns)
    wrong = re.search(rb"(?m)^(?!" + line + rb"$).*", data) if data else None
    if wrong:
        kind = "integer" if dtype is np.int64 else "number"
        wanted = f"one {kind}" if columns == 1 else f"{columns} {kind}s"
        if dtype is np.int64 and re.search(rb"\d{19}", wrong[0]):
            wanted += " of at most 18 digits"
        got = wrong[0][:60].decode(errors="replace")
        count = data.count(b"\n", 0, wrong.start()) + 1
        raise ValueError(f"{said}, line {count}: must hold {wanted}, got {got!r}")
    values: np.ndarray = np.array(data.replace(mark, b" ").split(), dtype=dtype).reshape(-1, columns)
    if lines is not None and len(values) != lines:
        raise ValueError(f"{said} must have {counted(lines, 'line')}, got {len(values)}")
    if dtype is not np.int64:
        with np.errstate(over="ignore"):
            infinite = ~np.isfinite(values.astype(np.float32)).all(1)
        if infinite.any():
            k = int(infinite.argmax())
            raise ValueError(f"{said}, line {k + 1}: finite numbers are expected, got {values[k].tolist()}")
        check_integers(said, data, values, separator=mark)
    return values


def check_integers(
    said: str, text: bytes, values: np.ndarray, line: int = 1, separator: bytes = b","
) -> None:
    """ValueError where the text of the values, from this line on, has integers beyond 2^24: float32 has only some of them."""
    if (np.abs(values) > 2**24).any():
        for count, one in enumerate(text.split(b"\n"), line):
            for field in map(bytes.strip, one.split(separator)):
                if field.lstrip(b"+-").isdigit() and abs(float(field)) > 2**24:
                    raise ValueError(f"{said}, line {count}: must hold {SINGLE}, got {field.decode()}")
