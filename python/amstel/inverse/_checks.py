"""Checks that the forward models share."""

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from amstel import _check, _checks

WIDE = (torch.float64, torch.float32)
COMPLEX = (torch.complex128, torch.complex64)


def names(*dtypes: torch.dtype) -> str:
    return " or ".join(str(t).removeprefix("torch.") for t in dtypes)


def check_images(name: str, images: Any, dtypes: tuple[torch.dtype, ...] = _check.FLOATS) -> None:
    expected = f"{'a real' if dtypes is _check.FLOATS else names(*dtypes)} tensor [N, C, H, W]"
    _check.dense(name, images, expected)
    fits = images.dim() == 4 and images.dtype in dtypes and images.layout == torch.strided
    if not fits or 0 in images.shape[2:]:
        _check.fail(name, expected, images)


def check_shape(image_shape: Any, sides: str = "H, W") -> tuple[int, ...]:
    """The sides as integers >= 1."""
    count = len(sides.split(", "))
    expected = f"{('two', 'three')[count - 2]} integers ({sides})"
    if not isinstance(image_shape, Sequence) or isinstance(image_shape, str):
        _check.fail_type("image_shape", expected, image_shape)
    found = tuple(_check.integer("image_shape", n, 1, expected) for n in image_shape)
    if len(found) != count:
        _check.fail("image_shape", expected, image_shape)
    return found


def check_like(name: str, given: Any, other: Tensor) -> Tensor:
    expected = f"{names(other.dtype)} {list(other.shape)} on {other.device}"
    _check.dense(name, given, expected)
    if given.shape != other.shape or given.dtype != other.dtype or given.device != other.device:
        _check.fail(name, expected, given)
    return given


def check_binary(name: str, mask: Any, expected: str) -> Tensor:
    """The mask in bool."""
    _check.dense(name, mask, expected)
    if mask.is_complex() or 0 in mask.shape:
        _check.fail(name, expected, mask)
    sampled = mask != 0
    if mask.dtype != torch.bool:

        def fail(mask: Tensor) -> NoReturn:
            raise ValueError(f"`{name}` must be {expected}, got other values in {_check.describe(mask)}")

        _checks.require(mask, lambda mask: (mask == 0) | (mask == 1), f"`{name}` must be {expected}", fail)
    return sampled


def columns(mask: Tensor, width: int | None) -> Tensor:
    """A mask of columns [1, ..., W, 1], as fastMRI has it beside k-space [..., H, W, 2], as [W]; others as they are.

    One [1, 1, W, 1] may be of points of an image of one column too: it depends on the width of images, if that is known.
    """
    if mask.dim() < 3 or mask.shape[-1] != 1 or not 1 < mask.shape[-2] == mask.numel():
        return mask
    return mask.reshape(-1) if mask.dim() != 4 or width == mask.shape[-2] else mask
