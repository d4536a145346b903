"""Clips of actions: readers of folders, Weizmann, moving shapes and UCF101, and a generator of moving shapes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from amstel._check import describe, fail
from amstel.video import IMAGES, VIDEOS, natural, read


@dataclass(repr=False, eq=False)
class Clip:
    """One labelled video.

    Attributes:
        frames: uint8 [T, H, W, 3], RGB.
        label: number of its class.
        name: what to call it.
        boxes: float32 [T, 4], x1, y1, x2, y2 in pixels, NaN in frames without a box; None where none is known.
    """

    frames: Tensor
    label: int
    name: str
    boxes: Tensor | None = None

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:
        boxes = "" if self.boxes is None else ", boxes"
        return f"Clip({self.name}, label={self.label}, frames={list(self.frames.shape)}{boxes})"


def _folder(root: str | os.PathLike | None, name: str, owner: str) -> Path:
    """`root`, or the folder `name` in the environment's AMSTEL_DATA."""
    if root is None:
        if "AMSTEL_DATA" not in os.environ:
            raise ValueError(f"{owner}: give `root`, the folder of the clips, or set AMSTEL_DATA")
        root = Path(os.environ["AMSTEL_DATA"]) / name
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{owner}: the folder {root} does not exist")
    return root


def _visible(folder: Path) -> list[Path]:
    return sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=natural)


class ClipFolder:
    """A folder with one subfolder a class, and the clips of the class in it.

    A clip is a video file, a folder of frames (in natural order), or an image that is a strip of square frames
    side by side; `amstel.video.read` reads it when it is asked for. Classes are in the order of their names.
    Other files are passed over, and so is whatever begins with a dot.

    Args:
        root: the folder.

    Attributes:
        classes: names of the classes.
        labels: class of each clip.
        names: "class/clip" of each clip.
        paths: where each clip is.

    Raises:
        FileNotFoundError: `root` does not exist.
        ValueError: there is no class folder, or one without a clip; on reading, a clip that is broken.
        ImportError: the extra [video] is missing (on reading).

    Example:
        >>> clips = amstel.data.ClipFolder("weizmann4")                        # doctest: +SKIP
        >>> clips[0].frames.shape, clips.classes[clips[0].label]               # doctest: +SKIP
        (torch.Size([68, 64, 64, 3]), 'bend')
    """

    def __init__(self, root: str | os.PathLike):
        self.root = _folder(root, "", type(self).__name__)
        folders = [p for p in _visible(self.root) if p.is_dir()]
        if not folders:
            raise ValueError(f"{self.root} must hold one folder a class, got none")
        self.classes = [p.name for p in folders]
        self.labels: list[int] = []
        self.paths: list[Path] = []
        for label, folder in enumerate(folders):
            clips = [p for p in _visible(folder) if p.is_dir() or p.suffix.lower() in IMAGES + VIDEOS]
            if not clips:
                raise ValueError(
                    f"the class folder {folder} must hold clips (video files, folders of frames or strips), got none"
                )
            self.paths += clips
            self.labels += [label] * len(clips)

    @property
    def names(self) -> list[str]:
        return [f"{path.parent.name}/{path.stem}" for path in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Clip:
        if not -len(self) <= index < len(self):
            raise IndexError(f"`index` must be below {len(self)}, got {index}")
        return Clip(read(self.paths[index]), self.labels[index], self.names[index])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} clips, classes={self.classes})"


