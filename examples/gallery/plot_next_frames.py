"""
The next frames of bouncing digits
==================================

One stack of ConvLSTMs reads five frames. Another continues from its states and draws the next three. The motion of a digit
shows only across several frames, so a network that sees only the last frame can do no better than blur the digit.
"""

import torch
from matplotlib import pyplot as plt
from torch.nn import functional as F

import amstel

torch.manual_seed(0)


def sequences(count: int, seed: int) -> torch.Tensor:
    """[T, N, 1, 16, 16] in [0, 1]."""
    digits = amstel.data.generate_bouncing_digits(count, frames=8, size=16, digits=1, seed=seed)
    return digits.transpose(0, 1)[:, :, None] / 255


known, new = sequences(1600, seed=0), sequences(100, seed=1)
model = amstel.nn.ConvLSTMForecaster(1, 16, patch=2, layer_norm=True)
adam = torch.optim.Adam(model.parameters(), lr=0.01)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, 200)
losses = []
for _ in range(200):
    x = known[:, torch.randint(known.shape[1], (16,))]
    loss = F.binary_cross_entropy_with_logits(model(x[:5], steps=3), x[5:])
    adam.zero_grad()
    loss.backward()
    adam.step()
    schedule.step()
    losses.append(loss.item())

amstel.plot.convergence(losses, xlabel="step", log=True)

# %%
# The forecasts of new sequences have a smaller error than a copy of the last frame. ``amstel video forecast --out RUN``
# does the same with two digits in larger frames, and compares with a convolutional network that sees one frame.

with torch.no_grad():
    forecast = model(new[:5], steps=3).sigmoid()
error = [(f - new[5:]).square().mean().item() for f in (forecast, new[4:5].expand(3, *new.shape[1:]))]
print(f"mean squared error: forecast {error[0]:.4f}, last frame {error[1]:.4f}")
assert error[0] < error[1]

figure, axes = plt.subplots(4, 8, figsize=(9, 4.6), layout="constrained")
for n in range(2):
    for t in range(8):
        axes[2 * n, t].imshow(new[t, n, 0], cmap="gray", vmin=0, vmax=1)
        if t >= 5:
            axes[2 * n + 1, t].imshow(forecast[t - 5, n, 0], cmap="gray", vmin=0, vmax=1)
    axes[2 * n, 0].set_title("given", loc="left")
    axes[2 * n, 5].set_title("the next ones", loc="left")
    axes[2 * n + 1, 5].set_title("forecast", loc="left")
for ax in axes.flat:
    ax.axis("off")
