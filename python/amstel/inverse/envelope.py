"""The Moreau envelope of a forward model's likelihood, whose gradient is computed by a few conjugate-gradient steps."""

from __future__ import annotations

import torch
from torch import Tensor

from amstel import _check
from amstel._torch import wide
from amstel.inverse.model import ForwardModel, Normal, Prepared, Sigma


class Envelope(ForwardModel):
    r"""A forward model whose gradient is that of the Moreau envelope of its negative log-likelihood f.

    .. code-block:: text

        f(x) = |A x - y|^2 / (2 sigma^2)      p(x) = argmin_z  f(z) / weight + |z - x|^2 / 2
        gradient(x, y) = x - p(x)

    The envelope has the same minima as f / weight, but a single step x - gradient(x, y) already leads to an image near x
    that fits the measurements. If A is badly conditioned, as in parallel MRI, a network needs far fewer of these steps
    than of plain gradient steps. The linear system (A^H A / sigma^2 + weight) d = -(gradient of f) is solved by conjugate
    gradients from d = 0.

    Args:
        model: a `ForwardModel`, whose A, adjoint and sigma are used.
        weight: > 0; the smaller, the closer p(x) is to the measurements.
        iterations: number of conjugate-gradient steps, each with one A^H A; with 1, the result is the plain gradient,
            scaled to the best step length.

    As differentiable as the model; nothing waits for a CUDA device.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Source: J. Moreau, Bulletin de la SMF 93, 1965; as a step of a network H. Aggarwal et al., MoDL, IEEE TMI 38, 2019.

    Example:
        >>> physics = amstel.inverse.Envelope(amstel.inverse.Denoising(sigma=0.5), weight=4.0)
        >>> physics.gradient(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))[0, 0, 0]
        tensor([0.5000, 0.5000])
    """

    def __init__(self, model: ForwardModel, weight: float, iterations: int = 8):
        if not isinstance(model, ForwardModel):
            raise TypeError(f"`model` must be a ForwardModel, got {_check.describe(model)}")
        torch.nn.Module.__init__(self)  # without a sigma of its own
        self.pixelwise = model.pixelwise
        weight = _check.number("weight", weight, "a finite number > 0", above=0)
        iterations = _check.integer("iterations", iterations, 1)
        self.model, self.weight, self.iterations = model, float(weight), iterations
        self.complex_images = model.complex_images

    @property
    def sigma(self) -> Sigma:
        """Sigma of the model, also if it is changed later."""
        return self.model.sigma

    @sigma.setter
    def sigma(self, value: Sigma) -> None:
        self.model.sigma = value

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.model.adjoint(y)

    def normal(self, x: Tensor) -> Tensor:
        return self.model.normal(x)

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """x - p(x), with the shape and dtype of x."""
        return self.prepare(y).gradient(x)

    def prepare(self, y: Tensor) -> Prepared:
        return _PreparedEnvelope(self, y)

    def _image_shape(self) -> tuple[int, ...]:
        return self.model._image_shape()


class _PreparedEnvelope(Normal):
    model: Envelope

    def __init__(self, model: Envelope, y: Tensor):
        super().__init__(model, y)
        self.likelihood = model.model.prepare(wide(y))

    def gradient(self, x: Tensor) -> Tensor:
        residual = -self.likelihood.gradient(wide(x))
        d, direction, size = torch.zeros_like(residual), residual, _square(residual)
        for _ in range(self.model.iterations):
            image = self.model.normal(direction) * self.precision + self.model.weight * direction
            # Where the residual is 0 there is nothing left to do, and nothing to divide by.
            length = size / _inner(direction, image).clamp_min(_tiny(size))
            d, residual = d + length * direction, residual - length * image
            size, before = _square(residual), size
            direction = residual + size / before.clamp_min(_tiny(size)) * direction
        return -d.to(x.dtype)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Re <a, b> of each image, to be multiplied with images."""
    product = (a.conj() * b).real if a.is_complex() else a * b
    return product.sum(tuple(range(1, a.dim())), keepdim=True)


def _square(a: Tensor) -> Tensor:
    return _inner(a, a)


def _tiny(t: Tensor) -> float:
    return torch.finfo(t.dtype).tiny
