"""The file formats of pictures and videos, and which files in a folder have one."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from amstel._optional import need
from amstel._words import counted

#: Endings of still pictures, as frames of a folder or by themselves.
IMAGES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".bmp",
    ".webp",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
    ".apng",
    ".avif",
    ".jp2",
)
#: Endings of pictures that stand for themselves: as a frame of several, or beside videos, a GIF is a video.
STILLS = (*IMAGES, ".gif")
ANIMATED = "animated"
NOT_DEEPER = "only files are read"
#: Endings of what Pillow reads and what may hold several frames.
ANIMATIONS = (".gif", ".png", ".apng", ".webp", ".avif", ".tif", ".tiff")
#: Endings of videos.
VIDEOS = (
    ".avi",
    ".divx",
    ".mp4",
    ".m4v",
    ".mkv",
    ".mov",
    ".qt",
    ".webm",
    ".mpg",
    ".mpeg",
    ".mpe",
    ".m1v",
    ".m2v",
    ".h264",
    ".264",
    ".h265",
    ".265",
    ".hevc",
    ".mjpeg",
    ".mjpg",
    ".y4m",
    ".nut",
    ".rm",
    ".rmvb",
    ".wmv",
    ".asf",
    ".flv",
    ".f4v",
    ".ogv",
    ".ogm",
    ".ts",
    ".m2t",
    ".mts",
    ".m2ts",
    ".3gp",
    ".3g2",
    ".vob",
    ".mxf",
    ".dv",
    ".gif",
)


def natural(path: str | os.PathLike) -> Any:
    """Sort key that puts frame_2 before frame_10, and differs for different names.

    Example:
        >>> sorted(["frame_10.png", "frame_2.png"], key=amstel.video.natural)
        ['frame_2.png', 'frame_10.png']
    """
    name = Path(path).name
    return [int(part) if k % 2 else part.lower() for k, part in enumerate(re.split(r"(\d+)", name))], name


def visible(folder: str | os.PathLike, endings: Collection[str] | None = None) -> list[Path]:
    """The contents of a folder in natural order, without names that begin with a dot (._x.jpg, .DS_Store, partial files).

    Args:
        endings: only files with these extensions, in lower case.

    Example:
        >>> [path.name for path in amstel.media.formats.visible("OTB100/Jogging")]
        ['groundtruth_rect.1.txt', 'groundtruth_rect.2.txt', 'img']
    """
    found = (p for p in Path(folder).iterdir() if not p.name.startswith("."))
    if endings is not None:
        found = (p for p in found if p.suffix.lower() in endings and not p.is_dir())
    return sorted(found, key=natural)


def stills(folder: str | os.PathLike) -> list[Path]:
    """The pictures of a folder in natural order; warnings name folders in it, animations, broken links and what else is no
    picture.

    Example:
        >>> [path.name for path in amstel.media.formats.stills("photographs")]
        ['one.png']
    """
    folder, reason = Path(folder), "without the extension of an image"
    lost = set(links_to_nothing(folder))
    named = [path for path in visible(folder, STILLS) if path not in lost]
    moving = set(filter(is_animation, named))
    warn_of_others(folder, [path for path in visible(folder) if path not in moving], ANIMATED)
    warn_of_folders(folder, [], NOT_DEEPER)
    warn_of_links(folder)
    found = [path for path in named if path not in moving]
    if found:  # else an error names what is there
        warn_of_others(folder, [*named, *lost], reason)
    return found


def is_animation(path: Path) -> bool:
    """Whether it is a GIF, PNG, WebP or AVIF of several frames, which a folder of pictures may hold but is no picture.

    Example:
        >>> path = amstel.video.write("noise.gif", torch.randint(256, (8, 64, 64, 3)).byte())
        >>> amstel.media.formats.is_animation(path)
        True
    """
    # Of a file that cannot be opened, reading says why.
    with contextlib.suppress(Exception):
        if path.suffix.lower() in (".gif", ".png", ".apng", ".webp", ".avif"):
            with need("PIL.Image", extra="restore", purpose="pictures").open(path) as image:
                return getattr(image, "is_animated", False)
    return False


def others(folder: Path, taken: Collection[Path]) -> str:
    """The other files of a folder, as text: "3 files: a.heic, b.psd, ..."; empty if there are none.

    Example:
        >>> amstel.media.formats.others(Path("OTB100/Jogging"), [])
        '2 files: groundtruth_rect.1.txt, groundtruth_rect.2.txt'
    """
    known = {*taken, *links_to_nothing(folder)}
    return _listed([p.name for p in visible(folder) if not p.is_dir() and p not in known])


def _listed(names: Sequence[str], what: str = "file") -> str:
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"{counted(len(names), what)}: {shown}" if names else ""


def _warn(folder: Path, listed: str, reason: str) -> None:
    count, names = listed.split(": ", 1)
    warnings.warn(f"{folder}: {count} ignored ({reason}): {names}", stacklevel=2)


def warn_of_others(folder: Path, taken: Collection[Path], reason: str) -> None:
    """Warn which files of a folder are ignored, and why; once, however often the folder is read. Broken links are said to
    be that.

    Example:
        >>> with warnings.catch_warnings(record=True) as said:
        ...     amstel.media.formats.warn_of_others(Path("OTB100/Jogging"), [], "not an image")
        >>> print(said[0].message)
        OTB100/Jogging: 2 files ignored (not an image): groundtruth_rect.1.txt, groundtruth_rect.2.txt
    """
    if left := others(folder, taken):
        _warn(folder, left, reason)
    warn_of_links(folder, taken)


def warn_of_folders(folder: Path, taken: Collection[Path], reason: str) -> None:
    """The same for the subfolders.

    Example:
        >>> with warnings.catch_warnings(record=True) as said:
        ...     amstel.media.formats.warn_of_folders(Path("OTB100/Jogging"), [], "not a video")
        >>> print(said[0].message)
        OTB100/Jogging: 1 folder ignored (not a video): img
    """
    if left := [p.name for p in visible(folder) if p.is_dir() and p not in taken]:
        _warn(folder, _listed(left, "folder"), reason)


def links_to_nothing(folder: str | os.PathLike) -> list[Path]:
    """The links in a folder that lead nowhere, as where data were moved or not fetched: they may be of files or folders.

    Example:
        >>> amstel.media.formats.links_to_nothing("OTB100/Jogging")
        []
    """
    return [p for p in visible(folder) if not os.path.exists(p)]


def warn_of_links(folder: Path, taken: Collection[Path] = ()) -> None:
    """The same for the links in it that lead nowhere.

    Example:
        >>> amstel.media.formats.warn_of_links(Path("OTB100/Jogging"))
    """
    known = set(taken)
    if left := [p.name for p in links_to_nothing(folder) if p not in known]:
        _warn_of_links(folder, left)


def _warn_of_links(folder: Path, names: Sequence[str]) -> None:
    _warn(folder, _listed(names, "link"), "broken")


def warn_of_strangers(
    root: Path, folders: Iterable[Path], known: Collection[str], reason: str, more: Iterable[Path] = ()
) -> None:
    """The same for several folders in one, whose files should have a known extension; `more`: further ignored files and
    broken links.

    Example:
        >>> with warnings.catch_warnings(record=True) as said:
        ...     folders = [Path("OTB100/Jogging"), Path("OTB100/Jogging/img")]
        ...     amstel.media.formats.warn_of_strangers(Path("OTB100"), folders, (".jpg",), "not a frame")
        >>> print(said[0].message)
        OTB100: 2 files ignored (not a frame): Jogging/groundtruth_rect.1.txt, Jogging/groundtruth_rect.2.txt
    """
    files = list(dict.fromkeys(more))
    for folder in folders:
        with contextlib.suppress(OSError):  # what cannot be read is said otherwise
            files += [p for p in visible(folder) if not p.is_dir() and p.suffix.lower() not in known]
    names: dict[bool, list[str]] = {True: [], False: []}
    for p in files:
        names[os.path.exists(p)].append(str(p.relative_to(root)) if p.is_relative_to(root) else str(p))
    if names[True]:
        _warn(root, _listed(names[True]), reason)
    if names[False]:
        _warn_of_links(root, names[False])


def frames_of(folder: str | os.PathLike) -> list[Path]:
    """The images of a folder in natural order.

    Raises:
        ValueError: two of them are for the same frame, such as frame_1.png, frame_01.png and frame_1.jpg.

    Example:
        >>> [path.name for path in amstel.media.formats.frames_of("OTB100/Jogging/img")]
        ['0001.jpg', '0002.jpg', '0003.jpg']
    """
    files = visible(folder, IMAGES)
    known: dict[tuple[Any, ...], Path] = {}
    for path in files:
        number = tuple(natural(path.stem)[0])
        if (other := known.setdefault(number, path)) is not path:
            raise ValueError(
                f"{folder} must hold one image per frame, got {other.name} and {path.name} for one frame"
            )
    return files
