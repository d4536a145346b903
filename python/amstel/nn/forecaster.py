"""The ConvLSTM encoder-forecaster: it reads frames and predicts the next ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amstel import _check
from amstel.nn._conv_lstm import check_size
from amstel.nn._like import check_like_model
from amstel.nn.conv_lstm import ConvLSTM


class ConvLSTMForecaster(nn.Module):
    r"""Two stacks of ConvLSTMs: one reads the frames, and the other continues from its states and predicts the next
    ones.

    Frames are cut into squares of `patch` pixels, which become channels. The last states (H, C) of each encoder layer
    are the initial states of the forecaster, whose input is zero. A 1x1 convolution of the outputs of all its layers
    gives the logits of the pixels in the next frames.

    Args:
        in_channels: of the frames.
        hidden_channels: of every layer, or a list with one per layer; both stacks are the same.
        kernel_size: of every layer, or a list with one per layer.
        patch: side of the squares; must divide the height and width of the frames.
        batch_first: frames and result begin [N, T].
        feature_size: (H, W) of the frames counted in patches, so their height and width divided by `patch`, or one
            number; for parameters that depend on it, as of `ConvLSTM`.
        device, dtype: of the parameters.
        options: further options of `ConvLSTM` that keep the size of the maps: padding_mode, peephole, layer_norm,
            memory, ...

    Shapes: frames [T, N, C, H, W], such as intensities in [0, 1]; steps: the number K of frames to forecast. Returns logits
    [K, N, C, H, W]; their sigmoid is the forecast, and `torch.nn.functional.binary_cross_entropy_with_logits` the
    paper's loss. For frames outside [0, 1], use the logits directly, with another loss.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Source: X. Shi et al., Convolutional LSTM Network: A Machine Learning Approach for Precipitation Nowcasting,
    NeurIPS 2015, section 3.2 and figure 3.

    Example:
        >>> model = amstel.nn.ConvLSTMForecaster(1, [16, 16], patch=4)
        >>> frames = torch.rand(10, 2, 1, 32, 32)
        >>> model(frames, steps=5).sigmoid().shape
        torch.Size([5, 2, 1, 32, 32])
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int | Sequence[int],
        kernel_size: int | tuple[int, int] | Sequence[int | tuple[int, int]] = 3,
        *,
        patch: int = 1,
        batch_first: bool = False,
        feature_size: int | tuple[int, int] | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ):
        super().__init__()
        self.in_channels = _check.integer("in_channels", in_channels, 1)
        self.patch = _check.integer("patch", patch, 1)
        self.batch_first = _check.flag("batch_first", batch_first)
        wrong = options.keys() & _FIXED
        if wrong:
            raise TypeError(f"ConvLSTMForecaster takes no `{sorted(wrong)[0]}`, which it needs as it is")
        if feature_size is None and str(options.get("peephole")) == "full":
            _check.fail("feature_size", "(H, W) of the frames in patches for peephole='full'", feature_size)
        how: dict[str, Any] = {"device": device, "dtype": dtype}
        options |= {"feature_size": feature_size, **how}
        pixels = self.in_channels * self.patch**2
        self.encoder = ConvLSTM(pixels, hidden_channels, kernel_size, **options)
        # One channel of zeros in place of frames: what its weights would be multiplied with is never there.
        self.forecaster = ConvLSTM(1, hidden_channels, kernel_size, return_all_layers=True, **options)
        hidden = self.encoder.hidden_channels
        widths = hidden if isinstance(hidden, tuple) else (hidden,) * self.encoder.num_layers
        self.readout = nn.Conv2d(sum(widths), pixels, 1, **how)

    def reset_parameters(self) -> None:
        """Reset the parameters of every part."""
        self.encoder.reset_parameters()
        self.forecaster.reset_parameters()
        self.readout.reset_parameters()

    def forward(self, frames: Tensor, steps: int) -> Tensor:
        """Logits [steps, N, C, H, W] of the frames that follow frames [T, N, C, H, W]."""
        order = "N, T" if self.batch_first else "T, N"
        expected = f"floating-point [{order}, {self.in_channels}, H, W]"
        _check.dense("frames", frames, expected)
        if frames.dim() != 5 or frames.shape[2] != self.in_channels or not frames.is_floating_point():
            _check.fail("frames", expected, frames)
        if frames.shape[3] % self.patch or frames.shape[4] % self.patch or 0 in frames.shape[3:]:
            _check.fail("frames", f"of a height and width that `patch` = {self.patch} divides", frames)
        if not frames.shape[1 if self.batch_first else 0]:
            _check.fail("frames", f"{expected}, of at least one step T", frames)
        check_like_model("frames", frames, self)
        size = self.encoder.feature_size
        if size is not None and (frames.shape[3] // self.patch, frames.shape[4] // self.patch) != size:
            height, width = (self.patch * side for side in size)
            of = f"`feature_size` is {size}, in patches of `patch` = {self.patch}"
            _check.fail("frames", f"{height} pixels high and {width} wide ({of})", frames)
        check_size("frames", frames, self.encoder, self.patch)
        steps = _check.integer("steps", steps, 1)
        x = frames.transpose(0, 1) if self.batch_first else frames
        x = F.pixel_unshuffle(x, self.patch)
        _, state = self.encoder(x)
        nothing = x.new_zeros(steps, x.shape[1], 1, *x.shape[3:])
        outputs, _ = self.forecaster(nothing, state)
        logits = self.readout(torch.cat(outputs, 2).flatten(0, 1)).unflatten(0, (steps, x.shape[1]))
        logits = F.pixel_shuffle(logits, self.patch)
        return logits.transpose(0, 1) if self.batch_first else logits


_FIXED = {
    "batch_first",
    "bidirectional",
    "padding",
    "return_all_layers",
    "return_sequences",
    "stateful",
    "stride",
}
