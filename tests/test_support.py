"""The ways of use that have no file of their own, for every operator; and the table of all of them in the docs."""

import pytest
import torch

from amstel import ops
from tests.operator_samples import SAMPLES
from tests.test_export import FEW, single

each = pytest.mark.parametrize("sample", FEW, ids=lambda s: s.name)
#: Scale of the result within which a short type may be off.
NEAR = {torch.bfloat16: 0.05, torch.float16: 0.01}


@each
def test_autocast(sample):
    """Values and gradients are finite and those of float32 as far as the short type tells them apart."""
    tensors = single(sample)
    expected = sample.function(ops, *tensors)
    for dtype, near in NEAR.items():
        for enabled in (True, False):  # an inner block turns it off again
            leaves = [t.clone().requires_grad_() for t in tensors]
            with torch.autocast("cpu", dtype), torch.autocast("cpu", dtype, enabled=enabled):
                found = sample.function(ops, *leaves)
            grads = torch.autograd.grad(found.abs().float().square().sum(), leaves)
            assert all(
                g.dtype == t.dtype and bool(g.abs().isfinite().all())
                for g, t in zip(grads, leaves, strict=True)
            )
            if not enabled:
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
            assert bool((found - expected).abs().max() <= near * max(1.0, float(expected.abs().max())))


@each
def test_inference_mode(sample):
    """The same bits as without, and what was made there does no harm to training afterwards."""
    tensors = single(sample)
    expected = sample.function(ops, *tensors)
    with torch.inference_mode():
        found = sample.function(ops, *tensors)
    assert torch.equal(found, expected) and found.is_inference()
    leaves = [t.clone().requires_grad_() for t in tensors]
    y = sample.function(ops, *leaves)
    torch.autograd.grad(y.abs().square().sum(), leaves)


def test_the_table_in_the_docs_is_that_of_the_tests():
    """`python -m tests.support` writes the page anew."""
    from tests import support

    assert (
        set(support.ROWS)
        == {s.name.split("-")[0] for s in SAMPLES if s.name.split("-")[0] in ops.__all__}
        == set(ops.__all__) - {"decompositions"} - support.ASIDE
    )
    holes = {(row, way) for way in support.WAYS for row in set(support.ROWS) - support.covered(way)}
    assert holes == set(support.HOLES)
    assert support.PAGE.read_text(encoding="utf-8") == support.page()
