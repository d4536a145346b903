"""RGB and YCbCr of ITU-R BT.601, for super-resolution, where the network enlarges only Y."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# ITU-R BT.601 as studio video has it: Y in 16..235, Cb and Cr in 16..240, of 255.
_YCBCR = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
_OFFSET = np.array([16, 128, 128]) / 255


def to_ycbcr(x: Tensor) -> Tensor:
    """RGB in [0, 1] [N, 3, H, W] to Y, Cb and Cr (BT.601, 16 to 235 and 240 of 255)."""
    matrix, offset = (torch.from_numpy(a).to(x) for a in (_YCBCR, _OFFSET))
    return torch.einsum("oc,nchw->nohw", matrix, x) + offset[:, None, None]


def from_ycbcr(x: Tensor) -> Tensor:
    """The inverse of `to_ycbcr`."""
    matrix, offset = (torch.from_numpy(a).to(x) for a in (np.linalg.inv(_YCBCR), _OFFSET))
    return torch.einsum("oc,nchw->nohw", matrix, x - offset[:, None, None])
