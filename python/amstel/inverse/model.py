"""Common to all forward models: the gradient of the log-likelihood, the network's input, the test of the adjoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from amstel import _check, _checks, ops
from amstel._torch import wide
from amstel.inverse._checks import WIDE, check_like
from amstel.reference.rim import as_complex, precision, psi

Sigma = float | Tensor


class ForwardModel(nn.Module, ABC):
    r"""A linear model y = A x + n with Gaussian noise of standard deviation sigma.

    A subclass defines `forward` and `adjoint`, and sets `complex_images = True` if images are complex [N, H, W]
    instead of real [N, C, H, W]; the rest follows:

    .. code-block:: text

        forward(x)     = A x                      normal(x)      = A^H A x
        adjoint(y)     = A^H y                    gradient(x, y) = A^H (A x - y) / sigma^2

    The gradient is that of -log p(y | x) = |A x - y|^2 / (2 sigma^2), with respect to the real and imaginary parts if
    images are complex. `prepare(y)` computes the same gradient faster for many x, and `adjointness_test()` measures how
    far `adjoint` is from the true adjoint.

    Args:
        sigma: a finite number > 0, or a tensor [N] with one per image; if measurements are pixels (`Denoising`,
            `Inpainting`), also a map [N, 1, H, W] (N may be 1) with one per pixel.

    Masks, kernels and the like are buffers, so `.to(device)` moves them. They are used in the dtype of the images,
    must not be changed in place, and are not part of the state_dict. Images and measurements are float64 or float32,
    or bfloat16 or float16 if torch can compute A in these; for MRI, complex128 or complex64. Under autocast, the models
    here compute in the dtype of the images.

    Everything is differentiable, any number of times, in x, y, kernel, matrix and sensitivities (not in sigma and
    masks), and works under `torch.compile(fullgraph=True)`. Values of masks and sigma are checked once, when they are
    given; nothing else waits for a CUDA device. A compiled program that constructs a model checks them on the CPU only,
    and raises a RuntimeError.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Source: P. Putzky and M. Welling, Recurrent Inference Machines for Solving Inverse Problems, arXiv:1706.04008,
    equation 1.

    Example: a scanner that sees the sum of each row.
        >>> class RowSums(amstel.inverse.ForwardModel):
        ...     def __init__(self, width, sigma):
        ...         super().__init__(sigma)
        ...         self.width = width
        ...     def forward(self, x):
        ...         return x.sum(3)
        ...     def adjoint(self, y):
        ...         return y[..., None].expand(-1, -1, -1, self.width)
        >>> physics = RowSums(16, sigma=0.1)
        >>> physics.adjointness_test() < 1e-12
        True
        >>> x = torch.rand(2, 1, 16, 16)
        >>> physics.prepare(physics(x)).gradient(torch.zeros_like(x)).shape
        torch.Size([2, 1, 16, 16])
    """

    #: Images are complex [N, H, W]; a network sees them as real [N, 2, H, W].
    complex_images = False
    #: A^H A is diagonal, so that sigma may differ from pixel to pixel.
    pixelwise = False
    #: Buffers that keep their dtype when a model is sent `.to` another: places, which would be other ones.
    exact: tuple[str, ...] = ()
    sigma: Sigma

    def __init__(self, sigma: Sigma = 1.0):
        super().__init__()
        if isinstance(sigma, Tensor):
            self._check_sigma(sigma)
            self.register_buffer("sigma", sigma.detach(), persistent=False)
        else:
            self.sigma = sigma

    def __setattr__(self, name: str, value: Any) -> None:
        # Of a model that has another one's it is a property.
        if name == "sigma" and not isinstance(getattr(type(self), name, None), property):
            value = self._check_sigma(value)
        super().__setattr__(name, value)

    def _check_sigma(self, sigma: Any) -> Sigma:
        expected = "a finite number > 0, or a floating-point tensor [N] of such"
        if not isinstance(sigma, Tensor):
            return float(_check.number("sigma", sigma, expected, above=0))
        sizes: tuple[int, ...] = (0, 1)
        if self.pixelwise:
            sizes, expected = (0, 1, 4), f"{expected}, or [N, 1, H, W]"
        fits = sigma.dim() in sizes and (sigma.dim() < 4 or (sigma.shape[1] == 1 and 0 not in sigma.shape))
        if not fits or not sigma.is_floating_point():
            _check.fail("sigma", expected, sigma)
        whole = sigma.dim() < 4
        _checks.require(
            sigma,
            lambda sigma: (sigma > 0) & sigma.isfinite(),
            f"`sigma` must be {expected}",
            lambda sigma: _check.fail("sigma", expected, sigma.tolist() if whole else sigma),
        )
        return sigma

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ForwardModel:
        before = {name: t for name in ("sigma", *self.exact) if (t := self._buffers.get(name)) is not None}
        super()._apply(fn, recurse)
        for name, old in before.items():
            new = getattr(self, name)
            if new.dtype != old.dtype and (name in self.exact or new.is_complex()):
                self._buffers[name] = old.to(new.device)
        return self

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """A x."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """A^H y."""

    def normal(self, x: Tensor) -> Tensor:
        """A^H A x."""
        return self.adjoint(self(x))

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """A^H (A x - y) / sigma^2, with the shape and dtype of x."""
        prediction = self(x)
        back = self.adjoint(prediction - check_like("y", y, prediction))
        return (back * self._precision(x)).to(back.dtype)

    def prepare(self, y: Tensor) -> Prepared:
        """The gradient for fixed measurements and many x: what depends only on y is computed once."""
        return Prepared(self, y)

    def adjointness_test(self, x: Tensor | None = None, seed: int = 0) -> float:
        """How far `adjoint` is from the adjoint of `forward`: |<A x, y> - <x, A^H y>| / (|A x| |y|).

        x and y are random and normally distributed. If `adjoint` is right, the result is about the rounding error of
        the dtype; if not, about 1 / sqrt(size).

        Args:
            x: an image whose shape, dtype and device are used. None: float64, of a size that the model accepts; for
                subclasses that do not define `_image_shape` this is [1, 1, 16, 16], or complex [1, 16, 16].
            seed: seed of the random numbers, which are the same on every device.
        """
        if x is None:
            device = next((t.device for t in (*self.buffers(), *self.parameters())), None)
            dtype = torch.complex128 if self.complex_images else torch.float64
            x = torch.empty(self._image_shape(), dtype=dtype, device=device)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            x = _normal_like(_check.dense("x", x, "an image"), generator)
            ax = self(x)
            y = _normal_like(ax, generator)
            left, right = _inner(ax, y), _inner(x, self.adjoint(y))
            size = _inner(ax, ax).real.sqrt() * _inner(y, y).real.sqrt()
        difference = left - right
        # Where x is real, A^H is the real part of what a complex y comes to.
        error = (difference if x.is_complex() else difference.real).abs()
        return float(error / size.clamp(min=torch.finfo(torch.float64).tiny))

    def _measured(self, y: Tensor) -> Tensor:
        """y with 0 where nothing is measured, whatever it holds there."""
        return y

    def extra_repr(self) -> str:
        named = [(name, f"[{', '.join(map(str, t.shape))}]") for name, t in self.named_buffers(recurse=False)]
        named += [(name, str(value)) for name, value in vars(self).items() if isinstance(value, (int, float))]
        return ", ".join(f"{name}={value}" for name, value in named if name[0] != "_" and name != "training")

    def _image_shape(self) -> tuple[int, ...]:
        """Of an image that the model takes."""
        return (self._batch(), 16, 16) if self.complex_images else (self._batch(), 1, 16, 16)

    def _batch(self) -> int:
        """How many images sigma is for."""
        sigma = self.sigma
        return 1 if not isinstance(sigma, Tensor) else len(sigma) if sigma.dim() == 4 else sigma.numel()

    def _sigma(self, images: Tensor) -> Sigma:
        """A number, or [N], or a map [N or 1, 1, H, W]."""
        sigma, n = self.sigma, images.shape[0]
        if not isinstance(sigma, Tensor):
            return sigma
        if sigma.dim() == 4:
            if sigma.shape[0] not in (1, n) or sigma.shape[2:] != images.shape[2:]:
                _check.fail(
                    "sigma", f"[{n}, 1, {', '.join(map(str, images.shape[2:]))}] as the images", sigma
                )
            return sigma
        if sigma.numel() not in (1, n):
            _check.fail("sigma", f"a number or [{n}], one per image", sigma)
        return sigma.reshape(-1).expand(n)

    def _precision(self, images: Tensor) -> Sigma:
        """1 / sigma^2, to be multiplied with images; a tensor is at least float32."""
        sigma = self._sigma(images)
        if isinstance(sigma, Tensor) and sigma.dim() == 4:
            return wide(sigma.to(images)).square().reciprocal()
        return precision(sigma, images.real)

    def _mapped(self) -> bool:
        """Whether sigma is a map, which the fused operators do not take."""
        return isinstance(self.sigma, Tensor) and self.sigma.dim() == 4

    def _check_device(self, given: Tensor) -> None:
        for name, buffer in self.named_buffers(recurse=False):
            if buffer.device != given.device:
                _check.fail(name, f"on {given.device} as the images are (`.to` moves a model)", buffer)


class Prepared:
    """The gradient of a forward model at fixed measurements; from `ForwardModel.prepare`.

    `RIM` calls `network_input` in every step.

    Attributes:
        model, y: the forward model and the measurements.

    Example:
        >>> y = torch.zeros(1, 1, 1, 2)
        >>> prepared = amstel.inverse.Denoising(sigma=0.5).prepare(y)
        >>> prepared.gradient(torch.ones_like(y))  # (x - y) / sigma²
        tensor([[[[4., 4.]]]])
        >>> prepared.network_input(torch.ones_like(y))[0, :, 0, 0]  # the estimate and its gradient
        tensor([1., 4.])
    """

    def __init__(self, model: ForwardModel, y: Tensor):
        self.model, self.y = model, y

    def gradient(self, x: Tensor) -> Tensor:
        """A^H (A x - y) / sigma^2."""
        return self.model.gradient(x, self.y)

    def network_input(self, eta: Tensor, link: str = "identity") -> Tensor:
        """[eta, the gradient with respect to eta at x = Psi(eta)], [N, 2C, H, W] in channels_last.

        The dtype is that of eta, or that of autocast if it is on (the gradient is first computed in the dtype of eta).

        Args:
            eta: [N, C, H, W]; for complex images [N, 2, H, W], real and imaginary part. In channels_last, this has the
                memory layout of a complex [N, H, W], and nothing is copied.
            link: Psi, "identity" or "logistic" (the sigmoid; of both parts for complex images).
        """
        _check.choice("link", link, ("identity", "logistic"))
        if not self.model.complex_images:
            return ops.rim_input(eta, self.gradient(psi(eta, link)), link=link)
        found = self.gradient(_to_complex(psi(eta, link))).resolve_conj()
        gradient = torch.view_as_real(found).permute(0, 3, 1, 2)
        return ops.rim_input(eta, gradient, link=link)


class Fused(Prepared):
    """With an operator that goes over the image once for the network's input."""

    def __init__(self, model: ForwardModel, y: Tensor, operator: Callable[[Tensor, str], Tensor]):
        super().__init__(model, y)
        self.operator = operator

    def network_input(self, eta: Tensor, link: str = "identity") -> Tensor:
        return self.operator(eta, link)


