"""The tracking part of `amstel demo`: one object, followed from its first box and through an occlusion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from amstel._words import counted
from amstel.apps.demo import Exhibit, Show
from amstel.nn import SINT
from amstel.tracking import SINTTracker, evaluate, generate_sequence


def follow(frames: np.ndarray, box: Any, device: str) -> Iterator[tuple[np.ndarray, SINTTracker]]:
    """The box in every frame after the first, and the state of the tracker there."""
    tracker = SINTTracker(SINT.pretrained().to(device), redetect=True)
    tracker.init(frames[0], box)
    for frame in frames[1:]:
        yield tracker.update(frame), tracker


def run(show: Show) -> None:
    frames, truth, hidden = generate_sequence()
    count = int(hidden.sum())
    show.say(f"  {counted(len(frames), 'frame')}; a pillar hides the object in {count}")
    boxes, captions = [truth[0]], ["frame 1"]
    with show.progress(len(frames) - 1, "frames") as update:
        for box, tracker in follow(frames.numpy(), truth[0], show.device):
            boxes.append(torch.from_numpy(box))
            similarity = f"similarity {tracker.similarity:.2f}"
            state = "lost: searching the whole frame" if tracker.lost else similarity
            captions.append(f"frame {len(boxes)}   {state}")
            update(1)
    found = torch.stack(boxes)
    iou = evaluate(found, truth).iou
    back = int(hidden.nonzero().max()) + 1
    again = (iou[back:] > 0.5).nonzero()
    said = f"found {counted(int(again[0]), 'frame')} after it reappears" if len(again) else "not found again"
    reached = show.figures["mean_iou"] = iou[~hidden].mean().item()
    show.say(f"  mean IoU {reached:.2f} while it is visible; {said}")
    shown = []
    with show.needs("sint.gif"):
        from amstel.media.draw import annotate
        from amstel.media.writing import VideoWriter

        found, truth = (b.view(-1, 2, 2).cumsum(1).view(-1, 4) for b in (found, truth))
        pictures = annotate(frames, None, found, truth, captions, scale=1)
        with VideoWriter(show.folder / "sint.gif") as writer:
            for picture in pictures.numpy():
                writer.write(picture)
        shown.append(show.wrote(writer.path))
    show.exhibits.append(
        Exhibit(
            "One object among look-alikes, hidden for a while",
            f"{reached:.2f}",
            f"mean IoU over the {counted(len(frames) - count, 'frame')} in which it is visible; {said}. "
            "Blue: found. White: true.",
            shown,
            [follow],
        )
    )
