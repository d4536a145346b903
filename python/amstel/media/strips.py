"""Which pictures are strips: the frames of a clip side by side."""

from __future__ import annotations

import os
from pathlib import Path

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

    Where there are no videos and the first picture is not marked, the pictures may be the frames of one video; there they
    are strips only if all are.

    Example:
        >>> [path.name for path in amstel.media.strips.strips("weizmann4/bend")]
        ['daria_bend.png', 'ido_bend.png']
    """
    found = visible(folder, IMAGES)
    if visible(folder, VIDEOS) or (found and is_strip(found[0])):
        return [path for path in found if is_strip(path) or _of_squares(path)]
    return found if all(map(_of_squares, found)) else []


def _of_squares(path: Path) -> bool:
    try:
        with images.opened(path) as image:
            width, height = image.size
            single = getattr(image, "n_frames", 1) == 1
            return single and height <= STRIP_HEIGHT and width >= 2 * height and not width % height
    except (OSError, ValueError):  # whoever reads it says what is wrong
        return False
