"""
Super-resolution by a factor of three
=====================================

The small image comes from antialiased bicubic downsampling. Bicubic upsampling is the starting point, and the network
refines it.
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
