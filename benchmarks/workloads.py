"""Realistic shapes: real graphs if AMSTEL_DATA has them, and generated ones for everyone."""

import os
from functools import cache
from pathlib import Path

import numpy as np
import torch

from amstel import Graph
from benchmarks.suite import Shape

# name: whether it is left to `-m large`
GRAPHS = {
    "cora": False, "citeseer": True, "pubmed": False, "nell": True, "amazon_photo": True, "musae_git": False,
    "fb100_Cornell5": False, "soc-slashdot0902-directed": True, "minesweeper": True, "squirrel": True,
}  # fmt: skip
GENERATED = {"generated_grid": True, "generated_powerlaw": False}
#: nodes and mean degree; made on the device, skewed, too large for any cache
RANDOM = {"random-1M": (1_000_000, 20), "random-2.4M": (2_400_000, 26)}


def data_root() -> Path:
    return Path(os.environ.get("AMSTEL_DATA") or Path(__file__).parent / "no-data")


def graph_shapes(widths: dict[int, bool], random: tuple[int, ...] = ()) -> dict[str, Shape]:
    """Workloads (graph, features): the graphs that can be had here, and on CUDA large random ones.

    widths: features, and whether on the CPU they are left to `-m large`.
    """
    here = {n: large for n, large in GRAPHS.items() if (data_root() / "graphs" / f"{n}.npz").exists()}
    found = {
        f"{name}_F{width}": Shape((name, width), ("tiny", 8), large=large or rare)
        for name, large in (here | GENERATED).items()
        for width, rare in widths.items()
    }
    found |= {
        f"{name}_F{width}": Shape((name, width), ("tiny", 8), ("cuda",))
        for name in RANDOM
        for width in random
    }
    return found


@cache
def csr(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """indptr and indices (int64) of a graph; rows are targets."""
    if name == "tiny":
        nodes, pairs = 60, torch.randint(0, 60, (2, 200), generator=torch.Generator().manual_seed(0))
        return from_pairs(pairs[:, pairs[0] != pairs[1]], nodes)
    if name not in GENERATED:
        arrays = np.load(data_root() / "graphs" / f"{name}.npz")
        return torch.from_numpy(arrays["indptr"]).long(), torch.from_numpy(arrays["indices"]).long()
    if name == "generated_grid":
        n = 150
        id = torch.arange(n * n).reshape(n, n)
        pairs = torch.cat(
            [torch.stack([id[:, 1:], id[:, :-1]]).flatten(1), torch.stack([id[1:], id[:-1]]).flatten(1)], 1
        )
        nodes = n * n
    else:
        nodes, generator = 30_000, torch.Generator().manual_seed(0)
        # Preferential attachment in spirit: the square of a uniform number favors small indices.
        pairs = (torch.rand(2, 300_000, generator=generator).pow(3) * nodes).long()
        pairs = pairs[:, pairs[0] != pairs[1]]
    return from_pairs(pairs, nodes)


def from_pairs(pairs: torch.Tensor, nodes: int) -> tuple[torch.Tensor, torch.Tensor]:
    pairs = torch.cat([pairs, pairs.flip(0)], 1)
    key = torch.unique(pairs[1] * nodes + pairs[0])
    return torch.searchsorted(key, torch.arange(nodes + 1) * nodes), key % nodes


def graph_of(name: str, device: str) -> Graph:
    """A graph on a device; the random ones have parallel edges, as their users' have."""
    if name not in RANDOM:
        return Graph.from_csr(*csr(name)).to(device)
    nodes, degree = RANDOM[name]
    g = torch.Generator(device).manual_seed(0)
    ends = torch.rand(2, nodes * degree, device=device, generator=g, dtype=torch.float64) ** 1.5 * nodes
    return Graph.from_edge_index(ends.long(), nodes)


def edge_index(name: str) -> torch.Tensor:
    indptr, indices = csr(name)
    target = torch.repeat_interleave(torch.arange(indptr.numel() - 1), indptr.diff())
    return torch.stack([indices, target])


def sint_candidates() -> torch.Tensor:
    """SINT's 303 candidates [K, 5] around a box of 102x124 in a frame of 512x384 that is resized to 512x512."""
    from amstel.tracking.candidates import candidates

    box = torch.tensor([205.0, 130.0, 102.0, 124.0], dtype=torch.float64)
    x, y, w, h = candidates(box, box, 512).unbind(1)
    corners = torch.stack([x, y, x + w, y + h], 1) * torch.tensor([1, 512 / 384, 1, 512 / 384])
    return torch.cat([torch.zeros(len(corners), 1), corners.float()], 1)


def random_boxes(count: int, height: int, width: int) -> torch.Tensor:
    """Boxes [K, 5] of image 0 between two uniform corners."""
    corners = torch.rand(2, count, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor(
        [width, height]
    )
    return torch.cat([torch.zeros(count, 1), corners.amin(0), corners.amax(0)], 1)
