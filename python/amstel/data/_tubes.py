"""Where the actions in UCF101-24 are: its annotations, in the five formats in which they are distributed."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as xml
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from amstel._numerals import parsed
from amstel._optional import need
from amstel.data.planetoid import _Unpickler
from amstel.media.formats import visible

#: What two classes are called in the older of the files of the ViPER tool.
_OLD_NAMES = {"basketballshooting": "basketball", "walking": "walkingwithdog"}


#: More frames than this are damage: at 25 a second they are four days.
_MOST_FRAMES = 10**7


@dataclass
class Tube:
    """One actor while the action lasts: boxes float32 [n, 4], x1, y1, x2, y2 in pixels, NaN where there is none, of the
    frames from `first` (0 is the first frame of the video) to `end` - 1, as the file has it: that no box is infinite is
    all that is checked."""

    first: int
    end: int
    boxes: np.ndarray

    def __post_init__(self) -> None:
        if np.isinf(self.boxes).any():
            raise ValueError("a box must be of finite numbers")


@dataclass
class Annotation:
    """The tubes of every video by its name, "Class/v_name", and the splits that the file holds, if it does."""

    file: Path
    tubes: dict[str, list[Tube]]
    splits: dict[int, tuple[set[str], set[str]]] = field(default_factory=dict)


def find(root: Path) -> Path | None:
    """The annotation in a folder: a file .json, .pkl or .mat, or a folder of .xgtf files by class."""
    files = visible(root, (".json",)) + visible(root, (".pkl", ".mat"))
    if files:
        return files[0]
    folders = [root, *(p for p in visible(root) if p.is_dir())]
    return next((p for p in folders if _viper_files(p)), None)


def read(path: Path) -> Annotation:
    """What an annotation says.

    Raises:
        FileNotFoundError: nothing is there, or a folder that holds no annotation.
        ValueError: it is not of a known form; the message names the file.
    """
    if not path.exists():
        raise FileNotFoundError(f"the annotation {path} does not exist")
    if path.is_dir():
        if not _viper_files(path):
            inside = find(path)
            if inside is None:
                raise FileNotFoundError(
                    f"{path} must hold boxes (a file .json, .pkl or .mat, or .xgtf files by class), got none"
                )
            return read(inside)
        tubes: dict[str, list[Tube]] = {}
        for file in _viper_files(path):
            name, found = _viper(file)
            if name in tubes:
                raise ValueError(f"{path} must hold one file of boxes for {name}, got two")
            tubes[name] = found
        return Annotation(path, tubes)
    reader = {".json": _json, ".pkl": _pickle, ".mat": _matlab}.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path} must be a file .json, .pkl or .mat, or a folder of .xgtf files")
    try:
        return reader(path)
    except OSError:
        raise
    except ImportError:
        raise
    except Exception as error:  # a broken pickle raises nearly anything
        raise ValueError(
            f"{path} must hold the boxes of UCF101's clips, got {type(error).__name__}: {error}"
        ) from None


def _tube(first: Any, end: Any, boxes: Any) -> Tube:
    """Boxes x, y, width, height of the frames first to end - 1."""
    if first != np.floor(first) or end != np.floor(end):
        raise ValueError(f"a tube must begin and end with a whole frame, got {first} and {end}")
    xywh = np.asarray(boxes, np.float32).reshape(-1, 4)
    return Tube(int(first), int(end), np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1))


def _parts(entries: dict[str, Any], key: str) -> dict[str, list[Tube]]:
    return {
        str(name): [_tube(part["sf"], part["ef"], part[key]) for part in entry["annotations"]]
        for name, entry in entries.items()
    }


def _json(path: Path) -> Annotation:
    return Annotation(path, _parts(json.loads(path.read_bytes()), "boxes_xywh"))


def _pickle(path: Path) -> Annotation:
    """pyannot.pkl of the corrected annotations, or the one with "gttubes" in which later work passes them around.

    The first has x, y, width, height for frames sf to ef - 1 counted from 0; the second rows of the frame, counted from
    1, and x1, y1, x2, y2, by video and class.
    """
    with path.open("rb") as file:
        found = _Unpickler(file, encoding="latin1").load()
    if "gttubes" not in found:
        return Annotation(path, _parts(found, "boxes"))
    tubes = {
        str(name): [_of_rows(rows) for of_class in classes.values() for rows in of_class]
        for name, classes in found["gttubes"].items()
    }
    parts = zip(found.get("train_videos", []), found.get("test_videos", []), strict=True)
    splits = {k: (set(map(str, train)), set(map(str, test))) for k, (train, test) in enumerate(parts, 1)}
    return Annotation(path, tubes, splits)


def _of_rows(rows: Any) -> Tube:
    rows = np.asarray(rows, np.float64).reshape(-1, 5)
    frames = rows[:, 0].astype(int) - 1
    whole = (rows[:, 0] == frames + 1).all()
    if not len(frames) or not whole or frames.min() < 0 or len(set(frames.tolist())) < len(frames):
        raise ValueError("a tube must have one row for each of its frames, counted from 1")
    if frames.max() >= _MOST_FRAMES:
        raise ValueError(f"a tube must end within {_MOST_FRAMES} frames, got {frames.max() + 1}")
    boxes = np.full((frames.max() - frames.min() + 1, 4), np.nan, np.float32)
    boxes[frames - frames.min()] = rows[:, 1:]
    return Tube(int(frames.min()), int(frames.max()) + 1, boxes)


def _matlab(path: Path) -> Annotation:
    """finalAnnots.mat, annot_bmvc.mat: structures with the fields name and tubes of sf, ef (the first frame is 1, ef
    belongs to the tube) and boxes."""
    loadmat = need("scipy.io", extra="video", purpose="the boxes of a .mat file").loadmat
    found = loadmat(path, squeeze_me=True, struct_as_record=True)
    videos = next(value for value in found.values() if getattr(value, "dtype", None) and value.dtype.names)
    tubes = {}
    for video in np.atleast_1d(videos):
        tubes[str(video["name"])] = [
            _tube(tube["sf"] - 1, tube["ef"], tube["boxes"]) for tube in np.atleast_1d(video["tubes"])
        ]
    return Annotation(path, tubes)


def _viper_files(folder: Path) -> list[Path]:
    return [file for inside in visible(folder) if inside.is_dir() for file in visible(inside, (".xgtf",))]


def _viper(path: Path) -> tuple[str, list[Tube]]:
    """A file of the ViPER tool as UCF published them: in a folder of its class, the persons in the video with their
    Location and, for each action, the spans of frames, counted from 1, in which they do it.

    Where no person does the action of the folder, all are taken to do it as long as they are there.
    """
    name = f"{path.parent.name}/{path.stem}"
    try:
        root = xml.parse(path).getroot()
        source = next(element for element in root.iter() if _tag(element) == "sourcefile")
        people = [
            _person(element, path.parent.name)
            for element in source
            if _tag(element) == "object" and element.get("name", "").upper() == "PERSON"
        ]
        return name, _of_people(people)
    except (xml.ParseError, StopIteration, KeyError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path} must be a file of the ViPER tool with persons and their Location, got "
            f"{type(error).__name__}: {error}"
        ) from None


_Span = tuple[int, int]
_Boxes = list[tuple[int, int, tuple[float, float, float, float]]]


def _of_people(people: list[tuple[_Boxes, list[_Span], list[_Span]]]) -> list[Tube]:
    if any(acts for _, _, acts in people):
        spans = [(boxes, span) for boxes, _, acts in people for span in acts]
    else:
        spans = [(boxes, span) for boxes, there, _ in people for span in there]
    tubes = []
    for boxes, (first, last) in spans:
        known = [(max(a, first), min(b, last), box) for a, b, box in boxes if a <= last and b >= first]
        if not known:
            continue
        first, last = min(a for a, _, _ in known), max(b for _, b, _ in known)
        tube = np.full((last - first + 1, 4), np.nan, np.float32)
        for a, b, box in known:
            tube[a - first : b - first + 1] = box
        tubes.append(Tube(first - 1, last, tube))
    return tubes


def _person(element: xml.Element, label: str) -> tuple[_Boxes, list[_Span], list[_Span]]:
    """Boxes by spans of frames, the spans in which a person is there, and those in which it does the action."""
    boxes: _Boxes = []
    acts: list[_Span] = []
    for attribute in element:
        called = _plain(attribute.get("name", ""))
        for value in attribute:
            if called == "location" and _tag(value) == "bbox":
                x, y, width, height = (parsed(value.attrib[k].strip()) for k in ("x", "y", "width", "height"))
                boxes += [(a, b, (x, y, x + width, y + height)) for a, b in _spans(value)]
            elif _OLD_NAMES.get(called, called) == _plain(label) and _tag(value) == "bvalue":
                if value.attrib["value"].lower() in ("true", "1"):
                    acts += list(_spans(value, element))
    return boxes, list(_spans(element)), acts


def _spans(*elements: xml.Element) -> Iterator[_Span]:
    """The framespan "12:40", or several, of the first element that has one."""
    text = next(element.attrib["framespan"] for element in elements if "framespan" in element.attrib)
    for part in text.split():
        first, last = (parsed(number, int) for number in part.split(":"))
        if not 1 <= first <= last <= _MOST_FRAMES:
            raise ValueError(f"a framespan must be within 1:{_MOST_FRAMES}, got {text!r}")
        yield first, last


def _tag(element: xml.Element) -> str:
    """Its name without the name space."""
    return element.tag.rpartition("}")[2]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
