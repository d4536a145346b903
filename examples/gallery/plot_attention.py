"""
Where a model with attention looks
==================================

A `ConvALSTM` learns from class labels alone which cells of the feature map matter. The features here are synthetic: one
of the 7x7 cells carries the class, and it moves around.
"""

import torch
from matplotlib import pyplot as plt

import amstel

torch.manual_seed(0)
model = amstel.nn.ConvALSTM(8, 8, num_classes=4, feature_size=7, head_channels=32, dropout=0.0)
adam = torch.optim.Adam(model.parameters(), lr=0.01)


def batch(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    labels = torch.arange(count) % 4
    x = 0.3 * torch.randn(5, count, 8, 7, 7)
    place = torch.randint(1, 6, (5, count, 2))
    for t in range(5):
        for n in range(count):
            x[t, n, labels[n], place[t, n, 0], place[t, n, 1]] += 4
    return x, labels, place


for _ in range(60):
    x, labels, _ = batch(16)
    logits, attention = model(x)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.repeat(5))
    adam.zero_grad()
    loss.backward()
    adam.step()

x, labels, place = batch(4)
logits, attention = model(x)
print(f"right: {(logits[-1].argmax(1) == labels).float().mean():.0%}")

figure, axes = plt.subplots(1, 5, figsize=(11, 2.6), layout="constrained")
frames = (x[:, 0].amax(1).clamp(0, 4) / 4 * 255).byte()[..., None].expand(-1, -1, -1, 3)
for t, ax in enumerate(axes):
    row, column = place[t, 0].tolist()
    amstel.plot.attention(
        frames[t], attention[t, 0].detach(), truth=[column, row, column + 1, row + 1], axes=ax
    )
    ax.set_title(f"step {t + 1}")