class Normal(Prepared):
    """(A^H A x - A^H y) / sigma^2, where A^H A is less work than A and then A^H."""

    def __init__(self, model: ForwardModel, y: Tensor):
        super().__init__(model, y)
        self.adjoint_y = model.adjoint(y)
        self.precision = model._precision(self.adjoint_y)

    def gradient(self, x: Tensor) -> Tensor:
        rest = self.model.normal(check_like("x", x, self.adjoint_y)) - self.adjoint_y
        return (rest * self.precision).to(rest.dtype)


def _to_complex(eta: Tensor) -> Tensor:
    """[N, 2, H, W] as complex [N, H, W], without a copy from channels_last."""
    expected = "float32 or float64 [N, 2, H, W], real and imaginary part"
    _check.dense("eta", eta, expected)
    if eta.dim() != 4 or eta.shape[1] != 2 or eta.dtype not in WIDE:
        _check.fail("eta", expected, eta)
    return as_complex(eta)


def _normal_like(like: Tensor, generator: torch.Generator) -> Tensor:
    dtype = torch.complex128 if like.is_complex() else torch.float64
    return torch.randn(like.shape, dtype=dtype, generator=generator).to(like)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """<a, b>, conjugate in a, in double precision."""
    wide = torch.complex128
    return torch.vdot(a.reshape(-1).to(wide), b.reshape(-1).to(wide))
