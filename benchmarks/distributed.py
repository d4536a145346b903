"""Full-batch training of a graph in parts: time, memory and bytes of each rank, and a model of more machines.

    python -m benchmarks.distributed make FOLDER --parts 1 2 4 [--nodes 2400000 --edges 62000000]
    torchrun --standalone --nproc-per-node 4 -m benchmarks.distributed run FOLDER [--hidden 128] [--json FILE]
    python -m benchmarks.distributed model FILE [--one FILE]

`make` writes a made-up graph of ogbn-products' size in parts: degrees fall off as a power law, and neighbors are mostly
near by number, as they are after METIS. `run` trains a GCN of three layers of 256 hidden units on 100 features, and says
of each rank the seconds of an epoch, the peak of its memory, and what it sent; and of all, that beside the least that
the cut allows: every halo row once a product. `model`
takes what the ranks measured and says what 8 to 64 machines would take, by these assumptions: the products and the matrix
products of a rank scale with its nodes and edges at the rate measured here, by all ranks or, where ranks shared cores, by the
one of --one; rows travel once forward and once backward a layer at the bandwidth given, while no product hides them; parts
are of equal size, and a part's halo shrinks with the square root of its nodes, as the border of a plane does.
"""

import argparse
import json
import os
import resource
import time
from pathlib import Path

import numpy as np
import torch
from torch import distributed
from torch.nn import functional as F

import amstel
from amstel.distributed import DistributedGraph, partition, sum_gradients
from amstel.distributed import _collectives as collectives

FEATURES, HIDDEN, CLASSES, LAYERS = 100, 256, 47, 3


def graph(nodes: int, edges: int, seed: int = 0) -> amstel.Graph:
    """In-degrees like 1 / sqrt(u), sources at a distance whose logarithm is uniform, in both directions."""
    rng = np.random.default_rng(seed)
    target = rng.permutation(nodes)[(rng.random(edges) ** 2 * nodes).astype(np.int64)]
    distance = np.exp(rng.random(edges) * np.log(nodes / 4)).astype(np.int64)
    source = (target + np.where(rng.random(edges) < 0.5, distance, -distance)) % nodes
    index = torch.from_numpy(np.stack([source, target]))
    return amstel.Graph.from_edge_index(index, nodes)


def make(folder: Path, parts: list[int], nodes: int, edges: int) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((nodes, FEATURES), np.float32)
    y = rng.integers(CLASSES, size=nodes)
    train = rng.permutation(nodes)[: nodes // 12]
    whole = graph(nodes, edges)
    for count in parts:
        place = folder / f"parts-{count}"
        meta = partition(whole, count, place, x=x, y=y, splits={"train": train}, force=True)
        print(f"{place}: halo {meta['halo']}; peak of the memory {peak() / 2**30:.2f} GiB", flush=True)


def peak() -> int:
    """Most bytes that this process had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run(folder: Path, epochs: int, hidden: int) -> dict:
    before, sent, real = peak(), 0, collectives.all_to_all

    def counted(rows, send, receive, group=None):
        nonlocal sent
        sent += sum(send) * rows[:1].numel() * rows.element_size() if len(rows) else 0
        return real(rows, send, receive, group)

    part = DistributedGraph.load(folder / f"parts-{collectives.place()[1]}")
    torch.manual_seed(0)
    model = amstel.nn.GCN(FEATURES, hidden, CLASSES, num_layers=LAYERS, dropout=0.0)
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    rows, total = part.splits["train"], part.totals["train"]
    collectives.all_to_all = counted
    seconds = []
    for _ in range(epochs + 1):
        start, sent = time.perf_counter(), 0
        loss = F.cross_entropy(model(part.x, part)[rows], part.y[rows], reduction="sum") / total
        adam.zero_grad()
        loss.backward()
        sum_gradients(model)
        adam.step()
        seconds.append(time.perf_counter() - start)
    # Layer 1 needs no gradient of its input; it propagates the narrower side, and so do the others.
    widths = [FEATURES, hidden, CLASSES]
    least = 4 * (widths[0] + 2 * (widths[1] + widths[2]))
    facts = {"rank": part.rank, "world": part.world, "nodes": part.num_nodes, "halo": len(part.halo)}
    facts |= {
        "edges": part._own.num_edges + part._halo.num_edges,
        "seconds": float(np.median(seconds[1:] or seconds)),
    }
    facts |= {"memory": peak(), "own_memory": peak() - before, "sent": sent, "loss": float(loss.detach())}
    return facts | {"bytes_a_halo_row": least}


def model(facts: list[dict], bandwidth: float, alone: list[dict] | None = None) -> None:
    one = facts[0]
    nodes, halo = (sum(f[k] for f in facts) for k in ("nodes", "halo"))
    work = sum(f["seconds"] for f in alone or facts)
    for machines in (8, 16, 32, 64):
        share = nodes / machines
        border = min(nodes - share, halo / len(facts) * (share / (nodes / len(facts))) ** 0.5) if halo else 0
        compute, travel = work / machines, border * one["bytes_a_halo_row"] / bandwidth
        print(
            f"{machines:3d} machines: {compute:.2f} s to compute, {travel:.2f} s to send, {compute + travel:.2f} s an epoch"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["make", "run", "model"])
    parser.add_argument("path", type=Path)
    parser.add_argument("--parts", type=int, nargs="+", default=[1])
    parser.add_argument("--hidden", type=int, default=HIDDEN)
    parser.add_argument("--nodes", type=int, default=2_400_000)
    parser.add_argument("--edges", type=int, default=62_000_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", type=Path, help="facts of one rank")
    parser.add_argument("--bandwidth", type=float, default=1.25e9, help="bytes a second and machine")
    given = parser.parse_args()
    if given.what == "make":
        make(given.path, given.parts, given.nodes, given.edges)
    elif given.what == "model":
        alone = json.loads(given.one.read_text()) if given.one else None
        model(json.loads(given.path.read_text()), given.bandwidth, alone)
    else:
        if "WORLD_SIZE" in os.environ:
            distributed.init_process_group("gloo")
        facts = collectives.gather(run(given.path, given.epochs, given.hidden))
        if facts[0]["rank"] == 0 and collectives.place()[0] == 0:
            for one in facts:
                print(json.dumps(one))
            sent, least = sum(f["sent"] for f in facts), sum(f["halo"] * f["bytes_a_halo_row"] for f in facts)
            print(f"sent {sent / 1e9:.3f} GB an epoch; the cut asks for {least / 1e9:.3f} GB at least")
            if given.json:
                given.json.write_text(json.dumps(facts, indent=1) + "\n")
        if distributed.is_initialized():
            distributed.destroy_process_group()


if __name__ == "__main__":
    main()
