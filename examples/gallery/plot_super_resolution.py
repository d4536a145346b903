"""
Enlarging three times
=====================

The small image is an antialiased bicubic reduction. Bicubic enlargement is the first guess, and the network's the second.
"""

import torch
from skimage import data

import amstel

clean = torch.from_numpy(data.camera()[100:292, 150:342]).float()[None, None] / 255
small = amstel.inverse.SuperResolution(3)(clean)
bicubic = torch.nn.functional.interpolate(small, scale_factor=3, mode="bicubic")
amstel.plot.restorations(
    {"bicubic": bicubic, "RIM": amstel.restore(small, "sr", scale=3), "original": clean}, clean, limit=0.3
)
