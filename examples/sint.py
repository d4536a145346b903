"""SINT: track one object from its box in the first frame, with a matching function learned beforehand.

The sequence is synthetic, so the truth is known: the object turns and grows, and is hidden behind a pillar for a while.
The network learns nothing while tracking; the search also uses what the object has looked like lately. For your own video: amstel track clip.mp4 --box x,y,w,h

    pip install "amstel[track]"
    python examples/sint.py [FILE.gif | FILE.mp4]
"""

import sys

import torch

import amstel.nn
from amstel import video
from amstel.tracking import SINTTracker, evaluate, generate_sequence
from amstel.tracking.frames import VideoWriter

frames, truth, hidden = generate_sequence()
images = frames.numpy()

# The network describes every box in an image; boxes around the same object have similar descriptions.
model = amstel.nn.SINT.pretrained()
x, y, w, h = truth[0].tolist()
boxes = torch.tensor([[0, x, y, x + w - 1, y + h - 1], [0, x + 2 * w, y, x + 3 * w - 1, y + h - 1]])
with torch.no_grad():
    maps = model.features(frames[:1].permute(0, 3, 1, 2) / 255)
    query = model.describe(maps, boxes[:1])[0]
    same, other = (model.match(maps, boxes, query) / query.square().sum()).tolist()
print(f"similarity of the object with itself {same:.2f}, with the background beside it {other:.2f}")

# The tracker takes one frame after another; pass a video file or a folder to tracker.track(file, box).
tracker = SINTTracker(model, redetect=True)
tracker.init(images[0], truth[0])
found, captions = [truth[0]], ["first frame"]
for image in images[1:]:
    found.append(torch.from_numpy(tracker.update(image)))
    captions.append("lost" if tracker.lost else f"similarity {tracker.similarity:.2f}")
found = torch.stack(found)

scores = evaluate(found, truth)
print(
    f"AUC {scores.auc:.2f}, precision {scores.precision:.2f}; mean IoU {scores.iou[~hidden].mean():.2f} while visible"
)

file = sys.argv[1] if len(sys.argv) > 1 else "sint.gif"
corners = (b.view(-1, 2, 2).cumsum(1).view(-1, 4) for b in (found, truth))
with VideoWriter(file) as writer:
    for picture in video.annotate(frames, None, *corners, captions, scale=1).numpy():
        writer.write(picture)
print("wrote", file)
