"""Files that are written completely or not at all: a temporary file is renamed at the end, so no error costs the old file.

A process that is killed leaves what it was writing. While anything is written in a folder a shared lock (flock) is held on the
folder, which ends with the process. So whoever gets the lock for itself alone may remove what was left there: nobody is writing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import stat
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

try:
    import fcntl
except ImportError:  # on Windows, where remains stay
    fcntl = None  # type: ignore[assignment]

Name = str | os.PathLike

#: What NumPy and zipfile raise for a damaged .npy or .npz file, besides OSError and MemoryError.
DAMAGED_ARRAY = (
    ValueError, TypeError, SyntaxError, TokenError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip

#: More classes or features than this are damage: no machine has the memory for their weights.
MOST_CLASSES, _MOST_FEATURES = 2**24, 2**31

_OF_THE_DISK = errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE
#: Names of what is being written, or of what was there before.
_REMAINS = re.compile(r"\.(.{1,40})\.[0-9a-f]{8}\.(partial|old)(\.[^.]+)?", re.DOTALL)
#: Folders where this process has looked for remains.
_looked: set[Path] = set()


def distinct(path: Name, *inputs: Name, argument: str = "path") -> None:
    """ValueError where `path`, to be written, is one of the inputs (by whatever name) or lies inside an input folder."""
    # realpath resolves links of parts that exist and keeps the rest, so this works before the file is there.
    target = Path(os.path.realpath(path))
    for name in inputs:
        source = Path(os.path.realpath(name))
        same = target == source or (target.exists() and source.exists() and target.samefile(source))
        if same:
            raise ValueError(
                f"`{argument}` must be another file than the input, got {os.fspath(path)} for both"
            )
        if source.is_dir() and source in target.parents:
            raise ValueError(
                f"`{argument}` must lie outside the input folder {os.fspath(name)}, got {os.fspath(path)}"
            )


def check_widths(file: Path, facts: Mapping[str, Any]) -> None:
    """ValueError where "classes" or "features" (or none, null) in a JSON file are no numbers of them."""
    for key, most in (("classes", MOST_CLASSES), ("features", _MOST_FEATURES)):
        got = facts[key]
        if not (type(got) is int and 0 <= got <= most) and not (key == "features" and got is None):
            raise ValueError(f'{file}: "{key}" must be an integer from 0 to {most}, got {got!r}')


def size_of(path: Path) -> int:
    """The bytes in a file, or in the visible files of a folder; -1 where there is none."""
    try:
        files = [f for f in path.iterdir() if f.name[0] != "." and f.is_file()] if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files)
    except OSError:
        return -1


def there(path: Name, kind: str = "file") -> bool:
    """Whether a file, or a folder, that may be absent is there.

    Raises:
        FileNotFoundError: it is a link to nothing, as of data that were moved or not fetched.
        IsADirectoryError, NotADirectoryError: it is of the other kind.
        OSError: it cannot be looked at, as in a loop of links.
    """
    try:
        a_folder = stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(path):
            raise FileNotFoundError(
                f"{os.fspath(path)} is a link to nothing; it should be a {kind}"
            ) from None
        return False
    if a_folder and kind == "file":
        raise IsADirectoryError(f"{os.fspath(path)} is a folder; it should be a file")
    if not a_folder and kind == "folder":
        raise NotADirectoryError(f"{os.fspath(path)} is a file; it should be a folder")
    return True


def absent(path: Name) -> str:
    """What to say of a file or folder that is not there."""
    return f"{os.fspath(path)} {'is a link to nothing' if os.path.islink(path) else 'does not exist'}"


def writable(path: Name) -> Path:
    """Where the file will be, links followed, or the error that writing would end in; nothing is touched.

    Raises:
        FileNotFoundError: there is no such folder.
        NotADirectoryError, IsADirectoryError: the folder is a file, or the file a folder.
        PermissionError: the folder, or the existing file, is not writable.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"{os.fspath(path)} is a folder; it should be the file to write")
    if not target.parent.exists():
        raise FileNotFoundError(f"the folder {target.parent} to write {target.name} in does not exist")
    if not target.parent.is_dir():
        raise NotADirectoryError(f"{target.parent}, the folder for {target.name}, is not a folder")
    special = target.exists() and not target.is_file()
    for place in [target] if special else [target.parent, *([target] if target.exists() else [])]:
        if not os.access(place, os.W_OK):
            raise PermissionError(f"{place} cannot be written: permission denied")
    return target


