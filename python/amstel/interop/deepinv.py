"""Use deepinv's linear physics as forward models for `amstel.nn.RIM`, and forward models as deepinv physics.

What deepinv means by `physics(x)` is a noisy measurement; A x alone is `physics.A(x)`, here `model(x)`. Its MRI keeps
real and imaginary part as two channels, thus real images [N, 2, H, W]: a RIM of two channels takes them as they are.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from amstel import _check
from amstel.inverse import ForwardModel


class FromDeepinv(ForwardModel):
    """A x and A^T y by a deepinv physics; see `from_deepinv`."""

    def __init__(self, physics: Any, sigma: float | Tensor):
        super().__init__(sigma)
        self.physics = physics

    def forward(self, x: Tensor) -> Tensor:
        return self.physics.A(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.physics.A_adjoint(y)

    def _image_shape(self) -> tuple[int, ...]:
        size = getattr(self.physics, "img_size", None)
        return (self._batch(), *size[-3:]) if size is not None else super()._image_shape()


def from_deepinv(physics: Any, sigma: float | Tensor | None = None) -> ForwardModel:
    r"""A deepinv.physics.LinearPhysics as a forward model: `model(y, from_deepinv(physics))` with a RIM.

    The values are deepinv's own. Where both have a model (`BlurFFT` and `Deblurring`, `Inpainting`,
    `DownsamplingMatlab` and `SuperResolution`, `MultiCoilMRI` and centered `MRI`), that of `amstel.inverse` does less
    in every step: it computes A^T y once, or the network's input in one pass.

    Args:
        physics: with A and A_adjoint for one tensor each; parameters are those that it holds (`physics.update`).
        sigma: standard deviation of the noise; None: that of physics.noise_model, which then is a GaussianNoise.

    Raises:
        TypeError or ValueError: physics is not linear, or sigma is not known or not > 0.

    Example:
        >>> import deepinv
        >>> from amstel.interop.deepinv import from_deepinv
        >>> blur = deepinv.physics.BlurFFT((1, 16, 16), torch.ones(1, 1, 3, 3) / 9, noise_model=deepinv.physics.GaussianNoise(0.1))
        >>> model = from_deepinv(blur)
        >>> model.gradient(torch.zeros(1, 1, 16, 16), blur(torch.rand(1, 1, 16, 16))).shape
        torch.Size([1, 1, 16, 16])
    """
    if not isinstance(physics, nn.Module) or not hasattr(physics, "A") or not hasattr(physics, "A_adjoint"):
        raise TypeError(f"`physics` must be a deepinv.physics.LinearPhysics, got {_check.describe(physics)}")
    if sigma is None:
        noise = getattr(physics, "noise_model", None)
        if type(noise).__name__ != "GaussianNoise":
            _check.fail("sigma", "given where physics.noise_model is not a GaussianNoise", sigma)
        known: Tensor = noise.sigma  # type: ignore[union-attr]
        sigma = float(known) if known.numel() == 1 else known.reshape(-1)
    return FromDeepinv(physics, sigma)


def to_deepinv(model: ForwardModel) -> Any:
    r"""A forward model as a deepinv.physics.LinearPhysics with Gaussian noise, for deepinv's solvers and networks.

    Images and measurements keep their shapes; those of `amstel.inverse.MRI` are complex. The model is a submodule,
    which moves with the physics.

    Raises:
        TypeError: model is not a ForwardModel.
        ImportError: deepinv is not installed.

    Example:
        >>> from amstel.interop.deepinv import to_deepinv
        >>> physics = to_deepinv(amstel.inverse.Deblurring(torch.ones(3, 3) / 9, sigma=0.1))
        >>> x = torch.rand(1, 1, 16, 16)
        >>> bool(physics.adjointness_test(x) < 1e-4)
        True
    """
    if not isinstance(model, ForwardModel):
        raise TypeError(f"`model` must be an amstel.inverse.ForwardModel, got {_check.describe(model)}")
    try:
        from deepinv.physics import GaussianNoise, LinearPhysics
    except ImportError as error:
        raise ImportError("to_deepinv needs deepinv: `pip install deepinv`") from error

    # deepinv's sigma of complex noise is that of both parts together.
    sigma = model.sigma * math.sqrt(2) if model.complex_images else model.sigma
    physics = LinearPhysics(A=model.forward, A_adjoint=model.adjoint, noise_model=GaussianNoise(sigma))
    physics.model = model
    return physics
