"""The gates of a convolutional GRU in plain PyTorch: the reference for the tests, and the formula to read."""

import torch
from torch import Tensor


def conv_gru_cell(gates_x: Tensor, gates_h: Tensor, h: Tensor) -> Tensor:
    """The same values as `amstel.ops.conv_gru_cell`.

    Example:
        >>> gates, h = torch.zeros(1, 3, 1, 1), torch.ones(1, 1, 1, 1)
        >>> amstel.reference.conv_gru_cell(gates, gates, h).item()  # z = 1/2 keeps half of h, and n is 0
        0.5
    """
    wide = torch.promote_types(h.dtype, torch.float32)
    x_r, x_z, x_n = gates_x.to(wide).chunk(3, 1)
    h_r, h_z, h_n = gates_h.to(wide).chunk(3, 1)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    n = torch.tanh(x_n + r * h_n)
    return ((1 - z) * n + z * h.to(wide)).to(h.dtype)
