"""Clips of actions: readers of folders, Weizmann and moving shapes."""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from amstel import _check, _files
from amstel._check import fail
from amstel._optional import need
from amstel._words import are, counted
from amstel.data._clip import Clip
from amstel.data._folders import data_folder
from amstel.data.shapes import DIRECTIONS, generate_moving_shapes
from amstel.media.formats import IMAGES, VIDEOS, links_to_nothing, natural, visible, warn_of_strangers
from amstel.media.reading import Frames, read

__all__ = [
    "DIRECTIONS",
    "Clip",
    "ClipFolder",
    "MovingShapes",
    "Weizmann",
    "generate_moving_shapes",
]


def _names(root: Path, paths: list[Path]) -> list[str]:
    def relative(path: Path) -> Path:
        return path.relative_to(root) if path.is_relative_to(root) else Path(path.parent.name, path.name)

    # The dots of a folder's name begin no ending.
    whole = [relative(path) for path in paths]
    short = [p if path.is_dir() else p.with_suffix("") for p, path in zip(whole, paths, strict=True)]
    often = Counter(short)
    return [(s if often[s] == 1 else w).as_posix() for s, w in zip(short, whole, strict=True)]


class ClipFolder:
    """A folder with one subfolder of clips per class.

    A clip is a video file, a folder of frames (in natural order), or an image that is a strip of square frames
    side by side (or an animation); `amstel.video.read` reads it on access. Classes are sorted by name. Other files,
    which `check` names, and names that begin with a dot are ignored.

    Args:
        root: the folder.

    Attributes:
        fps: set it to read clips at this many frames per second, based on their timestamps; None: every frame.
        classes: names of the classes.
        labels: class of each clip.
        names: "class/clip" of each clip, all distinct.
        paths: path of each clip.

    Raises:
        FileNotFoundError: `root` does not exist.
        ValueError: there is no class folder, or one without a clip; on access, a damaged clip.
        ImportError: the extra [video] is missing (on reading).

    Example:
        >>> clips = amstel.data.ClipFolder("weizmann4")
        >>> clips[0].frames.shape, clips.classes[clips[0].label]
        (torch.Size([4, 64, 64, 3]), 'bend')
    """

    fps: float | None = None
    _said: dict[Path, str] | None = None  # what each path is called

    def __init__(self, root: str | os.PathLike):
        self.root = data_folder(root, "", type(self).__name__)
        folders = [p for p in visible(self.root) if p.is_dir()]
        if not folders:
            raise ValueError(f"{self.root} must hold one folder per class, got none")
        self.classes = [p.name for p in folders]
        self.labels: list[int] = []
        self.paths: list[Path] = []
        for label, folder in enumerate(folders):
            clips = [p for p in visible(folder) if p.is_dir() or p.suffix.lower() in IMAGES + VIDEOS]
            if not clips:
                raise ValueError(
                    f"the class folder {folder} must hold clips (video files, folders of frames or strips), got none"
                )
            self.paths += clips
            self.labels += [label] * len(clips)

    @property
    def names(self) -> list[str]:
        """The path from the root, without the file extension unless two clips differ only in that. Leaving clips out
        does not change the other names."""
        if self._said is None:
            self._said = dict(zip(self.paths, _names(self.root, self.paths), strict=True))
        return [self._said[path] for path in self.paths]

    def check(self, strict: bool = False) -> list[tuple[str, str]]:
        """Leave out clips that cannot be read, which would otherwise end an epoch, and duplicates.

        A clip is tested by its first frame, and a folder of frames by the sizes of all its frames. A link to another
        clip could end up in both parts of a split, or in two classes, so it is left out and reported.

        Args:
            strict: raise at the first one instead.

        Returns:
            (name, reason) of each clip that was left out; a warning counts and names them.

        Warns:
            UserWarning: other files in the folders of classes and frames, which are ignored.

        Raises:
            ValueError: with `strict`, a clip would be left out; otherwise, a class has no clip left.
        """
        self._warn_of_others()
        bad, good = [], []
        first: dict[tuple[int, int], str] = {}
        for index, (name, path) in enumerate(zip(self.names, self.paths, strict=True)):
            try:
                _readable(path, self.fps)
                status = path.stat()
                other = first.setdefault((status.st_dev, status.st_ino), name)
                if other != name:
                    raise ValueError(f"{path} is the same file as {other}")
                good.append(index)
            except (ValueError, OSError) as error:
                if strict:
                    raise
                bad.append((name, str(error)))
        if bad:
            gone = {self.labels[k] for k in range(len(self))} - {self.labels[k] for k in good}
            if gone:
                classes = ", ".join(self.classes[label] for label in sorted(gone))
                raise ValueError(f"{self.root}: no clip of {classes} can be read; the first: {bad[0][1]}")
            self._keep(good)
            shown = "; ".join(reason for _, reason in bad[:5]) + ("; ..." if len(bad) > 5 else "")
            warnings.warn(
                f"{len(bad)} of {counted(len(bad) + len(good), 'clip')} cannot be read and {are(len(bad))} left out: {shown}",
                stacklevel=2,
            )
        return bad

    def _warn_of_others(self) -> None:
        """Say what is passed over: files of other kinds beside clips and frames, clips in no class, links to nothing."""
        folders = [*dict.fromkeys(path.parent for path in self.paths if path.parent != self.root)]
        alone = visible(self.root, IMAGES + VIDEOS) if self.root not in {p.parent for p in self.paths} else []
        reason = "neither a clip of a class nor a frame of one"
        frames = [file for path in self.paths if path.is_dir() for file in _others_in(path)]
        more = [*links_to_nothing(self.root), *alone, *frames]
        warn_of_strangers(self.root, folders, IMAGES + VIDEOS, reason, more)

    def _keep(self, indices: list[int]) -> None:
        self.labels = [self.labels[k] for k in indices]
        self.paths = [self.paths[k] for k in indices]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Clip:
        if not -len(self) <= index < len(self):
            raise IndexError(f"`index` must be below {len(self)}, got {index}")
        frames = read(self.paths[index], strip=_as_strip(self.paths[index]), fps=self.fps)
        return Clip(frames, self.labels[index], self.names[index])

    def _identity(self) -> list[Any]:
        sizes = map(_files.size_of, self.paths)
        return list(zip(self.names, self.labels, sizes, [self.fps] * len(self), strict=True))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({counted(len(self), 'clip')}, classes={self.classes})"


