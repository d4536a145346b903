"""VideoLSTM, ConvALSTM, and the fusion of an RGB and a flow stream.

The models, with the baselines of `video_baselines`, map features of T frames to class scores after every step and,
where they attend, to one attention map per step. They are causal: a step's outputs depend on no later frame (except with
initial_state="mean").
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from amstel import _check
from amstel.nn._conv_lstm import State, _Weights
from amstel.nn._lengths import kept as _kept
from amstel.nn._video import INITIAL_STATES, Returns, _choice, _mask, _Sequence, _softmax, _summary
from amstel.nn.conv_lstm import _pair, _widths
from amstel.nn.video_baselines import ALSTM, ConvLSTMClassifier, LSTMClassifier
from amstel.ops.conv_lstm import conv_lstm_cell
from amstel.reference.conv_lstm import same_conv

__all__ = [
    "ALSTM",
    "INITIAL_STATES",
    "ConvALSTM",
    "ConvLSTMClassifier",
    "LSTMClassifier",
    "VideoLSTM",
    "fuse",
    "predict",
]


def fuse(rgb_logits: Tensor, flow_logits: Tensor) -> Tensor:
    r"""Late fusion of two streams: p_k proportional to p_k(rgb) p_k(flow), normalized to sum to 1.

    Takes logits or log-probabilities [..., K]. `fuse(predict(a).log(), predict(b).log())` fuses the predictions for
    whole clips. Differentiable.

    Source: Z. Li et al., VideoLSTM Convolves, Attends and Flows for Action Recognition, CVIU 2018 (arXiv 1607.01794),
    section 4.

    Example:
        >>> amstel.nn.fuse(torch.tensor([0.6, 0.4]).log(), torch.tensor([0.6, 0.4]).log())
        tensor([0.6923, 0.3077])
    """
    _check.dense("rgb_logits", rgb_logits, "a tensor [..., K]")
    _check.dense("flow_logits", flow_logits, "a tensor [..., K]")
    if rgb_logits.dim() == 0 or rgb_logits.shape != flow_logits.shape:
        _check.fail("flow_logits", f"of the shape of `rgb_logits`, {list(rgb_logits.shape)}", flow_logits)
    return (rgb_logits.log_softmax(-1) + flow_logits.log_softmax(-1)).softmax(-1)


def predict(logits: Tensor, lengths: Tensor | None = None, batch_first: bool = False) -> Tensor:
    """Class probabilities of clips [N, K]: the softmax of logits [T, N, K], averaged over the steps.

    Example:
        >>> amstel.nn.predict(torch.zeros(4, 1, 2))
        tensor([[0.5000, 0.5000]])
    """
    _check.dense("logits", logits, "a tensor [T, N, K]")
    if logits.dim() != 3:
        _check.fail("logits", "[N, T, K]" if batch_first else "[T, N, K]", logits)
    steps = (logits.transpose(0, 1) if batch_first else logits).softmax(-1)
    kept = _kept(lengths, steps.shape[0], steps.shape[1], logits.device)
    if kept is None:
        return steps.mean(0)
    total = torch.where(kept[..., None], steps, steps.new_zeros(())).sum(0)
    return total / kept.sum(0)[:, None]


class ConvALSTM(_Sequence):
    r"""A ConvLSTM on feature maps weighted by attention.

    Z_t = W_z * tanh(W_xa * X_t + W_ha * H_{t-1} + b_a) with 1x1 convolutions, A_t = softmax of Z_t over the map,
    X~_t = A_t ⊙ X_t, not summed and not rescaled, H_t = ConvLSTM(X~_t, H_{t-1}), and the head of
    `ConvLSTMClassifier`. W_xa * X is computed for all steps at once; the rest depends on H_{t-1}.

    Args:
        in_channels, hidden_channels, num_classes: C of the features, channels of the ConvLSTM, K.
        kernel_size: side of the kernels of the ConvLSTM and of the initial state.
        feature_size: (H, W) of the maps, or one number: the head depends on it.
        attention_channels: width of the attention's hidden layer (default: hidden_channels).
        head_channels: width of the hidden layer of the head.
        dropout: rate before the last layer of the head.
        batch_first: features and results are [N, T, ...].
        initial_state: how H_0 and C_0 are computed. "first": tanh(W * X_1 + b) from the first frame, which keeps the
            model causal; "mean": from the mean over all frames, as in the paper, so every step depends on the whole
            clip; "zeros".

    Shapes: features [T, N, C, H, W]; lengths None or [N] integers from 1 to T: frames past the end of a clip
    are ignored and get no gradient, and logits and attention are 0 there.
    Returns logits [T, N, K] and attention [T, N, H, W], each map of which sums to 1.

    Uniform attention divides the features by H W. W_xi is therefore initialized with a spread larger by sqrt(H W), so
    the gates see the input from the first training step, and are not swamped once the attention is sharp.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Source: Z. Li et al., VideoLSTM Convolves, Attends and Flows for Action Recognition, CVIU 2018 (arXiv 1607.01794),
    section 3.2.

    Example:
        >>> model = amstel.nn.ConvALSTM(16, 8, num_classes=3)
        >>> logits, attention = model(torch.randn(5, 2, 16, 7, 7))
        >>> attention.shape
        torch.Size([5, 2, 7, 7])
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        num_classes: int,
        *,
        kernel_size: int | tuple[int, int] = 3,
        feature_size: int | tuple[int, int] = (7, 7),
        attention_channels: int | None = None,
        head_channels: int = 1024,
        dropout: float = 0.7,
        batch_first: bool = False,
        initial_state: str = "first",
    ):
        size = _pair("feature_size", feature_size)
        _widths(in_channels=in_channels, hidden_channels=hidden_channels)
        attention_channels = hidden_channels if attention_channels is None else attention_channels
        _widths(attention_channels=attention_channels)
        super().__init__(
            in_channels,
            hidden_channels,
            num_classes,
            hidden_channels * size[0] * size[1],
            head_channels,
            dropout,
            batch_first,
        )
        self.feature_size = size
        self.initial_state = _choice(initial_state)
        self.lstm = _Weights(in_channels, hidden_channels, kernel_size, bias=True, peephole=False)
        with torch.no_grad():
            self.lstm.weight_ih.mul_((size[0] * size[1]) ** 0.5)
        self.attend_x = nn.Conv2d(in_channels, attention_channels, 1)
        self.attend_h = nn.Conv2d(hidden_channels, attention_channels, 1, bias=False)
        self.attend = nn.Conv2d(attention_channels, 1, 1, bias=False)
        self.initial = self._initial(in_channels)

    def _initial(self, channels: int) -> _Initial | None:
        if self.initial_state == "zeros":
            return None
        kernel = self.lstm.weight_ih.shape[2:]
        return _Initial(channels, 2 * self.hidden_channels, kernel, self.initial_state)

    def _start(self, initial: _Initial | None, x: Tensor, kept: Tensor | None) -> State:
        if initial is None:
            zeros = x.new_zeros(x.shape[1], self.hidden_channels, *x.shape[3:])
            return zeros, zeros
        h, c = initial(x, kept).chunk(2, 1)
        return h, c

    def _attention(self, from_x: Tensor, h: Tensor) -> Tensor:
        return _softmax(self.attend(torch.tanh(from_x + self.attend_h(h))))

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Returns:
        """Logits [T, N, K] and attention [T, N, H, W] for features [T, N, C, H, W], lengths [N] or None."""
        x = self._maps("features", features, self.in_channels, self.feature_size)
        kept = _kept(lengths, x.shape[0], x.shape[1], x.device)
        x = _mask(x, kept)
        h, c = self._start(self.initial, x, kept)
        from_x = self.attend_x(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        weight_ih, weight_hh, bias = self.lstm()
        weight = torch.cat([weight_ih, weight_hh], 1)
        outputs, maps = [], []
        for frame, seen in zip(x, from_x, strict=True):
            attention = self._attention(seen, h)
            gates = same_conv(torch.cat([attention * frame, h], 1), weight, bias)
            h, c = conv_lstm_cell(gates, c)
            outputs.append(h)
            maps.append(attention[:, 0])
        return self._returns(torch.stack(outputs), torch.stack(maps), kept)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.hidden_channels}, {self.num_classes}, feature_size={self.feature_size}, "
            f"initial_state={self.initial_state!r}"
        )


