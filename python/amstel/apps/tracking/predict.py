"""From videos and first boxes to boxes in all frames, drawn into a video or written as text."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amstel import _files, tracking, video
from amstel._words import counted
from amstel.apps.ranks import Outcome
from amstel.apps.tracking.folders import expanded, print_warning
from amstel.apps.tracking.train import load
from amstel.data import OTBSequence
from amstel.media.camera import Camera
from amstel.media.sound import add_sound, has_sound
from amstel.nn import SINT
from amstel.tracking import MultiTracker, SINTTracker
from amstel.tracking.frames import Frames, VideoWriter, of_one_size

#: The frame rate for a folder of frames.
RATE = 25.0
WRITTEN = (".mp4", ".gif", ".txt", ".csv", ".json")


def tracker(
    weights: Path | None = None,
    device: str | torch.device = "cpu",
    plus: bool = False,
    redetect: bool | None = None,
    preset: str | None = None,
) -> SINTTracker:
    """The tracker, with the bundled weights or those of a checkpoint."""
    model = SINT.pretrained() if weights is None else load(weights)
    return SINTTracker(model.to(device), plus=plus, redetect=redetect, preset=preset)


@dataclass(frozen=True)
class Range:
    """Which frames are used: from `first`, which has the given boxes, to `last` (None: the end), counted from 1, every
    `every`-th of them."""

    first: int = 1
    last: int | None = None
    every: int = 1

    def __post_init__(self) -> None:
        if self.last is not None and self.last < self.first:
            raise ValueError(f"--end-frame must be at least --init-frame, {self.first}, got {self.last}")

    def __contains__(self, number: int) -> bool:
        after = self.last is not None and number > self.last
        return number >= self.first and not after and (number - self.first) % self.every == 0

    def count(self, frames: int) -> int:
        """How many of so many frames."""
        last = frames if self.last is None else min(frames, self.last)
        return max(0, last - self.first) // self.every + 1 if last >= self.first else 0


@dataclass
class Source:
    """What to track: frames, the first boxes, the true boxes if there are any, the file to write, and which frames;
    whether the first boxes were given rather than taken from the data; whether the written video keeps the sound."""

    path: Path
    frames: Any
    boxes: list[list[float]]
    truth: Tensor | None
    target: Path
    range: Range = field(default_factory=Range)
    given: bool = True
    audio: bool = False


def sources(
    paths: Sequence[Path],
    boxes: Sequence[list[float]] | None,
    output: Path | None,
    range: Range | None = None,
    number: int | None = None,
    audio: bool = False,
    failures: list[Outcome] | None = None,
) -> list[Source]:
    """Videos, folders of images, OTB sequences, a folder of these, or a camera's number, each with its boxes and file.

    Args:
        number: which target, in a sequence with several.
        audio: keep the sound.
        failures: collects those of several that cannot be read, which are then left out; default: raise their error.

    Raises:
        ValueError: no box is known; boxes, or one file, for several videos; two videos would be written to one file;
            sound for a file that has none.
    """
    found = expanded(paths)
    boxes, range = list(boxes or []), range or Range()
    if len(found) > 1 and boxes:
        raise ValueError(f"--box is for one video, got {len(found)}")
    a_file = output is not None and output.suffix.lower() in WRITTEN and not output.is_dir()
    if a_file and len(found) > 1:
        raise ValueError(f"-o must be a folder for {len(found)} videos, got {output}")
    alone = len(found) == 1 and (output is None or a_file)
    if not alone and output is not None:
        output.mkdir(parents=True, exist_ok=True)
    made = []
    for path in found:
        # As it is called, not what a link points to; the dots of a folder's name begin no ending.
        plain = Path(os.path.abspath(path))
        name = f"{plain.name if plain.is_dir() else plain.stem}_sint.mp4"
        target = (output or Path(name)) if alone else (output or Path()) / name
        if len(boxes) > 1 and target.suffix.lower() == ".txt":
            raise ValueError(
                f"{target} can hold the boxes of only one target: use .csv or .json for those of {len(boxes)}"
            )
        if audio and target.suffix.lower() != ".mp4":
            raise ValueError(f"--audio needs an output with sound, .mp4, got {target}")
        try:
            made.append(dataclasses.replace(_source(path, boxes, target, range, number), audio=audio))
        except (ValueError, OSError) as error:
            if failures is None or len(found) == 1:
                raise
            failures.append(Outcome(str(path), error=_files.said(error)))
    if failures and not made:
        raise ValueError(failures[0].error)
    for source in made:
        _check_target(source)
    targets = [source.target for source in made]
    if len(set(targets)) < len(targets):
        twice = next(t for t in targets if targets.count(t) > 1)
        raise ValueError(f"two of the videos would be written to {twice}; give them one at a time")
    return made


def _source(
    path: Path, boxes: list[list[float]], target: Path, range: Range, number: int | None = None
) -> Source:
    if (path / "img").is_dir():
        try:
            sequence = OTBSequence(path, number)
        except (ValueError, OSError) as error:
            if not boxes or number is not None:
                raise
            if not isinstance(error, FileNotFoundError):
                print_warning(f"{path}: no scores, because its true boxes cannot be read: {error}")
            return Source(path, path / "img", boxes, None, target, range)
        truth = sequence.ground_truth
        if range.first > len(truth):
            raise ValueError(
                f"--init-frame must be at most {len(truth)}, the frames of {path}, got {range.first}"
            )
        start = truth[range.first - 1]
        if not boxes and start.isnan().any():
            raise ValueError(f"--box is needed: {path} has no true box in frame {range.first}")
        return Source(path, sequence, boxes or [start.tolist()], truth, target, range, given=bool(boxes))
    if number is not None:
        raise ValueError(f"--target is for OTB sequences, got {path}")
    if path.name.isdecimal() and not path.exists():
        if not boxes:
            raise ValueError(f"--box x,y,w,h is needed: camera {path} has no first box")
        return Source(path, Camera(int(path.name)), boxes, None, target, range)
    if not boxes:
        raise ValueError(f"--box x,y,w,h is needed: {path} is not an OTB sequence, which would have its own")
    return Source(path, path, boxes, None, target, range)


def _check_target(source: Source) -> None:
    # The true boxes lie beside the folder of frames, which may be all that was given.
    if source.target.name.startswith("groundtruth") and source.target.exists():
        raise ValueError(f"`output` must not be a file of true boxes, got {source.target}")


@dataclass
class _Track:
    """What is known about one target so far, one line per processed frame."""

    boxes: list[np.ndarray] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    lost: list[bool] = field(default_factory=list)


def _look(tracker: MultiTracker, frame: np.ndarray, tracks: list[_Track], first: list[list[float]]) -> None:
    """Process all targets in one more frame; nothing is kept from a frame that fails."""
    if tracks[0].boxes:
        boxes = tracker.update(frame)
    else:
        tracker.init(frame, first)
        boxes = np.asarray(first, dtype=np.float64)
    for one, box, score, lost in zip(tracks, boxes, tracker.similarity, tracker.lost, strict=True):
        one.boxes.append(box)
        one.scores.append(float(score))
        one.lost.append(bool(lost))


def track(source: Source, tracker: SINTTracker, progress: Any = None) -> dict[str, Any]:
    """Follow the targets through one video, and write the result; returns what was found.

    `progress` is called with 1 after every frame. A run that ends early (an unreadable frame, Ctrl-C)
    leaves its results in TARGET.partial.csv, which the error names; the file of an earlier run is kept.
    """
    camera = source.frames if isinstance(source.frames, Camera) else None
    if camera is None:
        _files.distinct(source.target, source.path, argument="output")
    _check_target(source)
    frames, kind = Frames(source.frames), source.target.suffix.lower()
    targets, tracks = MultiTracker.of(tracker), [_Track() for _ in source.boxes]
    numbers: list[int] = []
    times: list[float | None] = []
    size = [0, 0]
    audio = source.audio and has_sound(source.path)
    if source.audio and not audio:
        print_warning(f"--audio: {source.path} has no sound, so {source.target} will have none")

    def looked_at() -> Iterator[np.ndarray]:
        for number, frame in enumerate(of_one_size(frames), start=1):
            if source.range.last is not None and number > source.range.last:
                return
            if number not in source.range:
                continue
            try:
                _look(targets, frame, tracks, source.boxes)
            except ValueError as error:
                if source.given or tracks[0].boxes:
                    raise
                message = str(error).replace("`boxes[0]`", f"{source.path}: its true box in frame {number}")
                raise ValueError(message) from None
            numbers.append(number)
            times.append(camera.time if camera else frames.time)
            size[:] = frame.shape[1::-1]
            if progress is not None:
                progress(1)
            if camera and camera.window:
                camera.show(_drawn(frame, source, tracks, number))
            yield frame
        if not numbers:
            raise ValueError(
                f"{source.path} must have a frame {source.range.first} to begin in, got no such frame"
            )

    try:
        with _files.replacing(source.target) as temporary:
            if kind in (".txt", ".csv", ".json"):
                for _ in looked_at():
                    pass
                if kind == ".txt":
                    tracking.write_boxes(temporary, np.stack(tracks[0].boxes))
                elif kind == ".csv":
                    _files.write_text(temporary, _csv(numbers, times, tracks))
                else:
                    _files.write_text(
                        temporary, json.dumps(_coco(source, frames, numbers, times, tracks, size))
                    )
            else:
                rate = (camera.rate if camera else frames.rate) or RATE
                with VideoWriter(temporary, rate / source.range.every) as writer:
                    for frame in looked_at():
                        begin, now = times[0], times[-1]
                        shown = None if now is None or begin is None else now - begin
                        writer.write(_drawn(frame, source, tracks, numbers[-1]), shown)
                if audio:
                    audio = _with_sound(temporary, source, rate, numbers, times)
    except (Exception, KeyboardInterrupt) as error:
        done = min(len(one.boxes) for one in tracks)
        if done > 1:
            partial = _partial(source.target)
            _files.write_text(partial, _csv(numbers[:done], times, tracks))
            if isinstance(error, (ValueError, OSError)):
                # Not its own class: that of a text that cannot be decoded takes five arguments.
                known = OSError if isinstance(error, OSError) else ValueError
                raise known(
                    f"{error} (the boxes of {counted(done, 'frame')} before it are in {partial})"
                ) from error
            print_warning(f"the boxes of the first {counted(done, 'frame')} are in {partial}")
        raise
    return _record(source, numbers, tracks) | ({"audio": audio} if source.audio else {})


def _with_sound(
    written: Path, source: Source, rate: float, numbers: list[int], times: list[float | None]
) -> bool:
    """Add the sound of the range to the video; whether that went well, without which the video is what it was."""
    ends = ((numbers[0], times[0]), (numbers[-1], times[-1]))
    begin, end = ((number - 1) / rate if time is None else time for number, time in ends)
    # Frames left out after the last one belong to the range.
    end = math.inf if source.range.last is None else end + (source.range.last - numbers[-1] + 1) / rate
    try:
        add_sound(written, source.path, begin, end)
    except Exception as error:  # whatever it was, hours of tracking are in the video
        print_warning(f"--audio: {source.target} is written without sound: {error}")
        return False
    return True


def _partial(target: Path) -> Path:
    """TARGET.partial.csv, or with the first free number from 2."""
    names = (f"{target.name}.partial{number if number > 1 else ''}.csv" for number in itertools.count(1))
    return next(path for path in map(target.with_name, names) if not path.exists())


def _csv(numbers: list[int], times: list[float | None], tracks: list[_Track]) -> str:
    lines = ["frame,time,target,x,y,w,h,score,lost"]
    for at, number in enumerate(numbers):
        time = "" if times[at] is None else f"{times[at]:.6g}"
        for target, one in enumerate(tracks, start=1):
            box = ",".join(f"{value:.10g}" for value in one.boxes[at])
            lines.append(f"{number},{time},{target},{box},{one.scores[at]:.6g},{int(one.lost[at])}")
    return "\n".join(lines) + "\n"


def _coco(
    source: Source,
    frames: Frames,
    numbers: list[int],
    times: list[float | None],
    tracks: list[_Track],
    size: list[int],
) -> dict[str, Any]:
    """The tracks as COCO's annotations of videos: boxes x, y, w, h with the image and the instance that they are of."""
    names = getattr(frames._source, "frames", frames._source)
    files = [file.name for file in names] if isinstance(names, list) else None
    shape = {"width": size[0], "height": size[1]}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for at, number in enumerate(numbers):
        image: dict[str, Any] = {"id": number, "video_id": 1, "frame_id": number - 1, **shape}
        image |= {"file_name": files[number - 1]} if files else {}
        image |= {} if times[at] is None else {"time": times[at]}
        images.append(image)
        for target, one in enumerate(tracks, start=1):
            box = [float(value) for value in one.boxes[at]]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "video_id": 1, "instance_id": target}
                | {"category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
                | {"score": one.scores[at], "lost": one.lost[at]}
            )
    return {
        "videos": [{"id": 1, "name": source.path.name, **shape}],
        "categories": [{"id": 1, "name": "target"}],
        "images": images,
        "annotations": annotations,
    }


