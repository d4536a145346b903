"""`amstel.ops.conv_lstm` and `conv_lstm_cell` in plain PyTorch, step by step.

The reference for the tests, and the formula to read.
"""

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad


def conv_lstm_cell(gates: Tensor, c: Tensor, peephole: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The same values as `amstel.ops.conv_lstm_cell`; differentiable any number of times. It also takes a peephole
    [3, C, H, W], with one weight per position.

    Example:
        >>> gates = torch.tensor([-9.0, 0.0, 0.0, 9.0]).reshape(1, 4, 1, 1)  # i, f, g, o
        >>> h, c = amstel.reference.conv_lstm_cell(gates, torch.ones(1, 1, 1, 1))
        >>> c.item(), round(h.item(), 3)  # half is forgotten, nothing is added, all is shown: tanh(1/2)
        (0.5, 0.462)
    """
    # Short types are summed in float32, the type in which the cell state lives.
    state = torch.promote_types(gates.dtype, torch.float32)
    i, f, g, o = gates.to(state).chunk(4, 1)
    old = c.to(state)
    p = None if peephole is None else peephole.to(state)
    p = p[..., None, None] if p is not None and p.dim() == 2 else p
    i = torch.sigmoid(i if p is None else i + p[0] * old)
    f = torch.sigmoid(f if p is None else f + p[1] * old)
    new = f * old + i * torch.tanh(g)
    o = torch.sigmoid(o if p is None else o + p[2] * new)
    return (o * torch.tanh(new)).to(gates.dtype), new.to(c.dtype)


def same_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, dilation: int = 1) -> Tensor:
    """A convolution that keeps height and width; even kernels pad one more at the bottom and right."""
    before, after = [], []
    for k in weight.shape[2:]:
        total = dilation * (k - 1)
        before.append(total // 2)
        after.append(total - total // 2)
    if before == after:
        return conv2d(x, weight, bias, padding=before, dilation=dilation)
    return conv2d(pad(x, (before[1], after[1], before[0], after[0])), weight, bias, dilation=dilation)


def conv_lstm(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    state: tuple[Tensor, Tensor] | None = None,
    *,
    lengths: Tensor | None = None,
    peephole: Tensor | None = None,
    dilation: int = 1,
    padding: str = "same",
    return_sequences: bool = True,
    state_dtype: torch.dtype | None = None,
    **_: object,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The same values as `amstel.ops.conv_lstm`, but memory and algorithm are ignored.

    Example:
        >>> x, w_ih, w_hh = torch.randn(5, 2, 3, 8, 8), torch.randn(32, 3, 3, 3), torch.randn(32, 8, 3, 3)
        >>> plain, fused = (f(x, w_ih, w_hh)[0] for f in (amstel.reference.conv_lstm, amstel.ops.conv_lstm))
        >>> plain.shape, torch.allclose(plain, fused, atol=1e-4)
        (torch.Size([5, 2, 8, 8, 8]), True)
    """
    steps = x.shape[0]
    kept = None
    if lengths is not None:
        kept = torch.arange(steps, device=x.device)[:, None] < lengths.to(x.device)
        kept = kept[:, :, None, None, None]
        x = torch.where(kept, x, x.new_zeros(()))
    if padding == "same":
        gates = same_conv(x.flatten(0, 1), weight_ih, bias, dilation)
    else:
        gates = conv2d(x.flatten(0, 1), weight_ih, bias, dilation=dilation)
    gates = gates.unflatten(0, x.shape[:2])
    hidden = gates.new_zeros(gates.shape[1], weight_hh.shape[1], *gates.shape[3:])
    wide = torch.promote_types(x.dtype, torch.float32)
    h, c = (hidden, hidden) if state is None else state
    state_dtype, c = c.dtype if state_dtype is None else state_dtype, c.to(wide)
    outputs = []
    for t in range(steps):
        new_h, new_c = conv_lstm_cell(gates[t] + same_conv(h, weight_hh, None, dilation), c, peephole)
        if kept is not None:
            new_h, new_c = torch.where(kept[t], new_h, h), torch.where(kept[t], new_c, c)
        h, c = new_h, new_c
        outputs.append(h)
    output = torch.stack(outputs) if return_sequences else h
    if kept is not None and return_sequences:
        output = torch.where(kept, output, output.new_zeros(()))
    return output, (h, c.to(state_dtype))
