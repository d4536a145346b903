"""Helpers of `amstel.plot`: matplotlib's axes, and pictures, boxes and curves as arrays."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from amstel import _check
from amstel._optional import need


def _matplotlib(module: str) -> Any:
    return need(f"matplotlib.{module}", extra="cli", purpose="amstel.plot")


def _axes(axes: Any) -> Any:
    if axes is None:
        return _matplotlib("pyplot").subplots(layout="constrained")[1]
    if not hasattr(axes, "plot") or not hasattr(axes, "imshow"):
        _check.fail_type("axes", "matplotlib axes or None", axes)
    return axes


def _array(value: Any, name: str, real: bool = True) -> np.ndarray:
    _check.unmasked(name, value)
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
        plain = value.resolve_conj().resolve_neg().numpy()
        return _real(plain, name) if real else plain
    if isinstance(value, (list, tuple)):  # of losses that require a gradient, say, which NumPy refuses
        parts = [_array(v, name, real) if isinstance(v, (torch.Tensor, list, tuple)) else v for v in value]
    else:
        parts = value
    found: np.ndarray | None
    try:
        found = np.asarray(parts)
        found = found.astype(float) if found.dtype == object else found
    except (TypeError, ValueError):
        found = None
    if found is None or found.dtype.kind in "US" or value is None:
        _check.fail(name, "numbers, in rows of one length", value)
    return _real(found, name) if real else found


def _real(value: np.ndarray, name: str) -> np.ndarray:
    if np.iscomplexobj(value):
        _wrong(name, "real numbers", value.dtype)
    return value


def _names(value: Any, argument: str) -> list[Any]:
    if not isinstance(value, Iterable):
        _check.fail_type(argument, "a name for each class", value)
    return list(value)


def _wrong(argument: str, expected: str, got: object) -> None:
    raise ValueError(f"`{argument}` must be {expected}, got {got}")


def _shape(value: np.ndarray) -> str:
    return f"shape {list(value.shape)}"


def _picture(image: Any, name: str, frame: bool = True) -> np.ndarray:
    """[H, W] or [H, W, 3], uint8 as it came (divided by 255) or clean floats. Channels of tensors come first, but for
    frames of uint8."""
    first = isinstance(image, torch.Tensor) and not (frame and image.dtype == torch.uint8)
    value = _array(image, name, real=False)
    if value.ndim == 4 and len(value) == 1:
        value = value[0]
    if first and value.ndim == 3:
        value = np.moveaxis(value, 0, -1)
    if value.ndim == 3 and value.shape[2] == 1:
        value = value[..., 0]
    if value.ndim not in (2, 3) or (value.ndim == 3 and value.shape[2] != 3) or not value.size:
        kind = "a float tensor" if frame else "a tensor"
        _wrong(name, f"[H, W] or [H, W, 3] ({kind}: [C, H, W])", _shape(_array(image, name, real=False)))
    if value.dtype == np.uint8:
        return value / 255.0
    return abs(value) if np.iscomplexobj(value) else value.astype(float)


def _boxes(boxes: Any, name: str) -> np.ndarray:
    value = np.atleast_2d(_array(boxes, name)).astype(float)
    if value.ndim != 2 or value.shape[1] != 4 or not len(value):
        _wrong(name, "[T, 4] or [4]", _shape(value))
    return value


def _canvas(picture: np.ndarray, axes: Any, cmap: str = "gray", vmax: float = 1.0) -> Any:
    """The picture on axes in pixels, where a box's edges lie between pixels."""
    axes = _axes(axes)
    height, width = picture.shape[:2]
    shown = picture.clip(0, 1) if picture.ndim == 3 else picture
    axes.imshow(shown, cmap=cmap, vmin=0, vmax=vmax, extent=(0, width, height, 0), interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    return axes


def _rectangle(axes: Any, box: Any, color: str, line: str, name: str) -> None:
    x, y, w, h = box
    if np.isfinite([x, y, w, h]).all():
        patch = _matplotlib("patches").Rectangle
        style = {"fill": False, "edgecolor": color, "linestyle": line, "linewidth": 2, "label": name}
        axes.add_patch(patch((x, y), w, h, **style))
