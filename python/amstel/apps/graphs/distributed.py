"""How the processes of `torchrun` get their parts of a data set."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from amstel.apps.graphs.predict import load_data
from amstel.apps.graphs.sources import contents, digest, graph_folder, plain
from amstel.data.graph_folder import read_facts
from amstel.data.nodes import NodeData
from amstel.data.planetoid import is_name
from amstel.distributed import DistributedGraph, partition
from amstel.distributed import _collectives as collectives
from amstel.distributed.folder import META, read_meta


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
            if folder and folder.is_dir() and any(folder.iterdir()):
                raise FileExistsError(
                    f"{folder} must be a new folder, or one that holds parts, got other files"
                )
            made = folder or Path(tempfile.mkdtemp(prefix="amstel-")) / "parts"
            write(load_data(name, root), world, made)
        elif rank == 0:
            assert folder is not None
            _is_of(read_meta(folder), name, root, folder)
    try:
        place = collectives.gather(str(made or folder))[0]
        found = DistributedGraph.load(place, device=device)
        found.origin = graph_folder(name, root)
        return found
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
        raise ValueError(f"{folder} holds the parts of another graph than the current {name}")
