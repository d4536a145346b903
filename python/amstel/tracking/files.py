"""Boxes in text files, in the format that trackers commonly use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import Tensor

from amstel import _files
from amstel.data.sequences import check_origin, read_numbers
from amstel.tracking.evaluation import check_boxes


def write_boxes(file: str | os.PathLike, boxes: Any, origin: int = 0) -> Path:
    """Write boxes [T, 4] as lines `x,y,w,h` with 10 digits, `nan` for a missing box. The file is complete or unchanged.

    Args:
        file: the file to write.
        boxes: 0-based, as everywhere in amstel.
        origin: number of the first pixel in the file: 0, or 1 as in the toolkits of OTB, GOT-10k and pysot.

    Raises:
        ValueError: a wrong shape, or another `origin`.
        OSError: the file cannot be written; an existing one is unchanged.

    Example:
        >>> path = amstel.tracking.write_boxes("boxes.txt", [[1, 2, 3, 4.5]])
    """
    found = check_boxes("boxes", boxes)
    rows = found + found.new_tensor([1, 1, 0, 0]) * check_origin(origin)
    text = "".join(",".join(f"{value:.10g}" for value in row) + "\n" for row in rows.tolist())
    return _files.write_text(file, text)


def read_boxes(file: str | os.PathLike, origin: int = 0) -> Tensor:
    """Read boxes from a file with four numbers per line: float64 [T, 4], 0-based; the inverse of `write_boxes`.

    Args:
        file: the file to read, with commas, semicolons, tabs or blanks between the numbers.
        origin: number of the first pixel in the file, 0 or 1.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line that is not four numbers, with file and line, or no line; another `origin`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = amstel.tracking.write_boxes(f"{folder}/a.txt", torch.tensor([[4.0, 8, 16, 32]]), origin=1)
        ...     file.read_text(), amstel.tracking.read_boxes(file, origin=1)
        ('5,9,16,32\\n', tensor([[ 4.,  8., 16., 32.]], dtype=torch.float64))
    """
    file = Path(file)
    boxes = read_numbers(file, 4)
    if not len(boxes):
        raise ValueError(f"{file} must hold boxes, four numbers per line, got none")
    return boxes - boxes.new_tensor([1, 1, 0, 0]) * check_origin(origin)
