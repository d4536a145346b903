"""THUMOS14: long videos, with the times at which each of 20 actions happens."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path

from amstel._check import fail
from amstel._files import there as _there
from amstel._numerals import parsed
from amstel._words import are, counted
from amstel.data._folders import data_folder
from amstel.data.splits import _lines
from amstel.media.formats import IMAGES, VIDEOS, natural, visible

__all__ = ["THUMOS14"]

_FILE = re.compile(r"(.+)_(val|test)\.txt")
AMBIGUOUS = "Ambiguous"

#: The actions of the detection task with their numbers, which detclasslist.txt says too.
CLASSES = {
    "BaseballPitch": 7,
    "BasketballDunk": 9,
    "Billiards": 12,
    "CleanAndJerk": 21,
    "CliffDiving": 22,
    "CricketBowling": 23,
    "CricketShot": 24,
    "Diving": 26,
    "FrisbeeCatch": 31,
    "GolfSwing": 33,
    "HammerThrow": 36,
    "HighJump": 40,
    "JavelinThrow": 45,
    "LongJump": 51,
    "PoleVault": 68,
    "Shotput": 79,
    "SoccerPenalty": 85,
    "TennisSwing": 92,
    "ThrowDiscus": 93,
    "VolleyballSpiking": 97,
}


class THUMOS14:
    """Videos of THUMOS14 with the times at which each action begins and ends.

    There is one annotation file per action, `Diving_test.txt` or `Diving_val.txt`, with lines
    "video_test_0000004 0.2 1.1" (name, begin and end in seconds), and `Ambiguous_test.txt` with the parts that are not
    scored. They are in `root`, in a subfolder, or in `intervals`. The videos, video_test_0000004.mp4 (or another format,
    or folders of frames), are in `root` or a subfolder; missing ones are left out with a warning.

    Args:
        root: the folder.
        intervals: the folder of the annotations, if it is elsewhere.
        subset: "test", or "val", the set that is commonly used for training.

    Attributes:
        classes: names of the actions, sorted.
        numbers: the number of each class in the challenge, from `detclasslist.txt` or else as published.
        names: names of the videos.
        paths: path of each video.
        missing: names of annotated videos that are missing.

    Raises:
        FileNotFoundError: a folder does not exist, or there are no annotations of the subset, or none of their videos.
        ValueError: a line is not as above; the message names file and line.

    Source: Y.-G. Jiang et al., THUMOS Challenge: Action Recognition with a Large Number of Classes, 2014.

    Example:
        >>> videos = amstel.data.THUMOS14("TH14_test_set_mp4", intervals="annotation")
        >>> videos.intervals[0]
        [('CliffDiving', 12.1, 14.0), ('Diving', 12.1, 14.0)]
    """

    def __init__(
        self,
        root: str | os.PathLike,
        intervals: str | os.PathLike | None = None,
        subset: str = "test",
    ):
        self.root = data_folder(root, "", type(self).__name__)
        if subset not in ("test", "val"):
            fail("subset", "test or val", subset)
        self.subset = subset
        place = self.root if intervals is None else data_folder(intervals, "", "intervals")
        files = _files(place, subset)
        if not files:
            other = "val" if subset == "test" else "test"
            more = f", but files of the {other} set" if _files(place, other) else ""
            raise FileNotFoundError(
                f"{place} must hold the times of THUMOS14, Diving_{subset}.txt for example, got none{more}"
            )
        self._place = next(iter(files.values())).parent
        self.classes = [name for name in files if name != AMBIGUOUS]
        if not self.classes:
            raise FileNotFoundError(f"{self._place} must hold the times of actions, got only {AMBIGUOUS}")
        self.numbers = self._numbered()
        spans = {name: _spans(file) for name, file in files.items()}
        annotated = sorted({video for name in self.classes for video, _, _ in spans[name]})
        there = _videos(self.root, set(annotated))
        self.names = [name for name in annotated if name in there]
        self.paths = [there[name] for name in self.names]
        self.missing = [name for name in annotated if name not in there]
        if not self.names:
            raise FileNotFoundError(
                f"{self.root} must hold the videos that {self._place} names, {annotated[0] if annotated else 'none'} "
                "for example, got none of them"
            )
        if self.missing:
            shown = ", ".join(self.missing[:5]) + (", ..." if len(self.missing) > 5 else "")
            warnings.warn(
                f"{len(self.missing)} of {counted(len(annotated), 'video')} that {self._place} names "
                f"{are(len(self.missing))} not in {self.root} and left out: {shown}",
                stacklevel=2,
            )
        self._spans = spans

    @property
    def intervals(self) -> list[list[tuple[str, float, float]]]:
        """The actions (class, begin, end) in each video, in seconds, by class and then in the order of the files."""
        return [
            [(c, a, b) for c in self.classes for video, a, b in self._spans[c] if video == name]
            for name in self.names
        ]

    @property
    def ambiguous(self) -> list[list[tuple[float, float]]]:
        """The parts (begin, end) of each video, in seconds, that are not scored."""
        parts = self._spans.get(AMBIGUOUS, [])
        return [[(a, b) for video, a, b in parts if video == name] for name in self.names]

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({counted(len(self), 'video')}, {counted(len(self.classes), 'class')}, subset={self.subset!r})"

    def _numbered(self) -> list[int]:
        numbers = dict(CLASSES)
        file = self._place / "detclasslist.txt"
        for line, where in _lines(file) if _there(file) else ():
            number, _, name = line.partition(" ")
            if not re.fullmatch("[0-9]{1,9}", number) or not name.strip():
                raise ValueError(f'{where} must be a number and a class, "7 BaseballPitch", got {line!r}')
            numbers[name.strip()] = int(number)
        unknown = [name for name in self.classes if name not in numbers]
        if unknown:
            raise ValueError(f"{file} must say the number of {unknown[0]}, got none")
        return [numbers[name] for name in self.classes]


def _files(place: Path, subset: str) -> dict[str, Path]:
    """The files of a subset by their action, of the first folder that has some."""
    for folder in (place, *(Path(p) for p, _, _ in os.walk(place) if Path(p) != place)):
        found = {}
        for file in visible(folder):
            match = _FILE.fullmatch(file.name)
            if match and match[2] == subset and _there(file):
                found[match[1]] = file
        if found:
            return dict(sorted(found.items()))
    return {}


def _spans(file: Path) -> list[tuple[str, float, float]]:
    found = []
    for line, where in _lines(file):
        parts = line.split()
        try:
            name, begin, end = parts[0], parsed(parts[1]), parsed(parts[2])
            good = len(parts) == 3 and 0 <= begin <= end < float("inf")
        except (IndexError, ValueError):
            good = False
        if not good:
            raise ValueError(f'{where} must be "video begin end" in seconds, got {line!r}')
        found.append((name, begin, end))
    return found


def _videos(root: Path, wanted: set[str]) -> dict[str, Path]:
    """Videos, and folders of frames, in a folder and its folders, by their names; a file goes before a folder."""
    found: dict[str, list[Path]] = {}
    for place, inside, names in os.walk(root):
        folders = [Path(place, n) for n in inside if n in wanted and visible(Path(place, n), IMAGES)]
        inside[:] = sorted(n for n in inside if n not in wanted and not n.startswith("."))
        files = [Path(place, n) for n in names if Path(n).suffix.lower() in VIDEOS and not n.startswith(".")]
        for path in sorted(files, key=natural) + folders:
            name = path.name if path.is_dir() else path.stem
            if name in wanted:
                found.setdefault(name, []).append(path)
    for name, paths in found.items():
        kinds = [p for p in paths if not p.is_dir()] or paths
        if len(kinds) > 1:
            raise ValueError(f"{name} must be one video, got {', '.join(map(str, kinds))}")
        found[name] = kinds
    return {name: paths[0] for name, paths in found.items()}
