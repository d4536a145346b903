"""Readers of tracking data: OTB, GOT-10k, VOT and ALOV, all of them videos with one box per frame."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from pathlib import Path

import torch

from amstel import _check
from amstel._check import fail
from amstel._files import there
from amstel._words import counted
from amstel.data._folders import data_folder
from amstel.data.sequences import (
    Listed,
    Sequences,
    TrackingSequence,
    from_origin,
    images_of,
    pad,
    polygon_to_box,
    read_numbers,
    read_rows,
)
from amstel.media.formats import natural, visible, warn_of_folders, warn_of_links

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
# Number of images that OTB has of those whose file may hold a box for each of them.
_OTB_IMAGES = {"david": 770, "tiger1": 354}


class OTBSequence(TrackingSequence):
    """A sequence in OTB's layout: img/0001.jpg, ..., and groundtruth_rect.txt with x, y, w, h, 1-based.

    Coordinates become 0-based. If OTB's configuration uses only a part of a sequence (`OTB_FRAMES`: David from frame
    300, Football1 up to 74, ...), so does this, if the folder has that name and is that sequence: its images are
    numbered throughout the part, and the file has a box for each image of the part, or for each of OTB's images. Your
    own folder of that name, or one that was renumbered, is used as a whole. Frames after the last box have no box and
    are not scored (`sparse`). A box without area is missing ground truth.

    Args:
        folder: the sequence's folder.
        target: which target, if there are groundtruth_rect.1.txt and groundtruth_rect.2.txt (Jogging, Skating2,
            Human4); its number is added to the name, Jogging-1.
        origin: number of the first pixel in the file, 1 or, for your own data, 0.

    Warns:
        UserWarning: the file seems to count from 0; a number is missing among the images; the last frames have no boxes.

    Raises:
        FileNotFoundError: the folder, its img folder or the file of boxes does not exist.
        OSError: the file of boxes cannot be read.
        ValueError: no image; a line that is not four numbers, with file and line; no box, or more boxes than
            frames; several targets and none chosen.

    Source: Y. Wu, J. Lim, M.-H. Yang, Object Tracking Benchmark, TPAMI 2015; frame ranges as in its toolkit.

    Example:
        >>> sequence = amstel.data.OTBSequence("OTB100/Jogging", target=2)
        >>> sequence.name, sequence.ground_truth[0].tolist()  # 21,25,20,20 in the file
        ('Jogging-2', [20.0, 24.0, 20.0, 20.0])
    """

    def __init__(self, folder: str | os.PathLike, target: int | None = None, *, origin: int = 1):
        folder = data_folder(folder, "", "OTBSequence")
        files = _targets(folder)
        several = sorted(number for number in files if number)
        target = None if target is None else _check.integer("target", target)
        if target is None and len(files) != 1:
            if not files:
                raise FileNotFoundError(f"{folder} must hold groundtruth_rect.txt with boxes in it, got none")
            raise ValueError(f"`target` is needed: one of {several}, the targets of {folder}")
        if target is not None and target not in files:
            if not several:
                raise ValueError(
                    f"`target` must be left out for {folder}, which has one target, got {target}"
                )
            fail("target", f"one of {several}, the targets of {folder}", target)
        if target is None:
            (target,) = files
        file, name = files[target], Path(os.path.abspath(folder)).name
        images, boxes = images_of(folder / "img"), read_numbers(files[target], 4)
        part = _part(name, images, len(boxes))
        if part is not None:
            if len(boxes) == len(images):
                boxes = boxes[part]
            images = [images[k] for k in part]
        boxes = from_origin(boxes, file, origin)
        # The toolkit scores as many frames as there are boxes.
        short = len(boxes) < len(images)
        super().__init__(f"{name}-{target}" if target else name, images, pad(boxes, images, file), short)


def _part(name: str, images: list[Path], boxes: int) -> list[int] | None:
    """Which of the images OTB's configuration takes; None: all, also where the folder is another sequence."""
    name = name.lower()
    if name not in OTB_FRAMES or not all(image.stem.isdecimal() for image in images):
        return None
    first, last = OTB_FRAMES[name]
    part = [k for k, image in enumerate(images) if first <= int(image.stem) <= last]
    whole = boxes == len(images) == _OTB_IMAGES.get(name)
    if len(part) != last - first + 1 or not (boxes == len(part) or whole):
        return None
    return part


