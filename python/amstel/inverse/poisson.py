"""Counts instead of Gaussian noise: the Poisson likelihood for any forward model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from amstel import _check, _checks
from amstel._torch import wide
from amstel.inverse._checks import check_like
from amstel.inverse.model import ForwardModel, Prepared


class Poisson(ForwardModel):
    r"""A forward model whose measurements are counts: y / gain has a Poisson distribution of mean (A x + background) / gain.

    .. code-block:: text

        -log p(y | x) = sum  (m - y log m) / gain + what does not depend on x       m = A x + background
        gradient(x, y) = A^H (1 - y / m) / gain

    m is clamped to at least `floor`, so that the gradient is finite where an estimate is not positive. Where something is
    measured, values of y must be >= 0, but do not have to be integers.

    Args:
        model: a `ForwardModel` of real images with non-negative A x; its A and adjoint are used, and its sigma is not.
        gain: value of one count in units of y, > 0: 1 / 255 if 255 counts are white.
        background: what is counted without any image, >= 0.
        floor: > 0; default: a thousandth of the gain.

    Shapes: as for the model. A network that asks for sigma gets sqrt(gain), the noise where A x is 1. The gain can be
    changed later.

    Raises:
        ValueError or TypeError: an argument is not as described; `amstel.set_checks` says when negative counts raise.

    Source: L. Shepp, Y. Vardi, Maximum Likelihood Reconstruction for Emission Tomography, IEEE TMI 1, 1982.

    Example:
        >>> physics = amstel.inverse.Poisson(amstel.inverse.Denoising(), gain=0.5)
        >>> x, y = torch.full((1, 1, 2, 2), 2.0), torch.ones(1, 1, 2, 2)
        >>> physics.gradient(x, y)[0, 0, 0, 0]
        tensor(1.)
    """

    _floor: float | None = None

    def __init__(
        self, model: ForwardModel, gain: float = 1.0, background: float = 0.0, floor: float | None = None
    ):
        if not isinstance(model, ForwardModel):
            _check.fail_type("model", "a ForwardModel", model)
        if model.complex_images:
            _check.fail("model", "one of real images", model)
        torch.nn.Module.__init__(self)  # without a sigma of its own
        self.model, self.gain, self.background, self.floor = model, gain, background, floor

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "gain":
            value = float(_check.number("gain", value, "a finite number > 0", above=0))
        elif name == "background":
            value = float(_check.number("background", value, "a finite number >= 0", least=0))
        super().__setattr__(name, value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Versions before kept what is a property now.
        super().__setstate__({"_floor" if name == "floor" else name: state[name] for name in state})

    @property
    def sigma(self) -> float:
        """sqrt(gain)."""
        return self.gain**0.5

    @sigma.setter
    def sigma(self, value: Any) -> None:
        raise AttributeError(f"`sigma` of counts is sqrt(gain): set `gain`, got {_check.describe(value)}")

    @property
    def floor(self) -> float:
        """The given floor, or a thousandth of the gain."""
        return 1e-3 * self.gain if self._floor is None else self._floor

    @floor.setter
    def floor(self, value: float | None) -> None:
        if value is not None:
            value = float(_check.number("floor", value, "a finite number > 0", above=0))
        self._floor = value

    def forward(self, x: Tensor) -> Tensor:
        """A x, without the background."""
        return self.model(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.model.adjoint(y)

    def normal(self, x: Tensor) -> Tensor:
        return self.model.normal(x)

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """A^H (1 - y / m) / gain, with the shape and dtype of x."""
        return self.prepare(y).gradient(x)

    def prepare(self, y: Tensor) -> Prepared:
        return _PreparedPoisson(self, y)

    def likelihood(self, x: Tensor, y: Tensor) -> Tensor:
        """-log p(y | x) [N], without the terms that do not depend on x; at least float32.

        Example: where two were counted, a mean of two is likelier than one of one.
            >>> physics = amstel.inverse.Poisson(amstel.inverse.Denoising())
            >>> physics.likelihood(torch.tensor([[[[1.0]]], [[[2.0]]]]), torch.full((2, 1, 1, 1), 2.0))
            tensor([1.0000, 0.6137])
        """
        mean = self._mean(x)
        y = self._counts(check_like("y", y, mean))
        mean = wide(mean)
        return ((mean - y * mean.log()) / self.gain).flatten(1).sum(1)

    def measure(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Counts of an image x, in units of y: multiples of the gain.

        Example:
            >>> physics = amstel.inverse.Poisson(amstel.inverse.Denoising(), gain=0.25)
            >>> y = physics.measure(torch.ones(1, 1, 100, 100), torch.Generator().manual_seed(0))
            >>> bool((y % 0.25 == 0).all()), round(y.mean().item(), 1)
            (True, 1.0)
        """
        mean = self._mean(x).detach()
        return (torch.poisson(wide(mean) / self.gain, generator) * self.gain).to(mean.dtype)

    def _mean(self, x: Any) -> Tensor:
        return (self.model(x) + self.background).clamp_min(self.floor)

    def _counts(self, y: Tensor) -> Tensor:
        """y with 0 where nothing is measured."""
        y = self.model._measured(_check.dense("y", y, "counts, a tensor [N, ...]"))
        if not y.is_complex():
            _checks.look("counts", y, lambda y: y < 0)
        return y

    def _image_shape(self) -> tuple[int, ...]:
        return self.model._image_shape()

    def _measured(self, y: Tensor) -> Tensor:
        return self.model._measured(y)


class _PreparedPoisson(Prepared):
    """With counts that are looked at once."""

    model: Poisson

    def __init__(self, model: Poisson, y: Tensor):
        super().__init__(model, y)
        model._counts(y)

    def gradient(self, x: Tensor) -> Tensor:
        mean = self.model._mean(x)
        check_like("y", self.y, mean)
        return self.model.model.adjoint(1 - self.y / mean) / self.model.gain