def _others_in(folder: Path) -> list[Path]:
    """The files of a folder of frames that are none."""
    try:
        return [p for p in visible(folder) if not p.is_dir() and p.suffix.lower() not in IMAGES]
    except OSError:  # as `_readable` says
        return []


def _as_strip(path: Path) -> bool | None:
    """Whether an image is taken for a strip, for `read`; an animation, for which there is GIF, may have one frame."""
    return None if path.suffix.lower() == ".gif" else True


def _readable(path: Path, fps: float | None) -> None:
    """ValueError where a clip, by its first frame and the sizes of the files of a folder, cannot be read."""
    frames = Frames(path, strip=_as_strip(path))
    next(iter(frames))
    if fps is not None and frames.time is None:
        raise ValueError(f"{path} does not say when its frames are shown, which is needed for fps")
    if not path.is_dir():
        return
    image, first = need("PIL.Image", extra="video", purpose="amstel.data"), None
    for file in visible(path, IMAGES):
        try:
            with image.open(file) as picture:
                size = picture.size
        except OSError as error:
            raise ValueError(f"{file} must be an image that can be read, got: {error}") from None
        first = first or size
        if size != first:
            raise ValueError(
                f"{file} must be {first[0]}x{first[1]} as the first frame of its folder, got {size[0]}x{size[1]}"
            )


def _whole(value: Any) -> int:
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(f"the subject {value}")
    return int(value)


