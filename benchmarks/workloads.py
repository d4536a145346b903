"""The shapes of the field: real graphs where AMSTEL_DATA has them, generated ones for everybody."""

import os
from functools import cache
from pathlib import Path

import numpy as np
import torch

GRAPHS = [
    "cora", "citeseer", "pubmed", "nell", "amazon_photo", "musae_git", "fb100_Cornell5",
    "soc-slashdot0902-directed", "minesweeper", "squirrel",
]  # fmt: skip
GENERATED = ["generated_grid", "generated_powerlaw"]
FEATURES = [16, 32, 64, 128, 256]


def data_root() -> Path:
    return Path(os.environ.get("AMSTEL_DATA") or Path(__file__).parent / "no-data")


def graphs() -> list[str]:
    """Names of the graphs that can be had here."""
    return [n for n in GRAPHS if (data_root() / "graphs" / f"{n}.npz").exists()] + GENERATED


@cache
def csr(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """indptr and indices (int64) of a graph; rows are targets."""
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
        # Preferential attachment in spirit: the square of a uniform number favours small indices.
        pairs = (torch.rand(2, 300_000, generator=generator).pow(3) * nodes).long()
        pairs = pairs[:, pairs[0] != pairs[1]]
    pairs = torch.cat([pairs, pairs.flip(0)], 1)
    key = torch.unique(pairs[1] * nodes + pairs[0])
    indptr = torch.searchsorted(key, torch.arange(nodes + 1) * nodes)
    return indptr, key % nodes


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
