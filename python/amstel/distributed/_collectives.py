"""The collectives of torch.distributed as this package uses them. With a single process they do nothing; if a rank is
lost, every other one raises a one-line ConnectionError."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, distributed


def place(group: Any = None) -> tuple[int, int]:
    """Number of this process, and how many there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(group), distributed.get_world_size(group)
    return 0, 1


@contextlib.contextmanager
def _connected(group: Any) -> Iterator[None]:
    """Errors of the connection as what they are."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        rank, world = place(group)
        raise ConnectionError(
            f"rank {rank} of {world} lost the connection to another rank: {reason(error)}"
        ) from error


def reason(error: BaseException) -> str:
    """The first sentence of an error of the backend, without the lines of its source."""
    said = re.sub(r"\[[^][]*\.(cc|cpp|h):\d+\]", "", str(error))
    return " ".join(said.split(". ")[0].split())[:160]


class Pending:
    """Rows on their way."""

    def __init__(self, rows: Tensor, work: Any, group: Any, kept: Tensor):
        self._rows, self._work, self._group, self._kept = rows, work, group, kept

    def wait(self) -> Tensor:
        if self._work is not None:
            with _connected(self._group):
                self._work.wait()
        return self._rows


def all_to_all(rows: Tensor, send: Sequence[int], receive: Sequence[int], group: Any = None) -> Pending:
    """Begin to send send[r] of the rows, in their order, to each rank r, and to receive receive[r] from it."""
    _, world = place(group)
    if world == 1:
        return Pending(rows, None, group, rows)
    rows = rows.contiguous()
    out = rows.new_empty(sum(receive), *rows.shape[1:])
    # Gloo has no bfloat16, but moving bytes is all that is asked.
    a, b = (t.view(torch.uint8) if t.dtype == torch.bfloat16 and t.dim() > 1 else t for t in (out, rows))
    with _connected(group):
        work = distributed.all_to_all_single(a, b, list(receive), list(send), group=group, async_op=True)
    return Pending(out, work, group, rows)


def all_reduce(value: Tensor, group: Any = None) -> Tensor:
    """The sum over all ranks, in place."""
    if place(group)[1] > 1:
        with _connected(group):
            distributed.all_reduce(value, group=group)
    return value


def broadcast(value: Tensor, group: Any = None) -> Tensor:
    """What rank 0 has, in place."""
    if place(group)[1] > 1:
        with _connected(group):
            distributed.broadcast(value, group=group, group_src=0)
    return value


def gather(value: Any, group: Any = None) -> list[Any]:
    """The objects of all ranks, in their order."""
    world = place(group)[1]
    if world == 1:
        return [value]
    found: list[Any] = [None] * world
    with _connected(group):
        distributed.all_gather_object(found, value, group=group)
    return found


@contextlib.contextmanager
def together(group: Any = None) -> Iterator[None]:
    """What goes wrong in one rank goes wrong in all of them, so that none waits for the others for ever."""
    failed: Exception | None = None
    try:
        yield
    except Exception as error:
        failed = error
    for found in gather(failed if failed is None or _travels(failed) else ValueError(str(failed)), group):
        if found is not None:
            raise failed or found


def _travels(error: Exception) -> bool:
    return type(error).__module__ == "builtins" and len(error.args) <= 1
