"""Predictions for videos: their class, and where the network looked."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amstel import _check, _files
from amstel.apps.ranks import Outcome, Ranks, each
from amstel.apps.video.evaluate import _segments
from amstel.apps.video.network import Network
from amstel.apps.video.samples import _prepare
from amstel.media.formats import IMAGES, NOT_DEEPER, VIDEOS, natural, visible, warn_of_folders, warn_of_others
from amstel.media.strips import is_strip, not_tall, strips


@dataclass
class Prediction:
    """One video: probabilities [K]; attention [T, h, w] of every frame, or None; boxes [T, 4] (x1, y1, x2, y2) in its
    pixels, one per frame, or None; tubes [A, T, 4] of the actors, NaN where one is not there, and their scores [A], which
    are empty without attention."""

    probabilities: Tensor
    attention: Tensor | None
    boxes: Tensor | None
    tubes: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 4))
    scores: Tensor = field(default_factory=lambda: torch.zeros(0))


def predict(
    network: Network,
    frames: Tensor,
    segments: int = 25,
    *,
    times: Sequence[float] | None = None,
    actors: int = 4,
) -> Prediction:
    """Classes, attention and boxes of one video, uint8 frames [n, H, W, 3].

    At least `segments` segments, and as many as it takes to see every frame twice; each is classified from the start,
    and a frame's attention is the mean over those that see it. A network that was trained at a number of frames per second
    needs `times`, when each frame is shown, in seconds from the first. `actors` is the maximum number of tubes.
    """
    _check.tensor("frames", frames, "uint8 [n, H, W, 3]")
    if frames.dim() != 4 or frames.shape[3] != 3 or frames.dtype != torch.uint8 or len(frames) < 1:
        _check.fail("frames", "uint8 [n, H, W, 3] with at least one frame", frames)
    return _predict(network, frames, (int(frames.shape[1]), int(frames.shape[2])), segments, times, actors)


def _predict(
    network: Network,
    frames: Tensor,
    size: tuple[int, int],
    segments: int,
    times: Sequence[float] | None,
    actors: int,
) -> Prediction:
    """`predict` of frames that may be small already; `size` is their height and width as they were."""
    from amstel.media import localize

    network.eval()
    settings = network.settings
    seen, shows = frames, torch.arange(len(frames))
    if settings.fps:
        if times is None or len(times) != len(frames):
            _check.fail(
                "times",
                f"{len(frames)} of them, because the network looks at {settings.fps:g} frames per second",
                times,
            )
        at = torch.tensor(times, dtype=torch.float64)
        shows = (at * settings.fps + 1e-6).floor().long()
        # In 32 bits the numbers are off by more than the room that is left for rounded times.
        wanted = torch.arange(int(shows[-1]) + 1, dtype=torch.float64) / settings.fps
        seen = frames[torch.searchsorted(at, wanted + 1e-6 / settings.fps, right=True) - 1]
    video = _prepare(seen, settings)
    probabilities, attention, _ = _segments(
        network, video, max(segments, math.ceil(2 * len(video.frames) / settings.steps) + 1)
    )
    if attention is None:
        return Prediction(probabilities, None, None)
    attention = attention[shows // settings.stride]
    found = list(localize.candidates(attention, size))
    tubes, scores = localize.link(found, size, most=actors)
    return Prediction(probabilities, attention, localize.follow(found, size), tubes, scores)


# -------------------------------------------------------------------------------------------------- files


def find(paths: Sequence[Path]) -> list[Path]:
    """The videos, including those, the strips and the folders of frames inside folders; a folder of frames is itself a video.

    ValueError for a folder with none of them, and for a picture that may be a strip, but is too high to be taken for one; a
    warning for what else is there.
    """
    return [video for path in paths for video in (_inside(path) if path.is_dir() else [not_tall(path)])]


def _inside(folder: Path) -> list[Path]:
    pictures = visible(folder, IMAGES)
    videos = visible(folder, VIDEOS) + strips(folder)
    if pictures and not videos:
        return [_clip(folder)]
    of_frames = [path for path in visible(folder) if path.is_dir() and _of_frames(path)]
    if not videos and not of_frames:
        raise ValueError(f"{folder} must hold videos, frames or folders of frames, got none of them")
    warn_of_others(folder, videos, "neither a video nor a strip of frames")
    warn_of_folders(folder, of_frames, "without frames, or with videos")
    return sorted([*videos, *map(_clip, of_frames)], key=natural)


def _of_frames(folder: Path) -> bool:
    """Whether a folder inside the one that was named is a video; whatever shape its pictures have, they are frames."""
    pictures = visible(folder, IMAGES)
    return bool(pictures) and not visible(folder, VIDEOS) and not is_strip(pictures[0])


def _clip(folder: Path) -> Path:
    warn_of_others(folder, visible(folder, IMAGES), "not a frame")
    warn_of_folders(folder, [], NOT_DEEPER)
    return folder


def targets(sources: Sequence[Path], output: Path | None, model: str) -> list[Path]:
    """The picture to write for each: `output` itself for one video, else a file in that folder, named after the video; if
    two have the same name, the extension and then the folder are added. ValueError if the names are still the same."""
    if len(sources) == 1 and output is not None and not output.is_dir():
        return [output]
    if output is not None:
        if output.exists() and not output.is_dir():
            raise ValueError(f"`output` must be a folder for {len(sources)} videos, got the file {output}")
    paths = [Path(os.path.abspath(source)) for source in sources]  # a link keeps its own name
    # The dots of a folder's name begin no ending.
    names = [path.name if path.is_dir() else path.stem for path in paths]
    for longer in (
        lambda p: p.name.replace(".", "_"),
        lambda p: f"{p.parent.name}_{p.name.replace('.', '_')}",
    ):
        often = Counter(names)
        names = [longer(p) if often[n] > 1 else n for p, n in zip(paths, names, strict=True)]
    found = [(output or Path()) / f"{name}_{model}.gif" for name in names]
    if len(set(found)) < len(found):
        twice = next(t for t in found if found.count(t) > 1)
        raise ValueError(f"two of the videos would be written to {twice}; give them one at a time")
    return found


def files(
    network: Network,
    sources: Sequence[Path],
    targets: Sequence[Path],
    ranks: Ranks | None = None,
    progress: Callable[[int], None] | None = None,
    actors: int = 4,
) -> list[Outcome[int, dict[str, Any]]]:
    """Run `predict` on video files and draw each; outcome i belongs to video i, and its value says what was found.

    The picture shows the one box of every frame or, where there are several actors, their tubes.
    """
    from amstel.media.draw import annotate
    from amstel.media.reading import again, read_small
    from amstel.media.writing import VideoWriter

    def work(number: int) -> dict[str, Any]:
        source, target = sources[number], targets[number]
        _files.distinct(target, source, argument="output")
        # Twice: frames of their own size are only there one by one, so that a video may be as long as it likes.
        frames, times, size = read_small(source, network.settings.frame_size)
        if network.settings.fps and times is None:
            if len(frames) > 1:
                raise ValueError(f"{source} does not say when its frames are shown, which this network needs")
            times = [0.0]
        found = _predict(network, frames, size, 25, times, actors)
        order = found.probabilities.argsort(descending=True).tolist()
        share = {network.classes[k]: found.probabilities[k].item() for k in order}
        caption = f"{network.classes[order[0]]}  {100 * found.probabilities[order[0]]:.0f}%"
        shown = found.tubes if len(found.tubes) > 1 else found.boxes
        # The frame rate of the input, or 12 per second for pictures without times.
        rate = 12.0 if times is None or not times[-1] else (len(times) - 1) / times[-1]
        with VideoWriter(target, rate, inputs=[source]) as writer:
            for k, frame in enumerate(again(source)):
                picture = annotate(
                    torch.from_numpy(frame)[None],
                    None if found.attention is None else found.attention[k : k + 1],
                    None if shown is None else shown[..., k : k + 1, :],
                    caption=caption,
                )[0].numpy()
                writer.write(picture, None if times is None else times[k])
        tubes = [
            {"score": score, "boxes": [None if box.isnan().any() else box.tolist() for box in tube]}
            for score, tube in zip(found.scores.tolist(), found.tubes, strict=True)
        ]
        return {
            "input": str(source),
            "output": str(target),
            "probabilities": share,
            "times": times,
            "boxes": None if found.boxes is None else found.boxes.tolist(),
            "tubes": tubes,
        }

    return each(range(len(sources)), work, ranks or Ranks(), progress)


def table(done: Sequence[dict[str, Any]]) -> list[list[Any]]:
    """The boxes of all actors of what `files` found as rows of a table, the names of its columns first."""
    rows: list[list[Any]] = [
        ["video", "frame", "time", "actor", "x1", "y1", "x2", "y2", "score", "class", "probability"]
    ]
    for one in done:
        name, probability = next(iter(one["probabilities"].items()))
        count = max((len(tube["boxes"]) for tube in one["tubes"]), default=0)
        for t in range(count):
            time = "" if one["times"] is None else round(one["times"][t], 6)
            for actor, tube in enumerate(one["tubes"]):
                if (box := tube["boxes"][t]) is not None:
                    box = [round(side, 2) for side in box]
                    score, share = round(tube["score"], 4), round(probability, 4)
                    rows.append([one["input"], t, time, actor, *box, score, name, share])
    return rows
