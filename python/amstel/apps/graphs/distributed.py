"""How the processes of `torchrun` get their parts of a data set, and how they report an error once."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from amstel.apps.graphs.predict import load_data
from amstel.apps.graphs.sources import contents, digest, graph_folder, plain
from amstel.apps.graphs.train import CHECKPOINT, RUNNING
from amstel.data.graph_folder import read_facts
from amstel.data.nodes import NodeData
from amstel.data.planetoid import is_name
from amstel.distributed import DistributedGraph, partition
from amstel.distributed import _collectives as collectives
from amstel.distributed.folder import META, read_meta

#: Seconds that a process waits for the one that reports an error.
PATIENCE = 5.0


def write(
    data: NodeData, parts: int, folder: Path, method: str = "ranges", force: bool = False
) -> dict[str, Any]:
    """Partition a node classification problem on disk."""
    return partition(data.graph, parts, folder, method=method, force=force, **contents(data))


def load(name: str, root: Path | None, folder: Path | None, device: str | torch.device) -> DistributedGraph:
    """The part of this process, from a partition in `folder`, which is created if missing; without one, in a temporary folder.

    Only the first process reads the data set, and only if it has not been partitioned yet.

    Raises:
        ValueError: the folder holds a partition of another data set, or with another number of parts.
    """
    rank, world = collectives.place()
    made: Path | None = None
    with collectives.together():
        if rank == 0 and not (folder and (folder / META).exists()):
            made = folder or Path(tempfile.mkdtemp(prefix="amstel-")) / "parts"
            write(load_data(name, root), world, made)
        elif rank == 0:
            assert folder is not None
            _is_of(read_meta(folder), name, root, folder)
    try:
        place = collectives.gather(str(made or folder))[0]
        return DistributedGraph.load(place, device=device)
    finally:
        if made is not None and folder is None:  # mapped files stay readable
            shutil.rmtree(made.parent, ignore_errors=True)


def _is_of(meta: dict[str, Any], name: str, root: Path | None, folder: Path) -> None:
    """ValueError if a partition belongs to another data set, or, where the data can be read, to other contents."""
    there = graph_folder(name, root)
    wanted = name if there is None else read_facts(there)["name"]
    if plain(meta["name"]) != plain(wanted):
        raise ValueError(f"{folder} holds the parts of {meta['name'] or 'another graph'}, not of {wanted}")
    elsewhere = plain(name) == "block-model" or (os.environ.get("AMSTEL_DATA") and is_name(name))
    if root is None and there is None and not elsewhere:
        return  # the parts are all that there is
    try:
        data = load_data(name, root)
    except FileNotFoundError:
        if root is not None:
            raise
        return
    if digest(data) != meta["graph"]:
        raise ValueError(f"{folder} holds the parts of another graph than {name} is now")


def restarted(out: Path | None) -> bool:
    """Whether torchrun started any process anew (--max-restarts) and `out` holds what a run goes on from.

    All processes call it together and hear the same: torchrun counts restarts by machine, and where it started some again
    because of others, it does not count them.
    """
    again = out is not None and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0 and _begun(out)
    return any(collectives.gather(again))


def _begun(out: Path) -> bool:
    return any(file.is_file() for file in (out / CHECKPOINT, out / RUNNING / CHECKPOINT))


@contextlib.contextmanager
def one_voice(out: Path | None = None) -> Iterator[None]:
    """If several processes fail, the first to arrive reports the error; the others exit silently.

    If a rank was lost, the message says how to continue the run in `out`, if there is anything to continue. torchrun may
    find out first and end the others; that is such an error as well.
    """
    rank, world = collectives.place()

    def end(*_: Any) -> None:
        raise ConnectionError(f"rank {rank} of {world} was ended, as torchrun does if another rank is lost")

    before = signal.signal(signal.SIGTERM, end) if world > 1 else None
    try:
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
        if isinstance(error, ConnectionError) and out is not None and _begun(out):
            raise ConnectionError(f"{error}; --resume continues from {out}") from error
        raise


def _is_first() -> bool:
    try:
        return distributed.distributed_c10d._get_default_store().add("amstel/said", 1) == 1
    except (RuntimeError, ValueError):  # nobody to ask
        return True