def _targets(folder: Path) -> dict[int, Path]:
    """Number of the target, 0 for the only one, and the file with its boxes; empty files are passed over.

    The only file of Human4 that is not empty is that of target 2. What cannot be read is an error on reading the sequence.
    """
    numbered: dict[int, Path] = {}
    for file in sorted(folder.glob("groundtruth_rect.*.txt")):
        match = re.fullmatch(r"groundtruth_rect\.(\d+)\.txt", file.name)
        if match and not _blank(file) and (other := numbered.setdefault(int(match[1]), file)) != file:
            raise ValueError(
                f"{folder} must hold one file of boxes a target, got {other.name} and {file.name}"
            )
    plain = [folder / name for name in ("groundtruth_rect.txt", "groundtruth.txt")]
    return numbered or dict(enumerate([file for file in plain if os.path.lexists(file)][:1]))


def _blank(file: Path) -> bool:
    try:
        return not file.read_bytes().strip()
    except OSError:
        return False


class OTB(Sequences):
    """A folder of sequences in OTB's layout, each as `OTBSequence` reads it.

    Every subfolder with an img folder and a groundtruth_rect.txt (or .1.txt, .2.txt: two sequences, Jogging-1 and
    Jogging-2) is a sequence; other folders, and empty files of boxes, are ignored.

    Args:
        root: the folder; default: `tracking` in the folder that AMSTEL_DATA names.
        origin: as for `OTBSequence`.

    Attributes:
        names: names of the sequences.

    Raises:
        FileNotFoundError: `root` does not exist.
        ValueError: it holds no sequence, or two of one name; on reading one, as `OTBSequence`.

    Warns:
        UserWarning: folders that are no sequences, and links to nothing, which are passed over.

    Example:
        >>> sequences = amstel.data.OTB("OTB100")
        >>> sequences.names
        ['Crossing', 'Jogging-1', 'Jogging-2']
        >>> frame = sequences["Jogging-2"][0]  # read now: uint8 [H, W, 3]
    """

    def __init__(self, root: str | os.PathLike | None = None, *, origin: int = 1):
        self.root, self.origin = data_folder(root, "tracking", "OTB"), origin
        self._parts: dict[str, tuple[Path, int]] = {}
        taken = []
        for folder in visible(self.root):
            images, targets = os.path.lexists(folder / "img"), _targets(folder)
            if targets and images:
                taken.append(folder)
            for target in targets if images else ():
                name = f"{folder.name}-{target}" if target else folder.name
                other, _ = self._parts.setdefault(name, (folder, target))
                if other != folder:
                    raise ValueError(
                        f"{self.root} must hold one sequence of a name, got {name} in {other.name} and {folder.name}"
                    )
        warn_of_folders(self.root, taken, "without img, or groundtruth_rect.txt with boxes")
        warn_of_links(self.root)
        if not self._parts:
            raise ValueError(
                f"{self.root} must hold folders of sequences, each with img and groundtruth_rect.txt, got none"
            )
        self.names = sorted(self._parts, key=lambda name: natural(Path(name)))

    def _read(self, name: str) -> OTBSequence:
        folder, target = self._parts[name]
        return OTBSequence(folder, target, origin=self.origin)


