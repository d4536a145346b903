"""
Clips whose class is a motion
=============================

The class of each synthetic clip is the direction in which the colored shape moves, so no single frame gives it away. The
optical flow below it, drawn as arrows, does.
"""

from matplotlib import pyplot as plt

import amstel

clips = amstel.data.generate_moving_shapes(4, frames=8, size=64, speed=3.0, seed=54)
figure, axes = plt.subplots(2, 4, figsize=(10, 5.2), layout="constrained")
for clip, name, column in zip(clips, ("right", "up", "left", "down"), axes.T, strict=True):
    corners = clip.boxes.clone()
    corners[:, 2:] -= corners[:, :2]  # x, y, w, h
    amstel.plot.tracks(clip.frames[-1], {name: corners}, axes=column[0])
    dx, dy = amstel.video.flow(clip.frames, "farneback")[3, :, 3::6, 3::6]
    places = range(3, 64, 6)
    column[1].imshow(clip.frames[3])
    column[1].quiver(places, places, dx, dy, color="white", angles="xy", scale_units="xy", scale=0.5)
    column[1].set(xticks=[], yticks=[])
