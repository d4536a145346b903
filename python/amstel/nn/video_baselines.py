"""Baselines for VideoLSTM: single frames, LSTM, ALSTM and ConvLSTM, with class scores after every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from amstel.nn._lengths import kept as _kept
from amstel.nn._video import Returns, _choice, _mask, _Sequence, _softmax, _summary
from amstel.nn.conv_lstm import ConvLSTM, _pair, _widths
from amstel.ops._raw import transformed
from amstel.ops.conv_lstm import conv_lstm, conv_lstm_cell


class FrameClassifier(_Sequence):
    r"""Class scores for each frame on its own: the baseline without memory.

    logits_t = W_2 dropout(tanh(W_1 x_t + b_1)) + b_2, with x_t the features averaged over the map;
    `amstel.nn.predict` averages the scores of a clip's frames.

    Args:
        in_channels, num_classes: C of the features, K.
        hidden_channels, feature_size, attention_channels: not used; accepted so that all models have the same constructor.
        head_channels: width of the hidden layer of the head.
        dropout: rate before the last layer of the head.
        batch_first: features and results are [N, T, ...].

    Shapes: features [T, N, C], or [T, N, C, H, W], which are averaged over the map; lengths None or [N] integers from
    1 to T: frames past the end of a clip are ignored and get no gradient, and logits are 0 there.
    Returns logits [T, N, K] and None.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Source: K. Simonyan and A. Zisserman, Two-Stream Convolutional Networks for Action Recognition in Videos, NeurIPS
    2014, section 2, with the head that the other models have.

    Example:
        >>> model = amstel.nn.FrameClassifier(16, 8, num_classes=3)
        >>> model(torch.randn(5, 2, 16, 7, 7))[0].shape
        torch.Size([5, 2, 3])
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        num_classes: int,
        *,
        feature_size: int | tuple[int, int] = (7, 7),
        attention_channels: int | None = None,
        head_channels: int = 1024,
        dropout: float = 0.7,
        batch_first: bool = False,
    ):
        super().__init__(
            in_channels, hidden_channels, num_classes, in_channels, head_channels, dropout, batch_first
        )

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Returns:
        """Logits [T, N, K] and None for features [T, N, C] or [T, N, C, H, W], lengths [N] or None."""
        x = self._maps("features", features, self.in_channels, None, vectors=True)
        kept = _kept(lengths, x.shape[0], x.shape[1], x.device)
        x = _mask(x, kept)
        return self._returns(x.mean((3, 4)) if x.dim() == 5 else x, None, kept)


class LSTMClassifier(_Sequence):
    r"""An LSTM on one vector per frame, with class scores after every step: the baseline without feature maps.

    h_t = LSTM(x_t, h_{t-1}), logits_t = W_2 dropout(tanh(W_1 h_t + b_1)) + b_2, with x_t the features averaged over the
    map.

    Args:
        in_channels, hidden_channels, num_classes: C of the features, width of the LSTM, K.
        feature_size, attention_channels: not used; accepted so that all models have the same constructor.
        head_channels: width of the hidden layer of the head.
        dropout: rate before the last layer of the head.
        batch_first: features and results are [N, T, ...].

    Shapes: features [T, N, C], or [T, N, C, H, W], which are averaged over the map; lengths None or [N] integers from
    1 to T: frames past the end of a clip are ignored and get no gradient, and logits are 0 there.
    Returns logits [T, N, K] and None.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Source: Z. Li et al., VideoLSTM Convolves, Attends and Flows for Action Recognition, CVIU 2018 (arXiv 1607.01794),
    section 3.

    Example:
        >>> model = amstel.nn.LSTMClassifier(16, 8, num_classes=3)
        >>> model(torch.randn(5, 2, 16))[0].shape
        torch.Size([5, 2, 3])
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        num_classes: int,
        *,
        feature_size: int | tuple[int, int] = (7, 7),
        attention_channels: int | None = None,
        head_channels: int = 1024,
        dropout: float = 0.7,
        batch_first: bool = False,
    ):
        super().__init__(
            in_channels, hidden_channels, num_classes, hidden_channels, head_channels, dropout, batch_first
        )
        self.lstm = nn.LSTM(in_channels, hidden_channels)

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Returns:
        """Logits [T, N, K] and None for features [T, N, C] or [T, N, C, H, W], lengths [N] or None."""
        x = self._maps("features", features, self.in_channels, None, vectors=True)
        kept = _kept(lengths, x.shape[0], x.shape[1], x.device)
        x = _mask(x, kept)
        return self._returns(self._run(x.mean((3, 4)) if x.dim() == 5 else x), None, kept)

    def _run(self, x: Tensor) -> Tensor:
        """The LSTM; as a ConvLSTM of maps of one pixel under torch.func, which has no rules for torch's."""
        if not transformed():
            return self.lstm(x)[0]
        lstm: Any = self.lstm
        weights = lstm.weight_ih_l0[..., None, None], lstm.weight_hh_l0[..., None, None]
        return conv_lstm(x[..., None, None], *weights, lstm.bias_ih_l0 + lstm.bias_hh_l0)[0][..., 0, 0]