class Weizmann(ClipFolder):
    """Weizmann actions: clips of a few people who each do every action.

    Reads `manifest.json`, a list of {"file", "label", "subject"} with files relative to the folder or to the one
    above, or, without it, the folder as `ClipFolder` does, where the subject is what a file's name has before the
    first "_" (daria_bend.avi) or all of it (s0.png).

    Args:
        root: the folder; default: `video/weizmann4` in the environment's AMSTEL_DATA.

    Attributes:
        subjects: number of the person in each clip, beside `labels`.

    Raises:
        FileNotFoundError: the folder, or a file of the manifest, does not exist.
        ValueError: the manifest is not as above, or as `ClipFolder`.

    Source: M. Blank, L. Gorelick, E. Shechtman, M. Irani, R. Basri, Actions as Space-Time Shapes, ICCV 2005.

    Example:
        >>> clips = amstel.data.Weizmann("weizmann4")                          # doctest: +SKIP
        >>> train, test = clips.leave_out(0)                                   # doctest: +SKIP
    """

    subjects: list[int]

    def __init__(self, root: str | os.PathLike | None = None):
        root = _folder(root, "video/weizmann4", "Weizmann")
        manifest = root / "manifest.json"
        if manifest.is_file():
            self.root = root
            self._read_manifest(manifest)
        else:
            super().__init__(root)
            people = [path.stem.split("_")[0] for path in self.paths]
            numbers = {name: k for k, name in enumerate(sorted(set(people), key=lambda n: natural(Path(n))))}
            self.subjects = [numbers[name] for name in people]

    def _read_manifest(self, manifest: Path) -> None:
        try:
            entries = [
                (str(entry["label"]), str(entry["file"]), int(entry["subject"]))
                for entry in json.loads(manifest.read_text())
            ]
        except (KeyError, TypeError, ValueError) as error:
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
            path = next((p for p in (self.root / file, self.root.parent / file) if p.exists()), None)
            if path is None:
                raise FileNotFoundError(
                    f"{manifest} lists {file}, which is neither in its folder nor beside it"
                )
            self.paths.append(path)

    def leave_out(self, subject: int) -> tuple[list[int], list[int]]:
        """Numbers of the clips of all others, and of those of `subject`: one fold of leave one subject out."""
        if subject not in self.subjects:
            fail("subject", f"one of {sorted(set(self.subjects))}", subject)
        test = [i for i, s in enumerate(self.subjects) if s == subject]
        return [i for i in range(len(self)) if self.subjects[i] != subject], test


class MovingShapes(ClipFolder):
    """Strips of 32 frames with one shape on black, in a folder a class: the class is the direction of motion.

    In these clips the position in the first and in the last frames gives the class away, so only the frames of
    `window` are read; a single one of those says nothing.

    Args:
        root: the folder; default: `video/moving_shapes` in the environment's AMSTEL_DATA.
        window: first frame and the one after the last, or None for all frames.

    Raises:
        ValueError: as `ClipFolder`; on reading, a clip that is shorter than the window.

    Source: the shape motion set of S. Tulyakov, M.-Y. Liu, X. Yang, J. Kautz, MoCoGAN, CVPR 2018.

    Example:
        >>> amstel.data.MovingShapes("moving_shapes")[0].frames.shape          # doctest: +SKIP
        torch.Size([8, 64, 64, 3])
    """

    def __init__(self, root: str | os.PathLike | None = None, window: tuple[int, int] | None = (12, 20)):
        if window is not None and not 0 <= window[0] < window[1]:
            fail("window", "(first, end) with 0 <= first < end, or None", window)
        super().__init__(_folder(root, "video/moving_shapes", "MovingShapes"))
        self.window = window

    def __getitem__(self, index: int) -> Clip:
        clip = super().__getitem__(index)
        if self.window is not None:
            first, end = self.window
            if len(clip) < end:
                raise ValueError(f"{self.paths[index]} must have at least {end} frames, got {len(clip)}")
            clip.frames = clip.frames[first:end]
        return clip


