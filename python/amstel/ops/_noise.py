"""The noise of a measurement, in the form that the operators take."""

from __future__ import annotations

import torch
from torch import Tensor

from amstel import _check


def precision_of(sigma: float | Tensor, like: Tensor) -> tuple[Tensor | None, float]:
    """1 / sigma² as a tensor [N], at least float32, and as a number, one of the two being 1."""
    if isinstance(sigma, Tensor):
        real = sigma.layout == torch.strided and not sigma.is_complex() and sigma.dtype != torch.bool
        if real and sigma.dim() == 0:
            sigma = sigma.expand(like.shape[0])
        if sigma.shape != like.shape[:1] or not real or sigma.device != like.device:
            _check.fail("sigma", f"a number, or a tensor [{like.shape[0]}] on {like.device}", sigma)
        wide = torch.promote_types(like.real.dtype, torch.float32)
        return sigma.to(wide).square().reciprocal().contiguous(), 1.0
    sigma = _check.number("sigma", sigma, "a number > 0 or a tensor [N]", above=0, infinite=True)
    return None, 1 / sigma / sigma  # sigma² may be too small for a number
