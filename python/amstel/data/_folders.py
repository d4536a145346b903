"""Where data are: the folder that the caller names, or one in the folder that AMSTEL_DATA names."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder(root: str | os.PathLike | None, name: str, owner: str) -> Path:
    """`root`, or the folder `name` in the one that AMSTEL_DATA names."""
    if root is None:
        if "AMSTEL_DATA" not in os.environ:
            raise ValueError(f"{owner}: give `root`, the folder of the clips, or set AMSTEL_DATA")
        root = Path(os.environ["AMSTEL_DATA"]) / name
    root = Path(root)
    if not os.path.isdir(root):
        raise FileNotFoundError(f"{owner}: the folder {root} does not exist")
    return root
