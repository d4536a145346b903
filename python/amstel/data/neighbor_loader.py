"""NeighborLoader: batches of nodes with sampled neighbors, over which a model computes unbiased sums."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from amstel import _check, _library, _subgraph
from amstel.data._loader import Loader, NodeBatch, rows_of
from amstel.graph import Graph
from amstel.sampled import SampledGraph


class NeighborLoader(Loader):
    r"""Batches of seed nodes with sampled neighbors, one bipartite graph per layer (the sampling of GraphSAGE).

    Args:
        graph: square, of N nodes, on the CPU.
        x: features: a tensor [N, ...], dense or torch.sparse_csr, a NumPy array or memory map, or any object whose
            `__getitem__` takes an int64 tensor of node numbers and returns their rows; or None.
        y: labels [N, ...], in any of these forms; or None.
        fanouts: number of in-neighbors to draw per node at each step away from the seeds, nearest first; -1 takes
            all. One per layer of the model.
        batch_size: seeds per batch.
        seeds: nodes to make batches of: distinct indices, or a mask [N]; default: all nodes.
        replace: whether to draw with replacement. Without, a node with no more neighbors than are drawn gets all of
            them once.
        probability: [E] in the order in which the edges were given, finite and >= 0: the edges of a node are drawn in
            proportion to it. Edges with 0 are never drawn; sums are then unbiased over the others. Default: uniform.
        shuffle: whether to shuffle the seeds in every epoch.
        drop_last: whether to drop a last batch with fewer seeds.
        seed: seed of the random numbers.
        num_workers: threads that prepare batches ahead; with 0, PyTorch's threads share the work on each batch.
        prefetch: maximum number of batches each worker prepares ahead.
        pin_memory: whether to pin the batches, for `device`.
        device: where to put the batches; copies to a GPU overlap with the work on the previous batch.

    `for batch in loader` is an epoch of `NodeBatch`, and `len(loader)` their number. The sample depends only on seed,
    epoch, batch, step and node, so it is the same for any number of workers and threads. Set `loader.epoch` to
    resume.

    If S_i are the edges drawn into node i, ``sum over S_i of s_e a_e x_src(e)`` is an unbiased estimate of the sum
    over all edges. s_e is d_i / k for k of d_i edges; 1 / (k p_e) with `probability` and `replace`; and without
    replacement the inverse of the probability that e is among the k smallest of the exponential ranks E_e / p_e, given
    the others. The layers hold the s_e and the degrees of the whole graph, so GCNConv needs no extra arguments.

    Raises:
        ValueError or TypeError: an argument is not as described. Exceptions from an object for x are raised by the
            iteration.

    Complexity: per batch, its nodes and edges, and with `probability` the degrees of its nodes; independent of the
    size of the graph.

    Source: W. Hamilton, R. Ying and J. Leskovec, Inductive Representation Learning on Large Graphs, NeurIPS 2017,
    section 3.1; E. Cohen and H. Kaplan, Summarizing Data using Bottom-k Sketches, PODC 2007.

    Example:
        >>> data = amstel.data.karate_club()
        >>> loader = amstel.data.NeighborLoader(data.graph, torch.eye(34), data.labels, fanouts=[4, 3],
        ...     batch_size=16, seeds=data.test)
        >>> model = amstel.nn.GCN(34, 8, 4)
        >>> for batch in loader:
        ...     loss = torch.nn.functional.cross_entropy(model(batch.x, batch.layers), batch.y)
        >>> len(loader), len(batch.layers)
        (2, 2)
    """

    def __init__(
        self,
        graph: Graph,
        x: Any = None,
        y: Any = None,
        fanouts: Sequence[int] = (15, 10),
        batch_size: int = 1024,
        seeds: Any = None,
        *,
        replace: bool = False,
        probability: Any = None,
        shuffle: bool = True,
        drop_last: bool = False,
        seed: int = 0,
        num_workers: int = 0,
        prefetch: int = 2,
        pin_memory: bool = False,
        device: Any = None,
    ):
        super().__init__(
            graph,
            x,
            y,
            {
                "shuffle": shuffle,
                "seed": seed,
                "num_workers": num_workers,
                "prefetch": prefetch,
                "pin_memory": pin_memory,
                "device": device,
            },
        )
        self.fanouts = fanouts_of(fanouts)
        self.batch_size = _check.integer("batch_size", batch_size, 1)
        self.replace = _check.flag("replace", replace)
        self.drop_last = _check.flag("drop_last", drop_last)
        n = graph.num_nodes
        self.seeds = torch.arange(n) if seeds is None else _subgraph.node_numbers("seeds", seeds, n)
        self._chance = None if probability is None else _chances(graph, probability)
        self._degree = graph._degree(torch.float64)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.seeds), self.batch_size)
        return whole if self.drop_last or not rest else whole + 1

    def __repr__(self) -> str:
        return (
            f"NeighborLoader({self.graph!r}, fanouts={list(self.fanouts)}, batch_size={self.batch_size}, "
            f"batches={len(self)})"
        )

    def __iter__(self) -> Iterator[NodeBatch]:
        return super().__iter__()

    def _plan(self, epoch: int) -> tuple[int, Callable[[int, bool], NodeBatch]]:
        seeds, size = self.seeds[self._order(len(self.seeds), epoch)], self.batch_size
        return len(self), lambda number, parallel: self._sampled(
            seeds[number * size : (number + 1) * size], epoch, number, parallel
        )

    def sample(self, seeds: Any, epoch: int = 0, number: int = 0) -> NodeBatch:
        """The batch for these seeds (distinct indices or a mask), drawn like batch `number` of an epoch.

        Example:
            >>> graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]]))
            >>> amstel.data.NeighborLoader(graph, fanouts=[-1, -1]).sample([4, 1]).nodes.tolist()
            [4, 1, 3, 0, 2]
        """
        found = _subgraph.node_numbers("seeds", seeds, self.graph.num_nodes)
        return self._sampled(
            found, _check.integer("epoch", epoch, 0), _check.integer("number", number, 0), True
        )

    def _sampled(self, seeds: Tensor, epoch: int, number: int, parallel: bool) -> NodeBatch:
        graph, nodes, drawn = self.graph, seeds, []
        for step, fanout in enumerate(self.fanouts):
            crow, col, slot, scale, nodes = _library.operators.sample_neighbors(
                graph._crow, graph._col, self._chance, nodes, fanout, self.replace,
                self._key(epoch, number * len(self.fanouts) + step), parallel,
            )  # fmt: skip
            drawn.append(((crow, col, slot), scale if len(scale) else None, len(nodes)))
        # The nodes of a step are the first of those of the next.
        degree = self._degree[nodes]
        layers = [
            SampledGraph._of(graph, arrays, scale, nodes[:size], degree[:size])
            for arrays, scale, size in reversed(drawn)
        ]
        x, y = rows_of("x", self.x, nodes, parallel), rows_of("y", self.y, seeds)
        return NodeBatch(layers, nodes, nodes[: len(seeds)], x, y, number)


def fanouts_of(value: Any) -> tuple[int, ...]:
    """Checked."""
    expected = "one or more integers, each >= 1 or -1 for all neighbors"
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        try:
            value = list(value)
        except TypeError:
            _check.fail_type("fanouts", expected, value)
    found = tuple(_check.integer("fanouts", one, -1, expected) for one in value)
    if not found or 0 in found or max(found) >= 2**31 - 1:
        _check.fail("fanouts", expected, value)
    return found


def _chances(graph: Graph, value: Any) -> Tensor:
    """Checked, as float32 in the order of the slots."""
    expected = f"finite numbers >= 0, floating point [{graph.num_edges}]"
    _check.unmasked("probability", value)
    try:
        found = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"`probability` must be {expected}, got {_check.describe(value)}") from error
    if found.shape != (graph.num_edges,) or found.dtype not in _check.FLOATS or found.is_cuda:
        _check.fail("probability", expected, found)
    given = found.detach()
    found = given.float()
    if bool((~found.isfinite() | ((found == 0) & (given != 0))).any()) and bool(given.isfinite().all()):
        # What float64 has and float32 has not: only the proportions count.
        found = (given / given.max()).float()
    wrong = (~found.isfinite() | (found < 0) | ((found == 0) & (given != 0))).nonzero()
    if len(wrong):
        k = int(wrong[0])
        raise ValueError(
            f"`probability` must be {expected}, in proportions that float32 holds, got {float(given[k])} at position {k}"
        )
    return found.contiguous() if graph._edge is None else found[graph._edge.long()]
