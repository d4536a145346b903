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
    """Assert that `actual` equals the float64 `reference`, within a tolerance for its dtype relative to the reference.

    The scale is that of the finite values of the reference. Real and imaginary parts are compared separately; integers
    must be equal.

    Args:
        actual: a tensor of any dtype, on any device.
        reference: a tensor of the same shape.
        dtype: the dtype whose tolerance (`TOLERANCE`) to use; default: that of `actual`.

    Raises:
        AssertionError: the shapes differ, or values differ by more than the tolerance.

    Example:
        >>> graph = amstel.Graph.from_edge_index(torch.randint(50, (2, 400)))
        >>> x = torch.randn(graph.num_nodes, 8)
        >>> amstel.testing.assert_close(amstel.ops.spmm(graph, x), amstel.reference.spmm(graph, x.double()))
    """
    dtype = dtype or actual.dtype
    assert actual.shape == reference.shape, f"shape {list(actual.shape)}, expected {list(reference.shape)}"
    if actual.numel() == 0:
        return
    actual, reference = actual.detach().cpu(), reference.detach().cpu()
    if not (dtype.is_floating_point or dtype.is_complex):
        torch.testing.assert_close(actual, reference, rtol=0, atol=0, check_dtype=False)
        return
    relative, absolute = TOLERANCE[dtype.to_real()]
    if actual.is_complex() or reference.is_complex():
        actual, reference = (
            torch.view_as_real(t.to(torch.complex128).resolve_conj()) for t in (actual, reference)
        )
    actual, reference = actual.double(), reference.double()
    finite = reference[reference.isfinite()]
    scale = max(1.0, float(finite.abs().max())) if finite.numel() else 1.0
    torch.testing.assert_close(actual, reference, rtol=relative, atol=absolute * scale, equal_nan=True)