class GOT10k(Listed):
    """GOT-10k: NAME/00000001.jpg, ... with groundtruth.txt (x, y, w, h, 1-based), absence.label and cover.label.

    Coordinates become 0-based. Ground truth is missing where the target is absent (absence.label is 1), is not
    visible at all (cover.label is 0) or has a box without area. In the test split only the first frame has a box.

    Args:
        root: the folder of the sequences, or the one above its train, val and test.
        split: "train", "val" or "test" in the latter case.
        origin: number of the first pixel in the files, 1 or, for your own data, 0.

    Attributes:
        names: names of the sequences, those of list.txt if there is one.

    Raises:
        FileNotFoundError: the folder, or a sequence that list.txt names, does not exist.
        OSError: a text file cannot be read.
        ValueError: no sequence; a list.txt that names one twice; on reading one, no image, a line that is not as it should be (with file and line),
            more boxes than frames, another number of labels than frames.

    Source: L. Huang, X. Zhao, K. Huang, GOT-10k, TPAMI 2021; the authors say in issue 6 of their toolkit that coordinates
    start at 1.

    Example:
        >>> sequence = amstel.data.GOT10k("GOT-10k", split="val")[0]
        >>> sequence.ground_truth  # the target is absent from the last frame
        tensor([[20., 24., 20., 20.],
                [21., 24., 20., 20.],
                [nan, nan, nan, nan]], dtype=torch.float64)
    """

    def __init__(self, root: str | os.PathLike, split: str | None = None, *, origin: int = 1):
        self.origin, root = origin, data_folder(root, "", "GOT10k")
        if split not in (None, "train", "val", "test"):
            fail("split", '"train", "val", "test" or None', split)
        parts = [part for part in ("train", "val", "test") if (root / part).is_dir()]
        if split is None and parts and not there(root / "list.txt"):
            wanted = " or ".join(str(root / part) for part in parts)
            raise ValueError(f"{root} holds parts of GOT-10k: give the folder of one, {wanted}")
        self._find(root if split is None else data_folder(root / split, "", "GOT10k"), "groundtruth.txt")

    def _read(self, name: str) -> TrackingSequence:
        folder = self.root / name
        images, file = images_of(folder), folder / "groundtruth.txt"
        boxes = pad(from_origin(read_numbers(file, 4), file, self.origin), images, file)
        for label, unseen in (("absence", 1), ("cover", 0)):
            file = folder / f"{label}.label"
            if there(file):
                labels = read_numbers(file, 1)
                if len(labels) != len(images):
                    raise ValueError(
                        f"{file} must hold {counted(len(images), 'label')}, one per frame, got {len(labels)}"
                    )
                boxes[labels[:, 0] == unseen] = math.nan
        return TrackingSequence(name, images, boxes, sparse=True)


class VOT(Listed):
    """VOT (2013 and later): NAME/color/00000001.jpg or NAME/00000001.jpg, ... and groundtruth.txt.

    A line holds x, y, w, h, or three or more corners of a polygon, x1, y1, x2, y2, ..., taken as 0-based, or, since
    VOT2020, a mask (m and whole numbers), whose bounding box is used; a file may have all of these. A single number
    (the toolkit's code for a frame without a region), NaN and an empty mask are missing ground truth. A polygon
    becomes an upright box. With `polygon="area"`, it has the polygon's center (the mean of its corners), its area, and
    the proportions of its bounds; with `polygon="bounds"`, it is the bounds. Area is the default, because the bounds of
    a target at 45° are twice as large as the target, and a tracker would learn the background and follow it. The
    challenge's tracker wrappers do the same (some add a pixel to width and height, which is not done here). The
    toolkit's own conversion to rectangles uses the bounds. For upright polygons, both are the same.

    anchor.value, one number per frame, marks the frames in which the runs of VOT2020 and later begin. Sequences then
    have the attribute `anchors`: pairs of the frame's index, and whether the run goes back (-1) to the first frame.

    Args:
        root: the folder of the sequences.
        polygon: "area" or "bounds".
        origin: number of the first pixel in the files, 0 or, for your own data, 1.

    Attributes:
        names: names of the sequences, those of list.txt if there is one.

    Raises:
        FileNotFoundError: the folder, or a sequence that list.txt names, does not exist.
        OSError: a text file cannot be read.
        ValueError: no sequence; on reading one, no image, a line that is none of these (with file and line), more boxes
            than frames.

    Source: M. Kristan et al., The Visual Object Tracking challenge, 2013 to 2019.

    Example: a square that stands on a corner, 40 pixels from one corner to the opposite one.
        >>> amstel.data.VOT("vot2018")["bag"].ground_truth[0]
        tensor([25.8579, 25.8579, 28.2843, 28.2843], dtype=torch.float64)
        >>> amstel.data.VOT("vot2018", polygon="bounds")["bag"].ground_truth[0]
        tensor([20., 20., 40., 40.], dtype=torch.float64)
    """

    def __init__(self, root: str | os.PathLike, polygon: str = "area", *, origin: int = 0):
        if polygon not in ("area", "bounds"):
            fail("polygon", '"area" or "bounds"', polygon)
        self.polygon, self.origin = polygon, origin
        self._find(data_folder(root, "", "VOT"), "groundtruth.txt")

    def _read(self, name: str) -> TrackingSequence:
        folder = self.root / name
        color, file = folder / "color", folder / "groundtruth.txt"
        images = images_of(color if there(color, "folder") else folder)
        rows = [torch.tensor(row, dtype=torch.float64) for row in read_rows(file, None)]
        boxes = [row if len(row) == 4 else polygon_to_box(row[None], self.polygon)[0] for row in rows]
        found = torch.stack(boxes) if boxes else torch.empty(0, 4, dtype=torch.float64)
        found = from_origin(found, file, self.origin)
        short = len(found) < len(images)
        sequence = TrackingSequence(name, images, pad(found, images, file), short)
        if there(file := folder / "anchor.value"):
            values = read_numbers(file, 1)[:, 0].tolist()
            if len(values) > len(images) or not any(value < 0 or value > 0 for value in values):
                raise ValueError(
                    f"{file} must hold an anchor in one of {counted(len(images), 'frame')}, got {counted(len(values), 'line')}"
                )
            # NaN is neither
            sequence.anchors = [
                (frame, value < 0) for frame, value in enumerate(values) if value < 0 or value > 0
            ]
        return sequence


