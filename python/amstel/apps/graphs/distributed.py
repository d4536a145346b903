"""A study on a graph that is spread over the processes of `torchrun`: the same losses as in one process.

The engine and the training are those of `amstel.apps.graphs.train`. Each process holds the rows of the propagation
matrices for the nodes that it owns, fetches what these need of other nodes (`amstel.distributed.Exchange`), and the
gradients are added up.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from amstel.apps.graphs.predict import load_data
from amstel.apps.graphs.problem import PARTS, _Field, _identity, _Problem, polynomials
from amstel.apps.graphs.settings import Settings
from amstel.data.nodes import NodeData
from amstel.distributed import DistributedGraph, Exchange, partition
from amstel.distributed import _collectives as collectives
from amstel.distributed.folder import META, digest_of, read_meta


def write(
    data: NodeData, parts: int, folder: Path, method: str = "ranges", force: bool = False
) -> dict[str, Any]:
    """Cut a problem of node classification into parts on disk."""
    return partition(data.graph, parts, folder, method=method, force=force, **_contents(data))


def load(name: str, root: Path | None, folder: Path | None, device: torch.device) -> DistributedGraph:
    """The part of this process, of a partition that is in `folder`, or is made there, or in a folder for the moment.

    Only the first process reads the data set, and only where its partition is not there yet.

    Raises:
        ValueError: the folder holds a partition of another data set, or another number of parts.
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
        if made is not None and folder is None:  # what is mapped stays readable
            shutil.rmtree(made.parent, ignore_errors=True)


def _contents(data: NodeData) -> dict[str, Any]:
    splits = {part: getattr(data, part) for part in PARTS}
    facts = {"name": data.name, "num_classes": data.num_classes}
    return {"x": data.features, "y": data.labels, "splits": splits, **facts}


def _is_of(meta: dict[str, Any], name: str, root: Path | None, folder: Path) -> None:
    """ValueError where a partition is of another data set; where the files of the set are given, of other contents."""
    if meta["name"].replace(" ", "-").lower() != name.replace(" ", "-").lower():
        raise ValueError(f"{folder} holds the parts of {meta['name'] or 'another graph'}, not of {name}")
    if root is None and name.replace(" ", "-") != "block-model":
        return
    data = load_data(name, root)
    if digest_of(data.graph, **_contents(data)) != meta["graph"]:
        raise ValueError(f"{folder} holds the parts of another graph than {name} is now")


@contextlib.contextmanager
def one_voice(out: Path | None = None) -> Iterator[None]:
    """An error that several processes end in is told by the first that comes to it; the others end in silence.

    Where a rank was lost, the line says how to go on with the run in `out`.
    """
    try:
        yield
    except (ValueError, OSError, ImportError, MemoryError) as error:
        if not _is_first():
            raise SystemExit(2) from None
        if isinstance(error, ConnectionError) and out is not None:
            raise ConnectionError(f"{error}; --resume goes on from {out}") from error
        raise


def _is_first() -> bool:
    try:
        return distributed.distributed_c10d._get_default_store().add("amstel/said", 1) == 1
    except (RuntimeError, ValueError):  # nobody to ask
        return True


class DistributedProblem(_Problem):
    """The share of a problem that this process has."""

    def __init__(
        self, graph: DistributedGraph, model: str, settings: Settings, device: str | torch.device = "cpu"
    ):
        self.settings, self.device = settings, torch.device(device)
        self.graph, self.outputs, self.numbers = graph, graph.meta["classes"], graph.nodes.cpu()
        self._offsets = graph.meta["offsets"]
        features = None if graph.x is None else graph.x.cpu()
        self._matrices(self._polynomials(model), features)
        if features is None:  # the identity, in the order of the whole graph
            self.features = _identity(self.numbers, graph.total_nodes)
        rows = {part: graph.splits[part].cpu() for part in PARTS if part in graph.splits}
        if graph.y is None or not graph.totals.get("train") or not graph.totals.get("test"):
            raise ValueError("the partition must hold labels and nodes to train and to test")
        self._split(rows, graph.totals, graph.y.cpu())

    def _polynomials(self, model: str) -> list[Tensor]:
        """The rows of the T_k for the nodes of this process, columns by the numbers of the partition."""
        graph, begin = self.graph, self._offsets[self.graph.rank]
        n, total = graph.num_nodes, graph.total_nodes
        index, values = graph.edges()
        adjacency = torch.sparse_coo_tensor(
            index.cpu(), values.float().cpu(), (n, total), check_invariants=False
        )

        def fetch(col: Tensor) -> tuple[Exchange, Tensor, Tensor]:
            wanted, number = col.unique(return_inverse=True)
            return Exchange(wanted, self._offsets, graph.group), wanted, number

        def at(scale: Tensor, col: Tensor) -> Tensor:
            exchange, _, number = fetch(col)
            return exchange(scale[:, None])[number, 0]

        def times(a: Tensor, b: Tensor) -> Tensor:
            row, col = a.indices()
            exchange, wanted, number = fetch(col)
            crow = torch.zeros(n + 1, dtype=torch.int64)
            crow[1:] = torch.bincount(b.indices()[0], minlength=n).cumsum(0)
            crow, there, value = exchange.rows(crow, b.indices()[1], b.values())
            index = torch.stack([torch.repeat_interleave(torch.arange(len(wanted)), crow.diff()), there])
            size = (len(wanted), total)
            right = torch.sparse_coo_tensor(index, value, size, check_invariants=False)
            left = torch.sparse_coo_tensor(
                torch.stack([row, number]), a.values(), (n, len(wanted)), check_invariants=False
            )
            return torch.sparse.mm(left, right)

        identity = _identity(begin + torch.arange(n), total)
        return polynomials(adjacency.coalesce(), identity, model, at, times)

    def field(self, nodes: Tensor) -> _Field:
        def route(wanted: Tensor) -> tuple[Exchange, Tensor]:
            exchange = Exchange(wanted.to(self.device), self._offsets, self.graph.group)
            return exchange, exchange.compact().cpu()

        return _Field(self, nodes, route)

    def total(self, value: Tensor) -> Tensor:
        return collectives.all_reduce(value, self.graph.group)
