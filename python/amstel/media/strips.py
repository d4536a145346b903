"""Which pictures are strips: the frames of a clip side by side."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path

from amstel._words import counted
from amstel.media import images
from amstel.media.formats import IMAGES, VIDEOS, visible

#: A picture with no more rows, and at least twice as many columns, is a strip to `read`; a photograph is larger.
STRIP_HEIGHT = 128


def is_strip(path: str | os.PathLike) -> bool:
    """Whether `amstel.media.writing` marked a PNG as a strip of several frames.

    Example:
        >>> path = amstel.video.write("strip.png", torch.zeros(4, 8, 8, 3, dtype=torch.uint8))
        >>> amstel.media.strips.is_strip(path), amstel.media.strips.is_strip("photographs/one.png")
        (True, False)
    """
    path = Path(path)
    try:
        mark = images.Animation(path).mark if path.suffix.lower() == ".png" else None
        return mark is not None and mark != "strip of 1 frames"
    except (OSError, ValueError):  # whoever reads it says what is wrong
        return False


def strips(folder: str | os.PathLike) -> list[Path]:
    """The pictures in a folder that are strips of frames: marked (`is_strip`), or to `amstel.video.read` by their shape.

    Where there are no videos and the first picture is not marked, the pictures may be the frames of one video. There they
    are strips if all have the shape, unless they are of one size and their names end in consecutive numbers; a warning
    says so.

    Example:
        >>> [path.name for path in amstel.media.strips.strips("weizmann4/bend")]
        ['daria_bend.png', 'ido_bend.png']
    """
    found = visible(folder, IMAGES)
    if visible(folder, VIDEOS) or (found and is_strip(found[0])):
        return [path for path in found if is_strip(path) or _of_squares(path)]
    if not found or not all(map(_of_squares, found)) or _in_a_row(found):
        return []
    kind = "a strip" if len(found) == 1 else "strips"
    warnings.warn(f"{folder}: {counted(len(found), 'picture')} taken as {kind} of frames", stacklevel=2)
    return found


def not_tall(path: Path) -> Path:
    """The path of a video; ValueError for a picture that may be a strip, but is too high to be taken for one.

    Example:
        >>> amstel.media.strips.not_tall(Path("clip.mp4"))
        PosixPath('clip.mp4')
    """
    height = _squares(path)[1] if path.suffix.lower() in IMAGES and not is_strip(path) else 0
    if height > STRIP_HEIGHT:
        raise ValueError(
            f"{path} must be a video, or a strip of at most {STRIP_HEIGHT} rows if `amstel.video.write` has not marked it as "
            f"one, got squares of {height} rows side by side: one picture, or several frames"
        )
    return path


def _in_a_row(pictures: list[Path]) -> bool:
    """Whether several pictures of one size have names that differ in consecutive numbers at their ends."""
    names = [re.fullmatch(r"(.*?)([0-9]+)", path.stem) for path in pictures]
    first = names[0]
    if len(pictures) < 2 or first is None:
        return False
    row = all(
        name is not None and name[1] == first[1] and int(name[2]) == int(first[2]) + k
        for k, name in enumerate(names)
    )
    return row and len({_squares(path) for path in pictures}) == 1


def _of_squares(path: Path) -> bool:
    return 0 < _squares(path)[1] <= STRIP_HEIGHT


def _squares(path: Path) -> tuple[int, int]:
    """The width and height of a picture that consists of squares side by side; 0, 0 for another."""
    try:
        with images.opened(path) as image:
            width, height = image.size
            single = getattr(image, "n_frames", 1) == 1
            return (width, height) if single and width >= 2 * height and not width % height else (0, 0)
    except (OSError, ValueError):  # whoever reads it says what is wrong
        return 0, 0
