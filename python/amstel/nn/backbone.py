"""From frames to feature maps: VGG-16 as the papers use it, and a small network to train from scratch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from amstel import _check
from amstel.nn._like import check_like_model
from amstel.nn._placed import Placed
from amstel.nn.conv_lstm import _widths

#: Mean and standard deviation of the RGB channels, in [0, 1], with which torchvision's VGG-16 was trained.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Configuration D of the paper; "M" is a 2x2 max pooling.
_VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")


def _frames(x: Tensor, channels: int, least: int) -> Tensor:
    expected = f"floating-point [..., {channels}, H, W] with H and W at least {least}"
    _check.dense("x", x, expected)
    if x.dim() < 4 or x.shape[-3] != channels or min(x.shape[-2:]) < least or not x.is_floating_point():
        _check.fail("x", expected, x)
    return x.flatten(0, -4)


def _normalized(x: Tensor, like: Tensor) -> Tensor:
    """RGB [N, 3, H, W] in [0, 1] by mean and standard deviation, in the precision of x or of `like`, whichever is higher.

    They are no buffers, which to_empty() would leave without values, for no state_dict of torchvision has them; and filled
    in on the device, for which nobody waits.
    """
    x = x.to(torch.promote_types(x.dtype, like.dtype))
    mean, std = (
        torch.cat([x.new_full((1, 1, 1), value) for value in channels])
        for channels in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return (x - mean) / std


class VGG16Features(nn.Module, metaclass=Placed):
    """The thirteen convolutions of VGG-16 up to pool5, or the network up to fc7. At pool5, a 224x224 frame becomes 7x7x512.

    The parameters are named as in torchvision, so its files load unchanged; classifier weights that are not used
    are ignored:

        model = amstel.nn.VGG16Features()
        model.load_state_dict(torch.load("vgg16-397923af.pth"))

    Args:
        normalize: take frames in [0, 1] and normalize them with the mean and standard deviation of ImageNet;
            False for frames that are already normalized.
        layer: "pool5", or "fc7", which adds the two hidden layers of the classifier, after their ReLU, and gives one
            vector per frame. Before these, frames of another size than 224x224 are averaged to 7x7, as in torchvision.

    Shapes: x [..., 3, H, W] with any leading dimensions, such as [T, N]; result [..., 512, H // 32, W // 32], or with
    layer="fc7" [..., 4096].

    Source: K. Simonyan and A. Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition,
    ICLR 2015, table 1, configuration D.

    Example:
        >>> amstel.nn.VGG16Features()(torch.rand(2, 1, 3, 64, 64)).shape
        torch.Size([2, 1, 512, 2, 2])
    """

    out_channels = 512
    stride = 32

    def __init__(self, normalize: bool = True, layer: str = "pool5"):
        super().__init__()
        self.layer = _check.choice("layer", layer, ("pool5", "fc7"))
        normalize = _check.flag("normalize", normalize)
        layers: list[nn.Module] = []
        channels = 3
        for width in _VGG16:
            if isinstance(width, int):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier: nn.Sequential | None = None
        if layer == "fc7":
            self.out_channels = 4096
            # The dropout between them is that of training ImageNet: what is asked for here does not drop.
            first, second = nn.Linear(512 * 7 * 7, 4096), nn.Linear(4096, 4096)
            self.classifier = nn.Sequential(first, nn.ReLU(inplace=True), nn.Identity(), second, nn.ReLU())
        self.normalize = normalize

    def forward(self, x: Tensor) -> Tensor:
        """Maps [..., 512, H // 32, W // 32] of x [..., 3, H, W], or [..., 4096] with layer="fc7"."""
        flat = _frames(x, 3, self.stride)
        check_like_model("x", x, self, narrower=self.normalize)
        if self.normalize:
            flat = _normalized(flat, next(self.parameters()))
        maps = self.features(flat)
        if self.classifier is not None:
            maps = self.classifier(nn.functional.adaptive_avg_pool2d(maps, 7).flatten(1))
        return maps.unflatten(0, x.shape[:-3])

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        unused = "classifier." if self.classifier is None else "classifier.6."
        kept = {name: value for name, value in state_dict.items() if not name.startswith(unused)}
        return super().load_state_dict(kept, strict, assign)


class SmallBackbone(nn.Module, metaclass=Placed):
    """A few convolutions of stride 2, each with group normalization and ReLU, to be trained from scratch.

    With three of them, the default, a 64x64 frame becomes maps of 8x8. Each frame is normalized by itself, so the
    result does not depend on other clips or later frames.

    A 3x3 kernel with stride 2 is not centered: it sees one pixel more either before or after its own two. The last
    convolution has it after, the others before. The receptive field of a map position is then centered on its square
    of the frame to within half a pixel, so boxes from attention lie on their objects.

    Args:
        in_channels: 3 for RGB, 2 for flow.
        channels: width after each convolution.
        groups: of the normalization; 0 leaves it out.

    Shapes: x [..., in_channels, H, W] with any leading dimensions, such as [T, N]; result [..., channels[-1],
    H / s, W / s] with s = 2^len(channels), which should divide H and W.

    Example:
        >>> amstel.nn.SmallBackbone()(torch.rand(5, 2, 3, 64, 64)).shape
        torch.Size([5, 2, 32, 8, 8])
    """

    def __init__(self, in_channels: int = 3, channels: Sequence[int] = (16, 32, 32), groups: int = 4):
        super().__init__()
        several = "one or more integers >= 1"
        if isinstance(channels, str) or not isinstance(channels, (Sequence, np.ndarray)) or not len(channels):
            _check.fail("channels", several, channels)
        channels = [_check.integer("channels", c, 1, several) for c in channels]
        _widths(in_channels=in_channels)
        expected = f"0 or a divisor of all `channels` = {tuple(channels)}"
        if (groups := _check.integer("groups", groups, 0, expected)) and any(c % groups for c in channels):
            _check.fail("groups", expected, groups)
        self.in_channels, self.out_channels, self.stride = in_channels, channels[-1], 2 ** len(channels)
        layers: list[nn.Module] = []
        for n, (before, after) in enumerate(zip((in_channels, *channels), channels, strict=False)):
            last = n == len(channels) - 1
            if last:
                layers.append(nn.ZeroPad2d((0, 1, 0, 1)))
            layers.append(nn.Conv2d(before, after, 3, stride=2, padding=0 if last else 1, bias=not groups))
            if groups:
                layers.append(nn.GroupNorm(groups, after))
            layers.append(nn.ReLU(inplace=True))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [..., channels[-1], H / s, W / s] for x [..., in_channels, H, W]."""
        flat = _frames(x, self.in_channels, self.stride)
        check_like_model("x", x, self)
        return self.layers(flat).unflatten(0, x.shape[:-3])