class ALSTM(_Sequence):
    r"""An LSTM that reads the features at the positions it attends to (soft attention).

    z_t(p) = w_z · tanh(W_xa x_t(p) + W_ha h_{t-1} + b_a) at every position p of the map, a_t = softmax over p of z_t,
    h_t = LSTM(sum_p a_t(p) x_t(p), h_{t-1}), and the head of `LSTMClassifier`.

    Args:
        in_channels, hidden_channels, num_classes: C of the features, width of the LSTM, K.
        feature_size: (H, W) of the maps, or one number. Not used, because any size works; accepted so that all models have the
            same constructor.
        attention_channels: width of the attention's hidden layer (default: hidden_channels).
        head_channels: width of the hidden layer of the head.
        dropout: rate before the last layer of the head.
        batch_first: features and results are [N, T, ...].
        initial_state: how h_0 and c_0 are computed. "first": tanh(W x_1 + b) from the first frame, averaged over the
            map, which keeps the model causal; "mean": from the mean over all frames, as in the paper, so every step
            depends on the whole clip; "zeros".

    Shapes: features [T, N, C, H, W]; lengths None or [N] integers from 1 to T: frames past the end of a clip
    are ignored and get no gradient, and logits and attention are 0 there.
    Returns logits [T, N, K] and attention [T, N, H, W], each map of which sums to 1.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Source: S. Sharma, R. Kiros and R. Salakhutdinov, Action Recognition using Visual Attention, 2015 (arXiv
    1511.04119); with the two-layer attention of Li et al. (arXiv 1607.01794), section 3.

    Example:
        >>> model = amstel.nn.ALSTM(16, 8, num_classes=3)
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
        feature_size: int | tuple[int, int] = (7, 7),
        attention_channels: int | None = None,
        head_channels: int = 1024,
        dropout: float = 0.7,
        batch_first: bool = False,
        initial_state: str = "first",
    ):
        super().__init__(
            in_channels, hidden_channels, num_classes, hidden_channels, head_channels, dropout, batch_first
        )
        attention_channels = hidden_channels if attention_channels is None else attention_channels
        _widths(attention_channels=attention_channels)
        self.initial_state = _choice(initial_state)
        self.lstm = nn.LSTMCell(in_channels, hidden_channels)
        self.attend_x = nn.Conv2d(in_channels, attention_channels, 1)
        self.attend_h = nn.Linear(hidden_channels, attention_channels, bias=False)
        self.attend = nn.Conv2d(attention_channels, 1, 1, bias=False)
        self.initial = None if initial_state == "zeros" else nn.Linear(in_channels, 2 * hidden_channels)

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Returns:
        """Logits [T, N, K] and attention [T, N, H, W] for features [T, N, C, H, W], lengths [N] or None."""
        x = self._maps("features", features, self.in_channels, None)
        kept = _kept(lengths, x.shape[0], x.shape[1], x.device)
        x = _mask(x, kept)
        if self.initial is None:
            h = c = x.new_zeros(x.shape[1], self.hidden_channels)
        else:
            h, c = self.initial(_summary(x, kept, self.initial_state).mean((2, 3))).tanh().chunk(2, 1)
        from_x = self.attend_x(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        outputs, maps = [], []
        for frame, seen in zip(x, from_x, strict=True):
            scores = self.attend(torch.tanh(seen + self.attend_h(h)[..., None, None]))
            attention = _softmax(scores)
            h, c = self._step((attention * frame).sum((2, 3)), h, c)
            outputs.append(h)
            maps.append(attention[:, 0])
        return self._returns(torch.stack(outputs), torch.stack(maps), kept)

    def _step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The LSTM's step; by the cell of ConvLSTM under torch.func, which has no rules for torch's."""
        lstm = self.lstm
        if not transformed():
            return lstm(x, (h, c))
        gates = linear(x, lstm.weight_ih, lstm.bias_ih) + linear(h, lstm.weight_hh, lstm.bias_hh)
        h, c = conv_lstm_cell(gates[..., None, None], c[..., None, None])
        return h[..., 0, 0], c[..., 0, 0]


class ConvLSTMClassifier(_Sequence):
    r"""A ConvLSTM over feature maps, with class scores after every step.

    H_t = ConvLSTM(X_t, H_{t-1}) from a zero state, logits_t = W_2 dropout(tanh(W_1 flatten(H_t) + b_1)) + b_2.

    Args:
        in_channels, hidden_channels, num_classes: C of the features, channels of the ConvLSTM, K.
        kernel_size: side of the kernels of both convolutions.
        feature_size: (H, W) of the maps, or one number: the head depends on it.
        attention_channels: not used; accepted so that all models have the same constructor.
        head_channels: width of the hidden layer of the head.
        dropout: rate before the last layer of the head.
        batch_first: features and results are [N, T, ...].

    Shapes: features [T, N, C, H, W]; lengths None or [N] integers from 1 to T: frames past the end of a clip
    are ignored and get no gradient, and logits are 0 there. Returns logits [T, N, K] and None.

    Raises:
        ValueError or TypeError: an argument is not as described.

    Source: Z. Li et al., VideoLSTM Convolves, Attends and Flows for Action Recognition, CVIU 2018 (arXiv 1607.01794),
    section 3.1.

    Example:
        >>> model = amstel.nn.ConvLSTMClassifier(16, 8, num_classes=3)
        >>> model(torch.randn(5, 2, 16, 7, 7))[0].shape
        torch.Size([5, 2, 3])
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
    ):
        self_size = _pair("feature_size", feature_size)
        _widths(hidden_channels=hidden_channels)
        super().__init__(
            in_channels,
            hidden_channels,
            num_classes,
            hidden_channels * self_size[0] * self_size[1],
            head_channels,
            dropout,
            batch_first,
        )
        self.feature_size = self_size
        self.lstm = ConvLSTM(in_channels, hidden_channels, kernel_size)

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Returns:
        """Logits [T, N, K] and None for features [T, N, C, H, W], lengths [N] or None."""
        x = self._maps("features", features, self.in_channels, self.feature_size)
        kept = _kept(lengths, x.shape[0], x.shape[1], x.device)
        outputs, _ = self.lstm(x, lengths=lengths)
        return self._returns(outputs, None, kept)
