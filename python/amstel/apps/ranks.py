"""Several processes on one task, started by `torchrun`: how work is divided and results are merged.

Example:
    >>> ranks = Ranks()                                    # one process: everything is its share
    >>> [outcome.value for outcome in each([1, 2], lambda n: n * n, ranks)]
    [1, 4]
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import distributed

from amstel import _check, _files

Item = TypeVar("Item")
Value = TypeVar("Value")


#: Whether this process was ever one of a group that `group` made.
connected = False
#: torchrun's store, within a `group` that found it.
store: Any = None


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
    """The requested device, checked."""
    try:
        return torch.device(device)
    except (TypeError, RuntimeError) as error:
        kind = ValueError if isinstance(device, str) else TypeError
        said = f"a torch.device, or a string or index for one, got {_check.describe(device)}"
        raise kind(f"`device` must be {said}") from error


def _numbered(device: str | torch.device) -> torch.device:
    """The number of the GPU that "cuda" means here, which torch sometimes requires: LOCAL_RANK's, or the current one."""
    device = torch.device(device)
    if device.type != "cuda" or device.index is not None or not torch.cuda.is_available():
        return device
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return torch.device("cuda", torch.cuda.current_device())


def current(device: str | torch.device = "cpu") -> Ranks:
    """This process in the current group, or alone."""
    device = _numbered(device)
    if distributed.is_available() and distributed.is_initialized():
        return Ranks(distributed.get_rank(), distributed.get_world_size(), device)
    return Ranks(device=device)


@contextlib.contextmanager
def group(device: str | torch.device = "cpu") -> Iterator[Ranks]:
    """The processes of `torchrun`, connected within the `with` block: by NCCL if they have GPUs, else by Gloo.

    "cuda" is the GPU of the process's LOCAL_RANK. Without torchrun, or if a group already exists, nothing
    is set up or torn down.

    Raises:
        ConnectionError: the other processes cannot be reached.
    """
    global connected, store
    device = _numbered(device)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # torchrun starts a single process anew as well, which asks the store what it wrote.
    alone = world == 1 and "TORCHELASTIC_RUN_ID" not in os.environ
    if alone or store is not None or distributed.is_initialized():
        yield current(device)
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        found, rank, world = next(distributed.rendezvous("env://"))
        if world > 1:
            own = _of_this_start(found, rank, world)
            distributed.init_process_group(backend, store=own, rank=rank, world_size=world)
    except RuntimeError as error:
        from amstel.distributed._collectives import reason

        number = os.environ.get("RANK", "?")
        raise ConnectionError(f"rank {number} of {world} cannot reach the others: {reason(error)}") from error
    connected, store = True, found
    while isinstance(store, distributed.PrefixStore):  # of this start alone
        store = store.underlying_store
    try:
        yield current(device)
    finally:
        store = None
        if world > 1:
            distributed.destroy_process_group()


def _of_this_start(store: Any, rank: int, world: int) -> Any:
    """The store of torchrun without what earlier starts left in it.

    torchrun keeps one store over its restarts, so that a process may find the address of one that is gone, and fail to
    connect. The number of the restart may differ between machines. So the first process invents a name for this start,
    and says it only to those that answer by it now.
    """
    own = uuid.uuid4().hex
    if rank == 0:
        store.set("amstel/start", own)
        for other in range(1, world):
            store.set(f"{own}/{store.get(f'{own}/{other}').decode()}", "")
        return distributed.PrefixStore(own, store)
    while True:
        start = store.get("amstel/start").decode()
        store.set(f"{start}/{rank}", own)
        for _ in range(20):
            if store.check([f"{start}/{own}"]):
                return distributed.PrefixStore(start, store)
            time.sleep(0.01)


@dataclass
class Outcome(Generic[Item, Value]):
    """The outcome for an item: a value, or the error that it raised."""

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
    """Run `work` on every item, each process on its share; every process gets all outcomes, in order.

    If there are several items, one that fails is an outcome like any other, and the rest continue. The error of a single item,
    or of any item with `fatal`, is raised.
    """
    found: list[Outcome[Item, Value]] = []
    for item in ranks.share(items):
        try:
            found.append(Outcome(item, work(item)))
        except Exception as error:
            if ranks.world == 1 and (fatal or len(items) == 1):
                raise
            known = isinstance(error, (OSError, ValueError, ImportError))
            said = _files.said(error) if known else f"{type(error).__name__}: {error}"
            found.append(Outcome(item, error=said))
        if progress is not None:
            progress(1)
    outcomes = ranks.merge(found)
    wrong = [outcome for outcome in outcomes if outcome.error is not None]
    if wrong and (fatal or len(items) == 1):  # all processes exit the same way
        raise ValueError(wrong[0].error)
    return outcomes


def succeeded(
    outcomes: Sequence[Outcome[Item, Value]], failures: list[Outcome] | None
) -> list[Outcome[Item, Value]]:
    """The outcomes with a value; the others go into `failures`. ValueError if there is none."""
    wrong = [outcome for outcome in outcomes if outcome.error is not None]
    if failures is not None:
        failures += wrong
    if wrong and len(wrong) == len(outcomes):
        raise ValueError(f"all {len(outcomes)} failed, the first with: {wrong[0].error}")
    return [outcome for outcome in outcomes if outcome.error is None]