class Weizmann(ClipFolder):
    """Weizmann actions: clips of a few people who each perform every action.

    Reads `manifest.json`, a list of {"file", "label", "subject"} with files relative to the folder or to its parent.
    Without a manifest, it reads the folder as `ClipFolder` does, and the subject is the part of a file's name before the
    first "_" (daria_bend.avi), or all of it (s0.png).

    Args:
        root: the folder; default: `video/weizmann4` in the folder that AMSTEL_DATA names.

    Attributes:
        subjects: the person in each clip, parallel to `labels`.

    Raises:
        FileNotFoundError: the folder, or a file of the manifest, does not exist.
        ValueError: the manifest is not as above, or as `ClipFolder`.

    Source: M. Blank, L. Gorelick, E. Shechtman, M. Irani, R. Basri, Actions as Space-Time Shapes, ICCV 2005.

    Example:
        >>> clips = amstel.data.Weizmann("weizmann4")
        >>> train, test = clips.leave_out(0)
        >>> [clips.names[k] for k in test]
        ['bend/daria_bend', 'wave/daria_wave']
    """

    subjects: list[int]

    def __init__(self, root: str | os.PathLike | None = None):
        root = data_folder(root, "video/weizmann4", "Weizmann")
        manifest = root / "manifest.json"
        if _files.there(manifest):
            self.root = root
            self._read_manifest(manifest)
        else:
            super().__init__(root)
            people = [(p.name if p.is_dir() else p.stem).split("_")[0] for p in self.paths]
            numbers = {name: k for k, name in enumerate(sorted(set(people), key=lambda n: natural(Path(n))))}
            self.subjects = [numbers[name] for name in people]

    def _read_manifest(self, manifest: Path) -> None:
        try:
            entries = [
                (str(entry["label"]), str(entry["file"]), _whole(entry["subject"]))
                for entry in json.loads(manifest.read_bytes())
            ]
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ValueError(
                f'{manifest} must be a list of {{"file", "label", "subject"}}, got {type(error).__name__}: {error}'
            ) from None
        if not entries:
            raise ValueError(f"{manifest} must list at least one clip, got none")
        self.classes = sorted({label for label, _, _ in entries})
        entries.sort(key=lambda entry: (entry[0], entry[2]))
        self.labels = [self.classes.index(label) for label, _, _ in entries]
        self.subjects = [subject for _, _, subject in entries]
        self.paths = []
        for _, file, _ in entries:
            if Path(file).name in ("", ".."):
                raise ValueError(f'{manifest} must have the name of a clip as "file", got {file!r}')
            path = next((p for p in (self.root / file, self.root.parent / file) if os.path.exists(p)), None)
            if path is None:
                raise FileNotFoundError(
                    f"{manifest} lists {file}, which is neither in its folder nor beside it"
                )
            self.paths.append(path)

    def _keep(self, indices: list[int]) -> None:
        super()._keep(indices)
        self.subjects = [self.subjects[k] for k in indices]

    def leave_out(self, subject: int) -> tuple[list[int], list[int]]:
        """Indices of the clips of all other subjects, and of those of `subject`: one fold of leave-one-subject-out."""
        if subject not in self.subjects:
            fail("subject", f"one of {sorted(set(self.subjects))}", subject)
        test = [i for i, s in enumerate(self.subjects) if s == subject]
        return [i for i in range(len(self)) if self.subjects[i] != subject], test


class MovingShapes(ClipFolder):
    """Strips of 32 frames with one shape on black, one folder per class. The class is the direction of motion.

    The position in the first and last frames of these clips reveals the class, so only the frames in `window` are
    read. None of these reveals it by itself.

    Args:
        root: the folder; default: `video/moving_shapes` in the folder that AMSTEL_DATA names.
        window: the first frame and the one after the last, or None for all frames.

    Raises:
        ValueError: as `ClipFolder`; on reading, a clip that is shorter than the window.

    Source: the shape motion set of S. Tulyakov, M.-Y. Liu, X. Yang, J. Kautz, MoCoGAN, CVPR 2018.

    Example:
        >>> amstel.data.MovingShapes("moving_shapes")[0].frames.shape
        torch.Size([8, 64, 64, 3])
    """

    def __init__(self, root: str | os.PathLike | None = None, window: tuple[int, int] | None = (12, 20)):
        if window is not None:
            expected = "(first, end) with 0 <= first < end, or None"
            low, high = _check.ends("window", window, expected, least=0)
            window = (
                _check.integer("window", low, 0, expected),
                _check.integer("window", high, 1, expected),
            )
            if window[0] == window[1]:
                fail("window", expected, window)
        super().__init__(data_folder(root, "video/moving_shapes", "MovingShapes"))
        self.window = window

    def _identity(self) -> list[Any]:
        return [(*item, self.window) for item in super()._identity()]

    def __getitem__(self, index: int) -> Clip:
        clip = super().__getitem__(index)
        if self.window is not None:
            first, end = self.window
            if len(clip) < end:
                raise ValueError(
                    f"{self.paths[index]} must have at least {counted(end, 'frame')}, got {len(clip)}"
                )
            clip.frames = clip.frames[first:end]
        return clip