class UCF101(ClipFolder):
    """Clips of UCF101 with the boxes of its 24-class subset, frame by frame.

    The folder holds a JSON file {"Class/v_name": {"numf", "label", "annotations": [{"sf", "ef", "boxes_xywh"}]}},
    boxes for the frames sf to ef - 1 counted from 0, and, in it or in folders of it, the videos v_name.avi. Those
    of the JSON file whose video is not there are left out. A clip has the boxes of its first annotation (one
    actor), NaN in frames outside it.

    Args:
        root: the folder; default: `video/ucf101_clip` in the environment's AMSTEL_DATA.

    Raises:
        FileNotFoundError: the folder does not exist, or it holds no JSON file or none of its videos.
        ValueError: the JSON file is not as above, or boxes lie outside their video's frames.

    Source: K. Soomro, A. Zamir, M. Shah, UCF101, 2012; boxes as corrected by S. Saha and G. Singh, 2016.

    Example:
        >>> clip = amstel.data.UCF101("ucf101_clip")[0]                        # doctest: +SKIP
        >>> clip                                                               # doctest: +SKIP
        Clip(BasketballDunk/v_BasketballDunk_g17_c03, label=0, frames=[74, 240, 320, 3], boxes)
    """

    def __init__(self, root: str | os.PathLike | None = None):
        self.root = _folder(root, "video/ucf101_clip", "UCF101")
        files = sorted(self.root.glob("*.json"))
        if not files:
            raise FileNotFoundError(f"{self.root} must hold a JSON file with the boxes, got none")
        self._file = files[0]
        try:
            self._tubes = {
                name: [
                    (
                        int(tube["sf"]),
                        int(tube["ef"]),
                        np.array(tube["boxes_xywh"], np.float32).reshape(-1, 4),
                    )
                    for tube in entry["annotations"]
                ]
                for name, entry in json.loads(self._file.read_text()).items()
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{self._file} must hold the boxes of UCF101's clips, got {type(error).__name__}: {error}"
            ) from None
        videos = {path.stem: path for path in sorted(self.root.rglob("*.avi"))}
        self._names = sorted(name for name in self._tubes if name.split("/")[-1] in videos)
        if not self._names:
            raise FileNotFoundError(
                f"{self.root} must hold videos named in {self._file.name}, got none of them"
            )
        self.classes = sorted({name.split("/")[0] for name in self._names})
        self.labels = [self.classes.index(name.split("/")[0]) for name in self._names]
        self.paths = [videos[name.split("/")[-1]] for name in self._names]

    @property
    def names(self) -> list[str]:
        return list(self._names)

    def __getitem__(self, index: int) -> Clip:
        clip = super().__getitem__(index)
        if tubes := self._tubes[clip.name]:
            first, end, xywh = tubes[0]
            if not 0 <= first <= end <= len(clip) or len(xywh) != end - first:
                raise ValueError(
                    f"{self._file}: the {len(xywh)} boxes of {clip.name} must be for frames within 0..{len(clip)}, "
                    f"got {first}..{end}"
                )
            clip.boxes = torch.full((len(clip), 4), float("nan"))
            clip.boxes[first:end] = torch.from_numpy(
                np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)
            )
        return clip


# --------------------------------------------------------------------------------------- generated clips

# Counter-clockwise, as angles are.
DIRECTIONS = {
    2: ("right", "left"),
    4: ("right", "up", "left", "down"),
    8: ("right", "up right", "up", "up left", "left", "down left", "down", "down right"),
}
SHAPES = ("disc", "square", "triangle", "cross")


