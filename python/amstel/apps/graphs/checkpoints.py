"""Checkpoints of graph training: one way to open them, and one error for files that are something else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch

from amstel import _check

#: Formats of checkpoints, and the tasks that write them.
TASKS = {"amstel gcn 1": "node", "amstel graphs 1": "link or graph"}


class WrongTask(ValueError):
    """A checkpoint of another task than the one that is trained."""


def check_same(saved: Any, wanted: Any, names: Iterable[str]) -> None:
    """ValueError for the first of these attributes, or of the fields of one, that is not that of the checkpoint."""
    for name in names:
        was, now = getattr(saved, name), getattr(wanted, name)
        if is_dataclass(was) and type(was) is type(now):
            check_same(was, now, [field.name for field in fields(was)])
        elif was != now:
            _check.fail(name, f"that of the checkpoint, {was!r}", now)


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
        kind = state.pop("format")
        if kind not in makers and kind in TASKS:
            found, wanted = TASKS[kind], " or ".join(TASKS[one] for one in makers)
            raise WrongTask(f"--task must be that of the checkpoint {path}, {found}, got {wanted}")
        return makers[kind](state)
    except WrongTask as error:
        raise ValueError(str(error)) from None
    except OSError as error:
        raise type(error)(f"the checkpoint {path} cannot be read: {error.strerror or error}") from None
    except Exception as error:
        raise ValueError(f"{path} is not a checkpoint of `amstel graphs train`") from error
