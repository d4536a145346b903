"""amstel.testing: what differs does not pass, whatever else the reference holds."""

import math

import pytest
import torch

from amstel.testing import TOLERANCE, assert_close

F64 = torch.float64


@pytest.mark.parametrize("special", [math.inf, -math.inf, math.nan])
def test_the_scale_is_that_of_finite_values(special):
    reference = torch.tensor([special, 100.0, -7.0], dtype=F64)
    assert_close(torch.tensor([special, 100.0, -7.0]), reference)
    assert_close(torch.full((2,), special), torch.full((2,), special, dtype=F64))
    for wrong in (
        [special, 100.01, -7.0],
        [special, 100.0, 5.0],
        [0.0, 100.0, -7.0],
        [special, special, -7.0],
    ):
        with pytest.raises(AssertionError):
            assert_close(torch.tensor(wrong), reference)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_the_tolerance_is_of_the_dtype_and_the_scale(dtype):
    reference = torch.tensor([0.0, 1000.0], dtype=F64)
    bound = TOLERANCE[dtype][1] * 1000
    assert_close(reference + torch.tensor([0.9 * bound, 0]), reference, dtype)
    with pytest.raises(AssertionError):
        assert_close(reference + torch.tensor([1.1 * bound, 0]), reference, dtype)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128, torch.float32])
def test_imaginary_parts_count(dtype):
    reference = torch.tensor([1 + 5j, 0], dtype=torch.complex128)
    assert_close(reference.clone(), reference, dtype)
    assert_close(reference.conj(), torch.tensor([1 - 5j, 0], dtype=torch.complex128), dtype)
    near = 1e-12 if dtype == torch.complex128 else 1e-5
    assert_close(reference + torch.tensor([0, near * 4j]), reference, dtype)
    for wrong in (reference.conj(), reference.real, reference + torch.tensor([0, near * 8j])):
        with pytest.raises(AssertionError):
            assert_close(wrong, reference, dtype)


def test_integers_are_equal():
    large = torch.tensor([2**62, 0])
    assert_close(large, large.clone())
    assert_close(torch.tensor([True, False]), torch.tensor([True, False]))
    assert_close(torch.tensor([1, 2]), torch.tensor([1.0, 2.0], dtype=F64))
    for actual, reference in (
        (large + 1, large),
        (torch.tensor([True]), torch.tensor([False])),
        (torch.tensor([10**6]), torch.tensor([10**6 + 0.5], dtype=F64)),
    ):
        with pytest.raises(AssertionError):
            assert_close(actual, reference)


def test_shapes_are_equal():
    with pytest.raises(AssertionError, match=r"shape \[1, 2\], expected \[2\]"):
        assert_close(torch.ones(1, 2), torch.ones(2, dtype=F64))
