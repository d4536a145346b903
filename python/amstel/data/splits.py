"""Data sets of actions with their published training and test lists."""

from __future__ import annotations

import csv
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from amstel._check import fail, integer
from amstel._files import there
from amstel._numerals import parsed
from amstel._words import are, counted
from amstel.data._folders import data_folder
from amstel.data.clips import ClipFolder
from amstel.media.formats import IMAGES, VIDEOS, visible

_UCF, _HMDB = re.compile(r"(train|test)list0*(\d+)\.txt"), re.compile(r"(.+)_test_split(\d+)\.txt")
_is_number = re.compile("[0-9]+").fullmatch
_TRAIN, _TEST = ("train",), ("val", "validate", "validation", "test")  # the first that is there
_PATHS, _LABELS = ("path", "video_path", "video", "file", "filename", "name"), ("label", "class", "action")


@dataclass
class _Row:
    """A line of a list: the clip as the list has it, its class, what it is for, and where it stands."""

    file: str
    label: str
    part: str  # "train" or "test"
    split: int
    where: str


class SplitClips(ClipFolder):
    r"""Clips of a data set with its official splits, in its original layout.

    Three kinds of lists are recognized. They are looked for in `root`, in its subfolders, and in sibling folders:

    - UCF101: `trainlist01.txt` ("Class/v_name.avi 1"), `testlist01.txt` ("Class/v_name.avi") and `classInd.txt`
      ("1 Class"), the lists 01 to 03;
    - HMDB51: `class_test_split1.txt` ("name.avi 1") with 1 for training, 2 for testing and 0 for neither;
    - Kinetics: `train.csv` and `val.csv` (or `validate.csv`, `test.csv`), with the columns label, youtube_id, time_start
      and time_end for the video `youtube_id_000010_000020.mp4`; or with the columns path and label; or without a
      header, "path label" or "path,label". This is split 1.

    A clip is looked up in `root` and its subfolders by its path, by class/name, and by name alone; with the extension
    in the list, as a folder of frames, or with another extension. Clips are identified by their paths, so clips with
    the same name in two classes are different clips.

    Args:
        root: the folder of the videos, or one above it.
        lists: the folder with the lists, if they are elsewhere.
        strict: whether a missing clip is an error.

    Attributes:
        classes: in the order of classInd.txt, else of their names.
        missing: clips that are listed but missing; a warning says how many.
        numbers: the available splits, such as [1, 2, 3].

    Raises:
        FileNotFoundError: `root` does not exist, no lists are found or none of their clips; with `strict`, for a clip.
        ValueError: a line of a list is not as above, contradicts the class in another line, or puts a clip into both
            parts of a split. The message names file and line.

    Example:
        >>> clips = amstel.data.SplitClips("UCF-101", lists="ucfTrainTestlist")
        >>> train, test = clips.split(1)
        >>> [clips.names[k] for k in test]
        ['Diving/v_Diving_g01_c01']
    """

    def __init__(
        self, root: str | os.PathLike, lists: str | os.PathLike | None = None, *, strict: bool = False
    ):
        self.root = data_folder(root, "", type(self).__name__)
        if lists is not None:
            places = [data_folder(lists, "", "lists")]
        else:
            near = [self.root, *visible(self.root), *visible(self.root.absolute().parent)]
            places = [p for p in near if p.is_dir()]
        self._listings: dict[Path, dict[str, list[Path]]] = {}
        self._bases = [self.root, *(p for p in visible(self.root) if p.is_dir())]
        seen: list[Path] = []
        for place in places:
            known, rows = _read_lists(place)
            if not rows:
                continue
            seen.append(place)
            found = [(row, self._find(row)) for row in rows]
            if any(path is not None for _, path in found):
                self._fill(place, known, found, strict)
                return
        if seen:
            raise FileNotFoundError(
                f"{self.root} must hold videos that {seen[0]} lists, {_first_name(seen[0])} for example, got none of them"
            )
        raise FileNotFoundError(
            "the lists of the splits (trainlist01.txt, *_test_split1.txt or train.csv) must be in "
            f"{', '.join(map(str, places[:3]))}{', ...' if len(places) > 3 else ''}, got none"
        )

    def _fill(
        self, place: Path, known: list[str] | None, found: list[tuple[_Row, Path | None]], strict: bool
    ) -> None:
        labels: dict[Path, _Row] = {}
        parts: dict[tuple[int, Path], _Row] = {}
        missing: dict[str, str] = {}
        for row, path in found:
            if path is None:
                if strict:
                    raise FileNotFoundError(f"{row.where} lists {row.file}, which is not in {self.root}")
                missing[f"{row.label}/{row.file}"] = row.file
                continue
            first = labels.setdefault(path, row)
            if first.label != row.label:
                raise ValueError(
                    f"{row.where} must give {row.file} the same class as {first.where}, {first.label}, got {row.label}"
                )
            other = parts.setdefault((row.split, path), row)
            if other.part != row.part:
                raise ValueError(
                    f"{row.file} must be in one part of split {row.split}, but {other.where} has it in "
                    f"{other.part} and {row.where} in {row.part}"
                )
        self.missing = list(missing.values())
        if missing:
            shown = ", ".join(self.missing[:5]) + (", ..." if len(missing) > 5 else "")
            warnings.warn(
                f"{len(missing)} of {counted(len(missing) + len(labels), 'clip')} that {place} lists {are(len(missing))} not "
                f"in {self.root} and left out: {shown}",
                stacklevel=3,
            )
        self.classes = known or sorted({row.label for row in labels.values()})
        self.paths = sorted(labels, key=lambda path: (self.classes.index(labels[path].label), str(path)))
        self.labels = [self.classes.index(labels[path].label) for path in self.paths]
        self.numbers = sorted({split for split, _ in parts})
        self._parts = {key: row.part for key, row in parts.items()}
        self._place = place

    def split(self, number: int = 1) -> tuple[list[int], list[int]]:
        """Indices of the training clips and of the test clips of a split; a warning says where there are none."""
        number = integer("number", number)
        if number not in self.numbers:
            fail("number", f"a split of {self._place}, one of {', '.join(map(str, self.numbers))}", number)
        parts = [self._parts.get((number, path)) for path in self.paths]
        train, test = ([k for k, p in enumerate(parts) if p == name] for name in ("train", "test"))
        warn_of_parts(number, self._place, train, test)
        return train, test

    def _find(self, row: _Row) -> Path | None:
        given = Path(row.file)
        for base in self._bases:
            for path in (base / given, base / row.label / given.name, base / given.name):
                same = self._listing(path.parent).get(path.stem, []) if path.suffix else []
                same = same or self._listing(path.parent).get(path.name, [])
                exact = [p for p in same if p.name == path.name]
                if exact or len(same) == 1:
                    return (exact or same)[0]
                if same:
                    raise ValueError(
                        f"{row.where} lists {row.file}, which must be one clip, got {', '.join(map(str, same))}"
                    )
        return None

    def _listing(self, folder: Path) -> dict[str, list[Path]]:
        """The clips in a folder by their names without ending."""
        if folder not in self._listings:
            found: dict[str, list[Path]] = {}
            for path in visible(folder) if os.path.isdir(folder) else ():
                if path.is_dir():
                    found.setdefault(path.name, []).append(path)
                elif path.suffix.lower() in VIDEOS + IMAGES:
                    found.setdefault(path.stem, []).append(path)
            self._listings[folder] = found
        return self._listings[folder]


