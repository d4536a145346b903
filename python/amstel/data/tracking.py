"""Readers of tracking data: OTB, GOT-10k, VOT and ALOV, one video with one box a frame after the other."""

from __future__ import annotations

import math
import os
import re
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor

from amstel._check import fail, tensor
from amstel.data.clips import _folder, _visible
from amstel.video import IMAGES, _read_image, natural

# First and last frame of the sequences of which OTB's configuration takes a part. Tiger1's first five frames are
# there to be left out; BlurCar1, 3 and 4 have no images before the first frame named here.
OTB_FRAMES = {
    "blurcar1": (247, 988),
    "blurcar3": (3, 359),
    "blurcar4": (18, 397),
    "david": (300, 770),
    "diving": (1, 215),
    "football1": (1, 74),
    "freeman3": (1, 460),
    "freeman4": (1, 283),
    "tiger1": (6, 354),
}


# ------------------------------------------------------------------------------------------------- files


def read_numbers(file: Path, columns: Sequence[int]) -> Tensor:
    """The numbers of a text file, one row a line: float64 [rows, columns], `nan` for what is not known.

    Commas, semicolons, tabs and blanks separate; lines that are blank may follow the last row.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OSError(f"{file} must be a text file that can be read, got: {error}") from None
    expected = " or ".join(map(str, columns)) + " numbers"
    rows: list[list[float]] = []
    for number, line in enumerate(lines, start=1):
        words = re.split(r"\s*[,;]\s*|\s+", line.strip())
        try:
            row = [float(word) for word in words]
        except ValueError:
            row = []
        if len(row) not in columns or any(map(math.isinf, row)) or (rows and len(row) != len(rows[0])):
            if rows:
                expected = f"{len(rows[0])} numbers as the lines above"
            raise ValueError(f"{file}, line {number}: a line must hold {expected}, got {line.strip()!r}")
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), len(rows[0]) if rows else columns[0])


def _images(folder: Path) -> list[Path]:
    """The images of a folder in natural order, at least one."""
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder {folder} of a sequence's frames does not exist")
    files = sorted((p for p in _visible(folder) if p.suffix.lower() in IMAGES), key=natural)
    if not files:
        raise ValueError(f"{folder} must hold at least one image, got none")
    return files


def _pad(boxes: Tensor, frames: int, file: Path) -> Tensor:
    """A row a frame: frames after the last row get NaN."""
    if not 1 <= len(boxes) <= frames:
        raise ValueError(
            f"{file} must hold 1 to {frames} boxes, as many as there are frames, got {len(boxes)}"
        )
    return torch.cat([boxes, boxes.new_full((frames - len(boxes), 4), math.nan)])


# --------------------------------------------------------------------------------------------- sequences


class TrackingSequence:
    """A video and the box of its target in every frame.

    `s[t]` reads frame t as a uint8 RGB array [H, W, 3], so that the sequence is what a tracker takes as frames;
    `s[a:b]` is the sequence of those frames.

    Args:
        name: what to call it.
        frames: image files.
        ground_truth: [T, 4], x, y, w, h in pixels, (x, y) the top-left corner with 0, 0 for the frame's own; a row
            with NaN, or without a positive width and height, is taken as missing.

    Attributes:
        name, frames: as given.
        ground_truth: float64 [T, 4], NaN rows where it is missing.

    Raises:
        ValueError: no frame, or another number of boxes; on reading, an image that cannot be read.

    Example:
        >>> sequence = amstel.data.OTBSequence("Crossing")                     # doctest: +SKIP
        >>> sequence, sequence[0].shape, sequence.ground_truth[0].tolist()     # doctest: +SKIP
        (OTBSequence(Crossing, 120 frames), (240, 360, 3), [204.0, 150.0, 17.0, 50.0])
    """

    name: str
    frames: Sequence[Path]
    ground_truth: Tensor

    def __init__(self, name: str, frames: Sequence[Path], ground_truth: Tensor):
        boxes = tensor("ground_truth", ground_truth, "a tensor [T, 4]")
        if not len(frames):
            raise ValueError("`frames` must hold at least one image file, got none")
        if boxes.shape != (len(frames), 4):
            fail("ground_truth", f"[{len(frames)}, 4], a box a frame", boxes)
        self.name, self.frames = name, frames
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
            return TrackingSequence(self.name, self.frames[index], self.ground_truth[index])
        if not -len(self) <= index < len(self):
            raise IndexError(f"`index` must be below {len(self)}, got {index}")
        return _read_image(self.frames[index])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}, {len(self)} frames)"


class OTBSequence(TrackingSequence):
    """A sequence in OTB's layout: img/0001.jpg, ..., and groundtruth_rect.txt with x, y, w, h, 1-based.

    Coordinates become 0-based. Where OTB's configuration takes a part of a sequence (`OTB_FRAMES`: David from
    frame 300, Football1 up to 74, ...; the folder's name says which), so does this; the file may hold boxes for
    that part or for all images. Frames after the last box have none. A box without area is missing ground truth.

    Args:
        folder: the sequence's folder.
        target: which target, where there are groundtruth_rect.1.txt and groundtruth_rect.2.txt (Jogging,
            Skating2, Human4); its number goes into the name, Jogging-1.

    Raises:
        FileNotFoundError: the folder, its img folder or the file of boxes does not exist.
        OSError: the file of boxes cannot be read.
        ValueError: no image; a line that is not four numbers, with file and line; no box, or more boxes than
            frames; several targets and none chosen.

    Source: Y. Wu, J. Lim, M.-H. Yang, Object Tracking Benchmark, TPAMI 2015; frame ranges as its toolkit has them.
    """

    def __init__(self, folder: str | os.PathLike, target: int | None = None):
        folder = _folder(folder, "", "OTBSequence")
        files = _targets(folder)
        if target is None and len(files) != 1:
            if not files:
                raise FileNotFoundError(f"{folder} must hold groundtruth_rect.txt with boxes in it, got none")
            fail("target", f"one of {sorted(k for k in files if k)}, the targets of {folder}", target)
        if target is not None and target not in files:
            fail("target", f"one of {sorted(k for k in files if k)}, the targets of {folder}", target)
        if target is None:
            (target,) = files
        file, name = files[target], folder.resolve().name
        images, boxes = _images(folder / "img"), read_numbers(files[target], [4])
        if name.lower() in OTB_FRAMES and all(image.stem.isdigit() for image in images):
            first, last = OTB_FRAMES[name.lower()]
            part = [k for k, image in enumerate(images) if first <= int(image.stem) <= last]
            if len(boxes) == len(images):
                boxes = boxes[part]
            images = [images[k] for k in part]
        boxes = boxes - boxes.new_tensor([1, 1, 0, 0])
        super().__init__(f"{name}-{target}" if target else name, images, _pad(boxes, len(images), file))


def _targets(folder: Path) -> dict[int, Path]:
    """Number of the target, 0 for the only one, and the file with its boxes; empty files are passed over.

    The only file of Human4 that is not empty is that of target 2.
    """
    numbered = {
        int(match[1]): file
        for file in sorted(folder.glob("groundtruth_rect.*.txt"))
        if (match := re.fullmatch(r"groundtruth_rect\.(\d+)\.txt", file.name)) and file.read_bytes().strip()
    }
    plain = [
        folder / name for name in ("groundtruth_rect.txt", "groundtruth.txt") if (folder / name).is_file()
    ]
    return numbered or ({0: plain[0]} if plain else {})


class _Sequences(Sequence[TrackingSequence]):
    """Sequences by number, in the order of their names, or by name; each is read when it is asked for."""

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
        return f"{type(self).__name__}({len(self)} sequences of {self.root})"


class OTB(_Sequences):
    """A folder of sequences in OTB's layout, each as `OTBSequence` reads it.

    Every subfolder with an img folder and a groundtruth_rect.txt (or .1.txt, .2.txt: two sequences, Jogging-1 and
    Jogging-2) is one; other folders are passed over, and so are files of boxes that are empty.

    Args:
        root: the folder; default: `tracking` in the environment's AMSTEL_DATA.

    Attributes:
        names: names of the sequences.

    Raises:
        FileNotFoundError: `root` does not exist.
        ValueError: it holds no sequence; on reading one, as `OTBSequence`.

    Example:
        >>> sequences = amstel.data.OTB("OTB100")                              # doctest: +SKIP
        >>> sequences["Jogging-2"].ground_truth.shape                          # doctest: +SKIP
        torch.Size([307, 4])
    """

    def __init__(self, root: str | os.PathLike | None = None):
        self.root = _folder(root, "tracking", "OTB")
        self._parts = {
            f"{folder.name}-{target}" if target else folder.name: (folder, target)
            for folder in _visible(self.root)
            if (folder / "img").is_dir()
            for target in _targets(folder)
        }
        if not self._parts:
            raise ValueError(
                f"{self.root} must hold folders of sequences, each with img and groundtruth_rect.txt, got none"
            )
        self.names = sorted(self._parts, key=lambda name: natural(Path(name)))

    def _read(self, name: str) -> OTBSequence:
        folder, target = self._parts[name]
        return OTBSequence(folder, target)


class _Listed(_Sequences):
    """Folders of sequences, those of list.txt where that is there."""

    def _find(self, root: Path, marker: str) -> None:
        self.root, listing = root, root / "list.txt"
        if listing.is_file():
            names = listing.read_text(encoding="utf-8-sig").split()
            for name in names:
                if not (root / name).is_dir():
                    raise FileNotFoundError(f"{listing} names {name}, which is no folder beside it")
        else:
            names = [p.name for p in _visible(root) if (p / marker).is_file()]
        if not names:
            raise ValueError(f"{root} must hold folders of sequences, each with {marker}, got none")
        self.names = sorted(names, key=lambda name: natural(Path(name)))


class GOT10k(_Listed):
    """GOT-10k: NAME/00000001.jpg, ... with groundtruth.txt (x, y, w, h, 1-based), absence.label and cover.label.

    Coordinates become 0-based. Ground truth is missing where the target is absent (absence.label is 1), is not
    visible at all (cover.label is 0) or has a box without area. In the test split only the first frame has a box.

    Args:
        root: the folder of the sequences, or the one above its train, val and test.
        split: "train", "val" or "test" in the latter case.

    Attributes:
        names: names of the sequences, those of list.txt where that is there.

    Raises:
        FileNotFoundError: the folder, or a sequence that list.txt names, does not exist.
        OSError: a text file cannot be read.
        ValueError: no sequence; on reading one, no image, a line that is not as it should be (with file and line),
            more boxes than frames, another number of labels than frames.

    Source: L. Huang, X. Zhao, K. Huang, GOT-10k, TPAMI 2021; that coordinates begin with 1 is the authors' word in
    their toolkit's issue 6.
    """

    def __init__(self, root: str | os.PathLike, split: str | None = None):
        root = _folder(root, "", "GOT10k")
        if split not in (None, "train", "val", "test"):
            fail("split", '"train", "val", "test" or None', split)
        if split is None and not (root / "list.txt").is_file() and (root / "train").is_dir():
            raise ValueError(
                f'`split` must be "train", "val" or "test" for {root}, which holds them, got None'
            )
        self._find(root if split is None else _folder(root / split, "", "GOT10k"), "groundtruth.txt")

    def _read(self, name: str) -> TrackingSequence:
        folder = self.root / name
        images, file = _images(folder), folder / "groundtruth.txt"
        boxes = _pad(read_numbers(file, [4]) - torch.tensor([1, 1, 0, 0]), len(images), file)
        for label, unseen in (("absence", 1), ("cover", 0)):
            file = folder / f"{label}.label"
            if file.is_file():
                labels = read_numbers(file, [1])
                if len(labels) != len(images):
                    raise ValueError(f"{file} must hold {len(images)} labels, one a frame, got {len(labels)}")
                boxes[labels[:, 0] == unseen] = math.nan
        return TrackingSequence(name, images, boxes)


class VOT(_Listed):
    """VOT (2013 to 2019): NAME/color/00000001.jpg or NAME/00000001.jpg, ... and groundtruth.txt.

    A line holds x, y, w, h or the corners of a polygon, x1, y1, ..., x4, y4, taken as 0-based. A polygon
    becomes an upright box, `polygon="area"`: with the polygon's centre (the mean of its corners), the
    proportions of its bounds and its area; `polygon="bounds"`: its bounds. Area is the default because the
    bounds of a target at 45° are twice its size, half of it background, which is what a tracker would then
    learn and follow; the tracker wrappers of the challenge do so too (some with a pixel added to width and
    height, which is not done here). The toolkit's own conversion to rectangles is the bounds. Both are the same
    for upright polygons.

    Args:
        root: the folder of the sequences.
        polygon: "area" or "bounds".

    Attributes:
        names: names of the sequences, those of list.txt where that is there.

    Raises:
        FileNotFoundError: the folder, or a sequence that list.txt names, does not exist.
        OSError: a text file cannot be read.
        ValueError: no sequence; on reading one, no image, a line that is not four or eight numbers (with file and
            line; the masks of later years are not read), more boxes than frames.

    Source: M. Kristan et al., The Visual Object Tracking challenge, 2013 to 2019.
    """

    def __init__(self, root: str | os.PathLike, polygon: str = "area"):
        if polygon not in ("area", "bounds"):
            fail("polygon", '"area" or "bounds"', polygon)
        self.polygon = polygon
        self._find(_folder(root, "", "VOT"), "groundtruth.txt")

    def _read(self, name: str) -> TrackingSequence:
        folder = self.root / name
        colour, file = folder / "color", folder / "groundtruth.txt"
        images = _images(colour if colour.is_dir() else folder)
        boxes = read_numbers(file, [4, 8])
        if boxes.shape[1] == 8:
            boxes = polygon_to_box(boxes, self.polygon)
        return TrackingSequence(name, images, _pad(boxes, len(images), file))


def polygon_to_box(corners: Tensor, method: str = "area") -> Tensor:
    """Upright boxes [T, 4] (x, y, w, h) of quadrilaterals [T, 8] (x1, y1, ..., x4, y4), as `VOT` describes."""
    if method not in ("area", "bounds"):
        fail("method", '"area" or "bounds"', method)
    if tensor("corners", corners, "a tensor [T, 8]").dim() != 2 or corners.shape[1] != 8:
        fail("corners", "a tensor [T, 8]", corners)
    points = corners.double().reshape(-1, 4, 2)
    low, size = points.amin(1), points.amax(1) - points.amin(1)
    if method == "area":
        x, y = points.roll(-1, 1).unbind(2)
        area = ((points[..., 0] * y - points[..., 1] * x).sum(1) / 2).abs()
        bounds = size.prod(1)
        size = size * torch.where(bounds > 0, area / bounds, bounds).sqrt()[:, None]
        low = points.mean(1) - size / 2
    return torch.cat([low, size], 1)


class ALOV(_Sequences):
    """ALOV300++: frames in imagedata++/CATEGORY/NAME, boxes in alov300++_rectangleAnnotation_full/CATEGORY/NAME.ann.

    A line of the .ann file is `frame x1 y1 x2 y2 x3 y3 x4 y4`, frames counted from 1; there is one for every fifth
    frame or so, and the frames between have no ground truth. The corners are pixels of the box, 1-based, so the box
    is (min x - 1, min y - 1, max x - min x + 1, max y - min y + 1), which is how the authors of SINT read them.

    Args:
        root: the folder that holds the two.

    Attributes:
        names: names of the sequences.

    Raises:
        FileNotFoundError: a folder does not exist.
        OSError: a file cannot be read.
        ValueError: no annotation; on reading a sequence, no image, a line that is not nine numbers or whose frame
            is not there, with file and line.

    Source: A. Smeulders et al., Visual Tracking: An Experimental Survey, TPAMI 2014.
    """

    def __init__(self, root: str | os.PathLike):
        self.root = _folder(root, "", "ALOV")
        annotations = _folder(self.root / "alov300++_rectangleAnnotation_full", "", "ALOV")
        self._files = {file.stem: file for file in sorted(annotations.glob("*/*.ann"))}
        if not self._files:
            raise ValueError(f"{annotations} must hold annotations CATEGORY/NAME.ann, got none")
        self.names = sorted(self._files, key=lambda name: natural(Path(name)))

    def _read(self, name: str) -> TrackingSequence:
        file = self._files[name]
        images = _images(self.root / "imagedata++" / file.parent.name / name)
        rows = read_numbers(file, [9])
        frame = rows[:, 0]
        for number, value in enumerate(frame.tolist(), start=1):
            if value not in range(1, len(images) + 1):
                raise ValueError(
                    f"{file}, line {number}: the frame must be a whole number in 1..{len(images)}, got {value:g}"
                )
        boxes = torch.full((len(images), 4), math.nan, dtype=torch.float64)
        boxes[frame.long() - 1] = polygon_to_box(rows[:, 1:], "bounds") + rows.new_tensor([-1, -1, 1, 1])
        return TrackingSequence(name, images, boxes)