class ALOV(Sequences):
    """ALOV300++: frames in imagedata++/CATEGORY/NAME, boxes in alov300++_rectangleAnnotation_full/CATEGORY/NAME.ann.

    A line of the .ann file is `frame x1 y1 x2 y2 x3 y3 x4 y4`, with frames counted from 1. There is one for about every
    fifth frame, and the frames between have no ground truth. The corners are pixels of the box, 1-based, so the box
    is (min x - 1, min y - 1, max x - min x + 1, max y - min y + 1), as the authors of SINT read it.

    Args:
        root: the folder that contains these two folders.

    Attributes:
        names: names of the sequences.

    Raises:
        FileNotFoundError: a folder does not exist.
        OSError: a file cannot be read.
        ValueError: no annotation, or two of one name; on reading a sequence, no image, a line that is not nine numbers or whose frame
            is not there, with file and line.

    Source: A. Smeulders et al., Visual Tracking: An Experimental Survey, TPAMI 2014.

    Example:
        >>> sequence = amstel.data.ALOV("ALOV300++")["01-Light_video00001"]
        >>> sequence.ground_truth[:, 0]  # x, of every fifth frame
        tensor([20., nan, nan, nan, nan, 25.], dtype=torch.float64)
    """

    def __init__(self, root: str | os.PathLike):
        self.root = data_folder(root, "", "ALOV")
        annotations = data_folder(self.root / "alov300++_rectangleAnnotation_full", "", "ALOV")
        warn_of_links(annotations)
        files = [f for folder in visible(annotations) if folder.is_dir() for f in visible(folder, (".ann",))]
        # Names that two categories share get the category before them.
        often = Counter(file.stem for file in files)
        self._files: dict[str, Path] = {}
        for file in files:
            name = file.stem if often[file.stem] == 1 else f"{file.parent.name}-{file.stem}"
            if (other := self._files.setdefault(name, file)) != file:
                raise ValueError(
                    f"{annotations} must hold one sequence of a name, got {name} in {other} and {file}"
                )
        warn_of_folders(annotations, {file.parent for file in files}, "without files .ann")
        if not self._files:
            raise ValueError(f"{annotations} must hold annotations CATEGORY/NAME.ann, got none")
        self.names = sorted(self._files, key=lambda name: natural(Path(name)))

    def _read(self, name: str) -> TrackingSequence:
        file = self._files[name]
        images = images_of(self.root / "imagedata++" / file.parent.name / file.stem)
        rows = read_numbers(file, 9)
        frame = rows[:, 0]
        right = (frame >= 1) & (frame <= len(images)) & (frame == frame.floor())
        if not right.all():
            k = int((~right).nonzero()[0])
            raise ValueError(
                f"{file}, line {k + 1}: the frame must be a whole number in 1..{len(images)}, got {frame[k]:g}"
            )
        boxes = torch.full((len(images), 4), math.nan, dtype=torch.float64)
        boxes[frame.long() - 1] = polygon_to_box(rows[:, 1:], "bounds") + rows.new_tensor([-1, -1, 1, 1])
        return TrackingSequence(name, images, boxes, sparse=True)
