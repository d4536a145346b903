"""Exact full-batch training of graph networks on several processes or machines, over torch.distributed.

`partition` cuts a graph, its features and labels into parts on disk, once; each process of `torchrun` loads its own with
`DistributedGraph.load` and trains any model of `amstel.nn` on it. Losses and gradients are those of one process, up to
the order of sums, whatever the number of ranks. Gloo serves CPUs, NCCL GPUs.
"""

from amstel.distributed.dropout import NodeDropout, key, node_dropout
from amstel.distributed.exchange import Exchange
from amstel.distributed.folder import partition
from amstel.distributed.graph import DistributedGraph, sum_gradients

__all__ = [
    "DistributedGraph",
    "Exchange",
    "NodeDropout",
    "key",
    "node_dropout",
    "partition",
    "sum_gradients",
]
