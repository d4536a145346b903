"""Tables of numbers that do not fit in memory, read block by block: CSV, .npy, .npz and Parquet."""

from __future__ import annotations

import contextlib
import gzip
import math
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from amstel import _files
from amstel._optional import need
from amstel._text import check_integers
from amstel._words import counted

#: Bytes of text, or of an array, that are looked at together.
BLOCK = 1 << 24

_DIGITS, _NUMBER = b"0123456789", b"0123456789+-.eE"
_COMMAS = bytes.maketrans(b"\n", b",")


class Table(NamedTuple):
    """A file of numbers, or an array `key` in an .npz file."""

    path: Path
    key: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.key is None else f"{self.path}[{self.key}]"

    def blocks(
        self, whole: bool = False, missing: bool = False, single: bool = False
    ) -> Iterator[np.ndarray]:
        """Blocks [n, columns] of the rows, whose numbers are checked to be numbers and to be there.

        Args:
            whole: whether integers are meant; of arrays the integer dtype is kept.
            missing: whether "nan", in letters of any size, is a number in text.
            single: whether integers in text must be such that float32 holds all of them.

        Raises:
            ValueError or OSError: the file is not what it should be; the message names it and, of text, the line.
        """
        if self.key is not None or self.path.suffix == ".npy":
            return self._array_blocks(whole)
        return (
            self._parquet_blocks(whole)
            if self.path.suffix == ".parquet"
            else self._text(whole, missing, single)
        )

    # ---- Text

    def _text(self, whole: bool, missing: bool, single: bool) -> Iterator[np.ndarray]:
        columns, line, rest = 0, 1, b""
        for block in self._pieces():
            # What follows the last whole line waits, and so do blank lines, as they may be those at the end.
            text = rest + block
            body = text.rstrip()
            end = max(body.rfind(b"\n"), body.rfind(b"\r")) + 1
            text, rest = (text[:end], text[end:]) if block else (body + b"\n" if body else b"", b"")
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")  # line ends of any system
            if line == 1:
                text = text.removeprefix(b"\xef\xbb\xbf")
            if text:
                columns = columns or text.split(b"\n", 1)[0].count(b",") + 1
                values = self._numbers(text, columns, line, whole, missing)
                if single:
                    check_integers(str(self), text, values, line)
                yield values
                line += text.count(b"\n")

    def _pieces(self) -> Iterator[bytes]:
        """The text, and nothing at its end."""
        open_it: Any = gzip.open if self.path.suffix == ".gz" else open
        try:
            with open_it(self.path, "rb") as file:
                while block := file.read(BLOCK):
                    yield block
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{self.path} is damaged: {error}") from None
        yield b""

    def _numbers(self, text: bytes, columns: int, line: int, whole: bool, missing: bool) -> np.ndarray:
        lines, dtype = text.count(b"\n"), np.int64 if whole else np.float64
        known = _DIGITS if whole else _NUMBER + (b"nNaA" if missing else b"")
        if text.translate(None, known) == (b"," * (columns - 1) + b"\n") * lines:
            with warnings.catch_warnings(), contextlib.suppress(ValueError):
                warnings.simplefilter("ignore", DeprecationWarning)  # of a field that is empty, or no number
                values = np.fromstring(text.translate(_COMMAS), dtype, sep=",")
                # Beyond, it reads the last integer there is.
                beyond = whole and values.max(initial=0) == np.iinfo(np.int64).max
                if len(values) == lines * columns and not beyond:
                    return values.reshape(lines, columns)
        number = rb"[0-9]{1,18}" if whole else rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,9})?"
        if missing:
            number = rb"(?:" + number + rb"|[nN][aA][nN])"
        allowed = re.compile(b",".join([rb"[ \t]*" + number + rb"[ \t]*"] * columns))
        for count, one in enumerate(text[:-1].split(b"\n"), line):
            if not allowed.fullmatch(one):
                wanted = counted(columns, "integer" if whole else "number") + " >= 0" * whole
                got = one[:60].decode(errors="replace")
                raise ValueError(f"{self}, line {count}: must hold {wanted}, got {got!r}")
        return np.array(text.replace(b",", b" ").split(), dtype).reshape(lines, columns)

    # ---- Arrays

    @contextlib.contextmanager
    def opened(self) -> Iterator[tuple[IO[bytes], tuple[int, ...], bool, np.dtype]]:
        """The file just behind the header of the array, and of that the shape, whether columns come first, and dtype."""
        with contextlib.ExitStack() as stack:
            try:
                if self.key is None:
                    file: IO[bytes] = stack.enter_context(open(self.path, "rb"))
                else:
                    archive = stack.enter_context(zipfile.ZipFile(self.path))
                    file = stack.enter_context(archive.open(f"{self.key}.npy"))
                version = np.lib.format.read_magic(file)
                read = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                shape, by_columns, dtype = read(file)
                held = (
                    self.path.stat().st_size
                    if self.key is None
                    else archive.getinfo(f"{self.key}.npy").file_size
                )
            except _files.DAMAGED_ARRAY as error:
                raise ValueError(f"{self} is not a NumPy array: {error}") from None
            except KeyError:
                raise ValueError(f"{self.path} must hold an array {self.key!r}") from None
            if dtype.kind not in "iuf" or dtype.itemsize > 8:
                raise ValueError(f"{self} must hold integers or floating-point numbers, got {dtype}")
            if math.prod(shape) * dtype.itemsize > held:
                raise ValueError(f"{self} is damaged: it ends too early")
            try:
                yield file, shape, by_columns and len(shape) > 1, dtype
            except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                raise ValueError(f"{self} is damaged: {error}") from None

    def flat(self, whole: bool = False) -> Iterator[np.ndarray]:
        """Blocks of the elements of an array, in the order in which they are stored."""
        with self.opened() as (file, shape, _, dtype):
            if whole and dtype.kind not in "iu":
                raise ValueError(f"{self} must hold integers, got {dtype}")
            left = int(np.prod(shape, dtype=object)) * dtype.itemsize
            while left:
                data = file.read(min(left, BLOCK))
                while len(data) % dtype.itemsize and (more := file.read(dtype.itemsize)):
                    data += more
                if not data or len(data) % dtype.itemsize:
                    raise ValueError(f"{self} is damaged: it ends too early")
                left -= len(data)
                yield np.frombuffer(data, dtype).astype(dtype.newbyteorder("="), copy=False)

    def shape(self) -> tuple[tuple[int, ...], bool, np.dtype]:
        """Of an array the shape, whether columns come first, and the dtype."""
        with self.opened() as (_, shape, by_columns, dtype):
            return shape, by_columns, dtype.newbyteorder("=")

    def _array_blocks(self, whole: bool) -> Iterator[np.ndarray]:
        shape, by_columns, dtype = self.shape()
        if len(shape) not in (1, 2):
            raise ValueError(f"{self} must be [rows] or [rows, columns], got {list(shape)}")
        columns = shape[1] if len(shape) == 2 else 1
        if by_columns and columns > 1:  # rare: the rows are nowhere together
            yield (
                np.concatenate([*self.flat(whole)]).reshape(columns, -1).T
                if shape[0]
                else np.empty(shape, dtype)
            )
            return
        rest = np.empty(0, dtype)
        for block in self.flat(whole):
            rest = block if not len(rest) else np.concatenate([rest, block])
            rows = len(rest) // columns
            yield rest[: rows * columns].reshape(rows, columns)
            rest = rest[rows * columns :]

    # ---- Parquet

    def _parquet_blocks(self, whole: bool) -> Iterator[np.ndarray]:
        parquet = need("pyarrow.parquet", "parquet", f"reading {self.path.name}")
        try:
            file = parquet.ParquetFile(self.path)
            columns = max(1, len(file.schema_arrow.names))
            for batch in file.iter_batches(max(1, BLOCK // (8 * columns))):
                found = [
                    c.to_numpy(zero_copy_only=False) if not c.null_count else None for c in batch.columns
                ]
                yield self._stacked(found, file.schema_arrow.names, whole)
        except (OSError, ValueError) as error:
            if type(error) in (ValueError, FileNotFoundError, PermissionError) and str(self.path) in str(
                error
            ):
                raise
            raise ValueError(f"{self.path} is not a readable Parquet file: {error}") from None

    def _stacked(self, columns: list[np.ndarray | None], names: list[str], whole: bool) -> np.ndarray:
        for name, column in zip(names, columns, strict=True):
            kind = "no number" if column is None else str(column.dtype)
            if column is None or column.dtype.kind not in ("iu" if whole else "iuf"):
                raise ValueError(
                    f"{self.path}, column {name!r}: must hold {'integers' if whole else 'numbers'}, got {kind}"
                )
        return np.stack([c for c in columns if c is not None], 1)


# ---- Archives


def arrays_in(file: Path) -> set[str]:
    """Names of the arrays in an .npz file."""
    try:
        with zipfile.ZipFile(file) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}
    except _files.DAMAGED_ARRAY:
        raise ValueError(f"{file} is not an .npz file, or is damaged") from None


def only(file: Path, key: str) -> Table:
    """The array `key` of an .npz file, or its only one."""
    names = arrays_in(file)
    if key not in names and len(names) != 1:
        raise ValueError(f"{file} must hold an array {key!r} or a single one, got {sorted(names)}")
    return Table(file, key if key in names else names.pop())
