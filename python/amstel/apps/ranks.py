"""Several processes at one task, as `torchrun` starts them: who takes what, and how the results come together.

Example:
    >>> ranks = Ranks()                                    # one process: everything is its share
    >>> [outcome.value for outcome in each([1, 2], lambda n: n * n, ranks)]
    [1, 4]
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import distributed

from amstel import _check

Item = TypeVar("Item")
Value = TypeVar("Value")


#: Whether this process was ever one of a group that `group` made.
connected = False


@dataclass(frozen=True)
class Ranks:
    """One process of `world`, with its number and its device."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """What this process does of `items`: every `world`-th."""
        return list(items[self.rank :: self.world])

    def merge(self, results: Sequence[Value]) -> list[Value]:
        """The results of all processes on their shares, in the order of the items; every process gets them."""
        if self.world == 1:
            return list(results)
        parts: list[Any] = [None] * self.world
        distributed.all_gather_object(parts, list(results))
        return [parts[i % self.world][i // self.world] for i in range(sum(map(len, parts)))]


def on(device: Any) -> torch.device:
    """The device that is meant, checked."""
    try:
        return torch.device(device)
    except (TypeError, RuntimeError) as error:
        kind = ValueError if isinstance(device, str) else TypeError
        said = f"a torch.device, or what stands for one, got {_check.describe(device)}"
        raise kind(f"`device` must be {said}") from error


def _numbered(device: str | torch.device) -> torch.device:
    """The GPU that "cuda" means here, by its number, which torch wants in places: LOCAL_RANK's, or the current one."""
    device = torch.device(device)
    if device.type != "cuda" or device.index is not None or not torch.cuda.is_available():
        return device
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return torch.device("cuda", torch.cuda.current_device())


def current(device: str | torch.device = "cpu") -> Ranks:
    """This process in the group that is there, or alone."""
    device = _numbered(device)
    if distributed.is_available() and distributed.is_initialized():
        return Ranks(distributed.get_rank(), distributed.get_world_size(), device)
    return Ranks(device=device)


@contextlib.contextmanager
def group(device: str | torch.device = "cpu") -> Iterator[Ranks]:
    """The processes of `torchrun`, connected for the time of the `with`: by NCCL where they have GPUs, else by Gloo.

    "cuda" is the GPU of the process's LOCAL_RANK. Without torchrun, or in a group that is there already, nothing
    is set up and nothing torn down.
    """
    device = _numbered(device)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world == 1 or distributed.is_initialized():
        yield current(device)
        return
    global connected
    distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    connected = True
    try:
        yield current(device)
    finally:
        distributed.destroy_process_group()


@dataclass
class Outcome(Generic[Item, Value]):
    """What came of an item: a value, or the error that it ended in."""

    item: Item
    value: Value | None = None
    error: str | None = None


def each(
    items: Sequence[Item],
    work: Callable[[Item], Value],
    ranks: Ranks,
    progress: Callable[[int], None] | None = None,
    *,
    fatal: bool = False,
) -> list[Outcome[Item, Value]]:
    """`work` on every item, each process on its share; the outcomes of all, in order, in every process.

    Of several items one that fails is an outcome like others, and the rest go on; the error of an only item, and
    with `fatal` of any, is raised.
    """
    found: list[Outcome[Item, Value]] = []
    for item in ranks.share(items):
        try:
            found.append(Outcome(item, work(item)))
        except Exception as error:
            if ranks.world == 1 and (fatal or len(items) == 1):
                raise
            known = isinstance(error, (OSError, ValueError, ImportError))
            found.append(Outcome(item, error=str(error) if known else f"{type(error).__name__}: {error}"))
        if progress is not None:
            progress(1)
    outcomes = ranks.merge(found)
    wrong = [outcome for outcome in outcomes if outcome.error is not None]
    if wrong and (fatal or len(items) == 1):  # all processes end alike
        raise ValueError(wrong[0].error)
    return outcomes


def succeeded(
    outcomes: Sequence[Outcome[Item, Value]], failures: list[Outcome] | None
) -> list[Outcome[Item, Value]]:
    """Those that have a value; the others are put into `failures`. ValueError where none has."""
    wrong = [outcome for outcome in outcomes if outcome.error is not None]
    if failures is not None:
        failures += wrong
    if wrong and len(wrong) == len(outcomes):
        raise ValueError(f"all {len(outcomes)} failed, the first with: {wrong[0].error}")
    return [outcome for outcome in outcomes if outcome.error is None]
