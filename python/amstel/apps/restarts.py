"""How a training under `torchrun` ends with a single error, and continues when torchrun restarts it (--max-restarts)."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from torch import distributed

from amstel.apps import ranks
from amstel.distributed import _collectives as collectives

#: Seconds that a process waits for the one that reports an error.
PATIENCE = 5.0
#: What a run in a folder may go on from.
CHECKPOINTS = ("checkpoint.pt", "running/checkpoint.pt")


def wrote(checkpoint: Path) -> None:
    """Record in torchrun's store, which outlives its restarts, that the checkpoint belongs to its run."""
    if ranks.store is not None:
        ranks.store.set(_key(checkpoint), "")


def restarted(out: Path | None) -> bool:
    """Whether torchrun restarted the processes, and `out` holds a checkpoint that they wrote before, not an older one.

    All processes call it together and get the same answer.
    """
    store, files = ranks.store, [] if out is None else [out / name for name in CHECKPOINTS]
    return any(
        collectives.gather(store is not None and any(f.is_file() and store.check([_key(f)]) for f in files))
    )


def _key(checkpoint: Path) -> str:
    return f"amstel/wrote/{os.path.realpath(checkpoint)}"


@contextlib.contextmanager
def one_voice(out: Path | None = None) -> Iterator[None]:
    """If several processes fail, the first to arrive reports the error; the others exit silently.

    If a rank was lost, the message says how to continue the run in `out`, if there is anything to continue. torchrun may
    notice first and stop the others; that counts as such an error, too.
    """
    rank, world = collectives.place()

    def end(*_: object) -> None:
        raise ConnectionError(
            f"rank {rank} of {world} was stopped, as torchrun does when another rank is lost"
        )

    before = signal.signal(signal.SIGTERM, end) if world > 1 else None
    try:
        with _of_connections(rank, world):
            yield
        if world > 1:
            signal.signal(signal.SIGTERM, before)
    except (ValueError, OSError, ImportError, MemoryError) as error:
        if world > 1:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # until it is said
        if not _is_first():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            # torchrun ends all processes once one has exited, and the first has yet to report.
            time.sleep(PATIENCE)
            raise SystemExit(2) from None
        begun = out is not None and any((out / name).is_file() for name in CHECKPOINTS)
        if isinstance(error, ConnectionError) and begun:
            raise ConnectionError(f"{error}; --resume continues from {out}") from error
        raise


@contextlib.contextmanager
def _of_connections(rank: int, world: int) -> Iterator[None]:
    """Errors of the backend, which DistributedDataParallel hands on, as what they are."""
    try:
        yield
    except RuntimeError as error:
        known = isinstance(error, distributed.DistError) or "gloo" in str(error)
        if world == 1 or not known:
            raise
        said = collectives.reason(error)
        raise ConnectionError(
            f"rank {rank} of {world} lost the connection to another rank: {said}"
        ) from error


def _is_first() -> bool:
    try:
        return distributed.distributed_c10d._get_default_store().add("amstel/said", 1) == 1
    except (RuntimeError, ValueError):  # nobody to ask
        return True
