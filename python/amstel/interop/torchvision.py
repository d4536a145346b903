"""torchvision's ROI operators under their own names: change one import, or convert a model that contains them.

    from amstel.interop.torchvision import RoIAlign, roi_align  # was: from torchvision.ops import RoIAlign, roi_align

Values, positions of the maxima and gradients equal torchvision's bit for bit wherever those are defined, with two
exceptions. The gradient of `ps_roi_pool` is that of its values even if a box reaches the last row or column of the map,
which torchvision leaves out of the values but includes in the gradient. The gradient of `roi_align` is equal within
rounding.

Other differences: channels_last stays channels_last. bfloat16, boxes of a different dtype and second derivatives work. A
NaN or infinite coordinate, a batch index out of range, or a list of boxes whose length is not the batch size raises an
error.
"""

from __future__ import annotations

from inspect import isfunction

from torch import nn

from amstel._bypass import computes_as
from amstel._optional import need
from amstel.nn.roi_align import MultiScaleRoIAlign, PSRoIPool, RoIAlign
from amstel.nn.roi_pool import RoIPool
from amstel.ops.roi_align import ps_roi_pool, roi_align
from amstel.ops.roi_pool import roi_pool

__all__ = [
    "MultiScaleRoIAlign",
    "PSRoIPool",
    "RoIAlign",
    "RoIPool",
    "convert",
    "ps_roi_pool",
    "replace_",
    "roi_align",
    "roi_pool",
]


def convert(model: nn.Module) -> nn.Module:
    """Replace every ROI module of torchvision in a model, in place; returns the model, or what replaces it.

    It replaces `RoIPool`, `RoIAlign`, `PSRoIPool` and `MultiScaleRoIAlign`, which are all of those in a Faster, Mask or
    Keypoint R-CNN. Functions that a model calls by name (the loss of Mask R-CNN calls `roi_align`) stay torchvision's, and
    so do subclasses and modules with their own `forward` or other methods. Hooks are kept.

    Example:
        >>> import torchvision
        >>> model = torch.nn.ModuleDict({"pool": torchvision.ops.RoIPool(7, 0.25)})
        >>> amstel.interop.torchvision.convert(model)["pool"]
        RoIPool(output_size=7, spatial_scale=0.25)
    """
    return _converted(model, {})


def _converted(model: nn.Module, made: dict[nn.Module, nn.Module]) -> nn.Module:
    """`made`: what is done, by what it replaces, so that a module of several names stays one."""
    if model not in made:
        ours = _ours(model)
        made[model] = model if ours is None else ours.train(model.training)
        if ours is not None:
            # The dicts themselves, so that what a registration returned removes its hook still.
            vars(ours).update({name: value for name, value in vars(model).items() if "hook" in name})
        else:
            for name, child in model._modules.items():
                if child is not None:
                    setattr(model, name, _converted(child, made))
    return made[model]


def replace_(model: nn.Module) -> int:
    """Like `convert`, for a model that is not itself replaced; returns the number of replaced modules.

    Raises:
        ValueError: the model is itself a module to replace, or contains none.

    Example:
        >>> import torchvision
        >>> model = torch.nn.ModuleDict({"align": torchvision.ops.RoIAlign(7, 0.25, 2)})
        >>> amstel.interop.torchvision.replace_(model), model["align"]
        (1, RoIAlign(output_size=7, spatial_scale=0.25, sampling_ratio=2, aligned=False))
    """
    found = sum(_ours(module) is not None for module in model.modules())
    if not found or _ours(model) is not None:
        raise ValueError(
            "`model` must hold a RoIPool, RoIAlign, PSRoIPool or MultiScaleRoIAlign of torchvision"
        )
    convert(model)
    return found


def _ours(module: nn.Module) -> nn.Module | None:
    """What replaces a module of torchvision, if anything does."""
    ops = need("torchvision.ops", None, "amstel.interop.torchvision")
    # A class of one's own that pools in another way stays.
    kinds = (ops.RoIPool, ops.RoIAlign, ops.PSRoIPool, ops.MultiScaleRoIAlign)
    if not any(computes_as(module, kind, *_methods(kind)) for kind in kinds):
        return None
    if isinstance(module, ops.RoIPool):
        return RoIPool(module.output_size, module.spatial_scale)
    if isinstance(module, ops.RoIAlign):
        return RoIAlign(module.output_size, module.spatial_scale, module.sampling_ratio, module.aligned)
    if isinstance(module, ops.PSRoIPool):
        return PSRoIPool(module.output_size, module.spatial_scale)
    if isinstance(module, ops.MultiScaleRoIAlign):
        return MultiScaleRoIAlign(
            module.featmap_names,
            module.output_size,
            module.sampling_ratio,
            canonical_scale=module.canonical_scale,
            canonical_level=module.canonical_level,
        )
    return None


def _methods(kind: type) -> list[str]:
    return [name for name, value in vars(kind).items() if isfunction(value) and not name.startswith("__")]
