"""Magnetic resonance imaging, with one coil or several."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from amstel import _check, _checks, ops
from amstel.inverse._checks import COMPLEX, check_binary, check_like, columns, names
from amstel.inverse.model import ForwardModel, Normal, Prepared, Sigma
from amstel.reference.mri import mri_adjoint, mri_forward


class MRI(ForwardModel):
    r"""A x = mask F (S_c x) for every coil c, with F the orthonormal 2-D Fourier transform.

    Args:
        mask: what is sampled: columns [W] (or [1, W, 1] and the like, as in fastMRI), points [H, W], or points of each
            image [N, 1, H, W] (N may be 1); bool, or numbers that are 0 or 1.
        sensitivities: S, complex [coils, H, W] or [N, coils, H, W] (N may be 1); None: one coil, S = 1.
        sigma: of the real and of the imaginary part; see `ForwardModel`.
        centered: whether both origins are in the middle, at H // 2, W // 2, as in most files:
            F x = fftshift(fft2(ifftshift(x))). The mask is then centered too.

    Shapes: x complex [N, H, W], y complex [N, coils, H, W], complex128 or complex64. Values of y where nothing is
    sampled are ignored. A network sees real and imaginary part, [N, 2, H, W].

    Complexity: 2 coils 2-D transforms per gradient, or 1-D transforms if `prepare` finds that all rows of the mask are
    equal. Centering costs nothing: with the origin of the mask at 0 the shifts cancel, for odd sizes too.

    Source: K. Pruessmann et al., SENSE: Sensitivity Encoding for Fast MRI, Magnetic Resonance in Medicine 42, 1999;
    RIM: K. Lønning et al., Recurrent Inference Machines for Reconstructing Heterogeneous MRI Data, Medical Image
    Analysis 53, 2019.

    Example:
        >>> physics = amstel.inverse.MRI(torch.arange(16) % 4 == 0, torch.randn(3, 12, 16, dtype=torch.complex64))
        >>> y = physics(torch.randn(2, 12, 16, dtype=torch.complex64))
        >>> y.shape, physics.adjoint(y).shape
        (torch.Size([2, 3, 12, 16]), torch.Size([2, 12, 16]))
    """

    complex_images = True
    mask: Tensor
    sensitivities: Tensor | None
    _normal_mask: Tensor

    def __init__(
        self,
        mask: Tensor,
        sensitivities: Tensor | None = None,
        sigma: Sigma = 1.0,
        centered: bool = False,
    ):
        super().__init__(sigma)
        expected = "[W], [H, W] or [N, 1, H, W] of 0 and 1"
        mask = check_binary("mask", mask, expected)
        known = isinstance(sensitivities, Tensor) and sensitivities.dim() > 0
        mask = columns(mask, sensitivities.shape[-1] if known else None)  # type: ignore[union-attr]
        if mask.dim() not in (1, 2, 4) or (mask.dim() == 4 and mask.shape[1] != 1):
            _check.fail("mask", expected, mask)
        if mask.dim() == 4 and mask.shape[0] == 1:
            mask = mask[0, 0]
        if sensitivities is not None:
            expected = "complex64 or complex128 [coils, H, W] or [N, coils, H, W]"
            _check.dense("sensitivities", sensitivities, expected)
            if sensitivities.dim() not in (3, 4) or sensitivities.dtype not in COMPLEX:
                _check.fail("sensitivities", expected, sensitivities)
            if mask.shape[-2:] != sensitivities.shape[-2:] and mask.shape != sensitivities.shape[-1:]:
                h, w = sensitivities.shape[-2:]
                _check.fail("mask", f"[{w}], [{h}, {w}] or [N, 1, {h}, {w}] as the sensitivities", mask)
            if sensitivities.dim() == 4 and sensitivities.shape[0] == 1:
                sensitivities = sensitivities[0]
        self.centered = bool(centered)
        self.register_buffer("mask", mask, persistent=False)
        self.register_buffer("sensitivities", sensitivities, persistent=False)
        # F^H M F of centered transforms is that of plain ones with the origin of the mask at index 0.
        normal = torch.fft.ifftshift(mask, dim=tuple(range(-min(2, mask.dim()), 0))) if centered else mask
        if mask.dim() == 2 and not _checks.hidden(mask) and bool((normal == normal[:1]).all()):
            normal = normal[0]
        self.register_buffer("_normal_mask", normal, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return mri_forward(x, self.mask, self._maps("x", x), centered=self.centered)

    def adjoint(self, y: Tensor) -> Tensor:
        return mri_adjoint(y, self.mask, self._maps("y", y), centered=self.centered)

    def normal(self, x: Tensor) -> Tensor:
        return ops.mri_normal(x, self._mask(x), self._maps("x", x))

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """A^H (A x - y) / sigma^2, by `amstel.ops.mri_gradient`."""
        maps = self._maps("x", x)
        self._maps("y", y)
        if x.dtype != y.dtype or x.shape[0] != y.shape[0] or x.shape[1:] != y.shape[2:]:
            n, h, w = x.shape
            _check.fail("y", f"{names(x.dtype)} [{n}, coils, {h}, {w}] as `x`", y)
        mask = self.mask.to(x.real.dtype)
        return ops.mri_gradient(x, y, mask, maps, self._sigma(x), centered=self.centered)

    def prepare(self, y: Tensor) -> Prepared:
        return _PreparedMRI(self, y)

    def _mask(self, images: Tensor) -> Tensor:
        """For the plain transforms of A^H A."""
        return self._normal_mask.to(images.real.dtype)

    def _maps(self, name: str, given: Any) -> Tensor | None:
        """The sensitivities in the dtype of `given`, images `x` or measurements `y`, which are checked."""
        shape = "[N, H, W]" if name == "x" else "[N, coils, H, W]"
        expected = f"complex64 or complex128 {shape}"
        _check.dense(name, given, expected)
        if given.dim() != (3 if name == "x" else 4) or given.dtype not in COMPLEX or 0 in given.shape[1:]:
            _check.fail(name, expected, given)
        self._check_device(given)
        n, (h, w) = given.shape[0], given.shape[-2:]
        mask, maps = self.mask, self.sensitivities
        if mask.shape not in ((w,), (h, w), (n, 1, h, w)):
            _check.fail("mask", f"[{w}], [{h}, {w}] or [{n}, 1, {h}, {w}] as `{name}`", mask)
        coils = 1 if maps is None else maps.shape[-3]
        if name == "y" and given.shape[1] != coils:
            _check.fail("y", f"[N, {coils}, H, W], one k-space per coil", given)
        if maps is None:
            return None
        if not maps.is_complex():
            _check.fail("sensitivities", "complex (was the model sent `.to` a real dtype?)", maps)
        if tuple(maps.shape) not in ((coils, h, w), (n, coils, h, w)):
            expected = f"[{coils}, {h}, {w}] or [{n}, {coils}, {h}, {w}] as `{name}`"
            _check.fail("sensitivities", expected, maps)
        return maps.to(given.dtype)

    def _image_shape(self) -> tuple[int, ...]:
        maps, batch = self.sensitivities, self._batch()
        for t in (self.mask, maps):
            batch = max(batch, t.shape[0] if t is not None and t.dim() == 4 else 1)
        h = self.mask.shape[-2] if self.mask.dim() > 1 else 12 if maps is None else maps.shape[-2]
        return batch, h, self.mask.shape[-1]


class _PreparedMRI(Normal):
    """scale (A^H A x - A^H y) in one operator."""

    model: MRI

    def __init__(self, model: MRI, y: Tensor):
        super().__init__(model, y)
        self.maps = model._maps("y", y)
        self.mask = model._mask(y)
        p = self.precision
        self.scale = p.reshape(-1) if isinstance(p, Tensor) else p

    def gradient(self, x: Tensor) -> Tensor:
        check_like("x", x, self.adjoint_y)
        return ops.mri_normal(x, self.mask, self.maps, self.adjoint_y, self.scale)
