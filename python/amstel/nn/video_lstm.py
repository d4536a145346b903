"""VideoLSTM and its ablations: LSTM, ALSTM, ConvLSTM, ConvALSTM, and the fusion of an RGB and a flow stream.

All five map features of T frames to class scores after every step and, where they attend, to one attention map a
step. They are causal: a step's outputs depend on no later frame (except with initial_state="mean").
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from amstel import _check
from amstel.nn.conv_lstm import ConvLSTM, State, _Gates, _pair, _widths
from amstel.ops.conv_lstm import conv_lstm_cell
from amstel.reference.conv_lstm import same_conv

INITIAL_STATES = ("first", "mean", "zeros")

Returns = tuple[Tensor, Tensor | None]


def fuse(rgb_logits: Tensor, flow_logits: Tensor) -> Tensor:
    r"""Late fusion of two streams by product: p_k proportional to p_k(rgb) p_k(flow), which sums to 1.

    Takes logits or log-probabilities [..., K], so that `fuse(predict(a).log(), predict(b).log())` fuses what
    `predict` made of whole clips. Differentiable.

    Source: Z. Li et al., VideoLSTM Convolves, Attends and Flows for Action Recognition, CVIU 2018 (arXiv 1607.01794),
    section 4.

    Example:
        >>> amstel.nn.fuse(torch.tensor([0.6, 0.4]).log(), torch.tensor([0.6, 0.4]).log())
        tensor([0.6923, 0.3077])
    """
    _check.tensor("rgb_logits", rgb_logits, "a tensor [..., K]")
    _check.tensor("flow_logits", flow_logits, "a tensor [..., K]")
    if rgb_logits.dim() == 0 or rgb_logits.shape != flow_logits.shape:
        _check.fail("flow_logits", f"of the shape of `rgb_logits`, {list(rgb_logits.shape)}", flow_logits)
    return (rgb_logits.log_softmax(-1) + flow_logits.log_softmax(-1)).softmax(-1)


def predict(logits: Tensor, lengths: Tensor | None = None, batch_first: bool = False) -> Tensor:
    """Class probabilities of clips [N, K]: the mean over its steps of the softmax of logits [T, N, K].

    Example:
        >>> amstel.nn.predict(torch.zeros(4, 1, 2))
        tensor([[0.5000, 0.5000]])
    """
    _check.tensor("logits", logits, "a tensor [T, N, K]")
    if logits.dim() != 3:
        _check.fail("logits", "[N, T, K]" if batch_first else "[T, N, K]", logits)
    steps = (logits.transpose(0, 1) if batch_first else logits).softmax(-1)
    kept = _kept(lengths, steps.shape[0], steps.shape[1], logits.device)
    if kept is None:
        return steps.mean(0)
    total = torch.where(kept[..., None], steps, steps.new_zeros(())).sum(0)
    return total / kept.sum(0)[:, None]


def _kept(lengths: Tensor | None, steps: int, count: int, device: torch.device) -> Tensor | None:
    """[T, N]: which steps lie before the end of their sequence. None: all do."""
    if lengths is None:
        return None
    expected = f"None or {count} integers from 1 to T = {steps}"
    _check.tensor("lengths", lengths, expected)
    whole = not (lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool)
    if lengths.shape != (count,) or not whole:
        _check.fail("lengths", expected, lengths)
    if count and (int(lengths.min()) < 1 or int(lengths.max()) > steps):
        _check.fail("lengths", expected, lengths.tolist())
    return torch.arange(steps, device=device)[:, None] < lengths.to(device)


class _Sequence(nn.Module):
    """What the five models share: checks, the order of dimensions, `lengths`, the head of every step."""

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        num_classes: int,
        head_features: int,
        head_channels: int,
        dropout: float,
        batch_first: bool,
    ):
        super().__init__()
        _widths(
            in_channels=in_channels,
            hidden_channels=hidden_channels,
            num_classes=num_classes,
            head_channels=head_channels,
        )
        if not 0 <= dropout < 1:
            _check.fail("dropout", "in [0, 1)", dropout)
        self.in_channels, self.hidden_channels, self.num_classes = in_channels, hidden_channels, num_classes
        self.batch_first = batch_first
        self.head = nn.Sequential(
            nn.Linear(head_features, head_channels),
            nn.Tanh(),
            nn.Dropout(dropout),
            nn.Linear(head_channels, num_classes),
        )

    def _maps(
        self, name: str, x: Tensor, channels: int, size: tuple[int, int] | None, vectors: bool = False
    ) -> Tensor:
        """Features as [T, N, C, H, W] (or [T, N, C], where vectors will do), checked."""
        order = "N, T" if self.batch_first else "T, N"
        height, width = size or ("H", "W")
        expected = f"[{order}, {channels}, {height}, {width}]"
        if vectors:
            expected += f" or [{order}, {channels}]"
        _check.tensor(name, x, f"a tensor {expected}")
        ranks = (3, 5) if vectors else (5,)
        if x.dim() not in ranks or x.shape[2] != channels or not x.is_floating_point():
            _check.fail(name, f"floating-point {expected}", x)
        if x.dim() == 5 and size is not None and tuple(x.shape[3:]) != size:
            _check.fail(name, f"{expected} (`feature_size` is {size})", x)
        x = x.transpose(0, 1) if self.batch_first else x
        if x.shape[0] < 1 or 0 in x.shape[3:]:
            _check.fail(name, f"{expected} with at least one step and no empty map", x)
        return x

    def _returns(self, outputs: Tensor, attention: Tensor | None, kept: Tensor | None) -> Returns:
        """Outputs [T, N, ...] of the recurrent part through the head, what lies past the end masked."""
        logits = self.head(outputs.flatten(2).flatten(0, 1)).unflatten(0, outputs.shape[:2])
        if kept is not None:
            logits = torch.where(kept[..., None], logits, logits.new_zeros(()))
        if attention is not None and kept is not None:
            attention = torch.where(kept[..., None, None], attention, attention.new_zeros(()))
        if self.batch_first:
            logits = logits.transpose(0, 1)
            attention = None if attention is None else attention.transpose(0, 1)
        return logits, attention


def _mask(x: Tensor, kept: Tensor | None) -> Tensor:
    """Zeros past the end: whatever lies there, NaN included, is neither read nor differentiated."""
    if kept is None:
        return x
    return torch.where(kept.view(*kept.shape, *[1] * (x.dim() - 2)), x, x.new_zeros(()))


def _summary(x: Tensor, kept: Tensor | None, how: str) -> Tensor:
    """The frame that the initial state is made of: the first one, or the mean over time."""
    if how == "first":
        return x[0]
    if kept is None:
        return x.mean(0)
    return x.sum(0) / kept.sum(0).to(x.dtype).view(-1, *[1] * (x.dim() - 2))


def _choice(initial_state: str) -> str:
    if initial_state not in INITIAL_STATES:
        _check.fail("initial_state", f"one of {', '.join(map(repr, INITIAL_STATES))}", initial_state)
    return initial_state


class LSTMClassifier(_Sequence):
    r"""An LSTM on one vector a frame, with class scores after every step: the baseline without a map.

    h_t = LSTM(x_t, h_{t-1}), logits_t = W_2 dropout(tanh(W_1 h_t + b_1)) + b_2, with x_t the features averaged over the
    map.

    Args:
        in_channels, hidden_channels, num_classes: C of the features, width of the LSTM, K.
        feature_size, attention_channels: not used; taken so that the five models are made alike.
        head_channels: width of the hidden layer of the head.
        dropout: rate before the last layer of the head.
        batch_first: features and results begin [N, T].

    Shapes: features [T, N, C], or [T, N, C, H, W], which are averaged over the map; lengths None or [N] integers from
    1 to T: what lies past the end of a clip is neither read nor differentiated, logits are 0 there.
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
        x = self._maps("features", features, self.in_channels, None, vectors=True)
        kept = _kept(lengths, x.shape[0], x.shape[1], x.device)
        x = _mask(x, kept)
        outputs, _ = self.lstm(x.mean((3, 4)) if x.dim() == 5 else x)
        return self._returns(outputs, None, kept)


