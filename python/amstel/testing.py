"""Tolerances and comparisons, for tests of these operators and of code that uses them."""

import torch
from torch import Tensor

#: Relative and absolute tolerance against a float64 reference, per dtype of the operator. Sums are kept
#: in float64 for float64 and in float32 otherwise, so that the last rounding decides for the short types.
TOLERANCE = {
    torch.float64: (1e-12, 1e-12),
    torch.float32: (1e-5, 1e-5),
    torch.bfloat16: (1e-2, 1e-2),
    torch.float16: (2e-3, 2e-3),
}


def assert_close(actual: Tensor, reference: Tensor, dtype: torch.dtype | None = None) -> None:
    """`actual` equals the float64 `reference` within the tolerance of its dtype, at the scale of the reference."""
    dtype = dtype or actual.dtype
    assert actual.shape == reference.shape, f"shape {list(actual.shape)}, expected {list(reference.shape)}"
    if actual.numel() == 0:
        return
    relative, absolute = TOLERANCE[dtype]
    scale = max(1.0, float(reference.abs().max()))
    torch.testing.assert_close(
        actual.double().cpu(), reference.double().cpu(), rtol=relative, atol=absolute * scale, equal_nan=True
    )
