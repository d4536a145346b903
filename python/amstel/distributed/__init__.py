"""Exact full-batch training of graph networks across processes or machines, with torch.distributed.

`partition` splits a graph, its features and its labels into parts on disk, once. Each process of `torchrun` loads its
part with `DistributedGraph.load` and trains any model of `amstel.nn` on it. Losses and gradients equal those of a
single process up to the order of summation, for any number of ranks. Use Gloo on CPUs and NCCL on GPUs.
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
