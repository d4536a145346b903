"""Random projections without a stored matrix: random signs, a Walsh-Hadamard transform, and a random choice of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from amstel import _check
from amstel._derived import plainly
from amstel.inverse._checks import check_images, check_shape
from amstel.inverse.model import ForwardModel, Normal, Prepared, Sigma


class StructuredProjection(ForwardModel):
    r"""A x = sqrt(m / P) S H D x: a random projection that is determined by a seed.

    .. code-block:: text

        D   random signs of the pixels of x, which is flattened and padded with zeros to length m = 2^k
        H   the orthonormal Walsh-Hadamard transform of m numbers
        S   P of its rows, drawn without replacement, in random order

    For the recovery of natural and sparse images, the rows are as good as independent ones (as in `RandomProjection`).
    A A^H = m / P if there are no zeros, that is, if C H W = m.

    Args:
        image_shape: (C, H, W).
        count: P, from 1 to m.
        sigma: see `ForwardModel`.
        seed: seed of the signs and rows, which are the same on every device.

    Shapes: x [N, C, H, W], y [N, P], float64, float32, bfloat16 or float16.

    Complexity: m log2(m) additions; 9 m bytes, where a matrix would take 4 P C H W.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Source: N. Ailon, B. Chazelle, The Fast Johnson-Lindenstrauss Transform, SIAM J. Computing 39, 2009; T. Do, L. Gan,
    N. Nguyen, T. Tran, Fast and Efficient Compressive Sensing Using Structurally Random Matrices, IEEE TSP 60, 2012.

    Example:
        >>> physics = amstel.inverse.StructuredProjection((1, 32, 32), 400, sigma=0.05)
        >>> physics(torch.rand(8, 1, 32, 32)).shape
        torch.Size([8, 400])
    """

    signs: Tensor
    rows: Tensor

    def __init__(self, image_shape: Sequence[int], count: int, sigma: Sigma = 1.0, *, seed: int = 0):
        super().__init__(sigma)
        self.image_shape = check_shape(image_shape, "C, H, W")
        pixels = math.prod(self.image_shape)
        self.size = 1 << (pixels - 1).bit_length()
        self.count = _check.integer("count", count, 1)
        if self.count > self.size:
            _check.fail("count", f"at most {self.size}", count)
        generator = torch.Generator().manual_seed(_check.integer("seed", seed, 0))

        def drawn() -> tuple[Tensor, Tensor]:
            signs = torch.randint(0, 2, (pixels,), generator=generator) * 2 - 1
            return signs.to(torch.int8), torch.randperm(self.size, generator=generator)[: self.count]

        signs, rows = plainly(drawn)  # by the seed alone, whatever torch.vmap does to random numbers
        self.register_buffer("signs", signs, persistent=False)
        self.register_buffer("rows", rows, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        check_images("x", x)
        self._check_device(x)
        if tuple(x.shape[1:]) != self.image_shape:
            _check.fail("x", f"[N, {', '.join(map(str, self.image_shape))}]", x)
        flat = torch.nn.functional.pad(x.flatten(1) * self.signs, (0, self.size - self.signs.numel()))
        return _hadamard(flat).index_select(1, self.rows) * (self.size / self.count) ** 0.5

    def adjoint(self, y: Tensor) -> Tensor:
        expected = f"a floating-point tensor [N, {self.count}]"
        _check.dense("y", y, expected)
        if y.dim() != 2 or y.shape[1] != self.count or y.dtype not in _check.FLOATS:
            _check.fail("y", expected, y)
        self._check_device(y)
        # Every row has one place, so that this adds nothing up.
        flat = y.new_zeros(y.shape[0], self.size).index_copy(1, self.rows, y)
        found = _hadamard(flat)[:, : self.signs.numel()] * self.signs
        return found.reshape(-1, *self.image_shape) * (self.size / self.count) ** 0.5

    def prepare(self, y: Tensor) -> Prepared:
        return Normal(self, y)

    def _image_shape(self) -> tuple[int, ...]:
        return self._batch(), *self.image_shape


def _hadamard(x: Any) -> Tensor:
    """The orthonormal Walsh-Hadamard transform of [N, 2^k], its own inverse."""
    n, size = x.shape
    step = 1
    while step < size:
        pairs = x.reshape(n, size // (2 * step), 2, step)
        x = torch.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], 2).reshape(
            n, size
        )
        step *= 2
    return x * size**-0.5