def warn_of_parts(number: int, place: Path, train: list[int], test: list[int]) -> None:
    """Say where a part of a split is empty; once, however often it is looked at."""
    for name, part in (("training", train), ("test", test)):
        if not part:
            warnings.warn(f"split {number} of {place} has no {name} clips", stacklevel=1)


def _first_name(place: Path) -> str:
    """The first clip that the lists in a folder name."""
    return _read_lists(place)[1][0].file


# ---- The three kinds of lists ----


def _read_lists(place: Path) -> tuple[list[str] | None, list[_Row]]:
    """Classes in their order, where the lists give one, and all lines."""
    files = visible(place)
    for read in (_read_ucf, _read_hmdb, _read_csv):
        known, rows = read(place, files)
        if rows:
            return known, rows
    return None, []


def _lines(file: Path) -> list[tuple[str, str]]:
    """Lines that are not empty, each with where it stands."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} must be text in UTF-8, got {error}") from None
    return [
        (line.strip(), f"{file}, line {n}") for n, line in enumerate(text.splitlines(), 1) if line.strip()
    ]


def _read_ucf(place: Path, files: list[Path]) -> tuple[list[str] | None, list[_Row]]:
    lists = [(file, found) for file in files if (found := _UCF.fullmatch(file.name)) and there(file)]
    if not lists:
        return None, []
    numbers: dict[str, str] = {}
    index = place / "classInd.txt"
    for line, where in _lines(index) if there(index) else ():
        number, _, name = line.partition(" ")
        if not _is_number(number) or not name or number in numbers:
            raise ValueError(f'{where} must be a new number and a class, "1 ApplyEyeMakeup", got {line!r}')
        numbers[number] = name.strip()
    rows = []
    for file, found in lists:
        for line, where in _lines(file):
            name, _, number = line.rpartition(" ") if _is_number(line.rpartition(" ")[2]) else (line, "", "")
            label, _, clip = name.strip().rpartition("/")
            label = label.rpartition("/")[2]
            if not label or not clip:
                raise ValueError(f'{where} must be "Class/video.avi" and perhaps a number, got {line!r}')
            said = numbers.get(number) if number and numbers else label
            if said != label or (numbers and label not in numbers.values()):
                expected = (
                    f"class {number}, {said}" if said not in (None, label) else "a class of classInd.txt"
                )
                raise ValueError(f"{where} must be of {expected}, got {label}")
            rows.append(_Row(name.strip(), label, found[1], int(found[2]), where))
    return list(numbers.values()) or None, rows


def _read_hmdb(place: Path, files: list[Path]) -> tuple[list[str] | None, list[_Row]]:
    rows = []
    for file in files:
        if not (found := _HMDB.fullmatch(file.name)) or not there(file):
            continue
        for line, where in _lines(file):
            name, _, number = line.rpartition(" ")
            if not name or number not in ("0", "1", "2"):
                raise ValueError(f'{where} must be "video.avi" and 0, 1 or 2, got {line!r}')
            if number != "0":
                part = "train" if number == "1" else "test"
                rows.append(_Row(name.strip(), found[1], part, int(found[2]), where))
    return None, rows


def _read_csv(place: Path, files: list[Path]) -> tuple[list[str] | None, list[_Row]]:
    tables: dict[str, Path] = {}
    for file in files:
        if file.suffix.lower() in (".csv", ".txt"):
            other = tables.setdefault(file.stem.lower(), file)
            if other != file and file.stem.lower() in _TRAIN + _TEST:
                raise ValueError(f"{place} must hold one list of a part, got {other.name} and {file.name}")
    rows: list[_Row] = []
    for part, names in (("train", _TRAIN), ("test", _TEST)):
        table = next((tables[name] for name in names if name in tables), None)
        if table is not None and there(table):
            rows += _read_table(table, part)
    return None, rows


def _cells(line: str, where: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line]))]
    except csv.Error as error:
        raise ValueError(f"{where} must be a line of a table, got {line[:60]!r}: {error}") from None


def _read_table(file: Path, part: str) -> list[_Row]:
    lines = _lines(file)
    if not lines:
        raise ValueError(f"{file} must list clips, got an empty file")
    head = [cell.lower() for cell in _cells(*lines[0])]
    label, path = (next((head.index(n) for n in names if n in head), None) for names in (_LABELS, _PATHS))
    name: Callable[[list[str]], str] | None = None
    if label is not None and "youtube_id" in head and {"time_start", "time_end"} <= set(head):
        video, begin, end = (head.index(n) for n in ("youtube_id", "time_start", "time_end"))
        name = lambda c: f"{c[video]}_{int(parsed(c[begin])):06d}_{int(parsed(c[end])):06d}.mp4"  # noqa: E731
    elif label is not None and path is not None:
        name = lambda c: c[path]  # noqa: E731
    rows = []
    for line, where in lines[1:] if name else lines:
        cells = _cells(line, where)
        if name is None:
            cells = cells if len(cells) == 2 else line.rsplit(None, 1)
        try:
            file_name, said = (name(cells), cells[label or 0]) if name else (cells[0], cells[1])
        except (IndexError, ValueError, OverflowError):
            file_name = said = ""
        if not file_name or not said:
            expected = f"the columns {', '.join(head)}" if name else '"path label" or "path,label"'
            raise ValueError(f"{where} must have {expected}, got {line!r}")
        rows.append(_Row(file_name, said, part, 1, where))
    return rows
