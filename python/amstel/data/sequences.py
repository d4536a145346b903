"""Common to tracking data: a video with one box per frame, folders of these, and numbers in text files."""

from __future__ import annotations

import math
import os
import re
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor

from amstel import _check
from amstel._check import fail, tensor
from amstel._files import there
from amstel._numerals import parsed
from amstel._words import counted
from amstel.media import images
from amstel.media.formats import frames_of, natural, visible, warn_of_folders, warn_of_links


def read_rows(file: Path, columns: int | None) -> list[list[float]]:
    """The numbers of a text file, `columns` in every line, with `nan` for unknown values.

    Numbers are separated by commas, semicolons, tabs or blanks, which may also end a line; blank lines may follow the last
    row. Without `columns`, a line is one of VOT's regions, and its row is x, y, w, h (all NaN if there is no region) or the
    corners of a polygon.

    Raises:
        OSError: the file cannot be read.
        ValueError: an invalid line, with file and line.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OSError(f"{file} must be a text file that can be read, got: {error}") from None
    rows: list[list[float]] = []
    for number, line in enumerate(lines, start=1):
        # One separator at the end is one that the writer put after every number; two are a number that lacks.
        words = re.split(r"\s*[,;]\s*|\s+", re.sub(r"\s*[,;]\s*$", "", line.strip()))
        try:
            row = _region(words) if columns is None else _numbers(words)
        except (ValueError, OverflowError):
            row = []
        if not row or columns not in (None, len(row)):
            expected = (
                "4 numbers, the corners of a polygon or a mask"
                if columns is None
                else counted(columns, "number")
            )
            if rows and columns is not None:
                expected += " as the lines above"
            raise ValueError(f"{file}, line {number}: a line must hold {expected}, got {line.strip()!r}")
        rows.append(row)
    return rows


def _numbers(words: list[str]) -> list[float]:
    row = [parsed(word) for word in words]
    return [] if any(map(math.isinf, row)) else row


def _region(words: list[str]) -> list[float]:
    """x, y, w, h, all NaN where there is no target, or the corners of a polygon."""
    if words[0].startswith("m"):
        return _box_of_mask([parsed(word, int) for word in (words[0][1:], *words[1:])])
    row = _numbers(words)
    # One number is the toolkit's code for a frame without a region; two that are known are a point.
    if len(row) == 1 or (len(row) == 2 and any(map(math.isnan, row))):
        return [math.nan] * 4
    return row if len(row) >= 4 and len(row) % 2 == 0 else []


def _box_of_mask(numbers: list[int]) -> list[float]:
    """x, y, w, h of a mask: x, y, w, h of a part of the picture, and how many of its pixels, row by row, are out, in, out, ..."""
    x, y, width, height, *runs = numbers
    # The toolkit writes an empty mask as one of 0 by 0 pixels.
    if width < 0 or height < 0 or any(run < 0 for run in runs) or sum(runs) > width * height:
        raise ValueError("no mask")
    # From the runs alone, so that a size that is damaged takes no memory.
    ends = list(accumulate(runs))
    inside = [(begin, end - 1) for begin, end in zip(ends[::2], ends[1::2], strict=False) if end > begin]
    if not inside:
        return [math.nan] * 4
    top, bottom = inside[0][0] // width, inside[-1][1] // width
    columns = [
        (begin % width, end % width) if begin // width == end // width else (0, width - 1)
        for begin, end in inside
    ]
    left, right = min(begin for begin, _ in columns), max(end for _, end in columns)
    return [float(v) for v in (x + left, y + top, right - left + 1, bottom - top + 1)]


def read_numbers(file: Path, columns: int) -> Tensor:
    """The numbers of a text file with equally many per line: float64 [rows, columns]; see `read_rows`."""
    return torch.tensor(read_rows(file, columns), dtype=torch.float64).reshape(-1, columns)


def check_origin(origin: int) -> int:
    """Of boxes in a file: 0 or 1."""
    expected = "0 or 1, the number of the first pixel"
    if (found := _check.integer("origin", origin, 0, expected)) > 1:
        fail("origin", expected, origin)
    return found


def from_origin(boxes: Tensor, file: Path, origin: int) -> Tensor:
    """Boxes [T, 4] of a file whose first pixel has the number `origin`, 0-based; a hint where that seems to be 0 and not 1."""
    origin = check_origin(origin)
    corners = boxes[(boxes[:, 2:] > 0).all(1)][:, :2]
    # One may leave the picture by a pixel; of the OTB's 100 sequences one has a single such number.
    if origin == 1 and (corners == 0).sum() > 1 and not (corners < 0).any():
        warnings.warn(
            f"{file} has corners at 0 and none below, as if its pixels were counted from 0, but is read as counted from 1 "
            "(use origin=0, or --truth-origin 0, for such a file)",
            stacklevel=4,
        )
    return boxes - boxes.new_tensor([1, 1, 0, 0]) * int(origin)


def images_of(folder: Path) -> list[Path]:
    """The images of a folder in natural order, at least one."""
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder {folder} of a sequence's frames does not exist")
    files = frames_of(folder)
    if not files:
        raise ValueError(f"{folder} must hold at least one image, got none")
    return files


def pad(boxes: Tensor, images: Sequence[Path], file: Path) -> Tensor:
    """A row per image: those after the last row get NaN. Where a number lacks among the images, the boxes may be off."""
    frames, lacking = len(images), _lacking(images)
    hole = f" ({lacking} is missing)" if lacking else ""
    if not 1 <= len(boxes) <= frames:
        raise ValueError(
            f"{file} must hold 1 to {counted(frames, 'box')}, as many as there are frames, got {len(boxes)}{hole}"
        )
    if lacking:
        warnings.warn(
            f"{lacking} is missing: the boxes of {file} are assigned to the images that exist, in order",
            stacklevel=3,
        )
    # One box alone is that of a sequence whose truth is kept back.
    elif 1 < len(boxes) < frames:
        warnings.warn(
            f"{file} holds {counted(len(boxes), 'box')} for {counted(frames, 'frame')}: there is no ground truth from frame {len(boxes) + 1} on",
            stacklevel=3,
        )
    return torch.cat([boxes, boxes.new_full((frames - len(boxes), 4), math.nan)])


def _lacking(images: Sequence[Path]) -> Path | None:
    """The first image that is not there, where all are numbered and nearly all numbers follow one another."""
    stems = [image.stem for image in images]
    if not all(stem.isdecimal() for stem in stems):
        return None
    numbers = [int(stem) for stem in stems]
    present, wanted = set(numbers), numbers[-1] - numbers[0] + 1
    # Every second or fifth frame of a video, or parts of several, are numbered so on purpose.
    if len(present) == wanted or 4 * len(present) < 3 * wanted:
        return None
    missing = next(number for number in range(numbers[0], numbers[-1]) if number not in present)
    return images[0].with_name(f"{missing:0{len(stems[0])}d}{images[0].suffix}")


# --------------------------------------------------------------------------------------------- sequences


class TrackingSequence:
    """A video and the box of its target in every frame.

    `s[t]` reads frame t as a uint8 RGB array [H, W, 3], so a tracker can take the sequence as its frames; `s[a:b]` is the
    sequence of those frames.

    Args:
        name: what to call it.
        frames: image files.
        ground_truth: [T, 4], x, y, w, h in pixels, where (x, y) is the top-left corner and that of the frame is (0, 0);
            a row with NaN, or without a positive width and height, counts as missing.
        sparse: whether some frames have no ground truth, because they were not annotated (as in ALOV, or after the end of
            a file of boxes) or because the target is absent (as in GOT-10k); scores leave such frames out.

    Attributes:
        name, frames, sparse: as given.
        ground_truth: float64 [T, 4], NaN rows where it is missing.
        anchors: where VOT's runs begin, see `VOT`; None if the data do not say.

    Raises:
        ValueError: no frame, or a different number of boxes; on reading, an image that cannot be read.

    Example:
        >>> files = amstel.media.formats.frames_of("OTB100/Crossing/img")[:3]
        >>> sequence = amstel.data.TrackingSequence("mine", files, torch.tensor([[20.0, 24, 20, 20]] * 3))
        >>> sequence, sequence[1:], sequence[0].dtype  # the first frame is read now
        (TrackingSequence(mine, 3 frames), TrackingSequence(mine, 2 frames), dtype('uint8'))
    """

    name: str
    frames: Sequence[Path]
    ground_truth: Tensor
    sparse: bool
    anchors: list[tuple[int, bool]] | None = None

    def __init__(self, name: str, frames: Sequence[Path], ground_truth: Tensor, sparse: bool = False):
        boxes = tensor("ground_truth", ground_truth, "a tensor [T, 4]")
        if not len(frames):
            raise ValueError("`frames` must hold at least one image file, got none")
        if boxes.shape != (len(frames), 4):
            fail("ground_truth", f"[{len(frames)}, 4], a box per frame", boxes)
        self.name, self.frames, self.sparse = name, frames, sparse
        # The comparison is false for NaN too.
        known = (boxes[:, 2:] > 0).all(1) & boxes.isfinite().all(1)
        self.ground_truth = torch.where(known[:, None], boxes.double(), math.nan)

    def __len__(self) -> int:
        return len(self.frames)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, index: slice) -> TrackingSequence: ...

    def __getitem__(self, index: int | slice) -> np.ndarray | TrackingSequence:
        if isinstance(index, slice):
            return TrackingSequence(self.name, self.frames[index], self.ground_truth[index], self.sparse)
        if not -len(self) <= index < len(self):
            raise IndexError(f"`index` must be below {len(self)}, got {index}")
        return images.read(self.frames[index])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}, {counted(len(self), 'frame')})"


class Sequences(Sequence[TrackingSequence]):
    """Sequences by index, in the order of their names, or by name; each is read on access."""

    root: Path
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int | str) -> TrackingSequence: ...

    @overload
    def __getitem__(self, index: slice) -> list[TrackingSequence]: ...

    def __getitem__(self, index: int | str | slice) -> TrackingSequence | list[TrackingSequence]:
        if isinstance(index, slice):
            return [self._read(name) for name in self.names[index]]
        if isinstance(index, str):
            if index not in self.names:
                fail("index", f"a number or a name of {self!r}", index)
            return self._read(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"`index` must be below {len(self)}, got {index}")
        return self._read(self.names[index])

    @abstractmethod
    def _read(self, name: str) -> TrackingSequence: ...

    def __repr__(self) -> str:
        return f"{type(self).__name__}({counted(len(self), 'sequence')} of {self.root})"


class Listed(Sequences):
    """Folders of sequences, those of list.txt if there is one."""

    def _find(self, root: Path, marker: str) -> None:
        self.root, listing = root, root / "list.txt"
        if there(listing):
            names = _listed(root, listing)
        else:
            names = [p.name for p in visible(root) if os.path.lexists(p / marker)]
            warn_of_folders(root, [root / name for name in names], f"without {marker}")
            warn_of_links(root)
        if not names:
            raise ValueError(f"{root} must hold folders of sequences, each with {marker}, got none")
        self.names = sorted(names, key=lambda name: natural(Path(name)))


def _listed(root: Path, listing: Path) -> list[str]:
    try:
        lines = listing.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{listing} must be a text in UTF-8, got {error}") from None
    names: dict[str, int] = {}
    for number, name in enumerate(map(str.strip, lines), start=1):
        if not name:
            continue
        if not os.path.isdir(root / name):
            raise FileNotFoundError(f"{listing} names {name}, which is not a folder beside it")
        if name in names:
            raise ValueError(
                f"{listing}, line {number}: must name each sequence once, got {name} in line {names[name]} too"
            )
        names[name] = number
    return list(names)


def polygon_to_box(corners: Tensor, method: str = "area") -> Tensor:
    """Upright boxes [T, 4] (x, y, w, h) of polygons of K corners [T, 2 K] (x1, y1, ..., xK, yK), as `VOT` describes."""
    if method not in ("area", "bounds"):
        fail("method", '"area" or "bounds"', method)
    expected = "a tensor [T, 2 K] of K >= 3 corners"
    if tensor("corners", corners, expected).dim() != 2 or corners.shape[1] < 6 or corners.shape[1] % 2:
        fail("corners", expected, corners)
    points = corners.double().unflatten(1, (-1, 2))
    low, size = points.amin(1), points.amax(1) - points.amin(1)
    if method == "area":
        x, y = points.roll(-1, 1).unbind(2)
        area = ((points[..., 0] * y - points[..., 1] * x).sum(1) / 2).abs()
        bounds = size.prod(1)
        size = size * torch.where(bounds > 0, area / bounds, bounds).sqrt()[:, None]
        low = points.mean(1) - size / 2
    return torch.cat([low, size], 1)
