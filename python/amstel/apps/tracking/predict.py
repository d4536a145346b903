"""From videos and a first box to the boxes of all frames, drawn into a video or written as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amstel import _files, tracking, video
from amstel.apps.tracking.train import load
from amstel.data import OTBSequence
from amstel.nn import SINT
from amstel.tracking import SINTTracker
from amstel.tracking.frames import Frames, VideoWriter

#: What the frames of a folder are shown at, in frames a second.
RATE = 25.0
WRITTEN = (".mp4", ".gif", ".txt")


def tracker(
    weights: Path | None = None,
    device: str | torch.device = "cpu",
    plus: bool = False,
    redetect: bool = False,
) -> SINTTracker:
    """The tracker with the weights that ship, or those of a checkpoint."""
    model = SINT.pretrained() if weights is None else load(weights)
    return SINTTracker(model.to(device), plus=plus, redetect=redetect)


@dataclass
class Source:
    """What to track in: frames, the first box and the true boxes where there are any, and the file to write."""

    path: Path
    frames: Any
    box: list[float]
    truth: Tensor | None
    target: Path


def sources(paths: Sequence[Path], box: list[float] | None, output: Path | None) -> list[Source]:
    """Videos, folders of images, OTB sequences, or a folder of OTB sequences, each with its box and file.

    Raises:
        ValueError: no box is known; a box for several videos; two that would be written to one file.
    """
    found: list[Path] = []
    for path in paths:
        below = sorted(p for p in path.iterdir() if (p / "img").is_dir()) if path.is_dir() else []
        found += below if below and not (path / "img").is_dir() else [path]
    if len(found) > 1 and box is not None:
        raise ValueError(f"--box is for one video, got {len(found)}")
    alone = len(found) == 1 and (output is None or not output.is_dir())
    if not alone and output is not None:
        output.mkdir(parents=True, exist_ok=True)
    made = []
    for path in found:
        name = f"{path.resolve().stem}_sint.mp4"
        target = (output or Path(name)) if alone else (output or Path()) / name
        made.append(_source(path, box, target))
    targets = [source.target for source in made]
    if len(set(targets)) < len(targets):
        twice = next(t for t in targets if targets.count(t) > 1)
        raise ValueError(f"two of the videos would be written to {twice}; give them one at a time")
    return made


def _source(path: Path, box: list[float] | None, target: Path) -> Source:
    if (path / "img").is_dir():
        try:
            sequence = OTBSequence(path)
        except (ValueError, OSError):
            if box is None:
                raise
            return Source(path, path / "img", box, None, target)
        return Source(path, sequence, box or sequence.ground_truth[0].tolist(), sequence.ground_truth, target)
    if box is None:
        raise ValueError(f"--box x,y,w,h is needed: {path} is no OTB sequence, which would have a first box")
    return Source(path, path, box, None, target)


def track(source: Source, tracker: SINTTracker, progress: Any = None) -> dict[str, Any]:
    """Follow the target through one video, and write it; what was found.

    `progress` is called with 1 after every frame.
    """
    _files.distinct(source.target, source.path, argument="output")
    frames, kind = Frames(source.frames), source.target.suffix.lower()
    boxes: list[np.ndarray] = []
    lost = 0

    def pictures() -> Iterable[np.ndarray]:
        """Tracks as it goes, and draws what it found."""
        nonlocal lost
        for number, frame in enumerate(frames):
            if number == 0:
                tracker.init(frame, source.box)
                boxes.append(np.asarray(source.box, dtype=np.float64))
            else:
                boxes.append(tracker.update(frame))
            if progress is not None:
                progress(1)
            lost += tracker.lost
            if kind == ".txt":
                continue
            corners = [boxes[-1], None if source.truth is None else source.truth[number]]
            found, true = (
                None if b is None else torch.as_tensor(b).view(1, 2, 2).cumsum(1).view(1, 4) for b in corners
            )
            caption = f"frame {number + 1}   similarity {tracker.similarity:.2f}" + "   lost" * tracker.lost
            yield video.annotate(torch.from_numpy(frame.copy())[None], None, found, true, caption)[0].numpy()

    with _files.replacing(source.target) as temporary:
        if kind == ".txt":
            for _ in pictures():
                pass
            tracking.write_boxes(temporary, np.stack(boxes))
        else:
            with VideoWriter(temporary, frames.rate or RATE) as writer:
                for picture in pictures():
                    writer.write(picture, frames.time)
    record: dict[str, Any] = {
        "input": str(source.path),
        "output": str(source.target),
        "frames": len(boxes),
        "lost": lost,
        "boxes": np.stack(boxes).tolist(),
    }
    if source.truth is not None:
        scores = tracking.evaluate(np.stack(boxes), source.truth)
        record |= {"auc": scores.auc, "precision": scores.precision, "mean_iou": scores.mean_iou}
    return record
