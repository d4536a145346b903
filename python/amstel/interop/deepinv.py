"""Use deepinv's linear physics as forward models for `amstel.nn.RIM`, and forward models as deepinv physics.

In deepinv, `physics(x)` is a noisy measurement, and A x without noise is `physics.A(x)`, here `model(x)`. Its MRI stores
real and imaginary part as two channels, as real images [N, 2, H, W], which a RIM with two channels takes unchanged.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from amstel import _check
from amstel._bypass import computes_as
from amstel.inverse import ForwardModel, Poisson
from amstel.inverse.model import Prepared


class FromDeepinv(ForwardModel):
    """A x and A^T y of a deepinv physics; created by `from_deepinv`.

    Example:
        >>> import deepinv
        >>> mask = torch.ones(1, 1, 8, 8)
        >>> model = amstel.interop.deepinv.from_deepinv(deepinv.physics.Inpainting((1, 8, 8), mask), sigma=0.5)
        >>> model.gradient(torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))[0, 0, 0, 0]  # (x - y) / sigma²
        tensor(4.)
    """

    def __init__(self, physics: Any, sigma: float | Tensor):
        super().__init__(sigma)
        self.physics = physics

    def forward(self, x: Tensor) -> Tensor:
        return self.physics.A(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.physics.A_adjoint(y)

    def adjointness_test(self, x: Tensor | None = None, seed: int = 0) -> float:
        if x is None:  # its operators compute in the dtype of their own tensors alone
            held = (*self.physics.buffers(), *self.physics.parameters())
            like = next((t.real for t in held if t.dim() and (t.is_floating_point() or t.is_complex())), None)
            x = None if like is None else like.new_empty(self._image_shape())
        return super().adjointness_test(x, seed)

    def _image_shape(self) -> tuple[int, ...]:
        size, width = (getattr(self.physics, name, None) for name in ("img_size", "img_width"))
        if size is None and width is not None:
            size = 1, width, width
        return (self._batch(), *size[-3:]) if size is not None else super()._image_shape()


class _Following(FromDeepinv):
    """Its sigma is what that of the physics' noise is at the time (`physics.update`), of each part of complex measurements."""

    def __init__(self, physics: Any):
        super().__init__(physics, 1.0)
        self._given: float | Tensor | None = None
        self._complex = False  # until it is known
        self._complex = _measures_complex(self)

    @property
    def sigma(self) -> float | Tensor:
        if self._given is not None:
            return self._given
        sigma = _sigma_of(self.physics.noise_model)
        # deepinv's sigma of complex noise is that of both parts together.
        return sigma / math.sqrt(2) if self._complex else sigma

    @sigma.setter
    def sigma(self, value: float | Tensor) -> None:
        self._given = value

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        self._complex = y.is_complex()
        return y

    def adjoint(self, y: Tensor) -> Tensor:
        self._complex = y.is_complex()
        return super().adjoint(y)

    def prepare(self, y: Tensor) -> Prepared:
        self._complex = y.is_complex()
        return super().prepare(y)


class _FollowingCounts(Poisson):
    """Its gain is what that of the physics' noise is at the time."""

    def __init__(self, physics: Any):
        super().__init__(FromDeepinv(physics, 1.0), _gain_of(physics.noise_model))
        self._given: float | None = None

    @property
    def gain(self) -> float:
        physics: Any = self.model.physics
        return _gain_of(physics.noise_model) if self._given is None else self._given

    @gain.setter
    def gain(self, value: float) -> None:
        self._given = value


def _gain_of(noise: Any) -> float:
    gain = getattr(noise, "gain", None)
    if not isinstance(gain, Tensor) or not getattr(noise, "normalize", False) or gain.numel() != 1:
        _check.fail_type("physics.noise_model", "normalized Poisson noise of one gain", noise)
    return float(_check.number("physics.noise_model.gain", float(gain), "a finite number > 0", above=0))


def _sigma_of(noise: Any) -> float | Tensor:
    known = getattr(noise, "sigma", None)
    if not isinstance(known, Tensor):
        _check.fail_type("physics.noise_model", "one with a sigma", noise)
    if known.numel() > 1:
        return known.reshape(-1)
    return _check.number("physics.noise_model.sigma", float(known), "a finite number > 0", above=0)


