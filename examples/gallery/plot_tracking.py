"""
Tracking an object from its first box
=====================================

In this synthetic sequence, the object turns, grows and passes behind a pillar. The network is not updated while it
tracks.
"""

from matplotlib import pyplot as plt

import amstel

frames, truth, hidden = amstel.tracking.generate_sequence()
frames, truth, hidden = frames[:50], truth[:50], hidden[:50]
boxes = amstel.tracking.SINTTracker().track(frames.numpy(), truth[0])

figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
for ax, t in zip(axes, (5, 30, 49), strict=True):
    amstel.plot.tracks(frames[t], {"SINT": boxes[: t + 1], "truth": truth[: t + 1]}, axes=ax)
    ax.set_title(f"frame {t}")
visible = ~hidden
scores = amstel.tracking.evaluate(boxes[visible], truth[visible])
print(f"mean overlap {scores.mean_iou:.2f} while it is visible")
