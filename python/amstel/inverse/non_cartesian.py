"""Magnetic resonance imaging along any trajectory, such as spirals and spokes, with the transforms of torchkbnufft."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NoReturn
from unittest import mock

import torch
from torch import Tensor

from amstel import _check, _checks
from amstel._derived import plainly
from amstel._optional import need
from amstel._words import counted
from amstel.inverse._checks import COMPLEX, check_shape
from amstel.inverse.model import ForwardModel, Normal, Prepared, Sigma
from amstel.ops._raw import forward_mode


class NonCartesianMRI(ForwardModel):
    r"""A x = F (S_c x) for every coil c, with F the Fourier transform at any points of k-space.

    .. code-block:: text

        (F x)_k = sum over r of x(r) exp(-i w_k r) / sqrt(H W)      r from the middle of the image, H // 2, W // 2

    For the points of the grid, w = 2 pi (n - N // 2) / N, this is the centered orthonormal transform of `MRI`. It is
    interpolated from a grid of twice the size (Kaiser-Bessel, 6 points) and accurate to about 0.001; the adjoint is exact
    up to rounding.

    Args:
        trajectory: w, real [2, K], radians per pixel from -pi to pi, along rows (dimension H) and along columns.
        image_shape: (H, W), at least 3 each.
        sensitivities: S, complex [coils, H, W] or [N, coils, H, W] (N may be 1); None: one coil, S = 1.
        sigma: of the real and of the imaginary part; see `ForwardModel`.

    Shapes: x complex [N, H, W], y complex [N, coils, K], complex128 or complex64.

    Complexity: 2 coils transforms of 2H x 2W and 72 coils K multiplications per gradient.

    Raises:
        ValueError or TypeError: an argument is not as described.
        ImportError: torchkbnufft (extra [nufft]) is missing.

    Source: M. Muckley et al., TorchKbNufft: A High-Level, Hardware-Agnostic Non-Uniform Fast Fourier Transform, ISMRM Workshop
    on Data Sampling and Image Reconstruction, 2020; J. Fessler, B. Sutton, IEEE TSP 51, 2003.

    Example: 34 spokes of an image of 32x32.
        >>> angle, radius = torch.arange(34) * torch.pi / 34, torch.linspace(-torch.pi, torch.pi, 64)
        >>> spokes = torch.stack([torch.outer(angle.sin(), radius), torch.outer(angle.cos(), radius)]).flatten(1)
        >>> physics = amstel.inverse.NonCartesianMRI(spokes, (32, 32), sigma=0.01)
        >>> physics(torch.ones(1, 32, 32, dtype=torch.complex64)).shape
        torch.Size([1, 1, 2176])
    """

    complex_images = True
    exact = ("trajectory",)
    trajectory: Tensor
    sensitivities: Tensor | None

    def __init__(
        self,
        trajectory: Tensor,
        image_shape: Sequence[int],
        sensitivities: Tensor | None = None,
        sigma: Sigma = 1.0,
    ):
        super().__init__(sigma)
        _library()
        expected = "real [2, K], radians per pixel from -pi to pi"
        _check.dense("trajectory", trajectory, expected)
        if trajectory.dim() != 2 or trajectory.shape[0] != 2 or not trajectory.is_floating_point():
            _check.fail("trajectory", expected, trajectory)

        def fail(trajectory: Tensor) -> NoReturn:
            raise ValueError(f"`trajectory` must be {expected}, got up to {trajectory.abs().max():g}")

        must = f"`trajectory` must be {expected}"
        _checks.require(trajectory, lambda at: at.abs() <= math.pi * (1 + 1e-6), must, fail)
        self.image_shape = check_shape(image_shape)
        if min(self.image_shape) < 3:  # fewer are less than the library's interpolation reaches over
            _check.fail("image_shape", "two integers (H, W) >= 3", image_shape)
        if sensitivities is not None:
            h, w = self.image_shape
            expected = f"complex64 or complex128 [coils, {h}, {w}] or [N, coils, {h}, {w}]"
            _check.dense("sensitivities", sensitivities, expected)
            fits = sensitivities.dim() in (3, 4) and tuple(sensitivities.shape[-2:]) == (h, w)
            if not fits or sensitivities.dtype not in COMPLEX:
                _check.fail("sensitivities", expected, sensitivities)
        self.register_buffer("trajectory", trajectory.detach().double(), persistent=False)
        self.register_buffer("sensitivities", sensitivities, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        maps = self._maps("x", x)
        images = x[:, None] if maps is None else maps * x[:, None]
        return self._transform(images, False)

    def adjoint(self, y: Tensor) -> Tensor:
        maps = self._maps("y", y)
        images = self._transform(y, True)
        images = images if maps is None else maps.conj() * images
        return images.sum(1)

    def prepare(self, y: Tensor) -> Prepared:
        return Normal(self, y)

    def _transform(self, given: Tensor, adjoint: bool) -> Tensor:
        points = self.trajectory.to(given.real.dtype)
        return _transform(given, points, *self.image_shape, adjoint) / math.sqrt(math.prod(self.image_shape))

    def _maps(self, name: str, given: Any) -> Tensor | None:
        """The sensitivities in the dtype of `given`, which is checked."""
        maps, (h, w) = self.sensitivities, self.image_shape
        coils = 1 if maps is None else maps.shape[-3]
        shape = (h, w) if name == "x" else (coils, self.trajectory.shape[1])
        expected = f"complex64 or complex128 [N, {', '.join(map(str, shape))}]"
        _check.dense(name, given, expected)
        if given.dtype not in COMPLEX or tuple(given.shape[1:]) != shape:
            _check.fail(name, expected, given)
        self._check_device(given)
        if maps is None:
            return None
        if not maps.is_complex():
            _check.fail("sensitivities", "complex (was the model sent `.to` a real dtype?)", maps)
        if maps.dim() == 4 and maps.shape[0] not in (1, given.shape[0]):
            _check.fail("sensitivities", f"of 1 or {counted(given.shape[0], 'image')}, as `{name}`", maps)
        return maps.to(given.dtype)

    def _image_shape(self) -> tuple[int, ...]:
        maps = self.sensitivities
        batch = maps.shape[0] if maps is not None and maps.dim() == 4 else 1
        return max(batch, self._batch()), *self.image_shape


@lru_cache(8)
def _made(adjoint: bool, size: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Any:
    """A transform of torchkbnufft with its tables."""
    kind = _library().KbNufftAdjoint if adjoint else _library().KbNufft
    return plainly(lambda: kind(size, dtype=dtype, device=device))  # for every later call


# torchkbnufft is of TorchScript and functions that torch.func and Dynamo do not take: an operator is one for all of them.
@torch.library.custom_op("amstel::nufft", mutates_args=())
def _nufft(given: Tensor, points: Tensor, height: int, width: int, adjoint: bool) -> Tensor:
    """Of images [N, C, H, W], or the adjoint of samples [N, C, K], at points [2, K] or [N, 2, K]."""
    transform = _made(adjoint, (height, width), given.dtype, given.device)
    given = given.resolve_conj()
    # Compiled programs leave the key out by which a conjugate is one, of which the library makes use.
    keys, left = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()
    with torch.no_grad(), torch._C._ForceDispatchKeyGuard(keys, left.remove(torch._C.DispatchKey.Conjugate)):
        return transform(given, points).resolve_conj()


@_nufft.register_fake
def _(given: Tensor, points: Tensor, height: int, width: int, adjoint: bool) -> Tensor:
    return given.new_empty(*given.shape[:2], *((height, width) if adjoint else points.shape[-1:]))


@_nufft.register_vmap
def _(
    info: Any, in_dims: tuple, given: Tensor, points: Tensor, height: int, width: int, adjoint: bool
) -> tuple[Tensor, int]:
    many, of_given, of_points = info.batch_size, *in_dims[:2]
    given = given.expand(many, *given.shape) if of_given is None else given.movedim(of_given, 0)
    images = given.shape[1]
    if of_points is not None or points.dim() == 3:  # other points for every image
        points = points.expand(many, *points.shape) if of_points is None else points.movedim(of_points, 0)
        points = points if points.dim() == 4 else points[:, None].expand(-1, images, -1, -1)
        points = points.flatten(0, 1)
    found = _nufft(given.flatten(0, 1), points, height, width, adjoint)
    return found.unflatten(0, (many, images)), 0


class _Transform(torch.autograd.Function):
    """Linear, and the adjoint is its gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(given: Tensor, points: Tensor, height: int, width: int, adjoint: bool) -> Tensor:
        return _nufft(given, points, height, width, adjoint)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, points, *how = inputs
        ctx.save_for_backward(points)
        ctx.save_for_forward(points)
        ctx.how = tuple(how)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        height, width, adjoint = ctx.how
        return _transform(grad, *ctx.saved_tensors, height, width, not adjoint), *(None,) * 4


_transform: Callable[..., Any] = forward_mode(
    _Transform, lambda ctx, t, *_: _transform(t, *ctx.saved_tensors, *ctx.how)
)


def _library() -> Any:
    """torchkbnufft, which compiles TorchScript when it is imported."""
    # PyG puts a Python function in place of torch.index_select, which TorchScript cannot compile.
    plain = getattr(sys.modules.get("torch_geometric.hash_tensor"), "_old_index_select", torch.index_select)
    with warnings.catch_warnings(), mock.patch.object(torch, "index_select", plain):
        warnings.simplefilter("ignore", FutureWarning)  # of torch, about TorchScript
        return need("torchkbnufft", extra="nufft", purpose="amstel.inverse.NonCartesianMRI")
