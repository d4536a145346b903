"""A small recurrent U-Net without biases: the network of `amstel.nn.RIM(network="unet")`."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from amstel import _check, ops
from amstel._bypass import computes_as, has_hooks
from amstel.nn._like import check_like_model
from amstel.nn._placed import Placed
from amstel.ops._winograd import conv3x3

#: Times that the sides are halved on the way down.
HALVINGS = 3


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


class Conv3x3(nn.Conv2d):
    """A convolution between features, padded by 1, with Winograd's algorithm where that is less work."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        return conv3x3(x, self.weight, self.bias)


def activated(conv: nn.Module, x: Tensor) -> Tensor:
    """relu(conv(x)); in place, but not what a hook has seen, or a module in the place of conv may hand on or keep."""
    own = computes_as(conv, nn.Conv2d, "_conv_forward") or computes_as(conv, Conv3x3)
    return relu(conv(x), inplace=own and not has_hooks(conv))


class _Residual(nn.Module):
    """x + W_b * relu(W_a * x)."""

    def __init__(self, width: int):
        super().__init__()
        self.a, self.b = _conv(width, width), _conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(activated(self.a, x))


class _Memory(nn.Module):
    """A convolutional GRU without biases, 3x3 on what comes and 1x1 on the state, by the fused gates."""

    def __init__(self, width: int):
        super().__init__()
        self.x, self.h = _conv(width, 3 * width), nn.Conv2d(width, 3 * width, 1, bias=False)

    def forward(self, x: Tensor, h: Tensor | None) -> Tensor:
        gates_x = self.x(x)
        if h is None:
            h = torch.zeros_like(gates_x[:, : gates_x.shape[1] // 3])
            return ops.conv_gru_cell(gates_x, torch.zeros_like(gates_x), h)
        return ops.conv_gru_cell(gates_x, self.h(h).to(gates_x.dtype), h.to(gates_x.dtype))


class RecurrentUNet(nn.Module, metaclass=Placed):
    r"""One step of a recurrent U-Net: an image of `inputs` channels and a state -> an image and the next state.

    .. code-block:: text

        e_0 = W * [given, f]      e_{k+1} = down_k(e_k), k = 0, 1, 2      h' = GRU(body(e_3), h)
        d_3 = body(e_3) + h'      d_k = up_k(d_{k+1} + e_{k+1}), k = 2, 1, 0      f' = d_0 + e_0      out = V * f'

    It has residual blocks of two 3x3 convolutions at every scale, 2x2 convolutions with stride 2 between the scales,
    and no bias anywhere, so an image of zeros gives zeros. The state consists of f, the features of the last step at
    full size, and h, the state of the GRU at an eighth of the size.

    Args:
        inputs, outputs: channels.
        width: channels at full size; they double with every halving of the size.
        blocks: residual blocks per scale and direction.
        recurrent: whether there is a state; without one, f and h are None.

    Shapes: given [N, inputs, H, W] of any size (inside, the border is repeated to reach multiples of 8); out
    [N, outputs, H, W]; f [N, width, 8 ceil(H / 8), 8 ceil(W / 8)], h [N, 8 width, ceil(H / 8), ceil(W / 8)].

    Raises:
        ValueError or TypeError: an argument is not as described.

    Complexity: about 9 width (inputs + width) + (150 blocks + 40) width² multiplications per pixel.

    Source: O. Ronneberger et al., U-Net, MICCAI 2015; without biases S. Mohan et al., Robust and Interpretable Blind
    Image Denoising via Bias-Free Convolutional Neural Networks, ICLR 2020; K. Zhang et al., Plug-and-Play Image
    Restoration with Deep Denoiser Prior, IEEE TPAMI 44, 2022.

    Example:
        >>> unet = amstel.nn.unet.RecurrentUNet(3, 1, 4)
        >>> out, state = unet(torch.rand(1, 3, 10, 13))
        >>> out.shape, [s.shape for s in state]
        (torch.Size([1, 1, 10, 13]), [torch.Size([1, 4, 16, 16]), torch.Size([1, 32, 2, 2])])
    """

    def __init__(self, inputs: int, outputs: int, width: int = 16, blocks: int = 1, recurrent: bool = True):
        super().__init__()
        self.inputs, outputs = _check.integer("inputs", inputs, 1), _check.integer("outputs", outputs, 1)
        width, blocks = _check.integer("width", width, 1), _check.integer("blocks", blocks, 0)
        recurrent = _check.flag("recurrent", recurrent)
        widths = [width * 2**k for k in range(HALVINGS + 1)]

        def residuals(channels: int) -> list[nn.Module]:
            return [_Residual(channels) for _ in range(blocks)]

        self.width, self.recurrent = width, recurrent
        self.head = _conv(self.inputs + width * recurrent, width)
        self.down = nn.ModuleList(
            nn.Sequential(*residuals(a), nn.Conv2d(a, b, 2, 2, bias=False)) for a, b in pairwise(widths)
        )
        self.body = nn.Sequential(*residuals(widths[-1]))
        self.up = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(b, a, 2, 2, bias=False), *residuals(a))
            for b, a in pairwise(reversed(widths))
        )
        self.tail = _conv(width, outputs)
        self.memory = _Memory(widths[-1]) if recurrent else None

    def forward(
        self, given: Tensor, state: tuple[Tensor | None, Tensor | None] = (None, None)
    ) -> tuple[Tensor, tuple[Tensor | None, Tensor | None]]:
        height, width = self._checked(given).shape[2:]
        beyond = (0, -width % 2**HALVINGS, 0, -height % 2**HALVINGS)
        x = pad(given, beyond, mode="replicate") if any(beyond) else given
        f, h = self._states(state, x)
        if self.recurrent:
            f = x.new_zeros(x.shape[0], self.width, *x.shape[2:]) if f is None else f.to(x.dtype)
            x = torch.cat([x, f], 1)
        x = self.head(x)
        passed = [x]
        for down in self.down:
            x = down(x)
            passed.append(x)
        x = self.body(x)
        if self.memory is not None:
            h = self.memory(x, h)
            x = x + h
        for up in self.up:
            x = up(x + passed.pop())
        f = x + passed.pop()
        out = self.tail(f)[:, :, :height, :width]
        return out, (f, h) if self.recurrent else (None, None)

    def _checked(self, given: Tensor) -> Tensor:
        expected = f"floating-point [N, {self.inputs}, H, W]"
        _check.dense("given", given, expected)
        if given.dim() != 4 or given.shape[1] != self.inputs or not given.is_floating_point():
            _check.fail("given", expected, given)
        if 0 in given.shape[2:]:
            _check.fail("given", "at least one pixel high and wide", given)
        check_like_model("given", given, self)
        return given

    def _states(self, state: Any, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """f and h, each a tensor or None; x is the image with its border."""
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            _check.fail_type("state", "(f, h)", state)
        n, _, height, width = x.shape
        deep = self.width * 2**HALVINGS, height // 2**HALVINGS, width // 2**HALVINGS
        for k, (part, shape) in enumerate(
            zip(state, ([n, self.width, height, width], [n, *deep]), strict=True)
        ):
            if part is None:
                continue
            expected = f"None or a tensor {shape}" if self.recurrent else "None with recurrent=False"
            if not self.recurrent or list(_check.dense(f"state[{k}]", part, expected).shape) != shape:
                _check.fail(f"state[{k}]", expected, part)
        return state[0], state[1]
