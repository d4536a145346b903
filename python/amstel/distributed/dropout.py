"""Dropout by node: masks that depend only on (seed, epoch, layer, node, feature).

So it is the same however the nodes are spread over processes, however they are ordered and whichever of them are
computed. Each word of 64 random bits is a hash of a key (seed, epoch, layer) and a counter (node, block of features):
the finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), applied to the counter and, after the key came in, once
more. It serves 64 features at a rate of 0.5, two at any other.
"""

from __future__ import annotations

import torch
from torch import Tensor

from amstel import _check

_MASK = 2**64 - 1


def _signed(word: int) -> int:
    word &= _MASK
    return word - 2**64 if word >> 63 else word


_FIRST, _SECOND, _STEP = (_signed(c) for c in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0x9E3779B97F4A7C15))


def _mix(z: Tensor) -> Tensor:
    """SplitMix64's finalizer; int64 arithmetic wraps, and a shift brings in zeros."""
    z = (z ^ ((z >> 30) & (2**34 - 1))) * _FIRST
    z = (z ^ ((z >> 27) & (2**37 - 1))) * _SECOND
    return z ^ ((z >> 31) & (2**33 - 1))


def key(seed: int, epoch: int = 0, layer: int = 0) -> int:
    """The key with which the masks of (seed, epoch, layer) are drawn.

    Example:
        >>> amstel.distributed.key(0, epoch=1) == amstel.distributed.key(0, epoch=2)
        False
    """
    z = 0
    for part in (seed, epoch, layer):
        z = (z * _STEP + int(part) + 1) & _MASK
        z = ((z ^ z >> 30) * _FIRST) & _MASK
        z = ((z ^ z >> 27) * _SECOND) & _MASK
        z ^= z >> 31
    return _signed(z)


class NodeDropout:
    """Draws dropout masks for the values of some nodes, `size` per node.

    Args:
        rate: share that is dropped, in [0, 1).
        nodes: int64 [n], the numbers of the nodes in the whole graph.
        size: number of values per node, or a vector [n] with that of each node, for the stored values of a sparse matrix.

    Example:
        >>> drop = amstel.distributed.NodeDropout(0.5, torch.arange(4), 3)
        >>> mask = drop.draw([amstel.distributed.key(seed=0, epoch=7)])
        >>> mask.shape, torch.equal(amstel.distributed.NodeDropout(0.5, torch.tensor([2]), 3).draw(
        ...     [amstel.distributed.key(seed=0, epoch=7)])[0], mask[0, 6:9])
        (torch.Size([1, 12]), True)
    """

    def __init__(self, rate: float, nodes: Tensor, size: int | Tensor):
        self.rate = float(_check.number("rate", rate, "in [0, 1)", least=0, below=1))
        self._lanes = 64 if rate == 0.5 else 2
        device = nodes.device
        if isinstance(size, int):
            size = torch.tensor(size, device=device).expand(len(nodes))
        words = -(-size // self._lanes)
        starts, first = words.cumsum(0) - words, size.cumsum(0) - size
        block = torch.arange(int(words.sum()), device=device) - torch.repeat_interleave(starts, words)
        self._base = _mix((torch.repeat_interleave(nodes, words) << 24) + block)
        self._slot = torch.arange(int(size.sum()), device=device)
        self._slot += torch.repeat_interleave(starts * self._lanes - first, size)
        if torch.equal(self._slot, torch.arange(len(self._base) * self._lanes, device=device)):
            self._slot = self._slot[:0]  # no lane is left out

    def draw(self, keys: list[int], scale: Tensor | float = 1.0) -> Tensor:
        """float32 [keys, values]: one mask per key, `scale` / (1 - rate) where a value is kept, else 0."""
        base = self._base
        words = _mix(base ^ torch.tensor(keys, device=base.device)[:, None])
        if self._lanes == 64:
            # Bytes in the order of the memory, bits from the lowest.
            shift = torch.arange(8, dtype=torch.uint8, device=base.device)
            kept = ((words.view(torch.uint8)[..., None] >> shift) & 1).view(len(keys), -1)
        else:
            limit = round(self.rate * 2**32) - 2**31
            kept = (words.view(torch.int32) >= limit).view(len(keys), -1)
        if len(self._slot) or not len(base):
            kept = kept.index_select(1, self._slot)
        return kept * (scale / (1 - self.rate))


def node_dropout(x: Tensor, rate: float, nodes: Tensor, key: int) -> Tensor:
    """Dropout on x [n, F] or [B, n, F], with a mask that depends on the node; the rest is scaled by 1 / (1 - rate).

    Args:
        x: features of the nodes; every item of a batch has its own mask. For a torch.sparse_csr tensor, stored values
            are dropped.
        rate: share that is dropped, in [0, 1).
        nodes: int64 [n], the indices of the nodes in the whole graph.
        key: from `amstel.distributed.key`.

    Example:
        >>> x = torch.ones(2, 8)
        >>> y = amstel.distributed.node_dropout(x, 0.5, torch.tensor([5, 9]), amstel.distributed.key(0))
        >>> sorted(set(y.flatten().tolist()))
        [0.0, 2.0]
    """
    _check.tensor("x", x, "features [n, F] or [B, n, F]")
    _check.tensor("nodes", nodes, "an int64 tensor [n]")
    _check.number("rate", rate, "a share in [0, 1)", least=0, below=1)
    if nodes.dtype != torch.int64 or x.dim() not in (2, 3) or nodes.shape != x.shape[-2:-1]:
        _check.fail(
            "nodes", f"int64 [{x.shape[-2] if x.dim() > 1 else 'n'}], a number for each node of x", nodes
        )
    if rate == 0:
        return x
    if x.layout == torch.sparse_csr:
        crow, col = x.crow_indices(), x.col_indices()
        values = x.values() * NodeDropout(rate, nodes, crow.diff()).draw([key])[0].to(x.dtype)
        return torch.sparse_csr_tensor(crow, col, values, x.shape, check_invariants=False)
    batch = x.shape[:-2].numel()
    keys = [_signed(key + item * 0x9E3779B97F4A7C15) for item in range(batch)]
    mask = NodeDropout(rate, nodes, x.shape[-1]).draw(keys)
    return x * mask.view(x.shape).to(x.dtype)
