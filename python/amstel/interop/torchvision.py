"""torchvision's names for ROI pooling: change one import, or convert a model that has the module in it.

    from amstel.interop.torchvision import RoIPool, roi_pool  # was: from torchvision.ops import RoIPool, roi_pool

Values, positions of the maxima and gradients are torchvision's to the bit wherever those are defined. What differs:
channels_last stays channels_last; bfloat16, boxes of another dtype, and second derivatives work; a NaN or infinite
coordinate, a batch index that is not one of the images, and a list of boxes of another length than the batch are errors.
"""

from __future__ import annotations

from torch import nn

from amstel.nn.roi_pool import RoIPool
from amstel.ops.roi_pool import roi_pool

__all__ = ["RoIPool", "convert", "roi_pool"]


def convert(model: nn.Module) -> nn.Module:
    """Replace every `torchvision.ops.RoIPool` in a model, in place; returns the model, or what replaces it.

    Example:
        >>> import torchvision
        >>> model = torch.nn.ModuleDict({"pool": torchvision.ops.RoIPool(7, 0.25)})
        >>> amstel.interop.torchvision.convert(model)["pool"]
        RoIPool(output_size=7, spatial_scale=0.25)
    """
    from torchvision import ops

    if isinstance(model, ops.RoIPool):
        return RoIPool(model.output_size, model.spatial_scale).train(model.training)
    for name, child in model.named_children():
        setattr(model, name, convert(child))
    return model