class ALSTM(_Sequence):
    r"""An LSTM that reads the features at the places it attends to (soft attention).

    z_t(p) = w_z · tanh(W_xa x_t(p) + W_ha h_{t-1} + b_a) at every place p of the map, a_t = softmax over p of z_t,
    h_t = LSTM(sum_p a_t(p) x_t(p), h_{t-1}), and the head of `LSTMClassifier`.

    Args:
        in_channels, hidden_channels, num_classes: C of the features, width of the LSTM, K.
        feature_size: (H, W) of the maps, or one number. Not used: any size will do; taken so that the models are made
            alike.
        attention_channels: width of the attention's hidden layer (default: hidden_channels).
        head_channels: width of the hidden layer of the head.
        dropout: rate before the last layer of the head.
        batch_first: features and results begin [N, T].
        initial_state: what h_0 and c_0 are made of: "first": tanh(W x_1 + b) of the first frame averaged over the map,
            which keeps the model causal; "mean": of the mean over all frames, as the paper does, so that every step
            depends on the whole clip; "zeros".

    Shapes: features [T, N, C, H, W]; lengths None or [N] integers from 1 to T: what lies past the end of a clip is
    neither read nor differentiated, logits and attention are 0 there.
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
            h, c = self.lstm((attention * frame).sum((2, 3)), (h, c))
            outputs.append(h)
            maps.append(attention[:, 0])
        return self._returns(torch.stack(outputs), torch.stack(maps), kept)


def _softmax(scores: Tensor) -> Tensor:
    """Over the places of maps [N, 1, H, W]."""
    return scores.flatten(2).softmax(-1).view_as(scores)


class ConvLSTMClassifier(_Sequence):
    r"""A ConvLSTM over the feature maps, with class scores after every step.

    H_t = ConvLSTM(X_t, H_{t-1}) from a zero state, logits_t = W_2 dropout(tanh(W_1 flatten(H_t) + b_1)) + b_2.

    Args:
        in_channels, hidden_channels, num_classes: C of the features, channels of the ConvLSTM, K.
        kernel_size: side of the kernels of both convolutions.
        feature_size: (H, W) of the maps, or one number: the head depends on it.
        attention_channels: not used; taken so that the five models are made alike.
        head_channels: width of the hidden layer of the head.
        dropout: rate before the last layer of the head.
        batch_first: features and results begin [N, T].

    Shapes: features [T, N, C, H, W]; lengths None or [N] integers from 1 to T: what lies past the end of a clip is
    neither read nor differentiated, logits are 0 there. Returns logits [T, N, K] and None.

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
        x = self._maps("features", features, self.in_channels, self.feature_size)
        kept = _kept(lengths, x.shape[0], x.shape[1], x.device)
        outputs, _ = self.lstm(x, lengths=lengths)
        return self._returns(outputs, None, kept)


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
        batch_first: features and results begin [N, T].
        initial_state: what H_0 and C_0 are made of: "first": tanh(W * X_1 + b) of the first frame, which keeps the
            model causal; "mean": of the mean over all frames, as the paper does, so that every step depends on the
            whole clip; "zeros".

    Shapes: features [T, N, C, H, W]; lengths None or [N] integers from 1 to T: what lies past the end of a clip is
    neither read nor differentiated, logits and attention are 0 there.
    Returns logits [T, N, K] and attention [T, N, H, W], each map of which sums to 1.

    A uniform attention divides the features by H W. W_xi starts with a spread larger by sqrt(H W), so that the gates
    see the input from the first step of training on, and are not drowned once the attention is sharp.

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
        self.lstm = _Gates(in_channels, hidden_channels, kernel_size, bias=True, peephole=False)
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
        x = self._maps("features", features, self.in_channels, self.feature_size)
        kept = _kept(lengths, x.shape[0], x.shape[1], x.device)
        x = _mask(x, kept)
        h, c = self._start(self.initial, x, kept)
        from_x = self.attend_x(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        weight = torch.cat([self.lstm.weight_ih, self.lstm.weight_hh], 1)
        outputs, maps = [], []
        for frame, seen in zip(x, from_x, strict=True):
            attention = self._attention(seen, h)
            gates = same_conv(torch.cat([attention * frame, h], 1), weight, self.lstm.bias)
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

    The bottom ConvLSTM reads the flow features M and sees the top state too; it feeds the attention only:

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
        batch_first: features and results begin [N, T].
        initial_state: as `ConvALSTM`, for both states: the bottom one is made of the flow features.

    Shapes: rgb_features [T, N, C, H, W], flow_features [T, N, C', H, W]; lengths None or [N] integers from 1 to T: what
    lies past the end of a clip is neither read nor differentiated, logits and attention are 0 there.
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
        self.motion = _Gates(self.flow_channels, hidden_channels, kernel_size, bias=True, peephole=False)
        spread = 1 / (self.lstm.weight_hh[0].numel() * 2 + self.motion.weight_ih[0].numel()) ** 0.5
        both = torch.empty(4 * hidden_channels, 2 * hidden_channels, *self.lstm.weight_hh.shape[2:])
        self.motion.weight_hh = nn.Parameter(both.uniform_(-spread, spread))
        self.motion_initial = self._initial(self.flow_channels)

    def forward(  # type: ignore[override]
        self, rgb_features: Tensor, flow_features: Tensor, lengths: Tensor | None = None
    ) -> Returns:
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
        from_m = same_conv(m.flatten(0, 1), self.motion.weight_ih, self.motion.bias).unflatten(0, m.shape[:2])
        weight = torch.cat([self.lstm.weight_ih, self.lstm.weight_hh], 1)
        outputs, maps = [], []
        for frame, seen, moved in zip(x, from_x, from_m, strict=True):
            gates = moved + same_conv(torch.cat([h_m, h], 1), self.motion.weight_hh)
            h_m, c_m = conv_lstm_cell(gates, c_m)
            attention = self._attention(seen, h_m)
            gates = same_conv(torch.cat([attention * frame, h], 1), weight, self.lstm.bias)
            h, c = conv_lstm_cell(gates, c)
            outputs.append(h)
            maps.append(attention[:, 0])
        return self._returns(torch.stack(outputs), torch.stack(maps), kept)
