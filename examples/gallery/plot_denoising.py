"""
Denoising, step by step
=======================

One call restores an image. Calling the network yourself shows every step of its iteration.
"""

import torch
from skimage import data

import amstel

clean = torch.from_numpy(data.camera()[128:320, 160:352]).float()[None, None] / 255
noisy = clean + 25 / 255 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    steps = amstel.nn.RIM.pretrained("gray")(noisy, amstel.inverse.Denoising(25 / 255))

images = {"noisy": noisy, **{f"step {k}": x for k, x in enumerate(steps, start=1)}}
amstel.plot.restorations(images, clean, limit=0.3)
