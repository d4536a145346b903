"""Tomography: the Radon transform of parallel rays, and its exact adjoint."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from amstel import _check
from amstel.inverse._checks import WIDE, check_images, check_shape
from amstel.inverse.model import ForwardModel, Normal, Prepared, Sigma

#: Interpolated values that are held at once, for each image and channel.
_AT_ONCE = 1 << 22


class Radon(ForwardModel):
    r"""A x = the sums of x along parallel rays, for every angle (the Radon transform; A^T y is the back-projection).

    .. code-block:: text

        (A x)(theta, s) = integral of x over the line  u cos(theta) + v sin(theta) = s

    u points right and v up from the center of the image, in pixels. The center is pixel (H // 2, W // 2), and that of the
    detectors is number `detectors` // 2. By Joseph's method, a ray takes one value from each row (or from each column if
    it is flatter than 45 degrees), interpolated linearly between two pixels; beyond the border, values are 0. The angles
    are those of scikit-image's `radon`, whose sinograms are [detectors, angles].

    Args:
        angles: in degrees, a sequence or a tensor [A] of finite numbers.
        image_shape: (H, W).
        sigma: of a sum; see `ForwardModel`.
        detectors: D, one pixel apart; default: enough to see the whole image at any angle.

    Shapes: x [N, C, H, W], y [N, C, A, D], float64 or float32.

    Complexity: A max(H, W) D interpolations, of which 4 million are in memory at a time; nothing is stored.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Source: P. Joseph, An Improved Algorithm for Reprojecting Rays through Pixel Images, IEEE TMI 1, 1982.

    Example:
        >>> physics = amstel.inverse.Radon(range(0, 180, 3), (32, 48), sigma=0.1)
        >>> y = physics(torch.ones(1, 1, 32, 48))
        >>> y.shape, y[0, 0, 0, 29].item()
        (torch.Size([1, 1, 60, 58]), 32.0)
    """

    exact = ("angles",)
    angles: Tensor

    def __init__(
        self,
        angles: Sequence[float] | Tensor,
        image_shape: Sequence[int],
        sigma: Sigma = 1.0,
        *,
        detectors: int | None = None,
    ):
        super().__init__(sigma)
        expected = "degrees, finite numbers [A]"
        if not isinstance(angles, Tensor):
            try:
                given = [float(_check.number("angles", a, expected)) for a in angles]
                angles = torch.tensor(given, dtype=torch.float64)
            except TypeError:
                _check.fail_type("angles", expected, angles)
        _check.dense("angles", angles, expected)
        if angles.dim() != 1 or not angles.numel() or angles.is_complex() or angles.dtype == torch.bool:
            _check.fail("angles", expected, angles)
        _check.unbatched(angles=angles)  # which of them are steep decides what is computed
        if not angles.is_meta and not angles.isfinite().all():
            _check.fail("angles", expected, angles)
        self.image_shape = check_shape(image_shape)
        self.detectors = (
            math.ceil(math.hypot(*self.image_shape))
            if detectors is None
            else _check.integer("detectors", detectors, 1)
        )
        # Half of a pixel more is another ray.
        self.register_buffer("angles", angles.detach().double(), persistent=False)
        radians = torch.deg2rad(self.angles)
        steep = radians.cos().abs() >= radians.sin().abs() - 1e-12
        #: Which angles go through the rows, and which through the columns.
        self._steep = [i for i, s in enumerate(steep.tolist()) if s]
        self._flat = [i for i, s in enumerate(steep.tolist()) if not s]

    def forward(self, x: Tensor) -> Tensor:
        check_images("x", x, WIDE)
        self._check_device(x)
        if tuple(x.shape[2:]) != self.image_shape:
            _check.fail("x", f"[N, C, {self.image_shape[0]}, {self.image_shape[1]}]", x)
        found = []
        for chosen, swap in ((self._steep, False), (self._flat, True)):
            # A pixel of nothing on both sides, where a ray enters and leaves.
            rows = torch.nn.functional.pad(x.transpose(2, 3) if swap else x, (1, 1)).flatten(0, 1)[:, None]
            for first, share, length in self._rays(chosen, swap, x):
                given = rows.expand(-1, len(first), -1, -1)
                at = first.expand(rows.shape[0], *first.shape)
                values = torch.lerp(given.gather(3, at), given.gather(3, at + 1), share[None])
                found.append((values.sum(2) * length[:, None]).movedim(0, 1))
        order = torch.tensor(self._steep + self._flat, device=x.device).argsort()
        return torch.cat(found)[order].movedim(0, 1).unflatten(0, x.shape[:2])

    def adjoint(self, y: Tensor) -> Tensor:
        expected = f"float64 or float32 [N, C, {len(self.angles)}, {self.detectors}]"
        _check.dense("y", y, expected)
        if y.dim() != 4 or y.dtype not in WIDE or tuple(y.shape[2:]) != (len(self.angles), self.detectors):
            _check.fail("y", expected, y)
        self._check_device(y)
        height, width = self.image_shape
        flat, total = y.flatten(0, 1), y.new_zeros(*y.shape[:2], height, width)
        for chosen, swap in ((self._steep, False), (self._flat, True)):
            if not chosen:
                continue
            size = (width, height + 2) if swap else (height, width + 2)
            rows, at = flat.new_zeros(flat.shape[0], *size), 0
            for first, share, length in self._rays(chosen, swap, y):
                part = flat[:, chosen[at : at + len(first)]] * length[:, None]
                at += len(first)
                for k, weight in ((0, 1 - share), (1, share)):
                    # [N C, rows, angles and detectors]: each row gathers what crosses it.
                    values = (part[:, :, None] * weight).movedim(1, 2).flatten(2)
                    places = (first + k).movedim(0, 1).flatten(1).expand(values.shape)
                    rows = rows.scatter_add(2, places, values)
            image = rows[..., 1:-1].unflatten(0, y.shape[:2])
            total = total + (image.transpose(2, 3) if swap else image)
        return total

    def prepare(self, y: Tensor) -> Prepared:
        return Normal(self, y)

    def _rays(self, chosen: list[int], swap: bool, like: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Of some angles at a time: the first of two pixels [angles, rows, D], the share of the second, the length in a row."""
        height, width = self.image_shape[::-1] if swap else self.image_shape
        rows = torch.arange(height, device=like.device, dtype=torch.float64) - height // 2
        s = torch.arange(self.detectors, device=like.device, dtype=torch.float64) - self.detectors // 2
        step = max(1, _AT_ONCE // (height * self.detectors))
        for begin in range(0, len(chosen), step):
            radians = torch.deg2rad(-self.angles[chosen[begin : begin + step]])[:, None, None]
            across, along = (radians.sin(), radians.cos()) if swap else (radians.cos(), radians.sin())
            # Pixel 0 is 1 in the padded row.
            place = ((s - rows[:, None] * along) / across + (width // 2 + 1)).clamp(0, width + 1)
            first = place.floor().clamp_max(width)
            yield first.long(), (place - first).to(like.dtype), (1 / across.abs())[:, 0, 0].to(like.dtype)

    def _image_shape(self) -> tuple[int, ...]:
        return self._batch(), 1, *self.image_shape
