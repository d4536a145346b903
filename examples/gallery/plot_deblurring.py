"""
A forward model and its gradient
================================

Gradient descent on the likelihood, without any network, sharpens a blurred image; with more steps it amplifies the noise.
"""

import torch
from skimage import data

import amstel

clean = torch.from_numpy(data.camera()[100:228, 150:278]).float()[None, None] / 255
physics = amstel.inverse.Deblurring(torch.ones(5, 5) / 25, sigma=0.02)
y = physics(clean) + 0.02 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))

step = physics.prepare(y)  # A^T y is computed once
x, seen = y, {"blurred": y}
for k in range(1, 301):
    x = x - 0.02**2 * step.gradient(x)
    if k in (10, 300):
        seen[f"{k} steps"] = x
amstel.plot.restorations(seen, clean, limit=0.3)
