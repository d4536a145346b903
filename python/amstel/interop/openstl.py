"""The ConvLSTM of github.com/chengtan9907/OpenSTL, under its own names, on amstel's operator.

For existing code, change only the import:

.. code-block:: text

    from openstl.models import ConvLSTM_Model    becomes    from amstel.interop.openstl import ConvLSTM_Model
    from openstl.modules import ConvLSTMCell     becomes    from amstel.interop.openstl import ConvLSTMCell

Arguments, results and names of parameters are the same, so its checkpoints load unchanged. For new code, use
`amstel.nn.ConvLSTM` or `amstel.nn.ConvLSTMForecaster`; `amstel.interop.conv_lstm.from_openstl` converts weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from amstel import _check
from amstel._bypass import computes_as, has_hooks, is_plain_conv
from amstel._words import counted
from amstel.nn._like import check_like_model
from amstel.ops.conv_lstm import conv_lstm, conv_lstm_cell

State = tuple[Tensor, Tensor]


class ConvLSTMCell(nn.Module):
    r"""One step: i, f, g, o = conv_x(x) + conv_h(h), c' = f ⊙ c + i ⊙ g, h' = o ⊙ tanh(c').

    Args:
        in_channel, num_hidden: channels of x and of the state.
        height, width: of x; the scales of layer_norm depend on them.
        filter_size: side of the kernels, odd.
        stride: 1; in the original, too, no other stride keeps the size of the state.
        layer_norm: whether to normalize both convolutions over channels and positions, with a scale for each of these.

    Shapes: x_t [N, in_channel, H, W]; h_t, c_t and the result (h, c) [N, num_hidden, H, W].

    Parameters: conv_x.0.weight [4C, C_in, k, k] and conv_h.0.weight [4C, C, k, k], gates in the order i, f, g, o, without
    bias; conv_o and conv_last are in its checkpoints, but are used neither there nor here.

    Source: github.com/chengtan9907/OpenSTL; X. Shi et al., Convolutional LSTM Network, NeurIPS 2015.

    Example:
        >>> from amstel.interop.openstl import ConvLSTMCell
        >>> cell = ConvLSTMCell(3, 8, 16, 16, filter_size=5, stride=1, layer_norm=0)
        >>> h, c = cell(torch.randn(2, 3, 16, 16), torch.zeros(2, 8, 16, 16), torch.zeros(2, 8, 16, 16))
        >>> h.shape
        torch.Size([2, 8, 16, 16])
    """

    def __init__(
        self,
        in_channel: int,
        num_hidden: int,
        height: int,
        width: int,
        filter_size: int,
        stride: int = 1,
        layer_norm: bool | int = False,
    ):
        super().__init__()
        inputs = _check.integer("in_channel", in_channel, 1)
        self.num_hidden = hidden = _check.integer("num_hidden", num_hidden, 1)
        size = _check.integer("filter_size", filter_size, 1)
        if size % 2 == 0:
            _check.fail("filter_size", "odd, because its padding is filter_size // 2", filter_size)
        if _check.integer("stride", stride, 1) != 1:
            _check.fail("stride", "1, because the state keeps its size", stride)
        place = _check.integer("height", height, 1), _check.integer("width", width, 1)
        self.padding = size // 2

        def part(channels: int, outputs: int) -> nn.Sequential:
            conv = nn.Conv2d(channels, outputs, size, padding=self.padding, bias=False)
            return nn.Sequential(conv, nn.LayerNorm((outputs, *place))) if layer_norm else nn.Sequential(conv)

        self.conv_x, self.conv_h = part(inputs, 4 * hidden), part(hidden, 4 * hidden)
        self.conv_o, self.conv_last = part(2 * hidden, hidden), nn.Conv2d(2 * hidden, hidden, 1, bias=False)

    def forward(self, x_t: Tensor, h_t: Tensor, c_t: Tensor) -> State:
        check_like_model("x_t", _check.tensor("x_t", x_t, "a tensor"), self)
        return conv_lstm_cell(self.conv_x(x_t) + self.conv_h(h_t), c_t)


class ConvLSTM_Model(nn.Module):
    r"""ConvLSTM layers that predict the next frame after every frame, and continue from their own predictions.

    Frames that are known in advance (without reverse_scheduled_sampling, the first pre_seq_length) go through each layer
    in one operation, or step by step if you replace or subclass parts of a cell, or add hooks to them. The other frames go
    one by one.

    Args:
        num_layers: number of layers.
        num_hidden: list with the channels of each layer.
        configs: with the attributes in_shape (T, C, H, W), patch_size, filter_size, stride, layer_norm, pre_seq_length,
            aft_seq_length and reverse_scheduled_sampling.

    Shapes: frames_tensor [N, T, H / p, W / p, p p C], cut into patches of p = patch_size; mask_true likewise, for the frames
    not known in advance, 1 where the true frame is read and 0 where the predicted one is. Returns the frames from the
    second on, [N, pre + aft - 1, H / p, W / p, p p C], and their mean squared error, or None with return_loss=False.

    Parameters: cell_list.{l} as in `ConvLSTMCell`, conv_last.weight [p p C, C_top, 1, 1].

    Source: github.com/chengtan9907/OpenSTL; X. Shi et al., Convolutional LSTM Network, NeurIPS 2015.

    Example:
        >>> from types import SimpleNamespace
        >>> from amstel.interop.openstl import ConvLSTM_Model
        >>> configs = SimpleNamespace(in_shape=(4, 1, 16, 16), patch_size=4, filter_size=5, stride=1, layer_norm=0,
        ...                           pre_seq_length=4, aft_seq_length=3, reverse_scheduled_sampling=0)
        >>> model = ConvLSTM_Model(2, [8, 8], configs)
        >>> frames, mask = torch.rand(2, 7, 4, 4, 16), torch.zeros(2, 2, 4, 4, 16)
        >>> next_frames, loss = model(frames, mask)
        >>> next_frames.shape, loss.shape
        (torch.Size([2, 6, 4, 4, 16]), torch.Size([]))
    """

    def __init__(self, num_layers: int, num_hidden: Sequence[int], configs: Any, **kwargs: Any):
        super().__init__()
        _, channels, height, width = configs.in_shape
        patch = _check.integer("configs.patch_size", configs.patch_size, 1)
        self.configs, self.frame_channel = configs, patch * patch * channels
        self.num_layers, self.num_hidden = _check.integer("num_layers", num_layers, 1), num_hidden
        if len(num_hidden) != num_layers:
            raise ValueError(f"`num_hidden` must be a list of num_layers = {num_layers}, got {num_hidden!r}")
        self.MSE_criterion = nn.MSELoss()
        more = (height // patch, width // patch, configs.filter_size, configs.stride, configs.layer_norm)
        inputs = [self.frame_channel, *num_hidden]
        self.cell_list = nn.ModuleList(
            ConvLSTMCell(inputs[k], num_hidden[k], *more) for k in range(num_layers)
        )
        self.conv_last = nn.Conv2d(num_hidden[-1], self.frame_channel, 1, bias=False)

    def forward(
        self, frames_tensor: Tensor, mask_true: Tensor, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        configs = self.configs
        expected = f"a tensor [N, T, H, W, {self.frame_channel}]"
        for name, value in (("frames_tensor", frames_tensor), ("mask_true", mask_true)):
            if _check.tensor(name, value, expected).dim() != 5 or value.shape[-1] != self.frame_channel:
                _check.fail(name, expected, value)
        check_like_model("frames_tensor", frames_tensor, self)
        # Time comes first here.
        frames, mask = (t.permute(1, 0, 4, 2, 3) for t in (frames_tensor, mask_true))
        count = configs.pre_seq_length + configs.aft_seq_length - 1
        reverse = configs.reverse_scheduled_sampling == 1
        known = 1 if reverse else min(count, configs.pre_seq_length)
        for name, value, least in (("frames_tensor", frames, count), ("mask_true", mask, count - known)):
            if len(value) < least:
                raise ValueError(
                    f"`{name}` must have T of at least {least} for {counted(count, 'frame')} to draw, got {len(value)}"
                )
        states: list[State] = []
        for width in self.num_hidden:
            zeros = frames.new_zeros(frames.shape[1], width, *frames.shape[3:])
            states.append((zeros, zeros))
        x = frames[:known]
        for k, cell in enumerate(self.cell_list):
            x, states[k] = _sequence(cell, x, states[k])
        if is_plain_conv(self.conv_last) and not has_hooks(self.conv_last):
            drawn = list(self.conv_last(x.flatten(0, 1)).unflatten(0, x.shape[:2]).unbind(0))
        else:
            drawn = [self.conv_last(frame) for frame in x]
        for t in range(known, count):
            true = mask[t - known].to(frames.dtype)
            x = true * frames[t] + (1 - true) * drawn[-1]
            for k, cell in enumerate(self.cell_list):
                states[k] = cell(x, *states[k])
                x = states[k][0]
            drawn.append(self.conv_last(x))
        next_frames = torch.stack(drawn).permute(1, 0, 3, 4, 2).contiguous()
        loss = None
        if kwargs.get("return_loss", True):
            loss = self.MSE_criterion(next_frames, frames_tensor[:, 1:])
        return next_frames, loss


def _sequence(cell: Any, x: Tensor, state: State) -> tuple[Tensor, State]:
    """x [T, N, C_in, H, W] through a cell: in one operation, or step by step where more than two convolutions takes part."""
    if computes_as(cell, ConvLSTMCell):
        parts = cell.conv_x, cell.conv_h
        if all(_is_convolution(part) for part in parts) and not has_hooks(cell):
            x_weight, h_weight = (part[0].weight for part in parts)
            return conv_lstm(x, x_weight, h_weight, None, state)
    h, c = state
    outputs = []
    for frame in x:
        h, c = cell(frame, h, c)
        outputs.append(h)
    return torch.stack(outputs), (h, c)


def _is_convolution(part: Any) -> bool:
    """Whether conv_x or conv_h is its weight alone."""
    return (
        computes_as(part, nn.Sequential)
        and len(part) == 1
        and is_plain_conv(part[0])
        and part[0].bias is None
        and not has_hooks(part, part[0])
    )
