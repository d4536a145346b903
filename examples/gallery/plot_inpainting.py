"""
Filling holes
=============

A third of the pixels and a whole stripe are missing. The network fills them in from what is left.
"""

import torch
from skimage import data

import amstel

clean = torch.from_numpy(data.camera()[100:228, 150:278]).float()[None, None] / 255
mask = (torch.rand(1, 1, 128, 128, generator=torch.Generator().manual_seed(0)) > 1 / 3).float()
mask[..., 60:64] = 0
filled = amstel.restore(clean * mask, "inpaint", mask=mask)
amstel.plot.restorations({"known": clean * mask, "restored": filled, "original": clean}, clean, limit=0.3)