def _drawn(frame: np.ndarray, source: Source, tracks: list[_Track], number: int) -> np.ndarray:
    picture = torch.from_numpy(frame.copy())[None]

    def corners(box: Any) -> Tensor:
        return torch.as_tensor(box).view(1, 2, 2).cumsum(1).view(1, 4)

    alone = len(tracks) == 1
    caption = f"frame {number}"
    for target, one in enumerate(tracks, start=1):
        caption += "   " if alone else f"   {target}: "
        caption += f"{'similarity ' * alone}{one.scores[-1]:.2f}" + "   lost" * one.lost[-1]
    true = None if source.truth is None else corners(source.truth[number - 1])
    for one in tracks[:-1]:
        picture = video.annotate(picture, None, corners(one.boxes[-1]), scale=1)
    return video.annotate(picture, None, corners(tracks[-1].boxes[-1]), true, caption)[0].numpy()


def _record(source: Source, numbers: list[int], tracks: list[_Track]) -> dict[str, Any]:
    def of_one(one: _Track) -> dict[str, Any]:
        return {
            "lost": sum(one.lost),
            "boxes": np.stack(one.boxes).tolist(),
            "similarity": one.scores,
            "lost_frames": [number for number, lost in zip(numbers, one.lost, strict=True) if lost],
        }

    record: dict[str, Any] = {
        "input": str(source.path),
        "output": str(source.target),
        "frames": len(numbers),
        "first_frame": numbers[0],
        "every": source.range.every,
        **of_one(tracks[0]),
    }
    if len(tracks) > 1:
        record["lost"] = sum(sum(one.lost) for one in tracks)
        record["targets"] = [of_one(one) for one in tracks]
    if source.truth is not None and len(tracks) == 1:
        truth = source.truth[[number - 1 for number in numbers]]
        sparse = getattr(source.frames, "sparse", False)
        if sparse and truth[1:].isnan().any(1).all():
            return record  # nothing but the first box is known, and that was given
        scores = tracking.evaluate(np.stack(tracks[0].boxes), truth, skip_missing=sparse)
        record |= {"auc": scores.auc, "precision": scores.precision, "mean_iou": scores.mean_iou}
    return record
