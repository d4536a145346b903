"""Common to the video models: checks, the order of dimensions, lengths, and the head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from amstel import _check
from amstel._torch import wide
from amstel.nn._like import check_like_model
from amstel.nn._placed import Placed
from amstel.nn.conv_lstm import _widths

INITIAL_STATES = ("first", "mean", "zeros")

Returns = tuple[Tensor, Tensor | None]


class _Sequence(nn.Module, metaclass=Placed):
    """What the models share: checks, the order of dimensions, `lengths`, the head of every step."""

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
        dropout = _check.number("dropout", dropout, "in [0, 1)", least=0, below=1)
        self.in_channels, self.hidden_channels, self.num_classes = in_channels, hidden_channels, num_classes
        self.batch_first = _check.flag("batch_first", batch_first)
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
        _check.dense(name, x, f"a tensor {expected}")
        ranks = (3, 5) if vectors else (5,)
        if x.dim() not in ranks or x.shape[2] != channels or not x.is_floating_point():
            _check.fail(name, f"floating-point {expected}", x)
        if x.dim() == 5 and size is not None and tuple(x.shape[3:]) != size:
            _check.fail(name, f"{expected} (`feature_size` is {size})", x)
        check_like_model(name, x, self)
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
    total = wide(x).sum(0)
    return (total / kept.sum(0).to(total.dtype).view(-1, *[1] * (x.dim() - 2))).to(x.dtype)


def _choice(initial_state: str) -> str:
    if initial_state not in INITIAL_STATES:
        _check.fail("initial_state", f"one of {', '.join(map(repr, INITIAL_STATES))}", initial_state)
    return initial_state


def _softmax(scores: Tensor) -> Tensor:
    """Over the places of maps [N, 1, H, W]."""
    return scores.flatten(2).softmax(-1).view_as(scores)
