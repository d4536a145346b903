"""VideoLSTM on clips whose class is the direction in which a shape moves, and where it looks.

The clips are synthetic: no single frame reveals the class. Motion here is what became lighter or darker since the previous
frame; with opencv installed, motion="dis" uses optical flow instead.

    pip install "amstel[cli,video]"
    python examples/video_lstm.py [FILE.gif | FILE.mp4]
"""

import sys

import torch

import amstel.nn
from amstel import video
from amstel.apps.video.evaluate import evaluate
from amstel.apps.video.predict import predict
from amstel.apps.video.settings import Settings
from amstel.apps.video.train import train
from amstel.data import generate_moving_shapes

# A model takes feature maps from an RGB and a flow backbone, and returns scores and attention after every step.
model = amstel.nn.VideoLSTM(16, 8, num_classes=4, feature_size=8)
logits, attention = model(torch.randn(6, 2, 16, 8, 8), torch.randn(6, 2, 16, 8, 8))
print(
    "logits",
    tuple(logits.shape),
    "attention",
    tuple(attention.shape),
    "sums to",
    attention[0, 0].sum().item(),
)

# The application adds backbones, and trains everything from scratch. Frames this small gain nothing from more threads.
torch.set_num_threads(1)
task = {"frames": 6, "size": 32, "distractors": 2, "speed": (2.0, 4.0), "noise": 0.02}
clips, held_out = generate_moving_shapes(400, **task), generate_moving_shapes(100, seed=1, **task)
classes = ["right", "up", "left", "down"]
settings = Settings.from_scratch(
    model="convalstm",
    frame_size=32,
    channels=(16, 32),
    hidden=16,
    steps=6,
    epochs=26,
    learning_rate=3e-3,
    dropout=0.2,
    shift=2,
)
done = train(clips, classes, settings, progress=lambda n: print(".", end="", flush=True))
print(f"\naccuracy on clips never seen: {evaluate(done.network, held_out).accuracy:.0%}, chance is 25%")

# One video: its class, where the network looked, and a box per frame, although it never saw a box in training.
clip = held_out[1]
found = predict(done.network, clip.frames)
best = int(found.probabilities.argmax())
print("overlap of the boxes with the true ones:", video.box_iou(found.boxes, clip.boxes).tolist())
file = sys.argv[1] if len(sys.argv) > 1 else "video_lstm.gif"
caption = f"{classes[best]} {found.probabilities[best]:.0%}"
video.write(file, video.annotate(clip.frames, found.attention, found.boxes, clip.boxes, caption), fps=6)
print("wrote", file)
