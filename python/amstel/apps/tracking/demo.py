"""What `amstel demo` shows of tracking: one object followed from its first box, through a time in which it is hidden."""

from __future__ import annotations

import torch

from amstel.apps.demo import Show
from amstel.apps.tracking.predict import tracker as make
from amstel.tracking import evaluate, generate_sequence


def run(show: Show) -> None:
    frames, truth, hidden = generate_sequence()
    count = int(hidden.sum())
    show.say(f"  {len(frames)} frames; a pillar hides the object in {count}")
    tracker = make(None, show.device, redetect=True)
    images = frames.numpy()
    tracker.init(images[0], truth[0])
    boxes, captions = [truth[0]], ["frame 1"]
    for number, image in enumerate(images[1:], start=2):
        boxes.append(torch.from_numpy(tracker.update(image)))
        state = (
            "lost: the whole frame is searched" if tracker.lost else f"similarity {tracker.similarity:.2f}"
        )
        captions.append(f"frame {number}   {state}")
    found = torch.stack(boxes)
    iou = evaluate(found, truth).iou
    back = int(hidden.nonzero().max()) + 1
    again = (iou[back:] > 0.5).nonzero()
    said = f"found {int(again[0])} frames after it is back" if len(again) else "it is not found again"
    show.figures["mean_iou"] = iou[~hidden].mean().item()
    show.say(f"  mean IoU {show.figures['mean_iou']:.2f} where it is visible; {said}")
    with show.needs("sint.gif"):
        from amstel.media.draw import annotate
        from amstel.media.writing import VideoWriter

        found, truth = (b.view(-1, 2, 2).cumsum(1).view(-1, 4) for b in (found, truth))
        pictures = annotate(frames, None, found, truth, captions, scale=1)
        with VideoWriter(show.folder / "sint.gif") as writer:
            for picture in pictures.numpy():
                writer.write(picture)
        show.wrote(writer.path)
