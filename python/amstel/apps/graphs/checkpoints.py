"""Checkpoints of graph training: one way to open them, and one error for files that are something else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch


def loaded(path: str | Path, makers: Mapping[str, Callable[[dict[str, Any]], Any]]) -> Any:
    """Open a checkpoint and let the class for its format read the rest.

    Raises:
        OSError or ValueError: the file cannot be read, or is not of one of the formats, or is damaged.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"the checkpoint {path} is a folder; it should be a file")
    if not path.exists():
        raise FileNotFoundError(f"the checkpoint {path} does not exist")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return makers[state.pop("format")](state)
    except OSError as error:
        raise type(error)(f"the checkpoint {path} cannot be read: {error.strerror or error}") from None
    except Exception as error:
        raise ValueError(f"{path} is not a checkpoint of `amstel graphs train`") from error
