"""What `amstel.restore` is given, images, masks and noise, as tensors of one kind, and the way back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amstel import _check, inverse
from amstel.inverse._checks import columns
from amstel.inverse.canonical import sampled
from amstel.inverse.noise import estimate_sigma

#: Noise that a task assumes where none is given.
SIGMA = {"inpaint": 1 / 255}


def images(image: Any, task: str, mask: Tensor | None) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """The images as float32 [N, C, H, W] (k-space: complex), 0 where the mask is, and the way back to what they were."""
    kspace = task == "mri"
    if isinstance(image, np.ma.MaskedArray):
        raise TypeError(
            "`image` must be a NumPy array that is not masked; task='inpaint' takes `mask=~image.mask`"
        )
    if isinstance(image, np.ndarray):
        wanted = "an array [coils, H, W]" if kspace else "an array [H, W] or [H, W, 3]"
        if image.dtype.kind not in "biufc":
            raise TypeError(f"`image` must be {wanted} of numbers, got {image.dtype} {list(image.shape)}")
        fits = image.ndim == 3 if kspace else image.ndim == 2 or image.shape[2:] == (3,)
        kind = {np.longdouble: np.float64, np.clongdouble: np.complex128}.get(image.dtype.type, image.dtype)
        # PyTorch takes neither negative strides nor another byte order, and nothing that cannot be written to.
        array = np.ascontiguousarray(image, np.dtype(kind).newbyteorder("="))
        y = torch.from_numpy(array if array.flags.writeable else array.copy())
        y = y.movedim(-1, 0)[None] if not kspace and y.dim() == 3 else y[(None,) * (4 - y.dim())]
    elif isinstance(image, Tensor):
        wanted = "a tensor [N, coils, H, W]" if kspace else "a tensor [N, 1, H, W] or [N, 3, H, W]"
        fits = image.dim() == 4 and (kspace or image.shape[1] in (1, 3))
        y = image.detach().resolve_conj().resolve_neg()
        if y.layout != torch.strided or y.is_meta:
            _check.fail("image", f"dense and with values, {wanted}", image)
    else:
        hint = " (np.asarray(image) / 255 of a picture)" if hasattr(image, "getbands") else ""
        raise TypeError(f"`image` must be a NumPy array or a tensor{hint}, got {_check.describe(image)}")
    if not fits:
        raise ValueError(f"`image` must be {wanted}, got {list(image.shape)}")
    if not (y.is_complex() if kspace else y.is_floating_point()) or not y.numel():
        wanted = "complex" if kspace else "floating point"
        hint = "" if kspace or y.is_complex() else " (8-bit pixels divided by 255)"
        _check.fail("image", f"{wanted}{hint} and not empty", y)
    dtype, home = y.dtype, y.device
    if not kspace:
        y = y.float()
    elif dtype not in (torch.complex64, torch.complex128):
        y = y.to(torch.complex64)
    if mask is not None:
        _check_size(mask, y, kspace)
        if not kspace and not mask.expand_as(y).flatten(2).any(2).all():
            raise ValueError(
                "`mask` must be 1 somewhere in every image and channel, where something is known"
            )
        y = sampled(y, mask.to(home))
    most = largest(y)
    if not math.isfinite(most):
        raise ValueError("`image` must be finite, got NaN or infinity")
    if not kspace and (most > 16 or (most > 1 and _whole(y[:, :, :8]) and _whole(y))):
        raise ValueError(
            f"`image` must be in [0, 1] apart from noise (8-bit pixels divided by 255), got values up to {most:g}"
        )

    def back(x: Tensor) -> Any:
        x = x.to(home, dtype)
        if isinstance(image, Tensor):
            return x
        x = x[0] if kspace else x[0].movedim(0, -1) if x.shape[1] == 3 else x[0, 0]
        return x.contiguous().numpy().astype(np.dtype(image.dtype.type), copy=False)

    # A large array in color may stay in its order: denoising goes over it in tiles.
    return y if task == "denoise" else y.contiguous(), back


def _check_size(mask: Tensor, y: Tensor, kspace: bool) -> None:
    """Raises unless the mask is of 0 and 1, and fits the image."""
    (n, c, h, w), size = y.shape, (inverse.MRI if kspace else inverse.Inpainting)(mask).mask.shape
    if kspace:
        fits, expected = size in ((w,), (h, w), (n, 1, h, w)), f"[{w}], [{h}, {w}] or [{n}, 1, {h}, {w}]"
    else:
        sides = (1,) * (4 - len(size)) + tuple(size)
        fits = sides[0] in (1, n) and sides[1] in (1, c) and sides[2:] == (h, w)
        expected = f"[{h}, {w}], [{c}, {h}, {w}] or [{n}, {c}, {h}, {w}]"
    if not fits:
        _check.fail("mask", f"{expected}, as the image", mask)


def largest(x: Tensor) -> float:
    """The largest magnitude of any part, NaN if there is one: without as much memory as x takes."""
    ends = torch.aminmax(torch.view_as_real(x.resolve_conj()) if x.is_complex() else x)
    return float(torch.stack([-ends.min, ends.max]).max())


def _whole(y: Tensor) -> bool:
    return bool((y == y.round()).all())


def tensor_of(name: str, given: Any, expected: str) -> Tensor:
    """A tensor from anything that holds numbers: arrays of any byte order and strides, lists, pictures of PIL."""
    if isinstance(given, Tensor):
        return _check.dense(name, given, expected).resolve_conj()
    if isinstance(given, np.ma.MaskedArray):
        _check.fail_type(name, f"{expected}, that is not masked", given)
    _check.unmasked(name, given)
    try:
        array = np.array(given)
        if array.dtype.kind not in "biufc":
            raise TypeError
        kind = {np.longdouble: np.float64, np.clongdouble: np.complex128}.get(array.dtype.type, array.dtype)
        return torch.from_numpy(np.array(array, np.dtype(kind).newbyteorder("="), order="C"))
    except (TypeError, ValueError):
        _check.fail_type(name, expected, given)


def mask_of(mask: Any, image: Any, task: str) -> Tensor:
    """The mask as a tensor in the order of tensors: that of a color array may be [H, W, 1] or [H, W, 3], as the array is."""
    found = tensor_of("mask", mask, "[W], [H, W] and the like, of 0 and 1")
    if found.is_meta:
        _check.fail("mask", "with values, not on the device meta", found)
    if task == "mri":
        size: Any = getattr(image, "shape", ())
        return columns(found, size[-1] if len(size) else None)
    shape: list[int] = list(image.shape) if isinstance(image, np.ndarray) else []
    if len(shape) == 3 and shape[2] == 3 and found.dim() == 3 and list(found.shape[:2]) == shape[:2]:
        if found.shape[2] in (1, 3):
            return found.movedim(2, 0)
    return found


def noise_of(sigma: Any, task: str, y: Tensor) -> Tensor:
    """[N], one for each image, or a map [N, 1, H, W]; None: estimated, or what the task assumes."""
    if task not in ("denoise", "inpaint", "deblur"):
        if sigma is not None:
            _check.fail("sigma", f"None for the task {task}", sigma)
        return y.real.new_ones(len(y))
    if sigma is None:
        return estimate_sigma(y) if task in ("denoise", "deblur") else y.new_full((len(y),), SIGMA[task])
    n, size = len(y), y.shape[2:]
    expected = "a number > 0, [N] of such, a map [H, W] or [N, 1, H, W], or 'auto'"
    if isinstance(sigma, (list, tuple, np.ndarray)) and not isinstance(sigma, np.ma.MaskedArray):
        _check.unmasked("sigma", sigma)
        try:
            if np.asarray(sigma).dtype.kind not in "iuf":
                raise TypeError
            sigma = torch.from_numpy(np.array(sigma, np.float32))
        except (TypeError, ValueError):
            _check.fail_type("sigma", expected, sigma)
    if not isinstance(sigma, Tensor):
        sigma = _check.number("sigma", sigma, expected, above=0)
    if isinstance(sigma, Tensor) and (sigma.dtype == torch.bool or sigma.is_complex()):
        _check.fail_type("sigma", expected, sigma)
    found = torch.as_tensor(sigma, dtype=torch.float32, device=y.device)
    if task == "deblur":
        expected, size = "a number > 0, [N] of such, or 'auto'", torch.Size([0, 0])
    if found.shape == size and found.dim() == 2:
        found = found.expand(n, 1, *size)
    fits = found.shape in ((), (1,), (n,), (n, 1, *size), (1, 1, *size))
    if not fits or not bool((found > 0).all() & found.isfinite().all()):
        _check.fail("sigma", expected, sigma)
    return found.expand(n, *found.shape[1:])
