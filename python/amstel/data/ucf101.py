"""UCF101-24: the clips of UCF101 with boxes of every actor, and their official splits."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amstel._check import fail, integer
from amstel._words import counted
from amstel.data import _tubes
from amstel.data._clip import Clip
from amstel.data._folders import data_folder
from amstel.data.clips import ClipFolder
from amstel.data.splits import _read_ucf, warn_of_parts
from amstel.media import _arguments
from amstel.media.formats import IMAGES, VIDEOS, natural, visible
from amstel.media.reading import read_with_times

__all__ = ["UCF101"]


class UCF101(ClipFolder):
    """Clips of UCF101 with the boxes of its 24-class subset, frame by frame.

    The boxes are read from any of the published formats:

    - the .xgtf files of UCF (the ViPER tool), in a folder per class;
    - the corrected annotations, `pyannot.pkl` or `finalAnnots.mat`, or the same as JSON: {"Class/v_name": {"numf",
      "label", "annotations": [{"sf", "ef", "boxes_xywh"}]}}, boxes for the frames sf to ef - 1 counted from 0;
    - `UCF101v2-GT.pkl`, the same with the splits.

    A pickle is read without running any code in it. The videos, v_name.avi (or another format, or folders of frames),
    are in `root` or a subfolder. Annotated clips without a video are left out. A clip has a tube for every actor
    (`Clip.tubes`), NaN in frames outside it, and the first one as `Clip.boxes`.

    Args:
        root: the folder; default: `video/ucf101_clip` in the folder that AMSTEL_DATA names.
        boxes: the annotation, if it is elsewhere: a file, or a folder that holds one.

    Attributes:
        numbers: the available splits, from the annotation or from `trainlist01.txt` and `testlist01.txt` in `root`, in a
            subfolder, or beside the annotation.

    Raises:
        FileNotFoundError: the folder does not exist, or it holds no annotation or none of its videos.
        ValueError: the annotation is not as above; a tube that begins after the last frame of its video.

    Warns:
        UserWarning: boxes beyond the last frame of a video, which are left out.

    Source: K. Soomro, A. Zamir, M. Shah, UCF101, 2012; boxes as corrected by S. Saha and G. Singh, 2016.

    Example:
        >>> clip = amstel.data.UCF101("ucf101_clip")[0]
        >>> clip                                                               # doctest: +SKIP
        Clip(BasketballDunk/v_BasketballDunk_g17_c03, label=0, frames=[74, 240, 320, 3], boxes)
    """

    def __init__(self, root: str | os.PathLike | None = None, boxes: str | os.PathLike | None = None):
        self.root = data_folder(root, "video/ucf101_clip", "UCF101")
        file = _tubes.find(self.root) if boxes is None else Path(boxes)
        if file is None:
            raise FileNotFoundError(
                f"{self.root} must hold a JSON file with the boxes, or another annotation of UCF101-24 "
                "(.pkl, .mat or folders of .xgtf files), got none"
            )
        annotation = _tubes.read(file)
        self._file, self._tubes = annotation.file, annotation.tubes
        videos = _videos(self.root, {name.rpartition("/")[2] for name in self._tubes})
        found = {
            name: _of_class(name, videos.get(name.rpartition("/")[2], [])) for name in sorted(self._tubes)
        }
        self._names = [name for name, path in found.items() if path is not None]
        if not self._names:
            raise FileNotFoundError(
                f"{self.root} must hold videos named in {self._file.name}, got none of them"
            )
        self.classes = sorted({name.split("/")[0] for name in self._names})
        self.labels = [self.classes.index(name.split("/")[0]) for name in self._names]
        self.paths = [path for path in found.values() if path is not None]
        self._splits = annotation.splits or _lists([self.root, self._file.parent])
        self.numbers = sorted(self._splits)

    @property
    def names(self) -> list[str]:
        return list(self._names)

    def split(self, number: int = 1) -> tuple[list[int], list[int]]:
        """Indices of the training clips and of the test clips of a split; a warning says where there are none."""
        number = integer("number", number)
        if not self.numbers:
            raise ValueError(
                f"`number`: neither {self._file} nor a trainlist01.txt beside it lists the splits"
            )
        if number not in self.numbers:
            fail("number", f"a split of {self._file}, one of {', '.join(map(str, self.numbers))}", number)
        train, test = ([k for k, n in enumerate(self._names) if n in part] for part in self._splits[number])
        warn_of_parts(number, self._file, train, test)
        return train, test

    def _keep(self, indices: list[int]) -> None:
        super()._keep(indices)
        self._names = [self._names[k] for k in indices]

    def __getitem__(self, index: int) -> Clip:
        if self.fps is None:
            clip = super().__getitem__(index)
            shown = torch.arange(len(clip))
        else:
            if not -len(self) <= index < len(self):
                raise IndexError(f"`index` must be below {len(self)}, got {index}")
            frames, times = read_with_times(self.paths[index])
            if times is None and len(frames) > 1:
                raise ValueError(
                    f"`fps` must be None for {self.paths[index]}, which does not say when its frames are shown"
                )
            shown = _at_rate(times or [0.0], _arguments.number("fps", self.fps))
            clip = Clip(frames, self.labels[index], self.names[index])
        clip.tubes = self._whole(clip)[:, shown]
        clip.frames = clip.frames[shown]
        clip.boxes = clip.tubes[0] if len(clip.tubes) else None
        return clip

    def _identity(self) -> list[Any]:
        return [(*item, self._tubes[item[0]]) for item in super()._identity()]

    def _whole(self, clip: Clip) -> torch.Tensor:
        """The tubes over all frames of the file [A, T, 4]."""
        tubes = self._tubes[clip.name]
        found = torch.full((len(tubes), len(clip), 4), float("nan"))
        beyond = 0
        for whole, tube in zip(found, tubes, strict=True):
            if (
                not 0 <= tube.first < tube.end
                or len(tube.boxes) != tube.end - tube.first
                or tube.first >= len(clip)
            ):
                raise ValueError(
                    f"{self._file}: the {counted(len(tube.boxes), 'box')} of {clip.name} must be for frames within "
                    f"0..{len(clip)}, got {tube.first}..{tube.end}"
                )
            beyond = max(beyond, tube.end - len(clip))
            whole[tube.first : tube.end] = torch.from_numpy(tube.boxes[: len(clip) - tube.first])
        if beyond > 0:
            warnings.warn(
                f"{self._file} has boxes of {clip.name} for {counted(beyond, 'frame')} after its last, which are left out",
                stacklevel=3,
            )
        return found


def _at_rate(times: list[float], fps: float) -> torch.Tensor:
    """Which frame is shown at k / fps, until the last one has been shown as long as the one before."""
    at = np.asarray(times)
    last = at[-1] - at[-2] if len(at) > 1 else 0.0
    wanted = np.arange(max(1, int(np.ceil((at[-1] + last) * fps - 1e-6)))) / fps
    return torch.from_numpy(np.searchsorted(at, wanted + 1e-6 / fps, side="right") - 1)


def _videos(root: Path, wanted: set[str]) -> dict[str, list[Path]]:
    """Videos in a folder and its folders by their names; where there is none of a name, the folders of frames."""
    files: dict[str, list[Path]] = {}
    folders: dict[str, list[Path]] = {}
    for place, inside, names in os.walk(root):
        inside[:] = [name for name in inside if not name.startswith(".")]
        for name in [n for n in inside if n in wanted]:
            if visible(Path(place, name), IMAGES):
                folders.setdefault(name, []).append(Path(place, name))
        # What is a clip itself holds none.
        inside[:] = [name for name in inside if name not in wanted]
        for name in names:
            path = Path(place, name)
            if path.stem in wanted and path.suffix.lower() in VIDEOS and not name.startswith("."):
                files.setdefault(path.stem, []).append(path)
    return {name: sorted(files.get(name) or folders[name], key=natural) for name in {**folders, **files}}


def _of_class(name: str, paths: list[Path]) -> Path | None:
    """Of the videos of a name the one in the folder of its class, where several folders have one."""
    if len(paths) < 2:
        return paths[0] if paths else None
    own = [path for path in paths if path.parent.name == name.split("/")[0]]
    if len(own) != 1:
        raise ValueError(f"{name} must be one video, got {', '.join(map(str, paths))}")
    return own[0]


def _lists(places: Iterable[Path]) -> dict[int, tuple[set[str], set[str]]]:
    """The splits of trainlist01.txt and testlist01.txt, by names without ending."""
    for base in places:
        for place in (base, *(p for p in visible(base) if p.is_dir())):
            rows = _read_ucf(place, visible(place))[1]
            if rows:
                found: dict[int, tuple[set[str], set[str]]] = {}
                for row in rows:
                    clip = row.file.rpartition("/")[2]
                    stem = Path(clip).stem if Path(clip).suffix.lower() in VIDEOS else clip
                    parts = found.setdefault(row.split, (set(), set()))
                    parts[row.part == "test"].add(f"{row.label}/{stem}")
                return found
    return {}
