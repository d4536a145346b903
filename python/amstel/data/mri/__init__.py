"""Magnetic resonance imaging: readers, sampling masks, coil sensitivities, and coil data made from images.

Images and k-space are centered here, as in most files: the zero frequency is sample [H // 2, W // 2] of both
k-space and mask, which is `amstel.inverse.MRI(..., centered=True)`. Transforms are orthonormal.
"""

from amstel.data.mri.images import CoilImages
from amstel.data.mri.masks import cartesian_mask, poisson_disc_mask, radial_mask
from amstel.data.mri.readers import read_admmnet, read_kspace, read_mask
from amstel.data.mri.scans import Scan, read_maps, read_scan
from amstel.data.mri.sensitivities import estimate_sensitivities, loop_sensitivities

__all__ = [
    "CoilImages",
    "Scan",
    "cartesian_mask",
    "estimate_sensitivities",
    "loop_sensitivities",
    "poisson_disc_mask",
    "radial_mask",
    "read_admmnet",
    "read_kspace",
    "read_maps",
    "read_mask",
    "read_scan",
]
