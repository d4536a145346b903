"""What differs between the releases of torch that are supported."""

from __future__ import annotations

import torch


def is_exporting() -> bool:
    """torch.compiler.is_exporting(), which torch.compile takes to be true in torch 2.11."""
    return torch.compiler._is_exporting_flag
