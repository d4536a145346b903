"""
A ConvLSTM that remembers
=========================

A dot lights up once and disappears. At every later step the network has to show where it was. It can do so because its
state is a map.
"""

import torch
from matplotlib import pyplot as plt

import amstel

torch.manual_seed(0)
lstm, readout = amstel.nn.ConvLSTM(1, 8), torch.nn.Conv2d(8, 1, 1)
adam = torch.optim.Adam([*lstm.parameters(), *readout.parameters()], lr=0.02)


def clips(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.zeros(6, count, 1, 12, 12)
    rows, columns = torch.randint(2, 10, (2, count))
    x[0, torch.arange(count), 0, rows, columns] = 1
    return x, x[:1].expand_as(x)


losses, rare = [], torch.tensor(100.0)  # one pixel of 144 is lit
for _ in range(250):
    x, target = clips(8)
    output, _ = lstm(x)
    logits = readout(output.flatten(0, 1)).view_as(x)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, pos_weight=rare)
    adam.zero_grad()
    loss.backward()
    adam.step()
    losses.append(loss.item())

amstel.plot.convergence(losses, xlabel="step", log=True)

# %%
# The input, and what the network remembers at each step:

x, _ = clips(1)
with torch.no_grad():
    found = readout(lstm(x)[0].flatten(0, 1)).sigmoid()
figure, axes = plt.subplots(2, 6, figsize=(11, 3.8), layout="constrained")
for t in range(6):
    axes[0, t].imshow(x[t, 0, 0], cmap="gray", vmin=0, vmax=1)
    axes[1, t].imshow(found[t, 0], cmap="gray", vmin=0, vmax=1)
    axes[0, t].set_title(f"step {t + 1}")
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
