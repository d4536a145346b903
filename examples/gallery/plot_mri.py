"""
MRI from two fifths of k-space
==============================

Eight coils see a synthetic object. Only every fourth column of k-space and the center are measured. Total variation is
the classical way to fill in the rest.
"""

import numpy as np
import torch
from skimage import data, transform

import amstel

truth = torch.from_numpy(transform.resize(data.shepp_logan_phantom(), (128, 128))).to(torch.complex64)[None]
maps = amstel.data.mri.loop_sensitivities(8, (128, 128), np.random.default_rng(0)).to(torch.complex64)
mask = torch.arange(128) % 4 == 0
mask[52:76] = True
physics = amstel.inverse.MRI(mask, maps, centered=True)
y = physics(truth)

images = {
    "zero-filled": physics.adjoint(y),
    "total variation": amstel.inverse.total_variation(y, physics, weight=0.002, iterations=60),
    "truth": truth,
}
amstel.plot.restorations(images, truth.abs())