def _coverage(shape: str, radius: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How much of each pixel the shape covers, 0..1; x and y are the pixels' places seen from its centre."""
    if shape == "disc":
        outside = np.hypot(x, y) - radius
    elif shape == "square":
        outside = np.maximum(abs(x), abs(y)) - radius
    elif shape == "triangle":
        outside = np.maximum((2 * abs(x) - y - radius) / math.sqrt(5), y - radius)
    else:
        long, wide = np.maximum(abs(x), abs(y)), np.minimum(abs(x), abs(y))
        outside = np.maximum(long - radius, wide - radius / 3)
    return np.clip(0.5 - outside, 0, 1)


def _colour(rng: np.random.Generator) -> np.ndarray:
    """A strong, light colour [3, 1, 1]."""
    hue = rng.uniform(0, 6)
    rgb = np.clip(abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0.05, 1) * rng.uniform(0.8, 1)
    return rgb.astype(np.float32)[:, None, None]


def generate_moving_shapes(
    count: int,
    frames: int = 16,
    size: int = 64,
    seed: int = 0,
    classes: int = 4,
    distractors: int = 0,
    speed: float | tuple[float, float] = (1.0, 2.0),
    noise: float = 0.03,
    wrap: bool = True,
) -> list[Clip]:
    """Made-up clips: a coloured shape moves over a textured background; the class is the direction of its motion.

    The shape is a disc, square, triangle or cross of random colour and size. Its position in the first frame is
    uniform over the places where all of it is in the picture, and where it would leave the picture it comes in
    again at the other side, whole. So its position is uniform in every frame, whatever the class, and its look
    does not depend on the class either: **no single frame says anything about the class**. (Without coming in
    again that cannot be: a steady motion to the right makes the mean position of the last frame differ from
    that of the first, and a motion to the left makes it differ the other way.) With `wrap=False` the shape goes
    straight along a path placed at random: its track is one piece, but the first and last frames hint at the
    class, the more the longer the path.

    Clip i depends on `seed` and i only, and its class is i modulo `classes`.

    Args:
        count: number of clips.
        frames: T.
        size: height and width in pixels, at least 16.
        seed: the same seed gives the same clips.
        classes: 2 (right, left), 4 (right, up, left, down) or 8 (with the diagonals); see `DIRECTIONS`.
        distractors: number of grey shapes, which do not matter; each rests or moves in a direction of its own.
        speed: pixels a frame, or the range from which each clip's is drawn.
        noise: standard deviation of the pixels' noise, new in each frame; the picture's range is 0..1.
        wrap: come in again at the other side.

    Returns:
        list of `Clip`, with true boxes [T, 4].

    Raises:
        ValueError: an argument out of its range; a speed at which the direction is no longer defined (half the
            way that the shape has) or, with `wrap=False`, at which the path does not fit.

    Example:
        >>> clips = amstel.data.generate_moving_shapes(8, frames=12, classes=2)
        >>> clips[1]
        Clip(left_00001, label=1, frames=[12, 64, 64, 3], boxes)
    """
    for argument, value, least in (
        ("count", count, 0),
        ("frames", frames, 1),
        ("size", size, 16),
        ("seed", seed, 0),
        ("distractors", distractors, 0),
    ):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            fail(argument, f"an integer >= {least}", value)
    if classes not in DIRECTIONS:
        fail("classes", "2, 4 or 8", classes)
    if not 0 <= noise <= 1:
        fail("noise", "in [0, 1]", noise)
    try:
        low, high = speed if isinstance(speed, Sequence) else (speed, speed)
    except ValueError:
        fail("speed", "a number or (least, greatest)", speed)
    room = size - 2 * _radii(size)[1]
    limit = room / 2 if wrap else room / max(1, frames - 1)
    if not 0 < low <= high < limit:
        raise ValueError(f"`speed` must be in (0, {limit:.3g}) for these sizes, got {describe(speed)}")
    return [
        _generate(
            np.random.default_rng([seed, i]), i, frames, size, classes, distractors, (low, high), noise, wrap
        )
        for i in range(count)
    ]


def _radii(size: int) -> tuple[float, float]:
    return size / 13, size / 8


def _generate(
    rng: np.random.Generator,
    index: int,
    frames: int,
    size: int,
    classes: int,
    distractors: int,
    speed: tuple[float, float],
    noise: float,
    wrap: bool,
) -> Clip:
    label = index % classes

    def track(radius: float, step: np.ndarray) -> np.ndarray:
        """Centre [T, 2] of a shape that moves by `step` a frame."""
        free = size - 2 * radius
        way = np.arange(frames)[:, None] * step
        if wrap:
            return radius + (rng.uniform(0, free, 2) + way) % free
        # The range of starting points from which all of the path lies inside.
        return radius + rng.uniform(np.maximum(0, -way[-1]), free - np.maximum(0, way[-1])) + way

    def motion(angle: float) -> np.ndarray:
        return rng.uniform(*speed) * np.array([math.cos(angle), -math.sin(angle)])

    radius = rng.uniform(*_radii(size))
    centre = track(radius, motion(2 * math.pi * label / classes))
    actors = [(rng.choice(SHAPES), radius, _colour(rng), centre)]
    for _ in range(distractors):
        other = rng.uniform(*_radii(size))
        step = motion(rng.uniform(0, 2 * math.pi)) * rng.integers(2)
        grey = np.full((3, 1, 1), rng.uniform(0.4, 0.8), np.float32)
        # Before the shape itself, which is drawn over them.
        actors.insert(0, (rng.choice(SHAPES), other, grey, track(other, step)))

    x, y = np.meshgrid(*[np.arange(size, dtype=np.float32) + 0.5] * 2)
    still = np.full((size, size), 0.18, np.float32)
    for _ in range(3):
        wave, phase = rng.uniform(-75, 75, 2) / size, rng.uniform(0, 2 * math.pi)
        still += 0.04 * np.sin(wave[0] * x + wave[1] * y + phase)
    movie = noise * rng.standard_normal((frames, 3, size, size), np.float32)
    for t in range(frames):
        picture: np.ndarray = still[None]
        for shape, extent, colour, middle in actors:
            # As Python numbers, which leave float32 what it is.
            mx, my = middle[t].tolist()
            share = _coverage(shape, extent, x - mx, y - my)
            picture = picture + share * (colour - picture)
        movie[t] += picture
    pictures = np.rint(np.clip(movie, 0, 1) * np.float32(255)).astype(np.uint8)
    boxes = np.concatenate([centre - radius, centre + radius], axis=1).astype(np.float32)
    name = f"{DIRECTIONS[classes][label].replace(' ', '_')}_{index:05d}"
    return Clip(torch.from_numpy(pictures).movedim(1, -1).contiguous(), label, name, torch.from_numpy(boxes))
