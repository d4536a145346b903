"""Forward models of inverse problems, y = A x + noise: A, its exact adjoint, and the gradient of the log-likelihood.

| model | A x | images | measurements |
|---|---|---|---|
| `Denoising` | x | [N, C, H, W] | [N, C, H, W] |
| `Inpainting` | mask x | [N, C, H, W] | [N, C, H, W] |
| `SuperResolution` | antialiased downsampling, bicubic or by any kernel | [N, C, H, W] | [N, C, H / s, W / s] |
| `Deblurring` | convolution, circular or with another boundary | [N, C, H, W] | [N, C, H, W] |
| `RandomProjection` | matrix x | [N, C, H, W] | [N, P] |
| `StructuredProjection` | a random projection from a seed, without a matrix | [N, C, H, W] | [N, P] |
| `Radon` | sums along parallel rays | [N, C, H, W] | [N, C, angles, detectors] |
| `MRI` | mask F (sensitivities x) | complex [N, H, W] | complex [N, coils, H, W] |
| `NonCartesianMRI` | F (sensitivities x) at any points | complex [N, H, W] | complex [N, coils, K] |

For any other model, subclass `ForwardModel`. `Envelope` wraps a model to give better conditioned gradients, and
`Poisson` wraps one whose measurements are counts.
"""

from amstel.inverse.deblurring import Deblurring
from amstel.inverse.envelope import Envelope
from amstel.inverse.images import Denoising, Inpainting, RandomProjection, SuperResolution
from amstel.inverse.kernels import disk_kernel, gaussian_kernel, motion_kernel
from amstel.inverse.message_passing import message_passing
from amstel.inverse.model import ForwardModel, Prepared
from amstel.inverse.mri import MRI
from amstel.inverse.noise import estimate_sigma
from amstel.inverse.non_cartesian import NonCartesianMRI
from amstel.inverse.plug_and_play import plug_and_play
from amstel.inverse.poisson import Poisson
from amstel.inverse.projection import StructuredProjection
from amstel.inverse.radon import Radon
from amstel.inverse.total_variation import total_variation

__all__ = [
    "MRI",
    "Deblurring",
    "Denoising",
    "Envelope",
    "ForwardModel",
    "Inpainting",
    "NonCartesianMRI",
    "Poisson",
    "Prepared",
    "Radon",
    "RandomProjection",
    "StructuredProjection",
    "SuperResolution",
    "disk_kernel",
    "estimate_sigma",
    "gaussian_kernel",
    "message_passing",
    "motion_kernel",
    "plug_and_play",
    "total_variation",
]