def from_deepinv(physics: Any, sigma: float | Tensor | None = None) -> ForwardModel:
    r"""A deepinv.physics.LinearPhysics as a forward model: `model(y, from_deepinv(physics))` with a RIM.

    The values are deepinv's own. If both libraries have a model (`BlurFFT` and `Deblurring`, `Inpainting`,
    `DownsamplingMatlab` and `SuperResolution`, `MultiCoilMRI` and centered `MRI`), the one in `amstel.inverse` does less
    work per step: it computes A^T y once, or the network's input in one pass.

    Args:
        physics: with A and A_adjoint that take one tensor each; its parameters are the current ones (`physics.update`).
        sigma: standard deviation of the noise; None: that of physics.noise_model, including later updates. This must be a
            GaussianNoise, or a normalized PoissonNoise with one gain, which gives an `amstel.inverse.Poisson`. For complex
            measurements, sigma is that of each part, while deepinv's is that of both together.

    Returns:
        The forward model. If physics comes from `to_deepinv` with its own noise, and sigma is None, this is the original
        model, which does not follow later updates of physics.

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
        own, noise = getattr(physics, "model", None), getattr(physics, "noise_model", None)
        kind = type(noise).__name__
        if isinstance(own, ForwardModel) and _is_as_made(physics):
            return own
        if kind == "PoissonNoise" and noise.normalize and noise.gain.numel() == 1:  # type: ignore[union-attr]
            return _FollowingCounts(physics)
        if kind != "GaussianNoise":
            _check.fail(
                "sigma",
                "given if physics.noise_model is neither Gaussian nor normalized Poisson noise",
                sigma,
            )
        FromDeepinv(physics, _sigma_of(noise))  # checks it
        return _Following(physics)
    return FromDeepinv(physics, sigma)


def to_deepinv(model: ForwardModel) -> Any:
    r"""A forward model as a deepinv.physics.LinearPhysics with its noise, for deepinv's solvers and networks.

    The noise is deepinv's GaussianNoise or PoissonNoise, or a plain NoiseModel if sigma is a map or counts have a
    background, which those two do not support. Images and measurements keep their shapes; those of `amstel.inverse.MRI`
    are complex. The model is a submodule, which moves with the physics.

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
        from deepinv.physics import GaussianNoise, LinearPhysics, NoiseModel, PoissonNoise
    except ImportError as error:
        raise ImportError("to_deepinv needs deepinv: `pip install deepinv`") from error

    if isinstance(model, Poisson):
        noise = PoissonNoise(model.gain, clip_positive=True)
        if model.background:
            noise = NoiseModel(partial(_counts, model))
    elif isinstance(model.sigma, Tensor) and model.sigma.dim() == 4:
        noise = NoiseModel(partial(_mapped, model))
    else:
        # deepinv's sigma of complex noise is that of both parts together.
        noise = GaussianNoise(model.sigma * math.sqrt(2) if _measures_complex(model) else model.sigma)
    # deepinv hands what is for the noise (`physics(x, sigma=0.1)`) to these as well.
    forward, adjoint = partial(_alone, model), partial(_alone, model.adjoint)
    physics = LinearPhysics(A=forward, A_adjoint=adjoint, noise_model=noise)
    physics.model = model
    physics._was = model, forward, adjoint, _told(noise)
    return physics


def _is_as_made(physics: Any) -> bool:
    """Whether nobody has given another model, operator or noise to what `to_deepinv` made, or another class."""
    from deepinv.physics import LinearPhysics

    model, forward, adjoint, noise = getattr(physics, "_was", (None,) * 4)
    return (
        computes_as(physics, LinearPhysics, "A", "A_adjoint")
        and physics.model is model
        and physics.forw is forward
        and physics.A_adj is adjoint
        and _told(physics.noise_model) == noise
    )


def _told(noise: Any) -> tuple[str, Any, dict[str, Any]]:
    """Its kind, its function and its parameters, by which another one, or an updated one, is known."""
    function = getattr(noise, "noise_model", None)
    held = noise.state_dict() if isinstance(noise, nn.Module) else {}
    # A copy of the physics has a copy of the function, too, but for what that is of.
    return type(noise).__name__, getattr(function, "func", function), {n: t.tolist() for n, t in held.items()}


def _alone(operator: Any, x: Tensor, **_: Any) -> Tensor:
    return operator(x)


def _measures_complex(model: ForwardModel) -> bool:
    """Whether A x is complex, for an image that the model takes; where only its user knows one, as the images are."""
    if model.complex_images:
        return True
    where = next((t.device for t in (*model.buffers(), *model.parameters())), None)
    try:
        with torch.no_grad():
            return model(torch.zeros(model._image_shape(), device=where)).is_complex()
    except Exception:  # an image of another size, dtype or number of dimensions, by the code of others
        return False


def _counts(model: Poisson, ax: Tensor) -> Tensor:
    return torch.poisson((ax + model.background).clamp_min(0) / model.gain) * model.gain


def _mapped(model: ForwardModel, ax: Tensor) -> Tensor:
    return ax + torch.as_tensor(model.sigma).to(ax) * torch.randn_like(ax)