class _Initial(nn.Module):
    """tanh of a convolution of the first frame or of the mean over time: both parts of a state."""

    def __init__(self, channels: int, out_channels: int, kernel: Sequence[int], how: str):
        super().__init__()
        conv = nn.Conv2d(channels, out_channels, tuple(kernel))  # type: ignore[arg-type]
        self.weight, self.bias, self.how = conv.weight, conv.bias, how

    def forward(self, x: Tensor, kept: Tensor | None) -> Tensor:
        return same_conv(_summary(x, kept, self.how), self.weight, self.bias).tanh()


class VideoLSTM(ConvALSTM):
    r"""`ConvALSTM` whose attention follows motion: it comes from a second ConvLSTM, on flow features.

    The bottom ConvLSTM reads the flow features M and the top state. It only drives the attention:

        gates^m_t = W_xm * M_t + W_hm * H^m_{t-1} + W_em * H_{t-1} + b_m,   H^m_t = cell(gates^m_t)
        Z_t = W_z * tanh(W_xa * X_t + W_ha * H^m_t + b_a),   A_t = softmax of Z_t over the map
        H_t = ConvLSTM(A_t ⊙ X_t, H_{t-1})

    W_xm * M and W_xa * X are computed for all steps at once.

    Args:
        in_channels, hidden_channels, num_classes: C of the RGB features, channels of both ConvLSTMs, K.
        flow_channels: C' of the flow features (default: in_channels).
        kernel_size: side of the kernels of both ConvLSTMs and of the initial states.
        feature_size: (H, W) of the maps, or one number: the head depends on it.
        attention_channels: width of the attention's hidden layer (default: hidden_channels).
        head_channels: width of the hidden layer of the head.
        dropout: rate before the last layer of the head.
        batch_first: features and results are [N, T, ...].
        initial_state: as for `ConvALSTM`; the bottom state is computed from the flow features.

    Shapes: rgb_features [T, N, C, H, W], flow_features [T, N, C', H, W]; lengths None or [N] integers from 1 to T:
    frames past the end of a clip are ignored and get no gradient, and logits and attention are 0 there.
    Returns logits [T, N, K] and attention [T, N, H, W], each map of which sums to 1.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Source: Z. Li et al., VideoLSTM Convolves, Attends and Flows for Action Recognition, CVIU 2018 (arXiv 1607.01794),
    section 3.3.

    Example:
        >>> model = amstel.nn.VideoLSTM(16, 8, num_classes=3, flow_channels=4)
        >>> logits, attention = model(torch.randn(5, 2, 16, 7, 7), torch.randn(5, 2, 4, 7, 7))
        >>> attention.shape
        torch.Size([5, 2, 7, 7])
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        num_classes: int,
        *,
        flow_channels: int | None = None,
        kernel_size: int | tuple[int, int] = 3,
        feature_size: int | tuple[int, int] = (7, 7),
        attention_channels: int | None = None,
        head_channels: int = 1024,
        dropout: float = 0.7,
        batch_first: bool = False,
        initial_state: str = "first",
    ):
        super().__init__(
            in_channels,
            hidden_channels,
            num_classes,
            kernel_size=kernel_size,
            feature_size=feature_size,
            attention_channels=attention_channels,
            head_channels=head_channels,
            dropout=dropout,
            batch_first=batch_first,
            initial_state=initial_state,
        )
        self.flow_channels = in_channels if flow_channels is None else flow_channels
        _widths(flow_channels=self.flow_channels)
        # W_hm and W_em side by side, for they are always used together: weight_hh [4C, 2C, k, k].
        self.motion = _Weights(self.flow_channels, hidden_channels, kernel_size, bias=True, peephole=False)
        spread = 1 / (self.lstm.weight_hh[0].numel() * 2 + self.motion.weight_ih[0].numel()) ** 0.5
        both = torch.empty(4 * hidden_channels, 2 * hidden_channels, *self.lstm.weight_hh.shape[2:])
        self.motion.weight_hh = nn.Parameter(both.uniform_(-spread, spread))
        self.motion_initial = self._initial(self.flow_channels)

    def forward(  # type: ignore[override]
        self, rgb_features: Tensor, flow_features: Tensor, lengths: Tensor | None = None
    ) -> Returns:
        """Logits [T, N, K] and attention [T, N, H, W] for features [T, N, C, H, W] of both streams, lengths [N] or None."""
        x = self._maps("rgb_features", rgb_features, self.in_channels, self.feature_size)
        m = self._maps("flow_features", flow_features, self.flow_channels, self.feature_size)
        if m.shape[:2] != x.shape[:2]:
            _check.fail(
                "flow_features", f"of the {list(rgb_features.shape[:2])} of `rgb_features`", flow_features
            )
        kept = _kept(lengths, x.shape[0], x.shape[1], x.device)
        x, m = _mask(x, kept), _mask(m, kept)
        h, c = self._start(self.initial, x, kept)
        h_m, c_m = self._start(self.motion_initial, m, kept)
        from_x = self.attend_x(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        motion_ih, motion_hh, motion_bias = self.motion()
        from_m = same_conv(m.flatten(0, 1), motion_ih, motion_bias).unflatten(0, m.shape[:2])
        weight_ih, weight_hh, bias = self.lstm()
        weight = torch.cat([weight_ih, weight_hh], 1)
        outputs, maps = [], []
        for frame, seen, moved in zip(x, from_x, from_m, strict=True):
            gates = moved + same_conv(torch.cat([h_m, h], 1), motion_hh)
            h_m, c_m = conv_lstm_cell(gates, c_m)
            attention = self._attention(seen, h_m)
            gates = same_conv(torch.cat([attention * frame, h], 1), weight, bias)
            h, c = conv_lstm_cell(gates, c)
            outputs.append(h)
            maps.append(attention[:, 0])
        return self._returns(torch.stack(outputs), torch.stack(maps), kept)
