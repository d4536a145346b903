"""Draws the picture at the top of the README, docs/picture.png, from synthetic data, in about a minute.

python docs/picture.py
"""

from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt

import amstel
from amstel.apps.graphs import karate
from amstel.apps.video import demo as video
from amstel.apps.video.predict import predict
from amstel.data.mri.images import smooth_phase


def graph(ax: plt.Axes) -> None:
    data, embeddings, accuracy = karate.train(epochs=100)  # later the points run into the corners
    edges, _ = data.graph.to_edge_index()
    amstel.plot.embedding(embeddings[-1], data.labels, edges, marked=data.train.tolist(), axes=ax)
    if ax.get_legend():
        ax.get_legend().remove()
    ax.set_title(f"GCN: accuracy {accuracy[-1]:.0%}\nfrom one label per group")


def attention(ax: plt.Axes) -> None:
    clips = amstel.data.generate_moving_shapes(400, **video._TASK)
    network = video.learn(clips, "cpu", 0, lambda n: None)
    clip = amstel.data.generate_moving_shapes(8, seed=1, **video._TASK)[3]
    found = predict(network, clip.frames)
    amstel.plot.attention(
        clip.frames[3], found.attention[3], box=found.boxes[3], truth=clip.boxes[3], axes=ax
    )
    best = int(found.probabilities.argmax())
    ax.set_title(
        f"ConvALSTM: moves {video.CLASSES[best]}, {found.probabilities[best]:.0%}\nand where it looked"
    )


def track(ax: plt.Axes) -> None:
    frames, truth, _ = amstel.tracking.generate_sequence()
    frames, truth = frames[:16], truth[:16]
    boxes = amstel.tracking.SINTTracker().track(frames.numpy(), truth[0])
    amstel.plot.tracks(frames[15], {"SINT": boxes, "truth": truth}, axes=ax)
    ax.set_title(
        f"SINT: mean IoU {amstel.tracking.evaluate(boxes, truth).mean_iou:.2f}\nin the first 16 frames"
    )


def ellipses(size: int = 192) -> torch.Tensor:
    """A head of ellipses: center, half axes, angle, what each adds."""
    rows, columns = torch.meshgrid(*[torch.linspace(-1, 1, size)] * 2, indexing="ij")
    image = torch.zeros(size, size)
    shapes = [
        (0, 0, 0.72, 0.92, 0, 0.9), (0, 0.02, 0.66, 0.85, 0, -0.55), (-0.24, 0, 0.14, 0.34, 18, -0.2),
        (0.25, 0, 0.12, 0.3, -18, -0.2), (0, -0.38, 0.2, 0.22, 0, 0.25), (0, 0.12, 0.05, 0.05, 0, 0.3),
        (0.05, 0.58, 0.06, 0.03, 0, 0.3), (-0.1, 0.58, 0.04, 0.03, 0, 0.3), (0.02, 0.4, 0.2, 0.07, 5, 0.12),
    ]  # fmt: skip
    for x, y, a, b, angle, value in shapes:
        turn = np.deg2rad(angle)
        u = (columns - x) * np.cos(turn) + (rows - y) * np.sin(turn)
        v = (rows - y) * np.cos(turn) - (columns - x) * np.sin(turn)
        image += value * ((u / a) ** 2 + (v / b) ** 2 < 1)
    return image


@torch.no_grad()
def mri(left: plt.Axes, right: plt.Axes) -> None:
    rng, clean = np.random.default_rng(0), ellipses()
    mask = amstel.data.mri.cartesian_mask(192, 4, 0.08, rng)
    maps = amstel.data.mri.loop_sensitivities(8, clean.shape, rng)
    x = torch.polar(clean, smooth_phase(clean.shape, rng))
    y = amstel.inverse.MRI(mask, maps, centered=True)(x[None])
    y = y + 0.003 * mask * torch.view_as_complex(
        torch.from_numpy(rng.standard_normal((*y.shape, 2), np.float32))
    )
    maps = amstel.data.mri.estimate_sensitivities(y, mask)
    start = amstel.inverse.MRI(mask, maps, centered=True).adjoint(y)
    found = amstel.restore(y, "mri", mask=mask)
    for ax, image, name in ((left, start, "zero-filled"), (right, found, "restored")):
        error = (image[0].abs() - clean).square().mean()
        ax.imshow(image[0].abs().clamp(0, 1), cmap="gray", vmin=0, vmax=0.8)
        ax.set(xticks=[], yticks=[])
        ax.set_title(
            f"{name}: {float(10 * torch.log10(1 / error)):.1f} dB\n{float(mask.float().mean()):.0%} of k-space"
        )


plt.rcParams.update({"font.size": 9, "axes.titlesize": 10})
figure, axes = plt.subplots(1, 5, figsize=(13, 3), layout="constrained", width_ratios=[1, 1, 1.33, 1, 1])
for draw, ax in zip((graph, attention, track), axes, strict=False):
    draw(ax)
mri(*axes[3:])
for ax in axes:
    ax.axis("off")
figure.savefig(Path(__file__).parent / "picture.png", dpi=110)