@contextlib.contextmanager
def naming(path: Name) -> Iterator[None]:
    """Within the `with`, the error of a disk, full or broken, says which file it was, which the system does not."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in _OF_THE_DISK:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise


def said(error: BaseException) -> str:
    """An error in a line: without the number that Python begins the words of the system with."""
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return f"{' -> '.join(names)}: {error.strerror}" if names else error.strerror
    return str(error)


@contextlib.contextmanager
def _writing_in(folder: Path) -> Iterator[None]:
    """Hold the shared lock of a folder; the first time remove what processes left there that were killed.

    Where there are no locks, or someone else has one, files are written without, and remains stay.
    """
    lock = None
    with contextlib.suppress(OSError):
        lock = os.open(folder, os.O_RDONLY) if fcntl else None
    try:
        if lock is not None:
            if folder not in _looked and _locked(lock, alone=True):
                _looked.add(folder)
                _remove_remains(folder)
            _locked(lock)
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _locked(lock: int, alone: bool = False) -> bool:
    how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    for wait in (0.0,) if alone else (0.002, 0.0):  # another process removes remains, which is soon done
        try:
            fcntl.flock(lock, how | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(wait)
        except OSError:  # a file system without locks
            return False
    return False


def _remove_remains(folder: Path) -> None:
    """Remove what nobody writes any more, and what was there before where there is something newer."""
    now = time.time()
    for path in folder.iterdir():
        found = _REMAINS.fullmatch(path.name)
        if not found or path.is_symlink():
            continue
        # A longer name was cut, so that what replaced it is not known.
        replaced = len(found[1]) < 40 and (folder / f"{found[1]}{found[3] or ''}").exists()
        with contextlib.suppress(OSError):
            # What has just begun is of someone who did not get a lock.
            if now - path.lstat().st_mtime > 60 and (found[2] == "partial" or replaced):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def replacing(path: Name, inputs: Iterable[Name] = (), argument: str = "path") -> Iterator[Path]:
    """A temporary name next to `path`, with its ending, to write to; at the end of the `with` block it replaces `path`.

    After any exception, Ctrl-C included, what was at `path` is as it was and the new file is gone; after a kill, once
    another process writes in the folder. Links are followed, permissions of the old file kept. A pipe or device
    (/dev/stdout) is written directly.

    Args:
        path: the file to write.
        inputs: files and folders that are being read: `path` must be none of them, nor lie in one.
        argument: what errors call `path`.

    Raises:
        ValueError: `path` is an input.
        OSError: it cannot be written; found before the body runs.

    Example:
        >>> with replacing("scores.txt") as temporary:
        ...     n = temporary.write_text("0.5")
    """
    distinct(path, *inputs, argument=argument)
    target = writable(path)
    if target.exists() and not target.is_file():
        with naming(path):
            yield target
        return
    # Hidden, so that readers of folders pass it over while it grows; its own name for every writer.
    suffix = target.suffix
    temporary = target.with_name(f".{target.stem[:40]}.{os.urandom(4).hex()}.partial{suffix}")
    with _writing_in(target.parent):
        try:
            with naming(path):
                yield temporary
                with open(temporary, "rb+") as file:
                    os.fsync(file.fileno())
            if target.exists():
                shutil.copymode(target, temporary)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_together(main: Name, *beside: Name) -> Iterator[list[Path]]:
    """Temporary names for a file and those that belong to it, to write to; at the end of the `with` they replace all of them.

    What was not written under its temporary name is gone afterwards. After an exception all is as it was, or, if it came
    once `main` was replaced, all is new. A kill between the renames leaves `main` whole, the old one or the new one, and
    what is beside it of the same time or missing: never of the other.
    """
    targets = [writable(path) for path in (main, *beside)]
    mark = os.urandom(4).hex()
    new, old = (
        [t.with_name(f".{t.stem[:40]}.{mark}.{end}{t.suffix}") for t in targets] for end in ("partial", "old")
    )
    with contextlib.ExitStack() as stack:
        for folder in {target.parent for target in targets}:
            stack.enter_context(_writing_in(folder))
        try:
            with naming(main):
                yield new
            for target, temporary in zip(targets, new, strict=True):
                if temporary.exists():
                    with naming(target), open(temporary, "rb+") as file:
                        os.fsync(file.fileno())
                    if target.exists():
                        shutil.copymode(target, temporary)
            try:
                for target, kept in zip(targets[1:], old[1:], strict=True):
                    if target.exists():
                        os.replace(target, kept)
                os.replace(new[0], targets[0])
            except BaseException:
                for target, kept in zip(targets[1:], old[1:], strict=True):
                    if kept.exists():
                        os.replace(kept, target)
                raise
            try:
                _rename(new[1:], targets[1:])
            except BaseException:  # Ctrl-C
                _rename(new[1:], targets[1:])
                raise
            for kept in old:
                kept.unlink(missing_ok=True)
        finally:
            for temporary in new:
                temporary.unlink(missing_ok=True)


def _rename(files: list[Path], targets: list[Path]) -> None:
    for file, target in zip(files, targets, strict=True):
        if file.exists():
            os.replace(file, target)


@contextlib.contextmanager
def writing(path: Name) -> Iterator[IO[bytes]]:
    """A new file, on the disk at the end of the `with`; an error of the disk says which file it was."""
    with naming(path), open(path, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def replacing_folder(folder: Path, force: bool, is_one: Callable[[Path], bool], what: str) -> Iterator[Path]:
    """A temporary folder next to `folder` to write to, which replaces it at the end, or is removed after an error.

    Args:
        folder: where it will be.
        force: whether to replace an existing one.
        is_one: whether a folder is of the kind that may be replaced; an empty one always may.
        what: what errors call it.
    """
    there = folder.exists() or folder.is_symlink()
    if there and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; it should be a folder")
    if there and not force and any(folder.iterdir()):
        raise FileExistsError(f"{folder} exists; `force` replaces it")
    if there and not is_one(folder) and any(folder.iterdir()):
        raise FileExistsError(f"{folder} holds something that is not a {what}, and is not replaced")
    target = Path(os.path.realpath(folder))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (
        target.with_name(f".{target.name[:40]}.{os.urandom(4).hex()}.{end}") for end in ("partial", "old")
    )
    with _writing_in(target.parent):
        temporary.mkdir()
        try:
            yield temporary
            if target.exists():
                os.replace(target, old)
                try:
                    os.replace(temporary, target)
                except OSError:
                    os.replace(old, target)
                    raise
            else:
                os.replace(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            if target.exists():
                shutil.rmtree(old, ignore_errors=True)


def write_text(path: Name, text: str, inputs: Iterable[Name] = ()) -> Path:
    """Write text, UTF-8, all of it or nothing; the names of files with the bytes that they have."""
    return write_bytes(path, text.encode(errors="surrogateescape"), inputs)


def write_bytes(path: Name, data: bytes, inputs: Iterable[Name] = ()) -> Path:
    """Write bytes, all of them or nothing."""
    with replacing(path, inputs) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def write_json(path: Name, value: Any, inputs: Iterable[Name] = (), indent: int | None = 1) -> Path:
    """Write a value as JSON with a line end; a value that JSON cannot hold is found before anything is written."""
    return write_text(path, json_text(value, indent), inputs)


def json_text(value: Any, indent: int | None = 1, encoding: str = "utf-8") -> str:
    """What `write_json` writes; letters that the encoding lacks, and the bytes of names that are not text, are escaped."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = json.dumps(value, indent=indent)
    return text + "\n"


def torch_save(path: Name, state: Any, temporary: Path | None = None) -> Path:
    """`torch.save`, all of it or nothing; or to the `temporary` name of `replacing_together` for `path`."""
    import torch

    with replacing(path) if temporary is None else contextlib.nullcontext(temporary) as place, naming(path):
        try:
            with open(place, "wb") as file:
                torch.save(state, file)
        except (
            RuntimeError
        ) as error:  # torch's own words for a disk that is full: "unexpected pos 704 vs 598"
            cause = error.__context__
            if isinstance(cause, OSError):
                raise OSError(cause.errno, cause.strerror, os.fspath(path)) from error
            raise
    return Path(path)
